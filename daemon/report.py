"""The night report: every file that came, what became of it, every product, and the time that each step took.

Everything but ``compile_report`` is a pure function of the registry's rows. The ledger balances if every file that was
received was processed or has its explanation in words; where the rows do not say it, the file is ``UNEXPLAINED``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session, selectinload

from archive.models import Arrival, Frame, Group, Measurement, Product, Step
from archive.night import mjd_of, night_ends, night_of, time_of
from archive.states import ArrivalState, GroupState, Score, StepState
from tasks.cascade import RECIPES, STEPS, STEPS_BY_NAME, STEPS_BY_TAG, CascadeStep, Tag
from tasks.orders import waits_for_pair
from tasks.score import worst

# Where a file's content does not tell its night, its archive name does: MUSE.2026-06-17T10:41:11.000.fits.
_TIME_IN_NAME = re.compile(r"MUSE\.(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)")
# Parameters of one input frame or one slice are too many for a page; they are in the registry and in the product.
_OF_A_DETAIL = re.compile(r"\b(INPUT|SLICE|SLICE_[LR])\d*\b")
_INDEX = re.compile(r"(?<=[A-Z])\d+\b")


class Fate(StrEnum):
    """What became of one file."""

    PROCESSED = "processed"  # a step that is done took it in
    AWAITED = "waiting"  # for the rest of its group, for an input, or for a worker
    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"  # its group ended below the minimum
    NO_RECIPE = "no recipe yet"  # the cascade has a step for it, the recipe is not written
    STATIC = "static calibration"  # in the archive, for every night of its time
    ARCHIVED = "archived"  # it came with an existing archive, of which nothing is made by itself
    NOT_PROCESSED = "not processed"  # recognised; the cascade has no step for it
    UNKNOWN = "unknown"  # no rule recognises it
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    RELEASED = "released"  # from quarantine, to be looked at again as a new arrival
    GONE = "gone"  # from the incoming folder, before it was whole
    SUPERSEDED = "superseded"  # the same DP id came again with other content
    UNEXPLAINED = "unexplained"  # the ledger does not balance


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger: a file that was received."""

    arrival: str
    file: str
    received: datetime | None  # None while it still settles
    tag: str
    fate: Fate
    reason: str


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """What one step took. Seconds; None where it did not get that far.

    Parameters
    ----------
    cpu : float
        User and system time of all its parts.
    reaction : float or None
        From its last frame complete on disk to the first part claimed.
    wall : float or None
        From the first part claimed to its end.
    arrival_to_product : float or None
        From the first sight of its last frame to its end.
    unreleased : bool
        It waits for its partner, or for an operator's word on both.
    """

    step: str
    group: str
    name: str
    state: StepState
    version: str  # of our recipe, or of the engine that stands for it
    has_recipe: bool
    frames: int
    channels: int
    cpu: float
    reaction: float | None
    wall: float | None
    arrival_to_product: float | None
    remark: str
    unreleased: bool = False
    score: Score = Score.NONE  # of its products


@dataclass(frozen=True, kw_only=True)
class ScoreInput:
    """One QC1 parameter over all channels (and quadrants) of a product; ``n`` in the name stands for their number."""

    name: str
    least: float
    median: float
    most: float
    values: int


@dataclass(frozen=True, kw_only=True)
class ProductLine:
    """One archived product and the values that its score is made from."""

    product: str
    name: str
    catg: str
    step: str
    certification: str
    score: str
    channels: tuple[int, ...]
    size: int
    inputs: tuple[ScoreInput, ...]
    further_values: int
    score_reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StaticLine:
    """One static calibration that steps of the night took; ``response`` is the version of a response."""

    product: str
    name: str
    catg: str
    response: int | None
    steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Every file of a night that was received, and what became of it."""

    entries: tuple[Entry, ...]
    orphans: tuple[str, ...]  # frames that no arrival accounts for

    @property
    def fates(self) -> Mapping[Fate, int]:
        """How many files met which fate."""
        return Counter(entry.fate for entry in self.entries)

    @property
    def unexplained(self) -> tuple[str, ...]:
        """Files and frames that nothing explains."""
        wrong = (entry.file for entry in self.entries if entry.fate is Fate.UNEXPLAINED or not entry.reason)
        return (*wrong, *self.orphans)

    @property
    def balanced(self) -> bool:
        """True if every file received was processed or is explained, and nothing is there that was not received."""
        return not self.unexplained


@dataclass(frozen=True, kw_only=True)
class NightReport(Ledger):
    """Everything about one night."""

    night: date
    steps: tuple[StepTime, ...]
    products: tuple[ProductLine, ...]
    statics: tuple[StaticLine, ...] = ()

    @property
    def score(self) -> Score:
        """The worst of the scores of its steps; of a step that was made again, of the latest that made something."""
        return worst({step.group + step.name: step.score for step in self.steps if step.score}.values())

    @property
    def unfinished(self) -> tuple[StepTime, ...]:
        """Steps that have a recipe and are not done, but for pairs that nobody has released."""
        return tuple(
            step for step in self.steps if step.has_recipe and step.state is not StepState.DONE and not step.unreleased
        )


def compile_report(session: Session, night: date, incoming: Mapping[Path, str]) -> NightReport:
    """Read the rows of a night and compile its report.

    Parameters
    ----------
    session : Session
    night : date
    incoming : mapping of Path to str
        Files that lie in the incoming folder, each with why it was not taken in yet, or ''. Those that the registry
        knows count as it says.
    """
    ledger = read_ledger(session, night, incoming)
    steps = session.scalars(select(Step).join(Group).where(Group.night == night).order_by(Step.id)).all()
    products = session.scalars(
        select(Product).join(Step).join(Group).where(Group.night == night).order_by(Product.id)
    ).all()
    return NightReport(
        night=night,
        entries=ledger.entries,
        steps=tuple(step_time(step) for step in steps),
        products=tuple(product_line(product) for product in products),
        orphans=ledger.orphans,
        statics=static_lines(steps),
    )


def read_ledger(session: Session, night: date, incoming: Mapping[Path, str]) -> Ledger:
    """Read what became of every file of a night; the parameters are those of ``compile_report``."""
    frames = session.scalars(
        select(Frame).where(Frame.night == night).order_by(Frame.mjd, Frame.id).options(selectinload(Frame.arrivals))
    ).all()
    of_products = select(Arrival).outerjoin(Product, Arrival.product_id == Product.id)
    elsewhere = and_(Product.run.is_not(None), Product.run != "")
    nameless = session.scalars(of_products.where(Arrival.frame_id.is_(None), ~elsewhere, _may_be_of(night)))
    arrivals = [arrival for frame in frames for arrival in frame.arrivals]
    arrivals += session.scalars(of_products.where(elsewhere, Product.night == night))
    arrivals += [arrival for arrival in nameless if night_of_arrival(arrival) == night]
    lying = [path for path in incoming if night_of_name(path.name) == night]
    known = set(session.scalars(select(Arrival.path).where(Arrival.path.in_([str(path) for path in lying]))))
    return Ledger(
        entries=(
            *(ledger_entry(arrival) for arrival in sorted(arrivals, key=lambda row: (row.first_seen, row.id))),
            *(_awaited(path, incoming[path]) for path in lying if str(path) not in known),
        ),
        orphans=tuple(frame.dp_id for frame in frames if not frame.arrivals),
    )


def _may_be_of(night: date) -> ColumnElement[bool]:
    """Return the condition on arrivals that ``night_of_arrival`` may have this night: by name, or first seen in it."""
    dates = (night, night + timedelta(days=1))
    return or_(
        *(Arrival.path.contains(f"MUSE.{day}T", autoescape=True) for day in dates),
        Arrival.first_seen.between(night_ends(night - timedelta(days=1)), night_ends(night)),
    )


def night_of_name(name: str) -> date | None:
    """Return the night of a file by the time in its name; None if it has none."""
    found = _TIME_IN_NAME.search(name)
    return night_of(mjd_of(datetime.fromisoformat(f"{found[1]}+00:00"))) if found else None


def night_of_arrival(arrival: Arrival) -> date:
    """Return the night of a file without a frame: by the time in its name, else by when it was first seen."""
    return night_of_name(Path(arrival.path).name) or night_of(mjd_of(arrival.first_seen))


def ledger_entry(arrival: Arrival) -> Entry:
    """Return what became of one file that was received."""
    fate, reason = _fate(arrival)
    return Entry(
        arrival=f"A{arrival.id}",
        file=Path(arrival.path).name,
        received=arrival.first_seen,
        tag=arrival.frame.tag if arrival.frame else arrival.product.catg if arrival.product else "",
        fate=fate,
        reason=reason,
    )


def _awaited(path: Path, reason: str) -> Entry:
    return Entry(
        arrival="",
        file=path.name,
        received=None,
        tag="",
        fate=Fate.AWAITED,
        reason=reason or "It lies in the incoming folder, for the watcher to take it in once it has settled.",
    )


def _fate(arrival: Arrival) -> tuple[Fate, str]:
    match arrival.state:
        case ArrivalState.WAITING | ArrivalState.STALLED:
            return Fate.AWAITED, arrival.reason or "It is still growing, or younger than the settle time."
        case ArrivalState.QUARANTINED:
            return Fate.QUARANTINED, arrival.reason
        case ArrivalState.RELEASED:
            return Fate.RELEASED, arrival.reason or "It was given back to be looked at again."
        case ArrivalState.GONE:
            return Fate.GONE, arrival.reason
        case ArrivalState.DUPLICATE:
            return Fate.DUPLICATE, arrival.reason or "The same content was here before."
        case ArrivalState.INGESTED if arrival.frame:
            return _fate_of_frame(arrival.frame)
        case ArrivalState.INGESTED if arrival.product:
            product = arrival.product
            if product.run:
                return Fate.ARCHIVED, f"It is P{product.id}, which another pipeline made."
            return Fate.STATIC, f"It is P{product.id}, valid from {time_of(product.mjd):%Y-%m-%d} on."
        case _:
            return Fate.UNEXPLAINED, "It counts as taken in, but the registry has nothing for it."


def _fate_of_frame(frame: Frame) -> tuple[Fate, str]:
    step = STEPS_BY_TAG.get(Tag(frame.tag))
    if frame.superseded_by is not None:
        return Fate.SUPERSEDED, f"The same DP id came again with other content, as F{frame.superseded_by}."
    if frame.tag == Tag.UNKNOWN:
        return Fate.UNKNOWN, frame.rule
    if step is None and (takers := [use.step for use in frame.uses if use.step.state is StepState.DONE]):
        return Fate.PROCESSED, _done(takers)
    if step is None:
        goes_with = [other.raw for other in STEPS if any(companion.tag == frame.tag for companion in other.companions)]
        companion = f"It goes along with {', '.join(goes_with)}." if goes_with else ""
        return Fate.NOT_PROCESSED, companion or f"The cascade has no step for {frame.tag}."
    if frame.group is None:
        return Fate.UNEXPLAINED, f"It is a {frame.tag}, yet it is in no group."
    return _fate_of_member(frame, frame.group, step)


def _done(steps: Iterable[Step]) -> str:
    return f"{', '.join(f'S{step.id} {step.name}' for step in steps)} done."


def _fate_of_member(frame: Frame, group: Group, wanted: CascadeStep) -> tuple[Fate, str]:
    """Return the fate of a frame of a group: the best that any of the group's steps had for it."""
    label = f"G{group.id}"
    takers = [step for step in group.steps if step.state is StepState.DONE and _takes(step, frame)]
    if takers:
        return Fate.PROCESSED, _done(takers)
    if wanted.recipe_name not in RECIPES:
        return Fate.NO_RECIPE, f"{label} waits for {wanted.recipe_name}."
    if group.state is GroupState.ARCHIVED:
        return Fate.ARCHIVED, f"{label}: {group.reason}"
    if group.state is GroupState.OPEN:
        return Fate.AWAITED, group.reason or f"{label} has {len(group.frames)} of {group.expected} frames."
    if group.state is GroupState.INCOMPLETE:
        return Fate.INCOMPLETE, group.reason or f"{label} ended with {len(group.frames)} of {group.expected} frames."
    for step in sorted(group.steps, key=lambda step: step.id, reverse=True):
        fate, reason = _fate_by_step(step)
        if fate is not Fate.UNEXPLAINED:
            return fate, f"S{step.id} {step.name}: {reason}"
    return Fate.UNEXPLAINED, f"{label} is {group.state}, yet no step took this frame in or waits to do so."


def _fate_by_step(step: Step) -> tuple[Fate, str]:
    match step.state:
        case StepState.WAITING:
            return Fate.AWAITED, "; ".join(str(sentence) for sentence in step.missing) or "waits to be planned."
        case StepState.QUEUED | StepState.RUNNING:
            return Fate.AWAITED, f"{step.state}."
        case StepState.FAILED:
            return Fate.FAILED, step.error
        case StepState.HELD:
            return Fate.HELD, "held by an operator."
        case StepState.CANCELLED:
            return Fate.CANCELLED, "given up by an operator."
        case _:
            return Fate.UNEXPLAINED, ""


def _takes(step: Step, frame: Frame) -> bool:
    return any(use.frame_id == frame.id for use in step.uses)


def step_time(step: Step) -> StepTime:
    """Return what one step took."""
    frames = [frame for frame in step.group.frames if frame.superseded_by is None]
    arrivals = [arrival for frame in frames for arrival in frame.arrivals if arrival.state is ArrivalState.INGESTED]
    seen = max((arrival.first_seen for arrival in arrivals), default=None)
    settled = max((arrival.settled for arrival in arrivals if arrival.settled), default=None)
    return StepTime(
        step=f"S{step.id}",
        group=f"G{step.group_id}",
        name=step.name,
        state=step.state,
        version=step.recipe_version,
        has_recipe=STEPS_BY_NAME[step.name].recipe_name in RECIPES,
        frames=len(frames),
        channels=sum(part.channel > 0 for part in step.parts),
        cpu=sum(part.seconds or 0.0 for part in step.parts),
        reaction=_seconds(settled, step.started),
        wall=_seconds(step.started, step.ended),
        arrival_to_product=_seconds(seen, step.ended),
        unreleased=waits_for_pair(step),
        score=worst(product.score for product in step.products),
        remark="; ".join([step.error] * bool(step.error) + [str(item) for item in (*step.warnings, *step.missing)]),
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start) / timedelta(seconds=1) if start and end else None


def product_line(product: Product) -> ProductLine:
    """Return one product with its score inputs."""
    inputs = score_inputs(product.measurements)
    return ProductLine(
        product=f"P{product.id}",
        name=product.name,
        catg=product.catg,
        step=f"S{product.step_id}" if product.step_id else "",
        certification=product.certification,
        score=product.score,
        channels=tuple(product.channels),
        size=product.size,
        inputs=inputs,
        score_reason=product.score_reason,
        further_values=len(product.measurements) - sum(item.values for item in inputs),
    )


def static_lines(steps: Iterable[Step]) -> tuple[StaticLine, ...]:
    """Return the static calibrations that steps took, by type and name."""
    takers: dict[int, list[Step]] = {}
    taken: dict[int, Product] = {}
    for step in steps:
        for use in step.uses:
            if use.product and use.product.static:
                taken[use.product.id] = use.product
                takers.setdefault(use.product.id, []).append(step)
    return tuple(
        StaticLine(
            product=f"P{product.id}",
            name=product.name,
            catg=product.catg,
            response=product.response,
            steps=tuple(f"S{step.id} {step.name}" for step in takers[product.id]),
        )
        for product in sorted(taken.values(), key=lambda row: (row.catg, row.name))
    )


def score_inputs(measurements: Iterable[Measurement]) -> tuple[ScoreInput, ...]:
    """Return the QC1 parameters of a product as a whole, over channels and quadrants, in the order of the recipe."""
    values: dict[str, list[float]] = {}
    for item in measurements:
        if item.value is not None and not _OF_A_DETAIL.search(item.name):
            values.setdefault(_INDEX.sub("n", item.name), []).append(item.value)
    return tuple(
        ScoreInput(name=name, least=min(found), median=median(found), most=max(found), values=len(found))
        for name, found in values.items()
    )


def unaccounted(report: NightReport, files: Iterable[str]) -> tuple[str, ...]:
    """Return the names among ``files``, known to have been delivered, that the ledger does not hold as often."""
    return tuple(sorted((Counter(files) - Counter(entry.file for entry in report.entries)).keys()))


def report_record(report: NightReport) -> dict[str, Any]:
    """Return the report as plain values for JSON."""
    return {
        "night": report.night,
        "balanced": report.balanced,
        "score": report.score,
        "received": len(report.entries),
        "fates": {fate.value: count for fate, count in sorted(report.fates.items())},
        "entries": [vars(entry) for entry in report.entries],
        "steps": [vars(step) for step in report.steps],
        "products": [vars(line) | {"inputs": [vars(item) for item in line.inputs]} for line in report.products],
        "statics": [vars(line) for line in report.statics],
        "orphans": list(report.orphans),
    }
