"""What counts as a settled file, told by hand or by chance."""

import itertools
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.arrivals import Arrivals, Signature, is_frame

SETTLE = 5.0
PAUSE = 30.0
PATH = Path("/incoming/MUSE.2026-06-17T10:41:11.000.fits")


def arrivals() -> Arrivals:
    return Arrivals(settle=SETTLE, longest_pause=PAUSE)


def signature(version: int) -> Signature:
    return Signature(size=2880 * version, mtime_ns=version, inode=1)


def settled(watched: Arrivals, now: float) -> list[Path]:
    return [sighting.path for sighting in watched.settled(now)]


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.fits.gz", "a.fits.Z", "MUSE.2026-06-17T10:41:11.000.fits"])
def test_raw_frames_are_known_by_their_endings(name: str) -> None:
    assert is_frame(name)


@pytest.mark.parametrize(
    "name",
    [".a.fits", "a.fits.part", "a.fits.tmp", "a.fits~", "a.txt", "a.fits.zip", ".a.fits.Xy12ab", "fits", ".fits"],
)
def test_unfinished_and_foreign_names_are_left_alone(name: str) -> None:
    assert not is_frame(name)


def test_a_quiet_file_settles_exactly_after_the_settle_time() -> None:
    watched = arrivals()
    watched.see(PATH, signature(1), 100.0)
    assert watched.next_look == 100.0 + SETTLE
    assert settled(watched, 100.0 + SETTLE - 0.001) == []
    assert settled(watched, 100.0 + SETTLE) == [PATH]


@pytest.mark.parametrize(
    "changed",
    [
        Signature(size=2881, mtime_ns=1, inode=1),
        Signature(size=2880, mtime_ns=2, inode=1),
        Signature(size=2880, mtime_ns=1, inode=2),
    ],
    ids=["size", "time", "inode"],
)
def test_any_change_starts_the_settle_time_again(changed: Signature) -> None:
    watched = arrivals()
    watched.see(PATH, signature(1), 0.0)
    watched.see(PATH, changed, 4.0)
    assert settled(watched, SETTLE) == []
    assert settled(watched, 4.0 + SETTLE) == [PATH]


def test_seeing_the_same_again_changes_nothing() -> None:
    watched = arrivals()
    for now in (0.0, 1.0, 2.0, 4.9):
        watched.see(PATH, signature(1), now)
    assert settled(watched, SETTLE) == [PATH]


def test_an_incomplete_file_is_looked_at_ever_less_often_but_for_ever() -> None:
    watched = arrivals()
    watched.see(PATH, signature(1), 0.0)
    looks = []
    now = 0.0
    while now < 3600:
        assert watched.next_look is not None
        now = watched.next_look
        assert settled(watched, now) == [PATH]
        watched.postpone(PATH, now, reason="4 bytes are missing", stalled=now > 900)
        looks.append(now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert looks[:4] == [5.0, 10.0, 20.0, 40.0]
    assert max(pauses) == PAUSE
    assert (watched.waiting, watched.stalled) == (0, 1)
    assert watched.postponed == {PATH: "4 bytes are missing"}


def test_a_stalled_file_that_grows_is_an_ordinary_one_again() -> None:
    watched = arrivals()
    watched.see(PATH, signature(1), 0.0)
    watched.postpone(PATH, 1000.0, reason="incomplete", stalled=True)
    watched.see(PATH, signature(2), 1001.0)
    assert (watched.waiting, watched.stalled, watched.postponed) == (1, 0, {})
    assert settled(watched, 1001.0 + SETTLE) == [PATH]


def test_a_taken_file_that_stays_is_not_looked_at_again_until_it_changes() -> None:
    watched = arrivals()
    watched.see(PATH, signature(1), 0.0)
    watched.take(PATH, signature(1))
    watched.see(PATH, signature(1), 10.0)
    assert settled(watched, 1e9) == []
    watched.see(PATH, signature(2), 20.0)
    assert settled(watched, 20.0 + SETTLE) == [PATH]


def test_a_file_that_a_scan_does_not_find_is_forgotten_and_may_come_back() -> None:
    watched = arrivals()
    other = PATH.with_name("other.fits")
    watched.see(PATH, signature(1), 0.0)
    watched.see(other, signature(1), 0.0)
    watched.take(other, signature(1))
    watched.retain([])
    assert watched.next_look is None
    watched.see(other, signature(1), 1.0)
    assert settled(watched, 1.0 + SETTLE) == [other]


names = st.text(string.ascii_lowercase, min_size=1, max_size=2).map(lambda name: Path(f"/incoming/{name}.fits"))
sightings = st.lists(st.tuples(names, st.integers(1, 3), st.floats(0, 3)), max_size=30)


@given(sightings)
def test_every_file_ever_seen_settles_once_and_never_before_its_time(seen: list[tuple[Path, int, float]]) -> None:
    watched = arrivals()
    now = 0.0
    last_change: dict[Path, tuple[int, float]] = {}
    for path, version, later in seen:
        now += later
        assert all(now - last_change[early][1] >= SETTLE for early in settled(watched, now))
        watched.see(path, signature(version), now)
        if last_change.get(path, (0, 0.0))[0] != version:
            last_change[path] = (version, now)
    due = settled(watched, now + SETTLE)
    assert sorted(due) == sorted(last_change)
    assert due == sorted(due, key=lambda path: (last_change[path][1], path))
