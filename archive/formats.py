"""What a static calibration must hold, by its PRO.CATG: extensions, columns and their types, keywords.

ESO's recipes read these files strictly: a column of another type reads as no data, a whole number where a real one is
due as 0. A file that they would misread is not taken in. Source: MUSE pipeline 2.8.7 (MP), by trial and reading.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from archive.inspection import Header, walk

LINE_CATALOG_VERSION = 3  # the only one that MP takes
SLICES = 48  # of a channel
# That it is there makes a response one of version 2, whatever its value. Source: MP
FFCORR = "ESO DRS MUSE FLUX FFCORR"
_CHANNEL = re.compile(r"CHAN(0[1-9]|1\d|2[0-4])")
_FLUX_UNITS = ("erg/s/cm**2/Angstrom", "erg/s/cm^2/Angstrom")  # MP checks the unit of a standard's flux to the letter


class Unfit(Exception):  # noqa: N818 - reads as what it is
    """A file is not what its PRO.CATG says; the sentence says in what."""


class _Kind(StrEnum):
    """Letter of a column's TFORM."""

    WHOLE = "J"
    REAL = "E"
    DOUBLE = "D"
    TEXT = "A"


_LETTERS = {
    _Kind.WHOLE: "a whole number (1J)", _Kind.REAL: "a 32 bit real (1E)", _Kind.DOUBLE: "a 64 bit real (1D)",
    _Kind.TEXT: "text (8A and so on)",
}  # fmt: skip


@dataclass(frozen=True)
class _Column:
    name: str
    kind: _Kind | None  # None: any number, which is converted
    units: tuple[str, ...] = ()  # one of these; any where there is none


def _columns(names: str, kind: _Kind = _Kind.DOUBLE) -> tuple[_Column, ...]:
    return tuple(_Column(name, kind) for name in names.split())


_LINES = (
    *_columns("lambda flux", _Kind.REAL),
    _Column("ion", _Kind.TEXT),
    _Column("quality", _Kind.WHOLE),
)
_GEOMETRY = (*_columns("SubField SliceCCD SliceSky", _Kind.WHOLE), *_columns("x y angle width"))
_STARS = (*_columns("SourceID filter", _Kind.TEXT), *_columns("RA DEC mag"))
_BAD_PIXELS = (*_columns("xpos ypos status", _Kind.WHOLE), _Column("value", _Kind.REAL))
_SKY_LINES = (_Column("name", _Kind.TEXT), *_columns("group dq", _Kind.WHOLE), *_columns("lambda flux"))
_TRANSITIONS = (
    _Column("name", _Kind.TEXT),
    *_columns("v_u v_l nu", _Kind.WHOLE),
    *_columns("lambda E_u J_u A"),
)
_FLUXES = (_Column("lambda", None, ("Angstrom",)), _Column("flux", None, _FLUX_UNITS))
_CALSPEC = (_Column("WAVELENGTH", None, ("ANGSTROMS",)), _Column("FLUX", None, ("FLAM",)))  # as HST has them

Check = Callable[[Sequence[Header]], None]


def check_format(catg: str, path: Path) -> None:
    """Check that a file has the format of its PRO.CATG. A type that no recipe takes any more may have any.

    Parameters
    ----------
    catg : str
        Of ``naming.STATIC_CODES``.
    path : Path
        Not compressed, and whole.

    Raises
    ------
    Unfit
    """
    if check := _CHECKS.get(catg):
        with path.open("rb") as file:
            check(list(walk(file)))


def channel_of(extension: str) -> int | None:
    """Return the channel of an extension's name, ``CHAN05`` or ``CHAN05.LSF_PROFILE``; None if it is of none."""
    found = _CHANNEL.fullmatch(extension.partition(".")[0])
    return int(found[1]) if found else None


def response_version(catg: str, primary: Mapping[str, Any]) -> int | None:
    """Return the version of a response: 2 is of data without the lamp spectrum of the flat; None of other types."""
    if catg != "STD_RESPONSE":
        return None
    return 2 if FFCORR in primary else 1


def _first_table(columns: tuple[_Column, ...]) -> Check:
    """Return the check of a file whose table stands in extension 1."""

    def check(units: Sequence[Header]) -> None:
        if len(units) < 2 or not _is_table(units[1]):
            raise Unfit("Its first extension is no binary table.")
        _check_table(units[1], columns)

    return check


def _every_table(columns: tuple[_Column, ...], *keywords: str) -> Check:
    """Return the check of a catalogue: a named table an entry, with real keywords in the header of each."""

    def check(units: Sequence[Header]) -> None:
        tables = [unit for unit in units[1:] if _is_table(unit)]
        if not tables:
            raise Unfit("It has no binary table.")
        for table in tables:
            if not _name(table):
                raise Unfit("A table of it has no EXTNAME, by which it would be found.")
            for keyword in keywords:
                _real(table, keyword)
            _check_table(table, columns)

    return check


def _check_lines(units: Sequence[Header]) -> None:
    version = units[0].find("VERSION")
    if version != LINE_CATALOG_VERSION or not isinstance(version, int):
        raise Unfit(f"Its primary header has VERSION = {version!r}; muse_wavecal takes {LINE_CATALOG_VERSION} alone.")
    _first_table(_LINES)(units)


def _check_geometry(units: Sequence[Header]) -> None:
    _first_table(_GEOMETRY)(units)
    if (rows := units[1].whole_number("NAXIS2")) % SLICES:
        raise Unfit(f"Its table has {rows} rows; each channel in it must have {SLICES}, one a slice.")


def _check_world_coordinates(units: Sequence[Header]) -> None:
    for keyword, wanted in (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN")):
        if (found := units[0].find(keyword)) != wanted:
            raise Unfit(f"Its primary header has {keyword} = {found!r}; {wanted} is needed.")
    for keyword in ("CD1_1", "CD1_2", "CD2_1", "CD2_2", "CRPIX1", "CRPIX2"):
        _real(units[0], keyword)


def _check_bad_pixels(units: Sequence[Header]) -> None:
    tables = [unit for unit in units[1:] if channel_of(_name(unit)) is not None]
    if not tables:
        raise Unfit("It has no extension CHAN01 to CHAN24; a table of bad pixels is found by that name alone.")
    for table in tables:
        if not _is_table(table):
            raise Unfit(f"Its extension {_name(table)} is no binary table.")
        _check_columns(table, _BAD_PIXELS)  # no rows: no bad pixels


def _check_fluxes(units: Sequence[Header]) -> None:
    tables = [unit for unit in units[1:] if _is_table(unit)]
    if not tables:
        raise Unfit("It has no binary table.")
    for table in tables:
        _real(table, "RA")
        _real(table, "DEC")
        layout = _CALSPEC if "WAVELENGTH" in _forms(table) else _FLUXES
        _check_table(table, layout)


def _check_sky_lines(units: Sequence[Header]) -> None:
    formats = {"LINES": _SKY_LINES, "OH_TRANSITIONS": _TRANSITIONS}
    tables = [unit for unit in units[1:] if _is_table(unit) and _name(unit) in formats]
    if not tables:
        raise Unfit("It has no table LINES, nor OH_TRANSITIONS.")
    for table in tables:
        _check_table(table, formats[_name(table)])


def _check_vignetting(units: Sequence[Header]) -> None:
    if units[0].whole_number("NAXIS") != 2 or units[0].whole_number("BITPIX") < 0:
        raise Unfit("Its primary HDU is no image of two axes of whole numbers.")


def _check_profiles(units: Sequence[Header]) -> None:
    images = [unit for unit in units[1:] if _name(unit).rpartition(".")[2] == "LSF_PROFILE"]
    if not images:
        raise Unfit("It has no image LSF_PROFILE, nor CHAN01.LSF_PROFILE and so on.")
    for image in images:
        axes = image.whole_number("NAXIS") if image.find("XTENSION") == "IMAGE" else 0
        if axes != 3 or image.whole_number("NAXIS3") != SLICES:
            raise Unfit(f"{_name(image)} is no image of three axes, the third of {SLICES} slices.")
        for keyword in ("CD1_1", "CD2_2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2"):
            _real(image, keyword)
    if all(channel_of(str(unit.find("EXTNAME"))) is None for unit in units):
        raise Unfit("Neither its primary header nor an extension says which channel it is of (EXTNAME = CHAN05).")


_CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "LINE_CATALOG": _check_lines,
        "GEOMETRY_TABLE": _check_geometry,
        "ASTROMETRY_WCS": _check_world_coordinates,
        "ASTROMETRY_REFERENCE": _every_table(_STARS, "RA", "DEC"),
        "BADPIX_TABLE": _check_bad_pixels,
        "EXTINCT_TABLE": _first_table(_columns("lambda extinction")),
        "FILTER_LIST": _every_table(_columns("lambda throughput")),
        "STD_FLUX_TABLE": _check_fluxes,
        "SKY_LINES": _check_sky_lines,
        "VIGNETTING_MASK": _check_vignetting,
        "TELLURIC_REGIONS": _first_table(_columns("lmin lmax bgmin bgmax")),
        "LSF_PROFILE": _check_profiles,
        "STD_RESPONSE": _first_table(_columns("lambda response resperr")),
    }
)


def _check_table(table: Header, columns: tuple[_Column, ...]) -> None:
    _check_columns(table, columns)
    if not table.whole_number("NAXIS2"):
        raise Unfit(f"Its table {_name(table)!r} has no rows.")


def _check_columns(table: Header, columns: tuple[_Column, ...]) -> None:
    forms, where = _forms(table), f"its table {_name(table)}" if _name(table) else "its table"
    for column in columns:
        if column.name not in forms:
            raise Unfit(f"There is no column {column.name} in {where}; it has {', '.join(forms) or 'none'}.")
        form, unit = forms[column.name]
        if column.kind and re.sub(r"^\d+" if column.kind is _Kind.TEXT else "^1", "", form) != column.kind:
            raise Unfit(f"Column {column.name} of {where} has TFORM {form}; {_LETTERS[column.kind]} is needed.")
        if column.units and unit not in column.units:
            raise Unfit(f"Column {column.name} of {where} has the unit {unit!r}; {column.units[0]} is needed.")


def _forms(table: Header) -> dict[str, tuple[str, str]]:
    """Return TFORM and unit of each column by its name."""
    return {
        _text(table, f"TTYPE{number}"): (_text(table, f"TFORM{number}"), _text(table, f"TUNIT{number}"))
        for number in range(1, table.whole_number("TFIELDS") + 1)
    }


def _is_table(unit: Header) -> bool:
    return unit.find("XTENSION") == "BINTABLE"


def _name(unit: Header) -> str:
    return _text(unit, "EXTNAME")


def _text(unit: Header, keyword: str) -> str:
    value = unit.find(keyword)
    return value.strip() if isinstance(value, str) else ""


def _real(unit: Header, keyword: str) -> None:
    value = unit.find(keyword)
    where = f"The header of {_name(unit) or 'the primary HDU'}"
    if isinstance(value, int) and not isinstance(value, bool):
        raise Unfit(
            f"{where} has {keyword} = {value}, which reads as 0 without a decimal point; write {value}. instead."
        )
    if not isinstance(value, float):
        raise Unfit(f"{where} has {keyword} = {value!r}; a real number is needed.")
