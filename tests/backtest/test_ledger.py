"""A ledger leaves what the rules of trading leave, row by row, and says when it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qmtl.backtest.kept import Kept
from qmtl.backtest.recording import Recorder
from qmtl.backtest.run import Course
from qmtl.backtest.signals import Want
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, Fill, Position
from qmtl.foundation.contracts.world import (
    Activation,
    EffectiveMode,
    Instrument,
    PositionSide,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.runtime.columns import BarColumns, Scaled

MINUTE = 60_000
TOPICS = ("trade.intents", "trade.orders", "trade.fills", "trade.rejections", "trade.portfolio")
NUMBERS = st.decimals(0, 1, places=4)
TICKS = [Decimal(one) for one in ("0.01", "0.05", "1", "0.0003")]
LOTS = [Decimal(one) for one in ("0.00000001", "0.001", "1", "7")]
FEES = [Decimal(one) for one in ("0", "0.001", "-0.0002", "0.123456789012")]
SLIPPAGES = [Decimal(one) for one in ("0", "0.0005", "0.3")]
CLOSED: list[dict[str, Any]] = [
    {"active": False},
    {"weight": Decimal(0)},
    {"effective_mode": EffectiveMode.SHADOW},
    {"effective_mode": EffectiveMode.LIVE},
]
"""Why a side of a strategy may place no order, while the other one does."""
WEIGHTS = [Decimal(one) for one in ("1", "1", "0.37")]


def bars_of(symbol: str, minutes: Sequence[int], prices: Sequence[tuple[int, int, int, int]]) -> BarColumns:
    """Bars of these minutes; prices are open, high, low and close in cents."""
    opens, highs, lows, closes = [
        Scaled(np.array(one, dtype=np.int64), 2) for one in zip(*prices, strict=True)
    ]
    times = np.array([minute * MINUTE for minute in minutes], dtype=np.int64)
    return BarColumns(
        symbol, 60, times, opens, highs, lows, closes, Scaled(np.ones(len(minutes), dtype=np.int64), 0)
    )


@st.composite
def markets(draw: st.DrawFn) -> dict[str, BarColumns]:
    found = {}
    for symbol in draw(st.sampled_from([["A-USD"], ["A-USD", "B-USD"], ["A-USD", "B-USD", "C-USD"]])):
        minutes = sorted(draw(st.sets(st.integers(1, 40), min_size=2, max_size=30)))
        rows = []
        for _ in minutes:
            low = draw(st.integers(50, 20_000))
            high = low + draw(st.integers(0, 3_000))
            rows.append((draw(st.integers(low, high)), high, low, draw(st.integers(low, high))))
        found[symbol] = bars_of(symbol, minutes, rows)
    return found


@st.composite
def worlds(draw: st.DrawFn, symbols: Sequence[str]) -> World:
    instruments = tuple(
        Instrument(
            symbol,
            draw(st.sampled_from(TICKS)),
            draw(st.sampled_from(LOTS)),
            draw(st.sampled_from([Decimal("0.00000001"), Decimal("0.5"), Decimal(3)])),
        )
        for symbol in symbols
    )
    cash = draw(st.sampled_from([Decimal(0), Decimal(10), Decimal("100000.5"), Decimal(10) ** 20]))
    fee, slippage = draw(st.sampled_from(FEES)), draw(st.sampled_from(SLIPPAGES))
    return World("w", WorldStatus.ACTIVE, WorldSettings("USD", cash, fee, slippage, instruments), 0)


@st.composite
def gates(draw: st.DrawFn) -> list[Activation]:
    found = []
    for side in PositionSide:
        if draw(st.booleans()) or draw(st.booleans()):
            freeze, drain = draw(st.sampled_from([(False, False)] * 6 + [(True, False), (False, True)]))
            weight = draw(st.sampled_from([Decimal(1), Decimal(1), Decimal("0.37"), Decimal(0)]))
            mode = draw(st.sampled_from([EffectiveMode.PAPER] * 5 + list(EffectiveMode)))
            active = draw(st.sampled_from([True, True, True, False]))
            found.append(Activation("w", "s", side, active, weight, freeze, drain, mode, 1, "e", 0))
    return found


@st.composite
def runs(draw: st.DrawFn) -> tuple[dict[str, BarColumns], World, list[Activation], list[Want]]:
    market = draw(markets())
    wants = []
    for symbol, bars in market.items():
        buckets = bars.bucket_ms.tolist()
        for place in sorted(draw(st.sets(st.integers(0, len(bars) - 1)))):
            for signal in draw(st.sampled_from([[0], [0], [0, 1]])):
                percent = draw(NUMBERS | st.sampled_from([Decimal(0), Decimal(1)]))
                signed = percent if draw(st.booleans()) else percent.copy_negate() if percent else percent
                wants.append(
                    Want(buckets[place], symbol, signal, place, signed, bars.close.at(place), f"n{signal}")
                )
    wants.sort(key=lambda one: one[:3])
    return market, draw(worlds(list(market))), draw(gates()), wants


def course(market: dict[str, BarColumns], world: World, recorder: Recorder | None = None) -> Course:
    last_ms = max(int(bars.bucket_ms[-1]) for bars in market.values())
    return Course(market, world, 0, MINUTE, last_ms, recorder)


def recorded(log: EmbeddedLog) -> dict[str, list[tuple[bytes, bytes | None]]]:
    return {
        name: [(one.key, one.value) for one in read_all(log, [TopicPartition(name, 0)])] for name in TOPICS
    }


@settings(max_examples=150, deadline=None)
@given(runs())
def test_a_ledger_leaves_what_the_rules_leave(
    run: tuple[dict[str, BarColumns], World, list[Activation], list[Want]],
) -> None:
    market, world, own, wants = run
    assert went(market, world, own, wants, alone=False) == went(market, world, own, wants, alone=True)


def went(
    market: dict[str, BarColumns], world: World, own: list[Activation], wants: list[Want], *, alone: bool
) -> object:
    """All that a run leaves; or why it can't be gone through, as for a worker: what an account holds has more digits than money."""
    try:
        outcome = course(market, world).go("s", wants, own, alone=alone)
    except InexactMoney as error:
        return error.what
    rows = sorted(outcome.rows(), key=lambda one: (type(one).__name__, one.symbol))
    return outcome.intents, outcome.orders, outcome.fills, outcome.rejections, rows


def drawn(seed: int) -> tuple[dict[str, BarColumns], World, list[Activation], list[Want]]:
    """A run of which every choice is as likely as any other: Hypothesis likes the first ones."""
    chance = Random(seed)
    market, wants, instruments = {}, [], []
    for symbol in ("A-USD", "B-USD", "C-USD")[: chance.randint(1, 3)]:
        minutes = sorted(chance.sample(range(1, 60), chance.randint(10, 50)))
        rows, last = [], chance.randint(100, 900_000)
        for _ in minutes:
            opens = last + chance.randint(-last // 20, last // 20)
            last = opens + chance.randint(-opens // 20, opens // 20)
            rows.append((opens, max(opens, last), min(opens, last), last))
        bars = market[symbol] = bars_of(symbol, minutes, rows)
        lot, tick = chance.choice(LOTS), chance.choice(TICKS)
        instruments.append(Instrument(symbol, tick, lot, chance.choice([lot, 3 * lot, Decimal("0.01")])))
        for place, bucket_ms in enumerate(bars.bucket_ms.tolist()):
            for signal in range(chance.choice([0, 1, 1, 1, 2])):
                percent = Decimal(chance.choice([0, 1, -1, chance.randint(-10_000, 10_000)])) / 10_000
                percent = chance.choice([percent, percent, Decimal(1), Decimal(-1), Decimal(0)])
                wants.append(Want(bucket_ms, symbol, signal, place, percent, bars.close.at(place), "n"))
    wants.sort(key=lambda one: one[:3])
    cash = Decimal(chance.choice(["100000", "100000.5", "37.25", "0"]))
    world = World(
        "w",
        WorldStatus.ACTIVE,
        WorldSettings("USD", cash, chance.choice(FEES), chance.choice(SLIPPAGES), tuple(instruments)),
        0,
    )
    own = [
        Activation("w", "s", side, True, chance.choice(WEIGHTS), False, False, EffectiveMode.PAPER, 1, "e", 0)
        for side in PositionSide
    ]
    if not seed % 4:
        at = chance.randrange(2)
        own[at] = replace(own[at], **chance.choice(CLOSED))
    return market, world, own, wants


def test_a_ledger_leaves_what_the_rules_leave_of_runs_that_trade_much() -> None:
    filled = rounded = flipped = 0
    for seed in range(400):
        market, world, own, wants = drawn(seed)
        fast = course(market, world).go("s", wants, own, alone=False)
        slow = course(market, world).go("s", wants, own, alone=True)
        assert isinstance(fast, Kept)
        assert (fast.intents, fast.orders, fast.fills) == (slow.intents, slow.orders, slow.fills)
        assert fast.rejections == slow.rejections
        assert sorted(fast.rows(), key=repr) == sorted(slow.rows(), key=repr)
        filled += len(fast.fills)
        exact = [fill.quantity * fill.price * world.settings.fee_rate for fill in fast.fills]
        rounded += sum(fill.fee != one for fill, one in zip(fast.fills, exact, strict=True))
        flipped += sum(not order.reduce_only for order in fast.orders.values())
    assert min(filled, flipped) > 3_000
    assert rounded > 100


CENT, TOP = 1, 9 * 10**18
CALM, DEAR, ODD = (CENT,) * 4, (100,) * 4, (307,) * 4
FROM_TOP, TO_TOP = (TOP, TOP, CENT, CENT), (CENT, TOP, CENT, TOP)


def extreme(
    cash: Decimal,
    prices: Sequence[tuple[int, int, int, int]],
    percents: dict[tuple[int, int], tuple[Decimal, ...]],
    lot: Decimal = Decimal("0.01"),
    fee_rate: Decimal = Decimal(0),
) -> tuple[dict[str, BarColumns], World, list[Activation], list[Want]]:
    """A run of symbols with the same prices, each wanted at some bars, by their places, and by some signals."""
    symbols = ("A-USD", "B-USD")[: len(next(iter(percents.values())))]
    market = {symbol: bars_of(symbol, range(1, len(prices) + 1), prices) for symbol in symbols}
    instruments = tuple(Instrument(symbol, Decimal("0.01"), lot, lot) for symbol in symbols)
    world = World("w", WorldStatus.ACTIVE, WorldSettings("USD", cash, fee_rate, Decimal(0), instruments), 0)
    own = [
        Activation("w", "s", side, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, "e", 0)
        for side in PositionSide
    ]
    wants = [
        Want(bars.bucket_ms.item(place), symbol, signal, place, percent, bars.close.at(place), "n")
        for (place, signal), row in percents.items()
        for (symbol, bars), percent in zip(market.items(), row, strict=True)
    ]
    return market, world, own, wants


ONE, BOTH = (Decimal(1),), (Decimal(1), Decimal(-1))
NO_ROWS = {
    "cost": extreme(Decimal(10) ** 23, [CALM, CALM, FROM_TOP, CALM], {(1, 0): BOTH}),
    "realised": extreme(
        Decimal(10) ** 23, [CALM, CALM, CALM, FROM_TOP], {(1, 0): BOTH, (2, 0): (Decimal(0), Decimal(0))}
    ),
    "exposure": extreme(Decimal(10) ** 23, [CALM, CALM, CALM, TO_TOP], {(1, 0): BOTH}),
    "cash": extreme(
        Decimal(10**41 - 1),
        [CALM, CALM, CALM, DEAR],
        {(1, 0): (Decimal("1e-20"),), (2, 0): (Decimal(0),)},
    ),
    "fees": extreme(  # bought and sold in one bucket, for half of the price each time
        Decimal(10**41 - 1),
        [CALM, CALM, (5 * 10**18 + 1, 5 * 10**18 + 1, CENT, CENT)],
        {(1, 0): (Decimal("2e-19"),), (1, 1): (Decimal(0),)},
        fee_rate=Decimal("0.5"),
    ),
    "places": extreme(Decimal(1), [ODD, ODD, ODD], {(1, 0): ONE}, Decimal("1e-40")),
}
"""Prices that are there for an instant, and what is bought of one symbol is sold short of another: what one row would have to hold, the others
don't show."""


@pytest.mark.parametrize("case", NO_ROWS)
def test_what_no_row_can_hold_is_refused_wherever_it_is(case: str) -> None:
    said = [went(*NO_ROWS[case], alone=alone) for alone in (False, True)]
    assert said[0] == said[1]
    assert "outside of what money may be" in str(said[0])


NO_ORDERS = {
    "quantity": extreme(Decimal(10) ** 40, [CALM, CALM], {(1, 0): ONE}),
    "lots": extreme(Decimal(10) ** 40, [CALM, CALM], {(1, 0): ONE}, Decimal("1e-18")),
}
"""Too many units for a row, and too many lots to be counted."""


@pytest.mark.parametrize("case", NO_ORDERS)
def test_an_order_that_no_row_can_hold_is_refused_as_the_rules_refuse_it(case: str) -> None:
    market, world, own, wants = NO_ORDERS[case]
    found = course(market, world).go("s", wants, own, alone=False)
    assert [row.reason for row in found.rejections] == [RejectionReason.INVALID_INTENT]
    assert not found.orders
    assert went(market, world, own, wants, alone=False) == went(market, world, own, wants, alone=True)


@settings(max_examples=25, deadline=None)
@given(run=runs(), rows=st.integers(1, 9))
def test_what_is_recorded_is_the_same_bytes_whoever_goes_through_it(
    tmp_path_factory: pytest.TempPathFactory,
    run: tuple[dict[str, BarColumns], World, list[Activation], list[Want]],
    rows: int,
) -> None:
    market, world, own, wants = run
    assume(not isinstance(went(market, world, own, wants, alone=True), str))
    found = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qmtl.backtest.recording.ROWS", rows)
        for alone in (False, True):
            log = EmbeddedLog(tmp_path_factory.mktemp("log"))
            recorder = Recorder(log)
            outcome = course(market, world, recorder).go("s", wants, own, alone=alone)
            kept = (outcome.intents, outcome.orders, outcome.fills, outcome.rejections)
            recorder.close()
            found.append((kept, recorded(log), recorder.rows))
            log.close()
    assert found[0] == found[1]
    assert found[0][2] == sum(len(one) for one in found[0][1].values())


def test_where_numbers_leave_the_ordinary_the_rules_go_on_and_nothing_is_written_twice(
    tmp_path: Path,
) -> None:
    """The rows that the ledger has written before it gave up are those that the rules begin with."""
    prices = [(100_00, 100_00, 100_00, 100_00)] * 9 + [(10**17, 10**17, 10**17, 10**17)]
    market = {"A-USD": bars_of("A-USD", range(1, 11), prices)}
    world = World(
        "w", WorldStatus.ACTIVE, WorldSettings("USD", Decimal(10) ** 18, Decimal(0), Decimal(0), ()), 0
    )
    own = [
        Activation("w", "s", s, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, "e", 0)
        for s in PositionSide
    ]
    buckets = market["A-USD"].bucket_ms.tolist()
    wants = [
        Want(buckets[place], "A-USD", 0, place, Decimal(place % 2), market["A-USD"].close.at(place), "n")
        for place in range(9)
    ]
    found = []
    for alone in (False, True):
        log = EmbeddedLog(tmp_path / str(alone))
        recorder = Recorder(log)
        outcome: Any = course(market, world, recorder).go("s", wants, own, alone=alone)
        assert type(outcome).__name__ == "ByRules"
        recorder.close()
        found.append(recorded(log))
        log.close()
    assert found[0] == found[1]
    assert len(found[0]["trade.fills"]) == 8


def test_a_year_of_steps_is_kept_exact() -> None:
    """Cash, positions and equity are the sums of the fills, without tolerance."""
    draw = np.random.default_rng(7)
    close = np.round(30_000 * np.exp(np.cumsum(draw.normal(0, 0.001, 5_000))), 2)
    cents = np.rint(close * 100).astype(np.int64).tolist()
    market = {"A-USD": bars_of("A-USD", range(1, 5_001), [(one, one, one, one) for one in cents])}
    world = World(
        "w",
        WorldStatus.ACTIVE,
        WorldSettings("USD", Decimal(100_000), Decimal("0.001"), Decimal("0.0005"), ()),
        0,
    )
    own = [
        Activation("w", "s", s, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, "e", 0)
        for s in PositionSide
    ]
    buckets = market["A-USD"].bucket_ms.tolist()
    wants = [
        Want(
            buckets[p],
            "A-USD",
            0,
            p,
            Decimal(int(draw.integers(-4, 5))) / 4,
            market["A-USD"].close.at(p),
            "n",
        )
        for p in range(0, 5_000, 3)
    ]
    outcome = course(market, world).go("s", wants, own, alone=False)
    fills: list[Fill] = outcome.fills
    assert len(fills) > 1_000
    cash, held = Decimal(100_000), Decimal(0)
    with localcontext(prec=200):
        for fill in fills:
            moved = fill.quantity if fill.side.value == "BUY" else -fill.quantity
            cash -= moved * fill.price + fill.fee
            held += moved
        account, position = outcome.rows()
        assert isinstance(account, Account)
        assert isinstance(position, Position)
        assert (account.cash, position.quantity) == (cash, held)
        assert account.equity == cash + held * Decimal(cents[-1]) / 100
        assert account.equity == 100_000 + account.realised + account.unrealised - account.fees
