"""Print time, memory and accuracy of the recipes that join channels, beside ESO's, on the same frames in the same run.

``python -m benchmarks.instrument`` simulates a night of channels 1 and 11 to 13 first (8 GB, two minutes), and makes
with our recipes the master calibrations that both sides start from. ``--frames FOLDER`` takes such a night.
Geometry is measured with ``--geometry`` only: ESO's recipe takes 16 GB and ten minutes for the frames of one channel.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from astropy.io import fits

from benchmarks.__main__ import Cost, run
from benchmarks.accuracy import Numbers, response_accuracy, twilight_accuracy
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence as Sequences
from recipes.simulator.statics import FILES, write_statics

CHANNELS = (1, 11, 12, 13)  # ESO's muse_twilight needs channel 1, a star neighbours
SEQUENCES = (
    Sequences.BIAS, Sequences.FLAT, Sequences.ARC, Sequences.ILLUM, Sequences.SKYFLAT, Sequences.STD,
    Sequences.ASTROMETRY,
)  # fmt: skip
TAGS = {
    "BIAS": "BIAS", "FLAT,LAMP": "FLAT", "WAVE": "ARC", "FLAT,LAMP,ILLUM": "ILLUM", "FLAT,SKY": "SKYFLAT",
    "STD": "STD", "ASTROMETRY": "ASTROMETRY", "WAVE,MASK": "MASK",
}  # fmt: skip
_OF_CHANNEL = ("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One recipe of ours, and those of ESO's that do the same.

    Parameters
    ----------
    recipe : str
    tag : str
        Of its raw frames.
    illum : int or None
        Which illumination flat of the night goes with them.
    channels : tuple of int
    calibrations : tuple of str
        PRO.CATG of what both halves take.
    first : str
        ESO's recipe of a single channel that runs before, '' if there is none.
    second : tuple of str
        PRO.CATG of what ESO's second recipe takes beside the pixel tables.
    """

    recipe: str
    tag: str
    illum: int | None
    channels: tuple[int, ...]
    calibrations: tuple[str, ...]
    first: str = ""
    second: tuple[str, ...] = ()


TASKS = (
    Task(
        recipe="muse_twilight", tag="SKYFLAT", illum=0, channels=CHANNELS,
        calibrations=(*_OF_CHANNEL, "GEOMETRY_TABLE"),
    ),
    Task(
        recipe="muse_standard", tag="STD", illum=2, channels=(11, 12, 13), first="muse_scibasic",
        calibrations=(*_OF_CHANNEL, "GEOMETRY_TABLE", "TWILIGHT_CUBE", "EXTINCT_TABLE", "STD_FLUX_TABLE"),
        second=("EXTINCT_TABLE", "STD_FLUX_TABLE"),
    ),
    Task(
        recipe="muse_astrometry", tag="ASTROMETRY", illum=1, channels=(11, 12, 13), first="muse_scibasic",
        calibrations=(*_OF_CHANNEL, "GEOMETRY_TABLE", "TWILIGHT_CUBE", "ASTROMETRY_REFERENCE"),
        second=("ASTROMETRY_REFERENCE",),
    ),
)  # fmt: skip
GEOMETRY = Task(
    recipe="muse_geometry", tag="MASK", illum=None, channels=(12,),
    calibrations=("MASTER_BIAS", "TRACE_TABLE", "WAVECAL_TABLE", "LINE_CATALOG"),
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Where frames and products stand."""

    night: Path
    products: Path

    def raws(self, tag: str) -> list[Path]:
        """Return the raw frames of a tag, in order of time."""
        every = sorted(self.night.glob("MUSE.*.fits"))
        return [path for path in every if TAGS.get(fits.getval(path, "ESO DPR TYPE")) == tag]

    def calibration(self, catg: str, channel: int) -> Path:
        """Return one that stands beside the raw frames, or our product."""
        if catg in FILES:
            return next(self.night.glob(f"MU_{FILES[catg][0]}_*.fits"))
        whole = self.products / f"{catg}.fits"
        return whole if whole.exists() else self.products / f"{catg}-{channel:02d}.fits"

    def run_half(
        self, recipe: str, raws: Sequence[tuple[str, Path]], calibrations: Sequence[str], channel: int
    ) -> Cost:
        """Run the half of one of our recipes on a channel, or, for channel 0, the one that joins them."""
        options = [f"--raw={tag}={path}" for tag, path in raws]
        options += [f"--calibration={catg}={self.calibration(catg, channel)}" for catg in calibrations]
        command = [sys.executable, "-m", "benchmarks.reduce", recipe, str(self.products), f"--channel={channel}"]
        return run([*command, *options], Path(__file__).parent.parent)

    def run_eso(self, recipe: str, inputs: Sequence[tuple[Path, str]], folder: Path, *options: str) -> Cost:
        """Run one of ESO's recipes."""
        sof = folder / f"{recipe}.sof"
        sof.write_text("".join(f"{path} {tag}\n" for path, tag in dict.fromkeys(inputs)))
        plugins = next(Path("/usr/lib").glob("*/cpl/plugins"), Path("/usr/lib/esopipes-plugins"))
        return run(["esorex", f"--recipe-dir={plugins}", recipe, *options, sof.name], folder)

    def tagged(self, names: Sequence[str], channels: Sequence[int]) -> list[tuple[Path, str]]:
        """Return calibrations with their tags."""
        return [(self.calibration(catg, channel), catg) for catg in names for channel in channels]


def make_calibrations(bench: Bench, channels: Sequence[int]) -> None:
    """Make the master calibrations of each channel."""
    steps = (
        ("muse_bias", "BIAS", ()),
        ("muse_flat", "FLAT", ("MASTER_BIAS",)),
        ("muse_wavecal", "ARC", ("MASTER_BIAS", "TRACE_TABLE", "LINE_CATALOG")),
    )
    for recipe, tag, calibrations in steps:
        for channel in channels:
            bench.run_half(recipe, [(tag, path) for path in bench.raws(tag)], calibrations, channel)


def measure_ours(bench: Bench, task: Task) -> Cost:
    """Run both halves; return the sum of their times and the greatest memory of one."""
    raws = [(task.tag, path) for path in bench.raws(task.tag)]
    if task.illum is not None:
        raws.append(("ILLUM", bench.raws("ILLUM")[task.illum]))
    costs = [bench.run_half(task.recipe, raws, task.calibrations, channel) for channel in task.channels]
    whole = [catg for catg in task.calibrations if catg not in _OF_CHANNEL]
    costs.append(bench.run_half(task.recipe, raws, whole, 0))
    return _together(costs)


def measure_eso(bench: Bench, task: Task, folder: Path) -> Cost:
    """Run ESO's recipe, or the one of each channel and the one that takes their pixel tables."""
    raws = [(path, task.tag) for path in bench.raws(task.tag)]
    if task.illum is not None:
        raws.append((bench.raws("ILLUM")[task.illum], "ILLUM"))
    if not task.first:
        limits = [f"--ifu1={task.channels[0]}", f"--ifu2={task.channels[-1]}"] if task is GEOMETRY else []
        return bench.run_eso(task.recipe, raws + bench.tagged(task.calibrations, task.channels), folder, *limits)
    given = [catg for catg in task.calibrations if catg not in task.second]
    costs = [
        bench.run_eso(task.first, raws + bench.tagged(given, [channel]), folder, f"--nifu={channel}")
        for channel in task.channels
    ]
    pixels = [(folder / f"PIXTABLE_{task.tag}_0001-{c:02d}.fits", f"PIXTABLE_{task.tag}") for c in task.channels]
    costs.append(bench.run_eso(task.recipe, pixels + bench.tagged(task.second, [task.channels[0]]), folder))
    return _together(costs)


def accuracy(bench: Bench, task: Task, folder: Path, end: str = "") -> Numbers:
    """Return how far the products of a task in a folder are from the truth; nothing where there is none to tell."""
    if task.recipe == "muse_twilight":
        cubes = folder / "DATACUBE_SKYFLAT.fits", folder / "TWILIGHT_CUBE.fits"
        return twilight_accuracy(*cubes, task.channels, seed=1)  # the simulator's, if none is asked for
    if task.recipe != "muse_standard":
        return {}
    response, telluric = (folder / f"{catg}{end}.fits" for catg in ("STD_RESPONSE", "STD_TELLURIC"))
    return response_accuracy(response, telluric, bench.calibration("STD_RESPONSE", 0))


def _together(costs: Sequence[Cost]) -> Cost:
    return Cost(sum(cost.cpu for cost in costs), max(cost.memory for cost in costs))


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="night of channels 1 and 11 to 13 with its static calibrations")
    parser.add_argument("--geometry", action="store_true", help="measure muse_geometry too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="musecal-benchmark-") as name:
        night = given.frames or Path(name) / "night"
        bench = Bench(night.resolve(), Path(name) / "products")
        bench.products.mkdir()
        if given.frames is None:
            sequences = (*SEQUENCES, Sequences.MASK) if given.geometry else SEQUENCES
            plan = NightPlan(night=date(2026, 6, 17), channels=CHANNELS, sequences=sequences)
            for _ in write_night(plan, night, workers=2):  # elsewhere, so that this process stays small
                pass
            write_statics(plan, night)
        make_calibrations(bench, CHANNELS)
        theirs = shutil.which("esorex") is not None
        print("One core. CPU is user and system time of all processes, memory that of the largest one.\n")
        print("recipe            channels   CPU s                     peak memory, MB")
        print("                             ours    ESO    ratio      ours    ESO    ratio")
        found: Numbers = {}
        eso_found: Numbers = {}
        for task in (*TASKS, *([GEOMETRY] if given.geometry else [])):
            ours = measure_ours(bench, task)
            found |= accuracy(bench, task, bench.products)
            line = f"{task.recipe:17} {len(task.channels):8} {ours.cpu:7.2f}"
            if theirs:
                folder = Path(name) / task.recipe
                folder.mkdir()
                eso = measure_eso(bench, task, folder)
                eso_found |= accuracy(bench, task, folder, "_0001")
                shutil.rmtree(folder)
                line += f" {eso.cpu:6.1f} {eso.cpu / ours.cpu:8.1f}   {ours.memory:7.0f} {eso.memory:6.0f}"
                line += f" {eso.memory / ours.memory:8.1f}"
            else:
                line += f" {'-':>6} {'-':>8}   {ours.memory:7.0f} {'-':>6} {'-':>8}"
            print(line, flush=True)
        print("\nagainst the truth                         ours        ESO")
        for quantity, value in found.items():
            beside = f"{eso_found[quantity]:10.5g}" if theirs else f"{'-':>10}"
            print(f"{quantity:37} {value:9.5g} {beside}")


if __name__ == "__main__":
    main()
