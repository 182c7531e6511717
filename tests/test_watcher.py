"""Files come in every way files can come, the world goes away and returns: each is taken once, when it is whole."""

import errno
import gzip
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Event, Thread

import pytest
from raw_frame import write_raw_frame
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from archive.models import Arrival, Frame, Product
from archive.registry import Registry
from archive.states import ArrivalState
from archive.store import Store, Transfer
from daemon import watcher as watching
from daemon.heartbeat import Heartbeat, read_heartbeat
from daemon.watcher import Watcher
from recipes.muse import Detector
from recipes.simulator.night import NightPlan
from recipes.simulator.statics import write_statics
from tasks.intake import Intake, Taken
from tasks.settings import ArchiveSettings, Settings, WatchMode, WatchSettings

SETTLE = 0.3
PATIENCE = 20.0


@dataclass
class Clerk:
    """Stands where the intake does: notes what it is given, and refuses on demand."""

    given: list[str] = field(default_factory=list)
    refuse: Callable[[Path], Exception | Taken | None] = lambda _path: None

    def take(self, path: Path, now: datetime) -> Taken:
        assert now.tzinfo is UTC
        refused = self.refuse(path)
        if isinstance(refused, Exception):
            raise refused
        if refused:
            return refused
        self.given.append(path.name)
        path.unlink()
        return Taken(ArrivalState.INGESTED, len(self.given))

    def give_up(self, folder: Path, present: Collection[Path], now: datetime) -> None:
        assert (folder.is_absolute(), now.tzinfo) == (True, UTC)
        assert all(path.parent.is_relative_to(folder) for path in present)


def settings_for(folder: Path, **watch: object) -> Settings:
    return Settings(
        archive=ArchiveSettings(root=folder / "archive", incoming=folder / "incoming"),
        watch=WatchSettings(**{"settle_seconds": SETTLE, "scan_seconds": 0.5, **watch}),  # type: ignore[arg-type]
    )


@contextmanager
def watched(
    settings: Settings, intake: object, cycle: Callable[[datetime], object] = lambda _now: None
) -> Iterator[Path]:
    """Run a watcher in a thread; what it raises is raised at the end."""
    stop, failures = Event(), []
    settings.archive.incoming.mkdir(parents=True, exist_ok=True)

    def run() -> None:
        try:
            Watcher(settings, intake=intake, cycle=cycle).run(stop)  # type: ignore[arg-type]
        except BaseException as error:
            failures.append(error)
            raise

    thread = Thread(target=run)
    thread.start()
    try:
        yield settings.archive.incoming
    finally:
        stop.set()
        thread.join()
    assert not failures


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def heartbeat(settings: Settings, condition: Callable[[Heartbeat], bool]) -> Heartbeat:
    """Wait for a sign of life that meets a condition."""
    found: list[Heartbeat] = []

    def met() -> bool:
        beat = read_heartbeat(settings.archive.root)
        found[:] = [beat] if beat and condition(beat) else []
        return bool(found)

    wait_for(met)
    return found[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(watching, "LONGEST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("daemon.hints.POLL_SECONDS", 0.1)


@pytest.mark.parametrize("mode", [WatchMode.INOTIFY, WatchMode.POLLING])
@pytest.mark.parametrize(
    "way", ["written slowly", "renamed into", "renamed inside", "copied", "moved with its folder", "linked"]
)
def test_a_file_is_taken_once_and_whole_however_it_comes(tmp_path: Path, way: str, mode: WatchMode) -> None:
    clerk = Clerk()
    sizes: list[int] = []
    clerk.refuse = lambda path: sizes.append(path.stat().st_size)
    source = tmp_path / "elsewhere" / "a.fits"
    source.parent.mkdir()
    source.write_bytes(bytes(5 * 2880))
    with watched(settings_for(tmp_path, mode=mode), clerk) as incoming:
        match way:
            case "written slowly":
                with (incoming / "a.fits").open("wb") as file:
                    for _ in range(5):
                        file.write(bytes(2880))
                        file.flush()
                        time.sleep(SETTLE * 0.7)
            case "renamed into":
                source.rename(incoming / "a.fits")
            case "renamed inside":
                shutil.copyfile(source, incoming / "a.fits.part")
                time.sleep(2 * SETTLE)
                assert clerk.given == []
                (incoming / "a.fits.part").rename(incoming / "a.fits")
            case "copied":
                shutil.copy2(source, incoming / "a.fits")
            case "moved with its folder":
                source.parent.rename(incoming / "2026-06-17")
            case "linked":
                (incoming / "a.fits").hardlink_to(source)
        wait_for(lambda: clerk.given == ["a.fits"])
        time.sleep(2 * SETTLE)
    assert clerk.given == ["a.fits"]
    assert sizes == [5 * 2880]


def test_files_that_were_there_before_are_taken_and_others_are_left_alone(tmp_path: Path) -> None:
    settings, clerk = settings_for(tmp_path), Clerk()
    incoming = settings.archive.incoming
    (incoming / "night" / "deeper").mkdir(parents=True)
    (incoming / ".hidden").mkdir()
    for name in (
        "a.fits",
        "night/b.fits.fz",
        "night/deeper/c.fits.Z",
        "d.fits.part",
        ".e.fits",
        ".hidden/f.fits",
        "log.txt",
    ):
        (incoming / name).write_bytes(b"1")
    with watched(settings, clerk):
        wait_for(lambda: len(clerk.given) == 3)
        time.sleep(2 * SETTLE)
    assert sorted(clerk.given) == ["a.fits", "b.fits.fz", "c.fits.Z"]


def test_a_file_is_taken_right_after_its_settle_time(tmp_path: Path) -> None:
    clerk = Clerk()
    taken: list[float] = []
    cycles: list[float] = []
    clerk.refuse = lambda _path: taken.append(time.monotonic())
    with watched(
        settings_for(tmp_path, scan_seconds=60), clerk, lambda _now: cycles.append(time.monotonic())
    ) as incoming:
        wait_for(lambda: len(cycles) == 1)  # the one at the start
        (incoming / "a.fits").write_bytes(b"1")
        complete = time.monotonic()
        wait_for(lambda: len(cycles) == 2)
    assert SETTLE * 0.95 <= taken[0] - complete < SETTLE + 0.3
    assert cycles[1] - taken[0] < 0.3


def test_a_backlog_does_not_run_the_planner_after_each_file(tmp_path: Path) -> None:
    settings, clerk, cycles = settings_for(tmp_path), Clerk(), []
    settings.archive.incoming.mkdir()
    for number in range(2000):
        (settings.archive.incoming / f"{number:04d}.fits").write_bytes(b"1")

    def plan(now: datetime) -> None:
        cycles.append(now)
        time.sleep(0.2)

    started = time.monotonic()
    with watched(settings, clerk, plan):
        wait_for(lambda: len(clerk.given) == 2000)
    assert sorted(clerk.given) == [f"{number:04d}.fits" for number in range(2000)]
    assert len(cycles) <= 3 + (time.monotonic() - started) / watching.TAKE_SECONDS


def test_a_burst_while_it_watches_loses_nothing(tmp_path: Path) -> None:
    clerk = Clerk()
    with watched(settings_for(tmp_path), clerk) as incoming:
        for number in range(2000):
            folder = incoming / str(number % 40)
            folder.mkdir(exist_ok=True)
            (folder / f"{number:04d}.fits").write_bytes(b"1")
        wait_for(lambda: len(clerk.given) >= 2000)
        time.sleep(2 * SETTLE)
    assert sorted(clerk.given) == [f"{number:04d}.fits" for number in range(2000)]


def test_the_planner_runs_on_its_timer_without_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "CYCLE_SECONDS", 0.2)
    cycles: list[datetime] = []
    with watched(settings_for(tmp_path), Clerk(), cycles.append):
        wait_for(lambda: len(cycles) >= 4)


def test_hints_may_fail_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.hints._Handler.dispatch", lambda *_: None)
    clerk = Clerk()
    with watched(settings_for(tmp_path), clerk) as incoming:
        for number in range(3):
            (incoming / f"{number}.fits").write_bytes(b"1")
            wait_for(lambda number=number: len(clerk.given) == number + 1)  # type: ignore[misc]


def test_a_file_that_is_not_whole_is_offered_again_until_it_is(tmp_path: Path) -> None:
    settings, clerk, offered = settings_for(tmp_path), Clerk(), []

    def refuse(path: Path) -> Taken | None:
        offered.append(path.name)
        if len(offered) < 4:
            return Taken(
                ArrivalState.STALLED if len(offered) > 2 else ArrivalState.WAITING, None, "2880 bytes are missing"
            )
        return None

    clerk.refuse = refuse
    with watched(settings, clerk) as incoming:
        (incoming / "a.fits").write_bytes(b"1")
        beat = heartbeat(settings, lambda beat: beat.stalled == 1)
        assert beat.postponed == {str(incoming / "a.fits"): "2880 bytes are missing"}
        wait_for(lambda: clerk.given == ["a.fits"])
        heartbeat(settings, lambda beat: (beat.waiting, beat.stalled, beat.taken) == (0, 0, 1))


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("registry", OperationalError("BEGIN IMMEDIATE", None, Exception("the database is away"))),
        ("disk", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_while_the_world_is_away_it_waits_says_so_and_loses_nothing(
    tmp_path: Path, what: str, error: Exception
) -> None:
    settings, clerk = settings_for(tmp_path), Clerk()
    asked: list[float] = []

    def refuse(_path: Path) -> Exception | None:
        asked.append(time.monotonic())
        return error

    clerk.refuse = refuse
    with watched(settings, clerk) as incoming:
        for number in range(20):
            (incoming / f"{number:02d}.fits").write_bytes(b"1")
        beat = heartbeat(settings, lambda beat: what in beat.troubles)
        assert str(getattr(error, "orig", error)) in beat.troubles[what]
        time.sleep(1.5)
        assert len(asked) <= 4  # it does not try all twenty again and again
        clerk.refuse = lambda _path: None
        wait_for(lambda: len(clerk.given) == 20)
        heartbeat(settings, lambda beat: not beat.troubles)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), ValueError("a bug")])
def test_one_file_that_cannot_be_taken_does_not_keep_the_others_out(tmp_path: Path, error: Exception) -> None:
    settings, clerk = settings_for(tmp_path), Clerk()
    clerk.refuse = lambda path: error if path.name == "00.fits" else None
    with watched(settings, clerk) as incoming:
        for number in range(5):
            (incoming / f"{number:02d}.fits").write_bytes(b"1")
        wait_for(lambda: len(clerk.given) == 4)
        beat = heartbeat(settings, lambda beat: bool(beat.postponed))
        assert str(error) in beat.postponed[str(incoming / "00.fits")]
        clerk.refuse = lambda _path: None
        wait_for(lambda: len(clerk.given) == 5)


def test_a_planner_that_fails_does_not_keep_the_frames_out(tmp_path: Path) -> None:
    settings, clerk = settings_for(tmp_path), Clerk()

    def fail(_now: datetime) -> None:
        raise ValueError("a bug")

    with watched(settings, clerk, fail) as incoming:
        (incoming / "a.fits").write_bytes(b"1")
        wait_for(lambda: clerk.given == ["a.fits"])
        heartbeat(settings, lambda beat: beat.troubles == {"planner": "ValueError: a bug"})


def test_an_incoming_folder_that_goes_and_returns_is_watched_again(tmp_path: Path) -> None:
    settings, clerk = settings_for(tmp_path), Clerk()
    with watched(settings, clerk) as incoming:
        heartbeat(settings, lambda beat: bool(beat.last_scan))
        incoming.rename(tmp_path / "away")
        heartbeat(settings, lambda beat: "incoming folder" in beat.troubles)
        incoming.mkdir()
        heartbeat(settings, lambda beat: not beat.troubles)
        (incoming / "a.fits").write_bytes(b"1")
        wait_for(lambda: clerk.given == ["a.fits"])


@pytest.fixture
def sqlite_registry(tmp_path: Path) -> Registry:
    registry = Registry(f"sqlite:///{tmp_path}/registry.sqlite")
    registry.upgrade()
    return registry


def arrivals(registry: Registry) -> dict[str, list[str]]:
    with registry.read() as session:
        rows = session.scalars(select(Arrival).order_by(Arrival.id)).all()
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(Path(row.path).name, []).append(row.state.value)
        return found


def test_real_frames_in_every_compression_are_taken_in_once(tmp_path: Path, sqlite_registry: Registry) -> None:
    settings = settings_for(tmp_path)
    intake = Intake(sqlite_registry, Store(settings.archive.root), settings)
    plain = write_raw_frame(tmp_path / "1.fits", frame=1)
    second = write_raw_frame(tmp_path / "2.fits", frame=2)
    truncated = write_raw_frame(tmp_path / "3.fits", frame=3).read_bytes()[:-2880]
    with watched(settings, intake) as incoming:
        shutil.copyfile(plain, incoming / "plain.fits")
        (incoming / "packed.fits.gz").write_bytes(gzip.compress(second.read_bytes()))
        (incoming / "truncated.fits").write_bytes(truncated)
        (incoming / "nonsense.fits").write_bytes(b"this was never FITS " * 400)
        wait_for(lambda: len(arrivals(sqlite_registry)) == 4)
        wait_for(lambda: arrivals(sqlite_registry)["plain.fits"] == ["ingested"])
        shutil.copyfile(plain, incoming / "again.fits")
        wait_for(lambda: arrivals(sqlite_registry).get("again.fits") == ["duplicate"])
        wait_for(lambda: [path.name for path in incoming.iterdir()] == ["truncated.fits"])
        wait_for(lambda: arrivals(sqlite_registry)["truncated.fits"] == ["waiting"])
        (incoming / "truncated.fits").unlink()
        wait_for(lambda: arrivals(sqlite_registry)["truncated.fits"] == ["gone"])
    assert arrivals(sqlite_registry) == {
        "plain.fits": ["ingested"],
        "packed.fits.gz": ["ingested"],
        "nonsense.fits": ["quarantined"],
        "truncated.fits": ["gone"],
        "again.fits": ["duplicate"],
    }
    with sqlite_registry.read() as session:
        assert session.scalar(select(func.count(Frame.id))) == 2


def test_static_calibrations_in_the_folder_are_taken_in_too(tmp_path: Path, sqlite_registry: Registry) -> None:
    settings = settings_for(tmp_path)
    plan = NightPlan(night=date(2026, 6, 17), channels=(1,), detector=Detector(nx=64, ny=64))
    with watched(settings, Intake(sqlite_registry, Store(settings.archive.root), settings)) as incoming:
        paths = write_statics(plan, incoming)
        wait_for(lambda: not list(incoming.glob("*.fits")))
    with sqlite_registry.read() as session:
        products = {product.name: product for product in session.scalars(select(Product))}
        arrivals = session.scalars(select(Arrival)).all()
        assert {arrival.product_id for arrival in arrivals} == {product.id for product in products.values()}
        assert session.scalar(select(func.count()).select_from(Frame)) == 0
    assert sorted(products) == sorted(path.name for path in paths)
    assert all(product.static and Path(product.path).parent.name == "statics" for product in products.values())


@pytest.mark.parametrize("transfer", list(Transfer))
def test_starting_again_takes_nothing_a_second_time(
    tmp_path: Path, sqlite_registry: Registry, transfer: Transfer
) -> None:
    settings = settings_for(tmp_path, transfer=transfer)
    intake = Intake(sqlite_registry, Store(settings.archive.root), settings)
    settings.archive.incoming.mkdir()
    for frame in range(1, 4):
        write_raw_frame(settings.archive.incoming / f"{frame}.fits", frame=frame)
    expected = {f"{frame}.fits": ["ingested"] for frame in range(1, 4)}
    for _ in range(2):
        with watched(settings, intake):
            wait_for(lambda: arrivals(sqlite_registry) == expected)
            time.sleep(3 * SETTLE)
    assert arrivals(sqlite_registry) == expected
    assert len(list(settings.archive.incoming.iterdir())) == (0 if transfer is Transfer.MOVE else 3)
