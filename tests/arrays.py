"""Raw frames and calibrations of a channel in memory, for pure recipes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recipes.muse import Detector, Quadrant
from recipes.recipe import Exposure, Image, Product, Value
from recipes.simulator.chip import Chip, read_out

SMALL = Detector(nx=200, ny=240, margin=32)


@dataclass(frozen=True)
class ArrayStack:
    """Raw frames as arrays, shape (raw rows, raw columns)."""

    exposures: Sequence[Exposure]
    frames: Sequence[NDArray[np.uint16]]

    def rows(self, frame: int, start: int, stop: int) -> NDArray[np.uint16]:
        return self.frames[frame][start:stop].copy()


@dataclass(frozen=True)
class ArrayImage:
    """A calibration as it would be read from its file."""

    image: Image
    measurements: Mapping[str, int | float | str] = field(default_factory=dict)
    keywords: Mapping[str, Value] = field(default_factory=dict)

    def rows(self, start: int, stop: int) -> Image:
        return Image(
            data=self.image.data[start:stop],
            dq=self.image.dq[start:stop].astype(np.uint32),
            stat=self.image.stat[start:stop],
            unit=self.image.unit,
        )


def as_calibration(product: Product) -> ArrayImage:
    """A product as the next recipe is given it."""
    assert isinstance(product.content, Image)
    keywords: dict[str, Value] = {keyword.name: keyword.value for keyword in product.keywords}
    if product.exptime is not None:
        keywords["EXPTIME"] = product.exptime
    return ArrayImage(
        product.content, {measurement.name: measurement.value for measurement in product.measurements}, keywords
    )


def gaussian_stack(
    frames: int,
    *,
    detector: Detector = SMALL,
    level: float = 1200.0,
    noise: float = 2.5,
    gain: float = 1.1,
    seed: int = 1,
    exptimes: Sequence[float] = (),
) -> ArrayStack:
    """Frames of nothing but a level and noise in adu, rounded as a detector rounds."""
    rng = np.random.default_rng(seed)
    raw = [np.rint(rng.normal(level, noise, detector.raw_shape)).astype(np.uint16) for _ in range(frames)]
    times = exptimes or (0.0,) * frames
    return ArrayStack([Exposure(name=f"frame {i}", exptime=t, gains=(gain,) * 4) for i, t in enumerate(times)], raw)


def simulated_stack(
    chip: Chip, frames: int, *, exptime: float = 0.0, rate: NDArray[np.float32] | None = None, seed: int = 1
) -> ArrayStack:
    """Frames of a simulated detector."""
    rng = np.random.default_rng(seed)
    gains = (chip.gain[0], chip.gain[1], chip.gain[2], chip.gain[3])
    readouts = [read_out(chip, rate, exptime, rng) for _ in range(frames)]
    return ArrayStack(
        [Exposure(name=f"frame {i}", exptime=exptime, gains=gains) for i in range(frames)],
        [(readout.pixels.astype(np.int32) + 2**15).astype(np.uint16) for readout in readouts],
    )


def windows(detector: Detector) -> list[tuple[slice, slice]]:
    """The quadrants of a trimmed frame."""
    return [(detector.trimmed(quadrant).rows, detector.trimmed(quadrant).columns) for quadrant in Quadrant]
