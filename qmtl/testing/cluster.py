"""Three real brokers on this machine, replicated as in production, whose leaders and coordinators a test can kill.

    with start_cluster() as cluster:
        cluster.leader("trade.orders", 0).kill()

Each node is broker and controller with a small heap; replication factor 3, at least 2 replicas in sync.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from qmtl.foundation.common.errors import NoBroker
from qmtl.testing.broker import START_TRIES, Broker, new_cluster_id
from qmtl.testing.broker_parts import REMEDY, Jvm, find_parts

NODES: Final = 3
NODE_HEAP_MB: Final = 256
REPLICATED: Final[Mapping[str, str]] = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
}
GROUP_COORDINATION: Final = "__consumer_offsets"
TRANSACTION_COORDINATION: Final = "__transaction_state"
ANSWER_SECONDS: Final = 30.0


class Cluster:
    """`nodes` by node id from 1 on; `bootstrap` names them all. Leaving the context, or `close()`, stops them."""

    def __init__(
        self, nodes: Mapping[int, Broker], directory: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        self.nodes = dict(nodes)
        self._directory = directory

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start every node that does not run; returns when all answer.

        Raises:
            NoBroker: one of them does not.
        """
        voters = ",".join(f"{number}@{node.controller}" for number, node in self.nodes.items())
        for number, node in self.nodes.items():
            node.configure({"node.id": str(number), "controller.quorum.voters": voters})
        with ThreadPoolExecutor(len(self.nodes)) as pool:  # no node answers before most of them are there
            for done in [pool.submit(node.start) for node in self.nodes.values()]:
                done.result()
        self._wait(
            lambda admin: len(admin.list_topics(timeout=5.0).brokers) == len(self.nodes),
            "Not every node joined.",
        )

    def _wait(self, condition: Callable[[AdminClient], bool], problem: str) -> None:
        """Ask until the cluster says so; one that moves answers with errors meanwhile."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            with suppress(KafkaException):
                if condition(admin):
                    return
            time.sleep(0.1)
        raise NoBroker(problem, "Look into the nodes' logs.")

    def leader(self, topic: str, partition: int) -> Broker:
        """The node that leads a partition now.

        Raises:
            NoBroker: within `ANSWER_SECONDS` the cluster named none that runs.
        """
        found: list[Broker] = []

        def led(admin: AdminClient) -> bool:
            partitions = admin.list_topics(topic, timeout=5.0).topics[topic].partitions
            node = self.nodes.get(partitions[partition].leader) if partition in partitions else None
            if node is not None and node.running():
                found.append(node)
            return bool(found)

        self._wait(led, f"No running node leads {topic}[{partition}].")
        return found[0]

    def group_coordinator(self) -> Broker:
        """The node that keeps the groups: their topic has one partition here."""
        return self.leader(GROUP_COORDINATION, 0)

    def transaction_coordinator(self) -> Broker:
        """The node that keeps the transactions: their topic has one partition here."""
        return self.leader(TRANSACTION_COORDINATION, 0)

    def wait_in_sync(self, topic: str) -> None:
        """Returns when every replica of a topic is in sync again.

        Raises:
            NoBroker: not within `ANSWER_SECONDS`.
        """

        def whole(admin: AdminClient) -> bool:
            found = admin.list_topics(topic, timeout=5.0).topics[topic].partitions.values()
            return all(len(one.isrs) == len(one.replicas) for one in found)

        self._wait(whole, f"The replicas of {topic} are not in sync.")

    def close(self) -> None:
        """Stop all nodes at once and remove what was made for them."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            for done in [pool.submit(node.close) for node in self.nodes.values()]:
                done.result()
        if self._directory is not None:
            self._directory.cleanup()


def start_cluster(data_dir: Path | None = None, *, extra: Mapping[str, str] | None = None) -> Cluster:
    """A cluster of one's own, running and answering.

    Args:
        data_dir: where each node has a directory; without one a temporary directory that `close()` removes.
        extra: lines of every node's `server.properties`; they win over the recipe's and over `REPLICATED`.

    Raises:
        NoBroker: no JVM was found, QMTL_TEST_BROKER=none forbids it, or a node did not come.
    """
    if os.environ.get("QMTL_TEST_BROKER") == "none":
        raise NoBroker("QMTL_TEST_BROKER=none forbids to start a broker.", "Unset it to run one.")
    parts = find_parts(os.environ)
    if not isinstance(parts, Jvm):
        raise NoBroker("A cluster needs a local JVM; a container engine was found.", REMEDY)
    temporary = tempfile.TemporaryDirectory(prefix="qmtl-cluster-") if data_dir is None else None
    directory = Path(temporary.name) if temporary else (data_dir or Path())
    cluster_id = new_cluster_id()
    cluster = Cluster(
        {
            number: Broker(
                parts,
                directory / f"node-{number}",
                {**REPLICATED, **(extra or {})},
                guarded=True,
                heap_mb=NODE_HEAP_MB,
                cluster_id=cluster_id,
            )
            for number in range(1, NODES + 1)
        },
        temporary,
    )
    try:
        for _ in range(START_TRIES - 1):
            try:
                cluster.start()
                return cluster
            except NoBroker as failed:
                if "BindException" not in failed.what and "Address already in use" not in failed.what:
                    raise
                for node in cluster.nodes.values():
                    node.kill()
                    node.choose_other_ports()
        cluster.start()
    except BaseException:
        cluster.close()
        raise
    return cluster
