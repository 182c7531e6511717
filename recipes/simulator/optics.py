"""Slices and wavelengths: where the light of each slice falls on the detector of a channel.

Everything is a polynomial of the pixel position, so the truth is exact. Positions count from 1 on the trimmed frame,
as in ESO's TRACE_TABLE and WAVECAL_TABLE; x runs along a row, y (and wavelength) up the columns.
The numbers reproduce the QC values of real channels of June 2017 (``docs/simulator.md``).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from recipes.muse import DETECTOR, SLICES, Detector
from recipes.simulator.seeds import Stream, stream

Real = NDArray[np.floating[Any]]

DISPERSION = 1.25  # Angstrom a pixel; ESO MUSE pipeline
WAVELENGTH_RANGE = (4300.0, 9750.0)  # Angstrom; holds every pixel of every slice
FIRST_CENTRE = 79.6  # pix, middle of slice 1; QC TRACE SLICE_L XPOS
MEAN_GAP = 7.18  # pix; QC TRACE GAPS MEAN
EDGE_SIGMA = 0.95  # pix, blur of a slice edge including the pixel
BARREL = (-0.0036, 0.0003)  # quadratic and cubic distortion; QC TRACE SLICEj MAXSLOPE
# The slicer feeds three staggered rows, so every third slice has the same wavelength in the middle row. QC WAVECAL WLEN
STAGGER = (153.0, 0.0, -158.0)  # Angstrom
MIDDLE_WAVELENGTH = 7030.0  # Angstrom
WAVELENGTH_SAG = -50.0  # Angstrom at the outermost slices
STACK_TILT = (-3.9, -1.4, 0.75, 3.1)  # Angstrom from one edge of a slice to the other, by stack of 12; QC DWLEN
STAGGER_BLUR = (1.02, 1.0, 0.96)  # relative width of the line-spread function; QC LSF SLICEj FWHM


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice of one channel.

    Parameters
    ----------
    number : int
        1 to 48, from left to right on the detector.
    left, right : Polynomial
        Edges at half intensity against y, pix.
    middle : float
        x that wavelengths are reckoned from, pix.
    along : Polynomial
        Wavelength at ``middle`` against y, Angstrom.
    tilt : Polynomial
        First derivative of wavelength along x against y, Angstrom a pix.
    bow : float
        Quadratic term of wavelength along x, Angstrom a square pix.
    blur : float
        Width of the line-spread function relative to the instrument's mean.
    throughput : float
        Relative to the mean slice.
    lamp_slope, lamp_bow : float
        Illumination by the calibration unit along the slice, linear and quadratic.
    """

    number: int
    left: Polynomial
    right: Polynomial
    middle: float
    along: Polynomial
    tilt: Polynomial
    bow: float
    blur: float
    throughput: float
    lamp_slope: float
    lamp_bow: float

    @property
    def centre(self) -> Polynomial:
        """Middle between the edges against y, pix."""
        return (self.left + self.right) / 2

    def wavelength(self, x: Real, y: Real) -> Real:
        """Return air wavelengths in Angstrom at positions that broadcast."""
        dx = x - self.middle
        result: Real = self.along(y) + dx * (self.tilt(y) + self.bow * dx)
        return result

    def position(self, x: Real, y: Real) -> Real:
        """Return where along the slice a position lies: -0.5 at the left edge, 0.5 at the right."""
        left, right = self.left(y), self.right(y)
        result: Real = (x - (left + right) / 2) / (right - left)
        return result

    def wavelength_coefficients(self) -> Real:
        """Return coefficients c[i, j] of x**i y**j, as WAVECAL_TABLE has them; shape (3, 4)."""
        along, tilt = coefficients(self.along), coefficients(self.tilt)
        bow, m = np.array([self.bow, 0, 0, 0]), self.middle
        return np.array([along - m * tilt + m * m * bow, tilt - 2 * m * bow, bow])


def coefficients(polynomial: Polynomial) -> Real:
    """Return the coefficients of y**0..3."""
    result = np.zeros(4)
    result[: len(polynomial.coef)] = polynomial.coef
    return result


def lsf_fwhm(wavelength: Real) -> Real:
    """Return the mean width of the line-spread function in Angstrom, without the pixel. Source: QC LSF SLICEj FWHM."""
    return 2.38 + 0.22 * ((wavelength - 7700) / 2700) ** 2


def fitting_slices(detector: Detector) -> int:
    """Return how many slices of real size a detector holds: 48 on the real one."""
    if detector == DETECTOR:
        return SLICES
    return max(1, int((2 * detector.nx - 12) // (76.5 + MEAN_GAP)))


@lru_cache(maxsize=32)
def draw_slices(seed: int, channel: int, detector: Detector = DETECTOR) -> tuple[Slice, ...]:
    """Return the slices of a channel. A smaller detector has the innermost slices, around its own middle."""
    rng = stream(Stream.OPTICS, seed, channel)
    r = (np.arange(1, SLICES + 1) - 24.5) / 23.5
    width = 75.0 + 4.2 * r**2 + rng.normal(0, 0.1, SLICES)  # QC TRACE WIDTHS and SLICE3/10/39/46 WIDTH
    gap = np.clip(rng.normal(0, 0.65, SLICES - 1), -1.5, 1.4)
    gap += MEAN_GAP - gap.mean()
    first = FIRST_CENTRE + np.clip(rng.normal(0, 4), -10, 10)
    centre = first + np.concatenate([[0], np.cumsum(gap + (width[1:] + width[:-1]) / 2)])
    shift, lean = rng.normal(0, 4), rng.normal(4.4e-4, 1.5e-4)  # Angstrom of the channel; radian, QC TRACE SLICE_L TILT
    scatter = rng.normal(0, 1, (SLICES, 6))
    slices = [_slice(k, centre[k], width[k], float(r[k]), shift, lean, scatter[k]) for k in range(SLICES)]
    count = fitting_slices(detector)
    if detector == DETECTOR:
        return tuple(slices)
    start = (SLICES - count) // 2
    chosen = slices[start : start + count]
    dx = DETECTOR.nx - detector.nx + (chosen[0].left(2056.5) + chosen[-1].right(2056.5)) / 2 - (DETECTOR.nx + 0.5)
    dy = DETECTOR.ny - detector.ny
    return tuple(_moved(s, number, float(dx), float(dy)) for number, s in enumerate(chosen, start=1))


def _slice(k: int, centre: float, width: float, r: float, shift: float, lean: float, scatter: Real) -> Slice:
    stagger = STAGGER[k % 3]
    y = Polynomial([0, 1])
    v = (y - 2056.5) / 2055.5
    distorted = (y - 2056.5 + stagger / DISPERSION) / 2055.5  # about the optical axis of the staggered row
    swell = 1 + BARREL[0] * distorted**2 + BARREL[1] * distorted**3

    def edge(x: float) -> Polynomial:
        return 2048.5 + (x - 2048.5) * swell + lean * (y - 2056.5)

    middle_wavelength = MIDDLE_WAVELENGTH + stagger + WAVELENGTH_SAG * r * r + shift + 1.5 * scatter[0]
    along = middle_wavelength + DISPERSION * 2055.5 * v - (9 + 0.5 * scatter[1]) * v**2 + 4 * v**3
    across = STACK_TILT[k // 12] * (1 - 0.09 * v) + 0.15 * scatter[2] + 0.3 * r
    return Slice(
        number=k + 1,
        left=edge(centre - width / 2),
        right=edge(centre + width / 2),
        middle=centre,
        along=along,
        tilt=Polynomial((across / width).coef),
        bow=1.2e-4 * (1 + 0.2 * float(scatter[3])),
        blur=STAGGER_BLUR[k % 3] * (1 + 0.01 * float(scatter[4])),
        # QC FLAT MASTER SLICEj MEAN: the staggered rows differ, the outer slices are dimmer.
        throughput=(1.06, 1.02, 0.92)[k % 3] * (1.02 - 0.07 * r * r) * (1 + 0.012 * float(scatter[5])),
        lamp_slope=0.05 * r + 0.02 * float(scatter[3]),
        lamp_bow=-0.06 + 0.02 * float(scatter[4]),
    )


def _moved(s: Slice, number: int, dx: float, dy: float) -> Slice:
    """Return the slice as seen on a detector whose first pixel is at (1 + dx, 1 + dy) of the real one."""
    y = Polynomial([dy, 1])
    return Slice(
        number=number,
        left=s.left(y) - dx,
        right=s.right(y) - dx,
        middle=s.middle - dx,
        along=s.along(y),
        tilt=s.tilt(y),
        bow=s.bow,
        blur=s.blur,
        throughput=s.throughput,
        lamp_slope=s.lamp_slope,
        lamp_bow=s.lamp_bow,
    )
