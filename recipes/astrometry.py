"""Recipe muse_astrometry: a field of stars with known positions to scale, rotation and zero point of the field.

The first half turns raw frames ASTROMETRY of a channel into pixel tables, as ESO's muse_scibasic does; the second joins
the channels, finds the stars and fits world coordinates to them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from recipes.basic import reduce_exposures
from recipes.exposure import MergingParams, flat_correction, merge_exposure, tables_of
from recipes.fieldimage import FieldImage, make_image
from recipes.fluxcalibration import calibrate_flux
from recipes.muse import pixel_scales
from recipes.platesolution import PlateSolution, fit_plate
from recipes.recipe import (
    Channel,
    Exposure,
    Extensions,
    Instrument,
    Keyword,
    ParameterError,
    Pointing,
    Product,
    Recipe,
    RecipeError,
    Result,
    Source,
    parameter,
)
from recipes.refraction import position_angle
from recipes.starcube import measure_sources
from recipes.starfield import ReferenceField, choose_field, identify, project
from recipes.starimage import CENTROIDS, FieldStars, find_stars
from recipes.stats import Real

_LOWEST, _STEP_DOWN = 1.0, 0.1  # thresholds that are tried where detsigma is negative; MP
_SCALE_LIMIT = 0.1  # by which the scale may differ from the nominal one; MP
_TURNED = 0.1  # degrees of the derotator's angle, beyond which a person should know
_POORLY_KNOWN = 2e-4  # error of a scale, beyond which a person should know


@dataclass(frozen=True, kw_only=True)
class AstrometryParams(MergingParams):
    """Parameters of muse_astrometry, with ESO's names and defaults, and those of muse_scibasic for its first half."""

    centroid: str = parameter(
        "moffat",
        "How the places of stars are measured: by a profile, or as the barycentre of the light in a square (box).",
        choices=CENTROIDS,
    )
    detsigma: float = parameter(
        1.5,
        "Stars are what is so many median deviations above the median of the image; negative: the best solution of all"
        " from so many down to 1 in steps of 0.1.",
    )
    radius: float = parameter(
        3.0, "Pixels within which a detection must have a star of the list, to count as identified.", least=0.1
    )
    faccuracy: float = parameter(
        0.0,
        "Positive for ESO's matching by triangles, which is not implemented: pairs of stars are compared.",
        choices=(0.0,),
    )
    niter: int = parameter(2, "How often stars are left out of the solution and it is fitted anew.", least=0, most=100)
    rejsigma: float = parameter(3.0, "Stars off the solution by more sigma of all are left out.", least=0.1)
    rotcenter: str = parameter("-0.01,-1.20", "Centre of rotation, x and y in pixels, with a comma between them.")

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.centre

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of rotation in x and y, pix.

        Raises
        ------
        ParameterError
            If ``rotcenter`` is not two numbers.
        """
        try:
            x, y = (float(part) for part in self.rotcenter.split(","))
        except ValueError as error:
            raise ParameterError(
                f"rotcenter = {self.rotcenter!r} is not two numbers with a comma between them."
            ) from error
        return x, y


def reduce(channel: Channel, params: AstrometryParams) -> Result:
    """Turn the exposures of a field of stars in one channel into pixel tables.

    Parameters
    ----------
    channel : Channel
        Raw frames ASTROMETRY, and what ``reduce_exposures`` takes.
    params : AstrometryParams

    Returns
    -------
    Result
        PIXTABLE_ASTROMETRY_0001 and so on, one an exposure.

    Raises
    ------
    RecipeError
        If the calibrations do not fit the frames.
    """
    return Result(*reduce_exposures(channel, "ASTROMETRY", params))


def combine(instrument: Instrument, params: AstrometryParams) -> Result:
    """Join the channels, find the stars of the field and fit world coordinates to them.

    Of several exposures the one with the most stars is taken.

    Parameters
    ----------
    instrument : Instrument
        PIXTABLE_ASTROMETRY_0001 and so on of each channel; file ASTROMETRY_REFERENCE; tables STD_RESPONSE,
        STD_TELLURIC and EXTINCT_TABLE if there are any.
    params : AstrometryParams

    Returns
    -------
    Result
        ASTROMETRY_WCS and DATACUBE_ASTROMETRY.

    Raises
    ------
    RecipeError
        If none of the fields in the list is near, its stars are not found, or a response does not fit the data.
    """
    exposures, absent = tables_of(instrument, "ASTROMETRY")
    solved = [solve_exposure(instrument, exposure, tables, params) for exposure, tables in exposures]
    warnings = list(absent)
    best = max(solved, key=lambda one: one.identified)
    if len(solved) > 1:
        warnings.append(
            f"Of {len(solved)} exposures {best.exposure.name} has the most stars, {best.identified}; solution and cube"
            " are its own."
        )
    marks = flat_correction(best.flat_corrected)
    wcs = Product(
        catg="ASTROMETRY_WCS",
        content=Extensions((best.stars.table(best.ra, best.dec),)),
        measurements=best.solution.measurements(best.identified),
        keywords=(
            Keyword("OBJECT", f"Astrometric calibration ({best.target})", "Original target"),
            *best.solution.keywords(),
            Keyword("LONPOLE", 180.0, "[deg] Native longitude of celestial pole"),
            Keyword("LATPOLE", best.solution.sky[1], "[deg] Native latitude of celestial pole"),
            Keyword("MJDREF", 0.0, "[d] MJD of fiducial time"),
            *marks,
            Keyword("ESO DRS MUSE WCS RADIUS", params.radius, "[pix] radius within which stars were identified"),
            Keyword("ESO DRS MUSE WCS DETSIGMA", best.sigma, "detsigma used"),
        ),
    )
    cube = Product(
        catg="DATACUBE_ASTROMETRY",
        content=best.image.content(best.solution),
        measurements=measure_sources(best.image.middle, best.image.wavelength, best.exposure.mode, "ASTRO"),
        keywords=marks,
    )
    return Result((wcs, cube), tuple(dict.fromkeys((*warnings, *best.warnings))))


@dataclass(frozen=True, kw_only=True)
class Solved:
    """What one exposure gave.

    Parameters
    ----------
    exposure : Exposure
    image : FieldImage
    stars : FieldStars
    ra, dec : arrays, shape (stars,)
        Of those that were identified, degrees; NaN of others.
    solution : PlateSolution
    sigma : float
        Threshold with which the stars were found.
    target : str
        What the header calls the field.
    flat_corrected : bool
        The lamp spectrum of the flat field was taken out.
    warnings : tuple of str
    """

    exposure: Exposure
    image: FieldImage
    stars: FieldStars
    ra: Real
    dec: Real
    solution: PlateSolution
    sigma: float
    target: str
    flat_corrected: bool
    warnings: tuple[str, ...]

    @property
    def identified(self) -> int:
        """Number of stars that were identified."""
        return int(np.count_nonzero(np.isfinite(self.ra)))


def solve_exposure(
    instrument: Instrument, exposure: Exposure, tables: Mapping[int, Source], params: AstrometryParams
) -> Solved:
    """Make the cube of one exposure, find its stars, and fit world coordinates to them.

    Raises
    ------
    RecipeError
        As ``combine``.
    """
    pointing = exposure.pointing
    field = choose_field(instrument.files["ASTROMETRY_REFERENCE"], pointing)
    merged = merge_exposure(
        tables, pointing, mode=exposure.mode, low=params.lambdamin, high=params.lambdamax, reference=params.lambdaref
    )
    calibrated = calibrate_flux(
        merged,
        exposure,
        response=instrument.tables.get("STD_RESPONSE"),
        telluric=instrument.tables.get("STD_TELLURIC"),
        extinction=instrument.tables.get("EXTINCT_TABLE"),
    )
    image = make_image(calibrated.exposure, calibrated.unit, instrument.allocate)
    found = solve_field(image, field, exposure, params)
    warnings = [*field.warnings(), *merged.warnings, *calibrated.warnings]
    if abs(position_angle(pointing)) > _TURNED:
        warnings.append(
            f"The field was taken at a position angle of {position_angle(pointing):.2f} deg, which is in the solution;"
            " ESO's recipes take it as that of 0 deg."
        )
    worst = max(found.solution.errors)
    if worst > _POORLY_KNOWN:
        warnings.append(
            f"The scale along one axis is known to {worst:.1e} only: the stars do not fill the field along it."
        )
    target = str(next(iter(tables.values())).keywords.get("OBJECT", ""))
    return replace(found, target=target, flat_corrected=calibrated.exposure.flat_corrected, warnings=tuple(warnings))


def solve_field(image: FieldImage, field: ReferenceField, exposure: Exposure, params: AstrometryParams) -> Solved:
    """Find the stars of an image, identify them, and fit world coordinates to them.

    With a negative ``detsigma`` thresholds down to 1 are tried, and that is taken which gives many stars with small
    residuals.

    Raises
    ------
    RecipeError
        If the stars are not those of the field, or too few.
    """
    if params.detsigma >= 0:
        return _solve(image, field, exposure, params, params.detsigma)
    tried: list[Solved] = []
    failure = RecipeError(f"detsigma = {params.detsigma} leaves no threshold to try; -1 is the highest.")
    for step in range(math.floor((abs(params.detsigma) - _LOWEST) / _STEP_DOWN + 1e-6) + 1):
        try:
            tried.append(_solve(image, field, exposure, params, abs(params.detsigma) - step * _STEP_DOWN))
        except RecipeError as error:
            failure = error
    scales = pixel_scales(exposure.mode)
    tried = [
        one
        for one in tried
        if all(abs(s / nominal - 1) < _SCALE_LIMIT for s, nominal in zip(one.solution.scales, scales, strict=True))
    ]
    if not tried:
        raise failure
    return max(tried, key=lambda one: one.identified / math.prod(max(r, 1e-6) for r in one.solution.median_residuals))


def _solve(
    image: FieldImage, field: ReferenceField, exposure: Exposure, params: AstrometryParams, sigma: float
) -> Solved:
    stars = find_stars(image.stars, image.variance, sigma=sigma, centroid=params.centroid)
    scales, pointing = pixel_scales(exposure.mode), exposure.pointing
    expected = expected_places(field, pointing, scales)
    matches = identify((image.grid.x + stars.x, image.grid.y + stars.y), expected, params.radius)
    known = matches >= 0
    ra, dec = (np.where(known, values[matches], np.nan) for values in (field.ra, field.dec))
    solution = fit_plate(
        (stars.x[known] + 1, stars.y[known] + 1),
        (stars.x_error[known], stars.y_error[known]),
        (ra[known], dec[known]),
        reference=params.centre,
        near=(pointing.ra, pointing.dec),
        scales=scales,
        rounds=params.niter,
        limit=params.rejsigma,
    )
    return Solved(
        exposure=exposure,
        image=image,
        stars=stars,
        ra=ra,
        dec=dec,
        solution=solution,
        sigma=sigma,
        target="",
        flat_corrected=False,
        warnings=(),
    )


def expected_places(field: ReferenceField, pointing: Pointing, scales: tuple[float, float]) -> tuple[Real, Real]:
    """Return where the stars of a field are by pointing, angle of the derotator and nominal scale, pix of the field."""
    xi, eta = project(field.ra, field.dec, pointing.ra, pointing.dec)
    angle = math.radians(position_angle(pointing))
    right, up = -xi * math.cos(angle) - eta * math.sin(angle), -xi * math.sin(angle) + eta * math.cos(angle)
    return right * 3600 / scales[0], up * 3600 / scales[1]


RECIPE = Recipe(
    name="muse_astrometry",
    version="1",
    raw=("ASTROMETRY", "ILLUM"),
    minimum=1,
    needed=(
        "MASTER_BIAS",
        "MASTER_FLAT",
        "TRACE_TABLE",
        "WAVECAL_TABLE",
        "GEOMETRY_TABLE",
        "ASTROMETRY_REFERENCE",
    ),
    optional=("MASTER_DARK", "TWILIGHT_CUBE", "BADPIX_TABLE", "EXTINCT_TABLE", "STD_RESPONSE", "STD_TELLURIC"),
    makes=("ASTROMETRY_WCS", "DATACUBE_ASTROMETRY"),
    params=AstrometryParams,
    reduce=reduce,
    combine=combine,
    intermediate=("PIXTABLE_ASTROMETRY",),
)
