"""One channel from raw files to product files, and the channels to one file as ESO lays it out."""

import gzip
import hashlib
import math
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from raw_frame import SMALL, pixels, write_raw_frame

from recipes.channel import MISSING, Identity, Input, Outcome, Provenance, merge_channels, reduce_channel
from recipes.detector import known_flags
from recipes.fits import AbsentChannel, open_image, read_table
from recipes.products import primary_header, write_product
from recipes.recipe import (
    Channel,
    Column,
    Flags,
    Float32,
    Image,
    Keyword,
    Measurement,
    Params,
    Product,
    Recipe,
    RecipeError,
    Result,
    Table,
    parameter,
)

DIGEST = hashlib.sha256(b"a raw frame").hexdigest()
IDENTITY = Identity(
    "M.MUSE.2026-06-17T10:42:11.000.fits",
    "MU_MBIA_260617A_slow.fits",
    "MASTER_BIAS.fits",
    datetime(2026, 6, 18, 1, 2, 3, tzinfo=UTC),
)


@dataclass(frozen=True, kw_only=True)
class MeanParams(Params):
    overscan: str = parameter("vpoly", "How the overscan is used.")
    ovscsigma: float = parameter(30.0, "Limit of deviation.")


def mean(channel: Channel, params: MeanParams) -> Result:
    """Stand in for a recipe: an image that tells the channels apart, and a table of two rows."""
    if params.overscan == "none":
        raise RecipeError("The overscan is 17 adu off, 5 are allowed; look at the frames.", offset=17)
    stack, (rows, columns) = channel.stacks["BIAS"], channel.detector.shape
    frames = np.array([stack.rows(i, 0, rows)[:, :columns] for i in range(len(stack.exposures))])
    data: Float32 = frames.mean(0, dtype=np.float32)
    flags: Flags = np.full(data.shape, channel.number, np.uint16)
    image = Image(data=data, dq=flags, stat=data / np.float32(3), unit="adu")
    measurements = (
        Measurement("BIAS MASTER1 RON", 2.5 + channel.number, "[count] Read-out noise in quadrant 1"),
        Measurement("BIAS MASTER NBADPIX", 7, "Bad pixels"),
        Measurement("BIAS MASTER1 SLOPE X", math.nan, "[adu/pix] Slope"),
    )
    keywords = (Keyword("ESO DRS MUSE OVSC1 MEAN", 1000.5, "mean"),)
    table = Table(columns=(Column(name="SliceNo", values=np.array([1, channel.number], np.int32), unit="No"),))
    return Result(
        (
            Product(catg="MASTER_BIAS", content=image, measurements=measurements, keywords=keywords, exptime=3600.0),
            Product(catg="TRACE_TABLE", content=table),
        ),
        ("One frame is odd.",),
    )


RECIPE = Recipe(
    name="muse_bias",
    version="3",
    raw=("BIAS",),
    minimum=3,
    makes=("MASTER_BIAS", "TRACE_TABLE"),
    params=MeanParams,
    reduce=mean,
)
PROVENANCE = Provenance(
    recipe="muse_bias",
    version="3",
    raws=tuple(Input(f"MUSE.2026-06-17T10:{41 + i}:11.000.fits", "BIAS", DIGEST) for i in (1, 2, 3)),
    calibrations=(),
    parameters=(("overscan", "vpoly", "vpoly"), ("ovscsigma", 25.0, 30.0), ("merge", True, False)),
)


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("raw")
    return [write_raw_frame(folder / f"{frame}.fits", frame=frame) for frame in (1, 2, 3)]


def run(raws: list[Path], folder: Path, channel: int = 1, **changes: object) -> Outcome:
    folder.mkdir(exist_ok=True)
    wanted: dict[str, Any] = {
        "recipe": RECIPE,
        "params": MeanParams(),
        "raws": {"BIAS": raws},
        "calibrations": {},
        "provenance": PROVENANCE,
    }
    return reduce_channel(channel=channel, folder=folder, **(wanted | changes))


def test_products_have_their_place_and_what_the_recipe_made(raws: list[Path], tmp_path: Path) -> None:
    outcome = run(raws, tmp_path / "part", 12)
    assert outcome.files == {c: tmp_path / "part" / f"{c}-12.fits" for c in ("MASTER_BIAS", "TRACE_TABLE")}
    assert sorted((tmp_path / "part").iterdir()) == sorted(outcome.files.values())
    assert outcome.warnings == ("One frame is odd.",)
    assert outcome.measurements["TRACE_TABLE"] == ()
    source = open_image(outcome.files["MASTER_BIAS"], 12)
    image = source.rows(0, SMALL.shape[0])
    expected = np.mean([pixels(12, i)[: SMALL.shape[0], : SMALL.shape[1]] for i in (1, 2, 3)], 0, dtype=np.float32)
    np.testing.assert_array_equal(image.data, expected)
    assert (image.dq == 12).all()
    assert [m.name for m in outcome.measurements["MASTER_BIAS"]] == list(source.measurements)
    assert source.measurements["BIAS MASTER1 RON"] == 14.5
    assert math.isnan(float(source.measurements["BIAS MASTER1 SLOPE X"]))
    assert read_table(outcome.files["TRACE_TABLE"], 12).table["SliceNo"].tolist() == [1, 12]


def test_the_primary_header_is_that_of_the_first_frame_and_its_channel(raws: list[Path], tmp_path: Path) -> None:
    header = fits.getheader(run(raws, tmp_path).files["MASTER_BIAS"])
    raw, extension = fits.getheader(raws[0]), fits.getheader(raws[0], "CHAN01")
    for name in ("INSTRUME", "OBJECT", "DATE-OBS", "ARCFILE", "ESO INS MODE", "ESO TPL NEXP"):
        assert header[name] == raw[name]
    for name in ("EXTNAME", "ESO DET CHIP ID", "ESO DET OUT2 GAIN", "ESO DET OUT4 NX"):
        assert header[name] == extension[name]
    for name in ("ESO DPR TYPE", "ORIGFILE", "CTYPE1", "BZERO", "ESO DET OUT1 PRSCX", "RADECSYS", "NAXIS1"):
        assert name not in header
    assert header["RADESYS"] == "FK5"
    assert header["EXPTIME"] == 3600.0
    assert header["PIPEFILE"] == "MASTER_BIAS-01.fits"
    assert header["ESO DRS MUSE OVSC1 MEAN"] == 1000.5
    assert header["ESO QC BIAS MASTER NBADPIX"] == 7
    assert fits.getheader(run(raws, tmp_path).files["TRACE_TABLE"])["EXPTIME"] == raw["EXPTIME"]


def test_a_numbered_product_has_the_header_of_its_exposure(raws: list[Path], tmp_path: Path) -> None:
    def each(channel: Channel, params: MeanParams) -> Result:
        image = mean(channel, params).products[0]
        return Result(tuple(replace(image, number=number) for number in (1, 2, 3)))

    found = run(raws, tmp_path, recipe=replace(RECIPE, reduce=each)).files
    for number, raw in enumerate(raws, 1):
        header = fits.getheader(found[f"MASTER_BIAS_{number:04d}"])
        assert header["ARCFILE"] == fits.getval(raw, "ARCFILE")
        assert header["ESO PRO ANCESTOR"] == fits.getval(raws[0], "ARCFILE")


def test_the_record_says_of_what_and_how_it_was_made(raws: list[Path], tmp_path: Path) -> None:
    bias = tmp_path / "MU_MBIA.fits"
    merge_channels("MASTER_BIAS", {1: run(raws, tmp_path).files["MASTER_BIAS"]}, bias, identity=IDENTITY)
    provenance = replace(PROVENANCE, calibrations=(Input("MU_MBIA_260617A.fits", "MASTER_BIAS", DIGEST),))
    seen: list[Channel] = []

    def look(channel: Channel, params: MeanParams) -> Result:
        seen.append(channel)
        return mean(channel, params)

    trace = run(raws, tmp_path).files["TRACE_TABLE"]
    outcome = run(
        raws,
        tmp_path / "flat",
        recipe=replace(RECIPE, needed=("MASTER_BIAS",), reduce=look),
        calibrations={"MASTER_BIAS": bias, "TRACE_TABLE": trace},
        provenance=provenance,
    )
    assert seen[0].images["MASTER_BIAS"].measurements["BIAS MASTER1 RON"] == 3.5
    assert seen[0].tables["TRACE_TABLE"].table["SliceNo"].tolist() == [1, 1]
    assert seen[0].detector == SMALL
    header = fits.getheader(outcome.files["MASTER_BIAS"])
    record = {name.removeprefix("ESO PRO "): header[name] for name in header if name.startswith("ESO PRO ")}
    own = {name: record.pop(name) for name in ("REC1 DRS ID", "REC1 PIPE ID")}
    assert record == {
        "CATG": "MASTER_BIAS",
        "TYPE": "REDUCED",
        "TECH": "IFU",
        "SCIENCE": False,
        "DID": "PRO-1.16",
        "ANCESTOR": "MUSE.2026-06-17T10:42:11.000.fits",
        "DATANCOM": 3,
        "REC1 ID": "muse_bias",
        **{f"REC1 RAW{i} NAME": f"MUSE.2026-06-17T10:{41 + i}:11.000.fits" for i in (1, 2, 3)},
        **{f"REC1 RAW{i} CATG": "BIAS" for i in (1, 2, 3)},
        **{f"REC1 RAW{i} SHA256": DIGEST[:40] for i in (1, 2, 3)},
        "REC1 CAL1 NAME": "MU_MBIA_260617A.fits",
        "REC1 CAL1 CATG": "MASTER_BIAS",
        "REC1 CAL1 SHA256": DIGEST[:40],
        "REC1 CAL1 DATAMD5": fits.getheader(bias)["DATAMD5"],
        "REC1 PARAM1 NAME": "overscan",
        "REC1 PARAM1 VALUE": "vpoly",
        "REC1 PARAM2 NAME": "ovscsigma",
        "REC1 PARAM2 VALUE": "25",
        "REC1 PARAM3 NAME": "merge",
        "REC1 PARAM3 VALUE": "true",
    }
    assert header.comments["ESO PRO REC1 PARAM2 VALUE"] == "Default: 30"
    assert header.comments["ESO PRO REC1 PARAM2 NAME"] == "Limit of deviation."
    assert own["REC1 DRS ID"].startswith("musecal-")
    assert own["REC1 PIPE ID"] == "musecal/3"


def test_data_that_cannot_be_reduced_leave_nothing_behind(raws: list[Path], tmp_path: Path) -> None:
    packed = tmp_path / "1.fits.gz"
    packed.write_bytes(gzip.compress(raws[0].read_bytes()))
    folder = tmp_path / "part"
    with pytest.raises(RecipeError, match="17 adu off") as error:
        run([packed, *raws[1:]], folder, params=MeanParams(overscan="none"))
    assert error.value.numbers == {"offset": 17}
    assert not list(folder.iterdir())


def test_a_disk_that_fills_up_leaves_no_product(
    raws: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(target: Path, *_: object) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recipes.channel.write_product", fill)
    with pytest.raises(OSError, match="No space left"):
        run(raws, tmp_path / "part")
    assert not list((tmp_path / "part").iterdir())


def test_packed_frames_leave_only_the_products(raws: list[Path], tmp_path: Path) -> None:
    packed = []
    for path in raws:
        packed.append(tmp_path / f"{path.name}.gz")
        packed[-1].write_bytes(gzip.compress(path.read_bytes()))
    plain, unpacked = run(raws, tmp_path / "plain"), run(packed, tmp_path / "packed")
    for catg, path in plain.files.items():
        assert unpacked.files[catg].read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "packed").iterdir())) == 2


def test_too_few_frames_or_a_missing_calibration_are_said_before_anything_is_read(tmp_path: Path) -> None:
    absent = [tmp_path / "1.fits", tmp_path / "2.fits"]
    with pytest.raises(RecipeError, match="needs 3 frames BIAS and was given 2"):
        run(absent, tmp_path)
    with pytest.raises(RecipeError, match="needs MASTER_BIAS, which it was not given"):
        run([*absent, tmp_path / "3.fits"], tmp_path, recipe=replace(RECIPE, needed=("MASTER_BIAS",)))


def test_a_second_run_gives_the_same_bytes(raws: list[Path], tmp_path: Path) -> None:
    one, two = run(raws, tmp_path / "one"), run(raws, tmp_path / "two")
    for catg in one.files:
        assert one.files[catg].read_bytes() == two.files[catg].read_bytes()


@pytest.fixture(scope="module")
def parts(raws: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Mapping[str, Path]]:
    folder = tmp_path_factory.mktemp("parts")
    return {channel: run(raws, folder, channel).files for channel in (1, 12)}


def merged(
    parts: dict[int, Mapping[str, Path]], catg: str, target: Path, missing: tuple[int, ...] = ()
) -> fits.HDUList:
    """Merge, and read it with astropy, which checks the checksums; warnings are errors."""
    files = {channel: files[catg] for channel, files in parts.items()}
    merge_channels(catg, files, target, identity=IDENTITY, channels_missing=missing)
    hdus = fits.HDUList.fromstring(target.read_bytes(), checksum=True)
    hdus.verify("exception")
    return hdus


# Cards of MASTER_BIAS.fits and TRACE_TABLE.fits as muse_bias and muse_flat 2.8.7 write them with --merge=true.
EVERY_PLANE = (
    "XTENSION BITPIX NAXIS NAXIS1 NAXIS2 PCOUNT GCOUNT EXTNAME HDUCLASS HDUDOC HDUVERS HDUCLAS1 HDUCLAS2 INHERIT"
)
ESO_EXTENSIONS = {
    "DATA": f"{EVERY_PLANE} BUNIT ERRDATA QUALDATA",
    "DQ": f"{EVERY_PLANE} HDUCLAS3 SCIDATA ERRDATA QUALMASK",
    "STAT": f"{EVERY_PLANE} HDUCLAS3 BUNIT SCIDATA QUALDATA",
    "": "XTENSION BITPIX NAXIS NAXIS1 NAXIS2 PCOUNT GCOUNT TFIELDS EXTNAME TTYPE1 TFORM1 TUNIT1",
}
ESO_PRIMARY = (
    *("SIMPLE", "BITPIX", "NAXIS", "EXTEND", "DATE", "INSTRUME", "OBJECT", "EXPTIME", "MJD-OBS", "DATE-OBS", "RADESYS"),
    *("PIPEFILE", "ARCFILE", "DATAMD5", "CHECKSUM", "DATASUM", "ESO INS MODE", "ESO TPL NEXP"),
    *(f"ESO PRO {name}" for name in ("ANCESTOR", "CATG", "DATANCOM", "DID", "SCIENCE", "TECH", "TYPE")),
    *(f"ESO PRO REC1 {name}" for name in ("ID", "DRS ID", "PIPE ID")),
    *(f"ESO PRO REC1 RAW{i} {name}" for i in (1, 2, 3) for name in ("NAME", "CATG")),
    *(f"ESO PRO REC1 PARAM{i} {name}" for i in (1, 2, 3) for name in ("NAME", "VALUE")),
)
OURS_BESIDE = {"ORIGFILE", *(f"ESO PRO REC1 RAW{i} SHA256" for i in (1, 2, 3))}


@pytest.mark.parametrize("catg", ["MASTER_BIAS", "TRACE_TABLE"])
def test_each_card_of_a_merged_file_stands_where_eso_puts_it(
    parts: dict[int, Mapping[str, Path]], tmp_path: Path, catg: str
) -> None:
    primary, *extensions = merged(parts, catg, tmp_path / "merged.fits")
    assert set(primary.header) == set(ESO_PRIMARY) | OURS_BESIDE
    planes = ["DATA", "DQ", "STAT"] if catg == "MASTER_BIAS" else [""]
    assert [hdu.name for hdu in extensions] == [
        f"CHAN{channel:02d}{'.' if plane else ''}{plane}" for channel in (1, 12) for plane in planes
    ]
    for hdu in extensions:
        chan, _, plane = hdu.name.partition(".")
        own = fits.getheader(parts[int(chan[4:])][catg])
        of_channel = {name for name in own if name.startswith(("ESO DET CHIP", "ESO DET OUT", "ESO QC", "ESO DRS"))}
        assert set(hdu.header) == set(ESO_EXTENSIONS[plane].split()) | of_channel | {"CHECKSUM", "DATASUM"}
        assert {name: str(hdu.header[name]) for name in of_channel} == {name: str(own[name]) for name in of_channel}
        for pointer in {"SCIDATA", "ERRDATA", "QUALDATA"} & set(hdu.header):
            assert hdu.header[pointer].startswith(f"{chan}.")
            assert hdu.header[pointer] in [other.name for other in extensions]


def test_a_merged_file_says_who_it_is(parts: dict[int, Mapping[str, Path]], tmp_path: Path) -> None:
    path = tmp_path / "merged.fits"
    header = merged(parts, "MASTER_BIAS", path, missing=(24, 3))[0].header
    assert header["ARCFILE"] == IDENTITY.arcfile
    assert header["ORIGFILE"] == IDENTITY.origfile
    assert header["PIPEFILE"] == IDENTITY.pipefile
    assert header["DATE"] == "2026-06-18T01:02:03"
    assert header["ESO PRO ANCESTOR"] == "MUSE.2026-06-17T10:42:11.000.fits"
    assert header[MISSING] == "3,24"
    signature = hashlib.md5(usedforsecurity=False)
    with fits.open(path) as hdus:
        for hdu in hdus:
            place = hdu.fileinfo()
            signature.update(path.read_bytes()[place["datLoc"] : place["datLoc"] + place["datSpan"]])
    assert header["DATAMD5"] == signature.hexdigest()


def test_data_go_through_a_merge_unchanged_with_their_sums(
    parts: dict[int, Mapping[str, Path]], tmp_path: Path
) -> None:
    hdus = merged(parts, "MASTER_BIAS", tmp_path / "merged.fits")
    for channel in (1, 12):
        alone = open_image(parts[channel]["MASTER_BIAS"], channel)
        joined = open_image(tmp_path / "merged.fits", channel)
        for plane in ("data", "dq", "stat"):
            one, two = (getattr(source.rows(0, SMALL.shape[0]), plane) for source in (alone, joined))
            np.testing.assert_array_equal(one, two)
        assert str(joined.measurements) == str(alone.measurements)
        for plane in ("DATA", "DQ", "STAT"):
            own = fits.getheader(parts[channel]["MASTER_BIAS"], plane)
            assert hdus[f"CHAN{channel:02d}.{plane}"].header["DATASUM"] == own["DATASUM"]


def test_a_byte_that_changed_between_writing_and_merging_is_found_by_its_sum(
    parts: dict[int, Mapping[str, Path]], tmp_path: Path
) -> None:
    broken = bytearray(parts[1]["MASTER_BIAS"].read_bytes())
    broken[-4000] ^= 4
    path = tmp_path / "MASTER_BIAS-01.fits"
    path.write_bytes(broken)
    merge_channels("MASTER_BIAS", {1: path}, tmp_path / "merged.fits", identity=IDENTITY)
    with fits.open(tmp_path / "merged.fits") as hdus:
        assert [hdu.verify_datasum() for hdu in hdus] == [1, 1, 1, 0]


def test_the_order_in_which_channels_finish_does_not_matter(tmp_path: Path) -> None:
    frames = [write_raw_frame(tmp_path / f"{i}.fits", frame=i, channels=(3, 1, 2)) for i in (1, 2, 3)]
    files = {channel: run(frames, tmp_path / "parts", channel).files["MASTER_BIAS"] for channel in (1, 2, 3)}
    results = set()
    for order in permutations(files):
        merge_channels("MASTER_BIAS", {c: files[c] for c in order}, tmp_path / "merged.fits", identity=IDENTITY)
        results.add((tmp_path / "merged.fits").read_bytes())
    assert len(results) == 1


def test_a_merge_takes_no_memory_for_its_data(tmp_path: Path) -> None:
    header = primary_header()
    header.set("ESO PRO CATG", "MASTER_BIAS")
    plane = np.ones((500, 500), np.float32)
    write_product(tmp_path / "part.fits", header, Image(data=plane, dq=plane.astype(np.uint16), stat=plane, unit="adu"))
    files = dict.fromkeys(range(1, 25), tmp_path / "part.fits")
    tracemalloc.start()
    merge_channels("MASTER_BIAS", files, tmp_path / "merged.fits", identity=IDENTITY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "merged.fits").stat().st_size / 10


def test_only_channels_of_one_product_are_merged(parts: dict[int, Mapping[str, Path]], tmp_path: Path) -> None:
    files = {1: parts[1]["MASTER_BIAS"], 12: parts[12]["TRACE_TABLE"]}
    with pytest.raises(ValueError, match="is a TRACE_TABLE; a MASTER_BIAS is needed"):
        merge_channels("MASTER_BIAS", files, tmp_path / "merged.fits", identity=IDENTITY)
    with pytest.raises(ValueError, match="no channel of MASTER_BIAS"):
        merge_channels("MASTER_BIAS", {}, tmp_path / "merged.fits", identity=IDENTITY)


def test_a_channel_without_a_table_of_bad_pixels_has_none(raws: list[Path], tmp_path: Path) -> None:
    """A BADPIX_TABLE has a table for each channel that has any; every other table must have the channel.

    Of the three pixels here two are outside of the frame.
    """
    known: dict[int, list[int]] = {}

    def note(channel: Channel, params: MeanParams) -> Result:
        flags = known_flags(channel)
        known[channel.number] = [int(flag) for flag in flags[flags > 0]]
        return mean(channel, params)

    columns = [
        fits.Column(name, form, array=values)
        for name, form, values in (
            ("xpos", "1J", [10, 0, 99]),
            ("ypos", "1J", [9, 9, 9]),
            ("status", "1J", [512, 1, 1]),
            ("value", "1E", [0] * 3),
        )
    ]
    path = tmp_path / "badpix.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="CHAN12")]).writeto(path)
    recipe = replace(RECIPE, reduce=note)
    for channel in (1, 12):
        run(raws, tmp_path / str(channel), channel, recipe=recipe, calibrations={"BADPIX_TABLE": path})
    assert known == {1: [], 12: [512]}
    with pytest.raises(AbsentChannel, match="no table of channel 1"):
        run(raws, tmp_path / "trace", 1, recipe=recipe, calibrations={"TRACE_TABLE": path})


def test_a_name_too_long_for_its_card_goes_without_its_suffix(raws: list[Path], tmp_path: Path) -> None:
    names = [f"MU_GSDR_140101A_std_response_wfm-noao-n{tail}.fits" for tail in ("", "-and-so-on-and-on")]
    inputs = tuple(Input(name, "BIAS", DIGEST) for name in names * 6)
    outcome = run(raws, tmp_path / "part", provenance=replace(PROVENANCE, raws=inputs))
    header = fits.getheader(outcome.files["MASTER_BIAS"])
    assert header["ESO PRO REC1 RAW1 NAME"] == names[0]
    assert header["ESO PRO REC1 RAW11 NAME"] == names[0].removesuffix(".fits")
    assert names[1].startswith(header["ESO PRO REC1 RAW12 NAME"])
    assert DIGEST.startswith(header["ESO PRO REC1 RAW12 SHA256"])
