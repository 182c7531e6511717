"""Cubes by drizzle: light is kept, noise is told, cosmic rays go, and memory or disk makes no difference."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.cube import COSMIC_RAY_LIMIT, Drizzle, Grid, Planes, find_cosmic_rays
from recipes.diskarray import DiskArray
from recipes.exposure import FieldPixels, Limits
from recipes.recipe import Float32

EVERYWHERE = Limits((-1e9, 1e9), (-1e9, 1e9), (0.0, 1e9))


def pixels(x: object, y: object, wavelength: object, data: object, stat: object = 1.0) -> FieldPixels:
    """Pixels from anything that broadcasts."""
    arrays = [np.asarray(values, np.float32) for values in (x, y, wavelength, data, stat)]
    return FieldPixels(
        **dict(
            zip(
                ("x", "y", "wavelength", "data", "stat"),
                (array.reshape(-1).copy() for array in np.broadcast_arrays(*arrays)),
                strict=True,
            )
        )
    )


def filled(grid: Grid, *channels: FieldPixels) -> Planes:
    """The whole cube of some channels."""
    drizzle = Drizzle(grid, np.zeros)
    for channel in channels:
        drizzle.add([channel], EVERYWHERE)
    parts = list(drizzle.planes())
    return Planes(
        slice(0, grid.shape[0]),
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.stat for part in parts]),
    )


def slices(rows: int = 6, columns: int = 40, planes: int = 250, seed: int = 1) -> FieldPixels:
    """Slices at rows of the field, each read out line after line; 100 electrons and their noise."""
    rng = np.random.default_rng(seed)
    y, plane, x = np.indices((rows, planes, columns)).astype(float)
    x = 0.98 * x + 0.3 * rng.random((rows, 1, 1))
    y += 0.1 * rng.random((rows, 1, 1))
    wavelength = 5000 + 1.25 * (plane + 0.5 * rng.random((rows, 1, 1))) + 0.02 * x
    return pixels(x, y, wavelength, rng.normal(100, 10, y.shape), 100.0)


def test_the_grid_is_that_of_esos_recipes() -> None:
    """305 x 38 x 3681 voxels with the first in the corner, as muse_standard 2.8.7 made of these limits."""
    grid = Grid.around(Limits((-152.268, 151.950), (-23.414, 13.103), (4750.0, 9350.0)))
    assert grid.shape == (3681, 38, 305)
    assert (grid.x, grid.y, grid.wavelengths[1]) == (-152.268, -23.414, 4751.25)
    assert Grid.around(Limits((-152.268, 151.950), (-23.414, 13.103), (4750.0, 9350.0)), 50.0).shape == (93, 38, 305)


@given(st.floats(0.6, 3.4), st.floats(0.6, 2.4), st.floats(5000.7, 5003.5), st.sampled_from([1.25, 2.5, 50.0]))
def test_a_pixel_is_shared_by_the_voxels_it_covers(x: float, y: float, wavelength: float, step: float) -> None:
    grid = Grid(x=0, y=0, wavelength=5000, step=step, shape=(5, 4, 5))
    cube = filled(grid, pixels(x, y, wavelength, 7.0, 2.0))
    touched = np.isfinite(cube.data)
    assert 1 <= touched.sum() <= 8
    np.testing.assert_allclose(cube.data[touched], 7, rtol=1e-5)  # a voxel has the mean of what falls into it
    np.testing.assert_allclose(cube.stat[touched], 2, rtol=1e-4)
    planes, rows, columns = np.nonzero(touched)
    assert np.abs(columns - x).max() < 1
    assert np.abs(rows - y).max() < 1
    assert np.abs(5000 + step * planes - wavelength).max() < (step + 1.25) / 2


def test_a_voxel_weighs_pixels_by_their_shares() -> None:
    grid = Grid(x=0, y=0, wavelength=5000, shape=(1, 1, 1))
    cube = filled(grid, pixels([0.0, 0.25], [0.0, -0.5], [5000.0, 5000.0], [1.0, 9.0], [4.0, 16.0]))
    share = 0.75 * 0.5
    assert cube.data.item() == pytest.approx((1 + share * 9) / (1 + share))
    assert cube.stat.item() == pytest.approx((4 + share**2 * 16) / (1 + share) ** 2)


def test_an_even_field_stays_even_and_its_noise_is_told() -> None:
    field = slices()
    cube = filled(Grid.around(Limits((0.5, 38.5), (0.1, 5.0), (5001.0, 5310.0))), field)
    inner = cube.data[5:-5, 1:-1, 2:-2]
    assert np.isfinite(inner).all()
    assert inner.mean() == pytest.approx(100, abs=0.2)
    pull = (inner - 100) / np.sqrt(cube.stat[5:-5, 1:-1, 2:-2])
    assert pull.std() == pytest.approx(1, abs=0.03)


def test_channels_add_up_in_any_order() -> None:
    grid = Grid.around(Limits((0.0, 38.0), (0.0, 9.0), (5000.0, 5300.0)))
    first, second = slices(seed=1), slices(seed=2)
    second = FieldPixels(**{**vars(second), "y": second.y + np.float32(4.5)})
    one, other = filled(grid, first, second), filled(grid, second, first)
    np.testing.assert_allclose(one.data, other.data, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(one.data), np.isnan(one.stat))


def test_on_disk_is_as_in_memory(tmp_path: Path) -> None:
    grid = Grid.around(Limits((0.0, 38.0), (0.0, 5.0), (5000.0, 5300.0)))
    numbers = iter(range(9))

    def allocate(shape: tuple[int, ...], dtype: type[np.generic]) -> DiskArray:
        return DiskArray.zeros(tmp_path / str(next(numbers)), shape, dtype)

    drizzle = Drizzle(grid, allocate)
    drizzle.add([slices()], Limits((0.0, 39.0), (0.0, 5.1), (5000.0, 5314.0)))
    whole = filled(grid, slices())
    for part in drizzle.planes():
        np.testing.assert_array_equal(part.data, whole.data[part.which])
    (middle,) = drizzle.planes(100, 101)
    assert middle.which.start <= 100 < middle.which.stop


def with_cosmic_rays() -> tuple[FieldPixels, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """A field with a star, and 60 pixels hit."""
    field = slices()
    star = 4e4 / (1 + ((field.x - 19.3) ** 2 + (field.y - 2.6) ** 2) / 6) ** 2.5
    hit = np.zeros(len(field), bool)
    hit[np.random.default_rng(3).choice(len(field), 60, replace=False)] = True
    data: Float32 = (field.data + star + np.where(hit, 20000, 0)).astype(np.float32)
    return FieldPixels(**{**vars(field), "data": data, "stat": (100 + star).astype(np.float32)}), hit


def test_cosmic_rays_are_found_and_the_star_is_kept() -> None:
    field, hit = with_cosmic_rays()
    found = find_cosmic_rays(field, Grid.around(Limits((0, 39), (0, 5), (5000, 5313))), COSMIC_RAY_LIMIT)
    assert not (found & ~hit).any()
    far = hit & (np.hypot(field.x - 19.3, field.y - 2.6) > 4)
    assert found[far].mean() > 0.9  # beside another one, or at the end of the field, one may be overlooked


def test_cosmic_rays_do_not_get_into_the_cube() -> None:
    field, _ = with_cosmic_rays()
    grid = Grid.around(Limits((0, 39), (0, 5), (5000, 5313)))
    drizzle = Drizzle(grid, np.zeros)
    rejected = drizzle.add([field], EVERYWHERE, cosmic_rays=COSMIC_RAY_LIMIT)
    assert 45 <= rejected <= 60  # some stand beside each other or on the star
    far = np.concatenate([part.data[:, 1:-1, :12] for part in drizzle.planes()])
    assert np.nanmax(far) < 3000
