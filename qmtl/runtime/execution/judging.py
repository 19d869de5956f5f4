"""What becomes of one intent in one book: the gate, then the size, then the order."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import assert_never

from qmtl.foundation.common.money import total
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, BrokerMode, Order, OrderIntent, OrderRejection
from qmtl.foundation.contracts.world import Activation, Instrument
from qmtl.runtime.execution.brokers import handed_over
from qmtl.runtime.execution.gate import Admitted, Refused, admit
from qmtl.runtime.execution.sizing import OnTarget, Sized, Unsized, size
from qmtl.runtime.orders.aggregate import place
from qmtl.runtime.sdk.watermark import WatermarkGate

GATE = WatermarkGate.for_mode("paper")
"""Says aloud what the engine has held to already: a bucket is handed out only when the cut of its delayed edge is there."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of an intent.

    Attributes:
        order: the one that it leads to; None where nothing is ordered.
        refused: why nothing, or less than was wanted, is ordered, each with the numbers; empty where all is as wanted.
    """

    order: Order | None
    refused: tuple[tuple[RejectionReason, str], ...] = ()


def judge(
    intent: OrderIntent,
    long: Activation | None,
    short: Activation | None,
    account: Account,
    held: Decimal,
    waiting: Decimal,
    instrument: Instrument,
    cut_ms: int,
    mode: BrokerMode = BrokerMode.PAPER,
) -> Judged:
    """Gate and sizing of one intent in one book, on what the bucket before has left.

    Args:
        long, short: the gates of the strategy's sides.
        account: of the book.
        held: the position, signed, base currency.
        waiting: what open orders can still add to it, signed, those of this bucket among them.
        instrument: the world's limits of the symbol.
        cut_ms: the bucket whose cut the account, the position and the open orders are of; 0 is genesis.
        mode: whose book it is, and so whose order.

    Raises:
        InexactMoney: the numbers are too long for an exact size.
    """
    passed = admit(
        intent,
        long,
        short,
        total((held, waiting)),
        account.equity,
        cut_ready=GATE.ready(cut_ms, cut_ms),
        closed_bucket_ms=cut_ms,
        needed_bucket_ms=cut_ms,
        mode=mode,
    )
    match passed:
        case Refused(reason=reason, detail=detail):
            return Judged(None, ((reason, detail),))
        case Admitted():
            refused = () if passed.refused is None else ((passed.refused, passed.detail),)
        case _:
            assert_never(passed)
    sizing = size(
        intent,
        passed.target_percent,
        passed.weight,
        account.equity,
        held,
        waiting,
        instrument,
    )
    match sizing:
        case Unsized(reason=reason, detail=detail):
            return Judged(None, (*refused, (reason, detail)))
        case OnTarget():
            return Judged(None, refused)  # nothing more was wanted
        case Sized(side=side, quantity=quantity, reduce_only=reduce_only):
            order = place(intent, side, quantity, reduce_only, cut_ms, mode, account.session)
            return Judged(handed_over(order), refused)
        case _:
            assert_never(sizing)


def rejection(intent: OrderIntent, reason: RejectionReason, detail: str) -> OrderRejection:
    """The event that says that an intent, or a part of it, did not become an order."""
    return OrderRejection(
        intent.world_id,
        intent.strategy_id,
        intent.symbol,
        intent.bucket_ms,
        intent.intent_index,
        reason,
        detail,
    )
