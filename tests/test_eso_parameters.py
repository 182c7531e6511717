"""Every parameter of every recipe beside those of ESO's recipes that are installed: the same names and defaults."""

import re
import shutil
import subprocess
from dataclasses import asdict

import pytest

from recipes.esorecipes import ESO_RECIPES
from recipes.esorex import find_esorex, parameters_of
from recipes.recipe import Value
from tasks.cascade import RECIPES

# The channel is the part, and its files are always merged; a run on all channels takes those that there are.
NOT_FOR_USERS = frozenset({"nifu", "merge", "ifu1", "ifu2"})
OTHER_DEFAULT = {
    (recipe, "saveimage"): "the images would have 200 MB a channel, and nothing reads them"
    for recipe in ("muse_standard", "muse_astrometry")
}
OURS_ALONE = {
    ("muse_geometry", name): "ESO's recipe has them fixed at the defaults of the others"
    for name in ("overscan", "ovscreject", "ovscsigma", "ovscignore")
}


def spelled_alike(ours: Value, theirs: str) -> bool:
    if isinstance(ours, bool | str):
        return str(ours).lower() == theirs.lower()
    return float(theirs) == ours


def visible(recipe: str) -> set[str]:
    """What the manual page names; ESO's developers keep a few parameters to themselves."""
    esorex = find_esorex("esorex", "", memory_limit=1 << 30)
    command = ["esorex", f"--recipe-dir={esorex.folder}", "--log-level=off", "--man-page", recipe]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  --(\w+)", page.partition("OPTIONS")[2], re.MULTILINE))


@pytest.mark.referee
@pytest.mark.parametrize("name", RECIPES)
def test_names_and_defaults_are_esos(name: str) -> None:
    if not shutil.which("esorex"):
        pytest.skip("esorex is not installed: make referee does it (Debian packages esorex and cpl-plugin-muse)")
    esorex = find_esorex("esorex", "", memory_limit=1 << 30)
    halves, ours = ESO_RECIPES[name], asdict(RECIPES[name].params())
    theirs: dict[str, str] = {}
    for run in (halves.channel, halves.whole):
        if run:
            defaults = parameters_of(esorex, run.recipe)
            theirs |= {parameter: defaults[parameter] for parameter in visible(run.recipe) - NOT_FOR_USERS}
    assert theirs.keys() <= ours.keys()
    alone = {parameter for parameter in ours.keys() - theirs.keys() if (name, parameter) not in OURS_ALONE}
    assert alone <= set().union(*(parameters_of(esorex, run.recipe) for run in (halves.channel, halves.whole) if run))
    differing = {parameter for parameter in theirs if not spelled_alike(ours[parameter], theirs[parameter])}
    assert differing == {parameter for recipe, parameter in OTHER_DEFAULT if recipe == name}


def test_esos_recipes_are_given_all_that_ours_take() -> None:
    for name, recipe in RECIPES.items():
        runs = [run for run in (ESO_RECIPES[name].channel, ESO_RECIPES[name].whole) if run]
        assert {*recipe.needed, *recipe.optional} <= {catg for run in runs for catg in run.takes}, name
