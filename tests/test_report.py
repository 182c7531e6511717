"""The night report: each file has one fate and a reason, and a file without one is not hidden."""

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from sample_night import NIGHT, NOW, PRODUCT, add_frame, add_group, add_night, name_of
from sqlalchemy import select

from archive.models import Arrival, Frame, Measurement, Step, Use
from archive.registry import Registry
from archive.states import ArrivalState, GroupState, StepState
from daemon.report import Fate, NightReport, compile_report, night_of_name, report_record, score_inputs, unaccounted
from tasks.cascade import RECIPES


@pytest.fixture
def night(registry: Registry, tmp_path: Path) -> Registry:
    with registry.begin() as session:
        add_night(session, tmp_path)
    return registry


def compiled(registry: Registry, incoming: dict[Path, str] | None = None) -> NightReport:
    with registry.read() as session:
        return compile_report(session, NIGHT, incoming or {})


def test_every_file_of_the_night_has_its_fate(night: Registry) -> None:
    report = compiled(night)
    flat = Fate.AWAITED if "muse_flat" in RECIPES else Fate.NO_RECIPE
    arc = Fate.AWAITED if "muse_wavecal" in RECIPES else Fate.NO_RECIPE
    expected = Counter([Fate.PROCESSED] * 3 + [flat] * 2 + [arc])
    expected.update([Fate.NOT_PROCESSED, Fate.UNKNOWN, Fate.DUPLICATE, Fate.QUARANTINED])
    assert report.fates == expected
    assert report.balanced
    assert all(entry.reason.endswith(".") for entry in report.entries)


def test_what_is_processed_was_taken_in_by_a_step_that_is_done(night: Registry) -> None:
    with night.begin() as session:
        step = session.scalars(select(Step).where(Step.name == "bias")).one()
        session.delete(step.uses[0])
        step.uses = step.uses[1:]
    report = compiled(night)
    assert [entry.file for entry in report.entries if entry.fate is Fate.UNEXPLAINED] == [name_of(0)]
    assert not report.balanced


def test_a_lamp_flat_that_went_along_with_a_step_counts_as_processed(night: Registry, tmp_path: Path) -> None:
    with night.begin() as session:
        used, unused = (add_frame(session, tmp_path, number, "ILLUM") for number in (62, 63))
        step = session.scalars(select(Step).where(Step.name == "bias")).one()
        session.add(Use(step=step, tag="ILLUM", frame=used))
        names = [Path(frame.arrivals[0].path).name for frame in (used, unused)]
    fates = {entry.file: (entry.fate, entry.reason) for entry in compiled(night).entries}
    assert fates[names[0]] == (Fate.PROCESSED, f"S{step.id} bias done.")
    assert fates[names[1]][0] is Fate.NOT_PROCESSED


def test_a_frame_that_no_arrival_accounts_for_unbalances_the_ledger(night: Registry, tmp_path: Path) -> None:
    with night.begin() as session:
        frame = add_frame(session, tmp_path, 60, "OBJECT")
        session.flush()
        session.delete(frame.arrivals[0])
        dp_id = frame.dp_id
    report = compiled(night)
    assert report.orphans == (dp_id,)
    assert not report.balanced


def test_a_calibration_frame_without_a_group_is_not_explained_away(night: Registry, tmp_path: Path) -> None:
    with night.begin() as session:
        add_frame(session, tmp_path, 61, "DARK")
    assert compiled(night).fates[Fate.UNEXPLAINED] == 1


def test_an_ingested_arrival_without_a_frame_is_not_explained_away(night: Registry) -> None:
    with night.begin() as session:
        arrival = Arrival(path=f"/incoming/{name_of(70)}", state=ArrivalState.INGESTED, first_seen=NOW)
        session.add(arrival)
    assert compiled(night).fates[Fate.UNEXPLAINED] == 1


@pytest.mark.parametrize(
    ("state", "fate"),
    [
        (StepState.QUEUED, Fate.AWAITED),
        (StepState.RUNNING, Fate.AWAITED),
        (StepState.FAILED, Fate.FAILED),
        (StepState.HELD, Fate.HELD),
        (StepState.CANCELLED, Fate.CANCELLED),
    ],
)
def test_the_state_of_a_step_is_the_fate_of_its_frames(night: Registry, state: StepState, fate: Fate) -> None:
    with night.begin() as session:
        step = session.scalars(select(Step).where(Step.name == "bias")).one()
        step.state, step.error = state, "The overscan of channel 12 is saturated."
    report = compiled(night)
    assert {entry.fate for entry in report.entries if entry.tag == "BIAS"} == {fate, Fate.DUPLICATE}
    assert [step.name for step in report.unfinished][:1] == ["bias"]


def test_a_group_that_ended_too_small_says_so(night: Registry, tmp_path: Path) -> None:
    with night.begin() as session:
        frame = add_frame(session, tmp_path, 60, "BIAS")
        group = add_group(session, "BIAS", [frame], GroupState.INCOMPLETE, expected=11)
        group.reason = "1 of 11 frames came; 3 are needed."
    entry = next(entry for entry in compiled(night).entries if entry.fate is Fate.INCOMPLETE)
    assert (entry.file, entry.reason) == (name_of(60), "1 of 11 frames came; 3 are needed.")


def test_a_new_version_supersedes_the_old_one(night: Registry) -> None:
    with night.begin() as session:
        old, new = session.scalars(select(Frame).where(Frame.tag == "BIAS").limit(2))
        old.superseded_by = new.id
    assert compiled(night).fates[Fate.SUPERSEDED] == 1


def test_a_file_that_still_settles_is_received_but_awaited(night: Registry) -> None:
    settling, of_another_night, known = (
        Path("/incoming") / name for name in (name_of(80), name_of(80 + 1440), name_of(1))
    )
    report = compiled(night, {settling: "It is still growing.", of_another_night: "", known: ""})
    assert [entry.file for entry in report.entries if entry.received is None] == [settling.name]
    assert report.entries[-1].reason == "It is still growing."


def test_times_of_a_step_are_cpu_seconds_and_differences_of_its_rows(night: Registry) -> None:
    step = compiled(night).steps[0]
    assert (step.cpu, step.wall, step.reaction, step.arrival_to_product) == (7.5, 8.0, 56.0, 69.0)
    assert (step.frames, step.channels, step.remark) == (3, 2, "")


def test_a_product_is_listed_with_its_score_inputs(night: Registry) -> None:
    line = compiled(night).products[0]
    ron = next(item for item in line.inputs if item.name == "BIAS MASTERn RON")
    assert line.name == f"{PRODUCT}.fits"
    assert (ron.least, ron.most, ron.values) == (2.1, 2.7, 4)
    assert ron.median == pytest.approx(2.4)
    assert line.further_values == 4  # the saturated pixels of each input frame


def test_values_that_could_not_be_measured_are_no_score_input() -> None:
    measurements = [Measurement(channel=1, name="DARK MASTER DC", value=value) for value in (None, 1.0)]
    assert [item.values for item in score_inputs(measurements)] == [1]


def test_a_delivered_file_that_the_ledger_lacks_is_found(night: Registry) -> None:
    assert unaccounted(compiled(night), [name_of(0), "MUSE.lost.fits"]) == ("MUSE.lost.fits",)


def test_a_file_twice_delivered_has_to_be_there_twice(night: Registry) -> None:
    assert unaccounted(compiled(night), [name_of(0)] * 3) == (name_of(0),)


def test_the_night_of_a_name_turns_over_at_21_hours() -> None:
    assert night_of_name("MUSE.2026-06-17T20:59:59.000.fits") == date(2026, 6, 16)
    assert night_of_name("MUSE.2026-06-17T21:00:00.000.fits.fz") == date(2026, 6, 17)
    assert night_of_name("holiday.fits") is None


def test_a_nameless_wreck_belongs_to_the_night_in_which_it_was_seen(night: Registry) -> None:
    with night.begin() as session:
        session.add(
            Arrival(
                path="/incoming/holiday.fits",
                state=ArrivalState.QUARANTINED,
                reason="It is no FITS file.",
                first_seen=NOW - timedelta(hours=1),
            )
        )
    assert "holiday.fits" in [entry.file for entry in compiled(night).entries]


def test_the_record_holds_plain_values_only(night: Registry) -> None:
    record = report_record(compiled(night))
    assert record["balanced"] is True
    assert record["received"] == sum(record["fates"].values()) == 10
