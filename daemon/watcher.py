"""The watcher: takes in every file that settles in the incoming folder, then has the work planned and queued.

Events of the file system are hints that only shorten the wait; the scan is the guarantee. The registry, the broker or
the disk may be away: the watcher says so, waits, and comes again; what is in the folder stays there until it is taken.
"""

import errno
import os
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from archive.registry import Registry
from archive.states import ArrivalState
from archive.store import Store
from daemon.arrivals import Arrivals, Sighting, Signature
from daemon.broker import broker_url, with_broker
from daemon.heartbeat import Heartbeat, write_heartbeat
from daemon.hints import Hints
from daemon.log import configure_log
from daemon.notify import notify
from daemon.processes import lock_alone
from daemon.scan import look_at, scan
from tasks.app import make_app
from tasks.cycle import run_cycle
from tasks.engines import check_engines
from tasks.intake import Intake, Taken
from tasks.settings import Settings

TURN_SECONDS = 0.5  # the loop turns at least this often: to stop, and to beat
SCAN_PAUSE_SECONDS = 1.0  # between scans that hints ask for, so that a thousand new folders are not a thousand scans
TAKE_SECONDS = 1.0  # of a backlog so much is taken before the planner sees it
CYCLE_SECONDS = 10.0  # the planner runs at least this often: grace times end, leases run out, retries come due
LONGEST_PAUSE_SECONDS = 30.0  # between attempts while the registry, the broker or the disk is away
BEAT_SECONDS = 2.0
FINAL = (ArrivalState.INGESTED, ArrivalState.DUPLICATE, ArrivalState.QUARANTINED)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

log = structlog.get_logger(__name__)


def watch(settings: Settings, *, stop: Event) -> None:
    """Watch the incoming folder until ``stop`` is set.

    Raises
    ------
    AlreadyRunning
        If another watcher works on this archive root.
    RegistryOutdated
        If the registry is not that of this version.
    SettingsError
        If a step is left to ESO's pipeline, and that is not here: the planner has to know its version.
    BrokerMissing
        If no broker is set and no supervisor runs.
    """
    configure_log(settings.log.level, settings.log.format)
    check_engines(settings)
    settings = with_broker(settings, broker_url(settings))
    registry = Registry(settings.registry.url)
    app = make_app(settings)
    lock = lock_alone(settings.archive.root / "run" / "watcher.lock", patience=TURN_SECONDS)
    try:
        registry.check()
        Watcher(
            settings,
            intake=Intake(registry, Store(settings.archive.root), settings),
            cycle=lambda now: run_cycle(registry, settings, app, now),
        ).run(stop)
    finally:
        notify("STOPPING=1")
        os.close(lock)


class Watcher:
    """The loop, one thread: hints, scan, settled files, planner, heartbeat.

    Parameters
    ----------
    settings : Settings
    intake : Intake
    cycle : callable
        Plans and queues; given the time.
    """

    def __init__(self, settings: Settings, *, intake: Intake, cycle: Callable[[datetime], object]) -> None:
        self._settings = settings
        self._intake = intake
        self._cycle = cycle
        self._folder = settings.archive.incoming.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._arrivals = Arrivals(settle=settings.watch.settle_seconds, longest_pause=LONGEST_PAUSE_SECONDS)
        self._hints = Hints(self._folder, settings.watch.mode)
        self._next_scan = self._last_scan = 0.0
        self._found: Collection[Path] | None = None  # by the last scan, until the registry has heard of it
        self._next_cycle = 0.0
        self._cycle_seconds = 0.0  # what the planner took the last time
        self._resume = 0.0  # no file is taken before, while the registry is away or the disk is full
        self._pause = 0.0
        self._troubles: dict[str, str] = {}  # what keeps it from working, and why
        self._next_beat = 0.0
        self._ready = False
        self._taken = 0
        self._times = dict.fromkeys(("last_scan", "last_take", "last_cycle"), "")

    def run(self, stop: Event) -> None:
        """Work until ``stop`` is set."""
        log.info("watcher started", folder=str(self._folder), settle=self._settings.watch.settle_seconds)
        try:
            while not stop.is_set():
                self.turn()
        finally:
            self._hints.close()
        log.info("watcher stopped", waiting=self._arrivals.waiting, stalled=self._arrivals.stalled)

    def turn(self) -> None:
        """Wait for what is next, and do it."""
        self._note_hints()
        if time.monotonic() >= self._next_scan:
            self._scan()
        try:
            self._give_up_missing()
            if self._take_settled() or time.monotonic() >= self._next_cycle:
                self._run_cycle()
        except (OperationalError, InterfaceError) as error:
            self._next_cycle = self._back_off("registry", str(error.orig))
        self._beat()

    def _note_hints(self) -> None:
        now = time.monotonic()
        looks = [self._next_scan, self._next_cycle, now + TURN_SECONDS]
        if self._arrivals.next_look is not None:
            looks.append(max(self._arrivals.next_look, self._resume))
        hinted = self._hints.wait(min(looks) - now)
        now = time.monotonic()
        unreadable = False
        for path in hinted.paths:
            try:
                signature = look_at(path)
            except OSError:  # the scan will say so
                unreadable = True
            else:
                if signature is not None:
                    self._arrivals.see(path, signature, now)
        if hinted.rescan or unreadable:
            self._next_scan = min(self._next_scan, self._last_scan + SCAN_PAUSE_SECONDS)

    def _scan(self) -> None:
        self._last_scan = time.monotonic()
        self._next_scan = self._last_scan + self._settings.watch.scan_seconds
        try:
            self._hints.listen()  # first the observer, then the scan: nothing can come between them unseen
            found = scan(self._folder)
        except OSError as error:
            self._note_trouble("incoming folder", str(error))
            return
        for path, signature in found.files.items():
            self._arrivals.see(path, signature, self._last_scan)
        if found.unreadable:
            reasons = (f"{path}: {reason}" for path, reason in found.unreadable.items())
            self._note_trouble("incoming folder", "; ".join(reasons))
        else:
            self._arrivals.retain(found.files.keys())
            self._found = found.files.keys()
            self._end_trouble("incoming folder")
        self._note_time("last_scan")
        if not self._ready:
            self._ready = True
            notify("READY=1", "STATUS=watching")

    def _give_up_missing(self) -> None:
        """Have the registry note which awaited files the last scan did not find any more."""
        if self._found is not None and time.monotonic() >= self._resume:
            self._intake.give_up(self._folder, self._found, datetime.now(UTC))
            self._found = None

    def _take_settled(self) -> bool:
        """Take what has settled, up to about a second of it; return True if anything was taken in."""
        now = time.monotonic()
        if now < self._resume:
            return False
        self._end_trouble("disk")
        taken = self._taken
        enough = now + max(TAKE_SECONDS, 2 * self._cycle_seconds)
        for sighting in self._arrivals.settled(now):
            self._take(sighting)
            if not self._resume <= time.monotonic() < enough:
                break
        return self._taken > taken

    def _take(self, sighting: Sighting) -> None:
        path = sighting.path
        try:
            signature = look_at(path)
            if signature is None:
                self._arrivals.forget(path)
                return
            if signature != sighting.signature:
                self._arrivals.see(path, signature, time.monotonic())
                return
            taken = self._intake.take(path, datetime.now(UTC))
            left = look_at(path)
        except (OperationalError, InterfaceError):
            raise  # the registry is away for every file
        except OSError as error:
            if error.errno in NO_ROOM:
                self._back_off("disk", str(error))
            else:
                self._postpone(path, f"{type(error).__name__}: {error}")
        except Exception as error:
            # A bug that one file brings out must not keep all the others out; the log has its traceback, the heartbeat
            # its sentence, and the file stays where it is.
            log.exception("file not taken", file=str(path))
            self._postpone(path, f"{type(error).__name__}: {error}")
        else:
            if taken.state in FINAL:
                self._note_taken(path, taken, left)
            else:
                self._postpone(path, taken.reason, stalled=taken.state is ArrivalState.STALLED)

    def _note_taken(self, path: Path, taken: Taken, left: Signature | None) -> None:
        if left is None:
            self._arrivals.forget(path)
        else:
            self._arrivals.take(path, left)
        self._taken += 1
        self._note_time("last_take")
        subject = {"product": taken.product_id} if taken.product_id else {"frame": taken.frame_id}
        log.info("file taken", file=path.name, state=str(taken.state), reason=taken.reason, **subject)

    def _postpone(self, path: Path, reason: str, *, stalled: bool = False) -> None:
        if self._arrivals.postponed.get(path) != reason:  # said once
            log.info("file postponed", file=str(path), stalled=stalled, reason=reason)
        self._arrivals.postpone(path, time.monotonic(), reason=reason, stalled=stalled)

    def _run_cycle(self) -> None:
        started = time.monotonic()
        try:
            self._cycle(datetime.now(UTC))
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            # A bug of the planner must not keep the frames out; the log has its traceback, the heartbeat its sentence.
            log.exception("planner failed")
            self._note_trouble("planner", f"{type(error).__name__}: {error}")
        else:
            self._note_time("last_cycle")
            self._end_trouble("planner")
        self._cycle_seconds = time.monotonic() - started
        self._next_cycle = started + max(CYCLE_SECONDS, 2 * self._cycle_seconds)
        if "disk" not in self._troubles:
            self._pause = 0.0
        self._end_trouble("registry")

    def _back_off(self, what: str, reason: str) -> float:
        """Note what is away; return when it is tried again, each time after twice as long."""
        self._pause = min(2 * self._pause or 1.0, LONGEST_PAUSE_SECONDS)
        self._note_trouble(what, reason)
        self._resume = time.monotonic() + self._pause
        return self._resume

    def _note_trouble(self, what: str, reason: str) -> None:
        if self._troubles.get(what) != reason:  # said once
            log.warning("in trouble", what=what, reason=reason)
        self._troubles[what] = reason

    def _end_trouble(self, what: str) -> None:
        if self._troubles.pop(what, None):
            log.info("trouble over", what=what)

    def _note_time(self, what: str) -> None:
        self._times[what] = datetime.now(UTC).isoformat()

    def _beat(self) -> None:
        """Tell systemd and everybody who asks that the loop turns."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_SECONDS
        notify("WATCHDOG=1", f"STATUS={self._arrivals.waiting} files awaited, {self._taken} taken")
        heartbeat = Heartbeat(
            at=datetime.now(UTC).isoformat(),
            pid=os.getpid(),
            mode=self._hints.mode,
            waiting=self._arrivals.waiting,
            stalled=self._arrivals.stalled,
            taken=self._taken,
            troubles=self._troubles,
            postponed={str(path): reason for path, reason in self._arrivals.postponed.items()},
            **self._times,
        )
        try:
            write_heartbeat(self._settings.archive.root, heartbeat)
        except OSError as error:
            self._note_trouble("archive root", str(error))
        else:
            self._end_trouble("archive root")
