"""Random nights in random order: the planner chooses, marks and remakes as the rules say, and comes to an end."""

import shutil
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from choice_oracle import Oracle
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from small_night import MORNING, MakeWorld, World
from sqlalchemy import select

from archive.models import Product, Step
from archive.registry import Registry
from archive.setup import Setup
from archive.states import CERTIFICATION_MOVES, Certification, Score, StepState
from recipes.recipe import Value
from tasks.cascade import Tag

DAY = timedelta(days=1)
HOURS = {Tag.BIAS: 0.0, Tag.FLAT: 1.5, Tag.DARK: 4.0, Tag.ILLUM: -3.2, Tag.STD: -4.0}
FRAMES = {Tag.BIAS: 3, Tag.FLAT: 3, Tag.DARK: 3, Tag.ILLUM: 1, Tag.STD: 1}
READOUTS = ("SCI1.0", "FAST")
SETUPS = [Setup(mode="WFM-NOAO-N", readout=readout, readout_id=1) for readout in READOUTS]
RANDOM = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],  # an example takes a second, too long to look for a shorter one
)  # fmt: skip

templates = st.tuples(
    st.just("template"), st.sampled_from([Tag.BIAS, Tag.BIAS, Tag.FLAT, Tag.FLAT, Tag.DARK, Tag.ILLUM, Tag.STD]),
    st.integers(0, 2), st.sampled_from((0, 0, 0, 1)),
)  # fmt: skip
LATE = [(Tag.ILLUM, 1), (Tag.BIAS, 1)]  # of the nights that are done; others were taken in their place
happenings = st.one_of(
    templates,
    st.sampled_from([("template", tag, night, 0) for tag, night in LATE]),
    st.tuples(st.just("version"), st.integers(0, 30)),
    st.tuples(st.just("static"), st.integers(2014, 2026)),
    st.tuples(st.just("judge"), st.integers(0, 30), st.sampled_from(list(Certification))),
    st.tuples(st.just("vouch")),
    st.tuples(st.just("score"), st.integers(0, 30), st.sampled_from((Score.GREEN, Score.RED, Score.RED))),
    st.tuples(st.just("parameter"), st.sampled_from(("muse_bias", "muse_flat")), st.sampled_from((3.0, 4.0))),
    st.tuples(st.just("requeue"), st.integers(0, 30)),
    st.tuples(st.just("later"), st.integers(1, 30)),
)


@dataclass
class Story:
    """A world to which things happen; what cannot happen now is passed over."""

    world: World
    came: dict[tuple[Tag, int, int], int] = field(default_factory=dict)

    def happen(self, what: str, *rest: Any) -> None:  # noqa: ANN401 - as drawn
        getattr(self, what)(*rest)

    def template(self, tag: Tag, night: int, readout: int) -> None:
        if (tag, night, readout) in self.came:
            return
        self.came[tag, night, readout] = 1
        for number in range(1, FRAMES[tag] + 1):
            self.arrive(tag, night, readout, number)

    def version(self, number: int) -> None:
        """A frame comes again with other content."""
        if self.came:
            tag, night, readout = sorted(self.came)[number % len(self.came)]
            self.came[tag, night, readout] += 1
            self.arrive(tag, night, readout, 1)

    def arrive(self, tag: Tag, night: int, readout: int, number: int) -> None:
        start = MORNING + night * DAY + timedelta(hours=HOURS[tag] + readout / 4)
        cards: dict[str, Value] = {"ESO DET READ CURNAME": READOUTS[readout], "EXPTIME": 60.0}
        version = self.came[tag, night, readout]
        self.world.arrive(tag, start, number, FRAMES[tag], version=version, cards=cards)

    def static(self, year: int) -> None:
        with self.world.registry.read() as session:
            there = session.scalars(select(Product.name).where(Product.catg == "BADPIX_TABLE")).all()
        if not any(str(year)[2:] + "0101" in name for name in there):
            self.world.static("BADPIX_TABLE", date(year, 1, 1))

    def judge(self, number: int, verdict: Certification) -> None:
        if (product := self._product(number)) and verdict in CERTIFICATION_MOVES[product.certification]:
            self.world.judge(product.name, verdict)

    def vouch(self) -> None:
        """Somebody certifies everything that is provisional."""
        with self.world.registry.read() as session:
            provisional = Product.certification == Certification.PROVISIONAL
            names = session.scalars(select(Product.name).where(provisional)).all()
        for name in names:
            self.world.judge(name, Certification.CERTIFIED)

    def score(self, number: int, score: Score) -> None:
        if product := self._product(number):
            self.world.score(product.name, score)

    def parameter(self, recipe: str, value: float) -> None:
        self.world.settings.recipes[recipe]["lsigma"] = value

    def requeue(self, number: int) -> None:
        with self.world.registry.read() as session:
            done = [step for step in session.scalars(select(Step).order_by(Step.id)) if step.state is StepState.DONE]
            latest = {(step.group_id, step.name): step.id for step in session.scalars(select(Step).order_by(Step.id))}
        newest = [step.id for step in done if step.id in latest.values()]
        if newest:
            self.world.requeue(newest[number % len(newest)])

    def later(self, hours: int) -> None:
        self.world.now += timedelta(hours=hours)

    def _product(self, number: int) -> Product | None:
        with self.world.registry.read() as session:
            products = session.scalars(select(Product).order_by(Product.id)).all()
        return products[number % len(products)] if products else None


def prepared(world: World) -> World:
    """Have beside the frames what else a standard star needs."""
    for catg in ("GEOMETRY_TABLE", "EXTINCT_TABLE", "STD_FLUX_TABLE"):
        world.static(catg, date(2014, 1, 1))
    for setup in SETUPS[:1]:
        world.products(("WAVECAL_TABLE",), [MORNING + night * DAY for night in range(-1, 3)], setup)
    return world


def check_marks(oracle: Oracle, *, always: bool) -> None:
    """Each newest done make is marked if and only if the rules say so; what is not took the best of all."""
    for group, name in oracle.followed():
        makes = oracle.makes(group, name)
        done = [step for step in makes if step.state is StepState.DONE]
        for step in done[:-1]:
            assert not step.stale
        for step in done[-1:]:
            said = f"{step.name} {step.id}: {step.stale}; {oracle.changed(step)}"
            assert bool(step.stale) is oracle.stale(step), said
            if always and makes[-1] is step:
                assert not oracle.changed(step), said
            if not step.stale:
                check_uses(oracle, step)
        if makes[-1].state is StepState.WAITING:
            required = [need for need in oracle.needs(name) if not need.optional]
            assert any(oracle.best(group, need) is None for need in required), makes[-1].missing


def check_uses(oracle: Oracle, step: Step) -> None:
    """What is kept of an association is what it is."""
    levels = {need.catg: need.levels for need in oracle.needs(step.name)}
    for use in step.uses:
        if use.product:
            days = use.product.mjd - oracle.middle(step.group)
            static = use.product.static
            assert use.level == next(level.level for level in levels[use.tag] if static or abs(days) < level.days)
            assert use.days == pytest.approx(days, abs=1e-9)
    for use in step.uses:
        if use.frame and use.tag != step.group.tag:
            middle = use.frame.mjd + use.frame.exptime / 86400 / 2
            assert use.days == pytest.approx(middle - oracle.middle(step.group), abs=1e-9)


def check_identities(steps: list[Step]) -> None:
    """Nothing is made twice, and each remake differs from what was made before it."""
    made = [(step.group_id, step.name, step.identity) for step in steps if step.products]
    assert len(made) == len(set(made))


BEGUN = [(tag, night, 0) for tag in HOURS for night in (0, 1) if (tag, night) not in LATE]


@pytest.fixture(scope="module")
def begun(sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry in which two nights are done, so that each happening meets something."""
    path = Path(shutil.copy(sqlite, tmp_path_factory.mktemp("begun") / "begun.sqlite"))
    told = Story(prepared(World(Registry(f"sqlite:///{path}"), plan={"use_darks": True})))
    for template in BEGUN:
        told.template(*template)
    told.world.settle()
    told.world.registry.close()
    return path


@settings(RANDOM, max_examples=8)
@given(
    story=st.lists(happenings, min_size=4, max_size=10),
    turns=st.lists(st.sampled_from("--aws"), min_size=10, max_size=10),
    mode=st.sampled_from(("garching", "garching", "paranal")),
    remake=st.sampled_from(("mode", "night", "always", "never")),
)
def test_choice_marks_and_remakes_are_as_the_rules_say(
    make_world: MakeWorld, begun: Path, story: list[Any], turns: list[str], mode: str, remake: str
) -> None:
    told = Story(make_world(origin=begun, plan={"mode": mode, "remake": remake, "use_darks": True}))
    told.came |= dict.fromkeys(BEGUN, 1)
    told.later(1)
    for happening, turn in zip(story, turns, strict=False):
        told.happen(*happening)
        if turn in "aw":
            told.world.advance()
        if turn == "w":
            told.world.work()
        if turn == "s":
            told.world.settle()
    told.world.settle()
    with told.world.registry.read() as session:
        oracle = Oracle(session, told.world.settings)
        check_marks(oracle, always=remake == "always")
        check_identities(list(oracle.steps))
        assert not any(step.state in (StepState.QUEUED, StepState.RUNNING) for step in oracle.steps)
    assert told.world.advance().counts == {}


@settings(RANDOM, max_examples=4)
@given(
    drawn=st.lists(templates, min_size=6, max_size=9, unique=True),
    years=st.lists(st.integers(2014, 2026), max_size=2, unique=True),
    data=st.data(),
)
def test_the_order_of_arrival_does_not_change_what_several_nights_end_in(
    make_world: MakeWorld, drawn: list[Any], years: list[int], data: st.DataObject
) -> None:
    arrivals = [(tag, night, readout, number) for _, tag, night, readout in drawn for number in range(FRAMES[tag])]
    pieces: list[Any] = [*arrivals, *years]
    ends = []
    for order in (pieces, data.draw(st.permutations(pieces))):
        story = Story(prepared(make_world(plan={"remake": "always", "use_darks": True})))
        for piece in order:
            if isinstance(piece, int):
                story.static(piece)
            else:
                tag, night, readout, number = piece
                story.came[tag, night, readout] = 1
                story.arrive(tag, night, readout, number + 1)
            if order is not pieces:
                match data.draw(st.sampled_from("----aws")):
                    case "a":
                        story.world.advance()
                    case "w":
                        story.world.advance()
                        story.world.work()
                    case "s":
                        story.world.settle()
        story.world.settle()
        ends.append(story.world.outcome())
    assert ends[0] == ends[1]
