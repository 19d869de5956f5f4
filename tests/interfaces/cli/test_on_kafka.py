"""On a real Kafka the same verbs say the same: digests equal those of an embedded log with the same contents, positions are its own."""

from __future__ import annotations

import json
import signal
import uuid
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from qmtl.bootstrap import open_log
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import Log
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.control import InputPosition, PositionStamp
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.wire.keys import encode_key, stamp_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, DAY_MS
from qmtl.services.dagmanager.naming import namespace_of
from qmtl.testing.broker import free_ports
from qmtl.topology import PROTOTYPES
from tests.contract.driving import until
from tests.interfaces.cli.running import assert_one_screen, call
from tests.interfaces.cli.test_dagmanager_server import said, server
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
from tests.services.graphs import crossing, strategy, submission, text

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


VERBS = (
    ("service", "dagmanager", "diff", "--file", "dag.json"),
    ("service", "dagmanager", "ping"),
    ("service", "dagmanager", "sentinels"),
    ("service", "dagmanager", "queue-stats"),
    ("service", "dagmanager", "gc"),
    ("dag", "publish", "dag.json", "--world", "w1"),
    ("dag", "list"),
    ("dag", "show", "--file", "dag.json"),
    ("strategy", "publish", "dag.json", "--world", "w1"),
    ("strategy", "run", "dag.json", "--world", "w1"),
)


def test_an_address_that_nobody_has_begun_gets_no_topic_by_a_question_or_a_command(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kafka_bootstrap: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dag.json").write_bytes(text(strategy(crossing())))
    name = f"typo-{uuid.uuid4().hex[:12]}"
    for verb in VERBS:
        ran = call(capsys, *verb, "--log", f"kafka://{kafka_bootstrap}/{name}")
        assert_one_screen(ran, "QMTL-328", 3, says=["0 are there", "qmtl service dagmanager init"])
    log = open_log(f"kafka://{kafka_bootstrap}/{name}")
    assert log.topics() == []
    log.close()


def test_the_sample_with_its_lines_uncommented_serves_a_cluster_of_which_the_first_address_is_dead(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kafka_bootstrap: str,
) -> None:
    """From the file that is installed to topics that are made, a diff, and what is told of the topics; ended by SIGTERM."""
    monkeypatch.chdir(tmp_path)
    (dead,) = free_ports(1)
    name = f"sample-{uuid.uuid4().hex[:12]}"
    servers = f"127.0.0.1:{dead},{kafka_bootstrap}"
    monkeypatch.setenv("QMTL_LOG", f"kafka://{servers}/{name}")
    assert call(capsys, "project", "init").code == 0
    sample = Path("qmtl.yml").read_text(encoding="utf-8")
    for line, value in (
        ("kafka_dsn: localhost:9092", f"kafka_dsn: {servers}"),
        ("namespace: staging", f"namespace: {name}"),
        ("state_dir: .qmtl/dagmanager", "state_dir: .qmtl/dagmanager"),
        ('slot: "0"', 'slot: "7"'),
        ("metrics_port: 9464", "metrics_port: 0"),
        ("metrics_host: 127.0.0.1", "metrics_host: 127.0.0.1"),
        ("keep_days: 30", "keep_days: 60"),
    ):
        assert sample.count(f"  # {line}\n") == 1
        sample = sample.replace(f"  # {line}\n", f"  {value}\n")
    Path("qmtl.yml").write_text(sample, encoding="utf-8")
    Path("dag.json").write_bytes(text(strategy(crossing())))
    service = ("service", "dagmanager")

    with server(tmp_path, "--config", "qmtl.yml") as process:
        said(process, f"worker topicadmin slot 7 runs on kafka://{servers}/{name}")
        until(lambda: call(capsys, *service, "ping").code == 0)
        assert call(capsys, *service, "ping", "--json").lines()[0]["slot"] == "7"
        shown = call(capsys, *service, "diff", "--file", "dag.json")
        assert (shown.code, "5 of 5 nodes get a new topic" in shown.out) == (0, True)

        log = open_log(f"kafka://{kafka_bootstrap}/{name}")
        commit(
            log, [row("world.state", world("w1")), row("dag.submissions", submission(strategy(crossing())))]
        )
        queues = TableView(log, "dag.queues", codec)
        until(lambda: [one.ready for one in queues.refresh().rows()] == [True] * 5)
        (source,) = [one.topic for one in queues.rows() if one.topic_class is TopicClass.RAW]
        values = [bar(symbol, 0) for symbol in ("BTC-USD", "ETH-USD")]
        commit(log, [(source, 0, encode_key((one.symbol,)), codec.encode(one)) for one in values])
        wheres = all_partitions(log, source)
        until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
        told = call(capsys, *service, "diff", "--file", "dag.json", "--json").lines()[0]
        assert (told["world_id"], {one["origin"] for one in told["nodes"]}) == ("w1", {"reused"})

        stats = {one["topic"]: one for one in call(capsys, *service, "queue-stats", "--json").lines()}
        assert set(stats) == {one.topic for one in queues.rows()}
        found = stats[source]
        assert found["lag"] is None  # nobody has read it
        (nodes,) = [one for one in PROTOTYPES if one.name == "nodes"]
        read = PositionStamp("nodes", 0, (InputPosition(source, 0, 1),))
        commit(log, [(nodes.tables[0], 0, stamp_key("nodes", 0), codec.encode(read))])
        until(
            lambda: (
                call(capsys, *service, "queue-stats", "--tag", "raw", "--json").lines()[0]["lag"] is not None
            )
        )
        (behind,) = call(capsys, *service, "queue-stats", "--tag", "raw", "--json").lines()
        assert behind["lag"] == found["end"] - 1
        assert {(one["replicas"], one["replicas_wanted"] > 1) for one in stats.values()} == {(1, True)}
        assert (found["records"], found["state"]) == (2, "ready")
        size = sum(len(one.key) + len(one.value or b"") for one in read_all(log, wheres))
        assert (found["bytes"], found["end"] - found["begin"]) == (
            size,
            sum(log.end_offsets(wheres).values()),
        )
        page = call(capsys, *service, "queue-stats", "--tag", "raw").out
        assert " 1! " in page
        pace = TableView(log, "dag.pace", codec).refresh()
        assert any(getattr(one, "keep_ms", 0) == 60 * DAY_MS for one in pace.rows())
        log.close()

        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert Path(".qmtl/dagmanager/tasks").is_dir()
