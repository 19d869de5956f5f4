"""Tag queries on the node workers: who answers comes and goes, and each bucket is answered once by those that answer then."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.dag import (
    PlannedNode,
    RetireStrategy,
    StrategyStatus,
    StrategyVersion,
)
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import nodes_of, shards_of
from qmtl.foundation.wire.topics import SHARDS
from qmtl.replay.rerun import rerun
from qmtl.services.nodes.plan import make_plan
from qmtl.services.nodes.processor import Nodes
from tests.services.graphs import T0, price, sma, strategy, tag_query, target
from tests.services.nodes.floor import STEP_MS, Floor, LateLog
from tests.services.nodes.test_plan import graphs, planned

NEAR, FAR = ("BTC-USD",), ("ETH-USD", "BTC-USD")
"""Symbols of two sources, of which each lives on a shard of its own, and both below the highest."""


# ---- the plan -----------------------------------------------------------------------------------------------------------


def closed(node_ids: list[str], nodes: dict[str, PlannedNode]) -> tuple[PlannedNode, ...]:
    """Nodes with all that they are computed from, inputs first."""
    out: dict[str, PlannedNode] = {}

    def add(node_id: str) -> None:
        for read in nodes[node_id].dependencies:
            add(read)
        out.setdefault(node_id, nodes[node_id])

    for node_id in node_ids:
        add(node_id)
    return tuple(out.values())


@st.composite
def asking(draw: st.DrawFn) -> tuple[list[StrategyVersion], StrategyVersion]:
    """Strategies, and one in a world of its own whose tag query some of their nodes answer, and one of its own."""
    others: list[StrategyVersion] = draw(graphs())
    nodes = {node.node_id: node for one in others for node in one.nodes}
    source = planned(f"blake3:{0:056x}000000fe", ())
    own = planned(f"blake3:{1:056x}000000fe", (source.node_id,))
    found = draw(st.lists(st.sampled_from(list(nodes)), unique=True))
    answers = draw(st.permutations([*found, own.node_id]))
    query = replace(
        planned(f"blake3:{2:056x}000000fe", ()),
        node_type="tag_query",
        params_canon='{"aggregate":"sum","interval":60,"match_mode":"any","query_tags":["a"]}',
        dependencies=tuple(answers),
    )
    reader = planned(f"blake3:{3:056x}000000fe", (query.node_id,))
    mine = StrategyVersion(
        "w2",
        draw(st.sampled_from(["a", "z"])),
        "v",
        "v",
        "s",
        StrategyStatus.READY,
        (source, own, query, reader),
        (reader.node_id,),
        found=closed(found, nodes),
    )
    return others, mine


@settings(deadline=None, max_examples=40)
@given(asking(), st.integers(1, 5), st.booleans())
def test_a_tag_query_lives_on_the_highest_shard_with_all_that_it_reads(
    case: tuple[list[StrategyVersion], StrategyVersion], shards: int, alone: bool
) -> None:
    """Also alone: what answers goes on for its sake when nobody else has it any more."""
    others, mine = case
    deployed = [mine] if alone else [*others, mine]
    plans = [make_plan(deployed, shard, shards) for shard in range(shards)]
    homes = [(one.node.node_id, shard) for shard, plan in enumerate(plans) for one in plan.nodes if one.here]
    everything = {node.node_id for one in deployed for node in nodes_of(one)}
    assert sorted(node_id for node_id, _ in homes) == sorted(everything)
    assert dict(homes).items() >= shards_of(nodes_of(mine), shards).items()
    *_, query, reader = mine.nodes
    assert dict(homes)[query.node_id] == dict(homes)[reader.node_id] == shards - 1
    assert all(
        {signal.world_id for signal in one.signals} == {"w2"} for one in plans[-1].nodes if one.signals
    )
    for shard, plan in enumerate(plans):
        present = [one.node.node_id for one in plan.nodes]
        for one in plan.nodes:
            if one.here:
                before = present[: present.index(one.node.node_id)]
                assert {*one.node.dependencies, *one.sources} - {one.node.node_id} <= set(before)
            else:
                assert one.is_source or dict(homes)[one.node.node_id] < shard
            has = {row.world_id for row in deployed if one.node.node_id in {n.node_id for n in row.nodes}}
            assert one.worlds == tuple(sorted(has))  # who only asks gets no bars of others


# ---- who comes and goes -------------------------------------------------------------------------------------------------


def tagged(name: str, period: int, symbols: tuple[str, ...], tags: list[str], version: str) -> dict[str, Any]:
    nodes = [price(symbols=symbols), sma("mean", period, tags=tags), target(source="mean")]
    return strategy(nodes, name, version=version)


def asks(version: str = "v1", share: float = 0.4) -> dict[str, Any]:
    """A strategy with a tagged node of its own, which is silent for long."""
    nodes = [
        tag_query(tags=("alpha", "beta"), own_tags=["alpha"]),
        price(symbols=NEAR),
        sma("own", 7, tags=["beta"]),
        target(source="asked", share=share),
    ]
    return strategy(nodes, "asks", version=version)


class Desk:
    """A floor on which strategies come and go, and what answers the query in each minute."""

    def __init__(self, floor: Floor, kills: bool) -> None:
        self.floor, self.kills = floor, kills
        self.minutes = 0
        self.asking = floor.deploy(asks())
        self.there: dict[str, StrategyVersion] = {"asks": self.asking}
        self.sources: dict[str, StrategyVersion] = {}
        self.answers: dict[int, list[str]] = {}
        self.tags = {"asks": ["beta"]}

    def come(self, name: str, period: int, symbols: tuple[str, ...], tags: list[str], version: str) -> None:
        self.tags[name] = tags
        self.there[name] = self.floor.deploy(tagged(name, period, symbols, tags, version))

    def go(self, name: str) -> None:
        self.floor.command(RetireStrategy(f"retire-{name}-{self.minutes}", "w1", name, T0))
        del self.there[name]

    def on(self, minutes: int = 2) -> None:
        """Let time go on, with bars of every source that there ever was."""
        for one in self.there.values():
            for node in one.nodes:
                if node.node_type == "price":
                    self.sources[node.topic] = replace(one, nodes=(node,))
        answers = [
            node.topic
            for name, one in self.there.items()
            for node in one.nodes
            if node.name in ("mean", "own") and not {"alpha", "beta"}.isdisjoint(self.tags[name])
        ]
        self.minutes += minutes
        self.answers |= {
            at: sorted(set(answers)) for at in range(self.minutes - minutes + 1, self.minutes + 1)
        }
        for topic, one in sorted(self.sources.items()):
            symbols = FAR if "ETH-USD" in one.nodes[0].params_canon else NEAR
            values = [100.0 + (at * 37 + len(topic) + len(symbols)) % 23 for at in range(self.minutes)]
            self.floor.feed(one, dict.fromkeys(symbols, values))
        if self.kills:
            self.floor.work(3 + self.minutes % 4)
            self.floor.stop(lose_store=self.minutes % 3 == 0)
            self.floor.start()
        self.floor.work()

    def wanted(self) -> dict[tuple[int, str], float]:
        """By minute and symbol, from the topics of those that answer then."""
        found = defaultdict(list)
        for topic in sorted({one for topics in self.answers.values() for one in topics}):
            for value in self.floor.events(topic):
                at = (value.bucket_ms - T0) // STEP_MS
                if topic in self.answers[at]:
                    found[at, value.symbol].append(value.value)
        return {key: fmean(values) for key, values in found.items()}

    def said(self) -> list[tuple[tuple[int, str], float, str]]:
        return [
            (((one.bucket_ms - T0) // STEP_MS, one.symbol), one.value, one.node_id)
            for one in self.floor.outputs(self.asking, "asked")
        ]


def life(desk: Desk) -> None:
    """Strategies come, change, go and come again; two have the same node; the one that asks has a new version, too."""
    desk.on()
    desk.come("near", 1, NEAR, ["alpha"], "v1")
    desk.on()
    desk.come("far", 2, FAR, ["beta", "alpha"], "v1")
    desk.come("other", 1, FAR, ["gamma"], "v1")
    desk.on()
    desk.come("near", 2, NEAR, ["alpha"], "v2")
    desk.come("twin", 2, FAR, ["beta", "alpha"], "v1")
    desk.on()
    desk.go("far")
    desk.on()
    desk.there["asks"] = desk.floor.deploy(asks("v2", share=0.2))
    desk.on()
    desk.go("twin")
    desk.go("near")
    desk.on()
    desk.come("near", 1, NEAR, ["alpha"], "v3")
    desk.come("far", 3, FAR, ["alpha"], "v2")
    desk.on()


def test_each_bucket_is_answered_once_by_those_that_are_there_then_whatever_is_killed(tmp_path: Path) -> None:
    said = []
    for kills in (False, True):
        floor = Floor(tmp_path / str(kills))
        desk = Desk(floor, kills)
        life(desk)
        found = desk.said()
        assert {key: value for key, value, _ in found} == pytest.approx(desk.wanted(), rel=1e-15)
        assert len({key for key, _, _ in found}) == len(found)
        assert {at for (at, _), _, _ in found} == set(range(3, 17))
        assert {symbol for (_, symbol), _, _ in found} == set(FAR)
        query = next(one for one in desk.there["asks"].nodes if one.name == "asked")
        assert {node_id for _, _, node_id in found} == {query.node_id}
        homes = shards_of(nodes_of(floor.view("dag.strategies").get("w1", "asks")), SHARDS)
        assert homes[query.node_id] == SHARDS - 1
        assert len(set(homes.values())) == 3
        assert floor.events("dead.letters") == []
        said.append(found)
        floor.stop()
        again = rerun(floor.log, codec, Nodes, SHARDS - 1, tmp_path / f"again {kills}")
        assert (again.steps > 0, again.differences) == (True, [])
        floor.close()
    assert said[0] == said[1]


@pytest.mark.parametrize("poll_records", [1, 4000])
def test_a_change_among_buckets_that_wait_is_taken_between_two_of_them_and_no_bucket_is_missed_or_doubled(
    tmp_path: Path, poll_records: int
) -> None:
    """The bars are there already, and every shard takes the row where it stands; raw topics come late to those that begin to read."""
    floor = Floor(tmp_path, poll_records, LateLog)
    desk = Desk(floor, kills=False)
    desk.come("near", 1, NEAR, ["alpha"], "v1")
    desk.come("far", 2, FAR, ["gamma"], "v1")
    desk.on(3)
    far = desk.there["far"]
    log: Any = floor.log
    log.late, log.polls = tuple(node.topic for node in far.nodes if node.node_type == "price"), 40
    for minutes in (8, 13):
        for one in (desk.there["near"], far):
            symbols = FAR if one is far else NEAR
            values = [(1.0 if one is far else 100.0) + at for at in range(minutes)]
            floor.feed(one, dict.fromkeys(symbols, values))
        floor.work(2)
        if minutes == 8:
            desk.come("more", 1, FAR, ["alpha"], "v1")
    floor.work()
    near, more = desk.there["near"], desk.there["more"]
    found = floor.outputs(desk.asking, "asked")
    assert len({(one.bucket_ms, one.symbol) for one in found}) == len(found)
    every = [T0 + at * STEP_MS for at in range(1, 14)]
    ours, own = (
        {one.bucket_ms: one.value for one in floor.outputs(whose, name)}
        for whose, name in ((near, "mean"), (desk.asking, "own"))
    )
    theirs = {one.bucket_ms: one.value for one in floor.outputs(more, "mean") if one.symbol == "BTC-USD"}
    first = min(one.bucket_ms for one in found if one.symbol == "ETH-USD")
    assert every[0] < first < every[-1]
    assert [one.bucket_ms for one in found if one.symbol == "ETH-USD"] == [at for at in every if at >= first]
    told = {one.bucket_ms: one.value for one in found if one.symbol == "BTC-USD"}
    assert list(told) == every
    for at, value in told.items():
        parts = [
            ours[at],
            *([own[at]] if at in own else []),
            *([theirs[at]] if at >= first else []),
        ]
        assert value == pytest.approx(fmean(parts), rel=1e-15)
    assert floor.events("dead.letters") == []
    floor.close()


def test_what_answers_goes_on_until_the_row_of_who_asks_says_otherwise_and_its_bars_are_nobodys(
    tmp_path: Path,
) -> None:
    """The rows of one step may be taken with buckets between them."""
    floor = Floor(tmp_path)
    asking_ = floor.deploy(asks())
    far = floor.deploy(tagged("far", 1, FAR, ["alpha"], "v1"))
    floor.feed(far, {key: [1.0, 2.0, 3.0] for key in FAR})
    floor.work()
    floor.send("dag.strategies", replace(far, status=StrategyStatus.RETIRED, nodes=(), signals=()))
    floor.work()
    floor.feed(far, {key: [float(at) for at in range(1, 7)] for key in FAR})
    floor.work()
    told = [(one.symbol, one.value) for one in floor.outputs(asking_, "asked")]
    assert told == [(symbol, float(at)) for at in range(1, 7) for symbol in sorted(FAR)]
    assert len(floor.events("trade.market")) == 3 * len(FAR)
    floor.close()
