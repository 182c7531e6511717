"""Stars in the image of a field: found, and their places measured."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recipes.cube import BLUR
from recipes.recipe import Column, Float32, Table
from recipes.sources import FIRST_POWER, fit_gaussians, fit_moffats, measure_widths
from recipes.stats import Real

Mask = NDArray[np.bool_]

CENTROIDS = ("moffat", "gaussian", "box")
HALF_BOX = 5  # pix to either side of a detection that its place is measured in; MP
_SMOOTH = 1.0  # pix, sigma of the Gaussian before peaks are looked for
_SUBTRACTIONS = 6  # rounds of fitting the stars, the others being subtracted
_LOOK_BENEATH = 2  # the round after which stars beneath them are looked for
_LEAST_CONTRAST = 0.2  # of such a star with what the others leave there
_NEXT = 5  # pix, side of the square in which there is one peak
_LARGEST = 100.0  # pix, width or error that nothing credible exceeds; MP
_BOX_ERROR = 0.15  # pix, of a barycentre; MP
_SIMILAR = (0.5, 2.0)  # width of a star over the median of all; others are no stars
_LEAST_FOR_WIDTH = 5  # stars, from which the usual width is known
_USUAL = 3.0  # median deviations of the widths, which do not tell of another star
_FARTHEST = 3.0  # pix, of a place from its detection


@dataclass(frozen=True, kw_only=True)
class FieldStars:
    """Stars of an image, the brightest first; arrays of shape (stars,).

    Parameters
    ----------
    x, y : arrays
        Pix, from 0.
    x_error, y_error : arrays
    flux : array
        Electrons.
    x_width, y_width : arrays
        Full widths at half maximum, pix.
    """

    x: Real
    y: Real
    x_error: Real
    y_error: Real
    flux: Real
    x_width: Real
    y_width: Real

    def __len__(self) -> int:
        return len(self.x)

    def table(self, ra: Real, dec: Real) -> Table:
        """Return ASTROMETRY_SOURCES, with the places of those that are known on the sky, NaN for others."""
        columns = (
            ("XPOS", self.x + 1, "pix"), ("YPOS", self.y + 1, "pix"), ("XERR", self.x_error, "pix"),
            ("YERR", self.y_error, "pix"), ("FLUX", self.flux, "count"), ("XFWHM", self.x_width, "pix"),
            ("YFWHM", self.y_width, "pix"), ("RA", ra, ""), ("DEC", dec, ""),
        )  # fmt: skip
        return Table(
            name="ASTROMETRY_SOURCES",
            columns=tuple(Column(name=name, values=values, unit=unit) for name, values, unit in columns),
        )


def find_stars(image: Float32, stat: Float32, *, sigma: float, centroid: str) -> FieldStars:
    """Find the stars of an image and measure their places.

    Parameters
    ----------
    image, stat : float32 arrays, shape (rows, columns)
        NaN where there is no light.
    sigma : float
        Threshold above the median, in mean absolute deviations of the image.
    centroid : str
        One of ``CENTROIDS``.
    """
    threshold = _threshold(image, sigma)
    found = _detect(image, threshold)
    widths = [measure_widths(image, *star, background=float(np.nanmedian(image))) for star in found]
    known = [width for both in widths for width in both if math.isfinite(width)]
    if not known:
        none = np.zeros(0)
        return FieldStars(x=none, y=none, x_error=none, y_error=none, flux=none, x_width=none, y_width=none)
    if centroid == "box":
        stars = _barycentres(image, found)
    else:
        stars, found = _profiles(image, stat, found, threshold, fwhm=float(np.median(known)), centroid=centroid)
    good = _credible(stars, found, image)
    stars = _with_errors_of_blends(stars, good)
    order = np.flatnonzero(good)[np.argsort(-stars.flux[good])]
    return FieldStars(**{name: values[order] for name, values in vars(stars).items()})


def _threshold(image: Float32, sigma: float) -> float:
    """Return how far above the median a star must be: so many mean absolute deviations of the image."""
    finite = image[np.isfinite(image)]
    return sigma * float(np.abs(finite - np.median(finite)).mean()) if finite.size else math.inf


def _detect(image: Float32, threshold: float) -> list[tuple[float, float]]:
    """Return x and y of every peak in what is above the threshold; stars that overlap have a peak each."""
    finite = np.isfinite(image)
    above = np.where(finite, image - np.median(image[finite]), 0) if finite.any() else np.zeros_like(image)
    bright = ndimage.binary_opening(above > threshold, np.ones((3, 3), bool))  # narrower ones are cosmic rays
    smooth = ndimage.gaussian_filter(above, _SMOOTH)
    peaks = bright & (smooth == ndimage.maximum_filter(smooth, _NEXT)) & (smooth > threshold)
    rows, columns = np.nonzero(peaks)
    return list(zip(columns.astype(float).tolist(), rows.astype(float).tolist(), strict=True))


def _cut_out(image: Float32, found: list[tuple[float, float]]) -> tuple[Float32, Real, Real]:
    """Return squares around detections, NaN beyond the edges, and the column and row of their first pixels."""
    margin = HALF_BOX + 1
    padded = np.pad(image, margin, constant_values=np.nan)
    columns = np.array([round(x) for x, _ in found])
    rows = np.array([round(y) for _, y in found])
    side = np.arange(-HALF_BOX, HALF_BOX + 1) + margin
    values = padded[(rows[:, None] + side)[:, :, None], (columns[:, None] + side)[:, None, :]]
    return values, (columns - HALF_BOX).astype(np.float64), (rows - HALF_BOX).astype(np.float64)


def _profiles(
    image: Float32,
    stat: Float32,
    found: list[tuple[float, float]],
    threshold: float,
    *,
    fwhm: float,
    centroid: str,
) -> tuple[FieldStars, list[tuple[float, float]]]:
    """Fit a profile to each star, the others being subtracted; stars that come up beneath them are added.

    Returns
    -------
    FieldStars, list
        Stars, and their detections.
    """
    others = np.zeros((len(found), *(2 * [2 * HALF_BOX + 1])), np.float32)
    for attempt in range(_SUBTRACTIONS):
        (data, column, row), (variance, _, _) = _cut_out(image, found), _cut_out(stat, found)
        if attempt == 0:
            _leave_neighbours(data, found, column, row)
        if centroid == "moffat":
            fitted = fit_moffats(data - others, variance, fwhm=fwhm, x=HALF_BOX, y=HALF_BOX, blur=BLUR)
        else:
            fitted = fit_gaussians(data - others, variance, fwhm=fwhm, x=HALF_BOX, y=HALF_BOX)
        x_width, y_width = fitted.fwhm
        stars = FieldStars(
            x=fitted.x + column,
            y=fitted.y + row,
            x_error=fitted.x_error,
            y_error=fitted.y_error,
            flux=fitted.flux,
            x_width=x_width,
            y_width=y_width,
        )
        if attempt == _SUBTRACTIONS - 1:
            break
        model, own = _render(stars, fitted.power, found, image.shape)
        if attempt == _LOOK_BENEATH and centroid == "moffat":  # a Gaussian leaves the wings of each star
            hidden = _detect((image - model).astype(np.float32), threshold)
            new = [one for one in hidden if _is_new(one, found, image, model, fwhm)]
            found = [*found, *new]
            own = np.concatenate([own, np.zeros((len(new), *own.shape[1:]), np.float32)])
        others = np.nan_to_num(_cut_out(model, found)[0]) - own
    return stars, found


def _leave_neighbours(data: Float32, found: list[tuple[float, float]], column: Real, row: Real) -> None:
    """Leave out the pixels that are nearer to another detection, in place."""
    x, y = np.array(found).T
    side = np.arange(2 * HALF_BOX + 1)
    for number, values in enumerate(data):
        near = np.flatnonzero((np.abs(x - x[number]) < 2 * HALF_BOX) & (np.abs(y - y[number]) < 2 * HALF_BOX))
        across, up = side + column[number], side[:, None] + row[number]
        distance = [(across - x[other]) ** 2 + (up - y[other]) ** 2 for other in near]
        own = distance[int(np.flatnonzero(near == number)[0])]
        values[own > np.min(distance, axis=0)] = np.nan


def _is_new(
    peak: tuple[float, float], found: list[tuple[float, float]], image: Float32, model: Float32, fwhm: float
) -> bool:
    """Tell a star beneath others from what their profile leaves of them."""
    column, row = (int(place) for place in peak)
    apart = all(math.dist(peak, other) > fwhm for other in found)
    return apart and bool(image[row, column] - model[row, column] > _LEAST_CONTRAST * model[row, column])


def _render(
    stars: FieldStars, powers: Real, found: list[tuple[float, float]], shape: tuple[int, ...]
) -> tuple[Float32, Float32]:
    """Return an image of the stars with one profile for all, and each star alone in its square.

    ``powers`` are those of Moffat profiles, NaN of Gaussians.
    """
    width = np.sqrt(np.abs(stars.x_width * stars.y_width))
    known = np.isfinite(width) & np.isfinite(stars.flux) & (stars.flux > 0)
    known &= np.hypot(*(np.array([stars.x, stars.y]) - np.array(found).T)) < _FARTHEST
    half = float(np.median(width[known])) / 2 if known.any() else 1.0
    power = float(np.median(powers[known])) if known.any() else FIRST_POWER
    gaussian = math.isnan(power)
    squared = half**2 / (2 * math.log(2)) if gaussian else half**2 / (2 ** (1 / power) - 1)
    height = np.where(known, stars.flux, 0) / (np.pi * squared) * (0.5 if gaussian else power - 1)
    x, y = (np.where(known, values, 0) for values in (stars.x, stars.y))
    # Resampling has blurred a Moffat profile since, as in its fit.
    blurs = [(0.0, 0.0)] if gaussian else [(a, b) for a in (-BLUR, BLUR) for b in (-BLUR, BLUR)]

    def profile(across: Real, up: Real, number: int) -> Real:
        result = np.zeros(np.broadcast_shapes(across.shape, up.shape))
        for right, above in blurs:
            distance = ((across + right - x[number]) ** 2 + (up + above - y[number]) ** 2) / squared
            result += np.exp(-distance / 2) if gaussian else (1 + distance) ** -power
        result *= height[number] / len(blurs)
        return result

    rows, columns = np.indices(shape, dtype=np.float64)
    image = np.zeros(shape)
    for number in np.flatnonzero(known):
        image += profile(columns, rows, int(number))
    side = np.arange(-HALF_BOX, HALF_BOX + 1, dtype=np.float64)
    own = [profile(round(across) + side, round(up) + side[:, None], n) for n, (across, up) in enumerate(found)]
    return image.astype(np.float32), np.array(own, np.float32)


def _barycentres(image: Float32, found: list[tuple[float, float]]) -> FieldStars:
    data, column, row = _cut_out(image, found)
    background = np.nanmedian(data, axis=(1, 2), keepdims=True)
    light = np.nan_to_num(np.maximum(data - background, 0)).astype(np.float64)
    total = light.sum(axis=(1, 2))
    side = np.arange(2 * HALF_BOX + 1)
    x, y = (light.sum(axis=1) @ side) / total + column, (light.sum(axis=2) @ side) / total + row
    widths = np.array(
        [
            measure_widths(image, *place, background=float(level))
            for *place, level in zip(x, y, background.ravel(), strict=True)
        ]
    )
    error = np.full(len(x), _BOX_ERROR)
    return FieldStars(
        x=x, y=y, x_error=error, y_error=error.copy(), flux=total, x_width=widths[:, 0], y_width=widths[:, 1]
    )


def _credible(stars: FieldStars, found: list[tuple[float, float]], image: Float32) -> Mask:
    """Return which places are those of stars well inside the image."""
    everything = np.stack(list(vars(stars).values()))
    # One pixel of margin: beyond the image there is no light either.
    inside = ndimage.distance_transform_edt(np.pad(np.isfinite(image), 1))[1:-1, 1:-1]
    column, row = (np.array(found).T).astype(np.intp)
    x, y = column.astype(np.float64), row.astype(np.float64)
    with np.errstate(invalid="ignore"):
        good: Mask = np.isfinite(everything).all(axis=0) & (stars.flux > 0)
        good &= (everything[2:4] < _LARGEST).all(axis=0) & (everything[5:] < _LARGEST).all(axis=0)
        good &= np.hypot(stars.x - x, stars.y - y) < _FARTHEST
        good &= inside[row, column] > HALF_BOX
    if good.any():
        width = np.sqrt(np.abs(stars.x_width * stars.y_width))
        median = float(np.median(width[good]))
        good &= (width > _SIMILAR[0] * median) & (width < _SIMILAR[1] * median)
    return good


def _with_errors_of_blends(stars: FieldStars, good: Mask) -> FieldStars:
    """Return stars whose errors account for another one beneath them, which shows in their width."""
    if np.count_nonzero(good) < _LEAST_FOR_WIDTH:
        return stars
    changed = {}
    for name, values, errors in (
        ("x_error", stars.x_width, stars.x_error),
        ("y_error", stars.y_width, stars.y_error),
    ):
        away = np.abs(values - np.median(values[good]))
        scatter = np.median(away[good])
        changed[name] = np.hypot(errors, np.maximum(away - _USUAL * scatter, 0))
    blended = np.maximum(changed["x_error"], changed["y_error"])
    return replace(
        stars, x_error=np.hypot(changed["x_error"], blended / 2), y_error=np.hypot(changed["y_error"], blended / 2)
    )
