"""The calibration plan as data: what is taken of each type, how often, in which settings, and by which template.

Sources: ESO's MUSE calibration page (P-CAL), ``muse_raw_frames.xml`` of the MUSE pipeline 2.8.7 (XML-R). How many
frames of a type are usual stands in the cascade.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from archive.night import night_ends
from archive.setup import Setup, SetupKey
from recipes.muse import Lamp
from tasks.cascade import STEPS, STEPS_BY_TAG, TARGETS, CascadeStep, Need, Tag

# Morning twilight is over at Paranal by then in every season: the sun rises at 11:28 UT at the latest, in July.
SUN_IS_UP = timedelta(hours=11, minutes=30)
# What is calibrated in a night without exposures on the sky; the only readout of P-CAL's statics and of real headers.
NOMINAL = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, optics="WFM")


class Phase(StrEnum):
    """When a calibration can be taken. Source: XML-R."""

    DAY = "day"
    TWILIGHT = "twilight"
    NIGHT = "night"


@dataclass(frozen=True, kw_only=True)
class PlannedCalibration:
    """One type of calibration as the plan has it.

    Parameters
    ----------
    tag : Tag
    keys : tuple of SetupKey
        One is taken for each of their values; those by which the cascade matches its products.
    serves : tuple of Tag
        For the settings of these frames. One with ``always`` is taken in every night, in the nominal setting if there
        are none of them.
    always : bool
    phase : Phase
    template : str
        ESO's template, with ``{field}`` for wfm or nfm.
    every : int
        Nights from one to the next.
    valid_before, valid_after : int
        Nights before and after its own for which it fulfils the plan.
    """

    tag: Tag
    keys: tuple[SetupKey, ...]
    serves: tuple[Tag, ...]
    always: bool = False
    phase: Phase
    template: str
    every: int = 1
    valid_before: int = 0
    valid_after: int = 0

    @property
    def step(self) -> CascadeStep | None:
        """The step that its frames go into; None where they go along with others."""
        return STEPS_BY_TAG.get(self.tag)

    @property
    def number(self) -> int:
        """Frames that are usual; a frame that goes along is a single one."""
        return self.step.usual if self.step else 1

    @property
    def lamps(self) -> tuple[Lamp, ...]:
        """Lamps that share the frames."""
        return self.step.lamps if self.step else ()

    @property
    def catgs(self) -> tuple[str, ...]:
        """PRO.CATG of its products, of those that another step or an exposure takes."""
        return tuple(catg for catg in self.step.makes if catg in NEEDED) if self.step else ()

    def setting(self, setup: Setup) -> Setup:
        """Return a setup with nothing but the keys that count here."""
        return Setup(**{key.value: setup.value(key) for key in self.keys})  # type: ignore[arg-type]  # mixed

    def template_for(self, setup: Setup) -> str:
        """Return the name of ESO's template in a setup."""
        return self.template.format(field="nfm" if setup.mode.startswith("NFM") else "wfm")

    def last_chance(self, night: date) -> datetime:
        """Return until when one can be taken that fulfils the plan for a night."""
        end = night_ends(night + timedelta(days=self.valid_before))
        return end if self.phase is Phase.DAY else datetime.combine(end, datetime.min.time(), end.tzinfo) + SUN_IS_UP


_CONSUMERS = (*((target.tag, target.needs) for target in TARGETS), *((step.raw, step.needs) for step in STEPS))
NEEDED = frozenset(need.catg for _, needs in _CONSUMERS for need in needs)
SCIENCE = (Tag.OBJECT, Tag.SKY, Tag.STD)  # a standard star is calibrated as a science frame is
_TARGETS = (Tag.OBJECT, Tag.SKY)
_READOUT = (SetupKey.READOUT,)
_MODE_READOUT = (SetupKey.MODE, SetupKey.READOUT)

# Frequency, phase, validity and template are those of XML-R; P-CAL calls the last two "about monthly", as XML-R does.
# XML-R says nothing of how often ILLUM is taken: once a night with science is the least.
CALIBRATION_PLAN = (
    PlannedCalibration(
        tag=Tag.BIAS, keys=_READOUT, serves=SCIENCE, always=True, phase=Phase.DAY, template="MUSE_cal_bias"
    ),
    PlannedCalibration(
        tag=Tag.DARK, keys=_READOUT, serves=SCIENCE, always=True, phase=Phase.DAY, template="MUSE_cal_dark",
        every=30, valid_after=62,
    ),
    PlannedCalibration(
        tag=Tag.FLAT, keys=_MODE_READOUT, serves=SCIENCE, phase=Phase.DAY, template="MUSE_{field}_cal_specflat"
    ),
    PlannedCalibration(
        tag=Tag.ARC, keys=_MODE_READOUT, serves=SCIENCE, phase=Phase.DAY, template="MUSE_{field}_cal_wave"
    ),
    PlannedCalibration(
        tag=Tag.ILLUM, keys=_READOUT, serves=SCIENCE, phase=Phase.NIGHT, template="MUSE_{field}_cal_illum"
    ),
    PlannedCalibration(
        tag=Tag.SKYFLAT, keys=_MODE_READOUT, serves=SCIENCE, phase=Phase.TWILIGHT, template="MUSE_{field}_cal_twilight",
        valid_before=1, valid_after=1,
    ),
    PlannedCalibration(
        tag=Tag.STD, keys=(SetupKey.MODE,), serves=_TARGETS, phase=Phase.NIGHT, template="MUSE_{field}_cal_std"
    ),
    PlannedCalibration(
        tag=Tag.ASTROMETRY, keys=(SetupKey.OPTICS,), serves=_TARGETS, always=True, phase=Phase.NIGHT,
        template="MUSE_{field}_cal_astrom", every=30, valid_before=1, valid_after=62,
    ),
    PlannedCalibration(
        tag=Tag.MASK, keys=(), serves=SCIENCE, always=True, phase=Phase.DAY, template="MUSE_wfm_cal_geometry",
        every=30, valid_after=60,
    ),
)  # fmt: skip
PLANNED_BY_TAG: Mapping[Tag, PlannedCalibration] = MappingProxyType({item.tag: item for item in CALIBRATION_PLAN})


def needs_by_catg(tags: tuple[Tag, ...]) -> Mapping[str, tuple[Need, ...]]:
    """Return what frames of these tags need, by PRO.CATG."""
    found: dict[str, tuple[Need, ...]] = {}
    for need in (need for tag, needs in _CONSUMERS if tag in tags for need in needs):
        found[need.catg] = (*found.get(need.catg, ()), need)
    return found
