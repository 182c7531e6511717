"""The best calibration product for a setup and a time, and why each other one is not.

The choice is total and deterministic: whatever the candidates and whatever their order, it ends with the same one.
Among those that may be used the closest in time is taken; how far that is gives the association level, as ESO's
EDPS has it: 0 within the calibration plan, 1 sufficient, 2 probably acceptable, 3 with a significant risk.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from archive.models import Product
from archive.setup import Setup, SetupKey
from archive.states import Certification

NEIGHBOURS = 3  # products on either side of the widest window that `why` still tells of


@dataclass(frozen=True)
class Level:
    """A window of time and what an association within it is worth.

    Parameters
    ----------
    days : float
        The calibration is nearer than this, before or after; inf for any time.
    level : int
    """

    days: float
    level: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What the choice has to know of one product.

    Parameters
    ----------
    product_id : int or None
        None for a product that is still to be made (a virtual calibration).
    name : str
        To speak of it.
    mjd : float
        Middle of its exposures; begin of validity of a static one.
    setup : Setup
    certification : Certification
    static : bool
        Valid from ``mjd`` on instead of around it.
    made : float
        When it was made, any unit that grows with time: of two makes of the same frames the later one is taken.
    """

    product_id: int | None
    name: str
    mjd: float
    setup: Setup
    certification: Certification = Certification.PROVISIONAL
    static: bool = False
    made: float = 0.0


class Cause(StrEnum):
    """Why a candidate was not chosen."""

    REJECTED = "rejected"  # its certification
    SETUP = "setup"  # a key that must be equal differs
    FUTURE = "future"  # a static calibration whose validity begins later
    WINDOW = "window"  # beyond the last level
    SECOND = "second"  # it could be used, but another one is better


@dataclass(frozen=True, kw_only=True)
class Match:
    """The chosen candidate.

    Parameters
    ----------
    level : int
    days : float
        Calibration minus exposure.
    differences : mapping
        Setup keys that differ although they need not be equal, with the wanted and the found value.
    """

    candidate: Candidate
    level: int
    days: float
    differences: Mapping[str, tuple[str | int, str | int]]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A candidate that was turned down.

    Parameters
    ----------
    cause : Cause
    reason : str
        The sentence for a person, with the values and limits.
    days : float
        Calibration minus exposure.
    differences : mapping
        Keys that had to be equal, with the wanted and the found value; empty for another cause.
    """

    candidate: Candidate
    cause: Cause
    reason: str
    days: float
    differences: Mapping[str, tuple[str | int, str | int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best candidate, None if there is none, and all others with the reason."""

    best: Match | None
    refusals: tuple[Refusal, ...]


# What one usable candidate can be worse in than another, in the order in which it is looked at; see _rank.
_WORSE = (
    "is of a worse level",
    "is farther in time",
    "is not certified",
    "is later",
    "was made earlier",
    "is not made yet",
    "has the higher number",
    "has the later name",
)


def choose(
    candidates: Iterable[Candidate],
    *,
    setup: Setup,
    mjd: float,
    keys: tuple[SetupKey, ...],
    levels: tuple[Level, ...],
) -> Choice:
    """Choose the best candidate for an exposure.

    It is not rejected, its setup has equal ``keys``, it lies within the first level that any has reached, and it is
    the closest in time there; of equally close ones the certified, then the earlier, then the later made.

    Parameters
    ----------
    candidates : iterable of Candidate
    setup, mjd
        Of the exposure.
    keys : tuple of SetupKey
        What must be equal.
    levels : tuple of Level
        Windows from the narrowest to the widest; the first that holds a candidate is its level.

    Returns
    -------
    Choice
        Refusals in the order of their distance in time.
    """
    usable: list[Match] = []
    refusals: list[Refusal] = []
    for candidate in candidates:
        verdict = _judge(candidate, setup, mjd, keys, levels)
        if isinstance(verdict, Match):
            usable.append(verdict)
        else:
            refusals.append(verdict)
    usable.sort(key=_rank)
    refusals += [_second(match, usable[0]) for match in usable[1:]]
    refusals.sort(key=_distance)
    return Choice(best=usable[0] if usable else None, refusals=tuple(refusals))


def _judge(
    candidate: Candidate, setup: Setup, mjd: float, keys: tuple[SetupKey, ...], levels: tuple[Level, ...]
) -> Match | Refusal:
    days = candidate.mjd - mjd
    level = next((level for level in levels if abs(days) < level.days), None)
    limit = max((level.days for level in levels), default=0.0)
    differences = setup.differences(candidate.setup, keys)
    if candidate.certification is Certification.REJECTED:
        cause, reason = Cause.REJECTED, "was judged and rejected"
    elif differences:
        cause, reason = Cause.SETUP, f"has {_told(differences)}"
    elif candidate.static and days > 0:
        cause, reason = Cause.FUTURE, f"is valid only from {days:.2f} d after the exposure on"
    elif level is None:
        cause, reason = Cause.WINDOW, f"is {abs(days):.2f} d {_side(days)} the exposure, the limit is {limit:g} d"
    else:
        others = tuple(key for key in SetupKey if key not in keys)
        unlike = setup.differences(candidate.setup, others)
        return Match(candidate=candidate, level=level.level, days=days, differences=unlike)
    return Refusal(
        candidate=candidate,
        cause=cause,
        reason=f"{candidate.name} {reason}.",
        days=days,
        differences=differences if cause is Cause.SETUP else {},
    )


def _second(match: Match, best: Match) -> Refusal:
    ranks = zip(_WORSE, _rank(match), _rank(best), strict=True)
    worse = next((worse for worse, ours, others in ranks if ours != others), "stands here twice")
    reason = f"{_placed(match)} could be used, but {worse}: {_placed(best)} is taken."
    return Refusal(candidate=match.candidate, cause=Cause.SECOND, reason=reason, days=match.days)


def _distance(refusal: Refusal) -> tuple[float, str, int]:
    distance = math.inf if math.isnan(refusal.days) else abs(refusal.days)  # NaN would make the order arbitrary
    return distance, refusal.candidate.name, refusal.candidate.product_id or 0


def _rank(match: Match) -> tuple[Any, ...]:
    candidate = match.candidate
    return (
        match.level,
        abs(match.days),
        candidate.certification is not Certification.CERTIFIED,
        candidate.mjd,
        -candidate.made,
        candidate.product_id is None,
        candidate.product_id or 0,
        candidate.name,
    )


def _placed(match: Match) -> str:
    return f"{match.candidate.name} ({abs(match.days):.2f} d {_side(match.days)} the exposure)"


def _side(days: float) -> str:
    return "before" if days < 0 else "after"


def _told(differences: Mapping[str, tuple[str | int, str | int]]) -> str:
    return " and ".join(
        f"{key} {_shown(found)} where {_shown(wanted)} is needed" for key, (wanted, found) in differences.items()
    )


def _shown(value: str | int) -> str:
    return str(value) if value not in ("", 0) else "(not set)"


def candidates(session: Session, catg: str, *, mjd: float, days: float) -> list[Candidate]:
    """Return the products of one type within so many days of a time, and the nearest beyond on either side.

    Those beyond cannot be chosen; they are there so that `why` can tell how far the next ones are.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    days : float
        Widest window; inf for every product of the type.
    """
    rows = select(*_COLUMNS).where(Product.catg == catg)
    if math.isinf(days):
        return [_candidate(row) for row in session.execute(rows)]
    first, last = mjd - days, mjd + days
    queries = (
        rows.where(Product.mjd.between(first, last)),
        rows.where(Product.mjd < first).order_by(Product.mjd.desc()).limit(NEIGHBOURS),
        rows.where(Product.mjd > last).order_by(Product.mjd).limit(NEIGHBOURS),
    )
    return [_candidate(row) for query in queries for row in session.execute(query)]


_COLUMNS = (Product.id, Product.name, Product.mjd, Product.certification, Product.static, Product.created,
            *(getattr(Product, key) for key in SetupKey))  # fmt: skip


def _candidate(row: Row[Any]) -> Candidate:
    return Candidate(
        product_id=row.id,
        name=row.name,
        mjd=row.mjd,
        setup=Setup.of(*(getattr(row, key) for key in SetupKey)),
        certification=row.certification,
        static=row.static,
        made=row.created.timestamp(),
    )
