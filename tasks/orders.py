"""Orders of operators: what may be asked for, in which state, and what then happens. Each leaves an event.

The functions change rows in the transaction of the caller; the planner does the rest in its next turn.
"""

import shutil
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Arrival, Group, Product, Step
from archive.states import (
    ArrivalState,
    Certification,
    GroupState,
    IllegalMove,
    Judge,
    PartState,
    StepState,
    certify,
    move,
)
from tasks.advance import make_step
from tasks.cascade import STEPS_BY_NAME
from tasks.decisions import StepKey
from tasks.failures import FINISH
from tasks.settings import Settings
from tasks.verdicts import Scoring, score_later

FIRST = 0  # priority of what an operator asked for


class OrderRefused(Exception):  # noqa: N818 - reads as what it is
    """The order cannot be carried out as things stand; the sentence says why."""


def requeue(
    session: Session,
    step: Step,
    *,
    why: str,
    now: datetime,
    channels: Collection[int] = (),
    priority: int = FIRST,
) -> Step:
    """Have a step made again.

    A step that failed or was cancelled goes on with the channels that are not done. A step that is done is left as it
    is, and its next make begins; that ends at once if recipe, parameters and inputs are the same as before.

    Parameters
    ----------
    channels : collection of int
        Channels that are made again although they are done.
    priority : int
        0 first, 9 last.

    Returns
    -------
    Step
        The one that stands for it from now on.

    Raises
    ------
    OrderRefused
    """
    newest = session.scalars(
        select(Step).where(Step.group_id == step.group_id, Step.name == step.name).order_by(Step.sequence.desc())
    ).first()
    if newest is not None and newest.id != step.id:
        raise OrderRefused(f"step {step.id} was made again as step {newest.id}, which is {newest.state}; requeue that.")
    if step.state is StepState.DONE:
        if channels:
            raise OrderRefused(f"step {step.id} is done; it can be made again with all its channels only.")
        if step.group.state is GroupState.ARCHIVED:
            reduce_archived(session, step.group, why=why, now=now)
        key = StepKey(step.group_id, step.name, step.sequence + 1)
        why = why or step.stale or f"Step {step.id} is to be made again."
        return make_step(session, key, priority=priority, why=why, now=now)
    if step.state not in (StepState.FAILED, StepState.CANCELLED):
        advice = "release it instead" if step.state is StepState.HELD else "there is nothing to do again yet"
        raise OrderRefused(f"step {step.id} is {step.state}; {advice}.")
    unknown = set(channels) - {part.channel for part in step.parts} | set(channels) & {FINISH}
    if unknown:
        raise OrderRefused(f"step {step.id} has no channel {', '.join(map(str, sorted(unknown)))}.")
    for part in step.parts:
        if part.channel in channels and part.state is PartState.DONE:
            move(part, PartState.QUEUED)
            part.outcome = {}
    _stop_parts(session, step, why, now)
    step.error = step.error_kind = ""
    step.ended, step.priority = None, priority
    _move(step, StepState.WAITING)
    record(session, step, "step requeued", why, now=now, channels=sorted(channels))
    return step


def reduce_archived(session: Session, group: Group, *, why: str, now: datetime) -> None:
    """Let our recipes reduce a group that came with an existing archive, as if its frames came now.

    Raises
    ------
    OrderRefused
        It is none of those.
    """
    if group.state is not GroupState.ARCHIVED:
        raise OrderRefused(
            f"group {group.id} is {group.state}, and its steps come by themselves; `musecal why G{group.id}` says when."
        )
    group.closes = now  # no frame of it is awaited
    group.reason = why
    move(group, GroupState.OPEN)
    record(session, group, "group reopened", why or "It is to be reduced here.", now=now)


def hold(session: Session, step: Step, *, why: str, now: datetime) -> None:
    """Keep a step back until it is released; what workers are doing for it is dropped.

    Raises
    ------
    OrderRefused
        It is over, or held already.
    """
    _move(step, StepState.HELD)
    _stop_parts(session, step, why, now)
    record(session, step, "step held", why, now=now)


def release(session: Session, step: Step, *, why: str, now: datetime) -> None:
    """Let a held step go on, or a monthly pair whose step waits for this word.

    Raises
    ------
    OrderRefused
        It is not held, and no half of a pair that could go on.
    """
    if step.state is StepState.WAITING and STEPS_BY_NAME[step.name].pair:
        _release_pair(session, step, why, now)
        return
    if step.state is not StepState.HELD:
        raise OrderRefused(f"step {step.id} is {step.state}, not held.")
    _move(step, StepState.WAITING)
    record(session, step, "step released", why, now=now)


def waits_for_pair(step: Step) -> bool:
    """Return whether a step waits for its partner, or for an operator's word on both."""
    return step.state is StepState.WAITING and STEPS_BY_NAME[step.name].pair is not None and step.group.released is None


def _release_pair(session: Session, step: Step, why: str, now: datetime) -> None:
    group, partner = step.group, step.group.partner
    if group.released is not None:
        raise OrderRefused(f"the pair of step {step.id} is released already; `musecal why S{step.id}` says what lacks.")
    if partner is None:
        raise OrderRefused(f"step {step.id} has no partner yet; `musecal why S{step.id}` says what is missing.")
    if not {group.state, partner.state} <= {GroupState.COMPLETE, GroupState.CLOSED}:
        raise OrderRefused(f"group {group.id} and group {partner.id}, its partner, are not both complete yet.")
    for one, other in ((group, partner), (partner, group)):
        one.released = now
        record(session, one, "pair released", why, now=now, partner=other.id)
    record(session, step, "pair released", why, now=now, partner=partner.id)


def cancel(session: Session, step: Step, *, why: str, now: datetime) -> None:
    """Give a step up; what workers are doing for it is dropped.

    Raises
    ------
    OrderRefused
        It is over.
    """
    _move(step, StepState.CANCELLED)
    step.ended = now
    _stop_parts(session, step, why, now)
    record(session, step, "step cancelled", why, now=now)


def judge(
    session: Session, product: Product, verdict: Certification, *, comment: str, scoring: Scoring, now: datetime
) -> None:
    """Certify or reject a product, and have the planner look again at what stands near it.

    A person may also confirm what the score certified: from then on no score changes it. What comes after the product
    in time is scored anew, as one that is rejected counts in no running median.

    Raises
    ------
    OrderRefused
        That is its state already, or cannot follow it.
    """
    _judge(product, verdict)
    record(session, product, f"product {verdict}", comment, now=now)
    score_later(session, product, scoring, now=now)


def retire(session: Session, product: Product, *, why: str, scoring: Scoring, now: datetime) -> None:
    """Take a static calibration out of service: nothing takes it any more, and the planner weighs what was made of it.

    Raises
    ------
    OrderRefused
        It is not static, or retired already.
    """
    if not product.static:
        raise OrderRefused(f"product {product.id} ({product.name}) is not static; reject it instead.")
    if product.certification is Certification.REJECTED:
        raise OrderRefused(f"product {product.id} ({product.name}) is retired already.")
    _judge(product, Certification.REJECTED)
    record(session, product, "static calibration retired", why, now=now)
    score_later(session, product, scoring, now=now)


def release_arrival(session: Session, arrival: Arrival, settings: Settings, *, why: str, now: datetime) -> Path:
    """Give a file in quarantine back to the incoming folder, where it is a new arrival.

    It is there before the transaction ends and leaves the quarantine after it, so that it is never in no place.

    Returns
    -------
    Path
        Its place in the incoming folder.

    Raises
    ------
    OrderRefused
        It is not in quarantine, or another file has its name in the incoming folder.
    """
    kept = Path(arrival.kept or "")
    if arrival.state is not ArrivalState.QUARANTINED or not kept.is_file():
        name = Path(arrival.path).name
        raise OrderRefused(f"arrival {arrival.id} ({name}) is {arrival.state}; no file of it is in quarantine.")
    target = settings.archive.incoming / Path(arrival.path).name
    if target.exists():
        raise OrderRefused(f"{target} is there already; move it away first.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(kept, part)
    part.rename(target)
    move(arrival, ArrivalState.RELEASED)
    record(session, arrival, "file released", why, now=now, place=str(target))
    if kept != Path(arrival.path):  # one that was only listed stays in its archive
        event.listen(session, "after_commit", lambda _: kept.unlink(missing_ok=True), once=True)
    return target


def _judge(product: Product, verdict: Certification) -> None:
    """Give a verdict and have it weighed; with half of a monthly pair the other half stands or falls."""
    try:
        certify(product, verdict, Judge.PERSON)
    except IllegalMove as error:
        raise OrderRefused(f"product {product.id} ({product.name}): {error}") from error
    product.reviewed = False
    if product.geometry is not None:
        product.geometry.reviewed = False


def _move(step: Step, state: StepState) -> None:
    try:
        move(step, state)
    except IllegalMove as error:
        raise OrderRefused(f"step {step.id}: {error}") from error


def _stop_parts(session: Session, step: Step, why: str, now: datetime) -> None:
    """Take the parts of a step away from the workers; the attempt stays, so that none of them can end one."""
    for part in step.parts:
        if part.state in (PartState.QUEUED, PartState.RUNNING):
            running = part.state is PartState.RUNNING
            move(part, PartState.CANCELLED)
            part.lease_until, part.worker, part.sent = None, "", None
            if running:
                record(session, part, "part stopped", why, now=now)
