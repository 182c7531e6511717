"""What the daemon's processes have in common: one of each kind, ended when told to, never without their parent."""

import ctypes
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PAUSE_SECONDS = 0.05


class AlreadyRunning(Exception):  # noqa: N818 - reads as what it is
    """Another process does this work on the same archive root."""


def lock_alone(path: Path, *, patience: float) -> int:
    """Lock a file for this process and those that inherit the descriptor; the kernel unlocks it when they end.

    Parameters
    ----------
    path : Path
        The file, made if need be, with its folder.
    patience : float
        Seconds to wait for a former holder that is just ending.

    Returns
    -------
    int
        The file descriptor; closing it gives the lock back.

    Raises
    ------
    AlreadyRunning
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"Another process holds {path}; stop it first, or use another archive root (archive.root)."
                ) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            return descriptor


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends: no orphan works on unseen.

    Parameters
    ----------
    parent : int
        Process id of the parent, noted before this process was made: if that has ended meanwhile, no signal would come.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def stop_on_signal() -> threading.Event:
    """Return an event that SIGTERM, SIGINT and SIGHUP set.

    Ask it by ``is_set``: waiting on it could block the handler.
    """
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ask)
    return stop
