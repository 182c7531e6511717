"""The instrument: detector geometry, lamps and flags. Every number stands here once, with its source.

Sources: ESO MUSE pipeline 2.8.7 (MP), MUSE dictionaries ESO-DFS-DIC (DIC), headers of real exposures (HDR).
Arrays are numpy ordered, (row, column) = (y, x), 0-based; ESO's documents and tables count from 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from types import MappingProxyType

CHANNELS = tuple(range(1, 25))  # one detector per integral-field unit, CHAN01 to CHAN24; MP
SLICES = 48  # slices on each detector; MP
SATURATION = 65500  # adu; a raw value above it, or 0, is saturated; MP
INSTRUMENT = "MUSE"  # INSTRUME of every frame; HDR
FOCAL_SCALE = 1.705  # arcsec a mm at the mask of the calibration unit, where TEL FOCU SCALE is absent; MP
PIXEL = 0.2  # arcsec; unit of lengths in a GEOMETRY_TABLE, wide-field mode; MP
DISPERSION = 1.25  # Angstrom a pixel; MP
RED_END = 9350.0  # Angstrom, of the useful range in every mode; MP
EXTENDED_BLUE_END = 4600.0  # Angstrom; the useful range of an extended mode, or one that is not known, begins here; MP

# Where the useful range of the other instrument modes begins, Angstrom; MP
BLUE_END: Mapping[str, float] = MappingProxyType(
    {"WFM-NOAO-N": 4750.0, "WFM-NONAO-N": 4750.0, "WFM-AO-N": 4700.0, "NFM-AO-N": 4750.0}
)
# The range that the sodium notch filter of an adaptive-optics mode blocks, Angstrom; MP
NOTCH: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"WFM-AO-N": (5805.0, 5966.0), "WFM-AO-E": (5755.0, 6008.0), "NFM-AO-N": (5780.0, 6050.0)}
)


def extension_name(channel: int) -> str:
    """Return the EXTNAME of a channel in a raw file: CHAN01 to CHAN24."""
    return f"CHAN{channel:02d}"


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels, 0-based, ends exclusive."""

    rows: slice
    columns: slice


class Quadrant(IntEnum):
    """Read-out port of a quadrant, as counted in ``ESO DET OUTn``. Source: MP."""

    LOWER_LEFT = 1
    LOWER_RIGHT = 2
    UPPER_RIGHT = 3
    UPPER_LEFT = 4

    @property
    def is_right(self) -> bool:
        """True for the two quadrants at high x."""
        return self in (Quadrant.LOWER_RIGHT, Quadrant.UPPER_RIGHT)

    @property
    def is_upper(self) -> bool:
        """True for the two quadrants at high y."""
        return self in (Quadrant.UPPER_RIGHT, Quadrant.UPPER_LEFT)


@dataclass(frozen=True)
class Detector:
    """Layout of one raw detector frame: four quadrants, each with a prescan outside and an overscan inside.

    Along x a raw row holds: prescan, left data, left overscan, right overscan, right data, prescan;
    the same along y. A small detector serves tests; ``DETECTOR`` is the real one.

    Parameters
    ----------
    nx, ny : int
        Illuminated pixels of one quadrant along x and y.
    margin : int
        Width of each prescan and each overscan.
    """

    nx: int = 2048  # HDR, OUTn NX
    ny: int = 2056  # HDR, OUTn NY
    margin: int = 32  # HDR, OUTn PRSCX and OVSCX

    @property
    def raw_shape(self) -> tuple[int, int]:
        """Rows and columns of a raw frame."""
        return 2 * (self.ny + 2 * self.margin), 2 * (self.nx + 2 * self.margin)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a trimmed frame."""
        return 2 * self.ny, 2 * self.nx

    def trimmed(self, quadrant: Quadrant) -> Window:
        """Return the window of a quadrant in the trimmed frame."""
        y, x = quadrant.is_upper * self.ny, quadrant.is_right * self.nx
        return Window(slice(y, y + self.ny), slice(x, x + self.nx))

    def data(self, quadrant: Quadrant) -> Window:
        """Return the window of a quadrant's illuminated pixels in the raw frame."""
        y = self.margin + quadrant.is_upper * (self.ny + 2 * self.margin)
        x = self.margin + quadrant.is_right * (self.nx + 2 * self.margin)
        return Window(slice(y, y + self.ny), slice(x, x + self.nx))

    def overscan(self, quadrant: Quadrant) -> Window:
        """Return the vertical overscan strip beside a quadrant's data, over the rows of its data, in the raw frame."""
        rows = self.data(quadrant).rows
        middle = self.margin * 2 + self.nx
        start = middle if quadrant.is_right else middle - self.margin
        return Window(rows, slice(start, start + self.margin))


DETECTOR = Detector()


class Flag(IntFlag):
    """Data-quality bits of the Euro3D scheme as MUSE uses them. Source: MP."""

    GOOD = 0
    COSMIC_RAY = 1 << 5
    LOW_SENSITIVITY = 1 << 6  # below 20 % of the mean flat
    HOT = 1 << 8
    DARK = 1 << 9
    SATURATED = 1 << 12
    DEAD = 1 << 13  # a column that stands out in the bias
    BAD = 1 << 14  # any other unusable pixel, for instance a flat at or below zero
    NOTCH = 1 << 27  # blocked by the sodium notch filter
    MISSING = 1 << 30
    OUTSIDE = 1 << 31


class Lamp(StrEnum):
    """Calibration lamps, by the name after ``CU-LAMP-``. Source: DIC, HDR."""

    CONTINUUM_BLUE = "ContB"
    CONTINUUM_RED = "ContR"
    NEON = "Ne"
    XENON = "Xe"
    MERCURY_CADMIUM = "HgCd"
    NEON_HIGH = "NeHigh"  # the high-power neon of shutter 6


# Number i of ``ESO INS LAMPi ST`` and ``ESO INS SHUTi ST``; a lamp lights the frame if both are true. Source: MP, HDR.
LAMP_NUMBERS: Mapping[int, Lamp] = MappingProxyType(
    {
        1: Lamp.CONTINUUM_BLUE,
        2: Lamp.CONTINUUM_RED,
        3: Lamp.NEON,
        4: Lamp.XENON,
        5: Lamp.MERCURY_CADMIUM,
        6: Lamp.NEON_HIGH,
    }
)
ARC_LAMPS = (Lamp.NEON, Lamp.XENON, Lamp.MERCURY_CADMIUM)

# Slices against the field of view. Source: MP.
STACK = 12  # slices above each other in each of four stacks, 1 to 12 at -x
# Sky slice, from the top of a stack, of its slices from left to right on the detector.
_SKY_ORDER = (9, 8, 1, 10, 7, 2, 11, 6, 3, 12, 5, 4)
HOLE_DISTANCE = (2.9450, 0.6135)  # mm between the holes of the calibration unit's mask, along and across the slices; MP


def sky_slice(number: int) -> int:
    """Return which slice of the field, 1 to 48, is slice ``number`` of the detector, 1 to 48 from left to right."""
    stack, place = divmod(number - 1, STACK)
    return STACK * stack + _SKY_ORDER[place]


def pixel_scales(mode: str) -> tuple[float, float]:
    """Return how large a pixel of the field is along x and y in an instrument mode, arcsec. Source: MP."""
    return (0.02519, 0.02542) if mode.startswith("NFM") else (PIXEL, PIXEL)
