"""What a Kafka cluster allows this client, and which version it has: asked before anything is read or written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AclOperation,
    ConfigResource,
)

from qmtl.engine.log.rights import Rights
from qmtl.foundation.common.errors import BrokerTooOld, LogError, MissingRight

OLDEST: Final = "4.0"
_LAST_VERSION_OF_OLD: Final = "inter.broker.protocol.version"
"""A broker setting that Kafka 4.0 took away; before, every broker had it, and its value begins with the version."""

DENIED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
"""Answers of a cluster that knows the client, and does not let it."""

ASK: Final = (
    "Ask the cluster's keeper to allow it (kafka-acls.sh --add --allow-principal User:…), then start again."
)


def denied(what: str, problem: Any) -> MissingRight:
    """The error of a call that was not allowed."""
    return MissingRight(f"the cluster did not allow {what}: {problem.str()}.", ASK)


def require_version(client: Any, broker: int, timeout_s: float) -> None:
    """Hold the cluster to `OLDEST`, by the settings of one of its brokers.

    A client that may not see these settings can't tell, and goes on.

    Raises:
        BrokerTooOld: names the version found and the oldest one that is supported.
    """
    resource = ConfigResource(ConfigResource.Type.BROKER, str(broker))
    (future,) = client.describe_configs([resource], request_timeout=timeout_s).values()
    try:
        found = future.result().get(_LAST_VERSION_OF_OLD)
    except KafkaException as error:
        if error.args[0].code() in DENIED:
            return
        raise LogError(f"the cluster did not answer: {error.args[0].str()}.", "Check that it runs.") from None
    if found is not None:
        version = str(found.value).partition("-")[0]
        raise BrokerTooOld(
            f"broker {broker} is Kafka {version}; QMTL runs on {OLDEST} and newer, the first that only has KRaft.",
            f"Upgrade the cluster to {OLDEST} or newer, or name another one with --log.",
        )


def require_rights(client: Any, namespace: str, rights: Rights, timeout_s: float) -> None:
    """Compare what a worker needs with what the cluster says that this client may do.

    The right to write under the transactional id can't be asked for; the writer meets its lack when it begins.

    Raises:
        MissingRight: every right that is missing, of topics and of the group together.
    """
    missing = [
        *_of_topics(client, namespace, rights, timeout_s),
        *_of_group(client, namespace + rights.group, timeout_s),
    ]
    if missing:
        raise MissingRight(f"this client may not {'; '.join(missing)}.", ASK)


def _of_topics(client: Any, namespace: str, rights: Rights, timeout_s: float) -> Iterator[str]:
    names = sorted(rights.reads | rights.writes)
    if not names:
        return
    asked = TopicCollection([namespace + name for name in names])
    answers = client.describe_topics(asked, include_authorized_operations=True, request_timeout=timeout_s)
    for name in names:
        may = _allowed(answers[namespace + name])
        if may is None:
            continue  # the topic is made when it is needed
        needed = [AclOperation.DESCRIBE]
        needed += [AclOperation.READ] if name in rights.reads else []
        needed += [AclOperation.WRITE] if name in rights.writes else []
        yield from _lacking(needed, may, f"topic {namespace}{name}")


def _of_group(client: Any, group: str, timeout_s: float) -> Iterator[str]:
    answers = client.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=timeout_s
    )
    may = _allowed(answers[group])
    if may is not None:
        yield from _lacking([AclOperation.READ], may, f"group {group}")


def _allowed(future: Any) -> Collection[Any] | None:
    """The operations that are allowed on a resource; None where it does not exist, and so nobody can say."""
    try:
        return list(future.result().authorized_operations or ())
    except KafkaException as error:
        problem = error.args[0]
        if problem.code() in DENIED:
            return ()
        if problem.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND):
            return None
        raise LogError(f"the cluster did not answer: {problem.str()}.", "Check that it runs.") from None


def _lacking(needed: Collection[Any], may: Collection[Any], resource: str) -> Iterator[str]:
    lacking = [operation.name for operation in needed if operation not in may]
    if lacking:
        yield f"{' and '.join(lacking)} on {resource}"
