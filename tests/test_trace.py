"""Edges of slices are where the light falls to half, whatever the lamp does along the slice."""

import numpy as np
import pytest
from numpy.typing import NDArray

from recipes.muse import Flag
from recipes.recipe import RecipeError
from recipes.stats import Real
from recipes.trace import measure_traces, sample_edges, trace_slices, trace_table

ROWS, COLUMNS = 1000, 360
Y = np.arange(1, ROWS + 1)
# Left and right edges of four slices against y, pix from 1.
LEFT = [10.3 + 83.7 * k + 0.004 * (Y - 500) + 1e-6 * (k - 1.5) * (Y - 500) ** 2 for k in range(4)]
RIGHT = [left + 76.1 + 0.3 * k for k, left in enumerate(LEFT)]


def flat(*, brightness: float = 30000.0, tilt: float = 0.0, bow: float = 0.0, seed: int | None = 1) -> Real:
    """Light of slices with edges blurred by 0.95 pixel."""
    x = np.arange(1, COLUMNS + 1)
    fine = np.linspace(-6, 6, 4001)
    bell = np.exp(-(fine**2) / 2)
    rise = (np.cumsum(bell) - bell / 2) / bell.sum()
    image = np.zeros((ROWS, COLUMNS))
    for left, right in zip(LEFT, RIGHT, strict=True):
        along = (x - (left + right)[:, None] / 2) / (right - left)[:, None]
        step = np.interp((x - left[:, None]) / 0.95, fine, rise) * np.interp((right[:, None] - x) / 0.95, fine, rise)
        image += brightness * step * (1 + tilt * along + bow * along**2)
    if seed is not None:
        rng = np.random.default_rng(seed)
        image *= rng.normal(1, 0.006, image.shape)
        image += rng.normal(0, np.sqrt((image + 9) / 11))
    return image


def planes(image: Real) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint16]]:
    stat = (np.maximum(image, 0) + 9) / 11
    return image.astype(np.float32), stat.astype(np.float32), np.zeros(image.shape, np.uint16)


def errors(image: Real, dq: NDArray[np.uint16] | None = None) -> NDArray[np.float64]:
    """Deviation of traced edges from the truth: shape (left or right, slices, rows)."""
    data, stat, good = planes(image)
    samples = sample_edges(data, stat, good if dq is None else dq, rows=32, fraction=0.5, slices=4)
    traces = trace_slices(samples, 5)
    found = np.array([[trace.polynomials[which](Y) for trace in traces] for which in (1, 2)])
    return np.asarray(found - np.array([LEFT, RIGHT]))


def test_edges_of_an_ideal_flat_are_exact() -> None:
    assert np.abs(errors(flat(seed=None))).max() < 3e-4


@pytest.mark.parametrize(("tilt", "bow"), [(0.15, 0.0), (-0.15, 0.0), (0.0, 0.1), (0.1, -0.1)])
def test_the_lamp_may_be_brighter_at_one_end_of_a_slice(tilt: float, bow: float) -> None:
    assert np.abs(errors(flat(tilt=tilt, bow=bow, seed=None))).max() < 1e-3


def test_noise_of_photons_and_pixels_moves_edges_by_thousandths() -> None:
    deviation = errors(flat())
    assert np.sqrt((deviation**2).mean()) < 0.0025


def test_a_flagged_column_beside_an_edge_is_bridged() -> None:
    image = flat(seed=None)
    data, _, dq = planes(image)
    column = round(LEFT[1][500]) + 20
    image[:, column] += 50000
    dq[:, column] = Flag.DEAD
    assert np.abs(errors(image, dq)).max() < 1e-3
    assert data.shape == image.shape


def test_a_few_dark_pixels_at_an_edge_do_not_bend_the_trace() -> None:
    image = flat(seed=None)
    for row in (100, 420, 800):
        image[row, round(LEFT[2][row])] *= 0.05
    assert np.abs(errors(image)).max() < 0.005


def test_rows_without_light_give_no_samples() -> None:
    image = flat()
    image[:200] = np.random.default_rng(2).normal(0, 0.9, (200, COLUMNS))
    samples = sample_edges(*planes(image), rows=32, fraction=0.5, slices=4)
    assert np.isnan(samples.left[:, :6]).all()
    assert np.isfinite(samples.left[:, 7:]).all()
    table = samples.table()
    assert len(table["y"]) == 4 * (31 - 7) + np.count_nonzero(np.isfinite(samples.left[:, 6]))
    assert table["slice"].dtype == np.int32
    np.testing.assert_allclose(table["mid"], (table["left"] + table["right"]) / 2, rtol=1e-6)


def test_a_missing_slice_is_an_error_with_its_numbers() -> None:
    image = flat()
    image[:, 95:175] = 0
    with pytest.raises(RecipeError, match="3 slices are lit in the middle of the detector and there are 4") as error:
        sample_edges(*planes(image), rows=32, fraction=0.5, slices=4)
    assert error.value.numbers == {"found": 3, "expected": 4}


def test_a_slice_with_too_few_good_samples_is_an_error() -> None:
    image = flat()
    image[:330] = image[670:] = 0
    samples = sample_edges(*planes(image), rows=64, fraction=0.5, slices=4)
    with pytest.raises(RecipeError, match="Slice 1 shows good edges in"):
        trace_slices(samples, 5)


def test_the_table_has_the_columns_of_eso() -> None:
    samples = sample_edges(*planes(flat()), rows=32, fraction=0.5, slices=4)
    table = trace_table(trace_slices(samples, 5))
    names = [column.name for column in table.columns]
    assert names[:2] == ["SliceNo", "Width"]
    assert names[2:] == [
        name for which in range(3) for name in (*(f"tc{which}_{power:02d}" for power in range(6)), f"MSE{which}")
    ]
    assert [str(column.values.dtype) for column in table.columns] == ["int32", "float32", *["float64"] * 21]
    powers = np.array([table[f"tc1_{power:02d}"] for power in range(6)])
    np.testing.assert_allclose(np.polynomial.polynomial.polyval(Y, powers), LEFT, atol=0.01)
    assert table["Width"] == pytest.approx([76.1, 76.4, 76.7, 77.0], abs=0.005)
    assert (table["MSE0"] < 1e-4).all()


def test_qc_describes_the_traces() -> None:
    traces = trace_slices(sample_edges(*planes(flat(seed=None)), rows=32, fraction=0.5, slices=4), 5)
    found = {measurement.name: measurement.value for measurement in measure_traces(traces, ROWS)}
    middle = [(left[499] + right[499]) / 2 for left, right in zip(LEFT, RIGHT, strict=True)]
    assert found["TRACE SLICE_L XPOS"] == pytest.approx(middle[0], abs=1e-3)
    assert found["TRACE SLICE_R XPOS"] == pytest.approx(middle[3], abs=1e-3)
    assert found["TRACE SLICE_L TILT"] == pytest.approx(np.degrees(np.arctan(0.004)), abs=1e-3)
    assert found["TRACE GAPS MIN"] == pytest.approx(83.7 - 76.7, abs=2e-3)
    assert found["TRACE WIDTHS MEDIAN"] == pytest.approx(76.55, abs=2e-3)
    assert found["TRACE SLICE1 MAXSLOPE"] == pytest.approx(0.004 + 2e-6 * 1.5 * 499, abs=3e-5)
    assert found["TRACE SLICE3 WIDTH"] == pytest.approx(76.7, abs=2e-3)
    assert "TRACE SLICE4 WIDTH" not in found
