"""For which exposures each static calibration is valid: from its day until the next of its type and setup."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.models import Product
from archive.select import PAIRED, candidate_of
from archive.states import Certification, feeds


class Standing(StrEnum):
    """What a static calibration is good for."""

    VALID = "valid"  # for exposures of its time
    REPLACED = "replaced"  # by another version of the same day
    UNPAIRED = "unpaired"  # half of a monthly pair whose other half is not there
    RETIRED = "retired"  # by an operator
    RED = "red"  # its score, and nobody certified it
    OBSOLETE = "obsolete"  # no recipe takes its type any more


@dataclass(frozen=True, kw_only=True)
class Validity:
    """One static calibration, the Modified Julian Date at which its validity ends (inf: it lasts), and its standing."""

    product: Product
    until: float
    standing: Standing


def validities(session: Session, catg: str = "") -> list[Validity]:
    """Return the static calibrations, all or those of one PRO.CATG, by type, setup and begin of validity."""
    wanted = select(Product, PAIRED).where(Product.static)
    rows = session.execute(wanted.where(Product.catg == catg) if catg else wanted).all()
    candidates = {product.id: candidate_of(product, paired=paired) for product, paired in rows}
    products = [product for product, _ in rows]
    products.sort(key=lambda row: (row.catg, row.setup, row.channels, row.mjd, candidates[row.id].made, row.id))
    made: list[Validity] = []
    following: Product | None = None
    for product in reversed(products):
        candidate = candidates[product.id]
        until = following.mjd if following and _serve_alike(product, following) else math.inf
        if product.certification is Certification.REJECTED:
            standing = Standing.RETIRED
        elif not feeds(product.certification, product.score):
            standing = Standing.RED
        elif candidate.obsolete:
            standing = Standing.OBSOLETE
        elif not candidate.paired:
            standing = Standing.UNPAIRED
        else:
            standing = Standing.VALID if until > product.mjd else Standing.REPLACED
            following = product
        made.append(Validity(product=product, until=min(until, candidate.until), standing=standing))
    return made[::-1]


def _serve_alike(one: Product, other: Product) -> bool:
    return (one.catg, one.setup, _alone(one.channels)) == (other.catg, other.setup, _alone(other.channels))


def _alone(channels: Sequence[int]) -> int | None:
    """Return the channel of a file that has only one; files of several channels, or of none, serve alike."""
    return channels[0] if len(channels) == 1 else None
