"""ESO's own recipes take the simulated frames for real ones: no error, and QC values like those of real channels.

The ranges are those of the 24 channels in real calibrations of June 2017, bias of four nights, the others of three
(documentation database of musevlt/musered, MIT licence), widened where a single bad channel does not set the scale.
"""

import re

import pytest
from astropy.io import fits
from referee import Referee, ask_referee

pytestmark = [pytest.mark.full, pytest.mark.referee, pytest.mark.timeout(1800)]

# Product, keyword after ``ESO QC``, least, most. Every keyword that matches must lie inside.
REAL = (
    ("MASTER_BIAS", r"BIAS LEVEL\d (MEAN|MEDIAN)", 1197.0, 1208.2),
    ("MASTER_BIAS", r"BIAS LEVEL\d STDEV", 0.0, 0.53),
    ("MASTER_BIAS", r"BIAS MASTER\d RON", 1.94, 3.52),
    ("MASTER_BIAS", r"BIAS MASTER\d RONERR", 0.07, 0.13),
    ("MASTER_BIAS", r"BIAS MASTER\d (MEAN|MEDIAN)", -0.17, 0.15),
    ("MASTER_BIAS", r"BIAS MASTER\d STDEV", 0.57, 4.6),
    ("MASTER_BIAS", r"BIAS MASTER\d SLOPE [XY]", -4.1e-4, 2.1e-4),
    ("MASTER_BIAS", r"BIAS MASTER NBADPIX", 0, 12331),
    ("MASTER_BIAS", r"BIAS INPUT\d+ NSATURATED", 0, 9),
    ("MASTER_DARK", r"DARK MASTER (DC|MEDIAN)", 0.5, 2.0),  # no real value to be had; a cold CCD of this kind
    ("MASTER_FLAT", r"FLAT INPUT\d+ MEDIAN", 23990, 27983),
    ("MASTER_FLAT", r"FLAT INPUT\d+ MEAN", 23315, 26172),
    ("MASTER_FLAT", r"FLAT INPUT\d+ STDEV", 15354, 17132),
    ("MASTER_FLAT", r"FLAT INPUT\d+ MAX", 51044, 72350),
    ("MASTER_FLAT", r"FLAT MASTER INTFLUX", 3.92e11, 4.41e11),
    ("MASTER_FLAT", r"FLAT MASTER SLICE\d+ MEAN", 28560, 55000),
    ("MASTER_FLAT", r"FLAT MASTER SLICE\d+ STDEV", 720, 5500),
    ("TRACE_TABLE", r"TRACE WIDTHS MEAN", 76.32, 76.72),
    ("TRACE_TABLE", r"TRACE WIDTHS MIN", 74.5, 75.2),
    ("TRACE_TABLE", r"TRACE WIDTHS MAX", 78.9, 79.5),
    ("TRACE_TABLE", r"TRACE WIDTHS STDEV", 1.2, 1.35),
    ("TRACE_TABLE", r"TRACE GAPS MEAN", 7.05, 7.28),
    ("TRACE_TABLE", r"TRACE GAPS STDEV", 0.50, 1.08),
    ("TRACE_TABLE", r"TRACE SLICE_L XPOS", 62.8, 91.5),
    ("TRACE_TABLE", r"TRACE SLICE_R XPOS", 3996.5, 4022.8),
    ("TRACE_TABLE", r"TRACE SLICE\d+ MAXSLOPE", -0.0114, 0.0114),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ LINES NDET", 106, 149),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ LINES NID", 90, 149),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ LINES PEAK MAX", 41754, 71424),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ LINES PEAK MEAN", 3529, 9000),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ LINES FWHM MEAN", 1.9, 2.9),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ RESOL", 2474, 3686),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ FIT RMS", 0.0, 0.0527),  # the model has no irregularity of the real grating
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ FIT NLINES", 64, 200),  # the newer pipeline uses more lines than the real 70
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ WLEN", 6800, 7200),
    ("WAVECAL_TABLE", r"WAVECAL SLICE\d+ DWLEN (BOTTOM|TOP)", -5.9, 5.5),
    ("WAVECAL_TABLE", r"WAVECAL NSATURATED LAMP\d", 0, 83),
)


@pytest.fixture(scope="session")
def eso(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return ask_referee(tmp_path_factory)


@pytest.mark.parametrize(("catg", "keyword", "least", "most"), REAL, ids=[f"{catg} {key}" for catg, key, *_ in REAL])
def test_qc_is_in_the_range_of_real_channels(eso: Referee, catg: str, keyword: str, least: float, most: float) -> None:
    header = fits.getheader(eso.products[catg])
    values = {key: header[key] for key in header if re.fullmatch(f"ESO QC {keyword}", key)}
    assert values
    assert {key: value for key, value in values.items() if not least <= value <= most} == {}


def test_every_slice_is_traced_and_calibrated(eso: Referee) -> None:
    for catg in ("TRACE_TABLE", "WAVECAL_TABLE"):
        assert list(fits.getdata(eso.products[catg])["SliceNo"]) == list(range(1, 49))
