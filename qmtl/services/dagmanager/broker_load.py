"""How busy the brokers are, as a Prometheus that scrapes them knows it; whatever goes wrong, nobody waits longer than a second for it.

The seed compares messages per second with 80 % and does not say of what: it is of what one broker is configured to bear, and the busiest
one counts.
"""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from qmtl.foundation.common.errors import UsageError

TIMEOUT_S: Final = 1.0
"""For the whole answer, the search for the host's address too."""
MAX_BYTES: Final = 1 << 20
EVERY_S: Final = 15.0
"""An answer that is younger is given again: Prometheus itself has nothing newer."""
MOST_PERCENT: Final = 1000

METRIC: Final = "kafka_server_BrokerTopicMetrics_MessagesInPerSec"
QUERY: Final = f'sum by (instance) ({METRIC}{{topic=""}}) or sum by (instance) ({METRIC})'
"""A broker has one series of all of its topics and, by its exporter's configuration, one for each topic, which would count all twice."""

_logger: Final = logging.getLogger(__name__)


class Unknown(Enum):
    """Why it is not known how busy the brokers are."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"
    """Another status than 200."""
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    """No answer of Prometheus, or one with a value that is no number of messages."""
    NO_SERIES = "no_series"


class _NotKnown(Exception):
    def __init__(self, why: Unknown, what: str) -> None:
        super().__init__(what)
        self.why = why


class PrometheusLoad:
    """Asks the HTTP API of a Prometheus.

    Args:
        url: `http://HOST:PORT`, or https, with a path if there is one before `/api/v1`.
        capacity_per_s: messages per second that one broker can take.
        clock: gives seconds that only grow.

    Raises:
        UsageError: no such URL, or no such capacity.
    """

    def __init__(self, url: str, capacity_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = _checked(url)
        if capacity_per_s < 1:
            raise UsageError(
                f"the brokers' capacity was the number {capacity_per_s}; at least 1 message per second is required.",
                "Give what one broker can take.",
            )
        self._capacity = capacity_per_s
        self._clock = clock
        self._call: _Call | None = None
        self._asked_at: float | None = None
        self._percent = 0
        self._failures = {one.value: 0 for one in Unknown}

    def failures(self) -> dict[str, int]:
        """How often it could not be found out, by the cause."""
        return dict(self._failures)

    def percent(self) -> int:
        """How busy the busiest broker is, of its capacity, rounded up; 0 where that is not known."""
        now = self._clock()
        if self._asked_at is None or now - self._asked_at >= EVERY_S:
            self._asked_at = now
            try:
                self._percent = percent_of(self._ask(), self._capacity)
            except _NotKnown as error:
                self._percent = 0
                self._failures[error.why.value] += 1
                _logger.warning("how busy the brokers are is not known (%s): %s", error.why.value, error)
        return self._percent

    def _ask(self) -> bytes:
        """In a thread, as the time of a name look-up and of an answer that trickles has no bound of its own; at most one at a time."""
        if self._call is not None and self._call.is_alive():
            raise _NotKnown(Unknown.TIMEOUT, "the request before is not done yet")
        call = _Call(self._url)
        try:
            call.start()
        except RuntimeError as error:  # the system has no thread left
            raise _NotKnown(Unknown.UNREACHABLE, f"{error}") from None
        self._call = call
        call.join(TIMEOUT_S)
        if call.is_alive():
            call.break_off()
            raise _NotKnown(Unknown.TIMEOUT, f"no answer within {TIMEOUT_S:g} s")
        return call.answer()


def percent_of(body: bytes, capacity_per_s: int) -> int:
    """The busiest broker of an answer of Prometheus.

    Raises:
        _NotKnown: it can't be read, or has no series.
    """
    try:
        loaded = json.loads(body)
    except (ValueError, RecursionError):
        raise _NotKnown(Unknown.UNREADABLE, "the answer is no JSON") from None
    match loaded:
        case {"status": "success", "data": {"resultType": "vector", "result": [*series]}}:
            rates = [_rate(one) for one in series]
        case _:
            raise _NotKnown(Unknown.UNREADABLE, "the answer is no vector of Prometheus")
    if not rates:
        raise _NotKnown(Unknown.NO_SERIES, f"there is no series {METRIC}")
    return min(MOST_PERCENT, math.ceil(100 * max(rates) / capacity_per_s))


def _rate(series: object) -> float:
    match series:
        case {"value": [_, str(text)]}:
            with suppress(ValueError):
                rate = float(text)
                if 0 <= rate < math.inf:
                    return rate
        case _:
            pass
    raise _NotKnown(Unknown.UNREADABLE, "a series has no number of messages per second")


class _Call(threading.Thread):
    """One request and its answer."""

    def __init__(self, url: SplitResult) -> None:
        super().__init__(name="qmtl-broker-load", daemon=True)
        self._url = url
        self._socket: socket.socket | None = None
        self._body = b""
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._body = self._get()
        except Exception as error:  # told to whoever waits
            self._error = error

    def _get(self) -> bytes:
        host, port = str(self._url.hostname), self._url.port
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        connection = kind(host, port, timeout=TIMEOUT_S)
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", f"{self._url.path.rstrip('/')}/api/v1/query?query={quote(QUERY)}")
            response = connection.getresponse()
            if response.status != 200:
                raise _NotKnown(Unknown.REFUSED, f"its status is {response.status}")
            body = response.read(MAX_BYTES + 1)
        finally:
            connection.close()
        if len(body) > MAX_BYTES:
            raise _NotKnown(Unknown.TOO_LARGE, f"the answer has more than {MAX_BYTES} bytes")
        return body

    def break_off(self) -> None:
        """Nobody waits any more: its socket is shut, so that the thread ends."""
        if (open_now := self._socket) is not None:
            with suppress(OSError):
                open_now.shutdown(socket.SHUT_RDWR)

    def answer(self) -> bytes:
        match self._error:
            case None:
                return self._body
            case _NotKnown():
                raise self._error
            case TimeoutError():
                raise _NotKnown(Unknown.TIMEOUT, f"no answer within {TIMEOUT_S:g} s")
            case OSError():
                raise _NotKnown(Unknown.UNREACHABLE, f"{self._error}")
            case HTTPException():
                raise _NotKnown(Unknown.UNREADABLE, f"the answer is no HTTP ({type(self._error).__name__})")
            case _:
                raise _NotKnown(Unknown.UNREADABLE, f"{type(self._error).__name__}: {self._error}")


def _checked(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        UsageError: none of an HTTP server, or one with more in it than where that is.
    """
    try:
        parts = urlsplit(url)
        is_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, is_host = urlsplit(""), False
    is_plain = url.isascii() and url.isprintable() and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not is_host or not is_plain or "@" in url:
        shown = "a URL with a user in it" if "@" in url else f"the text {url[:80]!a}"
        raise UsageError(
            f"the URL for the brokers' load was {shown}; http://HOST:PORT[/PATH] of a Prometheus is required.",
            "Give where its HTTP API is, http://prometheus:9090 for one.",
        )
    return parts
