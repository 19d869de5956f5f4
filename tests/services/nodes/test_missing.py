"""The laws of what is missing and of what comes late: a node with several inputs speaks in the buckets that it says, nothing is filled in, and
no bar of a closed bucket changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl import ProcessingNode, Strategy, StreamInput
from qmtl.foundation.contracts.dag import StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.replay.feed import Feed
from qmtl.runtime.sdk.builtins import builtin
from tests.runtime.sdk import authored
from tests.services.graphs import T0
from tests.services.nodes.floor import STEP_MS, Floor, bars_of
from tests.services.nodes.test_python_nodes import a_floor, message

Closes = list[float | None]

IDLE = 60
"""Buckets of the clock for which a source that was fed is waited for, as docs/strategies.md says."""


class Pair(Strategy):
    """Two sources with bars of one symbol, read by a function and by a built-in node of two inputs."""

    def __init__(self, when: str, period: int) -> None:
        super().__init__("1m")
        self._when, self._period = when, period

    def setup(self) -> None:
        one = StreamInput(symbols=["BTC-USD"], name="one")
        two = StreamInput(symbols=["BTC-USD", "ETH-USD"], name="two")
        own = ProcessingNode([one, two], authored.both, name="own", period=self._period, when=self._when)
        built = builtin("linear", [one, two], name="built", weights=[1, 100], constant=0)
        self.add_nodes([one, two, own, built])
        self.add_nodes(builtin("position_target", own, name="target", long_percent=0.1, short_percent=0))


def said(floor: Floor, deployed: StrategyVersion, name: str) -> list[tuple[int, float]]:
    """By minute, counted from 1."""
    return [((one.bucket_ms - T0) // STEP_MS, one.value) for one in floor.outputs(deployed, name)]


def wanted(one: Closes, two: Closes, when: str, period: int) -> list[tuple[int, float]]:
    """What `authored.both` gives, from plain lists of what came."""
    came: tuple[list[tuple[int, float]], list[tuple[int, float]]] = ([], [])
    found = []
    for minute, values in enumerate(zip(one, two, strict=True), 1):
        for seen, value in zip(came, values, strict=True):
            if value is not None:
                seen.append((minute, value))
        speaks = None not in values if when == "all" else values != (None, None)
        if speaks and min(map(len, came)) >= period:
            (at, a), (bt, b) = came[0][-1], came[1][-1]
            found.append((minute, a + 100 * b + (minute - at) * 10_000 + (minute - bt) * 1_000_000))
    return found


minutes = st.lists(
    st.tuples(*[st.one_of(st.none(), st.integers(1, 99).map(float))] * 2), min_size=1, max_size=14
)


@example([(1.0, 2.0), (3.0, 4.0), (5.0, None)], "all", 1, {1: 0, 2: 1}, 4000)
@settings(deadline=None, max_examples=8)
@given(
    minutes,
    st.sampled_from(["all", "any"]),
    st.integers(1, 3),
    st.dictionaries(st.integers(0, 13), st.integers(0, 2), max_size=3),
    st.sampled_from([3, 4000]),
)
def test_a_node_speaks_where_its_inputs_do_and_a_bar_of_an_earlier_bucket_changes_nothing(
    values: list[tuple[float | None, float | None]],
    when: str,
    period: int,
    strays: dict[int, int],
    poll_records: int,
) -> None:
    """A stray bar says another close of a minute that its source has closed, and is a dead letter; or of the minute itself, and then it counts."""
    one, two = [a for a, _ in values], [b for _, b in values]
    stray = {at: at - back for at, back in strays.items() if back <= at < len(values)}
    count = [earlier < at for at, earlier in stray.items()].count(True)
    seen = [77.0 if stray.get(at) == at else close for at, close in enumerate(one)]
    with a_floor(poll_records=poll_records) as floor:
        mine = floor.deploy(message(Pair(when, period)))
        feed(floor, mine, "one", one, stray)
        feed(floor, mine, "two", two, {})
        floor.work()
        assert said(floor, mine, "own") == wanted(seen, two, when, period)
        assert said(floor, mine, "built") == [
            (minute, a + 100 * b)
            for minute, (a, b) in enumerate(zip(seen, two, strict=True), 1)
            if a is not None and b is not None
        ]
        letters = floor.events("dead.letters")
        assert [(letter.processor, letter.code) for letter in letters] == [("nodes", "QMTL-701")] * count
        assert all("came with the bucket" in letter.cause for letter in letters)
        assert floor.events("late.records") == []


class Unruly(Feed):
    """A feed that brings bars with later buckets than their own, and counts them there."""

    strays: Mapping[int, Sequence[Bar]]

    def _write(self, bucket_ms: int, bars: Sequence[Bar]) -> None:
        super()._write(bucket_ms, [*bars, *self.strays.get(bucket_ms, ())])


def feed(
    floor: Floor, deployed: StrategyVersion, name: str, closes: Closes, strays: Mapping[int, int]
) -> None:
    """Feed closes into a source; with the minute of a key of `strays` comes another bar of an earlier one, both counted from 0."""
    (node,) = [one for one in deployed.nodes if one.name == name]
    raw = node_topic(node.topic, TopicClass.RAW, node.partitions)
    end_ms = T0 + len(closes) * STEP_MS
    made = Unruly(floor.log, codec, raw, 60, iter(bars_of({"BTC-USD": closes})), T0, end_ms)
    made.strays = {
        T0 + (at + 1) * STEP_MS: bars_of({"BTC-USD": [77.0]}, T0 + earlier * STEP_MS)
        for at, earlier in strays.items()
    }
    while not made.done:
        made.push(50)
    made.close()


@pytest.mark.parametrize("when", ["all", "any"])
def test_a_source_is_waited_for_and_then_no_more_and_what_it_says_after_that_is_late_and_changes_nothing(
    when: str,
) -> None:
    with a_floor() as floor:
        mine = floor.deploy(message(Pair(when, 1)))
        ones: Closes = [float(at % 97 + 1) for at in range(80)]
        feed(floor, mine, "one", ones[:1], {})
        feed(floor, mine, "two", [5.0], {})
        feed(floor, mine, "one", ones[: IDLE - 1], {})
        floor.work()
        assert [minute for minute, _ in said(floor, mine, "own")] == [1], "the others wait"
        feed(floor, mine, "one", ones, {})
        floor.work()
        before = said(floor, mine, "own")
        assert [minute for minute, _ in before] == ([1] if when == "all" else list(range(1, 81)))
        twos: Closes = [5.0, *[6.0] * 81]
        feed(floor, mine, "two", twos, {})
        feed(floor, mine, "one", [*ones, 9.0, 9.0], {})
        floor.work()
        late = floor.events("late.records")
        assert {one.topic for one in late} == {mine.nodes[1].topic}
        # Told by every shard that reads the source.
        assert sorted({(one.bucket_ms - T0) // STEP_MS for one in late}) == list(range(2, 81))
        assert said(floor, mine, "own") == [*before, (81, 609.0), (82, 609.0)]
        assert floor.events("dead.letters") == []
