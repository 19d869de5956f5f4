"""Versions and queues over any life: submitted, weighed, taken back, retired, collected, in any order, over restarts, deaths of the
process inside its transactions, and compactions of the log.

Beside the DAG Manager stands a broker that makes and removes what it is told to, and a model of who has which traffic, which knows the
messages that were sent, and of what came of them only which topics there are. Who dies is held to one that gets the same messages and
to whom nothing happens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qmtl.engine.failpoint import POINTS
from qmtl.engine.simulate.explore import MEMORY
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.common.errors import TopicCollision, TopicMismatch
from qmtl.foundation.contracts.context import (
    ALL_WORLDS,
    ClearContextHits,
    NodeContext,
    SaidContext,
    SetComputeContext,
)
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
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
    StrategyStatus,
    TopicTask,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.contracts.retention import ArchiveTopic
from qmtl.foundation.wire.topics import DAY_MS
from tests.services.dagmanager.desk import AnyDesk, Desk
from tests.services.dagmanager.desk_on_log import HEARD, Death, DeskOnLog
from tests.services.dagmanager.keeping import TOO_LATE, Keeping, id_of
from tests.services.dagmanager.life_broker import Broker
from tests.services.dagmanager.life_graphs import GRAPHS
from tests.services.dagmanager.lives import tried
from tests.services.dagmanager.traffic import ACTIVE, FAILED, PENDING, REFUSED, RETIRED, Traffic
from tests.services.graphs import strategy, submission

OWNERS = [("w1", "s1"), ("w1", "s2"), ("w2", "s1")]
SCHEMAS: list[dict[str, str]] = [{}, {}, dict.fromkeys(("price", "sma"), "blake3:" + "1" * 64)]
STEPS_DAYS = (1, 7, 30, 100, 215)
LIVE = SaidContext(ALL_WORLDS, ExecutionDomain.LIVE, "", "", "", True)
VERSIONS_STAY_MS = (180 + 30) * DAY_MS
NOT_OURS = (f"[{TopicCollision.code}]", f"[{TopicMismatch.code}]")
PLACE = str(MEMORY) if MEMORY.is_dir() else None
T0_MS = 1_700_000_000_000 // DAY_MS * DAY_MS


class Life(RuleBasedStateMachine):
    """One DAG Manager, one broker, any messages."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory(dir=PLACE)
        self.desk = self.a_desk(Path(self.folder.name))
        self.broker = Broker()
        self.traffic = Traffic()
        self.keeping = Keeping()
        self.now_ms = T0_MS
        self.sent: list[Any] = []
        self.sent_before = 0
        self.count = 0
        self.held_until: dict[str, int] = {}
        self.computed: dict[tuple[int, tuple[str, str]], set[str]] = {}
        self.plans: dict[tuple[int, tuple[str, str]], set[str]] = {}

    def a_desk(self, directory: Path) -> AnyDesk:
        return Desk(directory)

    @initialize(begun=st.sampled_from(["nothing", "running", "over", "computed", "gone"]))
    def begin(self, begun: str) -> None:
        """With nothing; with a strategy that runs; or with one that is over for so long that its topics are to go, unless a worker has
        not heard of it; or with one of which nothing is left."""
        self.desk.tick(self.now_ms)
        self.send(SetComputeContext("context", "", "live", self.now_ms, shared_worlds=True))
        if begun != "nothing":
            self.publish(0, OWNERS[0], FULL_WEIGHT, {})
            self.make(self.desk.rows("dag.tasks"), ok=True)
        if begun == "computed":
            self.compute(OWNERS[0], 0)
        if begun in ("over", "computed"):
            self.retire(OWNERS[0])
            self.tick(1)
            self.make(self.desk.rows("dag.tasks"), ok=True)
            self.retain(1)
            self.tick(max(STEPS_DAYS))
        if begun == "gone":
            self.pass_years()

    def teardown(self) -> None:
        self.desk.close()
        self.folder.cleanup()

    # ---- what comes ------------------------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        with self.collecting_nothing_reachable():
            self.sent.append(message)
            self.desk.send(message)
        if name := id_of(message):
            self.keeping.decide(name, self.now_ms)

    def say(self, message: Any, code: str) -> None:
        """A submission or command, which is refused with this code where there is one."""
        self.send(message)
        is_new = isinstance(message, DagSubmission)
        outcome = self.desk.table("dag.diffs" if is_new else "dag.outcomes").get(id_of(message))
        assert (outcome.code, outcome.accepted) == (code, not code)
        self.traffic.settle(self.usable())
        self.keeping.see(self.needed())

    def needed(self) -> set[str]:
        """The nodes that a version has, whatever became of it, or a queue."""
        had = {node for one in self.traffic.versions.values() for node in one.nodes}
        return had | {row.node_id for row in self.desk.rows("dag.queues")}

    def usable(self) -> set[str]:
        """The nodes whose topics are there."""
        return {node_id for node_id, row in self.current().items() if row.ready and not row.removing}

    @rule(
        graph=st.sampled_from(range(len(GRAPHS))),
        owner=st.sampled_from([OWNERS[0], *OWNERS]),
        weight=st.sampled_from([FULL_WEIGHT, 1000]),
        schema=st.sampled_from(SCHEMAS),
    )
    def submit(self, graph: int, owner: tuple[str, str], weight: int, schema: dict[str, str]) -> None:
        self.publish(graph, owner, weight, schema)

    def publish(self, graph: int, owner: tuple[str, str], weight: int, schema: dict[str, str]) -> None:
        self.count += 1
        world, name = owner
        self.desk.upgrade(schema)
        text = strategy(GRAPHS[graph], name, version=f"v{graph}")
        one = submission(text, world)
        self.keeping.learn(text)
        code = self.traffic.submit(owner, text, weight)
        self.say(DagSubmission(f"s{self.count}", world, one.dag_json, self.now_ms, weight, "live"), code)

    @rule(
        choose=st.randoms(use_true_random=False),
        ok=st.sampled_from([True, True, True, False]),
        code=st.sampled_from(["QMTL-901", "QMTL-322", "QMTL-303"]),
        all_=st.booleans(),
    )
    def report(self, choose: Any, ok: bool, code: str, all_: bool) -> None:
        tasks = self.desk.rows("dag.tasks")
        self.make(tasks if all_ else [choose.choice(tasks)] if tasks else [], ok=ok, code=code)

    def make(self, chosen: list[TopicTask], *, ok: bool, code: str = "QMTL-901") -> None:
        """The broker does what it is told to, or not."""
        for task in chosen:
            match task:
                case CreateTopic():
                    queue = self.desk.table("dag.queues").get(task.topic)
                    told = self.broker.create(task, queue.node_id, ok=ok, code=code)
                    is_wanted = queue.role is QueueRole.CURRENT and not queue.removing
                    if not told.created and is_wanted and code != "QMTL-322":
                        self.traffic.fail(queue.node_id)
                    self.send(told)
                case RemoveTopic():
                    assert self.desk.table("dag.queues").get(task.topic).removing
                    self.send(self.broker.remove(task, ok=ok, code="QMTL-901"))
                case ArchiveTopic():
                    assert self.desk.table("dag.queues").get(task.topic).archiving
                    self.send(self.broker.store(task, ok=ok, code="QMTL-901"))
            self.traffic.settle(self.usable())
            self.keeping.see(self.needed())

    @rule(days=st.sampled_from(STEPS_DAYS))
    def tick(self, days: int) -> None:
        with self.collecting_nothing_reachable():
            self.now_ms += days * DAY_MS
            self.desk.tick(self.now_ms)
        self.traffic.tick(self.now_ms)
        self.forget()
        self.keeping.tick(self.now_ms, self.needed())
        for node_id in self.held():
            self.held_until[node_id] = self.now_ms
        kept = {node for one in self.traffic.named(RETIRED).values() for node in one.nodes}
        used = self.held().union(*self.computed.values())
        self.broker.tick(self.desk.rows("dag.queues"), kept, used, self.plans.values())

    @precondition(lambda self: self.broker.topics)
    @rule(choose=st.randoms(use_true_random=False), count=st.integers(1, 3))
    def write(self, choose: Any, count: int) -> None:
        """Into any topic, perhaps one that nobody should write any more."""
        self.broker.write(choose.choice(sorted(self.broker.topics)), count)

    @rule(count=st.integers(1, 9))
    def retain(self, count: int) -> None:
        """Retention takes of every topic, but where the archive is asked for and not done yet, or failed the last time."""
        self.broker.retain(self.desk.rows("dag.queues"), count)

    def forget(self) -> None:
        """What is known no more was over for as long as one can go back to it."""
        known = {row.sentinel_id for row in self.desk.rows("dag.sentinels")}
        for name in self.traffic.versions.keys() - known:
            gone = self.traffic.versions.pop(name)
            assert gone.status in (RETIRED, FAILED)
            assert gone.over_since_ms is not None
            assert self.now_ms - gone.over_since_ms >= VERSIONS_STAY_MS

    @rule(owner=st.sampled_from(OWNERS))
    def retire(self, owner: tuple[str, str]) -> None:
        self.count += 1
        self.say(RetireStrategy(f"c{self.count}", *owner, self.now_ms), self.traffic.retire(owner))

    @precondition(lambda self: self.traffic.versions)
    @rule(
        choose=st.randoms(use_true_random=False),
        weight=st.sampled_from([0, 1, 1000, 5000, FULL_WEIGHT, FULL_WEIGHT + 1]),
        kind=st.sampled_from(["weigh", "weigh", "back", "redo", "collect"]),
    )
    def command(self, choose: Any, weight: int, kind: str) -> None:
        self.count += 1
        sentinel = choose.choice(sorted(self.traffic.versions))
        name, label = f"c{self.count}", sentinel.split(":")[2]
        match kind:
            case "weigh":
                code = self.traffic.weigh(sentinel, weight)
                self.say(SetTrafficWeight(name, sentinel, weight, self.now_ms), code)
            case "back":
                self.say(RollBack(name, sentinel, self.now_ms), self.traffic.back(sentinel))
            case "redo":
                anew = f"{label}-hotfix"[:40]
                code = self.traffic.redo(sentinel, anew)
                self.say(RedoDiff(name, sentinel, anew, self.now_ms), code)
            case _:
                among = choose.choice(["", sentinel])
                self.send(CollectGarbage(name, among, self.now_ms))
                self.traffic.tick(self.now_ms)  # it looks for what has become an orphan as a tick does
                if not among:
                    self.keeping.tick(self.now_ms, self.needed())

    def contested(self) -> list[str]:
        """The versions that have traffic while another one of their strategy waits for its topics."""
        waited = {one.owner for one in self.traffic.named(PENDING).values()}
        return sorted(name for name, one in self.traffic.named(ACTIVE).items() if one.owner in waited)

    @precondition(lambda self: self.contested())
    @rule(choose=st.randoms(use_true_random=False), is_back=st.booleans())
    def insist(self, choose: Any, is_back: bool) -> None:
        self.count += 1
        name, sentinel = f"c{self.count}", choose.choice(self.contested())
        if is_back:
            self.say(RollBack(name, sentinel, self.now_ms), self.traffic.back(sentinel))
        else:
            code = self.traffic.weigh(sentinel, FULL_WEIGHT)
            self.say(SetTrafficWeight(name, sentinel, FULL_WEIGHT, self.now_ms), code)

    @rule(is_hit=st.sampled_from([True, False, False]))
    def cross(self, is_hit: bool) -> None:
        """The node workers find what another context had computed, or somebody has looked at all that they have found."""
        self.count += 1
        if is_hit:
            self.desk.send(NodeContext(0, LIVE, self.count, ("blake3:" + "1" * 64,)))
        else:
            code = "" if self.traffic.held else REFUSED
            self.say(ClearContextHits(f"c{self.count}", "looked at", self.now_ms), code)
        self.traffic.held = is_hit

    @precondition(lambda self: self.sent)
    @rule(choose=st.randoms(use_true_random=False))
    def repeat(self, choose: Any) -> None:
        """A submission or command that comes again changes nothing; one that is forgotten is refused, and that is told."""
        again = [one for one in self.sent if id_of(one)]
        if again:
            one, before = choose.choice(again), self.desk.all_rows()
            name, is_new = id_of(one), isinstance(one, DagSubmission)
            is_late = self.keeping.is_late(name, one.submitted_at_ms if is_new else one.issued_at_ms)
            self.desk.send(one)
            after = self.desk.all_rows()
            if is_late:
                self.keeping.decide(name, self.now_ms)
                rows = after["dag.diffs" if is_new else "dag.outcomes"]
                (told,) = [row for row in rows if id_of(row) == name]
                assert (told.code, told.accepted) == (TOO_LATE, False)
                after["dag.diffs" if is_new else "dag.outcomes"] = [row for row in rows if row != told]
            assert after == before

    @rule()
    def pass_years(self) -> None:
        """Everything is taken out, the workers have heard of it, the broker does what it is told: nothing is left but what has to stay."""
        for owner in OWNERS:
            self.retire(owner)
        for shard, owner in list(self.computed):
            self.compute(owner, shard)
        for days in (1, 215, 1, 215, 1, 35):
            self.tick(days)
            self.retain(1)
            self.make(self.desk.rows("dag.tasks"), ok=True)
        left = {name for name, rows in self.desk.all_rows().items() if rows}
        assert left <= {"dag.strategies", "dag.tags", "dag.lives", "dag.pace", "dag.context"}
        assert all(row.status is StrategyStatus.RETIRED for row in self.desk.rows("dag.strategies"))
        self.held_until.clear()

    @rule(owner=st.sampled_from(OWNERS), shard=st.sampled_from([0, 1]))
    def compute(self, owner: tuple[str, str], shard: int) -> None:
        """A shard of the node workers learns what is deployed now; it may be the first thing that it hears for months."""
        row = self.desk.table("dag.strategies").get(*owner)
        if row is not None:
            plan = (*row.found, *row.nodes)
            self.computed[shard, owner] = {node.node_id for node in plan}
            self.plans[shard, owner] = {node.topic for node in plan}
            self.send(NodeDeployment(shard, row))

    def has_news(self) -> bool:
        """Whether anything was said since the process was started."""
        return len(self.sent) > self.sent_before

    @precondition(has_news)
    @rule()
    def restart(self) -> None:
        with self.starting_anew():
            self.desk.again()

    # ---- what must be ------------------------------------------------------------------------------------------------

    def held(self) -> set[str]:
        return set(self.traffic.references())

    def removing(self) -> set[str]:
        return {row.topic for row in self.desk.rows("dag.queues") if row.removing}

    @contextmanager
    def collecting_nothing_reachable(self) -> Iterator[None]:
        """What is condemned meanwhile is held by no version and computed by no worker, and was held by none for as long as its kind stays."""
        before, held = self.removing(), self.held()
        yield
        for queue in self.desk.rows("dag.queues"):
            if not queue.removing or queue.topic in before:
                continue
            if queue.role is QueueRole.FORMER:
                assert not any(queue.topic in topics for topics in self.plans.values())
                assert self.now_ms - queue.orphaned_at_ms >= 8 * DAY_MS
            else:
                assert queue.node_id not in held
                assert not any(queue.node_id in nodes for nodes in self.computed.values())
                since_ms = self.held_until.get(queue.node_id, T0_MS)
                assert self.now_ms - since_ms >= 8 * DAY_MS

    @contextmanager
    def starting_anew(self) -> Iterator[None]:
        """A restart creates no other topic for a node, nor anything else: no row, nothing in memory, nothing that is told."""
        topics = {node_id: row.topic for node_id, row in self.current().items()}
        rows, memory, told = self.desk.all_rows(), self.desk.memory(), list(self.desk.emitted)
        yield
        assert {node_id: row.topic for node_id, row in self.current().items()} == topics
        assert (self.desk.all_rows(), self.desk.memory(), self.desk.emitted) == (rows, memory, told)
        self.sent_before = len(self.sent)

    def current(self) -> dict[str, Queue]:
        rows = self.desk.rows("dag.queues")
        return {row.node_id: row for row in rows if row.role is QueueRole.CURRENT}

    @invariant()
    def every_active_version_has_all_its_topics(self) -> None:
        queues = self.current()
        for row in self.desk.rows("dag.strategies"):
            assert all(node.topic == queues[node.node_id].topic for node in row.nodes)
        for node_id in self.traffic.carried():
            assert queues[node_id].ready
            assert not queues[node_id].removing
            assert self.broker.topics[queues[node_id].topic] == node_id

    @invariant()
    def no_reachable_queue_is_ever_collected(self) -> None:
        """A topic stays while a plan names it: of a strategy, or one that a worker still has."""
        plans = [
            {node.topic for node in (*row.found, *row.nodes)} for row in self.desk.rows("dag.strategies")
        ]
        reachable = set().union(*plans, *self.plans.values())
        assert reachable <= self.broker.topics.keys() - self.removing()

    @invariant()
    def no_restart_creates_another_topic_for_a_node(self) -> None:
        """Of all topics that were ever asked for, over all restarts, a node has one, and while it is computed anew a next one; any other
        one is gone, could not be made, or is one that the node has left."""
        asked: dict[str, str] = {}
        for entry in self.desk.told("dag.admin.log"):
            if entry.act is AdminAct.REQUESTED:
                asked[entry.subject] = entry.node_id
            elif entry.act is AdminAct.REMOVED or entry.detail.startswith(NOT_OURS):
                asked.pop(entry.subject, None)
        rows = {row.topic: row for row in self.desk.rows("dag.queues")}
        assert asked == {name: row.node_id for name, row in rows.items()}
        for role in (QueueRole.CURRENT, QueueRole.NEXT):
            of = Counter(node_id for name, node_id in asked.items() if rows[name].role is role)
            assert set(of.values()) <= {1}

    @invariant()
    def topics_are_those_of_the_queues(self) -> None:
        rows = self.desk.rows("dag.queues")
        self.broker.agree(rows, self.desk.rows("dag.tasks"))
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
    def references_are_never_negative(self) -> None:
        """Nor is anything else that is counted; what counts for nothing is not kept."""
        needs = self.desk.catalogue.needs
        counts = [one for one in self.desk.memory().values() if isinstance(one, Counter)]
        counts += [needs.needed, needs.dependents, needs.users]
        assert counts
        assert all(number > 0 for one in counts for number in one.values())

    @invariant()
    def references_are_those_of_the_versions(self) -> None:
        wanted = self.traffic.references()
        for node in self.desk.rows("dag.nodes"):
            assert self.desk.references(node.node_id) == wanted[node.node_id]

    @invariant()
    def no_row_goes_that_somebody_needs_and_all_others_go_in_time(self) -> None:
        rows = {row.node_id: row for row in self.desk.rows("dag.nodes")}
        assert {name: row.unneeded_since_ms for name, row in rows.items()} == self.keeping.nodes
        assert all(read in rows for row in rows.values() for read in row.dependencies)

    @invariant()
    def what_was_decided_is_remembered_for_its_time(self) -> None:
        submissions = {row.submission_id for row in self.desk.rows("dag.diffs")}
        commands = {row.command_id for row in self.desk.rows("dag.outcomes")}
        assert submissions | commands == self.keeping.decided.keys()

    @invariant()
    def no_topic_that_was_removed_is_ever_made_again(self) -> None:
        removed: set[str] = set()
        for entry in self.desk.told("dag.admin.log"):
            if entry.act is AdminAct.REMOVED:
                removed.add(entry.subject)
            assert entry.act is not AdminAct.REQUESTED or entry.subject not in removed

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
    def versions_are_what_was_said_of_them(self) -> None:
        rows = {row.sentinel_id: row for row in self.desk.rows("dag.sentinels")}
        assert rows.keys() == self.traffic.versions.keys()
        for name, one in self.traffic.versions.items():
            row = rows[name]
            assert (row.status.value, row.was_stable) == (one.status, one.was_stable)
            assert (row.node_ids, row.signals) == (one.nodes, one.signals)
            if row.status in (SentinelStatus.PENDING, SentinelStatus.ACTIVE):
                assert row.traffic_weight == one.share

    @invariant()
    def the_traffic_of_a_strategy_is_all_given_away(self) -> None:
        for owner in OWNERS:
            mine = [self.traffic.versions[name] for name in self.traffic.active.get(owner, [])]
            row = self.desk.table("dag.strategies").get(*owner)
            if not mine:
                assert row is None or (row.status, row.nodes, row.found) == (StrategyStatus.RETIRED, (), ())
                continue
            assert sum(one.share for one in mine) == FULL_WEIGHT
            told = [row.sentinel_id, *([row.canary.sentinel_id] if row.canary else [])]
            assert told == self.traffic.active[owner]
            assert row.canary is None or row.canary.traffic_weight == mine[1].share
            assert {one.node_id for one in row.nodes} == {one for version in mine for one in version.nodes}
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

        carried = self.traffic.carried()
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
        carried = self.traffic.carried()
        for row in self.current().values():
            if row.tags and row.ready and not row.removing and row.node_id in carried:
                wanted[row.tags, row.interval].append(row.topic)
        assert newest == {key: tuple(sorted(names)) for key, names in wanted.items()}


DEATHS = st.builds(Death, st.sampled_from(POINTS), st.booleans())


class Mortal(Life):
    """Any life over a log, whose process dies inside of transactions and which the cleaner goes through."""

    desk: DeskOnLog

    def a_desk(self, directory: Path) -> AnyDesk:
        return DeskOnLog(directory)

    @rule(fates=st.lists(st.lists(DEATHS, max_size=2), min_size=1, max_size=6))
    def crash(self, fates: list[list[Death]]) -> None:
        """Whatever comes next, the process dies of it, and its successor may die while it makes all memory again."""
        self.desk.meet(fates)

    @precondition(Life.has_news)
    @rule(
        reaches=st.lists(st.integers(0, 10), min_size=1, max_size=3),
        days=st.sampled_from([2, 9]),
    )
    def compact(self, reaches: list[int], days: int) -> None:
        """The rows and the memory of one without a store are what they were, whatever the cleaner has taken from the log."""
        with self.starting_anew():
            self.desk.compact(reaches, days)

    @invariant()
    def all_is_as_if_nothing_had_happened(self) -> None:
        """Each message was handled exactly once, whoever died of it."""
        calm = self.desk.calm
        assert self.desk.memory() == calm.memory()
        assert self.desk.stream_memory() == calm.stream_memory()
        assert self.desk.all_rows() == calm.all_rows()
        assert all(self.desk.told(name) == calm.told(name) for name in HEARD)


Life.TestCase.settings = tried(24, 40)
TestLife = Life.TestCase
Mortal.TestCase.settings = tried(12, 40)
TestMortal = Mortal.TestCase
