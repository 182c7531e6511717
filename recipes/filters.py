"""Filters, and images of the field through them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.cube import Grid, Planes
from recipes.recipe import Keyword, Plane, Source
from recipes.stats import Real

_WHITE = (4650.0, 9300.0)  # Angstrom, of the filter that is built in; MP


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Throughput against wavelength in Angstrom, straight between the points and 0 outside; what its header says."""

    name: str
    wavelength: Real
    throughput: Real
    keywords: tuple[Keyword, ...] = ()

    def at(self, wavelength: Real) -> Real:
        """Return the throughput at any wavelengths."""
        return np.interp(wavelength, self.wavelength, self.throughput, left=0, right=0)

    def covered(self, low: float, high: float) -> float:
        """Return the part of the filter, in per cent of its area, that data from ``low`` to ``high`` cover."""
        low, high = max(low, float(self.wavelength[0])), min(high, float(self.wavelength[-1]))
        inside = np.clip(np.unique([*self.wavelength, low, high]), low, max(low, high))
        total = _area(self.wavelength, self.throughput)
        return 100 * _area(inside, self.at(inside)) / total if total > 0 else 0.0


def _area(x: Real, y: Real) -> float:
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


WHITE = Filter(name="white", wavelength=np.array(_WHITE), throughput=np.ones(2))


def find_filters(names: Sequence[str], catalogue: Source | None) -> tuple[tuple[Filter, ...], tuple[str, ...]]:
    """Return filters by name, from a FILTER_LIST or built in, and the names of those that are in neither."""
    tables = catalogue.tables if catalogue else ()
    listed = {str(table.keywords.get("EXTNAME", "")).upper(): table for table in tables}  # case says nothing in FITS
    found, missing = [], []
    for name in names:
        if name == WHITE.name:
            found.append(WHITE)
        elif name.upper() in listed:
            table = listed[name.upper()]
            zero_points = (("ZP_VEGA", "ZPVEGA"), ("ZP_AB", "ZPAB"))
            found.append(
                Filter(
                    name=name,
                    wavelength=np.asarray(table.table["lambda"], float),
                    throughput=np.asarray(table.table["throughput"], float),
                    keywords=tuple(
                        Keyword(f"ESO DRS MUSE FILTER {ours}", table.keywords[theirs], "[mag] zeropoint of the filter")
                        for theirs, ours in zero_points
                        if theirs in table.keywords
                    ),
                )
            )
        else:
            missing.append(name)
    return tuple(found), tuple(missing)


class FieldImages:
    """Images of the field through filters, made while the planes of a cube pass by.

    Parameters
    ----------
    filters : sequence of Filter
    grid : Grid
    """

    def __init__(self, filters: Sequence[Filter], grid: Grid) -> None:
        self._filters, self._grid = tuple(filters), grid
        shape = (len(self._filters), *grid.shape[1:])
        self._sums, self._weights = np.zeros(shape), np.zeros(shape)

    def add(self, planes: Planes) -> None:
        """Take in some planes."""
        good: NDArray[np.bool_] = np.isfinite(planes.data)
        data = np.where(good, planes.data, np.float32(0))
        wavelength = self._grid.wavelengths[planes.which]
        for number, which in enumerate(self._filters):
            weights = which.at(wavelength).astype(np.float32)
            self._sums[number] += np.tensordot(weights, data, axes=1)
            self._weights[number] += np.tensordot(weights, good.astype(np.float32), axes=1)

    def planes(self, unit: str) -> tuple[Plane, ...]:
        """Return an image a filter: the mean of the planes, weighted by the throughput; NaN without light."""
        wavelength = self._grid.wavelengths
        with np.errstate(invalid="ignore"):
            means = (self._sums / np.where(self._weights > 0, self._weights, np.nan)).astype(np.float32)
        return tuple(
            Plane(
                name=which.name,
                values=image,
                unit=unit,
                keywords=(
                    *self._grid.keywords(),
                    Keyword("ESO DRS MUSE FILTER NAME", which.name, "filter name used"),
                    Keyword(
                        "ESO DRS MUSE FILTER FRACTION",
                        which.covered(float(wavelength[0]), float(wavelength[-1])),
                        "[%] fraction of filter covered by the data",
                    ),
                    *which.keywords,
                ),
            )
            for which, image in zip(self._filters, means, strict=True)
        )
