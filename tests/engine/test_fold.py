"""Folding the records of a table: the fast way gives the rows that the simple way gives, however the records are cut."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine import recovery
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.recovery import restore
from qmtl.engine.store import Store
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import StateMismatch
from qmtl.foundation.contracts.control import CloseMarker, PositionStamp
from qmtl.foundation.wire.keys import encode_key, marker_key, stamp_key
from tests.contract.driving import Row, put
from tests.engine.toys import CODEC, COUNTS, LATE_STATE, Total, make_topics, marker

TABLES = (COUNTS, LATE_STATE)
"""One that nothing looks back on, and one that is read a bucket late."""

Act = tuple[str, str, int]
TRANSACTIONS: st.SearchStrategy[list[list[Act]]] = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "delete", "close"]),
            st.sampled_from(["a", "b", "c", ""]),
            st.integers(0, 18),
        ),
        max_size=5,
    ),
    max_size=12,
)


def rows_of(acts: Sequence[Act], bucket_ms: int, table: str) -> list[Row]:
    """The records of one transaction, and how many buckets it closes."""
    where = TopicPartition(table, 0)
    out: list[Row] = []
    for act, name, amount in acts:
        key = encode_key((name,))
        match act:
            case "put":
                out.append((where, key, CODEC.encode(Total(name, 10**amount))))
            case "delete":
                out.append((where, key, None))
            case _:
                bucket_ms += 1
                value: CloseMarker = marker(bucket_ms, 0, "", "folder")
                out.append((where, marker_key("folder", 0, bucket_ms), CODEC.encode(value)))
    return out


def rebuilt(
    log: EmbeddedLog, place: Path, batch: int, many: int, *, simply: bool
) -> tuple[list[tuple[bytes, bytes]], Checkpoint]:
    store = Store(place, log.log_id)
    tables = {spec.name: Table(spec, 0, store, CODEC, int(spec is LATE_STATE)) for spec in TABLES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "BATCH", batch)
        patch.setattr(recovery, "MANY", many)
        restore(log, store, tables, CODEC, simply=simply)
    try:
        return [row for spec in TABLES for row in store.scan(spec.name)], store.checkpoint
    finally:
        store.close()


@settings(deadline=None, max_examples=25)
@given(TRANSACTIONS, st.integers(1, 7), st.sampled_from([1, 10**6]))
def test_the_fast_way_gives_the_rows_of_the_simple_way(
    transactions: Sequence[Sequence[Act]], batch: int, many: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log", clock_ms=lambda: 10**12)
        make_topics(log)
        bucket_ms = 0
        for acts in transactions:
            stamp = CODEC.encode(PositionStamp("folder", 0, (), (bucket_ms,)))
            found: list[Row] = []
            for spec in TABLES:
                found += rows_of(acts, bucket_ms, spec.name)
                found.append((TopicPartition(spec.name, 0), stamp_key("folder", 0), stamp))
            bucket_ms += sum(act == "close" for act, _, _ in acts)
            put(log, found)
        fast = rebuilt(log, Path(place) / "fast", batch, many, simply=False)
        simple = rebuilt(log, Path(place) / "simple", 1, 10**6, simply=True)
        assert fast == simple
        log.close()


def test_a_table_whose_markers_were_written_by_another_number_of_tasks_is_refused(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    put(embedded_log, rows_of([("close", "", 0)], 0, LATE_STATE.name))
    store = Store(tmp_path / "store", embedded_log.log_id)
    tables = {LATE_STATE.name: Table(LATE_STATE, 0, store, CODEC)}
    with pytest.raises(StateMismatch, match="written by 1 tasks, and there are 3"):
        restore(embedded_log, store, tables, CODEC, tasks=3)
    restore(embedded_log, store, tables, CODEC, tasks=1)
    store.close()
