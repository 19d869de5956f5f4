"""The laws of trading as a processor: what it sees, when it acts, and that nothing is made or lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.market import Bar, WorldBar
from qmtl.foundation.contracts.trade import OrderIntent, OrderStatus, Position, Side
from qmtl.foundation.contracts.world import EffectiveMode, Instrument, PositionSide
from tests.services.trading.stage import CASH, Stage, activation, world


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.end()


def test_an_order_fills_at_the_open_of_the_next_bar_and_not_at_the_price_it_saw(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.bar("100"), stage.intent("0.5", "100"))
    (order,) = stage.rows("trade.orders")
    assert (order.status, order.side, order.quantity) == (OrderStatus.NEW, Side.BUY, Decimal(500))
    assert [row.order_id for row in stage.rows("trade.open_orders")] == [order.order_id]
    stage.close(stage.bar("110", "120"))
    (fill,) = stage.rows("trade.fills")
    assert (fill.price, fill.quantity, fill.seq, fill.fill_time_ms) == (
        Decimal(110),
        Decimal(500),
        1,
        stage.at_ms(2),
    )
    assert stage.rows("trade.open_orders") == []
    account = stage.account()
    assert account.cash == CASH - 500 * 110 - 55
    assert account.equity == account.cash + 500 * 120
    assert account.as_of_ms == stage.at_ms()


def test_an_order_waits_through_buckets_without_a_bar(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close()
    stage.close()
    assert stage.rows("trade.fills") == []
    stage.close(stage.bar("90"))
    (fill,) = stage.rows("trade.fills")
    assert fill.price == Decimal(90)


def test_the_first_bucket_of_a_world_is_decided_on_its_initial_cash(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"), stage.intent("1", "100"))
    (order,) = stage.rows("trade.orders")
    assert order.quantity == Decimal(1000)
    assert order.portfolio_bucket_ms == 0


def test_a_bucket_is_sized_on_the_portfolio_that_the_bucket_before_has_closed(stage: Stage) -> None:
    """The price doubles in the bucket of the second intent: its equity at that close would give another size."""
    stage.close(world(fee="0"), activation(), stage.bar("100"))
    stage.close(stage.bar("100"), stage.intent("0.5", "100"))
    stage.close(stage.bar("100"))
    stage.close(stage.bar("200"), stage.intent("0.6", "200"))
    orders = sorted(stage.rows("trade.orders"), key=lambda row: row.created_at_ms)
    assert orders[1].portfolio_bucket_ms == stage.at_ms(3)
    # equity at the close of bucket 3 is 100000: desired 0.6 * 100000 / 200 = 300, held 500
    assert (orders[1].side, orders[1].quantity, orders[1].reduce_only) == (Side.SELL, Decimal(200), True)


def test_what_is_ordered_already_is_not_ordered_again(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(stage.bar("100"), stage.intent("0.5", "100"))  # filled inside this bucket, open in the cut
    assert len(stage.rows("trade.orders")) == 1


def test_two_intents_of_one_bucket_see_each_others_orders(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"), stage.intent("0.7", "100", index=1))
    quantities = sorted(row.quantity for row in stage.rows("trade.orders"))
    assert quantities == [Decimal(200), Decimal(500)]


def test_of_an_intent_that_is_there_twice_the_first_is_acted_on_and_the_other_is_told(stage: Stage) -> None:
    """As two shards could write it: the one in the lower partition comes first."""
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"), stage.intent("0.7", "100"), stage.intent("0.7", "100", index=1))
    assert sorted(row.quantity for row in stage.rows("trade.orders")) == [Decimal(200), Decimal(500)]
    (told,) = stage.rejections()
    assert (told.reason, told.intent_index) == (RejectionReason.DUPLICATE_INTENT, 0)


REFUSALS: list[tuple[str, list[Any], RejectionReason]] = [
    ("nobody spoke of the gate", [], RejectionReason.ACTIVATION_MISSING),
    ("the side is closed", [activation(active=False)], RejectionReason.ACTIVATION_INACTIVE),
    ("the weight is zero", [activation(weight=Decimal(0))], RejectionReason.ACTIVATION_INACTIVE),
    ("the other side is open", [activation(PositionSide.SHORT)], RejectionReason.ACTIVATION_INACTIVE),
    ("frozen", [activation(freeze=True)], RejectionReason.FREEZE),
    ("draining", [activation(drain=True)], RejectionReason.DRAIN),
    (
        "it only computes",
        [activation(effective_mode=EffectiveMode.COMPUTE_ONLY)],
        RejectionReason.ACTIVATION_INACTIVE,
    ),
]


@pytest.mark.parametrize(("gate", "reason"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_a_refused_intent_is_a_record_with_its_reason(
    stage: Stage, gate: list[Any], reason: RejectionReason
) -> None:
    stage.close(world(), *gate, stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    assert [one.reason for one in stage.rejections()] == [reason]
    assert stage.rows("trade.orders") == []


CANCELS: dict[str, Any] = {"drain": True, "drain_cancels": True}


@pytest.mark.parametrize(
    ("rows", "canceled"),
    [
        ([activation(**CANCELS, version=2)], True),
        ([activation(PositionSide.SHORT, **CANCELS)], True),  # either side stops the strategy
        ([activation(drain=True, version=2)], False),
        ([activation(freeze=True, version=2)], True),
        ([activation(freeze=True, version=2), activation(version=3)], False),
        ([activation(**CANCELS, strategy_id="t")], False),
        ([activation(**CANCELS, world_id="v")], False),
        ([activation(**CANCELS, version=2), activation(version=3)], False),  # what holds at the close counts
        ([activation(version=2), activation(**CANCELS, version=3)], True),
    ],
)
def test_a_freeze_or_a_drain_that_cancels_ends_what_is_open_of_its_strategy_and_a_drain_does_not(
    stage: Stage, rows: list[Any], canceled: bool
) -> None:
    stage.close(world(), world("v"), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(*rows)  # no bar: the order waits on
    (order,) = stage.rows("trade.orders")
    assert (order.status is OrderStatus.CANCELED, stage.rows("trade.open_orders") == []) == (
        canceled,
        canceled,
    )
    assert order.updated_at_ms == stage.at_ms(3 if canceled else 2)
    stage.close(stage.bar("100"), stage.intent("0.9", "100"))
    assert (stage.rows("trade.fills") == []) is canceled


def test_an_order_that_the_bar_fills_is_not_cancelled_within_it_and_none_is_placed_after(
    stage: Stage,
) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(activation(**CANCELS, version=2), stage.bar("100"), stage.intent("0.9", "100"))
    (order,) = stage.rows("trade.orders")
    assert order.status is OrderStatus.FILLED
    assert [one.reason for one in stage.rejections()] == [RejectionReason.DRAIN]
    stage.close(activation(version=3), stage.bar("100"), stage.intent("0.9", "100"))
    assert [one.status for one in stage.rows("trade.open_orders")] == [OrderStatus.NEW]  # it goes on


@pytest.mark.parametrize("changed,late", [({}, False), ({"drain": True}, True), ({"freeze": True}, True)])
def test_a_fill_on_paper_into_a_gate_that_was_stopped_counts_and_is_marked_late(
    stage: Stage, changed: dict[str, Any], late: bool
) -> None:
    """The gate is closed within the bar at whose open the order is filled."""
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(activation(**changed, version=2), stage.bar("100"))
    assert [one.late for one in stage.rows("trade.fills")] == [late]
    assert stage.position() is not None
    stage.close(activation(version=3), stage.bar("100"), stage.intent("0.9", "100"))
    stage.close(stage.bar("100"))
    assert [one.late for one in stage.rows("trade.fills")].count(late) == (1 if late else 2)


def test_an_intent_of_a_world_that_does_not_exist_is_refused(stage: Stage) -> None:
    stage.close(stage.intent("0.5", "100"))
    assert [one.reason for one in stage.rejections()] == [RejectionReason.UNKNOWN_WORLD]


def test_a_gate_that_closes_lets_a_holding_out_but_nothing_in(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(stage.bar("100"))
    stage.close(activation(active=False, version=2), stage.bar("100"), stage.intent("0.9", "100"))
    assert [one.reason for one in stage.rejections()] == [RejectionReason.ACTIVATION_INACTIVE]
    stage.close(stage.bar("100"), stage.intent("0", "100"))
    stage.close(stage.bar("100"))
    position = stage.position()
    assert position is not None
    assert position.quantity == 0


def test_the_activation_weight_scales_the_quantity(stage: Stage) -> None:
    stage.close(world(), activation(weight=Decimal("0.25")), stage.bar("100"))
    stage.close(stage.intent("1", "100"))
    (order,) = stage.rows("trade.orders")
    assert order.quantity == Decimal(250)


def test_an_activation_counts_from_the_bucket_whose_close_contains_it(stage: Stage) -> None:
    stage.close(world(), stage.bar("100"), stage.intent("0.5", "100"))
    stage.close(activation(), stage.intent("0.5", "100"))
    assert len(stage.rejections()) == 1
    assert len(stage.rows("trade.orders")) == 1


GOOD = Bar("BTC-USD", 0, 60, *map(Decimal, ("100", "110", "90", "105", "1")))


@pytest.mark.parametrize(
    "spoilt",
    [
        {"close": Decimal(0), "low": Decimal(0)},
        {name: Decimal(-5) for name in ("open", "high", "low", "close")},
        {"high": Decimal(80)},
        {"close": Decimal("100." + "1" * 38)},
    ],
    ids=["zero", "negative", "inverted", "long"],
)
def test_a_bar_that_is_none_is_a_dead_letter_and_the_worlds_go_on(
    stage: Stage, spoilt: dict[str, Decimal]
) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.123456789", "100"))
    stage.close(stage.bar("100"))
    bad = WorldBar("w", replace(GOOD, open_time_ms=stage.at_ms(), **spoilt))  # type: ignore[arg-type]  # prices alone
    stage.close(bad, stage.bar("101"))
    (letter,) = stage.letters()
    assert (letter.processor, letter.topic, letter.code) == ("trading", "trade.market", "QMTL-701")
    assert "BTC-USD" in letter.cause
    position = stage.position()
    assert position is not None
    assert (position.mark, position.as_of_ms) == (Decimal(101), stage.at_ms())
    stage.close(bad)
    stage.close(stage.bar("102"))
    assert stage.account().as_of_ms == stage.at_ms()
    assert len(stage.letters()) == 2


def test_a_bar_at_whose_price_a_position_has_no_exact_value_is_a_dead_letter(stage: Stage) -> None:
    """The lot, which is the world's own, and a cost of 27 digits before the point are what makes the sum too long."""
    stage.close(world(lot="1e-20"), activation(), stage.bar("100"))
    stage.close(stage.intent("1", "0.0003"))
    stage.close(stage.bar("1000000000000000000"))
    stage.close(stage.bar("33.12345678901234567891"))
    stage.close(stage.bar("102"))
    assert [(one.topic, one.code) for one in stage.letters()] == [("trade.market", InexactMoney.code)]
    position = stage.position()
    assert position is not None
    assert (position.mark, position.as_of_ms) == (Decimal(102), stage.at_ms())


def test_a_bar_with_which_several_positions_have_no_exact_value_together_is_a_dead_letter(
    stage: Stage,
) -> None:
    """Each has one alone: 39 digits before the point in one, more than 20 behind it in the other."""
    settings = replace(
        world().settings,
        initial_cash=Decimal("1e20"),
        fee_rate=Decimal(0),
        instruments=tuple(
            Instrument(symbol, Decimal("1e-12"), Decimal("1e-12"), Decimal("1e-12"))
            for symbol in ("A", "B", "C")
        ),
    )

    def bars(**prices: str) -> list[WorldBar]:
        return [stage.bar(price, symbol=symbol) for symbol, price in prices.items()]

    def wanted(symbol: str, share: str) -> OrderIntent:
        return replace(stage.intent(share, "1"), symbol=symbol)

    stage.close(replace(world(), settings=settings), activation())
    stage.close(wanted("A", "0.5"), wanted("B", "1e-32"), wanted("C", "0.25"))
    stage.close(*bars(A="1", B="1", C="1"))
    assert len(stage.rows("trade.fills")) == 3
    stage.close(*bars(A="9000000000000000000", B="1.12345678901234567891", C="2"))
    assert [(one.topic, one.code) for one in stage.letters()] == [("trade.market", InexactMoney.code)]
    marks = {row.symbol: row.mark for row in stage.rows("trade.portfolio") if isinstance(row, Position)}
    assert marks == {"A": Decimal("9000000000000000000"), "B": Decimal(1), "C": Decimal(2)}
    assert stage.account().as_of_ms == stage.at_ms()
    stage.close(*bars(A="1", B="1.12345678901234567891", C="2"))
    assert stage.account().equity == (
        Fraction("1e20") - Fraction("1e-12") * (1 - Fraction("1.12345678901234567891")) + Fraction("0.25e20")
    )
    assert len(stage.letters()) == 1


@pytest.mark.parametrize("closes", [("1e18",), ("0.01", "1e18")], ids=["filled", "marked"])
def test_a_bar_at_which_a_position_is_worth_more_than_money_can_be_is_a_dead_letter(
    stage: Stage, closes: tuple[str, ...]
) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("1", "1e-19"))
    for close in closes:
        stage.close(stage.bar(close))
    assert [(one.topic, one.code) for one in stage.letters()] == [("trade.market", InexactMoney.code)]
    stage.close(stage.bar("0.02"))
    position = stage.position()
    assert position is not None
    assert (position.quantity, position.mark) == (Decimal("1e24"), Decimal("0.02"))
    assert len(stage.letters()) == 1


@pytest.mark.parametrize(
    ("share", "weight", "price", "lot"),
    [
        ("0." + "3" * 40, "0." + "3" * 40, "1", "1e-20"),
        ("1", "1", "1e-40", "1e-20"),
        ("1", "1", "1e-38", "1e-10"),
    ],
    ids=["long", "many", "large"],
)
def test_an_intent_without_an_exact_size_is_refused_and_the_next_one_is_not(
    stage: Stage, share: str, weight: str, price: str, lot: str
) -> None:
    stage.close(world(lot=lot), activation(weight=Decimal(weight)), stage.bar("100"))
    stage.close(stage.intent(share, price), stage.intent("0.5", "100", index=1))
    (refused,) = stage.rejections()
    assert (refused.reason, refused.intent_index) == (RejectionReason.INVALID_INTENT, 0)
    assert "digits" in refused.detail or "money" in refused.detail
    assert len(stage.rows("trade.orders")) == 1
    assert stage.letters() == []


steps = st.lists(
    st.tuples(
        st.one_of(st.none(), st.decimals("50", "200", places=2)),
        st.one_of(st.none(), st.decimals("-1", "1", places=2)),
    ),
    min_size=1,
    max_size=25,
)


def run(directory: Path, script: list[tuple[Decimal | None, Decimal | None]], poll_records: int) -> list[Any]:
    """The final tables after a random run, with the conservation laws checked on them."""
    stage = Stage(directory, poll_records)
    both = (activation(), activation(PositionSide.SHORT))
    stage.close(world(fee="0.002", slippage="0.0007"), *both, stage.bar("100"))
    for price, percent in script:
        messages: list[Any] = [] if price is None else [stage.bar(str(price))]
        if percent is not None:
            messages.append(stage.intent(str(percent), str(price or 100)))
        stage.close(*messages)
    fills, account, position = stage.rows("trade.fills"), stage.account(), stage.position()
    signed = [(fill.quantity if fill.side is Side.BUY else -fill.quantity) for fill in fills]
    assert account.cash == CASH - sum(q * f.price for q, f in zip(signed, fills, strict=True)) - sum(
        fill.fee for fill in fills
    )
    if position is not None:
        assert position.quantity == sum(signed)
        assert account.equity == account.cash + position.quantity * position.mark
        assert account.equity == CASH + account.realised + account.unrealised - account.fees
    for order in stage.rows("trade.orders"):
        own = [fill for fill in fills if fill.order_id == order.order_id]
        assert order.cum_quantity == sum(fill.quantity for fill in own) <= order.quantity
        assert [fill.seq for fill in own] == list(range(1, order.last_seq + 1))
    tables = ("trade.orders", "trade.open_orders", "trade.fills", "trade.portfolio")
    out = [stage.rows(name) for name in tables]
    stage.end()
    return out


@given(steps)
@settings(max_examples=25, deadline=None)
def test_cash_positions_and_orders_are_conserved_whatever_is_asked(
    script: list[tuple[Decimal | None, Decimal | None]],
) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        assert run(Path(one), script, 4000) == run(Path(other), script, 3)
