"""Nodes whose topic changes while they run: they begin anew with all that is computed from them, and no bucket is lost or there twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import QueueRole, StrategyVersion
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS
from qmtl.interfaces.dag_queues import queue_stats
from qmtl.replay.rerun import rerun
from qmtl.services.dagmanager import buffering, kinds
from qmtl.services.nodes.processor import Nodes
from tests.services.graphs import T0, cross, price, sma, strategy, target
from tests.services.nodes.floor import STEP_MS, Floor
from tests.services.nodes.test_versions import PLACED, feed, minute

OTHER = "blake3:" + "1" * 64
CHANGED_AT, END = 5, 16


def two_sources() -> dict[str, Any]:
    """A mean of a mean, crossed on a higher shard with what another source gives."""
    low, high = PLACED["higher"]
    nodes = [
        price("low", low),
        price("high", high),
        sma("mean", 3, "low"),
        sma("again", 2, "mean"),
        sma("other", 1, "high"),
        cross(fast="again", slow="other"),
        target(),
    ]
    return strategy(nodes)


def upgrade(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of QMTL takes over that writes means otherwise, and another strategy has the one mean of them, which is noted then."""
    monkeypatch.setitem(kinds.SCHEMA, "sma", OTHER)
    floor.restart_desk()
    nodes = [price("low", PLACED["higher"][0]), sma("mean", 3, "low"), target(source="mean")]
    floor.deploy(strategy(nodes, "s2"))


def closed(floor: Floor, topic: str) -> list[int]:
    """The minutes that a topic has markers of, in the order of the log."""
    found = read_all(floor.log, all_partitions(floor.log, topic))
    return [minute(decode_marker_bucket(one.key)) for one in found if is_marker(one.key)]


def values(floor: Floor, topic: str, symbol: str) -> list[int]:
    return [minute(one.bucket_ms) for one in floor.events(topic) if one.symbol == symbol]


def lived(
    floor: Floor, chunk: int, restarts: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> StrategyVersion:
    """The mean gets another schema at a minute, and another topic a few later."""
    deployed = floor.deploy(two_sources())
    for at in range(1, END, chunk):
        if at <= CHANGED_AT < at + chunk:
            upgrade(floor, monkeypatch)
        feed(floor, deployed, min(at + chunk - 1, END - 1))
        if at in restarts:
            floor.work(2)
            floor.stop(lose_store=True)
            floor.start()
        floor.work()
    found: StrategyVersion = floor.view("dag.strategies").get("w1", "s1")
    return found


@pytest.mark.parametrize(("chunk", "restarts"), [(1, (6, 7, 8, 9)), (2, ())])
def test_a_node_with_another_topic_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, restarts: Sequence[int]
) -> None:
    monkeypatch.setattr(buffering, "AFTER_MS", 3 * STEP_MS)
    floor = Floor(tmp_path / "live")
    found = lived(floor, chunk, restarts, monkeypatch)
    topics = {one.name: one.topic for one in found.nodes}
    mean = {row.role: row.topic for row in floor.view("dag.queues").rows() if "_v2" in row.topic}
    old = topics["mean"].removesuffix("_v2")
    assert mean == {QueueRole.CURRENT: topics["mean"]} != {QueueRole.CURRENT: old}
    assert len(set(shards_of(found.nodes, SHARDS).values())) > 1

    symbol = PLACED["higher"][0][0]
    before, after = closed(floor, old), closed(floor, topics["mean"])
    assert [one for one in before + after if one > 0] == list(range(1, END))  # each once, and in order
    last = before[-1]
    assert CHANGED_AT + 2 <= last < END - 6
    assert values(floor, old, symbol) == list(range(3, last + 1))
    assert values(floor, topics["mean"], symbol) == list(range(last + 3, END))
    assert values(floor, topics["again"], symbol) == [*range(4, last + 1), *range(last + 4, END)]
    assert closed(floor, topics["again"])[-1] == END - 1
    assert all(
        late - early == 1
        for early, late in pairwise(one for one in closed(floor, topics["again"]) if one > 0)
    )
    (crossed,) = [one.node_id for one in found.nodes if one.name == "cross"]
    window = floor.view("node.windows").get(crossed, symbol)
    assert window.seen == END - (last + 4)  # on its shard, too, nothing is left of before
    assert floor.events("dead.letters") == floor.events("late.records") == []

    floor.stop()
    for shard in range(SHARDS):
        again = rerun(floor.log, codec, Nodes, shard, tmp_path / f"again-{shard}")
        assert again.differences == []
    floor.close()


def test_the_records_of_an_older_schema_are_those_before_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = Floor(tmp_path)
    deployed = floor.deploy(two_sources())
    feed(floor, deployed, 5)
    floor.work()
    upgrade(floor, monkeypatch)
    feed(floor, deployed, 8)
    floor.work()
    (mean,) = [one for one in deployed.nodes if one.name == "mean"]
    since_ms = floor.view("dag.nodes").get(mean.node_id).buffering_since_ms
    assert since_ms == T0 + 5 * STEP_MS
    buckets = [one.bucket_ms for one in floor.events(mean.topic)]
    found = {one.queue.topic: one for one in queue_stats(floor.log, (), None, None)[0]}
    floor.close()
    mine = found.pop(mean.topic)
    assert mine.buffering_since_ms == since_ms
    assert mine.older == sum(one <= since_ms for one in buckets)
    assert mine.older
    assert mine.older < len(buckets) == mine.records
    assert {(one.buffering_since_ms, one.older) for one in found.values()} == {(None, None)}
