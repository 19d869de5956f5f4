"""The nodes of one or more strategies as a check sees them: inputs before what reads them, each once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.runtime.sdk.python_node import PYTHON


@dataclass(frozen=True, slots=True)
class ProgramNode:
    """A node under the name that the first of its strategies gives it.

    Attributes:
        code: where its function is; empty of a built-in one.
    """

    name: str
    node: ComputeNode
    code: str = ""

    @property
    def node_id(self) -> str:
        return self.node.node_id

    @property
    def is_python(self) -> bool:
        return self.node.node_type == PYTHON

    @property
    def bars_kept(self) -> int:
        """How many bars its function looks back on."""
        return int(json.loads(self.node.params_canon)["bars"]) if self.is_python else 0

    @property
    def params(self) -> Mapping[str, Any]:
        """What its function is told besides its view; empty of a built-in node."""
        params: Mapping[str, Any] = json.loads(self.node.params_canon)["params"] if self.is_python else {}
        return params


@dataclass(frozen=True, slots=True)
class Program:
    """What is computed.

    Attributes:
        nodes: inputs before what reads them.
        signals: ids of the nodes whose targets are traded, each once.
    """

    nodes: tuple[ProgramNode, ...]
    signals: tuple[str, ...]

    def node(self, node_id: str) -> ProgramNode:
        return next(one for one in self.nodes if one.node_id == node_id)

    def readers(self, node_id: str) -> tuple[ProgramNode, ...]:
        """All that read a node, at whatever distance, in their order."""
        reached = {node_id}
        found = []
        for one in self.nodes:
            if reached.intersection(one.node.dependencies):
                reached.add(one.node_id)
                found.append(one)
        return tuple(found)

    def warm_ups(self) -> Mapping[str, int]:
        """How many bars each node needs at least: the periods along its longest path."""
        found: dict[str, int] = {}
        for one in self.nodes:
            before = max((found[read] for read in one.node.dependencies), default=0)
            found[one.node_id] = before + max(one.node.period, 1) - (1 if one.node.dependencies else 0)
        return found
