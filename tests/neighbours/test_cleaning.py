"""What the broker's own cleaner leaves of a table restores to what the whole log restored to."""

from __future__ import annotations

import shutil
from pathlib import Path

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log
from qmtl.engine.recovery import restore
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.wire.keys import encode_key, is_reserved
from tests.contract.driving import until
from tests.engine.toys import Item
from tests.neighbours.driving import (
    QUICKLY_CLEANED,
    alter,
    check,
    delete_before,
    raw,
    serve,
    serving,
    told_count,
)
from tests.neighbours.toys import CODEC, FIRST, SUMS, Crowd, make_topics, name_at, totals

NAMES = [name_at(0, number) for number in range(12)]
ROLL = name_at(0, 12)
"""The name whose items only make the broker roll the segment that it writes to."""

Rows = dict[bytes, bytes]


def restored(log: Log, place: Path) -> tuple[Rows, int]:
    """The rows of the first partition as an empty store takes them from the log, and how many records that took."""
    store = Store(place, log.log_id)
    try:
        found = restore(log, store, {SUMS.name: Table(SUMS, 0, store, CODEC)}, CODEC, stall_s=10.0)
        return dict(store.scan(SUMS.name)), found.records
    finally:
        store.close()


def lived(log: Log, state: Path) -> Rows:
    """The rows of the store that the worker itself has written."""
    store = Store(state / "tally-0", log.log_id)
    try:
        return dict(store.scan(SUMS.name))
    finally:
        store.close()


def without_roll(rows: Rows) -> Rows:
    return {key: value for key, value in rows.items() if key != encode_key((ROLL,))}


def test_what_the_cleaner_leaves_restores_to_the_same_rows_as_the_whole_log(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """Compaction equality on the broker's cleaner: restore(compact(log)) = restore(log), for updates and for tombstones.

    Also N8, https://github.com/faust-streaming/faust/issues/176 and https://github.com/faust-streaming/faust/issues/373: after
    the cleaner ran, the first record is no longer at offset 0, and recovery was off by one there, or never ended.
    """
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    state = tmp_path / "state"
    with serving(log, state, poll=7) as worker:
        for _ in range(8):
            crowd.give(40, NAMES)
            serve([worker], lambda: told_count(log) >= len(crowd.given))
        # The rows of half of the names are taken away for good.
        crowd.put([Item(name, len(crowd.given) + at, 0) for at, name in enumerate(NAMES[::2])])
        serve([worker], lambda: told_count(log) >= len(crowd.given))
        whole, records = restored(log, tmp_path / "whole")
        first = raw(log, FIRST)[0].offset
        alter(log, SUMS.name, QUICKLY_CLEANED)  # not before: of the whole log nothing may be gone
        rolls = iter(range(10_000))

        def cleaned() -> bool:
            if next(rolls) % 20 == 0:
                crowd.put([Item(ROLL, len(crowd.given), 1)])
                serve([worker], lambda: told_count(log) >= len(crowd.given))
            found = raw(log, FIRST, "read_uncommitted")
            graves = [one for one in found if one.value is None and not is_reserved(one.key)]
            return len(found) < records // 4 and not graves

        until(cleaned, 120.0)
    compacted, fewer = restored(log, tmp_path / "compacted")
    assert fewer < records // 4
    assert without_roll(compacted) == without_roll(whole) != {}
    assert compacted == lived(log, state), "and to the rows that were never restored at all"
    assert set(compacted) == {encode_key((name,)) for name in totals(crowd.given)}
    assert raw(log, FIRST)[0].offset > first == 0
    # And a worker goes on from there, without its disk.
    shutil.rmtree(state)
    with serving(log, state) as worker:
        crowd.give(len(NAMES), NAMES)
        serve([worker], lambda: told_count(log) >= len(crowd.given))
    check(log, crowd.given)


def test_a_table_whose_earliest_offset_is_not_zero_is_restored_from_exactly_there(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N8 where not only the first record but the log's own start has moved, to the very record that is needed, and to one before it."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    with serving(log, tmp_path / "state") as worker:
        for _ in range(3):
            crowd.put([Item(name, len(crowd.given) + at, 1) for at, name in enumerate(NAMES)])
            serve([worker], lambda: told_count(log) >= len(crowd.given))
    rows, _ = restored(log, tmp_path / "whole")
    needed = [one.offset for one in raw(log, FIRST)][-len(NAMES) - 1]  # a row of each name, then their stamp
    for start in (needed - 1, needed):
        delete_before(log, FIRST, start)
        assert log.begin_offsets([FIRST]) == {FIRST: start}
        found, records = restored(log, tmp_path / str(start))
        assert (found, records) == (rows, len(NAMES) + 1)
    shutil.rmtree(tmp_path / "state")
    with serving(log, tmp_path / "state") as worker:
        crowd.put([Item(name, len(crowd.given) + at, 2) for at, name in enumerate(NAMES)])
        serve([worker], lambda: told_count(log) >= len(crowd.given))
    check(log, crowd.given)
