"""A task's local store: a cache of a committed prefix of the log, in rocksdict, that may be deleted at any time.

Beside it lies at most one older state of it by hard links (`.kept`), taken after so many rows or bytes were written. A store
whose files no longer fit together begins there again and not at the start of the log.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from rocksdict import BlockBasedOptions, MemtableFactory, Options, Rdict, WriteBatch, WriteOptions
from rocksdict import Checkpoint as HardLinks

from qmtl.engine import stored
from qmtl.engine.failpoint import entering
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.log.rocks import damage_after, is_damage, is_full, is_held_here, is_locked, options
from qmtl.engine.stored import Accepted, Checkpoint, Reading, TopicFacts
from qmtl.foundation.common.errors import DiskFull, InvariantBroken, StoreUnavailable, TransactionAborted

KEEP_ROWS: Final = 1_000_000
KEEP_BYTES: Final = 64 << 20
"""So much is written between two states that are kept beside the store."""

META: Final = b"\x00meta"
_TOPICS: Final = b"\x00topics"
_ACCEPTED: Final = b"\x00accepted"
_READING: Final = b"\x00reading"
_log = logging.getLogger(__name__)


class Cause(Enum):
    """Why a store was not believed."""

    DAMAGED = "it is damaged"
    FORMAT = "it has another format"
    FOREIGN = "it was built from another log"
    TOO_OLD = "it may be older than the tombstones are kept"
    BEHIND = "the log no longer holds what comes after it"
    BROKEN_OFF = "a restore broke off in it"
    ACCEPTED = "an operator accepted the log as it is"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Told once whenever a store is thrown away.

    Attributes:
        kept: what goes on is an older state of the same store; else it begins empty and is built from the log.
    """

    directory: Path
    cause: Cause
    detail: str
    kept: bool


Tell = Callable[[Rebuilt], None]


def log_rebuilt(event: Rebuilt) -> None:
    """One warning on the logger of this module."""
    source = "an older state of it" if event.kept else "the log"
    _log.warning(
        "the store %s is built again from %s: %s (%s)",
        event.directory,
        source,
        event.cause.value,
        event.detail,
    )


class _Damaged(Exception):
    """The files of a store are no store of ours."""


Rows = Sequence[tuple[str, bytes, bytes | None]]
"""Table, key, and framed versions; None removes the key."""


class Store:
    """Rows of the tables of one task, with the checkpoint they are true for.

    Anything that does not look like a store of this log, format and task is wiped: the log has it all. Damage that shows only
    when a row is read wipes it too, and ends the transaction in which it was met with `TransactionAborted`. What the system refuses
    for want of something else is no damage.

    Args:
        tell: hears of every store that is thrown away.

    Raises:
        DiskFull: here and at every write; the store stays as it was.
        StoreUnavailable: here and everywhere: it could not be opened, read or written, or another process has it open; it stays as it
            was, and is to be closed.
        InvariantBroken: another worker of this process has it open.
    """

    def __init__(self, directory: Path, log_id: str, tell: Tell = log_rebuilt) -> None:
        self._directory = directory
        self._kept = directory.with_name(f"{directory.name}.kept")
        self._next = directory.with_name(f"{directory.name}.next")
        self._log_id = log_id
        self._tell = tell
        self._db: Any = None
        self._without_wal = WriteOptions()
        self._without_wal.disable_wal = True  # type: ignore[method-assign,assignment] # a property, not the method of its stub
        self._bulk = False
        self._rows_since, self._bytes_since = 0, 0
        self._forget()
        self._open()

    def _forget(self) -> None:
        self.checkpoint = Checkpoint(self._log_id)
        self.topics: Mapping[str, TopicFacts] = {}
        self.accepted: Accepted | None = None
        self.reading: Mapping[TopicPartition, Reading] = {}

    # ---- opening --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._load()
        except _Damaged as damage:
            self._fall_back(str(damage))
        if self.checkpoint.log_id != self._log_id:
            cause = Cause.FORMAT if self.checkpoint.log_id == stored.OTHER_FORMAT else Cause.FOREIGN
            self.wipe(cause, self.checkpoint.log_id)

    def _load(self) -> None:
        """Open what lies in the directory and read what it says of itself.

        Raises:
            _Damaged: it is no store.
            DiskFull, StoreUnavailable, InvariantBroken: see the class; nothing is open then.
        """
        try:
            self._load_as_it_is()
        except (ValueError, KeyError, TypeError) as error:  # what it says of itself can't be parsed
            self.close()
            raise _Damaged(f"{type(error).__name__}: {error}") from None
        except Exception as error:  # rocksdict raises bare Exception, so its text is all there is to tell by
            self.close()
            if is_locked(error):
                raise self._held(error) from None
            self._raise_if_full(error)
            if is_damage(str(error)):
                raise _Damaged(str(error)) from None
            raise self._unavailable(error) from None

    def _load_as_it_is(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        chosen = _bulk_options() if self._bulk else _row_options()
        # Named, as the options of an unnamed column family are taken from what the database was made with.
        self._db = Rdict(str(self._directory), chosen, column_families={"default": chosen})
        found = [self._db.get(name) for name in (META, _TOPICS, _ACCEPTED, _READING)]
        self.checkpoint = (
            stored.parse_checkpoint(found[0]) if found[0] is not None else Checkpoint(self._log_id)
        )
        self.topics = stored.parse_topics(found[1])
        self.accepted = stored.parse_accepted(found[2])
        self.reading = stored.parse_reading(found[3])

    def _held(self, error: Exception) -> StoreUnavailable | InvariantBroken:
        if is_held_here(error):
            return InvariantBroken(
                f"the store {self._directory} is held by another worker of this process.",
                "Stop it, or give each worker a --state-dir of its own.",
            )
        return StoreUnavailable(
            f"the store {self._directory} is held by another process.",
            "The task opens as soon as that process has closed it. If it does not: stop it, or give each worker a --state-dir of its own.",
            "store_held",
        )

    def _unavailable(self, error: object) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store {self._directory} can't be used: {error}.",
            "Mend what the message names (descriptors, memory, rights, the disk); the task opens again by itself. Where the disk has lost"
            " it, stop the worker and delete the directory.",
        )

    def _fall_back(self, detail: str) -> None:
        """Go on with the state that was kept beside the store, if there is one that opens; else begin empty."""
        for place in (self._next, self._kept):
            if not (place / "CURRENT").exists():
                continue
            self._remove(self._directory)
            try:
                place.rename(self._directory)
            except OSError as error:
                raise self._unavailable(error) from None
            kept = Rebuilt(self._directory, Cause.DAMAGED, detail, True)
            try:
                self._load()
            except _Damaged:
                continue  # this one is no good either
            except (DiskFull, StoreUnavailable):
                self._tell(kept)
                raise  # it lies where the store belongs, and is opened the next time
            self._tell(kept)
            return
        self.wipe(Cause.DAMAGED, detail)

    def wipe(self, cause: Cause, detail: str) -> None:
        """Throw everything away, what is kept beside it too, and begin empty."""
        for place in (self._directory, self._next, self._kept):
            self._remove(place)
        self._forget()
        if self._directory.exists():
            raise self._unavailable(f"it can't be deleted, and {cause.value} ({detail})")
        self._tell(Rebuilt(self._directory, cause, detail, False))
        try:
            self._load()
        except _Damaged as damage:  # an empty one can't be
            raise self._unavailable(damage) from None

    def _remove(self, place: Path) -> None:
        if place == self._directory and self._db is not None:
            with suppress(Exception):  # rocksdict raises bare Exception; it is thrown away
                self._db.close()
            self._db = None
        shutil.rmtree(place, ignore_errors=True)
        self._rows_since, self._bytes_since, self._bulk = 0, 0, False

    # ---- reading --------------------------------------------------------------------------------------------------

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._db.get(row_key(table, key))
        except Exception as error:  # rocksdict raises bare Exception
            raise self._damaged(str(error)) from None
        return found

    def scan(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and framed versions, in key order."""
        head = len(row_key(table, b""))
        last = start = row_key(table, prefix)
        for key, value in self._db.items(from_key=start):
            if not key.startswith(start):
                return
            last = key
            yield key[head:], value
        if (damage := damage_after(self._db, last)) is not None:
            raise self._damaged(damage)

    def _damaged(self, damage: str) -> TransactionAborted:
        if not is_damage(damage):
            return self._unavailable(damage)
        self._fall_back(damage)
        return TransactionAborted(f"the store {self._directory} was damaged and is built again: {damage}.")

    def is_empty(self) -> bool:
        """Whether it holds no row; a restore that broke off leaves rows without a checkpoint."""
        if next(iter(self._db.keys(from_key=_ROWS)), None) is not None:
            return False
        damage = damage_after(self._db, _ROWS)
        if damage is not None and not is_damage(damage):
            raise self._unavailable(damage)
        return damage is None

    # ---- writing --------------------------------------------------------------------------------------------------

    def write(self, rows: Rows, checkpoint: Checkpoint) -> None:
        """Rows and checkpoint in one batch; it ends a restore, and what an operator accepted is now in the log."""
        if not self._bulk and (self._rows_since >= KEEP_ROWS or self._bytes_since >= KEEP_BYTES):
            self.keep()  # before this transaction, so that no restore waits for it at its end
        if self._bulk:
            self._end_bulk()  # what was written without the write-ahead log comes before what is written with it
        batch = WriteBatch(raw_mode=True)
        size = 0
        heads: dict[str, bytes] = {}
        for table, key, value in rows:
            head = heads.get(table)
            if head is None:
                head = heads[table] = row_key(table, b"")
            if value is None:
                batch.delete(head + key)
            else:
                batch.put(head + key, value)
                size += len(key) + len(value)
        batch.put(META, stored.unparse_checkpoint(checkpoint))
        if self.accepted is not None:
            batch.delete(_ACCEPTED)
        if self.reading:
            batch.delete(_READING)
        entering("inside_store_write")
        self._write(batch)
        self.checkpoint, self.accepted, self.reading = checkpoint, None, {}
        self._rows_since += len(rows)
        self._bytes_since += size

    def batch(self) -> Any:
        """A batch to put framed rows in, by `row_key`, for `load`."""
        return WriteBatch(raw_mode=True)

    def begin_bulk(self) -> None:
        """Until the next `write` take rows by `load` alone, fast: in no order, and without the write-ahead log.

        What a death then leaves is an earlier batch boundary, and the restore goes on from it. Reading is slow meanwhile.
        """
        if not self._bulk:
            self._bulk = True
            self._reopen()

    def _reopen(self) -> None:
        self._db.close()
        try:
            self._load()
        except _Damaged as damage:
            raise self._damaged(str(damage)) from None

    def load(self, batch: Any, reading: Mapping[TopicPartition, Reading]) -> None:
        """Rows that a restore has read, with how far it is; the checkpoint stays what it was."""
        batch.put(META, stored.unparse_checkpoint(self.checkpoint))
        batch.put(_READING, stored.unparse_reading(reading))
        self._rows_since += len(batch)
        self._bytes_since += batch.size_in_bytes()
        self._write(batch, self._without_wal if self._bulk else None)
        self.reading = reading

    def _end_bulk(self) -> None:
        self._guarded(lambda: self._db.flush(True))
        self._bulk = False
        self._reopen()

    def know(self, topics: Mapping[str, TopicFacts]) -> None:
        """Remember what these topics are; what is known of others stays."""
        merged = {**self.topics, **topics}
        if merged != self.topics:
            batch = WriteBatch(raw_mode=True)
            batch.put(META, stored.unparse_checkpoint(self.checkpoint))
            batch.put(_TOPICS, stored.unparse_topics(merged))
            self._write(batch)
            self.topics = merged

    def accept(self, accepted: Accepted) -> None:
        """Remember an operator's decision until the next transaction."""
        batch = WriteBatch(raw_mode=True)
        batch.put(META, stored.unparse_checkpoint(self.checkpoint))
        batch.put(_ACCEPTED, stored.unparse_accepted(accepted))
        self._write(batch)
        self.accepted = accepted

    def _write(self, batch: Any, how: WriteOptions | None = None) -> None:
        self._guarded(lambda: self._db.write(batch) if how is None else self._db.write(batch, how))

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # rocksdict raises bare Exception
            self._raise_if_full(error)
            raise self._damaged(str(error)) from None

    def _raise_if_full(self, error: Exception) -> None:
        if is_full(error):
            raise DiskFull(
                f"the store {self._directory} could not be written: {error}.",
                "Make room; the task opens again by itself and reads again what it had not kept.",
            ) from None

    def keep(self) -> None:
        """Keep the state of now beside the store, by hard links; one at most. Where that fails, the one before stays."""
        self._rows_since, self._bytes_since = 0, 0
        try:
            for place in (self._next, self._next.with_name(f"{self._next.name}.tmp")):
                shutil.rmtree(place, ignore_errors=True)
            HardLinks(self._db).create_checkpoint(str(self._next))
            shutil.rmtree(self._kept, ignore_errors=True)
            self._next.rename(self._kept)
        except Exception as error:  # rocksdict raises bare Exception; the store itself is none the worse
            shutil.rmtree(self._next, ignore_errors=True)
            _log.warning("no state of the store %s was kept: %s", self._directory, error)

    def close(self) -> None:
        if self._db is not None:
            with suppress(
                Exception
            ):  # rocksdict raises bare Exception, where there is no room to end tidily: the next start mends it
                self._db.close()


def _row_options() -> Options:
    """Most keys that are asked for are new ones, as those of orders: a filter says so without a look into each file."""
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, False)
    chosen = options(write_buffer_mb=8)
    chosen.set_block_based_table_factory(blocks)
    return chosen


def _bulk_options() -> Options:
    """RocksDB takes rows as they come, and sorts and merges them on its own threads.

    The buffers are small: the end of a restore waits for what is not yet sorted when the last row has come.
    """
    chosen = options(write_buffer_mb=4)
    chosen.set_max_write_buffer_number(8)
    chosen.set_memtable_factory(MemtableFactory.vector())
    chosen.set_allow_concurrent_memtable_write(False)
    chosen.set_level_zero_file_num_compaction_trigger(96)
    chosen.set_level_zero_slowdown_writes_trigger(192)
    chosen.set_level_zero_stop_writes_trigger(256)
    return chosen


_ROWS: Final = b"\x01"


def row_key(table: str, key: bytes) -> bytes:
    """Where a row lies; an empty key gives what all rows of the table begin with."""
    return _ROWS + table.encode() + b"\x00" + key


def tables_of(first_key: Callable[[bytes], bytes | None]) -> list[str]:
    """The names of the tables that have rows, sorted.

    Args:
        first_key: the first key at or after one.
    """
    out: list[str] = []
    key = first_key(_ROWS)
    while key is not None and key.startswith(_ROWS):
        name = key[len(_ROWS) : key.index(b"\x00")]
        out.append(name.decode())
        key = first_key(_ROWS + name + b"\x01")  # right behind every row of that table
    return out
