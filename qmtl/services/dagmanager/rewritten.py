"""The DAG message of a version that is known, out of its rows, to be judged as if it were published today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.dag import ComputeNode, VersionSentinel
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.message import SCHEMA_VERSION
from qmtl.services.dagmanager.node_artifacts import own_canon, used_by


def message_of(catalogue: Catalogue, version: VersionSentinel, label: str) -> bytes:
    """A DAG message with the graph of a version, all that its author said of it, and neither the hashes of its code, nor its formats and
    schemas, so that it gets those of today; nor its release tag, which is the name of that version and would be two versions' then. It
    is written compactly: what was short enough once is so again.

    Args:
        label: what the version is called from now on.
    """
    names = dict(zip(version.node_ids, version.names, strict=True))
    nodes = {node_id: _known(catalogue, version, node_id) for node_id in names}
    used = dict.fromkeys(one for node in nodes.values() for one in used_by(node))
    files = {checksum: f"{place:x}" for place, checksum in enumerate(used)}
    known = [(name, found) for one, name in files.items() if (found := catalogue.artifact(one)) is not None]
    head = {
        "schema_version": SCHEMA_VERSION,
        "strategy_id": version.strategy_id,
        "meta": {"version": label},
        "artifacts": [
            _said({"name": name, **asdict(replace(found, unneeded_since_ms=None))}, keep=("size",))
            for name, found in known
        ],
        "signals": [names[node_id] for node_id in version.signals],
    }
    texts = [
        _node(nodes[node_id], name, names, files)
        for node_id, name in zip(version.node_ids, version.names, strict=True)
    ]
    return f'{_json(_said(head))[:-1]},"nodes":[{",".join(texts)}]}}'.encode()


def _known(catalogue: Catalogue, version: VersionSentinel, node_id: str) -> ComputeNode:
    node = catalogue.node(node_id)
    if node is None:
        raise InvariantBroken(f"node {node_id} is part of version {version.sentinel_id} and not known.")
    return node


def _node(node: ComputeNode, name: str, names: Mapping[str, str], files: Mapping[str, str]) -> str:
    facts: dict[str, Any] = {
        "name": name,
        "node_type": node.node_type,
        "interval": node.interval,
        "period": node.period if node.period != 1 else None,
        "inputs": [names[one] for one in node.dependencies],
        "tags": node.tags,
        "artifacts": [files[one] for one in used_by(node)],
    }
    params = own_canon(node)
    more = "" if params == "{}" else f',"params":{params}'
    return f"{_json(_said(facts))[:-1]}{more}}}"


def _said(facts: Mapping[str, Any], keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Without what a message needn't say."""
    return {name: value for name, value in facts.items() if name in keep or value}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
