"""Images and cubes of the field as extensions of a product."""

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
            keywords=(_object(what, f"{name}, DQ"),),
        ),
    ]
