"""Fields of stars with known positions: the one that was observed, and which star of it each detection is."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from recipes.catalogue import distance_warning, nearest_entry
from recipes.recipe import Pointing, RecipeError, Source
from recipes.stats import Real

_DETECTIONS, _REFERENCES = 120, 400  # the brightest, that are matched
_BASES = 12  # brightest detections, whose pairs are compared with pairs of the list
_PAIRS = 40  # longest pairs of these
_STRETCH = 0.03  # by which the scale may differ from the nominal one
_TURN = math.radians(3)  # by which the angle may differ before any angle is tried
_MATCHED = 0.8  # of the detections, that must be found in the list; MP
_LEAST_STARS = 4  # that a solution is fitted to
_ROUNDS = 4  # of matching anew with a fit to the matches

Index = NDArray[np.intp]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, kw_only=True)
class ReferenceField:
    """Stars of known position; arrays of shape (stars,), the brightest first.

    Parameters
    ----------
    name : str
    ra, dec : arrays
        Degrees.
    distance : float
        From the pointing to where the table says the field is, arcsec.
    """

    name: str
    ra: Real
    dec: Real
    distance: float

    def warnings(self) -> tuple[str, ...]:
        """Return a sentence about a field that is rather far from the pointing."""
        return distance_warning(f"field {self.name}", self.distance)


def choose_field(catalogue: Source, pointing: Pointing) -> ReferenceField:
    """Return the field of an ASTROMETRY_REFERENCE that is nearest to where the telescope pointed.

    Raises
    ------
    RecipeError
        If the nearest is more than 60 arcsec away.
    """
    entry = nearest_entry(catalogue, pointing, "field of ASTROMETRY_REFERENCE")
    table = entry.source.table
    order = np.argsort(table["mag"], kind="stable")
    return ReferenceField(
        name=entry.name,
        ra=table["RA"][order].astype(np.float64),
        dec=table["DEC"][order].astype(np.float64),
        distance=entry.distance,
    )


def project(ra: Real, dec: Real, ra0: float, dec0: float) -> tuple[Real, Real]:
    """Return positions on the plane that touches the sky at (ra0, dec0), to the east and to the north; all in degrees.

    Positions on the far side of the sky become NaN.
    """
    turn, north, north0 = np.radians(ra - ra0), np.radians(dec), math.radians(dec0)
    down = math.sin(north0) * np.sin(north) + math.cos(north0) * np.cos(north) * np.cos(turn)
    scale = np.degrees(1 / np.where(down > 0, down, np.nan))
    xi = np.cos(north) * np.sin(turn) * scale
    eta = (math.cos(north0) * np.sin(north) - math.sin(north0) * np.cos(north) * np.cos(turn)) * scale
    return xi, eta


def unproject(xi: float, eta: float, ra0: float, dec0: float) -> tuple[float, float]:
    """Return RA and DEC of a position on the plane that touches the sky at (ra0, dec0); all in degrees."""
    east, north, north0 = math.radians(xi), math.radians(eta), math.radians(dec0)
    below = math.cos(north0) - north * math.sin(north0)
    ra = ra0 + math.degrees(math.atan2(east, below))
    return ra % 360, math.degrees(math.atan2(math.sin(north0) + north * math.cos(north0), math.hypot(east, below)))


def identify(detected: tuple[Real, Real], expected: tuple[Real, Real], radius: float) -> Index:
    """Find the star that each detection is, by the pattern that they make.

    Two detections and two stars that are as far apart give a shift, a turn and a scale. The one under which most
    detections have a star next to them is refined by a fit to these.

    Parameters
    ----------
    detected, expected : (x, y), arrays of shape (detections,) and (stars,)
        Pix, the brightest first; ``expected`` is where stars would be with the nominal scale, the angle of the
        derotator and a perfect pointing.
    radius : float
        Pix, within which a detection has its star.

    Returns
    -------
    integer array, shape (detections,)
        Number of its star; -1 if it has none.

    Raises
    ------
    RecipeError
        If there are too few stars, or less than 80 % of the detections have one.
    """
    x, y = detected
    places, stars = x + 1j * y, expected[0] + 1j * expected[1]
    some = places[:_DETECTIONS]
    if min(len(places), len(stars)) < _LEAST_STARS:
        raise RecipeError(
            f"{len(places)} stars were detected and {len(stars)} are known; {_LEAST_STARS} are needed of both. A lower"
            " detsigma finds fainter ones.",
            detected=len(places),
        )
    tree = KDTree(_plane(stars))
    needed = math.ceil(_MATCHED * len(some))
    best, count = (0j, 1 + 0j), 0
    for shift, turn in _hypotheses(places, stars[:_REFERENCES], radius):
        numbers = np.count_nonzero(
            np.isfinite(tree.query(_plane(shift[:, None] + turn[:, None] * some), distance_upper_bound=radius)[0]),
            axis=1,
        )
        if len(numbers) and numbers.max() > count:
            which = int(np.argmax(numbers))
            best, count = (complex(shift[which]), complex(turn[which])), int(numbers[which])
        if count >= needed:
            break
    matches = _refine(best, places, stars, tree, radius)
    found = int(np.count_nonzero(matches[: len(some)] >= 0))
    if found < max(needed, _LEAST_STARS):
        raise RecipeError(
            f"{found} of {len(some)} detections were found in the list of {len(stars)} stars within {radius:g} pix;"
            f" {_MATCHED:.0%} are needed. Is it the list of this field? A larger radius or detsigma may help.",
            found=found,
            detected=len(some),
        )
    return matches


def _hypotheses(places: Complex, stars: Complex, radius: float) -> Iterator[tuple[Complex, Complex]]:
    """Yield shifts and turns, star = shift + turn * place, by pairs; those near the nominal angle come first."""
    first, second = np.triu_indices(min(len(places), _BASES), 1)
    base = places[second] - places[first]
    order = np.argsort(-np.abs(base))[:_PAIRS]
    one, other = np.nonzero(~np.eye(len(stars), dtype=bool))
    apart = stars[other] - stars[one]
    lengths = np.abs(apart)
    by_length = np.argsort(lengths)
    for limit in (_TURN, math.inf):
        for pair in order:
            length = abs(base[pair])
            slack = _STRETCH * length + radius
            low, high = np.searchsorted(lengths[by_length], (length - slack, length + slack))
            some = by_length[low:high]
            turn = apart[some] / base[pair]
            near = np.abs(np.angle(turn)) <= limit
            yield stars[one[some[near]]] - turn[near] * places[first[pair]], turn[near]


def _refine(start: tuple[complex, complex], places: Complex, stars: Complex, tree: Any, radius: float) -> Index:  # noqa: ANN401 - scipy's tree has no type
    """Match, fit shift, turn and scale to the matches, and match again."""
    shift, turn = start
    matches = np.full(len(places), -1)
    for _ in range(_ROUNDS):
        distance, star = tree.query(_plane(shift + turn * places), distance_upper_bound=radius)
        matches = np.full(len(places), -1)
        nearest = np.argsort(distance)
        nearest = nearest[np.isfinite(distance[nearest])]
        _, unique = np.unique(star[nearest], return_index=True)
        chosen = nearest[unique]
        matches[chosen] = star[chosen]
        if len(chosen) < _LEAST_STARS:
            break
        here, there = places[chosen], stars[star[chosen]]
        away = here - here.mean()
        turn = complex((np.conj(away) * (there - there.mean())).sum() / (np.abs(away) ** 2).sum())
        shift = complex(there.mean() - turn * here.mean())
    return matches


def _plane(values: Complex) -> Real:
    return np.stack([values.real, values.imag], axis=-1)
