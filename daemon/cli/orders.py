"""Commands that change what the daemon does. Each order is kept in the history with its time and reason."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.errors import UsageError, answering
from daemon.cli.options import AsJson, DryRun, Identifiers, NightOption, Reason, SettingsFile, day
from daemon.cli.output import print_json, print_table, table
from daemon.cli.processes import parse_channels

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from archive.models import Step
    from archive.registry import Registry
    from daemon.cli.selection import Filter

# What an order does to one step; it returns the step that stands for it afterwards, another one if it was remade.
Order = Callable[["Session", "Step", datetime], "Step"]
MaybeIdentifiers = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID...]",
        help="S7 or 'step 7', G3 or F12 for the steps of a group, P5 or a product's name; or give a filter.",
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--step", metavar="NAME", help="Only steps of this name, for instance flat; may be repeated."),
]
States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="Only steps in this state; may be repeated.")
]
OnlyStale = Annotated[bool, typer.Option("--stale", help="Only steps that are done and marked as stale.")]
OfChannels = Annotated[
    str, typer.Option("--channel", metavar="LIST", help="Only these channels, for instance 3 or 1-6.")
]

quarantine = typer.Typer(
    name="quarantine", help="List the files in quarantine, or release one.", invoke_without_command=True
)


@answering
def requeue(
    identifiers: MaybeIdentifiers = None,
    *,
    night: NightOption = None,
    step: Names = None,
    state: States = None,
    channel: OfChannels = "",
    stale: OnlyStale = False,
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Run steps again: one, a list, or all that meet a filter. A step that is done is remade as the next version.

    A group (G12) that came with an existing archive is reduced by our recipes from then on.
    """
    from tasks import orders
    from tasks.plan import priority_of

    channels = parse_channels(channel) if channel else ()

    def give(session: "Session", row: "Step", now: datetime) -> "Step":
        # All that is stale may be a great part of the archive: it must not keep the present night waiting.
        priority = priority_of(row.group.night, now) if stale else orders.FIRST
        return orders.requeue(session, row, why=why, now=now, channels=channels, priority=priority)

    groups, others = _archived(identifiers, settings_file)
    given = _reduce_groups(groups, why=why, dry_run=dry_run, settings_file=settings_file) if groups else []
    if others or not groups:
        wanted = _filter(night, step, state, channels, stale=stale)
        given += _give(give, others, wanted, settings_file=settings_file, dry_run=dry_run)
    _tell("requeued", given, dry_run=dry_run, as_json=as_json)


@answering
def hold(
    identifiers: MaybeIdentifiers = None,
    *,
    night: NightOption = None,
    step: Names = None,
    state: States = None,
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Keep steps back until they are released; what a worker is doing for them is dropped."""
    from tasks import orders

    def give(session: "Session", row: "Step", now: datetime) -> "Step":
        orders.hold(session, row, why=why, now=now)
        return row

    given = _give(give, identifiers, _filter(night, step, state), settings_file=settings_file, dry_run=dry_run)
    _tell("held", given, dry_run=dry_run, as_json=as_json)


@answering
def cancel(
    identifiers: MaybeIdentifiers = None,
    *,
    night: NightOption = None,
    step: Names = None,
    state: States = None,
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Give steps up; ``requeue`` takes them up again."""
    from tasks import orders

    def give(session: "Session", row: "Step", now: datetime) -> "Step":
        orders.cancel(session, row, why=why, now=now)
        return row

    given = _give(give, identifiers, _filter(night, step, state), settings_file=settings_file, dry_run=dry_run)
    _tell("cancelled", given, dry_run=dry_run, as_json=as_json)


@answering
def release(
    identifiers: MaybeIdentifiers = None,
    *,
    night: NightOption = None,
    step: Names = None,
    state: States = None,
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Let held steps go on, a monthly pair by either step, or files (A9) out of quarantine into the incoming folder."""
    from tasks import orders

    def give(session: "Session", row: "Step", now: datetime) -> "Step":
        orders.release(session, row, why=why, now=now)
        return row

    files, others = _arrivals(identifiers, settings_file)
    given = _release_files(files, why=why, dry_run=dry_run, settings_file=settings_file) if files else []
    if others or not files:
        given += _give(give, others, _filter(night, step, state), settings_file=settings_file, dry_run=dry_run)
    _tell("released", given, dry_run=dry_run, as_json=as_json)


@quarantine.callback()
@answering
def list_quarantine(context: typer.Context, *, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """List the files in quarantine, each with its reason; ``quarantine release`` gives one back."""
    if context.invoked_subcommand:
        return
    from sqlalchemy import select

    from archive.models import Arrival
    from archive.states import ArrivalState
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of

    with open_site(settings_file) as site, site.registry.read() as session:
        kept = session.scalars(select(Arrival).where(Arrival.state == ArrivalState.QUARANTINED).order_by(Arrival.id))
        records = [record_of(arrival) for arrival in kept]
    if as_json:
        print_json(records)
    elif records:
        rows = [(record["id"], record["first_seen"], Path(record["path"]).name, record["reason"]) for record in records]
        print_table(table("Quarantine", ("id", "first seen", "file", "reason"), rows))
    else:
        print_table("Nothing is in quarantine.")


@quarantine.command("release")
@answering
def release_quarantine(
    identifiers: Identifiers,
    *,
    why: Reason = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Give files back to the incoming folder, to be looked at again as new arrivals."""
    files, others = _arrivals(identifiers, settings_file)
    if others:
        raise UsageError(f"{', '.join(others)} is no file in quarantine; see `musecal quarantine`.")
    given = _release_files(files, why=why, dry_run=dry_run, settings_file=settings_file)
    _tell("released", given, dry_run=dry_run, as_json=as_json)


def _filter(
    night: datetime | None,
    names: list[str] | None,
    states: list[str] | None,
    channels: tuple[int, ...] = (),
    *,
    stale: bool = False,
) -> "Filter":
    from daemon.cli.selection import Filter, names_of, states_of

    return Filter(
        states=states_of(states or ()), night=day(night), names=names_of(names or ()), channels=channels, stale=stale
    )


def _give(
    order: Order, words: Sequence[str] | None, meeting: "Filter", *, settings_file: Path | None, dry_run: bool
) -> list[dict[str, Any]]:
    """Give an order to every step that is meant, all or none; return the record of each as it is afterwards."""
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from daemon.cli.selection import choose_steps

    with open_site(settings_file) as site, _transaction(site.registry, dry_run=dry_run) as session:
        steps = choose_steps(session, words or (), meeting)
        return [record_of(step if dry_run else order(session, step, site.clock())) for step in steps]


def _transaction(registry: "Registry", *, dry_run: bool) -> "AbstractContextManager[Session]":
    return registry.read() if dry_run else registry.begin()


def _arrivals(words: Sequence[str] | None, settings_file: Path | None) -> tuple[list[str], list[str]]:
    """Return the identifiers that mean files without a frame, and the others."""
    from archive.models import Arrival
    from daemon.cli.identifiers import find, split
    from daemon.cli.opening import open_site

    texts = split(words or ())
    with open_site(settings_file) as site, site.registry.read() as session:
        files = [text for text in texts if isinstance(find(session, text), Arrival)]
    return files, [text for text in texts if text not in files]


def _archived(words: Sequence[str] | None, settings_file: Path | None) -> tuple[list[str], list[str]]:
    """Return the identifiers that mean groups of an existing archive without a step, and the others."""
    from archive.models import Group
    from archive.states import GroupState
    from daemon.cli.identifiers import find, split
    from daemon.cli.opening import open_site

    texts = split(words or ())
    with open_site(settings_file) as site, site.registry.read() as session:
        rows = {text: find(session, text) for text in texts}
        groups = [
            text
            for text, row in rows.items()
            if isinstance(row, Group) and row.state is GroupState.ARCHIVED and not row.steps
        ]
    return groups, [text for text in texts if text not in groups]


def _reduce_groups(
    texts: Sequence[str], *, why: str, dry_run: bool, settings_file: Path | None
) -> list[dict[str, Any]]:
    from archive.models import Group
    from daemon.cli.identifiers import find
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from tasks.orders import reduce_archived

    with open_site(settings_file) as site, _transaction(site.registry, dry_run=dry_run) as session:
        groups = [row for row in (find(session, text) for text in texts) if isinstance(row, Group)]
        if not dry_run:
            for group in groups:
                reduce_archived(session, group, why=why, now=site.clock())
        return [record_of(group) for group in groups]


def _release_files(
    texts: Sequence[str], *, why: str, dry_run: bool, settings_file: Path | None
) -> list[dict[str, Any]]:
    from archive.models import Arrival
    from daemon.cli.identifiers import find
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from tasks.orders import release_arrival

    with open_site(settings_file) as site, _transaction(site.registry, dry_run=dry_run) as session:
        arrivals = [row for row in (find(session, text) for text in texts) if isinstance(row, Arrival)]
        if not dry_run:
            for arrival in arrivals:
                release_arrival(session, arrival, site.settings, why=why, now=site.clock())
        return [record_of(arrival) for arrival in arrivals]


def _tell(done: str, records: list[dict[str, Any]], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"order": done, "dry_run": dry_run, "rows": records})
        return
    for record in records:
        what = f"{record['id']} {record.get('name') or record.get('key') or Path(record['path']).name}"
        told = f"is {done}" if record["state"] == done else f"was {done}; it is {record['state']} now"
        print_table(f"{what} would be {done}." if dry_run else f"{what} {told}.")
    if not records:
        print_table("Nothing meets that; nothing was done.")
