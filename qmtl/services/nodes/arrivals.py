"""What comes to a node in a bucket: bars that keep their source's contract, and the values of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from qmtl.foundation.contracts.market import Bar, fault_of
from qmtl.runtime.indicators.builtin import Inputs, Output
from qmtl.services.nodes.plan import PlanNode

Bars: TypeAlias = Mapping[str, Mapping[str, Bar]]
"""The bars of one bucket by source and symbol: two sources may have different bars of one symbol."""


def breach(one: PlanNode, bar: Bar, bucket_ms: int) -> str | None:
    """What a bar breaks of its source's contract."""
    if bar.interval != one.node.interval:
        return f"a bar of {bar.interval} s came to a source of {one.node.interval} s"
    if bar.open_time_ms + bar.interval * 1000 != bucket_ms:
        return f"a bar that opened at {bar.open_time_ms} came with the bucket {bucket_ms}"
    if bucket_ms % 1000:
        return f"a bar closed at {bucket_ms}, within a second; a bucket of a node closes at a whole one"
    if not one.reads(bar.symbol):
        return f"a bar of {bar.symbol} came to a source that does not read it"
    return fault_of(bar)


def bar_of(one: PlanNode, symbol: str, bars: Bars) -> Bar | None:
    """A symbol's bar of this bucket from the sources above the node; where several have one, from the first as its ports lead."""
    for source in one.sources:
        if (bar := bars[source].get(symbol)) is not None:
            return bar
    return None


def inputs_of(one: PlanNode, values: Mapping[str, Mapping[str, Output]]) -> list[tuple[str, Inputs]]:
    """What a node takes in a bucket of each symbol, in their order. Of the many that may answer a tag query most have few symbols, so
    that one takes the values that there are."""
    ports = [values.get(node_id, {}) for node_id in one.node.dependencies]
    if not one.is_query:
        symbols = sorted({symbol for port in ports for symbol in port})
        return [(symbol, tuple([_number(port.get(symbol)) for port in ports])) for symbol in symbols]
    found: dict[str, list[float]] = {}
    for port in ports:
        for symbol, value in port.items():
            if isinstance(value, float):
                found.setdefault(symbol, []).append(value)
    return [(symbol, tuple(found[symbol])) for symbol in sorted(found)]


def _number(value: Output | None) -> float | None:
    return value if isinstance(value, float) else None
