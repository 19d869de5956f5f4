"""The source of a graph: the close of each bar of its symbols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs, bad_period, is_period, kind, refuse_first, strangers
from qmtl.runtime.indicators.columnar import folded


@dataclass(frozen=True, slots=True)
class PriceParams:
    """What a source reads.

    Attributes:
        symbols: sorted, each once.
    """

    symbols: tuple[str, ...]


class _Price:
    __slots__ = ("_seen",)

    def __init__(self, window: NodeWindow | None) -> None:
        self._seen = 0 if window is None else window.seen

    def step(self, inputs: Inputs, bar: Bar) -> float:
        self._seen += 1
        return float(bar.close)

    def basis(self, bar: Bar) -> bytes:
        return text(bar.close).encode()

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen)

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        self._seen += len(at)
        return Column.full(bars.close.floats())


@dataclass(frozen=True, slots=True)
class Price:
    """Emits the close as a float, whose shortest text is the published price up to 15 digits.

    Parameters: `symbols`, the texts that the source reads; their order makes no difference.
    """

    name: str = "price"
    version: str = "1"
    ports: int = 0
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> PriceParams:
        if len(params) != 1 or not is_period(period) or [*_bad_symbols(params.get("symbols"))]:
            refuse_first(self.refusals(params, period))
        symbols = cast(Sequence[str], params["symbols"])
        return PriceParams(tuple(sorted(symbols)))

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from bad_period(self.name, period)
        yield from strangers(self.name, params, ("symbols",))
        if "symbols" in params:
            yield from _bad_symbols(params["symbols"])

    def resume(self, params: PriceParams, window: NodeWindow | None) -> _Price:
        return _Price(window)

    def columns(
        self, params: PriceParams, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        return folded(_Price(window), inputs, bars, window)


def _bad_symbols(symbols: object) -> Iterator[InvalidParameter]:
    if not isinstance(symbols, list | tuple) or not symbols:
        yield InvalidParameter(
            f"symbols of a price node was {kind(symbols)}; a list of at least one symbol is required.",
            'Send a list such as ["BTC-USD"].',
        )
        return
    texts = [symbol for symbol in symbols if isinstance(symbol, str) and symbol]
    if len(texts) < len(symbols):
        other = next(symbol for symbol in symbols if not isinstance(symbol, str) or not symbol)
        yield InvalidParameter(
            f"symbols of a price node held {kind(other)}; each is a text of at least one character.",
            'Send a list such as ["BTC-USD"].',
        )
    if len(set(texts)) != len(texts):
        yield InvalidParameter(
            "symbols of a price node held a symbol twice; each counts once.", "Send it once."
        )
