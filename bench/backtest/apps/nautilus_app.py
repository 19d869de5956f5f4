"""The benchmark on the first generation of NautilusTrader: run by the Python of its own environment, which has none of our code.

`python nautilus_app.py JSON`, with bars and out (files of numpy's), strategy and cash; prints one line of JSON. Timed is `BacktestEngine.run`
without logging and without its analysis afterwards.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from decimal import Decimal
from typing import Any

import numpy as np
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.events import OrderFilled
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

MINUTE_NS = 60_000_000_000
START_NS = 1_600_000_020_000_000_000
LIQUID = 1000
"""By how much more there is in each bar: of a fourth of its volume a whole unit could not always be had at one price."""

TOUCHING = 1e-6
"""Averages that are nearer to each other are the same, but for what floats make of them: others are three ten-thousandths apart."""

VENUE = Venue("BENCH")
PAIR = InstrumentId(Symbol("BTCUSDT"), VENUE)
BARS = BarType.from_str(f"{PAIR}-1-MINUTE-LAST-EXTERNAL")


class Unit(Strategy):
    """Holds one unit or none."""

    def __init__(self, *lengths: int) -> None:
        super().__init__()
        self.averages = [SimpleMovingAverage(length) for length in lengths]
        self.one = Quantity.from_str("1.000000")
        self.held = False

    def on_start(self) -> None:
        for one in self.averages:
            self.register_indicator_for_bars(BARS, one)
        self.subscribe_bars(BARS)

    def turn(self, side: OrderSide) -> None:
        self.held = side == OrderSide.BUY
        self.submit_order(self.order_factory.market(PAIR, side, self.one))


class Cross(Unit):
    def __init__(self, *lengths: int) -> None:
        super().__init__(*lengths)
        self.side = 0

    def on_bar(self, bar: Bar) -> None:
        fast, slow = self.averages
        if not slow.initialized:
            return
        apart = fast.value - slow.value
        side = (apart > TOUCHING) - (apart < -TOUCHING)
        if not side or side == self.side:
            return
        before, self.side = self.side, side
        if side > 0 and before and not self.held:
            self.turn(OrderSide.BUY)
        elif side < 0 and self.held:
            self.turn(OrderSide.SELL)


class Ladder(Unit):
    def on_bar(self, bar: Bar) -> None:
        fast, slow, slowest = self.averages
        if not slowest.initialized:
            return
        up = fast.value > slow.value > slowest.value and bar.close.as_double() > slowest.value
        if up != self.held:
            self.turn(OrderSide.BUY if up else OrderSide.SELL)


STRATEGIES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "cross": (Cross, (10, 30)),
    "ladder": (Ladder, (10, 30, 60)),
}


def pair() -> CurrencyPair:
    fee = Decimal("0.001")
    return CurrencyPair(
        instrument_id=PAIR,
        raw_symbol=Symbol("BTCUSDT"),
        base_currency=BTC,
        quote_currency=USDT,
        price_precision=2,
        size_precision=6,
        price_increment=Price.from_str("0.01"),
        size_increment=Quantity.from_str("0.000001"),
        ts_event=0,
        ts_init=0,
        maker_fee=fee,
        taker_fee=fee,
    )


def bars_of(path: str) -> list[Bar]:
    with np.load(path) as bars:
        columns = [bars[name].tolist() for name in ("open", "high", "low", "close", "volume")]
    out = []
    for at, (*prices, volume) in enumerate(zip(*columns, strict=True)):
        closed = START_NS + (at + 1) * MINUTE_NS
        told = [Price(units / 100, 2) for units in prices]
        out.append(Bar(BARS, *told, Quantity(volume / 1e6 * LIQUID, 6), closed, closed))
    return out


def main(told: dict[str, Any]) -> None:
    config = BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False)
    engine = BacktestEngine(config=config)
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.CASH,
        base_currency=None,
        starting_balances=[Money(told["cash"], USDT), Money(0, BTC)],
    )
    engine.add_instrument(pair())
    engine.add_data(bars_of(told["bars"]))
    make, lengths = STRATEGIES[told["strategy"]]
    engine.add_strategy(make(*lengths))
    begun = time.perf_counter()
    engine.run()
    seconds = time.perf_counter() - begun
    filled = sorted((one for one in engine.cache.orders() if one.is_closed), key=lambda one: one.ts_last)
    fills = [[event for event in one.events if isinstance(event, OrderFilled)] for one in filled]
    if any(len(one) != 1 for one in fills):
        raise SystemExit("an order was filled in parts")
    np.savez(
        told["out"],
        price=np.array([float(fill.last_px.as_decimal()) for (fill,) in fills]),
        bought=np.array([one.side == OrderSide.BUY for one in filled], dtype=np.bool_),
        at=np.array([(one.ts_last - START_NS) // MINUTE_NS - 1 for one in filled], dtype=np.int64),
        fee=np.array([sum(float(fee) for fee in one.commissions()) for one in filled]),
    )
    account = engine.cache.account_for_venue(VENUE)
    said = {
        "seconds": seconds,
        "position": float(account.balance_total(BTC).as_decimal()),
        "cash_change": float(account.balance_total(USDT).as_decimal() - told["cash"]),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
