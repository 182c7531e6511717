"""Commands around the archive itself: taking files in by hand, checking, migrating."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from archive.store import Transfer
from daemon.cli.errors import ExitCode, UsageError, answering
from daemon.cli.options import AsJson, DryRun, SettingsFile
from daemon.cli.output import print_json, print_table, table

db = typer.Typer(name="db", help="Look after the registry.", no_args_is_help=True)


@answering
def ingest(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="[PATH]...", help="Files, or folders with everything below them.")
    ] = None,
    *,
    archive: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Take an existing archive in, frames and masters of any MUSE pipeline, and reprocess nothing.",
        ),
    ] = None,
    transfer: Annotated[
        Transfer | None,
        typer.Option(
            metavar="link|copy|leave|move",
            help="How files of an archive come in; without it they are linked, if they can be.",
        ),
    ] = None,
    certified: Annotated[bool, typer.Option("--certified", help="You vouch for the masters of the archive.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Take files in now, wherever they lie; the daemon goes on from there. Code 1 if any was put into quarantine."""
    if archive is not None:
        from daemon.cli.backfilling import take_archive

        if paths:
            raise UsageError("--archive takes its folder alone; give files and folders of new frames without it.")
        in_order = take_archive(archive, transfer, settings_file, certified=certified, dry_run=dry_run, as_json=as_json)
        raise typer.Exit(ExitCode.DONE if in_order else ExitCode.NOT_IN_ORDER)
    if transfer or certified or dry_run:
        raise UsageError("--transfer, --certified and --dry-run are for an existing archive; name it with --archive.")
    if not paths:
        raise UsageError("Say what to take in: files, folders, or an existing archive with --archive.")
    _ingest_now(paths, settings_file, as_json=as_json)


def _ingest_now(paths: Sequence[Path], settings_file: Path | None, *, as_json: bool) -> None:
    from archive.states import ArrivalState
    from daemon.cli.opening import open_site
    from daemon.cli.pages import taken_page
    from daemon.cli.records import taken_record
    from tasks.intake import Intake

    if absent := [str(path) for path in paths if not path.exists()]:
        raise UsageError(f"{', '.join(absent)} does not exist.")
    files = [file.absolute() for path in paths for file in (sorted(path.rglob("*.fits*")) if path.is_dir() else [path])]
    with open_site(settings_file) as site:
        intake = Intake(site.registry, site.store, site.settings)
        taken = [(file, intake.take(file, site.clock())) for file in files]
    records = [taken_record(file, result) for file, result in taken]
    if as_json:
        print_json(records)
    else:
        print_table(taken_page(records))
    bad = any(result.state is ArrivalState.QUARANTINED for _, result in taken)
    raise typer.Exit(ExitCode.NOT_IN_ORDER if bad else ExitCode.DONE)


@answering
def verify(*, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Check every file against its checksum, and files against rows both ways. Code 1 if anything is wrong."""
    from archive.verification import verify as check
    from daemon.cli.opening import open_site

    with open_site(settings_file) as site:
        findings = list(check(site.registry, site.store))
    if as_json:
        print_json([vars(finding) | {"path": str(finding.path)} for finding in findings])
    elif findings:
        print_table(table("", ("fault", "what was found"), [(finding.fault, finding.sentence) for finding in findings]))
    else:
        print_table("Every file is as its row says, and every row has its file.")
    raise typer.Exit(ExitCode.NOT_IN_ORDER if findings else ExitCode.DONE)


@db.command()
@answering
def upgrade(*, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Bring the registry's tables to this version; make a new registry where there is none."""
    from tasks.settings import load_settings
    from tasks.site import Site

    registry = Site.of(load_settings(settings_file)).registry
    registry.upgrade()
    if as_json:
        print_json({"registry": str(registry)})
    else:
        print_table(f"The registry at {registry} is at the newest revision.")
