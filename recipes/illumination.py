"""Corrections of the light over the field: by the ILLUM flat of an exposure, and by the cube of the twilight sky."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from recipes.pixtable import PREFIX
from recipes.positions import Pixels
from recipes.recipe import Exposure, Flags, Float32, Keyword, RecipeError, Source, Value

ILLUM_RANGE = (6500.0, 7500.0)  # Angstrom, in which the light of a slice is measured; MP
ILLUM_TEMPLATES = ("MUSE_wfm_cal_specflatatt", "MUSE_wfm_cal_illum", "MUSE_nfm_cal_illum")  # MP


@dataclass(frozen=True)
class Illumination:
    """What the data of each slice are multiplied by, by its number on the detector; the mean of all is 1."""

    factors: Mapping[int, float]

    def apply(self, pixels: Pixels, data: Float32, stat: Float32) -> None:
        """Multiply data and variance of pixels in place."""
        for which, part in pixels.of_slices():
            factor = np.float64(self.factors[which.number])
            np.multiply(data[part], factor, out=data[part], casting="same_kind")
            np.multiply(stat[part], factor**2, out=stat[part], casting="same_kind")

    def keywords(self) -> tuple[Keyword, ...]:
        """Return the cards of a pixel table that it was applied to."""
        values = np.array(list(self.factors.values()))
        return (
            *(Keyword(f"{PREFIX} ILLUM{number}", factor) for number, factor in self.factors.items()),
            Keyword(f"{PREFIX} ILLUM MEAN", float(values.mean())),
            Keyword(f"{PREFIX} ILLUM STDEV", float(values.std(ddof=1)) if values.size > 1 else 0.0),
        )


def relative_illumination(pixels: Pixels, data: Float32, dq: Flags) -> Illumination:
    """Compare the slices of a reduced ILLUM flat by their median light.

    Parameters
    ----------
    pixels : Pixels
        Those within ``ILLUM_RANGE``.
    data, dq : arrays, shape (pixels,)
        Flagged pixels do not count.

    Raises
    ------
    RecipeError
        If a slice is dark.
    """
    medians = {
        which.number: float(np.median(data[part][dq[part] == 0])) if (dq[part] == 0).any() else 0.0
        for which, part in pixels.of_slices()
    }
    for number, median in medians.items():
        if median <= 0:
            raise RecipeError(
                f"The ILLUM flat shows {median:.1f} electrons in slice {number}, and needs light; leave it out.",
                slice=number,
                median=median,
            )
    mean = float(np.mean([1 / median for median in medians.values()]))
    return Illumination({number: 1 / median / mean for number, median in medians.items()})


def check_illum(exposure: Exposure) -> tuple[str, ...]:
    """Return a sentence if an ILLUM flat was not taken by a template for such flats."""
    if exposure.template in (*ILLUM_TEMPLATES, ""):
        return ()
    return (f"{exposure.name} is an ILLUM by its tag, but its template is {exposure.template}.",)


@dataclass(frozen=True, kw_only=True)
class TwilightCube:
    """Relative brightness of the twilight sky, by which data are divided.

    Parameters
    ----------
    values : float32 array, shape (planes, y, x)
        NaN where it is not known.
    start, step : tuples of three floats
        Field x and y, and wavelength of the first element; and from one to the next.
    flux : float
        Of the twilight sky in the channel (``FLAT FLUX SKYn``).
    """

    values: Float32
    start: tuple[float, float, float]
    step: tuple[float, float, float]
    flux: float

    @classmethod
    def of(cls, source: Source, channel: int) -> Self:
        """Read a TWILIGHT_CUBE.

        Raises
        ------
        RecipeError
            If it does not have the channel.
        """
        name = f"ESO DRS MUSE FLAT FLUX SKY{channel}"
        if name not in source.keywords:
            raise RecipeError(
                f"The TWILIGHT_CUBE has no {name}; give one that was made with channel {channel}.", channel=channel
            )
        plane = source.plane("DATA")
        cards: Mapping[str, Value] = {keyword.name: keyword.value for keyword in plane.keywords}
        steps = [float(cards[f"CD{axis}_{axis}"]) for axis in (1, 2, 3)]
        starts = [
            float(cards[f"CRVAL{axis}"]) + (1 - float(cards[f"CRPIX{axis}"])) * step
            for axis, step in enumerate(steps, 1)
        ]
        return cls(
            values=np.ascontiguousarray(plane.values[:]),
            start=(starts[0], starts[1], starts[2]),
            step=(steps[0], steps[1], steps[2]),
            flux=float(source.keywords[name]),
        )

    def at(self, x: Float32, y: Float32, wavelength: Float32) -> NDArray[np.float32]:
        """Return the brightness at some places: that of the nearest pixel, on a line between planes.

        Outside of the cube it is that of its border. Where one of two planes is NaN the other counts.
        """
        planes, rows, columns = self.values.shape
        column = _nearest(x, self.start[0], self.step[0], columns)
        row = _nearest(y, self.start[1], self.step[1], rows)
        depth = (wavelength - self.start[2]) / np.float64(self.step[2])
        np.clip(depth, 0, planes - 1, out=depth)
        below = np.minimum(depth.astype(np.intp), max(planes - 2, 0))
        index = (below * rows + row) * columns + column
        flat = self.values.reshape(-1)
        one = flat[index]
        other = flat[index + rows * columns] if planes > 1 else one
        depth -= below
        result: NDArray[np.float32] = (one + (other - one) * depth).astype(np.float32)
        unknown = np.isnan(result)
        if unknown.any():
            upper = np.isnan(one) | (depth == 1)
            result[unknown] = np.where(upper, other, one)[unknown]
        return result

    def apply(self, pixels: Pixels, data: Float32, stat: Float32) -> int:
        """Divide data and variance of pixels in place; return how many it does not know, which stay as they are."""
        unknown = 0
        for which, part in pixels.of_slices():
            along = which.along(pixels.origin[part])
            bright = self.at(which.field_x(along), which.field_y(along), pixels.wavelength[part])
            lost = ~(bright > 0)
            if lost.any():
                unknown += int(np.count_nonzero(lost))
                bright[lost] = 1
            data[part] /= bright
            stat[part] /= np.square(bright, out=bright)
        return unknown


def _nearest(values: Float32, start: float, step: float, number: int) -> NDArray[np.intp]:
    """Return the index of the nearest of some equidistant places, the first or last for values beyond them."""
    place = (values - np.float64(start)) / step
    place += 0.5
    return np.clip(place, 0, number - 1, out=place).astype(np.intp)
