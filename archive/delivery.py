"""Files of the archive, put into folders outside of it: whole or not at all, and nothing is overwritten there."""

import os
import shutil
from enum import StrEnum
from pathlib import Path

from archive.store import same_content


class Delivery(StrEnum):
    """What became of a file that was wanted outside."""

    COPIED = "copied"
    LINKED = "linked"
    PRESENT = "present"  # it was there already
    MISSING = "missing"  # from the archive, or not whole there


def deliver(source: Path, target: Path, *, link: bool) -> Delivery:
    """Give a file of the archive a place outside, whose folder is there.

    A process that is killed leaves a ``.part`` file, and no half file under the final name.

    Parameters
    ----------
    source, target : Path
    link : bool
        Make a symbolic link instead of a copy.

    Returns
    -------
    Delivery
        PRESENT if the target has the same content, or is a link to it.

    Raises
    ------
    FileExistsError
        The target has other content.
    OSError
        The disk is full, or a folder cannot be read or written.
    """
    if target.is_symlink() or target.exists():
        if target.exists() and same_content(source, target):
            return Delivery.PRESENT
        raise FileExistsError(f"{target} is there with other content; remove it, or name another folder.")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        if link:
            part.symlink_to(source)
        else:
            shutil.copyfile(source, part)
            with part.open("rb") as copy:
                os.fsync(copy.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)
    return Delivery.LINKED if link else Delivery.COPIED


def write_whole(text: str, target: Path) -> None:
    """Write a text file that is there with all of its lines or not at all; an older one is replaced."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.write_text(text)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
