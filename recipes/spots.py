"""Spots of the calibration unit's pinhole mask: where arc lines show them, and how bright each is in each frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy import ndimage

from recipes.detector import (
    Overscan,
    OverscanParams,
    check_bias,
    is_saturated,
    measure_overscan,
    trim,
    trimmed_blocks,
)
from recipes.dispersion import Dispersion, read_dispersions
from recipes.muse import Detector
from recipes.recipe import (
    Channel,
    Column,
    Exposure,
    Float32,
    Measurement,
    RecipeError,
    Stack,
    Table,
    parameter,
)
from recipes.spotshapes import Shape, measure_shapes
from recipes.spotwindows import HALF_WINDOW, Correction, Index, Mask, Windows
from recipes.trace import CENTRE, LEFT, RIGHT, Trace, read_traces

Real = NDArray[np.floating[Any]]

HOLES = 3  # that a slice sees side by side; MP
_LEAST_LINES = 6  # MP
_LEAST_FLUX, _LEAST_NEON = 5000.0, 10000.0  # electrons, of lines worth looking at; MP
_BLUEST = 4650.0  # Angstrom; MP
_HALF_SEARCH = 7  # rows to either side of a line in which its spots are looked for; MP
_CORE = slice(HALF_WINDOW - 2, HALF_WINDOW + 3)  # pixels of a window that must be good
_LEAST_PIXELS = 4  # of a spot above the limit
_ROWS_AT_ONCE = 64
_BRIGHT = 1000.0  # electrons, of a spot that counts for the mean width; MP
_LEAST_SINE = 0.01  # of the derotator's angle, below which the stage moves along the slices


@dataclass(frozen=True, kw_only=True)
class SpotParams(OverscanParams):
    """How spots are found and measured, with ESO's names and defaults."""

    sigma: float = parameter(2.2, "Spots are what is so many median deviations above the median.", least=0.1)
    centroid: str = parameter(
        "gaussian",
        "How the place and width of a spot are measured: by a Gaussian or as the barycentre of its light.",
        choices=("gaussian", "barycenter"),
    )


@dataclass(frozen=True, kw_only=True)
class Spots:
    """Spots in order of wavelength, slice, and place from left to right; arrays of shape (spots,).

    Parameters
    ----------
    wavelength : float array, Angstrom
    slice : integer array
        From 0.
    number : integer array
        1 to 3 from left to right.
    x, y : float arrays
        Rough place, pix from 0.
    """

    wavelength: Real
    slice: Index
    number: NDArray[np.int32]
    x: Real
    y: Real

    def chosen(self, good: Mask) -> "Spots":
        """Return some of them."""
        return Spots(
            wavelength=self.wavelength[good],
            slice=self.slice[good],
            number=self.number[good],
            x=self.x[good],
            y=self.y[good],
        )


def measure_spots(channel: Channel, params: SpotParams) -> tuple[Table, tuple[Measurement, ...]]:
    """Find the spots of the mask on the mean of all frames, and measure each of them in each frame.

    Frames are read twice, and no more than one is in memory.

    Parameters
    ----------
    channel : Channel
        Raw frames MASK; image MASTER_BIAS, tables TRACE_TABLE, WAVECAL_TABLE and LINE_CATALOG; images MASTER_DARK and
        MASTER_FLAT, table BADPIX_TABLE if there are any.
    params : SpotParams

    Returns
    -------
    Table
        SPOTS_TABLE.
    tuple of Measurement
        Widths of the spots.

    Raises
    ------
    RecipeError
        If the bias does not fit, a frame does not say where the mask was, or no spots are found.
    """
    stack, detector = channel.stacks["MASK"], channel.detector
    heights = [vertical_position(exposure) for exposure in stack.exposures]
    lines = select_lines(channel.tables["LINE_CATALOG"].table)
    traces = read_traces(channel.tables["TRACE_TABLE"].table)
    dispersions = read_dispersions(channel.tables["WAVECAL_TABLE"].table)
    mean, overscans = _mean_of(stack, detector, params)
    check_bias(channel.images["MASTER_BIAS"].keywords, overscans, stack.exposures)
    correction = Correction.of(channel, "MASK")
    correction.apply(mean)
    spots = find_spots(mean, traces, dispersions, lines, sigma=params.sigma)
    del mean
    windows = Windows(x=np.rint(spots.x).astype(np.intp), y=np.rint(spots.y).astype(np.intp))
    good = _good_triples(windows.within(detector))
    spots, windows = spots.chosen(good), windows.chosen(good)
    local = correction.around(windows)
    del correction
    good = _good_triples(~_any(local.bad[:, _CORE, _CORE]))
    spots, windows, local = spots.chosen(good), windows.chosen(good), local.chosen(good)
    if not len(spots.x):
        raise RecipeError(
            f"No slice shows {HOLES} spots of a line in channel {channel.number}; was the mask in, and were the lamps"
            " on? A lower sigma finds fainter spots."
        )
    saturated = np.zeros(len(spots.x), bool)
    shapes = []
    for frame, (overscan, exposure) in enumerate(zip(overscans, stack.exposures, strict=True)):
        raw = windows.cut(stack.rows(frame, 0, detector.raw_shape[0]), detector)
        saturated |= _any(is_saturated(raw[:, _CORE, _CORE]))
        values = raw - windows.levels(overscan, detector)
        local.apply(values, stack.exposures[0].exptime / exposure.exptime)
        noise = float(np.mean(exposure.read_noise))
        shapes.append(measure_shapes(values, windows, noise, gaussian=params.centroid == "gaussian"))
    good = _good_triples(~saturated)
    table = _table(channel.number, spots, traces, stack.exposures, heights, shapes, good)
    return table, _measure_widths(shapes, good)


def vertical_position(exposure: Exposure) -> float:
    """Return how far up the mask stands, in mm along the direction that crosses the slices.

    Raises
    ------
    RecipeError
        If the frame has no position of the mask, or the mask moves along the slices.
    """
    if exposure.mask is None:
        raise RecipeError(f"{exposure.name} has no INS POS1 to POS4, which tell the mask's place; leave it out.")
    angle = exposure.pointing.position_angle * (-1 if exposure.pointing.rotator_mode == "SKY" else 1)
    sine = math.sin(math.radians(angle))
    if not abs(sine) > _LEAST_SINE:
        raise RecipeError(
            f"INS DROT POSANG of {exposure.name} is {exposure.pointing.position_angle} deg and INS DROT MODE"
            f" {exposure.pointing.rotator_mode!r}; the mask crosses the slices only far from 0 and 180 deg.",
            angle=exposure.pointing.position_angle,
        )
    return exposure.mask.positions[2] / sine


def select_lines(catalog: Table) -> Real:
    """Return the wavelengths of the lines that may show spots, Angstrom. Source of the rules: MP.

    Raises
    ------
    RecipeError
        If there are fewer than six.
    """
    ion = np.char.strip(np.asarray(catalog["ion"], str))
    flux, quality, wavelength = catalog["flux"], catalog["quality"], catalog["lambda"].astype(np.float64)
    good = (ion != "XeI") & (flux >= _LEAST_FLUX) & (wavelength >= _BLUEST) & (quality >= 1)
    weak = (ion == "NeI") & ((quality <= 1) | (flux < _LEAST_NEON))
    if good.any():
        weak[np.flatnonzero(good)[-1]] = False  # neon has enough lines, but the reddest one widens the range
    chosen: Real = wavelength[good & ~weak]
    if len(chosen) < _LEAST_LINES:
        raise RecipeError(
            f"The line catalogue has {len(chosen)} lines fit for spots, {_LEAST_LINES} are needed: of mercury, cadmium"
            f" or neon, redder than {_BLUEST:.0f} Angstrom and brighter than {_LEAST_FLUX:.0f}.",
            lines=len(chosen),
        )
    return chosen


def find_spots(
    image: Float32, traces: Sequence[Trace], dispersions: Sequence[Dispersion], lines: Real, *, sigma: float
) -> Spots:
    """Find the spots of each line in each slice on the mean of all frames; slices that do not show three are left out.

    Parameters
    ----------
    image : float32 array, shape (rows, columns), electrons
    traces, dispersions : sequences
        Of the slices.
    lines : array
        Wavelengths, Angstrom.
    sigma : float
        Limit in mean absolute deviations above the median.
    """
    rows, columns = image.shape
    middle = _rows_of(lines, traces, dispersions, rows)
    found: list[tuple[float, int, int, float, float]] = []
    for (line, which), y in np.ndenumerate(middle):
        if not np.isfinite(y):
            continue
        left, right = (round(float(traces[which].polynomials[edge](y))) - 1 for edge in (LEFT, RIGHT))
        bottom, top = round(y) - 1 - _HALF_SEARCH, round(y) - 1 + _HALF_SEARCH
        if min(left, bottom) < 0 or right >= columns or top >= rows:
            continue
        box = image[bottom : top + 1, left : right + 1]
        centre = float(np.median(box))
        above = box - np.float32(centre)
        limit = sigma * float(np.abs(above).mean())
        labels, count = ndimage.label(ndimage.gaussian_filter(above, 1.0, truncate=2.0, mode="nearest") > limit)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        wide = np.flatnonzero(sizes >= _LEAST_PIXELS) + 1
        if len(wide) == HOLES:
            places = sorted((x, y) for y, x in np.array(ndimage.center_of_mass(above, labels, wide)).tolist())
            found += [
                (float(lines[line]), which, number, left + float(x), bottom + float(y))
                for number, (x, y) in enumerate(places, start=1)
            ]
    return Spots(
        wavelength=np.array([spot[0] for spot in found], np.float64),
        slice=np.array([spot[1] for spot in found], np.intp),
        number=np.array([spot[2] for spot in found], np.int32),
        x=np.array([spot[3] for spot in found], np.float64),
        y=np.array([spot[4] for spot in found], np.float64),
    )


def _mean_of(stack: Stack, detector: Detector, params: OverscanParams) -> tuple[Float32, list[Overscan]]:
    """Return the mean of all frames on the trimmed detector without their bias levels, in adu; and these levels."""
    total = np.zeros(detector.raw_shape, np.uint32)

    def add(first: int, raw: NDArray[np.uint16]) -> None:
        total[first : first + len(raw)] += raw

    overscans = [measure_overscan(stack, frame, detector, params, add) for frame in range(len(stack.exposures))]
    mean, levels = np.empty(detector.shape, np.float32), np.mean([one.levels for one in overscans], axis=0)
    for start, stop, first in trimmed_blocks(detector, _ROWS_AT_ONCE):
        trim(total[first : first + stop - start] / np.float32(len(overscans)), detector, mean[start:stop])
        for half, columns in enumerate((slice(detector.nx), slice(detector.nx, None))):
            mean[start:stop, columns] -= levels[start:stop, half, None]
    return mean, overscans


def _table(
    channel: int,
    spots: Spots,
    traces: Sequence[Trace],
    exposures: Sequence[Exposure],
    heights: Sequence[float],
    shapes: Sequence[Shape],
    good: Mask,
) -> Table:
    """Return SPOTS_TABLE: a row for each good spot and frame, in the order of the mask's height for each spot."""
    order = np.argsort(heights, kind="stable")
    stages = [exposure.mask for exposure in exposures]

    def of_frame(values: Sequence[Any] | NDArray[Any], dtype: type) -> NDArray[Any]:
        return np.tile(np.array(values, dtype)[order], np.count_nonzero(good))

    def of_spot(values: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(values[good], len(order))

    def measured(name: str) -> Real:
        values = np.stack([getattr(shapes[frame], name)[good] for frame in order], axis=1)
        return values.ravel()

    which = of_spot(spots.slice)
    x, y = measured("x") + 1, measured("y") + 1
    # A spot without light in a frame is taken to be where the mean of all frames shows it.
    x, y = (np.where(np.isfinite(v), v, of_spot(rough) + 1) for v, rough in ((x, spots.x), (y, spots.y)))
    centre, left, right = (_at([trace.polynomials[n] for trace in traces], which, y) for n in (CENTRE, LEFT, RIGHT))
    columns = [
        Column(name="filename", values=of_frame([f"{exposure.name}.fits" for exposure in exposures], np.str_)),
        Column(name="image", values=of_frame(range(1, len(exposures) + 1), np.int32)),
    ]
    for stage in (2, 3, 4):
        encoders = [mask.encoders[stage - 1] for mask in stages if mask]
        positions = [mask.positions[stage - 1] for mask in stages if mask]
        columns += [
            Column(name=f"POSENC{stage}", values=of_frame(encoders, np.int32)),
            Column(name=f"POSPOS{stage}", values=of_frame(positions, np.float64), unit="mm"),
        ]
    columns += [
        Column(name="VPOS", values=of_frame(heights, np.float64), unit="mm"),
        Column(name="ScaleFOV", values=of_frame([mask.scale for mask in stages if mask], np.float64), unit="arcsec/mm"),
        Column(name="SubField", values=np.full(len(x), channel, np.int32)),
        Column(name="SliceCCD", values=(which + 1).astype(np.int32)),
        Column(name="lambda", values=of_spot(spots.wavelength), unit="Angstrom"),
        Column(name="SpotNo", values=of_spot(spots.number)),
        Column(name="xc", values=x, unit="pix"),
        Column(name="yc", values=y, unit="pix"),
        Column(name="xfwhm", values=measured("x_width"), unit="pix"),
        Column(name="yfwhm", values=measured("y_width"), unit="pix"),
        Column(name="flux", values=measured("flux")),
        Column(name="bg", values=measured("background")),
        Column(name="dxcen", values=x - centre, unit="pix"),
        Column(name="twidth", values=right - left, unit="pix"),
    ]
    return Table(columns=tuple(columns))


def _measure_widths(shapes: Sequence[Shape], good: Mask) -> tuple[Measurement, ...]:
    found: list[Measurement] = []
    means = []
    for number, shape in enumerate(shapes, start=1):
        known = good & (shape.x_width > 0) & (shape.y_width > 0) & (shape.flux > _BRIGHT)
        widths = (shape.x_width[known] + shape.y_width[known]) / 2
        means.append(float(widths.mean()) if len(widths) else math.nan)
        numbers = {
            "MEAN": ("Average", means[-1]),
            "MEDIAN": ("Median", float(np.median(widths)) if len(widths) else math.nan),
            "STDEV": ("Standard deviation of", float(widths.std(ddof=1)) if len(widths) > 1 else math.nan),
        }
        found += [
            Measurement(f"GEO EXP{number} FWHM {key}", value, f"[pix] {word} FWHM of bright spots in exposure {number}")
            for key, (word, value) in numbers.items()
        ]
    known_means = np.array(means)[np.isfinite(means)]
    mean = float(known_means.mean()) if len(known_means) else math.nan
    stdev = float(known_means.std(ddof=1)) if len(known_means) > 1 else math.nan
    return (
        *found,
        Measurement("GEO FWHM MEAN", mean, "[pix] Average of the average FWHM of all exposures"),
        Measurement("GEO FWHM STDEV", stdev, "[pix] Standard deviation of the average FWHM of all exposures"),
    )


def _rows_of(lines: Real, traces: Sequence[Trace], dispersions: Sequence[Dispersion], rows: int) -> Real:
    """Return y of lines in the middle of each slice, pix from 1, shape (lines, slices); NaN where they are off it."""
    y = np.arange(1.0, rows + 1)
    middle = [
        np.interp(lines, dispersion.wavelength(trace.polynomials[CENTRE](rows / 2), y), y, left=np.nan, right=np.nan)
        for trace, dispersion in zip(traces, dispersions, strict=True)
    ]
    return np.stack(middle, axis=1)


def _at(polynomials: Sequence[Polynomial], which: Index, y: Real) -> Real:
    """Evaluate the polynomial of each point's slice."""
    coefficients = np.array([polynomial.coef for polynomial in polynomials])
    result = np.zeros(len(y))
    for of_power in coefficients.T[::-1]:
        result = result * y + of_power[which]
    return result


def _good_triples(good: Mask) -> Mask:
    """Keep the three spots of a line in a slice if all of them are good."""
    return np.repeat(np.all(good.reshape(-1, HOLES), axis=1), HOLES)


def _any(flags: Mask) -> Mask:
    """Tell which windows have a flag set anywhere."""
    found: Mask = np.count_nonzero(flags, axis=(1, 2)) > 0
    return found
