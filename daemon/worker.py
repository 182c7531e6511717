"""The worker as a program: what it needs is checked, then Celery runs."""

from archive.registry import Registry
from daemon.broker import broker_url, with_broker
from daemon.log import configure_log
from daemon.pool import run_pool
from tasks.engines import check_engines
from tasks.settings import Settings


def work(settings: Settings) -> int:
    """Work off the queue until SIGTERM or SIGINT; return the exit code.

    Raises
    ------
    RegistryOutdated
        If the registry is not that of this version.
    SettingsError
        If a step is left to ESO's pipeline, and that is not here.
    BrokerMissing
        If no broker is set and no supervisor runs.
    """
    configure_log(settings.log.level, settings.log.format)
    check_engines(settings)
    Registry(settings.registry.url).check()
    return run_pool(with_broker(settings, broker_url(settings)))
