"""One exposure of the sky: the pixel tables of its channels, brought to one scale and one place."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.basic import BasicParams
from recipes.muse import DISPERSION, SLICES, Flag
from recipes.pixtable import StoredPixels
from recipes.recipe import (
    Exposure,
    Float32,
    Instrument,
    Keyword,
    Pointing,
    RecipeError,
    Source,
    Table,
    Value,
    parameter,
)
from recipes.refraction import displacement, refraction_applies
from recipes.smoothing import smooth_by_polynomials, smooth_ranges
from recipes.stats import Real

FLAT_CORRECTED = "ESO DRS MUSE FLUX FFCORR"
FLUX_SKY, FLUX_LAMP = "ESO DRS MUSE FLAT FLUX SKY", "ESO DRS MUSE FLAT FLUX LAMP"
SHORTEST, LONGEST = 4150.0, 9800.0  # Angstrom; no pixel of the instrument is outside; MP
_LATTICE = 0.05  # Angstrom, of the table in which what depends on wavelength is looked up
_STACK = 12  # slices of a detector that look at one of the four stacks of the field


def flat_spectrum_removed(keywords: Mapping[str, Value]) -> bool:
    """Return whether data or response are free of the flat field's lamp spectrum (the second kind, v2).

    The mark is that the keyword is there, whatever its value, as ESO's recipes take it. A response of one kind must
    not be applied to data of the other.
    """
    return FLAT_CORRECTED in keywords


def flat_correction(corrected: bool) -> tuple[Keyword, ...]:  # noqa: FBT001 - the answer of flat_spectrum_removed
    """Return the mark that data or response are free of the lamp spectrum, if they are."""
    mark = Keyword(FLAT_CORRECTED, value=True, comment="Data was flat-field spectrum corrected")
    return (mark,) if corrected else ()


@dataclass(frozen=True, kw_only=True)
class MergingParams(BasicParams):
    """How the channels of an exposure are joined, with ESO's names and defaults, after those of their first half."""

    lambdamin: float = parameter(4000.0, "Pixels below this wavelength are left out, Angstrom.", least=0.0)
    lambdamax: float = parameter(10000.0, "Pixels above this wavelength are left out, Angstrom.", least=0.0)
    lambdaref: float = parameter(
        7000.0, "Wavelength at which refraction leaves stars where they are, Angstrom; below 0 it is not corrected."
    )
    darcheck: str = parameter(
        "none",
        "ESO's check of the refraction by the places of stars, and its correction, are not implemented.",
        choices=("none",),
    )


def tables_of(
    instrument: Instrument, tag: str
) -> tuple[tuple[tuple[Exposure, dict[int, Source]], ...], tuple[str, ...]]:
    """Return each exposure of a raw tag with its pixel tables by channel, and sentences on those that have none.

    Raises
    ------
    RecipeError
        If no exposure has one.
    """
    found: list[tuple[Exposure, dict[int, Source]]] = []
    absent: list[str] = []
    for number, exposure in enumerate(instrument.exposures[tag], start=1):
        name = f"PIXTABLE_{tag}_{number:04d}"
        if tables := {channel: files[name] for channel, files in instrument.channels.items() if name in files}:
            found.append((exposure, tables))
        else:
            absent.append(f"No channel has a pixel table of {exposure.name}; it is left out.")
    if not found:
        raise RecipeError(f"There is no pixel table PIXTABLE_{tag}_0001 to find stars in; reduce the channels first.")
    return tuple(found), tuple(absent)


@dataclass(frozen=True, kw_only=True)
class FieldPixels:
    """Good pixels of a detector, in float32 arrays of one length.

    Parameters
    ----------
    x, y : arrays
        Field positions of their middles, pix of 0.2 arcsec.
    wavelength : array
        Angstrom, in air.
    data, stat : arrays
        Electrons, and their variance.
    """

    x: Float32
    y: Float32
    wavelength: Float32
    data: Float32
    stat: Float32

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> "FieldPixels":
        return FieldPixels(**{name: values[which] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Limits:
    """Least and greatest field position (pix) and wavelength (Angstrom) of all pixels, good or not."""

    x: tuple[float, float]
    y: tuple[float, float]
    wavelength: tuple[float, float]

    def __or__(self, other: "Limits") -> "Limits":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Limits(*((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs))


@dataclass(frozen=True, kw_only=True)
class MergedExposure:
    """The pixel tables of an exposure; pixels are corrected as they are read.

    Parameters
    ----------
    tables : mapping of channel to StoredPixels
    scales : mapping of channel to float
        Data are divided by it, so that all channels have the flux scale of the first.
    correction : float32 array, shape (3, steps)
        By wavelength in steps of 0.05 Angstrom from 4150: displacement in x and y (pix), and factor of the data.
    wavelengths : (float, float)
        Pixels outside are left out, Angstrom.
    flat_corrected : bool
        The lamp spectrum of the flat field was taken out of the data.
    refraction_corrected : bool
    warnings : tuple of str
    """

    tables: Mapping[int, StoredPixels]
    scales: Mapping[int, float]
    correction: Float32
    wavelengths: tuple[float, float]
    flat_corrected: bool
    refraction_corrected: bool
    warnings: tuple[str, ...] = ()

    def limits(self) -> dict[int, Limits]:
        """Return the extent of all pixels of each channel, in a pass through their coordinates.

        A channel without a pixel in the range of wavelengths is left out.

        Raises
        ------
        RecipeError
            If there is no pixel in the range of wavelengths at all.
        """
        found: dict[int, Limits] = {}
        for channel in self.tables:
            for x, y, wavelength in self.positions(channel):
                if len(x):
                    block = Limits(*((float(v.min()), float(v.max())) for v in (x, y, wavelength)))
                    found[channel] = found.get(channel, block) | block
        if not found:
            low, high = self.wavelengths
            raise RecipeError(f"No pixel lies between {low:g} and {high:g} Angstrom; change lambdamin and lambdamax.")
        return found

    def positions(self, channel: int) -> Iterator[tuple[Float32, Float32, Float32]]:
        """Yield field positions and wavelengths of all pixels of a channel, one stack of slices after the other."""
        for rows in self._blocks(channel):
            x, y, wavelength, _ = self._coordinates(channel, rows)
            yield x, y, wavelength

    def pixels(self, channel: int) -> Iterator[FieldPixels]:
        """Yield the good pixels of a channel, one stack of slices after the other."""
        for rows in self._blocks(channel):
            yield self._good_pixels(channel, rows)

    def _good_pixels(self, channel: int, rows: slice) -> FieldPixels:
        x, y, wavelength, inside = self._coordinates(channel, rows)
        good = (self.tables[channel].column("dq", rows)[inside] & ~np.uint32(Flag.NOTCH)) == 0
        x, y, wavelength = x[good], y[good], wavelength[good]
        inside[inside] = good
        factor = self.correction[2][_places(wavelength)] / np.float32(self.scales[channel])
        data = self.tables[channel].column("data", rows)[inside]
        data *= factor
        stat = self.tables[channel].column("stat", rows)[inside]
        factor *= factor
        stat *= factor
        return FieldPixels(x=x, y=y, wavelength=wavelength, data=data, stat=stat)

    def _coordinates(self, channel: int, rows: slice) -> tuple[Float32, Float32, Float32, NDArray[np.bool_]]:
        wavelength = self.tables[channel].column("wavelength", rows)
        inside = (wavelength >= self.wavelengths[0]) & (wavelength <= self.wavelengths[1])
        wavelength = wavelength[inside]
        x, y = (self.tables[channel].column(name, rows)[inside] for name in ("x", "y"))
        places = _places(wavelength)
        x += self.correction[0][places]
        y += self.correction[1][places]
        return x, y, wavelength, inside

    def _blocks(self, channel: int) -> Iterator[slice]:
        """Yield the rows of each stack; they follow each other, with the slices in their order on the detector."""
        slices = self.tables[channel].slices()
        for first in range(1, SLICES + 1, _STACK):
            rows = [slices[number] for number in range(first, first + _STACK) if number in slices]
            if rows:
                yield slice(rows[0].start, rows[-1].stop)


def _places(wavelength: Float32) -> NDArray[np.int32]:
    return ((wavelength - np.float32(SHORTEST - _LATTICE / 2)) * np.float32(1 / _LATTICE)).astype(np.int32)


def merge_exposure(
    tables: Mapping[int, Source], pointing: Pointing, *, mode: str, low: float, high: float, reference: float
) -> MergedExposure:
    """Join the pixel tables of one exposure.

    The channels get one flux scale: that of the twilight (``FLAT FLUX SKY``) if all have one, else of the lamp. The
    mean lamp spectrum of their flat fields, smoothed, is multiplied in again, which flat-fielding had taken out; then
    data are of the second kind (``flat_spectrum_removed``). Stars are put where they are at the reference wavelength.

    Parameters
    ----------
    tables : mapping of channel to Source
        At least one.
    pointing : Pointing
    mode : str
        ``INS MODE``; the narrow field has its own corrector of refraction.
    low, high : float
        Wavelengths to keep, Angstrom.
    reference : float
        Angstrom; below 3500 nothing is corrected.

    Raises
    ------
    RecipeError
        If some, but not all of the channels have the spectrum of their flat field.
    """
    warnings: list[str] = []
    stored = {channel: StoredPixels(source) for channel, source in tables.items()}
    spectra = {channel: table.flat_field.table for channel, table in stored.items() if table.flat_field}
    if spectra and len(spectra) < len(tables):
        lacking = ", ".join(str(channel) for channel in tables if channel not in spectra)
        raise RecipeError(
            f"Only {len(spectra)} of {len(tables)} pixel tables have the spectrum of their flat field; "
            f"it is missing in channel {lacking}. Make them all with the same flat fields.",
            with_spectrum=len(spectra),
            channels=len(tables),
        )
    wavelength = np.arange(round((LONGEST - SHORTEST) / _LATTICE) + 1) * _LATTICE + SHORTEST
    correction = np.zeros((3, len(wavelength)), np.float32)
    correction[2] = _mean_flat_spectrum(list(spectra.values()), mode, wavelength) if spectra else 1
    refracted = refraction_applies(pointing, reference) and not mode.startswith("NFM")
    if refracted:
        correction[:2] = displacement(wavelength, pointing, reference)
    elif reference > 0 and not mode.startswith("NFM"):
        warnings.append("The refraction of the air is not corrected, since airmass or parallactic angle are not known.")
    return MergedExposure(
        tables=stored,
        scales=_scales(tables, warnings),
        correction=correction,
        wavelengths=(max(low, SHORTEST), min(high, LONGEST)),
        flat_corrected=bool(spectra),
        refraction_corrected=refracted,
        warnings=tuple(warnings),
    )


def _mean_flat_spectrum(spectra: list[Table], mode: str, wavelength: Real) -> Real:
    """Return the mean of the spectra of flat fields, smoothed as ESO does, at wavelengths in Angstrom."""
    grid = np.arange(SHORTEST, LONGEST + DISPERSION / 2, DISPERSION)
    sampled = [np.interp(grid, table["lambda"], table["data"], left=np.nan, right=np.nan) for table in spectra]
    mean = np.mean(sampled, axis=0)
    grid, mean = grid[np.isfinite(mean)], mean[np.isfinite(mean)]
    # The lamps of the narrow field's flats do not pass its notch filter.
    ranges = smooth_ranges(mode, notched=not mode.startswith("NFM"))
    smooth, _ = smooth_by_polynomials(grid, mean, np.zeros_like(mean), ranges)
    return np.interp(wavelength, grid, smooth)


def _scales(tables: Mapping[int, Source], warnings: list[str]) -> dict[int, float]:
    """Return the flux of each channel's flat relative to that of the first."""
    for name in (FLUX_SKY, FLUX_LAMP):
        fluxes = {channel: _number(source.keywords.get(name)) for channel, source in tables.items()}
        if all(flux > 0 for flux in fluxes.values()):
            if name == FLUX_LAMP and len(fluxes) > 1:
                warnings.append(
                    "The channels are scaled by their lamp flats, since they have no twilight; steps remain."
                )
            first = next(iter(fluxes.values()))
            return {channel: flux / first for channel, flux in fluxes.items()}
    warnings.append("The channels have no flux of a flat field in common, and are not scaled; steps remain.")
    return dict.fromkeys(tables, 1.0)


def _number(value: Value | None) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
