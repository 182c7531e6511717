"""A combination has the noise of a mean, and none of the outliers."""

from dataclasses import replace

import numpy as np
import pytest
from arrays import SMALL, ArrayStack, gaussian_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recipes.combine import (
    ROUNDING,
    CombinationParams,
    Frames,
    Noise,
    clipped_mean,
    combine,
    corrected_rows,
)
from recipes.detector import Overscan, OverscanParams, measure_overscan
from recipes.muse import Detector, Flag
from recipes.recipe import Exposure, Image, ParameterError

TINY = Detector(nx=12, ny=10, margin=4)
GAIN, SIGMA = 1.1, 2.5
NOISE = Noise(read_noise=(SIGMA * GAIN,) * 4, gains=(GAIN,) * 4)
PARAMS = CombinationParams()


def flat_overscan(detector: Detector, level: float) -> Overscan:
    """An overscan known exactly."""
    levels = np.full((2 * detector.ny, 2), level, np.float32)
    return Overscan(levels=levels, polynomials=(), means=(level,) * 4, stdevs=(SIGMA,) * 4, saturated=0)


def frames_of(stack: ArrayStack, detector: Detector = SMALL, *, level: float = 1200.0) -> Frames:
    return Frames(stack=stack, overscans=[flat_overscan(detector, level)] * len(stack.frames), detector=detector)


def whole(
    frames: Frames, noise: Noise = NOISE, params: CombinationParams = PARAMS
) -> tuple[NDArray[np.float32], NDArray[np.uint16], NDArray[np.float32], NDArray[np.uint16]]:
    """Mean, number, variance and flags of a combination."""
    blocks = list(combine(frames, noise, params))
    assert [row for block in blocks for row in range(block.rows.start, block.rows.stop)] == list(
        range(frames.detector.shape[0])
    )
    return (
        np.concatenate([block.data for block in blocks]),
        np.concatenate([block.number for block in blocks]),
        np.concatenate([block.variance for block in blocks]),
        np.concatenate([block.dq for block in blocks]),
    )


@pytest.mark.parametrize("count", [3, 5, 11, 25])
def test_the_noise_is_within_three_per_cent_of_that_of_a_mean(count: int) -> None:
    mean, _, variance, _ = whole(frames_of(gaussian_stack(count, noise=SIGMA, level=1200.0)), NOISE)
    ideal = ((SIGMA**2 + ROUNDING) / count) ** 0.5
    assert 0.99 < mean.std() / ideal < 1.03
    # The signal is 0, of which noise makes a little now and then: 3 % of variance at most.
    assert 0.97 < variance.mean() / mean.var() < 1.1
    assert abs(mean.mean()) < 5 * ideal / mean.size**0.5


@pytest.mark.parametrize("count", [3, 5, 11])
@pytest.mark.parametrize("amplitude", [6.0, 8.0, 30.0, 2000.0, -6.5, -30.0])
def test_no_outlier_above_six_sigma_is_left(count: int, amplitude: float) -> None:
    stack = gaussian_stack(count, noise=SIGMA)
    rng = np.random.default_rng(5)
    y, x = np.divmod(rng.choice(200 * 160, 3000, replace=False), 160)
    frame = rng.integers(0, count, 3000)
    for index in range(count):
        # The value itself is that far from the truth, whatever noise it had.
        here = frame == index
        stack.frames[index][40 + y[here], 40 + x[here]] = round(1200 + amplitude * SIGMA + 0.5 * np.sign(amplitude))
    mean, number, _, _ = whole(frames_of(stack), replace(NOISE, light=False))
    counts, left = number[8 + y, 8 + x], mean[8 + y, 8 + x]
    # Of two good values both may by chance be on the outlier's side, or too far apart to agree with each other.
    assert np.mean(counts == count) < {3: 0.05, 5: 0.01, 11: 0.001}[count]
    assert np.mean(np.abs(left) > 4 * SIGMA) < (0.01 if count == 3 else 1e-9)
    assert left[np.abs(left) < 4 * SIGMA].std() < 1.4 * SIGMA / (count - 1) ** 0.5


def test_two_cosmic_rays_on_one_pixel_of_five_frames_are_both_gone() -> None:
    stack = gaussian_stack(5, noise=SIGMA)
    for index, amplitude in ((1, 300), (3, 5000)):
        stack.frames[index][50:60, 50:60] += amplitude
    mean, number, _, _ = whole(frames_of(stack))
    assert np.abs(mean[18:28, 18:28]).max() < 5 * SIGMA / 3**0.5
    assert number[18:28, 18:28].max() <= 3


def test_of_three_values_that_all_disagree_the_faintest_is_taken() -> None:
    stack = gaussian_stack(3, noise=SIGMA)
    stack.frames[0][50, 50], stack.frames[1][50, 50], stack.frames[2][50, 50] = 5000, 1201, 9000
    mean, number, _, _ = whole(frames_of(stack))
    assert (mean[18, 18], number[18, 18]) == (pytest.approx(1.0), 1)


def test_clean_pixels_have_the_plain_mean_of_all_frames() -> None:
    stack = gaussian_stack(5, noise=SIGMA)
    mean, number, _, _ = whole(frames_of(stack))
    plain = np.mean([frame.astype(float) for frame in stack.frames], axis=0) - 1200
    clean = number[:240, :200] == 5
    np.testing.assert_allclose(mean[:240, :200][clean], plain[32:272, 32:232][clean], atol=1e-3)
    assert clean.mean() > 0.98


def slowly(values: NDArray[np.float64], low: float, high: float) -> float:
    """Clip the values of one pixel by the words of the module's docstring, one after the other."""

    def sigma(signal: float) -> float:
        return float((SIGMA**2 + ROUNDING + max(signal, 0) / GAIN) ** 0.5)

    mean = float(values.mean())
    without_highest = float((values.sum() - values.max()) / (len(values) - 1))
    if values.max() - mean <= high * sigma(without_highest) and mean - values.min() <= low * sigma(without_highest):
        return mean
    width = {3: 4.0, 4: 4.25, 5: 4.5, 6: 4.75, 7: 5.0, 8: 5.25}[len(values)]
    groups = [[other for other in values if value <= other <= value + width * sigma(value)] for value in sorted(values)]
    chosen = max(groups, key=len)
    for _ in range(3):
        mean = float(np.mean(chosen))
        kept = [value for value in values if -low * sigma(mean) <= value - mean <= high * sigma(mean)]
        chosen = kept or chosen
    return float(np.mean(chosen))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 8))
def test_every_pixel_is_what_one_by_one_clipping_gives(seed: int, count: int) -> None:
    stack = gaussian_stack(count, detector=TINY, noise=SIGMA, seed=seed)
    rng = np.random.default_rng(seed)
    for frame in stack.frames:
        hit = rng.random(frame.shape) < 0.15
        frame[hit] += rng.integers(0, 200, int(hit.sum())).astype(np.uint16)
    mean, _, _, _ = whole(frames_of(stack, TINY))
    rows = [*range(4, 14), *range(22, 32)]
    columns = [*range(4, 16), *range(24, 36)]
    values = np.array([frame[np.ix_(rows, columns)] for frame in stack.frames], float) - 1200
    expected = [[slowly(values[:, y, x], 3, 3) for x in range(24)] for y in range(20)]
    np.testing.assert_allclose(mean, expected, atol=2e-3)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(5)))
def test_the_order_of_frames_does_not_matter(order: list[int]) -> None:
    stack = gaussian_stack(5, detector=TINY, noise=SIGMA)
    stack.frames[2][:] += 40
    turned = ArrayStack(stack.exposures, [stack.frames[frame] for frame in order])
    np.testing.assert_allclose(whole(frames_of(turned, TINY))[0], whole(frames_of(stack, TINY))[0], atol=1e-3)


def test_saturated_values_do_not_count_and_pixels_saturated_in_all_frames_are_flagged() -> None:
    stack = gaussian_stack(3, noise=SIGMA)
    stack.frames[0][50, 50] = 0
    stack.frames[1][50, 50] = 65535
    for frame in stack.frames:
        frame[60, 60] = 65535
    mean, number, _, dq = whole(frames_of(stack))
    assert number[18, 18] == 1
    assert mean[18, 18] == int(stack.frames[2][50, 50]) - 1200
    assert (dq[18, 18], dq[28, 28]) == (0, Flag.SATURATED)
    assert mean[28, 28] == 65535 - 1200
    assert np.count_nonzero(dq) == 1


def test_a_lamp_that_drifts_is_no_reason_to_leave_values_out() -> None:
    rng = np.random.default_rng(7)
    brightness = np.array([0.97, 0.99, 1.0, 1.02, 1.03])
    level = 1200 + 40000 * brightness
    frames = [np.rint(rng.normal(one, (one / GAIN) ** 0.5, SMALL.raw_shape)).astype(np.uint16) for one in level]
    stack = ArrayStack([Exposure(name="", exptime=1, gains=(GAIN,) * 4)] * 5, frames)
    steady = whole(frames_of(stack))[1].mean()
    aware = whole(frames_of(stack), replace(NOISE, drift=0.024))[1].mean()
    assert aware > 4.95
    assert steady < aware


def test_background_and_scale_are_applied_to_every_frame() -> None:
    stack = gaussian_stack(3, noise=SIGMA, exptimes=(100.0, 200.0, 50.0))
    for frame, time in zip(stack.frames, (100, 200, 50), strict=True):
        frame[:] += 7 + time  # a bias pattern of 7 adu and 1 adu a second
    shape = SMALL.shape

    def background(rows: slice) -> Image:
        part = (rows.stop - rows.start, shape[1])
        return Image(
            data=np.full(part, 7, np.float32),
            dq=np.full(part, Flag.DEAD, np.uint32),
            stat=np.full(part, 0.5, np.float32),
            unit="adu",
        )

    frames = Frames(
        stack=stack,
        overscans=[flat_overscan(SMALL, 1200)] * 3,
        detector=SMALL,
        background=background,
        scales=(1.0, 0.5, 2.0),
    )
    noise = replace(NOISE, scale=2.0)
    mean, _, variance, dq = whole(frames, noise)
    assert mean.mean() == pytest.approx(100, abs=0.05)
    assert (dq == Flag.DEAD).all()
    assert variance.min() > 0.5
    np.testing.assert_allclose(corrected_rows(frames, 2, slice(300, 310)).mean(), 100, atol=1)


def test_clipping_of_a_single_value_returns_it() -> None:
    values, usable = np.array([[5.0], [900.0]], np.float32), np.array([[False], [True]])
    mean, number = clipped_mean(values, usable, np.ones_like, 3, 3)
    assert (mean[0], number[0]) == (900, 1)


def test_methods_of_eso_that_do_not_exist_here_are_refused() -> None:
    with pytest.raises(ParameterError, match="median"):
        CombinationParams(combine="median")


def test_measured_levels_leave_a_mean_of_zero() -> None:
    stack = gaussian_stack(5, noise=SIGMA, level=1203.4)
    overscans = [measure_overscan(stack, frame, SMALL, OverscanParams()) for frame in range(5)]
    mean = whole(Frames(stack=stack, overscans=overscans, detector=SMALL))[0]
    assert abs(mean.mean()) < 4 * SIGMA / (5 * 4 * 29 * 272) ** 0.5
