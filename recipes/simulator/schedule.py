"""What is exposed when: the templates of a night, as taken at Paranal in June 2017."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import partial
from types import MappingProxyType

from recipes.muse import ARC_LAMPS, Lamp
from recipes.simulator.headers import Exposure
from recipes.simulator.lines import ARC_EXPTIME
from recipes.simulator.pointing import zenith
from recipes.simulator.scenes import Arc, Continuum

CONTINUUM_LAMPS = (Lamp.CONTINUUM_BLUE, Lamp.CONTINUUM_RED)
FLAT_EXPTIME = 1.155  # s; real flats


class Sequence(StrEnum):
    """What a night can hold."""

    BIAS = "bias"
    DARK = "dark"
    FLAT = "flat"
    ARC = "arc"
    ILLUM = "illum"
    SKYFLAT = "skyflat"
    STD = "std"
    ASTROMETRY = "astrometry"
    MASK = "mask"
    OBJECT = "object"
    SKY = "sky"


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template: its exposures follow each other from its start.

    Parameters
    ----------
    sequence : Sequence
    starts : timedelta
        After 0 h UT of the date on which the night begins.
    category, type, template, stem, block, target : str
        As in ``Exposure``; ``template`` and ``stem`` with WFM in place of the field.
    exptimes : tuple of float
        Seconds, one an exposure.
    cadence : float
        Seconds from the end of one exposure to the start of the next.
    setting : callable
        Returns what else an exposure has, from its mode, its number (0, 1, ...) and its start.
    """

    sequence: Sequence
    starts: timedelta
    category: str
    type: str
    template: str
    stem: str
    block: str
    exptimes: tuple[float, ...]
    cadence: float
    setting: Callable[[Exposure], Exposure]
    target: str = ""


def _closed(exposure: Exposure) -> Exposure:
    return exposure


def _lit(exposure: Exposure) -> Exposure:
    return replace(exposure, lamps=CONTINUUM_LAMPS, scene=Continuum(exposure.mode))


def _arc(exposure: Exposure) -> Exposure:
    lamp = ARC_LAMPS[(exposure.index - 1) * len(ARC_LAMPS) // exposure.count]
    return replace(exposure, lamps=(lamp,), scene=Arc((lamp,), exposure.mode))


def _at(hours: int, minutes: int, seconds: int = 0) -> timedelta:
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


_calibration = partial(Template, category="CALIB", block="Calibrations")
TEMPLATES: Mapping[int, Template] = MappingProxyType(
    {
        10: _calibration(
            sequence=Sequence.BIAS, starts=_at(34, 40, 27), type="BIAS", template="MUSE_cal_bias", stem="MUSE_CAL_BIAS",
            exptimes=(0.0,) * 11, cadence=69, setting=_closed,
        ),
        11: _calibration(
            sequence=Sequence.FLAT, starts=_at(36, 15, 46), type="FLAT,LAMP", template="MUSE_WFM_cal_specflat",
            stem="MUSE_WFM_FLAT", exptimes=(FLAT_EXPTIME,) * 11, cadence=69, setting=_lit,
        ),
        12: _calibration(
            sequence=Sequence.ARC, starts=_at(36, 32, 3), type="WAVE", template="MUSE_WFM_cal_wave",
            stem="MUSE_WFM_WAVE", exptimes=tuple(ARC_EXPTIME[lamp] for lamp in ARC_LAMPS for _ in range(5)),
            cadence=80, setting=_arc,
        ),
        13: _calibration(
            sequence=Sequence.DARK, starts=_at(38, 0, 0), type="DARK", template="MUSE_cal_dark", stem="MUSE_CAL_DARK",
            block="DARKS_S_5x1800s", exptimes=(1800.0,) * 5, cadence=69, setting=_closed,
        ),
    }
)  # fmt: skip


def night_exposures(night: date, mode: str, sequences: tuple[Sequence, ...]) -> tuple[Exposure, ...]:
    """Return the exposures of the sequences in order of time."""
    midnight = datetime.combine(night, time(), UTC)
    chosen = [(number, template) for number, template in TEMPLATES.items() if template.sequence in sequences]
    chosen.sort(key=lambda item: item[1].starts)
    return tuple(exposure for number, template in chosen for exposure in _exposures(number, template, midnight, mode))


def _exposures(number: int, template: Template, midnight: datetime, mode: str) -> list[Exposure]:
    field, start = mode[:3], midnight + template.starts
    begins, made = start + timedelta(seconds=14), []
    for index, exptime in enumerate(template.exptimes, start=1):
        exposure = Exposure(
            number=100 * number + index,
            category=template.category,
            type=template.type,
            template=template.template.replace("WFM", field.lower()),
            template_start=start,
            start=begins.replace(microsecond=0),
            index=index,
            count=len(template.exptimes),
            exptime=exptime,
            stem=template.stem.replace("WFM", field),
            file_number=index,
            target=template.target or template.type,
            block=template.block,
            mode=mode,
            pointing=zenith(begins),
        )
        made.append(template.setting(exposure))
        begins += timedelta(seconds=exptime + template.cadence)
    return made
