"""A file is whole, may still grow, or never will be FITS: whatever its bytes, inspection says which of the three."""

import gzip
import io
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from typing_extensions import Buffer

from archive import inspection
from archive.inspection import BLOCK, Extension, IncompleteFile, UnreadableFile, inspect, walk
from archive.store import digest_of

SHAPE = (40, 60)  # 4800 bytes of data: one block and a half, so that there is padding
CHANNELS = ("CHAN06", "CHAN01")  # not in the order of their numbers, as on disk

with_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Counting(io.FileIO):
    """A file that counts the bytes read from it."""

    bytes_read = 0

    def readinto(self, buffer: Buffer) -> int:
        count = super().readinto(buffer) or 0
        self.bytes_read += count
        return count


def a_frame(channels: tuple[str, ...] = CHANNELS, *, compressed: bool = False) -> bytes:
    """Bytes of a small raw frame."""
    primary = fits.PrimaryHDU()
    primary.header["OBJECT"] = "BIAS"
    primary.header["MJD-OBS"] = 61208.445266203703
    primary.header["HIERARCH ESO DPR CATG"] = "CALIB"
    primary.header["HIERARCH ESO TPL NEXP"] = 11
    primary.header["HIERARCH ESO INS LAMP3 ST"] = True
    primary.header["HIERARCH ESO OBS NAME"] = ""
    primary.header["COMMENT"] = "nothing = to be read"
    pixels = np.random.default_rng(1).integers(1190, 1210, SHAPE).astype(np.uint16)
    units = fits.HDUList([primary])
    for name in channels:
        unit = fits.CompImageHDU(pixels, name=name) if compressed else fits.ImageHDU(pixels, name=name)
        unit.header["HIERARCH ESO DET CHIP LIVE"] = name != "CHAN06"
        units.append(unit)
    file = io.BytesIO()
    units.writeto(file)
    return file.getvalue()


FRAME = a_frame()
# Each unit ends at a multiple of the block: cut there, the file is a whole one with fewer channels.
ENDS = tuple(len(a_frame(CHANNELS[:number])) for number in range(len(CHANNELS)))

END_OF_CARDS = FRAME.rindex(b"END".ljust(80)) + len("END")  # of the last header


def lzw(content: bytes) -> bytes:
    """Pack as ``compress`` does, in codes of 9 bits; the table is cleared before it needs more."""
    codes: list[int] = []
    for start in range(0, len(content), 247):
        codes += [*content[start : start + 247], 256]
    codes.pop()
    bits = sum(code << (9 * place) for place, code in enumerate(codes))
    return b"\x1f\x9d\x90" + bits.to_bytes((9 * len(codes) + 7) // 8, "little")


PACKED = {"gz": gzip.compress(FRAME, mtime=0), "fz": a_frame(compressed=True), "Z": lzw(FRAME)}


def inspect_bytes(content: bytes, folder: Path) -> inspection.Inspection:
    path = folder / "frame"
    path.write_bytes(content)
    return inspect(path)


class TestWholeFiles:
    def test_a_frame_shows_its_cards_and_channels(self, tmp_path: Path) -> None:
        found = inspect_bytes(FRAME, tmp_path)
        assert found.primary["OBJECT"] == "BIAS"
        assert found.primary["MJD-OBS"] == 61208.445266203703
        assert found.primary["ESO TPL NEXP"] == 11
        assert found.primary["ESO INS LAMP3 ST"] is True
        assert "ESO OBS NAME" not in found.primary
        assert "COMMENT" not in found.primary
        assert found.extensions == (
            Extension(name="CHAN06", live=False, compressed=False, shape=SHAPE),
            Extension(name="CHAN01", live=True, compressed=False, shape=SHAPE),
        )
        assert (found.size, found.suffix) == (len(FRAME), ".fits")
        assert found.digest == digest_of(tmp_path / "frame")

    @pytest.mark.parametrize(
        ("content", "suffix"),
        [
            (PACKED["fz"], ".fits.fz"),
            (PACKED["gz"], ".fits.gz"),
            (gzip.compress(FRAME[:5000]) + gzip.compress(FRAME[5000:]), ".fits.gz"),
            (PACKED["Z"], ".fits.Z"),
        ],
        ids=["fz", "gz", "gz in two members", "Z"],
    )
    def test_compressed_ones_are_the_same_frame(self, content: bytes, suffix: str, tmp_path: Path) -> None:
        plain, found = inspect_bytes(FRAME, tmp_path), inspect_bytes(content, tmp_path)
        assert found.primary == plain.primary
        assert [(e.name, e.live, e.shape) for e in found.extensions] == [
            (e.name, e.live, e.shape) for e in plain.extensions
        ]
        assert (found.size, found.suffix) == (len(content), suffix)
        assert found.digest != plain.digest

    def test_a_file_without_data_is_whole_unless_it_is_a_raw_frame(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        fits.PrimaryHDU(header=fits.Header([("CTYPE1", "RA---TAN")])).writeto(file)
        assert inspect_bytes(file.getvalue(), tmp_path).extensions == ()
        with pytest.raises(IncompleteFile, match="extensions"):
            inspect_bytes(FRAME[: ENDS[0]], tmp_path)

    def test_of_a_keyword_that_stands_twice_the_first_counts(self, tmp_path: Path) -> None:
        doubled = FRAME.replace(b"COMMENT nothing = to be read".ljust(80), b"OBJECT  = 'DARK'".ljust(80))
        assert inspect_bytes(doubled, tmp_path).primary["OBJECT"] == "BIAS"

    def test_a_full_size_frame_is_walked_without_reading_its_data(self, tmp_path: Path) -> None:
        path = tmp_path / "frame.fits"
        header = fits.ImageHDU().header
        header.update({"NAXIS": 2, "BITPIX": 16, "NAXIS1": 4224, "NAXIS2": 4240})
        with path.open("wb") as file:  # sparse: 860 MB that take no room
            file.write(fits.PrimaryHDU().header.tostring().encode())
            for _ in range(24):
                file.write(header.tostring().encode())
                file.seek(-(-4224 * 4240 * 2 // BLOCK) * BLOCK, os.SEEK_CUR)
            file.truncate()
        frame = Counting(path)
        with io.BufferedReader(frame) as file:
            headers = list(walk(file))
        assert 0 < frame.bytes_read < 1_000_000
        assert len(headers) == 25


class TestTruncation:
    @with_one_folder
    @given(cut=st.integers(0, len(FRAME) - 1))
    @example(0)
    @example(1)
    @example(len(FRAME) - 1)
    @example(len(FRAME) - BLOCK)
    def test_a_frame_cut_anywhere_is_incomplete(self, tmp_path: Path, cut: int) -> None:
        if cut in ENDS[1:]:
            assert len(inspect_bytes(FRAME[:cut], tmp_path).extensions) == ENDS.index(cut)
        else:
            with pytest.raises(IncompleteFile):
                inspect_bytes(FRAME[:cut], tmp_path)

    @with_one_folder
    @given(cut=st.integers(0, len(FRAME) - 1))
    def test_a_frame_of_full_length_is_incomplete_while_its_rest_is_zero(self, tmp_path: Path, cut: int) -> None:
        content = FRAME[:cut].ljust(len(FRAME), b"\0")
        if cut >= END_OF_CARDS:  # zeros within the data are data
            assert len(inspect_bytes(content, tmp_path).extensions) == len(CHANNELS)
        else:
            with pytest.raises(IncompleteFile):
                inspect_bytes(content, tmp_path)

    @with_one_folder
    @given(kind=st.sampled_from(sorted(PACKED)), part=st.floats(0, 1, exclude_max=True))
    @example("Z", 0.00001)
    def test_a_packed_frame_cut_anywhere_is_incomplete(self, tmp_path: Path, kind: str, part: float) -> None:
        packed = PACKED[kind][: int(part * len(PACKED[kind]))]
        if kind == "fz" and len(packed) % BLOCK == 0:  # perhaps at the end of a unit
            packed = packed[:-1]
        with pytest.raises(IncompleteFile):
            inspect_bytes(packed, tmp_path)

    def test_the_sentence_says_where(self, tmp_path: Path) -> None:
        with pytest.raises(IncompleteFile, match="the file is empty"):
            inspect_bytes(b"", tmp_path)
        with pytest.raises(IncompleteFile, match="data of unit 2 take 5760 bytes with padding, only 5759"):
            inspect_bytes(FRAME[:-1], tmp_path)
        with pytest.raises(IncompleteFile, match="ends within the header of unit 1"):
            inspect_bytes(FRAME[: ENDS[0] + 80], tmp_path)

    def test_a_file_that_changes_meanwhile_is_incomplete(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def grow(path: Path) -> str:
            with path.open("ab") as file:
                file.write(bytes(BLOCK))
            return digest_of(path)

        monkeypatch.setattr(inspection, "digest_of", grow)
        with pytest.raises(IncompleteFile, match="changed while it was being read"):
            inspect_bytes(FRAME, tmp_path)


class TestWhatIsNoFits:
    @with_one_folder
    @given(content=st.binary(min_size=1, max_size=6000))
    @example(b"hello")
    @example(b"\x1f\x8b" + b"nonsense" * 100)
    @example(b"\x1f\x9d\x90" + b"\xff" * 1000)
    def test_random_bytes_are_unreadable(self, tmp_path: Path, content: bytes) -> None:
        packed = content[:1] == b"\x1f"
        begun = b"SIMPLE  =".startswith(content[:9].rstrip(b"\0"))
        with pytest.raises((UnreadableFile, IncompleteFile) if packed or begun else UnreadableFile):
            inspect_bytes(content, tmp_path)

    @with_one_folder
    @given(place=st.integers(0, len(FRAME) - 1), byte=st.integers(0, 255))
    def test_one_wrong_byte_anywhere_gives_one_of_the_three_answers(
        self, tmp_path: Path, place: int, byte: int
    ) -> None:
        wrong = FRAME[:place] + bytes([byte]) + FRAME[place + 1 :]
        with suppress(IncompleteFile, UnreadableFile):
            inspect_bytes(wrong, tmp_path)

    @pytest.mark.parametrize(
        ("old", "new", "sentence"),
        [
            ("SIMPLE  =                    T", "SIMPLE  =                    F", "SIMPLE"),
            ("BITPIX  =                   16", "BITPIX  =                   17", "BITPIX = 17"),
            ("NAXIS   =                    2", "NAXIS   =                 1000", "NAXIS = 1000"),
            ("NAXIS   =                    2", "NAXIS   =                   -1", "NAXIS = -1"),
            ("NAXIS1  =                   60", "NAXIS1  =                  -60", "negative"),
            ("NAXIS1  =                   60", "NAXIS1  =                 60.5", "whole number"),
            ("NAXIS1  =                   60", "NAXIS1  =       99999999999999", "believed"),
            ("NAXIS1  =                   60", "NAXISX  =                   60", "NAXIS1 = None"),
            ("PCOUNT  =                    0", "PCOUNT  =                   -5", "negative"),
            ("OBJECT  = 'BIAS    '", "OBJECT  = 'BIAS     ", "cannot be read"),
            ("XTENSION= 'IMAGE   '", "XTENSIOM= 'IMAGE   '", "instead of XTENSION="),
        ],
    )
    def test_what_contradicts_the_standard_is_unreadable(
        self, old: str, new: str, sentence: str, tmp_path: Path
    ) -> None:
        assert old.encode() in FRAME
        with pytest.raises(UnreadableFile, match=sentence):
            inspect_bytes(FRAME.replace(old.encode(), new.encode(), 1), tmp_path)

    def test_something_behind_the_end_is_unreadable(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableFile, match="something else follows"):
            inspect_bytes(FRAME + b"<html>".ljust(BLOCK), tmp_path)

    def test_a_header_without_end_is_given_up_in_time(self, tmp_path: Path) -> None:
        endless = FRAME[:80] + b"COMMENT again".ljust(80) * 200_000
        with pytest.raises(UnreadableFile, match="no END within 1000 blocks"):
            inspect_bytes(endless, tmp_path)

    def test_a_wrong_sum_of_a_packed_file_is_found_at_its_end(self, tmp_path: Path) -> None:
        packed = bytearray(gzip.compress(FRAME))
        packed[-6] ^= 1  # within the CRC
        with pytest.raises(UnreadableFile, match="CRC"):
            inspect_bytes(bytes(packed), tmp_path)

    def test_a_missing_file_is_an_error_of_its_own(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            inspect(tmp_path / "nothing.fits")


TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=18)
NUMBERS = st.one_of(st.integers(-(10**15), 10**15), st.floats(-1e60, 1e60), st.booleans())
KEYWORDS = st.sampled_from(["OBJECT", "MJD-OBS", "A_1", "ESO DPR CATG", "ESO INS LAMP3 ST", "ESO DET OUT1 CONAD"])


@given(keyword=KEYWORDS, value=st.one_of(TEXTS, NUMBERS), comment=st.sampled_from(["", "a / b", "it's"]))
@example(keyword="OBJECT", value="O/Brien = Sons", comment="")
@example(keyword="OBJECT", value="  led by blanks  ", comment="")
@example(keyword="OBJECT", value="", comment="nothing")
def test_what_is_read_without_astropy_is_what_astropy_reads(keyword: str, value: str | float, comment: str) -> None:
    card = fits.Card(f"HIERARCH {keyword}" if keyword.startswith("ESO") else keyword, value, comment)
    image = str(card).encode()
    assume(inspection._USUAL.fullmatch(image))
    compare_with_astropy(image)


@pytest.mark.parametrize(
    "text",
    [
        "A       = +5", "A       = 007", "A       = -0", "A       = 5.", "A       = -1.5E-3", "A       = T / yes",
        "A       = 'a' / 'b'", "A       = '' / nothing", "HIERARCH ESO A B=1", "HIERARCH ESO A B =   'x'  /y",
    ],
)  # fmt: skip
def test_what_other_programs_write_is_read_as_astropy_reads_it(text: str) -> None:
    compare_with_astropy(text.ljust(80).encode())


@pytest.mark.parametrize(
    "text",
    ["A       = 1.D5", "A       = 'it''s'", "A       = TRUE", "A       =", "A       = (1, 2)", "A       = 'long&'"],
)
def test_what_is_unusual_is_left_to_astropy(text: str) -> None:
    assert inspection._USUAL.fullmatch(text.ljust(80).encode()) is None


def compare_with_astropy(image: bytes) -> None:
    usual = inspection._USUAL.fullmatch(image)
    assert usual
    card = fits.Card.fromstring(image)
    keyword, value = inspection._value(usual)
    assert (keyword, value, type(value)) == (card.keyword, card.value, type(card.value))
