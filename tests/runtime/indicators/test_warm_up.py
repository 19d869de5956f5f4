"""What is told of warm-up is when nodes speak first: each type by its steps, and a graph by the values that its nodes give."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from qmtl import ProcessingNode, Strategy, StreamInput, dag_message
from qmtl.bootstrap import CODE
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.registry import TAG_QUERY
from qmtl.runtime.indicators.warm_up import first_value, warm_ups
from qmtl.runtime.sdk.builtins import builtin
from qmtl.services.dagmanager.admission import admit
from tests.runtime.indicators.cases import CASES, Case, bars, stepped
from tests.runtime.sdk import authored
from tests.services.graphs import T0
from tests.services.nodes.floor import STEP_MS, Floor

SPEAKING = [case for case in CASES if case.node_type != TAG_QUERY and "turns_only" not in case.params]
"""Those that speak as soon as they can: who waits for a turn speaks when one comes."""


@pytest.mark.parametrize("case", SPEAKING, ids=str)
@pytest.mark.parametrize("more", [0, 3])
def test_a_node_speaks_first_when_it_is_told(case: Case, more: int) -> None:
    period = max(2, case.least) + more
    market = [replace(bar, volume=Decimal(1)) for bar in bars(7, 30)]
    rows: list[Inputs] = [(1.0 + at + at % 3, 2.0 + 3 * (at % 2))[: case.ports] for at in range(30)]
    found, _ = stepped(case, period, rows, market)
    spoken = [at for at, value in enumerate(found, 1) if value is not None]
    assert spoken[0] == first_value(case.node_type, case.params, period, 60)


class Chain(Strategy):
    """Nodes over nodes of several warm-ups, one of them a function that looks back on bars, too."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        fast = builtin("rsi", price, 3, name="fast")
        slow = builtin("sma", price, 6, name="slow")
        both = builtin("linear", [fast, slow], name="both", weights=[1, 1], constant=0)
        mean = ProcessingNode(both, authored.average, name="mean", period=4, params={"length": 4}, bars=12)
        last = builtin("macd", mean, 4, name="last", fast=2, signal=3, output="signal")
        target = builtin("position_target", last, long_percent=0.1, short_percent=-0.1, name="target")
        self.add_nodes([price, fast, slow, both, mean, last, target])


def test_each_node_of_a_graph_gives_its_first_value_in_the_bucket_that_is_told() -> None:
    message = dag_message(Chain("1m"))
    first = warm_ups([one.node for one in admit(message, 0).nodes])
    with TemporaryDirectory() as name, patch.dict("os.environ", {CODE: "tests.runtime.sdk.authored"}):
        floor = Floor(Path(name))
        deployed = floor.deploy(json.loads(message))
        floor.feed(deployed, {"BTC-USD": [100.0 + at * 7 % 5 for at in range(40)]})
        floor.work()
        for node in deployed.nodes[1:]:
            given = floor.outputs(deployed, node.name)
            assert min(one.bucket_ms for one in given) == T0 + first[node.node_id] * STEP_MS, node.name
        floor.close()
    assert first[deployed.nodes[0].node_id] == 1
