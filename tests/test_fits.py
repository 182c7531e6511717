"""Reading: what is in the file comes out, from wherever it stands, however it is packed, in whatever blocks."""

import contextlib
import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from raw_frame import SMALL, pixels, write_raw_frame

from recipes.fits import AbsentChannel, DeadChannel, open_image, open_stack, read_table
from recipes.headers import UnreadableFile
from recipes.muse import Detector, Lamp
from recipes.recipe import RecipeError

ROWS = SMALL.raw_shape[0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw_frame(tmp_path_factory.mktemp("raw") / "bias.fits")


@given(st.integers(0, ROWS), st.integers(0, ROWS), st.sampled_from([1, 12]))
def test_any_block_of_rows_is_that_part_of_the_frame(raw: Path, one: int, other: int, channel: int) -> None:
    start, stop = sorted((one, other))
    block = open_stack([raw], channel, scratch=raw.parent).rows(0, start, stop)
    assert block.dtype == np.uint16
    np.testing.assert_array_equal(block, pixels(channel)[start:stop])


def test_rows_outside_the_frame_are_refused(raw: Path) -> None:
    stack = open_stack([raw], 1, scratch=raw.parent)
    with pytest.raises(IndexError, match="not within the 40 rows"):
        stack.rows(0, ROWS - 1, ROWS + 1)


def test_each_frame_of_a_stack_is_its_own(tmp_path: Path) -> None:
    paths = [write_raw_frame(tmp_path / f"{frame}.fits", frame=frame) for frame in (1, 2, 3)]
    stack = open_stack(paths, 1, scratch=tmp_path)
    for index, frame in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(stack.rows(index, 0, ROWS), pixels(1, frame))
    assert [exposure.name for exposure in stack.exposures] == [f"MUSE.2026-06-17T10:{m}:11.000" for m in (42, 43, 44)]
    assert stack.detector == SMALL


def test_an_exposure_is_what_its_header_says(tmp_path: Path) -> None:
    lit = {f"HIERARCH ESO INS {what}{n} ST": on for n, what, on in [(3, "LAMP", True), (3, "SHUT", True)]}
    shut = {f"HIERARCH ESO INS {what}{n} ST": on for n, what, on in [(4, "LAMP", True), (4, "SHUT", False)]}
    dark = {f"HIERARCH ESO INS {what}{n} ST": on for n, what, on in [(5, "LAMP", False), (5, "SHUT", True)]}
    path = write_raw_frame(tmp_path / "arc.fits", primary={"EXPTIME": 8.76, **lit, **shut, **dark})
    (exposure,) = open_stack([path], 12, scratch=tmp_path).exposures
    assert exposure.exptime == 8.76
    assert exposure.gains == (1.1, 1.2, 1.3, 1.4)
    assert exposure.read_noise == (2.1, 2.2, 2.3, 2.4)
    assert exposure.lamps == (Lamp.NEON,)


def compressed(path: Path) -> bytes:
    """Return a file as compress(1) would write it that found no two bytes twice: 9-bit codes, and a clear in time."""
    codes: list[int] = []
    for start in range(0, path.stat().st_size, 239):
        codes += [*path.read_bytes()[start : start + 239], 256]
    bits = np.array(codes)[:, None] >> np.arange(9) & 1
    return b"\x1f\x9d\x90" + np.packbits(bits.astype(np.uint8).ravel(), bitorder="little").tobytes()


def tiled(path: Path) -> None:
    with fits.open(path) as hdus:
        packed = [fits.CompImageHDU(hdu.data, hdu.header, compression_type="RICE_1") for hdu in hdus[1:]]
        fits.HDUList([hdus[0], *packed]).writeto(path.with_suffix(".fits.fz"))


@pytest.mark.parametrize("suffix", [".fz", ".gz", ".Z"])
def test_a_packed_frame_reads_as_the_plain_one(tmp_path: Path, suffix: str) -> None:
    plain = write_raw_frame(tmp_path / "bias.fits")
    packed = tmp_path / f"bias.fits{suffix}"
    match suffix:
        case ".fz":
            tiled(plain)
        case ".gz":
            packed.write_bytes(gzip.compress(plain.read_bytes()))
        case ".Z":
            packed.write_bytes(compressed(plain))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for channel in (12, 1):
        expected, stack = (open_stack([path], channel, scratch=scratch) for path in (plain, packed))
        assert stack.exposures == expected.exposures
        np.testing.assert_array_equal(stack.rows(0, 0, ROWS), pixels(channel))
        assert stack.header["ESO DET CHIP ID"] == f"chip{channel}"
    for unpacked in scratch.iterdir():
        assert unpacked.stat().st_size < plain.stat().st_size, "more than the channel was unpacked"


def test_a_frame_is_unpacked_once(tmp_path: Path) -> None:
    packed = tmp_path / "bias.fits.gz"
    packed.write_bytes(gzip.compress(write_raw_frame(tmp_path / "bias.fits").read_bytes()))
    open_stack([packed], 1, scratch=tmp_path)
    times = [path.stat().st_mtime_ns for path in tmp_path.glob("*CHAN01*")]
    open_stack([packed], 1, scratch=tmp_path)
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("*CHAN01*")] == times
    assert len(times) == 1


def test_a_packed_frame_cut_short_is_said_to_be_so(tmp_path: Path) -> None:
    whole = gzip.compress(write_raw_frame(tmp_path / "bias.fits").read_bytes())
    packed = tmp_path / "cut.fits.gz"
    packed.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableFile, match=r"cut.fits.gz"):
        open_stack([packed], 1, scratch=tmp_path)
    assert not list(tmp_path.glob("cut*.CHAN01.fits"))


def test_of_a_packed_frame_nothing_behind_the_channel_is_unpacked(tmp_path: Path) -> None:
    plain = write_raw_frame(tmp_path / "bias.fits", channels=(12, 1), detector=Detector(nx=200, ny=200, margin=4))
    whole = gzip.compress(plain.read_bytes())
    cut = tmp_path / "cut.fits.gz"
    cut.write_bytes(whole[: len(whole) * 4 // 5])
    open_stack([cut], 12, scratch=tmp_path)
    with pytest.raises(UnreadableFile):
        open_stack([cut], 1, scratch=tmp_path)


def test_a_channel_that_is_not_there_or_dead_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = write_raw_frame(tmp_path / "bias.fits", channels=(3,), extension={"HIERARCH ESO DET CHIP LIVE": False})
    with pytest.raises(AbsentChannel, match="no extension CHAN04"):
        open_stack([path], 4, scratch=tmp_path)
    with pytest.raises(DeadChannel, match=r"CHAN03 of bias\.fits has DET CHIP LIVE = F"):
        open_stack([path], 3, scratch=tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "FITS header was expected"),
        (b"SIMPLE  =                    T".ljust(2880), "without END"),
    ],
)
def test_what_is_no_fits_file_is_said_to_be_none(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "bias.fits"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=sentence):
        open_stack([path], 1, scratch=tmp_path)


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@given(st.lists(st.tuples(st.integers(0, 2880 * 3 - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_its_headers_hold_a_frame_is_read_or_refused(raw: Path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(raw.read_bytes())
    for place, byte in changes:
        content[place] = byte
    broken = raw.with_name("broken.fits")
    broken.write_bytes(content)
    with contextlib.suppress(RecipeError):
        stack = open_stack([broken], 1, scratch=raw.parent)
        assert stack.rows(0, 0, stack.detector.raw_shape[0]).shape == stack.detector.raw_shape


@pytest.mark.parametrize(("name", "value"), [("NAXIS1", "-48"), ("NAXIS", "T"), ("NAXIS2", "1E9"), ("BITPIX", "'16'")])
def test_a_length_that_is_none_is_refused(tmp_path: Path, name: str, value: str) -> None:
    path = write_raw_frame(tmp_path / "bias.fits")
    content = path.read_bytes()
    start = content.index(f"{name:8}=".encode(), 2880)
    path.write_bytes(content[:start] + f"{name:8}= {value:>20}".encode() + content[start + 30 :])
    with pytest.raises(UnreadableFile, match="look at the file"):
        open_stack([path], 1, scratch=tmp_path)


def test_a_frame_shorter_than_its_headers_say_is_refused(tmp_path: Path) -> None:
    path = write_raw_frame(tmp_path / "bias.fits")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 2880)
    with pytest.raises(UnreadableFile, match="headers announce at least"):
        open_stack([path], 1, scratch=tmp_path)


def test_signed_raw_pixels_are_refused_rather_than_misread(tmp_path: Path) -> None:
    path = tmp_path / "signed.fits"
    image = fits.ImageHDU(np.zeros((4, 4), np.int16), name="CHAN01")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    with pytest.raises(UnreadableFile, match="BITPIX 16 and BZERO 0; raw frames have 16 and 32768"):
        open_stack([path], 1, scratch=tmp_path)


@pytest.mark.parametrize("name", ["EXPTIME", "HIERARCH ESO DET OUT2 GAIN"])
def test_a_needed_card_without_a_number_is_named(tmp_path: Path, name: str) -> None:
    path = write_raw_frame(tmp_path / "bias.fits", extension={name: "many"})
    with pytest.raises(UnreadableFile, match=name.removeprefix("HIERARCH ")):
        open_stack([path], 1, scratch=tmp_path)


def test_frames_of_another_layout_do_not_go_together(tmp_path: Path) -> None:
    one = write_raw_frame(tmp_path / "1.fits")
    other = write_raw_frame(tmp_path / "2.fits", detector=Detector(nx=10, ny=12, margin=4))
    with pytest.raises(UnreadableFile, match="combine frames of one layout only"):
        _ = open_stack([one, other], 1, scratch=tmp_path).detector


def test_memory_and_descriptors_do_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    detector = Detector(nx=200, ny=200, margin=4)
    path = write_raw_frame(tmp_path / "bias.fits", detector=detector)
    stack = open_stack([path] * 40, 1, scratch=tmp_path)
    rows, columns = detector.raw_shape
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    tracemalloc.start()
    for start in range(0, rows, 16):
        for frame in range(40):
            stack.rows(frame, start, min(start + 16, rows))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 16 * columns * 2 + 20_000
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def product_planes(scale: float) -> list[fits.ImageHDU]:
    data = np.arange(48, dtype=np.float32).reshape(6, 8) * np.float32(scale)
    flags = np.zeros((6, 8), np.int32)
    flags[0, 0] = -(2**31)  # bit 31
    planes = {"DATA": data, "DQ": flags, "STAT": data * 2}
    hdus = [fits.ImageHDU(array, name=name) for name, array in planes.items()]
    hdus[0].header["BUNIT"] = "adu"
    hdus[0].header["HIERARCH ESO DET CHIP ID"] = f"chip{scale:g}"
    return hdus


def write_image(path: Path, channels: tuple[int, ...], *, merged: bool) -> Path:
    primary = fits.PrimaryHDU()
    hdus: list[Any] = [primary]
    if not merged:
        primary.header["EXTNAME"] = f"CHAN{channels[0]:02d}"
        primary.header["HIERARCH ESO QC BIAS MASTER1 RON"] = 2.25
    for channel in channels:
        planes = product_planes(channel)
        for plane in planes if merged else ():
            plane.header["EXTNAME"] = f"CHAN{channel:02d}.{plane.name}"
            plane.header["HIERARCH ESO QC BIAS MASTER1 RON"] = 2.25
        hdus += planes
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("packing", ["", ".gz", ".fz"])
def test_a_calibration_image_reads_alike_from_one_file_a_channel_and_from_a_merged_one(
    tmp_path: Path, packing: str, *, merged: bool
) -> None:
    path = write_image(tmp_path / "bias.fits", (2, 7) if merged else (7,), merged=merged)
    if packing == ".gz":
        path.with_suffix(".fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    elif packing == ".fz":
        with fits.open(path) as hdus:
            packed = [
                fits.CompImageHDU(hdu.data, hdu.header, compression_type="GZIP_1", quantize_level=0) for hdu in hdus[1:]
            ]
            fits.HDUList([hdus[0], *packed]).writeto(path.with_suffix(".fits.fz"))
    image = open_image(path.with_name(path.name + packing), 7, scratch=tmp_path)
    part = image.rows(0, 4)
    np.testing.assert_array_equal(part.data, np.arange(32, dtype=np.float32).reshape(4, 8) * 7)
    np.testing.assert_array_equal(part.stat, part.data * 2)
    assert part.dq[0, 0] == 1 << 31
    assert part.unit == "adu"
    assert image.measurements == {"BIAS MASTER1 RON": 2.25}
    assert image.keywords["ESO DET CHIP ID"] == "chip7"


def test_an_image_of_another_channel_is_refused(tmp_path: Path) -> None:
    for merged in (True, False):
        path = write_image(tmp_path / f"{merged}.fits", (7,), merged=merged)
        with pytest.raises(AbsentChannel, match=r"no extension CHAN08\.DATA"):
            open_image(path, 8)


def test_a_compressed_image_without_scratch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no scratch folder"):
        open_image(tmp_path / "bias.fits.gz", 1)


def table(value: int, name: str = "") -> fits.BinTableHDU:
    columns = [
        fits.Column("SliceNo", "1J", "No", array=np.arange(3) + value),
        fits.Column("tc0_00", "1D", "pix", array=np.linspace(0, 1, 3)),
    ]
    return fits.BinTableHDU.from_columns(columns, name=name or None)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_table_is_found_by_channel_or_serves_all(tmp_path: Path, suffix: str) -> None:
    alone, merged, static = (tmp_path / f"{name}.fits" for name in ("alone", "merged", "static"))
    primary = fits.PrimaryHDU()
    fits.HDUList([primary, table(5)]).writeto(static)
    fits.HDUList([primary, table(20, "CHAN02"), table(10, "CHAN01")]).writeto(merged)
    primary.header["EXTNAME"] = "CHAN01"
    fits.HDUList([primary, table(10)]).writeto(alone)
    for path, first in ((alone, 10), (merged, 10), (static, 5)):
        given_path = path
        if suffix:
            given_path = path.with_suffix(".fits.gz")
            given_path.write_bytes(gzip.compress(path.read_bytes()))
        source = read_table(given_path, 1, scratch=tmp_path)
        assert source.table["SliceNo"].tolist() == [first, first + 1, first + 2]
        assert source.table["SliceNo"].dtype == np.dtype(np.int32)
        assert [column.unit for column in source.table.columns] == ["No", "pix"]
    for path in (alone, merged):
        with pytest.raises(AbsentChannel, match="no table of channel 3"):
            read_table(path, 3)
