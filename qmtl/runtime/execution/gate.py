"""Whether an intent may become an order: the rules before the trade, in the order in which they are asked."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeAlias

from qmtl.foundation.common.money import ZERO, magnitude, product, text
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import BrokerMode, OrderIntent
from qmtl.foundation.contracts.world import Activation, EffectiveMode

ORDER_MODES = frozenset({EffectiveMode.PAPER, EffectiveMode.LIVE})
"""The modes in which a strategy places orders; in the others it only computes."""

_MODES: Final = {BrokerMode.PAPER: EffectiveMode.PAPER, BrokerMode.LIVE: EffectiveMode.LIVE}

FULL_WEIGHT = Decimal(1)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The intent may become an order.

    Attributes:
        target_percent: as asked, or 0 where only the way to flat is open.
        weight: 0 to 1, of the side's activation; 1 for what only reduces.
        refused: why the opening part was cut off; `None` where the target stands as asked.
        detail: the numbers of that refusal; empty where there is none.
    """

    target_percent: Decimal
    weight: Decimal
    refused: RejectionReason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The intent may not become an order: why, and the numbers."""

    reason: RejectionReason
    detail: str


Verdict: TypeAlias = Admitted | Refused


def admit(
    intent: OrderIntent,
    long: Activation | None,
    short: Activation | None,
    held: Decimal,
    equity: Decimal,
    *,
    cut_ready: bool,
    closed_bucket_ms: int | None = None,
    needed_bucket_ms: int | None = None,
    mode: BrokerMode | None = None,
) -> Verdict:
    """What the rules before the trade say of an intent. The first rule that refuses is the one that is reported.

    1. `INVALID_INTENT`: a target outside -1 to 1.
    2. `WATERMARK`: the portfolio's cut of the bucket before is not there, so nobody knows what is held.
    3. `ACTIVATION_MISSING`: neither side was ever activated.
    4. `FREEZE`: a frozen side stops the whole strategy, exits too.
    5. `DRAIN`: so does a draining one; its open orders may still be filled, or are cancelled where the drain is `"cancel"`.
    6. `ACTIVATION_INACTIVE`: no side is in a mode that places orders.
    7. An exit (target 0) passes, whatever the sides say.
    8. A target on an open side passes with the side's weight. A side is open that is active, with a weight above 0, in the mode
       of the book that is asked for: while one side is live, one that is still on paper is closed.
    9. On a closed side nothing is opened. A holding on the same side that is worth more than the target may shrink to the
       target. A holding on the other side may go to flat: the target becomes 0, and the opening part is refused with
       `ACTIVATION_INACTIVE`. All else is refused with it.

    Args:
        long, short: the rows of `activation` of the two sides; `None` for one that was never set.
        held: position and open orders together, signed, base currency, of the portfolio cut of the bucket before.
        equity: of the strategy's account, quote currency, of the same cut.
        cut_ready: what `WatermarkGate.ready` said.
        closed_bucket_ms, needed_bucket_ms: what it was asked, for the detail.
        mode: whose book `held` and `equity` are of; None is the one that the sides ask for.
    """
    target = intent.target_percent
    if not target.is_finite() or magnitude(target) > 1:
        return Refused(RejectionReason.INVALID_INTENT, f"target {target}; it is a share from -1 to 1")
    if not cut_ready:
        return Refused(
            RejectionReason.WATERMARK,
            f"bucket {intent.bucket_ms} needs the portfolio of {needed_bucket_ms}, closed is {closed_bucket_ms}",
        )
    rows = tuple(row for row in (long, short) if row is not None)
    if not rows:
        return Refused(
            RejectionReason.ACTIVATION_MISSING, f"{intent.strategy_id} has no activation on either side"
        )
    for row in rows:
        if row.freeze:
            return Refused(RejectionReason.FREEZE, _named(row))
    for row in rows:
        if row.drain:
            return Refused(RejectionReason.DRAIN, _named(row))
    if not any(row.effective_mode in ORDER_MODES for row in rows):
        return Refused(RejectionReason.ACTIVATION_INACTIVE, "; ".join(_named(row) for row in rows))
    if not target:
        return Admitted(ZERO, FULL_WEIGHT)
    side, name = (long, "long") if target > 0 else (short, "short")
    if side is not None and _open(side, mode or mode_of(long, short)):
        return Admitted(target, side.weight)
    why = _named(side) if side is not None else f"no activation of {name}"
    detail = f"target {text(target)} with {text(held)} held; {why}"
    if held and (held > 0) != (target > 0):
        return Admitted(ZERO, FULL_WEIGHT, RejectionReason.ACTIVATION_INACTIVE, detail)
    if held and _shrinks(intent, held, equity):
        return Admitted(target, FULL_WEIGHT)
    return Refused(RejectionReason.ACTIVATION_INACTIVE, detail)


def mode_of(long: Activation | None, short: Activation | None) -> BrokerMode | None:
    """The broker of a strategy with these gates: the real one as soon as a side is live, else the paper one as soon as a side is on
    paper; None where no side is in a mode that places orders."""
    modes = {row.effective_mode for row in (long, short) if row is not None}
    if EffectiveMode.LIVE in modes:
        return BrokerMode.LIVE
    return BrokerMode.PAPER if EffectiveMode.PAPER in modes else None


def _open(side: Activation, mode: BrokerMode | None) -> bool:
    return side.active and side.weight > 0 and mode is not None and side.effective_mode is _MODES[mode]


def _shrinks(intent: OrderIntent, held: Decimal, equity: Decimal) -> bool:
    wanted = product(magnitude(intent.target_percent), max(equity, ZERO))
    return wanted < product(magnitude(held), intent.reference_price)


def _named(row: Activation) -> str:
    state = "active" if row.active else "inactive"
    return f"{row.side.value} version {row.version} is {state}, weight {text(row.weight)}, {row.effective_mode.value}"
