"""Raw frames of light or dark current: what is taken off them, and their noise."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from recipes.combine import Frames, Noise
from recipes.detector import OverscanParams, check_bias, measure_overscan, per_quadrant
from recipes.muse import Quadrant
from recipes.recipe import Channel, Image, RecipeError


def prepare_frames(channel: Channel, tag: str, params: OverscanParams) -> Frames:
    """Measure the overscans of the raw frames of a tag, and put them together with master bias and master dark.

    Frames are scaled to the exposure time of the first.

    Raises
    ------
    RecipeError
        If the bias level of a frame is not that of the master bias.
    """
    stack, detector = channel.stacks[tag], channel.detector
    overscans = [measure_overscan(stack, frame, detector, params) for frame in range(len(stack.exposures))]
    check_bias(channel.images["MASTER_BIAS"].keywords, overscans, stack.exposures)
    first = stack.exposures[0]
    equal = all(exposure.exptime == first.exptime for exposure in stack.exposures)
    return Frames(
        stack=stack,
        overscans=overscans,
        detector=detector,
        background=read_background(channel, first.exptime, first.gains),
        scales=() if equal else [first.exptime / exposure.exptime for exposure in stack.exposures],
    )


def read_background(channel: Channel, exptime: float, gains: Sequence[float]) -> Callable[[slice], Image]:
    """Return a function that reads trimmed rows of the master bias plus the master dark, if there is one, in adu.

    The dark is scaled to ``exptime`` seconds. Flags of both are joined and variances added.
    """
    bias = channel.images["MASTER_BIAS"]
    if "MASTER_DARK" not in channel.images:
        return lambda rows: bias.rows(rows.start, rows.stop)
    dark = channel.images["MASTER_DARK"]
    factor = exptime / float(dark.keywords["EXPTIME"])

    def both(rows: slice) -> Image:
        one, other = bias.rows(rows.start, rows.stop), dark.rows(rows.start, rows.stop)
        scale = np.float32(factor) / per_quadrant(gains, rows, channel.detector)
        return Image(
            data=one.data + other.data * scale,
            dq=one.dq | other.dq,
            stat=one.stat + other.stat * np.square(scale),
            unit=one.unit,
        )

    return both


def noise_of(channel: Channel, frames: Frames) -> Noise:
    """Return the noise of frames, with the read noise of the master bias.

    Raises
    ------
    RecipeError
        If the bias lacks its read noise.
    """
    noise = Noise(read_noise=read_noise_of(channel), gains=frames.stack.exposures[0].gains)
    return replace(noise, scale=max(frames.scales)) if frames.scales else noise


def read_noise_of(channel: Channel) -> tuple[float, ...]:
    """Return the read noise of each quadrant in electrons, as the master bias has it.

    Raises
    ------
    RecipeError
        If the bias lacks it.
    """
    measured = channel.images["MASTER_BIAS"].measurements
    try:
        return tuple(float(measured[f"BIAS MASTER{quadrant} RON"]) for quadrant in Quadrant)
    except KeyError as error:
        raise RecipeError(f"The master bias has no QC {error.args[0]}; make it anew.") from error
