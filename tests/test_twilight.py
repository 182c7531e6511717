"""muse_twilight on small detectors: the cube of the sky, and the smooth one that data are divided by."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from arrays import ArrayStack, simulated_stack
from numpy.typing import NDArray
from sky_channel import DETECTOR, MODE, SEED, ArraySource, chip_of, lamp, sky_channel

from recipes.illumination import TwilightCube
from recipes.recipe import (
    Channel,
    Extensions,
    Instrument,
    Measurement,
    ParameterError,
    Plane,
    PlaneKind,
    Product,
    RecipeError,
    Result,
    Stack,
)
from recipes.simulator.celestial import twilight_field
from recipes.simulator.field import slice_places
from recipes.simulator.optics import draw_slices
from recipes.stats import Real
from recipes.twilight import RECIPE, SUMS, TwilightParams, join, reduce

CHANNELS = (11, 12)
PARAMS = TwilightParams(lambdamin=6750.0, lambdamax=7250.0, dlambda=125.0)
MJD = 61000.0


@lru_cache(maxsize=4)
def sky(number: int) -> NDArray[np.float32]:
    """The twilight sky with the colour of the lamp, so that the lamp flat leaves nothing but its gradient."""
    y = np.arange(1, DETECTOR.shape[0] + 1.0)[:, None]
    x = np.arange(1, DETECTOR.shape[1] + 1.0)[None, :]
    light = lamp(number).copy()
    slices = draw_slices(SEED, number, DETECTOR)
    bounds = [0, *(round((a.right(300) + b.left(300)) / 2) for a, b in pairwise(slices)), x.size]
    for which, first, last in zip(slices, bounds, bounds[1:], strict=False):
        place = slice_places(number)[which.number - 1]
        light[:, first:last] *= twilight_field(*place.at(which.position(x[:, first:last], y))).astype(np.float32)
    return light


def stack(number: int, levels: tuple[float, ...] = (1.0, 1.0, 1.0), seed: int = 1, mode: str = MODE) -> ArrayStack:
    frames = [
        simulated_stack(chip_of(number), 1, exptime=0.7, rate=level * sky(number), seed=seed * 100 + k)
        for k, level in enumerate(levels)
    ]
    exposures = [
        replace(f.exposures[0], name=f"frame {k}", mode=mode, mjd=MJD + k / 1000) for k, f in enumerate(frames)
    ]
    return ArrayStack(exposures, [f.frames[0] for f in frames])


def half(
    number: int, params: TwilightParams = PARAMS, levels: tuple[float, ...] = (1.0, 1.0, 1.0), seed: int = 1
) -> Product:
    (product,) = reduce(sky_channel(number, {"SKYFLAT": stack(number, levels, seed)}), params).products
    return product


@lru_cache(maxsize=4)
def usual(number: int) -> Product:
    return half(number)


def joined(
    halves: Mapping[int, Product], params: TwilightParams = PARAMS, mjd: float = MJD, **files: ArraySource
) -> Result:
    exposures = [replace(exposure, mjd=mjd) for exposure in stack(11).exposures]
    return join(
        Instrument(
            channels={number: {SUMS: ArraySource.of(product)} for number, product in halves.items()},
            exposures={"SKYFLAT": exposures},
            files=files,
            detector=DETECTOR,
        ),
        params,
    )


@pytest.fixture(scope="module")
def result() -> Result:
    return joined({number: usual(number) for number in CHANNELS})


def planes(product: Product) -> dict[str, Plane]:
    assert isinstance(product.content, Extensions)
    return {unit.name: unit for unit in product.content.units if isinstance(unit, Plane)}


def values(product: Product, name: str) -> NDArray[Any]:
    plane = planes(product)[name]
    return plane.values[0 : plane.values.shape[0]]


def cards(plane: Plane) -> dict[str, Any]:
    return {keyword.name: keyword.value for keyword in plane.keywords}


def axes(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Field x and y of the pixels."""
    found, shape = cards(plane), plane.values.shape
    return found["CRVAL1"] + np.arange(shape[-1]), found["CRVAL2"] + np.arange(shape[-2])


def on_slices(product: Product, name: str, *numbers: int) -> tuple[Real, Real]:
    """Values of a cube on the slices of some channels, without their ends, over the true sky; and that sky."""
    cube, (x, y) = values(product, name), axes(planes(product)[name])
    ratio, true = [], []
    for number in numbers:
        for which in draw_slices(SEED, number, DETECTOR):
            place = slice_places(number)[which.number - 1]
            row, inside = int(np.argmin(np.abs(y - place.y))), np.abs(x - place.x) < place.width / 2 - 2
            field = twilight_field(x[inside], np.full(inside.sum(), place.y))
            ratio.append(cube[..., row, inside] / field)
            true.append(field)
    return np.concatenate(ratio, axis=-1), np.concatenate(true)


def test_a_channel_makes_sums_for_the_second_half_alone() -> None:
    assert usual(11).catg == SUMS
    assert (RECIPE.intermediate, RECIPE.makes) == ((SUMS,), ("DATACUBE_SKYFLAT", "TWILIGHT_CUBE"))


def test_the_cube_shows_the_sky(result: Result) -> None:
    for number in CHANNELS:
        ratio, _ = on_slices(result.products[0], "DATA", number)
        ratio /= ratio.mean(axis=1, keepdims=True)
        assert ratio.std() < 0.001


def test_the_variance_of_the_cube_is_that_of_its_noise(result: Result) -> None:
    other = joined({number: half(number, seed=2) for number in CHANNELS})
    one, two = (values(r.products[0], "DATA") for r in (result, other))
    variance = values(result.products[0], "STAT") + values(other.products[0], "STAT")
    x, _ = axes(planes(result.products[0])["DATA"])
    inside = np.isfinite(one) & np.isfinite(two) & (np.abs(x + 113.85) < 35)  # a drop at the end fills little
    pull = ((one - two) / np.sqrt(variance))[inside]
    assert inside.sum() > 500
    assert pull.std() == pytest.approx(1, abs=0.1)


def test_the_smooth_cube_follows_the_gradient_within_a_channel() -> None:
    for number in CHANNELS:
        twilight = joined({number: usual(number)}).products[1]
        ratio, _ = on_slices(twilight, "DATA", number)
        # The field is four rows high; its median filter sees half of its window, 3e-4 a pixel away from the middle.
        assert (ratio / ratio.mean(axis=1, keepdims=True) - 1).std() < 1.2e-3
        smooth = values(twilight, "DATA")
        assert smooth.dtype == np.float32
        assert np.isfinite(smooth).all()


def test_channels_are_scaled_to_each_other_and_their_light_is_in_the_header(result: Result) -> None:
    for product in result.products:
        found = {keyword.name: keyword.value for keyword in product.keywords}
        assert found["ESO DRS MUSE FLAT FLUX LAMP"] == 1e9
        flux = [float(found[f"ESO DRS MUSE FLAT FLUX SKY{number}"]) for number in CHANNELS]
        throughput = [_light(number) for number in CHANNELS]
        assert flux[1] / flux[0] == pytest.approx(throughput[1] / throughput[0], rel=1e-3)
    two = on_slices(result.products[0], "DATA", 12)[0].mean(axis=1)
    alone = joined({12: usual(12)})
    other = on_slices(alone.products[0], "DATA", 12)[0].mean(axis=1)
    scale = other / two
    assert scale == pytest.approx(np.full(len(scale), flux[1] / flux[0]), rel=1e-4)


def _light(number: int) -> float:
    """Sum of sky over flat of the pixels of a channel that lie in the wavelengths."""
    y = np.arange(1, DETECTOR.shape[0] + 1.0)[:, None]
    x = np.arange(1, DETECTOR.shape[1] + 1.0)[None, :]
    total = 0.0
    for which in draw_slices(SEED, number, DETECTOR):
        wave, inside = which.wavelength(x, y), (x >= which.left(y)) & (x <= which.right(y))
        inside &= (wave >= PARAMS.lambdamin) & (wave <= PARAMS.lambdamax)
        field = twilight_field(*slice_places(number)[which.number - 1].at(which.position(x, y)))
        total += float((field * lamp(number).mean())[inside].sum())
    return total


def test_any_set_of_channels_will_do_and_the_lowest_is_the_reference() -> None:
    alone = joined({12: usual(12)})
    assert [product.catg for product in alone.products] == list(RECIPE.makes)
    names = {keyword.name for keyword in alone.products[1].keywords}
    assert names == {"ESO DRS MUSE FLAT FLUX LAMP", "ESO DRS MUSE FLAT FLUX SKY12"}


def test_extensions_are_those_of_eso(result: Result) -> None:
    skyflat, twilight = result.products
    assert [(p.name, p.unit, p.kind, len(p.values.shape)) for p in planes(skyflat).values()] == [
        ("DATA", "count", PlaneKind.DATA, 3),
        ("STAT", "(count)**2", PlaneKind.VARIANCE, 3),
        ("white", "count", PlaneKind.DATA, 2),
    ]
    assert [(p.name, p.unit, p.kind, len(p.values.shape)) for p in planes(twilight).values()] == [
        ("DATA", "count", PlaneKind.DATA, 3),
        ("white_global_fit", "count", PlaneKind.DATA, 2),
        ("white_div_global", "1", PlaneKind.DATA, 2),
        ("white_div_global_DQ", "", PlaneKind.FLAGS, 2),
    ]
    assert (planes(skyflat)["DATA"].errors, planes(skyflat)["STAT"].data) == ("STAT", "DATA")
    assert planes(twilight)["white_div_global"].flags == "white_div_global_DQ"
    assert planes(twilight)["white_div_global_DQ"].data == "white_div_global"


def test_world_coordinates_are_field_pixels_and_wavelengths(result: Result) -> None:
    for product in result.products:
        found = cards(planes(product)["DATA"])
        assert [found[f"CTYPE{axis}"] for axis in (1, 2, 3)] == ["PIXEL", "PIXEL", "AWAV"]
        assert [found[f"CUNIT{axis}"] for axis in (1, 2, 3)] == ["pixel", "pixel", "Angstrom"]
        assert [found[f"CD{axis}_{axis}"] for axis in (1, 2, 3)] == [1.0, 1.0, 125.0]
        assert [found[f"CRPIX{axis}"] for axis in (1, 2, 3)] == [1.0, 1.0, 1.0]
        assert found["CRVAL3"] == 6750.0
        assert values(product, "DATA").shape[0] == 5
    x, y = axes(planes(result.products[0])["white"])
    assert (x[0], x[-1]) == (pytest.approx(-151.6, abs=0.6), pytest.approx(-76.1, abs=0.6))
    assert (y[0], y[-1]) == (pytest.approx(-23, abs=0.6), pytest.approx(-2, abs=0.6))


def test_quality_parameters_are_those_of_eso_for_each_channel(result: Result) -> None:
    found = {m.name: m for m in result.products[0].measurements}
    statistics = ("MEDIAN", "MEAN", "STDEV", "MIN", "MAX")
    expected = [
        f"TWILIGHT{number} {name}"
        for number in CHANNELS
        for name in (
            *(f"INPUT{k} {what}" for k in (1, 2, 3) for what in (*statistics, "NSATURATED")),
            *(f"MASTER {what}" for what in (*statistics, "INTFLUX")),
            "INTFLUX",
        )
    ]
    assert sorted(found) == sorted(expected)
    assert all(type(m.value) is (int if m.name.endswith("NSATURATED") else float) for m in found.values())
    assert found["TWILIGHT12 INPUT3 MEAN"].comment == "Mean value of raw exposure 3 of IFU 12 in input list"
    assert all(m.comment for m in found.values())
    assert result.products[1].measurements == ()


def test_statistics_are_of_the_frames_over_the_flat() -> None:
    found = {m.name: m.value for m in half(11, levels=(1.0, 0.5, 0.75)).measurements}
    one, half_as_bright = (float(found[f"TWILIGHT11 INPUT{k} MEDIAN"]) for k in (1, 2))
    assert half_as_bright / one == pytest.approx(0.5, rel=0.01)
    assert found["TWILIGHT11 MASTER MEDIAN"] == pytest.approx(0.75 * one, rel=0.01)


def test_a_sky_that_fades_from_frame_to_frame_gives_the_same_cube(result: Result) -> None:
    faded = joined({number: half(number, levels=(1.3, 0.9, 0.5, 0.4)) for number in CHANNELS})
    one, two = (on_slices(r.products[0], "DATA", *CHANNELS)[0] for r in (result, faded))
    ratio = two / one
    assert (ratio / ratio.mean(axis=1, keepdims=True)).std() < 0.0012


def test_an_illum_flat_takes_out_what_differs_from_slice_to_slice() -> None:
    given = sky_channel(11, {"SKYFLAT": stack(11)})
    illum = simulated_stack(chip_of(11), 1, exptime=0.7, rate=_dimmed(lamp(11)), seed=9)
    dimmed = [_dimmed(sky(11)) for _ in range(3)]
    frames = [simulated_stack(chip_of(11), 1, exptime=0.7, rate=rate, seed=k) for k, rate in enumerate(dimmed)]
    skyflat = replace(given.stacks["SKYFLAT"], frames=[f.frames[0] for f in frames])  # type: ignore[type-var]
    stacks: dict[str, Stack] = {"SKYFLAT": skyflat, "ILLUM": illum}
    (product,) = reduce(replace(given, stacks=stacks), PARAMS).products
    ratio, _ = on_slices(joined({11: product}).products[0], "DATA", 11)
    assert (ratio / ratio.mean(axis=1, keepdims=True)).std() < 0.0015


def _dimmed(light: NDArray[np.float32]) -> NDArray[np.float32]:
    result = light.copy()
    for which, factor in zip(draw_slices(SEED, 11, DETECTOR), (0.95, 1.0, 1.02, 1.05), strict=True):
        result[:, round(which.left(300)) - 4 : round(which.right(300)) + 3] *= factor
    return result


def test_the_next_recipe_reads_the_cube(result: Result) -> None:
    cube = TwilightCube.of(ArraySource.of(result.products[1]), 12)
    x, y = np.array([-140.0, -90.0], np.float32), np.array([-3.0, -3.0], np.float32)
    found = cube.at(x, y, np.array([7000.0, 7000.0], np.float32))
    true = twilight_field(x, y)
    assert found[1] / found[0] == pytest.approx(true[1] / true[0], abs=2.5e-3)
    with pytest.raises(RecipeError, match="channel 13"):
        TwilightCube.of(ArraySource.of(result.products[1]), 13)


def vignetting_mask() -> ArraySource:
    values = np.zeros((24, 80), np.int32)
    values[14:, 60:] = 1
    return ArraySource(Extensions((Plane(name="", values=values, kind=PlaneKind.PLAIN),)))


def test_a_vignetting_mask_counts_for_old_exposures_only(result: Result) -> None:
    halves = {number: usual(number) for number in CHANNELS}
    recent = joined(halves, VIGNETTING_MASK=vignetting_mask())
    assert list(planes(recent.products[1])) == list(planes(result.products[1]))
    old = joined(halves, mjd=57800.0, VIGNETTING_MASK=vignetting_mask()).products[1]
    assert list(planes(old))[4:] == [
        "white_div_global_excl_edges",
        "white_div_global_excl_edges_DQ",
        "vign_fit",
        "vign_fit_DQ",
        "white_cor",
        "white_cor_DQ",
    ]
    smooth, fit = values(old, "DATA"), values(old, "vign_fit")
    assert smooth.mean(axis=(1, 2)) == pytest.approx(np.ones(5), abs=1e-6)
    assert (fit >= 1).all()
    assert (fit[:, :40] == 1).all()


def test_a_frame_without_light_is_named() -> None:
    with pytest.raises(RecipeError, match="frame 1 shows"):
        half(11, levels=(1.0, 0.0, 1.0))


def test_wavelengths_without_pixels_are_refused() -> None:
    with pytest.raises(RecipeError, match="change lambdamin"):
        half(11, TwilightParams(lambdamin=5000.0, lambdamax=5500.0))
    with pytest.raises(RecipeError, match="not below"):
        half(11, TwilightParams(lambdamin=7000.0, lambdamax=7000.0))


@pytest.mark.parametrize("choice", [{"resample": "renka"}, {"crtype": "mode"}, {"combine": "median"}, {"dlambda": 0.5}])
def test_what_is_not_implemented_is_refused(choice: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        TwilightParams.from_mapping(choice)


def test_the_notch_filter_of_adaptive_optics_leaves_its_pixels_out() -> None:
    params = replace(PARAMS, lambdamin=5600.0, lambdamax=6100.0, dlambda=125.0)
    given = sky_channel(11, {"SKYFLAT": stack(11, mode="WFM-AO-E")})
    (product,) = reduce(_shifted(given, 1150), params).products
    weight = values(product, "WEIGHT").sum(axis=(1, 2))  # planes at 5600, 5725, 5850, 5975 and 6100; 5755 to 6008
    assert weight[2] == 0
    assert (weight[[1, 3]] > 0).all()


def _shifted(given: Channel, by: float) -> Channel:
    source = given.tables["WAVECAL_TABLE"]
    columns = tuple(replace(c, values=c.values - by) if c.name == "wlc00" else c for c in source.table.columns)
    return replace(
        given, tables={**given.tables, "WAVECAL_TABLE": replace(source, table=replace(source.table, columns=columns))}
    )


def measurement(found: tuple[Measurement, ...], name: str) -> float:
    return next(float(m.value) for m in found if m.name == name)


def test_bad_pixels_do_not_change_the_light_of_a_channel() -> None:
    given = sky_channel(11, {"SKYFLAT": stack(11)})
    flat = given.images["MASTER_FLAT"]
    image = flat.rows(0, DETECTOR.shape[0])
    data, dq = image.data.copy(), image.dq.copy()
    data[250:260, 100:104] *= 0.01
    dq[250:260, 100:104] = 512
    spoilt = replace(flat, image=replace(image, data=data, dq=dq))  # type: ignore[type-var]
    (product,) = reduce(replace(given, images={**given.images, "MASTER_FLAT": spoilt}), PARAMS).products
    clean = measurement(usual(11).measurements, "TWILIGHT11 INTFLUX")
    assert measurement(product.measurements, "TWILIGHT11 INTFLUX") == pytest.approx(clean, rel=2e-5)
