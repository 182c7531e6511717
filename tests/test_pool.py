"""How a worker is fitted to its machine, how it stops, and when systemd may believe that it hangs."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from celery import Celery
from redis import Redis
from whole_daemon import wait_until

from daemon import pool
from daemon.broker import EmbeddedRedis
from tasks.settings import Settings

GIGABYTE = 1 << 30
SHUTDOWN = 6.0  # seconds that the workers here give their parts
# A worker whose parts do nothing but sleep, and leave a file when they have slept enough.
PROGRAM = """
import sys, time
from pathlib import Path
from celery import Celery
from redis import Redis
from daemon import pool
from daemon.log import configure_log
from tasks.settings import BrokerSettings, LogFormat, Settings, WorkerSettings

def make_app(settings):
    app = Celery(broker=settings.broker.url, set_as_current=False)
    app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=1,
                    worker_hijack_root_logger=False, worker_redirect_stdouts=False)
    @app.task(name="sleep")
    def sleep(seconds, path):
        Path(path + ".begun").touch()
        time.sleep(seconds)
        Path(path).touch()
    return app

pool.make_app = make_app
pool.SHUTDOWN_SECONDS = float(sys.argv[2])
pool.TICK_SECONDS = pool.LONGEST_SILENCE = 1.0
configure_log("INFO", LogFormat.JSON)
sys.exit(pool.run_pool(Settings(broker=BrokerSettings(url=sys.argv[1]), worker=WorkerSettings(concurrency=1))))
"""


@pytest.mark.parametrize(
    ("cores", "memory", "parts"),
    [(2, 16 * GIGABYTE, 2), (32, 8 * GIGABYTE, 4), (8, GIGABYTE, 1)],
    ids=["as many as cores", "as many as fit into memory", "never none"],
)
def test_as_many_parts_at_once_as_the_machine_holds(cores: int, memory: int, parts: int) -> None:
    settings = Settings.model_validate({"worker": {"memory_limit_mb": 2000}})
    assert pool.concurrency_of(settings, cores=cores, memory=memory) == parts


def test_fewer_parts_at_once_where_esos_recipes_need_more_memory() -> None:
    worker = {"memory_limit_mb": 2000, "esorex_memory_limit_mb": 8000}
    settings = Settings.model_validate({"worker": worker, "steps": {"dark": {"engine": "esorex"}}})
    assert pool.concurrency_of(settings, cores=8, memory=20 * GIGABYTE) == 2


def test_the_setting_goes_first() -> None:
    assert pool.concurrency_of(Settings.model_validate({"worker": {"concurrency": 7}}), cores=2, memory=GIGABYTE) == 7


def test_a_silent_loop_hangs_unless_the_broker_is_away() -> None:
    now, away = 0.0, False
    pulse = pool.Pulse(silent=lambda: away, clock=lambda: now)
    now = 50.0
    pulse.tick()
    now = 50.0 + pool.LONGEST_SILENCE
    assert pulse.alive()
    now += 1.0
    assert not pulse.alive()
    away = True
    assert pulse.alive()
    away = False
    pulse.tick()
    assert pulse.alive()


class Manager:
    """Hears what the worker tells systemd."""

    def __init__(self, address: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(address))
        self._channel.setblocking(False)  # noqa: FBT003 - the name of the method says it
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return everything heard so far."""
        try:
            while True:
                self.heard += self._channel.recv(4096).decode().split("\n")
        except BlockingIOError:
            return self.heard

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as server:
        yield server


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def worker(redis: EmbeddedRedis, manager: Manager, tmp_path: Path) -> Iterator[psutil.Popen]:
    process = psutil.Popen(
        [sys.executable, "-P", "-c", PROGRAM, redis.url, str(SHUTDOWN)],
        env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"},
        stderr=subprocess.DEVNULL,
    )
    with process:
        wait_until(lambda: "READY=1" in manager.listen(), "the worker is ready")
        yield process
        if process.poll() is None:
            process.kill()


def begin(redis: EmbeddedRedis, path: Path, seconds: float) -> None:
    """Have the worker begin a part."""
    app = Celery(broker=redis.url, set_as_current=False)
    with app.connection_for_write() as connection:
        app.send_task("sleep", (seconds, str(path)), connection=connection, ignore_result=True)
    app.close()
    wait_until(lambda: path.with_name(path.name + ".begun").exists(), "the part has begun")


def seconds_to_stop(worker: psutil.Popen) -> float:
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    return time.monotonic() - began


def test_an_idle_worker_stops_at_once(worker: psutil.Popen, manager: Manager) -> None:
    assert seconds_to_stop(worker) < SHUTDOWN
    assert "STOPPING=1" in manager.listen()


def test_a_stopping_worker_waits_for_its_part_and_no_longer(
    redis: EmbeddedRedis, worker: psutil.Popen, tmp_path: Path
) -> None:
    begin(redis, tmp_path / "part", 1.0)
    assert seconds_to_stop(worker) < SHUTDOWN
    assert (tmp_path / "part").exists()


def test_a_part_that_takes_too_long_goes_back_and_no_process_is_left(
    redis: EmbeddedRedis, worker: psutil.Popen, tmp_path: Path
) -> None:
    begin(redis, tmp_path / "part", 60.0)
    children = worker.children(recursive=True)
    assert SHUTDOWN <= seconds_to_stop(worker) < SHUTDOWN + 10
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert not (tmp_path / "part").exists()
    queue = Redis(unix_socket_path=redis.url.removeprefix("redis+socket://"))
    assert queue.llen("celery") == 1


def test_the_pool_ends_with_its_worker_even_by_kill_9(
    redis: EmbeddedRedis, worker: psutil.Popen, tmp_path: Path
) -> None:
    begin(redis, tmp_path / "part", 60.0)
    children = worker.children(recursive=True)
    assert children
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []


def test_a_new_child_of_the_pool_lives_on(redis: EmbeddedRedis, worker: psutil.Popen, tmp_path: Path) -> None:
    first = worker.children()[0]
    first.kill()
    wait_until(lambda: any(child.pid != first.pid for child in worker.children()), "a new child")
    begin(redis, tmp_path / "part", 3.0)
    wait_until((tmp_path / "part").exists, "the part is done by the new child", seconds=10)


def test_systemd_hears_beats_while_a_part_runs_and_while_redis_is_away(
    redis: EmbeddedRedis, worker: psutil.Popen, manager: Manager, tmp_path: Path
) -> None:
    def beats_within(seconds: float) -> int:
        manager.listen()
        manager.heard.clear()
        time.sleep(seconds)
        return manager.listen().count("WATCHDOG=1")

    begin(redis, tmp_path / "part", 6.0)
    assert beats_within(3.0) >= 5
    assert worker.is_running()
    psutil.Process(redis.pid).kill()
    wait_until(lambda: not redis.alive, "redis dead")
    assert beats_within(6.0) >= 5


def test_systemd_hears_no_beats_of_a_worker_that_hangs(worker: psutil.Popen, manager: Manager) -> None:
    worker.suspend()
    time.sleep(0.5)
    manager.listen()
    manager.heard.clear()
    time.sleep(2.0)
    assert manager.listen() == []
    worker.resume()
