"""Nodes of built-in types: `builtin(name, inputs, **params)`, and a function for each type that there is, such as `sma(node, period)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from qmtl.foundation.common.errors import InvalidStrategy
from qmtl.runtime.indicators.builtin import kind
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY
from qmtl.runtime.sdk.nodes import BuiltinNode, Node


def builtin(
    node_type: str,
    inputs: Node | Sequence[Node],
    period: int | None = None,
    *,
    name: str | None = None,
    interval: int | str | None = None,
    tags: Iterable[str] = (),
    **params: Any,
) -> BuiltinNode:
    """A node of a built-in type.

    Args:
        node_type: a name out of `qmtl.runtime.indicators.registry.BUILTINS`.
        inputs: one node per port.
        params: those of the type.

    Raises:
        UnknownNodeType: none of that name.
        InvalidStrategy: another number of inputs, or parameters out of their rule.
    """
    reads = (inputs,) if isinstance(inputs, Node) else inputs
    return BuiltinNode(
        node_type, reads, params=params, name=name, interval=interval, period=period, tags=tags
    )


def _make(node_type: str, *inputs: Node | int, period: int | None = None, **rest: Any) -> BuiltinNode:
    """Nodes by port, and behind them the period, if the node has one."""
    nodes = [one for one in inputs if isinstance(one, Node)]
    if len(nodes) == len(inputs):
        return builtin(node_type, nodes, period, **rest)
    last = inputs[-1]
    if len(nodes) < len(inputs) - 1 or isinstance(last, Node) or period is not None:
        raise InvalidStrategy(
            f"a {node_type} node was given {', '.join(map(kind, inputs))}; it takes nodes by port, and then its period.",
            f"Write for example {node_type}(node, period=10).",
        )
    return builtin(node_type, nodes, last, **rest)


def __getattr__(name: str) -> Callable[..., BuiltinNode]:
    """A function of the name of each built-in type: inputs by port, then the period; parameters by name."""
    if name in BUILTINS and name not in (SOURCE, TAG_QUERY):
        return partial(_make, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
