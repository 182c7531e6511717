"""QC1 parameters of arc lines and of the wavelengths made of them, for each slice; ESO's names and words."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.arclines import FWHM_PER_SIGMA
from recipes.dispersion import Dispersion
from recipes.identify import Identification, Peaks
from recipes.linecatalog import LineCatalog
from recipes.muse import LAMP_NUMBERS, Lamp
from recipes.recipe import Measurement
from recipes.slicefit import SliceFit
from recipes.slicelines import Measured
from recipes.trace import CENTRE, LEFT, RIGHT, Trace

Real = NDArray[np.floating[Any]]

NUMBERS: Mapping[Lamp, int] = {lamp: number for number, lamp in LAMP_NUMBERS.items()}
_OF_LAMPS = 20  # slice whose lines are summarised by lamp: no vignetting reaches it; MP


def lines_quality(k: int, peaks: Mapping[Lamp, Peaks], found: Identification) -> list[Measurement]:
    """Return how many lines the middle of slice k (from 0) shows, and how high those are that were recognised."""
    name, slice_ = f"WAVECAL SLICE{k + 1}", f"slice {k + 1}"
    heights = {lamp: shown.height[found.lines[lamp] >= 0] for lamp, shown in peaks.items()}
    every, high = np.concatenate(list(heights.values())), "peak count level above background"
    detected = f"of detected arc lines in {slice_}"
    made = [
        Measurement(f"{name} LINES NDET", sum(len(shown.place) for shown in peaks.values()), f"Number {detected}"),
        Measurement(f"{name} LINES NID", len(every), f"Number of identified arc lines in {slice_}"),
        _real(f"{name} LINES PEAK MEAN", every.mean(), f"[count] Mean {high} {detected}"),
        _real(f"{name} LINES PEAK STDEV", _scatter(every), f"[count] Standard deviation of {high} {detected}"),
        _real(f"{name} LINES PEAK MIN", every.min(), f"[count] {high.capitalize()} of the faintest line in {slice_}"),
        _real(f"{name} LINES PEAK MAX", every.max(), f"[count] {high.capitalize()} of the brightest line in {slice_}"),
    ]
    for lamp, of_lamp in heights.items():
        if k + 1 == _OF_LAMPS and len(of_lamp):
            number = NUMBERS[lamp]
            prefix, lines = f"{name} LAMP{number} LINES PEAK", f"of lines of lamp {number} in {slice_}"
            brightest = f"[count] {high.capitalize()} of the brightest line of lamp {number} in {slice_}"
            made += [
                _real(f"{prefix} MEAN", of_lamp.mean(), f"[count] Mean {high} {lines}"),
                _real(f"{prefix} STDEV", _scatter(of_lamp), f"[count] Standard deviation of {high} {lines}"),
                _real(f"{prefix} MAX", of_lamp.max(), brightest),
            ]
    return made


def widths_quality(k: int, measured: Measured, catalog: LineCatalog, fit: SliceFit) -> list[Measurement]:
    """Return widths of the lines of reference in slice k, Angstrom, and the resolution; NaN where there are none."""
    sigma, x, y = measured.sigma[:, k], measured.x[:, k], measured.y[:, k]
    known = np.isfinite(sigma) & fit.used
    name, what = f"WAVECAL SLICE{k + 1}", f"FWHM of detected arc lines in slice {k + 1}"
    if known.any():
        after, before = (fit.dispersion.wavelength(x[known], y[known] + half) for half in (0.5, -0.5))
        fwhm = FWHM_PER_SIGMA * sigma[known] * (after - before)
        resolution = np.broadcast_to(catalog.wavelength[measured.index][:, None], sigma.shape)[known] / fwhm
    else:
        fwhm = resolution = np.array([np.nan])
    return [
        _real(f"{name} LINES FWHM MEAN", fwhm.mean(), f"Mean {what}"),
        _real(f"{name} LINES FWHM STDEV", _scatter(fwhm), f"Standard deviation of {what}"),
        _real(f"{name} LINES FWHM MIN", fwhm.min(), f"Minimum {what}"),
        _real(f"{name} LINES FWHM MAX", fwhm.max(), f"Maximum {what}"),
        _real(f"{name} RESOL", resolution.mean(), f"Mean spectral resolution R determined in slice {k + 1}"),
    ]


def fit_quality(k: int, fit: SliceFit, trace: Trace, rows: int) -> list[Measurement]:
    """Return how good the wavelengths of slice k are, and what they are at its corners and in its middle."""
    name, slice_, middle = f"WAVECAL SLICE{k + 1}", f"slice {k + 1}", (1 + rows) / 2
    bottom, top = differences(fit.dispersion, trace, rows)
    wavelength = float(fit.dispersion.wavelength(float(trace.polynomials[CENTRE](middle)), middle))
    between, corners = "[Angstrom] Difference in wavelength between", "left and right corner"
    lines = f"Number of arc lines used in calibration solution fit in {slice_}"
    rms = f"[Angstrom] RMS of the wavelength calibration fit in {slice_}"
    return [
        Measurement(f"{name} FIT NLINES", fit.lines, lines),
        _real(f"{name} FIT RMS", fit.dispersion.mean_square**0.5, rms),
        _real(f"{name} DWLEN BOTTOM", bottom, f"{between} bottom {corners}"),
        _real(f"{name} DWLEN TOP", top, f"{between} top {corners}"),
        _real(f"{name} WLPOS", middle, f"[pix] Position of wavelength given in WLEN in {slice_}"),
        _real(f"{name} WLEN", wavelength, f"[Angstrom] Wavelength associated to WLPOS in {slice_}"),
    ]


def differences(dispersion: Dispersion, trace: Trace, rows: int) -> tuple[float, float]:
    """Return the wavelength at the left edge less that at the right one, at the bottom and at the top."""
    left, right = trace.polynomials[LEFT], trace.polynomials[RIGHT]
    bottom, top = (
        float(dispersion.wavelength(float(left(y)), y) - dispersion.wavelength(float(right(y)), y)) for y in (1, rows)
    )
    return bottom, top


def _scatter(values: Real) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _real(name: str, value: float | np.floating[Any], comment: str) -> Measurement:
    """Return a real value with seven digits, as ESO has it, which leaves room for its comment on the card."""
    return Measurement(name, float(f"{value:.7g}"), comment)
