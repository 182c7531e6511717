"""An existing archive is taken in without reprocessing, in any order, however often, and left as it is."""

import hashlib
import json
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from archive_tree import write_master, write_sets, write_template
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from typer.testing import CliRunner, Result

from archive.models import Arrival, Frame, Group, Measurement, Product, Step, Use
from archive.night import mjd_of
from archive.registry import Registry
from archive.select import siblings
from archive.states import Certification, GroupState, Judge, Score, StepState
from archive.store import Store, Transfer
from archive.verification import verify
from daemon.cli.application import app
from daemon.cli.errors import ExitCode
from tasks import orders
from tasks.advance import advance
from tasks.backfill import Backfill, Became, Found, TransferUnclear, choose_transfer
from tasks.cascade import Tag
from tasks.intake import Intake
from tasks.lineage import link_runs
from tasks.settings import Settings
from tasks.site import Site
from tasks.verdicts import Scoring

START = datetime(2017, 6, 2, 9, tzinfo=UTC)
FILES = 13  # of ``sources``
TRANSFERS = st.sampled_from([Transfer.LEAVE, Transfer.LINK, Transfer.COPY])
NOW = datetime(2026, 6, 17, 12, tzinfo=UTC)


@dataclass
class Archive:
    """A site, and the tree that it takes in."""

    site: Site
    tree: Path

    def take(self, transfer: Transfer = Transfer.LEAVE, **how: Any) -> list[Found]:  # noqa: ANN401 - as Backfill has it
        return list(Backfill(self.site, transfer, **how).take(self.tree))

    def products(self) -> list[Product]:
        with self.site.registry.read() as session:
            found = session.scalars(select(Product).order_by(Product.name)).all()
            for product in found:
                _ = product.step and [(use.frame, use.product) for use in product.step.uses], product.measurements
            return list(found)

    def groups(self) -> list[Group]:
        with self.site.registry.read() as session:
            found = session.scalars(select(Group).order_by(Group.mjd)).all()
            for group in found:
                _ = group.steps, group.frames
            return list(found)


def site_of(registry: Registry, root: Path, now: datetime = NOW) -> Site:
    config = Settings.model_validate({"archive": {"root": root, "least_free_gb": 0}})
    return Site(settings=config, registry=registry, store=Store(root), clock=lambda: now)


def archive_at(registry: Registry, folder: Path) -> Archive:
    (folder / "tree").mkdir()
    return Archive(site_of(registry, folder / "archive"), folder / "tree")


@pytest.fixture
def archive(sqlite: Path, tmp_path: Path) -> Iterator[Archive]:
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, tmp_path / 'registry.sqlite')}")
    yield archive_at(registry, tmp_path)
    registry.close()


@pytest.fixture
def archive_on_both(registry: Registry, tmp_path: Path) -> Archive:
    """The same on SQLite and on PostgreSQL."""
    return archive_at(registry, tmp_path)


def listing(folder: Path) -> dict[str, tuple[str, int]]:
    """Content and permissions of every file."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("transfer", [Transfer.LINK, Transfer.LEAVE, Transfer.COPY])
def test_nothing_is_taken_away_from_the_tree_and_the_archive_verifies(archive: Archive, transfer: Transfer) -> None:
    write_template(archive.tree / "raw", Tag.BIAS, START)
    write_master(archive.tree / "reduced" / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    (archive.tree / "broken.fits").write_bytes(b"SIMPLE  = nothing of the kind")
    before = listing(archive.tree)
    found = archive.take(transfer)
    assert listing(archive.tree) == before
    assert sorted(item.became for item in found) == ["frame", "frame", "frame", "master", "quarantined"]
    assert list(verify(archive.site.registry, archive.site.store)) == []
    inside = [Path(product.path).is_relative_to(archive.site.store.root) for product in archive.products()]
    assert inside == [transfer is not Transfer.LEAVE]


def test_a_linked_tree_takes_no_room(archive: Archive) -> None:
    [raw, *_] = write_template(archive.tree, Tag.BIAS, START)
    master = write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    archive.take(choose_transfer(archive.tree, archive.site.store))
    assert (raw.stat().st_nlink, master.stat().st_nlink) == (2, 2)


def test_what_cannot_be_linked_asks_for_a_word(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    with pytest.raises(TransferUnclear, match="--transfer leave"):
        choose_transfer(archive.tree, archive.site.store)


def test_a_master_is_what_its_header_says(archive: Archive) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START, channels=(3, 7))
    archive.take()
    [product] = archive.products()
    assert (product.catg, product.name) == ("MASTER_BIAS", "MU_MBIA_170602A_slow.fits")
    assert (product.mode, product.readout, product.channels) == ("WFM-NOAO-N", "SCI1.0", [3, 7])
    assert (product.certification, product.judge) == (Certification.PROVISIONAL, Judge.NOBODY)
    assert (product.score, product.score_reason) == ("yellow", "It lacks channel 1, 12.")
    assert product.created == START + timedelta(hours=6)
    values = {(row.channel, row.name): row.value if not row.text else row.text for row in product.measurements}
    assert values == {
        (3, "BIAS MASTER1 RON"): 2.1, (7, "BIAS MASTER1 RON"): 2.1,
        (3, "BIAS KIND"): "even", (7, "BIAS KIND"): "even",
    }  # fmt: skip
    middle = START + timedelta(minutes=2, seconds=15)  # from the begin of the first to the end of the last exposure
    assert product.mjd == pytest.approx(mjd_of(middle), abs=1e-9)


def test_without_its_frames_a_master_is_of_the_first_exposure(archive: Archive) -> None:
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    archive.take()
    [product] = archive.products()
    assert product.mjd == mjd_of(START + timedelta(minutes=1))
    assert product.step is None
    assert product.ancestors == [f"MUSE.2017-06-02T09:0{minute}:00.000.fits" for minute in (1, 2, 3)]


def test_the_archive_of_eso_names_and_certifies(archive: Archive) -> None:
    cards = {"ARCFILE": "M.MUSE.2017-06-05T10:00:00.123.fits", "ORIGFILE": "MU_MBIA_170602C_slow.fits"}
    write_master(archive.tree / "M.MUSE.2017-06-05T10_00_00.123.fits", "MASTER_BIAS", START, cards=cards)
    write_master(
        archive.tree / "ours.fits", "MASTER_BIAS", START + timedelta(days=1), pipeline="musecal/1",
        cards={"ARCFILE": "M.MUSE.2017-06-06T10:00:00.123.fits", "ORIGFILE": "MU_MBIA_170603A_slow.fits"},
    )  # fmt: skip
    archive.take()
    theirs, ours = archive.products()
    assert (theirs.name, theirs.dp_id) == ("MU_MBIA_170602C_slow.fits", "M.MUSE.2017-06-05T10:00:00.123")
    assert (theirs.certification, theirs.judge) == (Certification.CERTIFIED, Judge.PERSON)
    assert ours.judge is not Judge.PERSON


def test_masters_are_scored_by_the_same_thresholds(archive: Archive) -> None:
    for days, (value, channels) in enumerate([(1.0, (1, 12)), (180.0, (1, 12)), (1.0, (12,))]):
        start = START + timedelta(days=days)
        write_template(archive.tree / f"{days}", Tag.BIAS, start)
        write_sets(archive.tree / f"{days}", "MASTER_BIAS", start, channels=channels, value=value)
    archive.take()
    found = [(product.score, product.certification, product.score_reason[:19]) for product in archive.products()]
    assert found == [
        *[("green", Certification.CERTIFIED, "")] * 2,
        *[("red", Certification.PROVISIONAL, "BIAS MASTER1 RON of")] * 2,
        ("yellow", Certification.PROVISIONAL, "It lacks channel 1."),
    ]


def test_who_brings_them_can_vouch_for_masters(archive: Archive) -> None:
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    archive.take(certified=True)
    assert [product.certification for product in archive.products()] == [Certification.CERTIFIED]


def test_responses_of_both_versions_are_told_apart(archive: Archive) -> None:
    how: dict[str, Any] = {"recipe": "muse_standard", "channels": (), "merged": True}
    for version, days in ((1, 0), (2, 1)):
        cards = {"HIERARCH ESO DRS MUSE FLUX FFCORR": True} if version == 2 else {}
        path = archive.tree / f"v{version}" / "STD_RESPONSE_0001.fits"
        write_master(path, "STD_RESPONSE", START + timedelta(days=days), cards=cards, **how)
        with fits.open(path, mode="append") as file:
            columns = [fits.Column(name, "D", array=[1.0]) for name in ("lambda", "response", "resperr")]
            file.append(fits.BinTableHDU.from_columns(columns))
    archive.take()
    assert [(product.response, product.static) for product in archive.products()] == [(1, False), (2, False)]


def test_files_of_one_run_are_a_set(archive_on_both: Archive) -> None:
    write_sets(archive_on_both.tree / "one", "MASTER_BIAS", START)
    write_sets(archive_on_both.tree / "other", "MASTER_BIAS", START, pipeline="muse/2.10.10")
    archive_on_both.take()
    products = archive_on_both.products()
    assert [product.name for product in products] == [
        "MU_MBIA_170602A_slow-01.fits", "MU_MBIA_170602A_slow-12.fits",
        "MU_MBIA_170602B_slow-01.fits", "MU_MBIA_170602B_slow-12.fits",
    ]  # fmt: skip
    with archive_on_both.site.registry.read() as session:
        for product in products:
            names = [other.name for other in siblings(session, product)]
            letter = product.name[14]
            assert names == [f"MU_MBIA_170602{letter}_slow-01.fits", f"MU_MBIA_170602{letter}_slow-12.fits"]


def test_a_red_file_leaves_its_set(archive: Archive) -> None:
    write_sets(archive.tree, "MASTER_BIAS", START, channels=(1, 2, 3))
    archive.take()
    with archive.site.registry.begin() as session:
        first, second, third = session.scalars(select(Product).order_by(Product.name)).all()
        second.score, second.certification = Score.RED, Certification.PROVISIONAL
        assert siblings(session, third) == [first, third]
        assert siblings(session, second) == [second]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda hdus: hdus.pop(3), "no image CHAN01.STAT"),
        (lambda hdus: hdus[0].header.remove("MJD-OBS"), "MJD-OBS"),
        (lambda hdus: hdus[0].header.set("ORIGFILE", "MU_MFLA_170602A_slow.fits"), "Its name is that of MASTER_FLAT"),
    ],
)
def test_what_is_no_such_product_is_listed_with_a_sentence(
    archive: Archive, spoil: Callable[[fits.HDUList], None], reason: str
) -> None:
    path = write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    with fits.open(path, memmap=False) as hdus:
        spoil(hdus)
        hdus.writeto(path, overwrite=True, checksum=True)
    [found] = archive.take()
    assert found.became is Became.QUARANTINED
    assert reason in found.reason
    assert path.exists()
    assert not list(archive.site.store.quarantined.glob("*"))
    assert [item.known for item in archive.take()] == [True]


def test_everything_else_is_told_and_left(archive: Archive) -> None:
    tree = archive.tree
    write_master(tree / "PIXTABLE_OBJECT_0001-01.fits", "PIXTABLE_OBJECT", START)
    [raw] = write_template(tree / "fors", Tag.BIAS, START, frames=1)
    fits.setval(raw, "INSTRUME", value="FORS2")
    (tree / "README.txt").write_text("An archive.")
    (tree / "to.fits").symlink_to(tree / "nowhere.fits")
    (tree / "loop").symlink_to(tree)
    whole = write_template(tree / "raw", Tag.BIAS, START + timedelta(days=1), frames=1)[0]
    (tree / "cut.fits").write_bytes(whole.read_bytes()[:-5000])
    became = {item.path.name: item.became for item in archive.take()}
    assert became == {
        "PIXTABLE_OBJECT_0001-01.fits": Became.UNKNOWN,
        raw.name: Became.FOREIGN,
        "README.txt": Became.OTHER,
        "to.fits": Became.UNREADABLE,
        "loop": Became.LINK,
        whole.name: Became.FRAME,
        "cut.fits": Became.QUARANTINED,
    }


def test_a_dry_run_tells_and_does_nothing(archive: Archive) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    said = {item.path: item.became for item in archive.take(dry_run=True)}
    assert not archive.products()
    assert not archive.site.store.root.exists() or not list(archive.site.store.files())
    assert {item.path: item.became for item in archive.take()} == said


def test_what_is_known_is_not_read_again(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    first = archive.take()
    monkeypatch.setattr("tasks.backfill.peek", lambda path: pytest.fail(f"{path} was read again"))
    again = archive.take()
    assert [(item.path, item.became, item.row) for item in again] == [(i.path, i.became, i.row) for i in first]
    assert all(item.known for item in again)


def test_the_planner_leaves_an_archive_alone(archive: Archive) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_template(archive.tree, Tag.FLAT, START + timedelta(hours=1))
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    archive.take()
    assert advance(archive.site.registry, archive.site.settings, NOW).counts == {}
    biases, flats = archive.groups()
    assert (biases.state, flats.state) == (GroupState.ARCHIVED, GroupState.ARCHIVED)
    [step] = biases.steps
    assert (step.name, step.state, step.recipe_version) == ("bias", StepState.DONE, "eso/2.8.7")
    assert step.parameters == {"nifu": "0", "combine": "sigclip"}
    assert flats.steps == []


def test_an_operator_can_have_an_archived_group_reduced(archive_on_both: Archive) -> None:
    write_template(archive_on_both.tree, Tag.BIAS, START)
    write_template(archive_on_both.tree, Tag.FLAT, START + timedelta(hours=1))
    write_master(archive_on_both.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    archive_on_both.take()
    registry, config = archive_on_both.site.registry, archive_on_both.site.settings
    with registry.begin() as session:
        biases, flats = session.scalars(select(Group).order_by(Group.mjd)).all()
        orders.requeue(session, biases.steps[0], why="to compare", now=NOW)
        orders.reduce_archived(session, flats, why="to see", now=NOW)
    advance(registry, config, NOW)
    biases, flats = archive_on_both.groups()
    assert [(step.sequence, step.state) for step in sorted(biases.steps, key=lambda step: step.sequence)] == [
        (1, StepState.DONE), (2, StepState.QUEUED),
    ]  # fmt: skip
    assert [step.state for step in flats.steps] == [StepState.WAITING]  # for the bias that is being made
    link_runs(registry, NOW)
    assert [step.recipe_version for step in archive_on_both.groups()[0].steps if step.sequence == 2] == ["1"]
    with registry.begin() as session, pytest.raises(orders.OrderRefused):
        orders.reduce_archived(session, session.get_one(Group, flats.id), why="", now=NOW)


def test_a_master_of_an_archive_serves_a_new_night(archive: Archive) -> None:
    night = datetime(2026, 6, 17, 9, tzinfo=UTC)
    write_sets(archive.tree, "MASTER_BIAS", night - timedelta(days=1))
    archive.take()
    incoming = archive.tree.parent / "incoming"
    site = archive.site
    for path in write_template(incoming, Tag.FLAT, night):
        Intake(site.registry, site.store, site.settings).take(path, NOW)
    advance(site.registry, site.settings, NOW)
    [group] = archive.groups()
    [step] = group.steps
    with site.registry.read() as session:
        uses = session.get_one(Step, step.id).uses
        assert [(use.tag, use.product.channels) for use in uses if use.product] == [
            ("MASTER_BIAS", [1]), ("MASTER_BIAS", [12]),
        ]  # fmt: skip


def test_a_rejected_file_of_a_set_has_its_step_made_again(archive: Archive) -> None:
    test_a_master_of_an_archive_serves_a_new_night(archive)
    site = archive.site
    with site.registry.begin() as session:
        step = session.scalars(select(Step).where(Step.name == "flat")).one()
        step.state, step.group.night = StepState.DONE, step.group.night
        second = session.scalars(select(Product).order_by(Product.name)).all()[1]
        orders.judge(
            session, second, Certification.REJECTED, comment="spoiled", now=NOW, scoring=Scoring.of(site.settings)
        )
    advance(site.registry, site.settings, NOW)
    with site.registry.read() as session:
        stale = session.scalars(select(Step.stale).where(Step.name == "flat").order_by(Step.sequence)).first()
    assert stale == "MASTER_BIAS: the files of MU_MBIA_260616A_slow-01.fits are others for some channels."


def test_a_frame_from_the_telescope_opens_its_archived_group(archive: Archive) -> None:
    *taken, late = write_template(archive.tree, Tag.BIAS, START)
    incoming = archive.tree.parent / "late.fits"
    shutil.move(late, incoming)
    archive.take()
    site = archive.site
    Intake(site.registry, site.store, site.settings, transfer=Transfer.LEAVE).take(taken[0], NOW)
    assert [group.state for group in archive.groups()] == [GroupState.ARCHIVED]
    Intake(site.registry, site.store, site.settings).take(incoming, NOW)
    assert [group.state for group in archive.groups()] == [GroupState.OPEN]


def _digest(use: Use) -> str:
    content = use.frame or use.product
    assert content is not None
    return content.digest


def outcome(registry: Registry) -> dict[str, Any]:
    """What the registry says in the end, without numbers, and without letters that tell the order of the files."""
    with registry.read() as session:
        frames = {frame.digest: frame.dp_id for frame in session.scalars(select(Frame))}
        return {
            "frames": frames,
            "groups": sorted(
                (group.tag, group.key, group.state, group.mjd, group.expected, group.reason)
                for group in session.scalars(select(Group))
            ),
            "products": sorted(
                (
                    product.digest, product.catg, product.mjd, product.night, product.certification, product.created,
                    product.step.identity if product.step else None, product.channels, product.reviewed,
                    product.score,
                )
                for product in session.scalars(select(Product))
            ),
            "steps": sorted(
                (
                    step.identity, step.group.key, step.name, step.sequence, step.state, step.recipe_version,
                    step.ended, sorted((use.tag, _digest(use), use.days) for use in step.uses),
                )
                for step in session.scalars(select(Step))
            ),
            "measurements": len(session.scalars(select(Measurement.id)).all()),
        }  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two nights of frames, masters of two pipelines of one of them, and calibrations that name each other."""
    tree = tmp_path_factory.mktemp("sources")
    flats = START + timedelta(hours=1)
    paths = [*write_template(tree, Tag.BIAS, START), *write_template(tree, Tag.FLAT, flats)]
    biases = write_sets(tree / "2.8", "MASTER_BIAS", START)
    for channel, bias in zip((1, 12), biases, strict=True):
        named = [(bias.name, "MASTER_BIAS", fits.getval(bias, "DATAMD5"))]
        how: dict[str, Any] = {"recipe": "muse_flat", "calibrations": named}
        for catg in ("MASTER_FLAT", "TRACE_TABLE"):
            paths += write_sets(tree / "2.8", catg, flats, channels=(channel,), **how)
    merged = write_master(tree / "1.6" / "MASTER_BIAS.fits", "MASTER_BIAS", START, pipeline="muse/1.6", value=2.0)
    fits.setval(merged, "DATE", value="2017-06-02T12:00:00")
    return [*paths, *biases, merged]


@pytest.fixture(scope="module")
def settled(sources: list[Path], sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome when everything is taken at once."""
    folder = tmp_path_factory.mktemp("settled")
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, folder / 'registry.sqlite')}")
    tree = folder / "tree"
    _lay(sources, tree, range(len(sources)))
    Archive(site_of(registry, folder / "archive"), tree).take()
    found = outcome(registry)
    registry.close()
    return found


def _lay(sources: list[Path], tree: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        target = tree / f"{number:02d}" / sources[number].name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.hardlink_to(sources[number])


def test_all_of_it_is_on_its_frames(settled: dict[str, Any]) -> None:
    steps = {(step[2], step[3]): step for step in settled["steps"]}
    assert sorted(steps) == [("bias", 1), ("bias", 2), ("flat", 1)]
    assert [steps["bias", 1][5], steps["bias", 2][5]] == ["eso/1.6", "eso/2.8.7"]  # in the order of their making
    assert sorted(tag for tag, *_ in steps["flat", 1][7]) == ["FLAT"] * 3 + ["MASTER_BIAS"] * 2


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(FILES)), rounds=st.integers(1, 4), repeated=st.booleans(), transfer=TRANSFERS)
def test_order_and_repetition_do_not_matter(
    sources: list[Path], settled: dict[str, Any], sqlite: Path, tmp_path_factory: pytest.TempPathFactory,
    order: list[int], rounds: int, transfer: Transfer, *, repeated: bool,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("order")
    registry = Registry(f"sqlite:///{shutil.copy(sqlite, folder / 'registry.sqlite')}")
    archive = Archive(site_of(registry, folder / "archive"), folder / "tree")
    for part in range(rounds):
        _lay(sources, archive.tree, order[part::rounds])
        for _ in range(1 + repeated):
            archive.take(transfer)
    assert outcome(registry) == settled
    assert list(verify(registry, archive.site.store)) == []
    registry.close()
    shutil.rmtree(folder)


@pytest.mark.parametrize("when", [1, 9])
def test_a_run_that_was_cut_off_is_finished_by_the_next(
    sources: list[Path], settled: dict[str, Any], archive_on_both: Archive, when: int
) -> None:
    archive = archive_on_both
    _lay(sources, archive.tree, range(len(sources)))
    run = Backfill(archive.site, Transfer.LINK).take(archive.tree)
    assert isinstance(run, Generator)
    for _ in range(when):
        next(run)
    run.close()
    with archive.site.registry.read() as session:
        assert 0 < len(session.scalars(select(Arrival.id)).all()) < len(sources)
    archive.take(Transfer.LINK)
    assert outcome(archive.site.registry) == settled


Command = Callable[..., Result]


@pytest.fixture
def musecal(archive: Archive, tmp_path: Path) -> Command:
    """The command line on the site of the archive."""
    file, incoming = tmp_path / "settings.toml", tmp_path / "incoming"
    incoming.mkdir()
    file.write_text(
        f'[archive]\nroot = "{archive.site.store.root}"\nincoming = "{incoming}"\nleast_free_gb = 0\n'
        f'[registry]\nurl = "{archive.site.registry.url.render_as_string(hide_password=False)}"\n'
    )

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--settings", str(file)], env={"COLUMNS": "200"})

    return run


def test_the_command_tells_what_became_of_each_file(archive: Archive, musecal: Command) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    planned = musecal("ingest", "--archive", str(archive.tree), "--dry-run")
    assert planned.exit_code == ExitCode.DONE
    assert planned.stdout.count("frame            BIAS") == 3
    done = musecal("ingest", "--archive", str(archive.tree), "--json")
    assert done.exit_code == ExitCode.DONE
    record = json.loads(done.stdout)
    assert [item["became"] for item in record["files"]] == ["master", "frame", "frame", "frame"]
    assert record["summary"]["types"] == {"frame": {"BIAS": 3}, "master": {"MASTER_BIAS": 1}}
    assert (record["summary"]["runs"], record["summary"]["runs_on_frames"]) == (1, 1)
    assert "4 files" in done.stderr
    (archive.tree / "broken.fits").write_text("nothing")
    again = musecal("ingest", "--archive", str(archive.tree))
    assert again.exit_code == ExitCode.NOT_IN_ORDER
    assert "4 known before" in again.stderr
    assert "this is no FITS file" in again.stdout


def test_every_other_command_understands_what_came(archive: Archive, musecal: Command) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_template(archive.tree, Tag.FLAT, START + timedelta(hours=1))
    write_sets(archive.tree, "MASTER_BIAS", START)
    (archive.tree / "MUSE.2017-06-02T09:00:00.000.fits").write_text("nothing")
    musecal("ingest", "--archive", str(archive.tree))
    assert musecal("verify").exit_code == ExitCode.DONE
    night = json.loads(musecal("night", "2017-06-01", "--json").stdout)
    assert night["balanced"]
    assert {entry["fate"] for entry in night["entries"]} == {"processed", "archived", "quarantined"}
    why = musecal("why", "MU_MBIA_170602A_slow-12.fits").stdout
    assert "comes from step 1 (bias) of group 1" in why
    assert "made elsewhere (muse_bias, eso/2.8.7)" in musecal("why", "S1").stdout
    assert "`musecal requeue G2` has our recipes reduce it" in musecal("why", "G2").stdout
    assert musecal("requeue", "G1", "G2").exit_code == ExitCode.DONE
    assert [group.state for group in archive.groups()] == [GroupState.OPEN, GroupState.OPEN]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say what to take in"),
        (["--dry-run", "x.fits"], "name it with --archive"),
        (["--archive", "{root}"], "a part of the archive"),
        (["--archive", "{tree}", "x.fits"], "takes its folder alone"),
        (["--archive", "{tree}/nowhere"], "is no folder"),
    ],
)
def test_what_is_not_clear_is_refused(archive: Archive, musecal: Command, arguments: list[str], sentence: str) -> None:
    archive.site.store.root.mkdir()
    places = {"root": archive.site.store.root, "tree": archive.tree}
    refused = musecal("ingest", *(argument.format(**places) for argument in arguments))
    assert refused.exit_code == ExitCode.USAGE
    assert sentence in refused.stderr


def test_a_tree_that_is_moved_is_emptied(archive: Archive) -> None:
    write_template(archive.tree, Tag.BIAS, START)
    write_master(archive.tree / "MASTER_BIAS.fits", "MASTER_BIAS", START)
    (archive.tree / "broken.fits").write_text("nothing")
    archive.take(Transfer.MOVE)
    assert not list(archive.tree.iterdir())
    assert [path.name for path in archive.site.store.quarantined.iterdir()] == ["broken.fits"]
    assert list(verify(archive.site.registry, archive.site.store)) == []
