"""Celery with its pool of processes, watched over by systemd through a thread of its own."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import structlog
from celery import Celery, bootsteps, signals
from kombu.exceptions import OperationalError as BrokerError

from daemon.notify import notify, watchdog_seconds
from daemon.processes import die_with_parent
from tasks.app import SHUTDOWN_SECONDS, make_app
from tasks.settings import Settings

TICK_SECONDS = 1.0
LONGEST_SILENCE = 60.0  # seconds; an event loop that is silent for longer hangs, unless the broker is away
BROKER_SECONDS = 5  # a broker that does not answer within these is away
MEGABYTE = 1 << 20

log = structlog.get_logger(__name__)


def concurrency_of(settings: Settings, *, cores: int, memory: int) -> int:
    """Return how many parts are worked on at once: as set, else as many as cores and memory (bytes) allow."""
    worker, engines = settings.worker, {step.engine for step in settings.steps.values()}
    fitting = memory // (max(worker.limits_of(engine).memory_mb for engine in engines) * MEGABYTE)
    return worker.concurrency or max(1, min(cores, fitting))


def run_pool(settings: Settings) -> int:
    """Run Celery's worker in this process until SIGTERM or SIGINT; return its exit code.

    Told to stop, it takes no further part and ends when those it works on have ended. What is not done after
    ``SHUTDOWN_SECONDS`` goes back into the queue.
    """
    app = make_app(settings)
    # Celery's own grace is a sleep: it neither ends early nor notes the parts that end meanwhile.
    app.conf.worker_soft_shutdown_timeout = 0
    pulse = Pulse(silent=lambda: _broker_away(app))
    concurrency = concurrency_of(settings, cores=len(os.sched_getaffinity(0)), memory=psutil.virtual_memory().total)
    parent = os.getpid()

    def prepare_process(**_: Any) -> None:  # noqa: ANN401 - what Celery's signals carry
        die_with_parent(parent)

    def announce(**_: Any) -> None:  # noqa: ANN401
        notify("READY=1", f"STATUS={concurrency} parts at once")
        log.info("worker ready", concurrency=concurrency)

    def take_leave(how: str, **_: Any) -> None:  # noqa: ANN401
        notify("STOPPING=1")
        log.info("worker stopping", how=how)
        if how == "Warm":
            hurry = threading.Timer(SHUTDOWN_SECONDS, os.kill, (parent, signal.SIGQUIT))
            hurry.daemon = True
            hurry.start()

    signals.setup_logging.connect(_keep_log, weak=False)
    signals.worker_process_init.connect(prepare_process, weak=False)
    signals.worker_ready.connect(announce, weak=False)
    signals.worker_shutting_down.connect(take_leave, weak=False)
    app.steps["worker"].add(Tick)
    worker = app.Worker(
        hostname=f"musecal-{parent}@{socket.gethostname()}",
        concurrency=concurrency,
        quiet=True,
        without_mingle=True,  # workers learn nothing from each other, only from the registry
        without_gossip=True,
        tick=pulse.tick,
    )
    pulse.start()
    worker.start()
    return int(worker.exitcode or 0)


def _keep_log(**_: Any) -> None:  # noqa: ANN401
    """Be there, so that Celery sets up no log of its own."""


def _broker_away(app: Celery) -> bool:
    with app.connection_for_read(connect_timeout=BROKER_SECONDS) as connection:
        try:
            connection.ensure_connection(max_retries=1, timeout=BROKER_SECONDS)
        except BrokerError:
            return True
    return False


class Tick(bootsteps.StartStopStep):
    """Ticks in the worker's event loop."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, parent: Any, tick: Callable[[], None], **options: Any) -> None:  # noqa: ANN401 - Celery's own
        self._tick = tick
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:  # noqa: ANN401
        """Tick from now on."""
        parent.timer.call_repeatedly(TICK_SECONDS, self._tick)


class Pulse:
    """Beats for systemd while the event loop ticks, or while it has a reason not to.

    A loop that looks for a lost broker does not tick; killing the worker then would only cost the parts it works on.

    Parameters
    ----------
    silent : callable
        True if there is a reason for silence. Asked only when the loop has been silent for too long.
    clock : callable
        Steady seconds.
    """

    def __init__(self, *, silent: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._silent = silent
        self._clock = clock
        self._ticked = clock()

    def tick(self) -> None:
        """Note that the event loop turns."""
        self._ticked = self._clock()

    def alive(self) -> bool:
        """Return True if the worker is well."""
        return self._clock() - self._ticked <= LONGEST_SILENCE or self._silent()

    def start(self) -> None:
        """Begin to beat, if systemd wants it."""
        seconds = watchdog_seconds()
        if seconds is not None:
            threading.Thread(target=self._beat, args=(seconds / 3,), name="pulse", daemon=True).start()

    def _beat(self, seconds: float) -> None:
        while True:
            if self.alive():
                notify("WATCHDOG=1")
            else:
                log.error("worker hangs", silent_seconds=round(self._clock() - self._ticked))
            time.sleep(seconds)
