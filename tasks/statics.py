"""Static calibrations on their way in: from header and name to what one is, and its row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.formats import Unfit, channel_of, check_format, response_version
from archive.history import record
from archive.inspection import Inspection
from archive.models import Product
from archive.naming import (
    READOUT_NAMES,
    STATIC_CODES,
    ProductName,
    channel_name,
    dp_id_of,
    next_letter,
    parse_name,
    static_name,
    with_letter,
)
from archive.night import LAST_MJD, mjd_of, night_of, time_of
from archive.setup import MODE_FAMILIES, Setup, SetupKey
from archive.states import Certification, Judge
from recipes.muse import INSTRUMENT
from recipes.recipe import Value
from tasks.finish import reserved_names

_MODES = ("WFM-NOAO-N", "WFM-NOAO-E", "WFM-AO-N", "WFM-AO-E", "NFM-AO-N")
_MODE_IN_NAME = re.compile(r"(?<![a-z0-9])(wfm|nfm)(?:-(noao|nonao|ao))?-(n|e)(?![a-z0-9])", re.IGNORECASE)
_FIELD_IN_NAME = re.compile(r"(?<![a-z0-9])(wfm|nfm)(?![a-z0-9])", re.IGNORECASE)
_READOUTS = {word: readout for readout, word in READOUT_NAMES.items()}
_READOUT_IN_NAME = re.compile(rf"(?<![a-z0-9])({'|'.join(_READOUTS)})(?![a-z0-9])", re.IGNORECASE)
_KEYWORDS: Mapping[SetupKey, str] = {
    SetupKey.MODE: "INS.MODE", SetupKey.READOUT: "DET.READ.CURNAME", SetupKey.OPTICS: "INS.OPTI2.NAME"
}  # fmt: skip
# What the type is chosen by, and must therefore be known of each file. Source: OCA-W.
_NEEDED: Mapping[str, tuple[SetupKey, ...]] = {
    "STD_RESPONSE": (SetupKey.MODE,),
    "LSF_PROFILE": (SetupKey.MODE, SetupKey.READOUT),
    "ASTROMETRY_WCS": (SetupKey.OPTICS,),
}


@dataclass(frozen=True, kw_only=True)
class Static:
    """What a file is that is valid from a day on.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    mjd : float
        Begin of its validity.
    channels : tuple of int
        Empty where it serves all.
    response : int or None
        Version of an STD_RESPONSE.
    name : str
        Its name by the rules, with the version letter that it came with, or A.
    """

    catg: str
    mjd: float
    setup: Setup
    channels: tuple[int, ...]
    response: int | None
    name: str


def category_of(primary: Mapping[str, Value], name: str) -> str:
    """Return the PRO.CATG of a static calibration of MUSE, by its header or else its name; '' for any other file."""
    named = name_of(primary, name)
    catg = str(primary.get("ESO PRO CATG", named.catg if named and named.static else "")).strip()
    ours = primary.get("INSTRUME", INSTRUMENT if named else "") == INSTRUMENT
    return catg if catg in STATIC_CODES and ours else ""


def recognise(inspection: Inspection, path: Path) -> Static:
    """Say what a static calibration is, and check that it holds what its type must hold.

    Parameters
    ----------
    inspection : Inspection
        Of a file with a ``category_of``.
    path : Path

    Raises
    ------
    Unfit
    """
    catg, named = category_of(inspection.primary, path.name), name_of(inspection.primary, path.name)
    name = path.name if named is None or _parsed(path.name) else str(inspection.primary["ORIGFILE"])
    if inspection.suffix != ".fits":
        raise Unfit(f"It is a {catg}, but compressed ({inspection.suffix}); unpack it first.")
    if named and named.catg != catg:
        raise Unfit(f"Its name is that of {named.catg or 'a type that is not known'}, its PRO.CATG is {catg}.")
    check_format(catg, path)
    mjd = _begin(inspection.primary, named, catg)
    setup = _setup(inspection.primary, name, catg)
    names = [str(inspection.primary.get("EXTNAME", "")), *(unit.name for unit in inspection.extensions)]
    channels = tuple(sorted({channel for name in names if (channel := channel_of(name)) is not None}))
    kept = name if named and named.static else ""
    return Static(
        catg=catg,
        mjd=mjd,
        setup=setup,
        channels=channels,
        response=response_version(catg, inspection.primary),
        name=kept or _named(catg, time_of(mjd).date(), setup, channels),
    )


def free_name(session: Session, static: Static) -> str:
    """Return the name that a file can have: its own, or with the next letter where a product has that already."""
    taken, name, reserved = [parse_name(static.name).letter], static.name, reserved_names(session)
    while name in reserved or session.scalar(select(Product.id).where(Product.name == name)):
        name = with_letter(static.name, next_letter(taken))
        taken.append(parse_name(name).letter)
    return name


def following_name(name: str) -> str:
    """Return the name with the next version letter."""
    return with_letter(name, next_letter([parse_name(name).letter]))


def enter_static(session: Session, inspection: Inspection, static: Static, kept: Path, now: datetime) -> Product:
    """Add the row of a static calibration, which whoever brought it vouches for, and pair it.

    Parameters
    ----------
    kept : Path
        Where its bytes are.
    """
    begin = time_of(static.mjd)
    taken = set(session.scalars(select(Product.dp_id).where(Product.dp_id >= dp_id_of(begin))))
    product = Product(
        catg=static.catg,
        name=kept.name,
        dp_id=dp_id_of(begin, taken),
        path=str(kept),
        size=inspection.size,
        digest=inspection.digest,
        night=night_of(static.mjd),
        mjd=static.mjd,
        channels=list(static.channels),
        setup=static.setup,
        certification=Certification.CERTIFIED,
        judge=Judge.PERSON,
        static=True,
        response=static.response,
        signature=_text(inspection.primary, "DATAMD5")[:32],
        created=now,
    )
    session.add(product)
    record(session, product, "static calibration taken in", now=now, catg=static.catg, digest=inspection.digest)
    if static.catg in ("GEOMETRY_TABLE", "ASTROMETRY_WCS"):
        _pair(session, begin.date(), now)
    return product


def _pair(session: Session, day: date, now: datetime) -> None:
    """Link each astrometric solution from outside to the geometry table from outside of its day and version letter.

    A geometry table of the same field goes before another one. In whatever order they come, the links are the same.
    """
    from_outside = select(Product).where(Product.static, Product.step_id.is_(None)).order_by(Product.id)
    first, last = (mjd_of(datetime.fromisoformat(f"{day}T00:00:00+00:00")) + days for days in (0, 1))
    products = session.scalars(
        from_outside.where(
            Product.catg.in_(("GEOMETRY_TABLE", "ASTROMETRY_WCS")), Product.mjd >= first, Product.mjd < last
        )
    ).all()
    for solution in products:
        fitting = [
            table
            for table in products
            if (solution.catg, table.catg) == ("ASTROMETRY_WCS", "GEOMETRY_TABLE")
            and parse_name(solution.name).letter == parse_name(table.name).letter
        ]
        best = min(fitting, key=lambda table: (table.optics != solution.optics, table.optics, table.id), default=None)
        if best is not None and solution.geometry_id != best.id:
            solution.geometry, solution.reviewed, best.reviewed = best, False, False
            record(session, solution, "paired", f"It goes with {best.name}.", now=now, geometry=best.name)


def name_of(primary: Mapping[str, Value], name: str) -> ProductName | None:
    """Return the parts of a file's name by the scheme: as it is called, or else by ORIGFILE; None if it has none."""
    return _parsed(name) or _parsed(_text(primary, "ORIGFILE"))


def _parsed(name: str) -> ProductName | None:
    try:
        return parse_name(name)
    except ValueError:
        return None


def _begin(primary: Mapping[str, Value], named: ProductName | None, catg: str) -> float:
    mjd = primary.get("MJD-OBS")
    if isinstance(mjd, float | int) and not isinstance(mjd, bool) and 0 < mjd < LAST_MJD:
        return float(mjd)
    if mjd is not None:
        raise Unfit(f"Its MJD-OBS = {mjd!r} is no time from which a {catg} could be valid.")
    if named:
        return mjd_of(datetime.fromisoformat(f"{named.day}T00:00:00+00:00"))
    raise Unfit(
        f"Nothing says from when this {catg} is valid: give it MJD-OBS, or a name with the date, "
        f"{static_name(catg, date(2014, 1, 1), 'A', Setup())}."
    )


def _setup(primary: Mapping[str, Value], name: str, catg: str) -> Setup:
    """Return the setup by the header, and by the name where the header does not say it.

    The mode is that of the name if it has one: ``wfm-n`` is a family, which INS.MODE of the header may be one of.
    """
    mode, readout, optics = (_text(primary, f"ESO {key.replace('.', ' ')}") for key in _KEYWORDS.values())
    mode = mode.replace("NONAO", "NOAO")
    if found := _MODE_IN_NAME.search(name):
        field, adaptive, span = (text.upper() for text in (found[1], found[2] or "", found[3]))
        token = "-".join(part for part in (field, adaptive.replace("NONAO", "NOAO"), span) if part)
        token = {"NFM-N": "NFM-AO-N"}.get(token, token)
        if mode and mode != token and mode not in MODE_FAMILIES.get(token, ()):
            raise Unfit(f"Its name says {found[0]}, its INS.MODE is {mode}; one of both is wrong.")
        mode = token
    if found := _READOUT_IN_NAME.search(name):
        readout = readout or _READOUTS[found[1].lower()]
    if found := _FIELD_IN_NAME.search(name):
        optics = optics or found[1].upper()
    if SetupKey.MODE in _NEEDED.get(catg, ()) and mode and mode not in (*_MODES, *MODE_FAMILIES):
        raise Unfit(f"{mode} is no mode of MUSE; there are {', '.join(_MODES)}.")
    setup = Setup(
        mode=mode,
        readout=readout,
        readout_id=_count(primary, "ESO DET READ CURID", 0),
        binx=_count(primary, "ESO DET BINX", 1),
        biny=_count(primary, "ESO DET BINY", 1),
        optics=optics,
    )
    for key in _NEEDED.get(catg, ()):
        if not setup.value(key):
            raise Unfit(
                f"Nothing says of which {key} this {catg} is: give it {_KEYWORDS[key]}, or a name such as "
                f"{static_name(catg, date(2014, 1, 1), 'A', Setup(mode='WFM-N', readout='SCI1.0', optics='WFM'))}."
            )
    return setup


def _named(catg: str, day: date, setup: Setup, channels: tuple[int, ...]) -> str:
    """Name a file that came without a name of the scheme; an LSF_PROFILE of a single channel ends in its number."""
    name = static_name(catg, day, "A", setup)
    alone = catg == "LSF_PROFILE" and len(channels) == 1
    return channel_name(name, channels[0]) if alone else name


def _text(primary: Mapping[str, Value], keyword: str) -> str:
    value = primary.get(keyword)
    return value.strip() if isinstance(value, str) else ""


def _count(primary: Mapping[str, Value], keyword: str, default: int) -> int:
    value = primary.get(keyword)
    return value if isinstance(value, int) and not isinstance(value, bool) else default
