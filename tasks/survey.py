"""From the registry to a snapshot: only what is not settled, and what lies within its reach.

What is settled stays unread however much there is of it. A product that is new, or was judged anew, brings the done
steps around it back into the snapshot once; its column ``reviewed`` says whether that has happened.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select
from sqlalchemy.orm import Session, aliased

from archive.models import Frame, Group, Product, Step, Use
from archive.select import PAIRED, candidate_of
from archive.setup import Setup
from archive.states import Certification, GroupState, StepState, feeds
from recipes.muse import Lamp
from tasks.cascade import RECIPES, STEPS, STEPS_BY_NAME, STEPS_BY_TAG, CascadeStep, Tag, steps_of
from tasks.classify import AMBIENT_TEMPERATURE
from tasks.decisions import StepKey
from tasks.engines import versions_of
from tasks.groups import Member
from tasks.plan import needs_of, reach
from tasks.settings import Settings
from tasks.snapshot import CompanionView, GroupView, Policy, ProductView, Snapshot, StepView

_MOST_IDS = 500  # in one query
_MERGED = 30.0  # days; windows closer than this are read as one
_UNSETTLED = (StepState.WAITING, StepState.QUEUED, StepState.RUNNING, StepState.FAILED)


def _runnable(step: CascadeStep) -> bool:
    """Return whether there is a recipe for a step, or for the other one of its pair, which asks after it."""
    pair = step.pair and STEPS_BY_TAG[step.pair.tag].recipe_name
    return step.recipe_name in RECIPES or pair in RECIPES


_RUNNABLE = tuple(step.name for step in STEPS if _runnable(step))
Window = tuple[float, float]


def survey(session: Session, settings: Settings) -> Snapshot:
    """Return what the planner has to know now."""
    policy = replace(policy_of(settings), versions=versions_of(settings))
    group_ids = set(session.scalars(_unsettled_groups()))
    for product in session.scalars(unreviewed()):
        group_ids.update(session.scalars(_groups_around(product, policy, _end_of_validity(session, product))))
    group_ids |= {
        partner
        for ids in _chunks(group_ids)
        for partner in session.scalars(select(Group.partner_id).where(Group.id.in_(ids)))
        if partner is not None
    }
    groups = tuple(groups_of(session, group_ids))
    steps = _steps(session, group_ids)
    uses = _uses(session, steps)
    used = {use.product_id for of_step in uses.values() for use in of_step if use.product_id is not None}
    products = _products(session, groups, policy, used)
    return Snapshot(
        groups=groups,
        steps=tuple(_step(step, uses.get(step.id, ()), products) for step in steps),
        products=tuple(products.values()),
        companions=tuple(_companions(session, groups)),
        policy=policy,
    )


def policy_of(settings: Settings) -> Policy:
    """Return what a plan has to know of the settings."""
    wanted = settings.plan
    return Policy(
        level=wanted.level,
        use_darks=wanted.use_darks,
        remake=wanted.remake,
        lsf_from_arcs=wanted.lsf_from_arcs,
        release_pairs=wanted.release_pairs,
        parameters=settings.recipes,
    )


def unreviewed() -> Select[Product]:
    """Return the query for products that the planner has not weighed yet."""
    return select(Product).where(Product.reviewed.is_(False)).order_by(Product.id)


def _unsettled_groups() -> Select[int]:
    without_step = and_(
        Group.state.in_((GroupState.COMPLETE, GroupState.CLOSED)),
        ~exists().where(Step.group_id == Group.id),
    )
    unsettled = select(Step.group_id).where(Step.state.in_(_UNSETTLED), Step.name.in_(_RUNNABLE))
    return select(Group.id).where(or_(Group.state == GroupState.OPEN, without_step, Group.id.in_(unsettled)))


def _end_of_validity(session: Session, product: Product) -> float:
    """Return when the next static calibration of the same type and setup begins; inf if there is none."""
    later = select(Product).where(Product.catg == product.catg, Product.static, Product.mjd > product.mjd)
    following = session.scalars(later.where(Product.certification != Certification.REJECTED).order_by(Product.mjd))
    usable = (other for other in following if feeds(other.certification, other.score))
    return next((other.mjd for other in usable if other.setup == product.setup), math.inf)


def _groups_around(product: Product, policy: Policy, until: float) -> Select[int]:
    """Return the query for groups whose done steps use a product, came with it, or may rather use it from now on.

    A static one may be used until the next of its kind begins, at ``until``.
    """
    made = aliased(Step)
    affected: list[ColumnElement[bool]] = [
        Step.id.in_(select(Use.step_id).where(Use.product_id == product.id)),
        Step.id == product.step_id,
        Group.partner_id.in_(select(made.group_id).where(made.id == product.step_id)),
    ]
    for step in STEPS:
        for need in step.needs:
            if need.catg == product.catg:
                days = reach(need, policy)
                first, last = (product.mjd, until) if product.static else (product.mjd - days, product.mjd + days)
                affected.append(and_(Step.name == step.name, Group.mjd.between(first, last)))
    return select(Group.id).join(Step, Step.group_id == Group.id).where(Step.state == StepState.DONE, or_(*affected))


def groups_of(session: Session, group_ids: Iterable[int]) -> Iterator[GroupView]:
    """Return groups with the newest versions of their frames."""
    for ids in _chunks(group_ids):
        frames: dict[int, list[Frame]] = {}
        newest = select(Frame).where(Frame.group_id.in_(ids), Frame.superseded_by.is_(None))
        for frame in session.scalars(newest.order_by(Frame.mjd, Frame.id)):
            frames.setdefault(frame.group_id or 0, []).append(frame)
        for group in session.scalars(select(Group).where(Group.id.in_(ids)).order_by(Group.id)):
            here = frames.get(group.id, [])
            yield GroupView(
                group_id=group.id,
                tag=Tag(group.tag),
                state=group.state,
                reason=group.reason,
                night=group.night,
                mjd=group.mjd,
                setup=here[0].setup if here else Setup(),
                closes=group.closes,
                members=tuple(map(member_of, here)),
                partner=group.partner_id,
                released=group.released is not None,
            )


def member_of(frame: Frame) -> Member:
    """Return a frame as groups and plans know it."""
    return Member(
        frame_id=frame.id,
        dp_id=frame.dp_id,
        digest=frame.digest,
        mjd=frame.mjd,
        exptime=frame.exptime,
        announced=frame.tpl_nexp,
        lamps=tuple(Lamp(lamp) for lamp in frame.lamps),
        channels=tuple(frame.channels),
        ambient=frame.cards.get(AMBIENT_TEMPERATURE),
    )


def _steps(session: Session, group_ids: Iterable[int]) -> list[Step]:
    return [step for ids in _chunks(group_ids) for step in session.scalars(select(Step).where(Step.group_id.in_(ids)))]


def _uses(session: Session, steps: Iterable[Step]) -> Mapping[int, Sequence[Use]]:
    """Return what steps used, of those that can be compared with what they would use now."""
    uses: dict[int, list[Use]] = {}
    for ids in _chunks(step.id for step in steps if step.state in (StepState.DONE, StepState.FAILED)):
        for use in session.scalars(select(Use).where(Use.step_id.in_(ids))):
            uses.setdefault(use.step_id, []).append(use)
    return uses


def _step(step: Step, uses: Sequence[Use], products: Mapping[int, ProductView]) -> StepView:
    wanted = STEPS_BY_NAME[step.name]
    return StepView(
        step_id=step.id,
        key=StepKey(step.group_id, step.name, step.sequence),
        state=step.state,
        missing=tuple(step.missing),
        stale=step.stale,
        identity=step.identity,
        frames=frozenset(
            use.frame_id for use in uses if use.frame_id is not None and use.tag in (wanted.raw, *wanted.substitutes)
        ),
        products={use.tag: products[use.product_id] for use in uses if use.product_id is not None},
    )


def _products(
    session: Session, groups: Sequence[GroupView], policy: Policy, used: Collection[int]
) -> dict[int, ProductView]:
    """Return the products that these groups used, made, or may use."""
    queries: list[ColumnElement[bool]] = [Product.id.in_(ids) for ids in _chunks(used)]
    queries += [Step.group_id.in_(ids) for ids in _chunks(group.group_id for group in groups)]
    windows: dict[str, list[Window]] = {}
    for group in groups:
        for step in steps_of(group.tag):
            for need in needs_of(step, group.mjd, policy) if step.name in _RUNNABLE else ():
                days = reach(need, policy)
                windows.setdefault(need.catg, []).append((group.mjd - days, group.mjd + days))
    for catg, spans in windows.items():
        near = (Product.mjd.between(first, last) for first, last in _merged(spans))
        queries.append(and_(Product.catg == catg, or_(Product.static, *near)))
    return {product_id: view for query in queries for product_id, view in products_where(session, query).items()}


def products_where(session: Session, condition: ColumnElement[bool]) -> dict[int, ProductView]:
    """Return the products that meet a condition on Product and the Step that made them, by their id."""
    return {row[0].id: _product(*row[:4], paired=row[4]) for row in session.execute(_PRODUCTS.where(condition))}


_later = aliased(Step)
_PRODUCTS = select(
    Product,
    Step.group_id,
    Step.identity,
    # A later make of the same group replaces this one, unless it came out as the same again and reused it.
    select(_later.identity)
    .where(_later.group_id == Step.group_id, _later.name == Step.name, _later.state == StepState.DONE)
    .order_by(_later.sequence.desc())
    .limit(1)
    .correlate(Step)
    .scalar_subquery(),
    PAIRED,
).outerjoin(Step, Product.step_id == Step.id)


def _product(
    product: Product, group_id: int | None, identity: str | None, newest: str | None, *, paired: bool
) -> ProductView:
    return ProductView(
        candidate=candidate_of(product, paired=paired),
        catg=product.catg,
        night=product.night,
        digest=product.digest,
        group_id=group_id,
        identity=identity,
        current=product.static or identity == newest,  # the later make of a static one has the later letter
    )


def _companions(session: Session, groups: Sequence[GroupView]) -> Iterator[CompanionView]:
    """Return the frames of other tags that may go with these groups."""
    windows: dict[Tag, list[Window]] = {}
    for group in groups:
        for step in steps_of(group.tag):
            for wanted in step.companions if step.name in _RUNNABLE else ():
                days = wanted.hours / 24
                windows.setdefault(wanted.tag, []).append((group.mjd - days, group.mjd + days))
    for tag, spans in windows.items():
        for first, last in _merged(spans):
            near = select(Frame).where(Frame.tag == tag, Frame.mjd.between(first, last), Frame.superseded_by.is_(None))
            for frame in session.scalars(near.order_by(Frame.id)):
                yield CompanionView(tag=tag, setup=frame.setup, member=member_of(frame))


def _merged(windows: Iterable[Window]) -> list[Window]:
    """Join windows that overlap or lie close together."""
    merged: list[Window] = []
    for first, last in sorted(windows):
        if merged and first - merged[-1][1] < _MERGED:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    """Cut a list of ids so that a query does not exceed what a database takes."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), _MOST_IDS):
        yield ordered[start : start + _MOST_IDS]
