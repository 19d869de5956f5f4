"""Runs a task again from the first record, by the interleaving that it wrote down, and compares every output byte by byte.

Verification (`verify`) folds the tables from their own topics; this goes one step further back and computes them anew from
the inputs, as another machine would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Positions, Record, TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.transaction import CUTS
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import CannotReplay
from qmtl.foundation.contracts.control import CloseMarker, PositionStamp, TaskCut
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_marker, is_reserved, is_stamp, stamp_key
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.replay.recorded import RecordedLog
from qmtl.replay.span import known_topics

_ALL_AT_ONCE: Final = 1 << 60

Progress = Callable[[str, int, int], None]
"""Called with the task, the steps done, and how many there are."""


@dataclass(frozen=True, slots=True)
class OutputReport:
    """One output of a task.

    Attributes:
        records: that the second run wrote.
        difference: the first thing that is not the same; empty where all is.
    """

    topic: str
    records: int
    difference: str = ""


@dataclass(frozen=True, slots=True)
class RerunReport:
    """One task that was run again.

    Attributes:
        steps: how many cuts it took.
    """

    processor: str
    task: int
    steps: int
    outputs: tuple[OutputReport, ...]

    @property
    def differences(self) -> list[OutputReport]:
        return [one for one in self.outputs if one.difference]


def rerun(
    log: Log,
    codec: Codec,
    make: Callable[[], Processor],
    number: int,
    scratch: Path,
    progress: Progress | None = None,
) -> RerunReport:
    """Run one task again from the beginning of its inputs.

    Args:
        number: of the task.
        scratch: an empty directory.

    Raises:
        CannotReplay: the log no longer holds the beginning, or the task has nothing to be compared by.
        UnknownTopic: the log has no topics of this processor.
    """
    processor = make()
    label = f"{processor.name}[{number}]"
    written = _ends(log)  # before the cuts are read: what is written by then is to be written again
    cuts = _cuts(log, codec, processor.name, number)
    if not cuts:
        last = _last_stamp(log, codec, processor, number)
        if last is None:
            raise CannotReplay(
                f"{label} has written neither a cut nor a table yet.",
                "Let it work first; an effect has none.",
            )
        cuts = [{TopicPartition(one.topic, one.partition): one.offset for one in last.positions}]
    _must_be_whole(log, label, cuts)
    own = EmbeddedLog(scratch / "log")
    try:
        there = {**known_topics(log, codec), **processor.topics()}
        own.ensure_topics([spec for _, spec in sorted(there.items())])
        recorded = RecordedLog(log, own, processor.tables)
        task = Task(
            recorded, processor, number, codec, TaskSettings(scratch / "tasks", _ALL_AT_ONCE), recorded=True
        )
        writer = own.writer("qmtl.rerun")
        try:
            task.open()
            for done, cut in enumerate(cuts):
                recorded.cut.update(cut)
                task.step(writer, None, 0.0)
                if progress is not None:
                    progress(label, done + 1, len(cuts))
            outputs = [
                _compare(log, own, codec, spec, where, task.positions, written.get(where, 0))
                for spec, where in _outputs(own, processor, number)
            ]
        finally:
            task.close()
            writer.close()
    finally:
        own.close()
    return RerunReport(processor.name, number, len(cuts), tuple(outputs))


def _ends(log: Log) -> Positions:
    """How far readers of committed records can come now, in every partition."""
    return log.stable_offsets([where for name in log.topics() for where in all_partitions(log, name)])


def _cuts(log: Log, codec: Codec, processor: str, number: int) -> list[Positions]:
    key = stamp_key(processor, number)
    out: list[Positions] = []
    for record in read_all(log, all_partitions(log, CUTS)):
        if record.key == key and record.value is not None:
            cut: TaskCut = codec.decode(record.value)
            out.append({TopicPartition(one.topic, one.partition): one.offset for one in cut.positions})
    return out


def _last_stamp(log: Log, codec: Codec, processor: Processor, number: int) -> PositionStamp | None:
    found: PositionStamp | None = None
    for name in processor.tables[:1]:
        for record in read_all(log, [TopicPartition(name, number)]):
            if is_stamp(record.key) and record.value is not None:
                found = codec.decode(record.value)
    return found


def _must_be_whole(log: Log, label: str, cuts: Sequence[Positions]) -> None:
    reached: dict[TopicPartition, int] = {}
    for cut in cuts:
        reached.update(cut)
    ends = log.stable_offsets(sorted(reached))
    for where, end in sorted(ends.items()):
        if end < reached[where]:
            raise CannotReplay(
                f"{label} has read {where.topic}[{where.partition}] up to {reached[where]}; it ends at {end}.",
                "The topic was truncated or made anew: what was computed from it can't be computed again.",
            )
    wheres = sorted({*reached, *all_partitions(log, CUTS)})
    for where, begin in sorted(log.begin_offsets(wheres).items()):
        if begin > 0:
            raise CannotReplay(
                f"{label}: {where.topic}[{where.partition}] begins at offset {begin}; its first records are gone.",
                "Verify the tables instead (`qmtl replay verify`), or keep the topics longer.",
            )


def _outputs(own: Log, processor: Processor, number: int) -> Iterator[tuple[TopicSpec, TopicPartition]]:
    """Where the task alone writes: its tables, and the topics that it emits to."""
    specs: Mapping[str, TopicSpec] = processor.topics()
    closes = [spec.name for spec in processor.closes()]
    for name in sorted({*processor.tables, *processor.emits, *closes}):
        spec = specs.get(name) or topic(name)
        if spec.by_writer or name in processor.tables:
            yield spec, TopicPartition(name, number)
        else:
            yield from ((spec, where) for where in all_partitions(own, name))


def _compare(
    log: Log,
    own: Log,
    codec: Codec,
    spec: TopicSpec,
    where: TopicPartition,
    positions: Positions,
    written: int,
) -> OutputReport:
    again = [record for record in read_all(own, [where]) if not is_stamp(record.key)]
    before = list(read_all(log, [where]))
    label = f"{where.topic}[{where.partition}]"
    if not spec.compacted:
        live = [record for record in before if not is_stamp(record.key)]
        return OutputReport(label, len(again), _first_difference(again, live, written, codec))
    return OutputReport(label, len(again), _table_difference(again, _until(before, codec, positions)))


def _until(records: Sequence[Record], codec: Codec, positions: Positions) -> list[Record]:
    """The records up to the transaction that had read just this far; all of them where compaction took its stamp."""
    for index, record in enumerate(records):
        if is_stamp(record.key) and record.value is not None:
            stamp: PositionStamp = codec.decode(record.value)
            if {TopicPartition(one.topic, one.partition): one.offset for one in stamp.positions} == positions:
                return list(records[: index + 1])
    return list(records)


def _first_difference(again: Sequence[Record], live: Sequence[Record], written: int, codec: Codec) -> str:
    """A topic of events: the second run's records are the first ones of the live topic, whose task may have gone on.

    Args:
        written: the end of the live topic before the cuts were read; everything before it has to come again.
    """
    for number, (made, kept) in enumerate(zip(again, live, strict=False)):
        if (made.key, made.value) != (kept.key, kept.value) and not _same_marker(made, kept, codec):
            return f"record {number}, at offset {kept.offset}, is another one: key {kept.key!r}, now {made.key!r}"
    wanted = sum(record.offset < written for record in live)
    if not wanted <= len(again) <= len(live):
        return f"the second run wrote {len(again)} records, the log holds {len(live)}"
    return ""


def _same_marker(made: Record, kept: Record, codec: Codec) -> bool:
    """Whether two markers close the same; the configuration under which a task ran is an operator's word, and no result."""
    if made.key != kept.key or not is_marker(made.key) or made.value is None or kept.value is None:
        return False
    one, other = codec.decode(made.value), codec.decode(kept.value)
    return (
        isinstance(one, CloseMarker)
        and isinstance(other, CloseMarker)
        and replace(one, config_epoch=other.config_epoch) == other
    )


def _table_difference(again: Sequence[Record], live: Sequence[Record]) -> str:
    made, kept = _newest(again), _newest(live)
    for key in sorted({*made, *kept}):
        if made.get(key) != kept.get(key):
            return f"the row of key {key!r} is {kept.get(key)!r} on the log, now {made.get(key)!r}"
    return ""


def _newest(records: Sequence[Record]) -> dict[bytes, bytes]:
    out: dict[bytes, bytes] = {}
    for record in records:
        if is_reserved(record.key):
            continue
        if record.value is None:
            out.pop(record.key, None)
        else:
            out[record.key] = record.value
    return out
