"""The demonstration: a whole night through real processes, and an honest end."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from archive.states import GroupState, StepState
from daemon.cli.errors import RefusedError
from daemon.cli.progress import Progress
from daemon.demo import SETTINGS, SETTINGS_FILE, Demonstration, demonstrate
from daemon.report import Entry, Fate, NightReport, ProductLine, StepTime
from daemon.verdict import Examination
from recipes.simulator.night import NightPlan
from recipes.simulator.schedule import Sequence

NIGHT = date(2026, 6, 17)
PLAN = NightPlan(night=NIGHT, channels=(1,), sequences=(Sequence.BIAS,))
ENTRY = Entry(arrival="A1", file="a.fits", received=None, tag="BIAS", fate=Fate.PROCESSED, reason="S1 bias done.")
STEP = StepTime(
    step="S1", group="G1", name="bias", state=StepState.DONE, version="1", has_recipe=True, frames=3, channels=1,
    cpu=1.0, reaction=0.1, wall=1.0, arrival_to_product=1.5, remark="",
)  # fmt: skip
PRODUCT = ProductLine(
    product="P1", name="MU_MBIA_260617A_slow.fits", catg="MASTER_BIAS", step="S1", certification="provisional",
    score="", channels=(1,), size=1, inputs=(), further_values=0,
)  # fmt: skip
REPORT = NightReport(night=NIGHT, entries=(ENTRY,), steps=(STEP,), products=(PRODUCT,), orphans=())
GIVEN = Demonstration(
    report=REPORT, examination=Examination(nights=(), take=()), lost=(), findings=(), troubles=(), seconds=60.0
)  # fmt: skip


def test_a_demonstration_is_in_order_if_everything_is() -> None:
    assert GIVEN.in_order


@pytest.mark.parametrize(
    "fault",
    [
        {"lost": ("MUSE.lost.fits",)},
        {"troubles": ("The daemon ended with code 1.",)},
        {"report": replace(REPORT, products=())},
        {"report": replace(REPORT, orphans=("MUSE.orphan",))},
        {"report": replace(REPORT, entries=(replace(ENTRY, fate=Fate.UNEXPLAINED),))},
        {"report": replace(REPORT, entries=(replace(ENTRY, reason=""),))},
        {"report": replace(REPORT, steps=(replace(STEP, state=StepState.FAILED),))},
        {"report": replace(REPORT, steps=(replace(STEP, state=StepState.WAITING),))},
    ],
)
def test_one_fault_is_enough_for_it_not_to_be(fault: dict[str, Any]) -> None:
    assert not replace(GIVEN, **fault).in_order


def test_a_step_without_a_recipe_does_not_count_against_it() -> None:
    waiting = replace(STEP, name="lsf", state=StepState.WAITING, has_recipe=False)
    assert replace(GIVEN, report=replace(REPORT, steps=(STEP, waiting))).in_order


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(RefusedError, match="holds something else"):
        demonstrate(tmp_path, PLAN, Console())
    assert (tmp_path / "thesis.tex").exists()


def test_settings_of_somebody_else_are_no_mark_of_a_demonstration(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).write_text(f"{SETTINGS}# mine\n")
    with pytest.raises(RefusedError):
        demonstrate(tmp_path, PLAN, Console())


def test_a_disk_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    with pytest.raises(RefusedError, match=r"need 43\.8 GB of disk"):
        demonstrate(tmp_path / "demo", replace(PLAN, channels=tuple(range(1, 25))), Console())
    assert not (tmp_path / "demo").exists()


def a_group(state: GroupState) -> dict[str, object]:
    return {"id": "G1", "tag": "BIAS", "received": 3, "expected": 3, "state": state}


def a_step(state: StepState) -> dict[str, object]:
    return {"id": "S1", "name": "bias", "group": "G1", "state": state, "unreleased": False}


@pytest.mark.parametrize(
    ("group", "steps", "settled"),
    [
        (GroupState.OPEN, [], False),
        (GroupState.COMPLETE, [], False),  # its step is still to be made
        (GroupState.COMPLETE, [StepState.QUEUED], False),
        (GroupState.COMPLETE, [StepState.RUNNING], False),
        (GroupState.COMPLETE, [StepState.DONE], True),
        (GroupState.CLOSED, [StepState.FAILED], True),
        (GroupState.COMPLETE, [StepState.DONE, StepState.QUEUED], False),  # a remake
    ],
)
def test_a_night_is_settled_when_nothing_is_left_to_make(
    group: GroupState, steps: list[StepState], *, settled: bool
) -> None:
    progress = Progress(taken=3, groups=(a_group(group),), steps=tuple(map(a_step, steps)), running=(), queued=0)
    assert progress.settled is settled


def test_a_pair_that_nobody_has_released_is_nothing_to_wait_for() -> None:
    waiting = a_step(StepState.WAITING) | {"unreleased": True}
    assert Progress(taken=3, groups=(a_group(GroupState.COMPLETE),), steps=(waiting,), running=(), queued=0).settled


@pytest.mark.full
def test_a_night_of_biases_goes_in_and_a_master_bias_comes_out(tmp_path: Path) -> None:
    given = demonstrate(tmp_path / "demo", PLAN, Console())
    assert given.in_order, (given.troubles, given.lost, given.findings)
    assert given.report.fates == {Fate.PROCESSED: 11, Fate.DUPLICATE: 1, Fate.QUARANTINED: 1}
    [bias] = given.report.products
    assert (bias.catg, bias.score, bias.certification) == ("MASTER_BIAS", "green", "certified"), bias.score_reason
    assert given.report.score == "green"
    assert given.report.steps[0].reaction is not None
    assert given.report.steps[0].reaction < 2.0
    assert list((tmp_path / "demo" / "incoming").iterdir()) == []
    shutil.rmtree(tmp_path / "demo")
