"""One part of a step from claim to outcome: a channel through its recipe, or the finish of the step."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import structlog

from archive.models import Step
from archive.states import PartState, move
from recipes import esorecipes
from recipes.channel import Outcome, reduce_channel
from recipes.fits import AbsentChannel, DeadChannel
from recipes.recipe import RecipeError
from tasks.engines import engine_of, esorex_for, of_the_whole
from tasks.failures import FINISH, Failure, Kind, PartFailed, conclude, give_back, judge
from tasks.finish import finish
from tasks.leases import Claim, Heartbeat, LeaseLost, claim, hold, this_worker
from tasks.meter import Meter
from tasks.outcomes import as_json
from tasks.settings import Engine
from tasks.site import Site
from tasks.work import Work, work_of

MEGABYTE = 1 << 20  # bytes, as memory is counted
GIGABYTE = 10**9  # bytes, as disks are counted

log = structlog.get_logger()


def run_part(site: Site, part_id: int) -> None:
    """Claim one part, do its work and write down what came out.

    Nothing happens if the part is not to be had: it was delivered twice, or taken back. A worker that lost its lease
    meanwhile leaves no trace either.

    Raises
    ------
    PartFailed
        The part failed or goes back into the queue; its row says why.
    """
    worker = site.settings.worker
    with site.registry.begin() as session:
        claimed = claim(session, part_id, this_worker(), site.clock(), worker)
    if claimed is None:
        log.info("part not claimed", part=part_id)
        return
    names = {"step": claimed.step_id, "channel": claimed.channel, "attempt": claimed.attempt}
    with structlog.contextvars.bound_contextvars(**names), Heartbeat(site.registry, claimed, worker, site.clock):
        try:
            _work(site, claimed)
        except LeaseLost as error:
            log.warning("outcome dropped", why=str(error))


def _work(site: Site, claimed: Claim) -> None:
    """Do the work under the limits of the settings; every way in which it can fail is judged here, once."""
    worker = site.settings.worker
    log.info("part started")
    try:
        with limited_memory(worker.memory_limit_mb * MEGABYTE):
            if claimed.channel == FINISH:
                finish(site, claimed)
            else:
                _reduce(site, claimed)
    except LeaseLost:
        raise
    except SystemExit:  # raised by the signal that ends a pool process when its worker is stopped
        _give_back(site, claimed, Failure(Kind.WORLD, "Its worker was stopped."), timedelta(0))
        raise
    except Exception as error:
        failure = judge(error, worker.limits_of(engine_of(claimed.version)))
        _give_back(site, claimed, failure, timedelta(seconds=worker.backoff_seconds))
        raise PartFailed(f"step {claimed.step_id}, channel {claimed.channel}: {failure.sentence}") from error


def _give_back(site: Site, claimed: Claim, failure: Failure, backoff: timedelta) -> None:
    log.warning("part not done", kind=str(failure.kind), why=failure.sentence)
    with site.registry.begin() as session:
        part, attempts = hold(session, claimed), site.settings.worker.attempts
        give_back(session, part, failure, site.clock(), attempts=attempts, backoff=backoff)


def _reduce(site: Site, claimed: Claim) -> None:
    """Send one channel through its recipe and put the outcome into the row."""
    check_space(site)
    with site.registry.read() as session:
        work = work_of(session.get_one(Step, claimed.step_id), claimed.channel)
    meter = Meter.start()
    try:
        outcome = _outcome(site, claimed, work)
    except (DeadChannel, AbsentChannel) as lacking:
        # Its detector is off, or was when a calibration was taken: the step goes on without it, its products say so.
        outcome = Outcome({}, {}, (str(lacking),))
    except RecipeError as error:  # a product of the whole instrument may do without a few channels; finish counts them
        if not of_the_whole(work.recipe, work.version):
            raise
        outcome = Outcome({}, {}, (f"It is left out: {error}",))
    for path in outcome.files.values():
        _sync(path)
    seconds, memory = meter.read(outcome.memory)
    with site.registry.begin() as session:
        part = hold(session, claimed)
        part.outcome = as_json(outcome)
        part.seconds, part.memory = seconds, memory
        part.error = part.error_kind = ""
        part.ended, part.lease_until = site.clock(), None
        move(part, PartState.DONE)
        conclude(session, part.step, part.ended)
    log.info("part done", seconds=round(seconds, 2), memory_mb=memory // MEGABYTE)


def _outcome(site: Site, claimed: Claim, work: Work) -> Outcome:
    """Have the engine of the step reduce one channel."""
    folder = site.store.work_folder(claimed.step_id, claimed.channel, claimed.attempt)
    if engine_of(work.version) is Engine.ESOREX:
        return esorecipes.reduce_channel(
            work.recipe,
            work.params,
            channel=claimed.channel,
            raws=work.raws,
            calibrations=work.calibrations,
            folder=folder,
            esorex=esorex_for(work.version, site.settings),
            record=site.store.log_stem(work.night, claimed.step_id, claimed.channel, claimed.attempt),
        )
    return reduce_channel(
        work.recipe,
        work.params,
        channel=claimed.channel,
        raws=work.raws,
        calibrations=work.calibrations,
        folder=folder,
        provenance=work.provenance,
    )


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: its row may outlive a power cut only together with it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_space(site: Site) -> None:
    """Raise OSError if the archive's disk has too little room to begin a part."""
    free, least = site.store.free_bytes() / GIGABYTE, site.settings.archive.least_free_gb
    if free < least:
        raise OSError(
            errno.ENOSPC,
            f"{free:.2f} GB are free below {site.settings.archive.root}, and a part begins with {least:g} GB at least "
            "(archive.least_free_gb); make room, it is then tried again",
        )


@contextmanager
def limited_memory(limit: int) -> Iterator[None]:
    """Let this process have no more than ``limit`` bytes of data; what asks for more gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
