"""Statistics of images are exact, whatever the values, and as robust as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from recipes.stats import (
    WINDOW,
    RunningSummary,
    absolute_deviation,
    bracket,
    fit_polynomial,
    scatter_windows,
    summarise,
)

images = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=30), elements=st.floats(-1e4, 1e4, width=32)
)


@given(images)
def test_the_summary_of_any_image_is_that_of_numpy(image: NDArray[np.float32]) -> None:
    summary = summarise(image)
    assert summary.median == np.median(image.astype(float))
    assert summary.mean == pytest.approx(image.mean(dtype=float), abs=1e-2)
    assert summary.total == pytest.approx(image.sum(dtype=float), rel=1e-5, abs=1e-1)
    assert (summary.minimum, summary.maximum) == (image.min(), image.max())
    if image.size > 1:
        assert summary.stdev == pytest.approx(image.std(ddof=1, dtype=float), rel=1e-3, abs=5.0)


def test_the_median_of_a_large_image_is_exact_though_only_the_values_around_it_are_kept() -> None:
    image = np.random.default_rng(1).normal(1000, 30, (1500, 1100)).astype(np.float32)
    summary = summarise(image)
    assert summary.median == np.median(image)
    assert summary.stdev == pytest.approx(image.std(ddof=1, dtype=float), rel=1e-5)


def test_a_median_outside_the_bracket_is_not_made_up() -> None:
    image = np.arange(100, dtype=np.float32).reshape(10, 10)
    running = RunningSummary(80, 90)
    running.add(image)
    assert running.summary() is None


def test_an_image_unlike_its_sample_is_summarised_exactly_all_the_same() -> None:
    image = np.ones((1000, 1000), np.float32)
    image[3::7, 3::7] = 1e6  # the pixels that the sample looks at
    assert summarise(image).median == 1


def test_pixels_left_out_do_not_count() -> None:
    image = np.array([[1, 2, 3, 1000]], np.float32)
    good = np.array([[True, True, True, False]])
    assert summarise(image, good).median == 2
    assert absolute_deviation(image, 2, good) == pytest.approx(2 / 3)


def test_the_absolute_deviation_of_gaussian_noise_is_four_fifths_of_sigma() -> None:
    image = np.random.default_rng(2).normal(5, 3, (400, 400)).astype(np.float32)
    assert absolute_deviation(image, 5) == pytest.approx(3 * (2 / np.pi) ** 0.5, rel=0.01)


def test_the_bracket_of_a_sample_holds_the_median_of_the_whole() -> None:
    image = np.random.default_rng(3).normal(0, 1, 1_000_000).astype(np.float32)
    low, high = bracket(image[::50])
    assert low < np.median(image) < high
    assert np.mean((image > low) & (image < high)) < 0.06


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 60), st.integers(0, 5))
def test_windows_lie_inside_and_apart(rows: int, columns: int, number: int, seed: int) -> None:
    cover = np.zeros((rows, columns), int)
    for y, x in scatter_windows((rows, columns), number, np.random.default_rng(seed)):
        assert cover[y, x].size == min(WINDOW, rows, columns) ** 2
        cover[y, x] += 1
    assert cover.max() == 1


def test_a_polynomial_is_not_bent_by_outliers_and_believes_the_better_points() -> None:
    x = np.linspace(1, 4112, 128)
    truth = 100 + 0.01 * x - 2e-6 * x**2
    rng = np.random.default_rng(4)
    error = np.where(x < 500, 0.2, 0.003)
    y = truth + rng.normal(0, error)
    y[[20, 70]] += 3
    fit = fit_polynomial(x, y, 5, limit=5, weights=1 / error)
    assert not fit.used[[20, 70]].any()
    assert np.abs(fit.polynomial(x) - truth)[x > 500].max() < 0.006


def test_two_points_give_a_line() -> None:
    fit = fit_polynomial(np.array([1.0, 3.0]), np.array([2.0, 4.0]), 5, limit=5, weights=np.ones(2))
    assert fit.polynomial(2.0) == pytest.approx(3.0)
