"""muse_geometry: both halves by files, every column and QC1 parameter, and the truth at full size."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mask_frames import all_places, line_catalog, mask_channel, stages, true_spots

from recipes.fits import open_source
from recipes.geometry import RECIPE, GeometryParams, combine, reduce
from recipes.muse import DETECTOR, SLICES, Detector
from recipes.products import primary_header, write_product
from recipes.recipe import Column, Instrument, Result, Table, TableSource
from recipes.simulator.field import slice_places
from recipes.sliceplaces import place_slices
from recipes.spotpassages import ChannelSpots, read_spots
from recipes.spots import select_lines

HEIGHTS = stages(-0.375, 0.2375, 0.0125)
LINES = select_lines(line_catalog())
EVERY = ("sky", "x", "y", "angle", "width")


def spots_table(channel: int, spots: ChannelSpots) -> Table:
    """SPOTS_TABLE of spots, in the columns that the second half of the recipe reads."""
    line, which, hole, frame = (index.ravel() for index in np.indices(spots.flux.shape))
    flux = spots.flux.ravel()
    return Table(
        columns=(
            Column(name="image", values=(frame + 1).astype(np.int32)),
            Column(name="VPOS", values=spots.heights[frame], unit="mm"),
            Column(name="ScaleFOV", values=np.full(len(flux), spots.scale), unit="arcsec/mm"),
            Column(name="SubField", values=np.full(len(flux), channel, np.int32)),
            Column(name="SliceCCD", values=(which + 1).astype(np.int32)),
            Column(name="lambda", values=spots.wavelengths[line], unit="Angstrom"),
            Column(name="SpotNo", values=(hole + 1).astype(np.int32)),
            Column(name="xfwhm", values=np.where(flux > 500, 2.6, -1.0), unit="pix"),
            Column(name="flux", values=flux),
            Column(name="dxcen", values=(spots.place[..., None] * 76.0 + 0 * spots.flux).ravel(), unit="pix"),
            Column(name="twidth", values=np.full(len(flux), 76.0), unit="pix"),
        )
    )


def instrument(folder: Path, channels: Sequence[int]) -> Instrument:
    """What the first half leaves of these channels, in files."""
    sources = {}
    for number, places in all_places(*channels).items():
        spots = true_spots(places, HEIGHTS)
        lit = replace(spots, wavelengths=LINES[[0, 3, 7, 9, 12, 20]])
        path = folder / f"SPOTS_TABLE-{number:02d}.fits"
        write_product(path, primary_header(), spots_table(number, lit))
        sources[number] = {"SPOTS_TABLE": open_source(path)}
    return Instrument(channels=sources, tables={"LINE_CATALOG": TableSource(line_catalog())})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return combine(instrument(tmp_path_factory.mktemp("spots"), (12, 13)), GeometryParams())


def test_spots_come_back_from_their_table() -> None:
    spots = true_spots(slice_places(5), HEIGHTS, lines=2)
    back = read_spots(spots_table(5, spots))
    assert back.flux == pytest.approx(spots.flux)
    assert back.place == pytest.approx(spots.place, abs=1e-9)
    assert back.heights.tolist() == spots.heights.tolist()


def test_the_tables_say_where_the_slices_look(result: Result) -> None:
    assert [product.catg for product in result.products] == list(RECIPE.makes[1:])
    assert result.warnings == ()
    for product in result.products:
        table = product.content
        assert isinstance(table, Table)
        rows = zip(table["SubField"].tolist(), table["SliceCCD"].tolist(), strict=True)
        places = [slice_places(channel)[slit - 1] for channel, slit in rows]
        true = {name: np.array([getattr(place, name) for place in places]) for name in EVERY}
        assert (table["SliceSky"] == true["sky"]).all()
        assert table["x"] - table["x"][0] == pytest.approx(true["x"] - true["x"][0], abs=2e-3)
        assert table["y"] - table["y"][0] == pytest.approx(true["y"] - true["y"][0], abs=2e-3)
        assert table["angle"] == pytest.approx(true["angle"], abs=2e-3)
        assert table["width"] == pytest.approx(true["width"], abs=2e-3)


def test_every_qc1_parameter_is_there_and_true(result: Result) -> None:
    unsmoothed, smoothed = ({m.name: m.value for m in product.measurements} for product in result.products)
    lines = range(1, len(LINES) + 1)
    names = {
        "GEO MASK ANGLE", "GEO GAPPOS MEAN", "GEO GAPPOS STDEV", "GEO TABLE NBAD",
        *(f"GEO IFU{n} {what}" for n in (12, 13) for what in ("ANGLE", "GAPPOS MEAN")),
        *(f"GEO IFU{n} WLEN{line}" for n in (12, 13) for line in lines),
        *(f"GEO IFU{n} WLEN{k} FLUX {s}" for n in (12, 13) for k in lines for s in ("MEAN", "MEDIAN", "STDEV")),
    }  # fmt: skip
    assert set(unsmoothed) == names
    assert set(smoothed) == names | {f"GEO SMOOTH N{what}" for what in ("X", "Y", "ANGLE", "WIDTH")}
    true = all_places(12, 13)
    for number, places in true.items():
        assert smoothed[f"GEO IFU{number} ANGLE"] == pytest.approx(np.median([p.angle for p in places]), abs=1e-3)
    every = [place.angle for places in true.values() for place in places]
    assert smoothed["GEO MASK ANGLE"] == pytest.approx(np.median(every), abs=1e-3)
    zero = np.mean([place.x for place in true[12] if place.sky in (24, 36)])
    gaps = []
    for places in true.values():
        ends = {place.sky: (place.x - place.width / 2, place.x + place.width / 2) for place in places}
        gaps.append(np.mean([(ends[sky][1] + ends[sky + 12][0]) / 2 for sky in range(13, 25)]) - zero)
    assert [smoothed["GEO IFU12 GAPPOS MEAN"], smoothed["GEO IFU13 GAPPOS MEAN"]] == pytest.approx(gaps, abs=2e-3)
    assert smoothed["GEO GAPPOS MEAN"] == pytest.approx(np.mean(gaps), abs=2e-3)
    assert smoothed["GEO GAPPOS STDEV"] == pytest.approx(np.std(gaps, ddof=1), abs=2e-3)
    assert [smoothed[f"GEO SMOOTH N{what}"] for what in ("X", "Y", "ANGLE", "WIDTH")] == [0, 0, 0, 0]
    assert smoothed["GEO TABLE NBAD"] == 0
    assert [smoothed[f"GEO IFU12 WLEN{line}"] for line in lines] == pytest.approx(LINES)
    # A passage of a hole with the light of true_spots: its height times its width over the steps of the mask.
    step = 0.0125 * 1.705 / 0.2
    assert smoothed["GEO IFU12 WLEN1 FLUX MEDIAN"] == pytest.approx(2e5 * 0.45 * np.sqrt(2 * np.pi) / step, rel=0.03)
    assert smoothed["GEO IFU13 WLEN21 FLUX MEAN"] == pytest.approx(2e5 / 6 * 0.45 * np.sqrt(2 * np.pi) / step, rel=0.03)
    assert np.isnan(smoothed["GEO IFU12 WLEN2 FLUX MEAN"])  # no spots were measured in that line


def test_without_smoothing_both_tables_are_the_same(tmp_path: Path) -> None:
    unsmoothed, smoothed = combine(instrument(tmp_path, (12,)), GeometryParams(smooth=0.0)).products
    assert isinstance(unsmoothed.content, Table)
    assert isinstance(smoothed.content, Table)
    for one, other in zip(unsmoothed.content.columns, smoothed.content.columns, strict=True):
        np.testing.assert_array_equal(one.values, other.values)
    found = {m.name: m.value for m in smoothed.measurements}
    assert {found[f"GEO SMOOTH N{what}"] for what in ("X", "Y", "ANGLE", "WIDTH")} == {-1}


def test_products_of_a_channel_and_of_all_are_those_declared(result: Result) -> None:
    channel = mask_channel(7, Detector(nx=104, ny=200, margin=16), HEIGHTS[::8])
    (spots,) = reduce(channel, GeometryParams()).products
    assert (spots.catg, *(product.catg for product in result.products)) == RECIPE.makes
    assert RECIPE.intermediate == ()


@pytest.mark.full
def test_a_full_size_channel_is_placed_as_it_is() -> None:
    heights = stages(-0.33, 0.32, 0.05)
    (spots,) = reduce(mask_channel(12, DETECTOR, heights), GeometryParams()).products
    assert isinstance(spots.content, Table)
    table = spots.content
    assert len(np.unique(table["SliceCCD"])) == SLICES
    places = place_slices({12: read_spots(table)}).places[12]
    true = {name: np.array([getattr(place, name) for place in slice_places(12)]) for name in EVERY}
    origin = np.isin(true["sky"], (24, 36))
    assert np.abs(places.x - true["x"] + true["x"][origin].mean()).max() < 0.01
    assert np.abs(places.y - true["y"] + true["y"][true["sky"] == 24]).max() < 0.01
    assert np.abs(places.angle - true["angle"]).max() < 0.005
    assert np.abs(places.width - true["width"]).max() < 0.01
