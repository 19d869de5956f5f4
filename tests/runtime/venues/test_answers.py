"""What is read out of an answer: what is missing or wrong is named, and executions never change their places."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.money import total
from qmtl.foundation.contracts.trade import OrderStatus, Side
from qmtl.runtime.venues.answers import (
    ORDER_FIELDS,
    TRADE_FIELDS,
    Trade,
    WrongField,
    first_that_add_up,
    order_of,
    trade_of,
)
from qmtl.runtime.venues.port import Execution
from tests.runtime.venues.rig import an_order

ORDER = an_order("10", Side.SELL, order_id="6gCrw2kRUAF9CvJDGP16IP")
PAIR, MARKET_ID = "BTC/USDT", "BTCUSDT"

# Answers with the fields that Binance documents for GET /api/v3/order and GET /api/v3/myTrades, as ccxt is given them.
RAW_ORDER: Mapping[str, Any] = {
    "symbol": "BTCUSDT",
    "orderId": 28,
    "orderListId": -1,
    "clientOrderId": ORDER.order_id,
    "price": "0.00000000",
    "origQty": "10.00000000",
    "executedQty": "4.00000000",
    "cummulativeQuoteQty": "15996.00000000",
    "status": "PARTIALLY_FILLED",
    "timeInForce": "GTC",
    "type": "MARKET",
    "side": "SELL",
    "stopPrice": "0.00000000",
    "icebergQty": "0.00000000",
    "time": 1507725176595,
    "updateTime": 1507725176600,
    "isWorking": True,
    "workingTime": 1507725176595,
    "origQuoteOrderQty": "0.000000",
    "selfTradePreventionMode": "NONE",
}
RAW_TRADE: Mapping[str, Any] = {
    "symbol": "BTCUSDT",
    "id": 57,
    "orderId": 28,
    "orderListId": -1,
    "price": "3999.00000000",
    "qty": "4.00000000",
    "quoteQty": "15996.00000000",
    "commission": "15.99600000",
    "commissionAsset": "USDT",
    "time": 1507725176600,
    "isBuyer": False,
    "isMaker": False,
    "isBestMatch": True,
}


@cache
def client() -> Any:
    """ccxt with the one market, as the venue sets it up."""
    import ccxt

    found = ccxt.binance()
    found.number = str
    found.options.update(crossMarginPairsData=[], isolatedMarginPairsData=[])
    row = {
        "symbol": "BTCUSDT",
        "status": "TRADING",
        "baseAsset": "BTC",
        "quoteAsset": "USDT",
        "filters": [],
        "permissions": ["SPOT"],
    }
    found.set_markets([found.parse_market(row)])
    return found


def as_order(**changed: Any) -> Any:
    return client().parse_order({**deepcopy(RAW_ORDER), **changed}, client().market(PAIR))


def as_trade(**changed: Any) -> Any:
    return client().parse_trade({**deepcopy(RAW_TRADE), **changed}, client().market(PAIR))


@pytest.mark.parametrize(
    "word, filled, status",
    [
        ("NEW", "0.00000000", OrderStatus.NEW),
        ("PARTIALLY_FILLED", "4", OrderStatus.PARTIALLY_FILLED),
        ("FILLED", "10.000000000000", OrderStatus.FILLED),
        ("CANCELED", "0", OrderStatus.CANCELED),
        ("CANCELED", "4", OrderStatus.CANCELED),
        ("PENDING_CANCEL", "4", OrderStatus.PARTIALLY_FILLED),
        ("REJECTED", "0", OrderStatus.REJECTED),
        ("EXPIRED", "9.99999999", OrderStatus.EXPIRED),
        ("EXPIRED_IN_MATCH", "0", OrderStatus.EXPIRED),
    ],
)
def test_each_status_that_binance_documents_is_one_of_an_order(
    word: str, filled: str, status: OrderStatus
) -> None:
    told = order_of(as_order(status=word, executedQty=filled), ORDER, MARKET_ID)
    assert (told.venue_order_id, told.status, told.filled) == ("28", status, Decimal(filled))
    assert told.at_ms == 1507725176600


@pytest.mark.parametrize(
    "field, wrong",
    [
        *((field, None) for field in ORDER_FIELDS),
        ("clientOrderId", "another"),
        ("symbol", "ETHUSDT"),
        ("side", "BUY"),
        ("origQty", "10.00000001"),
        ("origQty", "1e400"),
        ("executedQty", "-1"),
        ("executedQty", "10.1"),
        ("executedQty", "1e9"),
        ("executedQty", "4" * 200),
        ("executedQty", "0." + "3" * 25),
        ("status", "PENDING_NEW"),
        ("status", "FILLED"),  # with 4 of 10
        ("status", "REJECTED"),
        ("updateTime", "soon"),
        ("updateTime", -1),
        ("updateTime", 10**16),
        ("orderId", "x" * 65),
    ],
)
def test_an_order_with_a_field_that_is_missing_or_wrong_is_no_answer(field: str, wrong: object) -> None:
    changed = {field: wrong, **({"time": wrong} if field == "updateTime" else {})}
    with pytest.raises(WrongField):
        order_of(as_order(**changed), ORDER, MARKET_ID)


@pytest.mark.parametrize(
    "field, wrong",
    [
        *((field, None) for field in TRADE_FIELDS),
        ("symbol", "ETHUSDT"),
        ("orderId", 29),
        ("isBuyer", True),
        ("qty", "0"),
        ("qty", "-4"),
        ("price", "0.0"),
        ("price", "Infinity"),
        ("commission", "much"),
        ("commissionAsset", "x" * 65),
        ("id", "one"),
        ("time", 0),
    ],
)
def test_a_trade_with_a_field_that_is_missing_or_wrong_is_no_answer(field: str, wrong: object) -> None:
    with pytest.raises(WrongField):
        trade_of(as_trade(**{field: wrong}), ORDER, MARKET_ID, "28")


@pytest.mark.parametrize(
    "commission, fee", [("0.00000000", "0"), ("-0.00000001", "-0.00000001"), ("15.996", "15.996")]
)
def test_a_trade_is_read_with_all_its_digits(commission: str, fee: str) -> None:
    told = trade_of(as_trade(commission=commission, commissionAsset="BNB"), ORDER, MARKET_ID, "28")
    assert told == Trade(57, Execution("57", Decimal(4), Decimal(3999), Decimal(fee), "BNB", 1507725176600))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.decimals().map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
FIELDS = (
    "id",
    "order",
    "clientOrderId",
    "symbol",
    "side",
    "amount",
    "price",
    "filled",
    "status",
    "fee",
    "info",
)


@given(
    st.sampled_from([*FIELDS, "timestamp", "lastUpdateTimestamp"]),
    anything,
)
def test_whatever_is_told_it_is_an_answer_or_a_wrong_field(field: str, value: object) -> None:
    for found, read in (
        (as_order(), lambda row: order_of(row, ORDER, MARKET_ID)),
        (as_trade(), lambda row: trade_of(row, ORDER, MARKET_ID, "28")),
    ):
        for row in ({**found, field: value}, value):
            with suppress(WrongField):
                read(row)


# ---- in which order executions are told -----------------------------------------------------------------------------

trades = st.lists(
    st.builds(lambda at_ms, lots: (at_ms, Decimal(lots).scaleb(-2)), st.integers(1, 4), st.integers(1, 300)),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        Trade(number, Execution(str(number), quantity, Decimal(1), Decimal(0), "USDT", at_ms))
        for number, (at_ms, quantity) in enumerate(sorted(rows), 1)
    ]
)


@given(trades, st.data())
def test_what_lags_behind_tells_a_beginning_that_adds_up_or_nothing(
    rows: list[Trade], data: st.DataObject
) -> None:
    """The last one is the truth; the list of trades and the order are each as of some time before."""
    filled_by = data.draw(st.integers(0, len(rows)))
    filled = total(one.execution.quantity for one in rows[:filled_by])
    seen_by = data.draw(st.integers(0, len(rows)))
    seen = data.draw(st.permutations([*rows[:seen_by], *rows[: data.draw(st.integers(0, seen_by))]]))
    told = first_that_add_up(seen, filled)
    whole = tuple(one.execution for one in rows)
    assert told == (whole[:filled_by] if seen_by >= filled_by else ())


@given(trades, st.data())
def test_a_hole_is_never_told_over(rows: list[Trade], data: st.DataObject) -> None:
    hole = data.draw(st.integers(0, len(rows) - 1))
    filled = total(one.execution.quantity for one in rows)
    assert first_that_add_up([one for at, one in enumerate(rows) if at != hole], filled) == ()


def test_one_number_for_two_executions_is_no_answer() -> None:
    one = Trade(1, Execution("1", Decimal(1), Decimal(1), Decimal(0), "USDT", 1))
    other = Trade(1, Execution("1", Decimal(2), Decimal(1), Decimal(0), "USDT", 1))
    assert first_that_add_up([one, one], Decimal(1)) == (one.execution,)
    with pytest.raises(WrongField, match="id"):
        first_that_add_up([one, other], Decimal(3))
