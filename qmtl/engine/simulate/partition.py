"""One partition of the simulated log: records, transaction markers that take offsets, compaction and retention."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from enum import Enum

from qmtl.engine.log.port import Record, TopicPartition


class State(Enum):
    """What became of the part of a transaction that lies in one partition."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


class Share:
    """The part of one transaction that lies in one partition.

    Attributes:
        first: the offset of its first record; while it is open, the last stable offset is not beyond it.
        records: how many of its records compaction has left.
    """

    __slots__ = ("first", "records", "state")

    def __init__(self, first: int) -> None:
        self.first = first
        self.records = 0
        self.state = State.OPEN


class Entry:
    """One offset that is taken: a record, or the marker that ends a share.

    Attributes:
        horizon_ms: when a tombstone or a marker that the cleaner has met may go; None until it has met it.
    """

    __slots__ = ("control", "horizon_ms", "key", "offset", "share", "timestamp_ms", "value")

    def __init__(
        self, offset: int, key: bytes, value: bytes | None, timestamp_ms: int, share: Share, control: bool
    ) -> None:
        self.offset = offset
        self.key = key
        self.value = value
        self.timestamp_ms = timestamp_ms
        self.share = share
        self.control = control
        self.horizon_ms: int | None = None

    @property
    def shown(self) -> bool:
        """Whether a reader of committed records may see it, once it has come so far."""
        return not self.control and self.share.state is State.COMMITTED


class Partition:
    """Entries in offset order; offsets are never given twice, and gaps stay gaps.

    Attributes:
        begin: the first offset that is kept.
        end: the high watermark, one past the last entry of any kind.
        history: every record that readers could ever see, in offset order, whatever was cleaned since: what the
            invariants look at. Complete up to the last stable offset after `settle`.
    """

    def __init__(self, where: TopicPartition) -> None:
        self.where = where
        self.begin = 0
        self.end = 0
        self.history: list[Record] = []
        self._entries: list[Entry] = []
        self._open: list[Share] = []
        self._settled = 0

    @property
    def stable(self) -> int:
        """The last stable offset."""
        return min((share.first for share in self._open), default=self.end)

    # ---- writing ------------------------------------------------------------------------------------------------

    def open_share(self) -> Share:
        """The share of a transaction that is about to write its first record here."""
        share = Share(self.end)
        self._open.append(share)
        return share

    def append(self, share: Share, key: bytes, value: bytes | None, now_ms: int) -> int:
        """A record of an open share; returns its offset."""
        offset = self._add(Entry(self.end, key, value, now_ms, share, control=False))
        share.records += 1
        return offset

    def end_share(self, share: Share, now_ms: int, *, commit: bool) -> None:
        """Write the marker: from here on the share's records show, or never will."""
        share.state = State.COMMITTED if commit else State.ABORTED
        self._open.remove(share)
        self._add(Entry(self.end, b"", None, now_ms, share, control=True))
        self.settle()

    def _add(self, entry: Entry) -> int:
        self._entries.append(entry)
        self.end += 1
        return entry.offset

    def settle(self) -> None:
        """Take into the history what has become stable."""
        stable = self.stable
        if self._settled >= stable:
            return
        for entry in self._entries[self._index(self._settled) :]:
            if entry.offset >= stable:
                break
            if entry.shown:
                self.history.append(self._record(entry))
        self._settled = stable

    # ---- reading ------------------------------------------------------------------------------------------------

    def read(self, position: int, limit: int) -> tuple[list[Record], int]:
        """Up to `limit` committed records from a position on, and the position after them.

        The position passes markers and aborted records, and stops at the last stable offset.
        """
        stable = self.stable
        out: list[Record] = []
        for index in range(self._index(position), len(self._entries)):
            entry = self._entries[index]
            if entry.offset >= stable:
                break
            if len(out) == limit:
                return out, out[-1].offset + 1 if out else position
            if entry.shown:
                out.append(self._record(entry))
        return out, max(position, stable)

    def first_at(self, timestamp_ms: int) -> int:
        """The first offset that was written at or after a time; the end where there is none."""
        return next(
            (entry.offset for entry in self._entries if entry.timestamp_ms >= timestamp_ms and entry.shown),
            self.end,
        )

    def _record(self, entry: Entry) -> Record:
        return Record(*self.where, entry.offset, entry.key, entry.value, entry.timestamp_ms)

    def _index(self, offset: int) -> int:
        return bisect_left(self._entries, offset, key=_offset_of)

    # ---- cleaning -----------------------------------------------------------------------------------------------

    def cleanable(self, now_ms: int, min_lag_ms: int) -> int:
        """How far the cleaner may come: not to the last stable offset, and not to what is younger than the lag."""
        stable = self.stable
        young = (entry.offset for entry in self._entries if entry.timestamp_ms > now_ms - min_lag_ms)
        return min(next(young, stable), stable)

    def compact(self, position: int, now_ms: int, delete_retention_ms: int) -> tuple[int, int]:
        """Compact what lies before a cleaner position; returns how many entries went, and how many were tombstones.

        As Kafka's cleaner: per key the newest committed record before the position stays, aborted records go, a tombstone
        stays for `delete_retention_ms` from the first cleaning that meets it, a marker as long once its records are gone.
        Order and offsets stay; nothing at or after the position is looked at.
        """
        self.settle()
        position = min(position, self.stable)
        newest = {
            entry.key: entry.offset for entry in self._entries if entry.offset < position and entry.shown
        }

        def stays(entry: Entry) -> bool:
            if entry.offset >= position:
                return True
            if not entry.control and (not entry.shown or newest[entry.key] != entry.offset):
                entry.share.records -= 1
                return False
            if entry.value is not None or (entry.control and entry.share.records):
                return True
            if entry.horizon_ms is None:
                entry.horizon_ms = now_ms + delete_retention_ms
            if entry.horizon_ms > now_ms:
                return True
            if not entry.control:
                entry.share.records -= 1
            return False

        return self._keep(stays)

    def _keep(self, stays: Callable[[Entry], bool]) -> tuple[int, int]:
        kept, gone, tombstones = [], 0, 0
        for entry in self._entries:
            if stays(entry):
                kept.append(entry)
                continue
            gone += 1
            tombstones += not entry.control and entry.value is None and entry.horizon_ms is not None
        self._entries = kept
        return gone, tombstones

    def trim(self, begin: int) -> bool:
        """Move the beginning of the log, as retention does; says whether anything went."""
        begin = min(begin, self.stable)
        if begin <= self.begin:
            return False
        self.settle()
        self.begin = begin
        del self._entries[: self._index(begin)]
        return True

    def older_than(self, timestamp_ms: int) -> int:
        """The offset up to which everything was written before a time."""
        young = (entry.offset for entry in self._entries if entry.timestamp_ms >= timestamp_ms)
        return next(young, self.end)


def _offset_of(entry: Entry) -> int:
    return entry.offset
