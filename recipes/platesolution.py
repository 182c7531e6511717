"""World coordinates of the field from stars of known position."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.recipe import Keyword, Measurement, RecipeError
from recipes.starfield import project, unproject
from recipes.stats import Real

_LEAST_STARS = 4
# How well it is known beforehand that the scales of both axes are as their nominal ones to each other, and that axes
# are at right angles. A field filled along one of them alone does not show it; a full one does, twenty times better.
_DISTORTION = 0.001
_FLOOR = 0.02  # pix, error of a place beside that of its fit
_SIGMA_OF_MEDIAN = 1.482602218505602  # of Gaussian noise, over its median absolute deviation
_HUBER = 2.0  # sigma, beyond which a star counts for less in a fit
_REWEIGHTED = 8  # rounds of such a fit
_TANGENTS = 3  # rounds of moving the point where the plane touches the sky to the reference pixel


@dataclass(frozen=True, kw_only=True)
class PlateSolution:
    """Where pixels of a cube are on the sky: TAN projection.

    Parameters
    ----------
    reference : (float, float)
        Reference pixel x and y, counted from 1.
    sky : (float, float)
        Its RA and DEC, degrees.
    matrix : array, shape (2, 2)
        Degrees to the east and to the north a pixel in x and y.
    used : bool array, shape (stars,)
        Which stars it was fitted to at the end.
    residuals : array, shape (2, stars)
        Arcsec along x and y of the stars.
    errors : (float, float)
        Of both scales, as fractions.
    """

    reference: tuple[float, float]
    sky: tuple[float, float]
    matrix: Real
    used: NDArray[np.bool_]
    residuals: Real
    errors: tuple[float, float]

    @property
    def scales(self) -> tuple[float, float]:
        """Arcsec a pixel."""
        (a, b), (c, d) = self._upright
        return 3600 * math.hypot(a, b), 3600 * math.hypot(c, d)

    @property
    def angles(self) -> tuple[float, float]:
        """Angles of the axes, degrees."""
        (a, b), (c, d) = self._upright
        return math.degrees(math.atan2(b, a)), math.degrees(math.atan2(-c, d))

    @property
    def _upright(self) -> Any:  # noqa: ANN401 - two by two floats
        """The matrix, with east to the right."""
        flip = -1.0 if np.linalg.det(self.matrix) < 0 else 1.0
        return (self.matrix * np.array([[flip], [1.0]])).tolist()

    @property
    def median_residuals(self) -> tuple[float, float]:
        """Median absolute residuals along x and y, arcsec."""
        x, y = np.median(np.abs(self.residuals[:, self.used]), axis=1)
        return float(x), float(y)

    def keywords(self, suffix: str = "") -> tuple[Keyword, ...]:
        """Return the cards of the projection; ``suffix`` is the letter of an alternative description."""
        (cd11, cd12), (cd21, cd22) = self.matrix.tolist()
        x, y = self.median_residuals
        cards: tuple[tuple[str, float | str | int, str], ...] = (
            ("WCSAXES", 2, "Number of coordinate axes"),
            ("CRPIX1", self.reference[0], "Pixel coordinate of reference point"),
            ("CRPIX2", self.reference[1], "Pixel coordinate of reference point"),
            ("CD1_1", cd11, "Coordinate transformation matrix element"),
            ("CD1_2", cd12, "Coordinate transformation matrix element"),
            ("CD2_1", cd21, "Coordinate transformation matrix element"),
            ("CD2_2", cd22, "Coordinate transformation matrix element"),
            ("CUNIT1", "deg", "Units of coordinate increment and value"),
            ("CUNIT2", "deg", "Units of coordinate increment and value"),
            ("CTYPE1", "RA---TAN", "Right ascension, gnomonic projection"),
            ("CTYPE2", "DEC--TAN", "Declination, gnomonic projection"),
            ("CRVAL1", self.sky[0], "[deg] Coordinate value at reference point"),
            ("CRVAL2", self.sky[1], "[deg] Coordinate value at reference point"),
            ("CSYER1", x / 3600, "[deg] Systematic error in coordinate"),
            ("CSYER2", y / 3600, "[deg] Systematic error in coordinate"),
        )
        return tuple(Keyword(f"{name}{suffix}", value, comment) for name, value, comment in cards)

    def measurements(self, stars: int) -> tuple[Measurement, ...]:
        """Return the QC1 parameters; ``stars`` were identified."""
        (scale_x, scale_y), (angle_x, angle_y), (x, y) = self.scales, self.angles, self.median_residuals
        return (
            Measurement("ASTRO NSTARS", stars, "Number of stars identified for the astrometric solution"),
            Measurement("ASTRO SCALE X", scale_x, "[arcsec] Computed scale in x-direction"),
            Measurement("ASTRO SCALE Y", scale_y, "[arcsec] Computed scale in y-direction"),
            Measurement("ASTRO ANGLE X", angle_x, "[deg] Computed angle in x-direction"),
            Measurement("ASTRO ANGLE Y", angle_y, "[deg] Computed angle in y-direction"),
            Measurement("ASTRO MEDRES X", x, "[arcsec] Median residuals of astrometric fit in x-direction"),
            Measurement("ASTRO MEDRES Y", y, "[arcsec] Median residuals of astrometric fit in y-direction"),
        )


def fit_plate(
    pixels: tuple[Real, Real],
    errors: tuple[Real, Real],
    sky: tuple[Real, Real],
    *,
    reference: tuple[float, float],
    near: tuple[float, float],
    scales: tuple[float, float],
    rounds: int,
    limit: float,
) -> PlateSolution:
    """Fit world coordinates to stars: shift, and a matrix of four numbers.

    That the scales of both axes are as their nominal ones to each other, and that the axes are at right angles, is put
    in as known to 0.1 %, for fields that do not show it.

    Parameters
    ----------
    pixels : (x, y), arrays of shape (stars,)
        Counted from 1.
    errors : (x, y), arrays
        Of these, pix.
    sky : (ra, dec), arrays
        Degrees.
    reference : (float, float)
        Reference pixel.
    near : (float, float)
        RA and DEC about there, degrees.
    scales : (float, float)
        Nominal size of a pixel in x and y, arcsec.
    rounds : int
        How often stars are left out and the fit repeated.
    limit : float
        Stars with a residual in x or y beyond so many times the scatter of all, by their errors, are left out.

    Raises
    ------
    RecipeError
        If fewer than four stars are left.
    """
    x, y = pixels[0] - reference[0], pixels[1] - reference[1]
    weights = 1 / np.sqrt((errors[0] ** 2 + errors[1] ** 2) / 2 + _FLOOR**2)
    used = np.ones(len(x), bool)
    touching, size = near, math.sqrt(scales[0] * scales[1])
    for attempt in range(rounds + 1):
        if np.count_nonzero(used) < _LEAST_STARS:
            raise RecipeError(
                f"{np.count_nonzero(used)} stars are left for the astrometric solution, {_LEAST_STARS} are needed; a"
                " lower detsigma or a higher rejsigma keeps more.",
                stars=int(np.count_nonzero(used)),
            )
        for _ in range(_TANGENTS):
            plane = np.stack(project(*sky, *touching))
            shift, matrix, spread = _solve(x * scales[0], y * scales[1], plane * 3600, weights / size, used)
            shift, matrix = shift / 3600, matrix * np.array(scales) / 3600
            touching = unproject(float(shift[0]), float(shift[1]), *touching)
        away = np.linalg.solve(matrix, plane - shift[:, None]) - np.stack([x, y])
        if attempt < rounds:
            pulls = np.abs(away) * weights
            scatter = np.maximum(_SIGMA_OF_MEDIAN * np.median(pulls, axis=1, keepdims=True), 1)
            used = (pulls <= limit * scatter).all(axis=0)
    return PlateSolution(
        reference=reference,
        sky=touching,
        matrix=matrix,
        used=used,
        residuals=away * np.array(scales)[:, None],
        errors=spread,
    )


def _solve(
    x: Real, y: Real, plane: Real, weights: Real, used: NDArray[np.bool_]
) -> tuple[Real, Real, tuple[float, float]]:
    """Return shift (2,), matrix (2, 2) and the errors of both scales of a weighted fit; all in arcsec."""
    columns = np.stack([np.ones_like(x), x, y], axis=1)[used]
    matrix = np.concatenate([np.kron(np.eye(2)[axis], columns) * weights[used, None] for axis in (0, 1)])
    target = np.concatenate([plane[axis][used] * weights[used] for axis in (0, 1)])
    damped = np.ones(len(target))
    for _ in range(_REWEIGHTED):
        free, *_ = np.linalg.lstsq(matrix * damped[:, None], target * damped, rcond=None)
        pulls = np.abs(matrix @ free - target)
        scatter = max(_SIGMA_OF_MEDIAN * float(np.median(pulls)), 1.0)
        damped = np.sqrt(np.minimum(1, _HUBER * scatter / np.maximum(pulls, 1e-9)))
    matrix, target = matrix * damped[:, None], target * damped
    noise = max(float(np.sqrt(np.square(matrix @ free - target).sum() / max(len(target) - 6, 1))), 1.0)
    # East runs against x: with one scale and right angles the first element is minus the last, the others are equal.
    known = np.array([[0, 1, 0, 0, 0, 1], [0, 0, 1, 0, -1, 0]]) * (noise / _DISTORTION)
    matrix, target = np.concatenate([matrix, known]), np.concatenate([target, np.zeros(2)])
    found, *_ = np.linalg.lstsq(matrix, target, rcond=None)
    errors = noise * np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix)))
    values = found.reshape(2, 3)
    return values[:, 0], values[:, 1:], (float(errors[1]), float(errors[5]))
