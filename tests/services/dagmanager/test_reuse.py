"""The short way of a diff beside the long one: the same answer or none, whatever is sent, whatever became of what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import ComputeNode, Queue, QueueRole
from qmtl.foundation.contracts.diff import DiffRequest
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.services.dagmanager import diffing
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.reuse import reused
from qmtl.services.dagmanager.submission import LONGEST_ID, surely_fits
from tests.services.dagmanager import spelling
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import (
    T0,
    Node,
    crossing,
    price,
    sma,
    strategy,
    submission,
    tag_query,
    target,
    text,
)


@pytest.fixture(scope="module")
def standing() -> Iterator[Desk]:
    """A graph that has all nodes of all sound messages, with their topics."""
    with TemporaryDirectory() as name:
        desk = Desk(Path(name))
        for at, one in enumerate(spelling.SOUND):
            desk.send(replace(submission(one), submission_id=f"s{at}"))
        desk.report_all()
        yield desk
        desk.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A graph that has one crossing."""
    made = Desk(tmp_path)
    made.send(submission(strategy(crossing())))
    made.report_all()
    yield made
    made.close()


def asked(message: bytes | dict[str, Any], strategy_id: str = "s1") -> DiffRequest:
    data = message if isinstance(message, bytes) else text(message)
    return DiffRequest("r", strategy_id, data, T0, "w1", "live")


def verdict(desk: Desk, request: DiffRequest, prescan: Prescan | None) -> Any:
    try:
        return difference(desk.catalogue, request, prescan)
    except InvalidDag as refused:
        return type(refused), str(refused), refused.reasons, refused.more


# ---- the law -----------------------------------------------------------------------------------------------------------

MEMOS = [Prescan(), Prescan(12_000), Prescan(0)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64 - 1), st.sampled_from(MEMOS))
def test_it_says_what_the_long_way_says(standing: Desk, seed: int, memo: Prescan) -> None:
    request = asked(spelling.message(Random(seed)))
    slow = verdict(standing, request, None)
    for _ in range(2):  # the second time it is known, if it may be
        assert verdict(standing, request, memo) == slow


@pytest.mark.parametrize("at", [0, 1, 2, 4, 5, 6, 7, 8, 9])
def test_a_sound_message_goes_the_short_way_from_the_first_time_on(
    standing: Desk, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    message = spelling.SOUND[at]
    request = asked(message, message["strategy_id"])
    slow = verdict(standing, request, None)
    monkeypatch.setattr(diffing, "drafted", None)
    memo = Prescan()
    assert verdict(standing, request, memo) == verdict(standing, request, memo) == slow


def test_rows_are_told_again_and_not_made_again(standing: Desk) -> None:
    memo, request = Prescan(), asked(spelling.SOUND[0])
    first, second = (difference(standing.catalogue, request, memo).nodes for _ in range(2))
    assert [id(one) for one in first] == [id(one) for one in second]


# ---- what has to be looked at -------------------------------------------------------------------------------------------


def queue_of(desk: Desk, name: str = "slow") -> Queue:
    period = next(one["period"] for one in crossing() if one["name"] == name)
    (node,) = [row for row in desk.rows("dag.nodes") if row.period == period]
    queue = desk.catalogue.queue_of(node.node_id)
    assert queue is not None
    return queue


def node_of(desk: Desk) -> ComputeNode:
    found: ComputeNode = desk.table("dag.nodes").get(queue_of(desk).node_id)
    return found


def removed(desk: Desk) -> None:
    queue = queue_of(desk)
    desk.catalogue.put_queue(replace(queue, removing=True), T0)


def moved(desk: Desk) -> None:
    queue = queue_of(desk)
    desk.catalogue.put_queue(replace(queue, role=QueueRole.FORMER), T0)
    desk.catalogue.put_queue(replace(queue, topic="another"), T0)


CHANGES: dict[str, Callable[[Desk], None]] = {
    "its topic is going": removed,
    "its topic is not there": lambda desk: desk.catalogue.put_queue(replace(queue_of(desk), ready=False), T0),
    "its topic was left": lambda desk: desk.catalogue.put_queue(
        replace(queue_of(desk), role=QueueRole.FORMER), T0
    ),
    "its topic is another one": moved,
    "it has no topic": lambda desk: desk.catalogue.drop_queue(queue_of(desk)),
    "it is buffering": lambda desk: desk.catalogue.put_node(replace(node_of(desk), buffering_since_ms=T0)),
    "its schema is another": lambda desk: desk.catalogue.put_node(
        replace(node_of(desk), schema_hash="blake3:1")
    ),
    "its id has other content": lambda desk: desk.catalogue.put_node(replace(node_of(desk), period=77)),
    "its row was written anew": lambda desk: desk.catalogue.put_node(replace(node_of(desk), owner="another")),
    "its topic's row was written anew": lambda desk: desk.catalogue.put_queue(replace(queue_of(desk)), T0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_become_of_a_node_is_told_as_if_nothing_were_remembered(desk: Desk, what: str) -> None:
    memo, request = Prescan(), asked(strategy(crossing()))
    before = verdict(desk, request, memo)
    CHANGES[what](desk)
    after = verdict(desk, request, None)
    assert (after == before) == ("anew" in what)
    assert verdict(desk, request, memo) == verdict(desk, request, memo) == after
    read = Prescan()
    assert read.texts_of(request.dag_json) is not None
    assert verdict(desk, request, read) == after
    if after == before:
        assert reused(desk.catalogue, request, memo) is not None


def changed(nodes: list[Node], **more: Any) -> list[Node]:
    return [one | more if one["name"] == "slow" else one for one in nodes]


LOOKS: dict[str, dict[str, Any]] = {
    "a node is new": strategy(changed(crossing(), period=9)),
    "a node is there twice": strategy([*crossing(), price()]),
    "a node comes before what it reads": strategy(crossing()[::-1]),
    "intervals differ along an edge": strategy(changed(crossing(), interval=120)),
    "an input is missing": strategy(crossing()[1:]),
    "another id is said": strategy(changed(crossing(), node_id="blake3:" + "0" * 64)),
    "a signal is missing": strategy(crossing(), signals=("target", "nobody")),
    "a signal is no target": strategy(crossing(), signals=("target", "cross")),
    "a signal is there twice": strategy(crossing(), signals=("target", "target")),
    "another strategy is meant": strategy(crossing(), "s2"),
    "an artifact is used": strategy(crossing())
    | {"artifacts": [{"path": "a", "checksum": "blake3:" + "0" * 64, "size": 1}]},
}


@pytest.mark.parametrize("what", LOOKS)
def test_nothing_is_said_where_somebody_has_to_look(desk: Desk, what: str) -> None:
    memo, sound = Prescan(), asked(strategy(crossing()))
    assert reused(desk.catalogue, sound, memo) is not None
    request = asked(LOOKS[what])
    for _ in range(2):
        assert reused(desk.catalogue, request, memo) is None
        assert verdict(desk, request, memo) == verdict(desk, request, None)


def test_what_may_be_too_large_is_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    memo, request = Prescan(), asked(strategy(crossing()))
    assert reused(desk.catalogue, request, memo) is not None
    monkeypatch.setattr("qmtl.services.dagmanager.submission.MAX_VALUE_BYTES", 3_000)
    assert reused(desk.catalogue, request, memo) is None
    assert verdict(desk, request, memo) == verdict(desk, request, None)


def test_who_asks_by_tags_is_told_at_length(desk: Desk) -> None:
    nodes = [tag_query(tags=("crypto", "nobody")), sma("after", 3, "asked"), target(source="after")]
    desk.send(replace(submission(strategy(nodes, "s2")), submission_id="asks"))
    desk.report_all()
    request, memo = asked(strategy(nodes, "s2"), "s2"), Prescan()
    for _ in range(2):
        assert reused(desk.catalogue, request, memo) is None
        assert verdict(desk, request, memo) == verdict(desk, request, None)


def test_a_text_that_stands_in_two_strategies_is_another_node_in_each(desk: Desk) -> None:
    """Their texts are the same but for the source."""
    other = [price(symbols=("LTC-USD",)), *crossing()[1:]]
    desk.send(replace(submission(strategy(other, "s2")), submission_id="other"))
    desk.report_all()
    memo = Prescan()
    for _ in range(2):
        for nodes, name in ((crossing(), "s1"), (other, "s2")):
            request = asked(strategy(nodes, name), name)
            assert reused(desk.catalogue, request, memo) is not None
            assert verdict(desk, request, memo) == verdict(desk, request, None)


@given(
    st.integers(0, 2 * MAX_VALUE_BYTES),
    st.integers(0, 20_000),
    st.integers(0, 100),
    st.integers(0, 20_000),
    st.integers(0, 900),
)
def test_what_surely_fits_is_within_every_bound(
    room: int, nodes: int, length: int, signals: int, world: int
) -> None:
    names = ["n" * length] * nodes
    if surely_fits(room, names, signals, "w" * world):
        assert room < MAX_VALUE_BYTES
        assert LONGEST_ID * (nodes + signals) + 4 * (nodes * length + 2 * world) <= MAX_VALUE_BYTES // 2
