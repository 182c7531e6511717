"""muse_lsf on a small detector: the profile that the frames were made with."""

from pathlib import Path

import numpy as np
import pytest
from arc_frames import DETECTOR, SLICES, all_lamps, catalog, channel, frames, joined
from numpy.typing import NDArray
from scipy.special import erf

from recipes.channel import main_tag
from recipes.dispersion import Dispersion, dispersion_table
from recipes.lsf import RECIPE, LsfParams, full_widths, reduce
from recipes.muse import Lamp
from recipes.recipe import Channel, Extensions, ParameterError, Plane, RecipeError, Result, TableSource
from recipes.simulator.linecatalog import qualities
from recipes.simulator.optics import DISPERSION, lsf_fwhm

OFFSET = np.linspace(-7.5, 7.5, 150)
WAVELENGTH = np.linspace(4650.0, 9300.0, 30)
ROWS = DETECTOR.shape[0]


def given(tag: str = "ARC_LSF", **changed: TableSource) -> Channel:
    made = channel(all_lamps(), **changed)
    tables = {"WAVECAL_TABLE": TableSource(dispersion_table([Dispersion(s.wavelength_coefficients()) for s in SLICES]))}
    return Channel(
        number=made.number,
        stacks={tag: made.stacks["ARC"]},
        images=made.images,
        tables={**made.tables, **tables, **changed},
        detector=DETECTOR,
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return reduce(given(), LsfParams())


def plane(result: Result) -> Plane:
    content = result.products[0].content
    assert isinstance(content, Extensions)
    (found,) = content.units
    assert isinstance(found, Plane)
    return found


def true_profiles(blur: float) -> NDArray[np.float64]:
    """A Gaussian of the model's width that falls on pixels."""
    scale = np.sqrt(2) * blur * lsf_fwhm(WAVELENGTH)[:, None] / 2.3548200450309493
    half = DISPERSION / 2
    rows = erf((OFFSET + half) / scale) - erf((OFFSET - half) / scale)
    return np.asarray(rows / (2 * DISPERSION))


def seen() -> NDArray[np.bool_]:
    """Wavelengths that the small detector has lines about."""
    middle = float(SLICES[0].wavelength(np.array(SLICES[0].middle), np.array(ROWS / 2)))
    return np.asarray(np.abs(WAVELENGTH - middle) < 0.8 * DISPERSION * ROWS / 2)


def test_profiles_are_those_of_the_frames(result: Result) -> None:
    cube, where = np.asarray(plane(result).values[:]), seen()
    assert cube.shape == (len(SLICES), 30, 150)
    for found, which in zip(cube, SLICES, strict=True):
        true = true_profiles(which.blur)[where]
        assert np.abs(found[where] - true).max() < 0.01 * true.max()
        assert full_widths(found[where], OFFSET) == pytest.approx(full_widths(true, OFFSET), rel=0.005)


def test_each_profile_has_an_integral_of_one(result: Result) -> None:
    cube = np.asarray(plane(result).values[:])
    assert cube.sum(axis=2) * (OFFSET[1] - OFFSET[0]) == pytest.approx(np.ones(cube.shape[:2]), abs=1e-5)


def test_image_and_keywords_are_those_of_eso(result: Result) -> None:
    """Source: an LSF_PROFILE of the MUSE pipeline 2.8.7, which counts saturated pixels of the first lamp only."""
    found, cards = plane(result), {keyword.name: keyword.value for keyword in plane(result).keywords}
    assert (found.name, found.unit, found.values.dtype) == ("LSF_PROFILE", "", np.dtype(np.float32))
    assert cards == {
        "WCSAXES": 2, "CD1_1": pytest.approx(15 / 149), "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": pytest.approx(4650 / 29),
        "CRPIX1": 1.0, "CRPIX2": 1.0, "CRVAL1": -7.5, "CRVAL2": 4650.0, "CTYPE1": "PARAM", "CTYPE2": "AWAV",
        "CUNIT1": "Angstrom", "CUNIT2": "Angstrom",
    }  # fmt: skip
    measured = {measurement.name: measurement.value for measurement in result.products[0].measurements}
    names = {f"LSF SLICE{k} FWHM {what}" for k in (1, 2) for what in ("MEAN", "STDEV", "MIN", "MAX")}
    assert set(measured) == names | {f"WAVECAL INPUT{number} NSATURATED" for number in range(1, 10)}
    assert all(isinstance(value, float if "FWHM" in name else int) for name, value in measured.items())
    widths = full_widths(np.asarray(found.values[0:1])[0], OFFSET)
    assert measured["LSF SLICE1 FWHM MEAN"] == pytest.approx(widths.mean())
    assert measured["LSF SLICE1 FWHM STDEV"] == pytest.approx(widths.std(ddof=1))


def test_frames_of_the_long_template_say_nothing(result: Result) -> None:
    assert result.warnings == ()
    assert [product.catg for product in result.products] == list(RECIPE.makes)


def test_daily_arcs_serve_with_a_word() -> None:
    found = reduce(given("ARC"), LsfParams(lsf_size=60, lambda_size=5))
    assert plane(found).values.shape == (len(SLICES), 5, 60)
    assert found.warnings == ("The profile is made of 9 frames ARC, for there are none ARC_LSF; it is noisier so.",)


def test_the_first_tag_that_has_frames_gives_the_header() -> None:
    path = Path("frame.fits")
    assert main_tag(RECIPE, {"ARC": [path]}) == "ARC"
    assert main_tag(RECIPE, {"ARC": [path], "ARC_LSF": [path]}) == "ARC_LSF"
    assert main_tag(RECIPE, {"ARC_LSF": [], "ARC": [path]}) == "ARC"
    assert main_tag(RECIPE, {}) == "ARC_LSF"


def test_a_width_at_half_height_is_read_off_between_samples() -> None:
    sigma = np.array([0.9, 1.1])
    bells = np.exp(-np.square(OFFSET[None, :] / sigma[:, None]) / 2)
    assert full_widths(bells, OFFSET) == pytest.approx(2.3548 * sigma, rel=2e-3)


def test_too_few_lines_are_told() -> None:
    quality = [int(q) if line.lamp is Lamp.MERCURY_CADMIUM and line.flux > 1000 else 1 for line, q in qualities()]
    with pytest.raises(RecipeError, match=r"Slice \d shows \d lines bright enough"):
        reduce(given(LINE_CATALOG=catalog(quality=quality)), LsfParams())
    with pytest.raises(RecipeError, match="no line that shows a profile"):
        reduce(given(LINE_CATALOG=catalog(quality=[1] * len(qualities()))), LsfParams())


def test_a_lamp_without_frames_is_told() -> None:
    made = given()
    lacking = joined(frames(Lamp.NEON), frames(Lamp.XENON))
    with pytest.raises(RecipeError, match="0 of HgCd"):
        reduce(Channel(**{**vars(made), "stacks": {"ARC_LSF": lacking}}), LsfParams())


@pytest.mark.parametrize("choice", [{"method": "hermit"}, {"save_subtracted": True}], ids=["hermit", "subtracted"])
def test_what_is_not_implemented_is_refused(choice: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        LsfParams.from_mapping(choice)
