"""Static calibrations of a simulated night: formats that ESO's pipeline insists on, and the truth behind the frames."""

from collections import Counter
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from recipes.muse import DETECTOR, Flag, Quadrant
from recipes.simulator.chip import draw_chip
from recipes.simulator.linecatalog import Quality, qualities
from recipes.simulator.night import NightPlan
from recipes.simulator.optics import lsf_fwhm
from recipes.simulator.spectra import GRID, blue_filter
from recipes.simulator.stars import STANDARDS
from recipes.simulator.statics import FILES, write_statics

PLAN = NightPlan(night=date(2026, 6, 17), channels=(3, 12))


@pytest.fixture(scope="module")
def statics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in write_statics(PLAN, tmp_path_factory.mktemp("statics")):
        found.setdefault(fits.getheader(path)["ESO PRO CATG"], []).append(path)
    return found


def test_every_kind_is_there_under_its_name_and_none_looks_like_a_recipe_product(
    statics: dict[str, list[Path]],
) -> None:
    assert set(statics) == set(FILES)
    for catg, paths in statics.items():
        for path in paths:
            header = fits.getheader(path)
            assert path.name.startswith(f"MU_{FILES[catg][0]}_140101A_")
            assert header["INSTRUME"] == "MUSE"
            assert "PIPEFILE" not in header


def test_tables_have_columns_of_the_types_that_are_checked(statics: dict[str, list[Path]]) -> None:
    expected = {
        "LINE_CATALOG": {"lambda": "1E", "flux": "1E", "quality": "1J"},
        "GEOMETRY_TABLE": {
            "SubField": "1J",
            "SliceCCD": "1J",
            "SliceSky": "1J",
            "x": "1D",
            "y": "1D",
            "angle": "1D",
            "width": "1D",
        },
        "EXTINCT_TABLE": {"lambda": "1D", "extinction": "1D"},
        "STD_FLUX_TABLE": {"lambda": "1D", "flux": "1D", "fluxerr": "1D"},
        "BADPIX_TABLE": {"xpos": "1J", "ypos": "1J", "status": "1J", "value": "1E"},
        "ASTROMETRY_REFERENCE": {"RA": "1D", "DEC": "1D", "mag": "1D"},
        "FILTER_LIST": {"lambda": "1D", "throughput": "1D"},
        "SKY_LINES": {"group": "1J", "lambda": "1D", "flux": "1D", "dq": "1J"},
        "STD_RESPONSE": {"lambda": "1D", "response": "1D", "resperr": "1D"},
    }
    for catg, columns in expected.items():
        with fits.open(statics[catg][0]) as units:
            for unit in units[1:]:
                have = {column.name: column.format for column in unit.columns}
                # FITS lets a count of one be left out: J and 1J are the same.
                assert {name: have[name].rjust(2, "1") for name in columns} == columns


def test_line_catalogue_is_of_version_three_and_in_order(statics: dict[str, list[Path]]) -> None:
    path = statics["LINE_CATALOG"][0]
    assert fits.getheader(path)["VERSION"] == 3
    table = fits.getdata(path)
    assert np.all(np.diff(table["lambda"]) > 0)
    assert 4650 < table["lambda"][0] < table["lambda"][-1] < 9350
    assert 140 <= len(table) <= 170


def test_no_two_usable_lines_of_a_lamp_can_show_as_one_peak() -> None:
    usable = [line for line, quality in qualities() if quality > Quality.UNUSED]
    for lamp in {line.lamp for line in usable}:
        wavelengths = [line.wavelength for line in usable if line.lamp is lamp]
        assert min(b - a for a, b in pairwise(wavelengths)) >= 3.5


def test_lines_that_give_the_width_are_seen_through_the_blue_filter() -> None:
    reference = [line for line, quality in qualities() if quality is Quality.REFERENCE]
    assert len(reference) > 20
    for line in reference:
        assert np.interp(line.wavelength, GRID, blue_filter("WFM-NOAO-N")) > 0.99


def test_geometry_has_every_slice_of_every_channel_once(statics: dict[str, list[Path]]) -> None:
    table = fits.getdata(statics["GEOMETRY_TABLE"][0])
    assert set(Counter(table["SubField"]).values()) == {48}
    for channel in range(1, 25):
        rows = table[table["SubField"] == channel]
        assert sorted(rows["SliceCCD"]) == sorted(rows["SliceSky"]) == list(range(1, 49))
    zero = table[(table["SubField"] == 12) & (table["SliceSky"] == 24)]
    assert zero["y"][0] == pytest.approx(0, abs=0.1)


def test_bad_pixels_are_the_dark_ones_where_the_raw_frame_has_them(statics: dict[str, list[Path]]) -> None:
    dark = draw_chip(PLAN.seed, 12).insensitive
    raw = np.zeros(DETECTOR.raw_shape, dtype=np.int32)
    table = fits.getdata(statics["BADPIX_TABLE"][0], "CHAN12")
    raw[table["ypos"] - 1, table["xpos"] - 1] = table["status"]
    trimmed = np.zeros(DETECTOR.shape, dtype=np.int32)
    for quadrant in Quadrant:
        source, target = DETECTOR.data(quadrant), DETECTOR.trimmed(quadrant)
        trimmed[target.rows, target.columns] = raw[source.rows, source.columns]
    assert np.all(trimmed[dark.rows, dark.columns] == Flag.DARK)
    assert np.count_nonzero(trimmed) == len(dark)


def test_headers_of_standard_stars_give_real_numbers_and_the_checked_units(statics: dict[str, list[Path]]) -> None:
    with fits.open(statics["STD_FLUX_TABLE"][0]) as units:
        assert [unit.name for unit in units[1:]] == [star.name.upper() for star in STANDARDS]
        for unit in units[1:]:
            assert isinstance(unit.header["RA"], float)
            assert unit.columns["lambda"].unit == "Angstrom"
            assert unit.columns["flux"].unit == "erg/s/cm**2/Angstrom"


def test_astrometric_stars_lie_within_the_field(statics: dict[str, list[Path]]) -> None:
    with fits.open(statics["ASTROMETRY_REFERENCE"][0]) as units:
        for unit in units[1:]:
            middle = SkyCoord(unit.header["RA"], unit.header["DEC"], unit="deg")
            distance = middle.separation(SkyCoord(unit.data["RA"], unit.data["DEC"], unit="deg")).arcsec
            assert distance.max() < 36.0 * np.sqrt(2) + 0.01
            assert np.all(np.diff(unit.data["mag"]) >= 0)


def test_line_spread_function_has_unit_integral_and_the_width_of_the_model(statics: dict[str, list[Path]]) -> None:
    for path in statics["LSF_PROFILE"]:
        with fits.open(path) as units:
            cube, header = units["LSF_PROFILE"].data, units["LSF_PROFILE"].header
            assert cube.shape == (48, 30, 150)
            assert cube.sum(axis=2) * header["CD1_1"] == pytest.approx(1.0, abs=1e-5)
            offset = header["CRVAL1"] + header["CD1_1"] * np.arange(150)
            sigma = np.sqrt((cube * offset**2).sum(axis=2) * header["CD1_1"])
            wavelength = header["CRVAL2"] + header["CD2_2"] * np.arange(30)
            expected = np.hypot(lsf_fwhm(wavelength) / 2.3548, 1.25 / np.sqrt(12))
            assert sigma.mean(axis=0) == pytest.approx(expected, rel=0.02)


def test_astrometric_solution_has_north_up_and_east_left(statics: dict[str, list[Path]]) -> None:
    header = fits.getheader(statics["ASTROMETRY_WCS"][0])
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
    assert header["CD1_1"] == pytest.approx(-0.2 / 3600)
    assert header["CD2_2"] == pytest.approx(0.2 / 3600)


def test_response_says_that_it_is_of_corrected_data(statics: dict[str, list[Path]]) -> None:
    header = fits.getheader(statics["STD_RESPONSE"][0])
    assert header["ESO DRS MUSE FLUX FFCORR"]
    assert header["ESO INS MODE"] == PLAN.mode
    table = fits.getdata(statics["STD_RESPONSE"][0])
    # Electrons a second and Angstrom from 1 erg/s/cm**2/Angstrom on ESO's effective area: nothing of a lamp is in it.
    electrons = table["throughput"] * 483250.7 * table["lambda"] / 1.98644586e-8
    red = table["lambda"] > 4800
    assert table["response"][red] == pytest.approx(2.5 * np.log10(electrons[red]), abs=1e-3)
