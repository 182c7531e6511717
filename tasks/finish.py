"""The finish of a step: its channels become one file a product, in the archive and in the registry.

A name is reserved in the row of the finishing part before the file is made, and the file is in its place before its own
row is. Whatever is killed on the way, the next try finds the same name and makes the same file: nothing is archived
twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Frame, Measurement, Part, Product, Step
from archive.naming import dp_id_of, next_letter, product_name
from archive.night import time_of
from archive.states import PartState, StepState, move
from archive.store import Published
from recipes.channel import Identity, merge_channels
from tasks.failures import FINISH, Unfinished
from tasks.leases import Claim, hold
from tasks.site import Site

LEFT_ALONE = timedelta(hours=1)  # a step that ended this long ago has no process any more that works in its folder

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Making:
    """One product about to be made: its names, its time, and the file of each channel.

    Names and time are reserved, so that a repetition gives the same bytes under the same name.
    """

    catg: str
    name: str
    dp_id: str
    created: datetime
    files: Mapping[int, Path]


def finish(site: Site, claimed: Claim) -> None:
    """Merge the channels of a step, put the products into the archive, and end the step with their rows.

    Raises
    ------
    FileNotFoundError
        Files of a channel are gone from the work folder; that channel is made again first.
    """
    with site.registry.begin() as session:
        part = hold(session, claimed)
        lost = reopen_lost(session, part.step, site.clock())
        makings = [] if lost else reserve(session, part, site.clock())
        night, missing = part.step.group.night, missing_channels(part.step)
    if lost:
        raise FileNotFoundError(f"the files of channel {', '.join(map(str, lost))} are gone and are made again first")
    folder = site.store.work_folder(claimed.step_id, FINISH, claimed.attempt)
    published = {}
    for making in makings:
        merge_channels(
            making.catg,
            making.files,
            folder / making.name,
            identity=Identity(f"{making.dp_id}.fits", making.name, f"{making.catg}.fits", making.created),
            channels_missing=missing,
        )
        published[making.catg] = _publish(site, claimed, folder / making.name, night)
    with site.registry.begin() as session:
        end_step(session, hold(session, claimed), makings, published, site.clock())
    log.info("step done", products=[making.name for making in makings])
    site.store.discard_work(claimed.step_id)


def discard_leftovers(site: Site) -> list[int]:
    """Remove the work folders of steps that ended some time ago, which a killed finish had left; return the steps."""
    named = (folder.name.partition(".")[0] for folder in site.store.work.glob("*"))
    there = [int(name) for name in named if name.isdecimal()]
    ended = (Step.state.in_((StepState.DONE, StepState.CANCELLED)), Step.ended < site.clock() - LEFT_ALONE)
    with site.registry.read() as session:
        leftovers = list(session.scalars(select(Step.id).where(Step.id.in_(there), *ended)))
    for step_id in leftovers:
        site.store.discard_work(step_id)
    return leftovers


def reopen_lost(session: Session, step: Step, now: datetime) -> list[int]:
    """Send the channels whose files are gone back into the queue; return their numbers."""
    lost = [
        part
        for part in step.parts
        if part.channel != FINISH and not all(Path(path).exists() for path in part.outcome["files"].values())
    ]
    for part in lost:
        move(part, PartState.QUEUED)
        part.sent, part.outcome = None, {}
        record(session, part, "part made again", "Its files were gone before the step was finished.", now=now)
    return [part.channel for part in lost]


def missing_channels(step: Step) -> list[int]:
    """Return the channels of the raw frames that gave no product: those without a part, and dead ones."""
    there = {channel for use in step.uses if use.frame for channel in use.frame.channels}
    return sorted(there - {part.channel for part in step.parts if part.outcome.get("files")})


def reserve(session: Session, part: Part, now: datetime) -> list[Making]:
    """Name the products of a step. That is done once; the row of the finishing part keeps the names."""
    files: dict[str, dict[int, Path]] = {}
    for channel in part.step.parts:
        for catg, path in channel.outcome.get("files", {}).items():
            files.setdefault(catg, {})[channel.channel] = Path(path)
    if not files:
        raise Unfinished("Every channel is dead, so that there is nothing to archive; see the warnings of its parts.")
    if "names" not in part.outcome:
        frame = _first_frame(part.step)
        dp_ids = set(session.scalars(select(Product.dp_id).where(Product.dp_id >= dp_id_of(now))))
        names: dict[str, list[str]] = {}
        for other in session.scalars(_unfinished()):
            dp_ids.update(dp_id for _, dp_id in other.get("names", {}).values())
        for catg in sorted(files):
            names[catg] = [_free_name(session, catg, frame), dp_id_of(now, dp_ids)]
            dp_ids.add(names[catg][1])
        part.outcome = {"names": names, "created": now.isoformat()}
    created = datetime.fromisoformat(part.outcome["created"])
    return [
        Making(catg=catg, name=name, dp_id=dp_id, created=created, files=files[catg])
        for catg, (name, dp_id) in part.outcome["names"].items()
    ]


def _first_frame(step: Step) -> Frame:
    return min((use.frame for use in step.uses if use.frame and use.tag == step.group.tag), key=lambda frame: frame.mjd)


def _unfinished() -> Select[dict[str, Any]]:
    """Return the query for what the finishing parts of other steps have reserved without having it archived yet."""
    return select(Part.outcome).join(Part.step).where(Part.channel == FINISH, Step.state != StepState.DONE)


def _free_name(session: Session, catg: str, frame: Frame) -> str:
    """Return the name with the next version letter that no product has and no unfinished step has reserved."""
    reserved = {name for outcome in session.scalars(_unfinished()) for name, _ in outcome.get("names", {}).values()}
    letters: list[str] = []
    while True:
        letters.append(next_letter(letters))
        name = product_name(catg, time_of(frame.mjd).date(), letters[-1], frame.setup)
        if name not in reserved and not session.scalar(select(Product.id).where(Product.name == name)):
            return name


def _publish(site: Site, claimed: Claim, temporary: Path, night: date) -> Published:
    """Put a product in its place.

    If an attempt that was killed before its rows left other bytes under our name, these go to quarantine, in one
    transaction with the check that the lease holds: nobody else can publish or end the step meanwhile.
    """
    try:
        return site.store.publish(temporary, night, temporary.name)
    except FileExistsError as error:
        with site.registry.begin() as session:
            part = hold(session, claimed)
            leftover = site.store.products / night.isoformat() / temporary.name
            kept = site.store.quarantine(leftover)
            site.store.let_go(leftover, kept)
            record(session, part.step, "leftover quarantined", str(error), now=site.clock(), kept=str(kept))
            return site.store.publish(temporary, night, temporary.name)


def end_step(
    session: Session, part: Part, makings: list[Making], published: Mapping[str, Published], now: datetime
) -> None:
    """Write the rows of the products and end the finishing part and its step."""
    step = part.step
    frame = _first_frame(step)
    for making in makings:
        file = published[making.catg]
        product = Product(
            step=step,
            catg=making.catg,
            name=making.name,
            dp_id=making.dp_id,
            path=str(file.path),
            size=file.size,
            digest=file.digest,
            night=step.group.night,
            mjd=step.group.mjd,
            setup=frame.setup,
            channels=sorted(making.files),
            created=making.created,
            measurements=[row for channel in step.parts for row in _measurements(channel, making.catg)],
        )
        session.add(product)
        session.flush()
        record(session, product, "product archived", now=now, step=step.id, digest=file.digest)
    step.warnings = [
        *step.warnings,
        *(
            f"Channel {channel.channel}: {text}"
            for channel in step.parts
            for text in channel.outcome.get("warnings", ())
        ),
    ]
    part.error = part.error_kind = ""
    part.ended, part.lease_until = now, None
    move(part, PartState.DONE)
    step.ended, step.error, step.error_kind = now, "", ""
    move(step, StepState.DONE)
    record(session, step, "step done", now=now, products=[making.name for making in makings])


def _measurements(part: Part, catg: str) -> list[Measurement]:
    return [
        Measurement(channel=part.channel, name=name, text=value)
        if isinstance(value, str)
        else Measurement(channel=part.channel, name=name, value=value)
        for name, value in part.outcome.get("measurements", {}).get(catg, ())
    ]
