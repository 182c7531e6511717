"""Drills: real workers on a real Redis, and everything that can be killed is killed. The archive ends the same."""

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import wait_until
from sqlalchemy import select
from station import Station, held

from archive.models import Part
from archive.registry import Registry
from archive.states import PartState, StepState
from tasks.app import make_app
from tasks.cycle import run_cycle
from tasks.dispatch import PART_TASK
from tasks.failures import FINISH
from tasks.intake import Intake

ENDED = (StepState.DONE, StepState.FAILED)
pytestmark = pytest.mark.parametrize("registry", ["sqlite"], indirect=True)


@pytest.fixture
def station(registry: Registry, tmp_path: Path, biases: list[Path]) -> Iterator[Station]:
    """A site with nothing running but Redis."""
    with held(registry, tmp_path, biases) as station:
        yield station


def test_steps_go_through_and_failures_are_told_apart(station: Station) -> None:
    station.environment["MUSECAL_WORKER__TIME_LIMIT_SECONDS"] = "5"
    station.start("planner", "worker")
    kinds = {"muse_bias": "", "refuses": "data", "blunders": "bug", "wants memory": "limit", "takes for ever": "limit"}
    steps = {recipe: station.add(recipe) for recipe in kinds}
    for step_id in steps.values():
        station.wait_for(step_id, *ENDED)
    assert {recipe: station.step(step_id).error_kind for recipe, step_id in steps.items()} == kinds
    assert station.part(steps["takes for ever"], 1).error.startswith("The part was stopped after 5 s")
    assert station.part(steps["blunders"], 1).attempt == 1
    station.check_archive()
    wait_until(lambda: sum(station.doorbell.waiting()) == 0, "an empty queue")
    assert station.stop("worker") == 0


def test_a_part_deaf_to_its_time_limit_is_killed_once(station: Station) -> None:
    station.environment["MUSECAL_WORKER__TIME_LIMIT_SECONDS"] = "2"
    station.start("planner", "worker")
    step_id = station.add("hangs", channels=(1,))
    station.wait_for(step_id, *ENDED)
    part = station.part(step_id, 1)
    assert (part.state, part.error_kind, part.attempt) == (PartState.FAILED, "limit", 1)
    assert "and was killed" in part.error


class TestKillOf:
    def test_a_pool_process_is_made_good_at_once(self, station: Station) -> None:
        station.start("worker")
        station.start("planner")
        station.wait_for_pool()
        step_id = station.add("dies once")
        assert station.wait_for(step_id) < 20
        part = station.part(step_id, 1)
        assert (part.attempt, part.crashes) == (2, 1)
        station.check_archive()

    def test_a_pool_process_twice_by_its_part_is_poison(self, station: Station) -> None:
        station.start("planner", "worker")
        step_id = station.add("dies")
        station.wait_for(step_id, StepState.FAILED)
        part = station.part(step_id, 1)
        assert (part.attempt, part.crashes, part.error_kind) == (2, 2, "poison")
        assert station.part(step_id, 2).state is PartState.DONE
        station.wait_for(station.add())  # the worker goes on with others
        station.check_archive()

    def test_a_worker_is_made_good_by_the_next(self, station: Station) -> None:
        station.start("planner", "worker1")
        station.wait_for_pool("worker1")
        step_id = station.add("takes time")
        station.wait_for_part(step_id, 1, PartState.RUNNING)
        station.kill("worker1")
        station.start("worker2")
        assert station.wait_for(step_id) < 20
        assert station.part(step_id, 1).crashes == 0
        station.check_archive()

    def test_redis_is_not_noticed_in_the_archive(self, station: Station) -> None:
        station.start("planner", "worker")
        steps = [station.add("takes time", frames=slice(number, None)) for number in range(3)]
        station.wait_for_part(steps[0], 1, PartState.RUNNING)
        station.doorbell.kill()
        station.doorbell.start()
        for step_id in steps:
            station.wait_for(step_id)
        station.check_archive()

    def test_the_planner_between_row_and_message_is_made_good(self, station: Station) -> None:
        step_id = station.add()
        with station.registry.begin() as session:
            for part in session.scalars(select(Part)):
                part.sent = datetime.now(UTC)
        station.start("worker", "planner")
        station.wait_for(step_id)


def test_redis_may_be_emptied_at_any_moment(station: Station) -> None:
    station.start("planner", "worker")
    steps = [station.add("takes time", frames=slice(number, None)) for number in range(4)]

    def empty_and_look() -> bool:
        station.doorbell.client.flushall()
        return any(station.step(step_id).state is StepState.DONE for step_id in steps)

    wait_until(empty_and_look, "one step done")
    for step_id in steps:
        station.wait_for(step_id)
    station.check_archive()


def test_messages_delivered_many_times_do_the_work_once(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    step_id = station.add("takes time")
    app = make_app(station.settings(monkeypatch))
    for channel in (1, 2, FINISH) * 5:
        app.send_task(PART_TASK, (station.part(step_id, channel).id,))
    app.close()
    station.start("worker1", "worker2")
    station.wait_for(step_id)
    wait_until(lambda: sum(station.doorbell.waiting()) == 0, "an empty queue")
    assert [station.part(step_id, channel).attempt for channel in (1, 2, FINISH)] == [1, 1, 1]
    station.check_archive()
    assert len(station.products()) == 1


def test_a_stopped_worker_loses_nothing(station: Station) -> None:
    station.start("planner", "worker1")
    steps = [station.add("takes time", frames=slice(number, None)) for number in range(3)]
    station.wait_for_part(steps[0], 1, PartState.RUNNING)
    assert station.stop("worker1") == 0
    station.start("worker2")
    for step_id in steps:
        station.wait_for(step_id)
    assert {station.part(step_id, channel).crashes for step_id in steps for channel in (1, 2)} == {0}
    station.check_archive()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_waited_out(station: Station) -> None:
    root = station.store.root
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", root], capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        filler = root / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            file.writelines(itertools.repeat(bytes(4096)))
        station.start("planner", "worker")
        step_id = station.add()
        wait_until(lambda: station.part(step_id, 1).retries > 1, "two retries")
        part = station.part(step_id, 1)
        assert part.error_kind == "world"
        assert "No space left on device" in part.error
        filler.unlink()
        station.wait_for(step_id)
        station.check_archive()
    finally:
        subprocess.run(["umount", "--lazy", root], check=True)


def test_the_last_frame_starts_its_step(station: Station, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    station.start("worker")
    station.wait_for_pool()
    settings = station.settings(monkeypatch)
    intake = Intake(station.registry, station.store, settings)
    with make_app(settings) as app:
        for path in station.frames:
            intake.take(Path(shutil.copy(path, tmp_path)), datetime.now(UTC))
            run_cycle(station.registry, settings, app, datetime.now(UTC))
        wait_until(lambda: station.step(1).state is not StepState.QUEUED, "the step running")
        station.wait_for(1)
        station.check_archive()
