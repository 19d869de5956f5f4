"""What a scrape says is what lies on the log: counted by reading the log, not by asking the engine."""

from __future__ import annotations

import tempfile
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition, partitions_of
from qmtl.engine.processor import Input
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.wire.keys import is_marker, is_reserved, is_stamp
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.interfaces.metrics import watch
from tests.contract.driving import until
from tests.engine.driving import bench, messages
from tests.engine.faults import Fault, FaultyLog
from tests.engine.models import minute
from tests.engine.toys import (
    A_OUT,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    XX,
    A,
    B,
    Counter,
    Feed,
    Item,
    X,
    make_topics,
    spread,
)
from tests.interfaces.metrics.scraping import shown

BATCHES = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 9)),
            st.just(b"\x00rubbish"),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)
PLANS = st.lists(st.sampled_from([Fault.NONE, Fault.ABORTED, Fault.UNKNOWN_BEFORE]), max_size=6)


@pytest.fixture(autouse=True)
def always_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is looked at after each step, so that a scrape shows the last one."""
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.0)


def transactions(log: Log) -> int:
    """How many transactions the counter has committed: each ends the table of its task with a stamp."""
    return sum(is_stamp(one.key) for one in read_all(log, all_partitions(log, COUNTS.name)))


def written(log: Log, *topics: str) -> int:
    return sum(1 for name in topics for _ in read_all(log, all_partitions(log, name)))


@settings(max_examples=12)
@given(batches=BATCHES, plan=PLANS, poll=st.integers(1, 5))
def test_counts_are_those_of_the_log_whatever_aborts(
    batches: Sequence[Sequence[tuple[str, int] | bytes]], plan: Sequence[Fault], poll: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = FaultyLog(Path(directory) / "log", iter(plan))
        make_topics(log)
        feed = Feed(log, ITEMS)
        with shown(log, Path(directory) / "state", Counter, poll=poll) as runs:
            for number, batch in enumerate(batches):
                rows = [one if isinstance(one, bytes) else Item(one[0], number, one[1]) for one in batch]
                feed.put({number % 2: rows})
                runs.settle()
            found = runs.scrape()
            letters = messages(log, DEAD.name)
            assert found.total("qmtl_records_processed_total") == len(messages(log, ECHO.name))
            assert found.total("qmtl_dead_letters_total") == len(letters)
            for code, count in Tally(letter.code for letter in letters).items():
                assert found.total("qmtl_dead_letters_total", code=code) == count
            assert found.total("qmtl_transactions_total", outcome="committed") == transactions(log)
            assert found.total("qmtl_transactions_total", outcome="committed") == found.total(
                "qmtl_transaction_duration_seconds_count"
            )
            met = Tally(list(plan)[: transactions(log) + sum(one is not Fault.NONE for one in plan)])
            assert found.total("qmtl_transactions_total", outcome="aborted") <= met[Fault.ABORTED]
            assert found.total("qmtl_transactions_total", outcome="unknown") <= met[Fault.UNKNOWN_BEFORE]
            assert found.total("qmtl_records_written_total") == written(
                log, COUNTS.name, ECHO.name, DEAD.name, "task.cuts"
            )
            assert found.total("qmtl_input_lag_offsets") == 0
            folded: dict[tuple[int, bytes], bytes | None] = {}
            for one in read_all(log, all_partitions(log, COUNTS.name)):
                if not is_reserved(one.key):
                    folded[one.partition, one.key] = one.value
            live = sum(value is not None for value in folded.values())
            assert found.total("qmtl_table_rows", table=COUNTS.name) == live
        log.close()


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [(Fault.ABORTED, "aborted"), (Fault.UNKNOWN_BEFORE, "unknown"), (Fault.UNKNOWN_AFTER, "unknown")],
)
def test_each_outcome_is_counted_as_what_it_was(tmp_path: Path, fault: Fault, outcome: str) -> None:
    log = FaultyLog(tmp_path / "log", iter([Fault.NONE, Fault.NONE, fault]))
    make_topics(log)
    with shown(log, tmp_path / "state", Counter) as runs:
        runs.settle()  # both tasks write their first stamps
        Feed(log, ITEMS).put({0: [Item("a", 1, 1)]})
        runs.settle()
        found = runs.scrape()
    assert found.total("qmtl_transactions_total", outcome=outcome) == 1
    assert found.get("qmtl_transactions_total", processor="counter", task=0, outcome=outcome) == 1
    visible = (
        2 if fault is Fault.UNKNOWN_AFTER else 3
    )  # what nobody knows to be committed is not counted as that
    assert found.total("qmtl_transactions_total", outcome="committed") == visible
    assert found.get("qmtl_restore_duration_seconds_count", processor="counter", task=0) == 2
    log.close()


def test_a_fenced_worker_says_so_before_it_ends(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        runs.settle()
        embedded_log.writer("qmtl.counter.0")  # another has the slot
        Feed(embedded_log, ITEMS).put({1: [Item("a", 1, 1)]})
        with pytest.raises(Exception, match="newer writer"):
            runs.settle()
        found = runs.scrape()
        assert found.get("qmtl_transactions_total", processor="counter", task=1, outcome="fenced") == 1
        assert (runs.health().status, runs.health().json()["reasons"]) == (503, ["counter[1] is not open"])


JOINING = spread(Input(X.name, bucketed=True), Input(XX.name, bucketed=True, broadcast=True, joins=True))


def test_late_records_and_closed_buckets_are_counted_apart(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    log = embedded_log
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    with shown(log, tmp_path, JOINING) as runs:
        x.bucket(minute(3), {0: [Item("x", 3, 1)]})
        runs.settle()
        xx.bucket(minute(1), {1: [Item("late", 9, 1), Item("late", 10, 1), b"\x00rubbish"]})
        runs.settle()
        for feed in (x, xx):
            feed.bucket(minute(4))
        runs.settle()
        found = runs.scrape()
    letters: list[DeadLetter] = messages(log, DEAD.name)
    late = messages(log, "late.records")
    assert (len(letters), len(late)) == (1, 2)
    assert found.total("qmtl_late_records_total") == len(late)
    assert found.total("qmtl_dead_letters_total") == len(letters)
    markers = [one for one in read_all(log, all_partitions(log, A_OUT.name)) if is_marker(one.key)]
    assert found.total("qmtl_buckets_closed_total") == len(markers) - 1  # the first is genesis
    assert found.get("qmtl_task_watermark_timestamp_seconds", processor="a", task=0) == minute(4) / 1000


def test_what_a_task_waits_for_is_shown_until_it_comes(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    with shown(log, tmp_path, spread(Input(XX.name, bucketed=True, broadcast=True))) as runs:
        feed.bucket(minute(1))
        feed.bucket(minute(2), closes=[0, 2])
        runs.settle()
        found = runs.scrape()
        silent = {"processor": "a", "task": "0", "topic": XX.name, "partition": "1"}
        for name, bucket in (("needed", 2), ("have", 1)):
            assert found.labelled(f"qmtl_gate_{name}_timestamp_seconds") == [silent]
            assert found.get(f"qmtl_gate_{name}_timestamp_seconds", **silent) == minute(bucket) / 1000
        assert found.total("qmtl_task_waits_for_inputs") == 1
        feed.bucket(minute(2), closes=[1])
        runs.settle()
        after = runs.scrape()
    assert after.total("qmtl_task_waits_for_inputs") == 0
    assert after.labelled("qmtl_gate_needed_timestamp_seconds") == []


def test_a_partition_too_far_ahead_is_counted_once_each_time(
    embedded_log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "BUFFERED_BUCKETS", 2)
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    with shown(log, tmp_path, spread(Input(XX.name, bucketed=True, broadcast=True))) as runs:
        for turn in range(1, 4):
            for number in (2 * turn, 2 * turn + 1):
                feed.bucket(minute(number), {0: [Item("n", number, 1)]}, closes=[0])
            runs.settle()
            found = runs.scrape()
            assert found.get("qmtl_input_pauses_total", processor="a", task=0, topic=XX.name) == turn
            assert found.get("qmtl_task_paused_inputs", processor="a", task=0) == 1
            assert found.get("qmtl_task_held_records", processor="a", task=0) == 2
            for number in (2 * turn, 2 * turn + 1):
                feed.bucket(minute(number), closes=[1, 2])
            runs.settle()
            assert runs.scrape().get("qmtl_task_paused_inputs", processor="a", task=0) == 0


# ---- lag ------------------------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(
    before=st.lists(st.integers(0, 3), max_size=4),
    after=st.lists(st.integers(0, 3), max_size=6),
    torn=st.integers(0, 3),
)
def test_the_lag_in_records_buckets_and_seconds_is_that_of_the_log(
    before: Sequence[int], after: Sequence[int], torn: int
) -> None:
    """A worker that stands still: of what came after, nothing was read."""
    with tempfile.TemporaryDirectory() as directory:
        log = EmbeddedLog(Path(directory) / "log")
        make_topics(log)
        x = Feed(log, X)
        with shown(log, Path(directory) / "state", spread(Input(X.name, bucketed=True))) as runs:
            for number, count in enumerate(before):
                x.bucket(minute(number), {0: [Item("n", number, 1)] * count})
            runs.settle()
            labels = {"processor": "a", "task": "0", "topic": X.name, "partition": "0"}
            at_rest = runs.scrape()
            assert at_rest.get("qmtl_input_lag_offsets", **labels) == 0
            assert at_rest.get("qmtl_input_lag_buckets", **labels) == 0
            done = log.end_offsets([TopicPartition(X.name, 0)])[TopicPartition(X.name, 0)]
            for number, count in enumerate(after, len(before)):
                x.bucket(minute(number), {0: [Item("n", number, 1)] * count})
            if torn:
                x.put({0: [Item("torn", 0, 1)] * torn})
            found = runs.scrape()
            (end,) = log.end_offsets([TopicPartition(X.name, 0)]).values()
            assert found.get("qmtl_input_high_watermark", **labels) == end
            assert found.get("qmtl_input_stable_offset", **labels) == end
            assert found.get("qmtl_input_lag_offsets", **labels) == end - done
            assert found.get("qmtl_input_lag_stable_offsets", **labels) == end - done
            assert found.get("qmtl_input_lag_buckets", **labels) == len(after)
            assert found.get("qmtl_input_lag_seconds", **labels) == (60.0 * len(after) if before else None)
            newest = minute(len(before) + len(after) - 1) / 1000 if before or after else None
            assert found.get("qmtl_input_watermark_timestamp_seconds", **labels) == newest
            runs.settle()
            caught_up = runs.scrape()
            records = [*read_all(log, [TopicPartition(X.name, 0)])]
            closed = max((one.offset + 1 for one in records if is_marker(one.key)), default=0)
            # Records behind the last marker wait for their bucket.
            waiting = end - closed if torn else 0
            assert caught_up.get("qmtl_input_lag_offsets", **labels) == waiting
            assert caught_up.get("qmtl_input_lag_buckets", **labels) == 0
        log.close()


def test_partitions_beyond_the_bound_share_one_series_that_hides_no_lag(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    make = spread(Input(X.name, bucketed=True), Input(XX.name, bucketed=True, broadcast=True))
    with shown(log, tmp_path, make, series=2) as runs:
        x, xx = Feed(log, X), Feed(log, XX)
        runs.settle()
        x.bucket(minute(0), {0: [Item("n", 0, 1)]})
        xx.bucket(minute(0), {2: [Item("n", 0, 1)] * 5, 1: [Item("n", 0, 1)]})
        found = runs.scrape()
    ends = log.end_offsets([*partitions_of(X.name, 1), *partitions_of(XX.name, 3)])
    assert len(found.labelled("qmtl_input_lag_offsets")) == 3
    assert found.total("qmtl_input_lag_offsets") == sum(ends.values())
    others = {"processor": "a", "task": "0", "topic": "others", "partition": ""}
    assert found.get("qmtl_input_lag_offsets", **others) == sum(
        ends[where] for where in partitions_of(XX.name, 3)[1:]
    )
    assert found.get("qmtl_task_inputs", processor="a", task=0) == 4


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_the_size_of_a_store_is_that_of_its_files(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path / "state", Counter) as runs:
        Feed(embedded_log, ITEMS).put({0: [Item(f"n{number}", 0, 1) for number in range(500)]})
        runs.settle()
        found = runs.scrape()
        files = sum(one.stat().st_size for one in (tmp_path / "state" / "counter-0").iterdir())
    assert found.get("qmtl_table_rows", processor="counter", task=0, table=COUNTS.name) == 500
    size = found.get("qmtl_store_bytes", processor="counter", task=0)
    assert size is not None
    assert 0 < size <= files
    assert found.get("qmtl_table_rows_written_total", processor="counter", task=0) == 500


def test_what_a_log_does_not_answer_is_a_failure_and_the_last_answer_stays(
    embedded_log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qmtl.foundation.common.errors import LogError

    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        Feed(embedded_log, ITEMS).put({0: [Item("a", 0, 1)]})
        runs.settle()
        before = runs.scrape()

        def silent(partitions: object) -> None:
            raise LogError("the cluster did not answer")

        monkeypatch.setattr(embedded_log, "stable_offsets", silent)
        failed = runs.scrape()
        assert failed.get("qmtl_sample_failures_total", sample="inputs") == 1
        assert failed.total("qmtl_input_high_watermark") == before.total("qmtl_input_high_watermark") > 0
        age = failed.get("qmtl_sample_age_seconds", sample="inputs")
        assert age is not None
        monkeypatch.undo()
        until(lambda: (runs.scrape().get("qmtl_sample_age_seconds", sample="inputs") or 0.0) < age)


def test_a_task_that_goes_takes_its_gauges_along_and_its_counts_stay(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        Feed(embedded_log, ITEMS).put({0: [Item("a", 0, 1)]})
        runs.settle()
        before = runs.scrape()
        assert {one["task"] for one in before.labelled("qmtl_input_position")} == {"0", "1"}
        runs.leave()
        after = runs.scrape()
    for name in ("qmtl_input_position", "qmtl_task_phase", "qmtl_table_rows", "qmtl_store_bytes"):
        assert after.labelled(name) == [], name
    assert after.total("qmtl_records_processed_total") == before.total("qmtl_records_processed_total") == 1


def test_names_end_in_their_unit_and_counters_in_total(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        runs.settle()
        found = runs.scrape()
    ours = {name: family for name, family in found.families.items() if name.startswith("qmtl_")}
    assert len(ours) > 20
    for name, family in ours.items():
        assert family.documentation, name
        assert not name.endswith(("_ms", "_millis", "_count")), name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples), name
        assert all(
            set(sample.labels)
            <= {
                "processor",
                "task",
                "topic",
                "partition",
                "table",
                "outcome",
                "code",
                "cause",
                "error",
                "phase",
                "sample",
                "le",
            }
            or name == "qmtl_build_info"
            for sample in family.samples
        ), name


def test_reserved_records_are_no_data(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    with shown(embedded_log, tmp_path, Counter) as runs:
        runs.settle()
        found = runs.scrape()
    assert all(
        is_reserved(one.key) for one in read_all(embedded_log, all_partitions(embedded_log, COUNTS.name))
    )
    assert found.total("qmtl_records_processed_total") == 0
    assert found.total("qmtl_records_written_total") == written(embedded_log, COUNTS.name, "task.cuts") > 0


@pytest.mark.parametrize("days, expired", [(0.5, False), (2, True)])
def test_buckets_of_a_table_that_are_read_after_their_versions_may_have_gone_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, days: float, expired: bool
) -> None:
    """The cut that the next bucket looks back on is read again after a stop, and is as old as the stop was long."""
    now = [minute(1)]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    make_topics(log)
    with bench(log, tmp_path / "state", A, B) as runs:
        Feed(log, X).bucket(minute(1), {0: [Item("x", 1, 1)]})
        runs.settle()
    now[0] += int(days * DAY_MS)
    with shown(log, tmp_path / "state", A) as again:
        again.settle()
        found = again.scrape()
    assert (found.total("qmtl_expired_cuts_total") > 0) == expired
    told = [one.getMessage() for one in caplog.records if "older than the 86400 s" in one.getMessage()]
    assert len(told) == (1 if expired else 0)
    log.close()
