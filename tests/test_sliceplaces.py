"""Places of the slices from the spots they show: against the truth, over gaps, and with what cannot be measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_frames import all_places, stages, true_spots

from recipes.muse import HOLE_DISTANCE, SLICES, sky_slice
from recipes.recipe import RecipeError
from recipes.simulator.celestial import FOCAL_SCALE
from recipes.simulator.field import PIXEL, Place, slice_places
from recipes.simulator.optics import Real
from recipes.sliceplaces import Places, geometry_table, place_slices, smooth_places
from recipes.spotpassages import ChannelSpots, Curves, clipped_mean, fit_passages, join_lines, measure_distance

SCALE = FOCAL_SCALE / PIXEL  # pix a mm
WHOLE = stages(-0.5, 0.4875, 0.0125)  # the way of the calibration plan, 80 frames
SHORT = stages(-0.375, 0.2375, 0.0125)  # 50 frames: just the distance of two rows of holes


def spots_of(channels: Sequence[int], heights: Sequence[float] = SHORT) -> dict[int, ChannelSpots]:
    return {number: true_spots(places, heights, noise=0.005) for number, places in all_places(*channels).items()}


def away(found: Mapping[int, Places], quantity: str, reference: int = 12, sky: int = 24) -> Real:
    """How far the places are from the truth, whose origin is moved to where a table's is."""
    origin = {place.sky: place for place in slice_places(reference)}
    zero = {"x": (origin[sky].x + origin[sky + 12].x) / 2, "y": origin[sky].y}.get(quantity, 0.0)
    true = {number: np.array([getattr(place, quantity) for place in slice_places(number)]) for number in found}
    return np.concatenate([getattr(places, quantity) - true[number] + zero for number, places in found.items()])


LIMITS = {"x": 0.01, "y": 0.002, "angle": 0.002, "width": 0.02}


@pytest.mark.parametrize("heights", [SHORT, WHOLE], ids=["50 frames", "80 frames"])
def test_slices_are_found_where_they_are(heights: Sequence[float]) -> None:
    field = place_slices(spots_of((11, 12, 13), heights))
    assert field.warnings == ()
    for quantity, limit in LIMITS.items():
        assert np.abs(away(field.places, quantity)).max() < limit


def test_errors_are_those_of_the_places() -> None:
    found = [
        place_slices({12: true_spots(slice_places(12), SHORT, lines=20, noise=0.02, seed=seed)}) for seed in range(8)
    ]
    for quantity, least in {"x": 0.8, "width": 0.8, "y": 0.5, "angle": 0.5}.items():
        pulls = [away(field.places, quantity) / getattr(field.places[12], f"{quantity}_error") for field in found]
        assert least < np.std(np.concatenate(pulls)) < 1.8


def test_a_channel_that_is_missing_leaves_a_guess() -> None:
    field = place_slices(spots_of((10, 12, 13)))
    assert "between channels 10 and 12" in field.warnings[0]
    assert np.abs(away(field.places, "y")).max() < 0.01  # simulated channels are 12 slices apart


@given(st.floats(-4.0, 4.0), st.integers(2, 23))
@settings(max_examples=8, deadline=None)
def test_where_the_series_begins_does_not_matter(offset: float, channel: int) -> None:
    heights = stages(offset, offset + 0.6125, 0.0125)
    field = place_slices(
        {number: true_spots(slice_places(number), heights, lines=2) for number in (channel, channel + 1)}
    )
    reference = (12, 24) if 12 in field.places else (min(field.places, key=lambda n: (n < 13, abs(n - 13))), 18)
    for quantity, limit in {"x": 0.001, "y": 0.003, "angle": 0.003, "width": 0.001}.items():
        assert np.abs(away(field.places, quantity, *reference)).max() < limit


@pytest.mark.parametrize(("channels", "reference", "sky"), [((14, 15), 14, 18), ((10, 11), 11, 18), ((12, 13), 12, 24)])
def test_the_origin_is_that_of_eso(channels: tuple[int, ...], reference: int, sky: int) -> None:
    places = place_slices(spots_of(channels)).places[reference]
    numbers = [number for number in range(1, SLICES + 1) if sky_slice(number) in (sky, sky + 12)]
    assert places.x[np.array(numbers) - 1].mean() == pytest.approx(0, abs=1e-12)
    assert places.y[next(n for n in numbers if sky_slice(n) == sky) - 1] == 0


def test_slices_without_spots_are_left_open() -> None:
    spots = spots_of((12, 13))
    spots[13].place[:, 4] = np.nan
    spots[13].flux[:, 4] = np.nan
    spots[13].place[:, 20:22] = np.nan
    field = place_slices(spots)
    assert field.warnings == ("3 slices of channel 13 could not be measured: 5, 21, 22 on the detector.",)
    table = geometry_table(field.places)
    open_rows = (table["SubField"] == 13) & np.isin(table["SliceCCD"], (5, 21, 22))
    for name in ("x", "y", "xerr", "yerr", "angleerr", "widtherr"):
        assert np.isnan(table[name][open_rows]).all()
        assert np.isfinite(table[name][~open_rows]).all()
    assert (table["angle"][open_rows] == 0).all()
    assert (table["width"][open_rows] == 0).all()
    good = np.isfinite(away(field.places, "y"))
    assert np.abs(away(field.places, "y")[good]).max() < LIMITS["y"]


def test_the_table_is_in_the_order_of_the_sky() -> None:
    table = geometry_table(place_slices(spots_of((13, 12))).places)
    assert table["SubField"].tolist() == [12] * 48 + [13] * 48
    assert table["SliceSky"].tolist() == list(range(1, 49)) * 2
    assert [sky_slice(number) for number in table["SliceCCD"][:48]] == list(range(1, 49))
    for first in range(0, 96, 12):
        assert (np.diff(table["y"][first : first + 12]) > 0.9).all()
    assert [(c.name, c.values.dtype.str[1:], c.unit) for c in table.columns] == [
        ("SubField", "i4", ""), ("SliceCCD", "i4", ""), ("SliceSky", "i4", ""), ("x", "f8", "pix"), ("y", "f8", "pix"),
        ("angle", "f8", "deg"), ("width", "f8", "pix"), ("xerr", "f8", "pix"), ("yerr", "f8", "pix"),
        ("angleerr", "f8", "deg"), ("widtherr", "f8", "pix"),
    ]  # fmt: skip


def test_a_mask_that_moves_the_wrong_way_is_noticed() -> None:
    spots = spots_of((12,))
    turned = {number: replace(one, flux=one.flux[..., ::-1]) for number, one in spots.items()}
    with pytest.raises(RecipeError, match="lit at lower positions"):
        place_slices(turned)


def test_frames_that_see_no_passage_are_refused() -> None:
    spots = spots_of((12,))
    flat = {number: replace(one, flux=np.full_like(one.flux, 1000.0)) for number, one in spots.items()}
    with pytest.raises(RecipeError, match="No slice of any channel"):
        place_slices(flat)


def test_the_stage_is_gauged_by_the_distance_of_the_holes() -> None:
    spots = spots_of((12,), WHOLE)[12]
    stretched = {12: replace(spots, heights=13.0 + (spots.heights - 13.0) * 1.004)}
    distance = measure_distance([join_lines(one) for one in stretched.values()])
    assert distance == pytest.approx(HOLE_DISTANCE[1] * 1.004, rel=1e-4)
    assert np.abs(away(place_slices(stretched).places, "y")).max() < LIMITS["y"]
    short = [join_lines(one) for one in spots_of((12,), SHORT).values()]
    assert measure_distance(short) == HOLE_DISTANCE[1]  # no spot shows two passages as a whole


def test_rows_of_holes_may_differ_in_brightness() -> None:
    heights = np.array(WHOLE)
    centre = 13.6
    values = np.zeros(len(heights))
    for row, brightness in ((0, 1.0), (1, 0.6)):
        values += brightness * np.exp(-(((heights - centre - row * HOLE_DISTANCE[1]) / 0.053) ** 2) / 2)
    curve = Curves(heights=heights, values=values[None] / values.sum(), errors=np.full((1, len(heights)), 1e-4))
    found = fit_passages(curve, HOLE_DISTANCE[1])
    assert found.height[0] == pytest.approx(centre, abs=1e-5)
    assert found.sigma[0] == pytest.approx(0.053, abs=1e-4)


def test_a_cosmic_ray_in_one_line_does_not_count() -> None:
    spots = spots_of((12,))[12]
    clean = join_lines(spots)
    spots.flux[2, 10, 1, 7] += 3e5
    hit = join_lines(spots)
    assert hit.values[31] == pytest.approx(clean.values[31], abs=3 * float(clean.errors[31].max()))


def test_a_clipped_mean_leaves_out_what_stands_alone() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(10, 1, (200, 50))
    values[0], values[1] = 1000, np.nan
    mean, error = clipped_mean(values, np.ones_like(values))
    assert np.abs(mean - 10).max() < 0.4
    assert np.median(error) == pytest.approx(1 / np.sqrt(198), rel=0.05)
    single, unknown = clipped_mean(np.array([[3.0], [np.nan]]), np.ones((2, 1)))
    assert (single[0], unknown[0]) == (3.0, np.inf)
    assert np.isnan(clipped_mean(np.full((2, 1), np.nan), np.ones((2, 1)))[0][0])


def straight() -> Places:
    sky = np.array([sky_slice(number) for number in range(1, SLICES + 1)])
    stack, rank = np.divmod(sky - 1, 12)
    rng = np.random.default_rng(1)
    x, y = (stack - 1.5) * 75.9 + 0.02 * rank, rank + rng.normal(0, 0.01, SLICES)
    angle, width = 0.01 * stack + rng.normal(0, 0.005, SLICES), 75.5 + rng.normal(0, 0.02, SLICES)
    small = np.full(SLICES, 1e-3)
    return Places(
        x=x + rng.normal(0, 0.03, SLICES), y=y, angle=angle, width=width,
        x_error=small, y_error=small.copy(), angle_error=small.copy(), width_error=small.copy(),
    )  # fmt: skip


def test_smoothing_moves_the_badly_measured_alone() -> None:
    places = straight()
    same, replaced = smooth_places({12: places}, 1.5)
    assert replaced == {"x": 0, "y": 0, "angle": 0, "width": 0}  # scatter that is real stays
    assert (same[12].x == places.x).all()
    places.y[7] += 0.3
    places.y_error[7] = 0.2  # above what is ever kept
    places.width[30] += 0.2
    places.width_error[30] = 0.1
    smooth, replaced = smooth_places({12: places}, 1.5)
    assert replaced == {"x": 0, "y": 1, "angle": 0, "width": 1}
    assert smooth[12].y[7] == pytest.approx(straight().y[7], abs=0.05)
    assert smooth[12].width[30] == pytest.approx(75.5, abs=0.05)
    assert np.delete(smooth[12].width, 30) == pytest.approx(np.delete(places.width, 30), abs=0)


def test_a_place_knows_its_slice() -> None:
    assert [sky_slice(number) for number in range(1, SLICES + 1)] == [place.sky for place in slice_places(3)]
    assert isinstance(slice_places(3)[0], Place)
