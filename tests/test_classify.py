"""What a header says of a frame: true headers, and headers that lie."""

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import String

from archive.models import Frame
from archive.night import mjd_of, time_of
from recipes.muse import Lamp
from recipes.recipe import Value
from recipes.simulator.headers import primary_header
from recipes.simulator.schedule import Sequence, night_exposures
from tasks.cascade import Tag
from tasks.classify import Classified, classify

NIGHT = date(2026, 6, 17)
BIAS: dict[str, Value] = {
    "INSTRUME": "MUSE",
    "ARCFILE": "MUSE.2017-06-16T10:41:11.867.fits",
    "MJD-OBS": 57920.44526620,
    "DATE-OBS": "2017-06-16T10:41:11.000",
    "EXPTIME": 0.0,
    "ESO DPR CATG": "CALIB",
    "ESO DPR TYPE": "BIAS",
    "ESO DPR TECH": "IFU",
    "ESO TPL START": "2017-06-16T10:40:27",
    "ESO TPL NEXP": 11,
    "ESO TPL EXPNO": 1,
    "ESO INS MODE": "WFM-AO-N",
    "ESO INS OPTI1 NAME": "Blue-Na2",
    "ESO INS OPTI2 NAME": "WFM",
    "ESO DET READ CURID": 1,
    "ESO DET READ CURNAME": "SCI1.0",
    "ESO DET BINX": 1,
    "ESO DET BINY": 1,
}


def classified(changes: Mapping[str, Value | None] = MappingProxyType({})) -> Classified:
    """Classify the bias header with keywords changed; None takes one away."""
    return classify({keyword: value for keyword, value in {**BIAS, **changes}.items() if value is not None})


@pytest.mark.parametrize("sequence", list(Sequence))
def test_simulated_frames_are_what_they_were_simulated_as(sequence: Sequence) -> None:
    for exposure in night_exposures(NIGHT, "WFM-NOAO-N", (sequence,)):
        found = classify(dict(primary_header(exposure)))
        assert (found.tag, found.night, found.problems) == (Tag[sequence.name], NIGHT, ())


def test_each_arc_is_lit_by_one_lamp_and_all_lamps_have_their_turn() -> None:
    lamps = [classify(dict(primary_header(arc))).lamps for arc in night_exposures(NIGHT, "WFM-NOAO-N", (Sequence.ARC,))]
    assert {len(lit) for lit in lamps} == {1}
    assert {lit[0] for lit in lamps} == {Lamp.NEON, Lamp.XENON, Lamp.MERCURY_CADMIUM}


def test_a_true_header_has_no_problems() -> None:
    bias = classified()
    assert (bias.tag, bias.problems, bias.dp_id) == (Tag.BIAS, (), "MUSE.2017-06-16T10:41:11.867")
    assert (bias.tpl_start, bias.tpl_nexp, bias.setup.readout, bias.setup.mode) == (
        "2017-06-16T10:40:27", 11, "SCI1.0", "WFM-AO-N",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("time", "night"),
    [
        ("2017-06-16T20:59:59", date(2017, 6, 15)),  # the last calibrations of the day still belong to the night before
        ("2017-06-16T21:00:00", date(2017, 6, 16)),
        ("2017-06-16T12:32:22", date(2017, 6, 15)),  # arcs at noon
    ],
)
def test_a_night_turns_over_at_21_ut(time: str, night: date) -> None:
    assert classified({"MJD-OBS": None, "DATE-OBS": time}).night == night


@pytest.mark.parametrize(("lamp", "shutter", "lit"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_lamp_lights_only_through_an_open_shutter(lamp: bool, shutter: bool, lit: bool) -> None:  # noqa: FBT001 - rows of a table
    found = classified({"ESO INS LAMP4 ST": lamp, "ESO INS SHUT4 ST": shutter, "ESO INS SHUT3 ST": True})
    assert found.lamps == ((Lamp.XENON,) if lit else ())


def test_an_arc_without_light_is_told() -> None:
    dark_arc = classified({"ESO DPR TYPE": "WAVE"})
    assert dark_arc.tag is Tag.ARC
    assert any("none is on" in problem for problem in dark_arc.problems)


def test_both_spellings_of_a_mode_are_one() -> None:
    assert classified({"ESO INS MODE": "WFM-NONAO-N"}).setup == classified({"ESO INS MODE": "WFM-NOAO-N"}).setup


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"INSTRUME": "FORS2"}, "not MUSE"),
        ({"INSTRUME": None}, "not MUSE"),
        ({"ESO PRO CATG": "MASTER_BIAS"}, "it is a product"),
        ({"ESO DPR TYPE": "BIAS,DOME"}, "no rule"),
        ({"ESO DPR CATG": None, "ESO DPR TYPE": None}, "no rule"),
    ],
)
def test_what_no_rule_knows_is_unknown_with_its_reason(changes: dict[str, Value | None], reason: str) -> None:
    found = classified(changes)
    assert found.tag is Tag.UNKNOWN
    assert reason in found.rule.lower().replace("muse", "MUSE")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"EXPTIME": "long"}, "EXPTIME = 'long' is not a number"),
        ({"EXPTIME": -5.0}, "EXPTIME = -5.0 is not a number from 0"),
        ({"ESO TPL START": None}, "ESO TPL START is missing."),
        ({"ESO DET READ CURNAME": 5}, "ESO DET READ CURNAME = 5 is not text."),
        ({"DATE-OBS": "2017-06-17T10:41:11"}, "are not the same time"),
        ({"MJD-OBS": 1e30}, "MJD-OBS = 1e+30 is not a number"),
        ({"ESO TPL NEXP": True}, "ESO TPL NEXP = True is not a number"),
    ],
)
def test_a_header_that_lies_is_told_and_stops_nothing(changes: dict[str, Value | None], sentence: str) -> None:
    found = classified(changes)
    assert found.tag is Tag.BIAS
    assert any(sentence in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("arcfile", "name", "dp_id"),
    [
        ("MUSE.2017-06-16T10:41:11.867.fits", "copy.fits", "MUSE.2017-06-16T10:41:11.867"),
        (None, "MUSE.2017-06-16T10_41_11.867.fits.fz", "MUSE.2017-06-16T10:41:11.867"),  # as Windows has it
        (None, "frame 7.fits", "MUSE.2017-06-16T10:41:11.000"),
    ],
)
def test_a_frame_is_named_by_archive_then_file_then_time(arcfile: str | None, name: str, dp_id: str) -> None:
    header = {keyword: value for keyword, value in BIAS.items() if keyword != "ARCFILE"}
    assert classify(header | ({"ARCFILE": arcfile} if arcfile else {}), name=name).dp_id == dp_id


def test_without_any_time_the_file_name_is_left() -> None:
    found = classify({"INSTRUME": "MUSE"}, name="strange/../fra me.fits")
    assert (found.dp_id, found.mjd) == ("fra_me", 0.0)


def test_the_begin_is_taken_from_what_there_is() -> None:
    assert time_of(classified({"MJD-OBS": None}).mjd).isoformat() == "2017-06-16T10:41:11+00:00"
    by_name = classified({"MJD-OBS": None, "DATE-OBS": None})
    assert by_name.mjd == pytest.approx(mjd_of(time_of(57920.44526620)), abs=1 / 86400)


VALUES = st.one_of(
    st.booleans(), st.integers(), st.floats(), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80)
)


@given(changes=st.dictionaries(st.sampled_from(sorted(BIAS)), VALUES), name=st.text(max_size=300))
def test_no_header_is_refused_and_every_text_fits_its_column(changes: dict[str, Value], name: str) -> None:
    found = classify(BIAS | changes, name=name)
    for column in Frame.__table__.columns:
        value = getattr(found, column.name, None) or getattr(found.setup, column.name, None)
        if isinstance(value, str):
            assert isinstance(column.type, String)
            assert len(value) <= (column.type.length or 0), column.name
        if isinstance(value, int):
            assert abs(value) < 2**31
