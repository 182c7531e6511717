"""Stars: spectrophotometric standards and the fields of the astrometric calibration."""

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

import numpy as np

from recipes.simulator.field import PIXEL
from recipes.simulator.optics import Real
from recipes.simulator.pointing import Pointing, airmass
from recipes.simulator.seeds import Stream, stream

Kind = TypeVar("Kind", bound="Target")
ZERO_POINT = 3.63e-9  # erg/s/cm**2/Angstrom at 5500 Angstrom of a star of V = 0
BALMER = ((4861.33, 0.35, 18.0), (6562.80, 0.30, 20.0))  # air wavelength, depth and width of hot stars' lines, Angstrom
FIELD_STARS = 220
FIELD_HALF = 36.0  # arcsec; stars a little beyond the edges too


@dataclass(frozen=True, kw_only=True)
class Star:
    """A star: V magnitude, temperature in kelvin, and its offset from the pointing in field pixels."""

    magnitude: float
    temperature: float
    x: float = 0.0
    y: float = 0.0

    def flux(self, wavelength: Real) -> Real:
        """Return erg/s/cm**2/Angstrom above the atmosphere."""
        wavelength = np.asarray(wavelength, dtype=float)
        shape = wavelength**-5 / np.expm1(1.4387769e8 / (wavelength * self.temperature))
        shape = shape / (5500.0**-5 / np.expm1(1.4387769e8 / (5500 * self.temperature)))
        for line, depth, width in BALMER:
            shape = shape * (1 - depth / (1 + ((wavelength - line) / width) ** 2))
        result: Real = ZERO_POINT * 10 ** (-0.4 * self.magnitude) * shape
        return result


@dataclass(frozen=True, kw_only=True)
class Target:
    """A named direction, degrees."""

    name: str
    ra: float
    dec: float


@dataclass(frozen=True, kw_only=True)
class Standard(Target):
    """A spectrophotometric standard; magnitude and temperature as of its model here."""

    magnitude: float
    temperature: float


STANDARDS = (
    Standard(name="EG21", ra=47.6292, dec=-68.6008, magnitude=11.38, temperature=16000.0),
    Standard(name="GD71", ra=88.1155, dec=15.8866, magnitude=12.2, temperature=33000.0),
    Standard(name="LTT3218", ra=130.3850, dec=-32.9425, magnitude=11.86, temperature=9200.0),
    Standard(name="GD153", ra=194.2596, dec=22.0313, magnitude=12.3, temperature=39000.0),
    Standard(name="EG274", ra=245.8906, dec=-39.2299, magnitude=11.03, temperature=25000.0),
    Standard(name="LTT7987", ra=302.7369, dec=-30.2185, magnitude=12.23, temperature=15800.0),
    Standard(name="Feige110", ra=349.9933, dec=-5.1656, magnitude=11.83, temperature=45000.0),
)
FIELDS = (
    Target(name="NGC1851", ra=78.5282, dec=-40.0466),
    Target(name="NGC2808", ra=138.0129, dec=-64.8635),
    Target(name="NGC3201", ra=154.4034, dec=-46.4125),
    Target(name="NGC5139", ra=201.6970, dec=-47.4795),
    Target(name="NGC6752", ra=287.7171, dec=-59.9846),
    Target(name="NGC7099", ra=325.0922, dec=-23.1799),
)


def highest(targets: tuple[Kind, ...], time: datetime) -> Kind:
    """Return the target with the least airmass."""
    return min(targets, key=lambda target: airmass(Pointing(ra=target.ra, dec=target.dec), time))


@lru_cache(maxsize=8)
def field_stars(field: Target) -> tuple[Star, ...]:
    """Return the stars of an astrometric field, by offset from its middle; the same in every simulated night."""
    rng = stream(Stream.FIELD, 0, FIELDS.index(field))
    offsets = rng.uniform(-FIELD_HALF, FIELD_HALF, (FIELD_STARS, 2)) / PIXEL
    magnitudes = np.clip(13.5 + rng.exponential(2.2, FIELD_STARS), 13.5, 20.5)
    return tuple(
        Star(magnitude=float(magnitude), temperature=5600.0, x=float(x), y=float(y))
        for magnitude, (x, y) in zip(magnitudes, offsets, strict=True)
    )


def sky_position(target: Target, star: Star) -> tuple[float, float]:
    """Return RA and DEC in degrees of a star of a field, on the tangent plane with north up and west at +x."""
    xi, eta = np.radians(-star.x * PIXEL / 3600), np.radians(star.y * PIXEL / 3600)
    dec = np.radians(target.dec)
    below = np.cos(dec) - eta * np.sin(dec)
    ra = target.ra + np.degrees(np.arctan2(xi, below))
    return float(ra % 360), float(np.degrees(np.arctan2((np.sin(dec) + eta * np.cos(dec)), np.hypot(xi, below))))
