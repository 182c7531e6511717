"""Recipe muse_standard: a standard star to the response of the instrument and the absorption of the atmosphere.

The first half turns raw frames STD of a channel into pixel tables, as ESO's muse_scibasic does; the second joins the
channels, and measures the star.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recipes.basic import reduce_exposures
from recipes.exposure import MergingParams, flat_correction, merge_exposure, tables_of
from recipes.filters import find_filters
from recipes.photometry import PROFILES, choose_profile
from recipes.recipe import (
    Channel,
    Exposure,
    Instrument,
    Measurement,
    Product,
    Recipe,
    RecipeError,
    Result,
    Source,
    Table,
    parameter,
)
from recipes.refraction import mean_airmass
from recipes.response import (
    ReferenceStar,
    Sensitivity,
    choose_reference,
    extend,
    mean_sensitivity,
    mean_throughput,
    measure_sensitivity,
    reference_warning,
    remove_telluric,
    response_table,
    restrict_to_mode,
    telluric_bands,
    telluric_table,
    zero_point,
)
from recipes.starcube import StarCube, StarFluxes, measure_stars

_UNMEASURED = -99.0  # a zero point without its filter; MP
_DIFFERENT = 0.05  # mag, by which exposures of one star may differ without a warning
_LEAST_PLANES = 50  # in which the flux of the standard must be known
_ZERO_POINTS = {"V": "Johnson_V", "R": "Cousins_R", "I": "Cousins_I"}
_THROUGHPUTS = (5000, 7000, 8000, 9000)  # Angstrom; MP


@dataclass(frozen=True, kw_only=True)
class StandardParams(MergingParams):
    """Parameters of muse_standard, with ESO's names and defaults, and those of muse_scibasic for its first half."""

    profile: str = parameter(
        "auto",
        "How the flux of the star is measured: profiles fitted in each plane, such of a shape that is smooth along"
        " wavelength (smoffat), or a circle. 'auto' is smoffat, in the narrow field circle. ESO's 'square' is not"
        " implemented.",
        choices=PROFILES,
    )
    select: str = parameter(
        "distance",
        "The standard is the brightest star (flux), or the one nearest to where the telescope pointed (distance).",
        choices=("flux", "distance"),
    )
    smooth: str = parameter(
        "ppoly",
        "Smoothing of the response: none, a sliding median of 15 Angstrom to either side, or cubic polynomials over 150"
        " Angstrom to either side and a sliding mean.",
        choices=("none", "median", "ppoly"),
    )
    filter: str = parameter(
        "white", "Names of the filters whose images come with the cube, with commas between them; 'none' for no image."
    )

    @property
    def filters(self) -> tuple[str, ...]:
        """Names of the filters."""
        return tuple(name.strip() for name in self.filter.split(",") if name.strip() not in ("", "none"))


def reduce(channel: Channel, params: StandardParams) -> Result:
    """Turn the exposures of a standard star in one channel into pixel tables.

    Parameters
    ----------
    channel : Channel
        Raw frames STD, and what ``reduce_exposures`` takes.
    params : StandardParams

    Returns
    -------
    Result
        PIXTABLE_STD_0001 and so on, one an exposure.

    Raises
    ------
    RecipeError
        If the calibrations do not fit the frames.
    """
    return Result(*reduce_exposures(channel, "STD", params))


def combine(instrument: Instrument, params: StandardParams) -> Result:
    """Join the channels, measure the star and compare it with its known spectrum.

    Of several exposures each is measured by itself, in a cube of its own and with its own airmass; response and
    absorption are the mean of all, cube and fluxes are those of the first.

    Parameters
    ----------
    instrument : Instrument
        PIXTABLE_STD_0001 and so on of each channel; tables EXTINCT_TABLE, and TELLURIC_REGIONS if there is one; files
        STD_FLUX_TABLE, and FILTER_LIST if there is one.
    params : StandardParams

    Returns
    -------
    Result
        DATACUBE_STD, STD_FLUXES, STD_RESPONSE and STD_TELLURIC.

    Raises
    ------
    RecipeError
        If there is no star or its flux cannot be measured, none of the reference stars is near, or some of the pixel
        tables only have the spectrum of their flat field.
    """
    exposures, absent = tables_of(instrument, "STD")
    warnings, measured = list(absent), list[Measured]()
    for exposure, tables in exposures:
        measured.append(measure_exposure(instrument, exposure, tables, params, keep=not measured))
        warnings += measured[-1].warnings
    if len({one.flat_corrected for one in measured}) > 1:
        raise RecipeError("Some exposures have the spectra of their flat fields and others do not; reduce all alike.")
    first, sensitivities = measured[0], [one.sensitivity for one in measured]
    warnings += _compare(sensitivities)
    sensitivity = extend(mean_sensitivity(sensitivities), sharp=first.flat_corrected)
    response = response_table(sensitivity, params.smooth, first.mode, flat_corrected=first.flat_corrected)
    marks = flat_correction(first.flat_corrected)
    qualified = _qualify(response, first, instrument.files.get("FILTER_LIST"))
    return Result(
        (
            Product(
                catg="DATACUBE_STD", content=first.cube.content(), measurements=first.cube.measurements, keywords=marks
            ),
            Product(catg="STD_FLUXES", content=first.stars.content(), keywords=(*marks, *first.stars.keywords())),
            Product(catg="STD_RESPONSE", content=response, measurements=qualified, keywords=marks),
            Product(catg="STD_TELLURIC", content=telluric_table(sensitivity), keywords=marks),
        ),
        tuple(dict.fromkeys(warnings)),
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one exposure gave.

    Parameters
    ----------
    cube : StarCube
    stars : StarFluxes
    sensitivity : Sensitivity
        Without telluric bands.
    reference : ReferenceStar
    target : str
        Name of the star by the header; '' if it does not say.
    mode : str
        ``INS MODE``.
    flat_corrected : bool
        The lamp spectrum of the flat field was taken out.
    warnings : tuple of str
    """

    cube: StarCube
    stars: StarFluxes
    sensitivity: Sensitivity
    reference: ReferenceStar
    target: str
    mode: str
    flat_corrected: bool
    warnings: tuple[str, ...]


def measure_exposure(
    instrument: Instrument, exposure: Exposure, tables: Mapping[int, Source], params: StandardParams, *, keep: bool
) -> Measured:
    """Make the cube of one exposure, measure its stars, and compare the standard with its known spectrum.

    The cube is kept only if it is wanted.

    Raises
    ------
    RecipeError
        As ``combine``.
    """
    pointing, mode = exposure.pointing, exposure.mode
    reference = choose_reference(instrument.files["STD_FLUX_TABLE"], pointing)
    merged = merge_exposure(
        tables, pointing, mode=mode, low=params.lambdamin, high=params.lambdamax, reference=params.lambdaref
    )
    warnings = [*reference_warning(reference), *merged.warnings]
    filters, unknown = find_filters(params.filters, instrument.files.get("FILTER_LIST"))
    warnings += [f"There is no filter {name} in FILTER_LIST; its image is left out." for name in unknown]
    profile = choose_profile(params.profile, mode)
    cube, stars = measure_stars(merged, filters, profile, mode, instrument.allocate, keep=keep)
    chosen = stars.choose(pointing, params.select)
    airmass = mean_airmass(pointing)
    if math.isnan(airmass):
        warnings.append("The airmass is not known; the extinction of the air is not corrected.")
    grid = cube.grid
    sensitivity = measure_sensitivity(
        grid.wavelengths,
        chosen.flux,
        chosen.variance,
        reference,
        exptime=exposure.exptime,
        step=grid.step,
        airmass=0.0 if math.isnan(airmass) else airmass,
        extinction=instrument.tables["EXTINCT_TABLE"].table,
    )
    sensitivity = restrict_to_mode(sensitivity, mode)
    if len(sensitivity.wavelength) < _LEAST_PLANES:
        raise RecipeError(
            f"The flux of the star at x {chosen.x + 1:.1f}, y {chosen.y + 1:.1f} was measured in"
            f" {len(sensitivity.wavelength)} planes of {grid.shape[0]}, {_LEAST_PLANES} are needed. It may stand too"
            " near to the edge of the field: are the channels there that look at it?",
            planes=len(sensitivity.wavelength),
        )
    bands = telluric_bands(instrument.tables.get("TELLURIC_REGIONS"))
    sensitivity, problems = remove_telluric(sensitivity, bands, 1.0 if math.isnan(airmass) else airmass)
    keywords = next(iter(tables.values())).keywords
    return Measured(
        cube=cube,
        stars=replace(stars, chosen=stars.stars.index(chosen), why=params.select, pointing=pointing),
        sensitivity=sensitivity,
        reference=reference,
        target=str(keywords.get("ESO OBS TARG NAME", "")),
        mode=mode,
        flat_corrected=merged.flat_corrected,
        warnings=(*warnings, *problems),
    )


def _compare(sensitivities: Sequence[Sensitivity]) -> tuple[str, ...]:
    """Warn if exposures of one star do not agree."""
    first = sensitivities[0]
    differences = [
        float(np.median(np.interp(first.wavelength, other.wavelength, other.value) - first.value))
        for other in sensitivities[1:]
    ]
    worst = max(differences, key=abs, default=0.0)
    if abs(worst) <= _DIFFERENT:
        return ()
    return (f"The exposures differ by {worst:+.2f} mag, more than {_DIFFERENT} mag: some went through clouds.",)


def _qualify(response: Table, first: Measured, catalogue: Source | None) -> tuple[Measurement, ...]:
    """Return the QC1 parameters of a response."""
    bands, _ = find_filters(tuple(_ZERO_POINTS.values()), catalogue)
    known = {band.name: band for band in bands}
    zero_points = {
        short: zero_point(response, first.reference, known[name]) if name in known else _UNMEASURED
        for short, name in _ZERO_POINTS.items()
    }
    systems = {"V": "Johnson", "R": "Cousins", "I": "Cousins"}
    return (
        Measurement(
            "STANDARD STARNAME",
            first.target or "UNKNOWN",
            "Name of the standard star used for the throughput / zeropoint calculation.",
        ),
        *(
            Measurement(
                f"STANDARD THRU{wavelength}",
                mean_throughput(response, wavelength),
                f"Throughput computed at {wavelength} +/- 100 Angstrom.",
            )
            for wavelength in _THROUGHPUTS
        ),
        *(
            Measurement(f"STANDARD ZP {short}", value, f"[mag] Zeropoint in {systems[short]} {short} filter.")
            for short, value in zero_points.items()
        ),
    )


RECIPE = Recipe(
    name="muse_standard",
    version="1",
    raw=("STD", "ILLUM"),
    minimum=1,
    needed=(
        "MASTER_BIAS",
        "MASTER_FLAT",
        "TRACE_TABLE",
        "WAVECAL_TABLE",
        "GEOMETRY_TABLE",
        "EXTINCT_TABLE",
        "STD_FLUX_TABLE",
    ),
    optional=("MASTER_DARK", "TWILIGHT_CUBE", "BADPIX_TABLE", "TELLURIC_REGIONS", "FILTER_LIST"),
    makes=("DATACUBE_STD", "STD_FLUXES", "STD_RESPONSE", "STD_TELLURIC"),
    params=StandardParams,
    reduce=reduce,
    combine=combine,
    intermediate=("PIXTABLE_STD",),
)
