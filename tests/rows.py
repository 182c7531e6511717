"""Rows of a step, as the planner leaves them for the workers, and a tiny night for them."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from astropy.io import fits
from sqlalchemy.orm import Session

from archive.models import Frame, Group, Part, Step, Use
from archive.states import GroupState, StepState
from archive.store import digest_of
from recipes.muse import Detector
from recipes.simulator.night import NightPlan, write_night
from recipes.simulator.schedule import Sequence as Template
from tasks.failures import FINISH

NOW = datetime(2026, 6, 17, 12, tzinfo=UTC)
NIGHT = date(2026, 6, 16)
TINY = Detector(nx=64, ny=64)


def write_biases(folder: Path, channels: tuple[int, ...] = (1, 2)) -> list[Path]:
    """Write the eleven bias frames of a night with tiny detectors."""
    return list(
        write_night(NightPlan(night=NIGHT, channels=channels, sequences=(Template.BIAS,), detector=TINY), folder)
    )


def add_frame(session: Session, number: int, channels: Sequence[int] = (1, 2), path: Path | None = None) -> Frame:
    """Add a bias frame; without a path its file does not exist."""
    header = (
        fits.getheader(path) if path else fits.Header({"ARCFILE": f"MUSE.{number}.fits", "MJD-OBS": 61208.4 + number})
    )
    frame = Frame(
        dp_id=str(header["ARCFILE"]).removesuffix(".fits"),
        digest=digest_of(path) if path else f"{number:064x}",
        path=str(path or f"/nowhere/{number}.fits"),
        size=path.stat().st_size if path else 0,
        tag="BIAS",
        catg="CALIB",
        type="BIAS",
        tech="IFU",
        rule="BIAS",
        mjd=header["MJD-OBS"],
        exptime=0.0,
        night=NIGHT,
        channels=list(channels),
        mode="WFM-NOAO-N",
        readout="SCI1.0",
        readout_id=1,
        ingested=NOW,
    )
    session.add(frame)
    return frame


def add_step(
    session: Session,
    frames: Sequence[Frame],
    *,
    channels: Sequence[int] = (1, 2),
    recipe: str = "muse_bias",
    priority: int = 5,
) -> Step:
    """Add a queued step with a part for each channel and one for the finish."""
    session.flush()
    group = session.query(Group).filter_by(key=frames[0].dp_id).one_or_none() or Group(
        tag="BIAS",
        key=frames[0].dp_id,
        night=NIGHT,
        mjd=frames[len(frames) // 2].mjd,
        expected=len(frames),
        state=GroupState.COMPLETE,
        last_arrival=NOW,
        closes=NOW,
    )
    step = Step(
        group=group,
        name="bias",
        sequence=1 + len(group.steps),
        state=StepState.QUEUED,
        priority=priority,
        recipe=recipe,
        recipe_version="1",
        created=NOW,
        queued=NOW,
        parts=[Part(channel=channel) for channel in (FINISH, *channels)],
        uses=[Use(tag="BIAS", frame=frame) for frame in frames],
    )
    session.add(step)
    session.flush()
    return step
