"""Nights under fire: whatever is killed and whenever, the same archive comes out, nothing twice, nothing lost."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from astropy.io import fits
from sqlalchemy import select
from whole_daemon import WholeDaemon, wait_until

from archive.models import Arrival, Frame, Group, Part, Product, Step
from archive.states import ArrivalState, GroupState, PartState, StepState
from archive.store import Store
from archive.verification import verify
from recipes.muse import Detector
from recipes.simulator import schedule
from recipes.simulator.night import NightPlan, write_night

SMALL = Detector(nx=256, ny=128, margin=32)
NIGHTS = (date(2026, 6, 17), date(2026, 6, 18), date(2026, 6, 19))
SEQUENCES = (schedule.Sequence.BIAS, schedule.Sequence.DARK, schedule.Sequence.FLAT)
CHANNELS = (1, 12)
PRODUCTS = 4  # of a night: master bias, master dark, master flat, trace table
KINDS = ("watcher", "worker", "pool child", "redis")
KILLS = 10
BURST = 2000
PATIENCE = 240.0


@dataclass(frozen=True)
class Outcome:
    """What is in an archive: products with the checksum of each unit's data, and what became of each file."""

    products: Mapping[str, Sequence[str]]
    steps: Sequence[tuple[str, date, int, StepState]]
    arrivals: Mapping[str, Sequence[ArrivalState]]


def outcome(station: WholeDaemon) -> Outcome:
    with station.registry.read() as session:
        products = session.scalars(select(Product).where(Product.static.is_(False))).all()
        steps = session.execute(select(Step.name, Group.night, Step.sequence, Step.state).join(Step.group)).all()
        arrivals: dict[str, list[ArrivalState]] = {}
        for arrival in session.scalars(select(Arrival)):
            arrivals.setdefault(Path(arrival.path).name, []).append(arrival.state)
        return Outcome(
            products={product.name: datasums(Path(product.path)) for product in products},
            steps=sorted((name, night, sequence, state) for name, night, sequence, state in steps),
            arrivals=arrivals,
        )


def datasums(path: Path) -> list[str]:
    with fits.open(path) as units:
        return [unit.header["DATASUM"] for unit in units]


def at_rest(station: WholeDaemon, files: int) -> bool:
    """Return True once every file is taken and nothing is left to do."""
    with station.registry.read() as session:
        taken = session.scalars(select(Arrival.id).where(Arrival.state != ArrivalState.WAITING)).all()
        # A step that waits is about to be queued: everything that a step of these nights needs is made in them.
        unfinished = (StepState.WAITING, StepState.QUEUED, StepState.RUNNING)
        busy = session.scalars(select(Step.id).where(Step.state.in_(unfinished))).all()
        done = session.scalars(select(Step.id).where(Step.state == StepState.DONE)).all()
        open_groups = session.scalars(select(Group.id).where(Group.state == GroupState.OPEN)).all()
    return len(taken) >= files and bool(done) and not busy and not open_groups


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three nights of small frames in order of time."""
    folder = tmp_path_factory.mktemp("frames")
    plans = [NightPlan(night=night, channels=CHANNELS, sequences=SEQUENCES, detector=SMALL, seed=1) for night in NIGHTS]
    return [path for plan in plans for path in write_night(plan, folder)]


@pytest.fixture(scope="module")
def undisturbed(frames: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What comes out if nothing happens."""
    with WholeDaemon(tmp_path_factory.mktemp("undisturbed")) as station:
        for path in frames:
            shutil.copyfile(path, station.settings.archive.incoming / path.name)
        wait_until(lambda: at_rest(station, len(frames)), "the nights are done", PATIENCE)
        time.sleep(3)
        assert at_rest(station, len(frames))
        found = outcome(station)
    assert len(found.products) == PRODUCTS * len(NIGHTS)
    assert {state for *_, state in found.steps} == {StepState.DONE}
    return found


def deliver(path: Path, incoming: Path, rng: np.random.Generator) -> None:
    """Bring a frame into the incoming folder in one of the ways of the world."""
    target = incoming / path.name
    match rng.integers(4):
        case 0:
            shutil.copyfile(path, target)
        case 1:
            part = incoming / f"{path.name}.part"
            shutil.copyfile(path, part)
            part.rename(target)
        case 2:
            beside = incoming.parent / path.name
            shutil.copyfile(path, beside)
            beside.rename(target)
        case _:
            content = path.read_bytes()
            with target.open("wb") as file:
                for start in range(0, len(content), len(content) // 4 + 1):
                    file.write(content[start : start + len(content) // 4 + 1])
                    file.flush()
                    time.sleep(0.3)


def kill_one(station: WholeDaemon, kinds: Sequence[str], rng: np.random.Generator) -> str:
    """Kill a process of a kind drawn by lot, and nothing but it; return the kind."""
    kind = str(rng.choice(kinds))
    if kind == "supervisor":
        station.supervisor.kill()
        station.supervisor.wait(10)
        station.start_again()
        return kind
    wait_until(lambda: bool(station.of(kind)), f"a {kind} to kill")
    victims = station.of(kind)
    with suppress(psutil.NoSuchProcess):
        victims[rng.integers(len(victims))].kill()
    return kind


def wait_for_work(station: WholeDaemon, *, seconds: float) -> None:
    """Wait until a part is being worked on, but no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with station.registry.read() as session:
            if session.scalar(select(Part.id).where(Part.state == PartState.RUNNING).limit(1)):
                return
        time.sleep(0.01)


@pytest.mark.parametrize(("seed", "kinds"), [(1, KINDS), (2, (*KINDS, "supervisor"))], ids=["parts", "the whole"])
def test_ten_kills_at_random_leave_the_archive_of_an_undisturbed_run(
    frames: list[Path], undisturbed: Outcome, tmp_path: Path, seed: int, kinds: Sequence[str]
) -> None:
    rng = np.random.default_rng(seed)
    with WholeDaemon(tmp_path / "station") as station:
        incoming = station.settings.archive.incoming
        (incoming / "nonsense.fits").write_bytes(b"this was never FITS " * 400)
        (incoming / "truncated.fits").write_bytes(frames[0].read_bytes()[:-2880])
        ways = np.random.default_rng((seed, 1))

        def play() -> None:
            for path in frames:
                deliver(path, incoming, ways)
                time.sleep(ways.uniform(0, 0.8))
            shutil.copyfile(frames[0], incoming / "again.fits")

        player = Thread(target=play)
        player.start()
        killed = []
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.5, 6))
            if rng.random() < 0.5:  # else most kills would hit a daemon that only waits
                wait_for_work(station, seconds=5)
            killed.append(kill_one(station, kinds, rng))
        player.join()
        wait_until(
            lambda: at_rest(station, len(frames) + 2) and len(outcome(station).products) >= len(undisturbed.products),
            "the nights are done",
            PATIENCE,
        )
        time.sleep(5)  # for anything that would come twice
        found = outcome(station)
        assert found.products == undisturbed.products, f"killed: {', '.join(killed)}"
        assert found.steps == undisturbed.steps
        expected = {path.name: [ArrivalState.INGESTED] for path in frames}
        expected["again.fits"] = [ArrivalState.DUPLICATE]
        expected["nonsense.fits"] = [ArrivalState.QUARANTINED]
        expected["truncated.fits"] = [ArrivalState.WAITING]
        assert found.arrivals == expected
        assert [path.name for path in incoming.iterdir()] == ["truncated.fits"]
        assert list(verify(station.registry, Store(station.settings.archive.root))) == []
        with station.registry.read() as session:
            assert len(session.scalars(select(Frame)).all()) == len(frames)
            assert {part.state for part in session.scalars(select(Part))} == {PartState.DONE}


def write_tiny_frame(path: Path, number: int) -> None:
    """Write a frame without pixels, each another one; they belong to no group and to no step."""
    header = fits.Header()
    header["INSTRUME"] = "MUSE"
    header["MJD-OBS"] = 61208.0 + number / 86400
    header["HIERARCH ESO DPR CATG"] = "TEST"
    header["HIERARCH ESO DPR TYPE"] = f"BURST{number}"
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(name="CHAN01")]).writeto(path)


def test_a_burst_of_tiny_files_and_a_kill_in_its_middle_lose_nothing(tmp_path: Path) -> None:
    names = {f"MUSE.2026-06-17T{n // 3600:02d}:{n // 60 % 60:02d}:{n % 60:02d}.000.fits" for n in range(BURST)}
    with WholeDaemon(tmp_path / "station") as station:
        incoming = station.settings.archive.incoming
        for number, name in enumerate(sorted(names)):
            write_tiny_frame(incoming / name, number)
        wait_until(lambda: ledger(station)[ArrivalState.INGESTED] > BURST // 10, "the burst has begun to go in")
        station.of("watcher")[0].kill()
        wait_until(lambda: ledger(station)[ArrivalState.INGESTED] >= BURST, "the burst is in", PATIENCE)
        time.sleep(3)
        assert ledger(station) == {ArrivalState.INGESTED: BURST}
        assert not any(incoming.iterdir())
        with station.registry.read() as session:
            assert {f"{dp_id}.fits" for dp_id in session.scalars(select(Frame.dp_id))} == names


def ledger(station: WholeDaemon) -> Counter[ArrivalState]:
    """Return how many files are in each state."""
    with station.registry.read() as session:
        return Counter(session.scalars(select(Arrival.state)))
