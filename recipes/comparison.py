"""How much two makes of the same product differ, in its own units and in standard deviations: ours, and ESO's.

A difference is ESO's value less ours. Both come from the same frames and share their noise, so that sound makes differ
by much less than the sigma of one of them. Nothing here reads or draws.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.dispersion import read_dispersions
from recipes.recipe import Array, Table
from recipes.trace import CENTRE, LEFT, RIGHT, Trace, read_traces

Real = NDArray[np.floating[Any]]

TOLERANCE = 0.01  # of the value, in place of sigma where a product states no error
FAR = 3.0  # sigma; what is beyond is counted
EDGES = np.linspace(-8.0, 8.0, 321)  # sigma, of the histograms
BLOCK = 16  # pixels along each side of what becomes one point of a map
_BLOCK_VALUES = 1 << 21  # that are looked at at a time
_SAMPLE = 1 << 20  # values, at most, that quantiles are taken from
_ROW_STEP = 32  # rows between the points at which polynomials along the detector are compared
_ROWS = 4112  # of a detector without its margins; MP
_LINES = 15  # columns of a slice at which wavelengths are compared
_LAMBDA = (4650.0, 9350.0)  # Angstrom: where MUSE has light; outside, polynomials only continue
_KEYS = (("SubField", "SliceCCD"), ("SliceNo",), ("lambda",))
_ERRORS = {"response": "resperr", "response_unsmoothed": "resperr_unsmoothed", "ftelluric": "ftellerr"}


class Kind(StrEnum):
    """What is compared."""

    DATA = "data"
    VARIANCE = "variance"
    FLAGS = "flags"
    CURVE = "curve"  # what the coefficients of a table stand for
    COLUMN = "column"
    QC = "QC parameter"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one quantity of one channel differs; NaN where there is no such figure.

    Parameters
    ----------
    channel : int
        0 for the whole instrument.
    kind : Kind
    what : str
        Name of the plane, column, curve or parameter.
    unit : str
    values : int
        Compared.
    median : float
        Of the differences.
    typical : float
        Half of the range that holds the middle 68 % of them.
    largest : float
        Of their absolute values.
    sigma : str
        What one sigma is; '' if none is known.
    median_sigma, typical_sigma, largest_sigma : float
        The same in units of sigma.
    beyond : float
        Share of the values that differ by more than ``FAR`` sigma.
    remark : str
    """

    channel: int
    kind: Kind
    what: str
    unit: str = ""
    values: int = 0
    median: float = math.nan
    typical: float = math.nan
    largest: float = math.nan
    sigma: str = ""
    median_sigma: float = math.nan
    typical_sigma: float = math.nan
    largest_sigma: float = math.nan
    beyond: float = math.nan
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Map:
    """Differences of an image in sigma: means of blocks of pixels (or along the third axis), and their histogram.

    Parameters
    ----------
    values : float array, shape (rows, columns)
        NaN where nothing could be compared.
    block : int
        Pixels along each side of one value.
    counts : integer array
        In the bins of ``EDGES``; what is beyond is in none.
    total : int
        Values compared.
    """

    channel: int
    what: str
    sigma: str
    values: Real
    block: int
    counts: NDArray[np.int64]
    total: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Differences along an axis, one line a slice or only one.

    Parameters
    ----------
    x : float array, shape (points,)
    lines : float array, shape (lines, points)
    error : float array, shape (points,), or None
        One sigma.
    """

    channel: int
    what: str
    axis: str
    unit: str
    x: Real
    lines: Real
    sigma: str = ""
    error: Real | None = None


@dataclass(frozen=True)
class Comparison:
    """All that was found of one product, in one channel or more."""

    differences: tuple[Difference, ...] = ()
    maps: tuple[Map, ...] = ()
    curves: tuple[Curve, ...] = ()

    def __add__(self, other: "Comparison") -> "Comparison":
        return Comparison(self.differences + other.differences, self.maps + other.maps, self.curves + other.curves)


@dataclass(frozen=True, kw_only=True)
class Planes:
    """An image or a cube with its variance and flags, if it has any; all of one shape, read along the first axis.

    ``origin`` is where its first value is along each axis, in steps of the axis, in numpy's order; () if nothing is
    known of it.
    """

    data: Array
    variance: Array | None = None
    flags: Array | None = None
    origin: tuple[float, ...] = ()

    def cut(self, ranges: tuple[slice, ...]) -> "Planes":
        """Return a part of all planes."""
        return Planes(
            data=_Part(self.data, ranges),
            variance=None if self.variance is None else _Part(self.variance, ranges),
            flags=None if self.flags is None else _Part(self.flags, ranges),
        )


@dataclass(frozen=True)
class _Part:
    """A part of an array, read along its first axis as the whole is."""

    whole: Array
    ranges: tuple[slice, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(part.stop - part.start for part in self.ranges)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    def __getitem__(self, index: slice, /) -> NDArray[Any]:
        first, last, _ = index.indices(self.shape[0])
        start = self.ranges[0].start
        found: NDArray[Any] = self.whole[start + first : start + last][(slice(None), *self.ranges[1:])]
        return found


@dataclass
class _Sample:
    """Differences of an image as they come, block by block."""

    total: int
    differences: list[Real] = field(default_factory=list)
    sigmas: list[Real] = field(default_factory=list)
    ratios: list[Real] = field(default_factory=list)
    largest: float = 0.0
    largest_sigma: float = 0.0
    values: int = 0
    far: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES) - 1, np.int64))

    def add(self, difference: Real, sigma: Real) -> None:
        """Take in differences in units and in sigma, shape (values,)."""
        if not difference.size:
            return
        step = max(1, self.total // _SAMPLE)
        self.differences.append(difference[::step])
        self.sigmas.append(sigma[::step])
        self.values += difference.size
        self.largest = max(self.largest, float(np.abs(difference).max()))
        self.largest_sigma = max(self.largest_sigma, float(np.abs(sigma).max()))
        self.far += int((np.abs(sigma) > FAR).sum())
        self.counts += np.histogram(sigma, EDGES)[0]


def compare_planes(ours: Planes, theirs: Planes, *, channel: int, what: str, unit: str) -> Comparison:
    """Compare two images or cubes, with variances and flags where both have them.

    Pixels that either of them flags, or that are no numbers, are left out of the data and the variance. Sigma is the
    root of our variance; without one, ``TOLERANCE`` of the rms of our values. Of grids that do not coincide, the values
    nearest to each other go together.
    """
    shapes = f"ours has {_axes(ours.data)} values, ESO's {_axes(theirs.data)}"
    remark = ""
    if (ours.data.shape, ours.origin) != (theirs.data.shape, theirs.origin):
        common = _common(ours, theirs)
        if common is None:
            told = Difference(channel=channel, kind=Kind.DATA, what=what, unit=unit, remark=f"not compared: {shapes}")
            return Comparison((told,))
        here, there, apart = common
        remark = f"{shapes}; nearest values were compared, up to {apart:.2f} steps of the grid apart"
        ours, theirs = ours.cut(here), theirs.cut(there)
    cube = len(ours.data.shape) > 2
    shape = ours.data.shape[1:] if cube else tuple(-(-length // BLOCK) for length in ours.data.shape)
    sums, hits = np.zeros(shape), np.zeros(shape, np.int64)
    sample, flagged, tolerance = _Sample(math.prod(ours.data.shape)), _Flagged(), _tolerance(ours)
    for start, stop in _blocks(ours.data):
        a, b = (planes.data[start:stop].astype(np.float64) for planes in (ours, theirs))
        error = _error(ours, start, stop, tolerance)
        good = np.isfinite(a) & np.isfinite(b) & (error > 0)
        if ours.flags is not None and theirs.flags is not None:
            good &= flagged.add(ours.flags[start:stop], theirs.flags[start:stop])
        difference = np.where(good, b - a, 0.0)
        scaled = np.divide(difference, error, out=np.zeros_like(difference), where=good)
        sample.add(difference[good], scaled[good])
        if theirs.variance is not None:
            ratio = theirs.variance[start:stop][good] / error[good] ** 2
            sample.ratios.append(ratio[:: max(1, sample.total // _SAMPLE)])
        if cube:
            sums += scaled.sum(0)
            hits += good.sum(0)
        else:
            _bin(sums, scaled, start)
            _bin(hits, good, start)
    sigma = "our variance" if ours.variance is not None else f"{TOLERANCE:.0%} of the rms of our values"
    values = np.divide(sums, hits, out=np.full(shape, np.nan), where=hits > 0)
    found = [_of_data(sample, channel, what, unit, sigma)]
    if remark:
        found.append(Difference(channel=channel, kind=Kind.DATA, what=f"grid of {what}", remark=remark))
    if sample.ratios and ours.variance is not None:
        found.append(_of_variance(np.concatenate(sample.ratios), channel))
    if ours.flags is not None and theirs.flags is not None:
        found.append(flagged.difference(channel))
    picture = Map(
        channel=channel, what=what, sigma=sigma, values=values, block=1 if cube else BLOCK, counts=sample.counts,
        total=sample.values,
    )  # fmt: skip
    return Comparison(tuple(found), (picture,))


def _common(ours: Planes, theirs: Planes) -> tuple[tuple[slice, ...], tuple[slice, ...], float] | None:
    """Return the ranges of both that cover the same, and how far apart their values are, in steps; None if none do."""
    if not len(ours.origin) == len(theirs.origin) == len(ours.data.shape) == len(theirs.data.shape):
        return None
    here, there, apart = [], [], 0.0
    for a, b, length, other in zip(ours.origin, theirs.origin, ours.data.shape, theirs.data.shape, strict=True):
        shift = round(a - b)
        start, stop = max(0, -shift), min(length, other - shift)
        if stop <= start:
            return None
        here.append(slice(start, stop))
        there.append(slice(start + shift, stop + shift))
        apart = max(apart, abs(a - b - shift))
    return tuple(here), tuple(there), apart


def _blocks(array: Array) -> Iterator[tuple[int, int]]:
    """Yield ranges along the first axis, of whole blocks of a map."""
    length = array.shape[0]
    step = max(1, _BLOCK_VALUES * length // max(math.prod(array.shape), 1))
    step = -(-step // BLOCK) * BLOCK
    for start in range(0, length, step):
        yield start, min(start + step, length)


def _tolerance(planes: Planes) -> float:
    """Return what stands for sigma in an image without variance."""
    if planes.variance is not None:
        return math.nan
    squares = [np.square(planes.data[start:stop], dtype=np.float64) for start, stop in _blocks(planes.data)]
    total, count = (
        sum(float(np.nansum(item)) for item in squares),
        sum(int(np.isfinite(item).sum()) for item in squares),
    )
    return TOLERANCE * math.sqrt(total / max(count, 1))


def _error(planes: Planes, start: int, stop: int, tolerance: float) -> Real:
    """Return one sigma of some rows; 0 where it is not known."""
    if planes.variance is None:
        return np.full((stop - start, *planes.data.shape[1:]), tolerance)
    variance = planes.variance[start:stop].astype(np.float64)
    return np.sqrt(np.where(variance > 0, variance, 0.0))


def _bin(target: NDArray[Any], values: NDArray[Any], start: int) -> None:
    """Add the sums of blocks of pixels to those rows of a map that they belong to."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], BLOCK), axis=0, dtype=target.dtype)
    blocks = np.add.reduceat(rows, np.arange(0, values.shape[1], BLOCK), axis=1)
    target[start // BLOCK : start // BLOCK + len(blocks)] += blocks


def _of_data(sample: _Sample, channel: int, what: str, unit: str, sigma: str) -> Difference:
    if not sample.values:
        return Difference(channel=channel, kind=Kind.DATA, what=what, unit=unit, remark="no pixel is good in both")
    median, typical = _spread(np.concatenate(sample.differences))
    median_sigma, typical_sigma = _spread(np.concatenate(sample.sigmas))
    return Difference(
        channel=channel, kind=Kind.DATA, what=what, unit=unit, values=sample.values, median=median, typical=typical,
        largest=sample.largest, sigma=sigma, median_sigma=median_sigma, typical_sigma=typical_sigma,
        largest_sigma=sample.largest_sigma, beyond=sample.far / sample.values,
    )  # fmt: skip


def _of_variance(ratios: Real, channel: int) -> Difference:
    median, typical = _spread(ratios)
    return Difference(
        channel=channel, kind=Kind.VARIANCE, what="variance", unit="of ours", values=ratios.size, median=median - 1,
        typical=typical, remark=f"ESO's is {median:.4f} times ours, typically within {typical:.4f}",
    )  # fmt: skip


@dataclass
class _Flagged:
    """How many pixels are flagged, by whom."""

    both: int = 0
    ours: int = 0
    theirs: int = 0
    values: int = 0
    bits: dict[int, list[int]] = field(default_factory=dict)

    def add(self, ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
        """Count; return where neither is flagged."""
        a, b = ours.astype(np.int64) & 0xFFFFFFFF, theirs.astype(np.int64) & 0xFFFFFFFF
        one, other = a != 0, b != 0
        self.both += int((one & other).sum())
        self.ours += int((one & ~other).sum())
        self.theirs += int((other & ~one).sum())
        self.values += a.size
        some = one | other
        for bit in range(32):
            counts = int((a[some] >> bit & 1).sum()), int((b[some] >> bit & 1).sum())
            if any(counts):
                kept = self.bits.setdefault(bit, [0, 0])
                kept[0] += counts[0]
                kept[1] += counts[1]
        neither: NDArray[np.bool_] = ~some
        return neither

    def difference(self, channel: int) -> Difference:
        """Return what was counted."""
        told = ", ".join(f"bit {bit}: {ours} and {theirs}" for bit, (ours, theirs) in sorted(self.bits.items()))
        remark = f"{self.both} flagged by both, {self.ours} by ours alone, {self.theirs} by ESO's alone"
        return Difference(
            channel=channel, kind=Kind.FLAGS, what="flags", values=self.values,
            largest=float(self.ours + self.theirs), unit="pixels", remark=f"{remark} ({told})" if told else remark,
        )  # fmt: skip


def compare_tables(ours: Table, theirs: Table, *, channel: int) -> Comparison:
    """Compare two tables column by column.

    Rows go together by slice, else by wavelength (ESO's are interpolated at ours), else by their order. Sigma is the
    column of our errors that belongs to a column, else none.
    """
    names = {column.name: column for column in ours.columns}
    common = [name for name in names if name in {column.name for column in theirs.columns}]
    found = [
        Difference(channel=channel, kind=Kind.COLUMN, what=column.name, remark=f"only {whose} has it")
        for whose, table in (("ours", ours), ("ESO's", theirs))
        for column in table.columns
        if column.name not in common
    ]
    aligned = _aligned(ours, theirs, common)
    if aligned is None:
        remark = f"not compared: ours has {len(ours.columns[0].values)} rows, ESO's {len(theirs.columns[0].values)}"
        return Comparison((*found, Difference(channel=channel, kind=Kind.COLUMN, what="rows", remark=remark)))
    key, a, b = aligned
    curves = []
    for name in (name for name in common if name in a and name not in key):
        error = next((a[other] for other in (_ERRORS.get(name, ""), f"{name}err") if other in a), None)
        difference = b[name] - a[name]
        sigma = "our errors" if error is not None else ""
        unit = names[name].unit
        found.append(
            _of_values(difference, error, channel=channel, kind=Kind.COLUMN, what=name, unit=unit, sigma=sigma)
        )
        if error is not None and difference.size > 1:
            by_wavelength = key == ("lambda",)
            curves.append(
                Curve(
                    channel=channel, what=name, axis="wavelength / Angstrom" if by_wavelength else "row of the table",
                    unit=unit, x=a["lambda"] if by_wavelength else np.arange(1.0, difference.size + 1),
                    lines=difference[None, :], sigma=sigma, error=error,
                )
            )  # fmt: skip
    return Comparison(tuple(found), (), tuple(curves))


def _aligned(
    ours: Table, theirs: Table, common: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, Real], dict[str, Real]] | None:
    """Return the numbers of both tables row by row, and the columns by which these go together."""
    key = next((names for names in _KEYS if all(name in common for name in names)), ())
    numeric = [name for name in common if ours[name].dtype.kind in "iufb" and ours[name].ndim == 1]
    a: dict[str, Real] = {name: ours[name].astype(np.float64) for name in numeric}
    b: dict[str, Real] = {name: theirs[name].astype(np.float64) for name in numeric}
    if key == ("lambda",):
        inside = (a["lambda"] >= b["lambda"].min()) & (a["lambda"] <= b["lambda"].max())
        a = {name: values[inside] for name, values in a.items()}
        b = {name: np.interp(a["lambda"], b["lambda"], values) for name, values in b.items()}
    elif key:
        ours_at, theirs_at = (
            {row: at for at, row in enumerate(zip(*(t[n] for n in key), strict=True))} for t in (a, b)
        )
        rows = [row for row in ours_at if row in theirs_at]
        a = {name: values[[ours_at[row] for row in rows]] for name, values in a.items()}
        b = {name: values[[theirs_at[row] for row in rows]] for name, values in b.items()}
    elif len(ours.columns[0].values) != len(theirs.columns[0].values):
        return None
    return key, a, b


def compare_traces(ours: Table, theirs: Table, *, channel: int) -> Comparison:
    """Compare what two TRACE_TABLEs stand for: middle and edges of each slice along the detector, in pixels.

    Sigma is the scatter of our points about our polynomials.
    """
    y = np.arange(1.0, _ROWS + 1, _ROW_STEP)
    pairs = list(zip(read_traces(ours), read_traces(theirs), strict=True))
    found, curves = [], []
    for number, name in ((CENTRE, "middle"), (LEFT, "left edge"), (RIGHT, "right edge")):
        lines = np.array([b.polynomials[number](y) - a.polynomials[number](y) for a, b in pairs])
        scatter = np.sqrt([a.mean_squares[number] for a, _ in pairs])[:, None] * np.ones_like(y)
        found.append(
            _of_values(
                lines, scatter, channel=channel, kind=Kind.CURVE, what=f"{name} of the slices", unit="pix",
                sigma="scatter about our polynomials",
            )
        )  # fmt: skip
        curves.append(
            Curve(
                channel=channel, what=f"{name} of the slices", axis="row / pix", unit="pix", x=y, lines=lines,
                sigma="scatter about our polynomials", error=np.median(scatter, axis=0),
            )
        )  # fmt: skip
    return Comparison(tuple(found), (), tuple(curves))


def compare_wavelengths(ours: Table, theirs: Table, traces: Sequence[Trace], *, channel: int) -> Comparison:
    """Compare what two WAVECAL_TABLEs stand for: the wavelengths within the slices, in Angstrom.

    Sigma is the scatter of the lines about our solution.
    """
    y = np.arange(1.0, _ROWS + 1, _ROW_STEP)
    means, scatters, everything = [], [], []
    for a, b, trace in zip(read_dispersions(ours), read_dispersions(theirs), traces, strict=True):
        left, right = (trace.polynomials[number](y) for number in (LEFT, RIGHT))
        x = left + (right - left) * np.linspace(0.05, 0.95, _LINES)[:, None]
        wavelength = a.wavelength(x, y)
        difference = np.where(
            (wavelength > _LAMBDA[0]) & (wavelength < _LAMBDA[1]), b.wavelength(x, y) - wavelength, np.nan
        )
        everything.append(difference)
        scatters.append(np.full_like(difference, math.sqrt(a.mean_square)))
        lit = np.isfinite(difference).all(0)
        means.append(np.where(lit, difference.mean(0), np.nan))
    scatter = np.array(scatters)
    what, sigma = "wavelengths", "scatter of the lines about our solution"
    found = _of_values(
        np.array(everything), scatter, channel=channel, kind=Kind.CURVE, what=what, unit="Angstrom", sigma=sigma
    )
    curve = Curve(
        channel=channel, what=f"{what}, mean along a row", axis="row / pix", unit="Angstrom", x=y,
        lines=np.array(means), sigma=sigma, error=np.full_like(y, np.median(scatter)),
    )  # fmt: skip
    return Comparison((found,), (), (curve,))


def compare_measurements(
    ours: Mapping[str, int | float | str], theirs: Mapping[str, int | float | str], *, channel: int
) -> Comparison:
    """Compare QC1 parameters; sigma is ``TOLERANCE`` of our value."""
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            whose = "ours" if name in ours else "ESO's"
            found.append(Difference(channel=channel, kind=Kind.QC, what=name, remark=f"only {whose} has it"))
            continue
        a, b = ours[name], theirs[name]
        if isinstance(a, str) or isinstance(b, str):
            remark = "" if a == b else f"{a} in ours, {b} in ESO's"
            found.append(Difference(channel=channel, kind=Kind.QC, what=name, values=1, remark=remark))
            continue
        error = TOLERANCE * abs(a) or math.nan
        found.append(
            Difference(
                channel=channel, kind=Kind.QC, what=name, values=1, median=b - a, largest=abs(b - a),
                sigma=f"{TOLERANCE:.0%} of our value", median_sigma=(b - a) / error if b != a else 0.0,
                largest_sigma=abs(b - a) / error if b != a else 0.0, remark=f"{a:.6g} in ours, {b:.6g} in ESO's",
            )
        )  # fmt: skip
    return Comparison(tuple(found))


def _of_values(
    difference: Real, error: Real | None, *, channel: int, kind: Kind, what: str, unit: str, sigma: str
) -> Difference:
    """Return how much numbers differ that are all there at once."""
    good = np.isfinite(difference)
    if not good.any():
        return Difference(channel=channel, kind=kind, what=what, unit=unit, remark="no value is a number in both")
    median, typical = _spread(difference[good])
    plain = Difference(
        channel=channel, kind=kind, what=what, unit=unit, values=int(good.sum()), median=median, typical=typical,
        largest=float(np.abs(difference[good]).max()),
    )  # fmt: skip
    if error is None or not (good := good & (error > 0)).any():
        return plain
    scaled = difference[good] / error[good]
    median_sigma, typical_sigma = _spread(scaled)
    return Difference(
        **{
            **vars(plain), "sigma": sigma, "median_sigma": median_sigma, "typical_sigma": typical_sigma,
            "largest_sigma": float(np.abs(scaled).max()), "beyond": float((np.abs(scaled) > FAR).mean()),
        }
    )  # fmt: skip


def _spread(values: Real) -> tuple[float, float]:
    """Return the median, and half of the range that holds the middle 68 %."""
    low, middle, high = np.percentile(values, (15.87, 50, 84.13))
    return float(middle), float((high - low) / 2)


def _axes(array: Array) -> str:
    return " x ".join(map(str, array.shape[::-1]))
