"""The engine of a step: our recipe, or ESO's on the same inputs. It is part of the identity of what is made."""

import re
from collections.abc import Mapping

from archive.models import Step
from recipes.esorecipes import ESO_RECIPES, Halves
from recipes.esorex import Esorex, EsorexMissing, find_esorex, parameters_of
from recipes.recipe import Recipe
from tasks.cascade import STEPS_BY_NAME, recipe_of
from tasks.failures import Unfinished
from tasks.settings import Engine, Settings, SettingsError

_MEGABYTE = 1 << 20
_ESO_VERSION = f"{Engine.ESOREX}/"  # begins the version of a step that ESO's recipe makes: esorex/2.8.7


def engine_of(version: str) -> Engine:
    """Return the engine by the version in a step's identity."""
    return Engine.ESOREX if version.startswith(_ESO_VERSION) else Engine.MUSECAL


def made_elsewhere(version: str) -> bool:
    """Return whether another archive or ESO's made what a step of this version made: ``eso/2.8.7``, ``musecal/3``."""
    return "/" in version and engine_of(version) is Engine.MUSECAL


def versions_of(settings: Settings) -> Mapping[str, str]:
    """Return the version in the identity of each step that ESO's recipe makes; of the others it is our recipe's own.

    Raises
    ------
    SettingsError
        A step is left to ESO's pipeline, and that is not here.
    """
    chosen = [name for name, step in settings.steps.items() if step.engine is Engine.ESOREX]
    return dict.fromkeys(chosen, f"{_ESO_VERSION}{esorex_of(settings).version}") if chosen else {}


def esorex_of(settings: Settings) -> Esorex:
    """Return ESO's pipeline as the settings name it.

    Raises
    ------
    SettingsError
        It is not here.
    """
    wanted, limit = settings.esorex, settings.worker.esorex_memory_limit_mb * _MEGABYTE
    try:
        return find_esorex(wanted.program, wanted.recipe_folder, memory_limit=limit)
    except EsorexMissing as error:
        raise SettingsError(f"ESO's recipes cannot be run: {error}") from error


def esorex_for(version: str, settings: Settings) -> Esorex:
    """Return ESO's pipeline for a step of this version.

    Raises
    ------
    SettingsError
        It is not here.
    Unfinished
        Another version is here.
    """
    esorex = esorex_of(settings)
    if version != f"{_ESO_VERSION}{esorex.version}":
        raise Unfinished(
            f"The step was queued for {version}, and {esorex.version} of ESO's pipeline is installed here; requeue it."
        )
    return esorex


def check_engines(settings: Settings) -> None:
    """See that every step can be made by the engine that is set for it.

    Raises
    ------
    SettingsError
        ESO's pipeline, or one of its recipes, is not here, or could not read the names of the files.
    """
    chosen = versions_of(settings)
    if not chosen:
        return
    for folder in (settings.archive.root, settings.archive.incoming):
        if re.search(r"\s", str(folder)):
            raise SettingsError(f"ESO's recipes cannot be run on files below {str(folder)!r}, for the blanks in it.")
    esorex = esorex_of(settings)
    for name in chosen:
        recipe = STEPS_BY_NAME[name].recipe_name
        halves = ESO_RECIPES.get(recipe)
        if halves is None:
            raise SettingsError(f"steps.{name}.engine = 'esorex' cannot be used: none of ESO's stands for {recipe}.")
        for run in (halves.channel, halves.whole):
            try:
                parameters_of(esorex, run.recipe) if run else None
            except EsorexMissing as error:
                raise SettingsError(f"steps.{name}.engine = 'esorex' cannot be used: {error}") from error


def eso_halves(recipe: str, version: str) -> Halves | None:
    """Return ESO's recipes that make a step; None if ours does."""
    return ESO_RECIPES[recipe] if engine_of(version) is Engine.ESOREX else None


def of_the_whole(recipe: Recipe, version: str) -> bool:
    """Return whether the products of a step are of the whole instrument: a recipe joins its channels."""
    halves = eso_halves(recipe.name, version)
    return recipe.combine is not None if halves is None else halves.whole is not None


def passed_on(step: Step) -> tuple[str, ...]:
    """Return PRO.CATG of what the channels of a step give for its second half alone."""
    halves = eso_halves(step.recipe, step.recipe_version)
    if halves is None:
        return recipe_of(step.recipe).intermediate
    return halves.channel.passes_on if halves.channel else ()


def idle_by_channel(step: Step) -> bool:
    """Return whether nothing is to be done on the single channels of a step."""
    halves = eso_halves(step.recipe, step.recipe_version)
    return halves is not None and halves.channel is None
