"""Hints that something happened in the incoming folder: from inotify, or by polling where the kernel cannot know.

A hint may come twice, late, or never. Whoever listens scans as well.
"""

import logging
import os
import queue
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver
from watchdog.observers.polling import PollingObserver

from tasks.settings import WatchMode

# File systems on which others write without this kernel being told (mount types of /proc/mounts, by their beginning).
REMOTE_FILESYSTEMS = ("nfs", "cifs", "smb", "fuse", "9p", "afs", "ceph", "lustre", "beegfs", "gpfs", "virtiofs")
POLL_SECONDS = 2.0  # a listing of 10 000 files takes 60 ms

log = structlog.get_logger(__name__)


def filesystem_of(folder: Path, mounts: str) -> str:
    """Return the type of the file system that holds a folder.

    Parameters
    ----------
    folder : Path
        Absolute, without symbolic links.
    mounts : str
        Text of /proc/mounts.
    """
    found, kind = -1, ""
    for line in mounts.splitlines():
        _, point, filesystem = line.split()[:3]
        # A blank in a path is written \040 there; of mounts on the same point the last covers the others.
        path = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), point))
        if folder.is_relative_to(path) and len(path.parts) >= found:
            found, kind = len(path.parts), filesystem
    return kind


def choose_mode(wanted: WatchMode, folder: Path) -> WatchMode:
    """Return inotify or polling: as wanted, or by the file system of the folder."""
    if wanted is not WatchMode.AUTO:
        return wanted
    filesystem = filesystem_of(folder.resolve(), Path("/proc/mounts").read_text())
    return WatchMode.POLLING if filesystem.startswith(REMOTE_FILESYSTEMS) else WatchMode.INOTIFY


@dataclass(frozen=True)
class Hinted:
    """Files that may have changed, and whether anything else may have, so that only a scan tells."""

    paths: Sequence[Path]
    rescan: bool


class _Handler(FileSystemEventHandler):
    """Does nothing but pass on: work done here would let the kernel's queue run over."""

    def __init__(self, hints: "queue.SimpleQueue[str | None]") -> None:
        self._hints = hints

    def on_created(self, event: DirCreatedEvent | FileCreatedEvent) -> None:
        self._hints.put(None if event.is_directory else os.fsdecode(event.src_path))

    def on_closed(self, event: FileClosedEvent) -> None:
        self._hints.put(os.fsdecode(event.src_path))

    def on_moved(self, event: DirMovedEvent | FileMovedEvent) -> None:
        self._hints.put(None if event.is_directory else os.fsdecode(event.dest_path))


class _TroubleHook(logging.Handler):
    """Watchdog tells of a queue that ran over, or of watches it could not make, by its log alone."""

    def __init__(self, hints: "queue.SimpleQueue[str | None]") -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - any warning calls for a scan
        self._hints.put(None)


class Hints:
    """Listens to one folder and everything below it.

    Parameters
    ----------
    folder : Path
    wanted : WatchMode
        ``auto`` decides by the file system.
    """

    def __init__(self, folder: Path, wanted: WatchMode) -> None:
        self._folder = folder
        self._mode = choose_mode(wanted, folder)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._observer: BaseObserver | None = None
        self._watched = (0, 0)
        self._hook = _TroubleHook(self._queue)
        for name in ("watchdog.observers.inotify", "watchdog.observers.inotify_c"):
            logging.getLogger(name).addHandler(self._hook)

    @property
    def mode(self) -> str:
        """How it listens now: inotify, polling, or 'scan' where no observer could be started."""
        return self._mode.value if self._observer else "scan"

    def listen(self) -> None:
        """Start listening, or start again if the observer or a thread of it died or the folder was replaced."""
        status = self._folder.stat()
        watched = (status.st_dev, status.st_ino)
        if self._observer is not None:
            healthy = self._observer.is_alive() and all(emitter.is_alive() for emitter in self._observer.emitters)
            if healthy and watched == self._watched:
                return
            log.warning("observer restarted", folder=str(self._folder), replaced=watched != self._watched)
            self.stop()
        observer = PollingObserver(timeout=POLL_SECONDS) if self._mode is WatchMode.POLLING else InotifyObserver()
        try:
            observer.schedule(_Handler(self._queue), str(self._folder), recursive=True)
            observer.start()
        except OSError as error:  # no inotify instance or watch left: see fs.inotify.* in sysctl(8)
            log.error("observer not started; scanning alone", folder=str(self._folder), reason=str(error))  # noqa: TRY400 - the reason is complete
            return
        self._observer, self._watched = observer, watched

    def wait(self, seconds: float) -> Hinted:
        """Return every hint that is there, waiting up to so many seconds for the first."""
        found: list[str | None] = []
        try:
            found.append(self._queue.get(timeout=seconds) if seconds > 0 else self._queue.get_nowait())
            while True:
                found.append(self._queue.get_nowait())
        except queue.Empty:
            paths = dict.fromkeys(path for path in found if path is not None)
            return Hinted(paths=[Path(path) for path in paths], rescan=None in found)

    def stop(self) -> None:
        """Stop listening."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def close(self) -> None:
        """Stop listening for good."""
        self.stop()
        for name in ("watchdog.observers.inotify", "watchdog.observers.inotify_c"):
            logging.getLogger(name).removeHandler(self._hook)
