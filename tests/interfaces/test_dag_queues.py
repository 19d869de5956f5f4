"""How full the topics of nodes are: counted where they are small, estimated from their ends where not, and never read as a whole then."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine import entry
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Positions, Record, TopicPartition, partitions_of
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import QueryTimedOut, TooManyQueries
from qmtl.foundation.contracts.control import CloseMarker, InputPosition, InputTopic, PositionStamp
from qmtl.foundation.contracts.dag import ComputeNode, Queue, SentinelStatus, TopicClass, VersionSentinel
from qmtl.foundation.wire.keys import marker_key, stamp_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, LAG_ALERT_THRESHOLD, node_topic
from qmtl.interfaces import dag_queues
from qmtl.interfaces.dag_queues import (
    BUDGET_S,
    PER_S,
    SAMPLED,
    QueueStats,
    QueueStatsDesk,
    QueueTables,
    queue_stats,
)
from qmtl.interfaces.query_limits import TokenBucket
from qmtl.topology import PROTOTYPES
from tests.replay.logs import MINUTE_MS, RAW, RAW_SPEC, commit, log_in, marker, row, tombstone

QUEUE = Queue(RAW, "node", TopicClass.RAW, RAW_SPEC.partitions, 60, 0, 0, 0, ("crypto",), ready=True)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with log_in(tmp_path) as made:
        commit(made, [row("dag.queues", QUEUE)])
        yield made


def fill(log: EmbeddedLog, counts: Sequence[int], sizes: Sequence[int]) -> int:
    """Records in each partition, of so many bytes each, a marker behind every twentieth; returns how many bytes they have in all."""
    for start in range(0, max(counts), 500):
        commit(
            log,
            [
                made
                for partition, (count, size) in enumerate(zip(counts, sizes, strict=True))
                for at in range(start, min(start + 500, count))
                for made in (
                    (RAW, partition, b"k%06d" % at, bytes(size - 7)),
                    *([marker(RAW, at * 60_000, partition)] if at % 20 == 19 else []),
                )
            ],
        )
    return sum(count * size for count, size in zip(counts, sizes, strict=True))


def stats(log: EmbeddedLog) -> QueueStats:
    (found,), count = queue_stats(log, (), None, None)
    assert count == 1
    return found


def test_a_small_topic_is_counted_to_the_byte(log: EmbeddedLog) -> None:
    size = fill(log, (300, 0, 10), (50, 1, 90))
    found = stats(log)
    assert (found.bytes, found.is_estimate, found.records) == (size, False, 310)


@pytest.mark.parametrize(
    "counts, sizes",
    [((2000, 0, 0), (50, 1, 1)), ((3000, 600, 0), (40, 400, 1)), ((400, 400, 400), (20, 60, 90))],
)
def test_of_a_larger_topic_the_size_is_estimated_and_said_to_be(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, counts: Sequence[int], sizes: Sequence[int]
) -> None:
    read: list[Record] = []

    def watched(*args: object) -> Iterator[Record]:
        for record in read_all(*args):  # type: ignore[arg-type]  # as it is called
            read.append(record)
            yield record

    monkeypatch.setattr(dag_queues, "read_all", watched)
    size = fill(log, counts, sizes)
    found = stats(log)
    wheres = partitions_of(RAW, RAW_SPEC.partitions)
    begins, ends = log.begin_offsets(wheres), log.stable_offsets(wheres)
    assert (found.begin, found.end) == (sum(begins.values()), sum(ends.values()))
    assert (found.records, found.older, found.is_estimate) == (None, None, True)
    assert found.bytes == pytest.approx(size, rel=0.03)
    assert 0 < len(read) <= SAMPLED


@pytest.mark.parametrize("buckets", [0, 1, 25, 60])
def test_of_a_larger_topic_what_is_older_than_a_change_is_told_as_about_so_many(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, buckets: int
) -> None:
    """By the markers, of which a few are looked at: the change came with the close of one of 60 buckets."""
    node = ComputeNode("node", "price", 60, 0, "c", "s", "{}", (), buffering_since_ms=buckets * MINUTE_MS)
    commit(log, [row("dag.nodes", node)])
    each = 20
    for bucket in range(1, 61):
        closes = CloseMarker("feed", 0, 1, bucket * MINUTE_MS, each, "", 1)
        key, value = marker_key("feed", 0, bucket * MINUTE_MS), codec.encode(closes)
        records = [(RAW, 0, b"k%03d.%03d" % (bucket, at), b"v") for at in range(each)]
        commit(log, [*records, (RAW, 0, key, value)])
    monkeypatch.setattr(entry, "SPAN", 50)
    found = stats(log)
    assert (found.records, found.is_estimate) == (None, True)
    assert found.older == pytest.approx(buckets * each, rel=0.11)


def test_what_has_no_topic_has_no_size(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("dag.queues", Queue("n_a", "node", TopicClass.INDICATOR, 1, 60, 0, 0, 0))])
        found = stats(log)
    assert (found.begin, found.end, found.bytes, found.lag, found.is_estimate) == (
        None,
        None,
        None,
        None,
        False,
    )


# ---- what it costs ---------------------------------------------------------------------------------------------------


class Asked(SimulatedLog):
    """A log that counts about how many partitions its offsets were asked."""

    partitions = 0

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self.partitions += len(partitions)
        return super().end_offsets(partitions)

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self.partitions += len(partitions)
        return super().begin_offsets(partitions)


def test_a_page_of_queues_asks_the_log_about_no_others_however_many_are_read() -> None:
    """The node workers read every one of them."""
    asked: dict[int, int] = {}
    for many in (10, 60):
        log = Asked()
        names = [f"t{at:03}" for at in range(many)]
        log.ensure_topics([*CATALOGUE, *(node_topic(name, TopicClass.INDICATOR) for name in names)])
        kind = TopicClass.INDICATOR
        commit(
            log,
            [row("dag.queues", replace(QUEUE, topic=name, topic_class=kind, partitions=1)) for name in names],
        )
        (nodes,) = [one for one in PROTOTYPES if one.name == "nodes"]
        said = PositionStamp("nodes", 0, tuple(InputPosition(name, 0, 0) for name in names))
        commit(log, [(nodes.tables[0], 0, stamp_key("nodes", 0), codec.encode(said))])
        log.partitions = 0
        found, count = queue_stats(log, ("indicator",), 60, 5)
        assert ([one.queue.topic for one in found], count) == (names[:5], many)
        assert [one.lag for one in found] == [0] * 5
        asked[many] = log.partitions
    assert asked[10] == asked[60]


VERSION = VersionSentinel("v", "v1", "c", 0, "w", "s", ("n",))
HELD = (SentinelStatus.PENDING, SentinelStatus.ACTIVE)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from([*SentinelStatus, None]),
            st.lists(st.sampled_from("nm"), max_size=3),
        ),
        max_size=10,
    )
)
def test_references_are_those_of_the_versions_that_hold_a_node_whatever_became_of_them(
    acts: Sequence[tuple[str, SentinelStatus | None, list[str]]],
) -> None:
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    tables = QueueTables(log)
    rows: dict[str, tuple[SentinelStatus, list[str]]] = {}
    for name, status, nodes in acts:
        if status is None:
            commit(log, [tombstone("dag.sentinels", name)])
            rows.pop(name, None)
        else:
            said = replace(VERSION, sentinel_id=name, status=status, node_ids=tuple(nodes))
            commit(log, [row("dag.sentinels", said)])
            rows[name] = (status, nodes)
        tables.look()
        for node in "nm":
            held = sum(node in nodes and status in HELD for status, nodes in rows.values())
            assert tables.references(node) == held


# ---- bounds of readers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "lag", "lags"),
    [
        (None, None, None),
        (None, LAG_ALERT_THRESHOLD, False),
        (None, LAG_ALERT_THRESHOLD + 1, True),
        (7, 7, False),
        (7, 8, True),
        (0, 1, True),
        (2 * LAG_ALERT_THRESHOLD, LAG_ALERT_THRESHOLD + 1, False),
    ],
)
def test_a_reader_lags_that_is_farther_behind_than_the_topic_or_its_class_allows(
    own: int | None, lag: int | None, lags: bool | None
) -> None:
    found = QueueStats(replace(QUEUE, lag_alert_threshold=own), 1, lag=lag)
    assert (found.lags, found.lag_bound) == (lags, LAG_ALERT_THRESHOLD if own is None else own)


# ---- a desk ----------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds that go on when somebody says so, and by a step with each look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def simulated() -> SimulatedLog:
    made = SimulatedLog()
    made.ensure_topics([*CATALOGUE, RAW_SPEC])
    commit(made, [row("dag.queues", QUEUE)])
    commit(made, [(RAW, 0, b"k", b"v")] * 7)
    return made


@given(pauses=st.lists(st.sampled_from([0.0, 0.05, 0.2, 0.25, 1.0, 9.0]), min_size=6, max_size=40))
def test_no_more_than_five_a_second_are_let_in_and_who_waits_as_told_is(pauses: list[float]) -> None:
    clock, taken = Clock(), list[float]()
    bucket = TokenBucket(PER_S, clock)
    for pause in pauses:
        clock.now += pause
        try:
            bucket.take()
        except TooManyQueries as error:
            wait_ms = int(error.remedy.split()[-2])
            assert 0 <= wait_ms <= 1000 / PER_S
            clock.now += (wait_ms + 1) / 1000
            bucket.take()
        taken.append(clock.now)
    for first, since in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= PER_S + (taken[last] - since) * PER_S + 1e-6


def test_a_desk_answers_five_a_second_and_sees_what_was_written_since(simulated: SimulatedLog) -> None:
    clock = Clock()
    desk = QueueStatsDesk(simulated, clock)
    assert [desk.ask((), None, None)[1] for _ in range(PER_S)] == [1] * PER_S
    with pytest.raises(TooManyQueries, match="200 ms"):
        desk.ask((), None, None)
    commit(simulated, [row("dag.queues", replace(QUEUE, topic="other"))])
    clock.now += 0.2
    found, count = desk.ask((), None, None)
    assert [one.queue.topic for one in found] == sorted([RAW, "other"])
    whole, _ = queue_stats(simulated, (), None, None)
    assert found == [replace(one, records=None, bytes=None) for one in whole]
    assert (count, [one.records for one in whole if one.queue.topic == RAW]) == (2, [7])
    commit(simulated, [tombstone("dag.queues", "other")])
    clock.now += 0.2
    assert desk.ask((), None, None)[1] == 1


def test_a_lag_is_that_of_the_task_that_is_farthest_behind_and_still_reads_the_topic(
    simulated: SimulatedLog,
) -> None:
    (nodes,) = [one for one in PROTOTYPES if one.name == "nodes"]
    left = (InputTopic(RAW, "life", read=False),)
    for task, offset, topics in ((1, 0, left), (2, 3, ()), (3, 5, ())):
        said = PositionStamp("nodes", task, (InputPosition(RAW, 0, offset),), topics=topics)
        commit(simulated, [(nodes.tables[0], task, stamp_key("nodes", task), codec.encode(said))])
    where = TopicPartition(RAW, 0)
    (found,), _ = queue_stats(simulated, (), None, None)
    assert found.lag == simulated.end_offsets([where])[where] - 3 > 0


def test_a_request_that_takes_longer_than_its_time_is_given_up(simulated: SimulatedLog) -> None:
    with pytest.raises(QueryTimedOut, match="300 ms"):
        QueueStatsDesk(simulated, Clock(BUDGET_S / 3)).ask((), None, None)
    assert QueueStatsDesk(simulated, Clock(BUDGET_S / 100)).ask((), None, None)[1] == 1


def test_a_request_behind_one_that_hangs_is_given_up_too(
    simulated: SimulatedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, entered, go_on = QueueStatsDesk(simulated), Event(), Event()
    topics = simulated.topics

    def hanging() -> list[str]:
        entered.set()
        go_on.wait(5)
        return topics()

    monkeypatch.setattr(simulated, "topics", hanging)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(desk.ask, (), None, None)
        assert entered.wait(30)
        with pytest.raises(QueryTimedOut):
            desk.ask((), None, None)
        assert not first.done()
        go_on.set()
        with pytest.raises(QueryTimedOut):
            first.result(30)
