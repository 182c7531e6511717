"""Where the telescope points: sidereal time, altitude and airmass at Paranal."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

LATITUDE, LONGITUDE = -24.627, -70.404  # deg, north and east; TEL GEOLAT, GEOLON
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """Direction and sky conditions of an exposure.

    Parameters
    ----------
    ra, dec : float
        Degrees.
    position_angle : float
        Of the derotator, degrees.
    rotator_mode : str
        ``SKY`` or ``STAT``.
    seeing : float
        Full width at half maximum, arcsec.
    """

    ra: float
    dec: float
    position_angle: float = 0.0
    rotator_mode: str = "SKY"
    seeing: float = 0.8


def sidereal_time(time: datetime) -> float:
    """Return the local mean sidereal time at Paranal, hours."""
    days = (time - J2000) / timedelta(days=1)
    return (18.697374558 + 24.06570982441908 * days + LONGITUDE / 15) % 24


def altitude(pointing: Pointing, time: datetime) -> float:
    """Return the altitude above the horizon, degrees."""
    hour_angle = np.radians(sidereal_time(time) * 15 - pointing.ra)
    latitude, dec = np.radians(LATITUDE), np.radians(pointing.dec)
    sine = np.sin(latitude) * np.sin(dec) + np.cos(latitude) * np.cos(dec) * np.cos(hour_angle)
    return float(np.degrees(np.arcsin(sine)))


def airmass(pointing: Pointing, time: datetime) -> float:
    """Return the airmass; formula of Hardie (1962), which ESO's recipes use too."""
    secant = 1 / np.sin(np.radians(max(altitude(pointing, time), 3.0)))
    s = secant - 1
    return float(secant - 0.0018167 * s - 0.002875 * s**2 - 0.0008083 * s**3)


def parallactic_angle(pointing: Pointing, time: datetime) -> float:
    """Return the position angle of the zenith, from north through east, degrees."""
    hour_angle = np.radians(sidereal_time(time) * 15 - pointing.ra)
    latitude, dec = np.radians(LATITUDE), np.radians(pointing.dec)
    below = np.tan(latitude) * np.cos(dec) - np.sin(dec) * np.cos(hour_angle)
    return float(np.degrees(np.arctan2(np.sin(hour_angle), below)))


def zenith(time: datetime) -> Pointing:
    """Return the direction of the zenith, where the telescope stands for calibrations."""
    return Pointing(ra=sidereal_time(time) * 15, dec=LATITUDE, rotator_mode="STAT")
