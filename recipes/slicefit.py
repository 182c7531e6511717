"""The wavelengths of a slice: a polynomial in x and y fitted to the places of its lines, without those far off it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.polynomial import Legendre, Polynomial
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from recipes.dispersion import Dispersion
from recipes.muse import DISPERSION
from recipes.recipe import Column, RecipeError, Table
from recipes.slicelines import Measured

Real = NDArray[np.floating[Any]]

_ROUNDS = 10  # of leaving out and fitting anew


class Weighting(StrEnum):
    """Errors that weight the places of lines; ESO's words."""

    UNIFORM = "uniform"
    PLACE = "cerr"
    LINE = "scatter"
    BOTH = "cerrscatter"


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Orders, limits in sigma for the places along a line and in the slice, and weighting."""

    x_order: int
    y_order: int
    line_limit: float
    fit_limit: float
    weighting: Weighting


@dataclass(frozen=True, kw_only=True)
class Round:
    """One fit on the way: the places it was made of, residuals and limit beyond which they were left out; Angstrom."""

    x: NDArray[np.intp]
    y: Real
    wavelength: Real
    residual: Real
    limit: Real


@dataclass(frozen=True, kw_only=True)
class SliceFit:
    """Wavelengths of a slice.

    Parameters
    ----------
    dispersion : Dispersion
    lines : int
        How many different ones are in the fit.
    used : bool array, shape (lines, columns)
        Places that lie along their line.
    rounds : tuple of Round
    """

    dispersion: Dispersion
    lines: int
    used: NDArray[np.bool_]
    rounds: tuple[Round, ...]


def fit_slices(measured: Measured, wavelength: Real, rows: int, settings: FitSettings) -> list[SliceFit]:
    """Fit the wavelengths of every slice.

    Parameters
    ----------
    measured : Measured
    wavelength : float array
        Of each measured line, Angstrom.
    rows : int
        Of the detector.
    settings : FitSettings

    Raises
    ------
    RecipeError
        If a slice has too few places or lines.
    """
    used, scatter = along_lines(measured.y, settings.x_order, settings.line_limit)
    if settings.weighting is Weighting.UNIFORM:
        error = np.ones_like(measured.error)
    elif settings.weighting is Weighting.PLACE:
        error = measured.error
    elif settings.weighting is Weighting.LINE:
        error = np.broadcast_to(scatter[..., None], used.shape)
    else:
        error = np.hypot(measured.error, scatter[..., None])
    fits = []
    for number in range(used.shape[1]):
        chosen = used[:, number]
        line, _ = np.nonzero(chosen)
        found = len(np.unique(line))
        if found <= settings.y_order or len(line) <= (settings.x_order + 1) * (settings.y_order + 1):
            raise RecipeError(
                f"Slice {number + 1} has {len(line)} places of {found} lines, too few for a polynomial of orders"
                f" {settings.x_order} and {settings.y_order}; are the arcs bright enough?",
                slice=number + 1,
                lines=found,
            )
        fits.append(
            _fit_slice(
                measured.x[:, number][chosen],
                measured.y[:, number][chosen],
                wavelength[line],
                error[:, number][chosen] * DISPERSION,
                rows,
                settings,
                chosen,
            )
        )
    return fits


def along_lines(y: Real, order: int, limit: float) -> tuple[NDArray[np.bool_], Real]:
    """Leave out places that are far from a polynomial along their line.

    Parameters
    ----------
    y : float array, shape (lines, slices, columns)
        NaN where not seen.
    order : int
    limit : float
        In units of the rms deviation of the places that are still used.

    Returns
    -------
    used : bool array, shape (lines, slices, columns)
    scatter : float array, shape (lines, slices)
        Rms deviation, pix.
    """
    used = np.isfinite(y)
    middle = np.nanmean(np.where(used.any(axis=2, keepdims=True), y, 0), axis=2, keepdims=True)
    values = np.where(used, y - middle, 0)
    basis = legvander(np.linspace(-1, 1, y.shape[2]), order)
    squares = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), -1)
    scatter = np.zeros(y.shape[:2])
    for _ in range(_ROUNDS):
        used &= used.sum(axis=2, keepdims=True) > order + 1
        weights = used.astype(float)
        normal = (weights @ squares).reshape(*y.shape[:2], order + 1, order + 1) + 1e-12 * np.eye(order + 1)
        coefficients = np.linalg.solve(normal, ((weights * values) @ basis)[..., None])[..., 0]
        deviation = np.abs(values - coefficients @ basis.T)
        number = np.maximum(used.sum(axis=2), 1)
        scatter = np.sqrt((np.square(deviation) * weights).sum(axis=2) / number)
        kept = used & (deviation <= limit * scatter[..., None])
        if np.array_equal(kept, used):
            break
        used = kept
    return used, scatter


def _fit_slice(
    x: NDArray[np.intp],
    y: Real,
    wavelength: Real,
    error: Real,
    rows: int,
    settings: FitSettings,
    chosen: NDArray[np.bool_],
) -> SliceFit:
    """Fit one slice; all of one value a place."""
    across, along = (float(x.min()) - 1, float(x.max()) + 1), (1.0, float(rows))
    in_x = legvander((2 * x - sum(across)) / (across[1] - across[0]), settings.x_order)
    in_y = legvander((2 * y - sum(along)) / (along[1] - along[0]), settings.y_order)
    design = (in_x[:, :, None] * in_y[:, None, :]).reshape(len(x), -1)
    middle = float(wavelength.mean())
    target, weight = wavelength - middle, 1 / error
    used, rounds = np.ones(len(x), bool), list[Round]()
    weighted, aim = design * weight[:, None], target * weight
    normal, right = weighted.T @ weighted, weighted.T @ aim
    while True:
        solution = np.linalg.solve(normal, right)
        residual = target - design @ solution
        typical = np.sqrt(np.mean(np.square(residual * weight)[used]))
        limit = settings.fit_limit * typical * error
        rounds.append(
            Round(x=x[used], y=y[used], wavelength=wavelength[used], residual=residual[used], limit=limit[used])
        )
        kept = used & (np.abs(residual) <= limit)
        if np.array_equal(kept, used) or len(rounds) == _ROUNDS:
            break
        left_out = used & ~kept
        normal -= weighted[left_out].T @ weighted[left_out]
        right -= weighted[left_out].T @ aim[left_out]
        used = kept
    shape = (settings.x_order + 1, settings.y_order + 1)
    powers = _powers(settings.x_order, across).T @ solution.reshape(shape) @ _powers(settings.y_order, along)
    powers[0, 0] += middle
    mean_square = float((np.square(residual) * weight)[used].sum() / weight[used].sum())
    return SliceFit(
        dispersion=Dispersion(powers, mean_square),
        lines=len(np.unique(wavelength[used])),
        used=chosen,
        rounds=tuple(rounds),
    )


def _powers(order: int, domain: tuple[float, float]) -> Real:
    """Return the coefficients of powers of each Legendre polynomial of a domain, one a row."""
    result = np.zeros((order + 1, order + 1))
    for degree in range(order + 1):
        series = Legendre.basis(degree, domain=domain)
        coefficients = series.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1]).coef
        result[degree, : len(coefficients)] = coefficients
    return result


def residual_table(fits: list[SliceFit]) -> Table:
    """Return WAVECAL_RESIDUALS: a row for each slice, round of the fit and place."""
    rounds = [(slice_, turn, r) for slice_, fit in enumerate(fits, 1) for turn, r in enumerate(fit.rounds, 1)]
    lengths = [len(r.x) for _, _, r in rounds]
    return Table(
        columns=(
            Column(name="slice", values=np.repeat(np.array([s for s, _, _ in rounds], np.uint8), lengths)),
            Column(name="iteration", values=np.repeat(np.array([t for _, t, _ in rounds], np.int32), lengths)),
            Column(name="x", values=np.concatenate([r.x for _, _, r in rounds]).astype(np.int32), unit="pix"),
            Column(name="y", values=np.concatenate([r.y for _, _, r in rounds]).astype(np.float32), unit="pix"),
            Column(
                name="lambda",
                values=np.concatenate([r.wavelength for _, _, r in rounds]).astype(np.float32),
                unit="Angstrom",
            ),
            Column(name="residual", values=np.concatenate([r.residual for _, _, r in rounds]), unit="Angstrom"),
            Column(name="rejlimit", values=np.concatenate([r.limit for _, _, r in rounds]), unit="Angstrom"),
        )
    )
