"""Arc lines across the slices of a channel: found in the middle, followed to the edges, measured in every column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray

from recipes.arclines import HALF_WINDOW, Noise, find_peaks, fit_profiles, gather
from recipes.arcs import Arc
from recipes.identify import Peaks
from recipes.linecatalog import LineCatalog, Quality
from recipes.recipe import Float32
from recipes.trace import CENTRE, LEFT, RIGHT, Trace

Real = NDArray[np.floating[Any]]

_MIDDLE_COLUMNS = 5  # whose mean is the spectrum of a slice
_STATIONS = (0.225, 0.45, 0.675, 0.9)  # of the half width, where lines are looked for on the way to either edge
_FOLLOWED = 20  # lines of a lamp, the brightest, that show the tilt
_TILT_ORDER = 2  # of the shift of lines along the slice
_LEAST_ERROR = 0.005  # pix, of a single line that shows the tilt: lines are no polynomials
_NOMINAL_SIGMA = 0.9  # pix, first guess of the width of a line; QC WAVECAL SLICEj LINES FWHM
_WIDTH_ORDER = 2  # of the width of lines along the detector
_NEIGHBOUR = 9.0  # pix, within which lines are measured together, for their windows overlap
_DISTURBING = 0.002  # of the flux of a line, that a neighbour must have to disturb it
_INSEPARABLE = 1.5  # pix, within which two lines are one
_CORE = 1.5  # pix to either side of a line, where every pixel must be good
_WINDOW = 2 * HALF_WINDOW + 1


@dataclass(frozen=True)
class Identified:
    """Lines recognised in the middle of a slice: index in the catalogue, and place in pix from 0."""

    index: NDArray[np.intp]
    place: Real


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where lines are expected: y against wavelength and against the place along the slice, for each slice.

    Parameters
    ----------
    coefficients : float array, shape (slices, order along the dispersion + 1, order along the slice + 1)
        Of Legendre polynomials of the scaled wavelength and of the place along the slice, which is -1 at the left edge
        and 1 at the right; pix from 0.
    domain : (float, float)
        Wavelengths in Angstrom that are scaled to -1 and 1.
    """

    coefficients: Real
    domain: tuple[float, float]

    def scaled(self, wavelength: Real) -> Real:
        """Return wavelengths in units of the domain."""
        low, high = self.domain
        return (2 * wavelength - low - high) / (high - low)

    def at(self, wavelength: Real, along: Real) -> Real:
        """Return y of wavelengths (lines,) at places along each slice (slices, places): (lines, slices, places)."""
        dispersion = legvander(self.scaled(wavelength), self.coefficients.shape[1] - 1)
        powers = legvander(along, self.coefficients.shape[2] - 1)
        result: Real = np.einsum("li,sij,spj->lsp", dispersion, self.coefficients, powers, optimize=True)
        return result


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Lines measured in each column of each slice; arrays of shape (lines, slices, columns), NaN where not seen.

    Parameters
    ----------
    index : integer array, shape (lines,)
        Of each line in the catalogue.
    x : integer array
        Column, pix from 1.
    y, error : float arrays
        Place and its standard deviation, pix from 1.
    sigma : float array
        Width in pix of a line of reference, NaN of others.
    """

    index: NDArray[np.intp]
    x: NDArray[np.intp]
    y: Real
    error: Real
    sigma: Real


def middle_spectra(arc: Arc, traces: Sequence[Trace]) -> Float32:
    """Return the mean of some columns along the middle of each slice: (slices, rows), NaN where all are flagged."""
    rows = np.arange(len(arc.data))
    spectra = np.full((len(traces), len(rows)), np.nan, np.float32)
    reach = np.arange(_MIDDLE_COLUMNS) - _MIDDLE_COLUMNS // 2
    for number, trace in enumerate(traces):
        middle = np.rint(trace.polynomials[CENTRE](rows + 1.0)).astype(np.intp) - 1
        columns = np.clip(middle[:, None] + reach, 0, arc.data.shape[1] - 1)
        values = arc.data[rows[:, None], columns]
        known = ~np.isnan(values)
        seen = known.any(axis=1)
        spectra[number, seen] = np.where(known, values, 0)[seen].sum(axis=1) / known[seen].sum(axis=1)
    return spectra


def find_lines(arc: Arc, spectra: Float32, sigma: float) -> list[Peaks]:
    """Return the lines that the middle of each slice shows, places in pix from 0."""
    noise, half = _noise(arc), HALF_WINDOW // 2
    found = [find_peaks(spectrum, noise, _MIDDLE_COLUMNS, sigma) for spectrum in spectra]
    peaks = np.concatenate(found)
    number = np.repeat(np.arange(len(spectra)), [len(one) for one in found])
    windows = gather(spectra.T, peaks - half, number, 2 * half + 1)
    centre = np.full((1, len(peaks)), float(half))
    width = np.full(len(peaks), _NOMINAL_SIGMA)
    fit = fit_profiles(windows, _noise(arc, _MIDDLE_COLUMNS), centre, width, free_width=True, rounds=6)
    place = peaks - half + fit.centre[0]
    good = np.isfinite(place)
    return [Peaks(place[good & (number == one)], fit.peak[0, good & (number == one)]) for one in range(len(spectra))]


def follow_lines(
    arcs: Sequence[Arc], traces: Sequence[Trace], catalog: LineCatalog, lines: Sequence[Identified], order: int
) -> Places:
    """Follow the brightest lines from the middle of each slice to its edges.

    Parameters
    ----------
    arcs, traces
    catalog : LineCatalog
    lines : sequence of Identified
        One a slice.
    order : int
        Of y against wavelength, at least 1.
    """
    places = Places(
        coefficients=np.zeros((len(traces), order + 1, _TILT_ORDER + 1)),
        domain=(float(catalog.wavelength.min()), float(catalog.wavelength.max())),
    )
    for number, found in enumerate(lines):
        design = legvander(places.scaled(catalog.wavelength[found.index]), order)
        places.coefficients[number, :, 0] = np.linalg.lstsq(design, found.place)[0]
    bright = [_brightest(arc, catalog, lines) for arc in arcs]
    stations, shifts = [0.0], [np.zeros((len(traces), 2))]
    for side in (-1, 1):
        before = last = np.zeros((len(traces), 2))
        for station in _STATIONS:
            guess = 2 * last - before
            before, last = last, guess + _shift(arcs, traces, catalog, bright, places, guess, side * station)
            stations.append(side * station)
            shifts.append(last)
    fit = np.linalg.pinv(legvander(np.array(stations), _TILT_ORDER))
    places.coefficients[:, :2] += np.einsum("ja,asn->snj", fit, np.array(shifts))
    return places


def measure_lines(
    arcs: Sequence[Arc], traces: Sequence[Trace], catalog: LineCatalog, places: Places, mode: str
) -> Measured:
    """Measure every line of the catalogue that is good enough, in every column of every slice.

    The width of lines is that of the lines of reference, a parabola along each slice.
    """
    covered = catalog.covered(mode)
    parts, widths = [], []
    for arc in arcs:
        mine = (catalog.lamp == arc.lamp) & covered
        reference = np.flatnonzero(mine & (catalog.quality == Quality.REFERENCE))
        parts += [_measure(arc, traces, catalog, places, np.array([line]), None) for line in reference]
        widths += [reference]
    sigma = _widths(catalog.wavelength[np.concatenate(widths)], parts, places)
    for arc in arcs:
        for group in _groups(arc, catalog, places):
            quality = catalog.quality[group]
            wanted = covered[group] & (quality >= Quality.MULTIPLET) & (quality < Quality.REFERENCE)
            if wanted.any():
                part = _measure(arc, traces, catalog, places, group, sigma)
                parts.append(_only(part, wanted))
    order = np.argsort(np.concatenate([part.index for part in parts]))
    return Measured(
        index=np.concatenate([part.index for part in parts])[order],
        x=np.concatenate([part.x for part in parts])[order],
        y=np.concatenate([part.y for part in parts])[order],
        error=np.concatenate([part.error for part in parts])[order],
        sigma=np.concatenate([part.sigma for part in parts])[order],
    )


def _noise(arc: Arc, pixels: int = 1) -> Noise:
    """Return the noise of a mean of some pixels of an arc."""
    return Noise(floor=arc.floor / pixels, frames=arc.frames * pixels, scatter=arc.scatter / pixels**0.5)


def _edges(traces: Sequence[Trace], y: Real) -> tuple[Real, Real]:
    """Return left and right edge of each slice at rows, both from 0; ``y`` has slices along its last axis."""
    left, right = (
        polyval(y + 1, np.array([trace.polynomials[which].coef for trace in traces]).T, tensor=False) - 1
        for which in (LEFT, RIGHT)
    )
    return left, right


def _widest(traces: Sequence[Trace], rows: int) -> int:
    """Return how many columns the widest slice has at most."""
    left, right = _edges(traces, np.linspace(0, rows - 1, 65)[:, None] + np.zeros(len(traces)))
    return int((right - left).max()) + 2


def _brightest(arc: Arc, catalog: LineCatalog, lines: Sequence[Identified]) -> NDArray[np.intp]:
    """Return the brightest lines of a lamp that were recognised in most slices and stand alone."""
    seen = np.zeros(len(catalog), int)
    for found in lines:
        seen[found.index] += 1
    index = np.flatnonzero((catalog.lamp == arc.lamp) & (catalog.quality >= Quality.GOOD) & (2 * seen > len(lines)))
    return index[np.argsort(-catalog.flux[index], kind="stable")[:_FOLLOWED]]


def _shift(
    arcs: Sequence[Arc],
    traces: Sequence[Trace],
    catalog: LineCatalog,
    bright: Sequence[NDArray[np.intp]],
    places: Places,
    guess: Real,
    station: float,
) -> Real:
    """Return how far lines are from a guess, constant and slope against scaled wavelength; shape (slices, 2)."""
    middle, reach = np.zeros((len(traces), 1)), np.arange(_MIDDLE_COLUMNS) - _MIDDLE_COLUMNS // 2
    scaled, away, weight = [], [], []
    for arc, lines in zip(arcs, bright, strict=True):
        wavelength = catalog.wavelength[lines]
        scale = places.scaled(wavelength)[:, None]
        expected = places.at(wavelength, middle)[..., 0] + guess[:, 0] + guess[:, 1] * scale
        left, right = _edges(traces, expected)
        column = np.rint((left + right) / 2 + station * (right - left) / 2).astype(np.intp)
        start = np.rint(expected).astype(np.intp) - HALF_WINDOW
        columns = (column.ravel()[:, None] + reach).ravel()
        windows = gather(arc.data, np.repeat(start.ravel(), len(reach)), columns, _WINDOW)
        mean = windows.reshape(_WINDOW, -1, len(reach)).mean(axis=2)
        width = np.full(expected.size, _NOMINAL_SIGMA)
        fit = fit_profiles(mean, _noise(arc, len(reach)), (expected - start).reshape(1, -1), width)
        found = fit.centre.reshape(expected.shape) + start - expected
        error = np.maximum(fit.error.reshape(expected.shape), _LEAST_ERROR)
        scaled.append(np.broadcast_to(scale, expected.shape))
        away.append(np.nan_to_num(found))
        weight.append(np.where(np.isfinite(found), 1 / np.square(error), 0))
    return _straight(np.concatenate(scaled), np.concatenate(away), np.concatenate(weight))


def _straight(x: Real, y: Real, weight: Real) -> Real:
    """Fit a straight line to each slice, leaving out what is far off it; (lines, slices) to (slices, 2)."""
    line = np.zeros((x.shape[1], 2))
    for limit in (np.inf, 0.3, 0.1):  # pix
        used = weight * (np.abs(y - line[:, 0] - line[:, 1] * x) < limit)
        s, sx, sxx = used.sum(axis=0), (used * x).sum(axis=0), (used * x * x).sum(axis=0)
        sy, sxy = (used * y).sum(axis=0), (used * x * y).sum(axis=0)
        determinant = s * sxx - sx**2
        possible = determinant > 1e-6 * np.maximum(s * sxx, 1e-30)
        safe = np.where(possible, determinant, 1)
        constant = np.where(possible, (sxx * sy - sx * sxy) / safe, sy / np.maximum(s, 1e-30))
        line = np.stack([constant, np.where(possible, (s * sxy - sx * sy) / safe, 0)], axis=1)
    return line


def _groups(arc: Arc, catalog: LineCatalog, places: Places) -> list[NDArray[np.intp]]:
    """Return the lines of a lamp, those together that disturb each other, without those too faint to disturb any."""
    slope = np.abs(
        np.median(places.coefficients[:, 1, 0]) * 2 / (places.domain[1] - places.domain[0])
    )  # pix an Angstrom
    mine = np.flatnonzero(catalog.lamp == arc.lamp)
    place, flux = catalog.wavelength[mine] * slope, catalog.flux[mine]
    away = np.abs(place[:, None] - place)
    near = away < _NEIGHBOUR
    brightest = np.where(near, flux, 0).max(axis=1)
    brighter = (away < _INSEPARABLE) & (flux > flux[:, None])
    measured = catalog.quality[mine] >= Quality.MULTIPLET
    kept = measured | ((flux > _DISTURBING * brightest) & ~brighter.any(axis=1))
    lines = mine[kept]
    ends = np.flatnonzero(np.diff(place[kept]) > _NEIGHBOUR) + 1
    return np.split(lines, ends)


def _measure(
    arc: Arc, traces: Sequence[Trace], catalog: LineCatalog, places: Places, group: NDArray[np.intp], sigma: Real | None
) -> Measured:
    """Measure lines together in all columns of all slices; without ``sigma``, also the width of a single one."""
    wavelength = catalog.wavelength[group]
    middle = places.at(wavelength, np.zeros((len(traces), 1)))[..., 0]
    left, right = _edges(traces, middle.mean(axis=0))
    first = np.ceil(left).astype(np.intp)
    columns = first[:, None] + np.arange(_widest(traces, len(arc.data)))
    inside = columns <= right[:, None]
    along = (2 * columns - (left + right)[:, None]) / (right - left)[:, None]
    expected = places.at(wavelength, along)
    start = np.floor(expected[0] + 0.5).astype(np.intp) - HALF_WINDOW
    length = _WINDOW + int(np.ceil(np.ptp(middle, axis=0).max()))
    shape = (len(group), *columns.shape)
    windows = gather(arc.data, start.ravel(), columns.ravel(), length)
    centre = (expected - start).reshape(len(group), -1)
    if sigma is None:
        width = np.full(columns.size, _NOMINAL_SIGMA)
        fit = fit_profiles(windows, _noise(arc), centre, width, rounds=4, free_width=True)
    else:
        scaled = places.scaled(wavelength.mean(keepdims=True))
        width = np.repeat((legvander(scaled, sigma.shape[1] - 1) @ sigma.T)[0], columns.shape[1])
        fit = fit_profiles(windows, _noise(arc), centre, width)
    rows = np.array(arc.data.shape[0])
    seen = inside & (expected >= HALF_WINDOW) & (expected < rows - HALF_WINDOW)
    seen &= ~_disturbed(windows, centre).reshape(shape)
    nothing = np.where(seen, 0, np.nan)
    widths = fit.sigma.reshape(shape) if sigma is None else np.full(shape, np.nan)
    return Measured(
        index=group,
        x=np.broadcast_to(columns + 1, shape),
        y=fit.centre.reshape(shape) + start + 1 + nothing,
        error=fit.error.reshape(shape) + nothing,
        sigma=widths + nothing,
    )


def _disturbed(windows: Float32, centre: Real) -> NDArray[np.bool_]:
    """Flag the lines that have an unknown pixel in their core; shape (lines, windows)."""
    unknown = np.isnan(windows)
    if not unknown.any():
        return np.zeros(centre.shape, bool)
    pixel = np.arange(len(windows))[:, None]
    return np.array([(unknown & (np.abs(pixel - at) <= _CORE)).any(axis=0) for at in centre])


def _only(part: Measured, wanted: NDArray[np.bool_]) -> Measured:
    return Measured(
        index=part.index[wanted], x=part.x[wanted], y=part.y[wanted], error=part.error[wanted], sigma=part.sigma[wanted]
    )


def _widths(wavelength: Real, parts: Sequence[Measured], places: Places) -> Real:
    """Return Legendre coefficients of the width of lines against scaled wavelength, shape (slices, order + 1)."""
    slices = len(places.coefficients)
    if not parts:
        return np.full((slices, 1), _NOMINAL_SIGMA)
    measured = np.concatenate([part.sigma for part in parts])  # (lines, slices, columns)
    number = np.isfinite(measured).sum(axis=2)
    typical = np.nanmedian(np.where(number[..., None] > 0, measured, _NOMINAL_SIGMA), axis=2)
    order = min(_WIDTH_ORDER, len(wavelength) - 1)
    design = legvander(places.scaled(wavelength), order)
    found = np.full((slices, order + 1), 0.0)
    for of_slice, (widths, weight) in enumerate(zip(typical.T, np.sqrt(number.T), strict=True)):
        found[of_slice] = np.linalg.lstsq(design * weight[:, None], widths * weight)[0]
    return found
