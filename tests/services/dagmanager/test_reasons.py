"""No fault of a message hides another one: each of several is told, save those that may be gone with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidDag
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import MAX_REASONS
from tests.services.graphs import T0, Node, crossing, price, sma, strategy

ZERO: Final = "blake3:" + "0" * 64
OWN: Final = "the node's own name"
ABSENT: Final = object()


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a node.

    Attributes:
        field: that has it; a node has one fault of a field.
        value: of the field; `ABSENT` for a field that is left out.
        code: of its reason.
        at: the path of its reason within the node.
    """

    field: str
    value: Any
    code: int
    at: str = ""

    @property
    def path(self) -> str:
        return self.at or self.field


FAULTS: Final[Mapping[str, Fault]] = {
    "name with a separator": Fault("name", "a|b", 508),
    "name that leads out": Fault("name", "..", 508),
    "name too long": Fault("name", "x" * 300, 508),
    "name of lookalikes": Fault("name", "pric\u0435", 508),
    "name with NUL": Fault("name", "a\0b", 508),
    "name that is empty": Fault("name", "", 508),
    "name of another kind": Fault("name", 7, 500),
    "name that is not said": Fault("name", ABSENT, 500),
    "name twice": Fault("name", "fast", 507),
    "unknown type": Fault("node_type", "hull", 503),
    "type that is empty": Fault("node_type", "", 508),
    "type of another kind": Fault("node_type", ["sma"], 500),
    "bad interval": Fault("interval", 0, 500),
    "interval of another kind": Fault("interval", "1w", 500),
    "bad period": Fault("period", 0, 500),
    "number without an end": Fault("period", float("inf"), 506),
    "unknown parameter": Fault("params", {"window": 3}, 506),
    "world as a parameter": Fault("params", {"world_id": "w"}, 506),
    "parameter that is no number": Fault("params", {"window": float("nan")}, 506, "params.window"),
    "parameters of another kind": Fault("params", [], 500),
    "dangling input": Fault("inputs", ["gone"], 504, "inputs[0]"),
    "input of another interval": Fault("inputs", ["hourly"], 500, "inputs[0]"),
    "input that may be no name": Fault("inputs", ["c|d"], 508, "inputs[0]"),
    "input of another kind": Fault("inputs", [7], 500, "inputs[0]"),
    "inputs of another kind": Fault("inputs", "price", 508),
    "input too many": Fault("inputs", ["price", "price"], 500),
    "cycle": Fault("inputs", [OWN], 502),
    "bad tag": Fault("tags", ["a|b"], 508, "tags[0]"),
    "hash of other code": Fault("code_hash", ZERO, 505),
    "hash of no form": Fault("code_hash", "0", 505),
    "another format": Fault("schema_compat_id", "qmtl.other.v1", 505),
    "format of no form": Fault("schema_compat_id", "a b", 508),
    "schema of no version": Fault("schema_hash", ZERO, 505),
    "schema of no form": Fault("schema_hash", "0", 505),
    "id of other content": Fault("node_id", ZERO, 505),
    "id of no form": Fault("node_id", "0", 505),
    "remarks of another kind": Fault("metadata", 7, 500),
    "NUL in a remark": Fault("metadata", {"a": "\0"}, 508, "metadata.a"),
    "artifact that there is not": Fault("artifacts", ["gone"], 504, "artifacts[0]"),
    "artifacts of another kind": Fault("artifacts", [7], 500, "artifacts[0]"),
    "unknown field": Fault("other", 1, 500),
    "unknown field like one that is said": Fault("perod", 1, 500),
}


def of(*fields: str) -> frozenset[str]:
    return frozenset(name for name, one in FAULTS.items() if one.field in fields)


UNREAD_INPUTS: Final = frozenset(
    {
        "dangling input",
        "input that may be no name",
        "input of another kind",
        "inputs of another kind",
        "cycle",
    }
)
FOLLOWS: Final[Mapping[str, frozenset[str]]] = {
    # What a type has, nobody knows of one that there is not.
    "unknown parameter": of("node_type"),
    "input too many": of("node_type"),
    "hash of other code": of("node_type"),
    "another format": of("node_type"),
    "schema of no version": of("node_type"),
    # What the content of a node is, nobody knows while a part of it is to be said otherwise.
    "id of other content": of("node_type", "interval", "period", "params", "artifacts") | UNREAD_INPUTS,
    # An edge has two intervals only if the node has one.
    "input of another interval": of("interval"),
    # Nobody reads a node that has no name; and a name that is there twice means the first node that has it.
    "cycle": frozenset({"name of another kind", "name that is not said", "name twice"}),
}
"""The faults that are not told beside some others, as they may be gone with these."""

OWN_NAME_IS_NONE: Final = of("name") - {"name twice", "name of another kind", "name that is not said"}
"""With these a node that reads itself has a fault in its input too."""


def wrong(names: Collection[str]) -> list[Node]:
    """A graph with a node that has these faults, the sixth one."""
    node = sma("odd", 5, tags=["sma"])
    for one in (FAULTS[name] for name in names):
        node[one.field] = one.value
    if node["inputs"] == [OWN]:
        own = node["name"]
        node["inputs"] = [own if isinstance(own, str) else "odd"]
    node = {field: value for field, value in node.items() if value is not ABSENT}
    return [*crossing(), node, price("hourly", interval=3600)]


def expected(names: Collection[str]) -> Counter[tuple[str, str]]:
    told = [FAULTS[name] for name in names if FOLLOWS.get(name, frozenset()).isdisjoint(names)]
    found = Counter((f"QMTL-{one.code}", f"nodes[5].{one.path}") for one in told)
    if "cycle" in names and (which := OWN_NAME_IS_NONE.intersection(names)):
        found[("QMTL-508", "nodes[5].inputs[0]")] += len(which)
    if "cycle" in names and not FOLLOWS["cycle"].isdisjoint(names) and "name twice" not in names:
        found[("QMTL-504", "nodes[5].inputs[0]")] += 1  # nobody has the name that it reads
    return found


def told(nodes: Sequence[Node]) -> Counter[tuple[str, str]]:
    with pytest.raises(InvalidDag) as caught:
        admit(json.dumps(strategy(nodes)).encode(), T0)
    assert caught.value.more == 0
    return Counter((one.code, one.path) for one in caught.value.reasons)


def can_meet(names: Collection[str]) -> bool:
    return len({FAULTS[name].field for name in names}) == len(names)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_alone_is_told_alone_and_beside_each_other_one_both_are(name: str) -> None:
    assert told(wrong([name])) == expected([name])
    later = list(FAULTS)[list(FAULTS).index(name) + 1 :]
    for other in later:
        if can_meet((name, other)):
            assert told(wrong((name, other))) == expected((name, other)), other


@given(
    st.lists(st.sampled_from(list(FAULTS)), min_size=3, max_size=8, unique_by=lambda name: FAULTS[name].field)
)
def test_of_many_faults_of_a_node_each_is_told(names: list[str]) -> None:
    assert told(wrong(names)) == expected(names)


def test_what_follows_is_listed_and_no_more() -> None:
    """Each entry says something: alone, the fault that follows is told."""
    for name, others in FOLLOWS.items():
        assert others < FAULTS.keys()
        assert any(can_meet((name, other)) for other in others)
        assert expected([name])


@given(
    st.lists(
        st.lists(
            st.sampled_from(list(FAULTS)), min_size=1, max_size=3, unique_by=lambda name: FAULTS[name].field
        ),
        min_size=2,
        max_size=12,
    )
)
def test_faults_of_several_nodes_are_as_many_as_those_of_each(every: list[list[str]]) -> None:
    """Each has a name of its own, if it has one, so that no two meet."""
    nodes = [*crossing(), price("hourly", interval=3600)]
    count = 0
    for place, names in enumerate(every):
        mine = [name for name in names if name not in ("cycle", "name twice")]
        node = wrong(mine)[5]
        if node.get("name") == "odd":
            node["name"] = f"odd{place}"
        nodes.append(node)
        count += sum(expected(mine).values())
    if not count:
        return
    with pytest.raises(InvalidDag) as caught:
        admit(json.dumps(strategy(nodes)).encode(), T0)
    refused = caught.value
    assert len(refused.reasons) == min(count, MAX_REASONS)
    assert len(refused.reasons) + refused.more == count


@given(
    st.lists(st.sampled_from(list(FAULTS)), min_size=1, max_size=6, unique_by=lambda name: FAULTS[name].field)
)
def test_reasons_are_the_same_however_the_keys_stand(names: list[str]) -> None:
    nodes = wrong(names)
    turned = [dict(reversed(list(one.items()))) for one in nodes]
    assert told(nodes) == told(turned)


# ---- a name that is there twice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].field not in ("name", "inputs")])
def test_a_name_twice_hides_no_fault_of_either_node(name: str) -> None:
    """Whichever of them comes first."""
    one, nodes = FAULTS[name], wrong(["name twice", name])
    assert ("QMTL-507", "nodes[5].name") in told(nodes)
    assert (f"QMTL-{one.code}", f"nodes[5].{one.path}") in told(nodes)
    turned = [nodes[0], nodes[5], *nodes[1:5], nodes[6]]
    assert ("QMTL-507", "nodes[2].name") in told(turned)
    assert (f"QMTL-{one.code}", f"nodes[1].{one.path}") in told(turned)


# ---- a cycle ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].field not in ("name", "inputs")])
def test_a_cycle_through_a_node_is_told_whatever_else_is_wrong_with_it(name: str) -> None:
    nodes = wrong([name])
    nodes[5]["inputs"] = ["back"]
    nodes.append(sma("back", 9, "odd"))
    assert ("QMTL-502", "nodes[5].inputs") in told(nodes)


# ---- parameters ---------------------------------------------------------------------------------------------------------

PARAMETERS: Final[Mapping[str, tuple[Node, str]]] = {
    "share too large": ({"long_percent": 2}, "long_percent of a position_target node was the number 2"),
    "share of another kind": ({"short_percent": "x"}, "short_percent of a position_target node was the text"),
    "share that is not said": ({"short_percent": ABSENT}, "parameter 'short_percent' of a"),
    "unknown": ({"window": 1}, "parameter 'window' of a position_target node is unknown"),
    "another unknown": ({"width": 1}, "parameter 'width' of a position_target node is unknown"),
    "a world": ({"world_id": "w"}, "params had 'world_id'"),
    "a time": ({"as_of": 1}, "params had 'as_of'"),
    "an environment within": ({"inner": [{"env_home": 1}]}, "params had 'env_home'"),
    "a share that holds a world": ({"long_percent": {"world": 1}}, "params had 'world'"),
    "a node set without its version": ({"node_set_version": "n"}, "node_set_version was 'n'"),
    "artifacts": ({"artifacts": []}, "artifacts was there"),
}


@given(st.lists(st.sampled_from(list(PARAMETERS)), min_size=1, max_size=6, unique=True))
def test_of_several_wrong_parameters_each_is_told_once(names: list[str]) -> None:
    changed = [next(iter(PARAMETERS[name][0])) for name in names]
    if len(set(changed)) < len(changed):
        return
    nodes = crossing()
    params = nodes[4]["params"]
    for name in names:
        params |= PARAMETERS[name][0]
    nodes[4]["params"] = {name: value for name, value in params.items() if value is not ABSENT}
    with pytest.raises(InvalidDag) as caught:
        admit(json.dumps(strategy(nodes)).encode(), T0)
    found = [one.was if "params." not in one.path else "artifacts was there" for one in caught.value.reasons]
    assert all(one.path.startswith("nodes[4].params") for one in caught.value.reasons)
    assert len(found) == len(names), found
    for name in names:
        assert any(PARAMETERS[name][1] in one for one in found), found
