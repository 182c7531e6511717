"""Names of files: ``MU_<CODE>_<YYMMDD><VERSION>_<SETTING>.fits`` for products, ``MUSE.<time>`` for raw frames.

The scheme is ESO's (product_codes.html of the MUSE quality control): instrument, type of product, date of the raw
measurement, version letter, setting. ESO's list of codes is known in part; ``Source`` says which codes are ESO's and
which are our own choice. docs/names.md lists them all.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from archive.setup import Setup, SetupKey


class Source(StrEnum):
    """Who chose a code."""

    ESO = "ESO"
    OURS = "ours"


@dataclass(frozen=True)
class Code:
    """How products of one type are named.

    Parameters
    ----------
    code : str
        Four letters: M or P begins a product made from raw frames, G a general (static) one.
    what : str
        What it is, for the list in docs/names.md.
    keys : tuple of SetupKey
        The part of the setup that the name shows, in this order; binning only where it is not 1x1.
    source : Source
    label : str
        What ESO writes between version and setting of a static file.
    until : float
        Of a static file: only exposures before this Modified Julian Date may take it.
    obsolete : bool
        Of a static file: no pipeline takes it any more; it is kept and never handed out.
    """

    code: str
    what: str
    keys: tuple[SetupKey, ...]
    source: Source = Source.OURS
    label: str = ""
    until: float = math.inf
    obsolete: bool = False


_ESO, _OURS = Source.ESO, Source.OURS
_CHIP = (SetupKey.READOUT, SetupKey.BINX, SetupKey.BINY)
_LIGHT = (SetupKey.MODE, *_CHIP)
_SKY = (SetupKey.MODE,)
_FIELD = (SetupKey.OPTICS,)
_PROFILE = (SetupKey.READOUT, SetupKey.MODE)  # the order in ESO's names

# Products made from raw frames, by PRO.CATG. Ours follow ESO's static code of the same type where there is one
# (GLSP, PLSP), otherwise M for images and cubes and P for tables.
PRODUCT_CODES: Mapping[str, Code] = MappingProxyType(
    {
        "MASTER_BIAS": Code("MBIA", "master bias", _CHIP, _ESO),
        "MASTER_DARK": Code("MDRK", "master dark, per hour", _CHIP, _ESO),
        "MODEL_DARK": Code("MDRM", "smooth model of the dark", _CHIP),
        "NONLINEARITY_GAIN": Code("PNLG", "gain and non-linearity of the ports", _CHIP),
        "BADPIX_TABLE": Code("PBPT", "bad pixels", ()),
        "MASTER_FLAT": Code("MFLA", "master lamp flat", _LIGHT, _ESO),
        "TRACE_TABLE": Code("PFTT", "positions and edges of the slices", _LIGHT, _ESO),
        "TRACE_SAMPLES": Code("PFTS", "the points that the traces were fitted to", _LIGHT),
        "WAVECAL_TABLE": Code("PWCT", "wavelength calibration", _LIGHT, _ESO),
        "WAVECAL_RESIDUALS": Code("PWCR", "residuals of the fitted arc lines", _LIGHT),
        "LSF_PROFILE": Code("PLSP", "line spread function", _LIGHT),
        "MASTER_SKYFLAT": Code("MFLS", "master sky flat of ESO's early pipelines; not made any more", _LIGHT, _ESO),
        "DATACUBE_SKYFLAT": Code("MDCF", "cube of the twilight sky", _LIGHT),
        "TWILIGHT_CUBE": Code("MTWC", "illumination correction from the twilight sky", _LIGHT),
        "DATACUBE_STD": Code("MDCS", "cube of the standard star", _SKY, _ESO),
        "STD_FLUXES": Code("MSFX", "fluxes of the stars in that cube", _SKY),
        "STD_RESPONSE": Code("PSDR", "instrument response", _SKY),
        "STD_TELLURIC": Code("PSDT", "telluric absorption", _SKY),
        "GEOMETRY_UNSMOOTHED": Code("PEOU", "place of each slice before smoothing", _FIELD),
        "GEOMETRY_CUBE": Code("MEOC", "cube of the mask", _FIELD),
        "GEOMETRY_CHECK": Code("MEOK", "image of the mask, to look at", _FIELD),
        "SPOTS_TABLE": Code("PSPT", "spots of the mask as measured", _FIELD),
        "DATACUBE_ASTROMETRY": Code("MDCA", "cube of the astrometric field", _FIELD),
    }
)
# Static calibrations, by PRO.CATG. Source: MUSE calibration data page, "Static calibration files".
STATIC_CODES: Mapping[str, Code] = MappingProxyType(
    {
        "ASTROMETRY_REFERENCE": Code("GASR", "astrometric standard stars", (), _ESO, "astrom_cat"),
        "ASTROMETRY_WCS": Code("GASW", "scale, rotation and zero point of the field", _FIELD, _ESO, "astrom_wcs"),
        "BADPIX_TABLE": Code("GBPT", "bad pixels", (), _ESO, "badpix_table"),
        "GEOMETRY_TABLE": Code("GEOT", "place of each slice in the field", _FIELD, _ESO, "geometry_table"),
        "EXTINCT_TABLE": Code("GEXT", "atmospheric extinction", (), _ESO, "extinct_table"),
        "FILTER_LIST": Code("GFIL", "filter curves", (), _ESO, "filter_list"),
        "LINE_CATALOG": Code("GLNC", "arc lines", (), _ESO, "line_cat"),
        "STD_RESPONSE": Code("GSDR", "instrument response", _SKY, _ESO, "std_response"),
        "STD_FLUX_TABLE": Code("GSFT", "fluxes of standard stars", (), _ESO, "stdflux_table"),
        "SKY_LINES": Code("GSKL", "sky emission lines", (), _ESO, "sky_lines"),
        "VIGNETTING_MASK": Code(
            # The page has it for data before 2018-01-01, OCA-W before 2017-03-11, when the instrument got its baffle.
            "GVIM", "vignetted corner, for data before 2017-03-11", (), _ESO, "vignetting_mask", until=57823.0,
        ),
        "LSF_PROFILE": Code("GLSP", "line spread function", _PROFILE, _ESO, "lsf_profile"),
        "LSF_TABLE": Code("GLST", "line spread function, obsolete", (), _ESO, "lsf_table", obsolete=True),
        "LSF_CUBE": Code(
            "GLSC", "line spread function as cube, obsolete", _PROFILE, _ESO, "lsf_cube", obsolete=True
        ),
        "NONLINEARITY_GAIN": Code("GNLG", "gain and non-linearity of the ports", _CHIP, _OURS, "nonlinearity_gain"),
        "TELLURIC_REGIONS": Code("GTLR", "wavelength ranges of telluric absorption", (), _OURS, "telluric_regions"),
        "MASK_CHECK": Code("GMSK", "reference image of the mask", (), _OURS, "mask_check"),
    }
)  # fmt: skip
_CATEGORIES = {code.code: catg for table in (PRODUCT_CODES, STATIC_CODES) for catg, code in table.items()}

# ESO's word for the readout of the scientific mode, seen in the names of its static files (lsf_profile_slow_wfm-n).
READOUT_NAMES: Mapping[str, str] = MappingProxyType({"SCI1.0": "slow"})

SUFFIXES = (".fits", ".fits.fz", ".fits.gz", ".fits.Z")  # what a frame may come as
LONGEST_ID = 64  # characters of a data-product identifier in the registry

_NAME = re.compile(
    r"MU_(?P<code>[A-Z]{4})_(?P<day>[0-9]{6})(?P<letter>[A-Z]+)(?:_(?P<setting>[a-z0-9.\-_]+))?(?:-\d\d)?\.fits"
)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+\-]{0,200}")


@dataclass(frozen=True, kw_only=True)
class ProductName:
    """The parts of a product's name; ``catg`` is '' for a code that is not in the lists."""

    code: str
    catg: str
    static: bool
    day: date
    letter: str
    setting: str


def product_name(catg: str, day: date, letter: str, setup: Setup) -> str:
    """Name a product made from raw frames.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    day : date
        UT date of the first raw frame, 2000 to 2099.
    letter : str
        Version, of ``next_letter``.
    setup : Setup
        Of the raw frames; a value that the header lacks leaves its part out.

    Raises
    ------
    ValueError
        No code for this PRO.CATG, or date or letter cannot be written.
    """
    return _name(PRODUCT_CODES, catg, day, letter, setup)


def static_name(catg: str, day: date, letter: str, setup: Setup) -> str:
    """Name a static calibration as ``product_name`` does, with the day on which its validity begins."""
    return _name(STATIC_CODES, catg, day, letter, setup)


def channel_name(name: str, channel: int) -> str:
    """Return the name of the file of one channel, of a product that comes as one a channel: it ends in ``-05``."""
    return f"{name.removesuffix('.fits')}-{channel:02d}.fits"


def parse_name(name: str) -> ProductName:
    """Take a product's name apart.

    Raises
    ------
    ValueError
        It is no name of a product.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is no name of a product; those look like MU_MBIA_260617A_slow.fits.")
    digits = found["day"]
    try:
        day = date(2000 + int(digits[:2]), int(digits[2:4]), int(digits[4:]))
    except ValueError as error:
        raise ValueError(f"{name!r} is no name of a product: {digits} is no date, YYMMDD is needed.") from error
    return ProductName(
        code=found["code"],
        catg=_CATEGORIES.get(found["code"], ""),
        static=found["code"].startswith("G"),
        day=day,
        letter=found["letter"],
        setting=found["setting"] or "",
    )


def with_letter(name: str, letter: str) -> str:
    """Return a product's name with another version letter.

    Raises
    ------
    ValueError
        It is no name of a product, or that is no letter.
    """
    letter_number(letter)
    parts = parse_name(name)
    return name.replace(f"_{parts.day:%y%m%d}{parts.letter}", f"_{parts.day:%y%m%d}{letter}", 1)


def next_letter(taken: Iterable[str]) -> str:
    """Return the version after the highest one taken: A to Z, then AA, AB and so on; gaps stay gaps."""
    number = max(map(letter_number, taken), default=0) + 1
    letter = ""
    while number:
        number, digit = divmod(number - 1, 26)
        letter = chr(ord("A") + digit) + letter
    return letter


def dp_id_of(time: datetime, taken: Collection[str] = ()) -> str:
    """Return the data-product identifier of a product, ``M.MUSE.<time>``, at the first millisecond not taken.

    Products of one step have one time: the later ones move on by a millisecond each, as ESO's archive has it.
    """
    time = time.astimezone(UTC)
    while (dp_id := f"M.MUSE.{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03d}") in taken:
        time += timedelta(milliseconds=1)
    return dp_id


def data_product_id(name: str) -> str:
    """Return the identifier of a raw frame from its ARCFILE or file name, safe as part of a path.

    The suffix goes; a character that a file name should not have becomes ``_``.

    Raises
    ------
    ValueError
        Nothing is left.
    """
    stem = name.strip().rpartition("/")[2]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        stem = stem.removesuffix(suffix)
    if not (safe := _plain(stem)[:LONGEST_ID]):
        raise ValueError(f"{name!r} names no frame: no letter or digit is in it.")
    return safe


def suffix_of(name: str) -> str:
    """Return how the name of a frame's file ends, with its compression: ``.fits.fz``; without any it is ``.fits``."""
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=SUFFIXES[0])


def raw_name(dp_id: str, version: int, suffix: str) -> str:
    """Return the file name of a raw frame in the archive; the first version keeps ESO's name."""
    return safe_file_name(f"{dp_id}{f'.v{version}' if version > 1 else ''}{suffix}")


def cleaned(name: str) -> str:
    """Return a plain file name for any name that a file may have come with, its end kept."""
    return _plain(name[-180:]) or "unnamed"


def safe_file_name(name: str) -> str:
    """Return the name if it is a plain file name, which cannot lead out of its folder.

    Raises
    ------
    ValueError
    """
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a file name in the archive: 1 to 201 letters, digits and . _ : + - are allowed, "
            "beginning with a letter or digit."
        )
    return name


def slug(text: str) -> str:
    """Return the text in lower case, everything but letters, digits and dots as single hyphens."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def setting_of(setup: Setup, keys: tuple[SetupKey, ...]) -> str:
    """Return the part of a name that shows these keys of a setup, '' if there is nothing to show."""
    parts = {
        SetupKey.MODE: slug(setup.mode),
        SetupKey.READOUT: READOUT_NAMES.get(setup.readout, slug(setup.readout)),
        SetupKey.BINX: f"{setup.binx}x{setup.biny}" if (setup.binx, setup.biny) != (1, 1) else "",
        SetupKey.OPTICS: slug(setup.optics),
    }
    return "_".join(part for key in keys if (part := parts.get(key)))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:+\-]", "_", text).lstrip("._:+-")


def _name(codes: Mapping[str, Code], catg: str, day: date, letter: str, setup: Setup) -> str:
    if catg not in codes:
        raise ValueError(f"there is no product code for {catg}; add one to archive/naming.py.")
    if not 2000 <= day.year <= 2099:
        raise ValueError(f"the date {day} cannot be written as YYMMDD; 2000 to 2099 can.")
    letter_number(letter)
    code = codes[catg]
    parts = ["MU", code.code, f"{day:%y%m%d}{letter}", code.label, setting_of(setup, code.keys)]
    return "_".join(part for part in parts if part) + ".fits"


def letter_number(letter: str) -> int:
    """Return which version a letter is: 1 for A, 26 for Z, 27 for AA.

    Raises
    ------
    ValueError
    """
    if not re.fullmatch("[A-Z]+", letter):
        raise ValueError(f"the version {letter!r} is not one of A to Z, AA and so on.")
    number = 0
    for character in letter:
        number = 26 * number + ord(character) - ord("A") + 1
    return number
