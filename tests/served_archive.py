"""A small archive with real files, and the service that hands them out, as a process of its own."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import psutil
from astropy.io import fits
from small_night import World
from sqlalchemy import select
from whole_daemon import MUSECAL, wait_until

from archive.models import Frame, Product
from archive.naming import dp_id_of
from archive.registry import Registry
from archive.states import Certification
from archive.store import Store
from recipes.muse import Detector
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence
from recipes.simulator.statics import write_statics
from tasks.intake import Intake
from tasks.settings import load_settings

NIGHT = date(2026, 6, 17)
SEQUENCES = (
    Sequence.BIAS, Sequence.FLAT, Sequence.ARC, Sequence.ILLUM, Sequence.SKYFLAT, Sequence.STD, Sequence.OBJECT,
    Sequence.DARK,
)  # fmt: skip
PLAN = NightPlan(night=NIGHT, channels=(1, 2), detector=Detector(nx=64, ny=64), sequences=SEQUENCES)
SETTINGS = """
archive = { root = "archive", incoming = "incoming" }
web = { port = 0 }
plan = { lsf_from_arcs = true }
"""


class Archive:
    """A night of real frames with tiny detectors; every step is done, with a small file for each product.

    Parameters
    ----------
    folder : Path
        ``archive`` and ``settings.toml`` come there.

    Attributes
    ----------
    process : psutil.Process
        The service, while it is served.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.process = folder, psutil.Process()
        self.settings_file = folder / "settings.toml"
        self.settings_file.write_text(SETTINGS)
        self.settings = load_settings(self.settings_file)
        self.registry = Registry(self.settings.registry.url)
        self.registry.upgrade()
        self.store = Store(self.settings.archive.root)
        self.world = World(self.registry, archive=self.settings.archive, plan=self.settings.plan)
        self.take_in(PLAN)
        self.world.settle()
        self._give_files()

    def take_in(self, plan: NightPlan) -> None:
        """Take in the frames and static calibrations of a night."""
        incoming = self.settings.archive.incoming
        intake = Intake(self.registry, self.store, self.settings)
        for path in sorted([*write_night(plan, incoming), *write_statics(plan, incoming)]):
            intake.take(path, self.world.now)

    def _give_files(self) -> None:
        """Let each product that a step is said to have made have a file."""
        with self.registry.begin() as session:
            taken: set[str] = set()
            for product in session.scalars(select(Product).where(Product.path == "").order_by(Product.id)):
                product.dp_id = dp_id_of(self.world.now, taken)
                taken.add(product.dp_id)
                product.name = f"MU_{product.catg}_{product.id}.fits"
                path = self.folder / product.name
                primary = fits.PrimaryHDU()
                primary.header["HIERARCH ESO PRO CATG"] = product.catg
                primary.header["ARCFILE"] = f"{product.dp_id}.fits"
                primary.writeto(path)
                kept = self.store.publish(path, product.night, product.name)
                product.path, product.size, product.digest = str(kept.path), kept.size, kept.digest

    def certify_all(self) -> None:
        """Certify everything that is not rejected."""
        with self.registry.begin() as session:
            for product in session.scalars(select(Product).where(Product.certification == Certification.PROVISIONAL)):
                product.certification = Certification.CERTIFIED

    def frames(self, tag: str = "") -> list[Frame]:
        """Return the frames of a tag, all without one, in order of time."""
        with self.registry.read() as session:
            wanted = select(Frame).order_by(Frame.mjd, Frame.version)
            return list(session.scalars(wanted.where(Frame.tag == tag) if tag else wanted))

    def products(self, *catgs: str) -> list[Product]:
        """Return the products of some types, all without any, by number."""
        with self.registry.read() as session:
            wanted = select(Product).order_by(Product.id)
            return list(session.scalars(wanted.where(Product.catg.in_(catgs)) if catgs else wanted))

    @contextmanager
    def served(self) -> Iterator[str]:
        """Serve it by ``musecal web``; yields the URL."""
        with (self.folder / "log").open("w+b") as log:
            command = [str(MUSECAL), "web", "--json", "--settings", str(self.settings_file)]
            process = psutil.Popen(command, stdout=log, stderr=log)
            try:
                wait_until(lambda: process.poll() is not None or bool(self.started()), "the service listens")
                [start] = self.started()
                self.process = process
                yield f"http://{start['host']}:{start['port']}"
            finally:
                process.terminate()
                code = process.wait(30)
        assert code == 0, self.log()
        assert "Traceback" not in self.log()

    def log(self) -> str:
        """Return what the service has logged."""
        return (self.folder / "log").read_text()

    def started(self) -> list[dict[str, str]]:
        """Return the log lines that say where the service listens."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == "web started"]
