"""Workers that end, in order or by force, and begin again: what was counted stays counted, and nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log
from tests.contract.driving import settled, until
from tests.neighbours.driving import (
    Process,
    check,
    check_so_far,
    raw_by_partition,
    serve,
    serving,
    told_count,
)
from tests.neighbours.scale import LONG_S, times
from tests.neighbours.toys import GROUP, INPUTS, OUTPUTS, TABLES, WIDTH, Crowd, make_topics, name_at

# ---- N11 --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(LONG_S)
def test_a_clean_restart_counts_nothing_again_and_writes_nothing(log: Log, tmp_path: Path) -> None:
    """N11, https://github.com/faust-streaming/faust/issues/48: the last record was processed once more at each restart."""
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(25)
    with serving(log, tmp_path) as worker:
        serve([worker], lambda: told_count(log) >= 25)
    everything = (*OUTPUTS, *TABLES, *INPUTS)
    before = settled(log, everything)
    ends = {where: before[where] for where in INPUTS}
    for _ in range(times(100, 2)):
        with serving(log, tmp_path) as worker:

            def caught_up() -> bool:
                readers = [task._reader.positions() for task in worker._tasks.values()]
                return len(readers) == WIDTH and all(
                    one[where] >= ends[where] for one in readers for where in one
                )

            serve([worker], caught_up)
            assert not any(worker.step() for _ in range(3))
    assert settled(log, everything) == before
    crowd.give(WIDTH)
    with serving(log, tmp_path) as worker:
        serve([worker], lambda: told_count(log) >= len(crowd.given))
    check(log, crowd.given)


# ---- N15 --------------------------------------------------------------------------------------------------------------


def positions_are_those_of_what_was_told(log: Log) -> None:
    """The committed position of a partition lies behind the last record that was told of, and before the next one."""
    inputs, outputs = raw_by_partition(log, INPUTS), raw_by_partition(log, OUTPUTS)
    committed = log.committed(GROUP, INPUTS)
    for where in INPUTS:
        count = len(outputs[OUTPUTS[where.partition]])
        offsets = [one.offset for one in inputs[where]]
        at = committed.get(where, 0)
        assert sum(offset < at for offset in offsets) == count, (where, at, count)


@pytest.mark.timeout(LONG_S)
def test_a_death_between_the_positions_and_the_commit_leaves_the_positions_of_the_last_commit(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N15, https://github.com/confluentinc/confluent-kafka-go/issues/1093: after a hard kill there the positions were reported
    lost."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    names = [name_at(partition) for partition in range(3)]
    crowd.give(6, names)
    deaths = times(50, 3)
    for number in range(deaths):
        crowd.give(6, names)
        one = Process(
            log, tmp_path, "0", poll=2 if number % 2 else 4000, failpoint=f"inside_commit:{number % 3 + 1}"
        )
        assert one.killed(), one.said()
        log.writer("qmtl.tally.0").close()  # ends what was left open, as the next life would do
        check_so_far(log, crowd.given)
        positions_are_those_of_what_was_told(log)
    last = Process(log, tmp_path, "0")
    until(lambda: last.alive() and told_count(log) >= len(crowd.given), 60.0)
    last.stop()
    check(log, crowd.given)
    positions_are_those_of_what_was_told(log)
