"""Full-size frames of a channel through bias, dark and flat: on no count worse than ESO's recipes, and better on some.

ESO's figures are those of its pipeline 2.8.7 on such frames: bias level 0.003 adu, read noise 1.1 %, combined noise 7 %
above the ideal, middles of slices 0.0012 to 0.0018 pix and edges 0.0042 to 0.0052 pix rms.
"""

from datetime import date

import pytest

from benchmarks.__main__ import accuracy, raw_frames
from benchmarks.accuracy import Numbers
from benchmarks.reduce import reduce
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence
from recipes.simulator.truth import write_truth

pytestmark = pytest.mark.full

CHANNEL = 1
PLAN = NightPlan(
    night=date(2026, 6, 17), channels=(CHANNEL,), sequences=(Sequence.BIAS, Sequence.DARK, Sequence.FLAT), seed=5
)
# Quantity as benchmarks.accuracy names it, least, most.
BOUNDS = (
    ("bias level, adu", 0, 0.003),
    ("bias level, worst quadrant, adu", 0, 0.008),  # a quadrant's overscan tells its level to 0.003
    ("read noise error, %", 0, 1.1),
    ("bias noise over ideal", 0.99, 1.03),
    ("bias STAT over true variance", 0.95, 1.05),
    ("bias outliers beyond 6 sigma", 0, 0),
    ("bad-column pixels missed", 0, 0),
    ("bad-column pixels spurious", 0, 0),
    ("dark current error, electrons/h", 0, 0.03),
    ("dark noise over ideal", 0.99, 1.03),
    ("dark STAT over true variance", 0.95, 1.05),
    ("dark outliers beyond 6 sigma", 0, 0),
    ("hot pixels missed", 0, 0),
    ("dark pixels missed", 0, 0),
    ("dark pixels in the light", 30, 60),
    ("trace centre rms, pix", 0, 0.0012),
    ("trace centre max, pix", 0, 0.016),
    ("trace edges rms, pix", 0, 0.0042),
    ("trace edges max, pix", 0, 0.054),
    ("trace width rms, pix", 0, 0.0031),
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Numbers:
    night, folder = tmp_path_factory.mktemp("night"), tmp_path_factory.mktemp("products")
    for _ in write_night(PLAN, night):
        pass
    write_truth(PLAN, night)
    raws = raw_frames(night)
    products = reduce("muse_bias", raws["BIAS"], {}, folder, channel=CHANNEL)
    bias = {"MASTER_BIAS": products["MASTER_BIAS"]}
    reduce("muse_dark", raws["DARK"], bias, folder, channel=CHANNEL)
    reduce("muse_flat", raws["FLAT"], bias, folder, channel=CHANNEL)
    return accuracy(folder, night, raws, CHANNEL)


@pytest.mark.parametrize(("quantity", "least", "most"), BOUNDS, ids=[quantity for quantity, *_ in BOUNDS])
def test_products_agree_with_the_truth(found: Numbers, quantity: str, least: float, most: float) -> None:
    assert least <= found[quantity] <= most


def test_every_quantity_has_its_bounds(found: Numbers) -> None:
    assert set(found) == {quantity for quantity, *_ in BOUNDS}
