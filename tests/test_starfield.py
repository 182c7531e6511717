"""Stars of a list told by their pattern, and the projection of the sky."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sky_channel import ArraySource

from recipes.recipe import Column, Extensions, Pointing, RecipeError, Table, TableSource
from recipes.simulator.stars import FIELDS, Star, sky_position
from recipes.starfield import choose_field, identify, project, unproject
from recipes.stats import Real

POINTING = Pointing(ra=201.697, dec=-47.4795)


def stars(number: int, seed: int = 1, half: float = 170.0) -> tuple[Real, Real]:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-half, half, (2, number))
    return x, y


def seen(
    x: Real, y: Real, shift: complex = 0j, turn: float = 0.0, scale: float = 1.0, noise: float = 0.1
) -> tuple[Real, Real]:
    """Where a camera sees stars that is off by a shift (pix), an angle (degrees) and a scale."""
    rng = np.random.default_rng(2)
    moved = (x + 1j * y) * scale * np.exp(1j * math.radians(turn)) + shift
    return moved.real + rng.normal(0, noise, len(x)), moved.imag + rng.normal(0, noise, len(x))


@given(st.floats(-90, 90), st.floats(-80, 80), st.floats(-0.02, 0.02), st.floats(-0.02, 0.02))
def test_the_projection_comes_back(ra: float, dec: float, xi: float, eta: float) -> None:
    there = unproject(xi, eta, ra, dec)
    east, north = project(np.array([there[0]]), np.array([there[1]]), ra, dec)
    assert (east[0], north[0]) == pytest.approx((xi, eta), abs=1e-9)


def test_the_projection_is_that_of_the_sky() -> None:
    field = FIELDS[0]
    ra, dec = sky_position(field, Star(magnitude=15.0, temperature=5000.0, x=100.0, y=-50.0))
    east, north = project(np.array([ra]), np.array([dec]), field.ra, field.dec)
    assert (east[0], north[0]) == pytest.approx((-20 / 3600, -10 / 3600), abs=1e-9)
    assert np.isnan(project(np.array([180.0]), np.array([0.0]), 0.0, 0.0)).all()


@pytest.mark.parametrize(
    ("shift", "turn", "scale"),
    [(0j, 0.0, 1.0), (12 - 20j, 0.5, 1.01), (40 + 5j, -2.5, 0.985), (3 + 3j, 137.0, 1.0)],
)
def test_every_star_is_identified_under_shift_turn_and_scale(shift: complex, turn: float, scale: float) -> None:
    x, y = stars(120)
    order = np.random.default_rng(3).permutation(60)  # detections are in another order of brightness
    xd, yd = seen(x[:60], y[:60], shift, turn, scale)
    found = identify((xd[order], yd[order]), (x, y), 3.0)
    assert (found == order).all()


def test_detections_that_are_no_stars_stay_alone() -> None:
    x, y = stars(80)
    xd, yd = seen(x[:40], y[:40])
    xs, ys = stars(6, seed=9)
    found = identify((np.append(xd, xs), np.append(yd, ys)), (x, y), 1.0)
    assert (found[:40] == np.arange(40)).all()
    assert np.count_nonzero(found[40:] >= 0) <= 1
    assert len(np.unique(found[found >= 0])) == np.count_nonzero(found >= 0)


@given(st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_narrow_field_is_enough(seed: int) -> None:
    """Three channels of twenty-four: 36 pix high, with some fifteen stars."""
    x, y = stars(220, seed, half=180.0)
    inside = np.flatnonzero((np.abs(x) < 150) & (np.abs(y) < 18))
    xd, yd = seen(x[inside], y[inside], 5 - 4j, 0.2, noise=0.2)
    if len(inside) >= 8:
        assert (identify((xd, yd), (x, y), 3.0) == inside).all()


def test_another_field_is_not_taken_for_this_one() -> None:
    xd, yd = stars(40, seed=5)
    with pytest.raises(RecipeError, match="of 40 detections were found") as error:
        identify((xd, yd), stars(100, seed=6), 2.0)
    assert error.value.numbers["detected"] == 40


def test_too_few_stars_are_refused() -> None:
    with pytest.raises(RecipeError, match="3 stars were detected"):
        identify(stars(3), stars(100), 3.0)


def catalogue(*fields: tuple[str, float, float]) -> ArraySource:
    rng = np.random.default_rng(1)
    found = []
    for name, ra, dec in fields:
        mag = rng.uniform(13, 20, 5)
        values = {"RA": ra + rng.normal(0, 0.001, 5), "DEC": dec + rng.normal(0, 0.001, 5), "mag": mag}
        columns = tuple(Column(name=key, values=value) for key, value in values.items())
        found.append(TableSource(Table(columns=columns, name=name), {"EXTNAME": name, "RA": ra, "DEC": dec}))

    class Catalogue(ArraySource):
        @property
        def tables(self) -> tuple[TableSource, ...]:
            return tuple(found)

    return Catalogue(Extensions())


def test_the_nearest_field_is_chosen_with_its_brightest_star_first() -> None:
    source = catalogue(("one", 10.0, 10.0), ("two", POINTING.ra, POINTING.dec + 5 / 3600), ("three", 201.8, -47.4))
    field = choose_field(source, POINTING)
    assert (field.name, field.warnings()) == ("two", ())
    assert field.distance == pytest.approx(5, abs=1e-6)
    assert field.ra[0] == source.tables[1].table["RA"][np.argmin(source.tables[1].table["mag"])]


def test_a_field_further_away_is_worth_a_warning_and_one_far_away_an_error() -> None:
    field = choose_field(catalogue(("near", POINTING.ra, POINTING.dec + 30 / 3600)), POINTING)
    assert "30.0 arcsec from the pointing" in field.warnings()[0]
    with pytest.raises(RecipeError, match="60 is the limit"):
        choose_field(catalogue(("far", POINTING.ra, POINTING.dec + 61 / 3600)), POINTING)
    with pytest.raises(RecipeError, match="60 is the limit"):
        choose_field(catalogue(("far", 21.697, 47.4795)), POINTING)
    with pytest.raises(RecipeError, match="nan arcsec"):
        choose_field(catalogue(("any", 10.0, 10.0)), replace(POINTING, ra=math.nan))
