"""Orders of operators: legal ones are carried out and kept in the history, the others are refused in words."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from raw_frame import write_raw_frame
from small_night import MORNING, World
from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.history import history
from archive.models import Arrival, Product, Step
from archive.registry import Registry
from archive.states import ArrivalState, Certification, PartState, StepState, move
from archive.store import Store
from tasks import orders
from tasks.cascade import Tag
from tasks.intake import Intake
from tasks.orders import OrderRefused

NOW = datetime(2026, 6, 17, 15, tzinfo=UTC)
Order = Callable[[Session, Step], object]


@pytest.fixture
def world(registry: Registry) -> World:
    world = World(registry)
    world.template(Tag.BIAS, MORNING)
    world.advance()
    return world


def give(world: World, order: Order, number: int = -1) -> None:
    """Give an order to one make of the bias step."""
    with world.registry.begin() as session:
        step = session.get_one(Step, world.steps("bias")[number].id)
        order(session, step)


def hold(session: Session, step: Step) -> None:
    orders.hold(session, step, why="clouds", now=NOW)


def release(session: Session, step: Step) -> None:
    orders.release(session, step, why="clear", now=NOW)


def cancel(session: Session, step: Step) -> None:
    orders.cancel(session, step, why="useless", now=NOW)


def requeue(session: Session, step: Step) -> None:
    orders.requeue(session, step, why="lamp mended", now=NOW)


def begin_part(_: Session, step: Step) -> None:
    """A worker has claimed channel 1."""
    move(step, StepState.RUNNING)
    part = next(part for part in step.parts if part.channel == 1)
    move(part, PartState.RUNNING)
    part.attempt, part.worker, part.lease_until = 1, "host:1:1", NOW


def end_parts(session: Session, step: Step) -> None:
    """Channel 1 is done, channel 12 failed, and with it the step."""
    begin_part(session, step)
    finish, first, twelfth = step.parts
    move(first, PartState.DONE)
    first.outcome = {"files": {}}
    move(twelfth, PartState.RUNNING)
    twelfth.attempt, twelfth.crashes, twelfth.retries, twelfth.error = 3, 1, 2, "The lamp was off."
    move(twelfth, PartState.FAILED)
    move(finish, PartState.CANCELLED)
    step.error, step.error_kind = "Channel 12: The lamp was off.", "data"
    move(step, StepState.FAILED)


def test_a_held_step_stays_until_it_is_released(world: World) -> None:
    give(world, begin_part)
    give(world, hold)
    world.settle()
    [held] = world.steps("bias")
    assert held.state is StepState.HELD
    assert {part.state for part in held.parts} == {PartState.CANCELLED}  # the worker has lost its lease
    give(world, release)
    world.settle()
    [done] = world.steps("bias")
    assert done.state is StepState.DONE


def test_a_requeued_step_goes_on_with_what_is_not_done(world: World) -> None:
    give(world, end_parts)
    give(world, requeue)
    world.advance()
    [step] = world.steps("bias")
    assert (step.state, step.error, step.priority) == (StepState.QUEUED, "", orders.FIRST)
    assert {part.channel: part.state for part in step.parts} == {
        0: PartState.QUEUED, 1: PartState.DONE, 12: PartState.QUEUED,
    }  # fmt: skip
    twelfth = step.parts[2]
    assert (twelfth.attempt, twelfth.crashes, twelfth.retries, twelfth.error, twelfth.sent) == (3, 0, 0, "", None)


def test_a_channel_may_be_made_again_although_it_is_done(world: World) -> None:
    give(world, end_parts)
    give(world, lambda session, step: orders.requeue(session, step, why="", now=NOW, channels=[1]))
    world.advance()
    assert {part.state for part in world.steps("bias")[0].parts} == {PartState.QUEUED}


def test_a_requeued_step_with_other_inputs_begins_every_channel_anew(world: World) -> None:
    give(world, end_parts)
    give(world, requeue)
    world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.advance()
    [step] = world.steps("bias")
    assert {part.state for part in step.parts} == {PartState.QUEUED}
    assert all(part.outcome == {} for part in step.parts)


def test_a_requeued_step_whose_frames_lost_a_channel_begins_as_a_new_one(world: World) -> None:
    give(world, end_parts)
    give(world, requeue)
    world.arrive(Tag.BIAS, MORNING, 2, version=2, channels=(12,))
    world.advance()
    old, new = world.steps("bias")
    assert (old.state, new.state, new.sequence) == (StepState.CANCELLED, StepState.QUEUED, 2)
    assert [part.channel for part in new.parts] == [0, 12]


def test_a_done_step_with_the_same_inputs_is_reused_not_made_again(world: World) -> None:
    world.settle()
    give(world, requeue)
    world.settle()
    first, second = world.steps("bias")
    assert (second.state, second.sequence, second.identity) == (StepState.DONE, 2, first.identity)
    assert (second.parts, second.products) == ([], [])
    world.template(Tag.FLAT, MORNING.replace(hour=12))
    world.settle()
    assert world.used(world.steps("flat")[0], "MASTER_BIAS") == f"MASTER_BIAS of step {first.id}"


def test_a_done_step_with_other_parameters_is_made_again(world: World) -> None:
    world.settle()
    world.settings.recipes["muse_bias"]["lsigma"] = 5.0
    give(world, requeue)
    world.settle()
    first, second = world.steps("bias")
    assert first.identity != second.identity
    assert second.products


def test_a_cancelled_step_is_left_alone_and_may_be_taken_up_again(world: World) -> None:
    give(world, cancel)
    world.settle()
    assert world.steps("bias")[0].state is StepState.CANCELLED
    give(world, requeue)
    world.settle()
    assert [step.state for step in world.steps("bias")] == [StepState.DONE]


@pytest.mark.parametrize(
    ("before", "order", "sentence"),
    [
        ((), requeue, "is queued; there is nothing to do again yet"),
        ((), release, "is queued, not held"),
        ((hold,), requeue, "is held; release it instead"),
        ((hold,), hold, "what is held cannot become held"),
        ((end_parts,), hold, "what is failed cannot become held"),
        ((cancel,), cancel, "what is cancelled cannot become cancelled"),
        (
            (end_parts,),
            lambda session, step: orders.requeue(session, step, why="", now=NOW, channels=[7]),
            "has no channel 7",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(
    world: World, before: tuple[Order, ...], order: Order, sentence: str
) -> None:
    for earlier in before:
        give(world, earlier)
    with pytest.raises(OrderRefused, match=sentence):
        give(world, order)


def test_a_step_that_was_made_again_is_history(world: World) -> None:
    world.settle()
    give(world, requeue)
    with pytest.raises(OrderRefused, match="was made again as step 2"):
        give(world, requeue, 0)


def test_every_order_is_kept_with_its_reason(world: World) -> None:
    for order in (hold, release, cancel, requeue):
        give(world, order)
    with world.registry.read() as session:
        told = [(event.what, event.why) for event in history(session, session.get_one(Step, 1))]
    assert [item for item in told if item[1] in ("clouds", "clear", "useless", "lamp mended")] == [
        ("step held", "clouds"),
        ("step released", "clear"),
        ("step cancelled", "useless"),
        ("step requeued", "lamp mended"),
    ]


def test_a_rejected_product_has_its_dependants_made_again_from_what_is_left(world: World) -> None:
    world.template(Tag.BIAS, MORNING.replace(hour=11))
    world.template(Tag.DARK, MORNING.replace(hour=12))
    world.settle()
    used = world.used(world.steps("dark")[-1], "MASTER_BIAS")
    assert used is not None
    world.judge(used, Certification.REJECTED)
    world.settle()
    first, second = world.steps("dark")
    assert (first.state, second.state) == (StepState.DONE, StepState.DONE)
    assert world.used(second, "MASTER_BIAS") not in (used, None)
    with world.registry.read() as session:
        product = session.scalars(select(Product).where(Product.name == used)).one()
        assert history(session, product)[-1].why == "looked at"


def test_a_file_in_quarantine_comes_back_as_a_new_arrival(world: World, tmp_path: Path) -> None:
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    archive = world.settings.archive.model_copy(update={"root": tmp_path / "archive", "incoming": incoming})
    settings = world.settings.model_copy(update={"archive": archive})
    intake = Intake(world.registry, Store(archive.root), settings)
    path = incoming / "MUSE.2026-06-17T10:42:11.000.fits"
    path.write_text("not yet a frame" * 300)
    intake.take(path, NOW)
    with world.registry.begin() as session:
        arrival = session.get_one(Arrival, 1)
        kept = Path(arrival.kept or "")
        target = orders.release_arrival(session, arrival, settings, why="sent again", now=NOW)
        assert kept.exists()  # until the row is committed
    assert target == path
    assert not kept.exists()
    write_raw_frame(path)
    assert intake.take(path, NOW).state is ArrivalState.INGESTED
    with world.registry.read() as session:
        assert [session.get_one(Arrival, number).state for number in (1, 2)] == [
            ArrivalState.RELEASED, ArrivalState.INGESTED,
        ]  # fmt: skip


def test_a_file_that_is_not_in_quarantine_cannot_be_released(world: World) -> None:
    arrival = Arrival(path="/in/x.fits", state=ArrivalState.INGESTED, first_seen=NOW)
    with world.registry.read() as session, pytest.raises(OrderRefused, match="no file of it is in quarantine"):
        orders.release_arrival(session, arrival, world.settings, why="", now=NOW)
