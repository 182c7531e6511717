"""Bad columns are found where they begin and end, and nowhere else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recipes.columns import find_bad_columns

NOISE = 0.7


def quadrant(seed: int = 1) -> NDArray[np.float32]:
    """A quadrant of a master bias with a ramp along x."""
    image = np.random.default_rng(seed).normal(0, NOISE, (800, 400)).astype(np.float32)
    return image + np.linspace(0, 0.5, 400, dtype=np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_a_good_quadrant_has_none(seed: int) -> None:
    assert not find_bad_columns(quadrant(seed), NOISE, low=30, high=3).any()


@pytest.mark.parametrize("excess", [6.0, 80.0, 20000.0])
def test_exactly_the_bad_stretch_of_a_column_is_flagged(excess: float) -> None:
    image = quadrant()
    image[300:, 123] += excess
    expected = np.zeros(image.shape, bool)
    expected[300:, 123] = True
    np.testing.assert_array_equal(find_bad_columns(image, NOISE, low=30, high=3), expected)


def test_a_faint_column_is_found_to_a_few_rows() -> None:
    image = quadrant()
    image[200:600, 50] += 1.0
    rows = np.flatnonzero(find_bad_columns(image, NOISE, low=30, high=3)[:, 50])
    assert abs(rows[0] - 200) < 15
    assert abs(rows[-1] - 599) < 15


def test_two_stretches_of_a_column_leave_what_is_between_them_good() -> None:
    image = quadrant()
    image[100:200, 50] += 20
    image[500:600, 50] += 30
    rows = np.flatnonzero(find_bad_columns(image, NOISE, low=30, high=3)[:, 50])
    assert rows.tolist() == [*range(100, 200), *range(500, 600)]


def test_a_dark_column_is_found() -> None:
    image = quadrant()
    image[:, 200] -= 50
    bad = find_bad_columns(image, NOISE, low=30, high=3)
    assert bad[:, 200].all()
    assert bad.sum() == 800


def test_columns_side_by_side_and_at_the_rim_are_found() -> None:
    image = quadrant()
    image[:, [0, 199, 200, 201, 399]] += 50
    bad = find_bad_columns(image, NOISE, low=30, high=3)
    assert np.flatnonzero(bad.all(axis=0)).tolist() == [0, 199, 200, 201, 399]
    assert bad.sum() == 5 * 800
