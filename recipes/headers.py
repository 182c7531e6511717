"""FITS headers as card images: finding HDUs without touching their data, reading values, writing cards.

A MUSE primary header has some 1500 cards and a file up to 73 HDUs. Cards are therefore kept as the text they are on
disk, under their keyword, and astropy parses only those that somebody asks for; what is inherited is written as read.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from astropy.io import fits

from recipes.recipe import RecipeError, Value

BLOCK = 2880  # bytes; headers and data are padded to it. Source: FITS standard 4.0
CARD = 80  # characters
_END = b"END".ljust(CARD)
_ESO = "HIERARCH "
_STRING = re.compile(r" *'((?:[^']|'')*)' *(?:/.*)?$")  # a value in quotes; FITS standard 4.0, section 4.2.1
_PRINTABLE = bytes(code if 32 <= code < 127 else ord("?") for code in range(256))


class UnreadableFile(RecipeError):  # noqa: N818 - reads as what it is
    """A file is not FITS, or shorter than its headers say."""


class Header(Mapping[str, Value]):
    """Cards by keyword (``ESO DET OUT1 GAIN``, without HIERARCH), in file order; a value is parsed when asked for.

    Cards of one keyword (COMMENT, HISTORY) and continued strings stay together under their keyword.
    A card without a value reads as NaN.
    """

    def __init__(self, cards: Mapping[str, str] | None = None) -> None:
        self.cards: dict[str, str] = dict(cards or {})

    @classmethod
    def from_bytes(cls, block: bytes) -> "Header":
        """Split a header unit into its cards; bytes that FITS does not allow in one become question marks."""
        text, header, key = block.translate(_PRINTABLE).decode("ascii"), cls(), ""
        for start in range(0, len(text), CARD):
            image = text[start : start + CARD]
            if image.rstrip() == "END":
                break
            if not image.startswith("CONTINUE"):
                key = keyword_of(image)
            if key:
                header.cards[key] = header.cards[key] + image if key in header.cards else image
        return header

    @classmethod
    def of(cls, *cards: tuple[str, Value, str]) -> "Header":
        """Make a header of cards given by keyword, value and comment."""
        return cls({name: card(name, value, comment) for name, value, comment in cards})

    def __getitem__(self, name: str) -> Value:
        image = self.cards[name]
        if len(image) == CARD and (
            string := _STRING.match(image.partition("=")[2])
        ):  # astropy ends some of them at a slash
            return string[1].replace("''", "'").rstrip()
        try:
            value = fits.Card.fromstring(image).value
        except fits.VerifyError as error:
            raise UnreadableFile(f"The card {image.rstrip()!r} cannot be understood; look at the file.") from error
        if isinstance(value, bool | int | float | str):
            return value
        return math.nan

    def __iter__(self) -> Iterator[str]:
        return iter(self.cards)

    def __len__(self) -> int:
        return len(self.cards)

    def whole(self, name: str) -> int:
        """Return an integer card.

        Raises
        ------
        UnreadableFile
            If it is missing or not a whole number.
        """
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise UnreadableFile(f"The header has {name} = {value!r} where a whole number is needed; look at the file.")
        return value

    def real(self, name: str) -> float:
        """Return a number.

        Raises
        ------
        UnreadableFile
            If it is missing or not a number.
        """
        value = self.get(name)
        if isinstance(value, str | bool) or value is None or math.isnan(value):
            raise UnreadableFile(f"The header has {name} = {value!r} where a number is needed; look at the file.")
        return float(value)

    def comment(self, name: str) -> str:
        """Return the comment of a card."""
        return str(fits.Card.fromstring(self.cards[name]).comment)

    def matching(self, pattern: re.Pattern[str], *, inverted: bool = False) -> "Header":
        """Return the cards whose keyword matches from its start (or, inverted, does not)."""
        return Header({key: image for key, image in self.cards.items() if bool(pattern.match(key)) != inverted})

    def __or__(self, other: "Header") -> "Header":
        return Header(self.cards | other.cards)

    def set(self, name: str, value: Value, comment: str = "") -> None:
        """Put a card; one of this keyword is replaced in its place."""
        self.cards[name] = card(name, value, comment)

    def to_bytes(self) -> bytes:
        """Return the header unit, END and padding included."""
        text = b"".join(image.encode("ascii") for image in self.cards.values()) + _END
        return text.ljust(padded(len(text)))


@dataclass(frozen=True)
class Hdu:
    """One HDU of a file: its header, and where its data are.

    Parameters
    ----------
    header : Header
    start, size : int
        First byte of the data, and their number without padding.
    """

    header: Header
    start: int
    size: int

    @property
    def name(self) -> str:
        """EXTNAME, '' if there is none."""
        return str(self.header.get("EXTNAME", ""))

    @property
    def padded_size(self) -> int:
        """Bytes of data with padding."""
        return padded(self.size)


def padded(size: int) -> int:
    """Return a size rounded up to whole FITS blocks."""
    return -(-size // BLOCK) * BLOCK


def keyword_of(image: str) -> str:
    """Return the keyword of a card image, without HIERARCH."""
    if image.startswith(_ESO):
        return image.removeprefix(_ESO).partition("=")[0].strip()
    return image[:8].strip()


def card(name: str, value: Value, comment: str = "") -> str:
    """Return the image of one card, 80 characters; the comment is cut where it does not fit.

    NaN and infinity have no place in FITS: such a card keeps keyword and comment and has no value, as the standard
    provides for a value that is undefined.

    Raises
    ------
    ValueError
        If the value itself does not fit.
    """
    text = _text(value)
    if len(name) <= 8 and " " not in name:
        text = text.ljust(20) if isinstance(value, str) else text.rjust(20)
        image = f"{name:8}= {text}"
    else:
        image = f"{_ESO}{name} = {text}"
    if len(image) > CARD:
        raise ValueError(f"{name} = {value!r} takes {len(image)} characters; a FITS card holds {CARD}.")
    return (f"{image} / {_ascii(comment)}" if comment else image)[:CARD].ljust(CARD)


def _text(value: Value) -> str:
    """Return a value as FITS writes it."""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, str):
        return "'{:8}'".format(_ascii(value).replace("'", "''"))
    if isinstance(value, int) or not math.isfinite(value):
        return str(int(value)) if math.isfinite(value) else ""
    text = repr(float(value)).upper()
    return text if "." in text else text.replace("E", ".E")


def _ascii(text: str) -> str:
    return text.encode("ascii", errors="replace").decode()


def read_header(file: IO[bytes]) -> tuple[Header, int] | None:
    """Read the header unit at the place where a stream stands.

    Returns
    -------
    header and the number of bytes read, or None at the end of the file

    Raises
    ------
    UnreadableFile
        If what begins here is no header, or it ends too early.
    """
    unit = b""
    while block := file.read(BLOCK):
        if not unit and not block.startswith((b"SIMPLE  =", b"XTENSION=")):
            raise UnreadableFile(f"A FITS header was expected, found {block[:16]!r}; fetch the file anew.")
        unit += block
        if len(block) < BLOCK:
            break
        if any(block[start : start + CARD] == _END for start in range(0, BLOCK, CARD)):
            return Header.from_bytes(unit), len(unit)
    if unit:
        raise UnreadableFile(f"A FITS header ends after {len(unit)} bytes without END; fetch the file anew.")
    return None


def data_size(header: Header) -> int:
    """Return the bytes of data that a header announces, without padding. Source: FITS standard, section 4.4.1.1."""
    lengths = [header.whole(f"NAXIS{axis + 1}") for axis in range(header.whole("NAXIS"))]
    if not lengths:
        return 0
    groups, extra = (
        header.whole(name) if name in header else absent for name, absent in (("GCOUNT", 1), ("PCOUNT", 0))
    )
    if min(*lengths, groups, extra) < 0:
        raise UnreadableFile(f"A header has a length below 0 among {[*lengths, groups, extra]}; look at the file.")
    return abs(header.whole("BITPIX")) // 8 * groups * (extra + math.prod(lengths))


def read_hdus(path: Path) -> Iterator[Hdu]:
    """Yield the HDUs of a file in order, passing over the data; stop early and the rest is never read."""
    length, start = path.stat().st_size, 0
    with path.open("rb") as file:
        while found := read_header(file):
            header, read = found
            hdu = Hdu(header, start + read, data_size(header))
            start = hdu.start + padded(hdu.size)
            if hdu.start + hdu.size > length:
                raise UnreadableFile(
                    f"{path.name} has {length} bytes where its headers announce at least {hdu.start + hdu.size};"
                    " fetch the file anew.",
                    size=length,
                )
            yield hdu
            file.seek(start)
