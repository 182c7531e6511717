"""What is handed out with a frame: the closest in time by levels, the raw frames behind it, and what is missing."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from small_night import MORNING, World
from sqlalchemy import select

from archive.holdings import find_holding
from archive.models import Frame, Product
from archive.registry import Registry
from archive.setup import Setup
from archive.states import Certification, Score
from recipes.recipe import Value
from tasks.associating import associate, retrieval_policy
from tasks.associations import Association, Mode, Tree, Validity
from tasks.cascade import Tag

DUSK = datetime(2026, 6, 16, 22, 5, tzinfo=UTC)
SCIENCE = datetime(2026, 6, 17, 3, tzinfo=UTC)
STATICS = {
    "LINE_CATALOG": Setup(), "GEOMETRY_TABLE": Setup(optics="WFM"), "EXTINCT_TABLE": Setup(),
    "STD_FLUX_TABLE": Setup(), "SKY_LINES": Setup(), "LSF_PROFILE": Setup(mode="WFM-N", readout="SCI1.0"),
}  # fmt: skip


def a_night(world: World) -> None:
    """Everything that a science frame needs, reduced."""
    for catg, setup in STATICS.items():
        world.static(catg, date(2020, 1, 1), setup=setup)
    world.template(Tag.SKYFLAT, DUSK)
    world.template(Tag.STD, SCIENCE - timedelta(hours=2), of=1)
    for hours, (tag, number) in enumerate({Tag.BIAS: 3, Tag.FLAT: 3}.items()):
        world.template(tag, MORNING + timedelta(hours=hours), of=number)
    for number in range(1, 10):
        lamp = 3 + number % 3
        cards = {f"ESO INS LAMP{lamp} ST": True, f"ESO INS SHUT{lamp} ST": True}
        world.arrive(Tag.ARC, MORNING + timedelta(hours=3), number, 9, cards=cards)
    world.settle()


@pytest.fixture
def world(registry: Registry) -> World:
    return World(registry)


SCIENTIFIC: dict[str, Value] = {
    "ESO DPR CATG": "SCIENCE", "ESO DPR TYPE": "OBJECT", "ESO INS OPTI2 NAME": "WFM", "EXPTIME": 600.0,
}  # fmt: skip


def science(world: World, start: datetime = SCIENCE) -> int:
    return world.arrive(Tag.OBJECT, start, 1, 1, cards=SCIENTIFIC)


def tree_of(world: World, frame_id: int, mode: Mode) -> Tree:
    with world.registry.read() as session:
        return associate(session, session.get_one(Frame, frame_id), mode, retrieval_policy(world.settings))


def below(association: Association) -> dict[str, Association]:
    return {one.category: one for one in association.associated}


def walk(association: Association) -> Iterator[Association]:
    yield association
    for one in association.associated:
        yield from walk(one)


class TestMasters:
    def test_a_science_frame_gets_the_masters_that_the_last_recipe_takes_and_nothing_else(self, world: World) -> None:
        a_night(world)
        tree = tree_of(world, science(world), Mode.RAW2MASTER)
        assert (tree.asked, tree.mode, tree.top.messages) == (Mode.RAW2MASTER, Mode.RAW2MASTER, ())
        assert set(below(tree.top)) == {
            "MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "TWILIGHT_CUBE", "GEOMETRY_TABLE",
            "LSF_PROFILE", "STD_RESPONSE", "STD_TELLURIC", "EXTINCT_TABLE", "SKY_LINES",
        }  # fmt: skip
        assert all(one.associated == () for one in tree.top.associated)
        assert tree.top.complete
        flat = below(tree.top)["MASTER_FLAT"]
        assert (flat.match, flat.level, flat.certified) == (Validity.CALIB_PLAN, 0, False)
        assert flat.days == pytest.approx(8.7 / 24, abs=0.02)  # from the middle of the exposure to that of the flats
        assert (below(tree.top)["LSF_PROFILE"].match, below(tree.top)["LSF_PROFILE"].certified) == ("N/A", True)

    def test_the_frame_is_certified_once_all_its_calibrations_are(self, world: World) -> None:
        a_night(world)
        frame_id = science(world)
        assert not tree_of(world, frame_id, Mode.RAW2MASTER).top.certified
        with world.registry.read() as session:
            provisional = select(Product.name).where(Product.certification == Certification.PROVISIONAL)
            names = session.scalars(provisional).all()
        for name in names:
            world.judge(name, Certification.CERTIFIED)
        tree = tree_of(world, frame_id, Mode.RAW2MASTER)
        assert all(one.certified for one in walk(tree.top))
        assert all(one.certified for one in walk(tree_of(world, frame_id, Mode.RAW2RAW).top))

    def test_what_is_farther_away_is_handed_out_with_its_level(self, world: World) -> None:
        a_night(world)
        tree = tree_of(world, science(world, SCIENCE + timedelta(days=6)), Mode.RAW2MASTER)
        bias = below(tree.top)["MASTER_BIAS"]
        assert (bias.level, bias.match) == (2, Validity.EXTENDED)
        assert below(tree.top)["TWILIGHT_CUBE"].level == 1

    @pytest.mark.parametrize("spoil", ["rejected", "red"])
    def test_what_was_rejected_or_is_red_is_not_handed_out(self, world: World, spoil: str) -> None:
        a_night(world)
        world.template(Tag.BIAS, MORNING + timedelta(days=1))
        world.settle()
        frame_id = science(world)
        bias = below(tree_of(world, frame_id, Mode.RAW2MASTER).top)["MASTER_BIAS"].files[0]
        with world.registry.begin() as session:
            product = session.scalars(select(Product).where(Product.name == bias.origfile)).one()
            if spoil == "red":
                product.score = Score.RED
            else:
                product.certification = Certification.REJECTED
        for mode in Mode:
            top = below(tree_of(world, frame_id, mode).top)
            other = top["MASTER_BIAS" if mode is Mode.RAW2MASTER else "BIAS"]
            assert other.days == pytest.approx(1.32, abs=0.02)

    def test_a_later_make_takes_the_place_of_the_one_before(self, world: World) -> None:
        a_night(world)
        frame_id = science(world)
        before = below(tree_of(world, frame_id, Mode.RAW2MASTER).top)["WAVECAL_TABLE"].files
        world.arrive(Tag.FLAT, MORNING + timedelta(hours=1), 2, version=2)
        world.settle()
        after = below(tree_of(world, frame_id, Mode.RAW2MASTER).top)["WAVECAL_TABLE"].files
        assert before != after
        assert len(after) == 1

    def test_a_static_calibration_serves_from_its_day_on(self, world: World) -> None:
        a_night(world)
        new = world.static("SKY_LINES", date(2026, 6, 17))
        early, late = science(world, SCIENCE - timedelta(hours=5)), science(world)
        assert below(tree_of(world, early, Mode.RAW2MASTER).top)["SKY_LINES"].files[0].origfile != new
        assert below(tree_of(world, late, Mode.RAW2MASTER).top)["SKY_LINES"].files[0].origfile == new

    def test_a_retired_static_one_lets_the_one_before_it_serve(self, world: World) -> None:
        a_night(world)
        newest = world.static("SKY_LINES", date(2026, 5, 1))
        world.judge(newest, Certification.REJECTED)
        name = below(tree_of(world, science(world), Mode.RAW2MASTER).top)["SKY_LINES"].files[0].origfile
        assert name == "MU_GSKL_200101A_sky_lines.fits"

    def test_a_certified_response_of_the_night_goes_before_the_static_one_and_a_provisional_one_after_it(
        self, world: World
    ) -> None:
        a_night(world)
        static = world.static("STD_RESPONSE", date(2026, 6, 1), setup=Setup(mode="WFM-N"), response=2)
        frame_id = science(world)
        assert below(tree_of(world, frame_id, Mode.RAW2MASTER).top)["STD_RESPONSE"].files[0].origfile == static
        with world.registry.read() as session:
            name = session.scalars(
                select(Product.name).where(Product.catg == "STD_RESPONSE", Product.static.is_(False))
            ).one()
        world.judge(name, Certification.CERTIFIED)
        assert below(tree_of(world, frame_id, Mode.RAW2MASTER).top)["STD_RESPONSE"].files[0].origfile == name


class TestRaws:
    def test_raw_frames_carry_their_own_calibrations_in_turn(self, world: World) -> None:
        a_night(world)
        tree = tree_of(world, science(world), Mode.RAW2RAW)
        assert tree.top.complete
        top = below(tree.top)
        assert set(top) == {
            "BIAS", "FLAT", "ARC", "SKYFLAT", "STD", "GEOMETRY_TABLE", "LSF_PROFILE", "EXTINCT_TABLE", "SKY_LINES",
        }  # fmt: skip
        assert {category: len(one.files) for category, one in top.items() if len(one.files) > 1} == {
            "BIAS": 3, "FLAT": 3, "ARC": 9, "SKYFLAT": 3,
        }  # fmt: skip
        assert set(below(top["ARC"])) == {"BIAS", "FLAT", "LINE_CATALOG"}
        assert set(below(below(top["ARC"])["FLAT"])) == {"BIAS"}
        assert set(below(top["STD"])) >= {"BIAS", "FLAT", "ARC", "SKYFLAT", "GEOMETRY_TABLE", "STD_FLUX_TABLE"}

    def test_each_file_is_listed_once_for_a_client_that_fetches_them(self, world: World) -> None:
        a_night(world)
        files = list(tree_of(world, science(world), Mode.RAW2RAW).files())
        assert len({file.dp_id for file in files}) == len(files) == 1 + 3 + 3 + 9 + 3 + 1 + len(STATICS)
        assert files[0].category == "OBJECT"

    def test_frames_that_nobody_reduced_yet_are_handed_out_uncertified(self, world: World) -> None:
        world.template(Tag.BIAS, MORNING)
        world.advance()
        bias = below(tree_of(world, science(world), Mode.RAW2RAW).top)["BIAS"]
        assert (len(bias.files), bias.certified, bias.complete) == (3, False, True)

    def test_a_group_that_still_waits_for_frames_is_not_handed_out(self, world: World) -> None:
        world.arrive(Tag.BIAS, MORNING, 1)
        world.advance()
        tree = tree_of(world, science(world), Mode.RAW2RAW)
        assert "BIAS" not in below(tree.top)
        assert any("MASTER_BIAS" in text for text in tree.top.messages)


class TestMissing:
    def test_a_missing_master_turns_the_answer_to_raw_frames_and_says_so(self, world: World) -> None:
        a_night(world)
        with world.registry.begin() as session:
            for product in session.scalars(select(Product).where(Product.catg == "STD_RESPONSE")):
                product.certification = Certification.REJECTED
        tree = tree_of(world, science(world), Mode.RAW2MASTER)
        assert (tree.asked, tree.mode, tree.top.complete) == (Mode.RAW2MASTER, Mode.RAW2RAW, False)
        assert "could not be executed" in tree.top.messages[0]
        assert any("STD_RESPONSE with mode WFM-NOAO-N" in text for text in tree.top.messages)
        assert {"BIAS", "FLAT", "ARC", "SKYFLAT"} <= set(below(tree.top))
        assert set(below(below(tree.top)["ARC"])) == {"BIAS", "FLAT", "LINE_CATALOG"}

    def test_a_frame_without_any_calibration_is_alone_and_incomplete(self, world: World) -> None:
        tree = tree_of(world, science(world), Mode.RAW2RAW)
        assert (tree.top.complete, tree.top.associated, len(tree.top.files)) == (False, (), 1)

    def test_what_cannot_have_calibrations_says_so(self, world: World) -> None:
        frame_id = world.arrive(Tag.BIAS, SCIENCE, 1, 1, cards={"ESO DPR CATG": "ACQUISITION"})
        tree = tree_of(world, frame_id, Mode.RAW2MASTER)
        assert not tree.top.complete
        assert "no calibrations belong to ACQUISITION frames" in tree.top.messages[0]

    def test_a_calibration_frame_stands_for_its_group(self, world: World) -> None:
        a_night(world)
        with world.registry.read() as session:
            frame = session.scalars(select(Frame).where(Frame.tag == Tag.FLAT)).first()
            assert frame is not None
            found = find_holding(session, frame.dp_id)
            assert isinstance(found, Frame)
            tree = associate(session, found, Mode.RAW2MASTER, retrieval_policy(world.settings))
        assert len(tree.top.files) == 3
        assert set(below(tree.top)) == {"MASTER_BIAS"}
