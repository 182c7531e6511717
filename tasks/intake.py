"""Taking a file in: look at it, say what it is, keep its bytes, write its rows.

The order makes it safe to be killed anywhere: the bytes get their place first, then all rows in one transaction, and
only then the incoming name goes. Whoever takes the same file again ends with the same registry.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from archive.formats import Unfit
from archive.history import record
from archive.inspection import IncompleteFile, Inspection, UnreadableFile, inspect
from archive.models import Arrival, Frame, Group, Product
from archive.naming import raw_name
from archive.night import night_of
from archive.registry import Registry
from archive.states import ArrivalState, GroupState, move
from archive.store import Store, Transfer, digest_of
from recipes.muse import CHANNELS, INSTRUMENT, extension_name
from tasks.cascade import STEPS_BY_TAG
from tasks.classify import Classified, classify
from tasks.groups import announced, closing_time, group_key, middle
from tasks.masters import Master, enter_master, free_master_name
from tasks.settings import Settings
from tasks.statics import Static, category_of, enter_static, following_name, free_name, recognise
from tasks.survey import member_of, weigh_again_beside

_CHANNEL_NAMES = {extension_name(channel): channel for channel in CHANNELS}
AWAITED = (ArrivalState.WAITING, ArrivalState.STALLED)


@dataclass(frozen=True)
class Taken:
    """What became of a file: its state, the frame or static calibration that it is, if any, and a sentence."""

    state: ArrivalState
    frame_id: int | None = None
    reason: str = ""
    product_id: int | None = None


class Intake:
    """Takes files into the archive.

    Parameters
    ----------
    registry : Registry
    store : Store
    settings : Settings
    transfer : Transfer, optional
        How files come in; without it as the settings say.
    archived : bool
        The frames are of an archive that is there already: nothing is made of their groups unless somebody asks.
    certified : bool
        Whoever brings products of another pipeline vouches for them.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        settings: Settings,
        *,
        transfer: Transfer | None = None,
        archived: bool = False,
        certified: bool = False,
    ) -> None:
        self._registry = registry
        self._store = store
        self._archived = archived
        self._certified = certified
        self._transfer = transfer or settings.watch.transfer
        self._stalled = timedelta(minutes=settings.watch.stalled_minutes)
        self._truncated = timedelta(minutes=settings.watch.truncated_minutes)
        self._grace = timedelta(minutes=settings.groups.grace_minutes)

    def take(self, path: Path, now: datetime) -> Taken:
        """Take one file, however often it is offered.

        Parameters
        ----------
        path : Path
        now : datetime
            Aware UTC.

        Returns
        -------
        Taken
            WAITING or STALLED if it is not whole yet: offer it again later. Any other state is final.

        Raises
        ------
        FileNotFoundError
            It is gone.
        """
        path = path.absolute()
        if before := self._taken_before(path):
            return before
        try:
            inspection = inspect(path)
        except IncompleteFile as error:
            return self._await(path, str(error), now) or self.quarantine(path, f"It is truncated: {error}", now)
        except UnreadableFile as error:
            return self.quarantine(path, str(error), now)
        if not category_of(inspection.primary, path.name):
            return self.take_frame(path, inspection, now)
        try:
            return self.take_static(path, inspection, recognise(inspection, path), now)
        except Unfit as error:
            return self.quarantine(path, str(error), now)

    def give_up(self, folder: Path, present: Collection[Path], now: datetime) -> None:
        """Note which awaited files are no longer there.

        Parameters
        ----------
        folder : Path
        present : collection of Path
            Every file that a complete scan of the folder found.
        now : datetime
        """
        inside = Arrival.path.startswith(f"{folder}/", autoescape=True)
        awaited = select(Arrival).where(Arrival.state.in_(AWAITED), inside)
        with self._registry.read() as session:
            if all(Path(arrival.path) in present for arrival in session.scalars(awaited)):
                return
        with self._registry.begin() as session:
            for arrival in session.scalars(awaited):
                if Path(arrival.path) in present or Path(arrival.path).exists():
                    continue
                arrival.reason = f"Somebody removed it before it was whole. {arrival.reason}".rstrip()
                move(arrival, ArrivalState.GONE)
                record(session, arrival, "file gone", arrival.reason, now=now)

    def _taken_before(self, path: Path) -> Taken | None:
        """Return what became of this very file when it was taken before; let go of it if that was not done then."""
        status = path.stat()
        with self._registry.read() as session:
            arrival = _newest(session, path)
            if arrival is None or arrival.state in (*AWAITED, ArrivalState.RELEASED):
                return None
            content = arrival.frame or arrival.product
            kept = arrival.kept or (content.path if content else None)
        if (arrival.size, arrival.mtime_ns) != (status.st_size, status.st_mtime_ns) or kept is None:
            return None
        if self._transfer is Transfer.MOVE:
            if digest_of(path) != arrival.digest:
                return None
            self._store.let_go(path, Path(kept))
        return Taken(arrival.state, arrival.frame_id, arrival.reason, arrival.product_id)

    def _await(self, path: Path, reason: str, now: datetime) -> Taken | None:
        """Note that a file is not whole yet; None if it has not grown for so long that it never will be."""
        with self._registry.begin() as session:
            arrival = _arrival(session, path, now)
            status = path.stat()
            if (arrival.size, arrival.mtime_ns) != (status.st_size, status.st_mtime_ns) or arrival.settled is None:
                arrival.size, arrival.mtime_ns, arrival.settled = status.st_size, status.st_mtime_ns, now
            quiet = now - arrival.settled
            if quiet >= self._truncated:
                return None
            state = ArrivalState.STALLED if quiet >= self._stalled else ArrivalState.WAITING
            arrival.reason = reason
            if arrival.state is not state:
                move(arrival, state)
            return Taken(state, None, reason)

    def quarantine(self, path: Path, reason: str, now: datetime) -> Taken:
        """List a file as unfit; of an archive it stays where it is, unless that is to be emptied."""
        stays = self._archived and self._transfer is not Transfer.MOVE
        status, digest, kept = path.stat(), digest_of(path), path if stays else self._store.quarantine(path)
        with self._registry.begin() as session:
            arrival = _arrival(session, path, now)
            arrival.size, arrival.mtime_ns, arrival.settled = status.st_size, status.st_mtime_ns, now
            arrival.kept, arrival.digest, arrival.reason = str(kept), digest, reason
            move(arrival, ArrivalState.QUARANTINED)
            record(session, arrival, "file quarantined", reason, now=now, kept=str(kept))
        self._store.let_go(path, kept, transfer=self._transfer)
        return Taken(ArrivalState.QUARANTINED, None, reason)

    def take_frame(self, path: Path, inspection: Inspection, now: datetime) -> Taken:
        """Take a raw frame that was looked at."""
        classified = classify(inspection.primary, name=path.name)
        if not classified.dp_id:
            classified = replace(classified, dp_id=f"{INSTRUMENT}.{inspection.digest[:16]}")
        status = path.stat()
        kept = self._keep(path, inspection, classified)
        with self._registry.begin() as session:
            arrival = _arrival(session, path, now)
            arrival.size, arrival.mtime_ns, arrival.settled = status.st_size, status.st_mtime_ns, now
            arrival.digest = inspection.digest
            frame = session.scalar(_of_digest(inspection.digest))
            if frame is not None:
                arrival.reason = f"The same content is here as {frame.dp_id}, version {frame.version}."
                move(arrival, ArrivalState.DUPLICATE)
            else:
                frame = enter(session, inspection, classified, kept, self._grace, now, archived=self._archived)
                arrival.reason = " ".join(classified.problems)
                move(arrival, ArrivalState.INGESTED)
            arrival.frame = frame
            session.flush()
            taken = Taken(arrival.state, frame.id, arrival.reason)
            kept = Path(frame.path)
        self._store.let_go(path, kept, transfer=self._transfer)
        return taken

    def take_static(self, path: Path, inspection: Inspection, static: Static, now: datetime) -> Taken:
        """Take a static calibration that was looked at."""

        def place(name: str) -> Path:
            return self._store.keep_static(path, name, transfer=self._transfer)

        def enter_it(session: Session, name: str, kept: Path) -> Product:  # noqa: ARG001 - it is that of the file
            return enter_static(session, inspection, static, kept, now)

        return self._take_product(path, inspection, lambda session: free_name(session, static), place, enter_it, now)

    def take_master(self, path: Path, inspection: Inspection, master: Master, now: datetime) -> Taken:
        """Take a product of another pipeline that was looked at."""

        def place(name: str) -> Path:
            file = name.removesuffix(".fits") + inspection.suffix
            return self._store.keep_product(path, night_of(master.mjd), file, transfer=self._transfer)

        def enter_it(session: Session, name: str, kept: Path) -> Product:
            stays = self._transfer is Transfer.LEAVE  # then no place of a file has reserved the name
            name = free_master_name(session, master) if stays else name
            return enter_master(session, inspection, master, name, kept, now, certified=self._certified)

        return self._take_product(
            path, inspection, lambda session: free_master_name(session, master), place, enter_it, now
        )

    def _take_product(
        self,
        path: Path,
        inspection: Inspection,
        name_of: Callable[[Session], str],
        place: Callable[[str], Path],
        enter_it: Callable[[Session, str, Path], Product],
        now: datetime,
    ) -> Taken:
        status = path.stat()
        name, kept = self._keep_product(inspection, name_of, place)
        with self._registry.begin() as session:
            arrival = _arrival(session, path, now)
            arrival.size, arrival.mtime_ns, arrival.settled = status.st_size, status.st_mtime_ns, now
            arrival.digest = inspection.digest
            product = session.scalar(_product_of_digest(inspection.digest))
            if product is not None:
                arrival.reason = f"The same content is here as {product.name}."
                move(arrival, ArrivalState.DUPLICATE)
            else:
                product = enter_it(session, name, kept)
                move(arrival, ArrivalState.INGESTED)
            arrival.product = product
            session.flush()
            taken = Taken(arrival.state, None, arrival.reason, product.id)
            kept = Path(product.path)
        self._store.let_go(path, kept, transfer=self._transfer)
        return taken

    def _keep_product(
        self, inspection: Inspection, name_of: Callable[[Session], str], place: Callable[[str], Path]
    ) -> tuple[str, Path]:
        """Give the bytes a place in the archive, under their own name or with the next letter that is free."""
        with self._registry.read() as session:
            if known := session.scalar(_product_of_digest(inspection.digest)):
                return known.name, Path(known.path)
            name = name_of(session)
        while True:
            try:
                return name, place(name)
            except FileExistsError:
                name = following_name(name)  # another process keeps what it is about to register there

    def _keep(self, path: Path, inspection: Inspection, classified: Classified) -> Path:
        """Give the bytes a place in the archive, under the first name that is free for this version."""
        with self._registry.read() as session:
            if known := session.scalar(_of_digest(inspection.digest)):
                return Path(known.path)
            versions = session.scalar(_versions(classified.dp_id)) or 0
        for version in count(versions + 1):
            name = raw_name(classified.dp_id, version, inspection.suffix)
            try:
                return self._store.keep_raw(path, classified.night, name, transfer=self._transfer)
            except FileExistsError:
                continue  # another process keeps the version that it is about to register there
        raise AssertionError  # count() does not end


def _newest(session: Session, path: Path) -> Arrival | None:
    return session.scalar(select(Arrival).where(Arrival.path == str(path)).order_by(Arrival.id.desc()).limit(1))


def _arrival(session: Session, path: Path, now: datetime) -> Arrival:
    """Return the row of a file that is awaited; a file that comes under a name whose story is over is a new arrival."""
    arrival = _newest(session, path)
    if arrival is None or arrival.state not in AWAITED:
        arrival = Arrival(path=str(path), state=ArrivalState.WAITING, first_seen=now)
        session.add(arrival)
    return arrival


def _of_digest(digest: str) -> Select[Frame]:
    return select(Frame).where(Frame.digest == digest)


def _product_of_digest(digest: str) -> Select[Product]:
    return select(Product).where(Product.digest == digest).order_by(Product.id).limit(1)


def _versions(dp_id: str) -> Select[int]:
    return select(func.max(Frame.version)).where(Frame.dp_id == dp_id)


def enter(
    session: Session,
    inspection: Inspection,
    classified: Classified,
    kept: Path,
    grace: timedelta,
    now: datetime,
    *,
    archived: bool = False,
) -> Frame:
    """Add the row of a new frame and put it into its group; an older version of it steps back.

    Parameters
    ----------
    kept : Path
        Where its bytes are.
    grace : timedelta
        How long its group stays open for more.
    archived : bool
        It is of an archive that is there already. Its group is archived too, unless frames of it came otherwise.
    """
    frame = Frame(
        dp_id=classified.dp_id,
        version=(session.scalar(_versions(classified.dp_id)) or 0) + 1,
        digest=inspection.digest,
        path=str(kept),
        size=inspection.size,
        tag=classified.tag,
        catg=classified.catg,
        type=classified.type,
        tech=classified.tech,
        rule=classified.rule,
        mjd=classified.mjd,
        exptime=classified.exptime,
        night=classified.night,
        origfile=classified.origfile,
        object=classified.object,
        tpl_id=classified.tpl_id,
        tpl_start=classified.tpl_start,
        tpl_nexp=classified.tpl_nexp,
        tpl_expno=classified.tpl_expno,
        lamps=list(classified.lamps),
        channels=sorted(
            {_CHANNEL_NAMES[unit.name] for unit in inspection.extensions if unit.name in _CHANNEL_NAMES and unit.shape}
        ),
        setup=classified.setup,
        cards=dict(classified.cards),
        ingested=now,
    )
    session.add(frame)
    record(session, frame, "frame ingested", " ".join(classified.problems), now=now, tag=classified.tag)
    weigh_again_beside(session, frame)
    _add_to_group(session, frame, grace, now, archived=archived)
    return frame


def _add_to_group(session: Session, frame: Frame, grace: timedelta, now: datetime, *, archived: bool) -> None:
    """Put a new frame into its group, in the place of its older version; the groups concerned are open again.

    Only an archived group stays one where an archived frame comes to it: of a template that ran while its archive was
    taken in, the frames that the telescope sends after that want to be reduced, and with them all others.
    """
    older = session.scalar(
        select(Frame).where(Frame.dp_id == frame.dp_id, Frame.id != frame.id, Frame.superseded_by.is_(None))
    )
    touched = []
    if older is not None:
        older.superseded_by = frame.id
        record(session, older, "frame superseded", f"{frame.dp_id} came with other content.", now=now, by=frame.id)
        if older.group is not None:
            touched.append(older.group)
            older.group = None
    if frame.tag in STEPS_BY_TAG:
        key = group_key(frame.tpl_start, frame.night, frame.setup)
        group = session.scalar(select(Group).where(Group.tag == frame.tag, Group.key == key))
        if group is None:
            state = GroupState.ARCHIVED if archived else GroupState.OPEN
            group = Group(tag=frame.tag, key=key, night=frame.night, mjd=frame.mjd, expected=0, state=state)
            group.last_arrival = group.closes = now
            session.add(group)
        frame.group = group
        touched.append(group)
    for group in dict.fromkeys(touched):
        _reopen(session, group, grace, now, archived=archived)


def _reopen(session: Session, group: Group, grace: timedelta, now: datetime, *, archived: bool) -> None:
    members = [member_of(frame) for frame in group.frames]
    if members:
        group.mjd = middle(members)
        group.night = min(frame.night for frame in group.frames)
    group.expected = announced(members)
    group.last_arrival, group.closes = now, closing_time(members, now, grace)
    session.flush()
    if archived and group.state is GroupState.ARCHIVED:
        group.reason = f"{len(members)} frames of an archive that was taken in; nothing is made of them by itself."
    elif group.state is not GroupState.OPEN:
        move(group, GroupState.OPEN)
        record(session, group, "group reopened", "Its frames changed after it was closed.", now=now)
