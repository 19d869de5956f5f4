"""The brokers of a strategy as trading uses them, chosen by the mode of the order: the paper one answers at once, the real one by the log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import assert_never

from qmtl.foundation.contracts.broker import FillBusted, FillCorrected, OrderReport
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order
from qmtl.foundation.contracts.world import Instrument, World
from qmtl.runtime.brokerage.paper import PaperBroker
from qmtl.runtime.data.instruments import instrument_for
from qmtl.runtime.orders.aggregate import ask_cancel
from qmtl.runtime.orders.reports import told


class ByLog:
    """The real broker as a transaction sees it: it is asked by what the transaction writes, and answers in a later one.

    An order that lies on the log as `PENDING_NEW` is asked to be placed, one as `PENDING_CANCEL` to be cancelled. The order management system takes both
    to `RealBroker`, and its reports come back as `order.reports`.
    """

    mode = BrokerMode.LIVE

    def place(self, order: Order) -> Sequence[OrderReport]:
        return ()

    def cancel(self, order: Order) -> Sequence[OrderReport]:
        return ()

    def look(self, order: Order) -> Sequence[OrderReport]:
        return ()


def broker_of(mode: BrokerMode, world: World, at_ms: int, bars: Sequence[Bar] = ()) -> PaperBroker | ByLog:
    """The broker of a mode, in one bucket of a world.

    Args:
        bars: of the bucket; the market of the one that simulates.
    """
    match mode:
        case BrokerMode.PAPER:
            return PaperBroker(world.settings, partial(instrument_of, world), bars, at_ms)
        case BrokerMode.LIVE:
            return ByLog()
        case _:
            assert_never(mode)


def handed_over(order: Order) -> Order:
    """A new order, once its broker has it: it may have answered at once."""
    match order.mode:
        case BrokerMode.PAPER:
            return _told(order, PaperBroker.accepted(order))
        case BrokerMode.LIVE:
            return _told(order, ByLog().place(order))
        case _:
            assert_never(order.mode)


def withdrawn(order: Order, world: World, at_ms: int) -> Order:
    """An open order, once its broker was asked to cancel it: it may have done so at once."""
    # What is on the log is what the broker is asked by, so it is taken up as it is written.
    asked = ask_cancel(order, at_ms, acknowledged=True)
    return _told(asked, broker_of(order.mode, world, at_ms).cancel(asked))


def _told(order: Order, reports: Sequence[OrderReport]) -> Order:
    for report in reports:
        match report:
            case Fill() | FillBusted() | FillCorrected():
                raise AssertionError("a broker fills against a market, and neither of the two was shown one")
            case _:
                order = told(order, report)
    return order


class Instruments(dict[str, Instrument]):
    """The limits of symbols in one world, each looked for once."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __missing__(self, symbol: str) -> Instrument:
        found = self[symbol] = instrument_of(self._world, symbol)
        return found


def instrument_of(world: World, symbol: str) -> Instrument:
    """The world's limits of a symbol; the finest steps where it states none."""
    for one in world.settings.instruments:
        if one.symbol == symbol:
            return one
    return instrument_for(symbol)
