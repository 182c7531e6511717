"""Reading FITS pixels and tables of one channel, in blocks of rows, with nothing kept in memory or open between blocks.

Takes raw frames and products as they come: plain, ``.fits.fz`` (tiles), ``.fits.gz`` or ``.fits.Z``; products of one
channel (``DATA``, ``DQ``, ``STAT``) or of all (``CHAN05.DATA``), of this pipeline or of ESO's. Extensions are found by
name, wherever on disk.
"""

import math
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from recipes.diskarray import DiskArray
from recipes.headers import BLOCK, Hdu, Header, UnreadableFile, data_size, padded, read_hdus, read_header
from recipes.muse import FOCAL_SCALE, LAMP_NUMBERS, Detector, Quadrant, extension_name
from recipes.recipe import (
    Column,
    Exposure,
    Image,
    Keyword,
    MaskStage,
    Plane,
    Pointing,
    RecipeError,
    Table,
    TableSource,
    Value,
)

PLANES = ("DATA", "DQ", "STAT")
QC = re.compile(r"ESO QC ")
_SIGN = 1 << 15  # BZERO of 16-bit raw frames: unsigned values are stored as signed ones less this
_TYPES = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}  # by BITPIX
_STAGES = (1, 2, 3, 4)  # of the calibration mask, INS POS1 to POS4
_UNPACK_ROWS = 64
Wanted = Callable[[Header], frozenset[str]]  # the extensions that are wanted, by the primary header; none: all


class AbsentChannel(RecipeError):  # noqa: N818 - reads as what it is
    """A file does not have the channel, or not the extensions that are needed of it."""


class DeadChannel(RecipeError):  # noqa: N818 - reads as what it is
    """The detector of the channel is switched off (``ESO DET CHIP LIVE`` = F)."""


@dataclass(frozen=True)
class FilePlane:
    """A two-dimensional array in a file, read anew for each block of rows.

    Parameters
    ----------
    path : Path
    start : int
        Its first byte.
    shape : (rows, columns)
    dtype : str
        As stored, big-endian.
    """

    path: Path
    start: int
    shape: tuple[int, int]
    dtype: str

    @classmethod
    def of(cls, path: Path, hdu: Hdu) -> "FilePlane":
        """Describe the image of an HDU."""
        bits = hdu.header.whole("BITPIX")
        if hdu.header.whole("NAXIS") != 2 or bits not in (16, 32, -32):
            raise UnreadableFile(
                f"{hdu.name} of {path.name} has BITPIX {bits} and NAXIS {hdu.header['NAXIS']};"
                " two axes of 16 or 32 bit integers or 32 bit reals are needed."
            )
        return cls(path, hdu.start, (hdu.header.whole("NAXIS2"), hdu.header.whole("NAXIS1")), _TYPES[bits])

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows [start, stop) in the machine's byte order."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise IndexError(f"rows {start} to {stop} are not within the {self.shape[0]} rows of {self.path.name}")
        stored, columns = np.dtype(self.dtype), self.shape[1]
        values = np.fromfile(
            self.path,
            stored.newbyteorder("="),
            (stop - start) * columns,
            offset=self.start + start * columns * stored.itemsize,
        )
        if values.size != (stop - start) * columns:
            raise UnreadableFile(f"{self.path.name} ended before row {stop}; fetch the file anew.")
        if not stored.isnative:
            values.byteswap(inplace=True)
        return values.reshape(stop - start, columns)


@dataclass(frozen=True)
class FileStack:
    """Raw frames of one channel; a ``recipe.Stack``.

    ``headers`` hold the cards of each frame, those of its extension after and instead of those of its primary HDU.
    """

    exposures: tuple[Exposure, ...]
    planes: tuple[FilePlane, ...]
    headers: tuple[Header, ...]

    @property
    def header(self) -> Header:
        """Cards of the first frame."""
        return self.headers[0]

    def rows(self, frame: int, start: int, stop: int) -> NDArray[np.uint16]:
        """Return raw rows [start, stop) of one frame, adu."""
        values: NDArray[np.uint16] = self.planes[frame].rows(start, stop).view(np.uint16)
        values ^= _SIGN
        return values

    @property
    def detector(self) -> Detector:
        """Layout of the detector as the cards of the first output state it.

        Raises
        ------
        UnreadableFile
            If that layout does not have the rows and columns of the frames.
        """
        nx, ny, margin = (self.header.whole(f"ESO DET OUT1 {name}") for name in ("NX", "NY", "PRSCX"))
        detector = Detector(nx=nx, ny=ny, margin=margin)
        for exposure, plane in zip(self.exposures, self.planes, strict=True):
            if plane.shape != detector.raw_shape:
                raise UnreadableFile(
                    f"{exposure.name} has {plane.shape} rows and columns where DET OUT1 NX {nx}, NY {ny},"
                    f" PRSCX {margin} of the first frame mean {detector.raw_shape}; combine frames of one layout only."
                )
        return detector


@dataclass(frozen=True)
class FileImage:
    """A calibration image of one channel; a ``recipe.ImageSource``."""

    header: Header
    planes: tuple[FilePlane, FilePlane, FilePlane]

    @property
    def measurements(self) -> Mapping[str, int | float | str]:
        """QC1 parameters by name without ``ESO QC``; NaN where the file leaves the value open."""
        return {name.removeprefix("ESO QC "): value for name, value in self.header.matching(QC).items()}

    @property
    def keywords(self) -> Mapping[str, Value]:
        """Every other card of the primary HDU and the DATA extension."""
        return self.header.matching(QC, inverted=True)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.planes[0].shape

    def rows(self, start: int, stop: int) -> Image:
        """Return trimmed rows [start, stop)."""
        data, dq, stat = (plane.rows(start, stop) for plane in self.planes)
        return Image(data=data, dq=dq.view(np.uint32), stat=stat, unit=str(self.header.get("BUNIT", "")))


@dataclass(frozen=True)
class FileSource:
    """A file of several extensions; a ``recipe.Source``."""

    path: Path
    header: Header
    hdus: tuple[Hdu, ...]

    @property
    def measurements(self) -> Mapping[str, int | float | str]:
        """QC1 parameters by name without ``ESO QC``; NaN where the file leaves the value open."""
        return {name.removeprefix("ESO QC "): value for name, value in self.header.matching(QC).items()}

    @property
    def keywords(self) -> Mapping[str, Value]:
        """Every other card of the primary HDU."""
        return self.header.matching(QC, inverted=True)

    @property
    def tables(self) -> tuple[TableSource, ...]:
        """Every table, each with the cards of its own header."""
        return tuple(
            TableSource(_table_of(self.path, hdu), hdu.header)
            for hdu in self.hdus
            if hdu.header.get("XTENSION") == "BINTABLE"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """EXTNAME of every image with data, in order; that of the primary HDU is ''."""
        return tuple(name for name, _ in self._images())

    def plane(self, name: str) -> Plane:
        """Return an image, its values on disk until they are asked for.

        Raises
        ------
        AbsentChannel
            If there is none of that name.
        """
        for found, hdu in self._images():
            if found == name:
                axes = [hdu.header.whole(f"NAXIS{axis + 1}") for axis in range(hdu.header.whole("NAXIS"))]
                dtype = np.dtype(_TYPES[hdu.header.whole("BITPIX")])
                values = DiskArray(self.path, tuple(axes[::-1]), dtype, hdu.start)
                cards = tuple(Keyword(key, value) for key, value in hdu.header.items())
                return Plane(name=name, values=values, unit=str(hdu.header.get("BUNIT", "")), keywords=cards)
        raise AbsentChannel(f"{self.path.name} has no image {name!r}; it has {', '.join(map(repr, self.names))}.")

    def _images(self) -> Iterator[tuple[str, Hdu]]:
        for number, hdu in enumerate(self.hdus):
            if hdu.size and hdu.header.get("XTENSION", "IMAGE") == "IMAGE":
                yield (hdu.name if number else ""), hdu


def open_source(path: Path, *, scratch: Path | None = None) -> FileSource:
    """Open a file of several extensions; ``scratch`` is needed for a compressed file only.

    Raises
    ------
    UnreadableFile
    """
    plain = _plain(path, scratch, lambda _: frozenset(), "all")
    hdus = tuple(read_hdus(plain))
    if not hdus:
        raise UnreadableFile(f"{path.name} is empty; fetch the file anew.")
    return FileSource(plain, hdus[0].header, hdus)


def open_stack(paths: Sequence[Path], channel: int, *, scratch: Path) -> FileStack:
    """Open one channel of raw frames.

    Parameters
    ----------
    paths : sequence of Path
        At least one.
    channel : int
        1 to 24.
    scratch : Path
        Folder for what has to be decompressed (36 MB a frame, of this channel only); the caller removes it.

    Raises
    ------
    AbsentChannel, DeadChannel, UnreadableFile
    """
    exposures, planes, headers = [], [], list[Header]()
    for path in paths:
        plain = _plain(path, scratch, lambda _: frozenset({extension_name(channel)}), extension_name(channel))
        header, extension = _raw_channel(plain, channel)
        headers.append(header)
        exposures.append(_exposure(header, path))
        planes.append(FilePlane.of(plain, extension))
    return FileStack(tuple(exposures), tuple(planes), tuple(headers))


def open_image(path: Path, channel: int, *, scratch: Path | None = None) -> FileImage:
    """Open one channel of a calibration image with its flags and variances.

    ``scratch`` is needed for a compressed file only.

    Raises
    ------
    AbsentChannel, UnreadableFile
    """
    plain = _plain(
        path, scratch, lambda primary: frozenset(_plane_names(primary, channel).values()), extension_name(channel)
    )
    hdus = read_hdus(plain)
    primary = _first(hdus, path).header
    names, found = _plane_names(primary, channel), dict[str, Hdu]()
    for hdu in hdus:
        if hdu.name in names.values():
            found[hdu.name] = hdu
        if len(found) == len(PLANES):
            break
    missing = [name for name in names.values() if name not in found]
    if missing:
        raise AbsentChannel(
            f"{path.name} has no extension {', '.join(missing)}; give a product that has channel {channel}."
        )
    data, dq, stat = (FilePlane.of(plain, found[names[plane]]) for plane in PLANES)
    return FileImage(primary | found[names["DATA"]].header, (data, dq, stat))


def read_table(path: Path, channel: int, *, scratch: Path | None = None) -> TableSource:
    """Read the calibration table of one channel, or one that serves all channels.

    The table is the one named after the channel; else the first, if the primary HDU is of this channel or of none.
    ``scratch`` is needed for a compressed file only.

    Raises
    ------
    AbsentChannel, UnreadableFile
    """
    plain = _plain(path, scratch, lambda _: frozenset(), extension_name(channel))
    hdus = read_hdus(plain)
    primary = _first(hdus, path)
    tables = []
    for hdu in hdus:
        if hdu.header.get("XTENSION") == "BINTABLE":
            tables.append(hdu)
            if hdu.name == extension_name(channel):
                break
    chosen = next((hdu for hdu in tables if hdu.name == extension_name(channel)), None)
    if chosen is None and tables and not tables[0].name.startswith("CHAN") and _serves(primary.header, channel):
        chosen = tables[0]
    if chosen is None:
        raise AbsentChannel(f"{path.name} has no table of channel {channel}; give a product that has it.")
    return TableSource(_table_of(plain, chosen), primary.header | chosen.header)


def _table_of(path: Path, hdu: Hdu) -> Table:
    with path.open("rb") as file:
        file.seek(hdu.start)
        unit = hdu.header.to_bytes() + file.read(hdu.padded_size)
    data = fits.BinTableHDU.fromstring(unit).data
    columns = tuple(
        Column(name=column.name, values=_native(data[column.name]), unit=column.unit or "") for column in data.columns
    )
    return Table(columns=columns, name=hdu.name)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    return np.array(values, dtype=values.dtype.newbyteorder("="))


def _first(hdus: Iterator[Hdu], path: Path) -> Hdu:
    hdu = next(hdus, None)
    if hdu is None:
        raise UnreadableFile(f"{path.name} is empty; fetch the file anew.")
    return hdu


def _serves(primary: Header, channel: int) -> bool:
    """Whether a file whose extensions name no channel is of this channel, or of none in particular."""
    name = str(primary.get("EXTNAME", ""))
    return name == extension_name(channel) or not name.startswith("CHAN")


def _plane_names(primary: Header, channel: int) -> dict[str, str]:
    """Return the extension name of each plane: with the channel, unless the primary HDU is of that channel alone."""
    wanted = extension_name(channel)
    alone = primary.get("EXTNAME") == wanted
    return {plane: plane if alone else f"{wanted}.{plane}" for plane in PLANES}


def _raw_channel(path: Path, channel: int) -> tuple[Header, Hdu]:
    """Return the joined header and the extension of one channel of a raw frame."""
    hdus = read_hdus(path)
    primary, wanted = _first(hdus, path), extension_name(channel)
    extension = next((hdu for hdu in hdus if hdu.name == wanted), None)
    if extension is None:
        raise AbsentChannel(
            f"{path.name} has no extension {wanted}; leave the channel out or the frame.", channel=channel
        )
    if extension.header.get("ESO DET CHIP LIVE") is False:
        raise DeadChannel(f"{wanted} of {path.name} has DET CHIP LIVE = F; leave the channel out.", channel=channel)
    bits, zero = extension.header.whole("BITPIX"), extension.header.get("BZERO", 0)
    if (bits, zero) != (16, _SIGN):
        raise UnreadableFile(
            f"{wanted} of {path.name} has BITPIX {bits} and BZERO {zero}; raw frames have 16 and {_SIGN}."
        )
    return primary.header | extension.header, extension


def _exposure(header: Header, path: Path) -> Exposure:
    """Describe one raw frame by its cards. Gains are read in electrons per adu, as ESO's pipeline reads them."""

    def per_quadrant(name: str) -> tuple[float, float, float, float]:
        one, two, three, four = (header.real(f"ESO DET OUT{quadrant.value} {name}") for quadrant in Quadrant)
        return one, two, three, four

    return Exposure(
        name=str(header.get("ARCFILE", path.name)).removesuffix(".fits"),
        exptime=header.real("EXPTIME"),
        gains=per_quadrant("GAIN"),
        read_noise=per_quadrant("RON"),
        lamps=tuple(
            lamp
            for number, lamp in LAMP_NUMBERS.items()
            if header.get(f"ESO INS LAMP{number} ST") is True and header.get(f"ESO INS SHUT{number} ST") is True
        ),
        mode=str(header.get("ESO INS MODE", "")),
        mjd=_real(header, "MJD-OBS"),
        template=str(header.get("ESO TPL ID", "")),
        pointing=_pointing(header),
        mask=_mask_stage(header),
    )


def _pointing(header: Header) -> Pointing:
    def both(name: str) -> tuple[float, float]:
        return _real(header, f"{name} START"), _real(header, f"{name} END")

    return Pointing(
        ra=_real(header, "RA"),
        dec=_real(header, "DEC"),
        airmass=both("ESO TEL AIRM"),
        parallactic_angle=both("ESO TEL PARANG"),
        position_angle=_real(header, "ESO INS DROT POSANG"),
        rotator_mode=str(header.get("ESO INS DROT MODE", "")),
        temperature=_real(header, "ESO TEL AMBI TEMP"),
        pressure=_middle(both("ESO TEL AMBI PRES")),
        humidity=_real(header, "ESO TEL AMBI RHUM"),
        seeing=_middle(both("ESO TEL AMBI FWHM")),
    )


def _middle(values: tuple[float, float]) -> float:
    return math.nan if math.isnan(sum(values)) else sum(values) / 2  # one NaN everywhere, so that descriptions compare


def _mask_stage(header: Header) -> MaskStage | None:
    names = [f"ESO INS POS{stage}" for stage in _STAGES]
    if not all(f"{name} {what}" in header for name in names for what in ("ENC", "POS")):
        return None
    one, two, three, four = (header.whole(f"{name} ENC") for name in names)
    first, second, third, fourth = (header.real(f"{name} POS") for name in names)
    return MaskStage(
        encoders=(one, two, three, four),
        positions=(first, second, third, fourth),
        scale=_real(header, "ESO TEL FOCU SCALE", FOCAL_SCALE),
    )


def _real(header: Header, name: str, absent: float = math.nan) -> float:
    """Return a number that a header may do without."""
    value = header.get(name, absent)
    return absent if isinstance(value, str) else float(value)


def _plain(path: Path, scratch: Path | None, wanted: Wanted, label: str) -> Path:
    """Return the file itself, or a plain copy in scratch of the extensions that are wanted (all, if none is named)."""
    if path.suffix not in {".fz", ".gz", ".Z"}:
        return path
    if scratch is None:
        raise UnreadableFile(f"{path.name} is compressed and no scratch folder was given to unpack it in.")
    target = scratch / f"{path.name}.{label}.fits"
    if not target.exists():
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            if path.suffix == ".fz":
                _untile(path, wanted, file)
            else:
                _gunzip(path, wanted, file)
        partial.rename(target)
    return target


def _gunzip(path: Path, wanted: Wanted, target: IO[bytes]) -> None:
    """Copy wanted HDUs out of a .gz or .Z file; decompression stops when it has them all."""
    command = ["gzip", "--decompress", "--stdout", str(path)]  # the one program that reads both
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 - no shell
        stream, errors = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        names: set[str] | None = None
        while found := read_header(stream):
            header, _ = found
            names = set(wanted(header)) if names is None else names
            everything, name, size = not names, str(header.get("EXTNAME", "")), padded(data_size(header))
            if everything or size == 0 or name in names:
                target.write(header.to_bytes())
                _copy(stream, target, size, path)
            else:
                _copy(stream, None, size, path)
            names.discard(name)
            if not everything and not names:
                stream.close()
                break
        if process.wait() > 0:
            raise UnreadableFile(f"{path.name} cannot be unpacked: {errors.read().decode(errors='replace').strip()}")


def _copy(source: IO[bytes], target: IO[bytes] | None, size: int, path: Path) -> None:
    """Copy, or pass over, that many bytes of a stream."""
    while size:
        block = source.read(min(size, 256 * BLOCK))
        if not block:
            raise UnreadableFile(f"{path.name} ends {size} bytes early; fetch the file anew.")
        size -= len(block)
        if target is not None:
            target.write(block)


def _untile(path: Path, wanted: Wanted, target: IO[bytes]) -> None:
    """Copy wanted HDUs out of a tile-compressed file, a block of rows at a time."""
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        primary = Header.from_bytes(hdus[0].header.tostring().encode())
        target.write(primary.to_bytes())
        names = wanted(primary)
        for hdu in hdus[1:]:
            if names and hdu.name not in names:
                continue
            target.write(hdu.header.tostring().encode())
            start = target.tell()
            if isinstance(hdu, fits.CompImageHDU):
                stored = np.dtype(_TYPES[hdu.header["BITPIX"]])
                for row in range(0, hdu.shape[0], _UNPACK_ROWS):
                    target.write(hdu.section[row : row + _UNPACK_ROWS].astype(stored).tobytes())
            else:
                with path.open("rb") as file:
                    file.seek(hdu.fileinfo()["datLoc"])
                    _copy(file, target, hdu.fileinfo()["datSpan"], path)
            target.write(bytes(padded(target.tell() - start) - (target.tell() - start)))
