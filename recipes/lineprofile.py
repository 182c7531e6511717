"""The line-spread function of a slice from its arc lines: a spline across the line that varies with its wavelength.

Every pixel about a line, in every column, is a sample of the profile at its distance from the line in wavelength; the
lines, a little tilted and at all phases of the pixels, sample it finely. As the pixels are, so is the profile: it
includes them. Flux, place and background of a line follow from the profile, and the profile from them, in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from recipes.arclines import FWHM_PER_SIGMA, Noise, gather
from recipes.arcs import Arc
from recipes.dispersion import Dispersion
from recipes.linecatalog import LineCatalog
from recipes.muse import DISPERSION
from recipes.recipe import Float32, RecipeError
from recipes.trace import CENTRE, LEFT, RIGHT, Trace

Real = NDArray[np.floating[Any]]

RANGE = (4650.0, 9300.0)  # Angstrom, over which profiles are given; MP
_NOMINAL_FWHM = 2.61  # Angstrom, of the first guess; MP
_EDGE = 3  # columns at either edge of a slice, where its light falls off
_BIN = 0.05  # Angstrom, within which samples are one
_ORDER = 3  # of the profile along the slice; MP
_DEGREE = 3  # of the spline
_KNOTS = 2 / 3  # of the window, from one knot of the spline to the next
_ROUNDS = 3  # of profile, and fluxes, places and backgrounds
_FAR = 5.5  # Angstrom, beyond which a line leaves only its background; MP
_FAINT = 1e-5  # of the flux of a line, that a neighbour may add to a sample
_LEAST = 30.0  # times its error that the flux of a line must have
_FEWEST = 8  # lines in a slice
_OUTLIER = 6.0  # times its noise that a sample may be off
_UNEVEN = 0.03  # of the signal, by which the light may vary along a slice beside what all lines show


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pixels about lines; arrays of shape (lines, slices, columns, pixels), pixels running along the dispersion.

    Parameters
    ----------
    wavelength : float array, shape (lines,)
        Angstrom.
    noise : tuple of Noise
        One a line.
    offset : float32 array
        Wavelength of a pixel less that of the line, Angstrom.
    value : float32 array
        Electrons, 0 where not to be used.
    usable : bool array
    """

    wavelength: Real
    noise: tuple[Noise, ...]
    offset: Float32
    value: Float32
    usable: NDArray[np.bool_]


@dataclass(frozen=True)
class Profiles:
    """Line-spread functions.

    Parameters
    ----------
    coefficients : float array, shape (slices, splines, order + 1)
        Of splines in the distance from the line and of Legendre polynomials of the scaled wavelength of the line.
    knots : float array
        Angstrom.
    """

    coefficients: Real
    knots: Real

    def at(self, wavelength: Real, offset: Real) -> Real:
        """Return profiles of integral 1 over even offsets: (lines,) and (offsets,) to (lines, slices, offsets)."""
        splines = BSpline.design_matrix(offset, self.knots, _DEGREE).toarray()
        along = legvander(_scaled(wavelength), _ORDER)
        profiles: Real = np.einsum("on,snj,lj->lso", splines, self.coefficients, along, optimize=True)
        step = float(offset[1] - offset[0])
        profiles /= profiles.sum(axis=2, keepdims=True) * step
        return profiles


def collect_samples(
    arcs: Sequence[Arc],
    traces: Sequence[Trace],
    dispersions: Sequence[Dispersion],
    catalog: LineCatalog,
    chosen: NDArray[np.bool_],
    reach: float,
) -> Samples:
    """Return the pixels about the chosen lines of a catalogue in all slices.

    Parameters
    ----------
    arcs, traces, dispersions
    catalog : LineCatalog
        With the neighbours of the chosen lines.
    chosen : bool array
        One value a line of the catalogue.
    reach : float
        Angstrom to either side of a line.
    """
    rows = len(arcs[0].data)
    centres = np.arange(1.0, rows + 1)
    middles = [trace.polynomials[CENTRE](centres) for trace in traces]
    along = [dispersion.wavelength(x, centres) for dispersion, x in zip(dispersions, middles, strict=True)]
    width = min(int(trace.width) for trace in traces) - 2 * _EDGE
    half = int(np.ceil(reach / DISPERSION)) + 1
    wanted = [(arc, line) for arc in arcs for line in np.flatnonzero(chosen & (catalog.lamp == arc.lamp))]
    if not wanted:
        raise RecipeError("The LINE_CATALOG has no line that shows a profile; lower line_quality or take another one.")
    shape = (len(wanted), len(traces), width, 2 * half + 1)
    offsets, values, usable = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, bool)
    for number, (arc, line) in enumerate(wanted):
        wavelength = catalog.wavelength[line]
        place = np.array([np.interp(wavelength, one, centres, np.nan, np.nan) for one in along])
        offset, value = _about(arc, traces, dispersions, wavelength, place, width, half)
        good = ~np.isnan(value) & (np.abs(offset) < reach)
        good &= ~_disturbed(offset, catalog, np.flatnonzero(catalog.lamp == arc.lamp), line)
        offsets[number], values[number], usable[number] = offset, np.where(good, value, 0), good
    return Samples(
        wavelength=catalog.wavelength[[line for _, line in wanted]],
        noise=tuple(Noise(floor=arc.floor, frames=arc.frames, scatter=arc.scatter) for arc, _ in wanted),
        offset=offsets,
        value=values,
        usable=usable,
    )


def _about(
    arc: Arc,
    traces: Sequence[Trace],
    dispersions: Sequence[Dispersion],
    wavelength: float,
    place: Real,
    width: int,
    half: int,
) -> tuple[Float32, Float32]:
    """Return offsets and electrons of the pixels about one line, shape (slices, columns, pixels); NaN outside."""
    seen = np.isfinite(place)
    y = np.where(seen, place, 1.0)
    offset = np.empty((len(traces), width, 2 * half + 1), np.float32)
    start, columns = np.empty((2, len(traces), width), np.intp)
    pixel = np.arange(-half, half + 1)
    for number, (trace, dispersion) in enumerate(zip(traces, dispersions, strict=True)):
        left, right = trace.polynomials[LEFT](y[number]), trace.polynomials[RIGHT](y[number])
        first = round((left + right - width + 1) / 2)
        columns[number] = np.arange(first, first + width)
        before, at, after = (dispersion.wavelength(columns[number], y[number] + step) for step in (-1.0, 0.0, 1.0))
        slope, bend = (after - before) / 2, after - 2 * at + before
        middle = np.rint(y[number] - (at - wavelength) / slope).astype(np.intp)
        away = middle - y[number]
        start[number] = middle - half - 1
        distance = away[:, None] + pixel
        offset[number] = (at - wavelength)[:, None] + distance * (slope[:, None] + distance * bend[:, None] / 2)
    values = gather(arc.data, start.ravel(), columns.ravel() - 1, 2 * half + 1).T.reshape(offset.shape)
    return offset, np.where(seen[:, None, None], values, np.float32(np.nan))


def _disturbed(offset: Float32, catalog: LineCatalog, lines: NDArray[np.intp], line: np.intp) -> NDArray[np.bool_]:
    """Flag samples to which another line of the lamp adds."""
    away = catalog.wavelength[lines] - catalog.wavelength[line]
    brightness = np.maximum(catalog.flux[lines], 0) / max(catalog.flux[line], 1e-3) / _FAINT
    sigma = _NOMINAL_FWHM / FWHM_PER_SIGMA
    reach = sigma * np.sqrt(2 * np.log(np.maximum(brightness, 1)))
    result = np.zeros(offset.shape, bool)
    for distance, far in zip(away, reach, strict=True):
        if distance and np.abs(distance) - far < np.abs(offset).max():
            result |= np.abs(offset - np.float32(distance)) < far
    return result


def fit_profiles(samples: Samples, reach: float, window: float) -> Profiles:
    """Fit the line-spread function of every slice.

    Parameters
    ----------
    samples : Samples
    reach : float
        Angstrom to either side.
    window : float
        Half width of what the profile is smooth in, Angstrom.

    Raises
    ------
    RecipeError
        If a slice shows too few lines.
    """
    inner = np.linspace(-reach, reach, max(round(2 * reach / (_KNOTS * window)), 4) + 1)
    knots = np.concatenate([[-reach] * _DEGREE, inner, [reach] * _DEGREE])
    grid = np.arange(-reach + _BIN / 2, reach, _BIN)
    sigma = _NOMINAL_FWHM / FWHM_PER_SIGMA
    bell = np.exp(-np.square(grid / sigma) / 2) / (sigma * np.sqrt(2 * np.pi))
    lines, slices, columns, _ = samples.offset.shape
    templates: Real = np.broadcast_to(bell, (lines, slices, len(grid)))
    light, shift = np.ones((slices, columns), np.float32), np.zeros((lines, slices))
    profiles = Profiles(np.zeros((slices, len(knots) - _DEGREE - 1, _ORDER + 1)), knots)
    for _ in range(_ROUNDS):
        sums = [_line_sums(samples, line, templates[line], grid, light, shift[line]) for line in range(lines)]
        seen = np.array([one.seen for one in sums])
        _check(seen)
        shift = np.array([one.shift for one in sums])
        up, down = (np.sum([getattr(one, name) for one in sums], axis=0) for name in ("light", "norm"))
        light = (up / np.maximum(down, 1e-30)).astype(np.float32)
        light /= light.mean(axis=1, keepdims=True)
        weights, values = (np.array([getattr(one, name) for one in sums], np.float32) for name in ("weights", "values"))
        profiles = Profiles(_regress(samples.wavelength, weights, values, grid, knots), knots)
        templates = profiles.at(samples.wavelength, grid)
    return profiles


@dataclass(frozen=True, kw_only=True)
class _LineSums:
    """What one line says of each slice.

    ``seen`` and ``shift`` (Angstrom) have one value a slice; ``light`` over ``norm`` is the light of each column;
    ``weights`` and ``values`` are sums over the samples of each bin of the profile, shape (slices, bins).
    """

    seen: NDArray[np.bool_]
    shift: Real
    light: Real
    norm: Real
    weights: Real
    values: Real


def _line_sums(samples: Samples, line: int, template: Real, grid: Real, light: Float32, shift: Real) -> _LineSums:
    """Fit flux, place and background of a line in each slice, and sum its samples, in units of its flux, in bins."""
    offset, value, usable = samples.offset[line], samples.value[line], samples.usable[line]
    slices = len(offset)
    bins = np.arange(slices)[:, None, None] * len(grid)
    rise = np.gradient(template, grid, axis=1).astype(np.float32).ravel()
    flat = template.astype(np.float32).ravel()

    def place(moved: Real) -> NDArray[np.intp]:
        nearest = np.floor(
            (offset - moved.astype(np.float32)[:, None, None] - np.float32(grid[0] - _BIN / 2)) / np.float32(_BIN)
        )
        index: NDArray[np.intp] = bins + np.clip(nearest, 0, len(grid) - 1).astype(np.intp)
        return index

    index = place(shift)
    lit = light[:, :, None]
    shape, slope = flat[index] * lit, rise[index] * lit
    flux, background = np.zeros(slices, np.float32), np.zeros(slices, np.float32)
    signal = value
    for _ in range(2):  # the second time with the noise of the model
        weight = usable / samples.noise[line].variance(signal)
        solution, variance = _three(weight, value, shape, -slope)
        flux, background = solution[:, 0].astype(np.float32), solution[:, 2].astype(np.float32)
        signal = flux[:, None, None] * shape + background[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = solution[:, 1] / solution[:, 0]
        seen = (solution[:, 0] > _LEAST * np.sqrt(variance)) & (np.abs(moved + shift) < DISPERSION)
    moved = np.where(seen, shift + np.nan_to_num(moved), 0)
    index = place(moved)
    model = flux[:, None, None] * flat[index] * lit
    level = value - background[:, None, None]
    noise = 1 / np.maximum(weight, 1e-30) + np.square(np.float32(_UNEVEN) * model)
    weight = np.where(np.square(level - model) < _OUTLIER**2 * noise, weight, 0) * seen[:, None, None]
    scale = flux[:, None, None] * lit
    number = slices * len(grid)
    sums: list[Real] = [
        np.bincount(index.ravel(), what.ravel(), number).astype(float).reshape(slices, -1)
        for what in (weight * np.square(scale), weight * scale * level)
    ]
    whole = flux[:, None, None] * flat[index]
    return _LineSums(
        seen=seen,
        shift=moved,
        light=(weight * whole * level).sum(axis=2),
        norm=(weight * np.square(whole)).sum(axis=2),
        weights=sums[0],
        values=sums[1],
    )


def _three(weight: Float32, value: Float32, shape: Float32, slope: Float32) -> tuple[Real, Real]:
    """Fit profile, its derivative and a constant in each slice; return coefficients and the variance of the first."""
    basis = (shape, slope, np.ones_like(shape))
    normal, right = np.empty((len(shape), 3, 3)), np.empty((len(shape), 3))
    for i, one in enumerate(basis):
        weighted = one * weight
        right[:, i] = np.einsum("scp,scp->s", weighted, value)
        for j in range(i + 1):
            normal[:, i, j] = normal[:, j, i] = np.einsum("scp,scp->s", weighted, basis[j])
    normal += 1e-12 * np.eye(3)
    inverse = np.linalg.inv(normal)
    solution: Real = (inverse @ right[..., None])[..., 0]
    return solution, inverse[:, 0, 0]


def _check(seen: NDArray[np.bool_]) -> None:
    fewest = int(np.argmin(seen.sum(axis=0)))
    number = int(seen[:, fewest].sum())
    if number < _FEWEST:
        raise RecipeError(
            f"Slice {fewest + 1} shows {number} lines bright enough for a profile, and {_FEWEST} are needed; are the"
            " arcs bright, and is the WAVECAL_TABLE that of this channel?",
            slice=fewest + 1,
            lines=number,
        )


def _regress(wavelength: Real, weights: Real, values: Real, grid: Real, knots: Real) -> Real:
    """Fit splines with coefficients that vary along the slice to sums in bins, shape (lines, slices, bins)."""
    splines = BSpline.design_matrix(grid, knots, _DEGREE).toarray()
    along = legvander(_scaled(wavelength), _ORDER)
    count, order = splines.shape[1], along.shape[1]
    result = np.empty((weights.shape[1], count, order))
    for number in range(len(result)):
        right = splines.T @ (values[:, number].T @ along)
        normal = np.empty((count, order, count, order))
        for i in range(order):
            for j in range(order):
                of_bins = (along[:, i] * along[:, j]) @ weights[:, number]
                normal[:, i, :, j] = splines.T @ (of_bins[:, None] * splines)
        square = normal.reshape(count * order, -1)
        square[np.diag_indices(len(square))] *= 1 + 1e-9
        square[np.diag_indices(len(square))] += 1e-9 * np.trace(square) / len(square)
        result[number] = np.linalg.solve(square, right.ravel()).reshape(count, order)
    return result


def _scaled(wavelength: Real) -> Real:
    return (2 * wavelength - sum(RANGE)) / (RANGE[1] - RANGE[0])
