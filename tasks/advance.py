"""Carrying out what the planner decided: one transaction, rows only. Messages are sent from these rows afterwards."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Group, Part, Product, Step, Use
from archive.registry import Registry
from archive.states import PartState, StepState, move
from tasks.decisions import Couple, Decision, Input, Make, Mark, Order, Queue, Reuse, Settle, StepKey, Wait
from tasks.failures import FINISH
from tasks.plan import plan
from tasks.settings import Settings
from tasks.survey import review, survey, unsettled, weigh_users_again

# In one transaction, so that a backlog does not keep the workers from the registry; what is left comes with the next.
_MOST_DECISIONS = 100
_MOST_TURNS = 20  # of one call that may be all about steps that were done long ago

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Advanced:
    """How many decisions of each kind were carried out, by the name of the kind in lower case."""

    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def queued(self) -> int:
        """Steps whose parts may now be claimed."""
        return self.counts.get("queue", 0)


def advance(registry: Registry, settings: Settings, now: datetime) -> Advanced:
    """Plan and carry out the plan. Nothing is written, and nobody is locked out, if there is nothing to do.

    After a change that concerns a great part of the archive some is left for the next call.
    """
    with registry.read() as session:
        if not unsettled(session, settings) and not plan(survey(session, settings), now):
            return Advanced()
    counts: Counter[str] = Counter()
    turns, finished = 0, False
    while not finished:
        with registry.begin() as session:
            review(session, settings)
            snapshot = survey(session, settings)
            decisions = plan(snapshot, now)
            whole = len(decisions) <= _MOST_DECISIONS
            if whole:
                _note_weighed(session, snapshot.weighed)
            for decision in decisions[:_MOST_DECISIONS]:
                _carry_out(session, decision, now)
                counts[type(decision).__name__.lower()] += 1
            turns += whole
            finished = whole and (turns == _MOST_TURNS or not unsettled(session, settings))
    if counts:
        log.info("plan carried out", **counts)
    return Advanced(dict(counts))


def _note_weighed(session: Session, weighed: Mapping[int, str]) -> None:
    """Note that steps were held against what would be made now; what is decided may have some weighed again."""
    for digest in set(weighed.values()):
        ids = [step_id for step_id, method in weighed.items() if method == digest]
        session.execute(
            update(Step).where(Step.id.in_(ids)).values(weighed=digest),
            execution_options={"synchronize_session": False},
        )


def _carry_out(session: Session, decision: Decision, now: datetime) -> None:
    match decision:
        case Settle() | Couple():
            _change_group(session, session.get_one(Group, decision.group_id), decision, now)
        case Make(key=key, why=why, priority=priority):
            make_step(session, key, priority=priority, why=why, now=now)
        case Wait(key=key, missing=missing):
            step = _step(session, key)
            step.missing = list(missing)
            record(session, step, "step waits", " ".join(missing), now=now)
        case Queue(key=key, order=order):
            _queue(session, _step(session, key), order, now)
        case Reuse(key=key, order=order, done=done):
            _reuse(session, _step(session, key), order, _step(session, done), now)
        case Mark(step_id=step_id, stale=stale):
            step = session.get_one(Step, step_id)
            if bool(step.stale) is not bool(stale):
                weigh_users_again(session, step)
            step.stale = stale
            record(session, step, "step stale" if stale else "step no longer stale", stale, now=now)


def _change_group(session: Session, group: Group, decision: Settle | Couple, now: datetime) -> None:
    match decision:
        case Settle(state=state, reason=reason):
            group.reason = reason
            if group.state is not state:
                move(group, state)
                record(session, group, f"group {state}", reason, now=now)
        case Couple(partner=partner, released=released):
            group.partner_id, group.released = partner, now if released else None
            what = "group paired" if partner else "group without partner"
            record(session, group, what, now=now, partner=partner, released=released)


def make_step(session: Session, key: StepKey, *, priority: int, why: str, now: datetime) -> Step:
    """Add a step that waits for the planner."""
    step = Step(state=StepState.WAITING, priority=priority, created=now, **key._asdict())
    session.add(step)
    record(session, step, "step made", why, now=now)
    return step


def _step(session: Session, key: StepKey) -> Step:
    of_key = select(Step).where(Step.group_id == key.group_id, Step.name == key.name, Step.sequence == key.sequence)
    return session.scalars(of_key).one()


def _fix(session: Session, step: Step, order: Order) -> None:
    """Write down recipe, parameters and inputs of a step."""
    step.identity = order.identity
    method = order.method
    step.recipe, step.recipe_version, step.parameters = method.recipe, method.version, dict(method.parameters)
    step.missing, step.warnings = [], list(order.warnings)
    for use in step.uses:
        session.delete(use)
    session.flush()
    session.expire(step, ["uses"])
    session.add_all(_use(step, item) for item in order.inputs)


def _use(step: Step, item: Input) -> Use:
    return Use(
        step=step,
        tag=item.tag,
        frame_id=item.frame_id,
        product_id=item.product_id,
        level=item.level,
        days=item.days,
        certification=item.certification,
        differences={key: list(values) for key, values in item.differences.items()},
    )


def _queue(session: Session, step: Step, order: Order, now: datetime) -> None:
    """Let the parts of a step be claimed.

    A step that was queued before has its parts already. Channels that are done stay so if nothing about the step has
    changed. The attempt of a part is never set back: a worker that still has an earlier one may not end it.
    """
    if {part.channel for part in step.parts} - {*order.channels, FINISH}:
        step = _start_again(session, step, now)
    same = step.identity == order.identity
    _fix(session, step, order)
    parts = {part.channel: part for part in step.parts}
    for channel in (*order.channels, FINISH):
        part = parts.get(channel)
        if part is None:
            session.add(Part(step=step, channel=channel, state=PartState.QUEUED))
            continue
        if part.state is PartState.DONE and same and channel != FINISH:
            continue
        if part.state is not PartState.QUEUED:
            move(part, PartState.QUEUED)
        part.sent = part.not_before = part.started = part.ended = part.lease_until = None
        part.crashes = part.retries = 0
        part.error = part.error_kind = part.worker = ""
        if not same:
            part.outcome = {}
    step.queued, step.started, step.ended, step.error, step.error_kind = now, None, None, "", ""
    move(step, StepState.QUEUED)
    record(session, step, "step queued", now=now, identity=order.identity, channels=list(order.channels))


def _reuse(session: Session, step: Step, order: Order, made: Step, now: datetime) -> None:
    """End a step without work; what the other one made of the same inputs serves again in the place of later makes."""
    _fix(session, step, order)
    for part in step.parts:
        if part.state in (PartState.QUEUED, PartState.FAILED):
            move(part, PartState.CANCELLED)
    step.ended = now
    move(step, StepState.DONE)
    alike = select(Step.id).where(Step.group_id == step.group_id, Step.name == step.name)
    for product in session.scalars(select(Product).where(Product.step_id.in_(alike))):
        product.reviewed = False
    record(session, step, "step reused", f"Step {made.id} had the same inputs.", now=now, step=made.id)


def _start_again(session: Session, step: Step, now: datetime) -> Step:
    """Give up a step that has parts of channels which its frames no longer have; return its next make."""
    why = "Its frames no longer have every channel that it was begun with."
    move(step, StepState.CANCELLED)
    step.missing, step.ended = [], now
    record(session, step, "step cancelled", why, now=now)
    key = StepKey(step.group_id, step.name, step.sequence + 1)
    return make_step(session, key, priority=step.priority, why=why, now=now)
