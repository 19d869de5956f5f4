"""What the close markers of a table say of its rows, who writes it after a death, and who holds a table to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.open_rows import read_open_rows
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import CutMismatch
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.keys import encode_key, is_marker, is_reserved
from qmtl.foundation.wire.topics import DAY_MS
from tests.engine.driving import Bench, bench
from tests.engine.models import minute
from tests.engine.toys import (
    A_OUT,
    B_STATE,
    CODEC,
    LATE_STATE,
    SIDE,
    A,
    B,
    Feed,
    Item,
    Late,
    Total,
    X,
    make_topics,
)

Told = list[tuple[int, int, str]]
"""Bucket, count and digest."""


def told(log: Log, topic: str) -> Told:
    """What the markers on a log say."""
    found: list[CloseMarker] = [
        CODEC.decode(one.value)
        for one in read_all(log, all_partitions(log, topic))
        if is_marker(one.key) and one.value is not None
    ]
    return [(one.bucket_ms, one.count, one.digest) for one in found]


def counted(log: Log, topic: str) -> Told:
    """What they should say, from the records that lie between them, by the rule as it is written down."""
    out: Told = []
    rows: dict[bytes, bytes | None] = {}
    for one in read_all(log, all_partitions(log, topic)):
        if not is_reserved(one.key):
            rows[one.key] = one.value
        elif is_marker(one.key) and one.value is not None:
            text = b"".join(
                b"%d:%d:%d:%s%s" % (len(key), value is not None, len(value or b""), key, value or b"")
                for key, value in sorted(rows.items())
            )
            bucket: CloseMarker = CODEC.decode(one.value)
            out.append((bucket.bucket_ms, len(rows), blake3(text).hexdigest(8)))
            rows = {}
    return out


names = st.sampled_from(["a", "b", "c", "d"])
touches = st.lists(st.tuples(names, st.integers(0, 2)), max_size=6)
"""Names, and what is added to them; 0 deletes the row."""


def play(
    directory: Path, buckets: list[tuple[list[tuple[str, int]], list[tuple[str, int]]]], poll: int, die: str
) -> tuple[Told, Told]:
    """Touch rows between buckets and in them, with a new worker for each where it dies; what the markers say, and should."""
    shutil.rmtree(directory, ignore_errors=True)
    log = EmbeddedLog(directory / "log")
    make_topics(log)
    feed, side = Feed(log, X), Feed(log, SIDE)
    runs: Bench | None = None
    for number, (between, within) in enumerate(buckets):
        for stage in (
            between,
            within,
        ):  # settled before the next: what lies before a bucket is no matter of splitting
            items = [Item(name, at, amount) for at, (name, amount) in enumerate(stage)]
            if stage is between:
                side.put({0: items})
            else:
                feed.bucket(minute(number), {0: items})
            runs = runs or Bench(log, directory / "state", [lambda: Late(1)], poll)
            runs.settle()
            if die:
                runs.close()
                runs = None
            if die == "lose":
                shutil.rmtree(directory / "state")
    if runs is not None:
        runs.close()
    found = told(log, LATE_STATE.name), counted(log, LATE_STATE.name)
    log.close()
    return found


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(touches, touches), min_size=1, max_size=4))
def test_a_tables_marker_counts_its_rows_the_same_however_work_is_split_and_whoever_dies(
    tmp_path_factory: pytest.TempPathFactory,
    buckets: list[tuple[list[tuple[str, int]], list[tuple[str, int]]]],
) -> None:
    place = tmp_path_factory.mktemp("cuts")
    found, right = play(place / "calm", buckets, 4000, "")
    assert found == right
    assert len(found) == 1 + len(buckets)
    for poll in (1, 3):
        for die in ("", "keep", "lose"):
            assert play(place / "other", buckets, poll, die)[0] == found


def test_the_rows_since_the_last_marker_are_found_however_far_back_it_lies(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path)
    make_topics(log)
    where = TopicPartition(LATE_STATE.name, 0)
    assert read_open_rows(log, where, 5.0) == {}
    writer = log.writer("somebody")
    rows: dict[bytes, bytes | None] = {}
    for number in range(3):
        writer.begin()
        for at in range(1500):
            key = encode_key((f"{at}",))
            rows[key] = None if at % 7 == 0 else b"%d" % number
            writer.append(*where, key, rows[key])
        writer.commit({}, "", None)
        assert read_open_rows(log, where, 5.0) == rows
    feed = Feed(log, LATE_STATE, "another")
    feed.forge(CloseMarker("another", 0, 1, minute(0), 0, "", 1))
    assert read_open_rows(log, where, 5.0) == {}
    writer.begin()
    writer.append(*where, encode_key(("z",)), b"1")
    writer.commit({}, "", None)
    assert read_open_rows(log, where, 5.0) == {encode_key(("z",)): b"1"}
    log.close()


@pytest.mark.parametrize("age_ms", [0, DAY_MS])
def test_a_table_with_a_row_that_nobody_counted_stops_its_reader_unless_the_cleaner_may_have_been_there(
    tmp_path: Path, age_ms: int
) -> None:
    now = [10 * DAY_MS]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    make_topics(log)
    feed = Feed(log, X)
    feed.bucket(minute(0), {0: [Item("n", 0, 1)]})
    feed.bucket(minute(1), {0: [Item("n", 1, 1)]})
    with bench(log, tmp_path / "state", A, B) as runs:
        runs.settle()
        (reader,) = (worker for worker in runs.workers if worker.name == A.name)
        (writer,) = (worker for worker in runs.workers if worker.name == B.name)
        strange = log.writer("nobody")
        strange.begin()
        strange.append(B_STATE.name, 0, encode_key(("strange",)), CODEC.encode(Total("strange", 100, 1)))
        strange.commit({}, "", None)
        feed.bucket(minute(2), {0: [Item("n", 2, 1)]})
        while reader.step() or writer.step():
            if [one.seq for one in read_seen(log)][-1:] == [2]:
                break
        while writer.step():  # it closes bucket 2, with one row that it has written
            pass
        now[0] += age_ms
        if age_ms:
            feed.bucket(minute(3), {0: [Item("n", 3, 1)]})
            runs.settle()
            assert [one.seq for one in read_seen(log)] == [0, 1, 2, 3]
        else:
            with pytest.raises(CutMismatch, match=B_STATE.name):
                runs.settle()
    log.close()


def read_seen(log: Log) -> list[Item]:
    """What A has given out."""
    return [
        CODEC.decode(one.value or b"")
        for one in read_all(log, all_partitions(log, A_OUT.name))
        if not is_reserved(one.key)
    ]
