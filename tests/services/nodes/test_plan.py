"""The plan of a set of deployments: every node once, inputs first, whatever order they come in."""

from __future__ import annotations

from itertools import permutations

from qmtl.foundation.contracts.dag import PlannedNode, StrategyStatus, StrategyVersion
from qmtl.services.dagmanager.graph import resolve
from qmtl.services.dagmanager.message import parse_message
from qmtl.services.nodes.plan import make_plan
from tests.services.graphs import T0, crossing, strategy, text


def deployed(world_id: str, strategy_id: str, fast: int, slow: int) -> StrategyVersion:
    graph = resolve(parse_message(text(strategy(crossing(fast, slow), strategy_id))), T0)
    nodes = tuple(
        PlannedNode(
            one.name,
            one.node.node_id,
            one.node.node_type,
            60,
            one.node.period,
            one.node.params_canon,
            one.node.dependencies,
            f"t_{one.node.node_id[7:15]}",
            3 if one.node.node_type == "price" else 1,
            False,
        )
        for one in graph.nodes
    )
    return StrategyVersion(world_id, strategy_id, "v1", "v", "s", StrategyStatus.READY, nodes, graph.signals)


ALL = [deployed("w1", "a", 3, 8), deployed("w1", "b", 3, 9), deployed("w2", "a", 3, 8)]


def test_the_order_of_deployments_makes_no_difference() -> None:
    plans = [make_plan(order) for order in permutations(ALL)]
    assert all(plan == plans[0] for plan in plans)


def test_every_node_is_in_a_plan_once_behind_its_inputs() -> None:
    plan = make_plan(ALL)
    ids = [one.node.node_id for one in plan.nodes]
    assert len(ids) == len(set(ids)) == 8
    assert all(ids.index(read) < at for at, one in enumerate(plan.nodes) for read in one.node.dependencies)


def test_a_node_knows_its_worlds_its_strategies_and_whose_signal_it_is() -> None:
    plan = make_plan(ALL)
    (source,) = plan.sources
    assert source.worlds == ("w1", "w2")
    assert source.strategies == (("w1", "a"), ("w1", "b"), ("w2", "a"))
    assert source.signals == ()
    signals = {one.signals for one in plan.nodes if one.signals}
    assert signals == {(("w1", "a"), ("w2", "a")), (("w1", "b"),)}


def test_no_deployment_is_an_empty_plan() -> None:
    plan = make_plan([])
    assert (plan.nodes, dict(plan.topics), plan.sources) == ((), {}, ())
