"""Recipe muse_flat: lamp flat fields to MASTER_FLAT and TRACE_TABLE."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipes.background import noise_of, prepare_frames
from recipes.combine import CombinationParams, Frames, combine, corrected_rows
from recipes.detector import (
    OverscanParams,
    count_saturated,
    known_flags,
    mark,
    per_quadrant,
    saturation,
    saturation_warnings,
    trimmed_blocks,
)
from recipes.muse import DETECTOR, SLICES, Flag
from recipes.recipe import Channel, Flags, Float32, Image, Measurement, Product, Recipe, Result, parameter
from recipes.stats import RunningSummary, Summary, bracket, summarise
from recipes.trace import LEFT, RIGHT, Trace, measure_traces, sample_edges, trace_slices, trace_table

_SAMPLE_EVERY = 64  # rows, for the brightness of each frame before all are combined
_EDGE_PIXELS = 10  # at most, that may be dim at either end of a slice without being dark pixels; MP
_INSENSITIVE = 0.2  # of the mean flat, below which a dark pixel is one of low sensitivity; MP
_LEAST_LIMIT = 1e-4  # counts, below which no pixel is dark; MP
_HALF_HEIGHT = 100  # rows to either side of the middle in which slices are measured; MP


@dataclass(frozen=True, kw_only=True)
class FlatParams(OverscanParams, CombinationParams):
    """Parameters of muse_flat, with ESO's names and defaults."""

    trace: bool = parameter(True, "Trace the slices. A flat without its trace is not implemented.", choices=(True,))  # noqa: FBT003 - a default
    nsum: int = parameter(32, "Number of rows over which to average when tracing.", least=1)
    order: int = parameter(5, "Order of the polynomials of the trace.", least=1, most=15)
    edgefrac: float = parameter(
        0.5, "Part of the light of a slice at which its edge is looked for.", least=0.01, most=0.99
    )
    losigmabadpix: float = parameter(5.0, "Low sigma to find dark pixels in the master flat.", least=0.0)
    hisigmabadpix: float = parameter(5.0, "High sigma to find bright pixels in the master flat.", least=0.0)
    samples: bool = parameter(False, "Make a table of all sample points of the trace.")  # noqa: FBT003 - a default


def reduce(channel: Channel, params: FlatParams) -> Result:
    """Combine the flat fields of one channel and trace its slices.

    Parameters
    ----------
    channel : Channel
        Raw frames FLAT, at least three; image MASTER_BIAS; image MASTER_DARK and table BADPIX_TABLE if there are any.
    params : FlatParams

    Returns
    -------
    Result
        MASTER_FLAT with a mean of 1, TRACE_TABLE, and TRACE_SAMPLES if asked for.

    Raises
    ------
    RecipeError
        If the bias does not fit the frames, or a slice cannot be traced.
    """
    frames = prepare_frames(channel, "FLAT", params)
    detector, exposures = frames.detector, frames.stack.exposures
    samples = [_sample(frames, frame) for frame in range(len(exposures))]
    brightness = np.array([sample.mean(dtype=np.float64) for sample in samples])
    noise = replace(noise_of(channel, frames), drift=float(brightness.std(ddof=1) / abs(brightness.mean())))
    running = [RunningSummary(*bracket(sample)) for sample in samples]

    def visit(frame: int, rows: slice, values: Float32) -> None:
        running[frame].add(values * _gains(frames, rows))

    data, stat = np.empty(detector.shape, np.float32), np.empty(detector.shape, np.float32)
    dq = known_flags(channel)
    for block in combine(frames, noise, params, visit):
        gain = _gains(frames, block.rows)
        np.multiply(block.data, gain, out=data[block.rows])
        np.multiply(block.variance, np.square(gain), out=stat[block.rows])
        dq[block.rows] |= block.dq
    inputs = [summary.summary() or _summarise_frame(frames, frame) for frame, summary in enumerate(running)]
    master = summarise(data)
    slices = SLICES if detector == DETECTOR else None
    edges = sample_edges(data, stat, dq, rows=params.nsum, fraction=params.edgefrac, slices=slices)
    traces = trace_slices(edges, params.order)
    flag_bad_pixels(data, dq, traces, master.mean, low=params.losigmabadpix, high=params.hisigmabadpix)
    measurements = (
        *_input_measurements(inputs, saturation(frames.overscans, "FLAT")),
        *master.measurements("FLAT MASTER", "the master flat before normalization"),
        Measurement(
            "FLAT MASTER INTFLUX",
            master.total,
            "Flux value, integrated over the whole master flat field before normalization",
        ),
        *_slice_measurements(data, traces),
        count_saturated(dq, "FLAT MASTER"),
    )
    data /= np.float32(master.mean)
    stat /= np.float32(master.mean**2)
    keywords = frames.overscans[0].keywords()
    products = [
        Product(
            catg="MASTER_FLAT",
            content=Image(data=data, dq=dq, stat=stat, unit="count"),
            measurements=measurements,
            keywords=keywords,
        ),
        Product(
            catg="TRACE_TABLE",
            content=trace_table(traces),
            measurements=measure_traces(traces, len(data)),
            keywords=keywords,
        ),
    ]
    if params.samples:
        products.append(Product(catg="TRACE_SAMPLES", content=edges.table(), keywords=keywords))
    return Result(tuple(products), saturation_warnings(frames.overscans, exposures, detector))


def flag_bad_pixels(data: Float32, dq: Flags, traces: Sequence[Trace], mean: float, *, low: float, high: float) -> None:
    """Flag dark, insensitive and hot pixels inside the slices of a flat field, and pixels without light anywhere.

    Parameters
    ----------
    data, dq : arrays, shape (rows, columns)
    traces : sequence of Trace
    mean : float
        Of the whole flat; an insensitive pixel has less than a fifth of it.
    low, high : float
        Limits below and above the median of a slice on each row, in mean absolute deviations.
    """
    rows, columns = np.arange(len(data)), data.shape[1]
    for trace in traces:
        left = np.ceil(trace.polynomials[LEFT](rows + 1)).astype(np.intp) - 1
        right = np.floor(trace.polynomials[RIGHT](rows + 1)).astype(np.intp) - 1
        left, right = np.maximum(left, 0), np.minimum(right, columns - 1)
        number = right - left + 1
        offset = np.arange(number.max())
        inside = offset < number[:, None]
        x = np.minimum(left[:, None] + offset, columns - 1)
        values = data[rows[:, None], x]
        ordered = np.sort(np.where(inside, values, np.float32(np.inf)), axis=1)
        median = (ordered[rows, (number - 1) // 2] + ordered[rows, number // 2]) / 2
        deviation = np.abs(values - median[:, None]).sum(axis=1, where=inside) / number
        lowest = median - np.float32(low) * deviation
        lowest[lowest <= 0] = _LEAST_LIMIT
        highest = median + np.float32(high) * deviation
        lit = inside & (values > lowest[:, None])
        from_left, from_right = lit[:, : _EDGE_PIXELS + 1], _last(lit, number, _EDGE_PIXELS)
        skipped_left = np.where(from_left.any(axis=1), np.argmax(from_left, axis=1), 0)
        skipped_right = np.where(from_right.any(axis=1), np.argmax(from_right, axis=1), 0)
        searched = inside & (offset >= skipped_left[:, None]) & (offset < (number - skipped_right)[:, None])
        dark = searched & (values < lowest[:, None])
        for where, flag in (
            (dark, Flag.DARK),
            (dark & (values < _INSENSITIVE * mean), Flag.LOW_SENSITIVITY),
            (searched & (values > highest[:, None]), Flag.HOT),
        ):
            row, column = np.nonzero(where)
            mark(dq, (row, x[row, column]), flag)
    for line, flags in zip(data, dq, strict=True):
        mark(flags, line <= 0, Flag.BAD)


def _last(lit: NDArray[np.bool_], number: NDArray[np.intp], pixels: int) -> NDArray[np.bool_]:
    """Return the last pixels of rows of different length, from the end inwards."""
    index = np.maximum(number[:, None] - 1 - np.arange(pixels), 0)
    return np.take_along_axis(lit, index, axis=1)


def _gains(frames: Frames, rows: slice) -> Float32:
    return per_quadrant(frames.stack.exposures[0].gains, rows, frames.detector)


def _sample(frames: Frames, frame: int) -> Float32:
    """Return some rows of a frame, in electrons."""
    every = min(_SAMPLE_EVERY, frames.detector.ny)
    single = [slice(row, row + 1) for row in range(every // 2, frames.detector.shape[0], every)]
    return np.concatenate([corrected_rows(frames, frame, row) * _gains(frames, row) for row in single])


def _summarise_frame(frames: Frames, frame: int) -> Summary:
    """Summarise a frame whose median lies far from that of its sample."""
    running = RunningSummary(-np.inf, np.inf)
    for start, stop, _ in trimmed_blocks(frames.detector, _SAMPLE_EVERY):
        rows = slice(start, stop)
        running.add(corrected_rows(frames, frame, rows) * _gains(frames, rows))
    return running.exact()


def _input_measurements(inputs: Sequence[Summary], saturated: Sequence[Measurement]) -> tuple[Measurement, ...]:
    return tuple(
        measurement
        for number, (summary, count) in enumerate(zip(inputs, saturated, strict=True), start=1)
        for measurement in (
            *summary.measurements(f"FLAT INPUT{number}", f"raw flat {number} in input list"),
            count,
        )
    )


def _slice_measurements(data: Float32, traces: Sequence[Trace]) -> tuple[Measurement, ...]:
    """Return mean and scatter of each slice around the middle of the detector."""
    middle = len(data) // 2
    found = []
    for number, trace in enumerate(traces, start=1):
        left, right = (round(trace.polynomials[which](middle)) for which in (LEFT, RIGHT))
        window = data[max(middle - _HALF_HEIGHT - 1, 0) : middle + _HALF_HEIGHT, left : right - 1]
        where = f"around the vertical center of slice {number} before normalization"
        name = f"FLAT MASTER SLICE{number}"
        found += [
            Measurement(f"{name} MEAN", float(window.mean(dtype=np.float64)), f"Mean value {where}"),
            Measurement(f"{name} STDEV", float(window.std(ddof=1, dtype=np.float64)), f"Standard deviation {where}"),
        ]
    return tuple(found)


RECIPE = Recipe(
    name="muse_flat",
    version="1",
    raw=("FLAT",),
    minimum=3,
    needed=("MASTER_BIAS",),
    optional=("MASTER_DARK", "BADPIX_TABLE"),
    makes=("MASTER_FLAT", "TRACE_TABLE"),
    params=FlatParams,
    reduce=reduce,
)
