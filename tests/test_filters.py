"""Filters: found by name, covered by data, and images through them."""

import numpy as np
import pytest
from star_field import filters

from recipes.cube import Grid, Planes
from recipes.filters import WHITE, FieldImages, Filter, find_filters

TRIANGLE = Filter(name="triangle", wavelength=np.array([5000.0, 5100.0, 5200.0]), throughput=np.array([0.0, 1.0, 0.0]))


def test_white_is_built_in_and_others_come_from_the_list() -> None:
    found, missing = find_filters(("white", "Johnson_V", "Sloan_r"), filters())
    assert [one.name for one in found] == ["white", "Johnson_V"]
    assert missing == ("Sloan_r",)
    assert [(k.name, k.value) for k in found[1].keywords] == [("ESO DRS MUSE FILTER ZPVEGA", 1.5)]
    assert find_filters(("Johnson_V",), None) == ((), ("Johnson_V",))


def test_a_filter_is_covered_by_area() -> None:
    assert WHITE.covered(4750.0, 9350.0) == pytest.approx(100 * 4550 / 4650)
    assert TRIANGLE.covered(5100.0, 9000.0) == pytest.approx(50)
    assert TRIANGLE.covered(5150.0, 5200.0) == pytest.approx(12.5)
    assert TRIANGLE.covered(6000.0, 7000.0) == 0
    assert TRIANGLE.covered(4000.0, 7000.0) == pytest.approx(100)


def test_an_image_is_the_mean_weighted_by_the_throughput() -> None:
    grid = Grid(x=0, y=0, wavelength=5050, step=50, shape=(4, 1, 3))
    data = np.array([[[1, 1, np.nan]], [[2, np.nan, np.nan]], [[3, 3, np.nan]], [[9, 9, 9]]], np.float32)
    images = FieldImages([TRIANGLE], grid)
    for start, stop in ((0, 1), (1, 4)):
        images.add(Planes(slice(start, stop), data[start:stop], data[start:stop]))
    (image,) = images.planes("count")
    assert (image.name, image.unit) == ("triangle", "count")
    np.testing.assert_allclose(image.values[:], [[2.0, 2.0, np.nan]])  # throughputs 0.5, 1, 0.5 and 0
