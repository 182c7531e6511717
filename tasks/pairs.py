"""Groups that are processed together and never alone: which are one pair, and whether it may go on. Pure.

A pair is proposed anew with each plan until it is released; from then on it stays, unless one of both is given up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from archive.select import Candidate, Choice, Match, refuse, unlike
from archive.states import GroupState, StepState
from tasks.cascade import CascadeStep
from tasks.decisions import Couple
from tasks.snapshot import GroupView, Snapshot

CLOSED = (GroupState.COMPLETE, GroupState.CLOSED)


@dataclass(frozen=True, kw_only=True)
class Half:
    """One group as far as its pairing depends on it: its state by now, and that of its newest step, if it has one."""

    group: GroupView
    state: GroupState
    step: StepState | None

    @property
    def free(self) -> bool:
        """Whether it can still be given to another group."""
        return self.state is not GroupState.INCOMPLETE and self.step in (None, StepState.WAITING)

    @property
    def given_up(self) -> bool:
        """Whether nothing will be made of it as things stand."""
        return self.state is GroupState.INCOMPLETE or self.step is StepState.CANCELLED


def pair_up(ones: Sequence[GroupView], others: Sequence[GroupView], days: float) -> dict[int, int]:
    """Return the partner of each group that has one, both ways: the closest two of all first, then of those left.

    Parameters
    ----------
    ones, others : sequence of GroupView
        Of the two tags. Their order says nothing.
    days : float
        Pairs are not farther apart in time.
    """
    near = sorted(
        (abs(one.mjd - other.mjd), one.mjd, one.group_id, other.mjd, other.group_id)
        for one in ones
        for other in others
        if abs(one.mjd - other.mjd) <= days
    )
    partners: dict[int, int] = {}
    for *_, one_id, _, other_id in near:
        if one_id not in partners and other_id not in partners:
            partners |= {one_id: other_id, other_id: one_id}
    return partners


def couple(snapshot: Snapshot, half_of: Callable[[CascadeStep, GroupView], Half], *, alone: bool) -> list[Couple]:
    """Say of every group of a pair which is its partner now, and whether the pair is released.

    Parameters
    ----------
    half_of : callable
        What is known of a group and its step.
    alone : bool
        A pair is released as soon as both groups are closed, without an operator's word.
    """
    steps = {step.raw: step for step in snapshot.cascade if step.pair}
    halves = {group.group_id: half_of(steps[group.tag], group) for group in snapshot.groups if group.tag in steps}
    kept = {number for number, half in halves.items() if _stands(half, halves)}
    free = [half.group for number, half in halves.items() if half.free and number not in kept]
    partners: dict[int, int] = {}
    for step in steps.values():
        if step.pair and step.raw < step.pair.tag:  # each two tags once
            ones, others = ([group for group in free if group.tag is tag] for tag in (step.raw, step.pair.tag))
            partners |= pair_up(ones, others, step.pair.days)
    found = []
    for number, half in halves.items():
        if number in kept:
            found.append(Couple(number, half.group.partner, released=True))
        else:
            partner = partners.get(number)
            both = partner is not None and half.state in CLOSED and halves[partner].state in CLOSED
            found.append(Couple(number, partner, released=alone and both))
    return found


def _stands(half: Half, halves: Mapping[int, Half]) -> bool:
    """Return whether a released pair still is one: none of both is given up, or one of them is done."""
    partner = halves.get(half.group.partner or 0)
    if not half.group.released or partner is None:
        return False
    pair = (half, partner)
    return any(one.step is StepState.DONE for one in pair) or not any(one.given_up for one in pair)


def made_by_partner(group: GroupView, candidates: Sequence[Candidate], *, certified: bool = False) -> Choice:
    """Choose what the other step of a pair made: the latest make that may be used, whenever it was observed.

    Parameters
    ----------
    certified : bool
        Only certified ones are taken.
    """
    verdicts = {one: refuse(one, group.mjd, certified=certified) for one in candidates}
    refusals = tuple(refusal for refusal in verdicts.values() if refusal)
    usable = [one for one, refusal in verdicts.items() if refusal is None]
    if not usable:
        return Choice(best=None, refusals=refusals)
    latest = max(usable, key=lambda one: one.product_id or 0)
    differences = unlike(latest, group.setup)
    best = Match(candidate=latest, level=0, days=latest.mjd - group.mjd, differences=differences)
    return Choice(best=best, refusals=refusals)


def sentence_on_partner(
    step: CascadeStep, group: GroupView, couple: Couple, partner: GroupView | None, state: GroupState | None
) -> str:
    """Say what a group waits for before it may be processed, '' if for nothing.

    Parameters
    ----------
    state : GroupState or None
        Of the partner.
    """
    if step.pair is None or couple.released:
        return ""
    if partner is None:
        return (
            f"It is processed only together with {step.pair.tag} frames, at most {step.pair.days:g} d away; there are "
            "none, or they are nearer to another group."
        )
    here = f"It is one pair with {partner}, {abs(partner.mjd - group.mjd):.2f} d away"
    if state not in CLOSED:
        return f"{here}, which is still open."
    return f"{here}, which waits for an operator's word: `musecal release G{group.group_id}` starts both."
