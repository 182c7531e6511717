"""Arc frames of one channel, combined lamp by lamp."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipes.arclines import PIXEL_SCATTER
from recipes.background import noise_of, prepare_frames
from recipes.combine import CombinationParams, combine
from recipes.detector import Overscan, OverscanParams, known_flags, per_quadrant
from recipes.muse import ARC_LAMPS, Flag, Lamp
from recipes.pixelflat import read_pixel_flat
from recipes.recipe import Channel, Exposure, Float32, Measurement, RecipeError, Stack, parameter


@dataclass(frozen=True, kw_only=True)
class ArcParams(OverscanParams):
    """How arc frames are combined, with ESO's names and defaults."""

    combine: str = parameter(
        "sigclip",
        "Combination of the frames of a lamp: mean of the values within 3 sigma."
        " ESO's 'average', 'median' and 'minmax' are not implemented.",
        choices=("sigclip",),
    )


@dataclass(frozen=True)
class ChosenFrames:
    """Some frames of a stack; a ``recipe.Stack``."""

    stack: Stack
    chosen: tuple[int, ...]

    @property
    def exposures(self) -> Sequence[Exposure]:
        """One description a frame, in order."""
        return [self.stack.exposures[frame] for frame in self.chosen]

    def rows(self, frame: int, start: int, stop: int) -> NDArray[np.uint16]:
        """Return raw rows [start, stop) of one frame, adu."""
        return self.stack.rows(self.chosen[frame], start, stop)


@dataclass(frozen=True, kw_only=True)
class Arc:
    """What one lamp shows.

    Parameters
    ----------
    lamp : Lamp
    names : tuple of str
        Of its frames.
    inputs : tuple of int
        Places of its frames among all arc frames, from 0.
    data : float32 array, shape (rows, columns)
        Electrons of one exposure; NaN where a pixel is flagged.
    floor : float
        Variance of a pixel without light, square electrons.
    scatter : float
        Of the sensitivity of single pixels, as far as the data are not corrected for it.
    saturated : int
        Pixels that are saturated in every frame.
    overscans : sequence of Overscan
        One a frame, in order of the frames.
    """

    lamp: Lamp
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    data: Float32
    floor: float
    scatter: float
    saturated: int
    overscans: Sequence[Overscan]

    @property
    def frames(self) -> int:
        """How many frames are averaged."""
        return len(self.inputs)


def combine_arcs(channel: Channel, tag: str, params: ArcParams) -> tuple[Arc, ...]:
    """Combine the frames of each lamp.

    Parameters
    ----------
    channel : Channel
        Raw frames of the tag; image MASTER_BIAS; images MASTER_DARK, MASTER_FLAT and table BADPIX_TABLE if there are
        any.
    tag : str
    params : ArcParams

    Returns
    -------
    tuple of Arc
        In order of ``ARC_LAMPS``.

    Raises
    ------
    RecipeError
        If a frame is not lit by one arc lamp alone, a lamp has no frame, or the bias does not fit.
    """
    stack = channel.stacks[tag]
    frames = _frames_of_lamps(stack.exposures)
    flags, scatter, response = known_flags(channel), PIXEL_SCATTER, None
    if "MASTER_FLAT" in channel.images:
        flat = read_pixel_flat(channel.images["MASTER_FLAT"], channel.detector)
        flags |= flat.flags
        response, scatter = flat.response, flat.scatter
    return tuple(
        _combine_lamp(channel, tag, params, lamp, ChosenFrames(stack, chosen), flags, response, scatter)
        for lamp, chosen in frames.items()
    )


def overscans_in_order(arcs: Sequence[Arc]) -> tuple[Overscan, ...]:
    """Return the overscans of all frames in the order of the input."""
    found = {place: one for arc in arcs for place, one in zip(arc.inputs, arc.overscans, strict=True)}
    return tuple(found[place] for place in sorted(found))


def measure_inputs(overscans: Sequence[Overscan]) -> tuple[Measurement, ...]:
    """Return the number of saturated pixels of each raw frame."""
    return tuple(
        Measurement(
            f"WAVECAL INPUT{number} NSATURATED",
            overscan.saturated,
            f"Number of saturated pixels in raw arc {number} in input list",
        )
        for number, overscan in enumerate(overscans, start=1)
    )


def _frames_of_lamps(exposures: Sequence[Exposure]) -> Mapping[Lamp, tuple[int, ...]]:
    """Return the frames of each arc lamp. The neon lamp of high power shows the lines of the other one."""
    found: dict[Lamp, list[int]] = {lamp: [] for lamp in ARC_LAMPS}
    for number, exposure in enumerate(exposures):
        lamps = tuple(dict.fromkeys(Lamp.NEON if lamp is Lamp.NEON_HIGH else lamp for lamp in exposure.lamps))
        if len(lamps) != 1 or lamps[0] not in found:
            lit = " and ".join(lamps) or "no lamp"
            raise RecipeError(
                f"{exposure.name} is lit by {lit}, and one of {', '.join(ARC_LAMPS)} alone is needed; leave it out.",
                lamps=len(lamps),
            )
        found[lamps[0]].append(number)
    if not all(found.values()):
        given = ", ".join(f"{len(chosen)} of {lamp}" for lamp, chosen in found.items())
        raise RecipeError(
            f"Arc frames of every lamp are needed, and there are {given}; take the missing ones.",
            **{str(lamp): len(chosen) for lamp, chosen in found.items()},
        )
    return {lamp: tuple(chosen) for lamp, chosen in found.items()}


def _combine_lamp(
    channel: Channel,
    tag: str,
    params: ArcParams,
    lamp: Lamp,
    stack: ChosenFrames,
    known: NDArray[np.uint16],
    response: Float32 | None,
    scatter: float,
) -> Arc:
    frames = prepare_frames(replace(channel, stacks={tag: stack}), tag, params)
    noise, detector = noise_of(channel, frames), channel.detector
    data, saturated, floor = np.empty(detector.shape, np.float32), 0, []
    for block in combine(frames, noise, CombinationParams()):
        gain = per_quadrant(stack.exposures[0].gains, block.rows, detector)
        values = data[block.rows]
        np.multiply(block.data, gain, out=values)
        if response is not None:
            values /= response[block.rows]
        flags = block.dq | known[block.rows]
        values[flags != 0] = np.nan
        saturated += int(np.count_nonzero(flags & np.uint16(Flag.SATURATED)))
        # Half of the values lie between lines, where the variance is that of a pixel without light.
        floor.append(float(np.median(block.variance[0] * np.square(gain))))
    return Arc(
        lamp=lamp,
        names=tuple(exposure.name for exposure in stack.exposures),
        inputs=stack.chosen,
        data=data,
        floor=float(np.median(floor)),
        scatter=scatter,
        saturated=saturated,
        overscans=frames.overscans,
    )
