"""A night of raw frames: what is planned, when it is taken, and the files."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from astropy.io import fits

from recipes.muse import DETECTOR, Detector
from recipes.simulator.chip import draw_chip, read_out
from recipes.simulator.headers import Exposure, extension_header, extension_index, primary_header
from recipes.simulator.scenes import render
from recipes.simulator.schedule import Sequence as Sequence
from recipes.simulator.schedule import night_exposures
from recipes.simulator.seeds import Stream, stream

BLOCK = 2880  # bytes; a FITS unit is padded to a multiple of it
DEFAULT = (
    Sequence.BIAS,
    Sequence.DARK,
    Sequence.FLAT,
    Sequence.ARC,
    Sequence.ILLUM,
    Sequence.SKYFLAT,
    Sequence.STD,
    Sequence.OBJECT,
)


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """What to simulate.

    Parameters
    ----------
    night : date
        Date on which the night begins.
    channels : tuple of int
    seed : int
        Names the instrument and its noise; everything random follows from it.
    mode : str
        ``ESO INS MODE``.
    sequences : tuple of Sequence
        Taken at their own times of the night, in whatever order they are given here.
    compressed : bool
        Write ``.fits.fz``.
    detector : Detector
        A smaller one holds fewer slices of the same size.
    """

    night: date
    channels: tuple[int, ...]
    seed: int = 1
    mode: str = "WFM-NOAO-N"
    sequences: tuple[Sequence, ...] = DEFAULT
    compressed: bool = False
    detector: Detector = DETECTOR

    @property
    def exposures(self) -> tuple[Exposure, ...]:
        """Every exposure in order of time."""
        return night_exposures(self.night, self.mode, self.sequences)

    def frame_stream(self, exposure: Exposure, channel: int) -> np.random.Generator:
        """Return the random stream of one frame of one channel."""
        return stream(Stream.FRAME, self.seed, self.night.toordinal(), exposure.number, channel)


def write_night(plan: NightPlan, folder: Path, *, workers: int = 1) -> Iterator[Path]:
    """Write the frames and yield each as it gets its name, in order of time, template by template.

    A frame is written as ``<name>.part`` and renamed when complete. Beside the frame itself a worker holds one
    channel's scene, a quarter of a gigabyte in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    templates: dict[int, list[Exposure]] = {}
    for exposure in plan.exposures:
        templates.setdefault(exposure.template_number, []).append(exposure)
        _part(exposure, folder).unlink(missing_ok=True)  # of a run that was stopped
    jobs = [(plan, exposures, channel, folder) for exposures in templates.values() for channel in plan.channels]
    with ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers))
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            done: Iterator[int] = pool.map(_write_channel, *zip(*jobs, strict=True))
        else:
            done = (_write_channel(*job) for job in jobs)
        for exposures in templates.values():
            for _ in plan.channels:
                next(done)
            for exposure in exposures:
                yield _finish(plan, exposure, folder)


def _write_channel(plan: NightPlan, exposures: Iterable[Exposure], channel: int, folder: Path) -> int:
    """Write one channel into the frames of a template, each at its place in the file; return the channel."""
    chip = draw_chip(plan.seed, channel, plan.detector)
    for exposure in exposures:
        rate = render(exposure.scene, plan.seed, channel, plan.detector) if exposure.scene else None
        readout = read_out(chip, rate, exposure.exptime, plan.frame_stream(exposure, channel))
        unit = _header_bytes(extension_header(chip, exposure)) + readout.pixels.tobytes()
        place = len(_header_bytes(primary_header(exposure))) + _rank(plan, channel) * (len(unit) + _padding(len(unit)))
        # Other channels write to the same file at the same time, so it is created by whoever comes first.
        with os.fdopen(os.open(_part(exposure, folder), os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.seek(place)
            file.write(unit + bytes(_padding(len(unit))))
    return channel


def _rank(plan: NightPlan, channel: int) -> int:
    """Return the place of a channel among those in the file."""
    return sorted(plan.channels, key=extension_index).index(channel)


def _finish(plan: NightPlan, exposure: Exposure, folder: Path) -> Path:
    part = _part(exposure, folder)
    with part.open("r+b") as file:
        file.write(_header_bytes(primary_header(exposure)))
    target = folder / exposure.archive_name
    if plan.compressed:
        target = target.with_name(target.name + ".fz")
        squeezed = part.with_name(part.name + ".fz")
        _compress(part, squeezed)
        part.unlink()
        part = squeezed
    part.rename(target)
    return target


def _compress(source: Path, target: Path) -> None:
    with fits.open(source) as units:
        packed = [fits.PrimaryHDU(header=units[0].header)]
        packed += [fits.CompImageHDU(unit.data, unit.header, compression_type="RICE_1") for unit in units[1:]]
        fits.HDUList(packed).writeto(target)


def _part(exposure: Exposure, folder: Path) -> Path:
    return folder / f"{exposure.archive_name}.part"


def _header_bytes(header: fits.Header) -> bytes:
    text: str = header.tostring()
    return text.encode("ascii")


def _padding(size: int) -> int:
    return -size % BLOCK
