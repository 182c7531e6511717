"""Recipes that do what a recipe should not; each is the bias recipe but for that."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import tasks.cascade
from recipes.bias import RECIPE
from recipes.fits import AbsentChannel, DeadChannel
from recipes.recipe import (
    Channel,
    Column,
    Extensions,
    Instrument,
    Keyword,
    Measurement,
    Plane,
    Product,
    Recipe,
    RecipeError,
    Result,
    Table,
)

FLAG = "MUSECAL_TEST_FLAG"  # of the environment: a file that says whether something has happened before
GREED = 1200 << 20  # bytes that the greedy recipe asks for


def _do(deed: Callable[[Channel], object]) -> Callable[[Channel, Any], Result]:
    def reduce(channel: Channel, params: Any) -> Result:  # noqa: ANN401
        deed(channel)
        return RECIPE.reduce(channel, params)

    return reduce


def _refuse(channel: Channel) -> None:
    raise RecipeError(f"The level of channel {channel.number} is 7 adu, 500 are needed; is it on?", level=7.0)


def _blunder(channel: Channel) -> None:
    raise ZeroDivisionError(f"in channel {channel.number}")


def _die(channel: Channel) -> None:
    os.kill(os.getpid(), signal.SIGKILL * (channel.number == 1))


def _die_once(channel: Channel) -> None:
    flag = Path(os.environ[FLAG])
    if channel.number == 1 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _want_memory(_: Channel) -> None:
    np.ones(GREED, np.uint8)


def _take_time(_: Channel) -> None:
    time.sleep(0.5)


def _take_for_ever(_: Channel) -> None:
    while True:
        time.sleep(0.01)


def _hang_in_compiled_code(_: Channel) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.CDLL(None).poll(None, 0, -1)


def _be_dead(channel: Channel) -> None:
    if channel.number == 2:
        raise DeadChannel("The detector of channel 2 is off (DET CHIP LIVE = F).")


def _lack_calibration(channel: Channel) -> None:
    if channel.number == 2:
        raise AbsentChannel("MASTER_BIAS.fits has no extension CHAN02.DATA; give a product that has channel 2.")


_DEEDS: Mapping[str, Callable[[Channel], object]] = {
    "refuses": _refuse,
    "blunders": _blunder,
    "dies": _die,
    "dies once": _die_once,
    "wants memory": _want_memory,
    "takes time": _take_time,
    "takes for ever": _take_for_ever,
    "hangs": _hang_in_compiled_code,
    "is dead": _be_dead,
    "lacks a calibration": _lack_calibration,
}


def _give_levels(channel: Channel, _: Any) -> Result:  # noqa: ANN401
    """The first half of a recipe of the whole instrument: the mean level of each frame of the channel."""
    if channel.number == 2 and os.environ.get(FLAG):
        _refuse(channel)
    stack = channel.stacks["BIAS"]
    levels = [float(stack.rows(frame, 0, 8).mean()) for frame in range(len(stack.exposures))]
    column = Column(name="level", values=np.array(levels), unit="adu")
    return Result((Product(catg="PIXTABLE_STD", number=1, content=Table(columns=(column,))),))


def _join_levels(instrument: Instrument, _: Any) -> Result:  # noqa: ANN401
    """The second half: a cube of two planes, (frames, channels) of levels and their mean."""
    tables = [files["PIXTABLE_STD_0001"].tables[0].table for files in instrument.channels.values()]
    cube = instrument.allocate((2, len(tables[0]["level"]), len(tables)), np.float32)
    cube[0:1] = np.array([[table["level"] for table in tables]]).transpose(0, 2, 1)
    cube[1:2] = cube[0:1].mean()
    plane = Plane(name="DATA", values=cube, unit="adu", keywords=(Keyword("CTYPE3", "AWAV"),))
    names = tuple(exposure.name for exposure in instrument.exposures["BIAS"])
    product = Product(
        catg="TWILIGHT_CUBE",
        content=Extensions((plane,)),
        measurements=(Measurement("TWILIGHT LEVEL", float(cube[0:1].mean()), "[adu] mean level"),),
    )
    return Result((product,), (f"{len(names)} frames of {len(tables)} channels were joined.",))


JOINS = Recipe(
    name="joins",
    version="1",
    raw=("BIAS",),
    minimum=3,
    makes=("TWILIGHT_CUBE",),
    params=RECIPE.params,
    reduce=_give_levels,
    combine=_join_levels,
    intermediate=("PIXTABLE_STD",),
)


def _give_nothing(channel: Channel, _: Any) -> Result:  # noqa: ANN401
    """The first half of a pair's step."""
    column = Column(name="channel", values=np.array([channel.number], np.int32))
    return Result((Product(catg="PIXTABLE_STD", number=1, content=Table(columns=(column,))),))


def _place_slices(instrument: Instrument, _: Any) -> Result:  # noqa: ANN401
    """The second half: where each slice looks, all at the same place."""
    rows = [(channel, slice_) for channel in instrument.channels for slice_ in range(1, 49)]
    channels, slices = np.array(rows, np.int32).T
    whole = {"SubField": channels, "SliceCCD": slices, "SliceSky": slices}
    real = {name: np.zeros(len(rows)) for name in ("x", "y", "angle", "width")}
    table = Table(columns=tuple(Column(name=name, values=values) for name, values in {**whole, **real}.items()))
    return Result((Product(catg="GEOMETRY_TABLE", content=table),))


def _solve_field(instrument: Instrument, _: Any) -> Result:  # noqa: ANN401
    """The second half: a solution that tells which table it was made with."""
    keywords = (Keyword("CTYPE1", "RA---TAN"), Keyword("ROWS", len(instrument.tables["GEOMETRY_TABLE"].table["x"])))
    return Result((Product(catg="ASTROMETRY_WCS", content=Extensions(), keywords=keywords),))


def _respond(*keywords: Keyword) -> Callable[[Instrument, Any], Result]:
    def combine(_: Instrument, __: Any) -> Result:  # noqa: ANN401
        columns = tuple(Column(name=name, values=np.ones(2)) for name in ("lambda", "response", "resperr"))
        return Result((Product(catg="STD_RESPONSE", content=Table(columns=columns), keywords=keywords),))

    return combine


RESPONSES = tuple(
    replace(JOINS, name=f"responds {version}", makes=("STD_RESPONSE",), combine=_respond(*keywords))
    for version, keywords in ((1, ()), (2, (Keyword("ESO DRS MUSE FLUX FFCORR", value=True),)))
)
PLACES = replace(JOINS, name="places", makes=("GEOMETRY_TABLE",), reduce=_give_nothing, combine=_place_slices)
SOLVES = replace(JOINS, name="solves", makes=("ASTROMETRY_WCS",), reduce=_give_nothing, combine=_solve_field)
_ODD = {name: replace(RECIPE, name=name, reduce=_do(deed)) for name, deed in _DEEDS.items()}
RECIPES: Mapping[str, Recipe] = {**_ODD, **{recipe.name: recipe for recipe in (JOINS, PLACES, SOLVES, *RESPONSES)}}


def install() -> None:
    """Add them to the recipes of the cascade, for this process and those it forks."""
    tasks.cascade.RECIPES = MappingProxyType({**tasks.cascade.RECIPES, **RECIPES})
