"""Why always answers: for every row, with the rule, the values, and what comes next."""

import json
from datetime import timedelta
from typing import Any

import pytest
from small_night import MORNING, World, without_recipe
from sqlalchemy import select

from archive.models import Arrival, Frame, Group, Product, Step
from archive.registry import Registry
from archive.states import ArrivalState, Certification
from tasks import orders
from tasks.cascade import Tag
from tasks.why import Explanation, explain

DAY = timedelta(days=1)
FLATS = MORNING + timedelta(hours=1, minutes=35)


@pytest.fixture
def world(registry: Registry) -> World:
    return World(registry)


def why(world: World, kind: type[Any], number: int) -> Explanation:
    with world.registry.read() as session:
        answer = explain(session, session.get_one(kind, number), world.settings)
    json.dumps(answer.record)  # programs can have it as it is
    assert answer.record["id"] == number
    return answer


def text(answer: Explanation) -> str:
    return "\n".join(answer.sentences)


def test_a_frame_tells_its_rule_and_what_its_group_waits_for(world: World) -> None:
    frame = world.arrive(Tag.BIAS, MORNING, 1, of=11)
    world.advance()
    told = text(why(world, Frame, frame))
    assert "is BIAS by the rule BIAS: DPR.CATG is CALIB, DPR.TYPE is BIAS" in told
    assert "1 of 11 frames are here" in told
    assert "closes at 2026-06-17 11:10:28 UT" in told


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [
        (Tag.ILLUM, "the steps twilight, standard, astrometry take the nearest ILLUM frame along"),
        (Tag.SKY, "the cascade makes nothing of SKY frames"),
    ],
)
def test_a_frame_without_a_step_tells_what_it_is_for(world: World, tag: Tag, sentence: str) -> None:
    assert sentence in text(why(world, Frame, world.arrive(tag, MORNING, 1)))


def test_an_unknown_frame_tells_what_no_rule_knows(world: World) -> None:
    frame = world.arrive(Tag.BIAS, MORNING, 1, cards={"ESO DPR TYPE": "BIAS,DOME"})
    assert "No rule is for DPR.CATG = 'CALIB' with DPR.TYPE = 'BIAS,DOME'" in text(why(world, Frame, frame))


def test_a_frame_tells_what_its_header_lacks_and_what_took_its_place(world: World) -> None:
    frame = world.arrive(Tag.BIAS, MORNING, 1, cards={"EXPTIME": "long"})
    newer = world.arrive(Tag.BIAS, MORNING, 1, version=2)
    told = text(why(world, Frame, frame))
    assert "EXPTIME = 'long' is not a number" in told
    assert f"as frame {newer}, which takes its place" in told


def test_a_waiting_step_tells_each_candidate_turned_down_with_the_value_that_differs(world: World) -> None:
    for number in (1, 2, 3):
        world.arrive(Tag.BIAS, MORNING, number, cards={"ESO DET READ CURNAME": "FAST"})
    world.template(Tag.BIAS, MORNING - 5 * DAY)
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    with world.registry.read() as session:
        names = list(session.scalars(select(Product.name).order_by(Product.mjd)))
    world.judge(names[1], Certification.REJECTED)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    [flat] = world.steps("flat")
    answer = why(world, Step, flat.id)
    told = text(answer)
    assert "It waits: MASTER_BIAS with readout SCI1.0, within 3 d of 2026-06-17 12:17 UT: there is none." in told
    assert f"{names[2]} has readout FAST where SCI1.0 is needed" in told
    assert f"{names[1]} was judged and rejected" in told
    assert f"{names[0]} is 5.07 d before the exposure, the limit is 3 d" in told
    assert "The planner looks at it again" in told
    [need] = [need for need in answer.record["needs"] if need["catg"] == "MASTER_BIAS"]
    assert {item["name"]: item["cause"] for item in need["turned_down"]} == dict(
        zip(names, ("window", "rejected", "setup"), strict=True)
    )
    assert need["turned_down"][0]["differences"] == {"readout": ["SCI1.0", "FAST"]}


def test_a_done_step_tells_what_it_used_and_what_it_made(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    told = text(why(world, Step, world.steps("flat")[0].id))
    assert "MASTER_BIAS: MASTER_BIAS of step 1 was used, 0.07 d away, level 0, then provisional." in told
    assert "It made MASTER_FLAT of step 2, TRACE_TABLE of step 2." in told


def test_a_remade_step_tells_why_and_the_old_product_that_it_was_replaced(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.settle()
    world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.settle()
    told = text(why(world, Group, 1))
    assert "It was made again: Its frames changed after it was made: 1 came, 1 went." in told
    assert "A later make of the same frames has taken its place." in text(why(world, Product, 1))


def test_a_stale_step_tells_what_would_be_better_and_how_to_get_it(world: World) -> None:
    world.template(Tag.BIAS, MORNING - 2 * DAY)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.template(Tag.BIAS, MORNING - DAY)
    world.settle()
    told = text(why(world, Step, 2))
    assert "MASTER_BIAS of step 3 is to be used instead of MASTER_BIAS of step 1" in told
    assert "`musecal requeue S2` makes it again." in told


def test_a_failed_or_held_step_tells_how_it_goes_on(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.advance()
    with world.registry.begin() as session:
        orders.hold(session, session.get_one(Step, 1), why="", now=world.now)
    assert "after `musecal release S1`" in text(why(world, Step, 1))
    with world.registry.begin() as session:
        orders.release(session, session.get_one(Step, 1), why="", now=world.now)
    world.advance()
    world.work(fail=True)
    told = text(why(world, Step, 1))
    assert "It failed (data): The lamp was off." in told
    assert "`musecal requeue S1` takes it up again." in told


def test_a_step_without_a_recipe_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    without_recipe(Tag.BIAS, monkeypatch)
    world.template(Tag.BIAS, MORNING)
    world.settle()
    assert "muse_nothing has no recipe yet." in text(why(world, Group, 1))


def test_a_product_tells_its_origin_and_its_users(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    told = text(why(world, Product, 1))
    assert "comes from step 1 (bias) of group 1; it is provisional." in told
    assert "It is used by step 2." in told


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (ArrivalState.WAITING, "unchanged for 15 min it is stalled"),
        (ArrivalState.STALLED, "goes into quarantine after 60 min"),
        (ArrivalState.QUARANTINED, "`musecal quarantine release A1` gives it back"),
        (ArrivalState.DUPLICATE, "is duplicate"),
    ],
)
def test_an_arrival_tells_what_becomes_of_it(world: World, state: ArrivalState, sentence: str) -> None:
    with world.registry.begin() as session:
        row = Arrival(path="/in/a", state=state, first_seen=MORNING, reason="It ends too early.", kept="/q/a")
        session.add(row)
    told = text(why(world, Arrival, 1))
    assert sentence in told
    assert "It ends too early." in told
