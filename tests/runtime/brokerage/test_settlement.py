"""Settlement: laws over any bookings, then every row of the table of outside values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.runtime.brokerage.settlement import (
    DailyPosition,
    DelayedSettlement,
    Funds,
    ImmediateSettlement,
    booked,
    filled,
    open_position,
    scanned,
    settled,
)

from .oracles import Table

TABLE = Table("settlement")
D = Decimal
NEW_YORK = ZoneInfo("America/New_York")
T3 = DelayedSettlement(3)
instants = st.integers(0, 4_000_000_000_000)
amounts = st.integers(-(10**9), 10**9).map(lambda n: D(n).scaleb(-4))
prices = st.integers(1, 10**6).map(lambda n: D(n).scaleb(-2))
sizes = st.integers(-50, 50).filter(bool).map(D)


def ms(text: str, zone: ZoneInfo = NEW_YORK) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp() * 1000)


# ---- laws -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["USD", "EUR"]), amounts, instants), max_size=12), instants)
def test_money_is_conserved_and_a_scan_twice_is_one(moves: list[tuple[str, Decimal, int]], now: int) -> None:
    funds = Funds()
    for currency, amount, at in moves:
        funds = booked(funds, currency, amount, at, T3)
    once = scanned(funds, now)
    assert scanned(once, now) == once
    for currency in ("USD", "EUR"):
        whole = sum((amount for of, amount, _ in moves if of == currency), D(0))
        for state in (funds, once):
            assert state.cash.get(currency, D(0)) + state.waiting(currency) == whole
    assert all(one.due_ms > now for one in once.unsettled)


@given(instants, st.integers(0, 5))
def test_proceeds_wait_for_so_many_business_days(at: int, days: int) -> None:
    """Counted by hand over the calendar: the local days after the fill up to the due day have so many weekdays."""
    due = DelayedSettlement(days).settles_at_ms(at)
    first = datetime.fromtimestamp(at / 1000, UTC).astimezone(NEW_YORK).date()
    last = datetime.fromtimestamp(due / 1000, UTC).astimezone(NEW_YORK).date()
    between = [first + timedelta(days=n + 1) for n in range((last - first).days)]
    assert due >= at
    assert sum(day.weekday() < 5 for day in between) == days
    if days:
        local = datetime.fromtimestamp(due / 1000, UTC).astimezone(NEW_YORK)
        assert (local.hour, local.minute) == (8, 0)
        assert last.weekday() < 5


@pytest.mark.parametrize(
    ("sold", "due"),
    [
        ("2024-03-07 15:59", "2024-03-08 08:00"),  # before the clocks change
        ("2024-03-08 12:00", "2024-03-11 08:00"),  # over the change to summer time
        ("2024-07-03 12:00", "2024-07-05 08:00"),  # over Independence Day
        ("2024-11-01 12:00", "2024-11-04 08:00"),  # over the change back
    ],
)
def test_over_weekends_holidays_and_the_change_of_clocks(sold: str, due: str) -> None:
    model = DelayedSettlement(1, holidays=frozenset({date(2024, 7, 4)}))
    assert model.settles_at_ms(ms(sold)) == ms(due)


@given(instants)
def test_the_null_case_waits_for_nothing(at: int) -> None:
    assert ImmediateSettlement().settles_at_ms(at) == at
    assert booked(Funds(), "USD", D(5), at, ImmediateSettlement()) == Funds({"USD": D(5)})


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("fill"), sizes, prices), st.tuples(st.just("settle"), st.just(D(0)), prices)
        ),
        min_size=1,
        max_size=14,
    ),
    prices,
)
def test_a_future_pays_its_profit_and_no_more(
    story: list[tuple[str, Decimal, Decimal]], last: Decimal
) -> None:
    """Against the cash of an account that pays each purchase in full: whatever was settled when, in the end it is the same."""
    position, paid, flow = open_position(D(0), D(1)), D(0), D(0)
    for day, (kind, quantity, price) in enumerate(story):
        if kind == "fill":
            position, cash = filled(position, quantity, price)
            flow -= quantity * price
        else:
            position, cash = settled(position, price, day)
        paid += cash
    assert paid + position.unsettled(last) == flow + position.quantity * last


@given(sizes, prices, prices)
def test_a_day_pays_once(quantity: Decimal, price: Decimal, close: Decimal) -> None:
    position, paid = settled(open_position(quantity, price), close, 7)
    assert paid == quantity * (close - price)
    assert settled(position, close * 2, 7) == (position, D(0))
    assert settled(position, close * 2, 6) == (position, D(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DelayedSettlement(-1),
        lambda: DelayedSettlement(31),
        lambda: DelayedSettlement(1, 1440),
        lambda: DelayedSettlement(1, zone="Nowhere/Town"),
        lambda: DelayedSettlement(1, zone="../etc/passwd"),
        lambda: booked(Funds(), "USD", D("NaN"), 0, T3),
        lambda: booked(Funds(), "", D(1), 0, T3),
        lambda: open_position(D("NaN"), D(1)),
        lambda: filled(open_position(D(1), D(1)), D(1), D("Infinity")),
        lambda: settled(open_position(D(1), D(1)), D("NaN"), 1),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue) as refused:
        make()
    assert refused.value.code == "QMTL-101"


# ---- outside values -------------------------------------------------------------------------------------------

THURSDAY = "2015-11-05"
WEEK = {"Thu": 0, "Fri": 1, "Sat": 2, "Sun": 3, "Mon": 4, "Tue": 5}


def weekly_instant(event: str) -> int:
    """Of the rows that begin on a Thursday: `Tue 07:55 scan`; a scan without a time is at noon."""
    day = datetime.fromisoformat(THURSDAY) + timedelta(days=WEEK[event[:3]])
    told = re.search(r"\d\d:\d\d", event)
    return ms(f"{day.date()} {told[0] if told else '12:00'}")


def check_weekly(rows: list[dict[str, Any]]) -> None:
    funds = Funds({"USD": D(3000)})
    for row in rows:
        if "proceeds" in row["event"]:
            at = weekly_instant("Thu 12:00")
            funds = booked(funds, "USD", D(1000), at, T3)
        elif "scan" in row["event"]:
            funds = scanned(funds, weekly_instant(row["event"]))
        assert_funds(funds, row)


ROUND_TRIP = {
    "Mon": "2015-10-26 11:30",
    "Tue": "2015-10-27 11:30",
    "Thu": "2015-10-29 11:30",
    "Fri": "2015-10-30 09:30",
}


def check_round_trip(rows: list[dict[str, Any]]) -> None:
    funds = Funds()
    for row in rows:
        event = row["event"]
        if event.startswith("start"):
            funds = Funds({"USD": D(event.split()[1])})
        else:
            at = ms(ROUND_TRIP[event[:3]])
            funds = scanned(funds, at)
            if told := re.search(r"(buy|sell) (\d+) at (\d+), fee (\d+)", event):
                value = D(told[2]) * D(told[3])
                funds = booked(funds, "USD", -value if told[1] == "buy" else value, at, T3)
                funds = booked(funds, "USD", -D(told[4]), at, T3)
        assert_funds(funds, row)


def check_account_currency(rows: list[dict[str, Any]]) -> None:
    """Who keeps one currency books what is received in another at its rate."""
    funds, rate = Funds(), D("1.1")
    for row in rows:
        event = row["event"]
        if event.startswith("start"):
            funds = Funds({"USD": D(event.split()[1])})
        else:
            funds = booked(funds, "USD", D(event.split()[0]) * rate, 0, ImmediateSettlement())
        assert_funds(funds, row)


def assert_funds(funds: Funds, row: dict[str, Any]) -> None:
    assert funds.cash["USD"] == D(row["expected"]["cash"])
    assert funds.waiting("USD") == D(row["expected"]["unsettled"])


def check_days(rows: list[dict[str, Any]]) -> None:
    position, price, day, paid = DailyPosition(D(0), D(0)), D(0), 1, D(0)
    for row in rows:
        event = row["event"]
        if told := re.fullmatch(r"hold (-?\d+) at (\d+), price (\d+)", event):
            position, price = open_position(D(told[1]), D(told[2]), day), D(told[3])
        elif told := re.fullmatch(r"price (\d+), same day scan", event):
            price = D(told[1])
        else:
            assert event == "next day scan"
            day += 1
        position, cash = settled(position, price, day)
        paid += cash
        assert paid == D(row["expected"]["cash_change_from_start"])
        assert position.settled == D(row["expected"]["settled_profit"])
        assert position.unsettled(price) == D(row["expected"]["unsettled_profit"])


def check_quantity_change(row: dict[str, Any]) -> None:
    said, expected = row["event"], row["expected"]
    position = open_position(D(said["hold"]), D(said["avg"]))
    position, paid = settled(position, D(said["settle_price"]), 1)
    assert position.settled == D(expected["settled_profit_after_settle"])
    position, cash = filled(position, D(said["fill_qty"]), D(said["then_fill_price"]))
    assert position.quantity == D(said["new_qty"])
    assert position.settled == D(expected["settled_profit_after_fill"])
    assert paid + cash == D(expected["cash_change_from_start"])


def check_story(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    if isinstance(first["event"], dict):
        for row in rows:
            check_quantity_change(row)
    elif first["model"] == "future_daily_settlement":
        check_days(rows)
    elif first["model"] == "account_currency_immediate":
        check_account_currency(rows)
    elif "round trip" in first["model"]:
        check_round_trip(rows)
    else:
        check_weekly(rows)


def story_of(row: dict[str, Any]) -> tuple[str, str]:
    return row["model"], row["sequence"]


STORIES = [
    list(rows)
    for _, rows in groupby(sorted(TABLE.rows.values(), key=lambda r: (*story_of(r), r["step"])), story_of)
]


@pytest.mark.parametrize("rows", STORIES, ids=lambda rows: rows[0]["id"])
def test_story(rows: list[dict[str, Any]]) -> None:
    check_story(rows)


def test_no_row_is_passed_over() -> None:
    TABLE.assert_complete()
    assert sorted(row["id"] for rows in STORIES for row in rows) == sorted(TABLE.run())
    assert len(TABLE.rows) == 53
