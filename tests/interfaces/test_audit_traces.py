"""The diffs of the audit as OTLP requests: in the form that a collector takes, from when the request came, each of them once however often
somebody stops and goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import Log
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces.audit_traces import ASKED, AUDIT, Arrivals, Diff, Following, Line, diffs, export
from tests.replay.logs import MINUTE_MS, START_MS, Clock, commit, log_in, row
from tests.services.graphs import crossing, strategy, submission

# ---- the form ----------------------------------------------------------------------------------------------------------


def _is(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


TEXT: Final = _is(r"(?s).*")
UINT32: Final = _whole(0, 2**32 - 1)
FORM: Final[dict[str, dict[str, Any]]] = {
    "ExportTraceServiceRequest": {"resourceSpans": ["ResourceSpans"]},
    "ResourceSpans": {"resource": "Resource", "scopeSpans": ["ScopeSpans"], "schemaUrl": TEXT},
    "Resource": {"attributes": ["KeyValue"], "droppedAttributesCount": UINT32},
    "ScopeSpans": {"scope": "InstrumentationScope", "spans": ["Span"], "schemaUrl": TEXT},
    "InstrumentationScope": {
        "name": TEXT,
        "version": TEXT,
        "attributes": ["KeyValue"],
        "droppedAttributesCount": UINT32,
    },
    "Span": {
        "traceId": _is(r"(?!0{32})[0-9a-f]{32}"),
        "spanId": _is(r"(?!0{16})[0-9a-f]{16}"),
        "traceState": TEXT,
        "parentSpanId": _is(r"([0-9a-f]{16})?"),
        "flags": UINT32,
        "name": TEXT,
        "kind": _whole(0, 5),
        "startTimeUnixNano": _is(r"[0-9]{1,20}"),
        "endTimeUnixNano": _is(r"[0-9]{1,20}"),
        "attributes": ["KeyValue"],
        "droppedAttributesCount": UINT32,
        "status": "Status",
    },
    "Status": {"message": TEXT, "code": _whole(0, 2)},
    "KeyValue": {"key": _is(r"(?s).+"), "value": "AnyValue"},
    "AnyValue": {
        "stringValue": TEXT,
        "boolValue": lambda value: type(value) is bool,
        "intValue": _is(r"-?[0-9]{1,19}"),
        "doubleValue": lambda value: type(value) is float,
    },
}
"""The messages of opentelemetry-proto 1.x (`trace.proto`, `common.proto`, `resource.proto`, `trace_service.proto`) as far as a span without
events and links needs them, in their JSON: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding says that names are in lower
camel case alone, ids in hex and enums whole numbers; the JSON of Protocol Buffers, that whole numbers of 64 bits are texts."""


def faults(message: str, value: Any, path: str = "") -> Iterator[str]:
    """Where a value is not of the form of a message."""
    if not isinstance(value, dict):
        yield f"{path} is no object"
        return
    if message == "AnyValue" and len(value) != 1:
        yield f"{path} has {len(value)} values"
    for name, inner in value.items():
        here, kind = f"{path}.{name}", FORM[message].get(name)
        match kind:
            case None:
                yield f"{here} is no field of {message}"
            case str():
                yield from faults(kind, inner, here)
            case [str() as each]:
                if not isinstance(inner, list):
                    yield f"{here} is no list"
                    continue
                for number, one in enumerate(inner):
                    yield from faults(each, one, f"{here}[{number}]")
            case _:
                if not kind(inner):
                    yield f"{here} was {inner!r}"


def span_of(exported: dict[str, Any]) -> dict[str, Any]:
    (resource,) = exported["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    (span,) = scope["spans"]
    found: dict[str, Any] = span
    return found


def offset_of(exported: dict[str, Any]) -> int:
    (found,) = [one["value"] for one in span_of(exported)["attributes"] if one["key"] == "qmtl.audit.offset"]
    return int(found["intValue"])


# ---- logs with an audit ------------------------------------------------------------------------------------------------

KINDS: Final = (("request", "answer"), ("request", "refusal"), ("answer",), ("repeated",), ("other",))
"""What is written together, one line after the other; an answer alone is one whose request is not kept, or not chosen."""

SPECS: Final = [topic(name) for name in (AUDIT, *ASKED)]


def entry(kind: str, name: str) -> AdminEntry:
    detail = {"request": "request", "answer": "response: 5 nodes", "refusal": "response: refused: QMTL-502"}
    act = {"repeated": AdminAct.REPEATED, "other": AdminAct.ACTIVATED}.get(kind, AdminAct.DIFFED)
    return AdminEntry(act, name, "", name, START_MS, detail.get(kind, kind), "d" * 64)


def lines(log: Log) -> list[Line]:
    found = read_all(log, all_partitions(log, AUDIT))
    return [
        (one, codec.decode(one.value)) for one in found if one.value is not None and one.key[:1] != b"\x00"
    ]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from("abc")), max_size=8),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=16),
)
@example([(KINDS[0], "a"), (KINDS[3], "a")], [(1, True), (1, False)])
def test_what_is_followed_with_any_stops_is_every_diff_once_in_the_form_of_otlp(
    written: list[tuple[tuple[str, ...], str]], turns: list[tuple[int, bool]]
) -> None:
    """A stop is told where to go on. The lines of a diff may come one by one, though the DAG Manager writes them at once."""
    log = SimulatedLog()
    log.ensure_topics(SPECS)
    rows = [row(AUDIT, entry(kind, name)) for kinds, name in written for kind in kinds]
    following, found = Following(log, None), list[dict[str, Any]]()
    for count, stops in [*turns, (len(rows), False)]:
        if rows[:count]:
            commit(log, rows[:count])
        del rows[:count]
        found += following.poll()
        if stops:
            following.close()
            following = Following(log, following.next_offset)
    assert following.poll() == []
    following.close()
    assert found == [export(one) for one in diffs(lines(log))]
    assert [*(fault for one in found for fault in faults("ExportTraceServiceRequest", one))] == []
    again = Following(log, offset_of(found[0]) + 1 if found else 0)
    assert again.poll() == found[1:]
    again.close()


def test_an_offset_that_the_audit_does_not_have_yet_is_refused() -> None:
    log = SimulatedLog()
    log.ensure_topics(SPECS)
    with pytest.raises(UsageError, match=r"--from was the number 1; .* ends at 0"):
        Following(log, 1)


def test_only_what_was_done_to_a_subject_is_followed() -> None:
    log = SimulatedLog()
    log.ensure_topics(SPECS)
    following = Following(log, 0, "b")
    commit(log, [row(AUDIT, entry(kind, name)) for name in "abc" for kind in ("request", "answer")])
    assert [span_of(one)["name"] for one in following.poll()] == ["dag.diff"]
    following.close()


# ---- how long it took --------------------------------------------------------------------------------------------------


def test_a_span_begins_when_its_request_came_onto_the_log_and_ends_with_its_answer(tmp_path: Path) -> None:
    clock = Clock()
    one = submission(strategy(crossing()))
    name = one.submission_id

    def times(found: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """In minutes."""

        def minute(nanoseconds: str) -> int:
            return (int(nanoseconds) // 1_000_000 - START_MS) // MINUTE_MS

        spans = [span_of(one) for one in found]
        return [(minute(one["startTimeUnixNano"]), minute(one["endTimeUnixNano"])) for one in spans]

    def at(minute: int) -> None:
        clock.now_ms = START_MS + minute * MINUTE_MS

    with log_in(tmp_path / "log", clock, SPECS) as log:
        for minute in (1, 5):  # it is asked again
            at(minute)
            commit(log, [row("dag.submissions", one)])
            at(minute + 2)
            commit(log, [row(AUDIT, entry(kind, name)) for kind in ("request", "answer")])
        at(9)
        commit(log, [row(AUDIT, entry(kind, "unheard of")) for kind in ("request", "answer")])
        at(20)
        commit(log, [row("dag.submissions", one)])  # and its answer is to come
        following = Following(log, 0)
        assert times(following.poll()) == [(1, 3), (5, 7), (9, 9)]
        following.close()
        newest: Diff = [*diffs(lines(log))][1]
        arrivals = Arrivals(log, newest.asked[0].timestamp_ms)
        arrivals.look()
        assert arrivals.of(newest) == START_MS + 5 * MINUTE_MS
        arrivals.close()
