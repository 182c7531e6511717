"""Recipe muse_lsf: arc lamp exposures to LSF_PROFILE."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.arcs import ArcParams, combine_arcs, measure_inputs, overscans_in_order
from recipes.detector import Overscan, saturation_warnings
from recipes.dispersion import read_dispersions
from recipes.linecatalog import read_line_catalog
from recipes.lineprofile import RANGE, Samples, collect_samples, fit_profiles
from recipes.muse import DETECTOR, SLICES
from recipes.recipe import (
    Channel,
    Extensions,
    Keyword,
    Measurement,
    Plane,
    PlaneKind,
    Product,
    Recipe,
    RecipeError,
    Result,
    parameter,
)
from recipes.trace import read_traces

Real = NDArray[np.floating[Any]]

_LONG, _SHORT = "ARC_LSF", "ARC"


@dataclass(frozen=True, kw_only=True)
class LsfParams(ArcParams):
    """Parameters of muse_lsf, with ESO's names and defaults."""

    save_subtracted: bool = parameter(
        False,  # noqa: FBT003 - a default
        "Make the pixel table of the lines less their profiles. Not implemented.",
        choices=(False,),
    )
    line_quality: int = parameter(3, "Least quality of the lines of the catalogue that are used.", least=0, most=5)
    lsf_range: float = parameter(7.5, "Half width of the profile, Angstrom.", least=3.0, most=20.0)
    lsf_size: int = parameter(150, "Samples of the profile across a line.", least=20, most=1000)
    lambda_size: int = parameter(30, "Samples of the profile along wavelength.", least=2, most=1000)
    lsf_regression_window: float = parameter(
        0.7, "Half width of the window, Angstrom, in which the profile is smooth.", least=0.2, most=3.0
    )
    method: str = parameter(
        "interpolate",
        "An image of the profile. ESO's 'hermit', a table of parameters, is not implemented.",
        choices=("interpolate",),
    )


def reduce(channel: Channel, params: LsfParams) -> Result:
    """Measure the line-spread function of one channel.

    Parameters
    ----------
    channel : Channel
        Raw frames ARC_LSF of each arc lamp, or ARC; image MASTER_BIAS, tables TRACE_TABLE, WAVECAL_TABLE and
        LINE_CATALOG; images MASTER_DARK and MASTER_FLAT and table BADPIX_TABLE if there are any.
    params : LsfParams

    Returns
    -------
    Result
        LSF_PROFILE.

    Raises
    ------
    RecipeError
        If a lamp is missing, or a slice shows too few lines.
    """
    tag = _LONG if _LONG in channel.stacks else _SHORT
    exposures = channel.stacks[tag].exposures
    reach = params.lsf_range + params.lsf_regression_window
    samples, overscans = _collect(channel, tag, params, reach)
    profiles = fit_profiles(samples, reach, params.lsf_regression_window)
    offset = np.linspace(-params.lsf_range, params.lsf_range, params.lsf_size)
    wavelength = np.linspace(*RANGE, params.lambda_size)
    cube = profiles.at(wavelength, offset).swapaxes(0, 1)
    slices = SLICES if channel.detector == DETECTOR else len(cube)
    image = np.zeros((slices, *cube.shape[1:]), np.float32)
    image[: len(cube)] = cube
    warnings = saturation_warnings(overscans, exposures, channel.detector)
    if tag == _SHORT:
        told = f"The profile is made of {len(exposures)} frames {_SHORT}, for there are none {_LONG}; it is noisier so."
        warnings = (told, *warnings)
    product = Product(
        catg="LSF_PROFILE",
        content=Extensions(
            (
                Plane(
                    name="LSF_PROFILE",
                    values=image,
                    kind=PlaneKind.PLAIN,
                    keywords=_coordinates(offset, wavelength),
                ),
            )
        ),
        measurements=(*measure_inputs(overscans), *_widths(cube, offset)),
        keywords=overscans[0].keywords(),
    )
    return Result((product,), warnings)


def _collect(channel: Channel, tag: str, params: LsfParams, reach: float) -> tuple[Samples, tuple[Overscan, ...]]:
    """Return the pixels about all lines, and the overscans of the frames; their images are not kept."""
    catalog = read_line_catalog(channel.tables["LINE_CATALOG"])
    traces = read_traces(channel.tables["TRACE_TABLE"].table)
    dispersions = read_dispersions(channel.tables["WAVECAL_TABLE"].table)
    if len(traces) != len(dispersions):
        raise RecipeError(
            f"The TRACE_TABLE has {len(traces)} slices and the WAVECAL_TABLE {len(dispersions)}; give two of one"
            " channel.",
            traced=len(traces),
            calibrated=len(dispersions),
        )
    arcs = combine_arcs(channel, tag, params)
    chosen = catalog.covered(channel.stacks[tag].exposures[0].mode) & (catalog.quality >= params.line_quality)
    return collect_samples(arcs, traces, dispersions, catalog, chosen, reach), overscans_in_order(arcs)


def full_widths(profiles: Real, offset: Real) -> Real:
    """Return the width of profiles at half the height of their middle, in the unit of the offsets.

    Parameters
    ----------
    profiles : float array, shape (..., offsets)
    offset : float array
        Even.
    """
    middle = profiles.shape[-1] // 2 - 1
    half = profiles[..., middle, None] / 2
    below = profiles < half
    places = np.arange(profiles.shape[-1])
    left = np.where(below & (places < middle), places, -1).max(axis=-1)
    right = np.where(below & (places > middle), places, len(places)).min(axis=-1)

    def crossing(outer: NDArray[np.intp], inner: NDArray[np.intp]) -> Real:
        low, high = (
            np.take_along_axis(profiles, np.clip(place, 0, len(places) - 1)[..., None], axis=-1)[..., 0]
            for place in (outer, inner)
        )
        part: Real = outer + (inner - outer) * (half[..., 0] - low) / np.where(high == low, 1, high - low)
        return part

    step = float(offset[1] - offset[0])
    widths: Real = (crossing(right, right - 1) - crossing(left, left + 1)) * step
    return widths


def _widths(cube: Real, offset: Real) -> list[Measurement]:
    """Return how wide the profile of each slice is, over all wavelengths."""
    measured = []
    for number, widths in enumerate(full_widths(cube, offset), start=1):
        for name, value, what in (
            ("MEAN", widths.mean(), "Mean FWHM of the LSF"),
            ("STDEV", widths.std(ddof=1), "Standard deviation of the LSF in"),
            ("MIN", widths.min(), "Minimum FWHM of the LSF in"),
            ("MAX", widths.max(), "Maximum FWHM of the LSF in"),
        ):
            measured.append(
                Measurement(f"LSF SLICE{number} FWHM {name}", float(f"{value:.7g}"), f"{what} slice {number}")
            )
    return measured


def _coordinates(offset: Real, wavelength: Real) -> tuple[Keyword, ...]:
    """Return the world coordinates of the image: distance from the line, and wavelength of the line."""
    return (
        Keyword("WCSAXES", 2),
        Keyword("CD1_1", float(offset[1] - offset[0])),
        Keyword("CD1_2", 0.0),
        Keyword("CD2_1", 0.0),
        Keyword("CD2_2", float(wavelength[1] - wavelength[0])),
        Keyword("CRPIX1", 1.0),
        Keyword("CRPIX2", 1.0),
        Keyword("CRVAL1", float(offset[0])),
        Keyword("CRVAL2", float(wavelength[0])),
        Keyword("CTYPE1", "PARAM"),
        Keyword("CTYPE2", "AWAV"),
        Keyword("CUNIT1", "Angstrom"),
        Keyword("CUNIT2", "Angstrom"),
    )


RECIPE = Recipe(
    name="muse_lsf",
    version="1",
    raw=(_LONG, _SHORT),
    minimum=9,  # three of each lamp; the calibration plan has 15 ARC_LSF of each
    needed=("MASTER_BIAS", "TRACE_TABLE", "WAVECAL_TABLE", "LINE_CATALOG"),
    optional=("MASTER_DARK", "MASTER_FLAT", "BADPIX_TABLE"),
    makes=("LSF_PROFILE",),
    params=LsfParams,
    reduce=reduce,
)
