"""Sensitivity of single pixels relative to their neighbours along the dispersion, from a master flat.

A master flat divided out as it is would bend the lines: all light of an arc line has one wavelength, while the spectrum
of the lamp of the flat rises or falls across it. So the lamp, which is smooth, is taken out of the flat first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.arclines import PIXEL_SCATTER
from recipes.detector import narrowed
from recipes.muse import Detector
from recipes.recipe import Float32, ImageSource

_ROWS_AT_ONCE = 128
_HALF_HEIGHT = 15  # rows to either side, over which the light of the lamp is averaged
_DIM = 0.02  # of the mean flat, below which it says nothing


@dataclass(frozen=True)
class PixelFlat:
    """What a flat says about single pixels.

    Parameters
    ----------
    response : float32 array, shape (rows, columns)
        Relative sensitivity, 1 where unknown.
    flags : uint16 array
        Of the flat.
    scatter : float
        Of what is left of the uneven sensitivity after division by ``response``.
    """

    response: Float32
    flags: NDArray[np.uint16]
    scatter: float


def read_pixel_flat(flat: ImageSource, detector: Detector) -> PixelFlat:
    """Return the sensitivities that a master flat of mean 1 shows, each as far as it stands out of the flat's noise."""
    rows = detector.shape[0]
    response, flags = np.ones(detector.shape, np.float32), np.zeros(detector.shape, np.uint16)
    left = []
    for start in range(0, rows, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, rows)
        low, high = max(start - _HALF_HEIGHT, 0), min(stop + _HALF_HEIGHT, rows)
        image = flat.rows(low, high)
        good = image.dq == 0
        inside = slice(start - low, stop - low)
        number = _windowed(good, low, start, stop, rows)
        mean = _windowed(np.where(good, image.data, 0), low, start, stop, rows) / np.maximum(number, 1)
        known = good[inside] & (mean > _DIM)
        safe = np.where(known, mean, 1)
        noise = image.stat[inside] / safe**2
        trust = PIXEL_SCATTER**2 / (PIXEL_SCATTER**2 + noise)
        response[start:stop] += np.where(known, trust * (image.data[inside] / safe - 1), 0)
        flags[start:stop] = narrowed(image.dq[inside])
        left.append(float(np.median((trust * noise)[known])) if known.any() else PIXEL_SCATTER**2)
    return PixelFlat(response, flags, float(np.sqrt(np.median(left))))


def _windowed(values: NDArray[np.float32] | NDArray[np.bool_], low: int, start: int, stop: int, rows: int) -> Float32:
    """Sum values over the rows about each of [start, stop); their own first row is ``low``."""
    total = np.zeros((len(values) + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=total[1:])
    place = np.arange(start, stop)
    first, last = np.maximum(place - _HALF_HEIGHT, 0) - low, np.minimum(place + _HALF_HEIGHT + 1, rows) - low
    result: Float32 = (total[last] - total[first]).astype(np.float32)
    return result
