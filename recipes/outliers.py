"""Pixels that do not agree with those around them, and what stands in for them."""

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Float32
from recipes.stats import Real

_LEAST_IN_CELL = 3  # pixels, to say of one that it is higher than the others; MP


def bridge(data: Float32, bad: NDArray[np.bool_], row: NDArray[np.intp]) -> None:
    """Put onto bad pixels what their next good neighbours on the detector row have, on a line between the two.

    A row without good pixels takes that of the rows beside it.

    Parameters
    ----------
    data, bad, row : arrays, shape (pixels,)
        In the order of the pixel table; row of the detector.
    """
    if not bad.any() or bad.all():
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]])))
    starts, stops = edges[::2], edges[1::2]
    before, after = np.maximum(starts - 1, 0), np.minimum(stops, len(data) - 1)
    on_left = (starts > 0) & (row[before] == row[starts])
    on_right = (stops < len(data)) & (row[after] == row[stops - 1])
    before = np.where((on_right & ~on_left) | (starts == 0), after, before)
    after = np.where((on_left & ~on_right) | (stops == len(data)), before, after)
    lengths = stops - starts
    run = np.repeat(np.arange(len(starts)), lengths)
    index = np.flatnonzero(bad)
    part = ((index - starts[run] + 1) / (lengths[run] + 1)).astype(np.float32)
    data[index] = data[before[run]] * (1 - part) + data[after[run]] * part


def find_outliers(cell: NDArray[np.intp], data: Float32, stat: Float32, kind: str, sigma: float) -> NDArray[np.bool_]:
    """Flag pixels that are higher than the others of their cell by more than ``sigma``; a cell has three at least.

    Parameters
    ----------
    cell : integer array, shape (pixels,)
        Number of the cell.
    data, stat : float32 arrays, shape (pixels,)
    kind : str
        ``median``: compared with median and median deviation; ``mean``: with mean and standard deviation; ``iraf``:
        with the mean and its error by the variances.
    sigma : float
    """
    if not len(cell):
        return np.zeros(0, bool)
    small = np.min_scalar_type(int(cell.max()))  # integers of 16 bits are sorted by their digits, which is fast
    order = np.argsort(cell.astype(small), kind="stable")
    number = np.bincount(cell)
    there = np.flatnonzero(number)
    starts, number = (np.cumsum(number) - number)[there], number[there]
    group = np.repeat(np.arange(len(there)), number)
    place = np.arange(len(cell)) - starts[group]
    values = data[order]
    level: Real
    deviation: Real
    if kind == "median":
        level = _medians(values, group, place, number)
        deviation = _medians(np.abs(values - level[group]), group, place, number)
    else:
        level = np.add.reduceat(values, starts, dtype=np.float64) / number
        if kind == "mean":
            squares = np.add.reduceat(np.square(values - level[group]), starts, dtype=np.float64)
            deviation = np.sqrt(squares / np.maximum(number - 1, 1))
        else:
            deviation = np.sqrt(np.add.reduceat(stat[order], starts, dtype=np.float64)) / number
    limit = np.where(number >= _LEAST_IN_CELL, level + sigma * deviation, np.inf)
    outliers = np.zeros(len(cell), bool)
    outliers[order] = values > limit[group]
    return outliers


def _medians(values: Float32, group: NDArray[np.intp], place: NDArray[np.intp], number: NDArray[np.intp]) -> Float32:
    """Return the median of each group of values."""
    table = np.full((len(number), int(number.max())), np.inf, np.float32)
    table[group, place] = values
    table.sort(axis=1)
    rows = np.arange(len(number))
    middle: Float32 = (table[rows, (number - 1) // 2] + table[rows, number // 2]) / np.float32(2)
    return middle
