"""Recipe muse_bias: bias frames to MASTER_BIAS."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.columns import find_bad_columns
from recipes.combine import ROUNDING, CombinationParams, Frames, Noise, combine
from recipes.detector import (
    OverscanParams,
    count_saturated,
    known_flags,
    mark,
    measure_overscan,
    saturation,
    saturation_warnings,
)
from recipes.muse import Detector, Flag, Quadrant
from recipes.recipe import Channel, Float32, Image, Measurement, Product, Recipe, Result, Stack, parameter
from recipes.stats import scatter_windows, summarise

_WINDOWS = 100  # per quadrant and pair of frames; MP
_SEED = 1  # the windows are the same in every run


@dataclass(frozen=True, kw_only=True)
class BiasParams(OverscanParams, CombinationParams):
    """Parameters of muse_bias, with ESO's names and defaults."""

    losigmabadpix: float = parameter(30.0, "Low sigma to find dark columns in the combined bias.", least=0.0)
    hisigmabadpix: float = parameter(3.0, "High sigma to find bright columns in the combined bias.", least=0.0)


@dataclass(frozen=True)
class ReadNoise:
    """Read noise of one quadrant and the scatter of single windows around it, in electrons."""

    value: float
    error: float


class LevelHistogram:
    """Counts of the raw values of each quadrant of one frame, for their exact medians."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._counts = np.zeros((len(Quadrant), 2**16), np.int64)

    def add(self, first: int, raw: NDArray[np.uint16]) -> None:
        """Take in a block of raw rows that begins at row ``first``; pre- and overscan are left out."""
        for quadrant in Quadrant:
            window = self._detector.data(quadrant)
            rows = slice(max(window.rows.start - first, 0), max(window.rows.stop - first, 0))
            values = raw[rows, window.columns].ravel()
            counts = np.bincount(values)
            self._counts[quadrant - 1, : counts.size] += counts

    def medians(self) -> tuple[float, ...]:
        """Return the median of each quadrant, adu."""
        half = self._detector.nx * self._detector.ny / 2
        return tuple(
            float(np.searchsorted(total, half) + np.searchsorted(total, half, side="right")) / 2
            for total in np.cumsum(self._counts, axis=1)
        )


def reduce(channel: Channel, params: BiasParams) -> Result:
    """Combine the bias frames of one channel.

    Parameters
    ----------
    channel : Channel
        Raw frames BIAS, at least three; table BADPIX_TABLE if there is one.
    params : BiasParams

    Returns
    -------
    Result
        MASTER_BIAS in adu, about 0 where the overscan tells all, with bad columns flagged DEAD.
    """
    stack, detector = channel.stacks["BIAS"], channel.detector
    overscans, medians = [], []
    for frame in range(len(stack.exposures)):
        levels = LevelHistogram(detector)
        overscans.append(measure_overscan(stack, frame, detector, params, visit=levels.add))
        medians.append(levels.medians())
    read_noise = measure_read_noise(stack, detector)
    noise = Noise(read_noise=[found.value for found in read_noise], gains=stack.exposures[0].gains, light=False)
    data, stat = np.empty(detector.shape, np.float32), np.empty(detector.shape, np.float32)
    dq = known_flags(channel)
    for block in combine(Frames(stack=stack, overscans=overscans, detector=detector), noise, params):
        data[block.rows], stat[block.rows] = block.data, block.variance
        dq[block.rows] |= block.dq
    bad_pixels = 0
    for quadrant in Quadrant:
        window = detector.trimmed(quadrant)
        sigma = noise.read_noise[quadrant - 1] / noise.gains[quadrant - 1] / len(overscans) ** 0.5
        image = data[window.rows, window.columns]
        bad = find_bad_columns(image, sigma, low=params.losigmabadpix, high=params.hisigmabadpix)
        mark(dq[window.rows, window.columns], bad, Flag.DEAD)
        bad_pixels += int(np.count_nonzero(bad))
    measurements = (
        *saturation(overscans, "BIAS"),
        *_levels(np.array(medians)),
        *(
            measurement
            for quadrant, found in zip(Quadrant, read_noise, strict=True)
            for measurement in _quadrant_measurements(data, quadrant, found, detector)
        ),
        Measurement(
            "BIAS MASTER NBADPIX",
            bad_pixels,
            "Bad pixels found as part of the bad column search in the master bias",
        ),
        count_saturated(dq, "BIAS MASTER"),
    )
    product = Product(
        catg="MASTER_BIAS",
        content=Image(data=data, dq=dq, stat=stat, unit="adu"),
        measurements=measurements,
        keywords=overscans[0].keywords(),
    )
    return Result((product,), saturation_warnings(overscans, stack.exposures, detector))


def measure_read_noise(stack: Stack, detector: Detector) -> tuple[ReadNoise, ...]:
    """Measure the read noise of each quadrant from differences of neighbouring frames in random windows.

    The noise of rounding to whole adu is taken off. Both values are robust against cosmic rays.
    """
    result = []
    for quadrant, gain in zip(Quadrant, stack.exposures[0].gains, strict=True):
        data = detector.data(quadrant)
        windows = scatter_windows((detector.ny, detector.nx), _WINDOWS, np.random.default_rng(_SEED))
        rows = [slice(y.start + data.rows.start, y.stop + data.rows.start) for y, _ in windows]
        columns = [slice(x.start + data.columns.start, x.stop + data.columns.start) for _, x in windows]
        cut = np.stack([_windows(stack, frame, rows, columns) for frame in range(len(stack.exposures))])
        variance = np.diff(cut, axis=0).var(axis=(2, 3), ddof=1, dtype=np.float64) / 2
        scatter = gain * np.sqrt(np.maximum(variance - ROUNDING, 0))
        low, middle, high = np.quantile(scatter, (0.159, 0.5, 0.841), axis=1).mean(axis=1)
        result.append(ReadNoise(float(middle), float(high - low) / 2))
    return tuple(result)


def _windows(stack: Stack, frame: int, rows: Sequence[slice], columns: Sequence[slice]) -> Float32:
    """Cut windows out of a raw frame; those on the same rows follow each other and are read once."""
    cut: list[NDArray[np.float32]] = []
    band, read = np.empty((0, 0), np.uint16), slice(0, 0)
    for y, x in zip(rows, columns, strict=True):
        if y != read:
            band, read = stack.rows(frame, y.start, y.stop), y
        cut.append(band[:, x].astype(np.float32))
    return np.stack(cut)


def _levels(medians: NDArray[np.float64]) -> tuple[Measurement, ...]:
    """Return statistics over the frames of the raw medians, shape (frames, quadrants)."""
    statistics = {
        "MEAN": (np.mean(medians, axis=0), "Average"),
        "STDEV": (np.std(medians, axis=0, ddof=1), "Standard deviation"),
        "MEDIAN": (np.median(medians, axis=0), "Median"),
    }
    return tuple(
        Measurement(
            f"BIAS LEVEL{quadrant} {name}",
            float(values[quadrant - 1]),
            f"[adu] {what} of the raw median values of all input files in quadrant {quadrant}",
        )
        for quadrant in Quadrant
        for name, (values, what) in statistics.items()
    )


def _quadrant_measurements(
    data: Float32, quadrant: Quadrant, read_noise: ReadNoise, detector: Detector
) -> tuple[Measurement, ...]:
    window = detector.trimmed(quadrant)
    image = data[window.rows, window.columns]
    prefix, where = f"BIAS MASTER{quadrant}", f"in quadrant {quadrant}"
    of = f"of master bias {where}"
    how = (
        "determined from difference images of each adjacent pair of biases in the input dataset"
        " in randomly placed windows"
    )
    return (
        *summarise(image).measurements(prefix, f"master bias {where}"),
        Measurement(f"{prefix} RON", read_noise.value, f"[count] Read-out noise {where} {how}"),
        Measurement(f"{prefix} RONERR", read_noise.error, f"[count] Read-out noise error {where} {how}"),
        Measurement(f"{prefix} SLOPE X", _slope(image, 0), f"[adu/pix] Average horizontal slope {of}"),
        Measurement(f"{prefix} SLOPE Y", _slope(image, 1), f"[adu/pix] Average vertical slope {of}"),
    )


def _slope(image: Float32, collapsed: int) -> float:
    """Slope of the mean profile of an image along the axis that is not collapsed."""
    profile = image.mean(axis=collapsed, dtype=np.float64)
    return float(np.polynomial.Polynomial.fit(np.arange(len(profile)), profile, 1).convert().coef[1])


RECIPE = Recipe(
    name="muse_bias",
    version="1",
    raw=("BIAS",),
    minimum=3,
    optional=("BADPIX_TABLE",),
    makes=("MASTER_BIAS",),
    params=BiasParams,
    reduce=reduce,
)
