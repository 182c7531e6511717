"""Smoothing of spectra with errors: sliding polynomials, sliding medians and means. Widths and ranges: MP."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recipes.muse import NOTCH
from recipes.stats import Real

HALF_POLYNOMIAL = 150.0  # Angstrom to either side that a polynomial is fitted to
HALF_MEAN = 15.0  # Angstrom to either side that a mean or median is taken of
_ORDER = 3
_REJECTED = 3.0  # rms of the residuals beyond which a point is left out of a polynomial
_BATCH = 256  # points whose polynomials are fitted together

# Angstrom: where the blue cut-off filter begins, with its real kink.
_KINKS = {"WFM-NOAO-N": 4775.0, "WFM-NONAO-N": 4775.0, "WFM-AO-N": 4700.0, "NFM-AO-N": 4770.0}

Range = tuple[float, float]


def smooth_ranges(mode: str, *, kinked: bool = True, notched: bool = True) -> tuple[Range, ...]:
    """Return the ranges of wavelength in which a spectrum of an ``INS MODE`` is smooth.

    Parameters
    ----------
    mode : str
    kinked : bool
        The spectrum shows the edges of the filters, as one does from which the lamp was taken out.
    notched : bool
        It was taken through the notch filter.
    """
    if not kinked:
        return ((-np.inf, np.inf),)
    gap = NOTCH.get(mode) if notched else None
    edges = [_KINKS.get(mode, -np.inf), *(gap or ()), np.inf]
    return tuple(pairwise(edges))[:: 2 if gap else 1]


def smooth_by_polynomials(wavelength: Real, values: Real, errors: Real, ranges: tuple[Range, ...]) -> tuple[Real, Real]:
    """Put each value on the cubic that fits its neighbourhood, then take sliding means.

    Parameters
    ----------
    wavelength, values, errors : arrays, shape (points,)
        Ascending wavelengths, Angstrom.
    ranges : tuple of (low, high)
        Each is smoothed on its own; points outside stay as they are.

    Returns
    -------
    values, errors : arrays
        Errors hold the scatter of the points about what is smooth.
    """
    values, errors = np.array(values, float), np.array(errors, float)
    for inside in _members(wavelength, ranges):
        fitted, mean_square = _slide_polynomial(wavelength[inside], values[inside])
        spread = np.hypot(errors[inside], np.sqrt(mean_square))
        values[inside], scatter = _slide_mean(wavelength[inside], fitted)
        errors[inside] = np.hypot(spread, scatter)
    return values, errors


def smooth_by_medians(wavelength: Real, values: Real, errors: Real, ranges: tuple[Range, ...]) -> tuple[Real, Real]:
    """Take sliding medians; parameters as for ``smooth_by_polynomials``.

    The error is the mean absolute deviation of the values, or the median of their errors if that is larger.
    """
    values, errors = np.array(values, float), np.array(errors, float)
    for inside in _members(wavelength, ranges):
        start, stop = _windows(wavelength[inside], HALF_MEAN, symmetric=True)
        old, old_errors = values[inside], errors[inside]
        medians, deviations = np.empty_like(old), np.empty_like(old)
        for point, (first, last) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
            medians[point] = np.median(old[first:last])
            deviation = np.abs(old[first:last] - medians[point]).mean()
            deviations[point] = max(deviation, float(np.median(old_errors[first:last])))
        values[inside], errors[inside] = medians, deviations
    return values, errors


def _members(wavelength: Real, ranges: tuple[Range, ...]) -> list[NDArray[np.bool_]]:
    masks = [(wavelength >= low) & (wavelength <= high) for low, high in ranges]
    return [mask for mask in masks if mask.any()]


def _windows(wavelength: Real, half: float, *, symmetric: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first index of the points within ``half`` of each, and the one behind the last.

    Windows that are symmetric end where the nearer end of the spectrum would cut them.
    """
    start = np.searchsorted(wavelength, wavelength - half, side="left")
    stop = np.searchsorted(wavelength, wavelength + half, side="right")
    if symmetric:
        here = np.arange(len(wavelength))
        reach = np.minimum(here - start, stop - 1 - here)
        start, stop = here - reach, here + reach + 1
    return start, stop


def _slide_mean(wavelength: Real, values: Real) -> tuple[Real, Real]:
    """Return sliding means, and the standard deviation of the values in each."""
    start, stop = _windows(wavelength, HALF_MEAN, symmetric=True)
    number = stop - start
    centre = values.mean()
    sums = np.concatenate([[0], np.cumsum(values - centre)])
    squares = np.concatenate([[0], np.cumsum(np.square(values - centre))])
    mean = (sums[stop] - sums[start]) / number
    variance = (squares[stop] - squares[start] - number * mean**2) / np.maximum(number - 1, 1)
    return centre + mean, np.sqrt(np.maximum(variance, 0))


def _slide_polynomial(wavelength: Real, values: Real) -> tuple[Real, Real]:
    """Return the value at each point of the cubic through its neighbourhood, and the mean square of the residuals."""
    fitted, mean_square = values.copy(), np.zeros_like(values)
    start, stop = _windows(wavelength, HALF_POLYNOMIAL, symmetric=False)
    for first in range(0, len(values), _BATCH):
        points = np.arange(first, min(first + _BATCH, len(values)))
        points = points[(stop - start)[points] > _ORDER + 1]  # fewer points define no more than themselves
        if not len(points):
            continue
        places = start[points, None] + np.arange((stop - start)[points].max())
        used = places < stop[points, None]
        places = np.minimum(places, len(values) - 1)
        distance = (wavelength[places] - wavelength[points, None]) / HALF_POLYNOMIAL
        powers = distance[..., None] ** np.arange(_ORDER + 1)
        unsettled = np.arange(len(points))  # points whose neighbourhood may lose another point
        while len(unsettled):
            part, here, kept = powers[unsettled], values[places[unsettled]], used[unsettled]
            weighted = part * kept[..., None]
            normal = weighted.swapaxes(1, 2) @ part
            right = weighted.swapaxes(1, 2) @ here[..., None]
            coefficients = np.linalg.solve(normal, right)
            residual = here - (part @ coefficients)[..., 0]
            squares = (np.square(residual) * kept).sum(axis=1) / kept.sum(axis=1)
            fitted[points[unsettled]], mean_square[points[unsettled]] = coefficients[:, 0, 0], squares
            within = kept & (np.abs(residual) <= _REJECTED * np.sqrt(squares)[:, None])
            changed = (within != kept).any(axis=1) & (within.sum(axis=1) > _ORDER + 1)
            used[unsettled[changed]] = within[changed]
            unsettled = unsettled[changed]
    return fitted, mean_square
