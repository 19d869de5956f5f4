"""Node workers on an embedded log, with the DAG Manager in front of them and bars that the test makes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from qmtl.bootstrap import make_workers, prepare
from qmtl.engine.cut import CutDigest
from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.embedded_writer import EmbeddedWriter
from qmtl.engine.log.port import Record, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.context import THE_CONTEXT, SetComputeContext
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagCommand, StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS, node_topic, topic
from qmtl.interfaces.client import submission_id
from qmtl.replay.feed import Feed
from qmtl.services.dagmanager.context import in_log
from tests.services.graphs import T0, submission

STEP_MS = 60_000
DESK = ("dagmanager", "topicadmin")

Closes = Mapping[str, Sequence[float | None]]
"""Per symbol one close per minute; None where there is no bar."""


def bars_of(closes: Closes, start_ms: int = T0) -> list[Bar]:
    """The bars, by open time and symbol."""
    out = []
    for symbol, values in closes.items():
        for at, value in enumerate(values):
            if value is not None:
                price = Decimal(repr(value))
                out.append(Bar(symbol, start_ms + at * STEP_MS, 60, price, price, price, price, Decimal(1)))
    return sorted(out, key=lambda bar: (bar.open_time_ms, bar.symbol))


class LateReader(EmbeddedReader):
    """Brings the records of some topics only at a later poll, as the fetches of a broker's client may."""

    def __init__(self, log: LateLog) -> None:
        super().__init__(log)
        self._late = log
        self._asked: Collection[TopicPartition] = ()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._asked = partitions

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        late = self._late.late if self._late.polls > 0 else ()
        self._late.polls -= 1
        held = [where for where in self.positions() if where.topic in late]
        super().pause([*self._asked, *held])
        return super().poll(max_records, timeout_s)


class LateLog(EmbeddedLog):
    """A log whose readers hold the topics in `late` back for so many polls."""

    late: Collection[str] = ()
    polls = 0

    def reader(self) -> LateReader:
        return LateReader(self)


class ForgetfulReader(EmbeddedReader):
    """Lacks a bucket of a topic, as a reader does that comes after its records were deleted."""

    def __init__(self, log: ForgetfulLog) -> None:
        super().__init__(log)
        self._forgets = log

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        found = super().poll(max_records, timeout_s)
        if all(where.topic != self._forgets.who_reads for where in self.positions()):
            return found
        return [one for one in found if not self._forgets.lacks(one)]


class ForgetfulLog(EmbeddedLog):
    """A log that has lost a bucket of a raw topic for those who read another topic."""

    who_reads = ""
    lost: tuple[str, int] = ("", 0)

    def lacks(self, record: Record) -> bool:
        if record.topic != self.lost[0] or record.value is None:
            return False
        if is_marker(record.key):
            return decode_marker_bucket(record.key) == self.lost[1]
        bar: Bar = codec.decode(record.value)
        return bar.open_time_ms + STEP_MS == self.lost[1]

    def reader(self) -> ForgetfulReader:
        return ForgetfulReader(self)


class StammeringWriter(EmbeddedWriter):
    """Says what another node says twice, and counts it so: as one does who writes a topic of records anew from two copies."""

    def __init__(self, log: StammeringLog, *of: Any) -> None:
        super().__init__(log, *of)
        self._stammers = log
        self._cut = CutDigest()

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        if topic == self._stammers.says_twice and value is not None:
            said = codec.decode(value)
            if is_marker(key):
                value = codec.encode(replace(said, count=self._cut.count, digest=self._cut.hexdigest()))
                self._cut = CutDigest()
            else:
                self._cut.add(key, value)
                super().append(topic, partition, key, value, track=track)
                value = codec.encode(self._stammers.again(said))
                self._cut.add(key, value)
        super().append(topic, partition, key, value, track=track)


class StammeringLog(EmbeddedLog):
    """A log in which the records of one topic are there twice, the second time changed as a test has it."""

    says_twice = ""
    again: Callable[[NodeValue], NodeValue] = staticmethod(lambda said: said)

    def writer(self, transactional_id: str) -> StammeringWriter:
        super().writer(transactional_id)  # counts the epoch
        return StammeringWriter(self, transactional_id, self.epochs[transactional_id])


class Floor:
    """Where nodes run. The node workers can be stopped and started; some DAG Manager always runs."""

    def __init__(
        self, directory: Path, poll_records: int = 4000, log: Callable[[Path], EmbeddedLog] = EmbeddedLog
    ) -> None:
        self._directory = directory
        self._settings = TaskSettings(directory / "tasks", poll_records)
        self.log = log(directory / "log")
        prepare(self.log)
        self._desk = make_workers(self.log, TaskSettings(directory / "tasks"), DESK)
        self._nodes: list[Worker] = []
        self.start()

    def start(self) -> None:
        self._nodes = make_workers(self.log, self._settings, ["nodes"])

    def stop(self, *, lose_store: bool = False) -> None:
        for worker in self._nodes:
            worker.close()
        self._nodes = []
        if lose_store:
            for shard in range(SHARDS):
                if (
                    store := self._directory / "tasks" / f"nodes-{shard}"
                ).exists():  # else nothing was done yet
                    shutil.rmtree(store)

    def restart_desk(self) -> None:
        """Another process takes over from the DAG Manager, with what code there is now."""
        for worker in self._desk:
            worker.close()
        self._desk = make_workers(self.log, TaskSettings(self._directory / "tasks"), DESK)

    def work(self, steps: int = 1_000_000) -> None:
        """Let everybody work until nobody has anything to do, or for so many rounds."""
        for _ in range(steps):
            busy = [worker.step() for worker in (*self._desk, *self._nodes)]  # all of them, then the question
            if not any(busy):
                return

    def deploy(
        self, message: dict[str, Any], world_id: str = "w1", weight_bp: int = FULL_WEIGHT
    ) -> StrategyVersion:
        """Publish a strategy in the log's context, or the first one live, and wait until the DAG Manager has its topics."""
        sent = submission(message, world_id)
        name = submission_id(world_id, sent.dag_json, weight_bp)
        sent = in_log(self.view("dag.context").get(THE_CONTEXT), replace(sent, submission_id=name))
        self.send("dag.submissions", replace(sent, weight_bp=weight_bp))
        self.work()
        found: StrategyVersion = self.view("dag.strategies").get(world_id, message["strategy_id"])
        return found

    def share(self) -> None:
        """Let strategies of all worlds share what is computed."""
        self.command(SetComputeContext("share", "", "live", 0, shared_worlds=True))

    def command(self, command: DagCommand) -> None:
        """Have the DAG Manager decide on a command, and its row on the log; the node workers have not seen it yet."""
        self.send("dag.commands", command)
        busy = [True]
        while any(busy):
            busy = [worker.step() for worker in self._desk]
        assert self.view("dag.outcomes").get(command.command_id).accepted

    def send(self, name: str, message: Any) -> None:
        """Write a message as somebody outside."""
        spec = topic(name)
        writer = self.log.writer("test")
        writer.begin()
        writer.append(spec.name, 0, encode_key(spec.key_of(message)), codec.encode(message))
        writer.commit({}, "test", None)
        writer.close()

    def feed(self, deployed: StrategyVersion, closes: Closes, minutes: int | None = None) -> None:
        """Write closes into the strategy's source, from where it ends; `minutes` where the bars end earlier."""
        self.feed_bars(deployed, bars_of(closes), minutes or max(len(values) for values in closes.values()))

    def feed_bars(self, deployed: StrategyVersion, bars: Sequence[Bar], minutes: int) -> None:
        source = deployed.nodes[0]
        raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
        feed = Feed(self.log, codec, raw, 60, iter(bars), T0, T0 + minutes * STEP_MS)
        while not feed.done:
            feed.push(50)
        feed.close()

    def events(self, name: str) -> list[Any]:
        """The messages of a topic in the order of the log, markers left out."""
        records = read_all(self.log, all_partitions(self.log, name))
        return [
            codec.decode(one.value) for one in records if one.value is not None and not is_reserved(one.key)
        ]

    def outputs(self, deployed: StrategyVersion, name: str) -> list[Any]:
        """What a node of a strategy has emitted, by its name."""
        (found,) = [node.topic for node in deployed.nodes if node.name == name]
        return self.events(found)

    def view(self, name: str) -> TableView:
        return TableView(self.log, name, codec).refresh()

    def close(self) -> None:
        self.stop()
        for worker in self._desk:
            worker.close()
        self.log.close()
