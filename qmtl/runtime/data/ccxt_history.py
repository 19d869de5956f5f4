"""History of exchanges through ccxt: exact numbers, closed bars only, at the pace that the exchange allows. Needs the extra `edge`.

Beside the venue the only module that loads ccxt, and only when a provider is opened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from qmtl.foundation.common.errors import HistoryUnavailable, InvalidBar, LibraryMissing
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.decimals import BadNumber, scaled_together

PAGE_BARS: Final = 1000
CAUTIOUS_BARS: Final = 100
"""Of a page where ccxt does not know how many bars an exchange gives at once: one that gives fewer than were asked for would leave a hole."""

NEWEST_ONLY: Final[Mapping[str, int]] = {"kraken": 700}
"""Exchanges that give so many of their newest bars, whatever was asked for. Kraken gives 720 with the open one; the rest is for the time that
passes while they are asked for."""

RETRIES: Final = 6
BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0

_FIELDS: Final = ("open", "high", "low", "close", "volume")
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))

T = TypeVar("T")


class CcxtProvider:
    """The history of one exchange. A request that finds no answer is repeated, each time after twice the pause, and given up in the end."""

    def __init__(
        self,
        exchange: str,
        settings: Mapping[str, Any] | None = None,
        *,
        page_bars: int = PAGE_BARS,
        retries: int = RETRIES,
        backoff_s: float = BACKOFF_S,
        settle_s: int = 0,
    ) -> None:
        """Open it; nothing is asked yet.

        Args:
            exchange: as ccxt names it.
            settings: of ccxt for this exchange: a proxy, other addresses, options. No key is needed.
            retries: after the first try of each request.
            settle_s: a bar counts as closed so long after its end; who asks at once may get it without its last trades.

        Raises:
            LibraryMissing: ccxt is not installed.
            HistoryUnavailable: ccxt knows no such exchange, or it gives no history of bars.
        """
        try:
            import ccxt
        except ModuleNotFoundError as error:
            raise LibraryMissing(
                "ccxt is not installed; history of exchanges needs it.",
                "Install it: pip install 'qmtl[edge]'.",
            ) from error
        if exchange not in ccxt.exchanges:
            raise HistoryUnavailable(
                f"ccxt {ccxt.__version__} knows no exchange {exchange[:40]!r}.",
                "Give a name as ccxt writes it, such as binance.",
            )
        self._errors = ccxt
        self._client = getattr(ccxt, exchange)({**(settings or {}), "enableRateLimit": True})
        # Numbers stay the texts that the exchange has sent, also where they are numbers of JSON: a float in between would lose digits.
        self._client.on_json_response = partial(json.loads, parse_float=str)
        self._client.number = str
        self._exchange = exchange
        self._page_bars = page_bars
        self._retries = retries
        self._backoff_s = backoff_s
        self._settle_ms = settle_s * 1000
        if not self._client.has.get("fetchOHLCV"):
            raise HistoryUnavailable(
                f"{exchange} gives no history of bars.", "Take another exchange, or import files."
            )

    def source(self) -> Mapping[str, str]:
        return {"kind": "ccxt", "exchange": self._exchange}

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        """By the exchange's own clock; where it tells none, its newest bar is taken for the open one."""
        step = interval * 1000
        if self._client.has.get("fetchTime"):
            now_ms = int(self._asked("its time", self._client.fetch_time))
            return (now_ms - self._settle_ms) // step * step
        newest = self._page(symbol, interval, None, 2)
        return int(newest[-1][0]) if newest else 0

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        step = interval * 1000
        closed = self.closed_ms(symbol, interval)
        end = end_ms if closed is None else min(end_ms, closed)
        self._require_kept(symbol, start_ms, closed, step)
        most = min(self._page_bars, self._most_at_once(symbol))
        since = start_ms
        while since < end:
            limit = min(most, -(-(end - since) // step))
            rows = [row for row in self._page(symbol, interval, since, limit) if row[0] < end]
            if rows:
                yield self._columns(symbol, interval, rows)
            # A page without a bar is no end: nothing was traded for as long as a page, or before a symbol was listed.
            since = max(int(rows[-1][0]) + step, since + step) if rows else since + limit * step

    def _require_kept(self, symbol: str, start_ms: int, closed_ms: int | None, step: int) -> None:
        """What an exchange no longer gives can't be told from what was never traded: it is not asked for."""
        newest = NEWEST_ONLY.get(self._exchange)
        if newest is None or closed_ms is None or start_ms >= closed_ms - newest * step:
            return
        raise HistoryUnavailable(
            f"{self._exchange} gives its newest {newest} bars only; of {symbol} they begin at {closed_ms - newest * step},"
            f" and asked for was {start_ms}.",
            "Fetch from there, or longer bars, and import what is older from files; fetch often enough that nothing is lost.",
        )

    def _most_at_once(self, symbol: str) -> int:
        self._asked("its markets", self._client.load_markets)
        if symbol not in self._client.markets:
            return CAUTIOUS_BARS  # which the request for its bars will tell
        return int(self._client.feature_value(symbol, "fetchOHLCV", "limit", CAUTIOUS_BARS) or CAUTIOUS_BARS)

    def _page(self, symbol: str, interval: int, since: int | None, limit: int) -> Sequence[Sequence[Any]]:
        frame = timeframe(interval)
        frames = self._client.timeframes or {}
        if frame not in frames:
            raise HistoryUnavailable(
                f"{self._exchange} has no bars of {frame}; it has {', '.join(frames)[:200]}.",
                "Fetch shorter bars, and resample them.",
            )
        self._asked("its markets", self._client.load_markets)
        what = f"bars of {symbol} from {since}"
        found: Sequence[Sequence[Any]] = self._asked(
            what, lambda: self._client.fetch_ohlcv(symbol, frame, since, limit)
        )
        return found

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        """The answer to one request, which is repeated while the exchange can't be reached or asks for patience."""
        for tried in range(self._retries + 1):
            try:
                return ask()
            except self._errors.NetworkError as error:
                if tried == self._retries:
                    raise HistoryUnavailable(
                        f"{self._exchange} did not answer when it was asked {tried + 1} times for {what}: {_told(error)}.",
                        "Say it again later: what was fetched is kept, and it goes on from there.",
                    ) from error
                time.sleep(min(self._backoff_s * 2**tried, MAX_BACKOFF_S))
            except self._errors.BaseError as error:
                raise HistoryUnavailable(
                    f"{self._exchange} refused when it was asked for {what}: {_told(error)}.",
                    "Check the symbol as ccxt writes it, such as BTC/USDT, and whether the exchange serves your country.",
                ) from error
        raise AssertionError("a request is tried at least once")

    def _columns(self, symbol: str, interval: int, rows: Sequence[Sequence[Any]]) -> BarColumns:
        for row in rows:
            if len(row) < 1 + len(_FIELDS) or any(value is None for value in row[: 1 + len(_FIELDS)]):
                raise InvalidBar(
                    f"{self._exchange} gave a bar of {symbol} without all of its numbers: {list(row)!r:.200}.",
                    "Fetch another range, and import that bar from elsewhere.",
                )
        texts = [[str(row[at]) for row in rows] for at in range(1, 1 + len(_FIELDS))]
        try:
            open_, high, low, close = scaled_together(texts[:4])
            (volume,) = scaled_together(texts[4:])
        except BadNumber as bad:
            raise InvalidBar(
                f"{self._exchange} gave for the bar of {symbol} at {rows[bad.row][0]} a number of which it has to be said that {bad.rule}.",
                bad.remedy,
            ) from None
        times = np.array([int(row[0]) for row in rows], dtype=np.int64)
        return BarColumns(symbol, interval, times, open_, high, low, close, volume)


def timeframe(interval: int) -> str:
    """As ccxt writes an interval: 60 s are `1m`, a day is `1d`, seven are `1w`."""
    if interval == 7 * 86_400:
        return "1w"
    for seconds, unit in _UNITS:
        if interval % seconds == 0:
            return f"{interval // seconds}{unit}"
    raise AssertionError("one second divides all")


def _told(error: BaseException) -> str:
    cause = error.__cause__
    text = " ".join(str(error).split()) + (f" ({' '.join(str(cause).split())})" if cause else "")
    return f"{type(error).__name__}: {text[:300]}".rstrip(".")
