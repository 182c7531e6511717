"""Pixel tables: each illuminated pixel of a channel with the place in the field and the wavelength that it sees.

Rows are in the order of ESO's: by slice, then by detector row, then by column.

A table has 13.5 million rows, 380 MB. What is written computes its columns when they are asked for; what is read,
``StoredPixels``, hands out blocks of rows, slices, or slabs of wavelength.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import SLICES
from recipes.positions import (
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    ROW_MASK,
    ROW_SHIFT,
    SLICE_MASK,
    Origins,
    Pixels,
    SliceMap,
)
from recipes.recipe import (
    Array,
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
_CHUNK = 1024  # rows of a stored table of which the range of wavelengths is remembered
_ROWS_AT_ONCE = 1 << 20  # rows that are read in one go where a whole column passes by


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
        return self.origin & np.uint32(SLICE_MASK)

    @property
    def channels(self) -> NDArray[np.uint32]:
        """Channel of each pixel."""
        return (self.origin >> np.uint32(CHANNEL_SHIFT)) & np.uint32(CHANNEL_MASK)

    @property
    def rows(self) -> NDArray[np.uint32]:
        """Trimmed detector row of each pixel, from 1."""
        return (self.origin >> np.uint32(ROW_SHIFT)) & np.uint32(ROW_MASK)

    @classmethod
    def joined(cls, tables: Sequence["PixelTable"]) -> "PixelTable":
        """Return the rows of several tables, one after the other."""
        return cls(**{i.name: np.concatenate([getattr(table, i.name) for table in tables]) for i in fields(cls)})


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
    row = (origin >> np.uint32(ROW_SHIFT)) & np.uint32(ROW_MASK)
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

    def column(self, name: str, rows: slice) -> NDArray[Any]:
        """Return some rows of one column, by its name in ``PixelTable``."""
        values = self._columns[name].values[rows].reshape(-1)
        return values.view(np.uint32) if name in ("origin", "dq") else values

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
            number = values & np.uint32(SLICE_MASK)
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
