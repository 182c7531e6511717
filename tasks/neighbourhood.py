"""What lies near an exposure in the registry: products, groups of raw frames, static ones; read once and kept.

The tree of a science frame asks for the same nights again and again. One reading of the days around it answers most of
that; only what is not found there is looked for farther away.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, and_, false, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from archive.models import Frame, Group, Product, Step
from archive.select import PAIRED, feeding
from archive.setup import Setup, SetupKey
from archive.states import GroupState
from tasks.cascade import Need
from tasks.makes import products_where
from tasks.snapshot import ProductView

# Days to either side that are read at once: the nights from which nearly every calibration comes. What is read farther
# away reaches by as much beyond, since the calibrations of a calibration are asked for around a time of their own.
_AROUND = 2.0
_STATICS_AROUND = 40.0  # days; hardly more begin in a month than the geometry table and what goes with it
_ENDED = (GroupState.COMPLETE, GroupState.CLOSED, GroupState.ARCHIVED)


@dataclass(frozen=True, kw_only=True)
class RawGroup:
    """A group for which no frame is awaited any more.

    Parameters
    ----------
    expected : int
        Frames that its template announced.
    frames : tuple of int
        The newest versions of its frames, by time.
    """

    group_id: int
    tag: str
    mjd: float
    setup: Setup
    state: GroupState
    expected: int
    frames: tuple[int, ...]


Found = TypeVar("Found")


@dataclass(frozen=True)
class _Span(Generic[Found]):
    """What lies between two times, both included."""

    first: float
    last: float
    found: Sequence[Found]

    def holds(self, first: float, last: float) -> bool:
        return self.first <= first and last <= self.last


# PRO.CATG or tag, and the keys that must serve, with the values that are to be served.
_Kind = tuple[str, tuple[tuple[SetupKey, str | int], ...]]


class Neighbourhood:
    """The days around a time.

    Parameters
    ----------
    session : Session
    mjd, setup : float, Setup
        Middle and setup of what is asked for.
    needs : collection of Need
        What will be asked for.
    tags : mapping of PRO.CATG to tags
        Of the raw frames that products which are not static are made of.
    raw : bool
        Raw frames will be asked for too.
    """

    def __init__(
        self,
        session: Session,
        mjd: float,
        setup: Setup,
        *,
        needs: Collection[Need],
        tags: Mapping[str, Collection[str]],
        raw: bool,
    ) -> None:
        self._session, self._mjd = session, mjd
        needs = [need for need in needs if need.catg in tags]
        first, last = mjd - _AROUND, mjd + _AROUND
        by_catg = {_kind(need.catg, need, setup): need for need in needs}
        views = self._products_where(_any(Product.catg, Product, by_catg, setup), first, last)
        self._products = {
            kind: _Span(first, last, [view for view in views if _serves(kind, view.catg, view.candidate.setup, setup)])
            for kind in by_catg
        }
        by_tag = {_kind(tag, need, setup): need for need in needs for tag in tags[need.catg]} if raw else {}
        near = Group.mjd.between(first, last) & _any(Group.tag, Frame, by_tag, setup)
        groups = self._groups_where(near) if by_tag else []
        self._groups = {
            kind: _Span(first, last, [group for group in groups if _serves(kind, group.tag, group.setup, setup)])
            for kind in by_tag
        }

    def reach(self, mjd: float) -> float:
        """Return how many days around a time are read already; negative where it lies outside of them."""
        return _AROUND - abs(mjd - self._mjd)

    def products(self, need: Need, setup: Setup, first: float, last: float) -> list[ProductView]:
        """Return the products from frames of this time whose setup meets a need, whether they may be used or not."""
        kind = _kind(need.catg, need, setup)
        if kind not in self._products or not self._products[kind].holds(first, last):
            alike = _any(Product.catg, Product, {kind: need}, setup)
            earliest, latest = first - _AROUND, last + _AROUND
            self._products[kind] = _Span(earliest, latest, self._products_where(alike, earliest, latest))
        return [view for view in self._products[kind].found if first <= view.candidate.mjd <= last]

    def groups(self, tag: str, need: Need, setup: Setup, first: float, last: float) -> list[RawGroup]:
        """Return the groups of a tag of this time whose setup meets a need."""
        kind = _kind(tag, need, setup)
        if kind not in self._groups or not self._groups[kind].holds(first, last):
            earliest, latest = first - _AROUND, last + _AROUND
            alike = Group.mjd.between(earliest, latest) & _any(Group.tag, Frame, {kind: need}, setup)
            self._groups[kind] = _Span(earliest, latest, self._groups_where(alike))
        return [group for group in self._groups[kind].found if first <= group.mjd <= last]

    def group(self, group_id: int) -> RawGroup | None:
        """Return one group; None if frames are still awaited for it, or it is incomplete."""
        return next(iter(self._groups_where(Group.id == group_id)), None)

    def products_of(self, group_id: int, catg: str) -> list[ProductView]:
        """Return the products of a category that were made of a group."""
        made = (Product.catg == catg) & (Step.group_id == group_id)
        return list(products_where(self._session, made).values())

    def _products_where(self, alike: ColumnElement[bool], first: float, last: float) -> list[ProductView]:
        near = alike & Product.static.is_(False) & Product.mjd.between(first, last)
        return list(products_where(self._session, near).values())

    def _groups_where(self, condition: ColumnElement[bool]) -> list[RawGroup]:
        setup = [getattr(Frame, key) for key in SetupKey]
        found = self._session.execute(
            select(Group.id, Group.tag, Group.mjd, Group.state, Group.expected, Frame.id, *setup)
            .join(Frame, Frame.group_id == Group.id)
            .where(condition, Frame.superseded_by.is_(None))
            .order_by(Group.id, Frame.mjd, Frame.id)
        )
        # Nearly all have ended: asked for it, SQLite would go through all by their state.
        rows = [row for row in found if row[3] in _ENDED]
        frames: dict[int, list[int]] = {}
        for row in rows:
            frames.setdefault(row[0], []).append(row[5])
        made = {
            row[0]: RawGroup(
                group_id=row[0],
                tag=row[1],
                mjd=row[2],
                setup=Setup.of(*row[6:]),
                state=row[3],
                expected=row[4],
                frames=tuple(frames[row[0]]),
            )
            for row in reversed(rows)  # so that the first frame of a group gives its setup
        }
        return list(made.values())


class Statics:
    """The static calibrations of a time, which serve for long: one reading answers for all nights of a tree.

    Parameters
    ----------
    session : Session
    needs : collection of Need
        What will be asked for; those that nothing static meets are left alone.
    """

    def __init__(self, session: Session, needs: Collection[Need]) -> None:
        self._session = session
        self._needs = [need for need in needs if need.beside_statics]
        self._read: dict[_Kind, list[_Span[ProductView]]] = {}

    def near(self, need: Need, setup: Setup, mjd: float) -> Sequence[ProductView]:
        """Return the static calibrations that may meet a need at a time: their setup serves, and they may be used.

        Of each setup these are the newest that have begun, and some that begin soon after.
        """
        kind = _kind(need.catg, need, setup)
        if not any(span.holds(mjd, mjd) for span in self._read.get(kind, ())):
            self._read_around(setup, mjd - _STATICS_AROUND, mjd + _STATICS_AROUND)
        return next(span.found for span in self._read[kind] if span.holds(mjd, mjd))

    def _read_around(self, setup: Setup, first: float, last: float) -> None:
        """Read all that may be asked for with this setup at once."""
        kinds = {_kind(need.catg, need, setup): need for need in self._needs}
        alone = (Product.catg != "ASTROMETRY_WCS") & ((Product.catg != "GEOMETRY_TABLE") | Product.step_id.is_(None))
        begun = Product.mjd <= first
        alike = [begun, Product.catg, Product.response, *(getattr(Product, key) for key in SetupKey)]
        place = func.rank().over(partition_by=alike, order_by=Product.mjd.desc())
        ranked = (
            select(Product.id, Product.mjd, place.label("place"))
            .where(Product.static, Product.mjd <= last, _any(Product.catg, Product, kinds, setup))
            .where(feeding(Product), or_(alone, PAIRED))
            .subquery()
        )
        wanted = select(ranked.c.id).where(or_(ranked.c.place == 1, ranked.c.mjd > first))
        views = products_where(self._session, Product.id.in_(wanted)).values()
        for kind in kinds:
            found = [view for view in views if _serves(kind, view.catg, view.candidate.setup, setup)]
            self._read.setdefault(kind, []).append(_Span(first, last, found))


def _kind(name: str, need: Need, setup: Setup) -> _Kind:
    return name, tuple((key, setup.value(key)) for key in need.match)


def _serves(kind: _Kind, name: str, found: Setup, wanted: Setup) -> bool:
    return kind[0] == name and all(wanted.served_by(found, key) for key, _ in kind[1])


def _any(
    name: InstrumentedAttribute[str], kind: type[Frame | Product], needs: Mapping[_Kind, Need], setup: Setup
) -> ColumnElement[bool]:
    """Return the condition that a row is of one of these names, and that its setup serves the need of that."""
    serving = (
        and_(name == wanted, *(getattr(kind, key).in_(setup.serving(key)) for key in need.match))
        for (wanted, _), need in needs.items()
    )
    # The names stand apart too, for the index on name and time.
    return and_(name.in_(sorted({wanted for wanted, _ in needs})), or_(false(), *serving))
