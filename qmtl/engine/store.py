"""A task's local store: a cache of a committed prefix of the log, in rocksdict, that may be deleted at any time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rocksdict import Rdict, WriteBatch

from qmtl.engine.log.embedded import damage_after, is_locked, options
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.common.errors import InvariantBroken, TransactionAborted

FORMAT: Final = 1
_META: Final = b"\x00meta"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a store contains.

    Attributes:
        log_id: the log that it was built from.
        tables: per table partition, the offset up to which its records are inside.
        positions: the input positions that belong to exactly that state.
        buckets: the last closed buckets of the task, oldest first.
        written_at_ms: when, by the log's clock; a store older than the tombstones' horizon is thrown away.
    """

    log_id: str
    tables: Mapping[TopicPartition, int] = field(default_factory=dict)
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    buckets: tuple[int, ...] = ()
    written_at_ms: int = 0


Rows = Sequence[tuple[str, bytes, bytes | None]]
"""Table, key, and framed versions; None removes the key."""


class Store:
    """Rows of the tables of one task, with the checkpoint they are true for.

    Anything that does not look like a store of this log, format and task is wiped: the log has it all. Damage that shows only
    when a row is read wipes it too, and ends the transaction in which it was met with `TransactionAborted`.
    """

    def __init__(self, directory: Path, log_id: str) -> None:
        self._directory = directory
        self._log_id = log_id
        self._db: Any = None
        self.checkpoint = Checkpoint(log_id)
        self._open()

    def _open(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._db = Rdict(str(self._directory), options(write_buffer_mb=8))
            found = self._db.get(_META)
            self.checkpoint = _parse(found) if found is not None else Checkpoint(self._log_id)
        except Exception as error:  # rocksdict raises bare Exception; whatever it is, the cache is no good
            if is_locked(error):
                raise InvariantBroken(
                    f"the store {self._directory} is held by another process.", "Stop it."
                ) from None
            self.wipe()
            return
        if self.checkpoint.log_id != self._log_id:
            self.wipe()

    def wipe(self) -> None:
        """Throw everything away and begin empty."""
        if self._db is not None:
            self._db.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._db = Rdict(str(self._directory), options(write_buffer_mb=8))
        self.checkpoint = Checkpoint(self._log_id)

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._db.get(_row(table, key))
        except Exception as error:  # rocksdict raises bare Exception
            raise self._damaged(str(error)) from None
        return found

    def scan(self, table: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys and framed versions, in key order."""
        head = len(_row(table, b""))
        last = start = _row(table, prefix)
        for key, value in self._db.items(from_key=start):
            if not key.startswith(start):
                return
            last = key
            yield key[head:], value
        if (damage := damage_after(self._db, last)) is not None:
            raise self._damaged(damage)

    def _damaged(self, damage: str) -> TransactionAborted:
        self.wipe()
        return TransactionAborted(f"the store {self._directory} was damaged and is built again: {damage}.")

    def is_empty(self) -> bool:
        """Whether it holds no row; a restore that broke off leaves rows without a checkpoint."""
        return next(iter(self._db.keys(from_key=b"\x01")), None) is None

    def write(self, rows: Rows, checkpoint: Checkpoint) -> None:
        """Rows and checkpoint in one batch."""
        batch = WriteBatch(raw_mode=True)
        heads: dict[str, bytes] = {}
        for table, key, value in rows:
            head = heads.get(table)
            if head is None:
                head = heads[table] = _row(table, b"")
            if value is None:
                batch.delete(head + key)
            else:
                batch.put(head + key, value)
        batch.put(_META, _unparse(checkpoint))
        self._db.write(batch)
        self.checkpoint = checkpoint

    def close(self) -> None:
        self._db.close()


def _row(table: str, key: bytes) -> bytes:
    return b"\x01" + table.encode() + b"\x00" + key


def _unparse(checkpoint: Checkpoint) -> bytes:
    return json.dumps(
        {
            "format": FORMAT,
            "log_id": checkpoint.log_id,
            "tables": [[*where, offset] for where, offset in sorted(checkpoint.tables.items())],
            "positions": [[*where, offset] for where, offset in sorted(checkpoint.positions.items())],
            "buckets": list(checkpoint.buckets),
            "written_at_ms": checkpoint.written_at_ms,
        }
    ).encode()


def _parse(data: bytes) -> Checkpoint:
    raw = json.loads(data)
    if raw["format"] != FORMAT:
        return Checkpoint(log_id="another format")
    return Checkpoint(
        raw["log_id"],
        {TopicPartition(topic, partition): offset for topic, partition, offset in raw["tables"]},
        {TopicPartition(topic, partition): offset for topic, partition, offset in raw["positions"]},
        tuple(raw["buckets"]),
        raw["written_at_ms"],
    )
