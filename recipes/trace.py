"""Tracing of the slices on a flat field: edges in blocks of rows, polynomials along the detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from recipes.muse import SLICES
from recipes.recipe import Column, Flags, Float32, Measurement, RecipeError, Table
from recipes.stats import Fit, fit_polynomial

Real = NDArray[np.floating[Any]]

HALF_WIDTH = 55  # pixels to either side of the middle of a slice in which its edges are looked for; MP
LIKELY_WIDTH = (72.2, 82.2)  # pixels; MP
_EDGE_REACH = 5  # pixels to either side of an edge that its fit uses
_INSIDE = np.linspace(-0.88, 0.88, 45)  # of the half width of a slice, where its light shows no edge
_EDGE_SIGMA = 1.0  # pixels, first guess of the blur of an edge
_ROUNDS = 12  # of the fit of an edge
_FARTHEST = 1.5  # pixels an edge may move from where the light falls to a fraction of its median
_FAINTEST = 5.0  # times its noise that the step at an edge must have
_PIXEL_SCATTER = 0.006  # of the sensitivity of single pixels, which limits the edges of a bright flat
_LIMIT = 5.0  # sigma beyond which samples are left out of a polynomial; MP
_WIDTH_LIMIT = 5.0  # mean absolute deviations from the median width; MP
# Slices at the corners of the field, whose widths show a clipped edge; MP
_CORNERS = MappingProxyType({3: "bottom left", 10: "top left", 39: "bottom right", 46: "top right"})
_WIDTH_WORDS = (
    "Median width of slices",
    "Mean width of slices",
    "Standard deviation of widths of slices",
    "Minimum width of slices",
    "Maximum width of slices",
)
_GAP_WORDS = (
    "Median of gaps between slices",
    "Mean of gaps between slices",
    "Standard deviation of gaps between slices",
    "Minimum of gap between slices",
    "Maximum gap between slices",
)
CENTRE, LEFT, RIGHT = 0, 1, 2  # numbers of the polynomials in the names of columns; MP


@dataclass(frozen=True)
class Samples:
    """Edges measured in blocks of rows; arrays of shape (slices, blocks). NaN where there is too little light.

    Parameters
    ----------
    y : float array, shape (blocks,)
        Middle of each block, pix from 1.
    left, right : float arrays, pix from 1
    left_error, right_error : float arrays, pix
    """

    y: Real
    left: Real
    right: Real
    left_error: Real
    right_error: Real

    def table(self) -> Table:
        """Return TRACE_SAMPLES: a row for each slice and block with light."""
        number, block = np.nonzero(np.isfinite(self.left + self.right))
        left, right = self.left[number, block], self.right[number, block]
        return Table(
            columns=(
                Column(name="slice", values=(number + 1).astype(np.int32)),
                Column(name="y", values=self.y[block].astype(np.float32), unit="pix"),
                Column(name="mid", values=((left + right) / 2).astype(np.float32), unit="pix"),
                Column(name="left", values=left.astype(np.float32), unit="pix"),
                Column(name="right", values=right.astype(np.float32), unit="pix"),
            )
        )


@dataclass(frozen=True)
class Trace:
    """Where one slice is.

    Parameters
    ----------
    polynomials : three Polynomial
        Middle, left and right edge against y; both in pix from 1.
    mean_squares : three floats
        Of the deviations of the samples, square pix.
    width : float
        Mean of the samples, pix.
    """

    polynomials: tuple[Polynomial, Polynomial, Polynomial]
    mean_squares: tuple[float, float, float]
    width: float


def sample_edges(
    data: Float32, stat: Float32, dq: Flags, *, rows: int, fraction: float, slices: int | None = SLICES
) -> Samples:
    """Measure the edges of all slices in blocks of rows.

    Parameters
    ----------
    data, stat, dq : arrays, shape (rows, columns)
        Flat field with its variances and flags. Flagged pixels are bridged along the row.
    rows : int
        Height of a block.
    fraction : float
        Of the median light of a slice at which its edge is looked for first.
    slices : int or None
        How many there must be; None takes what is there.

    Raises
    ------
    RecipeError
        If there is not that number of slices in the middle of the detector.
    """
    blocks = (len(data) - 1) // rows
    light = np.empty((blocks, data.shape[1]))
    variance = np.empty_like(light)
    for block in range(blocks):
        inside = slice(block * rows, (block + 1) * rows)
        light[block] = _bridged(data[inside], dq[inside]).mean(axis=0, dtype=np.float64)
        variance[block] = stat[inside].mean(axis=0, dtype=np.float64) / rows
    variance += (_PIXEL_SCATTER * light) ** 2 / rows
    centres = _locate_slices(light[(blocks - 1) // 2 : (blocks + 2) // 2].mean(axis=0), fraction, slices)
    edges = np.array([_cross(light, centre, fraction) for centre in centres])
    position, error = _refine(light, variance, edges.transpose(1, 2, 0))
    y = np.arange(blocks) * rows + (rows + 1) / 2
    (left, right), (left_error, right_error) = position.transpose(0, 2, 1) + 1, error.transpose(0, 2, 1)
    return Samples(y, left, right, left_error, right_error)


def trace_slices(samples: Samples, order: int) -> tuple[Trace, ...]:
    """Fit polynomials to the samples of each slice, the better measured ones counting for more.

    Raises
    ------
    RecipeError
        If too few samples of a slice are good.
    """
    return tuple(_trace_slice(samples, number, order) for number in range(len(samples.left)))


def trace_table(traces: Sequence[Trace]) -> Table:
    """Return TRACE_TABLE: one row a slice, coefficients of powers of y for middle, left and right edge."""
    columns = [
        Column(name="SliceNo", values=np.arange(1, len(traces) + 1, dtype=np.int32), unit="No"),
        Column(name="Width", values=np.array([trace.width for trace in traces], np.float32), unit="pix"),
    ]
    for which in (CENTRE, LEFT, RIGHT):
        coefficients = np.array([trace.polynomials[which].coef for trace in traces])
        columns += [
            Column(name=f"tc{which}_{power:02d}", values=values, unit="pix")
            for power, values in enumerate(coefficients.T)
        ]
        squares = np.array([trace.mean_squares[which] for trace in traces])
        columns.append(Column(name=f"MSE{which}", values=squares, unit="pix"))
    return Table(columns=tuple(columns))


def read_traces(table: Table) -> tuple[Trace, ...]:
    """Return what a TRACE_TABLE holds, of these recipes or of ESO's, in order of slices.

    Raises
    ------
    RecipeError
        If a coefficient is not a number.
    """
    order = sum(column.name.startswith("tc0_") for column in table.columns) - 1
    found = []
    for row in np.argsort(table["SliceNo"]):
        coefficients = [
            [float(table[f"tc{which}_{power:02d}"][row]) for power in range(order + 1)]
            for which in (CENTRE, LEFT, RIGHT)
        ]
        if not np.isfinite(coefficients).all():
            raise RecipeError(
                f"The TRACE_TABLE has no edges for slice {table['SliceNo'][row]}; make it anew.",
                slice=int(table["SliceNo"][row]),
            )
        centre, left, right = (Polynomial(values) for values in coefficients)
        squares = (float(table["MSE0"][row]), float(table["MSE1"][row]), float(table["MSE2"][row]))
        found.append(Trace((centre, left, right), squares, float(table["Width"][row])))
    return tuple(found)


def measure_traces(traces: Sequence[Trace], rows: int) -> tuple[Measurement, ...]:
    """Return the QC1 parameters of a trace table, for a detector with that many rows."""
    middle, y = rows // 2, np.arange(1, rows + 1)
    found = []
    for side, trace in (("L", traces[0]), ("R", traces[-1])):
        centre, which = trace.polynomials[CENTRE], "leftmost" if side == "L" else "rightmost"
        tilt = float(np.degrees(np.arctan((centre(rows) - centre(1)) / (rows - 1))))
        found += [
            Measurement(
                f"TRACE SLICE_{side} XPOS", float(centre(middle)), f"[pix] Location of midpoint of {which} slice"
            ),
            Measurement(
                f"TRACE SLICE_{side} TILT",
                tilt,
                f"[deg] Tilt of {which} slice, measured as angle from vertical direction",
            ),
        ]
    for number, trace in enumerate(traces, start=1):
        slopes = np.concatenate([polynomial.deriv()(y) for polynomial in trace.polynomials])
        found.append(
            Measurement(
                f"TRACE SLICE{number} MAXSLOPE",
                float(slopes[np.argmax(np.abs(slopes))]),
                f"The maximum slope of the derived tracing functions of slice {number} within the CCD.",
            )
        )
        if number in _CORNERS:
            comment = f"[pix] Width of {_CORNERS[number]} slice in the IFU ({number} on CCD)"
            found.append(Measurement(f"TRACE SLICE{number} WIDTH", trace.width, comment))
    widths = np.array([trace.width for trace in traces])
    gaps = np.array(
        [after.polynomials[LEFT](middle) - before.polynomials[RIGHT](middle) for before, after in pairwise(traces)]
    )
    return (*found, *_spread("WIDTHS", widths, _WIDTH_WORDS), *_spread("GAPS", gaps, _GAP_WORDS))


def _spread(name: str, values: Real, words: Sequence[str]) -> tuple[Measurement, ...]:
    """Return statistics of one value a slice, with their comments."""
    numbers = {
        "MEDIAN": np.median(values),
        "MEAN": values.mean(),
        "STDEV": values.std(ddof=1),
        "MIN": values.min(),
        "MAX": values.max(),
    }
    return tuple(
        Measurement(f"TRACE {name} {key}", float(value), f"[pix] {comment}")
        for (key, value), comment in zip(numbers.items(), words, strict=True)
    )


def _bridged(data: Float32, dq: Flags) -> Float32:
    """Return rows with flagged pixels interpolated between their good neighbours on the row."""
    flagged = dq != 0
    if not flagged.any():
        return data
    result, x = data.copy(), np.arange(data.shape[1])
    for row in np.flatnonzero(flagged.any(axis=1)):
        bad = flagged[row]
        if not bad.all():
            result[row, bad] = np.interp(x[bad], x[~bad], data[row, ~bad])
    return result


def _locate_slices(cut: Real, fraction: float, slices: int | None) -> NDArray[np.intp]:
    """Return the middle columns of the slices on a cut through the middle of the detector."""
    bright = np.concatenate([[False], cut >= fraction * np.median(cut), [False]])
    starts, stops = np.flatnonzero(~bright[:-1] & bright[1:]), np.flatnonzero(bright[:-1] & ~bright[1:])
    wide = (stops - starts > LIKELY_WIDTH[0] / 2) & (stops - starts < 2 * LIKELY_WIDTH[0])
    found = int(np.count_nonzero(wide))
    if slices is not None and found != slices:
        raise RecipeError(
            f"{found} slices are lit in the middle of the detector and there are {slices}; was the lamp on and stable?",
            found=found,
            expected=slices,
        )
    return np.asarray((starts[wide] + stops[wide] - 1) // 2)


def _cross(light: Real, centre: int, fraction: float) -> Real:
    """Find where the light falls to a fraction of its median to either side: shape (2, blocks), columns from 0."""
    first, last = max(centre - HALF_WIDTH, 0), min(centre + HALF_WIDTH, light.shape[1] - 1)
    cut = light[:, first : last + 1]
    limit = fraction * np.median(cut, axis=1)
    blocks = np.arange(len(light))

    def falls(outwards: Real) -> Real:
        dark = outwards < limit[:, None]
        index = np.argmax(dark, axis=1)
        before, after = outwards[blocks, index - 1], outwards[blocks, index]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = index - 1 + (before - limit) / (before - after)
        return np.where(dark.any(axis=1) & (index > 0), crossed, np.nan)

    left, right = cut[:, : centre - first + 1][:, ::-1], cut[:, centre - first :]
    return np.array([centre - falls(left), centre + falls(right)])


def _refine(light: Real, variance: Real, start: Real) -> tuple[Real, Real]:
    """Fit a Gaussian to the rise of the light from pixel to pixel across each edge.

    Parameters
    ----------
    light, variance : arrays, shape (blocks, columns)
    start : array, shape (2, blocks, slices)
        First guess of left and right edges, columns from 0; NaN if there is none.

    Returns
    -------
    position, error : arrays, shape (2, blocks, slices)
        NaN where the step is not significant or runs away.
    """
    known = np.isfinite(start).all(axis=0)
    guess = np.where(known, start, np.array([_EDGE_REACH, _EDGE_REACH + LIKELY_WIDTH[0]])[:, None, None])
    index = np.rint(guess - 0.5).astype(np.intp)[..., None] + np.arange(-_EDGE_REACH, _EDGE_REACH + 2)
    index = np.clip(index, 0, light.shape[1] - 1)
    blocks = np.arange(len(light))[None, :, None, None]
    smooth = _illumination(light, guess, index)
    sign = np.array([1.0, -1.0])[:, None, None, None]
    rise = sign * np.diff(light[blocks, index] / smooth, axis=-1)
    relative = variance[blocks, index] / smooth**2
    noise = relative[..., 1:] + relative[..., :-1]
    x = (index[..., 1:] + index[..., :-1]) / 2
    step, place, blur = rise.sum(axis=-1), guess.copy(), np.full(guess.shape, _EDGE_SIGMA)
    for _ in range(_ROUNDS):
        away = (x - place[..., None]) / blur[..., None]
        shape = np.exp(-(away**2) / 2) / (blur[..., None] * np.sqrt(2 * np.pi))
        model = step[..., None] * shape
        slopes = np.stack([shape, model * away / blur[..., None], model * (away**2 - 1) / blur[..., None]], axis=-1)
        normal = np.einsum("...xi,...xj->...ij", slopes, slopes) + 1e-12 * np.eye(3)
        target = np.einsum("...xi,...x->...i", slopes, rise - model)
        move = np.linalg.solve(normal, target[..., None])[..., 0]
        step = step + move[..., 0]
        place = place + np.clip(move[..., 1], -0.5, 0.5)
        blur = np.clip(blur + np.clip(move[..., 2], -0.3, 0.3), 0.4, 3.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(noise.mean(axis=-1) / normal[..., 1, 1])
        good = known & (np.abs(place - guess) < _FARTHEST) & np.isfinite(error)
        good &= step > _FAINTEST * np.sqrt(noise.sum(axis=-1))
    return np.where(good, place, np.nan), np.where(good, error, np.nan)


def _illumination(light: Real, edges: Real, index: NDArray[np.intp]) -> Real:
    """Evaluate, at some columns, a parabola fitted to the light along each slice; at least a tiny one.

    Parameters
    ----------
    light : array, shape (blocks, columns)
    edges : array, shape (2, blocks, slices)
    index : integer array, shape (2, blocks, slices, columns at an edge)

    Returns
    -------
    array like ``index``
    """
    middle, half = edges.mean(axis=0)[..., None], (edges[1] - edges[0])[..., None] / 2
    column = np.clip(np.rint(middle + _INSIDE * half).astype(np.intp), 0, light.shape[1] - 1)
    powers = ((column - middle) / half)[..., None] ** np.arange(3)
    values = light[np.arange(len(light))[:, None, None], column]
    normal = np.einsum("...xi,...xj->...ij", powers, powers) + 1e-9 * np.eye(3)
    series = np.linalg.solve(normal, np.einsum("...xi,...x->...i", powers, values)[..., None])[..., 0]
    at = ((index - middle) / half)[..., None] ** np.arange(3)
    result: Real = np.maximum((at * series[:, :, None, :]).sum(axis=-1), 1e-6)
    return result


def _trace_slice(samples: Samples, number: int, order: int) -> Trace:
    left, right = samples.left[number], samples.right[number]
    width = right - left
    good = (width > LIKELY_WIDTH[0]) & (width < LIKELY_WIDTH[1])
    if good.any():
        median = np.median(width[good])
        good &= np.abs(width - median) <= _WIDTH_LIMIT * np.abs(width[good] - median).mean()
    if np.count_nonzero(good) <= order + 1:
        raise RecipeError(
            f"Slice {number + 1} shows good edges in {np.count_nonzero(good)} places, and a polynomial of order {order}"
            f" needs {order + 2}; is the flat bright enough?",
            slice=number + 1,
            samples=int(np.count_nonzero(good)),
        )
    left_error, right_error = samples.left_error[number][good], samples.right_error[number][good]
    middle_error = np.hypot(left_error, right_error)

    def fit(x: Real, error: Real) -> Fit:
        return fit_polynomial(samples.y[good], x, order, limit=_LIMIT, weights=1 / error)

    fits = (
        fit((left[good] + right[good]) / 2, middle_error),
        fit(left[good], left_error),
        fit(right[good], right_error),
    )
    centre, first, last = (_in_powers(found, order) for found in fits)
    return Trace(
        polynomials=(centre, first, last),
        mean_squares=(fits[0].mean_square, fits[1].mean_square, fits[2].mean_square),
        width=float(width[good][fits[0].used].mean()),
    )


def _in_powers(fit: Fit, order: int) -> Polynomial:
    powers = fit.polynomial.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1])
    return Polynomial(np.pad(powers.coef, (0, order + 1 - len(powers.coef))))
