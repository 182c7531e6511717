"""A product's name tells its type, day, version and setting, and can be read back."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.naming import (
    LONGEST_ID,
    PRODUCT_CODES,
    STATIC_CODES,
    SUFFIXES,
    Code,
    ProductName,
    cleaned,
    data_product_id,
    dp_id_of,
    next_letter,
    parse_name,
    product_name,
    raw_name,
    safe_file_name,
    setting_of,
    static_name,
)
from archive.setup import Setup, SetupKey

DAY = date(2026, 6, 17)
SETUP = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, filter="Blue", optics="WFM")
BINNED = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, binx=2, biny=4, filter="Blue", optics="WFM")

letters = st.text("ABCYZ", min_size=1, max_size=3)
texts = st.text(max_size=32)
setups = st.builds(
    Setup, mode=texts, readout=texts, binx=st.integers(1, 8), biny=st.integers(1, 8), filter=texts, optics=texts
)
days = st.dates(date(2000, 1, 1), date(2099, 12, 31))


@pytest.mark.parametrize(
    ("catg", "name"),
    [
        ("MASTER_BIAS", "MU_MBIA_260617A_slow.fits"),
        ("MASTER_DARK", "MU_MDRK_260617A_slow.fits"),
        ("MASTER_FLAT", "MU_MFLA_260617A_wfm-noao-n_slow.fits"),
        ("TRACE_TABLE", "MU_PFTT_260617A_wfm-noao-n_slow.fits"),
        ("WAVECAL_TABLE", "MU_PWCT_260617A_wfm-noao-n_slow.fits"),
        ("STD_RESPONSE", "MU_PSDR_260617A_wfm-noao-n.fits"),
        ("GEOMETRY_UNSMOOTHED", "MU_PEOU_260617A_wfm.fits"),
    ],
)
def test_names_of_masters(catg: str, name: str) -> None:
    assert product_name(catg, DAY, "A", SETUP) == name


def test_binning_shows_only_where_it_is_not_the_usual_one() -> None:
    assert product_name("MASTER_BIAS", DAY, "A", BINNED) == "MU_MBIA_260617A_slow_2x4.fits"
    assert product_name("STD_RESPONSE", DAY, "A", BINNED) == "MU_PSDR_260617A_wfm-noao-n.fits"


@pytest.mark.parametrize(
    ("catg", "day", "name"),  # as ESO's page on MUSE calibration data writes them
    [
        ("LINE_CATALOG", date(2014, 1, 1), "MU_GLNC_140101A_line_cat.fits"),
        ("FILTER_LIST", date(2014, 1, 1), "MU_GFIL_140101A_filter_list.fits"),
        ("STD_FLUX_TABLE", date(2014, 1, 1), "MU_GSFT_140101A_stdflux_table.fits"),
        ("VIGNETTING_MASK", date(2014, 9, 6), "MU_GVIM_140906A_vignetting_mask.fits"),
        ("LSF_TABLE", date(2014, 5, 1), "MU_GLST_140501A_lsf_table.fits"),
    ],
)
def test_names_of_statics_are_those_of_eso(catg: str, day: date, name: str) -> None:
    assert static_name(catg, day, "A", SETUP) == name


def test_names_of_statics_show_the_setting_after_eso_s_label() -> None:
    assert static_name("GEOMETRY_TABLE", DAY, "A", SETUP) == "MU_GEOT_260617A_geometry_table_wfm.fits"
    assert static_name("LSF_PROFILE", DAY, "B", SETUP) == "MU_GLSP_260617B_lsf_profile_slow_wfm-noao-n.fits"


@pytest.mark.parametrize(
    "name", ["MU_GLSP_140101A_lsf_profile_slow_wfm-e.fits", "MU_GSDR_170501A_std_response_wfm-n.fits"]
)
def test_names_that_eso_gave_can_be_read(name: str) -> None:
    found = parse_name(name)
    assert found.static
    assert found.catg == {"MU_GLSP": "LSF_PROFILE", "MU_GSDR": "STD_RESPONSE"}[name[:7]]


class TestRoundTrip:
    @given(catg=st.sampled_from(sorted(PRODUCT_CODES)), day=days, letter=letters, setup=setups)
    def test_every_name_of_a_master_is_read_back(self, catg: str, day: date, letter: str, setup: Setup) -> None:
        code = PRODUCT_CODES[catg]
        assert parse_name(product_name(catg, day, letter, setup)) == ProductName(
            code=code.code, catg=catg, static=False, day=day, letter=letter, setting=setting_of(setup, code.keys)
        )

    @given(catg=st.sampled_from(sorted(STATIC_CODES)), day=days, letter=letters, setup=setups)
    def test_every_name_of_a_static_is_read_back(self, catg: str, day: date, letter: str, setup: Setup) -> None:
        found = parse_name(static_name(catg, day, letter, setup))
        assert (found.catg, found.static, found.day, found.letter) == (catg, True, day, letter)
        assert found.setting.startswith(STATIC_CODES[catg].label)

    @given(catg=st.sampled_from(sorted(PRODUCT_CODES)), day=days, letter=letters, setup=setups)
    def test_every_name_is_a_plain_file_name_that_the_registry_holds(
        self, catg: str, day: date, letter: str, setup: Setup
    ) -> None:
        name = product_name(catg, day, letter, setup)
        assert safe_file_name(name) == name
        assert len(name) <= 128

    @given(st.text(max_size=60))
    def test_whatever_is_read_is_a_name_or_an_error_that_tells(self, text: str) -> None:
        with pytest.raises(ValueError, match="is no name of a product"):
            parse_name(text)

    @pytest.mark.parametrize(
        "name", ["MU_MBIA_260631A.fits", "MU_MBIA_26061A.fits", "MU_MBIA_260617.fits", "mu_mbia.fits"]
    )
    def test_what_only_looks_like_a_name_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="is no name of a product"):
            parse_name(name)


class TestVersions:
    def test_letters_go_on_after_z(self) -> None:
        taken: list[str] = []
        for _ in range(705):
            taken.append(next_letter(taken))
        assert taken[:3] == ["A", "B", "C"]
        assert taken[25:28] == ["Z", "AA", "AB"]
        assert taken[701:703] == ["ZZ", "AAA"]
        assert len(set(taken)) == len(taken)

    @given(st.lists(letters))
    def test_a_letter_is_never_given_again_and_gaps_stay(self, taken: list[str]) -> None:
        letter = next_letter(taken)
        assert letter not in taken
        assert all((len(other), other) < (len(letter), letter) for other in taken)

    @pytest.mark.parametrize("letter", ["", "a", "A1", "../A"])
    def test_what_is_no_version_is_refused(self, letter: str) -> None:
        with pytest.raises(ValueError, match="version"):
            product_name("MASTER_BIAS", DAY, letter, SETUP)


def test_without_a_code_there_is_no_name() -> None:
    with pytest.raises(ValueError, match="no product code for PIXTABLE_STD"):
        product_name("PIXTABLE_STD", DAY, "A", SETUP)


def test_a_day_outside_the_century_has_no_name() -> None:
    with pytest.raises(ValueError, match="1999-12-31"):
        product_name("MASTER_BIAS", date(1999, 12, 31), "A", SETUP)


class TestIdentifiers:
    def test_a_product_is_known_by_its_time_in_utc(self) -> None:
        time = datetime(2026, 6, 17, 10, 41, 11, 987654, tzinfo=UTC)
        assert dp_id_of(time) == "M.MUSE.2026-06-17T10:41:11.987"
        assert dp_id_of(time.astimezone(None)) == "M.MUSE.2026-06-17T10:41:11.987"

    def test_products_of_one_time_move_on_by_a_millisecond(self) -> None:
        time = datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
        assert dp_id_of(time, {"M.MUSE.2026-12-31T23:59:59.999"}) == "M.MUSE.2027-01-01T00:00:00.000"

    @given(st.datetimes(datetime(2014, 1, 1), datetime(2060, 1, 1)), st.integers(1, 5))  # noqa: DTZ001 - gets UTC below
    def test_identifiers_sort_as_their_times(self, naive: datetime, minutes: int) -> None:
        time = naive.replace(tzinfo=UTC)
        assert dp_id_of(time) < dp_id_of(time + timedelta(minutes=minutes))

    @pytest.mark.parametrize("suffix", ["", *SUFFIXES])
    def test_a_raw_frame_is_known_by_its_archive_file_without_suffix(self, suffix: str) -> None:
        assert data_product_id(f"MUSE.2026-06-17T10:41:11.000{suffix}") == "MUSE.2026-06-17T10:41:11.000"

    @given(st.text(max_size=200))
    def test_an_identifier_never_leads_out_of_its_folder(self, text: str) -> None:
        try:
            dp_id = data_product_id(text)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either answer is right for an arbitrary text
            return
        assert len(dp_id) <= LONGEST_ID
        assert PurePosixPath(raw_name(dp_id, 1, ".fits")).name == raw_name(dp_id, 1, ".fits")

    @pytest.mark.parametrize("text", ["", "../..", "/", "...fits", ".fits"])
    def test_a_name_without_any_letter_names_no_frame(self, text: str) -> None:
        with pytest.raises(ValueError, match="names no frame"):
            data_product_id(text)

    def test_a_path_in_a_header_is_cut_to_its_last_part(self) -> None:
        assert data_product_id("../../etc/cron.d/MUSE.x.fits") == "MUSE.x"

    def test_later_versions_of_a_frame_have_their_number(self) -> None:
        assert raw_name("MUSE.2026-06-17T10:41:11.000", 1, ".fits.fz") == "MUSE.2026-06-17T10:41:11.000.fits.fz"
        assert raw_name("MUSE.2026-06-17T10:41:11.000", 3, ".fits") == "MUSE.2026-06-17T10:41:11.000.v3.fits"

    @pytest.mark.parametrize("name", ["../up.fits", "a/b.fits", ".hidden", "", "a\nb", "x" * 250, "-rf"])
    def test_what_is_no_plain_file_name_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="cannot be a file name"):
            safe_file_name(name)

    @given(st.text(max_size=300))
    def test_every_name_can_be_cleaned(self, name: str) -> None:
        assert safe_file_name(cleaned(name)) == cleaned(name)


class TestTable:
    def test_every_code_is_used_once(self) -> None:
        codes = [code.code for table in (PRODUCT_CODES, STATIC_CODES) for code in table.values()]
        assert len(set(codes)) == len(codes)
        assert all(re.fullmatch("[MP][A-Z]{3}", code.code) for code in PRODUCT_CODES.values())
        assert all(re.fullmatch("G[A-Z]{3}", code.code) for code in STATIC_CODES.values())

    @pytest.mark.parametrize("codes", [PRODUCT_CODES, STATIC_CODES], ids=["masters", "statics"])
    def test_the_page_lists_what_the_code_has(self, codes: Mapping[str, Code]) -> None:
        """Where this fails the wanted lines are in the message, to be put into docs/names.md."""
        page = Path(__file__).parents[1].joinpath("docs", "names.md").read_text()
        lines = [
            f"| `{code.code}` | {catg} | {code.what} | {parts(code)} | {code.source} |" for catg, code in codes.items()
        ]
        assert "\n".join(["|---|---|---|---|---|", *lines, ""]) in page


def parts(code: Code) -> str:
    """What the page says of the setting of a code."""
    words = {SetupKey.MODE: "mode", SetupKey.READOUT: "readout", SetupKey.BINX: "binning", SetupKey.OPTICS: "field"}
    told = [words[key] for key in code.keys if key in words]
    return ", ".join([f"`{code.label}`"] * bool(code.label) + told)
