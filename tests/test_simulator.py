"""Simulated nights: what they promise as files, and that the pixels are those of their truth."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.night import mjd_of, night_of
from recipes.muse import ARC_LAMPS, LAMP_NUMBERS, Detector, Lamp, Quadrant
from recipes.simulator.chip import draw_chip, read_out
from recipes.simulator.headers import extension_index
from recipes.simulator.lines import lines_of
from recipes.simulator.night import NightPlan, Sequence, write_night
from recipes.simulator.optics import draw_slices
from recipes.simulator.pointing import airmass
from recipes.simulator.scenes import Arc, Continuum, render
from recipes.simulator.schedule import night_exposures
from recipes.simulator.truth import read_truth, write_truth

SMALL = Detector(nx=104, ny=90, margin=12)
NIGHT = date(2026, 6, 17)
PLAN = NightPlan(
    night=NIGHT, channels=(1, 12, 7), sequences=(Sequence.BIAS, Sequence.FLAT, Sequence.ARC), detector=SMALL
)
MODE = "WFM-NOAO-N"


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night")
    for _ in write_night(PLAN, folder):
        pass
    write_truth(PLAN, folder)
    return folder


def frames(folder: Path, kind: str) -> list[Path]:
    return [p for p in sorted(folder.glob("*.fits")) if fits.getheader(p)["ESO DPR TYPE"] == kind]


def pixels(path: Path, channel: int) -> np.ndarray:
    return np.asarray(fits.getdata(path, f"CHAN{channel:02d}"))


def test_a_raw_frame_has_an_empty_primary_and_channels_in_the_order_of_the_controllers(night: Path) -> None:
    with fits.open(frames(night, "BIAS")[0]) as units:
        units.verify("exception")
        assert units[0].data is None
        assert [unit.name for unit in units[1:]] == ["CHAN01", "CHAN12", "CHAN07"]
        assert [unit.header["ESO DET CHIP INDEX"] for unit in units[1:]] == [6, 7, 12]
        assert units[1].data.dtype == np.uint16
        assert units[1].data.shape == SMALL.raw_shape


def test_every_channel_has_its_own_place_in_the_file() -> None:
    assert sorted(extension_index(channel) for channel in range(1, 25)) == list(range(1, 25))


@settings(deadline=None, max_examples=4)
@given(channels=st.permutations([1, 7, 12]).flatmap(lambda order: st.sampled_from([order[:1], order[:2], order])))
def test_a_frame_depends_on_nothing_but_seed_night_number_and_channel(
    night: Path, tmp_path_factory: pytest.TempPathFactory, channels: list[int]
) -> None:
    plan = replace(PLAN, channels=tuple(channels), sequences=(Sequence.FLAT,))
    again = list(write_night(plan, tmp_path_factory.mktemp("again")))
    for path in again:
        for channel in channels:
            assert np.array_equal(pixels(path, channel), pixels(night / path.name, channel))


def test_a_night_written_by_two_workers_is_the_same_to_the_byte(night: Path, tmp_path: Path) -> None:
    made = list(write_night(PLAN, tmp_path, workers=2))
    assert [path.read_bytes() for path in made] == [(night / path.name).read_bytes() for path in made]
    assert len(made) == len(PLAN.exposures) == len(list(tmp_path.iterdir()))


def test_another_seed_is_another_instrument(night: Path, tmp_path: Path) -> None:
    path = next(write_night(replace(PLAN, seed=2), tmp_path))
    assert not np.array_equal(pixels(path, 1), pixels(night / path.name, 1))


def test_compressed_frames_hold_the_same_pixels(night: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, compressed=True, sequences=(Sequence.ARC,), channels=(1,))
    for path in write_night(plan, tmp_path):
        assert path.name.endswith(".fits.fz")
        assert np.array_equal(pixels(path, 1), pixels(night / path.stem, 1))


def test_a_stopped_run_leaves_nothing_behind_in_the_next(night: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, channels=(1,), sequences=(Sequence.ARC,))
    name = plan.exposures[0].archive_name
    (tmp_path / f"{name}.part").write_bytes(bytes(10_000_000))
    path = next(write_night(plan, tmp_path))
    assert path.stat().st_size < (night / name).stat().st_size


def test_frames_come_in_order_of_time_under_names_of_their_own(night: Path) -> None:
    starts = [exposure.start for exposure in PLAN.exposures]
    assert starts == sorted(starts)
    assert sorted(path.name for path in night.glob("*.fits")) == [e.archive_name for e in PLAN.exposures]


@pytest.mark.parametrize("night", [date(2017, 6, 13), date(2024, 2, 28), date(2026, 12, 31)])
def test_a_whole_night_belongs_to_its_date_and_nothing_overlaps(night: date) -> None:
    exposures = night_exposures(night, MODE, tuple(Sequence))
    assert {night_of(mjd_of(exposure.start)) for exposure in exposures} == {night}
    readout = timedelta(seconds=47)
    for one, next_one in pairwise(exposures):
        assert one.start + timedelta(seconds=one.exptime) + readout <= next_one.start
    assert len({exposure.archive_name for exposure in exposures}) == len(exposures)
    assert len({exposure.number for exposure in exposures}) == len(exposures)


def test_templates_have_the_frames_of_the_calibration_plan() -> None:
    exposures = night_exposures(NIGHT, MODE, tuple(Sequence))
    count = {kind: sum(e.type == kind for e in exposures) for kind in {e.type for e in exposures}}
    plan = {
        "BIAS": 11,
        "DARK": 5,
        "FLAT,LAMP": 11,
        "WAVE": 15,
        "FLAT,SKY": 4,
        "STD": 1,
        "ASTROMETRY": 1,
        "WAVE,MASK": 80,
    }
    assert plan.items() <= count.items()
    for exposure in exposures:
        group = [e for e in exposures if e.template_start == exposure.template_start]
        assert [e.index for e in group] == list(range(1, exposure.count + 1))


def test_an_arc_has_one_lamp_lit_and_its_shutter_open(night: Path) -> None:
    lit = []
    for path in frames(night, "WAVE"):
        header = fits.getheader(path)
        on = [
            lamp for i, lamp in LAMP_NUMBERS.items() if header[f"ESO INS LAMP{i} ST"] and header[f"ESO INS SHUT{i} ST"]
        ]
        assert len(on) == 1
        lit += on
    assert lit == [lamp for lamp in ARC_LAMPS for _ in range(5)]


@pytest.mark.parametrize("month", range(1, 13))
def test_standard_and_astrometric_field_are_up_in_every_season(month: int) -> None:
    for exposure in night_exposures(date(2026, month, 15), MODE, (Sequence.STD, Sequence.ASTROMETRY, Sequence.OBJECT)):
        assert airmass(exposure.pointing, exposure.start) < 2.0


def test_airmass_of_a_real_exposure_is_that_of_its_header() -> None:
    exposure = night_exposures(NIGHT, MODE, (Sequence.STD,))[0]
    real = replace(exposure.pointing, ra=215.609208, dec=-44.15056)
    assert airmass(real, datetime(2017, 6, 16, 1, 34, 56, tzinfo=UTC)) == pytest.approx(1.062, abs=0.001)


def test_bias_has_level_and_read_noise_of_the_truth(night: Path) -> None:
    truth, stack = read_truth(night, 12), np.array([pixels(p, 12) for p in frames(night, "BIAS")], dtype=float)
    for quadrant in Quadrant:
        window, q = SMALL.data(quadrant), quadrant - 1
        data = stack[:, window.rows, window.columns]
        rows = slice(SMALL.margin, SMALL.margin + SMALL.ny)
        expected = truth.column_bias[q][rows][:, None] + truth.residual_bias[q]
        assert np.median(data.mean(axis=0) - expected) == pytest.approx(
            0, abs=0.15
        )  # each frame's level jitters by 0.15
        noise = np.median(data.std(axis=0, ddof=1)) * truth.gain[q] / 0.97  # median of the deviation of 11
        assert noise == pytest.approx(truth.read_noise[q], rel=0.05)


def test_dark_current_and_hot_pixels_are_those_of_the_truth() -> None:
    chip, hours = draw_chip(1, 3, SMALL), 20.0
    raw = read_out(chip, None, hours * 3600, np.random.default_rng(1)).pixels.astype(float) + 32768
    window = SMALL.data(Quadrant.LOWER_LEFT)
    electrons = (raw[window.rows, window.columns] - chip.level[0]) * chip.gain[0]
    assert np.median(electrons) == pytest.approx(chip.dark[0] * hours, abs=1.5)
    hot = chip.hot
    inside = (hot.rows < SMALL.ny) & (hot.columns < SMALL.nx)
    assert np.all(electrons[hot.rows[inside], hot.columns[inside]] > 0.8 * hot.values[inside] * hours)


def test_photon_noise_is_that_of_the_signal_and_the_gain() -> None:
    chip = replace(draw_chip(1, 2, SMALL), read_noise=(0.1,) * 4)
    for signal in (5.0, 20.0, 60.0, 20000.0):
        rate = np.full(SMALL.shape, signal, dtype=np.float32)
        made = [read_out(chip, rate, 1.0, np.random.default_rng(k)).pixels.astype(float) for k in (1, 2)]
        for quadrant in Quadrant:
            window = SMALL.data(quadrant)
            one, other = (image[window.rows, window.columns] for image in made)
            difference = (one - other) * chip.gain[quadrant - 1]
            width = np.subtract(*np.percentile(difference, [84.13, 15.87])) / 2
            assert width**2 / 2 == pytest.approx(signal, rel=0.15)


def test_a_cosmic_ray_stands_where_the_truth_says(night: Path) -> None:
    truth = read_truth(night, 1)
    found = 0
    for path in frames(night, "BIAS"):
        raw = pixels(path, 1).astype(float)
        trimmed = np.block(
            [
                [raw[SMALL.data(Quadrant(q)).rows, SMALL.data(Quadrant(q)).columns] for q in row]
                for row in ((1, 2), (4, 3))
            ]
        )
        hits = truth.cosmic_rays[path.name]
        assert np.all(trimmed[hits.rows, hits.columns] > 1200 + 0.7 * hits.values)
        found += len(hits)
    assert found == sum(
        len(hits) for name, hits in truth.cosmic_rays.items() if (night / name) in frames(night, "BIAS")
    )


@pytest.mark.parametrize("channel", [1, 24])
def test_light_falls_to_half_at_the_true_edges(channel: int) -> None:
    image = render(Continuum(MODE), 1, channel, SMALL)
    y = 80
    for which in draw_slices(1, channel, SMALL):
        left, right = which.left(y + 1.0) - 1, which.right(y + 1.0) - 1
        plateau = np.median(image[y, int(left) + 5 : int(right) - 4])
        row = image[y] / plateau
        for edge in (left, right):
            assert np.interp(edge, [int(edge), int(edge) + 1], [row[int(edge)], row[int(edge) + 1]]) == pytest.approx(
                0.5, abs=0.05
            )


def test_an_arc_line_lies_at_its_true_wavelength() -> None:
    image = render(Arc((Lamp.NEON,), MODE), 1, 5, SMALL)
    line = next(line for line in lines_of(Lamp.NEON) if line.wavelength == 6929.467)
    which = draw_slices(1, 5, SMALL)[0]
    y = np.arange(1, SMALL.shape[0] + 1, dtype=float)
    for x in range(int(which.left(1.0)) + 4, int(which.right(1.0)) - 3, 10):
        wavelength = which.wavelength(np.array(float(x)), y)
        near = np.abs(wavelength - line.wavelength) < 4
        assert near.sum() > 4
        flux = image[near, x - 1]
        assert np.average(wavelength[near], weights=flux) == pytest.approx(line.wavelength, abs=0.08)


def test_wavelength_coefficients_give_the_same_as_the_slice() -> None:
    for which in draw_slices(3, 9):
        x, y = np.array([which.left(900.0), which.right(900.0)]), np.array([900.0, 900.0])
        table = np.polynomial.polynomial.polyval2d(x, y, which.wavelength_coefficients())
        assert table == pytest.approx(which.wavelength(x, y), abs=1e-6)


def test_slices_are_as_wide_and_as_far_apart_as_real_ones() -> None:
    for channel in range(1, 25):
        slices = draw_slices(1, channel)
        widths = [float(s.right(2056.5) - s.left(2056.5)) for s in slices]
        gaps = [float(b.left(2056.5) - a.right(2056.5)) for a, b in pairwise(slices)]
        assert len(slices) == 48
        assert 76.3 < np.mean(widths) < 76.75
        assert 74.4 < min(widths) < max(widths) < 79.6
        assert 7.05 < np.mean(gaps) < 7.28
        assert 4.6 < min(gaps) < max(gaps) < 9.3


def test_truth_reads_back_as_written(night: Path) -> None:
    truth = read_truth(night, 7)
    chip = draw_chip(PLAN.seed, 7, SMALL)
    assert tuple(truth.gain) == chip.gain
    assert np.array_equal(truth.hot.values, chip.hot.values)
    assert set(truth.cosmic_rays) == {exposure.archive_name for exposure in PLAN.exposures}
    centre, left, right = truth.edges(np.array([1.0, 50.0]))
    assert centre == pytest.approx((left + right) / 2)
    assert truth.wavelength(1, np.array(50.0), np.array(20.0)) == pytest.approx(
        draw_slices(PLAN.seed, 7, SMALL)[0].wavelength(np.array(50.0), np.array(20.0))
    )
