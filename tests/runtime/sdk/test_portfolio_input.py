"""What an author says of a node that reads the portfolio back: the lag above all, which is declared or the node is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qmtl import PortfolioInput, ProcessingNode, Strategy, StreamInput, dag_message
from qmtl.foundation.common.errors import InvalidParameter, InvalidStrategy
from qmtl.foundation.contracts.trade import Account, Position
from qmtl.runtime.sdk.builtins import position_target
from qmtl.runtime.sdk.portfolio_node import ACCOUNT_FIELDS, FIELDS, PORTFOLIO_NODE, POSITION_FIELDS
from qmtl.services.dagmanager.admission import admit
from tests.runtime.sdk.authored import average

PRICE = StreamInput(["AAA"], interval=60)
SOUND: dict[str, Any] = {"field": "quantity", "scope": "strategy", "strategy_id": "s", "lag": 1}


def message_of(*fed: PortfolioInput, strategy_id: str = "s") -> bytes:
    class Fed(Strategy):
        def setup(self) -> None:
            read = fed[0].inputs[0]
            self.add_nodes([read, fed, position_target(fed[0], long_percent="0.1", short_percent="0")])

    Fed.strategy_id = strategy_id
    return dag_message(Fed())


def id_of(fed: PortfolioInput, strategy_id: str = "s") -> str:
    graph = admit(message_of(fed, strategy_id=strategy_id), 0)
    (found,) = (one.node.node_id for one in graph.nodes if one.node.node_type == "portfolio")
    return found


@pytest.mark.parametrize("lag", [None, 0, -1, 2, True, "1", 1.0], ids=repr)
def test_a_lag_that_is_not_declared_is_refused_by_the_name_of_the_node(lag: Any) -> None:
    said = {} if lag is None else {"lag": lag}
    with pytest.raises(InvalidStrategy, match=r"(?s)'held'.*lag.*Say lag=1") as refused:
        PortfolioInput(PRICE, name="held", **said)
    assert refused.value.code == "QMTL-512"


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"field": "profit"}, "the text 'profit'; it is one of quantity"),
        ({"field": None}, "field of a portfolio node was nothing"),
        ({"scope": "all"}, "it is 'strategy' or 'world'"),
        ({"scope": "world", "field": "average_cost"}, "an average is one strategy's"),
        ({"interval": 0}, "whole seconds from 1 to 86400"),
        ({"input": []}, "it takes the symbols of one"),
        ({"input": "AAA"}, "a node is required"),
    ],
    ids=repr,
)
def test_what_else_is_refused_names_the_node_and_what_to_do(more: dict[str, Any], told: str) -> None:
    said = {"input": PRICE, "field": "quantity", "lag": 1, "name": "held", **more}
    with pytest.raises(InvalidStrategy) as refused:
        PortfolioInput(**said)
    assert told in refused.value.what
    assert "'held'" in refused.value.what
    assert refused.value.remedy


@pytest.mark.parametrize("lag", [1, -1, True])
def test_a_function_has_no_lag_and_is_told_of_the_node_that_has(lag: int) -> None:
    with pytest.raises(InvalidStrategy, match="PortfolioInput"):
        ProcessingNode(PRICE, average, lag=lag)


def test_all_that_it_says_is_in_its_id_and_its_strategy_too() -> None:
    plain = PortfolioInput(PRICE, "cash", lag=1)
    same = PortfolioInput(PRICE, "cash", lag=1, name="other", tags=["shown"])
    assert id_of(plain) == id_of(same)
    others = [
        id_of(plain, "another"),
        id_of(PortfolioInput(PRICE, "equity", lag=1)),
        id_of(PortfolioInput(PRICE, "cash", lag=1, scope="world")),
        id_of(PortfolioInput(StreamInput(["BBB"], interval=60), "cash", lag=1)),
    ]
    assert len({id_of(plain), *others}) == 5
    world = PortfolioInput(PRICE, "cash", lag=1, scope="world")
    assert id_of(world, "one") == id_of(world, "another")  # what a world holds is the same for all of it


def test_its_message_says_whose_it_is_and_how_late() -> None:
    said = json.loads(message_of(PortfolioInput(PRICE, "quantity", lag=1)))["nodes"][1]
    assert said == {
        "name": "portfolio_quantity",
        "node_type": "portfolio",
        "interval": 60,
        "period": 1,
        "inputs": ["price"],
        "params": SOUND,
    }


def test_each_field_is_one_of_its_row() -> None:
    assert set(POSITION_FIELDS.values()) <= set(Position.__dataclass_fields__)
    assert set(ACCOUNT_FIELDS.values()) <= set(Account.__dataclass_fields__)
    for field in FIELDS:
        PORTFOLIO_NODE.parse({**SOUND, "field": field}, 1)


@pytest.mark.parametrize(
    ("params", "period", "told"),
    [
        ({**SOUND, "lag": None}, 1, "lag"),
        ({**SOUND, "more": 1}, 1, "'more'"),
        ({name: SOUND[name] for name in SOUND if name != "strategy_id"}, 1, "'strategy_id'"),
        ({**SOUND, "strategy_id": "a b"}, 1, "strategy_id"),
        ({**SOUND, "scope": "world"}, 1, "'strategy_id'"),
        ({name: SOUND[name] for name in SOUND if name != "field"}, 1, "'field'"),
        (SOUND, 2, "period"),
        (SOUND, 0, "period"),
    ],
    ids=repr,
)
def test_parameters_that_another_hand_wrote_are_refused_one_by_one(
    params: dict[str, Any], period: int, told: str
) -> None:
    (refused,) = PORTFOLIO_NODE.refusals(params, period)
    assert told in refused.what
    with pytest.raises(InvalidParameter):
        PORTFOLIO_NODE.parse(params, period)
