"""What a built-in node is: parameters that are checked once, and a running part that takes one step per bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow, PositionTarget

MAX_PERIOD = 100_000


@dataclass(frozen=True, slots=True)
class PositionTargetValue:
    """What a target node emits; its worker adds node, symbol and bucket.

    Attributes:
        target_percent: share of the strategy's equity to hold, -1 to 1.
        reference_price: the price that the decision saw, quote currency.
    """

    target_percent: Decimal
    reference_price: Decimal


Output: TypeAlias = float | PositionTargetValue
"""What a node emits for one symbol and bucket: a number, or a position target."""

Inputs: TypeAlias = tuple[float | None, ...]
"""One value per port, in the order of the ports; `None` where the input emitted nothing in this bucket. Of a tag query the values
that there are, in the order of the topics that answer it."""


class Running(Protocol):
    """A node of one symbol while it runs: a mutable fold over its buckets, each step O(1) whatever the window."""

    def step(self, inputs: Inputs, bar: Bar) -> Output | None:
        """Takes the inputs of one bucket.

        Args:
            inputs: as many as the node has ports.
            bar: the symbol's bar of this bucket.

        Returns:
            The output, or `None` during warm-up and where the node has nothing to say.
        """
        ...

    def basis(self, bar: Bar) -> bytes:
        """What the output of the last step is a function of beside the step's inputs: of earlier buckets, and of the bar.

        Asked for after a step that gave an output. Two steps of a node with equal inputs and equal bytes have given equal outputs;
        what did not count stays out, as how many inputs there were before the window.

        Args:
            bar: of the last step.
        """
        ...

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        """All that the fold remembers. `resume` of it goes on bit for bit; asked for once per transaction, not per step."""
        ...


class Builtin(Protocol):
    """A built-in node type.

    Attributes:
        name: the `node_type`.
        version: part of the code hash: it changes whenever the outputs do.
        ports: how many inputs a node of this type has; 0 for one that reads no node by name: a source, and a tag query.
        output: the contract that a worker wraps the output into.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def ports(self) -> int: ...

    @property
    def output(self) -> type[NodeValue] | type[PositionTarget]: ...

    def parse(self, params: Mapping[str, object], period: int) -> Any:
        """The checked parameters, in the type's own form; made once and handed to `resume` for every symbol.

        Args:
            params: the functional parameters of the node.
            period: of the node.

        Raises:
            InvalidParameter: the first of `refusals`.
        """
        ...

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        """All that is wrong: unknown, missing and out-of-range parameters, and a period that no node of this type can have.

        Args:
            params: the functional parameters of the node.
            period: of the node.
        """
        ...

    def resume(self, params: Any, window: NodeWindow | None) -> Running:
        """The running part with what it remembered; `None` starts it afresh.

        Args:
            params: what `parse` of the same type returned.
        """
        ...


def refuse_first(refusals: Iterator[InvalidParameter]) -> None:
    """Raises: InvalidParameter, the first one, if there is any."""
    for refused in refusals:
        raise refused


def strangers(
    node_type: str, params: Mapping[str, object], known: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[InvalidParameter]:
    """Refusals of parameters that are neither `known` nor `optional`, and then of known ones that are missing, each by name with what is
    taken."""
    for name in sorted(params):
        if name not in known and name not in optional:
            takes = ", ".join((*known, *optional)) or "none"
            yield InvalidParameter(
                f"parameter {name!r} of a {node_type} node is unknown; it takes {takes}.",
                "Leave it out or rename it.",
            )
    for name in known:
        if name not in params:
            yield InvalidParameter(
                f"parameter {name!r} of a {node_type} node was missing; it is required.",
                f"Add {name!r} to its params.",
            )


def is_period(period: int, least: int = 0) -> bool:
    """Whether it is a whole number from `least` to `MAX_PERIOD`."""
    return type(period) is int and least <= period <= MAX_PERIOD


def bad_period(node_type: str, period: int, least: int = 0) -> Iterator[InvalidParameter]:
    """A refusal of a period that is no whole number from `least` to `MAX_PERIOD`, naming the type, the value and the range."""
    if not is_period(period, least):
        yield InvalidParameter(
            f"period of a {node_type} node was {kind(period)}; a whole number from {least} to {MAX_PERIOD} is required.",
            "Send how many inputs the node looks back on.",
        )


def kind(value: object) -> str:
    """What a value is, in words, for an error."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()}"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, int | float | Decimal):
        return f"the number {value}"
    return f"a {type(value).__name__}"
