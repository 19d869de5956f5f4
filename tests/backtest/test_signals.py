"""What the signals of a strategy want is all there, in its order, up to where a node fails."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target
from qmtl.backtest.simulation import simulate
from qmtl.runtime.sdk.loading import message_of
from tests.backtest.test_simulation import SYMBOLS, bars, two_signals
from tests.runtime.data.walk import START_MS

BARS = {symbol: bars(symbol) for symbol in SYMBOLS}


def steady(view: CacheView) -> Target:
    """A target in each bucket, until the symbol's end."""
    if view.bucket_ms >= view.params[view.symbol]:
        raise ValueError(f"{view.symbol} has ended")
    return Target(0.1)


class Steady(Strategy):
    def __init__(self, ends: Mapping[str, int]) -> None:
        super().__init__()
        self.ends = ends

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price")
        node = ProcessingNode(price, steady, name="steady", gives="target", params=dict(self.ends))
        self.add_nodes([price, node])


@pytest.mark.parametrize("minutes", list(itertools.permutations([24, 35, 52])))
def test_a_node_that_fails_is_silent_for_all_symbols_from_its_first_failure_on(
    minutes: tuple[int, ...],
) -> None:
    # Each of these minutes has a bar before it, whose bucket it ends.
    ends = {symbol: START_MS + at * 60_000 for symbol, at in zip(SYMBOLS, minutes, strict=True)}
    first = min(ends, key=ends.__getitem__)
    done = simulate([message_of(Steady(ends), 60)], BARS)
    (fault,) = done.faults
    assert (fault.name, fault.bucket_ms) == ("steady", ends[first])
    assert f"{first} has ended" in fault.error.what
    assert [(one.bucket_ms, one.symbol) for one in done.intents] == [
        (bucket_ms, symbol)
        for bucket_ms in BARS["A"].bucket_ms.tolist()
        if bucket_ms < ends[first]
        for symbol in SYMBOLS
    ]


@pytest.mark.parametrize("has_functions", [False, True])
def test_how_many_wants_are_made_at_once_makes_no_difference(
    monkeypatch: pytest.MonkeyPatch, *, has_functions: bool
) -> None:
    never = dict.fromkeys(SYMBOLS, START_MS + 10**9)
    message = message_of(Steady(never), 60) if has_functions else two_signals()
    whole = simulate([message], BARS).intents
    assert len(whole) > 10
    for chunk in (1, 3, 7):
        monkeypatch.setattr("qmtl.backtest.signals.CHUNK", chunk)
        assert simulate([message], BARS).intents == whole
