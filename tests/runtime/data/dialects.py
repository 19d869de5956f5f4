"""Exchanges on loopback that answer in the shapes of ccxt's recorded answers, each with its own way of paging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.runtime.data.exchange import MINUTE_MS, Row

Query = Mapping[str, list[str]]


def market(symbol: str, name: str) -> dict[str, Any]:
    """What ccxt needs to know of a market, so that nothing but time and bars is asked for."""
    base, quote = symbol.split("/")
    precision = {"amount": 1e-8, "price": 1e-8}
    return {
        "id": name,
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "type": "spot",
        "spot": True,
        "subType": None,
        "active": True,
        "precision": precision,
        "limits": {},
        "info": {},
    }


@dataclass
class Dialect:
    """An exchange: its name in ccxt, its one market, what it has, and what it was asked for."""

    exchange: str
    symbol: str
    market_id: str
    rows: list[Row] = field(default_factory=list)
    now_ms: int = 0
    asked: list[tuple[str, Query]] = field(default_factory=list)
    port: int = 0

    def settings(self) -> dict[str, Any]:
        """Of ccxt, so that it asks this server and nobody else."""
        address = f"http://127.0.0.1:{self.port}"
        return {
            "urls": {"api": {"public": address, "rest": address}},
            "markets": {self.symbol: market(self.symbol, self.market_id)},
            "has": {"fetchCurrencies": False},
            "rateLimit": 0.0,
            "timeout": 5000,
        }

    def answer(self, path: str, query: Query) -> str | None:
        """JSON, or None for what it does not know."""
        raise NotImplementedError

    def within(self, start_ms: int, end_ms: int) -> list[Row]:
        """What opens from the first on and before the second, the open bar too."""
        return [row for row in self.rows if start_ms <= row[0] < min(end_ms, self.now_ms)]


class Kraken(Dialect):
    """Seconds; bars from a time on, of which only the newest 720 are there at all; the last one is open."""

    def __init__(self) -> None:
        super().__init__("kraken", "BTC/USDT", "XBTUSDT")

    def answer(self, path: str, query: Query) -> str | None:
        if path == "/0/public/Time":
            return f'{{"error":[],"result":{{"unixtime":{self.now_ms // 1000},"rfc1123":""}}}}'
        if path != "/0/public/OHLC":
            return None
        since_ms = int(query["since"][0]) * 1000
        kept = [row for row in self.within(0, self.now_ms) if row[0] >= self.now_ms - 720 * MINUTE_MS]
        rows = ",".join(
            f'[{at // 1000},"{opened}","{high}","{low}","{close}","{opened}","{volume}",7]'
            for at, opened, high, low, close, volume in kept
            if at > since_ms
        )
        return f'{{"error":[],"result":{{"{query["pair"][0]}":[{rows}],"last":{kept[-1][0] // 1000}}}}}'


class Okx(Dialect):
    """Milliseconds as text, newest first: of what lies between two times, both exclusive, the newest 300."""

    def __init__(self) -> None:
        super().__init__("okx", "BTC/USDT", "BTC-USDT")

    def answer(self, path: str, query: Query) -> str | None:
        if path == "/api/v5/public/time":
            return f'{{"code":"0","data":[{{"ts":"{self.now_ms}"}}],"msg":""}}'
        if path not in ("/api/v5/market/candles", "/api/v5/market/history-candles"):
            return None
        found = self.within(int(query["before"][0]) + 1, int(query["after"][0]))
        rows = ",".join(
            f'["{at}","{opened}","{high}","{low}","{close}","{volume}","1","1","1"]'
            for at, opened, high, low, close, volume in reversed(found[-min(300, int(query["limit"][0])) :])
        )
        return f'{{"code":"0","msg":"","data":[{rows}]}}'


class Coinbase(Dialect):
    """JSON numbers, newest first, low before high: what lies between two times, both inclusive, at most 300."""

    def __init__(self) -> None:
        super().__init__("coinbaseexchange", "BTC/USDT", "BTC-USDT")

    def answer(self, path: str, query: Query) -> str | None:
        if path == "/time":
            return f'{{"iso":"","epoch":{self.now_ms / 1000}}}'
        if path != "/products/BTC-USDT/candles":
            return None
        start, end = (
            int(datetime.fromisoformat(query[name][0]).timestamp() * 1000) for name in ("start", "end")
        )
        if (end - start) // MINUTE_MS >= 300:
            return '{"message":"granularity too small for the requested time range"}'
        rows = ",".join(
            f"[{at // 1000},{low},{high},{opened},{close},{volume}]"
            for at, opened, high, low, close, volume in reversed(self.within(start, end + 1))
        )
        return f"[{rows}]"


DIALECTS: Sequence[type[Kraken] | type[Okx] | type[Coinbase]] = (Kraken, Okx, Coinbase)


@contextmanager
def speaking(dialect: Dialect) -> Iterator[Dialect]:
    """The exchange on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlparse(self.path)
            query = parse_qs(url.query)
            dialect.asked.append((url.path, query))
            found = dialect.answer(url.path, query)
            data = (found or '{"message":"not found"}').encode()
            refused = found is None or found.startswith('{"message"')
            self.send_response(400 if refused else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: what was asked is in `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    dialect.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield dialect
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
