"""Messages: each part that may be claimed is rung for, whatever happens to Redis."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from celery import Celery
from doorbell import Doorbell
from rows import NOW, add_frame, add_step
from sqlalchemy import select

from archive.models import Part, Step
from archive.registry import Registry
from archive.states import PartState, StepState, move
from tasks.app import make_app
from tasks.dispatch import dispatch
from tasks.failures import FINISH
from tasks.settings import Settings, WorkerSettings

RESEND = timedelta(seconds=20)
CHANNELS = (1, 2, 3)


@pytest.fixture
def doorbell() -> Iterator[Doorbell]:
    """A Redis."""
    with Doorbell() as doorbell:
        yield doorbell


@pytest.fixture
def app(doorbell: Doorbell, registry: Registry, tmp_path: Path) -> Iterator[Celery]:
    """The application of a site."""
    url = registry.url.render_as_string(hide_password=False)
    settings = Settings.model_validate(
        {"archive": {"root": tmp_path}, "registry": {"url": url}, "broker": {"url": doorbell.url}}
    )
    with make_app(settings) as app:
        yield app


@pytest.fixture
def step_id(registry: Registry) -> int:
    """A queued step of three channels."""
    return queue_step(registry)


def queue_step(registry: Registry, number: int = 0, priority: int = 5) -> int:
    with registry.begin() as session:
        frames = [add_frame(session, 10 * number + index, CHANNELS) for index in range(3)]
        return add_step(session, frames, channels=CHANNELS, priority=priority).id


def send(registry: Registry, app: Celery, seconds: float = 0) -> int:
    return dispatch(
        registry, app, NOW + timedelta(seconds=seconds), WorkerSettings(resend_seconds=RESEND.total_seconds())
    )


def change(registry: Registry, step_id: int, state: PartState, *channels: int) -> None:
    with registry.begin() as session:
        for part in session.scalars(select(Part).where(Part.step_id == step_id, Part.channel.in_(channels))):
            move(part, state)


def unsent(registry: Registry) -> int:
    with registry.read() as session:
        return len(session.scalars(select(Part).where(Part.sent.is_(None), Part.channel != FINISH)).all())


def test_each_channel_is_sent_once(registry: Registry, app: Celery, doorbell: Doorbell, step_id: int) -> None:
    assert send(registry, app) == 3
    assert send(registry, app) == 0
    assert sum(doorbell.waiting()) == 3
    assert step_id


def test_the_finish_is_sent_first_and_when_all_channels_are_done(
    registry: Registry, app: Celery, doorbell: Doorbell, step_id: int
) -> None:
    send(registry, app)
    doorbell.client.flushall()
    for state in (PartState.RUNNING, PartState.DONE):
        assert send(registry, app) == 0
        change(registry, step_id, state, *CHANNELS)
    assert send(registry, app) == 1
    assert doorbell.waiting() == [1, 0, 0, 0]


def test_a_message_is_its_part_and_nothing_else(registry: Registry, app: Celery, step_id: int) -> None:
    send(registry, app)
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(app.conf.task_default_queue, no_ack=True).get(timeout=5)
        assert message.payload[:2] == [[message.payload[0][0]], {}]
        with registry.read() as session:
            part = session.get_one(Part, message.payload[0][0])
        assert message.headers["id"] == f"part-{part.id}-1"
        assert message.content_type == "application/json"
    assert step_id


@pytest.mark.parametrize(("priority", "place"), [(0, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_the_priority_of_a_step_is_that_of_its_messages(
    registry: Registry, app: Celery, doorbell: Doorbell, priority: int, place: int
) -> None:
    queue_step(registry, priority=priority)
    send(registry, app)
    assert doorbell.waiting() == [3 * (place == index) for index in range(4)]


@pytest.mark.parametrize("state", [StepState.HELD, StepState.CANCELLED])
def test_a_step_taken_back_is_not_sent(registry: Registry, app: Celery, step_id: int, state: StepState) -> None:
    with registry.begin() as session:
        move(session.get_one(Step, step_id), state)
    assert send(registry, app) == 0


def test_a_part_in_back_off_is_sent_when_it_is_over(registry: Registry, app: Celery, step_id: int) -> None:
    with registry.begin() as session:
        for part in session.scalars(select(Part).filter_by(step_id=step_id)):
            part.not_before = NOW + timedelta(seconds=10 * part.channel)
    assert [send(registry, app, seconds) for seconds in (9, 10, 25, 40)] == [0, 1, 1, 1]


def test_an_emptied_redis_is_filled_again(registry: Registry, app: Celery, doorbell: Doorbell, step_id: int) -> None:
    send(registry, app)
    doorbell.client.flushall()
    assert send(registry, app, 20) == 0
    assert send(registry, app, 20.1) == 3
    assert sum(doorbell.waiting()) == 3
    assert step_id


def test_a_long_queue_is_not_sent_again(registry: Registry, app: Celery, doorbell: Doorbell, step_id: int) -> None:
    """Old messages that Redis still holds wait for a free worker; only the lost one is sent again."""
    other = queue_step(registry, number=1, priority=9)
    send(registry, app)
    assert doorbell.waiting() == [0, 3, 0, 3]
    doorbell.client.lpop("musecal\x06\x169")
    assert send(registry, app, 3600) == 1
    assert doorbell.waiting() == [0, 3, 0, 3]
    assert step_id != other


class TestBrokerAway:
    def test_parts_wait_and_are_sent_when_it_is_back(
        self, registry: Registry, app: Celery, doorbell: Doorbell, step_id: int
    ) -> None:
        doorbell.kill()
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                assert send(registry, app) == 0
        assert [line["event"] for line in logs] == ["broker unreachable, parts wait in the registry"]
        assert unsent(registry) == 3
        doorbell.start()
        assert send(registry, app) == 3
        assert sum(doorbell.waiting()) == 3
        assert step_id

    def test_is_said_again_at_the_next_time(self, registry: Registry, app: Celery, doorbell: Doorbell) -> None:
        queue_step(registry)
        with structlog.testing.capture_logs() as logs:
            doorbell.kill()
            send(registry, app)
            doorbell.start()
            send(registry, app)
            queue_step(registry, number=1)
            doorbell.kill()
            send(registry, app)
            doorbell.start()
        assert len(logs) == 2

    def test_between_two_messages_leaves_only_the_others_unsent(
        self, registry: Registry, app: Celery, doorbell: Doorbell, step_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_task, sent = app.send_task, []

        def send_and_kill(*arguments: object, **options: object) -> None:
            sent.append(send_task(*arguments, **options))  # type: ignore[arg-type]
            doorbell.kill()

        with monkeypatch.context() as patch:
            patch.setattr(app, "send_task", send_and_kill)
            send(registry, app)
        assert (len(sent), unsent(registry)) == (1, 2)
        doorbell.start()
        assert send(registry, app) == 2
        assert step_id
