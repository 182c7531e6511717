"""Why something is as it is: the rule, what is missing, what was turned down and for which value, what comes next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.history import history
from archive.models import Arrival, Frame, Group, Measurement, Product, Step, Use
from archive.night import time_of
from archive.select import Candidate, Choice, Match, astrometry_for, candidates
from archive.states import ArrivalState, Certification, GroupState, PartState, Score, StepState
from archive.validity import validities
from recipes.recipe import Recipe
from tasks.associating import retrieval_policy, view_alone
from tasks.cascade import STEPS, STEPS_BY_NAME, TARGETS_BY_TAG, CascadeStep, Need, Tag, Target, steps_of
from tasks.engines import engine_of, made_elsewhere
from tasks.failures import FINISH
from tasks.makes import products_where
from tasks.pairs import made_by_partner
from tasks.plan import choose_for, companion_for, needs_of, reach
from tasks.settings import Engine, Settings
from tasks.snapshot import GroupView, Policy
from tasks.survey import companions_near, groups_of, policy_of
from tasks.verdicts import SCORED

_VERDICTS = (SCORED, *(f"product {verdict}" for verdict in (Certification.CERTIFIED, Certification.REJECTED)))
_TOLD = 4  # candidates turned down that are told of each need in sentences; the record has all

_RESPONSES = {
    1: "its header has no ESO DRS MUSE FLUX FFCORR, so that the lamp spectrum of the flat is still in it",
    2: "its header has ESO DRS MUSE FLUX FFCORR, it is without the lamp spectrum of the flat",
}

Subject = Arrival | Frame | Group | Step | Product


@dataclass
class Explanation:
    """The answer to a person, and the same for programs.

    Parameters
    ----------
    sentences : list of str
        In reading order.
    record : dict
        Of values that JSON can hold.
    """

    sentences: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)

    def add(self, other: "Explanation", name: str) -> None:
        """Go on with the explanation of a neighbour, which the record calls ``name``."""
        self.sentences += other.sentences
        self.record.setdefault(name, []).append(other.record)


def explain(session: Session, row: Subject, settings: Settings) -> Explanation:
    """Explain one row of the registry as it is now.

    Parameters
    ----------
    row : Arrival, Frame, Group, Step or Product
    settings : Settings
        They decide which levels are accepted and when waiting ends.
    """
    match row:
        case Arrival():
            return _arrival(session, row, settings)
        case Frame():
            return _frame(session, row, settings)
        case Group():
            return _group(session, row, settings)
        case Step():
            return _step(session, row, settings)
        case Product():
            return _product(session, row)


def _arrival(session: Session, row: Arrival, settings: Settings) -> Explanation:
    watch = settings.watch
    quiet = row.settled or row.first_seen
    comes = {
        ArrivalState.WAITING: f"It is looked at again soon; unchanged for {watch.stalled_minutes:g} min it is stalled.",
        ArrivalState.STALLED: f"It is unchanged since {_time(quiet)}, is still looked at, and goes into quarantine "
        f"after {watch.truncated_minutes:g} min.",
        ArrivalState.QUARANTINED: f"It is kept as {row.kept}; `musecal quarantine release A{row.id}` gives it back.",
    }.get(row.state, "")
    said = Explanation(
        [
            text
            for text in (f"File {row.path}, seen first {_time(row.first_seen)}, is {row.state}.", row.reason, comes)
            if text
        ],
        {"subject": "arrival", "id": row.id, "path": row.path, "state": row.state, "reason": row.reason, "next": comes},
    )
    if row.frame is not None:
        said.add(_frame(session, row.frame, settings), "frames")
    if row.product is not None:
        said.add(_product(session, row.product), "products")
    return said


def _frame(session: Session, row: Frame, settings: Settings) -> Explanation:
    version = f", version {row.version}" if row.version > 1 else ""
    said = Explanation(
        [f"Frame {row.dp_id}{version} is {row.tag} by the rule {row.rule}."],
        {"subject": "frame", "id": row.id, "dp_id": row.dp_id, "tag": row.tag, "rule": row.rule},
    )
    problems = [event.why for event in history(session, row) if event.what == "frame ingested" and event.why]
    said.sentences += [f"Its header is not as it should be: {text}" for text in problems]
    said.record["problems"] = problems
    if row.superseded_by is not None:
        said.record["superseded_by"] = row.superseded_by
        said.sentences.append(f"It came again with other content as frame {row.superseded_by}, which takes its place.")
    elif row.group is not None:
        said.add(_group(session, row.group, settings), "groups")
    elif (target := TARGETS_BY_TAG.get(Tag(row.tag))) is not None:
        _add_handed_out(session, row, target, settings, said)
    else:
        said.sentences.append(_without_group(row.tag))
    return said


def _add_handed_out(session: Session, row: Frame, target: Target, settings: Settings, said: Explanation) -> None:
    """Say which calibrations a science frame is handed out with, and why no others."""
    view, policy = view_alone(row), retrieval_policy(settings)
    weighed, geometry = [], None
    for need in needs_of(target, view.mjd, policy):
        if need.catg == "ASTROMETRY_WCS":  # that of the geometry table, or none
            nothing = Choice(best=None, refusals=())
            choice = astrometry_for(session, geometry, setup=view.setup, mjd=view.mjd) if geometry else nothing
            weighed.append(_tell(need, view, policy, choice))
            continue
        choice, replaced = _choose(session, view, need, policy)
        weighed.append(_tell(need, view, policy, choice, replaced))
        if need.catg == "GEOMETRY_TABLE" and choice.best:
            geometry = session.get_one(Product, choice.best.candidate.product_id)
    missing = [one.record["catg"] for one in weighed if not one.record["best"] and not one.record["optional"]]
    provisional = [one.record["catg"] for one in weighed if one.record["certification"] == Certification.PROVISIONAL]
    there = f"{', '.join(missing)} is missing" if missing else "What is wanted with it is there"
    doubtful = f"; provisional is {', '.join(provisional)}" if provisional else ""
    said.sentences.append(f"No step reduces it. {there}{doubtful}: `musecal retrieve F{row.id}` hands it out.")
    said.record |= {"complete": not missing, "missing": missing, "provisional": provisional, "companions": []}
    for wanted in target.companions:
        member = companion_for(view, wanted, list(companions_near(session, wanted, view.mjd)))
        days = member.middle - view.mjd if member else None
        told = f"{member.dp_id}, {abs(days) * 24:.1f} h away" if member and days is not None else "none is near enough"
        said.sentences.append(f"{wanted.tag}: {told}.")
        said.record["companions"].append({"tag": wanted.tag, "frame": member and member.dp_id, "days": days})
    for one in weighed:
        said.add(one, "needs")


def _without_group(tag: str) -> str:
    steps = [step.name for step in STEPS for wanted in step.companions if wanted.tag == tag]
    if steps:
        return f"It is not reduced by itself; the steps {', '.join(steps)} take the nearest {tag} frame along."
    if tag == Tag.UNKNOWN:
        return "It is kept and listed; nothing is made of it."
    return f"It is kept; the cascade makes nothing of {tag} frames."


def _group(session: Session, row: Group, settings: Settings) -> Explanation:
    comes = f"It closes at {_time(row.closes)} at the latest." if row.state is GroupState.OPEN else ""
    if row.state is GroupState.ARCHIVED:
        comes = f"`musecal requeue G{row.id}` has our recipes reduce it."
    if row.state is GroupState.INCOMPLETE:
        comes = "Nothing is made of it unless another frame of it comes."
    said = Explanation(
        [text for text in (f"Group {row.id} ({row.tag}, {row.key}) is {row.state}: {row.reason}", comes) if text],
        {
            "subject": "group", "id": row.id, "tag": row.tag, "key": row.key, "state": row.state, "reason": row.reason,
            "frames": [frame.dp_id for frame in row.frames], "expected": row.expected, "closes": row.closes.isoformat(),
            "partner": row.partner_id, "released": row.released and row.released.isoformat(), "next": comes,
        },
    )  # fmt: skip
    if row.partner is not None:
        released = f"released {_time(row.released)}" if row.released else "not released yet"
        said.sentences.append(f"It is one pair with group {row.partner.id} ({row.partner.tag}), {released}.")
    for step in sorted(row.steps, key=lambda step: (step.name, step.sequence)):
        said.add(_step(session, step, settings), "steps")
    return said


def _step(session: Session, row: Step, settings: Settings) -> Explanation:
    make = f", make {row.sequence}" if row.sequence > 1 else ""
    comes = _next_of(row)
    said = Explanation(
        [f"Step {row.id} ({row.name}{make}) of group {row.group_id} is {row.state}."],
        {
            "subject": "step", "id": row.id, "name": row.name, "group": row.group_id, "sequence": row.sequence,
            "state": row.state, "missing": row.missing, "warnings": row.warnings, "error": row.error,
            "error_kind": row.error_kind, "stale": row.stale, "next": comes,
            "recipe": row.recipe, "version": row.recipe_version,
        },
    )  # fmt: skip
    if engine_of(row.recipe_version) is Engine.ESOREX:
        said.sentences.append(f"ESO's recipe makes it ({row.recipe}, {row.recipe_version}).")
    if made_elsewhere(row.recipe_version):
        said.sentences.append(f"What it stands for was made elsewhere ({row.recipe}, {row.recipe_version}).")
    made = [event.why for event in history(session, row) if event.what == "step made" and event.why]
    said.sentences += [f"It was made again: {text}" for text in made]
    said.sentences += [f"It waits: {text}" for text in row.missing]
    said.sentences += [f"Warning: {text}" for text in row.warnings]
    if row.error:
        said.sentences.append(f"It failed ({row.error_kind}): {row.error}")
    if row.stale:
        said.sentences.append(f"It is stale: {row.stale}")
    said.record["through"] = _add_through(session, row, said, set())
    said.sentences.append(comes)
    said.record["uses"] = [_used(use) for use in row.uses]
    said.sentences += [_used_sentence(use) for use in row.uses if use.product]
    step, policy = STEPS_BY_NAME[row.name], policy_of(settings)
    if isinstance(step.recipe, Recipe) and not made_elsewhere(row.recipe_version):
        said.record["mode"] = policy.mode
        if policy.certified:
            said.sentences.append("Mode paranal: only certified ones are taken, and nothing under way is waited for.")
        group = next(groups_of(session, [row.group_id]))
        for need in needs_of(step, group.mjd, policy):
            said.add(_weigh(session, group, need, policy), "needs")
    return said


def _add_through(session: Session, row: Step, said: Explanation, seen: set[int]) -> list[dict[str, Any]]:
    """Say why the inputs of a stale step are stale themselves, down to what changed; each step once."""
    found = []
    for step in dict.fromkeys(use.product.step for use in row.uses if use.product and use.product.step):
        alike = (Step.group_id == step.group_id, Step.name == step.name, Step.state == StepState.DONE)
        newest = session.scalars(select(Step).where(*alike).order_by(Step.sequence.desc()).limit(1)).one()
        if row.stale and newest.stale and newest.id not in seen:
            seen.add(newest.id)
            said.sentences.append(f"  Step {newest.id} ({newest.name}) is stale: {newest.stale}")
            found.append({"step": newest.id, "name": newest.name, "stale": newest.stale})
            found += _add_through(session, newest, said, seen)
    return found


def explain_for(session: Session, product: Product, row: Subject, settings: Settings) -> Explanation:
    """Explain whether a product could be used for something else, and by which rule it is not.

    Parameters
    ----------
    row : Step, Group or Frame
        For a group, or a frame of one, each of its steps is meant.

    Raises
    ------
    LookupError
        Nothing is made of it, and nothing handed out with it.
    """
    view, targets, policy = _asked(session, row, settings)
    said = Explanation([], {"subject": "choice", "id": product.id, "name": product.name, "for": []})
    for name, target in targets.items():
        needs = [need for need in needs_of(target, view.mjd, policy) if need.catg == product.catg]
        if not needs:
            said.sentences.append(f"No: {name} takes no {product.catg}.")
            said.record["for"].append({"of": name, "chosen": False, "cause": "not needed", "reason": ""})
        for need in needs:
            _add_verdict(session, product, view, need, policy, name, said)
    of_group = select(Use.step_id).join(Use.step).where(Step.group_id == view.group_id)
    used = session.scalars(of_group.where(Use.product_id == product.id))
    said.record["used_by"] = sorted(used)
    said.sentences += [f"Step {step} used it." for step in said.record["used_by"]]
    return said


def _asked(
    session: Session, row: Subject, settings: Settings
) -> tuple[GroupView, dict[str, CascadeStep | Target], Policy]:
    """Return the exposures that are asked after, what takes calibrations for them, and by what settings."""
    if isinstance(row, Frame) and row.group is None and Tag(row.tag) in TARGETS_BY_TAG:
        target = TARGETS_BY_TAG[Tag(row.tag)]
        return view_alone(row), {f"what is handed out with frame {row.dp_id}": target}, retrieval_policy(settings)
    group = row if isinstance(row, Group) else row.group if isinstance(row, Frame | Step) else None
    if group is None:
        raise LookupError("It is neither a step, nor frames of which one makes something or with which one hands out.")
    steps = [STEPS_BY_NAME[row.name]] if isinstance(row, Step) else steps_of(Tag(group.tag))
    named: dict[str, CascadeStep | Target] = {f"the {step.name} step of group {group.id}": step for step in steps}
    return next(groups_of(session, [group.id])), named, policy_of(settings)


def _add_verdict(
    session: Session, product: Product, view: GroupView, need: Need, policy: Policy, name: str, said: Explanation
) -> None:
    """Say of one need whether a product is chosen for it, or what turned it down."""
    if need.of_pair:
        weighed = _weigh_of_pair(session, view, need, policy)
        chosen, cause, reason = weighed.record["best"] == product.name, "pair", weighed.sentences[0]
    else:
        choice, _ = _choose(session, view, need, policy)
        one = next(iter(products_where(session, Product.id == product.id).values()))
        alone = choose_for(view, need, [one.candidate], policy)
        chosen = choice.best is not None and choice.best.candidate.product_id == product.id
        others = (refusal for refusal in choice.refusals if refusal.candidate.product_id == product.id)
        refusal = next(others, None) or next(iter(alone.refusals), None)
        if chosen and choice.best:
            best, cause = choice.best, ""
            reason = f"It is {_distance_text(best)}, {best.candidate.certification}."
        elif refusal:
            cause, reason = refusal.cause, refusal.reason
        else:
            cause, reason = "replaced", _replaced(one.candidate, view)["reason"]
    answer = f"Yes: {product.name} fits {name} best" if chosen else f"No: for {name} it is not taken"
    said.sentences.append(f"{answer}. {reason}" if reason else f"{answer}.")
    said.record["for"].append({"of": name, "chosen": chosen, "cause": "" if chosen else cause, "reason": reason})


def _weigh(session: Session, group: GroupView, need: Need, policy: Policy) -> Explanation:
    """Say what would be chosen now for one need, and why each other one would not."""
    if need.of_pair:
        return _weigh_of_pair(session, group, need, policy)
    choice, replaced = _choose(session, group, need, policy)
    return _tell(need, group, policy, choice, replaced)


def _choose(session: Session, group: GroupView, need: Need, policy: Policy) -> tuple[Choice, list[Candidate]]:
    """Choose for one need as things are now; return also what a later make has replaced."""
    near = candidates(session, need.catg, mjd=group.mjd, days=reach(need, policy))
    condition = Product.id.in_([candidate.product_id for candidate in near])
    views = products_where(session, condition, certified=policy.certified)
    current = [candidate for candidate in near if candidate.product_id and views[candidate.product_id].current]
    return choose_for(group, need, current, policy), [candidate for candidate in near if candidate not in current]


def _replaced(candidate: Candidate, group: GroupView) -> dict[str, Any]:
    return {
        "name": candidate.name, "cause": "replaced", "days": round(candidate.mjd - group.mjd, 5),
        "reason": f"{candidate.name} was replaced by a later make of the same frames.", "differences": {},
    }  # fmt: skip


def _of_one_set(candidate: Candidate, best: Match) -> bool:
    """Return whether a static calibration is the file of another channel of the set that was chosen."""
    chosen = best.candidate
    alike = (candidate.mjd, candidate.setup, candidate.made) == (chosen.mjd, chosen.setup, chosen.made)
    return chosen.static and alike and candidate.certification is chosen.certification


def _distance_text(best: Match) -> str:
    """Say how far what was chosen is in time; a static one is valid from its day on, however long ago that was."""
    if best.candidate.static:
        return f"valid from {time_of(best.candidate.mjd):%Y-%m-%d} on"
    return f"{abs(best.days):.2f} d away, level {best.level}"


def _tell(
    need: Need, group: GroupView, policy: Policy, choice: Choice, replaced: Sequence[Candidate] = ()
) -> Explanation:
    """Say what was chosen for one need, and why each other one was not."""
    best = choice.best
    of_set = [refusal.candidate.name for refusal in choice.refusals if best and _of_one_set(refusal.candidate, best)]
    refused = [
        {
            "name": refusal.candidate.name, "cause": refusal.cause, "days": round(refusal.days, 5),
            "reason": refusal.reason, "differences": {key: list(both) for key, both in refusal.differences.items()},
        }
        for refusal in choice.refusals if refusal.candidate.name not in of_set
    ] + [_replaced(candidate, group) for candidate in replaced]  # fmt: skip
    if best:
        name, certification = best.candidate.name, best.candidate.certification
        version = f" (version {best.candidate.response})" if best.candidate.response else ""
        now = f"{name}{version} fits best, {_distance_text(best)}, {certification}."
    else:
        now = "none fits; it goes without." if need.optional else "none fits."
    told = [str(item["reason"]) for item in refused[:_TOLD]]
    if len(refused) > _TOLD:
        told.append(f"{len(refused) - _TOLD} more were turned down.")
    told += [f"{', '.join(of_set)} of the same set go with it."] if of_set else []
    return Explanation(
        [f"{need.catg}: {now}", *(f"  {text}" for text in told)],
        {
            "catg": need.catg, "match": list(need.match), "optional": need.optional,
            "reach": _number(reach(need, policy)), "best": best and best.candidate.name,
            "level": best and best.level, "days": best and round(best.days, 5),
            "certification": best and best.candidate.certification,
            "response": best and best.candidate.response, "turned_down": refused,
        },
    )  # fmt: skip


def _weigh_of_pair(session: Session, group: GroupView, need: Need, policy: Policy) -> Explanation:
    """Say what the other step of the pair has made of one need."""
    made = products_where(session, (Product.catg == need.catg) & (Step.group_id == (group.partner or 0)))
    best = made_by_partner(group, [view.candidate for view in made.values()], certified=policy.certified).best
    name = best and best.candidate.name
    return Explanation(
        [f"{need.catg}: only that of its pair is taken; {f'that is {name}' if name else 'it is not made yet'}."],
        {
            "catg": need.catg, "match": [], "optional": False, "reach": None, "best": name,
            "level": best and best.level, "days": best and round(best.days, 5),
            "certification": best and best.candidate.certification, "turned_down": [],
        },
    )  # fmt: skip


def _used(use: Use) -> dict[str, Any]:
    return {
        "tag": use.tag,
        "name": use.product.name if use.product else use.frame.dp_id if use.frame else "",
        "level": use.level,
        "days": use.days,
        "certification": use.certification,
        "response": use.product.response if use.product else None,
        "differences": use.differences,
    }


def _next_of(step: Step) -> str:
    """Say when and how a step goes on."""
    channels = [part for part in step.parts if part.channel != FINISH]
    done = sum(part.state is PartState.DONE for part in channels)
    later = max(
        (part.not_before for part in step.parts if part.not_before and part.state is PartState.QUEUED), default=None
    )
    match step.state:
        case StepState.WAITING if not isinstance(STEPS_BY_NAME[step.name].recipe, Recipe):
            return "It goes on once there is a recipe."
        case StepState.WAITING:
            return "The planner looks at it again after every arrival and every finished step, and every few seconds."
        case StepState.QUEUED | StepState.RUNNING:
            wait = f" What failed for now is tried again from {_time(later)} on." if later else ""
            return (
                f"{done} of {len(channels)} channels are done; the others are with the workers or wait for one.{wait}"
            )
        case StepState.DONE if step.stale:
            return f"`musecal requeue S{step.id}` makes it again."
        case StepState.DONE:
            made = ", ".join(product.name for product in step.products)
            return f"It made {made}." if made else "What it was to make was there already, of the same inputs."
        case StepState.HELD:
            return f"It goes on after `musecal release S{step.id}`."
        case _:
            return f"`musecal requeue S{step.id}` takes it up again."


def _product(session: Session, row: Product) -> Explanation:
    view = products_where(session, Product.id == row.id)[row.id]
    users = session.scalars(select(Use.step_id).where(Use.product_id == row.id).order_by(Use.step_id)).all()
    origin = (
        f"step {row.step.id} ({row.step.name}) of group {row.step.group_id}"
        if row.step
        else "another pipeline, whose frames are not here"
        if row.run
        else "outside, as a static one"
    )
    standing = f"{row.certification}{f', scored {row.score}' if row.score else ''}"
    said = Explanation(
        [
            f"Product {row.name} ({row.catg}) comes from {origin}; it is {standing}.",
            f"It is used by step {', '.join(map(str, users))}." if users else "No step uses it.",
        ],
        {
            "subject": "product", "id": row.id, "name": row.name, "catg": row.catg, "certification": row.certification,
            "score": row.score, "step": row.step_id, "current": view.current, "used_by": list(users),
            "static": row.static, "response": row.response,
        },
    )  # fmt: skip
    said.sentences[1:1] = _score_sentences(session, row)
    said.record |= {
        "judge": row.judge, "score_reason": row.score_reason, "thresholds": row.thresholds,
        "not_green": [
            {"channel": item.channel, "name": item.name, "value": item.value, "score": item.score, "why": item.remark}
            for item in _not_green(session, row)
        ],
        "verdicts": [
            {"at": event.at.isoformat(), "what": event.what, "why": event.why, **event.data}
            for event in history(session, row) if event.what in _VERDICTS
        ],
    }  # fmt: skip
    if row.response is not None:
        said.sentences.append(f"It is a response of version {row.response}: {_RESPONSES[row.response]}.")
    if row.static:
        _add_validity(session, row, said)
    if row.certification is Certification.REJECTED:
        said.sentences.append("It was rejected, so that nothing takes it any more.")
    elif not view.current:
        said.sentences.append("A later make of the same frames has taken its place.")
    if row.step is not None:
        said.record["made_of"] = [_used(use) for use in row.step.uses]
        said.sentences += [_used_sentence(use) for use in row.step.uses if use.product]
    return said


def _score_sentences(session: Session, row: Product) -> list[str]:
    """Say what a product was scored by, what is not green, and each verdict so far."""
    if not row.thresholds:
        told = [f"No threshold is for a {row.catg}, so that a person has to judge it."] if not row.judge else []
    elif row.score_reason:
        told = [f"Scored by the thresholds {row.thresholds}: {row.score_reason}"]
    else:
        told = [f"By the thresholds {row.thresholds} it is {row.score or 'not scored: none is for what was measured'}."]
    if row.compared is not None:
        told.append(f"It was compared with {row.compared.name}, the one before it.")
    for event in history(session, row):
        if event.what == SCORED:
            told.append(f"{_time(event.at)}: scored {event.data['score'] or 'nothing'}, {event.data['certification']}.")
        elif event.what in _VERDICTS:
            told.append(f"{_time(event.at)}: {event.what.removeprefix('product ')} by a person: {event.why}")
    return told


def _not_green(session: Session, row: Product) -> Sequence[Measurement]:
    bad = (Measurement.product_id == row.id, Measurement.score.in_((Score.YELLOW, Score.RED)))
    return session.scalars(select(Measurement).where(*bad).order_by(Measurement.channel, Measurement.id)).all()


def _add_validity(session: Session, row: Product, said: Explanation) -> None:
    """Say for which exposures a static calibration is valid, and which one it is paired with."""
    validity = next(validity for validity in validities(session, row.catg) if validity.product.id == row.id)
    until = f"until {_time(time_of(validity.until))}" if math.isfinite(validity.until) else "until there is a newer one"
    said.sentences.append(f"It is {validity.standing}: for exposures from {_time(time_of(row.mjd))} on, {until}.")
    pair = [row.geometry.name] if row.geometry else [solution.name for solution in row.solutions]
    if pair:
        said.sentences.append(f"It is used only together with {', '.join(pair)}." if row.geometry else
                              f"Made with it, and used only together with it: {', '.join(pair)}.")  # fmt: skip
    elif row.catg == "ASTROMETRY_WCS":
        said.sentences.append("The geometry table that it was made with is not here, so that nobody gets it.")
    said.record |= {
        "standing": validity.standing, "valid_from": time_of(row.mjd).isoformat(),
        "valid_until": time_of(validity.until).isoformat() if math.isfinite(validity.until) else None, "pair": pair,
    }  # fmt: skip


def _used_sentence(use: Use) -> str:
    used = _used(use)
    version = f" (version {used['response']})" if used["response"] else ""
    differing = ", ".join(f"{key} {found} (wanted {wanted})" for key, (wanted, found) in use.differences.items())
    if use.level is None:  # nothing was chosen here: its header names it
        return f"{use.tag}: {used['name']}{version} was used{f', {abs(use.days):.2f} d away' if use.days else ''}."
    return (
        f"{use.tag}: {used['name']}{version} was used, {abs(use.days or 0):.2f} d away, level {use.level}, "
        f"then {use.certification}{f'; differs in {differing}' if differing else ''}."
    )


def _number(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UT"
