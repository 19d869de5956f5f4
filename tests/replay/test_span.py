"""Stretches of the log: exactly the records between two offsets, and the newest marker in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition, partitions_of
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker
from qmtl.replay.span import MarkerPlace, last_marker, read_spans
from tests.replay.logs import RAW, RAW_SPEC, START_MS, bar, commit, log_in, marker, row

PARTITIONS = partitions_of(RAW, RAW_SPEC.partitions)
offsets = st.integers(0, 25)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedLog]:
    directory = tmp_path_factory.mktemp("span") / "log"
    with log_in(directory, specs=[RAW_SPEC]) as made:
        for minute in range(8):
            commit(made, [row(RAW, bar("BTC", minute), minute % 3)])
            commit(made, [marker(RAW, START_MS + minute, at) for at in range(3)])
        yield made


@QUICK
@given(spans=st.dictionaries(st.sampled_from(PARTITIONS), st.tuples(offsets, offsets)))
def test_a_span_is_read_exactly_partition_by_partition(
    log: EmbeddedLog, spans: dict[TopicPartition, tuple[int, int]]
) -> None:
    ends = log.stable_offsets(PARTITIONS)
    inside = {where: (start, min(end, ends[where])) for where, (start, end) in spans.items()}
    expected = [
        one
        for where, (start, end) in sorted(inside.items())
        for one in log.read(where, 0)
        if start <= one.offset < end
    ]
    assert list(read_spans(log, inside)) == expected


@QUICK
@given(where=st.sampled_from(PARTITIONS), start=offsets, end=offsets, before=st.none() | st.integers(-1, 9))
def test_the_last_marker_is_the_newest_one_by_brute_force(
    log: EmbeddedLog, where: TopicPartition, start: int, end: int, before: int | None
) -> None:
    end = min(end, log.stable_offsets([where])[where])
    before_ms = None if before is None else START_MS + before
    found = [
        MarkerPlace(decode_marker_bucket(one.key), one.offset)
        for one in log.read(where, start)
        if one.offset < end and is_marker(one.key)
    ]
    matching = [one for one in found if before_ms is None or one.bucket_ms < before_ms]
    assert last_marker(log, where, (start, end), before_ms) == (matching[-1] if matching else None)
