"""From raw frames of the sky to pixel tables: what ESO's muse_scibasic does, the first half of the on-sky recipes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.background import read_background, read_noise_of
from recipes.combine import ROUNDING
from recipes.detector import (
    Overscan,
    OverscanParams,
    check_bias,
    is_saturated,
    known_flags,
    mark,
    measure_overscan,
    narrowed,
    per_quadrant,
    saturation_warnings,
    trim,
    trimmed_blocks,
)
from recipes.illumination import ILLUM_RANGE, Illumination, TwilightCube, check_illum, relative_illumination
from recipes.muse import BLUE_END, DISPERSION, EXTENDED_BLUE_END, NOTCH, RED_END, SATURATION, Flag
from recipes.pixtable import (
    describe,
    flat_spectrum,
    pixel_table,
)
from recipes.positions import Pixels, SliceMap, find_pixels, map_slices
from recipes.recipe import (
    Channel,
    Exposure,
    Flags,
    Float32,
    Image,
    Keyword,
    Measurement,
    Product,
    RecipeError,
    Stack,
    Table,
    parameter,
)
from recipes.skylines import SkyLineParams, Window, shift_of_sky_lines

_ROWS_AT_ONCE = 64
_SPECTRUM_ROWS = 256  # of the flat field at a time
_ANY_WAVELENGTH = (0.0, np.inf)
_BEYOND = 2 * DISPERSION  # Angstrom by which the spectrum of the flat field goes further than the pixel table; MP


@dataclass(frozen=True, kw_only=True)
class BasicParams(OverscanParams, SkyLineParams):
    """Parameters of muse_scibasic, with ESO's names and defaults; recipes that begin with it have them too.

    Choices of ESO's that are not implemented are refused.
    """

    crop: bool = parameter(True, "Crop the pixel tables to the useful wavelengths of the instrument mode.")  # noqa: FBT003 - a default
    cr: str = parameter(
        "none",
        "Cosmic rays on the detector, for a quick look. ESO's 'dcr' is not implemented.",
        choices=("none",),
    )
    xbox: int = parameter(15, "Has a meaning for ESO's cr 'dcr' only.", least=1)
    ybox: int = parameter(40, "Has a meaning for ESO's cr 'dcr' only.", least=1)
    passes: int = parameter(2, "Has a meaning for ESO's cr 'dcr' only.", least=1)
    thres: float = parameter(5.8, "Has a meaning for ESO's cr 'dcr' only.", least=0.0)
    saveimage: bool = parameter(
        False,  # noqa: FBT003 - a default
        "Make images of the detector beside the pixel tables: not implemented, nothing reads them. ESO's default is"
        " true.",
        choices=(False,),
    )
    resample: bool = parameter(
        False,  # noqa: FBT003 - a default
        "Resample the pixel tables to images for a look: not implemented.",
        choices=(False,),
    )
    dlambda: float = parameter(1.25, "Has a meaning for ESO's resample only.", least=0.0)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One raw frame and what takes the instrument out of it.

    Parameters
    ----------
    channel : Channel
        Images MASTER_BIAS and MASTER_FLAT; MASTER_DARK if there is one.
    stack : Stack
    number : int
        Of the frame in the stack, from 0.
    overscan : Overscan
    flags : uint16 array
        Flags of the trimmed detector that were known before.
    """

    channel: Channel
    stack: Stack
    number: int
    overscan: Overscan
    flags: NDArray[np.uint16]

    @property
    def exposure(self) -> Exposure:
        """Description of the frame."""
        return self.stack.exposures[self.number]

    def blocks(self, wanted: Sequence[Pixels] | None = None) -> Iterator[tuple[slice, Image]]:
        """Yield trimmed rows in electrons, divided by the flat field, a block after the other.

        Parameters
        ----------
        wanted : sequence of Pixels, optional
            Blocks in which none of these has a pixel are left out.

        Yields
        ------
        rows, image
            The image belongs to the caller.
        """
        detector, exposure = self.channel.detector, self.exposure
        background = read_background(self.channel, exposure.exptime, exposure.gains)
        flat, read_noise = self.channel.images["MASTER_FLAT"], read_noise_of(self.channel)
        floor = [(noise / gain) ** 2 + ROUNDING for noise, gain in zip(read_noise, exposure.gains, strict=True)]
        for start, stop, first in trimmed_blocks(detector, _ROWS_AT_ONCE):
            rows = slice(start, stop)
            if wanted is not None and not any(pixels.within(rows) for pixels in wanted):
                continue
            raw = self.stack.rows(self.number, first, first + stop - start)
            below, division = background(rows), flat.rows(start, stop)
            data = np.empty((stop - start, detector.shape[1]), np.float32)
            trim(raw, detector, data)
            data.reshape(len(data), 2, -1)[:] -= self.overscan.levels[rows, :, None]
            data -= below.data
            gain = per_quadrant(exposure.gains, rows, detector)
            dq = self.flags[rows] | narrowed(below.dq) | narrowed(division.dq)
            data *= gain
            stat = np.maximum(data, 0)
            stat += per_quadrant(floor, rows, detector) * np.square(gain)
            stat += below.stat * np.square(gain)
            if raw.max() > SATURATION or raw.min() == 0:
                saturated = np.empty(data.shape, bool)
                trim(is_saturated(raw), detector, saturated)
                mark(dq, saturated, Flag.SATURATED)
            divide(data, stat, dq, division)
            yield rows, Image(data=data, dq=dq, stat=stat, unit="count")

    def pick(self, *wanted: Pixels) -> tuple[tuple[Float32, NDArray[np.uint16], Float32], ...]:
        """Return data, flags and variance of some sets of pixels, reading no more rows than those need."""
        columns = tuple(pixels.columns() for pixels in wanted)
        for rows, image in self.blocks(wanted):
            for pixels, targets in zip(wanted, columns, strict=True):
                pixels.take(rows, (image.data, image.dq, image.stat), targets)
        return columns


def divide(data: Float32, stat: Float32, dq: NDArray[np.uint16], flat: Image) -> None:
    """Divide an image by a flat field in place; both variances are propagated.

    Where the flat field is not above 0 pixels are flagged BAD; where it is 0 they become 0.
    """
    zero = flat.data == 0
    inverse = np.divide(np.float32(1), flat.data, out=np.zeros_like(flat.data), where=~zero)
    with np.errstate(over="ignore"):  # between the slices the flat is nothing but noise around 0
        data *= inverse
        part = np.square(data)
        part *= flat.stat
        stat += part
        stat *= np.square(inverse, out=inverse)
    mark(dq, flat.data <= 0, Flag.BAD)


def open_frames(channel: Channel, tag: str, params: OverscanParams) -> tuple[Frame, ...]:
    """Measure the overscans of the raw frames of a tag.

    Raises
    ------
    RecipeError
        If the bias level of a frame is not that of the master bias.
    """
    stack, flags = channel.stacks[tag], known_flags(channel)
    overscans = [measure_overscan(stack, number, channel.detector, params) for number in range(len(stack.exposures))]
    check_bias(channel.images["MASTER_BIAS"].keywords, overscans, stack.exposures)
    return tuple(
        Frame(channel=channel, stack=stack, number=number, overscan=overscan, flags=flags)
        for number, overscan in enumerate(overscans)
    )


def measure_illumination(
    channel: Channel, maps: Sequence[SliceMap], mjd: float, params: OverscanParams
) -> tuple[Illumination | None, tuple[str, ...]]:
    """Return the relative light of the slices in the ILLUM flat that is closest in time, None if there is no such flat.

    Sentences for an operator go with it.
    """
    if "ILLUM" not in channel.stacks:
        return None, ()
    frames = open_frames(channel, "ILLUM", params)
    closest = min(frames, key=lambda frame: abs(frame.exposure.mjd - mjd))
    pixels = find_pixels(maps, *ILLUM_RANGE)
    ((data, dq, _),) = closest.pick(pixels)
    return relative_illumination(pixels, data, dq), check_illum(closest.exposure)


def reduce_exposures(channel: Channel, tag: str, params: BasicParams) -> tuple[tuple[Product, ...], tuple[str, ...]]:
    """Make the pixel table of each exposure of a tag.

    Parameters
    ----------
    channel : Channel
        Raw frames of the tag, and ILLUM if there is any; images MASTER_BIAS, MASTER_FLAT, and MASTER_DARK if there is
        one; tables TRACE_TABLE, WAVECAL_TABLE, GEOMETRY_TABLE, and BADPIX_TABLE if there is one; file TWILIGHT_CUBE if
        there is one.
    tag : str
        STD, ASTROMETRY, OBJECT ...
    params : BasicParams

    Returns
    -------
    products, warnings
        ``PIXTABLE_<tag>``, numbered from 1 in the order of the exposures; sentences for an operator.

    Raises
    ------
    RecipeError
        If the bias does not fit the frames, or a slice lacks wavelengths or place.
    """
    maps = map_slices(channel)
    frames = open_frames(channel, tag, params)
    warnings = [*saturation_warnings([f.overscan for f in frames], [f.exposure for f in frames], channel.detector)]
    cube = TwilightCube.of(channel.files["TWILIGHT_CUBE"], channel.number) if "TWILIGHT_CUBE" in channel.files else None
    low, high = useful_range(frames[0].exposure.mode) if params.crop else _ANY_WAVELENGTH
    spectrum = measure_flat_spectrum(channel, maps, low - _BEYOND, high + _BEYOND)
    products = []
    for number, frame in enumerate(frames, 1):
        illumination, remarks = measure_illumination(channel, maps, frame.exposure.mjd, params)
        content = _reduce_exposure(frame, maps, illumination, cube, params)
        warnings += (*remarks, *content.warnings)
        products.append(
            Product(
                catg=f"PIXTABLE_{tag}",
                number=number,
                content=pixel_table(content.pixels, content.data, content.dq, content.stat, spectrum),
                measurements=content.measurements,
                keywords=content.keywords,
            )
        )
    return tuple(products), tuple(dict.fromkeys(warnings))


def lamp_flux(channel: Channel) -> float:
    """Return the light of the lamp in the master flat before it was normalised.

    Raises
    ------
    RecipeError
        If the flat does not say it.
    """
    measured = channel.images["MASTER_FLAT"].measurements
    if "FLAT MASTER INTFLUX" not in measured:
        raise RecipeError("The master flat has no QC FLAT MASTER INTFLUX; make it anew.")
    return float(measured["FLAT MASTER INTFLUX"])


def useful_range(mode: str) -> tuple[float, float]:
    """Return the useful wavelengths of an instrument mode, Angstrom."""
    return BLUE_END.get(mode, EXTENDED_BLUE_END), RED_END


@dataclass(frozen=True, kw_only=True)
class _Reduced:
    """One exposure as pixels."""

    pixels: Pixels
    data: Float32
    dq: Flags
    stat: Float32
    measurements: tuple[Measurement, ...]
    keywords: tuple[Keyword, ...]
    warnings: tuple[str, ...]


def _reduce_exposure(
    frame: Frame,
    maps: Sequence[SliceMap],
    illumination: Illumination | None,
    cube: TwilightCube | None,
    params: BasicParams,
) -> _Reduced:
    shift = _sky_line_shift(frame, maps, params)
    low, high = useful_range(frame.exposure.mode) if params.crop else _ANY_WAVELENGTH
    pixels = find_pixels(maps, low, high, shift)
    if not len(pixels):
        raise RecipeError(
            f"No pixel of channel {frame.channel.number} lies between {low} and {high} Angstrom; look at its"
            " WAVECAL_TABLE.",
            channel=frame.channel.number,
        )
    data, dq, stat = pixels.columns()
    saturated = 0
    for rows, image in frame.blocks():
        saturated += int(np.count_nonzero(image.dq & np.uint16(Flag.SATURATED)))
        pixels.take(rows, (image.data, image.dq, image.stat), (data, dq, stat))
    flags = mask_notch(dq, pixels.wavelength, frame.exposure.mode)
    keywords = [*describe(pixels), Keyword("ESO DRS MUSE FLAT FLUX LAMP", lamp_flux(frame.channel))]
    warnings = []
    if illumination:
        illumination.apply(pixels, data, stat)
        keywords += illumination.keywords()
    if cube:
        unknown = cube.apply(pixels, data, stat)
        keywords.append(Keyword("ESO DRS MUSE FLAT FLUX SKY", cube.flux))
        if unknown:
            warnings.append(f"TWILIGHT_CUBE has no value for {unknown} of {len(pixels)} pixels; they stay as they are.")
    measurements = [Measurement("SCIBASIC NSATURATED", saturated, "Number of saturated pixels in output data")]
    if params.lines:
        comment = "[Angstrom] Shift in wavelength applied to the data using sky emission line(s)"
        measurements.append(Measurement("SCIBASIC LAMBDA SHIFT", shift, comment))
    return _Reduced(
        pixels=pixels,
        data=data,
        dq=flags,
        stat=stat,
        measurements=tuple(measurements),
        keywords=tuple(keywords),
        warnings=tuple(warnings),
    )


def _sky_line_shift(frame: Frame, maps: Sequence[SliceMap], params: BasicParams) -> float:
    """Return the shift of an exposure by its sky lines, Angstrom; 0 if none is asked for or seen."""
    half = params.skyhalfwidth
    near = [find_pixels(maps, abs(line) - half, abs(line) + half) for line in params.lines]
    seen = [(line, pixels) for line, pixels in zip(params.lines, near, strict=True) if len(pixels)]
    picked = frame.pick(*(pixels for _, pixels in seen)) if seen else ()
    windows = [
        Window(line=line, wavelength=pixels.wavelength, data=data, stat=stat, dq=dq)
        for (line, pixels), (data, dq, stat) in zip(seen, picked, strict=True)
    ]
    return shift_of_sky_lines(windows, lowest_wavelength(maps), params)


def mask_notch(dq: NDArray[np.uint16], wavelength: Float32, mode: str) -> Flags:
    """Return flags in which pixels that the notch filter of the mode blocks have only NOTCH."""
    if mode not in NOTCH:
        return dq
    low, high = NOTCH[mode]
    flags = dq.astype(np.uint32)
    flags[(wavelength > low) & (wavelength < high)] = Flag.NOTCH
    return flags


def lowest_wavelength(maps: Sequence[SliceMap]) -> float:
    """Return the least wavelength of all pixels in single precision; it rises with the row."""
    ends = [which.wavelengths(slice(0, _ROWS_AT_ONCE)) for which in maps]
    return float(min(np.float32(wave[there].min()) for wave, there in ends if there.any()))


def measure_flat_spectrum(channel: Channel, maps: Sequence[SliceMap], low: float, high: float) -> Table:
    """Return the mean spectrum of the master flat from ``low`` to ``high`` Angstrom, in steps of the dispersion.

    Each good pixel is shared between the two nearest points; the first is the least wavelength of all pixels.
    """
    flat, rows_in_all = channel.images["MASTER_FLAT"], channel.detector.shape[0]
    origin, step = lowest_wavelength(maps), np.float64(DISPERSION)
    size = int((12000 - origin) / step)
    sums, weights = np.zeros(size), np.zeros(size)
    for start in range(0, rows_in_all, _SPECTRUM_ROWS):
        rows = slice(start, min(start + _SPECTRUM_ROWS, rows_in_all))
        image = flat.rows(rows.start, rows.stop)
        good = (image.dq == 0) & np.isfinite(image.data)
        for which in maps:
            wave, there = which.wavelengths(rows)
            pixel = which.first[rows, None] - 1 + np.arange(wave.shape[1])
            np.minimum(pixel, good.shape[1] - 1, out=pixel)
            pixel += np.arange(len(pixel))[:, None] * good.shape[1]
            there &= np.take(good, pixel)
            value = np.take(image.data, pixel[there]).astype(np.float64)
            point = wave[there].astype(np.float32) - np.float64(origin)
            point /= step
            index = np.maximum(point, 0).astype(np.intp)
            point -= index
            first = int(index.min(initial=size - 2))
            index -= first
            width = int(index.max(initial=0)) + 2
            part = slice(first, first + width)
            weights[part] += np.bincount(index, minlength=width)
            share = np.bincount(index, point, width)
            weights[part] -= share
            weights[part.start + 1 : part.stop] += share[:-1]
            sums[part] += np.bincount(index, value, width)
            value *= point
            moved = np.bincount(index, value, width)
            sums[part] -= moved
            sums[part.start + 1 : part.stop] += moved[:-1]
    wavelength = origin + step * np.arange(size)
    there = (weights > 0) & (wavelength >= low) & (wavelength <= high)
    return flat_spectrum(wavelength[there], sums[there] / weights[there])
