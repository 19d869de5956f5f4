"""The broker that simulates: it accepts everything, and fills against the bars of one bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qmtl.foundation.contracts.broker import OrderAccepted, OrderEnded
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderStatus
from qmtl.foundation.contracts.world import Instrument, WorldSettings
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.brokerage.fills import market_fill
from qmtl.runtime.brokerage.slippage import ConstantSlippage


class PaperBroker:
    """It is a `Broker`, pure, of one bucket of one world.

    Args:
        settings: of the world: fee, slippage and currency.
        instrument_of: the limits of a symbol.
        bars: of the bucket, in the order of the log; empty where nothing is to be filled.
        at_ms: the bucket.
    """

    mode = BrokerMode.PAPER

    def __init__(
        self,
        settings: WorldSettings,
        instrument_of: Callable[[str], Instrument],
        bars: Sequence[Bar],
        at_ms: int,
    ) -> None:
        self._fees = PercentFee(settings.fee_rate)
        self._slippage = ConstantSlippage(settings.slippage_rate)
        self._currency, self._instrument_of = settings.currency, instrument_of
        self._bars, self._at_ms = bars, at_ms
        self._places: dict[str, list[int]] | None = None  # of the bars, by symbol

    def place(self, order: Order) -> Sequence[OrderAccepted]:
        return self.accepted(order)

    @staticmethod
    def accepted(order: Order) -> Sequence[OrderAccepted]:
        """What it says of any order, whatever the bucket."""
        return (OrderAccepted(order.world_id, order.order_id, "", order.created_at_ms),)

    def cancel(self, order: Order) -> Sequence[OrderEnded]:
        return (OrderEnded(order.world_id, order.order_id, OrderStatus.CANCELED, "", "", self._at_ms),)

    def look(self, order: Order) -> Sequence[Fill]:
        """All that is left is filled in the first bar of the bucket that the order can meet; nothing where there is none.

        Raises:
            InexactMoney: at that bar's price money can't be kept exact.
        """
        at = self.meets(order)
        if at is None:
            return ()
        tick = self._instrument_of(order.symbol).tick
        return (market_fill(order, self._bars[at], self._fees, self._slippage, tick, self._currency),)

    def meets(self, order: Order) -> int | None:
        """Which of the bars fills an order: the first of its symbol that opened when it was there, or later."""
        if self._places is None:
            self._places = {}
            for at, bar in enumerate(self._bars):
                self._places.setdefault(bar.symbol, []).append(at)
        for at in self._places.get(order.symbol, ()):
            if self._bars[at].open_time_ms >= order.created_at_ms:
                return at
        return None
