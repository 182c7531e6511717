"""What is no longer as it would be made now is marked, with all that was made of it, and remade as the policy says."""

from datetime import date, timedelta
from typing import Any

import pytest
from small_night import MORNING, MakeWorld, World

from archive.models import Step
from archive.setup import Setup
from archive.states import Certification, Score, StepState
from tasks.cascade import Tag
from tasks.settings import PlanMode
from tasks.survey import survey

DAY = timedelta(days=1)
FLATS = MORNING + timedelta(hours=1, minutes=35)
ARCS = MORNING + timedelta(hours=2, minutes=10)
STAR = MORNING - timedelta(hours=5)
SETUP = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


def arcs(world: World, start: Any = ARCS) -> None:  # noqa: ANN401 - a datetime
    """Let three frames of each lamp come."""
    for number, lamp in enumerate((3, 3, 3, 4, 4, 4, 5, 5, 5), start=1):
        lit = {f"ESO INS LAMP{lamp} ST": True, f"ESO INS SHUT{lamp} ST": True}
        world.arrive(Tag.ARC, start, number, 9, cards=lit)


def cascade(world: World) -> None:
    """Let a bias of the day before, a flat and arcs be done."""
    world.static("LINE_CATALOG", date(2014, 1, 1))
    world.template(Tag.BIAS, MORNING - DAY)
    world.template(Tag.FLAT, FLATS)
    arcs(world)
    world.settle()


def test_what_was_made_of_a_stale_step_is_stale_too_and_no_more_when_its_reason_goes(make_world: MakeWorld) -> None:
    world = make_world(plan={"remake": "never"})
    cascade(world)
    assert world.marks() == {}
    world.template(Tag.BIAS, FLATS - timedelta(minutes=30))
    world.template(Tag.BIAS, MORNING + 2 * DAY)
    world.settle()
    marks = world.marks()
    assert "MASTER_BIAS of step 4 is to be used instead of MASTER_BIAS of step 1" in marks["flat 2"]
    assert "TRACE_TABLE: TRACE_TABLE of step 2 is stale itself." in marks["wavecal 3"]
    world.judge("MASTER_BIAS of step 4", Certification.REJECTED)
    world.settle()
    assert world.marks() == {}


def test_what_is_stale_through_another_step_alone_goes_on_when_that_is_remade(make_world: MakeWorld) -> None:
    """A dark lies beside the bias that comes; what was made of the dark knows only of the dark."""
    world = make_world(plan={"remake": "never", "use_darks": True})
    world.template(Tag.BIAS, MORNING - timedelta(hours=23))
    world.template(Tag.BIAS, MORNING + timedelta(hours=1))
    world.template(Tag.DARK, MORNING - 2 * DAY)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    [dark], [flat] = world.steps("dark"), world.steps("flat")
    assert world.used(flat, "MASTER_DARK") == f"MASTER_DARK of step {dark.id}"
    world.template(Tag.BIAS, MORNING - 2 * DAY + timedelta(hours=1))
    world.settle()
    assert world.marks()[f"flat {flat.id}"] == f"MASTER_DARK: MASTER_DARK of step {dark.id} is stale itself."
    world.requeue(dark.id)
    world.settle()
    remade = world.steps("dark")[-1]
    assert world.marks() == {
        f"flat {flat.id}": f"MASTER_DARK: MASTER_DARK of step {remade.id} is to be used instead of MASTER_DARK of step "
        f"{dark.id}."
    }


def test_a_remake_that_cannot_go_on_leaves_what_was_made_of_the_old_one_stale(make_world: MakeWorld) -> None:
    world = make_world(plan={"remake": "always"})
    cascade(world)
    world.judge("MASTER_BIAS of step 1", Certification.REJECTED)
    world.settle()
    assert world.steps("flat")[-1].state is StepState.WAITING
    marks = world.marks()
    assert "MASTER_BIAS of step 1 may no longer be used" in marks["flat 2"]
    assert "MASTER_BIAS of step 1 may no longer be used" in marks["wavecal 3"]


@pytest.mark.parametrize("later", [0, 1])
def test_a_changed_parameter_remakes_the_present_night_and_marks_older_ones(world: World, later: int) -> None:
    cascade(world)
    world.now += later * DAY
    world.settings.recipes["muse_flat"]["hisigmabadpix"] = 9.0
    world.settle()
    flats = world.steps("flat")
    if later:
        assert world.marks() == {
            "flat 2": "The parameter hisigmabadpix of muse_flat is 9.0 now, it was made with 5.0.",
            "wavecal 3": "MASTER_FLAT: MASTER_FLAT of step 2 is stale itself. "
            "TRACE_TABLE: TRACE_TABLE of step 2 is stale itself.",
        }
        assert len(flats) == 1
        world.settings.recipes["muse_flat"]["hisigmabadpix"] = 5.0
        world.settle()
    else:
        assert [step.parameters["hisigmabadpix"] for step in flats] == [5.0, 9.0]
        assert len(world.steps("wavecal")) == 2
    assert world.marks() == {}


def test_another_version_of_a_recipe_marks_what_the_old_one_made(world: World) -> None:
    cascade(world)
    world.now += DAY
    with world.registry.begin() as session:
        session.get_one(Step, 1).recipe_version = "0"
        session.get_one(Step, 1).weighed = ""
    world.settle()
    assert world.marks()["bias 1"].startswith("muse_bias is of version ")


def test_steps_that_a_change_concerns_are_weighed_so_many_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in range(6):
        world.template(Tag.BIAS, MORNING - (10 + night) * DAY)
    world.settle()
    monkeypatch.setattr("tasks.survey._MOST_WEIGHED", 2)
    world.settings.recipes["muse_bias"]["lsigma"] = 5.0
    with world.registry.read() as session:
        assert len(survey(session, world.settings).groups) == 2
    world.settle()
    assert len(world.marks()) == 6


def test_an_illumination_flat_that_comes_late_is_taken_along(make_world: MakeWorld) -> None:
    world = make_world(plan={"lsf_from_arcs": False})
    for catg in ("GEOMETRY_TABLE", "EXTINCT_TABLE", "STD_FLUX_TABLE"):
        world.static(catg, date(2014, 1, 1))
    world.products(("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE"), [STAR], SETUP)
    world.arrive(Tag.STD, STAR, 1, 1, cards={"EXPTIME": 600.0})
    world.settle()
    near = world.arrive(Tag.ILLUM, STAR + timedelta(minutes=30), 1, 1, cards={"EXPTIME": 60.0})
    world.settle()
    old, new = world.steps("standard")
    [use] = [use for use in new.uses if use.tag == "ILLUM"]
    assert not any(use.tag == "ILLUM" for use in old.uses)
    assert (use.frame_id, use.level) == (near, None)
    # 30 min from begin to begin; the middle of the star lies 5 min after its begin, that of the lamp half a minute.
    assert use.days == pytest.approx(25.5 / 1440)


class TestRed:
    def test_a_red_make_leaves_the_place_to_the_one_before_it_until_a_person_certifies_it(self, world: World) -> None:
        cascade(world)
        world.arrive(Tag.BIAS, MORNING - DAY, 2, version=2)
        world.advance()
        world.work()  # the bias again
        again = world.steps("bias")[-1]
        world.score(f"MASTER_BIAS of step {again.id}", Score.RED)
        world.settle()
        assert [world.used(flat, "MASTER_BIAS") for flat in world.steps("flat")] == ["MASTER_BIAS of step 1"]
        world.judge(f"MASTER_BIAS of step {again.id}", Certification.CERTIFIED)
        world.settle()
        assert "is to be used instead of MASTER_BIAS of step 1" in world.marks()["flat 2"]

    def test_a_make_that_was_spoiled_by_what_it_was_made_of_does_not_serve_again(self, make_world: MakeWorld) -> None:
        world = make_world(plan={"remake": "always"})
        cascade(world)
        world.template(Tag.BIAS, MORNING)
        world.settle()
        world.judge("MASTER_BIAS of step 1", Certification.REJECTED)
        flat = world.steps("flat")[-1]
        for catg in ("MASTER_FLAT", "TRACE_TABLE"):
            world.score(f"{catg} of step {flat.id}", Score.RED)
        world.requeue(world.steps("wavecal")[-1].id)
        world.settle()
        assert world.steps("wavecal")[-1].state is StepState.WAITING

    def test_a_step_whose_candidates_are_all_red_says_so(self, world: World) -> None:
        world.template(Tag.BIAS, MORNING)
        world.settle()
        world.score("MASTER_BIAS of step 1", Score.RED)
        world.template(Tag.FLAT, FLATS)
        world.settle()
        [flat] = world.steps("flat")
        [missing] = flat.missing
        assert missing == (
            "MASTER_BIAS with readout SCI1.0, within 3 d of 2026-06-17 12:17 UT: none may be used. MASTER_BIAS of step "
            "1 is scored red, and nobody has certified it. `musecal certify P1` lets it serve."
        )
        world.judge("MASTER_BIAS of step 1", Certification.CERTIFIED)
        world.settle()
        assert world.steps("flat")[-1].state is StepState.DONE

    def test_what_was_rejected_is_never_made_again_of_the_same(self, world: World) -> None:
        world.template(Tag.BIAS, MORNING)
        world.settle()
        world.judge("MASTER_BIAS of step 1", Certification.REJECTED)
        world.requeue(1)
        world.settle()
        assert [len(step.products) for step in world.steps("bias")] == [1, 0]


class TestParanal:
    def test_it_takes_what_is_certified_now_and_waits_for_nothing_under_way(self, make_world: MakeWorld) -> None:
        world = make_world(plan={"mode": "paranal"})
        for days in (2, 1):
            world.template(Tag.BIAS, MORNING - days * DAY)
        world.settle()
        world.judge("MASTER_BIAS of step 1", Certification.CERTIFIED)
        world.arrive(Tag.BIAS, MORNING, 1)
        world.template(Tag.FLAT, FLATS)
        world.settle()
        [flat] = world.steps("flat")
        assert world.used(flat, "MASTER_BIAS") == "MASTER_BIAS of step 1"
        [use] = [use for use in flat.uses if use.tag == "MASTER_BIAS"]
        assert use.certification == "certified"

    def test_a_provisional_one_is_named_as_what_a_certification_would_let_serve(self, make_world: MakeWorld) -> None:
        world = make_world(plan={"mode": "paranal"})
        world.template(Tag.BIAS, MORNING)
        world.template(Tag.FLAT, FLATS)
        world.settle()
        [flat] = world.steps("flat")
        assert flat.missing[0].endswith(
            "none may be used. MASTER_BIAS of step 1 is provisional, and only certified ones are taken. "
            "`musecal certify P1` lets it serve."
        )
        world.judge("MASTER_BIAS of step 1", Certification.CERTIFIED)
        world.settle()
        assert world.steps("flat")[-1].state is StepState.DONE

    def test_nothing_is_made_again_by_itself(self, make_world: MakeWorld) -> None:
        world = make_world(plan={"mode": "paranal"})
        world.template(Tag.BIAS, MORNING - DAY)
        world.settle()
        world.judge("MASTER_BIAS of step 1", Certification.CERTIFIED)
        world.template(Tag.FLAT, FLATS)
        world.template(Tag.BIAS, MORNING)
        world.settle()
        assert world.marks() == {}  # a provisional one is none
        closer, [flat] = world.steps("bias")[-1], world.steps("flat")
        world.judge(f"MASTER_BIAS of step {closer.id}", Certification.CERTIFIED)
        world.settle()
        assert [step.id for step in world.steps("flat")] == [flat.id]
        assert f"MASTER_BIAS of step {closer.id} is to be used instead" in world.marks()[f"flat {flat.id}"]

    def test_the_earlier_certified_make_serves_until_the_later_one_is_certified(self, make_world: MakeWorld) -> None:
        world = make_world(plan={"mode": "paranal", "remake": "always"})
        world.template(Tag.BIAS, MORNING)
        world.settle()
        world.judge("MASTER_BIAS of step 1", Certification.CERTIFIED)
        world.arrive(Tag.BIAS, MORNING, 2, version=2)
        world.template(Tag.FLAT, FLATS)
        world.settle()
        assert world.used(world.steps("flat")[-1], "MASTER_BIAS") == "MASTER_BIAS of step 1"
        world.judge("MASTER_BIAS of step 2", Certification.CERTIFIED)
        world.settle()
        assert world.used(world.steps("flat")[-1], "MASTER_BIAS") == "MASTER_BIAS of step 2"

    def test_what_serves_on_although_nothing_is_certified_is_stale_with_its_step(self, make_world: MakeWorld) -> None:
        """Both were made in the other mode; the bias would be made of other frames now."""
        world = make_world()
        world.template(Tag.BIAS, MORNING)
        world.template(Tag.FLAT, FLATS)
        world.settle()
        paranal = world.settings.plan.model_copy(update={"mode": PlanMode.PARANAL})
        world.settings = world.settings.model_copy(update={"plan": paranal})
        world.settle()
        assert world.marks() == {}
        world.arrive(Tag.BIAS, MORNING, 2, version=2)
        world.settle()
        assert world.marks() == {
            "bias 1": "Its frames changed after it was made: 1 came, 1 went.",
            "flat 2": "MASTER_BIAS: MASTER_BIAS of step 1 is stale itself.",
        }
