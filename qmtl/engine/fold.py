"""Folds the records of a table into rows of the store: by the table itself, or directly where only the last value counts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from qmtl.engine.log.port import Columns
from qmtl.engine.store import row_key
from qmtl.engine.stored import Reading
from qmtl.engine.table import FRAME, UNMARKED, Table
from qmtl.engine.transaction import MARKERS_KEPT, horizon_of
from qmtl.foundation.common.errors import StateMismatch, WireError
from qmtl.foundation.contracts.control import GENESIS_MS, CloseMarker
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker, is_reserved, is_stamp

SAMPLES: Final = 32
"""So many rows of a table are decoded at a restore."""


class _Heads(dict[int, bytes]):
    """What a row of one version begins with, by the length of its value."""

    def __missing__(self, length: int) -> bytes:
        if len(self) > _HEADS_KEPT:
            self.clear()
        head = self[length] = FRAME.pack(UNMARKED, length)
        return head


_HEADS_KEPT: Final = 10_000
_HEADS: Final = _Heads()


@dataclass(slots=True)
class Fold:
    """One table while it is restored.

    Attributes:
        buckets: the last closed ones, oldest first.
        stamp: the last position stamp, as it lay in the log.
        marker: the last close marker.
        records: how many were read.
        samples: how many rows are still to be looked at, to see whether their keys are those of the catalogue.
        looked, strange: how many were, and how many had another key.
        ended: what was read ends with a stamp, as a transaction does.
    """

    table: Table
    codec: Codec
    buckets: tuple[int, ...] = ()
    stamp: bytes | None = None
    marker: bytes | None = None
    records: int = 0
    samples: int = 0
    looked: int = 0
    strange: int = 0
    ended: bool = True
    _prefix: bytes = field(init=False)

    def __post_init__(self) -> None:
        self._prefix = row_key(self.table.spec.name, b"")

    def simply(self, batch: Any, found: Columns) -> int:
        """Record by record, by the table; returns how many rows changed.

        It is right for every table, and the measure of `directly`.
        """
        for key, value in zip(found.keys, found.values, strict=True):
            if is_reserved(key):
                self._reserved(key, value)
            else:
                open_ms = (self.buckets[-1] if self.buckets else GENESIS_MS) + 1
                self.table.restore(key, value, open_ms, horizon_of(self.buckets, self.table.look_back))
        changes = self.table.changes()
        for name, key, row in changes:
            if row is None:
                batch.delete(row_key(name, key))
            else:
                batch.put(row_key(name, key), row)
        self._look_at(found)
        return len(changes)

    def directly(self, batch: Any, found: Columns) -> int:
        """The last value per key, framed at once; only for tables on which nothing looks back."""
        last: dict[bytes, bytes | None] = dict(zip(found.keys, found.values, strict=True))
        if min(last) < b"\x01":
            for key, value in zip(found.keys, found.values, strict=True):
                if key[:1] == b"\x00":
                    self._reserved(key, value)
                    last.pop(key, None)
        prefix, heads, put = self._prefix, _HEADS, batch.put
        for key, value in last.items():
            if value is None:
                batch.delete(prefix + key)
            else:
                put(prefix + key, heads[len(value)] + value)
        self._look_at(found)
        return len(last)

    def _reserved(self, key: bytes, value: bytes | None) -> None:
        if not is_marker(key):
            self.stamp = self.stamp if value is None else value
        elif value is not None:
            self.marker = value
            if (bucket_ms := decode_marker_bucket(key)) != GENESIS_MS:
                self.buckets = (*self.buckets, bucket_ms)[-MARKERS_KEPT:]

    def reading(self, offset: int) -> Reading:
        """How far this table is, to go on from after a death."""
        return Reading(offset, self.buckets, self.stamp)

    # ---- what the log says of the state itself ---------------------------------------------------------------------

    def _look_at(self, found: Columns) -> None:
        self.ended = is_stamp(found.keys[-1])
        spec = self.table.spec
        for key, value in zip(found.keys, found.values, strict=True):
            if self.samples <= 0:
                return
            if value is not None and not is_reserved(key):
                self.samples -= 1
                # What does not decode is told by whoever reads the row.
                with suppress(WireError):
                    message = self.codec.decode_as(value, frozenset(spec.messages))
                    self.looked += 1
                    self.strange += encode_key(spec.key_of(message)) != key

    def check_keys(self) -> None:
        """Hold the keys of the rows that were looked at to the catalogue; a single strange row says nothing of the others.

        Raises:
            StateMismatch: all of them, and not only one, lie under another key.
        """
        if 1 < self.looked == self.strange:
            spec = self.table.spec
            raise StateMismatch(
                f"none of the {self.looked} rows of {spec.name} that were looked at lies under the key {'/'.join(spec.key)}"
                " of the catalogue.",
                "A key is never changed in place: move to a new topic, and give it the rows of this one.",
            )

    def check_tasks(self, tasks: int) -> None:
        """Hold the number of tasks to the one that the last close marker was written under.

        Raises:
            StateMismatch: another one.
        """
        if self.marker is None:
            return
        marker: CloseMarker = self.codec.decode(self.marker)
        if marker.tasks != tasks:
            raise StateMismatch(
                f"{self.table.spec.name} was written by {marker.tasks} tasks, and there are {tasks} now.",
                "The partitions of an anchor are never changed in place: move to new topics.",
            )
