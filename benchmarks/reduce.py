"""One channel through one recipe of ours, as a process of its own: ``python -m benchmarks.reduce --help``."""

import argparse
from dataclasses import asdict
from hashlib import sha256
from importlib import import_module
from pathlib import Path

from recipes.channel import Input, Provenance, reduce_channel
from recipes.recipe import Recipe

MODULES = {
    "muse_bias": "recipes.bias",
    "muse_dark": "recipes.dark",
    "muse_flat": "recipes.flat",
    "muse_wavecal": "recipes.wavecal",
}


def reduce(
    name: str, raws: list[Path], calibrations: dict[str, Path], folder: Path, *, channel: int, **parameters: object
) -> dict[str, Path]:
    """Run a recipe; return its products by PRO.CATG."""
    recipe: Recipe = import_module(MODULES[name]).RECIPE
    params = recipe.params.from_mapping(parameters)
    values, defaults = asdict(params), asdict(recipe.params())
    outcome = reduce_channel(
        recipe,
        params,
        channel=channel,
        raws={recipe.raw[0]: raws},
        calibrations=calibrations,
        folder=folder,
        provenance=Provenance(
            recipe=recipe.name,
            version=recipe.version,
            raws=tuple(Input(path.name, recipe.raw[0], _digest(path)) for path in raws),
            calibrations=tuple(Input(path.name, catg, _digest(path)) for catg, path in calibrations.items()),
            parameters=tuple((item, values[item], defaults[item]) for item in values),
        ),
    )
    return dict(outcome.files)


def _digest(path: Path) -> str:
    """Stand in for the checksum that the archive knows of a file; making it is not the recipe's work."""
    return sha256(path.name.encode()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", choices=MODULES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("raws", type=Path, nargs="+")
    parser.add_argument("--channel", type=int, default=1)
    parser.add_argument("--calibration", action="append", default=[], metavar="CATG=PATH")
    parser.add_argument("--samples", action="store_true")
    given = parser.parse_args()
    pairs = (pair.split("=", 1) for pair in given.calibration)
    extra = {"samples": True} if given.samples else {}
    reduce(
        given.recipe,
        given.raws,
        {catg: Path(path) for catg, path in pairs},
        given.folder,
        channel=given.channel,
        **extra,
    )
