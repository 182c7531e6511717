"""Leases: one worker at a part at a time, whatever dies."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from multiprocessing import get_context
from time import monotonic, sleep

import pytest
from rows import NOW, add_frame, add_step
from sqlalchemy import select

from archive.models import Event, Part, Step
from archive.registry import Registry
from archive.states import PartState, StepState, move
from tasks.failures import FINISH, Failure, Kind, conclude, give_back
from tasks.leases import Claim, Heartbeat, LeaseLost, Worker, beat, claim, hold, start_of, sweep, this_worker
from tasks.settings import WorkerSettings

SETTINGS = WorkerSettings(lease_seconds=30, heartbeat_seconds=5, attempts=3, crashes=2, time_limit_seconds=600)
LATER = NOW + timedelta(seconds=1)
ELSEWHERE = Worker(host="elsewhere", pid=1, start=1, parent=1, parent_start=1)


@pytest.fixture
def step_id(registry: Registry) -> int:
    """A queued step of channels 1 and 2."""
    with registry.begin() as session:
        return add_step(session, [add_frame(session, number) for number in range(3)]).id


@pytest.fixture
def part_id(registry: Registry, step_id: int) -> int:
    """The part of channel 1."""
    return part_of(registry, step_id, 1)


def part_of(registry: Registry, step_id: int, channel: int) -> int:
    with registry.read() as session:
        return session.execute(select(Part.id).filter_by(step_id=step_id, channel=channel)).scalar_one()


def take(registry: Registry, part_id: int, worker: Worker | None = None, now: datetime = NOW) -> Claim | None:
    with registry.begin() as session:
        return claim(session, part_id, worker or this_worker(), now, SETTINGS)


def taken(registry: Registry, part_id: int, worker: Worker | None = None, now: datetime = NOW) -> Claim:
    claimed = take(registry, part_id, worker, now)
    assert claimed is not None
    return claimed


def read(registry: Registry, part_id: int) -> Part:
    with registry.read() as session:
        return session.get_one(Part, part_id)


def end(registry: Registry, part_id: int, failure: Failure | None = None, now: datetime = NOW) -> None:
    """Claim a part and end it."""
    claimed = taken(registry, part_id, now=now)
    with registry.begin() as session:
        part = hold(session, claimed)
        if failure:
            give_back(session, part, failure, now, attempts=SETTINGS.attempts, backoff=timedelta(seconds=5))
        else:
            move(part, PartState.DONE)
            conclude(session, part.step, now)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this one that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def worker_of(process: subprocess.Popen[bytes], parent: int | None = None) -> Worker:
    parent = parent or os.getpid()
    start, parent_start = start_of(process.pid), start_of(parent)
    assert start
    assert parent_start
    return Worker(host=this_worker().host, pid=process.pid, start=start, parent=parent, parent_start=parent_start)


class TestClaim:
    def test_counts_the_attempt_and_starts_the_step(self, registry: Registry, part_id: int) -> None:
        claimed = taken(registry, part_id)
        part = read(registry, part_id)
        assert (part.state, part.attempt, part.worker) == (PartState.RUNNING, 1, str(this_worker()))
        assert part.lease_until == NOW + timedelta(seconds=30)
        assert claimed == Claim(
            part_id=part_id, step_id=part.step_id, channel=1, attempt=1, worker=part.worker, version="1"
        )
        with registry.read() as session:
            step = session.get_one(Step, part.step_id)
            assert (step.state, step.started) == (StepState.RUNNING, NOW)

    def test_of_a_part_at_work_is_refused(self, registry: Registry, part_id: int) -> None:
        taken(registry, part_id)
        assert take(registry, part_id, ELSEWHERE) is None
        assert read(registry, part_id).attempt == 1

    def test_of_an_unknown_part_is_refused(self, registry: Registry) -> None:
        assert take(registry, 4711) is None

    @pytest.mark.parametrize("state", [StepState.HELD, StepState.CANCELLED])
    def test_of_a_step_that_was_taken_back_is_refused(
        self, registry: Registry, part_id: int, step_id: int, state: StepState
    ) -> None:
        with registry.begin() as session:
            move(session.get_one(Step, step_id), state)
        assert take(registry, part_id) is None

    def test_waits_for_the_end_of_the_back_off(self, registry: Registry, part_id: int) -> None:
        end(registry, part_id, Failure(Kind.WORLD, "The disk is full."))
        assert take(registry, part_id, now=NOW + timedelta(seconds=4)) is None
        assert take(registry, part_id, now=NOW + timedelta(seconds=5)) is not None

    def test_of_the_finish_waits_for_every_channel(self, registry: Registry, step_id: int) -> None:
        finish, one, two = (part_of(registry, step_id, channel) for channel in (FINISH, 1, 2))
        end(registry, one)
        assert take(registry, finish) is None
        end(registry, two)
        assert take(registry, finish) is not None

    def test_of_many_at_once_is_given_to_one(self, registry: Registry, step_id: int) -> None:
        parts = [part_of(registry, step_id, channel) for channel in (1, 2)]
        url = registry.url.render_as_string(hide_password=False)
        registry.close()
        with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
            claims = list(pool.map(race, [url] * 4, [parts] * 4))
        assert sorted(part for process in claims for part in process) == sorted(parts)
        assert {read(registry, part).attempt for part in parts} == {1}


def race(url: str, parts: list[int]) -> list[int]:
    """Claim each of the parts as often as it goes; return those that were given."""
    registry = Registry(url)
    return [part for part in parts * 20 if take(registry, part)]


class TestFencing:
    def test_a_late_finisher_changes_nothing(self, registry: Registry, part_id: int) -> None:
        late = taken(registry, part_id, ELSEWHERE)
        again = taken(registry, part_id, now=NOW + timedelta(seconds=31))
        assert again.attempt == 2
        with registry.begin() as session:
            assert not beat(session, late, NOW + timedelta(hours=1))
            with pytest.raises(LeaseLost, match="attempt 1"):
                hold(session, late)
            assert hold(session, again).id == part_id

    def test_a_cancelled_part_is_lost_to_its_worker(self, registry: Registry, part_id: int) -> None:
        claimed = taken(registry, part_id)
        with registry.begin() as session:
            move(session.get_one(Part, part_id), PartState.CANCELLED)
        with registry.begin() as session, pytest.raises(LeaseLost):
            hold(session, claimed)

    def test_a_requeued_part_does_not_repeat_its_token(self, registry: Registry, part_id: int) -> None:
        before = taken(registry, part_id)
        with registry.begin() as session:
            part = session.get_one(Part, part_id)
            move(part, PartState.CANCELLED)
            move(part, PartState.QUEUED)
        assert taken(registry, part_id) != before  # though the worker is the same
        with registry.begin() as session, pytest.raises(LeaseLost):
            hold(session, before)


class TestLoss:
    def test_a_killed_process_is_noticed_at_once(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        taken(registry, part_id, worker_of(child))
        assert take(registry, part_id, now=LATER) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet buried by its parent
        assert taken(registry, part_id, now=LATER).attempt == 2
        assert read(registry, part_id).crashes == 1

    def test_a_part_that_kills_its_process_twice_is_poison(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        dead = worker_of(child)
        child.kill()
        child.wait()
        assert taken(registry, part_id, dead).attempt == 1
        assert taken(registry, part_id, dead).attempt == 2
        assert take(registry, part_id) is None
        part = read(registry, part_id)
        assert (part.state, part.error_kind, part.crashes) == (PartState.FAILED, "poison", 2)
        assert "took its process with it 2 times" in part.error

    def test_a_worker_that_is_stopped_is_not_held_against_the_part(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        dead = worker_of(child, parent=child.pid)
        child.kill()
        child.wait()
        taken(registry, part_id, dead)
        assert sweep(registry, LATER, SETTINGS) == 1
        part = read(registry, part_id)
        assert (part.state, part.crashes, part.retries, part.sent) == (PartState.QUEUED, 0, 1, None)

    def test_a_part_that_loses_its_worker_again_and_again_ends(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        dead = worker_of(child, parent=child.pid)
        child.kill()
        child.wait()
        for _ in range(SETTINGS.attempts):
            taken(registry, part_id, dead)
            sweep(registry, LATER, SETTINGS)
        part = read(registry, part_id)
        assert (part.state, part.error_kind) == (PartState.FAILED, "world")
        assert "tried 3 times" in part.error

    def test_another_process_under_the_same_number_does_not_hold_the_lease(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        taken(registry, part_id, replace(worker_of(child), start=worker_of(child).start - 1))
        assert taken(registry, part_id).attempt == 2

    def test_of_a_worker_elsewhere_is_known_by_its_lease(self, registry: Registry, part_id: int) -> None:
        taken(registry, part_id, ELSEWHERE)
        assert sweep(registry, NOW + timedelta(seconds=30), SETTINGS) == 0
        assert sweep(registry, NOW + timedelta(seconds=30.1), SETTINGS) == 1
        assert sweep(registry, NOW + timedelta(seconds=30.1), SETTINGS) == 0

    def test_a_part_killed_by_the_hard_limit_failed_by_the_limit(
        self, registry: Registry, part_id: int, child: subprocess.Popen[bytes]
    ) -> None:
        claimed = taken(registry, part_id, worker_of(child))
        with registry.begin() as session:
            assert beat(session, claimed, NOW + timedelta(seconds=598 + 30))
        child.kill()
        child.wait()
        assert sweep(registry, NOW + timedelta(seconds=605), SETTINGS) == 1
        part = read(registry, part_id)
        assert (part.state, part.error_kind) == (PartState.FAILED, "limit")
        assert "600 s of worker.time_limit_seconds" in part.error


class TestHeartbeat:
    quick = SETTINGS.model_copy(update={"heartbeat_seconds": 0.05})

    def test_extends_the_lease_while_the_work_goes_on(self, registry: Registry, part_id: int) -> None:
        claimed = taken(registry, part_id)
        with Heartbeat(registry, claimed, self.quick, lambda: NOW + timedelta(hours=1)):
            wait_until(lambda: read(registry, part_id).lease_until == NOW + timedelta(hours=1, seconds=30))

    def test_does_not_extend_the_lease_of_another(self, registry: Registry, part_id: int) -> None:
        claimed = taken(registry, part_id, ELSEWHERE)
        taken(registry, part_id, now=NOW + timedelta(seconds=31))
        with Heartbeat(registry, claimed, self.quick, lambda: NOW + timedelta(hours=1)):
            sleep(0.3)
        assert read(registry, part_id).lease_until == NOW + timedelta(seconds=61)


def wait_until(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    limit = monotonic() + seconds
    while not happened():
        assert monotonic() < limit, f"did not happen within {seconds} s"
        sleep(0.02)


class TestEnd:
    def test_back_off_doubles_until_the_attempts_are_used_up(self, registry: Registry, part_id: int) -> None:
        full = Failure(Kind.WORLD, "The disk is full.")
        now, waits = NOW, []
        while read(registry, part_id).state is not PartState.FAILED:
            end(registry, part_id, full, now)
            part = read(registry, part_id)
            if part.not_before and part.not_before > now:
                waits.append((part.not_before - now).total_seconds())
                now = part.not_before
        assert waits == [5.0, 10.0]
        assert read(registry, part_id).error.startswith("The disk is full.")

    def test_bad_data_are_not_tried_again(self, registry: Registry, part_id: int) -> None:
        end(registry, part_id, Failure(Kind.DATA, "The bias is at 0 adu.", {"level": 0.0, "limit": float("nan")}))
        part = read(registry, part_id)
        assert (part.state, part.attempt, part.error_kind) == (PartState.FAILED, 1, "data")
        with registry.read() as session:
            event = session.execute(select(Event).filter_by(what="part failed")).scalar_one()
            assert event.data["numbers"] == {"level": 0.0, "limit": None}

    def test_a_step_fails_when_all_its_channels_have_ended(self, registry: Registry, step_id: int) -> None:
        one, two, finish = (part_of(registry, step_id, channel) for channel in (1, 2, FINISH))
        end(registry, one, Failure(Kind.DATA, "Too few frames."))
        with registry.read() as session:
            assert session.get_one(Step, step_id).state is StepState.RUNNING
        end(registry, two, Failure(Kind.DATA, "Too few frames."))
        with registry.read() as session:
            step = session.get_one(Step, step_id)
            assert (step.state, step.error, step.error_kind) == (
                StepState.FAILED,
                "Channel 1, 2: Too few frames.",
                "data",
            )
            assert step.ended == NOW
        assert read(registry, finish).state is PartState.CANCELLED

    def test_a_channel_that_failed_is_not_hidden_by_those_that_came_out(self, registry: Registry, step_id: int) -> None:
        end(registry, part_of(registry, step_id, 1), Failure(Kind.BUG, "ZeroDivisionError"))
        end(registry, part_of(registry, step_id, 2))
        with registry.read() as session:
            step = session.get_one(Step, step_id)
            assert (step.state, step.error) == (StepState.FAILED, "Channel 1: ZeroDivisionError")


HIDDEN = """
import sys
from tasks.leases import is_gone, start_of
print(start_of(int(sys.argv[1])), is_gone(int(sys.argv[1]), 1))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a /proc that hides processes")
def test_a_process_that_is_hidden_is_not_taken_for_dead(child: subprocess.Popen[bytes]) -> None:
    """As the units of systemd have it: each sees its own processes only."""

    def look() -> str:
        hide = "mount -t proc -o hidepid=2,gid=65534 proc /proc && exec unshare --user --map-root-user"
        shell = ["unshare", "--mount", "sh", "-c", f"{hide} {sys.executable} - {child.pid}"]
        return subprocess.run(shell, input=HIDDEN, capture_output=True, text=True, check=True).stdout

    assert look() == "None False\n"
    child.kill()
    child.wait()
    assert look() == "None True\n"


def test_a_worker_reads_as_it_is_written() -> None:
    assert Worker.parse(str(this_worker())) == this_worker()
    assert Worker.parse("a:host:2:3:4:5") == Worker(host="a:host", pid=2, start=3, parent=4, parent_start=5)
