"""Looking for frames and products by what they are: conditions as values, and one page of rows at a time.

The order is total: by time of observation, then by number of the row. A page ends with a mark; the search after that
mark gives the rows that follow, whatever was added in between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, NamedTuple, Self, TypeVar

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from archive.models import Frame, Product, Step
from archive.select import feeding
from archive.setup import SetupKey
from archive.states import Certification, Score

Found = TypeVar("Found", Frame, Product)


class Mark(NamedTuple):
    """A place in the order of rows: the time (Modified Julian Date) and number of the row before it."""

    mjd: float
    id: int

    def __str__(self) -> str:
        return f"{self.mjd!r},{self.id}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the mark that was written as a text.

        Raises
        ------
        ValueError
        """
        mjd, _, number = text.partition(",")
        try:
            return cls(float(mjd), int(number))
        except ValueError as error:
            raise ValueError(f"{text!r} is no mark of a page; take it as the page before gives it") from error


@dataclass(frozen=True, kw_only=True)
class Search:
    """What rows are looked for: they meet every condition that is given.

    Parameters
    ----------
    types : tuple of str
        Raw tags of frames, PRO.CATG of products; any of them.
    night : date, optional
    since, before : float, optional
        Modified Julian Dates: the first that is wanted, and the first that is not wanted any more.
    setup : mapping
        Values of setup keys.
    name : str
        DP id or name; ``*`` stands for any characters, then upper and lower case are one.
    superseded : bool, optional
        Only those that a newer version replaced, or only the others; None for both.
    oldest_first : bool
        The newest come first otherwise.
    after : Mark, optional
        The page begins after this row.
    limit : int
        Rows of a page.
    """

    types: tuple[str, ...] = ()
    night: date | None = None
    since: float | None = None
    before: float | None = None
    setup: Mapping[SetupKey, str | int] = field(default_factory=dict)
    name: str = ""
    superseded: bool | None = False
    oldest_first: bool = False
    after: Mark | None = None
    limit: int


@dataclass(frozen=True, kw_only=True)
class FrameSearch(Search):
    """What frames are looked for.

    Parameters
    ----------
    object : str
        Name of the target, as ``name``.
    """

    object: str = ""


@dataclass(frozen=True, kw_only=True)
class ProductSearch(Search):
    """What products are looked for.

    Parameters
    ----------
    certifications : tuple of Certification
    scores : tuple of Score
    static : bool, optional
        Only static calibrations, or only products of frames; None for both.
    """

    certifications: tuple[Certification, ...] = ()
    scores: tuple[Score, ...] = ()
    static: bool | None = None


@dataclass(frozen=True)
class Page(Generic[Found]):
    """Rows in their order; ``after`` is the mark of the last one if there are more."""

    rows: Sequence[Found]
    after: Mark | None


def find_frames(session: Session, search: FrameSearch) -> Page[Frame]:
    """Return a page of frames."""
    wanted = select(Frame).where(*_conditions(Frame, search))
    if search.types:
        wanted = wanted.where(Frame.tag.in_(search.types))
    if search.name:
        wanted = wanted.where(_named(search.name, Frame.dp_id, Frame.origfile))
    if search.object:
        wanted = wanted.where(_like(search.object, Frame.object))
    if search.superseded is not None:
        wanted = wanted.where(Frame.superseded_by.is_not(None) if search.superseded else Frame.superseded_by.is_(None))
    return _page(session, Frame, wanted, search)


def find_products(session: Session, search: ProductSearch) -> Page[Product]:
    """Return a page of products."""
    wanted = select(Product).where(*_conditions(Product, search))
    if search.types:
        wanted = wanted.where(Product.catg.in_(search.types))
    if search.name:
        wanted = wanted.where(_named(search.name, Product.dp_id, Product.name))
    if search.certifications:
        wanted = wanted.where(Product.certification.in_(search.certifications))
    if search.scores:
        wanted = wanted.where(Product.score.in_(search.scores))
    if search.static is not None:
        wanted = wanted.where(Product.static.is_(search.static))
    if search.superseded is not None:
        wanted = wanted.where(SUPERSEDED if search.superseded else ~SUPERSEDED)
    return _page(session, Product, wanted, search)


_own, _newer, _made = aliased(Step), aliased(Step), aliased(Product)
# A product is replaced by one of its kind from a later make of its step, if that may be used: a red one leaves it its
# place, and a make that came out as it is again made nothing.
SUPERSEDED = (
    select(_made.id)
    .join(_newer, _made.step_id == _newer.id)
    .join(_own, (_own.group_id == _newer.group_id) & (_own.name == _newer.name))
    .where(_own.id == Product.step_id, _newer.sequence > _own.sequence, _made.catg == Product.catg, feeding(_made))
    .exists()
)


def _conditions(kind: type[Frame | Product], search: Search) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [getattr(kind, key) == value for key, value in search.setup.items()]
    if search.night is not None:
        conditions.append(kind.night == search.night)
    if search.since is not None:
        conditions.append(kind.mjd >= search.since)
    if search.before is not None:
        conditions.append(kind.mjd < search.before)
    return conditions


def _named(name: str, dp_id: InstrumentedAttribute[str], file: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Compare with an identifier, which has no suffix, and with the name of a file, which has one."""
    bare = name.removesuffix(".fits")
    return _like(bare, dp_id) | _like(name if name.endswith("*") else f"{bare}.fits", file)


def _like(pattern: str, column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    if "*" not in pattern:
        return column == pattern
    escaped = pattern.replace("/", "//").replace("%", "/%").replace("_", "/_").replace("*", "%")
    return column.ilike(escaped, escape="/")


def _page(session: Session, kind: type[Found], wanted: Select[Found], search: Search) -> Page[Found]:
    place = tuple_(kind.mjd, kind.id)
    if search.after is not None:
        mark = tuple_(*search.after)
        wanted = wanted.where(place > mark if search.oldest_first else place < mark)
    order: tuple[Any, ...] = (kind.mjd, kind.id) if search.oldest_first else (kind.mjd.desc(), kind.id.desc())
    rows = session.scalars(wanted.order_by(*order).limit(search.limit + 1)).all()
    more = len(rows) > search.limit
    rows = rows[: search.limit]
    return Page(rows, Mark(rows[-1].mjd, rows[-1].id) if more and rows else None)
