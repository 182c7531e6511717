"""One half of a recipe of ours as a process of its own: ``python -m benchmarks.reduce --help``.

With ``--channel`` the half that reduces a channel; without it the one that joins what the first gave of each.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from recipes.channel import Input, Outcome, Provenance, combine_channels, reduce_channel
from recipes.recipe import Params, Recipe

MODULES = {
    "muse_bias": "recipes.bias",
    "muse_dark": "recipes.dark",
    "muse_flat": "recipes.flat",
    "muse_wavecal": "recipes.wavecal",
    "muse_lsf": "recipes.lsf",
    "muse_twilight": "recipes.twilight",
    "muse_standard": "recipes.standard",
    "muse_astrometry": "recipes.astrometry",
    "muse_geometry": "recipes.geometry",
}


def reduce(
    name: str, raws: list[Path], calibrations: dict[str, Path], folder: Path, *, channel: int, **parameters: object
) -> dict[str, Path]:
    """Run a recipe of ours on one channel; return its products by PRO.CATG."""
    recipe: Recipe = import_module(MODULES[name]).RECIPE
    params = recipe.params.from_mapping(parameters)
    return dict(reduce_frames(recipe, params, {recipe.raw[0]: raws}, calibrations, folder, channel=channel).files)


def reduce_frames(
    recipe: Recipe,
    params: Params,
    raws: Mapping[str, list[Path]],
    calibrations: Mapping[str, Path],
    folder: Path,
    *,
    channel: int,
) -> Outcome:
    """Run the half of a recipe that reduces a channel, on frames of several tags."""
    return reduce_channel(
        recipe,
        params,
        channel=channel,
        raws=raws,
        calibrations=calibrations,
        folder=folder,
        provenance=_provenance(recipe, params, raws, calibrations),
    )


def combine(
    recipe: Recipe, params: Params, raws: Mapping[str, list[Path]], calibrations: Mapping[str, Path], folder: Path
) -> Outcome:
    """Run the half of a recipe that joins what the first gave of every channel in the folder."""
    channels: dict[int, dict[str, Path]] = {}
    for catg in (*recipe.intermediate, *recipe.makes):
        for path in sorted(folder.glob(f"{catg}*-[0-9][0-9].fits")):
            name, _, number = path.stem.rpartition("-")
            channels.setdefault(int(number), {})[name] = path
    return combine_channels(
        recipe,
        params,
        channels=channels,
        raws=raws,
        calibrations=calibrations,
        folder=folder,
        provenance=_provenance(recipe, params, raws, calibrations),
    )


def _provenance(
    recipe: Recipe, params: Params, raws: Mapping[str, list[Path]], calibrations: Mapping[str, Path]
) -> Provenance:
    values, defaults = asdict(params), asdict(recipe.params())
    return Provenance(
        recipe=recipe.name,
        version=recipe.version,
        raws=tuple(Input(path.name, tag, _digest(path)) for tag, paths in raws.items() for path in paths),
        calibrations=tuple(Input(path.name, catg, _digest(path)) for catg, path in calibrations.items()),
        parameters=tuple((item, values[item], defaults[item]) for item in values),
    )


def _digest(path: Path) -> str:
    """Stand in for the checksum that the archive knows of a file; making it is not the recipe's work."""
    return sha256(path.name.encode()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=MODULES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--channel", type=int, default=0)
    parser.add_argument("--raw", action="append", required=True, metavar="TAG=PATH")
    parser.add_argument("--calibration", action="append", default=[], metavar="CATG=PATH")
    parser.add_argument("--samples", action="store_true")
    given = parser.parse_args()
    frames: dict[str, list[Path]] = {}
    for tag, _, name in (pair.partition("=") for pair in given.raw):
        frames.setdefault(tag, []).append(Path(name))
    tables = {catg: Path(name) for catg, _, name in (pair.partition("=") for pair in given.calibration)}
    chosen: Recipe = import_module(MODULES[given.recipe]).RECIPE
    wanted = chosen.params.from_mapping({"samples": True} if given.samples else {})
    if given.channel:
        reduce_frames(chosen, wanted, frames, tables, given.folder, channel=given.channel)
    else:
        combine(chosen, wanted, frames, tables, given.folder)
