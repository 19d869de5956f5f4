"""What a node keeps belongs to its context: in another one nothing of it is used, each such node is counted, and all begin anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain, compute_key
from qmtl.foundation.contracts.context import LogContext, SetComputeContext
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS
from qmtl.replay.rerun import rerun
from qmtl.services.nodes.processor import Nodes
from tests.services.nodes.floor import Floor
from tests.services.nodes.test_anew import two_sources, values
from tests.services.nodes.test_versions import PLACED, feed

SYMBOL = PLACED["higher"][0][0]


def say(floor: Floor, as_of: str) -> None:
    floor.command(SetComputeContext(f"to-{as_of.strip()}{len(as_of)}", "w1", "dryrun", 0, as_of))


def key_of(node_id: str, as_of: str) -> str:
    """In the context that was said for a state of the data; without one, in that of the first submission."""
    first = ComputeContext("w1", ExecutionDomain.LIVE)
    return compute_key(node_id, ComputeContext("w1", ExecutionDomain.DRYRUN, as_of) if as_of else first)


def counted(floor: Floor) -> int:
    row: LogContext | None = floor.view("dag.context").get("compute")
    return 0 if row is None else sum(row.hits)


@pytest.mark.parametrize("first", ["A", ""])
@pytest.mark.parametrize("restart", [False, True])
def test_in_another_context_every_node_begins_anew_and_those_that_had_kept_something_are_counted(
    tmp_path: Path, first: str, restart: bool
) -> None:
    floor = Floor(tmp_path / "live")
    if first:
        say(floor, first)
    deployed = floor.deploy(two_sources())
    feed(floor, deployed, 6)
    floor.work()
    assert counted(floor) == 0
    kept = {row.node_id for row in floor.view("node.windows").rows()}
    assert len(kept) == 5
    assert [row.compute_key for row in floor.view("node.state").rows()] == [
        key_of(row.node_id, first) for row in floor.view("node.state").rows()
    ]
    if restart:
        floor.stop(lose_store=True)
    say(floor, "B")
    if restart:
        floor.start()
    floor.work()
    assert floor.view("node.windows").rows() == []
    assert counted(floor) == sum(row.hits for row in floor.view("node.context").rows()) == len(kept)
    assert {one for row in floor.view("node.context").rows() for one in row.last_hits} == kept
    for row in floor.view("node.state").rows():
        assert row.compute_key == key_of(row.node_id, "B")
        assert (row.status is NodeStatus.INITIALIZED) is (row.node_id in kept)
    feed(floor, deployed, 9)
    floor.work()
    if restart:
        floor.stop(lose_store=True)
        floor.start()
    feed(floor, deployed, 12)
    floor.work()
    (mean,) = [one for one in deployed.nodes if one.name == "mean"]
    assert values(floor, mean.topic, SYMBOL) == [3, 4, 5, 6, 9, 10, 11, 12]
    say(floor, "B ")  # another one again
    floor.work()
    assert counted(floor) == 2 * len(kept)
    assert floor.events("dead.letters") == floor.events("late.records") == []
    floor.stop()
    for shard in range(SHARDS):
        assert rerun(floor.log, codec, Nodes, shard, tmp_path / f"again-{shard}").differences == []
    floor.close()


def test_two_contexts_share_no_input_window(tmp_path: Path) -> None:
    windows: list[set[str]] = []
    for number, as_of in enumerate(["", "A", "B"]):
        floor = Floor(tmp_path / str(number))
        if as_of:
            say(floor, as_of)
        deployed = floor.deploy(two_sources())
        feed(floor, deployed, 6)
        floor.work()
        given: list[Any] = [
            one for node in deployed.nodes if node.node_type == "sma" for one in floor.events(node.topic)
        ]
        windows.append({one.input_window_hash for one in given})
        floor.close()
    assert all(len(one) == len(windows[0]) > 5 for one in windows)
    assert len(set().union(*windows)) == sum(map(len, windows))


def test_a_context_that_is_said_again_touches_nothing(tmp_path: Path) -> None:
    floor = Floor(tmp_path)
    say(floor, "A")
    deployed = floor.deploy(two_sources())
    feed(floor, deployed, 4)
    floor.work()
    before = floor.view("node.windows").rows()
    floor.command(SetComputeContext("again", "w1", "paper", 0, "A"))
    floor.work()
    assert floor.view("node.windows").rows() == before != []
    assert counted(floor) == 0
    floor.close()


def test_that_worlds_share_is_another_context_than_a_worlds_own(tmp_path: Path) -> None:
    """Said of the very same data: other keys, and what was kept is dropped and counted."""
    floor = Floor(tmp_path)
    deployed = floor.deploy(two_sources())
    feed(floor, deployed, 6)
    floor.work()
    keys = {row.node_id: row.compute_key for row in floor.view("node.state").rows()}
    kept = {row.node_id for row in floor.view("node.windows").rows()}
    assert len(kept) == 5
    floor.share()
    floor.work()
    assert floor.view("node.windows").rows() == []
    assert counted(floor) == len(kept)
    now = {row.node_id: row.compute_key for row in floor.view("node.state").rows()}
    assert keys.keys() == now.keys()
    assert not {*keys.values()} & {*now.values()}
    floor.close()
