"""A whole daemon in a folder of its own, for tests that kill parts of it."""

import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from archive.registry import Registry
from daemon.heartbeat import Heartbeat, read_heartbeat
from tasks.settings import Settings, load_settings

MUSECAL = Path(sys.executable).parent / "musecal"
SETTINGS = """
[archive]
root = "archive"
incoming = "incoming"
least_free_gb = 0.0
[watch]
settle_seconds = 0.5
scan_seconds = 2.0
[worker]
concurrency = 2
lease_seconds = 5.0
heartbeat_seconds = 1.0
resend_seconds = 2.0
backoff_seconds = 0.5
crashes = 20  # a drill may hit the same part often; it is no poison
attempts = 50
"""


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Wait until something has happened; return how long it took, in seconds."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() < began + seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


class WholeDaemon:
    """``musecal run`` on an empty archive, until the end of the context."""

    def __init__(self, folder: Path, settings: str = SETTINGS) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "settings.toml").write_text(settings)
        self.settings: Settings = load_settings(folder / "settings.toml")
        self.registry = Registry(self.settings.registry.url)
        self.supervisor = self._launch()

    def _launch(self) -> psutil.Popen:
        with (self.folder / "log").open("ab") as log:
            return psutil.Popen(
                [MUSECAL, "run", "--settings", self.folder / "settings.toml"], stdout=log, stderr=log, process_group=0
            )

    def __enter__(self) -> Self:
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.supervisor.poll() is None:
            self.supervisor.send_signal(signal.SIGTERM)
            self.supervisor.wait(60)
        self.registry.close()

    def start_again(self) -> None:
        """Start the supervisor again after its death."""
        self.supervisor = self._launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until every process is there and at work."""

        def ready() -> bool:
            said = self.log()
            return (
                any(re.search(rf"musecal-{worker.pid}@\S+ ready", said) for worker in self.of("worker"))
                and len(self.of("pool child")) == self.settings.worker.concurrency
                and self._watched()
                and said.count('"web started"') >= len(self.of("web")) == int(self.settings.web.enabled)
            )

        wait_until(ready, f"ready in {self.folder}")

    def _watched(self) -> bool:
        beat: Heartbeat | None = read_heartbeat(self.settings.archive.root)
        return beat is not None and beat.pid in {process.pid for process in self.of("watcher")}

    def processes(self) -> dict[int, str]:
        """Return every process by its id, as redis, watcher, worker, web or pool child."""
        found: dict[int, str] = {}
        try:
            children = self.supervisor.children(recursive=True)
        except psutil.NoSuchProcess:
            return found
        for child in children:
            try:
                words = child.cmdline()
                if words and child.status() != psutil.STATUS_ZOMBIE:
                    kind = {"watch": "watcher", "work": "worker", "web": "web"}.get(words[-1], "redis")
                    found[child.pid] = kind if child.ppid() == self.supervisor.pid else "pool child"
            except psutil.NoSuchProcess:
                continue
        return found

    def of(self, kind: str) -> list[psutil.Process]:
        """Return the processes of one kind."""
        found = []
        for pid, name in self.processes().items():
            if name == kind and psutil.pid_exists(pid):
                found.append(psutil.Process(pid))
        return found

    def log(self) -> str:
        """Return what was logged so far."""
        return (self.folder / "log").read_text()
