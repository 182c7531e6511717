"""Verification finds every file that is not as its row says, and every row and file without the other."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from archive.models import Arrival, Frame, Product
from archive.registry import Registry
from archive.states import ArrivalState
from archive.store import Store, Transfer, digest_of
from archive.verification import Fault, verify

NOW = datetime(2026, 6, 17, 12, 0, tzinfo=UTC)
NIGHT = date(2026, 6, 16)
RAW = "MUSE.2026-06-17T10:41:11.000.fits"
PRODUCT = "MU_MBIA_260617A_slow.fits"


@pytest.fixture
def store(registry: Registry, tmp_path: Path) -> Store:
    """An archive with a raw frame and a product."""
    store = Store(tmp_path / "archive")
    add_frame(registry, store, tmp_path / RAW, b"raw bytes" * 1000)
    add_product(registry, store, checksum=True)
    return store


def add_frame(registry: Registry, store: Store, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    kept = store.keep_raw(path, NIGHT, path.name, transfer=Transfer.COPY)
    frame = Frame(
        dp_id=path.stem, digest=digest_of(kept), path=str(kept), size=len(content), tag="BIAS", catg="CALIB",
        type="BIAS", tech="IFU", rule="BIAS", mjd=61208.4, exptime=0.0, night=NIGHT, ingested=NOW,
    )  # fmt: skip
    with registry.begin() as session:
        session.add(frame)


def add_product(
    registry: Registry, store: Store, *, checksum: bool, name: str = PRODUCT, changed: int | None = None
) -> None:
    temporary = store.work_folder(1, 0, 1) / name
    image = fits.ImageHDU(np.arange(6000, dtype=np.float32).reshape(60, 100), name="CHAN01.DATA")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(temporary, checksum=checksum)
    if changed is not None:
        change(temporary, changed)
    published = store.publish(temporary, NIGHT, name)
    product = Product(
        catg="MASTER_BIAS", name=name, dp_id=f"M.{name}", path=str(published.path), size=published.size,
        digest=published.digest, night=NIGHT, mjd=61208.4, created=NOW,
    )  # fmt: skip
    with registry.begin() as session:
        session.add(product)


def faults(registry: Registry, store: Store) -> list[tuple[Fault, str]]:
    return [(finding.fault, finding.path.name) for finding in verify(registry, store)]


def change(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def test_an_archive_in_order_gives_no_finding(registry: Registry, store: Store) -> None:
    assert faults(registry, store) == []


@pytest.mark.parametrize("place", [0, 3000, -1])
def test_one_bit_anywhere_is_found(registry: Registry, store: Store, place: int) -> None:
    change(store.products / NIGHT.isoformat() / PRODUCT, place)
    change(store.raw / NIGHT.isoformat() / RAW, place)
    assert faults(registry, store) == [(Fault.ALTERED, RAW), (Fault.ALTERED, PRODUCT)]


def test_a_file_cut_short_is_told_with_both_lengths(registry: Registry, store: Store) -> None:
    path = store.products / NIGHT.isoformat() / PRODUCT
    size = path.stat().st_size
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2880])
    (finding,) = verify(registry, store)
    assert f"has {size - 2880} bytes, archived were {size}" in finding.sentence


def test_a_row_without_its_file_is_found(registry: Registry, store: Store) -> None:
    (store.raw / NIGHT.isoformat() / RAW).unlink()
    (store.products / NIGHT.isoformat() / PRODUCT).unlink()
    assert faults(registry, store) == [(Fault.MISSING, RAW), (Fault.MISSING, PRODUCT)]


def test_a_file_without_a_row_is_found(registry: Registry, store: Store) -> None:
    stranger = store.products / NIGHT.isoformat() / ".MU_MFLA_260617A_slow.fits.77.part"
    stranger.write_bytes(b"half")
    assert faults(registry, store) == [(Fault.UNKNOWN, stranger.name)]


def test_a_file_that_comes_while_others_are_read_is_no_finding(
    registry: Registry, store: Store, tmp_path: Path
) -> None:
    change(store.raw / NIGHT.isoformat() / RAW, 0)
    findings = verify(registry, store)
    assert next(findings).fault is Fault.ALTERED  # the rows have been read
    add_frame(registry, store, tmp_path / "MUSE.2026-06-17T10:42:20.000.fits", b"later")
    assert list(findings) == []


def test_a_product_archived_with_wrong_or_without_sums_is_found(registry: Registry, store: Store) -> None:
    add_product(registry, store, checksum=False, name="MU_MDRK_260617A_slow.fits")
    add_product(registry, store, checksum=True, name="MU_MFLA_260617A_slow.fits", changed=-2881)
    sentences = [finding.sentence for finding in verify(registry, store)]
    assert len(sentences) == 3
    assert "MU_MDRK_260617A_slow.fits, unit 0: CHECKSUM is not there and DATASUM is not there" in sentences[0]
    assert "MU_MFLA_260617A_slow.fits, unit 1: CHECKSUM is wrong and DATASUM is wrong" in sentences[2]


def test_a_quarantined_file_that_is_gone_is_found_until_it_is_released(registry: Registry, store: Store) -> None:
    arrival = Arrival(path="/incoming/bad.fits", first_seen=NOW, kept=str(store.quarantined / "bad.fits"))
    arrival.state = ArrivalState.QUARANTINED
    with registry.begin() as session:
        session.add(arrival)
    assert faults(registry, store) == [(Fault.MISSING, "bad.fits")]
    with registry.begin() as session:
        session.get_one(Arrival, arrival.id).state = ArrivalState.RELEASED
    assert faults(registry, store) == []
