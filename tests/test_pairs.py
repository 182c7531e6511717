"""The monthly pair: geometry and astrometry are processed together, by somebody's word, and serve others together."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_night import MORNING, World
from sqlalchemy import func, select

import tasks.cascade
import tasks.settings
from archive.models import Event, Group, Product, Step
from archive.night import mjd_of
from archive.registry import Registry
from archive.select import astrometry_for
from archive.setup import Setup
from archive.states import Certification, GroupState, StepState
from recipes.bias import RECIPE
from recipes.recipe import Recipe
from tasks import orders
from tasks.cascade import STEPS_BY_NAME, Tag
from tasks.orders import OrderRefused
from tasks.pairs import pair_up
from tasks.snapshot import GroupView
from tasks.why import explain

DAY = timedelta(days=1)
STARS = MORNING - timedelta(hours=6)
TWILIGHT = MORNING + timedelta(hours=9)
SETUP = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, optics="WFM")
WFM = {"ESO INS OPTI2 NAME": "WFM"}

MakeWorld = Callable[..., World]


@pytest.fixture(autouse=True)
def _small_cascade(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let three frames be a mask, and a toy stand in for a recipe that is not there yet."""
    changed: list[tuple[object, str, object]] = []

    def change(step: object, name: str, value: object) -> None:
        changed.append((step, name, getattr(step, name)))
        object.__setattr__(step, name, value)

    change(STEPS_BY_NAME["geometry"], "minimum", 3)
    for name in ("geometry", "astrometry"):
        step = STEPS_BY_NAME[name]
        if not isinstance(step.recipe, Recipe):
            toy = replace(RECIPE, name=step.recipe_name, raw=(step.raw,), makes=step.makes)
            change(step, "recipe", toy)
            for module in (tasks.cascade, tasks.settings):
                monkeypatch.setattr(module, "RECIPES", {**tasks.cascade.RECIPES, toy.name: toy})
    yield
    for changed_step, name, value in reversed(changed):
        object.__setattr__(changed_step, name, value)


def prepared(world: World) -> World:
    """Have all that both steps need beside each other."""
    for catg in ("LINE_CATALOG", "ASTROMETRY_REFERENCE"):
        world.static(catg, date(2014, 1, 1))
    nights = [MORNING + night * DAY for night in (-20, -3, -1, 0, 1, 20, 25)]
    world.products(("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE"), nights, SETUP)
    return world


@pytest.fixture
def world(registry: Registry) -> World:
    return prepared(World(registry))


@pytest.fixture
def make_world(tmp_path_factory: pytest.TempPathFactory, sqlite: Path) -> MakeWorld:
    numbers, folder = count(), tmp_path_factory.mktemp("worlds")

    def make(**sections: Any) -> World:  # noqa: ANN401 - what pydantic takes
        path = shutil.copy(sqlite, folder / f"{next(numbers)}.sqlite")
        return prepared(World(Registry(f"sqlite:///{path}"), **sections))

    return make


def mask(world: World, start: Any = MORNING) -> None:  # noqa: ANN401 - a datetime
    for number in (1, 2, 3):
        world.arrive(Tag.MASK, start, number, cards=WFM)


def stars(world: World, start: Any = STARS) -> None:  # noqa: ANN401
    world.arrive(Tag.ASTROMETRY, start, 1, of=1, cards=WFM)


def release(world: World, name: str, number: int = 0) -> None:
    with world.registry.begin() as session:
        step = session.get_one(Step, world.steps(name)[number].id)
        orders.release(session, step, why="both look good", now=world.now)


def waits(world: World, name: str, number: int = -1) -> str:
    step = world.steps(name)[number]
    assert step.state is StepState.WAITING
    return " ".join(step.missing)


def made(world: World, catg: str) -> list[Product]:
    with world.registry.read() as session:
        found = session.scalars(select(Product).where(Product.catg == catg).order_by(Product.id)).all()
        return [row for row in found if row.step_id]


def test_neither_goes_without_the_other(world: World) -> None:
    mask(world)
    stars(world, STARS - 20 * DAY)
    world.settle()
    assert waits(world, "geometry").startswith(
        "It is processed only together with ASTROMETRY frames, at most 15 d away"
    )
    assert waits(world, "astrometry").startswith("It is processed only together with MASK frames")
    for name in ("geometry", "astrometry"):
        with pytest.raises(OrderRefused, match="has no partner yet"):
            release(world, name)


@pytest.mark.parametrize("word", ["geometry", "astrometry"])
def test_a_pair_waits_for_a_word_on_either_and_then_goes_on_together(world: World, word: str) -> None:
    world.static("GEOMETRY_TABLE", date(2026, 1, 1), setup=Setup(optics="WFM"))
    mask(world)
    stars(world)
    world.settle()
    assert "is one pair with group 2 (ASTROMETRY of" in waits(world, "geometry")
    assert "waits for an operator's word: `musecal release G2` starts both" in waits(world, "astrometry")
    release(world, word)
    with pytest.raises(OrderRefused, match="released already"):
        release(world, word)
    world.advance()
    assert world.steps("geometry")[0].state is StepState.QUEUED
    assert waits(world, "astrometry").startswith("GEOMETRY_TABLE: the geometry step of group 1 (MASK of")
    world.settle()
    [table], [solution] = made(world, "GEOMETRY_TABLE"), made(world, "ASTROMETRY_WCS")
    assert (table.name, solution.name) == (
        "MU_GEOT_260616A_geometry_table_wfm.fits", "MU_GASW_260616A_astrom_wcs_wfm.fits",
    )  # fmt: skip
    assert (table.static, solution.static, solution.geometry_id) == (True, True, table.id)
    assert world.used(world.steps("astrometry")[0], "GEOMETRY_TABLE") == table.name
    with world.registry.read() as session:
        events = session.scalars(select(Event).where(Event.what == "pair released", Event.subject == "group")).all()
    assert sorted((event.subject_id, event.why) for event in events) == [(1, "both look good"), (2, "both look good")]


def test_the_settings_may_give_the_word(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    stars(world)
    world.settle()
    mask(world)
    world.settle()
    assert [world.steps(name)[0].state for name in ("geometry", "astrometry")] == [StepState.DONE, StepState.DONE]


def test_a_table_serves_others_only_once_its_solution_is_there(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    old = world.static("GEOMETRY_TABLE", date(2026, 1, 1), setup=Setup(optics="WFM"))
    mask(world)
    stars(world)
    world.advance()
    assert world.work() == 1  # the geometry
    for number in (1, 2, 3):
        world.arrive(Tag.SKYFLAT, TWILIGHT, number, cards=WFM)
    world.advance()
    [twilight] = world.steps("twilight")
    assert world.used(twilight, "GEOMETRY_TABLE") == old
    with world.registry.read() as session:
        told = " ".join(explain(session, session.get_one(Step, twilight.id), world.settings).sentences)
    assert "is half of a pair whose other half is not there, or was rejected" in told
    world.settle()
    [table] = made(world, "GEOMETRY_TABLE")
    assert [world.used(step, "GEOMETRY_TABLE") for step in world.steps("twilight")] == [old, table.name]


def test_a_table_whose_partner_failed_serves_nobody(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    mask(world)
    stars(world)
    world.advance()
    world.work()
    world.advance()
    world.work(fail=True)
    for number in (1, 2, 3):
        world.arrive(Tag.SKYFLAT, TWILIGHT, number, cards=WFM)
    world.settle()
    assert "GEOMETRY_TABLE, valid at" in waits(world, "twilight")
    with world.registry.begin() as session:
        orders.requeue(session, session.get_one(Step, world.steps("astrometry")[0].id), why="again", now=world.now)
    world.settle()
    assert world.steps("twilight")[0].state is StepState.DONE


def test_with_its_solution_rejected_a_table_serves_nobody(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto", "remake": "never"})
    old = world.static("GEOMETRY_TABLE", date(2026, 1, 1), setup=Setup(optics="WFM"))
    mask(world)
    stars(world)
    world.settle()
    for number in (1, 2, 3):
        world.arrive(Tag.SKYFLAT, TWILIGHT, number, cards=WFM)
    world.settle()
    [table], [solution] = made(world, "GEOMETRY_TABLE"), made(world, "ASTROMETRY_WCS")
    assert world.used(world.steps("twilight")[0], "GEOMETRY_TABLE") == table.name
    world.judge(solution.name, Certification.REJECTED)
    world.settle()
    assert f"{old} is to be used instead of {table.name}" in world.steps("twilight")[0].stale


def test_a_closer_partner_takes_its_place_until_the_pair_is_released(world: World) -> None:
    mask(world)
    stars(world, STARS - 3 * DAY)
    world.settle()
    stars(world)
    world.settle()
    assert "It is one pair with group 3" in waits(world, "geometry")
    assert "It is processed only together with" in waits(world, "astrometry", 0)
    release(world, "geometry")
    stars(world, MORNING + timedelta(minutes=30))
    world.settle()
    assert world.used(world.steps("astrometry")[1], "GEOMETRY_TABLE") is not None
    assert [step.state for step in world.steps("astrometry")] == [StepState.WAITING, StepState.DONE, StepState.WAITING]


def test_a_group_still_open_is_waited_for_if_it_is_the_closest(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    for number in (1, 2):
        world.arrive(Tag.MASK, MORNING, number, cards=WFM)
    stars(world)
    world.settle()
    assert "which is still open" in waits(world, "astrometry")
    world.arrive(Tag.MASK, MORNING, 3, cards=WFM)
    world.settle()
    assert world.steps("astrometry")[0].state is StepState.DONE


def test_one_given_up_sets_the_other_free(world: World) -> None:
    mask(world)
    stars(world)
    world.settle()
    release(world, "geometry")
    world.advance()
    with world.registry.begin() as session:
        orders.cancel(session, session.get_one(Step, world.steps("geometry")[0].id), why="masked", now=world.now)
    world.settle()
    assert "It is processed only together with" in waits(world, "astrometry")
    mask(world, MORNING + DAY)
    world.settle()
    assert "It is one pair with group 3" in waits(world, "astrometry")


def test_a_table_made_again_has_its_solution_made_again_and_the_old_pair_serves_meanwhile(
    make_world: MakeWorld,
) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    mask(world)
    stars(world)
    for number in (1, 2, 3):
        world.arrive(Tag.SKYFLAT, TWILIGHT, number, cards=WFM)
    world.settle()
    world.arrive(Tag.MASK, MORNING, 2, version=2, cards=WFM)
    world.advance()
    world.work()  # the geometry
    world.advance()
    first, second = made(world, "GEOMETRY_TABLE")
    assert [world.used(step, "GEOMETRY_TABLE") for step in world.steps("twilight")] == [first.name]
    assert not world.steps("twilight")[0].stale
    world.settle()
    assert {row.geometry_id for row in made(world, "ASTROMETRY_WCS")} == {first.id, second.id}
    assert world.used(world.steps("twilight")[-1], "GEOMETRY_TABLE") == second.name


def test_a_solution_is_handed_out_with_the_table_it_was_made_with_only(make_world: MakeWorld) -> None:
    world = make_world(plan={"release_pairs": "auto"})
    mask(world)
    stars(world)  # before the mask, so that its own day begins earlier
    mask(world, MORNING + 20 * DAY)
    stars(world, MORNING + 25 * DAY)
    world.settle()
    solutions = made(world, "ASTROMETRY_WCS")
    with world.registry.read() as session:
        for table, solution in zip(made(world, "GEOMETRY_TABLE"), solutions, strict=True):
            found = astrometry_for(session, table, setup=SETUP, mjd=table.mjd + 0.5)
            assert found.best is not None
            assert found.best.candidate.product_id == solution.id
            assert astrometry_for(session, table, setup=Setup(optics="NFM"), mjd=table.mjd + 0.5).best is None


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],
)  # fmt: skip
@given(order=st.permutations(range(5)), turns=st.lists(st.booleans(), min_size=5, max_size=5))
def test_the_pairs_are_the_same_in_whatever_order_the_groups_come(
    make_world: MakeWorld, order: list[int], turns: list[bool]
) -> None:
    arrivals = [
        (mask, MORNING), (mask, MORNING + 4 * DAY), (stars, STARS), (stars, STARS + 3 * DAY), (stars, STARS - 9 * DAY)
    ]  # fmt: skip
    world = make_world()
    for number, turn in zip(order, turns, strict=True):
        arrive, start = arrivals[number]
        arrive(world, start)
        if turn:
            world.settle()
    world.settle()
    with world.registry.read() as session:
        pairs = {
            (round(group.mjd - mjd_of(MORNING)), round(group.partner.mjd - mjd_of(MORNING)))
            for group in session.scalars(select(Group).where(Group.tag == Tag.MASK))
            if group.partner
        }
        assert session.scalar(select(func.count()).select_from(Group).where(Group.partner_id.is_not(None))) == 4
    assert pairs == {(0, 0), (4, 3)}


GROUPS = st.lists(st.floats(0, 40, allow_nan=False), max_size=6)


def group(number: int, tag: Tag, days: float) -> GroupView:
    return GroupView(
        group_id=number, tag=tag, state=GroupState.COMPLETE, reason="", night=MORNING.date(), setup=SETUP,
        mjd=mjd_of(MORNING) + days, closes=MORNING, members=(),
    )  # fmt: skip


@given(GROUPS, GROUPS, st.data())
def test_pairs_are_stable_and_the_same_in_every_order(ones: list[float], others: list[float], data: Any) -> None:  # noqa: ANN401
    """No two groups that are not a pair are nearer to each other than both are to their partners."""
    masks = [group(number, Tag.MASK, days) for number, days in enumerate(ones, 1)]
    fields = [group(number, Tag.ASTROMETRY, days) for number, days in enumerate(others, 101)]
    partners = pair_up(masks, fields, 15.0)
    by_number = {one.group_id: one for one in (*masks, *fields)}

    def distance(one: int) -> float:
        partner = partners.get(one)
        return abs(by_number[one].mjd - by_number[partner].mjd) if partner else 15.000001

    assert all(partners[partner] == one for one, partner in partners.items())
    for one, other in product(masks, fields):
        apart = abs(one.mjd - other.mjd)
        assert apart >= min(distance(one.group_id), distance(other.group_id)) or apart > 15.0
    shuffled = data.draw(st.permutations(masks)), data.draw(st.permutations(fields))
    assert pair_up(*shuffled, 15.0) == partners


def test_groups_know_their_partner(world: World) -> None:
    mask(world)
    stars(world)
    world.settle()
    with world.registry.read() as session:
        first, second = session.scalars(select(Group).order_by(Group.id)).all()
        assert (first.partner_id, second.partner_id, first.released, second.released) == (2, 1, None, None)
        told = " ".join(explain(session, first, world.settings).sentences)
    assert "It is one pair with group 2 (ASTROMETRY), not released yet." in told
