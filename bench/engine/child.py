"""One process of a run: `python -m bench.engine.child JSON` plays the role that the JSON names until it gets SIGTERM.

What it has to tell it prints as one JSON object per line.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.engine import hand
from bench.engine.groups import anchor
from bench.engine.sampling import Sampler
from bench.engine.work import CODEC, Names, Positions, Relay
from qmtl.bootstrap import open_log
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import Columns, Fence, Log, Reader, Record, TopicPartition, Writer
from qmtl.engine.log.port import Positions as Offsets
from qmtl.engine.processor import Arrival, Processor, Step
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.worker import Worker, collect_seldom, run

STARTED: Final = time.perf_counter()
BY_TIME_ALONE: Final = 1_000_000
"""Records per transaction, more than ever come in its time: the hand-written loop counts none either."""
MEMBER_WAITS_S: Final = 0.02


def settings(place: Path, commit_ms: float) -> TaskSettings:
    """How a task runs in the benchmark."""
    return TaskSettings(place, commit_records=BY_TIME_ALONE, commit_interval_ms=commit_ms)


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def until_stopped() -> Callable[[], bool]:
    """Says whether SIGTERM has come."""
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(True))
    return lambda: bool(stopped)


def work(make: Callable[[], Processor], log: Log, told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Run a processor with a worker until stopped."""
    worker = Worker(log, make, CODEC, settings(Path(told["place"]), told["commit_ms"]))
    collect_seldom()
    run([worker], stopped)
    worker.close()


def engine(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    names, log = Names(**told["names"]), open_log(told["log"])
    work(lambda: Positions(names), log, told, stopped)
    log.close()


def loop(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    place = Path(told["place"])
    place.mkdir(parents=True, exist_ok=True)
    collect_seldom()
    hand.run(told["bootstrap"], Names(**told["names"]), place, told["commit_ms"], stopped)


class TimedWriter:
    """A writer that notes when its commits were called for, and when they had returned."""

    def __init__(self, writer: Writer, commits: hand.Commits) -> None:
        self._writer, self._commits = writer, commits

    def commit(self, positions: Offsets, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        called = time.perf_counter_ns()
        found = self._writer.commit(positions, group, fence)
        self._commits.took(called)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class TimedLog:
    """A log whose writers note their commits."""

    def __init__(self, log: Log, commits: hand.Commits) -> None:
        self._log, self._commits = log, commits

    def writer(self, transactional_id: str) -> TimedWriter:
        return TimedWriter(self._log.writer(transactional_id), self._commits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def relay(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    commits = hand.Commits()
    log: Any = TimedLog(open_log(told["log"]), commits)

    class Noting(Relay):
        def on_record(self, step: Step, arrival: Arrival) -> None:
            commits.last = arrival.message.fills
            super().on_record(step, arrival)

    work(lambda: Noting(told["run"], told["source"], told["out"]), log, told, stopped)
    log.close()
    say(commits=commits.rows)


def relay_loop(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    group = f"qmtl.{told['run']}"
    collect_seldom()
    commits = hand.relay(
        told["bootstrap"],
        group,
        told["source"],
        told["out"],
        told["commit_ms"],
        stopped,
        eager=told["eager"],
    )
    say(commits=commits.rows)


def embedded(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Process the first `count` records of an embedded log; tells the seconds from the first step to the last commit."""
    names, log = Names(**told["names"]), open_log(told["log"])
    worker = Worker(log, lambda: Positions(names), CODEC, settings(Path(told["place"]), told["commit_ms"]))
    source = [TopicPartition(names.source, number) for number in range(names.partitions)]
    ends = log.end_offsets(source)
    collect_seldom()
    started = time.perf_counter()
    while not stopped() and not (worker.step() is False and _reached(log, names, ends)):
        pass
    seconds = time.perf_counter() - started
    worker.close()
    log.close()
    say(seconds=seconds, records_per_s=told["count"] / seconds)


def _reached(log: Log, names: Names, ends: Offsets) -> bool:
    """Whether everything is committed; the last offset of a partition is a transaction's marker."""
    done = log.committed(names.group, list(ends))
    return all(done.get(where, 0) >= ends[where] - 1 for where in ends)


def member(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Take part in a group, and tell of every change of the tasks when it was seen."""
    log = open_log(told["log"], settings=KafkaSettings(group_protocol=told["protocol"]))
    group = f"{told['run']}group"
    membership = log.membership(group, f"{group}.{told['slot']}", anchor(told["run"]).name)
    known: frozenset[int] = frozenset()
    while not stopped():
        tasks = membership.poll(MEMBER_WAITS_S)
        if tasks != known:
            known = tasks
            say(tasks=sorted(tasks), at=time.time())
    membership.close()
    log.close()


def restore(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Open a task on an empty directory, which reads its whole table; tells the seconds of it."""
    names, log = Names(**told["names"]), open_log(told["log"])
    collect_seldom()
    started = time.perf_counter()
    task = Task(log, Positions(names), 0, CODEC, settings(Path(told["place"]), 0.0))
    task.open()
    seconds = time.perf_counter() - started
    task.close()
    log.close()
    say(
        seconds=seconds,
        cpu_s=time.process_time(),
        peak_mb=peak_mb(),
    )


def peak_mb() -> float:
    """The largest resident set of this program so far; Linux tells it by itself, `getrusage` with that of whoever started it."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise LookupError("/proc/self/status has no line VmHWM")
    return int(found[1]) / 1024


def read(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Read and discard one partition with the client alone; tells the seconds from its making to the last record."""
    collect_seldom()
    started = time.perf_counter()
    consumer = Consumer(
        {
            "bootstrap.servers": told["bootstrap"],
            "group.id": "bench.read",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([KafkaPartition(told["topic"], 0, 0)])
    count, ended = 0, False
    while not ended:
        for message in consumer.consume(5000, 0.1):
            if message.error() is None:
                message.key(), message.value()
                count += 1
            else:
                ended = True
    seconds = time.perf_counter() - started
    consumer.close()
    say(seconds=seconds, cpu_s=time.process_time(), records=count)


class CountingReader:
    """A reader that counts what it delivers of one topic."""

    def __init__(self, reader: Reader, topic: str) -> None:
        self._reader, self._topic = reader, topic
        self.count = 0

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        found = self._reader.poll(max_records, timeout_s)
        self.count += sum(record.topic == self._topic for record in found)
        return found

    def poll_columns(self, max_records: int, timeout_s: float, ends: Offsets) -> list[Columns]:
        found = self._reader.poll_columns(max_records, timeout_s, ends)
        self.count += sum(len(one.keys) for one in found if one.where.topic == self._topic)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class CountingLog:
    """A log whose readers count what they deliver of one topic: how much of a table a restart reads."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self._readers: list[CountingReader] = []

    def reader(self) -> CountingReader:
        made = CountingReader(self._log.reader(), self._topic)
        self._readers.append(made)
        return made

    def counted(self) -> int:
        return sum(reader.count for reader in self._readers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def restart(told: dict[str, Any], stopped: Callable[[], bool]) -> None:
    """Run the engine, and tell when its first record was taken and how much of the table was read by then.

    The seconds count from after the imports, and contain joining the group.
    """
    names = Names(**told["names"])
    log: Any = CountingLog(open_log(told["log"]), names.table)

    class Telling(Positions):
        first = True

        def on_record(self, step: Any, arrival: Any) -> None:
            if self.first:
                self.first = False
                say(own_s=time.perf_counter() - STARTED, cpu_s=time.process_time(), read=log.counted())
            super().on_record(step, arrival)

    work(lambda: Telling(names), log, told, stopped)
    log.close()


ROLES: Final[dict[str, Callable[[dict[str, Any], Callable[[], bool]], None]]] = {
    "engine": engine,
    "loop": loop,
    "relay": relay,
    "relay_loop": relay_loop,
    "embedded": embedded,
    "restore": restore,
    "read": read,
    "restart": restart,
    "member": member,
}


def main(told: dict[str, Any]) -> None:
    stopped = until_stopped()
    sampler = Sampler() if told.get("sampled") else None
    if sampler is not None:
        sampler.start()
    ROLES[told["role"]](told, stopped)
    if sampler is not None:
        sampler.stop()
        say(sampled=dict(sampler.seconds))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
