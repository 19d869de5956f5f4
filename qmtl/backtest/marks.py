"""What bars that lie in columns say at the close of a bucket."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from decimal import Decimal

from qmtl.runtime.columns import BarColumns


class ColumnMarks:
    """Closes of bars that lie in columns."""

    def __init__(self, bars: Mapping[str, BarColumns]) -> None:
        self._bars = bars
        self._buckets = {symbol: one.bucket_ms.tolist() for symbol, one in bars.items()}

    def close(self, symbol: str, bucket_ms: int) -> tuple[Decimal, int] | None:
        buckets = self._buckets[symbol]
        at = bisect_right(buckets, bucket_ms) - 1
        return None if at < 0 else (self._bars[symbol].close.at(at), buckets[at])

    def next_bar(self, symbol: str, created_at_ms: int) -> int | None:
        """The place of the first bar that opens at or after an instant."""
        step_ms = self._bars[symbol].interval * 1000
        at = bisect_left(self._buckets[symbol], created_at_ms + step_ms)
        return at if at < len(self._buckets[symbol]) else None

    def bucket(self, symbol: str, at: int) -> int:
        found: int = self._buckets[symbol][at]
        return found
