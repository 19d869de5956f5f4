"""`qmtl topic compact`: what is found by key is the same before and after, and only what may go has gone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Record, TopicPartition
from qmtl.foundation.wire.topics import DAY_MS
from tests.contract.driving import events, put, table
from tests.interfaces.cli.running import assert_one_screen, call
from tests.replay.logs import START_MS, Clock, log_in

LATER_MS = START_MS + 100 * 365 * DAY_MS
"""No clock of a machine says so much: what is written then is young whenever this test runs."""

A, B, STREAM = table("a"), table("b"), events("stream")
A0, B0, STREAM0 = (TopicPartition(one.name, 0) for one in (A, B, STREAM))

ROWS = st.lists(
    st.tuples(st.sampled_from([b"k", b"l", b"m"]), st.none() | st.sampled_from([b"", b"1", b"22"]))
)


def written(
    directory: Path, old: Sequence[tuple[bytes, bytes | None]], young: Sequence[tuple[bytes, bytes | None]]
) -> None:
    """A log with these rows in three topics."""
    clock = Clock(START_MS)
    with log_in(directory, clock, [A, B, STREAM]) as log:
        for rows in (old, young):
            for where in (A0, B0, STREAM0):
                put(log, [(where, key, value) for key, value in rows])
            clock.now_ms = LATER_MS


def records(directory: Path, where: TopicPartition) -> list[Record]:
    log = EmbeddedLog(directory, read_only=True)
    try:
        return list(log.read(where, 0))
    finally:
        log.close()


def by_key(found: Sequence[Record]) -> dict[bytes, bytes]:
    last = {one.key: one.value for one in found}
    return {key: value for key, value in last.items() if value is not None}


def size(found: Sequence[Record]) -> tuple[int, int]:
    return len(found), sum(len(one.key) + len(one.value or b"") for one in found)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS)
def test_what_is_found_by_key_is_the_same_and_what_was_replaced_has_gone(
    capsys: pytest.CaptureFixture[str],
    old: list[tuple[bytes, bytes | None]],
    young: list[tuple[bytes, bytes | None]],
) -> None:
    with TemporaryDirectory() as place:
        directory = Path(place) / "log"
        written(directory, old, young)
        before = {where: records(directory, where) for where in (A0, B0, STREAM0)}
        asked = ("topic", "compact", "a", "--json", "--log", f"embedded:{directory}")
        (told,) = call(capsys, *asked).lines()
        after = {where: records(directory, where) for where in (A0, B0, STREAM0)}
        assert (after[B0], after[STREAM0]) == (before[B0], before[STREAM0])
        assert by_key(after[A0]) == by_key(before[A0])
        last = {one.key: one.offset for one in before[A0] if one.timestamp_ms < LATER_MS}
        assert after[A0] == [
            one
            for one in before[A0]
            if one.timestamp_ms == LATER_MS or (one.value is not None and last[one.key] == one.offset)
        ]
        assert (told["records_before"], told["bytes_before"]) == size(before[A0])
        assert (told["records"], told["bytes"]) == size(after[A0])
        (again,) = call(capsys, *asked).lines()
        assert (again["records_before"], again["records"]) == (told["records"], told["records"])


ROW = [(b"k", b"1"), (b"k", b"2"), (b"l", b"333"), (b"l", None)]


def test_without_topics_all_that_are_compacted_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = tmp_path / "log"
    written(directory, ROW, [])
    ran = call(capsys, "topic", "compact", "--log", f"embedded:{directory}")
    assert (ran.code, ran.err) == (0, "6 records of 2 topics went\n")
    assert [one.split() for one in ran.out.splitlines()[2:]] == [
        ["a", "4", "1", "9", "2"],
        ["b", "4", "1", "9", "2"],
    ]
    assert len(records(directory, STREAM0)) == len(ROW)


def test_what_was_not_named_is_still_due(tmp_path: Path) -> None:
    clock = Clock(START_MS)
    with log_in(tmp_path / "log", clock, [A, B]) as log:
        put(log, [(where, key, value) for where in (A0, B0) for key, value in ROW])
        clock.now_ms = LATER_MS
        assert log.clean(["a"]) == 3
        assert log.clean_if_due() == 3
        assert log.clean_if_due() == 0


@pytest.mark.parametrize(
    ("names", "code", "exit_code", "says"),
    [
        (("a", "stream"), "QMTL-801", 2, "'stream' was given, whose records go by age (delete)"),
        (("a", "none"), "QMTL-304", 3, "'none'"),
    ],
)
def test_a_topic_that_can_not_be_compacted_is_refused_before_anything_goes(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    names: tuple[str, ...],
    code: str,
    exit_code: int,
    says: str,
) -> None:
    directory = tmp_path / "log"
    written(directory, ROW, [])
    ran = call(capsys, "topic", "compact", *names, "--log", f"embedded:{directory}")
    assert_one_screen(ran, code, exit_code, says=[says])
    assert len(records(directory, A0)) == len(ROW)


def test_a_log_that_somebody_holds_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    directory = tmp_path / "log"
    written(directory, ROW, [])
    log = EmbeddedLog(directory, clock_ms=Clock(START_MS))
    try:
        ran = call(capsys, "topic", "compact", "--log", f"embedded:{directory}")
        assert_one_screen(ran, "QMTL-302", 3, says=["held by another process"])
        assert len(list(log.read(A0, 0))) == len(ROW)
    finally:
        log.close()


def test_a_log_that_is_not_there_is_not_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ran = call(capsys, "topic", "compact", "--log", f"embedded:{tmp_path / 'none'}")
    assert_one_screen(ran, "QMTL-301", 3, says=["no embedded log"])
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("address", "names", "says"),
    [
        (
            "kafka://k1:9092",
            (),
            "--bootstrap-server k1:9092 --alter --entity-type topics --entity-name TOPIC",
        ),
        (
            "kafka://k1:9092/w1.live",
            ("dag.nodes",),
            "--entity-name w1.live.dag.nodes --add-config segment.ms",
        ),
        ("somewhere", (), "embedded:DIR"),
    ],
)
def test_on_another_log_it_says_who_compacts(
    capsys: pytest.CaptureFixture[str], address: str, names: tuple[str, ...], says: str
) -> None:
    ran = call(capsys, "topic", "compact", *names, "--log", address)
    assert_one_screen(ran, "QMTL-801", 2, says=[says])
