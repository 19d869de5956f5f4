"""What most built-in nodes have in common: numbers in, a number out, all parameters required, columns as well as steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.builtin import bad_period, refuse_first
from qmtl.runtime.indicators.columnar import Folding, folded
from qmtl.runtime.indicators.parameters import NO_RULES, Rules, read, refusals

Along = Callable[[int, Mapping[str, Any]], Iterator[InvalidParameter]]
"""What is wrong with period and parameters together, where each by itself is sound."""


def nothing_more(period: int, values: Mapping[str, Any]) -> Iterator[InvalidParameter]:
    """Nothing is."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Parsed:
    """The checked parameters.

    Attributes:
        values: by name, in the form of their rules.
    """

    period: int
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Indicator:
    """A built-in node of numbers. It is silent, and remembers nothing, in a bucket in which an input is.

    Attributes:
        ports: as in `Builtin`, and so are `name`, `version` and `output`.
        start: the running node, fresh or with what it remembered.
        least: the smallest period.
        rules: of the parameters.
        along: of parameters together.
    """

    name: str
    ports: int
    start: Callable[[Parsed, NodeWindow | None], Folding]
    least: int = 0
    rules: Rules = field(default_factory=lambda: NO_RULES)
    along: Along = nothing_more
    version: str = "1"
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> Parsed:
        refuse_first(self.refusals(params, period))
        return Parsed(period, read(params, self.rules))

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        alone = [*refusals(self.name, params, self.rules), *bad_period(self.name, period, self.least)]
        yield from alone
        if not alone:
            yield from self.along(period, read(params, self.rules))

    def resume(self, params: Parsed, window: NodeWindow | None) -> Folding:
        return self.start(params, window)

    def columns(
        self, params: Parsed, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        return folded(self.start(params, window), inputs, bars, window)
