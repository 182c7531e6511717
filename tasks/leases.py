"""Leases: who works on a part and until when, and what becomes of a part whose worker is gone.

A claim counts the attempt before the work; the attempt is the fencing token, and whoever does not hold the current one
changes nothing any more.
"""

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import structlog
from sqlalchemy import ColumnElement, CursorResult, Update, and_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Part
from archive.registry import Registry
from archive.states import PartState, StepState, check_move, move
from tasks.engines import engine_of
from tasks.failures import FINISH, Failure, Kind, give_back
from tasks.settings import WorkerSettings

_STATE, _START = 0, 19  # of /proc/PID/stat, counted after the name; proc(5)

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The process that holds a lease, and the worker it belongs to; starts in clock ticks since the machine's boot."""

    host: str
    pid: int
    start: int
    parent: int
    parent_start: int

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}:{self.start}:{self.parent}:{self.parent_start}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the worker that a part's row names."""
        host, *numbers = text.rsplit(":", 4)
        pid, start, parent, parent_start = map(int, numbers)
        return cls(host=host, pid=pid, start=start, parent=parent, parent_start=parent_start)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to work on a part, as long as its row says the same."""

    part_id: int
    step_id: int
    channel: int
    attempt: int
    worker: str
    version: str = ""  # in the identity of its step; tells the engine


def start_of(pid: int) -> int | None:
    """Return when a process of this machine began, in clock ticks since boot; None if it is gone, dead, or hidden."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in ("Z", "X") else int(fields[_START])


def is_gone(pid: int, start: int) -> bool:
    """Return whether a process of this machine has certainly ended.

    The daemon's own processes may be hidden from each other: systemd's ProtectProc and PrivateUsers together do that.
    The kernel still tells that there is one; whether it works is then for the lease to say.
    """
    if Path(f"/proc/{pid}").exists():
        return start_of(pid) != start
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@cache
def _host() -> str:
    return socket.gethostname()


def this_worker() -> Worker:
    """Return the process that asks."""
    pid, parent = os.getpid(), os.getppid()
    return Worker(host=_host(), pid=pid, start=start_of(pid) or 0, parent=parent, parent_start=start_of(parent) or 0)


def claim(session: Session, part_id: int, worker: Worker, now: datetime, settings: WorkerSettings) -> Claim | None:
    """Claim a part: a queued one, or one whose worker is lost.

    Returns
    -------
    Claim or None
        None if there is nothing to do here: another worker has it, it has ended, it waits, or its step was taken back.
    """
    part = session.get(Part, part_id)
    if part is None:
        return None
    if part.state is PartState.RUNNING:
        recover(session, part, now, settings)
    if not _claimable(session, part, now):
        return None
    check_move(part.state, PartState.RUNNING)
    claiming = (
        update(Part)
        .where(Part.id == part_id, Part.state == PartState.QUEUED, Part.attempt == part.attempt)
        .values(
            state=PartState.RUNNING,
            attempt=part.attempt + 1,
            worker=str(worker),
            started=now,
            ended=None,
            lease_until=now + timedelta(seconds=settings.lease_seconds),
        )
    )
    if not _changed(session, claiming):
        return None
    if part.step.state is StepState.QUEUED:
        move(part.step, StepState.RUNNING)
        part.step.started = now
        record(session, part.step, "step running", now=now)
    return Claim(
        part_id=part.id,
        step_id=part.step_id,
        channel=part.channel,
        attempt=part.attempt,
        worker=part.worker,
        version=part.step.recipe_version,
    )


def _claimable(session: Session, part: Part, now: datetime) -> bool:
    if part.state is not PartState.QUEUED or part.step.state not in (StepState.QUEUED, StepState.RUNNING):
        return False
    if part.not_before is not None and part.not_before > now:
        return False
    return part.channel != FINISH or not session.scalar(
        select(Part.id)
        .where(Part.step_id == part.step_id, Part.channel != FINISH, Part.state != PartState.DONE)
        .limit(1)
    )


class LeaseLost(Exception):  # noqa: N818 - reads as what it is
    """The part was taken from its worker: another has it, or it was cancelled. Nothing is to be written any more."""


def hold(session: Session, claim: Claim) -> Part:
    """Return the claimed part for a change in this write transaction.

    Raises
    ------
    LeaseLost
    """
    part = session.scalar(select(Part).where(_held(claim)))
    if part is None:
        raise LeaseLost(f"attempt {claim.attempt} at part {claim.part_id} is not that of {claim.worker} any more.")
    return part


def beat(session: Session, claim: Claim, until: datetime) -> bool:
    """Extend the lease; False if it was lost."""
    return _changed(session, update(Part).where(_held(claim)).values(lease_until=until))


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(
        Part.id == claim.part_id,
        Part.attempt == claim.attempt,
        Part.worker == claim.worker,
        Part.state == PartState.RUNNING,
    )


def _changed(session: Session, change: Update) -> bool:
    return cast(CursorResult[Any], session.execute(change)).rowcount > 0


@dataclass(frozen=True)
class Loss:
    """How a running part lost its worker; ``crashed`` if its own process died while the worker around it lived."""

    failure: Failure
    crashed: bool = False


def loss(part: Part, now: datetime, settings: WorkerSettings) -> Loss | None:
    """Say how a running part lost its worker; None while it may still be at work.

    A process of this machine is looked up, so that its death is known at once; any other counts as lost when its
    lease has run out. Only a process that died alone is held against the part: a worker that was stopped or a machine
    that was switched off says nothing about it.
    """
    if part.lease_until is None or part.started is None:
        raise ValueError(f"part {part.id} is running without a lease; the registry was changed by hand.")
    worker = Worker.parse(part.worker)
    if worker.host != _host() or not is_gone(worker.pid, worker.start):
        silent = Failure(Kind.WORLD, f"Its worker {part.worker} was not heard of any more.")
        return Loss(silent) if part.lease_until < now else None
    if is_gone(worker.parent, worker.parent_start):
        return Loss(Failure(Kind.WORLD, f"Its worker {part.worker} was stopped."))
    last_sign = part.lease_until - timedelta(seconds=settings.lease_seconds)
    seconds = (last_sign - part.started).total_seconds() + settings.heartbeat_seconds
    limits = settings.limits_of(engine_of(part.step.recipe_version))
    if seconds >= limits.seconds:
        sentence = f"The part ran on after the {limits.seconds:g} s of {limits.time_setting} and was killed."
        return Loss(Failure(Kind.LIMIT, sentence, {"seconds": seconds}))
    if part.crashes + 1 >= settings.crashes:
        sentence = (
            f"The part took its process with it {settings.crashes} times (out of memory, or a crash in compiled code); "
            "it is not tried again before it is requeued."
        )
        return Loss(Failure(Kind.POISON, sentence, {"crashes": settings.crashes}), crashed=True)
    return Loss(Failure(Kind.WORLD, f"Its process {worker.pid} on {worker.host} died."), crashed=True)


def recover(session: Session, part: Part, now: datetime, settings: WorkerSettings) -> bool:
    """Take a running part back if its worker is lost: into the queue, or to its end if it is to blame."""
    lost = loss(part, now, settings)
    if lost is None:
        return False
    part.crashes += lost.crashed
    give_back(session, part, lost.failure, now, attempts=settings.attempts, backoff=timedelta(0))
    return True


def sweep(registry: Registry, now: datetime, settings: WorkerSettings) -> int:
    """Take back every running part whose worker is lost; return how many."""
    running = select(Part).where(Part.state == PartState.RUNNING).order_by(Part.id)
    with registry.read() as session:
        if not any(loss(part, now, settings) for part in session.scalars(running)):
            return 0  # as nearly always, and then nobody waits for the write lock
    with registry.begin() as session:
        return sum(recover(session, part, now, settings) for part in session.scalars(running).all())


class Heartbeat:
    """Extends a lease from a thread of its own while the work goes on."""

    def __init__(
        self, registry: Registry, claim: Claim, settings: WorkerSettings, clock: Callable[[], datetime]
    ) -> None:
        self._registry, self._claim, self._clock = registry, claim, clock
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._every = settings.heartbeat_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of part {claim.part_id}", daemon=True)

    def _beat(self) -> None:
        held = True
        while held and not self._stop.wait(self._every):
            try:
                with self._registry.begin() as session:
                    held = beat(session, self._claim, self._clock() + self._lease)
            except (OperationalError, MemoryError) as error:  # the next beat tries again
                log.warning("lease not extended", part=self._claim.part_id, why=str(error))
        if not held:
            log.warning("lease lost", part=self._claim.part_id, attempt=self._claim.attempt)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
