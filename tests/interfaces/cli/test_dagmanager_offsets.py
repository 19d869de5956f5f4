"""A version begins behind the close of the bucket after which it became active, and that place does not move."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import TopicPartition
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import DagSubmission
from qmtl.foundation.wire.keys import is_reserved, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces import dag_boundaries
from qmtl.interfaces.dag_boundaries import Closed, NoOffset, behind, behind_bucket
from tests.interfaces.cli.deployed import Deployed, client_on, feed_bars, settle
from tests.interfaces.cli.running import call
from tests.replay.logs import MINUTE_MS, RAW, RAW_SPEC, START_MS, commit
from tests.services.graphs import crossing, strategy, text

WHERE, EMPTY = TopicPartition(RAW, 0), TopicPartition(RAW, 1)


def markers(steps: Sequence[tuple[int, int]]) -> list[Closed]:
    """Of growing offsets, each of a bucket."""
    out, offset = [], -1
    for apart, bucket in steps:
        offset += apart
        out.append(Closed(offset, bucket, True))
    return out


STEPS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 6)), max_size=8)


@given(steps=STEPS, more=STEPS, bucket=st.integers(0, 6), is_kept=st.booleans())
def test_what_was_told_once_is_told_for_ever(
    steps: list[tuple[int, int]], more: list[tuple[int, int]], bucket: int, is_kept: bool
) -> None:
    since = 0 if is_kept else None
    told = behind(markers(steps), bucket, since)
    later = behind(markers([*steps, *more]), bucket, since)
    is_closed = any(one.bucket_ms >= bucket for one in markers(steps))
    assert (told is NoOffset.OPEN) != is_closed
    assert told in (later, NoOffset.OPEN)
    if isinstance(later, int):
        whole = markers([*steps, *more])
        before = [one for one in whole if one.offset < later]
        assert all(one.bucket_ms <= bucket for one in before)
        rest = [one.bucket_ms for one in whole if one.offset >= later]
        is_its_close = bool(before) and before[-1].bucket_ms == bucket
        assert is_its_close or rest[0] > bucket
        assert is_kept or before


@settings(max_examples=40, deadline=None)
@given(
    told=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 5), st.booleans(), st.integers(1, 2)), max_size=14
    )
)
@example([(1, 5, True, 1), (1, 6, True, 1), (0, 5, False, 1), (1, 7, True, 1)])  # another feed says 5 again
@example([(1, 4, True, 1), (1, 6, True, 1), (0, 0, False, 2), (1, 5, True, 2), (1, 7, True, 2)])  # an heir
def test_looking_from_the_end_finds_what_reading_all_of_it_finds(
    told: list[tuple[int, int, bool, int]],
) -> None:
    ordered = sorted(told, key=lambda one: one[3])  # configurations follow each other
    rows, last = [], {1: -1, 2: -1}
    for records, bucket, counts, epoch in ordered:
        counts = counts and bucket > last[epoch]  # what closes records closes a later bucket
        last[epoch] = max(last[epoch], bucket)
        rows += [(RAW, 0, b"k", b"v")] * records
        value = CloseMarker("feed", 0, 1, bucket, int(counts), "", epoch)
        rows.append((RAW, 0, marker_key("feed", 0, bucket), codec.encode(value)))
    log = SimulatedLog()
    log.ensure_topics([RAW_SPEC])
    commit(log, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dag_boundaries, "FIRST_LOOK_BACK", 1)
        whole = [marker for _, marker in dag_boundaries._markers(log, {WHERE: 0})]
        for bucket in range(8):
            found = behind_bucket(log, [WHERE, EMPTY], bucket)
            assert found == {WHERE: behind(whole, bucket, 0), EMPTY: NoOffset.OPEN}
        begin = log.end_offsets([WHERE])[WHERE] // 2
        log.cluster.retain(WHERE, begin)
        kept = [one for one in whole if one.offset >= begin]
        for bucket in range(8):
            since = None if begin else 0
            assert behind_bucket(log, [WHERE], bucket) == {WHERE: behind(kept, bucket, since)}


def test_a_version_begins_where_the_bars_of_its_first_bucket_do(
    capsys: pytest.CaptureFixture[str], mine: Deployed
) -> None:
    with client_on(mine.directory) as client:
        source = feed_bars(client, 4)
        data = text(strategy(crossing(4, 9), "s1", version="v4"))
        client.deployed(client.submit(DagSubmission("late", "w1", data, START_MS, execution_domain="live")))
        settle(client)
        feed_bars(client, 7)
        wheres = all_partitions(client.log, source.topic)
        bars = [
            (one.topic, one.partition, one.offset, codec.decode(one.value).open_time_ms + MINUTE_MS)
            for one in read_all(client.log, wheres)
            if one.value is not None and not is_reserved(one.key)
        ]
    look = ("service", "dagmanager", "sentinels", "--offsets", "--log", mine.address)
    rows = {one["version"]: one for one in call(capsys, *look, "--json").lines()}
    new = mine.sentinel("v4")
    assert new.active_since_ms == START_MS + 4 * MINUTE_MS
    assert len(bars) == 14
    for name, partition, offset, closed_ms in bars:
        assert (offset >= rows["v4"]["begins"][f"{name}[{partition}]"]) == (closed_ms > new.active_since_ms)
    topics = {one.topic for one in mine.rows("dag.queues") if one.node_id in new.node_ids}
    assert {one.partition("[")[0] for one in rows["v4"]["begins"]} == topics
    ran = call(capsys, *look)
    assert (ran.code, f" {source.topic} " in ran.out, " open" in ran.out) == (0, True, False)
