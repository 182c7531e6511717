"""What the twilight cube is made with: drops on a grid, outliers in its cells, smooth surfaces, vignetted corners."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recipes.outliers import bridge, find_outliers
from recipes.positions import SliceMap
from recipes.recipe import RecipeError
from recipes.skyfit import adapt_mask, field_border, fit_vignetting, median_filter, smooth_plane
from recipes.skysums import MIDDLE, Sums, add_up

SLICE = SliceMap(
    channel=1,
    number=1,
    centre=np.full(10, 40.0),
    width=np.full(10, 20.0),
    first=np.full(10, 31),
    count=np.full(10, 19),
    offset=10,
    dispersion=np.array([[7000.0, 1.25]]),
    x=3.2,
    y=5.25,
    angle=0.0,
    length=20.0,
)


def drop(x: float, wavelength: float, data: float = 1.0, stat: float = 1.0) -> Sums:
    sums = Sums.around([SLICE], 7000.0, 7100.0, 50.0)
    arrays = (np.array([v], np.float32) for v in (x, wavelength, data, stat))
    sums.add(SLICE, *arrays)
    return sums


def shares(sums: Sums) -> dict[tuple[int, float, float], float]:
    """Weight of each cell that has any, by plane, field x and y of its middle."""
    plane, row, column = np.nonzero(sums.weight)
    return {
        (int(p), float(c + sums.x + MIDDLE[0]), float(r + sums.y + MIDDLE[1])): float(sums.weight[p, r, c])
        for p, r, c in zip(plane, row, column, strict=True)
    }


def test_a_pixel_is_shared_between_the_cells_it_covers() -> None:
    found = shares(drop(2.75, 7050.0))
    assert found == {
        (1, 2.5, 5.0): pytest.approx(0.75 * 0.75),
        (1, 3.5, 5.0): pytest.approx(0.25 * 0.75),
        (1, 2.5, 6.0): pytest.approx(0.75 * 0.25),
        (1, 3.5, 6.0): pytest.approx(0.25 * 0.25),
    }


@pytest.mark.parametrize(
    ("wavelength", "expected"), [(7025.0, {0: 0.5, 1: 0.5}), (7024.6875, {0: 0.75, 1: 0.25}), (7100.5, {2: 1.0})]
)
def test_a_pixel_on_the_border_of_two_planes_counts_for_both(wavelength: float, expected: dict[int, float]) -> None:
    weight = drop(3.5, wavelength).weight.sum(axis=(1, 2))
    assert {plane: pytest.approx(w, abs=1e-3) for plane, w in enumerate(weight) if w > 0} == expected


def test_sums_are_added_with_their_factors() -> None:
    one, two = drop(2.5, 7050.0, data=10.0, stat=4.0), drop(2.5, 7050.0, data=40.0, stat=16.0)
    data, variance = add_up([(one, 1.0), (two, 2.0)], (2, 3), (5, 6))
    assert data.shape == (3, 2, 2)
    assert data[1, 0, 0] == pytest.approx((10 + 20) / 2)
    assert variance[1, 0, 0] == pytest.approx((4 + 4) / 4)
    assert np.isnan(data[0]).all()
    assert np.isnan(data[1, 0, 1])


def test_a_window_may_reach_beyond_the_sums_of_a_channel() -> None:
    data, _ = add_up([(drop(2.5, 7050.0), 1.0)], (-200, 200), (-90, 9))
    assert data.shape == (3, 100, 401)
    assert np.count_nonzero(np.isfinite(data)) == 2


@pytest.mark.parametrize("kind", ["median", "mean", "iraf"])
def test_outliers_stand_out_of_their_cell(kind: str) -> None:
    rng = np.random.default_rng(1)
    cell = np.sort(rng.integers(0, 5, 2000))
    data = (100 + 50 * cell + rng.normal(0, 1, 2000)).astype(np.float32)
    data[[10, 900]] += 400
    stat = np.full(2000, 1.0, np.float32)
    found = find_outliers(cell, data, stat, kind, 15.0 if kind != "iraf" else 500.0)
    assert list(np.flatnonzero(found)) == [10, 900]


def test_two_pixels_are_too_few_to_judge_either() -> None:
    data = np.array([1, 1e9], np.float32)
    assert not find_outliers(np.array([3, 3]), data, data, "median", 1.0).any()
    assert not find_outliers(np.array([], np.intp), data[:0], data[:0], "median", 1.0).any()


def test_bad_pixels_get_the_light_of_their_neighbours_on_the_row() -> None:
    data = np.array([9, 1, 9, 9, 4, 5, 9], np.float32)
    bridge(data, np.array([True, False, True, True, False, False, True]), np.zeros(7, np.intp))
    np.testing.assert_allclose(data, [1, 1, 2, 3, 4, 5, 5])
    rows = np.array([1, 1, 1, 2, 2, 2])
    data = np.array([1, 2, 99, 99, 20, 30], np.float32)
    bridge(data, np.array([False, False, True, False, False, False]), rows)
    assert data[2] == 2
    bridge(data, np.array([False, False, False, True, False, False]), rows)
    assert data[3] == 20
    alone = np.array([7, 8], np.float32)
    bridge(alone, np.array([True, True]), np.zeros(2, np.intp))
    np.testing.assert_array_equal(alone, [7, 8])


def field(rows: int = 40, columns: int = 60) -> NDArray[np.float32]:
    y, x = np.mgrid[:rows, :columns]
    return np.asarray(1 + 2e-3 * (x - columns / 2) - 1e-3 * y + 1e-5 * x * y, np.float32)


def test_the_smooth_plane_is_the_gradient_without_noise_outliers_and_gaps() -> None:
    true, rng = field(), np.random.default_rng(3)
    plane = (5000 * true * rng.normal(1, 0.003, true.shape)).astype(np.float32)
    plane[20, 30], plane[:3], plane[11:14] = 1e6, np.nan, np.nan
    border = field_border(plane)
    smooth = smooth_plane(plane, border, None, 2, 2)
    ratio = smooth / true
    assert (ratio / ratio.mean()).std() < 8e-4  # half of the filter's window is lost at the border
    assert smooth[np.isfinite(median_filter(plane))].mean() == pytest.approx(1, abs=2e-3)


def test_the_border_of_the_field_is_made_wider_along_rows() -> None:
    white = np.ones((5, 12), np.float32)
    white[2, 6], white[4, 1] = np.nan, 0
    border = field_border(white)
    assert list(np.flatnonzero(border[2])) == [0, 4, 5, 6, 7, 8, 11]
    assert list(np.flatnonzero(border[0])) == [0, 11]
    assert list(np.flatnonzero(border[4])) == [0, 1, 2, 3, 11]


def test_a_plane_without_light_is_refused() -> None:
    dark = np.full((5, 5), np.nan, np.float32)
    with pytest.raises(RecipeError, match="any light"):
        smooth_plane(dark, field_border(dark), None, 2, 2)


@pytest.mark.parametrize(("corner", "row", "column"), [("lower left", 3, 5), ("upper right", 28, 53)])
def test_a_mask_is_laid_into_the_same_corner(corner: str, row: int, column: int) -> None:
    mask = np.zeros((30, 40), bool)
    y, x = (3, 5) if corner == "lower left" else (18, 33)
    mask[y, x] = True
    laid = adapt_mask(mask, (40, 60))
    assert laid[row, column]
    assert laid.sum() == 1


def test_a_mask_that_masks_nothing_or_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match="masks no pixel"):
        adapt_mask(np.zeros((30, 40), bool), (40, 60))
    with pytest.raises(RecipeError, match="smaller mask"):
        adapt_mask(np.ones((300, 40), bool), (40, 60))


def test_a_vignetted_corner_is_fitted_where_the_mask_is_and_never_below_one() -> None:
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:40, :60]
    vignetted = (x > 40) & (y > 20)
    true = np.where(vignetted, 1 + 2e-4 * (x - 40.0) * (y - 20.0), 1.0)
    ratio = (true * rng.normal(1, 0.002, true.shape)).astype(np.float32)
    ratio[30, 50] = 1.5  # left out: steps by more than 2 %
    found = fit_vignetting(ratio, field_border(np.ones((40, 60), np.float32)), vignetted)
    inside = vignetted & (x < 58)
    assert np.abs(found.fit - true)[inside].max() < 0.006
    assert (found.fit[~vignetted] == 1).all()
    assert found.left_out[30, 50]
    assert found.fit.min() == 1
