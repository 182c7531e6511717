"""How far products are from the truth that the simulator wrote beside its frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.special import erf

from recipes.lsf import full_widths
from recipes.muse import DETECTOR, SLICES, Flag, Quadrant
from recipes.simulator.atmosphere import telluric_depth
from recipes.simulator.celestial import blurred, twilight_field
from recipes.simulator.field import slice_places
from recipes.simulator.optics import DISPERSION, draw_slices, lsf_fwhm
from recipes.simulator.scenes import calibration_unit
from recipes.simulator.spectra import FWHM_PER_SIGMA, GRID
from recipes.simulator.truth import Truth

ROUNDING = 1 / 12  # square adu, variance of rounding to whole adu
LEAST_WAVELENGTH = 4780.0  # Angstrom; below it the flat has next to no light
GREATEST_WAVELENGTH = 9300.0  # Angstrom, the end of the range that is held to
FIRST_RESPONSE = 4800.0  # Angstrom; below it the blue filter begins
DEEP = 0.95  # transmission, below which a telluric band counts
FAR = 6.0  # sigma, beyond which a value is an outlier
SLICE_END = 3.0  # pix at either end of a slice that are not compared
Numbers = dict[str, float]


def planes(path: Path) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], fits.Header]:
    """Return data, flags, variance and primary header of a product of one channel."""
    with fits.open(path) as hdus:
        return hdus["DATA"].data, hdus["DQ"].data, hdus["STAT"].data, hdus[0].header


def bias_accuracy(path: Path, truth: Truth, frames: int) -> Numbers:
    """Compare a MASTER_BIAS of some frames with the truth; the worst quadrant counts."""
    data, dq, stat, header = planes(path)
    good, noise, level, spread, outliers, read_noise = dq == 0, [], [], [], 0, []
    for quadrant, gain, ron in zip(Quadrant, truth.gain, truth.read_noise, strict=True):
        window = DETECTOR.trimmed(quadrant)
        where = good[window.rows, window.columns]
        left = (data[window.rows, window.columns] - truth.residual_bias[quadrant - 1])[where].astype(np.float64)
        ideal = np.sqrt(((ron / gain) ** 2 + ROUNDING) / frames)
        level.append(left.mean())
        noise.append(left.std() / ideal)
        spread.append(stat[window.rows, window.columns][where].mean(dtype=np.float64) / left.var())
        outliers += int(np.count_nonzero(np.abs(left) > FAR * ideal))
        read_noise.append(header[f"ESO QC BIAS MASTER{quadrant} RON"] / ron - 1)
    bad = np.zeros(data.shape, bool)
    bad[truth.bad.rows, truth.bad.columns] = True
    dead = (dq & Flag.DEAD) > 0
    return {
        "bias level, adu": float(np.abs(np.mean(level))),
        "bias level, worst quadrant, adu": float(np.max(np.abs(level))),
        "read noise error, %": 100 * float(np.max(np.abs(read_noise))),
        "bias noise over ideal": float(np.max(noise)),
        "bias STAT over true variance": _worst_ratio(spread),
        "bias outliers beyond 6 sigma": outliers,
        "bad-column pixels missed": int(np.count_nonzero(bad & ~dead)),
        "bad-column pixels spurious": int(np.count_nonzero(dead & ~bad)),
    }


def dark_accuracy(path: Path, truth: Truth, frames: int, exptime: float) -> Numbers:
    """Compare a MASTER_DARK of some frames of an exposure time with the truth; the worst quadrant counts."""
    data, dq, stat, _ = planes(path)
    scale = 3600 / exptime
    current, noise, spread, outliers = [], [], [], 0
    for quadrant, gain, ron, dark in zip(Quadrant, truth.gain, truth.read_noise, truth.dark, strict=True):
        window = DETECTOR.trimmed(quadrant)
        where = dq[window.rows, window.columns] == 0
        left = data[window.rows, window.columns][where].astype(np.float64) - dark
        variance = (ron**2 + ROUNDING * gain**2 + dark / scale) / frames + (ron**2 + ROUNDING * gain**2) / 11
        ideal = np.sqrt(variance) * scale
        current.append(left.mean())
        noise.append(np.subtract(*np.quantile(left, (0.841, 0.159))) / 2 / ideal)
        spread.append(stat[window.rows, window.columns][where].mean(dtype=np.float64) / left.var())
        outliers += int(np.count_nonzero(left > FAR * ideal))
    hot = dq[truth.hot.rows, truth.hot.columns] & Flag.HOT
    return {
        "dark current error, electrons/h": float(np.abs(np.mean(current))),
        "dark noise over ideal": float(np.max(noise)),
        "dark STAT over true variance": _worst_ratio(spread),
        "dark outliers beyond 6 sigma": outliers,
        "hot pixels missed": int(np.count_nonzero(hot == 0)),
    }


def flat_accuracy(path: Path, truth: Truth) -> Numbers:
    """Compare the bad pixels of a MASTER_FLAT with the truth."""
    _, dq, _, _ = planes(path)
    rows, columns = truth.insensitive.rows, truth.insensitive.columns
    centre, left, right = truth.edges(np.arange(1, DETECTOR.shape[0] + 1, dtype=np.float64))
    within = (left[:, rows] + 2 < columns + 1) & (columns + 1 < right[:, rows] - 2)
    number = np.argmax(within, axis=0)
    light = np.array(
        [truth.wavelength(n + 1, centre[n, r], r + 1.0) > LEAST_WAVELENGTH for n, r in zip(number, rows, strict=True)]
    )
    lit = within.any(axis=0) & light
    missed = (dq[rows, columns] & Flag.DARK == 0) & lit
    return {"dark pixels missed": int(np.count_nonzero(missed)), "dark pixels in the light": int(np.count_nonzero(lit))}


def trace_accuracy(path: Path, truth: Truth) -> Numbers:
    """Compare a TRACE_TABLE with the truth, where there is light."""
    table = fits.getdata(path)
    y = np.arange(1, DETECTOR.shape[0] + 1, dtype=np.float64)
    true = truth.edges(y)
    lit = np.array([truth.wavelength(n + 1, true[0][n], y) > LEAST_WAVELENGTH for n in range(SLICES)])
    order = sum(name.startswith("tc0_") for name in table.names)
    found = [
        np.polynomial.polynomial.polyval(y, np.array([table[f"tc{which}_{power:02d}"] for power in range(order)]))
        for which in range(3)
    ]
    away = [(one - other)[lit] for one, other in zip(found, true, strict=True)]
    width = table["Width"] - (true[2] - true[1]).mean(axis=1)
    return {
        "trace centre rms, pix": float(np.sqrt(np.mean(away[0] ** 2))),
        "trace centre max, pix": float(np.max(np.abs(away[0]))),
        "trace edges rms, pix": float(np.sqrt(np.mean(np.concatenate(away[1:]) ** 2))),
        "trace edges max, pix": float(np.max(np.abs(np.concatenate(away[1:])))),
        "trace width rms, pix": float(np.sqrt(np.mean(width**2))),
    }


def wavelength_accuracy(path: Path, truth: Truth) -> Numbers:
    """Compare a WAVECAL_TABLE with the truth, in every pixel between the edges of a slice where there is light."""
    table = fits.getdata(path)
    y = np.arange(1, DETECTOR.shape[0] + 1, dtype=np.float64)
    names = [name for name in table.names if name.startswith("wlc")]
    orders = int(names[-1][3]) + 1, int(names[-1][4]) + 1
    _, left, right = truth.edges(y)
    away = []
    for number in range(SLICES):
        coefficients = np.array([table[name][number] for name in names]).reshape(orders)
        x = np.arange(np.floor(left[number].min()), np.ceil(right[number].max()) + 1)
        found = np.polynomial.polynomial.polygrid2d(x, y, coefficients)
        true = truth.wavelength(number + 1, *np.broadcast_arrays(x[:, None], y[None, :]))
        used = (true > LEAST_WAVELENGTH) & (true < GREATEST_WAVELENGTH)
        used &= (x[:, None] > left[number]) & (x[:, None] < right[number])
        away.append((found - true)[used])
    every = np.concatenate(away)
    return {
        "wavelength rms, Angstrom": float(np.sqrt(np.mean(every**2))),
        "wavelength max, Angstrom": float(np.max(np.abs(every))),
        "wavelength rms of fit, Angstrom": float(np.sqrt(np.mean(table["MSE"]))),
    }


def profile_accuracy(path: Path, blurs: Sequence[float]) -> Numbers:
    """Compare an LSF_PROFILE with the profiles that lines of the simulator have, by the blur of each slice."""
    with fits.open(path) as hdus:
        cube, header = hdus["LSF_PROFILE"].data.astype(np.float64), hdus["LSF_PROFILE"].header
    offset, wavelength = (
        header[f"CRVAL{axis}"] + header[f"CD{axis}_{axis}"] * np.arange(header[f"NAXIS{axis}"]) for axis in (1, 2)
    )
    scale = np.sqrt(2) * np.array(blurs)[:, None, None] * lsf_fwhm(wavelength)[:, None] / FWHM_PER_SIGMA
    half = DISPERSION / 2
    true = (erf((offset + half) / scale) - erf((offset - half) / scale)) / (2 * DISPERSION)
    ratio = full_widths(cube, offset) / full_widths(true, offset)
    return {
        "LSF width, mean error, %": 100 * float(np.abs(ratio.mean() - 1)),
        "LSF width, greatest error, %": 100 * float(np.abs(ratio - 1).max()),
        "LSF greatest deviation, % of peak": 100 * float(np.abs(cube - true).max() / true.max()),
    }


def response_accuracy(response: Path, telluric: Path, truth: Path) -> Numbers:
    """Compare a STD_RESPONSE with the true one beside the frames, and a STD_TELLURIC with the simulator's air."""
    found, true = fits.getdata(response, 1), fits.getdata(truth, 1)
    inside = (found["lambda"] > FIRST_RESPONSE) & (found["lambda"] < GREATEST_WAVELENGTH)
    x = (found["lambda"][inside] - 7000) / 1000
    away = found["response"][inside] - np.interp(found["lambda"][inside], true["lambda"], true["response"])
    slope, offset = np.polyfit(x, away, 1)
    bands = fits.getdata(telluric, 1)
    transmission = np.interp(bands["lambda"], GRID, blurred(np.exp(-telluric_depth())))
    absorbed = (bands["ftelluric"] - transmission)[transmission < DEEP]
    return {
        "response offset at 7000 Angstrom, mag": float(np.abs(offset)),
        "response slope, mag a 1000 Angstrom": float(np.abs(slope)),
        "response rms about its slope, mag": float((away - slope * x - offset).std()),
        "telluric bands, mean error": float(np.abs(absorbed.mean())),
        "telluric bands, rms": float(absorbed.std()),
    }


def twilight_accuracy(sky: Path, smooth: Path, channels: Sequence[int], seed: int) -> Numbers:
    """Compare DATACUBE_SKYFLAT and TWILIGHT_CUBE with the sky of a simulated night; the worst channel counts.

    The sky cube is that sky over the light of the lamp flat along each slice; the smooth cube can follow no more than
    its gradient. Each plane of a channel has the mean 1.
    """
    cube, white, even = [], [], []
    for channel in channels:
        ratio = _on_slices(sky, channel, seed, lamp=True)
        cube.append(float(ratio.std()))
        white.append(float(ratio.mean(axis=0).std()))
        even.append(float(_on_slices(smooth, channel, seed, lamp=False).std()))
    return {
        "sky cube over true sky, rms of planes": max(cube),
        "sky cube over true sky, rms of all": max(white),
        "smooth cube over gradient of sky, rms": max(even),
    }


def _on_slices(path: Path, channel: int, seed: int, *, lamp: bool) -> NDArray[np.float64]:
    """Return a cube over the true sky on the slices of a channel, without their ends: shape (planes, places)."""
    with fits.open(path) as hdus:
        cube, header = hdus["DATA"].data.astype(float), hdus["DATA"].header
    x, y = (header[f"CRVAL{axis}"] + np.arange(header[f"NAXIS{axis}"]) for axis in (1, 2))
    found = []
    for which, place in zip(draw_slices(seed, channel), slice_places(channel), strict=True):
        row, inside = int(np.argmin(np.abs(y - place.y))), np.abs(x - place.x) < place.width / 2 - SLICE_END
        light = twilight_field(x[inside], np.full(np.count_nonzero(inside), place.y))
        if lamp:
            light = light / calibration_unit(which, (place.x - x[inside]) / place.width)
        found.append(cube[:, row, inside] / light)
    ratio = np.concatenate(found, axis=1)
    return np.asarray(ratio / ratio.mean(axis=1, keepdims=True))


def _worst_ratio(ratios: list[float]) -> float:
    return max(ratios, key=lambda ratio: abs(np.log(ratio)))
