"""From a raw frame to bias-free pixels: overscan level, saturation, trimming."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.polynomial import Legendre, Polynomial
from numpy.typing import NDArray

from recipes.muse import SATURATION, Detector, Flag, Quadrant
from recipes.recipe import Channel, Exposure, Flags, Keyword, Measurement, Params, RecipeError, Stack, Value, parameter

_ROWS_AT_ONCE = 64
_HIGHEST_ORDER = 15  # of the polynomial along the overscan; MP
_COSMIC_LIMIT = 5.0  # sigma; of 60 000 overscan pixels of a quadrant 0.03 are beyond it by chance
_SAMPLE_EVERY = 8  # overscan pixels, of which a first median is taken
_ROUNDS = 10  # of leaving out and fitting anew
_COMPATIBLE = 100.0  # sigma of the overscan by which raw frame and bias may differ; MP
_SATURATED_PART = 0.001  # of all pixels, above which a frame deserves a warning; MP


@dataclass(frozen=True, kw_only=True)
class OverscanParams(Params):
    """How the bias level is found, with the names and defaults of ESO's recipes.

    Choices of theirs that are not implemented are refused.
    """

    overscan: str = parameter(
        "vpoly",
        "Bias level: a polynomial along the vertical overscan is subtracted from the quadrant."
        " ESO's 'none' and 'offset' are not implemented.",
        choices=("vpoly",),
    )
    ovscreject: str = parameter(
        "dcr",
        "Cosmic rays in the overscan: 'dcr' leaves out values beyond 5 sigma, 'none' only those beyond ovscsigma."
        " ESO's 'fit' is not implemented.",
        choices=("dcr", "none"),
    )
    ovscsigma: float = parameter(
        30.0, "Values of the overscan beyond so many sigma are left out of the fit.", least=1.0
    )
    ovscignore: int = parameter(3, "Pixels of the overscan next to the data that are left out.", least=0, most=28)

    @property
    def rejection(self) -> float:
        """Number of sigma beyond which overscan values are left out."""
        return min(self.ovscsigma, _COSMIC_LIMIT) if self.ovscreject == "dcr" else self.ovscsigma


@dataclass(frozen=True, kw_only=True)
class Overscan:
    """Bias level of one frame as its overscan shows it.

    Parameters
    ----------
    levels : float32 array, shape (trimmed rows, 2), adu
        Bias level of each trimmed row, of its left and its right half.
    polynomials : tuple of 4 Polynomial
        The same per quadrant, of the raw row counted from 1.
    means, stdevs : tuple of 4 floats
        Of the pixels of both overscans of a quadrant, adu.
    saturated : int
        Pixels of the whole raw frame that are saturated.
    """

    levels: NDArray[np.float32]
    polynomials: tuple[Polynomial, ...]
    means: tuple[float, ...]
    stdevs: tuple[float, ...]
    saturated: int

    def keywords(self) -> tuple[Keyword, ...]:
        """Return the cards by which ESO's recipes tell whether a bias fits a raw frame."""
        cards: list[Keyword] = []
        for quadrant, polynomial, mean, stdev in zip(Quadrant, self.polynomials, self.means, self.stdevs, strict=True):
            prefix = f"ESO DRS MUSE OVSC{quadrant}"
            cards += [Keyword(f"{prefix} MEAN", mean), Keyword(f"{prefix} STDEV", stdev)]
            cards.append(Keyword(f"{prefix} POLY NCOEFF", len(polynomial.coef)))
            cards += [Keyword(f"{prefix} POLY Y{power}", float(c)) for power, c in enumerate(polynomial.coef)]
        return tuple(cards)


def is_saturated(raw: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Flag raw values above the saturation limit, or 0."""
    result: NDArray[np.bool_] = (raw > SATURATION) | (raw == 0)
    return result


def measure_overscan(
    stack: Stack,
    frame: int,
    detector: Detector,
    params: OverscanParams,
    visit: Callable[[int, NDArray[np.uint16]], None] | None = None,
) -> Overscan:
    """Measure the bias level of one frame, reading all its rows once.

    ``visit`` is shown each block on the way: its first raw row and the raw values.

    Raises
    ------
    RecipeError
        If ``ovscignore`` leaves no overscan.
    """
    if params.ovscignore >= detector.margin:
        raise RecipeError(
            f"ovscignore = {params.ovscignore} leaves nothing of an overscan {detector.margin} pixels wide; lower it."
        )
    kept = detector.margin - params.ovscignore
    middle_x, middle_y = 2 * detector.margin + detector.nx, 2 * detector.margin + detector.ny
    raw_rows = detector.raw_shape[0]
    vertical = np.empty((raw_rows, 2, kept), np.float32)
    horizontal = np.empty((2, kept, 2, detector.nx), np.float32)
    saturated = 0
    for start in range(0, raw_rows, _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, raw_rows)
        block = stack.rows(frame, start, stop)
        if visit:
            visit(start, block)
        if block.max() > SATURATION or block.min() == 0:
            saturated += int(np.count_nonzero(is_saturated(block)))
        vertical[start:stop, 0] = block[:, middle_x - kept : middle_x]
        vertical[start:stop, 1] = block[:, middle_x : middle_x + kept]
        for upper, first in enumerate((middle_y - kept, middle_y)):
            top, bottom = max(first, start), min(first + kept, stop)
            if top < bottom:
                for right, columns in enumerate(_data_columns(detector)):
                    part = block[top - start : bottom - start, columns]
                    horizontal[upper, top - first : bottom - first, right] = part
    levels = np.empty((2 * detector.ny, 2), np.float32)
    polynomials, means, stdevs = [], [], []
    for quadrant in Quadrant:
        upper, right = int(quadrant.is_upper), int(quadrant.is_right)
        rows = slice(middle_y, raw_rows - detector.margin) if upper else slice(detector.margin, middle_y)
        strip = vertical[rows, right]
        curve, order, good = _fit_level(strip, params.rejection)
        polynomials.append(_in_powers(curve, order, rows.start + 1))
        data = detector.data(quadrant).rows
        levels[detector.trimmed(quadrant).rows, right] = curve[data.start - rows.start : data.stop - rows.start]
        beside = horizontal[upper, :, right]
        values = np.concatenate([strip[good], beside[_near(beside, params.rejection)]])
        means.append(float(values.mean(dtype=np.float64)))
        stdevs.append(float(values.std(dtype=np.float64, ddof=1)))
    return Overscan(
        levels=levels, polynomials=tuple(polynomials), means=tuple(means), stdevs=tuple(stdevs), saturated=saturated
    )


def trimmed_blocks(detector: Detector, rows_at_once: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first trimmed row, one after the last, first raw row) of blocks on one side of the detector's middle."""
    for quadrant in (Quadrant.LOWER_LEFT, Quadrant.UPPER_LEFT):
        inside, outside = detector.trimmed(quadrant).rows, detector.data(quadrant).rows
        for start in range(inside.start, inside.stop, rows_at_once):
            yield start, min(start + rows_at_once, inside.stop), start + outside.start - inside.start


def trim(raw: NDArray[Any], detector: Detector, out: NDArray[Any]) -> None:
    """Copy the data columns of raw rows into ``out``, shape (rows, trimmed columns)."""
    left, right = _data_columns(detector)
    out[:, : detector.nx] = raw[:, left]
    out[:, detector.nx :] = raw[:, right]


def per_quadrant(values: Sequence[float], rows: slice, detector: Detector) -> NDArray[np.float32]:
    """Return the values of the two quadrants that hold some trimmed rows, for each column: shape (columns,)."""
    upper = rows.start >= detector.ny
    left, right = (Quadrant.UPPER_LEFT, Quadrant.UPPER_RIGHT) if upper else (Quadrant.LOWER_LEFT, Quadrant.LOWER_RIGHT)
    return np.repeat(np.array([values[left - 1], values[right - 1]], np.float32), detector.nx)


def check_bias(bias: Mapping[str, Value], overscans: Sequence[Overscan], exposures: Sequence[Exposure]) -> None:
    """Make sure that a master bias was taken off its overscan level as the frames are.

    Raises
    ------
    RecipeError
        If the overscan of a frame differs by more than 100 sigma from that of the bias.
    """
    for overscan, exposure in zip(overscans, exposures, strict=True):
        for quadrant, level in zip(Quadrant, overscan.means, strict=True):
            expected = float(bias[f"ESO DRS MUSE OVSC{quadrant} MEAN"])
            allowed = _COMPATIBLE * float(bias[f"ESO DRS MUSE OVSC{quadrant} STDEV"])
            if abs(level - expected) > allowed:
                raise RecipeError(
                    f"The overscan of quadrant {quadrant.value} of {exposure.name} is {level:.1f} adu, that of the"
                    f" master bias {expected:.1f}; they may differ by {allowed:.1f}. Take a bias of the same readout.",
                    quadrant=quadrant.value,
                    level=level,
                    expected=expected,
                )


def saturation(overscans: Sequence[Overscan], prefix: str) -> tuple[Measurement, ...]:
    """Return the number of saturated pixels of each raw frame."""
    return tuple(
        Measurement(
            f"{prefix} INPUT{number} NSATURATED",
            overscan.saturated,
            f"Number of saturated pixels in raw {prefix.lower()} {number} in input list",
        )
        for number, overscan in enumerate(overscans, start=1)
    )


def saturation_warnings(
    overscans: Sequence[Overscan], exposures: Sequence[Exposure], detector: Detector
) -> tuple[str, ...]:
    """Return a sentence for each frame with an unusual number of saturated pixels."""
    rows, columns = detector.raw_shape
    return tuple(
        f"{exposure.name} has {overscan.saturated} saturated pixels of {rows * columns}."
        for overscan, exposure in zip(overscans, exposures, strict=True)
        if overscan.saturated > _SATURATED_PART * rows * columns
    )


def mark(dq: Flags, where: Any, flag: Flag) -> None:  # noqa: ANN401 - whatever indexes an array
    """Set a flag of some pixels."""
    dq[where] |= dq.dtype.type(flag)


def narrowed(flags: NDArray[Any]) -> NDArray[np.uint16]:
    """Return flags in 16 bits; a pixel with a higher one, such as MISSING, becomes BAD."""
    result = flags.astype(np.uint16)
    result[flags >> 16 != 0] |= np.uint16(Flag.BAD)
    return result


def count_saturated(dq: Flags, prefix: str) -> Measurement:
    """Return the number of saturated pixels of a product."""
    flag = dq.dtype.type(Flag.SATURATED)
    number = sum(int(np.count_nonzero(row & flag)) for row in dq)
    return Measurement(f"{prefix} NSATURATED", number, "Number of saturated pixels in output data")


def known_flags(channel: Channel) -> NDArray[np.uint16]:
    """Return the flags of the trimmed detector that a BADPIX_TABLE knows of; none are set without such a table.

    Positions in the table count from 1 on the raw frame; those outside of it are passed over, as in MP.
    """
    detector = channel.detector
    flags = np.zeros(detector.shape, np.uint16)
    if "BADPIX_TABLE" in channel.tables:
        table = channel.tables["BADPIX_TABLE"].table
        raw = np.zeros(detector.raw_shape, np.uint16)
        rows, columns = table["ypos"] - 1, table["xpos"] - 1
        inside = (rows >= 0) & (rows < raw.shape[0]) & (columns >= 0) & (columns < raw.shape[1])
        np.bitwise_or.at(raw, (rows[inside], columns[inside]), narrowed(table["status"][inside]))
        for quadrant in Quadrant:
            trimmed, data = detector.trimmed(quadrant), detector.data(quadrant)
            flags[trimmed.rows, trimmed.columns] = raw[data.rows, data.columns]
    return flags


def _data_columns(detector: Detector) -> tuple[slice, slice]:
    return detector.data(Quadrant.LOWER_LEFT).columns, detector.data(Quadrant.LOWER_RIGHT).columns


def _near(values: NDArray[np.float32], limit: float) -> NDArray[np.bool_]:
    """Flag values within ``limit`` sigma of their median."""
    deviation = np.abs(values - np.median(values.ravel()[::_SAMPLE_EVERY]))
    result: NDArray[np.bool_] = deviation <= limit * 1.2533 * deviation.mean()
    return result


def _fit_level(strip: NDArray[np.float32], limit: float) -> tuple[NDArray[np.float64], int, NDArray[np.bool_]]:
    """Fit a polynomial to the rows of an overscan strip, as high as Akaike's criterion allows.

    Returns its value on each row, its order, and which pixels it was fitted to.
    """
    highest = min(_HIGHEST_ORDER, len(strip) - 1)
    offset = float(strip.mean())
    values = strip - np.float32(offset)
    good = _near(values, limit)
    for _ in range(_ROUNDS):
        weights = good.sum(axis=1, dtype=np.float64)
        means = values.sum(axis=1, where=good, dtype=np.float64) / np.maximum(weights, 1)
        base = _orthogonal(weights, highest)
        # Of polynomials orthogonal on the rows that are there, each reduces the squares by that of its coefficient.
        coefficients = (base * (weights * means)).sum(axis=1)
        remaining = np.square(values).sum(where=good, dtype=np.float64) - np.cumsum(coefficients**2)
        remaining = np.maximum(remaining, 1e-6)
        order = int(np.argmin(weights.sum() * np.log(remaining) + 2 * np.arange(highest + 1)))
        curve = (coefficients[: order + 1, None] * base[: order + 1]).sum(axis=0)
        spread = np.sqrt(remaining[order] / weights.sum())
        within = np.abs(values - curve.astype(np.float32)[:, None]) <= limit * spread
        if np.array_equal(within, good):
            break
        good = within
    return curve + offset, order, good


def _orthogonal(weights: NDArray[np.float64], highest: int) -> NDArray[np.float64]:
    """Return polynomials of the row up to some order, orthonormal under weights: shape (orders, rows)."""
    x = np.linspace(-1, 1, len(weights))
    base = np.zeros((highest + 2, len(weights)))  # base[-1] stands for the one before the first
    base[0] = 1 / np.sqrt(weights.sum())
    for order in range(highest):
        following = x * base[order]
        for earlier in (order, order - 1):
            following -= (weights * following * base[earlier]).sum() * base[earlier]
        base[order + 1] = following / np.sqrt((weights * following**2).sum())
    return base[:-1]


def _in_powers(curve: NDArray[np.float64], order: int, first: int) -> Polynomial:
    """Return the polynomial that has the values of ``curve`` on consecutive rows from ``first`` on."""
    nodes = (1 - np.cos(np.pi * (np.arange(2 * order + 2) + 0.5) / (2 * order + 2))) / 2
    rows = np.unique(np.rint(nodes * (len(curve) - 1)).astype(np.intp))
    series = Legendre.fit(rows + first, curve[rows], order, domain=[first, first + len(curve) - 1])
    return series.convert(kind=Polynomial, domain=[-1, 1], window=[-1, 1])
