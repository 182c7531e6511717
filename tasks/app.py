"""The Celery application. Redis is only a doorbell: every option below follows from that."""

from typing import Any

import structlog
from celery import Celery, bootsteps
from kombu.exceptions import OperationalError

from tasks.dispatch import CYCLE_TASK, FIRST, KILL_AFTER
from tasks.jobs import add_jobs
from tasks.settings import Settings
from tasks.site import Site

QUEUE = "musecal"
KILOBYTES = 1024  # in a megabyte, as Celery counts the memory of a child
SHUTDOWN_SECONDS = 30.0  # that a stopping worker gives its parts; what is not done by then is queued again

log = structlog.get_logger()


def make_app(settings: Settings) -> Celery:
    """Return the Celery application that sends and runs the parts of this site.

    Raises
    ------
    ValueError
        The settings name no broker.
    """
    if not settings.broker.url:
        raise ValueError("broker.url is not set; `musecal run` starts a Redis of its own, all else needs its URL.")
    worker = settings.worker
    app = Celery("musecal", broker=settings.broker.url, set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        # The rows know the outcome; a result back end would add a place that can be wrong, and block when it is away.
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_send_task_events=False,
        # A message is acknowledged when its part has ended, and comes back at once if the process of the part dies.
        # The claim makes that harmless, and the crashes it counts make it end.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        # Cancelled so, a part is lost for good: Celery neither runs it again nor keeps its message.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        task_soft_time_limit=worker.time_limit_seconds,
        task_time_limit=worker.time_limit_seconds + KILL_AFTER,
        worker_max_memory_per_child=worker.memory_limit_mb * KILOBYTES,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2},
        broker_transport_options={
            # Redis gives a message out again after this time even if it is being worked on. Longer than any part, for
            # promptness comes from the sweep.
            "visibility_timeout": 6 * 3600,
            "queue_order_strategy": "priority",
            "socket_timeout": 30,
            "socket_connect_timeout": 2,
        },
    )
    app.steps["consumer"].add(FirstCycle)
    add_jobs(app, Site.of(settings))
    return app


class FirstCycle(bootsteps.StartStopStep):
    """Has the planner run when a worker has found Redis, or found it again, and take back what dead workers had."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:  # noqa: ANN401 - Celery's consumer has no public type
        """Queue one cycle, ahead of everything."""
        try:
            consumer.app.send_task(CYCLE_TASK, priority=FIRST)
        except OperationalError as error:  # Redis is away again already; the watcher's next turn does the same
            log.info("first cycle not sent", why=str(error))
