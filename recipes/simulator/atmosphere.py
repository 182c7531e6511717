"""The air above Paranal: extinction, telluric bands, refraction, and the light of the night sky."""

from functools import lru_cache

import numpy as np

from recipes.simulator.optics import Real
from recipes.simulator.seeds import Stream, stream
from recipes.simulator.spectra import GRID

# Limits in Angstrom, mean optical depth at airmass 1, spacing of the lines. O2 bands and water vapour.
TELLURIC_BANDS = (
    (6276, 6318, 0.05, 2.5), (6868, 6950, 0.35, 3.0), (7168, 7318, 0.12, 3.5), (7594, 7690, 0.90, 3.0),
    (8138, 8335, 0.12, 3.5), (8956, 9024, 0.18, 3.0), (9278, 9745, 0.40, 4.0),
)  # fmt: skip
# Air wavelength in Angstrom and brightness in 1e-20 erg/s/cm**2/arcsec**2; oxygen, sodium and OH as seen from Paranal.
SKY_LINES = (
    (5577.338, 130000, "O I", 1), (6300.304, 90000, "O I", 2), (6363.776, 29000, "O I", 2),
    (5889.950, 16000, "Na I", 3), (5895.924, 8500, "Na I", 3),
    (6498.729, 6500, "OH", 4), (6533.044, 9500, "OH", 4), (6553.617, 6500, "OH", 4),
    (6863.955, 16000, "OH", 5), (6923.220, 14500, "OH", 5), (7276.405, 28000, "OH", 6), (7284.439, 9000, "OH", 6),
    (7316.282, 32000, "OH", 6), (7340.885, 21000, "OH", 6), (7369.366, 9500, "OH", 6), (7750.640, 39000, "OH", 7),
    (7794.112, 41000, "OH", 7), (7821.503, 25000, "OH", 7), (7841.266, 9500, "OH", 7), (7913.708, 49000, "OH", 8),
    (7949.204, 20000, "OH", 8), (7964.650, 53000, "OH", 8), (7993.332, 43000, "OH", 8), (8025.810, 26000, "OH", 8),
    (8344.602, 63000, "OH", 9), (8382.392, 24000, "OH", 9), (8399.170, 69000, "OH", 9), (8415.231, 19000, "OH", 9),
    (8430.174, 58000, "OH", 9), (8452.250, 25000, "OH", 9), (8465.208, 23000, "OH", 9), (8493.389, 19000, "OH", 9),
    (8504.628, 12000, "OH", 9), (8778.333, 38000, "OH", 10), (8791.186, 26000, "OH", 10), (8827.096, 76000, "OH", 10),
    (8885.850, 82000, "OH", 10), (8903.114, 27000, "OH", 10), (8919.641, 69000, "OH", 10), (8943.395, 31000, "OH", 10),
    (8957.922, 55000, "OH", 10), (8988.366, 35000, "OH", 10), (9001.346, 19000, "OH", 10), (9037.952, 25000, "OH", 10),
    (9313.314, 62000, "OH", 11), (9337.854, 38000, "OH", 11),
)  # fmt: skip
PRESSURE, TEMPERATURE = 560.2, 11.75  # mm of mercury (746.9 hPa), deg C; TEL AMBI PRES, TEMP
REFERENCE = 7000.0  # Angstrom; refraction is reckoned from here


def extinction(wavelength: Real) -> Real:
    """Return magnitudes per airmass: Rayleigh scattering, aerosols and ozone over Paranal."""
    micron = np.asarray(wavelength) / 1e4
    result: Real = 0.0065 * micron**-4.09 + 0.013 * micron**-1.4 + 0.025 * np.exp(-(((micron - 0.6) / 0.05) ** 2))
    return result


@lru_cache(maxsize=1)
def telluric_depth() -> Real:
    """Return the optical depth of the telluric bands at airmass 1 on the grid; the same every night."""
    rng, depth = stream(Stream.FIELD, 0), np.zeros_like(GRID)
    for low, high, mean, spacing in TELLURIC_BANDS:
        places = np.arange(low + spacing / 2, high, spacing)
        places = places + rng.uniform(-0.2, 0.2, len(places)) * spacing
        envelope = np.sin(np.pi * (places - low + 6) / (high - low + 12)) ** 0.5
        strengths = mean * spacing * envelope * rng.lognormal(0, 0.4, len(places))
        for place, strength in zip(places, strengths, strict=True):
            start, stop = np.searchsorted(GRID, [place - 5, place + 5])
            x = (GRID[start:stop] - place) / 0.7
            depth[start:stop] += strength * np.exp(-x * x / 2) / (0.7 * np.sqrt(2 * np.pi))
    return depth


def transmission(airmass: float) -> Real:
    """Return what passes the atmosphere, extinction and telluric bands, on the grid."""
    result: Real = 10 ** (-0.4 * airmass * extinction(GRID)) * np.exp(-airmass * telluric_depth())
    return result


def refraction(wavelength: Real, airmass: float) -> Real:
    """Return how much nearer to the zenith than at the reference wavelength a star appears, arcsec.

    Formula: Filippenko (1982), dry air.
    """

    def index(angstrom: Real) -> Real:
        squared = (1e4 / np.asarray(angstrom)) ** 2
        standard = 64.328 + 29498.1 / (146 - squared) + 255.4 / (41 - squared)
        density = PRESSURE * (1 + (1.049 - 0.0157 * TEMPERATURE) * 1e-6 * PRESSURE)
        result: Real = standard * 1e-6 * density / (720.883 * (1 + 0.003661 * TEMPERATURE))
        return result

    tangent = np.sqrt(max(airmass, 1.0) ** 2 - 1)
    result: Real = np.degrees(tangent) * 3600 * (index(wavelength) - index(np.array(REFERENCE)))
    return result


def sky_continuum(wavelength: Real) -> Real:
    """Return the brightness of the moonless sky between its lines, erg/s/cm**2/Angstrom/arcsec**2."""
    return 9e-18 * (np.asarray(wavelength) / 5500) ** -0.3


def sunlight(wavelength: Real) -> Real:
    """Return scattered sunlight in photons, 1 at 7000 Angstrom: blue, with the Sun's strong lines."""
    wavelength = np.asarray(wavelength)
    result: Real = (wavelength / 7000) ** -1.5
    for line, depth, width in (
        (4861.3, 0.45, 2.0), (5167.3, 0.35, 1.5), (5172.7, 0.4, 1.5), (5183.6, 0.4, 1.5), (5270.0, 0.25, 2.0),
        (5328.0, 0.2, 1.5), (5890.0, 0.45, 1.3), (5895.9, 0.35, 1.3), (6562.8, 0.5, 2.5), (8498.0, 0.3, 2.0),
        (8542.1, 0.5, 3.0), (8662.1, 0.45, 2.5),
    ):  # fmt: skip
        result *= 1 - depth * np.exp(-(((wavelength - line) / width) ** 2) / 2)
    return result
