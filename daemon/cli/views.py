"""Commands that only look."""

from datetime import datetime
from typing import Annotated

import typer

from daemon.cli.errors import ExitCode, answering
from daemon.cli.options import AsJson, Identifiers, NightOption, SettingsFile, day
from daemon.cli.output import print_json, print_table


@answering
def status(*, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Say how things stand: arrivals, groups, steps, workers, broker, space."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import status_page
    from daemon.cli.standing import standing

    with open_site(settings_file) as site:
        record = standing(site)
    if as_json:
        print_json(record)
    else:
        print_table(*status_page(record))


@answering
def night(
    date_: Annotated[
        datetime, typer.Argument(metavar="DATE", formats=["%Y-%m-%d"], help="The date on which it begins.")
    ],
    *,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Report a night: every file and what became of it, products, times. Code 1 if the ledger does not balance."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import night_page
    from daemon.cli.standing import lying
    from daemon.report import compile_report, report_record

    with open_site(settings_file) as site, site.registry.read() as session:
        report = compile_report(session, date_.date(), lying(site.settings))
    if as_json:
        print_json(report_record(report))
    else:
        print_table(*night_page(report))
    raise typer.Exit(ExitCode.DONE if report.balanced else ExitCode.NOT_IN_ORDER)


@answering
def queue(
    *,
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only steps in this state; may be repeated.")
    ] = None,
    night: NightOption = None,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """List steps that are not finished: running, queued, waiting, held, failed."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import queue_page
    from daemon.cli.records import record_of
    from daemon.cli.selection import UNFINISHED, Filter, select_steps, states_of

    with open_site(settings_file) as site, site.registry.read() as session:
        steps = select_steps(session, Filter(states=states_of(state or ()) or UNFINISHED, night=day(night)))
        records = [record_of(step) for step in steps]
    if as_json:
        print_json(records)
    else:
        print_table(*queue_page(records))


@answering
def show(identifier: Identifiers, *, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Show a frame, group, step, product or arrival with its neighbours and its history."""
    from archive.history import history
    from daemon.cli.identifiers import find, split
    from daemon.cli.opening import open_site
    from daemon.cli.pages import details_page
    from daemon.cli.records import details_of, event_record

    with open_site(settings_file) as site, site.registry.read() as session:
        rows = [find(session, text) for text in split(identifier)]
        records = [
            details_of(row) | {"history": [event_record(event) for event in history(session, row)]} for row in rows
        ]
    if as_json:
        print_json(records[0] if len(records) == 1 else records)
    else:
        for record in records:
            print_table(*details_page(record))


@answering
def why(identifier: Identifiers, *, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:
    """Explain a file, group, step or product: the rule, what is missing, what was turned down, what comes next."""
    from daemon.cli.answers import answer
    from daemon.cli.identifiers import split
    from daemon.cli.opening import open_site

    with open_site(settings_file) as site:
        answers = [answer(site, text) for text in split(identifier)]
    if as_json:
        print_json(answers[0].record if len(answers) == 1 else [given.record for given in answers])
    else:
        for given in answers:
            print_table(*given.sentences)


@answering
def products(
    *,
    night: NightOption = None,
    catg: Annotated[str, typer.Option(metavar="PRO.CATG", help="Only this category, for instance MASTER_BIAS.")] = "",
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """List the products in the archive."""
    from sqlalchemy import select

    from archive.models import Product
    from daemon.cli.opening import open_site
    from daemon.cli.pages import products_page
    from daemon.cli.records import record_of

    wanted = select(Product).order_by(Product.night, Product.mjd, Product.id)
    if night:
        wanted = wanted.where(Product.night == night.date())
    if catg:
        wanted = wanted.where(Product.catg == catg.upper())
    with open_site(settings_file) as site, site.registry.read() as session:
        records = [record_of(product) for product in session.scalars(wanted)]
    if as_json:
        print_json(records)
    else:
        print_table(*products_page(records))


@answering
def cascade(*, as_json: AsJson = False, settings_file: SettingsFile = None) -> None:  # noqa: ARG001 - every command takes it
    """Print the cascade table: how frames are recognised, what is made of them, and with what."""
    from daemon.cli.pages import cascade_page
    from daemon.cli.records import cascade_record

    record = cascade_record()
    if as_json:
        print_json(record)
    else:
        print_table(*cascade_page(record))
