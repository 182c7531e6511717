"""Light from the sky lands in the slices that look there."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from recipes.muse import Detector, Lamp
from recipes.simulator.atmosphere import extinction, refraction, transmission
from recipes.simulator.celestial import MASK_ZERO, NightSky, Pinholes, Twilight, twilight_field
from recipes.simulator.field import slice_places
from recipes.simulator.optics import Real, draw_slices
from recipes.simulator.pointing import Pointing, parallactic_angle, sidereal_time
from recipes.simulator.scenes import Scene
from recipes.simulator.stars import STANDARDS, Star, Target, highest, sky_position

MODE = "WFM-NOAO-N"
SMALL = Detector(nx=104, ny=90, margin=12)
CHANNEL = 12
STAR = Star(magnitude=11.0, temperature=20000.0)


def sky(**changes: object) -> NightSky:
    plain = NightSky(mode=MODE, airmass=1.0, parallactic_angle=0.0, seeing=0.8, stars=(STAR,), middle=(8.0, -5.5))
    return replace(plain, **changes)  # type: ignore[arg-type]


def field_light(scene: Scene, wavelength: float) -> tuple[Real, Real, Real]:
    """Return field x, y and light at one wavelength, over all slices of the channel."""
    made = []
    for which in draw_slices(1, CHANNEL):
        position = np.linspace(-0.5, 0.5, 77)[None, :]
        light = scene.light(CHANNEL, which, position, np.full(position.shape, wavelength))
        x, y = slice_places(CHANNEL)[which.number - 1].at(position)
        made.append((x[0], y[0], np.zeros(77) if light is None else light[0]))
    x, y, light_of_all = (np.concatenate(part) for part in zip(*made, strict=True))
    return x, y, light_of_all


def centroid(scene: NightSky, wavelength: float) -> tuple[float, float]:
    x, y, light = field_light(scene, wavelength)
    _, _, empty = field_light(replace(scene, stars=()), wavelength)
    star = light - empty
    return float(np.average(x, weights=star**2)), float(np.average(y, weights=star**2))


def test_a_star_is_where_it_was_put() -> None:
    assert centroid(sky(), 7000.0) == pytest.approx((8.0, -5.5), abs=0.1)


def test_a_star_gives_the_electrons_of_its_magnitude() -> None:
    scene = sky(airmass=1.2)
    _, _, light = field_light(scene, 7000.0)
    _, _, empty = field_light(replace(scene, stars=()), 7000.0)
    photon = 1.98644586e-8 / 7000
    expected = float(STAR.flux(np.array(7000.0))) / photon * 483250.7 * 1.25 * 0.328
    expected *= 10 ** (-0.4 * 1.2 * float(extinction(np.array(7000.0))))
    # The channel is 12 slices high: what falls beside it is lost, a few per cent of a Moffat star.
    assert (light - empty).sum() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(("angle", "east", "north"), [(0.0, 0, 1), (90.0, 1, 0), (180.0, 0, -1), (-90.0, -1, 0)])
def test_refraction_lifts_blue_light_towards_the_zenith(angle: float, east: int, north: int) -> None:
    scene = sky(airmass=1.5, parallactic_angle=angle)
    blue, red = centroid(scene, 5000.0), centroid(scene, 9000.0)
    lift = float(refraction(np.array(5000.0), 1.5) - refraction(np.array(9000.0), 1.5)) / 0.2
    assert lift > 2
    # x runs to the west. The slices sample y in steps of their height, so y is known less well.
    assert red[0] - blue[0] == pytest.approx(east * lift, abs=0.15)
    assert blue[1] - red[1] == pytest.approx(north * lift, abs=0.5)


def test_a_star_in_the_south_before_the_meridian_has_the_zenith_at_its_north_and_west() -> None:
    time = datetime(2026, 6, 18, 3, tzinfo=UTC)
    rising = Pointing(ra=(sidereal_time(time) * 15 + 30) % 360, dec=-60.0)
    assert -90 < parallactic_angle(rising, time) < 0
    assert 0 < parallactic_angle(replace(rising, ra=rising.ra - 60), time) < 90


def test_telluric_bands_absorb_and_grow_with_airmass() -> None:
    one, two = transmission(1.0), transmission(2.0)
    assert np.all(two <= one)
    assert one.min() < 0.6


def test_twilight_is_brighter_on_one_side() -> None:
    x, y, light = field_light(Twilight(MODE, 10.0), 7000.0)
    assert light / light.mean() == pytest.approx(twilight_field(x, y) / twilight_field(x, y).mean(), abs=1e-4)


def test_higher_slices_are_lit_at_lower_positions_of_the_mask() -> None:
    lamps = (Lamp.NEON, Lamp.MERCURY_CADMIUM)
    places = {place.sky: (k, place) for k, place in enumerate(slice_places(CHANNEL))}
    slices = draw_slices(1, CHANNEL)

    def brightest(sky_slice: int) -> float:
        which = slices[places[sky_slice][0]]
        position = np.linspace(-0.5, 0.5, 77)[None, :]
        stages = MASK_ZERO + np.arange(-0.3, 0.3, 0.01)
        flux = []
        for stage in stages:
            light = Pinholes(lamps, MODE, float(stage)).light(CHANNEL, which, position, np.full((1, 77), 7032.4))
            flux.append(0.0 if light is None else float(light.sum()))
        return float(stages[np.argmax(flux)])

    one, other = brightest(23), brightest(24)
    assert one - other == pytest.approx(0.2 / 1.705, abs=0.02)


def test_each_slice_shows_three_pinholes() -> None:
    which = draw_slices(1, CHANNEL)[20]
    place = slice_places(CHANNEL)[20]
    position = np.linspace(-0.5, 0.5, 771)[None, :]
    scene = Pinholes((Lamp.NEON,), MODE, MASK_ZERO - place.y * 0.2 / 1.705)
    light = scene.light(CHANNEL, which, position, np.full(position.shape, 7032.4))
    assert light is not None
    inner = light[0][1:-1]
    peaks = np.count_nonzero((inner > light[0][:-2]) & (inner >= light[0][2:]) & (inner > 0.3 * light.max()))
    assert peaks == 3


def test_the_highest_standard_is_the_one_nearest_the_zenith() -> None:
    time = datetime(2026, 6, 18, 9, 31, tzinfo=UTC)
    assert highest(STANDARDS, time).name == "Feige110"


def test_a_star_to_the_west_has_less_right_ascension() -> None:
    field = Target(name="field", ra=100.0, dec=-60.0)
    ra, dec = sky_position(field, Star(magnitude=15, temperature=5000, x=100, y=50))
    assert ra == pytest.approx(100 - 20 / 3600 / 0.5, abs=1e-5)
    assert dec == pytest.approx(-60 + 10 / 3600, abs=1e-5)
