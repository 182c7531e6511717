"""Sky flats of one channel to one image: scaled to each other, combined, and divided by the lamp flat."""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from recipes.background import noise_of, read_background
from recipes.basic import divide
from recipes.combine import CombinationParams, Frames, Noise, combine, corrected_rows
from recipes.detector import (
    OverscanParams,
    check_bias,
    known_flags,
    measure_overscan,
    narrowed,
    per_quadrant,
    trimmed_blocks,
)
from recipes.recipe import Channel, Float32, Image, RecipeError
from recipes.stats import Real, RunningSummary, Summary, bracket, summarise

_LIT = 0.2  # of the median brightness, above which a row says how the sky changed
_DARK = 0.01  # of the brightest frame, below which one shows no sky
_SAMPLE_EVERY = 64  # rows, for the brightness of each frame before all are combined


def open_sky_frames(channel: Channel, params: OverscanParams, *, by_time: bool) -> tuple[Frames, Noise]:
    """Put the frames together with what is taken off them, scaled to the same brightness or the same exposure time.

    The sky grows fainter from frame to frame; without a common level outliers could not be told from it. Scaling to
    the mean brightness leaves the mean as it is. What is left of its change is part of the noise.

    Parameters
    ----------
    channel : Channel
        Raw frames SKYFLAT; image MASTER_BIAS, and MASTER_DARK if there is one.
    params : OverscanParams
    by_time : bool
        Scale to the exposure time of the first frame instead.

    Raises
    ------
    RecipeError
        If the bias does not fit the frames, or one of them is dark.
    """
    stack, detector = channel.stacks["SKYFLAT"], channel.detector
    overscans = [measure_overscan(stack, frame, detector, params) for frame in range(len(stack.exposures))]
    check_bias(channel.images["MASTER_BIAS"].keywords, overscans, stack.exposures)
    first = stack.exposures[0]
    frames = Frames(
        stack=stack,
        overscans=overscans,
        detector=detector,
        background=read_background(channel, first.exptime, first.gains),
    )
    brightness = np.array([_brightness(frames, frame) for frame in range(len(stack.exposures))])
    levels = np.median(brightness, axis=1)
    if levels.min() <= _DARK * levels.max():
        raise RecipeError(
            f"{stack.exposures[int(levels.argmin())].name} shows {levels.min():.1f} adu of sky, another frame"
            f" {levels.max():.1f}; leave it out.",
            level=float(levels.min()),
            brightest=float(levels.max()),
        )
    if by_time:
        scales = np.array([first.exptime / exposure.exptime for exposure in stack.exposures])
    else:
        scales = levels.mean() / levels
    lit = brightness.mean(axis=0) > _LIT * levels.mean()
    scaled = (brightness * scales[:, None])[:, lit]
    change = scaled.std(axis=0, ddof=1) / scaled.mean(axis=0)
    frames = replace(frames, scales=[float(scale) for scale in scales])
    drift = float(np.sqrt(np.mean(change**2)))
    return frames, replace(noise_of(channel, frames), scale=float(scales.mean()), drift=drift)


def _sampled_rows(frames: Frames) -> list[slice]:
    every = min(_SAMPLE_EVERY, frames.detector.ny)
    return [slice(row, row + 1) for row in range(every // 2, frames.detector.shape[0], every)]


def _brightness(frames: Frames, frame: int) -> Real:
    """Return the median of some rows of a frame, adu."""
    return np.array([np.median(corrected_rows(frames, frame, rows)) for rows in _sampled_rows(frames)])


def combine_sky(
    channel: Channel, frames: Frames, noise: Noise, params: CombinationParams
) -> tuple[Image, list[Summary], Summary]:
    """Return the mean of the frames over the flat field, in electrons, and statistics of each frame and of the mean."""
    detector, flat = frames.detector, channel.images["MASTER_FLAT"]
    gains = frames.stack.exposures[0].gains
    data, stat = np.empty(detector.shape, np.float32), np.empty(detector.shape, np.float32)
    dq = known_flags(channel)

    @lru_cache(maxsize=1)
    def division(start: int, stop: int) -> tuple[Image, Float32]:
        """Return rows of the flat field, and what adu are multiplied by: gain over flat field, 0 where that is 0."""
        image = flat.rows(start, stop)
        light = np.where(image.data == 0, np.float32(np.inf), image.data)
        return image, np.divide(per_quadrant(gains, slice(start, stop), detector), light, dtype=np.float32)

    def divided(frame: int, rows: slice, values: Float32) -> Float32:
        return values * division(rows.start, rows.stop)[1] * np.float32(1 / frames.scales[frame])

    def sample(frame: int) -> Float32:
        return np.concatenate(
            [divided(frame, rows, corrected_rows(frames, frame, rows)) for rows in _sampled_rows(frames)]
        )

    running = [RunningSummary(*bracket(sample(frame))) for frame in range(len(frames.overscans))]

    def visit(frame: int, rows: slice, values: Float32) -> None:
        running[frame].add(divided(frame, rows, values))

    for block in combine(frames, noise, params, visit):
        rows, gain = block.rows, per_quadrant(gains, block.rows, detector)
        light, _ = division(rows.start, rows.stop)
        np.multiply(block.data, gain, out=data[rows])
        np.multiply(block.variance, np.square(gain), out=stat[rows])
        dq[rows] |= block.dq | narrowed(light.dq)
        divide(data[rows], stat[rows], dq[rows], light)

    def whole(frame: int) -> Summary:
        """Summarise a frame whose median lies far from that of its sample."""
        again = RunningSummary(-np.inf, np.inf)
        for start, stop, _ in trimmed_blocks(detector, _SAMPLE_EVERY):
            again.add(divided(frame, slice(start, stop), corrected_rows(frames, frame, slice(start, stop))))
        return again.exact()

    inputs = [summary.summary() or whole(frame) for frame, summary in enumerate(running)]
    return Image(data=data, dq=dq, stat=stat, unit="count"), inputs, summarise(data)
