"""The fake exchange on the wire: HTTP on loopback, its faults, and the door by which a test tells it what to do."""

from __future__ import annotations

import json
import select
import socket
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock
from typing import Any, Final
from urllib.parse import urlsplit

from qmtl.foundation.common.errors import QmtlError
from qmtl.foundation.common.money import parse_decimal
from qmtl.testing.exchange.api import PUBLIC, SIGNED, Api
from qmtl.testing.exchange.book import NO_BALANCE, Book, Refusal
from qmtl.testing.exchange.faults import DEFAULT_AT, ORDER, Fault, Faults, Planned
from qmtl.testing.exchange.ledger import Entry, Ledger
from qmtl.testing.exchange.values import TakenOrder, fill_json, listed, order_json, with_price

PATIENCE_S: Final = 60.0
"""How long an answer that never comes is held back at most."""

MAX_BODY: Final = 65_536

_PAGE: Final = b"<html><body>Something went wrong</body></html>"
_TAKEN: Final = frozenset(
    {
        Fault.TAKEN_CUT,
        Fault.TAKEN_503,
        Fault.TAKEN_SILENT,
        Fault.TAKEN_GARBAGE,
        Fault.TAKEN_HALF,
        Fault.TAKEN_FIELD,
    }
)
_SAID: Final[Mapping[Fault, tuple[int, Any]]] = {
    Fault.UNAVAILABLE_503: (503, {"code": -1001, "msg": "Internal error; unable to process your request."}),
    Fault.LIMIT_429: (429, {"code": -1003, "msg": "Too much request weight used."}),
    Fault.BAN_418: (418, {"code": -1003, "msg": "Way too much request weight used; IP banned."}),
    Fault.FIREWALL_403: (403, _PAGE),
    Fault.NO_BALANCE: (NO_BALANCE[0], {"code": NO_BALANCE[1], "msg": NO_BALANCE[2]}),
    Fault.UNKNOWN_CODE: (400, {"code": -1006, "msg": "Execution status unknown."}),
    Fault.ABSENT: (400, {"code": -2013, "msg": "Order does not exist."}),
}


class Exchange:
    """What the process holds: the book, the ledger, the faults to come, and what it has counted."""

    def __init__(self, book: Book, ledger: Ledger, key: str, secret: str) -> None:
        self.book, self.faults = book, Faults()
        self._ledger = ledger
        self.lock, self.stopping = Lock(), Event()
        self.api = Api(book, key, secret, self.keep)
        self.counts: Counter[str] = Counter()
        self.connections = self.decided = 0
        self.first_signed_ms = self.last_signed_ms = 0
        for entry in ledger.opened():
            book.applied(entry)

    def keep(self, entry: Entry) -> None:
        self._ledger.append(entry)
        self.book.applied(entry)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.book.rules.skew_ms

    def counted(self, endpoint: str) -> Fault | None:
        """Count a request, and the fault that is planned for it."""
        with self.lock:
            self.counts[endpoint] += 1
            if endpoint in SIGNED:
                self.last_signed_ms = self.now_ms()
                self.first_signed_ms = self.first_signed_ms or self.last_signed_ms
            return self.faults.next(endpoint)

    # ---- the door for tests ----------------------------------------------------------------------------------

    def told(self, endpoint: str, given: Mapping[str, Any]) -> Any:
        """Do what a test asks for.

        Raises:
            Refusal, QmtlError, KeyError, TypeError, ValueError
        """
        book, now_ms = self.book, self.now_ms()
        match endpoint:
            case "GET /control/orders":
                return [order_json(book.orders[number]) for number in sorted(book.orders)]
            case "GET /control/fills":
                return [fill_json(one) for one in book.fills]
            case "GET /control/counts":
                return {
                    "requests": dict(sorted(self.counts.items())),
                    "connections": self.connections,
                    "decided": self.decided,
                    "first_signed_ms": self.first_signed_ms,
                    "last_signed_ms": self.last_signed_ms,
                }
            case "POST /control/price":
                symbol, price = given["symbol"], given["price"]
                if symbol in book.listings:
                    book.listings[symbol] = with_price(book.listings[symbol], parse_decimal(price, "price"))
                else:
                    book.listings[symbol] = listed(f"{symbol}={price}")
            case "POST /control/market":
                market = listed(given["words"])
                book.listings[market.symbol] = market
            case "POST /control/fault":
                fault = Fault(given["kind"])
                at = given.get("at") or DEFAULT_AT.get(fault, ORDER)
                if at not in SIGNED | PUBLIC:
                    raise Refusal(400, -1, f"there is no endpoint {at[:60]!r}")
                self.faults.plan(Planned(fault, at, int(given["times"])))
            case "POST /control/clear":
                self.faults.clear()
            case "POST /control/rules":
                rate = given.get("commission")
                known = {
                    name: given[name]
                    for name in ("at_once", "pieces", "commission_in", "skew_ms", "may_trade")
                    if name in given
                }
                if rate is not None:
                    known["commission"] = parse_decimal(rate, "commission")
                book.rules = replace(book.rules, **known)
            case "POST /control/fill":
                quantity, price = (
                    None if given.get(name) is None else parse_decimal(given[name], name)
                    for name in ("quantity", "price")
                )
                self.keep(book.fill(self._order(given["client_order_id"]), quantity, price, now_ms))
            case "POST /control/end":
                self.keep(book.end(self._order(given["client_order_id"]), given["status"], now_ms))
            case _:
                raise Refusal(404, -1, f"there is no {endpoint[:80]}")
        return {}

    def _order(self, client_order_id: str) -> TakenOrder:
        number = self.book.by_client_id.get(client_order_id)
        if number is None:
            raise Refusal(404, -1, "there is no such order")
        return self.book.orders[number]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    exchange: Exchange

    def setup(self) -> None:
        super().setup()
        with self.exchange.lock:
            self.exchange.connections += 1

    def do_GET(self) -> None:
        self._answered()

    def do_POST(self) -> None:
        self._answered()

    def do_DELETE(self) -> None:
        self._answered()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what was asked is counted."""

    def _answered(self) -> None:
        asked = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            self._say(413, {"code": -1, "msg": "too much"})
            self.close_connection = True
            return
        body = self.rfile.read(int(length)).decode("latin-1")
        endpoint = f"{self.command} {asked.path}"
        if asked.path.startswith("/control/"):
            self._say(*self._control(endpoint, body))
            return
        self._api(endpoint, asked.query, body)

    def _control(self, endpoint: str, body: str) -> tuple[int, Any]:
        exchange = self.exchange
        try:
            given = json.loads(body or "{}")
            with exchange.lock:
                # What is counted of a request is counted before its answer: who asks after the answer sees it.
                return 200, exchange.told(endpoint, given)
        except Refusal as no:
            return no.status, {"error": no.message}
        except (QmtlError, KeyError, TypeError, ValueError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    def _api(self, endpoint: str, query: str, body: str) -> None:
        exchange = self.exchange
        fault = exchange.counted(endpoint)
        if fault is not None and fault in _SAID:
            self._say(*_SAID[fault])
            return
        if fault is Fault.REDIRECT_307:
            self._say(307, {}, ("Location", self.path))
            return
        if fault in (Fault.CUT, Fault.SILENT, Fault.HELD):
            if fault is not Fault.CUT:
                self._wait()
            if fault is not Fault.HELD:
                self.close_connection = True
                return
        status, said = self._done(endpoint, query, body)
        if isinstance(said, list) and said and fault in (Fault.TRADES_LAG, Fault.TRADES_HOLE):
            del said[-1 if fault is Fault.TRADES_LAG else 0]
        if status != 200 or fault not in _TAKEN:
            self._say(status, said)
            return
        self._lost(fault, said)

    def _done(self, endpoint: str, query: str, body: str) -> tuple[int, Any]:
        exchange = self.exchange
        try:
            with exchange.lock:
                exchange.decided += 1
                return exchange.api.answer(
                    endpoint, query, body, self.headers.get("X-MBX-APIKEY"), exchange.now_ms
                )
        except QmtlError as error:
            return 400, {"code": -1013, "msg": str(error)}

    def _lost(self, fault: Fault | None, said: Any) -> None:
        """What was asked for is done; the client does not learn it."""
        match fault:
            case Fault.TAKEN_503:
                self._say(503, {"code": -1001, "msg": "Internal error; unable to process your request."})
            case Fault.TAKEN_GARBAGE:
                self._say(200, _PAGE)
            case Fault.TAKEN_FIELD:
                left_out = ("status", "executedQty", "qty")
                rows = said if isinstance(said, list) else [said]
                for row in rows:
                    for name in left_out:
                        row.pop(name, None)
                self._say(200, said)
            case Fault.TAKEN_HALF:
                whole = json.dumps(said).encode()
                self._head(200, len(whole), ())
                self.wfile.write(whole[: len(whole) // 2])
                self.close_connection = True
            case _:
                if fault is Fault.TAKEN_SILENT:
                    self._wait()
                self.close_connection = True

    def _wait(self) -> None:
        """Until the client has gone."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not self.exchange.stopping.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.02)
            if readable and not self._is_there():
                return

    def _is_there(self) -> bool:
        try:
            return bool(self.connection.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _head(self, status: int, length: int, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=UTF-8")
        self.send_header("Content-Length", str(length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _say(self, status: int, said: Any, *headers: tuple[str, str]) -> None:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        self._head(status, len(data), headers)
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """It listens once it is made."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, exchange: Exchange, port: int) -> None:
        super().__init__(("127.0.0.1", port), type("Bound", (Handler,), {"exchange": exchange}))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that has gone is what many of the faults are for."""
