"""From electrons to flux: what a response, an extinction and a telluric absorption make of an exposure."""

import math
from dataclasses import dataclass, replace

import numpy as np

from recipes.exposure import LONGEST, SHORTEST, MergedExposure, flat_spectrum_removed
from recipes.muse import DISPERSION
from recipes.recipe import Exposure, RecipeError, Table, TableSource
from recipes.refraction import mean_airmass
from recipes.stats import Real

FLUX_UNIT = "10**(-20)*erg/s/cm**2/Angstrom"
_FLUX_FACTOR = 1e20  # MP
_LEAST_TRANSMISSION = 1e-3  # below which a band is black


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """An exposure in some unit."""

    exposure: MergedExposure
    unit: str
    warnings: tuple[str, ...] = ()


def calibrate_flux(
    merged: MergedExposure,
    exposure: Exposure,
    *,
    response: TableSource | None,
    telluric: TableSource | None,
    extinction: TableSource | None,
) -> Calibrated:
    """Turn an exposure into flux, if there is a response; else it stays in electrons.

    A response of data that contain the lamp spectrum of the flat field (the first kind) has the data brought to its
    own kind.

    Parameters
    ----------
    merged : MergedExposure
    exposure : Exposure
    response, telluric, extinction : TableSource or None
        STD_RESPONSE, STD_TELLURIC, EXTINCT_TABLE.

    Raises
    ------
    RecipeError
        If the response is of data without the lamp spectrum and these contain it, or there is no exposure time.
    """
    if response is None:
        return Calibrated(exposure=merged, unit="count")
    if not exposure.exptime > 0:
        raise RecipeError(f"{exposure.name} has an exposure time of {exposure.exptime} s; its flux is not known.")
    warnings: list[str] = []
    correction = merged.correction.copy()
    corrected, wanted = merged.flat_corrected, flat_spectrum_removed(response.keywords)
    if wanted and not corrected:
        raise RecipeError(
            "The STD_RESPONSE is of data without the lamp spectrum of the flat field, and these data contain it; make"
            " the pixel tables anew, or give the response that was made with them."
        )
    if corrected and not wanted:
        correction[2] = 1
        warnings.append(
            "The STD_RESPONSE is of data with the lamp spectrum of the flat field; it was put back into the data."
        )
    airmass = mean_airmass(exposure.pointing)
    wavelength = np.linspace(SHORTEST, LONGEST, correction.shape[1])
    magnitudes = -np.interp(wavelength, *_curve(response.table, "response"))
    if math.isnan(airmass):
        warnings.append("The airmass is not known; neither extinction nor telluric absorption are corrected.")
    else:
        if extinction is not None:
            magnitudes += airmass * np.interp(wavelength, *_curve(extinction.table, "extinction"), left=0, right=0)
        if telluric is not None:
            depth = np.interp(wavelength, *_curve(telluric.table, "ftelluric"), left=1, right=1)
            magnitudes -= 2.5 * airmass * np.log10(np.maximum(depth, _LEAST_TRANSMISSION))
            if flat_spectrum_removed(telluric.keywords) != wanted:
                warnings.append("STD_TELLURIC and STD_RESPONSE are not of one kind; this may not be right.")
    correction[2] *= _FLUX_FACTOR * 10 ** (0.4 * magnitudes) / (exposure.exptime * DISPERSION)
    known = response.table["lambda"]
    low, high = merged.wavelengths
    return Calibrated(
        exposure=replace(
            merged,
            correction=correction,
            wavelengths=(max(low, float(known[0])), min(high, float(known[-1]))),
            flat_corrected=wanted,
        ),
        unit=FLUX_UNIT,
        warnings=tuple(warnings),
    )


def _curve(table: Table, name: str) -> tuple[Real, Real]:
    return table["lambda"].astype(np.float64), table[name].astype(np.float64)
