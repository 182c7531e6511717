"""Recipe muse_dark: dark frames to MASTER_DARK."""

from dataclasses import dataclass

import numpy as np

from recipes.background import noise_of, prepare_frames
from recipes.combine import CombinationParams, combine
from recipes.detector import (
    OverscanParams,
    count_saturated,
    known_flags,
    mark,
    per_quadrant,
    saturation,
    saturation_warnings,
)
from recipes.muse import Detector, Flag, Quadrant
from recipes.recipe import Channel, Flags, Float32, Image, Measurement, Product, Recipe, Result, parameter
from recipes.stats import absolute_deviation, scatter_windows, summarise

NORMAL_EXPTIME = 3600.0  # s, to which a master dark is scaled; MP
_WINDOWS = 300  # MP
_SEED = 1  # the windows are the same in every run
_LIKELY = (0.0, 10.0)  # electrons an hour; MP
_LONG = 1000.0  # s; the dark current of shorter frames drowns in read noise; MP


@dataclass(frozen=True, kw_only=True)
class DarkParams(OverscanParams, CombinationParams):
    """Parameters of muse_dark, with ESO's names and defaults."""

    hotsigma: float = parameter(
        5.0, "Pixels above the median by more mean absolute deviations of the dark are flagged as hot.", least=0.0
    )
    model: bool = parameter(False, "ESO's smooth model of a dark is not implemented.", choices=(False,))  # noqa: FBT003 - a default


def reduce(channel: Channel, params: DarkParams) -> Result:
    """Combine the dark frames of one channel.

    Parameters
    ----------
    channel : Channel
        Raw frames DARK, at least three; image MASTER_BIAS; table BADPIX_TABLE if there is one.
    params : DarkParams

    Returns
    -------
    Result
        MASTER_DARK in electrons of 3600 s, with hot pixels flagged HOT.

    Raises
    ------
    RecipeError
        If the bias does not fit the frames.
    """
    frames = prepare_frames(channel, "DARK", params)
    detector, exposures = frames.detector, frames.stack.exposures
    first = exposures[0]
    data, stat = np.empty(detector.shape, np.float32), np.empty(detector.shape, np.float32)
    dq = known_flags(channel)
    factor = NORMAL_EXPTIME / first.exptime
    for block in combine(frames, noise_of(channel, frames), params):
        scale = per_quadrant(first.gains, block.rows, detector) * np.float32(factor)
        np.multiply(block.data, scale, out=data[block.rows])
        np.multiply(block.variance, np.square(scale), out=stat[block.rows])
        dq[block.rows] |= block.dq
    hot = flag_hot_pixels(data, dq, detector, params.hotsigma)
    windows = scatter_windows(detector.shape, _WINDOWS, np.random.default_rng(_SEED))
    good = dq == 0
    levels = np.array([data[window].mean(where=good[window], dtype=np.float64) for window in windows])
    current = float(np.median(levels))
    where = "measured on master dark in randomly placed windows"
    measurements = (
        *saturation(frames.overscans, "DARK"),
        Measurement("DARK MASTER NBADPIX", hot, "Number of bad pixels determined from master dark"),
        *summarise(data, good).measurements("DARK MASTER", "the master dark"),
        Measurement("DARK MASTER DC", current, f"[count/pix/h] Dark current {where}"),
        Measurement("DARK MASTER DCERR", float(levels.std(ddof=1)), f"[count/pix/h] Dark current error {where}"),
        count_saturated(dq, "DARK MASTER"),
    )
    product = Product(
        catg="MASTER_DARK",
        content=Image(data=data, dq=dq, stat=stat, unit="count"),
        measurements=measurements,
        keywords=frames.overscans[0].keywords(),
        exptime=NORMAL_EXPTIME,
    )
    warnings = saturation_warnings(frames.overscans, exposures, detector)
    if not _LIKELY[0] <= current <= _LIKELY[1]:
        short = f" Frames of {first.exptime:.0f} s are short." if first.exptime < _LONG else ""
        warnings += (f"The dark current of {current:.3f} electrons an hour is not likely; 0 to 10 are.{short}",)
    return Result((product,), warnings)


def flag_hot_pixels(data: Float32, dq: Flags, detector: Detector, limit: float) -> int:
    """Flag pixels of a dark above the median of their quadrant by more than ``limit`` mean absolute deviations.

    Pixels flagged before do not count in the median and the deviation. Returns how many pixels are hot.
    """
    number = 0
    for quadrant in Quadrant:
        window = detector.trimmed(quadrant)
        image, flags = data[window.rows, window.columns], dq[window.rows, window.columns]
        good = flags == 0
        median = summarise(image, good).median
        hot = image > median + limit * absolute_deviation(image, median, good)
        mark(flags, hot, Flag.HOT)
        number += int(np.count_nonzero(hot))
    return number


RECIPE = Recipe(
    name="muse_dark",
    version="1",
    raw=("DARK",),
    minimum=3,
    needed=("MASTER_BIAS",),
    optional=("BADPIX_TABLE",),
    makes=("MASTER_DARK",),
    params=DarkParams,
    reduce=reduce,
)
