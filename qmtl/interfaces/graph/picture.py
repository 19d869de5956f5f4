"""What a picture of the graph shows: the nodes of strategies, who else has them, how far each is, and what a message would add."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import UnknownId
from qmtl.foundation.common.wording import counted
from qmtl.foundation.contracts.dag import (
    ComputeNode,
    PlannedNode,
    Queue,
    QueueRole,
    StrategyStatus,
    StrategyVersion,
)
from qmtl.foundation.contracts.node import NodeState, NodeStatus
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.prescan import Prescan

SHORT: Final = 8
"""Hex digits of an id in a drawing."""


class Reuse(Enum):
    """Whose a node is, from where the strategy of the picture stands."""

    NEW = "new"
    """Nobody has it: it would get a topic."""

    OWN = "own"
    """No other strategy has it."""

    SHARED = "shared"
    """Other strategies have it, too; it is computed once."""

    IDLE = "idle"
    """It is there with its topic, and no strategy has it at present."""


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """A node of a picture.

    Attributes:
        name: what the first of its strategies calls it.
        interval: seconds.
        inputs: ids of the nodes that it reads, by port.
        strategies: those that have it on the log as `world/strategy`, sorted.
        shared_with: of these, those beside the one of the picture; empty in a picture of many strategies.
        status: where it is in its life; None where no worker has taken it up.
        cause: of a node in state error, why.
        behind: names of nodes in error that it is computed from, nearest first: it gives nothing.
        task: of the node workers, the one that computes it, or would.
        is_signal: what it gives becomes intents.
    """

    node_id: str
    name: str
    node_type: str
    interval: int
    period: int
    inputs: tuple[str, ...]
    reuse: Reuse
    strategies: tuple[str, ...]
    shared_with: tuple[str, ...]
    status: NodeStatus | None
    since_bucket_ms: int
    cause: str
    behind: tuple[str, ...]
    task: int
    is_signal: bool

    @property
    def short_id(self) -> str:
        return self.node_id.partition(":")[2][:SHORT]

    @property
    def sharing(self) -> str:
        """Its reuse in words."""
        count = len(self.shared_with)
        if self.reuse is not Reuse.SHARED:
            return {Reuse.NEW: "new", Reuse.OWN: "not shared", Reuse.IDLE: "there, unused"}[self.reuse]
        if not count:
            return f"in {counted(len(self.strategies), 'strategy', 'strategies')}"
        return f"shared with {counted(count, 'strategy', 'strategies')}"

    @property
    def life(self) -> str:
        """Its state in words."""
        if self.status is None:
            return "not running"
        return f"{self.status.value}, silent behind {self.behind[0]}" if self.behind else self.status.value


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph to be drawn.

    Attributes:
        title: what it shows, in a line.
        nodes: inputs before the nodes that read them.
    """

    title: str
    nodes: tuple[DrawnNode, ...]


# ---- what is deployed ---------------------------------------------------------------------------------------------------


def of_log(log: Log, world_id: str = "", strategy_id: str = "") -> Picture:
    """The graph that is deployed: of a strategy, of a world, or of all.

    Args:
        world_id: empty for all worlds.
        strategy_id: empty for all strategies; one that several worlds have is drawn of all these.

    Raises:
        UnknownId: no such strategy is deployed.
    """
    rows = _deployed(log)
    chosen = [one for one in rows if world_id in ("", one.world_id) and strategy_id in ("", one.strategy_id)]
    if strategy_id and not chosen:
        where = f"in world {world_id!r}" if world_id else "in any world"
        raise UnknownId(
            f"no strategy {strategy_id!r} is deployed {where}.", "`qmtl dag list` shows what there is."
        )
    planned: dict[str, PlannedNode] = {}
    signals: set[str] = set()
    for one in chosen:
        for node in (*one.found, *one.nodes):
            planned.setdefault(node.node_id, node)
        signals.update(one.signals, () if one.canary is None else one.canary.signals)
    drafts = [_of_plan(node) for node in planned.values()]
    mine = {_key(one) for one in chosen} if strategy_id else None
    what = f"strategy {strategy_id}" if strategy_id else counted(len(chosen), "strategy", "strategies")
    worlds = sorted({one.world_id for one in chosen} | ({world_id} if world_id else set()))
    where = f"world {worlds[0]}" if len(worlds) == 1 else counted(len(worlds), "world")
    title = f"{what} in {where}: {counted(len(drafts), 'node')}"
    return Picture(title, _drawn(log, drafts, rows, mine, signals))


def of_message(log: Log, message: bytes, world_id: str = "") -> Picture:
    """A DAG message beside what is there: nothing is asked of anybody, and nothing is written.

    Args:
        world_id: where it would be published; what a strategy of its name has there is its own.

    Raises:
        InvalidDag: it would be refused, with all reasons.
    """
    known = _view(log, "dag.nodes")

    def held(node_id: str) -> ComputeNode | None:
        found: ComputeNode | None = known.get(node_id)
        return found

    graph = Prescan().admit(message, 0, held)
    drafts = [_of_graph(one.name, one.node) for one in graph.nodes]
    rows = _deployed(log)
    mine = {
        _key(one) for one in rows if one.strategy_id == graph.strategy_id and world_id in ("", one.world_id)
    }
    nodes = _drawn(log, drafts, rows, mine, set(graph.signals))
    new = sum(one.reuse is Reuse.NEW for one in nodes)
    return Picture(_title(graph, world_id, new, len(nodes)), nodes)


def _title(graph: Graph, world_id: str, new: int, count: int) -> str:
    where = f" for world {world_id}" if world_id else ""
    return f"strategy {graph.strategy_id} {graph.version}{where}: {new} of {counted(count, 'node')} {'is' if new == 1 else 'are'} new"


# ---- how it is put together -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Draft:
    node_id: str
    name: str
    node_type: str
    interval: int
    period: int
    inputs: tuple[str, ...]
    plan: PlannedNode


def _of_plan(node: PlannedNode) -> _Draft:
    return _Draft(
        node.node_id, node.name, node.node_type, node.interval, node.period, node.dependencies, node
    )


def _of_graph(name: str, node: ComputeNode) -> _Draft:
    plan = PlannedNode(
        name,
        node.node_id,
        node.node_type,
        node.interval,
        node.period,
        node.params_canon,
        node.dependencies,
        "",
        1,
        False,
    )
    return _of_plan(plan)


def _view(log: Log, name: str) -> TableView:
    return TableView(log, name, codec).refresh()


def _deployed(log: Log) -> list[StrategyVersion]:
    rows: list[StrategyVersion] = _view(log, "dag.strategies").rows()
    return [one for one in rows if one.status is StrategyStatus.READY and one.nodes]


def _key(one: StrategyVersion) -> str:
    return f"{one.world_id}/{one.strategy_id}"


def _drawn(
    log: Log,
    drafts: Sequence[_Draft],
    rows: Iterable[StrategyVersion],
    own: Set[str] | None,
    signals: set[str],
) -> tuple[DrawnNode, ...]:
    having: dict[str, set[str]] = {}
    for row in rows:
        for node in (*row.found, *row.nodes):
            having.setdefault(node.node_id, set()).add(_key(row))
    states: dict[str, NodeState] = {one.node_id: one for one in _view(log, "node.state").rows()}
    queues: list[Queue] = _view(log, "dag.queues").rows()
    there = {one.node_id for one in queues if one.role is QueueRole.CURRENT and not one.removing}
    homes = _homes(drafts)
    broken: dict[str, tuple[str, ...]] = {}
    out = []
    ids = {one.node_id for one in drafts}
    for one in drafts:
        inputs = tuple([node_id for node_id in one.inputs if node_id in ids])
        whose = sorted(having.get(one.node_id, ()))
        others = [] if own is None else [key for key in whose if key not in own]
        state = states.get(one.node_id)
        fails = state is not None and state.status is NodeStatus.ERROR
        behind = tuple(dict.fromkeys(name for read in inputs for name in broken[read]))
        broken[one.node_id] = (one.name, *behind) if fails else behind
        out.append(
            DrawnNode(
                one.node_id,
                one.name,
                one.node_type,
                one.interval,
                one.period,
                inputs,
                _reuse(whose, is_shared=bool(others) or len(whose) > 1, is_there=one.node_id in there),
                tuple(whose),
                tuple(others),
                None if state is None else state.status,
                0 if state is None else state.since_bucket_ms,
                "" if state is None else state.cause,
                () if fails else behind,
                homes[one.node_id],
                one.node_id in signals,
            )
        )
    return tuple(out)


def _homes(drafts: Sequence[_Draft]) -> Mapping[str, int]:
    return shards_of((one.plan for one in drafts), SHARDS)


def _reuse(whose: Sequence[str], *, is_shared: bool, is_there: bool) -> Reuse:
    if is_shared:
        return Reuse.SHARED
    if whose:
        return Reuse.OWN
    return Reuse.IDLE if is_there else Reuse.NEW


def as_json(picture: Picture) -> dict[str, Any]:
    """The picture as an object for programs."""
    return {
        "title": picture.title,
        "nodes": [
            {
                "node_id": one.node_id,
                "name": one.name,
                "type": one.node_type,
                "interval": one.interval,
                "period": one.period,
                "inputs": list(one.inputs),
                "reuse": one.reuse,
                "strategies": list(one.strategies),
                "shared_with": list(one.shared_with),
                "status": one.status,
                "since_bucket_ms": one.since_bucket_ms,
                "cause": one.cause,
                "behind": list(one.behind),
                "task": one.task,
                "signal": one.is_signal,
            }
            for one in picture.nodes
        ],
    }
