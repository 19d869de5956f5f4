"""What a DAG message may be: bounded before it is parsed, and exact when it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import DagTooLarge, InvalidDag, InvalidParameter
from qmtl.services.dagmanager.message import parse_message
from qmtl.services.dagmanager.raw import MAX_BYTES, MAX_DEPTH
from tests.services.graphs import crossing, price, strategy, text

GOOD = text(strategy(crossing()))


def with_params(params: str) -> bytes:
    return GOOD.replace(b'{"symbols": ["BTC-USD", "ETH-USD"]}', params.encode())


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_bytes_end_in_anything_but_a_message_or_a_coded_refusal(data: bytes) -> None:
    with pytest.raises(InvalidDag):
        parse_message(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(["schema_version", "strategy_id", "meta", "nodes", "signals", "extra"]), json_values)
def test_a_field_of_any_kind_is_taken_or_refused_with_its_name(field: str, value: Any) -> None:
    message = {**strategy(crossing()), field: value}
    refused = refusal(json.dumps(message).encode())
    assert refused is None or field in str(refused) or isinstance(refused, InvalidParameter)


def refusal(data: bytes) -> InvalidDag | None:
    try:
        parse_message(data)
    except InvalidDag as refused:
        return refused
    return None


def test_one_byte_over_the_limit_is_refused_and_the_limit_is_not() -> None:
    assert parse_message(GOOD.ljust(MAX_BYTES)).strategy_id == "s1"
    with pytest.raises(DagTooLarge, match=str(MAX_BYTES + 1)):
        parse_message(GOOD.ljust(MAX_BYTES + 1))


def test_one_level_over_the_limit_is_refused_and_the_limit_is_not() -> None:
    outside = 4  # the message, its nodes, a node, its params
    room = MAX_DEPTH - outside
    deepest = parse_message(with_params('{"symbols": ' + "[" * room + "]" * room + "}"))
    assert len(deepest.nodes) == 5
    with pytest.raises(DagTooLarge, match=str(MAX_DEPTH)):
        parse_message(with_params('{"symbols": ' + "[" * (room + 1) + "]" * (room + 1) + "}"))


def test_brackets_inside_texts_are_no_levels() -> None:
    message = strategy([price(metadata={"remark": '[{"' * 50 + "\\"})])
    message["signals"] = ["price"]
    assert parse_message(text(message)).nodes[0].metadata["remark"].startswith("[{")


def test_ten_thousand_and_one_nodes_are_refused() -> None:
    tiny = [{"name": f"n{at}", "node_type": "x", "interval": 1} for at in range(10_001)]
    with pytest.raises(DagTooLarge, match="10000"):
        parse_message(json.dumps(strategy(tiny), separators=(",", ":")).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused_wherever_it_stands(number: str) -> None:
    with pytest.raises(InvalidParameter, match=number):
        parse_message(with_params(f'{{"symbols": [[{{"deep": {number}}}]]}}'))


@pytest.mark.parametrize(
    "interval, seconds", [(60, 60), ("60s", 60), ("1m", 60), ("1h", 3600), ("1d", 86_400)]
)
def test_an_interval_is_seconds_however_it_is_written(interval: object, seconds: int) -> None:
    message = strategy([price(interval=interval)], signals=["price"])
    assert parse_message(text(message)).nodes[0].interval == seconds


@pytest.mark.parametrize("interval", [0, -60, 86_401, 60.0, True, "1w", "m", "", "-1m", "1.5h", None, "١m"])
def test_what_is_no_interval_is_refused(interval: object) -> None:
    with pytest.raises(InvalidDag, match="interval"):
        parse_message(text(strategy([price(interval=interval)], signals=["price"])))


@pytest.mark.parametrize("key", ["strategy_id", "nodes", "long_percent"])
def test_a_key_twice_in_one_object_is_refused_at_any_depth(key: str) -> None:
    doubled = GOOD.replace(f'"{key}":'.encode(), f'"{key}": 1, "{key}":'.encode(), 1)
    with pytest.raises(InvalidDag, match=f"{key}.*twice"):
        parse_message(doubled)
