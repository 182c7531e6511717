"""Searching frames and products: every condition, pages that join without gap or overlap, and every form of answer."""

import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import pyvo
import uvicorn
from astropy.io import votable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_night import NOW, SETUP
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from archive.models import Frame, Group, Product, Step
from archive.night import mjd_of, night_of
from archive.registry import Registry
from archive.search import FrameSearch, Mark, ProductSearch, find_frames, find_products
from archive.setup import SetupKey
from archive.states import Certification, GroupState, Score, StepState
from daemon.cli.application import app
from daemon.cli.errors import ExitCode
from daemon.searches import FrameParameters, ProductParameters, UnclearSearch, read_parameters
from daemon.web.application import make_application
from tasks.settings import load_settings
from tasks.site import Site

BEGIN = datetime(2026, 6, 17, 22, tzinfo=UTC)
EVERYTHING = 1000


def add_frame(session: Session, number: int, tag: str = "BIAS", **columns: Any) -> Frame:  # noqa: ANN401
    mjd = mjd_of(BEGIN + timedelta(hours=number))
    values: dict[str, Any] = {
        "dp_id": f"MUSE.{number}", "digest": f"{number:064x}", "path": f"/nowhere/{number}.fits", "size": number,
        "tag": tag, "catg": "CALIB", "type": tag, "tech": "IFU", "rule": "", "mjd": mjd, "exptime": 1.5,
        "night": night_of(mjd), "origfile": f"MUSE_CAL_{number}.fits", "object": tag, "ingested": NOW, **SETUP,
    }  # fmt: skip
    frame = Frame(**(values | columns))
    session.add(frame)
    return frame


def add_product(session: Session, number: int, catg: str = "MASTER_BIAS", **columns: Any) -> Product:  # noqa: ANN401
    mjd = mjd_of(BEGIN + timedelta(hours=number))
    values: dict[str, Any] = {
        "dp_id": f"M.MUSE.{number}", "digest": f"{number:064x}", "path": f"/nowhere/MU_{number}.fits", "size": number,
        "name": f"MU_{number}.fits", "catg": catg, "mjd": mjd, "night": night_of(mjd), "created": NOW, **SETUP,
    }  # fmt: skip
    product = Product(**(values | columns))
    session.add(product)
    return product


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """Twelve frames of two nights, an hour apart; products of every kind, one of them made twice."""
    with registry.begin() as session:
        for number in range(8):
            add_frame(session, number, ("BIAS", "FLAT")[number % 2], mode="WFM-AO-N" if number > 5 else "WFM-NOAO-N")
        newer = add_frame(session, 8, "OBJECT", object="NGC 5139", version=2)
        session.flush()
        add_frame(session, 9, "OBJECT", object="NGC 5139", superseded_by=newer.id)
        add_frame(session, 24, "BIAS")
        add_frame(session, 25, "OBJECT", object="100% sky")
        group = Group(
            tag="BIAS", key="k", night=NOW.date(), mjd=0.0, expected=1, state=GroupState.COMPLETE, last_arrival=NOW,
            closes=NOW,
        )  # fmt: skip
        steps = [Step(group=group, name="bias", sequence=n, state=StepState.DONE, created=NOW) for n in (1, 2)]
        add_product(session, 1, step=steps[0], certification=Certification.CERTIFIED, score=Score.GREEN)
        add_product(session, 2, step=steps[1], score=Score.YELLOW)
        add_product(session, 3, "STD_RESPONSE", static=True, certification=Certification.CERTIFIED)
        add_product(session, 4, "MASTER_FLAT", certification=Certification.REJECTED, score=Score.RED)
    return registry


def numbers(rows: Any) -> list[int]:  # noqa: ANN401
    return [row.size for row in rows]


def test_what_goes_on_serving_is_not_replaced(filled: Registry) -> None:
    """A later make that is red leaves its place, one that came out the same made nothing; a person's word decides."""

    def shown() -> list[int]:
        with filled.read() as session:
            return numbers(find_products(session, ProductSearch(types=("MASTER_BIAS",), limit=EVERYTHING)).rows)

    with filled.begin() as session:
        group = session.query(Group).one()
        session.add(Step(group=group, name="bias", sequence=3, state=StepState.DONE, created=NOW))
        session.query(Product).filter_by(size=2).one().score = Score.RED
    assert shown() == [2, 1]
    with filled.begin() as session:
        session.query(Product).filter_by(size=2).one().certification = Certification.CERTIFIED
    assert shown() == [2]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({}, [25, 24, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ({"oldest_first": True, "types": ("BIAS",)}, [0, 2, 4, 6, 24]),
        ({"types": ("FLAT", "OBJECT")}, [25, 8, 7, 5, 3, 1]),
        ({"night": date(2026, 6, 18)}, [25, 24]),
        ({"since": mjd_of(BEGIN + timedelta(hours=7)), "before": mjd_of(BEGIN + timedelta(hours=24))}, [8, 7]),
        ({"setup": {SetupKey.MODE: "WFM-AO-N"}}, [7, 6]),
        ({"setup": {SetupKey.MODE: "WFM-AO-N", SetupKey.READOUT_ID: 2}}, []),
        ({"superseded": True}, [9]),
        ({"superseded": None, "types": ("OBJECT",)}, [25, 9, 8]),
        ({"name": "MUSE.5"}, [5]),
        ({"name": "MUSE.5.fits"}, [5]),
        ({"name": "MUSE_CAL_5"}, [5]),
        ({"name": "muse_cal_2*"}, [25, 24, 2]),
        ({"object": "ngc*"}, [8]),
        ({"object": "100%*"}, [25]),
        ({"object": "%"}, []),
        ({"name": "MUSE_CAL__*"}, []),
    ],
)
def test_frames_meet_every_condition(filled: Registry, conditions: dict[str, Any], found: list[int]) -> None:
    with filled.read() as session:
        page = find_frames(session, FrameSearch(limit=EVERYTHING, **conditions))
    assert numbers(page.rows) == found
    assert page.after is None


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({}, [4, 3, 2]),
        ({"superseded": None}, [4, 3, 2, 1]),
        ({"superseded": True}, [1]),
        ({"types": ("MASTER_BIAS", "MASTER_FLAT")}, [4, 2]),
        ({"static": True}, [3]),
        ({"static": False}, [4, 2]),
        ({"certifications": (Certification.PROVISIONAL, Certification.REJECTED)}, [4, 2]),
        ({"scores": (Score.NONE,)}, [3]),
        ({"scores": (Score.YELLOW, Score.RED), "certifications": (Certification.PROVISIONAL,)}, [2]),
        ({"name": "MU_4"}, [4]),
        ({"name": "M.MUSE.4.fits"}, [4]),
    ],
)
def test_products_meet_every_condition(filled: Registry, conditions: dict[str, Any], found: list[int]) -> None:
    with filled.read() as session:
        assert numbers(find_products(session, ProductSearch(limit=EVERYTHING, **conditions)).rows) == found


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=st.lists(st.integers(0, 5), max_size=12), limit=st.integers(1, 5), oldest_first=st.booleans())
def test_pages_join_without_gap_or_overlap(
    registry: Registry, hours: list[int], limit: int, *, oldest_first: bool
) -> None:
    """Also where rows have the same time."""
    with registry.begin() as session:
        session.query(Frame).delete()
        for number, hour in enumerate(hours):
            add_frame(session, number, mjd=60000.1 + hour / 24)
        session.flush()
        whole = find_frames(session, FrameSearch(limit=EVERYTHING, oldest_first=oldest_first)).rows
        joined: list[Frame] = []
        after: Mark | None = None
        while True:
            page = find_frames(session, FrameSearch(limit=limit, oldest_first=oldest_first, after=after))
            joined += page.rows
            assert len(page.rows) <= limit
            if page.after is None:
                break
            after = Mark.of(str(page.after))
        assert joined == list(whole)
        session.expunge_all()


@pytest.mark.parametrize(
    ("given_", "sentence"),
    [
        ([("foo", "1")], "foo is no parameter of this search; there are after,"),
        ([("maxrec", "-1")], "maxrec = '-1'"),
        ([("maxrec", "1000000")], "maxrec = '1000000'"),
        ([("since", "yesterday")], "since = 'yesterday' cannot be: it is no time"),
        ([("tag", "BIAS,NONE")], "tag = 'NONE'"),
        ([("after", "here")], "no mark of a page"),
        ([("night", "2026-13-01")], "night = '2026-13-01'"),
        ([("night", "2026-06-17"), ("NIGHT", "2026-06-17")], "night is given more than once"),
        ([("superseded", "perhaps")], "superseded = 'perhaps'"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_a_sentence(given_: list[tuple[str, str]], sentence: str) -> None:
    with pytest.raises(UnclearSearch) as refused:
        read_parameters(FrameParameters, given_)
    assert sentence in str(refused.value)


def test_lists_come_with_commas_or_one_by_one() -> None:
    texts = [("CATG", "MASTER_BIAS, MASTER_FLAT"), ("catg", "TRACE_TABLE"), ("score", "none,green")]
    search = read_parameters(ProductParameters, texts).search()
    assert search.types == ("MASTER_BIAS", "MASTER_FLAT", "TRACE_TABLE")
    assert search.scores == (Score.NONE, Score.GREEN)


@pytest.mark.parametrize("text", ["2026-06-17", "2026-06-17T00:00:00Z", "2026-06-17T02:00:00+02:00"])
def test_times_are_utc_unless_they_say_otherwise(text: str) -> None:
    search = read_parameters(FrameParameters, [("since", text)]).search()
    assert search.since == mjd_of(datetime(2026, 6, 17, tzinfo=UTC))


@pytest.fixture
def settings_file(filled: Registry, tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    url = filled.url.render_as_string(hide_password=False)
    path.write_text(f'[registry]\nurl = "{url}"\n[archive]\nroot = "archive"\nincoming = "incoming"\n')
    return path


@pytest.fixture
def client(settings_file: Path) -> Iterator[httpx.Client]:
    """A client of the service, which a thread serves on a port of its own."""
    site = Site.of(load_settings(settings_file))
    server = uvicorn.Server(uvicorn.Config(make_application(site), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            yield client
        server.should_exit = True
        thread.join()
    site.registry.close()


def test_the_service_answers_in_json_with_the_mark_of_the_next_page(client: httpx.Client) -> None:
    first = client.get("/search/frames", params={"tag": "BIAS", "maxrec": 2}).json()
    rest = client.get("/search/frames", params={"tag": "BIAS", "after": first["after"]}).json()
    assert [record["dp_id"] for record in first["records"] + rest["records"]] == [
        f"MUSE.{number}" for number in (24, 6, 4, 2, 0)
    ]
    assert rest["after"] is None


@pytest.mark.parametrize(
    "asked",
    [
        {"params": {"format": "votable"}},
        {"params": {"RESPONSEFORMAT": "application/x-votable+xml"}},
        {"headers": {"Accept": "text/html, application/x-votable+xml;q=0.9"}},
    ],
)
def test_the_service_answers_in_the_form_that_is_asked_for(client: httpx.Client, asked: dict[str, Any]) -> None:
    answer = client.get("/search/products", **asked)
    assert answer.headers["content-type"] == "application/x-votable+xml"


def test_csv_has_a_line_a_row(client: httpx.Client) -> None:
    answer = client.get("/search/products", params={"format": "csv", "maxrec": 2})
    assert answer.headers["content-type"].startswith("text/csv")
    assert [line.split(",")[2] for line in answer.text.splitlines()] == ["name", "MU_4.fits", "MU_3.fits"]
    assert Mark.of(answer.headers["x-after"])


def test_pyvo_reads_the_table_with_units_and_meaning(client: httpx.Client) -> None:
    service = pyvo.dal.DALService(str(client.base_url.join("/search/products")))
    results = service.search(responseformat="votable", superseded="any", order="oldest")
    assert results.status[0] == "OK"
    assert list(results["name"]) == ["MU_1.fits", "MU_2.fits", "MU_3.fits", "MU_4.fits"]
    assert list(results["static"]) == [False, False, True, False]
    assert results["mjd"][0] == pytest.approx(mjd_of(BEGIN + timedelta(hours=1)), abs=1e-9)
    assert results.getdesc("mjd").unit == "d"
    assert all(results.getdesc(name).ucd and results.getdesc(name).description for name in results.fieldnames)


def test_every_field_is_valid_and_overflow_is_told_behind_the_table(client: httpx.Client) -> None:
    for kind in ("frames", "products"):
        answer = client.get(f"/search/{kind}", params={"format": "votable", "maxrec": 1})
        votable.parse(BytesIO(answer.content), verify="exception")
        assert answer.text.index("</TABLE>") < answer.text.index('value="OVERFLOW"') < answer.text.index("</RESOURCE>")
    nothing = client.get("/search/frames", params={"format": "votable", "maxrec": 0}).text
    assert 'value="OVERFLOW"' in nothing
    assert "MUSE." not in nothing


@pytest.mark.parametrize("form", ["json", "votable"])
def test_a_search_that_cannot_be_understood_is_a_400_with_a_sentence(client: httpx.Client, form: str) -> None:
    answer = client.get("/search/frames", params={"colour": "red", "format": form})
    assert answer.status_code == 400
    assert "colour is no parameter of this search" in answer.text
    if form == "votable":
        assert 'value="ERROR"' in answer.text


def test_an_unknown_form_is_refused(client: httpx.Client) -> None:
    answer = client.get("/search/frames", params={"format": "parquet"})
    assert (answer.status_code, "parquet" in answer.json()["detail"]) == (400, True)


def test_the_description_of_the_service_names_every_parameter(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()["paths"]
    for kind, parameters in (("frames", FrameParameters), ("products", ProductParameters)):
        named = {item["name"] for item in described[f"/search/{kind}"]["get"]["parameters"]}
        assert named == {*parameters.model_fields, "format"}


Musecal = Callable[..., Result]


@pytest.fixture
def musecal(settings_file: Path) -> Musecal:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--settings", str(settings_file)], env={"COLUMNS": "160"})

    return run


def test_the_commands_find_what_the_service_finds(client: httpx.Client, musecal: Musecal) -> None:
    for kind, options in (("frames", {"tag": "OBJECT", "object": "NGC*"}), ("products", {"catg": "MASTER_BIAS"})):
        words = [word for name, text in options.items() for word in (f"--{name}", text)]
        result = musecal("find", kind, *words, "--json")
        assert result.exit_code == ExitCode.DONE, result.output
        assert json.loads(result.stdout) == client.get(f"/search/{kind}", params=options).json()
        for form in ("csv", "votable"):
            printed = musecal("find", kind, *words, "--format", form).stdout
            assert printed == client.get(f"/search/{kind}", params=options | {"format": form}).text


def test_a_page_of_the_command_tells_how_to_go_on(musecal: Musecal) -> None:
    first = musecal("find", "frames", "--limit", "3")
    mark = first.stdout.rpartition("--after ")[2].strip()
    assert "MUSE.25" in first.stdout
    assert "MUSE.7" in musecal("find", "frames", "--after", mark).stdout
    assert "Nothing meets" in musecal("find", "products", "--name", "nothing").stdout


def test_a_wrong_option_is_a_sentence(musecal: Musecal) -> None:
    result = musecal("find", "products", "--score", "blue")
    assert result.exit_code == ExitCode.USAGE
    assert "score = 'blue'" in result.stderr
