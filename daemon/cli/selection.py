"""Which steps an operator means: by identifiers, or by a filter."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import date

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from archive.models import Frame, Group, Part, Product, Step
from archive.states import StepState
from daemon.cli.errors import UsageError
from daemon.cli.identifiers import Subject, find, label, split
from tasks.cascade import STEPS_BY_NAME

UNFINISHED = tuple(state for state in StepState if state not in (StepState.DONE, StepState.CANCELLED))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Conditions on a step, all of which it must meet; an empty one asks for nothing.

    ``channels`` asks for a part in one of them, ``stale`` for a newest done make that is marked as stale.
    """

    states: tuple[StepState, ...] = ()
    night: date | None = None
    names: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    stale: bool = False

    @property
    def empty(self) -> bool:
        """True if every step would meet it."""
        return not any(astuple(self))


def states_of(texts: Iterable[str]) -> tuple[StepState, ...]:
    """Return the states that words name; a word may list several with commas.

    Raises
    ------
    UsageError
    """
    known = {state.value: state for state in StepState}
    names = [name.strip().lower() for text in texts for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{', '.join(unknown)} is no state of a step; there are {', '.join(known)}.")
    return tuple(known[name] for name in names)


def names_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of steps that words list, checked against the cascade.

    Raises
    ------
    UsageError
    """
    names = tuple(name.strip().lower() for text in texts for name in text.split(","))
    if unknown := [name for name in names if name not in STEPS_BY_NAME]:
        raise UsageError(f"{', '.join(unknown)} is no step of the cascade; there are {', '.join(STEPS_BY_NAME)}.")
    return names


def select_steps(session: Session, meeting: Filter) -> Sequence[Step]:
    """Return the steps that meet a filter, oldest first."""
    wanted = select(Step).join(Group).order_by(Step.id)
    if meeting.states:
        wanted = wanted.where(Step.state.in_(meeting.states))
    if meeting.night:
        wanted = wanted.where(Group.night == meeting.night)
    if meeting.names:
        wanted = wanted.where(Step.name.in_(meeting.names))
    if meeting.channels:
        wanted = wanted.where(Step.parts.any(Part.channel.in_(meeting.channels)))
    if meeting.stale:
        later = aliased(Step)
        again = select(later.id).where(
            later.group_id == Step.group_id, later.name == Step.name, later.sequence > Step.sequence
        )
        wanted = wanted.where(Step.stale != "", ~again.exists())
    return session.scalars(wanted).all()


def choose_steps(session: Session, words: Sequence[str], meeting: Filter) -> Sequence[Step]:
    """Return the steps that identifiers name or, without any, that meet a filter.

    Raises
    ------
    NotFoundError
    UsageError
        Neither is given (that would be every step there is), or an identifier leads to no step.
    """
    if words:
        named = {step.id: step for text in split(words) for step in _steps_of(find(session, text), text)}
        return [step for step in named.values() if meets(step, meeting)]
    if meeting.empty:
        raise UsageError(
            "Say which steps: identifiers such as S7, or a filter (--night, --step, --state, --channel, --stale)."
        )
    return select_steps(session, meeting)


def meets(step: Step, meeting: Filter) -> bool:
    """Return whether a step meets a filter; says the same as ``select_steps``."""
    return (
        (not meeting.states or step.state in meeting.states)
        and (not meeting.night or step.group.night == meeting.night)
        and (not meeting.names or step.name in meeting.names)
        and (not meeting.channels or any(part.channel in meeting.channels for part in step.parts))
        and (not meeting.stale or (bool(step.stale) and _newest(step)))
    )


def _newest(step: Step) -> bool:
    alike = (other.sequence for other in step.group.steps if other.name == step.name)
    return step.sequence == max(alike)


def _steps_of(row: Subject, text: str) -> list[Step]:
    """Return a step itself, the newest steps of a group or frame, or the step that made a product."""
    match row:
        case Step():
            return [row]
        case Product(step=Step() as step):
            return [step]
        case Group() | Frame(group=Group()):
            group = row if isinstance(row, Group) else row.group
            newest = {step.name: step for step in sorted(group.steps if group else (), key=lambda step: step.sequence)}
            if newest:
                return list(newest.values())
        case _:
            pass
    raise UsageError(f"{text} ({label(row)}) has no step.")
