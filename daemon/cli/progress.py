"""How far a night is, while it is worked on: read from the registry, shown live."""

from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from archive.models import Arrival, Frame, Group, Part, Step
from archive.states import ArrivalState, GroupState, PartState, StepState
from daemon.cli.output import duration_text, table
from daemon.cli.records import record_of
from daemon.report import night_of_arrival
from tasks.cascade import RECIPES, STEPS_BY_NAME, STEPS_BY_TAG, Tag

ENDED = (StepState.DONE, StepState.FAILED, StepState.HELD, StepState.CANCELLED)
AWAITED = (ArrivalState.WAITING, ArrivalState.STALLED)
BAR_WIDTH = 40


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a night is.

    Parameters
    ----------
    taken : int
        Files of which the registry knows what became.
    groups, steps : tuple of dict
        Records of the night's groups and steps.
    running : tuple of (str, int)
        Step and channel of each part that a worker has.
    queued : int
        Parts that wait for a worker.
    """

    taken: int
    groups: tuple[dict[str, Any], ...]
    steps: tuple[dict[str, Any], ...]
    running: tuple[tuple[str, int], ...]
    queued: int

    @property
    def settled(self) -> bool:
        """True if no group waits for frames, and every step that has a recipe is there and has ended.

        A pair that nobody has released is nothing to wait for.
        """
        to_make = [group["id"] for group in self.groups if _has_recipe(STEPS_BY_TAG[group["tag"]].name)]
        over = [step for step in self.steps if step["state"] in ENDED or step["unreleased"]]
        ended = {step["group"] for step in over}
        pending = [step for step in self.steps if _has_recipe(step["name"]) and step not in over]
        return not pending and ended.issuperset(to_make) and all(g["state"] is not GroupState.OPEN for g in self.groups)


def _has_recipe(step: str) -> bool:
    return STEPS_BY_NAME[step].recipe_name in RECIPES


def night_progress(session: Session, night: date) -> Progress:
    """Return how far a night is."""
    groups = session.scalars(select(Group).where(Group.night == night).order_by(Group.mjd)).all()
    steps = session.scalars(select(Step).join(Group).where(Group.night == night).order_by(Step.id)).all()
    of_frames = select(func.count()).select_from(Arrival).join(Frame, Arrival.frame_id == Frame.id)
    frames = session.scalar(of_frames.where(Frame.night == night, Arrival.state.not_in(AWAITED))) or 0
    others = session.scalars(select(Arrival).where(Arrival.frame_id.is_(None), Arrival.state.not_in(AWAITED)))
    parts = select(Part).join(Step).join(Group).where(Group.night == night)
    running = session.scalars(parts.where(Part.state == PartState.RUNNING).order_by(Part.id)).all()
    queued = parts.where(Part.state == PartState.QUEUED).with_only_columns(func.count())
    return Progress(
        taken=frames + sum(night_of_arrival(arrival) == night for arrival in others),
        groups=tuple(record_of(group) for group in groups if Tag(group.tag) in STEPS_BY_TAG),
        steps=tuple(record_of(step) for step in steps),
        running=tuple((part.step.name, part.channel) for part in running),
        queued=session.scalar(queued) or 0,
    )


def progress_page(progress: Progress, *, announced: int, delivered: int, seconds: float) -> RenderableType:
    """Return the progress as a picture of some twenty lines.

    Parameters
    ----------
    announced, delivered : int
        Files that the night will have, and those that were put into the incoming folder so far.
    seconds : float
        Since the start.
    """
    bars = Table.grid(padding=(0, 2))
    for name, done, total in (("delivered", delivered, announced), ("taken in", progress.taken, announced)):
        bars.add_row(name, ProgressBar(total=total, completed=done, width=BAR_WIDTH), f"{done} of {total}")
    by_group: dict[str, list[dict[str, Any]]] = {}
    for step in progress.steps:
        by_group.setdefault(step["group"], []).append(step)
    rows = [
        row
        for group in progress.groups
        for row in ([_row(group, step) for step in by_group.get(group["id"], [])] or [_row(group, None)])
    ]
    columns = ("group", "type", "frames", "group is", "step", "step is", "channels", "CPU s")
    at_work = ", ".join(f"{name} {f'channel {channel}' if channel else 'finish'}" for name, channel in progress.running)
    return Lines(
        bars,
        "",
        table("", columns, rows, right=("frames", "channels", "CPU s")),
        "",
        f"{duration_text(seconds)}; {progress.queued} parts queued; at work: {at_work or '-'}",
    )


def _row(group: dict[str, Any], step: dict[str, Any] | None) -> tuple[object, ...]:
    left = (group["id"], group["tag"], f"{group['received']}/{group['expected']}", group["state"])
    if step is None:
        return (*left, "", "", "", "")
    state = step["state"] if _has_recipe(step["name"]) else "no recipe yet"
    channels = f"{step['channels_done']}/{step['channels']}" if step["channels"] else ""
    return (*left, f"{step['id']} {step['name']}", state, channels, step["cpu_seconds"] or None)


def progress_line(progress: Progress, *, announced: int, delivered: int, seconds: float) -> str:
    """Return the progress in one line, for a log."""
    steps = ", ".join(f"{step['name']} {step['state']}" for step in progress.steps if _has_recipe(step["name"]))
    files = f"{delivered} of {announced} delivered, {progress.taken} taken in"
    return f"{duration_text(seconds)}: {files}; {steps or 'no step yet'}"
