"""Contexts: what is incomplete is made safe in one place, nothing becomes live, and no two contexts share a key."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import (
    DOMAIN_OF_MODE,
    ComputeContext,
    Downgrade,
    ExecutionDomain,
    compute_key,
    domain_of,
)
from qmtl.foundation.common.errors import InvalidValue, NodeIdMismatch

A, B = "blake3:" + "a" * 64, "blake3:" + "b" * 64
TRICKY = st.text("a|:\0\x1f ", max_size=4)
DOMAINS = st.none() | st.sampled_from(ExecutionDomain)
CONTEXTS = st.builds(ComputeContext, st.text("wv|:", min_size=1, max_size=3), DOMAINS, TRICKY, TRICKY, TRICKY)
BACKTEST = ComputeContext("w", ExecutionDomain.BACKTEST, "2026-01-01", "p", "blake3:data")


def key(context: ComputeContext, node: str = A) -> str:
    return compute_key(node, context)


# ---- safe mode ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain, as_of, granted, why",
    [
        (None, "", "backtest", Downgrade.DECISION_UNAVAILABLE),
        (None, "c1", "backtest", Downgrade.DECISION_UNAVAILABLE),
        ("backtest", "", "backtest", Downgrade.MISSING_AS_OF),
        ("backtest", " \t", "backtest", Downgrade.MISSING_AS_OF),
        ("backtest", "c1", "backtest", None),
        ("dryrun", "", "backtest", Downgrade.MISSING_AS_OF),
        ("dryrun", "c1", "dryrun", None),
        ("live", "", "live", None),
        ("live", "c1", "live", None),
        ("shadow", "", "shadow", None),
        ("shadow", "c1", "shadow", None),
    ],
)
def test_what_is_incomplete_computes_only_and_what_is_complete_is_as_it_was(
    domain: str | None, as_of: str, granted: str, why: Downgrade | None
) -> None:
    asked = ComputeContext("w", ExecutionDomain(domain) if domain else None, as_of)
    found = asked.evaluate_safe_mode()
    assert (found.execution_domain.value, found.downgrade) == (granted, why)
    assert found.safe_mode == (why is not None)
    assert found.may_reuse == found.may_mark_versions == (why is None)
    assert found.context == (replace(asked, execution_domain=ExecutionDomain.BACKTEST) if why else asked)


@given(CONTEXTS)
def test_nothing_becomes_live_or_looser_by_being_evaluated_however_often(asked: ComputeContext) -> None:
    once = asked.evaluate_safe_mode()
    again = once.context.evaluate_safe_mode()
    assert (once.execution_domain is ExecutionDomain.LIVE) == (asked.execution_domain is ExecutionDomain.LIVE)
    assert again.execution_domain is once.execution_domain
    if once.safe_mode:
        assert once.execution_domain is ExecutionDomain.BACKTEST
        assert (once.may_reuse, once.may_mark_versions) == (False, False)


@pytest.mark.parametrize(
    "mode, domain",
    [
        ("backtest", "backtest"),
        ("validate", "backtest"),
        ("compute-only", "backtest"),
        ("simulate", "dryrun"),
        ("paper", "dryrun"),
        ("dry-run", "dryrun"),
        ("dryrun", "dryrun"),
        ("live", "live"),
        ("shadow", "shadow"),
    ],
)
def test_a_mode_of_any_vocabulary_is_one_domain(mode: str, domain: str) -> None:
    assert domain_of(mode) is ExecutionDomain(domain)
    assert set(DOMAIN_OF_MODE.values()) == set(ExecutionDomain)


@given(st.text(max_size=8) | st.sampled_from(["LIVE", "Live", " live", "prod", "active", ""]))
def test_a_mode_that_nobody_has_defined_ends_in_safe_mode(mode: str) -> None:
    if mode not in DOMAIN_OF_MODE:
        assert ComputeContext("w", domain_of(mode), "c1").evaluate_safe_mode().safe_mode


def test_a_context_is_of_a_world_and_is_never_changed() -> None:
    with pytest.raises(InvalidValue, match="world_id"):
        ComputeContext(" ", ExecutionDomain.LIVE)
    with pytest.raises(FrozenInstanceError):
        BACKTEST.as_of = "other"  # type: ignore[misc]


# ---- keys -----------------------------------------------------------------------------------------------------


def framed(tag: bytes, payload: bytes) -> bytes:
    return tag + len(payload).to_bytes(8, "big") + payload


def test_a_key_is_the_hash_of_its_fields_each_with_its_length() -> None:
    """Oracle: the bytes by hand, and the blake3 package."""
    texts = ["qmtl compute key v1", A, "w", "backtest", "2026-01-01", "p", "blake3:data"]
    data = framed(b"l", b"".join(framed(b"s", text.encode()) for text in texts))
    assert key(BACKTEST) == "blake3:" + blake3(data).hexdigest()


@given(CONTEXTS, CONTEXTS, st.sampled_from([A, B]), st.sampled_from([A, B]))
def test_two_keys_are_equal_exactly_if_node_and_context_are(
    left: ComputeContext, right: ComputeContext, one: str, other: str
) -> None:
    if left.evaluate_safe_mode().may_reuse and right.evaluate_safe_mode().may_reuse:
        assert (key(left, one) == key(right, other)) == ((left, one) == (right, other))


OTHER: dict[str, Any] = {
    "world_id": "v",
    "execution_domain": ExecutionDomain.DRYRUN,
    "as_of": "2026-01-02",
    "partition": "",
    "dataset_fingerprint": "blake3:other",
}


@pytest.mark.parametrize("field", [field.name for field in fields(ComputeContext)])
def test_every_field_of_a_context_parts_caches(field: str) -> None:
    assert key(replace(BACKTEST, **{field: OTHER[field]})) != key(BACKTEST)


def test_a_separator_moves_nothing_from_one_field_into_the_next() -> None:
    """The public project joins with 0x1F."""
    one = ComputeContext("w", ExecutionDomain.LIVE, "a\x1fb", "c")
    other = ComputeContext("w", ExecutionDomain.LIVE, "a", "b\x1fc")
    assert key(one) != key(other)


def test_nothing_that_was_made_safe_has_a_key() -> None:
    with pytest.raises(InvalidValue, match="missing_as_of"):
        key(replace(BACKTEST, as_of=""))
    with pytest.raises(InvalidValue, match="decision_unavailable"):
        key(replace(BACKTEST, execution_domain=None))


def test_only_a_node_has_a_key() -> None:
    with pytest.raises(NodeIdMismatch):
        key(BACKTEST, "a" * 64)
