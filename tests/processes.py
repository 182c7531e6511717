"""Processes of a site for the drills: ``worker`` runs parts, ``planner`` turns the wheel as the watcher does.

Started as ``python tests/processes.py worker`` with the settings in the environment.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

PLANNER_PAUSE = 0.2  # seconds between two turns


def start(kind: str, environment: Mapping[str, str]) -> psutil.Popen:
    """Start one of the processes."""
    return psutil.Popen([sys.executable, __file__, kind], env={**os.environ, **environment}, start_new_session=True)


def stop(process: psutil.Popen) -> int:
    """End a process as an operator does; return its exit code."""
    process.send_signal(signal.SIGTERM)
    return int(process.wait(60))


def kill(process: psutil.Popen) -> None:
    """End a process, and nothing but it, as kill -9 does."""
    process.kill()
    process.wait(30)


def pool_children(process: psutil.Popen) -> list[psutil.Process]:
    """Return the pool of a worker that is ready."""
    try:
        return [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.NoSuchProcess:
        return []


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 60) -> float:
    """Wait until something has happened; return how long it took, in seconds."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() < began + seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def work() -> None:
    """Run Celery's worker on the misbehaving recipes too."""
    import odd_recipes

    from daemon.pool import run_pool
    from tasks.settings import Settings

    odd_recipes.install()
    sys.exit(run_pool(Settings()))


def turn() -> None:
    """Plan, sweep and dispatch again and again."""
    from archive.registry import Registry
    from tasks.app import make_app
    from tasks.cycle import run_cycle
    from tasks.settings import Settings

    settings = Settings()
    registry, app = Registry(settings.registry.url), make_app(settings)
    while True:
        run_cycle(registry, settings, app, datetime.now(UTC))
        time.sleep(PLANNER_PAUSE)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    {"worker": work, "planner": turn}[sys.argv[1]]()
