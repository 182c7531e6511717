"""Taking files in: once, whole, explained; and the same registry wherever a kill falls."""

import gzip
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from raw_frame import write_raw_frame
from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.models import Arrival, Event, Frame, Group
from archive.registry import Registry
from archive.states import ArrivalState, GroupState
from archive.store import Store, Transfer, digest_of
from recipes.recipe import Value
from tasks.intake import Intake, Taken
from tasks.settings import Settings, WatchSettings

NOW = datetime(2026, 6, 17, 11, tzinfo=UTC)
NIGHT = date(2026, 6, 16)


class Site:
    """An archive below one folder, with a file or two in its incoming folder."""

    def __init__(self, folder: Path, registry: Registry, transfer: Transfer = Transfer.MOVE) -> None:
        self.incoming, self.root = folder / "incoming", folder / "archive"
        self.incoming.mkdir(parents=True)
        self.registry = registry
        self.store = Store(self.root)
        self.settings = Settings(watch=WatchSettings(transfer=transfer))
        self.intake = Intake(registry, self.store, self.settings)

    def bias(self, name: str = "", *, frame: int = 1, cards: Mapping[str, Value] = MappingProxyType({})) -> Path:
        path = self.incoming / (name or f"MUSE.2026-06-17T10:{41 + frame}:11.000.fits")
        primary = {"HIERARCH ESO TPL START": "2026-06-17T10:40:27", "HIERARCH ESO DET READ CURNAME": "SCI1.0", **cards}
        return write_raw_frame(path, frame=frame, primary=primary)

    def take(self, path: Path, after: float = 0.0) -> Taken:
        return self.intake.take(path, NOW + timedelta(minutes=after))

    def rows(self, kind: type[Any]) -> list[Any]:
        with self.registry.read() as session:
            return list(session.scalars(select(kind).order_by(kind.id)))

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path: Path, registry: Registry) -> Site:
    return Site(tmp_path, registry)


def test_a_frame_is_moved_into_its_night_with_its_rows(site: Site) -> None:
    path = site.bias()
    digest = digest_of(path)
    taken = site.take(path)
    [frame], [group], [arrival] = site.rows(Frame), site.rows(Group), site.rows(Arrival)
    assert (taken.state, taken.frame_id) == (ArrivalState.INGESTED, frame.id)
    assert not path.exists()
    assert Path(frame.path) == site.root / "raw" / "2026-06-16" / "MUSE.2026-06-17T10:42:11.000.fits"
    assert digest_of(Path(frame.path)) == frame.digest == digest
    assert (frame.tag, frame.night, frame.channels, frame.group_id) == ("BIAS", NIGHT, [1, 12], group.id)
    assert (group.state, group.expected, group.closes) == (GroupState.OPEN, 3, NOW + timedelta(minutes=30))
    assert (arrival.state, arrival.frame_id, arrival.settled) == (ArrivalState.INGESTED, frame.id, NOW)


@pytest.mark.parametrize("transfer", list(Transfer))
def test_taking_again_changes_nothing(tmp_path: Path, registry: Registry, transfer: Transfer) -> None:
    site = Site(tmp_path, registry, transfer)
    path = site.bias()
    first = site.take(path)
    before = [[vars(row) for row in site.rows(kind)] for kind in (Arrival, Frame, Group, Event)], site.files()
    if transfer is not Transfer.MOVE:
        assert path.exists()
        assert site.take(path, after=5) == first
    after = [[vars(row) for row in site.rows(kind)] for kind in (Arrival, Frame, Group, Event)], site.files()
    for rows in (*before[0], *after[0]):
        for row in rows:
            row.pop("_sa_instance_state")
    assert after == before


def test_the_same_content_again_is_a_duplicate(site: Site) -> None:
    path = site.bias()
    copy = Path(shutil.copy(path, site.incoming / "copy.fits"))
    site.take(path)
    taken = site.take(copy)
    assert (taken.state, taken.frame_id) == (ArrivalState.DUPLICATE, site.rows(Frame)[0].id)
    assert not copy.exists()
    assert len(site.rows(Frame)) == 1
    assert len(site.files()) == 1


def test_the_same_name_with_other_content_is_the_next_version(site: Site) -> None:
    site.take(site.bias())
    site.take(site.bias(cards={"OBJECT": "corrected"}))
    old, new = site.rows(Frame)
    assert (old.version, new.version, old.superseded_by, new.superseded_by) == (1, 2, new.id, None)
    assert (old.group_id, new.group_id) == (None, site.rows(Group)[0].id)
    assert Path(new.path).name.endswith(".v2.fits")
    assert Path(old.path).exists()


def test_a_new_version_with_another_setup_leaves_its_group(site: Site) -> None:
    site.take(site.bias())
    site.take(site.bias(cards={"HIERARCH ESO DET READ CURNAME": "FAST"}))
    left, entered = site.rows(Group)
    assert site.rows(Frame)[1].group_id == entered.id
    assert left.expected == 0


def test_compressed_frames_are_taken_as_they_are(site: Site) -> None:
    plain = site.bias()
    packed = plain.with_name(f"{plain.name}.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    taken = site.take(packed)
    [frame] = site.rows(Frame)
    assert (taken.state, frame.channels) == (ArrivalState.INGESTED, [1, 12])
    assert frame.path.endswith(".fits.gz")


def test_what_no_rule_knows_is_kept_and_listed(site: Site) -> None:
    taken = site.take(site.bias(cards={"HIERARCH ESO DPR TYPE": "BIAS,DOME"}))
    [frame] = site.rows(Frame)
    assert (taken.state, frame.tag, frame.group_id) == (ArrivalState.INGESTED, "UNKNOWN", None)
    assert "BIAS,DOME" in frame.rule
    assert Path(frame.path).exists()


def test_what_is_no_fits_goes_into_quarantine(site: Site) -> None:
    path = site.incoming / "MUSE.broken.fits"
    path.write_text("<html>404 not found</html>" * 200)
    taken = site.take(path)
    [arrival] = site.rows(Arrival)
    assert taken.state is arrival.state is ArrivalState.QUARANTINED
    assert "no FITS file" in taken.reason
    assert not path.exists()
    assert Path(arrival.kept).read_text().startswith("<html>")
    assert site.rows(Frame) == []


def test_a_growing_file_waits_then_stalls_and_is_taken_when_it_is_whole(site: Site) -> None:
    path = site.bias()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert site.take(path).state is ArrivalState.WAITING
    assert site.take(path, after=16).state is ArrivalState.STALLED
    path.write_bytes(whole[: 2 * len(whole) // 3])
    assert site.take(path, after=61).state is ArrivalState.WAITING  # it grows again
    path.write_bytes(whole)
    assert site.take(path, after=62).state is ArrivalState.INGESTED
    assert [arrival.state for arrival in site.rows(Arrival)] == [ArrivalState.INGESTED]


def test_a_file_that_stays_short_is_truncated_in_the_end(site: Site) -> None:
    path = site.bias()
    path.write_bytes(path.read_bytes()[:-5000])
    assert site.take(path).state is ArrivalState.WAITING
    taken = site.take(path, after=61)
    assert taken.state is ArrivalState.QUARANTINED
    assert "truncated" in taken.reason
    assert not path.exists()


def test_a_file_that_is_removed_before_it_is_whole_is_gone_and_another_may_come_under_its_name(site: Site) -> None:
    path, other = site.bias(), site.bias(frame=2)
    whole = path.read_bytes()
    for short in (path, other):
        short.write_bytes(whole[:-5000])
        site.take(short)
    path.unlink()
    for _ in range(2):
        site.intake.give_up(site.incoming, {other}, NOW)
    assert [arrival.state for arrival in site.rows(Arrival)] == [ArrivalState.GONE, ArrivalState.WAITING]
    assert [event.what for event in site.rows(Event) if event.subject == "arrival"] == ["file gone"]
    path.write_bytes(whole)
    assert site.take(path).state is ArrivalState.INGESTED
    states = [arrival.state for arrival in site.rows(Arrival)]
    assert states == [ArrivalState.GONE, ArrivalState.WAITING, ArrivalState.INGESTED]


def test_a_file_that_the_scan_missed_but_that_is_there_is_not_given_up(site: Site) -> None:
    path = site.bias()
    path.write_bytes(path.read_bytes()[:-5000])
    site.take(path)
    site.intake.give_up(site.incoming, (), NOW)
    site.intake.give_up(site.incoming / "elsewhere", (), NOW)
    assert [arrival.state for arrival in site.rows(Arrival)] == [ArrivalState.WAITING]


def test_the_same_path_with_a_new_file_is_a_new_arrival(site: Site) -> None:
    path = site.bias("frame.fits")
    site.take(path)
    site.take(site.bias("frame.fits", frame=2))
    assert [arrival.state for arrival in site.rows(Arrival)] == [ArrivalState.INGESTED] * 2
    assert len(site.rows(Frame)) == 2


def test_a_header_that_lies_is_told_in_the_ledger(site: Site) -> None:
    taken = site.take(site.bias(cards={"HIERARCH ESO TPL NEXP": "three"}))
    assert "ESO TPL NEXP = 'three' is not a number" in taken.reason


def test_a_frame_without_any_identity_is_named_by_its_content(site: Site) -> None:
    path = site.bias("___.fits", cards={"ARCFILE": "", "DATE-OBS": ""})
    digest = digest_of(path)
    site.take(path)
    assert site.rows(Frame)[0].dp_id == f"MUSE.{digest[:16]}"


class Killed(BaseException):
    """The process ends here."""


class Fuse:
    """Kills at the n-th crossing of a step."""

    def __init__(self, crossings: int) -> None:
        self.left = crossings

    def cross(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class FusedStore(Store):
    """A store in which the process may be killed before and after each step."""

    fuse: Fuse

    def _fused(self, step: Callable[..., Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
        self.fuse.cross()
        result = step(*arguments, **options)
        self.fuse.cross()
        return result

    def keep_raw(self, *arguments: Any, **options: Any) -> Path:  # noqa: ANN401
        return Path(self._fused(super().keep_raw, *arguments, **options))

    def quarantine(self, *arguments: Any, **options: Any) -> Path:  # noqa: ANN401
        return Path(self._fused(super().quarantine, *arguments, **options))

    def let_go(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        self._fused(super().let_go, *arguments, **options)


class FusedRegistry(Registry):
    """A registry in which the process may be killed before, within and after each transaction."""

    fuse: Fuse

    @contextmanager
    def begin(self) -> Iterator[Session]:
        self.fuse.cross()
        with super().begin() as session:
            yield session
            session.flush()
            self.fuse.cross()
        self.fuse.cross()


_numbers = count()


@pytest.fixture(scope="session")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An incoming folder: three frames, one of them twice, a wreck, and a frame that came again with other content."""
    site = Site(tmp_path_factory.mktemp("arrived"), Registry("sqlite://"))
    biases = [site.bias(frame=number) for number in (1, 2, 3)]
    shutil.copy(biases[1], site.incoming / "copy.fits")
    (site.incoming / "wreck.fits").write_bytes(b"no frame" * 1000)
    site.bias("zz later.fits", frame=1, cards={"OBJECT": "corrected"})
    return site.incoming


def night(folder: Path, arrived: Path, tables: Path, kills: list[int], transfer: Transfer) -> tuple[Any, ...]:
    """Take a small night in, killed after so many steps and begun again, and return what is there in the end."""
    folder.mkdir()
    registry = FusedRegistry(f"sqlite:///{shutil.copy(tables, folder / 'registry.sqlite')}")
    site = Site(folder, registry, transfer)
    shutil.copytree(arrived, site.incoming, dirs_exist_ok=True)
    store = FusedStore(site.root)
    moment = count()
    for crossings in [*kills, 10**6]:
        registry.fuse = store.fuse = Fuse(crossings)
        intake = Intake(registry, store, site.settings)
        try:
            for path in sorted(site.incoming.iterdir()):
                intake.take(path, NOW + timedelta(seconds=next(moment)))
        except Killed:
            continue
    arrivals = sorted((Path(row.path).name, row.state, row.digest, row.reason) for row in site.rows(Arrival))
    frames = [(row.dp_id, row.version, row.digest, row.path.removeprefix(str(folder)), row.superseded_by is None,
               row.group_id) for row in site.rows(Frame)]  # fmt: skip
    groups = [(row.key, row.state, row.expected, row.mjd) for row in site.rows(Group)]
    events = sorted(row.what for row in site.rows(Event))
    registry.close()
    return arrivals, frames, groups, events, site.files(), sorted(path.name for path in site.incoming.iterdir())


@pytest.mark.parametrize("transfer", [Transfer.MOVE, Transfer.LINK])
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.reuse, Phase.generate],
)  # fmt: skip
@given(kills=st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_a_kill_anywhere_and_taking_again_end_the_same(
    tmp_path: Path, arrived: Path, sqlite: Path, transfer: Transfer, kills: list[int]
) -> None:
    killed = night(tmp_path / f"{next(_numbers)}", arrived, sqlite, kills, transfer)
    assert killed == night(tmp_path / f"{next(_numbers)}", arrived, sqlite, [], transfer)
