"""From the registry to a snapshot: only what is not settled, and what lies within its reach.

What is settled stays unread however much there is of it. A done step comes into the snapshot to be weighed when
``weighed`` is not the digest of the method that would make it now: that is so of every step once it is done, after a
change of recipe or parameters, and where ``review`` or one of the functions beside it emptied the column because
something that it may take is new or was judged anew. So many at a time, in the order of the cascade.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, Select, and_, case, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from archive.models import Frame, Group, Product, Step, Use
from archive.select import Candidate, sets_of
from archive.setup import Setup
from archive.states import Certification, GroupState, StepState, feeds
from recipes.muse import Lamp
from tasks.cascade import RECIPES, STEPS, STEPS_BY_NAME, STEPS_BY_TAG, CascadeStep, Companion, Tag, steps_of
from tasks.classify import AMBIENT_TEMPERATURE
from tasks.decisions import Method, StepKey
from tasks.engines import made_elsewhere, versions_of
from tasks.groups import Member
from tasks.makes import chunks, products_where
from tasks.plan import needs_of, reach
from tasks.settings import Settings
from tasks.snapshot import CompanionView, GroupView, Policy, ProductView, Snapshot, StepView

_MOST_WEIGHED = 200  # done steps in one plan, so that its transaction stays short
_MOST_REVIEWED = 500  # products at once, likewise
_EXPOSED = 1.0 / 24  # days; a frame that goes along is not exposed longer, from its begin to its middle
_MERGED = 30.0  # days; windows closer than this are read as one
_maker = aliased(Step)
_UNSETTLED = (StepState.WAITING, StepState.QUEUED, StepState.RUNNING, StepState.FAILED)


def _runnable(step: CascadeStep) -> bool:
    """Return whether there is a recipe for a step, or for the other one of its pair, which asks after it."""
    pair = step.pair and STEPS_BY_TAG[step.pair.tag].recipe_name
    return step.recipe_name in RECIPES or pair in RECIPES


_RUNNABLE = tuple(step.name for step in STEPS if _runnable(step))
Window = tuple[float, float]
_WIDEST = Policy(level=max(level.level for step in STEPS for need in step.needs for level in need.levels))


def survey(session: Session, settings: Settings) -> Snapshot:
    """Return what the planner has to know now."""
    policy = _planning(settings)
    group_ids = set(session.scalars(_unsettled_groups()))
    weighed = {}
    for step_id, group_id, digest in _unweighed(session, policy):
        weighed[step_id] = digest
        group_ids.add(group_id)
    group_ids |= {
        partner
        for ids in chunks(group_ids)
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
        products=tuple(_sets(products)),
        companions=tuple(_companions(session, groups)),
        policy=policy,
        weighed=weighed,
    )


def policy_of(settings: Settings) -> Policy:
    """Return what a plan has to know of the settings."""
    wanted = settings.plan
    return Policy(
        mode=wanted.mode,
        level=wanted.level,
        use_darks=wanted.use_darks,
        remake=wanted.remade,
        lsf_from_arcs=wanted.lsf_from_arcs,
        release_pairs=wanted.release_pairs,
        parameters=settings.recipes,
    )


def _planning(settings: Settings) -> Policy:
    """Return what a plan has to know of the settings, with the versions of ESO's recipes that make steps."""
    return replace(policy_of(settings), versions=versions_of(settings))


def _unweighed(session: Session, policy: Policy) -> Iterator[tuple[int, int, str]]:
    """Yield done steps that are to be weighed, with their groups and the digest of the method that would make them.

    Those come first that others are made of, so that no step is made again before what it takes is.
    """
    digests = {step.name: policy.method_of(step).digest for step in STEPS if step.recipe_name in RECIPES}
    other = (
        and_(Step.name == name, or_(Step.weighed < digest, Step.weighed > digest))  # != would not go by the index
        for name, digest in digests.items()
    )
    place = case({name: number for number, name in enumerate(digests)}, value=Step.name)
    wanted = select(Step.id, Step.group_id, Step.name).where(Step.state == StepState.DONE, or_(*other))
    for step_id, group_id, name in session.execute(wanted.order_by(place, Step.id).limit(_MOST_WEIGHED)):
        yield step_id, group_id, digests[name]


def unsettled(session: Session, settings: Settings) -> bool:
    """Return whether done steps are to be weighed, or products wait for ``review``."""
    unreviewed = session.scalar(select(Product.id).where(Product.reviewed.is_(False)).limit(1))
    return unreviewed is not None or next(_unweighed(session, _planning(settings)), None) is not None


def review(session: Session, settings: Settings) -> None:
    """Have the done steps weighed that a product concerns which is new, or was judged anew."""
    policy = policy_of(settings)
    waiting = select(Product).where(Product.reviewed.is_(False)).order_by(Product.id).limit(_MOST_REVIEWED)
    for product in session.scalars(waiting).all():
        for steps in _steps_around(product, policy, _end_of_validity(session, product)):
            _weigh_again(session, Step.id.in_(steps))
        product.reviewed = True


def weigh_users_again(session: Session, step: Step) -> None:
    """Have the done steps weighed that use what any make of a step gave."""
    made = select(Use.step_id).join(Product, Use.product_id == Product.id).join(_maker, Product.step_id == _maker.id)
    _weigh_again(session, Step.id.in_(made.where(_maker.group_id == step.group_id, _maker.name == step.name)))


def weigh_again_beside(session: Session, frame: Frame) -> None:
    """Have the done steps weighed that may take a new raw frame along."""
    for step in STEPS:
        for wanted in step.companions:
            if wanted.tag == frame.tag:
                days = wanted.hours / 24
                near = select(Group.id).where(Group.mjd.between(frame.mjd - days, frame.mjd + days + _EXPOSED))
                _weigh_again(session, and_(Step.name == step.name, Step.group_id.in_(near)))


def _weigh_again(session: Session, condition: ColumnElement[bool]) -> None:
    session.execute(
        update(Step).where(Step.state == StepState.DONE, Step.weighed.is_not(None), condition).values(weighed=""),
        execution_options={"synchronize_session": False},
    )


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


def _steps_around(product: Product, policy: Policy, until: float) -> Iterator[Select[int]]:
    """Yield queries for steps that use a product, came with it, or may rather use it from now on.

    A static one may be used until the next of its kind begins, at ``until``. What was made of a product may serve in
    the place of a later make, as long as the product may be used: who uses that is concerned too.
    """
    users = select(Use.step_id).where(Use.product_id == product.id)
    yield users
    yield select(Use.step_id).join(Product, Use.product_id == Product.id).where(Product.step_id.in_(users))
    if product.step_id is not None:
        yield select(Step.id).where(Step.id == product.step_id)
        made = select(_maker.group_id).where(_maker.id == product.step_id)
        yield select(Step.id).join(Group, Step.group_id == Group.id).where(Group.partner_id.in_(made))
    for step in STEPS:
        for need in step.needs:
            if need.catg == product.catg:
                days = reach(need, policy)
                first, last = (product.mjd, until) if product.static else (product.mjd - days, product.mjd + days)
                near = select(Step.id).join(Group, Step.group_id == Group.id).where(Step.name == step.name)
                yield (
                    near.where(Group.mjd >= first, Group.mjd <= last)
                    if math.isfinite(last)
                    else near.where(Group.mjd >= first)
                )


def concerns_done(session: Session, product: Product) -> bool:
    """Return whether a done step uses a product from frames, or may rather use it from now on.

    Of one that concerns none the planner need not know: an archive of a hundred thousand may come at once.
    """
    weighed = select(Step.id).where(Step.state == StepState.DONE, Step.weighed.is_not(None)).limit(1)
    around = _steps_around(product, _WIDEST, math.inf)
    return any(session.scalar(weighed.where(Step.id.in_(steps))) is not None for steps in around)


def groups_of(session: Session, group_ids: Iterable[int]) -> Iterator[GroupView]:
    """Return groups with the newest versions of their frames."""
    for ids in chunks(group_ids):
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
    return [step for ids in chunks(group_ids) for step in session.scalars(select(Step).where(Step.group_id.in_(ids)))]


def _uses(session: Session, steps: Iterable[Step]) -> Mapping[int, Sequence[Use]]:
    """Return what steps used, of those that can be compared with what they would use now."""
    uses: dict[int, list[Use]] = {}
    for ids in chunks(step.id for step in steps if step.state in (StepState.DONE, StepState.FAILED)):
        for use in session.scalars(select(Use).where(Use.step_id.in_(ids))):
            uses.setdefault(use.step_id, []).append(use)
    return uses


def _step(step: Step, uses: Sequence[Use], products: Mapping[int, ProductView]) -> StepView:
    wanted = STEPS_BY_NAME[step.name]
    beside = [companion.tag for companion in wanted.companions]
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
        products={
            tag: joined([products[use.product_id] for use in uses if use.tag == tag and use.product_id is not None])
            for tag in {use.tag for use in uses if use.product_id is not None}
        },
        companions={Tag(use.tag): use.frame_id for use in uses if use.frame_id is not None and use.tag in beside},
        method=Method(step.recipe, step.recipe_version, step.parameters) if step.state is StepState.DONE else None,
        elsewhere=made_elsewhere(step.recipe_version),
    )


def _products(
    session: Session, groups: Sequence[GroupView], policy: Policy, used: Collection[int]
) -> dict[int, ProductView]:
    """Return the products that these groups used, made, or may use."""
    queries: list[ColumnElement[bool]] = [Product.id.in_(ids) for ids in chunks(used)]
    queries += [Step.group_id.in_(ids) for ids in chunks(group.group_id for group in groups)]
    windows: dict[str, list[Window]] = {}
    for group in groups:
        for step in steps_of(group.tag):
            for need in needs_of(step, group.mjd, policy) if step.name in _RUNNABLE else ():
                days = reach(need, policy)
                windows.setdefault(need.catg, []).append((group.mjd - days, group.mjd + days))
    for catg, spans in windows.items():
        near = (Product.mjd.between(first, last) for first, last in _merged(spans))
        queries.append(and_(Product.catg == catg, or_(Product.static, *near)))
    found = (products_where(session, query, certified=policy.certified) for query in queries)
    return {product_id: view for views in found for product_id, view in views.items()}


def _sets(views: Mapping[int, ProductView]) -> Iterator[ProductView]:
    """Yield the products, those that come as one file a channel as one."""
    by_type: dict[str, list[Candidate]] = {}
    for view in views.values():
        by_type.setdefault(view.catg, []).append(view.candidate)
    for candidates in by_type.values():
        for files in sets_of(candidates):
            yield joined([views[file.product_id] for file in files if file.product_id is not None])


def joined(views: Sequence[ProductView]) -> ProductView:
    """Return one view of the files of a set: the first of them stands for all."""
    first, *others = sorted(views, key=lambda view: view.product_id or 0)
    return replace(first, others=tuple(others))


def companions_near(session: Session, wanted: Companion, mjd: float) -> Iterator[CompanionView]:
    """Yield the single frames that may go with an exposure of this time."""
    days = wanted.hours / 24
    yield from _frames_between(session, wanted.tag, mjd - days - _EXPOSED, mjd + days)


def _frames_between(session: Session, tag: Tag, first: float, last: float) -> Iterator[CompanionView]:
    near = select(Frame).where(Frame.tag == tag, Frame.mjd.between(first, last), Frame.superseded_by.is_(None))
    for frame in session.scalars(near.order_by(Frame.id)):
        yield CompanionView(tag=tag, setup=frame.setup, member=member_of(frame))


def _companions(session: Session, groups: Sequence[GroupView]) -> Iterator[CompanionView]:
    """Return the frames of other tags that may go with these groups."""
    windows: dict[Tag, list[Window]] = {}
    for group in groups:
        for step in steps_of(group.tag):
            for wanted in step.companions if step.name in _RUNNABLE else ():
                days = wanted.hours / 24
                windows.setdefault(wanted.tag, []).append((group.mjd - days - _EXPOSED, group.mjd + days))
    for tag, spans in windows.items():
        for first, last in _merged(spans):
            yield from _frames_between(session, tag, first, last)


def _merged(windows: Iterable[Window]) -> list[Window]:
    """Join windows that overlap or lie close together."""
    merged: list[Window] = []
    for first, last in sorted(windows):
        if merged and first - merged[-1][1] < _MERGED:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
