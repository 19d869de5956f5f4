"""What is told of the graph is what lies in its topics, counted here by reading their tables anew."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from qmtl.engine.log.port import Log
from qmtl.engine.observer import Commit, Look, TaskId
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Process
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.context import LogContext, NodeContext, SaidContext
from qmtl.foundation.contracts.dag import (
    AdminAct,
    AdminEntry,
    Canary,
    ComputeNode,
    DagSubmission,
    PlannedNode,
    Queue,
    ReportTopicCreated,
    ReportTopicRemoved,
    SentinelStatus,
    Split,
    StrategyStatus,
    StrategyVersion,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.contracts.diff import DiffRequest, DiffState
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.foundation.contracts.release import Release, ReleaseStage
from qmtl.foundation.contracts.retention import ReportTopicArchived
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, SHARDS
from qmtl.interfaces.dag_survey import Surveyor
from qmtl.interfaces.metrics import graph, watch
from qmtl.interfaces.metrics.graph import GraphGauges
from qmtl.interfaces.metrics.watch import Watch
from qmtl.services.nodes.resident import window_bytes
from tests.contract.driving import until
from tests.interfaces.cli.deployed import deploy, feed_bars, settle
from tests.interfaces.metrics.scraping import Scrape
from tests.interfaces.metrics.whole import running, served
from tests.replay.logs import START_MS, Row, commit, log_in, row, ticks, tombstone
from tests.services.graphs import crossing, strategy, text

COUNTS = (
    "compute_nodes_total",
    "queues_total",
    "orphan_queue_total",
    "sentinel_gap_count",
    "qmtl_dag_handovers_open",
    "queue_create_success_total",
    "queue_create_error_total",
    "qmtl_dag_diff_ack_timeouts_total",
    "qmtl_dag_ids_reused_total",
    "compute_nodes_buffering",
    "compute_nodes_buffering_since_seconds",
    "cross_context_cache_hit_total",
    "cross_context_cache_hits_uncleared",
    "queue_archive_success_total",
    "queue_archive_error_total",
)
STAGES = ("backtests", "canary", "half", "deployed", "abandoned")


def rows_of(log: Log, name: str) -> list[Any]:
    return TableView(log, name, codec).refresh().rows()


def messages_of(log: Log, name: str) -> list[Any]:
    found = read_all(log, all_partitions(log, name))
    return [codec.decode(one.value) for one in found if one.value and not is_reserved(one.key)]


def gaps_of(log: Log) -> int:
    """Strategies whose versions with traffic are not those of the plan, or have not all of it."""
    versions = [one for one in rows_of(log, "dag.sentinels") if one.status is SentinelStatus.ACTIVE]
    plans = [one for one in rows_of(log, "dag.strategies") if one.nodes]
    count = 0
    for whose in {(one.world_id, one.strategy_id) for one in (*versions, *plans)}:
        mine = [one for one in versions if (one.world_id, one.strategy_id) == whose]
        ids = [
            name
            for one in plans
            if (one.world_id, one.strategy_id) == whose
            for name in (one.sentinel_id, *([one.canary.sentinel_id] if one.canary else []))
        ]
        whole = sum(one.traffic_weight for one in mine) == 10_000
        count += not whole or sorted(one.sentinel_id for one in mine) != sorted(set(ids))
    return count


def counts_of(log: Log) -> list[float | None]:
    """What the tables hold, in the order of `COUNTS`."""
    queues = rows_of(log, "dag.queues")
    made = [one for one in messages_of(log, "dag.reports") if isinstance(one, ReportTopicCreated)]
    stored = [one for one in messages_of(log, "dag.reports") if isinstance(one, ReportTopicArchived)]
    nodes = [one.buffering_since_ms for one in rows_of(log, "dag.nodes")]
    since = [one for one in nodes if one is not None]
    contexts = rows_of(log, "dag.context")
    return [
        len(rows_of(log, "dag.nodes")),
        len(queues),
        sum(one.orphaned_at_ms is not None and not one.removing for one in queues),
        gaps_of(log),
        sum(bool(one.before) and one.before[-1].until_ms is None for one in rows_of(log, "dag.strategies")),
        sum(one.created for one in made),
        sum(not one.created and one.code != "QMTL-322" for one in made),
        sum(one.act is AdminAct.STALLED for one in messages_of(log, "dag.admin.log")),
        sum(one.act is AdminAct.REPEATED for one in messages_of(log, "dag.admin.log")),
        len(since),
        min((one / 1000 for one in since if one), default=None),
        sum(sum(one.hits) for one in contexts),
        sum(sum(one.hits) - one.cleared for one in contexts),
        sum(one.archived for one in stored),
        sum(not one.archived for one in stored),
    ]


def expiry_of(log: Log) -> tuple[int, dict[str, int]]:
    """Nodes that nobody needs, and how many rows went, by table."""
    counts: dict[str, int] = {}
    for one in messages_of(log, "dag.admin.log"):
        if one.act is AdminAct.EXPIRED:
            counts[one.subject] = counts.get(one.subject, 0) + int(one.detail)
    return sum(one.unneeded_since_ms is not None for one in rows_of(log, "dag.nodes")), counts


def kept_of(log: Log) -> dict[str, int]:
    """Removals that failed, by code."""
    reports = [one for one in messages_of(log, "dag.reports") if isinstance(one, ReportTopicRemoved)]
    return Counter(one.code for one in reports if not one.removed)


def releases_of(log: Log) -> list[float]:
    """How many there are in each stage, in the order of `STAGES`."""
    stages = [one.stage.value for one in rows_of(log, "dag.releases")]
    return [stages.count(stage) for stage in STAGES]


# ---- any topics ------------------------------------------------------------------------------------------------------

NODE = ComputeNode("n", "sma", 60, 3, "c", "s", "{}", ())
QUEUE = Queue("q", "n", TopicClass.INDICATOR, 1, 60, 1, 1, 0)
VERSION = VersionSentinel("v", "v1", "c", 0, "w", "s", ("n",))
PLANNED = PlannedNode("n", "n", "sma", 60, 3, "{}", (), "q", 1, False)
PLAN = StrategyVersion("w", "s", "v1", "v", "x", StrategyStatus.READY, (PLANNED,), ())
BEFORE = Split("v", (), None, ())
CONTEXT = LogContext("compute", SaidContext("w", ExecutionDomain.LIVE, "", "", ""), 0)

RELEASE = Release("r", "w", "s", "v2", "d", ReleaseStage.BACKTESTS, 1)

NAMES_3 = st.sampled_from(["a", "b", "c"])
ROWS: st.SearchStrategy[Row] = st.one_of(
    st.builds(
        lambda name, since, unneeded: row(
            "dag.nodes", replace(NODE, node_id=name, buffering_since_ms=since, unneeded_since_ms=unneeded)
        ),
        NAMES_3,
        st.sampled_from([None, None, 0, 3, 7000]),
        st.sampled_from([None, 7]),
    ),
    st.builds(lambda name: tombstone("dag.nodes", name), NAMES_3),
    st.builds(
        lambda name, since, removing: row(
            "dag.queues", replace(QUEUE, topic=name, orphaned_at_ms=since, removing=removing)
        ),
        NAMES_3,
        st.sampled_from([None, 7]),
        st.booleans(),
    ),
    st.builds(lambda name: tombstone("dag.queues", name), NAMES_3),
    st.builds(
        lambda name, whose, status, weight: row(
            "dag.sentinels",
            replace(VERSION, sentinel_id=name, strategy_id=whose, status=status, traffic_weight=weight),
        ),
        NAMES_3,
        st.sampled_from(["s", "t"]),
        st.sampled_from([SentinelStatus.ACTIVE, SentinelStatus.ACTIVE, SentinelStatus.RETIRED]),
        st.sampled_from([10_000, 9_000, 1_000]),
    ),
    st.builds(lambda name: tombstone("dag.sentinels", name), NAMES_3),
    st.builds(
        lambda whose, name, canary, there, ends: row(
            "dag.strategies",
            replace(
                PLAN,
                strategy_id=whose,
                sentinel_id=name,
                nodes=(PLANNED,) if there else (),
                canary=None if canary is None else Canary("v2", canary, "x", 1_000, ()),
                before=tuple([replace(BEFORE, until_ms=until_ms) for until_ms in ends]),
            ),
        ),
        st.sampled_from(["s", "t"]),
        NAMES_3,
        st.one_of(st.none(), NAMES_3),
        st.sampled_from([True, True, False]),
        st.sampled_from([(), (0,), (None,), (7, None)]),
    ),
    st.builds(
        lambda name, code: row("dag.reports", ReportTopicCreated(name, not code, code, "")),
        NAMES_3,
        st.sampled_from(["", "QMTL-303", "QMTL-322"]),
    ),
    st.builds(
        lambda name, code: row("dag.reports", ReportTopicRemoved(name, not code, code, "")),
        NAMES_3,
        st.sampled_from(["", "QMTL-326", "QMTL-905"]),
    ),
    st.builds(
        lambda name, ok: row("dag.reports", ReportTopicArchived(name, 1, ok, "", "")), NAMES_3, st.booleans()
    ),
    st.builds(
        lambda name, act: row("dag.admin.log", AdminEntry(act, name, "", "", 1)),
        NAMES_3,
        st.sampled_from([AdminAct.STALLED, AdminAct.GIVEN_UP]),
    ),
    st.builds(
        lambda name, count: row("dag.admin.log", AdminEntry(AdminAct.EXPIRED, name, "", "", 1, str(count))),
        st.sampled_from(["dag.nodes", "dag.diffs"]),
        st.integers(1, 9),
    ),
    st.builds(
        lambda hits, cleared: row("dag.context", replace(CONTEXT, hits=tuple(hits), cleared=cleared)),
        st.lists(st.integers(0, 9), max_size=3),
        st.integers(0, 3),
    ),
    st.builds(
        lambda name, stage: row("dag.releases", replace(RELEASE, release_id=name, stage=stage)),
        NAMES_3,
        st.sampled_from(ReleaseStage),
    ),
    st.builds(lambda name: tombstone("dag.releases", name), NAMES_3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(ROWS, min_size=1, max_size=6), min_size=1, max_size=4))
def test_a_survey_counts_what_the_topics_hold_however_often_it_looks(
    batches: Sequence[Sequence[Row]],
) -> None:
    with tempfile.TemporaryDirectory() as directory, log_in(Path(directory) / "log") as log:
        surveyor = Surveyor(log, lambda seconds: None)
        for batch in batches:
            commit(log, batch)
            found = surveyor.look()
            *counts, oldest_ms, crossed, uncleared, releases, _, unneeded, expired, kept, stored, lost = (
                astuple(found)
            )
            oldest_s = None if oldest_ms is None else oldest_ms / 1000
            assert [*counts, oldest_s, crossed, uncleared, stored, lost] == counts_of(log)
            assert list(releases) == releases_of(log)
            assert (unneeded, dict(expired)) == expiry_of(log)
            assert dict(kept) == kept_of(log)


@pytest.mark.parametrize(
    ("active", "plan", "gaps"),
    [
        ({"a": 10_000}, ("a",), 0),
        ({"a": 9_000, "b": 1_000}, ("a", "b"), 0),
        ({}, (), 0),
        ({"a": 9_000}, ("a",), 1),
        ({"a": 9_000, "b": 2_000}, ("a", "b"), 1),
        ({"a": 9_000, "b": 1_000}, ("a",), 1),
        ({"a": 10_000}, ("a", "b"), 1),
        ({"a": 10_000}, ("b",), 1),
        ({"a": 10_000}, (), 1),
        ({}, ("a",), 1),
    ],
)
def test_a_gap_is_traffic_that_is_not_given_whole_to_the_versions_of_the_plan(
    tmp_path: Path, active: dict[str, int], plan: tuple[str, ...], gaps: int
) -> None:
    versions = [
        row("dag.sentinels", replace(VERSION, sentinel_id=name, traffic_weight=weight))
        for name, weight in active.items()
    ]
    canary = Canary("v2", plan[1], "x", 1_000, ()) if len(plan) > 1 else None
    deployed = [row("dag.strategies", replace(PLAN, sentinel_id=plan[0], canary=canary))] if plan else []
    beside = [
        row("dag.sentinels", replace(VERSION, sentinel_id="c", strategy_id="t")),
        row("dag.strategies", replace(PLAN, sentinel_id="c", strategy_id="t")),
    ]
    with log_in(tmp_path / "log") as log:
        commit(log, [*versions, *deployed, *beside])
        assert Surveyor(log, lambda seconds: None).look().gaps == gaps


def test_a_gap_that_is_closed_while_it_is_looked_at_is_none(tmp_path: Path) -> None:
    active = row("dag.sentinels", replace(VERSION, status=SentinelStatus.ACTIVE))
    with log_in(tmp_path / "log") as log:
        commit(log, [row("dag.strategies", PLAN)])
        assert Surveyor(log, lambda seconds: None).look().gaps == 1
        assert Surveyor(log, lambda seconds: commit(log, [active])).look().gaps == 0


# ---- a system that runs ----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with deployed strategies; everything is measured at each scrape."""
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(graph, "EVERY_S", 0.0)
    deploy(tmp_path)
    return tmp_path


def test_a_worker_of_the_dag_manager_tells_what_its_tables_hold(place: Path) -> None:
    with running(place) as (client, metrics), served(client, metrics, place) as url:

        def told() -> list[float | None]:
            found = Scrape(url)
            return [
                found.get(name, processor="dagmanager", task=0)
                if name == "cross_context_cache_hit_total"
                else found.get(name)
                for name in COUNTS
            ]

        counted = counts_of(client.log)
        assert told() == counted
        assert counted[3:-1] == [0, 0, counted[1], 0, 0, 0, 0, None, 0, 0, 0]
        assert counted[2]
        assert counted[-1], "there is no archive"
        lost = ReportTopicCreated("q", False, "QMTL-303", "another one is there")
        wrong = replace(rows_of(client.log, "dag.sentinels")[-1], traffic_weight=9_999)
        commit(client.log, [row("dag.reports", lost), row("dag.sentinels", wrong)])
        until(lambda: told() == counts_of(client.log))
        assert [counts_of(client.log)[at] for at in (3, 6)] == [1, 1]
        released = [replace(RELEASE, release_id=one) for one in "ab"]
        over = replace(RELEASE, release_id="c", stage=ReleaseStage.ABANDONED)
        commit(client.log, [row("dag.releases", one) for one in (*released, over)])

        def in_stages() -> list[float | None]:
            found = Scrape(url)
            return [found.get("qmtl_dag_releases", stage=stage) for stage in STAGES]

        until(lambda: in_stages() == releases_of(client.log))
        assert in_stages() == [2, 0, 0, 0, 1]
        went = AdminEntry(AdminAct.EXPIRED, "dag.nodes", "", "clock", 1, "3")
        idle = replace(rows_of(client.log, "dag.nodes")[0], unneeded_since_ms=1)
        commit(client.log, [row("dag.admin.log", went), row("dag.admin.log", went), row("dag.nodes", idle)])

        def gone() -> list[float | None]:
            found, name = Scrape(url), "qmtl_dag_rows_expired_total"
            return [
                found.get("compute_nodes_unneeded"),
                *(found.get(name, table=one) for one in ("dag.nodes", "dag.diffs")),
            ]

        until(lambda: gone() == [1, 6, 0])
        failed = [ReportTopicRemoved("q", False, code, "no") for code in ("QMTL-326", "QMTL-326", "QMTL-902")]
        commit(client.log, [row("dag.reports", one) for one in failed])

        def kept() -> list[float | None]:
            found, codes = Scrape(url), ("QMTL-326", "QMTL-902", "QMTL-905")
            return [found.get("queue_remove_error_total", code=code) for code in codes]

        until(lambda: kept() == [2, 1, 0])


def test_cross_context_hits_are_told_by_the_shards_that_met_them_and_by_the_dag_manager(place: Path) -> None:
    """The shards' own figures are there though the DAG Manager has not heard of them yet."""
    with running(place) as (client, metrics), served(client, metrics, place) as url:
        settle(client)

        def told(processor: str) -> list[tuple[str, float | None]]:
            found, name = Scrape(url), "cross_context_cache_hit_total"
            tasks = sorted(one["task"] for one in found.labelled(name) if one["processor"] == processor)
            return [(task, found.get(name, processor=processor, task=task)) for task in tasks]

        until(lambda: told("nodes") == [(str(shard), 0) for shard in range(SHARDS)])
        said = [row("dag.context", CONTEXT)]
        said += [row("node.context", NodeContext(shard, CONTEXT.context, 10 * shard)) for shard in (1, 3)]
        commit(client.log, said)
        until(lambda: told("nodes") == [("0", 0), ("1", 10), ("2", 0), ("3", 30)])
        assert told("dagmanager") == [("0", 0)]


def test_an_answer_that_nobody_takes_is_counted_and_goes_on_once_it_is(place: Path) -> None:
    """The failure is there while the clock ticks and no acknowledgement comes; it heals by asking on."""
    with running(place) as (client, metrics), served(client, metrics, place) as url:

        def timeouts() -> float | None:
            return Scrape(url).get("qmtl_dag_diff_ack_timeouts_total")

        message = text(strategy(crossing(5, 20), "s3"))
        asked = DiffRequest("r1", "s3", message, START_MS, "w1", "live", "")
        commit(client.log, [row("dag.diff.requests", asked)], "people")
        commit(client.log, [row("dag.diff.requests", replace(asked, as_of="another"))], "people")
        commit(client.log, ticks(3, 5), "clock")
        settle(client)
        assert client.view("dag.diff.streams").get("r1").state is DiffState.TIMEOUT
        until(lambda: timeouts() == 1)
        assert len(client.diff(asked).nodes) > 2
        settle(client)
        assert client.view("dag.diff.streams").get("r1").state is DiffState.DONE
        commit(client.log, ticks(6, 7), "clock")
        settle(client)
        stalled = counts_of(client.log)[COUNTS.index("qmtl_dag_diff_ack_timeouts_total")]
        assert (timeouts(), stalled) == (1, 1)
        assert Scrape(url).get("qmtl_dag_ids_reused_total") == 1


def test_every_diff_that_the_log_has_is_one_of_the_histogram(place: Path) -> None:
    """Submissions and diff requests, also those that are refused: as many as the audit has, and each took some of the time."""

    def audited(log: Log) -> int:
        found = [one for one in messages_of(log, "dag.admin.log") if one.act is AdminAct.DIFFED]
        return sum(one.detail == "request" for one in found)

    with running(place) as (client, metrics), served(client, metrics, place) as url:
        before = audited(client.log)
        for number in range(5):
            data = text(strategy(crossing(5, 20 + number), f"more{number}")) if number else b"no json"
            one = DagSubmission(f"more{number}", "w1", data, START_MS, execution_domain="live")
            commit(client.log, [row("dag.submissions", one)], "people")
        for number in range(3):
            data = text(strategy(crossing(6, 20 + number), "asked")) if number else b"no json"
            asked = DiffRequest(f"r{number}", "asked", data, START_MS, "w1", "live", "")
            commit(client.log, [row("dag.diff.requests", asked)], "people")
        commit(client.log, ticks(3, 4), "clock")
        settle(client)
        found = Scrape(url)
        sent = audited(client.log) - before
        assert (sent, found.get("diff_duration_ms_count")) == (8, 8)
        seconds = found.total("qmtl_transaction_duration_seconds_sum", processor="dagmanager")
        assert 0 < (found.get("diff_duration_ms_sum") or 0) <= sent * 1000 * 60
        assert seconds > 0


def test_a_diff_takes_from_its_reading_to_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    registry = CollectorRegistry()
    one = Watch(["dagmanager"], registry, lambda: now[0])
    task = TaskId("dagmanager", 0)

    def shown() -> tuple[int, int]:
        names = ("diff_duration_ms_count", "diff_duration_ms_sum")
        count, total = (registry.get_sample_value(name) or 0 for name in names)
        return round(count), round(total)

    def commits(topics: dict[str, int]) -> None:
        one.committed(task, Commit(sum(topics.values()), 1, 0, 0, {}, 0, 0.01, topics))
        one.stepped(task, lambda: Look({}, {}))

    one.opening(task)
    one.opened(task)
    one.read(task, 3)
    now[0] += 0.15
    one.read(task, 0)
    now[0] += 0.1
    commits({"dag.submissions": 2, "dag.reports": 1})
    assert shown() == (2, 500)
    one.read(task, 4)
    commits({"dag.reports": 4})
    assert shown()[0] == 2
    one.read(task, 1)  # nothing to commit yet
    one.stepped(task, lambda: Look({}, {}))
    now[0] += 60
    one.read(task, 1)
    now[0] += 0.02
    commits({"dag.submissions": 1})
    assert shown() == (3, 520)
    one.read(task, 1)
    one.closed(task)  # the transaction failed, and is begun again
    now[0] += 60
    one.opening(task)
    one.opened(task)
    one.read(task, 1)
    now[0] += 0.03
    commits({"dag.submissions": 1})
    assert shown() == (4, 550)


def test_no_other_worker_has_diffs() -> None:
    registry = CollectorRegistry()
    Watch(["nodes"], registry)
    assert registry.get_sample_value("diff_duration_ms_count") is None


def test_windows_in_memory_are_those_of_the_nodes_that_were_computed(place: Path) -> None:
    with running(place) as (client, metrics):
        settle(client)
        feed_bars(client, 6)
        feed_bars(client, 12)  # the same windows, later: none is counted twice
        windows = rows_of(client.log, "node.windows")
        assert len(windows) > 2
        with served(client, metrics, place) as url:
            found = Scrape(url)
        assert found.total("nodecache_resident_bytes", processor="nodes") == sum(map(window_bytes, windows))
        assert len(found.labelled("nodecache_resident_bytes")) == 4
    with running(place) as (client, metrics), served(client, metrics, place) as url:
        assert Scrape(url).total("nodecache_resident_bytes") == 0  # restored, and not computed since


@pytest.mark.parametrize("length", [1, 100, 20_000])
def test_the_bytes_of_a_window_are_about_those_that_it_takes(length: int) -> None:
    from tracemalloc import get_traced_memory, start, stop

    from qmtl.runtime.indicators.sma import Sma

    row_ = NodeWindow("n", "s", length, tuple(Decimal(f"100.{number}") for number in range(length)))
    kept = []
    params = Sma().parse({}, length)
    start()
    try:
        # A megabyte at least, beside which it is nothing what other threads of this process take meanwhile.
        for _ in range(10 + 2_000 // length):
            copied = replace(row_, values=tuple(Decimal(str(one)) for one in row_.values))
            kept.append(Sma().resume(params, copied))
            del copied
        taken = get_traced_memory()[0] / len(kept)
    finally:
        stop()
    assert sys.getsizeof(Decimal(0)) * length * 0.9 < taken
    assert 0.4 * taken < window_bytes(row_) < 2.5 * taken


# ---- whether anybody writes --------------------------------------------------------------------------------------------


def absent(gauges: GraphGauges) -> float | None:
    """What is told, once it was measured."""
    until(lambda: gauges.get().absent.age_s is not None)
    samples = [one.samples for one in gauges.collect(gauges.get()) if one.name == "no_active_writer"]
    return samples[0][0].value if samples else None


def test_nobody_writes_while_the_group_has_no_member_with_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "EVERY_S", 0.0)
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    gauges = GraphGauges(log, Watch(["nodes"], CollectorRegistry()))
    try:
        assert absent(gauges) == 1
        process = Process("writer")
        member = SimulatedLog(log.cluster, process).membership("qmtl.dagmanager", "0", "dag.submissions")
        until(lambda: member.poll() == frozenset({0}))
        assert absent(gauges) == 0
        process.alive = False
        assert absent(gauges) == 0  # until its session ends
        log.cluster.pass_ms(60_000)
        assert absent(gauges) == 1
    finally:
        gauges.stop()


def test_on_a_log_that_knows_no_members_only_the_writer_itself_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "EVERY_S", 0.0)
    with log_in(tmp_path / "log") as log:
        other = GraphGauges(log, Watch(["nodes"], CollectorRegistry()))
        watching = Watch(["dagmanager"], CollectorRegistry())
        mine = GraphGauges(log, watching)
        try:
            assert (absent(other), absent(mine)) == (None, 1)
            watching.opening(TaskId("dagmanager", 0))
            assert absent(mine) == 1
            watching.opened(TaskId("dagmanager", 0))
            assert absent(mine) == 0
        finally:
            other.stop()
            mine.stop()
