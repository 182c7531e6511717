"""States of the registry's rows, their legal moves, and the functions that make a move."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol, TypeVar


class ArrivalState(StrEnum):
    """What became of a file that was seen. Every file ends in one of the last five, or is still awaited."""

    WAITING = "waiting"  # still growing, or younger than the settle time
    STALLED = "stalled"  # incomplete for longer than the limit; still looked at
    INGESTED = "ingested"  # its frame is in the registry
    DUPLICATE = "duplicate"  # the same content was here before; nothing to do
    QUARANTINED = "quarantined"  # unreadable or truncated; kept with its reason until released
    RELEASED = "released"  # given back by an operator to be looked at again as a new arrival
    GONE = "gone"  # removed by somebody else before it was whole


class GroupState(StrEnum):
    """State of the frames of one template."""

    OPEN = "open"  # frames are still awaited
    COMPLETE = "complete"  # every frame that the template announced is here
    CLOSED = "closed"  # the grace time ended with at least the minimum; runs with a warning
    INCOMPLETE = "incomplete"  # the grace time ended below the minimum; never silently used
    ARCHIVED = "archived"  # taken in with an existing archive; nothing is made of it unless an operator asks


class StepState(StrEnum):
    """State of one step of the cascade on one group."""

    WAITING = "waiting"  # an input is missing; Step.missing says which
    QUEUED = "queued"  # every input is fixed, the parts may be claimed
    RUNNING = "running"  # a worker has claimed at least one part
    DONE = "done"  # products are in the archive
    FAILED = "failed"  # see Step.error; an operator may requeue
    HELD = "held"  # kept back by an operator
    CANCELLED = "cancelled"  # given up by an operator


class PartState(StrEnum):
    """State of one channel of a step, or of its finish."""

    QUEUED = "queued"  # may be claimed; its message may be under way
    RUNNING = "running"  # claimed by exactly one worker, whose lease is in the row
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Score(StrEnum):
    """How good a product is, as its values say."""

    NONE = ""  # nothing was scored yet
    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


class Judge(StrEnum):
    """Who gave a product its certification."""

    NOBODY = ""  # it is provisional as it was made
    SCORE = "score"  # its score; a new one may change it
    PERSON = "person"  # who made it, brought it or looked at it; no score changes that


class Certification(StrEnum):
    """Whether a product may be used."""

    PROVISIONAL = "provisional"  # usable, not yet judged good by threshold or person
    CERTIFIED = "certified"
    REJECTED = "rejected"  # feeds nobody


def feeds(certification: str, score: str) -> bool:
    """Return whether a product may feed anybody: it is certified, or provisional and not red."""
    if certification == Certification.PROVISIONAL:
        return score != Score.RED
    return certification == Certification.CERTIFIED


Moves = Mapping[StrEnum, frozenset[StrEnum]]

ARRIVAL_MOVES: Moves = MappingProxyType(
    {
        ArrivalState.WAITING: frozenset(ArrivalState) - {ArrivalState.WAITING, ArrivalState.RELEASED},
        ArrivalState.STALLED: frozenset(ArrivalState) - {ArrivalState.STALLED, ArrivalState.RELEASED},
        ArrivalState.INGESTED: frozenset(),
        ArrivalState.DUPLICATE: frozenset(),
        ArrivalState.QUARANTINED: frozenset({ArrivalState.RELEASED}),
        ArrivalState.RELEASED: frozenset(),
        ArrivalState.GONE: frozenset(),
    }
)
GROUP_MOVES: Moves = MappingProxyType(
    {
        GroupState.OPEN: frozenset(GroupState) - {GroupState.OPEN},
        GroupState.COMPLETE: frozenset({GroupState.OPEN}),  # a new version of a frame arrived
        GroupState.CLOSED: frozenset({GroupState.OPEN, GroupState.COMPLETE}),  # a late frame arrived
        GroupState.INCOMPLETE: frozenset({GroupState.OPEN, GroupState.COMPLETE, GroupState.CLOSED}),
        GroupState.ARCHIVED: frozenset({GroupState.OPEN}),
    }
)
STEP_MOVES: Moves = MappingProxyType(
    {
        StepState.WAITING: frozenset({StepState.QUEUED, StepState.DONE, StepState.HELD, StepState.CANCELLED}),
        StepState.QUEUED: frozenset(
            {StepState.RUNNING, StepState.WAITING, StepState.HELD, StepState.CANCELLED, StepState.FAILED}
        ),
        StepState.RUNNING: frozenset({StepState.DONE, StepState.FAILED, StepState.HELD, StepState.CANCELLED}),
        StepState.DONE: frozenset(),  # a remake is a new step with the next version letter
        StepState.FAILED: frozenset({StepState.WAITING, StepState.CANCELLED}),
        StepState.HELD: frozenset({StepState.WAITING, StepState.CANCELLED}),
        StepState.CANCELLED: frozenset({StepState.WAITING}),
    }
)
PART_MOVES: Moves = MappingProxyType(
    {
        PartState.QUEUED: frozenset({PartState.RUNNING, PartState.CANCELLED, PartState.FAILED}),
        PartState.RUNNING: frozenset({PartState.DONE, PartState.FAILED, PartState.QUEUED, PartState.CANCELLED}),
        PartState.DONE: frozenset({PartState.QUEUED}),  # its files were lost before the step was finished
        PartState.FAILED: frozenset({PartState.QUEUED, PartState.CANCELLED}),
        PartState.CANCELLED: frozenset({PartState.QUEUED}),
    }
)
CERTIFICATION_MOVES: Moves = MappingProxyType(
    {
        Certification.PROVISIONAL: frozenset({Certification.CERTIFIED, Certification.REJECTED}),
        Certification.CERTIFIED: frozenset({Certification.REJECTED, Certification.PROVISIONAL}),  # scored anew
        Certification.REJECTED: frozenset({Certification.CERTIFIED}),
    }
)
_TABLES: Mapping[type[StrEnum], Moves] = MappingProxyType(
    {
        ArrivalState: ARRIVAL_MOVES,
        GroupState: GROUP_MOVES,
        StepState: STEP_MOVES,
        PartState: PART_MOVES,
        Certification: CERTIFICATION_MOVES,
    }
)


class IllegalMove(Exception):  # noqa: N818 - reads as what it is
    """A row was asked to go from one state to another that cannot follow it."""


State = TypeVar("State", bound=StrEnum)


class Stateful(Protocol[State]):
    """A row with a state."""

    state: State


class Certifiable(Protocol):
    """A row with a certification."""

    certification: Certification
    judge: Judge


def check_move(old: StrEnum, new: StrEnum) -> None:
    """Raise IllegalMove unless the table allows this move."""
    if type(old) is not type(new) or new not in _TABLES[type(old)][old]:
        allowed = ", ".join(sorted(_TABLES[type(old)][old])) or "nothing, it is final"
        raise IllegalMove(f"what is {old} cannot become {new}; allowed is {allowed}.")


def move(row: Stateful[State], new: State) -> None:
    """Change the state of a row along the table of legal moves."""
    check_move(row.state, new)
    row.state = new


def certify(row: Certifiable, new: Certification, judge: Judge) -> None:
    """Change the certification of a product along the table of legal moves, and note whose word it is.

    A person may confirm what the score certified.
    """
    confirmed = new is row.certification and row.judge == Judge.SCORE and judge is Judge.PERSON
    if not confirmed:
        check_move(row.certification, new)
    row.certification, row.judge = new, judge
