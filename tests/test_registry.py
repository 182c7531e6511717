"""The registry behaves the same on both databases, in one process and in many."""

import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, select, text, update
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session

from archive.history import history, record
from archive.models import Event, Frame, Group, Product, Row, Step
from archive.registry import Registry, RegistryOutdated, migrations
from archive.setup import Setup
from archive.states import GroupState

NOW = datetime(2026, 6, 17, 12, 0, tzinfo=UTC)


def a_group(key: str = "2026-06-17T10:40:27") -> Group:
    closes = NOW + timedelta(hours=1)
    return Group(tag="BIAS", key=key, night=NOW.date(), mjd=61208.4, expected=11, last_arrival=NOW, closes=closes)


def add_a_group_and_fail(registry: Registry, statement: str = "") -> None:
    with registry.begin() as session:
        group = a_group()
        session.add(group)
        record(session, group, "group opened", now=NOW)
        if statement:
            session.execute(text(statement))
        raise RuntimeError


def engine_of(registry: Registry) -> Engine:
    return create_engine(registry.url)


class TestUpgrade:
    def test_without_tables_the_registry_tells_what_to_run(self, empty_registry: Registry) -> None:
        with pytest.raises(RegistryOutdated, match="musecal db upgrade"):
            empty_registry.check()

    def test_after_upgrade_the_check_is_content_and_a_second_upgrade_changes_nothing(
        self, empty_registry: Registry
    ) -> None:
        empty_registry.upgrade()
        with empty_registry.begin() as session:
            session.add(a_group())
        empty_registry.upgrade()
        empty_registry.check()
        with empty_registry.read() as session:
            assert session.scalars(select(Group.expected)).all() == [11]

    def test_a_registry_of_newer_programs_is_refused(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = 'future'"))
        with pytest.raises(RegistryOutdated, match="revision future"):
            registry.check()

    def test_the_revisions_make_the_tables_of_the_models(self, registry: Registry) -> None:
        engine = engine_of(registry)
        with engine.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Row.metadata) == []
        engine.dispose()

    def test_the_revisions_make_the_constraints_of_the_models(self, empty_registry: Registry) -> None:
        """What Alembic does not compare: checks of the states, precision, names of keys."""
        empty_registry.upgrade()
        engine = engine_of(empty_registry)
        migrated = {table: described(engine, table) for table in Row.metadata.tables}
        Row.metadata.drop_all(engine)
        Row.metadata.create_all(engine)
        assert migrated == {table: described(engine, table) for table in Row.metadata.tables}
        engine.dispose()

    def test_an_archive_of_the_first_revision_keeps_its_rows(self, empty_registry: Registry) -> None:
        """What was there before static calibrations were known is there afterwards, and hangs together."""
        engine = engine_of(empty_registry)
        if empty_registry.url.get_backend_name() == "sqlite":
            Path(str(empty_registry.url.database)).parent.mkdir(parents=True)
        with engine.begin() as connection:
            command.upgrade(migrations(connection), "0001")
            for statement in _OLD_ROWS:
                connection.execute(text(statement))
        engine.dispose()
        empty_registry.upgrade()
        empty_registry.check()
        with empty_registry.read() as session:
            [product], [step] = session.scalars(select(Product)), session.scalars(select(Step))
            assert (product.step, product.response, product.geometry, product.arrivals) == (step, None, None, [])
            assert (step.group.tag, step.group.partner, step.group.released) == ("BIAS", None, None)
        with pytest.raises(IntegrityError), empty_registry.begin() as session:
            session.execute(text("UPDATE product SET certification = 'lost'"))  # the checks are still there
        with pytest.raises(IntegrityError), empty_registry.begin() as session:
            session.execute(text("UPDATE product SET geometry_id = 99"))
        with pytest.raises(IntegrityError), empty_registry.begin() as session:
            session.execute(text("DELETE FROM step"))


_OLD_ROWS = (
    """INSERT INTO "group" (id, tag, key, night, mjd, expected, state, reason, last_arrival, closes)
    VALUES (3, 'BIAS', 'k', '2026-06-16', 61208.4, 11, 'complete', '', '2026-06-17 12:00', '2026-06-17 12:30')""",
    """INSERT INTO step (id, group_id, name, sequence, state, priority, recipe, recipe_version, parameters, missing,
    warnings, stale, error, error_kind, created)
    VALUES (5, 3, 'bias', 1, 'done', 5, 'muse_bias', '1', '{}', '[]', '[]', '', '', '', '2026-06-17 12:00')""",
    """INSERT INTO product (id, step_id, catg, name, dp_id, path, size, digest, night, mjd, channels, certification,
    score, static, reviewed, created, mode, readout, readout_id, binx, biny, filter, optics)
    VALUES (7, 5, 'MASTER_BIAS', 'MU_MBIA_260617A_slow.fits', 'M.MUSE.1', '/p', 1, 'd', '2026-06-16', 61208.4, '[1]',
    'provisional', '', FALSE, TRUE, '2026-06-17 12:00', 'WFM-NOAO-N', 'SCI1.0', 1, 1, 1, '', 'WFM')""",
)


def described(engine: Engine, table: str) -> dict[str, Any]:
    found = inspect(engine)
    return {
        "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)],
        "checks": sorted((c["name"], c["sqltext"]) for c in found.get_check_constraints(table)),
        "key": found.get_pk_constraint(table),
        "uniques": sorted((u["name"], u["column_names"]) for u in found.get_unique_constraints(table)),
        "refers": sorted((f["name"], f["constrained_columns"]) for f in found.get_foreign_keys(table)),
        "indexes": sorted((i["name"], i["column_names"]) for i in found.get_indexes(table)),
    }


class TestTransactions:
    def test_an_error_takes_back_the_whole_transaction(self, registry: Registry) -> None:
        with pytest.raises(RuntimeError):
            add_a_group_and_fail(registry)
        with registry.read() as session:
            assert session.scalars(select(Group)).all() == []

    def test_a_reader_cannot_write(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.add(a_group())
        with pytest.raises(DatabaseError, match=r"read-?only"), registry.read() as session:
            session.execute(update(Group).values(expected=5))

    def test_a_writer_after_a_reader_can_write(self, registry: Registry) -> None:
        with registry.read() as session:
            session.scalars(select(Group)).all()
        with registry.begin() as session:
            session.add(a_group())
        with registry.read() as session:
            assert len(session.scalars(select(Group)).all()) == 1

    def test_a_reader_sees_one_moment_and_does_not_wait_for_the_writer(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.add(a_group("first"))
        with registry.read() as reading:
            assert len(reading.scalars(select(Group)).all()) == 1
            with registry.begin() as session:
                session.add(a_group("second"))
                session.flush()
                assert len(reading.scalars(select(Group)).all()) == 1
            assert len(reading.scalars(select(Group)).all()) == 1

    def test_the_database_refuses_an_unknown_state(self, registry: Registry) -> None:
        with pytest.raises(IntegrityError):
            add_a_group_and_fail(registry, """UPDATE "group" SET state = 'nonsense'""")

    def test_the_database_refuses_a_reference_to_nothing(self, registry: Registry) -> None:
        with pytest.raises(IntegrityError), registry.begin() as session:
            session.add(Step(group_id=99, name="bias", created=NOW))

    def test_rows_remain_readable_after_the_session(self, registry: Registry) -> None:
        with registry.begin() as session:
            group = a_group()
            session.add(group)
        assert (group.id, group.state) == (1, GroupState.OPEN)


class TestValues:
    def test_times_come_back_in_utc_from_every_zone(self, registry: Registry) -> None:
        group = a_group()
        group.closes = datetime(2026, 6, 17, 8, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-4)))
        with registry.begin() as session:
            session.add(group)
        with registry.read() as session:
            closes = session.scalars(select(Group.closes)).one()
        assert closes == group.closes
        assert closes.utcoffset() == timedelta(0)

    def test_a_time_without_zone_is_refused(self, registry: Registry) -> None:
        with pytest.raises(Exception, match="aware times only"), registry.begin() as session:
            session.add(Group(**{**columns(a_group()), "closes": datetime(2026, 6, 17)}))  # noqa: DTZ001 - the point

    def test_a_frame_keeps_its_setup_its_size_and_the_last_digit_of_its_time(self, registry: Registry) -> None:
        setup = Setup(mode="WFM-NOAO-N", readout="SCI1.0", readout_id=1, filter="Blue", optics="WFM")
        with registry.begin() as session:
            session.add(a_frame(setup=setup))
        with registry.read() as session:
            frame = session.scalars(select(Frame)).one()
        assert frame.setup == setup
        assert frame.size == 6 * 2**30  # a full set of channels as floats passes 32 bits
        assert frame.mjd == 61208.445266203703


def columns(row: Row) -> dict[str, Any]:
    return {key: value for key, value in vars(row).items() if not key.startswith("_")}


def a_frame(**changes: object) -> Frame:
    values: dict[str, Any] = {
        "dp_id": "MUSE.2026-06-17T10:41:11.000", "digest": "0" * 64, "path": "/archive/raw/one.fits", "size": 6 * 2**30,
        "tag": "BIAS", "catg": "CALIB", "type": "BIAS", "tech": "IFU", "rule": "bias", "mjd": 61208.445266203703,
        "exptime": 0.0, "night": NOW.date(), "ingested": NOW, "setup": Setup(),
    }  # fmt: skip
    return Frame(**values | changes)


class TestHistory:
    def test_a_row_tells_its_history_in_order_and_only_its_own(self, registry: Registry) -> None:
        with registry.begin() as session:
            first, second = a_group("first"), a_group("second")
            session.add_all([first, second])
            record(session, first, "group opened", now=NOW)
            record(session, second, "group opened", now=NOW)
            record(session, first, "group complete", "all 11 frames are here", now=NOW, frames=11)
        with registry.read() as session:
            events = history(session, session.get_one(Group, first.id))
            told = [(event.what, event.why, event.data) for event in events]
        assert told == [("group opened", "", {}), ("group complete", "all 11 frames are here", {"frames": 11})]

    def test_a_row_that_was_never_added_has_no_history(self, registry: Registry) -> None:
        with registry.begin() as session, pytest.raises(ValueError, match="add it to the session"):
            record(session, a_group(), "group opened", now=NOW)

    def test_what_is_rolled_back_leaves_no_event(self, registry: Registry) -> None:
        with pytest.raises(RuntimeError):
            add_a_group_and_fail(registry)
        with registry.read() as session:
            assert session.scalars(select(Event)).all() == []


COUNT_UP = """
import sys
from sqlalchemy import select
from archive.models import Group
from archive.registry import Registry

registry = Registry(sys.argv[1])
for _ in range(40):
    with registry.begin() as session:
        group = session.scalars(select(Group)).one()
        session.expire_all()
        group.expected = group.expected + 1
"""


class TestProcesses:
    def test_writers_in_several_processes_lose_nothing_that_they_read_and_wrote(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.add(a_group())
        url = registry.url.render_as_string(hide_password=False)
        counting = [subprocess.Popen([sys.executable, "-c", COUNT_UP, url]) for _ in range(3)]
        assert [process.wait(120) for process in counting] == [0, 0, 0]
        with registry.read() as session:
            assert session.scalars(select(Group.expected)).one() == 11 + 3 * 40

    def test_a_killed_writer_leaves_nothing_behind(self, registry: Registry) -> None:
        child = os.fork()
        if child == 0:
            with registry.begin() as session:
                session.add(a_group())
                session.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with registry.begin() as session:
            assert session.scalars(select(Group)).all() == []

    def test_a_child_works_on_connections_of_its_own(self, registry: Registry) -> None:
        with registry.begin() as session:
            session.add(a_group())
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with registry.begin() as session:
                    session.execute(update(Group).values(expected=5))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        with registry.begin() as session:
            assert session.scalars(select(Group.expected)).one() == 5

    def test_no_idle_connection_is_open_while_a_process_forks(self, registry: Registry) -> None:
        before = open_files()
        with registry.read() as session:
            session.scalars(select(Group)).all()
        assert open_files() != before  # the idle connection is kept for the next transaction
        child = os.fork()
        if child == 0:
            # Fewer may be open than before: registries of other tests close their connections too.
            os._exit(bool(Counter(open_files()) - Counter(before)))
        assert os.waitpid(child, 0)[1] == 0


def open_files() -> list[str]:
    """Where the descriptors of this process lead; the one that lists them is gone by then."""
    found = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sorted(place for place in found if not place.startswith("/proc/"))


def test_a_url_of_another_database_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="sqlite:///") as refused:
        Registry("mysql://somebody:secret@host/base")
    assert "secret" not in str(refused.value)


def test_a_session_is_not_left_open(registry: Registry) -> None:
    with registry.begin() as session:
        session.add(a_group())
    assert isinstance(session, Session)
    assert not session.in_transaction()
