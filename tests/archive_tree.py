"""Trees of an existing archive, in small: raw frames, and masters with the headers that ESO's pipeline gives them."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from raw_frame import write_raw_frame

from archive.night import mjd_of
from recipes.muse import extension_name
from tasks.cascade import Tag

SIDE = 8  # pixels of an image
TYPES = {Tag.BIAS: "BIAS", Tag.FLAT: "FLAT,LAMP"}
_COLUMNS = {
    "TRACE_TABLE": ("SliceNo", "Width", "tc0_00", "tc1_00", "tc2_00", "MSE0", "MSE1", "MSE2"),
    "WAVECAL_TABLE": ("SliceNo", "wlc00", "MSE"),
    "STD_RESPONSE": ("lambda", "response", "resperr"),
}


def raw_name(start: datetime, number: int) -> str:
    """Name in ESO's archive of one exposure of a template."""
    return f"MUSE.{start + timedelta(minutes=number):%Y-%m-%dT%H:%M:%S}.000.fits"


def write_template(
    folder: Path, tag: Tag, start: datetime, *, frames: int = 3, channels: Sequence[int] = (1, 12)
) -> list[Path]:
    """Write the frames of a template that starts then."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(1, frames + 1):
        begin = start + timedelta(minutes=number)
        cards = {
            **_setup(start, frames, number),
            "MJD-OBS": mjd_of(begin),
            "DATE-OBS": f"{begin:%Y-%m-%dT%H:%M:%S}.000",
            "ARCFILE": raw_name(start, number),
            "ORIGFILE": f"MUSE_CAL_{tag}{begin:%j}_{number:04d}.fits",
            "HIERARCH ESO DPR TYPE": TYPES[tag],
            "EXPTIME": 30.0,
        }
        path = folder / raw_name(start, number)
        paths.append(write_raw_frame(path, frame=begin.hour * 60 + begin.minute, channels=channels, primary=cards))
    return paths


def _setup(start: datetime, frames: int, number: int = 1) -> dict[str, Any]:
    return {
        "HIERARCH ESO INS MODE": "WFM-NOAO-N",
        "HIERARCH ESO DET READ CURNAME": "SCI1.0",
        "HIERARCH ESO DET READ CURID": 1,
        "HIERARCH ESO TPL START": f"{start:%Y-%m-%dT%H:%M:%S}",
        "HIERARCH ESO TPL NEXP": frames,
        "HIERARCH ESO TPL EXPNO": number,
    }


def write_master(
    path: Path,
    catg: str,
    start: datetime,
    *,
    recipe: str = "muse_bias",
    pipeline: str = "muse/2.8.7",
    frames: int = 3,
    channels: Sequence[int] = (1, 12),
    merged: bool = True,
    raws: Sequence[str] | None = None,
    calibrations: Sequence[tuple[str, str, str]] = (),
    cards: Mapping[str, Any] | None = None,
    value: float = 1.0,
) -> Path:
    """Write a product of the frames of a template: of all channels in one file, or of the only one given.

    Parameters
    ----------
    raws : sequence of str, optional
        Names of the frames in the header, without them those of ESO's archive.
    calibrations : sequence of name, PRO.CATG and DATAMD5
    value : float
        Of every pixel, row and QC1 parameter.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = fits.Header()
    header["INSTRUME"] = "MUSE"
    header["DATE"] = f"{start + timedelta(hours=6):%Y-%m-%dT%H:%M:%S}"
    header["MJD-OBS"] = mjd_of(start + timedelta(minutes=1))
    header["ARCFILE"] = raw_name(start, 1)
    header["PIPEFILE"] = path.name
    data = f"{catg} {start} {channels} {value}"
    header["DATAMD5"] = hashlib.md5(data.encode(), usedforsecurity=False).hexdigest()
    for name, card in _setup(start, frames).items():
        header[name] = card
    header["HIERARCH ESO PRO CATG"] = catg
    header["HIERARCH ESO PRO REC1 ID"] = recipe
    header["HIERARCH ESO PRO REC1 PIPE ID"] = pipeline
    for number, name in enumerate(raws or [raw_name(start, number + 1) for number in range(frames)], 1):
        header[f"HIERARCH ESO PRO REC1 RAW{number} NAME"] = name
        header[f"HIERARCH ESO PRO REC1 RAW{number} CATG"] = "BIAS" if recipe == "muse_bias" else "FLAT"
    for number, (name, tag, signature) in enumerate(calibrations, 1):
        header[f"HIERARCH ESO PRO REC1 CAL{number} NAME"] = name
        header[f"HIERARCH ESO PRO REC1 CAL{number} CATG"] = tag
        header[f"HIERARCH ESO PRO REC1 CAL{number} DATAMD5"] = signature
    header["HIERARCH ESO PRO REC1 PARAM1 NAME"] = "nifu"
    header["HIERARCH ESO PRO REC1 PARAM1 VALUE"] = str(0 if merged else channels[0])
    header["HIERARCH ESO PRO REC1 PARAM2 NAME"] = "combine"
    header["HIERARCH ESO PRO REC1 PARAM2 VALUE"] = "sigclip"
    for name, card in (cards or {}).items():
        header[name] = card
    qc = fits.Header({"HIERARCH ESO QC BIAS MASTER1 RON": 2.0 + value / 10, "HIERARCH ESO QC BIAS KIND": "even"})
    if not merged:
        header["EXTNAME"] = extension_name(channels[0])
        header.update(qc)
    hdus = [fits.PrimaryHDU(header=header)]
    for channel in channels:
        prefix = f"{extension_name(channel)}." if merged else ""
        units = _units(catg, prefix, value)
        if merged:
            units[0].header.update(qc)
        hdus += units
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)
    return path


def _units(catg: str, prefix: str, value: float) -> list[Any]:
    if columns := _COLUMNS.get(catg):
        rows = np.full(48, value)
        table = fits.BinTableHDU.from_columns([fits.Column(name, "D", array=rows) for name in columns])
        if prefix:
            table.name = prefix.rstrip(".")
        return [table]
    plane = np.full((SIDE, SIDE), value, np.float32)
    return [
        fits.ImageHDU(plane.astype(np.int32) * 0 if name == "DQ" else plane, name=f"{prefix}{name}")
        for name in ("DATA", "DQ", "STAT")
    ]


def write_sets(folder: Path, catg: str, start: datetime, channels: Sequence[int] = (1, 12), **how: Any) -> list[Path]:  # noqa: ANN401 - as for write_master
    """Write a product as one file a channel, as ESO's recipes do by themselves."""
    return [
        write_master(folder / f"{catg}-{channel:02d}.fits", catg, start, channels=(channel,), merged=False, **how)
        for channel in channels
    ]
