"""Rows as flat tables: the columns with unit, meaning and kind of quantity (UCD), and the forms they are written in.

Source of the UCD words: IVOA, UCD1+ controlled vocabulary 1.5; of the form of the VOTable: DALI 1.1, section 4.4.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic

from archive.models import Frame, Product
from archive.night import time_of
from archive.search import Found, Page
from archive.setup import SetupKey
from archive.states import Certification

Record = dict[str, Any]
VOTABLE_TYPE = "application/x-votable+xml"


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Found]):
    """A column.

    Parameters
    ----------
    name, description, ucd, unit : str
    kind : type
        str, int, float or bool.
    value : callable
        What a row has there.
    """

    name: str
    description: str
    ucd: str = ""
    unit: str = ""
    kind: type = str
    value: Callable[[Found], object]


def _of_setup() -> tuple[Column[Any], ...]:
    meaning = {
        SetupKey.MODE: ("Instrument mode, INS.MODE", "meta.id;instr.setup"),
        SetupKey.READOUT: ("Readout mode of the detectors, DET.READ.CURNAME", "meta.id;instr.setup"),
        SetupKey.READOUT_ID: ("Number of the readout mode, DET.READ.CURID", "meta.code;instr.setup"),
        SetupKey.BINX: ("Binning in x, DET.BINX", "instr.setup;instr.det"),
        SetupKey.BINY: ("Binning in y, DET.BINY", "instr.setup;instr.det"),
        SetupKey.FILTER: ("Order-sorting filter, INS.OPTI1.NAME", "meta.id;instr.filter"),
        SetupKey.OPTICS: ("Field of view, INS.OPTI2.NAME", "meta.id;instr.setup"),
    }
    counts = (SetupKey.READOUT_ID, SetupKey.BINX, SetupKey.BINY)
    return tuple(
        Column(
            name=key.value,
            description=description,
            ucd=ucd,
            kind=int if key in counts else str,
            value=attrgetter(key.value),
        )
        for key, (description, ucd) in meaning.items()
    )


def _time(row: Frame | Product) -> str:
    return time_of(row.mjd).isoformat(timespec="milliseconds").replace("+00:00", "Z")


FRAME_COLUMNS: tuple[Column[Frame], ...] = (
    Column(name="id", description="Identifier in this registry", ucd="meta.id", value=lambda row: f"F{row.id}"),
    Column(
        name="dp_id", description="Data-product identifier", ucd="meta.id;meta.main", value=lambda row: row.dp_id
    ),
    Column(
        name="version", description="Version of the content", ucd="meta.version", kind=int,
        value=lambda row: row.version,
    ),
    Column(name="tag", description="Tag for the pipeline", ucd="meta.code.class", value=lambda row: row.tag),
    Column(name="dpr_catg", description="DPR.CATG", ucd="meta.code.class", value=lambda row: row.catg),
    Column(name="dpr_type", description="DPR.TYPE", ucd="meta.code.class", value=lambda row: row.type),
    Column(name="dpr_tech", description="DPR.TECH", ucd="meta.code.class;instr", value=lambda row: row.tech),
    Column(name="object", description="Name of the target, OBJECT", ucd="meta.id;src", value=lambda row: row.object),
    Column(
        name="night", description="Date on which the night begins", ucd="time.epoch",
        value=lambda row: row.night.isoformat(),
    ),
    Column(name="time", description="Begin of the exposure, UTC", ucd="time.start;obs.exposure", value=_time),
    Column(
        name="mjd", description="Begin of the exposure, Modified Julian Date, UTC", ucd="time.start;obs.exposure",
        unit="d", kind=float, value=lambda row: row.mjd,
    ),
    Column(
        name="exptime", description="Exposure time", ucd="time.duration;obs.exposure", unit="s", kind=float,
        value=lambda row: row.exptime,
    ),
    *_of_setup(),
    Column(name="template", description="TPL.ID", ucd="meta.id;obs.proposal", value=lambda row: row.tpl_id),
    Column(
        name="origfile", description="Name at the workstation", ucd="meta.id;meta.file",
        value=lambda row: row.origfile,
    ),
    Column(
        name="size", description="Size of the file", ucd="phys.size;meta.file", unit="byte", kind=int,
        value=lambda row: row.size,
    ),
    Column(
        name="superseded", description="A newer version has replaced it", ucd="meta.code.status", kind=bool,
        value=lambda row: row.superseded_by is not None,
    ),
)  # fmt: skip
PRODUCT_COLUMNS: tuple[Column[Product], ...] = (
    Column(name="id", description="Identifier in this registry", ucd="meta.id", value=lambda row: f"P{row.id}"),
    Column(
        name="dp_id", description="Data-product identifier", ucd="meta.id;meta.main", value=lambda row: row.dp_id
    ),
    Column(name="name", description="Name of the file", ucd="meta.id;meta.file", value=lambda row: row.name),
    Column(name="catg", description="PRO.CATG", ucd="meta.code.class", value=lambda row: row.catg),
    Column(
        name="night", description="Date on which the night begins", ucd="time.epoch",
        value=lambda row: row.night.isoformat(),
    ),
    Column(
        name="time", description="Middle of the exposures, of a static one begin of its validity, UTC",
        ucd="time.epoch", value=_time,
    ),
    Column(
        name="mjd", description="The same as Modified Julian Date, UTC", ucd="time.epoch", unit="d", kind=float,
        value=lambda row: row.mjd,
    ),
    *_of_setup(),
    Column(
        name="certification", description="provisional, certified or rejected", ucd="meta.code.status",
        value=lambda row: row.certification.value,
    ),
    Column(
        name="certified", description="It is certified", ucd="meta.code.status", kind=bool,
        value=lambda row: row.certification is Certification.CERTIFIED,
    ),
    Column(
        name="score", description="green, yellow or red; empty where nothing was scored", ucd="meta.code.qual",
        value=lambda row: str(row.score),
    ),
    Column(
        name="static", description="A static calibration, valid from its time on", ucd="meta.code", kind=bool,
        value=lambda row: row.static,
    ),
    Column(
        name="size", description="Size of the file", ucd="phys.size;meta.file", unit="byte", kind=int,
        value=lambda row: row.size,
    ),
    Column(
        name="sha256", description="SHA-256 of the file", ucd="meta.checksum;meta.file", value=lambda row: row.digest
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of rows as plain records, with its columns.

    Parameters
    ----------
    columns : sequence of Column
    records : sequence of mapping
        Values by the name of their column.
    after : str or None
        Mark of the last row if there are more.
    """

    columns: Sequence[Column[Any]]
    records: Sequence[Record]
    after: str | None

    @property
    def document(self) -> Record:
        """The records and the mark as one value for JSON."""
        return {"records": self.records, "after": self.after}


def list_page(page: Page[Found], columns: Sequence[Column[Found]]) -> Listing:
    """Return a page of rows as records."""
    records = [{column.name: column.value(row) for column in columns} for row in page.rows]
    return Listing(columns=columns, records=records, after=None if page.after is None else str(page.after))


def as_csv(listing: Listing) -> str:
    """Return a listing as comma-separated values with one line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in listing.columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(listing.records)
    return text.getvalue()


def as_votable(listing: Listing, *, limit: int) -> bytes:
    """Return a listing as a VOTable; QUERY_STATUS is OVERFLOW where it ends at its limit.

    Parameters
    ----------
    limit : int
        Most rows that were asked for.
    """
    from astropy.io.votable.tree import Field as VOField
    from astropy.io.votable.tree import Info, Resource, TableElement, VOTableFile

    document = VOTableFile(version="1.4")
    resource = Resource(type="results")
    document.resources.append(resource)
    resource.infos.append(Info(name="QUERY_STATUS", value="OK"))
    table = TableElement(document)
    resource.tables.append(table)
    datatypes: dict[type, dict[str, str]] = {
        str: {"datatype": "unicodeChar", "arraysize": "*"},
        int: {"datatype": "long"},
        float: {"datatype": "double"},
        bool: {"datatype": "boolean"},
    }
    for column in listing.columns:
        made = VOField(
            document, name=column.name, ID=column.name, ucd=column.ucd or None, unit=column.unit or None,
            **datatypes[column.kind],
        )  # fmt: skip
        made.description = column.description
        table.fields.append(made)
    table.create_arrays(len(listing.records))
    for index, record in enumerate(listing.records):
        table.array[index] = tuple(record.values())
    buffer = io.BytesIO()
    document.to_xml(buffer)
    written = buffer.getvalue()
    if listing.after is not None or limit == 0:
        # DALI wants this word behind the table; the library writes every INFO before it.
        written = written.replace(b"</RESOURCE>", b' <INFO name="QUERY_STATUS" value="OVERFLOW"/>\n </RESOURCE>')
    return written


def error_votable(sentence: str) -> bytes:
    """Return a VOTable that says only why there is none."""
    from astropy.io.votable.tree import Info, Resource, VOTableFile

    document = VOTableFile(version="1.4")
    resource = Resource(type="results")
    status = Info(name="QUERY_STATUS", value="ERROR")
    status.content = sentence
    resource.infos.append(status)
    document.resources.append(resource)
    buffer = io.BytesIO()
    document.to_xml(buffer)
    return buffer.getvalue()
