"""Scenes on the sky and through the pinhole mask: light that depends on where a slice looks."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from recipes.muse import Lamp
from recipes.simulator.atmosphere import (
    SKY_LINES,
    refraction,
    sky_continuum,
    sunlight,
    telluric_depth,
    transmission,
)
from recipes.simulator.field import PIXEL, Place, slice_places
from recipes.simulator.optics import DISPERSION, Real, Slice
from recipes.simulator.scenes import arc_spectrum
from recipes.simulator.spectra import (
    EFFICIENCY_KNOTS,
    FWHM_PER_SIGMA,
    GRID,
    STEP,
    Spectrum,
    blue_filter,
    blurred_lines,
    smooth_curve,
)
from recipes.simulator.stars import Star

COLLECTING_AREA = 483250.7  # cm**2, effective; the one that ESO's muse_standard reckons throughput with
PHOTON_ENERGY = 1.98644586e-8  # erg Angstrom
BLUR = np.hypot(2.45 / FWHM_PER_SIGMA, DISPERSION / np.sqrt(12))  # Angstrom, mean line-spread function with the pixel
MOFFAT_POWER = 2.5
STAR_REACH = 40.0  # pix; light further from a star is left out
TWILIGHT_SIGNAL = 28000.0  # electrons of a pixel near 7000 Angstrom in one frame; QC TWILIGHTm INPUTn MEDIAN
TWILIGHT_GRADIENT = (3e-4, -2e-4)  # of the twilight sky a field pixel, in x and y
# The multi-pinhole mask of the calibration unit, in mm of the focal plane. Source: ESO MUSE pipeline.
HOLE_DISTANCE_X, HOLE_DISTANCE_Y = 2.9450, 0.6135
FOCAL_SCALE = 1.705  # arcsec a mm; TEL FOCU SCALE
MASK_ZERO = 13.833  # mm, stage position that puts a row of holes at field y = 0
HOLE_SIGMA = 0.45  # pix, half-height of a hole blurred, across the slice
SPOT_SIGMA = 1.1  # pix along the slice
HOLE_THROUGHPUT = 0.025  # light on a pixel in the middle of a hole's image, relative to the lamp without mask


def photons(flux: Real, mode: str) -> Real:
    """Return electrons a second and pixel of dispersion from erg/s/cm**2/Angstrom, on the grid."""
    efficiency = smooth_curve(EFFICIENCY_KNOTS) * blue_filter(mode)
    return flux * GRID / PHOTON_ENERGY * COLLECTING_AREA * DISPERSION * efficiency


def blurred(values: Real) -> NDArray[np.float32]:
    """Return a spectrum on the grid as the spectrograph's mean line-spread function shows it."""
    result: NDArray[np.float32] = gaussian_filter1d(values, BLUR / STEP, mode="nearest").astype(np.float32)
    return result


@dataclass(frozen=True)
class Twilight:
    """The evening sky: sunlight, brighter towards one side of the field."""

    mode: str
    exptime: float

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:
        x, y = slice_places(channel)[which.number - 1].at(position)
        spectrum = _twilight_spectrum(self.mode).at(wavelength)
        spectrum *= (TWILIGHT_SIGNAL / self.exptime * twilight_field(x, y)).astype(np.float32)
        return spectrum


def twilight_field(x: Real, y: Real) -> Real:
    """Return the brightness of the twilight sky over the field, 1 in the middle."""
    return 1 + TWILIGHT_GRADIENT[0] * x + TWILIGHT_GRADIENT[1] * y


@dataclass(frozen=True, kw_only=True)
class NightSky:
    """The sky and any stars in front of it.

    Parameters
    ----------
    mode : str
    airmass : float
    parallactic_angle : float
        Degrees; the zenith is there from north through east.
    seeing : float
        Full width at half maximum at 5000 Angstrom and the zenith, arcsec.
    stars : tuple of Star
    middle : (float, float)
        Field coordinates of the pointing.
    """

    mode: str
    airmass: float
    parallactic_angle: float
    seeing: float
    stars: tuple[Star, ...] = ()
    middle: tuple[float, float] = (0.0, 0.0)

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:
        place = slice_places(channel)[which.number - 1]
        # A pixel of the detector covers the slice's height and its share of the slice's length.
        share = place.width * float(np.median(np.diff(position[position.shape[0] // 2])))
        result = _sky_spectrum(self.mode, which.blur).at(wavelength)
        result *= np.float32(share * PIXEL**2)
        for star in self.stars:
            self._add_star(result, star, place, share, position, wavelength)
        return result

    def _add_star(
        self, result: NDArray[np.float32], star: Star, place: Place, share: float, position: Real, wavelength: Real
    ) -> None:
        x0, y0 = self.middle[0] + star.x, self.middle[1] + star.y
        if abs(y0 - place.y) > STAR_REACH / 2 or abs(x0 - place.x) > place.width / 2 + STAR_REACH:
            return
        across = position[position.shape[0] // 2]
        near = np.abs(place.x - across * place.width - x0) < STAR_REACH
        if not near.any():
            return
        seen = wavelength[:, near]
        x, y = place.at(position[:, near])
        lift = refraction(seen, self.airmass) / PIXEL
        angle = np.radians(self.parallactic_angle)
        dx, dy = x - x0 + lift * np.sin(angle), y - y0 - lift * np.cos(angle)
        fwhm = self.seeing / PIXEL * self.airmass**0.6 * (seen / 5000) ** -0.2
        squared_radius = (fwhm / 2) ** 2 / (2 ** (1 / MOFFAT_POWER) - 1)
        middle = (MOFFAT_POWER - 1) / (np.pi * squared_radius)
        profile = middle * (1 + (dx**2 + dy**2) / squared_radius) ** -MOFFAT_POWER
        spectrum = _star_spectrum(star.magnitude, star.temperature, self.mode, round(self.airmass, 3))
        result[:, near] += spectrum.at(seen) * (share * profile).astype(np.float32)


@dataclass(frozen=True)
class Pinholes:
    """Arc lamps through the mask of pinholes, which a stage moves up and down."""

    lamps: tuple[Lamp, ...]
    mode: str
    stage: float

    def light(self, channel: int, which: Slice, position: Real, wavelength: Real) -> NDArray[np.float32] | None:
        place = slice_places(channel)[which.number - 1]
        pitch_x, pitch_y = (distance * FOCAL_SCALE / PIXEL for distance in (HOLE_DISTANCE_X, HOLE_DISTANCE_Y))
        # The holes go down the field as the stage goes up, so higher slices are lit at lower positions.
        first = -(self.stage - MASK_ZERO) * FOCAL_SCALE / PIXEL
        if abs((place.y - first + pitch_y / 2) % pitch_y - pitch_y / 2) > 1.0 + 4 * HOLE_SIGMA:
            return None
        x, y = place.at(position)
        off_y = (y - first + pitch_y / 2) % pitch_y - pitch_y / 2
        off_x = x % pitch_x - pitch_x / 2
        spots = np.exp(-((off_x / SPOT_SIGMA) ** 2) / 2) * np.exp(-((off_y / HOLE_SIGMA) ** 2) / 2)
        spots[spots < 1e-5] = 0
        spectrum = arc_spectrum(self.lamps, self.mode, which.blur).at(wavelength)
        spectrum *= (HOLE_THROUGHPUT * spots).astype(np.float32)
        return spectrum


@lru_cache(maxsize=2)
def _twilight_spectrum(mode: str) -> Spectrum:
    values = sunlight(GRID) * np.exp(-1.3 * telluric_depth()) * smooth_curve(EFFICIENCY_KNOTS) * blue_filter(mode)
    return Spectrum(blurred(values / np.interp(7000, GRID, values)))


@lru_cache(maxsize=128)
def _sky_spectrum(mode: str, blur: float) -> Spectrum:
    """Electrons a second and pixel of dispersion from a square arcsec of sky."""
    wavelengths = np.array([line[0] for line in SKY_LINES])
    per_flux = np.interp(wavelengths, GRID, photons(np.ones_like(GRID), mode)) / DISPERSION
    lines = blurred_lines(wavelengths, np.array([line[1] for line in SKY_LINES]) * 1e-20 * per_flux, blur)
    return Spectrum(lines + blurred(photons(sky_continuum(GRID), mode)))


@lru_cache(maxsize=512)
def _star_spectrum(magnitude: float, temperature: float, mode: str, airmass: float) -> Spectrum:
    star = Star(magnitude=0.0, temperature=temperature)
    return Spectrum(_unit_star(star, mode, airmass).values * np.float32(10 ** (-0.4 * magnitude)))


@lru_cache(maxsize=4)
def _unit_star(star: Star, mode: str, airmass: float) -> Spectrum:
    return Spectrum(blurred(photons(star.flux(GRID) * transmission(airmass), mode)))
