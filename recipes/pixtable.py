"""Pixel tables: each illuminated pixel of a channel with the place in the field and the wavelength that it sees.

Rows are in the order of ESO's: by slice, then by detector row, then by column. Places are in field pixels as in the
GEOMETRY_TABLE (0.2 arcsec in wide-field mode, x to the right, y up); the detector's x runs against the field's.

A table has 13.5 million rows, 380 MB. What is written computes its columns when they are asked for; what is read,
``StoredPixels``, hands out blocks of rows, slices, or slabs of wavelength.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import SLICES
from recipes.recipe import (
    Array,
    Channel,
    Column,
    Extensions,
    Flags,
    Float32,
    Keyword,
    Plane,
    PlaneKind,
    RecipeError,
    Source,
    Table,
    TableSource,
    Value,
)
from recipes.stats import Real

PREFIX = "ESO DRS MUSE PIXTABLE"
FLAT_FIELD = "PIXTABLE_FLAT_FIELD"  # EXTNAME of the spectrum of the flat field; MP
SPECTRUM_UNITS = MappingProxyType({"lambda": "Angstrom", "data": "count"})
# Extensions of a file by the name of the column here, and their units; MP
_EXTENSIONS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "x": ("xpos", "pix"),
        "y": ("ypos", "pix"),
        "wavelength": ("lambda", "Angstrom"),
        "data": ("data", "count"),
        "dq": ("dq", ""),
        "stat": ("stat", "count**2"),
        "origin": ("origin", ""),
    }
)
# How the origin of a pixel is packed into 32 bits: column within the slice, row, channel, slice; MP
_COLUMN_SHIFT, _ROW_SHIFT, _CHANNEL_SHIFT = 24, 11, 6
_ROW_MASK, _CHANNEL_MASK, _SLICE_MASK = 0x1FFF, 0x1F, 0x3F
_LEFT_MARGIN = 20  # columns by which the column within a slice is counted from further left; MP
_POSSIBLE = (3000.0, 11000.0)  # Angstrom; a pixel with another wavelength has none; MP
_CHUNK = 1024  # rows of a stored table of which the range of wavelengths is remembered
_ROWS_AT_ONCE = 1 << 20  # rows that are read in one go where a whole column passes by

Origins = NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class PixelTable:
    """Some rows of a pixel table; arrays of shape (rows,).

    Parameters
    ----------
    x, y : float32 arrays
        Field pixels.
    wavelength : float32 array
        Angstrom, air.
    data : float32 array
        Electrons, divided by the flat field.
    dq : unsigned integer array
        ``muse.Flag`` bits.
    stat : float32 array
        Variance, square electrons.
    origin : uint32 array
        Where on the detector, packed; see ``slices``, ``rows``, ``channels``.
    """

    x: Float32
    y: Float32
    wavelength: Float32
    data: Float32
    dq: Flags
    stat: Float32
    origin: Origins

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> "PixelTable":
        """Return some rows, chosen as those of an array are."""
        return PixelTable(**{item.name: getattr(self, item.name)[chosen] for item in fields(self)})

    @property
    def slices(self) -> NDArray[np.uint32]:
        """Number on the detector of the slice of each pixel, 1 to 48."""
        return self.origin & np.uint32(_SLICE_MASK)

    @property
    def channels(self) -> NDArray[np.uint32]:
        """Channel of each pixel."""
        return (self.origin >> np.uint32(_CHANNEL_SHIFT)) & np.uint32(_CHANNEL_MASK)

    @property
    def rows(self) -> NDArray[np.uint32]:
        """Trimmed detector row of each pixel, from 1."""
        return (self.origin >> np.uint32(_ROW_SHIFT)) & np.uint32(_ROW_MASK)

    @classmethod
    def joined(cls, tables: Sequence["PixelTable"]) -> "PixelTable":
        """Return the rows of several tables, one after the other."""
        return cls(**{i.name: np.concatenate([getattr(table, i.name) for table in tables]) for i in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class SliceMap:
    """Which pixels of the detector belong to a slice, and what they see.

    Parameters
    ----------
    channel, number : int
        1 to 24, and 1 to 48 from left to right on the detector.
    centre, width : float arrays, shape (rows,)
        Of the slice on each trimmed row, pix from 1.
    first, count : integer arrays, shape (rows,)
        Column of its first whole pixel, from 1, and how many there are; none from the first row on where the trace
        leaves the detector.
    offset : int
        Column from which columns within the slice are counted.
    dispersion : float array, shape (powers of x, powers of y)
        Angstrom; x and y in pix from 1.
    x, y, angle, length : float
        Middle of the slice in the field, field pixels; its angle, radians; its length, field pixels.
    """

    channel: int
    number: int
    centre: Real
    width: Real
    first: NDArray[np.intp]
    count: NDArray[np.intp]
    offset: int
    dispersion: Real
    x: float
    y: float
    angle: float
    length: float

    def wavelengths(self, rows: slice) -> tuple[Real, NDArray[np.bool_]]:
        """Return the wavelength of each pixel of some rows, from the left, and where there is a pixel.

        Returns
        -------
        wavelength, there : arrays, shape (rows, most pixels on a row)
        """
        first, count = self.first[rows], self.count[rows]
        column = np.arange(max(int(count.max(initial=0)), 1))
        y = np.arange(rows.start + 1, rows.start + 1 + len(first), dtype=np.float64)
        x = first[:, None] + column.astype(np.float64)
        powers = [np.polynomial.polynomial.polyval(y, series)[:, None] for series in self.dispersion]
        wavelength = np.broadcast_to(powers[-1], x.shape).copy()
        for power in powers[-2::-1]:
            wavelength *= x
            wavelength += power
        return wavelength, column < count[:, None]

    def origins(self, rows: slice) -> Origins:
        """Return the packed origin of each pixel of some rows, as ``wavelengths`` has them."""
        first, count = self.first[rows], self.count[rows]
        column = (first - self.offset)[:, None] + np.arange(max(int(count.max(initial=0)), 1))
        row = np.arange(rows.start + 1, rows.start + 1 + len(first))[:, None] << _ROW_SHIFT
        packed = column.astype(np.uint32) << np.uint32(_COLUMN_SHIFT)
        packed |= (row | self.channel << _CHANNEL_SHIFT | self.number).astype(np.uint32)
        return packed

    def pixels(self, origin: Origins) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return rows and columns, from 0, of pixels of this slice."""
        row = ((origin >> np.uint32(_ROW_SHIFT)) & np.uint32(_ROW_MASK)).astype(np.intp)
        column = (origin >> np.uint32(_COLUMN_SHIFT)).astype(np.intp)
        row -= 1
        column += self.offset - 1
        return row, column

    def along(self, origin: Origins) -> Float32:
        """Return how far pixels of this slice lie from its middle, field pixels; in single precision, as ESO has it."""
        row, column = self.pixels(origin)
        away = self.centre[row]
        away -= column + 1
        away /= self.width[row]
        away *= self.length
        return away.astype(np.float32)

    def field_x(self, along: Float32) -> Float32:
        """Return field x of distances from the middle of the slice."""
        place: Real = along.astype(np.float64) * np.cos(self.angle) + self.x
        return place.astype(np.float32)

    def field_y(self, along: Float32) -> Float32:
        """Return field y of distances from the middle of the slice."""
        place: Real = along.astype(np.float64) * np.sin(self.angle) + self.y
        return place.astype(np.float32)


def map_slices(channel: Channel) -> tuple[SliceMap, ...]:
    """Join TRACE_TABLE, WAVECAL_TABLE and GEOMETRY_TABLE of a channel.

    Raises
    ------
    RecipeError
        If a slice lacks its wavelengths or its place.
    """
    trace, wavecal, geometry = (
        channel.tables[catg].table for catg in ("TRACE_TABLE", "WAVECAL_TABLE", "GEOMETRY_TABLE")
    )
    places = np.flatnonzero(geometry["SubField"] == channel.number)
    place_of = dict(zip(geometry["SliceCCD"][places].tolist(), places.tolist(), strict=True))
    solution_of = {int(number): row for row, number in enumerate(wavecal["SliceNo"])}
    return tuple(
        _map_slice(channel, trace, row, wavecal, solution_of.get(number), geometry, place_of.get(number))
        for row, number in enumerate(trace["SliceNo"].tolist())
    )


def _map_slice(
    channel: Channel, trace: Table, row: int, wavecal: Table, solution: int | None, geometry: Table, place: int | None
) -> SliceMap:
    number, rows = int(trace["SliceNo"][row]), channel.detector.shape[0]
    y = np.arange(1, rows + 1, dtype=np.float64)
    left, right = (np.polynomial.polynomial.polyval(y, _series(trace, f"tc{which}_", row)) for which in (1, 2))
    with np.errstate(invalid="ignore"):
        inside = (left >= 1) & (right <= channel.detector.shape[1]) & (left <= right)
    inside = np.logical_and.accumulate(inside)
    first = np.where(inside, np.ceil(np.where(inside, left, 1)), 1).astype(np.intp)
    last = np.where(inside, np.floor(np.where(inside, right, 0)), 0).astype(np.intp)
    dispersion = _dispersion(wavecal, solution)
    middle = np.polynomial.polynomial.polyval2d(left[rows // 2], rows / 2, dispersion)
    if not (np.isfinite(middle) and middle > 0):
        raise RecipeError(
            f"WAVECAL_TABLE has no usable solution of slice {number} of channel {channel.number}; make it anew.",
            slice=number,
        )
    values = {
        name: float(geometry[name][place]) if place is not None else np.nan for name in ("x", "y", "angle", "width")
    }
    if not all(np.isfinite(value) for value in values.values()):
        raise RecipeError(
            f"GEOMETRY_TABLE does not say where slice {number} of channel {channel.number} looks; give one that does.",
            slice=number,
        )
    return SliceMap(
        channel=channel.number,
        number=number,
        centre=(left + right) / 2,
        width=right - left,
        first=first,
        count=np.maximum(last - first + 1, 0) * inside,
        offset=int(np.floor(left[0])) - _LEFT_MARGIN,
        dispersion=dispersion,
        x=values["x"],
        y=values["y"],
        angle=float(np.radians(values["angle"])),
        length=values["width"],
    )


def _series(table: Table, prefix: str, row: int) -> Real:
    """Return the coefficients of one row in the columns of a prefix and two digits."""
    names = [column.name for column in table.columns if column.name.startswith(prefix)]
    return np.array([table[name][row] for name in sorted(names)], np.float64)


def _dispersion(wavecal: Table, row: int | None) -> Real:
    names = [column.name for column in wavecal.columns if column.name.startswith("wlc")]
    powers = [(int(name[3]), int(name[4:])) for name in names]
    series = np.zeros(tuple(max(power) + 1 for power in zip(*powers, strict=True)))
    for name, power in zip(names, powers, strict=True):
        series[power] = wavecal[name][row] if row is not None else np.nan
    return series


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of a channel within a range of wavelengths, in the order of the pixel table.

    Parameters
    ----------
    maps : tuple of SliceMap
    wavelength : float32 array, shape (pixels,)
    origin : uint32 array, shape (pixels,)
    starts : integer array, shape (slices, detector rows + 1)
        Where in the table the pixels of each row of a slice begin.
    """

    maps: tuple[SliceMap, ...]
    wavelength: Float32
    origin: Origins
    starts: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.origin)

    def columns(self) -> tuple[Float32, NDArray[np.uint16], Float32]:
        """Return room for data, flags and variance of the pixels."""
        return np.empty(len(self), np.float32), np.empty(len(self), np.uint16), np.empty(len(self), np.float32)

    def of_slices(self) -> Iterator[tuple[SliceMap, slice]]:
        """Yield each slice that has pixels, and where in the table they are."""
        for which, starts in zip(self.maps, self.starts, strict=True):
            if starts[0] < starts[-1]:
                yield which, slice(int(starts[0]), int(starts[-1]))

    def within(self, rows: slice) -> bool:
        """Return whether there are any pixels in some detector rows."""
        return bool((self.starts[:, rows.stop] > self.starts[:, rows.start]).any())

    def take(self, rows: slice, planes: Sequence[NDArray[Any]], columns: Sequence[NDArray[Any]]) -> None:
        """Put the pixels of some detector rows into columns of the table.

        Parameters
        ----------
        rows : slice
            Detector rows.
        planes : sequence of arrays, shape (rows, detector columns)
            What is to go into each column.
        columns : sequence of arrays, shape (pixels,)
        """
        flat = [plane.reshape(-1) for plane in planes]
        width = planes[0].shape[1]
        for which, starts in zip(self.maps, self.starts, strict=True):
            part = slice(int(starts[rows.start]), int(starts[rows.stop]))
            if part.start == part.stop:
                continue
            row, column = which.pixels(self.origin[part])
            row -= rows.start
            row *= width
            row += column
            for plane, target in zip(flat, columns, strict=True):
                np.take(plane, row, out=target[part])


def find_pixels(maps: Sequence[SliceMap], low: float, high: float, shift: float = 0.0) -> Pixels:
    """Return the pixels whose wavelength lies from ``low`` to ``high`` Angstrom, both included.

    ``shift`` is added to the wavelengths first. Both are rounded to single precision, as ESO does.
    """
    wavelengths, origins, numbers = [], [], []
    for which in maps:
        rows = _rows_within(which, low - shift - 1, high - shift + 1)
        wave, there = which.wavelengths(rows)
        there &= (wave >= _POSSIBLE[0]) & (wave <= _POSSIBLE[1])
        single = wave.astype(np.float32)
        if shift:
            single = (single.astype(np.float64) + shift).astype(np.float32)
        there &= (single >= low) & (single <= high)
        wavelengths.append(single[there])
        origins.append(which.origins(rows)[there])
        number = np.zeros(len(which.first), np.intp)
        number[rows] = np.count_nonzero(there, axis=1)
        numbers.append(number)
    ends = np.cumsum(np.array(numbers)).reshape(len(numbers), -1)
    starts = np.concatenate([np.concatenate([[0], ends[:-1, -1]])[:, None], ends], axis=1)
    return Pixels(
        maps=tuple(maps), wavelength=np.concatenate(wavelengths), origin=np.concatenate(origins), starts=starts
    )


def _rows_within(which: SliceMap, low: float, high: float) -> slice:
    """Return the detector rows between the first and the last that have wavelengths in a range."""
    y = np.arange(1, len(which.first) + 1, dtype=np.float64)
    lit = np.flatnonzero(which.count)
    if not lit.size:
        return slice(0, 0)
    ends = [
        np.polynomial.polynomial.polyval2d(x, y, which.dispersion)
        for x in (which.first, which.first + which.count // 2, which.first + which.count - 1)
    ]
    reached = (np.max(ends, axis=0) >= low) & (np.min(ends, axis=0) <= high) & (which.count > 0)
    chosen = np.flatnonzero(reached)
    return slice(int(chosen[0]), int(chosen[-1]) + 1) if chosen.size else slice(0, 0)


@dataclass(frozen=True)
class _Computed:
    """A column of a pixel table that is computed, slice by slice, when rows of it are asked for."""

    pixels: Pixels
    compute: Callable[[SliceMap, slice], NDArray[Any]]
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.pixels), 1

    def __getitem__(self, index: slice) -> NDArray[Any]:
        start, stop, _ = index.indices(len(self.pixels))
        result = np.empty((max(stop - start, 0), 1), self.dtype)
        for which, part in self.pixels.of_slices():
            wanted = slice(max(part.start, start), min(part.stop, stop))
            if wanted.start < wanted.stop:
                result[wanted.start - start : wanted.stop - start, 0] = self.compute(which, wanted)
        return result


def pixel_table(pixels: Pixels, data: Float32, dq: Flags, stat: Float32, spectrum: Table) -> Extensions:
    """Return the content of a PIXTABLE product.

    Parameters
    ----------
    pixels : Pixels
    data, dq, stat : arrays, shape (pixels,)
    spectrum : Table
        Of the flat field, columns lambda and data.
    """

    def computed(compute: Callable[[SliceMap, slice], NDArray[Any]], dtype: type[np.generic]) -> _Computed:
        return _Computed(pixels, compute, np.dtype(dtype))

    values: dict[str, Array] = {
        "x": computed(lambda which, part: which.field_x(which.along(pixels.origin[part])), np.float32),
        "y": computed(lambda which, part: which.field_y(which.along(pixels.origin[part])), np.float32),
        "wavelength": pixels.wavelength[:, None],
        "data": data[:, None],
        "dq": computed(lambda _, part: dq[part], np.uint32),
        "stat": stat[:, None],
        "origin": pixels.origin[:, None],
    }
    planes = tuple(
        Plane(name=name, values=values[column], unit=unit, kind=PlaneKind.PLAIN)
        for column, (name, unit) in _EXTENSIONS.items()
    )
    return Extensions((*planes, spectrum))


def flat_spectrum(wavelength: Real, data: Real) -> Table:
    """Return the table of the flat field's spectrum that goes with a pixel table."""
    pairs = zip(SPECTRUM_UNITS.items(), (wavelength, data), strict=True)
    columns = (Column(name=name, values=values.astype(np.float64), unit=unit) for (name, unit), values in pairs)
    return Table(name=FLAT_FIELD, columns=tuple(columns))


def describe(pixels: Pixels) -> tuple[Keyword, ...]:
    """Return the cards of a pixel table: its type, its offsets, and the limits of its columns."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for which, part in pixels.of_slices():
        along = which.along(_ends_of_rows(pixels.origin[part]))
        place = np.array([which.field_x(along), which.field_y(along)])
        low, high = np.minimum(low, place.min(axis=1)), np.maximum(high, place.max(axis=1))
    numbers = [which.number for which, _ in pixels.of_slices()]
    channel = pixels.maps[0].channel
    limits: dict[str, tuple[Value, Value]] = {
        "X": (float(low[0]), float(high[0])),
        "Y": (float(low[1]), float(high[1])),
        "LAMBDA": (float(pixels.wavelength.min()), float(pixels.wavelength.max())),
        "IFU": (channel, channel),
        "SLICE": (min(numbers), max(numbers)),
    }
    return (
        Keyword(f"{PREFIX} TYPE", "GEOFULL", "pixel table with full geometry information"),
        *(
            Keyword(
                f"{PREFIX} EXP0 IFU{channel:02d} SLICE{which.number:02d} XOFFSET",
                which.offset,
                "x-offset of given slice in given IFU of given exposure",
            )
            for which in pixels.maps
        ),
        *(
            Keyword(f"{PREFIX} LIMITS {name} {end}", value)
            for name, pair in limits.items()
            for end, value in zip(("LOW", "HIGH"), pair, strict=True)
        ),
    )


def _ends_of_rows(origin: Origins) -> Origins:
    """Return the first and the last pixel on each detector row; all others of the row lie between them."""
    row = (origin >> np.uint32(_ROW_SHIFT)) & np.uint32(_ROW_MASK)
    turn = np.flatnonzero(np.diff(row))
    return np.concatenate([origin[:1], origin[turn], origin[turn + 1], origin[-1:]])


class StoredPixels:
    """A pixel table of one channel in a file, ours or ESO's; rows are read when they are asked for.

    Parameters
    ----------
    source : Source

    Raises
    ------
    RecipeError
        If it lacks a column.
    """

    def __init__(self, source: Source) -> None:
        self.keywords: Mapping[str, Value] = source.keywords
        self._source = source
        self._columns = {column: source.plane(name) for column, (name, _) in _EXTENSIONS.items()}

    def __len__(self) -> int:
        return self._columns["data"].values.shape[0]

    @cached_property
    def flat_field(self) -> TableSource | None:
        """The spectrum of the flat field, columns ``lambda`` and ``data``; None where the table has none."""
        named = [source for source in self._source.tables if source.table.name == FLAT_FIELD]
        return named[0] if named else None

    def limits(self, name: str) -> tuple[float, float]:
        """Return least and greatest value of ``X``, ``Y``, ``LAMBDA``, ``IFU`` or ``SLICE``, as the header has them.

        Raises
        ------
        RecipeError
            If the header does not have them.
        """
        try:
            low, high = (float(self.keywords[f"{PREFIX} LIMITS {name} {end}"]) for end in ("LOW", "HIGH"))
        except KeyError as error:
            raise RecipeError(f"The pixel table has no {error.args[0]}; give one of muse_scibasic.") from error
        return low, high

    def block(self, start: int, stop: int) -> PixelTable:
        """Return rows [start, stop)."""
        found = {name: plane.values[start:stop].reshape(-1) for name, plane in self._columns.items()}
        found["origin"], found["dq"] = found["origin"].view(np.uint32), found["dq"].view(np.uint32)
        return PixelTable(**found)

    def slices(self) -> dict[int, slice]:
        """Return the rows of each slice by its number on the detector."""
        number, first = self._slices
        last = np.append(first[1:], len(self))
        return {int(n): slice(int(a), int(b)) for n, a, b in zip(number, first, last, strict=True)}

    def slab(self, low: float, high: float) -> PixelTable:
        """Return the rows with ``low <= wavelength < high`` Angstrom; only some more than those are read."""
        least, most = self._chunks
        wanted = np.concatenate([[False], (most >= low) & (least < high), [False]])
        starts, stops = np.flatnonzero(~wanted[:-1] & wanted[1:]), np.flatnonzero(wanted[:-1] & ~wanted[1:])
        parts = [self.block(0, 0)]
        for start, stop in zip(starts * _CHUNK, np.minimum(stops * _CHUNK, len(self)), strict=True):
            block = self.block(int(start), int(stop))
            parts.append(block[(block.wavelength >= low) & (block.wavelength < high)])
        return PixelTable.joined(parts)

    @cached_property
    def _slices(self) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
        """Number and first row of each slice; slices follow one after the other."""
        numbers, firsts, before = [], [], -1
        for start in range(0, len(self), _ROWS_AT_ONCE):
            values = self._columns["origin"].values[start : start + _ROWS_AT_ONCE].reshape(-1).view(np.uint32)
            number = values & np.uint32(_SLICE_MASK)
            turn = np.flatnonzero(np.diff(number, prepend=np.uint32(before if before >= 0 else SLICES + 1)))
            numbers.append(number[turn])
            firsts.append(turn + start)
            before = int(number[-1])
        return np.concatenate(numbers), np.concatenate(firsts)

    @cached_property
    def _chunks(self) -> tuple[Float32, Float32]:
        """Least and greatest wavelength of each chunk of rows."""
        least, most = [], []
        for start in range(0, len(self), _ROWS_AT_ONCE):
            values = self._columns["wavelength"].values[start : start + _ROWS_AT_ONCE].reshape(-1)
            edges = np.arange(0, len(values), _CHUNK)
            least.append(np.minimum.reduceat(values, edges))
            most.append(np.maximum.reduceat(values, edges))
        return np.concatenate(least), np.concatenate(most)
