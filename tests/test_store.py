"""A file comes into its place once, whole, and is never overwritten, whatever is killed on the way."""

import os
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from archive.store import Store, Transfer, digest_of

NIGHT = date(2026, 6, 16)
NAME = "MUSE.2026-06-17T10:41:11.000.fits"
CONTENT = os.urandom(3_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "archive")


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    path = tmp_path / "incoming" / NAME
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def temporary(store: Store) -> Path:
    path = store.work_folder(7, 0, 1) / "MASTER_BIAS.fits"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    memory = Path("/dev/shm")  # noqa: S108 - the one other file system that a Linux machine surely has
    folder = Path(tempfile.mkdtemp(dir=memory))
    yield folder
    shutil.rmtree(folder)


def writable(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class TestRawFrames:
    @pytest.mark.parametrize("transfer", [Transfer.MOVE, Transfer.COPY, Transfer.LINK])
    def test_a_frame_is_kept_under_its_night(self, store: Store, incoming: Path, transfer: Transfer) -> None:
        kept = store.keep_raw(incoming, NIGHT, NAME, transfer=transfer)
        assert kept == store.root / "raw" / "2026-06-16" / NAME
        assert kept.read_bytes() == CONTENT
        assert incoming.exists()  # until the registry knows it
        assert everything(store.root) == [f"raw/2026-06-16/{NAME}"]

    def test_moved_and_copied_frames_are_read_only_and_linked_ones_as_they_came(
        self, store: Store, incoming: Path
    ) -> None:
        assert writable(store.keep_raw(incoming, NIGHT, "one.fits", transfer=Transfer.LINK))
        assert not writable(store.keep_raw(incoming, NIGHT, "two.fits", transfer=Transfer.COPY))
        assert not writable(store.keep_raw(incoming, NIGHT, "three.fits", transfer=Transfer.MOVE))

    def test_moving_and_linking_take_no_room(self, store: Store, incoming: Path) -> None:
        assert store.keep_raw(incoming, NIGHT, "one.fits", transfer=Transfer.MOVE).samefile(incoming)
        assert store.keep_raw(incoming, NIGHT, "two.fits", transfer=Transfer.LINK).samefile(incoming)
        assert not store.keep_raw(incoming, NIGHT, "three.fits", transfer=Transfer.COPY).samefile(incoming)

    def test_a_frame_that_is_left_stays_the_only_one(self, store: Store, incoming: Path) -> None:
        kept = store.keep_raw(incoming, NIGHT, NAME, transfer=Transfer.LEAVE)
        store.let_go(incoming, kept, transfer=Transfer.LEAVE)
        store.let_go(incoming, kept, transfer=Transfer.MOVE)
        assert kept == incoming
        assert incoming.exists()
        assert not store.root.exists()

    @pytest.mark.parametrize(
        ("transfer", "stays"), [(Transfer.MOVE, False), (Transfer.COPY, True), (Transfer.LINK, True)]
    )
    def test_only_a_move_empties_the_incoming_folder(
        self,
        store: Store,
        incoming: Path,
        transfer: Transfer,
        stays: bool,  # noqa: FBT001
    ) -> None:
        kept = store.keep_raw(incoming, NIGHT, NAME, transfer=transfer)
        store.let_go(incoming, kept, transfer=transfer)
        assert incoming.exists() is stays
        store.let_go(incoming, kept, transfer=transfer)  # again is nothing

    def test_what_came_to_the_same_place_in_between_is_not_removed(self, store: Store, incoming: Path) -> None:
        kept = store.keep_raw(incoming, NIGHT, NAME, transfer=Transfer.MOVE)
        incoming.unlink()
        incoming.write_bytes(CONTENT[:-1] + b"?")
        store.let_go(incoming, kept)
        assert incoming.exists()

    def test_nothing_is_removed_while_the_archive_does_not_have_it(self, store: Store, incoming: Path) -> None:
        with pytest.raises(FileNotFoundError):
            store.let_go(incoming, store.raw / "2026-06-16" / NAME)
        assert incoming.exists()

    def test_a_delivery_from_another_file_system_is_copied(self, store: Store, elsewhere: Path) -> None:
        path = elsewhere / NAME
        path.write_bytes(CONTENT)
        assert path.stat().st_dev != store.root.parent.stat().st_dev
        kept = store.keep_raw(path, NIGHT, NAME, transfer=Transfer.MOVE)
        store.let_go(path, kept)
        assert kept.read_bytes() == CONTENT
        assert not path.exists()
        assert everything(store.root) == [f"raw/2026-06-16/{NAME}"]

    def test_bytes_behind_a_symbolic_link_are_copied_since_they_belong_to_another_place(
        self, store: Store, incoming: Path
    ) -> None:
        link = incoming.with_name("link.fits")
        link.symlink_to(incoming)
        kept = store.keep_raw(link, NIGHT, NAME, transfer=Transfer.MOVE)
        store.let_go(link, kept)
        assert not kept.is_symlink()
        assert not kept.samefile(incoming)
        assert incoming.exists()
        assert not link.is_symlink()

    @pytest.mark.parametrize("transfer", [Transfer.MOVE, Transfer.COPY, Transfer.LINK])
    def test_the_same_content_again_is_nothing_and_other_content_is_refused(
        self, store: Store, incoming: Path, transfer: Transfer
    ) -> None:
        kept = store.keep_raw(incoming, NIGHT, NAME, transfer=Transfer.COPY)
        assert store.keep_raw(incoming, NIGHT, NAME, transfer=transfer) == kept
        incoming.write_bytes(CONTENT[:-1])
        with pytest.raises(FileExistsError, match="nothing is ever overwritten"):
            store.keep_raw(incoming, NIGHT, NAME, transfer=transfer)
        assert kept.read_bytes() == CONTENT

    @pytest.mark.parametrize("name", ["../../escaped.fits", "/escaped.fits", ".hidden.fits", "a/b.fits"])
    def test_a_name_cannot_lead_out_of_the_archive(self, store: Store, incoming: Path, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be a file name"):
            store.keep_raw(incoming, NIGHT, name, transfer=Transfer.COPY)


class TestProducts:
    def test_a_product_is_read_only_and_its_row_can_be_written(self, store: Store, temporary: Path) -> None:
        published = store.publish(temporary, NIGHT, "MU_MBIA_260617A_slow.fits")
        assert published.path == store.root / "products" / "2026-06-16" / "MU_MBIA_260617A_slow.fits"
        assert (published.size, published.digest) == (len(CONTENT), digest_of(published.path))
        assert stat.S_IMODE(published.path.stat().st_mode) == 0o444
        assert not temporary.exists()

    def test_the_same_content_again_is_the_same_product(self, store: Store, temporary: Path) -> None:
        first = store.publish(temporary, NIGHT, "product.fits")
        temporary.write_bytes(CONTENT)
        assert store.publish(temporary, NIGHT, "product.fits") == first

    def test_other_content_is_refused_and_kept(self, store: Store, temporary: Path) -> None:
        first = store.publish(temporary, NIGHT, "product.fits")
        temporary.write_bytes(CONTENT[::-1])
        with pytest.raises(FileExistsError, match="nothing is ever overwritten"):
            store.publish(temporary, NIGHT, "product.fits")
        assert first.path.read_bytes() == CONTENT
        assert temporary.exists()

    def test_a_static_calibration_has_a_folder_of_its_own(self, store: Store, temporary: Path) -> None:
        published = store.publish_static(temporary, "MU_GLNC_140101A_line_cat.fits")
        assert published.path == store.root / "statics" / "MU_GLNC_140101A_line_cat.fits"

    def test_of_several_that_publish_at_once_one_does_and_all_agree(self, store: Store) -> None:
        children = []
        for number in range(6):
            temporary = store.work_folder(7, 0, number) / "MASTER_BIAS.fits"
            temporary.write_bytes(CONTENT)
            if (child := os.fork()) == 0:
                os._exit(store.publish(temporary, NIGHT, "product.fits").size != len(CONTENT))
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
        assert everything(store.root) == ["products/2026-06-16/product.fits"]


class TestQuarantine:
    def test_a_file_of_any_name_is_kept_once(self, store: Store, incoming: Path) -> None:
        strange = incoming.rename(incoming.with_name("-rf * \n.fits"))
        kept = store.quarantine(strange)
        assert store.quarantine(strange) == kept
        store.let_go(strange, kept)
        assert everything(store.root) == ["quarantine/rf____.fits"]
        assert not strange.exists()

    def test_other_content_of_the_same_name_is_kept_beside_it(self, store: Store, incoming: Path) -> None:
        first = store.quarantine(incoming)
        incoming.unlink()
        incoming.write_bytes(b"other")
        second = store.quarantine(incoming)
        assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"other")
        assert second.name == f"{NAME}.2"


class TestWork:
    def test_each_attempt_has_a_folder_of_its_own(self, store: Store) -> None:
        folders = {
            store.work_folder(step, channel, attempt) for step in (1, 2) for channel in (0, 24) for attempt in (1, 2)
        }
        assert len(folders) == 8
        assert store.work_folder(1, 0, 1) in folders

    def test_a_step_s_folders_go_together_and_only_its(self, store: Store) -> None:
        (store.work_folder(1, 3, 1) / "part.fits").write_bytes(CONTENT)
        other = store.work_folder(11, 3, 1)
        store.discard_work(1)
        store.discard_work(1)
        assert list(store.work.iterdir()) == [other.parent]

    def test_free_bytes_are_those_of_the_file_system(self, store: Store) -> None:
        assert 0 < store.free_bytes() <= shutil.disk_usage(store.root.parent).total


# What each operation has to bring about, from any state in which it was killed.


def keep(transfer: Transfer) -> Callable[[Store, Path], None]:
    def work(store: Store, path: Path) -> None:
        kept = store.raw / NIGHT.isoformat() / NAME
        if path.exists():
            kept = store.keep_raw(path, NIGHT, NAME, transfer=transfer)
        store.let_go(path, kept, transfer=transfer)

    return work


def publish(store: Store, path: Path) -> None:
    if path.exists():
        store.publish(path, NIGHT, NAME)


def quarantine(store: Store, path: Path) -> None:
    if path.exists():
        store.let_go(path, store.quarantine(path))


def discard(store: Store, path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.copy(path, store.work_folder(7, 1, 1))
    path.unlink(missing_ok=True)
    store.discard_work(7)


WATCHED = ("open", "os.link", "os.remove", "os.chmod", "os.mkdir", "os.rename", "os.rmdir", "shutil.rmtree")


def run_and_kill(work: Callable[[Store, Path], None], store: Store, path: Path, after: int) -> bool:
    """Do the work in a child that is killed before its ``after``-th touch of the file system; True if it was."""
    child = os.fork()
    if child == 0:
        touches = 0

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal touches
            if event in WATCHED:
                touches += 1
                if touches > after:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work(store, path)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


@pytest.mark.parametrize(
    ("work", "left"),
    [
        (keep(Transfer.MOVE), [f"archive/raw/2026-06-16/{NAME}"]),
        (keep(Transfer.COPY), [f"archive/raw/2026-06-16/{NAME}", f"incoming/{NAME}"]),
        (keep(Transfer.LINK), [f"archive/raw/2026-06-16/{NAME}", f"incoming/{NAME}"]),
        (publish, [f"archive/products/2026-06-16/{NAME}"]),
        (quarantine, [f"archive/quarantine/{NAME}"]),
        (discard, []),
    ],
    ids=["move", "copy", "link", "publish", "quarantine", "discard"],
)
def test_killed_at_any_point_and_done_again_the_end_is_the_same(
    work: Callable[[Store, Path], None], left: list[str], tmp_path: Path
) -> None:
    points = 0
    while True:
        folder = tmp_path / str(points)
        store, path = Store(folder / "archive"), folder / "incoming" / NAME
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
        killed = run_and_kill(work, store, path, points)
        in_place = [file for file in store.files() if not file.name.endswith(".part")]
        assert all(file.read_bytes() == CONTENT for file in in_place)  # never half there
        assert path.exists() or in_place or not left or list(store.quarantined.iterdir())  # never in no place
        work(store, path)
        assert everything(folder) == left
        if not killed:
            break
        points += 1
    assert points >= 5  # the work was really cut in between
