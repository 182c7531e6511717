"""Beside ESO's own pipeline: the same cards in the same HDUs, and each takes the other's merged files."""

import math
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from recipes.bias import RECIPE as BIAS
from recipes.bias import BiasParams
from recipes.channel import Identity, Input, Provenance, merge_channels, reduce_channel
from recipes.fits import open_image, read_table
from recipes.recipe import Channel, Measurement, Result
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence

PLUGINS = Path("/usr/lib/x86_64-linux-gnu/cpl/plugins")
CHANNELS = (1, 12)
IDENTITY = Identity("M.MUSE.fits", "MU_MBIA.fits", "MASTER_BIAS.fits", datetime(2026, 6, 18, tzinfo=UTC))

pytestmark = [
    pytest.mark.full,
    pytest.mark.referee,
    pytest.mark.skipif(
        shutil.which("esorex") is None or not PLUGINS.is_dir(), reason="esorex with muse is not installed"
    ),
]


def esorex(folder: Path, recipe: str, options: list[str], inputs: Mapping[Path, str]) -> str:
    """Run one of ESO's recipes in a folder, and return what it says. It returns 255 if a channel is missing."""
    folder.mkdir(exist_ok=True)
    (folder / "inputs.sof").write_text("".join(f"{path} {tag}\n" for path, tag in inputs.items()))
    command = ["esorex", f"--recipe-dir={PLUGINS}", recipe, *options, "inputs.sof"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert finished.returncode in ({0, 255} if "--nifu=-1" in options else {0}), finished.stdout[-3000:]
    return finished.stdout


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three bias and three flat frames of two channels."""
    folder = tmp_path_factory.mktemp("night")
    plan = NightPlan(night=date(2026, 6, 17), channels=CHANNELS, sequences=(Sequence.BIAS, Sequence.FLAT))
    frames: dict[str, list[Path]] = {"BIAS": [], "FLAT": []}
    for path in write_night(plan, folder):
        kind = "BIAS" if fits.getval(path, "ESO DPR TYPE") == "BIAS" else "FLAT"
        if len(frames[kind]) < 3:
            frames[kind].append(path)
        else:
            path.unlink()
    return frames


@pytest.fixture(scope="module")
def theirs(night: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with MASTER_BIAS, MASTER_FLAT and TRACE_TABLE of both channels as ESO merges them."""
    folder = tmp_path_factory.mktemp("eso")
    options = ["--nifu=-1", "--merge=true"]
    esorex(folder, "muse_bias", options, dict.fromkeys(night["BIAS"], "BIAS"))
    bias = {folder / "MASTER_BIAS.fits": "MASTER_BIAS"}
    esorex(folder, "muse_flat", options, dict.fromkeys(night["FLAT"], "FLAT") | bias)
    return folder


def unsure(channel: Channel, params: BiasParams) -> Result:
    """Make a bias of which one quantity could not be measured."""
    (product,) = BIAS.reduce(channel, params).products
    nothing = Measurement("BIAS MASTER NOTHING", math.nan, "[adu] Could not be measured")
    return Result((replace(product, measurements=(*product.measurements, nothing)),))


@pytest.fixture(scope="module")
def ours(night: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MASTER_BIAS of both channels, ours."""
    folder, params = tmp_path_factory.mktemp("ours"), BIAS.params()
    provenance = Provenance(
        recipe=BIAS.name,
        version=BIAS.version,
        raws=tuple(Input(path.name, "BIAS", "0" * 64) for path in night["BIAS"]),
        calibrations=(),
        parameters=tuple((i.name, getattr(params, i.name), getattr(BIAS.params(), i.name)) for i in fields(params)),
    )
    files = {
        channel: reduce_channel(
            replace(BIAS, reduce=unsure),
            params,
            channel=channel,
            raws={"BIAS": night["BIAS"]},
            calibrations={},
            folder=folder,
            provenance=provenance,
        ).files["MASTER_BIAS"]
        for channel in CHANNELS
    }
    merge_channels("MASTER_BIAS", files, folder / "MASTER_BIAS.fits", identity=IDENTITY)
    return folder / "MASTER_BIAS.fits"


def test_every_card_of_eso_is_in_the_same_hdu_of_ours_with_the_same_value(theirs: Path, ours: Path) -> None:
    with fits.open(theirs / "MASTER_BIAS.fits") as eso, fits.open(ours) as own:
        assert [hdu.name for hdu in own] == [hdu.name for hdu in eso]
        for expected, hdu in zip(eso, own, strict=True):
            assert hdu.shape == expected.shape
            names = {name for name in expected.header if name != "COMMENT"}
            # Parameters are numbered as they come; the order of the overscan polynomial depends on the noise.
            names = {name for name in names if " PARAM" not in name and " POLY Y" not in name}
            assert names <= set(hdu.header)
            of_the_run = ("DATE", "ARCFILE", "DATAMD5", "CHECKSUM", "DATASUM", "ESO QC ", "ESO DRS ", "ESO PRO REC1 ")
            for name in names:
                if not name.startswith(of_the_run) or name in {"ESO PRO REC1 ID", "ESO PRO REC1 RAW2 NAME"}:
                    assert (name, hdu.header[name]) == (name, expected.header[name])
                assert type(hdu.header[name]) is type(expected.header[name]), name


def test_our_readers_take_what_eso_merged(theirs: Path) -> None:
    for channel in CHANNELS:
        with fits.open(theirs / "MASTER_FLAT.fits") as eso, fits.open(theirs / "TRACE_TABLE.fits") as traces:
            image = open_image(theirs / "MASTER_FLAT.fits", channel)
            np.testing.assert_array_equal(image.rows(1000, 1100).data, eso[f"CHAN{channel:02d}.DATA"].data[1000:1100])
            np.testing.assert_array_equal(image.rows(1000, 1100).dq, eso[f"CHAN{channel:02d}.DQ"].data[1000:1100])
            header = eso[f"CHAN{channel:02d}.DATA"].header
            assert dict(image.measurements) == {n[7:]: header[n] for n in header if n.startswith("ESO QC ")}
            table = read_table(theirs / "TRACE_TABLE.fits", channel).table
            for column in table.columns:
                np.testing.assert_array_equal(column.values, traces[f"CHAN{channel:02d}"].data[column.name])


def test_eso_makes_the_same_flat_of_our_bias_within_its_errors(
    night: dict[str, list[Path]], theirs: Path, ours: Path, tmp_path: Path
) -> None:
    inputs = dict.fromkeys(night["FLAT"], "FLAT") | {ours: "MASTER_BIAS"}
    said = esorex(tmp_path, "muse_flat", ["--nifu=12"], inputs)
    assert "[WARNING]" not in said
    flat, reference = open_image(tmp_path / "MASTER_FLAT-12.fits", 12), open_image(theirs / "MASTER_FLAT.fits", 12)
    one, two = flat.rows(0, 4112), reference.rows(0, 4112)
    # Of three frames ESO's bias flags some 650 000 pixels that are good, and its traces break off there: no comparison.
    good = (two.data > 0.1) & (one.dq == 0) & (two.dq == 0)
    difference, error = (one.data - two.data)[good], np.sqrt(two.stat[good])
    assert good.mean() > 0.5
    assert (np.abs(difference) < error).mean() > 0.9999
    assert abs(np.median(difference)) < 1e-4
