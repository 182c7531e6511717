"""Writing product files as ESO lays them out, block by block, with the checksums made on the way.

Source of layout and comments: products of the MUSE pipeline 2.8.7; of the checksum: FITS standard 4.0, appendix J.
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recipes.headers import Header, padded
from recipes.recipe import Extensions, Image, Plane, PlaneKind, Table, Value

# What a product does not take over from the first raw frame: structure and scaling of the raw data, their checksums
# and WCS, file names, classification, the pre- and overscan (they are trimmed), and results of an earlier reduction.
NOT_INHERITED = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|[PG]COUNT|BSCALE|BZERO|BUNIT|BLANK|CHECKSUM|DATASUM|DATAMD5|DATE"
    r"|ORIGFILE|PIPEFILE|COMMENT|HISTORY|WCSAXES|C(TYPE|UNIT|RVAL|RPIX|DELT|ROTA)\d|CD\d_\d|PC\d_\d|LONPOLE|LATPOLE"
    r"|ESO DPR .*|ESO (PRO|QC|DRS) .*|ESO DET OUT\d+ (PRSC|OVSC)[XY])$"
)
# What goes from the primary HDU of one channel into the extensions of that channel in a file of all channels.
OF_CHANNEL = re.compile(r"(EXTNAME$|ESO DET (CHIP|OUT\d+) |ESO QC |ESO DRS )")
POINTERS = ("SCIDATA", "ERRDATA", "QUALDATA")

_UNIT_COMMENTS = {"adu": "DATA is in analog-to-digital units", "count": "DATA is in electrons"}
_FORMATS = {"u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D", "b1": "L"}
_BITS = {"u1": 8, "i2": 16, "i4": 32, "u4": 32, "f4": -32, "f8": -64}  # BITPIX of an image of these values
_BLOCK_VALUES = 1 << 17  # of an image of any number of axes, at a time: they stay in the processor's cache
_WORD = 0xFFFFFFFF
_WORD_SIZE = 4  # bytes, of which checksums are made

_Cards = tuple[tuple[str, Value, str], ...]
_ALL_PLANES: _Cards = (
    ("HDUCLASS", "ESO", "class name (ESO format)"),
    ("HDUDOC", "DICD", "document with class description"),
    ("HDUVERS", "DICD version 6", "version number (according to spec v2.5.1)"),
    ("HDUCLAS1", "IMAGE", "Image data format"),
)
_ROLES: dict[PlaneKind, tuple[str, _Cards]] = {
    PlaneKind.DATA: (
        "This extension contains data values",
        (("HDUCLAS2", "DATA", "this extension contains the data itself"),),
    ),
    PlaneKind.FLAGS: (
        "This extension contains bad pixel status values",
        (
            ("HDUCLAS2", "QUALITY", "this extension contains bad pixel mask"),
            ("HDUCLAS3", "FLAG32BIT", "extension contains 32bit Euro3D bad pixel infor"),
            ("QUALMASK", _WORD, "all non-zero values are bad"),
        ),
    ),
    PlaneKind.VARIANCE: (
        "This extension contains data variance",
        (
            ("HDUCLAS2", "ERROR", "this extension contains variance"),
            ("HDUCLAS3", "MSE", "the extension contains variances (sigma**2)"),
        ),
    ),
}
_POINTED = (
    ("SCIDATA", "pointer to the data extension"),
    ("ERRDATA", "pointer to the variance extension"),
    ("QUALDATA", "pointer to the bad pixel mask extension"),
)


def primary_header() -> Header:
    """Return the cards that begin a file without data in its primary HDU."""
    return Header.of(
        ("SIMPLE", True, "file does conform to FITS standard"),
        ("BITPIX", 8, "number of bits per data pixel"),
        ("NAXIS", 0, "number of data axes"),
        ("EXTEND", True, "FITS dataset may contain extensions"),
    )


def write_product(target: Path, primary: Header, content: Image | Table | Extensions) -> None:
    """Write a product: the primary HDU, then its planes and tables in order."""
    with target.open("wb") as file:
        file.write(sealed(primary, 0))
        for unit in _units(content):
            if isinstance(unit, Table):
                _write_table(file, unit)
            else:
                _write_plane(file, unit)


def _units(content: Image | Table | Extensions) -> tuple[Plane | Table, ...]:
    """Return the extensions of a product in the order of the file; an image has data, flags and variance."""
    if isinstance(content, Table):
        return (content,)
    if isinstance(content, Extensions):
        return content.units
    squared = f"({content.unit})**2"
    return (
        Plane(name="DATA", values=content.data, unit=content.unit, errors="STAT", flags="DQ"),
        Plane(name="DQ", values=content.dq, kind=PlaneKind.FLAGS, data="DATA", errors="STAT"),
        Plane(name="STAT", values=content.stat, unit=squared, kind=PlaneKind.VARIANCE, data="DATA", flags="DQ"),
    )


def _write_plane(file: IO[bytes], plane: Plane) -> None:
    """Write one image extension, block by block. Flags take 32 bits in the file, whatever they take in memory."""
    flags = plane.kind is PlaneKind.FLAGS
    dtype = np.dtype(np.uint32) if flags else plane.values.dtype.newbyteorder("=")
    axes = plane.values.shape[::-1]
    comment, role = _ROLES.get(plane.kind, ("", ()))
    header = Header.of(
        ("XTENSION", "IMAGE", "IMAGE extension"),
        ("BITPIX", _BITS[dtype.str[1:]], "number of bits per data pixel"),
        ("NAXIS", len(axes), "number of data axes"),
        *((f"NAXIS{number}", length, f"length of data axis {number}") for number, length in enumerate(axes, 1)),
        ("PCOUNT", 0, "required keyword; must = 0"),
        ("GCOUNT", 1, "required keyword; must = 1"),
    )
    if role:
        header.set("INHERIT", value=True, comment="")
    header.set("EXTNAME", plane.name, comment)
    for name, value, what in (*_ALL_PLANES, *role) if role else ():
        header.set(name, value, what)
    for (name, what), pointed in zip(_POINTED, (plane.data, plane.errors, plane.flags), strict=True):
        if pointed:
            header.set(name, pointed, what)
    if plane.unit:
        header.set("BUNIT", plane.unit, _UNIT_COMMENTS.get(plane.unit, ""))
    for keyword in plane.keywords:
        header.set(keyword.name, keyword.value, keyword.comment)
    rows = plane.values.shape[0]
    step = max(1, _BLOCK_VALUES * rows // max(math.prod(plane.values.shape), 1))
    blocks = (np.array(plane.values[row : row + step], dtype, order="C") for row in range(0, rows, step))
    _write_hdu(file, header, blocks)


def _write_table(file: IO[bytes], table: Table) -> None:
    """Write a table; the format of a column is that of its array."""
    arrays = [np.char.encode(c.values, "ascii") if c.values.dtype.kind == "U" else c.values for c in table.columns]
    record = np.dtype(
        [(c.name, a.dtype.newbyteorder(">"), a.shape[1:]) for c, a in zip(table.columns, arrays, strict=True)]
    )
    rows = np.empty(len(arrays[0]), record)
    header = Header.of(
        ("XTENSION", "BINTABLE", "binary table extension"),
        ("BITPIX", 8, "8-bit bytes"),
        ("NAXIS", 2, "2-dimensional binary table"),
        ("NAXIS1", record.itemsize, "width of table in bytes"),
        ("NAXIS2", len(rows), "number of rows in table"),
        ("PCOUNT", 0, "required keyword; must = 0"),
        ("GCOUNT", 1, "required keyword; must = 1"),
        ("TFIELDS", len(arrays), "number of fields in each row"),
    )
    if table.name:
        header.set("EXTNAME", table.name, "name of this extension")
    for number, (column, array) in enumerate(zip(table.columns, arrays, strict=True), 1):
        rows[column.name] = array
        header.set(f"TTYPE{number}", column.name, f"label for field {number}")
        header.set(f"TFORM{number}", _format(array), f"data format of field {number}")
        if column.unit:
            header.set(f"TUNIT{number}", column.unit, f"physical unit of field {number}")
    unit = rows.tobytes()
    words = np.frombuffer(unit.ljust(padded(len(unit)), b"\0"), ">u4").astype(np.uint32)
    _write_hdu(file, header, [words])


def _format(values: NDArray[Any]) -> str:
    """Return TFORM of an array whose first axis is the rows."""
    if values.dtype.kind == "S":
        return f"{values.dtype.itemsize}A"
    return f"{np.prod(values.shape[1:], dtype=int)}{_FORMATS[values.dtype.str[1:]]}"


def _write_hdu(file: IO[bytes], header: Header, blocks: Iterable[NDArray[Any]]) -> None:
    """Write one extension from blocks in the machine's byte order, which it may change in place.

    The sum of 32-bit values is the sum of the big-endian words of the file, so that each block is passed over once
    while it is in the cache; the header is written again at the end, when the sum is known. Values of another size are
    summed as they stand in the file, in words that may go on from one block into the next.
    """
    place = file.tell()
    file.write(sealed(header, 0))
    start, total, rest = file.tell(), 0, b""
    for block in blocks:
        words = block.dtype.itemsize == _WORD_SIZE
        if words:
            total += int(block.reshape(-1).view(np.uint32).sum(dtype=np.uint64))
        if np.dtype(np.uint32).newbyteorder(">") != np.uint32:
            block.byteswap(inplace=True)
        file.write(block.data)
        if not words:
            text = rest + block.tobytes()
            whole = len(text) // _WORD_SIZE * _WORD_SIZE
            total += int(np.frombuffer(text[:whole], ">u4").sum(dtype=np.uint64))
            rest = text[whole:]
    total += int.from_bytes(rest.ljust(_WORD_SIZE, b"\0"), "big")
    size = file.tell() - start
    file.write(bytes(padded(size) - size))
    end = file.tell()
    file.seek(place)
    file.write(sealed(header, _folded(total)))
    file.seek(end)


def sealed(header: Header, data_sum: int) -> bytes:
    """Return a header unit with DATASUM and the CHECKSUM that makes the sum over its HDU all ones."""
    header.set("CHECKSUM", "0" * 16, "HDU checksum")
    header.set("DATASUM", str(data_sum), "data unit checksum")
    words = np.frombuffer(header.to_bytes(), ">u4")
    header.set("CHECKSUM", _encoded(_WORD - _folded(int(words.sum(dtype=np.uint64)) + data_sum)), "HDU checksum")
    return header.to_bytes()


def _folded(total: int) -> int:
    """Return the ones' complement sum of 32-bit words from their plain sum."""
    while total > _WORD:
        total = (total & _WORD) + (total >> 32)
    return total


def _encoded(value: int) -> str:
    """Return the 16 letters and digits that add up to a 32-bit value."""
    letters = [""] * 16
    for place, byte in enumerate(value.to_bytes(4, "big")):
        quarters = [byte // 4 + ord("0") + (byte % 4 if part == 0 else 0) for part in range(4)]
        for one, other in ((0, 1), (2, 3)):
            while any(not chr(quarters[part]).isalnum() for part in (one, other)):
                quarters[one] += 1
                quarters[other] -= 1
        for part, code in enumerate(quarters):
            letters[(4 * part + place + 1) % 16] = chr(code)
    return "".join(letters)


def copied(source: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield that many bytes of a file in blocks."""
    while size:
        block = source.read(min(size, 1 << 20))
        if not block:
            raise OSError(f"{source.name} ended {size} bytes early; it was changed while it was read.")
        size -= len(block)
        yield block
