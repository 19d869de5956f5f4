"""A compacted log says the same: restore(compact(log)) = restore(log) for every cleaner position, tombstones or none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import TopicPartition
from qmtl.engine.recovery import restore
from qmtl.engine.simulate.explore import MEMORY
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.store import Cause, Store
from qmtl.engine.table import Table, unframe
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.keys import encode_key, stamp_key
from qmtl.foundation.wire.topics import DAY_MS
from tests.engine.toys import CODEC, COUNTS, Total

WHERE: Final = TopicPartition(COUNTS.name, 0)
Write = tuple[list[tuple[str, int]], bool]
"""Names and amounts of one transaction, 0 deletes; and whether it commits."""

WRITES: st.SearchStrategy[list[Write]] = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=4), st.booleans()
    ),
    min_size=1,
    max_size=8,
)
PLACE = str(MEMORY) if MEMORY.is_dir() else None


def write(log: SimulatedLog, writes: list[Write], first: int = 0) -> None:
    writer = log.writer("counter")
    for number, (rows, commits) in enumerate(writes, first):
        writer.begin()
        for name, amount in rows:
            value = CODEC.encode(Total(name, amount, number)) if amount else None
            writer.append(*WHERE, encode_key((name,)), value)
        writer.append(*WHERE, stamp_key("counter", 0), CODEC.encode(PositionStamp("counter", 0)))
        if commits:
            writer.commit({}, "", None)
        else:
            writer.abort()
    writer.close()


def newest(writes: list[Write]) -> dict[bytes, bytes]:
    """The last value per key that was committed: what any restore has to give."""
    out: dict[bytes, bytes] = {}
    for number, (rows, commits) in enumerate(writes):
        for name, amount in rows if commits else ():
            out.pop(encode_key((name,)), None)
            if amount:
                out[encode_key((name,))] = CODEC.encode(Total(name, amount, number))
    return out


def restored(log: SimulatedLog, store: Store) -> dict[bytes, bytes]:
    restore(log, store, {COUNTS.name: Table(COUNTS, 0, store, CODEC)}, CODEC)
    rows = ((key, unframe(row)[-1].data) for key, row in store.scan(COUNTS.name))
    return {key: data for key, data in rows if data is not None}


@given(WRITES)
@settings(max_examples=12, deadline=None)
def test_a_compacted_log_restores_the_same_rows_for_every_cleaner_position(writes: list[Write]) -> None:
    whole = SimulatedLog()
    whole.ensure_topics([COUNTS])
    write(whole, writes)
    end = whole.end_offsets([WHERE])[WHERE]
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        store = Store(Path(place), whole.log_id)
        assert restored(whole, store) == newest(writes)
        for position in range(end + 1):
            log = SimulatedLog()
            log.ensure_topics([COUNTS])
            write(log, writes)
            for days in (2, 2, 8, 2):  # before the tombstones may go, and after
                log.cluster.pass_ms(days * DAY_MS)
                log.cluster.compact(WHERE, position)
                store.wipe(Cause.ACCEPTED, "each position begins anew")
                assert restored(log, store) == newest(writes)
            assert log.end_offsets([WHERE]) == {WHERE: end}
        store.close()


@given(WRITES, WRITES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_store_from_before_a_compaction_is_topped_up_to_the_same_rows(
    first: list[Write], second: list[Write], data: st.DataObject
) -> None:
    log = SimulatedLog()
    log.ensure_topics([COUNTS])
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        store = Store(Path(place), log.log_id)
        write(log, first)
        assert restored(log, store) == newest(first)
        write(log, second, len(first))
        for _ in range(data.draw(st.integers(1, 3))):
            log.cluster.pass_ms(data.draw(st.sampled_from((2, 6, 8))) * DAY_MS)
            log.cluster.compact(WHERE, data.draw(st.integers(0, log.end_offsets([WHERE])[WHERE])))
        assert restored(log, store) == newest([*first, *second])
        store.close()


@given(WRITES, st.data())
@settings(max_examples=60, deadline=None)
def test_compaction_keeps_order_and_offsets_and_takes_only_what_is_superseded(
    writes: list[Write], data: st.DataObject
) -> None:
    log = SimulatedLog()
    log.ensure_topics([COUNTS])
    write(log, writes)
    partition = log.cluster.partition(WHERE)
    before, _ = partition.read(0, 10**6)
    log.cluster.pass_ms(2 * DAY_MS)
    position = data.draw(st.integers(0, partition.end))
    log.cluster.compact(WHERE, position)
    after, reached = partition.read(0, 10**6)
    assert reached == partition.end
    assert [one for one in before if one in after] == after
    assert [one for one in after if one.offset >= position] == [
        one for one in before if one.offset >= position
    ]
    gone = [one for one in before if one not in after]
    for record in gone:
        assert any(one.key == record.key and record.offset < one.offset < position for one in before)
