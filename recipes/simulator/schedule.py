"""What is exposed when: the templates of a night, as taken at Paranal in June 2017."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import partial
from types import MappingProxyType

from recipes.muse import ARC_LAMPS, Lamp
from recipes.simulator.celestial import MASK_ZERO, NightSky, Pinholes, Twilight
from recipes.simulator.headers import Exposure
from recipes.simulator.lines import ARC_EXPTIME
from recipes.simulator.pointing import Pointing, airmass, parallactic_angle, zenith
from recipes.simulator.scenes import Arc, Continuum
from recipes.simulator.stars import FIELDS, STANDARDS, Star, Target, field_stars, highest

CONTINUUM_LAMPS = (Lamp.CONTINUUM_BLUE, Lamp.CONTINUUM_RED)
FLAT_EXPTIME = 1.155  # s; real flats
SKYFLAT_EXPTIMES = (7.63, 9.47, 11.46, 14.36)  # s; real ones, longer as the sky darkens
SEEING = 0.8  # arcsec
MASK_STEP = 0.0125  # mm; 80 steps carry a row of holes over every slice once at least
STANDARD_PLACE = (8.0, -5.5)  # field pixels; the middle of channel 12, so that few channels hold the whole star


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


def _twilight(exposure: Exposure) -> Exposure:
    return replace(exposure, scene=Twilight(exposure.mode, exposure.exptime))


def _mask(exposure: Exposure) -> Exposure:
    stage = round(MASK_ZERO + (exposure.index - 40) * MASK_STEP, 4)
    lamps = (Lamp.NEON, Lamp.MERCURY_CADMIUM)
    return replace(
        exposure,
        lamps=lamps,
        scene=Pinholes(lamps, exposure.mode, stage),
        mask="MultiP",
        mask_position=stage,
        pointing=replace(exposure.pointing, position_angle=90.0),
    )


def _standard(exposure: Exposure) -> Exposure:
    star = highest(STANDARDS, exposure.start)
    stars = (Star(magnitude=star.magnitude, temperature=star.temperature),)
    return _on_sky(exposure, star, stars, STANDARD_PLACE)


def _astrometry(exposure: Exposure) -> Exposure:
    field = highest(FIELDS, exposure.start)
    return _on_sky(exposure, field, field_stars(field))


def _science(exposure: Exposure) -> Exposure:
    overhead = zenith(exposure.start)
    target = Target(name=exposure.target, ra=(overhead.ra + 5) % 360, dec=-30.0)
    return _on_sky(exposure, target, (Star(magnitude=16.0, temperature=4800.0, x=-30.0, y=-4.0),))


def _empty_sky(exposure: Exposure) -> Exposure:
    overhead = zenith(exposure.start)
    return _on_sky(exposure, Target(name=exposure.target, ra=(overhead.ra + 5) % 360, dec=-31.0), ())


def _on_sky(
    exposure: Exposure, target: Target, stars: tuple[Star, ...], middle: tuple[float, float] = (0.0, 0.0)
) -> Exposure:
    pointing = Pointing(ra=target.ra, dec=target.dec, seeing=SEEING)
    centre = exposure.start + timedelta(seconds=exposure.exptime / 2)
    scene = NightSky(
        mode=exposure.mode,
        airmass=airmass(pointing, centre),
        parallactic_angle=parallactic_angle(pointing, centre),
        seeing=SEEING,
        stars=stars,
        middle=middle,
    )
    named = target.name if exposure.target == exposure.type else exposure.target
    return replace(exposure, pointing=pointing, scene=scene, target=named)


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
        14: _calibration(
            sequence=Sequence.SKYFLAT, starts=_at(22, 4, 55), type="FLAT,SKY", template="MUSE_WFM_cal_twilight",
            stem="MUSE_WFM_SKYFLAT", block="Twilight-N", exptimes=SKYFLAT_EXPTIMES, cadence=70, setting=_twilight,
        ),
        **{
            number: _calibration(
                sequence=Sequence.ILLUM, starts=starts, type="FLAT,LAMP,ILLUM", template="MUSE_WFM_cal_illum",
                stem="MUSE_WFM_ILLUM", block="muocal_wfm_illumination", exptimes=(FLAT_EXPTIME,), cadence=69,
                setting=_lit,
            )
            for number, starts in ((15, _at(22, 12)), (16, _at(25, 24, 12)), (17, _at(33, 26)))
        },
        18: Template(
            sequence=Sequence.OBJECT, starts=_at(25, 34, 8), category="SCIENCE", type="OBJECT",
            template="MUSE_WFM_obs_genericoffset", stem="MUSE_WFM_OBS", block="blank field", target="blank field",
            exptimes=(300.0,) * 2, cadence=70, setting=_science,
        ),
        19: Template(
            sequence=Sequence.SKY, starts=_at(25, 47), category="SCIENCE", type="SKY",
            template="MUSE_WFM_obs_genericoffset", stem="MUSE_WFM_OBS", block="blank field", target="blank field",
            exptimes=(120.0,), cadence=70, setting=_empty_sky,
        ),
        20: _calibration(
            sequence=Sequence.ASTROMETRY, starts=_at(27, 0), type="ASTROMETRY", template="MUSE_WFM_cal_astrom",
            stem="MUSE_WFM_ASTROMETRY", block="Astrometry", exptimes=(30.0,), cadence=70, setting=_astrometry,
        ),
        21: _calibration(
            sequence=Sequence.STD, starts=_at(33, 31, 18), type="STD", template="MUSE_WFM_cal_std",
            stem="MUSE_WFM_STD", block="STD", exptimes=(120.0,), cadence=70, setting=_standard,
        ),
        22: _calibration(
            sequence=Sequence.MASK, starts=_at(41, 0), type="WAVE,MASK", template="MUSE_WFM_cal_geometry",
            stem="MUSE_WFM_MASK", exptimes=(30.0,) * 80, cadence=75, setting=_mask,
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
