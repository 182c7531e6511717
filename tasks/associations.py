"""What belongs to a raw frame: the tree of its calibrations, as ESO's calSelector answers for it.

A tree is made of the raw frames of every calibration and their own calibrations (Raw2Raw), or of the master
calibrations that the last recipe takes (Raw2Master). Source: calSelector, its public answers and pages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Mode(StrEnum):
    """What a tree is made of."""

    RAW2RAW = "Raw2Raw"
    RAW2MASTER = "Raw2Master"


class Validity(StrEnum):
    """How well an association fits in time; calSelector's attribute ``match``."""

    CALIB_PLAN = "calib_plan"  # level 0
    EXTENDED = "extended"  # levels 1 to 3
    NOT_APPLICABLE = "N/A"  # static calibrations, and what was not found


@dataclass(frozen=True, kw_only=True)
class AssociatedFile:
    """One file of a tree.

    Parameters
    ----------
    category : str
        The tag under which ESO's recipes take it: PRO.CATG, or the tag of a raw frame.
    dp_id : str
        Data-product identifier, without ``.fits``: what a client asks for.
    arcfile : str
        Technical name in the archive, with suffix: ``MUSE.2026-06-17T10:41:11.000.fits``, ``M.MUSE.<time>.fits``.
    origfile : str
        Human name: of a product ``MU_MBIA_260617A_slow.fits``, of a raw frame that of the workstation; may be ''.
    row : str
        Its row in short, ``F12`` or ``P5``.
    """

    category: str
    dp_id: str
    arcfile: str
    origfile: str
    path: Path
    size: int
    row: str


@dataclass(frozen=True, kw_only=True)
class Association:
    """One calibration of a frame, or the frame itself at the top, with what belongs to it in turn.

    Parameters
    ----------
    category : str
        PRO.CATG or raw tag.
    files : tuple of AssociatedFile
        Empty where nothing was found.
    certified : bool
        It and everything below it is certified.
    complete : bool
        Everything that is wanted was found, here and below.
    match : Validity
    level, days : int or None, float or None
        Association level, and calibration minus frame; None at the top and where nothing was found.
    differences : mapping
        Setup keys that differ although they need not be equal, with the wanted and the found value.
    messages : tuple of str
        Sentences for a person.
    associated : tuple of Association
    """

    category: str
    files: tuple[AssociatedFile, ...] = ()
    certified: bool = True
    complete: bool = True
    match: Validity = Validity.NOT_APPLICABLE
    level: int | None = None
    days: float | None = None
    differences: Mapping[str, tuple[str | int, str | int]] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    associated: tuple["Association", ...] = ()

    def walk(self) -> Iterator["Association"]:
        """Yield it and everything below it, from the top."""
        yield self
        for association in self.associated:
            yield from association.walk()


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The answer for one frame.

    Parameters
    ----------
    asked, mode : Mode
        What was asked for, and what was given: Raw2Raw where a master that is needed is missing.
    top : Association
        Of the frame itself.
    """

    asked: Mode
    mode: Mode
    top: Association

    def files(self) -> Iterator[AssociatedFile]:
        """Yield the frame and all its calibrations, each once, in the order of the tree."""
        return (file for _, file in self.placed_files())

    def placed_files(self) -> Iterator[tuple[Association, AssociatedFile]]:
        """Yield the same files, each with the first association that it is of."""
        seen: set[str] = set()
        for association in self.top.walk():
            for file in association.files:
                if file.dp_id not in seen:
                    seen.add(file.dp_id)
                    yield association, file

    def messages(self) -> tuple[str, ...]:
        """Return what is said anywhere in the tree, each sentence once."""
        return tuple(dict.fromkeys(message for one in self.top.walk() for message in one.messages))
