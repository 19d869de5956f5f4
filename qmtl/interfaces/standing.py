"""How far every processor is, seen from outside: from what its group has committed, and from what it wrote itself."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from qmtl.engine.lag import Asked, InputLag, LagMeter, newest
from qmtl.engine.log.port import GroupState, Log, Positions, Record, TopicPartition, partitions_of
from qmtl.engine.processor import Input, Processor
from qmtl.engine.watermark import Wait
from qmtl.foundation.common.errors import WireError
from qmtl.foundation.contracts.control import GENESIS_MS, PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_stamp
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.replay.span import known_topics

SETTLE_S: Final = 1.0
"""A transaction that stays open so long is worth a word; most of them end within milliseconds."""

_ASK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class TaskStanding:
    """One task.

    Attributes:
        number: None for a group that is no processor's: nobody knows what its tasks are.
        bucket_ms: the newest bucket that it has closed, epoch ms; None where it has none.
        inputs: its input partitions, sorted.
        stuck: those of them whose last stable offset stood still before the high watermark for `SETTLE_S`.
        waits: what its next bucket waits for, as far as the log tells.
    """

    group: str
    processor: str | None
    number: int | None
    bucket_ms: int | None
    inputs: tuple[InputLag, ...]
    stuck: frozenset[TopicPartition]
    waits: tuple[Wait, ...] = ()


def group_of(processor: str) -> str:
    """The name of a processor's group."""
    return f"qmtl.{processor}"


def standings(
    log: Log, processors: Sequence[Processor], codec: Codec, foreign: Sequence[str] = ()
) -> list[TaskStanding]:
    """Every task of these processors, and every group that is named, on the topics that the log has.

    Args:
        foreign: groups that are no processor's; one that never committed gives nothing.
    """
    known = known_topics(log, codec)
    drafts = [
        *(draft for one in processors for draft in _tasks(log, one, known, codec)),
        *(draft for group in foreign for draft in _foreign(log, group, known)),
    ]
    asked = [one for draft in drafts for one in draft.asked]
    meter = LagMeter(log)
    try:
        found = meter.measure(asked)
    finally:
        meter.close()
    stuck = _stuck(log, found)
    out, at = [], 0
    for draft in drafts:
        mine = tuple(found[at : at + len(draft.asked)])
        at += len(mine)
        behind = frozenset(one.where for one in mine if one.where in stuck)
        out.append(
            TaskStanding(
                draft.group,
                draft.processor,
                draft.number,
                draft.bucket_ms,
                mine,
                behind,
                _waits(draft, mine),
            )
        )
    return out


@dataclass(frozen=True, slots=True)
class _Draft:
    group: str
    processor: str | None
    number: int | None
    bucket_ms: int | None
    asked: tuple[Asked, ...]
    declared: Mapping[str, Input] = field(default_factory=dict)
    asleep: frozenset[str] = frozenset()


def _waits(draft: _Draft, found: Sequence[InputLag]) -> tuple[Wait, ...]:
    """Reckons from the newest markers of the inputs what a task, which has its own in memory, waits for; see `Merge.waits`."""
    buckets = next((asked.buckets for asked in draft.asked), ())
    last = buckets[-1] if buckets else GENESIS_MS
    taking, delayed = [], []
    for asked, one in zip(draft.asked, found, strict=True):
        # An input that is not declared is a source of nodes: like all that join, it is waited for once it has closed something.
        found_out = Input(one.where.topic, bucketed=True, joins=True, every_ms=asked.every_ms)
        read = draft.declared.get(one.where.topic, found_out)
        if asked.bucketed and read.lag:
            delayed.append((read.lag, one))
        elif one.where.topic in draft.asleep and (one.closed_ms or GENESIS_MS) <= last:
            continue
        elif asked.bucketed and (not read.joins or one.closed_ms is not None):
            taking.append((read, one))
    ahead = [one for _, one in taking if (one.closed_ms or GENESIS_MS) > last]
    if not ahead or draft.processor is None:
        return ()
    needed = min(_next_bucket(one, buckets) for one in ahead)
    out = []
    for read, one in taking:
        due_ms = read.due_by(needed)
        if (due_ms > last or due_ms == needed) and _is_before(one, due_ms):
            out.append(Wait(one.where, due_ms, one.closed_ms))
    for lag, one in delayed:
        cut_ms = buckets[-lag] if len(buckets) >= lag else GENESIS_MS
        if _is_before(one, cut_ms):
            out.append(Wait(one.where, cut_ms, one.closed_ms))
    return tuple(out)


def _is_before(one: InputLag, bucket_ms: int) -> bool:
    return one.closed_ms is None or one.closed_ms < bucket_ms


def _next_bucket(one: InputLag, buckets: Sequence[int]) -> int:
    """The oldest new bucket of a partition; where too much waits to be read, the one that its distances make likely."""
    assert one.closed_ms is not None
    if one.next_ms is not None:
        return one.next_ms
    if len(buckets) < 2:
        return one.closed_ms
    return min(one.closed_ms, buckets[-1] + min(later - earlier for earlier, later in pairwise(buckets)))


def _tasks(log: Log, one: Processor, known: Mapping[str, TopicSpec], codec: Codec) -> Iterator[_Draft]:
    if one.anchor not in known:
        return
    group, tasks = group_of(one.name), known[one.anchor].partitions
    committed = _committed(log, group, known)
    stamps = _stamps(log, one, tasks, known, codec)
    inputs = [read for read in one.inputs() if read.topic not in one.tables and read.topic in known]
    declared = {read.topic: read for read in inputs}
    for number in range(tasks):
        stamp = stamps.get(number, PositionStamp(one.name, number))
        buckets = tuple(bucket for bucket in stamp.buckets if bucket > GENESIS_MS)
        gone = {one.topic for one in stamp.topics if not one.read}
        lengths = {one.topic: one.every_ms for one in stamp.topics}
        asleep = frozenset(one.topic for one in stamp.topics if one.slept)
        contained = {
            TopicPartition(at.topic, at.partition): at.offset
            for at in stamp.positions
            if at.topic not in gone
        }
        wheres = {
            where
            for read in inputs
            for where in partitions_of(read.topic, known[read.topic].partitions)
            if read.broadcast or where.partition == number
        }
        # What it reads beside that, it has found out while it ran: its tables tell, or its group where it has none.
        more = contained if one.tables or tasks > 1 else committed
        wheres |= {
            where for where in more if where.topic in known and where.topic not in (*declared, *one.tables)
        }
        asked = []
        for where in sorted(wheres):
            read = declared.get(where.topic)
            # A group has one position per partition: of tasks that read the same one, each knows only its own.
            shared = tasks > 1 and (read is None or read.broadcast)
            position = contained.get(where) if shared else committed.get(where)
            bucketed = known[where.topic].marked if read is None else read.bucketed
            every_ms = lengths.get(where.topic, 0) if read is None else read.every_ms
            asked.append(Asked(where, position, bucketed, buckets, every_ms))
        newest = buckets[-1] if buckets else None
        yield _Draft(group, one.name, number, newest, tuple(asked), declared, asleep)


def _foreign(log: Log, group: str, known: Mapping[str, TopicSpec]) -> Iterator[_Draft]:
    committed = _committed(log, group, known)
    if committed:
        asked = [
            Asked(where, offset, known[where.topic].marked) for where, offset in sorted(committed.items())
        ]
        yield _Draft(group, None, None, None, tuple(asked))


def _committed(log: Log, group: str, known: Mapping[str, TopicSpec]) -> Positions:
    wheres = [where for name, spec in known.items() for where in partitions_of(name, spec.partitions)]
    return log.committed(group, wheres)


def _stamps(
    log: Log, one: Processor, tasks: int, known: Mapping[str, TopicSpec], codec: Codec
) -> dict[int, PositionStamp]:
    """The stamp with which the last transaction of each task ended its tables."""
    tables = [name for name in one.tables if name in known]
    if not tables:
        return {}
    wheres = [TopicPartition(tables[0], number) for number in range(tasks)]
    found = newest(log, wheres, lambda record: _stamp_in(record, codec))
    return {where.partition: stamp for where, stamp in found.items()}


def _stamp_in(record: Record, codec: Codec) -> PositionStamp | None:
    if not is_stamp(record.key) or record.value is None:
        return None
    try:
        stamp = codec.decode(record.value)
    except WireError:
        return None
    return stamp if isinstance(stamp, PositionStamp) else None


def contained(
    log: Log, one: Processor, codec: Codec, present: Collection[str] | None = None
) -> dict[int, Positions]:
    """Of each task of a processor that has written its tables, the positions in what it reads that they contain: two questions to the log.

    Args:
        present: the topics that the log has; None, it is asked for them.
    """
    present = log.topics() if present is None else present
    if one.anchor not in present:
        return {}
    known = {name: topic(name) for name in one.tables if name in present}
    out: dict[int, Positions] = {}
    for number, stamp in _stamps(log, one, topic(one.anchor).partitions, known, codec).items():
        left = {input.topic for input in stamp.topics if not input.read}
        out[number] = {
            TopicPartition(at.topic, at.partition): at.offset
            for at in stamp.positions
            if at.topic not in left
        }
    return out


def taken(log: Log, processors: Sequence[Processor], where: TopicPartition, codec: Codec) -> int:
    """Up to where those of the processors that read an input partition have it in their tables: what lies before is decided on and
    answered. Looks at the ends of their tables only; 0 where nobody has written any.

    Args:
        where: of a topic of which a task reads the partition of its own number.
    """
    offsets = []
    for one in processors:
        if not one.tables or all(read.topic != where.topic for read in one.inputs()):
            continue
        home = TopicPartition(one.tables[0], where.partition)
        stamp = newest(log, [home], lambda record: _stamp_in(record, codec)).get(home)
        mine = () if stamp is None else stamp.positions
        at = (place.offset for place in mine if (place.topic, place.partition) == where)
        offsets.append(next(at, 0))
    return min(offsets, default=0)


def _stuck(log: Log, found: Sequence[InputLag]) -> frozenset[TopicPartition]:
    """Partitions whose last stable offset stands still before the high watermark."""
    left = {one.where: one.stable for one in found if one.unsettled}
    deadline = time.monotonic() + SETTLE_S
    while left and time.monotonic() < deadline:
        time.sleep(_ASK_AGAIN_S)
        now = log.stable_offsets(list(left))
        left = {where: stable for where, stable in left.items() if now[where] == stable}
    return frozenset(left)


@dataclass(frozen=True, slots=True)
class Slot:
    """One member of a processor's group, or a processor that nobody is known to run.

    Attributes:
        slot: what `--slot` was; the member's whole name where that has another form; None where there is no member.
        tasks: the tasks that it has, each with what is committed of its inputs; without a member, all of them where the log
            doesn't know the members, else none.
    """

    processor: str
    slot: str | None
    state: GroupState
    host: str
    tasks: Mapping[int, Positions]


def slots(log: Log, processors: Sequence[Processor], codec: Codec) -> list[Slot]:
    """Who runs what, sorted by processor and slot."""
    known = known_topics(log, codec)
    out = []
    for one in processors:
        tasks: dict[int, Positions] = {
            draft.number: {asked.where: asked.position for asked in draft.asked if asked.position is not None}
            for draft in _tasks(log, one, known, codec)
            if draft.number is not None
        }
        group = log.members(group_of(one.name))
        for member in group.members:
            slot = member.member.removeprefix(f"{group_of(one.name)}.")
            mine = {number: tasks.get(number, {}) for number in sorted(member.tasks)}
            out.append(Slot(one.name, slot, group.state, member.host, mine))
        if not group.members:
            nobody: Mapping[int, Positions] = tasks if group.state is GroupState.UNKNOWN else {}
            out.append(Slot(one.name, None, group.state, "", nobody))
    return out
