"""Options that every command has, declared once."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        help="Settings to use; without it $MUSECAL_SETTINGS, then ./settings.toml, then the built-in values.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table; times are ISO 8601, UTC.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Reason = Annotated[str, typer.Option("--why", metavar="TEXT", help="Your reason; it is kept in the history.")]
Identifiers = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="F12 frame, G3 group, S7 step, P5 product, A9 arrival; or 'step 7', a product name, a DP id, a file.",
    ),
]
NightOption = Annotated[
    datetime | None, typer.Option("--night", metavar="DATE", formats=["%Y-%m-%d"], help="Only this night.")
]


def day(night: datetime | None) -> date | None:
    """Return the date of an option that typer can only read as a time."""
    return night.date() if night else None
