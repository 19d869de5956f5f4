"""Names of node topics: `{asset}_{node_type}_{short_hash}_{version}`, and never the same name for two nodes."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.common.errors import NoCanonicalForm
from qmtl.foundation.common.names import look
from qmtl.foundation.contracts.dag import ComputeNode, TopicClass
from qmtl.services.dagmanager.naming import (
    MAX_NAME,
    asset_of,
    is_namespace,
    namespace_of,
    topic_class,
    topic_name,
)

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


# ---- the asset ------------------------------------------------------------------------------------------------------------


def a_source(name: str, symbols: list[str]) -> ComputeNode:
    return ComputeNode(name, "price", 60, 1, "c", "s", json.dumps({"symbols": symbols}), ())


def reading(name: str, *inputs: str) -> ComputeNode:
    return ComputeNode(name, "sma", 60, 1, "c", "s", "{}", inputs)


symbols = st.sampled_from(["BTC-USD", "btc", "ETH/USD", "a_b", "", "--", "\u2713", "z" * 80])
graphs = st.lists(
    st.lists(symbols, max_size=2) | st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=9
)


@given(graphs)
def test_the_asset_of_a_node_is_the_first_symbol_of_all_sources_above_it(
    drawn: list[list[str] | tuple[int, ...]],
) -> None:
    nodes: dict[str, ComputeNode] = {}
    above: dict[str, set[str]] = {}
    for place, one in enumerate(drawn):
        name = str(place)
        if isinstance(one, list):
            nodes[name], above[name] = a_source(name, one), set(one)
        else:
            inputs = [str(other % place) for other in one if place]
            nodes[name] = reading(name, *inputs)
            above[name] = {symbol for other in inputs for symbol in above[other]}
    known: dict[str, str] = {}
    for name, node in reversed(nodes.items()):
        folded = {re.sub("[^a-z0-9-]+", "-", one.lower()).strip("-") for one in above[name]}
        wanted = min(folded - {""}, default="")
        assert asset_of(node, nodes.get) == asset_of(node, nodes.get, known) == wanted


def test_each_node_above_is_looked_at_once_however_deep_the_graph_is() -> None:
    nodes = {"0": a_source("0", ["ETH", "BTC"])}
    for place in range(1, 3000):
        nodes[str(place)] = reading(str(place), str(place - 1), str(max(0, place - 2)), str(place - 1))
    asked: list[str] = []

    def held(name: str) -> ComputeNode | None:
        asked.append(name)
        return nodes.get(name)

    assert asset_of(nodes["2999"], held) == "btc"
    assert len(asked) <= 2 * len(nodes)


def test_what_no_source_is_above_has_its_first_tag_in_its_name() -> None:
    node = a_node(tags=("average", "btc"))
    assert asset_of(node, dict[str, ComputeNode]().get) == ""
    assert topic_name(node, "v1", nobody, "") == "average_sma_01234567_v1"
    assert topic_name(node, "v1", nobody, "btc-usd") == "btc-usd_sma_01234567_v1"
    assert len(topic_name(node, "v1", nobody, "z" * 300).split("_")[0]) == 60


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
