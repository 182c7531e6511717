"""A registry on each database: the same tests run on SQLite and on PostgreSQL."""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from rows import write_biases
from small_night import MakeWorld, World
from sqlalchemy import URL

from archive.registry import Registry
from benchmarks.postgres import PostgresMissing, execute, postgres_server

pytest_plugins = ("skips",)
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A private PostgreSQL, gone after the tests; its database ``empty`` has no tables."""
    try:
        with postgres_server() as url:
            execute(url, "CREATE DATABASE empty")
            execute(url, "CREATE DATABASE tables")
            tables = Registry(url.set(database="tables").render_as_string(hide_password=False))
            tables.upgrade()
            tables.close()
            yield url
    except PostgresMissing as missing:
        pytest.skip(str(missing))


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
    """Make a world on a SQLite registry of its own, in memory where that can be: a copy, with these settings."""
    memory = Path("/dev/shm")  # noqa: S108 - a name of its own is made there
    numbers, folder = count(), Path(tempfile.mkdtemp(prefix="musecal-", dir=memory if memory.is_dir() else None))

    def make(*, origin: Path = sqlite, **sections: Any) -> World:  # noqa: ANN401 - what pydantic takes
        path = shutil.copy(origin, folder / f"{next(numbers)}.sqlite")
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
