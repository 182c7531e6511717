"""The verdict on a night: whether its calibrations are in order, and if not, why. Pure but for ``examine``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from sqlalchemy.orm import Session

from archive.states import GroupState, Score, StepState
from daemon.report import Fate, Ledger, read_ledger
from tasks.completeness import Calibration, Completeness, Standing, Take, check, in_words, take_next
from tasks.inventory import Made, TakenGroup, take_stock
from tasks.score import worst

_NAMED = 3  # files in a sentence; the ledger of the night has all


class Verdict(StrEnum):
    """What a night is worth, the best first."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"  # not as the plan has it, yet everything in it can be calibrated, or may still come
    FAIL = "FAIL"  # somebody has to act, or exposures cannot be calibrated


class Concern(StrEnum):
    """What a reason is about."""

    COMPLETENESS = "completeness"
    SCORES = "scores"
    STEPS = "steps"
    LEDGER = "ledger"


@dataclass(frozen=True)
class Reason:
    """One reason why a night does not pass."""

    verdict: Verdict
    concern: Concern
    sentence: str


@dataclass(frozen=True, kw_only=True)
class JudgedNight:
    """A night with its verdict.

    Parameters
    ----------
    score : Score
        The worst of its products.
    reasons : tuple of Reason
        Why it does not pass, the worst first.
    """

    completeness: Completeness
    score: Score
    reasons: tuple[Reason, ...]

    @property
    def night(self) -> date:
        """The date on which it begins."""
        return self.completeness.night

    @property
    def verdict(self) -> Verdict:
        """The worst of its reasons."""
        return worst_verdict(reason.verdict for reason in self.reasons)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Some nights in order, and what is worth taking for them."""

    nights: tuple[JudgedNight, ...]
    take: tuple[Take, ...]

    @property
    def verdict(self) -> Verdict:
        """That of the worst night."""
        return worst_verdict(night.verdict for night in self.nights)


def worst_verdict(verdicts: Iterator[Verdict]) -> Verdict:
    """Return the worst of some verdicts; a night with no reason against it passes."""
    return max(verdicts, key=list(Verdict).index, default=Verdict.PASS)


def examine(
    session: Session, last: date, count: int, *, incoming: Mapping[Path, str], level: int, now: datetime
) -> Examination:
    """Judge so many nights, up to the last.

    Parameters
    ----------
    incoming : mapping of Path to str
        As for ``daemon.report.compile_report``.
    level : int
        The worst association level that is accepted.
    """
    nights = [last - timedelta(days=back) for back in reversed(range(count))]
    inventory = take_stock(session, nights[0], last, level=level)
    checked = check(inventory, nights, now, level=level)
    judged = tuple(
        judge_night(
            completeness,
            groups=[group for group in inventory.groups if group.night == completeness.night],
            outside=[product for product in inventory.outside if product.night == completeness.night],
            ledger=read_ledger(session, completeness.night, incoming),
        )
        for completeness in checked
    )
    return Examination(nights=judged, take=take_next(checked))


def judge_night(
    completeness: Completeness, *, groups: Sequence[TakenGroup], outside: Sequence[Made], ledger: Ledger
) -> JudgedNight:
    """Judge one night.

    Parameters
    ----------
    groups, outside
        Groups of the night, and products from outside.
    ledger : Ledger
        What became of its files.
    """
    products = [*(product for group in groups for product in group.products), *outside]
    reasons = [
        *(
            Reason(_weight(calibration, over=completeness.over), Concern.COMPLETENESS, _told(calibration))
            for calibration in completeness.calibrations
            if calibration.standing is not Standing.OK
        ),
        *_scores(products),
        *_steps(groups, completeness.calibrations),
        *_ledger(ledger),
    ]
    return JudgedNight(
        completeness=completeness,
        score=worst(product.score for product in products),
        reasons=tuple(sorted(reasons, key=lambda reason: -list(Verdict).index(reason.verdict))),
    )


def _weight(calibration: Calibration, *, over: bool) -> Verdict:
    """Return what a calibration that is not in order means: as long as the night lasts it may still be taken."""
    return Verdict.FAIL if calibration.lacking and over and calibration.wanted else Verdict.WARN


def _told(calibration: Calibration) -> str:
    instead = ""
    if calibration.serves:
        instead = f" {', '.join(calibration.serves)} {'serve' if len(calibration.serves) > 1 else 'serves'}"
        instead += f" at level {calibration.level}." if calibration.level is not None else "."
    what = f"{calibration.tag}{in_words(calibration.setting)}"
    return f"{what} {calibration.standing}: {calibration.reason}{instead}"


def _scores(products: Sequence[Made]) -> Iterator[Reason]:
    for score, verdict in ((Score.RED, Verdict.FAIL), (Score.YELLOW, Verdict.WARN)):
        if named := [f"P{product.product_id} {product.name}" for product in products if product.unjudged is score]:
            yield Reason(verdict, Concern.SCORES, f"Scored {score}, and judged by nobody: {', '.join(named)}.")


def _steps(groups: Sequence[TakenGroup], calibrations: Sequence[Calibration]) -> Iterator[Reason]:
    """Return what is wrong with steps; what failed weighs less where another group of the setting came out well."""
    replaced = {
        source for calibration in calibrations if calibration.standing is Standing.OK for source in calibration.sources
    }
    for group in groups:
        label = f"G{group.group_id}"
        for make in group.makes:
            step = f"S{make.step_id} {make.name}"
            if make.state is StepState.FAILED:
                verdict = Verdict.WARN if label in replaced else Verdict.FAIL
                yield Reason(verdict, Concern.STEPS, f"{step} failed: {make.error}")
            elif make.state is StepState.HELD:
                yield Reason(Verdict.WARN, Concern.STEPS, f"{step} is held by an operator.")
        if group.state is GroupState.INCOMPLETE:
            yield Reason(Verdict.WARN, Concern.STEPS, f"{label} ({group.tag}) is incomplete: {group.reason}")


def _ledger(ledger: Ledger) -> Iterator[Reason]:
    if not ledger.balanced:
        names = ledger.unexplained
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield Reason(Verdict.FAIL, Concern.LEDGER, f"Nothing explains {', '.join(names[:_NAMED])}{more}.")
    if count := ledger.fates.get(Fate.QUARANTINED):
        files = "file is" if count == 1 else "files are"
        yield Reason(Verdict.WARN, Concern.LEDGER, f"{count} {files} in quarantine.")
