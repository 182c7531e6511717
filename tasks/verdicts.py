"""Scores of products in the registry, and the certification that follows from them.

A score is a function of the products there are, not of the order in which they were made: a running median is that of
the newest makes before a product in observation time which nobody rejected. Whoever adds, rejects or certifies one has
those after it scored anew, in the same transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import insert, or_, select, true, update
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Frame, Measurement, Product, Use
from archive.series import within
from archive.setup import Setup
from archive.states import Certification, Judge, Score, certify
from tasks.score import (
    Mark,
    Measured,
    Past,
    certification_by_score,
    product_reason,
    product_score,
    score_values,
    scores_by_channel,
)
from tasks.settings import CertifyPolicy, Settings
from tasks.thresholds import Fixed, Relative, Threshold, Thresholds, read_thresholds

SCORED = "product scored"  # the event


@dataclass(frozen=True)
class Scoring:
    """By what products are scored, and whether green certifies by itself."""

    thresholds: Thresholds
    certify: CertifyPolicy = CertifyPolicy.GREEN

    @classmethod
    def of(cls, settings: Settings) -> "Scoring":
        """Return what the settings say, with the thresholds as their file is now."""
        return cls(read_thresholds(settings.scoring.thresholds), settings.scoring.certify)


@dataclass(frozen=True)
class Subject:
    """What of a product decides by which thresholds it is scored, and against which others."""

    catg: str
    setup: Setup
    mjd: float
    thresholds: tuple[Threshold, ...]

    @classmethod
    def of(cls, product: Product, thresholds: Thresholds) -> "Subject":
        """Return that of a row."""
        serving = thresholds.serving(product.catg, product.setup, product.night)
        return cls(product.catg, product.setup, product.mjd, serving)


@dataclass(frozen=True)
class Appraisal:
    """What a product is worth by the thresholds as they are.

    Parameters
    ----------
    marks : tuple of Mark
        Of every measurement.
    score : Score
    reason : str
        Why it is not green.
    thresholds : str
        Their edition; '' where none is for its category.
    """

    marks: tuple[Mark, ...]
    score: Score
    reason: str
    thresholds: str

    @property
    def channels(self) -> dict[int, Score]:
        """The score of each channel, 0 being the product as a whole."""
        return scores_by_channel(self.marks)


def add_measurements(session: Session, product: Product, values: Sequence[Measured], scoring: Scoring) -> None:
    """Add what was measured on a new product, with the score of each value.

    In one statement: a wavelength calibration of all channels has some 23 000 values.
    """
    session.flush()
    marks = _marks(session, Subject.of(product, scoring.thresholds), values)
    rows = [
        {
            "product_id": product.id,
            "channel": item.channel,
            "name": item.name,
            "value": None if isinstance(item.value, str) else item.value,
            "text": item.value if isinstance(item.value, str) else "",
            "score": mark.score.value,
            "remark": mark.remark,
        }
        for item, mark in zip(values, marks, strict=True)
    ]
    if rows:
        session.execute(insert(Measurement), rows)


def score_new(session: Session, products: Sequence[Product], scoring: Scoring, *, now: datetime) -> None:
    """Give new products their score and its certification, and score anew what comes after them in time.

    Their measurements are there already (``add_measurements``).
    """
    for product in products:
        _settle(session, product, _stored(session, product, scoring), scoring, now=now, why="It was made.")
    for product in products:
        score_later(session, product, scoring, now=now)


def appraise(session: Session, product: Product, scoring: Scoring) -> Appraisal:
    """Score a product by the thresholds as they are now, without changing anything."""
    if source := _source(product, scoring):
        return _by_source(source, appraise(session, source, scoring))
    rows = _rows(session, product)
    return _appraisal(session, product, scoring, _marks_of(session, product, scoring, rows))


def score_anew(session: Session, product: Product, scoring: Scoring, *, now: datetime, why: str) -> Appraisal:
    """Score a product by the thresholds as they are now, and keep that, with an event if anything changed."""
    if source := _source(product, scoring):
        appraisal = _by_source(source, appraise(session, source, scoring))
    else:
        rows = _rows(session, product)
        marks = _marks_of(session, product, scoring, rows)
        _write(session, rows, marks)
        appraisal = _appraisal(session, product, scoring, marks)
    _settle(session, product, appraisal, scoring, now=now, why=why)
    return appraisal


def score_later(session: Session, product: Product, scoring: Scoring, *, now: datetime) -> None:
    """Score anew what a product is earlier than: what is within its running median by now, or no longer is."""
    reach = scoring.thresholds.reach(product.catg)
    why = f"{product.name}, which is earlier, is {product.certification}."
    for later in within(session, product.catg, product.setup, product.mjd, product.mjd + reach) if reach else ():
        score_history(session, later, scoring, now=now, why=why)


def score_history(session: Session, product: Product, scoring: Scoring, *, now: datetime, why: str) -> None:
    """Score anew what depends on earlier products; all of it, if it was last scored by other thresholds."""
    if product.thresholds != scoring.thresholds.name:
        score_anew(session, product, scoring, now=now, why=why)
        return
    of_history = [item for item in Subject.of(product, scoring.thresholds).thresholds if not isinstance(item, Fixed)]
    rows = _rows(session, product, [item.like for item in of_history])
    _write(session, rows, _marks_of(session, product, scoring, rows))
    _settle(session, product, _stored(session, product, scoring), scoring, now=now, why=why)


@dataclass(frozen=True)
class _Row:
    """A measurement that is a number, as it is stored."""

    id: int
    channel: int
    name: str
    value: float | None
    score: str
    remark: str


def _rows(session: Session, product: Product, like: Sequence[str] | None = None) -> list[_Row]:
    """Return the numbers that were measured, all or those whose names are like some patterns of SQL."""
    columns = (getattr(Measurement, name) for name in ("id", "channel", "name", "value", "score", "remark"))
    named = true() if like is None else or_(*(Measurement.name.like(pattern) for pattern in like))
    wanted = select(*columns).where(Measurement.product_id == product.id, Measurement.text == "", named)
    return [_Row(*row) for row in session.execute(wanted.order_by(Measurement.channel, Measurement.id))]


def _marks_of(session: Session, product: Product, scoring: Scoring, rows: Sequence[_Row]) -> tuple[Mark, ...]:
    values = [Measured(row.channel, row.name, row.value) for row in rows]
    return tuple(_marks(session, Subject.of(product, scoring.thresholds), values))


def _marks(session: Session, subject: Subject, values: Sequence[Measured]) -> list[Mark]:
    return score_values(values, subject.thresholds, _history(session, subject))


def _write(session: Session, rows: Sequence[_Row], marks: Sequence[Mark]) -> None:
    changed = [
        {"id": row.id, "score": mark.score.value, "remark": mark.remark}
        for row, mark in zip(rows, marks, strict=True)
        if (row.score, row.remark) != (mark.score, mark.remark)
    ]
    if changed:
        session.execute(update(Measurement), changed)


def _history(session: Session, subject: Subject) -> Mapping[tuple[int, str], Sequence[Past]]:
    """Return what was measured on earlier products of the same type and setup that nobody rejected."""
    relative = [item for item in subject.thresholds if isinstance(item, Relative)]
    if not relative:
        return {}
    first = subject.mjd - max(item.days for item in relative)
    earlier = within(session, subject.catg, subject.setup, first, subject.mjd)
    days = {item.id: subject.mjd - item.mjd for item in earlier if item.certification is not Certification.REJECTED}
    wanted = select(Measurement.product_id, Measurement.channel, Measurement.name, Measurement.value).where(
        Measurement.product_id.in_(days), or_(*(Measurement.name.like(item.like) for item in relative))
    )
    found: dict[tuple[int, str], list[Past]] = {}
    for product_id, channel, name, value in session.execute(wanted):
        if value is not None:
            found.setdefault((channel, name), []).append(Past(days[product_id], value))
    return found


def _stored(session: Session, product: Product, scoring: Scoring) -> Appraisal:
    """Return the appraisal by the scores that the measurements have."""
    if source := _source(product, scoring):
        return _by_source(source, _stored(session, source, scoring))
    scored = select(Measurement.channel, Measurement.name, Measurement.score, Measurement.remark).where(
        Measurement.product_id == product.id
    )
    bad = session.execute(scored.where(Measurement.score.in_((Score.YELLOW, Score.RED))))
    good = session.execute(scored.where(Measurement.score == Score.GREEN).limit(1))
    marks = tuple(Mark(row.channel, row.name, Score(row.score), row.remark) for row in (*bad, *good))
    return _appraisal(session, product, scoring, marks)


def _appraisal(session: Session, product: Product, scoring: Scoring, marks: Iterable[Mark]) -> Appraisal:
    marks, lacking = tuple(marks), _lacking(session, product)
    served = bool(Subject.of(product, scoring.thresholds).thresholds)
    return Appraisal(
        marks=marks,
        score=product_score(marks, lacking=lacking),
        reason=product_reason(marks, lacking=lacking),
        thresholds=scoring.thresholds.name if served else "",
    )


def _lacking(session: Session, product: Product) -> list[int]:
    """Return the channels of the raw frames that a product does not have.

    What another pipeline wrote as one file a channel counts as the whole set; a cube of it does not tell its channels.
    """
    if product.run and not product.channels:
        return []
    frames = select(Frame.channels).join(Use, Use.frame_id == Frame.id).where(Use.step_id == product.step_id)
    there = {channel for channels in session.scalars(frames) for channel in channels} if product.step_id else set()
    have = set(product.channels)
    if product.run:
        alike = select(Product.channels).where(Product.run == product.run, Product.catg == product.catg)
        have = {channel for channels in session.scalars(alike) for channel in channels}
    return sorted(there - have)


def _source(product: Product, scoring: Scoring) -> Product | None:
    """Return the product of the same step on which the values were measured; None if that is the product itself."""
    catg = scoring.thresholds.measured_on.get(product.catg)
    made = [other for other in product.step.products if other.catg == catg] if product.step and catg else []
    same = (other for other in made if other.channels == product.channels)  # of those that come as one file a channel
    return next(same, made[0] if made else None)


def _by_source(source: Product, appraisal: Appraisal) -> Appraisal:
    reason = appraisal.reason and f"As {source.name}: {appraisal.reason}"
    return replace(appraisal, marks=(), reason=reason)


def _settle(
    session: Session, product: Product, appraisal: Appraisal, scoring: Scoring, *, now: datetime, why: str
) -> None:
    """Keep the score of a product, and certify it or take that back; then the same of those that are scored by it."""
    new = certification_by_score(
        product.certification, product.judge, appraisal.score, automatic=scoring.certify is CertifyPolicy.GREEN
    )
    was = (product.score, product.score_reason, product.certification)
    if (product.score, product.certification) != (appraisal.score, new):
        product.reviewed = False
        if product.geometry is not None:
            product.geometry.reviewed = False
    product.score, product.score_reason, product.thresholds = appraisal.score, appraisal.reason, appraisal.thresholds
    if new is not product.certification:
        certify(product, new, Judge.SCORE if new is Certification.CERTIFIED else Judge.NOBODY)
    if (product.score, product.score_reason, product.certification) != was:
        record(
            session, product, SCORED, product.score_reason, now=now, score=product.score, was=was[0],
            certification=product.certification, thresholds=product.thresholds, because=why,
        )  # fmt: skip
    for other in product.step.products if product.step else ():
        if _source(other, scoring) is product:
            _settle(session, other, _by_source(product, appraisal), scoring, now=now, why=why)
