"""Settings: every knob is documented with its default, and what is not known or out of range is refused in words."""

import re
import tomllib
from dataclasses import asdict
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import BaseModel

from tasks.cascade import RECIPES, STEPS_BY_NAME
from tasks.settings import Engine, Settings, SettingsError, StepSettings, load_settings

DOCUMENTED = Path(__file__).parent.parent / "settings.toml"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("MUSECAL_SETTINGS", "MUSECAL_BROKER__URL", "MUSECAL_REGISTRY__URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def defaults() -> dict[str, object]:
    """Every key with its default, as a TOML file would give it."""
    found: dict[str, object] = {}
    for name, section in Settings.model_fields.items():
        if isinstance(section.default, BaseModel):
            found[name] = section.default.model_dump(mode="json")
    found["steps"] = {name: StepSettings().model_dump(mode="json") for name in STEPS_BY_NAME}
    found["recipes"] = {name: asdict(recipe.params()) for name, recipe in RECIPES.items()}
    return found


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_settings_file_names_every_knob_with_its_default_and_no_other() -> None:
    assert tomllib.loads(DOCUMENTED.read_text()) == defaults()


def test_every_knob_is_explained() -> None:
    lines = DOCUMENTED.read_text().splitlines()
    for above, line in pairwise(lines):
        assert "=" not in line.split("#")[0] or "  # " in line or above.startswith("# "), line


def test_documented_file_is_accepted_and_changes_nothing() -> None:
    documented, plain = load_settings(DOCUMENTED), load_settings()
    assert documented.model_dump(exclude={"archive", "registry"}) == plain.model_dump(exclude={"archive", "registry"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[watch]\nsetle_seconds = 3", "watch.setle_seconds is not a setting. Did you mean settle_seconds?"),
        ("[wach]\nsettle_seconds = 3", "wach is not a setting. Did you mean watch?"),
        ("[watch]\nsettle_seconds = -1", "watch.settle_seconds = -1 cannot be used"),
        ("[watch]\nmode = 'guess'", "watch.mode = 'guess' cannot be used"),
        ("[plan]\nlevel = 4", "plan.level = 4 cannot be used"),
        ("[worker]\nheartbeat_seconds = 20\nlease_seconds = 30", "one late beat would lose the lease"),
        ("[recipes.muse_bias]\nlsigma = 'many'", "recipes"),
        ("[recipes.muse_bias]\nlsigma = -1.0", "below its least value"),
        ("[recipes.muse_bias]\nsigma = 3.0", "sigma is not a parameter"),
        ("[recipes.muse_biass]\nlsigma = 3.0", "there is no recipe muse_biass"),
        ("[steps.bias]\nengine = 'gasgano'", "steps.bias.engine = 'gasgano' cannot be used"),
        ("[steps.bias]\nengin = 'esorex'", "steps.bias.engin is not a setting"),
        ("[steps.lunch]\nengine = 'esorex'", "there is no step lunch; there are bias, dark, flat"),
        ("watch = 3", "watch = 3 cannot be used"),
        ("[watch", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(sentence)):
        load_settings(write(tmp_path, text))


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml")


def test_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "[watch]\nsettle_seconds = 3\nscan_seconds = 4\n[recipes.muse_bias]\nlsigma = 4.0")
    monkeypatch.setenv("MUSECAL_WATCH__SETTLE_SECONDS", "2")
    monkeypatch.setenv("MUSECAL_RECIPES__MUSE_BIAS__HSIGMA", "5.5")
    monkeypatch.setenv("MUSECAL_STEPS__FLAT__ENGINE", "esorex")
    settings = load_settings(path)
    assert (settings.watch.settle_seconds, settings.watch.scan_seconds) == (2, 4)
    assert [settings.steps[name].engine for name in ("bias", "flat")] == [Engine.MUSECAL, Engine.ESOREX]
    assert (settings.recipes["muse_bias"]["lsigma"], settings.recipes["muse_bias"]["hsigma"]) == (4.0, 5.5)


@pytest.mark.parametrize("variable", ["MUSECAL_WACH__SETTLE_SECONDS", "MUSECAL_WATCH__SETLE_SECONDS"])
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "2")
    with pytest.raises(SettingsError, match="Did you mean"):
        load_settings()


def test_paths_start_from_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("MUSECAL_SETTINGS", str(write(folder, "[archive]\nroot = 'kept'\nincoming = '/in'")))
    settings = load_settings()
    assert (settings.archive.root, settings.archive.incoming) == (folder / "kept", Path("/in"))
    assert settings.registry.url == f"sqlite:///{folder}/kept/registry.sqlite"


def test_recipes_are_complete_whatever_is_set() -> None:
    assert load_settings().recipes == {name: asdict(recipe.params()) for name, recipe in RECIPES.items()}


def test_only_the_web_listens_and_to_this_machine_alone() -> None:
    sections = {name: section.annotation for name, section in Settings.model_fields.items()}
    listening = {
        f"{name}.{key}"
        for name, section in sections.items()
        for key in getattr(section, "model_fields", {})
        if re.search("host|port|bind|listen|address", key)
    }
    assert listening == {"web.host", "web.port"}
    assert ip_address(load_settings().web.host).is_loopback
    assert not load_settings().web.enabled
    assert load_settings().broker.url == ""
