"""Print how soon the calibrations of a science frame are found, in a small registry and in one of a million frames.

``python -m benchmarks.retrieval`` fills both, on SQLite and on PostgreSQL, with nights that have rows and no files; it
takes 3 GB of disk and a quarter of an hour. Each tree is asked for in a session of its own, as the service does; the
first ones, which fill the caches of the programs, are not counted.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import func, select

from archive.holdings import find_holding
from archive.models import Frame, Product
from archive.registry import Registry
from archive.search import FrameSearch, ProductSearch, find_frames, find_products
from archive.setup import SetupKey
from archive.states import Certification
from benchmarks.decade import fill
from benchmarks.postgres import execute, postgres_server
from tasks.associating import associate, retrieval_policy
from tasks.associations import Mode
from tasks.cascade import Tag
from tasks.settings import Settings

SMALL, LARGE = 37, 3700  # nights: 10 000 and 1 000 000 frames
WARM = 10  # questions that are not counted
TARGET_SECONDS, TARGET_RATIO = 0.050, 2.0  # of the 95th percentile; beside the small registry
Question = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds that questions took."""

    seconds: Sequence[float]

    @property
    def p95(self) -> float:
        """The 95th percentile."""
        return float(np.percentile(self.seconds, 95))

    def __str__(self) -> str:
        values = (float(np.median(self.seconds)), self.p95, max(self.seconds))
        return " ".join(f"{1000 * value:9.1f}" for value in values)


def measure(questions: Sequence[Question]) -> Times:
    """Ask one after the other."""
    seconds = []
    for question in questions:
        begin = time.perf_counter()
        question()
        seconds.append(time.perf_counter() - begin)
    return Times(seconds[WARM:])


def trees(registry: Registry, dp_ids: Sequence[str], mode: Mode) -> list[Question]:
    """Return the questions for the trees of these frames, by the function."""
    policy = retrieval_policy(Settings())

    def ask(dp_id: str) -> object:
        with registry.read() as session:
            frame = find_holding(session, dp_id)
            if not isinstance(frame, Frame):
                raise SystemExit(f"{dp_id} is not in the registry that was filled with it.")
            return associate(session, frame, mode, policy)

    return [lambda dp_id=dp_id: ask(dp_id) for dp_id in dp_ids]  # type: ignore[misc]  # a default argument binds it


def served_trees(client: httpx.Client, dp_ids: Sequence[str], mode: Mode) -> list[Question]:
    """Return the same questions to the service."""

    def ask(dp_id: str) -> object:
        return client.get("/calselector/v1/associations", params={"dp_id": dp_id, "mode": mode}).raise_for_status()

    return [lambda dp_id=dp_id: ask(dp_id) for dp_id in dp_ids]  # type: ignore[misc]


def searches(registry: Registry, frames: Sequence[Frame]) -> dict[str, list[Question]]:
    """Return what people look for, around the times of some frames."""

    def products(frame: Frame) -> object:
        search = ProductSearch(
            types=("MASTER_FLAT",), since=frame.mjd - 30, before=frame.mjd + 30, limit=100,
            certifications=(Certification.CERTIFIED,), setup={SetupKey.MODE: frame.mode},
        )  # fmt: skip
        with registry.read() as session:
            return find_products(session, search)

    def listing(_: Frame) -> object:
        with registry.read() as session:
            return find_frames(session, FrameSearch(limit=100))

    def target(frame: Frame) -> object:
        with registry.read() as session:
            return find_frames(session, FrameSearch(object=frame.object, limit=100))

    def pattern(frame: Frame) -> object:
        with registry.read() as session:
            return find_frames(session, FrameSearch(object=f"*{frame.object[-4:]}", limit=100))

    kinds = {
        "flats of a mode, two months": products,
        "the newest frames": listing,
        "frames of a target": target,
        "targets by a pattern": pattern,
    }
    return {name: [lambda ask=ask, frame=frame: ask(frame) for frame in frames] for name, ask in kinds.items()}  # type: ignore[misc]


def science(registry: Registry, count: int, seed: int) -> list[Frame]:
    """Return science frames at random, none of the first and the last days, which have no neighbours."""
    with registry.read() as session:
        first, last = session.execute(select(func.min(Frame.mjd), func.max(Frame.mjd))).one()
        chance = random.Random(seed)  # noqa: S311 - nothing is kept secret with it
        found: list[Frame] = []
        while len(found) < count:
            mjd = chance.uniform(first + 2, last - 2)
            wanted = select(Frame).where(Frame.tag == Tag.OBJECT, Frame.mjd >= mjd).order_by(Frame.mjd).limit(1)
            found += session.scalars(wanted).all()
    return found


@contextmanager
def service(registry: Registry, folder: Path) -> Iterator[httpx.Client]:
    """Run ``musecal web`` on a registry."""
    settings, log = folder / "settings.toml", folder / "web.log"
    url = registry.url.render_as_string(hide_password=False)
    lines = (f'registry = {{ url = "{url}" }}', 'archive = { root = "archive", incoming = "in" }', "web = { port = 0 }")
    settings.write_text("\n".join(lines))
    command = [sys.executable, "-P", "-m", "daemon.cli", "web", "--json", "--settings", str(settings)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            with httpx.Client(base_url=_wait_for(process, log), timeout=60) as client:
                yield client
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address at which the service listens, once it does."""
    while True:
        for line in log.read_text().splitlines():
            if '"web started"' in line:
                told = json.loads(line)
                return f"http://{told['host']}:{told['port']}"
        if process.poll() is not None:
            raise SystemExit(log.read_text()[-2000:])
        time.sleep(0.1)


def report(registry: Registry, folder: Path, count: int, seed: int) -> dict[str, Times]:
    """Measure one registry, print its lines, and return them by name."""
    with registry.read() as session:
        sizes = [session.scalar(select(func.count()).select_from(kind)) for kind in (Frame, Product)]
    print(f"\n{registry.url.get_backend_name()}, {sizes[0]} frames, {sizes[1]} products")
    print(f"{'':40}    median       p95       max  ms")
    frames = science(registry, count + WARM, seed)
    dp_ids = [frame.dp_id for frame in frames]
    found = {f"{mode}, by the function": measure(trees(registry, dp_ids, mode)) for mode in Mode}
    with service(registry, folder) as client:
        found |= {f"{mode}, over HTTP": measure(served_trees(client, dp_ids, mode)) for mode in Mode}
    found |= {name: measure(questions) for name, questions in searches(registry, frames).items()}
    for name, times in found.items():
        print(f"{name:40} {times}", flush=True)
    return found


def filled(registry: Registry, nights: int) -> Registry:
    """Return a registry with so many nights in it; one that was filled before is taken as it is."""
    registry.upgrade()
    with registry.read() as session:
        full = session.scalar(select(Frame.id).limit(1))
    if full is None:
        print(f"filling {registry} with {nights} nights", file=sys.stderr, flush=True)
        fill(registry, nights)
    return registry


def compare(small: dict[str, Times], large: dict[str, Times]) -> None:
    """Print how the 95th percentiles of trees have grown, and whether they are within the targets."""
    for name in small:
        if "Raw2" in name:
            ratio = large[name].p95 / small[name].p95
            good = large[name].p95 < TARGET_SECONDS and ratio < TARGET_RATIO
            print(f"{name:40} p95 {ratio:.2f} times that of the small one: {'as wanted' if good else 'TOO SLOW'}")


def pairs(folder: Path, databases: Sequence[str]) -> Iterator[tuple[Registry, Registry]]:
    """Yield a small and a large registry on each database."""
    if "sqlite" in databases:
        yield (
            filled(Registry(f"sqlite:///{folder}/small.sqlite"), SMALL),
            filled(Registry(f"sqlite:///{folder}/large.sqlite"), LARGE),
        )
    if "postgresql" in databases:
        with postgres_server() as server:
            made = []
            for name, nights in (("small", SMALL), ("large", LARGE)):
                execute(server, f"CREATE DATABASE {name}")
                url = server.set(database=name)
                made.append(filled(Registry(url.render_as_string(hide_password=False)), nights))
                execute(url, "VACUUM ANALYZE")  # what the server does by itself within a minute
            yield made[0], made[1]


def main() -> None:
    """Fill and measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path, help="where the SQLite registries are kept from one run to the next")
    parser.add_argument("--frames", type=int, default=300, help="science frames that are asked for")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of these frames")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="musecal-retrieval-") as name:
        folder = (options.folder or Path(name)).absolute()
        for both in pairs(folder, options.databases):
            small, large = (report(registry, Path(name), options.frames, options.seed) for registry in both)
            compare(small, large)
            for registry in both:
                registry.close()


if __name__ == "__main__":
    main()
