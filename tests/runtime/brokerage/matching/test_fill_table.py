"""What other systems assert of fills: every row of the table is run, or listed with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.market import Bar, Prices, Quotation, Quote, QuoteBar, Trade
from qmtl.foundation.contracts.trade import (
    Order,
    OrderStatus,
    OrderTerms,
    OrderType,
    Side,
    TimeInForce,
)
from qmtl.runtime.brokerage.matching.book import Depth, levels_of, taken
from qmtl.runtime.brokerage.matching.match import Rules, match, match_legs
from qmtl.runtime.brokerage.matching.model import Convention, FillModel, Session
from qmtl.runtime.brokerage.matching.path import path_of, quarters
from qmtl.runtime.brokerage.matching.result import Executed, Matched
from qmtl.runtime.brokerage.matching.view import bar_of, latest_price, price_of

ORACLES = Path(__file__).parents[3] / "oracles"
TABLE: list[dict[str, Any]] = json.loads((ORACLES / "fills.json").read_text())
DEVIATIONS: list[dict[str, str]] = json.loads((ORACLES / "deviations" / "fills.json").read_text())
LISTED = {one["id"] for one in DEVIATIONS}

DAY = 86_400_000
D = 20_000 * DAY
HOUR, MINUTE, SECOND = 3_600_000, 60_000, 1_000
SECONDS = {"tick": 0, "second": 1, "minute": 60, "1m": 60, "hour": 3600, "1h": 3600, "daily": 86_400}
TICK = Decimal("0.00000001")
TYPES = {
    "stop_market": OrderType.STOP,
    "trailing_stop_market": OrderType.TRAILING_STOP,
}
CONVENTIONS = {
    "lean_equity": Convention.EQUITY,
    "lean_immediate": Convention.IMMEDIATE,
    "lean_partial_half": Convention.IMMEDIATE,
    "lean_future": Convention.FUTURE,
    "nautilus_matching": Convention.PATH,
}


def clock(text: str, day: int = D) -> int:
    hours, minutes = text.split()[0].split(":")
    return day + int(hours) * HOUR + int(minutes) * MINUTE


def placed_at(row: Mapping[str, Any]) -> int:
    said = row["order"].get("submitted", "")
    if "bar start" in said:
        return D + 12 * HOUR + (-30 if "before" in said else 30) * MINUTE
    if said.startswith("day 1"):
        return D - DAY + 12 * HOUR
    if said.startswith("2015-06-03"):
        return clock(said.split()[1], D - DAY)
    if said:
        return clock(said.split()[-1])
    when = row["order"].get("when", "")
    if "midnight" in when:
        return D
    return D + 9 * HOUR + 30 * MINUTE + SECOND if "after the open" in when else D + 12 * HOUR


def before_ms(row: Mapping[str, Any], one: Mapping[str, Any], placed: int) -> int | None:
    """How long before the order the data ended; None where it comes after."""
    age = one.get("age", "")
    if "10 min before" in age:
        return 10 * MINUTE
    if "before submission" in age:
        return MINUTE
    if age == "at submission":
        return 0
    if age and age.split()[0].isdigit() and "after" not in age:
        amount, unit = age.split()[:2]
        return int(amount) * {"s": SECOND, "min": MINUTE, "h": HOUR}[unit]
    if "ends" in one:
        return placed - clock(one["ends"])
    if "closed_market" in row.get("tags", ()):
        return 0
    if "stale" in row.get("tags", ()):
        return 0 if row["order"]["type"] != "market" else 2 * HOUR
    return None


def start_of(row: Mapping[str, Any], one: Mapping[str, Any], interval: int, placed: int) -> int:
    """Where a bar starts, or when a tick was."""
    if "time" in one and ":" in one["time"]:
        at = clock(one["time"].split("-")[0])
        return at - 1000 * interval if one["time"] == "16:00" else at
    if "day" in one:
        return D if interval == 86_400 else D + 9 * HOUR + 30 * MINUTE
    if (age := before_ms(row, one, placed)) is not None:
        return placed - age - 1000 * interval
    if "bar start" in row["order"].get("submitted", ""):
        return D + 12 * HOUR
    later = {"t+0": SECOND, "t+1s": 2 * SECOND}.get(one.get("when", "").split(" ")[0], SECOND)
    return placed if interval else placed + later


def decimals(values: Sequence[str]) -> Prices:
    return Prices(*(Decimal(one) for one in values))


def quotations(row: Mapping[str, Any], placed: int) -> list[Quotation]:
    """The data of a row. A copy of the bar before is no data here: nothing is made where the market said nothing."""
    out: list[Quotation] = []
    trades: list[Trade] = []
    for one in row.get("data", ()):
        interval = SECONDS[one.get("resolution", "minute")]
        match one["kind"]:
            case "trade_bar":
                prices = decimals([one["o"], one["h"], one["l"], one["c"]])
                at = start_of(row, one, interval, placed)
                if interval:
                    out.append(
                        Bar(
                            "X",
                            at,
                            interval,
                            prices.open,
                            prices.high,
                            prices.low,
                            prices.close,
                            Decimal(one["v"]),
                        )
                    )
                else:
                    out.append(Trade("X", at, prices.close, Decimal(one["v"])))
            case "quote_bar":
                at = start_of(row, one, interval, placed)
                out.append(QuoteBar("X", at, interval, decimals(one["bid"]), decimals(one["ask"])))
            case "single_price":
                out.append(Trade("X", start_of(row, one, 0, placed), Decimal(one["price"]), Decimal(1)))
            case "tick" if "trade" in one:
                trades.append(Trade("X", start_of(row, one, 0, placed), Decimal(one["trade"]), Decimal(1)))
            case "tick":
                at = start_of(row, one, 0, placed)
                out.append(Quote("X", at, Decimal(one["bid"]), Decimal(one["ask"]), Decimal(1), Decimal(1)))
            case "fill_forward_copy_of_previous_bar":
                pass
            case other:
                raise AssertionError(other)
    if len(trades) > 1:
        bar = bar_of([replace(one, at_ms=placed + SECOND) for one in trades], 1)
        return [bar, *out]
    return [*trades, *out]


def decimal(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def an_order(row: Mapping[str, Any], said: Mapping[str, Any], placed: int) -> Order:
    kind = TYPES.get(said["type"]) or OrderType(said["type"])
    trail = decimal(said.get("trail"))
    is_rate = bool(said.get("trail_is_pct"))
    terms = OrderTerms(
        limit_price=decimal(said.get("limit")),
        stop_price=decimal(row.get("previous_stop") or said.get("stop") or said.get("trigger")),
        trail_rate=trail if is_rate else None,
        trail_amount=None if is_rate else trail,
        is_triggered=row.get("previous_state") in ("triggered", "touched"),
    )
    if "previous_state" not in row and kind is OrderType.LIMIT_IF_TOUCHED and row.get("step", 1) > 2:
        terms = replace(terms, is_triggered=True)
    return Order(
        "w", "s", "o" * 32, said.get("symbol", "X"), Side(said["side"].upper()), kind, TimeInForce.GTC,
        abs(Decimal(said.get("qty") or "100")), OrderStatus.NEW, Decimal(0), Decimal(0), 0, False, Decimal(100),
        placed, placed, placed, terms=terms,
    )  # fmt: skip


def rules_of(row: Mapping[str, Any]) -> Rules:
    known, stale_after = MINUTE, HOUR
    if row.get("stale_price_window") == "1h":
        known = HOUR
    if "message_contains" in row["expected"]:
        known, stale_after = 2 * HOUR, 30 * SECOND if row.get("stale_price_window") == "30s" else HOUR
    model = FillModel(
        convention=CONVENTIONS[row["model"]],
        order_share=Decimal("0.5") if row["model"] == "lean_partial_half" else None,
        extended_hours=bool(row.get("extended_hours")),
        quotes=row["order"]["type"] == "limit_if_touched" and row["model"] != "nautilus_matching",
        open_interval=3600,
        known_price_ms=known,
        stale_after_ms=stale_after,
    )
    day = Session(D + 9 * HOUR + 30 * MINUTE, D + 16 * HOUR)
    return Rules(model, TICK, TICK, session=day)


def run(order: Order, data: Sequence[Quotation], rules: Rules) -> tuple[tuple[Executed, ...], Matched]:
    """Look at the data one after another until something is filled."""
    found = Matched((), order.terms)
    for one in data:
        found = match(order, one, rules)
        if found.executions or found.end is not None:
            break
        order = replace(order, terms=found.terms)
    return found.executions, found


def answers(row: Mapping[str, Any]) -> bool:
    """Whether the code says what a row of Lean says."""
    said, expected = row["order"], row["expected"]
    placed = placed_at(row)
    order = an_order(row, said, placed)
    data = quotations(row, placed)
    if said["type"] == "market":
        data.sort(key=lambda one: not isinstance(one, Quote | QuoteBar))
    rules = rules_of(row)
    if row["model"] == "lean_partial_half" and row["step"] > 1:
        order = replace(order, cum_quantity=Decimal(50), last_seq=1, updated_at_ms=placed + SECOND)
    executions, found = run(order, data, rules)
    if "next_state" in row:
        terms = found.terms or OrderTerms()
        if terms.is_triggered != (row["next_state"] in ("triggered", "touched")):
            return False
    if "expected_stop_after" in row and (found.terms or OrderTerms()).stop_price != Decimal(
        row["expected_stop_after"]
    ):
        return False
    if "message_contains" in expected and not found.is_stale:
        return False
    if not expected["filled"]:
        return not executions and found.end is None
    if len(executions) != 1 or found.end is not None:
        return False
    (one,) = executions
    if expected["price"] is not None and one.price != Decimal(expected["price"]):
        return False
    if expected["status"] == "filled" and one.quantity + order.cum_quantity != order.quantity:
        return False
    return expected["qty"] is None or one.quantity == abs(Decimal(expected["qty"]))


def answers_lookup(row: Mapping[str, Any]) -> bool:
    known = quotations(row, placed_at(row))
    side = Side(row["order"]["side"].upper()) if row["order"].get("side") else None
    if row["model"] == "lean_latest_price":
        return latest_price(side or Side.BUY, known) == Decimal(row["expected"]["price"])
    return price_of(side, known) == Decimal(row["expected"]["price"])


def answers_combination(row: Mapping[str, Any]) -> bool:
    placed = D + 12 * HOUR
    legs: list[tuple[Order, Quotation]] = []
    for leg, one in zip(row["order"]["legs"], row["data"], strict=True):
        quantity = abs(Decimal(leg["ratio"]) * Decimal(row["order"]["group_qty"]))
        kind = "limit" if "limit" in leg else "market"
        said = {**leg, "type": kind, "side": row["order"]["side"], "qty": str(quantity)}
        (data,) = quotations({**row, "data": [one]}, placed)
        legs.append((an_order({}, said, placed), replace(data, symbol=leg["symbol"])))
    found = match_legs(legs, rules_of(row))
    expected = row["expected"]
    if not expected["filled"]:
        return found is None
    if found is None:
        return False
    for (order, _), one in zip(legs, found, strict=True):
        price = Decimal(expected["price"][order.symbol])
        if [each.price for each in one.executions] != [price]:
            return False
        if expected["qty"] and one.executions[0].quantity != abs(Decimal(expected["qty"][order.symbol])):
            return False
    return True


def a_quote(bid: str, ask: str, after: int) -> Quote:
    return Quote("X", D + 12 * HOUR + after, Decimal(bid), Decimal(ask), Decimal(1000), Decimal(1000))


def answers_quote(row: Mapping[str, Any]) -> bool:
    """Rows that name prices by their place: here the market is 99 to 101, and then comes to the limit."""
    said = dict(row["order"])
    is_buy = said["side"] == "buy"
    if "trailing" in said["type"]:
        said["trail"] = "5"
    if "touched" in said["type"]:
        said["trigger"] = "101.5" if is_buy else "98.5"
    elif said["type"] != "market":
        said["stop"] = "100"
    if said["type"] in ("stop_limit", "limit_if_touched"):
        said["limit"] = "100.5" if is_buy else "99.5"
    order = an_order({}, said, D + 12 * HOUR)
    if said["type"] == "trailing_stop_limit" and order.terms is not None:
        order = replace(order, terms=replace(order.terms, limit_offset=Decimal("0.5")))
    later = a_quote("99.1", "100.2", 2 * SECOND) if is_buy else a_quote("99.8", "100.9", 2 * SECOND)
    executions, _ = run(order, [a_quote("99", "101", SECOND), later], rules_of(row))
    price = {"best ask": Decimal(101), "best bid": Decimal(99)}.get(row["expected"]["price"])
    if price is None:
        price = Decimal("100.5" if is_buy else "99.5")
    return [one.price for one in executions] == [price] and executions[0].quantity == 100


def answers_path(row: Mapping[str, Any]) -> bool:
    (one,) = row["data"]
    if "volume" in one:
        wanted = [(25, 25, 25, 25), (25, 25, 25, 27), (1, 1, 1, 0)]
        found = [quarters(Decimal(volume), Decimal(1)) for volume in (100, 102, 3)]
        return found == [tuple(Decimal(each) for each in one) for one in wanted]
    to_high = "closer to high" in one.get("note", "")
    prices = Prices(Decimal(13 if to_high else 11), Decimal(14), Decimal(10), Decimal(12))
    names = {prices.open: "O", prices.high: "H", prices.low: "L", prices.close: "C"}
    points = path_of(prices, one["adaptive"])
    return bool("-".join(names[each] for each in points) == row["expected"]["path"])


def answers_matching(row: Mapping[str, Any]) -> bool:
    """Nautilus' rows of bars and trades."""
    (one,) = row["data"]
    placed = D + 12 * HOUR
    order = an_order(row, row["order"], placed)
    rules = rules_of(row)
    rules = replace(rules, model=replace(rules.model, participation=Decimal(1)))
    for size in (40, 100, 400):
        if one["kind"] == "trade":
            data: Quotation = Trade("X", placed + SECOND, Decimal(one["price"]), Decimal(size))
            quantity = Decimal(min(size, 100))
        else:
            first, low = Decimal(one["o"]), Decimal(one.get("l", one["o"]))
            data = Bar("X", placed, 60, first, first, low, low, Decimal(10_000))
            quantity = Decimal(100)
        found = match(order, data, rules, rests=True).executions
        if not row["expected"]["filled"]:
            if found:
                return False
        elif [(each.price, each.quantity) for each in found] != [
            (Decimal(row["expected"]["price"]), quantity)
        ]:
            return False
    return True


def answers_book(row: Mapping[str, Any]) -> bool:
    names = {
        "nautilus_best_price": Depth.BEST_PRICE,
        "nautilus_one_tick_slippage": Depth.ONE_TICK,
        "nautilus_two_tier": Depth.TWO_TIER,
        "nautilus_three_tier": Depth.THREE_TIER,
    }
    depth, expected, tick = names[row["model"]], row["expected"], Decimal("0.00001")
    quote = Quote("X", D, Decimal("1.00000"), Decimal("1.00010"), Decimal(1), Decimal(1))
    if "levels" in expected:
        wanted = [
            (Decimal("1.00010") + at * tick, Decimal(one[1])) for at, one in enumerate(expected["levels"])
        ]
        return list(taken(levels_of(depth, Side.BUY, quote, tick), Decimal(row["order"]["qty"]))) == wanted
    book = expected["simulated_book"]
    limit = decimal(row["order"].get("limit"))
    if book is None:
        return levels_of(depth, Side(row["order"]["side"].upper()), quote, tick, limit) == ()
    if "bids" in book:
        return all(
            [[Decimal(p), Decimal(s)] for p, s in book[name]]
            == [list(one) for one in levels_of(depth, side, quote, tick)]
            for name, side in (("bids", Side.SELL), ("asks", Side.BUY))
        )
    name, side = ("best_ask", Side.BUY) if "best_ask" in book else ("best_bid", Side.SELL)
    return levels_of(depth, side, quote, tick, limit)[0][0] == Decimal(book[name])


def is_answered(row: Mapping[str, Any]) -> bool:
    kind, data = row["order"]["type"], row.get("data") or []
    if row["model"].startswith("nautilus_") and row["model"] != "nautilus_matching":
        return answers_book(row)
    if kind == "any":
        return answers_path(row)
    if kind == "price_lookup":
        return answers_lookup(row)
    if kind.startswith("combo"):
        return answers_combination(row)
    if row["model"] == "nautilus_matching":
        return answers_quote(row) if data[0]["kind"] == "L1 quote" else answers_matching(row)
    return answers(row)


@pytest.mark.parametrize("row", [pytest.param(one, id=one["id"]) for one in TABLE if one["id"] not in LISTED])
def test_a_row_of_the_table_is_answered_as_it_says(row: dict[str, Any]) -> None:
    assert is_answered(row)


def test_every_row_is_run_or_listed_with_a_reason_and_a_listed_convention_answers_otherwise() -> None:
    by_id = {one["id"]: one for one in TABLE}
    assert len(by_id) == len(TABLE) == 208
    assert len(LISTED) == len(DEVIATIONS)
    assert set(by_id) >= LISTED
    for one in DEVIATIONS:
        assert one["kind"] in ("convention", "out of scope")
        assert one["reason"]
        if one["kind"] == "convention":
            assert not is_answered(by_id[one["id"]])
