"""Commands for static calibrations: what there is and for which time, taking some in, retiring one."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.errors import ExitCode, RefusedError, UsageError, answering
from daemon.cli.options import AsJson, DryRun, Identifiers, SettingsFile
from daemon.cli.output import print_json, print_table

statics = typer.Typer(
    name="statics", help="List static calibrations, take some in, or retire one.", invoke_without_command=True
)
Category = Annotated[str, typer.Option(metavar="PRO.CATG", help="Only this category, for instance GEOMETRY_TABLE.")]


@statics.callback()
@answering
def statics_of_all(
    context: typer.Context, *, catg: Category = "", as_json: AsJson = False, settings_file: SettingsFile = None
) -> None:
    """List the static calibrations, each with the time for which it is valid."""
    if not context.invoked_subcommand:
        _print(catg, settings_file, as_json=as_json)


@statics.command("list")
@answering
def list_statics(*, catg: Category = "", as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """List the static calibrations, each with the time for which it is valid."""
    _print(catg, settings_file, as_json=as_json)


@statics.command("add")
@answering
def add_statics(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Files; they stay where they are.")],
    *,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Take static calibrations into the archive. Code 1 if any is unfit and was put into quarantine."""
    from archive.inspection import IncompleteFile, UnreadableFile, inspect
    from archive.states import ArrivalState
    from archive.store import Transfer
    from daemon.cli.opening import open_site
    from daemon.cli.pages import taken_page
    from daemon.cli.records import taken_record
    from tasks.intake import Intake
    from tasks.statics import category_of

    if absent := [str(path) for path in files if not path.is_file()]:
        raise UsageError(f"{', '.join(absent)} is no file.")
    for path in files:
        try:
            catg = category_of(inspect(path).primary, path.name)
        except (IncompleteFile, UnreadableFile) as error:
            raise RefusedError(f"{path}: {error}") from error
        if not catg:
            raise RefusedError(
                f"{path} is no static calibration of MUSE by its PRO.CATG; `musecal ingest` takes frames."
            )
    with open_site(settings_file) as site:
        intake = Intake(site.registry, site.store, site.settings, transfer=Transfer.COPY)
        taken = [(path.absolute(), intake.take(path, site.clock())) for path in files]
    records = [taken_record(path, result) for path, result in taken]
    if as_json:
        print_json(records)
    else:
        print_table(taken_page(records))
    unfit = any(result.state is ArrivalState.QUARANTINED for _, result in taken)
    raise typer.Exit(ExitCode.NOT_IN_ORDER if unfit else ExitCode.DONE)


@statics.command("retire")
@answering
def retire_statics(
    identifiers: Identifiers,
    *,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Your reason; it is kept in the history.")],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Retire static calibrations: no step takes them any more, and what was made of them is stale."""
    from archive.models import Product
    from daemon.cli.identifiers import find, label, split
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from tasks.orders import retire
    from tasks.verdicts import Scoring

    if not why.strip():
        raise UsageError("Retiring needs its reason: give it with --why.")
    with open_site(settings_file) as site, site.registry.read() if dry_run else site.registry.begin() as session:
        products = []
        for text in split(identifiers):
            row = find(session, text)
            if not isinstance(row, Product) or not row.static:
                raise UsageError(f"{text} is {label(row)}, no static calibration; see `musecal statics list`.")
            products.append(row)
        if not dry_run:
            for product in products:
                retire(session, product, why=why, scoring=Scoring.of(site.settings), now=site.clock())
        records = [record_of(product) for product in products]
    if as_json:
        print_json({"order": "retired", "dry_run": dry_run, "rows": records})
        return
    for record in records:
        print_table(f"{record['id']} {record['name']} {'would be' if dry_run else 'is'} retired.")


def _print(catg: str, settings_file: Path | None, *, as_json: bool) -> None:
    from archive.validity import validities
    from daemon.cli.opening import open_site
    from daemon.cli.pages import statics_page
    from daemon.cli.records import static_record

    with open_site(settings_file) as site, site.registry.read() as session:
        records = [static_record(validity) for validity in validities(session, catg.upper())]
    if as_json:
        print_json(records)
    else:
        print_table(*statics_page(records))
