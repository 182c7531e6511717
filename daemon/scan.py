"""What lies in a folder now."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from daemon.arrivals import Signature, is_frame


@dataclass(frozen=True)
class Scan:
    """Raw frames found, and folders that could not be read, each with the reason."""

    files: dict[Path, Signature] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)


def scan(folder: Path) -> Scan:
    """Return every raw frame in a folder and below. Hidden folders are left out; what vanishes meanwhile was not there.

    Raises
    ------
    OSError
        If the folder itself cannot be read.
    """
    found = Scan()
    _add(folder, found)
    return found


def _add(folder: Path, found: Scan) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            try:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        _add(path, found)
                elif is_frame(entry.name) and entry.is_file():
                    found.files[path] = _signature(entry.stat())
            except FileNotFoundError:
                continue
            except OSError as error:
                found.unreadable[path] = error.strerror or str(error)


def look_at(path: Path) -> Signature | None:
    """Return a raw frame as it is now; None if it is gone, or is no raw frame by its name."""
    if not is_frame(path.name):
        return None
    try:
        return _signature(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _signature(status: os.stat_result) -> Signature:
    return Signature(size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)
