"""ESO's recipes as the second engine: through the same parts into the same archive, and each way in which they fail."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import fake_esorex
import pytest
from astropy.io import fits
from billiard.exceptions import SoftTimeLimitExceeded
from fake_esorex import VERSION
from referee import Referee, ask_referee
from rows import NIGHT, add_frame, add_step
from small_night import MORNING, World
from sqlalchemy import select
from test_parts import NAME, Clock, part_of, step_of

from archive.models import Measurement, Part, Product, Step
from archive.registry import Registry
from archive.states import PartState, StepState
from archive.store import Store, digest_of
from daemon.worker import work
from recipes.bias import RECIPE as MUSE_BIAS
from recipes.esorex import find_esorex
from tasks import orders
from tasks.cascade import Tag
from tasks.comparing import compare_step
from tasks.engines import check_engines, engine_of, versions_of
from tasks.failures import FINISH, PartFailed
from tasks.parts import run_part
from tasks.settings import Engine, Settings, SettingsError
from tasks.site import Site
from tasks.why import explain

ESOREX = f"esorex/{VERSION}"


@pytest.fixture
def site(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site where ESO's recipe makes the biases."""
    settings = Settings.model_validate(
        {
            "archive": {"root": tmp_path / "archive", "incoming": tmp_path / "incoming", "least_free_gb": 0.001},
            "registry": {"url": registry.url.render_as_string(hide_password=False)},
            "worker": {"attempts": 3},
            "steps": {"bias": {"engine": "esorex"}},
            "esorex": fake_esorex.install(tmp_path, monkeypatch),
        }
    )
    return Site(settings=settings, registry=registry, store=Store(tmp_path / "archive"), clock=Clock())


def new_step(site: Site, biases: list[Path], version: str = ESOREX) -> int:
    with site.registry.begin() as session:
        frames = [add_frame(session, number, path=path) for number, path in enumerate(biases)]
        step = add_step(session, frames)
        step.recipe_version, step.parameters = version, {"lsigma": 4.0, "losigmabadpix": 20.0}
        return step.id


def run_step(site: Site, step_id: int) -> Product:
    for channel in (1, 2, FINISH):
        run_part(site, part_of(site, step_id, channel).id)
    with site.registry.read() as session:
        return session.execute(select(Product).filter_by(step_id=step_id)).scalar_one()


class TestStep:
    def test_of_esos_recipe_ends_as_one_file_like_ours(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        product = run_step(site, step_id)
        assert (product.name, product.channels, step_of(site, step_id).state) == (NAME, [1, 2], StepState.DONE)
        assert product.digest == digest_of(Path(product.path))
        with fits.open(product.path, checksum=True) as hdus:
            assert [hdu.name for hdu in hdus[1:]] == [f"CHAN0{n}.{p}" for n in (1, 2) for p in ("DATA", "DQ", "STAT")]
            header = hdus[0].header
            assert (header["ARCFILE"], header["ORIGFILE"]) == (f"{product.dp_id}.fits", NAME)
            assert header["PIPEFILE"] == "MASTER_BIAS.fits"
            assert header["ESO PRO REC1 PIPE ID"] == f"muse/{VERSION}"
            assert hdus["CHAN02.DATA"].header["ESO QC BIAS MASTER1 RON"] == 2.52

    def test_passes_esos_parameters_and_no_others(self, site: Site, biases: list[Path]) -> None:
        header = fits.getheader(run_step(site, new_step(site, biases)).path)
        given = {
            header[f"ESO PRO REC1 PARAM{number} NAME"]: header[f"ESO PRO REC1 PARAM{number} VALUE"]
            for number in range(1, 10)
        }
        assert (given["nifu"], given["lsigma"], given["overscan"]) == ("1", "4.0", "vpoly")
        assert "losigmabadpix" not in given

    def test_keeps_its_measurements_warnings_cost_and_log(self, site: Site, biases: list[Path]) -> None:
        step_id = new_step(site, biases)
        product = run_step(site, step_id)
        with site.registry.read() as session:
            rows = session.scalars(select(Measurement).filter_by(product_id=product.id)).all()
            assert {(row.channel, row.name, row.value) for row in rows} == {
                (1, "BIAS MASTER1 RON", 2.51),
                (2, "BIAS MASTER1 RON", 2.52),
            }
        assert step_of(site, step_id).warnings == [f"Channel {n}: ESO's muse_bias: It is warm." for n in (1, 2)]
        part = part_of(site, step_id, 1)
        assert (part.memory or 0) > 5e6
        assert (part.seconds or 0) > 0.05
        logs = site.store.logs / NIGHT.isoformat()
        assert "It is warm" in (logs / f"S{step_id}_CHAN01_1_muse_bias.log").read_text()
        frames = (logs / f"S{step_id}_CHAN01_1_muse_bias.sof").read_text()
        assert frames == "".join(f"{path} BIAS\n" for path in sorted(biases))
        assert not list(site.store.work.iterdir())

    def test_leaves_out_a_channel_whose_detector_is_off(self, site: Site, biases: list[Path], tmp_path: Path) -> None:
        dead = tmp_path / biases[0].name
        dead.write_bytes(biases[0].read_bytes())
        with fits.open(dead, mode="update") as hdus:
            hdus["CHAN02"].header["HIERARCH ESO DET CHIP LIVE"] = False
        step_id = new_step(site, [dead, *biases[1:]])
        assert run_step(site, step_id).channels == [1]
        assert "CHAN02" in " ".join(step_of(site, step_id).warnings)


class TestFailure:
    def failed(self, site: Site, step_id: int) -> Part:
        with pytest.raises(PartFailed):
            run_part(site, part_of(site, step_id, 1).id)
        assert not list(site.store.work.rglob("*.fits"))
        return part_of(site, step_id, 1)

    @pytest.mark.parametrize(
        ("deed", "kind", "sentence"),
        [
            ("fails", "data", "ESO's muse_bias failed with exit code 255: The level is 7 adu. Its log is"),
            ("crashes", "data", "ESO's muse_bias crashed (SIGABRT): "),
            ("is killed", "world", "ESO's muse_bias was ended by SIGKILL from outside"),
            (
                "lacks memory",
                "limit",
                "12000 MB that worker.esorex_memory_limit_mb allows (ESO's muse_bias asked for 72",
            ),
            ("makes nothing", "data", "ended well and made no MASTER_BIAS"),
            ("mistakes", "data", "ended well and made no MASTER_BIAS"),
            ("forgets", "data", "MASTER_BIAS-01.fits has no extension STAT"),
            ("has no numbers", "data", "STAT of ESO's MASTER_BIAS-01.fits has 0 usable values, and "),
            ("cuts short", "data", "MASTER_BIAS-01.fits has"),
        ],
    )
    def test_is_judged_like_ours(
        self, site: Site, biases: list[Path], monkeypatch: pytest.MonkeyPatch, deed: str, kind: str, sentence: str
    ) -> None:
        fake_esorex.do(monkeypatch, deed)
        part = self.failed(site, new_step(site, biases))
        assert part.error_kind == kind
        assert sentence in part.error
        assert part.state is (PartState.QUEUED if kind == "world" else PartState.FAILED)

    def test_of_another_pipeline_asks_for_a_requeue(self, site: Site, biases: list[Path]) -> None:
        part = self.failed(site, new_step(site, biases, "esorex/1.2.3"))
        assert (
            part.error
            == f"The step was queued for esorex/1.2.3, and {VERSION} of ESO's pipeline is installed here; requeue it."
        )

    def test_without_room_on_the_disk_is_of_the_world(
        self, site: Site, biases: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_esorex.do(monkeypatch, "fails")
        monkeypatch.setattr("recipes.esorex._LEAST_ROOM", 1 << 62)
        assert "full disk" in self.failed(site, new_step(site, biases)).error


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ESO's recipe hangs, with a child of its own, and says into this file which processes these are."""
    fake_esorex.do(monkeypatch, "hangs")
    monkeypatch.setenv(fake_esorex.DEED + "_PIDS", str(tmp_path / "pids"))
    return tmp_path / "pids"


def wait_for(true: Callable[[], object], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


def lives(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


class TestNoOrphan:
    @pytest.mark.parametrize(
        ("error", "state", "sentence"),
        [
            (SoftTimeLimitExceeded, PartState.FAILED, "7200 s, the most that worker.esorex_time_limit_seconds allows"),
            (SystemExit, PartState.QUEUED, "Its worker was stopped."),
        ],
    )
    def test_is_left_by_a_part_that_is_told_to_end(
        self, site: Site, biases: list[Path], hanging: Path, error: type[BaseException], state: PartState, sentence: str
    ) -> None:
        def end(*_: object) -> None:
            raise error

        step_id = new_step(site, biases)
        before = signal.signal(signal.SIGUSR1, end)
        pids: list[int] = []

        def tell() -> None:
            wait_for(lambda: hanging.exists() and hanging.read_text())
            pids.extend(map(int, hanging.read_text().split()))
            os.kill(os.getpid(), signal.SIGUSR1)

        timer = Timer(0, tell)
        timer.start()
        try:
            with pytest.raises((PartFailed, SystemExit)):
                run_part(site, part_of(site, step_id, 1).id)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        part = part_of(site, step_id, 1)
        assert part.state is state
        assert sentence in part.error
        assert len(pids) == 2
        wait_for(lambda: not any(map(lives, pids)))

    def test_is_left_by_a_worker_that_is_killed(self, site: Site, biases: list[Path], hanging: Path) -> None:
        step_id = new_step(site, biases)
        part_id = part_of(site, step_id, 1).id
        worker = os.fork()
        if worker == 0:
            try:
                run_part(site, part_id)
            finally:
                os._exit(0)
        wait_for(lambda: hanging.exists() and hanging.read_text())
        esorex, child = map(int, hanging.read_text().split())
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        wait_for(lambda: not lives(esorex))
        os.kill(child, signal.SIGKILL)  # the sleep of the fake; esorex itself starts no programs


class TestSettings:
    def test_say_which_version_is_part_of_the_identity(self, site: Site) -> None:
        assert versions_of(site.settings) == {"bias": ESOREX}
        assert [engine_of(version) for version in (ESOREX, "1")] == [Engine.ESOREX, Engine.MUSECAL]
        check_engines(site.settings)

    def test_of_a_pipeline_that_is_not_there_are_refused_at_start(self, site: Site, tmp_path: Path) -> None:
        for esorex, sentence in (
            ({"program": "gasgano"}, "gasgano is not installed, or not on the PATH"),
            ({"recipe_folder": str(tmp_path)}, f"no folder muse-<version> is in {tmp_path}"),
        ):
            settings = site.settings.model_copy(update={"esorex": site.settings.esorex.model_copy(update=esorex)})
            with pytest.raises(SettingsError, match=sentence):
                work(settings)

    def test_of_folders_with_blanks_are_refused(self, site: Site) -> None:
        archive = site.settings.archive.model_copy(update={"root": Path("/data/my archive")})
        with pytest.raises(SettingsError, match="for the blanks in it"):
            check_engines(site.settings.model_copy(update={"archive": archive}))

    def test_find_the_newest_pipeline(self, tmp_path: Path) -> None:
        for version in ("2.8.7", "2.10.2", "2.9", "kit"):
            (tmp_path / f"muse-{version}").mkdir()
        assert find_esorex("true", str(tmp_path), memory_limit=1).version == "2.10.2"


@pytest.fixture(scope="session")
def eso(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return ask_referee(tmp_path_factory)


@pytest.mark.referee
def test_esos_own_bias_comes_through_the_parts_as_it_comes_from_esorex_alone(
    eso: Referee, sqlite: Path, tmp_path: Path
) -> None:
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, tmp_path / 'registry.sqlite')}")
    sections: dict[str, Any] = {"archive": {"root": tmp_path / "archive"}, "steps": {"bias": {"engine": "esorex"}}}
    settings = Settings.model_validate(sections)
    site = Site(settings=settings, registry=registry, store=Store(settings.archive.root), clock=Clock())
    check_engines(settings)
    with registry.begin() as session:
        frames = [add_frame(session, number, (1,), path) for number, path in enumerate(eso.raw["BIAS"])]
        step = add_step(session, frames, channels=(1,))
        step.recipe_version, step.parameters = versions_of(settings)["bias"], settings.recipes["muse_bias"]
        step_id = step.id
    for channel in (1, FINISH):
        run_part(site, part_of(site, step_id, channel).id)
    with registry.read() as session:
        product = session.execute(select(Product)).scalar_one()
        values = {row.name: row.value for row in product.measurements}
        assert (product.catg, product.channels) == ("MASTER_BIAS", [1])
    assert (part_of(site, step_id, 1).memory or 0) > 1e9
    with fits.open(product.path) as through, fits.open(eso.products["MASTER_BIAS"]) as alone:
        for plane in ("DATA", "DQ", "STAT"):
            assert through[f"CHAN01.{plane}"].header["DATASUM"] == alone[plane].header["DATASUM"]
        theirs = {card.keyword[7:]: card.value for card in alone[0].header["ESO QC *"].cards}
        assert values == pytest.approx(theirs)
        assert through[0].header["ESO PRO REC1 PIPE ID"] == alone[0].header["ESO PRO REC1 PIPE ID"]
    compared = compare_step(site, step_id, tmp_path, logs=tmp_path)
    data, variance, *_ = compared.products["MASTER_BIAS"].differences
    # Most pixels are the mean of the same eleven values on both sides; where one is left out by one of them alone, the
    # means differ by up to a sigma. Measured: a median of 0.0001 and a typical difference of 0.01 sigma.
    assert data.values > 16.8e6
    assert abs(data.median_sigma) < 0.001
    assert data.typical_sigma < 0.02
    assert data.beyond < 1e-6
    assert abs(variance.median) < 0.01
    costs = compared.costs
    assert costs[Engine.MUSECAL].seconds < 0.5 * costs[Engine.ESOREX].seconds
    assert costs[Engine.MUSECAL].memory < 0.5 * costs[Engine.ESOREX].memory
    registry.close()


class TestPlan:
    def world(self, registry: Registry, site: Site, engine: str, remake: str = "never") -> World:
        steps, esorex = {"bias": {"engine": engine}}, site.settings.esorex.model_dump()
        return World(registry, steps=steps, esorex=esorex, plan={"remake": remake})

    def biases_of_ours(self, registry: Registry, site: Site) -> World:
        ours = self.world(registry, site, "musecal")
        for number in (1, 2, 3):
            ours.arrive(Tag.BIAS, MORNING, number)
        ours.settle()
        return ours

    def test_the_other_engine_makes_what_is_done_stale_and_makes_it_anew_on_request(
        self, registry: Registry, site: Site
    ) -> None:
        ours = self.biases_of_ours(registry, site)
        theirs = self.world(registry, site, "esorex")
        theirs.now = ours.now
        theirs.settle()
        [first] = theirs.steps("bias")
        assert f"muse_bias is of version {ESOREX} now" in first.stale
        with registry.begin() as session:
            orders.requeue(session, session.get_one(Step, first.id), why="by ESO's recipe", now=theirs.now)
        theirs.settle()
        first, second = theirs.steps("bias")
        assert [first.recipe_version, second.recipe_version] == [MUSE_BIAS.version, ESOREX]
        assert first.identity != second.identity
        with registry.read() as session:
            told = explain(session, session.get_one(Step, second.id), theirs.settings).sentences
        assert f"ESO's recipe makes it (muse_bias, {ESOREX})." in told

    def test_the_other_engine_makes_anew_what_is_of_this_night_where_the_policy_says_so(
        self, registry: Registry, site: Site
    ) -> None:
        ours = self.biases_of_ours(registry, site)
        theirs = self.world(registry, site, "esorex", remake="night")
        theirs.now = ours.now
        theirs.settle()
        assert [step.recipe_version for step in theirs.steps("bias")] == [MUSE_BIAS.version, ESOREX]
