"""When the proceeds of a sale are there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from qmtl.foundation.common.errors import InvalidValue

_SATURDAY = 5
_DAY_MINUTES = 1_440
_MOST_DAYS = 30


class SettlementModel(Protocol):
    """When what a sale brings may be spent."""

    def settles_at_ms(self, filled_at_ms: int) -> int:
        """UTC epoch ms, not before the fill."""


@dataclass(frozen=True, slots=True)
class ImmediateSettlement:
    """At once: Lean's `ImmediateSettlementModel`, and what crypto venues do."""

    def settles_at_ms(self, filled_at_ms: int) -> int:
        return filled_at_ms


@dataclass(frozen=True, slots=True)
class DelayedSettlement:
    """T+n: so many business days after the day of the fill, at a time of the day (Lean's `DelayedSettlementModel`). US equities settle at T+1 since
    2024-05-28 (SEC rule 15c6-1), at T+2 from 2017-09-05, at T+3 before.

    Attributes:
        days: business days, from 0.
        minute: of the local day, from 0 to 1439.
        zone: of the day and the minute, a name of the IANA database.
        holidays: local days beside Saturdays and Sundays that are no business days.

    Raises:
        InvalidValue: a parameter that breaks its rule.
    """

    days: int
    minute: int = 480
    zone: str = "America/New_York"
    holidays: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.days <= _MOST_DAYS:
            raise InvalidValue(f"days was {self.days}; it must be from 0 to {_MOST_DAYS}.", "Send 1 for T+1.")
        if not 0 <= self.minute < _DAY_MINUTES:
            raise InvalidValue(
                f"minute was {self.minute}; it must be from 0 to {_DAY_MINUTES - 1}.", "Send 480 for 08:00."
            )
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidValue(
                f"zone was {self.zone!r}; it must be a name of the IANA time zone database.",
                "Send a name such as America/New_York.",
            ) from None

    def settles_at_ms(self, filled_at_ms: int) -> int:
        zone = ZoneInfo(self.zone)
        day = datetime.fromtimestamp(filled_at_ms / 1000, UTC).astimezone(zone).date()
        left = self.days
        while left:
            day += timedelta(days=1)
            if day.weekday() < _SATURDAY and day not in self.holidays:
                left -= 1
        due = datetime.combine(day, time(self.minute // 60, self.minute % 60), zone)
        return max(filled_at_ms, round(due.timestamp() * 1000))
