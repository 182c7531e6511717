"""Our XML is ESO's: what astroquery keeps of calSelector's answers is compared with what we make of the same trees."""

import email
import re
from email.message import Message
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.web.associationxml import Document, association_xml, document_name, multipart
from daemon.web.words import legible, quoted
from tasks.associations import AssociatedFile, Association, Mode, Tree, Validity

DATA = files("astroquery.eso.tests") / "data"
SINGLE = (DATA / "FORS2.2021-01-02T00_59_12.533_raw2raw.xml").read_bytes()
SEVERAL = (DATA / "FORS2.2021-01-02T00_59_12.533_raw2raw_multipart.xml").read_bytes()
BOUNDARY = "uFQlfs9nBIDEAIoz0_ZM-O2SXKsZ2iSd4h7H"


def file(element: ET.Element) -> AssociatedFile:
    name = element.attrib["name"]
    return AssociatedFile(
        category=element.attrib["category"], dp_id=name, arcfile=f"{name}.fits", origfile="", path=Path(name), size=1,
        row="F1",
    )  # fmt: skip


def association(element: ET.Element) -> Association:
    return Association(
        category=element.attrib["category"],
        files=tuple(file(one) for one in element.iterfind("mainFiles/file")),
        certified=element.attrib["certified"] == "true",
        complete=element.attrib["complete"] == "true",
        match=Validity(element.attrib.get("match", "N/A")),
        messages=tuple(one.attrib["text"] for one in element.iterfind("messages/message")),
        associated=tuple(association(one) for one in element.iterfind("associatedFiles/association")),
    )


def tree(content: bytes) -> Tree:
    top = ET.fromstring(content)
    mode = Mode(top.attrib["mode"])
    return Tree(asked=mode, mode=mode, top=association(top))


def simple_tree(category: str = "OBJECT", messages: tuple[str, ...] = (), mode: Mode = Mode.RAW2RAW) -> Tree:
    return Tree(asked=Mode.RAW2MASTER, mode=mode, top=Association(category=category, messages=messages))


def tokens(content: bytes) -> list[str]:
    """Every tag with its attributes as written, in their order; an empty element is the same in both spellings."""
    text = re.sub(r"\s+", " ", content.decode())
    return re.findall(r"<[^>]+>", re.sub(r"<(\w+)([^>]*?) ?/>", r"<\1\2></\1>", text))


def parts(content: bytes, content_type: str) -> list[Message]:
    """The parts, by the parser that astroquery uses."""
    message = email.message_from_string(f"Content-Type: {content_type}\r\n" + content.decode())
    found = message.get_payload()
    assert isinstance(found, list)
    return [part for part in found if isinstance(part, Message)]


def test_a_tree_of_eso_is_written_as_eso_writes_it() -> None:
    made = association_xml(tree(SINGLE))
    for ours, theirs in zip_longest(tokens(made), tokens(SINGLE)):
        assert ours == theirs
    assert made.decode().splitlines()[0] == SINGLE.decode().splitlines()[0]
    assert ET.canonicalize(made.decode(), strip_text=True) == ET.canonicalize(SINGLE.decode(), strip_text=True)


def test_several_trees_of_eso_are_sent_as_eso_sends_them() -> None:
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    theirs = parts(SEVERAL, content_type)
    documents = []
    for part in theirs:
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        name = ET.fromstring(payload)[0][0].attrib["name"]
        documents.append(Document(document_name(name, Mode.RAW2RAW), association_xml(tree(payload))))
    ours = parts(multipart(documents, BOUNDARY), content_type)
    assert len(ours) == len(theirs) == 2
    for part, expected, document in zip(ours, theirs, documents, strict=True):
        assert part.keys() == expected.keys()
        assert part.get_filename() == expected.get_filename()
        assert part["Content-Disposition"] == expected["Content-Disposition"]
        assert part["Content-Type"] == expected["Content-Type"]
        assert part.get_payload(decode=True) == document.content
        assert part["Content-Length"] == str(len(document.content))
        assert not part.defects


@pytest.mark.parametrize("mode", Mode)
def test_the_mode_is_the_one_that_was_given_and_stands_at_the_top_alone(mode: Mode) -> None:
    below = Association(category="MASTER_BIAS", match=Validity.EXTENDED, complete=False)
    top = Association(category="OBJECT", associated=(below,), messages=("One is missing.",), complete=False)
    element = ET.fromstring(association_xml(Tree(asked=Mode.RAW2MASTER, mode=mode, top=top)))
    assert (element.attrib["mode"], "match" in element.attrib) == (mode.value, False)
    assert [one.attrib for one in element.iterfind("messages/message")] == [{"text": "One is missing."}]
    child = element.find("associatedFiles/association")
    assert child is not None
    assert (child.attrib["match"], child.attrib["complete"], "mode" in child.attrib) == ("extended", "false", False)


@given(st.text(), st.text())
def test_whatever_is_said_comes_through(message: str, asked: str) -> None:
    said = (message, f"Nothing goes by {quoted(asked)}.")
    element = ET.fromstring(association_xml(simple_tree(messages=said)))
    read = [one.attrib["text"] for one in element.iterfind("messages/message")]
    assert read == [legible(one) for one in said]
    assert legible(said[1]) == said[1], "a quotation is legible as it is"


@given(st.lists(st.text(max_size=20), min_size=2, max_size=3))
def test_what_one_document_of_several_says_comes_through(messages: list[str]) -> None:
    documents = [
        Document(f"{number}.xml", association_xml(simple_tree(messages=(said,))))
        for number, said in enumerate(messages)
    ]
    read = parts(multipart(documents, BOUNDARY), f"multipart/form-data; boundary={BOUNDARY}")
    assert [part.get_payload(decode=True) for part in read] == [document.content for document in documents]
