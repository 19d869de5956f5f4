"""The DAG message of a version that is known, out of its rows, to be judged as if it were published today."""

from __future__ import annotations

import json
from dataclasses import asdict

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.dag import ComputeNode, VersionSentinel
from qmtl.services.dagmanager.artifacts import own_canon, used_by
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.message import SCHEMA_VERSION


def message_of(catalogue: Catalogue, version: VersionSentinel, label: str) -> bytes:
    """A DAG message with the graph of a version and without the hashes of its code, so that it gets those of today.

    Args:
        label: what the version is called from now on.
    """
    names = dict(zip(version.node_ids, version.names, strict=True))
    nodes = ",".join(
        _node(_known(catalogue, version, node_id), name, names)
        for node_id, name in zip(version.node_ids, version.names, strict=True)
    )
    signals = json.dumps([names[node_id] for node_id in version.signals])
    used = {one: None for node_id in version.node_ids for one in used_by(_known(catalogue, version, node_id))}
    files = [asdict(found) for one in used if (found := catalogue.artifact(one)) is not None]
    said = {
        "schema_version": SCHEMA_VERSION,
        "strategy_id": version.strategy_id,
        "meta": {"version": label},
        "artifacts": [{name: value for name, value in one.items() if value != ""} for one in files],
    }
    head = json.dumps(said)
    return f'{head[:-1]}, "signals": {signals}, "nodes": [{nodes}]}}'.encode()


def _known(catalogue: Catalogue, version: VersionSentinel, node_id: str) -> ComputeNode:
    node = catalogue.node(node_id)
    if node is None:
        raise InvariantBroken(f"node {node_id} is part of version {version.sentinel_id} and not known.")
    return node


def _node(node: ComputeNode, name: str, names: dict[str, str]) -> str:
    facts = json.dumps(
        {
            "name": name,
            "node_type": node.node_type,
            "interval": node.interval,
            "period": node.period,
            "inputs": [names[one] for one in node.dependencies],
            "tags": list(node.tags),
            "schema_compat_id": node.schema_compat_id,
            "artifacts": list(used_by(node)),
        }
    )
    return f'{facts[:-1]}, "params": {own_canon(node)}}}'
