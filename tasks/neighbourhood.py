"""What lies near an exposure in the registry: products and groups of raw frames, read once and kept.

The tree of a science frame asks for the same nights again and again. One reading of the days around it answers most of
that; only what is not found there is looked for farther away.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Product, Step
from archive.naming import STATIC_CODES
from archive.select import PAIRED
from archive.setup import Setup, SetupKey
from archive.states import Certification, GroupState, Score
from tasks.cascade import Companion
from tasks.snapshot import CompanionView, ProductView
from tasks.survey import member_of, products_where

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
        self._products: dict[str, _Span[ProductView]] = {}
        self._groups: dict[str, _Span[RawGroup]] = {}
        self._statics: list[_Span[ProductView]] = []
        self._read_products(catgs, mjd - _AROUND, mjd + _AROUND)
        self._read_groups(tags, mjd - _AROUND, mjd + _AROUND)

    def products(self, catg: str, first: float, last: float) -> list[ProductView]:
        """Return the products of a category from frames of this time, whether they may be used or not."""
        if catg not in self._products or not self._products[catg].holds(first, last):
            self._read_products((catg,), first, last)
        return [view for view in self._products[catg].found if first <= view.candidate.mjd <= last]

    def groups(self, tag: str, first: float, last: float) -> list[RawGroup]:
        """Return the groups of a tag of this time."""
        if tag not in self._groups or not self._groups[tag].holds(first, last):
            self._read_groups((tag,), first, last)
        return [group for group in self._groups[tag].found if first <= group.mjd <= last]

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

    def _read_products(self, catgs: Collection[str], first: float, last: float) -> None:
        near = Product.catg.in_(catgs) & Product.static.is_(False) & Product.mjd.between(first, last)
        views = products_where(self._session, near).values() if catgs else ()
        for catg in catgs:
            self._products[catg] = _Span(first, last, [view for view in views if view.catg == catg])

    def _read_groups(self, tags: Collection[str], first: float, last: float) -> None:
        groups = self._groups_where(Group.tag.in_(tags) & Group.mjd.between(first, last)) if tags else ()
        for tag in tags:
            self._groups[tag] = _Span(first, last, [group for group in groups if group.tag == tag])

    def _groups_where(self, condition: ColumnElement[bool]) -> Collection[RawGroup]:
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
        return {
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
        }.values()

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
