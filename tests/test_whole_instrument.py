"""Steps whose products are of the whole instrument: a part for each channel, and a second half that joins them."""

import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import odd_recipes
import pytest
from astropy.io import fits
from rows import NIGHT, add_frame, add_step, write_biases
from sqlalchemy import select
from test_parts import Clock, files, part_of, step_of

import tasks.cascade
import tasks.finish
from archive.models import Frame, Measurement, Product, Step, Use
from archive.registry import Registry
from archive.select import candidates
from archive.states import PartState, Score, StepState
from archive.store import Store
from archive.verification import verify
from recipes.channel import MISSING
from tasks.failures import FINISH, PartFailed
from tasks.parts import run_part
from tasks.settings import Settings
from tasks.site import Site

CHANNELS = (1, 2, 11, 12)
NAME = "MU_MTWC_260617A_wfm-noao-n_slow.fits"


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven tiny bias frames of four channels."""
    return write_biases(tmp_path_factory.mktemp("whole"), CHANNELS)


@pytest.fixture
def site(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with an empty archive and the recipe that joins."""
    monkeypatch.setattr(tasks.cascade, "RECIPES", {**tasks.cascade.RECIPES, **odd_recipes.RECIPES})
    settings = Settings.model_validate(
        {
            "archive": {"root": tmp_path / "archive", "least_free_gb": 0.001},
            "registry": {"url": registry.url.render_as_string(hide_password=False)},
        }
    )
    return Site(settings=settings, registry=registry, store=Store(tmp_path / "archive"), clock=Clock())


def new_step(site: Site, frames: list[Path], channels: tuple[int, ...] = CHANNELS) -> int:
    with site.registry.begin() as session:
        rows = [add_frame(session, number, CHANNELS, path) for number, path in enumerate(frames)]
        return add_step(session, rows, channels=channels, recipe="joins").id


def run_channels(site: Site, step_id: int) -> int:
    for channel in CHANNELS:
        run_part(site, part_of(site, step_id, channel).id)
    return part_of(site, step_id, FINISH).id


def product_of(site: Site, step_id: int) -> Product:
    with site.registry.read() as session:
        return session.execute(select(Product).filter_by(step_id=step_id)).scalar_one()


def test_the_channels_are_joined_into_one_product(site: Site, frames: list[Path]) -> None:
    step_id = new_step(site, frames)
    run_part(site, run_channels(site, step_id))
    product = product_of(site, step_id)
    assert (product.name, product.catg, product.channels, product.score) == (
        NAME, "TWILIGHT_CUBE", list(CHANNELS), Score.NONE,
    )  # fmt: skip
    assert files(site) == [site.store.products / NIGHT.isoformat() / NAME]
    assert step_of(site, step_id).warnings == ["11 frames of 4 channels were joined."]
    with fits.open(product.path, checksum=True) as hdus:
        primary = hdus[0].header
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA"]
        assert hdus["DATA"].header["CTYPE3"] == "AWAV"
        raw = [fits.getdata(path, f"CHAN{channel:02d}")[:8].mean() for path in frames[:1] for channel in CHANNELS]
        np.testing.assert_allclose(hdus["DATA"].data[0, 0], raw, rtol=1e-6)
        assert primary["ESO QC TWILIGHT LEVEL"] == pytest.approx(hdus["DATA"].data[0].mean(), rel=1e-6)
    assert (primary["ARCFILE"], primary["ORIGFILE"]) == (f"{product.dp_id}.fits", NAME)
    assert primary["PIPEFILE"] == "TWILIGHT_CUBE.fits"
    assert "EXTNAME" not in primary
    assert not any(re.match(r"ESO DET (CHIP|OUT\d) ", key) for key in primary)
    assert primary["ESO PRO DATANCOM"] == len(frames)
    whole = Path(product.path).read_bytes()
    assert primary["DATAMD5"] == hashlib.md5(whole[-2880:], usedforsecurity=False).hexdigest()


def test_what_was_measured_on_the_whole_is_kept(site: Site, frames: list[Path]) -> None:
    step_id = new_step(site, frames)
    run_part(site, run_channels(site, step_id))
    with site.registry.read() as session:
        row = session.execute(select(Measurement).filter_by(name="TWILIGHT LEVEL")).scalar_one()
    assert row.channel == FINISH
    assert row.value == pytest.approx(1200, abs=10)
    assert (part_of(site, step_id, FINISH).seconds or 0) > 0


def test_a_channel_that_fails_is_left_out_and_everybody_is_told(
    site: Site, frames: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(odd_recipes.FLAG, "channel 2 fails")
    step_id = new_step(site, frames)
    run_part(site, run_channels(site, step_id))
    product = product_of(site, step_id)
    assert (product.channels, product.score) == ([1, 11, 12], Score.YELLOW)
    assert fits.getheader(product.path)[MISSING] == "2"
    assert step_of(site, step_id).warnings == [
        "11 frames of 3 channels were joined.",
        "Channel 2: It is left out: The level of channel 2 is 7 adu, 500 are needed; is it on?",
    ]


def test_with_too_few_channels_there_is_no_product(
    site: Site, frames: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(odd_recipes.FLAG, "channel 2 fails")
    step_id = new_step(site, frames, channels=(1, 2, 11))  # channel 12 has no part: its detector was off
    for channel in (1, 2, 11):
        run_part(site, part_of(site, step_id, channel).id)
    with pytest.raises(PartFailed):
        run_part(site, part_of(site, step_id, FINISH).id)
    step = step_of(site, step_id)
    assert (step.state, step.error_kind) == (StepState.FAILED, "data")
    assert "2 of 4 channels gave nothing (2, 12)" in step.error
    assert "75%" in step.error
    assert files(site) == []


def test_a_finish_that_was_killed_gives_the_same_bytes_again(
    site: Site, frames: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    step_id = new_step(site, frames)
    finish = run_channels(site, step_id)

    class KilledError(BaseException):
        """Ends the part as a kill would, past every handler."""

    made = []

    def publish_and_die(*arguments: Any) -> None:  # noqa: ANN401
        made.append(original(*arguments))
        raise KilledError

    original = tasks.finish._publish
    with monkeypatch.context() as patch:
        patch.setattr(tasks.finish, "_publish", publish_and_die)
        with pytest.raises(KilledError):
            run_part(site, finish)
    first = made[0].path.read_bytes()
    with site.registry.begin() as session:
        part = session.get_one(type(part_of(site, step_id, FINISH)), finish)
        part.state = PartState.QUEUED
    run_part(site, finish)
    assert files(site) == [made[0].path]
    assert made[0].path.read_bytes() == first
    assert step_of(site, step_id).state is StepState.DONE


@pytest.mark.parametrize("version", [1, 2])
def test_the_version_of_a_response_is_known_by_its_header(site: Site, frames: list[Path], version: int) -> None:
    step_id = pair_step(site, frames, "standard", f"responds {version}")
    run_part(site, run_channels(site, step_id))
    assert product_of(site, step_id).response == version


def pair_step(site: Site, frames: list[Path], name: str, recipe: str, table: Product | None = None) -> int:
    step_id = new_step(site, frames) if table is None else None
    with site.registry.begin() as session:
        if step_id is None:
            step = add_step(session, list(session.scalars(select(Frame))), channels=CHANNELS, recipe=recipe)
            step.uses.append(Use(tag="GEOMETRY_TABLE", product_id=table and table.id))
        else:
            step = session.get_one(Step, step_id)
        step.name, step.recipe = name, recipe
        return step.id


def test_a_pair_is_archived_as_static_calibrations_of_its_day_that_name_each_other(
    site: Site, frames: list[Path]
) -> None:
    geometry = pair_step(site, frames, "geometry", "places")
    run_part(site, run_channels(site, geometry))
    table = product_of(site, geometry)
    assert (table.name, table.static, table.step_id) == ("MU_GEOT_260617A_geometry_table.fits", True, geometry)
    assert table.mjd == fits.getheader(frames[0])["MJD-OBS"] == fits.getheader(table.path)["MJD-OBS"]
    with site.registry.read() as session:
        [candidate] = candidates(session, "GEOMETRY_TABLE", mjd=table.mjd + 1, days=math.inf)
    assert not candidate.paired  # it serves nobody yet
    with site.registry.begin() as session:
        session.get_one(Product, table.id).reviewed = True
    astrometry = pair_step(site, frames, "astrometry", "solves", table)
    run_part(site, run_channels(site, astrometry))
    solution = product_of(site, astrometry)
    assert (solution.name, solution.geometry_id) == ("MU_GASW_260617A_astrom_wcs.fits", table.id)
    assert files(site) == [site.store.statics / name for name in (solution.name, table.name)]
    assert fits.getheader(solution.path)["ROWS"] == 48 * len(CHANNELS)
    with site.registry.read() as session:
        [candidate] = candidates(session, "GEOMETRY_TABLE", mjd=table.mjd + 1, days=math.inf)
        assert not session.get_one(Product, table.id).reviewed  # the planner looks who may rather use it
    assert candidate.paired
    assert list(verify(site.registry, site.store)) == []
