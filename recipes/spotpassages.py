"""Passages of pinholes across slices: what the spots of one channel tell of each slice, as the mask moves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import HOLE_DISTANCE, SLICES
from recipes.recipe import RecipeError, Table
from recipes.spots import HOLES

Real = NDArray[np.floating[Any]]

_LIMIT = 5.0  # sigma, beyond which the light of a line in one frame is left out, as a cosmic ray makes it
_PIXELS = 121  # whose read noise is in the light of a spot
_READ_NOISE = 3.0  # electrons, for the weight of faint spots
_UNMODELLED = 0.01  # of its light, by which a spot may differ from what other lines have
_OUTLIER = 4.0  # sigma, beyond which a line does not count for the place of a slice
_FEW = 5  # values, of which none is left out
_ROUNDS = 5  # of leaving out and taking the mean anew
_FIT_ROUNDS = 15
_FIRST_SIGMA = 0.06  # mm, half-height of a hole's image
_COPIES = (-1, 0, 1, 2)  # rows of holes that may cross a slice, counted from the first within the range of the mask
_FAR = 2.5  # sigma, that a passage must be inside the range of the mask to measure the distance of holes
_LEAST_CURVES = 10  # for that distance
_SETTLED = 2e-4  # mm, that the last round may move a passage
_LEAST_CONTRAST = 10.0  # sigma of the height of a passage


@dataclass(frozen=True, kw_only=True)
class ChannelSpots:
    """The spots of a channel by line, slice and place; slices count from 0 as on the detector.

    Parameters
    ----------
    wavelengths : array, shape (lines,)
        Angstrom.
    scale : float
        Of the focal plane, arcsec a mm.
    heights : array, shape (frames,)
        Of the mask, mm, ascending.
    place : array, shape (lines, slices, spots)
        Along the slice, from -0.5 at its left edge to 0.5 on the detector; NaN where not measured.
    flux : array, shape (lines, slices, spots, frames)
        Electrons; NaN where not measured.
    """

    wavelengths: Real
    scale: float
    heights: Real
    place: Real
    flux: Real

    def light_of_a_passage(self) -> Real:
        """Return what each line of each spot gives while one row of holes passes, shape (lines, slices * spots).

        Electrons, summed over the frames; NaN where not measured.
        """
        total = np.where(np.isfinite(self.flux).any(axis=3), np.nansum(self.flux, axis=3), np.nan)
        way = len(self.heights) * float(np.median(np.diff(self.heights)))
        return total.reshape(len(self.wavelengths), -1) / max(way / HOLE_DISTANCE[1], 1)


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Light of each spot against the height of the mask, of all lines together; its sum over the frames is about 1.

    Parameters
    ----------
    heights : array, shape (frames,), mm
    values, errors : arrays, shape (curves, frames)
    """

    heights: Real
    values: Real
    errors: Real


@dataclass(frozen=True, kw_only=True)
class Passages:
    """When a row of holes crosses a slice; arrays of shape (curves,). NaN where it could not be told.

    Parameters
    ----------
    height, error : arrays, mm
        Of the mask; that of the first row within its range.
    sigma : array, mm
    distance, distance_error : arrays, mm
        Between two rows; the given one with no error, if it was not fitted.
    """

    height: Real
    error: Real
    sigma: Real
    distance: Real
    distance_error: Real


def read_spots(table: Table) -> ChannelSpots:
    """Sort a SPOTS_TABLE of one channel.

    Raises
    ------
    RecipeError
        If it has no rows.
    """
    if not len(table["lambda"]):
        raise RecipeError("A SPOTS_TABLE has no rows; measure the spots of that channel anew.")
    wavelengths, line = np.unique(table["lambda"], return_inverse=True)
    _, first, frame = np.unique(table["image"], return_index=True, return_inverse=True)
    heights = table["VPOS"][first]
    order = np.argsort(heights, kind="stable")
    where = line, table["SliceCCD"] - 1, table["SpotNo"] - 1, np.argsort(order)[frame]
    shape = len(wavelengths), SLICES, HOLES, len(order)
    flux, place = np.full(shape, np.nan), np.full(shape, np.nan)
    flux[where] = table["flux"]
    lit = table["xfwhm"] > 0
    place[where] = np.where(lit, table["dxcen"] / table["twidth"], np.nan)
    weights = np.where(np.isfinite(place), flux, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(place * weights, axis=-1) / weights.sum(axis=-1)
    return ChannelSpots(
        wavelengths=wavelengths,
        scale=float(np.mean(table["ScaleFOV"])),
        heights=heights[order],
        place=mean,
        flux=flux,
    )


def clipped_mean(values: Real, weights: Real) -> tuple[Real, Real]:
    """Return the weighted mean along the first axis without outliers, and its error from their scatter.

    Parameters
    ----------
    values, weights : arrays, shape (lines, ...)
        NaN is left out.

    Returns
    -------
    mean, error : arrays, shape (...)
        NaN where there is nothing; the error is infinite where there is a single value.
    """
    good = np.isfinite(values) & (weights > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ordered = np.sort(np.where(good, values, np.inf), axis=0)
        count = good.sum(axis=0)
        middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
        # The deviation of a few values may be small by chance.
        spread = 1.4826 * (1 + _FEW / count) * _median(np.where(good, np.abs(values - middle), np.nan))
        spread = np.where(count > _FEW, spread, np.inf)
        for _ in range(_ROUNDS):
            used = good & (np.abs(values - middle) <= _OUTLIER * spread)
            weight = np.where(used, weights, 0)
            total = weight.sum(axis=0)
            mean = np.where(used, values * weights, 0).sum(axis=0) / total
            variance = (weight * np.where(used, values - mean, 0) ** 2).sum(axis=0) / total
            number = total**2 / (weight**2).sum(axis=0)
            middle, spread = mean, np.where(count > _FEW, np.maximum(np.sqrt(variance), 1e-12), np.inf)
        error = np.sqrt(variance / (number - 1))
    return np.where(count > 0, mean, np.nan), np.where(number > 1 + 1e-9, error, np.inf)


def _median(values: Real) -> Real:
    ordered = np.sort(values, axis=0)  # NaN last
    count = np.isfinite(values).sum(axis=0)
    lower = np.take_along_axis(ordered, np.maximum(count - 1, 0)[None] // 2, axis=0)[0]
    upper = np.take_along_axis(ordered, np.minimum(count, len(values) - 1)[None] // 2, axis=0)[0]
    result: Real = (lower + upper) / 2
    return result


def join_lines(spots: ChannelSpots) -> Curves:
    """Add up the light of all lines, but for frames in which a line shows a spot brighter or fainter than the others.

    Returns
    -------
    Curves
        Of shape (slices * spots, frames); NaN where no line shows the spot.
    """
    flux = spots.flux.reshape(len(spots.wavelengths), -1, len(spots.heights))
    known = np.isfinite(flux)
    values = np.where(known, flux, 0)
    total = values.sum(axis=2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        curve = _median(np.where(known, values / total, np.nan))
        for _ in range(_ROUNDS):
            model = total * np.nan_to_num(curve)
            variance = np.maximum(model, 0) + _PIXELS * _READ_NOISE**2 + (_UNMODELLED * model) ** 2
            good = known & (np.abs(values - model) <= _LIMIT * np.sqrt(variance))
            weight = np.where(good, curve, 0)
            total = (weight * values).sum(axis=2, keepdims=True) / (weight**2).sum(axis=2, keepdims=True)
            total = np.where(np.isfinite(total), total, 0)
            shared = (good * total).sum(axis=0)
            curve = np.where(good, values, 0).sum(axis=0) / shared
            error = np.sqrt(np.where(good, variance, 0).sum(axis=0)) / shared
        scale = np.nansum(curve, axis=1, keepdims=True)
        return Curves(heights=spots.heights, values=curve / scale, errors=error / scale)


def fit_passages(curves: Curves, distance: float, *, free: bool = False) -> Passages:
    """Fit a Gaussian for each row of holes to the light against the height of the mask.

    Rows of holes repeat after a distance, so that a passage of which the series shows only the ends is told from two of
    them. Each row has its own brightness, and all rows of a curve have one width.

    Parameters
    ----------
    curves : Curves
    distance : float
        Between rows of holes, mm.
    free : bool
        Fit the distance too, of each curve that shows two passages as a whole; the others become NaN.
    """
    heights, values, errors = curves.heights, curves.values, curves.errors
    good = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    usable = good.sum(axis=1) > len(_COPIES) + 3
    data, weight = np.where(good, values, 0), np.where(good, 1 / np.where(good, errors, 1) ** 2, 0)
    weight /= np.maximum(weight.max(axis=1, keepdims=True), 1e-300)
    turn = np.exp(2j * np.pi * heights / distance)
    phase = np.angle(((data - data.min(axis=1, keepdims=True)) * turn).sum(axis=1)) / (2 * np.pi) * distance
    height = heights[0] + (phase - heights[0]) % distance
    sigma, between = np.full(len(data), _FIRST_SIGMA), np.full(len(data), distance)
    bright = np.repeat(data.max(axis=1)[:, None], len(_COPIES), axis=1)
    floor = np.zeros(len(data))
    copies = np.array(_COPIES)
    for _ in range(_FIT_ROUNDS):
        row = np.clip(np.rint((heights - height[:, None]) / between[:, None]), copies[0], copies[-1]).astype(np.intp)
        away = (heights - height[:, None] - row * between[:, None]) / sigma[:, None]
        bell = np.exp(-(away**2) / 2)
        of_row = row[..., None] == copies
        peak = np.take_along_axis(bright, row - copies[0], axis=1) * bell
        shift = peak * away / sigma[:, None]
        slopes = [*np.moveaxis(of_row * bell[..., None], 2, 0), np.ones_like(bell), shift, shift * away]
        if free:
            slopes.append(shift * row)
        matrix = np.stack(slopes, axis=2)
        normal = np.einsum("cfi,cf,cfj->cij", matrix, weight, matrix)
        scale = np.sqrt(np.maximum(np.einsum("cii->ci", normal), 1e-300))
        normal = normal / (scale[:, :, None] * scale[:, None, :]) + 1e-6 * np.eye(matrix.shape[2])
        residual = data - peak - floor[:, None]
        target = np.einsum("cfi,cf,cf->ci", matrix, weight, residual) / scale
        move = np.linalg.solve(normal, target[..., None])[..., 0] / scale
        bright = np.clip(bright + np.clip(move[:, : len(copies)], -0.5, 0.5), 0, 2)
        floor, move = floor + move[:, len(copies)], move[:, len(copies) + 1 :]
        height = height + np.clip(move[:, 0], -_FIRST_SIGMA, _FIRST_SIGMA)
        sigma = np.clip(sigma + np.clip(move[:, 1], -0.02, 0.02), _FIRST_SIGMA / 4, distance / 3)
        if free:
            between = np.clip(between + np.clip(move[:, 2], -0.02, 0.02), 0.8 * distance, 1.2 * distance)
    number = np.maximum(good.sum(axis=1) - matrix.shape[2], 1)
    noise = (weight * residual**2).sum(axis=1) / number
    inverse = np.linalg.inv(normal)
    first = len(copies) + 1
    error = np.sqrt(noise * inverse[:, first, first]) / scale[:, first]
    settled = usable & (np.abs(move[:, 0]) < _SETTLED)
    settled &= bright.max(axis=1) > np.abs(floor)
    settled &= bright.max(axis=1) > _LEAST_CONTRAST * np.sqrt(noise / np.maximum(weight.mean(axis=1), 1e-300))
    distance_error = np.zeros(len(data))
    if free:
        distance_error = np.sqrt(noise * inverse[:, -1, -1]) / scale[:, -1]
        inside = _FAR * sigma
        settled &= (height - inside > heights[0]) & (height + between + inside < heights[-1])
    return Passages(
        height=np.where(settled, height, np.nan),
        error=np.where(settled, error, np.nan),
        sigma=np.where(settled, sigma, np.nan),
        distance=np.where(settled, between, np.nan),
        distance_error=np.where(settled, distance_error, np.nan),
    )


def measure_distance(curves: list[Curves]) -> float:
    """Return the distance of rows of holes in the millimetres of the stage, from spots that two rows cross.

    Where too few do, it is the distance that the mask was made with.
    """
    found = [fit_passages(one, HOLE_DISTANCE[1], free=True) for one in curves]
    distance = np.concatenate([passages.distance for passages in found])
    error = np.concatenate([passages.distance_error for passages in found])
    good = np.isfinite(distance) & (error > 0)
    if np.count_nonzero(good) < _LEAST_CURVES:
        return HOLE_DISTANCE[1]
    mean, _ = clipped_mean(distance[good], 1 / error[good] ** 2)
    return float(mean)
