"""Nights and Modified Julian Dates. A night is named by the date on which it begins; times are UTC."""

from datetime import UTC, date, datetime, timedelta

MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
# A night turns over at 21:00 UT: calibrations of the following morning and noon belong to the night just ended.
# Source: date roll of ESO's MUSE Health Check; a cut at noon would split the daytime calibrations of one night.
NIGHT_TURNS_OVER = timedelta(hours=21)


def time_of(mjd: float) -> datetime:
    """Return the UTC time of a Modified Julian Date, to the microsecond."""
    return MJD_EPOCH + timedelta(days=mjd)


def mjd_of(time: datetime) -> float:
    """Return the Modified Julian Date of an aware time."""
    return (time - MJD_EPOCH) / timedelta(days=1)


def night_of(mjd: float) -> date:
    """Return the night that an observation at this time belongs to."""
    return (time_of(mjd) - NIGHT_TURNS_OVER).date() if mjd >= 0 else MJD_EPOCH.date()
