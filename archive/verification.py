"""Re-checking the archive: every checksum, and files against rows both ways."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from astropy.io import fits
from sqlalchemy import and_, or_, select

from archive.models import Arrival, Frame, Product
from archive.registry import Registry
from archive.states import ArrivalState
from archive.store import Store, digest_of

_STRANGE = (
    "is in no row of the registry; a killed process may have left it. If nothing is running, move it away, or back "
    "into the incoming folder if it is a raw frame."
)


_FROM_OUTSIDE = or_(and_(Product.static, Product.step_id.is_(None)), Product.run != "")


class Fault(StrEnum):
    """What can be wrong with a file of the archive."""

    MISSING = "missing"  # a row, but no file
    ALTERED = "altered"  # size or sha256 are not those of the row
    CHECKSUM = "checksum"  # CHECKSUM or DATASUM of an HDU are wrong or not there
    UNKNOWN = "unknown"  # a file, but no row


@dataclass(frozen=True)
class Finding:
    """One fault: which, of which file, and a sentence that says what was found and what to do."""

    fault: Fault
    path: Path
    sentence: str


def verify(registry: Registry, store: Store) -> Iterator[Finding]:
    """Read every file of the archive and compare it with its row; yield each fault when it is found.

    The rows are read at the begin; no transaction is open while files are read, which may take hours.
    """
    with registry.read() as session:
        frames = session.execute(select(Frame.path, Frame.size, Frame.digest)).all()
        products = session.execute(select(Product.path, Product.size, Product.digest, _FROM_OUTSIDE)).all()
        quarantined = session.scalars(select(Arrival.kept).where(Arrival.state == ArrivalState.QUARANTINED)).all()
    for path, size, digest in frames:
        yield from _check_bytes(Path(path), size, digest)
    for path, size, digest, from_outside in products:
        altered = list(_check_bytes(Path(path), size, digest))
        yield from altered or _check_units(Path(path), lenient=from_outside)
    for kept in quarantined:
        if kept and Path(kept).is_relative_to(store.quarantined) and not Path(kept).exists():
            yield Finding(Fault.MISSING, Path(kept), f"{kept} was quarantined, but is gone from there.")
    known = {path for path, *_ in [*frames, *products]}
    strangers = [file for file in store.files() if str(file) not in known]
    with registry.read() as session:  # again: files have come since the rows were read
        for file in strangers:
            if not any(session.scalar(select(table.id).where(table.path == str(file))) for table in (Frame, Product)):
                yield Finding(Fault.UNKNOWN, file, f"{file} {_STRANGE}")


def _check_bytes(path: Path, size: int, digest: str) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(Fault.MISSING, path, f"{path} is in the registry, but there is no such file; restore it.")
    elif (found := path.stat().st_size) != size:
        yield Finding(Fault.ALTERED, path, f"{path} has {found} bytes, archived were {size}; restore it.")
    elif digest_of(path) != digest:
        yield Finding(Fault.ALTERED, path, f"{path} has other content than was archived; restore it.")


def _check_units(path: Path, *, lenient: bool) -> Iterator[Finding]:
    """Check the sums of each unit; ``lenient`` for what may be without any."""
    with fits.open(path, memmap=False, disable_image_compression=True) as units:
        for number, unit in enumerate(units):
            if fault := _wrong_sums(unit, lenient=lenient):
                yield Finding(Fault.CHECKSUM, path, f"{path}, unit {number}: {fault}, although it is as archived.")


def _wrong_sums(unit: fits.PrimaryHDU, *, lenient: bool) -> str:
    """Return what is wrong with the two sums of a unit, '' if nothing is."""
    verdicts = {"CHECKSUM": unit.verify_checksum(), "DATASUM": unit.verify_datasum()}
    words = {0: "is wrong"} if lenient else {0: "is wrong", 2: "is not there"}  # what astropy returns beside 1, right
    return " and ".join(f"{keyword} {words[verdict]}" for keyword, verdict in verdicts.items() if verdict in words)
