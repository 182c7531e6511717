"""Scores: from measurements, thresholds and what was measured before to green, yellow or red. Pure.

The worst counts, all the way up: of the thresholds of a parameter, of the parameters of a channel, of the channels of a
product, of the products of a step, of the steps of a night.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from statistics import median

from archive.states import Certification, Judge, Score
from tasks.thresholds import Deviation, Fixed, Limits, Previous, Relative, Threshold

# 1 / norm.ppf(0.75): turns the median absolute deviation of normal values into their standard deviation.
_SIGMA_OF_MAD = 1.4826
_TOLD = 3  # sentences of one product; every value keeps its own
_BADNESS = (Score.NONE, Score.GREEN, Score.YELLOW, Score.RED)

History = Mapping[tuple[int, str], Sequence["Past"]]


@dataclass(frozen=True)
class Measured:
    """One parameter of one channel, 0 for the product as a whole; None could not be measured, text has no score."""

    channel: int
    name: str
    value: float | str | None


@dataclass(frozen=True)
class Past:
    """What the same parameter of the same channel was in an earlier product, so many days before."""

    days: float
    value: float


@dataclass(frozen=True)
class Mark:
    """The score of one parameter of one channel; the remark is a sentence on what it was held against, '' if green."""

    channel: int
    name: str
    score: Score
    remark: str = ""


@dataclass(frozen=True)
class _Finding:
    score: Score
    remark: str = ""


def worst(scores: Iterable[Score | str]) -> Score:
    """Return the worst of some scores; NONE if there are none, or nothing was scored."""
    return max((Score(score) for score in scores), key=_BADNESS.index, default=Score.NONE)


def scores_by_channel(marks: Iterable[Mark]) -> dict[int, Score]:
    """Return the score of each channel, 0 being the product as a whole, in order of their numbers."""
    found: dict[int, Score] = {}
    for mark in marks:
        found[mark.channel] = worst((found.get(mark.channel, Score.NONE), mark.score))
    return dict(sorted(found.items()))


def product_score(marks: Iterable[Mark], *, lacking: Sequence[int] = ()) -> Score:
    """Return the score of a product; one that lacks channels is yellow at best."""
    scores = scores_by_channel(marks).values()
    return worst((*scores, Score.YELLOW if lacking else Score.NONE))


def product_reason(marks: Iterable[Mark], *, lacking: Sequence[int] = ()) -> str:
    """Return why a product is not green: the worst of its marks in sentences, and how many more there are."""
    bad = sorted(
        (mark for mark in marks if mark.score in (Score.YELLOW, Score.RED)),
        key=lambda mark: (-_BADNESS.index(mark.score), mark.channel, _natural(mark.name)),
    )
    told = [f"It lacks channel {', '.join(map(str, lacking))}."] if lacking else []
    told += [mark.remark for mark in bad[:_TOLD]]
    if more := bad[_TOLD:]:
        red = sum(mark.score is Score.RED for mark in more)
        told.append(f"{len(more)} more values are not green{f', {red} of them red' if red else ''}.")
    return " ".join(told)


def certification_by_score(certification: Certification, judge: str, score: Score, *, automatic: bool) -> Certification:
    """Return what a score makes of a certification. The word of a person stands.

    Parameters
    ----------
    automatic : bool
        Green certifies by itself.
    """
    ours = judge == Judge.SCORE or (judge == Judge.NOBODY and certification is Certification.PROVISIONAL)
    if not ours:
        return certification
    return Certification.CERTIFIED if automatic and score is Score.GREEN else Certification.PROVISIONAL


def score_values(values: Iterable[Measured], thresholds: Sequence[Threshold], history: History) -> list[Mark]:
    """Score the parameters of a product.

    Parameters
    ----------
    values : iterable of Measured
    thresholds : sequence of Threshold
        Those that serve the product (``Thresholds.serving``); the worst that one of them says counts.
    history : mapping of channel and name to sequence of Past
        Of earlier products of the same category and setup.

    Returns
    -------
    list of Mark
        One a value, in their order; NONE where no threshold is for it.
    """
    serving: dict[str, list[Threshold]] = {}
    marks = []
    for item in values:
        if item.name not in serving:
            serving[item.name] = [threshold for threshold in thresholds if threshold.matches(item.name)]
        found = [
            finding
            for threshold in serving[item.name]
            if (finding := _judge(item, threshold, history.get((item.channel, item.name), ()))) is not None
        ]
        score = worst(finding.score for finding in found)
        remark = next((finding.remark for finding in found if finding.score is score), "")
        marks.append(Mark(item.channel, item.name, score, remark))
    return marks


def _judge(item: Measured, threshold: Threshold, past: Sequence[Past]) -> _Finding | None:
    """Return what one threshold says of a value; None if it does not serve it."""
    limits = threshold.limits_for(item.channel)
    if limits is None or isinstance(item.value, str):
        return None
    if item.value is None or math.isnan(item.value):
        said = f"{_subject(item)} could not be measured{_since(threshold.valid_from)}."
        return _Finding(Score.YELLOW, said)
    match threshold:
        case Fixed():
            return _held_against(item.value, limits, f"{_subject(item)} is {item.value:.6g}", "", threshold)
        case Previous():
            where = f" of channel {item.channel}" if item.channel else ""
            said = f"{item.value:.3%} of the pixels{where} are more than {threshold.sigma} sigma off the one before"
            return _held_against(item.value, limits, said, "%", threshold)
        case Relative():
            return _held_against_median(item, item.value, limits, threshold, past)


def _held_against_median(
    item: Measured, value: float, limits: Limits, threshold: Relative, past: Sequence[Past]
) -> _Finding | None:
    near = [other.value for other in past if 0 < other.days <= threshold.days]
    if len(near) < threshold.least:
        return None
    middle = median(near)
    difference = value - middle
    unit, scale = "", 1.0
    match threshold.deviation:
        case Deviation.FRACTION:
            unit, scale = "%", abs(middle)
        case Deviation.SIGMA:
            unit, scale = "sigma", _SIGMA_OF_MAD * median(abs(other - middle) for other in near)
        case Deviation.ABSOLUTE:
            pass
    if not scale:
        return None  # of nothing no fraction, and in equal values no sigma
    off = difference / scale
    said = (
        f"{_subject(item)} is {value:.6g}, {_figure(off, unit, sign='+')} from {middle:.6g}, the median of {len(near)}"
        f" products in the {threshold.days:g} days before"
    )
    return _held_against(off, limits, said, unit, threshold)


def _held_against(value: float, limits: Limits, said: str, unit: str, threshold: Threshold) -> _Finding:
    for score, (low, high) in ((Score.RED, limits.red), (Score.YELLOW, limits.yellow)):
        if not low <= value <= high:
            beyond, limit = ("above", high) if value > high else ("below", low)
            figure = f"{beyond} the {score} limit of {_figure(limit, unit)}{_since(threshold.valid_from)}"
            return _Finding(score, f"{said}, {figure}.")
    return _Finding(Score.GREEN)


def _subject(item: Measured) -> str:
    return f"{item.name} of channel {item.channel}" if item.channel else item.name


def _since(day: date) -> str:
    return f" (threshold since {day})"


def _figure(value: float, unit: str, sign: str = "") -> str:
    if unit == "%":
        return f"{value * 100:{sign}.4g} %"
    return f"{value:{sign}.6g} {unit}".rstrip()


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Return a key by which SLICE2 comes before SLICE10."""
    words = name.split()
    return tuple(
        (bool(digits), int(digits or 0), word) for word in words for digits in ["".join(filter(str.isdigit, word))]
    )
