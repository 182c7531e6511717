"""Scores: the worst counts all the way up, each with a sentence; running medians need enough that came before."""

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.states import Certification, Judge, Score
from tasks.score import (
    Mark,
    Measured,
    Past,
    certification_by_score,
    product_reason,
    product_score,
    score_values,
    scores_by_channel,
    worst,
)
from tasks.thresholds import Deviation, Fixed, Limits, Previous, Relative

SINCE = date(2014, 1, 1)
LEVEL = "BIAS LEVEL1 MEDIAN"
GREEN, YELLOW, RED = Score.GREEN, Score.YELLOW, Score.RED


def limits(low: float, high: float, lowest: float, highest: float, *channels: int) -> Limits:
    return Limits(yellow=(low, high), red=(lowest, highest), channels=channels)


def fixed(*given: Limits, parameter: str = "BIAS LEVELn MEDIAN") -> Fixed:
    return Fixed(kind="fixed", category="MASTER_BIAS", parameter=parameter, valid_from=SINCE, limits=given)


def relative(deviation: Deviation, low: float, high: float, **how: Any) -> Relative:  # noqa: ANN401
    return Relative(
        kind="relative", category="MASTER_BIAS", parameter="BIAS LEVELn MEDIAN", valid_from=SINCE, deviation=deviation,
        limits=(limits(low, high, 3 * low, 3 * high),), **{"days": 30, "least": 3, **how},
    )  # fmt: skip


USUAL = fixed(limits(1100, 1300, 1000, 1400))


def mark(
    value: float | None, *thresholds: Fixed | Relative | Previous, past: tuple[Past, ...] = (), channel: int = 3
) -> Mark:
    [found] = score_values([Measured(channel, LEVEL, value)], thresholds, {(channel, LEVEL): past})
    return found


@pytest.mark.parametrize(
    ("value", "score", "remark"),
    [
        (1200, GREEN, ""),
        (1300, GREEN, ""),
        (1301, YELLOW, "is 1301, above the yellow limit of 1300"),
        (1099.5, YELLOW, "is 1099.5, below the yellow limit of 1100"),
        (1400, YELLOW, "is 1400, above the yellow limit of 1300"),
        (1501, RED, "is 1501, above the red limit of 1400"),
        (None, YELLOW, "could not be measured"),
    ],
)  # fmt: skip
def test_a_value_is_held_against_its_limits(value: float | None, score: Score, remark: str) -> None:
    whole = f"BIAS LEVEL1 MEDIAN of channel 3 {remark} (threshold since 2014-01-01)." if remark else ""
    assert mark(value, USUAL) == Mark(3, LEVEL, score, whole)


def test_a_text_has_no_score() -> None:
    assert score_values([Measured(1, LEVEL, "Feige110")], [USUAL], {}) == [Mark(1, LEVEL, Score.NONE)]


def test_a_value_of_the_whole_product_has_no_channel() -> None:
    assert mark(1501, USUAL, channel=0).remark.startswith("BIAS LEVEL1 MEDIAN is 1501, above")


def test_a_channel_may_have_limits_of_its_own() -> None:
    threshold = fixed(limits(0, 1250, 0, 1300, 1, 2), limits(0, 1400, 0, 1500, 3))
    assert [mark(1260, threshold, channel=channel).score for channel in (1, 3, 4)] == [YELLOW, GREEN, Score.NONE]


def test_the_worst_of_several_thresholds_counts() -> None:
    found = mark(1350, USUAL, fixed(limits(0, 1200, 0, 1250)), fixed(limits(0, 2000, 0, 2000)))
    assert (found.score, "limit of 1250" in found.remark) == (RED, True)


def test_an_index_stands_for_any_number_and_a_number_for_itself() -> None:
    assert [USUAL.matches(f"BIAS LEVEL{number} MEDIAN") for number in ("1", "12", "", "n")] == [
        True,
        True,
        False,
        False,
    ]
    literal = fixed(limits(0, 1, 0, 1), parameter="STANDARD THRU5000")
    assert (literal.matches("STANDARD THRU5000"), literal.matches("STANDARD THRU7000")) == (True, False)


class TestRunningMedian:
    PAST = tuple(Past(days, value) for days, value in ((1, 1200), (2, 1202), (3, 1201), (29.9, 1203), (31, 2000)))

    @pytest.mark.parametrize(("value", "score"), [(1211, GREEN), (1212, YELLOW), (1191, YELLOW), (1240, RED)])
    def test_limits_what_is_off_in_units_of_the_value(self, value: float, score: Score) -> None:
        assert mark(value, relative(Deviation.ABSOLUTE, -10, 10), past=self.PAST).score is score

    def test_says_how_far_off_from_what(self) -> None:
        remark = mark(1240, relative(Deviation.ABSOLUTE, -10, 10), past=self.PAST).remark
        assert remark == (
            "BIAS LEVEL1 MEDIAN of channel 3 is 1240, +38.5 from 1201.5, the median of 4 products in the 30 days"
            " before, above the red limit of 30 (threshold since 2014-01-01)."
        )

    def test_limits_fractions(self) -> None:
        threshold = relative(Deviation.FRACTION, -0.1, 0.1)
        assert [mark(value, threshold, past=self.PAST).score for value in (1300, 1400, 700)] == [GREEN, YELLOW, RED]
        assert "+16.52 % from 1201.5" in mark(1400, threshold, past=self.PAST).remark

    def test_limits_sigmas_of_what_came_before(self) -> None:
        threshold = relative(Deviation.SIGMA, -3, 3)  # one sigma of the four is 1.48
        assert [mark(value, threshold, past=self.PAST).score for value in (1204, 1208, 1250)] == [GREEN, YELLOW, RED]

    def test_without_enough_before_there_is_no_score(self) -> None:
        assert mark(9999, relative(Deviation.ABSOLUTE, -1, 1, least=5), past=self.PAST).score is Score.NONE
        assert mark(9999, relative(Deviation.ABSOLUTE, -1, 1, days=2.5), past=self.PAST).score is Score.NONE

    def test_equal_values_have_no_sigma_and_nothing_has_no_fraction(self) -> None:
        same = tuple(Past(days, 0.0) for days in (1, 2, 3))
        assert mark(5, relative(Deviation.SIGMA, -1, 1), past=same).score is Score.NONE
        assert mark(5, relative(Deviation.FRACTION, -1, 1), past=same).score is Score.NONE

    @given(st.permutations(PAST), st.floats(1000, 1400))
    def test_does_not_depend_on_the_order_of_what_came_before(self, past: list[Past], value: float) -> None:
        threshold = relative(Deviation.SIGMA, -3, 3)
        assert mark(value, threshold, past=tuple(past)) == mark(value, threshold, past=self.PAST)


def test_a_change_is_told_as_a_share_of_the_pixels() -> None:
    threshold = Previous(
        kind="previous", category="MASTER_BIAS", valid_from=SINCE, sigma=5, limits=(limits(0, 0.01, 0, 0.2),)
    )
    values = [Measured(1, "changed beyond 5 sigma", 0.123), Measured(1, "changed beyond 3 sigma", 0.5)]
    first, second = score_values(values, [threshold], {})
    assert first.remark == (
        "12.300% of the pixels of channel 1 are more than 5 sigma off the one before, above the yellow limit of 1 %"
        " (threshold since 2014-01-01)."
    )
    assert (first.score, second.score) == (YELLOW, Score.NONE)


MARKS = [
    Mark(1, "A", GREEN), Mark(1, "B", Score.NONE), Mark(2, "SLICE10 A", YELLOW, "ten."),
    Mark(2, "SLICE9 A", YELLOW, "nine."), Mark(3, "A", RED, "red."), Mark(4, "B", Score.NONE),
]  # fmt: skip


def test_scores_roll_up_by_channel() -> None:
    assert scores_by_channel(MARKS) == {1: GREEN, 2: YELLOW, 3: RED, 4: Score.NONE}


def test_the_worst_counts_and_what_is_not_scored_does_not() -> None:
    assert worst([]) is Score.NONE
    assert worst([Score.NONE, GREEN, Score.NONE]) is GREEN
    assert worst(["green", "yellow"]) is YELLOW
    assert product_score(MARKS) is RED
    assert product_score(MARKS[:2]) is GREEN


def test_a_product_that_lacks_channels_is_yellow_at_best() -> None:
    assert product_score(MARKS[:1], lacking=[5]) is YELLOW
    assert product_score([], lacking=[5]) is YELLOW
    assert product_score(MARKS, lacking=[5]) is RED
    assert product_reason(MARKS[:1], lacking=[5, 6]) == "It lacks channel 5, 6."


def test_the_reason_begins_with_the_worst_and_counts_the_rest() -> None:
    more = [Mark(5, "A", YELLOW, "five."), Mark(6, "A", RED, "six.")]
    assert product_reason(MARKS) == "red. nine. ten."
    assert product_reason([*MARKS, *more]) == "red. six. nine. 2 more values are not green."


@given(st.lists(st.sampled_from([GREEN, YELLOW, RED, Score.NONE]), max_size=6), st.data())
def test_neither_score_nor_reason_depend_on_the_order_of_the_marks(scores: list[Score], data: st.DataObject) -> None:
    marks = [Mark(number % 3, f"SLICE{number}", score, f"{number}.") for number, score in enumerate(scores)]
    shuffled = data.draw(st.permutations(marks))
    assert product_score(marks) is product_score(shuffled)
    assert product_reason(marks) == product_reason(shuffled)


@pytest.mark.parametrize("score", list(Score))
@pytest.mark.parametrize("certification", list(Certification))
def test_the_word_of_a_person_stands(certification: Certification, score: Score) -> None:
    for automatic in (True, False):
        assert certification_by_score(certification, Judge.PERSON, score, automatic=automatic) is certification


@pytest.mark.parametrize("judge", [Judge.NOBODY, Judge.SCORE])
def test_green_certifies_itself_unless_a_person_is_asked_for(judge: Judge) -> None:
    was = Certification.PROVISIONAL if judge is Judge.NOBODY else Certification.CERTIFIED
    made = {score: certification_by_score(was, judge, score, automatic=True) for score in Score}
    assert made == dict.fromkeys(Score, Certification.PROVISIONAL) | {GREEN: Certification.CERTIFIED}
    assert certification_by_score(was, judge, GREEN, automatic=False) is Certification.PROVISIONAL
