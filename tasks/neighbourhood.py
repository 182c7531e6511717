"""What lies near an exposure in the registry: products and groups of raw frames, read once and kept.

The tree of a science frame asks for the same nights again and again. One reading of the days around it answers most of
that; only what is not found there is looked for farther away.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Product, Step
from archive.naming import STATIC_CODES
from archive.select import PAIRED
from archive.setup import Setup, SetupKey
from archive.states import Certification, GroupState, Score
from tasks.cascade import Companion, Need
from tasks.makes import products_where
from tasks.snapshot import CompanionView, ProductView
from tasks.survey import member_of

_AROUND = 2.0  # days to either side that are read at once: the nights from which nearly every calibration comes
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


_Kind = tuple[str, tuple[str | int, ...]]  # PRO.CATG or tag, and the values of keys that are looked for; () for all


class Neighbourhood:
    """The days around a time.

    Parameters
    ----------
    session : Session
    mjd : float
        Middle of what is asked for.
    catgs : collection of str
        PRO.CATG of products from frames that will be asked for.
    tags : collection of str
        Of groups that will be asked for.
    """

    def __init__(self, session: Session, mjd: float, *, catgs: Collection[str], tags: Collection[str]) -> None:
        self._session = session
        self._products: dict[_Kind, _Span[ProductView]] = {}
        self._groups: dict[_Kind, _Span[RawGroup]] = {}
        self._statics: list[_Span[ProductView]] = []
        first, last = mjd - _AROUND, mjd + _AROUND
        views = self._products_where(Product.catg.in_(catgs), first, last) if catgs else []
        for catg in catgs:
            self._products[catg, ()] = _Span(first, last, [view for view in views if view.catg == catg])
        groups = self._groups_where(Group.tag.in_(tags) & Group.mjd.between(first, last)) if tags else []
        for tag in tags:
            self._groups[tag, ()] = _Span(first, last, [group for group in groups if group.tag == tag])

    def products(self, need: Need, setup: Setup, first: float, last: float) -> list[ProductView]:
        """Return the products from frames of this time that may meet a need, whether they may be used or not.

        Farther away only those are read whose setup serves: there may be hundreds of others.
        """
        kind = _kind(self._products, need.catg, need, setup, first, last)
        if kind not in self._products or not self._products[kind].holds(first, last):
            alike = and_(Product.catg == need.catg, *_serving(Product, need, setup))
            self._products[kind] = _Span(first, last, self._products_where(alike, first, last))
        return [view for view in self._products[kind].found if first <= view.candidate.mjd <= last]

    def groups(self, tag: str, need: Need, setup: Setup, first: float, last: float) -> list[RawGroup]:
        """Return the groups of a tag of this time whose product may meet a need, as ``products``."""
        kind = _kind(self._groups, tag, need, setup, first, last)
        if kind not in self._groups or not self._groups[kind].holds(first, last):
            alike = and_(Group.tag == tag, Group.mjd.between(first, last), *_serving(Frame, need, setup))
            self._groups[kind] = _Span(first, last, self._groups_where(alike))
        return [group for group in self._groups[kind].found if first <= group.mjd <= last]

    def group(self, group_id: int) -> RawGroup | None:
        """Return one group; None if frames are still awaited for it, or it is incomplete."""
        return next(iter(self._groups_where(Group.id == group_id)), None)

    def products_of(self, group_id: int, catg: str) -> list[ProductView]:
        """Return the products of a category that were made of a group."""
        made = (Product.catg == catg) & (Step.group_id == group_id)
        return list(products_where(self._session, made).values())

    def statics(self, catg: str, mjd: float) -> list[ProductView]:
        """Return the static calibrations of a type that may be valid at a time and may be used.

        Of each setup these are the newest that have begun, and some that begin soon after.
        """
        if not any(span.holds(mjd, mjd) for span in self._statics):
            self._read_statics(mjd - _AROUND, mjd + _AROUND)
        span = next(span for span in self._statics if span.holds(mjd, mjd))
        return [view for view in span.found if view.catg == catg]

    def companions(self, wanted: Companion, mjd: float) -> Iterator[CompanionView]:
        """Yield the single frames that may go with an exposure."""
        days = wanted.hours / 24
        near = Frame.mjd.between(mjd - days, mjd + days)
        frames = select(Frame).where(Frame.tag == wanted.tag, near, Frame.superseded_by.is_(None))
        for frame in self._session.scalars(frames.order_by(Frame.id)):
            yield CompanionView(tag=wanted.tag, setup=frame.setup, member=member_of(frame))

    def _products_where(self, alike: ColumnElement[bool], first: float, last: float) -> list[ProductView]:
        near = alike & Product.static.is_(False) & Product.mjd.between(first, last)
        return list(products_where(self._session, near).values())

    def _groups_where(self, condition: ColumnElement[bool]) -> list[RawGroup]:
        setup = [getattr(Frame, key) for key in SetupKey]
        rows = self._session.execute(
            select(Group.id, Group.tag, Group.mjd, Group.state, Group.expected, Frame.id, *setup)
            .join(Frame, Frame.group_id == Group.id)
            .where(condition, Group.state.in_(_ENDED), Frame.superseded_by.is_(None))
            .order_by(Group.id, Frame.mjd, Frame.id)
        ).all()
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

    def _read_statics(self, first: float, last: float) -> None:
        alone = (Product.catg != "ASTROMETRY_WCS") & ((Product.catg != "GEOMETRY_TABLE") | Product.step_id.is_(None))
        serves = or_(
            Product.certification == Certification.CERTIFIED,
            (Product.certification == Certification.PROVISIONAL) & (Product.score != Score.RED),
        )
        begun = Product.mjd <= first
        alike = [begun, Product.catg, Product.response, *(getattr(Product, key) for key in SetupKey)]
        place = func.rank().over(partition_by=alike, order_by=Product.mjd.desc())
        ranked = (
            select(Product.id, Product.mjd, place.label("place"))
            .where(Product.static, Product.catg.in_(STATIC_CODES), Product.mjd <= last, serves, or_(alone, PAIRED))
            .subquery()
        )
        wanted = select(ranked.c.id).where(or_(ranked.c.place == 1, ranked.c.mjd > first))
        found = list(products_where(self._session, Product.id.in_(wanted)).values())
        self._statics.append(_Span(first, last, found))


def _kind(known: Mapping[_Kind, _Span[Found]], name: str, need: Need, setup: Setup, first: float, last: float) -> _Kind:
    """Return under what it is kept: with all of its name where that reaches so far, or with those alike."""
    if (name, ()) in known and known[name, ()].holds(first, last):
        return name, ()
    return name, tuple(setup.value(key) for key in need.match)


def _serving(kind: type[Frame | Product], need: Need, setup: Setup) -> list[ColumnElement[bool]]:
    return [getattr(kind, key).in_(setup.serving(key)) for key in need.match]
