"""QMTL: strategies as graphs of shared nodes over a log of events, where every state is a topic.

What the author of a strategy needs is here by name, and is loaded when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qmtl.backtest.simulation import Terms as Terms
    from qmtl.interfaces.runner import Runner as Runner
    from qmtl.runtime.sdk.builtins import builtin as builtin
    from qmtl.runtime.sdk.functions import register as register
    from qmtl.runtime.sdk.message import dag_message as dag_message
    from qmtl.runtime.sdk.nodes import BuiltinNode as BuiltinNode
    from qmtl.runtime.sdk.nodes import Node as Node
    from qmtl.runtime.sdk.nodes import PortfolioInput as PortfolioInput
    from qmtl.runtime.sdk.nodes import ProcessingNode as ProcessingNode
    from qmtl.runtime.sdk.nodes import StreamInput as StreamInput
    from qmtl.runtime.sdk.nodes import TagQueryNode as TagQueryNode
    from qmtl.runtime.sdk.python_node import Target as Target
    from qmtl.runtime.sdk.strategy import Strategy as Strategy
    from qmtl.runtime.sdk.view import CacheView as CacheView

__version__ = "0.1.0"

_HOMES: Final = {
    "BuiltinNode": "qmtl.runtime.sdk.nodes",
    "CacheView": "qmtl.runtime.sdk.view",
    "Node": "qmtl.runtime.sdk.nodes",
    "PortfolioInput": "qmtl.runtime.sdk.nodes",
    "ProcessingNode": "qmtl.runtime.sdk.nodes",
    "Runner": "qmtl.interfaces.runner",
    "Strategy": "qmtl.runtime.sdk.strategy",
    "StreamInput": "qmtl.runtime.sdk.nodes",
    "TagQueryNode": "qmtl.runtime.sdk.nodes",
    "Target": "qmtl.runtime.sdk.python_node",
    "Terms": "qmtl.backtest.simulation",
    "builtin": "qmtl.runtime.sdk.builtins",
    "dag_message": "qmtl.runtime.sdk.message",
    "register": "qmtl.runtime.sdk.functions",
}

__all__ = [
    "BuiltinNode",
    "CacheView",
    "Node",
    "PortfolioInput",
    "ProcessingNode",
    "Runner",
    "Strategy",
    "StreamInput",
    "TagQueryNode",
    "Target",
    "Terms",
    "builtin",
    "dag_message",
    "register",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
