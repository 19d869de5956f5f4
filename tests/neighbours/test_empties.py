"""Partitions without a record, and partitions that have lost all of them."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest

from qmtl.engine.lag import Asked
from qmtl.engine.lag import lags as measured
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log
from qmtl.engine.recovery import restore
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import StampMismatch
from tests.contract.driving import settled
from tests.neighbours.driving import check, delete_before, raw, serve, serving, tasks_of, told_count
from tests.neighbours.toys import CODEC, FIRST, SUMS, WIDTH, Crowd, make_topics, name_at


def test_partitions_without_a_record_are_recovered_beside_those_that_have_some(
    log: Log, tmp_path: Path
) -> None:
    """N12, https://github.com/faust-streaming/faust/issues/597: a changelog partition without a record kept recovery waiting."""
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(6, [name_at(3)])
    with serving(log, tmp_path / "first") as worker:
        serve([worker], lambda: told_count(log) >= 6)
    with serving(log, tmp_path / "second") as worker:
        serve([worker], lambda: len(tasks_of(worker)) == WIDTH)
        crowd.give(6, [name_at(3), name_at(4)])  # what was empty gets its first record
        serve([worker], lambda: told_count(log) >= 12)
    check(log, crowd.given)


def emptied(log: KafkaLog) -> int:
    """Takes every record of the first table partition away; returns where it ends."""
    settled(log, [FIRST])
    delete_before(log, FIRST, -1)
    end = log.end_offsets([FIRST])[FIRST]
    assert raw(log, FIRST, "read_uncommitted") == []
    assert log.begin_offsets([FIRST])[FIRST] == end > 0
    return end


def test_a_table_that_retention_has_emptied_is_refused_without_its_store_and_never_waited_for(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N12 where the partition was not always empty: its end says that there was something, and nothing is there.

    The group's positions say that items were counted which no row shows: to go on would be to begin at nothing.
    """
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(5, [name_at(0)])
    with serving(log, tmp_path / "state") as worker:
        serve([worker], lambda: told_count(log) >= 5)
    emptied(log)
    shutil.rmtree(tmp_path / "state")
    crowd.give(1, [name_at(0)])
    for _ in range(2):  # it stays refused
        with serving(log, tmp_path / "state") as worker, pytest.raises(StampMismatch) as refused:
            serve([worker], lambda: False)
        assert "near.input" in refused.value.what
        assert told_count(log) == 5


def test_an_empty_table_that_ends_beyond_zero_has_nothing_left_to_restore(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N14, https://issues.apache.org/jira/browse/KAFKA-14302: an empty changelog whose end is not 0 was told as a lag for ever."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(3, [name_at(0)])
    with serving(log, tmp_path / "state") as worker:
        serve([worker], lambda: told_count(log) >= 3)
    end = emptied(log)
    for place in ("state/tally-0", "another"):  # with the store that has it all, and with none
        store = Store(tmp_path / place, log.log_id)
        assert store.checkpoint.tables.get(FIRST, end) <= end
        lags: list[int] = []
        found = restore(
            log,
            store,
            {SUMS.name: Table(SUMS, 0, store, CODEC)},
            CODEC,
            stall_s=5.0,
            progress=partial(tell, lags),
        )
        store.close()
        assert found.records == 0
        assert set(lags) <= {0}, "what is restored has no lag"
    for position in (
        None,
        0,
        1,
        end,
    ):  # a reader that never said where it is, that never came so far, and one that is done
        (told,) = measured(log, [Asked(FIRST, position)])
        assert (told.begin, told.high_watermark) == (end, end)
        assert (told.lag, told.lag_stable, told.records) == (0, 0, 0)


def tell(lags: list[int], done: int, of: int) -> None:
    lags.append(of - done)
