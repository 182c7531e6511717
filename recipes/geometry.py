"""Recipe muse_geometry: frames of the pinhole mask to GEOMETRY_TABLE, which says where each slice looks."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import SLICES, STACK
from recipes.recipe import Channel, Instrument, Measurement, Product, Recipe, Result, parameter
from recipes.sliceplaces import STACKS, Places, geometry_table, in_stacks, place_slices, smooth_places
from recipes.spotpassages import ChannelSpots, read_spots
from recipes.spots import SpotParams, measure_spots, select_lines

Real = NDArray[np.floating[Any]]

_LEFT, _RIGHT = STACKS // 2 - 1, STACKS // 2  # the stacks to either side of the central gap
_SMOOTHED = {"x": "x position", "y": "y position", "angle": "angle", "width": "width"}


@dataclass(frozen=True, kw_only=True)
class GeometryParams(SpotParams):
    """Parameters of muse_geometry, with ESO's names and defaults."""

    smooth: float = parameter(
        1.5,
        "Badly measured slices that are more sigma off the line of their stack are put on it; 0 or less: none.",
    )


def reduce(channel: Channel, params: GeometryParams) -> Result:
    """Measure the spots of the pinhole mask on all frames of one channel.

    Parameters
    ----------
    channel : Channel
        Raw frames MASK, at least fifty; image MASTER_BIAS, tables TRACE_TABLE, WAVECAL_TABLE and LINE_CATALOG; images
        MASTER_DARK and MASTER_FLAT, table BADPIX_TABLE if there are any.
    params : GeometryParams

    Returns
    -------
    Result
        SPOTS_TABLE.

    Raises
    ------
    RecipeError
        If the bias does not fit, a frame does not say where the mask was, or no spots are found.
    """
    table, measurements = measure_spots(channel, params)
    return Result((Product(catg="SPOTS_TABLE", content=table, measurements=measurements),))


def combine(instrument: Instrument, params: GeometryParams) -> Result:
    """Work out from the spots of all channels where their slices look.

    Parameters
    ----------
    instrument : Instrument
        SPOTS_TABLE of each channel; table LINE_CATALOG.
    params : GeometryParams

    Returns
    -------
    Result
        GEOMETRY_UNSMOOTHED with every slice as measured, and GEOMETRY_TABLE.

    Raises
    ------
    RecipeError
        If no slice could be measured, or the mask moved the wrong way.
    """
    spots = {
        number: read_spots(sources["SPOTS_TABLE"].tables[0].table) for number, sources in instrument.channels.items()
    }
    field = place_slices(spots)
    lines = select_lines(instrument.tables["LINE_CATALOG"].table)
    of_channels = tuple(
        measurement
        for number, found in spots.items()
        if number in field.places
        for measurement in _measure_channel(number, field.places[number], found, lines)
    )
    places, replaced = field.places, dict.fromkeys(_SMOOTHED, -1)
    if params.smooth > 0:
        places, replaced = smooth_places(field.places, params.smooth)
    smoothed = tuple(
        Measurement(
            f"GEO SMOOTH N{name.upper()}",
            replaced[name],
            f"Number of slices that were changed with respect to {what} by smoothing; -1 if there was none",
        )
        for name, what in _SMOOTHED.items()
    )
    return Result(
        (
            Product(
                catg="GEOMETRY_UNSMOOTHED",
                content=geometry_table(field.places),
                measurements=(*of_channels, *_measure_field(field.places)),
            ),
            Product(
                catg="GEOMETRY_TABLE",
                content=geometry_table(places),
                measurements=(*of_channels, *_measure_field(places), *smoothed),
            ),
        ),
        field.warnings,
    )


def _measure_channel(number: int, places: Places, spots: ChannelSpots, lines: Real) -> tuple[Measurement, ...]:
    """Return the angle of a channel, and the light of each line in its spots."""
    prefix = f"GEO IFU{number}"
    found = [
        Measurement(
            f"{prefix} ANGLE",
            float(np.nanmedian(places.angle)),
            "[deg] Angle of the mask with respect to the slicer system, median of all slices of this channel",
        )
    ]
    light = dict(zip(spots.wavelengths.tolist(), spots.light_of_a_passage(), strict=True))
    for count, line in enumerate(lines.tolist(), start=1):
        values = light.get(line, np.array([]))
        values = values[np.isfinite(values)]
        where = f"integrated flux in all spots at reference wavelength {count}"
        found += [
            Measurement(f"{prefix} WLEN{count}", line, f"[Angstrom] Nominal wavelength of arc line {count}"),
            Measurement(f"{prefix} WLEN{count} FLUX MEAN", _or_nan(np.mean, values, 1), f"Average {where}"),
            Measurement(f"{prefix} WLEN{count} FLUX MEDIAN", _or_nan(np.median, values, 1), f"Median {where}"),
            Measurement(
                f"{prefix} WLEN{count} FLUX STDEV", _or_nan(_stdev, values, 2), f"Standard deviation of {where}"
            ),
        ]
    return tuple(found)


def _measure_field(places: Mapping[int, Places]) -> tuple[Measurement, ...]:
    """Return where the gap between the middle stacks is, the angle of the mask, and how much is missing."""
    found, gaps = [], []
    for number, one in places.items():
        x, half = in_stacks(one.x), in_stacks(one.width) / 2
        gap = (x[_LEFT] + half[_LEFT] + x[_RIGHT] - half[_RIGHT]) / 2
        gaps.append(_or_nan(np.mean, gap[np.isfinite(gap)], 1))
        found.append(
            Measurement(
                f"GEO IFU{number} GAPPOS MEAN",
                gaps[-1],
                f"[pix] Average position of the central gap between the {STACK} slices of channel {number}",
            )
        )
    known = np.array(gaps)[np.isfinite(gaps)]
    angles = np.concatenate([one.angle for one in places.values()])
    missing = sum(SLICES - int(np.count_nonzero(one.measured)) for one in places.values())
    return (
        *found,
        Measurement(
            "GEO MASK ANGLE",
            float(np.nanmedian(angles)),
            "[deg] Angle of the mask with respect to the slicer system, median of all slices of all channels",
        ),
        Measurement("GEO GAPPOS MEAN", _or_nan(np.mean, known, 1), "[pix] Average of the central gap positions"),
        Measurement(
            "GEO GAPPOS STDEV", _or_nan(_stdev, known, 2), "[pix] Standard deviation of the central gap positions"
        ),
        Measurement("GEO TABLE NBAD", 4 * missing, "Number of invalid entries in the geometry table"),
    )


def _stdev(values: Real) -> np.floating[Any]:
    return np.std(values, ddof=1)


def _or_nan(statistic: Callable[[Real], Any], values: Real, least: int) -> float:
    return float(statistic(values)) if len(values) >= least else math.nan


RECIPE = Recipe(
    name="muse_geometry",
    version="1",
    raw=("MASK",),
    minimum=50,
    needed=("MASTER_BIAS", "TRACE_TABLE", "WAVECAL_TABLE", "LINE_CATALOG"),
    optional=("MASTER_DARK", "MASTER_FLAT", "BADPIX_TABLE"),
    makes=("SPOTS_TABLE", "GEOMETRY_UNSMOOTHED", "GEOMETRY_TABLE"),
    params=GeometryParams,
    reduce=reduce,
    combine=combine,
)
