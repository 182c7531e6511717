"""The Celery tasks. Messages carry ids only; each task reads from the rows what there is to do."""

from celery import Celery

from tasks.cycle import run_cycle
from tasks.dispatch import CYCLE_TASK, PART_TASK
from tasks.failures import PartFailed
from tasks.finish import discard_leftovers
from tasks.parts import run_part
from tasks.site import Site


def add_jobs(app: Celery, site: Site) -> None:
    """Give the tasks to an application."""

    @app.task(name=PART_TASK, throws=(PartFailed,))
    def part(part_id: int) -> None:
        """Run one part; then let the planner see what has changed, and what may be claimed now be sent."""
        try:
            run_part(site, part_id)
        finally:
            run_cycle(site.registry, site.settings, app, site.clock())

    @app.task(name=CYCLE_TASK)
    def cycle() -> None:
        """Plan, sweep and dispatch once, and remove what killed processes left."""
        run_cycle(site.registry, site.settings, app, site.clock())
        discard_leftovers(site)
