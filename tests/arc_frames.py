"""Arc frames of a small detector, with the tables that the recipes for arcs need, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from arrays import ArrayImage, ArrayStack, as_calibration, simulated_stack
from numpy.polynomial import Polynomial

from recipes import bias
from recipes.muse import ARC_LAMPS, Detector, Lamp
from recipes.recipe import Channel, Column, Table, TableSource
from recipes.simulator.chip import draw_chip
from recipes.simulator.linecatalog import qualities
from recipes.simulator.lines import ARC_EXPTIME
from recipes.simulator.optics import draw_slices
from recipes.simulator.scenes import Arc, render
from recipes.trace import Trace, trace_table

DETECTOR = Detector(nx=100, ny=1000, margin=32)
SEED, CHANNEL, MODE = 3, 7, "WFM-NOAO-N"
CHIP = draw_chip(SEED, CHANNEL, DETECTOR)
SLICES = draw_slices(SEED, CHANNEL, DETECTOR)


@lru_cache(maxsize=16)
def frames(lamp: Lamp, count: int = 3, brightness: float = 1.0) -> ArrayStack:
    """Frames of one lamp at its usual time."""
    rate = np.float32(brightness) * render(Arc((lamp,), MODE), SEED, CHANNEL, DETECTOR)
    stack = simulated_stack(CHIP, count, exptime=ARC_EXPTIME[lamp], rate=rate, seed=ARC_LAMPS.index(lamp) + 10)
    exposures = [
        replace(exposure, name=f"{lamp} {number}", lamps=(lamp,), mode=MODE, read_noise=(2.5,) * 4)
        for number, exposure in enumerate(stack.exposures, start=1)
    ]
    return ArrayStack(exposures, stack.frames)


def relabelled(stack: ArrayStack, *lamps: Lamp) -> ArrayStack:
    """The same frames with other lamps in their headers."""
    return ArrayStack([replace(exposure, lamps=lamps) for exposure in stack.exposures], stack.frames)


def joined(*stacks: ArrayStack) -> ArrayStack:
    """Frames of several stacks, one after the other."""
    return ArrayStack(
        [exposure for stack in stacks for exposure in stack.exposures],
        [frame for stack in stacks for frame in stack.frames],
    )


def all_lamps(brightness: Mapping[Lamp, float] | None = None) -> ArrayStack:
    """Three frames of each lamp."""
    return joined(*(frames(lamp, brightness=(brightness or {}).get(lamp, 1.0)) for lamp in ARC_LAMPS))


@lru_cache(maxsize=1)
def master_bias() -> ArrayImage:
    """A bias of eleven frames."""
    channel = Channel(number=CHANNEL, stacks={"BIAS": simulated_stack(CHIP, 11, seed=2)}, detector=DETECTOR)
    return as_calibration(bias.reduce(channel, bias.BiasParams()).products[0])


def traces() -> TableSource:
    """The edges as they are."""
    return TableSource(
        trace_table(
            [Trace((_padded(s.centre), _padded(s.left), _padded(s.right)), (0.0, 0.0, 0.0), 76.0) for s in SLICES]
        )
    )


def _padded(polynomial: Polynomial) -> Polynomial:
    return Polynomial(np.pad(polynomial.coef, (0, 6 - len(polynomial.coef))))


def catalog(
    wavelength: Sequence[float] | None = None,
    flux: Sequence[float] | None = None,
    ion: Sequence[str] | None = None,
    quality: Sequence[int] | None = None,
    version: int = 3,
) -> TableSource:
    """The catalogue of the simulator, with columns replaced."""
    rows = qualities()
    columns = (
        Column(name="lambda", values=np.array(wavelength or [line.wavelength for line, _ in rows], np.float32)),
        Column(name="flux", values=np.array(flux or [line.flux for line, _ in rows], np.float32)),
        Column(name="ion", values=np.array(ion or [line.ion for line, _ in rows])),
        Column(name="quality", values=np.array(quality or [int(q) for _, q in rows], np.int32)),
    )
    return TableSource(Table(columns=columns), {"VERSION": version})


def channel(stack: ArrayStack, lines: TableSource | None = None, **tables: TableSource) -> Channel:
    """A channel with frames ARC and what goes with them."""
    return Channel(
        number=CHANNEL,
        stacks={"ARC": stack},
        images={"MASTER_BIAS": master_bias()},
        tables={"TRACE_TABLE": traces(), "LINE_CATALOG": lines or catalog(), **tables},
        detector=DETECTOR,
    )
