"""Wavelength against position in a slice, a polynomial in x and y, and the WAVECAL_TABLE that holds one a slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval, polyval2d
from numpy.typing import NDArray

from recipes.recipe import Column, RecipeError, Table

Real = NDArray[np.floating[Any]]
Places = NDArray[np.number[Any]] | float


@dataclass(frozen=True)
class Dispersion:
    """Wavelengths of one slice.

    Parameters
    ----------
    coefficients : float array, shape (order in x + 1, order in y + 1)
        Angstrom; [i, j] belongs to x**i y**j, both in pix from 1 on the trimmed frame.
    mean_square : float
        Of the deviations of the lines, square Angstrom.
    """

    coefficients: Real
    mean_square: float = 0.0

    def wavelength(self, x: Places, y: Places) -> Real:
        """Return air wavelengths in Angstrom at positions that broadcast."""
        columns, rows = np.broadcast_arrays(x, y)
        result: Real = polyval2d(columns.astype(float), rows.astype(float), self.coefficients)
        return result

    def on_rows(self, x: Real, y: Real) -> Real:
        """Return air wavelengths in Angstrom at each row y and column x, which are vectors; shape (rows, columns).

        Much faster than ``wavelength`` where rows and columns are whole.
        """
        along = polyval(y, self.coefficients.T)
        result: Real = polyval(x[None, :], along[:, :, None], tensor=False)
        return result


def dispersion_table(dispersions: Sequence[Dispersion]) -> Table:
    """Return WAVECAL_TABLE: one row a slice, coefficients of the powers of x and y, y running faster."""
    rows = np.array([dispersion.coefficients for dispersion in dispersions], np.float64)
    return Table(
        columns=(
            Column(name="SliceNo", values=np.arange(1, len(rows) + 1, dtype=np.int32), unit="No"),
            *(
                Column(name=f"wlc{i}{j}", values=rows[:, i, j], unit="Angstrom")
                for i in range(rows.shape[1])
                for j in range(rows.shape[2])
            ),
            Column(name="MSE", values=np.array([dispersion.mean_square for dispersion in dispersions])),
        )
    )


def read_dispersions(table: Table) -> tuple[Dispersion, ...]:
    """Return what a WAVECAL_TABLE holds, of these recipes or of ESO's, in order of slices.

    The name of the last coefficient gives the orders.

    Raises
    ------
    RecipeError
        If a coefficient is missing or not a number.
    """
    names = [column.name for column in table.columns if column.name.startswith("wlc")]
    x_order, y_order = max(int(name[3]) for name in names), max(int(name[4:]) for name in names)
    found = []
    for row in np.argsort(table["SliceNo"]):
        coefficients = np.array(
            [[float(table[f"wlc{i}{j}"][row]) for j in range(y_order + 1)] for i in range(x_order + 1)]
        )
        if not np.isfinite(coefficients).all() or not coefficients.any():
            raise RecipeError(
                f"The WAVECAL_TABLE has no wavelengths for slice {table['SliceNo'][row]}; make it anew.",
                slice=int(table["SliceNo"][row]),
            )
        found.append(Dispersion(coefficients, float(table["MSE"][row])))
    return tuple(found)
