"""Pixel tables of a star in two channels, made from its profile and spectrum: what muse_standard joins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sky_channel import ArraySource

from recipes.recipe import (
    Column,
    Exposure,
    Extensions,
    Instrument,
    Plane,
    PlaneKind,
    Pointing,
    Source,
    Table,
    TableSource,
    Value,
)
from recipes.refraction import displacement
from recipes.stats import Real

MODE = "WFM-NOAO-N"
POINTING = Pointing(
    ra=350.0,
    dec=-5.0,
    airmass=(1.30, 1.32),
    parallactic_angle=(-150.0, -152.0),
    position_angle=0.0,
    rotator_mode="SKY",
    temperature=11.75,
    pressure=746.9,
    humidity=12.5,
)
EXPTIME, STEP = 120.0, 1.25
LOW, HIGH = 6950.0, 7450.0  # Angstrom, of the pixels
EXTINCTION = 0.08  # mag an airmass
STAR = (3.3, -11.4)  # field pix; between the channels 11 and 12
ALPHA, BETA = 3.6, 2.5  # of its Moffat profile
SKY = 20.0  # electrons a pixel
LAMP = (0.9, 0.4)  # lamp spectrum at 7000 Angstrom, and its slope over 1000 Angstrom


def response(wavelength: Real) -> Real:
    """Of the instrument, mag."""
    return 40.9 - 0.25 * (wavelength - 7000) / 1000


def flux(wavelength: Real) -> Real:
    """Of the star above the atmosphere, erg/s/cm**2/Angstrom."""
    return 4e-14 * (wavelength / 7000) ** -3


def transmission(wavelength: Real) -> Real:
    """Of the telluric band at 7164 to 7325 Angstrom, at airmass 1."""
    return 1 - 0.3 * np.exp(-(((wavelength - 7240) / 15) ** 2))


def lamp(wavelength: Real) -> Real:
    return LAMP[0] + LAMP[1] * (wavelength - 7000) / 1000


def electrons(wavelength: Real, airmass: float = 1.31) -> Real:
    """Of the star, in a plane of 1.25 Angstrom."""
    through = transmission(wavelength) ** airmass * 10 ** (-0.4 * airmass * EXTINCTION)
    return 10 ** (0.4 * response(wavelength)) * flux(wavelength) * EXPTIME * STEP * through


def profile(x: Real, y: Real) -> Real:
    """Light of the star in a pixel at a distance from its centre."""
    return (BETA - 1) / (np.pi * ALPHA**2) * (1 + (x**2 + y**2) / ALPHA**2) ** -BETA


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file whose tables have headers of their own."""

    tables: tuple[TableSource, ...] = ()
    keywords: Mapping[str, Value] = field(default_factory=dict)
    measurements: Mapping[str, int | float | str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def plane(self, name: str) -> Plane:
        raise KeyError(name)


def star_table(
    channel: int,
    *,
    scale: float = 1.0,
    spectrum: bool = True,
    noise: bool = True,
    low: float = LOW,
    high: float = HIGH,
    airmass: float = 1.31,
    star: tuple[float, float] = STAR,
    pointing: Pointing = POINTING,
) -> ArraySource:
    """Return the pixel table of one stack of twelve slices; the data are ``scale`` times too bright."""
    rng = np.random.default_rng(channel)
    rows, columns = round((high - low) / STEP), 62
    y0 = 12.0 * (channel - 12) - 11 + np.arange(12)
    slices, row, column = (index.reshape(-1) for index in np.indices((12, rows, columns)))
    x = (column - 30.5) * 0.98 + 0.02 * slices + STAR[0]
    wavelength = low + STEP * (row + 0.3 * rng.random(12)[slices]) + 0.05 * (column - 31)
    right, up = displacement(wavelength, pointing, 7000.0)
    light = electrons(wavelength, airmass) * profile(x + right - star[0], y0[slices] + up - star[1]) + SKY
    seen = rng.poisson(light) if noise else light
    factor = scale / lamp(wavelength) if spectrum else np.full(len(light), scale)
    origin = (column << 24) | ((row + 1) << 11) | (channel << 6) | (slices + 25)
    planes: dict[str, NDArray[np.generic]] = {
        "xpos": x.astype(np.float32),
        "ypos": y0[slices].astype(np.float32),
        "lambda": wavelength.astype(np.float32),
        "data": (seen * factor).astype(np.float32),
        "dq": np.zeros(len(x), np.int32),
        "stat": (np.maximum(light, 1) * factor**2).astype(np.float32),
        "origin": origin.astype(np.int32),
    }
    units: list[Plane | Table] = [
        Plane(name=name, values=values[:, None], kind=PlaneKind.PLAIN) for name, values in planes.items()
    ]
    if spectrum:
        grid = np.arange(low - 10, high + 10, STEP)
        units.append(
            Table(
                columns=(
                    Column(name="lambda", values=grid, unit="Angstrom"),
                    Column(name="data", values=lamp(grid), unit="count"),
                ),
                name="PIXTABLE_FLAT_FIELD",
            )
        )
    cards: dict[str, Value] = {
        "ESO DRS MUSE FLAT FLUX SKY": scale * 3e11,
        "ESO DRS MUSE FLAT FLUX LAMP": 4e11,
        "ESO OBS TARG NAME": "Test star",
    }
    return ArraySource(Extensions(tuple(units)), cards)


def without(source: ArraySource, *keywords: str) -> ArraySource:
    """Return a file that lacks some cards."""
    return replace(source, keywords={key: value for key, value in source.keywords.items() if key not in keywords})


def extinction() -> TableSource:
    grid = np.array([3000.0, 11000.0])
    return TableSource(
        Table(
            columns=(
                Column(name="lambda", values=grid, unit="Angstrom"),
                Column(name="extinction", values=np.full(2, EXTINCTION), unit="mag/airmass"),
            )
        )
    )


def catalogue(ra: float = 350.0, dec: float = -5.0, *, name: str = "TEST", columns: Sequence[Column] = ()) -> Named:
    """STD_FLUX_TABLE of two stars, the wanted one second."""
    grid = np.arange(4000.0, 10000.0, 2.0)
    unit = "erg/s/cm**2/Angstrom"
    known = tuple(columns) or (
        Column(name="lambda", values=grid, unit="Angstrom"),
        Column(name="flux", values=flux(grid), unit=unit),
        Column(name="fluxerr", values=0.005 * flux(grid), unit=unit),
    )
    other = tuple(replace(column, values=column.values * 2) for column in known)
    return Named(
        tables=(
            TableSource(Table(columns=other), {"RA": ra + 10, "DEC": dec, "EXTNAME": "OTHER"}),
            TableSource(Table(columns=known), {"RA": ra, "DEC": dec, "EXTNAME": name}),
        )
    )


def filters() -> Named:
    """FILTER_LIST with the three filters whose zero points are QC1 parameters."""
    tables = []
    for name, middle in (("JOHNSON_V", 5450.0), ("COUSINS_R", 7150.0), ("COUSINS_I", 7250.0)):
        grid = np.linspace(middle - 100, middle + 100, 41)
        bell = np.exp(-(((grid - middle) / 50) ** 2))
        columns = (Column(name="lambda", values=grid, unit="Angstrom"), Column(name="throughput", values=bell))
        tables.append(TableSource(Table(columns=columns), {"EXTNAME": name, "ZP_VEGA": 1.5}))
    return Named(tables=tuple(tables))


def instrument(
    *exposures: Mapping[int, ArraySource], pointings: Sequence[Pointing] = (), **files: Source
) -> Instrument:
    """What ``combine`` is given for pixel tables of some exposures by channel."""
    channels: dict[int, dict[str, Source]] = {}
    for number, tables in enumerate(exposures, start=1):
        for channel, source in tables.items():
            channels.setdefault(channel, {})[f"PIXTABLE_STD_{number:04d}"] = source
    where = list(pointings) or [POINTING] * len(exposures)
    return Instrument(
        channels=channels,
        exposures={
            "STD": [
                Exposure(name=f"star {n}", exptime=EXPTIME, gains=(1.0,) * 4, mode=MODE, pointing=pointing)
                for n, pointing in enumerate(where, start=1)
            ]
        },
        tables={"EXTINCT_TABLE": extinction()},
        files={"STD_FLUX_TABLE": catalogue(), **files},
    )
