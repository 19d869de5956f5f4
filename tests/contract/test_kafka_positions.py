"""Committed positions on a real Kafka: what a transaction holds is not told, and a commit may be written twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.common.errors import LogUnreachable, UnstableOffsets
from qmtl.testing.broker import start_broker
from qmtl.testing.proxy import Api, KafkaProxy
from tests.campaign.plain import committed_position
from tests.contract.driving import events, join, put, read_all, until, values
from tests.contract.outsiders import holder

A0, A1 = TopicPartition("a", 0), TopicPartition("a", 1)
B0 = TopicPartition("b", 0)
POSITIONS = "__consumer_offsets"


def test_positions_that_a_transaction_holds_are_not_told_until_it_ends_and_those_beside_them_are(
    kafka_log: KafkaLog,
) -> None:
    log = kafka_log
    log.ensure_topics([events("a", 2), events("b")])
    by = join(log, "group", "a")
    put(log, [(B0, b"k", b"1")], positions={A0: 1, A1: 7}, by=by)
    by.membership.close()
    with holder(log, "group", {A0: 5}):
        began = time.monotonic()
        with pytest.raises(UnstableOffsets) as told:
            log.committed("group", [A0, A1], 0.5)
        assert time.monotonic() - began < 20  # and not for as long as a call may take
        assert "group has committed of a[0], a[1] is not told" in told.value.what
        assert "find-hanging --topic __consumer_offsets" in told.value.remedy
        assert log.committed("group", [A1], 0.5) == {A1: 7}
        assert log.committed("another", [A0], 0.5) == {}
    until(lambda: log.committed("group", [A0, A1], 5.0) == {A0: 1, A1: 7})


@pytest.mark.broker
def test_positions_of_a_broker_that_is_away_are_no_transaction() -> None:
    with start_broker() as broker:
        KafkaLog(broker.bootstrap).ensure_topics([events("a")])
        log = KafkaLog(broker.bootstrap, settings=KafkaSettings(call_timeout_s=2.0))
        broker.kill()
        with pytest.raises(LogUnreachable):
            log.committed("group", [A0], 0.5)
        broker.start()
        assert log.committed("group", [A0], 60.0) == {}
        log.close()


@pytest.mark.broker
def test_positions_whose_answer_is_lost_are_written_twice_in_their_transaction() -> None:
    proxy = KafkaProxy()
    with start_broker(advertise_at=proxy.port) as broker, proxy.forwarding_to(broker.behind_proxy):
        # The transaction and the member outlive the broker's absence, however long a start takes.
        settings = KafkaSettings(transaction_timeout_ms=120_000, session_timeout_ms=120_000)
        log = KafkaLog(proxy.bootstrap, settings=settings)
        log.ensure_topics([events("a"), events("b")])
        by = join(log, "group", "a")
        with ThreadPoolExecutor(1) as pool:
            lost = proxy.hold(Api.TXN_OFFSET_COMMIT, answer_only=True)
            written = pool.submit(put, log, [(B0, b"k", b"1")], positions={A0: 1}, by=by)
            assert lost.caught.wait(60)
            until(lambda: broker_has(proxy, 1))
            broker.kill()
            broker.start()
            written.result(120)
        assert log.committed("group", [A0]) == {A0: 1}
        assert values(read_all(log, [B0])) == [b"1"]
        assert [one for one in positions(proxy, "read_committed") if one[0] == "group"] == [
            ("group", "a", 0, 1),
            ("group", "a", 0, 1),
        ]
        by.membership.close()
        log.close()


def broker_has(proxy: KafkaProxy, count: int) -> bool:
    return len([one for one in positions(proxy, "read_uncommitted") if one[0] == "group"]) == count


def positions(proxy: KafkaProxy, level: str) -> list[tuple[str, str, int, int]]:
    """What stands in the only partition of the committed positions."""
    reader = Consumer(
        {
            "bootstrap.servers": proxy.bootstrap,
            "group.id": "looks",
            "isolation.level": level,
            "enable.partition.eof": True,
        }
    )
    out: list[tuple[str, str, int, int]] = []
    try:
        reader.assign([Place(POSITIONS, 0, 0)])
        while True:
            message = reader.poll(60)
            assert message is not None, "neither a record nor the end"
            if message.error() is not None:
                return out
            found = committed_position(message.key() or b"", message.value())
            if found is not None:
                out.append(found)
    finally:
        reader.close()
