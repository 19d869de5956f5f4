"""What one shard gave in a context is used on another in that context alone, whichever of them hears first that it is another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.processor import Arrival, Bucket
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.common.compute_context import ExecutionDomain, compute_key
from qmtl.foundation.contracts.context import THE_CONTEXT, LogContext, NodeContext, SaidContext
from qmtl.foundation.contracts.dag import PlannedNode, StrategyStatus, StrategyVersion
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeState, NodeStatus, NodeValue, PositionTarget
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS, topic
from qmtl.services.nodes.processor import Nodes

STEP_MS = 60_000
LOW, HIGH = 0, SHARDS - 1
SHARE = '{"long_percent":"0.5","short_percent":"-0.5"}'
ASKED = '{"aggregate":"sum","interval":60,"match_mode":"any","query_tags":["a"]}'


def node(
    name: str, kind: str, reads: tuple[str, ...] = (), period: int = 0, params: str = "{}"
) -> PlannedNode:
    return PlannedNode(
        name, id_of(name), kind, 60, period, params, tuple(map(id_of, reads)), f"t_{name}", 1, False
    )


def id_of(name: str) -> str:
    """One that puts a source on the lowest shard."""
    return f"blake3:{0:08x}{name.encode().hex():0>56}"


NODES = (
    node("price", "price", params='{"symbols":["A"]}'),
    node("mean", "sma", ("price",), 2),
    node("below", "position_target", ("mean",), params=SHARE),
    node("asked", "tag_query", ("mean",), params=ASKED),
    node("again", "sma", ("asked",), 2),
    node("above", "position_target", ("again",), params=SHARE),
)
"""The low shard has the first three; the high one reads the mean, and the low signal, as its own is the strategy's too."""

STRATEGY = StrategyVersion(
    "w", "s", "v1", "v", "x", StrategyStatus.READY, NODES, (id_of("below"), id_of("above"))
)


def said(as_of: str) -> SaidContext:
    return SaidContext("w", ExecutionDomain.DRYRUN, as_of, "", "", False)


class Shard:
    """A task of the node workers on real tables, and beside it what it has to remember."""

    closed_ms = 0

    def __init__(self, store: Store, number: int) -> None:
        # No transaction ends: all rows are still to be written, and the store stays as empty as it was.
        self._tables = {name: Table(topic(name), number, store, codec) for name in Nodes.tables}
        self._nodes = Nodes()
        self.number, self.emitted = number, list[Any]()
        self.buckets, self.heard = 0, 0
        self.context = ""
        self.kept: dict[str, list[float]] = {}
        self.hits = 0
        self.restart()
        self.hear("dag.strategies", STRATEGY)

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append((topic, codec.decode(codec.encode(message))))

    def encode(self, message: Any) -> bytes:
        return codec.encode(message)

    def hear(self, name: str, message: Any) -> None:
        self._nodes.on_record(self, Arrival(name, 0, 0, message))
        self._nodes.flush(self)

    def restart(self) -> None:
        self._nodes = Nodes()
        self._nodes.restore(self._tables)

    def enter(self, as_of: str) -> None:
        self.hear("dag.context", LogContext(THE_CONTEXT, said(as_of), 0))
        if as_of != self.context:
            self.hits += len(self.kept) if self.context else 0  # a hit takes two contexts
            self.kept.clear()
            self.context = as_of

    def take(self, arrivals: dict[str, list[Any]]) -> list[Any]:
        self.buckets += 1
        self.emitted.clear()
        self._nodes.on_bucket(
            self,
            Bucket(
                self.buckets * STEP_MS,
                {name: [Arrival(name, 0, 0, one) for one in found] for name, found in arrivals.items()},
            ),
        )
        self._nodes.flush(self)
        return [one for _, one in self.emitted]

    def mean(self, name: str, value: float) -> float | None:
        """What a mean of two gives for its next input."""
        values = self.kept.setdefault(name, [])
        values.append(value)
        return sum(values[-2:]) / 2 if len(values) > 1 else None

    def row(self) -> NodeContext | None:
        found: NodeContext | None = self.table("node.context").get(self.number)
        return found


@dataclass
class Floor:
    """Two shards, and what the lower has given of each bucket, in which context."""

    low: Shard
    high: Shard
    contexts: list[str] = field(default_factory=list)
    given: list[tuple[str, dict[str, list[Any]], dict[str, float]]] = field(default_factory=list)

    def bar(self, bucket: int) -> Bar:
        close = Decimal(100 + bucket * bucket)
        return Bar("A", (bucket - 1) * STEP_MS, 60, close, close, close, close, Decimal(1))

    def below(self) -> None:
        """The lower shard takes a bucket and gives what this law says."""
        shard, bar = self.low, self.bar(self.low.buckets + 1)
        told = shard.take({"t_price": [bar]})
        want: dict[str, float] = {}
        if (mean := shard.mean("mean", float(bar.close))) is not None:
            shard.kept["below"] = []
            want = {"mean": mean, "below": 0.5}
        topics = {one.node_id: one for one in told if isinstance(one, NodeValue | PositionTarget)}
        assert values(told) == {id_of(name): value for name, value in want.items()}
        self.given.append(
            (shard.context, {f"t_{name}": [topics[id_of(name)]] for name in want} | {"t_price": [bar]}, want)
        )

    def above(self) -> None:
        """The higher one takes a bucket that the lower has closed."""
        shard = self.high
        if shard.buckets == len(self.given):
            return
        context, arrivals, want = self.given[shard.buckets]
        told = shard.take(arrivals)
        due: dict[str, float] = {}
        intents: set[str] = set()
        if context != shard.context:
            shard.hits += len(want) if context and shard.context else 0
        elif want:
            intents.add(id_of("below"))
            shard.kept["asked"] = []
            due["asked"] = want["mean"]
            if (again := shard.mean("again", want["mean"])) is not None:
                shard.kept["above"] = []
                due |= {"again": again, "above": 0.5}
                intents.add(id_of("above"))
        assert values(told) == {id_of(name): value for name, value in due.items()}
        assert {one.node_id for one in told if isinstance(one, OrderIntent)} == intents


def values(told: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in told:
        match one:
            case NodeValue(node_id=node_id, value=value):
                found[node_id] = value
            case PositionTarget(node_id=node_id, target_percent=percent):
                found[node_id] = float(percent)
            case _:  # a source's bar, an intent
                pass
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("crossing"), "shard")
    yield made
    made.close()


BOTH = ["below", "above"] * 4
ACTS = st.lists(
    st.sampled_from(
        [
            *("say A", "say B", "low hears", "high hears", "high skips"),
            *("below", "below", "above", "above", "low restarts", "high restarts"),
        ]
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(ACTS)
@example(["say A", "low hears", *BOTH, "high restarts", "high hears", *BOTH])
@example(["say A", "high hears", *BOTH, "low hears", *BOTH])
@example(["say A", "low hears", "high hears", *BOTH, "say B", "high hears", *BOTH])
@example(
    ["say A", "say B", "say A", "low hears", "low hears", *["below"] * 3, "low hears", "high skips", *BOTH]
)
def test_each_value_is_computed_in_one_context_and_what_comes_of_another_is_counted(
    store: Store, acts: list[str]
) -> None:
    assert shards_of(NODES, SHARDS) == {
        id_of(one.name): HIGH if one.name in ("asked", "again", "above") else LOW for one in NODES
    }
    floor = Floor(Shard(store, LOW), Shard(store, HIGH))
    for act in acts:
        who = floor.low if act.startswith("low") else floor.high
        match act.split():
            case ["say", as_of]:
                floor.contexts.append(as_of)
            case [_, "hears"] if who.heard < len(floor.contexts):
                who.enter(floor.contexts[who.heard])
                who.heard += 1
            case [_, "skips"] if floor.contexts:  # what was said in between was compacted away
                who.heard = len(floor.contexts)
                who.enter(floor.contexts[-1])
            case [_, "restarts"]:
                who.restart()
            case ["below"]:
                floor.below()
            case ["above"]:
                floor.above()
            case _:
                pass
    for shard in (floor.low, floor.high):
        row = shard.row()
        assert (0 if row is None else row.hits) == shard.hits
        assert row is None or (
            row.context == said(shard.context) if shard.context else not row.context.world_id
        )
        states: list[NodeState] = list(shard.table("node.state").items())
        for one in states:
            key = compute_key(one.node_id, said(shard.context).read()) if shard.context else ""
            assert one.compute_key == key
        assert {one.node_id for one in shard.table("node.windows").items()} == set(map(id_of, shard.kept))


@pytest.mark.parametrize(("left", "hits"), [("B", 1), ("", 0)])
def test_a_window_is_used_only_where_its_nodes_state_is_of_the_key_of_here(
    store: Store, left: str, hits: int
) -> None:
    """Whatever another step has left behind."""
    floor = Floor(Shard(store, LOW), Shard(store, HIGH))
    shard, mean = floor.low, id_of("mean")
    shard.enter("A")
    shard.take({"t_price": [floor.bar(1)]})
    states = shard.table("node.state")
    here = states.get(mean).compute_key
    there = compute_key(mean, said(left).read()) if left else ""
    states.put(replace(states.get(mean), compute_key=there, status=NodeStatus.ACTIVE))
    given = []
    for _ in range(3):
        shard.restart()
        given.append(mean in values(shard.take({"t_price": [floor.bar(shard.buckets + 1)]})))
        row = shard.row()
        assert row is not None
        assert (row.hits, row.last_hits) == (hits, (mean,) * hits)
        assert states.get(mean).compute_key == here
    assert given == [False, True, True]  # it has warmed up again
