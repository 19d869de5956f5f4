"""The venue over ccxt against an exchange in a process of its own: sent once, exact, and a refusal only where it is proven."""

from __future__ import annotations

import logging
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import LibraryMissing, UsageError, VenueRefused, VenueUnanswered
from qmtl.foundation.common.money import product, round_places, total
from qmtl.foundation.contracts.trade import OrderStatus, Side
from qmtl.runtime.venues.ccxt_venue import CcxtVenue
from qmtl.runtime.venues.port import Venue
from qmtl.testing.exchange import Fault, RunningExchange, running_exchange
from tests.runtime.venues.rig import CANCEL, ONE_ORDER, SYMBOL, TRADES, an_order, has, quiet, sent

PRICE = Decimal(100)


@pytest.fixture(scope="module")
def process() -> Iterator[RunningExchange]:
    with running_exchange({SYMBOL: PRICE}) as exchange:
        yield exchange


@pytest.fixture
def exchange(process: RunningExchange) -> RunningExchange:
    quiet(process)
    return process


def opened(exchange: RunningExchange, timeout_s: float = 10.0, recv_window_ms: int = 5000) -> CcxtVenue:
    return CcxtVenue(
        "binance",
        exchange.key,
        exchange.secret,
        url=exchange.address,
        timeout_s=timeout_s,
        recv_window_ms=recv_window_ms,
        paced=False,
    )


@pytest.fixture(scope="module")
def connected(process: RunningExchange) -> Iterator[Venue]:
    venue = opened(process)
    venue.connect()
    yield venue
    venue.close()


@pytest.fixture
def venue(exchange: RunningExchange, connected: Venue) -> Venue:
    return connected


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.005)
    return True


# ---- what is sent arrives, and what is told is what happened --------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lots=st.integers(1, 9 * 10**17),
    ticks=st.integers(1, 10**16),
    side=st.sampled_from(Side),
    base_fee=st.booleans(),
)
def test_every_digit_of_a_quantity_and_a_price_arrives(
    exchange: RunningExchange, venue: Venue, lots: int, ticks: int, side: Side, base_fee: bool
) -> None:
    quantity, price = Decimal(lots).scaleb(-8), Decimal(ticks).scaleb(-8)
    exchange.price(SYMBOL, price)
    exchange.commission(Decimal("0.00075"), "base" if base_fee else "quote")
    order = an_order(quantity, side)
    told = venue.submit(order)
    (taken,) = (one for one in exchange.orders() if one.client_order_id == order.order_id)
    (given,) = (one for one in exchange.fills() if one.client_order_id == order.order_id)
    assert (taken.symbol, taken.side, taken.quantity) == (SYMBOL, side.value, quantity)
    (one,) = told.executions
    assert (one.trade_id, one.quantity, one.price, one.at_ms) == (
        str(given.trade_id),
        quantity,
        price,
        given.at_ms,
    )
    paid = quantity if base_fee else product(quantity, price)
    assert one.fee == round_places(product(round_places(paid, 16), Decimal("0.00075")), 8)
    assert one.fee_currency == ("BTC" if base_fee else "USDT")
    assert (told.status, told.filled, told.venue_order_id) == (
        OrderStatus.FILLED,
        quantity,
        str(taken.order_id),
    )
    assert venue.find(order) == told


@pytest.mark.parametrize(
    "quantity, rule",
    [
        ("0.0007856509959147719", "0.00001"),  # ccxt would send 0.00078: its own fixture of a "weird amount"
        ("0.000015", "0.00001"),
        ("0.00001", "0.0001"),
        ("100.00001", "100"),
        ("1e-20", "0.00001"),
        ("0", "0"),
        ("1e19", "10000000000000000000"),
    ],
)
def test_a_quantity_that_does_not_fit_is_refused_with_the_numbers_and_not_sent(
    exchange: RunningExchange, quantity: str, rule: str
) -> None:
    # The fixture: ccxt, ts/src/test/static/request/binance.json, "spot order with weird amount"; MIT licence.
    exchange.market(SYMBOL, PRICE, Decimal("0.0001"), Decimal(100), Decimal("0.00001"))
    venue = opened(exchange)
    venue.connect()
    before = sent(exchange)
    with pytest.raises(VenueRefused, match=rule):
        venue.submit(an_order(quantity))
    assert sent(exchange) == before
    assert venue.submit(an_order("0.00012")).status is OrderStatus.FILLED
    venue.close()


@pytest.mark.parametrize("pieces", [1, 3, 1001])
def test_all_executions_are_told_in_order_over_all_pages(
    exchange: RunningExchange, venue: Venue, pieces: int
) -> None:
    exchange.fill_at_once(pieces)
    order = an_order("2.00000001", Side.SELL)
    told = venue.submit(order)
    given = [one for one in exchange.fills() if one.client_order_id == order.order_id]
    assert len(given) == pieces
    assert [(one.trade_id, one.quantity, one.fee) for one in told.executions] == [
        (str(one.trade_id), one.quantity, one.commission) for one in given
    ]


def test_spot_orders_go_without_reduce_only(exchange: RunningExchange, venue: Venue) -> None:
    # The exchange refuses the parameter, as Binance does on the spot market.
    assert venue.submit(an_order(side=Side.SELL, reduce_only=True)).status is OrderStatus.FILLED


# ---- what goes wrong ------------------------------------------------------------------------------------------------

TAKEN = [
    Fault.TAKEN_CUT,
    Fault.TAKEN_503,
    Fault.TAKEN_GARBAGE,
    Fault.TAKEN_HALF,
    Fault.TAKEN_FIELD,
    Fault.TAKEN_SILENT,
]
NOT_TAKEN = [Fault.CUT, Fault.UNAVAILABLE_503, Fault.SILENT, Fault.UNKNOWN_CODE, Fault.REDIRECT_307]
REFUSED = [Fault.LIMIT_429, Fault.BAN_418, Fault.FIREWALL_403, Fault.NO_BALANCE]


@pytest.mark.parametrize("fault", [*TAKEN, *NOT_TAKEN, *REFUSED], ids=lambda one: one.value)
def test_an_order_is_refused_only_where_the_exchange_proves_it_and_is_never_sent_twice(
    exchange: RunningExchange, fault: Fault
) -> None:
    venue = opened(exchange, timeout_s=0.15 if fault in (Fault.SILENT, Fault.TAKEN_SILENT) else 5.0)
    venue.connect()
    order = an_order()
    before = sent(exchange)
    exchange.fault(fault)
    with pytest.raises(VenueRefused if fault in REFUSED else VenueUnanswered) as told:
        venue.submit(order)
    assert sent(exchange) == before + 1
    assert has(exchange, order) is (fault in TAKEN)
    found = venue.find(order)
    assert (found is not None) is (fault in TAKEN)
    assert "\n" not in str(told.value)
    assert len(told.value.what) < 320
    venue.close()


@pytest.mark.parametrize("fault", [*TAKEN[:-1], Fault.CUT, Fault.UNAVAILABLE_503, Fault.UNKNOWN_CODE])
def test_a_question_without_an_answer_that_counts_is_no_absence(
    exchange: RunningExchange, venue: Venue, fault: Fault
) -> None:
    order = an_order()
    venue.submit(order)
    for endpoint in (ONE_ORDER, TRADES):
        exchange.fault(fault, at=endpoint)
        with pytest.raises(VenueUnanswered):
            venue.find(order)
    exchange.fault(fault, at=CANCEL)
    if fault in (Fault.CUT, Fault.UNAVAILABLE_503, Fault.UNKNOWN_CODE):
        with pytest.raises(VenueUnanswered):
            venue.cancel(order)


def test_a_field_that_is_missing_is_named(exchange: RunningExchange, venue: Venue) -> None:
    order = an_order()
    exchange.fault(Fault.TAKEN_FIELD)
    with pytest.raises(VenueUnanswered, match="executedQty was None"):
        venue.submit(order)
    exchange.fault(Fault.TAKEN_FIELD, at=TRADES)
    with pytest.raises(VenueUnanswered, match="qty was None"):
        venue.find(order)


def test_an_order_that_was_sent_is_there_though_its_executions_are_not_told(
    exchange: RunningExchange, venue: Venue
) -> None:
    order = an_order()
    exchange.fault(Fault.UNAVAILABLE_503, at=TRADES)
    told = venue.submit(order)
    assert (told.status, told.filled, told.executions) == (OrderStatus.FILLED, order.quantity, ())
    found = venue.find(order)
    assert found is not None
    assert total(one.quantity for one in found.executions) == order.quantity


@pytest.mark.parametrize("fault", [Fault.TRADES_LAG, Fault.TRADES_HOLE])
def test_executions_of_which_one_is_still_missing_are_told_once_it_is_there(
    exchange: RunningExchange, venue: Venue, fault: Fault
) -> None:
    exchange.fill_at_once(3)
    order = an_order()
    exchange.fault(fault, 2)
    assert venue.submit(order).executions == ()
    found = venue.find(order)
    assert found is not None
    assert (found.filled, found.executions) == (order.quantity, ())
    found = venue.find(order)
    assert found is not None
    assert len(found.executions) == 3


@pytest.mark.parametrize("window_ms, is_taken", [(100, False), (5000, True)])
def test_a_request_that_waits_on_its_way_is_not_executed_once_its_time_is_over(
    exchange: RunningExchange, window_ms: int, is_taken: bool
) -> None:
    venue = opened(exchange, timeout_s=0.2, recv_window_ms=window_ms)
    venue.connect()
    order = an_order()
    exchange.fault(Fault.HELD)
    before = exchange.counts().decided
    with pytest.raises(VenueUnanswered):
        venue.submit(order)
    assert until(lambda: exchange.counts().decided > before)
    assert has(exchange, order) is is_taken
    venue.close()


def test_an_id_that_an_open_order_has_says_that_it_is_there(exchange: RunningExchange, venue: Venue) -> None:
    exchange.leave_working()
    order = an_order()
    assert venue.submit(order).status is OrderStatus.NEW
    with pytest.raises(VenueUnanswered, match="Duplicate"):
        venue.submit(order)
    found = venue.find(order)
    assert found is not None
    assert found.status is OrderStatus.NEW


def test_no_connection_at_all_proves_that_an_order_was_not_sent(tmp_path: Path) -> None:
    with running_exchange({SYMBOL: PRICE}, ledger=tmp_path / "ledger") as own:
        venue = opened(own)
        venue.connect()
        before = an_order()
        told = venue.submit(before)
        own.kill()
        order = an_order()
        with pytest.raises(VenueRefused, match="no answer"):
            venue.submit(order)
        with pytest.raises(VenueUnanswered):
            venue.find(order)
        with pytest.raises(VenueUnanswered):
            venue.connect()
        own.start()
        venue.connect()
        assert (venue.find(before), venue.find(order)) == (told, None)
        venue.close()


# ---- the life of an order -------------------------------------------------------------------------------------------


def test_an_order_is_found_as_it_is_through_its_life(exchange: RunningExchange, venue: Venue) -> None:
    exchange.leave_working()
    order = an_order("3")
    assert venue.find(order) is None
    assert venue.submit(order).status is OrderStatus.NEW
    exchange.fill(order.order_id, Decimal("0.5"), Decimal("99.5"))
    first = venue.find(order)
    assert first is not None
    assert (first.status, first.filled) == (
        OrderStatus.PARTIALLY_FILLED,
        Decimal("0.5"),
    )
    exchange.fill(order.order_id, Decimal(1), Decimal(101))
    venue.cancel(order)
    last = venue.find(order)
    assert last is not None
    assert (last.status, last.filled) == (OrderStatus.CANCELED, Decimal("1.5"))
    assert [one.price for one in last.executions] == [Decimal("99.5"), Decimal(101)]
    assert last.executions[: len(first.executions)] == first.executions
    venue.cancel(order)  # it is there no more, which is no error
    assert venue.find(order) == last


@pytest.mark.parametrize(
    "status, found_as", [("EXPIRED", OrderStatus.EXPIRED), ("REJECTED", OrderStatus.REJECTED)]
)
def test_what_the_exchange_has_ended_is_found_ended(
    exchange: RunningExchange, venue: Venue, status: str, found_as: OrderStatus
) -> None:
    exchange.leave_working()
    order = an_order()
    venue.submit(order)
    exchange.end(order.order_id, status)
    found = venue.find(order)
    assert found is not None
    assert found.status is found_as


def test_a_cancellation_of_what_was_never_there_is_no_error(exchange: RunningExchange, venue: Venue) -> None:
    venue.cancel(an_order())


def test_an_order_that_the_exchange_does_not_know_yet_is_absent(
    exchange: RunningExchange, venue: Venue
) -> None:
    order = an_order()
    venue.submit(order)
    exchange.fault(Fault.ABSENT)
    assert venue.find(order) is None
    assert venue.find(order) is not None


# ---- the connection -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key, secret", [("another", None), (None, "another"), ("", ""), ("a key", "ä")])
def test_keys_that_are_not_good_are_refused_when_connecting(
    exchange: RunningExchange, key: str | None, secret: str | None
) -> None:
    venue = CcxtVenue(
        "binance",
        exchange.key if key is None else key,
        exchange.secret if secret is None else secret,
        url=exchange.address,
        paced=False,
    )
    with pytest.raises(VenueRefused):
        venue.connect()
    with pytest.raises(VenueRefused, match="not connected"):
        venue.submit(an_order())


def test_an_account_that_may_not_trade_is_refused_when_connecting(exchange: RunningExchange) -> None:
    exchange.let_trade(False)
    with pytest.raises(VenueRefused, match="canTrade"):
        opened(exchange).connect()


@pytest.mark.parametrize("endpoint", ["GET /api/v3/exchangeInfo", "GET /api/v3/time", "GET /api/v3/account"])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.TAKEN_GARBAGE, Fault.UNAVAILABLE_503])
def test_what_does_not_answer_is_not_connected(
    exchange: RunningExchange, endpoint: str, fault: Fault
) -> None:
    venue = opened(exchange)
    exchange.fault(fault, at=endpoint)
    with pytest.raises(VenueUnanswered):
        venue.connect()
    with pytest.raises(VenueRefused, match="not connected"):
        venue.find(an_order())
    venue.connect()
    assert venue.find(an_order()) is None
    venue.close()


def test_a_venue_that_was_closed_is_connected_anew(exchange: RunningExchange) -> None:
    venue = opened(exchange)
    venue.close()
    venue.connect()
    order = an_order()
    told = venue.submit(order)
    venue.close()
    venue.close()
    with pytest.raises(VenueRefused, match="not connected"):
        venue.find(order)
    venue.connect()
    venue.connect()
    assert venue.find(order) == told
    venue.close()


def test_a_market_is_known_after_the_next_connection(exchange: RunningExchange, venue: Venue) -> None:
    order = replace(an_order(), symbol="NEW-USDT")
    exchange.price("NEW-USDT", Decimal(3))
    for ask in (venue.submit, venue.find, venue.cancel):
        with pytest.raises(VenueRefused, match="NEW-USDT"):
            ask(order)
    again = opened(exchange)
    again.connect()
    assert again.submit(order).executions[0].price == Decimal(3)
    again.close()


@pytest.mark.parametrize("skew_ms", [-40_000, 40_000])
def test_another_clock_is_no_hindrance(exchange: RunningExchange, skew_ms: int) -> None:
    exchange.clock(skew_ms)
    venue = opened(exchange)
    venue.connect()
    assert venue.submit(an_order()).status is OrderStatus.FILLED
    exchange.clock(-skew_ms)
    with pytest.raises(VenueRefused, match="-1021"):
        venue.submit(an_order())
    assert venue.submit(an_order()).status is OrderStatus.FILLED
    venue.close()


@pytest.mark.parametrize("order_id", ["", "ä" * 8, "a" * 37, "a b", "a&b=c"])
def test_an_id_that_the_exchange_would_not_take_is_refused_before(
    exchange: RunningExchange, venue: Venue, order_id: str
) -> None:
    before = sent(exchange)
    with pytest.raises(VenueRefused, match="order id"):
        venue.submit(replace(an_order(), order_id=order_id))
    assert sent(exchange) == before


def test_an_exchange_whose_answers_are_not_known_is_no_venue() -> None:
    with pytest.raises(UsageError, match="binance, binanceus"):
        CcxtVenue("kraken", "key", "secret")
    with pytest.raises(UsageError, match="recv_window_ms"):
        CcxtVenue("binance", "key", "secret", recv_window_ms=0)


def test_without_ccxt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ccxt", None)
    with pytest.raises(LibraryMissing, match="ccxt"):
        CcxtVenue("binance", "key", "secret")


# ---- secrets --------------------------------------------------------------------------------------------------------


def test_neither_key_nor_secret_are_told(exchange: RunningExchange, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    venue = opened(exchange)
    venue.connect()
    wrong = CcxtVenue("binance", exchange.key + "x", exchange.secret, url=exchange.address, paced=False)
    told = [repr(venue), str(venue), venue.name, repr(wrong)]

    def tried(ask: Callable[[], object]) -> None:
        with pytest.raises((VenueRefused, VenueUnanswered)) as found:
            ask()
        told.append("".join(traceback.format_exception(found.value)))

    tried(wrong.connect)
    for fault in (*TAKEN[:-1], *REFUSED, Fault.CUT, Fault.UNKNOWN_CODE):
        exchange.fault(fault)
        tried(lambda: venue.submit(an_order()))
    tried(lambda: venue.submit(an_order("0.000000001")))
    venue.close()
    tried(lambda: venue.submit(an_order()))
    told.append(caplog.text)
    for text in told:
        assert exchange.key not in text
        assert exchange.secret not in text
