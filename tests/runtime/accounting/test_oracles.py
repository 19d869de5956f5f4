"""Every row of the table of outside values, step by step: Lean's and Nautilus's portfolios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from qmtl.foundation.common.money import magnitude, minus, plus, product, quotient, round_places, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.accounting.book import Book, Mark
from qmtl.runtime.accounting.facts import (
    OUTSIDE,
    Delivered,
    DividendPaid,
    Fact,
    Fee,
    Filled,
    Marked,
    Split,
    deposited,
)
from qmtl.runtime.accounting.fold import fold
from qmtl.runtime.accounting.instrument import Costing, Instrument, Settlement, Terms
from qmtl.runtime.accounting.position import Position
from qmtl.runtime.accounting.trips import Cycle, cycles, round_trips
from qmtl.runtime.accounting.valuation import Rates, Valuation, close_profit, imbalances, valued
from tests.runtime.brokerage.oracles import Table

TABLE = Table("portfolio")
D = Decimal
S = "X"
SCOPE = "strategy:one"
PAIRS = {"PF030": ("EUR", "USD"), "PF031": ("BTC", "USD"), "PF033": ("MCH", "JWB"), "PF079": ("", "USD")}
EXIT_FEE = {"PF015": D("215")}
ROUNDED = {"PF055", "PF059", "PF066", "PF067", "PF068", "PF069", "PF077"}
"""Rows whose numbers are themselves rounded; all others are met exactly."""


def instrument_of(row: dict[str, Any]) -> Instrument:
    title, start, id_ = row["title"], row["start"], row["id"]
    fills = [step["fill"] for step in row["steps"] if "fill" in step]
    size = D(start.get("multiplier") or (fills[0].get("multiplier") if fills else None) or "1")
    if id_ in PAIRS and PAIRS[id_][0]:
        base, quote = PAIRS[id_]
        return Instrument(S, quote, Settlement.EXCHANGED, base)
    if "inverse" in title:
        return Instrument(S, "ETH" if "ETH" in title else "BTC", Settlement.MARGINED, inverse=True)
    if title.startswith(("future", "cfd")):
        currency = "EUR" if "EUR_rate" in start else "USD"
        return Instrument(S, currency, Settlement.MARGINED, size=size)
    if title.startswith("crypto BTCEUR"):
        return Instrument(S, "EUR", Settlement.EXCHANGED, "BTC")
    if title.startswith("equity EUR"):
        return Instrument(S, "EUR")
    if any(fill.get("fee_currency") in ("BTC", "ETH") for fill in fills):
        base = next(fill["fee_currency"] for fill in fills if fill["fee_currency"] != "USDT")
        return Instrument(S, "USDT", Settlement.EXCHANGED, base)
    if "cash deltas" in title and id_ not in PAIRS:
        base, quote = row["steps"][0]["expected"]["cash_delta"]
        return Instrument(S, quote, Settlement.EXCHANGED, base)
    quotes = {fill["fee_currency"] for fill in fills if "fee_currency" in fill}
    return Instrument(S, quotes.pop() if quotes else "USD", size=size)


@dataclass
class Story:
    """A row as facts, told step by step."""

    row: dict[str, Any]
    account_currency: str
    facts: list[Fact] = field(default_factory=list)
    mark: Mark = field(default_factory=lambda: Mark(D(0)))

    def __post_init__(self) -> None:
        self.instrument = instrument_of(self.row)
        self.terms = Terms({S: self.instrument})
        start = self.row["start"]
        for asset in ("USD", "EUR", "BTC"):
            if D(start.get(asset) or "0"):
                self.facts.append(deposited(f"in {asset}", 0, SCOPE, asset, D(start[asset])))
        if D(start.get("cash") or "0"):
            self.facts.append(deposited("cash", 0, SCOPE, self.instrument.currency, D(start["cash"])))
        held = start.get("position")
        if held and "realised" not in start:
            quantity, price = D(held["qty"]), D(held["avg"])
            self.facts.append(Delivered("held", 0, OUTSIDE, SCOPE, S, quantity, price))
        if "realised" in start:  # bought, sold with the gain that the row begins with, and bought again
            gain = quotient(D(start["realised"]), D(held["qty"]), 0)
            fee = (Fee("USD", D(start["fees"])),)
            self.fill("buy", held["qty"], minus(D(held["avg"]), gain), fee)
            self.fill("sell", held["qty"], D(held["avg"]), ())
            self.fill("buy", held["qty"], D(held["avg"]), ())

    def fill(self, side: str, quantity: str, price: Decimal, fees: tuple[Fee, ...]) -> None:
        at = len(self.facts) + 1
        self.facts.append(Filled(self.order(), at, SCOPE, S, Side(side.upper()), D(quantity), price, fees))

    def order(self) -> str:
        return str(1 + sum(isinstance(fact, Filled) for fact in self.facts))

    def marked(self, price: Any) -> None:
        at = len(self.facts) + 1
        if isinstance(price, dict):
            self.mark = Mark(D(price["last"]), D(price["bid"]), D(price["ask"]))
        else:
            self.mark = Mark(D(price))
        self.facts.append(Marked(f"mark {at}", at, S, self.mark.price, self.mark.bid, self.mark.ask))

    def step(self, step: dict[str, Any]) -> None:
        for price in ([step["mark"]] if "mark" in step else []) + step.get("marks", []):
            self.marked(price)
        if "fill" in step:
            one = step["fill"]
            self.fill(one["side"], one["qty"], D(one["price"]), self.fees(one))
        match step.get("event", "").split():
            case ["split", "factor", "0.5"]:
                self.marked(self.row["start"]["price"])
                self.facts.append(Split("split", len(self.facts) + 1, S, 2, 1, D(1), D(1)))
            case ["dividend", amount, "in", "total"]:
                per_unit = quotient(D(amount), D(self.row["start"]["position"]["qty"]), 8)
                self.facts.append(DividendPaid("dividend", len(self.facts) + 1, S, per_unit))
            case []:
                pass
            case other:
                raise AssertionError(other)

    def fees(self, fill: dict[str, Any]) -> tuple[Fee, ...]:
        start = self.row["start"]
        if "commission_rate" in start:
            fee = product(product(D(fill["qty"]), D(fill["price"])), D(start["commission_rate"]))
            fee = round_places(fee, 2) if "rounding" in start else fee
            return (Fee(self.instrument.currency, fee),)
        if "fee_per_order" in start:
            return (Fee(self.instrument.currency, D(start["fee_per_order"])),)
        return (Fee(fill["fee_currency"], D(fill["fee"])),) if "fee" in fill else ()


@dataclass
class Seen:
    """What is asked of a story at a step."""

    story: Story
    book: Book

    @property
    def position(self) -> Position:
        return self.book.scope(SCOPE).position(S)

    @property
    def cycle(self) -> Cycle:
        return cycles(self.story.facts, self.story.terms, SCOPE, S)[-1]

    @property
    def rate(self) -> Decimal:
        start = self.story.row["start"]
        return D(start.get("EUR_rate") or start.get("EURUSD") or start.get("BTCUSD") or "1")

    @property
    def worth(self) -> Valuation:
        rates = {"EUR": self.rate, "BTC": self.rate}
        if self.story.account_currency == "ARG":
            rates["USD"] = D(1)
        return valued([self.book.scope(SCOPE)], self.story.terms, Rates(self.story.account_currency, rates))

    def exit_fee(self) -> Decimal:
        return quotient(EXIT_FEE.get(self.story.row["id"], D(1)), self.rate, 8)

    def cash(self, asset: str) -> Decimal:
        return self.book.scope(SCOPE).cash.get(asset, D(0))

    def trades(self) -> list[dict[str, Any]]:
        costing = Costing.LIFO if "LIFO" in str(self.story.row.get("convention")) else Costing.FIFO
        return [
            {
                "direction": "long" if trip.quantity > 0 else "short",
                "qty": magnitude(trip.quantity),
                "entry": trip.entry,
                "exit": trip.exit,
                "pnl": trip.profit,
                "fees": trip.fees,
                "mae": trip.mae,
                "mfe": trip.mfe,
                "orders": [int(trip.entry_id), int(trip.exit_id)],
            }
            for trip in round_trips(self.story.facts, self.story.terms, SCOPE, S, costing)
        ]


def in_account(amount: Decimal, seen: Seen) -> Decimal:
    return product(amount, seen.rate) if seen.story.instrument.currency == "EUR" else amount


def close(seen: Seen) -> Decimal:
    return close_profit(seen.position, seen.story.instrument, seen.story.mark, seen.exit_fee())


def unrealised(seen: Seen) -> Decimal:
    return seen.position.unrealised(seen.story.instrument)


def net(seen: Seen) -> Decimal:
    return seen.cycle.net(seen.story.instrument.currency)


FIGURES: dict[str, Callable[[Seen], Decimal]] = {
    "qty": lambda seen: seen.position.quantity,
    "abs_qty": lambda seen: magnitude(seen.position.quantity),
    "average_price": lambda seen: seen.position.average_price(seen.story.instrument),
    "price": lambda seen: seen.position.mark,
    "last_trade_profit": lambda seen: in_account(seen.position.last_realised, seen),
    "total_fees": lambda seen: seen.worth.fees,
    "net_profit": lambda seen: seen.worth.net,
    "total_net_profit": lambda seen: seen.worth.net,
    "total_profit": lambda seen: plus(seen.worth.realised, seen.worth.dividends),
    "holdings_cost_abs": lambda seen: in_account(magnitude(seen.position.cost), seen),
    "holdings_value_abs": lambda seen: seen.worth.exposure,
    "total_close_profit": lambda seen: in_account(close(seen), seen),
    "unrealised_profit": close,
    "total_sale_volume": lambda seen: seen.worth.turnover,
    "total_cash_value": lambda seen: seen.worth.cash,
    "total_value": lambda seen: seen.worth.equity,
    "cash": lambda seen: seen.cash(seen.story.instrument.currency),
    "EUR_cash": lambda seen: seen.cash("EUR"),
    "USD_cash": lambda seen: seen.cash("USD"),
    "BTC_cash": lambda seen: seen.cash("BTC"),
    "MCH_cash": lambda seen: seen.cash("MCH"),
    "JWB_cash": lambda seen: seen.cash("JWB"),
    "realised": net,
    "unrealised": unrealised,
    "total": lambda seen: plus(net(seen), unrealised(seen)),
    "commissions": lambda seen: total(fee.amount for fee in seen.cycle.fees),
    "notional": lambda seen: magnitude(seen.position.notional(seen.story.instrument)),
    "avg_open": lambda seen: seen.cycle.average_open,
    "avg_close": lambda seen: seen.cycle.average_close,
    "realised_return": lambda seen: seen.cycle.realised_return,
}


def assert_met(id_: str, name: str, said: Any, seen: Seen) -> None:
    if name == "trades":
        numbers = ("qty", "entry", "exit", "pnl", "fees", "mae", "mfe")
        wanted = [{key: D(one) if key in numbers else one for key, one in trade.items()} for trade in said]
        assert seen.trades() == wanted
        return
    if name == "cash_delta":
        held = seen.book.scope(SCOPE).cash
        assert held == {asset: D(amount) for asset, amount in said.items()}
        return
    expected = D(said.split()[0])
    found = FIGURES[name](seen)
    if id_ not in ROUNDED:
        assert found == expected, name
    elif name == "realised_return":
        assert float(found) == pytest.approx(float(expected), rel=1e-12)
    elif "(abs 0.01)" in said:
        assert magnitude(minus(found, expected)) <= D("0.01")
    else:
        places = max(0, -int(expected.as_tuple().exponent))
        assert round_places(found, min(places, 12)) == round_places(expected, min(places, 12)), name


@pytest.mark.parametrize("currency", ["USD", "ARG"])
@pytest.mark.parametrize("id_", TABLE.run())
def test_a_row_comes_out_as_it_says(id_: str, currency: str) -> None:
    """Lean runs some rows in two account currencies; rates are given, so no row may depend on their name."""
    row = TABLE.rows[id_]
    story = Story(row, currency)
    asked = 0
    for step in row["steps"]:
        story.step(step)
        seen = Seen(story, fold(story.facts, story.terms))
        assert not any(imbalances(seen.book.scope(SCOPE), story.terms).values())
        for name, said in step.get("expected", {}).items():
            assert_met(id_, name, said, seen)
            asked += 1
    assert asked


def test_no_row_is_passed_over() -> None:
    TABLE.assert_complete()
    assert len(TABLE.rows) == 68
