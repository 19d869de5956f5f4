"""How full the topics of nodes are: counted where they are small, estimated from their ends where not, and never read as a whole then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Record, partitions_of
from qmtl.engine.view import read_all
from qmtl.foundation.contracts.dag import Queue, TopicClass
from qmtl.interfaces import dag_queues
from qmtl.interfaces.dag_queues import SAMPLED, QueueStats, queue_stats
from tests.replay.logs import RAW, RAW_SPEC, commit, log_in, marker, row

QUEUE = Queue(RAW, "node", TopicClass.RAW, RAW_SPEC.partitions, 60, 0, 0, 0, ("crypto",), ready=True)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    with log_in(tmp_path) as made:
        commit(made, [row("dag.queues", QUEUE)])
        yield made


def fill(log: EmbeddedLog, counts: Sequence[int], sizes: Sequence[int]) -> int:
    """Records in each partition, of so many bytes each, a marker behind every twentieth; returns how many bytes they have in all."""
    for start in range(0, max(counts), 500):
        commit(
            log,
            [
                made
                for partition, (count, size) in enumerate(zip(counts, sizes, strict=True))
                for at in range(start, min(start + 500, count))
                for made in (
                    (RAW, partition, b"k%06d" % at, bytes(size - 7)),
                    *([marker(RAW, at * 60_000, partition)] if at % 20 == 19 else []),
                )
            ],
        )
    return sum(count * size for count, size in zip(counts, sizes, strict=True))


def stats(log: EmbeddedLog) -> QueueStats:
    (found,), count = queue_stats(log, (), None, None)
    assert count == 1
    return found


def test_a_small_topic_is_counted_to_the_byte(log: EmbeddedLog) -> None:
    size = fill(log, (300, 0, 10), (50, 1, 90))
    found = stats(log)
    assert (found.bytes, found.is_estimate, found.records) == (size, False, 310)


@pytest.mark.parametrize(
    "counts, sizes",
    [((2000, 0, 0), (50, 1, 1)), ((3000, 600, 0), (40, 400, 1)), ((400, 400, 400), (20, 60, 90))],
)
def test_of_a_larger_topic_the_size_is_estimated_and_said_to_be(
    log: EmbeddedLog, monkeypatch: pytest.MonkeyPatch, counts: Sequence[int], sizes: Sequence[int]
) -> None:
    read: list[Record] = []

    def watched(*args: object) -> Iterator[Record]:
        for record in read_all(*args):  # type: ignore[arg-type]  # as it is called
            read.append(record)
            yield record

    monkeypatch.setattr(dag_queues, "read_all", watched)
    size = fill(log, counts, sizes)
    found = stats(log)
    wheres = partitions_of(RAW, RAW_SPEC.partitions)
    begins, ends = log.begin_offsets(wheres), log.stable_offsets(wheres)
    assert (found.begin, found.end) == (sum(begins.values()), sum(ends.values()))
    assert (found.records, found.older, found.is_estimate) == (None, None, True)
    assert found.bytes == pytest.approx(size, rel=0.03)
    assert 0 < len(read) <= SAMPLED


def test_what_has_no_topic_has_no_size(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("dag.queues", Queue("n_a", "node", TopicClass.INDICATOR, 1, 60, 0, 0, 0))])
        found = stats(log)
    assert (found.begin, found.end, found.bytes, found.lag, found.is_estimate) == (
        None,
        None,
        None,
        None,
        False,
    )
