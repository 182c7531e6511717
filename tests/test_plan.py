"""The planner: whatever comes in whatever order, a night ends the same, with each step made of the closest inputs."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_night import MORNING, MakeWorld, World, without_recipe
from sqlalchemy import select

from archive.models import Product
from archive.registry import Registry
from archive.setup import Setup
from archive.states import Certification, GroupState, PartState, StepState
from tasks.cascade import STEPS_BY_NAME, Tag
from tasks.decisions import Input, Method, Order
from tasks.groups import Member
from tasks.orders import OrderRefused, retire
from tasks.plan import companion_for
from tasks.settings import RemakePolicy
from tasks.snapshot import CompanionView, GroupView
from tasks.survey import survey
from tasks.verdicts import Scoring

DAY = timedelta(days=1)
FLATS = MORNING + timedelta(hours=1, minutes=35)
DARKS = MORNING + timedelta(hours=4)


@pytest.fixture
def world(registry: Registry) -> World:
    """A world on either database."""
    return World(registry)


# Two nights: each has biases and flats, the second has darks and a flat that came again with other content.
FRAMES: list[tuple[Any, ...]] = [
    (tag, start + night, number)
    for tag, start in ((Tag.BIAS, MORNING), (Tag.FLAT, FLATS))
    for night in (0 * DAY, DAY)
    for number in (1, 2, 3)
]
FRAMES += [(Tag.DARK, DARKS + DAY, number) for number in (1, 2, 3)]


@pytest.mark.parametrize("remake", [RemakePolicy.NIGHT, RemakePolicy.ALWAYS])
@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],  # an example takes half a second, too long to look for a shorter one
)  # fmt: skip
@given(order=st.permutations(FRAMES), turns=st.lists(st.sampled_from("-aw"), min_size=15, max_size=15))
def test_a_night_ends_the_same_in_every_order(
    make_world: MakeWorld, remake: RemakePolicy, order: list[tuple[Any, ...]], turns: list[str]
) -> None:
    expected = make_world(plan={"remake": remake})
    for frame in FRAMES:
        expected.arrive(*frame)
    expected.settle()
    shuffled = make_world(plan={"remake": remake})
    for frame, turn in zip(order, turns, strict=True):
        shuffled.arrive(*frame)
        if turn != "-":
            shuffled.advance()
        if turn == "w":
            shuffled.work()
    shuffled.settle()
    assert shuffled.outcome() == expected.outcome()
    assert all(step.state is StepState.DONE for name in ("bias", "flat", "dark") for step in shuffled.steps(name))
    assert not any(step.stale for step in shuffled.steps("flat"))


def test_a_step_is_queued_with_a_part_for_each_channel_and_one_for_the_finish(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.advance()
    [bias] = world.steps("bias")
    assert bias.state is StepState.QUEUED
    assert [part.channel for part in bias.parts] == [0, 1, 12]
    assert all(part.sent is None and part.state is PartState.QUEUED for part in bias.parts)
    assert [use.frame.tpl_expno for use in bias.uses if use.frame] == [1, 2, 3]
    assert bias.parameters == world.settings.recipes["muse_bias"]


def test_a_group_in_progress_that_will_be_closer_is_waited_for(world: World) -> None:
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    world.arrive(Tag.BIAS, MORNING, 1)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    [flat] = world.steps("flat")
    assert flat.state is StepState.WAITING
    assert "group 2 (BIAS of" in flat.missing[0]
    world.arrive(Tag.BIAS, MORNING, 2)
    world.arrive(Tag.BIAS, MORNING, 3)
    world.settle()
    [flat] = world.steps("flat")
    assert world.used(flat, "MASTER_BIAS") == "MASTER_BIAS of step 3"
    [use] = [use for use in flat.uses if use.tag == "MASTER_BIAS"]
    assert use.days == pytest.approx(-95 / 1440, abs=1e-3)
    assert (use.level, use.certification) == (0, "provisional")


def test_what_will_never_come_is_not_waited_for(world: World) -> None:
    """A failed, or too small, bias template leaves the flat to the bias of the night before."""
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    world.arrive(Tag.BIAS, MORNING, 1)
    world.template(Tag.BIAS, MORNING + timedelta(hours=1))
    world.advance()
    world.work(fail=True)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    assert world.steps("flat")[0].state is StepState.WAITING
    world.now += timedelta(hours=2)
    world.settle()
    assert world.used(world.steps("flat")[0], "MASTER_BIAS") == "MASTER_BIAS of step 1"


def test_without_a_bias_within_reach_a_flat_waits_and_says_so(world: World) -> None:
    world.template(Tag.BIAS, MORNING - 4 * DAY)  # level 1 reaches 3 days
    world.template(Tag.FLAT, FLATS)
    world.settle()
    [flat] = world.steps("flat")
    assert flat.missing == ["MASTER_BIAS with readout SCI1.0, within 3 d of 2026-06-17 12:17 UT: there is none."]


def test_the_worst_level_is_a_setting(make_world: MakeWorld) -> None:
    world = make_world(plan={"level": 2})
    world.template(Tag.BIAS, MORNING - 4 * DAY)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    [flat] = world.steps("flat")
    assert [use.level for use in flat.uses if use.tag == "MASTER_BIAS"] == [2]


@pytest.mark.parametrize("use_darks", [False, True])
def test_darks_are_used_only_if_wanted(make_world: MakeWorld, use_darks: bool) -> None:  # noqa: FBT001 - both cases
    world = make_world(plan={"use_darks": use_darks})
    for tag, start in ((Tag.BIAS, MORNING), (Tag.DARK, DARKS), (Tag.FLAT, FLATS)):
        world.template(tag, start)
    world.settle()
    assert (world.used(world.steps("flat")[-1], "MASTER_DARK") is not None) is use_darks


def test_another_readout_is_never_mixed_in(world: World) -> None:
    for number in (1, 2, 3):
        world.arrive(Tag.BIAS, MORNING, number, cards={"ESO DET READ CURNAME": "FAST"})
    world.template(Tag.FLAT, FLATS)
    world.settle()
    assert world.steps("flat")[0].state is StepState.WAITING


def test_a_closer_product_of_the_same_night_makes_a_step_again(world: World) -> None:
    world.template(Tag.BIAS, MORNING - DAY)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.template(Tag.BIAS, MORNING)
    world.settle()
    first, second = world.steps("flat")
    assert (first.sequence, second.sequence) == (1, 2)
    assert world.used(first, "MASTER_BIAS") == "MASTER_BIAS of step 1"
    assert world.used(second, "MASTER_BIAS") == "MASTER_BIAS of step 3"


@pytest.mark.parametrize("remake", list(RemakePolicy))
def test_a_closer_product_of_another_night_marks_a_step_stale(make_world: MakeWorld, remake: RemakePolicy) -> None:
    world = make_world(plan={"remake": remake})
    world.template(Tag.BIAS, MORNING - 3 * DAY + timedelta(hours=6))
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    flats = world.steps("flat")
    assert len(flats) == (2 if remake is RemakePolicy.ALWAYS else 1)
    if remake is not RemakePolicy.ALWAYS:
        assert "MASTER_BIAS of step 3 is to be used instead of MASTER_BIAS of step 1" in flats[0].stale


def test_a_mark_goes_when_its_reason_goes(world: World) -> None:
    world.template(Tag.BIAS, MORNING - 2 * DAY)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    assert world.steps("flat")[0].stale
    world.judge("MASTER_BIAS of step 3", Certification.REJECTED)
    world.settle()
    assert not world.steps("flat")[0].stale


def test_a_rejected_product_feeds_nobody_and_its_dependants_are_made_again(world: World) -> None:
    world.template(Tag.BIAS, MORNING - DAY)
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.judge("MASTER_BIAS of step 2", Certification.REJECTED)
    world.settle()
    assert [world.used(flat, "MASTER_BIAS") for flat in world.steps("flat")] == [
        "MASTER_BIAS of step 2", "MASTER_BIAS of step 1",
    ]  # fmt: skip


def test_a_rejected_product_without_another_leaves_a_step_waiting(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.judge("MASTER_BIAS of step 1", Certification.REJECTED)
    world.settle()
    assert [flat.state for flat in world.steps("flat")] == [StepState.DONE, StepState.WAITING]


def test_a_new_version_of_a_frame_makes_its_step_and_what_hangs_on_it_again(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    newer = world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.settle()
    bias = world.steps("bias")
    assert [step.sequence for step in bias] == [1, 2]
    assert newer in {use.frame_id for use in bias[1].uses}
    assert len([use for use in bias[1].uses if use.frame]) == 3
    assert [world.used(flat, "MASTER_BIAS") for flat in world.steps("flat")] == [
        f"MASTER_BIAS of step {step.id}" for step in bias
    ]


def test_a_failed_step_is_made_again_only_of_other_frames(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.advance()
    world.work(fail=True)
    world.settle()
    assert [step.state for step in world.steps("bias")] == [StepState.FAILED]
    world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.settle()
    assert [step.state for step in world.steps("bias")] == [StepState.FAILED, StepState.DONE]


def test_frames_that_change_while_a_step_runs_are_not_forgotten(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.advance()
    world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.advance()
    world.settle()
    assert [step.sequence for step in world.steps("bias")] == [1, 2]


def test_a_late_frame_opens_a_closed_group_and_its_step_is_made_again(world: World) -> None:
    for number in (1, 2, 3, 4):
        world.arrive(Tag.BIAS, MORNING, number, of=5)
    world.now += timedelta(hours=1)
    world.settle()
    [bias] = world.steps("bias")
    assert bias.group.state is GroupState.CLOSED
    assert "4 of 5 frames are here" in bias.warnings[0]
    world.arrive(Tag.BIAS, MORNING, 5, of=5)
    world.settle()
    bias = world.steps("bias")[-1]
    assert (bias.sequence, bias.group.state, bias.warnings) == (2, GroupState.COMPLETE, [])


def test_too_few_frames_are_never_used(world: World) -> None:
    world.arrive(Tag.BIAS, MORNING, 1, of=11)
    world.arrive(Tag.BIAS, MORNING, 2, of=11)
    world.now += timedelta(hours=1)
    world.settle()
    assert world.steps("bias") == []
    assert [state for state, _ in world.outcome().values() if isinstance(state, GroupState)] == [GroupState.INCOMPLETE]


def test_a_channel_that_one_frame_lacks_is_left_out_with_a_warning(world: World) -> None:
    for number in (1, 2):
        world.arrive(Tag.BIAS, MORNING, number)
    world.arrive(Tag.BIAS, MORNING, 3, channels=(12,))
    world.advance()
    [bias] = world.steps("bias")
    assert [part.channel for part in bias.parts] == [0, 12]
    assert bias.warnings == ["Channel 1 is left out, it is not in every raw frame."]


def test_a_step_without_a_recipe_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recipe(Tag.BIAS, monkeypatch)
    world.template(Tag.BIAS, MORNING)
    world.settle()
    [bias] = world.steps("bias")
    assert (bias.state, bias.missing) == (StepState.WAITING, ["muse_nothing has no recipe yet."])


def test_this_night_goes_before_older_ones(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.BIAS, MORNING - 9 * DAY)
    world.advance()
    older, tonight = world.steps("bias")
    assert tonight.priority < older.priority


def test_what_is_settled_is_not_read_again(world: World) -> None:
    """However many nights there are, a snapshot holds what is open and what lies around it."""
    for night in range(12):
        world.template(Tag.BIAS, MORNING + night * DAY)
        world.template(Tag.FLAT, FLATS + night * DAY)
        world.settle()
    world.arrive(Tag.FLAT, FLATS + 12 * DAY, 1)
    world.advance()
    with world.registry.read() as session:
        snapshot = survey(session, world.settings)
    assert [group.tag for group in snapshot.groups] == [Tag.FLAT]
    assert snapshot.steps == ()
    assert {product.catg for product in snapshot.products} == {"MASTER_BIAS"}
    assert len(snapshot.products) <= 3  # the biases within 3 days


def test_a_static_calibration_serves_from_its_day_until_the_next(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    old = world.static("BADPIX_TABLE", date(2014, 1, 1))
    world.static("BADPIX_TABLE", date(2026, 6, 18))  # the day after
    world.settle()
    [bias] = world.steps("bias")
    [use] = [use for use in bias.uses if use.tag == "BADPIX_TABLE"]
    assert (use.product and use.product.name, use.level, use.certification) == (old, 0, "certified")
    newer = world.static("BADPIX_TABLE", date(2020, 1, 1))
    world.settle()
    assert f"{newer} is to be used instead of {old}" in world.steps("bias")[-1].stale


def test_what_was_made_with_a_retired_static_calibration_is_stale(make_world: MakeWorld) -> None:
    world = make_world(plan={"remake": "always"})
    world.template(Tag.BIAS, MORNING)
    names = [world.static("BADPIX_TABLE", date(year, 1, 1)) for year in (2014, 2020)]
    world.settle()
    with world.registry.begin() as session:
        product = session.scalars(select(Product).filter_by(name=names[1])).one()
        retire(session, product, why="wrong", scoring=Scoring.of(world.settings), now=world.now)
    world.settle()
    assert [world.used(bias, "BADPIX_TABLE") for bias in world.steps("bias")] == names[::-1]
    with world.registry.begin() as session:
        product = session.scalars(select(Product).filter_by(catg="MASTER_BIAS")).all()[0]
        with pytest.raises(OrderRefused, match="not static"):
            retire(session, product, why="", scoring=Scoring.of(world.settings), now=world.now)


ORDER = Order(
    method=Method("muse_bias", "1", {"lsigma": 3.0}),
    inputs=(Input(tag="BIAS", digest="a", frame_id=1), Input(tag="BIAS", digest="b", frame_id=2)),
    channels=(1,), warnings=(),
)  # fmt: skip


def test_a_plan_may_be_carried_out_piece_by_piece(make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = make_world(), make_world()
    for world in (whole, pieces):
        for frame in FRAMES:
            world.arrive(*frame)
    whole.settle()
    monkeypatch.setattr("tasks.advance._MOST_DECISIONS", 1)
    pieces.settle()
    assert pieces.outcome() == whole.outcome()


def test_identity_is_what_fixes_the_outcome_and_no_more() -> None:
    a, b = ORDER.inputs
    same = [replace(ORDER, inputs=(b, a)), replace(ORDER, warnings=("late",)),
            replace(ORDER, inputs=(replace(a, frame_id=9), b))]  # fmt: skip
    methods = [replace(ORDER.method, version="2"), replace(ORDER.method, recipe="muse_dark"),
               replace(ORDER.method, parameters={"lsigma": 4.})]  # fmt: skip
    other = [*(replace(ORDER, method=method) for method in methods), replace(ORDER, inputs=(a,)),
             replace(ORDER, inputs=(replace(a, tag="DARK"), b))]  # fmt: skip
    assert {order.identity for order in same} == {ORDER.identity}
    assert len({ORDER.identity, *(order.identity for order in other)}) == 6


def companion(number: int, hours: float, ambient: float | None, readout: str = "SCI1.0") -> CompanionView:
    member = Member(frame_id=number, dp_id="", digest="", mjd=61208.0 + hours / 24, exptime=1.0, announced=1,
                    ambient=ambient)  # fmt: skip
    return CompanionView(tag=Tag.ILLUM, setup=Setup(readout=readout), member=member)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([companion(1, 1.0, 10.0), companion(2, -0.5, 10.2)], 2),  # the closest
        ([companion(1, 1.0, 10.0), companion(2, -0.5, 11.2)], 1),  # more than 1 K away
        ([companion(1, 1.0, 10.0), companion(2, -0.5, 10.2, "FAST")], 1),  # another readout
        ([companion(1, 2.1, 10.0)], None),  # more than 2 h away
        ([companion(1, 1.0, None)], 1),  # without a temperature the time decides
        ([], None),
    ],
)
def test_an_illumination_flat_is_near_in_time_and_temperature(others: list[CompanionView], chosen: int | None) -> None:
    twilight = Member(frame_id=7, dp_id="", digest="", mjd=61208.0, exptime=1.0, announced=1, ambient=10.1)
    group = GroupView(
        group_id=1, tag=Tag.SKYFLAT, state=GroupState.COMPLETE, reason="", night=MORNING.date(), mjd=61208.0,
        setup=Setup(readout="SCI1.0"), closes=MORNING, members=(twilight,),
    )  # fmt: skip
    [wanted] = STEPS_BY_NAME["twilight"].companions
    found = companion_for(group, wanted, others)
    assert (found and found.frame_id) == chosen


@pytest.mark.parametrize("wanted", [True, False])
def test_a_line_spread_function_is_made_of_arcs_only_if_wanted(make_world: MakeWorld, wanted: bool) -> None:  # noqa: FBT001 - both cases
    world = make_world(plan={"lsf_from_arcs": wanted})
    with world.registry.begin() as session:
        session.add(
            Product(
                catg="LINE_CATALOG", name="MU_GLNC_140101A_line_cat.fits", dp_id="M.MUSE.1", path="", size=1,
                digest="0" * 64, night=MORNING.date(), mjd=56658.0, setup=Setup(), static=True, created=MORNING,
            )
        )  # fmt: skip
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    for number, lamp in enumerate((3, 3, 3, 4, 4, 4, 5, 5, 5), start=1):
        lit = {f"ESO INS LAMP{lamp} ST": True, f"ESO INS SHUT{lamp} ST": True}
        world.arrive(Tag.ARC, FLATS + timedelta(minutes=20), number, 9, cards=lit)
    world.settle()
    [wavecal] = world.steps("wavecal")
    assert wavecal.state is StepState.DONE
    found = world.steps("lsf")
    assert len(found) == wanted
    for lsf in found:
        assert lsf.state is StepState.DONE
        assert lsf.group_id == wavecal.group_id
        assert [use.tag for use in lsf.uses if use.frame] == ["ARC"] * 9
        assert world.used(lsf, "WAVECAL_TABLE") == f"WAVECAL_TABLE of step {wavecal.id}"
    world.arrive(Tag.ARC, FLATS + timedelta(minutes=20), 9, 9, version=2, cards=lit)
    world.settle()
    assert len(world.steps("lsf")) == 2 * wanted  # remade with the new version of its last frame
