"""A night against the calibration plan: what is there, what serves instead, and what is still worth taking."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from planned_nights import (
    AO,
    DAY,
    EXTENDED,
    NIGHT,
    NIGHTLY,
    NOAO,
    add_statics,
    calibration,
    checked,
    judged,
    take,
    take_night,
)
from small_night import MORNING, World
from sqlalchemy import select

from archive.models import Group, Product, Step
from archive.night import mjd_of, night_ends
from archive.registry import Registry
from archive.select import NEIGHBOURS
from archive.setup import Setup
from archive.states import Certification, GroupState, Score, StepState
from daemon.verdict import Concern, Verdict
from recipes.muse import ARC_LAMPS
from tasks.calibrationplan import CALIBRATION_PLAN, PLANNED_BY_TAG, PlannedCalibration, needs_by_catg
from tasks.cascade import STEPS, TARGETS, Tag
from tasks.completeness import Standing, check, take_next
from tasks.inventory import Inventory, take_stock

OVER = night_ends(NIGHT) + timedelta(hours=1)


@pytest.fixture
def make_world(tmp_path_factory: pytest.TempPathFactory, sqlite: Path) -> Callable[[], World]:
    """Make a world on a SQLite registry of its own."""
    numbers, folder = count(), tmp_path_factory.mktemp("worlds")
    return lambda: World(Registry(f"sqlite:///{shutil.copy(sqlite, folder / f'{next(numbers)}.sqlite')}"))


@pytest.fixture
def world(make_world: Callable[[], World]) -> World:
    """A world on SQLite."""
    return make_world()


def standings(world: World, night: date = NIGHT) -> dict[str, str]:
    [completeness] = checked(world, [night])
    return {" ".join(filter(None, (item.tag, item.setting.mode))): item.standing for item in completeness.calibrations}


# The plan


@pytest.mark.parametrize("item", CALIBRATION_PLAN, ids=lambda item: item.tag)
def test_a_type_is_taken_for_each_value_of_the_keys_by_which_its_products_are_matched(item: PlannedCalibration) -> None:
    consumers = needs_by_catg(item.serves)
    keys = {frozenset(need.match) for catg in item.catgs for need in consumers.get(catg, ())}
    if item.step is None:
        companions = [companion for target in TARGETS for companion in target.companions]
        keys = {frozenset(companion.match) for companion in companions if companion.tag is item.tag}
    assert keys <= {frozenset(item.keys)}


def test_the_plan_has_what_the_cascade_reduces_or_takes_along() -> None:
    companions = [*(target.companions for target in TARGETS), *(step.companions for step in STEPS)]
    along = {companion.tag for of_one in companions for companion in of_one}
    assert PLANNED_BY_TAG.keys() == {step.raw for step in STEPS} - {Tag.ARC_LSF} | along  # deep arcs are in no plan


def test_numbers_are_those_of_the_calibration_page() -> None:
    numbers = {item.tag: item.number for item in CALIBRATION_PLAN}
    assert numbers == {
        Tag.BIAS: 11, Tag.DARK: 5, Tag.FLAT: 11, Tag.ARC: 15, Tag.SKYFLAT: 3, Tag.STD: 1, Tag.ASTROMETRY: 1,
        Tag.MASK: 80, Tag.ILLUM: 1,
    }  # fmt: skip


# A whole night


def test_a_night_that_has_everything_passes(registry: Registry) -> None:
    world = World(registry)
    add_statics(world)
    take_night(world)
    world.settle()
    assert set(standings(world).values()) == {Standing.OK}
    assert judged(world).verdict is Verdict.PASS
    assert take_next(checked(world)) == ()


def test_what_is_not_taken_is_missing_and_may_be_taken_as_long_as_the_night_lasts(
    make_world: Callable[[], World],
) -> None:
    for tag in (Tag.SKYFLAT, Tag.FLAT, Tag.STD):
        world = make_world()
        add_statics(world)
        take_night(world, without=[tag])
        world.settle()
        found = calibration(world, tag)
        assert found.standing is Standing.MISSING
        if PLANNED_BY_TAG[tag].phase == "day":
            assert found.take
            assert found.take.before == night_ends(NIGHT) == datetime(2026, 6, 17, 21, tzinfo=UTC)
        assert judged(world).verdict is Verdict.WARN


def test_what_to_take_is_a_sentence_with_number_setting_template_and_time(world: World) -> None:
    take(world, Tag.OBJECT)
    world.now = MORNING
    [bias] = [take for take in take_next(checked(world)) if take.tag is Tag.BIAS]
    assert str(bias) == (
        "Take 11 BIAS in SCI1.0 (MUSE_cal_bias) before 2026-06-17 21:00 UT, for the night of 2026-06-16."
    )
    [arc] = [take for take in take_next(checked(world)) if take.tag is Tag.ARC]
    assert "15 ARC (5 each of Ne, Xe, HgCd) in WFM-NOAO-N SCI1.0 (MUSE_wfm_cal_wave)" in str(arc)


def test_on_the_sky_nothing_can_be_taken_once_the_sun_is_up(world: World) -> None:
    take(world, Tag.OBJECT)
    world.now = datetime(2026, 6, 17, 11, 0, tzinfo=UTC)
    assert calibration(world, Tag.STD).take
    world.now = datetime(2026, 6, 17, 12, 0, tzinfo=UTC)
    std = calibration(world, Tag.STD)
    assert (std.standing, std.level) == (Standing.MISSING, None)
    assert std.take
    assert std.take.nights == ((NIGHT, 0),)  # tomorrow's is within a day
    assert std.take.before < datetime(2026, 6, 18, 6, 0, tzinfo=UTC)


# There, but not as it should be


def test_biases_that_are_still_arriving_are_pending_and_then_too_few(world: World) -> None:
    take(world, Tag.BIAS, numbers=range(1, 8))
    world.settle()
    pending = calibration(world, Tag.BIAS)
    assert (pending.standing, pending.found, pending.take) == (Standing.PENDING, 7, None)
    world.now += timedelta(hours=2)
    world.settle()
    few = calibration(world, Tag.BIAS)
    assert (few.standing, few.found, few.number) == (Standing.NOK, 7, 11)
    assert few.reason == "G1 has 7 of 11 BIAS. MASTER_BIAS of step 1 (provisional) was made of them."
    assert few.take


def test_an_arc_lamp_that_is_missing_is_named(world: World) -> None:
    take(world, Tag.OBJECT)
    take(world, Tag.ARC, numbers=range(1, 11))
    world.now += timedelta(hours=2)
    world.settle()
    arcs = calibration(world, Tag.ARC)
    assert (arcs.standing, arcs.found) == (Standing.NOK, 10)
    assert "G1 has 10 of 15 ARC; 5 HgCd lacking" in arcs.reason
    assert arcs.take
    assert arcs.take.lamps == ARC_LAMPS


def test_fifteen_arcs_of_two_lamps_are_not_enough(world: World) -> None:
    take(world, Tag.OBJECT)
    take(world, Tag.ARC, numbers=range(1, 11))
    take(world, Tag.ARC, numbers=range(6, 11), later=timedelta(minutes=30))
    world.now += timedelta(hours=2)
    world.settle()
    assert calibration(world, Tag.ARC).standing is Standing.NOK


def test_a_step_that_waits_is_pending_and_says_for_what(world: World) -> None:
    take(world, Tag.OBJECT)
    take(world, Tag.FLAT)
    world.settle()
    flat = calibration(world, Tag.FLAT)
    assert flat.standing is Standing.PENDING
    assert "MASTER_BIAS with readout SCI1.0" in flat.reason


def test_a_step_that_failed_by_its_data_asks_for_new_frames_and_one_that_failed_otherwise_for_a_requeue(
    world: World,
) -> None:
    take(world, Tag.BIAS)
    world.advance()
    world.work(fail=True)
    failed = calibration(world, Tag.BIAS)
    assert (failed.standing, failed.reason, failed.remedy) == (
        Standing.NOK, "S1 bias failed: The lamp was off.", "",
    )  # fmt: skip
    assert failed.take
    assert judged(world).verdict is Verdict.FAIL
    with world.registry.begin() as session:
        session.scalars(select(Step)).one().error_kind = "world"
    failed = calibration(world, Tag.BIAS)
    assert (failed.take, failed.remedy) == (None, "musecal requeue S1")


def test_a_failed_step_weighs_less_once_another_group_came_out_well(world: World) -> None:
    add_statics(world)
    world.settle()
    take_night(world)
    world.advance()
    world.work(fail=True)
    assert judged(world).verdict is Verdict.FAIL
    for tag in NIGHTLY:
        if tag is not Tag.OBJECT:
            take(world, tag, later=timedelta(seconds=30))
    world.settle()
    assert set(standings(world).values()) == {Standing.OK}
    found = judged(world)
    assert found.verdict is Verdict.WARN
    assert {reason.concern for reason in found.reasons} == {Concern.STEPS}


def test_a_held_step_is_nok_until_it_is_released(world: World) -> None:
    take(world, Tag.BIAS)
    world.advance()
    with world.registry.begin() as session:
        session.scalars(select(Step)).one().state = StepState.HELD
    held = calibration(world, Tag.BIAS)
    assert (held.standing, held.take, held.remedy) == (Standing.NOK, None, "musecal release S1")


def test_red_fails_rejected_is_missed_yellow_warns_and_certified_is_well(world: World) -> None:
    add_statics(world)
    take_night(world)
    world.settle()
    name = calibration(world, Tag.FLAT).serves[0]

    def judge(score: Score, certification: Certification) -> tuple[Standing, Verdict]:
        with world.registry.begin() as session:
            product = session.scalars(select(Product).where(Product.name == name)).one()
            product.score, product.certification = score, certification
        return calibration(world, Tag.FLAT).standing, judged(world).verdict

    assert judge(Score.YELLOW, Certification.PROVISIONAL) == (Standing.OK, Verdict.WARN)
    assert judged(world).score is Score.YELLOW
    assert judge(Score.YELLOW, Certification.CERTIFIED) == (Standing.OK, Verdict.PASS)
    assert judge(Score.RED, Certification.PROVISIONAL) == (Standing.NOK, Verdict.FAIL)
    assert judge(Score.RED, Certification.CERTIFIED) == (Standing.OK, Verdict.PASS)
    assert judge(Score.GREEN, Certification.REJECTED) == (Standing.NOK, Verdict.WARN)
    world.now = OVER
    assert judged(world).verdict is Verdict.FAIL  # nothing else serves, and nothing of this night can be taken again


def test_a_remake_that_is_red_leaves_the_night_to_the_make_before_and_asks_for_a_verdict(world: World) -> None:
    take(world, Tag.BIAS)
    world.settle()
    world.arrive(Tag.BIAS, MORNING, 3, 11, version=2, cards={"ESO INS OPTI2 NAME": "WFM"})
    world.settle()
    with world.registry.begin() as session:
        [_, remade] = session.scalars(select(Product).order_by(Product.id)).all()
        remade.score = Score.RED
    bias = calibration(world, Tag.BIAS)
    assert (bias.standing, bias.sources) == (Standing.OK, ("G1", "P1"))
    assert next((reason.verdict, reason.concern) for reason in judged(world).reasons) == (Verdict.FAIL, Concern.SCORES)


# What serves instead


def test_a_bias_of_the_night_before_serves_and_the_plan_is_still_not_fulfilled(world: World) -> None:
    take(world, Tag.BIAS, NIGHT - DAY)
    take_night(world, without=[Tag.BIAS])
    world.settle()
    world.now = OVER
    bias = calibration(world, Tag.BIAS)
    assert (bias.standing, bias.level, bias.serves) == (Standing.MISSING, 0, ("MASTER_BIAS of step 1",))
    assert not bias.lacking
    assert bias.take is None  # what can be taken from now on is not nearer
    told = [reason for reason in judged(world).reasons if reason.sentence.startswith("BIAS")]
    assert [reason.verdict for reason in told] == [Verdict.WARN]
    assert told[0].sentence.endswith("MASTER_BIAS of step 1 serves at level 0.")


@pytest.mark.parametrize(
    ("days", "level"), [(0.5, 0), (1.5, 1), (3.5, None)], ids=["within a day", "within three days", "too late"]
)
def test_a_bias_is_worth_taking_after_its_night_as_long_as_the_exposures_can_use_it(
    world: World, days: float, level: int | None
) -> None:
    take(world, Tag.OBJECT)
    world.now = night_ends(NIGHT) - 0.5 * DAY + days * DAY
    bias = calibration(world, Tag.BIAS)
    assert (bias.standing, bias.lacking) == (Standing.MISSING, True)
    assert (bias.take and bias.take.nights) == (None if level is None else ((NIGHT, level),))


def test_a_bias_in_progress_is_waited_for_before_another_one_is_asked_for(world: World) -> None:
    take(world, Tag.OBJECT)
    take(world, Tag.BIAS, NIGHT + DAY, numbers=range(1, 8))
    world.now = MORNING + DAY
    missing, coming = (calibration(world, Tag.BIAS, night) for night in (NIGHT, NIGHT + DAY))
    assert (missing.standing, missing.serves, missing.take) == (Standing.MISSING, ("G1 in progress",), None)
    assert coming.standing is Standing.PENDING


def test_nights_that_lack_the_same_are_one_line_of_what_to_take(world: World) -> None:
    nights = [NIGHT - 2 * DAY, NIGHT - DAY, NIGHT]
    for night in nights:
        take(world, Tag.OBJECT, night)
    world.now = MORNING
    [bias] = [take for take in take_next(checked(world, nights)) if take.tag is Tag.BIAS]
    assert bias.nights == ((NIGHT - 2 * DAY, 1), (NIGHT - DAY, 1), (NIGHT, 0))
    assert bias.before == min(night_ends(NIGHT), bias.before)
    assert "nights of 2026-06-14 at level 1, 2026-06-15 at level 1, 2026-06-16." in str(bias)


def test_a_night_stands_alike_alone_and_among_others(mixed: World) -> None:
    nights = [NIGHT - back * DAY for back in range(4, -3, -1)]
    for night, together in zip(nights, checked(mixed, nights), strict=True):
        [alone] = checked(mixed, [night])
        last = night == nights[-1]
        for one, other in zip(alone.calibrations, together.calibrations, strict=True):
            assert one == other or (not last and replace(one, take=None) == replace(other, take=None))


# Settings


def test_two_modes_share_biases_and_illumination_and_nothing_else(world: World) -> None:
    add_statics(world)
    take_night(world, modes=[NOAO, AO])
    world.settle()
    found = standings(world)
    assert [key for key in found if key.startswith("FLAT")] == [f"FLAT {AO}", f"FLAT {NOAO}"]
    assert [key for key in found if key.startswith(("BIAS", "ILLUM"))] == ["BIAS", "ILLUM"]
    assert set(found.values()) == {Standing.OK}


def test_a_standard_in_another_mode_is_none_for_this_one(world: World) -> None:
    take(world, Tag.OBJECT, mode=EXTENDED)
    take(world, Tag.STD, mode=NOAO)
    found = standings(world)
    assert found[f"STD {EXTENDED}"] == Standing.MISSING
    assert found[f"STD {NOAO}"] == Standing.PENDING
    assert not calibration(world, Tag.STD, mode=NOAO).wanted
    # The star itself is to be calibrated too.
    assert {key for key, value in found.items() if key.startswith("FLAT") and value == Standing.MISSING} == {
        f"FLAT {NOAO}", f"FLAT {EXTENDED}",
    }  # fmt: skip


def test_another_readout_needs_biases_of_its_own(world: World) -> None:
    take(world, Tag.BIAS)
    take(world, Tag.OBJECT, readout="FAST")
    [completeness] = checked(world)
    assert [
        (item.setting.readout, item.standing, item.wanted) for item in completeness.calibrations if item.tag is Tag.BIAS
    ] == [("FAST", Standing.MISSING, True), ("SCI1.0", Standing.PENDING, False)]


# Validity of more than a night


@pytest.mark.parametrize("away", [-1, 1], ids=["evening before", "evening after"])
def test_a_twilight_of_a_neighbouring_night_fulfils_the_plan(world: World, away: int) -> None:
    add_statics(world)
    take_night(world, NIGHT + away * DAY)
    take_night(world, without=[Tag.SKYFLAT])
    world.settle()
    twilight = calibration(world, Tag.SKYFLAT)
    assert (twilight.standing, twilight.found) == (Standing.OK, 4)


def test_a_twilight_two_nights_away_serves_but_does_not_fulfil_it(world: World) -> None:
    add_statics(world)
    take_night(world, NIGHT - 2 * DAY)
    take_night(world, without=[Tag.SKYFLAT])
    world.settle()
    twilight = calibration(world, Tag.SKYFLAT)
    assert (twilight.standing, twilight.level, twilight.lacking) == (Standing.NOK, 1, False)
    assert "that of 2026-06-14, 2 nights before; the plan has one within 1." in twilight.reason


@pytest.mark.parametrize(
    ("nights", "standing", "due"),
    [(29, Standing.OK, False), (30, Standing.OK, True), (62, Standing.OK, True), (63, Standing.NOK, True)],
)
def test_darks_are_due_after_a_month_and_out_of_validity_after_two(
    world: World,
    nights: int,
    standing: Standing,
    due: bool,  # noqa: FBT001 - a column of the table
) -> None:
    take(world, Tag.BIAS, NIGHT - nights * DAY)
    take(world, Tag.DARK, NIGHT - nights * DAY)
    world.settle()
    dark = calibration(world, Tag.DARK)
    assert (dark.standing, dark.take is not None) == (standing, due)


def test_darks_that_were_never_taken_are_asked_for_once(world: World) -> None:
    nights = [NIGHT - back * DAY for back in range(6, -1, -1)]
    world.now = MORNING
    darks = [take for take in take_next(checked(world, nights)) if take.tag is Tag.DARK]
    assert [dark.nights for dark in darks] == [((NIGHT, 0),)]


def test_geometry_from_outside_is_as_good_as_frames_until_it_is_too_old(world: World) -> None:
    world.static("GEOMETRY_TABLE", NIGHT - 59 * DAY)
    assert calibration(world, Tag.MASK).standing is Standing.OK
    later = calibration(world, Tag.MASK, NIGHT + 2 * DAY)
    assert (later.standing, "the plan has one within 60" in later.reason) == (Standing.NOK, True)


# Nights of other kinds


def test_a_night_with_nothing_in_it_lacks_its_biases_and_the_monthly_types_alone(world: World) -> None:
    found = standings(world)
    assert found == dict.fromkeys(("BIAS", "DARK", "ASTROMETRY", "MASK"), Standing.MISSING)
    world.now = OVER
    assert judged(world).verdict is Verdict.WARN  # no exposure lacks anything
    assert calibration(world, Tag.BIAS).take is None


def test_a_night_with_technical_frames_only_asks_for_no_flats(world: World) -> None:
    add_statics(world)
    take(world, Tag.BIAS)
    take(world, Tag.DARK)
    world.settle()
    assert set(standings(world)) == {"BIAS", "DARK", "ASTROMETRY", "MASK"}
    assert judged(world).verdict is Verdict.PASS


def test_flats_without_science_are_told_and_not_asked_for(world: World) -> None:
    take(world, Tag.FLAT, numbers=range(1, 4))
    world.now = OVER + DAY
    world.advance()
    flat = calibration(world, Tag.FLAT)
    assert (flat.wanted, flat.standing, flat.found, flat.take) == (False, Standing.NOK, 3, None)


def test_frames_that_came_again_count_once(world: World) -> None:
    take(world, Tag.BIAS)
    take(world, Tag.BIAS, numbers=[3, 4], version=2)
    world.settle()
    bias = calibration(world, Tag.BIAS)
    assert (bias.standing, bias.found) == (Standing.OK, 11)


def test_an_archive_taken_in_counts_by_its_products(world: World) -> None:
    take(world, Tag.BIAS)
    take(world, Tag.OBJECT)
    with world.registry.begin() as session:
        session.scalars(select(Group)).one().state = GroupState.ARCHIVED
    raw = calibration(world, Tag.BIAS)
    assert (raw.standing, raw.found, raw.take) == (Standing.NOK, 11, None)
    world.products(["MASTER_BIAS"], [MORNING], Setup(readout="SCI1.0"))
    with world.registry.begin() as session:
        session.scalars(select(Product)).one().night = NIGHT
    bias = calibration(world, Tag.BIAS)
    assert (bias.standing, bias.found, bias.level) == (Standing.OK, 11, 0)
    assert bias.reason.startswith("From outside: MASTER_BIAS at 2026-06-17 10:40")


def test_half_of_what_a_step_makes_is_not_the_whole_from_outside(world: World) -> None:
    take(world, Tag.OBJECT)
    world.products(["MASTER_FLAT"], [MORNING], Setup(mode=NOAO, readout="SCI1.0"))
    with world.registry.begin() as session:
        session.scalars(select(Product)).one().night = NIGHT
    flat = calibration(world, Tag.FLAT)
    assert (flat.standing, flat.lacking) == (Standing.NOK, True)
    assert "TRACE_TABLE did not come" in flat.reason


# Order, and size


@pytest.fixture
def mixed(make_world: Callable[[], World]) -> World:
    """Two nights of two modes with something of everything: done, failed, held, pending, from outside, too few."""
    world = make_world()
    add_statics(world)
    take_night(world, NIGHT - DAY, modes=[NOAO, AO])
    world.settle()
    take_night(world, without=[Tag.ARC])
    take(world, Tag.ARC, numbers=range(1, 11))
    take(world, Tag.FLAT, mode=EXTENDED)
    world.advance()
    world.work(fail=True)
    take(world, Tag.BIAS, later=timedelta(seconds=30))
    world.products(["MASTER_FLAT", "TRACE_TABLE"], [MORNING - DAY, MORNING], Setup(mode=NOAO, readout="SCI1.0"))
    world.now = MORNING + timedelta(hours=6)
    return world


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=(Phase.explicit, Phase.generate),
)  # fmt: skip
@given(data=st.data())
def test_the_order_of_rows_does_not_matter(mixed: World, data: st.DataObject) -> None:
    nights = [NIGHT - DAY, NIGHT]
    with mixed.registry.read() as session:
        stock = take_stock(session, *nights, level=1)
    shuffled = Inventory(
        exposures=tuple(data.draw(st.permutations(stock.exposures))),
        groups=tuple(data.draw(st.permutations(stock.groups))),
        outside=tuple(data.draw(st.permutations(stock.outside))),
        candidates={catg: data.draw(st.permutations(found)) for catg, found in stock.candidates.items()},
    )
    assert check(shuffled, nights, mixed.now, level=1) == check(stock, nights, mixed.now, level=1)


def test_the_order_of_arrival_does_not_matter(make_world: Callable[[], World]) -> None:
    pieces = list(NIGHTLY)
    ends = []
    for order in (pieces, pieces[::-1], pieces[1::2] + pieces[::2]):
        world = make_world()
        add_statics(world)
        for number, piece in enumerate(order):
            take(world, piece)
            if number % 4 == 0:
                world.advance()
        world.now = OVER
        world.settle()
        world.now = OVER
        [night] = checked(world)
        ends.append(
            [
                (item.tag, item.setting, item.standing, item.found, item.level, item.lacking, item.take)
                for item in night.calibrations
            ]
        )
    assert ends == [ends[0]] * 3


def test_what_is_read_is_that_of_the_nights_and_not_of_the_registry(make_world: Callable[[], World]) -> None:
    world = make_world()
    add_statics(world)
    take_night(world)
    world.settle()

    def read() -> tuple[int, int, int]:
        with world.registry.read() as session:
            stock = take_stock(session, NIGHT - 6 * DAY, NIGHT, level=1)
        return len(stock.groups), len(stock.outside), sum(map(len, stock.candidates.values()))

    groups, outside, candidates = read()
    _add_years(world)
    later = read()
    assert later[:2] == (groups, outside)
    assert later[2] <= candidates + NEIGHBOURS


def _add_years(world: World) -> None:
    """Add groups and products of a thousand nights before."""
    nights = [NIGHT - back * DAY for back in range(20, 1020)]
    with world.registry.begin() as session:
        for night in nights:
            time = datetime(night.year, night.month, night.day, 12, tzinfo=UTC)
            session.add(
                Group(
                    tag="BIAS", key=f"{night}", night=night, mjd=mjd_of(time), expected=11, last_arrival=time,
                    closes=time, state=GroupState.COMPLETE,
                )
            )  # fmt: skip
    world.products(
        ["MASTER_BIAS"], [datetime(night.year, night.month, night.day, 12, tzinfo=UTC) for night in nights],
        Setup(readout="SCI1.0"),
    )  # fmt: skip
