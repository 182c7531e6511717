"""muse_bias on a small detector: level, noise, bad columns, and every QC parameter ESO's recipe writes."""

from dataclasses import replace

import numpy as np
import pytest
from arrays import SMALL, ArrayStack, gaussian_stack, simulated_stack, windows

from recipes.bias import RECIPE, BiasParams, LevelHistogram, measure_read_noise, reduce
from recipes.muse import Flag, Quadrant
from recipes.recipe import Channel, Image, Result
from recipes.simulator.chip import draw_chip

CHIP = draw_chip(3, 7, SMALL)


def reduced(stack: ArrayStack, params: BiasParams | None = None) -> Result:
    return reduce(Channel(number=7, stacks={"BIAS": stack}, detector=SMALL), params or BiasParams())


@pytest.fixture(scope="module")
def result() -> Result:
    return reduced(simulated_stack(CHIP, 11))


def plane(result: Result) -> Image:
    content = result.products[0].content
    assert isinstance(content, Image)
    return content


def test_the_master_bias_is_what_the_overscan_does_not_show(result: Result) -> None:
    image = plane(result)
    for quadrant, window in zip(Quadrant, windows(SMALL), strict=True):
        good = image.dq[window] == 0
        residual = np.broadcast_to(CHIP.residual_bias(quadrant), good.shape)[good]
        sigma = CHIP.read_noise[quadrant - 1] / CHIP.gain[quadrant - 1] / 11**0.5
        # The level of a row comes from 29 overscan pixels and its neighbours.
        assert abs((image.data[window][good] - residual).mean()) < 5 * sigma / (29 * SMALL.ny) ** 0.5


def test_variance_is_that_of_the_pixels(result: Result) -> None:
    image = plane(result)
    for window in windows(SMALL):
        good = image.dq[window] == 0
        assert image.data[window][good].var() == pytest.approx(image.stat[window][good].mean(), rel=0.06)


def test_bad_columns_are_flagged_pixel_by_pixel(result: Result) -> None:
    expected = np.zeros(SMALL.shape, np.uint16)
    expected[CHIP.bad.rows, CHIP.bad.columns] = Flag.DEAD
    np.testing.assert_array_equal(plane(result).dq, expected)
    found = {measurement.name: measurement.value for measurement in result.products[0].measurements}
    assert found["BIAS MASTER NBADPIX"] == len(CHIP.bad)


def test_read_noise_is_that_of_the_detector() -> None:
    stack = simulated_stack(replace(CHIP, read_noise=(2.0, 2.5, 3.0, 4.0)), 11)
    for found, truth in zip(measure_read_noise(stack, SMALL), (2.0, 2.5, 3.0, 4.0), strict=True):
        assert found.value == pytest.approx(truth, rel=0.015)
        assert found.error == pytest.approx(truth / (2 * 19 * 19) ** 0.5, rel=0.3)  # of one window


def test_cosmic_rays_do_not_raise_the_read_noise() -> None:
    stack = gaussian_stack(5)
    clean = measure_read_noise(stack, SMALL)
    rng = np.random.default_rng(1)
    for frame in stack.frames:
        frame[rng.integers(0, 500, 30), rng.integers(0, 500, 30)] += 800
    for before, after in zip(clean, measure_read_noise(stack, SMALL), strict=True):
        assert after.value == pytest.approx(before.value, rel=0.03)


def test_raw_levels_are_the_medians_of_the_quadrants_without_their_rims() -> None:
    frame = gaussian_stack(1).frames[0]
    histogram = LevelHistogram(SMALL)
    for start in range(0, len(frame), 50):
        histogram.add(start, frame[start : start + 50])
    cuts = [frame[SMALL.data(quadrant).rows, SMALL.data(quadrant).columns] for quadrant in Quadrant]
    assert histogram.medians() == tuple(np.median(cut) for cut in cuts)


def test_a_level_between_two_counts_is_their_mean() -> None:
    frame = np.where(np.arange(SMALL.raw_shape[1]) % 2, 1000, 1002).astype(np.uint16)
    histogram = LevelHistogram(SMALL)
    histogram.add(0, np.broadcast_to(frame, SMALL.raw_shape))
    assert histogram.medians() == (1001.0,) * 4


def test_slopes_are_those_of_the_detector() -> None:
    chip = replace(CHIP, ramp=(2e-3, 1e-3, -1e-3, -2e-3), bad=replace(CHIP.bad, values=0 * CHIP.bad.values))
    found = {m.name: m.value for m in reduced(simulated_stack(chip, 5)).products[0].measurements}
    # The ramp is counted from the overscan outwards: along -x on the left.
    for quadrant, slope in ((1, -2e-3), (2, 1e-3), (3, -1e-3), (4, 2e-3)):
        assert found[f"BIAS MASTER{quadrant} SLOPE X"] == pytest.approx(slope, abs=2e-4)
        assert found[f"BIAS MASTER{quadrant} SLOPE Y"] == pytest.approx(0, abs=4e-4)


def test_limits_of_the_column_search_are_obeyed() -> None:
    found = reduced(simulated_stack(CHIP, 5), BiasParams(hisigmabadpix=1e6))
    assert not plane(found).dq.any()


def test_saturated_frames_are_reported() -> None:
    stack = gaussian_stack(3)
    stack.frames[1][100:120] = 65535
    result = reduced(stack)
    assert result.warnings == (f"frame 1 has {20 * SMALL.raw_shape[1]} saturated pixels of {608 * 528}.",)
    found = {measurement.name: measurement.value for measurement in result.products[0].measurements}
    assert (found["BIAS INPUT1 NSATURATED"], found["BIAS INPUT2 NSATURATED"]) == (0, 20 * SMALL.raw_shape[1])
    assert found["BIAS MASTER NSATURATED"] == 0


def test_the_recipe_makes_what_it_declares(result: Result) -> None:
    assert tuple(product.catg for product in result.products) == RECIPE.makes
    assert plane(result).unit == "adu"
