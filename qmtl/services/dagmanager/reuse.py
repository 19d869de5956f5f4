"""The diff of a message all of whose nodes exist as they are: looked up, and told with the very rows of the last time.

It says what `diffing.difference` finds out at length, or nothing: whatever has to be looked at, be it a node that is new, has no topic
yet, asks by tags or has another schema, a graph that is not sound, or one that may be too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from qmtl.foundation.contracts.diff import DiffRequest, MappedNode, NodeOrigin
from qmtl.runtime.indicators.registry import TAG_QUERY
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.services.dagmanager.catalogue import Catalogue, is_usable
from qmtl.services.dagmanager.graph import commit_hash
from qmtl.services.dagmanager.kinds import gives_targets
from qmtl.services.dagmanager.prescan import Known, Prescan, Standing
from qmtl.services.dagmanager.submission import room_of, sentinel_id_of, surely_fits


@dataclass(frozen=True, slots=True)
class Compared:
    """What a message is against the graph.

    Attributes:
        nodes: inputs before the nodes that read them.
        sentinel_id: of the version that a submission would make.
    """

    nodes: tuple[MappedNode, ...]
    sentinel_id: str
    version: str


def reused(catalogue: Catalogue, request: DiffRequest, prescan: Prescan) -> Compared | None:
    """What a request is told whose nodes are all reused; None where somebody has to look."""
    read = prescan.texts_of(request.dag_json)
    if read is None or read[0].strategy_id != request.strategy_id:
        return None
    head, texts = read
    named = _standing(catalogue, prescan, texts)
    if named is None:
        return None
    names = [name for _, name in head.signals]
    signals = [
        there.mapped.node_id for one in names if (there := named.get(one)) and gives_targets(there.node)
    ]
    if not len(set(names)) == len(names) == len(signals):
        return None
    if not surely_fits(sum(map(_ROOM, named.values())), named, len(signals), request.world_id):
        return None
    nodes = tuple(map(_MAPPED, named.values()))
    commit = commit_hash(map(_ID, nodes), signals, head.meta.version)
    sentinel_id = sentinel_id_of(request.world_id, head.strategy_id, head.meta.version, commit)
    return Compared(nodes, sentinel_id, head.meta.version)


def _standing(catalogue: Catalogue, prescan: Prescan, texts: Sequence[Known]) -> dict[str, Standing] | None:
    """What each text comes to, by name; None if one comes to nothing, a name is there twice, or comes before what it reads."""
    named: dict[str, Standing] = {}
    ids: dict[str, str] = {}
    id_of, state = ids.__getitem__, catalogue.state
    try:
        for one in texts:
            there = one.standing
            reads = tuple(map(id_of, one.inputs))
            if there is None or there.seen is not state or there.reads != reads:
                there = one.standing = _stand(catalogue, prescan, one, reads)
                if there is None:
                    return None
            ids[one.name] = there.mapped.node_id
            named[one.name] = there
    except KeyError:
        return None
    return named if len(named) == len(texts) else None


def _stand(catalogue: Catalogue, prescan: Prescan, one: Known, reads: tuple[str, ...]) -> Standing | None:
    """What a text comes to with these inputs in the graph as it is now; None if anything of it is to be looked at."""
    found = prescan.existing(one, reads, catalogue.node)
    queue = None if found is None else catalogue.queue_of(found.node.node_id)
    if found is None or queue is None or not is_usable(queue):
        return None
    node, last = found.node, one.standing
    if last is not None and last.reads == reads and last.node is node and last.queue is queue:
        last.seen = catalogue.state
        return last
    is_plain = node.buffering_since_ms is None and (found.schema_hash, found.code) == (
        node.schema_hash,
        node.code,
    )
    if not is_plain or node.node_type in (TAG_QUERY, PORTFOLIO):
        return None
    mapped = MappedNode(node.node_id, one.name, queue.topic, NodeOrigin.REUSED)
    return Standing(reads, node, queue, mapped, room_of(one.name, node), catalogue.state)


_ID: Final = attrgetter("node_id")
_MAPPED: Final = attrgetter("mapped")
_ROOM: Final = attrgetter("room")
