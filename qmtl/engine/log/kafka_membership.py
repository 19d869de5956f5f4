"""Part in the group of a processor on Kafka: which tasks are whose."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException

from qmtl.engine.log.kafka_calls import common
from qmtl.engine.log.kafka_rights import DENIED, denied
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import Fence
from qmtl.foundation.common.errors import MembershipLost

if TYPE_CHECKING:
    from qmtl.engine.log.kafka import KafkaLog


class KafkaMembership:
    """Takes part in the group of a processor on its anchor topic, and reads nothing from it.

    Partitions are paused at once: which task is whose comes from the group, what a task reads is its own business
    (`Task`), so tasks may read topics that come and go at run time. In a classic group static membership lets a killed
    worker have its tasks back at once; the `consumer` protocol moves single tasks and leaves the others where they are.
    """

    def __init__(self, log: KafkaLog, group: str, member: str, anchor: str) -> None:
        self._mine: frozenset[int] = frozenset()
        self._gone: frozenset[int] = frozenset()
        settings = log.settings
        incremental = settings.group_protocol == "consumer"
        self._consumer = Consumer(
            {
                **common(log),
                **(_CONSUMER_GROUP if incremental else _classic_group(settings, log.namespace + member)),
                "client.id": log.namespace + member,  # the only name that others see of a dynamic member
                "group.id": log.namespace + group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 500,
                "fetch.message.max.bytes": 1024,
                "queued.max.messages.kbytes": 64,
            }
        )

        def assigned(consumer: Any, places: Any) -> None:
            numbers = frozenset(place.partition for place in places)
            if incremental:
                consumer.incremental_assign(places)
                self._mine |= numbers
            else:
                consumer.assign(places)
                self._mine = numbers
            consumer.pause(places)

        def revoked(consumer: Any, places: Any) -> None:
            # Nothing is in flight here: the worker polls its membership only between transactions.
            if incremental:
                consumer.incremental_unassign(places)
                numbers = frozenset(place.partition for place in places)
            else:
                consumer.unassign()
                numbers = self._mine
            self._mine -= numbers
            self._gone |= numbers

        self._consumer.subscribe(
            [log.namespace + anchor], on_assign=assigned, on_revoke=revoked, on_lost=revoked
        )

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        self._gone = frozenset()
        message = self._consumer.poll(timeout_s)
        if message is not None and (refusal := message.error()) is not None and refusal.code() in DENIED:
            raise denied("READ on the group of this worker's tasks", refusal)
        # The client marks no error of a message as fatal: its code says so.
        if (
            message is not None
            and (error := message.error()) is not None
            and error.code() == KafkaError._FATAL
        ):
            raise MembershipLost(f"the group refused this member: {error.str()}", "Join again.")
        # Tasks that went and came back within one poll were another's meanwhile: they are seen to go.
        return self._mine - self._gone

    def fence(self) -> Fence | None:
        metadata: Any = self._consumer.consumer_group_metadata()
        return metadata  # type: ignore[no-any-return] # an opaque object that only the producer reads

    def close(self) -> None:
        # An assignment that arrives during the close is never taken: its callback waits for ever. So first none may come
        # any more, then the one that has come already is served.
        with suppress(KafkaException):  # a member that was fenced has nothing to leave
            self._consumer.unsubscribe()
            self._consumer.poll(0.0)
        self._consumer.close()


_CONSUMER_GROUP: Final[Mapping[str, Any]] = {"group.protocol": "consumer"}
"""The rest is the broker's to decide: the client refuses a session time-out and a strategy of its own."""


def _classic_group(settings: KafkaSettings, member: str) -> dict[str, Any]:
    return {
        "group.instance.id": member,
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": settings.heartbeat_ms,
        "partition.assignment.strategy": "range",
    }
