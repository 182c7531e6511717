"""Windows around spots on the frames of a channel, and what turns their raw pixels into electrons."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.background import read_background
from recipes.detector import Overscan, known_flags, per_quadrant, trimmed_blocks
from recipes.muse import Detector
from recipes.recipe import Channel, Float32, Image

HALF_WINDOW = 7  # pixels to either side of the middle of a window; MP
_ROWS_AT_ONCE = 64

Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Square windows on the trimmed detector; arrays of shape (windows,).

    Parameters
    ----------
    x, y : integer arrays
        Middle pixels, from 0.
    """

    x: Index
    y: Index

    @property
    def rows(self) -> Index:
        """Rows of their pixels, shape (windows, pixels, 1)."""
        return self.y[:, None, None] + np.arange(-HALF_WINDOW, HALF_WINDOW + 1)[:, None]

    @property
    def columns(self) -> Index:
        """Columns of their pixels, shape (windows, 1, pixels)."""
        return self.x[:, None, None] + np.arange(-HALF_WINDOW, HALF_WINDOW + 1)

    def within(self, detector: Detector) -> Mask:
        """Tell which of them lie on the detector as a whole."""
        rows, columns = detector.shape
        least = np.minimum(self.x, self.y)
        return (least >= HALF_WINDOW) & (self.x < columns - HALF_WINDOW) & (self.y < rows - HALF_WINDOW)

    def chosen(self, good: Mask) -> "Windows":
        """Return some of them."""
        return Windows(x=self.x[good], y=self.y[good])

    def cut(self, raw: NDArray[np.uint16], detector: Detector) -> NDArray[np.uint16]:
        """Cut them out of a whole raw frame."""
        rows, columns = self.rows, self.columns
        rows = rows + detector.margin * np.where(rows < detector.ny, 1, 3)
        columns = columns + detector.margin * np.where(columns < detector.nx, 1, 3)
        values: NDArray[np.uint16] = raw[rows, columns]
        return values

    def levels(self, overscan: Overscan, detector: Detector) -> Float32:
        """Return the bias level of their pixels in a frame, adu."""
        return overscan.levels[self.rows, (self.columns >= detector.nx).astype(np.intp)]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What turns raw pixels without their bias level into electrons: (values - background) * factor.

    Arrays of shape (rows, columns) of the detector, or (windows, pixels, pixels) around spots.
    """

    background: Float32
    factor: Float32
    bad: NDArray[np.bool_]

    @classmethod
    def of(cls, channel: Channel, tag: str) -> "Correction":
        """Read bias, dark, flat and bad pixels of a channel, for frames of a raw tag and the time of their first."""
        detector, exposure = channel.detector, channel.stacks[tag].exposures[0]
        shape = detector.shape
        background, factor = np.empty(shape, np.float32), np.empty(shape, np.float32)
        bad = known_flags(channel) != 0
        dark_and_bias = read_background(channel, exposure.exptime, exposure.gains)
        flat = channel.images.get("MASTER_FLAT")
        for start, stop, _ in trimmed_blocks(detector, _ROWS_AT_ONCE):
            rows = slice(start, stop)
            image = dark_and_bias(rows)
            background[rows] = image.data
            factor[rows] = per_quadrant(exposure.gains, rows, detector)
            bad[rows] |= image.dq != 0
            if flat:
                _divide(factor[rows], bad[rows], flat.rows(rows.start, rows.stop))
        return cls(background=background, factor=factor, bad=bad)

    def around(self, windows: Windows) -> "Correction":
        """Return that of windows, from that of the detector."""
        where = windows.rows, windows.columns
        return Correction(background=self.background[where], factor=self.factor[where], bad=self.bad[where])

    def chosen(self, good: Mask) -> "Correction":
        """Return that of some windows."""
        return Correction(background=self.background[good], factor=self.factor[good], bad=self.bad[good])

    def apply(self, values: Float32, scale: float = 1.0) -> None:
        """Turn values without their bias level into electrons, in place; bad pixels are bridged."""
        values -= self.background
        values *= self.factor
        values *= np.float32(scale)
        _bridge(values, self.bad)


def _divide(factor: Float32, bad: NDArray[np.bool_], flat: Image) -> None:
    dark = flat.data <= 0
    factor /= np.where(dark, np.float32(1), flat.data)
    bad |= dark | (flat.dq != 0)


def _bridge(values: Float32, bad: NDArray[np.bool_]) -> None:
    """Give bad pixels the mean of the good ones next to them, in images (..., rows, columns)."""
    where = np.nonzero(bad)
    if not len(where[0]):
        return
    rows, columns = values.shape[-2:]
    total, number = np.zeros(len(where[0]), np.float32), np.zeros(len(where[0]), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            near = (*where[:-2], np.clip(where[-2] + dy, 0, rows - 1), np.clip(where[-1] + dx, 0, columns - 1))
            good = ~bad[near]
            total += np.where(good, values[near], 0)
            number += good
    values[where] = total / np.maximum(number, 1)
