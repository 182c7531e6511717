"""Products of another pipeline on their way in: from header to what one is, what it was made of, and its row.

They are taken as ESO's recipes write them, one file a channel or all channels in one, as ESO's archive hands them out,
and as another archive of this kind has them. Source of the cards: products of the MUSE pipeline 2.8.7.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from archive.formats import Unfit, channel_of, check_format, response_version
from archive.history import record
from archive.inspection import Inspection
from archive.models import Event, Measurement, Product
from archive.naming import (
    PRODUCT_CODES,
    STATIC_CODES,
    channel_name,
    dp_id_of,
    letter_number,
    next_letter,
    parse_name,
    product_name,
    with_letter,
)
from archive.night import LAST_MJD, mjd_of, night_of, time_of
from archive.setup import Setup
from archive.states import Certification, Judge
from recipes.esoproducts import LAYOUTS, Layout
from recipes.fits import QC
from recipes.headers import Hdu, Header, read_hdus
from recipes.muse import INSTRUMENT, extension_name
from recipes.recipe import RecipeError, Value
from tasks.cascade import Tag
from tasks.classify import classify
from tasks.finish import reserved_names
from tasks.statics import name_of
from tasks.survey import concerns_done

TAKEN_IN = "master taken in"  # the event that keeps how a product was made
WHOLE = 0  # channel of a measurement of the whole instrument
_PIPELINES: Mapping[str, str] = {"muse": "eso"}  # how versions begin, by the name in PRO REC1 PIPE ID
_MOST_IDS = 500  # in one query
_MOST_VERSION = 16  # characters
_DP_ID = re.compile(r"M\.MUSE\.\d{4}-\d\d-\d\dT\d\d[:_]\d\d[:_]\d\d\.\d{3}")
_RAW_ID = re.compile(r"MUSE\.\d{4}-\d\d-\d\dT\d\d[:_]\d\d[:_]\d\d(?:\.\d+)?")
_PIPEFILE = re.compile(r"([A-Z][A-Z0-9_]*?)(?:_\d{4})?(?:-\d\d)?\.fits")
_CHANNEL = re.compile(r"-\d\d\.fits$")
# Which channels a run was for and how it wrote them says nothing of how they were made.
_OF_THE_FILES = ("nifu", "merge")
_FLUX_OF_SKY = "ESO DRS MUSE FLAT FLUX SKY"
_COMPRESSED = (".fits.gz", ".fits.Z")


@dataclass(frozen=True)
class Ancestor:
    """What a product was made of: the name that its header gives, the tag or PRO.CATG, and DATAMD5 if it has that."""

    name: str
    tag: str
    signature: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How a product was made, by its PRO cards.

    Parameters
    ----------
    recipe : str
    version : str
        ``eso/2.8.7`` of ESO's pipeline: nothing that is made here has such a version.
    mjd : float
        Begin of the first exposure.
    first : str
        Archive name of the first exposure, '' if nothing tells it.
    raws, calibrations : tuple of Ancestor
    """

    recipe: str
    version: str
    parameters: Mapping[str, str]
    mjd: float
    first: str
    raws: tuple[Ancestor, ...]
    calibrations: tuple[Ancestor, ...]

    @property
    def run(self) -> str:
        """The same for all that one run made of the same frames with the same parameters."""
        parameters = {name: value for name, value in self.parameters.items() if name not in _OF_THE_FILES}
        raws = sorted(raw.name for raw in self.raws)
        content = [self.recipe, self.version, parameters, repr(self.mjd), self.first, raws]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Master:
    """What a product of another pipeline is.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    name : str
        Its name by the scheme, '' if it has none yet.
    dp_id : str
        ``M.MUSE.<time>`` if it has one from ESO's archive.
    channels : tuple of int
        Empty where it is of the whole instrument.
    alone : bool
        It is the file of one channel, of a product that comes as one a channel.
    created : datetime or None
        When it was made, if its header says it.
    signature : str
        DATAMD5, by which other products name it.
    measurements : tuple
        Channel (``WHOLE`` of the whole instrument), name and value.
    certified : bool
        It comes from ESO's archive, whose quality control has certified it.
    """

    catg: str
    name: str
    dp_id: str
    setup: Setup
    mjd: float
    channels: tuple[int, ...]
    alone: bool
    response: int | None
    created: datetime | None
    signature: str
    origin: Origin
    measurements: tuple[tuple[int, str, Value], ...]
    certified: bool


def category_of(primary: Mapping[str, Value], name: str) -> str:
    """Return the PRO.CATG of any product of a MUSE pipeline, static or not; '' for a raw frame or another file."""
    written = _PIPEFILE.fullmatch(_text(primary, "PIPEFILE"))
    named = name_of(primary, name)
    catg = _text(primary, "ESO PRO CATG") or (written[1] if written and "ESO DPR CATG" not in primary else "")
    ours = primary.get("INSTRUME", INSTRUMENT if named else "") == INSTRUMENT
    return (catg or (named.catg if named else "")) if ours else ""


def is_static(primary: Mapping[str, Value], name: str) -> bool:
    """Return whether a product is valid from a day on: by its name, or else as it was not made from raw frames."""
    catg, named = category_of(primary, name), name_of(primary, name)
    if catg not in STATIC_CODES:
        return False
    if named is not None:
        return named.static
    return catg not in PRODUCT_CODES or "ESO PRO REC1 RAW1 NAME" not in primary


def recognise_master(inspection: Inspection, path: Path) -> Master:
    """Say what a product is, and check that it holds what the recipes read.

    Parameters
    ----------
    inspection : Inspection
        Of a file whose ``category_of`` is among ``PRODUCT_CODES`` and that is not static.
    path : Path

    Raises
    ------
    Unfit
    """
    primary = inspection.primary
    catg, named = category_of(primary, path.name), name_of(primary, path.name)
    if inspection.suffix in _COMPRESSED:
        raise Unfit(f"It is a {catg}, but compressed ({inspection.suffix}); unpack it first.")
    if named and named.catg != catg:
        raise Unfit(f"Its name is that of {named.catg or 'a type that is not known'}, its PRO.CATG is {catg}.")
    try:
        hdus = list(read_hdus(path))
        channels = _channels(hdus)
        _check_layout(catg, hdus, channels)
        measurements = tuple(_measurements(hdus))
    except RecipeError as error:
        raise Unfit(str(error)) from error
    if catg in STATIC_CODES and inspection.suffix == ".fits":
        check_format(catg, path)
    origin = _origin(primary)
    own_id = _DP_ID.search(_text(primary, "ARCFILE")) or _DP_ID.fullmatch(path.name.partition(".fits")[0])
    setup = classify(primary, name=path.name).setup
    if named is None:
        product_name(catg, _day(origin.mjd, catg), "A", setup)
    return Master(
        catg=catg,
        name=_own_name(primary, path.name) if named else "",
        dp_id=own_id.group().replace("_", ":") if own_id else "",
        setup=setup,
        mjd=origin.mjd,
        channels=channels,
        alone=channel_of(_text(primary, "EXTNAME")) is not None,
        response=response_version(catg, primary),
        created=_created(primary),
        signature=_text(primary, "DATAMD5"),
        origin=origin,
        measurements=measurements,
        certified=bool(named and own_id and origin.version.startswith("eso/")),
    )


def free_master_name(session: Session, master: Master) -> str:
    """Return the name that a product can have: its own, or made, with a version letter that no product has.

    The files of one run share a letter.
    """
    base = master.name or product_name(master.catg, _day(master.mjd, master.catg), "A", master.setup)
    if not master.name and master.alone:
        base = channel_name(base, master.channels[0])
    parts = parse_name(base)
    begin = f"MU_{parts.code}_{parts.day:%y%m%d}"
    taken = set(session.scalars(select(Product.name).where(Product.name.startswith(begin, autoescape=True))))
    taken |= {name for name in reserved_names(session) if name.startswith(begin)}
    if master.name and base not in taken:
        return base
    of_run = select(Product.name).where(Product.run == master.origin.run, Product.catg == master.catg)
    shared = min((parse_name(name).letter for name in session.scalars(of_run)), key=letter_number, default="")
    if shared and (name := with_letter(base, shared)) not in taken:
        return name
    alike = [name for name in taken if _series(name) == _series(base)]
    return with_letter(base, next_letter(parse_name(name).letter for name in alike))


def _series(name: str) -> str:
    """Return what the names of all versions and channels of a product have in common."""
    return _CHANNEL.sub(".fits", with_letter(name, "A"))


def enter_master(
    session: Session,
    inspection: Inspection,
    master: Master,
    name: str,
    kept: Path,
    now: datetime,
    *,
    certified: bool = False,
) -> Product:
    """Add the row of a product of another pipeline, with its measurements and the record of how it was made.

    Parameters
    ----------
    name : str
        Its name in the archive.
    kept : Path
        Where its bytes are.
    certified : bool
        Whoever brings it vouches for it.
    """
    created = master.created or now
    free = not session.scalar(select(Product.id).where(Product.dp_id == master.dp_id))
    taken = set(session.scalars(select(Product.dp_id).where(Product.dp_id >= dp_id_of(created))))
    vouched = certified or master.certified
    origin = master.origin
    product = Product(
        catg=master.catg,
        name=name,
        dp_id=master.dp_id if master.dp_id and free else dp_id_of(created, taken),
        path=str(kept),
        size=inspection.size,
        digest=inspection.digest,
        night=night_of(master.mjd),
        mjd=master.mjd,
        channels=list(master.channels),
        setup=master.setup,
        certification=Certification.CERTIFIED if vouched else Certification.PROVISIONAL,
        judge=Judge.PERSON if vouched else Judge.NOBODY,
        response=master.response,
        created=created,
        ancestors=[ancestor.name for ancestor in (*origin.raws, *origin.calibrations)],
        run=origin.run,
        signature=master.signature,
    )
    session.add(product)
    session.flush()
    product.reviewed = not concerns_done(session, product)
    rows = [_row(product.id, *measured) for measured in master.measurements]
    if rows:
        session.execute(insert(Measurement), rows)
    record(session, product, TAKEN_IN, now=now, digest=inspection.digest, origin=asdict(origin))
    return product


def origins_of(session: Session, product_ids: Sequence[int]) -> dict[int, Origin]:
    """Return how products of another pipeline were made, as it was recorded when they were taken in."""
    origins: dict[int, Origin] = {}
    for start in range(0, len(product_ids), _MOST_IDS):
        ids = product_ids[start : start + _MOST_IDS]
        of_products = (Event.subject == Product.__tablename__, Event.subject_id.in_(ids), Event.what == TAKEN_IN)
        for number, data in session.execute(select(Event.subject_id, Event.data).where(*of_products)):
            origin = data["origin"]
            raws, calibrations = ([Ancestor(**item) for item in origin[name]] for name in ("raws", "calibrations"))
            origins[number] = Origin(**{**origin, "raws": tuple(raws), "calibrations": tuple(calibrations)})
    return origins


def raw_id(name: str) -> str:
    """Return the data-product identifier in the name of a raw frame, ``MUSE.<time>``; '' if it has none."""
    found = _RAW_ID.match(name)
    return found.group().replace("_", ":") if found else ""


def _row(product_id: int, channel: int, name: str, value: Value) -> dict[str, Any]:
    number = None if isinstance(value, str) or not math.isfinite(value) else float(value)
    return {
        "product_id": product_id, "channel": channel, "name": name, "value": number,
        "text": value if isinstance(value, str) else "", "score": "", "remark": "",
    }  # fmt: skip


def _channels(hdus: Sequence[Hdu]) -> tuple[int, ...]:
    found = (channel_of(hdu.name) for hdu in hdus)
    return tuple(sorted({channel for channel in found if channel is not None}))


def _check_layout(catg: str, hdus: Sequence[Hdu], channels: Sequence[int]) -> None:
    """Check that planes, columns and rows are there, of each channel of a file of several."""
    if not any(hdu.size for hdu in hdus):
        raise Unfit(f"No HDU of this {catg} has data.")
    layout = LAYOUTS.get(catg, Layout())
    extensions, several = hdus[1:], channel_of(hdus[0].name) is None and channels
    if several and (layout.planes or layout.columns):
        for channel in channels:
            own = [hdu for hdu in extensions if channel_of(hdu.name) == channel]
            _check_channel(catg, layout, own, f"{extension_name(channel)}.")
    else:
        _check_channel(catg, layout, extensions, "")
    if catg == "TWILIGHT_CUBE" and not any(name.startswith(_FLUX_OF_SKY) for name in hdus[0].header):
        raise Unfit(f"Its primary header has no {_FLUX_OF_SKY}1 to 24, by which the channels are scaled.")


def _check_channel(catg: str, layout: Layout, hdus: Sequence[Hdu], prefix: str) -> None:
    images = {hdu.name: _shape(hdu.header) for hdu in hdus if _is_image(hdu.header)}
    names = [f"{prefix}{plane}" for plane in layout.planes]
    if missing := [name for name in names if name not in images]:
        raise Unfit(f"This {catg} has no image {' and '.join(missing)}; it has {', '.join(images) or 'none'}.")
    shapes = {images[name] for name in names}
    if len(shapes) > 1 or () in shapes:
        told = ", ".join(f"{name} {images[name]}" for name in names)
        raise Unfit(f"The planes of this {catg} differ in shape, or are empty: {told}.")
    if not layout.columns:
        return
    table = next((hdu.header for hdu in hdus if hdu.header.get("XTENSION") == "BINTABLE"), None)
    where = prefix.rstrip(".") or "it"
    if table is None:
        raise Unfit(f"There is no binary table of this {catg} in {where}.")
    columns = [str(table.get(f"TTYPE{number}", "")) for number in range(1, table.whole("TFIELDS") + 1)]
    if missing := [name for name in layout.columns if name not in columns]:
        raise Unfit(f"The table of this {catg} in {where} has no column {' and '.join(missing)}.")
    rows = table.whole("NAXIS2")
    if rows == 0 or rows != (layout.rows or rows):
        raise Unfit(f"The table of this {catg} in {where} has {rows} rows; {layout.rows or 'some'} are needed.")


def _is_image(header: Header) -> bool:
    return header.get("XTENSION") == "IMAGE" or header.get("ZIMAGE") is True


def _shape(header: Header) -> tuple[int, ...]:
    keyword = "ZNAXIS" if header.get("ZIMAGE") is True else "NAXIS"
    return tuple(header.whole(f"{keyword}{axis}") for axis in range(1, header.whole(keyword) + 1))


def _measurements(hdus: Sequence[Hdu]) -> Iterator[tuple[int, str, Value]]:
    """Yield the QC1 parameters of a file: of each channel, in whichever header they stand."""
    seen: set[tuple[int, str]] = set()
    of_file = channel_of(hdus[0].name) or WHOLE
    for hdu in hdus:
        channel = channel_of(hdu.name) or of_file
        for keyword, value in hdu.header.matching(QC).items():
            name = keyword.removeprefix("ESO QC ")
            if (channel, name) not in seen:
                seen.add((channel, name))
                yield channel, name, value


def _origin(primary: Mapping[str, Value]) -> Origin:
    pipeline, _, version = _text(primary, "ESO PRO REC1 PIPE ID").partition("/")
    mjd = primary.get("MJD-OBS")
    if isinstance(mjd, str | bool) or mjd is None or not 0 < mjd < LAST_MJD:
        raise Unfit(f"Its MJD-OBS = {mjd!r} is no time of an exposure that it could be made of.")
    parameters = {
        _text(primary, f"ESO PRO REC1 PARAM{number} NAME"): str(primary.get(f"ESO PRO REC1 PARAM{number} VALUE", ""))
        for number in _numbers(primary, "PARAM")
    }
    raws = tuple(_ancestors(primary, "RAW"))
    return Origin(
        recipe=_text(primary, "ESO PRO REC1 ID")[:32],
        version=f"{_PIPELINES.get(pipeline, pipeline) or 'outside'}/{version or '-'}"[:_MOST_VERSION],
        parameters=parameters,
        mjd=float(mjd),
        first=raw_id(_text(primary, "ESO PRO ANCESTOR")) or raw_id(_text(primary, "ARCFILE")),
        raws=raws,
        calibrations=tuple(_ancestors(primary, "CAL")),
    )


def _ancestors(primary: Mapping[str, Value], kind: str) -> Iterator[Ancestor]:
    for number in _numbers(primary, kind):
        name, tag, signature = (
            _text(primary, f"ESO PRO REC1 {kind}{number} {word}") for word in ("NAME", "CATG", "DATAMD5")
        )
        yield Ancestor(name, tag or Tag.UNKNOWN, signature)


def _numbers(primary: Mapping[str, Value], kind: str) -> Iterator[int]:
    for number in count(1):
        if f"ESO PRO REC1 {kind}{number} NAME" not in primary:
            return
        yield number


def _own_name(primary: Mapping[str, Value], name: str) -> str:
    try:
        parse_name(name)
    except ValueError:
        return _text(primary, "ORIGFILE")
    return name


def _day(mjd: float, catg: str) -> date:
    day = time_of(mjd).date()
    if not 2000 <= day.year <= 2099:
        raise Unfit(f"Its MJD-OBS is of {day}; a {catg} of MUSE is of 2013 or later.")
    return day


def _created(primary: Mapping[str, Value]) -> datetime | None:
    try:
        time = datetime.fromisoformat(_text(primary, "DATE"))
    except ValueError:
        return None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time if 0 < mjd_of(time) < LAST_MJD else None


def _text(primary: Mapping[str, Value], keyword: str) -> str:
    value = primary.get(keyword)
    return value.strip() if isinstance(value, str) else ""
