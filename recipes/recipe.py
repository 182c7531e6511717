"""The contract of a recipe: a value that says what it takes, what it makes, and which pure function does it.

The pure unit is one channel; a recipe whose products are of the whole instrument has a second pure function, which
joins what the first made of each channel. A recipe sees arrays and small frozen descriptions, never a header, a path, a
setting, a session or a logger. ``recipes.channel`` joins it to files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from recipes.muse import DETECTOR, Detector, Lamp

Value = bool | int | float | str
Float32 = NDArray[np.float32]
Flags = NDArray[np.unsignedinteger[Any]]


class RecipeError(Exception):
    """The data cannot be reduced; trying again with the same data changes nothing.

    Parameters
    ----------
    message : str
        A full sentence with the value, the limit and what to do.
    **numbers
        The values of the sentence, for the registry.
    """

    def __init__(self, message: str, **numbers: Value) -> None:
        super().__init__(message)
        self.numbers = numbers


class ParameterError(ValueError):
    """A recipe parameter is unknown, of the wrong type or outside its range."""


@dataclass(frozen=True)
class Measurement:
    """One QC1 parameter.

    Parameters
    ----------
    name : str
        Keyword without ``ESO QC``, for instance ``BIAS MASTER1 RON``.
    value : int, float or str
        NaN where it could not be measured.
    comment : str
        Unit in brackets, then what it is.
    """

    name: str
    value: int | float | str
    comment: str = ""


@dataclass(frozen=True)
class Keyword:
    """One header card beside the QC1 parameters, with its full keyword (``ESO DRS MUSE ...``)."""

    name: str
    value: Value
    comment: str = ""


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image plane with its flags and variance, all of the same shape (rows, columns).

    Parameters
    ----------
    data : float32 array
        NaN is not used: a pixel without a value is 0 and flagged.
    dq : unsigned integer array
        ``muse.Flag`` bits, in the smallest type that holds them; 32 bits in the file.
    stat : float32 array
        Variance, in the square of the unit.
    unit : str
        ``adu`` or ``count`` (electrons).
    """

    data: Float32
    dq: Flags
    stat: Float32
    unit: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """One table column: values along the rows, and a unit ('' if none)."""

    name: str
    values: NDArray[Any]
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A binary table. The type of each column in the file is that of its array; ``name`` is its EXTNAME, if any."""

    columns: tuple[Column, ...]
    name: str = ""

    def __getitem__(self, name: str) -> NDArray[Any]:
        for column in self.columns:
            if column.name == name:
                return column.values
        raise KeyError(f"the table has no column {name}; it has {', '.join(c.name for c in self.columns)}")


class Array(Protocol):
    """An array that is read in slices along its first axis: one of numpy, or one on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its values."""

    def __getitem__(self, index: slice, /) -> NDArray[Any]:
        """Return a slice along the first axis."""


class WritableArray(Array, Protocol):
    """An array that is also written in slices along its first axis."""

    def __setitem__(self, index: slice, values: NDArray[Any], /) -> None:
        """Put values into a slice along the first axis."""


class PlaneKind(StrEnum):
    """What an image extension holds; its HDUCLAS cards follow from it."""

    DATA = "data"
    FLAGS = "flags"
    VARIANCE = "variance"
    PLAIN = "plain"  # no HDUCLAS cards at all, as the columns of a pixel table


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One image extension of any number of axes.

    Parameters
    ----------
    name : str
        EXTNAME.
    values : Array
        In numpy's order: the first axis is the last of FITS.
    unit : str
        BUNIT, '' if none.
    kind : PlaneKind
    data, errors, flags : str
        Names of the extensions that hold the data, variance and flags which belong to it.
    keywords : tuple of Keyword
        Further cards, for instance world coordinates.
    """

    name: str
    values: Array
    unit: str = ""
    kind: PlaneKind = PlaneKind.DATA
    data: str = ""
    errors: str = ""
    flags: str = ""
    keywords: tuple["Keyword", ...] = ()


@dataclass(frozen=True)
class Extensions:
    """Any other content of a product: image extensions and tables in the order of the file; may be none."""

    units: tuple[Plane | Table, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """Where telescope and derotator were, as the header states it; NaN where it does not.

    Parameters
    ----------
    ra, dec : float
        Degrees.
    airmass, parallactic_angle : (float, float)
        At the start and the end; degrees, from north through east.
    position_angle : float
        Of the derotator (``INS DROT POSANG``), degrees.
    rotator_mode : str
        ``SKY`` or ``STAT``.
    temperature, pressure, humidity : float
        Of the air: deg C, hPa, per cent.
    seeing : float
        FWHM at the telescope's guide star, arcsec.
    """

    ra: float = math.nan
    dec: float = math.nan
    airmass: tuple[float, float] = (math.nan, math.nan)
    parallactic_angle: tuple[float, float] = (math.nan, math.nan)
    position_angle: float = math.nan
    rotator_mode: str = ""
    temperature: float = math.nan
    pressure: float = math.nan
    humidity: float = math.nan
    seeing: float = math.nan


@dataclass(frozen=True, kw_only=True)
class MaskStage:
    """Where the stage of the calibration mask stood: encoders and positions (mm) of ``INS POS1`` to ``POS4``.

    ``scale`` is ``TEL FOCU SCALE``, arcsec a mm.
    """

    encoders: tuple[int, int, int, int]
    positions: tuple[float, float, float, float]
    scale: float


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What a recipe has to know of one raw frame of its channel.

    Parameters
    ----------
    name : str
        Data-product identifier, to speak of the frame in errors.
    exptime : float
        Seconds.
    gains : tuple of 4 floats
        Electrons per adu of quadrants 1 to 4.
    read_noise : tuple of 4 floats
        Electrons, as the header states them.
    lamps : tuple of Lamp
        Lamps that are on with an open shutter.
    mode : str
        ``INS MODE``.
    mjd : float
        Begin, Modified Julian Date.
    template : str
        ``TPL ID``.
    pointing : Pointing
    mask : MaskStage or None
        None where the header has no stage.
    """

    name: str
    exptime: float
    gains: tuple[float, float, float, float]
    read_noise: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    lamps: tuple[Lamp, ...] = ()
    mode: str = ""
    mjd: float = math.nan
    template: str = ""
    pointing: Pointing = field(default_factory=Pointing)
    mask: MaskStage | None = None


class Stack(Protocol):
    """The raw frames of one channel, read in blocks of rows so that any number fits into memory."""

    @property
    def exposures(self) -> Sequence[Exposure]:
        """One description a frame, in order."""

    def rows(self, frame: int, start: int, stop: int) -> NDArray[np.uint16]:
        """Return raw rows [start, stop) of one frame, shape (stop - start, raw columns), adu."""


class ImageSource(Protocol):
    """A calibration image of the channel, read in blocks of rows."""

    @property
    def measurements(self) -> Mapping[str, int | float | str]:
        """QC1 parameters of its header, by name without ``ESO QC``."""

    @property
    def keywords(self) -> Mapping[str, Value]:
        """Every other card of its header."""

    def rows(self, start: int, stop: int) -> Image:
        """Return trimmed rows [start, stop)."""


@dataclass(frozen=True)
class TableSource:
    """A calibration table of the channel with the cards of its header."""

    table: Table
    keywords: Mapping[str, Value] = field(default_factory=dict)


class Source(Protocol):
    """A file of several extensions: a cube, a pixel table, a catalogue with a table for each of its entries."""

    @property
    def measurements(self) -> Mapping[str, int | float | str]:
        """QC1 parameters of its primary header, by name without ``ESO QC``."""

    @property
    def keywords(self) -> Mapping[str, Value]:
        """Every other card of its primary header."""

    @property
    def tables(self) -> tuple[TableSource, ...]:
        """Every table, each with the cards of its own header, EXTNAME among them."""

    @property
    def names(self) -> tuple[str, ...]:
        """EXTNAME of every image, in order; that of the primary HDU is ''."""

    def plane(self, name: str) -> Plane:
        """Return an image, its values on disk until they are asked for.

        Raises
        ------
        RecipeError
            If there is none of that name.
        """


@dataclass(frozen=True, kw_only=True)
class Channel:
    """All that a recipe is given: raw frames by tag, and calibrations by tag.

    Parameters
    ----------
    number : int
        1 to 24.
    stacks : mapping of raw tag to Stack
    images, tables : mapping of PRO.CATG to source
        Images with flags and variance (``MASTER_...``); the table of the channel, or one that serves all.
    files : mapping of PRO.CATG to source
        Calibrations that are neither (``recipes.channel.SEVERAL_EXTENSIONS``).
    detector : Detector
    """

    number: int
    stacks: Mapping[str, Stack]
    images: Mapping[str, ImageSource] = field(default_factory=dict)
    tables: Mapping[str, TableSource] = field(default_factory=dict)
    files: Mapping[str, Source] = field(default_factory=dict)
    detector: Detector = DETECTOR


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """All that the second half of a recipe is given, the one that joins what the first half made of each channel.

    Parameters
    ----------
    channels : mapping of channel to mapping of name to source
        Intermediate products by PRO.CATG, or ``<CATG>_0001`` and so on where they are numbered. Channels that gave
        none are not there.
    missing : tuple of int
        Channels of the raw frames that are not there.
    exposures : mapping of raw tag to sequence of Exposure
        Gains and read noise are those of the first channel.
    tables, files
        Calibrations that serve all channels, as in ``Channel``.
    allocate : callable
        Returns an array on disk of a shape and a type, for what does not fit into memory.
    detector : Detector
    """

    channels: Mapping[int, Mapping[str, Source]]
    missing: tuple[int, ...] = ()
    exposures: Mapping[str, Sequence[Exposure]] = field(default_factory=dict)
    tables: Mapping[str, TableSource] = field(default_factory=dict)
    files: Mapping[str, Source] = field(default_factory=dict)
    allocate: Callable[[tuple[int, ...], type[np.generic]], "WritableArray"] = np.zeros
    detector: Detector = DETECTOR


@dataclass(frozen=True, kw_only=True)
class Product:
    """One product of one channel, or of all.

    ``catg`` is its PRO.CATG. ``exptime`` replaces EXPTIME of the header where the recipe rescaled to another time.
    ``number`` counts from 1 where there is one for each exposure (``PIXTABLE_STD_0001``).
    """

    catg: str
    content: Image | Table | Extensions
    number: int = 0
    measurements: tuple[Measurement, ...] = ()
    keywords: tuple[Keyword, ...] = ()
    exptime: float | None = None

    @property
    def name(self) -> str:
        """PRO.CATG, with the number if it has one: the stem of its file."""
        return f"{self.catg}_{self.number:04d}" if self.number else self.catg


@dataclass(frozen=True)
class Result:
    """What a recipe made of one channel or of all, and sentences an operator should read."""

    products: tuple[Product, ...]
    warnings: tuple[str, ...] = ()


def parameter(
    default: Value,
    help: str,  # noqa: A002 - the word that every option parser uses
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[Value, ...] = (),
) -> Any:  # noqa: ANN401 - stands for a field of any type
    """Declare one recipe parameter: ESO's default, a sentence, and its range (ends included)."""
    return field(default=default, metadata={"help": help, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Params:
    """Base of a recipe's parameters; ESO's names and defaults. Values out of range are refused at construction."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, limits = getattr(self, item.name), item.metadata
            if limits["choices"] and value not in limits["choices"]:
                raise ParameterError(f"{item.name} = {value!r} is not one of {', '.join(map(str, limits['choices']))}")
            if limits["least"] is not None and value < limits["least"]:
                raise ParameterError(f"{item.name} = {value} is below its least value {limits['least']}")
            if limits["most"] is not None and value > limits["most"]:
                raise ParameterError(f"{item.name} = {value} is above its greatest value {limits['most']}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """Build from settings; an unknown name or a value of another type is an error.

        Raises
        ------
        ParameterError
        """
        known = {item.name: item for item in fields(cls)}
        for name, value in values.items():
            if name not in known:
                raise ParameterError(f"{name} is not a parameter here; there are {', '.join(sorted(known)) or 'none'}")
            wanted = type(known[name].default)
            whole_number_for_real = wanted is float and type(value) is int
            if type(value) is not wanted and not whole_number_for_real:
                raise ParameterError(f"{name} = {value!r} is a {type(value).__name__}; a {wanted.__name__} is needed")
        return cls(**{name: float(v) if type(known[name].default) is float else v for name, v in values.items()})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe is a value.

    Parameters
    ----------
    name : str
        ESO's name, ``muse_bias``.
    version : str
        Ours; part of a step's identity, so raise it whenever results change.
    raw : tuple of str
        Raw tags it takes; the first of which there are frames is the main one.
    minimum : int
        Least number of raw frames of the main tag.
    needed, optional : tuple of str
        PRO.CATG of calibrations.
    makes : tuple of str
        PRO.CATG of products, always all of them.
    params : type of Params
    reduce : callable
        The pure function: one channel and parameters in, a result out.
    combine : callable, optional
        A second pure function, of a recipe whose products are of the whole instrument: an ``Instrument`` and
        parameters in, a result out. A channel that fails is then left out of the product.
    intermediate : tuple of str
        PRO.CATG that ``reduce`` makes for ``combine`` alone; they are not archived.
    """

    name: str
    version: str
    raw: tuple[str, ...]
    minimum: int
    makes: tuple[str, ...]
    params: type[Params]
    reduce: Callable[[Channel, Any], Result]
    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    combine: Callable[[Instrument, Any], Result] | None = None
    intermediate: tuple[str, ...] = ()
