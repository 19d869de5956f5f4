"""Topics, configurations and offsets of a Kafka cluster."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import (
    ConsumerGroupState,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

from qmtl.engine.log.kafka_offsets import sure
from qmtl.engine.log.kafka_rights import DENIED, denied, require_rights, require_version
from qmtl.engine.log.kafka_security import OPEN, VARIABLE, Security
from qmtl.engine.log.port import (
    MESSAGE_MAX_BYTES,
    Group,
    GroupState,
    Incarnation,
    Member,
    Positions,
    TopicDescription,
    TopicPartition,
    TopicStanding,
    described,
    lookalikes,
    require_same,
)
from qmtl.engine.log.rights import Rights
from qmtl.foundation.common.errors import LogError, LogUnreachable, TopicRefused, UnknownTopic
from qmtl.foundation.wire.topics import TopicSpec

_SPECS: Any = OffsetSpec  # its constructors carry no types
_EARLIEST: Final = _SPECS.earliest()
_LATEST: Final = _SPECS.latest()

_GROUP_STATES: Final = {
    ConsumerGroupState.STABLE: GroupState.RUNNING,
    ConsumerGroupState.EMPTY: GroupState.EMPTY,
    ConsumerGroupState.DEAD: GroupState.EMPTY,
    ConsumerGroupState.UNKNOWN: GroupState.UNKNOWN,
}

CONNECT_TIMEOUT_S: Final = 6.0
MOVING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._NOENT,  # "no leaders found"
    }
)
"""Answers of a cluster in which a broker has just come or gone: the question is asked again."""
_AWAY: Final = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
    }
)
"""Nobody answered; with `MOVING` for long enough, nobody did either."""

_LATER: Final = MOVING | {
    KafkaError.NOT_CONTROLLER,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError.INVALID_REPLICATION_FACTOR,  # of the brokers that were there, some are away
}
"""Answers after which the same request may succeed."""

REQUEST_S: Final = 5.0
"""A request to make, to delete or to look up topics while the log runs takes no longer: whoever asks has more to do."""

_KEPT_OUT: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
"""How a client tells that a broker does not take its name, or the proof of it."""


class KafkaAdmin:
    """What the log asks of the cluster itself.

    Args:
        call_timeout_s: how long one question may take with all its repetitions.

    Raises:
        LogUnreachable: no broker answered within `CONNECT_TIMEOUT_S`.
    """

    def __init__(
        self, bootstrap: str, namespace: str, call_timeout_s: float, security: Security = OPEN
    ) -> None:
        self._namespace = namespace
        self._wait_s = call_timeout_s
        said: list[KafkaError] = []
        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": "qmtl",
            "log_level": 0,
            "error_cb": said.append,
        }
        try:
            self._client = AdminClient({**settings, **security.settings})
        except KafkaException as error:
            raise security.refused(error) from None
        found = self._connected(bootstrap, said)
        self._broker = min(found.brokers, default=0)
        self._cluster = found.cluster_id
        self._brokers = max(1, len(found.brokers))
        self._partitions: dict[str, int] = {}

    def _connected(self, bootstrap: str, said: Sequence[KafkaError]) -> Any:
        """The first answer of the cluster; asked in short turns, so that a refusal is not waited out."""
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                return self._client.list_topics(timeout=CONNECT_TIMEOUT_S / 4)
            except KafkaException as error:
                self._client.poll(0.0)  # what the client has met on its way
                refused = any(one.code() in _KEPT_OUT for one in said)
                if refused or time.monotonic() >= deadline:
                    raise _unreachable(bootstrap, error.args[0], said) from None
                time.sleep(0.02)  # a port at which nobody listens refuses at once

    def require_version(self) -> None:
        require_version(self._client, self._broker, self._wait_s)

    def require_rights(self, rights: Rights) -> None:
        require_rights(self._client, self._namespace, rights, self._wait_s)

    def identity(self) -> str:
        return f"kafka-{self._cluster}-{self._namespace}"

    def topics(self) -> list[str]:
        found = self._there(self._wait_s)
        names = sorted(
            name for name in found if name.startswith(self._namespace) and not name.startswith("__")
        )
        return [name[len(self._namespace) :] for name in names]

    def require(self, where: TopicPartition, wait_s: float | None = None) -> None:
        """`require_all` of one."""
        self.require_all((where,), wait_s)

    def require_all(self, wheres: Collection[TopicPartition], wait_s: float | None = None) -> None:
        """Make sure that partitions exist: a consumer of one that does not waits for ever, a producer until its time-out.

        The cluster is asked once for all that are not known yet.

        Args:
            wait_s: how long the cluster may take to say so; None, as long as any question.

        Raises:
            UnknownTopic: one doesn't.
        """
        known = self._partitions
        new = {where.topic for where in wheres if where.partition >= known.get(where.topic, 0)}
        if new:  # there may be more by now
            timeout_s = self._wait_s if wait_s is None else wait_s
            found = self._asked(lambda: self._client.list_topics(timeout=timeout_s)).topics
            for name in new:
                physical = found.get(self._namespace + name)
                known[name] = 0 if physical is None else len(physical.partitions)
        for where in wheres:
            if not 0 <= where.partition < known.get(where.topic, 0):
                raise UnknownTopic(
                    f"the log has no partition {where.partition} of topic {where.topic!r}.",
                    "Create it first.",
                )

    def forget(self) -> None:
        """Ask the cluster again which partitions there are: topics may have been deleted, or made anew."""
        self._partitions.clear()

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Compare what exists, and only where that fits create what is missing.

        A cluster with fewer brokers than a topic asks for gets as many replicas as it has brokers.
        """
        existing = set(self.topics())
        known = [spec for spec in specs if spec.name in existing]
        if known:
            self._compare(known)
        missing = [spec for spec in specs if spec.name not in existing]
        if missing:
            wanted = [self._wanted(described(spec)) for spec in missing]
            for name, future in self._client.create_topics(wanted, operation_timeout=self._wait_s).items():
                self._created(name, future)
            self._verify([one.topic for one in wanted])

    def _wanted(self, one: TopicDescription) -> NewTopic:
        return NewTopic(
            self._namespace + one.name,
            num_partitions=one.partitions,
            replication_factor=min(one.replication, self._brokers),
            config={**one.config, "max.message.bytes": str(MESSAGE_MAX_BYTES)},
        )

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        if not wanted:
            return {}
        within_s = min(self._wait_s, REQUEST_S)
        asked = [self._wanted(one) for one in wanted]
        futures = self._client.create_topics(asked, operation_timeout=within_s, request_timeout=within_s)
        return self._refusals(futures, "CREATE", KafkaError.TOPIC_ALREADY_EXISTS)

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        if not names:
            return {}
        for name in names:
            self._partitions.pop(name, None)
        within_s = min(self._wait_s, REQUEST_S)
        asked = [self._namespace + name for name in sorted(names)]
        futures = self._client.delete_topics(asked, operation_timeout=within_s, request_timeout=within_s)
        return self._refusals(futures, "DELETE", KafkaError.UNKNOWN_TOPIC_OR_PART)

    def _refusals(self, futures: Mapping[str, Future[Any]], right: str, done: int) -> Mapping[str, LogError]:
        """
        Args:
            right: what it takes.
            done: the answer that there is nothing left to do.
        """
        out: dict[str, LogError] = {}
        for name, future in futures.items():
            try:
                future.result()
            except KafkaException as error:
                problem = error.args[0]
                if problem.code() in DENIED:
                    raise denied(f"{right} on topic {name}", problem) from None
                if problem.code() in _AWAY:
                    raise unanswered(problem) from None
                if problem.code() != done and problem.code() not in _LATER:
                    out[name[len(self._namespace) :]] = TopicRefused(
                        f"the cluster refused {right} on topic {name!r}: {problem.str().rstrip('.')}.",
                        "Check the cluster's policies and the topic's settings.",
                    )
        return out

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        within_s = min(self._wait_s, REQUEST_S)
        said = self._there(within_s)
        there = {full: one for full, one in said.items() if one.partitions}
        # Their own names on the cluster: those of other namespaces look like them there, or don't.
        asked = {name: self._namespace + name for name in names}
        configs = self._configs([full for full in asked.values() if full in there], within_s)
        others = lookalikes(asked.values(), there)
        out = {}
        for name, full in asked.items():
            found, led = None, False
            if full in there:
                partitions = there[full].partitions.values()
                replicas = min(len(one.replicas) for one in partitions)
                found = TopicDescription(name, len(partitions), replicas, configs.get(full, {}))
                led = full in configs and all(one.leader >= 0 for one in partitions)
            out[name] = TopicStanding(found, led, others.get(full, ""))
        return out

    def _configs(self, names: Sequence[str], within_s: float) -> Mapping[str, Mapping[str, str]]:
        """Of these topics, without those that have just gone, or have not come everywhere."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        out = {}
        for resource, future in self._client.describe_configs(resources, request_timeout=within_s).items():
            with suppress(UnknownTopic):
                entries = self._asked(future.result)
                out[resource.name] = {entry.name: entry.value for entry in entries.values()}
        return out

    def _created(self, name: str, future: Future[Any]) -> None:
        try:
            future.result()
        except KafkaException as error:
            if (
                error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS
            ):  # somebody else was quicker: the same wish
                if error.args[0].code() in DENIED:
                    raise denied(f"CREATE on topic {name}", error.args[0]) from None
                raise LogError(
                    f"topic {name!r} was not created: {error.args[0].str()}.", "Check rights and names."
                ) from None

    def _verify(self, names: Sequence[str]) -> None:
        """Wait until the cluster's metadata shows a leader for every partition: creation is told before it is everywhere."""
        deadline = time.monotonic() + self._wait_s
        while True:
            found = self._there(self._wait_s)
            if all(
                name in found
                and found[name].partitions
                and all(one.leader >= 0 for one in found[name].partitions.values())
                for name in names
            ):
                return
            if time.monotonic() > deadline:
                raise LogError(
                    f"topics {list(names)} have no leaders after {self._wait_s:g} s.", "Check the cluster."
                )
            time.sleep(0.02)

    def _compare(self, specs: Sequence[TopicSpec]) -> None:
        found = self._describe([spec.name for spec in specs])
        for spec in specs:
            known = found.get(spec.name)
            if known is None:
                raise UnknownTopic(f"the topic {spec.name!r} was just deleted.", "Create the topics first.")
            require_same(described(spec), known.partitions, known.config)

    def describe(self, topic: str) -> TopicDescription | None:
        return self._describe([topic]).get(topic) if topic in self.topics() else None

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        if not topics:
            return {}
        names = TopicCollection([self._namespace + name for name in sorted(topics)])
        futures = self._client.describe_topics(names, request_timeout=self._wait_s)
        out = {}
        for name, future in futures.items():
            found = self._asked(future.result)
            out[name[len(self._namespace) :]] = Incarnation(str(found.topic_id), len(found.partitions))
        return out

    def _describe(self, names: Sequence[str]) -> Mapping[str, TopicDescription]:
        """Those of the topics that are there; one that is just being deleted may be gone from one answer and not from the other."""
        metadata = self._there(self._wait_s)
        full = {name: self._namespace + name for name in names if self._namespace + name in metadata}
        configs = self._configs(list(full.values()), self._wait_s)
        out = {}
        for name, one in full.items():
            if one in configs:
                partitions = metadata[one].partitions
                replicas = min((len(found.replicas) for found in partitions.values()), default=0)
                out[name] = TopicDescription(name, len(partitions), replicas, configs[one])
        return out

    def _there(self, within_s: float) -> Mapping[str, Any]:
        """The cluster's topics. Brokers that have come since count from now on; one that is away still counts: a new topic waits
        for it and is not made with fewer replicas."""
        found = self._asked(lambda: self._client.list_topics(timeout=within_s))
        self._brokers = max(self._brokers, len(found.brokers))
        return dict(found.topics)

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self._offsets(partitions, _EARLIEST, IsolationLevel.READ_UNCOMMITTED)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        """High watermarks: uncommitted records count, so that an open transaction shows."""
        return self._offsets(partitions, _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self._offsets(partitions, _LATEST, IsolationLevel.READ_COMMITTED)

    def _offsets(
        self, partitions: Collection[TopicPartition], spec: Any, isolation: IsolationLevel
    ) -> Positions:
        if not partitions:
            return {}
        self.require_all(partitions)
        asked = {KafkaPartition(self._namespace + where.topic, where.partition): spec for where in partitions}
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                answers = self._client.list_offsets(
                    asked, isolation_level=isolation, request_timeout=self._wait_s
                )
                found = {place: sure(place, future.result().offset) for place, future in answers.items()}
            except KafkaException as error:
                if error.args[0].code() in MOVING and time.monotonic() < deadline:
                    time.sleep(0.02)
                    # Left alone, the client asks for minutes with the leader's epoch that it knew before.
                    self._asked(lambda: self._client.list_topics(timeout=self._wait_s))
                    continue
                raise self._failure(error) from None
            return {
                TopicPartition(place.topic[len(self._namespace) :], place.partition): offset
                for place, offset in found.items()
            }

    def members(self, group: str) -> Group:
        """Who takes part in a group; a group that never was is empty."""
        name = self._namespace + group
        deadline = time.monotonic() + self._wait_s
        found: Any = None
        while found is None:
            try:
                futures = self._client.describe_consumer_groups([name], request_timeout=self._wait_s)
                found = futures[name].result()
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.GROUP_ID_NOT_FOUND:
                    return Group(GroupState.EMPTY)
                if code not in MOVING or time.monotonic() > deadline:
                    raise self._failure(error) from None
                time.sleep(0.02)
        members = [
            Member(
                (one.group_instance_id or one.client_id or "").removeprefix(self._namespace),
                one.host.lstrip("/"),
                frozenset(place.partition for place in one.assignment.topic_partitions),
            )
            for one in found.members
        ]
        state = _GROUP_STATES.get(found.state, GroupState.REBALANCING)
        return Group(state, tuple(sorted(members, key=lambda one: (one.member, one.host))))

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except KafkaException as error:
            raise self._failure(error) from None

    def _failure(self, error: KafkaException) -> LogError:
        problem = error.args[0]
        if problem.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            return UnknownTopic(
                f"the cluster has no such topic: {problem.str()}.", "Create the topics first."
            )
        if problem.code() in DENIED:
            return denied("to describe its topics", problem)
        return unanswered(problem)


def unanswered(problem: KafkaError) -> LogError:
    """What to say of a question that got no answer, and whether that is because the cluster is away for now."""
    kind = LogUnreachable if problem.code() in _AWAY | MOVING else LogError
    return kind(f"the cluster did not answer: {problem.str()}.", "Check that it runs.")


def _unreachable(bootstrap: str, problem: KafkaError, said: Sequence[KafkaError]) -> LogUnreachable:
    """Why nobody answered: a broker that does not take the name or its proof hangs up, as one that is not there does."""
    for one in said:
        if one.code() in _KEPT_OUT:
            return LogUnreachable(
                f"the Kafka broker at {bootstrap!r} did not let this client in: {one.str()}.",
                f"Check the file that {VARIABLE} names.",
            )
    return LogUnreachable(
        f"no Kafka broker answered at {bootstrap!r} within {CONNECT_TIMEOUT_S:g} s: {problem.str()}.",
        "Start one with `make broker`, or give another address with --log kafka://HOST:PORT.",
    )
