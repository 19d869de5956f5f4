"""The broker over the venue over a real connection: what it reports is what the exchange has in its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.broker import OrderAbsent, OrderAccepted, OrderEnded, OrderUnknown, VenueAnswer
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, Side
from qmtl.runtime.brokerage.real import RealBroker
from qmtl.runtime.venues.address import open_venue, parse_address
from qmtl.testing.exchange import Fault, RunningExchange, running_exchange
from tests.runtime.venues.rig import CANCEL, SYMBOL, TRADES, an_order, has, quiet, sent

NOW_MS = 1_600_000_000_000


@pytest.fixture(scope="module")
def process() -> Iterator[tuple[RunningExchange, RealBroker]]:
    with running_exchange({SYMBOL: Decimal(100)}) as exchange:
        venue = open_venue(parse_address(exchange.venue), exchange.key, exchange.secret)
        venue.connect()
        yield exchange, RealBroker(venue, lambda: NOW_MS)
        venue.close()


@pytest.fixture
def exchange(process: tuple[RunningExchange, RealBroker]) -> RunningExchange:
    quiet(process[0])
    return process[0]


@pytest.fixture
def broker(exchange: RunningExchange, process: tuple[RunningExchange, RealBroker]) -> RealBroker:
    return process[1]


def fills(told: Sequence[VenueAnswer]) -> list[Fill]:
    return [one for one in told if isinstance(one, Fill)]


def ends(told: Sequence[VenueAnswer]) -> list[OrderEnded]:
    return [one for one in told if isinstance(one, OrderEnded)]


def require_as_in_the_ledger(exchange: RunningExchange, order: Order, told: Sequence[VenueAnswer]) -> None:
    given = [one for one in exchange.fills() if one.client_order_id == order.order_id]
    assert [
        (one.seq, one.order_id, one.symbol, one.side.value, one.quantity, one.price, one.fill_time_ms)
        for one in fills(told)
    ] == [
        (seq, order.order_id, one.symbol, one.side, one.quantity, one.price, one.at_ms)
        for seq, one in enumerate(given, 1)
    ]


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("pieces", [1, 4])
def test_an_order_is_accepted_and_its_fills_are_numbered(
    exchange: RunningExchange, broker: RealBroker, side: Side, pieces: int
) -> None:
    exchange.fill_at_once(pieces)
    exchange.price(SYMBOL, Decimal("101.5"))
    order = an_order("3", side)
    told = broker.place(order)
    assert isinstance(told[0], OrderAccepted)
    assert len(told) == 1 + pieces
    require_as_in_the_ledger(exchange, order, told)
    worse = Decimal("1.5") if side is Side.BUY else Decimal("-1.5")
    assert {one.slippage for one in fills(told)} == {worse}
    assert broker.look(order) == told


def test_a_fee_in_the_base_currency_is_told_in_the_quote_currency(
    exchange: RunningExchange, broker: RealBroker
) -> None:
    exchange.commission(Decimal("0.001"), "base")
    (fill,) = fills(broker.place(an_order("2")))
    assert (fill.fee, fill.fee_currency) == (Decimal("0.2"), "USDT")
    exchange.commission(Decimal("0.001"), "BNB")
    (fill,) = fills(broker.place(an_order("2")))
    assert fill.fee_currency == "BNB"


def test_a_refusal_ends_the_order_and_a_silence_does_not(
    exchange: RunningExchange, broker: RealBroker
) -> None:
    exchange.fault(Fault.NO_BALANCE)
    (ended,) = broker.place(an_order())
    assert isinstance(ended, OrderEnded)
    assert (ended.status, ended.code) == (OrderStatus.REJECTED, "QMTL-720")
    assert "insufficient balance" in ended.detail
    for fault, is_there in ((Fault.TAKEN_CUT, True), (Fault.UNAVAILABLE_503, False)):
        order = an_order()
        exchange.fault(fault)
        (unknown,) = broker.place(order)
        assert isinstance(unknown, OrderUnknown)
        assert unknown.code == "QMTL-721"
        found = broker.look(order)
        if is_there:
            require_as_in_the_ledger(exchange, order, found)
            assert len(fills(found)) == 1
        else:
            assert found == (OrderAbsent(order.world_id, order.order_id, NOW_MS),)
        assert has(exchange, order) is is_there


def test_a_cancellation_after_a_part_tells_the_part_and_then_the_end(
    exchange: RunningExchange, broker: RealBroker
) -> None:
    exchange.leave_working()
    order = an_order("3")
    assert [type(one) for one in broker.place(order)] == [OrderAccepted]
    exchange.fill(order.order_id, Decimal("0.25"))
    exchange.fill(order.order_id, Decimal("1"))
    told = broker.cancel(order)
    require_as_in_the_ledger(exchange, order, told)
    assert [type(one) for one in told] == [OrderAccepted, Fill, Fill, OrderEnded]
    assert ends(told)[0].status is OrderStatus.CANCELED


def test_a_cancellation_without_an_answer_still_tells_what_has_become_of_the_order(
    exchange: RunningExchange, broker: RealBroker
) -> None:
    exchange.leave_working()
    order = an_order()
    broker.place(order)
    exchange.fault(Fault.TAKEN_CUT, at=CANCEL)
    assert [one.status for one in ends(broker.cancel(order))] == [OrderStatus.CANCELED]
    filled = an_order()
    broker.place(filled)
    exchange.fill(filled.order_id)
    assert ends(broker.cancel(filled)) == []
    assert len(fills(broker.look(filled))) == 1


@pytest.mark.parametrize("fault", [Fault.TRADES_LAG, Fault.TRADES_HOLE, Fault.UNAVAILABLE_503])
def test_no_end_is_told_before_all_executions_are(
    exchange: RunningExchange, broker: RealBroker, fault: Fault
) -> None:
    exchange.leave_working()
    order = an_order("3")
    broker.place(order)
    exchange.fill(order.order_id, Decimal(1))
    exchange.fill(order.order_id, Decimal("0.5"))
    exchange.fault(fault, 2, at=TRADES)
    early = [broker.cancel(order), broker.look(order)]
    assert all(not ends(told) and not fills(told) for told in early)
    told = broker.look(order)
    require_as_in_the_ledger(exchange, order, told)
    assert len(ends(told)) == 1


def test_an_order_is_sent_once_whatever_is_asked_of_it(exchange: RunningExchange, broker: RealBroker) -> None:
    exchange.leave_working()
    order = an_order()
    before = sent(exchange)
    exchange.fault(Fault.TAKEN_503)
    broker.place(order)
    for _ in range(3):
        broker.look(order)
        broker.cancel(order)
    assert sent(exchange) == before + 1


STEPS = st.lists(
    st.sampled_from(
        ["fill", "look", "cancel", "lag", "hole", "absent", "silence", "cut cancel", "end", "part"]
    ),
    max_size=10,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([None, Fault.TAKEN_CUT, Fault.TAKEN_GARBAGE]), STEPS)
def test_in_any_life_fills_are_told_under_the_same_numbers_and_nothing_after_the_end(
    exchange: RunningExchange, broker: RealBroker, at_first: Fault | None, steps: list[str]
) -> None:
    exchange.leave_working()
    order = an_order("3")
    if at_first:
        exchange.fault(at_first)
    answers = [broker.place(order)]
    is_open = True
    for step in steps:
        if step in ("fill", "part", "end") and not is_open:
            continue
        match step:
            case "fill":
                exchange.fill(order.order_id)
                is_open = False
            case "part":
                exchange.fill(order.order_id, Decimal("0.1"))
            case "end":
                exchange.end(order.order_id)
                is_open = False
            case "lag" | "hole":
                exchange.fault(f"trades_{step}")
            case "absent":
                exchange.fault(Fault.ABSENT)
            case "silence":
                exchange.fault(Fault.CUT, at="GET /api/v3/order")
            case "cut cancel":
                exchange.fault(Fault.TAKEN_CUT, at=CANCEL)
            case "look":
                answers.append(broker.look(order))
            case _:
                answers.append(broker.cancel(order))
                is_open = False
    exchange.no_more_faults()
    last = broker.look(order)
    require_as_in_the_ledger(exchange, order, last)
    for told in [*answers, last]:
        assert fills(told) == fills(last)[: len(fills(told))]
        for end in ends(told):
            assert [replace(end, detail="")] == [replace(one, detail="") for one in ends(last)]
            assert fills(told) == fills(last)
