"""The process of the service: where it listens, how it ends, what it says when something is wrong."""

import asyncio
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI
from whole_daemon import MUSECAL

from archive.registry import Registry
from daemon.cli.errors import ExitCode
from daemon.web.application import RETRY_SECONDS, make_application
from tasks.settings import RegistrySettings, Settings, load_settings
from tasks.site import Site


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site with an empty registry."""
    configure(tmp_path)
    Registry(load_settings(tmp_path / "settings.toml").registry.url).upgrade()
    return tmp_path


def configure(folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
    text = f'archive = {{ root = "archive", incoming = "incoming" }}\nweb = {{ host = "{host}", port = {port} }}\n'
    (folder / "settings.toml").write_text(text)


def command(folder: Path) -> list[str]:
    return [str(MUSECAL), "web", "--settings", str(folder / "settings.toml")]


def get(application: FastAPI, path: str) -> httpx.Response:
    """Ask an application in this process."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(ask())


def refused(folder: Path) -> tuple[int, str]:
    """Start it where it cannot work; return its code and what it said last."""
    ended = subprocess.run(command(folder), capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_tells_the_service_manager_and_ends_at_a_signal(
    folder: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (folder / "log").open("w") as log:
        manager.bind(str(folder / "notify"))
        manager.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        process = psutil.Popen(command(folder), stderr=log)
        try:
            assert manager.recv(1024) == b"READY=1\nWATCHDOG=1"
            listening = [one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            assert [address.ip for address in listening] == ["127.0.0.1"]
            assert httpx.get(f"http://127.0.0.1:{listening[0].port}/health").status_code == 200
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            if process.poll() is None:
                process.kill()
        said = b""
        while said != b"STOPPING=1":
            said = manager.recv(1024)
    assert "Traceback" not in (folder / "log").read_text()


def test_a_port_that_is_taken_and_a_host_of_another_machine_are_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(folder, port=port)
        code, said = refused(folder)
    assert code == ExitCode.UNREACHABLE
    assert f"web.port {port}" in said
    configure(folder, host="192.0.2.1")  # RFC 5737: of no machine
    code, said = refused(folder)
    assert code == ExitCode.UNREACHABLE
    assert "192.0.2.1" in said


def test_without_a_registry_of_this_version_it_does_not_start(tmp_path: Path) -> None:
    configure(tmp_path)
    code, said = refused(tmp_path)
    assert code == ExitCode.REFUSED
    assert "musecal db upgrade" in said


def test_a_registry_that_is_away_is_told_with_the_time_to_come_again(tmp_path: Path) -> None:
    away = RegistrySettings(url=f"postgresql+psycopg://musecal@/musecal?host={tmp_path}")
    application = make_application(Site.of(Settings(registry=away)))
    for path in ("/health", "/dataPortal/file/MUSE.x", "/calselector/v1/associations?dp_id=MUSE.x"):
        answer = get(application, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, str(RETRY_SECONDS))
        assert "registry cannot be reached" in answer.json()["detail"]


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    application = make_application(Site.of(Settings(registry=RegistrySettings(url=f"sqlite:///{tmp_path}/r"))))
    assert [get(application, path).status_code for path in ("/docs", "/redoc")] == [404, 404]
    described = get(application, "/openapi.json").json()["paths"]
    assert {"/calselector/v1/associations", "/dataPortal/file/{dp_id}", "/search/frames", "/health"} <= set(described)
    assert {method for path in described.values() for method in path} <= {"get", "head", "post"}
