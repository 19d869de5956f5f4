"""The proxy reads as much of Kafka's protocol as it has to, and a late request comes exactly when it was let go."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.common.errors import LogError
from qmtl.testing.broker import start_broker
from qmtl.testing.proxy import Api, KafkaProxy, Network, Request, read_request
from tests.contract.driving import until

CLIENT = b"\x00\x04qmtl"


def header(api: int, version: int, correlation: int = 7) -> bytes:
    return b"".join(
        number.to_bytes(size, "big") for number, size in ((api, 2), (version, 2), (correlation, 4))
    )


@pytest.mark.parametrize(
    "frame, wanted",
    [
        (header(26, 1) + CLIENT + b"\x00\x03abc" + b"\x00" * 10 + b"\x01", Request(26, 1, 7, "abc")),
        (header(26, 1) + CLIENT + b"\x00\x03abc" + b"\x01" * 10 + b"\x00", Request(26, 1, 7, "abc", True)),
        (header(26, 3) + CLIENT + b"\x00\x04abc" + b"\x00" * 10 + b"\x01\x00", Request(26, 3, 7, "abc")),
        (
            header(26, 3) + CLIENT + b"\x00\x04abc" + b"\x01" * 10 + b"\x00\x00",
            Request(26, 3, 7, "abc", True),
        ),
        (header(0, 7) + CLIENT + b"\xff\xff" + b"\x00" * 8, Request(0, 7, 7, "")),  # no transactional id
        (
            header(0, 9) + b"\xff\xff" + b"\x00" + b"\x00" + b"\x00" * 8,
            Request(0, 9, 7, ""),
        ),  # and no client id
        (header(28, 3) + CLIENT + b"\x00" + b"\xc9\x01" + b"x" * 200, Request(28, 3, 7, "x" * 200)),
        (header(3, 12) + CLIENT, Request(3, 12, 7, "")),  # of no transaction: nothing more is read
    ],
)
def test_a_request_is_read_as_far_as_its_transactional_id(frame: bytes, wanted: Request) -> None:
    assert read_request(frame) == wanted


@pytest.fixture(scope="module")
def doors() -> Iterator[tuple[str, KafkaProxy]]:
    """The broker's own address, and the proxy in front of it."""
    proxy = KafkaProxy()
    with start_broker(advertise_at=proxy.port) as broker, proxy.forwarding_to(broker.behind_proxy):
        yield broker.bootstrap, proxy


def producer(bootstrap: str, name: str) -> Any:
    one: Any = Producer({"bootstrap.servers": bootstrap, "transactional.id": name, "log_level": 0})
    one.init_transactions(60)
    return one


def values(bootstrap: str, topic: str) -> list[bytes | None]:
    """Committed values up to the last stable offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "g",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([Place(topic, 0, 0)])
    out: list[bytes | None] = []
    while (message := consumer.poll(10)) is not None and message.error() is None:
        out.append(message.value())
    consumer.close()
    return out


def topic_on(bootstrap: str) -> str:
    name = f"proxy-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})  # its answer ends with it
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result()
    return name


@pytest.mark.broker
def test_a_late_commit_meets_the_transaction_that_its_client_has_begun_since(
    doors: tuple[str, KafkaProxy],
) -> None:
    straight, proxy = doors
    topic = topic_on(straight)
    late = proxy.hold(Api.END_TXN, owner=topic)
    one = producer(proxy.bootstrap, f"{topic}.id")
    one.begin_transaction()
    one.produce(topic, b"first")
    one.flush(60)  # so that nothing but the end of the transaction takes the time of the commit
    with pytest.raises(KafkaException):
        one.commit_transaction(1.0)
    until(late.caught.is_set)
    assert late.transactional_id == f"{topic}.id"
    assert not late.released.is_set()
    two = producer(proxy.bootstrap, f"{topic}.id")  # ends what the first one left open
    two.begin_transaction()
    two.produce(topic, b"second")
    two.flush(60)
    proxy.release(late)
    until(late.released.is_set)
    two.abort_transaction(60)
    # A late commit of the first would have shown the second: its writer has a newer epoch, so the broker refused it.
    assert values(straight, topic) == []


@pytest.mark.broker
def test_a_lost_answer_leaves_a_commit_that_was_done(doors: tuple[str, KafkaProxy]) -> None:
    straight, proxy = doors
    topic = topic_on(straight)
    lost = proxy.hold(Api.END_TXN, owner=topic, answer_only=True)
    one = producer(proxy.bootstrap, f"{topic}.id")
    one.begin_transaction()
    one.produce(topic, b"done")
    one.flush(60)
    with pytest.raises(KafkaException):
        one.commit_transaction(1.0)
    until(lost.released.is_set)
    until(lambda: values(straight, topic) == [b"done"])
    with suppress(KafkaException):
        one.flush(0)


@pytest.mark.broker
def test_a_request_is_let_go_right_before_another_of_its_writer(doors: tuple[str, KafkaProxy]) -> None:
    straight, proxy = doors
    topic = topic_on(straight)
    late = proxy.hold(Api.END_TXN, owner=topic, release_at=Api.END_TXN, stall=True)
    one = producer(proxy.bootstrap, f"{topic}.id")
    one.begin_transaction()
    one.produce(topic, b"first")
    one.flush(60)
    with pytest.raises(KafkaException):
        one.commit_transaction(1.0)
    until(late.caught.is_set)
    stranger = producer(proxy.bootstrap, f"{topic}.other")
    stranger.begin_transaction()
    stranger.produce(topic, b"other")
    stranger.commit_transaction(60)
    assert not late.released.is_set()
    two = producer(proxy.bootstrap, f"{topic}.id")
    two.begin_transaction()
    two.produce(topic, b"second")
    two.commit_transaction(60)
    assert late.released.is_set()
    # The broker tells of a commit before its records show.
    until(lambda: len(values(straight, topic)) == 2)
    assert values(straight, topic) == [b"other", b"second"]


def test_on_a_slow_network_no_late_answer_is_taken_for_the_end_of_a_log(
    doors: tuple[str, KafkaProxy],
) -> None:
    """The client gives an offset below zero, and no error, where a leader did not answer in time."""
    bootstrap, proxy = doors
    where = TopicPartition(topic_on(bootstrap), 0)
    log = KafkaLog(proxy.bootstrap, settings=KafkaSettings(call_timeout_s=1.0))
    assert log.end_offsets([where]) == {where: 0}
    slow = proxy.disturb(Network(delay_s=0.6))
    until(lambda: slow in proxy._disturbances)
    with pytest.raises(LogError):
        log.end_offsets([where])
    proxy.heal(slow)
    until(lambda: found(log, where) == {where: 0})
    log.close()


def found(log: KafkaLog, where: TopicPartition) -> Mapping[TopicPartition, int]:
    """The end of a log; nothing where it is not told."""
    try:
        return log.end_offsets([where])
    except LogError:
        return {}
