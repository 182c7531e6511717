"""From frames of the sky to pixel tables, on a small detector with a known sky."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arrays import simulated_stack
from numpy.typing import NDArray
from sky_channel import DETECTOR, MODE, SEED, ArraySource, chip_of, geometry, lamp, master_flat, sky_channel

from recipes.basic import BasicParams, reduce_exposures
from recipes.fits import open_source
from recipes.illumination import TwilightCube, relative_illumination
from recipes.muse import Flag
from recipes.pixtable import PixelTable, StoredPixels
from recipes.positions import find_pixels, map_slices
from recipes.products import primary_header, write_product
from recipes.recipe import Channel, Extensions, Keyword, ParameterError, Plane, Product, RecipeError, TableSource
from recipes.simulator.celestial import Twilight
from recipes.simulator.field import slice_places
from recipes.simulator.optics import draw_slices
from recipes.simulator.scenes import render
from recipes.skylines import SkyLineParams, Window, shift_of_sky_lines

CHANNEL = 7
SKY = render(Twilight(MODE, 1.0), SEED, CHANNEL, DETECTOR).copy()
PARAMS = BasicParams()


def channel(*, mode: str = MODE, **files: ArraySource) -> Channel:
    stack = simulated_stack(chip_of(CHANNEL), 2, exptime=1.0, rate=SKY)
    first, second = (replace(exposure, mode=mode, mjd=60000.0 + n) for n, exposure in enumerate(stack.exposures))
    return sky_channel(CHANNEL, {"STD": replace(stack, exposures=[first, second])}, **files)


@pytest.fixture(scope="module")
def products() -> tuple[Product, ...]:
    return reduce_exposures(channel(), "STD", PARAMS)[0]


@pytest.fixture(scope="module")
def stored(products: tuple[Product, ...]) -> StoredPixels:
    return StoredPixels(ArraySource.of(products[0]))


@pytest.fixture(scope="module")
def pixels(stored: StoredPixels) -> PixelTable:
    return stored.block(0, len(stored))


def columns_of(pixels: PixelTable, stored: StoredPixels) -> NDArray[np.intp]:
    """Column of each pixel on the detector, from 0."""
    offsets = {n: stored.keywords[f"ESO DRS MUSE PIXTABLE EXP0 IFU07 SLICE{n:02d} XOFFSET"] for n in stored.slices()}
    start = np.array([0, *(int(offsets[n]) for n in sorted(offsets))])
    return np.asarray((pixels.origin >> 24).astype(np.intp) + start[pixels.slices] - 1)


def values(product: Product) -> dict[str, float]:
    return {measurement.name: float(measurement.value) for measurement in product.measurements}


def test_there_is_a_numbered_table_for_each_exposure(products: tuple[Product, ...]) -> None:
    assert [product.name for product in products] == ["PIXTABLE_STD_0001", "PIXTABLE_STD_0002"]
    one, two = (StoredPixels(ArraySource.of(product)).block(0, 1000) for product in products)
    assert np.array_equal(one.x, two.x)
    assert not np.array_equal(one.data, two.data)


def test_data_are_the_sky_over_the_flat_with_the_right_variance(stored: StoredPixels, pixels: PixelTable) -> None:
    good = pixels[pixels.dq == 0]
    assert len(good) > 0.99 * len(pixels)
    row, column = good.rows.astype(np.intp) - 1, columns_of(good, stored)
    flat = lamp(CHANNEL) / lamp(CHANNEL).mean()
    pull = (good.data - SKY[row, column] / flat[row, column]) / np.sqrt(good.stat)
    clean = np.abs(pull) < 6  # the others were hit by cosmic rays
    assert clean.mean() > 0.99
    assert pull[clean].mean() == pytest.approx(0, abs=0.02)
    assert pull[clean].std() == pytest.approx(1, abs=0.02)


def test_each_pixel_knows_its_place_and_wavelength(stored: StoredPixels, pixels: PixelTable) -> None:
    row, column = pixels.rows.astype(float), columns_of(pixels, stored) + 1.0
    for which, place in zip(draw_slices(SEED, CHANNEL, DETECTOR), slice_places(CHANNEL), strict=False):
        mine = pixels.slices == which.number
        x, y = place.at(which.position(column[mine], row[mine]))
        np.testing.assert_allclose(pixels.x[mine], x, atol=2e-5)
        np.testing.assert_allclose(pixels.y[mine], y, atol=2e-5)
        np.testing.assert_allclose(pixels.wavelength[mine], which.wavelength(column[mine], row[mine]), atol=6e-4)
    assert set(pixels.channels) == {CHANNEL}


def test_rows_go_by_slice_then_row_then_column_and_hold_whole_pixels_only(
    stored: StoredPixels, pixels: PixelTable
) -> None:
    column = columns_of(pixels, stored)
    order = (pixels.slices.astype(np.int64) * 10000 + pixels.rows) * 10000 + column
    assert (np.diff(order) > 0).all()
    which = draw_slices(SEED, CHANNEL, DETECTOR)[1]
    on_row = (pixels.slices == 2) & (pixels.rows == 300)
    assert (column[on_row].min() + 1, column[on_row].max() + 1) == (
        np.ceil(which.left(300)),
        np.floor(which.right(300)),
    )


def test_limits_are_those_of_the_columns(stored: StoredPixels, pixels: PixelTable) -> None:
    for name, column in (("X", pixels.x), ("Y", pixels.y), ("LAMBDA", pixels.wavelength), ("SLICE", pixels.slices)):
        assert stored.limits(name) == (column.min(), column.max())


def test_a_file_gives_back_its_rows_by_block_slice_and_slab(
    products: tuple[Product, ...], pixels: PixelTable, tmp_path: Path
) -> None:
    write_product(tmp_path / "table.fits", primary_header(), products[0].content)
    read = StoredPixels(open_source(tmp_path / "table.fits"))
    assert len(read) == len(pixels)
    np.testing.assert_array_equal(read.block(1000, 3000).data, pixels.data[1000:3000])
    for number, rows in read.slices().items():
        assert set(read.block(rows.start, rows.stop).slices) == {number}
    slab = read.slab(6900, 6910)
    inside = (pixels.wavelength >= 6900) & (pixels.wavelength < 6910)
    np.testing.assert_array_equal(slab.origin, pixels.origin[inside])
    np.testing.assert_array_equal(slab.dq, pixels.dq[inside])
    assert len(read.slab(1000, 1010)) == 0
    assert read.flat_field is not None


def test_the_spectrum_of_the_flat_is_that_of_the_lamp(stored: StoredPixels, pixels: PixelTable) -> None:
    assert stored.flat_field is not None
    table = stored.flat_field.table
    assert np.diff(table["lambda"]) == pytest.approx(1.25)
    flat, row = lamp(CHANNEL) / lamp(CHANNEL).mean(), pixels.rows.astype(np.intp) - 1
    near = np.abs(pixels.wavelength - 7000) < 3
    mean = flat[row, columns_of(pixels, stored)][near].mean()
    assert np.interp(7000, table["lambda"], table["data"]) == pytest.approx(mean, rel=0.005)


@pytest.mark.parametrize(("mode", "blue"), [("WFM-NOAO-N", 4750), ("WFM-NOAO-E", 4600), ("WFM-AO-N", 4700)])
def test_tables_are_cropped_to_the_useful_range_of_the_mode(mode: str, blue: float) -> None:
    given = channel(mode=mode)
    given = replace(given, tables=tables_shifted(given, 7000 - blue))
    every, inside = (
        StoredPixels(ArraySource.of(reduce_exposures(given, "STD", BasicParams(crop=crop))[0][0]))
        for crop in (False, True)
    )
    whole = every.block(0, len(every))
    kept = whole[whole.wavelength >= blue]
    assert 0 < len(kept) < len(whole)
    np.testing.assert_array_equal(inside.block(0, len(inside)).origin, kept.origin)
    assert inside.limits("LAMBDA")[0] == pytest.approx(blue, abs=0.5)


def test_pixels_behind_the_notch_filter_are_flagged() -> None:
    given = channel(mode="WFM-AO-E")
    product = reduce_exposures(replace(given, tables=tables_shifted(given, 1020)), "STD", PARAMS)[0][0]
    table = StoredPixels(ArraySource.of(product))
    pixels = table.block(0, len(table))
    blocked = (pixels.wavelength > 5755) & (pixels.wavelength < 6008)
    assert blocked.any()
    assert (pixels.dq[blocked] == Flag.NOTCH).all()
    assert not (pixels.dq[~blocked] & Flag.NOTCH).any()


def tables_shifted(given: Channel, by: float) -> dict[str, TableSource]:
    """Tables of a channel with all wavelengths less by so many Angstrom."""
    found = dict(given.tables)
    table = found["WAVECAL_TABLE"].table
    columns = tuple(replace(c, values=c.values - by) if c.name == "wlc00" else c for c in table.columns)
    return found | {"WAVECAL_TABLE": TableSource(replace(table, columns=columns))}


def test_an_illum_flat_takes_out_what_differs_from_slice_to_slice() -> None:
    given = channel()
    dimmed, relative = lamp(CHANNEL).copy(), {}
    for which, factor in zip(draw_slices(SEED, CHANNEL, DETECTOR), (0.9, 1.0, 1.05, 1.1), strict=True):
        left, right = round(which.left(300)) - 4, round(which.right(300)) + 3
        dimmed[:, left:right] *= factor
        relative[which.number] = 1 / factor
    near, far = (simulated_stack(chip_of(CHANNEL), 1, exptime=0.5, rate=rate, seed=5) for rate in (dimmed, SKY))
    both = replace(
        near,
        exposures=[replace(near.exposures[0], mjd=60000.1), replace(far.exposures[0], mjd=59990.0)],
        frames=[*near.frames, *far.frames],
    )
    with_illum = replace(given, stacks={**given.stacks, "ILLUM": both})
    products, warnings = reduce_exposures(with_illum, "STD", PARAMS)
    assert warnings == ()
    mean = np.mean(list(relative.values()))
    cards = {keyword.name: keyword.value for keyword in products[0].keywords}
    for number, factor in relative.items():
        assert cards[f"ESO DRS MUSE PIXTABLE ILLUM{number}"] == pytest.approx(factor / mean, abs=1e-3)
    plain, corrected = (
        StoredPixels(ArraySource.of(reduce_exposures(c, "STD", PARAMS)[0][0])) for c in (given, with_illum)
    )
    rows = plain.slices()[2]
    factor = float(cards["ESO DRS MUSE PIXTABLE ILLUM2"])
    one, other = (table.block(rows.start, rows.stop) for table in (plain, corrected))
    np.testing.assert_allclose(other.data, one.data * factor, rtol=1e-6)
    np.testing.assert_allclose(other.stat, one.stat * factor**2, rtol=1e-6)


def test_a_dark_illum_flat_is_refused() -> None:
    pixels = find_pixels(map_slices(channel()), 6500, 7500)
    data, flags, _ = pixels.columns()
    data[:], flags[:] = -1, 0
    with pytest.raises(RecipeError, match="needs light"):
        relative_illumination(pixels, data, flags)


def cube(values: NDArray[np.float32], **cards: float) -> ArraySource:
    standard = {f"{key}{axis}": 1.0 for axis in (1, 2, 3) for key in ("CRPIX",)}
    standard |= {"CD1_1": 1.0, "CD2_2": 1.0, "CD3_3": 250.0, "CRVAL1": -150.0, "CRVAL2": -70.0, "CRVAL3": 6500.0}
    keywords = tuple(Keyword(name, value) for name, value in (standard | cards).items())
    plane = Plane(name="DATA", values=values, keywords=keywords)
    return ArraySource(Extensions((plane,)), {f"ESO DRS MUSE FLAT FLUX SKY{CHANNEL}": 3e9})


def test_a_twilight_cube_is_taken_at_the_nearest_pixel_and_on_a_line_between_planes() -> None:
    values = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, np.nan]]], np.float32)
    twilight = TwilightCube.of(cube(values, CRVAL1=0.0, CRVAL2=10.0), CHANNEL)

    def at(x: float, y: float, wavelength: float) -> float:
        return float(twilight.at(*(np.array([v], np.float32) for v in (x, y, wavelength)))[0])

    assert at(0.4, 10.4, 6500) == 1
    assert at(0.6, 10.4, 6500) == 2
    assert at(0.4, 10.6, 6500) == 3
    assert at(-9, 30, 6500) == 3
    assert at(0, 10, 6625) == 3
    assert at(0, 10, 6812.5) == 6
    assert at(0, 10, 4000) == 1
    assert at(0, 10, 9000) == 9
    assert at(1, 11, 6900) == 8  # where the other plane is NaN
    assert np.isnan(at(1, 11, 9000))


def test_data_are_divided_by_the_twilight_cube(pixels: PixelTable) -> None:
    y, x = np.mgrid[-70:5, -150:151]
    plane = (1 + 1e-3 * x + 2e-3 * y).astype(np.float32)
    (product, _), warnings = reduce_exposures(channel(TWILIGHT_CUBE=cube(np.array([plane] * 3))), "STD", PARAMS)
    assert warnings == ()
    assert {k.name: k.value for k in product.keywords}["ESO DRS MUSE FLAT FLUX SKY"] == 3e9
    table = StoredPixels(ArraySource.of(product))
    found = table.block(0, len(table))
    bright = 1 + 1e-3 * np.rint(np.maximum(pixels.x, -150)) + 2e-3 * np.rint(np.maximum(pixels.y, -70))
    np.testing.assert_allclose(found.data, pixels.data / bright, rtol=3e-6, atol=1e-4)
    np.testing.assert_allclose(found.stat, pixels.stat / bright**2, rtol=3e-6)


def test_a_twilight_cube_without_the_channel_is_refused() -> None:
    alien = replace(cube(np.ones((2, 2, 2), np.float32)), keywords={"ESO DRS MUSE FLAT FLUX SKY3": 1.0})
    with pytest.raises(RecipeError, match="channel 7"):
        reduce_exposures(channel(TWILIGHT_CUBE=alien), "STD", PARAMS)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_shift_brings_sky_lines_to_their_place(sign: int) -> None:
    rng, params, windows = np.random.default_rng(5), SkyLineParams(), []
    for line, flux in ((5577.339, 3000.0), (6300.304, 1500.0)):
        wave = rng.uniform(line - 5, line + 5, 30000).astype(np.float32)
        level = 4000 + sign * flux * np.exp(-(((wave - line - 0.04) / 1.1) ** 2) / 2)
        data = rng.normal(level, np.sqrt(level)).astype(np.float32)
        data[::500] += 30000  # cosmic rays
        windows.append(
            Window(
                line=sign * line,
                wavelength=wave,
                data=data,
                stat=level.astype(np.float32),
                dq=np.zeros(len(wave), np.uint16),
            )
        )
    assert shift_of_sky_lines(windows, 4700.0, params) == pytest.approx(-0.04, abs=0.004)


def test_without_a_line_nothing_is_shifted(products: tuple[Product, ...]) -> None:
    assert values(products[0])["SCIBASIC LAMBDA SHIFT"] == 0  # neither line is on the small detector
    (product, _), _ = reduce_exposures(channel(), "STD", BasicParams(skylines="none"))
    assert "SCIBASIC LAMBDA SHIFT" not in values(product)


def test_a_pixel_without_flat_is_flagged_and_zero() -> None:
    given, flat = channel(), master_flat(CHANNEL)
    data = flat.image.data.copy()
    which = draw_slices(SEED, CHANNEL, DETECTOR)[0]
    row, column = 299, round(which.centre(300)) - 1
    data[row, column] = 0
    images = {**given.images, "MASTER_FLAT": replace(flat, image=replace(flat.image, data=data))}
    table = StoredPixels(ArraySource.of(reduce_exposures(replace(given, images=images), "STD", PARAMS)[0][0]))
    found = table.block(0, len(table))
    here = (found.slices == 1) & (found.rows == row + 1) & (columns_of(found, table) == column)
    assert (found.data[here], found.stat[here], found.dq[here]) == (0, 0, Flag.BAD)


def test_wavelengths_of_another_instrument_are_refused() -> None:
    given = channel()
    with pytest.raises(RecipeError, match="WAVECAL_TABLE"):
        reduce_exposures(replace(given, tables=tables_shifted(given, 3000)), "STD", PARAMS)


def test_a_flat_that_does_not_say_its_light_is_refused() -> None:
    given = channel()
    images = {**given.images, "MASTER_FLAT": replace(master_flat(CHANNEL), measurements={})}
    with pytest.raises(RecipeError, match="INTFLUX"):
        reduce_exposures(replace(given, images=images), "STD", PARAMS)


def test_a_slice_without_a_place_is_refused() -> None:
    given = channel()
    with pytest.raises(RecipeError, match="slice 1 of channel 7"):
        reduce_exposures(
            replace(given, tables={**given.tables, "GEOMETRY_TABLE": TableSource(geometry(8))}), "STD", PARAMS
        )


@pytest.mark.parametrize("choice", [{"cr": "dcr"}, {"saveimage": True}, {"resample": True}, {"overscan": "none"}])
def test_what_is_not_implemented_is_refused(choice: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        BasicParams.from_mapping(choice)


def test_a_list_of_lines_that_is_none_is_refused() -> None:
    with pytest.raises(ParameterError, match="skylines"):
        reduce_exposures(channel(), "STD", BasicParams(skylines="green"))
