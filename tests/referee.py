"""ESO's recipes on a simulated night of one channel: run once, kept, and shared by every test that compares with them.

Ask for it with a fixture of three lines::

    @pytest.fixture(scope="session")
    def eso(tmp_path_factory: pytest.TempPathFactory) -> Referee:
        return ask_referee(tmp_path_factory)

``MUSECAL_REFEREE`` names a folder to keep night and products in from one run to the next; they are made again when the
simulator has changed. It takes 2 GB and four minutes of one core.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from collections.abc import Sequence as Listing
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import pytest

import recipes.simulator
from recipes.simulator.night import NightPlan, Sequence, write_night
from recipes.simulator.statics import write_static
from recipes.simulator.truth import write_truth

CHANNEL = 1
PLAN = NightPlan(
    night=date(2026, 6, 17),
    channels=(CHANNEL,),
    sequences=(Sequence.BIAS, Sequence.DARK, Sequence.FLAT, Sequence.ARC),
)


@dataclass(frozen=True)
class Referee:
    """Where raw frames, statics, truth and ESO's products stand.

    Parameters
    ----------
    raw : mapping of raw tag to paths
    line_catalog : Path
    truth : Path
        For ``read_truth``.
    products : mapping of PRO.CATG to path
    """

    raw: dict[str, tuple[Path, ...]]
    line_catalog: Path
    truth: Path
    products: dict[str, Path]


def ask_referee(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    """Return ESO's products of the simulated night, made on the first call; skip where esorex is not installed."""
    if not shutil.which("esorex"):
        pytest.skip("esorex is not installed: make referee does it (Debian packages esorex and cpl-plugin-muse)")
    folder = shared_folder(tmp_path_factory)
    with locked(folder):
        return _run(folder)


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str = "referee") -> Path:
    """Return a folder that every process of this run of the tests shares, or the one that is kept between runs."""
    if kept := os.environ.get("MUSECAL_REFEREE"):
        return Path(kept) / f"{name}-{_version()}"
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@lru_cache(maxsize=1)
def _run(folder: Path) -> Referee:
    night, products = folder / "night", folder / "products"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        products.mkdir(parents=True)
        for _ in write_night(PLAN, night):
            pass
        write_truth(PLAN, night)
        write_static("LINE_CATALOG", PLAN, night)
    frames = list(zip(PLAN.exposures, (night / exposure.archive_name for exposure in PLAN.exposures), strict=True))
    types = {"BIAS": "BIAS", "DARK": "DARK", "FLAT": "FLAT,LAMP", "ARC": "WAVE"}
    run = Referee(
        raw={tag: tuple(path for exposure, path in frames if exposure.type == kind) for tag, kind in types.items()},
        line_catalog=next(night.glob("MU_GLNC_*.fits")),
        truth=night,
        products={
            catg: products / f"{catg}-{CHANNEL:02d}.fits"
            for catg in (
                "MASTER_BIAS",
                "MASTER_DARK",
                "MASTER_FLAT",
                "TRACE_TABLE",
                "TRACE_SAMPLES",
                "WAVECAL_TABLE",
                "WAVECAL_RESIDUALS",
            )
        },
    )
    if not (folder / "complete").exists():
        bias = (run.products["MASTER_BIAS"], "MASTER_BIAS")
        trace, catalog = (run.products["TRACE_TABLE"], "TRACE_TABLE"), (run.line_catalog, "LINE_CATALOG")
        run_esorex("muse_bias", _tagged(run, "BIAS"), products)
        run_esorex("muse_dark", [*_tagged(run, "DARK"), bias], products)
        run_esorex("muse_flat", [*_tagged(run, "FLAT"), bias], products, "--samples=true")
        run_esorex("muse_wavecal", [*_tagged(run, "ARC"), bias, trace, catalog], products, "--residuals=true")
        (folder / "complete").touch()
    return run


def run_esorex(
    recipe: str, inputs: Listing[tuple[Path, str]], folder: Path, *options: str, channel: int | None = CHANNEL
) -> str:
    """Run one of ESO's recipes on one channel in a folder; return what it said. An exit code other than 0 fails.

    Recipes that take all channels at once have none to be named.
    """
    sof = folder / f"{recipe}.sof"
    sof.write_text("".join(f"{path} {tag}\n" for path, tag in inputs))
    return run_sof(recipe, sof, folder, *options, channel=channel)


def run_sof(recipe: str, sof: Path, folder: Path, *options: str, channel: int | None = CHANNEL) -> str:
    """Run one of ESO's recipes on a set of frames as it is, as ``run_esorex`` does."""
    plugins = next(Path("/usr/lib").glob("*/cpl/plugins"), Path("/usr/lib/esopipes-plugins"))
    command = ["esorex", f"--recipe-dir={plugins}", f"--log-file={recipe}.log", recipe, *options]
    if channel is not None:
        command.append(f"--nifu={channel}")
    done = subprocess.run(
        [*command, str(sof)], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{recipe} ended with {done.returncode}: {done.stdout[-3000:]}"
    return done.stdout


def _tagged(run: Referee, tag: str) -> list[tuple[Path, str]]:
    return [(path, tag) for path in run.raw[tag]]


def _version() -> str:
    """Return a digest of the simulator's source."""
    sources = sorted(Path(recipes.simulator.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
