"""What shines on the slices: a scene says how many electrons a second each pixel of a slice collects.

A scene is rendered slice by slice; the slice adds its edges and throughput, the chip its pixel sensitivity.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from recipes.muse import DETECTOR, Detector, Lamp
from recipes.simulator.chip import draw_pixel_flat
from recipes.simulator.lines import lines_of
from recipes.simulator.optics import EDGE_SIGMA, Real, Slice, draw_slices
from recipes.simulator.spectra import GRID, Spectrum, blue_filter, blurred_lines, lamp_curve

LAMP_RATE = 37500.0  # electrons a second and pixel at the middle of a mean slice; QC FLAT MASTER SLICEj MEAN


class Scene(Protocol):
    """Light on the slices of any channel; a value, so that its image can be kept for the next frame."""

    def __hash__(self) -> int:
        """Scenes that are equal shine alike."""

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:
        """Return electrons a second and pixel inside a slice, or None if the slice stays dark.

        ``position`` runs along the slice from -0.5 to 0.5 between its edges, ``wavelength`` is in Angstrom;
        both have the shape of the pixels asked for.
        """


@dataclass(frozen=True)
class Continuum:
    """Both continuum lamps of the calibration unit through the integrating sphere."""

    mode: str

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:  # noqa: ARG002 - lamps light every channel alike
        spectrum = _lamp_spectrum(self.mode).at(wavelength)
        spectrum *= calibration_unit(which, position)
        return spectrum


@dataclass(frozen=True)
class Arc:
    """Arc lamps: the lines of each, no continuum."""

    lamps: tuple[Lamp, ...]
    mode: str

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:  # noqa: ARG002 - lamps light every channel alike
        spectrum = arc_spectrum(self.lamps, self.mode, which.blur).at(wavelength)
        spectrum *= calibration_unit(which, position)
        return spectrum


def calibration_unit(which: Slice, position: Real) -> NDArray[np.float32]:
    """Return the illumination by the calibration unit along a slice, mean 1."""
    result: NDArray[np.float32] = np.float32(1) + (
        which.lamp_slope * position + which.lamp_bow * (position**2 - 1 / 12)
    ).astype(np.float32)
    return result


@lru_cache(maxsize=4)
def _lamp_spectrum(mode: str) -> Spectrum:
    return Spectrum((LAMP_RATE * lamp_curve(mode)).astype(np.float32))


@lru_cache(maxsize=256)
def arc_spectrum(lamps: tuple[Lamp, ...], mode: str, blur: float) -> Spectrum:
    """Return what a pixel of a mean slice collects from arc lamps, electrons a second."""
    lines = [line for lamp in lamps for line in lines_of(lamp)]
    wavelengths = np.array([line.wavelength for line in lines])
    strengths = np.array([line.rate for line in lines]) * np.interp(wavelengths, GRID, blue_filter(mode))
    return Spectrum(blurred_lines(wavelengths, strengths, blur))


@lru_cache(maxsize=1)  # frames of one scene follow each other; an image of a full channel takes 67 MB
def render(scene: Scene, seed: int, channel: int, detector: Detector = DETECTOR) -> NDArray[np.float32]:
    """Return electrons a second of every trimmed pixel of a channel, shape (rows, columns)."""
    rows, columns = detector.shape
    image = np.zeros((rows, columns), dtype=np.float32)
    y = np.arange(1, rows + 1, dtype=np.float64)[:, None]
    for which in draw_slices(seed, channel, detector):
        left, right = which.left(y), which.right(y)
        reach = 6 * EDGE_SIGMA
        start = max(int(np.floor(left.min() - reach)), 1)
        stop = min(int(np.ceil(right.max() + reach)), columns)
        x = np.arange(start, stop + 1, dtype=np.float64)[None, :]
        block = scene.light(channel, which, which.position(x, y), which.wavelength(x, y))
        if block is not None:
            block *= _transmission(x, left, right, which.throughput)
            image[:, start - 1 : stop] += block
    image *= draw_pixel_flat(seed, channel, detector)
    return image


def _transmission(x: Real, left: Real, right: Real, throughput: float) -> NDArray[np.float32]:
    """Return the throughput of a slice with its blurred edges; only columns near an edge need the error function."""
    result = np.full((left.shape[0], x.shape[1]), throughput, dtype=np.float32)
    reach = 6 * EDGE_SIGMA + 1
    for edge, sign in ((left, 1), (right, -1)):
        near = (x[0] > edge.min() - reach) & (x[0] < edge.max() + reach)
        profile = erf(((x[:, near] - edge) * (sign / (np.sqrt(2) * EDGE_SIGMA))).astype(np.float32))
        result[:, near] *= 0.5 * (1 + profile)
    result[result < 1e-6] = 0
    return result
