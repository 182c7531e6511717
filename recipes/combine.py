"""Combination of raw frames into their mean, without cosmic rays and other outliers.

The spread that makes a value an outlier comes from the noise of the detector (read noise, photon noise, drift of the
lamp), not from the few values of a pixel themselves. A pixel whose values all lie within their limits around the mean
is done with; the others, one in fifty, are looked at one by one: their mean starts from the largest group of values
that agree with each other, the fainter one of two equal groups, so that a pixel hit in two frames of five, or of
three, is still right.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from recipes.detector import Overscan, is_saturated, mark, narrowed, per_quadrant, trim, trimmed_blocks
from recipes.muse import SATURATION, Detector, Flag
from recipes.recipe import Float32, Image, Params, Stack, parameter

_ROWS_AT_ONCE = 16  # a block of each frame stays in the processor's cache
_ROUNDS = 3  # of clipping and taking the mean anew

Visit = Callable[[int, slice, Float32], None]

ROUNDING = 1 / 12  # square adu, variance of rounding to whole adu


@dataclass(frozen=True, kw_only=True)
class CombinationParams(Params):
    """How frames are combined, with the names and defaults of ESO's recipes.

    Choices of theirs that are not implemented are refused.
    """

    combine: str = parameter(
        "sigclip",
        "Combination: mean of the values within lsigma and hsigma."
        " ESO's 'average', 'median' and 'minmax' are not implemented.",
        choices=("sigclip",),
    )
    nlow: int = parameter(1, "Has a meaning for ESO's 'minmax' only.", least=0)
    nhigh: int = parameter(1, "Has a meaning for ESO's 'minmax' only.", least=0)
    nkeep: int = parameter(1, "Has a meaning for ESO's 'minmax' only.", least=1)
    lsigma: float = parameter(3.0, "Values lower by more sigma of the detector's noise are left out.", least=1.0)
    hsigma: float = parameter(3.0, "Values higher by more sigma of the detector's noise are left out.", least=1.0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise of one value of one frame.

    Parameters
    ----------
    read_noise : tuple of 4 floats
        Electrons, by quadrant.
    gains : tuple of 4 floats
        Electrons per adu, by quadrant.
    light : bool
        False for frames without any signal, which have no photon noise.
    drift : float
        Scatter of the illumination from frame to frame, as a fraction of the signal.
    scale : float
        Factor by which values were multiplied.
    """

    read_noise: Sequence[float]
    gains: Sequence[float]
    light: bool = True
    drift: float = 0.0
    scale: float = 1.0

    def terms(self, rows: slice, detector: Detector) -> tuple[Float32, Float32]:
        """Return the variance without light, in square adu, and its rise with the signal, for each column."""
        pairs = list(zip(self.read_noise, self.gains, strict=True))
        floor = [((noise / gain) ** 2 + ROUNDING) * self.scale**2 for noise, gain in pairs]
        rise = [self.light * self.scale / gain for _, gain in pairs]
        return per_quadrant(floor, rows, detector), per_quadrant(rise, rows, detector)

    def sigma(self, signal: Float32, floor: Float32, rise: Float32) -> Float32:
        """Return the standard deviation of one value in adu, of signals (..., pixels) in adu."""
        lit = np.maximum(signal, 0)
        variance: Float32 = lit * rise
        variance += floor
        if self.drift:
            lit *= np.float32(self.drift)
            variance += np.square(lit, out=lit)
        return np.sqrt(variance, out=variance)


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Raw frames of a channel and what is taken off them.

    Parameters
    ----------
    stack : Stack
    overscans : sequence of Overscan
        Bias level of each frame.
    detector : Detector
    background : callable, optional
        Returns some trimmed rows of what is to be subtracted beside the bias level, in adu.
    scales : sequence of float, optional
        Factor of each frame, applied after that.
    """

    stack: Stack
    overscans: Sequence[Overscan]
    detector: Detector
    background: Callable[[slice], Image] | None = None
    scales: Sequence[float] = ()


@dataclass(frozen=True)
class Block:
    """Some rows of the combination.

    Parameters
    ----------
    rows : slice
        Trimmed rows.
    data : float32 array, shape (rows, columns), adu
        Mean of the values that were not left out.
    number : uint16 array
        How many those were.
    variance : float32 array, square adu
        Of the mean, that of the background included.
    dq : uint16 array
        Flags of the background, and SATURATED where every frame is: there the mean is of all frames.
    """

    rows: slice
    data: Float32
    number: NDArray[np.uint16]
    variance: Float32
    dq: NDArray[np.uint16]


def combine(frames: Frames, noise: Noise, params: CombinationParams, visit: Visit | None = None) -> Iterator[Block]:
    """Combine the frames of a stack, a block of rows after the other.

    Parameters
    ----------
    frames : Frames
    noise : Noise
        Of the values as they are combined.
    params : CombinationParams
    visit : callable, optional
        Is shown (frame, trimmed rows, corrected values in adu) of every frame; must not keep the array.
    """
    detector, count = frames.detector, len(frames.overscans)
    buffers = np.empty((4, _ROWS_AT_ONCE, detector.shape[1]), np.float32)
    for start, stop, first in trimmed_blocks(detector, _ROWS_AT_ONCE):
        rows = slice(start, stop)
        background = frames.background(rows) if frames.background else None
        below = background.data if background else None
        raws = [frames.stack.rows(frame, first, first + stop - start) for frame in range(count)]
        values, total, lowest, highest = buffers[:, : stop - start]
        total[:], lowest[:], highest[:] = 0, np.inf, -np.inf
        for frame, raw in enumerate(raws):
            _correct(frames, frame, raw, rows, below, out=values)
            if visit:
                visit(frame, rows, values)
            np.minimum(lowest, values, out=lowest)
            np.maximum(highest, values, out=highest)
            total += values
        data = total / np.float32(count)
        number = np.full(data.shape, count, np.uint16)
        dq = narrowed(background.dq) if background else np.zeros(data.shape, np.uint16)
        floor, rise = noise.terms(rows, detector)
        sigma = noise.sigma((total - highest) / np.float32(max(count - 1, 1)), floor, rise)
        doubtful = highest - data > np.float32(params.hsigma) * sigma
        doubtful |= data - lowest > np.float32(params.lsigma) * sigma
        for raw in raws:
            _add_saturated(doubtful, raw, detector)
        y, x = np.nonzero(doubtful)
        if y.size:
            single, usable = _pick(frames, raws, rows, below, (y, x))
            saturated = ~usable.any(axis=0)
            mark(dq, (y[saturated], x[saturated]), Flag.SATURATED)
            spread = partial(noise.sigma, floor=floor[x], rise=rise[x])
            data[y, x], number[y, x] = clipped_mean(single, usable | saturated, spread, params.lsigma, params.hsigma)
        variance: Float32 = np.square(replace(noise, drift=0.0).sigma(data, floor, rise))
        variance /= number
        if background:
            variance += background.stat
        yield Block(rows, data, number, variance, dq)


def corrected_rows(frames: Frames, frame: int, rows: slice) -> Float32:
    """Return trimmed rows of a frame, on one side of the detector's middle, without bias level and background: adu."""
    raw_start = rows.start + frames.detector.margin * (1 if rows.start < frames.detector.ny else 3)
    raw = frames.stack.rows(frame, raw_start, raw_start + rows.stop - rows.start)
    values = np.empty((len(raw), frames.detector.shape[1]), np.float32)
    below = frames.background(rows).data if frames.background else None
    _correct(frames, frame, raw, rows, below, out=values)
    return values


def clipped_mean(
    values: Float32, usable: NDArray[np.bool_], sigma: Callable[[Float32], Float32], low: float, high: float
) -> tuple[Float32, NDArray[np.uint16]]:
    """Mean of the values of each pixel that agree with each other.

    Parameters
    ----------
    values : float32 array, shape (frames, pixels)
    usable : bool array, shape (frames, pixels)
        At least one a pixel.
    sigma : callable
        Standard deviation of a value for signals of shape (..., pixels).
    low, high : float
        Limits below and above the mean, in sigma.

    Returns
    -------
    mean, number : arrays, shape (pixels,)
        And how many values it is the mean of.
    """
    ordered = np.sort(np.where(usable, values, np.float32(np.inf)), axis=0)
    finite = np.isfinite(ordered)
    width = min(4 + (len(values) - 3) / 4, 6)  # sigma, over which so many good values spread, but one time in 200
    reach = ordered + np.float32(width) * sigma(np.where(finite, ordered, 0))
    best, most = np.zeros(values.shape[1], np.intp), np.zeros(values.shape[1], np.intp)
    for lowest in range(len(ordered)):
        size = np.count_nonzero(finite[lowest:] & (ordered[lowest:] <= reach[lowest]), axis=0)
        better = size > most
        best[better], most[better] = lowest, size[better]
    pixels = np.arange(values.shape[1])
    agreeing = usable & (values >= ordered[best, pixels]) & (values <= reach[best, pixels])
    for _ in range(_ROUNDS):
        number = np.count_nonzero(agreeing, axis=0)
        mean = np.where(agreeing, values, 0).sum(axis=0) / np.maximum(number, 1).astype(np.float32)
        deviation, spread = values - mean, sigma(mean)
        kept = usable & (deviation <= np.float32(high) * spread) & (deviation >= np.float32(-low) * spread)
        kept = np.where(kept.any(axis=0), kept, agreeing)
        if np.array_equal(kept, agreeing):
            break
        agreeing = kept
    number = np.count_nonzero(agreeing, axis=0)
    mean = np.where(agreeing, values, 0).sum(axis=0) / number.astype(np.float32)
    return mean, number.astype(np.uint16)


def _correct(
    frames: Frames, frame: int, raw: NDArray[np.uint16], rows: slice, below: Float32 | None, out: Float32
) -> None:
    """Trim raw rows and take bias level and background off them."""
    trim(raw, frames.detector, out)
    halves = out.reshape(len(out), 2, frames.detector.nx)
    halves -= frames.overscans[frame].levels[rows, :, None]
    if below is not None:
        out -= below
    if frames.scales:
        out *= np.float32(frames.scales[frame])


def _add_saturated(flags: NDArray[np.bool_], raw: NDArray[np.uint16], detector: Detector) -> None:
    """Set the flags of trimmed pixels that are saturated in raw rows, which is rare."""
    if raw.max() > SATURATION or raw.min() == 0:
        saturated = np.empty(flags.shape, bool)
        trim(is_saturated(raw), detector, saturated)
        flags |= saturated


def _pick(
    frames: Frames,
    raws: Sequence[NDArray[np.uint16]],
    rows: slice,
    below: Float32 | None,
    pixels: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> tuple[Float32, NDArray[np.bool_]]:
    """Return the corrected values of some pixels in each frame, and which are not saturated: shape (frames, pixels)."""
    y, x = pixels
    right = (x >= frames.detector.nx).astype(np.intp)
    raw = np.stack([block[y, x + frames.detector.margin * (1 + 2 * right)] for block in raws])
    values = raw - np.stack([overscan.levels[y + rows.start, right] for overscan in frames.overscans])
    if below is not None:
        values -= below[pixels]
    if frames.scales:
        values *= np.array(frames.scales, np.float32)[:, None]
    return values, ~is_saturated(raw)
