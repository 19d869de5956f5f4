"""Members that come and go while items are counted: no highwater is misread, no item is skipped or counted twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from tests.contract.driving import until
from tests.neighbours.driving import (
    Disturber,
    Process,
    check,
    check_so_far,
    serve,
    serving,
    tasks_of,
    told_count,
)
from tests.neighbours.scale import LONG_S, times
from tests.neighbours.toys import WIDTH, Crowd, make_topics

# ---- N6 ---------------------------------------------------------------------------------------------------------------


def test_a_second_worker_joins_over_ten_partitions_and_both_count_on(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N6, https://github.com/faust-streaming/faust/issues/658: with transactions, a rebalance made a highwater unreadable, which
    was taken for "the topic was deleted"."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(40)
    first = Process(log, tmp_path, "0", poll=5)
    until(lambda: first.alive() and first.opened() == WIDTH)
    second = Process(log, tmp_path, "1", poll=5)

    def joined() -> bool:
        crowd.give(5)
        return first.alive() and second.alive() and second.opened() >= WIDTH // 2

    until(joined, 60.0)
    crowd.give(40)
    until(lambda: first.alive() and second.alive() and told_count(log) >= len(crowd.given), 60.0)
    assert WIDTH // 2 <= second.opened() < WIDTH
    first.stop()
    second.stop()
    check(log, crowd.given)


# ---- N10 --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(LONG_S)
def test_no_rebalance_skips_an_item_or_takes_one_again(kafka_log: KafkaLog, tmp_path: Path) -> None:
    """N10, https://github.com/faust-streaming/faust/issues/216 and https://github.com/faust-streaming/faust/issues/217: the flow
    went on before the positions were sought after a rebalance."""
    log = kafka_log
    log.settings = replace(log.settings, session_timeout_ms=6000)
    make_topics(log)
    crowd = Crowd(log)
    with (
        serving(log, tmp_path / "0", slot="0", poll=3) as zero,
        serving(log, tmp_path / "1", slot="1") as one,
    ):
        workers = [zero, one]

        def feeding(more: int) -> None:
            crowd.give(more)
            for worker in workers:
                worker.step()

        serve(workers, lambda: all(0 < len(tasks_of(worker)) < WIDTH for worker in workers))
        for _ in range(times(20, 1)):
            guest = Disturber(log)
            guest.come()

            def taken() -> bool:
                guest.poll()  # noqa: B023
                feeding(2)
                return bool(guest.mine)  # noqa: B023

            until(taken, 60.0)
            feeding(5)
            check_so_far(log, crowd.given)
            guest.go()

            def back() -> bool:
                feeding(1)
                return sum(len(tasks_of(worker)) for worker in workers) == WIDTH

            until(back, 60.0)
            serve(workers, lambda: told_count(log) >= len(crowd.given))
            check_so_far(log, crowd.given)
        check(log, crowd.given)
