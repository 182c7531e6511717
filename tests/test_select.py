"""The choice of a calibration is total, deterministic and explained."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from archive.models import Frame, Product
from archive.registry import Registry
from archive.select import NEIGHBOURS, Candidate, Cause, Choice, Level, candidates, choose
from archive.setup import Setup, SetupKey
from archive.states import Certification

MJD = 61208.5
KEYS = (SetupKey.MODE, SetupKey.READOUT)
LEVELS = (Level(1.5, 0), Level(3, 1), Level(14, 2))
SETUP = Setup(mode="WFM-NOAO-N", readout="SCI1.0")
NOW = datetime(2026, 6, 17, 12, 0, tzinfo=UTC)


def a_candidate(number: int = 1, days: float = 0.25, **changes: object) -> Candidate:
    values = {"product_id": number, "name": f"product {number}", "mjd": MJD + days, "setup": SETUP}
    return Candidate(**{**values, **changes})  # type: ignore[arg-type]  # as the test wants it


def choice(*offered: Candidate, setup: Setup = SETUP, levels: tuple[Level, ...] = LEVELS) -> Choice:
    return choose(offered, setup=setup, mjd=MJD, keys=KEYS, levels=levels)


def chosen(*offered: Candidate) -> int | None:
    best = choice(*offered).best
    return best.candidate.product_id if best else None


class TestOrder:
    def test_the_closest_in_time_wins_before_or_after(self) -> None:
        assert chosen(a_candidate(1, -0.5), a_candidate(2, 0.4), a_candidate(3, 0.6)) == 2

    def test_a_closer_provisional_one_wins_over_a_certified_one_farther_away(self) -> None:
        certified = a_candidate(1, -0.5, certification=Certification.CERTIFIED)
        assert chosen(certified, a_candidate(2, 0.4)) == 2

    def test_of_equally_close_ones_the_certified_wins(self) -> None:
        assert chosen(a_candidate(1, -0.5), a_candidate(2, 0.5, certification=Certification.CERTIFIED)) == 2

    def test_of_equally_close_ones_the_earlier_wins(self) -> None:
        assert chosen(a_candidate(1, 0.5), a_candidate(2, -0.5)) == 2

    def test_of_two_makes_of_the_same_frames_the_later_wins(self) -> None:
        assert chosen(a_candidate(2, made=1.0), a_candidate(1, made=2.0)) == 1

    def test_one_that_stands_wins_over_one_still_to_be_made(self) -> None:
        assert chosen(a_candidate(1, product_id=None), a_candidate(2)) == 2

    def test_one_still_to_be_made_wins_if_it_will_be_closer(self) -> None:
        best = choice(a_candidate(1, 0.1, product_id=None), a_candidate(2)).best
        assert best is not None
        assert best.candidate.product_id is None


class TestLevels:
    @pytest.mark.parametrize(("days", "level"), [(0, 0), (1.25, 0), (-1.25, 0), (1.5, 1), (-2.5, 1), (3, 2), (13.5, 2)])
    def test_the_level_is_the_first_window_that_holds_the_distance(self, days: float, level: int) -> None:
        best = choice(a_candidate(1, days)).best
        assert best is not None
        assert (best.level, best.days) == (level, days)

    @pytest.mark.parametrize("days", [14, -14, 15, math.inf, math.nan])
    def test_beyond_the_last_window_nothing_is_associated(self, days: float) -> None:
        assert choice(a_candidate(1, days)).best is None

    def test_without_levels_nothing_is_associated(self) -> None:
        assert choice(a_candidate(), levels=()).best is None

    def test_a_window_without_end_takes_every_distance(self) -> None:
        best = choice(a_candidate(1, -4000), levels=(Level(14, 0), Level(math.inf, 3))).best
        assert best is not None
        assert best.level == 3

    def test_a_static_calibration_is_valid_from_its_day_on(self) -> None:
        forever = (Level(math.inf, 0),)
        old, new, later = (a_candidate(n, days, static=True) for n, days in [(1, -4000), (2, -900), (3, 10)])
        found = choice(old, new, later, levels=forever)
        assert found.best is not None
        assert found.best.candidate == new
        assert {refusal.candidate: refusal.cause for refusal in found.refusals} == {
            old: Cause.SECOND,
            later: Cause.FUTURE,
        }


class TestReasons:
    def test_another_setup_names_the_key_and_both_values(self) -> None:
        other = a_candidate(1, setup=Setup(mode="WFM-AO-N", readout="SCI1.0"))
        (refusal,) = choice(other).refusals
        assert refusal.cause is Cause.SETUP
        assert refusal.differences == {"mode": ("WFM-NOAO-N", "WFM-AO-N")}
        assert refusal.reason == "product 1 has mode WFM-AO-N where WFM-NOAO-N is needed."

    def test_a_distance_names_the_days_and_the_limit(self) -> None:
        (refusal,) = choice(a_candidate(1, -20.5)).refusals
        assert refusal.cause is Cause.WINDOW
        assert refusal.reason == "product 1 is 20.50 d before the exposure, the limit is 14 d."

    def test_a_rejected_one_is_told_as_such_even_if_it_is_far_and_different(self) -> None:
        rejected = a_candidate(1, 99, certification=Certification.REJECTED, setup=Setup())
        (refusal,) = choice(rejected).refusals
        assert (refusal.cause, refusal.differences) == (Cause.REJECTED, {})

    @pytest.mark.parametrize(
        ("second", "words"),
        [
            (a_candidate(2, 1.75), "is farther in time"),
            (a_candidate(2, 0.5), "is farther in time"),
            (a_candidate(2, 0.25), "is not certified"),
            (a_candidate(2, 0.25, certification=Certification.CERTIFIED, made=-1), "was made earlier"),
            (a_candidate(2, 0.25, certification=Certification.CERTIFIED), "has the higher number"),
        ],
    )
    def test_a_second_is_told_what_it_is_second_in(self, second: Candidate, words: str) -> None:
        (refusal,) = choice(a_candidate(certification=Certification.CERTIFIED), second).refusals
        assert refusal.cause is Cause.SECOND
        assert f"could be used, but {words}: product 1 (0.25 d after the exposure) is taken." in refusal.reason

    def test_what_differs_without_being_matched_is_told_of_the_best(self) -> None:
        best = choice(a_candidate(setup=Setup(mode="WFM-NOAO-N", readout="SCI1.0", filter="Blue"))).best
        assert best is not None
        assert best.differences == {"filter": ("", "Blue")}


offered_candidates = st.lists(
    st.builds(
        Candidate,
        product_id=st.integers(1, 10_000),
        name=st.just("product"),
        mjd=st.one_of(st.floats(MJD - 20, MJD + 20), st.sampled_from([MJD - 1.0, MJD + 1.0, math.nan, math.inf])),
        setup=st.builds(
            Setup, mode=st.sampled_from(["WFM-NOAO-N", "WFM-AO-N"]), readout=st.sampled_from(["SCI1.0", ""])
        ),
        certification=st.sampled_from(Certification),
        static=st.booleans(),
        made=st.sampled_from([1.0, 2.0]),
    ),
    max_size=12,
    unique_by=lambda candidate: candidate.product_id,
)


def oracle(offered: list[Candidate], levels: tuple[Level, ...]) -> Candidate | None:
    """The rule said once more, candidate against candidate."""
    usable = [
        candidate
        for candidate in offered
        if candidate.certification != Certification.REJECTED
        and (candidate.setup.mode, candidate.setup.readout) == (SETUP.mode, SETUP.readout)
        and (
            -math.inf < candidate.mjd <= MJD
            if candidate.static
            else any(abs(candidate.mjd - MJD) < level.days for level in levels)
        )
    ]
    for best in usable:
        if not any(better(other, best) for other in usable):
            return best
    return None


def better(one: Candidate, other: Candidate) -> bool:
    if abs(one.mjd - MJD) != abs(other.mjd - MJD):
        return abs(one.mjd - MJD) < abs(other.mjd - MJD)
    if one.certification != other.certification:
        return one.certification == Certification.CERTIFIED
    if one.mjd != other.mjd:
        return one.mjd < other.mjd
    if one.made != other.made:
        return one.made > other.made
    return (one.product_id or 0) < (other.product_id or 0)


class TestAnyCandidates:
    @given(offered_candidates)
    def test_the_choice_is_that_of_the_rule(self, offered: list[Candidate]) -> None:
        best = choice(*offered).best
        assert (best.candidate if best else None) == oracle(offered, LEVELS)

    @given(st.data(), offered_candidates)
    def test_the_order_of_the_candidates_says_nothing(self, data: st.DataObject, offered: list[Candidate]) -> None:
        shuffled = data.draw(st.permutations(offered))
        one, other = choice(*offered), choice(*shuffled)
        assert repr(one) == repr(other)  # NaN is not equal to itself, but is written the same

    @given(offered_candidates)
    def test_every_candidate_is_chosen_or_refused_with_a_reason(self, offered: list[Candidate]) -> None:
        found = choice(*offered)
        told = [refusal.candidate.product_id for refusal in found.refusals]
        told += [found.best.candidate.product_id] if found.best else []
        assert sorted(map(str, told)) == sorted(str(candidate.product_id) for candidate in offered)
        assert all(refusal.reason.endswith(".") for refusal in found.refusals)

    @given(offered_candidates)
    def test_taking_away_one_that_was_refused_changes_nothing(self, offered: list[Candidate]) -> None:
        found = choice(*offered)
        for refusal in found.refusals:
            rest = [candidate for candidate in offered if candidate.product_id != refusal.candidate.product_id]
            assert choice(*rest).best == found.best

    @given(offered_candidates)
    def test_the_same_candidates_twice_are_the_same_choice(self, offered: list[Candidate]) -> None:
        assert choice(*offered, *offered).best == choice(*offered).best


CERTIFIED, PROVISIONAL = Certification.CERTIFIED, Certification.PROVISIONAL


def beside_statics(*offered: Candidate, response: int | None = None, mjd: float = MJD, mode: str = "") -> Choice:
    setup = replace(SETUP, mode=mode or SETUP.mode)
    return choose(offered, setup=setup, mjd=mjd, keys=KEYS, levels=LEVELS, beside_statics=True, response=response)


class TestStaticsBesideProducts:
    """LSF_PROFILE, STD_RESPONSE and so on come as static calibrations and from frames."""

    @pytest.mark.parametrize(
        ("days", "certification", "taken"),
        [
            (-5.0, CERTIFIED, "made"),  # closer than the day from which the static one is valid, within the levels
            (5.0, CERTIFIED, "made"),
            (-5.0, PROVISIONAL, "static"),  # not certified
            (-14.5, CERTIFIED, "static"),  # beyond the levels
            (-10.5, CERTIFIED, "static"),  # what is valid from since then says more of the instrument as it is
            (-5.0, Certification.REJECTED, "static"),
        ],
    )
    def test_one_from_frames_replaces_a_static_one_where_it_is_closer_and_certified(
        self, days: float, certification: Certification, taken: str
    ) -> None:
        static = a_candidate(1, -10.0, name="static", static=True, certification=CERTIFIED)
        best = beside_statics(static, a_candidate(2, days, name="made", certification=certification)).best
        assert best is not None
        assert best.candidate.name == taken
        assert best.level == (0 if taken == "static" else 2)  # a static one is of the first level for all its time

    def test_what_is_not_certified_serves_where_no_static_one_is_valid(self) -> None:
        later = a_candidate(1, 0.5, static=True, certification=CERTIFIED)
        best = beside_statics(later, a_candidate(2, 5.0)).best
        assert best is not None
        assert best.candidate.product_id == 2

    def test_a_static_one_lasts_however_long_ago_it_began(self) -> None:
        best = beside_statics(a_candidate(1, -4000.0, static=True)).best
        assert best is not None
        assert (best.level, best.days) == (0, -4000.0)

    def test_of_one_day_the_later_version_is_taken_in_whatever_order_they_came(self) -> None:
        best = beside_statics(
            a_candidate(7, -3.0, static=True, made=1.0), a_candidate(4, -3.0, static=True, made=2.0)
        ).best
        assert best is not None
        assert best.candidate.product_id == 4

    @pytest.mark.parametrize(
        ("candidate", "cause", "words"),
        [
            (a_candidate(1, -9.0, static=True, obsolete=True, response=2), Cause.OBSOLETE, "no recipe takes any more"),
            (
                a_candidate(1, -9.0, static=True, until=MJD - 3, response=2),
                Cause.PAST,
                "was valid only until 3.00 d before",
            ),
            (a_candidate(1, -9.0, static=True, paired=False), Cause.UNPAIRED, "other half is not there"),
            (a_candidate(1, 0.5, response=1), Cause.RESPONSE, "is a response of version 1, version 2 is needed"),
            (a_candidate(1, 0.5, response=None), Cause.RESPONSE, "version 2 is needed"),
            (a_candidate(1, 9.0, static=True, response=2), Cause.FUTURE, "valid only from 9.00 d after"),
        ],
    )
    def test_what_may_not_be_used_is_told_why(self, candidate: Candidate, cause: Cause, words: str) -> None:
        found = beside_statics(candidate, response=2)
        assert found.best is None
        assert (found.refusals[0].cause, words in found.refusals[0].reason) == (cause, True)

    def test_a_response_of_version_1_serves_where_either_does(self) -> None:
        assert beside_statics(a_candidate(1, 0.5, response=1)).best is not None

    @pytest.mark.parametrize("mode", ["WFM-NOAO-N", "WFM-AO-N"])
    def test_a_file_for_the_mode_alone_goes_before_a_newer_one_for_the_family(self, mode: str) -> None:
        family = a_candidate(1, -1.0, static=True, setup=replace(SETUP, mode="WFM-N"))
        alone = a_candidate(2, -900.0, static=True, setup=replace(SETUP, mode="WFM-AO-N"))
        best = beside_statics(family, alone, mode=mode).best
        assert best is not None
        assert best.candidate.product_id == (2 if mode == "WFM-AO-N" else 1)
        assert best.differences == ({} if mode == "WFM-AO-N" else {"mode": (mode, "WFM-N")})


mixed_candidates = st.lists(
    st.builds(
        Candidate,
        product_id=st.integers(1, 10_000),
        name=st.just("product"),
        mjd=st.one_of(st.floats(MJD - 400, MJD + 20), st.floats(MJD - 16, MJD + 16), st.sampled_from([MJD - 1, MJD])),
        setup=st.builds(
            Setup, mode=st.sampled_from(["WFM-NOAO-N", "WFM-AO-N", "WFM-N", "WFM-E"]), readout=st.just("SCI1.0")
        ),
        certification=st.sampled_from(Certification),
        static=st.booleans(),
        made=st.sampled_from([1.0, 2.0]),
        response=st.sampled_from([None, 1, 2]),
        until=st.sampled_from([math.inf, MJD, MJD + 1]),
        obsolete=st.sampled_from([False, False, False, True]),
        paired=st.sampled_from([True, True, True, False]),
    ),
    max_size=12,
    unique_by=lambda candidate: candidate.product_id,
)


def may_serve(candidate: Candidate, response: int | None) -> bool:
    """The rule for one candidate said once more."""
    if candidate.obsolete or not candidate.paired or candidate.certification is Certification.REJECTED:
        return False
    if candidate.setup.mode not in ("WFM-NOAO-N", "WFM-N") or response not in (None, candidate.response):
        return False
    if candidate.static and candidate.mjd > MJD:
        return False
    return candidate.until > MJD and (candidate.static or abs(candidate.mjd - MJD) < 14)


def serves_better(one: Candidate, other: Candidate) -> bool:
    """The rule for two of them: the first thing that they are not alike in decides."""
    judged = (
        (one.static or one.certification is CERTIFIED, other.static or other.certification is CERTIFIED),
        (one.setup.mode == "WFM-NOAO-N", other.setup.mode == "WFM-NOAO-N"),
        (-abs(one.mjd - MJD), -abs(other.mjd - MJD)),
        (one.certification is CERTIFIED, other.certification is CERTIFIED),
        (-one.mjd, -other.mjd),
        (one.made, other.made),
        (-(one.product_id or 0), -(other.product_id or 0)),
    )
    return next((ours > theirs for ours, theirs in judged if ours != theirs), False)


@given(mixed_candidates, st.sampled_from([None, 2]), st.data())
def test_statics_and_products_together_are_chosen_by_the_rule_in_every_order(
    offered: list[Candidate], response: int | None, data: st.DataObject
) -> None:
    usable = [candidate for candidate in offered if may_serve(candidate, response)]
    expected = [one for one in usable if not any(serves_better(other, one) for other in usable)]
    assert len(expected) == bool(usable)
    found = beside_statics(*data.draw(st.permutations(offered)), response=response)
    assert (found.best and found.best.candidate) == (expected[0] if expected else None)
    for refusal in found.refusals:  # taking away what was turned down changes nothing
        rest = [candidate for candidate in offered if candidate != refusal.candidate]
        assert beside_statics(*rest, response=response).best == found.best


def a_product(number: int, catg: str, mjd: float, **changes: object) -> dict[str, object]:
    return {
        "catg": catg, "name": f"{catg} {number}", "dp_id": f"{catg} {number}", "path": "", "size": 0, "digest": "",
        "night": NOW.date(), "mjd": mjd, "created": NOW + timedelta(seconds=number), "channels": [1],
        "mode": "WFM-NOAO-N", "readout": "SCI1.0",
    } | changes  # fmt: skip


class TestRegistry:
    def test_products_of_the_type_become_candidates(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.execute(insert(Product), [a_product(1, "MASTER_BIAS", MJD), a_product(2, "MASTER_DARK", MJD)])
        with registry.read() as session:
            (found,) = candidates(session, "MASTER_BIAS", mjd=MJD + 1, days=3)
        assert found == Candidate(
            product_id=1, name="MASTER_BIAS 1", mjd=MJD, setup=SETUP, made=(NOW + timedelta(seconds=1)).timestamp()
        )

    def test_those_beyond_the_window_are_the_nearest_ones(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.execute(insert(Product), [a_product(day, "MASTER_BIAS", MJD + day) for day in range(-20, 21)])
        with registry.read() as session:
            days = sorted(found.mjd - MJD for found in candidates(session, "MASTER_BIAS", mjd=MJD, days=5))
        assert days == list(range(-5 - NEIGHBOURS, 6 + NEIGHBOURS))

    def test_a_window_without_end_takes_all(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.execute(insert(Product), [a_product(day, "MASTER_BIAS", MJD + day) for day in range(-20, 21)])
        with registry.read() as session:
            assert len(candidates(session, "MASTER_BIAS", mjd=MJD, days=math.inf)) == 41

    @pytest.mark.full
    def test_the_best_of_many_is_found_among_few(self, registry: Registry) -> None:
        """Ten years of an archive: 100 000 frames and 10 000 products of each of four types."""
        with registry.begin() as session:
            session.execute(insert(Frame), [a_frame(number) for number in range(100_000)])
            for catg in ("MASTER_BIAS", "MASTER_DARK", "MASTER_FLAT", "TRACE_TABLE"):
                session.execute(insert(Product), [a_product(n, catg, MJD - 3650 + n * 0.73) for n in range(10_000)])
        with registry.read() as session:
            for night in range(20):
                found = candidates(session, "MASTER_FLAT", mjd=MJD - night, days=14)
                assert len(found) <= 28 / 0.73 + 2 + 2 * NEIGHBOURS  # its cost does not grow with the archive
                assert choose(found, setup=SETUP, mjd=MJD - night, keys=KEYS, levels=LEVELS).best is not None


def a_frame(number: int) -> dict[str, object]:
    mjd = MJD - 3650 + number * 0.0365
    return {
        "dp_id": f"MUSE.{number}", "digest": f"{number:064d}", "path": f"/raw/{number}", "size": 860_040_000,
        "tag": "FLAT", "catg": "CALIB", "type": "FLAT,LAMP", "tech": "IFU", "rule": "FLAT", "mjd": mjd,
        "exptime": 1.155, "night": NOW.date(), "ingested": NOW, "channels": [1],
    }  # fmt: skip
