"""Thresholds: real products pass those of the package, spoiled ones do not, and a slip in a file is told in words."""

import math
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from derive_thresholds import RULES, RealProduct, real_products, thresholds_file
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.setup import Setup
from archive.states import Score
from recipes.change import SIGMAS
from tasks.score import Mark, Measured, product_score, score_values, scores_by_channel
from tasks.thresholds import SHIPPED, Fixed, Previous, ThresholdsError, read_thresholds

REAL = tuple(real_products())
SHIPPED_THRESHOLDS = read_thresholds()
ENTRY = """\
[[threshold]]
category = "MASTER_BIAS"
parameter = "BIAS LEVELn MEDIAN"
kind = "fixed"
valid_from = 2014-01-01
limits = [{ yellow = [1100, 1300], red = [1000, inf] }]
"""


def score(product: RealProduct, values: tuple[Measured, ...]) -> list[Mark]:
    setup = Setup(mode=product.mode, readout="SCI1.0", readout_id=1, optics="WFM")
    return score_values(values, SHIPPED_THRESHOLDS.serving(product.category, setup, product.night), {})


def times(factor: float) -> Callable[[float], float]:
    return lambda value: value * factor


def plus(shift: float) -> Callable[[float], float]:
    return lambda value: value + shift


# What goes wrong in real life, as it would show: for each parameter that is scored by its value, at least one.
SPOILT = (
    ("the bias level is off", "BIAS LEVELn MEDIAN", plus(300)),
    ("a bias level is 0", "BIAS LEVELn MEDIAN", times(0)),
    ("the read noise has doubled", "BIAS MASTERn RON", times(2)),
    ("an amplifier is dead", "BIAS MASTERn RON", times(0)),
    ("the overscan does not stand for the bias", "BIAS MASTERn MEDIAN", plus(2)),
    ("the bias has a slope along x", "BIAS MASTERn SLOPE X", plus(0.005)),
    ("the bias has a slope along y", "BIAS MASTERn SLOPE Y", plus(-0.005)),
    ("ten columns are bad", "BIAS MASTER NBADPIX", plus(10 * 4112)),
    ("the shutter was open", "BIAS MASTER NSATURATED", plus(1e6)),
    ("the shutter was open once", "BIAS INPUTn NSATURATED", plus(1e6)),
    ("the flat is saturated", "FLAT MASTER MEDIAN", times(2.3)),
    ("a lamp is lost", "FLAT MASTER MEDIAN", times(0.1)),
    ("a lamp is lost", "FLAT MASTER INTFLUX", times(0.1)),
    ("a slice is dark", "FLAT MASTER SLICEn MEAN", times(0.1)),
    ("the flat is saturated", "FLAT MASTER NSATURATED", plus(1e6)),
    ("the lamp failed in one frame", "FLAT INPUTn MEDIAN", times(0.2)),
    ("one frame is saturated", "FLAT INPUTn NSATURATED", plus(1e6)),
    ("slices are traced too narrow", "TRACE WIDTHS MEAN", plus(-4)),
    ("a slice is cut off", "TRACE WIDTHS MIN", plus(-20)),
    ("two slices are traced as one", "TRACE WIDTHS MAX", times(2)),
    ("two slices are traced as one", "TRACE WIDTHS STDEV", plus(10)),
    ("a slice is cut off", "TRACE SLICEn WIDTH", plus(-10)),
    ("a slice is lost", "TRACE GAPS MEAN", plus(1.7)),
    ("traces touch each other", "TRACE GAPS MIN", times(0)),
    ("a slice is lost", "TRACE GAPS MAX", plus(80)),
    ("a trace runs away", "TRACE SLICEn MAXSLOPE", plus(0.1)),
    ("the first slice is lost", "TRACE SLICE_L XPOS", plus(84)),
    ("the last slice is lost", "TRACE SLICE_R XPOS", plus(-84)),
    ("a trace is tilted", "TRACE SLICE_L TILT", plus(0.3)),
    ("a trace is tilted", "TRACE SLICE_R TILT", plus(0.3)),
    ("a lamp is lost", "WAVECAL SLICEn LINES NDET", times(0.5)),
    ("lines are not identified", "WAVECAL SLICEn LINES NID", times(0.5)),
    ("few lines are left in the fit", "WAVECAL SLICEn FIT NLINES", times(0.5)),
    ("the fit is three times as bad", "WAVECAL SLICEn FIT RMS", times(3)),
    ("out of focus", "WAVECAL SLICEn RESOL", times(0.5)),
    ("out of focus", "WAVECAL SLICEn LINES FWHM MEAN", times(2)),
    ("the lamps are not warm", "WAVECAL SLICEn LINES PEAK MEAN", times(0.1)),
    ("one lamp is lost", "WAVECAL SLICEn LAMPn LINES PEAK MEAN", times(0.01)),
    ("wrong lines were identified", "WAVECAL SLICEn WLEN", plus(450)),
    ("wrong lines were identified", "WAVECAL SLICEn DWLEN BOTTOM", plus(40)),
    ("wrong lines were identified", "WAVECAL SLICEn DWLEN TOP", plus(-40)),
    ("the arcs are saturated", "WAVECAL NSATURATED LAMPn", plus(1e5)),
    ("out of focus", "LSF SLICEn FWHM MEAN", times(2)),
    ("it was dark already", "TWILIGHTn MASTER MEDIAN", times(0.2)),
    ("the twilight is saturated", "TWILIGHTn MASTER MEDIAN", times(3.2)),
    ("it was dark already", "TWILIGHTn INTFLUX", times(0.2)),
    ("the twilight is saturated", "TWILIGHTn INPUTn NSATURATED", plus(1e6)),
    ("through clouds", "STANDARD THRU5000", times(0.3)),
    ("through clouds", "STANDARD THRU7000", times(0.3)),
    ("through clouds", "STANDARD THRU8000", times(0.3)),
    ("more light than fell in", "STANDARD THRU9000", times(7)),
)  # fmt: skip


def pattern(parameter: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"(?<=[A-Z])n\b", r"\\d+", parameter))


@pytest.mark.parametrize("product", REAL, ids=lambda product: f"{product.category} of {product.night}")
def test_every_real_product_is_green(product: RealProduct) -> None:
    marks = score(product, product.values)
    assert [mark.remark for mark in marks if mark.score in (Score.YELLOW, Score.RED)] == []
    assert product_score(marks) is Score.GREEN
    assert len(scores_by_channel(marks)) in (1, 24)


def test_every_parameter_with_real_values_is_scored() -> None:
    for product in REAL:
        assert all(mark.score is Score.GREEN for mark in score(product, product.values))


@pytest.mark.parametrize(("what", "parameter", "spoil"), SPOILT, ids=[f"{row[1]}: {row[0]}" for row in SPOILT])
def test_no_spoilt_product_is_green(what: str, parameter: str, spoil: Callable[[float], float]) -> None:
    """In none of its channels, of any real product."""
    spoilt = 0
    for product in REAL:
        here = tuple(
            Measured(item.channel, item.name, spoil(item.value))
            for item in product.values
            if isinstance(item.value, float) and pattern(parameter).fullmatch(item.name)
        )
        if here:
            scores = scores_by_channel(score(product, here))
            assert set(scores.values()) <= {Score.YELLOW, Score.RED}, (what, product.category, product.night)
            spoilt += 1
    assert spoilt, "no real product has this parameter"


def test_every_scored_parameter_is_spoilt_above() -> None:
    assert {rule.parameter for rule in RULES} == {row[1] for row in SPOILT}


@pytest.mark.parametrize(
    ("parameter", "category", "value"),
    [
        ("WAVECAL SLICE1 FIT RMS", "WAVECAL_TABLE", 0.0086),  # what the simulated arcs give; real ones 0.02 to 0.05
        ("WAVECAL SLICE1 LINES FWHM MEAN", "WAVECAL_TABLE", 1.5),
        ("WAVECAL SLICE1 FIT NLINES", "WAVECAL_TABLE", 144),
        ("BIAS MASTER NBADPIX", "MASTER_BIAS", 0),
        ("LSF SLICE48 FWHM MEAN", "LSF_PROFILE", 1.5),
    ],
)
def test_nothing_is_too_good(parameter: str, category: str, value: float) -> None:
    serving = SHIPPED_THRESHOLDS.serving(category, Setup(), date(2026, 6, 17))
    [mark] = score_values([Measured(1, parameter, value)], serving, {})
    assert mark.score is Score.GREEN


def test_the_file_of_the_package_is_what_the_real_values_give() -> None:
    assert SHIPPED.read_text() == thresholds_file(REAL), "python tests/derive_thresholds.py > tasks/thresholds.toml"


def test_real_products_change_little_from_night_to_night() -> None:
    """The running medians of the package would not have marked one of them, had there been enough nights."""
    for threshold in SHIPPED_THRESHOLDS.threshold:
        if threshold.kind != "relative":
            continue
        values: dict[tuple[int, str], list[float]] = {}
        for product in REAL:
            for item in product.values if product.category == threshold.category else ():
                if threshold.matches(item.name) and isinstance(item.value, float):
                    values.setdefault((item.channel, item.name), []).append(item.value)
        low, high = threshold.limits[0].yellow
        for found in values.values():
            scale = found[0] if threshold.deviation == "fraction" else 1.0
            assert all(low < (value - found[0]) / scale < high for value in found)


def test_changes_are_held_against_what_is_measured() -> None:
    sigmas = {item.sigma for item in SHIPPED_THRESHOLDS.threshold if isinstance(item, Previous)}
    assert sigmas <= set(SIGMAS)


def test_thresholds_serve_their_dates_and_setups(tmp_path: Path) -> None:
    later = ENTRY.replace("2014-01-01", '2020-01-01\nsetup = { mode = ["WFM-AO-N", "NFM-AO-N"] }')
    (tmp_path / "t.toml").write_text(f'edition = "x"\n{ENTRY}valid_to = 2019-12-31\n{later}')
    thresholds = read_thresholds(tmp_path / "t.toml")

    def serving(day: date, mode: str) -> int:
        return len(thresholds.serving("MASTER_BIAS", Setup(mode=mode), day))

    assert serving(date(2013, 12, 31), "WFM-AO-N") == 0
    assert serving(date(2014, 1, 1), "") == serving(date(2019, 12, 31), "WFM-AO-N") == 1
    assert (serving(date(2020, 1, 1), "WFM-AO-N"), serving(date(2020, 1, 1), "WFM-NOAO-N")) == (1, 0)
    assert len(thresholds.serving("MASTER_FLAT", Setup(), date(2015, 1, 1))) == 0


def test_a_file_that_changed_is_read_again_and_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_text(f'edition = "x"\n{ENTRY}')
    first = read_thresholds(path)
    path.write_text(f'edition = "x"\n{ENTRY.replace("1300", "1299.5")}')
    second = read_thresholds(path)
    assert first.name.startswith("x ")
    assert first.name != second.name
    assert isinstance(second.threshold[0], Fixed)
    assert second.threshold[0].limits[0].yellow == (1100, 1299.5)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("kind =", "sort = 1\nkind =", r"fixed\.sort \(BIAS LEVELn MEDIAN of MASTER_BIAS\): Extra inputs"),
        ("MASTER_BIAS", "MASTER_BAIS", "no step makes a MASTER_BAIS; there are"),
        ("[1100, 1300]", "[900, 1300]", r"must be in order: red 1000\.0 <= yellow 900\.0"),
        ("[1100, 1300]", "[nan, 1300]", "must be in order"),
        ("yellow = [1100, 1300], red = [1000, inf]", "yellow = [-inf, inf], red = [-inf, inf]", "can be left out"),
        ("red = [1000, inf] }]", "red = [1000, inf], channels = [25] }]", "less than or equal to 24"),
        ("2014-01-01", "2014-01-01\nvalid_to = 2013-01-01", "valid_to 2013-01-01 is before valid_from"),
        ("fixed", "previous", "parameter"),
        ("limits = [", "limits = []\n#", "at least 1 item"),
        ("red = [1000, inf] }]", "red = [1000, inf] }, { yellow = [0, 1], red = [0, 1] }]", "more than one entry"),
        ('"fixed"', '"relative"', "deviation"),
        ("[[threshold]]", "[[threshold", "cannot be read"),
        ("[[threshold]]", f"{ENTRY}[[threshold]]", "two fixed thresholds for BIAS LEVELn MEDIAN of MASTER_BIAS serve"),
    ],
)  # fmt: skip
def test_a_slip_in_a_file_is_told(tmp_path: Path, before: str, after: str, sentence: str) -> None:
    (tmp_path / "t.toml").write_text(f'edition = "x"\n{ENTRY}'.replace(before, after, 1))
    with pytest.raises(ThresholdsError, match=sentence):
        read_thresholds(tmp_path / "t.toml")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ThresholdsError, match=r"see scoring\.thresholds"):
        read_thresholds(tmp_path / "t.toml")


@given(st.integers(0, len(REAL) - 1), st.floats(0.1, 4.0), st.floats(0.0, 4.0))
@settings(deadline=None)
def test_wider_limits_never_worsen_a_score(number: int, spoil: float, wider_by: float) -> None:
    product = REAL[number]
    spoilt = [
        Measured(item.channel, item.name, item.value * spoil)
        for item in product.values[::29]
        if isinstance(item.value, float)
    ]
    serving = SHIPPED_THRESHOLDS.serving(product.category, Setup(mode=product.mode), product.night)

    def wider(pair: tuple[float, float]) -> tuple[float, float]:
        low, high = pair
        return (
            low if math.isinf(low) else low - abs(low) * wider_by,
            high if math.isinf(high) else high + abs(high) * wider_by,
        )

    widened = [
        item.model_copy(
            update={
                "limits": tuple(
                    limits.model_copy(update={"yellow": wider(limits.yellow), "red": wider(limits.red)})
                    for limits in item.limits
                )
            }
        )
        for item in serving
    ]
    order = [Score.NONE, Score.GREEN, Score.YELLOW, Score.RED]
    for before, after in zip(score_values(spoilt, serving, {}), score_values(spoilt, widened, {}), strict=True):
        assert order.index(after.score) <= order.index(before.score)
