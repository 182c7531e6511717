"""Places of the slices in the field of view, from the passages of pinholes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import HOLE_DISTANCE, PIXEL, SLICES, STACK, sky_slice
from recipes.recipe import Column, RecipeError, Table
from recipes.spotpassages import ChannelSpots, Curves, clipped_mean, fit_passages, join_lines, measure_distance
from recipes.spots import HOLES
from recipes.stats import fit_polynomial

Real = NDArray[np.floating[Any]]

STACKS = SLICES // STACK
_LIKELY_WIDTH = (72.2, 82.2)  # pix; MP
_LARGEST_ANGLE = 5.0  # degrees; MP
_REFERENCE = 12  # channel whose sky slices 24 and 36 are the origin; MP
_REFERENCE_SLICE, _OTHER_SLICE = 24, 18  # the latter where that channel is missing; MP
_FIRST_OTHER = 13  # channel that then is the origin, or the nearest to it; MP
_PIXEL_ERROR = 0.005  # pix, of the place of a spot, by the sensitivity of single pixels
_LIKELY_STEP = (0.5, 1.6)  # pix, from one slice to the next
# Errors above which a value is never kept in a smoothed table: x, y, angle, width. MP
_LARGEST_ERRORS = {"x": 0.90, "y": 0.10, "angle": 0.07, "width": 0.25}
_CREDIBLE = 5.0  # errors that a slice must be off the line of its stack to be kept there
_SIGMA_OF_STEPS = 1.4826 / np.sqrt(2)  # of one of two values, from the median deviation of their difference
_LEAST_SCATTER = 1e-6  # so that a weight is finite
_LINE_LIMIT = 3.0  # sigma, beyond which a slice does not count for the line of its stack
_SKY = np.array([sky_slice(number) for number in range(1, SLICES + 1)])


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the slices of a channel look, in the order of the detector; arrays of shape (48,), NaN where not measured.

    Parameters
    ----------
    x, y : arrays, pix
        Middle of the slice in units of 0.2 arcsec; x to the right (west at position angle 0), y up.
    angle : array, degrees
    width : array, pix
    x_error, y_error, angle_error, width_error : arrays
    """

    x: Real
    y: Real
    angle: Real
    width: Real
    x_error: Real
    y_error: Real
    angle_error: Real
    width_error: Real

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which of the slices were measured."""
        result: NDArray[np.bool_] = np.isfinite(self.x + self.y + self.angle + self.width)
        return result


@dataclass(frozen=True, kw_only=True)
class Field:
    """Places by channel, the light of each line, and sentences for a person."""

    places: Mapping[int, Places]
    warnings: tuple[str, ...] = ()


def place_slices(spots: Mapping[int, ChannelSpots]) -> Field:
    """Work out where the slices of all channels look.

    Along a slice, the holes of the mask are a ruler: three of them show how long it is and where it begins. Across, the
    height of the mask at which a row of holes passes tells where it is, up to a number of rows; that number follows
    from the order of the slices.

    Parameters
    ----------
    spots : mapping of channel to ChannelSpots
        At least one.

    Raises
    ------
    RecipeError
        If no slice could be measured, or the mask moved the wrong way.
    """
    curves = {channel: join_lines(found) for channel, found in spots.items()}
    distance = measure_distance(list(curves.values()))
    places = {channel: _place_channel(found, curves[channel], distance) for channel, found in spots.items()}
    places = {channel: found for channel, found in places.items() if found.measured.any()}
    if not places:
        raise RecipeError("No slice of any channel saw a row of holes pass; give frames over a longer way of the mask.")
    period = HOLE_DISTANCE[1] * np.mean([found.scale for found in spots.values()]) / PIXEL
    heights, guessed = _unwrap({channel: found.y for channel, found in places.items()}, float(period))
    reference = _reference(places)
    places = {channel: replace(found, y=heights[channel]) for channel, found in places.items()}
    warnings = [
        f"Nothing shows how many rows of holes lie between channels {one} and {other}, whose neighbours are missing;"
        " the distance between them is a guess."
        for one, other in guessed
    ]
    warnings += [
        f"{np.count_nonzero(~found.measured)} slices of channel {channel} could not be measured:"
        f" {', '.join(str(number + 1) for number in np.flatnonzero(~found.measured))} on the detector."
        for channel, found in places.items()
        if not found.measured.all()
    ]
    return Field(places=_centred(places, reference), warnings=tuple(warnings))


def _place_channel(spots: ChannelSpots, curves: Curves, distance: float) -> Places:
    """Return the places of a channel; y is as yet known up to whole distances of rows of holes."""
    scale = spots.scale / PIXEL  # pix a mm
    passages = fit_passages(curves, distance)
    stage = HOLE_DISTANCE[1] / distance * scale  # pix a mm of the stage
    passed, error = (values.reshape(SLICES, HOLES) * stage for values in (passages.height, passages.error))
    period = HOLE_DISTANCE[1] * scale
    passed = passed - period * np.rint((passed - passed[:, 1:2]) / period)
    light = np.nansum(spots.flux, axis=3).min(axis=2)
    weights = 1 / (_PIXEL_ERROR**2 + 1 / np.maximum(light, 1))
    along, _ = clipped_mean(spots.place, np.repeat(weights[..., None], HOLES, axis=2))
    # A line through the three passages against the place along the slice, the middle of the slice being 0.
    mean = along.mean(axis=1, keepdims=True)
    spread = ((along - mean) ** 2).sum(axis=1)
    slope = ((along - mean) * passed).sum(axis=1) / spread
    at_middle = passed.mean(axis=1) - slope * mean[:, 0]
    rest = passed - at_middle[:, None] - slope[:, None] * along
    single = np.sqrt((error**2).mean(axis=1) + (rest**2).sum(axis=1))
    # Holes of a row are numbered along the field; the detector's x runs against it.
    hole = HOLE_DISTANCE[0] * scale
    middle_hole = ((np.arange(SLICES) // STACK) - (STACKS - 1) / 2) * HOLES * hole
    apart = (spots.place[..., 2] - spots.place[..., 0]) / (HOLES - 1)
    sine = slope * (along[:, 2] - along[:, 0]) / (HOLES - 1) / hole
    width = hole / apart / np.sqrt(1 - np.clip(sine, -0.5, 0.5) ** 2)
    width = np.where((width > _LIKELY_WIDTH[0]) & (width < _LIKELY_WIDTH[1]), width, np.nan)
    x = middle_hole + spots.place.mean(axis=2) * hole / apart
    x_mean, x_error = clipped_mean(np.where(np.isfinite(width), x, np.nan), weights)
    width_mean, width_error = clipped_mean(width, weights)
    angle = np.degrees(np.arcsin(np.clip(slope / width_mean, -1, 1)))
    angle = np.where(np.abs(angle) < _LARGEST_ANGLE, angle, np.nan)
    good = np.isfinite(x_mean + width_mean + at_middle + angle)

    def known(values: Real) -> Real:
        return np.where(good, values, np.nan)

    return Places(
        x=known(x_mean),
        y=known(-at_middle),
        angle=known(angle),
        width=known(width_mean),
        x_error=known(x_error),
        y_error=known(single / np.sqrt(HOLES)),
        angle_error=known(np.degrees(single / np.sqrt(spread) / width_mean)),
        width_error=known(width_error),
    )


def _unwrap(heights: Mapping[int, Real], period: float) -> tuple[dict[int, Real], list[tuple[int, int]]]:
    """Add whole periods to heights so that they rise from slice to slice and from channel to channel.

    Returns
    -------
    dict
        The heights with their periods.
    list of (int, int)
        Neighbouring channels with others missing between them.
    """
    channels = sorted(heights)
    stacks = {channel: in_stacks(heights[channel]) for channel in channels}
    for found in stacks.values():
        _unwrap_channel(found, period)
    steps = np.concatenate([np.diff(found, axis=1).ravel() for found in stacks.values()])
    step = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 1.0
    if not _LIKELY_STEP[0] < step < _LIKELY_STEP[1]:
        raise RecipeError(
            f"Slices seem {step:.2f} pix apart and {_LIKELY_STEP[0]} to {_LIKELY_STEP[1]} are likely: higher slices are"
            " lit at lower positions of the mask. Is the sign of INS DROT POSANG right?",
            step=step,
        )
    known = [_step_up(stacks[one], stacks[one + 1], step, period) for one in channels if one + 1 in stacks]
    apart = float(np.median(known)) if known else STACK * step
    shift = 0.0
    result = {channels[0]: stacks[channels[0]]}
    for one, other in pairwise(channels):
        expected = apart * (other - one - 1) + step
        shift += _step_up(stacks[one], stacks[other], expected, period) - _level(stacks[one], stacks[other])
        result[other] = stacks[other] + shift
    guessed = [(one, other) for one, other in pairwise(channels) if other - one > 1]
    return {channel: found.ravel()[_SKY - 1] for channel, found in result.items()}, guessed


def _unwrap_channel(stacks: Real, period: float) -> None:
    """Add whole periods to the heights of a channel, shape (stacks, slices from the lowest on), in place."""
    levels = []
    for stack in stacks:
        known = np.flatnonzero(np.isfinite(stack))
        for before, after in pairwise(known):
            stack[after] -= period * np.rint((stack[after] - stack[before] - (after - before)) / period)
        levels.append(float(np.mean(stack[known] - known)) if len(known) else np.nan)
    base = next(level for level in (levels[1], *levels) if np.isfinite(level))
    stacks -= period * np.rint(np.nan_to_num(np.array(levels) - base)[:, None] / period)


def _level(below: Real, above: Real) -> float:
    """Return how much higher a channel stands than another, in the mean of its stacks; shapes (stacks, slices)."""
    with_both = np.isfinite(below).any(axis=1) & np.isfinite(above).any(axis=1)
    if not with_both.any():
        return float(np.nanmean(above) - np.nanmean(below))
    return float(np.mean(np.nanmean(above[with_both], axis=1) - np.nanmean(below[with_both], axis=1)))


def _step_up(below: Real, above: Real, expected: float, period: float) -> float:
    """Return the same with the whole periods that bring the step between two channels next to an expected one.

    ``expected`` is from the uppermost slice of the one to the lowest of the other.
    """
    distance = _level(below, above)
    over = expected + STACK - 1  # steps of 1 pix within a channel are near enough to count periods
    return distance - period * float(np.rint((distance - over) / period))


def in_stacks(values: Real) -> Real:
    """Sort values from the order of the detector into (stacks, slices from the lowest on)."""
    result = np.empty(SLICES)
    result[_SKY - 1] = values
    return result.reshape(STACKS, STACK)


def _reference(places: Mapping[int, Places]) -> tuple[int, int]:
    """Return channel and sky slice of the origin."""
    choices = [(_REFERENCE, _REFERENCE_SLICE)]
    choices += [(channel, _OTHER_SLICE) for channel in sorted(places) if channel >= _FIRST_OTHER]
    choices += [(channel, _OTHER_SLICE) for channel in sorted(places, reverse=True) if channel < _FIRST_OTHER]
    for channel, sky in choices:
        both = np.isin(_SKY, (sky, sky + STACK))
        if channel in places and places[channel].measured[both].all():
            return channel, sky
    raise RecipeError(
        f"Sky slices {_OTHER_SLICE} and {_OTHER_SLICE + STACK}, which the field is centred on, were not measured in any"
        " channel; give frames over a longer way of the mask."
    )


def _centred(places: Mapping[int, Places], reference: tuple[int, int]) -> dict[int, Places]:
    """Move the origin to the reference slice, along the slices midway to the one of the next stack."""
    channel, sky = reference
    at = places[channel]
    y = at.y[sky == _SKY][0]
    x = at.x[np.isin(_SKY, (sky, sky + STACK))].mean()
    return {number: replace(found, x=found.x - x, y=found.y - y) for number, found in places.items()}


def smooth_places(places: Mapping[int, Places], sigma: float) -> tuple[dict[int, Places], dict[str, int]]:
    """Put slices that were measured badly on the line of their stack.

    A value is replaced if its error is too large, or if it is off the line by more than ``sigma`` times the scatter of
    the stack and its own error does not exclude that the slice lies on the line. Well measured slices keep their
    places: real ones do scatter.

    Parameters
    ----------
    places : mapping of channel to Places
    sigma : float

    Returns
    -------
    dict of channel to Places
    dict
        Number of values replaced, by ``x``, ``y``, ``angle`` and ``width``.
    """
    replaced = dict.fromkeys(_LARGEST_ERRORS, 0)
    result = {}
    for channel, found in places.items():
        changed = {}
        for name, largest in _LARGEST_ERRORS.items():
            values, errors = getattr(found, name).copy(), getattr(found, f"{name}_error")
            for stack in range(STACKS):
                members = np.flatnonzero(stack == (_SKY - 1) // STACK)
                members = members[found.measured[members]]
                moved, new = _smooth_stack(_SKY[members], values[members], errors[members], sigma, largest)
                values[members[moved]] = new[moved]
                replaced[name] += int(np.count_nonzero(moved))
            changed[name] = values
        result[channel] = replace(found, **changed)
    return result, replaced


def _smooth_stack(
    rank: NDArray[np.int_], values: Real, errors: Real, sigma: float, largest: float
) -> tuple[NDArray[np.bool_], Real]:
    """Return which values are to be replaced, and the line of their stack."""
    poor = errors > largest
    if np.count_nonzero(~poor) <= 2:  # a line goes through any two
        return np.zeros(len(values), bool), values
    steps = np.diff(values[~poor]) / np.diff(rank[~poor])
    scatter = float(np.median(np.abs(steps - np.median(steps)))) * _SIGMA_OF_STEPS
    weights = 1 / np.maximum(errors[~poor], max(scatter, _LEAST_SCATTER))
    fit = fit_polynomial(rank[~poor].astype(np.float64), values[~poor], 1, limit=_LINE_LIMIT, weights=weights)
    line = fit.polynomial(rank)
    off = np.abs(values - line)
    return poor | ((off > sigma * np.sqrt(fit.mean_square)) & (off < _CREDIBLE * errors)), line


def geometry_table(places: Mapping[int, Places]) -> Table:
    """Return GEOMETRY_TABLE: 48 rows a channel in the order of the sky.

    A slice that was not measured has NaN for x, y and errors, and 0 for angle and width.
    """
    numbers = np.argsort(_SKY)
    channels = sorted(places)

    def of_all(name: str, unmeasured: float = np.nan) -> Real:
        values = np.concatenate([getattr(places[channel], name)[numbers] for channel in channels])
        return np.where(np.isfinite(values), values, unmeasured)

    return Table(
        columns=(
            Column(name="SubField", values=np.repeat(np.array(channels, np.int32), SLICES)),
            Column(name="SliceCCD", values=np.tile((numbers + 1).astype(np.int32), len(channels))),
            Column(name="SliceSky", values=np.tile(np.arange(1, SLICES + 1, dtype=np.int32), len(channels))),
            Column(name="x", values=of_all("x"), unit="pix"),
            Column(name="y", values=of_all("y"), unit="pix"),
            Column(name="angle", values=of_all("angle", 0.0), unit="deg"),
            Column(name="width", values=of_all("width", 0.0), unit="pix"),
            Column(name="xerr", values=of_all("x_error"), unit="pix"),
            Column(name="yerr", values=of_all("y_error"), unit="pix"),
            Column(name="angleerr", values=of_all("angle_error"), unit="deg"),
            Column(name="widtherr", values=of_all("width_error"), unit="pix"),
        )
    )
