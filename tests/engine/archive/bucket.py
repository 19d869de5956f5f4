"""A bucket over HTTP in this process: enough of S3 for a client to put, get and list, and to be refused in S3's words."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@dataclass(slots=True)
class Answer:
    """What is answered instead of doing what was asked.

    Attributes:
        wait_s: before it.
        done: what was asked is done nevertheless: a write is carried out, a read gives the object.
        cut: the connection ends after half of the answer.
    """

    status: int
    code: str
    text: str = ""
    wait_s: float = 0.0
    done: bool = False
    cut: bool = False


@dataclass(slots=True)
class Bucket:
    """What lies in it, who has asked, and what comes next.

    Attributes:
        objects: by key.
        asked: method and path of each request.
        signed: the `Authorization` of each request.
        badly_sent: requests whose body is not the one that was signed.
        answers: given in this order, one to a request; then `otherwise`.
    """

    name: str = "kept"
    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)
    badly_sent: int = 0
    answers: list[Answer] = field(default_factory=list)
    otherwise: Callable[[str], Answer | None] = lambda method: None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str = "") -> str:
        return f"s3://{self.name}{prefix}?region=eu-central-1&endpoint={self.endpoint}"


@contextmanager
def serving() -> Iterator[Bucket]:
    """A bucket that is reached over HTTP."""
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            instead = self._instead()
            if instead is None or instead.done:
                if self.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
                    bucket.badly_sent += 1
                bucket.objects[self._key()] = body
            if instead is None:
                self._answer(200, b"", ETag=f'"{hashlib.md5(body).hexdigest()}"')
            else:
                self._refuse(instead)

        def do_GET(self) -> None:
            instead = self._instead()
            parts = urlsplit(self.path)
            if instead is not None and not instead.done:
                self._refuse(instead)
            elif "list-type" in parts.query:
                self._list(parse_qs(parts.query).get("prefix", [""])[0])
            elif self._key() in bucket.objects:
                body = bucket.objects[self._key()]
                self._answer(
                    200,
                    body,
                    whole=instead is None or not instead.cut,
                    ETag=f'"{hashlib.md5(body).hexdigest()}"',
                    **{"Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"},
                )
            else:
                self._refuse(Answer(404, "NoSuchKey"))

        def _key(self) -> str:
            return unquote(urlsplit(self.path).path).removeprefix(f"/{bucket.name}/")

        def _instead(self) -> Answer | None:
            bucket.asked.append((self.command, self.path))
            bucket.signed.append(self.headers.get("authorization", ""))
            return bucket.answers.pop(0) if bucket.answers else bucket.otherwise(self.command)

        def _refuse(self, answer: Answer) -> None:
            time.sleep(answer.wait_s)
            text = f"<Error><Code>{answer.code}</Code><Message>{answer.text}</Message></Error>".encode()
            self._answer(answer.status, text, whole=not answer.cut)

        def _list(self, prefix: str) -> None:
            rows = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-10-21T07:28:00.000Z</LastModified><ETag>e</ETag></Contents>"
                for key, data in sorted(bucket.objects.items())
                if key.startswith(prefix)
            )
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            self._answer(200, text.encode())

        def _answer(self, status: int, body: bytes, *, whole: bool = True, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if whole else body[: len(body) // 2])
            self.close_connection = not whole

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that has given up is no error of the bucket's."""

    server = Server(("127.0.0.1", 0), Handler)
    bucket.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
