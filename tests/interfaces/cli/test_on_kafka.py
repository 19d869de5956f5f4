"""On a real Kafka the same verbs say the same: digests equal those of an embedded log with the same contents, positions are its own."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from qmtl.bootstrap import open_log
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import Log
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.dagmanager.naming import namespace_of
from tests.contract.driving import until
from tests.interfaces.cli.running import call
from tests.replay.logs import (
    MINUTE_MS,
    RAW,
    RAW_SPEC,
    START_MS,
    activate,
    bar,
    commit,
    create,
    log_in,
    marker,
    raw_task,
    row,
    stamp,
    tombstone,
    world,
)

INIT = ("service", "dagmanager", "init")
SPECS = [
    RAW_SPEC,
    *(spec for spec in CATALOGUE if spec.name in ("dag.tasks", "world.state", "world.commands")),
]


def fill(log: Log, size: int) -> None:
    """The same contents in transactions of `size` records."""
    rows = [row("dag.tasks", raw_task()), create("alpha"), activate("alpha", "s1")]
    for minute in range(6):
        closed = START_MS + (minute + 1) * MINUTE_MS
        rows += [row(RAW, bar(symbol, minute)) for symbol in ("BTC", "ETH", "XRP")]
        rows += [marker(RAW, closed, at) for at in range(RAW_SPEC.partitions)]
        rows += [
            row("world.state", world(f"w{minute % 2}", str(minute))),
            marker("world.state", closed),
        ]
        rows += [stamp("world.state", size)]
    rows += [tombstone("world.state", "w1")]
    for at in range(0, len(rows), size):
        commit(log, rows[at : at + size], "people")


@pytest.mark.parametrize("name", ["momentum-", "Momentum."])
def test_the_log_of_a_world_and_a_domain_is_in_their_namespace_at_the_address_that_is_told(
    capsys: pytest.CaptureFixture[str], kafka_bootstrap: str, name: str
) -> None:
    world_id, cluster = name + uuid.uuid4().hex[:12], f"kafka://{kafka_bootstrap}"
    ran = call(capsys, *INIT, "--log", cluster, "--world", world_id, "--domain", "paper")
    assert (ran.code, ran.err) == (0, "")
    address = ran.out.split()[-1]
    namespace = namespace_of(world_id, ExecutionDomain.DRYRUN)
    assert address == f"{cluster}/{namespace}"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    prefix = f"{namespace}."
    names = [one for one in admin.list_topics(timeout=60).topics if one.startswith(prefix)]
    try:
        assert sorted(names) == sorted(f"{prefix}{spec.name}" for spec in CATALOGUE)
        again = call(capsys, *INIT, "--log", address)
        assert again.out == f"{len(CATALOGUE)} topics are there, 0 of them made now\n"
    finally:
        for done in admin.delete_topics(names).values() if names else ():
            done.result()


def test_a_kafka_log_is_listed_read_and_digested_like_an_embedded_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, kafka_bootstrap: str
) -> None:
    kafka = f"kafka://{kafka_bootstrap}/cli-{uuid.uuid4().hex[:12]}"
    log = open_log(kafka)
    log.ensure_topics(SPECS)
    fill(log, 7)
    wheres = [where for name in log.topics() for where in all_partitions(log, name)]
    # The broker tells a writer of its commit before it has written the marker, and what is looked at ends before that.
    until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
    log.close()
    with log_in(tmp_path / "log", specs=SPECS) as other:
        fill(other, 1000)
    both = (kafka, f"embedded:{tmp_path / 'log'}")

    def told(*args: str) -> list[str]:
        found = [call(capsys, *args, "--json", "--log", address) for address in both]
        assert [(one.code, one.err) for one in found] == [(0, ""), (0, "")], found
        return [one.out for one in found]

    here, there = (json.loads(text) for text in told("replay", "digest"))
    assert here == there
    assert sorted(here) == sorted(spec.name for spec in SPECS)

    def seen(text: str) -> list[tuple[str, str, str]]:
        lines = [json.loads(line) for line in text.splitlines()]
        return [
            (json.dumps(one["key"]), one["type"], json.dumps(one["value"])) for one in lines if "key" in one
        ]

    for args in (
        ("topic", "read", RAW),
        ("topic", "read", RAW, "--from-bucket", str(START_MS + 4 * MINUTE_MS)),
        ("topic", "read", RAW, "--partition", "1", "--limit", "3"),
        ("state", "world.state", "--tombstones"),
        ("state", RAW, "--key", "ETH"),
        ("state", RAW, "--until-time", "2100-01-01T00:00:00Z"),
    ):
        here, there = (seen(text) for text in told(*args))
        assert here == there != [], args
    assert [seen(text) for text in told("state", RAW, "--until-time", "0")] == [[], []]

    here, there = (json.loads(text) for text in told("topic", "describe", RAW))
    assert [one["last_marker"] for one in here["partitions"]] == [
        one["last_marker"] for one in there["partitions"]
    ]
    assert here["configuration"] == there["configuration"]
    listed = [
        {one["topic"]: one for one in map(json.loads, text.splitlines())} for text in told("topic", "list")
    ]
    assert listed[0].keys() == listed[1].keys()
    # One broker can give one replica, which is fewer than every topic is to have; an embedded log is the only copy of itself.
    assert {one["replicas"] for one in listed[0].values()} == {1}
    assert all(one["replicas_wanted"] > 1 for one in listed[0].values())
    assert {one["replicas"] for one in listed[1].values()} == {None}


@pytest.mark.parametrize("protocol", GROUP_PROTOCOLS)
def test_workers_are_listed_by_their_slots_in_groups_of_either_protocol(
    capsys: pytest.CaptureFixture[str], kafka_bootstrap: str, protocol: GroupProtocol
) -> None:
    address = f"kafka://{kafka_bootstrap}/cli-{uuid.uuid4().hex[:12]}"
    log = open_log(address, settings=KafkaSettings(group_protocol=protocol))
    log.ensure_topics(CATALOGUE)
    member = log.membership("qmtl.worldservice", "qmtl.worldservice.7", "world.commands")
    until(lambda: bool(member.poll(0.05)))
    tasks = {str(number) for number in member.poll()}
    ran = call(capsys, "worker", "list", "--json", "--log", address)
    (mine,) = [one for one in ran.lines() if one["processor"] == "worldservice"]
    assert (mine["slot"], mine["state"], set(mine["tasks"])) == ("7", "running", tasks)
    member.close()
    log.close()
