"""Exit codes, and the one place that turns an error of the operator or of the world into a sentence.

A bug is not caught here: it ends with its traceback, and with code 1.
"""

import functools
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import ParamSpec

import typer

Arguments = ParamSpec("Arguments")


class ExitCode(IntEnum):
    """What a command tells the shell."""

    DONE = 0
    NOT_IN_ORDER = 1  # the command worked, and what it looked at is not as it should be
    USAGE = 2  # the command line or the settings are wrong
    NOT_FOUND = 3  # nothing goes by this identifier
    REFUSED = 4  # not possible in the present state
    UNREACHABLE = 5  # a file, the registry or the broker cannot be reached
    WARN = 6  # `musecal night` and `musecal completeness`: the verdict on the nights is WARN
    FAIL = 7  # likewise: the verdict is FAIL

    @classmethod
    def of_verdict(cls, verdict: str) -> "ExitCode":
        """Return the code of a verdict on nights: PASS, WARN or FAIL."""
        return cls.DONE if verdict == "PASS" else cls[verdict]


class UsageError(Exception):
    """The command line does not say clearly what is wanted."""


class RefusedError(Exception):
    """What is asked for cannot be done here and now."""


class NotFoundError(LookupError):
    """Nothing in the registry goes by this identifier."""


def print_error(sentence: str) -> None:
    """Print a sentence to the standard error."""
    sys.stderr.write(f"musecal: {sentence}\n")


def answering(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Make a command answer errors of the operator or the world with one sentence and an exit code."""

    @functools.wraps(command)
    def answer(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        codes = _codes()
        try:
            command(*args, **kwargs)
        except tuple(codes) as error:
            print_error(_sentence(error))
            raise typer.Exit(next(code for kind, code in codes.items() if isinstance(error, kind))) from error

    return answer


def _codes() -> dict[type[Exception], ExitCode]:
    """Return the errors that are answered, the narrower first; imported here because a page of help needs none."""
    from redis.exceptions import ConnectionError as RedisConnectionError
    from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError

    from archive.registry import RegistryOutdated
    from archive.states import IllegalMove
    from daemon.processes import AlreadyRunning
    from tasks.backfill import TransferUnclear
    from tasks.orders import OrderRefused
    from tasks.settings import SettingsError

    return {
        UsageError: ExitCode.USAGE,
        TransferUnclear: ExitCode.USAGE,
        SettingsError: ExitCode.USAGE,
        ArgumentError: ExitCode.USAGE,
        NotFoundError: ExitCode.NOT_FOUND,
        IllegalMove: ExitCode.REFUSED,
        OrderRefused: ExitCode.REFUSED,
        RefusedError: ExitCode.REFUSED,
        RegistryOutdated: ExitCode.REFUSED,
        AlreadyRunning: ExitCode.REFUSED,
        OperationalError: ExitCode.UNREACHABLE,
        InterfaceError: ExitCode.UNREACHABLE,
        RedisConnectionError: ExitCode.UNREACHABLE,
        OSError: ExitCode.UNREACHABLE,
    }


def _sentence(error: Exception) -> str:
    """Return the message of an error as a sentence; a database's own says nothing of what it means here."""
    cause = getattr(error, "orig", None)
    text = f"the registry cannot be reached: {cause}" if cause else str(error)
    return text if text.endswith((".", "!", "?")) else f"{text}."
