"""Node ids and order ids: the same content has the same id, other content another, whoever asks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import canonical_json, parse_canonical_json
from qmtl.foundation.common.errors import (
    InvalidParameter,
    InvariantBroken,
    NoCanonicalForm,
    NodeIdMismatch,
)
from qmtl.foundation.common.identity import (
    DISPLAY_METADATA,
    NODE_SET,
    REFUSED_PARAMETERS,
    builtin_code_hash,
    client_order_id,
    content_id,
    node_id,
    own_params,
    require_node_id,
    schema_compat_id,
    settle,
    source_params,
    tag_query_params,
    with_node_set,
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


def keys_within(value: Any) -> set[str]:
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    own = {name.lower() for name in value} if isinstance(value, dict) else set()
    return own.union(*map(keys_within, inside))


PARAMS = st.dictionaries(NAMES, JSON_VALUES, max_size=4).filter(
    lambda params: (
        not any(name in REFUSED_PARAMETERS or name.startswith("env_") for name in keys_within(params))
    )
)
"""Hypothesis tries the constants of the code that it tests, so a text that is made up can be the name of a refused parameter."""


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


CONTENTS = st.fixed_dictionaries(
    {
        "node_type": st.sampled_from(["a", "ab", "a|b"]),
        "interval": st.integers(0, 2),
        "period": st.integers(0, 2),
        "params": st.dictionaries(
            st.sampled_from(["w", "x|y", "label", "tags"]), st.integers(0, 1), max_size=3
        ),
        "dependencies": st.lists(st.sampled_from([A, B]), max_size=2).map(tuple),
        "schema_compat_id": st.sampled_from(["b", "x|y", "y"]),
        "code_hash": st.sampled_from(["c", "z", "y|z"]),
    }
)


@given(CONTENTS, CONTENTS)
def test_two_nodes_share_an_id_exactly_if_they_are_alike_in_all_that_is_not_only_shown(
    left: dict[str, Any], right: dict[str, Any]
) -> None:
    def shown(one: dict[str, Any]) -> dict[str, Any]:
        return {
            **one,
            "params": {name: one["params"][name] for name in one["params"] if name in ("w", "x|y")},
        }

    assert (made(**left) == made(**right)) == (shown(left) == shown(right))
    assert made(**dict(reversed(left.items()))) == made(**left)


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
    [
        "",
        "a" * 64,
        "blake3:",
        A[:-1],
        A + "a",
        A + "a" * 63,
        A + "a" * 65,
        A + "\n",
        "blake3:" + "A" * 64,
        "sha256:" + "a" * 64,
        " " + A,
    ],
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
    [
        ([], "any", 60),
        ([""], "any", 60),
        ("ab", "any", 60),
        ([1, "a"], "any", 60),
        ([None], "any", 60),
        (["a|b"], "any", 60),
        (["a", " b"], "any", 60),
        (["\u0430"], "any", 60),
        (["a" * 101], "any", 60),
        (["a"], "some", 60),
        (["a"], "ANY", 60),
        (["a"], "any", 0),
        (["a"], "any", 60.0),
        (["a"], "any", True),
    ],
)
def test_a_tag_query_without_a_question_is_refused(tags: Any, mode: str, interval: int) -> None:
    with pytest.raises(InvalidParameter):
        tag_query_params(tags, mode, interval)


@given(st.lists(st.sampled_from(["a", "b", "c.d", "E-1"]), min_size=1), st.randoms(use_true_random=False))
def test_a_tag_query_knows_no_order_and_no_repetition_of_its_tags(
    tags: list[str], rng: random.Random
) -> None:
    other = [*tags, rng.choice(tags)]
    rng.shuffle(other)
    spec = tag_query_params(tags, "all", 60)
    assert tag_query_params(iter(other), "all", 60) == spec
    assert made(params=dict(reversed(spec.items()))) == made(params=spec)


# ---- node sets ---------------------------------------------------------------------------------------------------


def test_another_version_of_a_node_set_is_a_boundary_of_reuse() -> None:
    params = FIXED["params"]
    ids = [
        made(),
        made(params=with_node_set(params, "ccxt_spot", "1.4.0")),
        made(params=with_node_set(params, "ccxt_spot", "1.5.0")),
        made(params=with_node_set(params, "ccxt_swap", "1.5.0")),
    ]
    assert len(set(ids)) == 4
    assert made(params=with_node_set(params, "ccxt_spot", "1.4.0")) == ids[1]
    assert own_params(with_node_set(params, "ccxt_spot", "1.4.0")) == params


@pytest.mark.parametrize("value", ["", "spot", "spot@", "@1", "a@b@c", "a@1|2", "\u0430@1", 1, None, ["a@1"]])
def test_a_node_set_is_a_name_and_a_version(value: Any) -> None:
    with pytest.raises(InvalidParameter, match=NODE_SET):
        made(params={NODE_SET: value})


def test_a_node_is_made_by_one_node_set() -> None:
    params = with_node_set({}, "spot", "1")
    assert with_node_set(params, "spot", "1") == params
    with pytest.raises(InvalidParameter, match="one node set"):
        with_node_set(params, "spot", "2")


# ---- what a source reads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reads, tags, preset",
    [({}, "ab", ""), ({}, ["a|b"], ""), ({}, [1], ""), ({}, [], "a b"), ({"source_tags": ["a"]}, ["b"], "")],
)
def test_a_source_that_chooses_by_no_name_is_refused(reads: dict[str, Any], tags: Any, preset: str) -> None:
    with pytest.raises(InvalidParameter):
        source_params(reads, tags, preset)


def test_a_source_without_tags_and_preset_is_what_it_reads() -> None:
    assert source_params({"symbols": ["x"]}) == {"symbols": ["x"]}


# ---- message formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, number", [("", 1), ("a|b", 1), ("Value", 0), ("Value", True), ("Value", 1.0)])
def test_a_compatibility_id_is_a_name_and_a_count(name: str, number: Any) -> None:
    with pytest.raises(InvalidParameter):
        schema_compat_id(name, number)


# ---- collisions --------------------------------------------------------------------------------------------------


def test_the_first_id_is_the_plain_hash_and_the_others_are_extended_output_in_a_domain_of_their_own() -> None:
    """Oracle: the blake3 package, over bytes framed by hand."""
    framed = [block(b"b", b"content"), block(b"n", b"2e0")]
    data = block(b"l", b"".join(framed))
    context = "qmtl node id after a collision v1"
    assert content_id(b"content") == "blake3:" + blake3(b"content").hexdigest()
    assert content_id(b"content", 2) == "blake3:" + blake3(data, derive_key_context=context).hexdigest(
        length=64
    )


def block(tag: bytes, payload: bytes) -> bytes:
    return tag + len(payload).to_bytes(8, "big") + payload


@given(st.binary(max_size=4), st.binary(max_size=4), st.integers(0, 4), st.integers(0, 4))
def test_no_content_has_the_id_of_another_after_however_many_collisions(
    left: bytes, right: bytes, one: int, other: int
) -> None:
    assert (content_id(left, one) == content_id(right, other)) == ((left, one) == (right, other))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12))
def test_ids_settle_one_to_one_with_contents_whatever_collides_and_again_on_replay(
    arrivals: list[tuple[int, int]],
) -> None:
    """Contents arrive in any order and again; before some of them a stranger has taken ids of theirs."""

    def run() -> tuple[list[str], dict[str, bytes]]:
        held: dict[str, bytes] = {}
        out = []
        for number, strangers in arrivals:
            content = b"content %d" % number
            if content not in held.values():
                for at in range(strangers):
                    held.setdefault(content_id(content, at), b"a stranger")
            settled = settle(content, held.get)
            assert all(held[one] != content for one in settled.collided)
            held[settled.node_id] = content
            out.append(settled.node_id)
        return out, held

    out, held = run()
    numbers = [number for number, _ in arrivals]
    assert len(set(zip(out, numbers, strict=True))) == len(set(out)) == len(set(numbers))
    assert run() == (out, held)


def test_a_content_whose_every_id_is_taken_stops_the_task() -> None:
    with pytest.raises(InvariantBroken, match="held by others"):
        settle(b"content", lambda node_id: b"a stranger")


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
