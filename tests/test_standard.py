"""muse_standard on synthetic pixel tables: the response that was put in comes out, in ESO's format."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from star_field import (
    HIGH,
    LOW,
    POINTING,
    STAR,
    catalogue,
    electrons,
    filters,
    instrument,
    response,
    star_table,
    transmission,
)

from recipes.muse import Flag
from recipes.recipe import Extensions, ParameterError, Plane, PlaneKind, Product, RecipeError, Result, Table
from recipes.standard import RECIPE, StandardParams, combine

TABLES = {11: star_table(11), 12: star_table(12, scale=0.8)}
INNER = (LOW + 10, HIGH - 10)  # Angstrom; beyond, planes are not full
WORLD = [
    "CRPIX1",
    "CRVAL1",
    "CTYPE1",
    "CUNIT1",
    "CD1_1",
    "CRPIX2",
    "CRVAL2",
    "CTYPE2",
    "CUNIT2",
    "CD2_2",
    "CD1_2",
    "CD2_1",
]
SPECTRAL = ["CTYPE3", "CUNIT3", "CD3_3", "CRPIX3", "CRVAL3", "CD1_3", "CD2_3", "CD3_1", "CD3_2"]


@lru_cache(maxsize=8)
def result(**changes: object) -> Result:
    return combine(instrument(TABLES, FILTER_LIST=filters()), StandardParams.from_mapping(changes))


def product(of: Result, catg: str) -> Product:
    return next(item for item in of.products if item.catg == catg)


def planes(of: Result, catg: str) -> dict[str, Plane]:
    content = product(of, catg).content
    assert isinstance(content, Extensions)
    return {unit.name: unit for unit in content.units if isinstance(unit, Plane)}


def table(of: Result, catg: str) -> Table:
    content = product(of, catg).content
    assert isinstance(content, Table)
    return content


def cards(item: Product) -> Mapping[str, object]:
    return {keyword.name: keyword.value for keyword in item.keywords}


def quality(item: Product) -> Mapping[str, object]:
    return {measurement.name: measurement.value for measurement in item.measurements}


def away(found: Table) -> tuple[float, float]:
    """Mean and scatter of a response about what was put in."""
    good = (found["lambda"] > INNER[0]) & (found["lambda"] < INNER[1])
    difference = found["response"][good] - response(found["lambda"][good])
    return float(difference.mean()), float(difference.std())


# Statistics allow 0.0005 mag on the mean of 380 planes. The wings of the star reach beyond the field, as far as which a
# profile is extrapolated from; the circle, which the edge of the field makes small, loses them.
@pytest.mark.parametrize(("profile", "limit"), [("smoffat", 0.006), ("moffat", 0.006), ("circle", 0.2)])
def test_the_response_is_what_was_put_in(profile: str, limit: float) -> None:
    offset, scatter = away(table(result(profile=profile), "STD_RESPONSE"))
    assert abs(offset) < limit
    assert scatter < 0.005


def test_auto_is_smoffat_and_a_gaussian_misses_the_wings() -> None:
    automatic, smooth = (table(result(profile=profile), "STD_RESPONSE")["response"] for profile in ("auto", "smoffat"))
    np.testing.assert_array_equal(automatic, smooth)
    assert -0.3 < away(table(result(profile="gaussian"), "STD_RESPONSE"))[0] < -0.05


def test_the_telluric_band_is_what_was_put_in() -> None:
    found = table(result(), "STD_TELLURIC")
    band = (found["lambda"] > 7164) & (found["lambda"] < 7325)
    difference = found["ftelluric"][band] - transmission(found["lambda"][band])
    assert abs(difference.mean()) < 0.003
    assert difference.std() < 0.012  # the noise of a plane is 0.006
    assert found["ftelluric"].min() < 0.75


def test_errors_are_those_of_the_points() -> None:
    found = table(result(smooth="none"), "STD_RESPONSE")
    good = (found["lambda"] > INNER[0]) & (found["lambda"] < 7160)
    points = found["response"][good] - response(found["lambda"][good])
    # Next planes share pixels, those two apart do not. The error of the reference, 0.5 per cent, is common to all.
    scatter = (points[2:] - points[:-2]).std() / 2**0.5
    own = np.sqrt(found["resperr"][good] ** 2 - (0.005 * 1.0857) ** 2)
    assert 0.85 < scatter / np.median(own) < 1.15  # 160 points tell it to 6 per cent


def test_fluxes_are_the_electrons_of_the_star() -> None:
    units = planes(result(), "STD_FLUXES")
    wavelength = {k.name: k.value for k in units["DATA"].keywords}
    grid = float(str(wavelength["CRVAL1"])) + 1.25 * np.arange(units["DATA"].values.shape[1])
    data, stat, dq = (units[name].values[0:1][0] for name in ("DATA", "STAT", "DQ"))
    good = (grid > INNER[0]) & (grid < INNER[1])
    ratio = data[good] / electrons(grid[good])
    assert (dq[good] == 0).all()
    assert np.median(ratio) == pytest.approx(1, abs=0.006)
    scatter = (ratio[2:] - ratio[:-2]).std() / 2**0.5
    assert np.median(np.sqrt(stat[good]) / data[good]) == pytest.approx(scatter, rel=0.15)
    bad = dq != 0
    assert (dq[bad] == Flag.MISSING).all()
    assert (data[bad] == 0).all()
    assert cards(product(result(), "STD_FLUXES"))["ESO DRS MUSE FLUX OBJ1 INTFLUX"] == pytest.approx(
        data.sum(), rel=1e-5
    )


def test_the_cube_is_laid_out_as_esos() -> None:
    units = planes(result(filter="white,Cousins_R"), "DATACUBE_STD")
    assert list(units) == ["DATA", "STAT", "white", "Cousins_R"]
    data, stat = units["DATA"], units["STAT"]
    assert data.values.shape == stat.values.shape
    assert data.values.dtype == stat.values.dtype == np.float32
    assert (data.unit, stat.unit) == ("count", "(count)**2")
    assert (data.kind, data.errors, data.flags) == (PlaneKind.DATA, "STAT", "")
    assert (stat.kind, stat.data, stat.flags) == (PlaneKind.VARIANCE, "DATA", "")
    for plane in (data, stat):
        assert [keyword.name for keyword in plane.keywords] == WORLD + SPECTRAL
    for name in ("white", "Cousins_R"):
        assert units[name].values.shape == data.values.shape[1:]
        assert [keyword.name for keyword in units[name].keywords][:14] == [
            *WORLD, "ESO DRS MUSE FILTER NAME", "ESO DRS MUSE FILTER FRACTION",
        ]  # fmt: skip
    finite = np.isfinite(data.values[:])
    np.testing.assert_array_equal(finite, np.isfinite(stat.values[:]))
    white = {k.name: k.value for k in units["white"].keywords}
    assert white["ESO DRS MUSE FILTER FRACTION"] == pytest.approx(100 * (HIGH - LOW) / 4650, abs=0.5)
    middle = units["white"].values[:]
    row, column = np.unravel_index(np.nanargmax(middle), middle.shape)
    place = {k.name: float(str(k.value)) for k in data.keywords if k.name.startswith("CRVAL")}
    assert place["CRVAL1"] + column == pytest.approx(STAR[0], abs=0.6)
    assert place["CRVAL2"] + row == pytest.approx(STAR[1], abs=0.6)


def test_every_other_extension_and_column_is_esos() -> None:
    units = planes(result(), "STD_FLUXES")
    axes = [
        "CRVAL1",
        "CRPIX1",
        "CD1_1",
        "CTYPE1",
        "CUNIT1",
        "CRVAL2",
        "CRPIX2",
        "CD2_2",
        "CTYPE2",
        "CUNIT2",
        "CD1_2",
        "CD2_1",
    ]
    assert {name: (unit.unit, unit.kind) for name, unit in units.items()} == {
        "DATA": ("count", PlaneKind.DATA),
        "DQ": ("", PlaneKind.FLAGS),
        "STAT": ("(count)**2", PlaneKind.VARIANCE),
    }
    assert all([keyword.name for keyword in unit.keywords] == axes for unit in units.values())
    magnitude = "2.5*log10((count/s/Angstrom)/(erg/s/cm**2/Angstrom))"
    assert [(c.name, c.values.dtype.str[1:], c.unit) for c in table(result(), "STD_RESPONSE").columns] == [
        ("lambda", "f8", "Angstrom"),
        ("response", "f8", magnitude),
        ("resperr", "f8", magnitude),
        ("response_unsmoothed", "f8", magnitude),
        ("resperr_unsmoothed", "f8", magnitude),
        ("throughput", "f8", ""),
    ]
    assert [(c.name, c.values.dtype.str[1:], c.unit) for c in table(result(), "STD_TELLURIC").columns] == [
        ("lambda", "f8", "Angstrom"),
        ("ftelluric", "f8", ""),
        ("ftellerr", "f8", ""),
    ]


def test_every_keyword_is_there_with_its_type() -> None:
    cube, fluxes, curve, telluric = (product(result(), catg) for catg in RECIPE.makes)
    assert {name: type(value) for name, value in quality(cube).items()} == {
        "STANDARD NDET": int,
        "STANDARD LAMBDA": float,
        "STANDARD POS1 X": float,
        "STANDARD POS1 Y": float,
        "STANDARD FWHM1 X": float,
        "STANDARD FWHM1 Y": float,
        "STANDARD FWHM NVALID": int,
        "STANDARD FWHM MEDIAN": float,
        "STANDARD FWHM MAD": float,
    }
    assert {name: type(value) for name, value in quality(curve).items()} == {
        "STANDARD STARNAME": str,
        **{f"STANDARD THRU{wavelength}": float for wavelength in (5000, 7000, 8000, 9000)},
        **{f"STANDARD ZP {band}": float for band in "VRI"},
    }
    mark = {"ESO DRS MUSE FLUX FFCORR": True}
    assert cards(cube) == cards(curve) == cards(telluric) == mark
    prefix = "ESO DRS MUSE FLUX"
    found = cards(fluxes)
    names = [f"{prefix} OBJ1 {what}" for what in ("X", "Y", "RA", "DEC", "INTFLUX")]
    assert list(found) == [f"{prefix} FFCORR", f"{prefix} NOBJ", *names, f"{prefix} NSEL"]
    assert (found[f"{prefix} NOBJ"], found[f"{prefix} NSEL"]) == (1, 1)
    assert not any(measurements.comment == "" for item in result().products for measurements in item.measurements)


def test_quality_is_measured() -> None:
    cube, curve = quality(product(result(), "DATACUBE_STD")), quality(product(result(), "STD_RESPONSE"))
    assert cube["STANDARD NDET"] == 1
    assert cube["STANDARD FWHM1 X"] == pytest.approx(0.2 * 4.15, rel=0.1)  # of the profile, a little blurred
    assert (cube["STANDARD FWHM MEDIAN"], cube["STANDARD FWHM NVALID"]) == (0.0, 1)  # of three sources at least
    assert curve["STANDARD STARNAME"] == "Test star"
    curve_table = table(result(), "STD_RESPONSE")
    near = np.abs(curve_table["lambda"] - 7000) <= 100
    assert curve["STANDARD THRU7000"] == pytest.approx(curve_table["throughput"][near].mean())
    expected = -2.5 * np.log10(np.interp(7250, curve_table["lambda"], curve_table["throughput"]))
    assert curve["STANDARD ZP I"] == pytest.approx(expected, abs=0.01)
    no_filters = combine(instrument(TABLES), StandardParams(filter="none"))
    assert quality(product(no_filters, "STD_RESPONSE"))["STANDARD ZP I"] == -99
    assert list(planes(no_filters, "DATACUBE_STD")) == ["DATA", "STAT"]


def test_the_place_of_the_star_is_told_on_the_sky() -> None:
    found = cards(product(result(), "STD_FLUXES"))
    ra, dec = (float(str(found[f"ESO DRS MUSE FLUX OBJ1 {what}"])) for what in ("RA", "DEC"))
    assert (ra - 350) * 3600 * np.cos(np.radians(5)) == pytest.approx(-0.2 * STAR[0], abs=0.05)  # west is at +x
    assert (dec + 5) * 3600 == pytest.approx(0.2 * STAR[1], abs=0.05)


def test_data_of_the_first_kind_stay_so() -> None:
    tables = {channel: star_table(channel, spectrum=False) for channel in (11, 12)}
    found = combine(instrument(tables), StandardParams())
    assert all("ESO DRS MUSE FLUX FFCORR" not in cards(item) for item in found.products)
    mixed = instrument({11: TABLES[11], 12: tables[12]})
    with pytest.raises(RecipeError, match="Only 1 of 2 pixel tables"):
        combine(mixed, StandardParams())


def test_exposures_are_measured_each_with_its_own_airmass() -> None:
    low = replace(POINTING, airmass=(1.9, 1.9))
    moved = (STAR[0] + 6, STAR[1] + 1)
    second = {channel: star_table(channel, airmass=1.9, pointing=low, star=moved) for channel in (11, 12)}
    found = combine(instrument(TABLES, second, pointings=(POINTING, low)), StandardParams())
    assert found.warnings == result().warnings
    offset, scatter = away(table(found, "STD_RESPONSE"))
    assert abs(offset) < 0.01
    assert scatter < 0.005
    np.testing.assert_array_equal(
        planes(found, "DATACUBE_STD")["DATA"].values[:], planes(result(), "DATACUBE_STD")["DATA"].values[:]
    )


def test_clouds_between_exposures_are_told() -> None:
    dim = {channel: star_table(channel, scale=0.7) for channel in (11, 12)}
    for source in dim.values():
        source.keywords["ESO DRS MUSE FLAT FLUX SKY"] = 3e11  # type: ignore[index]
    found = combine(instrument(TABLES, dim), StandardParams())
    assert any("differ by -0.39 mag" in sentence for sentence in found.warnings)


@pytest.mark.parametrize("select", ["flux", "distance"])
def test_the_star_is_chosen_by_light_or_place(select: str) -> None:
    """A second star, fainter, and nearer to the zero point of the field where the telescope points."""
    both: dict[int, object] = {}
    for channel in (12, 13):
        bright = star_table(channel, star=(18.0, 0.7), noise=False)
        faint = star_table(channel, star=(-9.0, 0.5), noise=False)
        values = bright.plane("data").values[:]
        values += np.float32(0.5) * faint.plane("data").values[:]
        both[channel] = bright
    found = combine(instrument(both), StandardParams(select=select))  # type: ignore[arg-type]
    told = cards(product(found, "STD_FLUXES"))
    number = told["ESO DRS MUSE FLUX NSEL"]
    assert told["ESO DRS MUSE FLUX NOBJ"] == 2
    x = float(str(told[f"ESO DRS MUSE FLUX OBJ{number} X"])) - 1
    origin = float(str({k.name: k.value for k in planes(found, "DATACUBE_STD")["DATA"].keywords}["CRVAL1"]))
    assert origin + x == pytest.approx(18.0 if select == "flux" else -9.0, abs=0.3)


def test_no_star_or_one_at_the_edge_is_an_error() -> None:
    far = {12: star_table(12, star=(500.0, 500.0), noise=False)}
    with pytest.raises(RecipeError, match="No star stands 5 sigma above"):
        combine(instrument(far), StandardParams())
    edge = {12: star_table(12, star=(STAR[0], -10.0))}
    with pytest.raises(RecipeError, match=r"measured in 0 planes .* too near to the edge"):
        combine(instrument(edge), StandardParams())


def test_no_pixel_table_and_no_reference_are_errors() -> None:
    with pytest.raises(RecipeError, match="no pixel table"):
        combine(replace(instrument(TABLES), channels={}), StandardParams())
    with pytest.raises(RecipeError, match="nearest star of STD_FLUX_TABLE"):
        combine(instrument(TABLES, STD_FLUX_TABLE=catalogue(ra=10.0)), StandardParams())


def test_an_unknown_filter_is_told() -> None:
    assert any("no filter Sloan_r in FILTER_LIST" in sentence for sentence in result(filter="Sloan_r").warnings)


@pytest.mark.parametrize("change", [{"profile": "square"}, {"darcheck": "check"}, {"smooth": "spline"}])
def test_what_is_not_implemented_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ParameterError):
        StandardParams.from_mapping(change)
