"""Commands that search the archive."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.errors import UsageError, answering
from daemon.cli.options import AsJson, SettingsFile

if TYPE_CHECKING:
    from daemon.listings import Listing
    from daemon.searches import Kind

find = typer.Typer(name="find", help="Search frames and products by what they are.", no_args_is_help=True)


class Form(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    VOTABLE = "votable"
    CSV = "csv"


_Night = Annotated[str, typer.Option("--night", metavar="DATE", help="Only this night.")]
_Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Observed at this date or time (UTC) or later.")]
_Before = Annotated[str, typer.Option("--before", metavar="TIME", help="Observed before this date or time (UTC).")]
_Name = Annotated[str, typer.Option("--name", metavar="NAME", help="DP id or file name; * stands for any characters.")]
_Mode = Annotated[str, typer.Option("--mode", metavar="MODE", help="Instrument mode, for instance WFM-NOAO-N.")]
_Readout = Annotated[str, typer.Option("--readout", metavar="MODE", help="Readout mode, for instance SCI1.0.")]
_Filter = Annotated[str, typer.Option("--filter", metavar="FILTER", help="Order-sorting filter, for instance Blue.")]
_Optics = Annotated[str, typer.Option("--optics", metavar="FIELD", help="WFM or NFM.")]
_Superseded = Annotated[
    str, typer.Option("--superseded", metavar="yes|no|any", help="Whether a newer version has replaced it.")
]
_Order = Annotated[str, typer.Option("--order", metavar="newest|oldest", help="Which come first.")]
_After = Annotated[str, typer.Option("--after", metavar="MARK", help="Go on after the mark that ended a page.")]
_Limit = Annotated[str, typer.Option("--limit", metavar="ROWS", help="Most rows to list.")]
_Format = Annotated[Form, typer.Option("--format", help="How rows are printed.")]


@find.command()
@answering
def frames(
    *,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Raw tag, BIAS; several with commas.")] = None,
    target: Annotated[str, typer.Option("--object", metavar="NAME", help="Target; * stands for any characters.")] = "",
    night: _Night = "",
    since: _Since = "",
    before: _Before = "",
    name: _Name = "",
    mode: _Mode = "",
    readout: _Readout = "",
    filter_: _Filter = "",
    optics: _Optics = "",
    superseded: _Superseded = "no",
    order: _Order = "newest",
    after: _After = "",
    limit: _Limit = "1000",
    form: _Format = Form.TABLE,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """List the frames that meet every condition, the newest first."""
    from archive.search import find_frames
    from daemon.cli.opening import open_site
    from daemon.listings import FRAME_COLUMNS, list_page
    from daemon.searches import FrameParameters

    given = {
        "object": target, "night": night, "since": since, "before": before, "name": name, "mode": mode,
        "readout": readout, "filter": filter_, "optics": optics, "superseded": superseded, "order": order,
        "after": after, "maxrec": limit,
    }  # fmt: skip
    search = _read(FrameParameters, given, tag=tag or []).search()
    with open_site(settings_file) as site, site.registry.read() as session:
        listing = list_page(find_frames(session, search), FRAME_COLUMNS)
    _print(listing, form, search.limit, ("id", "dp_id", "tag", "object", "time", "exptime", "mode"), as_json=as_json)


@find.command()
@answering
def products(
    *,
    catg: Annotated[
        list[str] | None, typer.Option(metavar="PRO.CATG", help="Category, MASTER_BIAS; several with commas.")
    ] = None,
    certification: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="provisional, certified or rejected; several with commas."),
    ] = None,
    score: Annotated[
        list[str] | None, typer.Option(metavar="SCORE", help="green, yellow, red or none; several with commas.")
    ] = None,
    static: Annotated[
        str, typer.Option("--static", metavar="yes|no|any", help="Whether it is a static calibration.")
    ] = "any",
    night: _Night = "",
    since: _Since = "",
    before: _Before = "",
    name: _Name = "",
    mode: _Mode = "",
    readout: _Readout = "",
    filter_: _Filter = "",
    optics: _Optics = "",
    superseded: _Superseded = "no",
    order: _Order = "newest",
    after: _After = "",
    limit: _Limit = "1000",
    form: _Format = Form.TABLE,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """List the products that meet every condition, the newest first."""
    from archive.search import find_products
    from daemon.cli.opening import open_site
    from daemon.listings import PRODUCT_COLUMNS, list_page
    from daemon.searches import ProductParameters

    given = {
        "static": static, "night": night, "since": since, "before": before, "name": name, "mode": mode,
        "readout": readout, "filter": filter_, "optics": optics, "superseded": superseded, "order": order,
        "after": after, "maxrec": limit,
    }  # fmt: skip
    lists = {"catg": catg or [], "certification": certification or [], "score": score or []}
    search = _read(ProductParameters, given, **lists).search()
    with open_site(settings_file) as site, site.registry.read() as session:
        listing = list_page(find_products(session, search), PRODUCT_COLUMNS)
    _print(listing, form, search.limit, ("id", "name", "catg", "time", "certification", "score"), as_json=as_json)


def _read(kind: "type[Kind]", given: dict[str, str], **lists: list[str]) -> "Kind":
    """Return the parameters that options say; an empty one is not given."""
    from daemon.searches import UnclearSearch, read_parameters

    pairs = [(name, text) for name, text in given.items() if text]
    pairs += [(name, text) for name, texts in lists.items() for text in texts]
    try:
        return read_parameters(kind, pairs)
    except UnclearSearch as error:
        raise UsageError(str(error).replace("maxrec", "limit")) from error


def _print(listing: "Listing", form: Form, limit: int, columns: tuple[str, ...], *, as_json: bool) -> None:
    from daemon.cli.output import print_json, print_table, table
    from daemon.listings import as_csv, as_votable

    if as_json:
        print_json(listing.document)
    elif form is Form.CSV:
        sys.stdout.write(as_csv(listing))
    elif form is Form.VOTABLE:
        sys.stdout.write(as_votable(listing, limit=limit).decode())
    elif not listing.records:
        print_table("Nothing meets these conditions.")
    else:
        rows = [[record[column] for column in columns] for record in listing.records]
        print_table(table("", columns, rows, right=("exptime",), unbroken=columns[:3]))
        if listing.after is not None:
            print_table(f"There are more; go on with --after {listing.after}")
