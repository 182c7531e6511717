"""Thresholds of QC1 parameters: a dated file, read into typed values. A key that is not known is an error.

The file that comes with the package is ``thresholds.toml`` beside this module; docs/scoring.md tells how its figures
were derived. A threshold is valid for observations of its dates. A new figure is a new entry from a day on, and the old
one ends the day before: what was scored by it can be understood for good.
"""

import hashlib
import math
import re
import tomllib
from datetime import date
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from archive.setup import Setup, SetupKey
from recipes.change import measurement_name
from tasks.cascade import STEPS

SHIPPED = Path(__file__).with_name("thresholds.toml")
_INDEX = re.compile(r"(?<=[A-Z])n\b")  # in a pattern: any number, BIAS LEVELn MEDIAN
_CATEGORIES = frozenset(catg for step in STEPS for catg in step.makes)


class ThresholdsError(Exception):
    """The thresholds cannot be used; the message says which, and why."""


class Deviation(StrEnum):
    """How far a value is from the running median is counted in this."""

    ABSOLUTE = "absolute"  # the unit of the value
    FRACTION = "fraction"  # of the median
    SIGMA = "sigma"  # of the values before it: 1.4826 times their median absolute deviation


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Range = tuple[float, float]


class Limits(_Entry):
    """Between which values a parameter is green, and outside of which it is red; an open side is infinite.

    Both ends are within. ``channels`` are those it is for, () for every one and for the product as a whole.
    """

    yellow: Range
    red: Range
    channels: tuple[Annotated[int, Field(ge=1, le=24)], ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        (low, high), (lowest, highest) = self.yellow, self.red
        if not lowest <= low <= high <= highest:  # NaN neither
            raise ValueError(f"the limits must be in order: red {lowest} <= yellow {low} <= {high} <= red {highest}")
        if math.isinf(low) and math.isinf(high):
            raise ValueError("a threshold that is open to both sides can be left out")
        return self


def _checked(category: str) -> str:
    if category not in _CATEGORIES:
        raise ValueError(f"no step makes a {category}; there are {', '.join(sorted(_CATEGORIES))}")
    return category


Category = Annotated[str, AfterValidator(_checked)]


class _Dated(_Entry):
    category: Category
    valid_from: date
    valid_to: date | None = None  # the last day, by the night of the observation; none: still valid
    setup: dict[SetupKey, tuple[str | int, ...]] = {}
    limits: Annotated[tuple[Limits, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.valid_to is not None and self.valid_to < self.valid_from:
            raise ValueError(f"valid_to {self.valid_to} is before valid_from {self.valid_from}")
        named = [channel for limits in self.limits for channel in limits.channels]
        if len(named) > len(set(named)) or (len(self.limits) > 1 and not all(item.channels for item in self.limits)):
            raise ValueError("a channel has more than one entry of limits; each may have one, or all have the same")
        return self

    def serves(self, category: str, setup: Setup, night: date) -> bool:
        """Return whether it is for products of this type and setup, observed in this night."""
        return (
            category == self.category
            and self.valid_from <= night
            and (self.valid_to is None or night <= self.valid_to)
            and all(setup.value(key) in values for key, values in self.setup.items())
        )

    def limits_for(self, channel: int) -> Limits | None:
        """Return the limits of a channel, 0 being the product as a whole; None if it is for others only."""
        return next((item for item in self.limits if not item.channels or channel in item.channels), None)


class _OfParameter(_Dated):
    parameter: str  # without ESO QC; n stands for any number: BIAS LEVELn MEDIAN

    @property
    def like(self) -> str:
        """A pattern of SQL that every name it is for fits, and few others."""
        return _INDEX.sub("%", self.parameter)

    def matches(self, name: str) -> bool:
        """Return whether it is for a parameter of this name."""
        return _pattern(self.parameter).fullmatch(name) is not None


class Fixed(_OfParameter):
    """Limits of the value itself."""

    kind: Literal["fixed"]


class Relative(_OfParameter):
    """Limits of the distance from the running median: that of products of the same category and setup before it.

    It serves once there are ``least`` of them within ``days``.
    """

    kind: Literal["relative"]
    deviation: Deviation
    days: Annotated[float, Field(gt=0, le=3660)]
    least: Annotated[int, Field(ge=1)]


class Previous(_Dated):
    """Limits of the share of the pixels that differ by more than ``sigma`` from the product before."""

    kind: Literal["previous"]
    sigma: Literal[3, 5, 10]  # recipes.change.SIGMAS

    @property
    def parameter(self) -> str:
        """The name of the measurement that it is for."""
        return measurement_name(self.sigma)

    @property
    def like(self) -> str:
        """The name, as a pattern of SQL."""
        return self.parameter

    def matches(self, name: str) -> bool:
        """Return whether it is for a parameter of this name."""
        return name == self.parameter


Threshold = Annotated[Fixed | Relative | Previous, Field(discriminator="kind")]


class Thresholds(_Entry):
    """A whole file.

    Parameters
    ----------
    edition : str
        How people call it.
    measured_on : dict
        By product category without parameters of its own: that of the product of the same step by which it is scored.
    digest : str
        Beginning of the SHA-256 of the file, so that a file changed under the same name can be told.
    """

    edition: Annotated[str, Field(min_length=1, max_length=48)]
    threshold: tuple[Threshold, ...] = ()
    measured_on: dict[Category, Category] = {}
    digest: str = ""

    @property
    def name(self) -> str:
        """What a product that was scored by it keeps."""
        return f"{self.edition} {self.digest}".strip()

    def reach(self, category: str) -> float:
        """Return how many days back the longest running median of a product category goes."""
        relative = (item for item in self.threshold if isinstance(item, Relative))
        return max((item.days for item in relative if item.category == category), default=0.0)

    def serving(self, category: str, setup: Setup, night: date) -> tuple[Threshold, ...]:
        """Return those for products of this type and setup, observed in this night."""
        return tuple(item for item in self.threshold if item.serves(category, setup, night))

    @model_validator(mode="after")
    def _check(self) -> Self:
        alike: dict[tuple[Any, ...], list[Fixed | Relative | Previous]] = {}
        for item in self.threshold:
            alike.setdefault((item.kind, item.category, item.parameter, tuple(sorted(item.setup.items()))), []).append(
                item
            )
        for items in alike.values():
            for number, one in enumerate(items):
                for other in items[number + 1 :]:
                    if _at_once(one, other) and _in_common(one, other):
                        raise ValueError(
                            f"two {one.kind} thresholds for {one.parameter} of {one.category} serve at once, from"
                            f" {one.valid_from} and from {other.valid_from}; end the older one by valid_to"
                        )
        return self


def read_thresholds(path: Path | str = "") -> Thresholds:
    """Read a file of thresholds; without one, that of the package.

    A file that did not change since is not read again.

    Raises
    ------
    ThresholdsError
        It cannot be read, or holds an unknown key or limits that cannot be used.
    """
    file = Path(path or SHIPPED)
    try:
        state = file.stat()
    except OSError as error:
        raise ThresholdsError(f"the thresholds {file} cannot be read: {error}; see scoring.thresholds.") from error
    return _read(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(file: Path, _mtime_ns: int, _size: int) -> Thresholds:
    try:
        content = file.read_bytes()
        values = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ThresholdsError(f"the thresholds {file} cannot be read: {error}.") from error
    try:
        return Thresholds.model_validate({**values, "digest": hashlib.sha256(content).hexdigest()[:12]})
    except ValidationError as error:
        raise ThresholdsError(
            f"the thresholds {file} cannot be used: {' '.join(_sentence(item, values) for item in error.errors())}"
        ) from error


def _sentence(error: Any, values: dict[str, Any]) -> str:  # noqa: ANN401 - pydantic's own dictionary
    place = [str(part) for part in error["loc"]]
    at = error["loc"][1] if len(error["loc"]) > 1 and isinstance(error["loc"][1], int) else None
    entry = values["threshold"][at] if at is not None else {}
    named = f" ({entry['parameter']} of {entry.get('category')})" if "parameter" in entry else ""
    return f"{'.'.join(place)}{named}: {error['msg']}."


@lru_cache(maxsize=1024)
def _pattern(parameter: str) -> re.Pattern[str]:
    return re.compile(r"\d+".join(map(re.escape, _INDEX.split(parameter))))


def _at_once(one: _Dated, other: _Dated) -> bool:
    return one.valid_from <= (other.valid_to or date.max) and other.valid_from <= (one.valid_to or date.max)


def _in_common(one: Fixed | Relative | Previous, other: Fixed | Relative | Previous) -> bool:
    """Return whether two of one kind have a channel in common, and for changes the same number of sigma."""
    return any(
        not a.channels or not b.channels or set(a.channels) & set(b.channels) for a in one.limits for b in other.limits
    )
