"""What an operator is shown of the graph is what its tables and its topics hold."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Record, partitions_of
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry, Queue, SentinelStatus
from qmtl.foundation.wire.keys import is_reserved
from qmtl.interfaces import dag_queues
from qmtl.interfaces.audit_traces import diffs, export, span_id, trace_id
from qmtl.interfaces.cli.lag import farthest_behind
from qmtl.interfaces.client import Client
from tests.interfaces.cli.deployed import CANARY, OLD, STABLE, WORLD, Deployed, client_on, feed_bars
from tests.interfaces.cli.running import Ran, assert_one_screen, call, start
from tests.replay.logs import MINUTE_MS, START_MS, Clock, commit, log_in, row

HOLDING = (SentinelStatus.PENDING, SentinelStatus.ACTIVE)


def left_off(shown: int, count: int, what: str) -> dict[str, Any]:
    """As it is told to programs."""
    return {"left_off": count - shown, "shown": shown, "of": count, "what": what}


def look(capsys: pytest.CaptureFixture[str], place: Deployed, *args: str) -> Ran:
    return call(capsys, "service", "dagmanager", *args, "--log", place.address)


# ---- strategies and worlds ------------------------------------------------------------------------------------------


def test_strategies_and_worlds_are_shown_to_programs_as_to_people(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    lists = {
        "dag": [
            {
                "world": WORLD,
                "strategy": one.strategy_id,
                "version": one.version,
                "status": one.status.value,
                "nodes": len(one.nodes),
                "sentinel": one.sentinel_id,
                "errors": [],
            }
            for one in seen_deployed.rows("dag.strategies")
        ],
        "world": [
            {
                "world": WORLD,
                "status": one.status.value,
                "currency": one.settings.currency,
                "initial_cash": f"{one.settings.initial_cash:f}",
                "fee_rate": f"{one.settings.fee_rate:f}",
                "slippage_rate": f"{one.settings.slippage_rate:f}",
                "dataset_fingerprint": one.settings.dataset_fingerprint,
            }
            for one in seen_deployed.rows("world.state")
        ],
    }
    for family, expected in lists.items():
        told = call(capsys, family, "list", "--format", "json", "--log", seen_deployed.address).lines()
        assert told == expected != []
        shown = call(capsys, family, "list", "--log", seen_deployed.address).out
        assert all(str(cell) in shown for one in told for cell in one.values() if cell != [])


# ---- queues ----------------------------------------------------------------------------------------------------------


def test_every_queue_is_told_with_its_state_and_its_references(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    rows = {one.topic: one for one in seen_deployed.rows("dag.queues")}
    held = [set(one.node_ids) for one in seen_deployed.rows("dag.sentinels") if one.status in HOLDING]
    shown = look(capsys, seen_deployed, "queue-stats", "--json").lines()
    assert [one["topic"] for one in shown] == sorted(rows)
    states = set()
    for one in shown:
        queue = rows[one["topic"]]
        count = sum(queue.node_id in nodes for nodes in held)
        state = "ready" if count else "orphaned"
        assert (one["references"], one["state"]) == (count, state)
        assert one["orphaned_at_ms"] == (None if count else START_MS + MINUTE_MS)
        assert (one["class"], one["tags"], one["interval"]) == (
            queue.topic_class.value,
            list(queue.tags),
            queue.interval,
        )
        states.add(state)
    assert states == {"ready", "orphaned"}


def test_what_is_in_a_queue_is_counted_on_its_topic(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mine: Deployed
) -> None:
    source = next(one for one in mine.rows("dag.queues") if one.topic_class.value == "raw")
    with client_on(mine.directory) as client:
        feed_bars(client, 5)
    log = open_log(mine.address, read_only=True)
    try:
        found = [one for one in read_all(log, all_partitions(log, source.topic)) if not is_reserved(one.key)]
        wheres = all_partitions(log, source.topic)
        spans = sum(log.begin_offsets(wheres).values()), sum(log.stable_offsets(wheres).values())
    finally:
        log.close()
    (shown,) = look(capsys, mine, "queue-stats", "--tag", "raw", "--json").lines()
    assert len(found) == 10
    assert shown["records"] == 10
    assert shown["bytes"] == sum(len(one.key) + len(one.value or b"") for one in found)
    assert (shown["begin"], shown["end"]) == spans
    assert f" {shown['bytes']} " in look(capsys, mine, "queue-stats", "--tag", "raw").out
    assert not shown["bytes_estimated"]
    monkeypatch.setattr(dag_queues, "COUNTED", 3)
    (larger,) = look(capsys, mine, "queue-stats", "--tag", "raw", "--json").lines()
    assert (larger["records"], larger["bytes"], larger["bytes_estimated"]) == (None, shown["bytes"], True)
    ran = look(capsys, mine, "queue-stats", "--tag", "raw")
    assert f" ~{shown['bytes']} " in ran.out
    assert "estimated" in ran.err


def test_the_lag_of_a_queue_is_that_of_the_reader_that_is_farthest_behind(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    def waiting(client: Client, source: Queue) -> int:
        wheres = partitions_of(source.topic, source.partitions)
        ends, committed = client.log.end_offsets(wheres), client.log.committed("qmtl.nodes", wheres)
        return sum(ends[where] - committed[where] for where in wheres)

    def lag() -> object:
        (shown,) = look(capsys, mine, "queue-stats", "--tag", "raw", "--json").lines()
        return shown["lag"]

    with client_on(mine.directory) as client:
        rest = waiting(client, feed_bars(client, 5))
    assert lag() == rest <= 3  # the ends of transactions have offsets, too
    with client_on(mine.directory, ()) as client:
        source = feed_bars(client, 9, settled=False)
        behind = waiting(client, source)
        assert lag() == behind >= rest + 8 + 12  # bars and markers
        commit(client.log, [row("dag.queues", replace(source, lag_alert_threshold=behind - 1))])
    (shown,) = look(capsys, mine, "queue-stats", "--tag", "raw", "--json").lines()
    assert (shown["lag_alert_threshold"], shown["lags"]) == (behind - 1, True)
    assert f" {behind}! " in look(capsys, mine, "queue-stats", "--tag", "raw").out


def test_a_look_that_takes_longer_than_it_may_is_given_up(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    ran = look(capsys, seen_deployed, "queue-stats", "--within", "1")
    assert_one_screen(ran, "QMTL-810", 6, says=["1 ms", "limit"])
    assert_one_screen(look(capsys, seen_deployed, "queue-stats", "--within", "0"), "QMTL-801", 2)


@pytest.mark.parametrize(
    ("options", "tags", "interval"),
    [
        (["--tag", "crypto", "--tag", "sma"], {"crypto", "sma"}, None),
        (["--tag", "indicator"], {"indicator"}, None),
        (["--tag", "indicator", "--interval", "1h"], {"indicator"}, 3600),
        (["--interval", "60"], set(), 60),
        (["--interval", "1m"], set(), 60),
        (["--tag", "no-such"], {"no-such"}, None),
    ],
)
def test_queues_are_chosen_by_tags_class_and_interval(
    capsys: pytest.CaptureFixture[str],
    seen_deployed: Deployed,
    options: list[str],
    tags: set[str],
    interval: int | None,
) -> None:
    wanted = [
        one.topic
        for one in seen_deployed.rows("dag.queues")
        if tags <= {*one.tags, one.topic_class.value} and (interval is None or one.interval == interval)
    ]
    shown = look(capsys, seen_deployed, "queue-stats", *options, "--json").lines()
    assert [one["topic"] for one in shown] == sorted(wanted)


@pytest.mark.parametrize("text", ["0", "0s", "-1h", "1.5h", "1w", "h", "", "²"])
def test_an_interval_that_is_no_length_of_time_is_refused(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, text: str
) -> None:
    ran = look(capsys, seen_deployed, "queue-stats", "--interval", text)
    assert_one_screen(ran, "QMTL-801", 2, says=["--interval", "15m"])


def test_no_more_than_the_bound_is_shown_and_that_is_said(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    for name, table, what in (
        ("queue-stats", "dag.queues", "queues"),
        ("sentinels", "dag.sentinels", "versions"),
    ):
        count = len(seen_deployed.rows(table))
        ran = look(capsys, seen_deployed, name, "--limit", "2", "--json")
        assert (len(ran.lines()), json.loads(ran.err)) == (2, left_off(2, count, what)), name
        assert f"2 of {count}" in look(capsys, seen_deployed, name, "--limit", "2").err
        every = look(capsys, seen_deployed, name, "--limit", "2", "--all", "--json")
        assert (len(every.lines()), every.err) == (count, ""), name


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("service", "dagmanager", "queues", "--tag", "crypto"), "sets of queues"),
        (("topic", "list"), "topics"),
        (("lag",), "inputs"),
    ],
)
def test_every_other_list_is_bounded_too(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed, command: tuple[str, ...], what: str
) -> None:
    where = ("--log", seen_deployed.address, "--json")
    whole = call(capsys, *command, "--all", *where).lines()
    ran = call(capsys, *command, "--limit", "1", *where)
    (told,) = [json.loads(line) for line in ran.err.splitlines() if line.startswith("{")]
    assert told == left_off(1, len(whole), what)
    (shown,) = ran.lines()
    assert shown in whole
    people = call(capsys, *command, "--limit", "1", "--log", seen_deployed.address)
    assert f"1 of {len(whole)} {what}; --all shows every one." in people.err


@given(st.lists(st.integers(0, 5), max_size=12), st.one_of(st.none(), st.integers(1, 8)))
def test_of_many_inputs_those_are_shown_that_are_farthest_behind_in_their_order(
    lags: list[int], limit: int | None
) -> None:
    inputs: list[Any] = [(at, SimpleNamespace(lag=lag)) for at, lag in enumerate(lags)]
    shown = farthest_behind(inputs, limit)
    assert shown == [one for one in inputs if one in shown]
    assert len(shown) == (len(lags) if limit is None else min(limit, len(lags)))
    left = [one.lag for at, one in inputs if (at, one) not in shown]
    assert all(lag <= one.lag for lag in left for _, one in shown)


# ---- versions --------------------------------------------------------------------------------------------------------


def test_every_version_is_told_with_its_share(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    rows = {one.sentinel_id: one for one in seen_deployed.rows("dag.sentinels")}
    shown = look(capsys, seen_deployed, "sentinels", "--json").lines()
    assert [one["sentinel_id"] for one in shown] == sorted(rows)
    for one in shown:
        row_ = rows[one["sentinel_id"]]
        active = row_.status is SentinelStatus.ACTIVE
        assert one["status"] == row_.status.value
        assert one["traffic_weight"] == (row_.traffic_weight if active else 0)
        assert one["since_ms"] == (row_.active_since_ms if active else row_.retired_at_ms)
        assert one["nodes"] == len(row_.node_ids)
    assert {one["version"]: one["traffic_weight"] for one in shown if one["strategy_id"] == "s1"} == {
        OLD: 0,
        STABLE: 9_000,
        CANARY: 1_000,
    }
    alone = look(capsys, seen_deployed, "sentinels", "--world", WORLD, "--strategy", "s2", "--json").lines()
    assert [one["strategy_id"] for one in alone] == ["s2"]
    assert look(capsys, seen_deployed, "sentinels", "--world", "other", "--json").lines() == []
    assert " 10 % " in look(capsys, seen_deployed, "sentinels").out


# ---- the admin log ---------------------------------------------------------------------------------------------------


def test_the_audit_is_the_admin_log(capsys: pytest.CaptureFixture[str], seen_deployed: Deployed) -> None:
    entries = seen_deployed.messages("dag.admin.log")
    told = look(capsys, seen_deployed, "audit", "--all", "--json").lines()
    assert [(one["act"], one["subject"], one["cause"], one["detail"], one["digest"]) for one in told] == [
        (one.act.value, one.subject, one.cause, one.detail, one.digest) for one in entries
    ]
    newest = look(capsys, seen_deployed, "audit", "--limit", "3", "--json")
    assert (newest.lines(), json.loads(newest.err)) == (told[-3:], left_off(3, len(entries), "lines"))
    people = look(capsys, seen_deployed, "audit", "--limit", "3")
    assert f"the newest 3 of {len(entries)} lines" in people.err
    subject = entries[-1].subject
    some = look(capsys, seen_deployed, "audit", "--subject", subject, "--json").lines()
    assert some == [one for one in told if one["subject"] == subject]


def test_every_diff_of_the_audit_is_a_span_in_the_trace_of_its_request(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    entries = [one for one in seen_deployed.messages("dag.admin.log") if one.act is AdminAct.DIFFED]
    told = look(capsys, seen_deployed, "audit", "--otlp").lines()
    found = [one["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for one in told]
    assert len(entries) == 2 * len(found) == 8
    for span, request, response in zip(found, entries[::2], entries[1::2], strict=True):
        facts = {one["key"]: one["value"].get("stringValue") for one in span["attributes"]}
        assert (facts["qmtl.request_id"], facts["qmtl.subject"]) == (request.cause, request.subject)
        digests = (facts["qmtl.request.digest"], facts["qmtl.response.digest"])
        assert digests == (request.digest, response.digest)
        assert facts["qmtl.response"] in response.detail
        assert (span["traceId"], span["spanId"]) == (trace_id(request.cause), span_id(request.cause))
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        assert span["status"] == {}
    ids = {(span["traceId"], span["spanId"]) for span in found}
    assert {(len(one), len(other)) for one, other in ids} == {(32, 16)}
    assert len(ids) == len(found)
    some = look(capsys, seen_deployed, "audit", "--otlp", "--limit", "1")
    assert (some.lines(), json.loads(some.err)) == (told[-1:], left_off(1, 4, "diffs"))


def test_diffs_are_followed_until_it_is_enough_and_it_is_told_where_to_go_on(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    whole = look(capsys, seen_deployed, "audit", "--otlp").lines()
    verb = ("service", "dagmanager", "audit", "--otlp", "--follow", "--log", seen_deployed.address)
    process = start(seen_deployed.directory, *verb, "--from", "0")
    try:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline()) for _ in whole] == whole
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (0, "")
    first, last = err.splitlines()
    assert first == "diffs from offset 0 on"
    rest = last.removeprefix("go on with ").split()
    assert look(capsys, seen_deployed, "audit", "--otlp", *rest).out == ""
    (offset,) = [one["value"] for one in _span(whole[1])["attributes"] if one["key"] == "qmtl.audit.offset"]
    behind = str(int(offset["intValue"]) + 1)
    assert look(capsys, seen_deployed, "audit", "--otlp", "--from", behind).lines() == whole[2:]
    for more in (("--follow",), ("--from", "3")):
        assert_one_screen(look(capsys, seen_deployed, "audit", *more), "QMTL-801", 2, says=["without --otlp"])
    beyond = look(capsys, seen_deployed, "audit", "--otlp", "--follow", "--from", "999999")
    assert_one_screen(beyond, "QMTL-801", 2, says=["999999", "ends at"])


def _span(exported: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = exported["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    return found


def test_a_span_needs_both_of_its_lines_and_a_refusal_is_an_error() -> None:
    def line(
        offset: int, cause: str, detail: str, act: AdminAct = AdminAct.DIFFED
    ) -> tuple[Record, AdminEntry]:
        record = Record("dag.admin.log", 0, offset, b"", b"", 1_000 + offset)
        return record, AdminEntry(act, cause, "", cause, 0, detail, f"d{offset}")

    lines = [
        line(0, "old", "response: 1 nodes"),  # its request was not kept, or not chosen
        line(1, "a", "request"),
        line(2, "a", "response: refused: QMTL-500"),
        line(3, "a", "response: again"),
        line(4, "b", "request"),
        line(5, "old", "response: 3 nodes"),
        line(6, "c", "request"),
        line(7, "c", "v1 is active", AdminAct.ACTIVATED),
        line(8, "c", "response: 2 nodes"),
        line(9, "c", "refused: [QMTL-608] used", AdminAct.REPEATED),
    ]
    exported = [export(one) for one in diffs(lines)]
    found = [one["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for one in exported]
    *found, repeated = found
    assert [one["traceId"] for one in found] == [trace_id("a"), trace_id("c")]
    assert [one["status"] for one in found] == [{"code": 2}, {}]
    assert (repeated["traceId"], repeated["spanId"]) == (trace_id("c"), span_id("c", "d9"))
    assert (repeated["status"], len({one["spanId"] for one in (*found, repeated)})) == ({"code": 2}, 3)
    times = [(one["startTimeUnixNano"], one["endTimeUnixNano"]) for one in found]
    assert times == [("1001000000", "1002000000"), ("1006000000", "1008000000")]


def test_the_topics_of_now_are_those_of_the_table_and_before_all_there_were_none(
    capsys: pytest.CaptureFixture[str], seen_deployed: Deployed
) -> None:
    ready = sorted(one.topic for one in seen_deployed.rows("dag.queues") if one.ready)
    assert [one["topic"] for one in look(capsys, seen_deployed, "history", "--json").lines()] == ready
    assert look(capsys, seen_deployed, "history", "--at", "2001-01-01", "--json").lines() == []


@settings(max_examples=25, deadline=None)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(list(AdminAct)), st.sampled_from("abc"), st.integers(0, 3)), max_size=12
    ),
    at=st.integers(0, 20),
)
@example([(AdminAct.CREATED, "a", 1)], 1)  # at that very instant
def test_the_topics_of_an_instant_are_those_created_and_not_removed_before_it(
    acts: Sequence[tuple[AdminAct, str, int]], at: int
) -> None:
    from qmtl.interfaces.cli.dagmanager.audit import topics_at

    clock, minute = Clock(), 0
    there: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name, log_in(Path(name) / "log", clock) as log:
        for act, subject, later in acts:
            minute += later
            clock.now_ms = START_MS + minute * MINUTE_MS
            entry = AdminEntry(act, subject, "n", "c", 0)
            commit(log, [row("dag.admin.log", entry)])
            if minute >= at:
                continue
            if act is AdminAct.CREATED:
                there[subject] = clock.now_ms
            elif act is AdminAct.REMOVED:
                there.pop(subject, None)
        found = topics_at(log, START_MS + at * MINUTE_MS)
        assert {topic: since_ms for topic, (since_ms, _) in found.items()} == there
