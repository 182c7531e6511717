"""A line catalogue: which lamp shows a line, and what each mode sees of it."""

import numpy as np
import pytest
from arc_frames import catalog

from recipes.linecatalog import LineCatalog, read_line_catalog
from recipes.muse import Lamp
from recipes.recipe import Column, RecipeError, Table, TableSource


def lines(*wavelengths: float) -> LineCatalog:
    count = len(wavelengths)
    return LineCatalog(
        wavelength=np.array(wavelengths), flux=np.ones(count), lamp=np.full(count, "Ne"), quality=np.full(count, 3)
    )


def test_ions_name_their_lamps_and_lines_come_in_order() -> None:
    found = read_line_catalog(
        catalog([6000, 5000, 8000, 7000, 9000], [1] * 5, ["XeII", "NeI", "CdI", "Hg_or_Cd", "ArI"], [3, 2, 5, 1, 3])
    )
    assert found.wavelength.tolist() == [5000, 6000, 7000, 8000, 9000]
    assert found.lamp.tolist() == [Lamp.NEON, Lamp.XENON, Lamp.MERCURY_CADMIUM, Lamp.MERCURY_CADMIUM, ""]
    assert found.quality.tolist() == [2, 3, 1, 5, 3]


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("WFM-NOAO-N", [False, False, True, True, True, False]),
        ("WFM-NOAO-E", [False, True, True, True, True, False]),
        ("WFM-AO-N", [False, True, True, False, True, False]),
        ("WFM-AO-E", [False, True, True, False, True, False]),
        ("NFM-AO-N", [False, False, True, True, True, False]),
    ],
)
def test_filters_leave_lines_out(mode: str, seen: list[bool]) -> None:
    assert lines(4500, 4720, 5000, 5890, 6000.5 if mode != "WFM-AO-E" else 6010, 9400).covered(mode).tolist() == seen


def test_a_catalogue_without_a_column_is_refused() -> None:
    whole = catalog()
    lacking = Table(columns=tuple(column for column in whole.table.columns if column.name != "quality"))
    assert all(isinstance(column, Column) for column in lacking.columns)
    with pytest.raises(RecipeError, match="no column quality"):
        read_line_catalog(TableSource(lacking, whole.keywords))
