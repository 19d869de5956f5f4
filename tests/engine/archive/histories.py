"""Topics with everything that a topic may hold: any bytes, tombstones, markers, gaps of aborted transactions, what compaction left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypothesis import strategies as st

from qmtl.engine.archive.container import Limits
from qmtl.engine.archive.manifest import ArchiveManifest
from qmtl.engine.archive.port import ObjectStore, Progress, silent
from qmtl.engine.archive.writing import USUAL, archive_topic
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Record, TopicPartition, partitions_of
from qmtl.engine.simulate.explore import MEMORY
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.partition import Share, State
from qmtl.foundation.wire.keys import marker_key, stamp_key
from qmtl.foundation.wire.topics import DAY_MS, Cleanup, TopicSpec

TOPIC: Final = "toys.archived"
PARTITIONS: Final = 3
SPEC: Final = TopicSpec(TOPIC, (), (), (), Cleanup.COMPACT, "people", partitions=PARTITIONS)
BESIDE: Final = TopicSpec("toys.beside", (), (), (), Cleanup.DELETE, "people")
PLACE: Final = str(MEMORY) if MEMORY.is_dir() else None

Row = tuple[int, bytes, bytes | None]
"""Partition, key, value."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one transaction writes, and whether it commits."""

    rows: tuple[Row, ...]
    commits: bool = True


_KEYS: Final = st.one_of(
    st.sampled_from(
        [b"", b"a", b"b", b"\x00", b"\xff" * 3, marker_key("counter", 0, 60_000), stamp_key("counter", 0)]
    ),
    st.binary(max_size=12),
)
_VALUES: Final = st.one_of(
    st.none(), st.just(b""), st.binary(max_size=40), st.integers(0, 3000).map(lambda n: b"long" * n)
)
TRANSACTIONS: Final[st.SearchStrategy[list[Transaction]]] = st.lists(
    st.builds(
        Transaction,
        st.lists(st.tuples(st.integers(0, PARTITIONS - 1), _KEYS, _VALUES), min_size=1, max_size=12).map(
            tuple
        ),
        st.sampled_from([True, True, True, False]),
    ),
    max_size=6,
)
LIMITS: Final = st.builds(Limits, st.sampled_from([1, 60, 500, 9000, 8 << 20]), st.integers(1, 9))

SOME: Final = [
    Transaction(((0, b"a", b"1"), (0, b"b", None), (1, b"", b""), (0, b"a", b"2"))),
    Transaction(((0, b"a", b"lost"), (2, b"c", b"lost")), commits=False),
    Transaction(((0, b"c", b"3" * 500), (1, b"d", None), (0, b"a", b"4"), (0, b"e", b"5"))),
]
SMALL: Final = Limits(records=2)


def write(log: Log, transactions: Sequence[Transaction], topic: str = TOPIC) -> None:
    writer = log.writer("archived")
    for each in transactions:
        writer.begin()
        for partition, key, value in each.rows:
            writer.append(topic, partition, key, value)
        if each.commits:
            writer.commit({}, "archived", None)
        else:
            writer.abort()
    writer.close()


def write_plainly(log: SimulatedLog, partition: int, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
    """Write as others do, without a transaction: no marker follows, so that a record is the last of all."""
    there = log.cluster.partition(TopicPartition(TOPIC, partition))
    share = Share(there.end)
    share.state = State.COMMITTED
    for key, value in rows:
        there.append(share, key, value, log.cluster.clock.now_ms)
    there.settle()


def archived(
    log: Log, store: ObjectStore, limits: Limits = USUAL, progress: Progress = silent
) -> ArchiveManifest:
    """Archive the topic."""
    report = archive_topic(log, TOPIC, store, limits=limits, progress=progress)
    assert report.verified == report.records == report.manifest.records
    return report.manifest


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        self.now_ms += 7
        return self.now_ms


@contextmanager
def embedded(transactions: Sequence[Transaction] = (), *, compacted: bool = False) -> Iterator[EmbeddedLog]:
    """An embedded log with the topic."""
    with tempfile.TemporaryDirectory(dir=PLACE) as directory:
        clock = Clock()
        log = EmbeddedLog(Path(directory) / "log", clock_ms=clock)
        try:
            log.ensure_topics([SPEC, BESIDE])
            write(log, transactions)
            if compacted:
                clock.now_ms += 2 * DAY_MS
                log.clean()
            yield log
        finally:
            log.close()


def simulated(transactions: Sequence[Transaction] = (), *, compacted: bool = False) -> SimulatedLog:
    """A simulated log with the topic; an aborted transaction leaves a gap here, as on Kafka."""
    log = SimulatedLog()
    log.ensure_topics([SPEC, BESIDE])
    write(log, transactions)
    if compacted:
        compact(log)
    return log


def compact(log: SimulatedLog) -> None:
    log.cluster.clock.now_ms += 2 * DAY_MS
    for where in partitions_of(TOPIC, PARTITIONS):
        log.cluster.compact(where, log.cluster.partition(where).end)


def remake(log: SimulatedLog) -> None:
    """Delete the topic and make it again, empty."""
    del log.cluster.topics[TOPIC]
    log.ensure_topics([SPEC])


def on_the_log(log: EmbeddedLog | SimulatedLog) -> list[Record]:
    """What the log itself holds of the topic, asked of it and of no reader."""
    if isinstance(log, EmbeddedLog):
        return [one for where in partitions_of(TOPIC, PARTITIONS) for one in log.read(where, 0)]
    return [
        one
        for where in partitions_of(TOPIC, PARTITIONS)
        for one in log.cluster.partition(where).read(0, 1 << 30)[0]
    ]
