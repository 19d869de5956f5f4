"""What a node is to the graph: a built-in type, or one of the two kinds of Python nodes; and the messages that its topic has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from qmtl.foundation.common.identity import schema_compat_id, schema_hash
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, PositionTarget
from qmtl.foundation.wire.avro import Schema, avro_schema
from qmtl.foundation.wire.compat import major
from qmtl.foundation.wire.versions import schema_dir, stored_versions
from qmtl.runtime.indicators.builtin import Builtin
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO, PORTFOLIO_NODE, PortfolioNode
from qmtl.runtime.sdk.python_node import PYTHON, TARGET, PythonNode

NodeType: TypeAlias = Builtin | PortfolioNode | PythonNode

TYPES: Final[Mapping[str, NodeType]] = {
    **BUILTINS,
    PORTFOLIO: PORTFOLIO_NODE,
    PYTHON: PythonNode(NodeValue),
    f"{PYTHON}.{TARGET}": PythonNode(PositionTarget),
}
"""By kind. The kind of a built-in node is its type; a Python node that gives targets has another than one that gives numbers."""


_WRITTEN: Final[Mapping[str, type[Any]]] = {
    kind: Bar if kind == SOURCE else one.output for kind, one in TYPES.items()
}
"""What lies in the topic of a node of each kind; a source's has bars."""

_STORED: Final[Mapping[str, Sequence[Schema]]] = {
    kind: [schema for _, schema in stored_versions(schema_dir(), one.__name__)]
    for kind, one in _WRITTEN.items()
}

SCHEMA: Final[Mapping[str, str]] = {kind: schema_hash(avro_schema(one)) for kind, one in _WRITTEN.items()}
"""Of what this code writes into the topic of a node of each kind. A node has it whatever its author says."""

SCHEMAS: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset(map(schema_hash, schemas)) for kind, schemas in _STORED.items()
}
"""Of all versions of that schema: an author with an older release says an older one."""

COMPAT: Final[Mapping[str, str]] = {
    kind: schema_compat_id(f"qmtl.{kind}", major(schemas)) for kind, schemas in _STORED.items()
}
"""The major of the same schema among all of its versions: what a node of each kind keeps until it writes what older code can't read."""


def kind_of(node_type: str, params: Mapping[str, Any]) -> str:
    """The kind of a node as it was published; empty where no type has that name."""
    if node_type == PYTHON:
        return f"{PYTHON}.{TARGET}" if params.get("gives") == TARGET else PYTHON
    return node_type if node_type in BUILTINS or node_type == PORTFOLIO else ""


def gives_targets(node: ComputeNode) -> bool:
    """Whether what an existing node emits is a position target. Of a Python node its format tells, which is hashed."""
    if node.node_type == PYTHON:
        return node.schema_compat_id == COMPAT[f"{PYTHON}.{TARGET}"]
    known = BUILTINS.get(node.node_type)
    return known is not None and known.output is PositionTarget


def is_target(kind: str) -> bool:
    """Whether a signal can be of a kind; one that is not known has been told of already."""
    known = TYPES.get(kind)
    return known is None or known.output is PositionTarget
