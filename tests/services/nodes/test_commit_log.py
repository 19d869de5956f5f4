"""The commit log of nodes: under which key each value lies, and that one which is there twice is used once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.port import TopicPartition, partitions_of
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.commit_log import parse_commit_key
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.wire.keys import encode_key, is_reserved, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS, node_topic
from qmtl.replay.feed import last_closed
from tests.services.graphs import T0, cross, price, sma, strategy, target
from tests.services.nodes.floor import STEP_MS, Floor, StammeringLog, bars_of

MINUTE = STEP_MS
BTC = ("BTC-USD",)
BOTH = ("BTC-USD", "ETH-USD")


@pytest.fixture
def floor() -> Iterator[Floor]:
    with TemporaryDirectory() as name:
        made = Floor(Path(name))
        yield made
        made.close()


def joined_of(fast: int, slow: int, one: tuple[str, ...], two: tuple[str, ...]) -> dict[str, Any]:
    """A strategy whose averages come from two sources, which live on different shards."""
    nodes = [price("one", one), price("two", two), sma("fast", fast, "one"), sma("slow", slow, "two")]
    return strategy([*nodes, cross(), target()])


def mean_of(period: int, symbols: tuple[str, ...]) -> dict[str, Any]:
    """A strategy of one average."""
    return strategy([price(symbols=symbols), sma("mean", period), target(source="mean")])


def test_each_value_lies_under_the_key_of_its_node_bucket_and_window(floor: Floor) -> None:
    """Both symbols have the same closes, twice over: only what a value is a function of, and when, makes its key."""
    deployed = floor.deploy(mean_of(3, BOTH))
    closes = [100.0, 101.0, 102.0] * 3
    floor.feed(deployed, dict.fromkeys(BOTH, closes))
    floor.work()
    for node in deployed.nodes[1:]:
        found = [
            one
            for one in read_all(floor.log, all_partitions(floor.log, node.topic))
            if not is_reserved(one.key) and one.value is not None
        ]
        keys = [parse_commit_key(one.key) for one in found]
        assert len(set(keys)) == len(keys) == 14
        values = [codec.decode(one.value) for one in found if one.value is not None]
        assert [(key.node_id, key.interval, key.bucket_ts * 1000, key.input_window_hash) for key in keys] == [
            (node.node_id, 60, one.bucket_ms, one.input_window_hash) for one in values
        ]
        windows: dict[str, set[str]] = {}
        for one in values:
            windows.setdefault(one.symbol, set()).add(one.input_window_hash)
        # Three windows of three closes come again and again; a target sees its mean, always 101, and each of three closes.
        assert [len(one) for one in windows.values()] == [3, 3]
        assert not set.intersection(*windows.values())


def test_a_bar_that_closes_within_a_second_is_a_dead_letter_as_no_key_names_its_bucket(floor: Floor) -> None:
    deployed = floor.deploy(mean_of(1, BTC))
    source = deployed.nodes[0]
    raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
    (bar,) = bars_of({"BTC-USD": [100.0]}, T0 + 500)
    closed_ms = T0 + MINUTE + 500
    writer = floor.log.writer("test")
    writer.begin()
    for where in (*partitions_of(raw.name, raw.partitions), TopicPartition("clock", 0)):
        cut = CutDigest()
        if where == (raw.name, raw.partition_of(bar)):
            key, value = encode_key(raw.key_of(bar)), codec.encode(bar)
            writer.append(*where, key, value)
            cut.add(key, value)
        marker = CloseMarker("test", 0, 1, closed_ms, cut.count, cut.hexdigest(), 1)
        writer.append(*where, marker_key("test", 0, closed_ms), codec.encode(marker))
    writer.commit({}, "test", None)
    writer.close()
    floor.work()
    (letter,) = floor.events("dead.letters")
    assert (letter.code, letter.topic) == ("QMTL-701", raw.name)
    assert "within a second" in letter.cause
    assert floor.outputs(deployed, "mean") == []
    for where in all_partitions(floor.log, "trade.intents"):
        assert last_closed(floor.log, where) == closed_ms


# ---- twice ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again, code",
    [
        (lambda said: said, "QMTL-409"),
        (lambda said: replace(said, value=said.value + 1000), "QMTL-409"),  # the first one counts
        (lambda said: replace(said, bucket_ms=said.bucket_ms - MINUTE, value=0.5), "QMTL-404"),
    ],
)
def test_a_value_of_another_shard_that_is_there_twice_is_used_once(
    again: Callable[[NodeValue], NodeValue], code: str
) -> None:
    said = []
    for twice in (False, True):
        with TemporaryDirectory() as name:
            floor = Floor(Path(name), 7, StammeringLog)
            assert isinstance(floor.log, StammeringLog)
            far = floor.deploy(joined_of(1, 3, BTC, BOTH))
            homes = shards_of(far.nodes, SHARDS)
            foreign, near = sorted(far.nodes[2:4], key=lambda one: homes[one.node_id])
            assert homes[foreign.node_id] < homes[near.node_id]
            floor.log.says_twice, floor.log.again = foreign.topic if twice else "", again
            for number in (0, 1):
                closes = [100.0 + (at * 37 % 23) for at in range(20)]
                floor.feed(replace(far, nodes=far.nodes[number:]), {"BTC-USD": closes})
            floor.work()
            said.append([floor.outputs(far, "target"), floor.events("trade.intents")])
            letters = floor.events("dead.letters")
            values = floor.outputs(far, foreign.name)
            assert len(values) == len(letters) * 2 if twice else len(letters) == 0 < len(values)
            assert {(one.topic, one.code) for one in letters} == ({(foreign.topic, code)} if twice else set())
            floor.close()
    assert len(said[0][0]) > 3
    assert said[0] == said[1]


def test_values_of_old_that_name_no_window_are_all_used(tmp_path: Path) -> None:
    """They can't be told from one another but by their symbols; the last of a symbol counts, as ever."""
    floor = Floor(tmp_path, log=StammeringLog)
    assert isinstance(floor.log, StammeringLog)
    far = floor.deploy(joined_of(1, 1, BOTH, (*BOTH, "LTC-USD")))
    homes = shards_of(far.nodes, SHARDS)
    foreign = min(far.nodes[2:4], key=lambda one: homes[one.node_id])
    assert homes[foreign.node_id] < homes[far.nodes[-1].node_id]
    floor.log.says_twice = foreign.topic
    floor.log.again = lambda said: replace(said, value=said.value + 1, interval=0, input_window_hash="")
    for number in (0, 1):
        floor.feed(replace(far, nodes=far.nodes[number:]), {symbol: [100.0, 101.0, 102.0] for symbol in BOTH})
    floor.work()
    above = 1 if foreign.name == "fast" else -1
    assert [(one.symbol, one.value) for one in floor.outputs(far, "cross")] == [(one, above) for one in BOTH]
    assert floor.events("dead.letters") == []
    floor.close()
