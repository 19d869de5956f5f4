"""`qmtl topic`: what is listed, described and read is what lies in the log, from wherever one asks it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import Record, TopicPartition
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_reserved, is_stamp
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.topic import follow_from
from qmtl.replay.span import spans_of
from tests.interfaces.cli.running import Ran, assert_one_screen, call, run, start
from tests.interfaces.cli.seen import Seen
from tests.replay.logs import MINUTE_MS, RAW, START_MS, Clock, bar, commit, log_in, marker, row, world

QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOPICS = ("world.state", RAW)


def places(records: list[Record]) -> list[tuple[int, int]]:
    return [(one.partition, one.offset) for one in records]


def places_read(ran: Ran) -> list[tuple[int, int]]:
    assert (ran.code, ran.err) == (0, ""), ran
    return [(one["partition"], one["offset"]) for one in ran.lines()]


def data(records: list[Record]) -> list[Record]:
    return [one for one in records if not is_reserved(one.key)]


# ---- list and describe --------------------------------------------------------------------------------------------


def test_every_topic_is_listed_with_its_owner_and_its_span(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    rows = {
        one["topic"]: one for one in call(capsys, "topic", "list", "--json", "--log", seen.address).lines()
    }
    assert sorted(rows) == sorted([RAW, *(spec.name for spec in CATALOGUE)])
    assert rows[RAW]["owner"] == "people"
    assert rows[RAW]["spans"] == [[0, seen.ends[TopicPartition(RAW, number)]] for number in range(3)]
    assert rows["world.state"]["owner"] == "worldservice"
    assert rows["world.state"]["cleanup"] == "compact"
    assert all(one["about"] for one in rows.values())


def test_the_list_for_people_has_a_line_for_every_topic(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    ran = call(capsys, "topic", "list", "--log", seen.address)
    assert (ran.code, ran.err) == (0, "")
    first_words = {line.split()[0] for line in ran.out.splitlines() if line.strip()}
    assert {RAW, *(spec.name for spec in CATALOGUE)} <= first_words


def test_a_topic_that_nobody_declared_is_listed_and_described_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row(RAW, bar("BTC", 0))])
    where = ("--json", "--log", f"embedded:{tmp_path / 'log'}")
    rows = {one["topic"]: one for one in call(capsys, "topic", "list", *where).lines()}
    assert (rows[RAW]["owner"], rows[RAW]["about"]) == (None, None)
    shown = json.loads(call(capsys, "topic", "describe", RAW, *where).out)
    assert shown["configuration"] == {"cleanup.policy": "delete"}
    assert "neither" in call(capsys, "topic", "describe", RAW, *where[1:]).out


@pytest.mark.parametrize("name", TOPICS)
def test_a_description_has_the_bounds_and_the_last_marker_of_every_partition(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str
) -> None:
    shown = json.loads(call(capsys, "topic", "describe", name, "--json", "--log", seen.address).out)
    for one in shown["partitions"]:
        mine = [record for record in seen.records[name] if record.partition == one["partition"]]
        newest = [record for record in mine if is_marker(record.key)][-1]
        end = seen.ends[TopicPartition(name, one["partition"])]
        bucket_ms = decode_marker_bucket(newest.key)
        assert one == {
            "partition": one["partition"],
            "start": 0,
            "stable": end,
            "high_watermark": end,
            "last_marker_ms": bucket_ms,
            "last_marker": render.instant(bucket_ms),
            "last_marker_offset": newest.offset,
        }


def test_a_description_has_keys_policy_configuration_and_the_fields_of_every_message(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    shown = json.loads(call(capsys, "topic", "describe", "trade.market", "--json", "--log", seen.address).out)
    assert (shown["key"], shown["task_key"], shown["table"], shown["marked"]) == (
        ["world_id", "bar.symbol"],
        [],
        False,
        True,
    )
    assert shown["configuration"]["cleanup.policy"] == "delete"
    messages = {
        one["message"]: {field["field"]: field["type"] for field in one["fields"]}
        for one in shown["messages"]
    }
    assert messages["WorldBar"] == {"world_id": "text", "bar": "Bar"}
    assert messages["Bar"]["close"] == "decimal"
    assert messages["Bar"]["open_time_ms"] == "integer"
    people = call(capsys, "topic", "describe", "activation", "--log", seen.address)
    assert (people.code, people.err) == (0, "")
    for text in ("long | short", "decimal", "boolean", "min.compaction.lag.ms", "world_id strategy_id side"):
        assert text in people.out


def test_a_partition_without_a_marker_says_so(capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    shown = json.loads(call(capsys, "topic", "describe", "dag.tasks", "--json", "--log", seen.address).out)
    assert shown["partitions"][0]["last_marker"] is None


def test_a_marker_far_from_the_end_is_found(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [marker("world.state", START_MS), *(row("world.state", world("a")) for _ in range(4000))])
    shown = call(
        capsys, "topic", "describe", "world.state", "--json", "--log", f"embedded:{tmp_path / 'log'}"
    )
    assert json.loads(shown.out)["partitions"][0]["last_marker_ms"] == START_MS


# ---- read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOPICS)
def test_reading_gives_every_record_partition_by_partition(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str
) -> None:
    where = ("--json", "--log", seen.address)
    assert places_read(call(capsys, "topic", "read", name, *where)) == places(data(seen.records[name]))
    assert places_read(call(capsys, "topic", "read", name, "--markers", *where)) == places(seen.records[name])


@QUICK
@given(name=st.sampled_from(TOPICS), offset=st.integers(-60, 60))
def test_reading_from_an_offset_is_the_filter_by_offset(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str, offset: int
) -> None:
    ran = call(
        capsys,
        "topic",
        "read",
        name,
        "--markers",
        "--from-offset",
        str(offset),
        "--json",
        "--log",
        seen.address,
    )

    def first(one: Record) -> int:
        return offset if offset >= 0 else seen.ends[TopicPartition(name, one.partition)] + offset

    assert places_read(ran) == places([one for one in seen.records[name] if one.offset >= first(one)])


@QUICK
@given(name=st.sampled_from(TOPICS), seconds=st.integers(-90, 15 * 60), iso=st.booleans())
def test_reading_from_a_time_is_the_filter_by_time(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str, seconds: int, iso: bool
) -> None:
    from_ms = START_MS + seconds * 1000
    text = render.instant(from_ms) if iso else str(from_ms)
    ran = call(
        capsys, "topic", "read", name, "--markers", "--from-time", text, "--json", "--log", seen.address
    )
    assert places_read(ran) == places([one for one in seen.records[name] if one.timestamp_ms >= from_ms])


def bucket_filter(records: list[Record], bucket_ms: int) -> list[Record]:
    """Everything that comes after the last marker of an earlier bucket, by brute force."""
    out: dict[int, list[Record]] = {}
    for one in records:
        kept = out.setdefault(one.partition, [])
        kept.append(one)
        if is_marker(one.key) and decode_marker_bucket(one.key) < bucket_ms:
            kept.clear()
    return [one for _, kept in sorted(out.items()) for one in kept]


@QUICK
@given(seconds=st.integers(-90, 15 * 60), iso=st.booleans())
def test_reading_from_a_bucket_starts_right_after_the_marker_before_it(
    capsys: pytest.CaptureFixture[str], seen: Seen, seconds: int, iso: bool
) -> None:
    bucket_ms = START_MS + seconds * 1000
    text = render.instant(bucket_ms) if iso else str(bucket_ms)
    ran = call(
        capsys, "topic", "read", RAW, "--markers", "--from-bucket", text, "--json", "--log", seen.address
    )
    assert places_read(ran) == places(bucket_filter(seen.records[RAW], bucket_ms))


def test_the_bars_of_one_bucket_come_first(capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    closed = START_MS + 5 * MINUTE_MS
    ran = call(capsys, "topic", "read", RAW, "--from-bucket", str(closed), "--json", "--log", seen.address)
    opened = {one["value"]["open_time_ms"] for one in ran.lines()}
    assert min(opened) == closed - MINUTE_MS
    assert len(opened) == 12 - 4


def test_a_bucket_whose_marker_is_gone_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    ran = call(
        capsys,
        "topic",
        "read",
        "world.state",
        "--from-bucket",
        str(START_MS),
        "--json",
        "--log",
        seen.address,
    )
    assert len(ran.lines()) == len(data(seen.records["world.state"]))
    assert "not on the log any more" in ran.err


def test_a_topic_without_markers_has_no_buckets_to_read(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    ran = call(capsys, "topic", "read", "dag.tasks", "--from-bucket", "0", "--log", seen.address)
    assert_one_screen(ran, "QMTL-801", 2, says=["carries no close markers"])


@QUICK
@given(partition=st.integers(0, 2), limit=st.integers(1, 30))
def test_a_partition_and_a_limit_cut_exactly(
    capsys: pytest.CaptureFixture[str], seen: Seen, partition: int, limit: int
) -> None:
    narrow = ("--partition", str(partition), "--limit", str(limit))
    ran = call(capsys, "topic", "read", RAW, *narrow, "--json", "--log", seen.address)
    mine = [one for one in data(seen.records[RAW]) if one.partition == partition]
    assert places_read(ran) == places(mine[:limit])


def test_a_partition_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    ran = call(capsys, "topic", "read", RAW, "--partition", "3", "--log", seen.address)
    assert_one_screen(ran, "QMTL-801", 2, says=["3 partitions"])


def test_two_beginnings_are_refused(capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    ran = call(capsys, "topic", "read", RAW, "--from-offset", "1", "--from-time", "1", "--log", seen.address)
    assert_one_screen(ran, "QMTL-801", 2)


# ---- what a record looks like ---------------------------------------------------------------------------------------


def test_a_record_has_its_place_its_key_and_its_value(capsys: pytest.CaptureFixture[str], seen: Seen) -> None:
    lines = call(capsys, "topic", "read", RAW, "--json", "--markers", "--log", seen.address).lines()
    for shown, record in zip(lines, seen.records[RAW], strict=True):
        message = codec.decode(record.value or b"")
        assert list(shown) == sorted(shown)
        assert (shown["topic"], shown["timestamp_ms"]) == (RAW, record.timestamp_ms)
        assert shown["type"] == type(message).__name__
        if is_marker(record.key):
            assert (shown["kind"], shown["key"]) == (
                "marker",
                [message.processor, message.task, message.bucket_ms],
            )
        else:
            assert (shown["kind"], shown["key"]) == ("record", [message.symbol])
            assert shown["value"]["close"] == f"{message.close.normalize():f}"


def test_tombstones_stamps_and_bytes_that_do_not_decode_are_shown(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    lines = call(capsys, "topic", "read", "world.state", "--json", "--markers", "--log", seen.address).lines()
    records = seen.records["world.state"]
    assert len(lines) == len(records)
    (dead,) = (one for one in lines if one["value"] is None)
    assert (dead["key"], dead["type"], dead["kind"]) == (["w2"], None, "record")
    (torn,) = (one for one in lines if "error" in one)
    assert (torn["key"], torn["type"], torn["error"]) == (["torn"], None, "QMTL-201")
    assert base64.b64decode(torn["value"]) == b"\x00rubbish"
    (odd,) = (one for one in lines if isinstance(one["key"], dict))
    assert base64.b64decode(odd["key"]["base64"]) == b"\xffkey"
    assert sum(one["kind"] == "stamp" for one in lines) == sum(is_stamp(one.key) for one in records) > 0


def test_the_table_for_people_shows_the_same_records_without_a_control_byte(
    seen: Seen, tmp_path: Path
) -> None:
    ran = run(tmp_path, "topic", "read", "world.state", "--log", seen.address)
    head, *lines = ran.out.splitlines()
    assert head.split() == ["PART", "OFFSET", "TIME", "TYPE", "KEY", "VALUE"]
    assert len(lines) == len(data(seen.records["world.state"]))
    assert "\\x1b[31mred\\x07\\n" in ran.out
    assert all(one.isprintable() for one in (head, *lines))
    assert "tombstone" in ran.out
    assert "QMTL-201" in ran.out
    assert f"world.state[0]@{seen.records['world.state'][-1].offset + 1}" in ran.err


# ---- while somebody writes --------------------------------------------------------------------------------------------


class Following:
    """A `qmtl topic read --follow` in a process of its own, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: Queue[str] = Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def take(self, count: int) -> list[Any]:
        return [json.loads(self._lines.get(timeout=120)) for _ in range(count)]

    def end(self, number: int) -> tuple[int, str, int]:
        self.process.send_signal(number)
        code = self.process.wait(timeout=120)
        assert self.process.stderr is not None
        return code, self.process.stderr.read(), self._lines.qsize()


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., Following]:
    def begin(*args: str) -> Following:
        where = ("--json", "--follow", "--log", f"embedded:{tmp_path / 'log'}")
        return Following(start(tmp_path, "topic", "read", "world.state", *args, *where))

    return begin


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_following_sees_what_another_process_commits_later_and_ends_on_a_signal(
    tmp_path: Path, follow: Callable[..., Following], ending: signal.Signals
) -> None:
    with log_in(tmp_path / "log", Clock()) as log:
        commit(log, [row("world.state", world("before"))])
        following = follow()
        assert [one["key"] for one in following.take(1)] == [["before"]]
        for number in range(3):
            commit(
                log, [row("world.state", world(f"later{number}")), marker("world.state", START_MS + number)]
            )
            assert [one["key"] for one in following.take(1)] == [[f"later{number}"]]
        assert following.end(ending) == (0, "", 0)
    assert [one.name for one in tmp_path.iterdir()] == ["log"]


def test_following_from_an_offset_that_is_not_written_yet_waits_for_it(
    tmp_path: Path, follow: Callable[..., Following]
) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("world.state", world("zero"))])
        following = follow("--from-offset", "4", "--limit", "1")
        for number in range(1, 4):
            commit(log, [row("world.state", world(f"n{number}"))])
        (found,) = following.take(1)
        assert (found["key"], found["offset"]) == (["n2"], 4)
        assert following.process.wait(timeout=120) == 0


def test_following_leaves_out_what_comes_before_the_offset_asked_for(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("world.state", world("zero"))])
        where = TopicPartition("world.state", 0)
        spans = spans_of(log, [where])
        for number in range(1, 4):
            commit(log, [row("world.state", world(f"n{number}"))])
        came = follow_from(log, spans, {where: 4})
        assert [next(came).offset, next(came).offset] == [4, 6]
        came.close()


def test_a_log_that_another_process_holds_can_be_read(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("world.state", world("held"))])
        ran = run(tmp_path, "topic", "read", "world.state", "--json", "--log", f"embedded:{tmp_path / 'log'}")
        assert [one["key"] for one in ran.lines()] == [["held"]]
