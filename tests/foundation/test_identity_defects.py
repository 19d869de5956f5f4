"""Defects of identity that a public implementation of the same seeds has, each held to be absent here.

There an id was BLAKE3 over fields joined with `|`, numbers as the JSON library prints them, and the hash of a function's source text.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from qmtl.foundation.common.code_identity import function_hash
from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain, compute_key
from qmtl.foundation.common.errors import InvalidParameter, NodeIdMismatch
from qmtl.foundation.common.identity import (
    builtin_code_hash,
    content_id,
    node_content,
    node_id,
    require_node_id,
    schema_compat_id,
    schema_hash,
    settle,
    source_params,
)
from qmtl.foundation.wire.compat import major
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import content_of
from tests.services.graphs import T0, crossing, price, strategy, text

A, B = "blake3:" + "a" * 64, "blake3:" + "b" * 64


def made(params: Any = None, dependencies: tuple[str, ...] = (), **more: Any) -> str:
    fields: dict[str, Any] = {
        "node_type": "Stream",
        "interval": 60,
        "period": 1,
        "schema_compat_id": "Value.v1",
        "code_hash": builtin_code_hash("stream", 1),
    }
    return node_id(**{**fields, **more}, params=params or {}, dependencies=dependencies)


def test_one_and_one_point_zero_are_one_number() -> None:
    assert len({made({"a": one}) for one in (1, 1.0, Decimal("1.00"))}) == 1


def test_three_tenths_are_three_tenths_and_a_rounding_error_is_not() -> None:
    assert made({"a": 0.3}) == made({"a": Decimal("0.30")})
    assert made({"a": 0.1 + 0.2}) != made({"a": 0.3})


def test_a_separator_in_a_field_moves_nothing_into_the_next() -> None:
    assert made(schema_compat_id="x|y", code_hash="z") != made(schema_compat_id="x", code_hash="y|z")
    assert made({"a": "x,y"}) != made({"a": ["x", "y"]})


@pytest.mark.parametrize("name", ["seed", "random_state", "domain", "domains", "partition"])
def test_a_parameter_that_changes_what_is_computed_is_not_passed_over_for_its_name(name: str) -> None:
    assert len({made(), made({name: 1}), made({name: 2}), made({"inner": {name: 1}})}) == 4


@pytest.mark.parametrize("name", ["world", "World_Id", "execution_domain", "as_of", "env_home", "timestamp"])
def test_a_parameter_of_a_world_or_a_machine_is_refused_and_not_passed_over_in_silence(name: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        made({name: 1})


@pytest.mark.parametrize(
    "name",
    [
        "world_id",
        "execution_domain",
        "as_of",
        "dataset_fingerprint",
        "timestamp",
        "TimeStamp",
        "env",
        "ENV_HOME",
    ],
)
def test_no_world_time_or_machine_hides_deep_in_a_parameter(name: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        made({"a": [{"b": ({name: 1},)}]})


def test_sources_that_choose_by_other_tags_or_presets_are_other_nodes() -> None:
    chosen = [
        source_params({}),
        source_params({}, ["btc"]),
        source_params({}, ["btc", "spot"]),
        source_params({}, ["btc"], "1m"),
        source_params({}, (), "1m"),
        source_params({"symbols": ["btc"]}),
    ]
    assert len({made(params) for params in chosen}) == len(chosen)
    assert made(source_params({}, ["spot", "btc", "btc"])) == made(source_params({}, ["btc", "spot"]))


def test_inputs_at_swapped_ports_are_another_node() -> None:
    assert made(dependencies=(A, B)) != made(dependencies=(B, A))


def scaled(factor: float) -> Callable[[float], float]:
    def compute(x: float) -> float:
        return x * factor

    return compute


def test_closures_over_other_constants_are_other_nodes() -> None:
    assert function_hash(scaled(2.0)) != function_hash(scaled(3.0))
    assert function_hash(scaled(2.0)) == function_hash(scaled(2.0))


def test_a_lambda_beside_another_on_its_line_is_its_own_code() -> None:
    """Source text is a line's, and both stand on it."""
    one, other = (lambda x: x + 1), (lambda x: x + 2)  # fmt: skip
    assert function_hash(one) != function_hash(other)


def test_what_is_hashed_is_what_is_kept_defaults_included() -> None:
    said = [{"period": 1, "inputs": [], "params": {}, **one} for one in crossing()]
    graphs = [admit(text(strategy(nodes)), T0) for nodes in (crossing(), said)]
    assert graphs[0].nodes == graphs[1].nodes
    assert all(one.node.node_id == content_id(content_of(one.node)) for one in graphs[0].nodes)


def test_no_parameters_and_an_empty_set_of_them_are_one_message() -> None:
    without = {name: value for name, value in crossing()[1].items() if name != "params"}
    nodes = [[price(), one, *crossing()[2:]] for one in (without, {**without, "params": {}})]
    assert len({admit(text(strategy(found)), T0).commit_hash for found in nodes}) == 1


def test_the_second_submission_of_a_node_is_reuse_and_no_collision() -> None:
    content = node_content("Stream", 60, 1, {}, (), "Value.v1", "c")
    held = {content_id(content): content}
    assert settle(content, held.get).collided == ()


def test_an_id_without_its_prefix_is_none() -> None:
    with pytest.raises(NodeIdMismatch):
        require_node_id("a" * 64)


OLD: dict[str, Any] = {"type": "record", "name": "Value", "fields": [{"name": "at_ms", "type": "long"}]}
WIDER = {**OLD, "fields": [*OLD["fields"], {"name": "note", "type": "string", "default": ""}]}
NEEDY = {**OLD, "fields": [*OLD["fields"], {"name": "note", "type": "string"}]}
BROKEN = {**OLD, "fields": [{"name": "at_ms", "type": "string"}]}


def test_a_compatible_change_of_a_schema_keeps_the_id_and_another_does_not() -> None:
    """There a missing compatibility id fell back to the hash of the schema's bytes."""
    ids = [
        schema_compat_id("Value", major(versions)) for versions in ([OLD], [OLD, WIDER], [OLD, WIDER, BROKEN])
    ]
    assert ids == ["Value.v1", "Value.v1", "Value.v2"]
    assert len({made(schema_compat_id=one) for one in ids}) == 2
    assert len({schema_hash(one) for one in (OLD, WIDER, BROKEN)}) == 3


@pytest.mark.parametrize("versions", [[OLD, NEEDY], [NEEDY, OLD]])
def test_a_field_that_must_be_there_breaks_a_format_by_its_coming_and_by_its_going(
    versions: list[Any],
) -> None:
    """What is new has to read the old values of a topic, and what is old the new ones."""
    assert major(versions) == 2
    assert major([*versions, versions[-1]]) == 2
    assert major(versions[:1]) == 1


def test_a_cache_of_other_data_has_another_key() -> None:
    """There the dataset's fingerprint was accepted and was no part of the key."""
    keys = {
        compute_key(A, ComputeContext("w", ExecutionDomain.BACKTEST, "2026", dataset_fingerprint=data))
        for data in ("", "one", "other")
    }
    assert len(keys) == 3
