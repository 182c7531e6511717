"""The file that a public name stands for. Names come from outside: only rows tell where a file is."""

import re

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from archive.models import Frame, Product
from archive.naming import cleaned, raw_name, suffix_of

_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._:+\-]{0,127}?)(\.v(?P<version>[1-9]\d{0,5}))?(\.fits(\.(fz|gz|Z))?)?"
)


def find_holding(session: Session, name: str) -> Frame | Product | None:
    """Return the frame or product of a name, None if there is none.

    Parameters
    ----------
    session : Session
    name : str
        Data-product identifier or name of a file in the archive, with or without suffix. Of a raw frame that came more
        than once it is the newest version, unless the name has another: ``MUSE.2026-06-17T10:41:11.000.v1``.
    """
    known = _NAME.fullmatch(name)
    if known is None:
        return None
    frames = select(Frame).where(Frame.dp_id == known["name"])
    if known["version"]:
        return session.scalar(frames.where(Frame.version == int(known["version"])))
    product = select(Product).where(or_(Product.dp_id == known["name"], Product.name == f"{known['name']}.fits"))
    return session.scalar(product) or session.scalar(frames.order_by(Frame.version.desc()).limit(1))


def archive_name(row: Frame | Product) -> str:
    """Return the technical name of a file: ``MUSE.<time>.fits.fz``, ``M.MUSE.<time>.fits``."""
    if isinstance(row, Product):
        return f"{row.dp_id}.fits"
    # The newest version has the name that everybody asks for.
    return (
        raw_name(row.dp_id, row.version, suffix_of(row.path)) if row.superseded_by else row.dp_id + suffix_of(row.path)
    )


def original_name(row: Frame | Product) -> str:
    """Return the human name of a file: of a product its own, of a frame that of the workstation (ORIGFILE).

    A frame without one has its technical name.
    """
    if isinstance(row, Product):
        return row.name
    stem = row.origfile.removesuffix(suffix_of(row.origfile))
    return cleaned(stem + suffix_of(row.path)) if stem else archive_name(row)
