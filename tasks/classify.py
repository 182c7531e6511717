"""From a primary header to what a raw frame is: its tag, setup, lamps, template, time and name. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from archive.naming import data_product_id
from archive.night import mjd_of, night_of
from archive.setup import Setup
from recipes.muse import INSTRUMENT, LAMP_NUMBERS, Lamp
from recipes.recipe import Value
from tasks.cascade import RULES, STEPS_BY_TAG, Tag

AMBIENT_TEMPERATURE = "ESO INS TEMP7 VAL"  # C; what an illumination flat is chosen by. Source: musered
_CARDS = ("ESO OBS NAME", "ESO OBS PROG ID", AMBIENT_TEMPERATURE)
# ESO's archive names a frame by its time; where a file system forbids colons they come as underscores.
_DP_ID = re.compile(rf"{INSTRUMENT}\.\d{{4}}-\d\d-\d\dT\d\d[:_]\d\d[:_]\d\d(?:\.\d+)?")
_MOST_DAYS = 100_000.0  # Modified Julian Date of the year 2132
_MOST_SECONDS = 86400.0
_MOST_COUNTED = 1_000_000
_MOST_RULE = 128  # characters
_CLOCKS_AGREE = 2.0  # seconds; DATE-OBS is cut to whole seconds


@dataclass(frozen=True, kw_only=True)
class Classified:
    """What a header says of a raw frame.

    Parameters
    ----------
    tag : Tag
        UNKNOWN if no rule matched.
    rule : str
        The rule that matched, or why none did.
    dp_id : str
        Data-product identifier, ``MUSE.2026-06-17T10:41:11.000``; if nothing tells it what the file name leaves.
    mjd : float
        Begin of the exposure; 0 if nothing tells it.
    exptime : float
        Seconds.
    lamps : tuple of Lamp
        Those that are on with an open shutter.
    cards : mapping
        Further header values, as they stand.
    problems : tuple of str
        Sentences on what the header lacks or contradicts.
    """

    tag: Tag
    rule: str
    catg: str
    type: str
    tech: str
    dp_id: str
    origfile: str
    object: str
    mjd: float
    exptime: float
    night: date
    tpl_id: str
    tpl_start: str
    tpl_nexp: int
    tpl_expno: int
    setup: Setup
    lamps: tuple[Lamp, ...]
    cards: Mapping[str, Value]
    problems: tuple[str, ...]


class _Cards:
    """Header cards by kind; what is missing or of another kind is '' or the default, and noted."""

    def __init__(self, header: Mapping[str, Value]) -> None:
        self.header = header
        self.problems: list[str] = []

    def text(self, keyword: str, *, most: int = 32, expected: bool = True) -> str:
        value = self.header.get(keyword, "")
        text = str(value).strip()
        if not isinstance(value, str):
            self.problems.append(f"{keyword} = {value!r} is not text.")
        elif len(text) > most:
            self.problems.append(f"{keyword} = {value!r} is cut to {most} characters.")
        elif expected and not text:
            self.problems.append(f"{keyword} is missing.")
        return text[:most]

    def number(self, keyword: str, default: float = 0.0, *, most: float, expected: bool = True) -> float:
        value = self.header.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most:
            return value
        if value is not None:
            self.problems.append(f"{keyword} = {value!r} is not a number from 0 to {most:g}.")
        elif expected:
            self.problems.append(f"{keyword} is missing.")
        return default

    def count(self, keyword: str, default: int = 0, *, expected: bool = True) -> int:
        return int(self.number(keyword, default, most=_MOST_COUNTED, expected=expected))


def classify(header: Mapping[str, Value], *, name: str = "") -> Classified:
    """Return what a primary header says; no header is refused.

    Parameters
    ----------
    header : mapping
        Values by keyword as astropy spells it, ``ESO DPR CATG``.
    name : str
        Name of the file; it helps where the header has no ARCFILE.
    """
    cards = _Cards(header)
    catg, type_ = cards.text("ESO DPR CATG"), cards.text("ESO DPR TYPE", most=64)
    tag, rule = _match(header, catg, type_)
    lamps = lit_lamps(header)
    step = STEPS_BY_TAG.get(tag)
    if step and step.lamps and (len(lamps) != 1 or lamps[0] not in step.lamps):
        cards.problems.append(
            f"{tag} frames are lit by one lamp of {', '.join(step.lamps)}; here {', '.join(lamps) or 'none'} is on."
        )
    dp_id = _data_product_id(cards.text("ARCFILE", most=80, expected=False), name, cards.text("DATE-OBS"))
    mjd = _begin(cards, dp_id)
    return Classified(
        tag=tag,
        rule=rule[:_MOST_RULE],
        catg=catg,
        type=type_,
        tech=cards.text("ESO DPR TECH"),
        dp_id=dp_id,
        origfile=cards.text("ORIGFILE", most=128, expected=False),
        object=cards.text("OBJECT", most=80, expected=False),
        mjd=mjd,
        exptime=cards.number("EXPTIME", most=_MOST_SECONDS),
        night=night_of(mjd),
        tpl_id=cards.text("ESO TPL ID", most=64, expected=False),
        tpl_start=cards.text("ESO TPL START", expected=step is not None),
        tpl_nexp=cards.count("ESO TPL NEXP", expected=step is not None),
        tpl_expno=cards.count("ESO TPL EXPNO", expected=False),
        setup=Setup(
            mode=cards.text("ESO INS MODE").replace("NONAO", "NOAO"),  # ESO's pipeline takes both spellings as one
            readout=cards.text("ESO DET READ CURNAME"),
            readout_id=cards.count("ESO DET READ CURID"),
            binx=cards.count("ESO DET BINX", 1),
            biny=cards.count("ESO DET BINY", 1),
            filter=cards.text("ESO INS OPTI1 NAME", expected=False),
            optics=cards.text("ESO INS OPTI2 NAME", expected=False),
        ),
        lamps=lamps,
        cards={keyword: header[keyword] for keyword in _CARDS if keyword in header},
        problems=tuple(cards.problems),
    )


def lit_lamps(header: Mapping[str, Value]) -> tuple[Lamp, ...]:
    """Return the lamps that are on and whose shutter is open; the keywords of lamps that are off may be absent."""
    return tuple(
        lamp
        for number, lamp in LAMP_NUMBERS.items()
        if header.get(f"ESO INS LAMP{number} ST") is True and header.get(f"ESO INS SHUT{number} ST") is True
    )


def _match(header: Mapping[str, Value], catg: str, type_: str) -> tuple[Tag, str]:
    instrument = header.get("INSTRUME", "")
    if instrument != INSTRUMENT:
        return Tag.UNKNOWN, f"INSTRUME is {instrument!r}, not {INSTRUMENT}."
    if "ESO PRO CATG" in header:
        return Tag.UNKNOWN, f"It is a product with PRO.CATG = {header['ESO PRO CATG']}, not a raw frame."
    for rule in RULES:
        if rule.matches(catg, type_):
            return rule.tag, str(rule)
    return Tag.UNKNOWN, f"No rule is for DPR.CATG = {catg!r} with DPR.TYPE = {type_!r}."


def _data_product_id(arcfile: str, name: str, date_obs: str) -> str:
    for text in (arcfile, name, f"{INSTRUMENT}.{date_obs}"):
        if found := _DP_ID.search(text):
            return found.group().replace("_", ":")
    try:
        return data_product_id(name)
    except ValueError:
        return ""


def _begin(cards: _Cards, dp_id: str) -> float:
    """Return MJD-OBS, otherwise the time of DATE-OBS or of the name."""
    mjd = cards.number("MJD-OBS", most=_MOST_DAYS)
    date_obs = _time(cards.text("DATE-OBS", expected=False))
    if mjd and date_obs and abs(mjd_of(date_obs) - mjd) * 86400 > _CLOCKS_AGREE:
        cards.problems.append(f"MJD-OBS = {mjd:.6f} and DATE-OBS = {date_obs:%Y-%m-%dT%H:%M:%S} are not the same time.")
    begin = date_obs or _time(dp_id.removeprefix(f"{INSTRUMENT}."))
    return mjd or (mjd_of(begin) if begin else 0.0)


def _time(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time
