"""A backtest in memory trades on its terms, whatever order its bars are given in, and refuses what a log would refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.backtest.recording import Recorder
from qmtl.backtest.run import backtest
from qmtl.backtest.simulation import Terms, reads_of, simulate, span_of
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.foundation.common.errors import InvalidDag, InvariantBroken, QmtlError, UnknownId
from qmtl.foundation.contracts.trade import Side
from qmtl.interfaces.report.from_backtest import result_of
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import curve_of
from qmtl.services.dagmanager.admission import admit
from tests.runtime.data.walk import START_MS, of, walk

SYMBOLS = ("A", "B", "C")


def bars(symbol: str, begin: int = 0, end: int = 120) -> BarColumns:
    return replace(walk(begin, end), symbol=symbol)


def message(
    strategy_id: str = "crossing", symbols: tuple[str, ...] = SYMBOLS, interval: int = 60, slow: int = 9
) -> bytes:
    nodes: list[dict[str, Any]] = [
        {"name": "price", "node_type": "price", "interval": interval, "params": {"symbols": list(symbols)}},
        {"name": "fast", "node_type": "sma", "interval": interval, "period": 3, "inputs": ["price"]},
        {"name": "slow", "node_type": "sma", "interval": interval, "period": slow, "inputs": ["price"]},
        {"name": "cross", "node_type": "cross", "interval": interval, "inputs": ["fast", "slow"]},
        {
            "name": "target",
            "node_type": "position_target",
            "interval": interval,
            "inputs": ["cross"],
            "params": {"long_percent": 0.3, "short_percent": -0.3},
        },
    ]
    meta = {"version": "v1"}
    whole = {
        "schema_version": "v1",
        "strategy_id": strategy_id,
        "meta": meta,
        "nodes": nodes,
        "signals": ["target"],
    }
    return json.dumps(whole).encode()


@settings(max_examples=10)
@given(order=st.permutations(SYMBOLS), ends=st.tuples(*[st.integers(40, 120)] * 3))
def test_the_order_of_the_bars_makes_no_difference(order: list[str], ends: tuple[int, ...]) -> None:
    given_ = {symbol: bars(symbol, 0, end) for symbol, end in zip(SYMBOLS, ends, strict=True)}
    one = simulate([message()], given_)
    other = simulate([message()], {symbol: given_[symbol] for symbol in order})
    assert list(other.bars) == list(one.bars) == list(SYMBOLS)
    assert (other.world, other.gates, other.fingerprint) == (one.world, one.gates, one.fingerprint)
    assert (other.intents, other.fills) == (one.intents, one.fills)
    assert list(other.orders.values()) == list(one.orders.values())
    assert list(other.rows()) == list(one.rows())
    result_of(one)  # holds the equity that fills and bars give against that of the account


@settings(max_examples=10)
@given(names=st.permutations(["x", "y", "z"]))
def test_strategies_of_one_world_trade_as_each_alone_and_share_their_nodes(names: list[str]) -> None:
    given_ = {symbol: bars(symbol) for symbol in SYMBOLS}
    slow = {"x": 9, "y": 9, "z": 12}
    together = simulate([message(name, slow=slow[name]) for name in names], given_)
    assert together.computed == 8  # of 15: x and y are one graph, and z shares its source and an average
    for name in names:
        alone = simulate([message(name, slow=slow[name])], given_)
        assert result_of(together, name).fills == result_of(alone).fills
        assert result_of(together, name).curve.final == result_of(alone).curve.final
    with pytest.raises(UnknownId, match="none was named; the backtest has x, y, z"):
        result_of(together)
    with pytest.raises(UnknownId, match="'w' was named"):
        result_of(together, "w")


def two_signals() -> bytes:
    raw = json.loads(message())
    raw["nodes"].append(
        {**raw["nodes"][-1], "name": "more", "params": {"long_percent": 0.5, "short_percent": 0}}
    )
    raw["signals"].append("more")
    return json.dumps(raw).encode()


def test_intents_come_by_bucket_then_symbol_then_signal() -> None:
    """All symbols cross in the same buckets, and two signals say so."""
    intents = simulate([two_signals()], {symbol: bars(symbol) for symbol in SYMBOLS}).intents
    order = [(one.bucket_ms, one.symbol, one.intent_index) for one in intents]
    assert order == sorted(order)
    assert any(
        set(order) >= {(at, symbol, signal) for symbol in SYMBOLS for signal in (0, 1)} for at, _, _ in order
    )


@pytest.mark.parametrize("alone", [False, True])
def test_a_strategy_has_its_own_gates_alone(*, alone: bool) -> None:
    """Of two that want the same, one may place no orders."""
    whole = simulate([message("x"), message("y")], {symbol: bars(symbol) for symbol in SYMBOLS})
    gates = [replace(one, active=one.strategy_id == "x") for one in whole.gates]
    x, y = backtest(
        whole.graphs, whole.bars, whole.world, gates, whole.start_ms, 60_000, alone=alone
    ).outcomes
    assert x.fills == whole.run.outcomes[0].fills != []
    assert list(x.rows()) == list(whole.run.outcomes[0].rows())
    assert not y.orders
    assert len(y.rejections) == len(y.intents) > 0


def test_what_is_read_of_a_log_is_each_strategys_own(tmp_path: Path) -> None:
    messages, given_ = [message("x"), message("y", slow=12)], {symbol: bars(symbol) for symbol in SYMBOLS}
    log = EmbeddedLog(tmp_path)
    recorder = Recorder(log)
    kept = simulate(messages, given_, Terms(long=False))
    read = simulate(messages, given_, Terms(long=False), recorder=recorder)
    for one, other in zip(kept.run.outcomes, read.run.outcomes, strict=True):
        assert one.intents == other.intents != ()
        assert one.orders == other.orders != {}
        assert one.fills == other.fills != []
        assert one.rejections == other.rejections != []
        assert list(one.rows()) == list(other.rows())
    recorder.close()
    log.close()


@pytest.mark.parametrize("is_long", [True, False])
def test_a_closed_gate_lets_nothing_through(is_long: bool) -> None:
    done = simulate([message()], {one: bars(one) for one in SYMBOLS}, Terms(long=is_long, short=not is_long))
    held = {symbol: Decimal(0) for symbol in SYMBOLS}
    for fill in done.fills:
        held[fill.symbol] += fill.quantity if fill.side is Side.BUY else -fill.quantity
        assert held[fill.symbol] >= 0 if is_long else held[fill.symbol] <= 0
    assert done.fills
    assert done.rejections


def test_a_weight_scales_what_is_ordered() -> None:
    whole, half = (
        simulate([message()], {one: bars(one) for one in SYMBOLS}, Terms(weight=weight)).fills
        for weight in (Decimal(1), Decimal("0.5"))
    )
    assert half[0].quantity == pytest.approx(whole[0].quantity / 2, abs=Decimal("0.0001"))


def test_what_the_sources_of_a_message_read_is_told() -> None:
    assert reads_of(admit(message(symbols=("B", "A"), interval=300), 0)) == (("A", "B"), 300)


def mixed() -> bytes:
    raw = json.loads(message())
    raw["nodes"].append(
        {"name": "other", "node_type": "price", "interval": 300, "params": {"symbols": ["A"]}}
    )
    return json.dumps(raw).encode()


def test_sources_of_two_intervals_are_refused() -> None:
    with pytest.raises(InvalidDag, match="reads bars of 60 s and 300 s"):
        reads_of(admit(mixed(), 0))


A_BAR = of([next(iter(walk(0, 3).bars()))])
REFUSED: dict[str, tuple[list[bytes], dict[str, BarColumns], Terms, str]] = {
    "no bars": ([message()], {}, Terms(), "no bars to run on"),
    "no bar": ([message()], {"A": A_BAR.chunk(0, 0)}, Terms(), "no bars to run on"),
    "two intervals": (
        [message()],
        {"A": bars("A"), "B": replace(A_BAR, symbol="B", interval=120)},
        Terms(),
        "bars of 60 and 120 s",
    ),
    "nothing": ([], {"A": bars("A")}, Terms(), "no strategy to run"),
    "twice": ([message(), message(slow=10)], {"A": bars("A")}, Terms(), "'crossing' was given twice"),
    "no message": ([b"{"], {"A": bars("A")}, Terms(), "JSON"),
    "no such symbol": ([message()], {"A": bars("A")}, Terms(), "reads 'B' every 60 s; the data have no bars"),
    "another interval": (
        [message(interval=300, symbols=("A",))],
        {"A": bars("A")},
        Terms(),
        "bars of 60 s of it",
    ),
    "cash": ([message()], {"A": bars("A")}, Terms(cash=Decimal(0)), "initial_cash was 0"),
    "slippage": ([message()], {"A": bars("A")}, Terms(slippage_rate=Decimal(-1)), "slippage_rate was -1"),
    "weight": ([message()], {"A": bars("A")}, Terms(weight=Decimal(2)), "weight was 2"),
    "world": ([message()], {"A": bars("A")}, Terms(world_id="a b/c"), "world_id"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_no_log_would_take_is_refused(case: str) -> None:
    messages, given_, terms, says = REFUSED[case]
    with pytest.raises(QmtlError, match=says):
        simulate(messages, given_, terms)


def test_fills_that_do_not_give_the_equity_of_the_account_are_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    done = simulate([message()], {one: bars(one) for one in SYMBOLS})
    place = "qmtl.interfaces.report.from_backtest.curve_of"
    monkeypatch.setattr(place, lambda cash, fills, *rest: curve_of(cash, fills[1:], *rest))
    with pytest.raises(InvariantBroken, match="fills and bars give an equity"):
        result_of(done)


def test_the_span_is_that_of_all_symbols() -> None:
    assert span_of({"A": bars("A", 5, 30), "B": bars("B", 0, 20)}) == (
        60,
        START_MS,
        START_MS + 29 * 60_000,  # minute 28 is A's last, as every tenth is absent
    )
