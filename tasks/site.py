"""Where the work is done: the settings with the registry and the store they name, and the clock."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.registry import Registry
from archive.store import Store
from tasks.settings import Settings


def utc_now() -> datetime:
    """Return the time on the clock of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a job needs beside its identifiers."""

    settings: Settings
    registry: Registry
    store: Store
    clock: Callable[[], datetime] = utc_now

    @classmethod
    def of(cls, settings: Settings) -> "Site":
        """Return the site that the settings describe; nothing is opened before its first use."""
        return cls(settings=settings, registry=Registry(settings.registry.url), store=Store(settings.archive.root))
