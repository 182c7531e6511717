"""Products of one type and setup along the time of their observation: what came before a product, and what after.

Of each group the newest make alone counts, whatever its score. When the products were made, and in which order, makes
no difference.
"""

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, aliased

from archive.models import Product, Step
from archive.setup import Setup, SetupKey

_made, _later, _other = aliased(Step), aliased(Step), aliased(Product)
_REPLACED = exists().where(
    _made.id == Product.step_id,
    _later.group_id == _made.group_id,
    _later.name == _made.name,
    _later.sequence > _made.sequence,
    _other.step_id == _later.id,
    _other.catg == Product.catg,
)


def series(catg: str, setup: Setup) -> Select[Product]:
    """Return the query for the newest makes of one type and setup."""
    alike = (getattr(Product, key) == setup.value(key) for key in SetupKey)
    return select(Product).where(Product.catg == catg, *alike, ~_REPLACED)


def before(session: Session, catg: str, setup: Setup, mjd: float) -> Product | None:
    """Return the last product observed before a time that was made here."""
    earlier = series(catg, setup).where(Product.mjd < mjd, Product.run == "")
    return session.scalars(earlier.order_by(Product.mjd.desc(), Product.name).limit(1)).one_or_none()


def after(session: Session, catg: str, setup: Setup, mjd: float) -> Product | None:
    """Return the first product observed after a time that was made here."""
    later = series(catg, setup).where(Product.mjd > mjd, Product.run == "")
    return session.scalars(later.order_by(Product.mjd, Product.name).limit(1)).one_or_none()


def within(session: Session, catg: str, setup: Setup, first: float, last: float) -> list[Product]:
    """Return the products observed between two times, both of which are left out, in order of observation."""
    span = series(catg, setup).where(Product.mjd > first, Product.mjd < last)
    return list(session.scalars(span.order_by(Product.mjd, Product.name)))
