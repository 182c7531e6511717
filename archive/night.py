"""Nights and Modified Julian Dates. A night is named by the date on which it begins; times are UTC."""

from datetime import UTC, date, datetime, timedelta

MJD_EPOCH = datetime(1858, 11, 17, tzinfo=UTC)
LAST_MJD = 2973483  # the last day of the year 9999, where calendars of computers end
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
    """Return the night that an observation at this time belongs to; of no time of a calendar, that of day 0."""
    if not 0 <= mjd <= LAST_MJD:  # NaN neither
        return MJD_EPOCH.date()
    return (time_of(mjd) - NIGHT_TURNS_OVER).date()


def night_ends(night: date) -> datetime:
    """Return when a night is over: 21:00 UT of the following date."""
    return datetime(night.year, night.month, night.day, tzinfo=UTC) + timedelta(days=1) + NIGHT_TURNS_OVER
