"""Wavelength shift of an exposure, from emission lines of the night sky in its own data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipes.recipe import Flags, Float32, ParameterError, Params, parameter
from recipes.stats import Real

_ROUNDS = 60  # of the fit of a line, at most
_START_SIGMA = 1.1  # Angstrom; a line of the spectrograph has a full width of 2.6


@dataclass(frozen=True, kw_only=True)
class SkyLineParams(Params):
    """How the wavelengths are shifted, with the names and defaults of ESO's recipes."""

    skylines: str = parameter(
        "5577.339,6300.304",
        "Wavelengths of sky emission lines by which the exposure is shifted, in Angstrom, with commas between them;"
        " one in absorption has a minus sign. 'none' leaves it as it is.",
    )
    skyhalfwidth: float = parameter(5.0, "Angstrom to either side of a line that are looked at.", least=1.0)
    skybinsize: float = parameter(0.1, "Angstrom a bin of the spectrum to which a line is fitted.", least=0.01)
    skyreject: str = parameter(
        "15.,15.,1",
        "Sigma beyond which a pixel of that spectrum is left out, high and low, and how many times.",
    )

    @property
    def lines(self) -> tuple[float, ...]:
        """Wavelengths of the lines, Angstrom; negative where in absorption."""
        return () if self.skylines == "none" else _numbers("skylines", self.skylines)

    @property
    def clipping(self) -> tuple[float, float, int]:
        """Upper and lower limit in sigma, and how many times."""
        given = _numbers("skyreject", self.skyreject)[:3]
        high, low, times = (*given, *(15.0, 15.0, 1.0)[len(given) :])
        return high, low, int(times)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ParameterError(f"{name} = {text!r} is not a list of numbers with commas between them.") from error


@dataclass(frozen=True, kw_only=True)
class Window:
    """Pixels around a line; arrays of shape (pixels,).

    Parameters
    ----------
    line : float
        Wavelength of the line, Angstrom; negative where in absorption.
    wavelength, data, stat, dq : arrays
        Flagged pixels do not count.
    """

    line: float
    wavelength: Float32
    data: Float32
    stat: Float32
    dq: Flags


def shift_of_sky_lines(windows: Sequence[Window], origin: float, params: SkyLineParams) -> float:
    """Return what is to be added to the wavelengths so that lines stand where they belong, Angstrom.

    Parameters
    ----------
    windows : sequence of Window
    origin : float
        Wavelength at which a bin of the spectra begins.
    params : SkyLineParams

    Returns
    -------
    float
        Mean of the lines, each with the inverse of its error as its weight; 0 if none can be measured.
    """
    shifts, weights = [], []
    for window in windows:
        found = fit_line(*_spectrum(window, origin, params), absorption=window.line < 0)
        if found is not None and abs(found[0] - abs(window.line)) < params.skyhalfwidth:
            shifts.append(abs(window.line) - found[0])
            weights.append(1 / found[1])
    return float(np.average(shifts, weights=weights)) if shifts else 0.0


def _spectrum(window: Window, origin: float, params: SkyLineParams) -> tuple[Real, Real, Real]:
    """Return the mean spectrum of a window: wavelengths, data, and the error of a single pixel."""
    good = (window.dq == 0) & np.isfinite(window.data)
    wave, data, stat = (a[good].astype(np.float64) for a in (window.wavelength, window.data, window.stat))
    high, low, times = params.clipping
    kept = np.ones(wave.shape, bool)
    for last in range(times + 1):
        place, mean, variance = _bin(wave[kept], data[kept], stat[kept], origin, params.skybinsize)
        if last == times or not len(place):
            break
        # A pixel is compared with the brighter one of the two bins that it went into.
        near = np.clip(np.searchsorted(place, wave, side="right") - 1, 0, len(place) - 1)
        following = np.minimum(near + 1, len(place) - 1)
        near = np.where(mean[near] < mean[following], following, near)
        away, spread = data - mean[near], np.sqrt(variance[near])
        kept &= ~((high > 0) & (away > high * spread)) & ~((low > 0) & (away < -low * spread))
    return place, mean, np.sqrt(variance)


def _bin(wave: Real, data: Real, stat: Real, origin: float, step: float) -> tuple[Real, Real, Real]:
    """Share each pixel between the two nearest points of a grid; return points with data, their means and variances."""
    place = (wave - origin) / step
    index = np.floor(place).astype(np.intp)
    if not index.size:
        return np.empty(0), np.empty(0), np.empty(0)
    first = int(index.min())
    upper = place - index
    size = int(index.max()) - first + 2

    def summed(values: Real) -> Real:
        low = np.bincount(index - first, (1 - upper) * values, size)
        return np.asarray(low + np.bincount(index - first + 1, upper * values, size))

    weight = summed(np.ones_like(data))
    there = weight > 0
    points = origin + step * (first + np.arange(size))
    return points[there], summed(data)[there] / weight[there], summed(stat)[there] / weight[there]


def fit_line(x: Real, y: Real, error: Real, *, absorption: bool = False) -> tuple[float, float] | None:
    """Fit a Gaussian on a constant level by weighted least squares.

    Returns
    -------
    position, error : floats
        None if there are too few points, or the fit does not come to an end.
    """
    if len(x) < 5 or not (error > 0).all():
        return None
    values = -y if absorption else y
    level = float(np.median(values))
    height = float(values.max()) - level
    found = np.array([x[np.argmax(values)], _START_SIGMA, max(height, 1e-30), level])
    damping, squares = 1e-3, np.inf
    for _ in range(_ROUNDS):
        away = (x - found[0]) / found[1]
        shape = np.exp(-(away**2) / 2)
        slopes = np.stack([found[2] * shape * away / found[1], found[2] * shape * away**2 / found[1], shape, 0 * x + 1])
        rest = (values - found[2] * shape - found[3]) / error
        now = float(rest @ rest)
        if not np.isfinite(now):
            return None
        if now < squares:
            converged = squares - now < 1e-9 * now
            best, squares, damping = found, now, damping / 10
            normal = (slopes / error) @ (slopes / error).T
            gradient = (slopes / error) @ rest
            if converged:
                break
        else:
            damping *= 10
            if damping > 1e10:
                break
        found = best + np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-30), gradient)
        found[1] = abs(found[1]) or _START_SIGMA
    covariance = np.linalg.pinv(normal)
    return float(best[0]), float(np.sqrt(max(covariance[0, 0], 1e-30)))
