"""What was made of something, through the whole cascade, and what of that a change of it would have made again."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Part, Product, Step, Use
from archive.states import StepState
from tasks.cascade import STEPS
from tasks.makes import chunks
from tasks.settings import RemakePolicy

_PLACES = {step.name: number for number, step in enumerate(STEPS)}
_GIVEN_UP = (StepState.FAILED, StepState.CANCELLED)

Origin = Frame | Group | Step | Product


class Remade(StrEnum):
    """What becomes of a step if that changes of which it was made."""

    BY_ITSELF = "by itself"  # the policy has it made again
    ON_REQUEST = "on request"  # it is marked as stale
    REPLACED = "replaced"  # nothing: a later make has taken its place


@dataclass(frozen=True, kw_only=True)
class Dependant:
    """A step that was made of something.

    Parameters
    ----------
    depth : int
        Steps from that to this one, on the longest way: 1 took it itself.
    seconds : float
        CPU seconds that it took, as last measured; 0 where nothing was measured.
    """

    step: Step
    depth: int
    remade: Remade
    seconds: float


def find_dependants(session: Session, origin: Origin, remake: RemakePolicy) -> list[Dependant]:
    """Return the steps that were made of a frame, group, step or product, in the order of the cascade.

    Parameters
    ----------
    origin : Frame, Group, Step or Product
        Of a group its own steps are among them, of a step those that took its products.
    remake : RemakePolicy
        Which stale steps are made again by themselves; never MODE.
    """
    steps = {step.id: step for step in _steps_of(session, origin)}
    made = _products_of(session, [origin.id] if isinstance(origin, Step) else steps.keys())
    wave: Collection[int] = [origin.id] if isinstance(origin, Product) else made.keys()
    products = dict(made)
    while wave:
        found = {step.id: step for step in _users(session, wave) if step.id not in steps}
        steps |= found
        made = _products_of(session, found.keys())
        products |= made
        wave = made.keys()
    if isinstance(origin, Product):
        products[origin.id] = origin
    return list(_weigh(session, steps, products, remake))


def _weigh(
    session: Session, steps: Mapping[int, Step], products: Mapping[int, Product], remake: RemakePolicy
) -> Iterator[Dependant]:
    """Yield each step with its depth, and say whether it would be made again by itself."""
    uses = _uses(session, steps.keys(), products.keys())
    seconds, newest = _seconds(session, steps.keys()), _newest(session, steps.values())
    depths: dict[int | None, int] = {}
    remade: dict[int | None, bool] = {}  # whether the step that made a product gives another one by itself
    for step in sorted(steps.values(), key=lambda step: (_PLACES[step.name], step.group.mjd, step.id)):
        inputs = [products[number] for number in uses.get(step.id, ())]
        depths[step.id] = 1 + max((depths.get(product.step_id, 0) for product in inputs), default=0)
        changing = [product for product in inputs if remade.get(product.step_id, product.step_id not in steps)]
        near = any(product.night == step.group.night for product in changing) or (depths[step.id] == 1 and not inputs)
        own = {RemakePolicy.ALWAYS: bool(changing) or not inputs, RemakePolicy.NIGHT: near}.get(remake, False)
        latest = step.sequence == newest[step.group_id, step.name]
        remade[step.id] = own and latest
        fate = Remade.REPLACED if not latest else Remade.BY_ITSELF if own else Remade.ON_REQUEST
        yield Dependant(step=step, depth=depths[step.id], remade=fate, seconds=seconds.get(step.id, 0.0))


def _steps_of(session: Session, origin: Origin) -> Sequence[Step]:
    """Return the steps that took the frames of a frame or group."""
    match origin:
        case Group():
            of_origin = Step.group_id == origin.id
        case Frame():
            of_origin = Step.id.in_(select(Use.step_id).where(Use.frame_id == origin.id))
        case _:
            return ()
    return session.scalars(select(Step).where(of_origin, Step.state.not_in(_GIVEN_UP))).all()


def _users(session: Session, product_ids: Collection[int]) -> Iterator[Step]:
    for ids in chunks(product_ids):
        users = select(Use.step_id).where(Use.product_id.in_(ids))
        yield from session.scalars(select(Step).where(Step.id.in_(users), Step.state.not_in(_GIVEN_UP)))


def _products_of(session: Session, step_ids: Collection[int]) -> dict[int, Product]:
    found: dict[int, Product] = {}
    for ids in chunks(step_ids):
        found |= {row.id: row for row in session.scalars(select(Product).where(Product.step_id.in_(ids)))}
    return found


def _uses(session: Session, step_ids: Collection[int], product_ids: Collection[int]) -> dict[int, list[int]]:
    """Return which of these products each step used."""
    found: dict[int, list[int]] = {}
    for ids in chunks(step_ids):
        used = select(Use.step_id, Use.product_id).where(Use.step_id.in_(ids), Use.product_id.is_not(None))
        for step_id, product_id in session.execute(used):
            if product_id is not None and product_id in product_ids:
                found.setdefault(step_id, []).append(product_id)
    return found


def _seconds(session: Session, step_ids: Collection[int]) -> dict[int, float]:
    found: dict[int, float] = {}
    for ids in chunks(step_ids):
        summed = select(Part.step_id, func.sum(Part.seconds)).where(Part.step_id.in_(ids)).group_by(Part.step_id)
        found |= {step_id: seconds or 0.0 for step_id, seconds in session.execute(summed)}
    return found


def _newest(session: Session, steps: Collection[Step]) -> dict[tuple[int, str], int]:
    """Return the number of the newest make that was not given up, of the steps of these groups."""
    found: dict[tuple[int, str], int] = {}
    for ids in chunks({step.group_id for step in steps}):
        latest = select(Step.group_id, Step.name, func.max(Step.sequence)).where(
            Step.group_id.in_(ids), Step.state.not_in(_GIVEN_UP)
        )
        rows = session.execute(latest.group_by(Step.group_id, Step.name))
        found |= {(group_id, name): sequence for group_id, name, sequence in rows}
    return found
