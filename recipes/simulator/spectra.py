"""Spectra on a fine even grid, and what lamps and instrument do to light of each wavelength."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.special import erf

from recipes.simulator.optics import DISPERSION, WAVELENGTH_RANGE, Real, lsf_fwhm

STEP = 0.05  # Angstrom; a line is 50 steps wide, so straight lines between the points will do
GRID = np.arange(WAVELENGTH_RANGE[0], WAVELENGTH_RANGE[1] + STEP / 2, STEP)
FWHM_PER_SIGMA = 2.3548200450309493
LINE_REACH = 5.5  # sigma; beyond it a line is nothing

# Wavelength in Angstrom against relative signal of both continuum lamps as detected. Shape from the levels of real
# flats (QC FLAT INPUT and MASTER SLICEj MEAN: mean 25100, median 26200, middle of the slices 43000, peak 58000 count).
LAMP_KNOTS = (
    (4300, 0.03), (4650, 0.07), (5000, 0.15), (5500, 0.35), (6000, 0.60), (6500, 0.85), (6900, 1.0),
    (7300, 1.09), (7700, 1.07), (8100, 0.95), (8500, 0.78), (8900, 0.60), (9300, 0.44), (9750, 0.30),
)  # fmt: skip
# Fraction of the photons above the atmosphere that is detected; real QC STANDARD THRU5000/7000/8000/9000.
EFFICIENCY_KNOTS = (
    (4300, 0.07), (4650, 0.14), (5000, 0.221), (5500, 0.275), (6000, 0.31), (6500, 0.33), (7000, 0.328),
    (7500, 0.295), (8000, 0.246), (8500, 0.20), (9000, 0.157), (9300, 0.12), (9750, 0.055),
)  # fmt: skip
CUT_OFF = 4735.0  # Angstrom, half-transmission of the blue filter of the nominal range; none in the extended one
CUT_OFF_WIDTH = 6.0  # Angstrom
STRAY = 0.06  # of the continuum lamps' light reaches the rows below the cut-off: real slices can be traced that far


def smooth_curve(knots: Sequence[tuple[float, float]]) -> Real:
    """Return a smooth curve through (wavelength, value) on the grid."""
    x, y = zip(*knots, strict=True)
    result: Real = PchipInterpolator(x, y)(GRID)
    return result


def blue_filter(mode: str) -> Real:
    """Return the transmission of the blue filter on the grid; 1 in the extended modes, which have none."""
    if mode.endswith("-E"):
        return np.ones_like(GRID)
    result: Real = 0.5 * (1 + erf((GRID - CUT_OFF) / CUT_OFF_WIDTH))
    return np.where(result > 1e-6, result, 0.0)


def lamp_curve(mode: str) -> Real:
    """Return the signal of both continuum lamps on the grid, 1 near 6900 Angstrom."""
    return smooth_curve(LAMP_KNOTS) * (STRAY + (1 - STRAY) * blue_filter(mode))


def blurred_lines(wavelengths: Real, strengths: Real, blur: float) -> NDArray[np.float32]:
    """Return emission lines on the grid as a detector sees them, line-spread function and pixel included.

    Parameters
    ----------
    wavelengths : float array
        Angstrom.
    strengths : float array
        Integral of each line over the pixels of a column.
    blur : float
        Width of the line-spread function relative to the mean.

    Returns
    -------
    float32 array
        Signal of a pixel centred at each grid wavelength.
    """
    values = np.zeros(GRID.shape)
    sigma = blur * lsf_fwhm(wavelengths) / FWHM_PER_SIGMA
    for wavelength, strength, width in zip(wavelengths, strengths, sigma, strict=True):
        reach = LINE_REACH * width + DISPERSION
        start, stop = np.searchsorted(GRID, [wavelength - reach, wavelength + reach])
        offset = GRID[start:stop] - wavelength
        scale = np.sqrt(2) * width
        half = DISPERSION / 2
        values[start:stop] += strength / 2 * (erf((offset + half) / scale) - erf((offset - half) / scale))
    return values.astype(np.float32)


@dataclass(frozen=True)
class Spectrum:
    """Values on ``GRID``, read off between the points by straight lines; 0 outside."""

    values: NDArray[np.float32]

    def at(self, wavelength: Real) -> NDArray[np.float32]:
        """Return the values at any array of wavelengths in Angstrom."""
        place = np.asarray((wavelength - GRID[0]) / STEP, dtype=np.float32)
        index = place.astype(np.int32)
        np.clip(index, 0, len(GRID) - 2, out=index)
        place -= index
        low = self.values[index]
        result: NDArray[np.float32] = low + (self.values[index + 1] - low) * place
        return result
