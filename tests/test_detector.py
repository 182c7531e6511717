"""The overscan tells the bias level of every row, cosmic rays or not."""

from dataclasses import replace

import numpy as np
import pytest
from arrays import SMALL, ArrayStack, gaussian_stack, simulated_stack

from recipes.detector import (
    OverscanParams,
    check_bias,
    known_flags,
    mark,
    measure_overscan,
    narrowed,
    per_quadrant,
    saturation_warnings,
    trim,
    trimmed_blocks,
)
from recipes.muse import DETECTOR, SATURATION, Flag, Quadrant
from recipes.recipe import Channel, Column, ParameterError, RecipeError, Table, TableSource, Value
from recipes.simulator.chip import draw_chip

PARAMS = OverscanParams()


def test_the_level_of_each_row_is_that_of_the_detector() -> None:
    chip = replace(draw_chip(1, 5, SMALL), drift=(2.0, 1.0, 1.5, 0.5), slope=(1.0, -2.0, 0.5, 3.0))
    stack = simulated_stack(chip, 1)
    found = measure_overscan(stack, 0, SMALL, PARAMS)
    for quadrant in Quadrant:
        window = SMALL.trimmed(quadrant)
        outwards = chip.column_bias(quadrant)[SMALL.margin : -SMALL.margin]
        truth = outwards[::-1] if quadrant.is_upper else outwards
        offset = found.levels[window.rows, int(quadrant.is_right)] - truth
        jitter = offset.mean()  # the level of single frames scatters by 0.15 adu
        assert abs(jitter) < 0.7
        assert np.abs(offset - jitter).max() < 0.25  # 29 pixels a row, 270 rows, noise 2.4 adu, order 4


def test_the_polynomial_in_the_header_gives_the_same_level_at_raw_rows_counted_from_one() -> None:
    stack = gaussian_stack(1)
    found = measure_overscan(stack, 0, SMALL, PARAMS)
    cards = {keyword.name: keyword.value for keyword in found.keywords()}
    for quadrant in Quadrant:
        prefix = f"ESO DRS MUSE OVSC{quadrant} POLY"
        powers = [float(cards[f"{prefix} Y{power}"]) for power in range(int(cards[f"{prefix} NCOEFF"]))]
        raw_rows = np.arange(SMALL.data(quadrant).rows.start, SMALL.data(quadrant).rows.stop) + 1
        expected = found.levels[SMALL.trimmed(quadrant).rows, int(quadrant.is_right)]
        np.testing.assert_allclose(np.polynomial.polynomial.polyval(raw_rows, powers), expected, atol=2e-3)


def test_mean_and_scatter_of_the_overscan_are_those_of_its_pixels() -> None:
    found = measure_overscan(gaussian_stack(1, level=1200, noise=2.5), 0, SMALL, PARAMS)
    assert found.means == pytest.approx([1200] * 4, abs=0.1)
    assert found.stdevs == pytest.approx([(2.5**2 + 1 / 12) ** 0.5] * 4, rel=0.03)


@pytest.mark.parametrize("reject", ["dcr", "none"])
def test_cosmic_rays_in_the_overscan_do_not_move_the_level(reject: str) -> None:
    clean = gaussian_stack(1)
    hit = clean.frames[0].copy()
    hit[100:104, 2 * SMALL.margin + SMALL.nx - 10] = 9000
    params = OverscanParams(ovscreject=reject)
    moved = measure_overscan(ArrayStack(clean.exposures, [hit]), 0, SMALL, params).levels
    still = measure_overscan(clean, 0, SMALL, params).levels
    assert np.abs(moved - still).max() < 0.05


def test_saturated_pixels_are_counted_over_the_whole_frame() -> None:
    stack = gaussian_stack(1)
    stack.frames[0][0, 0] = 0
    stack.frames[0][200, 100] = SATURATION + 1
    stack.frames[0][201, 100] = SATURATION
    found = measure_overscan(stack, 0, SMALL, PARAMS)
    assert found.saturated == 2
    assert saturation_warnings([found], stack.exposures, SMALL) == ()
    stack.frames[0][300:310] = 65535
    found = measure_overscan(stack, 0, SMALL, PARAMS)
    assert "frame 0 has 5282 saturated pixels" in saturation_warnings([found], stack.exposures, SMALL)[0]


def test_an_overscan_that_is_all_ignored_is_refused() -> None:
    narrow = replace(SMALL, margin=4)
    with pytest.raises(RecipeError, match="leaves nothing of an overscan 4 pixels wide"):
        measure_overscan(gaussian_stack(1, detector=narrow), 0, narrow, OverscanParams(ovscignore=4))


def test_choices_of_eso_that_do_not_exist_here_are_refused() -> None:
    with pytest.raises(ParameterError, match="offset"):
        OverscanParams(overscan="offset")


def test_a_bias_of_another_readout_is_refused() -> None:
    stack = gaussian_stack(1)
    found = measure_overscan(stack, 0, SMALL, PARAMS)
    bias: dict[str, Value] = {keyword.name: keyword.value for keyword in found.keywords()}
    check_bias(bias, [found], stack.exposures)
    bias["ESO DRS MUSE OVSC3 MEAN"] = 200.0
    with pytest.raises(
        RecipeError, match=r"quadrant 3 of frame 0 is 1200\.0 adu, that of the master bias 200\.0"
    ) as error:
        check_bias(bias, [found], stack.exposures)
    assert error.value.numbers["quadrant"] == 3


def test_blocks_cover_every_row_once_and_stay_on_one_side_of_the_middle() -> None:
    rows = [row for start, stop, _ in trimmed_blocks(SMALL, 17) for row in range(start, stop)]
    assert rows == list(range(SMALL.shape[0]))
    for start, stop, first in trimmed_blocks(SMALL, 17):
        upper = start >= SMALL.ny
        assert upper == (stop > SMALL.ny)
        assert first == start + SMALL.margin * (3 if upper else 1)


def test_trimming_joins_the_data_of_left_and_right() -> None:
    raw = np.arange(SMALL.raw_shape[1], dtype=np.uint16)[None, :]
    out = np.empty((1, SMALL.shape[1]))
    trim(raw, SMALL, out)
    assert out[0, [0, SMALL.nx - 1, SMALL.nx, -1]].tolist() == [32, 231, 296, 495]


def test_quadrants_three_and_four_are_the_upper_right_and_the_upper_left() -> None:
    lower = per_quadrant([1, 2, 3, 4], slice(0, 1), SMALL)
    upper = per_quadrant([1, 2, 3, 4], slice(SMALL.ny, SMALL.ny + 1), SMALL)
    assert (lower[0], lower[-1], upper[-1], upper[0]) == (1, 2, 3, 4)


def test_known_bad_pixels_are_given_on_the_raw_frame_counted_from_one() -> None:
    columns = (
        Column(name="xpos", values=np.array([2705, 2705, 1], np.int32)),
        Column(name="ypos", values=np.array([1416, 1416, 1], np.int32)),
        Column(name="status", values=np.array([Flag.DARK, Flag.BAD, Flag.BAD], np.int32)),
    )
    table = TableSource(Table(columns=columns))
    flags = known_flags(Channel(number=1, stacks={}, tables={"BADPIX_TABLE": table}, detector=DETECTOR))
    # Where ESO's muse_scibasic put the pixel of such a row: trimmed (2609, 1384), counted from 1.
    assert flags[1383, 2608] == Flag.DARK | Flag.BAD
    assert np.count_nonzero(flags) == 1


def test_flags_beyond_sixteen_bits_become_bad() -> None:
    flags = np.array([0, Flag.DEAD, Flag.MISSING, Flag.OUTSIDE | Flag.HOT], np.uint32)
    assert narrowed(flags).tolist() == [0, Flag.DEAD, Flag.BAD, Flag.BAD | Flag.HOT]
    assert narrowed(flags.view(np.int32)).tolist() == narrowed(flags).tolist()


def test_marking_keeps_the_flags_that_are_there() -> None:
    dq = np.array([0, 256], np.uint16)
    mark(dq, np.array([True, True]), Flag.DEAD)
    assert dq.tolist() == [8192, 8448]
