"""Limits: laws over drawn orders and fills, then each limit at its number and one step beyond."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import product as combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, InvariantBroken
from qmtl.foundation.contracts.trade import BrokerMode, Order, Side
from qmtl.runtime.risk.judging import Broken, Passed, judge
from qmtl.runtime.risk.limits import (
    ConcentrationLimit,
    DailyLossLimit,
    DrawdownLimit,
    LeverageLimit,
    NotionalLimit,
    OrderRateLimit,
    PositionLimit,
    PriceCollar,
    RiskLimit,
    RiskScope,
)
from qmtl.runtime.risk.state import (
    DAY_MS,
    Holding,
    Placed,
    RiskState,
    Worth,
    moved,
    opened,
    reduces,
    valued,
    with_open_orders,
    with_order,
)
from tests.runtime.risk.samples import PRICE, T0, a_state, an_order, holding

WORLD = RiskScope.WORLD
BUY, SELL = Side.BUY, Side.SELL

quantities = st.integers(1, 12).map(Decimal)
sides = st.sampled_from(Side)
open_orders = st.lists(st.tuples(sides, quantities), max_size=6)


def sign(side: Side) -> int:
    return 1 if side is BUY else -1


def reachable(held: Decimal, orders: Iterable[tuple[Side, Decimal]]) -> list[Decimal]:
    """Every position that whole fills of some of the orders lead to: counted out, not reasoned."""
    rows = list(orders)
    return [
        held + sum((sign(side) * quantity * taken for (side, quantity), taken in zip(rows, mask, strict=True)), Decimal(0))
        for mask in combinations((0, 1), repeat=len(rows))
    ]  # fmt: skip


# ---- laws ----------------------------------------------------------------------------------------------------


@given(held=st.integers(-20, 20).map(Decimal), orders=open_orders, side=sides, quantity=quantities)
def test_the_number_is_the_worst_that_any_fills_can_lead_to(
    held: Decimal, orders: list[tuple[Side, Decimal]], side: Side, quantity: Decimal
) -> None:
    book = with_open_orders(holding(held), [an_order(*one) for one in orders])
    order = an_order(side, quantity)
    if reduces(book, order):
        return
    found = judge([PositionLimit(Decimal("0.5"))], a_state(book), order)
    worst = max(abs(one) for one in reachable(held, [*orders, (side, quantity)]))
    assert found == Broken(PositionLimit(Decimal("0.5")), worst, Decimal("0.5"))


@given(held=st.integers(-20, 20).map(Decimal), orders=open_orders, side=sides, quantity=quantities)
def test_what_reduces_makes_the_position_smaller_whatever_fills_first(
    held: Decimal, orders: list[tuple[Side, Decimal]], side: Side, quantity: Decimal
) -> None:
    book = with_open_orders(holding(held), [an_order(*one) for one in orders])
    step = sign(side) * quantity
    same_side = [one for one in orders if one[0] is side]
    smaller = held * step < 0 and all(
        abs(at + step) < abs(at) and (at + step) * held >= 0 for at in reachable(held, same_side)
    )
    assert reduces(book, an_order(side, quantity)) is smaller


@given(
    held=st.integers(-20, 20).filter(bool).map(Decimal),
    equity=st.integers(-500, 500).map(Decimal),
)
def test_a_full_exit_passes_every_limit_of_exposure_and_loss(held: Decimal, equity: Decimal) -> None:
    tiny = Decimal("0.000001")
    limits: list[RiskLimit] = [
        rule
        for scope in RiskScope
        for rule in (
            PositionLimit(tiny, scope),
            NotionalLimit(tiny, scope),
            LeverageLimit(tiny, scope),
            ConcentrationLimit(tiny, scope),
            DailyLossLimit(tiny, scope),
            DrawdownLimit(tiny, scope),
        )
    ]
    lost = Worth(equity, Decimal(10_000), Decimal(10_000), T0)
    state = a_state(holding(held), world=lost, worths={"s": lost})
    side = SELL if held > 0 else BUY
    assert judge(limits, state, an_order(side, abs(held))) == Passed()
    assert isinstance(judge(limits, state, an_order(side, abs(held) + 1)), Broken)


@dataclass
class Books:
    """A market of its own: positions and open orders of several strategies, filled as is drawn."""

    positions: dict[tuple[str, str], Decimal] = field(default_factory=dict)
    waiting: list[Order] = field(default_factory=list)

    def state(self) -> RiskState:
        keys = sorted({*self.positions, *((one.strategy_id, one.symbol) for one in self.waiting)})
        rows = []
        for strategy_id, symbol in keys:
            mine = [one for one in self.waiting if (one.strategy_id, one.symbol) == (strategy_id, symbol)]
            held = self.positions.get((strategy_id, symbol), Decimal(0))
            rows.append(with_open_orders(Holding(strategy_id, symbol, held, PRICE), mine))
        equities = {name: opened(Decimal(1000), T0) for name in ("a", "b", "c")}
        return a_state(*rows, worths=equities, world=opened(Decimal(3000), T0))

    def fill(self, at: int, quantity: Decimal) -> None:
        order = self.waiting[at % len(self.waiting)]
        done = min(quantity, order.quantity - order.cum_quantity)
        key = (order.strategy_id, order.symbol)
        self.positions[key] = self.positions.get(key, Decimal(0)) + sign(order.side) * done
        after = replace(order, cum_quantity=order.cum_quantity + done)
        self.waiting.remove(order)
        if after.cum_quantity < after.quantity:
            self.waiting.append(after)


happenings = st.lists(
    st.tuples(
        st.sampled_from(["order", "order", "fill", "cancel"]),
        st.sampled_from("abc"),
        st.sampled_from("XY"),
        sides,
        quantities,
        st.integers(0, 9),
    ),
    max_size=40,
)


@settings(max_examples=150)
@given(happenings)
def test_there_is_never_more_exposure_than_a_limit(
    steps: list[tuple[str, str, str, Side, Decimal, int]],
) -> None:
    limits: list[RiskLimit] = [
        PositionLimit(Decimal(10)),
        PositionLimit(Decimal(14), WORLD, "X"),
        NotionalLimit(Decimal(1800), WORLD),
        LeverageLimit(Decimal("1.5")),
        LeverageLimit(Decimal("0.9"), WORLD),
        ConcentrationLimit(Decimal("0.9")),
    ]
    books = Books()
    for kind, strategy_id, symbol, side, quantity, at in steps:
        if kind == "order":
            order = an_order(side, quantity, strategy_id, symbol)
            if isinstance(judge(limits, books.state(), order), Passed):
                books.waiting.append(order)
        elif books.waiting and kind == "fill":
            books.fill(at, quantity)
        elif books.waiting:
            books.waiting.pop(at % len(books.waiting))
        held = {key: abs(value) for key, value in books.positions.items()}
        by_symbol = {name: sum((held[key] for key in held if key[1] == name), Decimal(0)) for name in "XY"}
        by_book = {name: sum((held[key] for key in held if key[0] == name), Decimal(0)) for name in "abc"}
        assert all(value <= 9 for value in held.values())  # a share of 0.9 of 1,000 at 100
        assert by_symbol["X"] <= 14
        assert by_symbol["Y"] <= 18
        assert all(value <= 15 for value in by_book.values())
        assert sum(by_book.values()) <= 27


# ---- tables --------------------------------------------------------------------------------------------------

OTHER = holding(-4, strategy_id="t")
FOUR = Decimal(4)


@pytest.mark.parametrize(
    ("limit", "passes", "number", "threshold"),
    [
        (PositionLimit(Decimal(10)), 5, 11, 10),
        (PositionLimit(Decimal(14), WORLD), 5, 15, 14),
        (PositionLimit(Decimal(10), symbol="X"), 5, 11, 10),
        (NotionalLimit(Decimal(1000)), 5, 1100, 1000),
        (NotionalLimit(Decimal(1400), WORLD), 5, 1500, 1400),
        (LeverageLimit(Decimal("0.13")), 5, 1400, 1300),
        (LeverageLimit(Decimal("0.085"), WORLD), 5, 1800, 1700),
        (ConcentrationLimit(Decimal("0.1")), 5, 1100, 1000),
        (ConcentrationLimit(Decimal("0.07"), WORLD), 5, 1500, 1400),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_limit_holds_at_its_number_and_breaks_beyond(
    limit: RiskLimit, passes: int, number: int, threshold: int
) -> None:
    """3 X and 3 Y held, 2 X being bought; the other strategy is short of 4 X."""
    state = a_state(holding(3, buying=2), holding(3, symbol="Y"), OTHER)
    assert judge([limit], state, an_order(BUY, passes)) == Passed()
    found = judge([limit], state, an_order(BUY, passes + 1))
    assert found == Broken(limit, Decimal(number), Decimal(threshold))


def test_a_limit_of_one_symbol_says_nothing_of_others() -> None:
    limits: list[RiskLimit] = [PositionLimit(Decimal(1), symbol="Y"), NotionalLimit(Decimal(1), symbol="Y")]
    assert judge(limits, a_state(), an_order(BUY, 50)) == Passed()


def test_the_dearer_price_counts() -> None:
    limit = NotionalLimit(Decimal(1000))
    dear = an_order(BUY, 10, price=Decimal(101))
    assert judge([limit], a_state(), dear) == Broken(limit, Decimal(1010), Decimal(1000))
    cheap = an_order(BUY, 10, price=Decimal(99))
    assert judge([limit], a_state(holding(0)), cheap) == Passed()
    assert judge([limit], a_state(holding(1)), cheap) == Broken(limit, Decimal(1100), Decimal(1000))


@pytest.mark.parametrize("limit", [LeverageLimit(Decimal(9)), ConcentrationLimit(Decimal(9))])
@pytest.mark.parametrize("equity", [0, -5])
def test_nothing_is_opened_without_equity(limit: RiskLimit, equity: int) -> None:
    found = judge([limit], a_state(equity=equity), an_order(BUY, 1))
    assert found == Broken(limit, Decimal(100), Decimal(0))


@pytest.mark.parametrize("scope", RiskScope)
def test_a_loss_stops_at_its_threshold(scope: RiskScope) -> None:
    limits: list[RiskLimit] = [DailyLossLimit(Decimal("0.05"), scope), DrawdownLimit(Decimal("0.10"), scope)]

    def judged(equity: int, day: int, peak: int) -> object:
        worth = Worth(Decimal(equity), Decimal(day), Decimal(peak), T0)
        fine = opened(Decimal(1), T0)
        per_strategy = scope is RiskScope.STRATEGY
        state = a_state(world=fine if per_strategy else worth, worths={"s": worth if per_strategy else fine})
        return judge(limits, state, an_order(BUY, 1))

    assert judged(951, 1000, 1000) == Passed()
    assert judged(950, 1000, 1000) == Broken(limits[0], Decimal(50), Decimal(50))
    assert judged(901, 901, 1000) == Passed()
    assert judged(900, 900, 1000) == Broken(limits[1], Decimal(100), Decimal(100))


def test_a_rate_counts_its_window_of_event_time() -> None:
    limit = OrderRateLimit(3, 60)
    late = T0 + 60_000

    def judged(*placed: Placed, scope: RiskScope = RiskScope.STRATEGY) -> object:
        rule = replace(limit, scope=scope)
        found = judge([rule], a_state(holding(5), placed=placed), an_order(SELL, 1, at_ms=late))
        return found.number if isinstance(found, Broken) else found

    assert judged(Placed("s", T0, 9), Placed("s", T0 + 1, 2)) == Passed()
    assert judged(Placed("s", T0 + 1, 3)) == FOUR  # an exit is an order as well
    assert judged(Placed("t", T0 + 1, 3)) == Passed()
    assert judged(Placed("t", T0 + 1, 3), scope=WORLD) == FOUR
    assert judged(Placed("s", late + 1, 9)) == Passed()


@pytest.mark.parametrize(
    ("order", "away"),
    [
        (an_order(BUY, 1, limit_price=Decimal(105)), None),
        (an_order(BUY, 1, limit_price=Decimal(106)), 6),
        (an_order(SELL, 1, limit_price=Decimal(94)), 6),  # an exit with a slip of the finger
        (an_order(BUY, 1, price=Decimal(106)), 6),
        (an_order(SELL, 1, price=Decimal(50)), None),  # leaves at the market
        (an_order(BUY, 1, symbol="Z", price=Decimal(7)), None),  # never traded yet
        (an_order(BUY, 1, "t", price=Decimal(106)), 6),  # the mark of what another strategy holds
    ],
)
def test_a_collar_keeps_prices_near_the_mark(order: Order, away: int | None) -> None:
    limit = PriceCollar(Decimal("0.05"))
    wanted = Passed() if away is None else Broken(limit, Decimal(away), Decimal(5))
    assert judge([limit], a_state(holding(5)), order) == wanted


def test_the_first_limit_that_is_broken_is_told() -> None:
    limits: list[RiskLimit] = [
        PositionLimit(Decimal(99)),
        NotionalLimit(Decimal(10)),
        PositionLimit(Decimal(1)),
    ]
    found = judge(limits, a_state(), an_order(BUY, 5))
    assert isinstance(found, Broken)
    assert found.limit is limits[1]
    assert judge([], a_state(), an_order(BUY, 10**9)) == Passed()


def test_an_order_that_was_placed_is_reserved_and_counted() -> None:
    state = with_order(a_state(holding(1)), an_order(BUY, 5, filled=Decimal(2)))
    assert state.holdings == (holding(1, buying=3),)
    assert state.placed == (Placed("s", T0, 1),)
    limit = PositionLimit(Decimal(4))
    assert judge([limit], state, an_order(BUY, 1)) == Broken(limit, Decimal(5), FOUR)


# ---- worth ---------------------------------------------------------------------------------------------------


def test_a_day_begins_with_what_the_one_before_has_left() -> None:
    book = valued(opened(Decimal(100), T0), Decimal(120), T0 + 60_000)
    assert book == Worth(Decimal(120), Decimal(100), Decimal(120), T0 + 60_000)
    assert valued(book, Decimal(90), T0 + DAY_MS - 1).day_equity == 100
    assert valued(book, Decimal(90), T0 + DAY_MS) == Worth(
        Decimal(90), Decimal(120), Decimal(120), T0 + DAY_MS
    )
    with pytest.raises(InvariantBroken, match="before"):
        valued(book, Decimal(90), T0)


def test_money_that_comes_in_is_no_gain() -> None:
    book = Worth(Decimal(90), Decimal(95), Decimal(100), T0)
    assert moved(book, Decimal(50)) == Worth(Decimal(140), Decimal(145), Decimal(150), T0)


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1", "NaN", "Infinity"])
@pytest.mark.parametrize(
    "rule",
    [
        PositionLimit,
        NotionalLimit,
        LeverageLimit,
        ConcentrationLimit,
        DailyLossLimit,
        DrawdownLimit,
        PriceCollar,
    ],
)
def test_a_limit_needs_a_number_above_zero(rule: type[PriceCollar], number: str) -> None:
    with pytest.raises(InvalidValue, match="above 0"):
        rule(Decimal(number))


@pytest.mark.parametrize("rule", [DailyLossLimit, DrawdownLimit, PriceCollar])
def test_a_share_of_what_there_is_is_at_most_one(rule: type[PriceCollar]) -> None:
    assert rule(Decimal(1)).share == 1
    with pytest.raises(InvalidValue, match="at most 1"):
        rule(Decimal("1.1"))


@pytest.mark.parametrize(("count", "window_s"), [(0, 60), (1, 0)])
def test_a_rate_needs_a_count_and_a_window(count: int, window_s: int) -> None:
    with pytest.raises(InvalidValue, match="at least 1"):
        OrderRateLimit(count, window_s)


def test_paper_and_live_are_not_mixed() -> None:
    order = an_order(BUY, 1, mode=BrokerMode.LIVE)
    with pytest.raises(InvariantBroken, match="live"):
        judge([PositionLimit(Decimal(1))], a_state(), order)


def test_a_strategy_without_a_book_is_not_judged_by_its_equity() -> None:
    with pytest.raises(InvariantBroken, match="no book"):
        judge([LeverageLimit(Decimal(1))], a_state(), an_order(BUY, 1, "unknown"))


def test_a_state_has_one_row_of_each() -> None:
    with pytest.raises(InvariantBroken, match="two holdings"):
        a_state(holding(1), holding(2))
    one = ("s", opened(Decimal(1), T0))
    with pytest.raises(InvariantBroken, match="two worths"):
        RiskState(BrokerMode.PAPER, one[1], (one, one))
