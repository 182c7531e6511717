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
from recipes.fits import DeadChannel
from recipes.recipe import Channel, Recipe, RecipeError, Result

FLAG = "MUSECAL_TEST_FLAG"  # of the environment: a file that says whether something has happened before
GREED = 600 << 20  # bytes that the greedy recipe asks for


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
}
RECIPES: Mapping[str, Recipe] = {name: replace(RECIPE, name=name, reduce=_do(deed)) for name, deed in _DEEDS.items()}


def install() -> None:
    """Add them to the recipes of the cascade, for this process and those it forks."""
    tasks.cascade.RECIPES = MappingProxyType({**tasks.cascade.RECIPES, **RECIPES})
