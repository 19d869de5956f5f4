"""When and at what price a simulated order is executed."""

from __future__ import annotations

from decimal import Decimal

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.money import negated, product, text, total, whole_steps
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Order, Side
from qmtl.runtime.brokerage.fees import FeeModel
from qmtl.runtime.brokerage.slippage import SlippageModel

_ONE = Decimal(1)


def market_fill(
    order: Order,
    bar: Bar,
    fee_model: FeeModel,
    slippage_model: SlippageModel,
    tick: Decimal,
    currency: str,
) -> Fill:
    """The execution of a market order in the next bar of its symbol after the order was placed.

    A market order that waits when a bar begins is filled whole at the bar's OPEN; source: Lean at commit 24863901,
    `MarketOrderRestingBeforeBarFillsAtBarOpen`. An order is placed at the close of a bucket, so the next bar of its symbol
    is the one that opens at or after this instant; where minutes are absent it opens later. What is left of the order is
    filled; volume is not a limit.

    Price: open plus slippage for a buyer, open less slippage for a seller, then moved to the tick *against* the taker (up
    for a buyer, down for a seller; never below one tick), so that rounding never makes a simulated trade cheaper. The
    fill's `slippage` is the whole distance from the open, rounding included. The fee is exact and is taken on the price
    of the fill.

    Args:
        tick: smallest price step (> 0), quote currency.
        currency: the quote currency, in which the fee is.

    Raises:
        InvariantBroken: a bar of another symbol, a bar that opened before the order was placed (it would look ahead), an
            order with nothing left to fill.
    """
    if bar.symbol != order.symbol:
        raise InvariantBroken(f"order {order.order_id} of {order.symbol} met a bar of {bar.symbol}.")
    if bar.open_time_ms < order.created_at_ms:
        raise InvariantBroken(
            f"order {order.order_id} was placed at {order.created_at_ms} and met a bar that opened at "
            f"{bar.open_time_ms}: its open was known before the order."
        )
    left = total((order.quantity, negated(order.cum_quantity)))
    if left <= 0:
        raise InvariantBroken(
            f"order {order.order_id} of {text(order.quantity)} was filled already: {text(order.cum_quantity)}."
        )
    price = execution_price(order.side, bar.open, slippage_model.adverse(order.side, bar.open), tick)
    return Fill(
        world_id=order.world_id,
        strategy_id=order.strategy_id,
        order_id=order.order_id,
        seq=order.last_seq + 1,
        symbol=order.symbol,
        side=order.side,
        quantity=left,
        price=price,
        fee=fee_model.fee(order.side, left, price),
        fee_currency=currency,
        slippage=total((price, negated(bar.open)) if order.side is Side.BUY else (bar.open, negated(price))),
        fill_time_ms=bar.open_time_ms,
    )


def execution_price(side: Side, price: Decimal, adverse: Decimal, tick: Decimal) -> Decimal:
    """`price` moved by `adverse` against the taker and then to the tick against the taker, never below one tick."""
    moved = total((price, adverse if side is Side.BUY else negated(adverse)))
    ticks = whole_steps(moved, tick)
    if side is Side.BUY and product(ticks, tick) != moved:
        ticks = total((ticks, _ONE))
    return product(max(ticks, _ONE), tick)
