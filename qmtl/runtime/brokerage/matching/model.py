"""How a simulated market fills: one value that says it, with the conventions of other systems as choices."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from qmtl.foundation.common.errors import InvalidValue

DAY_S = 86_400
MINUTE_MS = 60_000


class Convention(Enum):
    """At what price within a bar an order is filled. All of Lean are at commit 24863901, Nautilus' at a95c8042."""

    EQUITY = "equity"
    """Lean's `EquityFillModel`: limits and stops see trades only; a bar wholly beyond a limit fills at the open, a stop that the
    open has passed at the open, else at the limit or the stop itself."""
    IMMEDIATE = "immediate"
    """Lean's `FillModel`: a limit is filled at itself, or at the bar's worst price where that is better; a stop at the worse of
    itself and the close."""
    FUTURE = "future"
    """Lean's `FutureFillModel`: as `IMMEDIATE`."""
    PATH = "path"
    """Nautilus' matching engine: a bar is walked open, high, low, close, a quarter of its volume at each; a limit that rests is
    filled at itself."""


@dataclass(frozen=True, slots=True)
class FillModel:
    """Which convention, and what limits it.

    Attributes:
        convention: at what price.
        participation: share of the volume, or of the size shown, that one look at the market may fill, above 0 to 1; None for
            no limit. Quote bars have no volume, and so no limit.
        order_share: share of the order's quantity that one look may fill, above 0 to 1: 0.5 fills in halves (Lean's
            `PartialMarketFillModel`); None for no limit.
        extended_hours: intraday data outside the session fills, too.
        quotes: quotes of the symbol are to be had, so that the limit of a limit-if-touched order is met by them alone.
        open_interval: a market order that waits when a bar begins is filled at its open where the bar has at least this many
            seconds, else at the close. Lean: 3600.
        known_price_ms: a market order takes a price that is known when it is placed and at most so old; 0 for never.
        stale_after_ms: such a price is told as stale where it is older than this.
        opening_wait_ms: after it an order for the open takes what trades or is quoted, where no bar has said the opening price.
        adaptive_path: `PATH` goes to the low first where the open is nearer to it.

    Raises:
        InvalidValue: a share that is not above 0 to 1, a time or interval below 0.
    """

    convention: Convention = Convention.EQUITY
    participation: Decimal | None = None
    order_share: Decimal | None = None
    extended_hours: bool = False
    quotes: bool = False
    open_interval: int = 0
    known_price_ms: int = 0
    stale_after_ms: int = 3_600_000
    opening_wait_ms: int = 2 * MINUTE_MS
    adaptive_path: bool = False

    def __post_init__(self) -> None:
        for name, share in (("participation", self.participation), ("order_share", self.order_share)):
            if share is not None and not (share.is_finite() and 0 < share <= 1):
                raise InvalidValue(
                    f"{name} was {share}; it must be a share above 0 to 1.", "Send 0.1 for a tenth."
                )
        for name, amount in (
            ("open_interval", self.open_interval),
            ("known_price_ms", self.known_price_ms),
            ("stale_after_ms", self.stale_after_ms),
            ("opening_wait_ms", self.opening_wait_ms),
        ):
            if amount < 0:
                raise InvalidValue(f"{name} was {amount}; it must not be negative.", "Send 0 for none.")


@dataclass(frozen=True, slots=True)
class Session:
    """One trading session of a market, UTC epoch ms: from the open (inclusive) to the close.

    Raises:
        InvalidValue: it ends before it begins, or at once.
    """

    open_ms: int
    close_ms: int

    def __post_init__(self) -> None:
        if self.close_ms <= self.open_ms:
            raise InvalidValue(
                f"a session ended at {self.close_ms} and began at {self.open_ms}; it must end after it began.",
                "Send the instants of one session.",
            )


def utc_day(at_ms: int) -> Session:
    """The session of a market that never closes: the UTC day that an instant is in."""
    day = 1000 * DAY_S
    return Session(at_ms - at_ms % day, at_ms - at_ms % day + day)
