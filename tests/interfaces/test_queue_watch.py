"""Whatever comes of the events, in whatever order and how often: no set is told twice or goes back, and the tables have the last word."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Positions, TopicPartition
from qmtl.foundation.common.errors import InvalidValue, StampMismatch
from qmtl.foundation.contracts.dag import (
    Queue,
    QueueCollected,
    QueueRole,
    QueueUpdated,
    SentinelStatus,
    TagSet,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces import queue_watch
from qmtl.interfaces.queue_watch import (
    TABLES,
    Cause,
    Choice,
    EventUnread,
    QueueWatch,
    ReadySet,
    ReadySets,
    SetChanged,
    SetKey,
    changes_in,
    read_ready_sets,
)
from tests.replay.logs import Clock, Row, commit, row, stamp, tombstone

TAGS = ("crypto", "sma")
KEY = SetKey(TAGS, 60)
CHOICE = Choice(frozenset({"crypto"}))


def event(key: SetKey, changes: int, queues: Collection[str]) -> QueueUpdated:
    """As the DAG Manager tells it."""
    etag = f"q:{'.'.join(key.tags)}:{key.interval}:{changes}"
    names = tuple(sorted(queues))
    return QueueUpdated("QueueUpdated", key.tags, key.interval, names, etag, "2025-08-28T09:00:00Z")


# ---- the law ---------------------------------------------------------------------------------------------------------

KEYS = (KEY, SetKey(("crypto",), 60), SetKey(TAGS, 3600), SetKey(("price",), 60))
ACTS = st.one_of(
    st.tuples(st.just("change"), st.sampled_from(KEYS), st.frozensets(st.sampled_from("abc"))),
    st.tuples(st.just("hear"), st.integers(0, 30), st.none()),
    st.tuples(st.just("reconcile"), st.integers(0, 5), st.none()),
)
A, B = frozenset("a"), frozenset("b")


class Told:
    """What somebody makes of what they are told, who knows nothing else."""

    def __init__(self, history: dict[SetKey, list[frozenset[str]]]) -> None:
        self._history = history
        self.sets: dict[SetKey, frozenset[str]] = {}
        self._counts: dict[SetKey, int] = {}

    def take(self, change: SetChanged) -> None:
        before = self.sets.get(change.key, frozenset())
        added, removed = frozenset(change.added), frozenset(change.removed)
        assert added or removed
        assert not added & before
        assert removed <= before
        count = int(change.etag.rpartition(":")[2])
        assert count > self._counts.get(change.key, 0), "an older set, or the same change twice"
        self._counts[change.key] = count
        self.sets[change.key] = (before | added) - removed
        assert self.sets[change.key] == self._history[change.key][count]
        assert list(change.added) == sorted(added)
        assert list(change.removed) == sorted(removed)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTS, max_size=40))
@example([("change", KEY, A), ("change", KEY, B), ("hear", 1, None), ("hear", 0, None)])
@example([("change", KEY, A), ("hear", 0, None), ("reconcile", 1, None)])
@example([("change", KEY, A), ("change", KEY, B), ("hear", 1, None), ("reconcile", 1, None)])
@example([("change", KEY, A), ("reconcile", 0, None), ("hear", 0, None), ("change", KEY, frozenset())])
def test_events_in_any_order_lost_or_repeated_end_in_the_sets_of_the_tables(
    acts: Sequence[tuple[str, Any, Any]],
) -> None:
    history: dict[SetKey, list[frozenset[str]]] = {key: [frozenset()] for key in KEYS}
    tables: list[dict[SetKey, ReadySet]] = [{}]
    events: list[QueueUpdated] = []
    sets, told, floor = ReadySets(CHOICE), Told(history), 0

    def reconcile(at: int) -> None:
        for change in sets.reconcile([one for one in tables[at].values() if CHOICE.has(one.key)]):
            assert change.cause is Cause.RECONCILED
            told.take(change)

    for what, which, queues in acts:
        if what == "change" and history[which][-1] != queues:
            history[which].append(queues)
            now = ReadySet(which, tuple(sorted(queues)), len(history[which]) - 1)
            tables.append({**tables[-1], which: now})
            events.append(event(which, now.changes, queues))
        elif what == "hear" and events:
            change = sets.hear(events[which % len(events)])
            if change is not None:
                assert change.cause is Cause.EVENT
                told.take(change)
        elif what == "reconcile":
            # What comes of a reading is older than now, and not older than the last one.
            reconcile(max(floor, len(tables) - 1 - which))
            floor = len(tables) - 1
    reconcile(-1)
    present = {one.key: frozenset(one.queues) for one in sets.present()}
    assert present == {key: last[-1] for key, last in history.items() if CHOICE.has(key) and last[-1]}
    assert {key: queues for key, queues in told.sets.items() if queues} == present
    reconcile(-1)
    assert [sets.hear(one) for one in events] == [None] * len(events)
    assert {one.key: frozenset(one.queues) for one in sets.present()} == present


def test_an_etag_that_was_seen_says_nothing_whatever_comes_with_it() -> None:
    sets = ReadySets(CHOICE)
    assert sets.hear(event(KEY, 3, "ab")) is not None
    assert sets.hear(event(KEY, 3, "abc")) is None
    assert [one.queues for one in sets.present()] == [("a", "b")]


def test_tables_that_count_less_than_what_was_known_before_they_were_read_are_right() -> None:
    sets = ReadySets(CHOICE)
    sets.hear(event(KEY, 9, "abc"))
    restored = [ReadySet(KEY, ("a",), 2)]
    assert sets.reconcile(restored) == []  # they may have been read before the event was
    expected = SetChanged(KEY, (), ("b", "c"), "q:crypto.sma:60:2", Cause.RECONCILED)
    assert sets.reconcile(restored) == [expected]
    assert sets.reconcile(restored) == []
    assert sets.hear(event(KEY, 3, "ab")) is not None
    assert (sets.reconcile([]), len(sets.reconcile([])), sets.present()) == ([], 1, [])


# ---- etags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 77, 2**63 - 1])
def test_an_etag_ends_in_a_count(count: int) -> None:
    assert changes_in(event(KEY, count, "a")) == count


@pytest.mark.parametrize(
    "etag",
    [
        "",
        "7",
        "crypto.sma:60:7",
        "q:crypto.sma:60",
        "q:crypto.sma:60:",
        "q:crypto.sma:60:0",
        "q:crypto.sma:60:07",
        "q:crypto.sma:60:+7",
        "q:crypto.sma:60:-7",
        "q:crypto.sma:60: 7",
        "q:crypto.sma:60:7 ",
        "q:crypto.sma:60:7\n",
        "q:crypto.sma:60:7.0",
        "q:crypto.sma:60:1_0",
        "q:crypto.sma:60:７",
        "q:crypto.sma:60:7:7",
        "q:crypto.sma:60:9223372036854775808",
        "q:crypto.sma:3600:7",
        "q:crypto:60:7",
        "q:sma.crypto:60:7",
        "Q:crypto.sma:60:7",
        "gc:crypto.sma:60:7",
    ],
)
def test_an_etag_of_another_form_is_refused_and_changes_nothing(etag: str) -> None:
    sets = ReadySets(CHOICE)
    sets.hear(event(KEY, 5, "ab"))
    before = sets.present()
    with pytest.raises(InvalidValue, match="etag of an event") as refused:
        sets.hear(replace(event(KEY, 7, "abc"), etag=etag))
    assert repr(etag) in refused.value.what
    assert sets.present() == before
    assert sets.hear(replace(event(SetKey(("price",), 60), 7, "abc"), etag=etag)) is None  # nobody asked


# ---- on a log --------------------------------------------------------------------------------------------------------


class Graph:
    """A log with what a DAG Manager writes of the queues `a`, `b` and `c` of one key; parts of it can be left out.

    Attributes:
        before_events: done once, when somebody asks how far the events are.
    """

    def __init__(self, directory: Path) -> None:
        graph = self

        class Log(EmbeddedLog):
            def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
                if graph.before_events is not None and any(one.topic == "queue" for one in partitions):
                    act, graph.before_events = graph.before_events, None
                    act()
                return super().stable_offsets(partitions)

        self.before_events: Callable[[], None] | None = None
        self.clock = Clock()
        self.log = Log(directory, clock_ms=self.clock)
        self.log.ensure_topics(CATALOGUE)
        self.waited = 0
        self.now_s = 0.0

    def write(
        self, changes: int, queues: str, tables: Sequence[str] = TABLES, *, is_told: bool = True
    ) -> None:
        rows: dict[str, list[Row]] = {
            "dag.tags": [row("dag.tags", TagSet(TAGS, 60, changes, 0, changes))],
            "dag.queues": [row("dag.queues", queue(name, ready=name in queues)) for name in "abc"],
            "dag.sentinels": [row("dag.sentinels", version(["a", "b", "c"]))],
        }
        told = [row("queue", event(KEY, changes, queues))] if is_told else []
        written = [one for name in tables for one in (*rows[name], stamp(name, changes, "dagmanager"))]
        commit(self.log, [*told, *written])

    def wait(self, seconds: float) -> None:
        self.waited += 1

    def watch(self, choice: Choice = CHOICE) -> QueueWatch:
        return QueueWatch(self.log, choice, reconcile_s=30, clock=lambda: self.now_s, wait=self.wait)


def queue(name: str, *, ready: bool = True, **more: Any) -> Queue:
    tags = more.pop("tags", TAGS)
    return Queue(name, f"node {name}", TopicClass.INDICATOR, 1, 60, 0, 0, 0, tags, ready=ready, **more)


def version(queues: Sequence[str], status: SentinelStatus = SentinelStatus.ACTIVE) -> VersionSentinel:
    nodes = tuple(f"node {name}" for name in queues)
    return VersionSentinel(f"{status.value} {len(nodes)}", "v1", "", 0, "w1", "s1", nodes, status=status)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path / "log")
    yield made
    made.log.close()


@contextmanager
def watching(graph: Graph, choice: Choice = CHOICE) -> Iterator[QueueWatch]:
    watch = graph.watch(choice)
    try:
        yield watch
    finally:
        watch.close()


def changed(cause: Cause, changes: int, added: str = "", removed: str = "") -> SetChanged:
    return SetChanged(KEY, tuple(added), tuple(removed), f"q:crypto.sma:60:{changes}", cause)


def test_a_set_is_what_the_tables_say_carries_data(graph: Graph) -> None:
    rows = [
        queue("b"),
        queue("a"),
        queue("making", ready=False),
        queue("going", removing=True),
        queue("former", role=QueueRole.FORMER),
        queue("next", role=QueueRole.NEXT),
        queue("waits"),
        queue("was"),
        queue("nobody asks", tags=()),
    ]
    carried = [one.topic for one in rows[:6]]
    commit(graph.log, [row("dag.queues", one) for one in (*rows, queue("gone"))])
    commit(graph.log, [tombstone("dag.queues", "gone")])
    commit(
        graph.log,
        [
            row("dag.sentinels", version([*carried, "nobody asks", "gone"])),
            row("dag.sentinels", version(["waits"], SentinelStatus.PENDING)),
            row("dag.sentinels", version(["was"], SentinelStatus.RETIRED)),
            row("dag.tags", TagSet(TAGS, 60, 4, 0, 4)),
            row("dag.tags", TagSet(("empty", "crypto"), 60, 2, 0, 2)),
            row("dag.tags", TagSet(TAGS, 3600, 2, 0, 2)),
        ],
    )
    found = [ReadySet(SetKey(("empty", "crypto"), 60), (), 2), ReadySet(KEY, ("a", "b"), 4)]
    assert read_ready_sets(graph.log, Choice(frozenset({"crypto"}), 60)) == sorted(
        found, key=lambda one: one.key
    )
    assert read_ready_sets(graph.log, Choice(frozenset(TAGS), 60)) == found[1:]
    assert read_ready_sets(graph.log, Choice(frozenset({"indicator"}))) == []
    assert len(read_ready_sets(graph.log, CHOICE)) == 3


def test_tables_are_read_as_one_transaction_left_them(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_watch, "_LOOKS", 3)
    graph.write(1, "a")
    graph.write(2, "ab", TABLES[:1])

    def finish(seconds: float) -> None:
        graph.write(2, "ab", TABLES[1:], is_told=False)

    assert read_ready_sets(graph.log, CHOICE, finish) == [ReadySet(KEY, ("a", "b"), 2)]
    graph.write(3, "abc", TABLES[1:])
    with pytest.raises(StampMismatch, match="never ended with the same transaction"):
        graph.watch()
    assert graph.waited == 3


def test_what_changes_while_a_watch_begins_is_not_missed(graph: Graph) -> None:
    def meanwhile() -> None:
        graph.write(2, "abc")
        graph.clock.now_ms += 3_600_000

    graph.write(1, "a")
    graph.before_events = meanwhile
    with watching(graph) as watch:
        told = [*watch.seeded, *watch.poll(0)]
        assert [one.queues for one in watch.present()] == [("a", "b", "c")]
    assert {name for one in told if isinstance(one, SetChanged) for name in one.added} == set("abc")


def test_an_event_that_is_there_before_its_tables_is_told(graph: Graph) -> None:
    graph.write(1, "a")
    graph.write(2, "ab", ())
    graph.clock.now_ms += 10_000
    with watching(graph) as watch:
        assert watch.seeded == [changed(Cause.SEEDED, 1, "a")]
        assert watch.poll(0) == [changed(Cause.EVENT, 2, "b")]
        graph.now_s = 30
        assert watch.poll(0) == []
        assert [one.queues for one in watch.present()] == [("a", "b")]


def test_a_lost_event_is_corrected_once_when_it_is_time(graph: Graph) -> None:
    with watching(graph) as watch:
        assert watch.seeded == []
        graph.write(1, "ab", is_told=False)
        graph.now_s = 29.9
        assert watch.poll(0) == []
        graph.now_s = 30
        assert watch.poll(0) == [changed(Cause.RECONCILED, 1, "ab")]
        for now_s in (59.9, 60, 90):
            graph.now_s = now_s
            assert watch.poll(0) == []
        graph.write(2, "abc", is_told=False)
        graph.now_s = 119.9
        assert watch.poll(0) == []
        graph.now_s = 120
        assert watch.poll(0) == [changed(Cause.RECONCILED, 2, "c")]
        graph.write(1, "ab", ())  # it comes after all
        assert watch.poll(0) == []
        graph.write(3, "bc")
        assert watch.poll(0) == [changed(Cause.EVENT, 3, "", "a")]


def test_what_an_event_tells_is_not_told_as_a_correction(graph: Graph) -> None:
    with watching(graph) as watch:
        graph.write(1, "a")
        graph.write(2, "b")
        graph.write(3, "bc", is_told=False)
        graph.now_s = 30
        assert watch.poll(0) == [
            changed(Cause.EVENT, 1, "a"),
            changed(Cause.EVENT, 2, "b", "a"),
            changed(Cause.RECONCILED, 3, "c"),
        ]


def test_a_record_that_can_not_be_used_is_named_and_the_next_event_makes_up_for_it(graph: Graph) -> None:
    collected = QueueCollected("QueueCollected", "z", TAGS, 60, "delete", "gc:z:delete", "")
    _, partition, key, value = row("queue", event(KEY, 1, "a"))
    with watching(graph) as watch:
        commit(
            graph.log,
            [
                row("queue", replace(event(KEY, 1, "a"), etag="q:crypto.sma:60:one")),
                ("queue", partition, key, b"\x00rubbish"),
                ("queue", partition, key, row("dag.tags", TagSet(TAGS, 60, 1, 0))[3]),
                ("queue", partition, key, None),
                row("queue", collected),
                row("queue", event(KEY, 2, "ab")),
                ("queue", partition, key, value),
            ],
        )
        told = watch.poll(0)
    assert [(one.offset, one.code) for one in told if isinstance(one, EventUnread)] == [
        (0, "QMTL-101"),
        (1, "QMTL-201"),
        (2, "QMTL-201"),
    ]
    assert told[3:] == [changed(Cause.EVENT, 2, "ab")]
