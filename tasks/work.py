"""What the part of a step works on, read from the rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from archive.models import Product, Step
from recipes.channel import Input, Provenance
from recipes.recipe import Params, Recipe
from tasks.cascade import recipe_of
from tasks.failures import FINISH


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that the recipe of one part takes: raw frames by tag, calibrations by PRO.CATG, and how it is recorded.

    ``version`` is that of the step's identity, which tells the engine. Of calibrations that come as one file a channel
    it is that of the channel, of the finish that of the lowest channel; ``further`` are the others.
    """

    recipe: Recipe
    version: str
    night: date
    params: Params
    raws: Mapping[str, list[Path]]
    calibrations: Mapping[str, Path]
    further: tuple[tuple[Path, str], ...]
    provenance: Provenance


def work_of(step: Step, channel: int) -> Work:
    """Read from the rows what a channel is made of: raw frames by tag in order of time, calibrations by PRO.CATG.

    Of channel 0, the finish, it is all frames.
    """
    recipe = recipe_of(step.recipe)
    params = recipe.params.from_mapping(step.parameters)
    defaults = asdict(recipe.params())
    frames = sorted(
        (
            (use.tag, use.frame)
            for use in step.uses
            if use.frame and (channel == FINISH or channel in use.frame.channels)
        ),
        key=lambda used: (used[1].mjd, used[1].id),
    )
    raws: dict[str, list[Path]] = {}
    for tag, frame in frames:
        raws.setdefault(tag, []).append(Path(frame.path))
    given: dict[str, list[Product]] = {}
    for use in step.uses:
        if use.product:
            given.setdefault(use.tag, []).append(use.product)
    wanted = channel or min((part.channel for part in step.parts if part.outcome.get("files")), default=channel)
    products = {tag: _file_of(files, wanted) for tag, files in given.items()}
    return Work(
        recipe=recipe,
        version=step.recipe_version,
        night=step.group.night,
        params=params,
        raws=raws,
        calibrations={tag: Path(product.path) for tag, product in products.items()},
        further=tuple(
            (Path(file.path), tag) for tag, files in given.items() for file in files if file is not products[tag]
        ),
        provenance=Provenance(
            recipe=recipe.name,
            version=recipe.version,
            raws=tuple(Input(f"{frame.dp_id}.fits", tag, frame.digest) for tag, frame in frames),
            calibrations=tuple(Input(product.name, tag, product.digest) for tag, product in products.items()),
            parameters=tuple((name, value, defaults[name]) for name, value in asdict(params).items()),
        ),
    )


def _file_of(files: Sequence[Product], channel: int) -> Product:
    """Return the file that has a channel; of those that lack it the first, of which the recipe will say that."""
    return next((file for file in files if channel in file.channels), files[0])
