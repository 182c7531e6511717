"""What people type for a row of the registry, and the row they mean. The one place that knows the forms.

``F12`` frame, ``G3`` group, ``S7`` step, ``P5`` product, ``A9`` arrival, each also in words (``step 7``, ``step7``,
``step:7``); a product's name or DP id; a frame's DP id or workstation name; the path or name of any file.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from archive.models import Arrival, Frame, Group, Product, Step
from daemon.cli.errors import NotFoundError, UsageError

Subject = Arrival | Frame | Group | Step | Product

KINDS: Mapping[str, type[Arrival | Frame | Group | Step | Product]] = {
    "frame": Frame,
    "group": Group,
    "step": Step,
    "product": Product,
    "arrival": Arrival,
}
_NUMBERED = re.compile(rf"(?P<kind>{'|'.join(KINDS)}|[fgspa])s?[\s:]?(?P<number>\d+)", re.IGNORECASE)
_BY_LETTER = {kind[0]: kind for kind in KINDS}
_SUFFIX = re.compile(r"\.fits(\.(fz|gz|Z))?$")
FORMS = "F12, G3, S7, P5, A9, 'step 7', a product name, a DP id or a file"


def label(row: Subject) -> str:
    """Return the short identifier of a row, ``S7``, as people may type it back."""
    return f"{type(row).__name__[0]}{row.id}"


def split(words: Sequence[str]) -> tuple[str, ...]:
    """Return one text an identifier from the words of a command line: ``step 7 F12`` is two.

    >>> split(["step", "7", "F12", "frame", "3"])
    ('step 7', 'F12', 'frame 3')
    """
    found: list[str] = []
    kind_waiting = False
    for word in words:
        if kind_waiting:
            found[-1] = f"{found[-1]} {word}"
            kind_waiting = False
        else:
            found.append(word)
            kind_waiting = word.lower().removesuffix("s") in KINDS
    return tuple(found)


def find(session: Session, text: str) -> Subject:
    """Return the row that a text means.

    Raises
    ------
    NotFoundError
        Nothing goes by it.
    UsageError
        A bare number, which could be anything.
    """
    text = text.strip()
    if numbered := _NUMBERED.fullmatch(text):
        kind = numbered["kind"].lower()
        return _by_number(session, _BY_LETTER.get(kind, kind), int(numbered["number"]))
    if text.isdigit():
        raise UsageError(
            f"{text} alone could be a frame, a group, a step, a product or an arrival; write one of {FORMS}."
        )
    row = _by_name(session, _SUFFIX.sub("", text)) or _by_file(session, text)
    if row is None:
        raise NotFoundError(f"Nothing in the registry goes by {text!r}; it takes {FORMS}.")
    return row


def _by_number(session: Session, kind: str, number: int) -> Subject:
    row = cast("Subject | None", session.get(KINDS[kind], number))  # mypy joins the kinds to their base
    if row is None:
        raise NotFoundError(f"The registry has no {kind} {number}.")
    return row


def _by_name(session: Session, name: str) -> Subject | None:
    product = session.scalar(select(Product).where((Product.name == f"{name}.fits") | (Product.dp_id == name)))
    newest_version = select(Frame).where((Frame.dp_id == name) | (Frame.origfile == f"{name}.fits"))
    return product or session.scalar(newest_version.order_by(Frame.version.desc(), Frame.id.desc()).limit(1))


def _by_file(session: Session, text: str) -> Subject | None:
    """Return the frame or product at a path, else the last file that arrived there or under that name."""
    path = str(Path(text).absolute())
    kept = session.scalar(select(Product).where(Product.path == path)) or session.scalar(
        select(Frame).where(Frame.path == path)
    )
    if kept:
        return kept
    seen = select(Arrival).where(
        (Arrival.path == path) | (Arrival.kept == path) | Arrival.path.endswith(f"/{text}", autoescape=True)
    )
    arrival = session.scalar(seen.order_by(Arrival.id.desc()).limit(1))
    return (arrival.frame or arrival.product or arrival) if arrival else None
