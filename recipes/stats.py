"""Statistics of images: exact medians of many pixels, deviations, windows, robust polynomials."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Legendre
from numpy.typing import NDArray

from recipes.recipe import Float32, Measurement

Real = NDArray[np.floating[Any]]

_SAMPLE = 20_000  # values from which the place of a median is guessed; a guess that misses it is widened
_BLOCK = 2**18  # values summed at once in single precision
WINDOW = 19  # pixels, side of the windows in which read noise and dark current are measured; MP


@dataclass(frozen=True)
class Summary:
    """Statistics of an image as the QC1 parameters name them; ``total`` is the sum of all values."""

    median: float
    mean: float
    stdev: float
    minimum: float
    maximum: float
    total: float

    def measurements(self, prefix: str, what: str) -> tuple[Measurement, ...]:
        """Return MEDIAN, MEAN, STDEV, MIN and MAX under a prefix."""
        return (
            Measurement(f"{prefix} MEDIAN", self.median, f"Median value of {what}"),
            Measurement(f"{prefix} MEAN", self.mean, f"Mean value of {what}"),
            Measurement(f"{prefix} STDEV", self.stdev, f"Standard deviation of {what}"),
            Measurement(f"{prefix} MIN", self.minimum, f"Minimum value of {what}"),
            Measurement(f"{prefix} MAX", self.maximum, f"Maximum value of {what}"),
        )


class RunningSummary:
    """Summary of values that pass by in blocks.

    The median is exact: values inside a bracket around it are kept, the others only counted.

    Parameters
    ----------
    low, high : float
        Two values between which the median should lie.
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = np.float32(low), np.float32(high)
        self._kept: list[Float32] = []
        self._number = self._below = 0
        self._sum = self._sum_of_squares = 0.0
        self._minimum, self._maximum = np.inf, -np.inf

    def add(self, values: Float32) -> None:
        """Take in one block."""
        not_below = values >= self._low
        self._below += values.size - int(np.count_nonzero(not_below))
        not_below &= values <= self._high
        self._kept.append(values[not_below])
        self._number += values.size
        self._sum += float(values.sum())
        self._sum_of_squares += float(np.square(values).sum())
        self._minimum = min(self._minimum, float(values.min()))
        self._maximum = max(self._maximum, float(values.max()))

    def summary(self) -> Summary | None:
        """Return the statistics of all that passed by; None if the median lies outside the bracket."""
        first, last = (self._number - 1) // 2 - self._below, self._number // 2 - self._below
        if first < 0 or last >= sum(values.size for values in self._kept):
            return None
        return self.exact()

    def exact(self) -> Summary:
        """Return the same where the bracket is known to hold the median, as an infinite one does."""
        kept = np.concatenate(self._kept)
        first, last = (self._number - 1) // 2 - self._below, self._number // 2 - self._below
        median = float(np.partition(kept, (first, last))[[first, last]].mean(dtype=np.float64))
        mean = self._sum / self._number
        variance = (self._sum_of_squares - self._number * mean**2) / max(self._number - 1, 1)
        return Summary(median, mean, max(variance, 0.0) ** 0.5, self._minimum, self._maximum, self._sum)


def bracket(sample: Float32) -> tuple[float, float]:
    """Return two values around the median of a sample, 2 % of the values away from it on either side."""
    ordered = np.sort(sample, axis=None)
    half, margin = ordered.size // 2, 8 + ordered.size // 50
    return float(ordered[max(half - margin, 0)]), float(ordered[min(half + margin, ordered.size - 1)])


def summarise(image: Float32, where: NDArray[np.bool_] | None = None) -> Summary:
    """Summarise an image (rows, columns), or the pixels ``where`` is true, exactly and without a copy of it."""
    every = max(1, round((image.size / _SAMPLE) ** 0.5))
    sample = image[every // 2 :: every, every // 2 :: every]
    running = RunningSummary(*bracket(sample))
    for values in _blocks(image, where):
        running.add(values)
    if summary := running.summary():
        return summary
    running = RunningSummary(-np.inf, np.inf)
    for values in _blocks(image, where):
        running.add(values)
    return running.exact()


def absolute_deviation(image: Float32, centre: float, where: NDArray[np.bool_] | None = None) -> float:
    """Mean absolute deviation from a centre, 0.8 sigma of Gaussian noise: the median deviation of the MUSE pipeline."""
    number, total = 0, 0.0
    for values in _blocks(image, where):
        number += values.size
        total += float(np.abs(values - np.float32(centre)).sum())
    return total / number


def _blocks(image: Float32, where: NDArray[np.bool_] | None) -> Iterator[Float32]:
    """Yield the values of an image, some rows at a time; blocks that select nothing are left out."""
    rows = max(1, _BLOCK // image.shape[1])
    for start in range(0, image.shape[0], rows):
        block = image[start : start + rows]
        values = block if where is None else block[where[start : start + rows]]
        if values.size:
            yield values


def scatter_windows(shape: tuple[int, int], number: int, rng: np.random.Generator) -> list[tuple[slice, slice]]:
    """Place square windows at random, one in each cell of a grid; those of one row of cells on the same rows.

    Parameters
    ----------
    shape : (rows, columns)
        Of the image they must fit into.
    number : int
        About how many; fewer if the image cannot hold so many windows of ``WINDOW`` pixels a side.
    """
    rows, columns = shape
    side = min(WINDOW, rows, columns)
    down = max(1, min(rows // side, round((number * rows / columns) ** 0.5)))
    across = max(1, min(columns // side, round(number / down)))

    def positions(length: int, cells: int) -> list[slice]:
        cell = length // cells
        starts = np.arange(cells) * cell + rng.integers(0, cell - side + 1, cells)
        return [slice(start, start + side) for start in starts.tolist()]

    return [(y, x) for y in positions(rows, down) for x in positions(columns, across)]


@dataclass(frozen=True)
class Fit:
    """A polynomial with the mean squared deviation of the points it was fitted to, and which of them those were."""

    polynomial: Legendre
    mean_square: float
    used: NDArray[np.bool_]


def fit_polynomial(x: Real, y: Real, order: int, *, limit: float, weights: Real) -> Fit:
    """Fit a polynomial by weighted least squares, leaving out points beyond ``limit`` times the rms deviation.

    Parameters
    ----------
    x, y : arrays, shape (points,)
        At least one point.
    order : int
        Lowered to what the points determine.
    limit : float
        In units of the weighted rms deviation of the points still used.
    weights : array, shape (points,)
        Inverse standard deviations, in any unit.

    Returns
    -------
    Fit
        Its polynomial has the domain of x.
    """
    used = np.ones(y.shape, bool)
    while True:
        degree = min(order, int(np.count_nonzero(used)) - 1)
        fit = Legendre.fit(x[used], y[used], degree, domain=[x.min(), x.max()], w=weights[used])
        deviation = y - fit(x)
        weighted = np.abs(deviation * weights)
        within = used & (weighted <= limit * np.sqrt(np.mean(weighted[used] ** 2)))
        if np.array_equal(within, used) or not within.any():
            return Fit(fit, float(np.mean(deviation[used] ** 2)), used)
        used = within
