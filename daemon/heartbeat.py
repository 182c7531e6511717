"""The watcher's sign of life: a small file below the archive root that anybody may read, the database away or not."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """How the watcher is. Times are ISO 8601, UTC; '' where it has not happened yet.

    Parameters
    ----------
    at : str
        When this was written.
    pid : int
        The watcher's process id.
    mode : str
        ``inotify``, ``polling``, or ``scan`` where no observer could be started.
    last_scan, last_take, last_cycle : str
        Ends of the last complete scan, of the last file taken in, of the last run of the planner.
    waiting, stalled : int
        Files awaited, and beside them those that stay incomplete.
    taken : int
        Files taken in since the watcher started.
    troubles : mapping of str to str
        What keeps it from working (registry, disk, planner, incoming folder, archive root), and why.
    postponed : mapping of str to str
        Files that could not be taken in yet, and why.
    """

    at: str
    pid: int
    mode: str
    last_scan: str
    last_take: str
    last_cycle: str
    waiting: int
    stalled: int
    taken: int
    troubles: Mapping[str, str]
    postponed: Mapping[str, str]

    def age(self, now: datetime) -> float:
        """Return the seconds since it was written."""
        return (now - datetime.fromisoformat(self.at)).total_seconds()


def write_heartbeat(root: Path, heartbeat: Heartbeat) -> None:
    """Replace the file as a whole: a reader sees the old or the new one."""
    path = _path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(heartbeat), indent=1) + "\n")
    temporary.replace(path)


def read_heartbeat(root: Path) -> Heartbeat | None:
    """Return the last sign of life of the watcher of this archive root; None if there never was one."""
    try:
        return Heartbeat(**json.loads(_path(root).read_text()))
    except FileNotFoundError:
        return None


def _path(root: Path) -> Path:
    return root / "run" / "watcher.json"
