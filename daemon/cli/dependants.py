"""The command that says what was made of something, which is what its loss would cost."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType

from daemon.cli.errors import UsageError, answering
from daemon.cli.options import AsJson, Identifiers, SettingsFile
from daemon.cli.output import duration_text, print_json, print_table, table

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from daemon.cli.identifiers import Subject
    from tasks.settings import Settings

_TOLD = 60  # steps in the table; the JSON has all


@answering
def reach(identifiers: Identifiers, *, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Say what was made of a product, step, group or frame, through the whole cascade, and what its loss would cost."""
    from daemon.cli.identifiers import find, split
    from daemon.cli.opening import open_site

    with open_site(settings_file) as site, site.registry.read() as session:
        records = [reach_record(session, find(session, text), site.settings) for text in split(identifiers)]
    if as_json:
        print_json(records[0] if len(records) == 1 else records)
    else:
        for record in records:
            print_table(*reach_page(record))


def reach_record(session: "Session", row: "Subject", settings: "Settings") -> dict[str, Any]:
    """Return what was made of a row.

    Raises
    ------
    UsageError
        It is a file that is neither frame nor product.
    """
    from archive.models import Arrival
    from daemon.cli.identifiers import label
    from tasks.dependants import Remade, find_dependants

    origin = (row.frame or row.product) if isinstance(row, Arrival) else row
    if origin is None:
        raise UsageError(f"{label(row)} is a file of which nothing is made; `musecal why {label(row)}` says more.")
    policy = settings.plan.remade
    steps: list[dict[str, Any]] = [
        {
            "step": label(found.step),
            "name": found.step.name,
            "group": f"G{found.step.group_id}",
            "night": found.step.group.night,
            "depth": found.depth,
            "state": found.step.state,
            "stale": bool(found.step.stale),
            "remade": found.remade,
            "cpu_seconds": round(found.seconds, 1),
            "products": [
                {"id": label(made), "name": made.name, "certification": made.certification, "score": made.score}
                for made in found.step.products
            ],
        }
        for found in find_dependants(session, origin, policy)
    ]
    standing = [step for step in steps if step["remade"] is not Remade.REPLACED]
    return {
        "of": label(origin),
        "name": getattr(origin, "name", "") or getattr(origin, "dp_id", "") or getattr(origin, "key", ""),
        "remake": policy,
        "by_itself": sum(step["remade"] is Remade.BY_ITSELF for step in standing),
        "on_request": sum(step["remade"] is Remade.ON_REQUEST for step in standing),
        "replaced": len(steps) - len(standing),
        "products": sum(len(step["products"]) for step in standing),
        "cpu_seconds": round(sum(step["cpu_seconds"] for step in standing), 1),
        "by_night": dict(sorted(Counter(step["night"].isoformat() for step in standing).items())),
        "steps": steps,
    }


def reach_page(record: dict[str, Any]) -> list[RenderableType]:
    """Return what was made of a row, the answer first."""
    name = f"{record['of']} ({record['name']})"
    if not record["steps"]:
        return [f"Nothing was made of {name}."]
    standing = record["by_itself"] + record["on_request"]
    made = f"{_counted(standing, 'step')} with {_counted(record['products'], 'product')}"
    alone = f"{record['by_itself']} of them are made again by themselves (plan.remake: {record['remake']})"
    cost = f"all of them take {duration_text(record['cpu_seconds'])} of CPU"
    page: list[RenderableType] = [
        f"{made}, in {_counted(len(record['by_night']), 'night')}, go back to {name}.",
        f"If it changes, {alone}, {record['on_request']} on request; {cost}.",
    ]
    if record["replaced"]:
        page.append(f"{_counted(record['replaced'], 'more step')} of it were replaced by later makes.")
    return [*page, "", table("", _COLUMNS, _rows(record["steps"][:_TOLD]), right=("depth", "CPU")), *_rest(record)]


_COLUMNS = ("depth", "night", "step", "name", "state", "made", "again", "CPU")


def _rows(steps: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            step["depth"],
            f"{step['night']}",
            step["step"],
            step["name"],
            "stale" if step["stale"] else step["state"],
            [f"{made['id']} {made['score'] or made['certification']}" for made in step["products"]],
            step["remade"],
            duration_text(step["cpu_seconds"]) if step["cpu_seconds"] else "",
        )
        for step in steps
    ]


def _rest(record: dict[str, Any]) -> list[RenderableType]:
    left = len(record["steps"]) - _TOLD
    return [f"and {left} more; --json has all."] if left > 0 else []


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
