"""The process dies of every message of one life; then the log lacks the transaction, or is ahead of the store, or is all that is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from random import Random
from typing import Any, Final

import pytest

from qmtl.engine.failpoint import POINTS
from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import FULL_WEIGHT, AdminAct, CreateTopic, DagSubmission
from qmtl.foundation.contracts.diff import AckChunk, DiffRequest
from qmtl.foundation.contracts.release import AbandonRelease, ReportBacktest, StartRelease
from qmtl.foundation.wire.topics import SHARDS
from qmtl.services.dagmanager import release
from tests.services.dagmanager.desk_on_log import Death
from tests.services.dagmanager.life_graphs import GRAPHS
from tests.services.dagmanager.test_life import OWNERS, SCHEMAS, Mortal
from tests.services.graphs import strategy, text

HANDLING: Final = [point for point in POINTS if "restore" not in point]
SENT: Final = HANDLING.index("commit_sent")
LEAVES: Final = {
    "nothing": [Death(point, loses_store=False) for point in HANDLING[:SENT]],
    "the log ahead of the store": [Death(point, loses_store=False) for point in HANDLING[SENT:]],
    "the log alone": [Death(point, loses_store=True) for point in HANDLING],
}
RARE: Final = {AdminAct.COLLIDED, AdminAct.CROWDED}
"""What the life below has nothing of: nodes whose ids collide, and a thousand of one tag."""


class Doomed(Mortal):
    """Is held to one to whom nothing happens after each message."""

    def send(self, message: Any) -> None:
        super().send(message)
        self.all_is_as_if_nothing_had_happened()

    def tick(self, days: int) -> None:
        super().tick(days)
        self.all_is_as_if_nothing_had_happened()

    def all_reported(self, *, ok: bool = True, code: str = "QMTL-901") -> None:
        queues = {row.topic: row for row in self.desk.rows("dag.queues")}
        tasks = self.desk.rows("dag.tasks")
        self.make(
            [one for one in tasks if not (isinstance(one, CreateTopic) and queues[one.topic].ready)],
            ok=ok,
            code=code,
        )


def live(life: Doomed) -> None:
    """Topics come, fail, take the place of another, go, and come again."""
    first, second, chance = OWNERS[0], OWNERS[1], Random(0)
    life.begin("running")
    life.compute(first, 0)
    life.publish(1, first, 1000, {})
    life.all_reported()
    life.command(chance, 5000, "weigh")
    life.publish(3, first, FULL_WEIGHT, {})
    life.insist(chance, is_back=True)
    life.publish(6, second, FULL_WEIGHT, {})
    life.all_reported()
    life.cross(is_hit=True)
    life.cross(is_hit=False)
    life.restart()
    in_another_world(life)
    life.publish(0, first, FULL_WEIGHT, SCHEMAS[-1])
    for days in (7, 1, 30):
        life.tick(days)
        life.all_reported()
    life.compact([4, 10, 7], 2)
    life.command(chance, 0, "redo")
    life.publish(2, first, FULL_WEIGHT, {})
    life.all_reported(ok=False, code="QMTL-322")
    life.all_reported(ok=False)
    life.compute(second, 1)
    life.retire(second)
    for days in (1, 215):
        life.tick(days)
    life.compute(first, 0)
    life.compute(second, 1)
    life.tick(1)
    life.all_reported(ok=False)
    life.command(chance, 0, "collect")
    life.all_reported()
    life.compact([10, 6], 9)
    life.publish(6, second, FULL_WEIGHT, {})
    life.all_reported()
    life.publish(3, first, FULL_WEIGHT, {})
    life.all_reported()
    for shard in range(SHARDS):
        life.compute(first, shard)
    life.compact([10], 9)


def in_another_world(life: Doomed) -> None:
    """What the model of a life knows nothing of: a diff is read, another one is asked for under its id, a third is not read, and a release
    comes to its first share."""
    now_ms, old, new = life.now_ms, *(text(strategy(GRAPHS[at], version=f"v{at}")) for at in (0, 1))
    life.send(DiffRequest("diff", "s1", old, now_ms, "w3", "live"))
    life.send(DiffRequest("diff", "s1", new, now_ms, "w3", "live"))
    life.send(AckChunk("diff", 0))
    life.send(DiffRequest("unread", "s1", new, now_ms, "w3", "live"))
    life.send(DagSubmission("old", "w3", old, now_ms, execution_domain="live"))
    life.all_reported()
    life.send(StartRelease("release", "w3", new, now_ms))
    for run in range(release.BACKTESTS):
        told = ReportBacktest(f"run{run}", "release", f"{run}", blake3_hex(new), True, now_ms)
        life.send(replace(told, dataset_fingerprint="d", from_ms=run, to_ms=10, result_digest="0" * 64))
    life.all_reported()
    life.tick(1)
    life.send(AbandonRelease("enough", "release", "enough", life.now_ms))


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Doomed]:
    monkeypatch.setattr(release, "BACKTESTS", 2)
    made = Doomed()
    yield made
    made.teardown()


@pytest.mark.parametrize("left", LEAVES)
def test_whoever_dies_of_each_message_has_all_that_one_has_to_whom_nothing_happens(
    life: Doomed, left: str
) -> None:
    life.desk.meet([[death] for death in islice(cycle(LEAVES[left]), 1000)])
    live(life)
    assert {entry.act for entry in life.desk.told("dag.admin.log")} == set(AdminAct) - RARE
    assert len(life.desk.died) > len(life.sent)
    assert set(life.desk.died) == set(LEAVES[left])
    assert {
        "compaction took records",
        "compaction took tombstones",
    } <= life.desk.cluster.coverage.counts.keys()
