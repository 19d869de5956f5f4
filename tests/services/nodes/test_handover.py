"""Who has a strategy's traffic in each bucket while its versions come, go and are weighed, in whatever order the shards read of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import pytest

from qmtl.foundation.contracts.dag import FULL_WEIGHT, AdminAct, PlannedNode, RollBack, StrategyVersion
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import DESK, is_settled
from qmtl.foundation.wire.topics import SHARDS
from qmtl.replay.rerun import rerun
from qmtl.services.nodes.processor import Nodes
from tests.services.graphs import T0
from tests.services.nodes.test_versions import (
    CANARY,
    PLACED,
    STABLE,
    always,
    canarys,
    feed,
    home_of,
    told,
    weigh,
)
from tests.services.nodes.yard import Yard

FIRST, SECOND, THIRD = STABLE, CANARY, Decimal("0.5")
"""What the versions want to hold: it tells whose intent it is."""


@dataclass(frozen=True)
class Share:
    """Who is to have the traffic: a version, and a canary with its id and weight."""

    stable: Decimal
    canary: Decimal | None = None
    sentinel_id: str = ""
    weight: int = 0

    def of(self, symbols: Sequence[str]) -> dict[str, Decimal]:
        if self.canary is None:
            return dict.fromkeys(symbols, self.stable)
        theirs = canarys(self.sentinel_id, self.weight, symbols)
        return {one: self.canary if one in theirs else self.stable for one in symbols}


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, 9)
    yield made
    made.close()


class Life:
    """A strategy, what was said of it, and what has to come of that.

    Args:
        first, others: the symbols of the first version, and of the later ones, which have all of these.
    """

    def __init__(self, yard: Yard, first: Sequence[str], others: Sequence[str]) -> None:
        self.yard, self.first, self.others = yard, first, others
        self.shares = [Share(FIRST)]
        self.minutes = 0
        self._sources: dict[str, PlannedNode] = {}
        self._said = 0
        self._stable = self._publish(FIRST, FULL_WEIGHT)
        self.yard.rest()

    def _publish(self, wants: Decimal, weight: int) -> StrategyVersion:
        symbols = self.first if wants == FIRST else self.others
        self._said += 1
        row = self.yard.floor.deploy(always(wants, f"v{self._said}", symbols), weight_bp=weight)
        self._sources |= {one.node_id: one for one in row.nodes if one.node_type == "price"}
        feed(self.yard.floor, replace(row, nodes=tuple(self._sources.values())), self.minutes)
        return row

    def say(self, what: str) -> None:
        """Something about its versions, which the DAG Manager decides on at once."""
        floor, now = self.yard.floor, self.shares[-1]
        match what.split():
            case ["canary", weight] if now.canary is None:
                wants = next(one for one in (SECOND, THIRD, FIRST) if one != now.stable)
                row = self._publish(wants, int(weight))
                assert row.canary is not None
                self.shares.append(Share(now.stable, wants, row.canary.sentinel_id, int(weight)))
            case ["weigh", weight] if now.canary is not None:
                self._said += 1
                weigh(floor, now.sentinel_id, int(weight), f"weigh-{self._said}")
                part = Share(now.stable, now.canary, now.sentinel_id, int(weight))
                self.shares.append(
                    {0: Share(now.stable), FULL_WEIGHT: Share(now.canary)}.get(int(weight), part)
                )
            case ["swap"] if now.canary is None:
                wants = next(one for one in (SECOND, FIRST, THIRD) if one != now.stable)
                self._publish(wants, FULL_WEIGHT)
                self.shares.append(Share(wants))
            case ["back"]:
                self._said += 1
                floor.command(RollBack(f"back-{self._said}", self._stable.sentinel_id, T0))
                self.shares.append(Share(FIRST))
            case _:
                pass

    def tick(self, minutes: int = 1) -> None:
        """Bars of every symbol of every version there was, and the clock."""
        self.minutes += minutes
        feed(self.yard.floor, replace(self._stable, nodes=tuple(self._sources.values())), self.minutes)

    def end(self) -> None:
        """Everybody hears of everything, and a few minutes go by."""
        self.yard.rest()
        self.tick(3)
        self.yard.rest()

    def law(self) -> None:
        """Every symbol has one intent in every bucket, of the version that has it there: each bucket is that of one share, and these
        follow each other as they were said. In the end the last one's is all that is computed."""
        floor = self.yard.floor
        found = told(floor)
        at_share = 0
        for at in range(1, self.minutes + 1):
            given = {symbol: found.get((at, symbol), []) for symbol in self.first}
            assert {symbol: len(wants) for symbol, wants in given.items()} == dict.fromkeys(self.first, 1), at
            while {symbol: wants[0] for symbol, wants in given.items()} != self.shares[at_share].of(
                self.first
            ):
                at_share += 1
                assert at_share < len(self.shares), f"minute {at} is of no share in its turn"
        assert self.shares[at_share].of(self.first) == self.shares[-1].of(self.first)
        assert floor.events("dead.letters") == []
        row = floor.view("dag.strategies").get("w1", "s1")
        assert is_settled(row)
        assert not any(one.strategy.before for one in floor.view("node.deployments").rows())
        assert {one.node_id for one in floor.view("node.state").rows()} == {one.node_id for one in row.nodes}


STORIES = {
    "canary": ["canary 5000", "weigh 9000", "weigh 10000", "swap", "back"],
    "given up": ["canary 3000", "weigh 0", "canary 7000", "back"],
    "hotfix": ["swap", "back", "swap", "canary 1000", "weigh 5000"],
}


def lives(yard: Yard, story: Sequence[str], place: str, seed: int) -> Life:
    """A story, told while shards read when chance has them read: each by itself, with or without what is new in `dag.strategies`, or
    only the newest of it; some begin anew."""
    chance = random.Random(f"{story}{place}{seed}")
    first, others = PLACED[place]
    life, left = Life(yard, first, others), list(story)
    life.tick(2)
    for _ in range(60):
        match chance.choices(("read", "tick", "decide", "say", "restart"), (60, 14, 14, 10, 2))[0]:
            case "read":
                shard = chance.choice(yard.shards)
                shard.step(holds=chance.random() < 0.6, cleaned=chance.random() < 0.3)
            case "tick":
                life.tick()
            case "decide":
                yard.floor.work()
            case "say" if left:
                life.say(left.pop(0))
            case "restart":
                chance.choice(yard.shards).restart(lose_store=chance.random() < 0.5)
            case _:
                pass
    for what in left:
        life.say(what)
    life.end()
    return life


@pytest.mark.parametrize("place", ["higher", "lower"])
@pytest.mark.parametrize("late", ["home of the first", "home of the others", "desk"])
def test_it_makes_no_difference_which_shard_reads_a_row_last(yard: Yard, late: str, place: str) -> None:
    """All others compute on for two buckets, as far as they can, and say with which they have begun; or the desk stands still, and is
    behind those who read the row."""
    first, others = PLACED[place]
    life = Life(yard, first, others)
    number = {"home of the first": home_of(first), "home of the others": home_of(others)}.get(late, DESK)
    life.tick(2)
    yard.rest()
    story = ("swap", "back", "swap", "canary 5000", "weigh 0", "canary 3000", "weigh 10000", "back")
    for at, what in enumerate(story):
        life.say(what)
        for _ in range(2):
            life.tick()
            yard.rest(holds=(number,), stands=(DESK,) if number != DESK and at % 2 else ())
        yard.rest()
    life.end()
    life.law()


@pytest.mark.parametrize("place", ["higher", "lower"])
@pytest.mark.parametrize("story", sorted(STORIES))
def test_every_symbol_has_one_intent_in_every_bucket_however_the_shards_read(
    yard: Yard, story: str, place: str
) -> None:
    lives(yard, STORIES[story], place, 1).law()


def test_a_second_run_hands_over_with_the_same_buckets(yard: Yard, tmp_path: Path) -> None:
    life = Life(yard, *PLACED["lower"])
    life.tick(2)
    for what in ("swap", "canary 5000", "back"):
        life.say(what)
        life.tick()
        yard.rest(holds=(home_of(life.others),), stands=(DESK,))
        yard.rest()
    life.end()
    life.law()
    handed = [one for one in yard.floor.events("dag.admin.log") if one.act is AdminAct.HANDED_OVER]
    assert len(handed) == 3
    for shard in range(SHARDS):
        again = rerun(yard.floor.log, codec, Nodes, shard, tmp_path / f"again-{shard}")
        assert again.steps > 0
        assert again.differences == []


def test_where_a_row_can_t_name_both_the_new_ones_have_the_traffic_at_once_and_the_admin_log_says_so(
    yard: Yard,
) -> None:
    many = [f"S{number:05}-USD" for number in range(45_000)]
    yard.floor.deploy(always(FIRST, "v1", many))
    yard.rest()
    row = yard.floor.deploy(always(SECOND, "v2", many[:-1]))
    assert (row.version, row.before) == ("v2", ())
    assert [one.detail for one in yard.floor.events("dag.admin.log") if one.act is AdminAct.HANDED_OVER] == [
        "at once: a row can't name all that there is"
    ]
    yard.rest()
    assert {one.strategy.version for one in yard.floor.view("node.deployments").rows()} == {"v2"}
