"""Our products beside ESO's of the same frames, and ESO's recipes fed with ours."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import fields as parameters
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from numpy.typing import NDArray
from referee import CHANNEL, Referee, ask_referee, run_esorex

from benchmarks.accuracy import planes
from benchmarks.reduce import reduce
from recipes.bias import RECIPE as BIAS
from recipes.dark import RECIPE as DARK
from recipes.dispersion import read_dispersions
from recipes.fits import read_table
from recipes.flat import RECIPE as FLAT
from recipes.lsf import RECIPE as LSF
from recipes.recipe import Recipe
from recipes.trace import CENTRE, read_traces
from recipes.wavecal import RECIPE as WAVECAL

pytestmark = [pytest.mark.full, pytest.mark.referee, pytest.mark.timeout(1800)]

IMAGES = ("MASTER_BIAS", "MASTER_DARK", "MASTER_FLAT")
TABLES = ("TRACE_TABLE", "TRACE_SAMPLES", "WAVECAL_TABLE", "WAVECAL_RESIDUALS")
OURS_ALONE = r"WAVECAL INPUT\d+ NSATURATED"  # ESO has it with the images of the lamps

# Keyword after ``ESO QC``, and how far ours may be from ESO's: absolute, and relative to ESO's.
TOLERANCES = (
    (r"(BIAS|DARK|FLAT) (INPUT\d+|MASTER) NSATURATED", 0, 0),
    (r"BIAS LEVEL\d (MEAN|MEDIAN|STDEV)", 1e-3, 0),  # medians of whole numbers; ESO writes single precision
    (r"BIAS MASTER\d RON", 0.02, 0.01),  # of 1000 windows; ESO's holds the noise of rounding, 1 %
    (r"BIAS MASTER\d RONERR", 0, 0.3),  # of the scatter of 100 windows
    (r"BIAS MASTER\d (MEAN|MEDIAN)", 0.005, 0),
    (r"BIAS MASTER\d STDEV", 0, 0.08),  # ESO's combination is 7 % noisier
    (r"BIAS MASTER\d (MIN|MAX)", 1.0, 0),  # one pixel of four million
    (r"BIAS MASTER\d SLOPE [XY]", 2e-6, 0),
    (r"DARK MASTER (MEAN|MEDIAN)", 0.1, 0),
    (r"DARK MASTER STDEV", 0, 0.1),
    (r"DARK MASTER (MIN|MAX)", 5.0, 0),
    (r"DARK MASTER DC", 0.06, 0),  # its error is DCERR / sqrt(300)
    (r"DARK MASTER DCERR", 0, 0.25),
    (r"FLAT INPUT\d+ (MEDIAN|MEAN|STDEV)", 0, 1e-4),
    (r"FLAT INPUT\d+ (MIN|MAX)", 5.0, 0),
    (r"FLAT MASTER (MEDIAN|MEAN|STDEV|INTFLUX)", 0, 1e-4),
    (r"FLAT MASTER (MIN|MAX)", 5.0, 2e-3),
    (r"FLAT MASTER SLICE\d+ MEAN", 0, 2e-4),
    (r"FLAT MASTER SLICE\d+ STDEV", 0, 0.02),
    (r"TRACE SLICE_[LR] XPOS", 0.01, 0),
    (r"TRACE SLICE_[LR] TILT", 1e-3, 0),
    (r"TRACE SLICE\d+ MAXSLOPE", 3e-4, 0),  # at the first or last row, where a polynomial of order 5 is loosest
    (r"TRACE SLICE\d+ WIDTH", 0.03, 0),
    (r"TRACE (WIDTHS|GAPS) (MEDIAN|MEAN|MIN|MAX|STDEV)", 0.03, 0),
    (r"WAVECAL SLICE\d+ LINES NDET", 12, 0),  # of 140; ours are local maxima, ESO's stretches above the limit
    (r"WAVECAL SLICE\d+ LINES NID", 30, 0),  # ours takes in almost all
    (r"WAVECAL SLICE\d+( LAMP\d)? LINES PEAK (MEAN|STDEV|MAX)", 0, 0.2),  # the height of the profile, not a pixel's
    (r"WAVECAL SLICE\d+ LINES PEAK MIN", 0, 0.5),  # of one faint line
    (r"WAVECAL SLICE\d+ LINES FWHM (MEAN|STDEV)", 0.005, 0),
    (r"WAVECAL SLICE\d+ LINES FWHM (MIN|MAX)", 0.05, 0),  # of one place of one line
    (r"WAVECAL SLICE\d+ RESOL", 0, 0.005),
    (r"WAVECAL SLICE\d+ FIT NLINES", 3, 0),
    (r"WAVECAL SLICE\d+ FIT RMS", 0, 0.2),  # weighted as is right, ours is some 9 % less
    (r"WAVECAL SLICE\d+ DWLEN (BOTTOM|TOP)", 0.03, 0),
    (r"WAVECAL SLICE\d+ WLPOS", 0, 0),
    (r"WAVECAL SLICE\d+ WLEN", 0.002, 0),
    (r"WAVECAL NSATURATED LAMP\d", 0, 0),
)


@pytest.fixture(scope="session")
def eso(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return ask_referee(tmp_path_factory)


@pytest.fixture(scope="session")
def ours(eso: Referee, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our products of ESO's inputs: of the raw frames and our own bias; wavelengths with ESO's bias and trace."""
    folder = tmp_path_factory.mktemp("ours")
    made = reduce("muse_bias", list(eso.raw["BIAS"]), {}, folder, channel=CHANNEL)
    bias = {"MASTER_BIAS": made["MASTER_BIAS"]}
    made |= reduce("muse_dark", list(eso.raw["DARK"]), bias, folder, channel=CHANNEL)
    made |= reduce("muse_flat", list(eso.raw["FLAT"]), bias, folder, channel=CHANNEL, samples=True)
    theirs = {catg: eso.products[catg] for catg in ("MASTER_BIAS", "TRACE_TABLE")}
    theirs["LINE_CATALOG"] = eso.line_catalog
    made |= reduce("muse_wavecal", list(eso.raw["ARC"]), theirs, folder, channel=CHANNEL, residuals=True)
    return made


@pytest.mark.parametrize("recipe", [BIAS, DARK, FLAT, WAVECAL, LSF], ids=lambda recipe: str(recipe.name))
def test_parameters_have_the_names_and_defaults_of_eso(recipe: Recipe, tmp_path: Path) -> None:
    plugins = next(Path("/usr/lib").glob("*/cpl/plugins"), Path("/usr/lib/esopipes-plugins"))
    command = ["esorex", f"--recipe-dir={plugins}", "--man-page", recipe.name]
    page = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    options = page.split("The following options")[1].split("Note that")[0].split("\n  --")[1:]
    theirs = {option.split()[0]: option.rsplit("[", 1)[1].split("]")[0] for option in options}
    # Which channels, and in how many files, is not a matter of the recipe here.
    del theirs["nifu"], theirs["merge"]
    mine = {item.name: str(item.default) for item in parameters(recipe.params)}
    assert {name: value.lower() for name, value in mine.items()} == {name: v.lower() for name, v in theirs.items()}


def quality(path: Path) -> dict[str, float]:
    header = fits.getheader(path)
    return {key.removeprefix("ESO QC "): header[key] for key in header if key.startswith("ESO QC ")}


@pytest.mark.parametrize("catg", IMAGES + TABLES)
def test_every_hdu_and_column_of_eso_is_there(eso: Referee, ours: Mapping[str, Path], catg: str) -> None:
    with fits.open(eso.products[catg]) as theirs, fits.open(ours[catg]) as mine:
        assert [hdu.name for hdu in mine] == [hdu.name for hdu in theirs]
        for one, other in zip(mine[1:], theirs[1:], strict=True):
            assert one.header["BITPIX"] == other.header["BITPIX"]
            if catg in TABLES:
                assert [(c.name, c.format, c.unit) for c in one.columns] == [
                    (c.name, c.format, c.unit) for c in other.columns
                ]
            else:
                assert one.data.shape == other.data.shape
                assert one.header.get("BUNIT") == other.header.get("BUNIT")


@pytest.mark.parametrize("catg", [*IMAGES, "TRACE_TABLE", "WAVECAL_TABLE"])
def test_every_qc_parameter_of_eso_is_there_with_its_value(eso: Referee, ours: Mapping[str, Path], catg: str) -> None:
    theirs, mine = quality(eso.products[catg]), quality(ours[catg])
    assert {name for name in mine if not re.fullmatch(OURS_ALONE, name)} == set(theirs)
    apart = {}
    for name, value in theirs.items():
        if name.endswith("NBADPIX"):
            continue  # tested below
        absolute, relative = next(
            (absolute, relative) for pattern, absolute, relative in TOLERANCES if re.fullmatch(pattern, name)
        )
        if abs(mine[name] - value) > absolute + relative * abs(value):
            apart[name] = (mine[name], value)
    assert apart == {}


@pytest.mark.parametrize("catg", [*IMAGES, "TRACE_TABLE", "WAVECAL_TABLE"])
def test_qc_parameters_have_the_words_and_units_of_eso(eso: Referee, ours: Mapping[str, Path], catg: str) -> None:
    theirs, mine = fits.getheader(eso.products[catg]), fits.getheader(ours[catg])
    names = [key for key in theirs if key.startswith("ESO QC ")]
    for name in names:
        unit = re.match(r"\[[^]]*\]", theirs.comments[name])
        assert (unit.group() if unit else "") == (mine.comments[name].split("]")[0] + "]" if unit else "")
        assert mine.comments[name][:12] == theirs.comments[name][:12]


def test_bad_pixels_are_those_of_eso_without_its_spurious_ones(eso: Referee, ours: Mapping[str, Path]) -> None:
    for catg in ("MASTER_BIAS", "MASTER_DARK"):
        kind = catg.removeprefix("MASTER_")
        theirs = quality(eso.products[catg])[f"{kind} MASTER NBADPIX"]
        assert 0.3 * theirs < quality(ours[catg])[f"{kind} MASTER NBADPIX"] <= theirs


@pytest.mark.parametrize(("catg", "limit"), [("MASTER_BIAS", 0.01), ("MASTER_DARK", 0.05)])
def test_levels_agree(eso: Referee, ours: Mapping[str, Path], catg: str, limit: float) -> None:
    difference = planes(ours[catg])[0] - planes(eso.products[catg])[0]
    assert abs(np.median(difference)) < limit


def test_flats_agree_to_a_thousandth(eso: Referee, ours: Mapping[str, Path]) -> None:
    mine, theirs = planes(ours["MASTER_FLAT"])[0], planes(eso.products["MASTER_FLAT"])[0]
    lit = theirs > 0.1
    assert abs(np.median(mine[lit] / theirs[lit]) - 1) < 1e-3


def polynomials(path: Path, stem: str, y: NDArray[np.float64]) -> NDArray[np.float64]:
    table = fits.getdata(path)
    powers = sum(name.startswith(stem) for name in table.names)
    coefficients = np.array([table[f"{stem}{power:02d}"] for power in range(powers)])
    return np.asarray(np.polynomial.polynomial.polyval(y, coefficients))


def test_eso_makes_the_same_flat_and_trace_of_our_bias(eso: Referee, ours: Mapping[str, Path], tmp_path: Path) -> None:
    inputs = [(path, "FLAT") for path in eso.raw["FLAT"]]
    said = run_esorex("muse_flat", [*inputs, (ours["MASTER_BIAS"], "MASTER_BIAS")], tmp_path)
    assert "overscan parameters differ" not in said
    made, made_stat = planes(tmp_path / "MASTER_FLAT-01.fits")[::2]
    before = planes(eso.products["MASTER_FLAT"])[0]
    lit = before > 0.1
    change = np.abs(made - before)[lit] / np.sqrt(made_stat[lit])
    assert np.quantile(change, 0.999) < 1  # less than the flat's own error
    y = np.arange(1.0, 4113.0)
    for which in range(3):
        moved = polynomials(tmp_path / "TRACE_TABLE-01.fits", f"tc{which}_", y) - polynomials(
            eso.products["TRACE_TABLE"], f"tc{which}_", y
        )
        assert np.sqrt(np.mean(moved**2)) < 0.0042  # pix; ESO's edges are known no better


def test_eso_finds_the_same_wavelengths_with_our_bias_flat_and_trace(
    eso: Referee, ours: Mapping[str, Path], tmp_path: Path
) -> None:
    inputs = [(path, "ARC") for path in eso.raw["ARC"]]
    inputs += [(ours[catg], catg) for catg in ("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE")]
    said = run_esorex("muse_wavecal", [*inputs, (eso.line_catalog, "LINE_CATALOG")], tmp_path)
    assert "overscan parameters differ" not in said
    made, before = (fits.getdata(path) for path in (tmp_path / "WAVECAL_TABLE-01.fits", eso.products["WAVECAL_TABLE"]))
    trace = polynomials(eso.products["TRACE_TABLE"], "tc0_", np.arange(300.0, 4000.0))
    error = np.median(np.sqrt(before["MSE"]))  # Angstrom, of one line
    for number in range(48):
        away = [
            np.polynomial.polynomial.polyval2d(
                trace[number],
                np.arange(300.0, 4000.0),
                np.array([[table[f"wlc{i}{j}"][number] for j in range(7)] for i in range(3)]),
            )
            for table in (made, before)
        ]
        assert np.sqrt(np.mean((away[0] - away[1]) ** 2)) < error
    qc, qc_before = quality(tmp_path / "WAVECAL_TABLE-01.fits"), quality(eso.products["WAVECAL_TABLE"])
    for number in range(1, 49):
        name = f"WAVECAL SLICE{number} FIT RMS"
        assert qc[name] == pytest.approx(qc_before[name], rel=0.1)


def test_wavelengths_of_eso_bias_and_trace_are_those_of_eso(eso: Referee, ours: Mapping[str, Path]) -> None:
    """Both are within half a thousandth of an Angstrom of the truth, so they differ by no more than that much."""
    x, y = np.arange(-36.0, 37.0), np.arange(300.0, 3900.0)
    traces = read_traces(read_table(eso.products["TRACE_TABLE"], CHANNEL).table)
    mine, theirs = (
        read_dispersions(read_table(path, CHANNEL).table)
        for path in (ours["WAVECAL_TABLE"], eso.products["WAVECAL_TABLE"])
    )
    away = [
        one.on_rows(x + trace.polynomials[CENTRE](2056.0), y) - other.on_rows(x + trace.polynomials[CENTRE](2056.0), y)
        for one, other, trace in zip(mine, theirs, traces, strict=True)
    ]
    assert np.sqrt(np.mean(np.square(away))) < 6e-4
    assert np.abs(away).max() < 0.01
