"""The registry: one SQLite file by default, PostgreSQL by URL; the same behaviour on both.

Whoever writes holds the one write lock from the first statement to the commit: what a transaction has read cannot
change below it, so that a decision and its rows are one. SQLite does that by BEGIN IMMEDIATE, PostgreSQL by an
advisory lock. Readers never wait and see one moment.
"""

import os
import sqlite3
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

LOCK_SECONDS = 30  # a writer waits so long for its turn before it gives up; the longest transaction takes far below 1 s
WRITE_LOCK = 0x6D757365  # "muse": key of the advisory lock of PostgreSQL, any constant


class Access(StrEnum):
    """What a transaction may do."""

    READ = "read"
    WRITE = "write"
    MIGRATE = "migrate"  # write, and rebuild tables that others refer to


# What opens a transaction. PostgreSQL has begun by itself when these are sent; SQLite begins with the last of them.
_OPENINGS: Mapping[str, Mapping[Access, tuple[str, ...]]] = MappingProxyType(
    {
        "sqlite": {
            Access.READ: ("PRAGMA query_only=ON", "BEGIN"),
            Access.WRITE: ("PRAGMA query_only=OFF", "BEGIN IMMEDIATE"),
            Access.MIGRATE: ("PRAGMA query_only=OFF", "PRAGMA foreign_keys=OFF", "BEGIN IMMEDIATE"),
        },
        "postgresql": {
            Access.READ: ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
            Access.WRITE: (f"SELECT pg_advisory_xact_lock({WRITE_LOCK})",),
            Access.MIGRATE: (f"SELECT pg_advisory_xact_lock({WRITE_LOCK})",),
        },
    }
)


class RegistryOutdated(Exception):  # noqa: N818 - reads as what it is
    """The tables of the registry are not those that this version of the programs works with."""


class Registry:
    """The one way to the rows.

    A value that may be made anywhere and carried over a fork: the engine is made at the first use in each process,
    and no idle connection is open while a process forks.

    Parameters
    ----------
    url : str
        ``sqlite:////folder/registry.sqlite`` or ``postgresql+psycopg://user@host/database``.

    Raises
    ------
    ValueError
        The URL names another kind of database.
    """

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        if self.url.get_backend_name() not in _OPENINGS:
            raise ValueError(
                f"the registry cannot be kept at {self}; give a URL that begins with sqlite:/// or postgresql+psycopg://."
            )
        self._engines: dict[int, Engine] = {}  # by process: a child must leave its parent's connections alone
        _registries.add(self)

    def __str__(self) -> str:
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open a write transaction; it is committed at the end, and rolled back as a whole on an error."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one moment and may change nothing."""
        engine = self._engine.execution_options(access=Access.READ)
        with Session(engine, expire_on_commit=False, autoflush=False) as session:
            yield session

    def upgrade(self) -> None:
        """Bring the tables to this version of the programs; make the file of a new SQLite registry."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._engine.execution_options(access=Access.MIGRATE).connect() as connection:
            connection.detach()  # foreign_keys stays off on this connection, so nobody else may get it
            with connection.begin():
                command.upgrade(migrations(connection), "head")

    def check(self) -> None:
        """Raise RegistryOutdated unless the tables are those of this version."""
        newest = ScriptDirectory.from_config(migrations()).get_current_head()
        if self._file is not None and not self._file.exists():
            raise RegistryOutdated(f"there is no registry at {self}; make it with `musecal db upgrade`.")
        found = self.revision()
        if found != newest:
            raise RegistryOutdated(
                f"the registry at {self} is at revision {found or 'none'}, these programs need {newest}; "
                "stop the daemon and run `musecal db upgrade`."
            )

    def revision(self) -> str | None:
        """Return the revision of the tables, None where there are none."""
        with self._engine.execution_options(access=Access.READ).connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def close(self) -> None:
        """Close the idle connections of this process; the next use opens others."""
        if engine := self._engines.get(os.getpid()):
            engine.dispose()

    @property
    def _file(self) -> Path | None:
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    @property
    def _engine(self) -> Engine:
        return self._engines.get(os.getpid()) or self._engines.setdefault(os.getpid(), _make_engine(self.url))


_registries: weakref.WeakSet[Registry] = weakref.WeakSet()


def _close_all() -> None:
    """SQLite forbids to carry an open database over a fork: its bookkeeping of locks is per process."""
    for registry in list(_registries):
        registry.close()


os.register_at_fork(before=_close_all)


def migrations(connection: Connection | None = None) -> Config:
    """Return Alembic's configuration: the revisions in this package, on this connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _make_engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": LOCK_SECONDS})
        event.listen(engine, "connect", _set_up_sqlite)
    else:
        engine = create_engine(
            url, pool_pre_ping=True, connect_args={"options": f"-c lock_timeout={LOCK_SECONDS}s -c timezone=UTC"}
        )
    event.listen(engine, "begin", _open_transaction)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Python's driver begins by itself otherwise, too late and never IMMEDIATE
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _open_transaction(connection: Connection) -> None:
    access = connection.get_execution_options().get("access", Access.WRITE)
    for statement in _OPENINGS[connection.dialect.name][access]:
        connection.exec_driver_sql(statement)
