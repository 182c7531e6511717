"""muse_astrometry: pixel tables of a field whose world coordinates are known, solved in all ways the recipe has."""

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from sky_channel import ArraySource, sky_channel

from recipes.astrometry import RECIPE, AstrometryParams, combine, reduce
from recipes.exposure import FLAT_CORRECTED
from recipes.fluxcalibration import FLUX_UNIT
from recipes.muse import SLICES
from recipes.pixtable import flat_spectrum
from recipes.recipe import (
    Column,
    Exposure,
    Extensions,
    Instrument,
    ParameterError,
    Plane,
    PlaneKind,
    Pointing,
    RecipeError,
    Result,
    Table,
    TableSource,
    Value,
)
from recipes.simulator.field import slice_places
from recipes.starfield import unproject
from recipes.stats import Real

CHANNELS = (10, 11, 12, 13, 14, 15)  # 72 pix high
POINTING = Pointing(
    ra=201.697, dec=-47.4795, airmass=(1.2, 1.2), parallactic_angle=(30.0, 30.0), position_angle=0.0, rotator_mode="SKY"
)
WAVELENGTHS = np.arange(6980.0, 7140.0, 12.5)
SHIFT = (4.0, -3.0)  # pix, by which the telescope missed the field
FWHM = 4.0
_DETECTED = 4e4  # electrons, of stars that none of the thresholds leaves out
SCALE, TURN = 0.2003, 0.3  # of the instrument: arcsec a pixel, degrees


@lru_cache(maxsize=1)
def stars() -> tuple[Real, Real, Real]:
    """Field x and y (pix) and flux of stars, none nearer than 12 pix to another."""
    rng = np.random.default_rng(8)
    x, y = rng.uniform(-160, 160, 4000), rng.uniform(-45, 50, 4000)
    kept: list[int] = []
    for number in range(len(x)):
        if all(math.hypot(x[number] - x[other], y[number] - y[other]) > 12 for other in kept):
            kept.append(number)
    some = np.array(kept[:110])
    return x[some], y[some], 10 ** rng.uniform(4.0, 5.3, len(some))


def on_sky(x: Real, y: Real) -> tuple[Real, Real]:
    """RA and DEC of positions in the field, by the true scale and angle."""
    angle = math.radians(TURN)
    right, up = x - SHIFT[0], y - SHIFT[1]
    east = SCALE / 3600 * (-right * math.cos(angle) + up * math.sin(angle))
    north = SCALE / 3600 * (right * math.sin(angle) + up * math.cos(angle))
    found = [unproject(float(e), float(n), POINTING.ra, POINTING.dec) for e, n in zip(east, north, strict=True)]
    return np.array([ra for ra, _ in found]), np.array([dec for _, dec in found])


@lru_cache(maxsize=32)
def pixels(channel: int, noise: float = 10.0) -> ArraySource:
    """PIXTABLE_ASTROMETRY of a channel that sees the stars, the same at all wavelengths."""
    places = slice_places(channel)
    along = (np.arange(75) - 37) / 75.0
    x, y, origin = [], [], []
    for number, place in enumerate(places, start=1):
        at = place.at(-along)
        x.append(at[0])
        y.append(at[1])
        origin.append(np.full(len(along), number))
    field_x, field_y, which = (np.concatenate(parts) for parts in (x, y, origin))
    light = np.full(len(field_x), 50.0)
    squared = (FWHM / 2) ** 2 / (2 ** (1 / 2.5) - 1)
    for sx, sy, flux in zip(*stars(), strict=True):
        distance = (field_x - sx) ** 2 + (field_y - sy) ** 2
        near = distance < 40**2
        light[near] += flux * 1.5 / (np.pi * squared) * (1 + distance[near] / squared) ** -2.5
    # As on the detector: slice after slice, and in each of them row after row.
    index = np.arange(len(field_x)).reshape(SLICES, 1, len(along)).repeat(len(WAVELENGTHS), axis=1).reshape(-1)
    rng = np.random.default_rng(channel)
    table = {
        "xpos": field_x[index], "ypos": field_y[index],
        "lambda": np.tile(np.repeat(WAVELENGTHS, len(along)), SLICES),
        "data": light[index] + rng.normal(0, noise, len(index)), "dq": np.zeros(len(index)),
        "stat": np.full(len(index), noise**2), "origin": which[index] + (channel << 6),
    }  # fmt: skip
    types = {"dq": np.int32, "origin": np.int32}
    planes = [
        Plane(name=name, values=values.astype(types.get(name, np.float32))[:, None], kind=PlaneKind.PLAIN)
        for name, values in table.items()
    ]
    spectrum = flat_spectrum(np.arange(4150.0, 9800.0, 1.25), np.ones(4520))
    cards: dict[str, Value] = {"OBJECT": "NGC5139", "ESO DRS MUSE FLAT FLUX SKY": 1.0}
    return ArraySource(Extensions((*planes, spectrum)), cards)


def reference(ra: Real, dec: Real, mag: Real) -> ArraySource:
    names = {"SourceID": np.array([f"star{n}" for n in range(len(ra))]), "RA": ra, "DEC": dec, "mag": mag}
    table = Table(columns=tuple(Column(name=name, values=values) for name, values in names.items()), name="NGC5139")

    class Catalogue(ArraySource):
        @property
        def tables(self) -> tuple[TableSource, ...]:
            return (TableSource(table, {"EXTNAME": "NGC5139", "RA": POINTING.ra, "DEC": POINTING.dec}),)

    return Catalogue(Extensions())


def instrument(channels: tuple[int, ...] = CHANNELS, **tables: TableSource) -> Instrument:
    x, y, flux = stars()
    exposure = Exposure(name="MUSE.1", exptime=30.0, gains=(1.0,) * 4, mode="WFM-NOAO-N", pointing=POINTING)
    return Instrument(
        channels={channel: {"PIXTABLE_ASTROMETRY_0001": pixels(channel)} for channel in channels},
        exposures={"ASTROMETRY": [exposure]},
        files={"ASTROMETRY_REFERENCE": reference(*on_sky(x, y), -2.5 * np.log10(flux))},
        tables=tables,
    )


PARAMS = AstrometryParams(lambdaref=-1.0)  # the stars of the pixel tables are not refracted


@pytest.fixture(scope="module")
def result() -> Result:
    return combine(instrument(), PARAMS)


def qc(result: Result, product: int = 0) -> dict[str, float]:
    return {m.name: float(m.value) for m in result.products[product].measurements}


def sources(result: Result) -> Table:
    content = result.products[0].content
    assert isinstance(content, Extensions)
    (table,) = content.units
    assert isinstance(table, Table)
    return table


def test_scale_and_angle_are_those_of_the_instrument(result: Result) -> None:
    found = qc(result)
    assert found["ASTRO SCALE X"] == pytest.approx(SCALE, rel=1e-4)
    assert found["ASTRO SCALE Y"] == pytest.approx(SCALE, rel=5e-4)
    assert found["ASTRO ANGLE X"] == pytest.approx(-TURN, abs=0.03)
    assert found["ASTRO ANGLE Y"] == pytest.approx(-TURN, abs=0.01)
    assert 0 < found["ASTRO MEDRES X"] < 0.02
    assert 0 < found["ASTRO MEDRES Y"] < 0.02
    assert result.warnings == ()


def test_every_star_well_inside_is_identified(result: Result) -> None:
    table, (x, y, flux) = sources(result), stars()
    assert np.isfinite(table["RA"]).all()
    assert qc(result)["ASTRO NSTARS"] == len(table["RA"])
    ra, dec = on_sky(x, y)
    inside = np.flatnonzero((np.abs(x) < 140) & (y > -28) & (y < 29) & (flux > _DETECTED))
    for number in inside:
        away = np.hypot((table["RA"] - ra[number]) * math.cos(math.radians(POINTING.dec)), table["DEC"] - dec[number])
        assert away.min() * 3600 < 1e-6
    assert len(table["RA"]) >= len(inside) > 20


def test_the_cards_of_the_solution_put_the_stars_on_the_sky(result: Result) -> None:
    header = fits.Header({k.name: k.value for k in result.products[0].keywords if not k.name.startswith("ESO")})
    table = sources(result)
    ra, dec = WCS(header).wcs_pix2world(table["XPOS"], table["YPOS"], 1)
    assert np.median(np.abs(ra - table["RA"])) * 3600 < 0.03
    assert np.median(np.abs(dec - table["DEC"])) * 3600 < 0.03
    assert (header["CRPIX1"], header["CRPIX2"]) == (-0.01, -1.2)
    assert (header["CTYPE1"], header["CTYPE2"]) == ("RA---TAN", "DEC--TAN")
    assert header["OBJECT"] == "Astrometric calibration (NGC5139)"
    for name in ("CD1_1", "CD1_2", "CD2_1", "CD2_2", "CRPIX1", "CRVAL1", "LONPOLE", "MJDREF"):
        assert isinstance(header[name], float)


def test_the_products_are_those_of_eso(result: Result) -> None:
    assert tuple(product.catg for product in result.products) == RECIPE.makes
    wcs, cube = result.products
    names = {keyword.name for keyword in wcs.keywords}
    assert {"ESO DRS MUSE WCS RADIUS", "ESO DRS MUSE WCS DETSIGMA", FLAT_CORRECTED} <= names
    assert isinstance(cube.content, Extensions)
    planes = [unit for unit in cube.content.units if isinstance(unit, Plane)]
    assert [(plane.name, plane.unit) for plane in planes] == [
        ("DATA", "count"), ("STAT", "(count)**2"), ("white", "count"), ("ASTROMETRY_DETECTION", "count"),
        ("ASTROMETRY_DETECTION_STAT", "(count)**2"),
    ]  # fmt: skip
    assert planes[0].values.shape == planes[1].values.shape
    assert planes[0].values.shape[1:] == planes[3].values.shape
    cards = {keyword.name: keyword.value for keyword in planes[0].keywords}
    assert (cards["CD3_3"], cards["CTYPE3"]) == (50.0, "AWAV")
    assert {"CD1_1S", "CRVAL1S", "WCSNAMES"} <= {keyword.name for keyword in planes[3].keywords}


def test_every_qc1_parameter_of_the_cube_is_there(result: Result) -> None:
    found = qc(result, 1)
    number = int(found["ASTRO NDET"])
    assert number > 40
    assert set(found) == {
        "ASTRO NDET", "ASTRO LAMBDA", "ASTRO FWHM NVALID", "ASTRO FWHM MEDIAN", "ASTRO FWHM MAD",
        *(f"ASTRO {what}{n} {axis}" for n in range(1, number + 1) for what in ("POS", "FWHM") for axis in "XY"),
    }  # fmt: skip
    assert found["ASTRO FWHM MEDIAN"] == pytest.approx(0.2 * FWHM, rel=0.1)
    assert found["ASTRO LAMBDA"] == pytest.approx(7080, abs=1)


@pytest.mark.parametrize("centroid", ["gaussian", "box"])
def test_other_ways_to_measure_places_give_the_same_scale(centroid: str) -> None:
    found = qc(combine(instrument(), replace(PARAMS, centroid=centroid)))
    assert found["ASTRO SCALE X"] == pytest.approx(SCALE, rel=1e-3 if centroid == "box" else 1e-4)


def test_a_negative_threshold_tries_several(result: Result) -> None:
    other = combine(instrument(), replace(PARAMS, detsigma=-1.1))
    used = {k.name: k.value for k in other.products[0].keywords}["ESO DRS MUSE WCS DETSIGMA"]
    assert used in [pytest.approx(sigma) for sigma in (1.0, 1.1)]
    assert qc(other)["ASTRO NSTARS"] >= qc(result)["ASTRO NSTARS"]
    with pytest.raises(RecipeError, match="leaves no threshold"):
        combine(instrument(), replace(PARAMS, detsigma=-0.5))


def test_three_channels_give_a_steady_solution_and_say_what_is_poorly_known() -> None:
    few = combine(instrument((11, 12, 13)), PARAMS)
    found = qc(few)
    assert found["ASTRO SCALE X"] == pytest.approx(SCALE, rel=2e-4)
    assert found["ASTRO SCALE Y"] == pytest.approx(SCALE, rel=2e-3)
    assert any("do not fill the field" in warning for warning in few.warnings)


def spectrum(name: str, value: float, *, corrected: bool) -> TableSource:
    columns = (
        Column(name="lambda", values=np.array([4000.0, 9800.0])),
        Column(name=name, values=np.array([value, value])),
    )
    return TableSource(Table(columns=columns), {FLAT_CORRECTED: True} if corrected else {})


def test_a_response_turns_the_cube_into_flux(result: Result) -> None:
    extinction = spectrum("extinction", 0.1, corrected=False)
    response = spectrum("response", 10.0, corrected=True)
    telluric = spectrum("ftelluric", 0.9, corrected=True)
    flux = combine(instrument(STD_RESPONSE=response, EXTINCT_TABLE=extinction, STD_TELLURIC=telluric), PARAMS).products[
        1
    ]
    plain = result.products[1]
    assert isinstance(flux.content, Extensions)
    assert isinstance(plain.content, Extensions)
    one, other = flux.content.units[0], plain.content.units[0]
    assert isinstance(one, Plane)
    assert isinstance(other, Plane)
    assert one.unit == FLUX_UNIT
    factor = 1e20 * 10 ** (0.4 * (0.1 * 1.2 - 10.0)) / (30 * 1.25) * 0.9**-1.2
    assert np.nanmedian(one.values[1:2] / other.values[1:2]) == pytest.approx(factor, rel=1e-4)


def test_a_response_of_the_first_kind_is_never_applied_as_one_of_the_second() -> None:
    old = combine(instrument(STD_RESPONSE=spectrum("response", 10.0, corrected=False)), PARAMS)
    assert any("put back into the data" in warning for warning in old.warnings)
    assert FLAT_CORRECTED not in {keyword.name for keyword in old.products[0].keywords}
    bare = instrument(STD_RESPONSE=spectrum("response", 10.0, corrected=True))
    uncorrected = {
        channel: {
            name: ArraySource(Extensions(source.content.units[:-1]), source.keywords)  # type: ignore[attr-defined]
            for name, source in files.items()
        }
        for channel, files in bare.channels.items()
    }
    with pytest.raises(RecipeError, match="the pixel tables anew"):
        combine(replace(bare, channels=uncorrected), PARAMS)


def test_another_field_or_none_is_refused() -> None:
    x, y, flux = stars()
    far = reference(*on_sky(x, y[::-1]), -2.5 * np.log10(flux))
    with pytest.raises(RecipeError, match="Is it the list of this field"):
        combine(replace(instrument(), files={"ASTROMETRY_REFERENCE": far}), PARAMS)
    empty = replace(instrument(), channels={12: {}})
    with pytest.raises(RecipeError, match="reduce the channels first"):
        combine(empty, PARAMS)


def test_of_several_exposures_the_one_with_most_stars_is_taken() -> None:
    some = (11, 12, 13)
    one = instrument(some)
    first = one.exposures["ASTROMETRY"][0]
    channels = {
        channel: {"PIXTABLE_ASTROMETRY_0001": pixels(channel, 300.0), "PIXTABLE_ASTROMETRY_0002": pixels(channel)}
        for channel in some
    }
    both = replace(one, channels=channels, exposures={"ASTROMETRY": [first, replace(first, name="MUSE.2")]})
    found = combine(both, PARAMS)
    assert any("MUSE.2 has the most stars" in warning for warning in found.warnings)
    assert qc(found) == qc(combine(one, PARAMS))


@pytest.mark.parametrize(("name", "value"), [("rotcenter", "1"), ("faccuracy", 1.0), ("darcheck", "check")])
def test_what_is_not_implemented_or_no_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(ParameterError, match=name):
        AstrometryParams.from_mapping({name: value})
    assert AstrometryParams(rotcenter="1,2.5").centre == (1.0, 2.5)


def test_the_first_half_makes_pixel_tables() -> None:
    assert RECIPE.intermediate == ("PIXTABLE_ASTROMETRY",)
    with pytest.raises(KeyError, match="ASTROMETRY"):
        reduce(sky_channel(12, {}), PARAMS)
    assert len(slice_places(12)) == SLICES
