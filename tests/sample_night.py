"""The rows of one night as the daemon leaves them half-way: something of every fate."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from archive.history import record
from archive.models import Arrival, Frame, Group, Measurement, Part, Product, Step, Use
from archive.night import mjd_of
from archive.states import ArrivalState, GroupState, PartState, StepState

NIGHT = date(2026, 6, 17)
BEGIN = datetime(2026, 6, 18, 10, 41, 11, tzinfo=UTC)
NOW = datetime(2026, 6, 18, 13, 0, tzinfo=UTC)
SETUP = {"mode": "WFM-NOAO-N", "readout": "SCI1.0", "readout_id": 1, "filter": "Blue", "optics": "WFM"}
PRODUCT = "MU_MBIA_260617A_wfm-noao-n_slow"


def add_night(session: Session, root: Path) -> None:
    """Add 3 bias frames (done), 2 flats (waiting), an arc (no recipe), a science frame, an odd one, a copy, a wreck."""
    biases = [add_frame(session, root, number, "BIAS") for number in range(3)]
    group = add_group(session, "BIAS", biases, GroupState.COMPLETE, expected=3)
    step = Step(
        group=group, name="bias", state=StepState.DONE, recipe="muse_bias", recipe_version="1", created=NOW,
        queued=NOW, started=NOW + timedelta(seconds=1), ended=NOW + timedelta(seconds=9),
        uses=[Use(tag="BIAS", frame=frame) for frame in biases],
        parts=[Part(channel=n, state=PartState.DONE, attempt=1, seconds=2.5, memory=150_000_000) for n in (0, 1, 12)],
    )  # fmt: skip
    product = Product(
        step=step, catg="MASTER_BIAS", name=f"{PRODUCT}.fits", dp_id="M.MUSE.2026-06-18T10:41:11.000",
        path=str(root / "products" / f"{PRODUCT}.fits"), size=400_000_000, digest="0" * 64, night=NIGHT,
        mjd=mjd_of(BEGIN), channels=[1, 12], created=NOW + timedelta(seconds=9), **SETUP,
        measurements=[
            Measurement(channel=channel, name=name, value=value)
            for channel, ron in ((1, 2.1), (12, 2.5))
            for name, value in (
                ("BIAS MASTER1 RON", ron), ("BIAS MASTER2 RON", ron + 0.2), ("BIAS MASTER NBADPIX", 7.0),
                ("BIAS INPUT1 NSATURATED", 0.0), ("BIAS INPUT2 NSATURATED", 0.0),
            )
        ],
    )  # fmt: skip
    session.add_all([step, product])
    record(session, step, "step done", "All channels are reduced.", now=NOW, products=[PRODUCT])
    flats = [add_frame(session, root, number, "FLAT") for number in (10, 11)]
    waits = add_group(session, "FLAT", flats, GroupState.COMPLETE, expected=2)
    session.add(Step(group=waits, name="flat", missing=["No MASTER_BIAS is certified."], created=NOW))
    arc = add_frame(session, root, 20, "ARC")
    add_group(session, "ARC", [arc], GroupState.OPEN, expected=15)
    add_frame(session, root, 30, "OBJECT")
    add_frame(session, root, 40, "UNKNOWN")
    add_arrival(session, biases[0], name_of(0), ArrivalState.DUPLICATE, "The same content is F1 already.")
    add_arrival(session, None, name_of(50), ArrivalState.QUARANTINED, "It ends in the middle of a header.", root)
    session.flush()


def name_of(number: int) -> str:
    """Return the archive name of a frame, a minute after the one before."""
    return f"MUSE.{BEGIN + timedelta(minutes=number):%Y-%m-%dT%H:%M:%S}.000.fits"


def add_frame(session: Session, root: Path, number: int, tag: str) -> Frame:
    """Add a frame with its arrival."""
    begin = BEGIN + timedelta(minutes=number)
    frame = Frame(
        dp_id=name_of(number).removesuffix(".fits"), digest=f"{number:064x}", size=72_000_000, exptime=0.0,
        path=str(root / "raw" / name_of(number)), origfile=f"MUSE_CAL_{tag}169_{number:04d}.fits",
        tag=tag, catg="CALIB", type=tag, tech="IFU", mjd=mjd_of(begin), night=NIGHT, channels=[1, 12], ingested=NOW,
        rule="No rule is for this." if tag == "UNKNOWN" else f"{tag}: DPR.TYPE is {tag}", **SETUP,
    )  # fmt: skip
    session.add(frame)
    add_arrival(session, frame, name_of(number), ArrivalState.INGESTED, "")
    return frame


def add_arrival(
    session: Session, frame: Frame | None, name: str, state: ArrivalState, reason: str, root: Path | None = None
) -> Arrival:
    """Add what was seen of a file."""
    arrival = Arrival(
        path=f"/incoming/{name}", state=state, reason=reason, frame=frame, first_seen=NOW - timedelta(minutes=1),
        settled=NOW - timedelta(seconds=55), kept=str(root / "quarantine" / name) if root else None,
    )  # fmt: skip
    session.add(arrival)
    return arrival


def add_group(session: Session, tag: str, frames: list[Frame], state: GroupState, *, expected: int) -> Group:
    """Add the group of some frames."""
    group = Group(
        tag=tag, key=frames[0].dp_id, night=NIGHT, mjd=frames[0].mjd, expected=expected, state=state,
        last_arrival=NOW, closes=NOW + timedelta(minutes=30), frames=frames,
    )  # fmt: skip
    session.add(group)
    return group
