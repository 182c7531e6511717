"""Static calibrations: every row of ESO's table is taken in under its name, or turned down with a reason."""

import math
import re
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from sqlalchemy import select

from archive.formats import Unfit
from archive.inspection import inspect
from archive.models import Arrival, Event, Frame, Part, Product
from archive.registry import Registry
from archive.select import siblings
from archive.setup import Setup, SetupKey
from archive.states import ArrivalState, Certification
from archive.store import Store, Transfer, digest_of
from archive.validity import Standing, validities
from archive.verification import verify
from recipes.muse import Detector, Flag
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence
from recipes.simulator.statics import write_static, write_statics
from tasks.advance import advance
from tasks.failures import FINISH
from tasks.intake import Intake, Taken
from tasks.orders import retire
from tasks.parts import run_part
from tasks.settings import Settings, WatchSettings
from tasks.site import Site as TaskSite
from tasks.statics import recognise
from tasks.thresholds import read_thresholds
from tasks.verdicts import Scoring

NOW = datetime(2026, 6, 17, 11, tzinfo=UTC)
SCORING = Scoring(read_thresholds())
BEGIN = 56658.0  # 2014-01-01
NIGHT = date(2026, 6, 16)
PLAN = NightPlan(night=NIGHT, channels=(3, 12), detector=Detector(nx=64, ny=64))
# The table of static calibration files on ESO's page, with a day for its "date", and what each name says of the setup.
PAGE = [
    ("MU_GASR_140101A_astrom_cat.fits", "ASTROMETRY_REFERENCE", Setup()),
    ("MU_GASW_140101A_astrom_wcs_wfm.fits", "ASTROMETRY_WCS", Setup(optics="WFM")),
    ("MU_GBPT_140101A_badpix_table.fits", "BADPIX_TABLE", Setup()),
    ("MU_GEOT_140101A_geometry_table_wfm.fits", "GEOMETRY_TABLE", Setup(optics="WFM")),
    ("MU_GEXT_140101A_extinct_table.fits", "EXTINCT_TABLE", Setup()),
    ("MU_GFIL_140101A_filter_list.fits", "FILTER_LIST", Setup()),
    ("MU_GLNC_140101A_line_cat.fits", "LINE_CATALOG", Setup()),
    ("MU_GSDR_140101A_std_response_wfm-e.fits", "STD_RESPONSE", Setup(mode="WFM-E", optics="WFM")),
    ("MU_GSDR_140101A_std_response_wfm-n.fits", "STD_RESPONSE", Setup(mode="WFM-N", optics="WFM")),
    ("MU_GSDR_140101A_std_response_nfm-ao-n.fits", "STD_RESPONSE", Setup(mode="NFM-AO-N", optics="NFM")),
    ("MU_GSFT_140101A_stdflux_table.fits", "STD_FLUX_TABLE", Setup()),
    ("MU_GSKL_140101A_sky_lines.fits", "SKY_LINES", Setup()),
    ("MU_GVIM_140906A_vignetting_mask.fits", "VIGNETTING_MASK", Setup()),
    ("MU_GLSP_140101A_lsf_profile_slow_wfm-e.fits", "LSF_PROFILE", Setup(mode="WFM-E", readout="SCI1.0", optics="WFM")),
    ("MU_GLSP_140101A_lsf_profile_slow_wfm-n.fits", "LSF_PROFILE", Setup(mode="WFM-N", readout="SCI1.0", optics="WFM")),
    ("MU_GLST_140501A_lsf_table.fits", "LSF_TABLE", Setup()),
    ("MU_GLSC_141014A_lsf_cube_slow_wfm-e.fits", "LSF_CUBE", Setup(mode="WFM-E", readout="SCI1.0", optics="WFM")),
    ("MU_GLSC_141014A_lsf_cube_slow_wfm-n.fits", "LSF_CUBE", Setup(mode="WFM-N", readout="SCI1.0", optics="WFM")),
]

Edit = Callable[[fits.HDUList], object]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A static calibration of each type that the simulator writes; LSF_PROFILE of one channel."""
    folder = tmp_path_factory.mktemp("statics")
    return {fits.getheader(path)["ESO PRO CATG"]: path for path in write_statics(PLAN, folder)}


class Site:
    """An archive below one folder, and its incoming folder."""

    def __init__(self, folder: Path, registry: Registry, written: dict[str, Path]) -> None:
        self.incoming, self.root, self.written = folder / "incoming", folder / "archive", written
        self.incoming.mkdir()
        self.registry, self.store = registry, Store(self.root)

    def file(self, catg: str, name: str = "", edit: Edit | None = None) -> Path:
        """Put a file into the incoming folder as it would come from ESO: without its setup in the header."""
        path = self.incoming / (name or f"{catg.lower()}.fits")
        shutil.copyfile(self.written.get(catg, self.written["LINE_CATALOG"]), path)
        with fits.open(path, mode="update") as units:
            header = units[0].header
            header["ESO PRO CATG"] = catg
            for keyword in ("ESO INS MODE", "ESO INS OPTI2 NAME", "ESO DET READ CURNAME", "ESO DET READ CURID"):
                header.remove(keyword, ignore_missing=True)
            if edit is not None:
                edit(units)
        return path

    def take(self, path: Path, transfer: Transfer = Transfer.MOVE) -> Taken:
        return Intake(self.registry, self.store, Settings(watch=WatchSettings(transfer=transfer))).take(path, NOW)

    def product(self, taken: Taken) -> Product:
        with self.registry.read() as session:
            product = session.get_one(Product, taken.product_id)
            _ = product.geometry, product.solutions, product.arrivals
            return product

    def rows(self, kind: type[Any]) -> list[Any]:
        with self.registry.read() as session:
            return list(session.scalars(select(kind).order_by(kind.id)))


@pytest.fixture
def site(tmp_path: Path, registry: Registry, written: dict[str, Path]) -> Site:
    return Site(tmp_path, registry, written)


def set_card(keyword: str, value: object, unit: int = 0) -> Edit:
    def edit(units: fits.HDUList) -> None:
        units[unit].header[f"HIERARCH {keyword}" if " " in keyword else keyword] = value

    return edit


def set_cards(cards: dict[str, object]) -> Edit:
    def edit(units: fits.HDUList) -> None:
        units[0].header.update(cards)

    return edit


def test_every_row_of_the_page_is_taken_in_under_its_name(site: Site) -> None:
    for name, catg, setup in PAGE:
        path = site.file(catg, name, set_card("OBJECT", name))  # no two are the same
        digest = digest_of(path)
        taken = site.take(path)
        assert (taken.state, taken.reason) == (ArrivalState.INGESTED, "")
        product = site.product(taken)
        assert (product.catg, product.name, product.static, product.step_id) == (catg, name, True, None)
        assert (product.mjd, product.setup, product.certification) == (BEGIN, setup, Certification.CERTIFIED)
        kept = site.root / "statics" / name
        assert (product.path, product.digest, product.size) == (str(kept), digest, kept.stat().st_size)
        assert digest_of(kept) == digest
        assert stat.S_IMODE(kept.stat().st_mode) == 0o444
        assert not path.exists()
        assert [arrival.path for arrival in product.arrivals] == [str(path)]
    assert len(site.rows(Arrival)) == len(PAGE) == 18
    assert {event.what for event in site.rows(Event)} == {"static calibration taken in", "paired"}
    assert site.rows(Frame) == []
    assert list(verify(site.registry, site.store)) == []


def test_the_same_content_again_is_a_duplicate_under_any_name(site: Site) -> None:
    first = site.file("LINE_CATALOG", "MU_GLNC_140101A_line_cat.fits")
    again = Path(shutil.copy(first, site.incoming / "lines.fits"))
    product = site.product(site.take(first))
    taken = site.take(again)
    assert (taken.state, taken.product_id) == (ArrivalState.DUPLICATE, product.id)
    assert not again.exists()
    assert len(site.rows(Product)) == 1


@pytest.mark.parametrize("transfer", list(Transfer))
def test_taking_again_changes_nothing(site: Site, transfer: Transfer) -> None:
    path = site.file("EXTINCT_TABLE")
    first = site.take(path, transfer)
    if transfer is not Transfer.MOVE:
        assert site.take(path, transfer) == first
        assert stat.S_IMODE(path.stat().st_mode) != 0o444  # the archive has bytes of its own
    assert len(site.rows(Arrival)) == len(site.rows(Product)) == 1


def test_a_kill_between_the_bytes_and_the_rows_is_mended_by_taking_again(site: Site) -> None:
    path = site.file("EXTINCT_TABLE", "MU_GEXT_140101A_extinct_table.fits")
    site.store.keep_static(path, path.name, transfer=Transfer.MOVE)
    taken = site.take(path)
    assert (taken.state, site.product(taken).name) == (ArrivalState.INGESTED, path.name)
    assert [file.name for file in (site.root / "statics").iterdir()] == [path.name]


def test_other_content_under_a_name_is_its_next_version(site: Site) -> None:
    name = "MU_GEXT_140101A_extinct_table.fits"
    site.take(site.file("EXTINCT_TABLE", name))
    newer = site.take(site.file("EXTINCT_TABLE", name, set_card("OBJECT", "corrected")))
    assert site.product(newer).name == "MU_GEXT_140101B_extinct_table.fits"


@pytest.mark.parametrize(
    ("catg", "name", "becomes"),
    [
        ("LINE_CATALOG", "line_catalog.fits", "MU_GLNC_140101A_line_cat.fits"),
        ("GEOMETRY_TABLE", "geometry_table_wfm_gto17.fits", "MU_GEOT_140101A_geometry_table_wfm.fits"),
        ("LSF_PROFILE", "lsf_profile_slow_wfm-n.fits", "MU_GLSP_140101A_lsf_profile_slow_wfm-n-12.fits"),
        ("STD_RESPONSE", "std_response_wfm-ao-n.fits", "MU_GSDR_140101A_std_response_wfm-ao-n.fits"),
        ("ASTROMETRY_WCS", "M.MUSE.2017-06-16T01:02:03.000_nfm.fits", "MU_GASW_140101A_astrom_wcs_nfm.fits"),
    ],
)
def test_any_other_name_becomes_one_of_the_scheme(site: Site, catg: str, name: str, becomes: str) -> None:
    assert site.product(site.take(site.file(catg, name))).name == becomes


def test_the_name_tells_what_the_header_lacks(site: Site) -> None:
    def strip(units: fits.HDUList) -> None:
        for keyword in ("MJD-OBS", "INSTRUME", "ESO PRO CATG"):
            del units[0].header[keyword]

    product = site.product(site.take(site.file("EXTINCT_TABLE", "MU_GEXT_150203B_extinct_table.fits", strip)))
    assert (product.catg, product.mjd, product.name) == (
        "EXTINCT_TABLE", BEGIN + 398, "MU_GEXT_150203B_extinct_table.fits",
    )  # fmt: skip


def test_the_header_goes_before_the_name_as_to_the_begin_of_validity(site: Site) -> None:
    path = site.file("EXTINCT_TABLE", "MU_GEXT_150203A_extinct_table.fits", set_card("MJD-OBS", 57000.25))
    assert site.product(site.take(path)).mjd == 57000.25


def test_a_mode_is_one_of_the_family_of_the_name(site: Site) -> None:
    name, mode = "MU_GSDR_140101A_std_response_wfm-n.fits", "ESO INS MODE"
    assert site.product(site.take(site.file("STD_RESPONSE", name, set_card(mode, "WFM-AO-N")))).mode == "WFM-N"
    alone = site.product(site.take(site.file("STD_RESPONSE", "response.fits", set_card(mode, "WFM-NONAO-N"))))
    assert (alone.mode, alone.name) == ("WFM-NOAO-N", "MU_GSDR_140101A_std_response_wfm-noao-n.fits")
    wrong = site.take(site.file("STD_RESPONSE", name, set_card(mode, "WFM-AO-E")))
    assert (wrong.state, wrong.reason) == (
        ArrivalState.QUARANTINED, "Its name says wfm-n, its INS.MODE is WFM-AO-E; one of both is wrong."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "mode", "serves"),
    [
        ("WFM-N", "WFM-NOAO-N", True), ("WFM-N", "WFM-AO-N", True), ("WFM-E", "WFM-AO-E", True),
        ("WFM-N", "WFM-NOAO-E", False), ("WFM-N", "NFM-AO-N", False), ("WFM-NOAO-N", "WFM-AO-N", False),
        ("NFM-AO-N", "NFM-AO-N", True),
    ],
)  # fmt: skip
def test_a_family_of_modes_serves_with_adaptive_optics_and_without(file: str, mode: str, serves: bool) -> None:  # noqa: FBT001 - both cases
    assert Setup(mode=mode).served_by(Setup(mode=file), SetupKey.MODE) is serves


def test_the_channels_are_those_of_the_extensions(site: Site) -> None:
    assert site.product(site.take(site.file("BADPIX_TABLE"))).channels == [3, 12]
    assert site.product(site.take(site.file("LSF_PROFILE", "lsf_slow_wfm-n.fits"))).channels == [12]

    def merge(units: fits.HDUList) -> None:
        del units[0].header["EXTNAME"]
        units[1].name = "CHAN03.LSF_PROFILE"
        units.append(fits.ImageHDU(units[1].data, units[1].header, name="CHAN12.LSF_PROFILE"))

    assert site.product(site.take(site.file("LSF_PROFILE", "merged_slow_wfm-n.fits", merge))).channels == [3, 12]


def test_a_response_is_of_version_2_if_the_keyword_is_there_whatever_its_value(site: Site) -> None:
    keyword = "ESO DRS MUSE FLUX FFCORR"

    def first(units: fits.HDUList) -> None:
        del units[0].header[keyword]

    files = [
        site.file("STD_RESPONSE", "1_wfm-n.fits", first),
        site.file("STD_RESPONSE", "2_wfm-n.fits"),
        site.file("STD_RESPONSE", "3_wfm-n.fits", set_card(keyword, False)),  # noqa: FBT003 - a card's value
        site.file("EXTINCT_TABLE", "4.fits"),
    ]
    assert [site.product(site.take(path)).response for path in files] == [1, 2, 2, None]


def drop_column(name: str, unit: int = 1) -> Edit:
    def edit(units: fits.HDUList) -> None:
        units[unit].columns.del_col(name)

    return edit


def retype(name: str, form: str, unit: int = 1) -> Edit:
    def edit(units: fits.HDUList) -> None:
        table = units[unit]
        made = [
            fits.Column(column.name, form if column.name == name else column.format, array=table.data[column.name])
            for column in table.columns
        ]
        units[unit] = fits.BinTableHDU.from_columns(made, name=table.name or None)

    return edit


def keep_rows(count: int) -> Edit:
    def edit(units: fits.HDUList) -> None:
        units[1].data = units[1].data[:count]

    return edit


def rename(name: str) -> Edit:
    def edit(units: fits.HDUList) -> None:
        for unit in units[1:]:
            unit.name = name

    return edit


@pytest.mark.parametrize(
    ("catg", "edit", "reason"),
    [
        ("LINE_CATALOG", set_card("VERSION", 2), "VERSION = 2; muse_wavecal takes 3 alone"),
        ("LINE_CATALOG", set_card("VERSION", 3.0), "VERSION = 3.0"),
        ("LINE_CATALOG", retype("lambda", "1D"), "lambda of its table has TFORM 1D; a 32 bit real"),
        ("LINE_CATALOG", keep_rows(0), "has no rows"),
        ("GEOMETRY_TABLE", drop_column("angle"), "no column angle"),
        ("GEOMETRY_TABLE", retype("x", "1E"), "a 64 bit real"),
        ("GEOMETRY_TABLE", keep_rows(47), "47 rows; each channel in it must have 48"),
        ("EXTINCT_TABLE", drop_column("extinction"), "no column extinction"),
        ("EXTINCT_TABLE", lambda units: units.__setitem__(1, fits.ImageHDU()), "no binary table"),
        ("STD_FLUX_TABLE", set_card("RA", 186, 1), "RA = 186, which reads as 0 without a decimal point"),
        ("STD_FLUX_TABLE", set_card("TUNIT2", "Jy", 1), "unit 'Jy'"),
        ("ASTROMETRY_REFERENCE", drop_column("mag", 2), "no column mag"),
        ("ASTROMETRY_REFERENCE", rename(""), "no EXTNAME"),
        ("ASTROMETRY_WCS", set_card("CTYPE1", "LINEAR"), "CTYPE1 = 'LINEAR'; RA---TAN is needed"),
        ("ASTROMETRY_WCS", lambda units: units[0].header.remove("CD1_2"), "CD1_2 = None"),
        ("BADPIX_TABLE", rename("CHIP"), "no extension CHAN01 to CHAN24"),
        ("BADPIX_TABLE", drop_column("status", 2), "no column status"),
        ("FILTER_LIST", retype("throughput", "1E", 2), "throughput of its table COUSINS_R"),
        ("SKY_LINES", rename("SKY"), "no table LINES"),
        ("VIGNETTING_MASK", lambda units: setattr(units[0], "data", np.ones((3, 3), np.float32)), "whole numbers"),
        ("STD_RESPONSE", None, "Nothing says of which mode this STD_RESPONSE is"),
        ("LSF_PROFILE", set_card("ESO INS MODE", "WFM-NOAO-N"), "of which readout this LSF_PROFILE is"),
        ("LSF_PROFILE", lambda units: setattr(units[1], "data", units[1].data[:9]), "the third of 48 slices"),
        ("ASTROMETRY_WCS", None, "of which optics this ASTROMETRY_WCS is"),
        ("EXTINCT_TABLE", lambda units: units[0].header.remove("MJD-OBS"), "give it MJD-OBS, or a name with the date"),
        ("EXTINCT_TABLE", set_card("MJD-OBS", -5.0), "MJD-OBS = -5.0 is no time"),
    ],
)
def test_what_a_recipe_would_misread_is_unfit(
    tmp_path: Path, written: dict[str, Path], catg: str, edit: Edit | None, reason: str
) -> None:
    path = Site(tmp_path, Registry("sqlite://"), written).file(catg, edit=edit)
    with pytest.raises(Unfit, match=re.escape(reason)) as told:
        recognise(inspect(path), path)
    assert str(told.value).endswith(".")


def test_what_is_unfit_goes_into_quarantine_with_a_sentence(site: Site) -> None:
    taken = site.take(site.file("EXTINCT_TABLE", "MU_GLNC_140101A_line_cat.fits"))
    assert taken.state is ArrivalState.QUARANTINED
    assert taken.reason == "Its name is that of LINE_CATALOG, its PRO.CATG is EXTINCT_TABLE."
    assert site.rows(Product) == []
    [arrival] = site.rows(Arrival)
    assert Path(arrival.kept).exists()


@pytest.mark.parametrize("edit", [set_card("ESO PRO CATG", "MASTER_BIAS"), set_card("INSTRUME", "FORS2")])
def test_products_that_are_not_static_are_kept_as_before(site: Site, edit: Edit) -> None:
    taken = site.take(site.file("EXTINCT_TABLE", edit=edit))
    assert (taken.state, taken.product_id) == (ArrivalState.INGESTED, None)
    assert [frame.tag for frame in site.rows(Frame)] == ["UNKNOWN"]


@pytest.mark.parametrize("first", ["GEOMETRY_TABLE", "ASTROMETRY_WCS"])
def test_a_pair_from_outside_is_known_by_its_day_and_letter_in_whatever_order_it_comes(site: Site, first: str) -> None:
    names = {
        "GEOMETRY_TABLE": "MU_GEOT_{}A_geometry_table_wfm.fits",
        "ASTROMETRY_WCS": "MU_GASW_{}A_astrom_wcs_wfm.fits",
    }
    order = sorted(names, key=lambda catg: catg != first)
    found = {
        (catg, day): site.take(site.file(catg, names[catg].format(day), set_card("MJD-OBS", mjd)))
        for catg in order
        for day, mjd in (("140101", BEGIN), ("150101", BEGIN + 365))
    }
    for day in ("140101", "150101"):
        solution, table = (site.product(found[catg, day]) for catg in ("ASTROMETRY_WCS", "GEOMETRY_TABLE"))
        assert solution.geometry_id == table.id
        assert [row.id for row in table.solutions] == [solution.id]


def test_with_its_table_retired_a_solution_serves_nobody(site: Site) -> None:
    table = site.take(site.file("GEOMETRY_TABLE", "MU_GEOT_140101A_geometry_table_wfm.fits"))
    site.take(site.file("ASTROMETRY_WCS", "MU_GASW_140101A_astrom_wcs_wfm.fits"))
    for standing in (Standing.VALID, Standing.UNPAIRED):
        with site.registry.begin() as session:
            assert [validity.standing for validity in validities(session, "ASTROMETRY_WCS")] == [standing]
            if standing is Standing.VALID:
                retire(session, session.get_one(Product, table.product_id), why="slipped", scoring=SCORING, now=NOW)


def test_a_solution_of_another_day_has_no_geometry(site: Site) -> None:
    site.take(site.file("GEOMETRY_TABLE", "MU_GEOT_140101A_geometry_table_wfm.fits"))
    path = site.file("ASTROMETRY_WCS", "MU_GASW_140102A_astrom_wcs_wfm.fits", set_card("MJD-OBS", BEGIN + 1))
    assert site.product(site.take(path)).geometry_id is None


def test_the_simulator_writes_what_is_taken_in(site: Site, tmp_path: Path) -> None:
    for path in write_static("STD_RESPONSE", PLAN, tmp_path):
        assert site.product(site.take(path)).mode == "WFM-NOAO-N"


def test_files_of_a_channel_each_are_one_set_of_their_latest_versions(site: Site) -> None:
    def of_channel(channel: int, remark: str) -> Edit:
        def edit(units: fits.HDUList) -> None:
            units[0].header["EXTNAME"] = f"CHAN{channel:02d}"
            units[0].header["OBJECT"] = remark

        return edit

    for channel, remark in ((3, "first"), (12, "first"), (3, "better")):
        name = f"MU_GLSP_140101A_lsf_profile_slow_wfm-n-{channel:02d}.fits"
        site.take(site.file("LSF_PROFILE", name, of_channel(channel, remark)))
    site.take(site.file("LSF_PROFILE", "MU_GLSP_140101A_lsf_profile_slow_wfm-e-03.fits", of_channel(3, "extended")))
    wanted = ["MU_GLSP_140101B_lsf_profile_slow_wfm-n-03.fits", "MU_GLSP_140101A_lsf_profile_slow_wfm-n-12.fits"]
    with site.registry.read() as session:
        products = session.scalars(select(Product).where(Product.mode == "WFM-N")).all()
        assert [[row.name for row in siblings(session, product)] for product in products] == [wanted] * 3


def test_validity_lasts_until_the_next_of_the_type_and_setup(site: Site) -> None:
    for name, catg, mjd in (
        ("MU_GEXT_140101A_extinct_table.fits", "EXTINCT_TABLE", BEGIN),
        ("MU_GEXT_150101A_extinct_table.fits", "EXTINCT_TABLE", BEGIN + 365),
        ("MU_GEXT_150101B_extinct_table.fits", "EXTINCT_TABLE", BEGIN + 365),
        ("MU_GVIM_140906A_vignetting_mask.fits", "VIGNETTING_MASK", BEGIN),
        ("MU_GLST_140501A_lsf_table.fits", "LSF_TABLE", BEGIN),
        ("MU_GASW_140101A_astrom_wcs_wfm.fits", "ASTROMETRY_WCS", BEGIN),
        ("MU_GSDR_140101A_std_response_wfm-e.fits", "STD_RESPONSE", BEGIN),
        ("MU_GSDR_150101A_std_response_wfm-n.fits", "STD_RESPONSE", BEGIN + 365),
    ):
        site.take(site.file(catg, name, set_cards({"MJD-OBS": mjd, "OBJECT": name})))
    with site.registry.begin() as session:
        product = session.scalars(select(Product).where(Product.mode == "WFM-E")).one()
        retire(session, product, why="old", scoring=SCORING, now=NOW)
    with site.registry.read() as session:
        found = {validity.product.name[3:15]: (validity.until, validity.standing) for validity in validities(session)}
    assert found == {
        "GEXT_140101A": (BEGIN + 365, Standing.VALID),
        "GEXT_150101A": (BEGIN + 365, Standing.REPLACED),
        "GEXT_150101B": (math.inf, Standing.VALID),
        "GVIM_140906A": (57823.0, Standing.VALID),
        "GLST_140501A": (math.inf, Standing.OBSOLETE),
        "GASW_140101A": (math.inf, Standing.UNPAIRED),
        "GSDR_140101A": (math.inf, Standing.RETIRED),
        "GSDR_150101A": (math.inf, Standing.VALID),
    }


def test_a_step_takes_the_bad_pixels_that_came_by_the_incoming_folder(
    tmp_path: Path, registry: Registry, written: dict[str, Path]
) -> None:
    """From files to a product: the table has channel 3 alone, the frames channels 3 and 5."""
    settings = Settings.model_validate(
        {
            "archive": {"root": tmp_path / "archive", "least_free_gb": 0.001},
            "registry": {"url": registry.url.render_as_string(hide_password=False)},
        }
    )
    site = TaskSite(settings=settings, registry=registry, store=Store(tmp_path / "archive"), clock=lambda: NOW)
    detector = PLAN.detector
    plan = NightPlan(night=NIGHT, channels=(3, 5), sequences=(Sequence.BIAS,), detector=detector)
    intake = Intake(registry, site.store, settings)
    with fits.open(written["BADPIX_TABLE"]) as units:
        table = units["CHAN03"].data
        fits.HDUList([units[0], units["CHAN03"]]).writeto(tmp_path / "bad.fits", checksum=True)
    for path in (tmp_path / "bad.fits", *write_night(plan, tmp_path / "night")):
        assert intake.take(path, NOW).state is ArrivalState.INGESTED
    advance(registry, settings, NOW)
    with registry.read() as session:
        parts = session.execute(select(Part.id).order_by(Part.channel == FINISH, Part.channel)).scalars().all()
    for part in parts:
        run_part(site, part)
    with registry.read() as session:
        master = session.scalars(select(Product).where(Product.catg == "MASTER_BIAS")).one()
        [use] = [use for use in master.step.uses if use.product] if master.step else []
        assert (use.tag, use.level, use.product and use.product.catg) == ("BADPIX_TABLE", 0, "BADPIX_TABLE")
    with fits.open(master.path) as units:
        dark = {channel: units[f"CHAN{channel:02d}.DQ"].data & int(Flag.DARK) > 0 for channel in (3, 5)}
    margin = detector.margin
    rows, columns = ((table[name] - 1 - margin) for name in ("ypos", "xpos"))
    rows, columns = rows - 2 * margin * (rows >= detector.ny), columns - 2 * margin * (columns >= detector.nx)
    assert len(rows) > 0
    assert dark[3][rows, columns].all()
    assert not dark[5].any()
