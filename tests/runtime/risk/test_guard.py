"""The guard: what trips it, what it lets through, and what releases it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, InvariantBroken
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, Side
from qmtl.runtime.risk.guard import (
    Guard,
    GuardState,
    OnPositions,
    Reduction,
    TripPolicy,
    permits,
    reductions,
    released,
    tripped,
)
from qmtl.runtime.risk.limits import DailyLossLimit, DrawdownLimit, RiskScope
from qmtl.runtime.risk.quality import (
    Execution,
    ExecutionQuality,
    after_acceptance,
    after_fill,
    after_rejection,
    execution_of,
)
from qmtl.runtime.risk.state import Holding, RiskState, Worth, opened, with_open_orders
from qmtl.runtime.risk.trips import (
    ConsecutiveRejections,
    SlippageSurge,
    Trip,
    TripCause,
    check,
    longest_window,
)
from tests.runtime.risk.samples import PRICE, T0, a_state, an_order, holding

BUY, SELL = Side.BUY, Side.SELL
CALM = ExecutionQuality()
REJECTED = ExecutionQuality(rejected_in_row=3)
RULES = (ConsecutiveRejections(3),)


def a_trip(state: RiskState | None = None, at_ms: int = T0) -> Trip:
    found = check(RULES, state or a_state(), REJECTED, at_ms)
    assert found is not None
    return found


def a_fill(order: Order, price: Decimal | int, quantity: Decimal | int = 1) -> Fill:
    return Fill(
        "w", order.strategy_id, order.order_id, 1, order.symbol, order.side, Decimal(quantity), Decimal(price),
        Decimal(0), "USD", Decimal(0), T0,
    )  # fmt: skip


def sign(side: Side) -> int:
    return 1 if side is BUY else -1


# ---- laws ----------------------------------------------------------------------------------------------------

STRATEGIES = tuple(f"s{number:02}" for number in range(50))

quantities = st.integers(1, 9).map(Decimal)
sides = st.sampled_from(Side)
books = st.lists(st.integers(-9, 9).map(Decimal), min_size=50, max_size=50)
happenings = st.lists(
    st.tuples(
        st.sampled_from(["order", "order", "late fill", "reopened"]),
        st.sampled_from(STRATEGIES),
        sides,
        quantities,
    ),
    min_size=20,
    max_size=80,
)
before_the_trip = st.lists(st.tuples(st.sampled_from(STRATEGIES), sides, quantities), max_size=30)


@dataclass
class World:
    """Fifty strategies of one world: what they hold and what is open, kept apart from what is tested."""

    held: dict[str, Decimal]
    waiting: list[Order] = field(default_factory=list)
    record: list[Trip | tuple[str, str, int]] = field(default_factory=list)

    def state(self) -> RiskState:
        return a_state(
            *(
                with_open_orders(
                    Holding(name, "X", held, PRICE),
                    [one for one in self.waiting if one.strategy_id == name],
                )
                for name, held in self.held.items()
            )
        )

    def guard(self) -> Guard:
        """As a task that begins with nothing but the record has it."""
        guard = Guard("w")
        for one in self.record:
            if isinstance(one, Trip):
                guard = tripped(guard, one)
            else:
                guard = released(guard, *one, a_state(), CALM).guard
        return guard

    def fill(self, order: Order, quantity: Decimal) -> None:
        done = min(quantity, order.quantity - order.cum_quantity)
        self.held[order.strategy_id] += sign(order.side) * done
        self.waiting.remove(order)
        if order.cum_quantity + done < order.quantity:
            self.waiting.append(replace(order, cum_quantity=order.cum_quantity + done))


@settings(max_examples=40, deadline=None)
@given(books, before_the_trip, happenings)
def test_after_a_trip_no_order_of_fifty_strategies_raises_exposure(
    held: Sequence[Decimal],
    before: Sequence[tuple[str, Side, Decimal]],
    after: Sequence[tuple[str, str, Side, Decimal]],
) -> None:
    world = World(dict(zip(STRATEGIES, held, strict=True)))
    world.waiting = [an_order(side, quantity, name) for name, side, quantity in before]
    world.record.append(a_trip(world.state()))
    guard = world.guard()
    bought = {name: sum((one.quantity for one in world.waiting if one.strategy_id == name and one.side is BUY), Decimal(0)) for name in STRATEGIES}  # fmt: skip
    sold = {name: sum((one.quantity for one in world.waiting if one.strategy_id == name and one.side is SELL), Decimal(0)) for name in STRATEGIES}  # fmt: skip
    most = {name: max(world.held[name] + bought[name], Decimal(0)) for name in STRATEGIES}
    least = {name: min(world.held[name] - sold[name], Decimal(0)) for name in STRATEGIES}
    for kind, name, side, quantity in after:
        if kind == "order":
            order = an_order(side, quantity, name)
            if permits(guard, world.state(), order):
                assert sign(side) * world.held[name] < 0
                assert quantity <= abs(world.held[name])
                world.waiting.append(order)
        elif kind == "reopened":
            guard = world.guard()
            assert guard.state is GuardState.TRIP
        elif mine := [one for one in world.waiting if one.strategy_id == name]:
            world.fill(mine[0], quantity)
        assert least[name] <= world.held[name] <= most[name]  # only what was open at the trip can add


@given(
    held=st.lists(st.integers(-9, 9).map(Decimal), min_size=3, max_size=3),
    waiting=st.lists(st.tuples(st.sampled_from(STRATEGIES[:3]), sides, quantities), max_size=6),
    how=st.sampled_from(OnPositions),
    share=st.sampled_from([Decimal("0.1"), Decimal("0.5"), Decimal(1)]),
)
def test_what_a_trip_takes_off_is_let_through_and_never_goes_through_flat(
    held: list[Decimal], waiting: list[tuple[str, Side, Decimal]], how: OnPositions, share: Decimal
) -> None:
    world = World(dict(zip(STRATEGIES, held, strict=False)))
    world.waiting = [an_order(side, quantity, name) for name, side, quantity in waiting]
    state = world.state()
    asked = reductions(TripPolicy(positions=how, reduced_by=share), state)
    assert [one.strategy_id for one in asked] == sorted({one.strategy_id for one in asked})
    guard = tripped(Guard("w"), a_trip(state))
    for one in asked:
        assert permits(guard, state, an_order(one.side, one.quantity, one.strategy_id))
        had = world.held[one.strategy_id]
        closing = sum(
            (other.quantity for other in world.waiting if (other.strategy_id, other.side) == (one.strategy_id, one.side)),
            Decimal(0),
        )  # fmt: skip
        assert one.quantity + closing <= abs(had)
    if how is OnPositions.LIQUIDATE and not waiting:
        assert {one.strategy_id for one in asked} == {name for name, had in world.held.items() if had}


# ---- what trips ----------------------------------------------------------------------------------------------


def test_a_loss_of_one_strategy_trips_with_all_that_was_known() -> None:
    lost = Worth(Decimal(940), Decimal(1000), Decimal(1200), T0)
    state = a_state(holding(3), worths={"s": opened(Decimal(1000), T0), "t": lost})
    rules = (DrawdownLimit(Decimal("0.3")), DailyLossLimit(Decimal("0.06")))
    found = check(rules, state, CALM, T0 + 5)
    assert found == Trip(TripCause.DAILY_LOSS, rules[1], "t", Decimal(60), Decimal(60), T0 + 5, state, CALM)
    assert check((DailyLossLimit(Decimal("0.061")),), state, CALM, T0) is None
    drawn = check((DrawdownLimit(Decimal("0.2")),), state, CALM, T0)
    assert drawn is not None
    assert (drawn.cause, drawn.number, drawn.threshold) == (TripCause.DRAWDOWN, Decimal(260), Decimal(240))


def test_a_loss_of_the_world_is_of_all_books_together() -> None:
    world = Worth(Decimal(1900), Decimal(2000), Decimal(2000), T0)
    rule = DailyLossLimit(Decimal("0.05"), RiskScope.WORLD)
    found = check((rule,), a_state(world=world), CALM, T0)
    assert found is not None
    assert (found.strategy_id, found.number, found.threshold) == ("", Decimal(100), Decimal(100))
    assert check((replace(rule, scope=RiskScope.STRATEGY),), a_state(world=world), CALM, T0) is None


@pytest.mark.parametrize(
    ("side", "price", "cost"),
    [(BUY, "100.2", "0.4"), (BUY, "99.9", "-0.2"), (SELL, "99.8", "0.4"), (SELL, "100.1", "-0.2")],
)
def test_slippage_is_what_went_against_the_taker(side: Side, price: str, cost: str) -> None:
    order = an_order(side, 5)
    assert execution_of(order, a_fill(order, Decimal(price), 2)) == Execution(Decimal(cost), Decimal(200))


def test_a_surge_is_weighted_by_value_over_the_last_fills() -> None:
    rule = SlippageSurge(Decimal(20), 3)
    good, bad = (
        Execution(Decimal(0), Decimal(100)),
        Execution(Decimal("1.2"), Decimal(400)),
    )  # 30 basis points

    def surge(*executions: Execution) -> Decimal | None:
        found = check((rule,), a_state(), ExecutionQuality(executions), T0)
        assert found is None or found.cause is TripCause.SLIPPAGE_SURGE
        return None if found is None else found.number

    assert surge(bad, bad) is None  # too few to tell
    assert surge(good, good, bad) == 20  # 1.2 of 600
    assert surge(bad, good, good, good) is None
    assert surge(good, good, good, good, bad, bad, good) == Decimal("26.666666666667")


def test_only_the_longest_window_of_fills_is_kept() -> None:
    rules = (SlippageSurge(Decimal(1), 2), ConsecutiveRejections(9), SlippageSurge(Decimal(2), 3))
    assert longest_window(rules) == 3
    assert longest_window(RULES) == 0
    quality = CALM
    for number in range(5):
        quality = after_fill(quality, Execution(Decimal(number), Decimal(1)), 3)
    assert [one.cost for one in quality.executions] == [2, 3, 4]
    assert after_fill(quality, quality.executions[0], 0).executions == ()
    with pytest.raises(InvalidValue, match="keep"):
        after_fill(quality, quality.executions[0], -1)


def test_rejections_count_in_a_row() -> None:
    quality = after_rejection(after_rejection(CALM))
    assert check(RULES, a_state(), quality, T0) is None
    for taken in (after_acceptance(quality), after_fill(quality, Execution(Decimal(0), Decimal(1)), 5)):
        assert check(RULES, a_state(), after_rejection(taken), T0) is None
    found = check(RULES, a_state(), after_rejection(quality), T0)
    assert found is not None
    assert (found.cause, found.number, found.threshold) == (
        TripCause.CONSECUTIVE_REJECTIONS,
        Decimal(3),
        Decimal(3),
    )


# ---- the guard -----------------------------------------------------------------------------------------------


def test_the_first_trip_is_kept() -> None:
    first, second = a_trip(), a_trip(at_ms=T0 + 60_000)
    guard = tripped(Guard("w"), first)
    assert guard == Guard("w", 1, first, changed_at_ms=T0)
    assert tripped(guard, second) is guard


def test_an_ok_guard_lets_everything_through() -> None:
    assert permits(Guard("w"), a_state(), an_order(BUY, 10**6))
    with pytest.raises(InvariantBroken, match="live"):
        permits(Guard("w"), a_state(), an_order(BUY, 1, mode=BrokerMode.LIVE))


def test_a_release_names_who_and_why_and_counts_losses_anew() -> None:
    lost = Worth(Decimal(900), Decimal(1000), Decimal(1000), T0)
    state = a_state(holding(3), world=lost, worths={"s": lost})
    rules = (
        DailyLossLimit(Decimal("0.1")),
        DrawdownLimit(Decimal("0.1"), RiskScope.WORLD),
        *RULES,
    )
    trip = check(rules, state, REJECTED, T0)
    assert trip is not None
    guard = tripped(Guard("w"), trip)
    done = released(guard, "ann", "looked at it", T0 + 1, state, REJECTED)
    assert done.guard == Guard("w", 2, None, "ann", "looked at it", T0 + 1)
    assert done.guard.state is GuardState.OK
    assert done.state.holdings == state.holdings
    assert check(rules, done.state, done.quality, T0 + 1) is None
    again = tripped(done.guard, trip)
    assert (again.version, again.state) == (3, GuardState.TRIP)


@pytest.mark.parametrize(("by", "reason"), [("", "why"), ("ann", ""), (" ", "why")])
def test_nobody_releases_for_no_reason(by: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match="who and why"):
        released(tripped(Guard("w"), a_trip()), by, reason, T0, a_state(), CALM)


def test_a_release_is_not_before_its_trip_and_changes_no_guard_that_is_ok() -> None:
    with pytest.raises(InvariantBroken, match="before"):
        released(tripped(Guard("w"), a_trip()), "ann", "why", T0 - 1, a_state(), CALM)
    done = released(Guard("w"), "ann", "why", T0, a_state(), REJECTED)
    assert (done.guard, done.quality) == (Guard("w"), REJECTED)


def test_a_trip_takes_off_what_its_policy_says() -> None:
    state = a_state(
        holding(10, strategy_id="b"),
        holding(-8, selling=5, buying=6, strategy_id="a"),
        holding(0, buying=3, strategy_id="c"),
        holding(4, selling=4, strategy_id="d"),
    )
    halves = (Reduction("a", "X", BUY, Decimal(2)), Reduction("b", "X", SELL, Decimal(5)))
    assert reductions(TripPolicy(), state) == halves
    whole = (Reduction("a", "X", BUY, Decimal(2)), Reduction("b", "X", SELL, Decimal(10)))
    assert reductions(TripPolicy(positions=OnPositions.LIQUIDATE), state) == whole
    assert reductions(TripPolicy(positions=OnPositions.KEEP), state) == ()


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ["0", "-0.5", "1.1", "NaN"])
def test_a_policy_takes_off_a_share(share: str) -> None:
    with pytest.raises(InvalidValue, match="reduced_by"):
        TripPolicy(reduced_by=Decimal(share))


@pytest.mark.parametrize(("basis_points", "fills"), [("0", 1), ("NaN", 1), ("-1", 1), ("5", 0)])
def test_a_surge_needs_a_threshold_and_a_window(basis_points: str, fills: int) -> None:
    with pytest.raises(InvalidValue):
        SlippageSurge(Decimal(basis_points), fills)


def test_a_row_of_rejections_has_one_at_least() -> None:
    with pytest.raises(InvalidValue, match="at least 1"):
        ConsecutiveRejections(0)
