"""Images and cubes of the field as extensions of a product, with their world coordinates."""

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Float32, Keyword, Plane, PlaneKind

_LONGEST_VALUE = 68  # letters of a string in a FITS card


def field_plane(
    name: str,
    values: NDArray[np.float32],
    *,
    what: str,
    unit: str,
    kind: PlaneKind = PlaneKind.DATA,
    data: str = "",
    errors: str = "",
    flags: str = "",
    keywords: tuple[Keyword, ...] = (),
) -> Plane:
    """Return an extension in single precision; OBJECT says what it shows, and which extension it is."""
    return Plane(
        name=name,
        values=values.astype(np.float32, copy=False),
        unit=unit,
        kind=kind,
        data=data,
        errors=errors,
        flags=flags,
        keywords=(_object(what, name), *keywords),
    )


def _object(what: str, name: str) -> Keyword:
    return Keyword("OBJECT", f"{what} ({name})"[:_LONGEST_VALUE])


def with_flags(name: str, values: Float32, bad: NDArray[np.bool_], what: str, unit: str = "1") -> list[Plane]:
    """Return an image, and which of its pixels are bad (1) in a second one."""
    flags = f"{name}_DQ"
    return [
        field_plane(name, values, what=what, unit=unit, flags=flags),
        Plane(
            name=flags,
            values=bad.astype(np.uint32),
            kind=PlaneKind.FLAGS,
            data=name,
            keywords=(_object(what, flags),),
        ),
    ]


def spatial_cards(first: tuple[float, float]) -> tuple[Keyword, ...]:
    """Return the cards of the first two axes: field pixels."""
    cards: list[Keyword] = []
    for axis, start in zip((1, 2), first, strict=True):
        cards += [Keyword(f"CRPIX{axis}", 1.0), Keyword(f"CRVAL{axis}", start)]
        cards += [Keyword(f"CTYPE{axis}", "PIXEL"), Keyword(f"CUNIT{axis}", "pixel")]
    matrix = {"CD1_1": 1.0, "CD2_2": 1.0, "CD1_2": 0.0, "CD2_1": 0.0}
    return (*cards, *(Keyword(name, value) for name, value in matrix.items()))


def spectral_cards(first: float, step: float) -> tuple[Keyword, ...]:
    """Return the cards of the third axis: wavelength in air."""
    numbers = {"CD3_3": step, "CRPIX3": 1.0, "CRVAL3": first}
    numbers |= dict.fromkeys(("CD1_3", "CD2_3", "CD3_1", "CD3_2"), 0.0)
    return (
        Keyword("CTYPE3", "AWAV"),
        Keyword("CUNIT3", "Angstrom"),
        *(Keyword(name, value) for name, value in numbers.items()),
    )
