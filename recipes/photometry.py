"""Flux of a star in every plane of a cube: by fits of profiles, or within a circle."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.muse import NOTCH
from recipes.sources import CutOut, Detection, Profiles, fit_fluxes, fit_gaussians, fit_moffats
from recipes.stats import Real, fit_polynomial

PROFILES = ("gaussian", "moffat", "smoffat", "circle", "auto")
_WIDTHS = 3.0  # full widths at half maximum from the centre of a star that are looked at; MP
_MARGIN = 5.0  # pix that are kept free at the edge of the field; MP
_CIRCLE = 4 / 3  # radius of the circle, of what is looked at; MP
_ANNULUS, _ANNULUS_WIDTH = (
    5 / 4,
    10.0,
)  # inner radius of the ring of background, of the circle, and its width in pix; MP
_LEAST_HALF = 3.0  # pix; a star nearer to the edge than that is not measured
_MISSING, _MISSING_AT_EDGE = 10, 100  # pixels without a value that a circle may hold; MP
_TOGETHER = 8  # planes, 10 Angstrom, whose mean shows the shape of a profile
_ORDER = 2  # of the polynomials along wavelength of what shapes a profile; MP
_REJECTED = 3.0  # rms of the residuals, beyond which a plane is left out of these and of a background; MP


@dataclass(frozen=True, kw_only=True)
class Aperture:
    """What is looked at around a star.

    Parameters
    ----------
    x, y : float
        Centre in the cube, counted from 0.
    half : float
        Half the side of the square that profiles are fitted in, pix.
    radius, inner : float
        Radius of the circle, and of the ring of background around it.
    at_edge : bool
        The edge of the field made it smaller.
    """

    x: float
    y: float
    half: float
    radius: float
    inner: float
    at_edge: bool

    @property
    def reach(self) -> float:
        """Distance from the centre within which pixels are needed at most, pix."""
        return max(self.half, self.inner + _ANNULUS_WIDTH)


def choose_aperture(star: Detection, fwhm: float, shape: tuple[int, int], profile: str) -> Aperture | None:
    """Return what to look at around a star in an image of some shape; None if the star is too near to its edge.

    Parameters
    ----------
    star : Detection
    fwhm : float
        Width of stars, pix.
    shape : (rows, columns)
    profile : str
        One of ``PROFILES``, but ``auto``.
    """
    half = max(_WIDTHS * fwhm, math.sqrt(star.pixels) / 2)
    room = min(star.x, shape[1] - 1 - star.x, star.y, shape[0] - 1 - star.y) - _MARGIN
    at_edge = half > room or (profile == "circle" and _CIRCLE * half > room)
    half = room if at_edge else half
    if half < _LEAST_HALF:
        return None
    radius = half if at_edge else _CIRCLE * half
    inner = radius + 1 if at_edge else _ANNULUS * radius
    return Aperture(x=star.x, y=star.y, half=half, radius=radius, inner=inner, at_edge=at_edge)


def choose_profile(profile: str, mode: str) -> str:
    """Return the profile that ``auto`` stands for in an ``INS MODE``."""
    if profile != "auto":
        return profile
    return "circle" if mode.startswith("NFM") else "smoffat"


def integrate_flux(
    data: CutOut,
    stat: CutOut,
    wavelength: Real,
    aperture: Aperture,
    *,
    fwhm: float,
    blur: tuple[Real, Real],
    profile: str,
    mode: str,
) -> tuple[Real, Real]:
    """Measure the flux of a star in every plane.

    Parameters
    ----------
    data, stat : CutOut
        Values and variances around the star, shape (planes, rows, columns).
    wavelength : array, shape (planes,)
        Angstrom.
    aperture : Aperture
    fwhm : float
        Width of the star, pix.
    blur : (array, array)
        What resampling has added to it in each plane (``cube.resampling_blur``), pix.
    profile : str
        One of ``PROFILES``, but ``auto``.
    mode : str
        ``INS MODE``.

    Returns
    -------
    flux, variance : arrays, shape (planes,)
        NaN where it could not be measured.
    """
    if profile == "circle":
        flux, variance = _integrate_circle(data, stat, aperture)
    else:
        flux, variance = _fit_profiles(data, stat, wavelength, aperture, fwhm, blur, profile, mode)
    # Voxels beside each other share pixels, so that a sum of them has more noise than independent ones had.
    shared = (1 - 2 * np.square(blur[0])) * (1 - 2 * np.square(blur[1]))
    good = np.isfinite(flux) & (flux > 0) & np.isfinite(variance) & (variance > 0)
    return np.where(good, flux, np.nan), np.where(good, variance / shared, np.nan)


def _fit_profiles(
    data: CutOut,
    stat: CutOut,
    wavelength: Real,
    aperture: Aperture,
    fwhm: float,
    blur: tuple[Real, Real],
    profile: str,
    mode: str,
) -> tuple[Real, Real]:
    x, y = aperture.x - data.column, aperture.y - data.row
    if profile == "gaussian":
        gaussians = fit_gaussians(data.values, stat.values, fwhm=fwhm, x=x, y=y)
        return gaussians.flux, np.square(gaussians.flux_error)
    if profile == "moffat":
        moffats = fit_moffats(data.values, stat.values, fwhm=fwhm, x=x, y=y, blur=blur)
        return moffats.flux, np.square(moffats.flux_error)
    values, variances, middles, *mean_blur = (
        _together(along) for along in (data.values, stat.values / min(_TOGETHER, len(wavelength)), wavelength, *blur)
    )
    moffats = fit_moffats(values, variances, fwhm=fwhm, x=x, y=y, blur=(mean_blur[0], mean_blur[1]))
    shapes = smooth_shapes(moffats, middles, wavelength, mode)
    if shapes is None:
        return np.full(len(wavelength), np.nan), np.full(len(wavelength), np.nan)
    return fit_fluxes(data.values, stat.values, shapes, blur=blur)


def _together(along: Real) -> Real:
    """Return the means of a few planes each; pixels that lack in one lack in all."""
    number = min(_TOGETHER, len(along))
    planes = len(along) // number * number
    result: Real = along[:planes].reshape(-1, number, *along.shape[1:]).mean(axis=1)
    return result


def smooth_shapes(moffats: Profiles, fitted: Real, wavelength: Real, mode: str) -> Profiles | None:
    """Return profiles whose centre, widths, exponent and tilt are parabolas along wavelength.

    Parameters
    ----------
    moffats : Profiles
    fitted : array
        Their wavelengths, Angstrom.
    wavelength : array
        Those of the profiles to return.
    mode : str
        ``INS MODE``; what its notch filter blocks does not count.

    Returns
    -------
    Profiles or None
        None if too few were fitted.
    """
    good = np.isfinite(moffats.flux)
    if gap := NOTCH.get(mode):
        good &= (fitted <= gap[0]) | (fitted >= gap[1])
    if np.count_nonzero(good) <= _ORDER + 1:
        return None
    smooth = {name: np.full(len(wavelength), np.nan) for name in vars(moffats)}
    for name in ("x", "y", "width_x", "width_y", "power", "tilt"):
        values = getattr(moffats, name)[good]
        fit = fit_polynomial(fitted[good], values, _ORDER, limit=_REJECTED, weights=np.ones_like(values))
        smooth[name] = fit.polynomial(wavelength)
    return Profiles(**smooth)


def _integrate_circle(data: CutOut, stat: CutOut, aperture: Aperture) -> tuple[Real, Real]:
    rows, columns = np.indices(data.values.shape[1:])
    radius = np.hypot(columns + data.column - aperture.x, rows + data.row - aperture.y)
    circle = radius <= aperture.radius
    ring = (radius >= aperture.inner) & (radius <= aperture.inner + _ANNULUS_WIDTH)
    values, variances = data.values.astype(float), stat.values.astype(float)
    level, spread, background = _clipped_mean(values[:, ring])
    missing = np.count_nonzero(~np.isfinite(values[:, circle]), axis=1)
    for plane in np.flatnonzero(missing):
        for image in (values[plane], variances[plane]):
            _fill(image)
    pixels = int(np.count_nonzero(circle))
    flux = values[:, circle].sum(axis=1) - level * pixels
    variance = variances[:, circle].sum(axis=1) + pixels * spread**2 * (1 + pixels / np.maximum(background, 1))
    bad = (missing > (_MISSING_AT_EDGE if aperture.at_edge else _MISSING)) | (background == 0)
    return np.where(bad, np.nan, flux), variance


def _clipped_mean(values: Real) -> tuple[Real, Real, NDArray[np.intp]]:
    """Return mean, standard deviation and number of the values of each row, outliers left out."""
    used = np.isfinite(values)
    while True:
        number = np.count_nonzero(used, axis=1)
        mean = np.where(used, values, 0).sum(axis=1) / np.maximum(number, 1)
        deviation = np.abs(values - mean[:, None])
        spread = np.sqrt(np.where(used, deviation**2, 0).sum(axis=1) / np.maximum(number, 1))
        within = used & (deviation <= _REJECTED * spread[:, None])
        if np.array_equal(within, used):
            return mean, spread, number
        used = within


def _fill(image: Real) -> None:
    """Give pixels without a value the mean of their neighbours, from the edge of a gap inwards."""
    while not (good := np.isfinite(image)).all() and good.any():
        padded, counted = np.pad(np.where(good, image, 0), 1), np.pad(good, 1)
        rows, columns = image.shape
        shifted = [(slice(i, i + rows), slice(j, j + columns)) for i in range(3) for j in range(3)]
        total, number = (sum(array[part] * 1.0 for part in shifted) for array in (padded, counted))
        reached = ~good & (number > 0)
        image[reached] = (total / np.maximum(number, 1))[reached]
