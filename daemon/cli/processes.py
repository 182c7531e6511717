"""Commands that stay: the daemon's processes; and those that feed them, the simulator and the demonstration."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.errors import ExitCode, UsageError, answering
from daemon.cli.options import AsJson, SettingsFile
from daemon.cli.output import channels_text, print_json, print_table, size_text
from recipes.muse import CHANNELS

if TYPE_CHECKING:
    from recipes.simulator.schedule import Sequence
    from tasks.settings import Settings

Channels = Annotated[str, typer.Option("--channels", metavar="LIST", help="Channels, for instance 11-13 or 1,12.")]
Night = Annotated[
    datetime,
    typer.Option("--night", metavar="DATE", formats=["%Y-%m-%d"], help="Night, by the date on which it begins."),
]
LogJson = Annotated[bool, typer.Option("--json", help="Log JSON lines, whatever log.format says.")]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed makes the same frames.")]


def parse_channels(text: str) -> tuple[int, ...]:
    """Return the channel numbers of a list with ranges.

    >>> parse_channels("1-3,12")
    (1, 2, 3, 12)

    Raises
    ------
    UsageError
    """
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise UsageError(f"{text!r} is no list of channels; write for instance 1,12 or 1-24.")
        found.update(range(int(first), int(last or first) + 1))
    if not found or not found.issubset(CHANNELS):
        raise UsageError(f"{text!r} holds channels that MUSE does not have; it has {channels_text(CHANNELS)}.")
    return tuple(sorted(found))


def parse_sequences(text: str) -> tuple["Sequence", ...]:
    """Return the sequences of a list of names.

    Raises
    ------
    UsageError
    """
    from recipes.simulator.schedule import Sequence

    names = [name.strip().upper() for name in text.split(",")]
    if unknown := [name for name in names if name not in Sequence.__members__]:
        raise UsageError(
            f"{', '.join(unknown)} is no sequence of the simulator; it has {', '.join(Sequence.__members__)}."
        )
    return tuple(Sequence[name] for name in names)


@answering
def run(*, as_json: LogJson = False, settings_file: SettingsFile = None) -> None:
    """Run watcher, worker and (where no broker URL is set) an embedded Redis, until a signal stops them."""
    from daemon.supervisor import run as run_all

    raise typer.Exit(run_all(_settings(settings_file, as_json=as_json)))


@answering
def watch(*, as_json: LogJson = False, settings_file: SettingsFile = None) -> None:
    """Watch the incoming folder: take in what arrives, plan, queue."""
    from daemon.processes import stop_on_signal
    from daemon.watcher import watch as watch_folder

    watch_folder(_settings(settings_file, as_json=as_json), stop=stop_on_signal())


@answering
def worker(*, as_json: LogJson = False, settings_file: SettingsFile = None) -> None:
    """Work off the queue: one part (channel of a step) at a time in each process."""
    from daemon.worker import work

    raise typer.Exit(work(_settings(settings_file, as_json=as_json)))


@answering
def web(*, as_json: LogJson = False, settings_file: SettingsFile = None) -> None:
    """Serve over HTTP, by default to this machine alone: the calibrations of a frame as calSelector, and files."""
    from daemon.processes import stop_on_signal
    from daemon.web.server import serve

    serve(_settings(settings_file, as_json=as_json), stop=stop_on_signal())


def _settings(settings_file: Path | None, *, as_json: bool) -> "Settings":
    from tasks.settings import LogFormat, load_settings

    settings = load_settings(settings_file)
    if not as_json:
        return settings
    return settings.model_copy(update={"log": settings.log.model_copy(update={"format": LogFormat.JSON})})


@answering
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the frames go; made if need be.")],
    *,
    night: Night = datetime(2026, 6, 17),  # noqa: DTZ001 - a date; the option has no time of day
    channels: Channels = "11-13",
    sequences: Annotated[
        str,
        typer.Option(metavar="LIST", help="Sequences, for instance BIAS,FLAT; those of a usual night if not given."),
    ] = "",
    seed: Seed = 1,
    mode: Annotated[str, typer.Option(metavar="MODE", help="INS.MODE of the night.")] = "WFM-NOAO-N",
    compressed: Annotated[bool, typer.Option(help="Write .fits.fz instead of .fits.")] = False,
    truth: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the truth behind the frames.")
    ] = None,
    statics: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the static calibrations that go with them.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Processes.")] = 1,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,  # noqa: ARG001 - every command takes it, so that scripts need not know which
) -> None:
    """Simulate the raw frames of a night as ESO writes them."""
    from recipes.simulator.night import DEFAULT, NightPlan, write_night
    from recipes.simulator.statics import write_statics
    from recipes.simulator.truth import write_truth

    plan = NightPlan(
        night=night.date(),
        channels=parse_channels(channels),
        seed=seed,
        mode=mode,
        sequences=parse_sequences(sequences) if sequences else DEFAULT,
        compressed=compressed,
    )
    frames = []
    for path in write_night(plan, folder, workers=workers):
        frames.append(path)
        if not as_json:
            print_table(f"{path.name}  {size_text(path.stat().st_size)}")
    record = {
        "frames": [str(path) for path in frames],
        "truth": str(write_truth(plan, truth)) if truth else None,
        "statics": [str(path) for path in write_statics(plan, statics)] if statics else [],
    }
    if as_json:
        print_json(record)
    else:
        print_table(
            f"{len(frames)} frames of the night {plan.night}, channels {channels_text(plan.channels)}, in {folder}."
        )


@answering
def demo(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="[FOLDER]", help="Where everything goes; what an earlier demo left there is removed first."
        ),
    ] = Path("demo"),
    *,
    channels: Channels = "11-13",
    night: Night = datetime(2026, 6, 17),  # noqa: DTZ001 - a date; the option has no time of day
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Simulate a night, play it into the incoming folder of a running daemon, and print the night report.

    Code 1 unless the ledger balances, every step that has a recipe is done and the archive is in order.
    """
    from rich.console import Console

    from daemon.cli.pages import demonstration_page
    from daemon.cli.records import examination_record, night_record
    from daemon.demo import demonstrate
    from recipes.simulator.night import NightPlan

    plan = NightPlan(night=night.date(), channels=parse_channels(channels), seed=seed)
    given = demonstrate(folder, plan, Console(stderr=as_json, highlight=False))
    record = examination_record(given.examination)
    if as_json:
        told = {"seconds": given.seconds, "in_order": given.in_order}
        print_json(night_record(given.report, record) | told)
    else:
        print_table(*demonstration_page(given, record, folder))
    raise typer.Exit(ExitCode.DONE if given.in_order else ExitCode.NOT_IN_ORDER)
