"""Arc lines on a detector: finding them in a spectrum, and measuring Gaussian profiles in many windows at once.

A line is a Gaussian along the dispersion, the pixel included. Windows are fitted side by side, each linearised about
its last solution; the noise is that of the detector, photons and the uneven sensitivity of single pixels.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Float32

Real = NDArray[np.floating[Any]]

PIXEL_SCATTER = 0.006  # of the sensitivity of single pixels, which limits the place of a bright line
FWHM_PER_SIGMA = 2.3548200450309493
HALF_WINDOW = 6  # pixels to either side of a line, some 6 sigma
_FARTHEST = 1.0  # pixels that a line may be from where it was expected
_FAINTEST = 3.0  # times its error that the height of a line must have
_WIDTHS = (0.4, 2.2)  # pixels, sigma of any line; MP: FWHM 1 to 5
_BACKGROUND = 51  # pixels, over which the background of a spectrum is a median; MP
_LEAST_SIGNAL = 0.1  # times the noise, below which nothing is a line; MP


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Variance of a pixel.

    Parameters
    ----------
    floor : float
        Without light, square electrons.
    frames : int
        How many it is a mean of.
    scatter : float
        Of the sensitivity of single pixels.
    """

    floor: float
    frames: int
    scatter: float = PIXEL_SCATTER

    def variance(self, signal: Float32) -> Float32:
        """Return the variance of pixels of some signal in electrons."""
        lit = np.maximum(signal, 0)
        result: Float32 = lit * np.float32(self.scatter**2)
        result += np.float32(1 / self.frames)
        result *= lit
        result += np.float32(self.floor)
        return result


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """Lines that were fitted; arrays of shape (lines, windows), NaN where a fit failed.

    Parameters
    ----------
    centre, error : float arrays
        Place in the window, from its first pixel, and its standard deviation; pix.
    peak : float array
        Height above the background, electrons.
    sigma : float array
        Width, pix.
    """

    centre: Real
    error: Real
    peak: Real
    sigma: Real


def find_peaks(spectrum: Float32, noise: Noise, pixels: int, sigma: float) -> NDArray[np.intp]:
    """Return the brightest pixel of each line in a spectrum.

    Parameters
    ----------
    spectrum : float32 array, shape (rows,)
        Electrons; NaN where unknown.
    noise : Noise
        Of a single pixel.
    pixels : int
        How many pixels each value is a mean of.
    sigma : float
        Signal-to-noise above its median that a line has, in mean absolute deviations of the signal-to-noise.
    """
    known = np.nan_to_num(spectrum)
    level = known - _running_median(known, _BACKGROUND)
    ratio = level / np.sqrt(noise.variance(known) / pixels)
    median = np.median(ratio)
    limit = max(_LEAST_SIGNAL, median + sigma * np.abs(ratio - median).mean())
    inner = ratio[1:-1]
    highest = (inner >= ratio[:-2]) & (inner > ratio[2:]) & (inner > limit)
    wide = np.maximum(ratio[:-2], ratio[2:]) > limit  # a single pixel is no line
    highest &= ~np.isnan(spectrum[:-2] + spectrum[1:-1] + spectrum[2:])
    found: NDArray[np.intp] = np.flatnonzero(highest & wide) + 1
    return found


def _running_median(values: Float32, width: int) -> Float32:
    """Return the median over a window about each value, taken at every tenth and interpolated between."""
    width = min(width, len(values) | 1)
    padded = np.pad(values, width // 2, mode="reflect")
    views = np.lib.stride_tricks.sliding_window_view(padded, width)[::10]
    places = np.arange(len(values))
    result: Float32 = np.interp(places, places[::10], np.median(views, axis=1)).astype(np.float32)
    return result


def gather(image: Float32, start: NDArray[np.intp], columns: NDArray[np.intp], length: int) -> Float32:
    """Return windows along the columns of an image, shape (length, windows); NaN beyond its ends."""
    rows = start + np.arange(length)[:, None]
    inside = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    last = np.array(image.shape) - 1
    values: Float32 = image[np.clip(rows, 0, last[0]), np.clip(columns, 0, last[1])]
    return values if inside.all() else np.where(inside, values, np.float32(np.nan))


def fit_profiles(
    values: Float32, noise: Noise, centre: Real, sigma: Real, *, rounds: int = 3, free_width: bool = False
) -> Profiles:
    """Fit a background and one or more Gaussians to each of many windows.

    Parameters
    ----------
    values : float32 array, shape (pixels, windows)
        Electrons; NaN where unknown.
    noise : Noise
    centre : float array, shape (lines, windows)
        Where each line is expected, from the first pixel of the window.
    sigma : float array, shape (windows,)
        Width of the lines; the first guess if it is free.
    rounds : int
        Of the fit. Three are enough from half a pixel away.
    free_width : bool
        Whether the width of a single line is fitted too.
    """
    expected = np.asarray(centre, np.float64)
    centre, width = expected.copy(), np.asarray(sigma, np.float64).copy()
    lines = len(centre)
    pixel = np.arange(len(values), dtype=np.float32)[:, None]
    missing = np.isnan(values)
    known = np.where(missing, np.float32(0), values) if missing.any() else values
    model = known - np.median(known, axis=0)
    weights = np.empty_like(known)
    for _ in range(rounds):
        np.divide(np.float32(1), noise.variance(model), out=weights)
        weights[missing] = 0
        basis = [np.ones_like(known)]
        distances = [(pixel - at.astype(np.float32)) / width.astype(np.float32) for at in centre]
        bells = [np.exp(np.square(distance) * np.float32(-0.5)) for distance in distances]
        basis += bells
        basis += [bell * distance for bell, distance in zip(bells, distances, strict=True)]
        if free_width:
            basis.append(basis[-1] * distances[0])
        solution, variances = _solve(basis, weights, known)
        height = solution[1 : lines + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            centre += np.clip(np.nan_to_num(solution[lines + 1 : 2 * lines + 1] / height * width), -0.5, 0.5)
            if free_width:
                width *= 1 + np.clip(np.nan_to_num(solution[-1] / height[0]), -0.3, 0.3)
                np.clip(width, *_WIDTHS, out=width)
        model = sum((bell * at.astype(np.float32) for bell, at in zip(bells, height, strict=True)), np.float32(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variances[lines + 1 : 2 * lines + 1]) / height * width
        good = (height > _FAINTEST * np.sqrt(variances[1 : lines + 1])) & (np.abs(centre - expected) < _FARTHEST)
    good &= np.isfinite(error) & (height > 0)
    if free_width:
        good &= (width > _WIDTHS[0]) & (width < _WIDTHS[1])
    nothing = np.where(good, 0, np.nan)
    return Profiles(centre=centre + nothing, error=error + nothing, peak=height + nothing, sigma=width + nothing)


def _solve(basis: list[Float32], weights: Float32, values: Float32) -> tuple[Real, Real]:
    """Fit values by least squares in each window; return coefficients and variances, shape (functions, windows)."""
    size, windows = len(basis), values.shape[1]
    normal, right = np.empty((size, size, windows)), np.empty((size, windows))
    for i, one in enumerate(basis):
        weighted = one * weights
        right[i] = np.einsum("pw,pw->w", weighted, values)
        for j in range(i + 1):
            normal[i, j] = normal[j, i] = np.einsum("pw,pw->w", weighted, basis[j])
    index = np.arange(size)
    scale = np.sqrt(np.maximum(normal[index, index], 1e-30))
    normal /= scale[:, None] * scale[None, :]
    normal[index, index] += 1e-9  # windows without a single known pixel are told by their errors
    for k in index:  # inverts in place; all windows at once
        pivot = 1 / normal[k, k]
        row, column = normal[k] * pivot, normal[:, k].copy()
        column[k] = 0
        normal -= column[:, None] * row[None, :]
        normal[k], normal[:, k] = row, -column * pivot
        normal[k, k] = pivot
    solution: Real = (normal * (right / scale)[None, :]).sum(axis=1) / scale
    variances: Real = np.maximum(normal[index, index], 0) / scale**2
    return solution, variances
