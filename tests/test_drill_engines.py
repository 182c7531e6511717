"""Drills with ESO's recipe hanging in real workers: whatever ends its part, nothing of it is left."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import fake_esorex
import pytest
from processes import wait_until
from station import Station, held
from test_engines import lives

from archive.models import Step
from archive.registry import Registry
from archive.states import PartState, StepState

pytestmark = pytest.mark.parametrize("registry", ["sqlite"], indirect=True)


@pytest.fixture
def station(
    registry: Registry, tmp_path: Path, biases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Station]:
    """A site whose biases are left to ESO's recipe, which hangs."""
    recipes = fake_esorex.install(tmp_path, monkeypatch, "hangs")["recipe_folder"]
    monkeypatch.setenv(fake_esorex.DEED + "_PIDS", str(tmp_path / "pids"))
    with held(registry, tmp_path, biases) as station:
        station.environment |= {"MUSECAL_STEPS__BIAS__ENGINE": "esorex", "MUSECAL_ESOREX__RECIPE_FOLDER": recipes}
        yield station


def add(station: Station) -> int:
    step_id = station.add(channels=(1,))
    with station.registry.begin() as session:
        session.get_one(Step, step_id).recipe_version = f"esorex/{fake_esorex.VERSION}"
    return step_id


def hung(folder: Path) -> list[int]:
    """Wait until ESO's recipe hangs; return its processes."""
    told = folder / "pids"
    wait_until(lambda: told.exists() and told.read_text().count(" ") == 1, "a recipe that hangs")
    return [int(pid) for pid in told.read_text().split()]


def test_its_own_time_limit_ends_it(station: Station, tmp_path: Path) -> None:
    station.environment["MUSECAL_WORKER__ESOREX_TIME_LIMIT_SECONDS"] = "4"
    step_id = add(station)
    station.start("planner", "worker")
    pids = hung(tmp_path)
    station.wait_for(step_id, StepState.FAILED)
    assert "after 4 s, the most that worker.esorex_time_limit_seconds allows" in station.part(step_id, 1).error
    wait_until(lambda: not any(map(lives, pids)), "no orphan")


def test_a_worker_that_is_killed_takes_it_along(station: Station, tmp_path: Path) -> None:
    step_id = add(station)
    station.start("planner", "worker")
    esorex, child = hung(tmp_path)
    station.kill("worker")
    wait_until(lambda: not lives(esorex), "no orphan")
    os.kill(child, signal.SIGKILL)  # the sleep of the fake; esorex itself starts no programs
    station.wait_for_part(step_id, 1, PartState.QUEUED)
