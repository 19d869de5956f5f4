"""Versions and queues over any life: submitted, weighed, taken back, retired, collected, in any order, over restarts.

Beside the DAG Manager stands a broker that makes and removes what it is told to, and a model of who has which traffic that knows
only the messages that were sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    CollectGarbage,
    CreateTopic,
    DagSubmission,
    Queue,
    QueueRole,
    RedoDiff,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
    StrategyStatus,
    VersionSentinel,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.topics import DAY_MS
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import crossing, price, sma, strategy, submission, tag_query, target

GRAPHS = [
    crossing(3, 8),
    crossing(3, 21),
    crossing(5, 8),
    [price(), sma("fast", 3), target(source="fast")],
    [
        tag_query(tags=("crypto", "nobody"), own_tags=["crypto", "sma"]),
        sma("after", 3, "asked"),
        target(source="after", tags=["crypto"]),
    ],
    [
        tag_query(tags=("sma", "crypto"), match_mode="all"),
        price("other", ("LTC-USD",)),
        sma("own", 5, "other"),
        target(source="asked"),
    ],
]
OWNERS = [("w1", "s1"), ("w1", "s2"), ("w2", "s1")]
SCHEMAS: list[dict[str, str]] = [{}, {}, {"schema_hash": "blake3:" + "1" * 64}]
STEPS_DAYS = (1, 7, 30, 100, 215)
T0_MS = 1_700_000_000_000 // DAY_MS * DAY_MS


@dataclass
class Broker:
    """Topics that are there, and what they were asked to be of."""

    topics: dict[str, str] = field(default_factory=dict)


class Life(RuleBasedStateMachine):
    """One DAG Manager, one broker, any messages."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.desk = Desk(Path(self.folder.name))
        self.broker = Broker()
        self.now_ms = T0_MS
        self.sent: list[Any] = []
        self.count = 0
        self.held_until: dict[str, int] = {}
        self.computed: dict[tuple[int, tuple[str, str]], set[str]] = {}
        self.plans: dict[tuple[int, tuple[str, str]], set[str]] = {}

    @initialize()
    def begin(self) -> None:
        self.desk.tick(self.now_ms)

    def teardown(self) -> None:
        self.desk.close()
        self.folder.cleanup()

    # ---- what comes ------------------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        before = self.removing()
        held = self.held()
        self.sent.append(message)
        self.desk.send(message)
        self.hold_removals(before, held)

    @rule(
        graph=st.sampled_from(range(len(GRAPHS))),
        owner=st.sampled_from(OWNERS),
        weight=st.sampled_from([FULL_WEIGHT, 1000]),
        schema=st.sampled_from(SCHEMAS),
    )
    def submit(self, graph: int, owner: tuple[str, str], weight: int, schema: dict[str, str]) -> None:
        self.count += 1
        world, name = owner
        nodes = [one | (schema if one["name"] in ("price", "fast") else {}) for one in GRAPHS[graph]]
        text = strategy(nodes, name, version=f"v{graph}")
        one = submission(text, world)
        self.send(DagSubmission(f"s{self.count}", world, one.dag_json, self.now_ms, weight))

    @rule(
        choose=st.randoms(use_true_random=False),
        ok=st.sampled_from([True, True, True, False]),
        all_=st.booleans(),
    )
    def report(self, choose: Any, ok: bool, all_: bool) -> None:
        tasks = self.desk.rows("dag.tasks")
        chosen: list[CreateTopic | RemoveTopic] = tasks if all_ else [choose.choice(tasks)] if tasks else []
        for task in chosen:
            match task:
                case CreateTopic():
                    if ok:
                        self.broker.topics.setdefault(
                            task.topic, self.desk.table("dag.queues").get(task.topic).node_id
                        )
                    self.send(ReportTopicCreated(task.topic, ok or task.topic in self.broker.topics, "", ""))
                case RemoveTopic():
                    if ok:
                        self.broker.topics.pop(task.topic, None)
                    self.send(
                        ReportTopicRemoved(
                            task.topic, ok, "" if ok else "QMTL-901", "", "there" if task.archive else ""
                        )
                    )

    @rule(days=st.sampled_from(STEPS_DAYS))
    def tick(self, days: int) -> None:
        before, held = self.removing(), self.held()
        self.now_ms += days * DAY_MS
        self.desk.tick(self.now_ms)
        self.hold_removals(before, held)
        for node_id in self.held():
            self.held_until[node_id] = self.now_ms

    @rule(owner=st.sampled_from(OWNERS))
    def retire(self, owner: tuple[str, str]) -> None:
        self.count += 1
        self.send(RetireStrategy(f"c{self.count}", *owner, self.now_ms))

    @precondition(lambda self: self.desk.rows("dag.sentinels"))
    @rule(
        choose=st.randoms(use_true_random=False),
        weight=st.sampled_from([0, 1, 1000, 5000, FULL_WEIGHT, FULL_WEIGHT + 1]),
        kind=st.sampled_from(["weigh", "weigh", "back", "redo", "collect"]),
    )
    def command(self, choose: Any, weight: int, kind: str) -> None:
        self.count += 1
        version: VersionSentinel = choose.choice(self.desk.rows("dag.sentinels"))
        name, sentinel = f"c{self.count}", version.sentinel_id
        match kind:
            case "weigh":
                self.send(SetTrafficWeight(name, sentinel, weight, self.now_ms))
            case "back":
                self.send(RollBack(name, sentinel, self.now_ms))
            case "redo":
                self.send(RedoDiff(name, sentinel, f"{version.version}-hotfix"[:40], self.now_ms))
            case _:
                self.send(CollectGarbage(name, choose.choice(["", sentinel]), self.now_ms))

    @precondition(lambda self: self.sent)
    @rule(choose=st.randoms(use_true_random=False))
    def repeat(self, choose: Any) -> None:
        """A submission or command that comes again changes nothing."""
        again = [
            one
            for one in self.sent
            if not isinstance(one, ReportTopicCreated | ReportTopicRemoved | NodeDeployment)
        ]
        if again:
            before = self.desk.all_rows()
            self.desk.send(choose.choice(again))
            assert self.desk.all_rows() == before

    @rule(owner=st.sampled_from(OWNERS), shard=st.sampled_from([0, 1]))
    def compute(self, owner: tuple[str, str], shard: int) -> None:
        """A shard of the node workers learns what is deployed now; it may be the first thing that it hears for months."""
        row = self.desk.table("dag.strategies").get(*owner)
        if row is not None:
            plan = (*row.found, *row.nodes)
            self.computed[shard, owner] = {node.node_id for node in plan}
            self.plans[shard, owner] = {node.topic for node in plan}
            self.send(NodeDeployment(shard, row))

    @rule()
    def restart(self) -> None:
        before = self.desk.memory()
        self.desk.again()
        assert self.desk.memory() == before

    # ---- what must be ------------------------------------------------------------------------------------------------

    def versions(self, *status: SentinelStatus) -> list[VersionSentinel]:
        return [one for one in self.desk.rows("dag.sentinels") if one.status in status]

    def held(self) -> set[str]:
        return {
            one
            for row in self.versions(SentinelStatus.PENDING, SentinelStatus.ACTIVE)
            for one in row.node_ids
        }

    def removing(self) -> set[str]:
        return {row.topic for row in self.desk.rows("dag.queues") if row.removing}

    def hold_removals(self, before: set[str], held: set[str]) -> None:
        """What was condemned just now was held by nobody, and by nobody for as long as its kind stays."""
        for queue in self.desk.rows("dag.queues"):
            if queue.role is QueueRole.FORMER and queue.removing and queue.topic not in before:
                assert not any(queue.topic in topics for topics in self.plans.values())
                assert self.now_ms - queue.orphaned_at_ms >= 8 * DAY_MS
            elif queue.removing and queue.topic not in before:
                assert queue.node_id not in held
                assert not any(queue.node_id in nodes for nodes in self.computed.values())
                since_ms = self.held_until.get(queue.node_id, T0_MS)
                assert self.now_ms - since_ms >= 8 * DAY_MS

    def current(self) -> dict[str, Queue]:
        rows = self.desk.rows("dag.queues")
        return {row.node_id: row for row in rows if row.role is QueueRole.CURRENT}

    @invariant()
    def every_active_version_has_all_its_topics(self) -> None:
        queues = self.current()
        for row in self.desk.rows("dag.strategies"):
            assert all(node.topic == queues[node.node_id].topic for node in row.nodes)
        for version in self.versions(SentinelStatus.ACTIVE):
            for node_id in version.node_ids:
                assert queues[node_id].ready
                assert not queues[node_id].removing
                assert self.broker.topics[queues[node_id].topic] == node_id

    @invariant()
    def a_node_has_one_topic(self) -> None:
        rows = self.desk.rows("dag.queues")
        for role in (QueueRole.CURRENT, QueueRole.NEXT):
            mine = [row.node_id for row in rows if row.role is role]
            assert len(set(mine)) == len(mine)
        assert self.broker.topics.items() <= {(row.topic, row.node_id) for row in rows}
        emits = {
            (edge.source, edge.target)
            for edge in self.desk.rows("dag.edges")
            if edge.relation.value == "EMITS"
        }
        assert emits == {(row.node_id, row.topic) for row in rows if row.role is not QueueRole.FORMER}

    @invariant()
    def a_node_is_buffering_only_while_its_topic_may_have_an_older_history(self) -> None:
        queues = self.current()
        for node in self.desk.rows("dag.nodes"):
            if node.buffering_since_ms is not None:
                assert queues[node.node_id].ready
                assert node.buffering_since_ms <= self.now_ms

    @invariant()
    def references_are_those_of_the_versions(self) -> None:
        holding = self.versions(SentinelStatus.PENDING, SentinelStatus.ACTIVE)
        for node in self.desk.rows("dag.nodes"):
            wanted = sum(node.node_id in row.node_ids for row in holding)
            assert self.desk.references(node.node_id) == wanted >= 0

    @invariant()
    def orphans_are_the_queues_that_nobody_holds(self) -> None:
        held = self.held()
        rows = self.desk.rows("dag.queues")
        wanted = {
            row.topic
            for row in rows
            if not row.removing and (row.node_id not in held or row.role is QueueRole.FORMER)
        }
        assert self.desk.memory()["_orphans"].keys() == wanted

    @invariant()
    def the_traffic_of_a_strategy_is_all_given_away(self) -> None:
        for world, name in OWNERS:
            mine = [
                one
                for one in self.versions(SentinelStatus.ACTIVE)
                if (one.world_id, one.strategy_id) == (world, name)
            ]
            row = self.desk.table("dag.strategies").get(world, name)
            if not mine:
                assert row is None or (row.status, row.nodes, row.found) == (StrategyStatus.RETIRED, (), ())
                continue
            assert len(mine) <= 2
            assert sum(one.traffic_weight for one in mine) == FULL_WEIGHT
            canary = (row.canary.sentinel_id, row.canary.traffic_weight) if row.canary else None
            told = {
                row.sentinel_id: FULL_WEIGHT - (canary[1] if canary else 0),
                **dict([canary] if canary else []),
            }
            assert told == {one.sentinel_id: one.traffic_weight for one in mine}
            assert {one.node_id for one in row.nodes} == {one for version in mine for one in version.node_ids}
            seen: set[str] = set()
            for node in row.found:
                assert set(node.dependencies) <= seen
                seen.add(node.node_id)
            for node in row.nodes:
                assert set(node.dependencies) <= seen
                seen.add(node.node_id)

    @invariant()
    def every_tag_query_has_the_answers_of_a_search_through_everything(self) -> None:
        nodes = {row.node_id: row for row in self.desk.rows("dag.nodes")}
        topics = {node_id: queue.topic for node_id, queue in self.current().items()}

        def asks(node_id: str) -> bool:
            node = nodes[node_id]
            return node.node_type == "tag_query" or any(asks(read) for read in node.dependencies)

        carried = {one for row in self.versions(SentinelStatus.ACTIVE) for one in row.node_ids}
        numbers = [
            one for one in sorted(carried) if nodes[one].node_type != "position_target" and not asks(one)
        ]
        for row in self.desk.rows("dag.strategies"):
            named: set[str] = set()
            for query in (one for one in row.nodes if one.node_type == "tag_query"):
                params = json.loads(query.params_canon)
                wanted, mode = set(params["query_tags"]), params["match_mode"]
                enough = 1 if mode == "any" else len(wanted)
                found = [one for one in numbers if len(wanted & set(nodes[one].tags)) >= enough]
                assert query.dependencies == tuple(sorted(found, key=topics.__getitem__))
                assert nodes[query.node_id].dependencies == ()
                named.update(found)
            own = {one.node_id for one in row.nodes}
            assert named - own <= {one.node_id for one in row.found}
            assert all(one.topic == topics[one.node_id] for one in row.found)

    @invariant()
    def the_admin_log_tells_which_topics_there_are(self) -> None:
        there: set[str] = set()
        for entry in self.desk.told("dag.admin.log"):
            if entry.act is AdminAct.CREATED:
                there.add(entry.subject)
            elif entry.act is AdminAct.REMOVED:
                there.discard(entry.subject)
        assert there == {row.topic for row in self.desk.rows("dag.queues") if row.ready}
        assert there <= set(self.broker.topics) | self.removing()

    @invariant()
    def readers_have_heard_of_every_queue(self) -> None:
        newest = {
            (one.tags, one.interval): one.queues
            for one in self.desk.told("queue")
            if one.type == "QueueUpdated"
        }
        wanted: dict[Any, list[str]] = {key: [] for key in newest}
        carried = {one for row in self.versions(SentinelStatus.ACTIVE) for one in row.node_ids}
        for row in self.current().values():
            if row.tags and row.ready and not row.removing and row.node_id in carried:
                wanted[row.tags, row.interval].append(row.topic)
        assert newest == {key: tuple(sorted(names)) for key, names in wanted.items()}


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
