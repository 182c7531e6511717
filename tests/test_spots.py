"""Spots of the pinhole mask on a small detector: found in every line, measured in every frame."""

from dataclasses import replace

import numpy as np
import pytest
from mask_frames import SEED, exposure, line_catalog, mask_channel, stages, true_traces

from recipes.muse import HOLE_DISTANCE, Detector
from recipes.recipe import Channel, Column, Exposure, Measurement, RecipeError, Table
from recipes.simulator.celestial import FOCAL_SCALE, SPOT_SIGMA
from recipes.simulator.field import PIXEL, slice_places
from recipes.simulator.optics import draw_slices
from recipes.spots import SpotParams, measure_spots, select_lines, vertical_position
from recipes.spotshapes import fit_gaussians
from recipes.trace import read_traces

DETECTOR = Detector(nx=180, ny=300, margin=32)
CHANNEL = 7
HEIGHTS = stages(-0.34, 0.34, 0.04)
Measured = tuple[Table, tuple[Measurement, ...]]


@pytest.fixture(scope="module")
def channel() -> Channel:
    return mask_channel(CHANNEL, DETECTOR, HEIGHTS[::-1])


@pytest.fixture(scope="module")
def measured(channel: Channel) -> Measured:
    return measure_spots(channel, SpotParams())


def test_every_slice_shows_three_spots_of_every_line_in_its_range(measured: Measured) -> None:
    table, _ = measured
    for which in draw_slices(SEED, CHANNEL, DETECTOR):
        rows = table["SliceCCD"] == which.number
        ends = which.along(np.array([12.0, 588.0]))
        lines = select_lines(line_catalog())
        inside = lines[(lines > ends[0]) & (lines < ends[1])]
        assert np.unique(table["lambda"][rows]) == pytest.approx(inside)
        assert np.unique(table["SpotNo"][rows]).tolist() == [1, 2, 3]
    number = len(np.unique(table["lambda"] * 100 + table["SliceCCD"]))
    assert len(table["xc"]) == number * 3 * len(HEIGHTS)


def test_spots_are_where_the_holes_are_on_the_detector(measured: Measured) -> None:
    table, _ = measured
    lit = (table["xfwhm"] > 0) & (table["flux"] > 1e5)
    pitch = HOLE_DISTANCE[0] * FOCAL_SCALE / PIXEL
    for which, place in zip(draw_slices(SEED, CHANNEL, DETECTOR), slice_places(CHANNEL), strict=False):
        for spot, hole in ((1, -3.5), (2, -4.5), (3, -5.5)):  # the detector's x runs against the field's
            rows = lit & (table["SliceCCD"] == which.number) & (table["SpotNo"] == spot)
            y = table["yc"][rows]
            along = (place.x - hole * pitch) / (place.width * np.cos(np.radians(place.angle)))
            x = which.centre(y) + along * (which.right(y) - which.left(y))
            assert np.abs(table["xc"][rows] - x).max() < 0.05
            assert np.abs((table["xc"][rows] - x).mean()) < 0.01
            assert table["yc"][rows] == pytest.approx(_row_of(which, table["lambda"][rows], x), abs=0.05)


def _row_of(which: object, wavelength: object, x: object) -> object:
    y = np.arange(1.0, 601.0)
    return [np.interp(w, which.wavelength(at, y), y) for w, at in zip(wavelength, x, strict=True)]  # type: ignore[attr-defined, call-overload]


def test_the_rows_of_the_table_fit_each_other(measured: Measured) -> None:
    table, _ = measured
    traces = read_traces(true_traces(CHANNEL, DETECTOR))
    for number, trace in enumerate(traces, start=1):
        rows = table["SliceCCD"] == number
        y = table["yc"][rows]
        assert table["dxcen"][rows] == pytest.approx(table["xc"][rows] - trace.polynomials[0](y), abs=1e-9)
        assert table["twidth"][rows] == pytest.approx(trace.polynomials[2](y) - trace.polynomials[1](y), abs=1e-9)
    assert table["VPOS"] == pytest.approx(table["POSPOS3"])
    assert (table["VPOS"].reshape(-1, len(HEIGHTS)) == sorted(HEIGHTS)).all()
    assert (table["image"].reshape(-1, len(HEIGHTS)) == np.arange(len(HEIGHTS), 0, -1)).all()
    assert table["filename"][0] == f"MUSE.frame{len(HEIGHTS) - 1:02d}.fits"
    order = np.lexsort((table["VPOS"], table["SpotNo"], table["SliceCCD"], table["lambda"]))
    assert (np.diff(order) == 1).all()


def test_the_table_has_the_columns_of_eso(measured: Measured) -> None:
    table, _ = measured
    found = {column.name: (column.values.dtype.str[1:], column.unit) for column in table.columns}
    name, *others = found
    assert name == "filename"
    reals = {
        "POSPOS2": "mm", "POSPOS3": "mm", "POSPOS4": "mm", "VPOS": "mm", "ScaleFOV": "arcsec/mm", "lambda": "Angstrom",
        "xc": "pix", "yc": "pix", "xfwhm": "pix", "yfwhm": "pix", "flux": "", "bg": "", "dxcen": "pix", "twidth": "pix",
    }  # fmt: skip
    assert others == [
        "image", "POSENC2", "POSPOS2", "POSENC3", "POSPOS3", "POSENC4", "POSPOS4", "VPOS", "ScaleFOV", "SubField",
        "SliceCCD", "lambda", "SpotNo", "xc", "yc", "xfwhm", "yfwhm", "flux", "bg", "dxcen", "twidth",
    ]  # fmt: skip
    for column in others:
        assert found[column] == (("f8", reals[column]) if column in reals else ("i4", ""))


def test_spots_are_as_wide_as_the_holes_are_blurred(measured: Measured) -> None:
    table, measurements = measured
    lit = table["flux"] > 1e5
    assert np.median(table["xfwhm"][lit]) == pytest.approx(2.3548 * SPOT_SIGMA, rel=0.03)
    found = {measurement.name: float(measurement.value) for measurement in measurements}
    number = 3
    rows = (table["image"] == number) & (table["flux"] > 1000) & (table["xfwhm"] > 0) & (table["yfwhm"] > 0)
    widths = (table["xfwhm"][rows] + table["yfwhm"][rows]) / 2
    assert found[f"GEO EXP{number} FWHM MEAN"] == pytest.approx(widths.mean())
    assert found[f"GEO EXP{number} FWHM MEDIAN"] == pytest.approx(np.median(widths))
    assert found[f"GEO EXP{number} FWHM STDEV"] == pytest.approx(widths.std(ddof=1))
    means = [found[f"GEO EXP{n} FWHM MEAN"] for n in range(1, len(HEIGHTS) + 1)]
    assert found["GEO FWHM MEAN"] == pytest.approx(np.nanmean(means))
    assert found["GEO FWHM STDEV"] == pytest.approx(np.nanstd(means, ddof=1))
    assert len(found) == 3 * len(HEIGHTS) + 2


def test_the_barycentre_agrees_with_the_gaussian(channel: Channel, measured: Measured) -> None:
    table, _ = measured
    other, _ = measure_spots(channel, SpotParams(centroid="barycenter"))
    lit = table["flux"] > 1e5
    assert np.abs(other["xc"] - table["xc"])[lit].mean() < 0.05
    assert (other["flux"] == table["flux"]).all()


def test_a_flat_is_divided_out(channel: Channel, measured: Measured) -> None:
    table, _ = measured
    bias = channel.images["MASTER_BIAS"]
    flat = bias.rows(0, DETECTOR.shape[0])
    flat.data[:] = 0.5
    flat.dq[:] = 0

    class Flat:
        measurements = bias.measurements
        keywords = bias.keywords

        def rows(self, start: int, stop: int) -> object:
            return replace(flat, data=flat.data[start:stop], dq=flat.dq[start:stop], stat=flat.stat[start:stop])

    other, _ = measure_spots(replace(channel, images={**channel.images, "MASTER_FLAT": Flat()}), SpotParams())  # type: ignore[dict-item]
    bright = table["flux"] > 1e5
    assert other["flux"][bright] == pytest.approx(2 * table["flux"][bright], rel=1e-3)


def test_a_bad_pixel_in_a_spot_drops_its_line_in_that_slice_alone(channel: Channel, measured: Measured) -> None:
    table, _ = measured
    row = int(np.flatnonzero((table["SliceCCD"] == 2) & (table["SpotNo"] == 2))[0])
    x, y = round(float(table["xc"][row])), round(float(table["yc"][row]))
    raw = [at + DETECTOR.margin * (1 if at <= half else 3) for at, half in ((x, DETECTOR.nx), (y, DETECTOR.ny))]
    columns = (("xpos", raw[0]), ("ypos", raw[1]), ("status", 256))
    bad = Table(columns=tuple(Column(name=name, values=np.array([value], np.int32)) for name, value in columns))
    tables = {**channel.tables, "BADPIX_TABLE": replace(channel.tables["TRACE_TABLE"], table=bad)}
    other, _ = measure_spots(replace(channel, tables=tables), SpotParams())
    gone = (table["SliceCCD"] == 2) & (table["lambda"] == table["lambda"][row])
    assert len(other["xc"]) == len(table["xc"]) - gone.sum()
    assert not ((other["SliceCCD"] == 2) & (other["lambda"] == table["lambda"][row])).any()


def test_frames_without_light_show_no_spots() -> None:
    with pytest.raises(RecipeError, match="were the lamps on"):
        measure_spots(mask_channel(CHANNEL, DETECTOR, HEIGHTS[:3], lit=False), SpotParams(sigma=10.0))


@pytest.mark.parametrize(("mode", "angle", "sign"), [("STAT", 90.0, 1), ("SKY", 270.0, 1), ("SKY", 90.0, -1)])
def test_the_mask_moves_across_the_slices(mode: str, angle: float, sign: int) -> None:
    frame = exposure(1, 13.5, angle=angle)
    frame = replace(frame, pointing=replace(frame.pointing, rotator_mode=mode))
    assert vertical_position(frame) == pytest.approx(sign * 13.5)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (exposure(1, 13.5, angle=180.0), "far from 0 and 180"),
        (replace(exposure(1, 13.5), mask=None), "INS POS1 to POS4"),
    ],
)
def test_a_frame_that_does_not_say_where_the_mask_was_is_refused(frame: Exposure, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        vertical_position(frame)


def test_lines_are_chosen_by_lamp_light_and_quality() -> None:
    rows = [
        (4640.0, 9e4, "HgI", 5), (4700.0, 4e3, "CdI", 5), (4800.0, 4e4, "CdI", 1), (5000.0, 9e4, "XeI", 5),
        (5100.0, 6e4, "CdI", 0), (5400.0, 7e3, "HgI", 3), (5852.0, 6e4, "NeI", 1), (5881.0, 9e3, "NeI", 5),
        (5944.0, 2e4, "NeI", 2), (6402.0, 1e5, "NeI", 5), (6506.0, 7e4, "NeI", 3), (8654.0, 6e3, "NeI", 1),
    ]  # fmt: skip
    catalog = Table(
        columns=tuple(
            Column(name=name, values=np.array(values))
            for name, values in zip(("lambda", "flux", "ion", "quality"), zip(*rows, strict=True), strict=True)
        )
    )
    assert select_lines(catalog).tolist() == [4800.0, 5400.0, 5944.0, 6402.0, 6506.0, 8654.0]
    fewer = Table(columns=tuple(replace(column, values=column.values[:10]) for column in catalog.columns))
    with pytest.raises(RecipeError, match="has 4 lines"):
        select_lines(fewer)


def test_gaussians_are_found_between_the_pixels() -> None:
    rng = np.random.default_rng(2)
    middle, sigma = rng.uniform(3, 7, 200), rng.uniform(0.7, 1.5, 200)
    x = np.arange(11)
    profiles = 1e4 * np.exp(-(((x - middle[:, None]) / sigma[:, None]) ** 2) / 2)
    found, width = fit_gaussians(profiles)
    assert found == pytest.approx(middle, abs=1e-4)
    assert width == pytest.approx(sigma, abs=1e-4)
    assert np.isnan(fit_gaussians(np.zeros((1, 11)))[0]).all()
