"""The artifacts among a node's canonical parameters."""

from __future__ import annotations

from qmtl.foundation.common.canonical import canonical_json, parse_canonical_json
from qmtl.foundation.common.identity import ARTIFACTS
from qmtl.foundation.contracts.dag import ComputeNode


def used_by(node: ComputeNode) -> tuple[str, ...]:
    """The checksums of the artifacts that a node uses, sorted."""
    if f'"{ARTIFACTS}"' not in node.params_canon:
        return ()
    found: list[str] = parse_canonical_json(node.params_canon).get(ARTIFACTS, [])
    return tuple(found)


def own_canon(node: ComputeNode) -> str:
    """The canonical JSON of a node's parameters as its message has them, without the artifacts that it uses."""
    if not used_by(node):
        return node.params_canon
    params = parse_canonical_json(node.params_canon)
    return canonical_json({name: value for name, value in params.items() if name != ARTIFACTS})
