"""`/metrics` and `/healthz` of one worker, or one execution manager, over HTTP, by the standard library and prometheus-client's exposition."""

from __future__ import annotations

import json
import platform
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Info,
    ProcessCollector,
    disable_created_metrics,
    make_wsgi_app,
)

from qmtl.engine.log.port import Log
from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.metrics.effects import EffectCounts
from qmtl.interfaces.metrics.gauges import SERIES, Gauges
from qmtl.interfaces.metrics.health import STALE_S, health
from qmtl.interfaces.metrics.live import VenueCounts
from qmtl.interfaces.metrics.watch import Watch
from qmtl.services.dagmanager.topic_admin import TopicAdmin
from qmtl.services.egress.processor import Egress
from qmtl.topology import Outside

_REQUEST_S: Final = 5.0
_OK: Final = "200 OK"
_NOT_READY: Final = "503 Service Unavailable"
_PACKAGES: Final = ("confluent-kafka", "rocksdict", "fastavro")

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Metrics:
    """What one process shows: an observer for its workers, and the registry that is scraped.

    Args:
        processors: what the process runs.
        outside: what their effects reach, which tells what they have met there.
    """

    def __init__(self, processors: Sequence[str], outside: Outside | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more per counter, which nobody asks for
        self.registry = CollectorRegistry()
        self.watch = Watch(processors, self.registry)
        if outside is not None and TopicAdmin.name in processors:
            self.registry.register(EffectCounts(outside))
        if outside is not None and outside.desk is not None and Egress.name in processors:
            self.registry.register(VenueCounts(outside.desk))
        ProcessCollector(registry=self.registry)
        Info("qmtl_build", "What this worker is made of.", registry=self.registry).info(_build())

    @contextmanager
    def serving(
        self,
        log: Log,
        state_dir: Path,
        host: str,
        port: int,
        *,
        stale_s: float = STALE_S,
        series: int = SERIES,
    ) -> Iterator[str]:
        """Serve while the context is open; gives the address, `http://host:port`.

        Args:
            state_dir: where the stores of the tasks lie.
            port: 0 for any that is free.
            stale_s, series: see `health` and `Gauges`.

        Raises:
            UsageError: nobody can listen there.
        """
        gauges = Gauges(log, self.watch, state_dir, series=series)

        def healthy() -> tuple[bool, dict[str, Any]]:
            one = health(self.watch, stale_s)
            return one.ready, one.as_json()

        self.registry.register(gauges)
        try:
            with listening(self.registry, healthy, host, port) as where:
                yield where
        finally:
            self.registry.unregister(gauges)
            gauges.stop()


@contextmanager
def listening(
    registry: CollectorRegistry, healthy: Callable[[], tuple[bool, dict[str, Any]]], host: str, port: int
) -> Iterator[str]:
    """Serve /metrics and /healthz while the context is open; gives the address, `http://host:port`.

    Args:
        healthy: whether all is well, and what /healthz says.
        port: 0 for any that is free.

    Raises:
        UsageError: nobody can listen there.
    """
    try:
        server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--metrics-host and --metrics-port were {host!r} and {port}; nobody can listen there: {error}.",
            "Give another port, or 0 for any that is free.",
        ) from None
    server.set_app(_routes(make_wsgi_app(registry), healthy))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="qmtl-metrics", daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    try:
        yield f"http://{shown}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        """Binds without asking a name server for this machine's name, which may take as long as it likes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a line per scrape."""


def _routes(exposition: Any, healthy: Callable[[], tuple[bool, dict[str, Any]]]) -> Any:
    def app(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            return _text(start, "405 Method Not Allowed", "GET is all there is.\n", ("Allow", "GET"))
        match environ["PATH_INFO"]:
            case "/metrics":
                found: Iterable[bytes] = exposition(environ, start)
                return found
            case "/healthz":
                ready, said = healthy()
                body = json.dumps(said, sort_keys=True).encode() + b"\n"
                start(_OK if ready else _NOT_READY, _headers(body, "application/json"))
                return [body]
            case _:
                return _text(start, "404 Not Found", "There are /metrics and /healthz.\n")

    return app


def _text(start: StartResponse, status: str, text: str, *more: tuple[str, str]) -> list[bytes]:
    body = text.encode()
    start(status, [*_headers(body, "text/plain; charset=utf-8"), *more])
    return [body]


def _headers(body: bytes, kind: str) -> list[tuple[str, str]]:
    return [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]


def _build() -> dict[str, str]:
    out = {"version": _version("qmtl"), "python": platform.python_version()}
    return out | {name.replace("-", "_"): _version(name) for name in _PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
