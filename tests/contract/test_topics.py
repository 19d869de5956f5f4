"""Topics that are made, looked at and deleted while the log runs, on all logs alike."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicDescription, TopicPartition, described, partitions_of
from qmtl.foundation.common.errors import TopicRefused, UnknownTopic
from tests.contract.driving import events, gather, join, put, read_all, table, until, values

A0, A1 = partitions_of("a", 2)
B0 = TopicPartition("b", 0)
WANTED = described(replace(events("a", 2), retention_ms=3_600_000))


def make(log: Log, *wanted: TopicDescription) -> None:
    """Asks for topics until they are there."""
    assert log.create_topics(wanted) == {}
    until(lambda: all(one.found and one.led for one in log.look_up([one.name for one in wanted]).values()))


def remove(log: Log, *names: str) -> None:
    """Asks that topics go until they are gone."""
    assert log.delete_topics(names) == {}
    until(lambda: not any(one.found for one in log.look_up(names).values()))


# ---- making -----------------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_there_as_it_was_asked_for(log: Log) -> None:
    nothing = log.look_up(["a"])["a"]
    assert (nothing.found, nothing.lookalike) == (None, "")
    make(log, WANTED, described(table("b")))
    standing = log.look_up(["a", "b", "c"])
    for wanted in (WANTED, described(table("b"))):
        found = standing[wanted.name].found
        assert found is not None
        assert (found.name, found.partitions) == (wanted.name, wanted.partitions)
        assert wanted.config.items() <= dict(found.config).items()
    assert standing["c"].found is None
    assert log.topics() == ["a", "b"]
    put(log, [(A1, b"k", b"v")])
    assert values(read_all(log, [A0, A1])) == [b"v"]


def test_one_that_is_there_stays_as_it_is(log: Log) -> None:
    make(log, WANTED)
    put(log, [(A0, b"k", b"v")])
    before = log.incarnations(["a"])
    make(log, replace(WANTED, partitions=1, config=table("a").config()), described(events("b")))
    assert log.incarnations(["a"]) == before
    found = log.look_up(["a"])["a"].found
    assert found is not None
    assert (found.partitions, found.config["retention.ms"]) == (2, "3600000")
    assert values(read_all(log, [A0])) == [b"v"]


def test_no_request_asks_for_nothing(log: Log) -> None:
    assert log.create_topics([]) == log.delete_topics([]) == {}
    assert log.look_up([]) == {}
    assert log.topics() == []


@pytest.mark.parametrize("name", ["A_b-c", "a.b_c", "a-b-c", "a_B.c"])
def test_a_name_that_another_topic_looks_like_is_told_with_it(log: Log, name: str) -> None:
    make(log, described(events("a_b_c")), described(events("a_b_d")))
    alike = log.look_up([name, "a_b_c", "a_bc"])
    assert alike[name].found is None
    assert alike[name].lookalike.endswith("a_b_c")
    assert (alike["a_b_c"].lookalike, alike["a_bc"].lookalike) == ("", "")


# ---- deleting ---------------------------------------------------------------------------------------------------------


def test_what_is_deleted_is_gone_with_its_records_and_the_rest_stays(log: Log) -> None:
    make(log, WANTED, described(events("b")), described(events("ab")))
    put(log, [(A0, b"k", b"1"), (A1, b"k", b"2"), (B0, b"k", b"3"), (TopicPartition("ab", 0), b"k", b"4")])
    before = log.incarnations(["ab", "b"])
    for _ in range(2):  # what is gone is gone
        remove(log, "a", "never_there")
        assert log.topics() == ["ab", "b"]
        assert log.describe("a") is None
        for ask in (log.begin_offsets, log.end_offsets, log.stable_offsets):
            with pytest.raises(UnknownTopic):
                ask([A0])
        with pytest.raises(UnknownTopic):
            log.incarnations(["a"])
    assert log.incarnations(["ab", "b"]) == before
    assert values(read_all(log, [B0])) == [b"3"]
    assert values(read_all(log, [TopicPartition("ab", 0)])) == [b"4"]


def test_one_that_is_made_again_is_another_and_empty(log: Log) -> None:
    make(log, described(events("b")), WANTED)
    lives = [log.incarnations(["a"])["a"].id]
    for _ in range(2):
        put(log, [(A0, b"k", b"old"), (A1, b"k", b"old")])
        until(lambda: log.stable_offsets([A0, A1]) == log.end_offsets([A0, A1]))  # no marker is still to come
        remove(log, "a")
        make(log, WANTED)
        lives.append(log.incarnations(["a"])["a"].id)
        assert log.end_offsets([A0, A1]) == {A0: 0, A1: 0}
        assert read_all(log, [A0, A1]) == []
    assert len(set(lives)) == 3
    put(log, [(A0, b"k", b"new")])
    assert values(read_all(log, [A0, A1])) == [b"new"]


def test_who_reads_a_topic_that_goes_is_told_and_does_not_wait_for_ever(log: Log) -> None:
    make(log, WANTED)
    put(log, [(A0, b"k", b"v")])
    reader = log.reader()
    reader.assign({A0: 0, A1: 0})
    assert values(gather(reader, 1)) == [b"v"]
    remove(log, "a")
    told: list[str] = []

    def refused() -> bool:
        try:
            assert reader.poll(10, 0.05) == []
        except UnknownTopic as error:
            told.append(error.what)
        return bool(told)

    if not isinstance(log, KafkaLog):  # whose client waits, and tells nobody
        until(refused)
        assert "a" in told[0]
    reader.close()
    with pytest.raises(UnknownTopic):
        log.reader().assign({A0: 0})


def test_who_writes_a_topic_that_is_gone_is_told_and_the_others_get_their_records(log: Log) -> None:
    make(log, WANTED, described(events("b")))
    put(log, [(A0, b"k", b"v")])
    remove(log, "a")
    writer = log.writer("writer")
    writer.begin()
    with pytest.raises(UnknownTopic):
        writer.append("a", 0, b"k", b"v")
    writer.append("b", 0, b"k", b"v")
    writer.commit({}, "", None)
    writer.close()
    assert values(read_all(log, [B0])) == [b"v"]
    assert log.topics() == ["b"]


def test_positions_in_a_topic_that_went_are_not_those_of_one_that_comes_after_it(log: Log) -> None:
    make(log, WANTED, described(events("b")))
    one, other = join(log, "group", "b"), join(log, "other", "b")
    put(log, [(A0, b"k", b"v")], positions={A0: 1, A1: 7, B0: 3}, by=one)
    put(log, [], positions={A0: 5}, by=other)
    remove(log, "a")
    make(log, WANTED)
    until(lambda: log.committed("group", [A0, A1]) == log.committed("other", [A0, A1]) == {})
    assert log.committed("group", [B0]) == {B0: 3}


# ---- the embedded log alone -------------------------------------------------------------------------------------------


def test_a_deletion_outlives_the_process_and_no_number_is_given_twice(tmp_path: Path) -> None:
    lives = []
    for _ in range(3):
        log = EmbeddedLog(tmp_path / "log")
        make(log, WANTED)
        lives.append(log.incarnations(["a"])["a"].id)
        put(log, [(A0, b"k", b"v")], positions={A0: 1, B0: 1})
        assert values(read_all(log, [A0, A1])) == [b"v"]
        remove(log, "a")
        log.close()
    assert len(set(lives)) == 3
    log = EmbeddedLog(tmp_path / "log")
    assert log.topics() == []
    left = [key[:1] for key, _ in log._db.items() if key[:1] != b"m"]
    assert left == []
    log.close()


def test_a_view_sees_that_a_topic_went(embedded_log: EmbeddedLog) -> None:
    make(embedded_log, WANTED, described(events("b")))
    put(embedded_log, [(A0, b"k", b"v")])
    view = EmbeddedLog(embedded_log.directory, read_only=True)
    try:
        assert view.topics() == ["a", "b"]
        remove(embedded_log, "a")
        assert view.topics() == ["b"]
        with pytest.raises(UnknownTopic):
            view.end_offsets([A0])
    finally:
        view.close()


def test_a_position_that_is_committed_behind_the_end_of_a_topic_is_nobodys(embedded_log: EmbeddedLog) -> None:
    make(embedded_log, WANTED)
    writer = embedded_log.writer("writer")
    writer.begin()
    remove(embedded_log, "a")
    writer.commit({A0: 5}, "group", None)
    writer.close()
    make(embedded_log, WANTED)
    assert embedded_log.committed("group", [A0]) == {}


# ---- a real Kafka alone -----------------------------------------------------------------------------------------------


def test_what_the_cluster_refuses_is_told_by_topic_and_the_others_are_made(kafka_log: KafkaLog) -> None:
    bad = replace(WANTED, name="bad", config={"cleanup.policy": "sometimes"})
    refused = kafka_log.create_topics([bad, WANTED, replace(WANTED, name="no name")])
    assert sorted(refused) == ["bad", "no name"]
    assert all(isinstance(one, TopicRefused) for one in refused.values())
    assert "cleanup.policy" in refused["bad"].what
    until(lambda: kafka_log.topics() == ["a"])


def test_a_topic_of_another_name_space_may_look_alike(kafka_bootstrap: str, kafka_namespace: str) -> None:
    stem = kafka_namespace.rstrip(".")
    one, two = KafkaLog(kafka_bootstrap, f"{stem}."), KafkaLog(kafka_bootstrap, f"{stem}_")
    make(one, WANTED)
    assert two.look_up(["a"])["a"].lookalike == f"{stem}.a"
    assert two.look_up(["a"])["a"].found is None
    one.close()
    two.close()


@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "silent"])
def test_one_dead_broker_of_those_that_are_named_keeps_no_topic_from_being_made(
    kafka_bootstrap: str, kafka_namespace: str, listens: bool
) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        if listens:
            dead.listen()
        log = KafkaLog(f"127.0.0.1:{dead.getsockname()[1]},{kafka_bootstrap}", kafka_namespace)
        try:
            make(log, WANTED)
            remove(log, "a")
        finally:
            log.close()
