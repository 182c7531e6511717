"""How much an image changed from an earlier one: the share of its pixels that are off by more than so many sigma."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Image, Measurement

SIGMAS = (3, 5, 10)  # the shares that are measured, so that a threshold on any of them can be set later
_ROWS = 128  # that are looked at at a time: 13 MB of each image at full size
_SAMPLED = 16  # every so many rows and columns go into the median of an image


class Rows(Protocol):
    """A calibration image that is read in blocks of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def rows(self, start: int, stop: int) -> Image:
        """Return rows [start, stop)."""


def measurement_name(sigma: int) -> str:
    """Return the name under which a share is kept, in lower case, which no keyword of a FITS header has."""
    return f"changed beyond {sigma} sigma"


def measure_change(image: Rows, before: Rows, *, scaled: bool) -> tuple[Measurement, ...]:
    """Measure how many pixels are off from the image before.

    Parameters
    ----------
    image, before : Rows
        Of one shape. Sigma is the root of the sum of their variances; pixels that either of them flags, or that have
        no variance, are left out.
    scaled : bool
        Bring the image before to the same median first: of a flat, how bright the lamp was does not count.

    Returns
    -------
    tuple of Measurement
        Share of the pixels from 0 to 1, for each of ``SIGMAS``; () where no pixel is good in both.
    """
    if image.shape != before.shape:
        return ()
    factor = 1.0
    if scaled:
        median, earlier = _median(image), _median(before)
        if not earlier > 0 or not median > 0:
            return ()
        factor = median / earlier
    far, total = np.zeros(len(SIGMAS), np.int64), 0
    for start, stop in _blocks(image.shape[0]):
        a, b = image.rows(start, stop), before.rows(start, stop)
        variance = a.stat + np.float32(factor * factor) * b.stat
        good = (a.dq == 0) & (b.dq == 0) & (variance > 0) & np.isfinite(a.data) & np.isfinite(b.data)
        difference = (a.data - np.float32(factor) * b.data)[good]
        ratio = difference * difference / variance[good]
        far += [int(np.count_nonzero(ratio > sigma * sigma)) for sigma in SIGMAS]
        total += ratio.size
    return _measurements(far.tolist(), total)


def _measurements(far: Sequence[int], total: int) -> tuple[Measurement, ...]:
    if not total:
        return ()
    return tuple(
        Measurement(measurement_name(sigma), count / total, f"Share of pixels off by more than {sigma} sigma")
        for sigma, count in zip(SIGMAS, far, strict=True)
    )


def _blocks(rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, _ROWS):
        yield start, min(start + _ROWS, rows)


def _median(image: Rows) -> float:
    """Return the median of the good pixels of a part of the rows and columns; NaN if there are none."""
    sampled: list[NDArray[np.float32]] = []
    for start in range(0, image.shape[0], _SAMPLED):
        row = image.rows(start, start + 1)
        sampled.append(row.data[:, ::_SAMPLED][row.dq[:, ::_SAMPLED] == 0])
    values = np.concatenate(sampled)
    return float(np.median(values)) if values.size else float("nan")
