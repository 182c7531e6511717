"""Arc lines are recognised by their pattern, wherever they lie, with lines missing and others that are none."""

import numpy as np
import pytest
from arc_frames import catalog
from numpy.polynomial import Polynomial

from recipes.identify import Identification, Identifier, Peaks
from recipes.linecatalog import read_line_catalog
from recipes.muse import ARC_LAMPS, Lamp
from recipes.simulator.linecatalog import qualities

ROWS = 4112
CATALOG = read_line_catalog(catalog())
IDENTIFIER = Identifier(catalog=CATALOG, rows=ROWS, spread=0.05, tolerance=0.26, order=6)
NAMES = {lamp: (f"{lamp} 1",) for lamp in ARC_LAMPS}


def draw(seed: int, shift: float = 0.0) -> tuple[dict[Lamp, Peaks], Polynomial]:
    """Peaks of a slice, a quarter of the lines missing and a fifth of the peaks no lines, and its wavelengths."""
    rng = np.random.default_rng(seed)
    v = Polynomial([-1, 2 / ROWS])  # -1 at the bottom, 1 at the top
    wavelength = rng.uniform(6300, 7700) + shift + 1.25 * ROWS / 2 * rng.uniform(0.955, 1.045) * v
    wavelength = wavelength + rng.uniform(-20, 20) * v**2 + rng.uniform(-5, 5) * v**3
    rows, peaks = np.arange(0, ROWS, 0.01), {}
    along = wavelength(rows)
    for lamp in ARC_LAMPS:
        mine = [line for line, quality in qualities() if line.lamp is lamp and quality >= 1]
        seen = [line for line in mine if along[0] < line.wavelength < along[-1] and rng.uniform() > 0.25]
        place = np.interp([line.wavelength for line in seen], along, rows) + rng.normal(0, 0.02, len(seen))
        height = np.array([line.flux for line in seen]) * 2 ** rng.uniform(-1, 1, len(seen))
        spurious = 1 + len(seen) // 4
        place = np.concatenate([place, rng.uniform(0, ROWS, spurious)])
        height = np.concatenate([height, 10 ** rng.uniform(2.5, 4.5, spurious)])
        order = np.argsort(place)
        peaks[lamp] = Peaks(place[order], height[order])
    return peaks, wavelength


def check(peaks: dict[Lamp, Peaks], found: Identification, wavelength: Polynomial) -> None:
    right = wrong = 0
    for lamp, shown in peaks.items():
        known = found.lines[lamp] >= 0
        away = np.abs(CATALOG.wavelength[found.lines[lamp][known]] - wavelength(shown.place[known]))
        right, wrong = right + int((away < 0.2).sum()), wrong + int((away >= 0.2).sum())
    assert right > 50
    assert wrong <= 2  # a peak that is no line may lie at the place of a missing one
    rows = np.linspace(200, ROWS - 200, 100)
    lit = (wavelength(rows) > 4800) & (wavelength(rows) < 9200)  # where there are lines
    assert np.abs(found.wavelength(rows) - wavelength(rows))[lit].max() < 0.15
    assert IDENTIFIER.part(peaks, found) > 0.6


@pytest.mark.parametrize("seed", range(12))
def test_a_slice_is_recognised_from_nothing(seed: int) -> None:
    peaks, wavelength = draw(seed)
    check(peaks, IDENTIFIER.identify_first(peaks, NAMES), wavelength)


@pytest.mark.parametrize("shift", [-310.0, 40.0, 310.0])
def test_other_slices_are_recognised_by_the_first(shift: float) -> None:
    peaks, _ = draw(3)
    first = IDENTIFIER.identify_first(peaks, NAMES)
    shifted, wavelength = draw(3, shift)
    check(shifted, IDENTIFIER.identify_next(shifted, first), wavelength)
