"""Small raw frames as the instrument writes them, for tests of reading and writing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from recipes.muse import Detector, Quadrant, extension_name

SMALL = Detector(nx=20, ny=12, margin=4)


def pixels(channel: int, frame: int = 1, detector: Detector = SMALL) -> NDArray[np.uint16]:
    """Values of one channel over the whole range of 16 bits, other ones in each channel and frame."""
    return np.random.default_rng((channel, frame)).integers(0, 65536, detector.raw_shape).astype(np.uint16)


def write_raw_frame(
    path: Path,
    *,
    frame: int = 1,
    channels: Sequence[int] = (12, 1),
    detector: Detector = SMALL,
    primary: Mapping[str, Any] | None = None,
    extension: Mapping[str, Any] | None = None,
) -> Path:
    """Write one raw frame; extensions stand in the order given, not in that of their numbers."""
    header = fits.Header()
    stamp = f"2026-06-17T10:{41 + frame:02d}:11.000"
    for name, value in {
        "INSTRUME": "MUSE",
        "OBJECT": "BIAS",
        "EXPTIME": 0.0,
        "MJD-OBS": 61208.445,
        "DATE-OBS": stamp,
        "RADECSYS": "FK5",
        "ARCFILE": f"MUSE.{stamp}.fits",
        "ORIGFILE": f"MUSE_CAL_BIAS168_{frame:04d}.fits",
        "HIERARCH ESO DPR CATG": "CALIB",
        "HIERARCH ESO DPR TYPE": "BIAS",
        "HIERARCH ESO DPR TECH": "IFU",
        "HIERARCH ESO INS MODE": "WFM-NOAO-N",
        "HIERARCH ESO TPL NEXP": 3,
        **(primary or {}),
    }.items():
        header[name] = value
    hdus = [fits.PrimaryHDU(header=header)]
    hdus += [_extension(channel, frame, detector, extension or {}) for channel in channels]
    fits.HDUList(hdus).writeto(path, checksum=True, overwrite=True)
    return path


def _extension(channel: int, frame: int, detector: Detector, cards: Mapping[str, Any]) -> fits.ImageHDU:
    header = fits.Header()
    header["EXTNAME"] = extension_name(channel)
    header["CTYPE1"], header["CRVAL1"], header["CRPIX1"] = "PIXEL", 1.0, 1.0
    header["HIERARCH ESO DET CHIP ID"] = f"chip{channel}"
    header["HIERARCH ESO DET CHIP LIVE"] = True
    for quadrant in Quadrant:
        name = f"HIERARCH ESO DET OUT{quadrant.value}"
        header[f"{name} NX"], header[f"{name} NY"] = detector.nx, detector.ny
        for margin in ("PRSCX", "PRSCY", "OVSCX", "OVSCY"):
            header[f"{name} {margin}"] = detector.margin
        header[f"{name} GAIN"] = 1.0 + quadrant.value / 10
        header[f"{name} RON"] = 2.0 + quadrant.value / 10
    for name, value in cards.items():
        header[name] = value
    return fits.ImageHDU(pixels(channel, frame, detector), header=header)
