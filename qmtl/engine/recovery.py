"""Recovery: read the owned tables back to a captured target, and prove that state and positions are one prefix of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.failpoint import passing
from qmtl.engine.log.port import Log, Positions, Reader, Record, TopicPartition
from qmtl.engine.store import Checkpoint, Store
from qmtl.engine.table import Table, frame_one
from qmtl.engine.transaction import MARKERS_KEPT, horizon_of
from qmtl.foundation.common.errors import LogRegressed, RecoveryStalled, StampMismatch
from qmtl.foundation.contracts.control import GENESIS_MS, PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_reserved

BATCH: Final = 5000
STALL_S: Final = 30.0

Progress = Callable[[int, int], None]
"""Called with records' offsets restored so far and to restore."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a task continues from.

    Attributes:
        fresh: the tables were never written.
        records: how many records were read from the log.
    """

    positions: Positions
    buckets: tuple[int, ...]
    fresh: bool
    records: int


def restore(
    log: Log,
    store: Store,
    tables: Mapping[str, Table],
    codec: Codec,
    *,
    stall_s: float = STALL_S,
    progress: Progress | None = None,
) -> Restored:
    """Bring the store up to the high watermark of every table, captured once at the start.

    A reader's end is a hint only: with somebody's transaction open, records that are already committed stay invisible. So
    the target is the high watermark, uncommitted records included, and the restore waits until its position reaches it.

    Raises:
        LogRegressed: the log is shorter than the store knows.
        RecoveryStalled: no progress for `stall_s`, with the cause.
        StampMismatch: the tables were not written by the same last transaction.
    """
    wheres = {name: TopicPartition(name, table.partition) for name, table in tables.items()}
    target = log.end_offsets(list(wheres.values()))
    start = _usable(log, store, tables, wheres, target)
    stamps: dict[str, PositionStamp] = {}
    seen = {name: store.checkpoint.buckets if start[where] else () for name, where in wheres.items()}
    known = store.checkpoint
    reader = log.reader()
    try:
        count = _read(
            reader,
            start,
            target,
            stall_s,
            progress,
            lambda batch: _apply(batch, tables, codec, stamps, seen, store),
        )
    finally:
        reader.close()
    passing("after_restore")
    if not stamps:
        return Restored(dict(known.positions), known.buckets, not known.tables, count)
    last = _agreeing(stamps, {name: target[where] for name, where in wheres.items()})
    positions = {TopicPartition(one.topic, one.partition): one.offset for one in last.positions}
    for table in tables.values():
        table.bury(horizon_of(last.buckets, table.look_back))
    rows = [row for table in tables.values() for row in table.changes()]
    store.write(
        rows,
        Checkpoint(
            log.log_id,
            {where: target[where] for where in wheres.values()},
            positions,
            last.buckets,
            log.now_ms(),
        ),
    )
    for table in tables.values():
        table.committed()
    return Restored(positions, last.buckets, False, count)


def _usable(
    log: Log,
    store: Store,
    tables: Mapping[str, Table],
    wheres: Mapping[str, TopicPartition],
    target: Positions,
) -> dict[TopicPartition, int]:
    known = store.checkpoint.tables
    for where in wheres.values():
        if known.get(where, 0) > target[where]:
            raise LogRegressed(
                f"{where.topic}[{where.partition}] ends at {target[where]}, but this task has already read {known[where]}.",
                "The topic was truncated or made anew. If that is intended, delete the task's state directory.",
            )
    begin = log.begin_offsets(list(wheres.values()))
    horizon_ms = min((table.spec.delete_retention_ms for table in tables.values()), default=0)
    too_old = bool(known) and log.now_ms() - store.checkpoint.written_at_ms > horizon_ms
    incomplete = bool(known) and any(known.get(where, -1) < begin[where] for where in wheres.values())
    broken_off = not known and not store.is_empty()
    if too_old or incomplete or broken_off:
        store.wipe()
        for table in tables.values():
            table.rollback()
        return dict(begin)
    return {where: known.get(where, begin[where]) for where in wheres.values()}


def _read(
    reader: Reader,
    start: Positions,
    target: Positions,
    stall_s: float,
    progress: Progress | None,
    apply: Callable[[Sequence[Record]], None],
) -> int:
    left = {where: offset for where, offset in start.items() if offset < target[where]}
    if not left:
        return 0
    reader.assign(left)
    to_do = sum(target[where] - offset for where, offset in left.items())
    count, before = 0, dict(left)
    deadline = time.monotonic() + stall_s
    while any(reader.positions().get(where, 0) < target[where] for where in left):
        batch = reader.poll(BATCH, 0.1)
        at = reader.positions()
        if any(at.get(where, 0) > target[where] for where in left):  # what came after the target was captured
            batch = [
                record
                for record in batch
                if record.offset < target[TopicPartition(record.topic, record.partition)]
            ]
        if batch:
            apply(batch)
            count += len(batch)
        now = dict(reader.positions())
        if now != before:
            before, deadline = now, time.monotonic() + stall_s
            if progress is not None:
                progress(sum(now[where] - left[where] for where in left), to_do)
        elif time.monotonic() > deadline:
            stuck = [
                f"{where.topic}[{where.partition}] at {now[where]} of {target[where]}"
                for where in sorted(left)
                if now[where] < target[where]
            ]
            raise RecoveryStalled(
                f"no progress for {stall_s:g} s: {', '.join(stuck)}.",
                "A transaction is open or hangs on these partitions, or their log was truncated:"
                " wait for its time-out, or look with kafka-transactions.sh.",
            )
    return count


def _apply(
    batch: Sequence[Record],
    tables: Mapping[str, Table],
    codec: Codec,
    stamps: dict[str, PositionStamp],
    seen: dict[str, tuple[int, ...]],
    store: Store,
) -> None:
    rows: list[tuple[str, bytes, bytes | None]] = []
    flat = {name for name, table in tables.items() if not table.look_back}
    for record in batch:
        name, _, _, key, value, _ = record
        if key[:1] != b"\x00" and name in flat:  # one version a row: the last one in the batch stays
            rows.append((name, key, None if value is None else frame_one(value)))
        elif not is_reserved(record.key):
            table, buckets = tables[record.topic], seen[record.topic]
            open_ms = (buckets[-1] if buckets else GENESIS_MS) + 1
            table.restore(record.key, record.value, open_ms, horizon_of(buckets, table.look_back))
        elif is_marker(record.key):
            if record.value is not None and (bucket_ms := decode_marker_bucket(record.key)) != GENESIS_MS:
                seen[record.topic] = (*seen[record.topic], bucket_ms)[-MARKERS_KEPT:]
        elif record.value is not None:
            stamps[record.topic] = codec.decode(record.value)
    rows += [row for table in tables.values() for row in table.changes()]
    passing("inside_restore")
    store.write(rows, store.checkpoint)
    for table in tables.values():
        table.committed()


def _agreeing(stamps: Mapping[str, PositionStamp], ends: Mapping[str, int]) -> PositionStamp:
    first_name = min(stamps)
    first = stamps[first_name]
    for name in sorted(ends):
        if ends[name] and stamps.get(name) != first:  # a table that is new has no end and no stamp yet
            raise StampMismatch(
                f"tables {first_name} and {name} end with different transactions.",
                "Somebody wrote or cut one of them; restore the topics together.",
            )
    return first
