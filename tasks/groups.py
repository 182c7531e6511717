"""The frames of one template: which belong together, when they are complete, and whether they are enough. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from archive.setup import Setup
from archive.states import GroupState
from recipes.muse import Lamp
from tasks.cascade import CascadeStep

SECONDS_OF_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A frame of a group, as far as groups and plans have to know it.

    Parameters
    ----------
    mjd : float
        Begin of the exposure.
    exptime : float
        Seconds.
    announced : int
        TPL.NEXP; 0 if the header lacks it.
    ambient : float or None
        Temperature around the instrument, in degrees Celsius.
    """

    frame_id: int
    dp_id: str
    digest: str
    mjd: float
    exptime: float
    announced: int
    lamps: tuple[Lamp, ...] = ()
    channels: tuple[int, ...] = ()
    ambient: float | None = None

    @property
    def middle(self) -> float:
        """Modified Julian Date of the middle of the exposure."""
        return self.mjd + self.exptime / SECONDS_OF_DAY / 2


@dataclass(frozen=True)
class Verdict:
    """State of a group and the sentence that goes with it."""

    state: GroupState
    reason: str


def group_key(tpl_start: str, night: date, setup: Setup) -> str:
    """Return what frames of one group have in common beside their tag; without TPL.START it is the night."""
    return " ".join(
        [
            tpl_start or f"night {night}",
            setup.mode or "-",
            f"{setup.readout or '-'}/{setup.readout_id}",
            f"{setup.binx}x{setup.biny}",
            setup.filter or "-",
            setup.optics or "-",
        ]
    )


def middle(members: Sequence[Member]) -> float:
    """Return the Modified Julian Date half way from the begin of the first to the end of the last exposure."""
    ends = [member.mjd + member.exptime / SECONDS_OF_DAY for member in members]
    return (min(member.mjd for member in members) + max(ends)) / 2


def announced(members: Sequence[Member]) -> int:
    """Return how many frames the template has; where they do not agree, the latest exposure knows best."""
    return max(members, key=lambda member: (member.mjd, member.frame_id)).announced if members else 0


def closing_time(members: Sequence[Member], last_arrival: datetime, grace: timedelta) -> datetime:
    """Return when a group closes if nothing more comes: after the grace time and one more exposure."""
    return last_arrival + grace + timedelta(seconds=max((member.exptime for member in members), default=0.0))


def judge(step: CascadeStep, members: Sequence[Member], *, closes: datetime, now: datetime) -> Verdict:
    """Decide whether a group is complete, still open, closed with less, or not enough.

    Parameters
    ----------
    step : CascadeStep
        What is made of the group: it sets the minimum and the lamps.
    members : sequence of Member
        The newest version of each frame.
    closes : datetime
        End of the grace time.
    """
    expected, have = announced(members), len(members)
    lamps = Counter(lamp for member in members for lamp in member.lamps)
    shares = [lamps[lamp] for lamp in step.lamps]
    balanced = len(set(shares)) <= 1
    enough = have >= step.minimum and all(share * len(step.lamps) >= step.minimum for share in shares)
    here = f"{have} of {expected} frames are here" if expected else f"{have} frames are here, of an unknown number"
    if step.lamps and not (balanced and enough):
        here += f" ({', '.join(f'{lamp} {lamps[lamp]}' for lamp in step.lamps)})"
    limit = f"{step.recipe_name} needs {step.minimum}"
    if step.lamps:
        limit += f", in equal parts of {', '.join(step.lamps)}"
    if 0 < expected <= have and enough and balanced:
        changed = "" if len({member.announced for member in members}) == 1 else "; TPL.NEXP changed on the way"
        return Verdict(GroupState.COMPLETE, f"{here}{changed}.")
    if 0 < expected < step.minimum and expected <= have:
        return Verdict(GroupState.INCOMPLETE, f"{here}, more were not announced; {limit}.")
    if now < closes:
        return Verdict(GroupState.OPEN, f"{here}; the group closes at {closes:%Y-%m-%d %H:%M:%S} UT at the latest.")
    if enough:
        return Verdict(GroupState.CLOSED, f"{here} and the grace time is over; the minimum is there: {limit}.")
    return Verdict(GroupState.INCOMPLETE, f"{here} and the grace time is over; {limit}.")
