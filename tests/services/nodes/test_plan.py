"""The plan of a set of deployments: every node once, inputs first, whatever order they come in."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.identity import with_node_set
from qmtl.foundation.common.traffic import is_canarys
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    Canary,
    PlannedNode,
    Split,
    StrategyStatus,
    StrategyVersion,
)
from qmtl.foundation.wire.shards import shards_of
from qmtl.services.dagmanager.graph import Graph, resolve
from qmtl.services.dagmanager.message import parse_message
from qmtl.services.nodes.plan import Plan, Signal, make_plan
from tests.services.graphs import T0, crossing, price, target, text
from tests.services.graphs import strategy as strategy_message


def deployed(world_id: str, strategy_id: str, fast: int, slow: int) -> StrategyVersion:
    message = strategy_message(crossing(fast, slow), strategy_id)
    return version_of(world_id, strategy_id, resolve(parse_message(text(message)), T0))


def version_of(world_id: str, strategy_id: str, graph: Graph) -> StrategyVersion:
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


def test_a_node_of_a_node_set_is_planned_as_its_type_would_be_without_one() -> None:
    symbols = {"symbols": ["BTC-USD"]}
    plain, made = (
        make_plan([deployed_source(params)]) for params in (symbols, with_node_set(symbols, "spot", "1"))
    )
    assert [one.params for one in made.sources] == [one.params for one in plain.sources]
    assert made.sources[0].node.node_id != plain.sources[0].node.node_id


def deployed_source(params: dict[str, Any]) -> StrategyVersion:
    nodes = [{**price(), "params": params}, target(source="price")]
    return version_of("w1", "a", resolve(parse_message(text(strategy_message(nodes))), T0))


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
    assert signals == {(Signal("w1", "a"), Signal("w2", "a")), (Signal("w1", "b"),)}


def test_no_deployment_is_an_empty_plan() -> None:
    plan = make_plan([])
    assert (plan.nodes, dict(plan.topics), plan.sources) == ((), {}, ())


@st.composite
def graphs(draw: st.DrawFn) -> list[StrategyVersion]:
    """Strategies over common sources, each node reading one or two that come before it."""
    pool = [
        f"blake3:{draw(st.binary(min_size=31, max_size=31)).hex()}ff"  # no node below ends so
        for _ in range(draw(st.integers(1, 3)))
    ]
    known = {node_id: planned(node_id, ()) for node_id in pool}
    out = []
    for number in range(draw(st.integers(1, 4))):
        nodes = {one: known[one] for one in draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))}
        for step in range(draw(st.integers(0, 4))):
            reads = draw(st.lists(st.sampled_from(list(nodes)), min_size=1, max_size=2))
            node_id = f"blake3:{number:032x}{step:032x}"
            nodes[node_id] = planned(node_id, tuple(reads))
        out.append(
            StrategyVersion("w", f"s{number}", "v", "v", "s", StrategyStatus.READY, tuple(nodes.values()), ())
        )
    return out


def planned(node_id: str, reads: tuple[str, ...]) -> PlannedNode:
    kind, params = {0: ("price", '{"symbols":["A"]}'), 1: ("sma", "{}"), 2: ("cross", "{}")}[len(reads)]
    return PlannedNode("n", node_id, kind, 60, len(reads) % 2, params, reads, f"t_{node_id[7:]}", 1, False)


@settings(deadline=None)
@given(graphs(), st.integers(1, 5))
def test_every_node_lives_on_one_shard_and_is_read_upwards_only(
    deployed: list[StrategyVersion], shards: int
) -> None:
    plans = [make_plan(deployed, shard, shards) for shard in range(shards)]
    homes = [(one.node.node_id, shard) for shard, plan in enumerate(plans) for one in plan.nodes if one.here]
    everything = {node.node_id for one in deployed for node in one.nodes}
    assert sorted(node_id for node_id, _ in homes) == sorted(everything)
    home = dict(homes)
    for shard, plan in enumerate(plans):
        present = [one.node.node_id for one in plan.nodes]
        for one in plan.nodes:
            if one.here:
                assert all(
                    present.index(read) < present.index(one.node.node_id) for read in one.node.dependencies
                )
            else:
                assert home[one.node.node_id] != shard
                assert one.is_source or home[one.node.node_id] < shard
    for strategy in deployed:
        assert shards_of(strategy.nodes, shards) == {
            node.node_id: home[node.node_id] for node in strategy.nodes
        }


# ---- two versions -------------------------------------------------------------------------------------------------------

SYMBOLS = [f"S{number}-USD" for number in range(12)]


@st.composite
def with_canaries(draw: st.DrawFn) -> list[StrategyVersion]:
    """Strategies with signals anywhere in their graphs; some have a canary, whose signals may be some of the stable ones."""
    out = []
    for one in draw(graphs()):
        ids = [node.node_id for node in one.nodes]
        some = st.lists(st.sampled_from(ids), min_size=1, max_size=3, unique=True).map(tuple)
        canary = None
        if draw(st.booleans()):
            weight = draw(st.integers(1, FULL_WEIGHT - 1))
            canary = Canary("v2", f"c{draw(st.integers(0, 99))}", "s", weight, draw(some))
        out.append(replace(one, signals=draw(some), canary=canary))
    return out


def given_by(
    plans: list[Plan], strategy: StrategyVersion, symbol: str
) -> tuple[list[str], list[tuple[int, bool]]]:
    """The nodes that give a strategy's intents of a symbol, each as often as it does, and on which shards."""
    nodes, where = [], []
    for shard, plan in enumerate(plans):
        for one in plan.nodes:
            for signal in one.signals:
                if (signal.world_id, signal.strategy_id) == (strategy.world_id, strategy.strategy_id):
                    where.append((shard, one.here))
                    if signal.gives(symbol):
                        nodes.append(one.node.node_id)
    return sorted(nodes), where


@settings(deadline=None)
@given(with_canaries(), st.integers(1, 5))
def test_a_symbols_intents_come_once_from_each_signal_of_the_version_that_has_it_and_on_one_shard(
    deployed: list[StrategyVersion], shards: int
) -> None:
    plans = [make_plan(deployed, shard, shards) for shard in range(shards)]
    for strategy in deployed:
        canary = strategy.canary
        for symbol in SYMBOLS:
            mine = strategy.signals
            if canary is not None and is_canarys(canary.sentinel_id, symbol, canary.traffic_weight):
                mine = canary.signals
            nodes, where = given_by(plans, strategy, symbol)
            assert nodes == sorted(mine)
            assert len({shard for shard, _ in where}) == 1
            assert any(here for _, here in where)  # no shard is asked for intents alone


@st.composite
def with_splits(draw: st.DrawFn) -> StrategyVersion:
    """A strategy on one desk with versions that have its traffic before, up to buckets that are known, and perhaps to one that is not."""
    row, *others = [replace(one, strategy_id="s") for one in draw(with_canaries())]
    ends = sorted(draw(st.sets(st.integers(1, 8), max_size=len(others))))
    open_end = [None] if len(ends) < len(others) and draw(st.booleans()) else []
    before = tuple(
        Split(one.sentinel_id, one.signals, one.canary, one.nodes, (), 4, until_ms)
        for one, until_ms in zip(others, [*ends, *open_end], strict=False)
    )
    return replace(row, desk=4, before=before)


@settings(max_examples=30, deadline=None)
@given(with_splits())
def test_a_symbols_intents_come_from_the_version_that_has_it_in_the_bucket_and_on_one_desk(
    row: StrategyVersion,
) -> None:
    plans = [make_plan([row], shard, 5) for shard in range(5)]
    for bucket in range(1, 11):
        has: Split | StrategyVersion = row
        for split in reversed(row.before):
            if split.until_ms is None or bucket <= split.until_ms:
                has = split
        for symbol in SYMBOLS[:4]:
            mine = has.signals
            if has.canary is not None and is_canarys(
                has.canary.sentinel_id, symbol, has.canary.traffic_weight
            ):
                mine = has.canary.signals
            given = [
                (shard, one.node.node_id)
                for shard, plan in enumerate(plans)
                for one in plan.nodes
                for signal in one.signals
                if signal.holds(bucket) and signal.gives(symbol)
            ]
            assert sorted(given) == sorted((4, node_id) for node_id in mine)


def test_while_a_row_of_old_is_taken_over_both_desks_give_the_intents() -> None:
    """Trading takes the first of two, and none is left out whichever of the shards reads first."""
    (old,) = (one for one in ALL if one.strategy_id == "b")
    mine = max(shards_of(old.nodes, 4).values())
    before = Split(old.sentinel_id, old.signals, None, (), until_ms=5)
    for row, desks in ((old, {mine}), (replace(old, desk=3, before=(before,)), {mine, 3})):
        plans = [make_plan([row], shard, 4) for shard in range(4)]
        assert {shard for shard, plan in enumerate(plans) if any(one.signals for one in plan.nodes)} == desks
    assert {
        signal.until_ms
        for one in make_plan([replace(old, desk=3, before=(before,))], mine, 4).nodes
        for signal in one.signals
    } == {5}


@settings(deadline=None)
@given(with_canaries(), st.integers(1, 5), st.integers(1, FULL_WEIGHT - 1))
def test_another_weight_moves_no_node_no_input_and_no_desk(
    deployed: list[StrategyVersion], shards: int, weight: int
) -> None:
    weighed = [
        one if one.canary is None else replace(one, canary=replace(one.canary, traffic_weight=weight))
        for one in deployed
    ]
    for shard in range(shards):
        before, after = (make_plan(rows, shard, shards) for rows in (deployed, weighed))
        assert before.topics == after.topics
        assert [replace(one, signals=()) for one in before.nodes] == [
            replace(one, signals=()) for one in after.nodes
        ]
        assert [len(one.signals) for one in before.nodes] == [len(one.signals) for one in after.nodes]


@settings(deadline=None)
@given(with_canaries(), st.integers(1, 5))
def test_a_shard_reads_what_it_computes_with_and_the_signals_of_its_desk_and_nothing_else(
    deployed: list[StrategyVersion], shards: int
) -> None:
    for shard in range(shards):
        plan = make_plan(deployed, shard, shards)
        here = [one for one in plan.nodes if one.here]
        inputs = {node_id for one in here for node_id in (*one.node.dependencies, *one.sources)}
        for one in plan.nodes:
            node_id = one.node.node_id
            assert one.here or node_id in inputs or one.signals
            assert bool(one.sources) == (one.here or node_id in inputs)
