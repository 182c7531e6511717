"""The documents say what is so: they are checked against the commands, the Makefile and the tree."""

import re
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer
from command_reference import reference

from daemon.cli.application import app
from tasks.cascade import STEPS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(command: Any, path: str = "musecal") -> dict[str, Any]:  # noqa: ANN401 - typer has no public type for it
    """Return every command that does something by itself, by what one types."""
    children = getattr(command, "commands", {})
    below = chain.from_iterable(commands(child, f"{path} {name}").items() for name, child in children.items())
    alone = {path: command} if not children or command.invoke_without_command else {}
    return alone | dict(below)


COMMANDS = commands(typer.main.get_command(app))


def test_the_page_of_commands_is_as_the_commands_are() -> None:
    assert (ROOT / "docs" / "command-line.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_has_help(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert all(item.help for item in command.params if item.name != "context")


@pytest.mark.parametrize("path", sorted(COMMANDS.keys() - {"musecal demo"}))  # the demo brings its own settings
def test_every_command_takes_settings_and_json(path: str) -> None:
    options = {name for item in COMMANDS[path].params for name in item.opts}
    assert {"--settings", "--json"} <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documents_exist(page: Path) -> None:
    for typed in re.findall(r"(?:^|`|\$ )(musecal(?: [a-z]+)+)", page.read_text(), re.MULTILINE):
        words = typed.split()
        assert any(" ".join(words[:count]) in COMMANDS for count in (2, 3)), typed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_in_the_documents_exist(page: Path) -> None:
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text())) <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_documents_exist(page: Path) -> None:
    tops = "archive|benchmarks|daemon|docs|recipes|systemd|tasks|tests"
    for path in re.findall(rf"`((?:{tops})/[\w./-]*\w)`", page.read_text()):
        assert (ROOT / path).exists() or list(ROOT.glob(f"{path}*")), path


def test_ci_runs_the_test_command_of_the_readme() -> None:
    last = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert f"$ {last}\n" in (ROOT / "README.md").read_text()


def test_ci_may_be_executed() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_the_readme_names_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.split(r"[<>=\[; ]", requirement)[0] for requirement in wanted}
    readme = (ROOT / "README.md").read_text()
    assert [name for name in sorted(names) if not re.search(rf"\b{re.escape(name)}\b", readme)] == []


def test_the_architecture_names_every_step() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert [step.name for step in STEPS if step.name not in text] == []
