"""The files below one root: put in their place once, whole, never overwritten.

A file comes into its place by a hard link, which cannot overwrite and is there at once with all its bytes, after these
are on the disk. A process killed at any point leaves at most a second name of the same bytes or a ``.part`` file; doing
the same again finishes the work. What takes a file away from where it came from is a step of its own, ``let_go``, to
be done after the registry knows the file: between the two, a file is never in no place.
"""

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import count
from pathlib import Path

from archive.naming import cleaned, safe_file_name

READ_ONLY = 0o444
# Why a hard link cannot be made although a copy can: other file system, no links there, too many of them.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)


class Transfer(StrEnum):
    """How a raw frame comes into the archive."""

    MOVE = "move"  # the incoming folder is emptied
    COPY = "copy"  # the archive has its own bytes, the incoming file stays
    LINK = "link"  # both names share the bytes where the file system allows it, else a copy
    LEAVE = "leave"  # the frame stays where it is; the archive only knows the place


@dataclass(frozen=True)
class Published:
    """A product in its place: path, size in bytes, sha256 in hexadecimal."""

    path: Path
    size: int
    digest: str


class Store:
    """Layout below ``root``: raw/<night>/, products/<night>/, statics/, quarantine/, logs/<night>/, work/<step>/.

    Parameters
    ----------
    root : Path
        Made when the first file comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.raw = self.root / "raw"
        self.products = self.root / "products"
        self.statics = self.root / "statics"
        self.quarantined = self.root / "quarantine"
        self.work = self.root / "work"
        self.logs = self.root / "logs"

    def keep_raw(self, path: Path, night: date, name: str, *, transfer: Transfer) -> Path:
        """Put a raw frame in its place and return that; ``path`` itself stays until ``let_go``.

        Raises
        ------
        FileExistsError
            Another content has this name.
        """
        return self._keep(path, self.raw / night.isoformat() / safe_file_name(name), transfer)

    def keep_product(self, path: Path, night: date, name: str, *, transfer: Transfer) -> Path:
        """Put a product that was made elsewhere in its place and return that, as ``keep_raw`` does."""
        return self._keep(path, self.products / night.isoformat() / safe_file_name(name), transfer)

    def keep_static(self, path: Path, name: str, *, transfer: Transfer) -> Path:
        """Put a static calibration in its place, read-only, and return that; ``path`` itself stays until ``let_go``.

        Its place is in the archive whatever the transfer is: it has to be there for every night to come.

        Raises
        ------
        FileExistsError
            Another content has this name.
        """
        target = self.statics / safe_file_name(name)
        foreign = path.is_symlink() or path.stat().st_uid != os.geteuid()
        _place(path, target, own_bytes=foreign or transfer is not Transfer.MOVE)
        target.chmod(READ_ONLY)
        return target

    def let_go(self, path: Path, kept: Path, *, transfer: Transfer = Transfer.MOVE) -> None:
        """Remove an incoming file whose content is in the archive as ``kept``, if the transfer is a move.

        To be called after the commit that names ``kept``. Nothing happens if it was done before, or if other
        content has come to ``path`` in between.

        Raises
        ------
        FileNotFoundError
            ``kept`` is not there: then ``path`` stays.
        """
        kept.stat()
        here = transfer is Transfer.MOVE and path.absolute() != kept.absolute() and path.exists()
        if here and same_content(path, kept):
            path.unlink()

    def publish(self, temporary: Path, night: date, name: str) -> Published:
        """Put a finished product in its place, read-only and on the disk, and remove its temporary name.

        The same content under this name already is the same thing done before.

        Raises
        ------
        FileExistsError
            Another content has this name. If no row knows it, a killed process left it: quarantine it, then again.
        """
        return self._publish(temporary, self.products / night.isoformat() / safe_file_name(name))

    def publish_static(self, temporary: Path, name: str) -> Published:
        """Put a static calibration in its place, as ``publish`` does."""
        return self._publish(temporary, self.statics / safe_file_name(name))

    def quarantine(self, path: Path) -> Path:
        """Put a file among the quarantined and return its place there; ``path`` itself stays until ``let_go``.

        Other content of the same name gets ``.2``, ``.3`` and so on behind its name.
        """
        for number in count(1):
            target = self.quarantined / (cleaned(path.name) + (f".{number}" if number > 1 else ""))
            try:
                _place(path, target, own_bytes=False)
            except FileExistsError:
                continue
            return target
        raise AssertionError  # count() does not end

    def work_folder(self, step_id: int, channel: int, attempt: int) -> Path:
        """Make and return the scratch folder of one attempt at one channel of a step, the same at every call."""
        folder = self.work / str(step_id) / f"{channel:02d}-{attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log_stem(self, night: date, step_id: int, channel: int, attempt: int) -> Path:
        """Return how the names of the logs of one attempt begin, in a folder that is there; channel 0 is the finish."""
        folder = self.logs / night.isoformat()
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"S{step_id}_{f'CHAN{channel:02d}' if channel else 'finish'}_{attempt}"

    def discard_work(self, step_id: int) -> None:
        """Remove the scratch folders of a step; a worker that still writes there fails by itself.

        The folder is first renamed away in one move, so that nothing can be added while it is removed.
        """
        folder, doomed = self.work / str(step_id), self.work / f"{step_id}.discarded"
        for remains in (doomed, folder):  # first what a killed process had begun to remove
            if remains.exists():
                remains.rename(doomed)
                shutil.rmtree(doomed)

    def free_bytes(self) -> int:
        """Return what an ordinary user may still write to the file system of the archive."""
        self.root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.root).free

    def files(self) -> Iterator[Path]:
        """Yield every raw frame, product and static calibration, and every remainder of a killed process."""
        for folder in (self.raw, self.products, self.statics):
            yield from sorted(path for path in folder.rglob("*") if not path.is_dir())

    def _keep(self, path: Path, target: Path, transfer: Transfer) -> Path:
        if transfer is Transfer.LEAVE:
            return path.absolute()
        # Bytes that belong to somebody else could still be changed by their owner.
        foreign = path.is_symlink() or path.stat().st_uid != os.geteuid()
        _place(path, target, own_bytes=foreign or transfer is Transfer.COPY)
        if transfer is Transfer.MOVE:
            target.chmod(READ_ONLY)
        return target

    def _publish(self, temporary: Path, target: Path) -> Published:
        size, digest = temporary.stat().st_size, digest_of(temporary)
        temporary.chmod(READ_ONLY)
        _place(temporary, target, own_bytes=False)
        temporary.unlink()
        return Published(path=target, size=size, digest=digest)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(source: Path, target: Path, *, own_bytes: bool) -> None:
    """Give the bytes of ``source`` the name ``target`` as well, on the disk when this returns."""
    _make_folder(target.parent)
    if own_bytes or not _link(source, target):
        _copy(source, target)
    _sync(target.parent)


def _copy(source: Path, target: Path) -> None:
    for remainder in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if not Path("/proc", remainder.suffixes[-2][1:]).exists():  # its process was killed
            remainder.unlink(missing_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, part)
        part.chmod(READ_ONLY)
        if not _link(part, target):
            raise OSError(
                f"the file system of {target.parent} has no hard links, and without them a file cannot come into its "
                "place whole and once; keep the archive on another one, such as ext4, XFS or NFS."
            )
    finally:
        part.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> bool:
    """Link and return True; False if the file system cannot. Fine if the target has the same content already."""
    _sync(source)
    try:
        os.link(source, target)
    except FileExistsError:
        if not same_content(source, target):
            raise FileExistsError(
                f"{target} has other content than {source}; nothing is ever overwritten in the archive."
            ) from None
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def same_content(one: Path, other: Path) -> bool:
    """Return whether two files are one, or have the same bytes."""
    return one.samefile(other) or (one.stat().st_size == other.stat().st_size and digest_of(one) == digest_of(other))


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
