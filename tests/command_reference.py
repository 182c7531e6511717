"""The command line as Markdown, made from the commands themselves: what docs/command-line.md has to be.

``python tests/command_reference.py > docs/command-line.md`` writes it.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from daemon.cli.application import app
from daemon.cli.errors import ExitCode

HEAD = """\
# The command line

Made from the commands themselves by `make docs`; a test keeps it true.

Every command takes `--settings FILE`, and every command that prints something takes `--json`. Tables are for people:
times are UTC, widths fit 80 to 120 columns. JSON is for programs: one document on the standard output, times in
ISO 8601 with a `Z`. An error is one sentence on the standard error.

## Identifiers

| written | means |
|---|---|
| `F12`, `frame 12` | a raw frame |
| `G3`, `group 3` | the frames of one template |
| `S7`, `step 7` | one step of the cascade on one group |
| `P5`, `product 5` | an archived product |
| `A9`, `arrival 9` | a file that was seen, whatever became of it |
| `MU_MBIA_260617A_slow.fits` | a product by its name, with or without `.fits` |
| `M.MUSE.2026-06-18T10:41:11.000` | a product by its DP id |
| `MUSE.2026-06-18T10:41:11.000` | a frame by its DP id, the newest version of it |
| `MUSE_CAL_BIAS168_0001.fits` | a frame by its workstation name |
| `incoming/MUSE.2026-06-18T10:41:11.000.fits` | whatever a file is, by its path or its name |

A bare number could be anything, and is refused.

## Exit codes

| code | meaning |
|---|---|
"""


def reference() -> str:
    """Return the page."""
    command = typer.main.get_command(app)
    return HEAD + "".join(_codes()) + "\n## Commands\n" + "".join(_pages("musecal", command))


def _codes() -> Iterator[str]:
    source = inspect.getsource(ExitCode)
    for code in ExitCode:
        comment = source.partition(f"{code.name} = {code.value}")[2].partition("\n")[0].partition("# ")[2]
        yield f"| {code.value} | {comment or 'done'} |\n"


def _pages(path: str, command: Any) -> Iterator[str]:  # noqa: ANN401 - typer has no public type for its commands
    children = getattr(command, "commands", {})
    if not children or command.invoke_without_command:
        yield _page(path, command)
    for name, child in children.items():
        yield from _pages(f"{path} {name}", child)


def _page(path: str, command: Any) -> str:  # noqa: ANN401
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option"]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *(_metavar(item) for item in arguments)])
    lines = [f"\n### `{path}`", "", *inspect.cleandoc(command.help or "").splitlines(), "", f"    {usage}", ""]
    lines += [f"- `{_metavar(item)}`: {item.help}" for item in arguments if item.help]
    lines += [f"- {_spelling(item)}: {item.help}{_default(item)}" for item in options if item.name != "help"]
    return "\n".join(lines) + "\n"


def _metavar(item: Any) -> str:  # noqa: ANN401
    return str(item.metavar or item.name.upper())


def _spelling(item: Any) -> str:  # noqa: ANN401
    value = "" if item.is_flag else f" {_metavar(item)}"
    return ", ".join(f"`{name}{value}`" for name in item.opts)


def _default(item: Any) -> str:  # noqa: ANN401
    if item.is_flag or item.default in (None, "", []):
        return ""
    return f" Default: {getattr(item.default, 'date', lambda: item.default)()}."


if __name__ == "__main__":
    sys.stdout.write(reference())
