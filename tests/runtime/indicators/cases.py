"""Nodes of every built-in type, with parameters that reach all of its branches, and how they are run over records and over columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import strategies as st

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.foundation.wire.registry import codec
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.builtin import Inputs, Output
from qmtl.runtime.indicators.registry import BUILTINS, COLUMNAR

SYMBOL = "X"
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Case:
    """One node.

    Attributes:
        least: the smallest period that it can have.
    """

    node_type: str
    params: dict[str, object] = field(default_factory=dict)
    least: int = 0

    @property
    def ports(self) -> int:
        return BUILTINS[self.node_type].ports

    def __str__(self) -> str:
        return "-".join([self.node_type, *map(str, self.params.values())])


LEVELS: dict[str, object] = {"lower_enter": -2, "lower_exit": -1, "upper_exit": 0.5, "upper_enter": 2.0}
TARGETS: dict[str, object] = {"long_percent": "0.5", "short_percent": -0.25}

CASES = (
    Case("price", {"symbols": ["X"]}),
    Case("sma", least=1),
    Case("cross"),
    Case("cross", {"turns_only": True}),
    Case("position_target", TARGETS),
    Case("position_target", {**TARGETS, "on_change": True}),
    Case("position_target", {"long_percent": 1, "short_percent": 0, "on_change": True}),
    Case("ema", least=1),
    Case("wma", least=1),
    *(
        Case("macd", {"fast": 2, "signal": 3, "output": output}, 3)
        for output in ("value", "signal", "histogram")
    ),
    Case("rsi", least=1),
    Case("atr", least=1),
    *(
        Case("bollinger", {"band": band, "k": 2}, 1)
        for band in ("upper", "middle", "lower", "percent_b", "bandwidth")
    ),
    Case("std", {"ddof": 0}, 1),
    Case("std", {"ddof": 1}, 2),
    Case("zscore", {"ddof": 0}, 2),
    Case("zscore", {"ddof": 1}, 2),
    Case("correlation", least=2),
    Case("min", least=1),
    Case("max", least=1),
    *(Case("quantile", {"q": q}, 1) for q in (0, 0.25, 0.5, 0.9, 1)),
    Case("returns", {"kind": "simple"}, 1),
    Case("returns", {"kind": "log"}, 1),
    Case("vwap", least=1),
    *(
        Case("resample", {"every": every, "take": take})
        for every, take in (
            (180, "first"),
            (180, "last"),
            (120, "min"),
            (300, "max"),
            (60, "sum"),
            (240, "mean"),
            (90, "sum"),
            (180, "open"),
            (180, "high"),
            (240, "low"),
            (180, "close"),
            (180, "volume"),
        )
    ),
    Case("threshold", LEVELS),
    *(Case("combine", {"rule": rule}) for rule in ("min", "max", "and", "or")),
    Case("linear", {"weights": [1.5, -2], "constant": 0.1}),
)

few = st.sampled_from([-3.0, -1.0, -0.0, 0.0, 0.1, 0.2, 0.3, 1.0, 2.5])
prices = st.integers(1, 10_000_000).map(lambda units: units / 100)
tame = st.floats(-1e6, 1e6).map(lambda value: round(value, 4))
wild = st.floats(allow_nan=False, allow_infinity=False)
"""Everything that a node may give, the smallest and the largest float among them."""


def bars(seed: int, count: int) -> list[Bar]:
    """Of few prices and volumes, some of them zero."""
    chance = Random(seed)
    out = []
    for at in range(count):
        low, open_, close, high = (Decimal(one) / 100 for one in sorted(chance.choices(range(1, 999), k=4)))
        if chance.random() < 0.5:
            open_, close = close, open_
        volume = Decimal(chance.randrange(4)) / 10
        out.append(Bar(SYMBOL, at * MINUTE_MS, 60, open_, high, low, close, volume))
    return out


@st.composite
def runs(draw: st.DrawFn, case: Case, most: int = 30) -> tuple[int, list[Inputs], list[Bar]]:
    """A period, and inputs with gaps and ties out of one kind of number, each with its bar."""
    period = draw(st.integers(case.least, case.least + 6))
    count = draw(st.integers(0, most))
    values = draw(st.sampled_from([few, prices, tame, wild, few | wild]))
    port = values if draw(st.booleans()) else st.none() | values
    rows = draw(st.lists(st.tuples(*[port] * case.ports), min_size=count, max_size=count))
    return period, rows, bars(draw(st.integers(0, 1 << 30)), count)


def stepped(
    case: Case, period: int, rows: Sequence[Inputs], market: Sequence[Bar], window: NodeWindow | None = None
) -> tuple[list[Output | None], NodeWindow]:
    """What the steps give, and what is remembered after them."""
    kind = BUILTINS[case.node_type]
    running = kind.resume(kind.parse(case.params, period), window)
    out = [running.step(row, bar) for row, bar in zip(rows, market, strict=True)]
    return out, running.to_window("" if window is None else window.node_id, SYMBOL)


def columned(
    case: Case, period: int, rows: Sequence[Inputs], market: Sequence[Bar], window: NodeWindow | None = None
) -> tuple[list[Any], NodeWindow]:
    """What the columns give."""
    kind = COLUMNAR[case.node_type]
    ports = tuple(Column.of([row[port] for row in rows]) for port in range(kind.ports))
    told, after = kind.columns(
        kind.parse(case.params, period), ports, BarColumns.of(SYMBOL, 60, market), window
    )
    return list(told.items()), after


def kept(window: NodeWindow) -> NodeWindow:
    """A window as it is read again from its record."""
    found = codec.decode(codec.encode(window))
    assert isinstance(found, NodeWindow)
    return found


def bits(values: Sequence[Any]) -> list[Any]:
    """Outputs so that they are equal only if each bit is."""
    return [value.hex() if isinstance(value, float) else value for value in values]
