"""When a template counts as complete, closed or incomplete."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.setup import Setup
from archive.states import GroupState
from recipes.muse import ARC_LAMPS, Lamp
from tasks.cascade import STEPS_BY_TAG, CascadeStep, Tag
from tasks.groups import Member, Verdict, announced, closing_time, group_key, judge, middle

NOW = datetime(2026, 6, 17, 11, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
BIAS, FLAT, ARC = (STEPS_BY_TAG[tag] for tag in (Tag.BIAS, Tag.FLAT, Tag.ARC))


def members(count: int, of: int = 11, *, lamps: Iterable[Lamp] = ()) -> list[Member]:
    lit = list(lamps)
    return [
        Member(
            frame_id=number, dp_id=f"MUSE.{number}", digest=f"{number}", mjd=61208.4 + number / 1440, exptime=30.0,
            announced=of, lamps=(lit[number],) if lit else (),
        )
        for number in range(count)
    ]  # fmt: skip


def verdict(step: CascadeStep, frames: list[Member], *, now: datetime = NOW) -> Verdict:
    return judge(step, frames, closes=NOW + timedelta(minutes=30), now=now)


@pytest.mark.parametrize(
    ("count", "of", "now", "state"),
    [
        (11, 11, NOW, GroupState.COMPLETE),
        (12, 11, NOW, GroupState.COMPLETE),  # one was taken twice
        (10, 11, NOW, GroupState.OPEN),
        (10, 11, LATER, GroupState.CLOSED),
        (3, 11, LATER, GroupState.CLOSED),
        (2, 11, LATER, GroupState.INCOMPLETE),
        (0, 11, LATER, GroupState.INCOMPLETE),
        (1, 1, NOW, GroupState.INCOMPLETE),  # more were never announced: nothing to wait for
        (5, 0, NOW, GroupState.OPEN),  # nobody knows how many there will be
        (5, 0, LATER, GroupState.CLOSED),
    ],
)
def test_state_follows_count_and_time(count: int, of: int, now: datetime, state: GroupState) -> None:
    assert verdict(BIAS, members(count, of), now=now).state is state


def test_the_reason_has_the_numbers() -> None:
    assert "7 of 11 frames are here" in verdict(FLAT, members(7)).reason
    assert "closes at 2026-06-17 11:30:00 UT" in verdict(FLAT, members(7)).reason
    assert "muse_flat needs 3" in verdict(FLAT, members(2), now=LATER).reason


@pytest.mark.parametrize(
    ("counts", "now", "state"),
    [
        ((5, 5, 5), NOW, GroupState.COMPLETE),
        ((5, 5, 4), NOW, GroupState.OPEN),
        ((6, 5, 4), NOW, GroupState.OPEN),  # as many as announced, not of each lamp
        ((6, 5, 4), LATER, GroupState.CLOSED),
        ((5, 5, 2), LATER, GroupState.INCOMPLETE),  # 3 of each are needed
        ((5, 5, 0), LATER, GroupState.INCOMPLETE),
        ((15, 0, 0), LATER, GroupState.INCOMPLETE),
    ],
)
def test_arcs_are_complete_with_every_lamp_in_equal_counts(
    counts: tuple[int, ...], now: datetime, state: GroupState
) -> None:
    lamps = [lamp for lamp, count in zip(ARC_LAMPS, counts, strict=True) for _ in range(count)]
    judged = verdict(ARC, members(len(lamps), 15, lamps=lamps), now=now)
    assert judged.state is state
    assert state is GroupState.COMPLETE or f"HgCd {counts[2]}" in judged.reason


def test_the_last_exposure_says_how_many_there_are() -> None:
    shortened = [*members(4, 11), *members(5, 5)[4:]]
    assert announced(shortened) == 5
    assert verdict(BIAS, shortened) == Verdict(
        GroupState.COMPLETE, "5 of 5 frames are here; TPL.NEXP changed on the way."
    )


@given(order=st.permutations(range(7)), minutes=st.integers(0, 60))
def test_order_of_frames_does_not_matter(order: list[int], minutes: int) -> None:
    frames, now = members(7), NOW + timedelta(minutes=minutes)
    shuffled = [frames[number] for number in order]
    assert verdict(FLAT, shuffled, now=now) == verdict(FLAT, frames, now=now)
    assert middle(shuffled) == middle(frames)


@given(count=st.integers(0, 20), of=st.integers(0, 20))
def test_every_group_ends(count: int, of: int) -> None:
    assert verdict(FLAT, members(count, of), now=LATER).state is not GroupState.OPEN


def test_a_long_exposure_may_still_be_under_way_when_the_grace_time_ends() -> None:
    darks = [Member(frame_id=1, dp_id="", digest="", mjd=0.0, exptime=1800.0, announced=5)]
    assert closing_time(darks, NOW, timedelta(minutes=10)) == NOW + timedelta(minutes=40)


def test_middle_is_half_way_from_first_begin_to_last_end() -> None:
    hours = [Member(frame_id=n, dp_id="", digest="", mjd=n / 24, exptime=3600.0, announced=2) for n in (0, 1)]
    assert middle(hours) == pytest.approx(1 / 24)


def test_groups_are_told_apart_by_template_and_setup_and_without_a_template_by_night() -> None:
    night = NOW.date()
    keys = {
        group_key(start, night, setup)
        for start in ("2026-06-17T10:40:27", "2026-06-17T11:40:27", "")
        for setup in (Setup(readout="SCI1.0"), Setup(readout="FAST"), Setup(binx=2), Setup(mode="WFM-AO-N"))
    }
    assert len(keys) == 12
    assert max(map(len, keys)) <= 256
