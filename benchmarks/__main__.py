"""Print time, memory and accuracy of our recipes beside ESO's, on the same frames in the same run.

``python -m benchmarks`` simulates a channel's bias, dark, flat and arc frames first (2 GB, 25 s);
``--frames FOLDER`` takes a night that ``musecal simulate`` wrote, with its truth.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from astropy.io import fits

from benchmarks.accuracy import (
    Numbers,
    bias_accuracy,
    dark_accuracy,
    flat_accuracy,
    profile_accuracy,
    trace_accuracy,
    wavelength_accuracy,
)
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.optics import draw_slices
from recipes.simulator.schedule import Sequence as Sequences
from recipes.simulator.statics import FILES, write_static
from recipes.simulator.truth import read_truth, write_truth

TAGS = {"BIAS": "BIAS", "DARK": "DARK", "FLAT,LAMP": "FLAT", "WAVE": "ARC"}  # by ESO DPR TYPE
RECIPES = {  # raw tag of each; muse_lsf takes the daily arcs for want of ARC_LSF
    "muse_bias": "BIAS",
    "muse_dark": "DARK",
    "muse_flat": "FLAT",
    "muse_wavecal": "ARC",
    "muse_lsf": "ARC",
}
CALIBRATIONS = {
    "muse_bias": (),
    "muse_dark": ("MASTER_BIAS",),
    "muse_flat": ("MASTER_BIAS",),
    "muse_wavecal": ("MASTER_BIAS", "TRACE_TABLE", "LINE_CATALOG"),
    "muse_lsf": ("MASTER_BIAS", "TRACE_TABLE", "WAVECAL_TABLE", "LINE_CATALOG"),
}
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Cost:
    """What a process took: user and system time in seconds, peak resident memory in MB."""

    cpu: float
    memory: float


def run(command: Sequence[str], folder: Path) -> Cost:
    """Run a program in a folder and return what it took."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | ONE_CORE, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(command[:4])} ended with {process.returncode}: {said[-3000:]}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def run_ours(recipe: str, raws: Sequence[Path], folder: Path, channel: int) -> Cost:
    """Run our recipe; calibrations are products in its folder, or static ones beside the raw frames."""
    calibrations = [f"--calibration={catg}={calibration(catg, raws, folder, channel)}" for catg in CALIBRATIONS[recipe]]
    frames = [f"--raw={RECIPES[recipe]}={path}" for path in raws]
    options = [f"--channel={channel}", *frames, *calibrations, *(["--samples"] if recipe == "muse_flat" else [])]
    command = [sys.executable, "-m", "benchmarks.reduce", recipe, str(folder), *options]
    return run(command, Path(__file__).parent.parent)


def run_eso(recipe: str, raws: Sequence[Path], folder: Path, channel: int) -> Cost:
    """Run ESO's recipe of that name."""
    lines = [f"{path} {RECIPES[recipe]}" for path in raws]
    lines += [f"{calibration(catg, raws, folder, channel)} {catg}" for catg in CALIBRATIONS[recipe]]
    (folder / f"{recipe}.sof").write_text("\n".join(lines) + "\n")
    plugins = next(Path("/usr/lib").glob("*/cpl/plugins"), Path("/usr/lib/esopipes-plugins"))
    options = [f"--nifu={channel}", *(["--samples=true"] if recipe == "muse_flat" else [])]
    return run(["esorex", f"--recipe-dir={plugins}", recipe, *options, f"{recipe}.sof"], folder)


def calibration(catg: str, raws: Sequence[Path], folder: Path, channel: int) -> Path:
    """Return where a calibration stands."""
    if catg == "LINE_CATALOG":
        return next(raws[0].parent.glob(f"MU_{FILES[catg][0]}_*.fits"))
    return folder / product(catg, channel)


def product(catg: str, channel: int) -> str:
    """Return the file name of a product of one channel."""
    return f"{catg}-{channel:02d}.fits"


def raw_frames(folder: Path) -> dict[str, list[Path]]:
    """Return the frames of a night by raw tag, in order of time."""
    found: dict[str, list[Path]] = {tag: [] for tag in TAGS.values()}
    for path in sorted(folder.glob("MUSE.*.fits")):
        kind = fits.getval(path, "ESO DPR TYPE")
        if kind in TAGS:
            found[TAGS[kind]].append(path)
    return found


def accuracy(folder: Path, night: Path, raws: dict[str, list[Path]], channel: int, seed: int) -> Numbers:
    """Return how far the products in a folder are from the truth; the seed is that of the simulated night."""
    truth = read_truth(night, channel)
    blurs = [which.blur for which in draw_slices(seed, channel)]
    exptime = float(fits.getval(raws["DARK"][0], "EXPTIME"))
    return {
        **bias_accuracy(folder / product("MASTER_BIAS", channel), truth, len(raws["BIAS"])),
        **dark_accuracy(folder / product("MASTER_DARK", channel), truth, len(raws["DARK"]), exptime),
        **flat_accuracy(folder / product("MASTER_FLAT", channel), truth),
        **trace_accuracy(folder / product("TRACE_TABLE", channel), truth),
        **wavelength_accuracy(folder / product("WAVECAL_TABLE", channel), truth),
        **profile_accuracy(folder / product("LSF_PROFILE", channel), blurs),
    }


def main() -> None:
    """Run all, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="night with its truth; simulated if left out")
    parser.add_argument("--channel", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="that the frames were simulated with")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="musecal-benchmark-") as name:
        folder = Path(name)
        night, plan = given.frames, None
        if night is None:
            night = folder / "night"
            sequences = (Sequences.BIAS, Sequences.DARK, Sequences.FLAT, Sequences.ARC)
            plan = NightPlan(night=date(2026, 6, 17), channels=(given.channel,), sequences=sequences, seed=given.seed)
            for _ in write_night(
                plan, night, workers=2
            ):  # elsewhere: a child's peak memory begins at that of its parent
                pass
            write_static("LINE_CATALOG", plan, night)
        raws = raw_frames(night.resolve())
        theirs = shutil.which("esorex") is not None
        ours_folder, eso_folder = folder / "ours", folder / "eso"
        print(f"Channel {given.channel}, one core. CPU is user and system time of the whole process.\n")
        print("recipe       frames   CPU s                     peak memory, MB")
        print("                      ours    ESO    ratio      ours    ESO    ratio")
        for target in (ours_folder, eso_folder):
            target.mkdir()
        for recipe, tag in RECIPES.items():
            ours = run_ours(recipe, raws[tag], ours_folder, given.channel)
            line = f"{recipe:12} {len(raws[tag]):6} {ours.cpu:7.2f}"
            if theirs:
                eso = run_eso(recipe, raws[tag], eso_folder, given.channel)
                line += f" {eso.cpu:6.1f} {eso.cpu / ours.cpu:8.1f}   {ours.memory:7.0f} {eso.memory:6.0f}"
                line += f" {eso.memory / ours.memory:8.1f}"
            else:
                line += f" {'-':>6} {'-':>8}   {ours.memory:7.0f} {'-':>6} {'-':>8}"
            print(line, flush=True)
        if plan:
            write_truth(plan, night)
        found = accuracy(ours_folder, night, raws, given.channel, given.seed)
        eso_found = accuracy(eso_folder, night, raws, given.channel, given.seed) if theirs else {}
        print("\nagainst the truth                         ours        ESO")
        for quantity, value in found.items():
            beside = f"{eso_found[quantity]:10.5g}" if theirs else f"{'-':>10}"
            print(f"{quantity:36} {value:10.5g} {beside}")


if __name__ == "__main__":
    main()
