"""From the rows to Redis: a part whose message is still to be sent is an outbox of one row.

The row is committed first and the message sent after. What is lost between the two, or with Redis, is sent again;
what is sent twice is claimed once.
"""

import json
import math
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import cast
from weakref import WeakSet

import structlog
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel
from redis.exceptions import RedisError
from sqlalchemy import Select, exists, or_, select, update
from sqlalchemy.orm import aliased

from archive.models import Part, Step
from archive.registry import Registry
from archive.states import PartState, StepState
from tasks.engines import engine_of
from tasks.failures import FINISH
from tasks.settings import WorkerSettings

PART_TASK = "musecal.part"
CYCLE_TASK = "musecal.cycle"
KILL_AFTER = 10.0  # seconds from the soft time limit, which asks, to the hard one, which kills
FIRST = 0  # priority of what others wait for; Redis counts 0 first, 9 last

log = structlog.get_logger()
_unreachable: WeakSet[Celery] = WeakSet()  # whose broker is known to be away, so that it is said once


class BrokerAway(ConnectionError):  # noqa: N818 - reads as what it is
    """Redis does not answer; nothing is lost, the rows wait."""


def dispatch(registry: Registry, app: Celery, now: datetime, settings: WorkerSettings) -> int:
    """Send the message of every part that may be claimed and has none.

    Parameters
    ----------
    settings : WorkerSettings
        A message older than ``resend_seconds`` that Redis does not hold any more is sent again. The time limit goes
        with the message: it is that of the engine.

    Returns
    -------
    int
        Messages sent. A broker that is away is no error: the parts stay unsent and the next call tries again.
    """
    resend = timedelta(seconds=settings.resend_seconds)
    with registry.read() as session:
        unsent = session.scalars(_due(now).where(Part.sent.is_(None))).all()
        overdue = session.scalars(_due(now).where(Part.sent < now - resend)).all()
    if not unsent and not overdue:
        return 0
    try:
        with _broker(app) as connection:
            lost = set(overdue) - _waiting(connection, app) if overdue else set()
            return _send(registry, app, connection, {*unsent, *lost}, now, settings)
    except BrokerAway as error:
        if app not in _unreachable:
            log.warning("broker unreachable, parts wait in the registry", why=str(error))
            _unreachable.add(app)
        return 0


def _due(now: datetime) -> Select[int]:
    """Return the query for the parts that a worker may claim now."""
    other = aliased(Part)
    unfinished = exists().where(other.step_id == Part.step_id, other.channel != FINISH, other.state != PartState.DONE)
    return (
        select(Part.id)
        .join(Part.step)
        .where(
            Part.state == PartState.QUEUED,
            or_(Part.not_before.is_(None), Part.not_before <= now),
            or_(Part.channel != FINISH, ~unfinished),
            Step.state.in_((StepState.QUEUED, StepState.RUNNING)),
        )
    )


@contextmanager
def _broker(app: Celery) -> Iterator[Connection]:
    """Lend a connection to Redis; every way in which Redis can be away becomes BrokerAway."""
    try:
        with app.connection_for_write() as connection:
            yield connection
    except (OperationalError, RedisError) as error:
        raise BrokerAway(str(error)) from error
    _unreachable.discard(app)


def _waiting(connection: Connection, app: Celery) -> set[int]:
    """Return the parts whose message still waits in Redis; one list for each priority, as kombu names them."""
    channel = cast(Channel, connection.default_channel)
    queue = app.conf.task_default_queue
    names = [f"{queue}{channel.sep}{step}" if step else queue for step in channel.priority_steps]
    messages = (json.loads(text) for name in names for text in channel.client.lrange(name, 0, -1))
    bodies = (message["body"] for message in messages if message["headers"]["task"] == PART_TASK)
    return {json.loads(b64decode(body))[0][0] for body in bodies}


def _send(
    registry: Registry,
    app: Celery,
    connection: Connection,
    part_ids: set[int],
    now: datetime,
    settings: WorkerSettings,
) -> int:
    """Mark parts as sent, then send them; those that do not get through are unmarked."""
    with registry.begin() as session:
        due = (
            _due(now)
            .add_columns(Part.attempt, Part.channel, Step.priority, Step.recipe_version)
            .where(Part.id.in_(part_ids))
        )
        messages = session.execute(due.order_by(Step.priority, Part.id)).all()
        session.execute(update(Part).where(Part.id.in_([part for part, *_ in messages])).values(sent=now))
    left = [part for part, *_ in messages]
    try:
        for part_id, attempt, channel, priority, version in messages:
            seconds = settings.limits_of(engine_of(version)).seconds
            app.send_task(
                PART_TASK,
                (part_id,),
                task_id=f"part-{part_id}-{attempt + 1}",
                priority=FIRST if channel == FINISH else priority,
                connection=connection,
                soft_time_limit=math.ceil(seconds),
                time_limit=math.ceil(seconds + KILL_AFTER),
            )
            left.remove(part_id)
    finally:
        if left:
            with registry.begin() as session:
                session.execute(update(Part).where(Part.id.in_(left), Part.state == PartState.QUEUED).values(sent=None))
    return len(messages)
