"""The simulated cluster has the hazards that a real one was seen to have (Apache Kafka 4.3, librdkafka 2.16)."""

from __future__ import annotations

import pytest

from qmtl.engine.log.port import Fence, TopicPartition, Writer
from qmtl.engine.simulate.cluster import IDLE_WAITS, TRANSACTION_TIMEOUT_MS, Cluster, Stuck
from qmtl.engine.simulate.group import SESSION_TIMEOUT_MS
from qmtl.engine.simulate.log import SimulatedLog, SimulatedMembership
from qmtl.engine.simulate.network import Dawdle, Died, Fate, Hitch, Lose, Process, Request
from qmtl.foundation.common.errors import (
    Fenced,
    MembershipLost,
    OffsetGone,
    OutcomeUnknown,
    TransactionAborted,
)
from tests.contract.driving import events, join, put, read_all, table, values

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.ensure_topics([events("a", 2), events("b"), table("c")])
    return cluster


def client(cluster: Cluster, *hitches: Hitch) -> SimulatedLog:
    """A process of its own, and what will happen to its requests."""
    process = Process("one")
    process.hitches = list(hitches)
    return SimulatedLog(cluster, process)


# ---- what is open holds others back -------------------------------------------------------------------------------


def test_an_open_transaction_holds_back_what_was_committed_behind_it(cluster: Cluster) -> None:
    log = client(cluster)
    put(log, [(A0, b"k", b"before")])
    outsider = log.writer("outsider")
    outsider.begin()
    outsider.append("a", 0, b"k", b"open")
    put(log, [(A0, b"k", b"behind")])
    assert log.stable_offsets([A0]) == {A0: 2}
    assert log.end_offsets([A0]) == {A0: 5}
    reader = log.reader()
    reader.assign({A0: 0})
    assert values(reader.poll(10, 0.1)) == [b"before"]
    assert reader.positions() == {A0: 2}
    cluster.pass_ms(TRANSACTION_TIMEOUT_MS + 1)
    assert values(reader.poll(10, 0.1)) == [b"behind"]
    assert reader.positions() == log.end_offsets([A0])


def test_a_transaction_that_is_too_old_is_ended_and_its_writer_fenced(cluster: Cluster) -> None:
    writer = client(cluster).writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"never")
    cluster.pass_ms(TRANSACTION_TIMEOUT_MS + 1)
    with pytest.raises(Fenced):
        writer.commit({}, "", None)
    assert read_all(client(cluster), [A0]) == []


def test_markers_may_come_after_the_answer_and_positions_wait_for_them(cluster: Cluster) -> None:
    log = client(cluster)
    member = join(log, "group", "b")
    late = client(cluster, Dawdle())
    writer = late.writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"v")
    writer.commit({B0: 3}, "group", member.fence())
    assert log.stable_offsets([A0]) == {A0: 0}
    assert log.committed("group", [B0]) == {B0: 3}
    assert log.stable_offsets([A0]) == {A0: 2}


# ---- outcomes that nobody knows -----------------------------------------------------------------------------------


def lose(cluster: Cluster, request: Request, fate: Fate) -> tuple[SimulatedLog, Writer]:
    """A transaction with a record and a position, in which the answer to a request is lost."""
    member = join(client(cluster), "group", "b")
    log = client(cluster, Lose(request, fate))
    writer = log.writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"1")
    with pytest.raises((OutcomeUnknown, TransactionAborted)) as told:
        writer.commit({B0: 1}, "group", member.fence())
    assert isinstance(told.value, TransactionAborted) == (request is Request.PRODUCE)
    return log, writer


@pytest.mark.parametrize(
    "request_, fate, shows",
    [
        (Request.END, Fate.APPLIED, [b"1"]),
        (Request.END, Fate.NEVER, []),
        (Request.OFFSETS, Fate.APPLIED, []),
        (Request.OFFSETS, Fate.NEVER, []),
        (Request.PRODUCE, Fate.APPLIED, []),
        (Request.PRODUCE, Fate.NEVER, []),
    ],
)
def test_after_a_lost_answer_there_is_all_or_nothing(
    cluster: Cluster, request_: Request, fate: Fate, shows: list[bytes]
) -> None:
    log, _ = lose(cluster, request_, fate)
    log.writer("writer")
    assert values(read_all(log, [A0])) == shows
    assert log.committed("group", [B0]) == ({B0: 1} if shows else {})
    assert cluster.torn == []


@pytest.mark.parametrize("request_", [Request.END, Request.OFFSETS, Request.PRODUCE])
def test_a_request_that_comes_late_is_refused_where_the_writer_was_made_anew(
    cluster: Cluster, request_: Request
) -> None:
    log, _ = lose(cluster, request_, Fate.LATE)
    fresh = log.writer("writer")
    fresh.begin()
    fresh.append("a", 0, b"k", b"2")
    cluster.arrive(cluster.held[0])
    fresh.commit({}, "", None)
    assert values(read_all(log, [A0])) == [b"2"]
    assert log.committed("group", [B0]) == {}
    assert cluster.coverage.counts[f"late {request_.value} refused"] == 1


def test_a_late_end_hits_the_next_transaction_of_a_writer_that_goes_on(cluster: Cluster) -> None:
    log, writer = lose(cluster, Request.END, Fate.LATE)
    writer.begin()  # what must not be done
    writer.append("a", 0, b"k", b"2")
    cluster.arrive(cluster.held[0])
    assert values(read_all(log, [A0])) == [b"1", b"2"]  # visible, and nobody has committed it
    assert len(cluster.torn) == 2


def test_an_end_that_comes_before_the_writer_is_made_anew_counts(cluster: Cluster) -> None:
    log, _ = lose(cluster, Request.END, Fate.LATE)
    cluster.arrive(cluster.held[0])
    log.writer("writer")
    assert values(read_all(log, [A0])) == [b"1"]
    assert log.committed("group", [B0]) == {B0: 1}


# ---- groups ---------------------------------------------------------------------------------------------------------


def member(cluster: Cluster, name: str) -> tuple[Process, SimulatedMembership]:
    process = Process(name)
    return process, SimulatedMembership(SimulatedLog(cluster, process), "group", name, "a")


def settle(*members: SimulatedMembership) -> list[frozenset[int]]:
    for _ in range(2):
        for one in members:
            one.poll()
    return [one.poll() for one in members]


def commit(cluster: Cluster, fence: Fence | None, where: TopicPartition, position: int) -> None:
    writer = client(cluster).writer("writer")
    writer.begin()
    writer.commit({where: position}, "group", fence)


def test_a_fence_of_an_earlier_generation_is_refused_and_a_current_one_taken_for_any_partition(
    cluster: Cluster,
) -> None:
    _, first = member(cluster, "first")
    assert settle(first) == [{0, 1}]
    stale = first.fence()
    _, second = member(cluster, "second")
    assert first.poll() == frozenset()  # a member sees its tasks go before it sees others come
    assert settle(first, second) == [{0}, {1}]
    with pytest.raises(TransactionAborted):
        commit(cluster, stale, A0, 1)
    commit(cluster, first.fence(), A1, 2)  # the broker does not ask whose the partition is
    assert client(cluster).committed("group", [A0, A1]) == {A1: 2}


def test_a_dead_static_member_has_its_tasks_back_at_once_and_a_gone_one_loses_them_by_time(
    cluster: Cluster,
) -> None:
    process, first = member(cluster, "first")
    _, second = member(cluster, "second")
    assert settle(first, second) == [{0}, {1}]
    old = first.fence()
    process.alive = False
    again, first = member(cluster, "first")
    assert first.poll() == {0}
    with pytest.raises(TransactionAborted):
        commit(cluster, old, A0, 1)
    again.alive = False
    assert second.poll() == {1}
    cluster.pass_ms(SESSION_TIMEOUT_MS + 1)
    cluster.pass_ms(1)
    assert settle(second) == [{0, 1}]


def test_a_member_whose_name_is_taken_is_told_and_one_whose_session_ended_joins_again(
    cluster: Cluster,
) -> None:
    _, first = member(cluster, "first")
    settle(first)
    _, twin = member(cluster, "first")
    with pytest.raises(MembershipLost):
        first.poll()
    assert settle(twin) == [{0, 1}]
    process, other = member(cluster, "other")
    settle(twin, other)
    process.paused = True
    cluster.pass_ms(SESSION_TIMEOUT_MS + 1)
    assert settle(twin) == [{0, 1}]
    process.paused = False
    assert other.poll() == frozenset()
    assert sorted(map(len, settle(twin, other))) == [1, 1]


# ---- processes and cleaning -----------------------------------------------------------------------------------------


def test_a_dead_process_changes_nothing_any_more(cluster: Cluster) -> None:
    log = client(cluster)
    writer = log.writer("writer")
    writer.begin()
    log.process.alive = False
    for ask in (
        lambda: writer.append("a", 0, b"k", b"v"),
        lambda: writer.commit({}, "", None),
        writer.abort,
        log.reader,
        log.now_ms,
    ):
        with pytest.raises(Died):
            ask()
    assert client(cluster).end_offsets([A0]) == {A0: 0}


def test_retention_moves_the_beginning_and_who_reads_before_it_is_told(cluster: Cluster) -> None:
    log = client(cluster)
    put(log, [(A0, b"k", b"%d" % number) for number in range(5)])
    reader = log.reader()
    reader.assign({A0: 1})
    assert cluster.retain(A0, 3)
    assert log.begin_offsets([A0]) == {A0: 3}
    with pytest.raises(OffsetGone):
        reader.poll(10, 0.0)
    assert values(read_all(log, [A0])) == [b"3", b"4"]


def test_who_waits_for_what_never_comes_is_stopped(cluster: Cluster) -> None:
    reader = client(cluster).reader()
    reader.assign({A0: 0})

    def wait() -> None:
        for _ in range(IDLE_WAITS + 1):
            reader.poll(1, 0.001)

    with pytest.raises(Stuck):
        wait()
