"""A busy worker lets go of a task in time: a backlog is no reason to keep what the group has given to another."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, HEARTBEAT_MS, GroupProtocol, KafkaSettings
from qmtl.engine.processor import Arrival, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from tests.contract.driving import until
from tests.engine.driving import messages
from tests.engine.models import counted
from tests.engine.toys import CODEC, ECHO, ITEMS, Counter, Feed, Item, make_topics

RECORD_S = 0.004
BATCH = 60
BACKLOG = 6000
HEARTBEAT_S = {"classic": HEARTBEAT_MS / 1000, "consumer": 5.0}
"""How soon a member learns that the group wants something of it; with `consumer` by the broker's default."""
BROKER_S = 10.0
"""What the broker itself may need to share tasks anew, and the other worker to begin, on a slow machine: a quarter of the backlog's time."""


class Slow(Counter):
    """Takes its time over each record."""

    name = "counter"

    def on_record(self, step: Step, arrival: Arrival) -> None:
        select.select([], [], [], RECORD_S)
        super().on_record(step, arrival)


@pytest.mark.parametrize("protocol", GROUP_PROTOCOLS)
def test_a_busy_worker_gives_a_task_away_within_two_heartbeats_and_two_steps(
    kafka_log: KafkaLog, tmp_path: Path, protocol: GroupProtocol
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol=protocol))
    make_topics(log)
    given = {
        number: [Item(f"n{number}", seq, 1) for seq in range(BACKLOG)] for number in range(ITEMS.partitions)
    }
    busy = Worker(log, Slow, CODEC, TaskSettings(tmp_path / "busy", BATCH), "busy")
    until(lambda: not busy.step(0.02) and len(busy.tasks) == ITEMS.partitions)
    Feed(log, ITEMS).put(given)
    until(busy.step)
    joined = time.monotonic()
    steps: list[float] = []
    spare = Worker(log, Slow, CODEC, TaskSettings(tmp_path / "spare", BATCH), "spare")

    def handed_over() -> bool:
        began = time.monotonic()
        busy.step()
        steps.append(time.monotonic() - began)
        spare.step(0.02)
        return bool(spare.tasks)

    until(handed_over, 60.0)
    taken_s = time.monotonic() - joined
    assert taken_s < 2 * (HEARTBEAT_S[protocol] + max(steps)) + BROKER_S

    def shared() -> bool:
        busy.step()
        spare.step()
        return len(busy.tasks) == len(spare.tasks) == 1

    until(shared)
    spare.close()
    busy.close()
    seen = messages(log, ECHO.name)
    for items in given.values():
        mine = [one for one in seen if one.name == items[0].name]
        assert len(mine) < BACKLOG  # it was still busy when it gave one away
        assert mine == counted(items)[: len(mine)]
    log.close()
