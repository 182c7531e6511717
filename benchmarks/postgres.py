"""A private PostgreSQL on a unix socket, for as long as it is needed: tests and benchmarks run on it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, text

START_SECONDS = 60


class PostgresMissing(Exception):  # noqa: N818 - reads as what it is
    """There is no PostgreSQL server on this machine."""


@contextmanager
def postgres_server() -> Iterator[URL]:
    """Start a server with an empty database ``postgres``, and remove it with all that is in it at the end.

    Raises
    ------
    PostgresMissing
    TimeoutError
        It does not start.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    search = os.pathsep.join([*map(str, reversed(installed)), os.environ["PATH"]])
    initdb, server = (shutil.which(name, path=search) for name in ("initdb", "postgres"))
    if not initdb or not server:
        raise PostgresMissing("no PostgreSQL server on this machine: install the Debian package postgresql")
    folder = Path(tempfile.mkdtemp(prefix="musecal-postgres-"))  # short: a socket's path has 107 bytes at most
    # initdb refuses root; the death of who started it takes the server with it, whatever the cause.
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
        try:
            _wait_until_ready(folder, running)
            yield URL.create("postgresql+psycopg", "musecal", database="postgres", query={"host": str(folder)})
        finally:
            running.send_signal(signal.SIGQUIT)  # at once: nothing in it is to be kept
            running.wait(30)
    finally:
        shutil.rmtree(folder)


def execute(url: URL, statement: str) -> None:
    """Run one statement outside of any transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _wait_until_ready(folder: Path, server: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START_SECONDS
    while not (folder / ".s.PGSQL.5432").exists() or "ready to accept" not in (folder / "log").read_text():
        if server.poll() is not None or time.monotonic() > limit:
            raise TimeoutError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}")
        time.sleep(0.05)
