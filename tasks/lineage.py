"""Where products of another pipeline belong: the step that they stand for, on the frames that they were made of.

A product may come before its frames or after them. The links are therefore made from the rows alone, whenever an
archive was taken in: the same rows give the same links, and making them again changes nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import null, select
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Frame, Group, Product, Step, Use
from archive.night import night_of
from archive.registry import Registry
from archive.series import within
from archive.setup import Setup, SetupKey
from archive.states import Score, StepState
from tasks.cascade import STEPS, CascadeStep
from tasks.engines import made_elsewhere
from tasks.groups import middle
from tasks.masters import Ancestor, Origin, origins_of, raw_id
from tasks.survey import concerns_done, member_of
from tasks.verdicts import Scoring, score_anew, score_history

_RUNS_AT_ONCE = 100  # in one transaction
_SCORED_AT_ONCE = 50  # in one transaction
_MOST_NAMES = 500  # in one query
_SAME_EXPOSURE = 2.0  # days; within these a name of the workstation, which comes back every year, means one exposure
_STEPS: Mapping[str, CascadeStep] = {step.recipe_name: step for step in STEPS}


@dataclass(frozen=True)
class Linked:
    """How many runs of another pipeline there are, and how many of them stand as steps on frames that are here."""

    runs: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one run made, how, those of its frames that are here, and the step that it stands for, if it has one."""

    identity: str
    products: Sequence[Product]
    origins: Sequence[Origin]
    frames: Sequence[Frame]
    complete: bool
    step: Step | None

    @property
    def origin(self) -> Origin:
        return self.origins[0]


def score_taken(registry: Registry, scoring: Scoring, now: datetime) -> int:
    """Score the masters of other pipelines that have no score yet, in order of observation; return how many.

    Once they are on their frames: a running median goes by the time of a product. What comes after one of them in time
    is scored anew with it, unless its own turn comes later.
    """
    columns = (Product.id, Product.catg, Product.night, *(getattr(Product, key) for key in SetupKey))
    unscored = select(*columns).where(Product.run != "", Product.score == Score.NONE, Product.thresholds == "")
    with registry.read() as session:
        rows = session.execute(unscored.order_by(Product.mjd, Product.digest)).all()
    waiting = [
        row.id
        for row in rows
        if scoring.thresholds.serving(row.catg, Setup.of(*(getattr(row, key) for key in SetupKey)), row.night)
        or row.catg in scoring.thresholds.measured_on
    ]
    for start in range(0, len(waiting), _SCORED_AT_ONCE):
        ids = waiting[start : start + _SCORED_AT_ONCE]
        with registry.begin() as session:
            later: dict[int, Product] = {}
            for number in ids:
                product = session.get_one(Product, number)
                score_anew(session, product, scoring, now=now, why="It was taken in.")
                if reach := scoring.thresholds.reach(product.catg):
                    after = within(session, product.catg, product.setup, product.mjd, product.mjd + reach)
                    later |= {other.id: other for other in after if other.score}
            for other in sorted(later.values(), key=lambda other: (other.mjd, other.name)):
                if other.id not in ids:
                    score_history(session, other, scoring, now=now, why="An earlier one was taken in.")
            for number in ids:
                product = session.get_one(Product, number)
                product.reviewed = product.reviewed or not concerns_done(session, product)
    return len(waiting)


def link_runs(registry: Registry, now: datetime) -> Linked:
    """Bring the links of every run of another pipeline in line with the rows that are there.

    First all of them are put on their frames, then they are given the calibrations that they used: a calibration's time
    is known only when its own frames are.
    """
    with registry.read() as session:
        runs = session.scalars(select(Product.run).where(Product.run != "").distinct().order_by(Product.run)).all()
    chunks = [runs[start : start + _RUNS_AT_ONCE] for start in range(0, len(runs), _RUNS_AT_ONCE)]
    for chunk in chunks:
        with registry.begin() as session, session.no_autoflush:
            for run in _runs(session, chunk):
                _put_on_frames(session, run, now)
    steps = 0
    for chunk in chunks:
        with registry.begin() as session, session.no_autoflush:
            placed = [(run.step, run) for run in _runs(session, chunk) if run.step is not None]
            _give_uses(session, placed)
            steps += len(placed)
    return Linked(len(runs), steps)


def _runs(session: Session, identities: Sequence[str]) -> list[_Run]:
    made: dict[str, list[Product]] = {}
    for product in session.scalars(select(Product).where(Product.run.in_(identities)).order_by(Product.id)):
        made.setdefault(product.run, []).append(product)
    origins = origins_of(session, [product.id for products in made.values() for product in products])
    firsts = {run: origins[products[0].id] for run, products in made.items()}
    frames = _frames_by_id(session, {name for origin in firsts.values() for name in _identifiers(origin)})
    steps = {step.identity: step for step in session.scalars(select(Step).where(Step.identity.in_(identities)))}
    runs = []
    for run, products in made.items():
        origin = firsts[run]
        named = _frames_by_name(session, origin)
        here = {raw.name: frames.get(raw_id(raw.name)) or named.get(raw.name) for raw in origin.raws}
        found = {frame.id: frame for frame in here.values() if frame is not None}
        if not found and (first := frames.get(origin.first)):  # its frames have names of another place
            found = {first.id: first}
        runs.append(
            _Run(
                identity=run,
                products=products,
                origins=[origins[product.id] for product in products],
                frames=sorted(found.values(), key=lambda frame: (frame.mjd, frame.dp_id)),
                complete=bool(here) and all(here.values()),
                step=steps.get(run),
            )
        )
    return runs


def _identifiers(origin: Origin) -> Iterator[str]:
    yield from (identifier for raw in origin.raws if (identifier := raw_id(raw.name)))
    if origin.first:
        yield origin.first


def _frames_by_id(session: Session, names: set[str]) -> dict[str, Frame]:
    ordered, frames = sorted(names), dict[str, Frame]()
    for start in range(0, len(ordered), _MOST_NAMES):
        newest = select(Frame).where(Frame.dp_id.in_(ordered[start : start + _MOST_NAMES]))
        frames |= {frame.dp_id: frame for frame in session.scalars(newest.where(Frame.superseded_by.is_(None)))}
    return frames


def _frames_by_name(session: Session, origin: Origin) -> dict[str, Frame]:
    """Return the frames near the first exposure that go by names of the workstation."""
    others = [raw for raw in origin.raws if not raw_id(raw.name)]
    if not others:
        return {}
    near = Frame.mjd.between(origin.mjd - _SAME_EXPOSURE, origin.mjd + _SAME_EXPOSURE)
    tagged = Frame.tag.in_({raw.tag for raw in others})
    newest = select(Frame).where(tagged, near, Frame.superseded_by.is_(None)).order_by(Frame.mjd.desc(), Frame.dp_id)
    names = {raw.name for raw in others}
    return {frame.origfile: frame for frame in session.scalars(newest) if frame.origfile in names}


def _put_on_frames(session: Session, run: _Run, now: datetime) -> None:
    """Let a run stand as a done step on the group of its frames, and its products in the middle of these."""
    wanted = _STEPS.get(run.origin.recipe)
    group = _group_of(wanted, run) if wanted else None
    step = run.step
    moved = False
    if wanted is not None and group is not None:
        ended = max(product.created for product in run.products)
        if step is None:
            step = _made(session, wanted, group, run, now)
            moved = True
        if moved or (step.group_id, step.ended) != (group.id, ended):
            step.group, step.created, step.ended = group, ended, ended
            session.flush()
            _put_in_order(session, group, wanted.name)
        for product in run.products:
            if product.step_id != step.id:
                product.step, moved = step, True
    mjd = middle([member_of(frame) for frame in run.frames]) if run.complete else run.origin.mjd
    grown = {product.catg for product in run.products if not (product.score or product.thresholds)}
    for product in run.products:
        if product.mjd != mjd:
            product.mjd, product.night = mjd, night_of(mjd)
            product.reviewed = not concerns_done(session, product)
            product.score, product.thresholds = Score.NONE, ""  # what came before it may be something else now
        elif product.catg in grown or moved:
            product.score, product.thresholds = Score.NONE, ""  # which channels there are, or should be


def _group_of(wanted: CascadeStep, run: _Run) -> Group | None:
    """Return the group that most of the frames are of."""
    tags = (wanted.raw, *wanted.substitutes)
    groups = Counter(frame.group for frame in run.frames if frame.group is not None and frame.tag in tags)
    return min(groups, key=lambda group: (-groups[group], group.mjd, group.key), default=None)


def _made(session: Session, wanted: CascadeStep, group: Group, run: _Run, now: datetime) -> Step:
    last = max((step.sequence for step in group.steps if step.name == wanted.name), default=0)
    created = max(product.created for product in run.products)
    step = Step(
        group=group,
        name=wanted.name,
        sequence=last + 1,
        state=StepState.DONE,
        identity=run.identity,
        recipe=run.origin.recipe,
        recipe_version=run.origin.version,
        parameters=dict(run.origin.parameters),
        created=created,
        ended=created,
        weighed=null(),  # None would stand for the default
    )
    session.add(step)
    products = [product.name for product in run.products]
    record(session, step, "step taken in", "Its products were made elsewhere.", now=now, products=products)
    return step


def _put_in_order(session: Session, group: Group, name: str) -> None:
    """Give the makes of a step their numbers: those from elsewhere first, in the order of their making, then ours."""
    steps = session.scalars(select(Step).where(Step.group_id == group.id, Step.name == name)).all()

    def place(step: Step) -> tuple[bool, float, str, int]:
        elsewhere = made_elsewhere(step.recipe_version)
        when = step.created.timestamp() if elsewhere else 0.0
        return not elsewhere, when, step.identity or "" if elsewhere else "", step.sequence

    ordered = sorted(steps, key=place)
    if [step.sequence for step in ordered] == list(range(1, len(ordered) + 1)):
        return
    for sign in (-1, 1):  # no two may have the same number at any time
        for number, step in enumerate(ordered, 1):
            step.sequence = sign * number
        session.flush()


def _give_uses(session: Session, placed: Sequence[tuple[Step, _Run]]) -> None:
    """Let steps use the frames and calibrations of their runs that are here."""
    named = {calibration for _, run in placed for origin in run.origins for calibration in origin.calibrations}
    here = _products_by_name(session, named)
    uses: dict[int, list[Use]] = {}
    for use in session.scalars(select(Use).where(Use.step_id.in_([step.id for step, _ in placed]))):
        uses.setdefault(use.step_id, []).append(use)
    for step, run in placed:
        wanted: dict[tuple[str, int | None, int | None], float | None] = {
            (frame.tag, frame.id, None): None for frame in run.frames
        }
        ours = {product.id for product in run.products}
        for calibration in {calibration for origin in run.origins for calibration in origin.calibrations}:
            product = here.get(calibration)
            if product is not None and product.id not in ours:
                days = None if product.static else product.mjd - step.group.mjd
                wanted[product.catg, None, product.id] = days
        present = {(use.tag, use.frame_id, use.product_id): use for use in uses.get(step.id, ())}
        for key, use in present.items():
            if key not in wanted:
                session.delete(use)
            elif use.days != wanted[key]:
                use.days = wanted[key]
        for key in sorted(wanted.keys() - present.keys(), key=str):
            tag, frame_id, product_id = key
            session.add(Use(step_id=step.id, tag=tag, frame_id=frame_id, product_id=product_id, days=wanted[key]))


def _products_by_name(session: Session, named: set[Ancestor]) -> dict[Ancestor, Product]:
    """Return the products that headers name: by the signature of their data, or by their names."""
    stems = {calibration: calibration.name.partition(".fits")[0] for calibration in named}
    columns = (
        (Product.signature, {calibration.signature for calibration in named} - {""}),
        (Product.name, {f"{stem}.fits" for stem in stems.values()}),
        (Product.dp_id, {stem.replace("_", ":") for stem in stems.values()}),
    )
    found: dict[tuple[str, str], Product] = {}
    for column, values in columns:
        ordered = sorted(values)
        for start in range(0, len(ordered), _MOST_NAMES):
            rows = select(Product).where(column.in_(ordered[start : start + _MOST_NAMES]))
            for product in session.scalars(rows.order_by(Product.digest.desc())):  # of several alike the same one
                for name in (product.signature, product.name, product.dp_id):
                    found[product.catg, name] = product
    keys = {
        calibration: [calibration.signature, f"{stem}.fits", stem.replace("_", ":")]
        for calibration, stem in stems.items()
    }
    return {
        calibration: next(found[calibration.tag, name] for name in names if name and (calibration.tag, name) in found)
        for calibration, names in keys.items()
        if any(name and (calibration.tag, name) in found for name in names)
    }
