"""Derive the thresholds that come with the package from QC values of real products, and write their file.

    python tests/derive_thresholds.py > tasks/thresholds.toml

docs/scoring.md tells the same in words.
"""

import csv
import gzip
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from tasks.score import Measured

DATA = Path(__file__).parent / "data" / "real_qc"
EDITION = "2026-11-24"
VALID_FROM = date(2014, 1, 31)  # first light of MUSE
_SIGMA_OF_MAD = 1.4826
_CHANNEL = re.compile(r"CHAN(\d+)")


@dataclass(frozen=True)
class RealProduct:
    """What was measured on one real product."""

    category: str
    night: date
    mode: str
    values: tuple[Measured, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the limits of one parameter follow from its real values.

    The limits lie beyond the least and the greatest real value by a margin: ``sigmas`` of the spread of the values or
    ``floor``, whichever is more; ``floor`` is in the unit of the parameter, or with ``fraction`` in the median. Of
    levels of light, which are as bright as somebody chose, they lie a ``factor`` (yellow, red) beyond. ``red`` is the
    margin of the red limits in units of the yellow one.
    """

    category: str
    parameter: str
    low: bool = True
    high: bool = True
    floor: float = 0.0
    fraction: float = 0.0
    factor: tuple[float, float] | None = None
    sigmas: float = 4.0
    red: float = 3.0
    by_channel: bool = False


def both(category: str, parameter: str, **how: object) -> Rule:
    return Rule(category=category, parameter=parameter, **how)  # type: ignore[arg-type]  # checked by the dataclass


def least(category: str, parameter: str, **how: object) -> Rule:
    return Rule(category=category, parameter=parameter, high=False, **how)  # type: ignore[arg-type]


def most(category: str, parameter: str, **how: object) -> Rule:
    return Rule(category=category, parameter=parameter, low=False, **how)  # type: ignore[arg-type]


COLUMN = 4112  # pixels; a bad column
RULES = (
    both("MASTER_BIAS", "BIAS LEVELn MEDIAN", floor=50, red=4),
    both("MASTER_BIAS", "BIAS MASTERn RON", fraction=0.3, by_channel=True),
    both("MASTER_BIAS", "BIAS MASTERn MEDIAN", floor=1),
    both("MASTER_BIAS", "BIAS MASTERn SLOPE X", floor=0.001, red=30),
    both("MASTER_BIAS", "BIAS MASTERn SLOPE Y", floor=0.001, red=30),
    most("MASTER_BIAS", "BIAS MASTER NBADPIX", floor=3 * COLUMN),
    most("MASTER_BIAS", "BIAS MASTER NSATURATED", floor=100, red=100),
    most("MASTER_BIAS", "BIAS INPUTn NSATURATED", floor=200, red=100),
    both("MASTER_FLAT", "FLAT MASTER MEDIAN", factor=(1.5, 2)),
    both("MASTER_FLAT", "FLAT MASTER INTFLUX", factor=(1.5, 2)),
    both("MASTER_FLAT", "FLAT MASTER SLICEn MEAN", factor=(2, 4)),
    most("MASTER_FLAT", "FLAT MASTER NSATURATED", floor=100, red=100),
    both("MASTER_FLAT", "FLAT INPUTn MEDIAN", factor=(1.5, 2)),
    most("MASTER_FLAT", "FLAT INPUTn NSATURATED", floor=1000, red=100),
    both("TRACE_TABLE", "TRACE WIDTHS MEAN", floor=1),
    both("TRACE_TABLE", "TRACE WIDTHS MIN", floor=2),
    both("TRACE_TABLE", "TRACE WIDTHS MAX", floor=2),
    most("TRACE_TABLE", "TRACE WIDTHS STDEV", floor=0.5),
    both("TRACE_TABLE", "TRACE SLICEn WIDTH", sigmas=0, floor=2),
    both("TRACE_TABLE", "TRACE GAPS MEAN", floor=1),
    least("TRACE_TABLE", "TRACE GAPS MIN", floor=2, red=2),
    most("TRACE_TABLE", "TRACE GAPS MAX", floor=3),
    both("TRACE_TABLE", "TRACE SLICEn MAXSLOPE", sigmas=0, floor=0.01),
    both("TRACE_TABLE", "TRACE SLICE_L XPOS", sigmas=0, floor=25, red=2),
    both("TRACE_TABLE", "TRACE SLICE_R XPOS", sigmas=0, floor=25, red=2),
    both("TRACE_TABLE", "TRACE SLICE_L TILT", floor=0.05),
    both("TRACE_TABLE", "TRACE SLICE_R TILT", floor=0.05),
    least("WAVECAL_TABLE", "WAVECAL SLICEn LINES NDET", fraction=0.15),
    least("WAVECAL_TABLE", "WAVECAL SLICEn LINES NID", fraction=0.15),
    least("WAVECAL_TABLE", "WAVECAL SLICEn FIT NLINES", fraction=0.2, red=2),
    most("WAVECAL_TABLE", "WAVECAL SLICEn FIT RMS", fraction=0.3, red=4, by_channel=True),
    least("WAVECAL_TABLE", "WAVECAL SLICEn RESOL", sigmas=2, fraction=0.1),
    most("WAVECAL_TABLE", "WAVECAL SLICEn LINES FWHM MEAN", sigmas=2, fraction=0.2),
    least("WAVECAL_TABLE", "WAVECAL SLICEn LINES PEAK MEAN", factor=(2, 5)),
    least("WAVECAL_TABLE", "WAVECAL SLICEn LAMPn LINES PEAK MEAN", factor=(2, 5)),
    both("WAVECAL_TABLE", "WAVECAL SLICEn WLEN", sigmas=0, floor=15),
    both("WAVECAL_TABLE", "WAVECAL SLICEn DWLEN BOTTOM", sigmas=0, floor=5),
    both("WAVECAL_TABLE", "WAVECAL SLICEn DWLEN TOP", sigmas=0, floor=5),
    most("WAVECAL_TABLE", "WAVECAL NSATURATED LAMPn", floor=1000, red=10),
    most("LSF_PROFILE", "LSF SLICEn FWHM MEAN", sigmas=2, fraction=0.2),
    both("DATACUBE_SKYFLAT", "TWILIGHTn MASTER MEDIAN", factor=(2, 3)),
    both("DATACUBE_SKYFLAT", "TWILIGHTn INTFLUX", factor=(2, 3)),
    most("DATACUBE_SKYFLAT", "TWILIGHTn INPUTn NSATURATED", floor=1000, red=100),
    both("STD_RESPONSE", "STANDARD THRU5000", factor=(1.5, 3)),
    both("STD_RESPONSE", "STANDARD THRU7000", factor=(1.5, 3)),
    both("STD_RESPONSE", "STANDARD THRU8000", factor=(1.5, 3)),
    both("STD_RESPONSE", "STANDARD THRU9000", factor=(1.5, 3)),
)
# What no real value is at hand for, and what compares products with each other: our own choice, see docs/scoring.md.
CHOSEN = """\
[[threshold]]
category = "MASTER_DARK"
parameter = "DARK MASTER MEDIAN"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [-1, 5], red = [-5, 20] }}]

[[threshold]]
category = "MASTER_DARK"
parameter = "DARK MASTER DC"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [-1, 5], red = [-5, 20] }}]

[[threshold]]
category = "MASTER_DARK"
parameter = "DARK MASTER NBADPIX"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [-inf, 50000], red = [-inf, 500000] }}]

[[threshold]]
category = "MASTER_DARK"
parameter = "DARK MASTER MEDIAN"
kind = "relative"
deviation = "absolute"
days = 183
least = 3
valid_from = {day}
limits = [{{ yellow = [-1, 1], red = [-4, 4] }}]

[[threshold]]
category = "MASTER_BIAS"
parameter = "BIAS LEVELn MEDIAN"
kind = "relative"
deviation = "absolute"
days = 30
least = 5
valid_from = {day}
limits = [{{ yellow = [-10, 10], red = [-50, 50] }}]

[[threshold]]
category = "MASTER_FLAT"
parameter = "FLAT MASTER INTFLUX"
kind = "relative"
deviation = "fraction"
days = 30
least = 5
valid_from = {day}
limits = [{{ yellow = [-0.1, 0.1], red = [-0.4, 0.4] }}]

[[threshold]]
category = "MASTER_BIAS"
kind = "previous"
sigma = 5
valid_from = {day}
limits = [{{ yellow = [0, 0.02], red = [0, 0.3] }}]

[[threshold]]
category = "MASTER_DARK"
kind = "previous"
sigma = 5
valid_from = {day}
limits = [{{ yellow = [0, 0.02], red = [0, 0.3] }}]

[[threshold]]
category = "MASTER_FLAT"
kind = "previous"
sigma = 10
valid_from = {day}
limits = [{{ yellow = [0, 0.5], red = [0, 0.95] }}]

[[threshold]]
category = "DATACUBE_STD"
parameter = "STANDARD NDET"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [1, inf], red = [1, inf] }}]

[[threshold]]
category = "GEOMETRY_TABLE"
parameter = "GEO TABLE NBAD"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [-inf, 40], red = [-inf, 400] }}]

[[threshold]]
category = "GEOMETRY_TABLE"
parameter = "GEO MASK ANGLE"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [-1, 1], red = [-3, 3] }}]

[[threshold]]
category = "ASTROMETRY_WCS"
parameter = "ASTRO NSTARS"
kind = "fixed"
valid_from = {day}
limits = [{{ yellow = [20, inf], red = [5, inf] }}]

[[threshold]]
category = "ASTROMETRY_WCS"
parameter = "ASTRO SCALE X"
kind = "fixed"
valid_from = {day}
setup = {{ optics = ["WFM"] }}
limits = [{{ yellow = [0.198, 0.202], red = [0.19, 0.21] }}]

[[threshold]]
category = "ASTROMETRY_WCS"
parameter = "ASTRO SCALE Y"
kind = "fixed"
valid_from = {day}
setup = {{ optics = ["WFM"] }}
limits = [{{ yellow = [0.198, 0.202], red = [0.19, 0.21] }}]

[[threshold]]
category = "ASTROMETRY_WCS"
parameter = "ASTRO MEDRES X"
kind = "fixed"
valid_from = {day}
setup = {{ optics = ["WFM"] }}
limits = [{{ yellow = [-inf, 0.05], red = [-inf, 0.2] }}]

[[threshold]]
category = "ASTROMETRY_WCS"
parameter = "ASTRO MEDRES Y"
kind = "fixed"
valid_from = {day}
setup = {{ optics = ["WFM"] }}
limits = [{{ yellow = [-inf, 0.05], red = [-inf, 0.2] }}]
"""
HEAD = f"""\
# Thresholds of QC1 parameters. What each key means, and how these figures were derived, stands in docs/scoring.md.
# tests/derive_thresholds.py wrote this file. Do not change a figure: let it end by valid_to, and add a new one.

edition = "{EDITION}"

# Products without parameters of their own are scored by those of another product of their step.
[measured_on]
TWILIGHT_CUBE = "DATACUBE_SKYFLAT"
STD_TELLURIC = "STD_RESPONSE"
STD_FLUXES = "STD_RESPONSE"
"""


def real_products(folder: Path = DATA) -> Iterator[RealProduct]:
    """Yield the real products; channel 0 is the instrument as a whole."""
    for path in sorted(folder.glob("*.csv.gz")):
        by_product: dict[tuple[str, str], list[Measured]] = {}
        with gzip.open(path, "rt", newline="") as file:
            for row in csv.DictReader(file):
                of_channel = _CHANNEL.fullmatch(row.pop("hdu"))
                key = row.pop("time"), row.pop("mode")
                by_product.setdefault(key, []).extend(
                    Measured(int(of_channel[1]) if of_channel else 0, name, float(value))
                    for name, value in row.items()
                    if value
                )
        for (time, mode), values in by_product.items():
            yield RealProduct(path.name.split(".")[0].upper(), date.fromisoformat(time[:10]), mode, tuple(values))


def limits_of(rule: Rule, values: Iterable[float]) -> str:
    """Return the limits of one channel, or of all, as TOML."""
    real = sorted(values)
    low, middle, high = real[0], median(real), real[-1]
    if rule.factor:
        below, above = [[low / by for by in rule.factor], [high * by for by in rule.factor]]
    else:
        spread = _SIGMA_OF_MAD * median(abs(value - middle) for value in real)
        margin = max(rule.sigmas * spread, rule.floor, rule.fraction * abs(middle))
        below, above = [[low - margin * by for by in (1, rule.red)], [high + margin * by for by in (1, rule.red)]]
    ranges = [
        (below[number] if rule.low else -math.inf, above[number] if rule.high else math.inf) for number in range(2)
    ]
    return ", ".join(
        f"{name} = [{_figure(a)}, {_figure(b)}]" for name, (a, b) in zip(("yellow", "red"), ranges, strict=True)
    )


def derive(rule: Rule, products: Iterable[RealProduct]) -> str:
    """Return one threshold as TOML."""
    pattern = re.compile(re.sub(r"(?<=[A-Z])n\b", r"\\d+", rule.parameter))
    by_channel: dict[int, list[float]] = {}
    for product in products:
        for item in product.values if product.category == rule.category else ():
            if isinstance(item.value, float) and pattern.fullmatch(item.name):
                by_channel.setdefault(item.channel, []).append(item.value)
    lines = (
        [f"    {{ channels = [{number}], {limits_of(rule, by_channel[number])} }}," for number in sorted(by_channel)]
        if rule.by_channel
        else []
    )
    everything = [value for values in by_channel.values() for value in values]
    limits = ["[", *lines, "]"] if lines else [f"[{{ {limits_of(rule, everything)} }}]"]
    return "\n".join(
        [
            "[[threshold]]",
            f'category = "{rule.category}"',
            f'parameter = "{rule.parameter}"',
            'kind = "fixed"',
            f"valid_from = {VALID_FROM}",
            f"limits = {limits[0]}",
            *limits[1:],
            "",
        ]
    )


def _figure(value: float) -> str:
    """Return a number to three digits, of those from a thousand on whole ones."""
    if math.isinf(value):
        return f"{value:g}"
    if abs(value) >= 1e6:
        return f"{value:.2e}"
    return f"{value:.0f}" if value.is_integer() or abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"


def thresholds_file(products: Iterable[RealProduct]) -> str:
    """Return the file."""
    real = list(products)
    return "\n".join([HEAD, *(derive(rule, real) for rule in RULES), CHOSEN.format(day=VALID_FROM)])


if __name__ == "__main__":
    sys.stdout.write(thresholds_file(real_products()))
