"""Which tables a transaction stamps, and how the stamps of a task's tables prove that all of them end with one transaction.

A transaction ends with a stamp only the tables that it wrote, and the first one, in which every transaction shows. A stamp names
for each of the tables what it ends with: this stamp, or an earlier one by its digest. So the newest stamp tells where every table
has to be, though most of them were written by nobody since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from blake3 import blake3

from qmtl.foundation.contracts.control import PositionStamp, TableStamp

DIGEST_BYTES: Final = 8

THIS_ONE: Final = ""
"""Stands in a stamp for its own digest, which it can't contain."""


def digest_of(stamp: bytes) -> str:
    """BLAKE3 (16 hex) over a stamp as it lies in the log."""
    return blake3(stamp).hexdigest(DIGEST_BYTES)


def to_be_stamped(
    tables: Iterable[str], written: Collection[str], known: Mapping[str, str]
) -> tuple[str, ...]:
    """The tables that a transaction stamps, in their order.

    Args:
        tables: of the processor, in its order.
        written: those into which the transaction has written.
        known: by table, the digest of the stamp with which it ends so far; one that ends with none is stamped whatever it holds.
    """
    return tuple(
        name for number, name in enumerate(tables) if number == 0 or name in written or name not in known
    )


def endings(
    tables: Collection[str], stamped: Collection[str], known: Mapping[str, str]
) -> tuple[TableStamp, ...]:
    """What a stamp says of the tables: nothing where there is one alone, which it ends."""
    if len(tables) == 1:
        return ()
    return tuple(TableStamp(name, THIS_ONE if name in stamped else known[name]) for name in tables)


def last_stamp(
    stamps: Mapping[str, tuple[bytes, PositionStamp]], ends: Mapping[str, str | None]
) -> tuple[bytes, PositionStamp] | None:
    """The one stamp that explains what all tables end with; None where none does.

    There is at most one: a stamp that names another's digest was written after it, so that two can't name each other.

    Args:
        stamps: by table, the last stamp in it, as bytes and decoded, where there is one at hand.
        ends: by table, the digest of its last stamp; None where it has none and no record.
    """
    for data, stamp in stamps.values():
        if _explains(stamp, digest_of(data), ends):
            return data, stamp
    return None


def _explains(stamp: PositionStamp, own: str, ends: Mapping[str, str | None]) -> bool:
    said = {one.table: one.digest or own for one in stamp.tables}
    # A stamp that names no table ends all that there were.
    return all(said.get(name, None if said else end and own) == end for name, end in ends.items())
