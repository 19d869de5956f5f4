"""The diffs of the audit as OpenTelemetry spans, in the JSON of OTLP: what is asked for and answered, each with its digest.

Ids follow from the id of the request, so whoever sent it has spans of its own in the same trace without being told, and what is exported
twice is one span.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import MalformedKey, UsageError
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry
from qmtl.foundation.wire.keys import decode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.interfaces.tail import Tail

AUDIT: Final = "dag.admin.log"
ASKED: Final = ("dag.diff.requests", "dag.submissions", "dag.commands")
"""Where the requests lie whose diffs the audit has, each under its id."""

LOOK_BACK_MS: Final = DAY_MS
"""A request that waited for longer is looked for no more."""

MOST_ARRIVALS: Final = 100_000
"""Requests that are remembered: those that came last."""

SAME_ID: Final = 7
"""Earlier ones that are remembered under one id."""

Line: TypeAlias = tuple[Record, AdminEntry]

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


@dataclass(frozen=True, slots=True)
class Diff:
    """Two lines of the audit, written in one transaction; of a request that was refused as its id had another one's answer, one line twice."""

    asked: Line
    answered: Line


class Pairing:
    """Puts the lines of the audit together as they come."""

    def __init__(self) -> None:
        self.asked: Line | None = None
        """A request whose answer is to come next."""

    def take(self, line: Line) -> Diff | None:
        """The diff of which this is the last line, if it is one's and its first line came just before."""
        _, entry = line
        if entry.act is AdminAct.REPEATED:
            return Diff(line, line)
        if entry.act is not AdminAct.DIFFED:
            return None
        asked, self.asked = self.asked, line if entry.detail == _REQUEST else None
        if self.asked is None and asked is not None and asked[1].cause == entry.cause:
            return Diff(asked, line)
        return None


def diffs(lines: Iterable[Line]) -> Iterator[Diff]:
    """Those of which both lines are there, in their order."""
    pairing = Pairing()
    for line in lines:
        if (found := pairing.take(line)) is not None:
            yield found


class Arrivals:
    """When requests came onto the log, by their ids, of the last day before an instant and from then on. Not thread-safe."""

    def __init__(self, log: Log, since_ms: int) -> None:
        self._tails = [(Tail(log, name), _places(log, name, since_ms - LOOK_BACK_MS)) for name in ASKED]
        self._times: dict[str, tuple[int, ...]] = {}

    def look(self) -> None:
        """Take in what has come.

        Raises:
            LogError: the log did not answer; what is missing is taken in by the next look.
        """
        for tail, at in self._tails:
            for record in tail.read(at):
                if record.value is None or is_reserved(record.key):
                    continue
                with suppress(MalformedKey):  # somebody else's, which is a dead letter
                    name = str(decode_key(record.key)[0])
                    self._times[name] = (*self._times.pop(name, ())[-SAME_ID:], record.timestamp_ms)
        while len(self._times) > MOST_ARRIVALS:
            del self._times[next(iter(self._times))]

    def of(self, diff: Diff) -> int | None:
        """When the request came that was answered; None where it is too long ago, or the clocks of who writes are at odds."""
        record, entry = diff.answered
        return max(
            (one for one in self._times.get(entry.cause, ()) if one <= record.timestamp_ms), default=None
        )

    def close(self) -> None:
        for tail, _ in self._tails:
            tail.close()


def _places(log: Log, name: str, since_ms: int) -> dict[TopicPartition, int]:
    return dict(log.offsets_at_time(all_partitions(log, name), max(0, since_ms)))


class Following:
    """The diffs of the audit from a place on, as they come. Not thread-safe.

    Args:
        start: the first offset of the audit; None for what comes from now on.
        subject: only what was done to it; None for everything.

    Raises:
        UsageError: the audit does not reach to that offset.
    """

    def __init__(self, log: Log, start: int | None, subject: str | None = None) -> None:
        self._log = log
        self._tail = Tail(log, AUDIT)
        self._at = self._tail.end()
        (self._where,) = self._at
        end = self._at[self._where]
        if start is not None and start > end:
            raise UsageError(
                f"--from was the number {start}; {AUDIT} ends at {end}.", "Give an offset of this log."
            )
        self._at[self._where] = end if start is None else start
        self._subject = subject
        self._pairing = Pairing()
        self._lines: list[Line] = []
        self._arrivals: Arrivals | None = None

    @property
    def next_offset(self) -> int:
        """Where to go on, so that nothing is left out."""
        pending = self._lines[0] if self._lines else self._pairing.asked
        return self._at[self._where] if pending is None else pending[0].offset

    def poll(self) -> list[dict[str, Any]]:
        """What has come since, as `export` gives it.

        Raises:
            LogError: the log did not answer; what was not given is given by the next call.
        """
        for record in self._tail.read(self._at):
            if record.value is not None and not is_reserved(record.key):
                entry: AdminEntry = codec.decode(record.value)
                if self._subject in (None, entry.subject):
                    self._lines.append((record, entry))
        if not self._lines:
            return []
        if self._arrivals is None:
            self._arrivals = Arrivals(self._log, self._lines[0][0].timestamp_ms)
        self._arrivals.look()  # a request is on the log before its answer is
        found = [one for line in self._lines if (one := self._pairing.take(line)) is not None]
        self._lines.clear()
        return [export(one, self._arrivals.of(one)) for one in found]

    def close(self) -> None:
        self._tail.close()
        if self._arrivals is not None:
            self._arrivals.close()


def export(diff: Diff, came_ms: int | None = None) -> dict[str, Any]:
    """A request to a trace collector for a diff.

    Its span begins when the request came onto the log, if that is known, and ends when its lines were written: what it waited for the DAG Manager, and
    what that took. Both instants are those of the records, of the clocks of who wrote them.

    Args:
        came_ms: when the request came onto the log; None where nobody knows, and then the span begins with the first line.
    """
    (first, request), (last, response) = diff.asked, diff.answered
    is_repeated = response.act is AdminAct.REPEATED
    start_ms = first.timestamp_ms if came_ms is None else min(came_ms, last.timestamp_ms)
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
        "startTimeUnixNano": str(start_ms * _NS),
        "endTimeUnixNano": str(last.timestamp_ms * _NS),
        "attributes": [
            *_attributes(facts),
            {"key": "qmtl.audit.offset", "value": {"intValue": str(last.offset)}},
        ],
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
