"""A small channel that has every calibration a frame of the sky needs, made from the truth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from arrays import ArrayImage, ArrayStack, as_calibration, simulated_stack
from numpy.polynomial import Polynomial
from numpy.typing import NDArray

from recipes import bias
from recipes.dispersion import Dispersion, dispersion_table
from recipes.muse import Detector
from recipes.recipe import Channel, Column, Extensions, Image, Plane, Product, RecipeError, Table, TableSource, Value
from recipes.simulator.chip import Chip, draw_chip
from recipes.simulator.field import slice_places
from recipes.simulator.optics import coefficients, draw_slices
from recipes.simulator.scenes import Continuum, render
from recipes.trace import Trace, trace_table

DETECTOR = Detector(nx=180, ny=300, margin=32)  # four slices, 6650 to 7400 Angstrom
SEED = 3
MODE = "WFM-NOAO-N"


@dataclass(frozen=True)
class ArraySource:
    """A file of several extensions as it would be read."""

    content: Extensions
    keywords: Mapping[str, Value] = field(default_factory=dict)
    measurements: Mapping[str, int | float | str] = field(default_factory=dict)

    @classmethod
    def of(cls, product: Product) -> "ArraySource":
        assert isinstance(product.content, Extensions)
        return cls(
            product.content,
            {keyword.name: keyword.value for keyword in product.keywords},
            {measurement.name: measurement.value for measurement in product.measurements},
        )

    @property
    def tables(self) -> tuple[TableSource, ...]:
        return tuple(TableSource(unit) for unit in self.content.units if isinstance(unit, Table))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(unit.name for unit in self.content.units if isinstance(unit, Plane))

    def plane(self, name: str) -> Plane:
        for unit in self.content.units:
            if isinstance(unit, Plane) and unit.name == name:
                return unit
        raise RecipeError(f"There is no image {name!r}.")


@lru_cache(maxsize=4)
def chip_of(number: int) -> Chip:
    return draw_chip(SEED, number, DETECTOR)


@lru_cache(maxsize=4)
def lamp(number: int) -> NDArray[np.float32]:
    """Light of the flat-field lamp on the detector, electrons a second."""
    return render(Continuum(MODE), SEED, number, DETECTOR).copy()


@lru_cache(maxsize=4)
def master_bias(number: int) -> ArrayImage:
    channel = Channel(number=number, stacks={"BIAS": simulated_stack(chip_of(number), 11, seed=2)}, detector=DETECTOR)
    return as_calibration(bias.reduce(channel, bias.BiasParams()).products[0])


@lru_cache(maxsize=4)
def master_flat(number: int) -> ArrayImage:
    """The lamp without noise, with the mean 1."""
    light = lamp(number) / lamp(number).mean()
    zero = np.zeros(light.shape, np.float32)
    image = Image(data=light, dq=zero.astype(np.uint16), stat=zero, unit="count")
    return ArrayImage(image, {"FLAT MASTER INTFLUX": 1e9})


def tables(number: int) -> dict[str, TableSource]:
    """Trace, wavelengths and geometry, as they are."""
    slices = draw_slices(SEED, number, DETECTOR)
    traces = [
        Trace(
            (Polynomial(coefficients(s.centre)), Polynomial(coefficients(s.left)), Polynomial(coefficients(s.right))),
            (0.0, 0.0, 0.0),
            float((s.right - s.left)(300)),
        )
        for s in slices
    ]
    return {
        "TRACE_TABLE": TableSource(trace_table(traces)),
        "WAVECAL_TABLE": TableSource(dispersion_table([Dispersion(s.wavelength_coefficients()) for s in slices])),
        "GEOMETRY_TABLE": TableSource(geometry(number)),
    }


def geometry(*numbers: int) -> Table:
    """GEOMETRY_TABLE of some channels."""
    rows = [(n, k, p) for n in numbers for k, p in enumerate(slice_places(n), 1)]
    columns: dict[str, NDArray[Any]] = {
        "SubField": np.array([n for n, _, _ in rows], np.int32),
        "SliceCCD": np.array([k for _, k, _ in rows], np.int32),
        **{name: np.array([getattr(p, name) for _, _, p in rows]) for name in ("x", "y", "angle", "width")},
    }
    return Table(columns=tuple(Column(name=name, values=values) for name, values in columns.items()))


def sky_channel(number: int, stacks: Mapping[str, ArrayStack], **files: ArraySource) -> Channel:
    """A channel with raw frames, master bias and flat, and tables."""
    return Channel(
        number=number,
        stacks=stacks,
        images={"MASTER_BIAS": master_bias(number), "MASTER_FLAT": master_flat(number)},
        tables=tables(number),
        files=files,
        detector=DETECTOR,
    )
