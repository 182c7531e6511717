"""Pixel tables to cubes: world coordinates, cosmic rays, and resampling by drizzle.

A cube is filled channel after channel (``Drizzle.add``) and read some planes at a time (``Drizzle.planes``). Its sums
stand in an array on disk, so that memory does not grow with the number of channels.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from recipes.exposure import FieldPixels, Limits
from recipes.muse import DISPERSION
from recipes.recipe import Float32, Keyword, WritableArray
from recipes.stats import Real

BLUR = 6**-0.5  # pix; standard deviation along x or y of what spreading pixels over voxels adds, on average
COSMIC_RAY_LIMIT = 25.0  # median absolute deviations of the neighbours, in cubes of stars; MP
_PLANES = 96  # of the cube, that are read together
_CHUNK = 1 << 16  # pixels that are distributed together: their part of the cube stays in the processor's cache
_BACK = 100.0  # Angstrom by which wavelength falls from the last pixel of a slice to the first of the next
_CANDIDATE = 5.0  # sigma above both neighbours across the slices, below which no pixel is looked at for cosmic rays
_MARGINS = 1, 1, 3  # voxels along wavelength, y and x in which neighbours of a pixel may stand
_LEAST_NEIGHBOURS = 3  # MP
_LEAST_WEIGHT = 1e-6  # share of a pixel, of which a voxel has no value: the error of single precision
_TESTED = 1 << 16  # candidates judged together

Allocate = Callable[[tuple[int, ...], type[np.generic]], WritableArray]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the voxels of a cube lie: field positions in pix of 0.2 arcsec, and wavelength.

    Parameters
    ----------
    x, y, wavelength : float
        Of the middle of the first voxel; pix, pix, Angstrom.
    step : float
        Angstrom a plane.
    shape : (planes, rows, columns)
    """

    x: float
    y: float
    wavelength: float
    step: float = DISPERSION
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, limits: Limits, step: float = DISPERSION) -> "Grid":
        """Return the grid that ESO's recipes lay around pixels."""
        (left, right), (bottom, top), (blue, red) = limits.x, limits.y, limits.wavelength
        planes = math.ceil((red - blue) / step) + 1
        shape = planes, math.floor(top - bottom + 0.5) + 1, math.floor(right - left + 0.5) + 1
        return cls(x=left, y=bottom, wavelength=blue, step=step, shape=shape)

    @property
    def wavelengths(self) -> Real:
        """Angstrom of each plane."""
        return self.wavelength + self.step * np.arange(self.shape[0])

    def keywords(self) -> tuple[Keyword, ...]:
        """Return the world coordinates of an image of the field."""
        cards: tuple[tuple[str, float | str], ...] = (
            ("CRPIX1", 1.0), ("CRVAL1", self.x), ("CTYPE1", "PIXEL"), ("CUNIT1", "pixel"), ("CD1_1", 1.0),
            ("CRPIX2", 1.0), ("CRVAL2", self.y), ("CTYPE2", "PIXEL"), ("CUNIT2", "pixel"), ("CD2_2", 1.0),
            ("CD1_2", 0.0), ("CD2_1", 0.0),
        )  # fmt: skip
        return tuple(Keyword(name, value) for name, value in cards)

    def cube_keywords(self) -> tuple[Keyword, ...]:
        """Return the world coordinates of a cube."""
        cards: tuple[tuple[str, float | str], ...] = (
            ("CTYPE3", "AWAV"), ("CUNIT3", "Angstrom"), ("CD3_3", self.step), ("CRPIX3", 1.0),
            ("CRVAL3", self.wavelength), ("CD1_3", 0.0), ("CD2_3", 0.0), ("CD3_1", 0.0), ("CD3_2", 0.0),
        )  # fmt: skip
        return self.keywords() + tuple(Keyword(name, value) for name, value in cards)


@dataclass(frozen=True)
class Planes:
    """Some planes of a cube: ``rows`` of it, data and variance of shape (planes, rows, columns), NaN without light."""

    which: slice
    data: Float32
    stat: Float32


class Drizzle:
    """Distributes pixels over the voxels of a cube, each by the share of its volume that lies in the voxel.

    A pixel is as large as a voxel of 1 x 1 pix and 1.25 Angstrom. The value of a voxel is the mean of what falls into
    it, weighted by the shares.

    Parameters
    ----------
    grid : Grid
    allocate : callable
        ``Instrument.allocate``, or ``numpy.zeros`` if all fits into memory.
    """

    def __init__(self, grid: Grid, allocate: Allocate) -> None:
        self.grid = grid
        planes, rows, columns = grid.shape
        self._slabs = -(-planes // _PLANES)
        # Sums of weight, of weighted data and of variance with the squared weight. The rows of a slab of planes follow
        # each other: a channel has few rows of all planes, and what is read are all rows of a few planes.
        self._sums = allocate((self._slabs * rows, 3, _PLANES, columns), np.float32)

    def add(self, blocks: Iterable[FieldPixels], limits: Limits, *, cosmic_rays: float = 0.0) -> int:
        """Add the pixels of a channel.

        Parameters
        ----------
        blocks : iterable of FieldPixels
            As ``MergedExposure.pixels`` gives them; neighbours in the field should be in one block.
        limits : Limits
            Of all these pixels; memory is taken for the rows of the cube that lie within.
        cosmic_rays : float
            Pixels so many median absolute deviations above the median of their neighbours are left out; 0 for none.

        Returns
        -------
        int
            Number of pixels left out as cosmic rays.
        """
        planes, rows, columns = self.grid.shape
        first = max(math.floor(limits.y[0] - self.grid.y), 0)
        last = min(math.floor(limits.y[1] - self.grid.y) + 2, rows)
        strip, rejected = np.zeros((max(last - first, 0), 3, planes, columns), np.float32), 0
        for block in blocks:
            hit = find_cosmic_rays(block, self.grid, cosmic_rays) if cosmic_rays > 0 and len(block) else None
            rejected += 0 if hit is None else int(np.count_nonzero(hit))
            for part in _parts(block):
                pixels = block[part]
                good = self._inside(pixels)
                if hit is not None:
                    good &= ~hit[part]
                if good.any():
                    self._distribute(pixels if good.all() else pixels[good], strip, first)
        for slab in range(self._slabs):
            of_slab = strip[:, :, slab * _PLANES : (slab + 1) * _PLANES]
            where = slice(slab * rows + first, slab * rows + first + len(strip))
            sums: NDArray[Any] = self._sums[where]
            sums[:, :, : of_slab.shape[2]] += of_slab
            self._sums[where] = sums
        return rejected

    def planes(self, start: int = 0, stop: int | None = None) -> Iterator[Planes]:
        """Yield the planes of the cube in order: every slab that holds some from ``start`` to before ``stop``."""
        planes, rows, _ = self.grid.shape
        last = planes if stop is None else stop
        for slab in range(start // _PLANES, -(-last // _PLANES)):
            which = slice(slab * _PLANES, min((slab + 1) * _PLANES, planes))
            sums = self._sums[slab * rows : (slab + 1) * rows]
            weight, data, stat = (
                np.ascontiguousarray(sums[:, kind, : which.stop - which.start].swapaxes(0, 1)) for kind in range(3)
            )
            weight[weight < _LEAST_WEIGHT] = np.nan
            data /= weight
            np.square(weight, out=weight)
            stat /= weight
            yield Planes(which, data, stat)

    def _inside(self, pixels: FieldPixels) -> NDArray[np.bool_]:
        """Return which pixels touch the cube."""
        planes, rows, columns = self.grid.shape
        half = (self.grid.step + DISPERSION) / 2
        end = self.grid.wavelength + (planes - 1) * self.grid.step + half
        inside = (pixels.x > self.grid.x - 1) & (pixels.x < self.grid.x + columns)
        inside &= (pixels.y > self.grid.y - 1) & (pixels.y < self.grid.y + rows)
        inside &= (pixels.wavelength > self.grid.wavelength - half) & (pixels.wavelength < end)
        return inside

    def _distribute(self, pixels: FieldPixels, strip: Float32, first: int) -> None:
        """Add pixels to the sums of a strip that begins with row ``first`` of the cube."""
        step = self.grid.step
        row, upper = _shares(pixels.y, self.grid.y + first, 1.0, 1.0)
        plane, redder = _shares(pixels.wavelength, self.grid.wavelength, DISPERSION / step, 1 / step)
        column, right = _shares(pixels.x, self.grid.x, 1.0, 1.0)
        # All that these pixels touch is a box: they are summed there first, then the box is added.
        lowest = [int(index.min()) for index in (row, plane, column)]
        box = [int(index.max()) - low + 2 for index, low in zip((row, plane, column), lowest, strict=True)]
        voxel = ((row - lowest[0]) * box[1] + (plane - lowest[1])) * box[2] + (column - lowest[2])
        shares, voxels = np.empty((len(pixels), 8), np.float32), np.empty((len(pixels), 8), np.int32)
        across = [height * depth for height in upper for depth in redder]
        for number, (line, k) in enumerate(np.ndindex(4, 2)):
            np.multiply(across[line], right[k], out=shares[:, number])
            np.add(voxel, (line // 2 * box[1] + line % 2) * box[2] + k, out=voxels[:, number])
        ends = np.arange(0, voxels.size + 1, 8, dtype=np.int32)
        shape = math.prod(box), len(pixels)
        counted = np.stack([np.ones_like(pixels.data), pixels.data], axis=1)
        sums = np.empty((*box, 3), np.float32)
        sums[..., :2] = (csc_array((shares.reshape(-1), voxels.reshape(-1), ends), shape=shape) @ counted).reshape(
            *box, 2
        )
        np.square(shares, out=shares)
        sums[..., 2] = (csc_array((shares.reshape(-1), voxels.reshape(-1), ends), shape=shape) @ pixels.stat).reshape(
            box
        )
        most = strip.shape[0], strip.shape[2], strip.shape[3]
        here = [slice(max(low, 0), min(low + size, end)) for low, size, end in zip(lowest, box, most, strict=True)]
        part = tuple(slice(to.start - low, to.stop - low) for to, low in zip(here, lowest, strict=True))
        strip[here[0], :, here[1], here[2]] += sums[part].transpose(0, 3, 1, 2)


def resampling_blur(
    positions: Iterable[tuple[Float32, Float32, Float32]], grid: Grid, x: float, y: float, radius: float
) -> tuple[Real, Real]:
    """Return by how much drizzle blurs what stands at a place of the cube, in every plane.

    A pixel that lies by a fraction f beside the middle of a voxel is shared with the next one, which adds f (1 - f) to
    the variance of a profile. The slices have steps of one pix, as the voxels have, so that f is the same in all of
    them; it changes with wavelength, because refraction moves the star through the slices.

    Parameters
    ----------
    positions : iterable of (x, y, wavelength)
        Of the pixels of the channels that look there: pix, pix, Angstrom.
    grid : Grid
    x, y : float
        Place in the cube, counted from 0.
    radius : float
        Pix around it that count.

    Returns
    -------
    along_x, along_y : arrays, shape (planes,)
        Standard deviations, pix.
    """
    planes = grid.shape[0]
    number, sums = np.zeros(planes), np.zeros((2, planes))
    for across, up, wavelength in positions:
        near = np.flatnonzero(np.abs(up - np.float32(grid.y + y)) < radius)
        near = near[np.abs(across[near] - np.float32(grid.x + x)) < radius]
        plane = np.rint((wavelength[near] - grid.wavelength) / grid.step).astype(np.intp)
        near, plane = near[(plane >= 0) & (plane < planes)], plane[(plane >= 0) & (plane < planes)]
        number += np.bincount(plane, minlength=planes)
        fractions = [(place[near] - zero) % 1.0 for place, zero in ((across, grid.x), (up, grid.y))]
        sums += [np.bincount(plane, fraction * (1 - fraction), planes) for fraction in fractions]
    with np.errstate(invalid="ignore"):
        variances = np.where(number > 0, sums / np.maximum(number, 1), BLUR**2)
    along_x, along_y = np.sqrt(variances)
    return along_x, along_y


def _parts(pixels: FieldPixels) -> Iterator[slice]:
    """Yield parts of pixels that lie together: cut where a slice ends, and if they are many."""
    ends = np.flatnonzero(np.diff(pixels.wavelength) < -_BACK) + 1
    edges = [0, *ends.tolist(), len(pixels)]
    for start, stop in pairwise(edges):
        for place in range(start, stop, _CHUNK):
            yield slice(place, min(place + _CHUNK, stop))


def _shares(
    position: Float32, zero: float, size: float, scale: float
) -> tuple[NDArray[np.int32], tuple[Float32, Float32]]:
    """Return the first of the two cells that a pixel may touch along an axis, and its shares in both.

    Parameters
    ----------
    position : float32 array
    zero : float
        Position of the middle of cell 0.
    size : float
        Of a pixel, in cells; 1 at most.
    scale : float
        Cells a unit of position.
    """
    edge = (position - np.float32(zero)) * np.float32(scale) + np.float32(0.5 - size / 2)
    cell = np.floor(edge)
    edge -= cell
    lower = np.minimum((1 - edge) / np.float32(size), np.float32(1))
    return cell.astype(np.int32), (lower, 1 - lower)


def find_cosmic_rays(pixels: FieldPixels, grid: Grid, limit: float) -> NDArray[np.bool_]:
    """Find pixels that stand out from their neighbours in the field and in wavelength.

    Neighbours are the voxels around that of the pixel, in the rows of the field beside it and three planes. In its own
    row, which the same slice fills, a cosmic ray may have touched the next ones too: there it is those two and three
    pix away. Without them the peak of a sharp star, or one between two channels, would look like a cosmic ray. Of each
    voxel the last of its pixels speaks.

    Parameters
    ----------
    pixels : FieldPixels
        All of them inside the grid.
    grid : Grid
    limit : float
        Median absolute deviations above the median.

    Returns
    -------
    bool array, one a pixel
    """
    indices = [
        np.rint((position - np.float32(zero)) * np.float32(scale)).astype(np.int32)
        for position, zero, scale in (
            (pixels.wavelength, grid.wavelength, 1 / grid.step), (pixels.y, grid.y, 1.0), (pixels.x, grid.x, 1.0),
        )
    ]  # fmt: skip
    # With an empty margin around, every pixel has all neighbours.
    indices = [index - int(index.min()) + margin for index, margin in zip(indices, _MARGINS, strict=True)]
    planes, rows, columns = (int(i.max()) + 1 + margin for i, margin in zip(indices, _MARGINS, strict=True))
    place = (indices[1] * planes + indices[0]) * columns + indices[2]
    values = np.full(rows * planes * columns, np.nan, np.float32)
    values[place] = pixels.data
    across = planes * columns
    brighter = np.fmax(values[place - across], values[place + across])
    candidates = np.flatnonzero(pixels.data - brighter > _CANDIDATE * np.sqrt(pixels.stat))
    around = np.array(
        [0]
        + [up * across + depth * columns + beside for up in (-1, 1) for depth in (-1, 0, 1) for beside in (-1, 0, 1)]
        + [depth * columns + beside for depth in (-1, 0, 1) for beside in (-3, -2, 2, 3)]
    )
    hit = np.zeros(len(pixels), bool)
    for start in range(0, len(candidates), _TESTED):
        some = candidates[start : start + _TESTED]
        neighbours = values[place[some, None] + around]
        number = np.count_nonzero(np.isfinite(neighbours), axis=1)
        median = _median(neighbours, number)
        deviation = _median(np.abs(neighbours - median[:, None]), number)
        hit[some] = (number >= _LEAST_NEIGHBOURS) & (pixels.data[some] > median + np.float32(limit) * deviation)
    return hit


def _median(values: Float32, number: NDArray[np.intp]) -> Float32:
    """Return the median of each row, whose finite values are ``number``."""
    ordered = np.sort(values, axis=1)  # NaN comes last
    rows = np.arange(len(values))
    middle: Float32 = ordered[rows, (number - 1) // 2]
    middle += ordered[rows, number // 2]
    middle *= np.float32(0.5)
    return middle
