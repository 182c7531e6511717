"""The demonstration: a simulated night played into the incoming folder of a real daemon, and the report of that night.

Nothing is staged: the frames are full-size, and watcher, worker and Redis are those that ``musecal run`` starts.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.live import Live
from sqlalchemy import select

from archive.models import Arrival, Frame
from archive.states import ArrivalState
from archive.verification import Finding, verify
from daemon.cli.errors import RefusedError
from daemon.cli.output import channels_text, duration_text, size_text
from daemon.cli.progress import Progress, night_progress, progress_line, progress_page
from daemon.cli.standing import lying
from daemon.report import NightReport, compile_report, unaccounted
from daemon.verdict import Examination, examine
from recipes.muse import INSTRUMENT
from recipes.simulator.night import NightPlan
from recipes.simulator.statics import write_statics
from tasks.settings import load_settings
from tasks.site import Site

SETTINGS_FILE = "settings.toml"  # also the mark by which a folder is known as a demonstration's own
# A simulated frame gets its name when it is complete, so that a short settle time is enough.
SETTINGS = """\
[archive]
root = "archive"
incoming = "incoming"

[watch]
settle_seconds = 1.0
scan_seconds = 2.0

[groups]
grace_minutes = 0.5

[log]
format = "json"
"""
BROKEN = b"This is not FITS. "  # what an interrupted transfer or a wrong copy leaves behind
START_SECONDS = 30.0  # for the daemon to make its registry
TURN_SECONDS = 0.5
LINE_SECONDS = 10.0  # between lines of progress where there is no terminal to draw on
IDLE_SECONDS = 120.0  # if nothing moves for so long after the last frame, it will not come right by itself
STOP_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """How a demonstration ended.

    Parameters
    ----------
    report : NightReport
    examination : Examination
        Of its night.
    lost : tuple of str
        Files that were delivered and that the ledger does not hold.
    findings : tuple of Finding
        What is wrong with files of the archive.
    troubles : tuple of str
        Sentences on what else went wrong.
    seconds : float
        From the first process started to the last one ended.
    """

    report: NightReport
    examination: Examination
    lost: tuple[str, ...]
    findings: tuple[Finding, ...]
    troubles: tuple[str, ...]
    seconds: float

    @property
    def in_order(self) -> bool:
        """True if the ledger balances, and every step that has a recipe is done."""
        faults = (self.lost, self.findings, self.troubles, self.report.unfinished)
        return self.report.balanced and bool(self.report.products) and not any(faults)


def demonstrate(folder: Path, plan: NightPlan, console: Console) -> Demonstration:
    """Give the demonstration.

    Parameters
    ----------
    folder : Path
        Everything goes there; what an earlier demonstration left in it is removed first.
    plan : NightPlan
    console : Console
        For the progress.

    Raises
    ------
    RefusedError
        The folder holds something else, or the disk is too small.
    """
    frames = [exposure.archive_name for exposure in plan.exposures]
    _prepare(folder, plan, len(frames))
    site = Site.of(load_settings(folder / SETTINGS_FILE))
    copy, broken = frames[0], f"{frames[-1].rsplit('.', 2)[0]}.999.fits"
    announced = [*frames, copy, broken]
    start = time.monotonic()
    with _process("run", "--settings", str(folder / SETTINGS_FILE), log=folder / "daemon.log") as daemon:
        _wait_for_registry(site, daemon)
        _deliver_statics(plan, folder, site.settings.archive.incoming)
        simulation = ("simulate", str(site.settings.archive.incoming), *_options(plan))
        with _process(*simulation, log=folder / "simulator.log", nice=10) as simulator:
            running = _Running(
                site=site,
                night=plan.night,
                announced=len(announced),
                daemon=daemon,
                simulator=simulator,
                log=folder / "simulator.log",
                start=start,
            )
            troubles = _follow(running, Spoiler(site, copy, broken), console)
        daemon.terminate()
        if daemon.wait(STOP_SECONDS) != 0:
            troubles.append(f"The daemon ended with code {daemon.returncode}; see {folder / 'daemon.log'}.")
    with site.registry.read() as session:
        incoming, level = lying(site.settings), site.settings.plan.level
        report = compile_report(session, plan.night, incoming)
        examination = examine(session, plan.night, 1, incoming=incoming, level=level, now=site.clock())
    findings = verify(site.registry, site.store)
    return Demonstration(
        report=report,
        examination=examination,
        lost=unaccounted(report, announced),
        findings=tuple(findings),
        troubles=tuple(troubles),
        seconds=time.monotonic() - start,
    )


def _prepare(folder: Path, plan: NightPlan, frames: int) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / SETTINGS_FILE).exists() or (folder / SETTINGS_FILE).read_text() != SETTINGS:
            raise RefusedError(f"{folder} holds something else than an earlier demonstration; name another folder.")
        shutil.rmtree(folder)
    rows, columns = plan.detector.raw_shape
    needed = 2 * rows * columns * len(plan.channels) * (frames + 40)  # raw frames, products, pixel tables
    free = shutil.disk_usage(folder.absolute().parent).free
    if free < needed:
        raise RefusedError(
            f"channels {channels_text(plan.channels)} need {size_text(needed)} of disk, {folder.absolute().parent} has "
            f"{size_text(free)} left; take fewer channels or another folder."
        )
    (folder / "incoming").mkdir(parents=True)
    (folder / SETTINGS_FILE).write_text(SETTINGS)


def _options(plan: NightPlan) -> tuple[str, ...]:
    channels, sequences = channels_text(plan.channels), ",".join(sequence.name for sequence in plan.sequences)
    return (
        "--night", f"{plan.night}", "--channels", channels, "--sequences", sequences, "--seed", f"{plan.seed}",
        "--mode", plan.mode, *(["--compressed"] if plan.compressed else []),
    )  # fmt: skip


@contextmanager
def _process(*arguments: str, log: Path, nice: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of ours beside this process; it is ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own program
            ["nice", "-n", str(nice), sys.executable, "-P", "-m", "daemon.cli", *arguments],  # noqa: S607 - of any Unix
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS)


def _wait_for_registry(site: Site, daemon: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START_SECONDS
    heartbeat = site.settings.archive.root / "run" / "watcher.json"  # written after the registry is there
    while not heartbeat.exists():
        if daemon.poll() is not None or time.monotonic() > limit:
            log = site.settings.archive.root.parent / "daemon.log"
            raise RefusedError(f"the daemon did not start; it says: {log.read_text().strip()[-2000:]}")
        time.sleep(TURN_SECONDS)


def _deliver_statics(plan: NightPlan, folder: Path, incoming: Path) -> None:
    """Give the daemon the static calibrations of the night, each file as a whole."""
    for path in write_statics(plan, folder / "statics"):
        path.rename(incoming / path.name)
    (folder / "statics").rmdir()


class Spoiler:
    """Delivers what goes wrong in a real night: a frame a second time, and a file that is no FITS.

    Parameters
    ----------
    site : Site
    copy : str
        Name of the frame that comes twice; it does so once the archive has it.
    broken : str
        Name of the file that is no FITS.
    """

    def __init__(self, site: Site, copy: str, broken: str) -> None:
        self._site = site
        self._copy = copy
        self._broken = broken
        self.delivered = 0

    def deliver(self) -> None:
        """Deliver both as soon as that is possible."""
        if self.delivered:
            return
        with self._site.registry.read() as session:
            name = Arrival.path.endswith(f"/{self._copy}")
            taken = select(Frame.path).join(Arrival, Arrival.frame_id == Frame.id)
            path = session.scalar(taken.where(name, Arrival.state == ArrivalState.INGESTED))
        incoming = self._site.settings.archive.incoming
        if path and not (incoming / self._copy).exists():
            (incoming / f"{self._broken}.part").write_bytes(BROKEN * 4096)
            (incoming / f"{self._broken}.part").rename(incoming / self._broken)
            shutil.copyfile(path, incoming / f"{self._copy}.part")
            (incoming / f"{self._copy}.part").rename(incoming / self._copy)
            self.delivered = 2


def _follow(demo: "_Running", spoiler: Spoiler, console: Console) -> list[str]:
    """Show the progress until all is made that can be made; return what went wrong, as sentences."""
    last: Progress | None = None
    moved = time.monotonic()
    with _display(console) as show:
        while True:
            spoiler.deliver()
            with demo.site.registry.read() as session:
                progress = night_progress(session, demo.night)
            now = time.monotonic()
            if progress != last:
                last, moved = progress, now
            show(progress, demo.announced, demo.simulated + spoiler.delivered, now - demo.start)
            if demo.daemon.poll() is not None:
                return [f"The daemon ended by itself with code {demo.daemon.returncode}."]
            if demo.simulator.poll():
                return [f"The simulator failed with code {demo.simulator.returncode} after {demo.simulated} frames."]
            if demo.simulator.poll() == 0:
                if progress.taken >= demo.announced and progress.settled:
                    return []
                if now - moved > IDLE_SECONDS:
                    return [f"Nothing has moved for {duration_text(now - moved)}, and not everything is made."]
            time.sleep(TURN_SECONDS)


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A demonstration under way; ``log`` is what the simulator prints, a line a frame."""

    site: Site
    night: date
    announced: int
    daemon: subprocess.Popen[bytes]
    simulator: subprocess.Popen[bytes]
    log: Path
    start: float

    @property
    def simulated(self) -> int:
        """Frames delivered so far."""
        return sum(line.startswith(INSTRUMENT) for line in self.log.read_text().splitlines())


@contextmanager
def _display(console: Console) -> Iterator[Callable[[Progress, int, int, float], None]]:
    """Draw the progress on a terminal; elsewhere print a line of it now and then."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda progress, announced, delivered, seconds: live.update(
                progress_page(progress, announced=announced, delivered=delivered, seconds=seconds), refresh=True
            )
        return
    printed = -LINE_SECONDS

    def show(progress: Progress, announced: int, delivered: int, seconds: float) -> None:
        nonlocal printed
        if seconds - printed >= LINE_SECONDS:
            printed = seconds
            console.print(progress_line(progress, announced=announced, delivered=delivered, seconds=seconds))

    yield show
