"""Writing: cards as FITS has them, layout as ESO has it, checksums that astropy finds right."""

import io
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recipes.headers import Header, card
from recipes.products import NOT_INHERITED, OF_CHANNEL, primary_header, sealed, write_product
from recipes.recipe import Column, Flags, Float32, Image, Table, Value

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@given(st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), TEXT))
@pytest.mark.parametrize("name", ["EXPTIME", "ESO QC BIAS MASTER1 RON"])
def test_a_value_comes_back_from_its_card(name: str, value: Value) -> None:
    image = card(name, value, "[adu] what it is")
    assert len(image) == 80
    astropys = fits.Card.fromstring(image)
    assert astropys.keyword == name
    expected = value.rstrip() if isinstance(value, str) else value
    if not (isinstance(value, str) and "'" in value and "/" in value):  # astropy ends such a value at the slash
        assert type(astropys.value) is type(value)
        assert astropys.value == expected
    back = Header({name: image})[name]
    assert type(back) is type(value)
    assert back == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_could_not_be_measured_is_a_card_without_a_value(value: float) -> None:
    image = card("ESO QC BIAS MASTER1 RON", value, "[count] Read-out noise")
    astropys = fits.Card.fromstring(image)
    assert isinstance(astropys.value, fits.card.Undefined)
    assert astropys.comment == "[count] Read-out noise"
    assert math.isnan(float(Header({"X": image})["X"]))


def test_a_comment_is_cut_and_a_value_never() -> None:
    name = "ESO PRO REC1 RAW123 SHA256"
    assert len(card(name, "a" * 40, "a comment that has no room at all")) == 80
    with pytest.raises(ValueError, match="takes 81 characters"):
        card(name, "a" * 41)


def test_a_header_keeps_cards_as_they_were_read() -> None:
    cards = fits.Header()
    cards["SIMPLE"] = True
    cards["LONG"] = "word " * 30
    cards["HIERARCH ESO INS MODE"] = "WFM-NOAO-N"
    cards["HISTORY"] = "one"
    cards["HISTORY"] = "two"
    odd = "HIERARCH ESO TEL ALT =  5.  / [deg] Alt angle at start".ljust(80)
    unit = cards.tostring(endcard=False, padding=False) + odd + "END".ljust(80)
    header = Header.from_bytes(unit.encode())
    assert header["LONG"] == ("word " * 30).rstrip()
    assert header["ESO INS MODE"] == "WFM-NOAO-N"
    assert header["ESO TEL ALT"] == 5.0
    assert header.to_bytes().decode().rstrip() == unit.rstrip()
    assert len(header.to_bytes()) == 2880


def test_bytes_that_fits_forbids_do_not_reach_a_product() -> None:
    unit = b"OBSERVER= 'Jos\xe9\t\x00'".ljust(80) + b"END".ljust(80)
    header = Header.from_bytes(unit)
    assert header["OBSERVER"] == "Jos???"
    assert header.to_bytes().isascii()


@given(st.integers(0, 2**32 - 1))
def test_the_checksum_of_any_sum_is_letters_and_digits_that_astropy_finds_right(data_sum: int) -> None:
    unit = sealed(primary_header(), data_sum)
    (hdu,) = fits.HDUList.fromstring(unit)
    assert hdu.header["CHECKSUM"].isalnum()
    words = int(np.frombuffer(unit, ">u4").sum(dtype=np.uint64)) + data_sum
    while words >= 2**32:
        words = words % 2**32 + words // 2**32
    assert words == 2**32 - 1
    if data_sum == 0:
        assert hdu.verify_checksum() == 1


def written(content: Image | Table, path: Path) -> fits.HDUList:
    """Write a product and read it with astropy, which checks the checksums; warnings are errors."""
    write_product(path, primary_header(), content)
    hdus = fits.HDUList.fromstring(path.read_bytes(), checksum=True)
    hdus.verify("exception")
    for hdu in hdus:
        assert hdu.verify_checksum() == hdu.verify_datasum() == 1
    return hdus


@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(width=32)),
    st.sampled_from([np.uint8, np.uint16, np.uint32]),
)
def test_an_image_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, data: Float32, flags: type) -> None:
    dq: Flags = np.arange(data.size).reshape(data.shape).astype(flags)
    dq[0, 0] = np.iinfo(flags).max
    image = Image(data=data, dq=dq, stat=-data, unit="count")
    hdus = written(image, tmp_path_factory.mktemp("product") / "flat.fits")
    assert hdus["DATA"].data.astype("<f4").tobytes() == data.tobytes()
    assert hdus["STAT"].data.astype("<f4").tobytes() == (-data).tobytes()
    np.testing.assert_array_equal(hdus["DQ"].data.astype(np.uint32), dq.astype(np.uint32))


def test_the_planes_of_an_image_have_the_cards_that_eso_writes(tmp_path: Path) -> None:
    zeros = np.zeros((3, 4), np.float32)
    hdus = written(Image(data=zeros, dq=zeros.astype(np.uint16), stat=zeros, unit="adu"), tmp_path / "bias.fits")
    every = {"INHERIT": True, "HDUCLASS": "ESO", "HDUDOC": "DICD", "HDUVERS": "DICD version 6", "HDUCLAS1": "IMAGE"}
    assert [hdu.name for hdu in hdus] == ["PRIMARY", "DATA", "DQ", "STAT"]
    expected = {
        "DATA": {"BITPIX": -32, "BUNIT": "adu", "HDUCLAS2": "DATA", "ERRDATA": "STAT", "QUALDATA": "DQ"},
        "DQ": {
            "BITPIX": 32,
            "HDUCLAS2": "QUALITY",
            "HDUCLAS3": "FLAG32BIT",
            "QUALMASK": 4294967295,
            "SCIDATA": "DATA",
            "ERRDATA": "STAT",
        },
        "STAT": {
            "BITPIX": -32,
            "BUNIT": "(adu)**2",
            "HDUCLAS2": "ERROR",
            "HDUCLAS3": "MSE",
            "SCIDATA": "DATA",
            "QUALDATA": "DQ",
        },
    }
    structure = {"XTENSION", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "EXTNAME", "CHECKSUM", "DATASUM"}
    for name, cards in expected.items():
        header = hdus[name].header
        assert {key: header[key] for key in header if key not in structure} == every | cards
    assert hdus["DATA"].header.comments["BUNIT"] == "DATA is in analog-to-digital units"
    assert hdus["DATA"].header.comments["EXTNAME"] == "This extension contains data values"


def test_a_table_comes_back_with_types_units_and_names(tmp_path: Path) -> None:
    columns = (
        Column(name="SliceNo", values=np.arange(1, 49, dtype=np.int32), unit="No"),
        Column(name="Width", values=np.linspace(70, 80, 48, dtype=np.float32), unit="pix"),
        Column(name="tc0_00", values=np.linspace(0, 4000, 48), unit="pix"),
        Column(name="slice", values=np.arange(48, dtype=np.uint8)),
        Column(name="pair", values=np.arange(96, dtype=np.float64).reshape(48, 2)),
        Column(name="lamp", values=np.array(["Ne", "HgCd"] * 24)),
    )
    _, table = written(Table(columns=columns), tmp_path / "trace.fits")
    assert table.columns.formats == ["1J", "1E", "1D", "1B", "2D", "4A"]
    assert table.columns.units == ["No", "pix", "pix", "", "", ""]
    assert "EXTNAME" not in table.header
    for column in columns:
        np.testing.assert_array_equal(table.data[column.name], column.values)


def test_an_image_is_written_without_a_copy_of_it(tmp_path: Path) -> None:
    side = 1000
    image = Image(
        data=np.ones((side, side), np.float32),
        dq=np.ones((side, side), np.uint16),
        stat=np.ones((side, side), np.float32),
        unit="adu",
    )
    tracemalloc.start()
    write_product(tmp_path / "bias.fits", primary_header(), image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < side * side * 4 / 3


RAW_ONLY = (
    *("BITPIX", "NAXIS1", "BZERO", "BUNIT", "CHECKSUM", "ORIGFILE", "CTYPE1", "CD1_2", "CRPIX2"),
    *("ESO DPR TYPE", "ESO PRO CATG", "ESO DET OUT3 PRSCX", "ESO DET OUT1 OVSCY"),
)
OF_THE_EXPOSURE = (
    *("EXTNAME", "ARCFILE", "DATE-OBS", "EQUINOX", "CDELT"),
    *("ESO DET CHIP PRSCX", "ESO DET OUT1 NX", "ESO INS MODE"),
)


def test_a_product_inherits_what_describes_the_exposure_and_nothing_of_the_raw_file() -> None:
    assert [name for name in RAW_ONLY + OF_THE_EXPOSURE if NOT_INHERITED.match(name)] == list(RAW_ONLY)


def test_cards_of_detector_quality_and_reduction_belong_to_their_channel() -> None:
    channels = ["ESO DET CHIP ID", "ESO DET OUT1 GAIN", "ESO QC BIAS MASTER1 RON", "ESO DRS MUSE OVSC1 MEAN", "EXTNAME"]
    assert all(OF_CHANNEL.match(name) for name in channels)
    assert not any(
        OF_CHANNEL.match(name) for name in ["ESO DET READ CURID", "ESO PRO CATG", "ESO INS MODE", "EXTNAMES"]
    )


def test_a_header_that_is_longer_than_a_block_is_padded_to_whole_blocks() -> None:
    header = primary_header()
    for number in range(40):
        header.set(f"ESO QC {number}", number)
    unit = header.to_bytes()
    assert len(unit) == 2 * 2880
    assert fits.Header.fromfile(io.BytesIO(unit))["ESO QC 39"] == 39
