"""When orders may be placed: hours of a week in a time zone, days off, and the instant at which it is allowed again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qmtl.foundation.common.errors import InvalidValue

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY_MINUTES: Final = 24 * 60
_LOOK_AHEAD_DAYS: Final = 400


@dataclass(frozen=True, slots=True)
class Hours:
    """One stretch of a weekday.

    Attributes:
        weekday: 0 is Monday, 6 Sunday, on the clock of the policy's zone.
        open_minute, close_minute: minutes since local midnight; the first is in, the second out. 1440 is the end of the day.

    Raises:
        InvalidValue: no weekday, or minutes that are out of order or of the day.
    """

    weekday: int
    open_minute: int
    close_minute: int

    def __post_init__(self) -> None:
        if not 0 <= self.weekday <= 6:
            raise InvalidValue(f"weekday was {self.weekday}; it is 0 (Monday) to 6.", "Count from Monday.")
        if not 0 <= self.open_minute < self.close_minute <= _DAY_MINUTES:
            raise InvalidValue(
                f"hours were {self.open_minute} to {self.close_minute}; minutes of one day in order are required, 0 to 1440.",
                "Write hours past midnight as two.",
            )


@dataclass(frozen=True, slots=True)
class TimingPolicy:
    """When a market is open.

    Attributes:
        zone: of the clock that the hours are of, by its name in the IANA database.
        hours: none means around the clock.
        closed: local dates without hours.

    Raises:
        InvalidValue: a zone that is not there.
    """

    zone: str = "UTC"
    hours: tuple[Hours, ...] = ()
    closed: tuple[date, ...] = ()

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidValue(
                f"zone was {self.zone!r}; a name of the IANA database is required.", "Such as Europe/Paris."
            ) from None


AROUND_THE_CLOCK: Final = TimingPolicy()


@dataclass(frozen=True, slots=True)
class Allowed:
    """Orders may be placed at that instant."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Orders may not be placed at that instant.

    Attributes:
        reason: `closed_date` or `outside_hours`.
        next_valid_ms: the first instant at which they may be again, UTC epoch ms; None where none is near (400 days).
    """

    reason: str
    next_valid_ms: int | None


Timing: TypeAlias = Allowed | Denied


def timing(policy: TimingPolicy, at_ms: int) -> Timing:
    """Whether an instant lies in the hours of a policy. An hour that the clocks leave out or repeat is counted by the clock on the wall.

    Args:
        at_ms: UTC epoch ms.
    """
    zone = ZoneInfo(policy.zone)
    local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone)
    today = local.date()
    hours = policy.hours or tuple(Hours(day, 0, _DAY_MINUTES) for day in range(7))
    minute = local.hour * 60 + local.minute
    is_closed = today in policy.closed
    if not is_closed and any(
        one.weekday == today.weekday() and one.open_minute <= minute < one.close_minute for one in hours
    ):
        return Allowed()
    return Denied("closed_date" if is_closed else "outside_hours", _next(policy, hours, zone, today, at_ms))


def _next(
    policy: TimingPolicy, hours: tuple[Hours, ...], zone: ZoneInfo, today: date, at_ms: int
) -> int | None:
    for ahead in range(_LOOK_AHEAD_DAYS):
        day = today + timedelta(days=ahead)
        if day in policy.closed:
            continue
        opens = (
            datetime(day.year, day.month, day.day, one.open_minute // 60, one.open_minute % 60, tzinfo=zone)
            for one in hours
            if one.weekday == day.weekday()
        )
        found = [at for at in ((one - _EPOCH) // _MILLISECOND for one in opens) if at > at_ms]
        if found:
            return min(found)
    return None
