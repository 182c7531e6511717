"""Which pixels of the detector belong to a slice, and the place in the field and the wavelength that each of them sees.

Places are in field pixels as in the GEOMETRY_TABLE (0.2 arcsec in wide-field mode, x to the right, y up); the
detector's x runs against the field's. Numbers are rounded where ESO rounds them, so that places and wavelengths are
the same to the last bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval, polyval2d
from numpy.typing import NDArray

from recipes.dispersion import Dispersion, read_dispersions
from recipes.recipe import Channel, Float32, RecipeError
from recipes.stats import Real
from recipes.trace import LEFT, RIGHT, Trace, read_traces

# How the origin of a pixel is packed into 32 bits: column within the slice, row, channel, slice; MP
COLUMN_SHIFT, ROW_SHIFT, CHANNEL_SHIFT = 24, 11, 6
ROW_MASK, CHANNEL_MASK, SLICE_MASK = 0x1FFF, 0x1F, 0x3F
_LEFT_MARGIN = 20  # columns by which the column within a slice is counted from further left; MP
_POSSIBLE = (3000.0, 11000.0)  # Angstrom; a pixel with another wavelength has none; MP

Origins = NDArray[np.uint32]


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
        powers = [polyval(y, series)[:, None] for series in self.dispersion]
        wavelength = np.broadcast_to(powers[-1], x.shape).copy()
        for power in powers[-2::-1]:
            wavelength *= x
            wavelength += power
        return wavelength, column < count[:, None]

    def origins(self, rows: slice) -> Origins:
        """Return the packed origin of each pixel of some rows, as ``wavelengths`` has them."""
        first, count = self.first[rows], self.count[rows]
        column = (first - self.offset)[:, None] + np.arange(max(int(count.max(initial=0)), 1))
        row = np.arange(rows.start + 1, rows.start + 1 + len(first))[:, None] << ROW_SHIFT
        packed = column.astype(np.uint32) << np.uint32(COLUMN_SHIFT)
        packed |= (row | self.channel << CHANNEL_SHIFT | self.number).astype(np.uint32)
        return packed

    def pixels(self, origin: Origins) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return rows and columns, from 0, of pixels of this slice."""
        row = ((origin >> np.uint32(ROW_SHIFT)) & np.uint32(ROW_MASK)).astype(np.intp)
        column = (origin >> np.uint32(COLUMN_SHIFT)).astype(np.intp)
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
        If a slice lacks its edges, its wavelengths or its place.
    """
    traces = read_traces(channel.tables["TRACE_TABLE"].table)
    dispersions = read_dispersions(channel.tables["WAVECAL_TABLE"].table)
    if len(traces) != len(dispersions):
        raise RecipeError(
            f"The TRACE_TABLE of channel {channel.number} has {len(traces)} slices, its WAVECAL_TABLE"
            f" {len(dispersions)}; take them from the same flat.",
            traces=len(traces),
            dispersions=len(dispersions),
        )
    return tuple(
        _map_slice(channel, number, trace, dispersion)
        for number, (trace, dispersion) in enumerate(zip(traces, dispersions, strict=True), 1)
    )


def _map_slice(channel: Channel, number: int, trace: Trace, dispersion: Dispersion) -> SliceMap:
    rows, columns = channel.detector.shape
    y = np.arange(1, rows + 1, dtype=np.float64)
    left, right = trace.polynomials[LEFT](y), trace.polynomials[RIGHT](y)
    inside = np.logical_and.accumulate((left >= 1) & (right <= columns) & (left <= right))
    first = np.where(inside, np.ceil(left), 1).astype(np.intp)
    last = np.where(inside, np.floor(right), 0).astype(np.intp)
    geometry = channel.tables["GEOMETRY_TABLE"].table
    found = np.flatnonzero((geometry["SubField"] == channel.number) & (geometry["SliceCCD"] == number))
    place = {name: float(geometry[name][found[0]]) if found.size else np.nan for name in ("x", "y", "angle", "width")}
    if not np.isfinite(list(place.values())).all():
        raise RecipeError(
            f"The GEOMETRY_TABLE does not say where slice {number} of channel {channel.number} looks; give another.",
            slice=number,
        )
    return SliceMap(
        channel=channel.number,
        number=number,
        centre=(left + right) / 2,
        width=right - left,
        first=first,
        count=np.maximum(last - first + 1, 0),
        offset=int(np.floor(left[0])) - _LEFT_MARGIN,
        dispersion=dispersion.coefficients,
        x=place["x"],
        y=place["y"],
        angle=float(np.radians(place["angle"])),
        length=place["width"],
    )


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
        polyval2d(x, y, which.dispersion)
        for x in (which.first, which.first + which.count // 2, which.first + which.count - 1)
    ]
    reached = (np.max(ends, axis=0) >= low) & (np.min(ends, axis=0) <= high) & (which.count > 0)
    chosen = np.flatnonzero(reached)
    return slice(int(chosen[0]), int(chosen[-1]) + 1) if chosen.size else slice(0, 0)
