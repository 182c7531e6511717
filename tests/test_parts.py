"""Parts and the finish of a step: from raw frames to a product in the archive, whatever is killed on the way."""

import os
import resource
import signal
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from types import ModuleType

import odd_recipes
import pytest
from astropy.io import fits
from rows import NIGHT, NOW, add_frame, add_step
from sqlalchemy import select

import tasks.cascade
import tasks.finish
import tasks.parts
from archive.models import Event, Frame, Measurement, Part, Product, Step
from archive.registry import Registry
from archive.states import PartState, Score, StepState
from archive.store import Store, digest_of
from tasks.failures import FINISH, PartFailed
from tasks.leases import sweep
from tasks.parts import run_part
from tasks.settings import Settings
from tasks.site import Site

NAME, SECOND, THIRD = (f"MU_MBIA_260617{letter}_slow.fits" for letter in "ABC")


class Clock:
    """A clock that is a second further each time it is read."""

    def __init__(self) -> None:
        self._seconds = count()

    def __call__(self) -> datetime:
        return NOW + timedelta(seconds=next(self._seconds))


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes that misbehave are in the cascade."""
    monkeypatch.setattr(tasks.cascade, "RECIPES", {**tasks.cascade.RECIPES, **odd_recipes.RECIPES})


@pytest.fixture
def site(registry: Registry, tmp_path: Path) -> Site:
    """A site with an empty archive."""
    settings = Settings.model_validate(
        {
            "archive": {"root": tmp_path / "archive", "least_free_gb": 0.001},
            "registry": {"url": registry.url.render_as_string(hide_password=False)},
            "worker": {"attempts": 3, "backoff_seconds": 60},
        }
    )
    return Site(settings=settings, registry=registry, store=Store(tmp_path / "archive"), clock=Clock())


def new_step(site: Site, biases: list[Path], recipe: str = "muse_bias") -> int:
    with site.registry.begin() as session:
        frames = list(session.scalars(select(Frame).order_by(Frame.mjd))) or [
            add_frame(session, number, path=path) for number, path in enumerate(biases)
        ]
        return add_step(session, frames, recipe=recipe).id


def part_of(site: Site, step_id: int, channel: int) -> Part:
    with site.registry.read() as session:
        return session.execute(select(Part).filter_by(step_id=step_id, channel=channel)).scalar_one()


def step_of(site: Site, step_id: int) -> Step:
    with site.registry.read() as session:
        return session.get_one(Step, step_id)


def run_channels(site: Site, step_id: int) -> int:
    """Run both channels; return the finishing part."""
    for channel in (1, 2):
        run_part(site, part_of(site, step_id, channel).id)
    return part_of(site, step_id, FINISH).id


def run_step(site: Site, step_id: int) -> Product:
    run_part(site, run_channels(site, step_id))
    with site.registry.read() as session:
        return session.execute(select(Product).filter_by(step_id=step_id)).scalar_one()


def files(site: Site) -> list[Path]:
    return list(site.store.files())


class TestStep:
    def test_ends_as_one_file_and_its_rows(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        product = run_step(site, step_id)
        path = site.store.products / NIGHT.isoformat() / NAME
        assert files(site) == [path] == [Path(product.path)]
        assert (product.name, product.catg, product.channels) == (NAME, "MASTER_BIAS", [1, 2])
        assert (product.digest, product.size) == (digest_of(path), path.stat().st_size)
        assert path.stat().st_mode & 0o777 == 0o444
        step = step_of(site, step_id)
        assert (step.state, step.error, step.warnings) == (StepState.DONE, "", [])
        assert {part_of(site, step_id, channel).state for channel in (FINISH, 1, 2)} == {PartState.DONE}
        assert not list(site.store.work.iterdir())

    def test_is_recorded_with_its_cost(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        run_step(site, step_id)
        part = part_of(site, step_id, 1)
        assert part.seconds is not None
        assert part.memory is not None
        assert 0.01 < part.seconds < 60
        assert 10e6 < part.memory < 10e9

    def test_keeps_the_measurements_of_each_channel(self, site: Site, biases: list[Path]) -> None:
        product = run_step(site, new_step(site, biases))
        with site.registry.read() as session:
            rows = session.execute(
                select(Measurement).filter_by(product_id=product.id, name="BIAS LEVEL1 MEAN")
            ).scalars()
            levels = {row.channel: row.value for row in rows}
        with fits.open(product.path) as hdus:
            in_file = {channel: hdus[f"CHAN{channel:02d}.DATA"].header["ESO QC BIAS LEVEL1 MEAN"] for channel in (1, 2)}
        assert levels == pytest.approx(in_file, rel=1e-6)
        assert levels[1] != levels[2]

    def test_writes_into_the_file_what_it_was_made_of(self, site: Site, biases: list[Path]) -> None:
        product = run_step(site, new_step(site, biases))
        header = fits.getheader(product.path)
        for number, path in enumerate(sorted(biases), 1):
            assert header[f"ESO PRO REC1 RAW{number} NAME"] == fits.getheader(path)["ARCFILE"]
            assert digest_of(path).startswith(header[f"ESO PRO REC1 RAW{number} SHA256"])
        assert header["ARCFILE"] == f"{product.dp_id}.fits"
        assert header["ORIGFILE"] == product.name

    def test_run_again_is_nothing(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        run_step(site, step_id)
        before = files(site)
        for channel in (1, 2, FINISH):
            run_part(site, part_of(site, step_id, channel).id)
        assert files(site) == before
        assert part_of(site, step_id, 1).attempt == 1

    def test_a_remake_gets_the_next_letter(self, site: Site, biases: list[Path]) -> None:
        names = [run_step(site, new_step(site, biases)).name for _ in range(3)]
        assert names == [NAME, SECOND, THIRD]
        with site.registry.read() as session:
            assert len(set(session.scalars(select(Product.dp_id)))) == 3

    @pytest.mark.usefixtures("odd")
    @pytest.mark.parametrize(
        ("recipe", "sentence"),
        [
            ("is dead", "The detector of channel 2 is off (DET CHIP LIVE = F)."),
            (
                "lacks a calibration",
                "MASTER_BIAS.fits has no extension CHAN02.DATA; give a product that has channel 2.",
            ),
        ],
    )
    def test_goes_on_without_a_dead_channel(self, site: Site, biases: list[Path], recipe: str, sentence: str) -> None:
        step_id = new_step(site, biases, recipe)
        product = run_step(site, step_id)
        assert product.channels == [1]
        assert product.score == Score.YELLOW
        assert step_of(site, step_id).warnings == [f"Channel 2: {sentence}"]
        assert fits.getheader(product.path)["ESO DRS MUSE CHANNELS MISSING"] == "2"

    @pytest.mark.usefixtures("odd")
    def test_fails_where_no_channel_is_alive(self, site: Site, biases: list[Path]) -> None:
        with site.registry.begin() as session:
            frames = [add_frame(session, number, path=path) for number, path in enumerate(biases)]
            step_id = add_step(session, frames, channels=(2,), recipe="is dead").id
        run_part(site, part_of(site, step_id, 2).id)
        with pytest.raises(PartFailed):
            run_part(site, part_of(site, step_id, FINISH).id)
        step = step_of(site, step_id)
        assert (step.state, step.error_kind) == (StepState.FAILED, "data")
        assert "No channel gave anything to archive" in step.error
        assert files(site) == []


@pytest.mark.usefixtures("odd")
class TestFailure:
    def failed(self, site: Site, step_id: int) -> Part:
        part_id = part_of(site, step_id, 1).id
        with pytest.raises(PartFailed):
            run_part(site, part_id)
        return part_of(site, step_id, 1)

    def test_of_the_data_is_final_and_keeps_its_numbers(self, site: Site, biases: list[Path]) -> None:
        part = self.failed(site, new_step(site, biases, "refuses"))
        assert (part.state, part.error_kind) == (PartState.FAILED, "data")
        assert part.error == "The level of channel 1 is 7 adu, 500 are needed; is it on?"
        with site.registry.read() as session:
            event = session.execute(select(Event).filter_by(subject="part", subject_id=part.id)).scalar_one()
        assert event.data["numbers"] == {"level": 7.0}

    def test_of_the_programs_is_final_and_keeps_its_traceback(self, site: Site, biases: list[Path]) -> None:
        part = self.failed(site, new_step(site, biases, "blunders"))
        assert (part.state, part.error_kind, part.error) == (PartState.FAILED, "bug", "ZeroDivisionError: in channel 1")
        with site.registry.read() as session:
            event = session.execute(select(Event).filter_by(subject="part", subject_id=part.id)).scalar_one()
        assert "in _blunder" in event.data["traceback"]

    def test_of_the_memory_is_final_and_names_the_limit(self, site: Site, biases: list[Path]) -> None:
        worker = site.settings.worker.model_copy(update={"memory_limit_mb": 1024})
        settings = site.settings.model_copy(update={"worker": worker})
        part = self.failed(
            Site(settings=settings, registry=site.registry, store=site.store, clock=site.clock),
            new_step(site, biases, "wants memory"),
        )
        assert (part.state, part.error_kind) == (PartState.FAILED, "limit")
        assert "1024 MB that worker.memory_limit_mb allows" in part.error
        assert "1.17 GiB" in part.error  # what was asked for

    def test_of_the_world_is_tried_again(self, site: Site, biases: list[Path], tmp_path: Path) -> None:
        step_id = new_step(site, biases)
        away = tmp_path / "away"
        Path(biases[3]).rename(away)
        part = self.failed(site, step_id)
        away.rename(biases[3])
        assert (part.state, part.error_kind, part.retries, part.sent) == (PartState.QUEUED, "world", 1, None)
        assert biases[3].name in part.error
        run_part(site, part.id)  # before the back-off is over
        assert part_of(site, step_id, 1).attempt == 1
        site.clock._seconds = count(70)  # type: ignore[attr-defined]
        run_step(site, step_id)
        part = part_of(site, step_id, 1)
        assert (part.state, part.attempt, part.error) == (PartState.DONE, 2, "")

    def test_of_a_full_disk_is_tried_again(
        self, site: Site, biases: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Store, "free_bytes", lambda _: 999_999)
        part = self.failed(site, new_step(site, biases))
        assert (part.state, part.error_kind) == (PartState.QUEUED, "world")
        assert "0.00 GB are free" in part.error
        assert "archive.least_free_gb" in part.error

    def test_leaves_the_limits_of_the_process_as_they_were(self, site: Site, biases: list[Path]) -> None:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        self.failed(site, new_step(site, biases, "blunders"))
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


class TestLateFinisher:
    """A worker that was given up comes back with a result."""

    def test_does_not_end_the_channel(self, site: Site, biases: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        step_id = new_step(site, biases)
        self.overtake(site, tasks.parts, "reduce_channel", monkeypatch)
        run_part(site, part_of(site, step_id, 1).id)
        part = part_of(site, step_id, 1)
        assert (part.state, part.attempt, part.outcome) == (PartState.RUNNING, 2, {})

    @pytest.mark.parametrize("moment", ["merge_channels", "_publish"])
    def test_does_not_end_the_step(
        self, site: Site, biases: list[Path], monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        step_id = new_step(site, biases)
        finish = run_channels(site, step_id)
        with monkeypatch.context() as patch:
            self.overtake(site, tasks.finish, moment, patch)
            run_part(site, finish)
        assert step_of(site, step_id).state is StepState.RUNNING
        with site.registry.read() as session:
            assert session.scalar(select(Product.id)) is None
        self.give_up(site, finish)
        run_part(site, finish)
        assert step_of(site, step_id).state is StepState.DONE
        assert [path.name for path in files(site)] == [NAME]

    def overtake(self, site: Site, module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let another worker have the part as soon as the function has done its work."""
        function: Callable[..., object] = getattr(module, name)

        def overtaken(*args: object, **options: object) -> object:
            result = function(*args, **options)
            with site.registry.begin() as session:
                for part in session.scalars(select(Part).filter_by(state=PartState.RUNNING)):
                    part.attempt += 1
                    part.worker = "elsewhere:1:1:1:1"
            return result

        monkeypatch.setattr(module, name, overtaken)

    def give_up(self, site: Site, part_id: int) -> None:
        with site.registry.begin() as session:
            session.get_one(Part, part_id).lease_until = NOW - timedelta(days=1)
        assert sweep(site.registry, site.clock(), site.settings.worker) == 1


def kill_before(module: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, name, die)


def kill_after(module: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(module, name)

    def die(*args: object, **options: object) -> None:
        function(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(module, name, die)


@pytest.fixture
def run_killed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a part in a process of its own that is killed at a given place."""

    def run(site: Site, part_id: int, kill: Callable[..., None], place: object, name: str) -> None:
        pid = os.fork()
        if pid == 0:
            kill(place, name, monkeypatch)
            try:
                run_part(site, part_id)
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL

    return run


MOMENTS = [
    (kill_before, tasks.finish, "merge_channels"),
    (kill_after, tasks.finish, "merge_channels"),
    (kill_after, os, "link"),
    (kill_after, Store, "publish"),
    (kill_before, tasks.finish, "end_step"),
    (kill_after, tasks.finish, "end_step"),
    (kill_before, Store, "discard_work"),
]


class TestKilled:
    @pytest.mark.parametrize(("kill", "place", "name"), MOMENTS)
    def test_finish_ends_in_one_product(
        self,
        site: Site,
        biases: list[Path],
        run_killed: Callable[..., None],
        kill: Callable[..., None],
        place: object,
        name: str,
    ) -> None:
        step_id = new_step(site, biases)
        finish = run_channels(site, step_id)
        run_killed(site, finish, kill, place, name)
        run_part(site, finish)
        assert step_of(site, step_id).state is StepState.DONE
        with site.registry.read() as session:
            product = session.execute(select(Product)).scalar_one()
        assert [path.name for path in files(site)] == [product.name] == [NAME]
        assert digest_of(Path(product.path)) == product.digest

    def test_finish_leaves_nothing_in_the_work_folder_for_long(
        self, site: Site, biases: list[Path], run_killed: Callable[..., None]
    ) -> None:
        step_id = new_step(site, biases)
        other = new_step(site, biases)
        run_channels(site, other)
        run_killed(site, run_channels(site, step_id), kill_before, Store, "discard_work")
        assert tasks.finish.discard_leftovers(site) == []
        site.clock._seconds = count(4000)  # type: ignore[attr-defined]
        assert tasks.finish.discard_leftovers(site) == [step_id]
        assert [folder.name for folder in site.store.work.iterdir()] == [str(other)]

    def test_a_reserved_name_is_not_given_to_another(
        self, site: Site, biases: list[Path], run_killed: Callable[..., None]
    ) -> None:
        first, second = new_step(site, biases), new_step(site, biases)
        finish = run_channels(site, first)
        run_killed(site, finish, kill_before, tasks.finish, "merge_channels")
        assert run_step(site, second).name == SECOND
        run_part(site, finish)
        assert sorted(path.name for path in files(site)) == [NAME, SECOND]

    def test_leftover_of_other_bytes_goes_to_quarantine(
        self, site: Site, biases: list[Path], run_killed: Callable[..., None]
    ) -> None:
        step_id = new_step(site, biases)
        finish = run_channels(site, step_id)
        run_killed(site, finish, kill_after, Store, "publish")
        (leftover,) = files(site)
        leftover.chmod(0o644)
        leftover.write_bytes(b"of another version of the programs")
        leftover.chmod(0o444)
        run_part(site, finish)
        with site.registry.read() as session:
            product = session.execute(select(Product)).scalar_one()
            why = session.execute(select(Event).filter_by(what="leftover quarantined")).scalar_one().why
        assert NAME in why
        assert digest_of(Path(product.path)) == product.digest
        assert [path.read_bytes() for path in site.store.quarantined.iterdir()] == [
            b"of another version of the programs"
        ]

    def test_channel_whose_files_vanish_is_made_again(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        finish = run_channels(site, step_id)
        Path(part_of(site, step_id, 2).outcome["files"]["MASTER_BIAS"]).unlink()
        with pytest.raises(PartFailed, match="channel 2 are gone"):
            run_part(site, finish)
        assert part_of(site, step_id, 2).state is PartState.QUEUED
        site.clock._seconds = count(200)  # type: ignore[attr-defined]
        run_part(site, part_of(site, step_id, 2).id)
        run_part(site, finish)
        assert step_of(site, step_id).state is StepState.DONE
