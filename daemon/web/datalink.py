"""Trees as the links of IVOA's DataLink 1.1, with the columns that ESO adds and its scripts read.

Source: DataLink 1.1, sections 3.2 and 3.4; the vocabulary http://www.ivoa.net/rdf/datalink/core; ESO's sample scripts.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO

from astropy.io.votable.tree import Field, Info, Resource, TableElement, VOTableFile

from daemon.web.answers import Answer
from daemon.web.dataportal import media_type
from tasks.associations import AssociatedFile, Association, Tree

MEDIA_TYPE = "application/x-votable+xml;content=datalink"
STANDARD = "ivo://ivoa.net/std/DataLink#links-1.1"
THIS, CALIBRATION = "#this", "#calibration"
SIBLING = "#auxiliary"  # another frame of the same template; the vocabulary has no nearer word
_TEXT = {"datatype": "char", "arraysize": "*"}
# Name, UCD and what else the standard gives a column.
_COLUMNS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("ID", "meta.id;meta.main", _TEXT),
    ("access_url", "meta.ref.url", _TEXT),
    ("service_def", "meta.ref", _TEXT),
    ("error_message", "meta.code.error", _TEXT),
    ("semantics", "meta.code", _TEXT),
    ("description", "meta.note", _TEXT),
    ("content_type", "meta.code.mime", _TEXT),
    ("content_length", "phys.size;meta.file", {"datatype": "long", "unit": "byte"}),
    ("eso_category", "meta.code.class", _TEXT),
)


@dataclass(frozen=True, kw_only=True)
class _Link:
    """One row of the table; the fields are its columns."""

    ID: str
    access_url: str = ""
    service_def: str = ""
    error_message: str = ""
    semantics: str
    description: str = ""
    content_type: str = ""
    content_length: int | None = None
    eso_category: str = ""


def datalink(answers: Iterable[Answer], url_of: Callable[[str], str]) -> bytes:
    """Return the links of all answers as one VOTable.

    Parameters
    ----------
    answers : iterable of Answer
    url_of : callable
        Where a file is handed out, by its identifier.
    """
    links = [link for answer in answers for link in _links(answer, url_of)]
    votable = VOTableFile(version="1.4")
    resource = Resource(type="results")
    votable.resources.append(resource)
    resource.infos.append(Info(name="QUERY_STATUS", value="OK"))
    resource.infos.append(Info(name="standardID", value=STANDARD))
    table = TableElement(votable)
    resource.tables.append(table)
    table.fields.extend(Field(votable, name=name, ucd=ucd, **more) for name, ucd, more in _COLUMNS)
    table.create_arrays(len(links))
    for number, link in enumerate(links):
        values = [getattr(link, name) for name, _, _ in _COLUMNS]
        table.array[number] = tuple(0 if value is None else value for value in values)
        table.array.mask[number] = tuple(value is None for value in values)
    document = BytesIO()
    votable.to_xml(document)
    return document.getvalue()


def _links(answer: Answer, url_of: Callable[[str], str]) -> Iterator[_Link]:
    asked = _plain(answer.asked)
    if not answer.known:
        yield _Link(ID=asked, semantics=THIS, error_message=_plain(f"NotFoundFault: {answer.tree.top.messages[0]}"))
    for association, file in answer.tree.placed_files():
        this = file.dp_id == answer.dp_id
        beside = THIS if this else SIBLING
        yield _Link(
            ID=asked,
            access_url=url_of(file.dp_id),
            semantics=beside if association is answer.tree.top else CALIBRATION,
            description=_plain(_summary(answer.tree) if this else _standing(association, file)),
            content_type=media_type(file.arcfile),
            content_length=file.size,
            eso_category=file.category,
        )


def _summary(tree: Tree) -> str:
    """Return what ESO's scripts look for in the description of the frame itself."""
    said = " ".join(tree.messages()).replace('"', "'")
    values = {
        "category": tree.top.category,
        "complete": str(tree.top.complete).lower(),
        "certified": str(tree.top.certified).lower(),
        "mode": tree.mode,
        "messages": said,
    }
    return " ".join(f'{name}="{value}"' for name, value in values.items())


def _standing(association: Association, file: AssociatedFile) -> str:
    """Return how well a calibration fits, for people."""
    parts = [file.origfile or file.arcfile]
    if association.level is not None:
        parts.append(f"level {association.level}")
    if association.days is not None:
        parts.append(f"{association.days:+.2f} d")
    parts.extend(f"{key} {found} instead of {wanted}" for key, (wanted, found) in association.differences.items())
    return ", ".join([*parts, "certified" if association.certified else "provisional"])


def _plain(text: str) -> str:
    r"""Return a text as the standard's columns take it: ASCII on one line, with everything else as ``\n``, ``\xe9``."""
    return text.encode("unicode_escape").decode("ascii")
