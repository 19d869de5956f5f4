"""Whoever writes a message: a node that reads the portfolio back says how late, and reads its own strategy's or its world's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.kinds import gives_targets
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.tag_queries import is_number
from tests.services.graphs import price, strategy, target, text

PARAMS: dict[str, Any] = {"field": "quantity", "scope": "strategy", "strategy_id": "s1", "lag": 1}


def held(**more: Any) -> dict[str, Any]:
    node = {"name": "held", "node_type": "portfolio", "interval": 60, "inputs": ["price"], "params": PARAMS}
    return {**node, **more}


def message(node: dict[str, Any]) -> bytes:
    return text(strategy([price(), node, target(source="held")]))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in PARAMS.items() if key != name}


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no lag": (held(params=without("lag")), "QMTL-506", "lag of a portfolio node was missing"),
    "lag 0": (held(params={**PARAMS, "lag": 0}), "QMTL-506", "the number 0"),
    "lag -1": (held(params={**PARAMS, "lag": -1}), "QMTL-506", "the number -1"),
    "lag 2": (held(params={**PARAMS, "lag": 2}), "QMTL-506", "the number 2"),
    "lag true": (held(params={**PARAMS, "lag": True}), "QMTL-506", "the truth value true"),
    "lag as text": (held(params={**PARAMS, "lag": "1"}), "QMTL-506", "the text '1'"),
    "lag null": (held(params={**PARAMS, "lag": None}), "QMTL-506", "lag of a portfolio node was nothing"),
    "lag beside params": (held(params=without("lag"), lag=1), "QMTL-500", "lag"),
    "another's": (held(params={**PARAMS, "strategy_id": "s2"}), "QMTL-506", "which is 's1'"),
    "nobody's": (held(params=without("strategy_id")), "QMTL-506", "'strategy_id'"),
    "no field": (held(params=without("field")), "QMTL-506", "'field'"),
    "a world's by id": (held(params={**PARAMS, "world_id": "w"}), "QMTL-506", "world_id"),
    "no input": (held(inputs=[]), "QMTL-500", "takes 1"),
    "a period": (held(period=2), "QMTL-506", "period of a portfolio node"),
    "code": (held(code="a.b:c"), "QMTL-500", "is a part of QMTL"),
    "another hash": (held(code_hash="blake3:" + "0" * 64), "QMTL-505", "code_hash"),
    "an edge back to itself": (held(inputs=["target"]), "QMTL-502", "lagged input"),
}


@pytest.mark.parametrize(("node", "code", "told"), REFUSED.values(), ids=list(REFUSED))
@pytest.mark.parametrize("judge", [admit, Prescan().admit], ids=["admit", "prescan"])
def test_a_message_by_hand_is_refused(
    node: dict[str, Any], code: str, told: str, judge: Callable[..., Any]
) -> None:
    with pytest.raises(InvalidDag) as refused:
        judge(message(node), 0)
    said = str(refused.value)
    assert told in said
    assert code in said
    assert "held" in said or "nodes[1]" in said


def test_a_sound_one_comes_in_and_is_the_same_to_those_who_remember() -> None:
    memory = Prescan()
    graph = admit(message(held()), 0)
    assert [memory.admit(message(held()), 0) for _ in range(2)] == [graph, graph]
    other = json.loads(message(held()))
    other["strategy_id"] = "s2"
    with pytest.raises(InvalidDag):  # its nodes are remembered, and whose they are is asked all the same
        memory.admit(json.dumps(other).encode(), 0)


def test_it_gives_numbers_and_is_no_signal() -> None:
    graph = admit(message(held()), 0)
    (node,) = (one.node for one in graph.nodes if one.node.node_type == "portfolio")
    assert isinstance(node, ComputeNode)
    assert is_number(node)
    assert not gives_targets(node)
    with pytest.raises(InvalidDag, match="a signal is a position target"):
        admit(text(strategy([price(), held()], signals=["held"])), 0)
