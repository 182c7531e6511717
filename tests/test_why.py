"""Why always answers: for every row, with the rule, the values, and what comes next."""

import json
from datetime import date, timedelta
from typing import Any

import pytest
from small_night import MORNING, MakeWorld, World, without_recipe
from sqlalchemy import select

from archive.models import Arrival, Frame, Group, Product, Step
from archive.registry import Registry
from archive.states import ArrivalState, Certification
from tasks import orders
from tasks.cascade import Tag
from tasks.why import Explanation, explain, explain_for

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
        (Tag.SKY, "No step reduces it. MASTER_BIAS, MASTER_FLAT"),
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


def test_a_stale_step_tells_through_what_down_to_what_changed(make_world: MakeWorld) -> None:
    world = make_world(plan={"remake": "never", "use_darks": True})
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.DARK, MORNING + timedelta(hours=4))
    world.template(Tag.FLAT, FLATS)
    world.settle()
    world.template(Tag.BIAS, MORNING + timedelta(hours=5))
    world.settle()
    [dark], [flat] = world.steps("dark"), world.steps("flat")
    answer = why(world, Step, flat.id)
    told = text(answer)
    assert f"It is stale: MASTER_DARK: MASTER_DARK of step {dark.id} is stale itself." in told
    assert f"Step {dark.id} (dark) is stale: MASTER_BIAS: " in told
    assert [one["step"] for one in answer.record["through"]] == [dark.id]


def test_a_science_frame_tells_what_it_is_handed_out_with_and_what_is_missing(world: World) -> None:
    world.template(Tag.BIAS, MORNING)
    world.settle()
    world.static("EXTINCT_TABLE", date(2014, 1, 1))
    frame = world.arrive(Tag.SKY, MORNING - timedelta(hours=6), 1, 1)
    answer = why(world, Frame, frame)
    told = text(answer)
    assert "MASTER_FLAT, TRACE_TABLE, WAVECAL_TABLE, GEOMETRY_TABLE" in told
    assert f"provisional is MASTER_BIAS: `musecal retrieve F{frame}`" in told
    assert "MASTER_BIAS: MASTER_BIAS of step 1 fits best, 0.25 d away, level 0, provisional." in told
    assert answer.record["complete"] is False
    assert {need["catg"]: need["level"] for need in answer.record["needs"]}["EXTINCT_TABLE"] == 0


def test_in_paranal_mode_a_step_says_what_that_means(make_world: MakeWorld) -> None:
    world = make_world(plan={"mode": "paranal"})
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    answer = why(world, Step, world.steps("flat")[0].id)
    assert "only certified ones are taken, and nothing under way is waited for" in text(answer)
    assert "MASTER_BIAS of step 1 is provisional, and only certified ones are taken." in text(answer)
    [bias] = [need for need in answer.record["needs"] if need["catg"] == "MASTER_BIAS"]
    assert [one["cause"] for one in bias["turned_down"]] == ["provisional"]


class TestFor:
    """Whether a product could be used for something, and by which rule it was not."""

    @pytest.fixture
    def world(self, make_world: MakeWorld) -> World:
        """Biases a day before, in another readout, far away, of the night; a flat; and a frame of the sky."""
        world = make_world()
        world.template(Tag.BIAS, MORNING - DAY)
        for number in (1, 2, 3):
            world.arrive(Tag.BIAS, MORNING, number, cards={"ESO DET READ CURNAME": "FAST"})
        world.template(Tag.BIAS, MORNING - 9 * DAY)
        world.template(Tag.BIAS, MORNING + timedelta(minutes=30))
        world.template(Tag.FLAT, FLATS)
        world.settle()
        world.arrive(Tag.SKY, MORNING - timedelta(hours=6), 1, 1)
        return world

    @pytest.mark.parametrize(
        ("mjd_order", "cause", "sentence"),
        [
            (3, "", "Yes: {name} fits the flat step of group 5 best. It is 0.05 d away, level 0, provisional."),
            (2, "setup", "{name} has readout FAST where SCI1.0 is needed."),
            (1, "second", "could be used, but is farther in time"),
            (0, "window", "is 9.07 d before the exposure, the limit is 3 d"),
        ],
    )
    def test_each_rule_is_named(self, world: World, mjd_order: int, cause: str, sentence: str) -> None:
        with world.registry.read() as session:
            biases = session.scalars(select(Product).where(Product.catg == "MASTER_BIAS").order_by(Product.mjd)).all()
            product = biases[mjd_order]
            answer = explain_for(session, product, session.get_one(Group, 5), world.settings)
        json.dumps(answer.record)
        assert sentence.format(name=product.name) in text(answer)
        assert answer.record["for"][0]["cause"] == cause
        assert bool(answer.record["used_by"]) is (cause == "")

    def test_what_nobody_takes_and_what_is_no_exposure(self, world: World) -> None:
        with world.registry.read() as session:
            flat = session.scalars(select(Product).where(Product.catg == "MASTER_FLAT")).one()
            bias = session.get_one(Step, 1)
            answer = explain_for(session, flat, bias, world.settings)
            assert answer.sentences == [f"No: the bias step of group {bias.group_id} takes no MASTER_FLAT."]
            with pytest.raises(LookupError, match="neither a step"):
                explain_for(session, flat, flat, world.settings)

    def test_a_science_frame_is_asked_after_as_it_is_handed_out(self, world: World) -> None:
        with world.registry.read() as session:
            sky = session.scalars(select(Frame).where(Frame.tag == "SKY")).one()
            bias = session.scalars(select(Product).where(Product.catg == "MASTER_BIAS").order_by(Product.mjd)).first()
            assert bias is not None
            answer = explain_for(session, bias, sky, world.settings)
        assert "what is handed out with frame MUSE." in text(answer)
        assert answer.record["for"][0]["cause"] == "second"  # every level is handed out, so that none is too far
