"""A table: the last value per key of a compacted topic, with as many older versions as a delayed edge looks back."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from qmtl.engine.store import Store
from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import Keys, key_prefix
from qmtl.foundation.wire.topics import TopicSpec, getter

UNMARKED: Final = 0
"""The bucket of rows in a table that no delayed edge looks back on: one version, whenever it was written."""

FRAME: Final = struct.Struct(">qi")  # bucket, length; -1 is a tombstone
_CACHE_ROWS: Final = 100_000
_ABSENT: Final = object()


class Version:
    """One value of one key, true from the close of its bucket on."""

    __slots__ = ("_message", "bucket_ms", "data")

    def __init__(self, bucket_ms: int, data: bytes | None, message: Any = None) -> None:
        self.bucket_ms = bucket_ms
        self.data = data
        self._message = message

    def message(self, codec: Codec) -> Any:
        if self._message is None and self.data is not None:
            self._message = codec.decode(self.data)
        return self._message


Versions = tuple[Version, ...]


class LiveKeys:
    """The keys of the rows that are there, in order."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._known = dict.fromkeys(keys)
        self._sorted: list[bytes] | None = None

    def __contains__(self, key: bytes) -> bool:
        return key in self._known

    def note(self, key: bytes, is_there: bool) -> None:
        if (key in self._known) is is_there:
            return
        self._sorted = None
        if is_there:
            self._known[key] = None
        else:
            del self._known[key]

    def under(self, prefix: bytes, others: Iterable[bytes]) -> list[bytes]:
        """Those that begin so, and of others those too."""
        if self._sorted is None:
            self._sorted = sorted(self._known)
        found = self._sorted
        begin = bisect_left(found, prefix)
        end = begin
        if begin < len(found) and found[-1].startswith(prefix):
            end = len(found)
        else:
            while end < len(found) and found[end].startswith(prefix):
                end += 1
        own = found[begin:end]
        fresh = [key for key in others if key not in self._known and key.startswith(prefix)]
        return sorted((*own, *fresh)) if fresh else own


class Table:
    """One partition of one table.

    What a processor puts is staged: it can be read back at once with `get`, becomes a version when its bucket is sealed,
    reaches the log with its transaction, and the store after the commit.

    Args:
        look_back: how many closed buckets the oldest delayed edge on this table looks back; 0 for none.
    """

    def __init__(
        self, spec: TopicSpec, partition: int, store: Store, codec: Codec, look_back: int = 0
    ) -> None:
        self.spec = spec
        self.partition = partition
        self.look_back = look_back
        self._store = store
        self._codec = codec
        self._cache: dict[bytes, Versions] = {}
        self._stage: dict[bytes, Any] = {}
        self._noted: dict[bytes, None] | None = None
        self._dirty: dict[bytes, None] = {}
        self._raw = Keys()
        self._key_of = getter(spec.key)
        self._graves: deque[tuple[int, bytes]] | None = None
        self._live: LiveKeys | None = None

    # ---- reading ------------------------------------------------------------------------------------------------

    def get(self, *key: str | int) -> Any:
        """The newest value, staged ones included; None where there is none."""
        raw = self._raw[key]
        staged = self._stage.get(raw, _ABSENT)
        if staged is not _ABSENT:
            return staged
        versions = self._versions(raw)
        return versions[-1].message(self._codec) if versions else None

    def at(self, bucket_ms: int, *key: str | int) -> Any:
        """The value at the cut of a bucket: the newest that was sealed at or before it."""
        return self._cut(self._versions(self._raw[key]), bucket_ms)

    def items(self, *prefix: str | int) -> Iterator[Any]:
        """The newest values under a key prefix, staged ones included, in key order."""
        for raw in self._keys(key_prefix(prefix)):
            if raw in self._stage:
                value = self._stage[raw]
            else:
                versions = self._versions(raw)
                value = versions[-1].message(self._codec) if versions else None
            if value is not None:
                yield value

    def load(self) -> Iterator[Any]:
        """As `items` of the whole table, for whoever makes memory of it: nothing may be put meanwhile, and nothing of it is kept here."""
        if self._stage or self._dirty:
            yield from self.items()
            return
        decode = self._codec.decode
        for _, row in self._store.scan(self.spec.name):
            data = unframe(row)[-1].data if len(row) != _whole(row) else row[FRAME.size :]
            if data is not None:
                yield decode(data)

    def items_at(self, bucket_ms: int, *prefix: str | int) -> Iterator[Any]:
        """The values under a key prefix at the cut of a bucket, in key order."""
        for raw in self._keys(key_prefix(prefix)):
            value = self._cut(self._versions(raw), bucket_ms)
            if value is not None:
                yield value

    def _cut(self, versions: Versions, bucket_ms: int) -> Any:
        for version in reversed(versions):
            if version.bucket_ms <= bucket_ms:
                return version.message(self._codec)
        return None

    def _keys(self, prefix: bytes) -> Sequence[bytes]:
        if self.look_back:
            return self._live_keys().under(prefix, self._stage)
        stored = [key for key, _ in self._store.scan(self.spec.name, prefix)]
        fresh = [key for key in (*self._dirty, *self._stage) if key.startswith(prefix)]
        return sorted({*stored, *fresh}) if fresh else stored

    def _live_keys(self) -> LiveKeys:
        """The keys that have a version. Rows of a table that is looked back on come and go bucket by bucket, and a store takes the longer to
        be scanned the more of what it scans was deleted."""
        if self._live is None:
            self._live = LiveKeys(key for key, _ in self._store.scan(self.spec.name))
            for raw in self._dirty:
                self._live.note(raw, bool(self._cache[raw]))
        return self._live

    def _versions(self, raw: bytes) -> Versions:
        found = self._cache.get(raw)
        if found is None:
            if self._live is not None and raw not in self._live:
                return ()
            found = self._cache[raw] = unframe(self._store.get(self.spec.name, raw))
        return found

    # ---- writing ------------------------------------------------------------------------------------------------

    def put(self, message: Any) -> None:
        """Stage a value under the key that the catalogue gives it."""
        raw = self._raw[self._key_of(message)]
        self._stage[raw] = message
        if self._noted is not None:
            self._noted[raw] = None

    def delete(self, *key: str | int) -> None:
        """Stage a tombstone, if there is anything to delete."""
        raw = self._raw[key]
        if self.get(*key) is not None:
            self._stage[raw] = None

    def seal(
        self, bucket_ms: int, horizon_ms: int, encode: Callable[[Any], bytes] | None = None
    ) -> Sequence[tuple[bytes, bytes | None]]:
        """Turn what is staged into versions of the bucket; returns key and value of each, in the order of first touch.

        Args:
            horizon_ms: no delayed edge will ask for a cut before this bucket.
            encode: the codec's, or one that remembers what was written in this transaction.
        """
        encode = encode or self._codec.encode
        out = []
        for raw, message in self._stage.items():
            data = None if message is None else encode(message)
            self._append(raw, Version(bucket_ms, data, message), horizon_ms)
            out.append((raw, data))
        self._stage.clear()
        self.bury(horizon_ms)
        return out

    def restore(self, raw: bytes, data: bytes | None, bucket_ms: int, horizon_ms: int) -> None:
        """Take a row from the log, as recovery does."""
        self._append(raw, Version(bucket_ms, data), horizon_ms)

    def _append(self, raw: bytes, version: Version, horizon_ms: int) -> None:
        self._dirty[raw] = None
        if not self.look_back:  # only the newest value counts, whatever was there
            version.bucket_ms = UNMARKED
            self._cache[raw] = () if version.data is None else (version,)
            return
        older = self._versions(raw)
        keep = 0
        for index, one in enumerate(older):
            if one.bucket_ms <= horizon_ms:
                keep = index  # the newest at or before the horizon, and everything after it
        older = tuple(one for one in older[keep:] if one.bucket_ms < version.bucket_ms)
        versions = (*older, version)
        while versions and versions[0].data is None:  # nothing before a tombstone says the same
            versions = versions[1:]
        self._cache[raw] = versions
        if self._live is not None:
            self._live.note(raw, bool(versions))
        if versions and version.data is None and self._graves is not None:
            self._graves.append((version.bucket_ms, raw))

    def bury(self, horizon_ms: int) -> None:
        """Drop the rows that were deleted at or before the horizon: no cut shows them any more."""
        if not self.look_back:
            return
        if self._graves is None:
            self._graves = deque(sorted(self._deleted()))
        while self._graves and self._graves[0][0] <= horizon_ms:
            _, raw = self._graves.popleft()
            versions = self._versions(raw)
            if versions and versions[-1].data is None and versions[-1].bucket_ms <= horizon_ms:
                self._cache[raw] = ()
                self._dirty[raw] = None
                if self._live is not None:
                    self._live.note(raw, False)

    def _deleted(self) -> Iterator[tuple[int, bytes]]:
        """Rows whose newest version is a tombstone, with its bucket."""
        for raw, row in self._store.scan(self.spec.name):
            newest = unframe(row)[-1]
            if newest.data is None and raw not in self._dirty:
                yield newest.bucket_ms, raw
        for raw in self._dirty:
            versions = self._cache[raw]
            if versions and versions[-1].data is None:
                yield versions[-1].bucket_ms, raw

    def note(self, wanted: bool) -> None:
        """Whether it is noted for `noted` what is put; it begins, or ends, with nothing noted."""
        self._noted = {} if wanted else None

    def noted(self) -> list[Any]:
        """What is staged under the keys that were put since this was asked last, without tombstones."""
        if not self._noted:
            return []
        found, self._noted = self._noted, {}
        return [message for raw in found if (message := self._stage.get(raw)) is not None]

    def staged(self) -> dict[bytes, Any]:
        """What is staged now, for `unstage`."""
        return dict(self._stage)

    def unstage(self, staged: dict[bytes, Any]) -> None:
        """Have staged again what was staged then, and nothing noted; nothing may have been sealed since."""
        self._stage = dict(staged)
        self.noted()

    # ---- ends of a transaction ------------------------------------------------------------------------------------

    def changes(self) -> list[tuple[str, bytes, bytes | None]]:
        """What the store has to write for the sealed rows since the last commit."""
        if self._stage:
            raise InvariantBroken(f"table {self.spec.name} has staged rows that no bucket sealed.")
        return [(self.spec.name, raw, frame(self._cache[raw])) for raw in self._dirty]

    def committed(self) -> None:
        """The store has it."""
        self._dirty.clear()
        if len(self._cache) > _CACHE_ROWS:
            self._cache.clear()

    def rollback(self) -> None:
        """Forget everything that the store does not have."""
        self._stage.clear()
        self._noted = None
        self._dirty.clear()
        self._cache.clear()
        self._graves = self._live = None


def frame(versions: Versions) -> bytes | None:
    """The bytes of a store row; None where only tombstones are left."""
    if len(versions) == 1 and (data := versions[0].data) is not None:
        return frame_one(data, versions[0].bucket_ms)
    if all(version.data is None for version in versions):
        return None
    parts = []
    for version in versions:
        parts.append(FRAME.pack(version.bucket_ms, -1 if version.data is None else len(version.data)))
        parts.append(version.data or b"")
    return b"".join(parts)


def frame_one(data: bytes, bucket_ms: int = UNMARKED) -> bytes:
    """The bytes of a store row with one version."""
    return FRAME.pack(bucket_ms, len(data)) + data


def _whole(row: bytes) -> int:
    """How long a store row is if it has but its first version; 0 where that is a tombstone."""
    _, length = FRAME.unpack_from(row)
    return 0 if length < 0 else FRAME.size + int(length)


def unframe(row: bytes | None) -> Versions:
    """The versions of a store row, oldest first."""
    if row is None:
        return ()
    out = []
    at = 0
    while at < len(row):
        bucket_ms, length = FRAME.unpack_from(row, at)
        at += FRAME.size
        data = None if length < 0 else row[at : at + length]
        out.append(Version(bucket_ms, data))
        at += max(length, 0)
    return tuple(out)
