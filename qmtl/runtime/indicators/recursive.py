"""A node whose next state follows from the last one and one input: a few floats, whatever the period."""

from __future__ import annotations

import math
from collections.abc import Sequence
from struct import pack
from typing import Protocol, TypeAlias

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.columnar import stepped
from qmtl.runtime.indicators.exact import finite, require_finite

State: TypeAlias = tuple[float, ...]


class Recursion(Protocol):
    """A state and how it moves: in float64, by the same operations in the same order in steps and in columns.

    Attributes:
        names: of the numbers of a state, under which they are remembered.
        begin: the state before the first input.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def begin(self) -> State: ...

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        """The next state, and the output. A state that is not finite is not taken, and an output that is not is not given."""
        ...

    def reads(self, bar: Bar) -> bytes:
        """What an output is a function of beside state and inputs."""
        ...

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        """The last state, and the outputs, NaN where there is none. If the last state is not finite, neither counts: an infinity in a state
        stays there."""
        ...


class Recursive:
    """A recursion with its state. An input by which the state would leave the finite numbers is passed over."""

    __slots__ = ("_before", "_name", "_recursion", "_seen", "_state")

    def __init__(self, name: str, recursion: Recursion, window: NodeWindow | None) -> None:
        self._name = name
        self._recursion = recursion
        self._seen = 0 if window is None else window.seen
        memory = {} if window is None else window.memory or {}
        self._state = (
            tuple(float.fromhex(memory[one]) for one in recursion.names) if memory else recursion.begin
        )
        self._before = self._state

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        values = [value + 0.0 for value in inputs if value is not None]
        if len(values) < len(inputs):
            return None
        require_finite(self._name, *values)
        self._seen += 1
        state, value = self._recursion.move(self._state, values, bar)
        if not all(map(math.isfinite, state)):
            return None
        self._before, self._state = self._state, state
        return value if value is not None and math.isfinite(value) else None

    def basis(self, bar: Bar) -> bytes:
        return pack(f">{len(self._before)}d", *self._before) + self._recursion.reads(bar)

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        memory = {name: value.hex() for name, value in zip(self._recursion.names, self._state, strict=True)}
        return NodeWindow(node_id, symbol, self._seen, (), memory)

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        fresh = tuple(port + 0.0 for port in ports)  # of the two zeros there is one
        state, values = self._recursion.move_all(self._state, fresh, bars, at)
        if not all(map(math.isfinite, state)):
            return stepped(self, ports, bars, at)
        self._seen += len(at)
        self._state = state
        return finite(values)
