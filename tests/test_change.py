"""What changed from the image before: shares of pixels that follow the noise, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from recipes.change import SIGMAS, measure_change, measurement_name
from recipes.recipe import Image

SHAPE = (300, 200)


@dataclass(frozen=True)
class Pixels:
    """An image in memory."""

    image: Image

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.image.data.shape
        return rows, columns

    def rows(self, start: int, stop: int) -> Image:
        one = self.image
        return Image(data=one.data[start:stop], dq=one.dq[start:stop], stat=one.stat[start:stop], unit=one.unit)


def image(seed: int, *, level: float = 0.0, sigma: float = 1.0, shape: tuple[int, int] = SHAPE) -> Image:
    data = np.random.default_rng(seed).normal(level, sigma, shape).astype(np.float32)
    stat = np.full(shape, sigma**2, np.float32)
    return Image(data=data, dq=np.zeros(shape, np.uint32), stat=stat, unit="adu")


def shares(ours: Image, before: Image, *, scaled: bool = False) -> dict[int, float]:
    found = measure_change(Pixels(ours), Pixels(before), scaled=scaled)
    return {sigma: float(item.value) for sigma, item in zip(SIGMAS, found, strict=True)} if found else {}


def test_two_images_of_the_same_differ_by_their_noise() -> None:
    found = shares(image(1), image(2))
    assert found[3] == pytest.approx(2 * norm.sf(3), abs=5e-4)  # 4 sigma of the 160 pixels expected
    assert (found[5], found[10]) == (0, 0)


def test_pixels_that_changed_are_counted() -> None:
    ours = image(1)
    ours.data[:30] += 100
    assert shares(ours, image(2))[10] == pytest.approx(0.1)


def test_flagged_pixels_and_those_without_variance_are_left_out() -> None:
    ours, before = image(1), image(2)
    ours.data[:30] += 100
    ours.dq[:20] = 1
    before.dq[20:25] = 1
    before.stat[25:30] = ours.stat[25:30] = 0
    assert shares(ours, before)[10] == 0
    ours.dq[:] = 1
    assert shares(ours, before) == {}


def test_a_scaled_image_may_be_brighter() -> None:
    ours, before = image(1, level=1000), image(2, level=2000)
    assert shares(ours, before)[10] == 1
    assert shares(ours, before, scaled=True)[5] < 1e-3
    assert shares(ours, image(2, level=-5), scaled=True) == {}


def test_images_of_other_shapes_are_not_compared() -> None:
    assert shares(image(1), image(2, shape=(300, 199))) == {}


def test_a_name_of_ours_is_none_of_a_header() -> None:
    """FITS keywords have capitals, digits, hyphens and underscores only (FITS standard, 4.1.2.1)."""
    assert measurement_name(5) == "changed beyond 5 sigma"
    assert all(measurement_name(sigma) == measurement_name(sigma).lower() for sigma in SIGMAS)
