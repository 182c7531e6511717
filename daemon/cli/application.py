"""The commands of ``musecal`` and their order on the page of help."""

import typer

from daemon.cli import (
    certification,
    comparing,
    dependants,
    finding,
    orders,
    processes,
    retrieving,
    statics,
    upkeep,
    views,
)

app = typer.Typer(
    name="musecal",
    help="Turns raw MUSE calibration frames into master calibrations, unattended.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in {
    "Processes": (processes.run, processes.watch, processes.worker, processes.web, processes.simulate, processes.demo),
    "Looking": (
        views.status,
        views.night,
        views.completeness,
        views.queue,
        views.show,
        views.why,
        dependants.reach,
        views.products,
        views.cascade,
        comparing.compare,
    ),
    "Handing out": (retrieving.retrieve, retrieving.sof),
    "Orders": (
        orders.requeue,
        orders.hold,
        orders.release,
        orders.cancel,
        certification.certify,
        certification.reject,
        certification.score,
    ),
    "Upkeep": (upkeep.ingest, upkeep.verify),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(finding.find, rich_help_panel="Looking")
app.add_typer(orders.quarantine, rich_help_panel="Orders")
app.add_typer(statics.statics, rich_help_panel="Upkeep")
app.add_typer(upkeep.db, rich_help_panel="Upkeep")


def main() -> None:
    """Run the command line."""
    app()
