"""What is handed out into a folder: every file once and whole, under names that keep them apart, and a SOF of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served_archive import Archive
from sqlalchemy import update
from typer.testing import CliRunner, Result

from archive.models import Frame, Product
from archive.states import Certification
from daemon.cli.application import app
from daemon.cli.errors import ExitCode
from tasks.associations import AssociatedFile, Mode
from tasks.retrieval import Names, deliver_files, name_files
from tasks.sof import TAKEN, check_path, sof_text, tags_of

Musecal = Callable[..., Result]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(tmp_path_factory.mktemp("kept"))
    archive.certify_all()
    archive.registry.close()
    return archive


@pytest.fixture
def archive(kept: Archive) -> Archive:
    """The archive of the module, with nothing changed in its registry."""
    before = kept.settings.archive.root / "registry.sqlite"
    copy = kept.folder / "registry.before"
    if copy.exists():
        kept.registry.close()
        for path in before.parent.glob("registry.sqlite*"):
            path.unlink()
        shutil.copyfile(copy, before)
    else:
        shutil.copyfile(before, copy)
    return kept


@pytest.fixture
def musecal(archive: Archive) -> Musecal:
    def run(*arguments: str) -> Result:
        settings = ["--settings", str(archive.settings_file)]
        return CliRunner().invoke(app, [*arguments, *settings], env={"COLUMNS": "200"})

    return run


def science(archive: Archive) -> str:
    return archive.frames("OBJECT")[0].dp_id


def lines_of(path: Path) -> list[tuple[Path, str]]:
    words = [line.split() for line in path.read_text().splitlines()]
    return [(Path(name), tag) for name, tag in words]


def test_a_frame_comes_with_every_calibration_and_a_sof_of_them(
    archive: Archive, musecal: Musecal, tmp_path: Path
) -> None:
    frame, out = science(archive), tmp_path / "out"
    result = musecal("retrieve", frame, "--out", str(out), "--json")
    assert result.exit_code == ExitCode.DONE, result.output
    answer = json.loads(result.stdout)
    assert answer["frames"][0]["mode"] == Mode.RAW2MASTER
    sof = lines_of(out / f"{frame}.sof")
    assert sof[0] == (out / f"{frame}.fits", "OBJECT")
    assert sorted(path.name for path, _ in sof) == sorted(path.name for path in out.glob("*.fits"))
    rows: dict[str, Frame | Product] = {row.dp_id: row for tag in ("OBJECT", "ILLUM") for row in archive.frames(tag)}
    rows |= {product.dp_id: product for product in archive.products()}
    for item in answer["files"]:
        row = rows[item["dp_id"]]
        assert (item["delivery"], Path(item["path"]).read_bytes()) == ("copied", Path(row.path).read_bytes())
        assert dict(sof)[Path(item["path"])] == (row.catg if isinstance(row, Product) else row.tag)
    wanted = {"MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE", "WAVECAL_TABLE", "TWILIGHT_CUBE", "GEOMETRY_TABLE"}
    assert wanted <= {tag for _, tag in sof}


def test_the_same_again_copies_nothing(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    frame = science(archive)
    musecal("retrieve", frame, "--out", str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.fits")}
    lost = tmp_path / f"{frame}.fits"
    lost.unlink()
    answer = json.loads(musecal("retrieve", frame, "--out", str(tmp_path), "--json").stdout)
    deliveries = {Path(item["path"]): item["delivery"] for item in answer["files"]}
    assert deliveries.pop(lost) == "copied"
    assert set(deliveries.values()) == {"present"}
    assert all(path.stat().st_mtime_ns == before[path] for path in deliveries)


def test_links_lead_into_the_archive_and_take_no_room(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    frame = science(archive)
    for expected in ("linked", "present"):
        answer = json.loads(musecal("retrieve", frame, "--out", str(tmp_path), "--link", "--json").stdout)
        assert {item["delivery"] for item in answer["files"]} == {expected}
    assert (tmp_path / f"{frame}.fits").readlink() == Path(archive.frames("OBJECT")[0].path)


def test_raw2raw_has_the_raw_frames_behind_the_masters(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    musecal("retrieve", science(archive), "--mode", "raw2raw", "--out", str(tmp_path))
    tags = [tag for _, tag in lines_of(next(tmp_path.glob("*.sof")))]
    assert [tags.count(tag) for tag in ("OBJECT", "BIAS", "FLAT", "ARC", "MASTER_BIAS")] == [1, 11, 11, 15, 0]


def test_human_names_are_those_of_workstation_and_products(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    frame = archive.frames("OBJECT")[0]
    musecal("retrieve", frame.dp_id, "--out", str(tmp_path), "--names", "origfile")
    names = {path.name for path in tmp_path.glob("*.fits")}
    assert frame.origfile in names
    assert all(name.startswith("MU") for name in names - {frame.origfile})


def test_other_content_under_a_technical_name_is_not_overwritten(
    archive: Archive, musecal: Musecal, tmp_path: Path
) -> None:
    mine = tmp_path / f"{science(archive)}.fits"
    mine.write_text("mine")
    result = musecal("retrieve", science(archive), "--out", str(tmp_path))
    assert result.exit_code == ExitCode.REFUSED
    assert "other content" in result.stderr
    assert mine.read_text() == "mine"


def test_other_content_under_a_human_name_stays_beside_it(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    frame = archive.frames("OBJECT")[0]
    mine = tmp_path / frame.origfile
    mine.write_text("mine")
    for _ in range(2):
        result = musecal("retrieve", frame.dp_id, "--out", str(tmp_path), "--names", "origfile")
        assert result.exit_code == ExitCode.DONE, result.output
    other = tmp_path / f"{frame.origfile.removesuffix('.fits')}.{frame.dp_id}.fits"
    assert (mine.read_text(), other.read_bytes()) == ("mine", Path(frame.path).read_bytes())
    assert (other, "OBJECT") in lines_of(next(tmp_path.glob("*.sof")))


@pytest.mark.parametrize("inside", ["archive/products", "archive/raw/new", "incoming", "incoming/new"])
def test_a_folder_of_the_daemon_is_refused(archive: Archive, musecal: Musecal, inside: str) -> None:
    result = musecal("retrieve", science(archive), "--out", str(archive.folder / inside))
    assert result.exit_code == ExitCode.REFUSED
    assert "daemon's own" in result.stderr


def test_a_folder_that_esorex_cannot_read_is_refused(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    result = musecal("retrieve", science(archive), "--out", str(tmp_path / "my data"))
    assert result.exit_code == ExitCode.REFUSED
    assert "white space" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_disk_is_told_before_anything_is_copied(
    archive: Archive, musecal: Musecal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    result = musecal("retrieve", science(archive), "--out", str(tmp_path / "out"))
    assert (result.exit_code, "GB free" in result.stderr) == (ExitCode.REFUSED, True)
    assert list(tmp_path.iterdir()) == []
    assert musecal("retrieve", science(archive), "--out", str(tmp_path), "--link").exit_code == ExitCode.DONE


def test_a_disk_that_fills_up_leaves_no_half_file(
    archive: Archive, musecal: Musecal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def fill_up(source: Path, target: Path) -> None:
        copied.append(target)
        if len(copied) == 4:
            target.write_bytes(source.read_bytes()[:100])
            raise OSError(28, "No space left on device", str(target))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", fill_up)
    result = musecal("retrieve", science(archive), "--out", str(tmp_path))
    assert (result.exit_code, "No space left" in result.stderr) == (ExitCode.UNREACHABLE, True)
    assert len(list(tmp_path.iterdir())) == 3  # whole ones, no other
    monkeypatch.undo()
    answer = json.loads(musecal("retrieve", science(archive), "--out", str(tmp_path), "--json").stdout)
    assert [item["delivery"] for item in answer["files"]][:4] == ["present", "present", "present", "copied"]


def reject(archive: Archive, catg: str) -> None:
    with archive.registry.begin() as session:
        session.execute(update(Product).where(Product.catg == catg).values(certification=Certification.REJECTED))


def test_what_is_missing_is_said_and_the_rest_is_handed_out(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    reject(archive, "SKY_LINES")
    strict = musecal("retrieve", science(archive), "--out", str(tmp_path / "none"), "--strict")
    assert (strict.exit_code, (tmp_path / "none").exists()) == (ExitCode.REFUSED, False)
    result = musecal("retrieve", science(archive), "--out", str(tmp_path))
    assert result.exit_code == ExitCode.NOT_IN_ORDER
    assert "SKY_LINES" in result.stderr
    assert len(lines_of(next(tmp_path.glob("*.sof")))) > 20


def test_a_file_that_is_gone_is_said_and_not_in_the_sof(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    lost = Path(archive.products("MASTER_BIAS")[-1].path)
    away = lost.rename(tmp_path / "away")
    try:
        result = musecal("retrieve", science(archive), "--out", str(tmp_path / "out"))
    finally:
        away.rename(lost)
    assert result.exit_code == ExitCode.NOT_IN_ORDER
    assert f"{lost} is not in its place" in result.stderr
    assert "MASTER_BIAS" not in {tag for _, tag in lines_of(next((tmp_path / "out").glob("*.sof")))}


def test_a_file_that_was_cut_is_not_handed_out(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    with archive.registry.begin() as session:
        session.execute(update(Frame).where(Frame.tag == "OBJECT").values(size=1))
    result = musecal("retrieve", science(archive), "--out", str(tmp_path))
    assert (result.exit_code, "bytes instead of 1" in result.stderr) == (ExitCode.NOT_IN_ORDER, True)


def test_a_sof_points_at_the_archive(archive: Archive, musecal: Musecal, tmp_path: Path) -> None:
    result = musecal("sof", science(archive), "--recipe", "muse_scibasic")
    assert result.exit_code == ExitCode.DONE, result.output
    path = tmp_path / "out.sof"
    musecal("sof", science(archive), "--recipe", "muse_scibasic", "--out", str(path))
    assert path.read_text() == result.stdout
    paths, tags = zip(*lines_of(path), strict=True)
    assert all(one.is_relative_to(archive.settings.archive.root) and one.exists() for one in paths)
    assert set(tags) <= tags_of("muse_scibasic")
    assert {"OBJECT", "MASTER_BIAS", "ILLUM"} <= set(tags)


@pytest.mark.parametrize(("tag", "count"), [("BIAS", 11), ("FLAT", 11), ("ARC", 15), ("SKYFLAT", 4), ("STD", 1)])
def test_a_calibration_frame_stands_for_its_group(archive: Archive, musecal: Musecal, tag: str, count: int) -> None:
    result = musecal("sof", archive.frames(tag)[0].dp_id)
    assert result.exit_code == ExitCode.DONE, result.output
    tags = [line.split()[1] for line in result.stdout.splitlines()]
    assert tags.count(tag) == count
    assert ("MASTER_BIAS" in tags) == (tag != "BIAS")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["P1"], ExitCode.USAGE, "is no frame"),
        (["MUSE.2000-01-01T00:00:00.000"], ExitCode.NOT_FOUND, "Nothing in the registry"),
        (["--mode", "master", "F1"], ExitCode.USAGE, "raw2master, raw2raw|raw2raw, raw2master"),
        (["--recipe", "muse_magic", "F1"], ExitCode.USAGE, "no recipe muse_magic is known"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(musecal: Musecal, words: list[str], code: ExitCode, sentence: str) -> None:
    result = musecal("sof", *words)
    assert result.exit_code == code
    assert any(part in result.stderr for part in sentence.split("|"))


def a_file(number: int, origfile: str, folder: Path = Path("/kept"), **columns: Any) -> AssociatedFile:  # noqa: ANN401
    values: dict[str, Any] = {
        "category": "BIAS", "dp_id": f"MUSE.{number}", "arcfile": f"MUSE.{number}.fits", "origfile": origfile,
        "path": folder / f"MUSE.{number}.fits", "size": 1, "row": f"F{number}",
    }  # fmt: skip
    return AssociatedFile(**(values | columns))


@given(st.lists(st.text(max_size=12) | st.sampled_from(["", "a.fits", "A.fits", "../../etc/passwd", "x" * 300])))
def test_names_never_clash_and_never_lead_out_of_the_folder(origfiles: list[str]) -> None:
    files = [a_file(number, origfile) for number, origfile in enumerate(origfiles)]
    for names in Names:
        chosen = name_files(files, names)
        assert chosen == name_files(files[::-1], names)  # in whatever order they come
        assert len({name.lower() for name in chosen.values()}) == len(files)
        assert all("/" not in name and not name.startswith(".") and len(name) <= 255 for name in chosen.values())


def test_two_files_of_one_workstation_name_are_kept_apart(tmp_path: Path) -> None:
    files = [a_file(number, "MUSE_CAL_BIAS168_0001.fits", tmp_path) for number in (1, 2)]
    for file in files:
        file.path.write_text(file.row[1])
    delivered = list(deliver_files(files, tmp_path / "out", Names.ORIGFILE, link=False))
    assert [one.path.read_text() for one in delivered] == ["1", "2"]
    assert delivered[0].path.name == "MUSE_CAL_BIAS168_0001.MUSE.1.fits"


def test_compressed_frames_keep_their_suffix() -> None:
    file = a_file(1, "MUSE_1.fits", path=Path("/kept/MUSE.1.fits.fz"), arcfile="MUSE.1.fits.fz")
    assert name_files([file], Names.ORIGFILE) == {"MUSE.1": "MUSE_1.fits.fz"}
    assert name_files([file], Names.ARCFILE) == {"MUSE.1": "MUSE.1.fits.fz"}


def test_a_sof_has_absolute_paths_without_white_space() -> None:
    assert sof_text([(Path("/a/b.fits"), "BIAS"), (Path("/a/c.fits"), "BADPIX_TABLE")]) == (
        "/a/b.fits BIAS\n/a/c.fits BADPIX_TABLE\n"
    )
    with pytest.raises(ValueError, match="white space"):
        check_path(Path("/my data/b.fits"))


def test_each_recipe_of_esos_takes_what_its_page_says() -> None:
    assert tags_of("muse_bias") == {"BIAS", "BADPIX_TABLE"}
    assert {"OBJECT", "ILLUM", "TWILIGHT_CUBE"} <= tags_of("muse_scibasic")
    assert {"LSF_PROFILE", "SKY_LINES"} <= tags_of("muse_scipost")
    assert all(TAKEN.values())
