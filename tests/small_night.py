"""A small registry world: frames arrive, the planner plans, and every queued step is done at once."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from archive.inspection import Extension, Inspection
from archive.models import Frame, Group, Product, Step
from archive.naming import static_name
from archive.night import mjd_of
from archive.registry import Registry
from archive.setup import Setup
from archive.states import Certification, PartState, Score, StepState, move
from recipes.muse import extension_name
from recipes.recipe import Value
from tasks import orders
from tasks.advance import Advanced, advance
from tasks.cascade import RULES, STEPS, STEPS_BY_NAME, Tag
from tasks.classify import classify
from tasks.decisions import Decision
from tasks.intake import enter
from tasks.plan import plan
from tasks.score import Measured
from tasks.settings import Settings
from tasks.snapshot import Snapshot
from tasks.survey import survey
from tasks.verdicts import Scoring, add_measurements, score_new

MORNING = datetime(2026, 6, 17, 10, 40, 27, tzinfo=UTC)
TYPES = {rule.tag: rule.type for rule in RULES if rule.type}
EXPTIMES = {Tag.DARK: 1800.0, Tag.BIAS: 0.0}


def header(
    tag: Tag, start: datetime, number: int, of: int = 3, cards: Mapping[str, Value] = MappingProxyType({})
) -> dict[str, Value]:
    """The primary header of one exposure of a template that starts then."""
    begin = start + timedelta(minutes=number)
    return {
        "INSTRUME": "MUSE",
        "ARCFILE": f"MUSE.{begin:%Y-%m-%dT%H:%M:%S}.000.fits",
        "MJD-OBS": mjd_of(begin),
        "DATE-OBS": f"{begin:%Y-%m-%dT%H:%M:%S}",
        "EXPTIME": EXPTIMES.get(tag, 1.155),
        "ESO DPR CATG": "CALIB",
        "ESO DPR TYPE": TYPES[tag],
        "ESO DPR TECH": "IFU",
        "ESO TPL START": f"{start:%Y-%m-%dT%H:%M:%S}",
        "ESO TPL NEXP": of,
        "ESO TPL EXPNO": number,
        "ESO INS MODE": "WFM-NOAO-N",
        "ESO DET READ CURID": 1,
        "ESO DET READ CURNAME": "SCI1.0",
        **cards,
    }


class World:
    """One registry and a clock.

    Parameters
    ----------
    registry : Registry
        With its tables.
    **sections
        Settings that differ from the defaults.
    """

    def __init__(self, registry: Registry, **sections: Any) -> None:  # noqa: ANN401 - what pydantic takes
        self.registry = registry
        self.settings = Settings(**sections)
        self.now = MORNING
        self.measured: Callable[[str, Step], Sequence[Measured]] = lambda catg, step: ()  # noqa: ARG005 - nothing is

    def arrive(
        self, tag: Tag, start: datetime, number: int, of: int = 3, *, version: int = 1,
        channels: tuple[int, ...] = (1, 12), cards: Mapping[str, Value] = MappingProxyType({}),
    ) -> int:  # fmt: skip
        """Let one frame come; another version of it has other content. Return its id."""
        self.now += timedelta(seconds=1)
        primary = header(tag, start, number, of, cards)
        digest = hashlib.sha256(f"{primary['ARCFILE']} {tag} {version} {sorted(cards)}".encode()).hexdigest()
        extensions = tuple(
            Extension(name=extension_name(channel), live=True, compressed=False, shape=(8, 8)) for channel in channels
        )
        inspection = Inspection(digest, 1, ".fits", primary, extensions)
        with self.registry.begin() as session:
            grace = timedelta(minutes=self.settings.groups.grace_minutes)
            return enter(session, inspection, classify(primary), Path(f"/kept/{digest}"), grace, self.now).id

    def template(self, tag: Tag, start: datetime, of: int = 3) -> None:
        """Let all the frames of a template come."""
        for number in range(1, of + 1):
            self.arrive(tag, start, number, of)

    def plan(self) -> tuple[Decision, ...]:
        """What the planner would do now."""
        with self.registry.read() as session:
            return plan(survey(session, self.settings), self.now)

    def static(self, catg: str, day: date, **columns: Any) -> str:  # noqa: ANN401 - what the row takes
        """Let a static calibration come that is valid from a day on; return its name."""
        name = static_name(catg, day, columns.pop("letter", "A"), columns.get("setup", Setup()))
        begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
        with self.registry.begin() as session:
            session.add(
                Product(
                    catg=catg, name=name, dp_id=name, path="", size=1, digest=hashlib.sha256(name.encode()).hexdigest(),
                    night=day, mjd=mjd_of(begin), certification=Certification.CERTIFIED, static=True, created=self.now,
                    **columns,
                )
            )  # fmt: skip
        return name

    def products(self, catgs: Sequence[str], times: Sequence[datetime], setup: Setup) -> None:
        """Let there be products of no step, of each type at each time."""
        with self.registry.begin() as session:
            for catg, time in product(catgs, times):
                name = f"{catg} at {time:%Y-%m-%d %H:%M}"
                session.add(
                    Product(
                        catg=catg, name=name, dp_id=name, path="", size=1, night=time.date(), mjd=mjd_of(time),
                        digest=hashlib.sha256(name.encode()).hexdigest(), setup=setup, channels=[1, 12],
                        created=self.now, reviewed=True,
                    )
                )  # fmt: skip

    def advance(self) -> Advanced:
        """Plan and carry out; planning again must then find nothing to do."""
        done = advance(self.registry, self.settings, self.now)
        assert self.plan() == ()
        return done

    def work(self, *, fail: bool = False) -> int:
        """End every queued step, as the workers would; return how many there were."""
        self.now += timedelta(seconds=1)
        with self.registry.begin() as session:
            queued = session.scalars(select(Step).where(Step.state == StepState.QUEUED).order_by(Step.id)).all()
            for step in queued:
                move(step, StepState.RUNNING)
                if fail:
                    step.error, step.error_kind = "The lamp was off.", "data"
                    move(step, StepState.FAILED)
                else:
                    self._finish(session, step)
            return len(queued)

    def _finish(self, session: Session, step: Step) -> None:
        for part in step.parts:
            move(part, PartState.RUNNING)
            move(part, PartState.DONE)
        frame, statics = step.group.frames[0], STEPS_BY_NAME[step.name].statics
        letter = chr(ord("@") + step.sequence)
        scoring, products = Scoring.of(self.settings), list[Product]()
        for number, catg in enumerate(STEPS_BY_NAME[step.name].makes):
            name = f"{catg} of step {step.id}"
            made = Product(
                step=step, catg=catg, name=name, dp_id=f"M.MUSE.{step.id}.{number}",
                path="", size=1, digest=hashlib.sha256(f"{catg} {step.id}".encode()).hexdigest(),
                night=step.group.night, mjd=step.group.mjd, setup=frame.setup, channels=[1, 12], created=self.now,
                response=2 if catg == "STD_RESPONSE" else None,
            )  # fmt: skip
            session.add(made)
            add_measurements(session, made, self.measured(catg, step), scoring)
            products.append(made)
            if catg in statics:
                made.name = static_name(catg, step.group.night, letter, frame.setup)
                made.static, made.mjd = True, frame.mjd
            if catg == "ASTROMETRY_WCS":
                [table] = [use.product for use in step.uses if use.product and use.tag == "GEOMETRY_TABLE"]
                made.geometry, table.reviewed = table, False
        score_new(session, products, scoring, now=self.now)
        move(step, StepState.DONE)

    def settle(self) -> None:
        """Plan and work until nothing is left to do."""
        for _ in range(50):
            self.advance()
            if not self.work():
                return
        raise AssertionError("the planner does not come to an end")

    def judge(self, name: str, verdict: Certification) -> None:
        """Certify or reject a product."""
        with self.registry.begin() as session:
            product = session.scalars(select(Product).where(Product.name == name)).one()
            scoring = Scoring.of(self.settings)
            orders.judge(session, product, verdict, comment="looked at", scoring=scoring, now=self.now)

    def requeue(self, number: int) -> None:
        """Have a step made again."""
        with self.registry.begin() as session:
            orders.requeue(session, session.get_one(Step, number), why="", now=self.now)

    def score(self, name: str, score: Score) -> None:
        """Score a product, which has the planner look at it again."""
        with self.registry.begin() as session:
            product = session.scalars(select(Product).where(Product.name == name)).one()
            product.score, product.reviewed = score, False

    def marks(self) -> dict[str, str]:
        """What is stale, by name and number of the step, and why."""
        with self.registry.read() as session:
            stale = session.scalars(select(Step).where(Step.stale != "").order_by(Step.id))
            return {f"{step.name} {step.id}": step.stale for step in stale}

    def steps(self, name: str) -> list[Step]:
        """Every make of the steps of this name, with what hangs on them loaded."""
        with self.registry.read() as session:
            found = session.scalars(select(Step).where(Step.name == name).order_by(Step.id)).all()
            for step in found:
                _ = [(use.product, use.frame) for use in step.uses], step.parts, step.products, step.group
            return list(found)

    def used(self, step: Step, catg: str) -> str | None:
        """Name of the product of this type that a step used."""
        return next((use.product.name for use in step.uses if use.tag == catg and use.product), None)

    def outcome(self) -> dict[str, Any]:
        """What the archive holds in the end, without names and numbers that tell the order in which it was made."""
        with self.registry.read() as session:
            newest = select(func.max(Step.id)).group_by(Step.group_id, Step.name)
            found: dict[str, Any] = {
                f"{group.tag} {group.key}": (group.state, group.reason) for group in session.scalars(select(Group))
            }
            for step in session.scalars(select(Step).where(Step.id.in_(newest))):
                made_from = {(use.tag, use.frame.digest) for use in step.uses if use.frame}
                made_from |= {
                    (use.tag, use.product.step.group.key if use.product.step else use.product.name)
                    for use in step.uses
                    if use.product
                }
                found[f"{step.name} {step.group.key}"] = (step.state, step.missing, step.warnings, made_from)
            found["current frames"] = set(session.scalars(select(Frame.digest).where(Frame.superseded_by.is_(None))))
            return found


MakeWorld = Callable[..., World]


def without_recipe(tag: Tag, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step of a tag have no recipe yet, but a name."""
    cascade = tuple(replace(step, recipe="muse_nothing") if step.raw is tag else step for step in STEPS)
    monkeypatch.setattr("tasks.survey.Snapshot", partial(Snapshot, cascade=cascade))
