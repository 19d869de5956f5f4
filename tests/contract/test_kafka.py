"""What only a real Kafka can show: somebody's open transaction, members that lost their place, silence."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from qmtl.engine.log import kafka, kafka_calls
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import TopicPartition, partitions_of
from qmtl.engine.recovery import restore
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import (
    Fenced,
    InvalidValue,
    LogUnreachable,
    MembershipLost,
    OutcomeUnknown,
    RecoveryStalled,
    TransactionAborted,
    UnknownTopic,
)
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, stamp_key
from qmtl.foundation.wire.topics import Cleanup, TopicSpec
from qmtl.testing.broker import start_broker
from qmtl.testing.proxy import Api, KafkaProxy
from tests.contract.driving import events, join, put, read_all, read_until, table, until, values
from tests.contract.leavers import LEAVERS
from tests.contract.outsiders import outsider

ROOT = Path(__file__).resolve().parents[2]
A0 = TopicPartition("a", 0)
B0 = TopicPartition("b", 0)


def test_an_open_transaction_holds_back_what_was_committed_behind_it(kafka_log: KafkaLog) -> None:
    log = kafka_log
    log.ensure_topics([events("a")])
    put(log, [(A0, b"k", b"before")])
    until(lambda: log.stable_offsets([A0]) == {A0: 2})
    with outsider(log, A0):
        put(log, [(A0, b"k", b"behind")])
        assert log.stable_offsets([A0]) == {A0: 2}
        end = log.end_offsets([A0])[A0]
        assert end >= 4
        assert values(read_until(log, {A0: 0}, {A0: 2})) == [b"before"]
        reader = log.reader()
        reader.assign({A0: 0})
        until(lambda: bool(reader.poll(10, 0.05)))

        def held_back() -> bool:
            assert reader.poll(10, 0.05) == []
            return reader.positions() == {A0: 2}

        until(held_back)
        assert reader.poll(10, 0.2) == []
        assert reader.positions() == {A0: 2}
        reader.close()
    assert values(read_all(log, [A0])) == [b"before", b"behind"]


@dataclass(frozen=True, slots=True)
class Word:
    """A row of the table that is restored here."""

    name: str
    text: str


CODEC = Codec((Word, PositionStamp))
WORDS = TopicSpec("words", ("name",), (), (Word,), Cleanup.COMPACT, "speller")
WHERE = TopicPartition("words", 0)


def write_word(log: KafkaLog, word: Word) -> None:
    stamp = CODEC.encode(PositionStamp("speller", 0))
    put(
        log,
        [
            (WHERE, encode_key((word.name,)), CODEC.encode(word)),
            (WHERE, stamp_key("speller", 0), stamp),
        ],
    )


def test_a_record_that_somebody_wrote_without_a_key_has_an_empty_one(kafka_log: KafkaLog) -> None:
    kafka_log.ensure_topics([events("a")])
    producer = Producer({"bootstrap.servers": kafka_log.bootstrap})
    for key in (b"k", None):
        producer.produce(f"{kafka_log.namespace}a", b"v", key, A0.partition)
    assert producer.flush(60) == 0
    reader = kafka_log.reader()
    reader.assign({A0: 0})
    keys: list[bytes] = []

    def read() -> bool:
        for one in reader.poll_columns(10, 0.05, {A0: 2}):
            keys.extend(one.keys)
        return len(keys) == 2

    until(read)
    reader.close()
    assert keys == [b"k", b""]
    assert [one.key for one in read_all(kafka_log, [A0])] == keys


def test_a_restore_waits_for_an_open_transaction_and_is_then_complete(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    log.ensure_topics([WORDS])
    write_word(log, Word("a", "before"))
    store = Store(tmp_path / "store", log.log_id)
    words = Table(WORDS, 0, store, CODEC)
    with ThreadPoolExecutor(1) as pool:
        with outsider(log, WHERE):
            write_word(log, Word("a", "behind"))
            reached: list[int] = []
            running = pool.submit(
                restore, log, store, {"words": words}, CODEC, progress=lambda done, of: reached.append(done)
            )
            until(lambda: any(reached))
            assert not running.done()
        assert running.result(60).records == 4
    assert words.get("a") == Word("a", "behind")
    store.close()


def test_a_restore_behind_a_transaction_that_never_ends_stalls_with_the_cause(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    log.ensure_topics([WORDS])
    write_word(log, Word("a", "before"))
    until(lambda: log.stable_offsets([WHERE]) == log.end_offsets([WHERE]))
    store = Store(tmp_path / "store", log.log_id)
    reached, begun = [0], time.monotonic()

    def clock() -> float:
        """Stands still up to the open transaction: a reader that is slow to begin is no stall of this kind."""
        return time.monotonic() if reached[-1] == 3 else begun

    def progress(done: int, total: int) -> None:
        reached.append(done)

    words = {"words": Table(WORDS, 0, store, CODEC)}
    with outsider(log, WHERE), pytest.raises(RecoveryStalled) as stalled:
        restore(log, store, words, CODEC, stall_s=0.5, progress=progress, clock=clock)
    assert "words[0] at 3 of 4" in stalled.value.what
    assert "transaction is open from offset 3" in stalled.value.what
    store.close()


def test_a_fence_of_an_earlier_generation_is_refused_and_nothing_shows(kafka_log: KafkaLog) -> None:
    log = kafka_log
    log.ensure_topics([events("a", 2), events("b")])
    first = join(log, "group", "a", "first")
    until(lambda: first.membership.poll(0.05) == {0, 1})
    stale = first.fence()
    second = log.membership("group", "group.second", "a")
    shares: list[frozenset[int]] = []

    def shared() -> bool:
        shares.append(first.membership.poll(0.05))
        return len(shares[-1]) == 1 == len(second.poll(0.05))

    until(shared)
    assert frozenset() in shares  # a member sees its tasks go before it sees others come
    writer = log.writer("writer")
    writer.begin()
    writer.append("b", 0, b"k", b"never")
    with pytest.raises(TransactionAborted):
        writer.commit({A0: 1}, "group", stale)
    writer.begin()
    writer.append("b", 0, b"k", b"v")
    writer.commit({A0: 2}, "group", first.fence())
    writer.close()
    assert values(read_all(log, [B0])) == [b"v"]
    assert log.committed("group", [A0]) == {A0: 2}


def test_a_member_that_leaves_while_its_tasks_come_is_let_go(kafka_log: KafkaLog) -> None:
    kafka_log.ensure_topics([events("a")])
    command = [sys.executable, "-m", "tests.contract.leavers", kafka_log.bootstrap, kafka_log.namespace]
    left = subprocess.run(command, cwd=ROOT, timeout=240, capture_output=True, text=True, check=True)
    assert int(left.stdout) == LEAVERS


def test_in_a_group_of_the_consumer_protocol_only_the_tasks_that_move_are_seen_to_go(
    kafka_log: KafkaLog,
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol="consumer"))
    log.ensure_topics([events("a", 4), events("b")])
    one = log.membership("group", "one", "a")
    until(lambda: one.poll(0.05) == frozenset(range(4)))
    stale = one.fence()
    two = log.membership("group", "two", "a")
    seen: set[frozenset[int]] = set()

    def shared() -> bool:
        seen.add(one.poll(0.02))
        return len(two.poll(0.02)) == 2

    until(shared)
    kept, moved = one.poll(), two.poll()
    assert kept | moved == frozenset(range(4))
    assert all(kept <= tasks for tasks in seen)  # what stays is never interrupted
    writer = log.writer("writer")
    writer.begin()
    writer.append("b", 0, b"k", b"stale")
    with pytest.raises(TransactionAborted):
        writer.commit({TopicPartition("a", min(moved)): 1}, "group", stale)
    writer.begin()
    writer.append("b", 0, b"k", b"v")
    writer.commit({TopicPartition("a", min(kept)): 1}, "group", one.fence())
    writer.close()
    assert values(read_all(log, [B0])) == [b"v"]
    two.close()
    until(lambda: one.poll(0.05) == frozenset(range(4)))
    one.close()
    log.close()


@pytest.mark.parametrize(
    "wrong", [{"call_timeout_s": 0}, {"session_timeout_ms": -1}, {"group_protocol": "share"}]
)
def test_settings_that_cannot_be_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        KafkaSettings(**wrong)


def test_a_transaction_that_the_broker_ended_for_its_age_shows_nothing_and_ends_its_writer(
    kafka_log: KafkaLog,
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(transaction_timeout_ms=2000))
    log.ensure_topics([events("a")])
    writer = log.writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"never")
    until(lambda: log.end_offsets([A0])[A0] >= 2)  # the record, and the marker of the broker's abort
    with pytest.raises((TransactionAborted, OutcomeUnknown, Fenced)):
        writer.commit({}, "", None)
    writer.close()
    put(log, [(A0, b"k", b"v")])
    assert values(read_all(log, [A0])) == [b"v"]


def test_a_transaction_that_is_not_ready_in_time_is_aborted_and_its_writer_goes_on(
    kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = kafka_log
    log.ensure_topics([events("a"), events("b")])
    by = join(log, "group", "a")
    writer = log.writer("writer")
    writer.begin()
    writer.append("b", 0, b"k", b"never")
    ahead = SimpleNamespace(monotonic=lambda: time.monotonic() + log.settings.transaction_s)
    with monkeypatch.context() as later:
        later.setattr(kafka, "time", ahead)
        with pytest.raises(TransactionAborted, match="within 12 s"):
            writer.commit({A0: 1}, by.group, by.fence())
    writer.begin()
    writer.append("b", 0, b"k", b"v")
    writer.commit({A0: 2}, by.group, by.fence())
    writer.close()
    by.membership.close()
    assert values(read_all(log, [B0])) == [b"v"]
    assert log.committed(by.group, [A0]) == {A0: 2}


def prepared(log: KafkaLog) -> None:
    """Two topics on a broker that has just started, and the topics of its own that the first transaction makes it create."""
    log.ensure_topics([events("a"), events("b")])
    put(log, [], positions={A0: 0}, by=(first := join(log, "first", "a")), writer="first")
    first.membership.close()


@pytest.mark.broker
def test_a_broker_that_is_away_holds_a_commit_of_positions_no_longer_than_its_time_out() -> None:
    with start_broker() as broker:
        # The group outlives the broker's absence, however long a start takes.
        settings = KafkaSettings(call_timeout_s=3.0, session_timeout_ms=120_000)
        log, patient = KafkaLog(broker.bootstrap, settings=settings), KafkaLog(broker.bootstrap)
        prepared(patient)
        by = join(log, "group", "a")
        writer = log.writer("writer")
        writer.begin()
        writer.append("b", 0, b"k", b"1")
        writer.commit({A0: 1}, by.group, by.fence())
        fence = by.fence()
        writer.begin()
        writer.append("b", 0, b"k", b"2")
        broker.kill()
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            writer.commit({A0: 2}, by.group, fence)
        assert time.monotonic() - started < 20  # and not for ever
        writer.close()
        broker.start()
        try:
            until(lambda: bool(by.membership.poll(0.05)))
        except (
            MembershipLost
        ):  # to the broker, a join that is asked for twice may be two members: a worker joins again
            by.membership.close()
            by = join(log, "group", "a")
        put(patient, [(B0, b"k", b"3")], positions={A0: 3}, by=by)
        assert values(read_all(patient, [B0])) == [b"1", b"3"]
        assert patient.committed(by.group, [A0]) == {A0: 3}
        by.membership.close()
        log.close()
        patient.close()


@pytest.mark.broker
def test_positions_that_come_late_never_count_in_the_transaction_after() -> None:
    proxy = KafkaProxy()
    with start_broker(advertise_at=proxy.port) as broker, proxy.forwarding_to(broker.behind_proxy):
        patient = KafkaLog(proxy.bootstrap)
        prepared(patient)
        patient.close()
        log = KafkaLog(
            proxy.bootstrap, settings=KafkaSettings(call_timeout_s=3.0, transaction_timeout_ms=5000)
        )
        by = join(log, "group", "a")
        late = proxy.hold(Api.TXN_OFFSET_COMMIT, release_at=Api.END_TXN)
        writer = log.writer("writer")
        writer.begin()
        writer.append("b", 0, b"k", b"1")
        # The client calls this an abortable error, and would go on; the broker has not said a word.
        with pytest.raises(OutcomeUnknown):
            writer.commit({A0: 1}, by.group, by.fence())
        writer.close()
        writer = log.writer("writer")
        writer.begin()
        writer.append("b", 0, b"k", b"2")
        writer.commit({A0: 2}, by.group, by.fence())
        assert late.released.is_set()
        assert log.committed(by.group, [A0]) == {A0: 2}
        assert values(read_all(log, [B0])) == [b"2"]
        writer.close()
        by.membership.close()
        log.close()


def test_a_record_that_the_failed_transaction_does_not_take_ends_it(kafka_log: KafkaLog) -> None:
    log = kafka_log
    log.ensure_topics([events("a"), events("b")])
    # A topic that takes less than its client believes makes the open transaction fail while it is written.
    admin = AdminClient({"bootstrap.servers": log.bootstrap})
    small = NewTopic(f"{log.namespace}small", num_partitions=1, config={"max.message.bytes": "200"})
    admin.create_topics([small])[small.topic].result(60)
    until(lambda: "small" in log.topics())
    writer = log.writer("writer")
    writer.begin()
    writer.append("a", 0, b"k", b"never")
    writer.append("small", 0, b"k", bytes(range(256)) * 4)

    def refused() -> bool:
        try:
            writer.append("a", 0, b"k", b"never")
        except TransactionAborted as error:
            return "small [0]" in error.what  # whenever the broker's answer comes, it is told
        return False

    until(refused)
    writer.begin()
    writer.append("a", 0, b"k", b"v")
    writer.commit({}, "", None)
    writer.close()
    assert values(read_all(log, [A0])) == [b"v"]


def test_a_writer_that_comes_after_one_that_failed_sees_a_topic_that_was_made_again(
    kafka_log: KafkaLog,
) -> None:
    log = kafka_log
    name = f"{log.namespace}b"
    admin = AdminClient({"bootstrap.servers": log.bootstrap})

    def made_again(partitions: int) -> None:
        admin.delete_topics([name])[name].result(60)
        until(lambda: "b" not in log.topics())
        log.ensure_topics([events("b", partitions)])

    log.ensure_topics([events("b", 3)])
    writer = log.writer("writer")
    writer.begin()
    writer.append("b", 2, b"k", b"1")
    writer.commit({}, "", None)
    made_again(1)
    writer.begin()
    writer.append("b", 2, b"k", b"never")
    with pytest.raises((TransactionAborted, OutcomeUnknown)):
        writer.commit({}, "", None)
    writer.close()
    writer = log.writer("writer")
    writer.begin()
    with pytest.raises(UnknownTopic, match="partition 2 of topic 'b'"):
        writer.append("b", 2, b"k", b"never")
    writer.abort()
    writer.close()
    made_again(3)
    put(log, [(TopicPartition("b", 2), b"k", b"2")])
    assert values(read_all(log, partitions_of("b", 3))) == [b"2"]


def test_a_record_for_which_the_queue_has_no_room_waits_until_there_is_some(
    kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: list[int] = []

    class Counting(Producer):
        def produce(self, *row: Any, **told: Any) -> None:
            try:
                super().produce(*row, **told)
            except BufferError:
                full.append(len(self))
                raise

    monkeypatch.setattr(kafka, "Producer", Counting)
    monkeypatch.setattr(kafka, "QUEUED_RECORDS", 100)
    kafka_log.ensure_topics([events("a")])
    put(kafka_log, [(A0, b"k", b"%d" % number) for number in range(1000)])
    assert full
    assert max(full) <= 100
    assert values(read_all(kafka_log, [A0])) == [b"%d" % number for number in range(1000)]


@pytest.mark.parametrize(
    "code, ends",
    [
        (KafkaError.ILLEGAL_GENERATION, TransactionAborted),
        (KafkaError.FENCED_INSTANCE_ID, TransactionAborted),
        (KafkaError._TIMED_OUT, OutcomeUnknown),
        (KafkaError._MSG_TIMED_OUT, OutcomeUnknown),
        (KafkaError._FENCED, Fenced),
        (KafkaError.INVALID_PRODUCER_EPOCH, Fenced),
    ],
)
def test_only_the_word_of_the_broker_ends_a_transaction(code: int, ends: type[Exception]) -> None:
    """The client calls its own time-outs abortable too, but their requests may still be on the way."""
    error = KafkaException(KafkaError(code, "told", txn_requires_abort=True))
    with pytest.raises(ends):
        kafka_calls.classify(error, "w")


@pytest.mark.parametrize("protocol", GROUP_PROTOCOLS)
def test_a_fence_of_no_member_commits_nothing(kafka_log: KafkaLog, protocol: GroupProtocol) -> None:
    """A member that was thrown out has no generation, and the group still refuses what is committed with its fence."""
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol=protocol))
    log.ensure_topics([events("a", 2)])
    owner = join(log, "group", "a", "owner")
    asked = {
        "bootstrap.servers": log.bootstrap,
        "group.id": f"{log.namespace}group",
        "group.protocol": protocol,
    }
    if protocol == "classic":  # what identifies a member there before it has joined
        asked["group.instance.id"] = f"{log.namespace}stranger"
    fence: Any = Consumer(asked).consumer_group_metadata()
    writer = log.writer("stranger")
    writer.begin()
    writer.append("a", 0, b"k", b"v")
    with pytest.raises(TransactionAborted):
        writer.commit({A0: 1}, "group", fence)
    assert log.committed("group", [A0]) == {}
    assert owner.membership.poll() == frozenset({0, 1})


def test_two_namespaces_on_one_cluster_know_nothing_of_each_other(
    kafka_bootstrap: str, kafka_namespace: str
) -> None:
    one, two = (
        KafkaLog(kafka_bootstrap, f"{kafka_namespace}1."),
        KafkaLog(kafka_bootstrap, f"{kafka_namespace}2."),
    )
    one.ensure_topics([events("a"), table("b")])
    two.ensure_topics([events("a", 3)])
    held = one.writer("writer")
    held.begin()
    held.append("a", 0, b"k", b"one")
    put(two, [(A0, b"k", b"two")], positions={A0: 1}, by=join(two, "group", "a"))
    held.commit({}, "", None)  # the same transactional id of another namespace fences nobody
    held.close()
    assert one.topics() == ["a", "b"]
    assert two.topics() == ["a"]
    assert one.log_id != two.log_id
    assert one.committed("group", partitions_of("a", 1)) == {}
    assert values(read_all(one, [A0])) == [b"one"]
    assert values(read_all(two, [A0])) == [b"two"]
    one.close()
    two.close()


def test_a_broker_that_does_not_answer_is_said_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(LogUnreachable) as refused:
        KafkaLog(f"127.0.0.1:{port}")
    assert time.monotonic() - started < 20  # and not for as long as a call may take
    assert f"127.0.0.1:{port}" in refused.value.what


@pytest.mark.broker
def test_a_broker_that_dies_under_a_commit_leaves_an_unknown_outcome_and_then_all_or_nothing() -> None:
    with start_broker() as broker:
        log = KafkaLog(broker.bootstrap)
        log.ensure_topics([events("a"), events("b")])
        put(log, [(A0, b"k", b"1"), (B0, b"k", b"1")], positions={A0: 7}, by=join(log, "group", "b"))
        ends = log.end_offsets([A0, B0])
        hasty = KafkaLog(broker.bootstrap, settings=KafkaSettings(call_timeout_s=2.0))
        writer = hasty.writer("writer")
        writer.begin()
        writer.append("a", 0, b"k", b"2")
        writer.append("b", 0, b"k", b"2")
        broker.kill()
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown):
            writer.commit({}, "", None)
        assert time.monotonic() - started < 20
        writer.close()
        hasty.close()
        broker.restart()
        # A client that was there before is as good as a new one, at once.
        assert log.committed("group", [A0]) == {A0: 7}
        assert log.end_offsets([A0, B0])[A0] >= ends[A0]
        put(log, [(A0, b"k", b"3"), (B0, b"k", b"3")])
        there = values(read_all(log, [A0]))
        assert there in ([b"1", b"3"], [b"1", b"2", b"3"])
        assert values(read_all(log, [B0])) == there
        assert log.offsets_at_time([A0], 0) == {A0: 0}
        log.close()


class Listening:
    """A client's answers, and how often it was asked for all topics."""

    def __init__(self, client: Any) -> None:
        self._client, self.lists = client, 0

    def __getattr__(self, name: str) -> Any:
        self.lists += name == "list_topics"
        return getattr(self._client, name)


def test_partitions_that_are_new_to_a_client_are_asked_for_together(
    kafka_log: KafkaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = kafka_log
    log.ensure_topics([events(f"t{number}", 2) for number in range(12)])
    wheres = [TopicPartition(f"t{number}", one) for number in range(12) for one in (0, 1)]
    log.stable_offsets(wheres)  # all have their leaders now: the client asks for these, too
    client = Listening(log.admin._client)
    monkeypatch.setattr(log.admin, "_client", client)
    log.admin.forget()
    assert log.stable_offsets(wheres) == dict.fromkeys(wheres, 0)
    assert client.lists == 1
    assert log.stable_offsets(wheres) == dict.fromkeys(wheres, 0)
    assert client.lists == 1
    for strange in (TopicPartition("t3", 2), TopicPartition("t3", -1), TopicPartition("none", 0)):
        with pytest.raises(UnknownTopic, match=strange.topic):
            log.stable_offsets([*wheres, strange])
