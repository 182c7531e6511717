"""Print how soon a step runs: from the last frame of a template complete on disk, beyond the settle time.

``python -m benchmarks.latency`` simulates biases of full size, starts ``musecal run`` in a folder of its own, and
copies one night's biases in after the other. Nothing of ESO's can stand beside it: its daily run begins on the hour.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TypeVar

from sqlalchemy import Select, func, select

from archive.models import Arrival, Group, Step
from archive.registry import Registry
from archive.states import ArrivalState, StepState
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence
from tasks.settings import Settings, load_settings

FIRST_NIGHT = date(2026, 6, 17)
Answer = TypeVar("Answer")
PATIENCE_SECONDS = 300.0
SETTLE_SECONDS = 2.0
SETTINGS = f"""
[archive]
root = "archive"
incoming = "incoming"
[watch]
settle_seconds = {SETTLE_SECONDS}
"""


def wait_for(what: str, query: Select[Answer], registry: Registry, log: Path) -> Answer:
    """Ask the registry until a query answers with something; the log's end is told if it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with registry.read() as session:
            if found := session.scalar(query):
                return found
        time.sleep(0.01)
    raise SystemExit(f"no {what} within {PATIENCE_SECONDS:.0f} s: {log.read_text()[-2000:]}")


def latency(log: Path, frames: list[Path], night: date, settings: Settings, registry: Registry) -> float:
    """Copy a night's biases in; return the seconds from the last one to its step running, less the settling."""
    taken = select(func.count()).select_from(Arrival).where(Arrival.state == ArrivalState.INGESTED)
    with registry.read() as session:
        before = session.scalar(taken) or 0
    for path in frames[:-1]:
        shutil.copyfile(path, settings.archive.incoming / path.name)
    wait_for("frames taken", taken.having(func.count() == before + len(frames) - 1), registry, log)
    shutil.copyfile(frames[-1], settings.archive.incoming / frames[-1].name)
    complete = datetime.now(UTC)
    bias = select(Step).join(Step.group).where(Group.night == night, Step.started.is_not(None))
    step = wait_for("step running", bias, registry, log)
    wait_for("step done", bias.where(Step.state == StepState.DONE), registry, log)  # the next night finds idle workers
    if step.started is None:
        raise SystemExit("the step that runs has no time of its start.")
    return (step.started - complete).total_seconds() - settings.watch.settle_seconds


def main() -> None:
    """Measure as many nights as are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 12], help="channels of the frames")
    parser.add_argument("--nights", type=int, default=3, help="how many templates are measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="musecal-latency-") as name:
        folder = Path(name)
        (folder / "settings.toml").write_text(SETTINGS)
        settings = load_settings(folder / "settings.toml")
        nights = [FIRST_NIGHT + timedelta(days=number) for number in range(options.nights)]
        frames = {
            night: list(
                write_night(
                    NightPlan(night=night, channels=tuple(options.channels), sequences=(Sequence.BIAS,)),
                    folder / "frames",
                    workers=2,
                )
            )
            for night in nights
        }
        registry = Registry(settings.registry.url)
        command = [sys.executable, "-P", "-m", "daemon.cli", "run", "--settings", str(folder / "settings.toml")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                while not (folder / "archive" / "run" / "watcher.json").exists():
                    time.sleep(0.1)
                    if process.poll() is not None:
                        raise SystemExit((folder / "log").read_text()[-2000:])
                seconds = [latency(folder / "log", frames[night], night, settings, registry) for night in nights]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(120)
        registry.close()
    print(
        f"last frame complete to step running, {len(options.channels)} channels, beyond {SETTLE_SECONDS} s of settling:"
    )
    print("  " + ", ".join(f"{value:.2f}" for value in seconds) + f" s; median {median(seconds):.2f} s")


if __name__ == "__main__":
    main()
