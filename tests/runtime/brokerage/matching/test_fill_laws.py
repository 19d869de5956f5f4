"""Laws of fills, for every type of order, time in force and convention."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.market import Bar, Quote, Trade
from qmtl.foundation.contracts.trade import Order, OrderStatus, OrderTerms, OrderType, Side, TimeInForce
from qmtl.runtime.brokerage.fees.execution import Liquidity
from qmtl.runtime.brokerage.matching.match import Rules, match
from qmtl.runtime.brokerage.matching.model import Convention, FillModel, Session
from qmtl.runtime.brokerage.slippage import ConstantSlippage

T0 = 1_522_800_000_000
MINUTE = 60_000
TICK, LOT = Decimal("0.01"), Decimal("0.1")
LIMITED = (OrderType.LIMIT, OrderType.STOP_LIMIT, OrderType.LIMIT_IF_TOUCHED, OrderType.LIMIT_ON_OPEN)
TRAILING = (OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT)

prices = st.integers(9_000, 11_000).map(lambda ticks: Decimal(ticks).scaleb(-2))
sides = st.sampled_from(Side)
conventions = st.sampled_from(Convention)


@st.composite
def bars(draw: st.DrawFn, at_ms: int = T0) -> Bar:
    drawn = [draw(prices) for _ in range(4)]
    volume = Decimal(draw(st.integers(0, 400)))
    return Bar("X", at_ms, 60, drawn[0], max(drawn), min(drawn), drawn[3], volume)


def an_order(
    kind: OrderType,
    side: Side = Side.BUY,
    tif: TimeInForce = TimeInForce.GTC,
    quantity: Decimal = Decimal(10),
    terms: OrderTerms | None = None,
    created_at_ms: int = T0,
) -> Order:
    return Order(
        "w", "s", "o" * 32, "X", side, kind, tif, quantity, OrderStatus.NEW, Decimal(0), Decimal(0), 0,
        False, Decimal(100), created_at_ms, created_at_ms, created_at_ms, terms=terms,
    )  # fmt: skip


@st.composite
def orders(draw: st.DrawFn) -> Order:
    kind = draw(st.sampled_from(OrderType))
    terms = OrderTerms(
        limit_price=draw(prices) if kind in LIMITED or kind is OrderType.LIMIT_ON_CLOSE else None,
        stop_price=draw(prices) if "stop" in kind.value or "touched" in kind.value else None,
        trail_amount=Decimal(draw(st.integers(1, 300))).scaleb(-2) if kind in TRAILING else None,
        limit_offset=Decimal(draw(st.integers(0, 50))).scaleb(-2) if kind in TRAILING else None,
        expire_at_ms=T0 + draw(st.integers(1, 5)) * MINUTE // 2,
    )
    tif = draw(st.sampled_from(TimeInForce))
    created = T0 + draw(st.sampled_from((-MINUTE, -1, 0, 1, MINUTE // 2, MINUTE)))
    quantity = Decimal(draw(st.integers(1, 500))).scaleb(-1)
    return an_order(kind, draw(sides), tif, quantity, terms, created)


shares = st.none() | st.integers(1, 100).map(lambda parts: Decimal(parts).scaleb(-2))


@settings(max_examples=300, deadline=None)
@given(orders(), bars(), conventions, shares, shares, st.integers(0, 100), st.booleans())
def test_a_fill_keeps_its_limits(
    order: Order,
    bar: Bar,
    convention: Convention,
    cap: Decimal | None,
    share: Decimal | None,
    slip: int,
    rests: bool,
) -> None:
    model = FillModel(convention, participation=cap, order_share=share)
    session = Session(T0 - 10, T0 + MINUTE)
    rules = Rules(model, TICK, LOT, ConstantSlippage(Decimal(slip).scaleb(-3)), session)
    found = match(order, bar, rules, rests)
    filled = sum((one.quantity for one in found.executions), Decimal(0))
    assert filled <= order.quantity
    if cap is not None:
        assert filled <= bar.volume * cap
    terms = found.terms or OrderTerms()
    for one in found.executions:
        assert one.quantity > 0
        assert order.created_at_ms <= one.at_ms <= T0 + MINUTE
        if order.time_in_force is TimeInForce.GTD and order.terms is not None:
            assert one.at_ms <= (order.terms.expire_at_ms or 0)
        if one.liquidity is Liquidity.MAKER:
            assert one.slippage == 0
        if order.side is Side.BUY:
            assert terms.limit_price is None or one.price <= terms.limit_price
            assert one.price >= bar.low
        else:
            assert terms.limit_price is None or one.price >= terms.limit_price
            assert one.price + one.slippage <= bar.high
    if bar.open_time_ms + MINUTE <= order.created_at_ms:
        assert not found.executions
    elif order.time_in_force is TimeInForce.FOK:
        assert filled in (0, order.quantity)
    if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK) and found.executions:
        assert found.end is not None or filled == order.quantity
    if found.end is not None:
        assert filled < order.quantity


@settings(max_examples=150, deadline=None)
@given(sides, conventions, st.lists(bars(), min_size=1, max_size=8), st.booleans())
def test_a_trailing_stop_never_moves_back(
    side: Side, convention: Convention, path: list[Bar], is_rate: bool
) -> None:
    trail = OrderTerms(trail_rate=Decimal("0.03")) if is_rate else OrderTerms(trail_amount=Decimal(3))
    order = an_order(OrderType.TRAILING_STOP, side, terms=trail)
    rules = Rules(FillModel(convention), TICK, LOT)
    before: Decimal | None = None
    for at, bar in enumerate(path):
        found = match(order, replace(bar, open_time_ms=T0 + at * MINUTE), rules, rests=at > 0)
        stop = None if found.terms is None else found.terms.stop_price
        assert stop is not None
        assert before is None or (stop <= before if side is Side.BUY else stop >= before)
        if found.executions:
            break
        before, order = stop, replace(order, terms=found.terms)


@settings(max_examples=150, deadline=None)
@given(sides, prices, bars(), st.sampled_from([OrderType.STOP, OrderType.LIMIT]))
def test_the_points_of_a_bar_as_trades_never_give_a_better_price_than_its_way(
    side: Side, price: Decimal, bar: Bar, kind: OrderType
) -> None:
    terms = OrderTerms(limit_price=price) if kind is OrderType.LIMIT else OrderTerms(stop_price=price)
    order = an_order(kind, side, terms=terms)
    rules = Rules(FillModel(Convention.PATH), TICK, LOT)
    whole = match(order, bar, rules, rests=True).executions
    split = tuple(
        one
        for at, point in enumerate((bar.open, bar.high, bar.low, bar.close), 1)
        for one in match(order, Trade("X", T0 + at, point, bar.volume), rules, rests=True).executions
    )[:1]
    assert bool(whole) == bool(split)
    if whole:
        better = whole[0].price - split[0].price
        assert better <= 0 if side is Side.BUY else better >= 0


@given(sides, st.integers(-200, 200), bars())
def test_reduce_only_never_turns_a_position(side: Side, held: int, bar: Bar) -> None:
    position = Decimal(held).scaleb(-1)
    order = replace(an_order(OrderType.MARKET, side), reduce_only=True)
    found = match(order, bar, Rules(FillModel(), TICK, LOT), position=position)
    filled = sum((one.quantity for one in found.executions), Decimal(0))
    after = position + (filled if side is Side.BUY else -filled)
    assert after * position >= 0
    assert abs(after) <= abs(position)


def test_a_market_buy_pays_the_ask_and_no_more() -> None:
    quote = Quote("X", T0 + 1, Decimal(99), Decimal(101), Decimal(1), Decimal(1))
    for side, price in ((Side.BUY, Decimal(101)), (Side.SELL, Decimal(99))):
        (one,) = match(an_order(OrderType.MARKET, side), quote, Rules(FillModel(), TICK, LOT)).executions
        assert (one.price, one.liquidity) == (price, Liquidity.TAKER)


def a_bar(open_: str, high: str, low: str, close: str, minute: int = 0) -> Bar:
    numbers = [Decimal(one) for one in (open_, high, low, close, "100")]
    return Bar("X", T0 + minute * MINUTE, 60, *numbers)


def test_a_limit_that_crosses_at_once_takes_and_is_refused_where_it_is_post_only() -> None:
    rules, bar = Rules(FillModel(), TICK, LOT), a_bar("99", "102", "98", "101")
    order = an_order(OrderType.LIMIT, terms=OrderTerms(limit_price=Decimal(100)))
    assert [one.liquidity for one in match(order, bar, rules).executions] == [Liquidity.TAKER]
    assert [one.liquidity for one in match(order, bar, rules, rests=True).executions] == [Liquidity.MAKER]
    only = replace(order, terms=OrderTerms(limit_price=Decimal(100), post_only=True))
    assert match(only, bar, rules).end is OrderStatus.REJECTED
    assert match(only, bar, rules).executions == ()
    resting = match(only, a_bar("101", "102", "98", "101"), rules).executions
    assert [one.liquidity for one in resting] == [Liquidity.MAKER]


def test_a_stop_limit_remembers_that_it_was_triggered() -> None:
    rules = Rules(FillModel(), TICK, LOT)
    terms = OrderTerms(limit_price=Decimal("100.5"), stop_price=Decimal(100))
    order = an_order(OrderType.STOP_LIMIT, terms=terms)
    first = match(order, a_bar("101", "102", "101", "102"), rules)
    assert not first.executions
    assert first.terms == replace(terms, is_triggered=True)
    later = a_bar("99", "99.5", "98", "99", 1)  # below the stop all the time
    assert not match(order, later, rules, rests=True).executions
    (one,) = match(replace(order, terms=first.terms), later, rules, rests=True).executions
    assert one.price == 99


def test_a_day_order_ends_with_its_session_and_a_dated_one_at_its_instant() -> None:
    rules = Rules(FillModel(), TICK, LOT, session=Session(T0, T0 + 2 * MINUTE))
    terms = OrderTerms(limit_price=Decimal(90), expire_at_ms=T0 + 2 * MINUTE)
    for tif in (TimeInForce.DAY, TimeInForce.GTD):
        order = an_order(OrderType.LIMIT, tif=tif, terms=terms)
        assert match(order, a_bar("99", "99", "98", "98"), rules).end is None
        assert match(order, a_bar("99", "99", "98", "98", 1), rules).end is OrderStatus.EXPIRED
        late = match(order, a_bar("80", "80", "80", "80", 2), rules)
        assert (late.executions, late.end) == ((), OrderStatus.EXPIRED)


@pytest.mark.parametrize(
    ("kind", "terms"),
    [
        (OrderType.LIMIT, None),
        (OrderType.LIMIT, OrderTerms(limit_price=Decimal("NaN"))),
        (OrderType.LIMIT, OrderTerms(limit_price=Decimal(-1))),
        (OrderType.STOP, OrderTerms(limit_price=Decimal(1))),
        (OrderType.STOP_LIMIT, OrderTerms(stop_price=Decimal(1))),
        (OrderType.TRAILING_STOP, OrderTerms()),
        (OrderType.TRAILING_STOP, OrderTerms(trail_amount=Decimal(1), trail_rate=Decimal("0.1"))),
        (OrderType.TRAILING_STOP, OrderTerms(trail_rate=Decimal(1))),
        (OrderType.TRAILING_STOP_LIMIT, OrderTerms(trail_amount=Decimal(1))),
        (OrderType.MARKET, OrderTerms(post_only=True)),
    ],
)
def test_terms_that_a_type_does_not_allow_are_refused(kind: OrderType, terms: OrderTerms | None) -> None:
    with pytest.raises(InvalidValue):
        match(an_order(kind, terms=terms), a_bar("1", "1", "1", "1"), Rules(FillModel(), TICK, LOT))


@pytest.mark.parametrize("share", ["0", "-1", "1.1", "NaN", "Infinity"])
def test_a_model_with_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(InvalidValue):
        FillModel(participation=Decimal(share))
    with pytest.raises(InvalidValue):
        FillModel(order_share=Decimal(share))
