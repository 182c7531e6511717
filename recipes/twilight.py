"""Recipe muse_twilight: flat fields of the twilight sky to DATACUBE_SKYFLAT and TWILIGHT_CUBE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.basic import lamp_flux, mask_notch, measure_illumination
from recipes.combine import CombinationParams
from recipes.cube import Grid
from recipes.detector import OverscanParams, saturation_warnings
from recipes.fieldplanes import field_plane, with_flags
from recipes.illumination import Illumination
from recipes.outliers import bridge, find_outliers
from recipes.pixtable import PREFIX
from recipes.positions import SliceMap, find_pixels, map_slices
from recipes.recipe import (
    Channel,
    Extensions,
    Float32,
    Image,
    Instrument,
    Keyword,
    Measurement,
    Plane,
    PlaneKind,
    Product,
    Recipe,
    RecipeError,
    Result,
    Source,
    parameter,
)
from recipes.skyfit import Vignetting, adapt_mask, field_border, fit_vignetting, smooth_plane
from recipes.skyframes import combine_sky, open_sky_frames
from recipes.skysums import MIDDLE, Sums, add_up
from recipes.stats import Summary

SUMS = "SKYFLAT_SUMS"  # of one channel, for the second half of the recipe alone
_FLUX = "ESO DRS MUSE FLAT FLUX"
_OBJECT = "FLAT,SKY"  # OBJECT of such frames at the telescope
_MASK_UNTIL = 57823.0  # Modified Julian Date from which on no corner is vignetted; MP, muse_wkf.oca
_NARROW_FIELD = "NFM-AO-N"
_DIMMED, _INSTEAD = (
    24,
    23,
)  # in narrow-field mode the first is vignetted, and is taken to be as bright as the other; MP
_WHAT = {
    "MEDIAN": "Median value",
    "MEAN": "Mean value",
    "STDEV": "Standard deviation",
    "MIN": "Minimum value",
    "MAX": "Maximum value",
}


@dataclass(frozen=True, kw_only=True)
class TwilightParams(OverscanParams, CombinationParams):
    """Parameters of muse_twilight, with ESO's names and defaults."""

    scale: bool = parameter(False, "Scale the exposures to a common exposure time before combining them.")  # noqa: FBT003 - a default
    resample: str = parameter(
        "drizzle",
        "How the cube is made. ESO's 'nearest', 'linear', 'quadratic', 'renka' and 'lanczos' are not implemented.",
        choices=("drizzle",),
    )
    crtype: str = parameter(
        "median",
        "What pixels of a cell are compared with: their mean and its error by the variances, their mean and standard"
        " deviation, or their median and median deviation.",
        choices=("iraf", "mean", "median"),
    )
    crsigma: float = parameter(
        50.0, "Pixels higher than the others of their cell by more sigma are left out of the cube; 0: none."
    )
    lambdamin: float = parameter(5000.0, "Shortest wavelength of the cube, Angstrom.", least=3000.0, most=11000.0)
    lambdamax: float = parameter(9000.0, "Longest wavelength of the cube, Angstrom.", least=3000.0, most=11000.0)
    dlambda: float = parameter(250.0, "From one plane of the cube to the next, Angstrom.", least=1.25)
    xorder: int = parameter(2, "Order in x of the polynomial over the field of view.", least=0, most=15)
    yorder: int = parameter(2, "Order in y of the polynomial over the field of view.", least=0, most=15)


def reduce(channel: Channel, params: TwilightParams) -> Result:
    """Combine the sky flats of one channel and add up their pixels on the grid of the cube.

    Parameters
    ----------
    channel : Channel
        Raw frames SKYFLAT, at least three, and ILLUM if there is any; images MASTER_BIAS, MASTER_FLAT, and MASTER_DARK
        if there is one; tables TRACE_TABLE, WAVECAL_TABLE, GEOMETRY_TABLE, and BADPIX_TABLE if there is one.
    params : TwilightParams

    Returns
    -------
    Result
        SKYFLAT_SUMS.

    Raises
    ------
    RecipeError
        If the bias does not fit the frames, or no pixel lies within the wavelengths.
    """
    if params.lambdamax <= params.lambdamin:
        raise RecipeError(
            f"lambdamin = {params.lambdamin} is not below lambdamax = {params.lambdamax}; change one of them.",
            lambdamin=params.lambdamin,
            lambdamax=params.lambdamax,
        )
    frames, noise = open_sky_frames(channel, params, by_time=params.scale)
    exposures = frames.stack.exposures
    image, inputs, master = combine_sky(channel, frames, noise, params)
    maps = map_slices(channel)
    middle = float(np.mean([exposure.mjd for exposure in exposures]))
    illumination, warnings = measure_illumination(channel, maps, middle, params)
    sums = Sums.around(maps, params.lambdamin, params.lambdamax, params.dlambda)
    field = _add_slices(sums, maps, image, illumination, exposures[0].mode, params)
    prefix, number = f"TWILIGHT{channel.number}", channel.number
    found = [
        measurement
        for k, (summary, overscan) in enumerate(zip(inputs, frames.overscans, strict=True), 1)
        for measurement in (
            *_of_summary(summary, f"{prefix} INPUT{k}"),
            Measurement(f"{prefix} INPUT{k} NSATURATED", overscan.saturated),
        )
    ]
    found += [
        *_of_summary(master, f"{prefix} MASTER"),
        Measurement(f"{prefix} MASTER INTFLUX", master.total),
        Measurement(f"{prefix} INTFLUX", field.flux),
    ]
    product = Product(
        catg=SUMS,
        content=sums.content(),
        measurements=tuple(found),
        keywords=(
            Keyword(f"{_FLUX} LAMP", lamp_flux(channel)),
            Keyword(f"{_FLUX} SKY{number}", field.flux),
            *(
                Keyword(f"{PREFIX} LIMITS {axis} {end}", value)
                for axis, pair in (("X", field.x), ("Y", field.y))
                for end, value in zip(("LOW", "HIGH"), pair, strict=True)
            ),
        ),
    )
    saturated = saturation_warnings(frames.overscans, exposures, channel.detector)
    return Result((product,), (*saturated, *warnings))


@dataclass(frozen=True)
class _Field:
    """Light of a channel within the wavelengths, in electrons, and the limits of its pixels in the field."""

    flux: float
    x: tuple[float, float]
    y: tuple[float, float]


def _add_slices(
    sums: Sums,
    maps: Sequence[SliceMap],
    image: Image,
    illumination: Illumination | None,
    mode: str,
    params: TwilightParams,
) -> _Field:
    """Add the pixels of all slices to the sums; flagged pixels count as their neighbours on the detector row.

    A cell holds 200 pixels of different wavelengths, so that one with a gap would not be like those beside it.
    """
    flux, low, high = 0.0, np.full(2, np.inf), np.full(2, -np.inf)
    for which in maps:
        pixels = find_pixels((which,), params.lambdamin, params.lambdamax)
        if not len(pixels):
            continue
        row, column = which.pixels(pixels.origin)
        place = row * image.data.shape[1] + column
        data, stat, bad = np.take(image.data, place), np.take(image.stat, place), np.take(image.dq, place) != 0
        bridge(data, bad, row)
        bridge(stat, bad, row)
        if illumination:
            illumination.apply(pixels, data, stat)
        flux += float(data.sum(dtype=np.float64))
        along = which.along(pixels.origin)
        x, y = which.field_x(along), which.field_y(along)
        low, high = np.minimum(low, (x.min(), y.min())), np.maximum(high, (x.max(), y.max()))
        good = mask_notch(np.zeros(len(pixels), np.uint16), pixels.wavelength, mode) == 0
        if params.crsigma > 0:
            plane = np.rint((pixels.wavelength - params.lambdamin) / params.dlambda).astype(np.intp)
            cell = plane * sums.data.shape[2] + np.rint(x - MIDDLE[0]).astype(np.intp) - sums.x
            good[good] &= ~find_outliers(cell[good], data[good], stat[good], params.crtype, params.crsigma)
        sums.add(which, x[good], pixels.wavelength[good], data[good], stat[good])
    if not np.isfinite(low).all():
        raise RecipeError(
            f"No pixel of channel {maps[0].channel} lies between {params.lambdamin} and {params.lambdamax} Angstrom;"
            " change lambdamin or lambdamax.",
            channel=maps[0].channel,
        )
    return _Field(flux, (float(low[0]), float(high[0])), (float(low[1]), float(high[1])))


def _of_summary(summary: Summary, prefix: str) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(f"{prefix} {name}", value)
        for name, value in zip(
            _WHAT, (summary.median, summary.mean, summary.stdev, summary.minimum, summary.maximum), strict=True
        )
    )


def join(instrument: Instrument, params: TwilightParams) -> Result:
    """Join the sums of all channels to a cube, and fit the smooth brightness of the sky to it.

    The channels are scaled to the light of the lowest, as they have it in ``FLAT FLUX SKYn``.

    Parameters
    ----------
    instrument : Instrument
        SKYFLAT_SUMS of each channel; file VIGNETTING_MASK if there is one.
    params : TwilightParams

    Returns
    -------
    Result
        DATACUBE_SKYFLAT and TWILIGHT_CUBE.
    """
    sources = {number: files[SUMS] for number, files in instrument.channels.items()}
    exposure = instrument.exposures["SKYFLAT"][0]
    fluxes = _fluxes(sources, exposure.mode)
    reference = fluxes[min(fluxes)]
    corners = np.array([_limits(source) for source in sources.values()])
    low, high = (
        np.rint(ends - MIDDLE).astype(int) for ends in (corners[:, :, 0].min(axis=0), corners[:, :, 1].max(axis=0))
    )
    parts = [(Sums.of(source), fluxes[number] / reference) for number, source in sources.items()]
    data, variance = add_up(parts, (int(low[0]), int(high[0])), (int(low[1]), int(high[1])))
    white = _white(data)
    grid = Grid(
        x=float(low[0] + MIDDLE[0]),
        y=float(low[1] + MIDDLE[1]),
        wavelength=params.lambdamin,
        step=params.dlambda,
        shape=(data.shape[0], data.shape[1], data.shape[2]),
    )
    spatial, whole = grid.keywords(), grid.cube_keywords()
    light = tuple(
        Keyword(f"{_FLUX} {name}", value)
        for name, value in (
            ("LAMP", float(sources[min(sources)].keywords[f"{_FLUX} LAMP"])),
            *((f"SKY{number}", flux) for number, flux in fluxes.items()),
        )
    )
    cube = Product(
        catg="DATACUBE_SKYFLAT",
        content=Extensions(
            (
                field_plane("DATA", data, what=_OBJECT, unit="count", errors="STAT", keywords=whole),
                field_plane(
                    "STAT",
                    variance,
                    what=_OBJECT,
                    unit="(count)**2",
                    kind=PlaneKind.VARIANCE,
                    data="DATA",
                    keywords=whole,
                ),
                field_plane("white", white, what=_OBJECT, unit="count", keywords=spatial),
            )
        ),
        measurements=tuple(m for source in sources.values() for m in _measurements(source.measurements)),
        keywords=light,
    )
    mask, warnings = _vignetting_mask(instrument, data.shape[1:])
    border = field_border(white)
    planes = np.array([smooth_plane(plane, border, mask, params.xorder, params.yorder) for plane in data])
    smooth = planes.mean(axis=0)
    ratio = white / np.float32(np.mean(white[~border], dtype=np.float64)) / smooth
    extensions = [
        field_plane("white_global_fit", smooth, what="white from global fit", unit="count", keywords=spatial),
        *with_flags("white_div_global", ratio, border, "normalized white-light divided by white global fit"),
    ]
    if mask is not None:
        vignetting = fit_vignetting(ratio, border, mask)
        extensions += _vignetting_planes(vignetting, ratio)
        planes *= vignetting.fit
        planes /= planes.mean(axis=(1, 2), keepdims=True)
    twilight = Product(
        catg="TWILIGHT_CUBE",
        content=Extensions(
            (field_plane("DATA", planes, what=_OBJECT, unit="count", keywords=whole), *extensions),
        ),
        keywords=light,
    )
    return Result((cube, twilight), warnings)


def _fluxes(sources: Mapping[int, Source], mode: str) -> dict[int, float]:
    """Return the light of each channel; in narrow-field mode the vignetted channel has that of its neighbour."""
    fluxes = {number: float(source.keywords[f"{_FLUX} SKY{number}"]) for number, source in sources.items()}
    if mode == _NARROW_FIELD and {_DIMMED, _INSTEAD} <= fluxes.keys():
        fluxes[_DIMMED] = fluxes[_INSTEAD]
    return fluxes


def _limits(source: Source) -> list[list[float]]:
    """Return least and greatest field x, and the same of y, of the pixels of a channel."""
    return [[float(source.keywords[f"{PREFIX} LIMITS {axis} {end}"]) for end in ("LOW", "HIGH")] for axis in ("X", "Y")]


def _white(cube: Float32) -> Float32:
    """Return the mean of all planes that have a value; NaN where none has."""
    there = np.isfinite(cube)
    number = np.count_nonzero(there, axis=0).astype(np.float64)
    number[number == 0] = np.nan
    white: Float32 = (np.where(there, cube, 0).sum(axis=0, dtype=np.float64) / number).astype(np.float32)
    return white


def _vignetting_mask(
    instrument: Instrument, shape: tuple[int, ...]
) -> tuple[NDArray[np.bool_] | None, tuple[str, ...]]:
    """Return where the field is vignetted, None if nowhere."""
    exposure = instrument.exposures["SKYFLAT"][0]
    if exposure.mode == _NARROW_FIELD:
        return None, ("The vignetting of the narrow-field mode is not corrected: its mask is not implemented.",)
    if "VIGNETTING_MASK" not in instrument.files or exposure.mjd >= _MASK_UNTIL:
        return None, ()
    values = instrument.files["VIGNETTING_MASK"].plane("").values
    return adapt_mask(np.asarray(values[: values.shape[0]]) != 0, (shape[0], shape[1])), ()


def _vignetting_planes(vignetting: Vignetting, ratio: Float32) -> list[Plane]:
    """Return what shows how the vignetted corner was found."""
    return [
        *with_flags(
            "white_div_global_excl_edges",
            vignetting.searched,
            vignetting.left_out,
            "white-light divided by white global, mask excl edges",
        ),
        *with_flags("vign_fit", vignetting.fit, vignetting.outside, "vignetting fit", unit=""),
        *with_flags(
            "white_cor",
            ratio / vignetting.fit,
            vignetting.left_out,
            "white image corrected by vignetting fit",
            unit="count",
        ),
    ]


def _measurements(found: Mapping[str, int | float | str]) -> tuple[Measurement, ...]:
    """Return the QC1 parameters that came with the sums of a channel, each with its comment."""
    return tuple(Measurement(name, value, _comment(name)) for name, value in found.items())


def _comment(name: str) -> str:
    """Return the comment of a QC1 parameter: ``TWILIGHT12 INPUT3 MEAN``."""
    first, *middle, last = name.split()
    channel = first.removeprefix("TWILIGHT")
    if not middle:
        return f"Flux integrated over all slices of IFU {channel}. Computed using the pixel table of the exposure."
    if last == "INTFLUX":
        return f"Flux integrated over the whole CCD of the combined exposures of IFU {channel}"
    if middle[0] == "MASTER":
        return f"{_WHAT[last]} of the combined exposures in IFU {channel}"
    what = f"raw exposure {middle[0].removeprefix('INPUT')} of IFU {channel} in input list"
    return f"Number of saturated pixels in {what}" if last == "NSATURATED" else f"{_WHAT[last]} of {what}"


RECIPE = Recipe(
    name="muse_twilight",
    version="1",
    raw=("SKYFLAT", "ILLUM"),
    minimum=3,
    needed=("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "GEOMETRY_TABLE"),
    optional=("MASTER_DARK", "BADPIX_TABLE", "VIGNETTING_MASK"),
    makes=("DATACUBE_SKYFLAT", "TWILIGHT_CUBE"),
    params=TwilightParams,
    reduce=reduce,
    combine=join,
    intermediate=(SUMS,),
)
