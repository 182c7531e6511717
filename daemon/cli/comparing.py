"""``musecal compare``: the other engine on the inputs of a step, and how far its products differ."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.errors import RefusedError, UsageError, answering, print_error
from daemon.cli.options import AsJson, SettingsFile
from daemon.cli.output import print_json, print_table
from daemon.cli.processes import parse_channels

if TYPE_CHECKING:
    from tasks.comparing import Compared


@answering
def compare(
    step: Annotated[list[str], typer.Argument(metavar="STEP", help="A step that is done: S7 or 'step 7'.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder for pictures and logs, made if need be; compare-S7 if not given."
        ),
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", metavar="LIST", help="Only these channels, for instance 3 or 1-6.")
    ] = "",
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Run the other engine (ESO's recipe, or ours) on the inputs of a step, and compare the products.

    Nothing is archived. It takes the time that the other engine takes, channel after channel.
    """
    from tempfile import TemporaryDirectory

    from archive.models import Step
    from daemon.cli.identifiers import find, label, split
    from daemon.cli.opening import open_site
    from daemon.cli.pages import comparison_page
    from recipes.recipe import RecipeError
    from tasks.comparing import NotComparable, compare_step

    names = split(step)
    if len(names) != 1:
        raise UsageError(f"{' and '.join(names)} are {len(names)} steps; compare one at a time.")
    with open_site(settings_file) as site:
        with site.registry.read() as session:
            row = find(session, names[0])
            if not isinstance(row, Step):
                raise UsageError(f"{names[0]} is {label(row)}, no step.")
            step_id = row.id
        folder = out or Path(f"compare-S{step_id}")
        folder.mkdir(parents=True, exist_ok=True)
        channels = parse_channels(channel) if channel else ()
        try:
            with TemporaryDirectory(prefix="work-", dir=folder) as scratch:
                found = compare_step(
                    site,
                    step_id,
                    Path(scratch).absolute(),
                    logs=folder.absolute(),
                    channels=channels,
                    tell=print_progress,
                )
        except (NotComparable, RecipeError, MemoryError) as error:
            raise RefusedError(str(error)) from error
    pictures = _draw(found, folder)
    record = comparison_record(found, pictures)
    if as_json:
        print_json(record)
    else:
        print_table(*comparison_page(record))


def print_progress(sentence: str) -> None:
    """Say on the standard error how far it is: it takes minutes."""
    sys.stderr.write(f"{sentence}\n")


def _draw(found: "Compared", folder: Path) -> dict[str, Path]:
    """Draw a picture of each product; return those that were drawn."""
    from daemon.pictures import draw_comparison
    from tasks.settings import Engine

    if importlib.util.find_spec("matplotlib") is None:
        print_error("there are no pictures: matplotlib is not installed (pip install 'musecal[plot]').")
        return {}
    drawn = {}
    for catg, comparison in found.products.items():
        path = folder / f"{found.step}_{catg}.png"
        versions = found.versions[Engine.ESOREX].replace("esorex/", "muse "), found.versions[Engine.MUSECAL]
        title = f"{catg} of {found.step}: ESO's ({versions[0]}) less ours (version {versions[1]})"
        if draw_comparison(path, title, comparison):
            drawn[catg] = path
    return drawn


def comparison_record(found: "Compared", pictures: dict[str, Path]) -> dict[str, Any]:
    """Return a comparison as plain values; what is no number is null."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {
        "step": found.step,
        "archived": found.archived,
        "versions": dict(found.versions),
        "costs": {engine: vars(cost) for engine, cost in found.costs.items()},
        "warnings": list(found.warnings),
        "products": {
            catg: {
                "picture": str(pictures[catg]) if catg in pictures else None,
                "differences": [
                    {name: plain(value) for name, value in vars(difference).items()}
                    for difference in comparison.differences
                ],
            }
            for catg, comparison in found.products.items()
        },
    }
