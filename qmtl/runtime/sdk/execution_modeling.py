"""What a market makes of an order on paper, as an author reaches it; the rules are those of `qmtl.runtime.brokerage`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Order
from qmtl.foundation.contracts.world import World
from qmtl.runtime.brokerage.broker import PaperAnswer
from qmtl.runtime.brokerage.matching.model import FillModel
from qmtl.runtime.brokerage.paper import PaperBroker
from qmtl.runtime.execution.brokers import instrument_of

__all__ = ["FillModel", "PaperAnswer", "answers_of"]


def answers_of(
    order: Order,
    bars: Sequence[Bar],
    world: World,
    bucket_ms: int,
    position_of: Callable[[Order], Decimal] | None = None,
    model: FillModel | None = None,
) -> Sequence[PaperAnswer]:
    """What the bars of one bucket make of an open order on paper, in the order in which it happens.

    Args:
        bars: of the bucket, in the order of the log.
        world: its fee, slippage and limits.
        position_of: what a reduce-only order may reduce, signed, base currency; None leaves that unchecked.
        model: how orders are filled that are not plain market orders; None is the paper broker's own.

    Raises:
        InexactMoney: money can't be kept exact at the price of a bar.
    """
    broker = PaperBroker(
        world.settings,
        partial(instrument_of, world),
        bars,
        bucket_ms,
        FillModel() if model is None else model,
        position_of=position_of,
    )
    return broker.look(order)
