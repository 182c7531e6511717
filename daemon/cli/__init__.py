"""The command line. ``main`` is what the console command ``musecal`` starts."""

from daemon.cli.application import main

__all__ = ["main"]
