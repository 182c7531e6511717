"""What went wrong with a part, and what becomes of it: the one boundary between trying again and giving up.

============ ==================================================== ========================================
kind         what it is                                           what happens
============ ==================================================== ========================================
data         the recipe refuses the data or its parameters        failed at once, with the numbers
world        disk, network, database; the worker was stopped      tried again with back-off, then failed
limit        the part needed more time or memory than it may have failed at once, with the numbers
poison       the part killed its process twice                    failed
bug          anything else                                        failed at once, with the traceback
============ ==================================================== ========================================
"""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from billiard.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Part, Step
from archive.states import PartState, StepState, move
from recipes.recipe import ParameterError, RecipeError, Value
from tasks.outcomes import plain
from tasks.settings import Limits, SettingsError

LONGEST_WAIT = timedelta(minutes=10)  # between two tries; an operator who mends the world does not wait longer
FINISH = 0  # the channel number of the part that finishes a step


class Kind(StrEnum):
    """Why a part did not come out; see the table above."""

    DATA = "data"
    WORLD = "world"
    LIMIT = "limit"
    POISON = "poison"
    BUG = "bug"


@dataclass(frozen=True)
class Failure:
    """One failed attempt: its kind, a full sentence, the numbers in it, and the traceback of a bug."""

    kind: Kind
    sentence: str
    numbers: Mapping[str, Value] = field(default_factory=dict)
    traceback: str = ""


class PartFailed(Exception):  # noqa: N818 - reads as what it is
    """A part failed and its row says so; raised for Celery, which must not count it as a success."""


class Unfinished(Exception):  # noqa: N818 - reads as what it is
    """The part cannot be ended as things stand, and trying again does not help."""


def judge(error: Exception, limits: Limits) -> Failure:
    """Say of what kind an error is.

    Parameters
    ----------
    error : Exception
    limits : Limits
        Those that the part ran under.
    """
    match error:
        case RecipeError():
            return Failure(Kind.DATA, str(error), error.numbers)
        case ParameterError() | Unfinished() | SettingsError():
            return Failure(Kind.DATA, str(error))
        case SoftTimeLimitExceeded():
            return Failure(
                Kind.LIMIT,
                f"The part was stopped after {limits.seconds:g} s, the most that {limits.time_setting} allows; "
                "raise it if the machine is slow, or look at the data.",
                {"seconds": limits.seconds},
            )
        case MemoryError():
            return Failure(
                Kind.LIMIT,
                f"The part needed more than the {limits.memory_mb} MB that {limits.memory_setting} allows ({error}); "
                "raise it, or look at the size of the data.",
                {"memory_mb": limits.memory_mb},
            )
        case OSError() | OperationalError() | InterfaceError():
            return Failure(Kind.WORLD, f"{type(error).__name__}: {error}")
        case _:
            text = "".join(traceback.format_exception(error))
            return Failure(Kind.BUG, f"{type(error).__name__}: {error}", traceback=text)


def give_back(
    session: Session, part: Part, failure: Failure, now: datetime, *, attempts: int, backoff: timedelta
) -> None:
    """Put a running part back into the queue if its failure may pass, else fail it, and with its last channel the step.

    Parameters
    ----------
    session : Session
        A write transaction that holds the part.
    attempts : int
        How often a broken world is tried.
    backoff : timedelta
        Wait after the first failure; it doubles with each further one. Zero for no wait at all.
    """
    part.error, part.error_kind = failure.sentence, failure.kind
    part.lease_until = None
    part.sent = None
    part.worker = ""
    if failure.kind is Kind.WORLD and part.retries + 1 < attempts:
        part.not_before = now + min(backoff * 2**part.retries, LONGEST_WAIT) if backoff else None
        part.retries += 1
        move(part, PartState.QUEUED)
        record(session, part, "part will be tried again", failure.sentence, now=now, retries=part.retries)
        return
    part.ended = now
    if failure.kind is Kind.WORLD:
        part.error = f"{failure.sentence} It was tried {attempts} times, the most that worker.attempts allows."
    move(part, PartState.FAILED)
    numbers = {key: plain(value) for key, value in failure.numbers.items()}
    kind, text = str(failure.kind), failure.traceback
    record(session, part, "part failed", part.error, now=now, kind=kind, numbers=numbers, traceback=text)
    conclude(session, part.step, now)


def conclude(session: Session, step: Step, now: datetime) -> None:
    """Fail a step whose channels have all ended if one of its parts failed; if none did, its finish may be claimed."""
    channels = [part for part in step.parts if part.channel != FINISH]
    finish = next(part for part in step.parts if part.channel == FINISH)
    unended = any(part.state in (PartState.QUEUED, PartState.RUNNING) for part in channels)
    failed = [part for part in step.parts if part.state is PartState.FAILED]
    if unended or not failed or step.state is not StepState.RUNNING:
        return
    if finish.state is PartState.QUEUED:
        move(finish, PartState.CANCELLED)
    step.error, step.error_kind = _sentence(failed), failed[0].error_kind
    step.ended = now
    move(step, StepState.FAILED)
    record(session, step, "step failed", step.error, now=now, kind=step.error_kind)


def _sentence(failed: list[Part]) -> str:
    """Name the channels of each reason once."""
    reasons: dict[str, list[int]] = {}
    for part in failed:
        reasons.setdefault(part.error, []).append(part.channel)
    return " ".join(
        error if channels == [FINISH] else f"Channel {', '.join(map(str, channels))}: {error}"
        for error, channels in reasons.items()
    )
