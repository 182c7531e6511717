"""Everything that runs is started again when it dies, and ends when it shall."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import psutil
import pytest
from whole_daemon import MUSECAL, SETTINGS, WholeDaemon, wait_until

from daemon import supervisor
from daemon.broker import BrokerMissing, broker_url
from daemon.supervisor import Kept, end

KINDS = ("pool child", "watcher", "worker", "redis")


@pytest.fixture
def station(tmp_path: Path) -> Iterator[WholeDaemon]:
    with WholeDaemon(tmp_path / "station") as station:
        yield station


@pytest.fixture(scope="module")
def sturdy_station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeDaemon]:
    """One for all tests that leave it running."""
    with WholeDaemon(tmp_path_factory.mktemp("station"), f"{SETTINGS}[web]\nenabled = true\nport = 0\n") as station:
        yield station


@pytest.mark.parametrize("kind", [*KINDS, "web"])
def test_what_is_killed_is_started_again(sturdy_station: WholeDaemon, kind: str) -> None:
    sturdy_station.wait_until_ready()
    killed = sturdy_station.of(kind)[0]
    offspring = killed.children(recursive=True)
    before = sturdy_station.processes()
    killed.kill()
    wait_until(lambda: killed.pid not in sturdy_station.processes(), f"{kind} dead")
    gone, alive = psutil.wait_procs(offspring, timeout=5)
    assert alive == [], "an orphan works on"
    everything = sorted(before.values())
    wait_until(lambda: sorted(sturdy_station.processes().values()) == everything, f"{kind} there again")
    sturdy_station.wait_until_ready()
    if kind != "redis":  # the loss of which Celery takes for unrecoverable now and then: then the worker goes too
        others = before.keys() - {killed.pid} - {child.pid for child in gone}
        assert others <= sturdy_station.processes().keys(), "only what died is started again"


def test_a_second_one_on_the_same_archive_is_refused(sturdy_station: WholeDaemon) -> None:
    refused = subprocess.run(
        [MUSECAL, "run", "--settings", sturdy_station.folder / "settings.toml"], capture_output=True, text=True
    )
    assert refused.returncode != 0
    assert "supervisor.lock" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_processes_started_apart_find_its_redis(sturdy_station: WholeDaemon) -> None:
    sturdy_station.wait_until_ready()
    assert broker_url(sturdy_station.settings).startswith("redis+socket:///")
    apart = psutil.Popen(
        [MUSECAL, "worker", "--settings", sturdy_station.folder / "settings.toml"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with apart:
        said = ""
        for line in apart.stdout:
            said += line
            if "worker ready" in line:
                break
        apart.terminate()
        said += apart.stdout.read()
    assert "worker ready" in said
    assert apart.returncode == 0, said


@pytest.mark.parametrize("command", ["watch", "worker"])
def test_without_broker_and_supervisor_a_sentence_says_what_to_do(tmp_path: Path, command: str) -> None:
    (tmp_path / "settings.toml").write_text('archive = { root = "archive", incoming = "incoming" }\n')
    subprocess.run([MUSECAL, "db", "upgrade", "--settings", tmp_path / "settings.toml"], check=True)
    refused = subprocess.run(
        [MUSECAL, command, "--settings", tmp_path / "settings.toml"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "broker.url is not set" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_leaves_nothing_behind(station: WholeDaemon, number: signal.Signals) -> None:
    processes = [psutil.Process(pid) for pid in station.processes()]
    # As a terminal does it: to the whole group of the supervisor.
    os.killpg(station.supervisor.pid, number)
    assert station.supervisor.wait(60) == 0
    assert not any(process.is_running() for process in processes)
    assert "Traceback" not in station.log()
    with pytest.raises(BrokerMissing):
        broker_url(station.settings)


def test_its_own_sudden_death_ends_everything_and_the_next_one_goes_on(station: WholeDaemon) -> None:
    processes = [psutil.Process(pid) for pid in station.processes()]
    station.supervisor.kill()
    station.supervisor.wait(10)
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
    station.start_again()
    assert sorted(set(station.processes().values())) == sorted(KINDS)


class Doomed:
    """A process that dies as soon as it is started."""

    pid = 1
    starts = 0
    alive = False

    def start(self) -> None:
        self.starts += 1


def test_what_keeps_dying_is_started_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    process = Doomed()
    kept = Kept("doomed", process)
    starts: list[float] = []
    while now < 1200.0:
        kept.look_after(now)
        if process.starts > len(starts):
            starts.append(now)
        now += 0.1
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(starts)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert set(pauses[5:]) == {30}


def test_what_lived_long_is_started_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    process = Doomed()
    kept = Kept("steady", process)
    kept.look_after(supervisor.STEADY_SECONDS)
    assert process.starts == 1


def test_a_server_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)

    class Missing(Doomed):
        def start(self) -> None:
            super().start()
            raise BrokerMissing("No Redis server.")

    process = Missing()
    kept = Kept("redis", process)
    for second in range(60):
        kept.look_after(float(second))
    assert process.starts > 3


class Stubborn:
    """A child that ends only when it is killed."""

    name = "stubborn"
    alive = True
    asked = False

    def stop(self) -> None:
        self.asked = True

    def kill(self) -> None:
        self.alive = False


def test_a_second_signal_kills_what_does_not_end() -> None:
    child, hurry = Stubborn(), Event()
    hurry.set()
    assert end([child], hurry=hurry) is False  # type: ignore[list-item]
    assert child.asked
    assert not child.alive
