"""A tree in calSelector's XML, and several in one message.

Elements, attributes and their order are those of ESO's answers, as astroquery keeps them with its tests.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from daemon.web.words import legible
from tasks.associations import Association, Mode, Tree

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'
MEDIA_TYPE = "application/xml;content=calselector"
INDENT = " " * 4


@dataclass(frozen=True)
class Document:
    """A tree as it is sent: the name of the file it is saved as, and its bytes."""

    name: str
    content: bytes


def association_xml(tree: Tree) -> bytes:
    """Return a tree as a document.

    Characters beyond ASCII are references, since astroquery garbles them in a document that is one of several.
    """
    top = _element(tree.top, mode=tree.mode)
    ET.indent(top, INDENT)
    return DECLARATION + ET.tostring(top) + b"\n"


def document_name(dp_id: str, mode: Mode) -> str:
    """Return what a document is called: ``MUSE.2026-06-17T23:01:02.003_raw2raw.xml``."""
    return f"{dp_id}_{mode.lower()}.xml"


def multipart(documents: Iterable[Document], boundary: str) -> bytes:
    """Return several documents in one body (RFC 2046, section 5.1).

    Parameters
    ----------
    documents : iterable of Document
        With names that may stand between quotation marks.
    boundary : str
        What no document holds.
    """
    return b"".join(_part(document, boundary) for document in documents) + f"--{boundary}--\r\n".encode()


def _part(document: Document, boundary: str) -> bytes:
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: attachment; filename="{document.name}"\r\n'
        f"Content-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(document.content)}\r\n\r\n"
    )
    return head.encode() + document.content + b"\r\n"


def _element(association: Association, *, mode: Mode | None = None) -> ET.Element:
    """Return an association with everything below; only the one at the top has a mode, only the others a match."""
    fits = {"match": association.match.value} if mode is None else {"mode": mode.value}
    element = ET.Element(
        "association",
        {
            "category": association.category,
            "certified": _truth(association.certified),
            "complete": _truth(association.complete),
            **fits,
            "type": "main",
        },
    )
    files = ET.SubElement(element, "mainFiles")
    for file in association.files:
        ET.SubElement(files, "file", {"category": file.category, "name": file.dp_id})
    messages = ET.SubElement(element, "messages")
    for message in association.messages:
        ET.SubElement(messages, "message", {"text": legible(message)})
    ET.SubElement(element, "associatedFiles").extend(_element(one) for one in association.associated)
    return element


def _truth(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "true" if value else "false"
