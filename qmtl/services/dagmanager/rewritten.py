"""The DAG message of a version that is known, out of its rows, to be judged as if it were published today."""

from __future__ import annotations

import json

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.dag import VersionSentinel
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.message import SCHEMA_VERSION


def message_of(catalogue: Catalogue, version: VersionSentinel, label: str) -> bytes:
    """A DAG message with the graph of a version and without the hashes of its code, so that it gets those of today.

    Args:
        label: what the version is called from now on.
    """
    names = dict(zip(version.node_ids, version.names, strict=True))
    nodes = ",".join(
        _node(catalogue, node_id, name, names)
        for node_id, name in zip(version.node_ids, version.names, strict=True)
    )
    signals = json.dumps([names[node_id] for node_id in version.signals])
    head = json.dumps(
        {"schema_version": SCHEMA_VERSION, "strategy_id": version.strategy_id, "meta": {"version": label}}
    )
    return f'{head[:-1]}, "signals": {signals}, "nodes": [{nodes}]}}'.encode()


def _node(catalogue: Catalogue, node_id: str, name: str, names: dict[str, str]) -> str:
    node = catalogue.node(node_id)
    if node is None:
        raise InvariantBroken(f"node {node_id} is part of a version and not known.")
    facts = json.dumps(
        {
            "name": name,
            "node_type": node.node_type,
            "interval": node.interval,
            "period": node.period,
            "inputs": [names[one] for one in node.dependencies],
            "tags": list(node.tags),
            "schema_compat_id": node.schema_compat_id,
        }
    )
    return f'{facts[:-1]}, "params": {node.params_canon}}}'
