"""The command line as an operator meets it: what people type, what programs read, and codes and sentences on errors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sample_night import NIGHT, PRODUCT, add_night, name_of
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from archive.models import Arrival, Event, Measurement, Product, Step
from archive.registry import Registry
from archive.states import ArrivalState, Certification, Score, StepState
from daemon.cli.application import app
from daemon.cli.errors import ExitCode, NotFoundError, UsageError
from daemon.cli.identifiers import find, label, split
from daemon.cli.output import channels_text, duration_text, size_text
from daemon.cli.processes import parse_channels
from daemon.heartbeat import Heartbeat, write_heartbeat
from recipes.muse import Detector
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence
from recipes.simulator.statics import write_static

Musecal = Callable[..., Result]


@pytest.fixture
def night(registry: Registry, tmp_path: Path) -> Registry:
    with registry.begin() as session:
        add_night(session, tmp_path / "archive")
    return registry


@pytest.fixture
def settings_file(registry: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    url = registry.url.render_as_string(hide_password=False)
    path.write_text(f'[registry]\nurl = "{url}"\n[archive]\nroot = "archive"\nincoming = "incoming"\n')
    (tmp_path / "archive").mkdir()
    (tmp_path / "incoming").mkdir()
    return path


@pytest.fixture
def musecal(settings_file: Path) -> Musecal:
    """Run one command on the registry of the test."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--settings", str(settings_file)], env={"COLUMNS": "100"})

    return run


def answer(result: Result) -> Any:  # noqa: ANN401 - whatever JSON holds
    assert result.exit_code == ExitCode.DONE, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("F1", "F1"),
        ("f1", "F1"),
        ("frame 1", "F1"),
        ("Frames 1", "F1"),
        ("frame1", "F1"),
        ("step:2", "S2"),
        ("G3", "G3"),
        ("P1", "P1"),
        ("A10", "A10"),
        (PRODUCT, "P1"),
        (f"{PRODUCT}.fits", "P1"),
        ("M.MUSE.2026-06-18T10:41:11.000", "P1"),
        ("M.MUSE.2026-06-18T10:41:11.000.fits", "P1"),
        (name_of(1), "F2"),
        (f"{name_of(1)}.fz", "F2"),
        (name_of(1).removesuffix(".fits"), "F2"),
        ("MUSE_CAL_FLAT169_0010.fits", "F4"),
        (f"/incoming/{name_of(1)}", "F2"),
        (name_of(50), "A10"),
        (f"/incoming/{name_of(50)}", "A10"),
    ],
)
def test_what_people_type_means_one_row(night: Registry, typed: str, meant: str) -> None:
    with night.read() as session:
        assert label(find(session, typed)) == meant


def test_every_label_leads_back_to_its_row(night: Registry) -> None:
    with night.read() as session:
        for row in (*session.scalars(select(Step)), *session.scalars(select(Arrival))):
            assert find(session, label(row)) is row


def test_a_path_below_the_archive_means_what_is_kept_there(night: Registry, tmp_path: Path) -> None:
    with night.read() as session:
        assert label(find(session, str(tmp_path / "archive" / "raw" / name_of(2)))) == "F3"
        assert label(find(session, str(tmp_path / "archive" / "products" / f"{PRODUCT}.fits"))) == "P1"
        assert label(find(session, str(tmp_path / "archive" / "quarantine" / name_of(50)))) == "A10"


def test_a_bare_number_is_refused_since_it_could_be_anything(night: Registry) -> None:
    with night.read() as session, pytest.raises(UsageError, match="12 alone could be"):
        find(session, "12")


@pytest.mark.parametrize("typed", ["S999", "step 999", "holiday.fits", "%", "_", "", "MUSE.*"])
def test_what_is_not_there_is_not_found(night: Registry, typed: str) -> None:
    with night.read() as session, pytest.raises(NotFoundError):
        find(session, typed)


def test_identifiers_of_two_words_are_told_apart() -> None:
    assert split(["step", "7", "F12", "frames", "3", "P5"]) == ("step 7", "F12", "frames 3", "P5")


@pytest.mark.parametrize(("text", "channels"), [("1,12", (1, 12)), ("3", (3,)), ("1-4, 3-5", (1, 2, 3, 4, 5))])
def test_lists_of_channels(text: str, channels: tuple[int, ...]) -> None:
    assert parse_channels(text) == channels
    assert parse_channels(channels_text(channels)) == channels


@pytest.mark.parametrize("text", ["", "0", "25", "1-25", "a", "1,,2", "-3", "5-2"])
def test_channels_that_muse_does_not_have_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_channels(text)


def test_sizes_and_durations_read_well() -> None:
    assert [size_text(size) for size in (900, 71_600_000, 1_720_000_000)] == ["1 kB", "72 MB", "1.7 GB"]
    assert [duration_text(seconds) for seconds in (0.04, 59.97, 60, 3599.6)] == [
        "0.0 s",
        "1 m 00 s",
        "1 m 00 s",
        "1 h 00 m",
    ]


def test_the_shell_completes_commands() -> None:
    asked = {"_MUSECAL_COMPLETE": "complete_bash", "COMP_WORDS": "musecal re", "COMP_CWORD": "1"}
    musecal = Path(sys.executable).with_name("musecal")
    done = subprocess.run([musecal], capture_output=True, text=True, env=os.environ | asked)
    assert sorted(done.stdout.split()) == ["reach", "reject", "release", "requeue", "retrieve"]


def test_help_loads_nothing_heavy() -> None:
    heavy = "sqlalchemy", "celery", "astropy", "numpy", "pydantic", "redis"
    code = f"import sys, daemon.cli; sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("night")
def test_status_counts_what_there_is(musecal: Musecal) -> None:
    record = answer(musecal("status", "--json"))
    assert record["steps"] == {"waiting": 1, "done": 1}
    assert record["arrivals"] == {"ingested": 8, "duplicate": 1, "quarantined": 1}
    assert record["watcher"] is None
    assert record["broker"].startswith("does not answer")
    assert record["last_product"]["name"] == f"{PRODUCT}.fits"
    page = musecal("status").stdout
    assert "8 ingested" in page
    assert "never ran" in page


@pytest.mark.usefixtures("night")
def test_the_night_report_for_people_and_for_programs(musecal: Musecal) -> None:
    result = musecal("night", str(NIGHT), "--json")
    record = json.loads(result.stdout)
    assert (record["verdict"], result.exit_code) == ("FAIL", ExitCode.FAIL)  # the exposure has no flat
    assert record["balanced"] is True
    assert len(record["entries"]) == record["received"] == 10
    page = musecal("night", str(NIGHT)).stdout
    told = (*(name_of(number) for number in (0, 10, 50)), PRODUCT, "BIAS MASTERn RON", "The ledger balances", "FAIL")
    assert [text for text in told if text not in page] == []


def test_the_night_report_fails_if_the_ledger_does_not_balance(night: Registry, musecal: Musecal) -> None:
    with night.begin() as session:
        arrival = session.scalars(select(Arrival).where(Arrival.state == ArrivalState.QUARANTINED)).one()
        arrival.reason = ""
    result = musecal("night", str(NIGHT))
    assert result.exit_code == ExitCode.FAIL
    page = " ".join(result.stdout.split())
    assert f"FAIL Nothing explains {name_of(50)}." in page
    assert f"nothing explains {name_of(50)}" in page


@pytest.mark.usefixtures("night")
def test_completeness_of_the_last_nights_for_people_and_for_programs(musecal: Musecal) -> None:
    result = musecal("completeness", "--night", str(NIGHT), "--json")
    record = json.loads(result.stdout)
    assert [night["night"] for night in record["nights"]] == [f"2026-06-{day}" for day in range(11, 18)]
    assert [night["verdict"] for night in record["nights"]] == ["WARN"] * 6 + ["FAIL"]
    assert (record["verdict"], result.exit_code) == ("FAIL", ExitCode.FAIL)
    [bias] = [item for item in record["nights"][-1]["calibrations"] if item["tag"] == "BIAS"]
    assert (bias["standing"], bias["found"], bias["number"], bias["setting"]) == ("NOK", 3, 11, {"readout": "SCI1.0"})
    page = musecal("completeness", "--night", str(NIGHT)).stdout
    for told in ("06-11", "06-17", "MISSING", "WFM-NOAO-N, SCI1.0", "BIAS in SCI1.0 NOK: G1 has 3 of 11"):
        assert told in page
    empty = musecal("completeness", "--night", "2026-06-11", "--nights", "1")
    assert empty.exit_code == ExitCode.WARN
    assert musecal("completeness", "--nights", "0").exit_code == ExitCode.USAGE


@pytest.mark.usefixtures("night")
def test_without_its_incoming_folder_a_night_is_told_only_where_the_watcher_never_ran(
    musecal: Musecal, tmp_path: Path
) -> None:
    (tmp_path / "incoming").rmdir()
    assert musecal("night", str(NIGHT)).exit_code == ExitCode.FAIL  # its exposure has no flat, as before
    assert musecal("completeness", "--night", "2026-06-11", "--nights", "1").exit_code == ExitCode.WARN
    heartbeat = Heartbeat(
        at="2026-06-18T12:00:00+00:00", pid=1, mode="scan", last_scan="", last_take="", last_cycle="", waiting=0,
        stalled=0, taken=0, troubles={}, postponed={},
    )  # fmt: skip
    write_heartbeat(tmp_path / "archive", heartbeat)
    gone = musecal("completeness", "--night", "2026-06-11")
    assert gone.exit_code not in (ExitCode.DONE, ExitCode.WARN, ExitCode.FAIL)
    assert "is not there, so that nobody knows what lies in it" in gone.stderr


@pytest.mark.usefixtures("night")
def test_the_queue_lists_what_is_not_finished(musecal: Musecal) -> None:
    assert [step["id"] for step in answer(musecal("queue", "--json"))] == ["S2"]
    assert [step["id"] for step in answer(musecal("queue", "--state", "done", "--json"))] == ["S1"]
    assert answer(musecal("queue", "--night", "2026-06-16", "--json")) == []
    assert "No MASTER_BIAS is certified." in musecal("queue").stdout
    assert musecal("queue", "--state", "lazy").exit_code == ExitCode.USAGE


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize("identifier", ["F1", "G1", "S1", "P1", "A10", "S2"])
def test_show_tells_a_row_with_its_neighbours(musecal: Musecal, identifier: str) -> None:
    record = answer(musecal("show", identifier, "--json"))
    assert record["id"] == identifier
    assert musecal("show", identifier).exit_code == ExitCode.DONE


@pytest.mark.usefixtures("night")
def test_show_tells_a_step_with_parts_inputs_products_and_history(musecal: Musecal) -> None:
    record = answer(musecal("show", "step", "1", "--json"))
    assert [len(record[name]) for name in ("parts", "uses", "products", "history")] == [3, 3, 1, 1]
    page = musecal("show", "step", "1").stdout
    assert "step done" in page
    assert "All channels are reduced." in page


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize("identifier", ["F1", "F6", "G1", "S1", "S2", "P1", "A10"])
def test_why_answers_for_every_row(musecal: Musecal, identifier: str) -> None:
    assert answer(musecal("why", identifier, "--json"))
    assert musecal("why", identifier).stdout.strip()


def test_why_answers_for_a_file_that_is_not_taken_in_yet(musecal: Musecal, tmp_path: Path) -> None:
    plan = NightPlan(night=NIGHT, channels=(1,), sequences=(Sequence.BIAS,), detector=Detector(nx=64, ny=64))
    whole, half = list(write_night(plan, tmp_path / "incoming"))[:2]
    half.write_bytes(half.read_bytes()[:-2880])
    told = " ".join(musecal("why", str(whole)).stdout.split())
    assert "The registry does not know" in told
    assert "It is BIAS." in told
    assert "the watcher takes it in" in told
    assert "cannot be taken in as it is" in " ".join(musecal("why", str(half)).stdout.split())
    elsewhere = whole.rename(tmp_path / whole.name)
    assert f"`musecal ingest {elsewhere}` takes it in." in answer(musecal("why", str(elsewhere), "--json"))["next"]


def test_ingest_takes_files_in_and_why_knows_them(musecal: Musecal, tmp_path: Path) -> None:
    plan = NightPlan(night=NIGHT, channels=(1,), sequences=(Sequence.BIAS,), detector=Detector(nx=64, ny=64))
    frames = list(write_night(plan, tmp_path / "disk"))
    (tmp_path / "disk" / "wreck.fits").write_bytes(b"not FITS" * 1000)
    result = musecal("ingest", str(tmp_path / "disk"), "--json")
    assert result.exit_code == ExitCode.NOT_IN_ORDER  # because of the wreck
    states = [taken["state"] for taken in json.loads(result.stdout)]
    assert (states.count("ingested"), states.count("quarantined")) == (len(frames), 1)
    assert "is BIAS" in musecal("why", frames[0].name).stdout
    assert musecal("verify").exit_code == ExitCode.DONE
    [wreck] = answer(musecal("quarantine", "--json"))
    [released] = answer(musecal("quarantine", "release", wreck["id"], "--why", "try again", "--json"))["rows"]
    assert released["state"] == "released"
    assert (tmp_path / "incoming" / "wreck.fits").exists()


def test_verify_finds_what_was_altered(musecal: Musecal, tmp_path: Path) -> None:
    plan = NightPlan(night=NIGHT, channels=(1,), sequences=(Sequence.BIAS,), detector=Detector(nx=64, ny=64))
    frame = next(iter(write_night(plan, tmp_path / "disk")))
    assert musecal("ingest", str(frame)).exit_code == ExitCode.DONE
    path = Path(answer(musecal("show", frame.name, "--json"))["path"])
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    result = musecal("verify", "--json")
    assert result.exit_code == ExitCode.NOT_IN_ORDER
    assert [(finding["fault"], finding["path"]) for finding in json.loads(result.stdout)] == [("altered", str(path))]


def test_static_calibrations_are_added_listed_and_retired(night: Registry, musecal: Musecal, tmp_path: Path) -> None:
    plan = NightPlan(night=NIGHT, channels=(1,), detector=Detector(nx=64, ny=64))
    lines, extinction, response = (
        write_static(catg, plan, tmp_path / "disk")[0] for catg in ("LINE_CATALOG", "EXTINCT_TABLE", "STD_RESPONSE")
    )
    assert "would be MU_GLNC_140101A_line_cat.fits" in musecal("why", str(lines)).stdout.replace("\n", " ")
    assert [taken["state"] for taken in answer(musecal("statics", "add", str(lines), str(response), "--json"))] == [
        "ingested", "ingested",
    ]  # fmt: skip
    assert lines.exists()  # it is a copy that is in the archive
    assert "valid, v2" in musecal("statics").stdout
    listed = {row["catg"]: row for row in answer(musecal("statics", "list", "--json"))}
    assert (listed["STD_RESPONSE"]["response"], listed["LINE_CATALOG"]["response"]) == (2, None)
    assert (listed["LINE_CATALOG"]["valid_from"], listed["LINE_CATALOG"]["valid_until"]) == (
        "2014-01-01T00:00:00Z",
        None,
    )
    assert answer(musecal("show", response.name, "--json"))["response"] == 2
    assert "It is a response of version 2" in musecal("why", response.name).stdout
    extinction.write_bytes(extinction.read_bytes().replace(b"'extinction'", b"'absorption'"))
    unfit = musecal("statics", "add", str(extinction))
    assert (unfit.exit_code, "no column extinction" in unfit.stdout.replace("\n", " ")) == (ExitCode.NOT_IN_ORDER, True)
    [row] = answer(musecal("statics", "retire", lines.name, "--why", "a line is wrong", "--json"))["rows"]
    assert row["certification"] == "rejected"
    assert musecal("statics", "retire", lines.name, "--why", "again").exit_code == ExitCode.REFUSED
    [record] = answer(musecal("statics", "--catg", "line_catalog", "--json"))
    assert record["standing"] == "retired"
    with night.read() as session:
        events = session.scalars(select(Event).where(Event.what == "static calibration retired")).all()
    assert [event.why for event in events] == ["a line is wrong"]


@pytest.mark.usefixtures("night")
def test_only_static_calibrations_are_added_and_retired(musecal: Musecal, tmp_path: Path) -> None:
    plan = NightPlan(night=NIGHT, channels=(1,), sequences=(Sequence.BIAS,), detector=Detector(nx=64, ny=64))
    frame = next(iter(write_night(plan, tmp_path / "disk")))
    assert musecal("statics", "add", str(frame)).exit_code == ExitCode.REFUSED
    assert musecal("statics", "add", str(tmp_path / "nothing.fits")).exit_code == ExitCode.USAGE
    assert musecal("statics", "retire", "P1", "--why", "old").exit_code == ExitCode.USAGE  # it is made from frames


def test_a_step_is_held_released_cancelled_and_requeued(night: Registry, musecal: Musecal) -> None:
    orders = ("hold", "held"), ("release", "waiting"), ("cancel", "cancelled"), ("requeue", "waiting")
    for order, state in orders:
        [row] = answer(musecal(order, "S2", "--why", f"to {order}", "--json"))["rows"]
        assert (row["id"], row["state"]) == ("S2", state)
    with night.read() as session:
        events = session.scalars(select(Event).where(Event.subject == "step", Event.subject_id == 2)).all()
    assert [event.why for event in events] == [f"to {order}" for order, _ in orders]


def test_what_is_done_is_remade_as_a_new_step(night: Registry, musecal: Musecal) -> None:
    [row] = answer(musecal("requeue", PRODUCT, "--why", "better overscan", "--json"))["rows"]
    assert (row["name"], row["sequence"], row["state"]) == ("bias", 2, "waiting")
    with night.read() as session:
        assert session.get_one(Step, 1).state is StepState.DONE


def test_a_product_is_certified_and_rejected_with_a_comment_that_stays(night: Registry, musecal: Musecal) -> None:
    would = musecal("certify", PRODUCT, "--comment", "seen", "--dry-run")
    assert would.stdout == f"P1 {PRODUCT}.fits would be certified.\n"
    for order, state in (("certify", "certified"), ("reject", "rejected")):
        [row] = answer(musecal(order, "P1", "--comment", f"to {order}", "--json"))["rows"]
        assert (row["id"], row["certification"]) == ("P1", state)
    again = musecal("reject", "P1", "--comment", "once more")
    assert (again.exit_code, "what is rejected cannot become rejected" in again.stderr) == (ExitCode.REFUSED, True)
    with night.read() as session:
        events = session.scalars(select(Event).where(Event.subject == "product", Event.subject_id == 1)).all()
    assert [event.why for event in events if "to " in event.why] == ["to certify", "to reject"]


def test_products_are_scored_anew_and_say_what_is_not_green(night: Registry, musecal: Musecal) -> None:
    with night.begin() as session:
        noisy = Measurement.channel == 12, Measurement.name == "BIAS MASTER2 RON"
        session.execute(update(Measurement).where(*noisy).values(value=9.0))
    would = musecal("score", "P1", "--dry-run").stdout
    assert f"P1 {PRODUCT}.fits would be red, not scored before; thresholds 20" in would
    with night.read() as session:
        assert session.get_one(Product, 1).score == Score.NONE
    [row] = answer(musecal("score", "--night", str(NIGHT), "--json"))["rows"]
    assert (row["id"], row["was"], row["score"], row["certification"]) == ("P1", "", "red", "provisional")
    assert row["channels"] == [{"channel": 1, "score": "green"}, {"channel": 12, "score": "red"}]
    [bad] = [mark for mark in row["marks"] if mark["score"] != "green"]
    assert (bad["channel"], bad["name"], bad["score"]) == (12, "BIAS MASTER2 RON", "red")
    assert "BIAS MASTER2 RON of channel 12 is 9, above the red limit of" in bad["remark"]
    assert len(row["marks"]) > 1
    again = musecal("score", "P1").stdout
    assert ("BIAS MASTER1 RON" in again, "BIAS MASTER1 RON" in musecal("score", "P1", "--all").stdout) == (False, True)
    told = " ".join(musecal("why", "P1").stdout.split())
    assert "BIAS MASTER2 RON of channel 12 is 9, above the red limit" in told
    assert "scored red, provisional." in told
    assert musecal("certify", "P1", "--comment", "the lamp was on").exit_code == ExitCode.DONE
    told = " ".join(musecal("why", "P1").stdout.split())
    assert "certified by a person: the lamp was on" in told
    shown = answer(musecal("show", "P1", "--json"))
    assert (shown["judge"], shown["score"]) == ("person", "red")
    assert [item["score"] for item in shown["channel_scores"]] == ["green", "red"]
    report = json.loads(musecal("night", str(NIGHT), "--json").stdout)
    assert (report["score"], [step["score"] for step in report["steps"]]) == ("red", ["red", ""])


def test_scoring_needs_to_know_of_what(musecal: Musecal) -> None:
    refused = musecal("score")
    assert (refused.exit_code, "Say which products" in refused.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("S1", "--comment", "bad"), "S1 is S1, no product"), (("P1", "--comment", " "), "A verdict needs its reason")],
)
def test_a_verdict_names_a_product_and_its_reason(
    night: Registry, musecal: Musecal, arguments: tuple[str, ...], sentence: str
) -> None:
    refused = musecal("reject", *arguments)
    assert (refused.exit_code, sentence in refused.stderr) == (ExitCode.USAGE, True)
    with night.read() as session:
        assert session.get_one(Product, 1).certification is Certification.PROVISIONAL


def test_a_dry_run_changes_nothing(night: Registry, musecal: Musecal) -> None:
    assert "S1 bias would be requeued." in musecal("requeue", "--night", str(NIGHT), "--dry-run").stdout
    with night.read() as session:
        assert session.scalars(select(Step.state).order_by(Step.id)).all() == [StepState.DONE, StepState.WAITING]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("S1", "step", "2"), ["S1", "S2"]),
        (("--state", "done,waiting"), ["S1", "S2"]),
        (("--step", "bias"), ["S1"]),
        (("--channel", "12"), ["S1"]),
        (("--channel", "3"), []),
        (("--night", "2026-06-16"), []),
        (("--night", str(NIGHT), "--state", "waiting"), ["S2"]),
        (("G1", "F4"), ["S1", "S2"]),
        (("S1", "S2", "--state", "waiting"), ["S2"]),
    ],
)
@pytest.mark.usefixtures("night")
def test_steps_are_chosen_by_a_list_or_a_filter(musecal: Musecal, given: tuple[str, ...], meant: list[str]) -> None:
    assert [row["id"] for row in answer(musecal("requeue", *given, "--dry-run", "--json"))["rows"]] == meant


def test_an_order_is_carried_out_for_all_or_for_none(night: Registry, musecal: Musecal) -> None:
    result = musecal("hold", "S2", "S1")
    assert result.exit_code == ExitCode.REFUSED
    with night.read() as session:
        assert session.get_one(Step, 2).state is StepState.WAITING


@pytest.mark.usefixtures("night")
def test_products_are_listed_by_night_and_category(musecal: Musecal) -> None:
    assert [product["id"] for product in answer(musecal("products", "--json"))] == ["P1"]
    assert answer(musecal("products", "--catg", "master_flat", "--json")) == []
    assert answer(musecal("products", "--night", "2026-06-16", "--json")) == []
    assert f"{PRODUCT}.fits" in musecal("products").stdout


def test_the_cascade_is_printed_whole(musecal: Musecal) -> None:
    record = answer(musecal("cascade", "--json"))
    assert len(record["steps"]) == 9
    page = musecal("cascade").stdout
    for step in record["steps"]:
        assert step["name"] in page


@pytest.mark.usefixtures("night")
def test_quarantine_lists_files_with_their_reason(musecal: Musecal) -> None:
    assert [file["id"] for file in answer(musecal("quarantine", "--json"))] == ["A10"]
    assert "It ends in the middle of a header." in musecal("quarantine").stdout


@pytest.mark.usefixtures("night")
def test_nothing_is_wider_than_the_terminal(musecal: Musecal) -> None:
    commands = (["status"], ["night", str(NIGHT)], ["queue"], ["show", "S1"], ["show", "P1"], ["products"], ["cascade"])
    for command in commands:
        assert max(len(line) for line in musecal(*command).stdout.splitlines()) <= 100, command


@pytest.mark.usefixtures("night")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("show", "S999"), ExitCode.NOT_FOUND, "The registry has no step 999."),
        (("show", "12"), ExitCode.USAGE, "12 alone could be"),
        (("requeue",), ExitCode.USAGE, "Say which steps"),
        (("requeue", "F7"), ExitCode.USAGE, "F7 (F7) has no step."),
        (("requeue", "--step", "lunch"), ExitCode.USAGE, "lunch is no step of the cascade"),
        (("ingest", "/nowhere/at/all.fits"), ExitCode.USAGE, "/nowhere/at/all.fits does not exist."),
        (("quarantine", "release", "S1"), ExitCode.USAGE, "S1 is no file in quarantine"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(
    musecal: Musecal, arguments: tuple[str, ...], code: ExitCode, sentence: str
) -> None:
    result = musecal(*arguments)
    assert result.exit_code == code
    assert result.stderr.startswith("musecal: ")
    assert sentence in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert result.stdout == ""


def test_a_worker_without_a_broker_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("")
    settings = ("--settings", str(tmp_path / "settings.toml"))
    assert CliRunner().invoke(app, ["db", "upgrade", *settings]).exit_code == ExitCode.DONE
    result = CliRunner().invoke(app, ["worker", *settings])
    assert result.exit_code == ExitCode.UNREACHABLE
    assert "No broker" in result.stderr


def test_settings_that_are_wrong_are_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("[watch]\nsettel_seconds = 3\n")
    result = CliRunner().invoke(app, ["status", "--settings", str(tmp_path / "wrong.toml")])
    assert result.exit_code == ExitCode.USAGE
    assert "watch.settel_seconds" in result.stderr


def test_a_registry_that_is_not_there_is_refused_and_made_by_upgrade(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("")
    settings = ("--settings", str(tmp_path / "settings.toml"))
    before = CliRunner().invoke(app, ["status", *settings])
    assert before.exit_code == ExitCode.REFUSED
    assert "musecal db upgrade" in before.stderr
    assert CliRunner().invoke(app, ["db", "upgrade", *settings]).exit_code == ExitCode.DONE
    assert CliRunner().invoke(app, ["queue", *settings]).stdout == "No step is unfinished.\n"
