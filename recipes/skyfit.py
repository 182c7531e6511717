"""The smooth brightness of the twilight sky over the field: polynomials on filtered planes, and vignetted corners."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.polynomial.chebyshev import chebval2d, chebvander2d
from numpy.typing import NDArray

from recipes.recipe import Float32, RecipeError
from recipes.stats import Real

_FILTER = (7, 5)  # rows and columns of the median filter; MP
_DILATION = 2  # columns by which the border of the field is made wider to either side; MP
_VIGNETTING_ORDER = 4  # of the polynomial of the vignetted area, in x and y; MP
_STRONG_EDGE = 0.02  # step from pixel to pixel in the vignetted area that leaves the worse of both out; MP

Mask = NDArray[np.bool_]


def field_border(white: Float32) -> Mask:
    """Return where a white-light image has no light, and what is near enough to the border to be doubtful.

    As ESO's: the first and last column, and two columns to either side of a dark pixel, but not in the two outermost.
    """
    dark: Mask = ~np.isfinite(white) | (white == 0)
    border: Mask = dark.copy()
    for offset in range(-_DILATION, _DILATION + 1):
        border |= np.roll(dark, offset, axis=1)
    border[:, :_DILATION], border[:, -_DILATION:] = dark[:, :_DILATION], dark[:, -_DILATION:]
    border[:, [0, -1]] = True
    return border


def smooth_plane(plane: Float32, border: Mask, vignetted: Mask | None, x_order: int, y_order: int) -> Float32:
    """Return a polynomial over the field that follows a plane after a median filter; its mean over the field is 1.

    Parameters
    ----------
    plane : float32 array, shape (y, x)
        NaN where there is no light.
    border : bool array
        What the filter does not take in.
    vignetted : bool array, optional
        What the polynomial does not follow.

    Raises
    ------
    RecipeError
        If nothing is left to be fitted.
    """
    filtered = median_filter(np.where(border | (plane == 0), np.float32(np.nan), plane))
    good = np.isfinite(filtered)
    if vignetted is not None:
        good &= ~vignetted
    if not good.any():
        raise RecipeError("No pixel of the twilight sky is left to be fitted; was there any light?", pixels=0)
    filtered /= np.float32(np.mean(filtered[np.isfinite(filtered)], dtype=np.float64))
    fit = fit_surface(filtered, good, x_order, y_order)
    smooth: Float32 = (fit / fit[good].mean()).astype(np.float32)
    return smooth


def median_filter(image: Float32) -> Float32:
    """Return the median of the values around each pixel, 5 columns by 7 rows; NaN does not count.

    At the edges of the image the window is cut. NaN where there is no value in the window.
    """
    rows, columns = (side // 2 for side in _FILTER)
    wide = np.pad(image, ((rows, rows), (columns, columns)), constant_values=np.nan)
    ordered = np.sort(sliding_window_view(wide, _FILTER).reshape(*image.shape, -1), axis=-1)  # NaN comes last
    number = np.count_nonzero(np.isfinite(ordered), axis=-1)[..., None]
    low, high = (np.take_along_axis(ordered, np.maximum(n, 0), axis=-1) for n in ((number - 1) // 2, number // 2))
    middle: Float32 = ((low + high) / np.float32(2))[..., 0].astype(np.float32)
    middle[number[..., 0] == 0] = np.nan
    return middle


def fit_surface(image: Float32, good: Mask, x_order: int, y_order: int) -> Real:
    """Fit a polynomial to the good pixels of an image and return it everywhere; the orders are lowered if need be.

    The last row and the last column are not fitted, as in ESO's recipe.
    """
    rows, columns = image.shape
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    inner = good[:-1, :-1] if good[:-1, :-1].any() else good
    fitted = slice(inner.shape[0]), slice(inner.shape[1])
    orders = (min(x_order, columns - 1), min(y_order, rows - 1))
    base = chebvander2d(x[fitted][inner], y[fitted][inner], orders)
    values = image[fitted][inner].astype(np.float64)
    series = np.linalg.lstsq(base, values, rcond=1e-12)[0]
    result: Real = chebval2d(x, y, series.reshape(orders[0] + 1, orders[1] + 1))
    return result


def adapt_mask(mask: Mask, shape: tuple[int, int]) -> Mask:
    """Lay the quadrant of a mask that holds most of it into the same corner of an image.

    Raises
    ------
    RecipeError
        If nothing is masked, or the quadrant does not fit.
    """
    rows, columns = mask.shape
    half_y, half_x = rows // 2, columns // 2
    # The upper and right quadrants begin one pixel before the middle; MP.
    quadrants = [
        (slice(0, half_y), slice(0, half_x)),
        (slice(0, half_y), slice(half_x - 1, columns)),
        (slice(half_y - 1, rows), slice(half_x - 1, columns)),
        (slice(half_y - 1, rows), slice(0, half_x)),
    ]
    y, x = max(quadrants, key=lambda quadrant: np.count_nonzero(mask[quadrant]))
    part = mask[y, x]
    if not part.any():
        raise RecipeError("The VIGNETTING_MASK masks no pixel; give one that does, or none.", pixels=0)
    if part.shape[0] > shape[0] or part.shape[1] > shape[1]:
        raise RecipeError(
            f"A quadrant of the VIGNETTING_MASK has {part.shape[1]} by {part.shape[0]} pixels, the field"
            f" {shape[1]} by {shape[0]}; give a smaller mask.",
            columns=part.shape[1],
            rows=part.shape[0],
        )
    result = np.zeros(shape, bool)
    top, right = y.start > 0, x.start > 0
    rows_of = slice(shape[0] - part.shape[0], shape[0]) if top else slice(0, part.shape[0])
    columns_of = slice(shape[1] - part.shape[1], shape[1]) if right else slice(0, part.shape[1])
    result[rows_of, columns_of] = part
    return result


@dataclass(frozen=True, kw_only=True)
class Vignetting:
    """Brightness of a vignetted corner beyond the smooth sky, and how it was found; arrays of shape (y, x).

    Parameters
    ----------
    searched : float32 array
        White light over the smooth white light, 1 outside of the corner and where it was left out.
    outside : bool array
        Everything outside of the corner, or of the field.
    left_out : bool array
        The same, and strong edges in the corner.
    fit : float32 array
        What a plane is multiplied by: at least 1, and 1 outside of the corner.
    """

    searched: Float32
    outside: Mask
    left_out: Mask
    fit: Float32


def fit_vignetting(ratio: Float32, border: Mask, vignetted: Mask) -> Vignetting:
    """Fit what the lamp flat lacks in a vignetted corner, where the sky over the flat is therefore too bright.

    Parameters
    ----------
    ratio : float32 array, shape (y, x)
        White light over the smooth white light.
    border : bool array
        What is not in the field.
    vignetted : bool array
    """
    outside = border | ~vignetted | ~np.isfinite(ratio)
    searched = np.where(outside, np.float32(1), ratio)
    left_out = outside.copy()
    for axis in (0, 1):
        step = np.abs(np.diff(searched, axis=axis)) >= _STRONG_EDGE
        worse_before = np.abs(_before(searched, axis) - 1) > np.abs(_after(searched, axis) - 1)
        _before(left_out, axis)[step & worse_before] = True
        _after(left_out, axis)[step & ~worse_before] = True
    if left_out.all():
        return Vignetting(searched=searched, outside=outside, left_out=left_out, fit=np.ones_like(ratio))
    surface = fit_surface(np.maximum(ratio, 1), ~left_out, _VIGNETTING_ORDER, _VIGNETTING_ORDER)
    fit = np.where(outside, 1.0, np.maximum(surface, 1.0)).astype(np.float32)
    return Vignetting(searched=searched, outside=outside, left_out=left_out, fit=fit)


def _before(image: NDArray[Any], axis: int) -> NDArray[Any]:
    return image[:-1] if axis == 0 else image[:, :-1]


def _after(image: NDArray[Any], axis: int) -> NDArray[Any]:
    return image[1:] if axis == 0 else image[:, 1:]
