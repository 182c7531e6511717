"""muse_wavecal on a small detector: wavelengths against the truth, and what is wrong with arcs is said."""

import re
from dataclasses import replace

import numpy as np
import pytest
from arc_frames import CHANNEL, DETECTOR, SEED, SLICES, all_lamps, catalog, channel, frames, joined, relabelled
from arrays import ArrayImage
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from recipes.dispersion import read_dispersions
from recipes.muse import Flag, Lamp
from recipes.recipe import Image, ParameterError, RecipeError, Result, Table, TableSource
from recipes.simulator.chip import draw_pixel_flat
from recipes.simulator.linecatalog import qualities
from recipes.simulator.optics import Slice, lsf_fwhm
from recipes.wavecal import RECIPE, WavecalParams, reduce

PARAMS = WavecalParams(yorder=4, residuals=True)  # half the detector has half the lines
ROWS = DETECTOR.shape[0]


@pytest.fixture(scope="module")
def result() -> Result:
    return reduce(channel(all_lamps()), PARAMS)


def errors(result: Result) -> NDArray[np.float64]:
    """Wavelengths less the true ones, Angstrom, in every pixel of every slice."""
    table = result.products[0].content
    assert isinstance(table, Table)
    y, away = np.arange(1.0, ROWS + 1), []
    for found, true in zip(read_dispersions(table), SLICES, strict=True):
        x = np.arange(np.ceil(true.left(ROWS / 2)), np.floor(true.right(ROWS / 2)) + 1)
        away.append(found.on_rows(x, y) - true.wavelength(x[None, :], y[:, None]))
    return np.concatenate([one.ravel() for one in away])


def values(result: Result) -> dict[str, float]:
    return {measurement.name: float(measurement.value) for measurement in result.products[0].measurements}


def rms(away: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(away**2)))


def test_wavelengths_are_true_to_a_thousandth_of_an_angstrom(result: Result) -> None:
    away = errors(result)
    assert rms(away) < 0.001
    assert np.abs(away).max() < 0.02
    assert result.warnings == ()
    assert [product.catg for product in result.products] == [*RECIPE.makes, "WAVECAL_RESIDUALS"]


def test_places_of_lines_scatter_as_their_errors_say(result: Result) -> None:
    """The fit's weights are right: the residuals of bright and faint lines are those of photons and uneven pixels."""
    table = result.products[1].content
    assert isinstance(table, Table)
    last = table["iteration"] == 1
    deviation = np.abs(table["residual"][last] * 3 / table["rejlimit"][last])
    assert np.median(deviation) == pytest.approx(0.6745, abs=0.04)  # of a normal deviate


def test_quality_is_that_of_the_lines(result: Result) -> None:
    found = values(result)
    for number, which in enumerate(SLICES, start=1):
        name = f"WAVECAL SLICE{number}"

        def true(edge: Polynomial, y: float, which: Slice = which) -> float:
            return float(which.wavelength(np.array(edge(y)), np.array(y)))

        assert found[f"{name} WLPOS"] == (ROWS + 1) / 2
        assert found[f"{name} WLEN"] == pytest.approx(true(which.centre, (ROWS + 1) / 2), abs=0.003)
        for where, y in (("BOTTOM", 1), ("TOP", ROWS)):
            across = true(which.left, y) - true(which.right, y)
            assert found[f"{name} DWLEN {where}"] == pytest.approx(across, abs=0.03)
        low, high = (true(which.centre, y) for y in (10, ROWS - 10))
        used = np.array([line.wavelength for line, q in qualities() if q == 5 and low < line.wavelength < high])
        fwhm = np.hypot(which.blur * lsf_fwhm(used), 2.3548 * 1.25 / np.sqrt(12))  # with the pixel
        assert found[f"{name} LINES FWHM MEAN"] == pytest.approx(fwhm.mean(), rel=0.005)
        assert found[f"{name} RESOL"] == pytest.approx((used / fwhm).mean(), rel=0.005)
        assert found[f"{name} LINES NID"] <= found[f"{name} LINES NDET"]
        assert found[f"{name} FIT RMS"] < 0.016


def test_keywords_are_those_of_eso(result: Result) -> None:
    """Source of the names: products of the MUSE pipeline 2.8.7; the saturation of each frame is ours beside them."""
    lines = ["NDET", "NID", *(f"PEAK {s}" for s in ("MEAN", "STDEV", "MIN", "MAX"))]
    lines += [f"FWHM {statistic}" for statistic in ("MEAN", "STDEV", "MIN", "MAX")]
    of_slice = [f"LINES {name}" for name in lines]
    of_slice += ["RESOL", "FIT NLINES", "FIT RMS", "DWLEN BOTTOM", "DWLEN TOP", "WLPOS", "WLEN"]
    expected = {f"WAVECAL SLICE{number} {name}" for number in range(1, len(SLICES) + 1) for name in of_slice}
    expected |= {f"WAVECAL NSATURATED LAMP{lamp}" for lamp in (3, 4, 5)}
    expected |= {f"WAVECAL INPUT{number} NSATURATED" for number in range(1, 10)}
    assert set(values(result)) == expected
    for measurement in result.products[0].measurements:
        whole = re.search(r"(NDET|NID|NLINES|NSATURATED( LAMP\d)?)$", measurement.name) is not None
        assert isinstance(measurement.value, int if whole else float), measurement.name


def test_any_catalogue_of_the_lamps_will_do() -> None:
    """A third of the lines missing, others of no such lamp, fluxes wrong by any factor up to three."""
    rng, rows = np.random.default_rng(1), [row for row in qualities() if row[0].flux > 0]
    kept = [row for row in rows if rng.uniform() > 0.33]
    spurious = rng.uniform(5000, 9000, 60)
    wavelength = [line.wavelength for line, _ in kept] + spurious.tolist()
    flux = [line.flux * float(3 ** rng.uniform(-1, 1)) for line, _ in kept] + [2000.0] * 60
    ion = [line.ion for line, _ in kept] + [str(name) for name in rng.choice(["NeI", "XeI", "HgI", "ArI"], 60)]
    quality = [int(q) for _, q in kept] + [1] * 60
    order = np.argsort(wavelength)
    lines = catalog(
        [wavelength[k] for k in order], [flux[k] for k in order], [ion[k] for k in order], [quality[k] for k in order]
    )
    # Lines that the catalogue lacks shift their neighbours, and there are fewer to go by.
    assert rms(errors(reduce(channel(all_lamps(), lines), PARAMS))) < 0.003


def test_spurious_peaks_are_not_taken_for_lines() -> None:
    """Hot rows across a slice look like lines of the lamp."""
    stack, rng = all_lamps(), np.random.default_rng(2)
    raws = [frame.copy() for frame in stack.frames]
    rows = rng.choice(np.arange(60, ROWS // 2 - 60), 12, replace=False) + DETECTOR.margin
    for raw in raws[:3]:
        raw[rows] += 3000
    assert rms(errors(reduce(channel(replace(stack, frames=raws)), PARAMS))) < 0.0015


def test_a_master_flat_tells_the_sensitivity_of_single_pixels(result: Result) -> None:
    y = np.arange(ROWS)[:, None] / ROWS
    data = (draw_pixel_flat(SEED, CHANNEL, DETECTOR) * (0.5 + y)).astype(np.float32)  # of a lamp that is redder
    flat = Image(
        data=data, dq=np.zeros(data.shape, np.uint16), stat=np.full(data.shape, 1e-6, np.float32), unit="count"
    )
    given = channel(all_lamps())
    flattened = reduce(replace(given, images={**given.images, "MASTER_FLAT": ArrayImage(flat)}), PARAMS)
    assert rms(errors(flattened)) < 0.9 * rms(errors(result))
    assert values(flattened)["WAVECAL SLICE1 FIT RMS"] < 0.95 * values(result)["WAVECAL SLICE1 FIT RMS"]


def test_flagged_pixels_are_left_out(result: Result) -> None:
    data = np.ones(DETECTOR.shape, np.float32)
    dq = np.zeros(data.shape, np.uint16)
    dq[:, ::7] = Flag.DARK
    flat = Image(data=data, dq=dq, stat=np.full(data.shape, 1e-6, np.float32), unit="count")
    given = channel(all_lamps())
    flagged = reduce(replace(given, images={**given.images, "MASTER_FLAT": ArrayImage(flat)}), PARAMS)
    table, before = flagged.products[1].content, result.products[1].content
    assert isinstance(table, Table)
    assert isinstance(before, Table)
    assert not ((table["x"] - 1) % 7 == 0).any()
    assert ((before["x"] - 1) % 7 == 0).any()


def test_a_lamp_without_frames_is_told() -> None:
    stack = joined(frames(Lamp.NEON, 5), frames(Lamp.XENON, 5))
    with pytest.raises(RecipeError, match="there are 5 of Ne, 5 of Xe, 0 of HgCd"):
        reduce(channel(stack), PARAMS)


def test_two_lamps_in_one_frame_are_told() -> None:
    stack = joined(frames(Lamp.NEON), relabelled(frames(Lamp.XENON), Lamp.XENON, Lamp.NEON))
    with pytest.raises(RecipeError, match="Xe 1 is lit by Xe and Ne"):
        reduce(channel(stack), PARAMS)


def test_both_neon_lamps_are_neon(result: Result) -> None:
    both = relabelled(frames(Lamp.NEON), Lamp.NEON, Lamp.NEON_HIGH)
    found = reduce(channel(joined(both, frames(Lamp.XENON), frames(Lamp.MERCURY_CADMIUM))), PARAMS)
    assert values(found) == values(result)


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (
            (Lamp.XENON, Lamp.NEON),
            ["Ne (Xe 1, Xe 2, Xe 3) show the lines of Xe", "Xe (Ne 1, Ne 2, Ne 3) show the lines"],
        ),
        ((Lamp.NEON, Lamp.NEON), ["those of Xe (Ne 1, Ne 2, Ne 3) show the lines of Ne. "]),
    ],
    ids=["swapped", "the same twice"],
)
def test_a_lamp_that_is_another_one_is_told(shown: tuple[Lamp, Lamp], told: list[str]) -> None:
    stacks = [relabelled(frames(lamp), header) for lamp, header in zip(shown, (Lamp.NEON, Lamp.XENON), strict=True)]
    with pytest.raises(RecipeError) as caught:
        reduce(channel(joined(*stacks, frames(Lamp.MERCURY_CADMIUM))), PARAMS)
    assert all(words in str(caught.value) for words in told)
    assert float(caught.value.numbers["agreeing"]) > 1.3 * float(caught.value.numbers["declared"])


def test_a_lamp_that_is_off_is_told() -> None:
    stack = all_lamps({Lamp.XENON: 1e-6})
    with pytest.raises(RecipeError, match=r"The frames of Xe \(Xe 1, Xe 2, Xe 3\) show \d lines.*was the lamp on"):
        reduce(channel(stack), PARAMS)


def test_a_saturated_lamp_is_told() -> None:
    with pytest.raises(RecipeError, match=r"Of \d+ lines of Ne in a typical slice \d+ are saturated") as caught:
        reduce(channel(all_lamps({Lamp.NEON: 30.0})), PARAMS)
    assert float(caught.value.numbers["saturated"]) > 0.25 * float(caught.value.numbers["lines"])


def test_a_few_saturated_lines_are_left_out_with_a_word() -> None:
    found = reduce(channel(all_lamps({Lamp.NEON: 1.7})), PARAMS)
    assert "saturated in all of its frames" in found.warnings[0]
    assert values(found)["WAVECAL NSATURATED LAMP3"] > 0
    assert values(found)["WAVECAL INPUT1 NSATURATED"] > 0
    assert rms(errors(found)) < 0.0015


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (catalog(version=2), "has VERSION 2, and 3 is needed"),
        (catalog(ion=["ArI"] * len(qualities())), "no line of neon"),
        (catalog(wavelength=sorted(np.random.default_rng(3).uniform(4700, 9300, len(qualities())))), "LINE_CATALOG"),
    ],
    ids=["version", "lamps", "lines"],
)
def test_a_catalogue_that_does_not_serve_is_told(lines: TableSource, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        reduce(channel(all_lamps(), lines), PARAMS)


def test_images_of_the_lamps_are_refused() -> None:
    with pytest.raises(ParameterError, match="saveimages"):
        WavecalParams(saveimages=True)
