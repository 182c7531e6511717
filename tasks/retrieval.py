"""Handing out what belongs to frames: which file goes where, and the files themselves."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from archive.delivery import Delivery, deliver
from archive.naming import cleaned, suffix_of
from tasks.associations import AssociatedFile, Tree


class Names(StrEnum):
    """What a file is called when it arrives."""

    ARCFILE = "arcfile"  # technical: MUSE.<time>.fits, M.MUSE.<time>.fits
    ORIGFILE = "origfile"  # human: MUSE_BIAS169_0001.fits, MU_MBIA_260617A_slow.fits


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """What became of one file; ``reason`` says why it is missing."""

    file: AssociatedFile
    path: Path
    delivery: Delivery
    reason: str = ""


class Unfit(Exception):  # noqa: N818 - reads as what it is
    """The folder cannot take what is handed out."""


def files_of(trees: Sequence[Tree]) -> list[AssociatedFile]:
    """Return the files of several trees, each once."""
    return list({file.dp_id: file for tree in trees for file in tree.files()}.values())


def name_files(files: Sequence[AssociatedFile], names: Names) -> Mapping[str, str]:
    """Return the name of each file outside of the archive, by its DP id.

    No two are alike, even where upper and lower case are one: files that share a name get their DP id into it.
    """
    plain = {file.dp_id: _name(file, names) for file in files}
    counts = Counter(name.lower() for name in plain.values())
    return {
        file.dp_id: plain[file.dp_id] if counts[plain[file.dp_id].lower()] == 1 else qualified(file, plain[file.dp_id])
        for file in files
    }


def qualified(file: AssociatedFile, name: str) -> str:
    """Return a name with the DP id in it: ``MUSE_CAL_BIAS168_0001.MUSE.2026-06-17T10:41:11.000.fits``."""
    suffix = suffix_of(name)
    return cleaned(f"{name.removesuffix(suffix)}.{file.dp_id}{suffix}")


def check_folder(folder: Path, forbidden: Sequence[Path], files: Sequence[AssociatedFile], *, link: bool) -> None:
    """Raise Unfit unless a folder may take these files.

    Parameters
    ----------
    folder : Path
    forbidden : sequence of Path
        Folders of the daemon, in and below which nothing is handed out.
    files : sequence of AssociatedFile
    link : bool
        They take no space.
    """
    for other in forbidden:
        if folder.resolve().is_relative_to(other.resolve()):
            raise Unfit(f"{folder} lies in {other}, which is the daemon's own; name a folder outside of it.")
    above = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    needed = 0 if link else sum(file.size for file in files if not _is_there(folder, file))
    free = shutil.disk_usage(above).free
    if needed > free:
        raise Unfit(
            f"the files have {needed / 1e9:.1f} GB, {above} has {free / 1e9:.1f} GB free; name a folder with more "
            "space, or --link."
        )


def deliver_files(files: Sequence[AssociatedFile], folder: Path, names: Names, *, link: bool) -> Iterator[Delivered]:
    """Put files into a folder, and tell of each as soon as it is there.

    What is there already with the same content stays as it is, so that the same again finishes what was broken off.

    Raises
    ------
    FileExistsError
        The folder has another file under the technical name of one of these.
    OSError
        The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = name_files(files, names)
    for file in files:
        target = folder / chosen[file.dp_id]
        if reason := _fault(file):
            yield Delivered(file=file, path=target, delivery=Delivery.MISSING, reason=reason)
            continue
        try:
            yield Delivered(file=file, path=target, delivery=deliver(file.path, target, link=link))
        except FileExistsError:
            # A human name may have come from another night before; a technical one is of one file only.
            other = folder / qualified(file, target.name)
            if names is Names.ARCFILE or other == target:
                raise
            yield Delivered(file=file, path=other, delivery=deliver(file.path, other, link=link))


def _name(file: AssociatedFile, names: Names) -> str:
    suffix = suffix_of(file.path.name)
    human = file.origfile.removesuffix(suffix_of(file.origfile)) if names is Names.ORIGFILE else ""
    return cleaned(human + suffix) if human else cleaned(file.arcfile)


def _fault(file: AssociatedFile) -> str:
    try:
        size = file.path.stat().st_size
    except FileNotFoundError:
        return f"{file.path} is not in its place any more; `musecal verify` tells more."
    if size != file.size:
        return f"{file.path} has {size} bytes instead of {file.size}; `musecal verify` tells more."
    return ""


def _is_there(folder: Path, file: AssociatedFile) -> bool:
    return any((folder / _name(file, names)).exists() for names in Names)
