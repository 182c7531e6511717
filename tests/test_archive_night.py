"""Nights, times and setups: what frames are sorted and matched by."""

import math
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.night import LAST_MJD, MJD_EPOCH, mjd_of, night_of, time_of
from archive.setup import Setup, SetupKey

setups = st.builds(Setup, mode=st.sampled_from("ab"), readout=st.sampled_from("ab"), readout_id=st.integers(0, 1))


def night_at(*time: int) -> date:
    return night_of(mjd_of(datetime(*time, tzinfo=UTC)))  # type: ignore[arg-type, misc]


class TestNights:
    @pytest.mark.parametrize(
        ("time", "night"),
        [
            ((2017, 6, 16, 1, 34), (2017, 6, 15)),  # an exposure after midnight UT
            ((2017, 6, 16, 10, 41), (2017, 6, 15)),  # the biases of the morning
            ((2017, 6, 16, 12, 52), (2017, 6, 15)),  # the last arc, after noon UT
            ((2017, 6, 16, 20, 59), (2017, 6, 15)),
            ((2017, 6, 16, 21, 0), (2017, 6, 16)),
            ((2017, 6, 18, 22, 4), (2017, 6, 18)),  # the twilight of the evening
        ],
    )
    def test_calibrations_of_the_morning_belong_to_the_night_before(
        self, time: tuple[int, ...], night: tuple[int, int, int]
    ) -> None:
        assert night_at(*time) == date(*night)

    @given(st.floats(0, LAST_MJD))
    def test_a_night_begins_at_21_hours_and_lasts_a_day(self, mjd: float) -> None:
        night = night_of(mjd)
        begin = datetime(night.year, night.month, night.day, 21, tzinfo=UTC)
        assert begin <= time_of(mjd) < begin + timedelta(days=1)

    @pytest.mark.parametrize("mjd", [math.nan, math.inf, -math.inf, -1, 1e300])
    def test_what_is_no_time_has_a_night_that_no_frame_has(self, mjd: float) -> None:
        assert night_of(mjd) == MJD_EPOCH.date()


class TestTimes:
    def test_a_real_header_agrees_with_itself(self) -> None:
        # MJD-OBS and DATE-OBS of one exposure; its date is cut to seconds
        assert abs(time_of(57920.06593596) - datetime(2017, 6, 16, 1, 34, 56, tzinfo=UTC)) < timedelta(seconds=1)

    @given(st.datetimes(datetime(1860, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - gets UTC below
    def test_times_survive_the_way_there_and_back(self, naive: datetime) -> None:
        time = naive.replace(tzinfo=UTC)
        assert abs(time_of(mjd_of(time)) - time) < timedelta(microseconds=20)  # 64 bits at day 60 000


class TestSetups:
    @given(setups, setups)
    def test_differences_are_of_the_asked_keys_and_mirror_each_other(self, one: Setup, other: Setup) -> None:
        keys = (SetupKey.MODE, SetupKey.READOUT)
        there, back = one.differences(other, keys), other.differences(one, keys)
        assert there == {key: (wanted, found) for key, (found, wanted) in back.items()}
        assert set(there) <= set(keys)
        assert (there == {}) == ((one.mode, one.readout) == (other.mode, other.readout))

    @given(setups)
    def test_a_setup_is_made_again_from_its_values(self, setup: Setup) -> None:
        assert Setup.of(*(setup.value(key) for key in SetupKey)) == setup
