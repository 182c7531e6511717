"""Taking an existing archive in: raw frames, static calibrations and masters below a folder, without reprocessing.

Each file is looked at, placed and entered by itself, so that a run may be killed anywhere and begun anew. A file that
is known by its path, size and time of change is not read again. Reading is done ahead, by threads: the digest, which
takes nearly all of the time, leaves the other core to the rows.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import select

from archive.formats import Unfit
from archive.inspection import IncompleteFile, Inspection, UnreadableFile, inspect, peek
from archive.models import Arrival, Frame, Product
from archive.naming import PRODUCT_CODES, SUFFIXES
from archive.states import ArrivalState
from archive.store import Store, Transfer
from recipes.muse import INSTRUMENT
from recipes.recipe import Value
from tasks.classify import classify
from tasks.intake import Intake, Taken
from tasks.lineage import Linked, link_runs, score_taken
from tasks.masters import Master, category_of, is_static, recognise_master
from tasks.site import Site
from tasks.statics import Static, recognise
from tasks.verdicts import Scoring

GIGABYTE = 1_000_000_000
_READERS = 2  # threads: one may wait for the disk while the other digests
_KNOWN_AT_ONCE = 256  # files that the registry is asked for in one query
_READ_AHEAD = 32  # files whose headers are in memory


class TransferUnclear(Exception):  # noqa: N818 - reads as what it is
    """A tree cannot be linked, and what else is to be done only a person can say."""


class Became(StrEnum):
    """What became of a file of the tree, or would become of it."""

    FRAME = "frame"
    MASTER = "master"
    STATIC = "static"
    DUPLICATE = "duplicate"  # the same content is here already
    QUARANTINED = "quarantined"  # it is not what it says, or not whole; listed, and left where it is unless moved
    UNKNOWN = "unknown"  # a file of MUSE that no table of ours has; not taken
    FOREIGN = "other instrument"  # not taken
    OTHER = "not FITS"  # by its name; not looked at
    LINK = "link to a folder"  # not followed
    UNREADABLE = "unreadable"  # not for us, gone, or a link to nothing


@dataclass(frozen=True, kw_only=True)
class Found:
    """One file of the tree and what became of it.

    Parameters
    ----------
    type : str
        Tag of a raw frame, PRO.CATG of a product.
    row : str
        In short, ``F12`` or ``P5``; '' if it has none.
    known : bool
        It was taken in before and has not changed since.
    """

    path: Path
    size: int
    became: Became
    type: str = ""
    reason: str = ""
    row: str = ""
    known: bool = False


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What reading a file has told."""

    path: Path
    size: int
    became: Became
    type: str = ""
    reason: str = ""
    inspection: Inspection | None = None
    content: Master | Static | None = None


@dataclass
class Backfill:
    """Takes a tree in.

    Parameters
    ----------
    site : Site
    transfer : Transfer
    certified : bool
        Whoever gives the tree vouches for the masters in it.
    dry_run : bool
        Only say what would become of each file. Contents are not read then, so that duplicates are not found.
    """

    site: Site
    transfer: Transfer
    certified: bool = False
    dry_run: bool = False
    linked: Linked = field(default=Linked(0, 0), init=False)

    def take(self, folder: Path) -> Iterator[Found]:
        """Take everything below a folder, and then put the masters on their frames; yield each file when it is done.

        Raises
        ------
        OSError
            The archive cannot be written. What was taken is in order, and the rest is taken by another run.
        """
        site = self.site
        intake = Intake(
            site.registry,
            site.store,
            site.settings,
            transfer=self.transfer,
            archived=True,
            certified=self.certified,
        )
        files = _walk(folder.absolute(), site.store.root)
        with ThreadPoolExecutor(_READERS) as readers:
            while batch := list(islice(files, _KNOWN_AT_ONCE)):
                known = self._known(batch)
                yield from known.values()
                rest = iter([found for found in batch if found.path not in known])
                while ahead := list(islice(rest, _READ_AHEAD)):
                    for look in readers.map(partial(_look, digested=not self.dry_run), ahead):
                        yield self._enter(intake, look)
        if not self.dry_run:
            self.linked = link_runs(site.registry, site.clock())
            score_taken(site.registry, Scoring.of(site.settings), site.clock())

    def _known(self, batch: Sequence[Found]) -> dict[Path, Found]:
        """Return what became of those files that were taken before and have not changed since."""
        by_path = {str(found.path): found for found in batch if found.became is Became.FRAME}
        rows = (
            select(Arrival, Frame.tag, Product.catg, Product.static)
            .outerjoin(Frame, Arrival.frame_id == Frame.id)
            .outerjoin(Product, Arrival.product_id == Product.id)
            .where(Arrival.path.in_(by_path))
            .order_by(Arrival.id)
        )
        known: dict[Path, Found] = {}
        with self.site.registry.read() as session:
            for arrival, tag, catg, static in session.execute(rows):
                found = by_path[arrival.path]
                known.pop(found.path, None)  # the newest arrival of a path counts
                if (became := _outcome(arrival.state, catg, static=bool(static))) and _unchanged(arrival, found.path):
                    known[found.path] = Found(
                        path=found.path,
                        size=found.size,
                        became=became,
                        type=tag or catg or "",
                        reason=arrival.reason,
                        row=_row(arrival.frame_id, arrival.product_id),
                        known=True,
                    )
        return known

    def _enter(self, intake: Intake, look: _Look) -> Found:
        taken = None if self.dry_run else self._taken(intake, look)
        became = Became.DUPLICATE if taken and taken.state is ArrivalState.DUPLICATE else look.became
        return Found(
            path=look.path,
            size=look.size,
            became=became,
            type=look.type,
            reason=taken.reason if taken else look.reason,
            row=_row(taken.frame_id, taken.product_id) if taken else "",
        )

    def _taken(self, intake: Intake, look: _Look) -> Taken | None:
        now = self.site.clock()
        self._check_room(look.size)
        if look.became is Became.QUARANTINED:
            return intake.quarantine(look.path, look.reason, now)
        if look.inspection is None:
            return None
        match look.content:
            case Master() as master:
                return intake.take_master(look.path, look.inspection, master, now)
            case Static() as static:
                return intake.take_static(look.path, look.inspection, static, now)
            case None:
                return intake.take_frame(look.path, look.inspection, now)

    def _check_room(self, size: int) -> None:
        least = self.site.settings.archive.least_free_gb
        if self.transfer is not Transfer.LEAVE and self.site.store.free_bytes() - size < least * GIGABYTE:
            raise OSError(
                f"fewer than {least:g} GB would be free below {self.site.store.root} (archive.least_free_gb); make room"
                " and begin again, or let the files stay where they are with --transfer leave."
            )


def _walk(folder: Path, archive: Path) -> Iterator[Found]:
    """Yield every file below a folder but for our archive, in the order of names; FRAME if it is to be looked at."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield Found(path=folder, size=0, became=Became.UNREADABLE, reason=_told(error))
        return
    for entry in entries:
        path = Path(entry.path)
        if path == archive:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(path, archive)
            continue
        try:
            size = entry.stat().st_size
        except OSError as error:
            yield Found(path=path, size=0, became=Became.UNREADABLE, reason=_told(error))
            continue
        if entry.is_dir():
            reason = "It is a link to a folder; give that folder by itself if it is to be taken in."
            yield Found(path=path, size=0, became=Became.LINK, reason=reason)
        elif entry.is_file() and entry.name.endswith(SUFFIXES) and not entry.name.startswith("."):
            yield Found(path=path, size=size, became=Became.FRAME)
        else:
            yield Found(path=path, size=size, became=Became.OTHER, reason=f"Its name ends in none of {_SUFFIXES}.")


_SUFFIXES = ", ".join(SUFFIXES)


def _look(found: Found, *, digested: bool) -> _Look:
    """Read a file as far as its kind needs it."""
    path, size = found.path, found.size
    if found.became is not Became.FRAME:
        return _Look(path=path, size=size, became=found.became, reason=found.reason)
    try:
        primary = peek(path)
        became, kind, reason = _kind(primary, path.name)
        if became not in (Became.FRAME, Became.MASTER, Became.STATIC):
            return _Look(path=path, size=size, became=became, type=kind, reason=reason)
        inspection = inspect(path, digested=digested)
        content: Master | Static | None = None
        if became is Became.MASTER:
            content = recognise_master(inspection, path)
        elif became is Became.STATIC:
            content = recognise(inspection, path)
    except IncompleteFile as error:
        return _Look(path=path, size=size, became=Became.QUARANTINED, reason=f"It is truncated: {error}")
    except (UnreadableFile, Unfit) as error:
        return _Look(path=path, size=size, became=Became.QUARANTINED, reason=str(error))
    except OSError as error:
        return _Look(path=path, size=size, became=Became.UNREADABLE, reason=_told(error))
    return _Look(path=path, size=size, became=became, type=kind, inspection=inspection, content=content)


def _kind(primary: Mapping[str, Value], name: str) -> tuple[Became, str, str]:
    """Return what a file is by its primary header, its tag or PRO.CATG, and why it is not taken if it is not."""
    if catg := category_of(primary, name):
        if is_static(primary, name):
            return Became.STATIC, catg, ""
        if catg in PRODUCT_CODES:
            return Became.MASTER, catg, ""
        return Became.UNKNOWN, catg, f"PRO.CATG = {catg} is no calibration that anything here takes."
    if (instrument := primary.get("INSTRUME", "")) != INSTRUMENT:
        return Became.FOREIGN, "", f"INSTRUME is {instrument!r}, not {INSTRUMENT}."
    if "ESO DPR CATG" not in primary:
        return Became.UNKNOWN, "", "It has neither DPR.CATG, as a raw frame has, nor PRO.CATG, as a product has."
    return Became.FRAME, classify(primary, name=name).tag, ""


def choose_transfer(folder: Path, store: Store) -> Transfer:
    """Return how a tree comes in if nobody says it: linked, which takes nothing away and needs no room.

    Raises
    ------
    TransferUnclear
        Its files cannot be linked: they are on another file system, or somebody else's.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    tree, root = folder.stat(), store.root.stat()
    if tree.st_dev != root.st_dev:
        reason = f"{folder} is on another file system than the archive at {store.root}"
    elif tree.st_uid != os.geteuid():
        reason = f"{folder} belongs to another user, who could change what the archive has linked"
    else:
        return Transfer.LINK
    raise TransferUnclear(
        f"{reason}: say --transfer leave, and the files stay where they are and have to stay there, or --transfer copy,"
        " and they take their room a second time."
    )


def _outcome(state: ArrivalState, catg: str | None, *, static: bool) -> Became | None:
    """Return what became of a file by its row; None if that is not settled."""
    match state:
        case ArrivalState.INGESTED:
            return Became.FRAME if catg is None else Became.STATIC if static else Became.MASTER
        case ArrivalState.DUPLICATE:
            return Became.DUPLICATE
        case ArrivalState.QUARANTINED:
            return Became.QUARANTINED
        case _:
            return None


def _unchanged(arrival: Arrival, path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False  # reading it will tell
    return (arrival.size, arrival.mtime_ns) == (status.st_size, status.st_mtime_ns)


def _row(frame_id: int | None, product_id: int | None) -> str:
    return f"F{frame_id}" if frame_id else f"P{product_id}" if product_id else ""


def _told(error: OSError) -> str:
    return f"It cannot be read: {error.strerror or error}."
