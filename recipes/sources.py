"""Stars in images and cubes: detection, widths, and fits of profiles to many cut-outs at once.

Positions are those of pixels counted from 0, x along a row, y up the rows; ESO's keywords count from 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recipes.recipe import Float32
from recipes.stats import Real

FWHM_PER_SIGMA = 2.3548200450309493  # 2 sqrt(2 ln 2)
MAD_PER_SIGMA = 0.6744897501960817  # of Gaussian noise
FIRST_POWER = 2.5  # exponent of a Moffat profile to begin with; MP
LEAST_PIXELS = 16  # of a cut-out, that a profile is fitted to; MP
_STEPS = 60  # of a fit, at most
_UNDAMPED = 1e-2  # of the diagonal; with less damping a step is nearly that of Gauss and Newton
_CONVERGED = 1e-6  # relative decrease of chi square of a step that ends a fit
Blur = float | tuple[Real | float, Real | float]
_BATCH = 1 << 17  # pixels whose profiles are fitted together


@dataclass(frozen=True)
class Detection:
    """A group of pixels above the threshold.

    Parameters
    ----------
    x, y : float
        Centroid of their light above the background.
    pixels : int
    flux : float
        Their light above the background.
    """

    x: float
    y: float
    pixels: int
    flux: float


def detect_sources(image: Float32, sigmas: Sequence[float]) -> tuple[Detection, ...]:
    """Find what stands out of an image, at the first of several thresholds that finds anything.

    Groups narrower than 3 x 3 pixels do not count, as in ESO's recipes.

    Parameters
    ----------
    image : float array, shape (rows, columns)
        NaN where there is no light.
    sigmas : sequence of float
        Thresholds above the median, in standard deviations of the background; the highest first.

    Returns
    -------
    tuple of Detection
        Brightest first; empty if nothing is found.
    """
    finite = np.isfinite(image)
    if not finite.any():
        return ()
    level = float(np.median(image[finite]))
    noise = float(np.median(np.abs(image[finite] - level))) / MAD_PER_SIGMA
    above = np.where(finite, image - level, 0)
    for sigma in sigmas:
        mask = ndimage.binary_opening(above > sigma * noise, np.ones((3, 3), bool))
        labels, number = ndimage.label(mask)
        if number:
            found = []
            for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
                light = np.where(labels[rows, columns] == label, above[rows, columns], 0)
                flux = float(light.sum())
                y, x = (float((light * index).sum()) / flux for index in np.indices(light.shape))
                pixels = int(np.count_nonzero(light))
                found.append(Detection(x + columns.start, y + rows.start, pixels, flux))
            return tuple(sorted(found, key=lambda source: -source.flux))
    return ()


def measure_widths(image: Float32, x: float, y: float, *, background: float = 0.0) -> tuple[float, float]:
    """Return the full widths at half maximum of a peak along x and y, pix; NaN if a half is not reached in the image.

    The maximum is the value at the pixel nearest to the position; half-way places are interpolated.
    """
    column, row = round(x), round(y)
    rows, columns = image.shape
    if not (0 <= row < rows and 0 <= column < columns):
        return math.nan, math.nan
    half = (float(image[row, column]) - background) / 2
    along, across = (np.asarray(line, float) - background for line in (image[row], image[:, column]))
    return _width(along, column, half), _width(across, row, half)


def _width(line: Real, place: int, half: float) -> float:
    ends = []
    for side in (line[place:], line[place::-1]):
        below = np.flatnonzero(~(side > half))
        if not len(below) or below[0] == 0 or not math.isfinite(side[below[0]]):
            return math.nan
        last = int(below[0])
        ends.append(last - (half - side[last]) / (side[last - 1] - side[last]))
    return float(sum(ends))


class CutOut(NamedTuple):
    """A part of an image or of the planes of a cube: shape (..., rows, columns), with the place of its first pixel."""

    values: Float32
    column: int
    row: int


def cut_out(image: Float32, x: float, y: float, half: float) -> CutOut:
    """Cut out the pixels within ``half`` of a position along both axes, as far as the image reaches."""
    rows, columns = image.shape[-2:]
    left, right = max(math.ceil(x - half), 0), min(math.floor(x + half) + 1, columns)
    bottom, top = max(math.ceil(y - half), 0), min(math.floor(y + half) + 1, rows)
    return CutOut(image[..., bottom : max(top, bottom), left : max(right, left)], left, bottom)


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """Profiles fitted to several cut-outs: arrays of one value each, NaN where the fit failed.

    Parameters
    ----------
    background, flux : arrays
        Level below the star, and integral of the profile over the plane.
    x, y : arrays
        Centre, counted from the first pixel of the cut-out.
    width_x, width_y : arrays
        Alpha of a Moffat profile, sigma of a Gaussian; pix.
    power : array
        Exponent beta of a Moffat profile; NaN of a Gaussian.
    tilt : array
        Correlation rho between x and y.
    flux_error, x_error, y_error : arrays
        Standard deviations by the variances of the pixels.
    """

    background: Real
    flux: Real
    x: Real
    y: Real
    width_x: Real
    width_y: Real
    power: Real
    tilt: Real
    flux_error: Real
    x_error: Real
    y_error: Real

    @property
    def fwhm(self) -> tuple[Real, Real]:
        """Full widths at half maximum along x and y, pix."""
        gaussian = np.isnan(self.power)
        factor = 2 * np.sqrt(2 ** (1 / np.where(gaussian, 1, self.power)) - 1)
        factor = np.where(gaussian, FWHM_PER_SIGMA, factor)
        return factor * self.width_x, factor * self.width_y


def fit_moffats(data: Float32, stat: Float32, *, fwhm: float, x: float, y: float, blur: Blur = 0.0) -> Profiles:
    """Fit an elliptical Moffat profile on a level background to each cut-out.

    Parameters
    ----------
    data, stat : arrays, shape (cut-outs, rows, columns)
        Values and variances; pixels that are not finite, or whose variance is not positive, do not count.
    fwhm : float
        About the width of the stars, pix.
    x, y : float
        About their centre, counted from the first pixel.
    blur : float, or (float or array, float or array)
        Standard deviation, pix, of what resampling has added to the cut-outs: ``cube.BLUR`` on average, or that along x
        and that along y, of each (``cube.resampling_blur``).
        The profile is that before: a Moffat profile that was blurred is none any more, and its flux would come out
        one per cent too low.

    Returns
    -------
    Profiles
        NaN for cut-outs with fewer than 16 pixels, or whose fit did not converge.
    """
    alpha = fwhm / (2 * math.sqrt(2 ** (1 / FIRST_POWER) - 1))
    start = _start(data, x, y, alpha, math.pi * alpha**2 / (FIRST_POWER - 1))
    start[:, 6], start[:, 8], start[:, 9] = FIRST_POWER, *_along_both(blur)
    fitted, errors = _fit(_moffat, data, stat, start, np.array([0, 0, 0, 0, 0.1, 0.1, 1.05, -0.99]), 50.0)
    return _profiles(fitted, errors, fitted[:, 6])


def fit_gaussians(data: Float32, stat: Float32, *, fwhm: float, x: float, y: float) -> Profiles:
    """Fit an elliptical Gaussian on a level background to each cut-out; as ``fit_moffats``."""
    sigma = fwhm / FWHM_PER_SIGMA
    start = _start(data, x, y, sigma, 2 * math.pi * sigma**2)
    fitted, errors = _fit(_gaussian, data, stat, start, np.array([0, 0, 0, 0, 0.1, 0.1, 0, -0.99]), math.inf, frozen=6)
    return _profiles(fitted, errors, np.full(len(fitted), np.nan))


def fit_fluxes(data: Float32, stat: Float32, shapes: Profiles, *, blur: Blur = 0.0) -> tuple[Real, Real]:
    """Fit flux and background alone of Moffat profiles of known shape.

    Parameters
    ----------
    data, stat : arrays, shape (cut-outs, rows, columns)
    shapes : Profiles
        One for each cut-out; their flux and background do not matter.
    blur : float, or (float or array, float or array)
        As for ``fit_moffats``.

    Returns
    -------
    flux, variance : arrays, shape (cut-outs,)
        NaN where fewer than 16 pixels count.
    """
    rows, columns = _indices(data)
    flux, variance = np.full(len(data), np.nan), np.full(len(data), np.nan)
    known = np.zeros((len(data), 10))
    known[:, 1], known[:, 8], known[:, 9] = 1, *_along_both(blur)
    for number, name in enumerate(_NAMES[2:], start=2):
        known[:, number] = getattr(shapes, name)
    for some in _batches(data):
        values, weights = _weighted(data[some], stat[some])
        parameters = known[some]
        profile, _ = _blurred(_moffat)(parameters, columns, rows)
        total = weights.sum(axis=1)
        first, second = (weights * profile).sum(axis=1), (weights * np.square(profile)).sum(axis=1)
        light, both = (weights * values).sum(axis=1), (weights * profile * values).sum(axis=1)
        determinant = total * second - first**2
        good = (np.count_nonzero(weights, axis=1) >= LEAST_PIXELS) & (determinant > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            flux[some] = np.where(good, (total * both - first * light) / determinant, np.nan)
            variance[some] = np.where(good, total / determinant, np.nan)
    return flux, variance


# Parameters of a profile; behind them stands the blur along x and y, which is never fitted.
_NAMES = ("background", "flux", "x", "y", "width_x", "width_y", "power", "tilt")
_Model = Callable[[Real, Real, Real], tuple[Real, Real]]


def _along_both(blur: Blur) -> tuple[Real | float, Real | float]:
    return blur if isinstance(blur, tuple) else (blur, blur)


def _profiles(fitted: Real, errors: Real, power: Real) -> Profiles:
    values = {name: fitted[:, number] for number, name in enumerate(_NAMES)} | {"power": power}
    return Profiles(**values, flux_error=errors[:, 1], x_error=errors[:, 2], y_error=errors[:, 3])


def _indices(data: Float32) -> tuple[Real, Real]:
    rows, columns = np.indices(data.shape[1:], dtype=float)
    return rows.reshape(-1), columns.reshape(-1)


def _batches(data: Float32) -> list[slice]:
    step = max(1, _BATCH // max(math.prod(data.shape[1:]), 1))
    return [slice(start, min(start + step, len(data))) for start in range(0, len(data), step)]


def _weighted(data: Float32, stat: Float32) -> tuple[Real, Real]:
    """Return values and inverse variances of shape (cut-outs, pixels), both 0 where a pixel does not count."""
    values, variances = (np.asarray(a, float).reshape(len(a), -1) for a in (data, stat))
    good = np.isfinite(values) & np.isfinite(variances) & (variances > 0)
    return np.where(good, values, 0), np.where(good, 1 / np.where(good, variances, 1), 0)


def _start(data: Float32, x: float, y: float, width: float, area: float) -> Real:
    """Return parameters to begin with: the median as background, the flux from the height of the peak."""
    flat = np.asarray(data, float).reshape(len(data), -1)
    counted = np.isfinite(flat).any(axis=1)
    level, peak = np.zeros(len(data)), np.ones(len(data))
    level[counted], peak[counted] = np.nanmedian(flat[counted], axis=1), np.nanmax(flat[counted], axis=1)
    start = np.zeros((len(data), len(_NAMES) + 2))
    start[:, 0], start[:, 1] = level, np.maximum(peak - level, 1e-30) * area
    start[:, 2], start[:, 3], start[:, 4], start[:, 5] = x, y, width, width
    return start


def _moffat(p: Real, columns: Real, rows: Real) -> tuple[Real, Real]:
    """Return Moffat profiles (cut-outs, pixels) and their derivatives (cut-outs, parameters, pixels)."""
    background, flux, x, y, width_x, width_y, power, tilt = (p[:, number, None] for number in range(8))
    u, v, rest = (columns - x) / width_x, (rows - y) / width_y, 1 - tilt**2
    form = u**2 + 2 * tilt * u * v + v**2
    base = 1 + form / rest
    logarithm = np.log(base)
    unit = (power - 1) / (np.pi * width_x * width_y * np.sqrt(rest)) * np.exp(-power * logarithm)
    star = flux * unit
    slope = -power * star / base  # by the base
    by_u, by_v = slope * (2 * u + 2 * tilt * v) / rest, slope * (2 * v + 2 * tilt * u) / rest
    derivatives = np.empty((len(p), 8, columns.shape[-1]))
    by_parameter: tuple[Real | float, ...] = (
            1.0, unit, -by_u / width_x, -by_v / width_y, -(star + by_u * u) / width_x, -(star + by_v * v) / width_y,
            star * (1 / (power - 1) - logarithm),
            star * tilt / rest + slope * (2 * u * v + 2 * tilt * form / rest) / rest,
    )  # fmt: skip
    for number, values in enumerate(by_parameter):
        derivatives[:, number] = values
    return background + star, derivatives


def _blurred(model: _Model) -> _Model:
    """Return a model convolved with four points around each pixel, which have the variance of the blur."""

    def mean(p: Real, columns: Real, rows: Real) -> tuple[Real, Real]:
        dx, dy = p[:, 8, None], p[:, 9, None]
        if not dx.any() and not dy.any():
            return model(p, columns, rows)
        profile, derivatives = model(p, columns - dx, rows - dy)
        for right, up in ((-dx, dy), (dx, -dy), (dx, dy)):
            more, more_derivatives = model(p, columns + right, rows + up)
            profile += more
            derivatives += more_derivatives
        return profile / 4, derivatives / 4

    return mean


def _gaussian(p: Real, columns: Real, rows: Real) -> tuple[Real, Real]:
    """Return Gaussian profiles and their derivatives; the seventh parameter has no effect."""
    background, flux, x, y, width_x, width_y, _, tilt = (p[:, number, None] for number in range(8))
    u, v, rest = (columns - x) / width_x, (rows - y) / width_y, 1 - tilt**2
    form = u**2 - 2 * tilt * u * v + v**2
    unit = np.exp(-form / (2 * rest)) / (2 * np.pi * width_x * width_y * np.sqrt(rest))
    star = flux * unit
    by_u, by_v = -star * (u - tilt * v) / rest, -star * (v - tilt * u) / rest
    derivatives = np.empty((len(p), 8, columns.shape[-1]))
    by_parameter: tuple[Real | float, ...] = (
            1.0, unit, -by_u / width_x, -by_v / width_y, -(star + by_u * u) / width_x, -(star + by_v * v) / width_y,
            0.0, star * (tilt + u * v - tilt * form / rest) / rest,
    )  # fmt: skip
    for number, values in enumerate(by_parameter):
        derivatives[:, number] = values
    return background + star, derivatives


def _fit(
    model: _Model, data: Float32, stat: Float32, start: Real, least: Real, most_power: float, frozen: int | None = None
) -> tuple[Real, Real]:
    """Fit a model to each cut-out by the method of Levenberg and Marquardt, all of a batch at once.

    Returns
    -------
    parameters, errors : arrays, shape (cut-outs, 10)
        NaN where the fit failed.
    """
    rows, columns = _indices(data)
    parameters, errors = np.full(start.shape, np.nan), np.full(start.shape, np.nan)
    for some in _batches(data):
        values, weights = _weighted(data[some], stat[some])
        counted = np.count_nonzero(weights, axis=1) >= LEAST_PIXELS
        indices = np.arange(some.start, some.stop)[counted]
        if len(indices):
            fitted = _fit_batch(
                _blurred(model),
                values[counted],
                weights[counted],
                start[indices],
                columns,
                rows,
                least,
                most_power,
                frozen,
            )
            parameters[indices], errors[indices] = fitted
    return parameters, errors


def _fit_batch(
    model: _Model,
    values: Real,
    weights: Real,
    start: Real,
    columns: Real,
    rows: Real,
    least: Real,
    most_power: float,
    frozen: int | None,
) -> tuple[Real, Real]:
    free = np.array([number for number in range(8) if number != frozen])
    current = start.copy()
    damping = np.full(len(current), 1e-3)
    running = np.ones(len(current), bool)
    converged = np.zeros(len(current), bool)
    chi_square, normal, gradient = _equations(model, current, values, weights, columns, rows, free)
    for _ in range(_STEPS):
        at = np.flatnonzero(running)
        if not len(at):
            break
        damped = normal[at] + damping[at, None, None] * np.einsum("pii,ij->pij", normal[at], np.eye(len(free)))
        step, solved = _solve(damped, gradient[at])
        trial = current[at].copy()
        trial[:, free] += step
        allowed = solved & _within(trial, least, most_power, values.shape[1])
        trial[~allowed] = current[at][~allowed]
        new = _equations(model, trial, values[at], weights[at], columns, rows, free)
        better = allowed & (new[0] <= chi_square[at])
        # A step that damping made small says nothing about how far the minimum is.
        small = better & (chi_square[at] - new[0] <= _CONVERGED * new[0]) & (damping[at] <= _UNDAMPED)
        good = at[better]
        current[good], chi_square[good] = trial[better], new[0][better]
        normal[good], gradient[good] = new[1][better], new[2][better]
        damping[at] *= np.where(better, 0.1, 10)
        converged[at[small]] = True
        running[at[small]] = False
        running[at[damping[at] > 1e10]] = False
    covariance, solved = _inverted(normal)
    failed = ~(converged & solved)
    errors = np.zeros_like(current)
    errors[:, free] = np.sqrt(np.maximum(np.einsum("pii->pi", covariance), 0))
    current[failed], errors[failed] = np.nan, np.nan
    return current, errors


def _equations(
    model: _Model, p: Real, values: Real, weights: Real, columns: Real, rows: Real, free: NDArray[np.intp]
) -> tuple[Real, Real, Real]:
    """Return chi square, normal matrix and gradient at parameters."""
    profile, derivatives = model(p, columns, rows)
    residual = values - profile
    if len(free) < derivatives.shape[1]:
        derivatives = derivatives[:, free]
    weighted = derivatives * weights[:, None, :]
    normal = weighted @ derivatives.swapaxes(1, 2)
    gradient = (weighted @ residual[..., None])[..., 0]
    return (weights * np.square(residual)).sum(axis=1), normal, gradient


def _within(p: Real, least: Real, most_power: float, pixels: int) -> NDArray[np.bool_]:
    """Return which parameters describe a profile: widths, exponent and correlation inside their limits."""
    widths = (p[:, 4] >= least[4]) & (p[:, 5] >= least[5]) & (np.maximum(p[:, 4], p[:, 5]) <= pixels)
    within: NDArray[np.bool_] = (
        widths & (p[:, 6] >= least[6]) & (p[:, 6] <= most_power) & (np.abs(p[:, 7]) <= -least[7])
    )
    return within


def _solve(matrices: Real, right: Real) -> tuple[Real, NDArray[np.bool_]]:
    """Solve sets of equations; where a matrix is singular the solution is 0, and not true."""
    inverse, solved = _inverted(matrices)
    return (inverse @ right[..., None])[..., 0], solved


def _inverted(matrices: Real) -> tuple[Real, NDArray[np.bool_]]:
    scale = np.sqrt(np.maximum(np.einsum("pii->pi", matrices), 0))
    solved = (scale > 0).all(axis=1) & np.isfinite(matrices).all(axis=(1, 2))
    scale = np.where(solved[:, None], scale, 1)
    scaled = np.where(solved[:, None, None], matrices / (scale[:, :, None] * scale[:, None, :]), np.eye(scale.shape[1]))
    solved &= np.linalg.cond(scaled) < 1e14
    scaled[~solved] = np.eye(scale.shape[1])
    return np.linalg.inv(scaled) / (scale[:, :, None] * scale[:, None, :]), solved
