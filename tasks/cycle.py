"""One turn of the wheel: plan, take back what lost its worker, send what is due. Any process may, at any time."""

from dataclasses import dataclass
from datetime import datetime

from celery import Celery

from archive.registry import Registry
from tasks.advance import Advanced, advance
from tasks.dispatch import dispatch
from tasks.leases import sweep
from tasks.settings import Settings


@dataclass(frozen=True)
class Cycled:
    """What one turn did: the planner's part, parts taken back from lost workers, messages sent."""

    advanced: Advanced
    swept: int
    sent: int


def run_cycle(registry: Registry, settings: Settings, app: Celery, now: datetime) -> Cycled:
    """Plan, sweep and dispatch. Turning it twice changes nothing; a broker that is away is no error."""
    swept = sweep(registry, now, settings.worker)
    advanced = advance(registry, settings, now)
    sent = dispatch(registry, app, now, settings.worker)
    return Cycled(advanced, swept, sent)
