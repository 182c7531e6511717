"""Response: the right star, the right unit of light, telluric bands, ends and tables."""

from dataclasses import replace

import numpy as np
import pytest
from star_field import EXPTIME, EXTINCTION, POINTING, STEP, Named, catalogue, extinction, flux

from recipes.filters import Filter
from recipes.recipe import Column, RecipeError, Table, TableSource
from recipes.response import (
    PHOTON_ENERGY,
    TELLURIC_BANDS,
    Band,
    ReferenceStar,
    Sensitivity,
    air_wavelength,
    choose_reference,
    extend,
    mean_sensitivity,
    mean_throughput,
    measure_sensitivity,
    reference_warning,
    remove_telluric,
    response_table,
    restrict_to_mode,
    telluric_bands,
    telluric_table,
    throughput,
    zero_point,
)

WAVELENGTH = np.arange(6700.0, 7700.0, STEP)
LINE = 40.9 - 0.25 * (WAVELENGTH - 7000) / 1000
B_BAND = TELLURIC_BANDS[1]


def sensitivity(value: np.ndarray[tuple[int], np.dtype[np.float64]] = LINE, error: float = 0.002) -> Sensitivity:
    return Sensitivity(
        wavelength=WAVELENGTH, value=value, error=np.full(len(value), error), transmission=np.full(len(value), np.nan)
    )


def test_the_nearest_star_is_taken() -> None:
    star = choose_reference(catalogue(), POINTING)
    assert (star.name, round(star.distance, 6)) == ("TEST", 0)
    np.testing.assert_allclose(star.flux, flux(star.wavelength))
    assert reference_warning(star) == ()


@pytest.mark.parametrize(("arcsec", "warned"), [(19.0, False), (21.0, True), (59.0, True)])
def test_a_star_that_is_rather_far_is_told(arcsec: float, warned: bool) -> None:  # noqa: FBT001 - a parameter
    star = choose_reference(catalogue(dec=-5 + arcsec / 3600), POINTING)
    assert star.distance == pytest.approx(arcsec)
    assert bool(reference_warning(star)) == warned


@pytest.mark.parametrize("files", [catalogue(dec=-5 + 61 / 3600), Named()], ids=["far", "none"])
def test_no_star_near_is_an_error(files: Named) -> None:
    with pytest.raises(RecipeError, match="nearest star of STD_FLUX_TABLE"):
        choose_reference(files, POINTING)


def test_calspec_tables_are_in_vacuum() -> None:
    vacuum = np.arange(4000.0, 10000.0, 2.0, dtype=np.float32)
    columns = (
        Column(name="WAVELENGTH", values=vacuum, unit="ANGSTROMS"),
        Column(name="FLUX", values=flux(vacuum.astype(float)).astype(np.float32), unit="FLAM"),
        Column(name="STATERROR", values=3e-17 * np.ones(len(vacuum)), unit="FLAM"),
        Column(name="SYSERROR", values=4e-17 * np.ones(len(vacuum)), unit="FLAM"),
    )
    star = choose_reference(catalogue(columns=columns), POINTING)
    assert air_wavelength(np.array([6564.61]))[0] == pytest.approx(6562.80, abs=0.01)  # H alpha
    np.testing.assert_allclose(star.wavelength, air_wavelength(vacuum.astype(float)))
    np.testing.assert_allclose(star.error, 5e-17)


def test_another_layout_is_refused_by_its_columns() -> None:
    columns = (Column(name="lambda", values=np.ones(2), unit="nm"), Column(name="flux", values=np.ones(2), unit="Jy"))
    with pytest.raises(RecipeError, match=r"lambda \[nm\], flux \[Jy\]"):
        choose_reference(catalogue(columns=columns), POINTING)


def test_the_unit_is_electrons_of_a_second_and_angstrom_above_the_air() -> None:
    star = choose_reference(catalogue(), POINTING)
    airmass = 1.3
    electrons = 10 ** (0.4 * (LINE - airmass * EXTINCTION)) * flux(WAVELENGTH) * EXPTIME * STEP
    electrons[3], electrons[4] = np.nan, -1.0
    found = measure_sensitivity(
        WAVELENGTH,
        electrons,
        np.where(np.isfinite(electrons), (0.01 * electrons) ** 2, np.nan),
        star,
        exptime=EXPTIME,
        step=STEP,
        airmass=airmass,
        extinction=extinction().table,
    )
    assert len(found.wavelength) == len(WAVELENGTH) - 2
    np.testing.assert_allclose(found.value, np.delete(LINE, (3, 4)), atol=2e-5)
    np.testing.assert_allclose(found.error, 1.0857 * np.hypot(0.01, 0.005), rtol=1e-3)


def test_a_telluric_band_is_bridged_and_its_transmission_told() -> None:
    absorbed = np.where(
        np.abs(WAVELENGTH - (B_BAND.low + B_BAND.high) / 2) <= (B_BAND.high - B_BAND.low) / 2,
        1 - 0.4 * np.exp(-(((WAVELENGTH - 6915) / 20) ** 2)),
        1.0,
    )
    airmass = 1.4
    curved = LINE - 0.1 * ((WAVELENGTH - 6900) / 300) ** 2
    seen = sensitivity(curved + 2.5 * airmass * np.log10(absorbed))
    found, warnings = remove_telluric(seen, (B_BAND,), airmass)
    assert warnings == ()
    np.testing.assert_allclose(found.value, curved, atol=2e-4)
    inside = np.isfinite(found.transmission)
    assert (WAVELENGTH[inside].min(), WAVELENGTH[inside].max()) == (6865.0, 6966.25)
    np.testing.assert_allclose(found.transmission[inside], absorbed[inside], atol=5e-4)


def test_a_band_at_the_end_is_bridged_by_a_line_and_one_without_surroundings_is_told() -> None:
    end = Band(7500.0, 7800.0, 7200.0, 7499.0)
    found, warnings = remove_telluric(sensitivity(), (end,), 1.0)
    np.testing.assert_allclose(found.value, LINE, atol=1e-6)
    alone = Band(7500.0, 7600.0, 7500.0, 7600.0)
    found, warnings = remove_telluric(sensitivity(), (alone, Band(9000.0, 9100.0, 8900.0, 9200.0)), 1.0)
    assert len(warnings) == 2
    assert "7500 to 7600 Angstrom is left as it is: nothing is known beside it" in warnings[0]
    assert "the data end at 6700 and 7699" in warnings[1]
    assert np.isnan(found.transmission).all()


def test_bands_may_be_given() -> None:
    columns = tuple(
        Column(name=name, values=np.array([value]), unit="Angstrom")
        for name, value in zip(("lmin", "lmax", "bgmin", "bgmax"), (7000.0, 7010.0, 6990.0, 7020.0), strict=True)
    )
    assert telluric_bands(TableSource(Table(columns=columns))) == (Band(7000.0, 7010.0, 6990.0, 7020.0),)
    assert telluric_bands(None) == TELLURIC_BANDS
    assert len(TELLURIC_BANDS) == 7


def test_it_is_extended_by_lines_with_growing_errors() -> None:
    found = extend(sensitivity(), sharp=False)
    assert (found.wavelength[0], found.wavelength[-1]) == pytest.approx((4150, 9800))
    assert (np.diff(found.wavelength) > 0).all()
    np.testing.assert_allclose(found.value, 40.9 - 0.25 * (found.wavelength - 7000) / 1000, atol=1e-6)
    assert found.error[0] == pytest.approx(0.002 * (1 + 2 * 2550 / 50))
    assert len(found.wavelength) == len(WAVELENGTH) + 200


@pytest.mark.parametrize(("mode", "first"), [("WFM-NOAO-N", 4750.0), ("WFM-AO-N", 4690.0), ("WFM-NOAO-E", 4550.0)])
def test_what_is_bluer_than_the_mode_is_left_out(mode: str, first: float) -> None:
    grid = np.arange(4550.0, 4800.0, 1.25)
    wide = Sensitivity(wavelength=grid, value=grid, error=grid, transmission=grid)
    assert restrict_to_mode(wide, mode).wavelength[0] == pytest.approx(first, abs=1.25)


def test_several_exposures_are_averaged_by_their_errors() -> None:
    one, other = sensitivity(LINE, 0.001), sensitivity(LINE + 0.05, 0.002)
    other = replace(other, transmission=np.where(WAVELENGTH > 7500, 0.9, np.nan))
    found = mean_sensitivity([one, other])
    np.testing.assert_allclose(found.value, LINE + 0.01, atol=1e-9)  # 0.05 by the weights 4 and 1
    np.testing.assert_allclose(found.error, 1 / np.sqrt(1 / 0.001**2 + 1 / 0.002**2))
    assert np.nanmin(found.transmission) == 0.9
    assert mean_sensitivity([one]) is one


def test_telluric_rows_are_those_of_the_bands_in_a_frame_of_ones() -> None:
    transmission = np.full(len(WAVELENGTH), np.nan)
    transmission[100:104], transmission[300:302] = [0.9, 0.5, 1.0, 0.99995], [1.0, 1.0]
    table = telluric_table(replace(sensitivity(), transmission=transmission))
    np.testing.assert_array_equal(table["lambda"], WAVELENGTH[[99, 100, 101, 102, 103, 104, 300, 301]])
    np.testing.assert_array_equal(table["ftelluric"], [1, 0.9, 0.5, 1, 0.99995, 1, 1, 1])
    np.testing.assert_allclose(table["ftellerr"], [1e-4, 0.1, 0.1, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])


@pytest.mark.parametrize("smooth", ["none", "median", "ppoly"])
def test_the_table_has_esos_columns(smooth: str) -> None:
    table = response_table(extend(sensitivity(), sharp=True), smooth, "WFM-NOAO-N", flat_corrected=True)
    names = [column.name for column in table.columns]
    unsmoothed = [] if smooth == "none" else ["response_unsmoothed", "resperr_unsmoothed"]
    assert names == ["lambda", "response", "resperr", *unsmoothed, "throughput"]
    assert all(column.values.dtype == np.float64 for column in table.columns)
    np.testing.assert_allclose(table["response"], 40.9 - 0.25 * (table["lambda"] - 7000) / 1000, atol=1e-3)


def test_throughput_is_that_of_photons() -> None:
    """All photons of 1 erg/s/cm**2/Angstrom on the telescope are a throughput of 1."""
    photons = 2.5 * np.log10(483250.7 * WAVELENGTH / PHOTON_ENERGY)
    np.testing.assert_allclose(throughput(WAVELENGTH, photons), 1, rtol=1e-6)
    assert pytest.approx(1.98644586e-8) == PHOTON_ENERGY
    table = Table(
        columns=(Column(name="lambda", values=WAVELENGTH), Column(name="throughput", values=WAVELENGTH / 1e4))
    )
    assert mean_throughput(table, 7000.0) == pytest.approx(0.7)
    assert np.isnan(mean_throughput(table, 5000.0))


def test_the_zero_point_is_the_light_that_is_lost_in_a_filter() -> None:
    star = ReferenceStar(name="", wavelength=WAVELENGTH, flux=flux(WAVELENGTH), error=0 * WAVELENGTH, distance=0.0)
    table = Table(
        columns=(
            Column(name="lambda", values=WAVELENGTH),
            Column(name="throughput", values=np.full(len(WAVELENGTH), 0.25)),
        )
    )
    inside = Filter(name="in", wavelength=np.array([7000.0, 7100.0]), throughput=np.ones(2))
    outside = Filter(name="out", wavelength=np.array([5000.0, 5100.0]), throughput=np.ones(2))
    assert zero_point(table, star, inside) == pytest.approx(2.5 * np.log10(4))
    assert np.isnan(zero_point(table, star, outside))
