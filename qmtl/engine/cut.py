"""What a close marker says of the records before it: how many there are, and a digest; writer and reader compute the same.

Of an event topic these are all records, in order. Of a table they are the last values of the rows that were written since the marker
before, in the order of their keys: how often a row was written depends on how the work was split into transactions; which rows
were, and what they ended as, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from blake3 import blake3

OpenRows: TypeAlias = dict[bytes, bytes | None]
"""The last value by key; None for a row that was deleted."""

Proof: TypeAlias = tuple[int, str]
"""Count and digest."""

_NO_ROWS: Final = blake3(b"").hexdigest(8)


class CutDigest:
    """Counts and digests the records between two markers; writer and reader compute the same."""

    __slots__ = ("_hash", "count")

    def __init__(self) -> None:
        self.count = 0
        self._hash: Any = None

    def add(self, key: bytes, value: bytes | None) -> None:
        if self._hash is None:
            self._hash = blake3()
        body = b"" if value is None else value
        self._hash.update(b"%d:%d:%d:" % (len(key), value is not None, len(body)) + key + body)
        self.count += 1

    def copy(self) -> CutDigest:
        """One that goes on from here by itself."""
        other = CutDigest()
        other.count = self.count
        other._hash = None if self._hash is None else self._hash.copy()
        return other

    def hexdigest(self) -> str:
        return "" if self._hash is None else self._hash.hexdigest(8)


def proof_of(rows: Mapping[bytes, bytes | None]) -> Proof:
    """What the marker of a table says of these rows: how many, and their BLAKE3 (16 hex); never empty, which means "not told"."""
    if not rows:
        return 0, _NO_ROWS
    cut = CutDigest()
    for key in sorted(rows):
        cut.add(key, rows[key])
    return cut.count, cut.hexdigest()
