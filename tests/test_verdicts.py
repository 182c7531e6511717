"""Scores in the registry: whatever comes in whatever order, the same products end with the same scores."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import count
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rows import add_frame, add_step
from small_night import MORNING, World
from sqlalchemy import select
from test_parts import Clock, part_of

from archive.history import history
from archive.models import Frame, Measurement, Product, Step
from archive.registry import Registry
from archive.states import Certification, Judge, Score
from archive.store import Store
from recipes.muse import Detector
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence as Template
from tasks import orders
from tasks.cascade import Tag
from tasks.changes import NAMES
from tasks.failures import FINISH
from tasks.parts import run_part
from tasks.score import Measured
from tasks.settings import Settings
from tasks.site import Site
from tasks.verdicts import Scoring, appraise, score_anew

DAY = timedelta(days=1)
LEVELS = (1200.0, 1201.0, 1199.0, 1202.0, 1216.0, 1217.0, 1260.0, 1200.0)  # adu, of one day after the other
THRESHOLDS = """\
edition = "tests"

[measured_on]
TRACE_TABLE = "MASTER_FLAT"

[[threshold]]
category = "MASTER_BIAS"
parameter = "BIAS LEVELn MEDIAN"
kind = "fixed"
valid_from = 2014-01-01
limits = [{ yellow = [1100, 1300], red = [1000, 1400] }]

[[threshold]]
category = "MASTER_BIAS"
parameter = "BIAS LEVELn MEDIAN"
kind = "relative"
deviation = "absolute"
days = 5.5
least = 2
valid_from = 2014-01-01
limits = [{ yellow = [-10, 10], red = [-40, 40] }]

[[threshold]]
category = "MASTER_FLAT"
parameter = "FLAT MASTER MEDIAN"
kind = "fixed"
valid_from = 2014-01-01
limits = [{ yellow = [20000, 30000], red = [10000, 40000] }]

[[threshold]]
category = "MASTER_BIAS"
kind = "previous"
sigma = 5
valid_from = 2014-01-01
limits = [{ yellow = [0, 0.01], red = [0, 0.9] }]
"""
MakeWorld = Callable[..., World]


@pytest.fixture(scope="session")
def thresholds(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of thresholds with one of each kind."""
    path = tmp_path_factory.mktemp("thresholds") / "thresholds.toml"
    path.write_text(THRESHOLDS)
    return str(path)


@pytest.fixture
def make_world(tmp_path_factory: pytest.TempPathFactory, sqlite: Path, thresholds: str) -> MakeWorld:
    """Make a world on a SQLite registry of its own, whose biases measure the level of their day."""
    numbers = count()

    def make(levels: Sequence[float] = LEVELS, certify: str = "green") -> World:
        path = tmp_path_factory.mktemp("world") / f"{next(numbers)}.sqlite"
        path.write_bytes(sqlite.read_bytes())
        world = World(Registry(f"sqlite:///{path}"), scoring={"thresholds": thresholds, "certify": certify})

        def measured(catg: str, step: Step) -> Sequence[Measured]:
            if catg == "MASTER_FLAT":
                return [Measured(1, "FLAT MASTER MEDIAN", 25000.0)]
            if catg != "MASTER_BIAS":
                return []
            level = levels[(step.group.night - (MORNING - DAY).date()).days]
            return [Measured(channel, f"BIAS LEVEL{n} MEDIAN", level) for channel in (1, 12) for n in (1, 2)]

        world.measured = measured
        return world

    return make


def bias_of(world: World, day: int, of: int = 3) -> None:
    """Let the bias of a day come, and be reduced."""
    world.template(Tag.BIAS, MORNING + day * DAY, of)
    world.settle()


def rows(world: World, catg: str = "MASTER_BIAS") -> list[Product]:
    with world.registry.read() as session:
        return list(session.scalars(select(Product).where(Product.catg == catg).order_by(Product.mjd, Product.id)))


def scores(world: World, catg: str = "MASTER_BIAS") -> list[tuple[date, str, str, str, Certification, str]]:
    return [
        (row.night, row.score, row.score_reason, row.thresholds, row.certification, row.judge)
        for row in rows(world, catg)
    ]


def test_green_certifies_itself_and_the_step_after_it_knows(make_world: MakeWorld) -> None:
    world = make_world()
    bias_of(world, 0)
    world.template(Tag.FLAT, MORNING + timedelta(hours=1))
    world.settle()
    [bias] = rows(world)
    assert (bias.score, bias.certification, bias.judge) == (Score.GREEN, Certification.CERTIFIED, Judge.SCORE)
    assert (bias.score_reason, bias.thresholds[:6]) == ("", "tests ")
    [use] = [use for use in world.steps("flat")[0].uses if use.tag == "MASTER_BIAS"]
    assert use.certification == "certified"


def test_red_feeds_nobody_until_a_person_says_so(make_world: MakeWorld) -> None:
    world = make_world([1500.0])
    bias_of(world, 0)
    world.template(Tag.FLAT, MORNING + timedelta(hours=1))
    world.settle()
    [bias] = rows(world)
    assert (bias.score, bias.certification, bias.judge) == (Score.RED, Certification.PROVISIONAL, Judge.NOBODY)
    assert bias.score_reason.startswith(
        "BIAS LEVEL1 MEDIAN of channel 1 is 1500, above the red limit of 1400 (threshold since 2014-01-01). BIAS LEVEL2"
    )
    assert bias.score_reason.endswith(" 1 more values are not green, 1 of them red.")
    assert world.used(world.steps("flat")[0], "MASTER_BIAS") is None
    world.judge(bias.name, Certification.CERTIFIED)
    world.settle()
    assert world.used(world.steps("flat")[0], "MASTER_BIAS") == bias.name


def test_a_person_may_be_asked_for(make_world: MakeWorld) -> None:
    world = make_world(certify="person")
    bias_of(world, 0)
    [bias] = rows(world)
    assert (bias.score, bias.certification) == (Score.GREEN, Certification.PROVISIONAL)


def test_what_has_no_parameters_is_scored_with_what_it_was_made_with(make_world: MakeWorld) -> None:
    world = make_world()
    bias_of(world, 0)
    world.template(Tag.FLAT, MORNING + timedelta(hours=1))
    world.settle()
    [(_, score, _, _, certification, _)] = scores(world, "TRACE_TABLE")
    assert (score, certification) == (Score.GREEN, Certification.CERTIFIED)


def test_what_no_threshold_is_for_stays_provisional(make_world: MakeWorld) -> None:
    world = make_world()
    bias_of(world, 0)
    world.template(Tag.DARK, MORNING + timedelta(hours=4))
    world.settle()
    [(_, score, _, thresholds, certification, _)] = scores(world, "MASTER_DARK")
    assert (score, thresholds, certification) == (Score.NONE, "", Certification.PROVISIONAL)


DAYS = 6


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)  # fmt: skip
@given(order=st.permutations(range(DAYS)), chosen=st.tuples(*[st.integers(0, DAYS - 1)] * 2), late=st.booleans())
def test_the_order_in_which_products_are_made_makes_no_difference(
    make_world: MakeWorld, order: list[int], chosen: tuple[int, int], *, late: bool
) -> None:
    """One is rejected, and one made a second time of another frame: as soon as it is there, or at the end."""

    def disturb(world: World, day: int) -> None:
        if day == chosen[0]:
            world.judge(rows_of(world, day)[-1].name, Certification.REJECTED)
        if day == chosen[1] != chosen[0]:
            world.arrive(Tag.BIAS, MORNING + day * DAY, 2, version=2)
        world.settle()

    def made(days: Sequence[int], *, at_once: bool) -> list[tuple[date, str, str, str, Certification, str]]:
        world = make_world()
        for day in days:
            bias_of(world, day)
            if at_once:
                disturb(world, day)
        for day in () if at_once else days:
            disturb(world, day)
        newest = {scored[0]: scored for scored in scores(world)}
        assert len(newest) == DAYS
        return list(newest.values())

    assert made(order, at_once=not late) == made(range(DAYS), at_once=True)


def rows_of(world: World, day: int) -> list[Product]:
    return [row for row in rows(world) if row.night == (MORNING + (day - 1) * DAY).date()]


def test_running_medians_look_back_only(make_world: MakeWorld) -> None:
    world = make_world()
    for day in range(len(LEVELS)):
        bias_of(world, day)
    assert [score for _, score, *_ in scores(world)] == ["green"] * 4 + ["yellow", "yellow", "red", "yellow"]


def test_a_late_product_changes_those_after_it_and_the_planner_looks_again(make_world: MakeWorld) -> None:
    world = make_world([1200.0, 1200.0, 1212.0])
    bias_of(world, 2)
    bias_of(world, 0)
    assert [row.certification for row in rows(world)] == [Certification.CERTIFIED] * 2  # one before it is too few
    world.template(Tag.BIAS, MORNING + DAY)
    world.advance()
    world.work()
    first, second, last = rows(world)
    assert (last.score, last.certification, last.judge) == (Score.YELLOW, Certification.PROVISIONAL, Judge.NOBODY)
    assert not last.reviewed
    assert first.reviewed
    with world.registry.read() as session:
        events = [event for event in history(session, last) if event.what == "product scored"]
    assert [event.data["certification"] for event in events] == ["certified", "provisional"]
    assert events[-1].data["because"] == f"{second.name}, which is earlier, is certified."
    world.judge(first.name, Certification.REJECTED)
    assert rows(world)[-1].certification is Certification.CERTIFIED


def test_a_persons_word_is_kept_whatever_the_score(make_world: MakeWorld) -> None:
    world = make_world([1200.0, 1200.0, 1212.0])
    bias_of(world, 2)
    [bias] = rows(world)
    world.judge(bias.name, Certification.CERTIFIED)  # confirms what the score had said
    assert rows(world)[0].judge == Judge.PERSON
    with pytest.raises(orders.OrderRefused, match="what is certified cannot become certified"):
        world.judge(bias.name, Certification.CERTIFIED)
    for day in (0, 1):
        bias_of(world, day)
    kept = rows(world)[-1]
    assert (kept.score, kept.certification, kept.judge) == (Score.YELLOW, Certification.CERTIFIED, Judge.PERSON)


def test_thresholds_that_changed_count_when_it_is_scored_anew(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world()
    bias_of(world, 0)
    stricter = tmp_path / "stricter.toml"
    stricter.write_text(THRESHOLDS.replace("[1100, 1300]", "[1100, 1150]"))
    scoring = Scoring.of(Settings.model_validate({"scoring": {"thresholds": str(stricter)}}))
    [bias] = rows(world)
    with world.registry.read() as session:
        would = appraise(session, session.get_one(Product, bias.id), scoring)
    assert (would.score, would.channels) == (Score.YELLOW, {1: Score.YELLOW, 12: Score.YELLOW})
    assert rows(world)[0].score == Score.GREEN
    with world.registry.begin() as session:
        score_anew(session, session.get_one(Product, bias.id), scoring, now=world.now, why="asked")
    [bias] = rows(world)
    assert (bias.score, bias.certification, bias.thresholds) == (
        Score.YELLOW, Certification.PROVISIONAL, scoring.thresholds.name,
    )  # fmt: skip
    with world.registry.begin() as session:
        row = session.get_one(Product, bias.id)
        assert score_anew(session, row, scoring, now=world.now, why="again").score is Score.YELLOW
        assert [event.what for event in history(session, row)].count("product scored") == 2  # nothing new is no event
        stored = session.scalars(select(Measurement).where(Measurement.product_id == row.id)).all()
    assert {item.score for item in stored} == {"yellow"}
    assert all(f"of channel {item.channel} is 1200, above the yellow limit of 1150" in item.remark for item in stored)


NIGHTS = (date(2026, 6, 16), date(2026, 6, 17), date(2026, 6, 18))


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """Bias frames of tiny detectors, of three nights."""
    tiny = Detector(nx=64, ny=64)
    plans = [
        NightPlan(night=night, channels=(1, 2), sequences=(Template.BIAS,), detector=tiny, seed=number)
        for number, night in enumerate(NIGHTS)
    ]
    return [list(write_night(plan, tmp_path_factory.mktemp("night"))) for plan in plans]


@pytest.fixture
def make_site(tmp_path_factory: pytest.TempPathFactory, sqlite: Path, thresholds: str) -> Callable[[], Site]:
    """Make a site with an empty archive."""

    def make() -> Site:
        folder = tmp_path_factory.mktemp("site")
        (folder / "registry.sqlite").write_bytes(sqlite.read_bytes())
        chosen = Settings.model_validate(
            {
                "archive": {"root": folder / "archive", "least_free_gb": 0.001},
                "registry": {"url": f"sqlite:///{folder}/registry.sqlite"},
                "scoring": {"thresholds": thresholds},
            }
        )
        registry = Registry(chosen.registry.url)
        return Site(settings=chosen, registry=registry, store=Store(folder / "archive"), clock=Clock())

    return make


def reduce(site: Site, paths: list[Path]) -> None:
    """Make the master bias of a night, or make it again."""
    with site.registry.begin() as session:
        known = {frame.path: frame for frame in session.scalars(select(Frame))}
        frames = [known.get(str(path)) or add_frame(session, number, path=path) for number, path in enumerate(paths)]
        step_id = add_step(session, frames).id
    for channel in (1, 2, FINISH):
        run_part(site, part_of(site, step_id, channel).id)


def changes(site: Site) -> list[tuple[str, str | None, dict[tuple[int, str], float | None]]]:
    """Return of each product its night, that of the product before it, and the shares that changed."""
    with site.registry.read() as session:
        products = session.scalars(select(Product).order_by(Product.mjd, Product.id)).all()
        return [
            (
                row.score,
                row.compared.name if row.compared else None,
                {(item.channel, item.name): item.value for item in row.measurements if item.name in NAMES},
            )
            for row in products
        ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (2, 0, 1)])
def test_changes_are_from_the_product_before_in_time(
    make_site: Callable[[], Site], nights: list[list[Path]], order: tuple[int, ...]
) -> None:
    site = make_site()
    for number in order:
        reduce(site, nights[number])
    found = changes(site)
    assert [before for _, before, _ in found] == [None, "MU_MBIA_260617A_slow.fits", "MU_MBIA_260618A_slow.fits"]
    assert found[0][2] == {}
    for _, _, shares in found[1:]:
        assert shares.keys() == {(channel, name) for channel in (1, 2) for name in NAMES}
        assert all(share is not None and 0 <= share < 0.02 for share in shares.values())
    if order != (0, 1, 2):
        straight = make_site()
        for paths in nights:
            reduce(straight, paths)
        assert changes(straight) == found


def test_a_remake_takes_the_place_of_the_make_before(make_site: Callable[[], Site], nights: list[list[Path]]) -> None:
    site = make_site()
    for number in (0, 1, 0):
        reduce(site, nights[number])
    first, again, second = changes(site)
    assert (first[1], again[1], second[1]) == (None, None, "MU_MBIA_260617B_slow.fits")


def test_a_jump_shows_in_the_score_and_is_told(make_site: Callable[[], Site], nights: list[list[Path]]) -> None:
    """The second night's file is exchanged for one of another level before the third is compared with it."""
    site = make_site()
    for paths in nights[:2]:
        reduce(site, paths)
    with site.registry.read() as session:
        second = session.scalars(select(Product).order_by(Product.mjd.desc())).first()
    assert second is not None
    _shift(Path(second.path), channel=2, by=30.0)
    reduce(site, nights[2])
    assert changes(site)[2][0] == "red"
    with site.registry.read() as session:
        marked = session.scalars(select(Measurement).where(Measurement.name == "changed beyond 5 sigma")).all()
        last = max(marked, key=lambda item: item.value or 0)
        assert (last.channel, last.score) == (2, "red")
        assert "of the pixels of channel 2 are more than 5 sigma off the one before" in last.remark


def _shift(path: Path, *, channel: int, by: float) -> None:
    path.chmod(0o644)
    with fits.open(path, mode="update") as units:
        units[f"CHAN{channel:02d}.DATA"].data += by
