"""LINE_CATALOG: arc lines, the lamp that shows each, and how far each is to be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import Lamp
from recipes.recipe import RecipeError, TableSource

VERSION = 3  # of the file format; MP
USED = 9350.0  # Angstrom, the reddest line that is taken; MP
# Angstrom, bluest line that is taken, by mode; MP
BLUEST: Mapping[str, float] = MappingProxyType(
    {"WFM-NOAO-E": 4600.0, "WFM-AO-E": 4600.0, "WFM-NOAO-N": 4750.0, "WFM-AO-N": 4700.0, "NFM-AO-N": 4750.0}
)
# Angstrom, what the filter against the laser's light cuts out, by mode; MP
NOTCH: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"WFM-AO-E": (5755.0, 6008.0), "WFM-AO-N": (5805.0, 5966.0)}
)
# The first two letters of the ion name the lamp; MP
_LAMPS: Mapping[str, Lamp] = MappingProxyType(
    {"Hg": Lamp.MERCURY_CADMIUM, "Cd": Lamp.MERCURY_CADMIUM, "Ne": Lamp.NEON, "Xe": Lamp.XENON}
)


class Quality(IntEnum):
    """The quality column. Source: MP."""

    UNUSED = 0
    PATTERN = 1  # only to find the pattern of lines
    MULTIPLET = 2  # measured together with its neighbours
    GOOD = 3
    REFERENCE = 5  # bright and alone: its width is measured too


@dataclass(frozen=True, kw_only=True)
class LineCatalog:
    """Arc lines in order of wavelength; arrays of one value a line.

    Parameters
    ----------
    wavelength : float array
        In air, Angstrom.
    flux : float array
        Electrons in a column; any unit will do, for only its order counts.
    lamp : array of str
        ``Lamp`` that shows it, '' if none of ours does.
    quality : integer array
        ``Quality``.
    """

    wavelength: NDArray[np.float64]
    flux: NDArray[np.float64]
    lamp: NDArray[np.str_]
    quality: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.wavelength)

    def where(self, chosen: NDArray[Any]) -> "LineCatalog":
        """Return the lines at the given indices, or where a flag is set."""
        return LineCatalog(
            wavelength=self.wavelength[chosen],
            flux=self.flux[chosen],
            lamp=self.lamp[chosen],
            quality=self.quality[chosen],
        )

    def covered(self, mode: str) -> NDArray[np.bool_]:
        """Flag the lines whose place the filters of an instrument mode leave undisturbed."""
        low, high = NOTCH.get(mode, (np.inf, -np.inf))
        inside = (self.wavelength >= BLUEST.get(mode, BLUEST["WFM-NOAO-N"])) & (self.wavelength <= USED)
        result: NDArray[np.bool_] = inside & ~((self.wavelength > low) & (self.wavelength < high))
        return result


def read_line_catalog(source: TableSource) -> LineCatalog:
    """Return the lines of a LINE_CATALOG.

    Raises
    ------
    RecipeError
        If it is of another version, lacks a column, or has no line of ours.
    """
    version = source.keywords.get("VERSION", "none")
    if version != VERSION:
        raise RecipeError(f"The LINE_CATALOG has VERSION {version}, and {VERSION} is needed; take another one.")
    try:
        wavelength, flux, ions, quality = (source.table[name] for name in ("lambda", "flux", "ion", "quality"))
    except KeyError as error:
        raise RecipeError(f"The LINE_CATALOG is not usable: {error.args[0]}.") from error
    lamps = np.array([str(_LAMPS.get(str(ion).strip()[:2], "")) for ion in ions])
    order = np.argsort(wavelength, kind="stable")
    catalog = LineCatalog(
        wavelength=wavelength.astype(np.float64)[order],
        flux=flux.astype(np.float64)[order],
        lamp=lamps[order],
        quality=quality.astype(np.int64)[order],
    )
    if not (catalog.lamp != "").any():
        raise RecipeError("The LINE_CATALOG has no line of neon, xenon, mercury or cadmium; take another one.")
    return catalog
