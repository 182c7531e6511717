"""The history of the rows: what happened, when and why. Nothing rewrites it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from archive.models import Event, Row


def record(session: Session, row: Row, what: str, why: str = "", *, now: datetime, **data: Any) -> Event:  # noqa: ANN401 - any value that JSON can hold
    """Add one event to the history of a row, in the transaction that changes the row.

    Parameters
    ----------
    what : str
        Constant words, "step done", so that events can be counted and searched.
    why : str
        A sentence for a person, '' where ``what`` says it all.
    **data
        The numbers and names of the event, as JSON can hold them.
    """
    session.flush()  # a new row gets its id
    event = Event(at=now, subject=row.__tablename__, subject_id=_id(row), what=what, why=why, data=data)
    session.add(event)
    return event


def history(session: Session, row: Row) -> Sequence[Event]:
    """Return the events of a row in the order in which they were recorded."""
    ours = (Event.subject == row.__tablename__, Event.subject_id == _id(row))
    return session.scalars(select(Event).where(*ours).order_by(Event.id)).all()


def _id(row: Row) -> int:
    identity = inspect(row).identity
    if identity is None:
        raise ValueError(f"{row} is not in the registry yet, so it has no history; add it to the session first.")
    number: int = identity[0]
    return number
