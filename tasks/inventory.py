"""What the registry holds of some nights, as plain values for what is checked of them.

The cost is that of the nights asked for, however many there are in the registry: of a type that is valid for longer
the nights of its validity are read too, and before them the last few alone.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Product, Step
from archive.night import mjd_of, night_ends
from archive.select import Candidate, candidates
from archive.setup import Setup, SetupKey
from archive.states import Certification, GroupState, Score, StepState, feeds
from recipes.muse import Lamp
from tasks.calibrationplan import CALIBRATION_PLAN, PlannedCalibration, needs_by_catg
from tasks.cascade import STEPS_BY_TAG, Tag
from tasks.groups import SECONDS_OF_DAY

_UNFINISHED = (StepState.WAITING, StepState.QUEUED, StepState.RUNNING)
_LAST_FEW = 20  # groups and products of a type before its validity, to tell of the last one of each setting


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """A frame that is in no group, or that other frames are taken for; ``mjd`` is its middle."""

    tag: Tag
    night: date
    mjd: float
    setup: Setup


@dataclass(frozen=True, kw_only=True)
class Made:
    """A product; ``step`` is the name of what made it, '' if it came from outside."""

    product_id: int
    name: str
    catg: str
    night: date
    setup: Setup
    certification: Certification
    score: Score
    score_reason: str
    step: str = ""

    @property
    def usable(self) -> bool:
        """False if it was rejected, or is red and not certified."""
        return feeds(self.certification, self.score)

    @property
    def unjudged(self) -> Score:
        """Its score, as long as no verdict on the product has gone beyond it."""
        return self.score if self.certification is Certification.PROVISIONAL else Score.NONE


@dataclass(frozen=True, kw_only=True)
class Make:
    """The latest make of a step."""

    step_id: int
    name: str
    state: StepState
    missing: tuple[str, ...]
    error: str
    error_kind: str


@dataclass(frozen=True, kw_only=True)
class TakenGroup:
    """A group with the newest versions of its frames, the latest make of each of its steps, and what those gave.

    Parameters
    ----------
    received : int
        Frames.
    lamps : mapping of Lamp to int
        Frames that each lit.
    products : tuple of Made
        Of the latest makes; beside one that may not be used also the latest before it that may.
    """

    group_id: int
    tag: Tag
    night: date
    mjd: float
    setup: Setup
    state: GroupState
    reason: str
    received: int
    lamps: Mapping[Lamp, int]
    makes: tuple[Make, ...]
    products: tuple[Made, ...]

    @property
    def make(self) -> Make | None:
        """The latest make of its own step."""
        own = STEPS_BY_TAG[self.tag].name
        return next((make for make in self.makes if make.name == own), None)


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All that the check of some nights depends on beside the time.

    Parameters
    ----------
    exposures : tuple of Exposure
        On the sky, and those that go along with others.
    groups : tuple of TakenGroup
    outside : tuple of Made
        Products whose frames were not reduced here.
    candidates : mapping of PRO.CATG to Candidate
        What the frames of the nights may take.
    """

    exposures: tuple[Exposure, ...] = ()
    groups: tuple[TakenGroup, ...] = ()
    outside: tuple[Made, ...] = ()
    candidates: Mapping[str, Sequence[Candidate]]


def take_stock(session: Session, first: date, last: date, *, level: int) -> Inventory:
    """Read what the registry holds for the nights from the first to the last.

    Parameters
    ----------
    level : int
        The worst association level that is accepted.
    """
    return Inventory(
        exposures=tuple(_exposures(session, first, last)),
        groups=tuple(_groups(session, _group_ids(session, first, last, level))),
        outside=tuple(_outside(session, first, last)),
        candidates=_candidates(session, first, last, level),
    )


def _exposures(session: Session, first: date, last: date) -> Iterator[Exposure]:
    tags = {tag for item in CALIBRATION_PLAN for tag in (*item.serves, *(() if item.step else (item.tag,)))}
    rows = select(Frame.tag, Frame.night, Frame.mjd, Frame.exptime, *(getattr(Frame, key) for key in SetupKey))
    near = Frame.night.between(first, last), Frame.mjd.between(*_times(first, last))
    wanted = rows.where(*near, Frame.tag.in_(tags), Frame.superseded_by.is_(None))
    for tag, night, mjd, exptime, *setup in session.execute(wanted.order_by(Frame.mjd, Frame.id)):
        yield Exposure(tag=Tag(tag), night=night, mjd=mjd + exptime / 2 / SECONDS_OF_DAY, setup=Setup.of(*setup))


def _times(first: date, last: date) -> tuple[float, float]:
    """Return Modified Julian Dates around all of these nights, by which tables have their index."""
    return mjd_of(night_ends(first)) - 2, mjd_of(night_ends(last)) + 1


def _reach(item: PlannedCalibration, first: date, last: date) -> tuple[date, date]:
    """Return the first and the last night of which one of this type fulfils the plan for a night of these."""
    return first - timedelta(days=item.valid_after), last + timedelta(days=item.valid_before)


def _group_ids(session: Session, first: date, last: date, level: int) -> set[int]:
    """Return the groups of the nights and of the validity around them, and those in progress that may yet serve."""
    days = max(_accepted_days(item, level) for item in CALIBRATION_PLAN)
    unfinished = select(Step.group_id).where(Step.state.in_(_UNFINISHED))
    near: list[ColumnElement[bool]] = [
        Group.night.between(first, last),
        and_(
            Group.night.between(first - timedelta(days=days), last + timedelta(days=days)),
            or_(Group.state == GroupState.OPEN, Group.id.in_(unfinished)),
        ),
    ]
    last_few: set[int] = set()
    for item in CALIBRATION_PLAN:
        begin, end = _reach(item, first, last)
        if item.step and (begin, end) != (first, last):
            near.append(and_(Group.tag == item.tag, Group.night.between(begin, end)))
            before = select(Group.id).where(Group.tag == item.tag, Group.night < begin)
            last_few.update(session.scalars(before.order_by(Group.night.desc()).limit(_LAST_FEW)))
    return last_few | {group_id for one in near for group_id in session.scalars(select(Group.id).where(one))}


def _accepted_days(item: PlannedCalibration, level: int) -> float:
    """Return how far away products of a type that come from frames may serve; 0 if none is accepted."""
    needs = [need for catg in item.catgs for need in needs_by_catg(item.serves).get(catg, ())]
    days = [one.days for need in needs for one in need.levels if one.level <= level and math.isfinite(one.days)]
    return max(days, default=0.0)


def _groups(session: Session, ids: Collection[int]) -> Iterator[TakenGroup]:
    setups: dict[int, Setup] = {}
    lamps: dict[int, Counter[Lamp]] = {}
    received: Counter[int] = Counter()
    rows = select(Frame.group_id, Frame.lamps, *(getattr(Frame, key) for key in SetupKey))
    current = rows.where(Frame.group_id.in_(ids), Frame.superseded_by.is_(None))
    for group_id, lit, *setup in session.execute(current.order_by(Frame.mjd, Frame.id)):
        setups.setdefault(group_id, Setup.of(*setup))
        received[group_id] += 1
        lamps.setdefault(group_id, Counter()).update(Lamp(lamp) for lamp in lit)
    makes, identities = _makes(session, ids)
    products = _products(session, ids, identities)
    for group in session.scalars(select(Group).where(Group.id.in_(setups)).order_by(Group.id)):
        yield TakenGroup(
            group_id=group.id,
            tag=Tag(group.tag),
            night=group.night,
            mjd=group.mjd,
            setup=setups[group.id],
            state=group.state,
            reason=group.reason,
            received=received[group.id],
            lamps=lamps[group.id],
            makes=tuple(makes.get(group.id, {}).values()),
            products=tuple(products.get(group.id, ())),
        )


_MAKE = (
    Step.id, Step.group_id, Step.name, Step.state, Step.missing, Step.error, Step.error_kind, Step.identity
)  # fmt: skip
_Identities = dict[tuple[int, str], list[str | None]]


def _makes(session: Session, ids: Collection[int]) -> tuple[dict[int, dict[str, Make]], _Identities]:
    """Return the latest make of each step of groups, and the identities of those that are done, the latest first."""
    makes: dict[int, dict[str, Make]] = {}
    identities: _Identities = {}
    for row in session.execute(select(*_MAKE).where(Step.group_id.in_(ids)).order_by(Step.sequence, Step.id)):
        makes.setdefault(row.group_id, {})[row.name] = Make(
            step_id=row.id,
            name=row.name,
            state=row.state,
            missing=tuple(row.missing),
            error=row.error,
            error_kind=row.error_kind,
        )
        if row.state is StepState.DONE:
            identities.setdefault((row.group_id, row.name), []).insert(0, row.identity)
    return makes, identities


_MADE = (
    Product.id, Product.name, Product.catg, Product.night, Product.certification, Product.score, Product.score_reason,
    *(getattr(Product, key) for key in SetupKey),
)  # fmt: skip


def _products(session: Session, ids: Collection[int], identities: _Identities) -> dict[int, list[Made]]:
    """Return the products of the latest make, and where one may not be used the latest before it that may."""
    rows = select(*_MADE).join(Step).add_columns(Step.group_id, Step.name.label("step"), Step.identity)
    by_kind: dict[tuple[int, str, str], dict[str | None, Made]] = {}
    for row in session.execute(rows.where(Step.group_id.in_(ids)).order_by(Product.id)):
        by_kind.setdefault((row.group_id, row.step, row.catg), {})[row.identity] = _made(row, row.step)
    found: dict[int, list[Made]] = {}
    for (group_id, step, _), made in by_kind.items():
        makes = [made[identity] for identity in identities.get((group_id, step), ()) if identity in made]
        usable = next((product for product in makes if product.usable), None)
        found.setdefault(group_id, []).extend(dict.fromkeys([*makes[:1], *([usable] if usable else [])]))
    return found


def _made(row: Row[Any], step: str = "") -> Made:
    return Made(
        product_id=row.id,
        name=row.name,
        catg=row.catg,
        night=row.night,
        setup=Setup.of(*(getattr(row, key) for key in SetupKey)),
        certification=row.certification,
        score=Score(row.score),
        score_reason=row.score_reason,
        step=step,
    )


def _outside(session: Session, first: date, last: date) -> Iterator[Made]:
    """Return the products from outside that can stand for frames; what comes as static is valid beyond any night."""
    for item in CALIBRATION_PLAN:
        begin, end = _reach(item, first, last)
        for catg in item.catgs:
            static = Product.static.is_(bool(item.step and catg in item.step.statics))
            rows = select(*_MADE).where(Product.catg == catg, Product.step_id.is_(None), static)
            near = rows.where(Product.night.between(begin, end), Product.mjd.between(*_times(begin, end)))
            yield from (_made(row) for row in session.execute(near.order_by(Product.id)))
            if begin != first:
                before = rows.where(Product.night < begin).order_by(Product.mjd.desc()).limit(_LAST_FEW)
                yield from (_made(row) for row in session.execute(before))


def _candidates(session: Session, first: date, last: date, level: int) -> Mapping[str, Sequence[Candidate]]:
    begin, end = mjd_of(night_ends(first)) - 1, mjd_of(night_ends(last))
    middle, half = (begin + end) / 2, (end - begin) / 2
    found: dict[str, list[Candidate]] = {}
    for item in CALIBRATION_PLAN:
        for catg in item.catgs:
            days = math.inf if item.step and catg in item.step.statics else _accepted_days(item, level) + half
            found[catg] = candidates(session, catg, mjd=middle, days=days)
    return found
