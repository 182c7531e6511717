"""The log: one line an event on standard error, as JSON for machines or coloured for people."""

import logging
import sys

import structlog
from structlog.typing import Processor

from tasks.settings import LogFormat


def configure_log(level: str, format: LogFormat) -> None:  # noqa: A002 - the setting's name
    """Send every log of this process, the libraries' too, to standard error.

    Parameters
    ----------
    level : str
        Least level, ``DEBUG`` to ``CRITICAL``.
    format : LogFormat
    """
    human = format is LogFormat.CONSOLE or (format is LogFormat.AUTO and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    for former in root.handlers[:]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for chatty in ("watchdog", "alembic", "kombu", "celery.worker.strategy", "celery.app.trace", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
