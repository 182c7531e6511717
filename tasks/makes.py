"""Products as the planner and the tree of calibrations see them, and which make of a step is the current one.

A step that is made again gives products of the same group again. Which of them counts is found for all products of a
question at once: few groups were made more than once, and only those are looked at closely.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.orm import Session

from archive.models import Product, Step, Use
from archive.select import CANDIDATE_COLUMNS, PAIRED, candidate_of, feeding
from archive.states import Certification, StepState
from tasks.snapshot import ProductView

_MOST_IDS = 500  # in one query
_GroupStep = tuple[int, str]  # a group, and the name of a step on it
_PRODUCTS: Select[Any] = select(
    *CANDIDATE_COLUMNS,
    Product.night,
    Product.digest,
    Step.group_id,
    Step.name.label("step_name"),
    Step.identity,
    PAIRED.label("paired"),
).outerjoin(Step, Product.step_id == Step.id)


@dataclass(frozen=True)
class _Make:
    """A step that is done."""

    step_id: int
    identity: str | None
    stale: str


@dataclass(frozen=True)
class _Makes:
    """The makes of steps, in order.

    Parameters
    ----------
    done : mapping
    gave : set of tuple
        Group, step, identity and PRO.CATG of what may be used, of steps with several makes.
    spoiled : set of int
        Of these steps those of which an input may no longer be used, but for the latest make.
    """

    done: Mapping[_GroupStep, Sequence[_Make]]
    gave: frozenset[tuple[int, str, str | None, str]] = field(default_factory=frozenset)
    spoiled: frozenset[int] = field(default_factory=frozenset)

    def current(self, made: _GroupStep, catg: str) -> str | None:
        """Return the identity of the make whose products of a category count.

        Of several makes of the same group it is the latest that may be used: it came out well, and nothing that it
        was made of may no longer be used, where there is a later make. If none may be used it is the latest. A make
        that came out as an earlier one again stands for that.
        """
        done = self.done.get(made, ())
        for make in reversed(done if len(done) > 1 else ()):
            sound = make is done[-1] or make.step_id not in self.spoiled
            if sound and (*made, make.identity, catg) in self.gave:
                return make.identity
        return done[-1].identity if done else None

    def stale(self, made: _GroupStep) -> bool:
        """Return whether the latest make is stale."""
        return made in self.done and bool(self.done[made][-1].stale)


def products_where(
    session: Session, condition: ColumnElement[bool], *, certified: bool = False
) -> dict[int, ProductView]:
    """Return the products that meet a condition on Product and the Step that made them, by their id.

    Parameters
    ----------
    certified : bool
        Only certified ones may be used, which decides which make of a step is the current one.
    """
    rows = session.execute(_PRODUCTS.where(condition)).all()
    makes = _read_makes(session, {row.group_id for row in rows if row.group_id is not None}, certified=certified)
    return {row.id: _view(row, makes) for row in rows}


def chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    """Cut a list of ids so that a query does not exceed what a database takes."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _MOST_IDS):
        yield ordered[start : start + _MOST_IDS]


def _read_makes(session: Session, group_ids: Iterable[int], *, certified: bool) -> _Makes:
    done: dict[_GroupStep, list[_Make]] = defaultdict(list)
    columns = (Step.id, Step.group_id, Step.name, Step.identity, Step.stale, Step.state)
    for ids in chunks(group_ids):
        for row in session.execute(select(*columns).where(Step.group_id.in_(ids)).order_by(Step.sequence)):
            if row.state is StepState.DONE:  # nearly all are: asked for it, SQLite would go through all by their state
                done[row.group_id, row.name].append(_Make(row.id, row.identity, row.stale))
    repeated = {made for made, makes in done.items() if len(makes) > 1}
    usable = Product.certification == Certification.CERTIFIED if certified else feeding(Product)
    given = select(Step.group_id, Step.name, Step.identity, Product.catg).join(Product, Product.step_id == Step.id)
    gave = [
        (group_id, name, identity, catg)
        for ids in chunks({group_id for group_id, _ in repeated})
        for group_id, name, identity, catg in session.execute(given.where(Step.group_id.in_(ids), usable))
    ]
    taken = select(Use.step_id).join(Product, Use.product_id == Product.id).where(~feeding(Product)).distinct()
    spoiled = [
        step_id
        for ids in chunks(make.step_id for made in repeated for make in done[made][:-1])
        for step_id in session.scalars(taken.where(Use.step_id.in_(ids)))
    ]
    return _Makes(done, frozenset(gave), frozenset(spoiled))


def _view(row: Row[Any], makes: _Makes) -> ProductView:
    made = None if row.group_id is None else (row.group_id, row.step_name)
    return ProductView(
        candidate=candidate_of(row, paired=row.paired),
        catg=row.catg,
        night=row.night,
        digest=row.digest,
        group_id=row.group_id,
        step_name=row.step_name,
        identity=row.identity,
        # The later make of a static one has the later letter.
        current=row.static or made is None or row.identity == makes.current(made, row.catg),
        stale=made is not None and makes.stale(made),
    )
