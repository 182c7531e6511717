"""``musecal compare``: both engines on the same frames, and nothing in the archive changes by it."""

import json
from pathlib import Path
from typing import Any

import fake_esorex
import pytest
from fake_esorex import VERSION
from rows import add_frame, add_step
from sqlalchemy import func, select
from test_parts import Clock, part_of
from typer.testing import CliRunner, Result

from archive.models import Event, Frame
from archive.registry import Registry
from archive.store import Store
from daemon.cli.application import app
from daemon.cli.errors import ExitCode
from tasks.failures import FINISH
from tasks.parts import run_part
from tasks.settings import load_settings
from tasks.site import Site


@pytest.fixture
def settings_file(sqlite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "registry.sqlite").write_bytes(sqlite.read_bytes())
    recipes = fake_esorex.install(tmp_path, monkeypatch)["recipe_folder"]
    (folder / "settings.toml").write_text(
        f'[archive]\nroot = "archive"\nleast_free_gb = 0.001\n[registry]\nurl = "sqlite:///{folder}/registry.sqlite"\n'
        f'[esorex]\nrecipe_folder = "{recipes}"\n'
    )
    return folder / "settings.toml"


@pytest.fixture
def site(settings_file: Path) -> Site:
    settings = load_settings(settings_file)
    return Site(
        settings=settings, registry=Registry(settings.registry.url), store=Store(settings.archive.root), clock=Clock()
    )


def make(site: Site, biases: list[Path], version: str) -> int:
    """Make a step of channels 1 and 2 with one of the engines."""
    with site.registry.begin() as session:
        frames = list(session.scalars(select(Frame))) or [add_frame(session, n, path=p) for n, p in enumerate(biases)]
        step = add_step(session, frames)
        step.recipe_version = version
        step_id = step.id
    for channel in (1, 2, FINISH):
        run_part(site, part_of(site, step_id, channel).id)
    return step_id


def compare(settings_file: Path, *arguments: str) -> Result:
    command = ["compare", *arguments, "--settings", str(settings_file)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "110"})


def state_of(site: Site) -> tuple[Any, ...]:
    with site.registry.read() as session:
        events = session.scalar(select(func.count(Event.id)))
    return events, {path: path.stat().st_mtime_ns for path in site.store.root.rglob("*")}


@pytest.mark.parametrize(("version", "other"), [("1", "esorex"), (f"esorex/{VERSION}", "musecal")])
def test_both_engines_are_compared_channel_by_channel(
    settings_file: Path, site: Site, biases: list[Path], tmp_path: Path, version: str, other: str
) -> None:
    step_id = make(site, biases, version)
    before = state_of(site)
    result = compare(settings_file, f"S{step_id}", "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == ExitCode.DONE, result.stderr
    assert state_of(site) == before
    record = json.loads(result.stdout)
    assert (record["step"], record["versions"]["esorex"]) == (f"S{step_id}", f"esorex/{VERSION}")
    assert f"channel 2 by {other}" in result.stderr
    assert all(cost["seconds"] > 0.001 for cost in record["costs"].values())
    found = record["products"]["MASTER_BIAS"]["differences"]
    data = {item["channel"]: item for item in found if item["kind"] == "data"}
    # The fake takes a mean of raw values, without the bias level of some 1200 adu that ours subtracts.
    assert [round(data[channel]["median"], -2) for channel in (1, 2)] == [1200, 1200]
    assert data[1]["beyond"] == 1
    assert [item["kind"] for item in found if item["channel"] == 2][:3] == ["data", "variance", "flags"]
    ron = next(item for item in found if item["what"] == "BIAS MASTER1 RON" and item["channel"] == 2)
    assert "2.52 in ESO's" in ron["remark"]
    assert Path(record["products"]["MASTER_BIAS"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").rglob("*.fits"))
    assert bool(list((tmp_path / "out").glob("*.sof"))) == (other == "esorex")


def test_the_page_fits_the_terminal(settings_file: Path, site: Site, biases: list[Path], tmp_path: Path) -> None:
    step_id = make(site, biases, "1")
    page = compare(settings_file, f"S{step_id}", "--out", str(tmp_path / "out"), "--channel", "2").stdout
    assert "MASTER_BIAS: ESO's less ours" in page
    assert "Channel 2, flags:" in page
    assert "Channel 1" not in page
    assert max(map(len, page.splitlines())) <= 110


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("S1", "S2"), ExitCode.USAGE, "compare one at a time"),
        (("F1",), ExitCode.USAGE, "F1 is F1, no step."),
        (("S2",), ExitCode.REFUSED, "step 2 is queued; only what is done can be compared."),
        (("S1", "--channel", "3"), ExitCode.REFUSED, "step 1 has no product of channel 3."),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(
    settings_file: Path,
    site: Site,
    biases: list[Path],
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    make(site, biases, "1")
    with site.registry.begin() as session:
        add_step(session, list(session.scalars(select(Frame))))
    result = compare(settings_file, *arguments, "--out", str(tmp_path / "out"))
    assert (result.exit_code, sentence in result.stderr) == (code, True), result.stderr


def test_a_failure_of_the_other_engine_is_told(
    settings_file: Path, site: Site, biases: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(site, biases, "1")
    fake_esorex.do(monkeypatch, "fails")
    result = compare(settings_file, "S1", "--out", str(tmp_path / "out"))
    assert result.exit_code == ExitCode.REFUSED
    assert "The level is 7 adu" in result.stderr
