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
from qmtl.engine.log.port import Log, Positions, Record, TopicPartition, Writer
from qmtl.engine.processor import Processor
from qmtl.engine.stamps import digest_of
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.transaction import CUTS
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import CannotReplay, InvalidValue, Quarantined, TooLarge, UnknownSchema
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, PositionStamp, TaskCut
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_marker, is_reserved, is_stamp, stamp_key
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.replay.intact import compacted_away, require_intact
from qmtl.replay.recorded import RecordedLog
from qmtl.replay.span import known_topics

LETTERS: Final = "dead.letters"
_BY_CHANCE: Final = frozenset({Quarantined.code, InvalidValue.code, TooLarge.code, UnknownSchema.code})
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
        CannotReplay: the log no longer holds all that the task has read, or the task has nothing to be compared by.
        UnknownTopic: the log has no topics of this processor.
    """
    processor = make()
    label = f"{processor.name}[{number}]"
    written = _ends(log)  # before the cuts are read: what is written by then is to be written again
    cuts = _cuts(log, codec, processor.name, number)
    last, lives = _stamped(log, codec, processor, number)
    stepwise = bool(cuts)
    if not cuts:
        if last is None:
            raise CannotReplay(
                f"{label} has written neither a cut nor a table yet.",
                "Let it work first; an effect has none.",
            )
        cuts = [{TopicPartition(one.topic, one.partition): one.offset for one in last.positions}]
    require_intact(log, label, cuts, lives)
    specs = {**known_topics(log, codec), **processor.topics()}
    reached = {where: offset for cut in cuts for where, offset in cut.items()}
    own = EmbeddedLog(scratch / "log")
    try:
        own.ensure_topics([spec for _, spec in sorted(specs.items())])
        recorded = RecordedLog(log, own, processor.tables)
        # What failed in a row was passed by the live run, which may have been started again in between.
        settings = TaskSettings(scratch / "tasks", _ALL_AT_ONCE, failures=_ALL_AT_ONCE)
        task = Task(recorded, processor, number, codec, settings, recorded=True)
        writer = own.writer("qmtl.rerun")
        try:
            for letter in _not_found_again(log, codec, processor.name, number):
                task.leave_out(letter)
            task.open()
            for done, cut in enumerate(cuts):
                recorded.cut.update(cut)
                _reach(task, writer, recorded.given)
                if progress is not None:
                    progress(label, done + 1, len(cuts))
            ends = _ends_at(log, codec, processor, number, task.positions)
            outputs = [
                _compare(log, own, codec, spec, where, ends.get(where.topic), written.get(where, 0))
                for spec, where in _outputs(own, processor, number)
            ]
            if behind := _behind(task.positions, recorded.given):
                place = TopicPartition(CUTS, 0) if stepwise else TopicPartition(processor.tables[0], number)
                outputs.insert(0, OutputReport(_label(place), len(cuts), behind))
        finally:
            task.close()
            writer.close()
    except Exception as error:  # of whatever kind: rows that are not there may break any code
        _require_all_versions(log, label, specs, reached, f"{type(error).__name__}: {error}")
        raise
    finally:
        own.close()
    report = RerunReport(processor.name, number, len(cuts), tuple(outputs))
    for one in report.differences[:1]:
        _require_all_versions(log, label, specs, reached, f"{one.topic}, {one.difference}")
    return report


def _require_all_versions(
    log: Log, label: str, specs: Mapping[str, TopicSpec], reached: Positions, found: str
) -> None:
    """Tell a difference that is nobody's fault from one that is: a second run that comes out the same has missed nothing."""
    if lost := compacted_away(log, specs, reached):
        kept_s = min(specs[where.topic].min_compaction_lag_ms for where in lost) // 1000
        raise CannotReplay(
            f"{label} can't be computed again: {', '.join(map(_label, lost))} may have lost old versions of rows, which a table"
            f" keeps for {kept_s} s. The second run differs in {found}.",
            "Verify the tables instead (`qmtl replay verify`), and run again what is younger than that.",
        )


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


def _stamped(
    log: Log, codec: Codec, processor: Processor, number: int
) -> tuple[PositionStamp | None, Mapping[str, set[str]]]:
    """The last stamp of a task, and the ids of the topics that it has read, as far as stamps are left that tell them."""
    last: PositionStamp | None = None
    lives: dict[str, set[str]] = {}
    for name in processor.tables[:1]:
        for record in read_all(log, [TopicPartition(name, number)]):
            if is_stamp(record.key) and record.value is not None:
                stamp: PositionStamp = codec.decode(record.value)
                last = stamp
                for one in stamp.topics:
                    if one.id:
                        lives.setdefault(one.topic, set()).add(one.id)
    return last, lives


def _ends_at(
    log: Log, codec: Codec, processor: Processor, number: int, positions: Positions
) -> dict[str, str]:
    """By table, the digest of the stamp with which it ended when the task had read just this far; none where compaction took it."""
    for name in processor.tables[:1]:
        for record in read_all(log, [TopicPartition(name, number)]):
            if is_stamp(record.key) and record.value is not None:
                stamp: PositionStamp = codec.decode(record.value)
                at = {TopicPartition(one.topic, one.partition): one.offset for one in stamp.positions}
                if at == positions:
                    own, said = digest_of(record.value), {one.table: one.digest for one in stamp.tables}
                    return {table: said.get(table) or own for table in processor.tables}
    return {}


def _not_found_again(log: Log, codec: Codec, processor: str, number: int) -> list[DeadLetter]:
    """The letters of this task that its records and tables alone don't tell of: of what killed the process, and would kill this one
    too, and of what put a row that could not be written, as it shows by which records were handled together."""
    if LETTERS not in log.topics():
        return []
    letters = (
        codec.decode(record.value)
        for record in read_all(log, all_partitions(log, LETTERS))
        if record.value is not None and not is_reserved(record.key)
    )
    return [
        one
        for one in letters
        if isinstance(one, DeadLetter)
        and one.code in _BY_CHANCE
        and (one.processor, one.task) == (processor, number)
    ]


def _reach(task: Task, writer: Writer, given: Positions) -> None:
    """Step until the task has used all that it was given: a step that meets a record which has to be left out only notes it.

    It ends: a step that commits uses up what was given, one that leaves a record out never names that record again, and one that
    finds nothing to do says so.
    """
    while task.step(writer, None, 0.0) and _behind(task.positions, given):
        pass


def _behind(positions: Positions, given: Positions) -> str:
    """Where a task has not used what it was given; empty where it has."""
    short = [
        f"{_label(where)} up to {positions.get(where, 0)} of {offset}"
        for where, offset in sorted(given.items())
        if positions.get(where, 0) < offset
    ]
    return f"the second run has used {', '.join(short)}" if short else ""


def _label(where: TopicPartition) -> str:
    return f"{where.topic}[{where.partition}]"


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
    end: str | None,
    written: int,
) -> OutputReport:
    again = [record for record in read_all(own, [where]) if not is_stamp(record.key)]
    before = list(read_all(log, [where]))
    label = _label(where)
    if not spec.compacted:
        live = [record for record in before if not is_stamp(record.key)]
        return OutputReport(label, len(again), _first_difference(again, live, written, codec))
    return OutputReport(label, len(again), _table_difference(again, _until(before, end)))


def _until(records: Sequence[Record], end: str | None) -> list[Record]:
    """The records up to the stamp with this digest; all of them where none was told, or compaction took it."""
    for index, record in enumerate(records):
        if is_stamp(record.key) and record.value is not None and digest_of(record.value) == end:
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
