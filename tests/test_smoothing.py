"""Smoothing: what is smooth stays, noise and outliers go, edges of filters are kept."""

import numpy as np
import pytest

from recipes.smoothing import smooth_by_medians, smooth_by_polynomials, smooth_ranges

WAVELENGTH = np.arange(4750.0, 5750.0, 1.25)
T = (WAVELENGTH - 5250) / 500
CUBIC = 40 + 0.5 * T - 0.3 * T**2 + 0.2 * T**3
NONE = np.zeros_like(CUBIC)
ALL = ((-np.inf, np.inf),)


def test_a_cubic_stays() -> None:
    values, errors = smooth_by_polynomials(WAVELENGTH, CUBIC, NONE, ALL)
    np.testing.assert_allclose(values, CUBIC, atol=5e-4)  # the mean over 30 Angstrom takes that off its bends
    assert (errors >= 0).all()


def test_noise_falls_and_outliers_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    noisy = CUBIC + rng.normal(0, 0.01, CUBIC.shape)
    noisy[::40] += 0.5
    values, _ = smooth_by_polynomials(WAVELENGTH, noisy, NONE, ALL)
    # A cubic over 241 points has 1.5 times the error of their mean in the middle of its interval, 0.001.
    assert np.std(values[130:-130] - CUBIC[130:-130]) < 0.002
    assert np.abs(values - CUBIC).max() < 0.015  # at the ends the cubic is known four times worse


def test_medians_go_with_errors_of_what_they_saw() -> None:
    rng = np.random.default_rng(2)
    values, errors = smooth_by_medians(WAVELENGTH, rng.normal(1, 0.1, CUBIC.shape), NONE, ALL)
    assert values.std() < 0.04
    assert np.median(errors) == pytest.approx(0.08, abs=0.01)  # mean absolute deviation of Gaussian noise


def test_each_range_is_smoothed_by_itself_and_nothing_outside() -> None:
    step = np.where(WAVELENGTH < 5200, 1.0, 2.0)
    step[WAVELENGTH < 4775] = 7.0 + np.arange(20)
    values, _ = smooth_by_polynomials(WAVELENGTH, step, NONE, ((4775.0, 5199.0), (5200.0, np.inf)))
    np.testing.assert_allclose(values, step, atol=1e-9)


@pytest.mark.parametrize(
    ("mode", "options", "ranges"),
    [
        ("WFM-NOAO-N", {}, ((4775.0, np.inf),)),
        ("WFM-NOAO-E", {}, ALL),
        ("WFM-AO-N", {}, ((4700.0, 5805.0), (5966.0, np.inf))),
        ("NFM-AO-N", {"notched": False}, ((4770.0, np.inf),)),
        ("WFM-NOAO-N", {"kinked": False}, ALL),
    ],
)
def test_filters_divide_the_spectrum(mode: str, options: dict[str, bool], ranges: object) -> None:
    assert smooth_ranges(mode, **options) == ranges


def test_few_points_stay_as_they_are() -> None:
    values, errors = smooth_by_polynomials(np.array([1.0, 500.0, 1000.0]), np.array([1.0, 5.0, 2.0]), np.zeros(3), ALL)
    np.testing.assert_array_equal(values, [1, 5, 2])
    np.testing.assert_allclose(errors, 0, atol=1e-6)
