"""A registry on each database: the same tests run on SQLite and on PostgreSQL."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rows import write_biases
from small_night import MakeWorld, World
from sqlalchemy import URL, create_engine, text

from archive.registry import Registry

pytest_plugins = ("skips",)
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A private PostgreSQL on a unix socket, gone after the tests; its database ``empty`` has no tables."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    search = os.pathsep.join([*map(str, reversed(installed)), os.environ["PATH"]])
    initdb, server = (shutil.which(name, path=search) for name in ("initdb", "postgres"))
    if not initdb or not server:
        pytest.skip("no PostgreSQL server on this machine: install the Debian package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="musecal-postgres-"))  # short: a socket's path has 107 bytes at most
    # initdb refuses root; the death of the tests takes the server with it, whatever kills them.
    drop = ["--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    start = ["setpriv", *drop, "--pdeathsig=QUIT"]
    if drop:
        shutil.chown(folder, "postgres", "postgres")
    try:
        options = ["--username=musecal", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*start, initdb, *options, folder / "data"], check=True, capture_output=True, cwd=folder)
        settings = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}"]
        command = [*start, server, "-D", str(folder / "data"), *settings]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(command, stderr=log, stdout=log, cwd=folder)
        url = URL.create("postgresql+psycopg", "musecal", database="postgres", query={"host": str(folder)})
        try:
            _wait_until_ready(folder, running)
            execute(url, "CREATE DATABASE empty")
            execute(url, "CREATE DATABASE tables")
            tables = Registry(url.set(database="tables").render_as_string(hide_password=False))
            tables.upgrade()
            tables.close()
            yield url
        finally:
            running.send_signal(signal.SIGQUIT)  # at once: nothing in it is to be kept
            running.wait(30)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite registry with tables and no rows, to be copied."""
    path = tmp_path_factory.mktemp("registry") / "tables.sqlite"
    registry = Registry(f"sqlite:///{path}")
    registry.upgrade()
    registry.close()
    return path


@pytest.fixture
def make_world(sqlite: Path) -> Iterator[MakeWorld]:
    """Make a world on a SQLite registry of its own, in memory where that can be; the arguments are its settings."""
    memory = Path("/dev/shm")  # noqa: S108 - a name of its own is made there
    numbers, folder = count(), Path(tempfile.mkdtemp(prefix="musecal-", dir=memory if memory.is_dir() else None))

    def make(**sections: Any) -> World:  # noqa: ANN401 - what pydantic takes
        path = shutil.copy(sqlite, folder / f"{next(numbers)}.sqlite")
        return World(Registry(f"sqlite:///{path}"), **sections)

    yield make
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def biases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven tiny bias frames of channels 1 and 2."""
    return write_biases(tmp_path_factory.mktemp("biases"))


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry without tables."""
    if request.param == "sqlite":
        registry = Registry(f"sqlite:///{tmp_path}/new/registry.sqlite")
        yield registry
        registry.close()
    else:
        yield from _database(request.getfixturevalue("postgres"), template="empty")


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """A registry with its tables and no rows."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite"), tmp_path / "registry.sqlite")
        registry = Registry(f"sqlite:///{path}")
        yield registry
        registry.close()
    else:
        yield from _database(request.getfixturevalue("postgres"), template="tables")


def _database(server: URL, *, template: str) -> Iterator[Registry]:
    name = f"test_{next(_numbers)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    registry = Registry(server.set(database=name).render_as_string(hide_password=False))
    yield registry
    registry.close()
    execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def execute(server: URL, statement: str) -> None:
    """Run one statement outside of any transaction."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _wait_until_ready(folder: Path, server: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 60
    while not (folder / ".s.PGSQL.5432").exists() or "ready to accept" not in (folder / "log").read_text():
        if server.poll() is not None or time.monotonic() > limit:
            pytest.fail(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}")
        time.sleep(0.05)
