"""Looking at an arrived file: is it whole, what do its headers say, which bytes is it.

The structure of the file is walked from header to header: each says how long its data are. A file shorter than that
may still grow and is *incomplete*; a file that contradicts the FITS standard never will be a frame and is
*unreadable*. Memory stays small whatever the file holds. Source: FITS standard 4.0, sections 3, 4.4 and 10.1.
"""

import gzip
import math
import os
import re
import subprocess
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import count
from pathlib import Path
from typing import IO, cast

from astropy.io import fits

from archive.store import digest_of

BLOCK = 2880  # bytes; headers and data are padded to a multiple of it
CARD = 80  # bytes
MOST_HEADER_BLOCKS = 1000  # 36 000 cards; a MUSE primary header has 40 blocks
MOST_BYTES = 2**42  # 4 TiB of data in one unit; a whole MUSE raw frame has 0.86 GB
BITPIX = (8, 16, 32, 64, -32, -64)
CHUNK = 1 << 20  # bytes read at once where data are passed over

_PRINTABLE = frozenset(range(0x20, 0x7F))
# What nearly every card looks like: astropy, which reads each of them, takes ten times as long for the 1500 of a frame.
_USUAL = re.compile(
    rb"(?:(?P<plain>[A-Z0-9_-]{1,8}) *= |HIERARCH (?P<eso>ESO(?: [A-Z0-9_-]+)+) *= ?) *"
    rb"(?:'(?P<text>[^'&]*)'|(?P<logical>[TF])|(?P<whole>[+-]?\d{1,18})|(?P<real>[+-]?\d+\.\d*(?:E[+-]?\d{1,2})?))"
    rb" *(?:/.*)?"
)
GZIP, LZW = b"\x1f\x8b", b"\x1f\x9d"  # first two bytes of .gz and .Z

Value = bool | int | float | str


class IncompleteFile(Exception):  # noqa: N818 - reads as what it is
    """The file is shorter than its headers say, or was changed just now: it may still grow."""


class UnreadableFile(Exception):  # noqa: N818
    """The file is no FITS file and will not become one by growing."""


@dataclass(frozen=True)
class Extension:
    """One extension.

    Parameters
    ----------
    name : str
        EXTNAME, CHAN01 to CHAN24 in a raw frame.
    live : bool
        DET CHIP LIVE; True if the keyword is absent.
    compressed : bool
        An image stored as a table of compressed tiles (ZIMAGE), as in .fz.
    shape : tuple of int
        Rows and columns of an image (numpy order, of a compressed one: as it will be), () without data.
    """

    name: str
    live: bool
    compressed: bool
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Inspection:
    """A whole file.

    Parameters
    ----------
    digest, size
        sha256 in hexadecimal and bytes of the file as it lies there, compressed or not.
    suffix : str
        What it is by its content: ``.fits``, ``.fits.fz``, ``.fits.gz`` or ``.fits.Z``.
    primary : mapping
        Cards of the primary header by keyword, ``ESO DPR CATG`` and so on, without comments and empty values.
    extensions : tuple of Extension
    """

    digest: str
    size: int
    suffix: str
    primary: Mapping[str, Value]
    extensions: tuple[Extension, ...]


def peek(path: Path) -> Mapping[str, Value]:
    """Return the cards of the primary header alone, as in an inspection.

    Raises
    ------
    IncompleteFile, UnreadableFile
        The header itself is not whole, or none; what follows it is not looked at.
    FileNotFoundError, PermissionError
    """
    suffix = _suffix(path)
    with _uncompressed(path, suffix) as file:
        headers = walk(file)
        primary = _values(next(headers))
        if suffix == ".fits.Z":
            deque(headers, maxlen=0)  # the program that unpacks it would wait for its reader for ever
    return primary


def inspect(path: Path, *, digested: bool = True) -> Inspection:
    """Look at a file from its first to its last byte; not ``digested``, at its structure alone, with no digest.

    Raises
    ------
    IncompleteFile, UnreadableFile
        With a sentence that says where and why.
    FileNotFoundError, PermissionError
    """
    before = path.stat()
    suffix = _suffix(path)
    with _uncompressed(path, suffix) as file:
        headers = walk(file)
        primary = _values(next(headers))
        extensions = tuple(map(_extension, headers))
    if "ESO DPR CATG" in primary and not extensions:
        raise IncompleteFile("the file ends after the primary header; the extensions of a raw frame are still missing.")
    if suffix == ".fits" and any(extension.compressed for extension in extensions):
        suffix = ".fits.fz"
    digest = digest_of(path) if digested else ""
    after = path.stat()
    if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
        raise IncompleteFile("the file was changed while it was being read.")
    return Inspection(digest, after.st_size, suffix, primary, extensions)


class Header:
    """The cards of one header, parsed one by one when asked for: a frame has thousands."""

    def __init__(self, cards: bytes) -> None:
        self._cards = cards

    def find(self, keyword: str) -> Value | None:
        """Return the value of the first card with this keyword, None if there is none or it is empty.

        Raises
        ------
        UnreadableFile
        """
        key = (f"{keyword:<8}=" if len(keyword) <= 8 else f"HIERARCH {keyword}").encode()
        start = self._cards.find(key)
        while start >= 0:
            if start % CARD == 0 and (found := _card(self._cards[start : start + CARD])) and found[0] == keyword:
                return found[1]
            start = self._cards.find(key, start + 1)
        return None

    def whole_number(self, keyword: str, default: int | None = None) -> int:
        """Return an integer that must be there, or the default if there is one.

        Raises
        ------
        UnreadableFile
        """
        value = self.find(keyword)
        if value is None:
            value = default
        if not isinstance(value, int) or isinstance(value, bool):
            raise UnreadableFile(f"a header has {keyword} = {value!r}; a whole number is needed.")
        return value

    def __iter__(self) -> Iterator[bytes]:
        return (self._cards[start : start + CARD] for start in range(0, len(self._cards), CARD))


def walk(file: IO[bytes]) -> Iterator[Header]:
    """Yield each header of a FITS file and pass over its data, to the end of the file.

    Parameters
    ----------
    file : binary file
        At its begin. Read forward only; data on a disk are passed over without being read.

    Raises
    ------
    IncompleteFile, UnreadableFile
    """
    for unit in count():
        header = _read_header(file, unit)
        if header is None:
            return
        if unit == 0 and header.find("SIMPLE") is not True:
            raise UnreadableFile("the file says of itself that it does not follow the FITS standard: SIMPLE is not T.")
        padded = -(-_data_size(header) // BLOCK) * BLOCK
        yield header
        if (present := _skip(file, padded)) < padded:
            raise IncompleteFile(f"the data of unit {unit} take {padded} bytes with padding, only {present} are there.")


def _read_header(file: IO[bytes], unit: int) -> Header | None:
    """Read to the end of the block that holds END; None if the file regularly ends here."""
    start = b"XTENSION=" if unit else b"SIMPLE  ="
    cards = b""
    for _ in range(MOST_HEADER_BLOCKS):
        block = file.read(BLOCK)
        if not block and not cards and unit:
            return None
        written = block.rstrip(b"\0")  # a file that got its full length first is zero where nothing came yet
        seen, cards = len(cards), cards + written
        if cards[: len(start)] != start[: len(cards)]:
            raise UnreadableFile(
                f"unit {unit} begins with {cards[:16]!r} instead of {start.decode()}: this is no FITS file, "
                "or something else follows its end."
            )
        if not _PRINTABLE.issuperset(written):
            raise UnreadableFile(f"the header of unit {unit} has characters that no FITS header may have.")
        if len(block) == BLOCK:
            for card in range(seen, len(cards), CARD):
                if cards[card : card + 8].rstrip() == b"END":
                    return Header(cards[:card])
        if len(written) < BLOCK:
            where = f"ends within the header of unit {unit}" if cards or unit else "is empty"
            raise IncompleteFile(f"the file {where}.")
    raise UnreadableFile(f"the header of unit {unit} has no END within {MOST_HEADER_BLOCKS} blocks of {BLOCK} bytes.")


def _data_size(header: Header) -> int:
    """Return the bytes of data, without padding: |BITPIX|/8 GCOUNT (PCOUNT + NAXIS1 NAXIS2 ...)."""
    bitpix, axes = header.whole_number("BITPIX"), _shape(header, "NAXIS")
    parameters, groups = header.whole_number("PCOUNT", 0), header.whole_number("GCOUNT", 1)
    if bitpix not in BITPIX:
        raise UnreadableFile(f"a header has BITPIX = {bitpix}, which is none of {BITPIX}.")
    if min(parameters, groups, *axes, 0) < 0:
        raise UnreadableFile(f"a header has a negative size: axes {axes}, PCOUNT {parameters}, GCOUNT {groups}.")
    size = abs(bitpix) // 8 * groups * (parameters + math.prod(axes)) if axes else 0
    if size > MOST_BYTES:
        raise UnreadableFile(f"a header announces {size} bytes of data, more than the {MOST_BYTES} that are believed.")
    return size


def _shape(header: Header, keyword: str) -> tuple[int, ...]:
    """Return the lengths of the axes in numpy order, the last axis of FITS first."""
    axes = header.whole_number(keyword)
    if not 0 <= axes <= 999:
        raise UnreadableFile(f"a header has {keyword} = {axes}; 0 to 999 are allowed.")
    return tuple(header.whole_number(f"{keyword}{axis}") for axis in range(axes, 0, -1))


def _extension(header: Header) -> Extension:
    name, live = header.find("EXTNAME"), header.find("ESO DET CHIP LIVE")
    compressed = header.find("ZIMAGE") is True
    shape = _shape(header, "ZNAXIS" if compressed else "NAXIS")
    return Extension(name=str(name or ""), live=live is not False, compressed=compressed, shape=shape)


def _values(header: Header) -> dict[str, Value]:
    found = [card for image in header if (card := _card(image)) and card[1] != ""]
    return dict(reversed(found))  # of a keyword that stands twice, the first counts


def _card(image: bytes) -> tuple[str, Value] | None:
    """Return keyword and value of a card, None for a comment or an empty value."""
    if image[8:10] != b"= " and not (image.startswith(b"HIERARCH ") and b"=" in image):
        return None
    if usual := _USUAL.fullmatch(image):
        return _value(usual)
    try:
        card = fits.Card.fromstring(image)
        keyword, value = card.keyword, card.value
    except (fits.VerifyError, ValueError) as error:
        raise UnreadableFile(f"the card {image.decode().strip()!r} cannot be read: {error}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableFile(f"the card {image.decode().strip()!r} has no finite value.")
    return (keyword, value) if isinstance(value, bool | int | float | str) else None


def _value(card: re.Match[bytes]) -> tuple[str, Value]:
    """Return keyword and value of a card as nearly every one is."""
    keyword = (card["plain"] or card["eso"]).decode()
    if card["text"] is not None:
        return keyword, card["text"].decode().rstrip()
    if card["logical"]:
        return keyword, card["logical"] == b"T"
    return keyword, int(card["whole"]) if card["whole"] else float(card["real"])


def _skip(file: IO[bytes], size: int) -> int:
    """Pass over so many bytes; return how many there were."""
    if isinstance(file, BufferedReader) and file.seekable():
        here = file.tell()
        there = min(here + size, os.fstat(file.fileno()).st_size)
        file.seek(there)
        return there - here
    passed = 0
    while passed < size and (chunk := file.read(min(CHUNK, size - passed))):
        passed += len(chunk)
    return passed


def _suffix(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(3)
    if first and len(first) < 3 and (GZIP.startswith(first[:2]) or LZW.startswith(first[:2])):
        raise IncompleteFile(f"the file has {len(first)} bytes, the begin of a compressed one.")
    return {GZIP: ".fits.gz", LZW: ".fits.Z"}.get(first[:2], ".fits")


@contextmanager
def _uncompressed(path: Path, suffix: str) -> Iterator[IO[bytes]]:
    """Open for reading forward; what is wrong with the compression is said as of the file."""
    with path.open("rb") as file:
        if suffix == ".fits.gz":
            try:
                with gzip.open(file) as unpacked:
                    yield cast(IO[bytes], unpacked)
            except EOFError as error:
                raise IncompleteFile("the compressed file ends before its end mark.") from error
            except (gzip.BadGzipFile, zlib.error) as error:
                raise UnreadableFile(f"the file cannot be decompressed: {error}.") from error
        elif suffix == ".fits.Z":
            yield from _unpack_lzw(file)
        else:
            yield file


def _unpack_lzw(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Read .Z through ``gzip -dc``, the program for it that every system has."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["gzip", "-dc"], stdin=file, stdout=pipe, stderr=pipe) as unpacking:  # noqa: S607 - on PATH
        unpacked, complaints = cast(IO[bytes], unpacking.stdout), cast(IO[bytes], unpacking.stderr)
        incomplete = None
        try:
            yield unpacked
        except IncompleteFile as error:  # or the program found an error and stopped there
            incomplete = error
        complaint = complaints.read().decode(errors="replace").strip()
        if unpacking.wait() != 0:
            raise UnreadableFile(f"the file cannot be decompressed: {complaint}.")
        if incomplete:
            raise incomplete
