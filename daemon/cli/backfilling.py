"""How an existing archive that is taken in is shown: a line of progress, each file for programs, and a summary."""

import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from archive.store import Transfer
from daemon.cli.errors import UsageError
from daemon.cli.opening import open_site
from daemon.cli.output import print_table, size_text, table
from tasks.backfill import Backfill, Became, Found, choose_transfer
from tasks.cascade import Tag
from tasks.lineage import Linked

BAD = (Became.QUARANTINED, Became.UNREADABLE)
_TAKEN = (Became.FRAME, Became.MASTER, Became.STATIC)
_EVERY = 1.0  # seconds between two lines of progress
_TOLD = 20  # files of one fate that are named; the JSON names all


@dataclass
class Tally:
    """What became of the files so far; its size does not grow with their number.

    Parameters
    ----------
    started : float
        On a clock that only goes forward, seconds.
    """

    started: float
    files: Counter[Became] = field(default_factory=Counter)
    known: int = 0
    size: int = 0
    read: int = 0
    types: Counter[tuple[Became, str]] = field(default_factory=Counter)
    told: dict[Became, list[Found]] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        """Count one file."""
        self.files[found.became] += 1
        self.size += found.size
        self.known += found.known
        if found.became in _TAKEN:
            self.types[found.became, found.type] += 1
        elif found.became is not Became.DUPLICATE and len(self.told.setdefault(found.became, [])) < _TOLD:
            self.told[found.became].append(found)
        if not found.known and found.became in (*_TAKEN, Became.DUPLICATE, Became.QUARANTINED):
            self.read += found.size

    @property
    def in_order(self) -> bool:
        """False if a file was put into quarantine or could not be read."""
        return not any(self.files[became] for became in BAD)

    def line(self, now: float) -> str:
        """Return how far it is, in one line."""
        seconds = max(now - self.started, 1e-3)
        files = self.files.total()
        return (
            f"{files} files, {size_text(self.size)}; {files / seconds:.0f} files/s, "
            f"{size_text(round(self.read / seconds))}/s read; {self.known} known before, "
            f"{sum(self.files[became] for became in BAD)} not in order"
        )


def take_archive(
    folder: Path,
    transfer: Transfer | None,
    settings_file: Path | None,
    *,
    certified: bool,
    dry_run: bool,
    as_json: bool,
) -> bool:
    """Take an existing archive in, or say what would become of it; return whether every file was in order."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder.")
    with open_site(settings_file) as site:
        if folder.resolve().is_relative_to(site.store.root.resolve()):
            raise UsageError(f"{folder} is a part of the archive at {site.store.root} itself.")
        how = transfer or (Transfer.LEAVE if dry_run else choose_transfer(folder, site.store))
        backfill = Backfill(site, how, certified=certified, dry_run=dry_run)
        tally, shown = Tally(time.monotonic()), 0.0
        if as_json:
            sys.stdout.write('{"files": [')
        for number, found in enumerate(backfill.take(folder)):
            tally.add(found)
            if as_json:
                sys.stdout.write(f"{',' if number else ''}\n{json.dumps(found_record(found))}")
            elif dry_run:
                sys.stdout.write(f"{found.became:<16} {found.type:<18} {found.path} {found.reason}".rstrip() + "\n")
            if (now := time.monotonic()) - shown >= _EVERY:
                shown = now
                _show(tally.line(now))
        _show(f"{tally.line(time.monotonic())}\n")
    if as_json:
        summary = tally_record(tally, backfill.linked, dry_run=dry_run, transfer=how)
        sys.stdout.write(f'\n],\n"summary": {json.dumps(summary, indent=2)}}}\n')
    else:
        print_table(*tally_page(tally, backfill.linked, dry_run=dry_run))
    return tally.in_order


def _show(line: str) -> None:
    """Write the line of progress over the one before on a terminal, else below it."""
    begin, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
    sys.stderr.write(f"{begin}{line.rstrip()}{chr(10) if line.endswith(chr(10)) else end}")
    sys.stderr.flush()


def found_record(found: Found) -> dict[str, Any]:
    """Return what became of one file."""
    return {
        "file": str(found.path),
        "size": found.size,
        "became": found.became,
        "type": found.type,
        "id": found.row or None,
        "known": found.known,
        "reason": found.reason,
    }


def tally_record(tally: Tally, linked: Linked, *, dry_run: bool, transfer: Transfer) -> dict[str, Any]:
    """Return how many files became what."""
    types: dict[str, dict[str, int]] = {}
    for (became, kind), files in sorted(tally.types.items()):
        types.setdefault(became, {})[kind] = files
    return {
        "dry_run": dry_run, "transfer": transfer, "files": tally.files.total(), "bytes": tally.size,
        "known": tally.known, "became": {became.value: tally.files[became] for became in Became}, "types": types,
        "runs": linked.runs, "runs_on_frames": linked.steps,
    }  # fmt: skip


def tally_page(tally: Tally, linked: Linked, *, dry_run: bool) -> list[RenderableType]:
    """Return how many files became what, and what was wrong with those that were not taken."""
    types: dict[Became, list[str]] = {}
    for (became, kind), files in sorted(tally.types.items()):
        types.setdefault(became, []).append(f"{kind} {files}")
    rows = [(became, tally.files[became], types.get(became)) for became in Became if tally.files[became]]
    title = "What would become of the files" if dry_run else "What became of the files"
    parts: list[RenderableType] = [table(title, ("became", "files", "of these"), rows, right=("files",))]
    for became, told in tally.told.items():
        names = [(str(found.path), found.reason) for found in told]
        first = f" (the first {_TOLD})" if tally.files[became] > len(told) else ""
        parts += ["", table(f"{became}{first}", ("file", "reason"), names)]
    if unmatched := tally.types[Became.FRAME, Tag.UNKNOWN]:
        parts += ["", f"{unmatched} raw frames match no rule; they are kept and listed as {Tag.UNKNOWN}."]
    if not dry_run:
        runs = f"{linked.runs} runs of other pipelines made the masters that are here"
        parts += ["", f"{runs}; {linked.steps} of them stand as steps on the frames that they were made of."]
    return parts
