"""What data is, whatever files hold it: one digest over all bars in their one text."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from blake3 import blake3

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import text
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.texts import rows_of

FINGERPRINT_PREFIX: Final = "blake3:"

_BEGIN: Final = b"qmtl bars v1\n"
_ROWS: Final = 8192


class Fingerprint:
    """Takes symbols in ascending order, the bars of each in the order of their times."""

    def __init__(self) -> None:
        self._digest = blake3(_BEGIN)
        self._symbol: str | None = None

    def begin(self, symbol: str) -> None:
        """What follows are bars of this symbol.

        Raises:
            InvalidValue: the symbol comes not after the one before.
        """
        if self._symbol is not None and symbol <= self._symbol:
            raise InvalidValue(
                f"symbol {symbol!r} came after {self._symbol!r}; a fingerprint takes them sorted, each once.",
                "Sort them.",
            )
        self._symbol = symbol
        # The length of the symbol begins with a zero byte, which no row has: one symbol's bytes end where the next one's begin.
        name = symbol.encode()
        self._digest.update(len(name).to_bytes(8, "big") + name)

    def add(
        self, open_time_ms: int, open_: Decimal, high: Decimal, low: Decimal, close: Decimal, volume: Decimal
    ) -> None:
        """One bar."""
        numbers = (open_, high, low, close, volume)
        self._digest.update(",".join((str(open_time_ms), *map(text, numbers))).encode() + b"\n")

    def columns(self, bars: BarColumns) -> None:
        """Many bars."""
        for begin in range(0, len(bars), _ROWS):
            self._digest.update(rows_of(bars.chunk(begin, begin + _ROWS)))

    def text(self) -> str:
        """`blake3:` and 64 hex digits."""
        return FINGERPRINT_PREFIX + self._digest.hexdigest()


def fingerprint_of(series: Iterable[tuple[str, Iterable[BarColumns]]]) -> str:
    """That of these symbols with their bars in chunks; the same as of files with the same bars.

    Raises:
        InvalidValue: symbols that are not sorted, or one twice.
    """
    digest = Fingerprint()
    for symbol, chunks in series:
        digest.begin(symbol)
        for chunk in chunks:
            digest.columns(chunk)
    return digest.text()
