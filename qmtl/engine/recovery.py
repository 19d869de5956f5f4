"""Recovery: read the owned tables back to a captured target, and prove that state and positions are one prefix of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from qmtl.engine.failpoint import passing
from qmtl.engine.fold import SAMPLES, Fold
from qmtl.engine.incarnation import Finding, Judge, Kind, contradicted, facts_of, refuse, regressions
from qmtl.engine.log.port import Columns, Log, Positions, Reader, TopicPartition
from qmtl.engine.observer import Stall, StallKind
from qmtl.engine.stamps import digest_of, last_stamp
from qmtl.engine.store import Cause, Store
from qmtl.engine.stored import Checkpoint, TopicFacts
from qmtl.engine.table import Table
from qmtl.engine.transaction import horizon_of
from qmtl.foundation.common.errors import LogRegressed, OffsetGone, RecoveryStalled, StampMismatch
from qmtl.foundation.contracts.control import InputTopic, PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_stamp

BATCH: Final = 5000
STALL_S: Final = 30.0
LOOK_S: Final = 1.0
"""After so long without progress it is asked why, and again after each further such time."""

ROUNDS: Final = 10
"""So often a restore goes on behind its target, to the end of a transaction that somebody had open when it was captured."""

MANY: Final = 100_000
"""So many offsets are to be restored before the store takes rows without order and write-ahead log."""

UNSTAMPED: Final = "unstamped"
"""Stands for what a table ends with that has records behind its last stamp; no digest is equal to it."""

Progress = Callable[[int, int], None]
"""Called with the offsets restored so far and to restore: at the beginning of the reading, and after each progress."""

Stalled = Callable[[Stall], None]
"""Called with the cause each `LOOK_S` without progress."""

KeepAlive = Callable[[], None]
"""Called between two batches; raises where the restore is to be given up."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a task continues from.

    Attributes:
        fresh: the tables were never written.
        records: how many records were read from the log; of the last transaction that the store knew, none are counted.
        advanced: there were transactions that the store did not know.
        topics: what the last transaction said of the topics of the positions.
    """

    positions: Positions
    buckets: tuple[int, ...]
    fresh: bool
    records: int
    advanced: bool = False
    topics: tuple[InputTopic, ...] = ()


def restore(
    log: Log,
    store: Store,
    tables: Mapping[str, Table],
    codec: Codec,
    *,
    until: Positions | None = None,
    tasks: int | None = None,
    stall_s: float = STALL_S,
    progress: Progress | None = None,
    stalled: Stalled | None = None,
    keep_alive: KeepAlive | None = None,
    judge: Judge = refuse,
    simply: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Restored:
    """Bring the store up to the high watermark of every table, captured once at the start.

    A reader's end is a hint only: with somebody's transaction open, records that are already committed stay invisible. So
    the target is the high watermark, uncommitted records included, and the restore waits until its position reaches it. Where
    it lies in a transaction that another worker goes on with, the restore reads on behind it.

    Args:
        until: where the tables are taken to end instead, to rebuild an earlier state.
        tasks: how many tasks the processor has: given, the state is held to it and to the keys of the catalogue.
        judge: asked when the log is not the one that the store knows; where it returns, the store is built anew.
        simply: by the table alone; the measure of the faster ways.
        clock: seconds that only go forward: what a standstill is measured by.

    Raises:
        LogRegressed: the log is shorter than the store knows, or another one, or becomes shorter meanwhile.
        OffsetGone: records are deleted that are still to be read.
        RecoveryStalled: no progress for `stall_s`, with the cause.
        StampMismatch: the tables were not written by the same last transaction.
        StateMismatch: the recorded state has another key or another number of partitions.
        DiskFull, and whatever `keep_alive` raises: what was restored so far is kept.
    """
    one = _Restore(
        log, store, tables, codec, stall_s, progress, stalled, keep_alive, judge, simply, tasks, clock
    )
    one.prepare(until)
    try:
        one.run()
    except _Rewritten as found:
        judge([found.finding])
        one.begin_anew(Cause.ACCEPTED, str(found.finding))
        one.run()
    passing("after_restore")
    for fold in one.folds.values() if tasks is not None else ():
        fold.check_tasks(tasks or 0)
        fold.check_keys()
    return one.finish()


class _Rewritten(Exception):
    """The log holds something else at the end of the last transaction that the store knows."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding


@dataclass(slots=True)
class _Restore:
    """One restore of the tables of one task.

    Attributes:
        target: the offset at which each table ends.
        start: the offset from which on its records are taken; the one before it is looked at, where the store knows it.
        fixed: the target is the caller's.
    """

    log: Log
    store: Store
    tables: Mapping[str, Table]
    codec: Codec
    stall_s: float
    progress: Progress | None
    stalled: Stalled | None
    keep_alive: KeepAlive | None
    judge: Judge
    simply: bool
    tasks: int | None
    clock: Callable[[], float]
    target: dict[TopicPartition, int] = field(default_factory=dict)
    begin: Positions = field(default_factory=dict)
    start: dict[TopicPartition, int] = field(default_factory=dict)
    folds: dict[str, Fold] = field(default_factory=dict)
    facts: Mapping[str, TopicFacts] = field(default_factory=dict)
    records: int = 0
    fixed: bool = False

    # ---- where to begin -----------------------------------------------------------------------------------------

    def prepare(self, until: Positions | None) -> None:
        """Capture the target, and see whether the store may be continued."""
        wheres = [TopicPartition(name, table.partition) for name, table in self.tables.items()]
        ends, self.fixed = self.log.end_offsets(wheres), until is not None
        self.target = {where: min(ends[where], (until or ends).get(where, ends[where])) for where in wheres}
        self.begin = self.log.begin_offsets(wheres)
        facts = facts_of(self.log, self.tables, {name: table.spec for name, table in self.tables.items()})
        contradicted(self.store.topics, facts)
        for table in self.tables.values():
            table.rollback()
        if (why := self._unusable()) is not None:
            self.begin_anew(*why)
        else:
            self._continue()
        # The key is believed when the restore has looked at rows.
        keyed = {name: fact for name, fact in self.store.topics.items() if fact.key}
        self.store.know({name: keyed.get(name, replace(fact, key=())) for name, fact in facts.items()})
        self.facts = facts

    def _unusable(self) -> tuple[Cause, str] | None:
        store, known = self.store, self.store.checkpoint
        reached = dict(known.tables)
        if store.reading:
            reached.update({where: one.offset for where, one in store.reading.items()})
        found = regressions(
            self.log,
            store.topics,
            {where: max(reached.get(where, 0), known.tables.get(where, 0)) for where in self.target},
            tables=True,
        )
        if found:
            self.judge(found)
            return Cause.ACCEPTED, "; ".join(map(str, found))
        if not known.tables and not store.reading:
            return None if store.is_empty() else (Cause.BROKEN_OFF, "it has rows and no positions")
        for where in self.target.keys() & reached.keys():  # a table that is new is read from its beginning
            if reached[where] < self.begin[where]:
                begins = f"{where.topic}[{where.partition}] begins at {self.begin[where]}"
                return Cause.BEHIND, f"{begins}, it was read up to {reached[where]}"
            if reached[where] > self.target[where]:
                return (
                    Cause.BROKEN_OFF,
                    f"{where.topic}[{where.partition}] is wanted as it was at {self.target[where]}",
                )
        age_ms = self.log.now_ms() - known.written_at_ms
        horizon_ms = min(table.spec.delete_retention_ms for table in self.tables.values())
        # A single offset behind the last transaction is its own marker. Where nothing came since, no tombstone did.
        if not store.reading and all(
            end - known.tables.get(where, -1) <= 1 for where, end in self.target.items()
        ):
            return None
        if age_ms < 0:  # the clock was ahead then, or is behind now: either way its age is unknown
            return Cause.TOO_OLD, f"its age is unknown, it was written {-age_ms} ms from now"
        if age_ms > horizon_ms:
            return Cause.TOO_OLD, f"it is {age_ms} ms old, tombstones are kept for {horizon_ms} ms"
        return None

    def begin_anew(self, cause: Cause, detail: str) -> None:
        """Throw the store away, and read every table from its beginning."""
        topics = self.store.topics
        self.store.wipe(cause, detail)
        for table in self.tables.values():
            table.rollback()
        self.store.know({name: fact for name, fact in topics.items() if name not in self.tables})
        self._continue()

    def _continue(self) -> None:
        known, reading = self.store.checkpoint, self.store.reading
        self.records, self.start = 0, {}
        for where in self.target:
            partly = reading.get(where)
            self.start[where] = (
                known.tables.get(where, self.begin[where]) if partly is None else partly.offset
            )
            fold = Fold(self.tables[where.topic], self.codec, samples=0 if self.tasks is None else SAMPLES)
            if partly is not None:
                fold.buckets, fold.stamp = partly.buckets, partly.stamp
            elif where in known.tables:
                fold.buckets = known.buckets
            self.folds[where.topic] = fold
        if not known.tables and not reading:
            # The age of what a restore has read so far counts from its beginning.
            self.store.checkpoint = Checkpoint(self.log.log_id, written_at_ms=self.log.now_ms())

    # ---- reading ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read up to the target, and on to the end of a transaction that it lies in."""
        self._read_to_target()
        for _ in range(0 if self.fixed else ROUNDS):
            ends = self.log.end_offsets(list(self.target))
            if ends == self.target or self._is_whole():
                return
            self.start, self.target = self.target, dict(ends)
            self._read_to_target()

    def _is_whole(self) -> bool:
        """Whether what was read ends with a transaction, and with the same one in every table."""
        try:
            self._last()
        except StampMismatch:
            return False
        return all(fold.ended for fold in self.folds.values())

    def _read_to_target(self) -> None:
        left = {where: offset for where, offset in self.start.items() if offset < self.target[where]}
        if not left:
            return
        reader = self.log.reader()
        try:
            # The last transaction that the store knows is looked at again: another one in its place is another log.
            looked = {
                where: offset - 1
                for where, offset in left.items()
                if self.store.checkpoint.tables.get(where) == offset > self.begin[where]
            }
            reader.assign({**left, **looked})
            self._read(reader, left, set(looked))
        finally:
            reader.close()

    def _read(self, reader: Reader, left: Positions, looked: set[TopicPartition]) -> None:
        to_do = sum(self.target[where] - offset for where, offset in left.items())
        many = to_do >= MANY and not any(self._by_versions(fold) for fold in self.folds.values())
        if many:
            self.store.begin_bulk()
        before = dict(reader.positions())
        since = self.clock()
        asked = since
        if self.progress is not None:
            self.progress(0, to_do)
        while any(reader.positions().get(where, 0) < self.target[where] for where in left):
            if self.keep_alive is not None:
                self.keep_alive()
            try:
                found = reader.poll_columns(BATCH, 0.1, self.target)
            except OffsetGone:
                self._why(reader.positions(), left)
                raise
            self._take(found, looked, reader.positions(), many=many)
            now = dict(reader.positions())
            if now != before:
                before, since = now, self.clock()
                asked = since
                if self.progress is not None:
                    done = sum(max(0, now[where] - offset) for where, offset in left.items())
                    self.progress(min(done, to_do), to_do)
            elif self.clock() - asked >= min(LOOK_S, self.stall_s):
                asked = self.clock()
                stall = self._why(now, left, asked - since)
                if asked - since >= self.stall_s:
                    what = f"no progress for {self.stall_s:g} s: {stall.what}"
                    raise RecoveryStalled(what, stall.remedy, stall.kind.value)
                if self.stalled is not None:
                    self.stalled(stall)

    def _why(self, now: Positions, left: Positions, seconds: float = 0.0) -> Stall:
        """Why a restore stands still for so many seconds.

        Raises:
            LogRegressed: the log is shorter than the target by now.
            OffsetGone: the next records are deleted.
        """
        stuck = [where for where in sorted(left) if now.get(where, 0) < self.target[where]]
        begins, ends = self.log.begin_offsets(stuck), self.log.end_offsets(stuck)
        stable = self.log.stable_offsets(stuck)
        for where in stuck:
            place, wanted = f"{where.topic}[{where.partition}]", self.target[where]
            if ends[where] < wanted:
                raise LogRegressed(
                    f"{place} ends at {ends[where]}, and ended at {wanted} when the restore began: it was truncated or made"
                    " anew meanwhile.",
                    "Bring the log back, or start again to have what is there judged.",
                )
            if begins[where] > now.get(where, 0):
                raise OffsetGone(
                    f"{place} begins at {begins[where]}, and the restore has come to {now.get(where, 0)}: what lies between"
                    " was deleted meanwhile.",
                    "Nobody may delete records of a table (`kafka-delete-records.sh`): bring the log back, or start again to"
                    " restore from what is there.",
                )
        names = [
            f"{where.topic}[{where.partition}] at {now[where]} of {self.target[where]}" for where in stuck
        ]
        held = [where for where in stuck if stable[where] < self.target[where]]
        if not held:
            remedy = "Look whether the leaders of these partitions answer."
            what = f"{', '.join(names)}: the log gives nothing."
            return Stall(StallKind.SILENT_LOG, what, remedy, seconds)
        place = f"{held[0].topic}[{held[0].partition}]"
        remedy = (
            "It ends with its producer, or by its time-out: wait, or find it with"
            f" `kafka-transactions.sh find-hanging --topic {held[0].topic}` and abort it."
        )
        what = f"{', '.join(names)}: a transaction is open from offset {stable[held[0]]} of {place} on."
        return Stall(StallKind.OPEN_TRANSACTION, what, remedy, seconds)

    def _take(
        self, found: Sequence[Columns], looked: set[TopicPartition], now: Positions, *, many: bool
    ) -> None:
        rows = 0
        batch = self.store.batch()
        for columns in found:
            where = columns.where
            if where in looked:
                looked.discard(where)
                columns = self._behind_known(columns)
                if not columns.keys:
                    continue
            fold = self.folds[where.topic]
            fold.records += len(columns.keys)
            self.records += len(columns.keys)
            take = fold.simply if self._by_versions(fold) else fold.directly
            rows += take(batch, columns)
        if rows == 0 and not many:
            return
        passing("inside_restore")
        reading = {
            where: self.folds[where.topic].reading(min(now.get(where, end), end))
            for where, end in self.target.items()
        }
        self.store.load(batch, reading)
        for table in self.tables.values():
            table.committed()

    def _by_versions(self, fold: Fold) -> bool:
        return self.simply or fold.table.look_back > 0

    def _behind_known(self, columns: Columns) -> Columns:
        """Without the end of the last transaction that the store knows, if it is still there.

        Raises:
            _Rewritten: something else is there.
        """
        where, known = columns.where, self.store.checkpoint
        if columns.first != known.tables[where] - 1:
            return columns  # compaction has taken it for a later one
        key, value = columns.keys[0], columns.values[0]
        same = False
        if is_stamp(key) and value is not None:
            same = digest_of(value) == known.stamps.get(where.topic)
        if not same:
            at = f"offset {columns.first}"
            raise _Rewritten(
                Finding(
                    Kind.REWRITTEN,
                    where,
                    f"a transaction ended at {at}",
                    f"another record at {at}",
                    self.begin[where],
                )
            )
        return Columns(where, columns.first + 1, columns.keys[1:], columns.values[1:])

    # ---- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> Restored:
        """Prove that all tables end with the same transaction, and write the checkpoint."""
        self.store.know(self.facts)
        known = self.store.checkpoint
        last = self._last()
        if last is None:
            return Restored(
                dict(known.positions), known.buckets, not known.tables, self.records, topics=known.topics
            )
        for table in self.tables.values():
            table.bury(horizon_of(last.buckets, table.look_back))
        rows = [row for table in self.tables.values() for row in table.changes()]
        positions = _positions(last)
        stamps = {name: digest for name, digest in self._ends().items() if digest is not None}
        checkpoint = Checkpoint(
            self.log.log_id,
            dict(self.target),
            positions,
            last.buckets,
            self.log.now_ms(),
            last.topics,
            stamps,
        )
        self.store.write(rows, checkpoint)
        for table in self.tables.values():
            table.committed()
        return Restored(positions, last.buckets, False, self.records, True, last.topics)

    def _last(self) -> PositionStamp | None:
        """The stamp of the transaction that all tables end with; None where no stamp was read.

        Raises:
            StampMismatch: they end with different ones.
        """
        stamps: dict[str, tuple[bytes, PositionStamp]] = {
            name: (fold.stamp, self.codec.decode(fold.stamp))
            for name, fold in sorted(self.folds.items())
            if fold.stamp is not None
        }
        if not stamps:
            return None
        found = last_stamp(stamps, self._ends())
        if found is None:
            names = ", ".join(sorted(self.folds))
            raise StampMismatch(
                f"the tables {names} don't end with one transaction.",
                "Somebody wrote or cut one of them; restore the topics together.",
            )
        return found[1]

    def _ends(self) -> dict[str, str | None]:
        """By table, the digest of the stamp with which it ends; None where nothing was ever written.

        A table of which the store knows everything ends as the store says.
        """
        known = self.store.checkpoint.stamps
        return {name: _end_of(fold, known.get(name)) for name, fold in self.folds.items()}


def _end_of(fold: Fold, known: str | None) -> str | None:
    if not fold.ended:
        return UNSTAMPED
    return known if fold.stamp is None else digest_of(fold.stamp)


def _positions(stamp: PositionStamp) -> dict[TopicPartition, int]:
    return {TopicPartition(one.topic, one.partition): one.offset for one in stamp.positions}
