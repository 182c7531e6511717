"""What belongs to a frame is found by indexes alone: the number of nights in the registry does not matter."""

import re
import sqlite3
from typing import Any

import pytest
from sqlalchemy import event, select

from archive.holdings import find_holding
from archive.models import Frame
from archive.registry import Registry
from archive.search import FrameSearch, ProductSearch, find_frames, find_products
from archive.states import Certification
from benchmarks.decade import fill
from tasks.associating import associate, retrieval_policy
from tasks.associations import Mode
from tasks.cascade import Tag
from tasks.settings import Settings

NIGHTS = 4
# A scan of a table; all steps or groups of a state, which is nearly all there are; all products of a category.
SLOW = re.compile(r"SCAN (frame|product|step|group|use)\b|_by_state\b|product_by_catg_time \(catg=\?\)")


@pytest.fixture
def nights(registry: Registry) -> Registry:
    fill(registry, NIGHTS)
    return registry


def science(registry: Registry) -> str:
    with registry.read() as session:
        objects = select(Frame.dp_id).where(Frame.tag == Tag.OBJECT).order_by(Frame.mjd)
        dp_ids = session.scalars(objects).all()
    return dp_ids[len(dp_ids) // 2]


@pytest.mark.parametrize("mode", Mode)
def test_the_nights_of_the_benchmark_have_whole_trees(nights: Registry, mode: Mode) -> None:
    with nights.read() as session:
        frame = find_holding(session, science(nights))
        assert isinstance(frame, Frame)
        tree = associate(session, frame, mode, retrieval_policy(Settings()))
    assert (tree.mode, tree.top.complete) == (mode, True)
    assert len(list(tree.files())) > (100 if mode is Mode.RAW2RAW else 12)


@pytest.mark.parametrize("registry", ["sqlite"], indirect=True)
def test_no_question_goes_through_a_table(nights: Registry) -> None:
    """SQLite is the one to watch: it chooses its way without knowing how many rows there are of a kind."""
    dp_id, slow, asked = science(nights), set[str](), 0
    with nights.read() as session:
        connection = session.connection()

        @event.listens_for(connection, "before_cursor_execute")
        def explain(_c: object, cursor: sqlite3.Cursor, statement: str, values: Any, *_: object) -> None:  # noqa: ANN401 - whatever the driver takes
            nonlocal asked
            asked += 1
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            slow.update(f"{row[3]}: {statement}" for row in plan if SLOW.search(row[3]))

        frame = find_holding(session, dp_id)
        assert isinstance(frame, Frame)
        for mode in Mode:
            associate(session, frame, mode, retrieval_policy(Settings()))
        find_frames(session, FrameSearch(limit=100, object=frame.object))
        find_frames(session, FrameSearch(limit=100, name=frame.origfile))
        around: dict[str, Any] = {"since": frame.mjd - 1, "before": frame.mjd + 1}
        certified = (Certification.CERTIFIED,)
        find_products(session, ProductSearch(limit=9, types=("MASTER_FLAT",), certifications=certified, **around))
    assert asked > 15
    assert not slow
