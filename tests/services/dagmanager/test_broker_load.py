"""How busy the brokers are is what Prometheus says, in bounds; what it does not say is 0, is counted, and keeps nobody waiting."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import UsageError
from qmtl.services.dagmanager.broker_load import (
    EVERY_S,
    MAX_BYTES,
    METRIC,
    MOST_PERCENT,
    TIMEOUT_S,
    PrometheusLoad,
    Unknown,
    percent_of,
)
from qmtl.services.dagmanager.garbage import BUSY_PERCENT
from tests.contract.driving import until
from tests.services.dagmanager.outside import Cluster, Office, create, remove, summary, there

CAPACITY = 1000

Handling = Callable[[BaseHTTPRequestHandler], None]


def vector(*rates: str, **other: Any) -> bytes:
    """An answer of Prometheus with these rates, a broker each."""
    series = [{"metric": {"instance": f"b{at}"}, "value": [1.5, rate]} for at, rate in enumerate(rates)]
    answer = {"status": "success", "data": {"resultType": "vector", "result": series}}
    return json.dumps(answer | other).encode()


def says(body: bytes, status: int = 200) -> Handling:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return handle


def says_raw(data: bytes) -> Handling:
    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(data)

    return handle


class Prometheus:
    """A server on this machine.

    Attributes:
        asked: the paths of all requests.
    """

    def __init__(self, handle: Handling) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                with suppress(OSError):  # who asked does not wait any more
                    handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Prometheus:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def load_of(handle: Handling, path: str = "") -> Iterator[tuple[PrometheusLoad, Prometheus, list[float]]]:
    """Who asks such a server, the server, and the time, which a test may move."""
    now = [0.0]
    with Prometheus(handle) as server:
        yield PrometheusLoad(server.url + path, CAPACITY, lambda: now[0]), server, now


# ---- what is known ----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5 * CAPACITY), min_size=1, max_size=5), st.integers(1, 5 * CAPACITY))
def test_the_busiest_broker_counts_of_the_capacity_and_above_a_bound_is_above_it(
    rates: list[int], capacity: int
) -> None:
    percent = percent_of(vector(*map(str, rates)), capacity)
    assert (percent > BUSY_PERCENT) == (100 * max(rates) > BUSY_PERCENT * capacity)
    assert percent == MOST_PERCENT or capacity * (percent - 1) < 100 * max(rates) <= capacity * percent


@pytest.mark.parametrize("path", ["", "/", "/prometheus"])
def test_it_asks_the_http_api_for_the_rate_per_broker(path: str) -> None:
    with load_of(says(vector("300.5", "812.01")), path) as (load, server, _):
        assert load.percent() == 82
        assert set(load.failures().values()) == {0}
        (asked,) = server.asked
    parts = urlsplit(asked)
    assert parts.path == f"{path.rstrip('/')}/api/v1/query"
    (query,) = parse_qs(parts.query)["query"]
    assert f"sum by (instance) ({METRIC}" in query


def test_an_answer_is_given_again_until_prometheus_can_have_a_newer_one() -> None:
    rates = iter(["100", "200"])
    with load_of(lambda request: says(vector(next(rates)))(request)) as (load, server, now):
        assert load.percent() == 10
        now[0] += EVERY_S - 0.001
        assert load.percent() == 10
        now[0] += 0.001
        assert (load.percent(), len(server.asked)) == (20, 2)


# ---- what is not ------------------------------------------------------------------------------------------------------

DEEP = b"[" * 500_000
NO_ANSWERS: dict[str, tuple[Handling, Unknown]] = {
    "an error": (says(vector("900"), 503), Unknown.REFUSED),
    "elsewhere": (says(b"", 302), Unknown.REFUSED),
    "no JSON": (says(b"<html>"), Unknown.UNREADABLE),
    "no text": (says(b"\xff\xfe"), Unknown.UNREADABLE),
    "too deep": (says(DEEP), Unknown.UNREADABLE),
    "another shape": (says(b'{"status": "success", "data": []}'), Unknown.UNREADABLE),
    "no success": (says(vector("900", status="error")), Unknown.UNREADABLE),
    "no vector": (
        says(vector("900", data={"resultType": "scalar", "result": [1, "900"]})),
        Unknown.UNREADABLE,
    ),
    "a number that is none": (says(vector("900", "NaN")), Unknown.UNREADABLE),
    "without end": (says(vector("+Inf")), Unknown.UNREADABLE),
    "below nothing": (says(vector("-1")), Unknown.UNREADABLE),
    "no number": (says(vector("many")), Unknown.UNREADABLE),
    "no series": (says(vector()), Unknown.NO_SERIES),
    "too long": (says(vector("900") + b" " * MAX_BYTES), Unknown.TOO_LARGE),
    "no HTTP": (says_raw(b"SSH-2.0-x\r\n\r\n"), Unknown.UNREADABLE),
    "a line without end": (says_raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000), Unknown.UNREADABLE),
}


@pytest.mark.parametrize(("handle", "why"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_can_not_be_used_is_unknown_counted_and_logged_once(
    handle: Handling, why: Unknown, caplog: pytest.LogCaptureFixture
) -> None:
    with load_of(handle) as (load, _, _), caplog.at_level(logging.WARNING):
        assert (load.percent(), load.percent()) == (0, 0)
        assert load.failures() == {one.value: int(one is why) for one in Unknown}
        mine = [
            one for one in caplog.records if one.name == PrometheusLoad.__module__
        ]  # and no other thread's
        assert [one.levelname for one in mine] == ["WARNING"]
        assert why.value in caplog.text


def test_what_was_known_before_is_not_believed_for_ever() -> None:
    answers = iter([says(vector("900")), says(b"?")])
    with load_of(lambda request: next(answers)(request)) as (load, _, now):
        assert load.percent() == 90
        now[0] += EVERY_S
        assert load.percent() == 0


def test_nobody_there_is_unknown() -> None:
    with Prometheus(says(b"")) as server:
        pass
    load = PrometheusLoad(server.url, CAPACITY)
    assert (load.percent(), load.failures()["unreachable"]) == (0, 1)


def test_an_answer_that_trickles_is_broken_off_and_keeps_nobody_waiting() -> None:
    """Byte by byte it would come within any time-out of a single read."""
    ended = threading.Event()

    def trickle(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            while not ended.wait(0.05):
                request.wfile.write(b"y")
        finally:
            ended.set()

    with load_of(trickle) as (load, _, _):
        began = time.monotonic()
        assert load.percent() == 0
        took = time.monotonic() - began
        assert TIMEOUT_S <= took < TIMEOUT_S + 20, took  # and not as long as it trickles
        until(ended.is_set)  # its socket is shut, and so the server finds out, too
        assert load.failures() == {one.value: int(one is Unknown.TIMEOUT) for one in Unknown}


# ---- of a removal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "percent"), [(b"?", 0), (vector("850"), 85)])
def test_every_report_of_a_removal_has_the_load_and_none_is_held_up_by_it(body: bytes, percent: int) -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")}, refuses={"n_b"})
    with load_of(says(body)) as (load, server, now):
        reports = Office(cluster, load=load).do(remove("n_a"), remove("n_b"), remove("n_c", archive=True))
        assert len(server.asked) == 1
        now[0] += EVERY_S
        Office(cluster, load=load).do(create("n_d"))
        assert len(server.asked) == 1
    assert list(map(summary, reports)) == [
        ("n_a", True, ""),
        ("n_b", False, "QMTL-323"),
        ("n_c", False, "QMTL-326"),
    ]
    assert [getattr(one, "broker_load_percent", None) for one in reports] == [percent] * 3


# ---- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        *("", "prometheus:9090", "ftp://p:1", "http://", "http://p:x", "http://p:99999", "http://[::1"),
        *("http://u:secret@p:1", "http://p:1/?q", "http://p:1/#x", "http://p:1/\n", "http://ü:1"),
    ],
)
def test_a_url_that_is_none_is_refused_and_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="brokers' load") as refused:
        PrometheusLoad(url, CAPACITY)
    assert "secret" not in str(refused.value)


def test_a_capacity_is_at_least_one() -> None:
    with pytest.raises(UsageError, match="capacity was the number 0"):
        PrometheusLoad("http://p:1", 0)
