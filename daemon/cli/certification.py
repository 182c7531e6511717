"""Commands that say whether products may be used. The planner marks what was made of a rejected one, and remakes it."""

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.errors import UsageError, answering
from daemon.cli.options import AsJson, DryRun, Identifiers, SettingsFile
from daemon.cli.output import print_json, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from archive.states import Certification

Comment = Annotated[
    str, typer.Option("--comment", metavar="TEXT", help="What you base it on; it is kept in the history.")
]


@answering
def certify(
    identifiers: Identifiers,
    *,
    comment: Comment,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Certify products: they were looked at and are good."""
    from archive.states import Certification

    _judge(identifiers, Certification.CERTIFIED, comment, settings_file, dry_run=dry_run, as_json=as_json)


@answering
def reject(
    identifiers: Identifiers,
    *,
    comment: Comment,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Reject products: they feed nobody any more, and what was made of them is stale."""
    from archive.states import Certification

    _judge(identifiers, Certification.REJECTED, comment, settings_file, dry_run=dry_run, as_json=as_json)


def _judge(
    words: list[str],
    verdict: "Certification",
    comment: str,
    settings_file: "Path | None",
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Give one verdict on every product that is named, or on none."""
    from archive.models import Product
    from daemon.cli.identifiers import find, label, split
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from tasks.orders import judge

    if not comment.strip():
        raise UsageError("A verdict needs its reason: give it with --comment.")
    with open_site(settings_file) as site, site.registry.read() if dry_run else site.registry.begin() as session:
        products = []
        for text in split(words):
            row = find(session, text)
            if not isinstance(row, Product):
                raise UsageError(f"{text} is {label(row)}, no product; see `musecal products`.")
            products.append(row)
        if not dry_run:
            for product in products:
                judge(session, product, verdict, comment=comment, now=site.clock())
        records = [record_of(product) for product in products]
    if as_json:
        print_json({"order": verdict, "dry_run": dry_run, "rows": records})
        return
    for record in records:
        print_table(f"{record['id']} {record['name']} {'would be' if dry_run else 'is'} {verdict}.")
