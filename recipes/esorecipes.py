"""Which of ESO's recipes stand for ours, what they take, and how the two halves of a recipe are run with them.

``reduce_channel`` and ``combine_channels`` take the same inputs and give the same outcome as those of
``recipes.channel``. Source: manual pages of the MUSE pipeline 2.8.7 (MAN).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from recipes.channel import Identity, Outcome, merge_channels
from recipes.esoproducts import check_product, measurements_of
from recipes.esorex import Esorex, run_recipe
from recipes.fits import AbsentChannel, DeadChannel
from recipes.headers import read_hdus
from recipes.muse import extension_name
from recipes.recipe import Measurement, Params, Recipe, RecipeError, Value


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one of ESO's recipes.

    Parameters
    ----------
    recipe : str
        ESO's name.
    takes : tuple of str
        PRO.CATG of the calibrations that it knows.
    passes_on : tuple of str
        PRO.CATG of what the runs on the channels leave for the run on all of them.
    also : tuple of str
        PRO.CATG of products that it makes with some parameters only.
    """

    recipe: str
    takes: tuple[str, ...]
    passes_on: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Halves:
    """ESO's recipes in the place of one of ours; None where nothing is to be done."""

    channel: Run | None = None
    whole: Run | None = None


_CHIP = ("MASTER_BIAS", "MASTER_DARK", "BADPIX_TABLE")
_LIGHT = (*_CHIP, "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE")
_SKY = (*_LIGHT, "GEOMETRY_TABLE", "TWILIGHT_CUBE")
ESO_RECIPES: Mapping[str, Halves] = MappingProxyType(
    {
        "muse_bias": Halves(channel=Run(recipe="muse_bias", takes=("BADPIX_TABLE",))),
        "muse_dark": Halves(channel=Run(recipe="muse_dark", takes=("MASTER_BIAS", "BADPIX_TABLE"))),
        "muse_flat": Halves(channel=Run(recipe="muse_flat", takes=_CHIP, also=("TRACE_SAMPLES",))),
        "muse_wavecal": Halves(
            channel=Run(recipe="muse_wavecal", takes=(*_LIGHT, "LINE_CATALOG"), also=("WAVECAL_RESIDUALS",))
        ),
        "muse_lsf": Halves(channel=Run(recipe="muse_lsf", takes=(*_LIGHT, "LINE_CATALOG"))),
        "muse_geometry": Halves(whole=Run(recipe="muse_geometry", takes=(*_LIGHT, "LINE_CATALOG", "MASK_CHECK"))),
        "muse_twilight": Halves(
            whole=Run(recipe="muse_twilight", takes=(*_LIGHT, "GEOMETRY_TABLE", "VIGNETTING_MASK"))
        ),
        # ESO's muse_standard and muse_astrometry begin with pixel tables.
        "muse_standard": Halves(
            channel=Run(recipe="muse_scibasic", takes=_SKY, passes_on=("PIXTABLE_STD",)),
            whole=Run(
                recipe="muse_standard", takes=("EXTINCT_TABLE", "STD_FLUX_TABLE", "TELLURIC_REGIONS", "FILTER_LIST")
            ),
        ),
        "muse_astrometry": Halves(
            channel=Run(recipe="muse_scibasic", takes=_SKY, passes_on=("PIXTABLE_ASTROMETRY",)),
            whole=Run(
                recipe="muse_astrometry",
                takes=("ASTROMETRY_REFERENCE", "EXTINCT_TABLE", "STD_RESPONSE", "STD_TELLURIC"),
            ),
        ),
    }
)
WHOLE = ".fits"  # ends the name of a product of all channels
_CHANNEL = re.compile(r"-(\d\d)\.fits$")  # in the name of a product of one channel
_NUMBER = re.compile(r"_\d{4}$")  # of an exposure, in the name of a product
# Calibrations that have an extension, or several, for each channel.
_OF_CHANNELS = frozenset({"MASTER_BIAS", "MASTER_DARK", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE"})


def reduce_channel(
    recipe: Recipe,
    params: Params,
    *,
    channel: int,
    raws: Mapping[str, Sequence[Path]],
    calibrations: Mapping[str, Path],
    folder: Path,
    esorex: Esorex,
    record: Path,
) -> Outcome:
    """Run ESO's recipe on one channel; its products come to be ``folder/<name>-<NN>.fits``.

    Parameters
    ----------
    recipe, params
        Ours, in whose place it runs.
    channel, raws, calibrations, folder
        As for ``recipes.channel.reduce_channel``.
    esorex : Esorex
    record : Path
        Begin of the names under which its set of frames and its log are kept.

    Raises
    ------
    AbsentChannel, DeadChannel
        A calibration does not have the channel, or its detector is off.
    RecipeError, MemoryError, OSError, EsorexMissing
        As ``esorex.run_recipe`` and ``esoproducts.check_product`` say.
    """
    halves = ESO_RECIPES[recipe.name]
    if halves.channel is None:
        return Outcome({}, {}, ())
    given = _given(halves.channel, calibrations)
    _check_channel(channel, [path for paths in raws.values() for path in paths], given)
    inputs = [*_tagged(raws), *((path, tag) for tag, path in given.items())]
    with TemporaryDirectory(prefix=f"{extension_name(channel)}-", dir=folder) as name:
        return _run(
            halves.channel,
            inputs,
            asdict(params) | {"nifu": channel},
            scratch=Path(name),
            wanted=halves.channel.passes_on or recipe.makes,
            end=f"-{channel:02d}.fits",
            esorex=esorex,
            record=record,
        )


def combine_channels(
    recipe: Recipe,
    params: Params,
    *,
    channels: Mapping[int, Mapping[str, Path]],
    raws: Mapping[str, Sequence[Path]],
    calibrations: Mapping[str, Path],
    folder: Path,
    esorex: Esorex,
    record: Path,
    further: Sequence[tuple[Path, str]] = (),
) -> Outcome:
    """Run ESO's recipe on all channels; its products come to be ``folder/<PRO.CATG>.fits``.

    Parameters
    ----------
    recipe, params, raws, calibrations, folder, esorex, record
        As for ``reduce_channel``.
    channels : mapping of channel to mapping of name to path
        What ``reduce_channel`` gave; nothing for a channel where it had nothing to do.
    further : sequence of path and PRO.CATG
        Of calibrations that come as one file a channel, those of the other channels.

    Raises
    ------
    RecipeError, MemoryError, OSError, EsorexMissing
        As for ``reduce_channel``.
    """
    halves = ESO_RECIPES[recipe.name]
    if halves.whole is None:
        raise ValueError(f"ESO's recipe for {recipe.name} has nothing to combine; its channels are merged.")
    of_channels = [(path, name) for files in channels.values() for name, path in sorted(files.items())]
    frames = [(path, _NUMBER.sub("", name)) for path, name in of_channels] if halves.channel else _tagged(raws)
    with TemporaryDirectory(prefix="all-", dir=folder) as name:
        return _run(
            halves.whole,
            [
                *frames,
                *((path, tag) for tag, path in _given(halves.whole, calibrations).items()),
                *((path, tag) for path, tag in further if tag in halves.whole.takes),
            ],
            asdict(params) | {"ifu1": min(channels), "ifu2": max(channels)},
            scratch=Path(name),
            wanted=recipe.makes,
            end=WHOLE,
            esorex=esorex,
            record=record,
        )


def _run(
    run: Run,
    inputs: Sequence[tuple[Path, str]],
    options: Mapping[str, Value],
    *,
    scratch: Path,
    wanted: Sequence[str],
    end: str,
    esorex: Esorex,
    record: Path,
) -> Outcome:
    """Run ESO's recipe in a scratch folder, look at its products, and put them beside that folder."""
    stem = record.with_name(f"{record.name}_{run.recipe}")
    ran = run_recipe(esorex, run.recipe, inputs, options, folder=scratch, record=stem)
    files, measurements, warnings = dict[str, Path](), dict[str, tuple[Measurement, ...]](), [*ran.warnings]
    of_channels: dict[str, dict[int, Path]] = {}
    for path in sorted(scratch.glob("*.fits")):
        header = next(read_hdus(path)).header
        catg = str(header.get("ESO PRO CATG"))
        if catg not in (*wanted, *run.also):
            continue
        check_product(path, catg)
        if end == WHOLE and (channel := _CHANNEL.search(path.name)):
            of_channels.setdefault(catg, {})[int(channel[1])] = path
            continue
        # What is passed on keeps its number, one an exposure; of what is archived there is one a template.
        name = path.name.removesuffix(end) if catg in run.passes_on else catg
        if name in files:
            warnings.append(f"ESO's {run.recipe} made more than one {catg}; {path.name} is left out.")
            continue
        files[name] = path.rename(scratch.parent / f"{name}{end}")
        measurements[name] = measurements_of(header)
    for catg, paths in of_channels.items():  # the run on all channels made one for each
        files[catg] = scratch.parent / f"{catg}{end}"
        merge_channels(catg, paths, files[catg], identity=Identity("", "", files[catg].name))
        measurements[catg] = ()
    missing = [catg for catg in wanted if not any(_NUMBER.sub("", name) == catg for name in files)]
    if missing:
        for path in files.values():
            path.unlink()
        raise RecipeError(f"ESO's {run.recipe} ended well and made no {' and no '.join(missing)}; see {stem}.log.")
    return Outcome(files, measurements, tuple(warnings), ran.memory)


def _tagged(raws: Mapping[str, Sequence[Path]]) -> list[tuple[Path, str]]:
    return [(path, tag) for tag, paths in raws.items() for path in paths]


def _given(run: Run, calibrations: Mapping[str, Path]) -> dict[str, Path]:
    return {tag: path for tag, path in calibrations.items() if tag in run.takes}


def _check_channel(channel: int, raws: Sequence[Path], calibrations: Mapping[str, Path]) -> None:
    """See that raw frames and calibrations have the channel; ESO's recipe would tell it in other words."""
    name = extension_name(channel)
    for path in raws:
        live = next((hdu.header.get("ESO DET CHIP LIVE") for hdu in read_hdus(path) if hdu.name == name), None)
        if live is False:
            raise DeadChannel(f"{name} of {path.name} has DET CHIP LIVE = F; leave the channel out.", channel=channel)
    for path in (path for tag, path in calibrations.items() if tag in _OF_CHANNELS):
        if not any(hdu.name.partition(".")[0] == name for hdu in read_hdus(path)):
            raise AbsentChannel(f"{path.name} has no extension {name}; give a product that has channel {channel}.")
