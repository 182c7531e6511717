"""Writing product files as ESO lays them out, block by block, with the checksums made on the way.

Source of layout and comments: products of the MUSE pipeline 2.8.7; of the checksum: FITS standard 4.0, appendix J.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from recipes.headers import Header, padded
from recipes.recipe import Image, Table, Value

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
_FORMATS = {"u1": "B", "i2": "I", "i4": "J", "i8": "K", "f4": "E", "f8": "D"}
_BLOCK_ROWS = 128
_WORD = 0xFFFFFFFF

_Cards = tuple[tuple[str, Value, str], ...]
_ALL_PLANES: _Cards = (
    ("HDUCLASS", "ESO", "class name (ESO format)"),
    ("HDUDOC", "DICD", "document with class description"),
    ("HDUVERS", "DICD version 6", "version number (according to spec v2.5.1)"),
    ("HDUCLAS1", "IMAGE", "Image data format"),
)
_SCIDATA = ("SCIDATA", "DATA", "pointer to the data extension")
_ERRDATA = ("ERRDATA", "STAT", "pointer to the variance extension")
_QUALDATA = ("QUALDATA", "DQ", "pointer to the bad pixel mask extension")
_PLANES: dict[str, tuple[str, _Cards]] = {
    "DATA": (
        "This extension contains data values",
        (("HDUCLAS2", "DATA", "this extension contains the data itself"), _ERRDATA, _QUALDATA),
    ),
    "DQ": (
        "This extension contains bad pixel status values",
        (
            ("HDUCLAS2", "QUALITY", "this extension contains bad pixel mask"),
            ("HDUCLAS3", "FLAG32BIT", "extension contains 32bit Euro3D bad pixel infor"),
            ("QUALMASK", _WORD, "all non-zero values are bad"),
            _SCIDATA,
            _ERRDATA,
        ),
    ),
    "STAT": (
        "This extension contains data variance",
        (
            ("HDUCLAS2", "ERROR", "this extension contains variance"),
            ("HDUCLAS3", "MSE", "the extension contains variances (sigma**2)"),
            _SCIDATA,
            _QUALDATA,
        ),
    ),
}


def primary_header() -> Header:
    """Return the cards that begin a file without data in its primary HDU."""
    return Header.of(
        ("SIMPLE", True, "file does conform to FITS standard"),
        ("BITPIX", 8, "number of bits per data pixel"),
        ("NAXIS", 0, "number of data axes"),
        ("EXTEND", True, "FITS dataset may contain extensions"),
    )


def write_product(target: Path, primary: Header, content: Image | Table) -> None:
    """Write a product of one channel: the primary HDU, then DATA, DQ and STAT, or the table."""
    with target.open("wb") as file:
        file.write(sealed(primary, 0))
        if isinstance(content, Table):
            _write_table(file, content)
        else:
            _write_planes(file, content)


def _write_planes(file: IO[bytes], image: Image) -> None:
    """Write the three planes of an image. Flags take 32 bits in the file, whatever they take in memory."""
    squared = f"({image.unit})**2"
    units = {"DATA": (image.unit, _UNIT_COMMENTS.get(image.unit, "")), "STAT": (squared, "")}
    arrays: dict[str, tuple[NDArray[Any], type[np.generic]]] = {
        "DATA": (image.data, np.float32),
        "DQ": (image.dq, np.uint32),
        "STAT": (image.stat, np.float32),
    }
    for name, (array, dtype) in arrays.items():
        comment, cards = _PLANES[name]
        rows, columns = array.shape
        header = Header.of(
            ("XTENSION", "IMAGE", "IMAGE extension"),
            ("BITPIX", 32 if name == "DQ" else -32, "number of bits per data pixel"),
            ("NAXIS", 2, "number of data axes"),
            ("NAXIS1", columns, "length of data axis 1"),
            ("NAXIS2", rows, "length of data axis 2"),
            ("PCOUNT", 0, "required keyword; must = 0"),
            ("GCOUNT", 1, "required keyword; must = 1"),
            ("INHERIT", True, ""),
            ("EXTNAME", name, comment),
            *_ALL_PLANES,
            *cards,
        )
        if name in units:
            header.set("BUNIT", *units[name])
        blocks = (array[row : row + _BLOCK_ROWS].astype(dtype) for row in range(0, rows, _BLOCK_ROWS))
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
    """Write one extension from blocks of 32-bit values in the machine's byte order, which it may change in place.

    The sum of such values is the sum of the big-endian words of the file, so that each block is passed over once while
    it is in the cache; the header is written again at the end, when the sum is known.
    """
    place = file.tell()
    file.write(sealed(header, 0))
    start, total = file.tell(), 0
    for block in blocks:
        total += int(block.view(np.uint32).sum(dtype=np.uint64))
        if np.dtype(np.uint32).newbyteorder(">") != np.uint32:
            block.byteswap(inplace=True)
        file.write(block.data)
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
