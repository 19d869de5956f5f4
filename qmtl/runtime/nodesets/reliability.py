"""How often an order is handed to a venue again, and when a node set stops trying: options, and the rule as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from qmtl.foundation.common.errors import InvalidNodeSet


@dataclass(frozen=True, slots=True)
class Reliability:
    """Retries and circuit breaker of the venue's client.

    Attributes:
        attempts: how often an order that was surely not taken is handed over. One of which nobody knows whether it was taken is never sent again.
        break_after: orders in a row that fail before the breaker opens.
        degrade_to_paper: an open breaker lets the node set go on, on paper; else nothing is placed until somebody closes it.

    Raises:
        InvalidNodeSet: a count below 1.
    """

    attempts: int = 3
    break_after: int = 5
    degrade_to_paper: bool = False

    def __post_init__(self) -> None:
        for name, count in (("attempts", self.attempts), ("break_after", self.break_after)):
            if type(count) is not int or count < 1:
                raise InvalidNodeSet(
                    f"{name} was {count!r}; an integer of at least 1 is required.", "Send 1."
                )


RELIABILITY: Final = Reliability()


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of a client. It is a value, so that whoever runs it keeps it in a table and a restart remembers it.

    Attributes:
        failures: orders in a row that failed.
        is_open: nothing is handed over; only `closed()` ends that.
    """

    failures: int = 0
    is_open: bool = False

    def failed(self, options: Reliability) -> Breaker:
        """After an order that failed at every attempt."""
        failures = self.failures + 1
        return Breaker(failures, self.is_open or failures >= options.break_after)

    def succeeded(self) -> Breaker:
        """After an order that was taken; an open breaker stays open."""
        return replace(self, failures=0) if not self.is_open else self

    def closed(self) -> Breaker:
        """After somebody has looked."""
        return Breaker()

    def mode(self, wanted: str, options: Reliability) -> str | None:
        """In which mode new orders are placed; None where none may be. Only what is live depends on a venue."""
        if wanted != "live" or not self.is_open:
            return wanted
        return "paper" if options.degrade_to_paper else None
