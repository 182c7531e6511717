"""How things stand: one record of the whole daemon for ``musecal status``."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from archive.models import Arrival, Group, Part, Product, Step
from archive.states import ArrivalState, GroupState, PartState, StepState
from archive.validity import validities
from daemon.broker import BrokerMissing, broker_url
from daemon.cli.records import record_of
from daemon.heartbeat import Heartbeat, read_heartbeat
from daemon.scan import scan
from tasks.settings import Settings
from tasks.site import Site

SILENT_SECONDS = 30.0  # the watcher writes its sign of life every 2 s; a long planner run or a slow disk delays it


def standing(site: Site) -> dict[str, Any]:
    """Return what there is to say about the daemon at this moment."""
    now = site.clock()
    with site.registry.read() as session:
        failed = session.scalars(
            select(Step).where(Step.state == StepState.FAILED).order_by(Step.ended.desc()).limit(5)
        )
        running = session.scalars(select(Part).where(Part.state == PartState.RUNNING).order_by(Part.worker)).all()
        last = session.scalars(select(Product).order_by(Product.id.desc()).limit(1)).first()
        rows: dict[str, Any] = {
            "arrivals": _counts(session, Arrival.state, ArrivalState),
            "groups": _counts(session, Group.state, GroupState),
            "steps": _counts(session, Step.state, StepState),
            "parts": _counts(session, Part.state, PartState),
            "statics": dict(Counter(str(validity.standing) for validity in validities(session))),
            "pairs": _pairs(session),
            "unsent": session.scalar(
                select(func.count()).select_from(Part).where(Part.state == PartState.QUEUED, Part.sent.is_(None))
            ),
            "work": [
                {
                    "worker": part.worker,
                    "step": f"S{part.step_id}",
                    "name": part.step.name,
                    "channel": part.channel,
                    "since": part.started,
                    "lease_lost": part.lease_until is not None and part.lease_until < now,
                }
                for part in running
            ],
            "failed": [record_of(step) for step in failed],
            "last_product": record_of(last) if last else None,
        }
    heartbeat = read_heartbeat(site.settings.archive.root)
    return {
        "at": now,
        "archive": str(site.settings.archive.root),
        "incoming": str(site.settings.archive.incoming),
        "registry": str(site.registry),
        "free_bytes": site.store.free_bytes(),
        "broker": broker_standing(site.settings),
        "watcher": _watcher(heartbeat, now) if heartbeat else None,
        **rows,
    }


def _pairs(session: Session) -> list[str]:
    """Return the pairs that only wait for an operator's word, as the labels of their groups."""
    waiting = select(Group).where(Group.partner_id > Group.id, Group.released.is_(None)).order_by(Group.id)
    closed = (GroupState.COMPLETE, GroupState.CLOSED)
    return [
        f"G{group.id} and G{group.partner_id}"
        for group in session.scalars(waiting)
        if group.partner and group.state in closed and group.partner.state in closed
    ]


def lying(settings: Settings) -> dict[Path, str]:
    """Return the files in the incoming folder, each with why the watcher could not take it in yet, or ''.

    Before the watcher ran for the first time, which makes the folder, nothing need be there.

    Raises
    ------
    FileNotFoundError
        The folder is gone.
    """
    heartbeat, incoming = read_heartbeat(settings.archive.root), settings.archive.incoming
    if not incoming.exists():
        if heartbeat is None:
            return {}
        raise FileNotFoundError(
            f"the incoming folder {incoming} is not there, so that nobody knows what lies in it; mount it, or make it "
            "again."
        )
    reasons = heartbeat.postponed if heartbeat else {}
    return {path: reasons.get(str(path), "") for path in scan(incoming).files}


def broker_standing(settings: Settings) -> str:
    """Return in words whether the broker answers."""
    try:
        Redis.from_url(broker_url(settings).replace("redis+socket://", "unix://"), socket_timeout=2).ping()
    except (BrokerMissing, RedisError) as error:
        return f"does not answer: {error}"
    return "answers"


def _watcher(heartbeat: Heartbeat, now: datetime) -> dict[str, Any]:
    age = heartbeat.age(now)
    return asdict(heartbeat) | {"age_seconds": age, "silent": age > SILENT_SECONDS}


def _counts(session: Session, column: Any, states: Iterable[str]) -> dict[str, int]:  # noqa: ANN401 - a column of any enum
    rows = session.execute(select(column, func.count()).group_by(column))
    counted: dict[str, int] = {state: number for state, number in rows}  # noqa: C416 - a Row is no pair for the type checker
    return {state: counted[state] for state in states if state in counted}
