"""Search for bad columns of a detector in a master bias."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from recipes.recipe import Float32

_NEIGHBOURS = 31  # columns whose median is what a good column would show
_STEP = 8  # rows taken together in the first look at a column
_SIGNIFICANT = 8.0  # sigma of a stretch; the best of all stretches of pure noise reaches about 5
_STRETCHES = 8  # at most, in one column

Mask = NDArray[np.bool_]


def find_bad_columns(image: Float32, noise: float, *, low: float, high: float) -> Mask:
    """Flag the bad pixels of bad columns, and only those.

    A column is looked at if its mean differs from that of its neighbours. In it, the stretches of rows are flagged
    which differ as a whole, however faintly; the good rows of a bad column stay good.

    Parameters
    ----------
    image : float32 array, shape (rows, columns)
        One quadrant.
    noise : float
        Standard deviation of a pixel of it.
    low, high : float
        How far the mean of a column must be below or above, in units of the mean absolute deviation of column means.

    Returns
    -------
    bool array, shape (rows, columns)
    """
    means = image.mean(axis=0, dtype=np.float64)
    excess = means - _local_median(means)
    deviation = float(np.abs(excess - np.median(excess)).mean())
    bad = np.zeros(image.shape, bool)
    for column in np.flatnonzero((excess > high * deviation) | (excess < -low * deviation)):
        sign = np.sign(excess[column])
        profile = sign * (image[:, column].astype(np.float64) - (means[column] - excess[column]))
        for _ in range(_STRETCHES):
            stretch = _strongest_stretch(profile, noise)
            if stretch is None:
                break
            bad[stretch, column] = True
            profile[stretch] = 0
    return bad


def _local_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    width = min(_NEIGHBOURS, len(values) // 2 * 2 - 1)
    padded = np.pad(values, width // 2, mode="reflect")
    return np.asarray(np.median(sliding_window_view(padded, width), axis=1))


def _strongest_stretch(profile: NDArray[np.float64], noise: float) -> slice | None:
    """Find the rows whose sum stands out most from noise; None if none does."""
    edges = np.append(np.arange(0, len(profile), _STEP), len(profile))
    sums = np.concatenate([[0], np.cumsum(profile)])[edges]
    lengths = np.maximum(edges[None, :] - edges[:, None], 1)
    score = np.triu(sums[None, :] - sums[:, None], 1) / (noise * np.sqrt(lengths))
    first, last = np.unravel_index(np.argmax(score), score.shape)
    if score[first, last] < _SIGNIFICANT:
        return None
    # The ends are where the sum above half the excess is largest.
    start, stop = int(edges[first]), int(edges[last])
    half = profile[start:stop].mean() / 2
    start, stop = max(start - _STEP, 0), min(stop + _STEP, len(profile))
    risen = np.concatenate([[0], np.cumsum(profile[start:stop] - half)])
    lowest = np.minimum.accumulate(risen)
    end = int(np.argmax(risen - lowest))
    return slice(start + int(np.argmin(risen[: end + 1])), start + end)
