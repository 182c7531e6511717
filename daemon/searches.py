"""What may be asked for in a search, as words: the same on the command line and by HTTP.

Names of parameters are spelt in upper or lower case, as the Virtual Observatory has it (DALI 1.1, section 2.1).
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from archive.naming import PRODUCT_CODES, STATIC_CODES
from archive.night import mjd_of
from archive.search import FrameSearch, Mark, ProductSearch
from archive.setup import SetupKey
from archive.states import Certification, Score
from tasks.cascade import Tag

MOST_ROWS = 50_000  # of a page; 20 MB of a table
USUAL_ROWS = 1_000
_CATEGORIES = {*PRODUCT_CODES, *STATIC_CODES}


class UnclearSearch(ValueError):  # noqa: N818 - reads as what it is
    """A search cannot be understood; the sentence says which parameter, and what it may be."""


class Whether(StrEnum):
    """Of two kinds of rows, one, the other, or both."""

    YES = "yes"
    NO = "no"
    ANY = "any"

    @property
    def wanted(self) -> bool | None:
        """True, False, or None for both."""
        return None if self is Whether.ANY else self is Whether.YES


class Order(StrEnum):
    """By the time of observation."""

    NEWEST = "newest"
    OLDEST = "oldest"


def _listed(value: object) -> object:
    """Take a list with commas, or several of them, apart."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return value
    return tuple(text.strip() for item in texts for text in str(item).split(",") if text.strip())


def _category(name: str) -> str:
    if name not in _CATEGORIES:
        raise ValueError(f"there is no such category; there are {', '.join(sorted(_CATEGORIES))}")
    return name


def _utc(moment: object) -> object:
    """Read a date as its midnight, and a time without a zone as UTC."""
    if not isinstance(moment, str):
        return moment
    try:
        found = datetime.fromisoformat(moment)
    except ValueError as error:
        raise ValueError("it is no time such as 2026-06-17 or 2026-06-17T21:00:00") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _score(word: str) -> Score:
    """Read a score, of which the missing one is spelt ``none``."""
    words = {score.value or "none": score for score in Score}
    if word not in words:
        raise ValueError(f"there is no such score; there are {', '.join(words)}")
    return words[word]


_Time = Annotated[datetime, BeforeValidator(_utc)]
_Text = Annotated[str, Field(max_length=128)]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    night: date | None = Field(default=None, description="The date on which the night begins.")
    since: _Time | None = Field(default=None, description="Observed at this time or later: a date or a time, UTC.")
    before: _Time | None = Field(default=None, description="Observed before this time.")
    name: _Text = Field(default="", description="DP id or file name; * stands for any characters.")
    mode: _Text = Field(default="", description="Instrument mode, for instance WFM-NOAO-N.")
    readout: _Text = Field(default="", description="Readout mode, for instance SCI1.0.")
    readout_id: int | None = Field(default=None, ge=0, description="Number of the readout mode.")
    binx: int | None = Field(default=None, ge=1, description="Binning in x.")
    biny: int | None = Field(default=None, ge=1, description="Binning in y.")
    filter: _Text = Field(default="", description="Order-sorting filter, for instance Blue-Na2.")
    optics: _Text = Field(default="", description="WFM or NFM.")
    superseded: Whether = Field(default=Whether.NO, description="Whether a newer version has replaced it.")
    order: Order = Field(default=Order.NEWEST, description="Which come first.")
    after: Annotated[str, AfterValidator(lambda text: text and str(Mark.of(text)))] = Field(
        default="", description="Mark at which the page before ended."
    )
    maxrec: int = Field(default=USUAL_ROWS, ge=0, le=MOST_ROWS, description="Most rows of the answer.")

    def _common(self) -> dict[str, Any]:
        setup = {key: value for key in SetupKey if (value := getattr(self, key)) not in ("", None)}
        return {
            "night": self.night,
            "since": mjd_of(self.since) if self.since else None,
            "before": mjd_of(self.before) if self.before else None,
            "name": self.name,
            "setup": setup,
            "superseded": self.superseded.wanted,
            "oldest_first": self.order is Order.OLDEST,
            "after": Mark.of(self.after) if self.after else None,
            "limit": self.maxrec,
        }


class FrameParameters(_Parameters):
    """Parameters of a search for frames."""

    tag: Annotated[tuple[Tag, ...], BeforeValidator(_listed)] = Field(
        default=(), description="Raw tag, for instance BIAS; several with commas."
    )
    object: _Text = Field(default="", description="Name of the target; * stands for any characters.")

    def search(self) -> FrameSearch:
        """Return the conditions."""
        return FrameSearch(types=tuple(self.tag), object=self.object, **self._common())


class ProductParameters(_Parameters):
    """Parameters of a search for products."""

    catg: Annotated[tuple[Annotated[str, AfterValidator(_category)], ...], BeforeValidator(_listed)] = Field(
        default=(), description="PRO.CATG, for instance MASTER_BIAS; several with commas."
    )
    certification: Annotated[tuple[Certification, ...], BeforeValidator(_listed)] = Field(
        default=(), description="provisional, certified or rejected; several with commas."
    )
    score: Annotated[tuple[Annotated[Score, PlainValidator(_score)], ...], BeforeValidator(_listed)] = Field(
        default=(), description="green, yellow, red, or none where nothing was scored; several with commas."
    )
    static: Whether = Field(default=Whether.ANY, description="Whether it is a static calibration.")

    def search(self) -> ProductSearch:
        """Return the conditions."""
        return ProductSearch(
            types=self.catg,
            certifications=self.certification,
            scores=self.score,
            static=self.static.wanted,
            **self._common(),
        )


Kind = TypeVar("Kind", FrameParameters, ProductParameters)


def read_parameters(kind: type[Kind], given: Iterable[tuple[str, str]]) -> Kind:
    """Return the parameters that pairs of names and texts say; a list may be given in several of them.

    Raises
    ------
    UnclearSearch
        A parameter is not known, comes twice though it has one value, or its value is out of range.
    """
    texts: dict[str, list[str]] = {}
    for name, text in given:
        texts.setdefault(name.lower(), []).append(text)
    lists = {name for name, field in kind.model_fields.items() if field.default == ()}
    if twice := sorted(name for name, found in texts.items() if name not in lists and len(found) > 1):
        raise UnclearSearch(f"{', '.join(twice)} is given more than once; it has one value.")
    values = {name: found if name in lists else found[0] for name, found in texts.items()}
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UnclearSearch(" ".join(_sentence(kind, dict(item)) for item in error.errors())) from error


def _sentence(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name} is no parameter of this search; there are {', '.join(sorted(kind.model_fields))}."
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} = {error['input']!r} cannot be: {message[0].lower()}{message[1:]}."
