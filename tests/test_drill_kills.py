"""The drill of drills: ten random kills leave the archive as it would have been, on both databases."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
from astropy.io import fits
from doorbell import Doorbell
from station import Station, held

from archive.models import Product
from archive.registry import Registry
from tasks.failures import FINISH
from tasks.parts import run_part
from tasks.site import Site

STEPS = 8  # each takes other frames, so that every product can be told from the others


@pytest.fixture
def station(registry: Registry, tmp_path: Path, biases: list[Path]) -> Iterator[Station]:
    """A site with nothing running but Redis."""
    with held(registry, tmp_path, biases) as station:
        yield station


def fingerprints(products: list[Product]) -> dict[str, list[str]]:
    """Return the sums over the data of each product, by its first raw frame."""
    found = {}
    for product in products:
        with fits.open(product.path, checksum=True) as hdus:
            found[hdus[0].header["ESO PRO REC1 RAW1 NAME"]] = [hdu.header["DATASUM"] for hdu in hdus]
    return found


@pytest.fixture
def undisturbed(sqlite: Path, tmp_path: Path, biases: list[Path], monkeypatch: pytest.MonkeyPatch) -> Station:
    """The same steps, done one after the other by one process."""
    folder = tmp_path / "undisturbed"
    folder.mkdir()
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, folder / 'registry.sqlite')}")
    station = Station(registry, Doorbell(), folder, biases)
    site = Site.of(station.settings(monkeypatch))
    for number in range(STEPS):
        step_id = station.add(frames=slice(number, None))
        for channel in (1, 2, FINISH):
            run_part(site, station.part(step_id, channel).id)
    registry.close()
    return station


class TestTenRandomKills:
    names = ("planner", "worker1", "worker2")

    @pytest.mark.parametrize("seed", [1, 2])
    def test_give_the_same_archive(self, station: Station, undisturbed: Station, seed: int) -> None:
        rng = np.random.default_rng(seed)
        steps = [station.add("takes time", frames=slice(number, None)) for number in range(STEPS)]
        station.start(*self.names)
        for name in self.names[1:]:
            station.wait_for_pool(name)
        shots = [*self.names, "child of worker1", "child of worker2", "redis", "emptied redis"]
        for _ in range(10):
            time.sleep(rng.uniform(0.2, 1.2))
            self.shoot(station, str(rng.choice(shots)))
            station.start(*(name for name in self.names if name not in station.running))
        for step_id in steps:
            station.wait_for(step_id, seconds=120)
        station.check_archive()
        assert fingerprints(station.products()) == fingerprints(undisturbed.products())

    def shoot(self, station: Station, victim: str) -> None:
        if victim == "redis":
            station.doorbell.kill()
            station.doorbell.start()
        elif victim == "emptied redis":
            station.doorbell.client.flushall()
        elif victim.startswith("child of "):
            for child in processes.pool_children(station.running[victim.removeprefix("child of ")])[:1]:
                child.kill()
        else:
            station.kill(victim)
