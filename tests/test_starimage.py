"""Stars in an image: found, measured, told from each other and from cosmic rays."""

import numpy as np
import pytest

from recipes.recipe import Float32
from recipes.sources import FIRST_POWER
from recipes.starimage import CENTROIDS, FieldStars, find_stars
from recipes.stats import Real

FWHM = 4.2  # pix
SQUARED = (FWHM / 2) ** 2 / (2 ** (1 / FIRST_POWER) - 1)
Placed = list[tuple[float, float, float]]
GRID: Placed = [
    (20.3 + 30 * i + 0.37 * j, 15.2 + 20 * j + 0.21 * i, 2e5 / (1 + i + 3 * j)) for i in range(4) for j in range(3)
]


def image_of(stars: Placed, shape: tuple[int, int] = (75, 140), seed: int = 1) -> tuple[Float32, Float32]:
    """An image of Moffat stars (x, y, flux) on a sky of 100 electrons."""
    rows, columns = np.indices(shape, dtype=float)
    image = np.full(shape, 100.0)
    for x, y, flux in stars:
        profile = (1 + ((columns - x) ** 2 + (rows - y) ** 2) / SQUARED) ** -FIRST_POWER
        image += flux * (FIRST_POWER - 1) / (np.pi * SQUARED) * profile
    stat = image.astype(np.float32)
    return np.random.default_rng(seed).poisson(image).astype(np.float32), stat


def nearest(stars: FieldStars, placed: Placed) -> Real:
    """Distance of each placed star to the nearest one found, pix."""
    return np.array([np.hypot(stars.x - x, stars.y - y).min() for x, y, _ in placed])


@pytest.mark.parametrize(("centroid", "limit"), [("moffat", 0.1), ("gaussian", 0.1), ("box", 0.3)])
def test_stars_are_where_they_were_put(centroid: str, limit: float) -> None:
    assert centroid in CENTROIDS
    stars = find_stars(*image_of(GRID), sigma=1.5, centroid=centroid)
    assert len(stars) == len(GRID)
    assert nearest(stars, GRID).max() < limit
    assert (np.diff(stars.flux) <= 0).all()
    if centroid == "moffat":
        assert stars.flux == pytest.approx(sorted((flux for *_, flux in GRID), reverse=True), rel=0.2)
        assert np.median(stars.x_width) == pytest.approx(FWHM, rel=0.12)  # less what resampling would have added
        pulls = nearest(stars, GRID) / np.hypot(stars.x_error, stars.y_error).mean()
        assert pulls.max() < 8


def test_two_stars_that_overlap_are_two() -> None:
    pair: Placed = [*GRID[4:], (60.0, 5 + 20.0, 1e5), (67.5, 5 + 21.5, 6e4)]
    stars = find_stars(*image_of(pair), sigma=1.5, centroid="moffat")
    assert nearest(stars, pair[-2:]).max() < 0.1


def test_a_hidden_star_widens_the_error() -> None:
    hidden: Placed = [*GRID, (GRID[5][0] + 2.5, GRID[5][1] + 1.0, 0.4 * GRID[5][2])]
    stars = find_stars(*image_of(hidden), sigma=1.5, centroid="moffat")
    x, y, _ = GRID[5]
    which = int(np.argmin(np.hypot(stars.x - x, stars.y - y)))
    off = np.hypot(stars.x[which] - x, stars.y[which] - y)
    assert off > 0.2
    others = np.arange(len(stars)) != which
    assert max(stars.x_error[which], stars.y_error[which]) > off / 4
    assert max(stars.x_error[which], stars.y_error[which]) > 5 * np.median(stars.x_error[others])


def test_stars_at_the_edge_are_left_out() -> None:
    cut: Placed = [*GRID, (2.0, 40.0, 1e5), (100.0, 73.0, 1e5)]
    image, stat = image_of(cut)
    image[:, 118:] = np.nan  # the field ends here, and a star of the grid is next to it
    stars = find_stars(image, stat, sigma=1.5, centroid="moffat")
    assert (stars.x > 5).all()
    assert (stars.y < 69).all()
    assert (stars.x < 113).all()
    assert len(stars) == sum(x < 112.5 for x, *_ in GRID)


def test_cosmic_rays_and_empty_images_give_no_stars() -> None:
    image, stat = image_of(GRID)
    image[45, 5:120:9] += 5e3
    assert len(find_stars(image, stat, sigma=1.5, centroid="moffat")) == len(GRID)
    for nothing in (np.full((30, 30), np.nan, np.float32), np.zeros((30, 30), np.float32)):
        assert len(find_stars(nothing, nothing, sigma=1.5, centroid="moffat")) == 0


def test_the_table_counts_from_one_and_leaves_unknown_stars_open() -> None:
    stars = find_stars(*image_of(GRID), sigma=1.5, centroid="moffat")
    ra = np.where(np.arange(len(stars)) > 2, 10.0, np.nan)
    table = stars.table(ra, ra)
    assert [(column.name, column.unit, column.values.dtype.str[1:]) for column in table.columns] == [
        (name, unit, "f8")
        for name, unit in (
            ("XPOS", "pix"), ("YPOS", "pix"), ("XERR", "pix"), ("YERR", "pix"), ("FLUX", "count"), ("XFWHM", "pix"),
            ("YFWHM", "pix"), ("RA", ""), ("DEC", ""),
        )
    ]  # fmt: skip
    assert table.name == "ASTROMETRY_SOURCES"
    assert table["XPOS"] == pytest.approx(stars.x + 1)
    assert np.isnan(table["RA"][:3]).all()
