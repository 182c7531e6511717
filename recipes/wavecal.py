"""Recipe muse_wavecal: arc lamp exposures to WAVECAL_TABLE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recipes.arcquality import NUMBERS, differences, fit_quality, lines_quality, widths_quality
from recipes.arcs import Arc, ArcParams, combine_arcs, measure_inputs, overscans_in_order
from recipes.detector import saturation_warnings
from recipes.dispersion import dispersion_table
from recipes.identify import Identification, Identifier, Peaks
from recipes.linecatalog import LineCatalog, read_line_catalog
from recipes.muse import DISPERSION, Lamp
from recipes.recipe import Channel, Float32, Measurement, Product, Recipe, RecipeError, Result, parameter
from recipes.slicefit import FitSettings, SliceFit, Weighting, fit_slices, residual_table
from recipes.slicelines import Identified, find_lines, follow_lines, measure_lines, middle_spectra
from recipes.trace import Trace, read_traces

_LINE_LIMIT, _FIT_LIMIT = 2.5, 3.0  # sigma, where linesigma and fitsigma are negative; MP
_RESOLUTION = 2.61  # Angstrom, nominal width of a line; MP
_LEAST_IDENTIFIED = 0.6  # of the brightest peaks of a slice
_SATURATED_PART = 0.25  # of the lines of a lamp that may be saturated in the middle of the detector
# Angstrom from edge to edge of a slice, above which it deserves a warning, at the bottom and at the top; MP
_STEEPEST = (6.5, 5.9)


@dataclass(frozen=True, kw_only=True)
class WavecalParams(ArcParams):
    """Parameters of muse_wavecal, with ESO's names and defaults."""

    sigma: float = parameter(
        1.0,
        "Lines stand out from the median signal-to-noise of a slice by so many of its mean absolute deviations.",
        least=0.0,
    )
    dres: float = parameter(
        0.05, "Fraction by which the dispersion may differ from the nominal one.", least=0.0, most=0.5
    )
    tolerance: float = parameter(
        0.1, "A line is recognised that lies within so many nominal line widths of its place.", least=0.001, most=1.0
    )
    xorder: int = parameter(2, "Order of the polynomial along a slice.", least=0, most=9)
    yorder: int = parameter(6, "Order of the polynomial along the dispersion.", least=1, most=9)
    linesigma: float = parameter(
        -1.0, "Places of a line beyond so many sigma of its polynomial along a slice are left out; negative: 2.5."
    )
    residuals: bool = parameter(False, "Make a table of the residuals of all lines.")  # noqa: FBT003 - a default
    fitsigma: float = parameter(
        -1.0, "Places beyond so many sigma of the polynomial of a slice are left out; negative: 3."
    )
    fitweighting: str = parameter(
        "cerrscatter",
        "Errors that weight the places: 'cerr' of each place, 'scatter' of its line along the slice, or both.",
        choices=tuple(Weighting),
    )
    saveimages: bool = parameter(
        False,  # noqa: FBT003 - a default
        "Make the combined image of each lamp. Not implemented.",
        choices=(False,),
    )


def reduce(channel: Channel, params: WavecalParams) -> Result:
    """Calibrate the wavelengths of one channel.

    Parameters
    ----------
    channel : Channel
        Raw frames ARC of each arc lamp; image MASTER_BIAS, tables TRACE_TABLE and LINE_CATALOG; images MASTER_DARK and
        MASTER_FLAT and table BADPIX_TABLE if there are any.
    params : WavecalParams

    Returns
    -------
    Result
        WAVECAL_TABLE, and WAVECAL_RESIDUALS if asked for.

    Raises
    ------
    RecipeError
        If a lamp is missing, off, saturated or another one, or the lines of a slice cannot be recognised.
    """
    rows = channel.detector.shape[0]
    catalog = read_line_catalog(channel.tables["LINE_CATALOG"])
    traces = read_traces(channel.tables["TRACE_TABLE"].table)
    arcs = combine_arcs(channel, "ARC", params)
    mode = channel.stacks["ARC"].exposures[0].mode
    spectra = [middle_spectra(arc, traces) for arc in arcs]
    found = [find_lines(arc, spectrum, params.sigma) for arc, spectrum in zip(arcs, spectra, strict=True)]
    saturated = check_saturation(arcs, spectra, found)
    peaks = [{arc.lamp: of_slice[k] for arc, of_slice in zip(arcs, found, strict=True)} for k in range(len(traces))]
    identified = identify_slices(arcs, peaks, catalog, params)
    lines = [_joined(of_slice, shown) for of_slice, shown in zip(peaks, identified, strict=True)]
    places = follow_lines(arcs, traces, catalog, lines, params.yorder)
    measured = measure_lines(arcs, traces, catalog, places, mode)
    settings = FitSettings(
        x_order=params.xorder,
        y_order=params.yorder,
        line_limit=params.linesigma if params.linesigma >= 0 else _LINE_LIMIT,
        fit_limit=params.fitsigma if params.fitsigma >= 0 else _FIT_LIMIT,
        weighting=Weighting(params.fitweighting),
    )
    fits = fit_slices(measured, catalog.wavelength[measured.index], rows, settings)
    measurements = [
        measurement
        for k, trace in enumerate(traces)
        for measurement in (
            *lines_quality(k, peaks[k], identified[k]),
            *widths_quality(k, measured, catalog, fits[k]),
            *fit_quality(k, fits[k], trace, rows),
        )
    ]
    measurements += [
        Measurement(
            f"WAVECAL NSATURATED LAMP{NUMBERS[arc.lamp]}",
            arc.saturated,
            f"Number of saturated pixels in output data of lamp {NUMBERS[arc.lamp]}",
        )
        for arc in arcs
    ]
    overscans = overscans_in_order(arcs)
    measurements += measure_inputs(overscans)
    keywords = overscans[0].keywords()
    products = [
        Product(
            catg="WAVECAL_TABLE",
            content=dispersion_table([fit.dispersion for fit in fits]),
            measurements=tuple(measurements),
            keywords=keywords,
        )
    ]
    if params.residuals:
        products.append(Product(catg="WAVECAL_RESIDUALS", content=residual_table(fits), keywords=keywords))
    exposures = channel.stacks["ARC"].exposures
    warnings = (*saturated, *saturation_warnings(overscans, exposures, channel.detector), *_steep(fits, traces, rows))
    return Result(tuple(products), warnings)


def check_saturation(
    arcs: Sequence[Arc], spectra: Sequence[Float32], found: Sequence[Sequence[Peaks]]
) -> tuple[str, ...]:
    """Make sure that most lines are not saturated; return a sentence for each lamp of which some are.

    A saturated line is one of which no column in the middle of a slice has a value.

    Raises
    ------
    RecipeError
        If more than a quarter of the lines of a lamp are saturated in a typical slice.
    """
    told = []
    for arc, spectrum, peaks in zip(arcs, spectra, found, strict=True):
        lost = np.isnan(spectrum)
        runs = int(np.median(np.count_nonzero(lost[:, 1:] & ~lost[:, :-1], axis=1)))
        seen = int(np.median([len(shown.place) for shown in peaks]))
        text = f"Of {runs + seen} lines of {arc.lamp} in a typical slice {runs} are saturated in all of its frames"
        if runs > _SATURATED_PART * (runs + seen):
            raise RecipeError(
                f"{text} ({', '.join(arc.names)}), and at most {_SATURATED_PART:.0%} may be; expose"
                " for a shorter time.",
                saturated=runs,
                lines=runs + seen,
            )
        if runs:
            told.append(f"{text}; they are not used.")
    return tuple(told)


def identify_slices(
    arcs: Sequence[Arc], peaks: Sequence[Mapping[Lamp, Peaks]], catalog: LineCatalog, params: WavecalParams
) -> list[Identification]:
    """Recognise the lines of every slice, one from scratch and the others by its pattern.

    Raises
    ------
    RecipeError
    """
    identifier = Identifier(
        catalog=catalog,
        rows=len(arcs[0].data),
        spread=params.dres,
        tolerance=params.tolerance * _RESOLUTION,
        order=params.yorder,
    )
    names = {arc.lamp: arc.names for arc in arcs}
    outwards = sorted(range(len(peaks)), key=lambda number: abs(number - len(peaks) // 2))
    first = _first_identified(identifier, [peaks[number] for number in outwards], names)
    found = []
    for number, shown in enumerate(peaks, start=1):
        choices = [identifier.identify_next(shown, first)]
        if identifier.part(shown, choices[0]) < _LEAST_IDENTIFIED:
            choices.append(identifier.identify_first(shown, names))
        best = max(choices, key=lambda choice: identifier.part(shown, choice))
        used = sum(int(np.count_nonzero(lines >= 0)) for lines in best.lines.values())
        part = identifier.part(shown, best)
        if part < _LEAST_IDENTIFIED or used < params.yorder + 2:
            raise RecipeError(
                f"In slice {number} {used} of {sum(len(one.place) for one in shown.values())} lines were recognised,"
                f" {part:.0%} of the brightest, and {_LEAST_IDENTIFIED:.0%} of them and {params.yorder + 2} lines are"
                " needed; is the LINE_CATALOG that of these lamps, and the TRACE_TABLE of this channel?",
                slice=number,
                identified=used,
                part=part,
            )
        found.append(best)
    return found


def _first_identified(
    identifier: Identifier, peaks: Sequence[Mapping[Lamp, Peaks]], names: Mapping[Lamp, Sequence[str]]
) -> Identification:
    """Return the lines of the first slice in which they are recognised; the error of the first one if in none."""
    trouble: RecipeError | None = None
    for shown in peaks:
        try:
            found = identifier.identify_first(shown, names)
        except RecipeError as error:
            trouble = trouble or error
            continue
        if identifier.part(shown, found) >= _LEAST_IDENTIFIED:
            return found
    if trouble:
        raise trouble
    raise RecipeError(
        "The lines of no slice fit the LINE_CATALOG with a dispersion of"
        f" {DISPERSION} Angstrom a pixel to within {identifier.spread:.0%}; is it that of these lamps?",
        spread=identifier.spread,
    )


def _joined(peaks: Mapping[Lamp, Peaks], found: Identification) -> Identified:
    index = np.concatenate([found.lines[lamp] for lamp in peaks])
    place = np.concatenate([shown.place for shown in peaks.values()])
    return Identified(index[index >= 0], place[index >= 0])


def _steep(fits: Sequence[SliceFit], traces: Sequence[Trace], rows: int) -> list[str]:
    """Return a sentence for each slice whose lines are tilted more than those of any real one."""
    told = []
    for number, (fit, trace) in enumerate(zip(fits, traces, strict=True), start=1):
        for where, difference, limit in zip(
            ("bottom", "top"), differences(fit.dispersion, trace, rows), _STEEPEST, strict=True
        ):
            if abs(difference) > limit:
                told.append(
                    f"At the {where} of slice {number} the wavelengths of both edges differ by {difference:.2f}"
                    f" Angstrom; {limit} is the most that is usual."
                )
    return told


RECIPE = Recipe(
    name="muse_wavecal",
    version="1",
    raw=("ARC",),
    minimum=9,  # as ESO's workflow has it: three of each lamp
    needed=("MASTER_BIAS", "TRACE_TABLE", "LINE_CATALOG"),
    optional=("MASTER_DARK", "MASTER_FLAT", "BADPIX_TABLE"),
    makes=("WAVECAL_TABLE",),
    params=WavecalParams,
    reduce=reduce,
)
