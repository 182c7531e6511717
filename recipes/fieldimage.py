"""The cube of a field of stars, and the image in which the stars are found."""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from recipes.cube import COSMIC_RAY_LIMIT, Allocate, Drizzle, Grid
from recipes.exposure import Limits, MergedExposure
from recipes.filters import WHITE, FieldImages
from recipes.platesolution import PlateSolution
from recipes.recipe import Array, Extensions, Float32, Keyword, Plane, PlaneKind

_STEP = 50.0  # Angstrom, of the planes of the cube; MP
_HALF = 1  # planes to either side of the middle one, whose median shows the stars; MP
_MEDIAN_OF_THREE = 1.35  # variance of the median of three values over that of their mean
_DETECTION = "ASTROMETRY_DETECTION"  # EXTNAME of that image; MP
_ALTERNATIVE = "S"  # letter of the world coordinates in the image of the stars; MP


@dataclass(frozen=True, kw_only=True)
class FieldImage:
    """The cube of a field, and the image in which its stars are found.

    Parameters
    ----------
    grid : Grid
    data, stat : Array, shape (planes, rows, columns)
    stars, variance : float32 arrays, shape (rows, columns)
        Median of the planes around the middle one.
    middle : float32 array, shape (rows, columns)
        That plane alone.
    images : tuple of Plane
        Others of the field.
    unit : str
    """

    grid: Grid
    data: Array
    stat: Array
    stars: Float32
    variance: Float32
    middle: Float32
    images: tuple[Plane, ...]
    unit: str

    @property
    def wavelength(self) -> float:
        """Angstrom of the middle plane."""
        return float(self.grid.wavelengths[self.grid.shape[0] // 2])

    def content(self, solution: PlateSolution) -> Extensions:
        """Return the extensions of a DATACUBE_ASTROMETRY."""
        world, squared = self.grid.cube_keywords(), f"({self.unit})**2"
        flat = (*self.grid.keywords(), *solution.keywords(_ALTERNATIVE), Keyword("WCSNAMES", "Solution"))
        return Extensions(
            (
                Plane(name="DATA", values=self.data, unit=self.unit, errors="STAT", keywords=world),
                Plane(
                    name="STAT",
                    values=self.stat,
                    unit=squared,
                    kind=PlaneKind.VARIANCE,
                    data="DATA",
                    keywords=world,
                ),
                *self.images,
                Plane(name=_DETECTION, values=self.stars, unit=self.unit, errors=f"{_DETECTION}_STAT", keywords=flat),
                Plane(
                    name=f"{_DETECTION}_STAT",
                    values=self.variance,
                    unit=squared,
                    kind=PlaneKind.VARIANCE,
                    data=_DETECTION,
                    keywords=flat,
                ),
            )
        )


def make_image(merged: MergedExposure, unit: str, allocate: Allocate) -> FieldImage:
    """Make a cube with planes of 50 Angstrom, and the image of the stars from the three in its middle."""
    limits = merged.limits()
    grid = Grid.around(reduce(Limits.__or__, limits.values()), _STEP)
    drizzle = Drizzle(grid, allocate)
    for channel, extent in limits.items():
        drizzle.add(merged.pixels(channel), extent, cosmic_rays=COSMIC_RAY_LIMIT)
    data, stat = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32)
    images = FieldImages((WHITE,), grid)
    for planes in drizzle.planes():
        data[planes.which], stat[planes.which] = planes.data, planes.stat
        images.add(planes)
    middle = grid.shape[0] // 2
    around = slice(max(middle - _HALF, 0), middle + _HALF + 1)
    light, variance = data[around], stat[around]
    known = np.isfinite(light).all(axis=0)
    number = len(light)
    return FieldImage(
        grid=grid,
        data=data,
        stat=stat,
        stars=np.where(known, np.median(light, axis=0), np.float32(np.nan)),
        variance=(variance.sum(axis=0) * np.float32(_MEDIAN_OF_THREE / number**2)).astype(np.float32),
        middle=data[middle],
        images=images.planes(unit),
        unit=unit,
    )
