"""What ESO's recipes have to give: each product is looked at before it is taken in, and its QC1 parameters are read.

Source of the layouts: products of the MUSE pipeline 2.8.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from recipes.fits import QC, FileSource, open_source
from recipes.headers import Header
from recipes.muse import SLICES
from recipes.recipe import Array, Measurement, RecipeError

_BLOCK_VALUES = 1 << 22  # of an image that are looked at at a time


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a product holds.

    Parameters
    ----------
    planes : tuple of str
        Image extensions.
    columns : tuple of str
        Columns of its table; others may follow.
    rows : int
        Of its table; 0 for any number.
    """

    planes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: int = 0


_IMAGE = Layout(planes=("DATA", "DQ", "STAT"))
_CUBE = Layout(planes=("DATA", "STAT"))
_PIXELS = Layout(planes=("xpos", "ypos", "lambda", "data", "dq", "stat", "origin"))
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "MASTER_BIAS": _IMAGE,
        "MASTER_DARK": _IMAGE,
        "MASTER_FLAT": _IMAGE,
        "TRACE_TABLE": Layout(
            columns=("SliceNo", "Width", "tc0_00", "tc1_00", "tc2_00", "MSE0", "MSE1", "MSE2"), rows=SLICES
        ),
        "TRACE_SAMPLES": Layout(columns=("slice", "y", "mid", "left", "right")),
        "WAVECAL_TABLE": Layout(columns=("SliceNo", "wlc00", "MSE"), rows=SLICES),
        "WAVECAL_RESIDUALS": Layout(columns=("slice", "x", "y", "lambda", "residual")),
        "LSF_PROFILE": Layout(planes=("LSF_PROFILE",)),
        "GEOMETRY_TABLE": Layout(columns=("SubField", "SliceCCD", "SliceSky", "x", "y", "angle", "width")),
        "DATACUBE_SKYFLAT": _CUBE,
        "TWILIGHT_CUBE": Layout(planes=("DATA",)),
        "PIXTABLE_STD": _PIXELS,
        "PIXTABLE_ASTROMETRY": _PIXELS,
        "DATACUBE_STD": _CUBE,
        "DATACUBE_ASTROMETRY": _CUBE,
        "STD_FLUXES": _IMAGE,
        "STD_RESPONSE": Layout(columns=("lambda", "response", "resperr")),
        "STD_TELLURIC": Layout(columns=("lambda", "ftelluric", "ftellerr")),
    }
)


def check_product(path: Path, catg: str) -> None:
    """Look at a product that ESO's recipe wrote.

    Every HDU must be whole, planes and columns complete, and values finite: those of an image where no flag is set;
    of a cube without flags, and of a column, some.

    Raises
    ------
    RecipeError
        Something is missing in it, or not a number where it must be.
    UnreadableFile
        It is shorter than its headers say.
    """
    source = open_source(path)
    layout = LAYOUTS.get(catg, Layout())
    missing = [name for name in layout.planes if name not in source.names]
    if missing:
        raise RecipeError(f"ESO's {path.name} has no extension {' and '.join(missing)}; look at its log.")
    if layout.planes:
        _check_planes(source, path, layout)
    if layout.columns:
        _check_columns(source, path, layout)


def measurements_of(header: Header) -> tuple[Measurement, ...]:
    """Return the QC1 parameters of a primary header with their comments."""
    found = header.matching(QC)
    return tuple(Measurement(name.removeprefix("ESO QC "), value, found.comment(name)) for name, value in found.items())


def _check_planes(source: FileSource, path: Path, layout: Layout) -> None:
    planes = {name: source.plane(name).values for name in layout.planes}
    shapes = {planes[name].shape for name in layout.planes}
    if len(shapes) > 1:
        told = ", ".join(f"{name} {plane.shape}" for name, plane in planes.items())
        raise RecipeError(f"The planes of ESO's {path.name} differ in shape: {told}; look at its log.")
    for name in (name for name in layout.planes if name != "DQ"):
        good, wrong = _count(planes[name], planes.get("DQ"), least=0.0 if name == "STAT" else -np.inf)
        if wrong or not good:
            raise RecipeError(
                f"{name} of ESO's {path.name} has {good} usable values, and {wrong} that are not flagged and no numbers"
                " or below 0; look at its log.",
                usable=good,
                wrong=wrong,
            )


def _count(values: Array, flags: Array | None, *, least: float) -> tuple[int, int]:
    """Return how many values are finite, and how many should be that and are not."""
    step = max(1, _BLOCK_VALUES * values.shape[0] // max(int(np.prod(values.shape)), 1))
    good = wrong = 0
    for row in range(0, values.shape[0], step):
        block = values[row : row + step]
        fine = np.isfinite(block) & ~(block < least)
        good += int(fine.sum())
        if flags is not None:
            wrong += int((~fine & (flags[row : row + step] == 0)).sum())
    return good, wrong


def _check_columns(source: FileSource, path: Path, layout: Layout) -> None:
    table = next((found.table for found in source.tables), None)
    columns = {} if table is None else {column.name: column.values for column in table.columns}
    if missing := [name for name in layout.columns if name not in columns]:
        raise RecipeError(f"The table of ESO's {path.name} has no column {' and '.join(missing)}; look at its log.")
    rows = len(columns[layout.columns[0]])
    if rows == 0 or rows != (layout.rows or rows):
        raise RecipeError(
            f"The table of ESO's {path.name} has {rows} rows; {layout.rows or 'some'} are needed; look at its log.",
            rows=rows,
        )
    empty = [name for name in layout.columns if not np.isfinite(columns[name].astype(float)).any()]
    if empty:
        raise RecipeError(
            f"No value of column {' and '.join(empty)} of ESO's {path.name} is a number; look at its log."
        )
