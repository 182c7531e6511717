"""Response of the instrument and absorption of the atmosphere, from the flux of a star of known spectrum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recipes.catalogue import distance_warning, nearest_entry
from recipes.filters import Filter
from recipes.muse import BLUE_END
from recipes.recipe import Column, Pointing, RecipeError, Source, Table, TableSource
from recipes.smoothing import smooth_by_medians, smooth_by_polynomials, smooth_ranges
from recipes.stats import Real, fit_polynomial

RESPONSE_UNIT = "2.5*log10((count/s/Angstrom)/(erg/s/cm**2/Angstrom))"
COLLECTING_AREA = 483250.7024654051  # cm**2, effective, of the telescope; MP
PHOTON_ENERGY = 6.62607015e-27 * 2.99792458e18  # erg Angstrom, of a photon times its wavelength; CODATA 2018
FIRST, LAST = 4150.0, 9800.0  # Angstrom, that a response is extended to; MP
_BLUE_LIMIT = {"WFM-AO-N": 4690.0, "NFM-AO-N": 4690.0}  # Angstrom, where it differs from the useful range; MP
_FLUX_UNITS = ("erg/s/cm**2/Angstrom", "erg/s/cm^2/Angstrom")
_EXTENSION = 100  # points that a response is extended by at each end; MP
# Angstrom at either end that a response is extended from: one without the lamp spectrum has an edge there; MP
_END, _SHARP_END = 150.0, 15.0
_ERROR_DOUBLES = 50.0  # Angstrom of extension over which twice the error is added; MP
_REJECTED, _REJECTED_AT_ENDS = 3.0, 5.0  # rms of the residuals; MP
_TELLURIC_ERRORS = (1e-4, 0.1)  # least and greatest error of a transmission; MP
_MAGNITUDE = 2.5 / math.log(10)


@dataclass(frozen=True)
class Band:
    """A telluric band, and the wider interval from which the spectrum without it is reckoned; Angstrom."""

    low: float
    high: float
    background_low: float
    background_high: float


# Water and oxygen. Source: MP.
TELLURIC_BANDS = tuple(
    Band(*limits)
    for limits in (
        (6273.0, 6320.0, 6213.0, 6380.0), (6864.0, 6967.0, 6750.0, 7130.0), (7164.0, 7325.0, 7070.0, 7580.0),
        (7590.0, 7700.0, 7470.0, 7830.0), (8131.0, 8345.0, 7900.0, 8600.0), (8952.0, 9028.0, 8850.0, 9082.0),
        (9274.0, 9770.0, 9080.0, 9263.0),
    )
)  # fmt: skip


def telluric_bands(regions: TableSource | None) -> tuple[Band, ...]:
    """Return the bands of a TELLURIC_REGIONS table, or those built in if there is none."""
    if regions is None:
        return TELLURIC_BANDS
    columns = (regions.table[name] for name in ("lmin", "lmax", "bgmin", "bgmax"))
    return tuple(Band(*map(float, limits)) for limits in zip(*columns, strict=True))


@dataclass(frozen=True, kw_only=True)
class ReferenceStar:
    """A star of known spectrum: air wavelengths in Angstrom, fluxes and errors in erg/s/cm**2/Angstrom."""

    name: str
    wavelength: Real
    flux: Real
    error: Real
    distance: float


def choose_reference(catalogue: Source, pointing: Pointing) -> ReferenceStar:
    """Return the star of a STD_FLUX_TABLE that is nearest to where the telescope pointed.

    Raises
    ------
    RecipeError
        If the nearest is more than 60 arcsec away, or its table has neither of the two layouts.
    """
    entry = nearest_entry(catalogue, pointing, "star of STD_FLUX_TABLE")
    wavelength, flux, error = _spectrum(entry.source.table, entry.name)
    return ReferenceStar(name=entry.name, wavelength=wavelength, flux=flux, error=error, distance=entry.distance)


def reference_warning(star: ReferenceStar) -> tuple[str, ...]:
    """Return a sentence about a reference star that is rather far from the pointing."""
    return distance_warning(f"reference star {star.name}", star.distance)


def _spectrum(table: Table, name: str) -> tuple[Real, Real, Real]:
    units = {column.name: column.unit.strip() for column in table.columns}
    if units.get("lambda") == "Angstrom" and units.get("flux") in _FLUX_UNITS:
        wavelength, flux = (np.asarray(table[column], float) for column in ("lambda", "flux"))
        known = units.get("fluxerr") in _FLUX_UNITS
        return wavelength, flux, np.asarray(table["fluxerr"], float) if known else np.zeros_like(flux)
    if units.get("WAVELENGTH") == "ANGSTROMS" and units.get("FLUX") == "FLAM":
        vacuum, flux = (np.asarray(table[column], float) for column in ("WAVELENGTH", "FLUX"))
        errors = [np.asarray(table[c], float) for c in ("STATERROR", "SYSERROR") if units.get(c) == "FLAM"]
        both = np.hypot(*errors) if len(errors) == 2 else np.zeros_like(flux)
        return air_wavelength(vacuum), flux, both
    raise RecipeError(
        f"The table of {name} in STD_FLUX_TABLE has columns {', '.join(f'{n} [{u}]' for n, u in units.items())}; lambda"
        f" [Angstrom] and flux [{_FLUX_UNITS[0]}], or WAVELENGTH [ANGSTROMS] and FLUX [FLAM] are needed."
    )


def air_wavelength(vacuum: Real) -> Real:
    """Return wavelengths in air from those in vacuum, Angstrom. Source: Morton 1991, ApJS 77, 119."""
    return vacuum / (1 + 2.735182e-4 + 131.4182 / vacuum**2 + 2.76249e8 / vacuum**4)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What the instrument detects of the light above the atmosphere, in magnitudes; arrays along wavelength.

    Parameters
    ----------
    wavelength : array
        Ascending, Angstrom.
    value, error : arrays
        2.5 log10 of electrons a second and Angstrom for 1 erg/s/cm**2/Angstrom.
    transmission : array
        Of the telluric bands at airmass 1; NaN outside of them.
    """

    wavelength: Real
    value: Real
    error: Real
    transmission: Real


def measure_sensitivity(
    wavelength: Real,
    flux: Real,
    variance: Real,
    reference: ReferenceStar,
    *,
    exptime: float,
    step: float,
    airmass: float,
    extinction: Table,
) -> Sensitivity:
    """Compare measured with known flux; wavelengths without either are left out.

    Parameters
    ----------
    wavelength, flux, variance : arrays
        Electrons in each plane of a cube; NaN where not measured.
    reference : ReferenceStar
    exptime : float
        Seconds.
    step : float
        Angstrom a plane.
    airmass : float
    extinction : Table
        EXTINCT_TABLE; 0 outside of its range.
    """
    known = np.interp(wavelength, reference.wavelength, reference.flux, left=0, right=0)
    error = np.interp(wavelength, reference.wavelength, reference.error, left=0, right=0)
    magnitudes = np.interp(wavelength, extinction["lambda"], extinction["extinction"], left=0, right=0)
    good = (flux > 0) & (variance > 0) & (known > 0)
    value = 2.5 * np.log10(flux[good] / (exptime * step * known[good])) + airmass * magnitudes[good]
    relative = np.hypot(error[good] / known[good], np.sqrt(variance[good]) / flux[good])
    return Sensitivity(
        wavelength=wavelength[good],
        value=value,
        error=_MAGNITUDE * relative,
        transmission=np.full(value.shape, np.nan),
    )


def restrict_to_mode(sensitivity: Sensitivity, mode: str) -> Sensitivity:
    """Leave out what the blue filter of an ``INS MODE`` takes away; an extended mode has none."""
    good = sensitivity.wavelength >= _BLUE_LIMIT.get(mode, BLUE_END.get(mode, 0.0))
    return Sensitivity(**{name: values[good] for name, values in vars(sensitivity).items()})


def remove_telluric(
    sensitivity: Sensitivity, bands: Sequence[Band], airmass: float
) -> tuple[Sensitivity, tuple[str, ...]]:
    """Replace the sensitivity in telluric bands by a parabola through what is around, and reckon their transmission.

    Where the surroundings reach no further than the band or the data, it is a straight line.

    Returns
    -------
    sensitivity : Sensitivity
    warnings : tuple of str
        Bands that could not be treated.
    """
    wavelength, warnings = sensitivity.wavelength, []
    value, error, transmission = sensitivity.value.copy(), sensitivity.error.copy(), sensitivity.transmission.copy()
    in_bands = np.zeros(wavelength.shape, bool)
    for band in bands:
        in_bands |= (wavelength >= band.low) & (wavelength <= band.high)
    for band in bands:
        inside = (wavelength >= band.low) & (wavelength <= band.high)
        around = (wavelength >= band.background_low) & (wavelength <= band.background_high) & ~in_bands
        one_sided = band.background_high < band.high or band.background_low > band.low
        order = 1 if one_sided or wavelength[-1] < band.high or wavelength[0] > band.low else 2
        if not inside.any() or np.count_nonzero(around) <= order + 1:
            if wavelength[0] < band.high and wavelength[-1] > band.low:
                what = "nothing is known beside it"
            else:
                what = f"the data end at {wavelength[0]:.0f} and {wavelength[-1]:.0f}"
            warnings.append(
                f"The telluric band at {band.low:.0f} to {band.high:.0f} Angstrom is left as it is: {what}."
            )
            continue
        x, y = wavelength[around], sensitivity.value[around]
        fit = fit_polynomial(x, y, order, limit=_REJECTED, weights=np.ones_like(y))
        smooth = fit.polynomial(wavelength[inside])
        spread = fit.mean_square / max(int(np.count_nonzero(fit.used)) - order - 1, 1)
        absorbed = np.maximum(smooth - sensitivity.value[inside], 0)
        transmission[inside] = 10 ** (-0.4 * absorbed / airmass)
        value[inside], error[inside] = smooth, np.sqrt(sensitivity.error[inside] ** 2 + spread)
    return replace(sensitivity, value=value, error=error, transmission=transmission), tuple(warnings)


def mean_sensitivity(parts: Sequence[Sensitivity]) -> Sensitivity:
    """Return the mean of several sensitivities at the wavelengths of the first, weighted by their errors."""
    if len(parts) == 1:
        return parts[0]
    wavelength = parts[0].wavelength
    sampled = [
        [np.interp(wavelength, part.wavelength, v, left=np.nan, right=np.nan) for v in (part.value, part.error)]
        for part in parts
    ]
    values, errors = np.array(sampled).swapaxes(0, 1)
    weights = np.where(np.isfinite(values) & (errors > 0), 1 / np.square(errors), 0)
    total = weights.sum(axis=0)
    transmissions = np.array([_nearest(part, wavelength) for part in parts])
    known = np.isfinite(transmissions)
    absorbed = np.where(known, transmissions, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return Sensitivity(
        wavelength=wavelength,
        value=np.nansum(weights * np.nan_to_num(values), axis=0) / total,
        error=1 / np.sqrt(total),
        transmission=np.where(known.any(axis=0), absorbed, np.nan),
    )


def _nearest(part: Sensitivity, wavelength: Real) -> Real:
    places = np.clip(np.searchsorted(part.wavelength, wavelength), 1, len(part.wavelength) - 1)
    places -= wavelength - part.wavelength[places - 1] < part.wavelength[places] - wavelength
    result: Real = part.transmission[places]
    return result


def extend(sensitivity: Sensitivity, *, sharp: bool) -> Sensitivity:
    """Extend a sensitivity by straight lines from 4150 to 9800 Angstrom; its errors grow with the distance.

    Parameters
    ----------
    sensitivity : Sensitivity
    sharp : bool
        It has the edge of the blue filter, as one does from which the lamp spectrum was taken out.
    """
    width = _SHARP_END if sharp else _END
    ends = [(sensitivity.wavelength, sensitivity.value, sensitivity.error)]
    low, high = float(sensitivity.wavelength[0]), float(sensitivity.wavelength[-1])
    for edge, limit, place in ((low, FIRST, 0), (high, LAST, -1)):
        distance = abs(limit - edge) / _EXTENSION * np.arange(1, _EXTENSION + 1)
        if (edge <= FIRST) if place == 0 else (edge >= LAST):
            continue
        near = np.abs(sensitivity.wavelength - edge) <= width
        x, y = sensitivity.wavelength[near], sensitivity.value[near]
        line = fit_polynomial(x, y, 1, limit=_REJECTED_AT_ENDS, weights=np.ones_like(y)).polynomial
        points = edge - distance[::-1] if place == 0 else edge + distance
        growth = 1 + 2 * np.abs(points - edge) / _ERROR_DOUBLES
        values = line(points)
        good = values > 0
        ends.append((points[good], values[good], sensitivity.error[place] * growth[good]))
    wavelength, value, error = (np.concatenate(column) for column in zip(*ends, strict=True))
    order = np.argsort(wavelength)
    transmission = np.full(wavelength.shape, np.nan)
    transmission[: len(sensitivity.wavelength)] = sensitivity.transmission
    return Sensitivity(
        wavelength=wavelength[order], value=value[order], error=error[order], transmission=transmission[order]
    )


def throughput(wavelength: Real, response: Real) -> Real:
    """Return the part of the photons above the atmosphere that is detected, by the telescope's effective area."""
    return PHOTON_ENERGY / COLLECTING_AREA / wavelength * 10 ** (0.4 * response)


def response_table(sensitivity: Sensitivity, smooth: str, mode: str, *, flat_corrected: bool) -> Table:
    """Return a STD_RESPONSE, smoothed by ``none``, ``median`` or ``ppoly``."""
    wavelength, value, error = sensitivity.wavelength, sensitivity.value, sensitivity.error
    ranges = smooth_ranges(mode, kinked=flat_corrected)
    unsmoothed: tuple[Column, ...] = ()
    if smooth != "none":
        smoothed = smooth_by_medians if smooth == "median" else smooth_by_polynomials
        unsmoothed = (
            Column(name="response_unsmoothed", values=value, unit=RESPONSE_UNIT),
            Column(name="resperr_unsmoothed", values=error, unit=RESPONSE_UNIT),
        )
        value, error = smoothed(wavelength, value, error, ranges)
    return Table(
        columns=(
            Column(name="lambda", values=wavelength, unit="Angstrom"),
            Column(name="response", values=value, unit=RESPONSE_UNIT),
            Column(name="resperr", values=error, unit=RESPONSE_UNIT),
            *unsmoothed,
            Column(name="throughput", values=throughput(wavelength, value)),
        )
    )


def telluric_table(sensitivity: Sensitivity) -> Table:
    """Return a STD_TELLURIC: the transmission in the bands at airmass 1, each framed by rows of 1."""
    transmission = sensitivity.transmission
    known = np.isfinite(transmission)
    absorbing = known & (transmission != 1)
    beside = np.zeros_like(known)
    beside[:-1] |= absorbing[1:]
    beside[1:] |= absorbing[:-1]
    rows = known | beside
    values = np.where(known, transmission, 1.0)[rows]
    errors = np.clip(1 - values, *_TELLURIC_ERRORS)
    return Table(
        columns=(
            Column(name="lambda", values=sensitivity.wavelength[rows], unit="Angstrom"),
            Column(name="ftelluric", values=values),
            Column(name="ftellerr", values=errors),
        )
    )


def zero_point(response: Table, reference: ReferenceStar, band: Filter) -> float:
    """Return the magnitude by which a star looks fainter than all its photons would make it, in a filter's band.

    NaN if the band has no light.
    """
    wavelength = response["lambda"]
    known = np.interp(wavelength, reference.wavelength, reference.flux, left=0, right=0)
    passed = known * band.at(wavelength)
    step = np.gradient(wavelength)
    seen, sent = float((step * passed * response["throughput"]).sum()), float((step * passed).sum())
    return -2.5 * math.log10(seen / sent) if seen > 0 and sent > 0 else math.nan


def mean_throughput(response: Table, wavelength: float, half: float = 100.0) -> float:
    """Return the mean throughput within ``half`` Angstrom of a wavelength; NaN if the response has none."""
    near: NDArray[np.bool_] = np.abs(response["lambda"] - wavelength) <= half
    return float(response["throughput"][near].mean()) if near.any() else math.nan
