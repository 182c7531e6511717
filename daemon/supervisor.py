"""The supervisor: embedded Redis, watcher, worker and web; each started again when it dies, all ended together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from threading import Event
from typing import IO, Protocol, cast

import structlog

from archive.registry import Registry
from daemon.broker import BrokerMissing, EmbeddedRedis, with_broker
from daemon.log import configure_log
from daemon.notify import notify
from daemon.processes import die_with_parent, lock_alone, stop_on_signal
from tasks.engines import check_engines
from tasks.settings import PREFIX, Settings

TURN_SECONDS = 0.2
FIRST_PAUSE = 0.5  # seconds before what died is started again; doubles while it keeps dying
LONGEST_PAUSE = 30.0
STEADY_SECONDS = 20.0  # what lived so long did not die of its start
STOP_SECONDS = 90.0  # for running parts to end or go back; then all is killed, and the leases of the parts run out

log = structlog.get_logger(__name__)


def run(settings: Settings) -> int:
    """Run everything until SIGTERM or SIGINT; a second signal ends it at once.

    An SQLite registry is brought to this version first: nobody else uses it. Any other has to be there and up to date.

    Returns
    -------
    int
        0 if all ended by itself, 1 if something had to be killed.

    Raises
    ------
    AlreadyRunning
        If another supervisor works on this archive root.
    RegistryOutdated
    SettingsError
        If a step is left to ESO's pipeline, and that is not here.
    BrokerMissing
    """
    configure_log(settings.log.level, settings.log.format)
    check_engines(settings)
    stop = stop_on_signal()
    with ExitStack() as stack:
        lock = lock_alone(settings.archive.root / "run" / "supervisor.lock", patience=TURN_SECONDS)
        stack.callback(os.close, lock)
        registry = Registry(settings.registry.url)
        if registry.url.get_backend_name() == "sqlite":
            registry.upgrade()
        else:
            registry.check()
        kept: list[Kept] = []
        if not settings.broker.url:
            redis = stack.enter_context(EmbeddedRedis(settings.archive.root))
            settings = with_broker(settings, redis.url)
            kept.append(Kept("redis", redis))
        names = ("watch", "work", "web") if settings.web.enabled else ("watch", "work")
        children = [Child(name, settings) for name in names]
        for child in children:
            child.start()
        kept.extend(Kept(child.name, child) for child in children)
        notify("READY=1")
        log.info("supervisor started", root=str(settings.archive.root), incoming=str(settings.archive.incoming))
        while not stop.is_set():
            for one in kept:
                one.look_after(time.monotonic())
            notify("WATCHDOG=1")
            time.sleep(TURN_SECONDS)
        notify("STOPPING=1")
        stop.clear()
        return 0 if end(children, hurry=stop) else 1


class Process(Protocol):
    """What the supervisor keeps alive."""

    @property
    def alive(self) -> bool:
        """True while it runs."""

    @property
    def pid(self) -> int:
        """Of the process that runs or ran last."""

    def start(self) -> None:
        """Start it, or start it again."""


class Kept:
    """One process that is started again when it dies: at once after a steady life, with growing pauses otherwise."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process
        self._started = time.monotonic()
        self._pause = 0.0
        self._resume: float | None = None  # when it is started again; None while it lives

    def look_after(self, now: float) -> None:
        """Start the process again if it is dead and its pause is over."""
        if self._process.alive:
            return
        if self._resume is None:
            steady = now - self._started >= STEADY_SECONDS
            self._pause = 0.0 if steady else min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            self._resume = now + self._pause
            log.error("process died", process=self._name, pid=self._process.pid, restart_in=self._pause)
        if now >= self._resume:
            self._started, self._resume = now, None
            try:
                self._process.start()
            except BrokerMissing as error:
                log.error("process not started", process=self._name, reason=str(error))  # noqa: TRY400 - a sentence
            else:
                log.info("process started again", process=self._name, pid=self._process.pid)


class Child:
    """Watcher, worker or web in a process of its own, which is given the settings as they are now.

    It leads a process group, so that a terminal's Ctrl-C reaches the supervisor alone.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings.model_dump_json().encode()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the one that runs or ran last; 0 before the first."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start the process."""
        # The environment's settings are in those given already; systemd's socket is the supervisor's.
        kept = {key: value for key, value in os.environ.items() if not key.startswith((PREFIX, "NOTIFY_", "WATCHDOG_"))}
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", "-m", "daemon.supervisor", self.name],
            stdin=subprocess.PIPE,
            env=kept,
            process_group=0,
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
        )
        pipe = cast(IO[bytes], self._process.stdin)
        with suppress(BrokenPipeError), pipe:  # a broken pipe: it is dead already, which is seen at the next turn
            pipe.write(self._settings)

    def stop(self) -> None:
        """Ask the process to end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill the process and those it started."""
        if self.alive:
            os.killpg(self.pid, signal.SIGKILL)


def end(children: Sequence[Child], *, hurry: Event) -> bool:
    """Have the children stop, and wait for it until patience or ``hurry`` ends it.

    Returns
    -------
    bool
        False if one had to be killed.
    """
    log.info("supervisor stopping")
    for child in children:
        child.stop()
    deadline = time.monotonic() + STOP_SECONDS
    while any(child.alive for child in children):
        if hurry.is_set() or time.monotonic() > deadline:
            log.warning("supervisor kills", processes=[child.name for child in children if child.alive])
            for child in children:
                child.kill()
            return False
        time.sleep(TURN_SECONDS)
    log.info("supervisor stopped")
    return True


def _run_child(name: str) -> int:
    """Be one of the children."""
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    if name == "watch":
        from daemon.watcher import watch

        watch(settings, stop=stop_on_signal())
        return 0
    if name == "web":
        from daemon.web.server import serve

        serve(settings, stop=stop_on_signal())
        return 0
    from daemon.worker import work

    return work(settings)


if __name__ == "__main__":
    sys.exit(_run_child(sys.argv[1]))
