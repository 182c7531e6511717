"""ESO's recipe runs on what is handed out for a science frame, as it is."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from referee import run_sof
from sky_referee import PLAN, SkyNight, simulate_sky
from typer.testing import CliRunner

from archive.models import Frame, Product
from archive.night import mjd_of
from archive.registry import Registry
from archive.states import ArrivalState, Certification
from archive.store import Store
from daemon.cli.application import app
from daemon.cli.errors import ExitCode
from recipes.fits import open_source
from recipes.pixtable import StoredPixels
from recipes.simulator.night import NightPlan, Sequence, write_night
from recipes.simulator.statics import FILES
from tasks.cascade import TARGETS_BY_TAG, Tag
from tasks.intake import Intake
from tasks.settings import load_settings

pytestmark = [
    pytest.mark.full,
    pytest.mark.referee,
    pytest.mark.skipif(shutil.which("esorex") is None, reason="esorex is not installed"),
]

CHANNEL = 12
MASTERS = ("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "TWILIGHT_CUBE")
SCIENCE = NightPlan(night=PLAN.night, channels=(CHANNEL,), sequences=(Sequence.OBJECT,))


@pytest.fixture(scope="session")
def sky(tmp_path_factory: pytest.TempPathFactory) -> SkyNight:
    return simulate_sky(tmp_path_factory)


@pytest.fixture
def settings_file(sky: SkyNight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of a science frame, our masters of its night, and the static calibrations."""
    monkeypatch.delenv("MUSECAL_REFEREE", raising=False)  # no setting
    path = tmp_path / "settings.toml"
    path.write_text('[archive]\nroot = "archive"\nincoming = "incoming"\n[watch]\ntransfer = "link"\n')
    settings = load_settings(path)
    registry, store = Registry(settings.registry.url), Store(settings.archive.root)
    registry.upgrade()
    now = SCIENCE.exposures[0].start + timedelta(days=1)
    intake = Intake(registry, store, settings)
    statics = {need.catg for need in TARGETS_BY_TAG[Tag.OBJECT].needs} & FILES.keys()
    for file in (next(iter(write_night(SCIENCE, settings.archive.incoming))), *map(sky.static, sorted(statics))):
        taken = intake.take(file, now)
        assert taken.state is ArrivalState.INGESTED, taken.reason
    with registry.begin() as session:
        frame = session.query(Frame).one()
        for number, catg in enumerate(MASTERS):
            session.add(_product(store, sky.ours(catg, CHANNEL), catg, frame, now + timedelta(seconds=number)))
    registry.close()
    return path


def _product(store: Store, made: Path, catg: str, frame: Frame, now: datetime) -> Product:
    copy = store.root / made.name
    shutil.copyfile(made, copy)
    kept = store.publish(copy, frame.night, f"MU_{catg}.fits")
    return Product(
        catg=catg, name=kept.path.name, dp_id=f"M.MUSE.{now:%Y-%m-%dT%H:%M:%S}.000", path=str(kept.path),
        size=kept.size, digest=kept.digest, night=frame.night, mjd=mjd_of(now) - 0.6, setup=frame.setup,
        channels=[CHANNEL], certification=Certification.CERTIFIED, created=now,
    )  # fmt: skip


def test_muse_scibasic_runs_on_the_sof_as_handed_out(settings_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "handed-out"
    result = CliRunner().invoke(app, ["retrieve", "F1", "--out", str(out), "--settings", str(settings_file)])
    assert result.exit_code == ExitCode.DONE, result.output
    sof = next(out.glob("*.sof"))
    tags = [line.split()[1] for line in sof.read_text().splitlines()]
    assert {"OBJECT", "GEOMETRY_TABLE", "LSF_PROFILE", "STD_RESPONSE", "SKY_LINES", *MASTERS} <= set(tags)
    made = tmp_path / "made"
    made.mkdir()
    run_sof("muse_scibasic", sof, made, "--saveimage=false", channel=CHANNEL)
    table = made / f"PIXTABLE_OBJECT_0001-{CHANNEL}.fits"
    raw = next(path for path in out.glob("MUSE.*.fits"))
    used = set(fits.getheader(table)["ESO PRO REC1 CAL* CATG"].values())
    assert {*MASTERS, "GEOMETRY_TABLE"} <= used
    assert fits.getval(table, "ESO PRO REC1 RAW1 NAME") == raw.name
    pixels = StoredPixels(open_source(table))
    rows = next(iter(pixels.slices().values()))
    block = pixels.block(rows.start, rows.stop)
    assert np.median(block.data[block.dq == 0]) > 0
