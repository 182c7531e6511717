"""The best calibration product for a setup and a time, and why each other one is not.

The choice is total and deterministic: whatever the candidates and whatever their order, it ends with the same one.
Among those that may be used the closest in time is taken; how far that is gives the association level, as ESO's
EDPS has it: 0 within the calibration plan, 1 sufficient, 2 probably acceptable, 3 with a significant risk.

A static calibration is valid from its day until the next of its type and setup: of those that have begun the newest is
the closest. Where a type comes both as static and from frames, one from frames goes before a static one if it is
certified, within its levels, and closer in time than the day from which the static one is valid; not certified, it is
taken only where no static one is valid.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, or_, select
from sqlalchemy.orm import Session, aliased

from archive.models import Product
from archive.naming import STATIC_CODES, letter_number, parse_name
from archive.setup import Setup, SetupKey
from archive.states import Certification, Score, feeds

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
    score : Score
    static : bool
        Valid from ``mjd`` on instead of around it.
    made : float
        When it was made, any unit that grows with time, or which version a static one is: of two makes of the same
        frames, or of the same day, the later one is taken.
    response : int or None
        Version of an STD_RESPONSE.
    until : float
        Only exposures before this Modified Julian Date may take it.
    obsolete : bool
        No pipeline takes its type any more.
    paired : bool
        False for half of a monthly pair whose other half is not there, or was rejected.
    run, channel : str, int
        Of the file of one channel that another pipeline's run made: which run, and which channel.
    """

    product_id: int | None
    name: str
    mjd: float
    setup: Setup
    certification: Certification = Certification.PROVISIONAL
    score: Score = Score.NONE
    static: bool = False
    made: float = 0.0
    response: int | None = None
    until: float = math.inf
    obsolete: bool = False
    paired: bool = True
    run: str = ""
    channel: int = 0


class Cause(StrEnum):
    """Why a candidate was not chosen."""

    REJECTED = "rejected"  # its certification
    RED = "red"  # its score, and nobody certified it
    PROVISIONAL = "provisional"  # nobody certified it, and only certified ones are wanted
    OBSOLETE = "obsolete"  # its type
    UNPAIRED = "unpaired"  # half of a monthly pair
    SETUP = "setup"  # a key that must be equal differs
    RESPONSE = "response"  # a response of the other version
    FUTURE = "future"  # a static calibration whose validity begins later
    PAST = "past"  # a static calibration whose validity has ended
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
    "is not certified, as a static one is",
    "is not of this mode alone",
    "is farther in time",
    "is not certified",
    "is later",
    "was made earlier",
    "is not made yet",
    "has the higher number",
    "has the later name",
)


_Rank = tuple[Any, ...]


def choose(
    candidates: Iterable[Candidate],
    *,
    setup: Setup,
    mjd: float,
    keys: tuple[SetupKey, ...],
    levels: tuple[Level, ...],
    beside_statics: bool = False,
    response: int | None = None,
    certified: bool = False,
) -> Choice:
    """Choose the best candidate for an exposure.

    It is not rejected, and certified if it is red or if ``certified`` asks for that; its setup has equal ``keys``, it
    lies within the levels, and it is the closest in time there; of equally close ones the certified, then the earlier,
    then the later made. A static one that is valid has the first level, however long ago it began; one for the mode of
    the exposure alone goes before one for its family of modes.

    Parameters
    ----------
    candidates : iterable of Candidate
    setup, mjd
        Of the exposure.
    keys : tuple of SetupKey
        What must be equal.
    levels : tuple of Level
        Windows from the narrowest to the widest; the first that holds a candidate is its level.
    beside_statics : bool
        The type comes as static too: static and certified ones go before all others.
    response : int, optional
        Version of an STD_RESPONSE that is needed.
    certified : bool
        Only certified ones are taken.

    Returns
    -------
    Choice
        Refusals in the order of their distance in time.
    """
    usable: list[tuple[_Rank, Match]] = []
    refusals: list[Refusal] = []
    for candidate in candidates:
        verdict = refuse(candidate, mjd, certified=certified) or _judge(candidate, setup, mjd, keys, levels, response)
        if isinstance(verdict, Match):
            usable.append((_rank(verdict, setup, keys, beside_statics=beside_statics), verdict))
        else:
            refusals.append(verdict)
    usable.sort(key=lambda ranked: ranked[0])
    refusals += [_second(ranked, usable[0]) for ranked in usable[1:]]
    refusals.sort(key=_distance)
    return Choice(best=usable[0][1] if usable else None, refusals=tuple(refusals))


def refuse(candidate: Candidate, mjd: float, *, certified: bool) -> Refusal | None:
    """Return why a candidate serves nobody by what it was judged to be, None if it may serve.

    Parameters
    ----------
    mjd : float
        Of the exposure.
    certified : bool
        Only certified ones are taken.
    """
    if candidate.certification is Certification.REJECTED:
        cause, reason = Cause.REJECTED, "was judged and rejected"
    elif not feeds(candidate.certification, candidate.score):
        cause, reason = Cause.RED, "is scored red, and nobody has certified it"
    elif certified and candidate.certification is not Certification.CERTIFIED:
        cause, reason = Cause.PROVISIONAL, "is provisional, and only certified ones are taken"
    else:
        return None
    reason = f"{candidate.name} {reason}."
    return Refusal(candidate=candidate, cause=cause, reason=reason, days=candidate.mjd - mjd)


def _judge(
    candidate: Candidate,
    setup: Setup,
    mjd: float,
    keys: tuple[SetupKey, ...],
    levels: tuple[Level, ...],
    response: int | None,
) -> Match | Refusal:
    days = candidate.mjd - mjd
    level = _level(candidate, days, levels)
    limit = max((level.days for level in levels), default=0.0)
    differences = {
        key: values
        for key, values in setup.differences(candidate.setup, keys).items()
        if not setup.served_by(candidate.setup, SetupKey(key))
    }
    if candidate.obsolete:
        cause, reason = Cause.OBSOLETE, "is of a type that no recipe takes any more"
    elif not candidate.paired:
        cause, reason = Cause.UNPAIRED, "is half of a pair whose other half is not there, or was rejected"
    elif differences:
        cause, reason = Cause.SETUP, f"has {_told(differences)}"
    elif response is not None and candidate.product_id is not None and candidate.response != response:
        cause, reason = Cause.RESPONSE, f"is a response of version {candidate.response}, version {response} is needed"
    elif candidate.static and days > 0:
        cause, reason = Cause.FUTURE, f"is valid only from {days:.2f} d after the exposure on"
    elif mjd >= candidate.until:
        cause, reason = Cause.PAST, f"was valid only until {mjd - candidate.until:.2f} d before the exposure"
    elif level is None:
        cause, reason = Cause.WINDOW, f"is {abs(days):.2f} d {_side(days)} the exposure, the limit is {limit:g} d"
    else:
        return Match(candidate=candidate, level=level.level, days=days, differences=unlike(candidate, setup))
    return Refusal(
        candidate=candidate,
        cause=cause,
        reason=f"{candidate.name} {reason}.",
        days=days,
        differences=differences if cause is Cause.SETUP else {},
    )


def _level(candidate: Candidate, days: float, levels: tuple[Level, ...]) -> Level | None:
    if candidate.static and -math.inf < days <= 0:
        return levels[0] if levels else None
    return next((level for level in levels if abs(days) < level.days), None)


def unlike(candidate: Candidate, setup: Setup) -> Mapping[str, tuple[str | int, str | int]]:
    """Return in what a candidate differs although it may be used; what a static one leaves open is no difference."""
    differences = setup.differences(candidate.setup, tuple(SetupKey))
    return {key: both for key, both in differences.items() if not (candidate.static and both[1] in ("", 0))}


def _second(ranked: "tuple[_Rank, Match]", first: "tuple[_Rank, Match]") -> Refusal:
    (rank, match), (best_rank, best) = ranked, first
    ranks = zip(_WORSE, rank, best_rank, strict=True)
    worse = next((worse for worse, ours, others in ranks if ours != others), "stands here twice")
    reason = f"{_placed(match)} could be used, but {worse}: {_placed(best)} is taken."
    return Refusal(candidate=match.candidate, cause=Cause.SECOND, reason=reason, days=match.days)


def _distance(refusal: Refusal) -> tuple[float, str, int]:
    distance = math.inf if math.isnan(refusal.days) else abs(refusal.days)  # NaN would make the order arbitrary
    return distance, refusal.candidate.name, refusal.candidate.product_id or 0


def _rank(match: Match, setup: Setup, keys: tuple[SetupKey, ...], *, beside_statics: bool) -> _Rank:
    candidate = match.candidate
    vouched = candidate.static or candidate.certification is Certification.CERTIFIED
    return (
        beside_statics and not vouched,
        bool(setup.differences(candidate.setup, keys)),
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
    rows = select(*CANDIDATE_COLUMNS, PAIRED.label("paired")).where(Product.catg == catg)
    first, last = mjd - days, mjd + days
    near: Select[Any] = rows.where(or_(Product.static, Product.mjd.between(first, last)))
    queries = [near]
    if math.isfinite(days):
        beyond = rows.where(Product.static.is_(False))
        queries.append(beyond.where(Product.mjd < first).order_by(Product.mjd.desc()).limit(NEIGHBOURS))
        queries.append(beyond.where(Product.mjd > last).order_by(Product.mjd).limit(NEIGHBOURS))
    found = [candidate_of(row, paired=row.paired) for query in queries for row in session.execute(query)]
    return [files[0] for files in sets_of(found)]


def sets_of(candidates: Iterable[Candidate]) -> list[tuple[Candidate, ...]]:
    """Join candidates of one type that are the files of one run, one a channel: the first of a set stands for it.

    Of each channel it is the latest one that may be used. One that may not be used is alone, as any other product.
    """
    sets: dict[str, dict[int, Candidate]] = {}
    alone = []
    for candidate in sorted(candidates, key=lambda candidate: (candidate.product_id or 0, candidate.name)):
        if not candidate.run or not feeds(candidate.certification, candidate.score):
            alone.append((candidate,))
            continue
        files = sets.setdefault(candidate.run, {})
        if candidate.made > files.setdefault(candidate.channel, candidate).made:
            files[candidate.channel] = candidate
    joined = (sorted(files.values(), key=lambda candidate: candidate.product_id or 0) for files in sets.values())
    return [*alone, *map(tuple, joined)]


def astrometry_for(session: Session, geometry: Product, *, setup: Setup, mjd: float) -> Choice:
    """Choose the astrometric solution that was made with a geometry table: no other one may go with it.

    Parameters
    ----------
    geometry : Product
        The GEOMETRY_TABLE that was chosen for the exposure. The solution is valid for as long as that is.
    setup, mjd
        Of the exposure.
    """
    rows = select(*CANDIDATE_COLUMNS).where(Product.geometry_id == geometry.id)
    return choose(
        [replace(candidate_of(row, paired=True), mjd=geometry.mjd) for row in session.execute(rows)],
        setup=setup,
        mjd=mjd,
        keys=(SetupKey.OPTICS,),
        levels=(Level(math.inf, 0),),
        beside_statics=True,
    )


def siblings(session: Session, product: Product) -> list[Product]:
    """Return the files of a calibration that comes as one a channel: of each channel the latest version.

    Those of a static one are of one day, those that another pipeline made of one run. Of any other product it is the
    product alone.
    """
    if len(product.channels) != 1 or not (product.static or product.run):
        return [product]
    if not product.static:
        rows = {row.id: row for row in session.scalars(select(Product).where(*_of_run(product)))}
        files = [candidate_of(row, paired=True) for row in rows.values()]
        of_set = next((found for found in sets_of(files) if len(found) > 1 or found[0].product_id == product.id), ())
        return sorted((rows[file.product_id or 0] for file in of_set), key=lambda row: row.channels)
    alike = (Product.catg == product.catg, Product.static, Product.mjd == product.mjd)
    best: dict[int, Product] = {}
    for other in session.scalars(select(Product).where(*alike).order_by(Product.id)):
        usable = feeds(other.certification, other.score) and other.setup == product.setup
        if usable and len(other.channels) == 1:
            before = best.setdefault(other.channels[0], other)
            if letter_number(parse_name(other.name).letter) > letter_number(parse_name(before.name).letter):
                best[other.channels[0]] = other
    return [best[channel] for channel in sorted(best)]


def feeding(product: type[Product]) -> ColumnElement[bool]:
    """Return the condition under which a product may feed anybody, as ``states.feeds`` has it."""
    provisional = and_(product.certification == Certification.PROVISIONAL, product.score != Score.RED)
    return or_(product.certification == Certification.CERTIFIED, provisional)


def _of_run(product: Product) -> tuple[ColumnElement[bool], ...]:
    return Product.catg == product.catg, Product.run == product.run, Product.static.is_(False)


_other = aliased(Product)
# Whether the other half of a monthly pair is there and may be used: of a geometry table its astrometric solution, of a
# solution the table that it was made with.
PAIRED = (
    select(_other.id)
    .where(
        or_(_other.geometry_id == Product.id, _other.id == Product.geometry_id),
        feeding(_other),
    )
    .exists()
)
# What ``candidate_of`` reads.
CANDIDATE_COLUMNS = (
    Product.id, Product.name, Product.catg, Product.mjd, Product.certification, Product.score, Product.static,
    Product.created, Product.run, Product.channels,
    Product.response, Product.step_id, Product.geometry_id, *(getattr(Product, key) for key in SetupKey),
)  # fmt: skip


def candidate_of(row: Product | Row[Any], *, paired: bool) -> Candidate:
    """Return what the choice has to know of a product.

    Parameters
    ----------
    paired : bool
        ``PAIRED`` of it.
    """
    static = STATIC_CODES.get(row.catg) if row.static else None
    of_channel = not row.static and bool(row.run) and len(row.channels) == 1
    # A table from outside is whole as it is; one that was made here serves nobody before the pair is there.
    alone = row.catg != "ASTROMETRY_WCS" and (row.catg != "GEOMETRY_TABLE" or row.step_id is None)
    return Candidate(
        product_id=row.id,
        name=row.name,
        mjd=row.mjd,
        setup=Setup.of(*(getattr(row, key) for key in SetupKey)),
        certification=row.certification,
        score=Score(row.score),
        static=row.static,
        made=letter_number(parse_name(row.name).letter) if static else row.created.timestamp(),
        response=row.response,
        until=static.until if static else math.inf,
        obsolete=static.obsolete if static else False,
        paired=alone or paired,
        run=row.run if of_channel else "",
        channel=row.channels[0] if of_channel else 0,
    )
