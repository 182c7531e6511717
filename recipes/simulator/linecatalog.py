"""LINE_CATALOG: the lines that a wavelength calibration may use, and how far each is to be trusted."""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from recipes.simulator.lines import Line, all_lines

BLENDED = 3.5  # Angstrom; nearer lines of one lamp may show as one peak, and CPL 7.2.3's matching breaks on that
CLOSE = 9.0  # Angstrom; nearer lines of one lamp have to be fitted together
ISOLATED = 14.0  # Angstrom
FAINT_NEIGHBOUR = 0.01  # of a line's own flux does not disturb it
BRIGHT = 10000.0  # electrons in a column
SEEN_IN_ALL_MODES = 4760.0  # Angstrom; the filter of the nominal range cuts what is bluer


class Quality(IntEnum):
    """The quality column. Source: ESO MUSE pipeline 2.8.7."""

    UNUSED = 0
    PATTERN = 1  # only for pattern matching
    MULTIPLET = 2  # fitted together with its neighbours of the same lamp
    GOOD = 3
    REFERENCE = 5  # bright and isolated: gives the width of the line-spread function


def quality(line: Line, lines: Sequence[Line]) -> Quality:
    """Return the quality of a line among all lines."""
    distances = np.array(
        [
            abs(other.wavelength - line.wavelength)
            for other in lines
            if other.lamp is line.lamp and other is not line and other.flux > FAINT_NEIGHBOUR * line.flux
        ]
    )
    nearest = float(distances.min(initial=np.inf))
    if nearest < BLENDED:
        return Quality.UNUSED
    if nearest < CLOSE:
        return Quality.MULTIPLET
    if nearest > ISOLATED and line.flux > BRIGHT and line.wavelength > SEEN_IN_ALL_MODES:
        return Quality.REFERENCE
    return Quality.GOOD


def qualities() -> tuple[tuple[Line, Quality], ...]:
    """Return every line with its quality, in order of wavelength."""
    lines = all_lines()
    return tuple((line, quality(line, lines)) for line in lines)
