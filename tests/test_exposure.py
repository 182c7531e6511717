"""The pixel tables of an exposure: one scale, one place, one kind."""

from dataclasses import replace

import numpy as np
import pytest
from star_field import MODE, POINTING, SKY, STAR, lamp, star_table, without

from recipes.exposure import FieldPixels, MergedExposure, flat_correction, flat_spectrum_removed, merge_exposure
from recipes.recipe import Pointing, RecipeError, Source
from recipes.refraction import displacement


def merged(tables: dict[int, Source], pointing: Pointing = POINTING, **changes: float) -> MergedExposure:
    limits = {"low": 4000.0, "high": 10000.0, "reference": 7000.0} | changes
    return merge_exposure(tables, pointing, mode=MODE, **limits)


def all_pixels(exposure: MergedExposure, channel: int) -> FieldPixels:
    (block,) = exposure.pixels(channel)
    return block


def test_channels_get_the_scale_of_the_first_and_the_lamp_is_put_back() -> None:
    exposure = merged({11: star_table(11, noise=False), 12: star_table(12, scale=0.8, noise=False)})
    assert exposure.flat_corrected
    assert exposure.scales == pytest.approx({11: 1.0, 12: 0.8})
    for channel in (11, 12):
        pixels = all_pixels(exposure, channel)
        far = np.hypot(pixels.x - STAR[0], pixels.y - STAR[1]) > 12
        # What is left is the star's wing; the lamp spectrum is smoothed from 1.25 Angstrom to straight lines.
        assert np.percentile(pixels.data[far], 5) == pytest.approx(SKY, abs=2.5)
        np.testing.assert_allclose(pixels.stat, pixels.data, rtol=2e-3)  # factors go squared into the variance


def test_without_twilight_the_lamp_flats_scale_and_a_sentence_says_so() -> None:
    tables = {11: star_table(11), 12: without(star_table(12), "ESO DRS MUSE FLAT FLUX SKY")}
    exposure = merged(dict(tables))
    assert exposure.scales == {11: 1.0, 12: 1.0}
    assert "no twilight" in exposure.warnings[0]


def test_stars_stand_where_they_are_at_the_reference() -> None:
    table, zero = star_table(12), merged({12: star_table(12)}, reference=-1.0)
    exposure = merged({12: table})
    assert exposure.refraction_corrected
    assert not zero.refraction_corrected
    moved, plain = all_pixels(exposure, 12), all_pixels(zero, 12)
    right, up = displacement(plain.wavelength, POINTING, 7000.0)
    np.testing.assert_allclose(moved.x, plain.x + right, atol=2e-4)
    np.testing.assert_allclose(moved.y, plain.y + up, atol=2e-4)
    limits = exposure.limits()[12]
    assert limits.x == (moved.x.min(), moved.x.max())
    assert limits.y == (moved.y.min(), moved.y.max())


def test_without_a_direction_it_says_that_nothing_is_corrected() -> None:
    exposure = merged({12: star_table(12)}, replace(POINTING, airmass=(float("nan"), 1.3)))
    assert not exposure.refraction_corrected
    assert "refraction" in exposure.warnings[0]


def test_wavelengths_are_cut_off() -> None:
    pixels = all_pixels(merged({12: star_table(12)}, low=7000.0, high=7100.0), 12)
    assert 7000 <= pixels.wavelength.min() < 7001
    assert 7099 < pixels.wavelength.max() <= 7100
    with pytest.raises(RecipeError, match="No pixel lies between 9400 and 9800"):
        merged({12: star_table(12)}, low=9400.0).limits()


def test_flagged_pixels_are_left_out_but_for_the_notch() -> None:
    table = star_table(12)
    flags = table.plane("dq").values[:]
    flags[5], flags[6] = 1 << 5, 1 << 27
    assert len(all_pixels(merged({12: table}), 12)) == len(flags) - 1


def test_a_mixture_of_kinds_is_an_error() -> None:
    with pytest.raises(RecipeError, match=r"Only 1 of 2 pixel tables .* missing in channel 12"):
        merged({11: star_table(11), 12: star_table(12, spectrum=False)})


def test_kinds_are_told_by_the_keyword_whatever_its_value() -> None:
    first, second = (merged({12: star_table(12, spectrum=spectrum)}) for spectrum in (False, True))
    assert not first.flat_corrected
    assert flat_correction(first.flat_corrected) == ()
    (mark,) = flat_correction(second.flat_corrected)
    assert (mark.name, mark.value) == ("ESO DRS MUSE FLUX FFCORR", True)
    assert flat_spectrum_removed({mark.name: False})
    assert not flat_spectrum_removed({"ESO DRS MUSE FLUX NOBJ": 1})
    assert lamp(np.array([7000.0]))[0] == 0.9
