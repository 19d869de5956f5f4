"""An exchange on loopback that answers as Binance documents it, with what goes wrong on a wire: the one half that ccxt does not bring."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

MINUTE_MS = 60_000
START_MS = 1_600_000_020_000 // MINUTE_MS * MINUTE_MS

Row = tuple[int, str, str, str, str, str]

MARKETS: Mapping[str, Any] = {
    "timezone": "UTC",
    "serverTime": 0,
    "rateLimits": [],
    "exchangeFilters": [],
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "baseAsset": "BTC",
            "baseAssetPrecision": 8,
            "quoteAsset": "USDT",
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": "0.01",
                    "maxPrice": "1000000.00",
                    "tickSize": "0.01",
                },
                {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.0", "stepSize": "0.00001"},
            ],
            "permissions": ["SPOT"],
        }
    ],
}


def rows_of(count: int, without: Sequence[int] = ()) -> list[Row]:
    """Bars of consecutive minutes, with digits that no float holds, and some of them absent."""
    return [
        (
            START_MS + at * MINUTE_MS,
            f"{10_000 + at}.10000001",
            f"{10_003 + at}.00000003",
            f"{9_999 + at}.00000007",
            f"{10_002 + at}.12345679",
            f"{900_000_000 + at}.12345678",
        )
        for at in range(count)
        if at not in without
    ]


@dataclass
class Exchange:
    """What it has, and what goes wrong with its next answers about bars, one after another.

    Faults: a status (429, 418, 500, 503), `half` a page, every row `twice`, a `liar` that says two things of one minute, an answer that is
    `cut` off, one that `refuses`; anything else is none.
    """

    rows: list[Row]
    now_ms: int
    faults: list[int | str] = field(default_factory=list)
    page_only: bool = False  # some exchanges look no further than the page that was asked for
    asked: list[int] = field(default_factory=list)
    port: int = 0

    def settings(self) -> dict[str, Any]:
        """Of ccxt, so that it asks this server and nobody else."""
        address = f"http://127.0.0.1:{self.port}/api/v3"
        return {
            "urls": {"api": {"public": address, "private": address, "v1": address}},
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
            "has": {"fetchCurrencies": False},
            "rateLimit": 0.0,
            "timeout": 5000,
        }

    def answer(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Any]:
        name = path.rsplit("/", 1)[-1]
        if name == "time":
            return 200, {"serverTime": self.now_ms}
        if name == "exchangeInfo":
            return 200, MARKETS
        if name != "klines":
            return 404, {"code": -1, "msg": f"no {name}"}
        start, limit = int(query["startTime"][0]), int(query["limit"][0])
        self.asked.append(start)
        end = start + limit * MINUTE_MS if self.page_only else self.now_ms
        page = [self._kline(row) for row in self.rows if start <= row[0] < end][:limit]
        fault = self.faults.pop(0) if self.faults else None
        match fault:
            case int():
                return fault, {"code": -1003, "msg": "Too many requests."}
            case "half":
                page = page[: max(1, len(page) // 2)]
            case "twice":
                page = [one for row in page for one in (row, row)]
            case "liar":
                page = [page[0], [page[0][0], *page[0][1:5], "999", *page[0][6:]], *page[1:]]
            case "refuses":
                return 400, {"code": -1121, "msg": "Invalid symbol."}
            case "cut":
                return 0, page
            case _:
                pass
        return 200, page

    @staticmethod
    def _kline(row: Row) -> list[Any]:
        return [*row, row[0] + MINUTE_MS - 1, "0", 1, "0", "0", "0"]


@contextmanager
def serving(exchange: Exchange) -> Iterator[Exchange]:
    """The exchange on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlparse(self.path)
            status, body = exchange.answer(asked.path, parse_qs(asked.query))
            data = json.dumps(body).encode()
            self.send_response(status or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if status:
                self.wfile.write(data)
            else:
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what was asked is in `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    exchange.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield exchange
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
