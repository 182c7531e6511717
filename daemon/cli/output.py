"""How commands print: tables for people, JSON for programs, times in UTC, one sentence for an error."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime

from rich.console import Console, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = {
    "done": "green", "complete": "green", "ingested": "green", "certified": "green", "green": "green",
    "running": "cyan", "queued": "cyan", "open": "cyan", "provisional": "cyan",
    "waiting": "yellow", "closed": "yellow", "held": "yellow", "stalled": "yellow", "yellow": "yellow",
    "failed": "bold red", "quarantined": "bold red", "incomplete": "bold red",
    "rejected": "bold red", "red": "bold red",
}  # fmt: skip
DASH = "-"


def print_json(record: object) -> None:
    """Print one JSON document; dates and times in ISO 8601, UTC."""
    sys.stdout.write(json.dumps(record, indent=2, default=_plain) + "\n")


def print_table(*parts: RenderableType) -> None:
    """Print for people, as wide as the terminal."""
    console = Console(highlight=False)
    for part in parts:
        console.print(part)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Sequence[str] = (),
    unbroken: Sequence[str] = (),
) -> Table:
    """Return a table without boxes; ``right`` names the columns of numbers, ``unbroken`` those kept on one line."""
    made = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for column in columns:
        justify: JustifyMethod = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in unbroken)
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> Text:
    """Return a value as people read it; states in their colours."""
    match value:
        case None | "" | [] | ():
            return Text(DASH, style="dim")
        case Text():
            return value
        case datetime():
            return Text(f"{value:%Y-%m-%d %H:%M:%S}")
        case float():
            return Text(f"{value:.1f}")
        case list() | tuple():
            return Text(", ".join(str(item) for item in value))
        case dict():
            return Text(", ".join(f"{key} {cell(item)}" for key, item in value.items()))
        case _:
            return Text(str(value), style=COLOURS.get(str(value), ""))


def channels_text(channels: Sequence[int]) -> str:
    """Return channel numbers as ranges.

    >>> channels_text([1, 2, 3, 12])
    '1-3,12'
    """
    runs: list[list[int]] = []
    for channel in sorted(channels):
        if runs and channel == runs[-1][-1] + 1:
            runs[-1].append(channel)
        else:
            runs.append([channel])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def size_text(size: int) -> str:
    """Return a number of bytes in MB or GB (powers of ten, as the file system's tools print).

    >>> size_text(72_300_000)
    '72 MB'
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def duration_text(seconds: float) -> str:
    """Return a duration.

    >>> duration_text(4.26), duration_text(95), duration_text(8000)
    ('4.3 s', '1 m 35 s', '2 h 13 m')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} m"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} has no JSON form; make it a plain value first.")
