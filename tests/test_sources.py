"""Stars: found, measured and fitted, with errors that are true."""

import numpy as np
import pytest

from recipes.cube import BLUR
from recipes.recipe import Float32
from recipes.sources import (
    Profiles,
    cut_out,
    detect_sources,
    fit_fluxes,
    fit_gaussians,
    fit_moffats,
    measure_widths,
)
from recipes.stats import Real

Y, X = np.indices((27, 29), dtype=float)


def moffat(x: float, y: float, flux: float, *, alpha: float = 3.4, beta: float = 2.6) -> Real:
    unit = (beta - 1) / (np.pi * alpha**2)
    result: Real = flux * unit * (1 + ((X - x) ** 2 + (Y - y) ** 2) / alpha**2) ** -beta
    return result


def gaussian(x: float, y: float, flux: float, sx: float = 2.0, sy: float = 1.7, tilt: float = 0.2) -> Real:
    u, v, rest = (X - x) / sx, (Y - y) / sy, 1 - tilt**2
    result: Real = flux / (2 * np.pi * sx * sy * rest**0.5) * np.exp(-(u**2 - 2 * tilt * u * v + v**2) / 2 / rest)
    return result


def observed(light: Real, number: int, sky: float = 30.0, seed: int = 1) -> tuple[Float32, Float32]:
    """Many exposures of the same light, with their true variances."""
    rng = np.random.default_rng(seed)
    variance = np.broadcast_to(light + sky, (number, *light.shape))
    return rng.normal(variance, np.sqrt(variance)).astype(np.float32), variance.astype(np.float32)


def test_moffats_are_recovered_with_their_errors() -> None:
    data, stat = observed(moffat(14.3, 12.8, 5e4), 400)
    fit = fit_moffats(data, stat, fwhm=4.0, x=14.0, y=13.0)
    assert np.isfinite(fit.flux).all()
    for name, truth, error in (("flux", 5e4, fit.flux_error), ("x", 14.3, fit.x_error), ("y", 12.8, fit.y_error)):
        pull = (getattr(fit, name) - truth) / error
        assert abs(pull.mean()) < 0.2, name  # 400 fits tell the mean to 0.05
        assert pull.std() == pytest.approx(1, abs=0.12), name
    assert np.median(fit.power) == pytest.approx(2.6, abs=0.05)
    assert np.median(fit.background) == pytest.approx(30, abs=0.3)
    assert np.median(fit.fwhm[0]) == pytest.approx(2 * 3.4 * (2 ** (1 / 2.6) - 1) ** 0.5, rel=0.01)


def test_gaussians_are_recovered_with_their_errors() -> None:
    data, stat = observed(gaussian(13.6, 13.2, 2e4), 300)
    fit = fit_gaussians(data, stat, fwhm=4.0, x=14.0, y=13.0)
    for name, truth, error in (("flux", 2e4, fit.flux_error), ("x", 13.6, fit.x_error), ("y", 13.2, fit.y_error)):
        pull = (getattr(fit, name) - truth) / error
        assert abs(pull.mean()) < 0.25, name
        assert pull.std() == pytest.approx(1, abs=0.12), name
    assert np.median(fit.tilt) == pytest.approx(0.2, abs=0.01)
    assert np.median(fit.fwhm[0]) == pytest.approx(2.0 * 2.3548, rel=0.01)


def test_a_blurred_profile_is_fitted_as_what_it_was() -> None:
    """Drizzle blurs by sqrt(1/6) pix along each axis: here by its kernel, a triangle of full width 2 pix."""
    fine = np.linspace(-0.9, 0.9, 19)
    weights = (1 - np.abs(fine)) / (1 - np.abs(fine)).sum()
    light = sum(
        wx * wy * moffat(14.3 + dx, 12.8 + dy, 5e4)
        for wx, dx in zip(weights, fine, strict=True)
        for wy, dy in zip(weights, fine, strict=True)
    )
    data, stat = (light + 30).astype(np.float32)[None], (light + 30).astype(np.float32)[None]
    as_it_was = fit_moffats(data, stat, fwhm=4.0, x=14, y=13, blur=BLUR)
    as_seen = fit_moffats(data, stat, fwhm=4.0, x=14, y=13)
    assert as_it_was.flux[0] == pytest.approx(5e4, rel=2e-3)
    assert as_it_was.power[0] == pytest.approx(2.6, abs=0.02)
    assert as_seen.flux[0] < 0.997 * 5e4


def test_flux_alone_is_fitted_to_a_known_shape() -> None:
    data, stat = observed(moffat(14.3, 12.8, 5e4), 400)
    constant = {name: np.full(400, np.nan) for name in Profiles.__dataclass_fields__}
    known = {"x": 14.3, "y": 12.8, "width_x": 3.4, "width_y": 3.4, "power": 2.6, "tilt": 0.0}
    shapes = Profiles(**constant | {name: np.full(400, value) for name, value in known.items()})
    flux, variance = fit_fluxes(data, stat, shapes)
    pull = (flux - 5e4) / np.sqrt(variance)
    assert abs(pull.mean()) < 0.2
    assert pull.std() == pytest.approx(1, abs=0.12)


def test_pixels_without_a_value_do_not_count_and_too_few_give_none() -> None:
    data, stat = observed(moffat(14.3, 12.8, 5e4), 3)
    data[0, 5:9], stat[1, :, 20] = np.nan, np.nan
    data[2, 3:] = np.nan
    data[2, :, 5:] = np.nan
    fit = fit_moffats(data, stat, fwhm=4.0, x=14.0, y=13.0)
    np.testing.assert_allclose(fit.flux[:2], 5e4, rtol=0.05)
    assert np.isnan(fit.flux[2])
    assert np.isnan(fit.flux_error[2])


def test_noise_alone_is_no_star() -> None:
    data, _ = observed(np.zeros(X.shape), 1)
    assert detect_sources(data[0], (5.0, 4.0)) == ()
    assert detect_sources(np.full((9, 9), np.nan, np.float32), (5.0,)) == ()


def test_stars_are_found_brightest_first_and_single_pixels_are_not() -> None:
    data, _ = observed(moffat(8.2, 7.7, 3e4) + moffat(21.1, 19.3, 6e4), 1)
    data[0, 3, 24] = 5000
    found = detect_sources(data[0], (999.0, 5.0))
    assert [(round(star.x), round(star.y)) for star in found] == [(21, 19), (8, 8)]
    assert found[0].x == pytest.approx(21.1, abs=0.1)


def test_widths_are_those_of_the_half() -> None:
    image = gaussian(14.0, 13.0, 2e4, 2.0, 1.5, 0.0).astype(np.float32)
    assert measure_widths(image, 14.2, 12.9) == pytest.approx((4.71, 3.53), rel=0.02)
    assert np.isnan(measure_widths(image[:, :15], 14.0, 13.0)[0])
    assert np.isnan(measure_widths(image, 99.0, 13.0)).all()


def test_a_cut_out_ends_where_the_image_does() -> None:
    image = np.arange(30.0, dtype=np.float32).reshape(5, 6)
    part = cut_out(image, 1.2, 4.0, 2.5)
    assert (part.column, part.row) == (0, 2)
    np.testing.assert_array_equal(part.values, image[2:, :4])
    assert cut_out(np.stack([image, image]), 1.2, 4.0, 2.5).values.shape == (2, 3, 4)
