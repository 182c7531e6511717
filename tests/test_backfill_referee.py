"""Real products of ESO's pipeline are taken in, and the planner and our readers use them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from referee import CHANNEL, Referee, ask_referee
from sqlalchemy import select
from test_backfill import NOW, Archive, site_of

from archive.models import Product, Step
from archive.registry import Registry
from archive.states import GroupState, Score
from archive.store import Transfer
from archive.verification import verify
from recipes.fits import open_image, read_table
from tasks.advance import advance
from tasks.intake import Intake
from tasks.lineage import link_runs
from tasks.work import work_of

pytestmark = [pytest.mark.full, pytest.mark.referee, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def eso(tmp_path_factory: pytest.TempPathFactory) -> Referee:
    return ask_referee(tmp_path_factory)


@pytest.fixture
def taken(eso: Referee, sqlite: Path, tmp_path: Path) -> Iterator[Archive]:
    """What ESO's recipes made of the night, and the bias and dark frames of it, as an archive that was taken in."""
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, tmp_path / 'registry.sqlite')}")
    tree = tmp_path / "tree"
    tree.mkdir()
    for path in (*eso.products.values(), *eso.raw["BIAS"], *eso.raw["DARK"]):
        (tree / path.name).symlink_to(path)
    archive = Archive(site_of(registry, tmp_path / "archive"), tree)
    found = archive.take(Transfer.LEAVE)
    assert {item.became for item in found} == {"frame", "master"}
    yield archive
    registry.close()


def test_each_product_is_known_by_its_header(eso: Referee, taken: Archive) -> None:
    products = {product.catg: product for product in taken.products()}
    assert products.keys() == eso.products.keys()
    for catg, product in products.items():
        header = fits.getheader(eso.products[catg])
        assert product.name.endswith(f"-{CHANNEL:02d}.fits")
        assert product.channels == [CHANNEL]
        assert product.signature == header["DATAMD5"]
        values = {name[7:]: header[name] for name in header if name.startswith("ESO QC ")}
        assert {row.name: row.value if not row.text else row.text for row in product.measurements} == values
        assert product.score in (Score.GREEN, Score.NONE), product.score_reason
    assert list(verify(taken.site.registry, taken.site.store)) == []


def test_what_it_was_made_of_is_found_by_name_and_by_signature(taken: Archive) -> None:
    steps = {product.step.name: product.step for product in taken.products() if product.step}
    assert {step.recipe_version.partition("/")[0] for step in steps.values()} == {"eso"}
    uses = {name: sorted(use.tag for use in step.uses) for name, step in steps.items()}
    assert uses == {"bias": ["BIAS"] * 11, "dark": ["DARK"] * 5 + ["MASTER_BIAS"]}  # the others have no frames here
    assert [group.state for group in taken.groups()] == [GroupState.ARCHIVED] * 2


def test_our_flat_is_made_with_their_bias(eso: Referee, taken: Archive) -> None:
    site = taken.site
    intake = Intake(site.registry, site.store, site.settings, transfer=Transfer.LEAVE)
    for path in eso.raw["FLAT"]:
        intake.take(path, NOW)
    advance(site.registry, site.settings, NOW)
    with site.registry.read() as session:
        step = session.scalars(select(Step).where(Step.name == "flat", Step.recipe_version == "1")).one()
        work = work_of(step, CHANNEL)
        bias = open_image(work.calibrations["MASTER_BIAS"], CHANNEL)
        data = fits.getdata(eso.products["MASTER_BIAS"], "DATA")
        np.testing.assert_array_equal(bias.rows(1000, 1010).data, data[1000:1010])
        trace = session.scalars(select(Product).where(Product.catg == "TRACE_TABLE")).one()
        assert len(read_table(Path(trace.path), CHANNEL).table.columns[0].values) == 48
    link_runs(site.registry, NOW)
    with site.registry.read() as session:
        makes = session.scalars(select(Step).where(Step.name == "flat").order_by(Step.sequence)).all()
        assert [make.recipe_version.partition("/")[0] for make in makes] == ["eso", "1"]
