"""Buying power: laws over any account, then every row of the table of outside values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.buying_power import (
    CashPower,
    ContractMargin,
    ContractRequirement,
    DayTradingRequirement,
    LeverageRequirement,
    MarginPower,
    Shortage,
    Standing,
    UnlimitedPower,
    Wanted,
    When,
    is_margin_warning,
    margin_calls,
)
from qmtl.runtime.brokerage.buying_power.calls import MarginPosition

from .oracles import Table

TABLE = Table("buying_power")
D = Decimal
LOT = D("0.01")
cents = st.integers(1, 10**7).map(lambda n: D(n).scaleb(-2))
signed = st.integers(-(10**7), 10**7).map(lambda n: D(n).scaleb(-2))
rates = st.integers(0, 500).map(lambda n: D(n).scaleb(-4))
leverages = st.integers(1, 40).map(D)
NOW = When()


def order(side: Side, quantity: Decimal, price: Decimal, fee: Decimal = ZERO, **more: Any) -> Wanted:
    return Wanted(side, quantity, price, "BTC", "USD", fee, **more)


# ---- laws -----------------------------------------------------------------------------------------------------


@given(cents, cents, rates)
def test_the_largest_purchase_for_all_cash_is_affordable_and_one_lot_more_is_not(
    cash: Decimal, price: Decimal, rate: Decimal
) -> None:
    power, standing = CashPower(), Standing({"USD": cash})
    largest = power.largest(cash, ZERO, price, LOT, lambda quantity: quantity * price * rate)
    assert largest >= 0
    assert largest % LOT == 0
    for quantity, is_affordable in ((largest, True), (largest + LOT, False)):
        if quantity:
            wanted = order(Side.BUY, quantity, price, quantity * price * rate)
            assert (power.shortage(wanted, standing) is None) is is_affordable


@given(cents, cents, leverages, rates, st.sampled_from([-1, 1]), rates)
def test_the_largest_position_from_flat_is_affordable_and_one_lot_more_is_not(
    equity: Decimal, price: Decimal, leverage: Decimal, rate: Decimal, sign: int, free: Decimal
) -> None:
    power = MarginPower(LeverageRequirement(leverage), free)
    standing = Standing(equity=equity)
    found = power.largest(D(sign), standing, price, LOT, lambda quantity: quantity * price * rate)
    assert found * sign >= 0
    assert found % LOT == 0
    side = Side.BUY if sign > 0 else Side.SELL
    for quantity, is_affordable in ((abs(found), True), (abs(found) + LOT, False)):
        if quantity:
            wanted = order(side, quantity, price, quantity * price * rate)
            assert (power.shortage(wanted, standing) is None) is is_affordable


@given(signed, signed, cents, cents, leverages)
def test_what_only_reduces_is_always_allowed_on_margin(
    equity: Decimal, held: Decimal, quantity: Decimal, price: Decimal, leverage: Decimal
) -> None:
    assume(held)
    side = Side.SELL if held > 0 else Side.BUY
    power = MarginPower(LeverageRequirement(leverage))
    used = power.requirement.maintenance(held, price, NOW)
    standing = Standing(held=held, equity=equity, margin_used=used)
    closing = order(side, min(quantity, abs(held)), price)
    assert power.shortage(closing, standing) is None
    assert power.shortage(order(side, quantity, price, reduces=True), standing) is None


@given(signed, cents, signed, cents, cents, leverages, st.lists(st.tuples(cents, cents), max_size=4))
def test_a_deposit_never_takes_buying_power(
    equity: Decimal,
    deposit: Decimal,
    held: Decimal,
    quantity: Decimal,
    price: Decimal,
    leverage: Decimal,
    opened: list[tuple[Decimal, Decimal]],
) -> None:
    power = MarginPower(LeverageRequirement(leverage), D("0.05"))
    used = power.requirement.maintenance(held, price, NOW) if held else ZERO
    orders = tuple(order(Side.BUY, size, at) for size, at in opened)
    before = Standing({"USD": equity}, held, equity, used, orders)
    after = Standing({"USD": equity + deposit}, held, equity + deposit, used, orders)
    for side in Side:
        assert power.free(side, price, before) <= power.free(side, price, after)
    wanted = order(Side.BUY, quantity, price)
    for model in (power, CashPower()):
        if model.shortage(wanted, before) is None:
            assert model.shortage(wanted, after) is None


@given(cents, st.lists(st.tuples(st.sampled_from(Side), cents, cents), min_size=1, max_size=6))
def test_no_orders_that_were_let_through_can_spend_more_than_there_is(
    cash: Decimal, wishes: list[tuple[Side, Decimal, Decimal]]
) -> None:
    """Whatever of them is filled, at their limits: neither currency goes below 0."""
    power = CashPower()
    has = {"USD": cash, "BTC": cash}
    placed: tuple[Wanted, ...] = ()
    for side, quantity, price in wishes:
        wanted = order(side, quantity, price)
        if power.shortage(wanted, Standing(has, open_orders=placed)) is None:
            placed = (*placed, wanted)
    bought = sum((one.quantity * one.price for one in placed if one.side is Side.BUY), ZERO)
    sold = sum((one.quantity for one in placed if one.side is Side.SELL), ZERO)
    assert bought <= cash
    assert sold <= cash


@given(signed, cents, leverages)
def test_a_whole_reversal_is_affordable_where_nothing_remains(
    held: Decimal, price: Decimal, leverage: Decimal
) -> None:
    assume(held)
    power = MarginPower(LeverageRequirement(leverage))
    used = power.requirement.maintenance(held, price, NOW)
    standing = Standing(held=held, equity=used, margin_used=used)
    side = Side.SELL if held > 0 else Side.BUY
    beyond = abs(held) * 2 + LOT
    assert power.remaining(standing) == 0
    assert power.shortage(order(side, beyond, price), standing) is not None
    # Twice the rounded margin of the half may be a rounding away from the margin of the whole.
    assert power.shortage(order(side, abs(held) * 2 - LOT, price), standing) is None


@given(cents, cents, st.lists(cents, min_size=1, max_size=4))
def test_open_orders_use_margin_and_orders_that_reduce_use_none(
    equity: Decimal, price: Decimal, sizes: list[Decimal]
) -> None:
    power = MarginPower(LeverageRequirement(D(2)))
    opening = tuple(order(Side.BUY, size, price) for size in sizes)
    reducing = tuple(order(Side.BUY, size, price, reduces=True) for size in sizes)
    used = sum((size * price / 2 for size in sizes), ZERO)
    assert power.remaining(Standing(equity=equity, open_orders=opening)) == equity - used
    assert power.remaining(Standing(equity=equity, open_orders=reducing)) == equity


@given(st.lists(st.tuples(signed, cents, signed), min_size=1, max_size=5), signed, leverages)
def test_margin_calls_are_against_the_position_and_no_larger_than_it(
    held: list[tuple[Decimal, Decimal, Decimal]], equity: Decimal, leverage: Decimal
) -> None:
    requirement = LeverageRequirement(leverage)
    positions = [
        MarginPosition(f"s{at}", quantity, price, requirement, profit)
        for at, (quantity, price, profit) in enumerate(held)
        if quantity
    ]
    used = sum((requirement.maintenance(one.quantity, one.unit_value, NOW) for one in positions), ZERO)
    calls = margin_calls(positions, equity, NOW)
    by_symbol = {one.symbol: one for one in positions}
    assert bool(calls) == (used > equity and bool(positions))
    assert len({call.symbol for call in calls}) == len(calls)
    for call in calls:
        position = by_symbol[call.symbol]
        assert call.quantity * position.quantity < 0
        assert abs(call.quantity) <= abs(position.quantity)
    losses = [by_symbol[call.symbol].profit for call in calls]
    assert losses == sorted(losses)


def test_unlimited_power_affords_everything() -> None:
    assert UnlimitedPower().shortage(order(Side.BUY, D(10) ** 20, D(10) ** 9), Standing()) is None


def test_an_unknown_currency_is_one_of_which_there_is_nothing() -> None:
    wanted = Wanted(Side.BUY, D(1), D(10), "BTC", "XYZ")
    assert CashPower().shortage(wanted, Standing({"USD": D(100)})) == Shortage("XYZ", D(10), ZERO)


def test_negative_equity_opens_nothing_and_closes_all() -> None:
    power = MarginPower(LeverageRequirement(D(2)))
    standing = Standing(held=D(5), equity=D(-100), margin_used=D(25))
    assert power.shortage(order(Side.BUY, LOT, D(10)), standing) == Shortage("", D("0.05"), ZERO)
    assert power.shortage(order(Side.SELL, D(5), D(10)), standing) is None
    assert power.largest(D(1), standing, D(10), LOT) == -5


@pytest.mark.parametrize(
    "make",
    [
        lambda: order(Side.BUY, D("NaN"), D(1)),
        lambda: order(Side.BUY, D(1), D("Infinity")),
        lambda: order(Side.BUY, D(0), D(1)),
        lambda: order(Side.BUY, D(1), D(-1)),
        lambda: order(Side.BUY, D(1), D(1), D("NaN")),
        lambda: Wanted(Side.BUY, D(1), D(1), "", "USD"),
        lambda: Standing({"USD": D("NaN")}),
        lambda: Standing(equity=D("NaN")),
        lambda: LeverageRequirement(D("0.5")),
        lambda: LeverageRequirement(D(1), D(-1)),
        lambda: DayTradingRequirement(closing_ms=-1),
        lambda: MarginPower(free_share=D(1)),
        lambda: ContractRequirement(()),
        lambda: ContractRequirement((ContractMargin(5, D(1), D(1)), ContractMargin(5, D(1), D(1)))),
        lambda: ContractMargin(0, D(-1), D(1)),
        lambda: CashPower().largest(D(-1), ZERO, D(1), LOT),
        lambda: CashPower().largest(D(1), ZERO, ZERO, LOT),
        lambda: MarginPower().largest(D("NaN"), Standing(equity=D(1)), D(1), LOT),
        lambda: MarginPower().largest(D(1), Standing(equity=D(1)), D(1), ZERO),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.code == "QMTL-101"


# ---- outside values -------------------------------------------------------------------------------------------

COINBASE = D("0.008")
"""The taker fee of Lean's Coinbase model that its tests were written with: 20000 / (10000 * 1.008) is 1.98412698."""
SATOSHI = D("0.00000001")


def ratio(value: str) -> Decimal:
    top, _, bottom = value.partition("/")
    return D(top) / D(bottom) if bottom else D(top)


def first_number(value: str) -> Decimal:
    return D(value.split()[0].split("*")[0])


def in_account(row: dict[str, Any]) -> Decimal:
    """What one unit of quote currency is worth in the account's."""
    return D(row["account"].get("USDEUR", "1"))


def cash_fee(account: dict[str, Any]) -> Callable[[Decimal, Decimal], Decimal]:
    """The fee of a row, of quantity and price: a constant, one in another currency, none of a limit order without a market, else Coinbase's."""
    text = account.get("fee")
    if text is not None:
        amount, *rest = text.split()
        constant = D(amount) * (D(rest[2]) if len(rest) > 2 else 1)
        return lambda quantity, price: constant
    has_market = any(key in account for key in ("market_price", "ask", "fee_model"))
    return lambda quantity, price: quantity * price * (COINBASE if has_market else 0)


def cash_order(row: dict[str, Any], said: dict[str, Any], with_fee: bool = True) -> Wanted:
    account, quantity = row["account"], D(said["qty"])
    price = D(said.get("price") or said.get("stop") or account["market_price"])
    symbol = said.get("symbol") or "BTCUSD"
    is_market = said["type"] == "market" or "fee" in account
    fee = cash_fee(account)(abs(quantity), price) if with_fee and is_market else ZERO
    side = Side.BUY if quantity > 0 else Side.SELL
    return Wanted(side, abs(quantity), price, symbol[:3], symbol[3:], fee)


def cash_standing(row: dict[str, Any]) -> Standing:
    account = row["account"]
    cash = {key: D(value) for key, value in account.items() if re.fullmatch("USD|EUR|BTC|ETH", key)}
    opened = tuple(cash_order(row, one, with_fee=False) for one in account.get("open_orders", ()))
    for key, value in account.items():
        if key.startswith("available_") and not opened:
            cash[key[10:]] = D(value)
    return Standing(cash, open_orders=opened)


def check_cash(row: dict[str, Any]) -> None:
    account, said, expected = row["account"], row["order"], row["expected"]
    power, standing = CashPower(), cash_standing(row)
    for key, value in account.items():
        if key.startswith("available"):
            assert power.available(key[10:] or "USD", standing) == D(value)
    if "leverage" in expected:  # nothing is borrowed: all that is bought is paid
        assert power.shortage(order(Side.BUY, D(1), D(10)), Standing({"USD": D(10)})) is None
        assert power.shortage(order(Side.BUY, D(1), D(10)), Standing({"USD": D("9.99")})) is not None
        assert power.available("USD", Standing({"USD": D(10)}, held=D(1))) == 10
        return
    if "sufficient" in expected:
        assert (power.shortage(cash_order(row, said), standing) is None) is expected["sufficient"]
        return
    symbol = said.get("symbol") or "BTCUSD"
    price = D(account.get("ask") or account.get("market_price") or "1")
    held = standing.cash.get(symbol[:3], ZERO)
    if "target_value" in said:
        worth = first_number(said["target_value"]) * (D(15000) if "*" in said["target_value"] else 1)
        # BP029 sizes on the 1 BTC of the account, of which 0.2 is in open orders.
        held = D(account.get(symbol[:3], "0"))
    else:
        whole = (
            D(account["tpv"]) / D(account["USDEUR"]) if "tpv" in account else standing.cash.get("USD", ZERO)
        )
        worth = ratio(said["target_fraction"]) * whole
    fee = cash_fee(account)
    found = power.largest(worth, held, price, SATOSHI, lambda quantity: fee(quantity, price))
    assert found == D(expected["max_qty"])
    if "order_sufficient" in expected:
        wanted = Wanted(
            Side.BUY if found > 0 else Side.SELL,
            abs(found),
            price,
            symbol[:3],
            symbol[3:],
            fee(abs(found), price),
        )
        assert (power.shortage(wanted, standing) is None) is expected["order_sufficient"]


def margin_parts(row: dict[str, Any], free: str = "0") -> tuple[MarginPower, Standing, Decimal, Decimal]:
    """Power, account, value of a unit in account currency, fee in it."""
    account, conversion = row["account"], in_account(row)
    power = MarginPower(LeverageRequirement(D(account.get("leverage", "1"))), D(free))
    holding = account.get("holdings", {})
    held = D(holding.get("qty", "0"))
    price = D(account.get("price") or holding.get("price") or account.get("option_price") or "1")
    unit = price * D(account.get("multiplier", "1")) * conversion
    own, other = account.get("account_currency", "USD"), account.get("USD", "0")
    equity = D(account.get(own, "0")) + (D(other) * conversion if own != "USD" else 0) + held * unit
    used = power.requirement.maintenance(held, unit, NOW) if held else ZERO
    fee = account.get("fee", "0").split()
    charge = D(fee[0]) * (D(fee[3]) if len(fee) > 3 else conversion if len(fee) > 1 else 1)
    return power, Standing(held=held, equity=equity, margin_used=used), unit, charge


def wanted_of(quantity: Decimal, unit: Decimal, fee: Decimal) -> Wanted:
    return order(Side.BUY if quantity > 0 else Side.SELL, abs(quantity), unit, fee)


def check_margin(row: dict[str, Any], free: str = "0", buffer: str = "0.0025") -> None:
    said, expected = row["order"], row["expected"]
    power, standing, unit, fee = margin_parts(row, free)
    requirement = power.requirement
    if "margin_remaining" in expected:
        assert power.remaining(standing) == D(expected["margin_remaining"])
    if "margin_used" in expected:
        assert requirement.maintenance(standing.held, unit, NOW) == D(expected["margin_used"])
    if "reserved_buying_power" in expected:
        assert requirement.maintenance(standing.held, unit, NOW) == D(expected["reserved_buying_power"])
    for key in ("buying_power", "margin_remaining_for_direction"):
        if key in expected:
            assert power.free(Side[said["side"].upper()], unit, standing) == D(expected[key])
    if "order_qty" not in expected:
        return
    if "delta_buying_power" in said:
        found = power.delta(D(said["delta_buying_power"]), standing, unit, D(1), lambda _: fee)
    elif "max_for_target_fraction" in said:
        found = power.largest(D(said["max_for_target_fraction"]), standing, unit, D(1), lambda _: fee)
    else:
        leverage = D(row["account"].get("leverage", "1"))
        target = leverage if said["target"] == "leverage" else D(said["target"])
        found = power.largest(target / leverage, standing, unit, D(1), lambda _: fee, D(buffer))
    assert found == D(expected["order_qty"])
    if "sufficient" in expected:
        assert (power.shortage(wanted_of(found, unit, fee), standing) is None) is expected["sufficient"]
    if "sufficient_at_1_0025x" in expected:
        more = wanted_of(found * D("1.0025"), unit, fee)
        assert (power.shortage(more, standing) is None) is expected["sufficient_at_1_0025x"]


def portfolio_parts(row: dict[str, Any]) -> tuple[MarginPower, Standing, Decimal]:
    account = row["account"]
    power = MarginPower(LeverageRequirement(D(account.get("leverage", "2"))))
    if "holdings" in account:  # BP108: forex holdings have no value of their own, and use margin
        cash = D(1000) + D(1000) * D("1.1") - D(1000) * D(2)
        used = D(100 * 100) / 2 + D(1000) * D("1.1") / 100 + D(1000) * D(1) * D(2) / 100
        return power, Standing(held=D(100), equity=cash + 100 * 100, margin_used=used), D(100)
    start = D(account["start_cash"])
    if "bought" in account:
        held, at = D(account["bought"]["qty"]), D(account["bought"]["at"])
        price = D(account["price"])
    else:
        told = re.fullmatch(r"(long |short )?(-?\d+) at ([\d.]+)(?:, price ([\d.]+))?", account["position"])
        assert told is not None
        held, at = D(told[2]) * (-1 if told[1] == "short " else 1), D(told[3])
        price = D(told[4] or told[3])
    equity = start + held * (price - at)
    used = power.requirement.maintenance(held, price, NOW)
    return power, Standing(held=held, equity=equity, margin_used=used), price


def check_portfolio_margin(row: dict[str, Any]) -> None:
    said, expected = row["order"], row["expected"]
    power, standing, price = portfolio_parts(row)
    if "margin_remaining" in expected:
        assert power.remaining(standing) == D(expected["margin_remaining"])
        assert standing.margin_used == D(expected["margin_used"])
        assert standing.equity == D(expected["total_value"])
    if "sufficient" in expected:
        wanted = wanted_of(D(said["qty"]), D(said.get("price") or price), ZERO)
        assert (power.shortage(wanted, standing) is None) is expected["sufficient"]
    if expected.get("margin_call"):
        held = [MarginPosition("AAPL", standing.held, price, power.requirement)]
        (call,) = margin_calls(held, standing.equity, NOW)
        assert call.quantity == D(expected["call_qty"])


CLOSES_IN = {"12:00": 4 * 3_600_000, "15:49": 11 * 60_000, "15:50": 10 * 60_000}
"""Until 16:00, the end of the session in New York, of the times that the rows name."""


def check_day_trading(row: dict[str, Any]) -> None:
    account, expected = row["account"], row["expected"]
    words = account["when"]
    told = re.search(r"\d\d:\d\d", words)
    is_closed = re.search("closed|holiday|Sunday", words) is not None
    closes_in = None if is_closed else CLOSES_IN[told[0]] if told else CLOSES_IN["12:00"]
    when = When(closes_in_ms=closes_in)
    alternative = re.search(r"open leverage set to (\d)", words)
    opened = D(alternative[1] if alternative else account.get("open", "4"))
    requirement = DayTradingRequirement(opened, D(account.get("closed", "2")))
    if "leverage" in expected:
        assert requirement.leverage(when) == D(expected["leverage"])
    if "initial_margin" in expected:
        assert requirement.initial(D(100), D(100), when) == D(expected["initial_margin"])
    if "maintenance_margin" in expected:
        assert requirement.maintenance(D(100), D(100), when) == D(expected["maintenance_margin"])


def day_ms(day: str) -> int:
    return round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


EURODOLLAR = ContractRequirement(
    tuple(
        ContractMargin(
            day_ms(row["account"]["date"]),
            D(row["expected"]["initial_overnight"]),
            D(row["expected"]["maintenance_overnight"]),
        )
        for row in sorted(TABLE.rows.values(), key=lambda row: row["account"].get("date", ""))
        if "initial_overnight" in row["expected"]
    )
)


def check_future(row: dict[str, Any]) -> None:
    account, expected = row["account"], row["expected"]
    power = MarginPower(EURODOLLAR)
    if "initial_overnight" in expected:
        for late_ms in (0, 86_400_000 - 1):
            when = When(day_ms(account["date"]) + late_ms)
            assert EURODOLLAR.initial(D(-1), D(1), when) == D(expected["initial_overnight"])
            assert EURODOLLAR.maintenance(D(1), D(1), when) == D(expected["maintenance_overnight"])
    elif "order_margin" in expected:
        wanted = order(Side.BUY, D(account["qty"]), D(20), D("2.47") * D(account["qty"]))
        short = power.shortage(wanted, Standing())
        assert short is not None
        assert short.needed - EURODOLLAR.initial(D(account["qty"]), D(20), NOW) == D("24.70")
    elif "margin_used" in expected:
        used = {EURODOLLAR.maintenance(D(100), D(price), NOW) for price in (12, 20, 40)}
        assert len(used) == 1
    else:
        standing = Standing(equity=D(100_000))
        for sign in (1, -1):
            found = power.largest(D(sign), standing, D(20), D(1))
            assert power.shortage(wanted_of(found, D(20), ZERO), standing) is None
            assert power.shortage(wanted_of(found + sign, D(20), ZERO), standing) is not None


def check_crypto_future(row: dict[str, Any]) -> None:
    account, expected = row["account"], row["expected"]
    requirement = LeverageRequirement(D(account.get("leverage", "25")))
    if "initial_margin" in expected:  # in coin: a contract of 100 is worth 100 / price of it
        price, quantity = D(account["price"]), D(row["order"]["qty"])
        wanted = order(Side.BUY, quantity, price, multiplier=D(account["multiplier"]), conversion=1 / price)
        assert requirement.initial(wanted.quantity, wanted.unit_value, NOW) == D(expected["initial_margin"])
    elif "maintenance_margin" in expected:
        assert requirement.maintenance(D(10), D(1600), NOW) == D(expected["maintenance_margin"])
    else:  # collateral in another currency is none
        cash = {"BNFCR": D(account["BNFCR"])}
        assert CashPower().available("USDT", Standing(cash)) == D(expected["buying_power"])


def check_margin_call(row: dict[str, Any]) -> None:
    account = row["account"]
    requirement = LeverageRequirement(D(account["leverage"]))
    equity, price = D(account["total_value"]), D(account["price"])
    # 1000 bought at 1 with 250 of the account's own: at 0.5 the equity is -250.
    held = MarginPosition("SPY", D(1000), price, requirement)
    used = requirement.maintenance(held.quantity, price, NOW)
    assert is_margin_warning(equity, used) is row["expected"]["margin_warning"]
    assert len(margin_calls([held], equity, NOW)) == int(row["expected"]["margin_call_orders"])


def check_nautilus(row: dict[str, Any]) -> None:
    account, said, expected = row["account"], row["order"], row["expected"]
    rate, leverage = D(account["margin_rate"]), D(account["leverage"])
    if row["model"] == "nautilus_standard":
        leverage = D(1)
    if "x2" in row["model"]:
        rate *= 2
    requirement = LeverageRequirement(leverage, rate, rate)
    quantity, price = D(said["qty"]), D(said["price"])
    if "initial_margin" in expected:
        assert requirement.initial(quantity, price, NOW) == D(expected["initial_margin"])
    else:
        assert requirement.maintenance(quantity, price, NOW) == D(expected["maintenance_margin"])


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "cash": check_cash,
    "margin": check_margin,
    "margin_with_5pct_free": lambda row: check_margin(row, "0.05"),
    "option_default": check_margin,
    "portfolio_margin": check_portfolio_margin,
    "pattern_day_trading": check_day_trading,
    "future_margin": check_future,
    "crypto_future_margin": check_crypto_future,
    "margin_call": check_margin_call,
    "nautilus_standard": check_nautilus,
    "nautilus_leveraged": check_nautilus,
    "nautilus_custom x2 leveraged": check_nautilus,
}


@pytest.mark.parametrize("row_id", TABLE.run())
def test_row(row_id: str) -> None:
    row = TABLE.rows[row_id]
    CHECKS[row["model"]](row)


@pytest.mark.parametrize("row_id", TABLE.conventions())
def test_a_target_beyond_all_that_may_be_used_is_computed_and_not_affordable(row_id: str) -> None:
    said = TABLE.rows[row_id]["order"]["target"]
    power, standing = MarginPower(EURODOLLAR), Standing(equity=D(100_000))
    for target in said.split(" or "):
        found = power.largest(D(target), standing, D(20), D(1))
        assert found
        assert power.shortage(wanted_of(found, D(20), ZERO), standing) is not None


def test_no_row_is_passed_over() -> None:
    TABLE.assert_complete()
    assert len(TABLE.rows) == 119
