"""Rebalances that fall into recoveries: each recovery ends, ends right, and no process dies of it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.table import Table
from qmtl.engine.worker import Worker
from tests.contract.driving import until
from tests.neighbours.driving import (
    Disturber,
    Process,
    check,
    check_so_far,
    group_state,
    serve,
    serving,
    tasks_of,
    told_count,
)
from tests.neighbours.scale import LONG_S, times
from tests.neighbours.toys import WIDTH, Crowd, Tally, make_topics

# ---- N2 ---------------------------------------------------------------------------------------------------------------


def stepping(worker: Worker, condition: Callable[[], bool]) -> None:
    """Steps until a condition holds, asked after each step."""

    def done() -> bool:
        worker.step(0.01)
        return condition()

    until(done, 60.0)


@pytest.mark.timeout(LONG_S)
def test_rebalances_in_the_middle_of_recoveries_lose_no_position(kafka_log: KafkaLog, tmp_path: Path) -> None:
    """N2, https://github.com/quixio/quix-streams/issues/1067 and https://github.com/quixio/quix-streams/issues/1068: a rebalance
    in a recovery left positions that are none, and the recovery never ended.

    Each time tasks come back, the worker's disk is lost, so all of them are restored from the log; a guest joins when the first
    of them begins, and the rebalance that it asks for is under way when it is restored.
    """
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(WIDTH * 4)
    state = tmp_path / "state"
    with serving(log, state) as worker:
        serve([worker], lambda: told_count(log) >= len(crowd.given))
    begun = threading.Event()
    coming: list[Disturber] = []

    class Disturbed(Tally):
        def __init__(self) -> None:
            begun.set()

        def restore(self, tables: Mapping[str, Table]) -> None:
            for (
                guest
            ) in coming:  # the recovery goes on only when the group has noticed it, or has taken it in
                until(lambda: bool(guest.mine) or group_state(log) != "STABLE")  # noqa: B023
            coming.clear()

    def forget_the_disk() -> None:
        shutil.rmtree(state, ignore_errors=True)

    forget_the_disk()
    with serving(log, state, Disturbed) as worker:
        for _ in range(times(20, 1)):
            guest = Disturber(log)
            begun.clear()
            gone = threading.Event()

            def come(guest: Disturber = guest, gone: threading.Event = gone) -> None:
                begun.wait(60)
                guest.come()
                while not guest.mine and not gone.is_set():
                    guest.poll()
                    time.sleep(0.002)

            thread = threading.Thread(target=come)
            crowd.give(WIDTH)  # so that what is restored has work at once, with the group still unsettled
            coming.append(guest)
            thread.start()
            try:
                stepping(worker, lambda: bool(guest.mine))  # noqa: B023
            finally:
                gone.set()
                begun.set()
                thread.join()
            coming.clear()  # where the rebalance broke the recovery off before its end
            crowd.give(3)
            for number in tasks_of(worker):
                worker._drop(number)
            forget_the_disk()
            guest.go()
            stepping(worker, lambda: len(tasks_of(worker)) == WIDTH)
            serve([worker], lambda: told_count(log) >= len(crowd.given))
            check_so_far(log, crowd.given)
            for number in tasks_of(worker):
                worker._drop(number)
            forget_the_disk()
        crowd.give(WIDTH)
        serve([worker], lambda: told_count(log) >= len(crowd.given))
    check(log, crowd.given)


# ---- N3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(LONG_S)
def test_four_workers_that_start_cold_one_after_the_other_lose_nothing_and_live(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N3, https://github.com/quixio/quix-streams/pull/1146: a rebalance in a recovery gave partitions that were never sought;
    records were lost, and four replicas that started cold ended again and again."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    crowd.give(40)
    for number in range(times(50, 1)):
        crew = []
        for slot in range(4):
            crew.append(
                Process(log, tmp_path / str(number), str(slot))
            )  # a directory of its own: nothing is known
            time.sleep(0.1)  # the report's own distance between the starts
            crowd.give(3)

        def counted(crew: list[Process] = crew) -> bool:
            return all(one.alive() for one in crew) and told_count(log) >= len(crowd.given)

        def at_work(crew: list[Process] = crew) -> bool:
            return all(one.alive() and one.opened() for one in crew)

        until(at_work, 90.0)
        crowd.give(10)
        until(counted, 90.0)
        for slot, one in enumerate(crew):
            if (number + slot) % 3:
                one.kill()
            else:
                one.stop()
        check_so_far(log, crowd.given)
        shutil.rmtree(tmp_path / str(number))
    check(log, crowd.given)
