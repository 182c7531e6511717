"""Sets of frames: the files that esorex takes, each with ESO's tag.

Source of what each recipe takes: manual pages of the MUSE pipeline 2.8.7 (MAN).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from recipes.esorecipes import ESO_RECIPES
from tasks.cascade import Tag

_RAW: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "muse_bias": (Tag.BIAS,),
        "muse_dark": (Tag.DARK,),
        "muse_flat": (Tag.FLAT,),
        "muse_wavecal": (Tag.ARC,),
        "muse_lsf": (Tag.ARC, Tag.ARC_LSF),
        "muse_geometry": (Tag.MASK,),
        "muse_twilight": (Tag.SKYFLAT, Tag.ILLUM),
        "muse_scibasic": (Tag.OBJECT, Tag.SKY, Tag.STD, Tag.ASTROMETRY, Tag.ILLUM),
    }
)
# muse_scipost begins with the pixel tables that muse_scibasic made; these are its calibrations.
_SCIPOST = (
    "EXTINCT_TABLE", "STD_RESPONSE", "STD_TELLURIC", "ASTROMETRY_WCS", "LSF_PROFILE", "SKY_LINES", "FILTER_LIST",
)  # fmt: skip


def _taken() -> Mapping[str, frozenset[str]]:
    taken: dict[str, set[str]] = {"muse_scipost": set(_SCIPOST)}
    for halves in ESO_RECIPES.values():
        for run in (halves.channel, halves.whole):
            if run is not None:
                taken.setdefault(run.recipe, set(_RAW.get(run.recipe, ()))).update(run.takes)
    return MappingProxyType({recipe: frozenset(tags) for recipe, tags in sorted(taken.items())})


TAKEN = _taken()  # tags by recipe of ESO's


def tags_of(recipe: str) -> frozenset[str]:
    """Return the tags that one of ESO's recipes takes.

    Raises
    ------
    LookupError
        No such recipe is known.
    """
    if recipe not in TAKEN:
        raise LookupError(f"no recipe {recipe} is known; there are {', '.join(TAKEN)}.")
    return TAKEN[recipe]


def sof_text(files: Iterable[tuple[Path, str]]) -> str:
    """Return a set of frames as esorex reads it: a line a file, with its absolute path and its tag.

    Raises
    ------
    ValueError
        As ``check_path``.
    """
    return "".join(f"{check_path(path)} {tag}\n" for path, tag in files)


def check_path(path: Path) -> str:
    """Return the absolute path as esorex can read it.

    Raises
    ------
    ValueError
        It has white space, at which esorex ends it.
    """
    absolute = str(path.absolute())
    if absolute.split() != [absolute]:
        raise ValueError(f"{absolute!r} has white space, and esorex cannot read such a path; name another folder.")
    return absolute
