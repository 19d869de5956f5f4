"""What can go wrong with the next answers of the fake exchange."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

ORDER: Final = "POST /api/v3/order"
TRADES: Final = "GET /api/v3/myTrades"
QUERY: Final = "GET /api/v3/order"


class Fault(Enum):
    """Each for the next requests of one endpoint. Those whose name begins with `taken` do what was asked for, and only the answer is lost."""

    TAKEN_CUT = "taken_cut"
    """The connection is closed without an answer."""
    TAKEN_503 = "taken_503"
    TAKEN_SILENT = "taken_silent"
    """Nothing is answered until the client has gone."""
    TAKEN_GARBAGE = "taken_garbage"
    """200 with a page that is no JSON."""
    TAKEN_HALF = "taken_half"
    """Half of the answer, and the connection is closed."""
    TAKEN_FIELD = "taken_field"
    """The answer without its status and its quantities."""
    CUT = "cut"
    """The connection is closed; nothing was done."""
    UNAVAILABLE_503 = "503"
    """Nothing was done."""
    SILENT = "silent"
    """Nothing is done, and nothing answered until the client has gone."""
    HELD = "held"
    """The request waits on its way until the client has gone, and is looked at then: its own time decides whether it is still taken."""
    LIMIT_429 = "429"
    BAN_418 = "418"
    FIREWALL_403 = "403"
    """With a page instead of JSON."""
    REDIRECT_307 = "307"
    """To the exchange itself: who follows it has sent twice."""
    NO_BALANCE = "insufficient_balance"
    """-2010."""
    UNKNOWN_CODE = "unknown_code"
    """400 with the code -1006, whose meaning is that the outcome is unknown."""
    ABSENT = "absent"
    """-2013 for an order that is there: a query that lags behind."""
    TRADES_LAG = "trades_lag"
    """The newest execution is missing."""
    TRADES_HOLE = "trades_hole"
    """The oldest execution is missing."""


DEFAULT_AT: Final[Mapping[Fault, str]] = {
    Fault.TRADES_LAG: TRADES,
    Fault.TRADES_HOLE: TRADES,
    Fault.ABSENT: QUERY,
}
"""Where a fault happens if nothing else is said; all others at `ORDER`."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault for the next `times` requests of an endpoint, such as `POST /api/v3/order`."""

    fault: Fault
    at: str
    times: int


class Faults:
    """Those to come, each in its turn."""

    def __init__(self) -> None:
        self._planned: list[Planned] = []

    def plan(self, one: Planned) -> None:
        self._planned.append(one)

    def clear(self) -> None:
        self._planned.clear()

    def next(self, at: str) -> Fault | None:
        """The fault of this request, if it has one."""
        for place, one in enumerate(self._planned):
            if one.at == at:
                if one.times > 1:
                    self._planned[place] = Planned(one.fault, one.at, one.times - 1)
                else:
                    del self._planned[place]
                return one.fault
        return None
