"""The finish of a step: its channels become one file a product, in the archive and in the registry.

Products of the whole instrument are made first, in the work folder. A name is reserved in the row of the finishing part
before a file gets it, and the file is in its place before its own row is. Whatever is killed on the way, the next try
finds the same name and makes the same file: nothing is archived twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from archive.formats import response_version
from archive.history import record
from archive.models import Frame, Part, Product, Step
from archive.naming import dp_id_of, next_letter, product_name, static_name
from archive.night import time_of
from archive.states import PartState, StepState, move
from archive.store import Published
from recipes import esorecipes
from recipes.channel import Identity, Outcome, combine_channels, identify, merge_channels
from recipes.headers import read_hdus
from tasks.cascade import STEPS_BY_NAME
from tasks.changes import Changes, Neighbours, measure, neighbours, replace_changes
from tasks.engines import engine_of, esorex_for, idle_by_channel, of_the_whole, passed_on
from tasks.failures import FINISH, Unfinished
from tasks.leases import Claim, hold
from tasks.meter import Meter
from tasks.outcomes import plain
from tasks.score import Measured
from tasks.settings import Engine
from tasks.site import Site
from tasks.verdicts import Scoring, add_measurements, score_history, score_new
from tasks.work import Work, work_of

LEAST_PART = 0.75  # of the channels, that a product of the whole instrument can do with
LEFT_ALONE = timedelta(hours=1)  # a step that ended this long ago has no process any more that works in its folder

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Making:
    """One product about to be made: its names, its time, and the file of each channel, or the one of all.

    Names and time are reserved, so that a repetition gives the same bytes under the same name. A static one is archived
    among the static calibrations, valid from the day of its frames on.
    """

    catg: str
    name: str
    dp_id: str
    created: datetime
    files: Mapping[int, Path]
    whole: Path | None = None
    static: bool = False


def finish(site: Site, claimed: Claim) -> None:
    """Join the channels of a step, put the products into the archive, and end the step with their rows.

    Raises
    ------
    FileNotFoundError
        Files of a channel are gone from the work folder; that channel is made again first.
    """
    with site.registry.begin() as session:
        part = hold(session, claimed)
        lost = reopen_lost(session, part.step, site.clock())
        night, missing = part.step.group.night, missing_channels(part.step)
        work, files = work_of(part.step, FINISH), files_of(part.step)
    if lost:
        raise FileNotFoundError(f"the files of channel {', '.join(map(str, lost))} are gone and are made again first")
    folder = site.store.work_folder(claimed.step_id, FINISH, claimed.attempt)
    meter = Meter.start()
    whole = combine(site, claimed, work, files, missing, folder)
    seconds, memory = meter.read(whole.memory)
    with site.registry.begin() as session:
        part = hold(session, claimed)
        makings = reserve(session, part, site.clock(), whole)
    published = {}
    for making in makings:
        identity = Identity(f"{making.dp_id}.fits", making.name, f"{making.catg}.fits", making.created)
        if making.whole:
            making.whole.rename(folder / making.name)
            identify(folder / making.name, identity, channels_missing=missing)
        else:
            merge_channels(making.catg, making.files, folder / making.name, identity=identity, channels_missing=missing)
        published[making.catg] = _publish(site, claimed, folder / making.name, None if making.static else night)
    ended = False
    while not ended:  # another step may put a product between ours and its neighbour while they are compared
        around = look_around(site, claimed, makings)
        changes = {
            making.catg: measure(
                making.catg, published[making.catg].path, making.files, around[making.catg], folder / "neighbours"
            )
            for making in makings
        }
        with site.registry.begin() as session:
            part = hold(session, claimed)
            if ended := around == neighbours_of(session, part.step, makings):
                part.seconds, part.memory = seconds, memory
                end_step(session, part, makings, published, site.clock(), whole, changes, Scoring.of(site.settings))
    log.info("step done", products=[making.name for making in makings])
    site.store.discard_work(claimed.step_id)


def combine(
    site: Site,
    claimed: Claim,
    work: Work,
    files: Mapping[int, Mapping[str, Path]],
    missing: Sequence[int],
    folder: Path,
) -> Outcome:
    """Join what the channels of a step gave, if its recipe makes products of the whole instrument.

    Raises
    ------
    Unfinished
        Too many channels are missing.
    """
    if not of_the_whole(work.recipe, work.version):
        return Outcome({}, {}, ())
    wanted = len(files) + len(missing)
    if len(files) < wanted * LEAST_PART:
        raise Unfinished(
            f"{len(missing)} of {wanted} channels gave nothing ({', '.join(map(str, missing))}); a product of the whole"
            f" instrument needs {LEAST_PART:.0%} of them. The warnings of the parts say why; requeue the step once they"
            " are mended."
        )
    if engine_of(work.version) is Engine.ESOREX:
        return esorecipes.combine_channels(
            work.recipe,
            work.params,
            channels=files,
            raws=work.raws,
            calibrations=work.calibrations,
            folder=folder,
            esorex=esorex_for(work.version, site.settings),
            record=site.store.log_stem(work.night, claimed.step_id, FINISH, claimed.attempt),
            further=work.further,
        )
    return combine_channels(
        work.recipe,
        work.params,
        channels=files,
        raws=work.raws,
        calibrations=work.calibrations,
        folder=folder,
        provenance=work.provenance,
        missing=missing,
    )


def files_of(step: Step) -> dict[int, dict[str, Path]]:
    """Return the files that each channel of a step gave, by the names of the products; none where that is right."""
    idle = idle_by_channel(step)
    return {
        part.channel: {name: Path(path) for name, path in part.outcome.get("files", {}).items()}
        for part in step.parts
        if part.channel != FINISH and (idle or part.outcome.get("files"))
    }


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
    return sorted(there - files_of(step).keys())


def reserve(session: Session, part: Part, now: datetime, whole: Outcome) -> list[Making]:
    """Name the products of a step. That is done once; the row of the finishing part keeps the names."""
    channels, between = files_of(part.step), passed_on(part.step)
    files: dict[str, dict[int, Path]] = {catg: dict.fromkeys(channels, path) for catg, path in whole.files.items()}
    for channel, made in channels.items():
        for name, path in made.items():
            if not name.startswith(between):
                files.setdefault(name, {})[channel] = path
    if not files:
        raise Unfinished(
            "No channel gave anything to archive: its detector is off, or a calibration lacks it. The warnings of the"
            " parts say which."
        )
    statics = STEPS_BY_NAME[part.step.name].statics
    if "names" not in part.outcome:
        frame = _first_frame(part.step)
        dp_ids = set(session.scalars(select(Product.dp_id).where(Product.dp_id >= dp_id_of(now))))
        names: dict[str, list[str]] = {}
        for other in session.scalars(_unfinished()):
            dp_ids.update(dp_id for _, dp_id in other.get("names", {}).values())
        for catg in sorted(files):
            names[catg] = [_free_name(session, catg, frame, static=catg in statics), dp_id_of(now, dp_ids)]
            dp_ids.add(names[catg][1])
        part.outcome = {"names": names, "created": now.isoformat()}
    created = datetime.fromisoformat(part.outcome["created"])
    return [
        Making(
            catg=catg,
            name=name,
            dp_id=dp_id,
            created=created,
            files=files[catg],
            whole=whole.files.get(catg),
            static=catg in statics,
        )
        for catg, (name, dp_id) in part.outcome["names"].items()
    ]


def _first_frame(step: Step) -> Frame:
    return min((use.frame for use in step.uses if use.frame and use.tag == step.group.tag), key=lambda frame: frame.mjd)


def _unfinished() -> Select[dict[str, Any]]:
    """Return the query for what the finishing parts of other steps have reserved without having it archived yet."""
    return select(Part.outcome).join(Part.step).where(Part.channel == FINISH, Step.state != StepState.DONE)


def reserved_names(session: Session) -> set[str]:
    """Return the names that unfinished steps have reserved."""
    return {name for outcome in session.scalars(_unfinished()) for name, _ in outcome.get("names", {}).values()}


def _free_name(session: Session, catg: str, frame: Frame, *, static: bool) -> str:
    """Return the name with the next version letter that no product has and no unfinished step has reserved."""
    reserved, name_of = reserved_names(session), static_name if static else product_name
    letters: list[str] = []
    while True:
        letters.append(next_letter(letters))
        name = name_of(catg, time_of(frame.mjd).date(), letters[-1], frame.setup)
        if name not in reserved and not session.scalar(select(Product.id).where(Product.name == name)):
            return name


def _publish(site: Site, claimed: Claim, temporary: Path, night: date | None) -> Published:
    """Put a product in its place, in the folder of its night or, without one, among the static calibrations.

    If an attempt that was killed before its rows left other bytes under our name, these go to quarantine, in one
    transaction with the check that the lease holds: nobody else can publish or end the step meanwhile.
    """

    def publish() -> Published:
        if night is None:
            return site.store.publish_static(temporary, temporary.name)
        return site.store.publish(temporary, night, temporary.name)

    try:
        return publish()
    except FileExistsError as error:
        with site.registry.begin() as session:
            part = hold(session, claimed)
            folder = site.store.statics if night is None else site.store.products / night.isoformat()
            leftover = folder / temporary.name
            kept = site.store.quarantine(leftover)
            site.store.let_go(leftover, kept)
            record(session, part.step, "leftover quarantined", str(error), now=site.clock(), kept=str(kept))
            return publish()


def end_step(
    session: Session,
    part: Part,
    makings: list[Making],
    published: Mapping[str, Published],
    now: datetime,
    whole: Outcome,
    changes: Mapping[str, Changes],
    scoring: Scoring,
) -> None:
    """Write the rows of the products with their scores, and end the finishing part and its step.

    A product that is red must not feed anybody: its score is there when its row is.
    """
    step = part.step
    frame = _first_frame(step)
    products, followers = list[Product](), list[Product]()
    for making in makings:
        file, change = published[making.catg], changes.get(making.catg, Changes())
        product = Product(
            step=step,
            catg=making.catg,
            name=making.name,
            dp_id=making.dp_id,
            path=str(file.path),
            size=file.size,
            digest=file.digest,
            night=step.group.night,
            mjd=frame.mjd if making.static else step.group.mjd,
            static=making.static,
            response=response_version(making.catg, next(read_hdus(file.path)).header),
            geometry=_geometry_of(step) if making.static and making.catg == "ASTROMETRY_WCS" else None,
            setup=frame.setup,
            channels=sorted(making.files),
            compared_id=change.neighbours.before.product_id if change.own and change.neighbours.before else None,
            created=making.created,
        )
        session.add(product)
        measured = [
            *(item for channel in step.parts for item in _measured(channel, making.catg)),
            *(Measured(FINISH, item.name, plain(item.value)) for item in whole.measurements.get(making.catg, ())),
            *(Measured(item.channel, item.name, item.share) for item in change.own),
        ]
        add_measurements(session, product, measured, scoring)
        record(session, product, "product archived", now=now, step=step.id, digest=file.digest)
        if product.geometry is not None:
            product.geometry.reviewed = False  # the pair is whole: others may take it from now on
        products.append(product)
        if change.following and change.neighbours.after:
            following = session.get_one(Product, change.neighbours.after.product_id)
            replace_changes(session, following, product, change.following)
            followers.append(following)
    score_new(session, products, scoring, now=now)
    for following in followers:
        why = f"It is compared with {following.compared.name if following.compared else 'nothing'} from now on."
        score_history(session, following, scoring, now=now, why=why)
    step.warnings = [
        *step.warnings,
        *whole.warnings,
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


def look_around(site: Site, claimed: Claim, makings: Sequence[Making]) -> dict[str, Neighbours]:
    """Return the products before and after those about to be made, by category."""
    with site.registry.read() as session:
        return neighbours_of(session, hold(session, claimed).step, makings)


def neighbours_of(session: Session, step: Step, makings: Sequence[Making]) -> dict[str, Neighbours]:
    """Return the products before and after those of a step in observation time, by category."""
    setup = _first_frame(step).setup
    return {making.catg: neighbours(session, making.catg, setup, step.group.mjd) for making in makings}


def _geometry_of(step: Step) -> Product | None:
    """Return the geometry table that a step used."""
    return next((use.product for use in step.uses if use.tag == "GEOMETRY_TABLE"), None)


def _measured(part: Part, catg: str) -> list[Measured]:
    return [Measured(part.channel, name, value) for name, value in part.outcome.get("measurements", {}).get(catg, ())]
