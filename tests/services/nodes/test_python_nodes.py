"""The laws of nodes whose function an author wrote: they compute as built-in ones do, and one that can't stops alone and says why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest

from qmtl import ProcessingNode, Strategy, StreamInput, dag_message
from qmtl.bootstrap import CODE
from qmtl.foundation.contracts.node import NodeState, NodeStatus, NodeWindow
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.runtime.sdk import functions
from qmtl.runtime.sdk.builtins import builtin
from tests.runtime.sdk import authored
from tests.runtime.sdk.authored import BuiltinCross, PythonCross
from tests.services.graphs import T0
from tests.services.nodes.floor import STEP_MS, Floor


@pytest.fixture(autouse=True)
def _nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tests before have registered in this process."""
    monkeypatch.setattr(functions, "_REGISTERED", {})


HERE = "tests.runtime.sdk.authored"
CLOSES: list[float | None] = [100.0 + (at * 37 % 23) for at in range(40)]
GAPPED: list[float | None] = [value if at % 7 else None for at, value in enumerate(CLOSES)]


@contextmanager
def a_floor(packages: str = HERE, poll_records: int = 4000) -> Iterator[Floor]:
    with TemporaryDirectory() as name, patch.dict("os.environ", {CODE: packages}):
        made = Floor(Path(name), poll_records)
        try:
            yield made
        finally:
            made.close()


def message(strategy: Strategy) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(dag_message(strategy))
    return said


def intents(floor: Floor, strategy_id: str) -> list[tuple[object, ...]]:
    found: Sequence[OrderIntent] = floor.events("trade.intents")
    return [
        (one.symbol, one.bucket_ms, one.target_percent, one.reference_price)
        for one in found
        if one.strategy_id == strategy_id
    ]


def state(floor: Floor, node_id: str) -> NodeState:
    found: NodeState = floor.view("node.state").get(node_id)
    return found


@pytest.mark.parametrize("closes", [CLOSES, GAPPED], ids=["whole", "gaps"])
@pytest.mark.parametrize(("poll_records", "restarts"), [(4000, 0), (3, 2)])
def test_a_strategy_in_python_gives_the_intents_of_the_built_in_one(
    closes: list[float | None], poll_records: int, restarts: int
) -> None:
    with a_floor(poll_records=poll_records) as floor:
        mine = floor.deploy(message(PythonCross("1m")))
        floor.deploy(message(BuiltinCross("1m")))
        floor.feed(mine, {"BTC-USD": closes})
        for _ in range(restarts):
            floor.work(9)
            floor.stop(lose_store=True)
            floor.start()
        floor.work()
        given = intents(floor, "python_cross")
        assert len(given) > 4
        assert given == intents(floor, "builtin_cross")
        for node in mine.nodes:
            assert state(floor, node.node_id).status is NodeStatus.ACTIVE
            assert state(floor, node.node_id).cause == ""
        slow: NodeWindow = floor.view("node.windows").get(mine.nodes[2].node_id, "BTC-USD")
        assert list(slow.ports[0].values) == [value for value in closes if value is not None][-8:]


def test_a_worker_without_the_code_says_so_and_how_to_mend_it_and_one_with_it_begins(tmp_path: Path) -> None:
    with a_floor(packages="") as floor:
        mine = floor.deploy(message(PythonCross("1m")))
        floor.deploy(message(BuiltinCross("1m")))
        floor.feed(mine, {"BTC-USD": CLOSES[:20]})
        floor.work()
        assert intents(floor, "python_cross") == []
        assert intents(floor, "builtin_cross") != []
        found = state(floor, mine.nodes[1].node_id)
        assert found.status is NodeStatus.ERROR
        assert found.since_bucket_ms == T0 + STEP_MS
        assert found.cause_code == "QMTL-411"
        assert f"{HERE}:average" in found.cause
        assert "--code tests" in found.cause
        assert found.strategies == ("w1/python_cross",)
        assert floor.outputs(mine, "fast") == []
        floor.stop()
        with patch.dict("os.environ", {CODE: HERE}):
            floor.start()
        floor.feed(mine, {"BTC-USD": CLOSES})
        floor.work()
        again = state(floor, mine.nodes[1].node_id)
        assert (again.status, again.cause, again.cause_code) == (NodeStatus.ACTIVE, "", "")
        first = min(one.bucket_ms for one in floor.outputs(mine, "fast"))
        assert first == T0 + 23 * STEP_MS, "it warms up again"
        late = intents(floor, "python_cross")
        assert late
        assert set(late) <= set(intents(floor, "builtin_cross")) | {late[0]}


class Failing(Strategy):
    """A node that fails, one that reads it, and one that has nothing to do with it."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD", "ETH-USD"], name="price")
        bad = ProcessingNode(price, authored.fails_above, name="bad", params={"limit": 110})
        good = ProcessingNode(price, authored.average, name="good", period=2, params={"length": 2})
        after = builtin("sma", bad, 2, name="after")
        self.add_nodes([price, bad, good, after])
        self.add_nodes(builtin("position_target", after, long_percent=0.1, short_percent=-0.1, name="target"))


def test_a_node_that_fails_stops_alone_for_all_symbols_and_stays_so_until_it_is_deployed_anew() -> None:
    rising: list[float | None] = [101.0 + at for at in range(20)]
    low: list[float | None] = [50.0] * 20
    with a_floor() as floor:
        mine = floor.deploy(message(Failing("1m")))
        floor.feed(mine, {"BTC-USD": low, "ETH-USD": rising})
        floor.work()
        bad, good = mine.nodes[1], mine.nodes[2]
        found = state(floor, bad.node_id)
        failed_ms = T0 + 11 * STEP_MS
        assert (found.status, found.since_bucket_ms, found.cause_code) == (
            NodeStatus.ERROR,
            failed_ms,
            "QMTL-413",
        )
        for word in ("ETH-USD", str(failed_ms), "ValueError", "too high"):
            assert word in found.cause
        values = floor.outputs(mine, "bad")
        assert sorted({one.symbol for one in values}) == ["BTC-USD", "ETH-USD"]
        assert max(one.bucket_ms for one in values) == failed_ms - STEP_MS
        assert max(one.bucket_ms for one in floor.outputs(mine, "after")) == failed_ms - STEP_MS
        assert max(one.bucket_ms for one in floor.outputs(mine, "good")) == T0 + 20 * STEP_MS
        assert state(floor, good.node_id).status is NodeStatus.ACTIVE
        assert floor.view("node.windows").get(bad.node_id, "BTC-USD") is None
        floor.stop(lose_store=True)
        floor.start()
        floor.feed(mine, {"BTC-USD": low * 2, "ETH-USD": low * 2})
        floor.work()
        assert state(floor, bad.node_id) == found
        assert len(floor.outputs(mine, "bad")) == len(values)


def test_a_function_that_moved_is_found_where_it_was_said_last() -> None:
    """The node is the same, so it is there once; every place that its strategies say is tried."""
    moved = message(PythonCross("1m"))
    for node in moved["nodes"]:
        if "code" in node:
            node["code"] = node["code"].replace(HERE, "gone.away")
    with a_floor() as floor:
        first = floor.deploy({**moved, "strategy_id": "first"})
        floor.feed(first, {"BTC-USD": CLOSES[:12]})
        floor.work()
        node_id = first.nodes[1].node_id
        assert state(floor, node_id).cause_code == "QMTL-411"
        assert floor.view("dag.nodes").get(node_id).code == "gone.away:average"
        second = floor.deploy(message(PythonCross("1m")))
        assert second.nodes[1].node_id == node_id
        assert floor.view("dag.nodes").get(node_id).code == f"{HERE}:average"
        floor.feed(first, {"BTC-USD": CLOSES})
        floor.work()
        assert state(floor, node_id).status is NodeStatus.ACTIVE
        assert intents(floor, "first") == intents(floor, "python_cross") != []
