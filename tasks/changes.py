"""What changed from the product before: which one that is, and the share of pixels that are off.

The measurements are ours and stand in no file: their names are in lower case, which no keyword of a header has.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import delete
from sqlalchemy.orm import Session

from archive.models import Measurement, Product
from archive.series import after, before
from archive.setup import Setup
from recipes.change import SIGMAS, measure_change, measurement_name
from recipes.fits import open_image

# Images that are compared, and whether they are brought to the same median first.
COMPARED: Mapping[str, bool] = MappingProxyType({"MASTER_BIAS": False, "MASTER_DARK": False, "MASTER_FLAT": True})
NAMES = tuple(map(measurement_name, SIGMAS))


@dataclass(frozen=True)
class Neighbour:
    """The product before or after another one."""

    product_id: int
    path: Path
    channels: tuple[int, ...]

    @classmethod
    def of(cls, product: Product | None) -> "Neighbour | None":
        """Return what has to be known of a product."""
        return None if product is None else cls(product.id, Path(product.path), tuple(product.channels))


@dataclass(frozen=True)
class Neighbours:
    """The products before and after another one in observation time; None where there is none."""

    before: Neighbour | None = None
    after: Neighbour | None = None


@dataclass(frozen=True)
class Change:
    """One share of one channel."""

    channel: int
    name: str
    share: float


@dataclass(frozen=True)
class Changes:
    """What was measured when a product came between its neighbours: its own change, and that of the one after it."""

    neighbours: Neighbours = Neighbours()
    own: tuple[Change, ...] = ()
    following: tuple[Change, ...] = ()


def neighbours(session: Session, catg: str, setup: Setup, mjd: float) -> Neighbours:
    """Return the products between which one of this time comes; none of types that are not compared."""
    if catg not in COMPARED:
        return Neighbours()
    return Neighbours(Neighbour.of(before(session, catg, setup, mjd)), Neighbour.of(after(session, catg, setup, mjd)))


def measure(catg: str, path: Path, channels: Iterable[int], around: Neighbours, scratch: Path) -> Changes:
    """Compare a product with the one before it, and the one after it with this.

    Parameters
    ----------
    scratch : Path
        Folder for channels of compressed files.

    Raises
    ------
    UnreadableFile, AbsentChannel
        A file is not what its row says.
    """
    this = Neighbour(0, path, tuple(channels))
    return Changes(
        around, tuple(_compare(catg, this, around.before, scratch)), tuple(_compare(catg, around.after, this, scratch))
    )


def _compare(catg: str, newer: Neighbour | None, older: Neighbour | None, scratch: Path) -> Iterable[Change]:
    """Yield the shares of each channel that both have; nothing where a file is not there any more."""
    if newer is None or older is None or not (newer.path.is_file() and older.path.is_file()):
        return
    for channel in sorted(set(newer.channels) & set(older.channels)):
        image, earlier = (open_image(item.path, channel, scratch=scratch) for item in (newer, older))
        for item in measure_change(image, earlier, scaled=COMPARED[catg]):
            yield Change(channel, item.name, float(item.value))


def replace_changes(session: Session, product: Product, compared: Product, changes: Iterable[Change]) -> None:
    """Give a product other measurements of change, against the product that is before it from now on."""
    session.execute(delete(Measurement).where(Measurement.product_id == product.id, Measurement.name.in_(NAMES)))
    session.add_all(
        Measurement(product_id=product.id, channel=item.channel, name=item.name, value=item.share) for item in changes
    )
    product.compared = compared
    session.flush()
