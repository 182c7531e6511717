"""Running one of ESO's recipes by its command-line tool esorex, in a process of its own that nothing outlives.

What ESO's recipe says goes into a log; its warnings are passed on, and the way in which it failed becomes one of our
errors: bad data, too little memory, or a broken world.
"""

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from recipes.recipe import RecipeError, Value

# Where ESO's recipes are: installed by Debian, by ESO's own packages, by hand.
FOLDERS = (
    "/usr/lib/*/cpl/plugins",
    "/usr/lib/cpl/plugins",
    "/usr/lib*/esopipes-plugins",
    "/usr/local/lib/esopipes-plugins",
)
_LEAST_ROOM = 512 << 20  # bytes; with less on the disk, a recipe that cannot write has not failed by itself
_LAST_ERRORS = 4  # that are passed on
_MOST_WARNINGS = 20  # that are passed on; the log has all
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT})

_LINE = re.compile(r"(?:[\d:]+ )?\[ *(?P<level>ERROR|WARNING) *\] (?P<who>[^:]*): (?:\[tid=\d+\] )?(?P<text>.*)")
_TRACE = re.compile(r" *(Found \d+ error|Dumping the |\[\d+/\d+\] |Execution of recipe )")  # after the errors in words
_NO_MEMORY = re.compile(r"failed to allocate (\d+) bytes")
_PARAMETER = re.compile(r"  (?P<name>\w+) +: ?(?P<value>.*)")


class EsorexMissing(Exception):  # noqa: N818 - reads as what it is
    """ESO's tool or recipes are not installed here; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Esorex:
    """ESO's recipes as they are installed here.

    Parameters
    ----------
    program : Path
        ``esorex``.
    folder : Path
        With ``muse-<version>`` in it.
    version : str
        Of the MUSE pipeline, ``2.8.7``.
    memory_limit : int
        Bytes of data that a run may have.
    """

    program: Path
    folder: Path
    version: str
    memory_limit: int


@dataclass(frozen=True)
class Ran:
    """What a run gave beside its files: sentences an operator should read, and its peak of memory in bytes."""

    warnings: tuple[str, ...]
    memory: int


def find_esorex(program: str, folder: str, *, memory_limit: int) -> Esorex:
    """Find ESO's tool and the newest MUSE pipeline.

    Parameters
    ----------
    program : str
        Name on the PATH, or path.
    folder : str
        Where the recipes are; '' for the usual places.
    memory_limit : int
        Bytes.

    Raises
    ------
    EsorexMissing
    """
    found = shutil.which(program)
    if found is None:
        raise EsorexMissing(
            f"{program} is not installed, or not on the PATH; install ESO's MUSE pipeline (on Debian the packages"
            " esorex and cpl-plugin-muse), or leave the step to the engine musecal."
        )
    places = [Path(folder)] if folder else [path for place in FOLDERS for path in sorted(Path("/").glob(place[1:]))]
    pipelines = [path for place in places for path in place.glob("muse-*") if re.fullmatch(r"muse-[\d.]*\d", path.name)]
    if not pipelines:
        raise EsorexMissing(
            f"no folder muse-<version> is in {' or '.join(map(str, places)) or 'the usual places'}; install ESO's MUSE"
            " pipeline (on Debian the package cpl-plugin-muse), or name the folder of its recipes in"
            " esorex.recipe_folder."
        )
    newest = max(pipelines, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    version = newest.name.removeprefix("muse-")
    return Esorex(program=Path(found).absolute(), folder=newest.parent, version=version, memory_limit=memory_limit)


@lru_cache(maxsize=64)
def parameters_of(esorex: Esorex, recipe: str) -> Mapping[str, str]:
    """Return the parameters of one of ESO's recipes with their defaults, as it spells them.

    Raises
    ------
    EsorexMissing
        The recipe is not installed.
    """
    command = [str(esorex.program), f"--recipe-dir={esorex.folder}", "--log-level=off", "--params", recipe]
    asked = subprocess.run(  # noqa: S603 - no shell
        command, env=_environment(Path("/")), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    _, found, lines = asked.stdout.partition("Recipe Parameters :")
    if not found:
        raise EsorexMissing(f"ESO's pipeline {esorex.version} in {esorex.folder} has no recipe {recipe}.")
    return {match["name"]: match["value"].strip() for match in map(_PARAMETER.match, lines.splitlines()) if match}


def run_recipe(
    esorex: Esorex,
    recipe: str,
    inputs: Sequence[tuple[Path, str]],
    options: Mapping[str, Value],
    *,
    folder: Path,
    record: Path,
) -> Ran:
    """Run one of ESO's recipes.

    Parameters
    ----------
    esorex : Esorex
    recipe : str
        ESO's name.
    inputs : sequence of (path, tag)
        What its set of frames (SOF) lists.
    options : mapping of name to value
        Parameters; those that the recipe does not know are left out.
    folder : Path
        Its working folder, where it leaves its products.
    record : Path
        The set of frames is kept as ``<record>.sof``, what the recipe says as ``<record>.log``.

    Raises
    ------
    RecipeError
        ESO's recipe failed or crashed.
    MemoryError
        It needed more memory than it may have.
    OSError
        It was killed from outside, or the disk is full.
    EsorexMissing
    """
    sof, log = record.with_name(f"{record.name}.sof"), record.with_name(f"{record.name}.log")
    if spaced := next((path for path, _ in [(sof, ""), *inputs] if re.search(r"\s", str(path))), None):
        raise RecipeError(f"A set of frames of ESO's cannot name {str(spaced)!r}, for its blanks; move the archive.")
    sof.write_text("".join(f"{path} {tag}\n" for path, tag in inputs))
    known = parameters_of(esorex, recipe)
    command = [
        # The kernel ends esorex with the process that waits for it, whatever becomes of that. Its memory is its own
        # matter. Its output is line by line, so that the log is whole even if it crashes.
        "setpriv", "--pdeathsig=KILL", "prlimit", f"--data={esorex.memory_limit}:", "stdbuf", "-oL",
        str(esorex.program), f"--recipe-dir={esorex.folder}", "--log-level=off", "--suppress-prefix=true",
        recipe, *(f"--{name}={_spelled(value)}" for name, value in options.items() if name in known), str(sof),
    ]  # fmt: skip
    with log.open("wb") as output:
        code, memory = _wait(
            subprocess.Popen(  # noqa: S603 - no shell
                command,
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    told = log.read_text(errors="replace")
    if code:
        raise _failure(recipe, code, told, log)
    return Ran(_warnings(recipe, told, log), memory)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Wait for a process; return its exit code and its peak of memory in bytes. Its whole group ends with it."""
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:  # also if this process is told to stop, or the time is over
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


def _environment(home: Path) -> dict[str, str]:
    """Return the environment of esorex: one thread, and nothing by which a user's own settings would come in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ESOREX_")}
    return kept | {"HOME": str(home), "OMP_NUM_THREADS": "1", "LC_ALL": "C"}


def _spelled(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _failure(recipe: str, code: int, told: str, log: Path) -> Exception:
    """Return the error that a run amounts to which did not end with 0."""
    if short := _NO_MEMORY.search(told):
        return MemoryError(f"ESO's {recipe} asked for {int(short[1]) / 1e6:.0f} MB more")
    died = signal.Signals(-code) if code < 0 else None
    if died is not None and died not in _CRASHES:
        return ChildProcessError(f"ESO's {recipe} was ended by {died.name} from outside; see {log}")
    if shutil.disk_usage(log.parent).free < _LEAST_ROOM:
        return OSError(errno.ENOSPC, f"ESO's {recipe} failed with a full disk; make room, see {log}")
    errors = _said(told, "ERROR") or _said(told, "ERROR", of_cpl=True) or told.strip().splitlines()
    said = "; ".join(errors[-_LAST_ERRORS:])
    how = f"crashed ({died.name})" if died else f"failed with exit code {code}"
    return RecipeError(f"ESO's {recipe} {how}: {said or 'it said nothing'}. Its log is {log}.", exit_code=code)


def _warnings(recipe: str, told: str, log: Path) -> tuple[str, ...]:
    """Return what ESO's recipe warned of; what it calls an error and goes on after is no more than that."""
    found = [f"ESO's {recipe}: {text}" for text in _said(told, "WARNING", "ERROR")]
    more = len(found) - _MOST_WARNINGS
    if more > 0:
        found[_MOST_WARNINGS:] = [f"ESO's {recipe} warned of {more} things more; see {log}."]
    return tuple(found)


def _said(told: str, *levels: str, of_cpl: bool = False) -> list[str]:
    """Return the messages of these levels, each once: those in words, or what CPL dumps."""
    matches = [match for match in map(_LINE.match, told.splitlines()) if match and match["level"] in levels]
    wanted = (match["text"].strip() for match in matches if bool(_TRACE.match(match["text"])) == of_cpl)
    return list(dict.fromkeys(wanted))
