"""Differential atmospheric refraction: how far apart the colours of a star are, and how to bring them together."""

import math

import numpy as np

from recipes.muse import PIXEL
from recipes.recipe import Pointing
from recipes.stats import Real

_MMHG = 0.75006158  # mm of mercury a hPa; MP
# What stands for a value that the header does not have: Paranal in an average night. Source: MP.
_TEMPERATURE, _HUMIDITY, _PRESSURE = 11.5, 14.5, 743.0  # deg C, per cent, hPa
_SHORTEST, _LONGEST = 3500.0, 22000.0  # Angstrom; a reference wavelength outside switches the correction off; MP


def refraction_applies(pointing: Pointing, reference: float) -> bool:
    """Return whether a correction is wanted, and the direction of the telescope is known."""
    known = (*pointing.airmass, *pointing.parallactic_angle)
    return _SHORTEST <= reference <= _LONGEST and not any(map(math.isnan, known)) and mean_airmass(pointing) >= 1


def mean_airmass(pointing: Pointing) -> float:
    """Return the airmass in the middle of an exposure; NaN if the header does not say."""
    return sum(pointing.airmass) / 2


def mean_parallactic_angle(pointing: Pointing) -> float:
    """Return the parallactic angle in the middle of an exposure, degrees, also where it passes through 180."""
    start, end = pointing.parallactic_angle
    middle = start + ((end - start + 180) % 360 - 180) / 2
    return (middle + 180) % 360 - 180


def position_angle(pointing: Pointing) -> float:
    """Return the angle from field to sky, degrees: minus that of the derotator while it follows the sky. Source: MP."""
    angle = 0.0 if math.isnan(pointing.position_angle) else pointing.position_angle
    return -angle if pointing.rotator_mode == "SKY" else angle


def refractive_index(wavelength: Real, *, temperature: float, humidity: float, pressure: float) -> Real:
    """Return the refractive index of moist air.

    Parameters
    ----------
    wavelength : array
        Angstrom.
    temperature, humidity, pressure : float
        Deg C, per cent, hPa; NaN stands for an average night.

    References
    ----------
    Filippenko 1982, PASP 94, 715; the saturation pressure of water after Owens 1967, Applied Optics 6, 51.
    """
    celsius, moist, hectopascal = (
        default if math.isnan(value) else value
        for value, default in ((temperature, _TEMPERATURE), (humidity, _HUMIDITY), (pressure, _PRESSURE))
    )
    kelvin = celsius + 273.15
    saturated = -10474.0 + 116.43 * kelvin - 0.43284 * kelvin**2 + 5.3840e-4 * kelvin**3
    vapour, weight = moist / 100 * saturated * _MMHG, hectopascal * _MMHG
    squared = (1e4 / np.asarray(wavelength, float)) ** 2
    excess = 64.328 + 29498.1 / (146 - squared) + 255.4 / (41 - squared)
    warmth = 1 + 0.003661 * celsius
    excess *= weight * (1 + (1.049 - 0.0157 * celsius) * 1e-6 * weight) / (720.883 * warmth)
    excess -= (0.0624 - 0.000680 * squared) / warmth * vapour
    result: Real = 1 + 1e-6 * excess
    return result


def displacement(wavelength: Real, pointing: Pointing, reference: float) -> tuple[Real, Real]:
    """Return what is to be added to field positions, so that a star stands where it is at the reference wavelength.

    Parameters
    ----------
    wavelength : array
        Angstrom.
    pointing : Pointing
        ``refraction_applies`` to it.
    reference : float
        Angstrom.

    Returns
    -------
    right, up : arrays
        In field pixels of 0.2 arcsec, x and y of a GEOMETRY_TABLE.
    """
    air = {"temperature": pointing.temperature, "humidity": pointing.humidity, "pressure": pointing.pressure}
    excess = refractive_index(np.array([reference]), **air) - refractive_index(wavelength, **air)
    tangent = math.tan(math.acos(1 / mean_airmass(pointing)))
    lift = np.degrees(tangent * excess) * 3600 / PIXEL
    angle = math.radians(mean_parallactic_angle(pointing) + position_angle(pointing))
    return -math.sin(angle) * lift, math.cos(angle) * lift
