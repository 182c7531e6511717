"""muse_dark on a small detector: dark current, hot pixels, exposure times."""

from dataclasses import replace

import numpy as np
import pytest
from arrays import SMALL, ArrayImage, ArrayStack, as_calibration, simulated_stack, windows

from recipes import bias
from recipes.dark import DarkParams, flag_hot_pixels, reduce
from recipes.muse import Flag, Quadrant
from recipes.recipe import Channel, Image, ParameterError, RecipeError, Result
from recipes.simulator.chip import draw_chip

CHIP = replace(draw_chip(3, 7, SMALL), dark=(1.0, 20.0, 40.0, 2.0))


@pytest.fixture(scope="module")
def master_bias() -> ArrayImage:
    channel = Channel(number=7, stacks={"BIAS": simulated_stack(CHIP, 11, seed=2)}, detector=SMALL)
    return as_calibration(bias.reduce(channel, bias.BiasParams()).products[0])


def reduced(stack: ArrayStack, master_bias: ArrayImage, params: DarkParams | None = None) -> Result:
    channel = Channel(number=7, stacks={"DARK": stack}, images={"MASTER_BIAS": master_bias}, detector=SMALL)
    return reduce(channel, params or DarkParams())


@pytest.fixture(scope="module")
def result(master_bias: ArrayImage) -> Result:
    return reduced(simulated_stack(CHIP, 5, exptime=1800.0), master_bias)


def plane(result: Result) -> Image:
    content = result.products[0].content
    assert isinstance(content, Image)
    return content


def values(result: Result) -> dict[str, int | float | str]:
    return {measurement.name: measurement.value for measurement in result.products[0].measurements}


def test_the_dark_current_of_each_quadrant_is_that_of_the_detector_in_an_hour(result: Result) -> None:
    image = plane(result)
    for quadrant, window in zip(Quadrant, windows(SMALL), strict=True):
        good = image.dq[window] == 0
        # The bias level of five frames and of the bias is known to 0.05 electrons, of an hour to 0.1.
        assert image.data[window][good].mean() == pytest.approx(CHIP.dark[quadrant - 1], abs=0.3)
    assert result.products[0].exptime == 3600
    assert image.unit == "count"


def test_every_hot_pixel_is_flagged(result: Result) -> None:
    image = plane(result)
    assert (image.dq[CHIP.hot.rows, CHIP.hot.columns] & Flag.HOT).all()
    assert np.count_nonzero(image.dq & np.uint16(Flag.HOT)) == values(result)["DARK MASTER NBADPIX"]
    # Noise passes five mean absolute deviations, four sigma, in 3 of 100 000 pixels; a Poisson tail in more.
    assert np.count_nonzero(image.dq & np.uint16(Flag.HOT)) < len(CHIP.hot) + 60


def test_flags_of_the_bias_are_kept(result: Result) -> None:
    assert (plane(result).dq[CHIP.bad.rows, CHIP.bad.columns] & Flag.DEAD).all()


def test_cosmic_rays_are_gone(result: Result) -> None:
    image = plane(result)
    good = image.dq == 0
    excess = (image.data - np.median(image.data))[good] / np.sqrt(image.stat[good])
    # Five frames of 1830 s on this small a detector: 1800 pixels were hit.
    assert excess.max() < 30


def test_the_variance_holds_read_noise_and_that_of_the_bias(result: Result) -> None:
    image = plane(result)
    for window in windows(SMALL):
        good = image.dq[window] == 0
        spread = np.subtract(*np.quantile(image.data[window][good], (0.841, 0.159))) / 2
        assert spread**2 == pytest.approx(image.stat[window][good].mean(), rel=0.12)


def test_frames_of_other_exposure_times_are_scaled_to_the_first(master_bias: ArrayImage) -> None:
    long, short = (simulated_stack(CHIP, 3, exptime=time, seed=int(time)) for time in (3600.0, 1800.0))
    mixed = ArrayStack([*long.exposures, *short.exposures], [*long.frames, *short.frames])
    image = plane(reduced(mixed, master_bias))
    window = windows(SMALL)[2]
    assert image.data[window][image.dq[window] == 0].mean() == pytest.approx(40, abs=0.5)


def test_statistics_leave_flagged_pixels_out(result: Result) -> None:
    found = values(result)
    assert isinstance(found["DARK MASTER MAX"], float)
    assert found["DARK MASTER MAX"] < 200
    assert found["DARK MASTER DC"] == pytest.approx(np.median([1, 20, 40, 2]), abs=10)


def test_a_dark_current_out_of_range_is_told(result: Result) -> None:
    assert "electrons an hour is not likely; 0 to 10 are" in result.warnings[0]


def test_hot_pixels_are_counted_above_the_median_by_mean_absolute_deviations() -> None:
    data = np.tile(np.array([-1, 0, 0, 1], np.float32), (SMALL.shape[0], SMALL.nx // 2))  # median 0, deviation 0.5
    data[5, 5], data[6, 6] = 2.4, 2.6
    dq = np.zeros(SMALL.shape, np.uint16)
    assert flag_hot_pixels(data, dq, SMALL, 5.0) == 1
    assert dq[6, 6] == Flag.HOT


def test_a_bias_without_its_read_noise_is_refused(master_bias: ArrayImage) -> None:
    bare = replace(master_bias, measurements={})
    with pytest.raises(RecipeError, match="no QC BIAS MASTER1 RON"):
        reduced(simulated_stack(CHIP, 3, exptime=10.0), bare)


def test_the_model_of_eso_is_refused() -> None:
    with pytest.raises(ParameterError, match="model"):
        DarkParams(model=True)
