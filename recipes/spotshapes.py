"""Light, place and width of spots in one frame."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Float32
from recipes.spotwindows import HALF_WINDOW, Windows

Real = NDArray[np.floating[Any]]

_HALF_SPOT = 5  # pixels around a spot that its light is in; MP
_SIGNIFICANT = 10.0  # sigma of the light of a spot, from which its place and width are measured
_SIGMA = 1.0  # pixels, first guess of the width of a spot
_ROUNDS = 8  # of the fit of a Gaussian
_SETTLED = 0.01  # pix, that the last of them may move it
_FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, over its sigma


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What was measured of spots; arrays of shape (spots,).

    Parameters
    ----------
    x, y : arrays
        Middle, pix from 0; NaN where there is too little light.
    x_width, y_width : arrays
        Full width at half maximum, pix; -1 where there is too little light.
    flux, background : arrays
        Electrons in all, and of a pixel.
    """

    x: Real
    y: Real
    x_width: Real
    y_width: Real
    flux: Real
    background: Real


def measure_shapes(values: Float32, windows: Windows, read_noise: float, *, gaussian: bool) -> Shape:
    """Measure light, place and width of spots in one frame.

    Parameters
    ----------
    values : float32 array, shape (spots, pixels, pixels), electrons
    windows : Windows
        Where they were cut out.
    read_noise : float
        Electrons.
    gaussian : bool
        By a Gaussian fitted to the light in rows and in columns; otherwise by its first and second moments.
    """
    ring = np.ones(values.shape[1:], bool)
    inner = slice(HALF_WINDOW - _HALF_SPOT, HALF_WINDOW + _HALF_SPOT + 1)
    ring[inner, inner] = False
    background = np.median(values[:, ring], axis=1)
    light = values[:, inner, inner] - background[:, None, None]
    flux = light.sum(axis=(1, 2), dtype=np.float64)
    bright = flux > _SIGNIFICANT * np.sqrt(np.maximum(flux, 0) + light[0].size * read_noise**2)
    shape = Shape(
        x=np.full(len(flux), np.nan),
        y=np.full(len(flux), np.nan),
        x_width=np.full(len(flux), -1.0),
        y_width=np.full(len(flux), -1.0),
        flux=np.maximum(flux, 0),
        background=background.astype(np.float64),
    )
    profiles = light[bright].sum(axis=1, dtype=np.float64), light[bright].sum(axis=2, dtype=np.float64)
    for profile, origin, place, width in (
        (profiles[0], windows.x, shape.x, shape.x_width),
        (profiles[1], windows.y, shape.y, shape.y_width),
    ):
        middle, sigma = fit_gaussians(profile) if gaussian else _moments(profile)
        known = np.isfinite(middle) & (np.abs(middle - _HALF_SPOT) < _HALF_SPOT - 1) & (sigma > 0)
        place[bright] = np.where(known, origin[bright] + middle - _HALF_SPOT, np.nan)
        width[bright] = np.where(known, _FWHM * sigma, -1)
    return shape


def fit_gaussians(profiles: Real) -> tuple[Real, Real]:
    """Fit a Gaussian to each of many profiles without background.

    Parameters
    ----------
    profiles : array, shape (profiles, pixels)

    Returns
    -------
    middle, sigma : arrays, shape (profiles,)
        Pix from 0; NaN where the fit did not end well.
    """
    x = np.arange(profiles.shape[1], dtype=np.float64)
    middle, sigma = np.argmax(profiles, axis=1).astype(np.float64), np.full(len(profiles), _SIGMA)
    height = profiles.max(axis=1, initial=0)
    for _ in range(_ROUNDS):
        away = (x - middle[:, None]) / sigma[:, None]
        bell = np.exp(-(away**2) / 2)
        model = height[:, None] * bell
        slopes = np.stack([bell, model * away / sigma[:, None], model * away**2 / sigma[:, None]], axis=2)
        normal = np.einsum("npi,npj->nij", slopes, slopes) + 1e-9 * np.eye(3)
        target = np.einsum("npi,np->ni", slopes, profiles - model)
        move = np.linalg.solve(normal, target[..., None])[..., 0]
        height = height + move[:, 0]
        middle = np.clip(middle + np.clip(move[:, 1], -1, 1), 0, profiles.shape[1] - 1)
        sigma = np.clip(sigma + np.clip(move[:, 2], -0.3, 0.3), 0.3, profiles.shape[1] / 2)
    settled = (np.abs(move[:, 1]) < _SETTLED) & (np.abs(move[:, 2]) < _SETTLED) & (height > 0)
    return np.where(settled, middle, np.nan), np.where(settled, sigma, np.nan)


def _moments(profiles: Real) -> tuple[Real, Real]:
    x = np.arange(profiles.shape[1], dtype=np.float64)
    total = profiles.sum(axis=1)
    middle = profiles @ x / total
    variance = (profiles * (x - middle[:, None]) ** 2).sum(axis=1) / total
    return middle, np.sqrt(np.maximum(variance, 0))
