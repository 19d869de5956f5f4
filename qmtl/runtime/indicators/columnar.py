"""Built-in nodes over columns: what the steps give, bit for bit, for many buckets of one symbol at once.

The steps say what a node is. A column of outputs is theirs, whatever the numbers, from whatever window, and however the buckets are split
into chunks; so a backtest over columns and a worker over records say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Flags, Floats, Integers, Scaled
from qmtl.runtime.indicators.builtin import Builtin, PositionTargetValue, Running

NO_TARGET = -1
"""The index of a bucket without a target."""


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """What a target node gave in consecutive buckets for one symbol.

    Attributes:
        percents: the few shares that there are, exact, each once.
        index: int8, which of them a bucket has; `NO_TARGET` where the node gave none.
        reference_price: of every bucket, the close; it counts where a target is.
    """

    percents: tuple[Decimal, ...]
    index: NDArray[np.int8]
    reference_price: Scaled

    def __len__(self) -> int:
        return len(self.index)

    @property
    def there(self) -> Flags:
        """Where the node gave a target."""
        return np.asarray(self.index != NO_TARGET, dtype=np.bool_)

    def at(self, index: int) -> PositionTargetValue | None:
        """One bucket's, as a step gives it."""
        chosen = int(self.index[index])
        if chosen == NO_TARGET:
            return None
        return PositionTargetValue(self.percents[chosen], self.reference_price.at(index))

    def items(self) -> list[PositionTargetValue | None]:
        """All buckets', as steps give them."""
        return [self.at(index) for index in range(len(self))]

    def chunk(self, begin: int, end: int) -> Targets:
        """Those from `begin` up to `end`, as views of the same memory."""
        return Targets(self.percents, self.index[begin:end], self.reference_price.chunk(begin, end))


class Columnar(Builtin, Protocol):
    """A built-in node that also computes in columns."""

    def columns(
        self, params: Any, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column | Targets, NodeWindow]:
        """What as many steps give for one symbol.

        Args:
            params: what `parse` of the same type returned.
            inputs: one per port, of as many buckets as there are bars.
            bars: the symbol's, one per bucket.
            window: what the node remembers of the symbol; `None` where it begins.

        Returns:
            The outputs, one per bucket, and what the node remembers after them: steps and further columns go on from it. It has the
            node's id of `window`, an empty one where there was none, and the symbol of the bars.

        Raises:
            InvalidValue: columns of another length.
        """
        ...


class Folding(Running, Protocol):
    """A running node that also takes many steps at once."""

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        """Takes the steps of those buckets in which all inputs are there.

        Args:
            ports: the inputs of these buckets alone.
            bars: of all buckets.
            at: the places of these buckets among the bars, ascending.

        Returns:
            The outputs of these buckets. Where nothing is there the value may be any.
        """
        ...


def fires(inputs: tuple[Column, ...], bars: BarColumns) -> Integers:
    """The buckets in which all inputs are there, ascending; without inputs those are all.

    Raises:
        InvalidValue: an input of another length than the bars.
    """
    for place, port in enumerate(inputs):
        if len(port) != len(bars):
            raise InvalidValue(
                f"input {place} had {len(port)} buckets; the bars have {len(bars)}.",
                "Give one value, or nothing, per bar.",
            )
    if not inputs:
        return np.arange(len(bars), dtype=np.int64)
    there = inputs[0].there
    for port in inputs[1:]:
        there = there & port.there
    return np.flatnonzero(there)


def folded(
    running: Folding, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
) -> tuple[Column, NodeWindow]:
    """`Columnar.columns` of a node that is silent, and remembers nothing, where an input is."""
    at = fires(inputs, bars)
    given = running.fold(tuple(port.values[at] for port in inputs), bars, at)
    values = np.zeros(len(bars), dtype=np.float64)
    there = np.zeros(len(bars), dtype=np.bool_)
    spoken = at[given.there]
    values[spoken] = given.values[given.there]
    there[spoken] = True
    return Column(values, there), after(running, bars, window)


def after(running: Running, bars: BarColumns, window: NodeWindow | None) -> NodeWindow:
    """What a node remembers, under the names that it had."""
    return running.to_window("" if window is None else window.node_id, bars.symbol)


def stepped(
    running: Running, ports: Sequence[Floats], bars: BarColumns, at: Integers, needs_bar: bool = True
) -> Column:
    """The outputs of a node of numbers, step by step.

    Args:
        needs_bar: whether a step reads its bar; one that does not is given the first one.
    """
    rows = zip(*(port.tolist() for port in ports), strict=True)
    out: list[float | None] = []
    bar = bars.bar(0) if len(bars) else None
    for index, row in zip(at.tolist(), rows, strict=True):
        if needs_bar:
            bar = bars.bar(index)
        assert bar is not None  # a place among the bars says that there is one
        value = running.step(row, bar)
        assert not isinstance(value, PositionTargetValue)
        out.append(value)
    return Column.of(out)
