"""Frames of the pinhole mask on a detector of any size, and what the recipe needs beside them, all from the truth."""

from collections.abc import Sequence

import numpy as np
from arrays import ArrayStack, as_calibration, simulated_stack
from numpy.polynomial import Polynomial

from recipes import bias
from recipes.dispersion import Dispersion, dispersion_table
from recipes.muse import HOLE_DISTANCE, SLICES, Detector, Lamp
from recipes.recipe import Channel, Column, Exposure, MaskStage, Pointing, Table, TableSource
from recipes.simulator.celestial import FOCAL_SCALE, MASK_ZERO, Pinholes
from recipes.simulator.chip import draw_chip, read_out
from recipes.simulator.field import PIXEL, Place, slice_places
from recipes.simulator.linecatalog import qualities
from recipes.simulator.optics import draw_slices
from recipes.simulator.scenes import render
from recipes.spotpassages import ChannelSpots
from recipes.trace import Trace, trace_table

MODE = "WFM-NOAO-N"
LAMPS = (Lamp.NEON, Lamp.MERCURY_CADMIUM)
EXPTIME = 30.0
SEED = 1


def stages(first: float, last: float, step: float) -> list[float]:
    """Positions of the stage of the mask, mm, given from where a row of holes is in the middle of the field."""
    return [round(MASK_ZERO + offset, 4) for offset in np.arange(first, last + step / 2, step).tolist()]


def mask_channel(channel: int, detector: Detector, heights: Sequence[float], *, lit: bool = True) -> Channel:
    """A channel with frames of the mask at these positions of its stage, mm."""
    chip = draw_chip(SEED, channel, detector)
    rng = np.random.default_rng(5)
    frames = []
    for height in heights:
        rate = render(Pinholes(LAMPS, MODE, height), SEED, channel, detector) if lit else None
        frames.append((read_out(chip, rate, EXPTIME, rng).pixels.astype(np.int32) + 2**15).astype(np.uint16))
    gains = (chip.gain[0], chip.gain[1], chip.gain[2], chip.gain[3])
    exposures = [exposure(number, height, gains) for number, height in enumerate(heights)]
    plain = Channel(number=channel, stacks={"BIAS": simulated_stack(chip, 4, seed=2)}, detector=detector)
    master = bias.reduce(plain, bias.BiasParams()).products[0]
    return Channel(
        number=channel,
        stacks={"MASK": ArrayStack(exposures, frames)},
        images={"MASTER_BIAS": as_calibration(master)},
        tables={
            "TRACE_TABLE": TableSource(true_traces(channel, detector)),
            "WAVECAL_TABLE": TableSource(true_wavelengths(channel, detector)),
            "LINE_CATALOG": TableSource(line_catalog()),
        },
        detector=detector,
    )


def exposure(
    number: int, height: float, gains: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0), angle: float = 90.0
) -> Exposure:
    """Describe a frame of the mask."""
    return Exposure(
        name=f"MUSE.frame{number:02d}",
        exptime=EXPTIME,
        gains=gains,
        read_noise=(2.5, 2.5, 2.5, 2.5),
        lamps=LAMPS,
        mode=MODE,
        pointing=Pointing(position_angle=angle, rotator_mode="STAT"),
        mask=MaskStage(encoders=(1, 2, 3, 4), positions=(12.8, 14.5, height, 13.9), scale=FOCAL_SCALE),
    )


def true_traces(channel: int, detector: Detector) -> Table:
    """TRACE_TABLE as it should be."""
    slices = draw_slices(SEED, channel, detector)
    y = detector.ny + 0.5
    padded = [[Polynomial(np.pad(p.coef, (0, 6 - len(p.coef)))) for p in (s.centre, s.left, s.right)] for s in slices]
    return trace_table(
        [Trace((centre, left, right), (1e-4, 1e-4, 1e-4), float(right(y) - left(y))) for centre, left, right in padded]
    )


def true_wavelengths(channel: int, detector: Detector) -> Table:
    """WAVECAL_TABLE as it should be."""
    slices = draw_slices(SEED, channel, detector)
    return dispersion_table([Dispersion(which.wavelength_coefficients()) for which in slices])


def line_catalog() -> Table:
    """LINE_CATALOG of the simulated lamps."""
    rows = qualities()
    return Table(
        columns=(
            Column(name="lambda", values=np.array([line.wavelength for line, _ in rows], np.float32)),
            Column(name="flux", values=np.array([line.flux for line, _ in rows], np.float32)),
            Column(name="ion", values=np.array([line.ion for line, _ in rows])),
            Column(name="quality", values=np.array([int(quality) for _, quality in rows], np.int32)),
        )
    )


def true_spots(
    places: Sequence[Place], heights: Sequence[float], *, lines: int = 6, noise: float = 0.0, seed: int = 1
) -> ChannelSpots:
    """Spots of a channel as its slices would show them; ``noise`` is the scatter of places along a slice, pix."""
    rng = np.random.default_rng(seed)
    pitch_x, pitch_y = (distance * FOCAL_SCALE / PIXEL for distance in HOLE_DISTANCE)
    place = np.full((lines, SLICES, 3), np.nan)
    flux = np.full((lines, SLICES, 3, len(heights)), np.nan)
    offsets = -(np.array(heights) - MASK_ZERO) * FOCAL_SCALE / PIXEL
    for number, slit in enumerate(places):
        x = (np.arange(-6, 6) + 0.5) * pitch_x
        along = (slit.x - x) / (slit.width * np.cos(np.radians(slit.angle)))
        seen = np.sort(along[np.abs(along) < 0.5])
        _, y = slit.at(seen)
        off = (y[:, None] - offsets + pitch_y / 2) % pitch_y - pitch_y / 2
        place[:, number] = seen + rng.normal(0, noise / slit.width, (lines, 3)) if noise else seen
        brightness = 2e5 / np.arange(1, lines + 1)
        flux[:, number] = brightness[:, None, None] * np.exp(-((off / 0.45) ** 2) / 2)
    flux = rng.poisson(flux) + rng.normal(0, 25, flux.shape)
    return ChannelSpots(
        wavelengths=np.arange(5000.0, 5000.0 + 100 * lines, 100.0),
        scale=FOCAL_SCALE,
        heights=np.array(heights),
        place=place,
        flux=np.maximum(flux, 0),
    )


def all_places(*channels: int) -> dict[int, tuple[Place, ...]]:
    """Where the slices of channels look."""
    return {channel: slice_places(channel) for channel in channels}
