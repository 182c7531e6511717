"""Rows move along the tables of legal moves and in no other way."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.states import (
    ARRIVAL_MOVES,
    CERTIFICATION_MOVES,
    GROUP_MOVES,
    PART_MOVES,
    STEP_MOVES,
    ArrivalState,
    Certification,
    GroupState,
    IllegalMove,
    Judge,
    Moves,
    PartState,
    StepState,
    certify,
    check_move,
    move,
)

TABLES: Mapping[type[StrEnum], tuple[Moves, StrEnum]] = {  # with the state in which a row begins
    ArrivalState: (ARRIVAL_MOVES, ArrivalState.WAITING),
    GroupState: (GROUP_MOVES, GroupState.OPEN),
    StepState: (STEP_MOVES, StepState.WAITING),
    PartState: (PART_MOVES, PartState.QUEUED),
    Certification: (CERTIFICATION_MOVES, Certification.PROVISIONAL),
}
FINAL = (ArrivalState.INGESTED, ArrivalState.DUPLICATE, ArrivalState.RELEASED, ArrivalState.GONE, StepState.DONE)


@dataclass
class Row:
    state: StepState = StepState.WAITING


@dataclass
class Made:
    certification: Certification = Certification.PROVISIONAL
    judge: Judge = Judge.NOBODY


@pytest.mark.parametrize("states", TABLES)
class TestTables:
    def test_every_state_has_its_moves_and_none_moves_to_itself(self, states: type[StrEnum]) -> None:
        moves, _ = TABLES[states]
        assert set(moves) == set(states)
        assert all(old not in new for old, new in moves.items())

    def test_every_state_can_be_reached_from_the_first(self, states: type[StrEnum]) -> None:
        moves, first = TABLES[states]
        reached = {first}
        while more := {new for old in reached for new in moves[old]} - reached:
            reached |= more
        assert reached == set(states)

    def test_what_is_final_stays_and_nothing_else_does(self, states: type[StrEnum]) -> None:
        moves, _ = TABLES[states]
        assert {old for old, new in moves.items() if not new} == {state for state in FINAL if type(state) is states}


def test_a_step_that_made_products_is_never_touched_again() -> None:
    row = Row(StepState.DONE)
    for state in StepState:
        with pytest.raises(IllegalMove):
            move(row, state)
    assert row.state is StepState.DONE


def test_a_rejected_product_is_used_again_only_when_a_person_certifies_it() -> None:
    made = Made()
    certify(made, Certification.REJECTED, Judge.PERSON)
    with pytest.raises(IllegalMove, match="what is rejected cannot become provisional; allowed is certified"):
        certify(made, Certification.PROVISIONAL, Judge.SCORE)
    certify(made, Certification.CERTIFIED, Judge.PERSON)
    assert made.certification is Certification.CERTIFIED


@given(st.lists(st.sampled_from(StepState), max_size=20))
def test_whatever_is_asked_a_row_walks_along_the_table(asked: list[StepState]) -> None:
    row = Row()
    for new in asked:
        old = row.state
        if new in STEP_MOVES[old]:
            move(row, new)
            assert row.state is new
        else:
            with pytest.raises(IllegalMove, match=f"what is {old} cannot become {new}"):
                move(row, new)
            assert row.state is old


@pytest.mark.parametrize(("one", "other"), [pair for pair in product(TABLES, repeat=2) if pair[0] is not pair[1]])
def test_a_state_of_another_kind_is_refused_even_if_it_has_the_same_word(
    one: type[StrEnum], other: type[StrEnum]
) -> None:
    for old, new in product(one, other):
        with pytest.raises(IllegalMove):
            check_move(old, new)
