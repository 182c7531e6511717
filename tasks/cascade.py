"""The cascade as data: how raw frames are told apart, and what is made of them with what.

A new calibration type is one rule and one step here. Sources: ESO MUSE pipeline 2.8.7, ``muse_wkf.oca`` (OCA-W),
``muse_raw_frames.xml`` (XML-R), recipe manual pages (MAN), and ESO's MUSE calibration page (P-CAL).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from archive.naming import STATIC_CODES
from archive.select import Level
from archive.setup import SetupKey
from recipes.astrometry import RECIPE as MUSE_ASTROMETRY
from recipes.bias import RECIPE as MUSE_BIAS
from recipes.dark import RECIPE as MUSE_DARK
from recipes.flat import RECIPE as MUSE_FLAT
from recipes.geometry import RECIPE as MUSE_GEOMETRY
from recipes.lsf import RECIPE as MUSE_LSF
from recipes.muse import ARC_LAMPS, Lamp
from recipes.recipe import Recipe
from recipes.standard import RECIPE as MUSE_STANDARD
from recipes.twilight import RECIPE as MUSE_TWILIGHT
from recipes.wavecal import RECIPE as MUSE_WAVECAL


class Tag(StrEnum):
    """What a raw frame is to the pipeline. Source: MAN, OCA-W."""

    BIAS = "BIAS"
    DARK = "DARK"
    FLAT = "FLAT"
    ILLUM = "ILLUM"
    ARC = "ARC"
    ARC_LSF = "ARC_LSF"
    MASK = "MASK"
    SKYFLAT = "SKYFLAT"
    STD = "STD"
    ASTROMETRY = "ASTROMETRY"
    SKY = "SKY"
    OBJECT = "OBJECT"
    DETMON_LAMP_OFF = "DETMON_LAMP_OFF"
    DETMON_LAMP_ON = "DETMON_LAMP_ON"
    AMPL = "AMPL"
    TECHNICAL = "TECHNICAL"
    ACQUISITION = "ACQUISITION"
    TEST = "TEST"
    UNKNOWN = "UNKNOWN"  # no rule matched; kept and listed


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One classification rule on DPR.CATG and DPR.TYPE.

    Parameters
    ----------
    tag : Tag
    catg : tuple of str
        DPR.CATG is one of these.
    type : str
        DPR.TYPE is exactly this; '' where the words below decide.
    words, without : tuple of str
        DPR.TYPE contains every one of ``words`` and none of ``without``.
    """

    tag: Tag
    catg: tuple[str, ...]
    type: str = ""
    words: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def matches(self, catg: str, type_: str) -> bool:
        """Return whether a frame of this DPR.CATG and DPR.TYPE falls under the rule."""
        return (
            catg in self.catg
            and self.type in ("", type_)
            and all(word in type_ for word in self.words)
            and not any(word in type_ for word in self.without)
        )

    def __str__(self) -> str:
        conditions = [f"DPR.CATG is {' or '.join(self.catg)}"]
        if self.type:
            conditions.append(f"DPR.TYPE is {self.type}")
        conditions += [f"DPR.TYPE contains {word}" for word in self.words]
        conditions += [f"DPR.TYPE does not contain {word}" for word in self.without]
        return f"{self.tag}: {', '.join(conditions)}"


_CALIB = ("CALIB",)
# OCA lets the last rule that matches win; here every frame matches one rule at most, so that their order says nothing.
# FLAT is matched exactly, since FLAT,LAMP,ILLUM and FLAT,LAMP,THRUPUT contain its words too; WAVE likewise.
RULES = (
    Rule(tag=Tag.BIAS, catg=_CALIB, type="BIAS"),
    Rule(tag=Tag.DARK, catg=_CALIB, type="DARK"),
    Rule(tag=Tag.FLAT, catg=_CALIB, type="FLAT,LAMP"),
    Rule(tag=Tag.ILLUM, catg=_CALIB, type="FLAT,LAMP,ILLUM"),
    Rule(tag=Tag.ARC, catg=_CALIB, type="WAVE"),
    Rule(tag=Tag.ARC_LSF, catg=_CALIB, type="WAVE,LSF"),
    Rule(tag=Tag.MASK, catg=_CALIB, type="WAVE,MASK"),
    Rule(tag=Tag.SKYFLAT, catg=_CALIB, type="FLAT,SKY"),
    Rule(tag=Tag.STD, catg=_CALIB, type="STD"),
    Rule(tag=Tag.ASTROMETRY, catg=_CALIB, type="ASTROMETRY"),
    Rule(tag=Tag.SKY, catg=("CALIB", "SCIENCE"), type="SKY"),
    Rule(tag=Tag.OBJECT, catg=("SCIENCE",), type="OBJECT"),
    Rule(tag=Tag.OBJECT, catg=_CALIB, words=("TELLU",), without=("DETCHECK", "DETCHAR")),  # OCA-W: telluric stars
    Rule(tag=Tag.DETMON_LAMP_OFF, catg=_CALIB, words=("BIAS", "DETCHECK"), without=("DETCHAR",)),
    Rule(tag=Tag.DETMON_LAMP_ON, catg=_CALIB, words=("LINEARITY", "FLAT", "DETCHAR")),
    Rule(tag=Tag.AMPL, catg=("TECHNICAL",), type="FLAT,LAMP,THRUPUT"),
    Rule(tag=Tag.TECHNICAL, catg=("TECHNICAL",), without=("FLAT,LAMP,THRUPUT",)),
    Rule(tag=Tag.ACQUISITION, catg=("ACQUISITION",)),
    Rule(tag=Tag.TEST, catg=("TEST",)),
)


@dataclass(frozen=True, kw_only=True)
class Need:
    """A calibration product that a step takes: the closest in time of the best level, with equal setup keys.

    Parameters
    ----------
    catg : str
        PRO.CATG.
    match : tuple of SetupKey
        Keys that must be equal.
    levels : tuple of Level
        Reach in days, best level first: 0 calibration plan, 1 sufficient, 2 acceptable, 3 risky.
    optional : bool
        The step runs without it too.
    response : int, optional
        Version of an STD_RESPONSE that the recipe can use.
    of_pair : bool
        It is the one that the other step of the pair made, never another one.
    """

    catg: str
    match: tuple[SetupKey, ...] = ()
    levels: tuple[Level, ...]
    optional: bool = False
    response: int | None = None
    of_pair: bool = False

    @property
    def until(self) -> float:
        """Only exposures before this Modified Julian Date take it."""
        return STATIC_CODES[self.catg].until if self.catg in STATIC_CODES else math.inf

    @property
    def beside_statics(self) -> bool:
        """Whether it may come as a static calibration too."""
        return self.catg in STATIC_CODES


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A single raw frame of another tag that goes with each group: the closest in time, never required.

    Parameters
    ----------
    tag : Tag
    match : tuple of SetupKey
    hours : float
        Greatest distance in time.
    kelvin : float
        Greatest difference of the ambient temperature.
    """

    tag: Tag
    match: tuple[SetupKey, ...]
    hours: float
    kelvin: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What a group is processed together with, and never without: the closest in time of another tag.

    Parameters
    ----------
    tag : Tag
    days : float
        Greatest distance in time.
    """

    tag: Tag
    days: float


@dataclass(frozen=True, kw_only=True)
class CascadeStep:
    """One step of the cascade.

    Parameters
    ----------
    name : str
    raw : Tag
        Frames of this tag, grouped by template, are its input.
    substitutes : tuple of Tag
        Frames of these tags, which have a step of their own, serve too where ``plan.lsf_from_arcs`` is set.
    recipe : Recipe or str
        The recipe, or ESO's name for one that we do not have yet.
    usual : int
        Frames in a template as the calibration plan has it.
    minimum : int
        Frames that it cannot do without.
    lamps : tuple of Lamp
        Every one of these must light an equal share of the frames.
    needs : tuple of Need
    companions : tuple of Companion
    makes : tuple of str
        PRO.CATG of its products.
    statics : tuple of str
        Those of them that are archived as static calibrations, valid from the day of their frames on.
    pair : Pair, optional
    """

    name: str
    raw: Tag
    recipe: Recipe | str
    usual: int
    minimum: int
    substitutes: tuple[Tag, ...] = ()
    lamps: tuple[Lamp, ...] = ()
    needs: tuple[Need, ...] = ()
    companions: tuple[Companion, ...] = ()
    makes: tuple[str, ...]
    statics: tuple[str, ...] = ()
    pair: Pair | None = None

    @property
    def recipe_name(self) -> str:
        """ESO's name of the recipe."""
        return self.recipe if isinstance(self.recipe, str) else self.recipe.name


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is wanted for a raw frame that no step reduces: it is handed out with it, for ESO's recipes.

    Parameters
    ----------
    tag : Tag
    needs : tuple of Need
        An optional one does not make the answer incomplete.
    companions : tuple of Companion
    """

    tag: Tag
    needs: tuple[Need, ...]
    companions: tuple[Companion, ...] = ()


_READOUT = (SetupKey.READOUT,)
_READOUT_ID = (SetupKey.MODE, SetupKey.READOUT_ID)
_MODE = (SetupKey.MODE,)
_MODE_READOUT = (SetupKey.MODE, SetupKey.READOUT)

# Level 0 is the rhythm of the calibration plan (XML-R: daily, monthly, every twilight), level 1 the window of OCA-W
# where that is wider. Levels 2 and 3 are our own choice.
_DAILY = (Level(1.0, 0), Level(3.0, 1), Level(7.0, 2), Level(30.0, 3))
_DARKS = (Level(5.0, 0), Level(31.0, 1), Level(62.0, 2), Level(365.0, 3))
_TWILIGHTS = (Level(1.0, 0), Level(30.0, 1), Level(62.0, 2), Level(183.0, 3))
_TELLURICS = _DAILY  # OCA-W: one day
# Of responses made from frames: OCA-W sets no window; the reach of 5 days is that of the MUSE consortium.
_RESPONSES = (Level(1.0, 0), Level(5.0, 1), Level(30.0, 2), Level(365.0, 3))
_STATIC = (Level(math.inf, 0),)  # the newest that is valid from before the exposure


def _static(catg: str, *, match: tuple[SetupKey, ...] = (), optional: bool = False) -> Need:
    return Need(catg=catg, match=match, levels=_STATIC, optional=optional)


_BIAS = Need(catg="MASTER_BIAS", match=_READOUT, levels=_DAILY)
_DARK = Need(catg="MASTER_DARK", match=_READOUT, levels=_DARKS, optional=True)
_FLAT = Need(catg="MASTER_FLAT", match=_MODE_READOUT, levels=_DAILY)
_FLAT_OPTIONAL = Need(catg="MASTER_FLAT", match=_MODE_READOUT, levels=_DAILY, optional=True)
_TRACE = Need(catg="TRACE_TABLE", match=_MODE_READOUT, levels=_DAILY)
_WAVECAL = Need(catg="WAVECAL_TABLE", match=_MODE_READOUT, levels=_DAILY)
_WAVECAL_BY_ID = Need(catg="WAVECAL_TABLE", match=_READOUT_ID, levels=_DAILY)  # OCA-W compares CURID here
_TWILIGHT = Need(catg="TWILIGHT_CUBE", match=_MODE_READOUT, levels=_TWILIGHTS, optional=True)
_BADPIX = _static("BADPIX_TABLE", optional=True)
_LINES = _static("LINE_CATALOG")
_GEOMETRY = _static("GEOMETRY_TABLE")
_EXTINCTION = _static("EXTINCT_TABLE")
# Geometry and astrometry are taken about monthly (P-CAL), so that within half a month of a group only one is its own.
_PAIR_DAYS = 15.0
# OCA-W allows half a day; the lamp flat follows the temperature, so that the reach is that of the MUSE consortium.
_ILLUM = Companion(tag=Tag.ILLUM, match=_READOUT, hours=2.0, kelvin=1.0)

STEPS = (
    CascadeStep(
        name="bias", raw=Tag.BIAS, recipe=MUSE_BIAS, usual=11, minimum=3,
        needs=(_BADPIX,),
        makes=("MASTER_BIAS",),
    ),
    CascadeStep(
        name="dark", raw=Tag.DARK, recipe=MUSE_DARK, usual=5, minimum=3,
        needs=(_BIAS, _BADPIX),
        makes=("MASTER_DARK",),
    ),
    CascadeStep(
        name="flat", raw=Tag.FLAT, recipe=MUSE_FLAT, usual=11, minimum=3,
        needs=(_BIAS, _DARK, _BADPIX),
        makes=("MASTER_FLAT", "TRACE_TABLE"),
    ),
    CascadeStep(
        name="wavecal", raw=Tag.ARC, recipe=MUSE_WAVECAL, usual=15, minimum=9, lamps=ARC_LAMPS,
        needs=(_BIAS, _DARK, _FLAT_OPTIONAL, _TRACE, _LINES, _BADPIX),
        makes=("WAVECAL_TABLE",),
    ),
    CascadeStep(
        name="lsf", raw=Tag.ARC_LSF, substitutes=(Tag.ARC,), recipe=MUSE_LSF, usual=45, minimum=9, lamps=ARC_LAMPS,
        needs=(_BIAS, _DARK, _FLAT_OPTIONAL, _TRACE, _WAVECAL_BY_ID, _LINES, _BADPIX),
        makes=("LSF_PROFILE",),
    ),
    CascadeStep(
        name="geometry", raw=Tag.MASK, recipe=MUSE_GEOMETRY, usual=80, minimum=50,
        needs=(_BIAS, _DARK, _FLAT_OPTIONAL, _TRACE, _WAVECAL, _LINES, _BADPIX),
        makes=("SPOTS_TABLE", "GEOMETRY_UNSMOOTHED", "GEOMETRY_TABLE"),
        statics=("GEOMETRY_TABLE",),
        pair=Pair(tag=Tag.ASTROMETRY, days=_PAIR_DAYS),
    ),
    CascadeStep(
        name="twilight", raw=Tag.SKYFLAT, recipe=MUSE_TWILIGHT, usual=3, minimum=3,  # P-CAL: 3 or more
        needs=(
            _BIAS, _DARK, _FLAT, _TRACE, _WAVECAL_BY_ID, _GEOMETRY, _BADPIX,
            _static("VIGNETTING_MASK", optional=True),
        ),
        companions=(_ILLUM,),
        makes=("DATACUBE_SKYFLAT", "TWILIGHT_CUBE"),
    ),
    CascadeStep(
        name="standard", raw=Tag.STD, recipe=MUSE_STANDARD, usual=1, minimum=1,
        needs=(
            _BIAS, _DARK, _FLAT, _TRACE, _WAVECAL, _TWILIGHT, _GEOMETRY, _EXTINCTION, _static("STD_FLUX_TABLE"),
            _BADPIX, _static("TELLURIC_REGIONS", optional=True), _static("FILTER_LIST", optional=True),
        ),
        companions=(_ILLUM,),
        makes=("DATACUBE_STD", "STD_FLUXES", "STD_RESPONSE", "STD_TELLURIC"),
    ),
    CascadeStep(
        name="astrometry", raw=Tag.ASTROMETRY, recipe=MUSE_ASTROMETRY, usual=1, minimum=1,
        needs=(
            _BIAS, _DARK, _FLAT, _TRACE, _WAVECAL, _TWILIGHT, _static("ASTROMETRY_REFERENCE"), _BADPIX,
            Need(catg="GEOMETRY_TABLE", levels=_STATIC, of_pair=True),
            _static("EXTINCT_TABLE", optional=True),
            Need(catg="STD_RESPONSE", match=_MODE, levels=_RESPONSES, optional=True, response=2),
            Need(catg="STD_TELLURIC", match=_MODE, levels=_TELLURICS, optional=True),
        ),
        companions=(_ILLUM,),
        makes=("ASTROMETRY_WCS", "DATACUBE_ASTROMETRY"),
        statics=("ASTROMETRY_WCS",),
        pair=Pair(tag=Tag.MASK, days=_PAIR_DAYS),
    ),
)  # fmt: skip
# What muse_scibasic and muse_scipost take. OCA-W: an illumination flat of a science frame lies within a day.
_SCIENCE = (
    _BIAS, _FLAT, _TRACE, _WAVECAL, _TWILIGHT, _GEOMETRY, _BADPIX, _static("VIGNETTING_MASK", optional=True),
    Need(catg="LSF_PROFILE", match=_MODE_READOUT, levels=_DAILY),
    Need(catg="STD_RESPONSE", match=_MODE, levels=_RESPONSES, response=2),
    Need(catg="STD_TELLURIC", match=_MODE, levels=_TELLURICS, optional=True),
    _static("ASTROMETRY_WCS", match=(SetupKey.OPTICS,), optional=True), _EXTINCTION,
    _static("SKY_LINES"), _static("FILTER_LIST", optional=True),
)  # fmt: skip
TARGETS = tuple(
    Target(tag=tag, needs=_SCIENCE, companions=(replace(_ILLUM, hours=24.0),)) for tag in (Tag.OBJECT, Tag.SKY)
)
TARGETS_BY_TAG: Mapping[Tag, Target] = MappingProxyType({target.tag: target for target in TARGETS})
STEPS_BY_NAME: Mapping[str, CascadeStep] = MappingProxyType({step.name: step for step in STEPS})
STEPS_BY_TAG: Mapping[Tag, CascadeStep] = MappingProxyType({step.raw: step for step in STEPS})
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {step.recipe.name: step.recipe for step in STEPS if isinstance(step.recipe, Recipe)}
)


def steps_of(tag: Tag) -> tuple[CascadeStep, ...]:
    """Return the steps that frames of a tag can go into, their own first."""
    return tuple(sorted((s for s in STEPS if tag in (s.raw, *s.substitutes)), key=lambda step: step.raw is not tag))


def recipe_of(name: str) -> Recipe:
    """Return the recipe of ESO's name, ``muse_bias``.

    Raises
    ------
    LookupError
        There is none of that name yet.
    """
    if name not in RECIPES:
        raise LookupError(f"there is no recipe {name} yet; there are {', '.join(sorted(RECIPES))}.")
    return RECIPES[name]
