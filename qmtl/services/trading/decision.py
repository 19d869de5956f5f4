"""From intents to orders: gate, sizing, placing, each on the cut that the bucket before has closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import assert_never

from qmtl.engine.processor import Step
from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.money import total
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, BrokerMode, Order, OrderIntent, OrderRejection
from qmtl.foundation.contracts.world import Activation, Instrument
from qmtl.runtime.orders.aggregate import place
from qmtl.runtime.sdk.watermark import WatermarkGate
from qmtl.services.trading.brokers import handed_over
from qmtl.services.trading.cut import Cut
from qmtl.services.trading.gate import Admitted, Refused, admit
from qmtl.services.trading.sizing import OnTarget, Sized, Unsized, size

GATE = WatermarkGate.for_mode("paper")
"""Says aloud what the engine has held to already: a bucket is handed out only when the cut of its delayed edge is there."""


def decide(step: Step, intents: Sequence[OrderIntent], cut_ms: int) -> None:
    """Turn the intents of one bucket into orders or rejections, in the order given.

    An intent whose numbers are too long for an exact size is one that is refused. So is one that comes again: whoever writes intents, one
    of each key is acted on, the first.

    Args:
        cut_ms: the bucket whose cut of portfolio and open orders is read; 0 is genesis: initial cash and nothing else.
    """
    cut = Cut(step, cut_ms)
    taken: set[tuple[str, str, str, int, int]] = set()
    kept, open_orders = step.table("trade.orders"), step.table("trade.open_orders")
    for intent in intents:
        which = (
            intent.world_id,
            intent.strategy_id,
            intent.symbol,
            intent.bucket_ms,
            intent.intent_index,
        )
        if which in taken:
            detail = f"an intent of {intent.symbol} with the index {intent.intent_index} came before in this bucket"
            _reject(step, intent, RejectionReason.DUPLICATE_INTENT, detail)
            continue
        taken.add(which)
        try:
            orders = _orders_of(step, intent, cut)
        except InexactMoney as error:
            _reject(step, intent, RejectionReason.INVALID_INTENT, f"no exact size: {error.what}")
            continue
        for order in orders:
            kept.put(order)
            open_orders.put(order)
            cut.place(order)


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


def _orders_of(step: Step, intent: OrderIntent, cut: Cut) -> list[Order]:
    """The orders of an intent: one in the book that the strategy trades in, and one that takes back what it still has at the venue while
    it is on paper again. Of the second no refusal is told: nobody has asked for more."""
    world = cut.world(intent.world_id)
    if world is None:
        _reject(step, intent, RejectionReason.UNKNOWN_WORLD, f"world {intent.world_id!r} does not exist")
        return []
    symbol = intent.symbol
    whose = (intent.world_id, intent.strategy_id)
    trader = cut.trader(world, whose)
    out = []
    for mode, book in trader.books:
        takes_back = mode is not trader.books[0][0]
        held = cut.held(book, symbol)
        waiting = cut.waiting((*whose, symbol, mode), held if takes_back else None)
        if takes_back and not (held or waiting):
            continue
        instrument = cut.instrument(world, symbol)
        found = judge(
            intent, trader.long, trader.short, book.account, held, waiting, instrument, cut.bucket_ms, mode
        )
        if not takes_back:
            for reason, detail in found.refused:
                _reject(step, intent, reason, detail)
        order = found.order
        if order is None:
            continue
        if step.table("trade.orders").get(world.world_id, order.order_id) is not None:
            _reject(step, intent, RejectionReason.DUPLICATE_INTENT, f"order {order.order_id} exists")
            continue
        out.append(order)
    return out


def _reject(step: Step, intent: OrderIntent, reason: RejectionReason, detail: str) -> None:
    step.emit("trade.rejections", rejection(intent, reason, detail))
