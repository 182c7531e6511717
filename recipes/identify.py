"""Which line is which: the pattern of lines of all lamps in one slice against a catalogue.

Only the dispersion is known beforehand, to some per cent. Every pair of a peak and a catalogue line of its lamp votes
for the wavelength in the middle of the detector; the dispersion and curvature for which most votes agree win. The pairs
that agree are fitted, and more are taken in as the fit sharpens. Lines that are missing on either side cost votes only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.polynomial import Legendre
from numpy.typing import NDArray

from recipes.linecatalog import LineCatalog, Quality
from recipes.muse import DISPERSION, Lamp
from recipes.recipe import RecipeError

Real = NDArray[np.floating[Any]]

_BRIGHTEST_PEAKS = 25  # of a lamp, that vote
_BRIGHTEST_LINES = 45  # of a lamp in the catalogue, that are voted for
_DISPERSION_STEPS = 41
_CURVATURES = (-20.0, -10.0, 0.0, 10.0, 20.0)  # Angstrom, 2000 pixels away from the middle
_FAR = 2000.0  # pixels
_BIN = 4.0  # Angstrom, within which votes agree
_CANDIDATES = 5  # patterns that are looked at closely
_TOLERANCES = (8.0, 4.0, 2.0, 1.0)  # Angstrom, within which lines are taken in, one after the other
_FEWEST_PEAKS = 4  # of a lamp, without which it is off
_LEAST_PART = 0.6  # of the brightest peaks, that are lines of the catalogue
_CLEARER = 1.3  # times as many votes as the lamps of the headers get make others of them
_SHIFT = 500.0  # Angstrom by which slices may differ; MP: the staggered rows of the slicer


@dataclass(frozen=True)
class Peaks:
    """Peaks of one lamp in a slice: places in pix, and heights in electrons."""

    place: Real
    height: Real

    def brightest(self, number: int) -> Real:
        """Return the places of the brightest."""
        return self.place[np.argsort(-self.height, kind="stable")[:number]]


@dataclass(frozen=True, kw_only=True)
class Identification:
    """Lines of one slice that were recognised.

    Parameters
    ----------
    lines : mapping of Lamp to integer array
        For each peak, the index of its line in the catalogue, or -1.
    wavelength : Legendre
        Angstrom against place in pix.
    """

    lines: Mapping[Lamp, NDArray[np.intp]]
    wavelength: Legendre


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """What identification goes by.

    Parameters
    ----------
    catalog : LineCatalog
    rows : int
        Of the detector, pix.
    spread : float
        Fraction by which the dispersion may differ from the nominal one.
    tolerance : float
        Angstrom from the fit, within which a peak is a line.
    order : int
        Of the fit.
    """

    catalog: LineCatalog
    rows: int
    spread: float
    tolerance: float
    order: int

    def identify_first(self, peaks: Mapping[Lamp, Peaks], names: Mapping[Lamp, Sequence[str]]) -> Identification:
        """Identify the lines of a slice from scratch.

        Parameters
        ----------
        peaks : mapping of Lamp to Peaks
        names : mapping of Lamp to sequence of str
            Frames of each lamp, for errors.

        Raises
        ------
        RecipeError
            If a lamp shows no lines, or those of another lamp, or no pattern is found.
        """
        for lamp, shown_by in peaks.items():
            if len(shown_by.place) < _FEWEST_PEAKS:
                raise RecipeError(
                    f"The frames of {lamp} ({', '.join(names[lamp])}) show {len(shown_by.place)} lines in the middle of"
                    f" the detector, and at least {_FEWEST_PEAKS} are needed; was the lamp on?",
                    lines=len(shown_by.place),
                )
        lamps = tuple(peaks)
        votes = {(lamp, shown): self._votes(peaks[lamp], shown) for lamp in lamps for shown in lamps}
        readings = {
            shown: np.sum([votes[pair] for pair in zip(lamps, shown, strict=True)], axis=0)
            for shown in product(lamps, repeat=len(lamps))
        }
        declared, best = readings[lamps], max(readings, key=lambda shown: float(readings[shown].max()))
        most, otherwise = float(readings[best].max()), float(declared.max())
        if best != lamps and most > _CLEARER * otherwise:
            wrong = [(lamp, shown) for lamp, shown in zip(lamps, best, strict=True) if lamp != shown]
            told = " and ".join(
                f"those of {lamp} ({', '.join(names[lamp])}) show the lines of {shown}" for lamp, shown in wrong
            )
            raise RecipeError(
                f"The frames are not of the lamps that their headers say: {told}. Read so, {most:.0f} pairs of"
                f" lines agree, and {otherwise:.0f} otherwise; correct the headers or take the frames anew.",
                agreeing=most,
                declared=otherwise,
            )
        starts = [self._start(*np.unravel_index(place, declared.shape)) for place in _highest(declared, _CANDIDATES)]
        return max((self._refined(peaks, start) for start in starts), key=_matched)

    def identify_next(self, peaks: Mapping[Lamp, Peaks], like: Identification) -> Identification:
        """Identify the lines of a slice whose wavelengths are those of another one but for a shift."""
        edges = np.arange(-_SHIFT, _SHIFT + 1)
        votes = np.zeros(len(edges) - 1)
        for lamp, found in peaks.items():
            away = self._brightest_lines(lamp)[:, None] - like.wavelength(found.brightest(_BRIGHTEST_PEAKS))
            votes += np.histogram(away, edges)[0]
        place = int(np.argmax(np.convolve(votes, np.ones(5), "same")))
        return self._refined(peaks, like.wavelength + (edges[place] + 0.5))

    def part(self, peaks: Mapping[Lamp, Peaks], found: Identification) -> float:
        """Return which part of the brightest peaks was identified; below ``LEAST_PART`` the pattern is wrong."""
        known = total = 0
        for lamp, shown in peaks.items():
            chosen = np.argsort(-shown.height, kind="stable")[:_BRIGHTEST_PEAKS]
            known += int(np.count_nonzero(found.lines[lamp][chosen] >= 0))
            total += len(chosen)
        return known / max(total, 1)

    def _brightest_lines(self, lamp: Lamp) -> Real:
        usable = (self.catalog.lamp == lamp) & (self.catalog.quality >= Quality.PATTERN)
        order = np.argsort(-self.catalog.flux[usable], kind="stable")
        brightest: Real = self.catalog.wavelength[usable][order[:_BRIGHTEST_LINES]]
        return brightest

    def _grid(self) -> tuple[Real, Real, Real]:
        """Return curvatures, dispersions, and the lower ends of the bins of the wavelength in the middle."""
        dispersions = DISPERSION * np.linspace(1 - self.spread, 1 + self.spread, _DISPERSION_STEPS)
        middles = np.arange(self.catalog.wavelength.min(), self.catalog.wavelength.max(), _BIN)
        return np.array(_CURVATURES), dispersions, middles

    def _votes(self, peaks: Peaks, lamp: Lamp) -> Real:
        """Return how many pairs of peaks with lines of a lamp agree; shape (curvatures, dispersions, middles)."""
        curvatures, dispersions, middles = self._grid()
        lines, dy = self._brightest_lines(lamp), peaks.brightest(_BRIGHTEST_PEAKS) - self.rows / 2
        relative = dispersions[None, :, None] * dy + curvatures[:, None, None] * (dy / _FAR) ** 2
        bins = np.floor((lines - relative[..., None] - middles[0]) / _BIN).astype(np.intp)
        settings = np.arange(relative.shape[0] * relative.shape[1]).reshape(*relative.shape[:2], 1, 1)
        inside = (bins >= 0) & (bins < len(middles))
        counts = np.bincount((settings * len(middles) + bins)[inside], minlength=settings.size * len(middles))
        votes = counts.reshape(len(curvatures), len(dispersions), len(middles)).astype(float)
        votes[..., 1:] += counts.reshape(votes.shape)[..., :-1]  # a pattern may lie across two bins
        return votes

    def _start(self, curvature: np.intp, dispersion: np.intp, middle: np.intp) -> Legendre:
        curvatures, dispersions, middles = self._grid()
        dy = np.linspace(-self.rows / 2, self.rows / 2, 9)
        wavelength = middles[middle] + dispersions[dispersion] * dy + curvatures[curvature] * (dy / _FAR) ** 2
        return Legendre.fit(dy + self.rows / 2, wavelength, 2, domain=[0, self.rows])

    def _refined(self, peaks: Mapping[Lamp, Peaks], start: Legendre) -> Identification:
        """Take in more and more lines, from a rough dispersion on."""
        current = start
        lines = self._match(peaks, current, _TOLERANCES[0])
        for number, tolerance in enumerate((*_TOLERANCES, self.tolerance, self.tolerance)):
            lines = self._match(peaks, current, tolerance)
            place = np.concatenate([shown.place[lines[lamp] >= 0] for lamp, shown in peaks.items()])
            index = np.concatenate([lines[lamp][lines[lamp] >= 0] for lamp in peaks])
            degree = min((2, 3, 4, 5)[number] if number < len(_TOLERANCES) else self.order, self.order, len(place) // 3)
            if degree < 1:
                break
            current = Legendre.fit(place, self.catalog.wavelength[index], degree, domain=[0, self.rows])
        return Identification(lines=self._match(peaks, current, self.tolerance), wavelength=current)

    def _match(
        self, peaks: Mapping[Lamp, Peaks], wavelength: Legendre, tolerance: float
    ) -> dict[Lamp, NDArray[np.intp]]:
        """Return the line that each peak and that line are the nearest to each other, if within the tolerance."""
        found = {}
        for lamp, shown in peaks.items():
            usable = np.flatnonzero((self.catalog.lamp == lamp) & (self.catalog.quality >= Quality.PATTERN))
            away = np.abs(wavelength(shown.place)[:, None] - self.catalog.wavelength[usable])
            nearest, back = away.argmin(axis=1), away.argmin(axis=0)
            rows = np.arange(len(shown.place))
            good = (back[nearest] == rows) & (away[rows, nearest] <= tolerance)
            found[lamp] = np.where(good, usable[nearest], -1)
        return found


def _highest(votes: Real, number: int) -> list[int]:
    """Return the flat places of the settings with most votes."""
    return [int(place) for place in np.argsort(-votes, axis=None, kind="stable")[:number]]


def _matched(found: Identification) -> int:
    return sum(int(np.count_nonzero(lines >= 0)) for lines in found.lines.values())
