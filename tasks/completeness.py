"""What is there of the calibration plan, night by night, and what to take next: ESO's calChecker. Pure.

A calibration is OK, NOK (there, but not as it should be), MISSING, or PENDING (still on its way). Whether a night can
do without is another question, which the choice of the nearest product answers: what serves instead, and how well.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from archive.night import mjd_of, night_ends, time_of
from archive.select import Candidate, Match, choose
from archive.setup import Setup
from archive.states import GroupState, Score, StepState
from recipes.muse import Lamp
from tasks.calibrationplan import CALIBRATION_PLAN, NOMINAL, PlannedCalibration, needs_by_catg
from tasks.cascade import Need, Tag
from tasks.inventory import Exposure, Inventory, Made, Make, TakenGroup
from tasks.score import worst


class Standing(StrEnum):
    """How a calibration of a night stands, the best first."""

    OK = "OK"
    PENDING = "PENDING"  # still arriving, or being reduced
    NOK = "NOK"  # there, but incomplete, failed, red, rejected, or out of its validity
    MISSING = "MISSING"


@dataclass(frozen=True, kw_only=True)
class Take:
    """Frames that are worth taking.

    Parameters
    ----------
    number : int
    lamps : tuple of Lamp
        They share the frames.
    setting : Setup
        The keys that count, in a setup that has no others.
    template : str
        ESO's name.
    before : datetime
    nights : tuple of (date, int)
        Nights that it is for, each with the association level that it would have there; 0 is the plan.
    """

    tag: Tag
    number: int
    lamps: tuple[Lamp, ...]
    setting: Setup
    template: str
    before: datetime
    nights: tuple[tuple[date, int], ...]

    def __str__(self) -> str:
        each = f" ({self.number // len(self.lamps)} each of {', '.join(self.lamps)})" if self.lamps else ""
        nights = ", ".join(f"{night}{f' at level {level}' if level else ''}" for night, level in self.nights)
        return (
            f"Take {self.number} {self.tag}{each}{in_words(self.setting)} ({self.template}) "
            f"before {self.before:%Y-%m-%d %H:%M} UT, for the night{'s' * (len(self.nights) > 1)} of {nights}."
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How one type of calibration stands in one night and setting.

    Parameters
    ----------
    setting : Setup
        The keys that count, in a setup that has no others.
    wanted : bool
        The plan has it for this night; False if it was taken without.
    standing : Standing
    found, number : int
        Frames of the best group, and as the plan has them.
    reason : str
    sources : tuple of str
        Labels of the groups and products that were looked at, the best first.
    score : Score
        The worst of its products, those aside that somebody certified.
    serves : tuple of str
        What exposures of the night take: names of products, or groups in progress.
    level : int or None
        The worst association level of those; None if there are none, or no exposures.
    lacking : bool
        Exposures of the night need it, and nothing serves.
    remedy : str
        What can be done without new frames, '' if nothing.
    take : Take or None
        What is worth taking.
    """

    night: date
    tag: Tag
    setting: Setup
    wanted: bool
    standing: Standing
    found: int
    number: int
    reason: str
    sources: tuple[str, ...] = ()
    score: Score = Score.NONE
    serves: tuple[str, ...] = ()
    level: int | None = None
    lacking: bool = False
    remedy: str = ""
    take: Take | None = None


@dataclass(frozen=True, kw_only=True)
class Completeness:
    """How the calibrations of one night stand."""

    night: date
    over: bool
    calibrations: tuple[Calibration, ...]


class _Finding(NamedTuple):
    """What one group, or the products from outside of one night, say of a calibration."""

    standing: Standing
    reason: str
    night: date
    found: int = 0
    score: Score = Score.NONE
    sources: tuple[str, ...] = ()
    remedy: str = ""
    retake: bool = True

    def rank(self, night: date) -> tuple[object, ...]:
        """Return by what the best one is told: how it stands, then its score, then how near it is."""
        distance = abs((night - self.night).days)
        standing, doubtful = list(Standing).index(self.standing), self.score is Score.YELLOW
        return standing, doubtful, distance, -self.found, self.night, self.sources


class _Service(NamedTuple):
    """What serves the exposures of a setting."""

    matches: tuple[Match, ...] = ()
    lacking: bool = False
    whole: bool = False
    need: Need | None = None

    @property
    def level(self) -> int | None:
        return max(match.level for match in self.matches) if self.whole and self.matches else None


def in_words(setting: Setup) -> str:
    """Return a setting as it stands in a sentence, with a blank and 'in' before it; '' if no key counts."""
    values = [str(value) for value in (setting.mode, setting.readout, setting.optics) if value]
    return f" in {' '.join(values)}" if values else ""


def check(inventory: Inventory, nights: Sequence[date], now: datetime, *, level: int) -> tuple[Completeness, ...]:
    """Hold nights against the calibration plan.

    Parameters
    ----------
    inventory : Inventory
        Of these nights.
    nights : sequence of date
        In order; what is due before its validity ends is told with the last of them.
    now : datetime
    level : int
        The worst association level that is accepted.
    """
    checks = _Check(inventory, now, level)
    return tuple(
        Completeness(
            night=night,
            over=now >= night_ends(night),
            calibrations=tuple(
                found
                for item in CALIBRATION_PLAN
                for found in checks.calibrations(item, night, last=night == nights[-1])
            ),
        )
        for night in nights
    )


def take_next(nights: Iterable[Completeness]) -> tuple[Take, ...]:
    """Return what is worth taking for nights, each once, by when it has to be taken."""
    together: dict[tuple[Tag, Setup, str], Take] = {}
    for take in (calibration.take for night in nights for calibration in night.calibrations if calibration.take):
        key = (take.tag, take.setting, take.template)
        other = together.get(key, take)
        together[key] = Take(
            tag=take.tag,
            number=take.number,
            lamps=take.lamps,
            setting=take.setting,
            template=take.template,
            before=min(take.before, other.before),
            nights=tuple(sorted({*take.nights, *other.nights})),
        )
    return tuple(sorted(together.values(), key=lambda take: (take.before, take.tag, take.setting)))


class _Check:
    """One check; what stands for a calibration is looked up by type."""

    def __init__(self, inventory: Inventory, now: datetime, level: int) -> None:
        self._now, self._level, self._candidates = now, level, inventory.candidates
        self._groups: dict[Tag, list[TakenGroup]] = {}
        self._outside: dict[str, list[Made]] = {}
        self._exposures: dict[date, list[Exposure]] = {}
        for group in inventory.groups:
            self._groups.setdefault(group.tag, []).append(group)
        for product in inventory.outside:
            self._outside.setdefault(product.catg, []).append(product)
        for exposure in inventory.exposures:
            self._exposures.setdefault(exposure.night, []).append(exposure)

    def calibrations(self, item: PlannedCalibration, night: date, *, last: bool) -> Iterator[Calibration]:
        """Return how one type stands in one night, setting by setting."""
        exposures: dict[Setup, list[Exposure]] = {}
        for exposure in self._exposures.get(night, ()):
            if exposure.tag in item.serves:
                exposures.setdefault(item.setting(exposure.setup), []).append(exposure)
        taken = {
            item.setting(group.setup): group.setup for group in self._groups.get(item.tag, ()) if group.night == night
        }
        wanted = {setting: served[0].setup for setting, served in exposures.items()}
        if item.always and not exposures:
            wanted = taken or {item.setting(NOMINAL): NOMINAL}
        for setting, setup in sorted({**taken, **wanted}.items()):
            served = exposures.get(setting, [])
            yield self._calibration(item, night, setup, served, wanted=setting in wanted, last=last)

    def _calibration(
        self,
        item: PlannedCalibration,
        night: date,
        setup: Setup,
        exposures: list[Exposure],
        *,
        wanted: bool,
        last: bool,
    ) -> Calibration:
        setting = item.setting(setup)
        findings = sorted(self._findings(item, setting, night), key=lambda finding: finding.rank(night))
        valid = [finding for finding in findings if _valid(item, finding.night, night)]
        best = valid[0] if valid else _absent(item, setting, night, findings)
        service = self._service(item, exposures)
        take = self._take(item, setup, night, best, exposures, service) if wanted else None
        if last and wanted and item.every > 1 and take is None:
            take = self._due(item, setup, night, valid)
        return Calibration(
            night=night,
            tag=item.tag,
            setting=setting,
            wanted=wanted,
            standing=best.standing,
            found=best.found,
            number=item.number,
            reason=best.reason,
            sources=tuple(dict.fromkeys(source for finding in valid for source in finding.sources)),
            score=best.score,
            serves=tuple(dict.fromkeys(match.candidate.name for match in service.matches)),
            level=service.level,
            lacking=service.lacking,
            remedy=best.remedy,
            take=take,
        )

    def _findings(self, item: PlannedCalibration, setting: Setup, night: date) -> Iterator[_Finding]:
        if item.step is None:
            alone = [
                exposure
                for exposure in self._exposures.get(night, ())
                if exposure.tag is item.tag and item.setting(exposure.setup) == setting
            ]
            if alone:
                yield _Finding(Standing.OK, f"{len(alone)} taken.", night, len(alone))
            return
        groups = [group for group in self._groups.get(item.tag, ()) if item.setting(group.setup) == setting]
        archived: Counter[date] = Counter()
        for group in groups:
            yield _judge_group(item, group)
            if group.state is GroupState.ARCHIVED:
                archived[group.night] = max(archived[group.night], group.received)
        outside: dict[date, list[Made]] = {}
        for catg in item.catgs:
            for product in self._outside.get(catg, ()):
                if all(setting.served_by(product.setup, key) for key in item.keys):
                    outside.setdefault(product.night, []).append(product)
        for found, products in outside.items():
            yield _judge_outside(item, found, products, archived[found])

    def _service(self, item: PlannedCalibration, exposures: list[Exposure]) -> _Service:
        """Choose what serves the middle of the exposures of a setting: products, and groups that are in progress."""
        if not exposures or not item.catgs:
            return _Service()
        mjd, setup = _middle(exposures), exposures[0].setup
        needs = needs_by_catg(tuple(dict.fromkeys(exposure.tag for exposure in exposures)))
        matches, lacking, whole, first = [], False, True, None
        for catg in item.catgs:
            for need in needs.get(catg, ()):
                first = first or need
                match = choose(
                    [*self._candidates.get(catg, ()), *self._coming(item)],
                    setup=setup,
                    mjd=mjd,
                    keys=need.match,
                    levels=tuple(one for one in need.levels if one.level <= self._level),
                    beside_statics=need.beside_statics,
                    response=need.response,
                ).best
                matches += [match] if match else []
                whole = whole and match is not None
                lacking = lacking or (match is None and not need.optional)
        return _Service(tuple(matches), lacking, whole, first)

    def _coming(self, item: PlannedCalibration) -> Iterator[Candidate]:
        """Return what groups in progress will give."""
        for group in self._groups.get(item.tag, ()):
            if _judge_group(item, group).standing is Standing.PENDING:
                yield Candidate(
                    product_id=None,
                    name=f"G{group.group_id} in progress",
                    mjd=group.mjd,
                    setup=group.setup,
                    static=bool(item.step and item.step.statics),
                )

    def _take(
        self,
        item: PlannedCalibration,
        setup: Setup,
        night: date,
        best: _Finding,
        exposures: list[Exposure],
        service: _Service,
    ) -> Take | None:
        """Return what is worth taking where it is asked for: for the plan, and after that for the exposures."""
        before = item.last_chance(night)
        asked = best.standing is Standing.MISSING or (best.standing is Standing.NOK and best.retake)
        if asked and self._now < before:
            return self._order(item, setup, before, night, 0)
        if not asked or service.need is None or (item.step and item.step.statics):
            return None
        middle = _middle(exposures)
        days = mjd_of(self._now) - middle
        later = next((one for one in service.need.levels if one.level <= self._level and days < one.days), None)
        if later is None or (service.level is not None and service.level <= later.level):
            return None
        return self._order(item, setup, time_of(middle + later.days), night, later.level)

    def _due(self, item: PlannedCalibration, setup: Setup, night: date, valid: Sequence[_Finding]) -> Take | None:
        """Return what is due again although the last one is still valid."""
        there = [finding.night for finding in valid if finding.standing in (Standing.OK, Standing.PENDING)]
        if not there or (night - max(there)).days < item.every:
            return None
        return self._order(item, setup, night_ends(max(there) + timedelta(days=item.valid_after)), night, 0)

    def _order(self, item: PlannedCalibration, setup: Setup, before: datetime, night: date, level: int) -> Take:
        return Take(
            tag=item.tag,
            number=item.number,
            lamps=item.lamps,
            setting=item.setting(setup),
            template=item.template_for(setup),
            before=before,
            nights=((night, level),),
        )


def _valid(item: PlannedCalibration, taken: date, night: date) -> bool:
    return -item.valid_before <= (night - taken).days <= item.valid_after


def _middle(exposures: Sequence[Exposure]) -> float:
    times = [exposure.mjd for exposure in exposures]
    return (min(times) + max(times)) / 2


def _absent(item: PlannedCalibration, setting: Setup, night: date, findings: Sequence[_Finding]) -> _Finding:
    """Return what there is to say where nothing is within the validity."""
    before = [finding for finding in findings if finding.standing is Standing.OK and finding.night < night]
    if not item.valid_after or not before:
        since = f"within {item.valid_after} nights" if item.valid_after else "in this night"
        return _Finding(Standing.MISSING, f"No {item.tag}{in_words(setting)} was taken {since}.", night)
    last = max(before, key=lambda finding: (finding.night, finding.sources))
    reason = (
        f"The last {item.tag}{in_words(setting)} is that of {last.night}, {(night - last.night).days} nights before; "
        f"the plan has one within {item.valid_after}."
    )
    return _Finding(Standing.NOK, reason, last.night)


def _judge_group(item: PlannedCalibration, group: TakenGroup) -> _Finding:
    """Return how a group stands: its frames first, then what was made of them."""
    own = [made for made in group.products if item.step and made.step == item.step.name and made.catg in item.catgs]
    products = list({made.catg: made for made in sorted(own, key=lambda made: made.usable)}.values())
    label, told = f"G{group.group_id}", ", ".join(f"{product.name} ({_judged(product)})" for product in products)
    remedy, retake = "", True
    if group.state is GroupState.OPEN:
        standing, reason = Standing.PENDING, f"{label} is still arriving: {group.reason or _counted(item, group)}"
    elif short := _short(item, group):
        made = f" {told} was made of them." if told else ""
        standing, reason = Standing.NOK, f"{label} has {_counted(item, group)}{short}{made}"
    elif bad := [product for product in products if not product.usable]:
        standing, reason, remedy = Standing.NOK, " ".join(map(_refused, bad)), _look_at(bad)
    elif products:
        standing, reason = Standing.OK, f"{label}: {told}."
    elif group.state is GroupState.ARCHIVED:
        standing, reason, retake = Standing.NOK, f"{label} came with an archive, and no product of it.", False
    elif group.make is None:
        standing, reason = Standing.PENDING, f"{label} is {group.state}; its step is planned next."
    else:
        standing, reason, remedy, retake = _judge_make(item, group.make)
    return _Finding(
        standing=standing,
        reason=reason,
        night=group.night,
        found=group.received,
        score=worst(product.unjudged for product in products),
        sources=(label, *(f"P{product.product_id}" for product in products)),
        remedy=remedy,
        retake=retake,
    )


def _judge_make(item: PlannedCalibration, make: Make) -> tuple[Standing, str, str, bool]:
    """Return how a step without products stands, why, what can be done for it, and whether new frames would help."""
    step = f"S{make.step_id} {make.name}"
    requeue = f"musecal requeue S{make.step_id}"
    match make.state:
        case StepState.FAILED if make.error_kind == "data":
            return Standing.NOK, f"{step} failed: {make.error}", "", True
        case StepState.FAILED:
            return Standing.NOK, f"{step} failed: {make.error}", requeue, False
        case StepState.HELD:
            return Standing.NOK, f"{step} is held by an operator.", f"musecal release S{make.step_id}", False
        case StepState.CANCELLED:
            return Standing.NOK, f"{step} was given up by an operator.", requeue, True
        case StepState.DONE:
            return Standing.NOK, f"{step} is done, and gave none of {', '.join(item.catgs)}.", "", True
        case _:
            missing = f": {'; '.join(make.missing)}" if make.missing else "."
            return Standing.PENDING, f"{step} is {make.state}{missing}", "", False


def _judge_outside(item: PlannedCalibration, night: date, products: Sequence[Made], archived: int) -> _Finding:
    """Return how the products from outside of one night stand; their frames need not be here."""
    best: dict[str, Made] = {}
    for product in sorted(products, key=lambda product: (product.usable, product.product_id)):
        best[product.catg] = product
    labels = tuple(f"P{product.product_id}" for product in best.values())
    score = worst(product.unjudged for product in best.values())
    bad = [product for product in best.values() if not product.usable]
    missing = [catg for catg in item.catgs if catg not in best]
    if bad or missing:
        absent = f"{', '.join(missing)} did not come from outside with the others." if missing else ""
        reason = " ".join([*map(_refused, bad), *([absent] if absent else [])])
        return _Finding(Standing.NOK, reason, night, archived, score, labels, _look_at(bad))
    told = ", ".join(f"{product.name} ({_judged(product)})" for product in best.values())
    return _Finding(Standing.OK, f"From outside: {told}.", night, archived, score, labels)


def _short(item: PlannedCalibration, group: TakenGroup) -> str:
    """Return what a group lacks, '' if nothing."""
    each = item.number // len(item.lamps) if item.lamps else 0
    lamps = [f"{each - group.lamps.get(lamp, 0)} {lamp}" for lamp in item.lamps if group.lamps.get(lamp, 0) < each]
    if lamps:
        return f"; {', '.join(lamps)} lacking, and a group is one template."
    return "." if group.received < item.number else ""


def _counted(item: PlannedCalibration, group: TakenGroup) -> str:
    return f"{group.received} of {item.number} {item.tag}"


def _judged(product: Made) -> str:
    return f"{product.certification}{f', {product.score}' if product.score else ''}"


def _refused(product: Made) -> str:
    if product.score is Score.RED and product.unjudged:
        return f"{product.name} is red: {product.score_reason or 'its values are out of their limits.'}"
    return f"{product.name} was rejected."


def _look_at(products: Sequence[Made]) -> str:
    unjudged = [f"P{product.product_id}" for product in products if product.unjudged]
    return f"musecal show {' '.join(unjudged)}, then certify or reject" if unjudged else ""
