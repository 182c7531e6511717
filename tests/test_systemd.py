"""The units: accepted by systemd without a word, closed tightly, and the programs live within them."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.supervisor import STOP_SECONDS
from daemon.web.server import STOP_SECONDS as WEB_STOP_SECONDS
from tasks.app import SHUTDOWN_SECONDS
from tasks.settings import load_settings

UNITS = Path(__file__).parent.parent / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
INSTALLED = "/opt/musecal"  # as docs/operations.md installs it
EXPOSURE = 20  # tenths of systemd's exposure level: 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: install the Debian package systemd"
)


@pytest.fixture(scope="session")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units as if installed, with the program and the documents where they are here."""
    folder = tmp_path_factory.mktemp("units")
    musecal = Path(sys.executable).parent / "musecal"
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(f"{INSTALLED}/.venv/bin/musecal", str(musecal))
        (folder / unit.name).write_text(text.replace(f"file://{INSTALLED}", f"file://{UNITS.parent}"))
    return folder


@needs_systemd
@pytest.mark.parametrize(
    "name",
    ["musecal-watch.service", "musecal-worker@.service", "musecal-web.service", "musecal.target", "musecal.slice"],
)
def test_systemd_has_nothing_to_say_about_a_unit(units: Path, name: str) -> None:
    # An unknown key is only told, not refused: any word counts.
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / name],
        env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_exposure_is_at_most_two(service: Path) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", service],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout


def options(service: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(service)
    return dict(parser["Service"])


def test_every_unit_that_the_target_wants_is_there() -> None:
    wanted = re.search(r"^Wants=(.*)$", (UNITS / "musecal.target").read_text(), re.MULTILINE)
    assert wanted
    for name in wanted[1].split():
        assert (UNITS / re.sub(r"@.*\.", "@.", name)).exists()


def test_a_stopping_worker_is_given_the_time_that_celery_gives_its_parts() -> None:
    worker = options(UNITS / "musecal-worker@.service")
    orderly = SHUTDOWN_SECONDS + 20  # for Celery to put back what is not done; measured: 7
    assert int(worker["TimeoutStopSec"]) > STOP_SECONDS > orderly


def test_downloads_under_way_are_given_the_time_that_the_service_gives_them() -> None:
    web = options(UNITS / "musecal-web.service")
    assert STOP_SECONDS > int(web["TimeoutStopSec"]) > WEB_STOP_SECONDS


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_the_programs_notify_and_are_watched(service: Path) -> None:
    unit = options(service)
    assert unit["Type"] == "notify"
    assert int(unit["WatchdogSec"]) >= 120  # a Redis that is away silences the worker's loop for many seconds
    assert unit["Restart"] == "always"


def test_the_settings_of_the_documents_are_valid_and_fit_the_units(tmp_path: Path) -> None:
    text = (UNITS.parent / "docs" / "operations.md").read_text()
    block = re.search(r"```toml\n# /etc/musecal/settings\.toml\n(.*?)```", text, re.DOTALL)
    assert block
    file = tmp_path / "settings.toml"
    file.write_text(block[1])
    settings = load_settings(file)
    for service in SERVICES:
        writable = Path(options(service)["ReadWritePaths"])
        assert settings.archive.root.is_relative_to(writable)
        assert settings.archive.incoming.is_relative_to(writable)


def test_the_programs_need_no_memory_that_is_writable_and_executable() -> None:
    program = """
import ctypes, errno, importlib, mmap, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN; prctl(2)
    sys.exit(0 if ctypes.get_errno() == errno.EINVAL else 1)  # a kernel before 6.3 cannot tell
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    pass
else:
    sys.exit(2)
ours = ("daemon.watcher", "daemon.pool", "daemon.web.server", "daemon.cli")
for name in (*ours, "psycopg", "redis", "celery.concurrency.prefork"):
    importlib.import_module(name)
import numpy as np
from scipy import linalg, ndimage, optimize
image = np.arange(64.0).reshape(8, 8)
linalg.lstsq(image, image[0]), ndimage.median_filter(image, 3)
optimize.curve_fit(lambda x, a: a * x, image[0], image[0])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
