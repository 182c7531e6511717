"""What the rules of choice and of staleness say (docs/architecture.md), looked up in every row there is.

Written from the text, slow and simple, and without the modules that it judges.
"""

import math
from dataclasses import asdict
from functools import cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Product, Step
from archive.naming import letter_number, parse_name
from archive.setup import Setup, SetupKey
from archive.states import Certification, GroupState, Score, StepState
from tasks.cascade import RECIPES, STEPS_BY_NAME, Need
from tasks.settings import PlanMode, Settings


class Oracle:
    """Everything that is in a registry at one moment."""

    def __init__(self, session: Session, settings: Settings) -> None:
        self.settings = settings
        self.products = session.scalars(select(Product).order_by(Product.id)).all()
        self.steps = session.scalars(select(Step).order_by(Step.id)).all()
        self.frames = session.scalars(select(Frame).where(Frame.superseded_by.is_(None)).order_by(Frame.mjd)).all()
        self.stale = cache(self.stale)  # type: ignore[method-assign]  # of one moment

    def makes(self, group: Group, name: str) -> list[Step]:
        """Every make of a step, the latest last."""
        return sorted(
            (step for step in self.steps if (step.group_id, step.name) == (group.id, name)),
            key=lambda step: step.sequence,
        )

    def newest_done(self, group: Group, name: str) -> Step | None:
        return next((step for step in reversed(self.makes(group, name)) if step.state is StepState.DONE), None)

    def middle(self, group: Group) -> float:
        """Half way from the begin of the first to the end of the last exposure."""
        here = [frame for frame in self.frames if frame.group_id == group.id]
        return (here[0].mjd + max(frame.mjd + frame.exptime / 86400 for frame in here)) / 2

    def setup(self, group: Group) -> Setup:
        return next(frame.setup for frame in self.frames if frame.group_id == group.id)

    def feeds(self, product: Product) -> bool:
        """It was not rejected, and is certified if it is red."""
        certified = product.certification is Certification.CERTIFIED
        return certified or (product.certification is Certification.PROVISIONAL and product.score != Score.RED)

    def usable(self, product: Product) -> bool:
        if self.settings.plan.mode is PlanMode.PARANAL:
            return product.certification is Certification.CERTIFIED
        return self.feeds(product)

    def current(self, product: Product) -> bool:
        """It comes from the latest make of its frames that may be used, not spoiled by what it was made of."""
        if product.static or product.step is None:
            return True
        done = [step for step in self.makes(product.step.group, product.step.name) if step.state is StepState.DONE]
        for make in reversed(done):
            gave = next(
                (
                    one
                    for one in self.products
                    if one.step and one.step.group_id == make.group_id and one.step.identity == make.identity
                    and one.catg == product.catg
                ),
                None,
            )  # fmt: skip
            spoiled = any(use.product and not self.feeds(use.product) for use in make.uses)
            if gave and self.usable(gave) and (make is done[-1] or not spoiled):
                return gave.id == product.id
        return product.step.identity == done[-1].identity

    def best(self, group: Group, need: Need) -> Product | None:
        """The product that serves a group, of all that there are."""
        mjd, setup = self.middle(group), self.setup(group)
        reach = max(level.days for level in need.levels if level.level <= self.settings.plan.level)

        def fits(product: Product) -> bool:
            equal = all(
                setup.value(key) == product.setup.value(key)
                or (key is SetupKey.MODE and (product.mode, setup.mode) in [("WFM-N", "WFM-NOAO-N")])
                for key in need.match
            )
            near = product.mjd <= mjd if product.static else abs(product.mjd - mjd) < reach
            version = need.response is None or product.response == need.response
            return equal and near and version and self.usable(product) and self.current(product)

        def rank(product: Product) -> tuple[object, ...]:
            certified = product.certification is Certification.CERTIFIED
            made = letter_number(parse_name(product.name).letter) if product.static else product.created.timestamp()
            return (
                need.beside_statics and not (product.static or certified),
                any(setup.value(key) != product.setup.value(key) for key in need.match),
                abs(product.mjd - mjd), not certified, product.mjd, -made, product.id,
            )  # fmt: skip

        fitting = [product for product in self.products if product.catg == need.catg and fits(product)]
        return min(fitting, key=rank, default=None)

    def needs(self, name: str) -> list[Need]:
        darks = self.settings.plan.use_darks
        return [need for need in STEPS_BY_NAME[name].needs if darks or need.catg != "MASTER_DARK"]

    def beside(self, group: Group, name: str) -> dict[str, int | None]:
        """The illumination flat that goes along: the closest within two hours and one kelvin."""
        mjd, setup = self.middle(group), self.setup(group)
        found: dict[str, int | None] = {}
        for wanted in STEPS_BY_NAME[name].companions:
            distances = [
                (abs(frame.mjd + frame.exptime / 86400 / 2 - mjd), frame.id)
                for frame in self.frames
                if frame.tag == wanted.tag and all(frame.setup.value(key) == setup.value(key) for key in wanted.match)
            ]
            distance, frame = min(distances, default=(math.inf, 0))
            found[wanted.tag] = frame if distance * 24 <= wanted.hours else None
        return found

    def changed(self, done: Step) -> list[str]:
        """What a done step would take that it did not take, by tag."""
        group, found = done.group, []
        here = {frame.id for frame in self.frames if frame.group_id == group.id}
        if here != {use.frame_id for use in done.uses if use.tag == group.tag}:
            found.append(group.tag)
        recipe = RECIPES[STEPS_BY_NAME[done.name].recipe_name]
        parameters = asdict(recipe.params()) | self.settings.recipes[recipe.name]
        if (done.recipe, done.recipe_version, done.parameters) != (recipe.name, recipe.version, parameters):
            found.append("method")
        used = {use.tag: use.product for use in done.uses if use.product}
        for need in self.needs(done.name):
            best, before = self.best(group, need), used.get(need.catg)
            kept = best is None and before is not None and self.feeds(before) and self.current(before)
            if (best and best.id) != (before and before.id) and not kept:
                found.append(need.catg)
        taken = {use.tag: use.frame_id for use in done.uses if use.frame_id}
        found += [tag for tag, frame in self.beside(group, done.name).items() if taken.get(tag) != frame]
        return found

    def stale(self, done: Step) -> bool:
        """A newest done make is stale if it would take something else, or the step of an input is stale."""
        inputs = [use.product.step for use in done.uses if use.product and use.product.step]
        makers = [self.newest_done(step.group, step.name) for step in inputs]
        return bool(self.changed(done)) or any(self.stale(step) for step in makers if step)

    def followed(self) -> list[tuple[Group, str]]:
        """The steps of groups that are closed."""
        ended = (GroupState.COMPLETE, GroupState.CLOSED)
        return sorted(
            {(step.group, step.name) for step in self.steps if step.group.state in ended},
            key=lambda pair: (pair[0].id, pair[1]),
        )
