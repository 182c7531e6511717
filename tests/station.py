"""A site with its Redis and the processes that work for it: what the drills are held on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import odd_recipes
import processes
import psutil
import pytest
from doorbell import Doorbell
from processes import wait_until
from rows import add_frame, add_step
from sqlalchemy import select

from archive.models import Frame, Part, Product, Step
from archive.registry import Registry
from archive.states import PartState, StepState
from archive.store import Store, digest_of
from tasks.settings import Settings


class Station:
    """A site with its Redis and the processes that work for it."""

    def __init__(self, registry: Registry, doorbell: Doorbell, folder: Path, frames: list[Path]) -> None:
        self.registry, self.doorbell, self.frames = registry, doorbell, frames
        self.environment = {
            "MUSECAL_ARCHIVE__ROOT": str(folder / "archive"),
            "MUSECAL_ARCHIVE__LEAST_FREE_GB": "0",
            "MUSECAL_REGISTRY__URL": registry.url.render_as_string(hide_password=False),
            "MUSECAL_BROKER__URL": doorbell.url,
            "MUSECAL_WORKER__CONCURRENCY": "2",
            "MUSECAL_WORKER__LEASE_SECONDS": "3",
            "MUSECAL_WORKER__HEARTBEAT_SECONDS": "0.5",
            "MUSECAL_WORKER__RESEND_SECONDS": "1",
            "MUSECAL_WORKER__BACKOFF_SECONDS": "0.2",
            "MUSECAL_WORKER__ATTEMPTS": "20",
            "MUSECAL_WORKER__TIME_LIMIT_SECONDS": "60",
            "MUSECAL_WORKER__MEMORY_LIMIT_MB": "1024",  # parts run within the tests too, which hold some 600
            odd_recipes.FLAG: str(folder / "flag"),
        }
        self.store = Store(folder / "archive")
        self.running: dict[str, psutil.Popen] = {}

    def settings(self, monkeypatch: pytest.MonkeyPatch) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in self.environment.items():
                if name.startswith("MUSECAL_") and name != odd_recipes.FLAG:
                    patch.setenv(name, value)
            return Settings()

    def start(self, *names: str) -> None:
        """Start processes; the kind of one is its name without a number."""
        for name in names:
            self.running[name] = processes.start(name.rstrip("0123456789"), self.environment)

    def wait_for_pool(self, name: str = "worker") -> psutil.Popen:
        worker = self.running[name]
        wait_until(lambda: len(processes.pool_children(worker)) == 2, "two pool children")
        return worker

    def kill(self, name: str) -> None:
        processes.kill(self.running.pop(name))

    def stop(self, name: str) -> int:
        """Stop a process as an operator does; return its exit code."""
        code = processes.stop(self.running[name])
        del self.running[name]
        return code

    def stop_all(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(30)

    def add(self, recipe: str = "muse_bias", channels: tuple[int, ...] = (1, 2), frames: slice = slice(None)) -> int:
        with self.registry.begin() as session:
            known = {frame.path: frame for frame in session.scalars(select(Frame))}
            rows = [
                known.get(str(path)) or add_frame(session, number, path=path) for number, path in enumerate(self.frames)
            ]
            return add_step(session, rows[frames], channels=channels, recipe=recipe).id

    def step(self, step_id: int) -> Step:
        with self.registry.read() as session:
            return session.get_one(Step, step_id)

    def part(self, step_id: int, channel: int) -> Part:
        with self.registry.read() as session:
            return session.execute(select(Part).filter_by(step_id=step_id, channel=channel)).scalar_one()

    def wait_for(self, step_id: int, *states: StepState, seconds: float = 60) -> float:
        states = states or (StepState.DONE,)
        return wait_until(lambda: self.step(step_id).state in states, f"step {step_id} {' or '.join(states)}", seconds)

    def wait_for_part(self, step_id: int, channel: int, state: PartState) -> float:
        return wait_until(lambda: self.part(step_id, channel).state is state, f"channel {channel} {state}")

    def products(self) -> list[Product]:
        with self.registry.read() as session:
            return list(session.scalars(select(Product).order_by(Product.id)))

    def check_archive(self) -> None:
        """Each row has its file, whole, and each file its row."""
        products = self.products()
        files = sorted(self.store.products.glob("*/*"))
        assert files == sorted(Path(product.path) for product in products)
        assert all(digest_of(Path(product.path)) == product.digest for product in products)
        with self.registry.read() as session:
            done = session.scalars(select(Step.id).filter_by(state=StepState.DONE)).all()
        assert sorted(product.step_id or 0 for product in products) == sorted(done)


@contextmanager
def held(registry: Registry, folder: Path, frames: list[Path]) -> Iterator[Station]:
    """Hold a site with nothing running but Redis; at the end nothing runs any more."""
    with Doorbell() as doorbell:
        station = Station(registry, doorbell, folder, frames)
        try:
            yield station
        finally:
            station.stop_all()
