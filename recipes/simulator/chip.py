"""One detector: bias, read noise, gain, dark current, defects and cosmic rays; from electrons a second to raw adu.

Source of the numbers: QC values and headers of real channels of June 2017 (``docs/simulator.md``).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.muse import DETECTOR, Detector, Quadrant
from recipes.simulator.seeds import Stream, stream

Real = NDArray[np.floating[Any]]
Whole = NDArray[np.int64]

PIXEL_SCATTER = 0.006  # rms of the pixel-to-pixel sensitivity
COSMIC_RATE = 75 / 60  # hits a second on one detector, about 2 a minute and square cm
READOUT = 47.2  # s, during which cosmic rays are collected too; DET DEVi EXP RDTTIME
HOT_DENSITY = 250 / (4096 * 4112)  # a channel has 250 hot, 50 dark pixels and 2 bad columns
DARK_DENSITY = 50 / (4096 * 4112)
ROWS_AT_ONCE = 128  # a block of rows stays in the processor's cache
FAINT = 40.0  # electrons; below it a Poisson deviate, above it a normal one


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Some pixels of the trimmed frame, rows and columns counted from 0, with one value each."""

    rows: Whole
    columns: Whole
    values: Real

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """The detector of a channel. Tuples of four are by quadrant 1 to 4.

    Parameters
    ----------
    channel : int
    detector : Detector
    level : tuple of 4 floats
        Bias level, adu.
    gain : tuple of 4 floats
        Electrons per adu; the GAIN of the raw header, as ESO's recipes read it.
    read_noise : tuple of 4 floats
        Electrons.
    drift, drift_scale : tuple of 4 floats
        Rise of the bias at the first rows read, adu, and the rows over which it decays.
    slope : tuple of 4 floats
        Ramp of the bias along y over the quadrant, adu.
    ramp : tuple of 4 floats
        Ramp along x, adu a pix, counted from the overscan outwards.
    dark : tuple of 4 floats
        Dark current, electrons an hour.
    hot : Pixels
        Dark current of hot pixels, electrons an hour.
    insensitive : Pixels
        Sensitivity of dark pixels relative to their neighbours.
    bad : Pixels
        Excess of bad-column pixels in every frame, adu.
    """

    channel: int
    detector: Detector
    level: tuple[float, ...]
    gain: tuple[float, ...]
    read_noise: tuple[float, ...]
    drift: tuple[float, ...]
    drift_scale: tuple[float, ...]
    slope: tuple[float, ...]
    ramp: tuple[float, ...]
    dark: tuple[float, ...]
    hot: Pixels
    insensitive: Pixels
    bad: Pixels

    def column_bias(self, quadrant: Quadrant) -> Real:
        """Return the bias of a quadrant against its raw row from its outer edge inwards: prescan, data, overscan."""
        q, rows = quadrant - 1, np.arange(self.detector.ny + 2 * self.detector.margin)
        result: Real = (
            self.level[q]
            + self.drift[q] * np.exp(-rows / self.drift_scale[q])
            + self.slope[q] * rows / self.detector.ny
        )
        return result

    def residual_bias(self, quadrant: Quadrant) -> Real:
        """Return what is left along x after the overscan is subtracted, adu, for the data columns in raw order."""
        distance = np.arange(1, self.detector.nx + 1, dtype=float) + self.detector.margin / 2
        ramp = self.ramp[quadrant - 1] * distance
        return ramp if quadrant.is_right else ramp[::-1]


@lru_cache(maxsize=32)
def draw_chip(seed: int, channel: int, detector: Detector = DETECTOR) -> Chip:
    """Return the detector of a channel."""
    rng = stream(Stream.CHIP, seed, channel, detector.nx, detector.ny)
    rows, columns = detector.shape

    def four(values: Real) -> tuple[float, ...]:
        return tuple(float(value) for value in values)

    def scattered(count: int) -> tuple[Whole, Whole]:
        index = rng.choice(rows * columns, count, replace=False)
        index.sort()
        return index // columns, index % columns

    hot = scattered(max(1, round(HOT_DENSITY * rows * columns)))
    insensitive = scattered(max(1, round(DARK_DENSITY * rows * columns)))
    return Chip(
        channel=channel,
        detector=detector,
        level=four(np.clip(rng.normal(1201.4, 2.0, 4), 1197.5, 1207.5)),  # QC BIAS LEVELn
        gain=four(np.round(np.array([1.036, 1.043, 1.097, 1.084]) + rng.normal(0, 0.015, 4), 4)),  # DET OUTn GAIN
        read_noise=four(np.clip(rng.normal([2.4, 2.35, 2.45, 2.6], 0.2), 2.05, 3.0)),  # QC BIAS MASTERn RON
        drift=four(rng.uniform(0.3, 1.0, 4)),
        drift_scale=four(rng.uniform(300, 500, 4) * detector.ny / DETECTOR.ny),
        slope=four(rng.normal(0, 0.3, 4)),
        ramp=four(rng.normal(0, 1.5e-5, 4)),  # QC BIAS MASTERn SLOPE X, MEAN
        dark=four(rng.normal(1.0, 0.03, 4)),
        hot=Pixels(rows=hot[0], columns=hot[1], values=10 ** rng.uniform(2.0, 4.3, len(hot[0]))),
        insensitive=Pixels(
            rows=insensitive[0], columns=insensitive[1], values=rng.uniform(0.02, 0.15, len(insensitive[0]))
        ),
        bad=_bad_columns(rng, detector),
    )


def _bad_columns(rng: np.random.Generator, detector: Detector) -> Pixels:
    """Charge leaks into two columns from a defect on to the middle of the detector, where the quadrant ends."""
    rows, columns, values = [], [], []
    halves, places = rng.permutation([False, True]), rng.choice(2 * detector.nx, 2, replace=False)
    for upper, column in zip(halves, places, strict=True):
        length = int(rng.uniform(0.2, 0.7) * detector.ny)
        start = detector.ny if upper else detector.ny - length
        rows.append(np.arange(start, start + length))
        columns.append(np.full(length, column))
        values.append(rng.gamma(4, 5, length) + 8)
    return Pixels(rows=np.concatenate(rows), columns=np.concatenate(columns), values=np.concatenate(values))


def draw_pixel_flat(seed: int, channel: int, detector: Detector = DETECTOR) -> NDArray[np.float32]:
    """Return the sensitivity of every pixel relative to the mean, shape (rows, columns), dark pixels included."""
    flat = stream(Stream.PIXEL_FLAT, seed, channel, detector.nx, detector.ny).standard_normal(
        detector.shape, dtype=np.float32
    )
    np.clip(flat, -4, 4, out=flat)
    flat *= np.float32(PIXEL_SCATTER)
    flat += np.float32(1)
    dark = draw_chip(seed, channel, detector).insensitive
    flat[dark.rows, dark.columns] = dark.values
    return flat


def draw_cosmic_rays(rng: np.random.Generator, seconds: float, detector: Detector) -> Pixels:
    """Return the pixels hit by cosmic rays in a time, and their electrons. A pixel may be hit twice."""
    rows, columns = detector.shape
    area = rows * columns / (DETECTOR.shape[0] * DETECTOR.shape[1])
    hits = int(rng.poisson(COSMIC_RATE * area * seconds))
    y, x = rng.uniform(0, rows, hits), rng.uniform(0, columns, hits)
    length = 1 + np.minimum(rng.exponential(3.0, hits), 40).astype(int)
    angle = rng.uniform(0, 2 * np.pi, hits)
    electrons = rng.lognormal(np.log(900), 0.7, hits)
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    y = np.repeat(y, length) + step * np.repeat(np.sin(angle), length)
    x = np.repeat(x, length) + step * np.repeat(np.cos(angle), length)
    charge = np.rint(np.repeat(electrons, length) * rng.uniform(0.5, 1.5, len(step)))
    inside = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    order = np.argsort(y[inside], kind="stable")
    return Pixels(
        rows=y[inside][order].astype(np.int64), columns=x[inside][order].astype(np.int64), values=charge[inside][order]
    )


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A raw image of one channel as it stands in the file, and the cosmic rays in it.

    ``pixels`` holds big-endian signed 16 bit, adu - 32768 (BZERO), shape (raw rows, raw columns).
    """

    pixels: NDArray[Any]
    cosmic_rays: Pixels


def read_out(chip: Chip, rate: NDArray[np.float32] | None, exptime: float, rng: np.random.Generator) -> Readout:
    """Expose and read out one frame.

    Parameters
    ----------
    chip : Chip
    rate : float32 array or None
        Electrons a second of every trimmed pixel, pixel sensitivity included; None if no light falls in.
    exptime : float
        Seconds.
    rng : Generator
        Decides everything that differs from frame to frame; cosmic rays are drawn first.
    """
    light = None if rate is None or exptime <= 0 else (rate, np.float32(exptime))
    detector = chip.detector
    cosmic = draw_cosmic_rays(rng, exptime + READOUT, detector)
    jitter = rng.normal(0, 0.15, 4)  # adu, level of one frame; QC BIAS LEVELn STDEV
    pixels = np.empty(detector.raw_shape, dtype=">i2")
    extra = _extra_electrons(chip, cosmic, exptime, rng)
    for right in (False, True):
        for upper in (False, True):
            quadrant = {(0, 0): 1, (1, 0): 2, (1, 1): 3, (0, 1): 4}[right, upper]
            _read_quadrant(chip, Quadrant(quadrant), float(jitter[quadrant - 1]), light, exptime, extra, rng, pixels)
    return Readout(pixels=pixels, cosmic_rays=cosmic)


def _extra_electrons(chip: Chip, cosmic: Pixels, exptime: float, rng: np.random.Generator) -> Pixels:
    """Join cosmic rays, hot pixels and bad columns, sorted by row."""
    bad_gain = np.array(chip.gain)[_quadrant_index(chip.bad, chip.detector)]
    rows = np.concatenate([cosmic.rows, chip.hot.rows, chip.bad.rows])
    columns = np.concatenate([cosmic.columns, chip.hot.columns, chip.bad.columns])
    hot = rng.poisson(chip.hot.values * exptime / 3600)
    values = np.concatenate([cosmic.values, hot, chip.bad.values * bad_gain])
    order = np.argsort(rows, kind="stable")
    return Pixels(rows=rows[order], columns=columns[order], values=values[order])


def _quadrant_index(pixels: Pixels, detector: Detector) -> Whole:
    right, upper = pixels.columns >= detector.nx, pixels.rows >= detector.ny
    result: Whole = np.where(upper, np.where(right, 2, 3), np.where(right, 1, 0))
    return result


def _read_quadrant(
    chip: Chip,
    quadrant: Quadrant,
    jitter: float,
    light: tuple[NDArray[np.float32], np.float32] | None,
    exptime: float,
    extra: Pixels,
    rng: np.random.Generator,
    pixels: NDArray[Any],
) -> None:
    detector, q = chip.detector, quadrant - 1
    margin, nx, ny = detector.margin, detector.nx, detector.ny
    gain, noise = np.float32(chip.gain[q]), np.float32(chip.read_noise[q])
    height, width = ny + 2 * margin, nx + 2 * margin
    across = np.zeros(width, dtype=np.float32)
    across[margin : margin + nx] = chip.residual_bias(quadrant)
    down = chip.column_bias(quadrant)
    along = (down[::-1] if quadrant.is_upper else down).astype(np.float32) + np.float32(jitter)
    top, left = quadrant.is_upper * height, quadrant.is_right * width
    trimmed = detector.trimmed(quadrant)
    for start in range(0, height, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, height)
        block = rng.standard_normal((stop - start, width), dtype=np.float32)
        first, last = max(start - margin, 0), min(stop - margin, ny)  # rows of this block that see light
        if last <= first:
            block *= noise
        else:
            inner = block[first + margin - start : last + margin - start, margin : margin + nx]
            window = (slice(trimmed.rows.start + first, trimmed.rows.start + last), trimmed.columns)
            electrons = _collect(inner, light[0][window] * light[1] if light else None, noise, rng)
            block *= noise
            inner[...] = electrons
            _add_dark(inner, chip.dark[q] * exptime / 3600, rng)
            _add_pixels(inner, extra, window[0].start, trimmed.columns.start)
        block /= gain
        block += across
        block += along[start:stop, None]
        np.rint(block, out=block)
        np.clip(block, 0, 65535, out=block)
        block -= np.float32(32768)
        pixels[top + start : top + stop, left : left + width] = block


def _collect(
    normal: NDArray[np.float32], light: NDArray[np.float32] | None, noise: np.float32, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return electrons with photon and read noise; ``normal`` holds one standard normal deviate a pixel."""
    if light is None:
        return normal * noise
    faint = (light < FAINT) & (light > 0)
    bright = np.where(faint, np.float32(0), light)
    electrons: NDArray[np.float32] = normal * np.sqrt(bright + noise * noise) + bright
    electrons[faint] += rng.poisson(light[faint])
    return electrons


def _add_dark(electrons: NDArray[np.float32], mean: float, rng: np.random.Generator) -> None:
    """Scatter single dark electrons over the block: their total is Poisson, so each pixel's count is too."""
    total = rng.poisson(mean * electrons.size)
    if total:
        where = rng.integers(0, electrons.size, total, dtype=np.uint32)
        electrons += np.bincount(where, minlength=electrons.size).reshape(electrons.shape)


def _add_pixels(electrons: NDArray[np.float32], extra: Pixels, row: int, column: int) -> None:
    """Add what falls on the block whose first pixel is (row, column) of the trimmed frame."""
    start, stop = np.searchsorted(extra.rows, [row, row + electrons.shape[0]])
    inside = (extra.columns[start:stop] >= column) & (extra.columns[start:stop] < column + electrons.shape[1])
    where = (extra.rows[start:stop][inside] - row, extra.columns[start:stop][inside] - column)
    np.add.at(electrons, where, extra.values[start:stop][inside].astype(np.float32))
