"""What the file system tells, and which file systems tell it."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.hints import Hints, choose_mode, filesystem_of
from tasks.settings import WatchMode

MOUNTS = r"""
overlay / overlay rw,relatime 0 0
/dev/sda1 /data ext4 rw 0 0
server:/export /data/incoming nfs4 rw 0 0
//server/share /mnt/of\040the\040telescope cifs rw 0 0
tmpfs /data/incoming/local tmpfs rw 0 0
server:/old /twice nfs rw 0 0
/dev/sdb1 /twice xfs rw 0 0
""".strip()


@pytest.mark.parametrize(
    ("folder", "filesystem"),
    [
        ("/home/somebody", "overlay"),
        ("/data", "ext4"),
        ("/data/incoming", "nfs4"),
        ("/data/incoming/2026/06", "nfs4"),
        ("/data/incoming-not", "ext4"),
        ("/data/incoming/local/x", "tmpfs"),
        ("/mnt/of the telescope/muse", "cifs"),
        ("/twice", "xfs"),
    ],
)
def test_the_deepest_and_last_mount_holds_a_folder(folder: str, filesystem: str) -> None:
    assert filesystem_of(Path(folder), MOUNTS) == filesystem


@pytest.mark.parametrize(
    ("filesystem", "mode"),
    [
        ("ext4", WatchMode.INOTIFY),
        ("tmpfs", WatchMode.INOTIFY),
        ("nfs", WatchMode.POLLING),
        ("nfs4", WatchMode.POLLING),
        ("cifs", WatchMode.POLLING),
        ("smb3", WatchMode.POLLING),
        ("fuse.sshfs", WatchMode.POLLING),
    ],
)
def test_remote_file_systems_are_polled_and_the_setting_goes_first(
    filesystem: str, mode: WatchMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.hints.filesystem_of", lambda _folder, _mounts: filesystem)
    assert choose_mode(WatchMode.AUTO, tmp_path) is mode
    assert choose_mode(WatchMode.INOTIFY, tmp_path) is WatchMode.INOTIFY
    assert choose_mode(WatchMode.POLLING, tmp_path) is WatchMode.POLLING


@pytest.fixture(params=[WatchMode.INOTIFY, WatchMode.POLLING])
def hints(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hints]:
    monkeypatch.setattr("daemon.hints.POLL_SECONDS", 0.1)
    folder = tmp_path / "incoming"
    folder.mkdir()
    hints = Hints(folder, request.param)
    hints.listen()
    yield hints
    hints.close()


def hinted_within(hints: Hints, path: Path | None, *, seconds: float = 5.0) -> bool:
    """Wait for a hint at a file, or at a scan where no file is given."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        hinted = hints.wait(0.1)
        if (path in hinted.paths) if path else hinted.rescan:
            return True
    return False


@pytest.mark.parametrize("way", ["written", "renamed into", "renamed inside", "linked"])
def test_every_way_a_file_can_come_is_hinted_at(hints: Hints, tmp_path: Path, way: str) -> None:
    target = tmp_path / "incoming" / "a.fits"
    outside, inside = tmp_path / "a.fits", tmp_path / "incoming" / "a.fits.part"
    outside.write_bytes(b"1")
    match way:
        case "written":
            shutil.copyfile(outside, target)
        case "renamed into":
            outside.rename(target)
        case "renamed inside":
            inside.write_bytes(b"1")
            assert hinted_within(hints, inside)
            inside.rename(target)
        case "linked":
            target.hardlink_to(outside)
    assert hinted_within(hints, target)


def test_a_new_folder_asks_for_a_scan(hints: Hints, tmp_path: Path) -> None:
    (tmp_path / "incoming" / "2026" / "06").mkdir(parents=True)
    assert hinted_within(hints, None)


def test_a_warning_of_the_watchdog_asks_for_a_scan(hints: Hints) -> None:
    logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
    assert hinted_within(hints, None)


def test_a_queue_of_the_kernel_that_runs_over_asks_for_a_scan(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    hints = Hints(tmp_path, WatchMode.INOTIFY)
    hints.listen()
    try:
        # Renames cost the writer little and the reader much: the queue cannot but run over.
        source, target = str(tmp_path / "a.fits"), str(tmp_path / "b.fits")
        Path(source).touch()
        told = False
        for count in range(10 * most):
            os.rename(source, target)  # noqa: PTH104 - the fastest way
            os.rename(target, source)  # noqa: PTH104
            if count % 1000 == 0 and (told := hints.wait(0).rescan):
                break
        assert told or hinted_within(hints, None)
    finally:
        hints.close()


def test_an_observer_that_died_is_started_again(hints: Hints, tmp_path: Path) -> None:
    assert hints._observer is not None
    for emitter in hints._observer.emitters:
        emitter.stop()
        emitter.join()
    hints.listen()
    target = tmp_path / "incoming" / "a.fits"
    target.write_bytes(b"1")
    assert hinted_within(hints, target)


def test_a_folder_that_was_replaced_is_watched_anew(hints: Hints, tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.rename(tmp_path / "former")
    folder.mkdir()
    hints.listen()
    (folder / "a.fits").write_bytes(b"1")
    assert hinted_within(hints, folder / "a.fits")


def test_where_no_observer_can_be_had_the_scan_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("watchdog.observers.inotify.InotifyObserver.start", refuse)
    hints = Hints(tmp_path, WatchMode.INOTIFY)
    hints.listen()
    assert hints.mode == "scan"
    hints.close()
