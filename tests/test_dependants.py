"""What was made of something is found through the whole cascade, with what a change of it would cost."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from small_night import MORNING, MakeWorld, World
from sqlalchemy import select
from typer.testing import CliRunner

from archive.models import Frame, Group, Part, Product, Step
from archive.states import Certification, StepState
from daemon.cli.application import app
from tasks.cascade import Tag
from tasks.dependants import find_dependants
from tasks.settings import RemakePolicy

DAY = timedelta(days=1)
FLATS = MORNING + timedelta(hours=1, minutes=35)
DARKS = MORNING + timedelta(hours=4)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A bias of which darks and flats of its own and of the next night were made; the flats took the darks too."""
    world = make_world(plan={"use_darks": True})
    world.template(Tag.BIAS, MORNING)
    for night in (0 * DAY, DAY):
        world.template(Tag.DARK, DARKS + night)
        world.template(Tag.FLAT, FLATS + night)
    world.settle()
    with world.registry.begin() as session:
        for part in session.scalars(select(Part)):
            part.seconds = 2.0
    return world


def reached(world: World, kind: type[Any], number: int, remake: RemakePolicy = RemakePolicy.NIGHT) -> list[str]:
    with world.registry.read() as session:
        found = find_dependants(session, session.get_one(kind, number), remake)
        return [f"{one.depth} {one.step.name} of {one.step.group.night:%d} {one.remade} {one.seconds}" for one in found]


def test_the_cascade_is_followed_to_its_end_and_told_by_depth(world: World) -> None:
    expected = [
        "1 dark of 16 by itself 6.0",
        "1 dark of 17 on request 6.0",
        "2 flat of 16 by itself 6.0",
        "2 flat of 17 on request 6.0",
    ]
    assert reached(world, Product, 1) == expected
    assert reached(world, Step, 1) == expected
    deeper = [f"{int(line[0]) + 1}{line[1:]}" for line in expected]
    assert reached(world, Group, 1) == ["1 bias of 16 by itself 6.0", *deeper]
    assert reached(world, Frame, 1) == reached(world, Group, 1)


@pytest.mark.parametrize(("remake", "fate"), [(RemakePolicy.ALWAYS, "by itself"), (RemakePolicy.NEVER, "on request")])
def test_the_policy_says_what_comes_of_it_by_itself(world: World, remake: RemakePolicy, fate: str) -> None:
    assert all(fate in line for line in reached(world, Product, 1, remake))


def test_what_is_said_to_happen_by_itself_is_what_happens(world: World) -> None:
    """A rejection, with another bias a little farther away in the same night."""
    world.template(Tag.BIAS, MORNING + timedelta(minutes=20))
    world.settle()
    before = {step.id for name in ("dark", "flat") for step in world.steps(name)}
    with world.registry.read() as session:
        used = {
            one.id: find_dependants(session, one, RemakePolicy.NIGHT)
            for one in session.scalars(select(Product).where(Product.catg == "MASTER_BIAS"))
        }
        product, foretold = max(used.items(), key=lambda item: sum(one.remade == "by itself" for one in item[1]))
        again = {(one.step.group_id, one.step.name) for one in foretold if one.remade == "by itself"}
        name = session.get_one(Product, product).name
    assert again
    world.judge(name, Certification.REJECTED)
    world.settle()
    after = [step for name in ("dark", "flat") for step in world.steps(name)]
    assert {(step.group_id, step.name) for step in after if step.id not in before} == again


def test_an_older_make_is_told_as_replaced_and_counts_no_more(world: World) -> None:
    world.arrive(Tag.BIAS, MORNING, 2, version=2)
    world.settle()
    assert {line.split(maxsplit=4)[4] for line in reached(world, Product, 1) if "of 16" in line} == {"replaced 6.0"}


def test_of_a_static_calibration_everything_is_found_that_took_it(make_world: MakeWorld) -> None:
    world = make_world()
    world.static("BADPIX_TABLE", date(2014, 1, 1))
    world.template(Tag.BIAS, MORNING)
    world.template(Tag.FLAT, FLATS)
    world.settle()
    assert [line[:6] for line in reached(world, Product, 1)] == ["1 bias", "2 flat"]


class TestCommands:
    @pytest.fixture
    def musecal(self, world: World, tmp_path: Path) -> Any:  # noqa: ANN401 - a function
        file = tmp_path / "settings.toml"
        url = world.registry.url.render_as_string(hide_password=False)
        file.write_text(f'[registry]\nurl = "{url}"\n[archive]\nroot = "archive"\n[plan]\nuse_darks = true\n')

        def run(*arguments: str) -> str:
            result = CliRunner().invoke(app, [*arguments, "--settings", str(file)], env={"COLUMNS": "140"})
            assert result.exit_code == 0, result.stderr
            return result.stdout

        return run

    def test_reach_answers_first_and_lists_then(self, musecal: Any) -> None:  # noqa: ANN401
        told = musecal("reach", "P1")
        assert "4 steps with 6 products, in 2 nights, go back to P1" in told
        assert "2 of them are made again by themselves (plan.remake: night), 2 on request" in told
        record = json.loads(musecal("reach", "P1", "--json"))
        assert (record["by_itself"], record["on_request"], record["cpu_seconds"]) == (2, 2, 24.0)
        assert record["by_night"] == {"2026-06-16": 2, "2026-06-17": 2}
        assert len(record["steps"][-1]["products"]) == 2

    def test_a_rejection_that_is_only_tried_shows_the_reach(self, musecal: Any) -> None:  # noqa: ANN401
        told = musecal("reject", "P1", "--comment", "bad", "--dry-run")
        assert "would be rejected" in told
        assert "4 steps with 6 products" in told

    def test_all_that_is_stale_is_listed_and_made_again(self, world: World, musecal: Any) -> None:  # noqa: ANN401
        assert "No step is stale." in musecal("queue", "--stale")
        world.now += 3 * DAY
        world.settings.recipes["muse_dark"]["lsigma"] = 4.0
        world.settle()
        stale = {record["id"] for record in json.loads(musecal("queue", "--stale", "--json"))}
        assert len(stale) == 4
        night = json.loads(musecal("requeue", "--stale", "--night", "2026-06-16", "--json"))["rows"]
        assert [row["name"] for row in night] == ["dark", "flat"]
        assert {row["priority"] for row in night} == {6}
        world.settle()
        dark, flat = world.steps("dark")[-1], world.steps("flat")[-1]
        assert (dark.sequence, flat.sequence, flat.state) == (2, 2, StepState.DONE)
        assert world.used(flat, "MASTER_DARK") == f"MASTER_DARK of step {dark.id}"
