"""How a worker is fitted to its machine, and when systemd may believe that it hangs."""

import pytest

from daemon import pool
from tasks.settings import WorkerSettings

GIGABYTE = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "parts"),
    [(2, 16 * GIGABYTE, 2), (32, 8 * GIGABYTE, 4), (8, GIGABYTE, 1)],
    ids=["as many as cores", "as many as fit into memory", "never none"],
)
def test_as_many_parts_at_once_as_the_machine_holds(cores: int, memory: int, parts: int) -> None:
    assert pool.concurrency_of(WorkerSettings(memory_limit_mb=2000), cores=cores, memory=memory) == parts


def test_the_setting_goes_first() -> None:
    assert pool.concurrency_of(WorkerSettings(concurrency=7), cores=2, memory=GIGABYTE) == 7


def test_a_silent_loop_hangs_unless_the_broker_is_away() -> None:
    now, away = 0.0, False
    pulse = pool.Pulse(silent=lambda: away, clock=lambda: now)
    now = 50.0
    pulse.tick()
    now = 50.0 + pool.LONGEST_SILENCE
    assert pulse.alive()
    now += 1.0
    assert not pulse.alive()
    away = True
    assert pulse.alive()
    away = False
    pulse.tick()
    assert pulse.alive()
