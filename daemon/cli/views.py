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
    """Report a night: its verdict, every file and what became of it, products, times. Code 6 for WARN, 7 for FAIL."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import night_page
    from daemon.cli.records import examination_record, night_record
    from daemon.cli.standing import lying
    from daemon.report import compile_report
    from daemon.verdict import examine

    with open_site(settings_file) as site, site.registry.read() as session:
        wanted, incoming = date_.date(), lying(site.settings)
        report = compile_report(session, wanted, incoming)
        level = site.settings.plan.level
        examination = examine(session, wanted, 1, incoming=incoming, level=level, now=site.clock())
    record = examination_record(examination)
    if as_json:
        print_json(night_record(report, record))
    else:
        print_table(*night_page(report, record))
    raise typer.Exit(ExitCode.of_verdict(examination.verdict))


@answering
def completeness(
    *,
    last: Annotated[
        datetime | None,
        typer.Option(
            "--night", metavar="DATE", formats=["%Y-%m-%d"], help="The last night; the present one if not given."
        ),
    ] = None,
    nights: Annotated[int, typer.Option(min=1, max=366, help="How many nights, back from the last.")] = 7,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Hold nights against the calibration plan, as ESO's calChecker: what is there, what is not, what to take next.

    Ends with code 0 if every night passes, 6 if the worst verdict is WARN, 7 if it is FAIL.
    """
    from archive.night import mjd_of, night_of
    from daemon.cli.opening import open_site
    from daemon.cli.pages import completeness_page
    from daemon.cli.records import examination_record
    from daemon.cli.standing import lying
    from daemon.verdict import examine

    with open_site(settings_file) as site, site.registry.read() as session:
        now, level = site.clock(), site.settings.plan.level
        wanted = day(last) or night_of(mjd_of(now))
        examination = examine(session, wanted, nights, incoming=lying(site.settings), level=level, now=now)
    record = examination_record(examination)
    if as_json:
        print_json(record)
    else:
        print_table(*completeness_page(record))
    raise typer.Exit(ExitCode.of_verdict(examination.verdict))


@answering
def queue(
    *,
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="Only steps in this state; may be repeated.")
    ] = None,
    night: NightOption = None,
    stale: Annotated[bool, typer.Option("--stale", help="Instead those that are done and marked as stale.")] = False,
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """List steps that are not finished: running, queued, waiting, held, failed."""
    from daemon.cli.opening import open_site
    from daemon.cli.pages import queue_page
    from daemon.cli.records import record_of
    from daemon.cli.selection import UNFINISHED, Filter, select_steps, states_of

    with open_site(settings_file) as site, site.registry.read() as session:
        states = states_of(state or ()) or (() if stale else UNFINISHED)
        steps = select_steps(session, Filter(states=states, night=day(night), stale=stale))
        records = [record_of(step) for step in steps]
    if as_json:
        print_json(records)
    elif stale and not records:
        print_table("No step is stale.")
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
def why(
    identifier: Identifiers,
    *,
    for_: Annotated[
        str,
        typer.Option("--for", metavar="ID", help="Why a product is used, or not, for this step, group or frame."),
    ] = "",
    as_json: AsJson = False,
    settings_file: SettingsFile = None,
) -> None:
    """Explain a file, group, step or product: the rule, what is missing, what was turned down, what comes next."""
    from daemon.cli.answers import answer, answer_for
    from daemon.cli.identifiers import split
    from daemon.cli.opening import open_site

    with open_site(settings_file) as site:
        texts = split(identifier)
        answers = [answer_for(site, text, for_) if for_ else answer(site, text) for text in texts]
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
