"""muse_flat on a small detector: the flat itself, its bad pixels and its statistics."""

import numpy as np
import pytest
from arrays import ArrayImage, ArrayStack, as_calibration, simulated_stack
from numpy.polynomial import Polynomial

from recipes import bias, dark
from recipes.flat import RECIPE, FlatParams, flag_bad_pixels, reduce
from recipes.muse import Detector, Flag
from recipes.recipe import Channel, Image, ParameterError, Result, Table
from recipes.simulator.chip import draw_chip
from recipes.simulator.optics import draw_slices
from recipes.simulator.scenes import Continuum, render
from recipes.trace import Trace

DETECTOR = Detector(nx=180, ny=300, margin=32)
SEED, CHANNEL = 3, 7
CHIP = draw_chip(SEED, CHANNEL, DETECTOR)
RATE = 30000 * render(Continuum("WFM-NOAO-N"), SEED, CHANNEL, DETECTOR)
RATE *= np.float32(25000 / RATE.mean())
PARAMS = FlatParams(nsum=8, samples=True)


@pytest.fixture(scope="module")
def master_bias() -> ArrayImage:
    channel = Channel(number=CHANNEL, stacks={"BIAS": simulated_stack(CHIP, 11, seed=2)}, detector=DETECTOR)
    return as_calibration(bias.reduce(channel, bias.BiasParams()).products[0])


@pytest.fixture(scope="module")
def stack() -> ArrayStack:
    return simulated_stack(CHIP, 5, exptime=1.0, rate=RATE)


@pytest.fixture(scope="module")
def result(stack: ArrayStack, master_bias: ArrayImage) -> Result:
    channel = Channel(number=CHANNEL, stacks={"FLAT": stack}, images={"MASTER_BIAS": master_bias}, detector=DETECTOR)
    return reduce(channel, PARAMS)


def plane(result: Result) -> Image:
    content = result.products[0].content
    assert isinstance(content, Image)
    return content


def values(result: Result, product: int = 0) -> dict[str, float]:
    return {measurement.name: float(measurement.value) for measurement in result.products[product].measurements}


def test_the_flat_is_the_light_over_its_mean(result: Result) -> None:
    image = plane(result)
    good = (image.dq == 0) & (RATE > 1000)
    ratio = image.data[good] / (RATE[good] / RATE.mean())
    assert np.median(ratio) == pytest.approx(1, abs=5e-4)
    pull = (image.data - RATE / RATE.mean())[good] / np.sqrt(image.stat[good])
    assert pull.std() == pytest.approx(1, abs=0.04)
    assert image.data.mean() == pytest.approx(1, abs=1e-5)
    assert image.unit == "count"


def test_statistics_are_those_before_normalization(result: Result) -> None:
    found = values(result)
    assert found["FLAT MASTER MEAN"] == pytest.approx(RATE.mean(), rel=2e-3)
    assert found["FLAT MASTER INTFLUX"] == pytest.approx(RATE.sum(dtype=float), rel=2e-3)
    assert found["FLAT INPUT5 MEDIAN"] == pytest.approx(np.median(RATE), rel=5e-3)
    assert found["FLAT INPUT1 STDEV"] == pytest.approx(RATE.std(), rel=0.02)  # with its cosmic rays
    slices = draw_slices(SEED, CHANNEL, DETECTOR)
    for number, which in enumerate(slices, start=1):
        window = RATE[199:400, round(which.left(300)) : round(which.right(300)) - 1]
        assert found[f"FLAT MASTER SLICE{number} MEAN"] == pytest.approx(window.mean(), rel=2e-3)
        assert found[f"FLAT MASTER SLICE{number} STDEV"] == pytest.approx(window.std(), rel=0.1)


def test_dark_pixels_inside_slices_are_flagged(result: Result) -> None:
    rows, columns = CHIP.insensitive.rows, CHIP.insensitive.columns
    lit = np.zeros(DETECTOR.shape, bool)
    y = np.arange(1, DETECTOR.shape[0] + 1)
    for which in draw_slices(SEED, CHANNEL, DETECTOR):
        for row, left, right in zip(y - 1, which.left(y), which.right(y), strict=True):
            lit[row, int(left) + 3 : int(right) - 4] = True
    inside = lit[rows, columns]
    flags = plane(result).dq[rows, columns][inside]
    assert (flags & Flag.DARK).all()
    assert len(flags) == inside.sum()


def test_the_trace_follows_the_slices(result: Result) -> None:
    table = result.products[1].content
    assert isinstance(table, Table)
    slices = draw_slices(SEED, CHANNEL, DETECTOR)
    assert len(table["SliceNo"]) == len(slices)
    y = np.arange(1, 601)
    for row, which in enumerate(slices):
        centre = Polynomial([float(table[f"tc0_{power:02d}"][row]) for power in range(6)])
        assert np.abs(centre(y) - which.centre(y)).max() < 0.03


def test_products_are_those_declared_and_the_samples_if_asked_for(result: Result) -> None:
    assert tuple(product.catg for product in result.products) == (*RECIPE.makes, "TRACE_SAMPLES")
    samples = result.products[2].content
    assert isinstance(samples, Table)
    assert len(samples["y"]) > 200
    assert result.products[2].measurements == ()


def test_a_dark_is_subtracted_by_exposure_time(master_bias: ArrayImage) -> None:
    glow = np.full_like(RATE, 1000)  # electrons a second
    darks = simulated_stack(CHIP, 3, exptime=2.0, rate=glow, seed=4)
    images = {"MASTER_BIAS": master_bias}
    master_dark = dark.reduce(
        Channel(number=CHANNEL, stacks={"DARK": darks}, images=images, detector=DETECTOR), dark.DarkParams()
    ).products[0]
    flats = simulated_stack(CHIP, 5, exptime=1.0, rate=RATE + glow)
    channel = Channel(
        number=CHANNEL,
        stacks={"FLAT": flats},
        images=images | {"MASTER_DARK": as_calibration(master_dark)},
        detector=DETECTOR,
    )
    assert values(reduce(channel, PARAMS))["FLAT MASTER MEAN"] == pytest.approx(RATE.mean(), rel=2e-3)


def test_bad_pixels_are_told_from_edges_and_gaps() -> None:
    data = np.full((3, 100), 1000, np.float32) + np.tile(np.array([-10, 10], np.float32), (3, 50))
    data[:, :10] = data[:, 90:] = 0
    data[0, 50], data[0, 60], data[1, 70] = 150, 600, 1400
    data[:, 10:13] = 300  # an edge that is dim over three pixels
    data[2, 95] = 30
    dq = np.zeros(data.shape, np.uint16)
    edges = Trace(
        polynomials=(Polynomial([50.5]), Polynomial([10.6]), Polynomial([90.4])), mean_squares=(0, 0, 0), width=80
    )
    flag_bad_pixels(data, dq, [edges], 1000.0, low=5, high=5)
    assert dq[0, 50] == Flag.DARK | Flag.LOW_SENSITIVITY
    assert dq[0, 60] == Flag.DARK
    assert dq[1, 70] == Flag.HOT
    assert not dq[:, 10:13].any()
    assert dq[2, 95] == 0
    assert dq[0, 95] == Flag.BAD
    assert np.count_nonzero(dq) == 3 + np.count_nonzero(data == 0)


def test_a_flat_without_trace_is_refused() -> None:
    with pytest.raises(ParameterError, match="trace"):
        FlatParams(trace=False)
