"""The diffs of the audit as OpenTelemetry spans, in the JSON of OTLP: what is asked for and answered, each with its digest.

Ids follow from the id of the request, so whoever sent it has spans of its own in the same trace without being told, and what is exported
twice is one span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from qmtl.engine.log.port import Record
from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry

_SERVER: Final = 2
_ERROR: Final = 2
_REQUEST: Final = "request"
_REFUSED: Final = "response: refused"
_NS: Final = 1_000_000
"""Nanoseconds in a millisecond."""


def trace_id(request_id: str) -> str:
    """Of a request for a diff, a submission or a command, as W3C Trace Context writes it: 32 hex digits."""
    return blake3_hex(canonical_bytes(("qmtl.trace", request_id)), 16)


def span_id(request_id: str, digest: str = "") -> str:
    """Of its diff: 16 hex digits.

    Args:
        digest: of the record, where it came under an id under which something else was asked: it is another span of the same trace.
    """
    return blake3_hex(canonical_bytes(("qmtl.span", request_id, *((digest,) if digest else ()))), 8)


def spans(lines: Iterable[tuple[Record, AdminEntry]]) -> Iterator[dict[str, Any]]:
    """A request to a trace collector for each diff of which both lines are there, in their order, and for each request that was refused as
    its id had another one's answer, which is one line.

    A span begins and ends when its lines were written, which is in one transaction: it says what was asked, when, and what became of
    it, and not how long that took (`diff_duration_ms` does).
    """
    asked: tuple[Record, AdminEntry] | None = None
    for record, entry in lines:
        if entry.act is AdminAct.REPEATED:
            yield _export((record, entry), (record, entry))
        if entry.act is not AdminAct.DIFFED:
            continue
        is_request = entry.detail == _REQUEST
        if not is_request and asked is not None and asked[1].cause == entry.cause:
            yield _export(asked, (record, entry))
        asked = (record, entry) if is_request else None


def _export(asked: tuple[Record, AdminEntry], answered: tuple[Record, AdminEntry]) -> dict[str, Any]:
    (first, request), (last, response) = asked, answered
    is_repeated = response.act is AdminAct.REPEATED
    facts = {
        "qmtl.request_id": request.cause,
        "qmtl.subject": request.subject,
        "qmtl.request.digest": request.digest,
        "qmtl.response": response.detail.removeprefix("response: "),
        "qmtl.response.digest": "" if is_repeated else response.digest,
    }
    span = {
        "traceId": trace_id(request.cause),
        "spanId": span_id(request.cause, request.digest if is_repeated else ""),
        "name": "dag.diff",
        "kind": _SERVER,
        "startTimeUnixNano": str(first.timestamp_ms * _NS),
        "endTimeUnixNano": str(last.timestamp_ms * _NS),
        "attributes": _attributes(facts),
        "status": {"code": _ERROR} if is_repeated or response.detail.startswith(_REFUSED) else {},
    }
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": "qmtl.dagmanager"})},
                "scopeSpans": [{"scope": {"name": "qmtl.audit"}, "spans": [span]}],
            }
        ]
    }


def _attributes(facts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in facts.items()]
