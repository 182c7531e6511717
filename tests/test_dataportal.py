"""Files by their public names, from the real service: whole, in parts, resumed, and never by a path."""

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from served_archive import Archive
from sqlalchemy import select

from archive.models import Frame, Product
from archive.states import Certification
from archive.store import digest_of
from tasks.intake import Intake

FILE = "/dataPortal/file/"
SPARSE = 860_000_000  # bytes of a frame of all 24 channels


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def portal(archive: Archive) -> Iterator[httpx.Client]:
    with archive.served() as url, httpx.Client(base_url=url) as client:
        yield client


def test_a_frame_arrives_whole_under_its_archive_name(archive: Archive, portal: httpx.Client) -> None:
    frame = archive.frames("BIAS")[0]
    answer = portal.get(FILE + frame.dp_id)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == frame.digest
    assert answer.headers["content-disposition"] == f'attachment; filename="{frame.dp_id}.fits"'
    assert answer.headers["content-length"] == str(frame.size)
    assert answer.headers["etag"] == f'"{frame.digest}"'
    assert answer.headers["content-type"] == "application/fits"
    assert "last-modified" in answer.headers


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz", ""])
def test_every_spelling_of_a_name_leads_to_the_file(archive: Archive, portal: httpx.Client, suffix: str) -> None:
    frame, product = archive.frames("OBJECT")[0], archive.products("MASTER_BIAS")[0]
    assert portal.get(FILE + frame.dp_id + suffix).content == Path(frame.path).read_bytes()
    assert portal.get(FILE + product.dp_id + suffix).content == Path(product.path).read_bytes()
    assert portal.get(FILE + product.name.removesuffix(".fits") + suffix).content == Path(product.path).read_bytes()


def test_names_are_those_of_the_archive_or_of_people(archive: Archive, portal: httpx.Client) -> None:
    frame, product = archive.frames("FLAT")[0], archive.products("MASTER_FLAT")[0]
    for row, human in ((frame, frame.origfile), (product, product.name)):
        assert human
        for names, expected in (("arcfile", f"{row.dp_id}.fits"), ("origfile", human)):
            answer = portal.head(FILE + row.dp_id, params={"names": names})
            assert answer.headers["content-disposition"] == f'attachment; filename="{expected}"'
    refused = portal.get(FILE + frame.dp_id, params={"names": "nickname"})
    assert refused.status_code == 400
    assert "arcfile" in refused.json()["detail"]


def test_head_tells_everything_and_sends_nothing(archive: Archive, portal: httpx.Client) -> None:
    frame = archive.frames("BIAS")[0]
    head, got = portal.head(FILE + frame.dp_id), portal.get(FILE + frame.dp_id)
    assert head.content == b""
    assert {key: head.headers[key] for key in head.headers if key != "date"} == {
        key: got.headers[key] for key in got.headers if key != "date"
    }


def test_a_download_in_two_halves_is_the_file(archive: Archive, portal: httpx.Client, tmp_path: Path) -> None:
    frame = archive.frames("ARC")[0]
    part = tmp_path / "part"
    with portal.stream("GET", FILE + frame.dp_id) as broken, part.open("wb") as file:
        tag = broken.headers["etag"]
        for chunk in broken.iter_raw(chunk_size=4096):
            file.write(chunk)
            if file.tell() > frame.size // 2:
                break  # the connection ends here
    there = part.stat().st_size
    with (
        portal.stream("GET", FILE + frame.dp_id, headers={"Range": f"bytes={there}-", "If-Range": tag}) as rest,
        part.open("ab") as file,
    ):
        assert rest.status_code == 206
        assert rest.headers["content-range"] == f"bytes {there}-{frame.size - 1}/{frame.size}"
        for chunk in rest.iter_raw():
            file.write(chunk)
    assert digest_of(part) == frame.digest


def test_a_part_of_another_file_is_not_continued(archive: Archive, portal: httpx.Client) -> None:
    frame = archive.frames("ARC")[0]
    answer = portal.get(FILE + frame.dp_id, headers={"Range": "bytes=100-", "If-Range": '"of another version"'})
    assert (answer.status_code, len(answer.content)) == (200, frame.size)


def test_ranges(archive: Archive, portal: httpx.Client) -> None:
    frame = archive.frames("BIAS")[0]
    content = Path(frame.path).read_bytes()
    last = portal.get(FILE + frame.dp_id, headers={"Range": "bytes=-100"})
    assert (last.status_code, last.content) == (206, content[-100:])
    several = portal.get(FILE + frame.dp_id, headers={"Range": "bytes=0-9,2880-2889"})
    assert several.status_code == 206
    assert several.headers["content-type"].startswith("multipart/byteranges")
    assert several.content.count(content[:10]) >= 1
    assert content[2880:2890] in several.content
    beyond = portal.get(FILE + frame.dp_id, headers={"Range": f"bytes={frame.size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{frame.size}")


def test_a_rejected_product_is_still_handed_out_by_its_id(archive: Archive, portal: httpx.Client) -> None:
    product = archive.products("MASTER_DARK")[0]
    archive.world.judge(product.name, Certification.REJECTED)
    assert portal.get(FILE + product.dp_id).content == Path(product.path).read_bytes()


def test_the_newest_version_has_the_name_and_the_older_one_is_there(
    archive: Archive, portal: httpx.Client, tmp_path: Path
) -> None:
    former = archive.frames("OBJECT")[1]
    path = tmp_path / f"{former.dp_id}.fits"
    content = Path(former.path).read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    Intake(archive.registry, archive.store, archive.settings).take(path, archive.world.now)
    newer = archive.frames("OBJECT")[-1]
    assert (newer.dp_id, newer.version) == (former.dp_id, 2)
    for name, row, called in (
        (former.dp_id, newer, f"{former.dp_id}.fits"),
        (f"{former.dp_id}.v2.fits", newer, f"{former.dp_id}.fits"),
        (f"{former.dp_id}.v1", former, f"{former.dp_id}.fits"),
    ):
        answer = portal.get(FILE + name)
        assert hashlib.sha256(answer.content).hexdigest() == row.digest
        assert answer.headers["content-disposition"] == f'attachment; filename="{called}"'
    assert portal.get(FILE + f"{former.dp_id}.v3").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "MUSE.2001-01-01T00:00:00.000",
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "registry.sqlite",
        "MUSE%00.fits",
        "MUSE%0D%0ASet-Cookie:%20x",
        "%FF%FE",
        "M%25",
        "F1",
        "x" * 10_000,
    ],
)
def test_what_nothing_goes_by_is_said_to_be_so(portal: httpx.Client, name: str) -> None:
    answer = portal.get(FILE + name)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(("Nothing in the archive goes by", "Not Found"))
    assert len(answer.content) < 300
    assert "set-cookie" not in answer.headers


def test_a_path_as_nobody_spells_it_leads_nowhere(archive: Archive, portal: httpx.Client) -> None:
    # An HTTP client would resolve the dots by itself.
    place = urlsplit(str(portal.base_url))
    for target in (f"/dataPortal/file/{archive.frames('BIAS')[0].path}", "/dataPortal/file/../../etc/passwd"):
        with socket.create_connection((place.hostname, place.port)) as raw:
            raw.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 404")


def test_a_file_that_is_gone_or_changed_is_told_as_such(archive: Archive, portal: httpx.Client) -> None:
    gone, cut = archive.frames("FLAT")[5:7]
    Path(gone.path).unlink()
    assert (portal.get(FILE + gone.dp_id).status_code, portal.head(FILE + gone.dp_id).status_code) == (410, 410)
    assert "not in its place any more" in portal.get(FILE + gone.dp_id).json()["detail"]
    os.truncate(cut.path, 2880)
    answer = portal.get(FILE + cut.dp_id)
    assert answer.status_code == 410
    assert f"2880 bytes instead of {cut.size}" in answer.json()["detail"]


def test_memory_stays_flat_for_the_largest_frame(archive: Archive, portal: httpx.Client) -> None:
    frame = archive.frames("FLAT")[7]
    path = archive.folder / "largest.fits"
    with path.open("wb") as file:
        file.truncate(SPARSE)
    with archive.registry.begin() as session:
        row = session.scalars(select(Frame).where(Frame.id == frame.id)).one()
        row.path, row.size = str(path), SPARSE
    with portal.stream("GET", FILE + frame.dp_id) as left:
        next(left.iter_raw())  # and then it goes away, which is no fault of the service
    before, most, received = archive.process.memory_info().rss, 0, 0
    with portal.stream("GET", FILE + frame.dp_id) as answer:
        for number, chunk in enumerate(answer.iter_raw(chunk_size=1 << 20)):
            received += len(chunk)
            if number % 50 == 0:
                most = max(most, archive.process.memory_info().rss)
    assert received == SPARSE
    assert most - before < 20e6


def test_health(archive: Archive, portal: httpx.Client) -> None:
    answer = portal.get("/health")
    assert answer.status_code == 200
    assert answer.json()["registry"] == archive.registry.revision()


def test_nothing_is_written(archive: Archive, portal: httpx.Client) -> None:
    name = archive.frames("BIAS")[0].dp_id
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert portal.request(method, FILE + name).status_code == 405
    with archive.registry.read() as session:
        assert session.scalars(select(Product)).first()
