"""A worker as a process of its own on a real Kafka: what it shows, what the command line shows, and what a plain client sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.keys import is_marker, is_reserved, is_stamp
from qmtl.foundation.wire.registry import codec
from tests.contract.driving import until
from tests.interfaces.cli.running import call, start
from tests.interfaces.metrics.scraping import Scrape, ask
from tests.replay.logs import MINUTE_MS, START_MS, activate, commit, create, ticks

CLOCK = TopicPartition("clock", 0)
COMMANDS = TopicPartition("world.commands", 0)
STATE = TopicPartition("world.state", 0)
GROUP = "qmtl.worldservice"
TASK: Mapping[str, str | int] = {"processor": "worldservice", "task": 0}


class Plain:
    """A client that knows nothing of QMTL."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._bootstrap = bootstrap
        self._namespace = namespace

    def _ask(self, isolation: str, where: TopicPartition) -> tuple[int, int, int]:
        settings = {
            "bootstrap.servers": self._bootstrap,
            "group.id": f"{self._namespace}.{GROUP}",
            "isolation.level": isolation,
        }
        consumer = Consumer(settings)
        place = KafkaPartition(f"{self._namespace}.{where.topic}", where.partition)
        begin, end = consumer.get_watermark_offsets(place, timeout=20, cached=False)
        (committed,) = consumer.committed([place], timeout=20)
        consumer.close()
        return begin, end, committed.offset

    def position(self, where: TopicPartition) -> int:
        return self._ask("read_committed", where)[2]

    def stable(self, where: TopicPartition) -> int:
        return self._ask("read_committed", where)[1]

    def high_watermark(self, where: TopicPartition) -> int:
        return self._ask("read_uncommitted", where)[1]

    @contextmanager
    def open_transaction(self, where: TopicPartition) -> Iterator[None]:
        """A transaction that stays open on a partition, and is aborted at the end."""
        producer = Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": f"{self._namespace}.outsider",
                "transaction.timeout.ms": 60_000,
            }
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(f"{self._namespace}.{where.topic}", b"open", b"outsider", where.partition)
        producer.flush(20)
        try:
            yield
        finally:
            producer.abort_transaction(20)


class Running:
    """A worker's process and where it serves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said.startswith("metrics on http://127.0.0.1:"), said
        self.url = said.split()[2].removesuffix("/metrics,")

    def status(self) -> int:
        return ask(f"{self.url}/healthz").status

    def reasons(self) -> list[str]:
        reasons: list[str] = ask(f"{self.url}/healthz").json()["reasons"]
        return reasons

    def scrape(self) -> Scrape:
        return Scrape(self.url)


@pytest.fixture
def place(kafka_bootstrap: str) -> Iterator[tuple[Log, str, Plain]]:
    """A log in a name space of its own, whose topics go at the end, its address, and a plain client on it."""
    namespace = f"metrics-{uuid.uuid4().hex[:12]}"
    address = f"kafka://{kafka_bootstrap}/{namespace}"
    log = open_log(address)
    prepare(log)
    yield log, address, Plain(kafka_bootstrap, namespace)
    names = [f"{namespace}.{name}" for name in log.topics()]
    log.close()
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for done in admin.delete_topics(names).values():
        done.result()


@contextmanager
def worker(directory: Path, address: str, slot: str) -> Iterator[Running]:
    """`qmtl worker run worldservice`, killed at the end if it still runs."""
    process = start(
        directory,
        *("worker", "run", "worldservice", "--log", address, "--slot", slot, "--config-epoch", "7"),
        *("--state-dir", str(directory / slot), "--metrics-port", "0"),
        PYTHONPATH=os.environ.get("PYTHONPATH", str(Path.cwd())),
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


def lag_rows(capsys: pytest.CaptureFixture[str], address: str) -> tuple[dict[str, dict[str, Any]], str]:
    ran = call(capsys, "lag", "--json", "--group", "worldservice", "--log", address)
    assert ran.code == 0, ran
    return {one["topic"]: one for one in ran.lines()}, ran.err


def slots(capsys: pytest.CaptureFixture[str], address: str) -> dict[str | None, dict[str, Any]]:
    ran = call(capsys, "worker", "list", "--json", "--log", address)
    assert (ran.code, ran.err) == (0, ""), ran
    rows = [json.loads(line) for line in ran.out.splitlines()]
    others = [one for one in rows if one["processor"] != "worldservice"]
    assert all((one["slot"], one["state"], one["tasks"]) == (None, "empty", {}) for one in others)
    return {one["slot"]: one for one in rows if one["processor"] == "worldservice"}


def worlds(log: Log) -> set[bytes]:
    """The keys of the worlds' table."""
    return {one.key for one in read_all(log, [STATE]) if not is_reserved(one.key)}


def assert_counts(found: Scrape, log: Log) -> None:
    """Counts equal what is on the log."""
    commands = [
        one for one in read_all(log, all_partitions(log, "world.commands")) if not is_reserved(one.key)
    ]
    assert found.get("qmtl_records_processed_total", **TASK) == len(commands)
    state = [*read_all(log, all_partitions(log, "world.state"))]
    stamps = [one for one in state if is_stamp(one.key)]
    assert found.get("qmtl_transactions_total", **TASK, outcome="committed") == len(stamps)
    assert found.get("qmtl_transaction_duration_seconds_count", **TASK) == len(stamps)
    newest: PositionStamp = codec.decode(stamps[-1].value or b"")
    assert found.get("qmtl_task_watermark_timestamp_seconds", **TASK) == newest.buckets[-1] / 1000
    written = sum(
        1
        for name in ("world.state", "activation", "world.outcomes", "world.holds", "task.cuts")
        for _ in read_all(log, all_partitions(log, name))
    )
    assert found.get("qmtl_records_written_total", **TASK) == written
    markers = [one.value for one in state if is_marker(one.key) and one.value is not None]
    assert {codec.decode(value).config_epoch for value in markers} == {7}  # as the command line says
    assert found.get("qmtl_table_rows", **TASK, table=STATE.topic) == len(worlds(log)) > 0


def test_a_worker_on_kafka_shows_what_a_plain_client_sees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: tuple[Log, str, Plain]
) -> None:
    log, address, plain = place
    commit(log, [create("w1"), activate("w1", "s1"), *ticks(1, 3)])
    with worker_behind_an_open_transaction(tmp_path, address, plain) as running:
        until(lambda: running.status() == 200)
        until(lambda: running.scrape().total("qmtl_input_lag_offsets", **TASK) == 0)
        # Stores are measured every 15 seconds, and may have been in the middle of something.
        until(
            lambda: running.scrape().get("qmtl_table_rows", **TASK, table=STATE.topic) == len(worlds(log)), 60
        )
        assert_counts(running.scrape(), log)
        assert_offsets(running, capsys, address, plain)

        with plain.open_transaction(CLOCK):
            before = plain.high_watermark(CLOCK)
            commit(log, ticks(4, 6))
            # Three records and their marker, which comes after the writer is told of its commit.
            until(lambda: plain.high_watermark(CLOCK) == before + 4)
            found = running.scrape()
            rows, said = lag_rows(capsys, address)
            clock = {**TASK, "topic": "clock", "partition": 0}
            held = plain.high_watermark(CLOCK) - plain.stable(CLOCK)
            assert held >= 4
            assert found.get("qmtl_input_lag_stable_offsets", **clock) == 0
            assert found.get("qmtl_input_lag_offsets", **clock) == held
            assert rows["clock"]["open_transaction"] is True
            assert rows["world.commands"]["open_transaction"] is False
            assert "worldservice[0] waits behind an open transaction" in said
            assert "kafka-transactions.sh" in said
            assert_offsets(running, capsys, address, plain)
        until(
            lambda: (
                running.scrape().get("qmtl_task_watermark_timestamp_seconds", **TASK)
                == (START_MS + 6 * MINUTE_MS) / 1000
            )
        )

        assert slots(capsys, address)["1"]["tasks"].keys() == {"0"}
        with worker(
            tmp_path, address, "0"
        ) as other:  # comes first in the order of names, and so gets the task
            until(lambda: other.status() == 200)
            until(lambda: running.status() == 503)
            assert "owns no task" in running.reasons()[0]
            assert running.scrape().get("qmtl_worker_tasks", processor="worldservice") == 0
            found_slots = slots(capsys, address)
            positions = {
                "clock[0]": plain.position(CLOCK),
                "dag.context[0]": 0,
                "world.commands[0]": plain.position(COMMANDS),
            }
            assert {slot: one["tasks"] for slot, one in found_slots.items()} == {
                "0": {"0": positions},
                "1": {},
            }
            assert {one["state"] for one in found_slots.values()} == {"running"}
            for one in (running, other):
                one.process.send_signal(signal.SIGTERM)
            for one in (running, other):
                _, err = one.process.communicate(timeout=120)
                assert (one.process.returncode, "drained" in err) == (0, True), err


@contextmanager
def worker_behind_an_open_transaction(directory: Path, address: str, plain: Plain) -> Iterator[Running]:
    """A worker that had to wait with its restore for a transaction that is open on its table."""
    with plain.open_transaction(STATE):
        manager = worker(directory, address, "1")
        running = manager.__enter__()
        until(
            lambda: any(
                "makes no progress" in one and "a transaction is open from offset" in one
                for one in running.reasons()
            )
        )
        stands = running.scrape().get("qmtl_restore_stalled_seconds", **TASK, cause="open_transaction")
        assert stands is not None
        assert stands > 0
        assert running.scrape().get("qmtl_restore_target_offsets", **TASK) == 1
        assert running.status() == 503
        assert running.scrape().get("qmtl_task_phase", **TASK, phase="restoring") == 1
        first = running.scrape().get("qmtl_restore_running_seconds", **TASK)
        assert first is not None
        until(lambda: (running.scrape().get("qmtl_restore_running_seconds", **TASK) or 0) > first)
    try:
        yield running
    finally:
        manager.__exit__(None, None, None)


def assert_offsets(running: Running, capsys: pytest.CaptureFixture[str], address: str, plain: Plain) -> None:
    """The metrics and the command line say the offsets that the plain client sees."""
    found = running.scrape()
    rows, _ = lag_rows(capsys, address)
    for where in (CLOCK, COMMANDS):
        labels = {**TASK, "topic": where.topic, "partition": where.partition}
        position, stable, high = plain.position(where), plain.stable(where), plain.high_watermark(where)
        assert found.get("qmtl_input_position", **labels) == position
        assert found.get("qmtl_input_stable_offset", **labels) == stable
        assert found.get("qmtl_input_high_watermark", **labels) == high
        row = rows[where.topic]
        assert (row["position"], row["stable"], row["high_watermark"]) == (position, stable, high)
        assert (row["lag"], row["lag_stable"]) == (high - position, stable - position)
        assert row["records"] == 0
        # No record waits that can be read: a task that runs is past what lies there, its group's position before it.
        assert (
            found.get("qmtl_input_lag_offsets", **labels) == row["lag"] - row["lag_stable"] == high - stable
        )
        assert found.get("qmtl_input_lag_stable_offsets", **labels) == 0
        assert found.get("qmtl_input_lag_buckets", **labels) == row["lag_buckets"]
        assert found.get("qmtl_input_lag_seconds", **labels) == row["lag_seconds"]
    clock = rows["clock"]
    assert (clock["lag_buckets"], clock["lag_seconds"]) == (0, 0)
