"""The cube of an exposure with stars, and the flux of each star in it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from recipes.cube import COSMIC_RAY_LIMIT, Allocate, Drizzle, Grid, resampling_blur
from recipes.exposure import Limits, MergedExposure
from recipes.filters import FieldImages, Filter
from recipes.muse import PIXEL, Flag
from recipes.photometry import choose_aperture, integrate_flux
from recipes.recipe import Array, Extensions, Float32, Keyword, Measurement, Plane, PlaneKind, Pointing, RecipeError
from recipes.refraction import position_angle
from recipes.sources import CutOut, Detection, cut_out, detect_sources, measure_widths
from recipes.stats import Real

_THRESHOLDS = (50.0, 30.0, 10.0, 8.0, 6.0, 5.0)  # sigma, of stars whose flux is measured; MP
_WIDTH_THRESHOLDS = (5.0, 4.0, 3.0)  # sigma, of sources whose width is measured; MP
_FALLBACK_FWHM = 5.0  # pix, where the star's width cannot be measured; MP
_LEAST_SOURCES = 3  # of which the median width is given; MP
_NARROW_PIXEL = (0.02519, 0.02542)  # arcsec along x and y, narrow-field mode; MP
_LARGEST = np.float32(np.finfo(np.float32).max)  # variance of a flux that is not known; MP
_UNITS = ("count", "(count)**2")


@dataclass(frozen=True, kw_only=True)
class StarCube:
    """A cube and the images of the field that go with it.

    Parameters
    ----------
    grid : Grid
    data, stat : Array, shape (planes, rows, columns)
        NaN where no pixel fell.
    images : tuple of Plane
    measurements : tuple of Measurement
        Numbers, places and widths of the sources in the middle plane.
    """

    grid: Grid
    data: Array
    stat: Array
    images: tuple[Plane, ...]
    measurements: tuple[Measurement, ...]

    def content(self) -> Extensions:
        """Return the extensions of a DATACUBE_STD."""
        world = self.grid.cube_keywords()
        data = Plane(name="DATA", values=self.data, unit=_UNITS[0], errors="STAT", keywords=world)
        stat = Plane(
            name="STAT", values=self.stat, unit=_UNITS[1], kind=PlaneKind.VARIANCE, data="DATA", keywords=world
        )
        return Extensions((data, stat, *self.images))


@dataclass(frozen=True, kw_only=True)
class StarFlux:
    """A star: its place in the cube, counted from 0, and its flux in every plane with its variance; NaN if unknown."""

    x: float
    y: float
    flux: Real
    variance: Real

    @property
    def total(self) -> float:
        """Sum over all planes."""
        return float(np.nansum(self.flux))


@dataclass(frozen=True, kw_only=True)
class StarFluxes:
    """The stars of a cube.

    Parameters
    ----------
    grid : Grid
    stars : tuple of StarFlux
        At least one.
    chosen : int
        Which of them is the standard.
    why : str
        ``flux`` or ``distance``, by which it was chosen.
    pointing : Pointing
    """

    grid: Grid
    stars: tuple[StarFlux, ...]
    chosen: int = 0
    why: str = "flux"
    pointing: Pointing = field(default_factory=Pointing)

    def choose(self, pointing: Pointing, why: str) -> StarFlux:
        """Return the brightest star (``flux``), or the one nearest to where the telescope pointed (``distance``)."""
        if why == "flux" or math.isnan(pointing.ra):
            return max(self.stars, key=lambda star: star.total)
        return min(self.stars, key=lambda star: math.hypot(self.grid.x + star.x, self.grid.y + star.y))

    def content(self) -> Extensions:
        """Return the extensions of a STD_FLUXES: a row a star, a column a plane of the cube."""
        flux, variance = (np.array([getattr(star, name) for star in self.stars]) for name in ("flux", "variance"))
        known: NDArray[np.bool_] = np.isfinite(flux) & np.isfinite(variance)
        cards: tuple[tuple[str, float | str], ...] = (
            ("CRVAL1", self.grid.wavelength), ("CRPIX1", 1.0), ("CD1_1", self.grid.step), ("CTYPE1", "AWAV"),
            ("CUNIT1", "Angstrom"), ("CRVAL2", 1.0), ("CRPIX2", 1.0), ("CD2_2", 1.0), ("CTYPE2", "PIXEL"),
            ("CUNIT2", "pixel"), ("CD1_2", 0.0), ("CD2_1", 0.0),
        )  # fmt: skip
        world = tuple(Keyword(name, value) for name, value in cards)
        data = np.where(known, flux, 0).astype(np.float32)
        dq = np.where(known, 0, Flag.MISSING).astype(np.uint32)
        stat = np.where(known, np.minimum(variance, _LARGEST), _LARGEST).astype(np.float32)
        return Extensions(
            (
                Plane(name="DATA", values=data, unit=_UNITS[0], errors="STAT", flags="DQ", keywords=world),
                Plane(name="DQ", values=dq, kind=PlaneKind.FLAGS, data="DATA", errors="STAT", keywords=world),
                Plane(
                    name="STAT",
                    values=stat,
                    unit=_UNITS[1],
                    kind=PlaneKind.VARIANCE,
                    data="DATA",
                    flags="DQ",
                    keywords=world,
                ),
            )
        )

    def keywords(self) -> tuple[Keyword, ...]:
        """Return the cards that say which stars they are."""
        prefix = "ESO DRS MUSE FLUX"
        cards = [Keyword(f"{prefix} NOBJ", len(self.stars), "Number of objects detected in standard star cube")]
        for number, star in enumerate(self.stars, start=1):
            ra, dec = sky_position(self.grid.x + star.x, self.grid.y + star.y, self.pointing)
            name = f"{prefix} OBJ{number}"
            cards += [
                Keyword(f"{name} X", star.x + 1, "[pix] Object x position in cube"),
                Keyword(f"{name} Y", star.y + 1, "[pix] Object y position in cube"),
                Keyword(f"{name} RA", ra, "[deg] Approximate RA coordinate of object"),
                Keyword(f"{name} DEC", dec, "[deg] Approximate DEC coordinate of object"),
                Keyword(f"{name} INTFLUX", star.total, "[count] Total flux integrated for this object"),
            ]
        how = "brightest" if self.why == "flux" else "nearest"
        cards.append(Keyword(f"{prefix} NSEL", self.chosen + 1, f"Object ({how}) selected as standard star"))
        return tuple(cards)


def sky_position(x: float, y: float, pointing: Pointing) -> tuple[float, float]:
    """Return RA and DEC in degrees of a field position in pix, by the nominal scale and the derotator."""
    angle, scale = math.radians(position_angle(pointing)), math.radians(PIXEL / 3600)
    xi = scale * (-x * math.cos(angle) - y * math.sin(angle))
    eta = scale * (-x * math.sin(angle) + y * math.cos(angle))
    dec = math.radians(pointing.dec)
    below = math.cos(dec) - eta * math.sin(dec)
    ra = pointing.ra + math.degrees(math.atan2(xi, below))
    north = math.atan2(math.sin(dec) + eta * math.cos(dec), math.hypot(xi, below))
    return ra % 360, math.degrees(north)


def measure_stars(
    exposure: MergedExposure,
    filters: Sequence[Filter],
    profile: str,
    mode: str,
    allocate: Allocate,
    *,
    keep: bool = True,
) -> tuple[StarCube, StarFluxes]:
    """Make the cube of an exposure, and measure the flux of its stars in every plane.

    Parameters
    ----------
    exposure : MergedExposure
    filters : sequence of Filter
        Of the images to make.
    profile : str
        One of ``photometry.PROFILES``, but ``auto``.
    mode : str
        ``INS MODE``.
    allocate : callable
        ``Instrument.allocate``.
    keep : bool
        The cube is wanted; otherwise it has no planes, and takes no room on the disk.

    Raises
    ------
    RecipeError
        If there is no star in the middle plane.
    """
    limits = exposure.limits()
    grid = Grid.around(reduce(Limits.__or__, limits.values()))
    drizzle = Drizzle(grid, allocate)
    for channel, extent in limits.items():
        drizzle.add(exposure.pixels(channel), extent, cosmic_rays=COSMIC_RAY_LIMIT)
    plane = grid.shape[0] // 2
    middle = next(image.data[plane - image.which.start] for image in drizzle.planes(plane, plane + 1))
    found = detect_sources(middle, _THRESHOLDS)
    if not found:
        raise RecipeError(
            f"No star stands {_THRESHOLDS[-1]:g} sigma above the background in the plane at"
            f" {grid.wavelengths[plane]:.1f} Angstrom; is the channel there that looks at it, was the shutter open?",
            sigma=_THRESHOLDS[-1],
        )
    fwhm = _width_of(middle, found[0], _FALLBACK_FWHM)
    widths = [_width_of(middle, star, fwhm) for star in found]
    apertures = [
        choose_aperture(star, max(fwhm, width), grid.shape[1:], profile)
        for star, width in zip(found, widths, strict=True)
    ]
    kept = grid.shape if keep else (0, *grid.shape[1:])
    data, stat, images = allocate(kept, np.float32), allocate(kept, np.float32), FieldImages(filters, grid)
    cut: list[list[tuple[CutOut, CutOut]]] = [[] for _ in found]
    for planes in drizzle.planes():
        if keep:
            data[planes.which], stat[planes.which] = planes.data, planes.stat
            images.add(planes)
        for parts, aperture in zip(cut, apertures, strict=True):
            if aperture:
                reach = aperture.reach if profile == "circle" else aperture.half
                of_data, of_stat = (cut_out(cube, aperture.x, aperture.y, reach) for cube in (planes.data, planes.stat))
                parts.append((_own(of_data), _own(of_stat)))
    stars = []
    for star, width, aperture, parts in zip(found, widths, apertures, cut, strict=True):
        flux = variance = np.full(grid.shape[0], np.nan)
        if aperture:
            values, variances = (
                cuts[0]._replace(values=np.concatenate([part.values for part in cuts]))
                for cuts in zip(*parts, strict=True)
            )
            blur = resampling_blur(
                _positions_around(exposure, limits, grid.y + star.y, width), grid, star.x, star.y, width
            )
            flux, variance = integrate_flux(
                values, variances, grid.wavelengths, aperture, fwhm=width, blur=blur, profile=profile, mode=mode
            )
        stars.append(StarFlux(x=star.x, y=star.y, flux=flux, variance=variance))
    measurements = measure_sources(middle, float(grid.wavelengths[plane]), mode)
    cube = StarCube(grid=grid, data=data, stat=stat, images=images.planes(_UNITS[0]), measurements=measurements)
    return cube, StarFluxes(grid=grid, stars=tuple(stars))


def _own(part: CutOut) -> CutOut:
    """Return a cut-out that does not keep the planes that it was cut from in memory."""
    return part._replace(values=part.values.copy())


def _positions_around(
    exposure: MergedExposure, limits: Mapping[int, Limits], y: float, radius: float
) -> Iterator[tuple[Float32, Float32, Float32]]:
    """Yield the positions of the pixels of the channels that look at some rows of the field."""
    for channel, extent in limits.items():
        if extent.y[0] - radius < y < extent.y[1] + radius:
            yield from exposure.positions(channel)


def _width_of(image: Float32, star: Detection, otherwise: float) -> float:
    known = [width for width in measure_widths(image, star.x, star.y) if math.isfinite(width)]
    return sum(known) / len(known) if known else otherwise


def measure_sources(image: Float32, wavelength: float, mode: str, prefix: str = "STANDARD") -> tuple[Measurement, ...]:
    """Return the QC1 parameters of the sources in the middle plane of a cube: number, places, widths.

    Parameters
    ----------
    image : float array, shape (rows, columns)
    wavelength : float
        Angstrom.
    mode : str
        ``INS MODE``.
    prefix : str
        First word of the names.
    """
    found = detect_sources(image, _WIDTH_THRESHOLDS)
    scales = _NARROW_PIXEL if mode.startswith("NFM") else (PIXEL, PIXEL)
    comments = [f"[pix] Position of source k in {axis}-direction in output cube." for axis in "xy"]
    comments += [f"[arcsec] FWHM of source k in {axis}-direction in output cube." for axis in "xy"]
    names = ("POS{} X", "POS{} Y", "FWHM{} X", "FWHM{} Y")
    items: list[Measurement] = [
        Measurement(f"{prefix} NDET", len(found), "Number of detected sources in output cube."),
        Measurement(
            f"{prefix} LAMBDA",
            wavelength,
            "[Angstrom] Wavelength of plane in combined cube that was used for object detection.",
        ),
    ]
    valid: list[float] = []
    for number, star in enumerate(found, start=1) if found else [(0, None)]:
        values = [-1.0] * 4
        if star:
            widths = [w * scale for w, scale in zip(measure_widths(image, star.x, star.y), scales, strict=True)]
            measured = all(map(math.isfinite, widths))
            valid += widths if measured else []
            values = [star.x + 1, star.y + 1, *(widths if measured else (-1.0, -1.0))]
        items += [
            Measurement(f"{prefix} {name.format(number)}", value, comment)
            for name, value, comment in zip(names, values, comments, strict=True)
        ]
    median, deviation = 0.0, 0.0
    if len(found) >= _LEAST_SOURCES and valid:
        median = float(np.median(valid))
        deviation = float(np.median(np.abs(np.array(valid) - median)))
    what = "of all sources with valid FWHM measurement (in x- and y-direction) in output cube."
    return (
        *items,
        Measurement(
            f"{prefix} FWHM NVALID", len(valid) // 2, "Number of detected sources with valid FWHM in output cube."
        ),
        Measurement(f"{prefix} FWHM MEDIAN", median, f"[arcsec] Median FWHM {what}"),
        Measurement(f"{prefix} FWHM MAD", deviation, f"[arcsec] Median absolute deviation of the FWHM {what}"),
    )
