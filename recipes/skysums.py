"""Sums of pixels on a grid of field pixels and wide steps of wavelength, so that channels can be added up afterwards.

The grid is the same for all channels: cells of 1 by 1 field pixel, one of which ends in the middle of the field in x
and one of which is in the middle in y. A pixel of 1 by 1 field pixel and one step of the dispersion is shared between
the cells that it covers (drizzle, pixel fraction 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recipes.muse import DISPERSION
from recipes.positions import SliceMap
from recipes.recipe import Extensions, Float32, Keyword, Plane, PlaneKind, Source, Value
from recipes.stats import Real

_NAMES = ("SUM", "WEIGHT", "VARIANCE")
_MARGIN = 2  # cells around the slices
MIDDLE = (0.5, 0.0)  # field x and y of the middle of cell (0, 0)


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over the pixels of some slices; arrays of shape (planes, y, x).

    Parameters
    ----------
    data, weight, variance : float64 arrays
        Weighted data, weights, and variances with the squares of the weights.
    x, y : int
        First cell, counted from the one at ``MIDDLE``.
    wavelength, step : float
        Of the first plane, and from one plane to the next, Angstrom.
    """

    data: Real
    weight: Real
    variance: Real
    x: int
    y: int
    wavelength: float
    step: float

    @classmethod
    def around(cls, maps: Sequence[SliceMap], low: float, high: float, step: float) -> Self:
        """Return empty sums with room for some slices, planes from one wavelength to another."""
        half = np.array([which.length / 2 for which in maps])
        middle = np.array([(which.x, which.y) for which in maps])
        least, most = (middle - half[:, None]).min(axis=0), (middle + half[:, None]).max(axis=0)
        tilt = np.array([abs(np.sin(which.angle)) for which in maps])
        least[1], most[1] = (middle[:, 1] - half * tilt).min(), (middle[:, 1] + half * tilt).max()
        first = np.floor(least).astype(int) - _MARGIN
        size = np.ceil(most).astype(int) + _MARGIN - first + 1
        shape = (int(np.ceil((high - low) / step)) + 1, int(size[1]), int(size[0]))
        data, weight, variance = np.zeros((3, *shape))
        return cls(
            data=data,
            weight=weight,
            variance=variance,
            x=int(first[0]),
            y=int(first[1]),
            wavelength=low,
            step=step,
        )

    def add(self, which: SliceMap, x: Float32, wavelength: Float32, data: Float32, stat: Float32) -> None:
        """Add pixels of one slice; they lie on its line through the field.

        Parameters
        ----------
        which : SliceMap
        x, wavelength, data, stat : float32 arrays, shape (pixels,)
        """
        planes, _, columns = self.data.shape
        depth = (wavelength - np.float64(self.wavelength)) / self.step
        plane = np.floor(depth + 0.5).astype(np.intp)
        # The part of a pixel that reaches into the plane before or after, if it crosses the border.
        beyond = (np.abs(depth - plane) - 0.5) * (self.step / DISPERSION) + 0.5
        place = x - np.float64(MIDDLE[0])
        cell = np.floor(place).astype(np.intp)
        right = place - cell
        cell -= self.x
        strip = np.zeros((3, planes * columns))

        inside = slice(None) if plane.min() >= 0 and plane.max() < planes else (plane >= 0) & (plane < planes)
        own = np.minimum(1 - beyond, 1)
        _share(strip, (plane * columns + cell)[inside], right[inside], own[inside], data[inside], stat[inside])
        neighbour = plane + np.where(depth > plane, 1, -1)
        crossing = (beyond > 0) & (neighbour >= 0) & (neighbour < planes)
        index = neighbour[crossing] * columns + cell[crossing]
        _share(strip, index, right[crossing], beyond[crossing], data[crossing], stat[crossing])

        along = np.clip(self.x + MIDDLE[0] + np.arange(columns) - which.x, -which.length / 2, which.length / 2)
        height = which.y + along * np.tan(which.angle) - MIDDLE[1] - self.y
        row = np.floor(height).astype(np.intp)
        upper = height - row
        line = strip.reshape(3, planes, columns)
        column = np.arange(columns)
        for part, offset in ((1 - upper, 0), (upper, 1)):
            self.data[:, row + offset, column] += line[0] * part
            self.weight[:, row + offset, column] += line[1] * part
            self.variance[:, row + offset, column] += line[2] * np.square(part)

    def content(self) -> Extensions:
        """Return the sums as extensions of a file."""
        cards = (
            *(Keyword(f"CRPIX{axis}", 1.0) for axis in (1, 2, 3)),
            Keyword("CRVAL1", self.x + MIDDLE[0]),
            Keyword("CRVAL2", self.y + MIDDLE[1]),
            Keyword("CRVAL3", self.wavelength),
            Keyword("CD3_3", self.step),
        )
        values = (self.data, self.weight, self.variance)
        return Extensions(
            tuple(
                Plane(name=name, values=array, kind=PlaneKind.PLAIN, keywords=cards)
                for name, array in zip(_NAMES, values, strict=True)
            )
        )

    @classmethod
    def of(cls, source: Source) -> Self:
        """Return the sums that a file holds."""
        planes = [source.plane(name) for name in _NAMES]
        cards: Mapping[str, Value] = {keyword.name: keyword.value for keyword in planes[0].keywords}
        data, weight, variance = (plane.values[:].astype(np.float64) for plane in planes)
        return cls(
            data=data,
            weight=weight,
            variance=variance,
            x=round(float(cards["CRVAL1"]) - MIDDLE[0]),
            y=round(float(cards["CRVAL2"]) - MIDDLE[1]),
            wavelength=float(cards["CRVAL3"]),
            step=float(cards["CD3_3"]),
        )


def _share(strip: Real, index: NDArray[np.intp], right: Real, weight: Real, data: Float32, variance: Float32) -> None:
    """Add pixels to a cell and to the one on its right, by the parts that lie there.

    Parameters
    ----------
    strip : float64 array, shape (3, cells)
        Sums of weighted data, weights, and variances with the squares of the weights.
    index, right, weight, data, variance : arrays, shape (pixels,)
        Cell; part of the pixel that lies in the next one; weight in both; and what is added.
    """
    size = strip.shape[1]
    for part, cell in ((1 - right, index), (right, index + 1)):
        both = weight * part
        strip[1] += np.bincount(cell, both, size)
        strip[0] += np.bincount(cell, both * data, size)
        both *= both
        both *= variance
        strip[2] += np.bincount(cell, both, size)


def add_up(parts: Sequence[tuple[Sums, float]], x: tuple[int, int], y: tuple[int, int]) -> tuple[Float32, Float32]:
    """Return the mean of several sums, each divided by a factor, and its variance, on part of the grid.

    Parameters
    ----------
    parts : sequence of (Sums, float)
        On the same planes.
    x, y : (int, int)
        First and last cell.

    Returns
    -------
    data, variance : float32 arrays, shape (planes, y, x)
        NaN where there is no pixel.
    """
    shape = (len(parts[0][0].data), y[1] - y[0] + 1, x[1] - x[0] + 1)
    data, weight, variance = np.zeros((3, *shape))
    for sums, factor in parts:
        there, here = _overlap(sums, x, y)
        data[here] += sums.data[there] / factor
        weight[here] += sums.weight[there]
        variance[here] += sums.variance[there] / factor**2
    weight[weight <= 0] = np.nan
    return (data / weight).astype(np.float32), (variance / weight**2).astype(np.float32)


def _overlap(
    sums: Sums, x: tuple[int, int], y: tuple[int, int]
) -> tuple[tuple[slice, slice, slice], tuple[slice, slice, slice]]:
    """Return the part of the sums that lies within a window, and where in the window that is."""
    _, rows, columns = sums.data.shape
    there, here = [slice(None)], [slice(None)]
    for first, length, (low, high) in ((sums.y, rows, y), (sums.x, columns, x)):
        start, stop = max(first, low), max(min(first + length, high + 1), first, low)
        there.append(slice(start - first, stop - first))
        here.append(slice(start - low, stop - low))
    return (there[0], there[1], there[2]), (here[0], here[1], here[2])
