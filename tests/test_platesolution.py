"""World coordinates fitted to stars: the truth, outliers, and fields that are filled along one axis only."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from recipes.platesolution import PlateSolution, fit_plate
from recipes.recipe import RecipeError
from recipes.starfield import unproject
from recipes.stats import Real

RA, DEC = 201.697, -47.4795
NOMINAL = (0.2, 0.2)


def sky(x: Real, y: Real, matrix: Real) -> tuple[Real, Real]:
    """RA and DEC of pixels whose origin is at RA, DEC; the matrix is in arcsec."""
    east, north = matrix @ np.stack([x, y]) / 3600
    found = [unproject(float(e), float(n), RA, DEC) for e, n in zip(east, north, strict=True)]
    return np.array([ra for ra, _ in found]), np.array([dec for _, dec in found])


def turned(degrees: float, x_scale: float = 0.2, y_scale: float = 0.2) -> Real:
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix: Real = np.diag([x_scale, y_scale]) @ turn @ np.diag([-1.0, 1.0])
    return matrix


def fitted(x: Real, y: Real, matrix: Real, noise: float = 0.0, *, rounds: int = 2, wild: int = 0) -> PlateSolution:
    rng = np.random.default_rng(1)
    xs, ys = x + rng.normal(0, noise, len(x)), y + rng.normal(0, noise, len(x))
    xs[:wild] += 2.0
    error = np.full(len(x), max(noise, 0.01))
    return fit_plate(
        (xs, ys), (error, error), sky(x, y, matrix),
        reference=(-0.01, -1.2), near=(RA, DEC), scales=NOMINAL, rounds=rounds, limit=3.0,
    )  # fmt: skip


def field(number: int, width: float = 300.0, height: float = 300.0, seed: int = 3) -> tuple[Real, Real]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-width / 2, width / 2, number), rng.uniform(-height / 2, height / 2, number)


@pytest.mark.parametrize("angle", [0.0, 0.3, -20.0, 120.0])
def test_scale_and_angle_of_a_full_field(angle: float) -> None:
    solution = fitted(*field(80), turned(angle, 0.1998, 0.2004), noise=0.03)
    assert solution.scales == pytest.approx((0.1998, 0.2004), rel=1e-4)
    for found in solution.angles:
        assert math.remainder(found - angle, 360) == pytest.approx(0, abs=0.01)
    assert max(solution.errors) < 1e-4
    assert solution.median_residuals == pytest.approx((0.2 * 0.03 * 0.674,) * 2, rel=0.3)


def test_the_cards_put_every_star_where_it_is() -> None:
    x, y = field(30)
    matrix = turned(0.2, 0.1999, 0.2003)
    solution = fitted(x, y, matrix)
    header = fits.Header({keyword.name: keyword.value for keyword in solution.keywords()})
    ra, dec = WCS(header).wcs_pix2world(x, y, 1)
    true = sky(x, y, matrix)
    assert np.abs(ra - true[0]).max() * 3600 < 1e-3
    assert np.abs(dec - true[1]).max() * 3600 < 1e-3
    assert [k.value for k in solution.keywords("S") if k.name == "CRPIX2S"] == [-1.2]


def test_stars_that_stand_out_are_left_out() -> None:
    solution = fitted(*field(40), turned(0.0), noise=0.03, wild=4)
    assert not solution.used[:4].any()
    assert np.count_nonzero(~solution.used) < 8
    assert solution.scales == pytest.approx((0.2, 0.2), rel=1e-4)
    assert fitted(*field(40), turned(0.0), noise=0.03, wild=4, rounds=0).used.all()


@pytest.mark.parametrize("seed", range(6))
def test_three_channels_of_twenty_four_give_a_steady_solution(seed: int) -> None:
    x, y = field(10, height=26.0, seed=seed)
    solution = fitted(x, y, turned(0.1), noise=0.03)
    assert solution.scales[0] == pytest.approx(0.2, rel=2e-4)  # the axis that is filled
    assert solution.scales[1] == pytest.approx(0.2, rel=2e-3)
    assert solution.angles[0] == pytest.approx(0.1, abs=0.1)
    assert solution.angles[1] == pytest.approx(0.1, abs=0.02)
    assert solution.errors[1] > 3 * solution.errors[0]


def test_a_full_field_is_not_held_to_equal_scales() -> None:
    solution = fitted(*field(60), turned(0.0, 0.198, 0.202), noise=0.03)
    assert solution.scales == pytest.approx((0.198, 0.202), rel=2e-4)


def test_too_few_stars_are_refused() -> None:
    with pytest.raises(RecipeError, match="3 stars are left") as error:
        fitted(*field(3), turned(0.0))
    assert error.value.numbers == {"stars": 3}


def test_the_qc1_parameters_say_what_was_found() -> None:
    solution = fitted(*field(50), turned(0.5), noise=0.03)
    found = {m.name: m.value for m in solution.measurements(50)}
    assert found == {
        "ASTRO NSTARS": 50, "ASTRO SCALE X": solution.scales[0], "ASTRO SCALE Y": solution.scales[1],
        "ASTRO ANGLE X": solution.angles[0], "ASTRO ANGLE Y": solution.angles[1],
        "ASTRO MEDRES X": solution.median_residuals[0], "ASTRO MEDRES Y": solution.median_residuals[1],
    }  # fmt: skip
