"""Rows as plain records: the same facts go into tables and into JSON."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from archive.models import Arrival, Event, Frame, Group, Part, Product, Step, Use
from archive.night import time_of
from archive.setup import Setup, SetupKey
from archive.states import PartState, Score
from archive.validity import Validity
from daemon.cli.identifiers import Subject, label
from daemon.report import NightReport, report_record
from daemon.verdict import Examination, JudgedNight
from tasks.cascade import RECIPES, RULES, STEPS, STEPS_BY_TAG, Need
from tasks.completeness import Take
from tasks.engines import engine_of
from tasks.intake import Taken
from tasks.orders import waits_for_pair
from tasks.score import worst
from tasks.verdicts import Appraisal

Record = dict[str, Any]
_SCORES = (Score.GREEN, Score.YELLOW, Score.RED)


def record_of(row: Subject) -> Record:
    """Return what there is to say about one row, without what belongs to its neighbours."""
    match row:
        case Arrival():
            return _arrival(row)
        case Frame():
            return _frame(row)
        case Group():
            return _group(row)
        case Step():
            return _step(row)
        case Product():
            return _product(row)


def details_of(row: Subject) -> Record:
    """Return the record of a row with its neighbours: frames of a group, parts and inputs of a step, and so on."""
    record = record_of(row)
    match row:
        case Arrival(frame=Frame() as frame):
            record["frame"] = _frame(frame)
        case Arrival(product=Product() as product):
            record["product"] = _product(product)
        case Frame():
            record["arrivals"] = [_arrival(arrival) for arrival in row.arrivals]
            record["steps"] = [_step(step) for step in (row.group.steps if row.group else ())]
        case Group():
            record["frames"] = [_frame(frame) for frame in row.frames]
            record["steps"] = [_step(step) for step in row.steps]
        case Step():
            record["parts"] = [_part(part) for part in row.parts]
            record["uses"] = [_use(use) for use in row.uses]
            record["products"] = [_product(product) for product in row.products]
        case Product():
            record["step"] = _step(row.step) if row.step else None
            record["arrivals"] = [_arrival(arrival) for arrival in row.arrivals]
            record["measurements"] = [
                {
                    "channel": item.channel, "name": item.name, "value": item.text or item.value,
                    "score": item.score, "remark": item.remark,
                }
                for item in sorted(row.measurements, key=lambda item: (item.channel, item.id))
            ]  # fmt: skip
            record["channel_scores"] = _by_channel(row)
        case Arrival():
            pass  # a file without a frame has no neighbours
    return record


def _by_channel(row: Product) -> list[Record]:
    """Return the score of each channel, 0 being the product as a whole, and how many of its values have which."""
    counts: dict[int, Counter[str]] = {}
    for item in row.measurements:
        counts.setdefault(item.channel, Counter())[item.score] += 1
    return [
        {"channel": channel, "score": worst(found), **{f"{score}": found[score] for score in _SCORES}}
        for channel, found in sorted(counts.items())
    ]


def appraisal_record(row: Product, appraisal: Appraisal, was: Score | str) -> Record:
    """Return what a product was found to be worth: every value that was scored, with a sentence if it is not green."""
    return {
        "id": label(row),
        "name": row.name,
        "catg": row.catg,
        "night": row.night,
        "was": was,
        "score": appraisal.score,
        "score_reason": appraisal.reason,
        "certification": row.certification,
        "thresholds": appraisal.thresholds,
        "channels": [{"channel": channel, "score": score} for channel, score in appraisal.channels.items()],
        "marks": [vars(mark) for mark in appraisal.marks if mark.score is not Score.NONE],
    }


def event_record(event: Event) -> Record:
    """Return one line of a row's history."""
    return {"at": event.at, "what": event.what, "why": event.why, "data": event.data}


def _arrival(row: Arrival) -> Record:
    return {
        "id": label(row),
        "path": row.path,
        "kept": row.kept,
        "state": row.state,
        "reason": row.reason,
        "size": row.size,
        "digest": row.digest,
        "frame_id": row.frame_id and f"F{row.frame_id}",
        "product_id": row.product_id and f"P{row.product_id}",
        "first_seen": row.first_seen,
        "settled": row.settled,
    }


def _frame(row: Frame) -> Record:
    return {
        "id": label(row),
        "dp_id": row.dp_id,
        "version": row.version,
        "tag": row.tag,
        "rule": row.rule,
        "night": row.night,
        "time": time_of(row.mjd),
        "exptime": row.exptime,
        "template": f"{row.tpl_id} {row.tpl_expno}/{row.tpl_nexp}" if row.tpl_id else "",
        "template_start": row.tpl_start,
        "lamps": row.lamps,
        "channels": row.channels,
        "setup": _setup(row),
        "origfile": row.origfile,
        "path": row.path,
        "size": row.size,
        "digest": row.digest,
        "ingested": row.ingested,
        "superseded_by": row.superseded_by and f"F{row.superseded_by}",
        "group": row.group_id and f"G{row.group_id}",
    }


def _group(row: Group) -> Record:
    return {
        "id": label(row),
        "tag": row.tag,
        "key": row.key,
        "night": row.night,
        "state": row.state,
        "reason": row.reason,
        "received": sum(frame.superseded_by is None for frame in row.frames),
        "expected": row.expected,
        "partner": row.partner_id and f"G{row.partner_id}",
        "released": row.released,
        "last_arrival": row.last_arrival,
        "closes": row.closes,
    }


def _step(row: Step) -> Record:
    work = [part for part in row.parts if part.channel]
    return {
        "id": label(row),
        "name": row.name,
        "group": f"G{row.group_id}",
        "night": row.group.night,
        "sequence": row.sequence,
        "state": row.state,
        "unreleased": waits_for_pair(row),
        "priority": row.priority,
        "recipe": f"{row.recipe} {row.recipe_version}".strip(),
        "engine": engine_of(row.recipe_version) if row.recipe else "",
        "parameters": row.parameters,
        "missing": row.missing,
        "stale": row.stale,
        "warnings": row.warnings,
        "score": worst(product.score for product in row.products),
        "error": row.error,
        "error_kind": row.error_kind,
        "channels_done": sum(part.state is PartState.DONE for part in work),
        "channels_failed": sum(part.state is PartState.FAILED for part in work),
        "channels": len(work),
        "cpu_seconds": sum(part.seconds or 0.0 for part in row.parts),
        "not_before": row.not_before,
        "created": row.created,
        "queued": row.queued,
        "started": row.started,
        "ended": row.ended,
    }


def _part(row: Part) -> Record:
    return {
        "channel": row.channel,
        "state": row.state,
        "attempt": row.attempt,
        "crashes": row.crashes,
        "worker": row.worker,
        "lease_until": row.lease_until,
        "started": row.started,
        "ended": row.ended,
        "cpu_seconds": row.seconds,
        "memory": row.memory,
        "error": row.error,
        "error_kind": row.error_kind,
    }


def _use(row: Use) -> Record:
    return {
        "tag": row.tag,
        "frame": row.frame_id and f"F{row.frame_id}",
        "product": row.product_id and f"P{row.product_id}",
        "name": row.product.name if row.product else (row.frame.dp_id if row.frame else ""),
        "level": row.level,
        "days": row.days,
        "certification": row.certification,
        "response": row.product.response if row.product else None,
        "differences": row.differences,
    }


def _product(row: Product) -> Record:
    return {
        "id": label(row),
        "name": row.name,
        "dp_id": row.dp_id,
        "catg": row.catg,
        "night": row.night,
        "time": time_of(row.mjd),
        "certification": row.certification,
        "judge": row.judge,
        "score": row.score,
        "score_reason": row.score_reason,
        "thresholds": row.thresholds,
        "compared": row.compared_id and f"P{row.compared_id}",
        "static": row.static,
        "response": row.response,
        "pair": pair_of(row),
        "channels": row.channels,
        "setup": _setup(row),
        "path": row.path,
        "size": row.size,
        "digest": row.digest,
        "step": row.step_id and f"S{row.step_id}",
        "created": row.created,
    }


def pair_of(row: Product) -> list[str]:
    """Return the other half of a monthly pair: the geometry table of a solution, or the solutions of a table."""
    return [label(other) for other in ([row.geometry] if row.geometry else row.solutions)]


def taken_record(path: Path, taken: Taken) -> Record:
    """Return what became of a file that was given by hand."""
    return {
        "file": str(path),
        "state": taken.state,
        "frame": taken.frame_id and f"F{taken.frame_id}",
        "product": taken.product_id and f"P{taken.product_id}",
        "reason": taken.reason,
    }


def static_record(validity: Validity) -> Record:
    """Return a static calibration with the time for which it is valid."""
    return _product(validity.product) | {
        "valid_from": time_of(validity.product.mjd),
        "valid_until": time_of(validity.until) if math.isfinite(validity.until) else None,
        "standing": validity.standing,
    }


def cascade_record() -> Record:
    """Return the cascade table as plain values; a reach without end is null."""
    return {
        "rules": [
            {
                "tag": rule.tag,
                "conditions": str(rule).partition(": ")[2],
                "step": STEPS_BY_TAG[rule.tag].name if rule.tag in STEPS_BY_TAG else None,
            }
            for rule in RULES
        ],
        "steps": [
            {
                "name": step.name,
                "raw": step.raw,
                "recipe": step.recipe_name,
                "has_recipe": step.recipe_name in RECIPES,
                "usual": step.usual,
                "minimum": step.minimum,
                "lamps": list(step.lamps),
                "makes": list(step.makes),
                "statics": list(step.statics),
                "pair": {"tag": step.pair.tag, "days": step.pair.days} if step.pair else None,
                "needs": [_need(need) for need in step.needs],
                "companions": [vars(companion) | {"match": list(companion.match)} for companion in step.companions],
            }
            for step in STEPS
        ],
    }


def _need(need: Need) -> Record:
    levels = {str(level.level): None if math.isinf(level.days) else level.days for level in need.levels}
    return {
        "catg": need.catg,
        "match": list(need.match),
        "optional": need.optional,
        "days_by_level": levels,
        "response": need.response,
        "of_pair": need.of_pair,
        "until": time_of(need.until) if math.isfinite(need.until) else None,
    }


def examination_record(examination: Examination) -> Record:
    """Return the verdicts on nights, how their calibrations stand, and what is worth taking."""
    return {
        "verdict": examination.verdict,
        "nights": [judged_record(night) for night in examination.nights],
        "take": [take_record(take) for take in examination.take],
    }


def night_record(report: NightReport, examined: Record) -> Record:
    """Return the night report, with the verdict before it; ``examined`` is the examination of that night alone."""
    [judged] = examined["nights"]
    return {**judged, "take": examined["take"], **report_record(report)}


def judged_record(judged: JudgedNight) -> Record:
    """Return the verdict on a night with its reasons, and how its calibrations stand."""
    return {
        "night": judged.night,
        "over": judged.completeness.over,
        "verdict": judged.verdict,
        "score": judged.score,
        "reasons": [vars(reason) for reason in judged.reasons],
        "calibrations": [
            vars(calibration)
            | {
                "setting": _keys(calibration.setting),
                "sources": list(calibration.sources),
                "serves": list(calibration.serves),
                "take": take_record(calibration.take) if calibration.take else None,
            }
            for calibration in judged.completeness.calibrations
        ],
    }


def take_record(take: Take) -> Record:
    """Return frames that are worth taking, with the sentence."""
    return vars(take) | {
        "lamps": list(take.lamps),
        "setting": _keys(take.setting),
        "nights": [{"night": night, "level": level} for night, level in take.nights],
        "sentence": str(take),
    }


def _setup(row: Frame | Product) -> Record:
    return {key: value for key, value in vars(row.setup).items() if value not in ("", 0)}


def _keys(setting: Setup) -> Record:
    """Return the keys of a setup that is nothing but a setting."""
    return {key: value for key, (value, _) in setting.differences(Setup(), tuple(SetupKey)).items()}
