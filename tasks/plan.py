"""The planner: from what the registry holds to what is to be done next. Pure; planning twice changes nothing.

One pass goes along the cascade, so that a step already knows what the steps before it will give. A group or step in
progress counts as a calibration to come: if it will be closer in time than what there is, it is waited for.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import chain
from typing import NamedTuple

from archive.night import mjd_of, night_of, time_of
from archive.select import Candidate, Cause, Choice, Match, Refusal, choose
from archive.states import Certification, GroupState, StepState
from recipes.recipe import Recipe
from tasks.cascade import CascadeStep, Companion, Need, Tag, Target
from tasks.decisions import Couple, Decision, Input, Make, Mark, Method, Order, Queue, Reuse, Settle, StepKey, Wait
from tasks.groups import Member, Verdict, judge
from tasks.pairs import Half, couple, made_by_partner, sentence_on_partner
from tasks.settings import PlanMode, ReleasePolicy, RemakePolicy
from tasks.snapshot import CompanionView, GroupView, Policy, ProductView, Snapshot, StepView

FRESH, BACKLOG = 3, 6  # priorities of this night and the one before, and of older nights; 0 is left to operators
_FRESH_NIGHTS = timedelta(days=1)
_TOLD = 3  # products that only a certification lacks, of those told of an input that is missing


def plan(snapshot: Snapshot, now: datetime) -> tuple[Decision, ...]:
    """Decide what is to be done.

    Parameters
    ----------
    snapshot : Snapshot
        Every group that is open, without a step, or with a step that is not settled; their steps; and every product
        within reach of them.
    now : datetime

    Returns
    -------
    tuple of Decision
        In an order in which they can be carried out.
    """
    planner = _Planner(snapshot, now)
    planner.couple()
    for step in snapshot.cascade:
        groups = [group for group in snapshot.groups if group.tag in (step.raw, *step.substitutes)]
        for group in sorted(groups, key=lambda group: (group.mjd, group.group_id)):
            if group.tag is step.raw:
                planner.consider(step, group)
            else:
                planner.consider_substitute(step, group)
    return tuple(planner.decisions)


def needs_of(step: CascadeStep | Target, mjd: float, policy: Policy) -> Iterator[Need]:
    """Return what a step, or a frame that is handed out, takes under these settings for exposures of this time."""
    for need in step.needs:
        if mjd < need.until and (policy.use_darks or need.catg != "MASTER_DARK"):
            yield need


def reach(need: Need, policy: Policy) -> float:
    """Return the days of the widest window that is accepted."""
    return max((level.days for level in need.levels if level.level <= policy.level), default=0.0)


def choose_for(group: GroupView, need: Need, candidates: Sequence[Candidate], policy: Policy) -> Choice:
    """Choose the calibration of one need for one group, within the levels that are accepted."""
    levels = tuple(level for level in need.levels if level.level <= policy.level)
    return choose(
        candidates,
        setup=group.setup,
        mjd=group.mjd,
        keys=need.match,
        levels=levels,
        beside_statics=need.beside_statics,
        response=need.response,
        certified=policy.certified,
    )


def held_back(group: GroupView, need: Need, choice: Choice, policy: Policy) -> tuple[Refusal, ...]:
    """Return the candidates that only lack a certification: red ones, and provisional ones where those do not serve."""
    lacking = [refusal for refusal in choice.refusals if refusal.cause in (Cause.RED, Cause.PROVISIONAL)]
    if need.of_pair:
        return tuple(lacking)
    return tuple(
        refusal
        for refusal in lacking
        if choose_for(group, need, [replace(refusal.candidate, certification=Certification.CERTIFIED)], policy).best
    )


def priority_of(night: date, now: datetime) -> int:
    """Return the priority of what the planner makes of a night."""
    return FRESH if night_of(mjd_of(now)) - night <= _FRESH_NIGHTS else BACKLOG


def companion_for(group: GroupView, wanted: Companion, companions: Sequence[CompanionView]) -> Member | None:
    """Return the frame closest in time to a group, within the hours, degrees and keys of the table; None if none is."""

    def distance(member: Member) -> float:
        return abs(member.middle - group.mjd)

    ambient = [member.ambient for member in group.members if member.ambient is not None]
    fitting = [
        other.member
        for other in companions
        if other.tag is wanted.tag
        and not group.setup.differences(other.setup, wanted.match)
        and distance(other.member) * 24 <= wanted.hours
        and (
            not ambient
            or other.member.ambient is None
            or abs(other.member.ambient - sum(ambient) / len(ambient)) <= wanted.kelvin
        )
    ]
    return min(fitting, key=lambda member: (distance(member), member.frame_id), default=None)


class _Shelved(NamedTuple):
    """One product, or one to come from a group in progress."""

    candidate: Candidate
    group_id: int | None
    product: ProductView | None
    group: GroupView | None

    @property
    def mjd(self) -> float:
        return self.candidate.mjd


class _Supply(NamedTuple):
    """Inputs of a step that were chosen, and sentences on those that are not there and those to come."""

    inputs: tuple[Input, ...]
    missing: tuple[str, ...]
    coming: tuple[str, ...]


class _Finding(NamedTuple):
    """In what a done step differs from how it would be made now.

    ``own`` are changes of what it takes, ``through`` inputs that are stale themselves; ``nights`` are those of what
    changed.
    """

    own: tuple[str, ...] = ()
    through: tuple[str, ...] = ()
    nights: frozenset[date] = frozenset()

    @property
    def sentence(self) -> str:
        return " ".join(self.own + self.through)


class _Planner:
    """One pass along the cascade; what was decided for earlier steps is known to later ones."""

    def __init__(self, snapshot: Snapshot, now: datetime) -> None:
        self.decisions: list[Decision] = []
        self._snapshot, self._policy, self._now = snapshot, snapshot.policy, now
        self._steps: dict[tuple[int, str], list[StepView]] = {}
        for view in sorted(snapshot.steps, key=lambda view: view.key):
            self._steps.setdefault((view.key.group_id, view.key.name), []).append(view)
        self._own: dict[int, list[ProductView]] = {}
        self._shelves: dict[str, list[_Shelved]] = {}
        self._source: dict[Candidate, _Shelved] = {}
        self._coming: set[tuple[int, str]] = set()
        self._stale: dict[tuple[int, str], bool] = {}  # of the steps that were weighed
        self._verdicts: dict[int, Verdict] = {}
        self._groups = {group.group_id: group for group in snapshot.groups}
        self._couples: dict[int, Couple] = {}
        for product in snapshot.products:
            if product.group_id is not None:
                self._own.setdefault(product.group_id, []).append(product)
            shelved = _Shelved(product.candidate, product.group_id, product, None)
            self._source[product.candidate] = shelved
            if product.current:
                self._shelve(product.catg, shelved)

    def couple(self) -> None:
        """Decide which groups are a pair, before their steps are considered."""
        alone = self._policy.release_pairs is ReleasePolicy.AUTO
        for found in couple(self._snapshot, self._half, alone=alone):
            self._couples[found.group_id] = found
            group = self._groups[found.group_id]
            if (group.partner, group.released) != (found.partner, found.released):
                self.decisions.append(found)

    def consider(self, step: CascadeStep, group: GroupView) -> None:
        """Decide on one group and its step."""
        verdict = self._judged(step, group)
        if verdict != Verdict(group.state, group.reason):
            self.decisions.append(Settle(group.group_id, verdict.state, verdict.reason))
        latest = self._latest(step, group)
        if verdict.state in (GroupState.COMPLETE, GroupState.CLOSED):
            self._follow(step, group, verdict, latest)
            return
        if latest and latest.state is StepState.WAITING:
            self._wait(latest.key, latest.missing, (f"{group}: {verdict.reason}",))
        if verdict.state is GroupState.OPEN and isinstance(step.recipe, Recipe):
            self._promise(step, group)

    def consider_substitute(self, step: CascadeStep, group: GroupView) -> None:
        """Decide on a step of frames that belong to another one, which has already judged whether they are complete."""
        verdict = self._verdicts[group.group_id]
        views = self._steps.get((group.group_id, step.name), [])
        wanted = isinstance(step.recipe, Recipe) and (views or self._policy.lsf_from_arcs)
        if wanted and verdict.state in (GroupState.COMPLETE, GroupState.CLOSED):
            self._follow(step, group, verdict, views[-1] if views else None)

    def _judged(self, step: CascadeStep, group: GroupView) -> Verdict:
        """Return the state of a group by now."""
        if group.group_id not in self._verdicts:
            verdict = Verdict(group.state, group.reason)
            if group.state is GroupState.OPEN:
                verdict = judge(step, group.members, closes=group.closes, now=self._now)
            self._verdicts[group.group_id] = verdict
        return self._verdicts[group.group_id]

    def _latest(self, step: CascadeStep, group: GroupView) -> StepView | None:
        views = self._steps.get((group.group_id, step.name), [])
        return views[-1] if views else None

    def _half(self, step: CascadeStep, group: GroupView) -> Half:
        latest = self._latest(step, group)
        return Half(group=group, state=self._judged(step, group).state, step=latest.state if latest else None)

    def _follow(self, step: CascadeStep, group: GroupView, verdict: Verdict, latest: StepView | None) -> None:
        """Go on with the step of a group that is closed."""
        found = self._weigh(step, group)
        made: StepState | None = None
        if latest is None:
            made = self._make(step, group, verdict, 1, "")
        elif latest.state is StepState.WAITING:
            made = self._supply(step, group, verdict, latest.key, latest.missing)
        elif latest.state in (StepState.QUEUED, StepState.RUNNING):
            self._promise(step, group)
        elif latest.state is StepState.FAILED and (changed := _frame_changes(group, latest)):
            made = self._make(step, group, verdict, latest.key.sequence + 1, changed)
        elif latest.state is StepState.DONE and self._remakes(group, found):
            made = self._make(step, group, verdict, latest.key.sequence + 1, found.sentence)
        if isinstance(step.recipe, Recipe):
            self._mark(step, group, made, found)

    def _make(self, step: CascadeStep, group: GroupView, verdict: Verdict, sequence: int, why: str) -> StepState:
        key = StepKey(group.group_id, step.name, sequence)
        self.decisions.append(Make(key, why, priority_of(group.night, self._now)))
        return self._supply(step, group, verdict, key, ())

    def _supply(
        self, step: CascadeStep, group: GroupView, verdict: Verdict, key: StepKey, said: tuple[str, ...]
    ) -> StepState:
        """Queue a step if every input is there, otherwise say what it waits for; return its state after that."""
        if not isinstance(step.recipe, Recipe):
            self._wait(key, said, (f"{step.recipe_name} has no recipe yet.",))
            return StepState.WAITING
        supply = self._gather(step, group)
        channels, partial = _channels(group)
        missing = supply.missing if channels else (*supply.missing, "No channel is in every raw frame.")
        missing = (*self._missing_partner(step, group), *missing)
        if missing or supply.coming:
            self._wait(key, said, missing + supply.coming)
            if not missing:
                self._promise(step, group)
            return StepState.WAITING
        warnings = [verdict.reason] if verdict.state is GroupState.CLOSED else []
        if partial:
            warnings.append(f"Channel {', '.join(map(str, partial))} is left out, it is not in every raw frame.")
        method = self._policy.method_of(step)
        order = Order(method=method, inputs=supply.inputs, channels=channels, warnings=tuple(warnings))
        if done := self._already_done(step, group, order.identity):
            self.decisions.append(Reuse(key, order, done.key))
            self._put_back(step, group, order.identity)
            return StepState.DONE
        self.decisions.append(Queue(key, order))
        self._promise(step, group)
        return StepState.QUEUED

    def _gather(self, step: CascadeStep, group: GroupView) -> _Supply:
        inputs = [_raw(group.tag, member) for member in group.members]
        missing, coming = [], []
        for need in needs_of(step, group.mjd, self._policy):
            choice = self._choose(group, need, with_coming=self._policy.mode is PlanMode.GARCHING)
            best = choice.best
            if need.of_pair and (unmade := self._unmade_by_partner(group, need)) is not None:
                missing += unmade
            elif best is None:
                missing += [] if need.optional else [absent(group, need, self._policy, choice)]
            elif (product := self._source[best.candidate].product) is None:
                source = self._source[best.candidate].group
                coming.append(f"{need.catg}: {source} will give one that is closer in time than any other.")
            else:
                inputs += [_input(need, best, file) for file in product.files]
        for wanted in step.companions:
            member = companion_for(group, wanted, self._snapshot.companions)
            inputs += [_raw(wanted.tag, member, days=member.middle - group.mjd)] if member else []
        return _Supply(tuple(inputs), tuple(missing), tuple(coming))

    def _missing_partner(self, step: CascadeStep, group: GroupView) -> list[str]:
        """Say what keeps a group back until its pair may go on."""
        if (found := self._couples.get(group.group_id)) is None:
            return []
        partner = self._groups.get(found.partner or 0)
        state = self._verdicts[partner.group_id].state if partner else None
        sentence = sentence_on_partner(step, group, found, partner, state)
        return [sentence] if sentence else []

    def _unmade_by_partner(self, group: GroupView, need: Need) -> list[str] | None:
        """Say that the other step of a pair has yet to make what a step needs; None if it is done."""
        found = self._couples[group.group_id]
        partner = self._groups.get(found.partner or 0)
        if partner is None or not found.released:
            return []  # this keeps the step back already
        step = next(step for step in self._snapshot.cascade if step.raw is partner.tag)
        latest = self._latest(step, partner)
        if latest is not None and latest.state is StepState.DONE:
            return None
        stopped = latest is not None and latest.state in (StepState.FAILED, StepState.HELD, StepState.CANCELLED)
        state = f", which is {latest.state}" if latest and stopped else ""
        return [f"{need.catg}: the {step.name} step of {partner} makes it{state}."]

    def _weigh(self, step: CascadeStep, group: GroupView) -> _Finding:
        """Say in what the newest done make of a step differs from what would be made now."""
        done = self._newest_done(step, group)
        if done is None or not isinstance(step.recipe, Recipe):
            return _Finding()
        own, through, nights = [], [], set[date]()
        if changed := _frame_changes(group, done):
            own.append(changed)
            nights.add(group.night)
        if done.elsewhere:
            return _Finding(tuple(own), (), frozenset(nights))
        if done.method and (changes := _method_changes(self._policy.method_of(step), done.method)):
            own += changes
            nights |= {group.night} & {night_of(mjd_of(self._now))}
        for need in needs_of(step, group.mjd, self._policy):
            best = self._choose(group, need, with_coming=False).best
            chosen = self._source[best.candidate].product if best else None
            used = done.products.get(need.catg)
            # Nothing happened to what serves on where the settings only reach less far than they did.
            kept = chosen is None and used is not None and used.usable and used.current
            if not kept and (chosen and chosen.product_ids) != (used and used.product_ids):
                own.append(_changed_mind(need, chosen, used))
                nights |= {group.night} if need.of_pair else set()
                nights |= {product.night for product in (chosen, used) if product}
            elif used and self._stale_now(used):
                through.append(f"{need.catg}: {used.candidate.name} is stale itself.")
        for wanted in step.companions:
            member = companion_for(group, wanted, self._snapshot.companions)
            if (member and member.frame_id) != (taken := done.companions.get(wanted.tag)):
                own.append(_changed_companion(wanted, member, taken))
                nights.add(group.night)
        return _Finding(tuple(own), tuple(through), frozenset(nights))

    def _newest_done(self, step: CascadeStep, group: GroupView) -> StepView | None:
        views = self._steps.get((group.group_id, step.name), [])
        return next((view for view in reversed(views) if view.state is StepState.DONE), None)

    def _stale_now(self, product: ProductView) -> bool:
        """Return whether the step that a product comes from is stale after this plan."""
        return self._stale.get((product.group_id or 0, product.step_name or ""), product.stale)

    def _remakes(self, group: GroupView, found: _Finding) -> bool:
        """Return whether a step is made again by itself.

        What is stale only through an input is not: nothing else would come of it before that input is made again.
        """
        wanted = {
            RemakePolicy.ALWAYS: True,
            RemakePolicy.NIGHT: group.night in found.nights,
            RemakePolicy.NEVER: False,
        }[self._policy.remake]
        return bool(found.own) and wanted

    def _mark(self, step: CascadeStep, group: GroupView, made: StepState | None, found: _Finding) -> None:
        """Mark the newest done make of a step as stale or not, and no older one.

        Parameters
        ----------
        made : StepState or None
            Of the newest make, where this plan decides on that. While one is under way the mark stays as it is: that
            one will take its place.
        """
        views = self._steps.get((group.group_id, step.name), [])
        done = [view for view in views if view.state is StepState.DONE]
        if not done:
            return
        why = found.sentence
        if made is StepState.DONE:
            why = ""
        elif (made or views[-1].state) in (StepState.QUEUED, StepState.RUNNING):
            why = done[-1].stale
        self._stale[group.group_id, step.name] = bool(why)
        for view, wanted in zip(done, [""] * (len(done) - 1) + [why], strict=True):
            if view.stale != wanted:
                self.decisions.append(Mark(view.step_id, wanted))

    def _choose(self, group: GroupView, need: Need, *, with_coming: bool) -> Choice:
        """Choose among the products; ``with_coming`` also among those that groups in progress will give."""
        if need.of_pair:
            partner = self._couples[group.group_id].partner if group.group_id in self._couples else None
            made = [item.candidate for item in self._own.get(partner or 0, []) if item.catg == need.catg]
            return made_by_partner(group, made, certified=self._policy.certified)
        days = reach(need, self._policy)
        shelf = self._shelves.get(need.catg, [])
        first = bisect_left(shelf, group.mjd - days, key=lambda item: item.mjd)
        last = bisect_right(shelf, group.mjd + days, key=lambda item: item.mjd)
        near = [
            item.candidate
            for item in chain((item for item in shelf[:first] if item.candidate.static), shelf[first:last])
            if (item.product is None and with_coming)
            or (item.product and not (with_coming and (item.group_id, need.catg) in self._coming))
        ]
        return choose_for(group, need, near, self._policy)

    def _wait(self, key: StepKey, said: tuple[str, ...], missing: tuple[str, ...]) -> None:
        if missing != said:
            self.decisions.append(Wait(key, missing))

    def _promise(self, step: CascadeStep, group: GroupView) -> None:
        """Count on the products of a step in progress, and no longer on those that they will replace.

        Those of a pair come into use only together, so that nothing counts on one of them.
        """
        for catg in set(step.makes) - set(step.statics):
            name = f"{catg} to come from {group}"
            candidate = Candidate(product_id=None, name=name, mjd=group.mjd, setup=group.setup)
            self._coming.add((group.group_id, catg))
            self._shelve(catg, _Shelved(candidate, group.group_id, None, group))

    def _already_done(self, step: CascadeStep, group: GroupView, identity: str) -> StepView | None:
        """Return the step of this group that has the same identity: it would give the same again, good or bad."""
        views = self._steps.get((group.group_id, step.name), [])
        return next((view for view in views if view.state is StepState.DONE and view.identity == identity), None)

    def _put_back(self, step: CascadeStep, group: GroupView, identity: str) -> None:
        """Let the products of a step that is used again take the place of its later makes."""
        for catg in set(step.makes) - set(step.statics):
            shelf = self._shelves.get(catg, [])
            for product in self._own.get(group.group_id, []):
                if product.catg == catg and product.identity == identity and product.usable:
                    shelf[:] = [item for item in shelf if item.group_id != group.group_id]
                    self._shelve(catg, _Shelved(product.candidate, product.group_id, product, None))

    def _shelve(self, catg: str, item: _Shelved) -> None:
        insort(self._shelves.setdefault(catg, []), item, key=lambda item: item.mjd)
        self._source[item.candidate] = item


def _channels(group: GroupView) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the channels that every frame of a group has, and those that only some have."""
    counts = Counter(channel for member in group.members for channel in member.channels)
    whole = {channel for channel, count in counts.items() if count == len(group.members)}
    return tuple(sorted(whole)), tuple(sorted(counts.keys() - whole))


def _raw(tag: Tag, member: Member, days: float | None = None) -> Input:
    return Input(tag=tag, digest=member.digest, frame_id=member.frame_id, days=days)


def _frame_changes(group: GroupView, step: StepView) -> str:
    """Say in which frames a group differs from what a step of it used, '' if in none."""
    here = {member.frame_id for member in group.members}
    more, less = len(here - step.frames), len(step.frames - here)
    return f"Its frames changed after it was made: {more} came, {less} went." if more or less else ""


def _method_changes(now: Method, then: Method) -> list[str]:
    """Say in what the way in which a step would be made differs from how it was."""
    if now.recipe != then.recipe:
        return [f"{now.recipe} makes it now, not {then.recipe}."]
    changes = []
    if now.version != then.version:
        changes.append(f"{now.recipe} is of version {now.version} now, it was made by version {then.version}.")
    for name in sorted({*now.parameters, *then.parameters}):
        here, there = (method.parameters.get(name, "(not there)") for method in (now, then))
        if here != there:
            changes.append(f"The parameter {name} of {now.recipe} is {here} now, it was made with {there}.")
    return changes


def _changed_companion(wanted: Companion, member: Member | None, taken: int | None) -> str:
    if member is None:
        return f"{wanted.tag}: the frame that it took along fits no more."
    return (
        f"{wanted.tag}: {member.dp_id} {'is closer than the one that it took' if taken else 'came after it was made'}."
    )


def _changed_mind(need: Need, chosen: ProductView | None, used: ProductView | None) -> str:
    if chosen and used and chosen.product_id == used.product_id:
        return f"{need.catg}: the files of {chosen.candidate.name} are others for some channels."
    if chosen and used:
        return f"{need.catg}: {chosen.candidate.name} is to be used instead of {used.candidate.name}."
    if chosen:
        return f"{need.catg}: {chosen.candidate.name} came after it was made without one."
    return f"{need.catg}: {used.candidate.name if used else 'what was used'} may no longer be used, and no other fits."


def absent(group: GroupView, need: Need, policy: Policy, choice: Choice | None = None) -> str:
    """Say that a calibration is not there, with the setup and the window that it would need.

    Parameters
    ----------
    choice : Choice, optional
        What was turned down; what lacks a certification alone is told.
    """
    days = reach(need, policy)
    keys = " and ".join(f"{key} {group.setup.value(key) or '(not set)'}" for key in need.match)
    time = f"{time_of(group.mjd):%Y-%m-%d %H:%M} UT"
    when = f"valid at {time}" if math.isinf(days) else f"within {days:g} d of {time}"
    wanted = f"{need.catg}{f' with {keys}' if keys else ''}, {when}"
    lacking = held_back(group, need, choice, policy) if choice else ()
    if not lacking:
        return f"{wanted}: there is none."
    reasons = " ".join(refusal.reason for refusal in lacking[:_TOLD])
    return f"{wanted}: none may be used. {reasons} `musecal certify P{lacking[0].candidate.product_id}` lets it serve."


def _input(need: Need, best: Match, product: ProductView) -> Input:
    return Input(
        tag=need.catg,
        digest=product.digest,
        product_id=product.product_id,
        level=best.level,
        days=best.days,
        certification=product.candidate.certification,
        differences=best.differences,
    )
