"""Comparing two makes of a product: differences that were put in come out, in units and in sigma."""

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import Polynomial

from daemon.pictures import draw_comparison
from recipes.comparison import (
    Comparison,
    Difference,
    Kind,
    Planes,
    compare_measurements,
    compare_planes,
    compare_tables,
    compare_traces,
    compare_wavelengths,
)
from recipes.dispersion import Dispersion, dispersion_table
from recipes.recipe import Column, Table
from recipes.trace import Trace, trace_table

SHAPE = (200, 150)
GENERATOR = np.random.default_rng(4)
ONE = GENERATOR.normal(100, 2, SHAPE).astype(np.float32)
VARIANCE = np.full(SHAPE, 4, np.float32)
NO_FLAGS = np.zeros(SHAPE, np.uint32)
Y = Polynomial([0.0, 1e-3])


def traces(*shifts: float) -> list[Trace]:
    """Three slices; middle, left and right edge may be shifted."""
    middle, left, right = shifts or (0.0, 0.0, 0.0)
    return [
        Trace((Y + 100 * n + middle, Y + 100 * n - 40 + left, Y + 100 * n + 40 + right), (0.01, 0.04, 0.04), 80.0)
        for n in (1, 2, 3)
    ]


def image(data: np.ndarray, variance: np.ndarray = VARIANCE, flags: np.ndarray = NO_FLAGS) -> Planes:
    return Planes(data=data, variance=variance, flags=flags)


def compare(ours: Planes, theirs: Planes) -> Comparison:
    return compare_planes(ours, theirs, channel=3, what="DATA", unit="adu")


def only(found: Comparison, kind: Kind) -> Difference:
    [item] = [difference for difference in found.differences if difference.kind is kind]
    return item


class TestImages:
    def test_that_are_equal_differ_by_nothing(self) -> None:
        found = compare(image(ONE), image(ONE.copy()))
        data = only(found, Kind.DATA)
        assert (data.values, data.median, data.typical, data.largest, data.beyond) == (ONE.size, 0, 0, 0, 0)
        assert only(found, Kind.VARIANCE).median == 0
        assert only(found, Kind.FLAGS).largest == 0

    def test_that_have_noise_of_their_own_differ_by_it(self) -> None:
        noise = GENERATOR.normal(0.5, 3, SHAPE)
        data = only(compare(image(ONE), image((ONE + noise).astype(np.float32))), Kind.DATA)
        assert data.median == pytest.approx(0.5, abs=0.06)
        assert data.typical == pytest.approx(3, rel=0.03)
        assert (data.median_sigma, data.typical_sigma) == pytest.approx((data.median / 2, data.typical / 2), rel=1e-3)
        assert data.largest == pytest.approx(np.abs(noise).max(), rel=1e-4)
        expected = sum(math.erfc((6 + side * 0.5) / 3 / math.sqrt(2)) / 2 for side in (-1, 1))
        assert data.beyond == pytest.approx(expected, rel=0.15)

    def test_are_compared_where_neither_is_flagged_or_no_number(self) -> None:
        theirs, flags = ONE.copy(), NO_FLAGS.copy()
        theirs[:10] += 1000
        flags[:10] = 1 << 31
        theirs[20, 20] = np.nan
        found = compare(image(ONE, flags=NO_FLAGS), image(theirs, flags=flags))
        assert only(found, Kind.DATA).largest == 0
        assert only(found, Kind.DATA).values == ONE.size - 10 * SHAPE[1] - 1
        told = only(found, Kind.FLAGS).remark
        assert told == "0 flagged by both, 0 by ours alone, 1500 by ESO's alone (bit 31: 0 and 1500)"

    def test_with_other_variances_say_by_which_factor(self) -> None:
        assert "1.4400 times ours" in only(compare(image(ONE), image(ONE, VARIANCE * 1.44)), Kind.VARIANCE).remark

    def test_show_where_they_differ(self) -> None:
        theirs = ONE.copy()
        theirs[32:48, 64:80] += 3
        [field] = compare(image(ONE), image(theirs)).maps
        assert field.values.shape == (13, 10)
        assert field.values[2, 4] == pytest.approx(1.5)
        assert np.delete(field.values.ravel(), 2 * 10 + 4).any() == np.False_
        assert (field.counts.sum(), field.total) == (ONE.size, ONE.size)

    def test_on_other_grids_are_compared_where_they_overlap(self) -> None:
        ours = Planes(data=ONE, variance=VARIANCE, origin=(10.0, -5.0))
        theirs = Planes(data=ONE[3:, 2:] + np.float32(1), variance=VARIANCE[3:, 2:], origin=(13.25, -3.0))
        found = compare(ours, theirs)
        data = next(item for item in found.differences if item.what == "DATA")
        assert (data.values, data.median, data.typical) == pytest.approx((197 * 148, 1, 0), abs=1e-4)
        assert "up to 0.25 steps of the grid apart" in found.differences[1].remark

    def test_of_other_shapes_are_not_compared(self) -> None:
        [told] = compare(image(ONE), image(ONE[:, :-1], VARIANCE[:, :-1], NO_FLAGS[:, :-1])).differences
        assert told.remark == "not compared: ours has 150 x 200 values, ESO's 149 x 200"

    def test_without_variance_have_a_tolerance(self) -> None:
        data = only(compare(Planes(data=ONE), Planes(data=ONE * np.float32(1.005))), Kind.DATA)
        assert data.sigma == "1% of the rms of our values"
        assert data.median_sigma == pytest.approx(0.5, rel=2e-3)

    def test_of_three_axes_are_seen_along_the_wavelengths(self) -> None:
        cube = np.ones((7, 20, 30), np.float32)
        theirs = cube.copy()
        theirs[:, 5, 6] = 3
        [field] = compare(Planes(data=cube, variance=cube), Planes(data=theirs, variance=cube)).maps
        assert field.values.shape == (20, 30)
        assert (field.values[5, 6], field.values.sum()) == (2, 2)


def table(**columns: object) -> Table:
    return Table(columns=tuple(Column(name=name, values=np.asarray(values)) for name, values in columns.items()))


class TestTables:
    def test_go_together_by_slice(self) -> None:
        ours = table(SliceNo=[1, 2, 3], width=[10.0, 20.0, 30.0], widtherr=[1.0, 2.0, 5.0], extra=[1, 1, 1])
        theirs = table(SliceNo=[3, 1], width=[31.0, 12.0], widtherr=[0.0, 0.0])
        found = {item.what: item for item in compare_tables(ours, theirs, channel=1).differences}
        assert (found["width"].values, found["width"].largest, found["width"].largest_sigma) == (2, 2, 2)
        assert found["extra"].remark == "only ours has it"
        assert "SliceNo" not in found

    def test_go_together_by_wavelength(self) -> None:
        ours = table(
            **{"lambda": [4999.0, 5001.0, 5003.0, 5600.0], "response": [1.0, 2.0, 3.0, 9.0], "resperr": [0.5] * 4}
        )
        theirs = table(**{"lambda": [4990.0, 5010.0], "response": [0.6, 10.6], "resperr": [0.1] * 2})
        found = compare_tables(ours, theirs, channel=0)
        response = next(item for item in found.differences if item.what == "response")
        assert (response.values, response.median, response.median_sigma) == pytest.approx((3, 4.1, 8.2))
        assert found.curves[0].lines[0] == pytest.approx([0.6 + 4.5 - 1, 0.6 + 5.5 - 2, 0.6 + 6.5 - 3])

    def test_of_traces_differ_in_pixels(self) -> None:
        found = compare_traces(trace_table(traces()), trace_table(traces(0.05, 0, -0.2)), channel=2)
        assert [item.median for item in found.differences] == pytest.approx([0.05, 0, -0.2])
        assert [item.median_sigma for item in found.differences] == pytest.approx([0.5, 0, -1])
        assert found.curves[2].lines.shape == (3, 129)

    def test_of_wavelengths_differ_in_angstrom(self) -> None:
        ours = dispersion_table([Dispersion(np.array([[4600.0, 1.25, 0.0]]), 0.0004)] * 3)
        theirs = dispersion_table([Dispersion(np.array([[4600.01, 1.25, 0.0]]), 0.0004)] * 3)
        found = compare_wavelengths(ours, theirs, traces(), channel=2)
        [wavelengths] = found.differences
        assert (wavelengths.median, wavelengths.median_sigma) == pytest.approx((0.01, 0.5))
        lit = np.isfinite(found.curves[0].lines[0])
        assert found.curves[0].x[lit].min() == pytest.approx(50 / 1.25, abs=32)


def test_parameters_differ_by_parts_of_a_hundred() -> None:
    ours: dict[str, int | float | str] = {"A": 10.0, "B": 3, "C": "x", "D": 1.0}
    theirs: dict[str, int | float | str] = {"A": 10.2, "B": 3, "C": "y", "E": 2.0}
    found = {item.what: item for item in compare_measurements(ours, theirs, channel=1).differences}
    assert found["A"].median_sigma == pytest.approx(2)
    assert found["B"].largest_sigma == 0
    assert [found[name].remark for name in "CDE"] == ["x in ours, y in ESO's", "only ours has it", "only ESO's has it"]


def test_pictures_are_drawn_of_images_and_curves(tmp_path: Path) -> None:
    images = compare(image(ONE), image(ONE + np.float32(0.5)))
    curves = compare_traces(trace_table(traces()), trace_table(traces()), channel=1)
    for number, found in enumerate((images, images + images, curves)):
        path = tmp_path / f"{number}.png"
        assert draw_comparison(path, "MASTER_BIAS of S1", found)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert not draw_comparison(tmp_path / "none.png", "nothing", Comparison())
