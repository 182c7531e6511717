"""Differential refraction: against the sky of the simulator, and through the meridian."""

import math
from dataclasses import replace

import numpy as np
import pytest

from recipes.muse import PIXEL
from recipes.recipe import Pointing
from recipes.refraction import (
    displacement,
    mean_parallactic_angle,
    position_angle,
    refraction_applies,
    refractive_index,
)
from recipes.simulator.atmosphere import refraction

WAVELENGTH = np.arange(4750.0, 9350.0, 50.0)
POINTING = Pointing(
    airmass=(1.39, 1.41),
    parallactic_angle=(30.0, 30.0),
    rotator_mode="SKY",
    position_angle=0.0,
    temperature=11.75,
    pressure=746.9,
    humidity=0.0,
)


def test_a_star_is_brought_back_to_where_it_is_at_the_reference() -> None:
    right, up = displacement(WAVELENGTH, POINTING, 7000.0)
    lift = refraction(WAVELENGTH, 1.4) / PIXEL  # towards the zenith, which is at 30 degrees from north through east
    angle = math.radians(30)
    np.testing.assert_allclose(right, lift * math.sin(angle), atol=2e-3)  # east is at -x
    np.testing.assert_allclose(up, -lift * math.cos(angle), atol=2e-3)
    assert np.ptp(up) > 3


def test_the_derotator_turns_the_direction() -> None:
    plain, turned = (
        np.array(displacement(WAVELENGTH, replace(POINTING, position_angle=angle), 7000.0)) for angle in (0.0, 90.0)
    )
    np.testing.assert_allclose(np.hypot(*turned), np.hypot(*plain), rtol=1e-9)
    np.testing.assert_allclose(turned[0], plain[1], atol=1e-9)
    assert position_angle(replace(POINTING, position_angle=20.0)) == -20
    assert position_angle(replace(POINTING, position_angle=20.0, rotator_mode="STAT")) == 20


@pytest.mark.parametrize(
    ("ends", "middle"), [((10.0, 20.0), 15), ((-20.0, -10.0), -15), ((179.0, -175.0), -178), ((-170.0, 178.0), -176)]
)
def test_the_parallactic_angle_passes_through_the_meridian(ends: tuple[float, float], middle: float) -> None:
    assert mean_parallactic_angle(replace(POINTING, parallactic_angle=ends)) == pytest.approx(middle)


def test_water_lowers_the_index() -> None:
    dry, moist = (
        refractive_index(np.array([5000.0]), temperature=11.75, humidity=humidity, pressure=746.9)
        for humidity in (0.0, 100.0)
    )
    assert dry[0] == pytest.approx(1 + 2.08e-4, abs=1e-6)  # at three quarters of the pressure at the sea
    assert 0 < dry[0] - moist[0] < 1e-6


def test_what_the_header_does_not_say_is_an_average_night() -> None:
    known = refractive_index(WAVELENGTH, temperature=11.5, humidity=14.5, pressure=743.0)
    np.testing.assert_array_equal(
        refractive_index(WAVELENGTH, temperature=math.nan, humidity=math.nan, pressure=math.nan), known
    )


def test_nothing_is_corrected_without_direction_or_wish() -> None:
    assert refraction_applies(POINTING, 7000.0)
    assert not refraction_applies(POINTING, -1.0)
    assert not refraction_applies(Pointing(), 7000.0)
    assert not refraction_applies(replace(POINTING, airmass=(0.5, 0.5)), 7000.0)
