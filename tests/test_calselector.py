"""The calibrations of a frame from the real service, asked for by the clients that astronomers use for ESO's."""

import hashlib
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest
from astropy.io.votable import parse
from astropy.table import Table
from astroquery.eso import EsoClass
from pyvo.dal.adhoc import DatalinkResults
from served_archive import Archive

from archive.holdings import find_holding
from archive.models import Frame
from archive.states import Certification
from archive.store import digest_of
from daemon.web.calselector import MOST_IDS
from daemon.web.limits import LONGEST_BODY
from tasks.associating import associate, retrieval_policy
from tasks.associations import Mode, Tree

ASSOCIATIONS = "/calselector/v1/associations"
# What astroquery calls the modes.
MODES = [("raw", Mode.RAW2RAW), ("processed", Mode.RAW2MASTER)]
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def url(archive: Archive) -> Iterator[str]:
    with archive.served() as url:
        yield url


@pytest.fixture(scope="module")
def ask(url: str) -> Iterator[Ask]:
    """Ask for associations by GET."""
    with httpx.Client(base_url=url) as client:
        yield lambda *dp_ids, **more: client.get(ASSOCIATIONS, params={"dp_id": dp_ids, **more})


@pytest.fixture(scope="module")
def science(archive: Archive) -> list[str]:
    return [frame.dp_id for frame in archive.frames("OBJECT")]


@pytest.fixture
def eso(url: str, tmp_path: Path) -> EsoClass:
    """Astroquery's client, pointed at the service as its users would."""
    client = EsoClass()
    client.CALSELECTOR_URL = url + ASSOCIATIONS
    client.DOWNLOAD_URL = f"{url}/dataPortal/file/"
    client.cache_location = tmp_path
    return client


def tree(archive: Archive, dp_id: str, mode: Mode) -> Tree:
    with archive.registry.read() as session:
        frame = find_holding(session, dp_id)
        assert isinstance(frame, Frame)
        return associate(session, frame, mode, retrieval_policy(archive.settings))


def calibrations(archive: Archive, dp_ids: Sequence[str], mode: Mode) -> set[str]:
    """Every calibration of some frames, without these themselves."""
    return {file.dp_id for one in dp_ids for file in tree(archive, one, mode).files()} - set(dp_ids)


def digests(archive: Archive) -> dict[str, str]:
    """The digest of every frame and product by its identifier."""
    frames = {row.dp_id: row.digest for row in archive.frames()}
    return frames | {row.dp_id: row.digest for row in archive.products()}


@pytest.mark.parametrize(("word", "mode"), MODES)
@pytest.mark.parametrize("count", [1, 2])
def test_astroquery_finds_the_calibrations(
    archive: Archive, science: list[str], eso: EsoClass, word: str, mode: Mode, count: int, tmp_path: Path
) -> None:
    asked = science[:count]
    found = eso.get_associated_files(asked, mode=word, savexml=True, destination=str(tmp_path / "xml"))
    assert sorted(found) == sorted(calibrations(archive, asked, mode))
    saved = {path.name: ET.parse(path).getroot() for path in (tmp_path / "xml").iterdir()}
    assert set(saved) == {f"{dp_id}_{mode.lower()}.xml" for dp_id in asked}
    for dp_id in asked:
        top = saved[f"{dp_id}_{mode.lower()}.xml"]
        assert [file.attrib["name"] for file in top.iterfind("mainFiles/file")] == [dp_id]
        assert (top.attrib["mode"], top.attrib["complete"]) == (mode.value, "true")


@pytest.mark.parametrize(("word", "mode"), MODES)
def test_astroquery_retrieves_frame_and_calibrations(
    archive: Archive, science: list[str], eso: EsoClass, word: str, mode: Mode, tmp_path: Path
) -> None:
    files = eso.retrieve_data(science[:1], with_calib=word, destination=str(tmp_path / "data"))
    wanted = calibrations(archive, science[:1], mode) | {science[0]}
    assert {Path(file).name for file in files} == {f"{dp_id}.fits" for dp_id in wanted}
    known = digests(archive)
    for file in files:
        assert digest_of(Path(file)) == known[Path(file).name.removesuffix(".fits")]


def test_pyvo_reads_the_links_and_the_files_behind_them(archive: Archive, science: list[str], url: str) -> None:
    query = urlencode({"dp_id": science[0], "mode": "Raw2Master", "responseformat": "votable"})
    links = DatalinkResults.from_result_url(f"{url}{ASSOCIATIONS}?{query}")
    # Without narrower terms, for which pyvo would load the vocabulary from ivoa.net.
    [this] = links.bysemantics("#this", include_narrower=False)
    assert (this.id, this["eso_category"]) == (science[0], "OBJECT")
    found = list(links.bysemantics("#calibration", include_narrower=False))
    wanted = {file.dp_id: file for file in tree(archive, science[0], Mode.RAW2MASTER).files()}
    assert len(found) == len(links) - 1 == len(wanted) - 1
    known = digests(archive)
    for link in [this, *found]:
        file = wanted[link.access_url.rpartition("/")[2]]
        content = httpx.get(link.access_url).content
        assert hashlib.sha256(content).hexdigest() == known[file.dp_id]
        assert (link.content_length, link["eso_category"]) == (len(content), file.category)
        assert link.content_type == "application/fits"


def test_the_description_tells_esos_scripts_how_it_stands(science: list[str], ask: Ask) -> None:
    table = links_of(ask(science[0], mode="raw2master", responseformat="votable"))
    [description] = table["description"][table["semantics"] == "#this"]
    said = dict(re.findall(r'(\w+)="([^"]*)"', description))
    assert said == {
        "category": "OBJECT", "complete": "true", "certified": "false", "mode": "Raw2Master", "messages": "",
    }  # fmt: skip


def links_of(answer: httpx.Response) -> Table:
    """The links of an answer, by a reader that takes nothing that is against the standard."""
    assert answer.headers["content-type"].replace(" ", "") == "application/x-votable+xml;content=datalink"
    return parse(BytesIO(answer.content), verify="exception").get_first_table().to_table()


def test_links_of_many_frames_with_one_that_is_not_there(archive: Archive, science: list[str], ask: Ask) -> None:
    answer = ask(*science, "MUSE.2001-01-01T00:00:00.000", responseformat="votable")
    assert answer.status_code == 200
    table = links_of(answer)
    for dp_id in science:
        own = table[table["ID"] == dp_id]
        assert list(own["semantics"][:2]) == ["#this", "#calibration"]
        assert len(own) == 1 + len(calibrations(archive, [dp_id], Mode.RAW2RAW))
    [lost] = table[table["ID"] == "MUSE.2001-01-01T00:00:00.000"]
    assert lost["error_message"].startswith("NotFoundFault: Nothing in the archive goes by")
    assert lost["access_url"] == ""


def test_the_other_frames_of_a_template_are_beside_the_one_that_is_asked_for(archive: Archive, ask: Ask) -> None:
    biases = [frame.dp_id for frame in archive.frames("BIAS")]
    table = links_of(ask(biases[3], responseformat="votable"))
    [this] = table[table["semantics"] == "#this"]
    assert this["access_url"].endswith(biases[3])
    beside = table[table["semantics"] == "#auxiliary"]
    assert [address.rpartition("/")[2] for address in beside["access_url"]] == biases[:3] + biases[4:]


@pytest.mark.parametrize("mode", ["Raw2Master", "raw2master", "RAW2MASTER"])
def test_post_and_get_are_one_in_any_case(science: list[str], url: str, ask: Ask, mode: str) -> None:
    got = ask(science[0], mode=mode)
    posted = httpx.post(url + ASSOCIATIONS, data={"dp_id": science[0], "mode": mode})
    assert got.content == posted.content
    assert b'mode="Raw2Master"' in got.content
    assert got.headers["content-type"] == "application/xml;content=calselector"
    assert got.headers["content-disposition"] == f'attachment; filename="{science[0]}_raw2master.xml"'
    assert got.headers["content-length"] == str(len(got.content))


def test_raw_to_raw_unless_it_is_asked_otherwise(science: list[str], ask: Ask) -> None:
    assert ask(science[0]).content == ask(f"{science[0]}.fits", mode="Raw2Raw").content


def test_json_has_everything(archive: Archive, science: list[str], ask: Ask) -> None:
    [one] = ask(science[0], mode="Raw2Master", responseformat="json").json()["associations"]
    assert (one["requested_mode"], one["mode"], one["dp_id"]) == ("Raw2Master", "Raw2Master", science[0])
    wanted = tree(archive, science[0], Mode.RAW2MASTER).top.associated
    assert [child["category"] for child in one["association"]["associated"]] == [child.category for child in wanted]
    bias = one["association"]["associated"][0]
    [master] = archive.products("MASTER_BIAS")
    assert (bias["category"], bias["level"], bias["certified"]) == ("MASTER_BIAS", 0, False)
    assert bias["days"] == pytest.approx(wanted[0].days)
    assert bias["files"][0]["origfile"] == master.name
    assert bias["files"][0]["access_url"].endswith(f"/dataPortal/file/{master.dp_id}")


def test_a_rejected_master_gives_the_raw_frames_and_says_so(archive: Archive, science: list[str], ask: Ask) -> None:
    [master] = archive.products("MASTER_FLAT")
    archive.world.judge(master.name, Certification.REJECTED)
    try:
        top = ET.fromstring(ask(science[0], mode="Raw2Master").content)
        assert top.attrib["mode"] == "Raw2Raw"
        message, *_ = [one.attrib["text"] for one in top.iterfind("messages/message")]
        assert "requested mode Raw2Master could not be executed" in message
        names = {file.attrib["name"] for file in top.iter("file")}
        assert master.dp_id not in names
        assert {frame.dp_id for frame in archive.frames("FLAT")} <= names
        table = links_of(ask(science[0], mode="Raw2Master", responseformat="votable"))
        [description] = table["description"][table["semantics"] == "#this"]
        assert 'mode="Raw2Raw"' in description
        assert message in description
    finally:
        archive.world.judge(master.name, Certification.CERTIFIED)


def test_one_lost_identifier_costs_nobody_else_an_answer(
    archive: Archive, science: list[str], eso: EsoClass, ask: Ask
) -> None:
    asked = [science[0], "MUSE.2001-01-01T00:00:00.000", "../../etc/passwd"]
    assert sorted(eso.get_associated_files(asked)) == sorted(calibrations(archive, science[:1], Mode.RAW2RAW))
    answer = ask(*asked)
    assert answer.status_code == 200
    for lost in asked[1:]:
        assert f"Nothing in the archive goes by '{lost}'." in answer.text


def test_what_no_calibrations_belong_to_says_so_in_its_tree(archive: Archive, ask: Ask) -> None:
    [product] = archive.products("MASTER_BIAS")
    for dp_id, category in ((archive.frames("ILLUM")[0].dp_id, "ILLUM"), (product.dp_id, "MASTER_BIAS")):
        answer = ask(dp_id)
        assert answer.status_code == 200
        top = ET.fromstring(answer.content)
        assert (top.attrib["category"], top.attrib["complete"]) == (category, "false")
        assert [file.attrib["name"] for file in top.iter("file")] == [dp_id]
        [message] = [one.attrib["text"] for one in top.iter("message")]
        assert message.startswith("No association could be established:")


@pytest.mark.parametrize(
    "dp_id",
    ["MUSE.2001-01-01T00:00:00.000", "../../../etc/passwd", "x" * 10_000, "a\r\nSet-Cookie: b\x00\x1b", 'a"b<&>'],
)
def test_an_identifier_that_nothing_goes_by_is_not_found_in_every_form(url: str, ask: Ask, dp_id: str) -> None:
    for answer in (ask(dp_id), httpx.post(url + ASSOCIATIONS, data={"dp_id": [dp_id]})):
        assert answer.status_code == 404
        [message] = [one.attrib["text"] for one in ET.fromstring(answer.content).iter("message")]
        assert message.startswith("Nothing in the archive goes by ")
        assert "set-cookie" not in answer.headers
        assert len(answer.content) < 1000
    assert ask(dp_id, responseformat="json").status_code == 404
    [lost] = links_of(ask(dp_id, responseformat="votable"))
    assert lost["error_message"].startswith("NotFoundFault:")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({}, "dp_id: give the data-product identifier of a raw frame"),
        ({"dp_id": " "}, "dp_id: give the data-product identifier of a raw frame"),
        ({"dp_id": "MUSE.x", "mode": "Master2Raw"}, "mode: Input should be 'Raw2Raw' or 'Raw2Master'"),
        ({"dp_id": "MUSE.x", "responseformat": "fits"}, "responseformat: Input should be 'xml', 'votable' or 'json'"),
        ({"dp_id": [f"MUSE.{n}" for n in range(MOST_IDS + 1)]}, f"ask for at most {MOST_IDS} at once"),
    ],
)
def test_a_request_that_is_not_clear_is_refused_in_words(url: str, query: dict[str, str], sentence: str) -> None:
    for answer in (httpx.get(url + ASSOCIATIONS, params=query), httpx.post(url + ASSOCIATIONS, data=query)):
        assert answer.status_code == 400
        assert sentence in answer.json()["detail"]


def test_a_body_without_end_is_not_read(url: str) -> None:
    long = httpx.post(url + ASSOCIATIONS, content=b"dp_id=" + b"x" * LONGEST_BODY)
    assert long.status_code == 413
    assert str(LONGEST_BODY) in long.json()["detail"]
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port)) as endless:
        endless.sendall(f"POST {ASSOCIATIONS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        assert b" 413 " in endless.recv(65536)


def test_many_clients_at_once_get_the_same(science: list[str], ask: Ask) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = {one.content for one in pool.map(lambda _: ask(science[0], mode="Raw2Master"), range(40))}
    assert len(answers) == 1
