"""From intents to orders: gate, sizing, placing, each on the cut that the bucket before has closed."""

from __future__ import annotations

from collections.abc import Sequence

from qmtl.engine.processor import Step
from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Order, OrderIntent
from qmtl.runtime.execution.judging import judge, rejection
from qmtl.services.trading.cut import Cut


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
