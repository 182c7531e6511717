"""A Redis of the tests' own: a real server on a Unix socket, to be killed, stopped and emptied."""

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from daemon.broker import find_server
from tasks.app import QUEUE

PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # ends of the names of kombu's lists, first to last


class Doorbell:
    """A Redis server; a context manager."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="musecal-doorbell-"))  # short, as paths of sockets have to be
        self._socket = self._folder / "redis.sock"
        self._server: subprocess.Popen[bytes] | None = None
        self.url = f"redis+socket://{self._socket}"
        self.client = redis.Redis(unix_socket_path=str(self._socket))

    def start(self) -> None:
        """Start the server on what it has kept, and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        options = [
            "--port",
            "0",
            "--unixsocket",
            str(self._socket),
            "--dir",
            str(self._folder),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]
        self._server = subprocess.Popen([find_server(), *options], stdout=subprocess.DEVNULL)
        limit = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < limit, "Redis did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        """End the server as kill -9 does."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()

    def waiting(self) -> list[int]:
        """Return how many messages wait, at each priority."""
        return [self.client.llen(QUEUE + end) for end in PRIORITIES]

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.client.close()
        shutil.rmtree(self._folder)
