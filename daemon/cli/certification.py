"""Commands that say whether products may be used. The planner marks what was made of a rejected one, and remakes it."""

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.errors import UsageError, answering
from daemon.cli.options import AsJson, DryRun, Identifiers, NightOption, SettingsFile, day
from daemon.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from pathlib import Path

    from sqlalchemy.orm import Session

    from archive.models import Product
    from archive.states import Certification

MaybeProducts = Annotated[
    list[str] | None, typer.Argument(metavar="[ID...]", help="P5 or 'product 5', a product's name or DP id, a file.")
]
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


@answering
def score(
    identifiers: MaybeProducts = None,
    *,
    night: NightOption = None,
    every: Annotated[bool, typer.Option("--all", help="Show what is green too.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Score products anew by the thresholds as they are now, and show what is not green."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import scores_page
    from daemon.cli.records import appraisal_record
    from tasks.verdicts import Scoring, appraise, score_anew

    if not identifiers and not night:
        raise UsageError("Say which products: identifiers such as P5, or a night by --night.")
    with open_site(settings_file) as site, site.registry.read() if dry_run else site.registry.begin() as session:
        scoring, records = Scoring.of(site.settings), []
        for product in _products(session, identifiers or (), day(night)):
            was = product.score
            if dry_run:
                appraisal = appraise(session, product, scoring)
            else:
                appraisal = score_anew(session, product, scoring, now=site.clock(), why="An operator asked for it.")
            records.append(appraisal_record(product, appraisal, was))
    if as_json:
        print_json({"order": "scored", "dry_run": dry_run, "rows": records})
    else:
        print_table(*scores_page(records, every=every, dry_run=dry_run))


def _products(session: "Session", words: "Sequence[str]", night: "date | None") -> "Sequence[Product]":
    """Return the products that are named, of a night only if one is given; without names all those of the night."""
    from sqlalchemy import select

    from archive.models import Product

    if not words:
        wanted = select(Product).where(Product.night == night, Product.step_id.is_not(None))
        return session.scalars(wanted.order_by(Product.mjd, Product.id)).all()
    return [product for product in _named(session, words) if night is None or product.night == night]


def _named(session: "Session", words: "Sequence[str]") -> "list[Product]":
    from archive.models import Product
    from daemon.cli.identifiers import find, label, split

    products = []
    for text in split(words):
        row = find(session, text)
        if not isinstance(row, Product):
            raise UsageError(f"{text} is {label(row)}, no product; see `musecal products`.")
        products.append(row)
    return products


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
    from archive.states import Certification
    from daemon.cli.dependants import reach_page, reach_record
    from daemon.cli.opening import open_site
    from daemon.cli.records import record_of
    from tasks.orders import judge
    from tasks.verdicts import Scoring

    if not comment.strip():
        raise UsageError("A verdict needs its reason: give it with --comment.")
    with open_site(settings_file) as site, site.registry.read() if dry_run else site.registry.begin() as session:
        scoring = Scoring.of(site.settings)
        products = _named(session, words)
        if not dry_run:
            for product in products:
                judge(session, product, verdict, comment=comment, scoring=scoring, now=site.clock())
        records = [record_of(product) for product in products]
        if dry_run and verdict is Certification.REJECTED:
            for record, product in zip(records, products, strict=True):
                record["reach"] = reach_record(session, product, site.settings)
    if as_json:
        print_json({"order": verdict, "dry_run": dry_run, "rows": records})
        return
    for record in records:
        print_table(f"{record['id']} {record['name']} {'would be' if dry_run else 'is'} {verdict}.")
        if "reach" in record:
            print_table(*reach_page(record["reach"]))
