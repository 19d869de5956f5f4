"""What the engine relies on in a log, shown on the embedded log, on the simulated one and on a real Kafka alike."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Record, TopicPartition, Writer, partitions_of
from qmtl.foundation.common.errors import (
    Fenced,
    InvariantBroken,
    OffsetGone,
    TooLarge,
    TopicMismatch,
    UnknownTopic,
)
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.topics import FOREVER, HOUR_MS
from tests.contract.driving import events, gather, join, put, read_all, read_until, table, until, values

A0, A1, A2 = partitions_of("a", 3)
B0 = TopicPartition("b", 0)


# ---- topics -------------------------------------------------------------------------------------------------


def test_making_topics_twice_changes_nothing(log: Log) -> None:
    specs = [events("a", 3), table("b")]
    log.ensure_topics(specs)
    put(log, [(A0, b"k", b"v")])
    log.ensure_topics(specs)
    assert log.topics() == ["a", "b"]
    assert values(read_all(log, [A0])) == [b"v"]


def test_a_topic_is_described_as_it_was_asked_for(log: Log) -> None:
    log.ensure_topics([events("a", 3), table("b")])
    described = log.describe("a")
    assert described is not None
    assert (described.name, described.partitions, described.config["cleanup.policy"]) == ("a", 3, "delete")
    compacted = log.describe("b")
    assert compacted is not None
    assert table("b").config().items() <= dict(compacted.config).items()


@pytest.mark.parametrize(
    "changed, named",
    [
        (replace(events("a", 2), retention_ms=FOREVER), "partitions is 3, wanted 2"),
        (replace(events("a", 3), retention_ms=HOUR_MS), "retention.ms is '-1', wanted '3600000'"),
        (table("a", 3), "cleanup.policy is 'delete', wanted 'compact'"),
    ],
)
def test_a_topic_that_differs_is_refused_by_naming_what_differs(
    log: Log, changed: object, named: str
) -> None:
    log.ensure_topics([events("a", 3)])
    with pytest.raises(TopicMismatch) as refused:
        log.ensure_topics([changed])  # type: ignore[list-item] # the table of cases is not typed
    assert named in refused.value.what


def test_an_unknown_topic_is_refused_everywhere_and_nothing_comes_to_be(log: Log) -> None:
    log.ensure_topics([events("a")])
    nowhere = TopicPartition("nowhere", 0)
    assert log.describe("nowhere") is None
    for ask in (log.begin_offsets, log.end_offsets, log.stable_offsets):
        with pytest.raises(UnknownTopic):
            ask([nowhere])
    with pytest.raises(UnknownTopic):
        log.offsets_at_time([nowhere], 0)
    with pytest.raises(UnknownTopic):
        log.membership("group", "member", "nowhere")
    reader = log.reader()
    with pytest.raises(UnknownTopic):
        reader.assign({nowhere: 0})
    reader.close()
    writer = log.writer("writer")
    writer.begin()
    for where in (nowhere, TopicPartition("a", 1)):
        with pytest.raises(UnknownTopic):
            writer.append(where.topic, where.partition, b"k", b"v")
    writer.append("a", 0, b"k", b"v")
    writer.commit({}, "", None)
    writer.close()
    assert log.topics() == ["a"]
    assert values(read_all(log, [TopicPartition("a", 0)])) == [b"v"]


def test_the_identity_of_a_log_stays(log: Log) -> None:
    before = log.log_id
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"v")])
    assert log.log_id == before


# ---- transactions -------------------------------------------------------------------------------------------


def test_records_come_back_as_they_were_written_tombstones_too(log: Log) -> None:
    log.ensure_topics([events("a"), table("b")])
    put(log, [(A0, b"", b""), (A0, b"\0k", b"\0\xff"), (B0, b"gone", None)])
    found = read_all(log, [A0, B0])
    assert sorted((one.topic, one.partition, one.key, one.value) for one in found[:]) == [
        ("a", 0, b"", b""),
        ("a", 0, b"\0k", b"\0\xff"),
        ("b", 0, b"gone", None),
    ]


def test_offsets_rise_and_may_have_gaps_between_transactions(log: Log) -> None:
    log.ensure_topics([events("a")])
    for number in range(3):
        put(log, [(A0, b"k", b"%d" % number), (A0, b"k", b"%d" % number)])
    offsets = [record.offset for record in read_all(log, [A0])]
    assert offsets == [0, 1, 3, 4, 6, 7]  # each transaction spends one offset for its marker
    assert log.end_offsets([A0]) == {A0: 9}


def test_nothing_of_an_open_transaction_shows_and_all_of_a_committed_one(log: Log) -> None:
    log.ensure_topics([events("a", 3), events("b")])
    one = join(log, "group", "b")
    writer = log.writer("writer")
    writer.begin()
    for where in (A0, A1, A2, B0):
        writer.append(where.topic, where.partition, b"k", b"v")
    reader = log.reader()
    reader.assign(dict.fromkeys((A0, A1, A2, B0), 0))
    assert reader.poll(10, 0.2) == []
    reader.close()
    assert log.committed("group", [B0]) == {}
    writer.commit({B0: 7}, "group", one.fence())
    writer.close()
    assert log.committed("group", [A0, B0]) == {B0: 7}
    found = read_all(log, [A0, A1, A2, B0])
    assert sorted((record.topic, record.partition) for record in found) == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
    ]


def abort_one(log: Log, writer: Writer) -> None:
    """Aborts a record that has reached the log, where records travel before the commit."""
    until(lambda: log.stable_offsets([A0]) == log.end_offsets([A0]))  # the last marker is written
    end = log.end_offsets([A0])[A0]
    writer.begin()
    writer.append("a", 0, b"k", b"never")
    if not isinstance(log, EmbeddedLog):
        until(lambda: log.end_offsets([A0])[A0] > end)
    writer.abort()


def test_aborted_records_never_show_and_their_positions_neither(log: Log) -> None:
    log.ensure_topics([events("a"), events("b")])
    one = join(log, "group", "b")
    put(log, [(A0, b"k", b"1")], positions={B0: 1}, by=one)
    writer = log.writer("writer")
    for number in range(5):
        abort_one(log, writer)
        writer.begin()
        writer.append("a", 0, b"k", b"%d" % number)
        writer.commit({B0: 10 + number}, "group", one.fence())
    abort_one(log, writer)
    writer.close()
    assert values(read_all(log, [A0])) == [b"1", b"0", b"1", b"2", b"3", b"4"]
    assert log.committed("group", [B0]) == {B0: 14}


def test_a_transaction_takes_a_begin_and_only_one(log: Log) -> None:
    log.ensure_topics([events("a")])
    writer = log.writer("writer")
    with pytest.raises(InvariantBroken):
        writer.commit({}, "", None)
    writer.abort()  # nothing is open: nothing happens
    writer.begin()
    writer.commit({}, "", None)
    with pytest.raises(InvariantBroken):
        writer.commit({}, "", None)
    writer.close()


def test_a_second_writer_of_an_id_fences_the_first_and_ends_what_it_left_open(log: Log) -> None:
    log.ensure_topics([events("a")])
    first = log.writer("writer")
    first.begin()
    first.append("a", 0, b"k", b"first")
    second = log.writer("writer")
    second.begin()
    second.append("a", 0, b"k", b"second")
    second.commit({}, "", None)
    with pytest.raises(Fenced):
        first.commit({}, "", None)
    first.close()
    second.begin()
    second.append("a", 0, b"k", b"third")
    second.commit({}, "", None)
    second.close()
    other = log.writer("another")
    other.begin()
    other.append("a", 0, b"k", b"fourth")
    other.commit({}, "", None)
    other.close()
    assert values(read_all(log, [A0])) == [b"second", b"third", b"fourth"]


def test_an_idle_writer_that_was_fenced_writes_nothing_more(log: Log) -> None:
    log.ensure_topics([events("a")])
    first = log.writer("writer")
    put(log, [(A0, b"k", b"second")], writer="writer")

    def go_on() -> None:
        first.begin()
        first.append("a", 0, b"k", b"first")
        first.commit({}, "", None)

    with pytest.raises(Fenced):
        go_on()
    first.close()
    assert values(read_all(log, [A0])) == [b"second"]


def test_a_commit_tells_the_offset_of_the_last_tracked_record_per_partition(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    writer = log.writer("writer")
    for _ in range(3):
        writer.begin()
        writer.append("a", 0, b"k", b"v")
        writer.append("a", 0, b"k", b"tracked", track=True)
        writer.append("a", 0, b"k", b"tracked last", track=True)
        writer.append("a", 1, b"k", b"tracked", track=True)
        writer.append("a", 2, b"k", b"v")
        tracked = writer.commit({}, "", None)
        assert sorted(tracked) == [A0, A1]
        by_place = {(one.partition, one.offset): one.value for one in read_all(log, [A0, A1])}
        assert by_place[0, tracked[A0]] == b"tracked last"
        assert by_place[1, tracked[A1]] == b"tracked"
    writer.close()


def test_the_largest_value_that_the_codec_writes_can_be_written(log: Log) -> None:
    log.ensure_topics([events("a")])
    value = random.Random(1).randbytes(MAX_VALUE_BYTES)  # compression makes it no smaller
    put(log, [(A0, b"k", value)])
    assert values(read_all(log, [A0])) == [value]


def test_a_batch_far_larger_than_the_local_queue_is_committed_whole(log: Log) -> None:
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"%d" % number) for number in range(20_000)])
    assert values(read_all(log, [A0], 4000)) == [b"%d" % number for number in range(20_000)]


# ---- reading ------------------------------------------------------------------------------------------------


def interleaved(log: Log) -> None:
    """Three partitions, filled by transactions of all sizes, some of them aborted."""
    log.ensure_topics([events("a", 3)])
    writer = log.writer("writer")
    for number in range(12):
        writer.begin()
        for step in range(number % 4):
            where = (A0, A1, A2)[(number + step) % 3]
            writer.append(where.topic, where.partition, b"k", b"%d.%d" % (number, step))
        if number % 5 == 3:
            writer.abort()
        else:
            writer.commit({}, "", None)
    writer.close()


def by_partition(records: list[Record]) -> dict[int, list[Record]]:
    return {number: [one for one in records if one.partition == number] for number in range(3)}


def test_any_poll_size_gives_the_same_sequence_per_partition(log: Log) -> None:
    interleaved(log)
    whole = by_partition(read_all(log, [A0, A1, A2]))
    assert sum(map(len, whole.values())) == sum(number % 4 for number in (0, 1, 2, 4, 5, 6, 7, 9, 10, 11))
    for found in whole.values():
        assert [one.offset for one in found] == sorted({one.offset for one in found})
    for size in (1, 2, 3, 7):
        assert by_partition(read_all(log, [A0, A1, A2], size)) == whole


def test_a_reader_begins_where_it_is_told_and_reads_nothing_else(log: Log) -> None:
    interleaved(log)
    whole = by_partition(read_all(log, [A0, A1, A2]))
    second = whole[1][1].offset
    found = read_until(log, {A1: second}, log.end_offsets([A1]))
    assert found == whole[1][1:]


def test_a_position_reaches_the_high_watermark_past_markers_and_aborted_records(log: Log) -> None:
    log.ensure_topics([events("a")])
    writer = log.writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"v")
    writer.commit({}, "", None)
    assert values(read_all(log, [A0])) == [b"v"]
    abort_one(log, writer)
    writer.close()
    reader = log.reader()
    reader.assign({A0: 2})

    def at_the_end() -> bool:
        assert reader.poll(10, 0.05) == []
        return reader.positions() == log.end_offsets([A0])

    until(at_the_end)
    put(log, [(A0, b"k", b"later")], writer="another")
    later: list[Record] = []

    def at_the_new_end() -> bool:
        later.extend(reader.poll(10, 0.05))
        return bool(later) and reader.positions() == log.end_offsets([A0])

    until(at_the_new_end)
    reader.close()
    assert values(later) == [b"later"]


def test_a_paused_partition_waits_and_then_goes_on_where_it_was(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    put(log, [(where, b"k", b"%d" % number) for number in range(6) for where in (A0, A1)])
    reader = log.reader()
    reader.assign({A0: 0, A1: 0})
    reader.pause([A0])
    first = gather(reader, 6)
    assert {one.partition for one in first} == {1}
    assert reader.poll(10, 0.1) == []
    assert reader.positions()[A0] == 0
    reader.pause([A1])
    second = gather(reader, 6)
    reader.close()
    assert [one.value for one in first] == [one.value for one in second] == [b"%d" % n for n in range(6)]
    assert {one.partition for one in second} == {0}


def test_a_new_assignment_replaces_the_old_one_and_its_pauses(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    put(log, [(where, b"k", b"v") for where in (A0, A1, A2)])
    reader = log.reader()
    reader.assign({A0: 0, A1: 0})
    reader.pause([A1])
    until(lambda: bool(reader.poll(10, 0.05)))
    reader.assign({A1: 0, A2: 0})
    found = gather(reader, 2)
    reader.close()
    assert sorted(one.partition for one in found) == [1, 2]
    assert sorted(reader.positions()) in ([A1, A2], [])


def test_a_position_past_the_end_is_refused_and_not_waited_for(log: Log) -> None:
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"v")])
    reader = log.reader()
    reader.assign({A0: 100})
    with pytest.raises(OffsetGone):
        until(lambda: bool(reader.poll(10, 0.05)))
    reader.close()


# ---- offsets and positions ------------------------------------------------------------------------------------


def test_an_empty_log_begins_and_ends_at_nought(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    nought = {A0: 0, A1: 0, A2: 0}
    for ask in (log.begin_offsets, log.end_offsets, log.stable_offsets):
        assert ask([A0, A1, A2]) == nought
        assert ask([]) == {}
    assert log.committed("group", [A0]) == {}
    assert log.committed("group", []) == {}


def test_committed_positions_belong_to_their_group_and_partition(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    one, two = join(log, "one", "a"), join(log, "two", "a")
    put(log, [], positions={A0: 5, A1: 6}, by=one)
    put(log, [], positions={A0: 9}, by=two)
    put(log, [], positions={A0: 4}, by=one)  # a position may go back
    assert log.committed("one", [A0, A1, A2]) == {A0: 4, A1: 6}
    assert log.committed("two", [A0, A1, A2]) == {A0: 9}
    assert log.committed("three", [A0, A1, A2]) == {}


def test_a_time_finds_the_first_record_that_was_written_then_or_later(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    put(log, [(A0, b"k", b"1"), (A1, b"k", b"1")])
    before = log.now_ms()
    until(lambda: log.now_ms() > before)
    put(log, [(A0, b"k", b"2")])
    stamps = {one.value: one.timestamp_ms for one in read_all(log, [A0])}
    first, second = stamps[b"1"], stamps[b"2"]
    assert first is not None
    assert second > first
    ends = log.end_offsets([A0, A1])
    assert log.offsets_at_time([A0, A2], 0) == {A0: 0, A2: 0}
    assert log.offsets_at_time([A0], second) == {A0: 2}
    later = log.offsets_at_time([A0, A1], second + 1)  # a marker may have been written then
    assert read_until(log, later, ends) == []
    assert log.offsets_at_time([A1], log.now_ms() + HOUR_MS) == {A1: ends[A1]}


def test_a_writer_that_proves_itself_shows_nothing_and_one_whose_id_is_taken_cannot(log: Log) -> None:
    letters = TopicPartition("dead.letters", 0)
    log.ensure_topics([events("a"), events(letters.topic)])
    older = log.writer("writer")
    older.prove()
    older.begin()
    older.append("a", 0, b"k", b"1")
    older.commit({}, "", None)
    newer = log.writer("writer")
    with pytest.raises(Fenced):
        older.prove()
    newer.prove()
    assert read_all(log, [letters]) == []
    assert values(read_all(log, [A0])) == [b"1"]
    older.close()
    newer.close()


def test_all_tasks_of_a_group_are_the_partitions_of_its_anchor(log: Log) -> None:
    log.ensure_topics([events("a", 3)])
    member = log.membership("group", "member", "a")
    until(lambda: member.poll(0.05) == {0, 1, 2})
    member.close()


def test_a_record_that_no_broker_would_take_is_refused_by_name_and_not_tried_for_ever(log: Log) -> None:
    if isinstance(log, EmbeddedLog):
        return  # takes records of any size; the codec is its bound
    log.ensure_topics([events("a")])
    writer = log.writer("writer")
    writer.begin()
    with pytest.raises(TooLarge):
        writer.append("a", 0, b"k", bytes(4 * MAX_VALUE_BYTES))
    writer.append("a", 0, b"k", b"v")
    writer.commit({}, "", None)
    writer.close()
    assert values(read_all(log, [A0])) == [b"v"]


def test_columns_are_the_records_that_a_poll_gives_up_to_the_ends(log: Log) -> None:
    log.ensure_topics([events("a", 2), table("b")])
    a0, a1, b0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)
    for number in range(4):
        value = b"%d" % number
        put(log, [(a0, b"", value), (a1, b"k", value), (b0, b"x", None), (b0, b"y", value)])
    wheres = [a0, a1, b0]
    target = log.end_offsets(wheres)
    for ends in (target, {a0: 3, a1: 0, b0: 4}):
        wanted = [
            one
            for one in read_all(log, wheres)
            if one.offset < ends[TopicPartition(one.topic, one.partition)]
        ]
        for assigned in (wheres, [b0]):
            reader = log.reader()
            reader.assign(dict.fromkeys(assigned, 0))
            found: dict[TopicPartition, list[tuple[bytes, bytes | None]]] = {}
            firsts: dict[TopicPartition, int] = {}

            def reached() -> bool:
                for one in reader.poll_columns(3, 0.05, ends):  # noqa: B023
                    assert len(one.keys) == len(one.values) > 0
                    firsts.setdefault(one.where, one.first)  # noqa: B023
                    found.setdefault(one.where, []).extend(zip(one.keys, one.values, strict=True))  # noqa: B023
                return all(reader.positions()[where] >= target[where] for where in assigned)  # noqa: B023

            until(reached)
            now = log.end_offsets(assigned)  # a marker may have come since
            assert all(target[where] <= place <= now[where] for where, place in reader.positions().items())
            reader.close()
            for where in assigned:
                same = [one for one in wanted if (one.topic, one.partition) == where]
                assert found.get(where, []) == [(one.key, one.value) for one in same]
                assert not same or firsts[where] == same[0].offset


def test_a_topic_keeps_its_incarnation_and_no_two_share_one(log: Log) -> None:
    log.ensure_topics([events("a", 2), table("b")])
    first = log.incarnations(["a", "b"])
    assert [first[name].partitions for name in ("a", "b")] == [2, 1]
    assert len({one.id for one in first.values()}) == 2
    put(log, [(TopicPartition("a", 0), b"k", b"v")])
    log.ensure_topics([events("a", 2), events("c")])
    assert log.incarnations(["a", "b"]) == first
    assert log.incarnations([]) == {}
    with pytest.raises(UnknownTopic):
        log.incarnations(["a", "nobody"])
