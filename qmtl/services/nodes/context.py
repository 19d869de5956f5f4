"""The compute keys of a shard's nodes: what a node keeps belongs to the context in which it was computed, and to no other."""

from __future__ import annotations

from typing import Final

from qmtl.foundation.common.compute_context import compute_key
from qmtl.foundation.contracts.context import NO_CONTEXT, NodeContext

NAMED: Final = 10
"""Nodes that a row names, at most."""


class ComputeKeys:
    """The keys of nodes in one context, made once each; empty texts while nobody has said one."""

    def __init__(self, row: NodeContext | None) -> None:
        self._context = None if row is None or row.context == NO_CONTEXT else row.context.read()
        self._is_shared = row is None or row.context.shared_worlds
        self._keys: dict[str, str] = {}

    @property
    def world_id(self) -> str | None:
        """The one world for which all is computed; None where worlds share it, or nobody has said."""
        return None if self._context is None or self._is_shared else self._context.world_id

    def of(self, node_id: str) -> str:
        if self._context is None:
            return ""
        found = self._keys.get(node_id)
        if found is None:
            found = self._keys[node_id] = compute_key(node_id, self._context)
        return found
