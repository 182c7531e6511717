"""Which files of the incoming folder have settled: pure bookkeeping, told what was seen and what time it is.

Times are seconds of one steady clock (``time.monotonic``): a step of the wall clock neither hurries nor holds a file.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

ENDINGS = (".fits", ".fits.fz", ".fits.gz", ".fits.Z")  # as the instrument, fpack and ESO's archive write them
IGNORED_ENDINGS = (".part", ".tmp", "~")


def is_frame(name: str) -> bool:
    """Return True for names that raw frames have; hidden and temporary files are somebody's unfinished work."""
    return name.endswith(ENDINGS) and not name.startswith(".") and not name.endswith(IGNORED_ENDINGS)


@dataclass(frozen=True)
class Signature:
    """What changes when a file is written to or replaced."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One awaited file: since when it is quiet, when it is looked at next, and why it could not be taken yet."""

    path: Path
    signature: Signature
    quiet_since: float
    look_at: float
    stalled: bool = False
    reason: str = ""


class Arrivals:
    """Every file of the folder that is awaited, and those that were taken and still lie there.

    Parameters
    ----------
    settle : float
        Seconds without a change after which a file is looked at.
    longest_pause : float
        Seconds after which a file that could not be taken is looked at again at the latest.
    """

    def __init__(self, *, settle: float, longest_pause: float) -> None:
        self._settle = settle
        self._longest_pause = longest_pause
        self._awaited: dict[Path, Sighting] = {}
        self._taken: dict[Path, Signature] = {}

    def see(self, path: Path, signature: Signature, now: float) -> None:
        """Note a file as it is now; any change starts its settle time again."""
        known = self._awaited.get(path)
        if self._taken.get(path) == signature or (known and known.signature == signature):
            return
        self._taken.pop(path, None)
        self._awaited[path] = Sighting(path=path, signature=signature, quiet_since=now, look_at=now + self._settle)

    def settled(self, now: float) -> list[Sighting]:
        """Return the files whose time to be looked at has come, the longest quiet first."""
        due = [sighting for sighting in self._awaited.values() if sighting.look_at <= now]
        return sorted(due, key=lambda sighting: (sighting.quiet_since, sighting.path))

    def postpone(self, path: Path, now: float, *, reason: str, stalled: bool = False) -> None:
        """Look at a file again later, after twice as long each time; it is never given up."""
        sighting = self._awaited[path]
        pause = min(max(now - sighting.quiet_since, self._settle), self._longest_pause)
        self._awaited[path] = replace(sighting, look_at=now + pause, stalled=stalled, reason=reason)

    def take(self, path: Path, signature: Signature) -> None:
        """Note that a file was taken; while it lies there unchanged it is not looked at again."""
        self._awaited.pop(path, None)
        self._taken[path] = signature

    def forget(self, path: Path) -> None:
        """Note that a file is gone; a file that comes under its name is a new one."""
        self._awaited.pop(path, None)
        self._taken.pop(path, None)

    def retain(self, present: Collection[Path]) -> None:
        """Forget every file that a complete scan did not find."""
        for path in (self._awaited.keys() | self._taken.keys()) - set(present):
            self.forget(path)

    @property
    def next_look(self) -> float | None:
        """When the next file is to be looked at; None if none is awaited."""
        return min((sighting.look_at for sighting in self._awaited.values()), default=None)

    @property
    def postponed(self) -> dict[Path, str]:
        """Files that could not be taken yet, with the reason."""
        return {path: sighting.reason for path, sighting in self._awaited.items() if sighting.reason}

    @property
    def waiting(self) -> int:
        """How many files are awaited, without the stalled ones."""
        return len(self._awaited) - self.stalled

    @property
    def stalled(self) -> int:
        """How many awaited files are stalled."""
        return sum(sighting.stalled for sighting in self._awaited.values())
