"""Names of node topics: `{asset}_{node_type}_{short_hash}_{version}`, and never the same name for two nodes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.common.errors import NoCanonicalForm
from qmtl.foundation.common.names import look
from qmtl.foundation.contracts.dag import ComputeNode, TopicClass
from qmtl.services.dagmanager.naming import MAX_NAME, is_namespace, namespace_of, topic_class, topic_name

DIGEST = "0123456789abcdef" * 4

texts = st.text(max_size=300)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)


def a_node(
    digest: str = DIGEST, node_type: str = "sma", tags: tuple[str, ...] = ("crypto", "x")
) -> ComputeNode:
    return ComputeNode(f"blake3:{digest}", node_type, 60, 30, "c", "s", "{}", (), tags)


def nobody(name: str) -> bool:
    return False


def test_a_name_is_asset_type_eight_characters_of_the_digest_and_version() -> None:
    assert topic_name(a_node(), "v1", nobody) == "crypto_sma_01234567_v1"


@given(st.integers(0, 27))
def test_the_short_hash_grows_by_two_for_each_name_that_is_taken(steps: int) -> None:
    taken = {f"crypto_sma_{DIGEST[: 8 + 2 * step]}_v1" for step in range(steps)}
    assert topic_name(a_node(), "v1", taken.__contains__) == f"crypto_sma_{DIGEST[: 8 + 2 * steps]}_v1"


def test_where_every_length_is_taken_the_whole_digest_ends_the_search() -> None:
    assert topic_name(a_node(), "v1", lambda name: True) == f"crypto_sma_{DIGEST}_v1"


@given(hexes, texts, st.lists(texts, max_size=3), texts)
def test_any_name_is_one_that_a_broker_takes_and_that_differs_by_more_than_case(
    digest: str, node_type: str, tags: list[str], version: str
) -> None:
    """Source: Kafka's `org.apache.kafka.common.internals.Topic` (legal characters, 249 at most, `.` and `_` collide)."""
    name = topic_name(a_node(digest, node_type, tuple(tags)), version, nobody)
    assert re.fullmatch(r"[a-z0-9-]+_[a-z0-9-]+_[0-9a-f]{8}_[a-z0-9-]+", name)
    assert len(name) <= MAX_NAME


@given(hexes, hexes, texts)
def test_nodes_that_differ_within_eight_characters_have_different_names(
    one: str, other: str, version: str
) -> None:
    names = {topic_name(a_node(digest), version, nobody) for digest in (one, other)}
    assert len(names) == len({one[:8], other[:8]})


def test_a_colon_of_a_node_id_never_reaches_a_name() -> None:
    assert ":" not in topic_name(a_node(tags=("blake3:x",), node_type="a:b"), "v:1", nobody)


@pytest.mark.parametrize(
    "node_type, expected",
    [
        ("price", TopicClass.RAW),
        ("OHLCV_source", TopicClass.RAW),
        ("raw", TopicClass.RAW),
        ("sma", TopicClass.INDICATOR),
        ("cross", TopicClass.INDICATOR),
        ("order_router", TopicClass.TRADE_EXEC),
        ("portfolio_mean", TopicClass.TRADE_EXEC),
    ],
)
def test_the_class_of_a_topic_follows_from_words_in_the_type(node_type: str, expected: TopicClass) -> None:
    assert topic_class(node_type) is expected


# ---- namespaces ---------------------------------------------------------------------------------------------------------

LIVE = ExecutionDomain.LIVE
domains = st.sampled_from(ExecutionDomain)
worlds = st.text(max_size=300) | st.text("aA0-._", max_size=6)


def test_a_namespace_is_world_and_domain_as_they_are() -> None:
    assert namespace_of("momentum-2", ExecutionDomain.BACKTEST) == "momentum-2.backtest"
    assert namespace_of("w" * 48, LIVE) == "w" * 48 + ".live"


@given(worlds, domains, hexes, texts, st.lists(texts, max_size=2), texts, st.integers(0, 8))
def test_a_topic_in_any_worlds_namespace_is_one_that_a_broker_takes(
    world_id: str,
    domain: ExecutionDomain,
    digest: str,
    node_type: str,
    tags: list[str],
    version: str,
    taken: int,
) -> None:
    """Also where the short hash had to grow, up to 24 characters."""
    left = iter([True] * taken)
    topic = topic_name(a_node(digest, node_type, tuple(tags)), version, lambda name: next(left, False))
    assert is_namespace(namespace_of(world_id, domain))
    name = f"{namespace_of(world_id, domain)}.{topic}"
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*\.[a-z]+\.[a-z0-9_-]+", name)
    assert len(name) <= MAX_NAME


@given(worlds, worlds, domains, domains)
def test_two_worlds_or_domains_never_share_a_namespace_nor_the_look_or_the_beginning_of_one(
    one: str, other: str, domain: ExecutionDomain, elsewhere: ExecutionDomain
) -> None:
    """What brokers take for one, and what an ACL on a prefix would let in."""
    first, second = namespace_of(one, domain), namespace_of(other, elsewhere)
    same = (one, domain) == (other, elsewhere)
    assert (look(first) == look(second)) is same
    assert f"{second}.x".startswith(f"{first}.") is same


@pytest.mark.parametrize(
    "one, other",
    [
        ("w1", "W1"),
        ("a-b", "a_b"),
        ("a-b", "a.b"),
        ("a-b", "a--b"),
        ("a", "a-"),
        ("a", "a.live"),
        ("", "w"),
        ("../x", "x"),
        ("w" * 48, "w" * 49),
        ("\u0430", "a"),
        ("K", "\u212a"),
    ],
)
def test_worlds_that_look_alike_are_kept_apart(one: str, other: str) -> None:
    looks = {look(namespace_of(world_id, LIVE)) for world_id in (one, other)}
    assert len(looks) == 2


def test_a_world_named_as_another_ones_digest_is_a_third_one() -> None:
    made = namespace_of("W1", LIVE).removesuffix(".live")
    assert namespace_of(made, LIVE).removesuffix(".live") != made


def test_what_is_no_text_has_no_namespace() -> None:
    with pytest.raises(NoCanonicalForm):
        namespace_of("\ud800", LIVE)


@pytest.mark.parametrize(
    "text, taken",
    [
        ("staging", True),
        ("Old_2-x", True),
        ("w1.live", True),
        ("", False),
        ("w1.prod", False),
        ("w1.", False),
        (".live", False),
        ("w1.live.x", False),
        ("W1.live", False),
        ("-w.live", False),
        ("w1.live\n", False),
        ("w" * 41, False),
        ("w" * 49 + ".live", False),
    ],
)
def test_a_namespace_is_a_name_or_a_world_and_a_domain(text: str, taken: bool) -> None:
    assert is_namespace(text) is taken
