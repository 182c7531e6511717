"""What is subtracted from every frame beside its own bias level: master bias and master dark."""

from collections.abc import Callable, Sequence

import numpy as np

from recipes.combine import Noise
from recipes.detector import Overscan, check_bias, per_quadrant
from recipes.muse import Quadrant
from recipes.recipe import Channel, Image, RecipeError, Stack


def background(channel: Channel, exptime: float, gains: Sequence[float]) -> Callable[[slice], Image]:
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
        scale = factor / per_quadrant(gains, rows, channel.detector)
        return Image(
            data=one.data + other.data * scale,
            dq=one.dq | other.dq,
            stat=one.stat + other.stat * np.square(scale),
            unit="adu",
        )

    return both


def noise_of(channel: Channel, stack: Stack, overscans: Sequence[Overscan], *, drift: float = 0.0) -> Noise:
    """Return the noise of the frames of a stack, their read noise being that of the master bias.

    Raises
    ------
    RecipeError
        If the bias level of the frames is not that of the master bias, or the bias lacks its read noise.
    """
    bias = channel.images["MASTER_BIAS"]
    check_bias(bias.keywords, overscans, stack.exposures)
    try:
        read_noise = [float(bias.measurements[f"BIAS MASTER{quadrant} RON"]) for quadrant in Quadrant]
    except KeyError as error:
        raise RecipeError(f"The master bias has no QC {error.args[0]}; make it anew.") from error
    return Noise(read_noise=read_noise, gains=stack.exposures[0].gains, drift=drift)
