"""Wavelength against position, and the table that holds it."""

import numpy as np
import pytest

from recipes.dispersion import Dispersion, dispersion_table, read_dispersions
from recipes.recipe import Column, RecipeError, Table

COEFFICIENTS = np.array([[4700.0, 1.25, 1e-6], [0.02, 3e-6, 1e-9]])


def test_wavelengths_are_those_of_the_polynomial() -> None:
    found = Dispersion(COEFFICIENTS).wavelength(np.array([10.0, 20.0]), 100.0)
    assert found == pytest.approx([4700 + 125 + 0.01 + x * (0.02 + 3e-4 + 1e-5) for x in (10, 20)])


def test_whole_rows_give_the_same() -> None:
    dispersion, x, y = Dispersion(COEFFICIENTS), np.arange(5.0), np.arange(7.0)
    assert dispersion.on_rows(x, y) == pytest.approx(dispersion.wavelength(x[None, :], y[:, None]), abs=1e-9)


def test_a_table_gives_back_what_it_was_made_of() -> None:
    made = [Dispersion(COEFFICIENTS, 1e-4), Dispersion(2 * COEFFICIENTS, 2e-4)]
    table = dispersion_table(made)
    assert [column.name for column in table.columns] == [
        "SliceNo", "wlc00", "wlc01", "wlc02", "wlc10", "wlc11", "wlc12", "MSE",
    ]  # fmt: skip
    for one, other in zip(read_dispersions(table), made, strict=True):
        assert np.array_equal(one.coefficients, other.coefficients)
        assert one.mean_square == other.mean_square


def test_a_slice_without_wavelengths_is_refused() -> None:
    table = dispersion_table([Dispersion(COEFFICIENTS), Dispersion(0 * COEFFICIENTS)])
    with pytest.raises(RecipeError, match="no wavelengths for slice 2"):
        read_dispersions(table)
    emptied = tuple(Column(name=c.name, values=np.where(c.values == 0, np.nan, c.values)) for c in table.columns)
    with pytest.raises(RecipeError, match="slice 2"):
        read_dispersions(Table(columns=emptied))
