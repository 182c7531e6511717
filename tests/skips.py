"""Where CI=true is set, a skipped test fails the run unless it stands here with its reason."""

import os
from collections.abc import Mapping

import pytest

EXPLAINED: Mapping[str, str] = {}  # node id of a test, and why it cannot run where CI runs


def _unexplained(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("CI"):
        return []
    return [report.nodeid for report in reporter.stats.get("skipped", []) if report.nodeid not in EXPLAINED]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a test was skipped that should have run."""
    if _unexplained(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which they are."""
    for nodeid in _unexplained(terminalreporter.config):
        terminalreporter.write_line(f"skipped without an entry in tests/skips.py: {nodeid}", red=True)
