"""Nights as the calibration plan has them, taken by a small world and held against the plan."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType

from small_night import MORNING, World

from archive.night import mjd_of, night_of
from archive.setup import Setup
from daemon.report import Ledger
from daemon.verdict import JudgedNight, judge_night
from recipes.muse import ARC_LAMPS, LAMP_NUMBERS
from recipes.recipe import Value
from tasks.cascade import Tag
from tasks.completeness import Calibration, Completeness, check
from tasks.inventory import take_stock

NIGHT = night_of(mjd_of(MORNING))  # 2026-06-16
DAY = timedelta(days=1)
NOAO, AO, EXTENDED = "WFM-NOAO-N", "WFM-AO-N", "WFM-NOAO-E"
# When the frames of a night are taken, before and after its morning biases; and how many there are.
HOURS: Mapping[Tag, float] = MappingProxyType(
    {
        Tag.SKYFLAT: -12.5, Tag.ILLUM: -9.4, Tag.OBJECT: -9, Tag.SKY: -8.5, Tag.ASTROMETRY: -7.5, Tag.STD: -1.2,
        Tag.BIAS: 0, Tag.FLAT: 1.5, Tag.ARC: 2, Tag.DARK: 4, Tag.MASK: 6.5,
    }
)  # fmt: skip
NUMBERS = {Tag.BIAS: 11, Tag.DARK: 5, Tag.FLAT: 11, Tag.ARC: 15, Tag.SKYFLAT: 4, Tag.MASK: 80}
NIGHTLY = (Tag.SKYFLAT, Tag.ILLUM, Tag.OBJECT, Tag.STD, Tag.BIAS, Tag.FLAT, Tag.ARC)
# No two frames have the same time.
LATER = {NOAO: timedelta(), AO: timedelta(seconds=10), EXTENDED: timedelta(seconds=20)}


def take(
    world: World, tag: Tag, night: date = NIGHT, mode: str = NOAO, *,
    numbers: Sequence[int] = (), readout: str = "SCI1.0", version: int = 1, later: timedelta = timedelta(),
) -> None:  # fmt: skip
    """Let the frames of one template come, of some numbers only if they are given."""
    count = NUMBERS.get(tag, 1)
    start = MORNING + (night - NIGHT) + timedelta(hours=HOURS[tag]) + LATER[mode] + later
    for number in numbers or range(1, count + 1):
        cards: dict[str, Value] = {"ESO INS MODE": mode, "ESO INS OPTI2 NAME": "WFM", "ESO DET READ CURNAME": readout}
        if tag in (Tag.OBJECT, Tag.SKY):
            cards["ESO DPR CATG"] = "SCIENCE"
        if tag is Tag.ARC:
            lamp = ARC_LAMPS[(number - 1) // 5]
            [lit] = [place for place, name in LAMP_NUMBERS.items() if name is lamp]
            cards |= {f"ESO INS LAMP{lit} ST": True, f"ESO INS SHUT{lit} ST": True}
        world.arrive(tag, start, number, count, cards=cards, version=version)


def take_night(world: World, night: date = NIGHT, modes: Sequence[str] = (NOAO,), without: Sequence[Tag] = ()) -> None:
    """Let a whole night come, of all that is taken nightly."""
    for mode in modes:
        for tag in NIGHTLY:
            if tag not in without and (tag not in (Tag.BIAS, Tag.ILLUM) or mode == modes[0]):
                take(world, tag, night, mode)


def add_statics(world: World) -> None:
    """Let there be what the steps need beside frames, and the monthly types as if they were taken ten nights ago."""
    for catg in ("LINE_CATALOG", "EXTINCT_TABLE", "STD_FLUX_TABLE"):
        world.static(catg, date(2014, 1, 1))
    for setup in (Setup(optics="WFM"),):
        world.static("GEOMETRY_TABLE", NIGHT - 10 * DAY, setup=setup)
        world.static("ASTROMETRY_WCS", NIGHT - 10 * DAY, setup=setup)
    take(world, Tag.DARK, NIGHT - 10 * DAY)
    take(world, Tag.BIAS, NIGHT - 10 * DAY)


def checked(world: World, nights: Sequence[date] = (NIGHT,), *, level: int = 1) -> tuple[Completeness, ...]:
    """Hold nights against the plan, at the time of the world."""
    with world.registry.read() as session:
        return check(take_stock(session, nights[0], nights[-1], level=level), nights, world.now, level=level)


def calibration(world: World, tag: Tag, night: date = NIGHT, mode: str = "") -> Calibration:
    """How one type of calibration stands."""
    [completeness] = checked(world, [night])
    [found] = [
        item for item in completeness.calibrations if item.tag is tag and mode in ("", item.setting.mode)
    ]  # fmt: skip
    return found


def judged(world: World, night: date = NIGHT) -> JudgedNight:
    """The verdict on a night, as if its ledger balanced."""
    with world.registry.read() as session:
        inventory = take_stock(session, night, night, level=1)
    [completeness] = check(inventory, [night], world.now, level=1)
    return judge_night(
        completeness,
        groups=[group for group in inventory.groups if group.night == night],
        outside=[product for product in inventory.outside if product.night == night],
        ledger=Ledger(entries=(), orphans=()),
    )
