"""Identity and order of a graph's nodes: what may change an id, what may not, and which graphs are no graphs."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import (
    DagCycle,
    DuplicateName,
    InvalidDag,
    InvalidParameter,
    MissingDependency,
    NodeIdMismatch,
    UnknownNodeType,
)
from qmtl.foundation.common.identity import NODE_SET
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.wire.compat import differences
from qmtl.foundation.wire.versions import schema_dir, stored_versions
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE
from qmtl.services.dagmanager.cycles import cycles
from qmtl.services.dagmanager.graph import Graph, resolve
from qmtl.services.dagmanager.kinds import COMPAT
from qmtl.services.dagmanager.message import parse_message
from tests.services.graphs import T0, Node, cross, crossing, price, sma, strategy, target, text


def resolved(nodes: Sequence[Node], **more: Any) -> Graph:
    return resolve(parse_message(text(strategy(nodes, **more))), T0)


def ids(graph: Graph) -> dict[str, str]:
    return {one.name: one.node.node_id for one in graph.nodes}


# ---- what is no part of an id ---------------------------------------------------------------------------------

shapes = st.tuples(st.integers(1, 50), st.integers(51, 200), st.integers(1, 9).map(lambda tenth: tenth / 10))


@given(shapes, st.randoms(use_true_random=False))
def test_ids_depend_on_no_order_of_keys_or_nodes_and_on_no_name_tag_or_remark(
    shape: tuple[int, int, float], rng: random.Random
) -> None:
    nodes = crossing(*shape)
    names = {one["name"]: f"n{number}.{rng.randrange(1000)}" for number, one in enumerate(nodes)}
    disguised = [shuffled({**one, **disguise(one, names, rng)}, rng) for one in nodes]
    rng.shuffle(disguised)
    plain = resolved(nodes)
    other = resolved(disguised, strategy_id="other", signals=(names["target"],))
    assert {names[name]: node_id for name, node_id in ids(plain).items()} == ids(other)
    assert plain.signals == other.signals
    assert plain.commit_hash == other.commit_hash


def disguise(one: Node, names: Mapping[str, str], rng: random.Random) -> Node:
    return {
        "name": names[one["name"]],
        "inputs": [names[name] for name in one.get("inputs", ())],
        "tags": rng.sample(["a", "b", "c"], rng.randrange(4)),
        "metadata": {"seen": rng.random()},
        "interval": rng.choice([60, "60s", "1m"]),
        "params": shuffled({**one.get("params", {}), "label": rng.choice("xyz")}, rng),
    }


def shuffled(found: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    keys = list(found)
    rng.shuffle(keys)
    return {key: found[key] for key in keys}


@pytest.mark.parametrize("spelled", ["0.4", "0.40", "4e-1", "0.04E1", "40E-2"])
def test_ids_do_not_depend_on_the_spelling_of_a_number(spelled: str) -> None:
    plain = text(strategy(crossing(share=0.4)))
    assert plain.count(b": 0.4") == 1
    respelled = plain.replace(b": 0.4", f": {spelled}".encode())
    assert ids(resolve(parse_message(respelled), T0)) == ids(resolve(parse_message(plain), T0))


def test_a_source_is_what_it_reads_in_whatever_order() -> None:
    one, other = price(symbols=("BTC-USD", "ETH-USD")), price(symbols=("ETH-USD", "BTC-USD"))
    nodes = crossing()
    assert ids(resolved([one, *nodes[1:]])) == ids(resolved([other, *nodes[1:]]))


def test_the_time_of_a_submission_is_no_part_of_an_id() -> None:
    message = parse_message(text(strategy(crossing())))
    assert ids(resolve(message, 1)) == ids(resolve(message, 2))


# ---- what is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, changed",
    [
        ("fast", {"period": 4}),
        ("price", {"params": {"symbols": ["BTC-USD"]}}),
        ("target", {"params": {"long_percent": 0.5, "short_percent": -0.4}}),
        ("cross", {"inputs": ["slow", "fast"]}),
    ],
)
def test_a_change_of_content_changes_the_node_and_all_that_reads_it_and_nothing_else(
    name: str, changed: Node
) -> None:
    nodes = crossing()
    before = ids(resolved(nodes))
    after = ids(resolved([{**one, **changed} if one["name"] == name else one for one in nodes]))
    readers = {"price": {"price", "fast", "slow", "cross", "target"}, "fast": {"fast", "cross", "target"}}
    moved = readers.get(name, {"cross", "target"} if name == "cross" else {"target"})
    assert {one for one in before if before[one] != after[one]} == moved


@st.composite
def drawn_graphs(draw: st.DrawFn) -> list[Node]:
    """Up to ten nodes of any type, each reading any of those before it; the last one is a target."""
    nodes = [price("n0")]
    for number in range(1, draw(st.integers(2, 9))):
        name, read = f"n{number}", st.sampled_from([one["name"] for one in nodes])
        match draw(st.sampled_from(["price", "sma", "cross"])):
            case "price":
                symbols = draw(st.sets(st.sampled_from(["ADA-USD", "BTC-USD", "ETH-USD"]), min_size=1))
                nodes.append(price(name, sorted(symbols)))
            case "sma":
                nodes.append(sma(name, draw(st.integers(2, 5)), draw(read)))
            case _:
                nodes.append(cross(name, draw(read), draw(read)))
    return [*nodes, target("signal", draw(st.sampled_from(nodes))["name"])]


def functional_changes(one: Node, before: Mapping[str, str], earlier: Sequence[str]) -> list[Node]:
    """The node as it computes something else: everything that can be said of it otherwise, and every other node that it can read."""

    def params(**more: Any) -> Node:
        return {**one, "params": {**one.get("params", {}), **more}}

    changed = [params(**{NODE_SET: "mine@2"})]
    match one["node_type"]:
        case "price":
            symbols = one["params"]["symbols"]
            changed += [params(symbols=[*symbols, "XRP-USD"]), params(symbols=[*symbols[1:], "XRP-USD"])]
        case "sma":
            changed += [
                {**one, "period": one["period"] + 1},
                {**one, "node_type": "cross", "inputs": 2 * one["inputs"]},
            ]
        case "position_target":
            changed += [params(long_percent=0.5), params(short_percent=-0.40000001)]
        case "cross":
            pass  # it is what it reads
        case other:
            raise AssertionError(f"nobody has said what changes a node of type {other}")
    inputs = one.get("inputs", [])
    return changed + [
        {**one, "inputs": [*inputs[:port], other, *inputs[port + 1 :]]}
        for port, read in enumerate(inputs)
        for other in earlier
        if before[other] != before[read]
    ]


@given(drawn_graphs(), st.data())
def test_any_functional_change_of_a_node_gives_other_ids_to_it_and_all_below_it_and_to_no_other(
    nodes: list[Node], data: st.DataObject
) -> None:
    before = ids(resolved(nodes, signals=("signal",)))
    at = data.draw(st.integers(0, len(nodes) - 1))
    earlier = [one["name"] for one in nodes[:at]]
    moved = {nodes[at]["name"]}
    for one in nodes[at + 1 :]:
        if moved.intersection(one.get("inputs", ())):
            moved.add(one["name"])
    changed = data.draw(st.sampled_from(functional_changes(nodes[at], before, earlier)))
    changed = {
        key: value for key, value in changed.items() if changed["node_type"] != "cross" or key != "period"
    }
    after = ids(resolved([*nodes[:at], changed, *nodes[at + 1 :]], signals=("signal",)))
    assert {name for name in before if before[name] != after[name]} == moved


@given(
    drawn_graphs(),
    st.randoms(use_true_random=False),
    st.sampled_from(["0.4", "0.40", "4e-1", "0.04E1", "40E-2"]),
)
def test_no_other_name_order_remark_or_spelling_changes_any_id(
    nodes: list[Node], rng: random.Random, spelled: str
) -> None:
    before = resolved(nodes, signals=("signal",))
    names = {one["name"]: f"other.{number}" for number, one in enumerate(nodes)}
    disguised = [shuffled({**one, **disguise(one, names, rng)}, rng) for one in nodes]
    for one in disguised:
        if "symbols" in one["params"]:
            one["params"]["symbols"] = rng.sample(one["params"]["symbols"], len(one["params"]["symbols"]))
    rng.shuffle(disguised)
    message = text(strategy(disguised, signals=(names["signal"],)))
    respelled = message.replace(b'"long_percent": 0.4', f'"long_percent": {spelled}'.encode())
    after = resolve(parse_message(respelled), T0)
    assert {names[name]: node_id for name, node_id in ids(before).items()} == ids(after)
    assert (before.signals, before.commit_hash) == (after.signals, after.commit_hash)


def test_a_message_format_that_breaks_makes_other_nodes_of_its_type_and_of_all_that_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The id of a format is of the majors among its versions; where none was broken it is the first."""
    before = ids(resolved(crossing()))
    for name, one in BUILTINS.items():
        output = (Bar if name == SOURCE else one.output).__name__
        versions = [schema for _, schema in stored_versions(schema_dir(), output)]
        assert COMPAT[name] == f"qmtl.{name}.v1"
        assert all(not [*differences(versions[-1], older)] for older in versions)
    monkeypatch.setitem(COMPAT, "cross", "qmtl.cross.v2")
    after = ids(resolved(crossing()))
    assert {one for one in before if before[one] != after[one]} == {"cross", "target"}


def test_two_nodes_of_equal_content_are_one_node() -> None:
    graph = resolved([*crossing(), sma("again", 3)])
    assert ids(graph)["again"] == ids(graph)["fast"]


def test_a_message_may_say_the_ids_that_it_has() -> None:
    nodes = crossing()
    found = ids(resolved(nodes))
    assert ids(resolved([{**one, "node_id": found[one["name"]]} for one in nodes])) == found


@pytest.mark.parametrize("claimed", ["blake3:" + "0" * 64, "0" * 64, "BLAKE3:" + "0" * 64, ""])
def test_a_message_may_not_say_another_id(claimed: str) -> None:
    with pytest.raises(NodeIdMismatch):
        resolved([{**one, "node_id": claimed} if one["name"] == "fast" else one for one in crossing()])


# ---- graphs and others --------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=13))
def test_a_graph_is_ordered_inputs_first_and_refused_where_the_standard_library_finds_a_cycle(
    wishes: list[tuple[int, int]],
) -> None:
    """Oracle: `graphlib.TopologicalSorter`. Node i crosses two others, whatever they are; node p is a source."""
    count = len(wishes)
    inputs = {
        f"c{at}": [name_of(one, count), name_of(other, count)] for at, (one, other) in enumerate(wishes)
    }
    nodes = [price("p"), *(cross(name, *read) for name, read in inputs.items()), target(source="c0")]
    try:
        TopologicalSorter(inputs).prepare()
    except CycleError:
        with pytest.raises(DagCycle):
            resolved(nodes)
        return
    graph = resolved(nodes)
    place = {one.name: at for at, one in enumerate(graph.nodes)}
    assert sorted(place) == sorted(one["name"] for one in nodes)
    assert all(place[read] < place[name] for name, reads in inputs.items() for read in reads)


def name_of(number: int, count: int) -> str:
    return f"c{number}" if number < count else "p"


def test_a_cycle_is_refused_by_the_names_in_it_in_the_order_of_reading() -> None:
    nodes = [
        price(),
        sma("a", 3, "b"),
        sma("b", 4, "a"),
        sma("free", 5),
        sma("below", 6, "a"),
        target(source="a"),
    ]
    with pytest.raises(DagCycle, match="cycle a -> b -> a;") as caught:
        resolved(nodes)
    assert caught.value.reasons[0].path == "nodes[1].inputs"
    assert not {"free", "below"} & set(str(caught.value).split())


@given(st.lists(st.lists(st.integers(0, 7), max_size=3), min_size=1, max_size=8))
def test_every_part_that_goes_round_gives_one_cycle_that_is_one(reads: list[list[int]]) -> None:
    """Oracle: reachability by powers of the adjacency relation."""
    inputs = {str(at): [str(to % len(reads)) for to in found] for at, found in enumerate(reads)}
    reach = {name: set(found) for name, found in inputs.items()}
    for _ in inputs:
        reach = {name: found.union(*(reach[one] for one in found)) for name, found in reach.items()}
    parts = {
        frozenset(one for one in reach[name] if name in reach[one]) for name in inputs if name in reach[name]
    }
    found = cycles(inputs)
    assert sorted(sorted(part) for part in parts) == sorted(
        sorted(next(part for part in parts if cycle[0] in part)) for cycle in found
    )
    for cycle in found:
        assert len(set(cycle)) == len(cycle)
        assert cycle[0] == min(cycle)
        assert all(read in inputs[name] for name, read in zip(cycle, [*cycle[1:], cycle[0]], strict=True))


@pytest.mark.parametrize(
    "nodes, signals, error, word",
    [
        ([price(), price(), target(source="price")], ("target",), DuplicateName, "price"),
        ([price(), target(source="nowhere")], ("target",), MissingDependency, "nowhere"),
        (crossing(), ("nowhere",), MissingDependency, "nowhere"),
        (crossing(), ("target", "target"), DuplicateName, "target"),
        (crossing(), ("cross",), InvalidDag, "cross"),
        ([{**price(), "node_type": "hull"}], ("price",), UnknownNodeType, "hull"),
        ([price(), {**target(), "inputs": []}], ("target",), InvalidDag, "0 inputs"),
        ([price(), {**target(source="price"), "interval": 120}], ("target",), InvalidDag, "120"),
        (
            [price(), sma("fast", 3, params={"window": 3}), target(source="fast")],
            ("target",),
            InvalidParameter,
            "window",
        ),
        ([price(symbols=()), target(source="price")], ("target",), InvalidParameter, "symbols"),
        (
            [{**price(), "code_hash": "blake3:" + "1" * 64}, target(source="price")],
            ("target",),
            NodeIdMismatch,
            "code_hash",
        ),
    ],
)
def test_what_is_no_strategy_is_refused_by_name(
    nodes: list[Node], signals: tuple[str, ...], error: type[InvalidDag], word: str
) -> None:
    with pytest.raises(error, match=word) as caught:
        resolved(nodes, signals=signals)
    assert type(caught.value) is error
    assert len(caught.value.reasons) == 1


def test_a_chain_of_ten_thousand_nodes_is_resolved_without_recursion() -> None:
    chain = [sma(f"n{at}", 2, f"n{at - 1}") for at in range(1, 9_999)]
    nodes = [price("n0"), *chain, target(source="n9998")]
    bare = [{key: value for key, value in one.items() if key != "tags"} for one in nodes]
    data = json.dumps(strategy(bare), separators=(",", ":")).encode()
    assert len(resolve(parse_message(data), T0).nodes) == 10_000
