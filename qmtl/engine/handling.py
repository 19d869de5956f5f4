"""Gives a processor its records, and sends one that it fails on to the dead letters as if it had never come.

A batch is handled straight through at first. If its processor fails on a record, the transaction is aborted and the batch is
handled again with everything held back from the log: from then on one record can be undone alone, by going back to the savepoint
behind the last one that failed and repeating the records since. Each record is so handled at most twice more, however many fail.

A row that can't be written shows only when the rows are sealed, where nobody can tell who put it. That is a failure of the batch
likewise; one by one, what a record has put is encoded while that record is the one that can be blamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from qmtl.engine.crash_marks import CrashMarks
from qmtl.engine.letters import failed, letter_of, raised_by_engine
from qmtl.engine.processor import Arrival, Bucket, Processor
from qmtl.engine.table import Table
from qmtl.engine.transaction import Transaction
from qmtl.foundation.common.errors import (
    CrashLoop,
    HandlerBroken,
    InvalidTopology,
    InvariantBroken,
    LogError,
    PoisonRecord,
    UnknownProcessor,
)
from qmtl.foundation.contracts.control import DeadLetter

FAILURES_IN_A_ROW: Final = 100
"""More records than this, one after the other without one that can be handled, say that the code is broken."""

BUCKET_DEATHS: Final = 10
"""After so many deaths in one bucket without a record to blame, the task stays closed. More than for a record, because a bucket
takes longer than a record, and so is met sooner by a death that has another reason."""

_NOT_THE_RECORDS: Final = (
    LogError,
    InvariantBroken,
    InvalidTopology,
    UnknownProcessor,
    MemoryError,
    OSError,
)
"""Errors of the log, of the code and of the machine. A record is no reason for them, whichever was being handled."""


class Again(Exception):
    """The transaction has to be aborted and run once more, with what it was given. No error: a way back."""


def is_the_records(error: Exception) -> bool:
    """Whether an error out of a handler may be blamed on the record that it was handling."""
    return not (isinstance(error, _NOT_THE_RECORDS) or raised_by_engine(error))


class Handling:
    """Calls the handlers of one task.

    Args:
        tables: the task's own, to make derived memory again from.
        failures: how many records may fail one after the other.
        recorded: the letters of rows that can't be written are known; of any other row a later record is known to put it anew.
    """

    def __init__(
        self,
        processor: Processor,
        task: int,
        tables: Mapping[str, Table],
        marks: CrashMarks,
        failures: int = FAILURES_IN_A_ROW,
        recorded: bool = False,
    ) -> None:
        self._processor = processor
        self._task = task
        self._tables = tables
        self._marks = marks
        self._failures = failures
        self._recorded = recorded
        self._in_a_row = 0
        self._alone = False
        self._together = False

    # ---- records of free inputs ------------------------------------------------------------------------------------

    def records(self, run: Transaction, found: Sequence[Arrival | DeadLetter]) -> None:
        """Handle records in this order, and emit letters in it: those that come, and of those that can't be handled.

        Raises:
            Again: one failed, and what others have written can't be told from what it has.
            HandlerBroken: more failed in a row than may.
        """
        self._together = False
        if self._alone or self._marks.careful:
            self._one_by_one(run, found)
            return
        handled = False
        try:
            for one in found:
                if isinstance(one, DeadLetter):
                    run.emit("dead.letters", one)
                else:
                    self._processor.on_record(run, one)
                    handled = True
        except Exception as error:
            if not is_the_records(error):
                raise
            self._alone = True
            raise Again from error
        if handled:
            self._in_a_row = 0
        self._together = handled

    def _one_by_one(self, run: Transaction, found: Sequence[Arrival | DeadLetter]) -> None:
        run.hold()
        before = run.savepoint()
        since: list[Arrival | DeadLetter] = []
        self._alone = False
        for arrival in found:
            if isinstance(arrival, DeadLetter):
                run.emit("dead.letters", arrival)
                since.append(arrival)
                continue
            if self._marks.careful:
                self._marks.record(arrival)
            try:
                self._processor.on_record(run, arrival)
                self._prove(run)
            except Exception as error:
                if not is_the_records(error):
                    raise
                self._alone = True  # the next batch may well be like this one
                self._fail(arrival, error)
                run.undo(before)
                self._processor.restore(self._tables)
                self._repeat(run, since)
                run.emit("dead.letters", letter_of(self._processor.name, self._task, arrival, failed(error)))
                before, since = run.savepoint(), []
            else:
                since.append(arrival)
                self._in_a_row = 0
            if self._marks.careful:
                self._marks.no_record()
                self._marks.survived(arrival)
        run.release()

    def _repeat(self, run: Transaction, found: Sequence[Arrival | DeadLetter]) -> None:
        """Handle again what was handled well, and leave nothing of it in memory alone."""
        for arrival in found:
            if isinstance(arrival, DeadLetter):
                run.emit("dead.letters", arrival)
                continue
            try:
                self._processor.on_record(run, arrival)
            except Exception as error:
                if not is_the_records(error):
                    raise
                raise InvariantBroken(
                    f"{self._processor.name} handled {_place(arrival)}, and failed on it when it was repeated.",
                    "A processor must be a pure function of its records and tables.",
                ) from error
        self._prove(run)

    def _prove(self, run: Transaction) -> None:
        """Leave nothing in memory, and no row that can't be written: it is the last record's."""
        self._processor.flush(run)
        if not self._recorded:
            run.prove_rows()

    def _fail(self, arrival: Arrival, error: Exception) -> None:
        if isinstance(error, PoisonRecord) and error.arrival != arrival:
            raise InvariantBroken(
                f"{self._processor.name} named another record than {_place(arrival)}, which it was given."
            ) from error
        self._count(_place(arrival), error)

    def _count(self, what: str, error: Exception) -> None:
        self._in_a_row += 1
        if self._in_a_row > self._failures:
            raise HandlerBroken(
                f"{self._processor.name}[{self._task}] failed on {self._in_a_row} records in a row, the last being {what}:"
                f" {type(error).__name__}.",
                "Mend its code, then start it again; letters that it wrote before can be redriven.",
            ) from error

    # ---- buckets -----------------------------------------------------------------------------------------------------

    def bucket(self, run: Transaction, bucket: Bucket) -> None:
        """Compute a bucket.

        Raises:
            PoisonRecord: the processor named one of the bucket's records; the bucket has to be computed without it.
            Again: a row can't be written, which one of the free records before may have put.
            CrashLoop: the process died in this bucket too often, at none of its records.
        """
        if self._marks.careful and (deaths := self._marks.deaths_in(bucket.bucket_ms)):
            if deaths >= BUCKET_DEATHS:
                raise CrashLoop(
                    f"the process died {deaths} times in bucket {bucket.bucket_ms} of {self._processor.name}[{self._task}],"
                    " and at none of its records alone.",
                    f"Mend the code, then delete {self._marks.file} and start again.",
                )
            self._try_each(run, bucket)
        self._marks.bucket(bucket.bucket_ms)
        try:
            self._processor.on_bucket(run, bucket)
        except PoisonRecord as error:
            if not any(error.arrival in arrivals for arrivals in bucket.arrivals.values()):
                raise InvariantBroken(
                    f"{self._processor.name} named a record that bucket {bucket.bucket_ms} doesn't have."
                ) from error
            self._count(f"one of bucket {bucket.bucket_ms}", error)
            raise
        self._seal(run)
        self._marks.no_record()
        if any(bucket.arrivals.values()):
            self._in_a_row = 0

    def _try_each(self, run: Transaction, bucket: Bucket) -> None:
        """Compute the bucket with each of its records alone, and undo it: the one at which the process dies is marked."""
        self._processor.flush(run)
        run.hold()
        before = run.savepoint()
        for topic, arrivals in bucket.arrivals.items():
            for arrival in arrivals:
                alone = {name: [arrival] if name == topic else [] for name in bucket.arrivals}
                self._marks.record(arrival)
                try:
                    self._processor.on_bucket(run, Bucket(bucket.bucket_ms, alone, bucket.cuts, bucket.first))
                    self._processor.flush(run)
                except Exception as error:
                    if isinstance(error, _NOT_THE_RECORDS):
                        raise
                    # A bucket with most of it missing may be none that the processor can take; only deaths matter here.
                self._marks.no_record()
                self._marks.survived(arrival)
                run.undo(before)
                self._processor.restore(self._tables)
        run.release()

    # ---- rows --------------------------------------------------------------------------------------------------------

    def seal(self, run: Transaction) -> None:
        """Write the rows that are left, those that the processor has kept in memory among them.

        Raises:
            Again: one can't be written, which one of the free records may have put.
        """
        try:
            self._processor.flush(run)
        except Exception as error:
            self._blame_records(error)
            raise
        self._seal(run)

    def _seal(self, run: Transaction) -> None:
        try:
            run.seal()
        except Exception as error:
            self._blame_records(error)
            raise

    def _blame_records(self, error: Exception) -> None:
        """One by one, the record that is to blame shows. If none does, it is the code or a bucket, and the error stands."""
        if self._together and is_the_records(error):
            self._alone = True
            self._marks.no_record()
            raise Again from error


def _place(arrival: Arrival) -> str:
    return f"{arrival.topic}[{arrival.partition}]@{arrival.offset}"
