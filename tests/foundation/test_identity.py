"""Node ids and order ids: the same content has the same id, other content another, whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import canonical_json, parse_canonical_json
from qmtl.foundation.common.errors import InvalidParameter, NoCanonicalForm, NodeIdMismatch
from qmtl.foundation.common.identity import (
    DISPLAY_METADATA,
    REFUSED_PARAMETERS,
    builtin_code_hash,
    client_order_id,
    node_id,
    require_node_id,
    tag_query_params,
)
from tests.foundation.test_canonical import JSON_VALUES

A, B = "blake3:" + "a" * 64, "blake3:" + "b" * 64
FIXED: dict[str, Any] = {
    "node_type": "Sma",
    "interval": 3600,
    "period": 14,
    "params": {"window": 14, "source": "close"},
    "dependencies": (A, B),
    "schema_compat_id": "NodeValue-1",
    "code_hash": builtin_code_hash("sma", 1),
}
NAMES = st.text("abcdefgh_", min_size=1, max_size=6).filter(
    lambda name: name not in DISPLAY_METADATA | REFUSED_PARAMETERS
)
PARAMS = st.dictionaries(NAMES, JSON_VALUES, max_size=4)


def made(**changes: Any) -> str:
    return node_id(**{**FIXED, **changes})


def test_a_node_id_is_a_prefix_and_a_digest() -> None:
    assert require_node_id(made()) == made()


@pytest.mark.parametrize(
    "changes",
    [
        {"node_type": "Ema"},
        {"interval": 60},
        {"period": 15},
        {"params": {"window": 15, "source": "close"}},
        {"params": {}},
        {"params": {"window": True, "source": "close"}},
        {"dependencies": (B, A)},
        {"dependencies": (A,)},
        {"dependencies": (A, A, B)},
        {"schema_compat_id": "NodeValue-2"},
        {"code_hash": builtin_code_hash("sma", 2)},
        {"params": {"window": 14, "source": "close", "seed": 1}},
        {"params": {"window": 14, "source": "close", "domain": "log"}},
        {"params": {"window": 14, "source": "close", "inner": {"name": "kept below the top"}}},
    ],
)
def test_what_changes_the_computation_changes_the_id(changes: dict[str, Any]) -> None:
    assert made(**changes) != made()


@pytest.mark.parametrize("name", sorted(DISPLAY_METADATA))
def test_display_metadata_changes_nothing(name: str) -> None:
    assert made(params={**FIXED["params"], name: object()}) == made()


@given(PARAMS)
def test_the_order_of_parameters_changes_nothing(params: dict[str, Any]) -> None:
    assert made(params=dict(reversed(params.items()))) == made(params=params)


@given(PARAMS)
def test_a_node_rebuilt_from_its_canonical_parameters_has_the_same_id(params: dict[str, Any]) -> None:
    assert made(params=parse_canonical_json(canonical_json(params))) == made(params=params)


@given(PARAMS, PARAMS)
def test_two_nodes_share_an_id_exactly_if_they_share_their_parameters(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    assert (made(params=left) == made(params=right)) == (canonical_json(left) == canonical_json(right))


def test_a_separator_in_a_name_moves_nothing_into_the_next_field() -> None:
    assert made(schema_compat_id="x|y", code_hash="z") != made(schema_compat_id="x", code_hash="y|z")


@pytest.mark.parametrize("name", [*sorted(REFUSED_PARAMETERS), "World_ID"])
def test_a_node_can_not_be_tied_to_a_world_or_a_run(name: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        made(params={name: "x"})


@pytest.mark.parametrize(
    "changes,error",
    [
        ({"node_type": ""}, InvalidParameter),
        ({"code_hash": ""}, InvalidParameter),
        ({"interval": -1}, InvalidParameter),
        ({"interval": True}, InvalidParameter),
        ({"period": 1.5}, InvalidParameter),
        ({"params": {"a": float("nan")}}, NoCanonicalForm),
        ({"params": {"a": {1, 2}}}, NoCanonicalForm),
        ({"dependencies": ("a" * 64,)}, NodeIdMismatch),
    ],
)
def test_what_is_no_node_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        made(**changes)


@pytest.mark.parametrize(
    "text",
    ["", "a" * 64, "blake3:", A[:-1], A + "a", A + "\n", "blake3:" + "A" * 64, "sha256:" + "a" * 64, " " + A],
)
def test_only_the_prefix_and_64_lowercase_hex_digits_are_a_node_id(text: str) -> None:
    with pytest.raises(NodeIdMismatch):
        require_node_id(text)


def test_a_tag_query_is_its_question() -> None:
    assert tag_query_params(["b", "a", "b"], "any", 60) == {
        "query_tags": ["a", "b"],
        "match_mode": "any",
        "interval": 60,
    }
    by_any, by_all = (made(params=tag_query_params(["a"], mode, 60)) for mode in ("any", "all"))
    assert len({by_any, by_all, made(params=tag_query_params(["a"], "any", 61))}) == 3


@pytest.mark.parametrize(
    "tags,mode,interval",
    [([], "any", 60), ([""], "any", 60), ("ab", "any", 60), (["a"], "some", 60), (["a"], "any", 0)],
)
def test_a_tag_query_without_a_question_is_refused(tags: Any, mode: str, interval: int) -> None:
    with pytest.raises(InvalidParameter):
        tag_query_params(tags, mode, interval)


ORDER: dict[str, Any] = {
    "world_id": "w",
    "strategy_id": "s",
    "symbol": "BTCUSDT",
    "side": "BUY",
    "bucket_ms": 1_700_000_000_000,
    "target_percent": Decimal("0.5"),
    "intent_index": 0,
}


def test_an_order_id_is_32_lowercase_hex_digits_and_knows_equal_targets() -> None:
    order_id = client_order_id(**ORDER)
    assert len(order_id) == 32
    assert set(order_id) <= set("0123456789abcdef")
    assert client_order_id(**{**ORDER, "target_percent": Decimal("0.50")}) == order_id


@pytest.mark.parametrize("field", ORDER)
def test_every_field_of_an_intent_counts(field: str) -> None:
    other = ORDER[field] + ("x" if isinstance(ORDER[field], str) else 1)
    assert client_order_id(**{**ORDER, field: other}) != client_order_id(**ORDER)


@given(st.tuples(*[st.text("a|:\0", max_size=3)] * 4), st.tuples(*[st.text("a|:\0", max_size=3)] * 4))
def test_no_two_intents_share_an_order_id(left: tuple[str, ...], right: tuple[str, ...]) -> None:
    names = ("world_id", "strategy_id", "symbol", "side")
    ids = [client_order_id(**{**ORDER, **dict(zip(names, texts, strict=True))}) for texts in (left, right)]
    assert (ids[0] == ids[1]) == (left == right)


def test_another_process_with_another_hash_seed_computes_the_same_ids() -> None:
    program = (
        "from decimal import Decimal; from tests.foundation.test_identity import ORDER, made;"
        "from qmtl.foundation.common.identity import client_order_id; print(made(), client_order_id(**ORDER))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] == [made(), client_order_id(**ORDER)]


def test_the_ids_of_today_are_the_ids_of_tomorrow() -> None:
    """Recorded once: a change here orphans every node and every open order of a running system."""
    assert made() == "blake3:fd938530570caa8ac88f56424927a68e07fb67b2dd61a6191511756978e85ff1"
    assert client_order_id(**ORDER) == "0a0765618950f24a77769d26611614cd"
