"""ESO's recipes for products of the whole instrument: with a run on each channel before them, or without."""

from pathlib import Path

import fake_esorex
import odd_recipes
import pytest
from astropy.io import fits
from rows import NIGHT, add_frame, add_step, write_biases
from sqlalchemy import select
from test_parts import Clock, files, part_of, step_of

import recipes.esorecipes
import tasks.cascade
import tasks.engines
from archive.models import Measurement, Product
from archive.registry import Registry
from archive.states import PartState, Score, StepState
from archive.store import Store, digest_of
from recipes.channel import MISSING
from recipes.esorecipes import ESO_RECIPES, Halves, Run
from tasks.failures import FINISH
from tasks.parts import run_part
from tasks.settings import Settings
from tasks.site import Site

CHANNELS = (1, 2, 11, 12)
NAME = "MU_MTWC_260617A_wfm-noao-n_slow.fits"
TWILIGHT = Run(recipe="muse_twilight", takes=())
SCIBASIC = Run(recipe="muse_scibasic", takes=(), passes_on=("PIXTABLE_STD",))


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven tiny bias frames of four channels."""
    return write_biases(tmp_path_factory.mktemp("whole"), CHANNELS)


@pytest.fixture
def site(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(tasks.cascade, "RECIPES", {**tasks.cascade.RECIPES, **odd_recipes.RECIPES})
    settings = Settings.model_validate(
        {
            "archive": {"root": tmp_path / "archive", "least_free_gb": 0.001},
            "registry": {"url": registry.url.render_as_string(hide_password=False)},
            "esorex": fake_esorex.install(tmp_path, monkeypatch),
        }
    )
    return Site(settings=settings, registry=registry, store=Store(tmp_path / "archive"), clock=Clock())


def run_step(site: Site, frames: list[Path], halves: Halves, monkeypatch: pytest.MonkeyPatch) -> Product:
    """Make the step that joins channels with these recipes of ESO's."""
    for module in (recipes.esorecipes, tasks.engines):
        monkeypatch.setattr(module, "ESO_RECIPES", {**ESO_RECIPES, "joins": halves})
    with site.registry.begin() as session:
        rows = [add_frame(session, number, CHANNELS, path) for number, path in enumerate(frames)]
        step = add_step(session, rows, channels=CHANNELS, recipe="joins")
        step.recipe_version = f"esorex/{fake_esorex.VERSION}"
        step_id = step.id
    for channel in (*CHANNELS, FINISH):
        run_part(site, part_of(site, step_id, channel).id)
        assert part_of(site, step_id, channel).state is PartState.DONE
    assert step_of(site, step_id).state is StepState.DONE
    with site.registry.read() as session:
        return session.execute(select(Product).filter_by(step_id=step_id)).scalar_one()


@pytest.mark.parametrize(
    ("halves", "inputs"),
    [(Halves(whole=TWILIGHT), "BIAS 1 to 12"), (Halves(channel=SCIBASIC, whole=TWILIGHT), "PIXTABLE_STD 1 to 12")],
)
def test_are_archived_like_ours(
    site: Site, frames: list[Path], halves: Halves, inputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = run_step(site, frames, halves, monkeypatch)
    assert (product.name, product.catg, product.channels, product.score) == (
        NAME, "TWILIGHT_CUBE", list(CHANNELS), Score.NONE,
    )  # fmt: skip
    assert files(site) == [site.store.products / NIGHT.isoformat() / NAME]
    assert product.digest == digest_of(Path(product.path))
    with fits.open(product.path, checksum=True) as hdus:
        primary = hdus[0].header
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA"]
    assert (primary["ARCFILE"], primary["ORIGFILE"]) == (f"{product.dp_id}.fits", NAME)
    assert primary["PIPEFILE"] == "TWILIGHT_CUBE.fits"
    assert primary.comments["ESO QC TWILIGHT INPUTS"] == inputs
    with site.registry.read() as session:
        row = session.execute(select(Measurement)).scalar_one()
    number = len(frames) if halves.channel is None else len(CHANNELS)
    assert (row.channel, row.name, row.value) == (FINISH, "TWILIGHT INPUTS", number)
    logs = sorted(path.name for path in (site.store.logs / NIGHT.isoformat()).glob("*.log"))
    assert logs[-1] == f"S{product.step_id}_finish_1_muse_twilight.log"
    assert len(logs) == (1 if halves.channel is None else 5)


def test_say_which_channel_is_missing(
    site: Site, frames: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = tmp_path / frames[0].name
    dead.write_bytes(frames[0].read_bytes())
    with fits.open(dead, mode="update") as hdus:
        hdus["CHAN11"].header["HIERARCH ESO DET CHIP LIVE"] = False
    product = run_step(site, [dead, *frames[1:]], Halves(channel=SCIBASIC, whole=TWILIGHT), monkeypatch)
    assert (product.channels, product.score) == ([1, 2, 12], Score.YELLOW)
    assert fits.getheader(product.path)[MISSING] == "11"
