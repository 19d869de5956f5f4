"""What may be sent to the DAG Manager: anything. What comes of it: a graph, or a coded refusal with all reasons, in bounded time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import DagCycle, InvalidDag, InvalidParameter, NodeIdMismatch
from qmtl.foundation.contracts.dag import AdminAct, ComputeNode, DagSubmission
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import MAX_PART, MAX_REASONS, Faults
from qmtl.services.dagmanager.graph import Graph, content_of
from qmtl.services.dagmanager.raw import MAX_BYTES
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, cross, crossing, price, sma, strategy, submission, target, text

GOOD = text(strategy(crossing()))
MAX_DETAIL = 16_384


def refusal(data: bytes) -> InvalidDag:
    with pytest.raises(InvalidDag) as caught:
        admit(data, T0)
    return caught.value


def outcome(data: bytes) -> Graph | InvalidDag:
    try:
        return admit(data, T0)
    except InvalidDag as refused:
        return refused


# ---- anything comes to a graph or to a refusal -------------------------------------------------------------------

leaves: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["price", "sma", "fast", "target", "1m", "blake3:" + "0" * 64, 10**400, "a|b", ".."])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "node_type", "params", "inputs", "symbols", "node_id"])
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
PLACES = [
    (),
    ("strategy_id",),
    ("meta",),
    ("meta", "version"),
    ("signals",),
    ("nodes",),
    *(("nodes", at) for at in range(5)),
    *(
        ("nodes", 1, field)
        for field in ("name", "node_type", "interval", "period", "params", "inputs", "tags")
    ),
    *(("nodes", 1, field) for field in ("metadata", "node_id", "code_hash", "schema_compat_id", "other")),
    ("nodes", 0, "params", "symbols"),
    ("nodes", 0, "params", "other"),
    ("nodes", 4, "params", "long_percent"),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), values), min_size=1, max_size=3))
def test_any_values_anywhere_come_to_a_graph_or_a_coded_refusal(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    message: Any = json.loads(GOOD)
    for place, value in changes:
        message = placed(message, place, value)
    data = json.dumps(message).encode()
    found = outcome(data)
    if isinstance(found, Graph):
        assert all(one.node.node_id == plain_id(one.node) for one in found.nodes)
        return
    assert 1 <= len(found.reasons) <= MAX_REASONS
    assert all(one.code.startswith("QMTL-5") and one.rule and one.remedy for one in found.reasons)
    assert found.code in {"QMTL-500", found.reasons[0].code}


def placed(message: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    if isinstance(message, dict):
        return {**message, place[0]: placed(message.get(place[0]), place[1:], value)}
    if isinstance(message, list) and isinstance(place[0], int) and place[0] < len(message):
        return [placed(one, place[1:], value) if at == place[0] else one for at, one in enumerate(message)]
    return value


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=3), st.integers(0, 4))
def test_any_damage_to_a_sound_message_comes_to_a_graph_or_a_coded_refusal(
    at: int, bytes_in: bytes, out: int
) -> None:
    found = outcome(GOOD[:at] + bytes_in + GOOD[at + out :])
    assert isinstance(found, Graph) or found.reasons


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_only_utf_8_is_read(encoding: str) -> None:
    """`json.loads` guesses the encoding of bytes; a letter of UTF-16 whose byte is a quote would hide how deep a message is."""
    deep = '{"∀": ' + "[" * 5000 + "]" * 5000 + "}"
    for message in (GOOD.decode(), deep):
        assert refusal(message.encode(encoding)).code in ("QMTL-500", "QMTL-501")


def test_bytes_that_are_no_text_are_refused() -> None:
    assert "JSON" in str(refusal(GOOD.replace(b"BTC", b"\xff\xfe")))


# ---- all reasons -------------------------------------------------------------------------------------------------


def test_each_of_many_faults_is_told_and_none_that_only_follows_from_one() -> None:
    nodes = [
        price(interval=0),
        sma("fast", 3),
        sma("slow", 0),
        cross(),
        target(share=2.0),
        sma("lost", 3, "gone"),
        sma("round", 3, "round"),
    ]
    told = refusal(text(strategy(nodes)))
    assert {one.path for one in told.reasons} == {
        "nodes[0].interval",
        "nodes[2].period",
        "nodes[4].params",
        "nodes[5].inputs[0]",
        "nodes[6].inputs",
    }
    assert told.more == 0


@given(st.lists(st.sampled_from(["interval", "period", "name", "tags"]), min_size=1, max_size=60))
def test_a_fault_more_is_a_reason_more_told_or_counted(fields: list[str]) -> None:
    wrong = {"interval": 0, "period": 0, "name": "a|b", "tags": ["a|b"]}
    nodes = [sma(f"n{at}", 3, "price") | {field: wrong[field]} for at, field in enumerate(fields)]
    told = refusal(text(strategy([*crossing(), *nodes])))
    assert len(told.reasons) + told.more == len(fields)
    assert [one.path for one in told.reasons] == [
        f"nodes[{at + 5}].{field}" + ("[0]" if field == "tags" else "") for at, field in enumerate(fields)
    ][:MAX_REASONS]


def test_reasons_of_one_code_give_it_and_others_the_general_one() -> None:
    bad_share, bad_id = target(share=2.0), price(node_id="blake3:" + "0" * 64)
    one = refusal(text(strategy([*crossing()[:4], bad_share])))
    assert (type(one), one.code) == (InvalidParameter, "QMTL-506")
    both = refusal(text(strategy([bad_id, *crossing()[1:4], bad_share])))
    assert (type(both), both.code) == (InvalidDag, "QMTL-500")


# ---- bounds ------------------------------------------------------------------------------------------------------


def ring(count: int) -> bytes:
    nodes = [
        {"name": f"n{at}", "node_type": "sma", "interval": 1, "inputs": [f"n{(at + 1) % count}"]}
        for at in range(count)
    ]
    return json.dumps(strategy(nodes, signals=["n0"]), separators=(",", ":")).encode()


HOSTILE = {
    "ring": ring(10_000),
    "bad nodes": b'{"nodes":[' + b"{}," * 9_999 + b"{}]}",
    "unknown fields": b"{" + b",".join(b'"%x":0' % at for at in range(100_000)) + b"}",
    "unknown fields of a node": b'{"nodes":[{' + b",".join(b'"%x":0' % at for at in range(100_000)) + b"}]}",
    "the same key": b"{" + b'"a":0,' * 170_000 + b'"a":0}',
    "bad names": b'{"nodes":[' + b",".join(b'{"name":"|%d"}' % at for at in range(10_000)) + b"]}",
    "bad signals": b'{"signals":[' + b'"|",' * 9_999 + b'"|"]}',
    "bad numbers": b'{"a":[' + b"NaN," * 200_000 + b"NaN]}",
    "a long text": b'{"strategy_id":"' + b"\xd0\xb0" * 500_000 + b'"}',
    "a long key": b'{"' + b"\\u0430" * 170_000 + b'":1}',
    "a long number": b'{"strategy_id":' + b"9" * 1_000_000 + b"}",
    "quotes": b'{"a":"' + b'\\"' * 500_000 + b'"}',
    "an open text of backslashes": b'"' + b"\\" * 1_000_000,
    "an open text of quotes": b'"' + b'\\"' * 500_000,
    "open brackets": b"[" * 1_000_000,
    "brackets and quotes": b'["' * 500_000,
    "world deep": b'{"nodes":[{"name":"p","node_type":"price","interval":1,"params":{"a":['
    + b'{"world_id":1},' * 60_000
    + b"0]}}]}",
}


@pytest.mark.parametrize("how", HOSTILE)
def test_no_message_takes_long_or_gets_a_long_answer(how: str) -> None:
    data = HOSTILE[how]
    assert len(data) <= MAX_BYTES
    began = time.process_time()
    told = refusal(data)
    assert time.process_time() - began < 10
    assert len(told.reasons) <= MAX_REASONS
    assert len(str(told)) < MAX_DETAIL


def test_a_ring_of_ten_thousand_is_one_cycle_shown_by_its_beginning() -> None:
    told = refusal(ring(10_000))
    assert isinstance(told, DagCycle) or told.code == "QMTL-500"
    (cycle,) = [one for one in told.reasons if one.code == DagCycle.code]
    assert cycle.path == "nodes[0].inputs"
    assert "n0 -> n1 -> n2" in cycle.was
    assert "9990 more" in cycle.was


def test_what_looks_alike_and_what_is_long_is_shown_as_what_it_is() -> None:
    long = target(params={"long_percent": 1, "short_percent": 0, "\u0430" * 5_000: 1})
    odd = {**sma("odd", 3, "pric\u0435"), "perio\u0501": 1}
    told = refusal(text(strategy([*crossing()[:4], long, odd])))
    assert all(part.isascii() for one in told.reasons for part in (one.path, one.was, one.rule, one.remedy))
    assert all(len(one.was) <= MAX_PART + 3 for one in told.reasons)
    assert {one.path for one in told.reasons} == {
        "nodes[4].params",
        "nodes[5].inputs[0]",
        "nodes[5]['perio\\u0501']",
    }
    assert "'pric\\u0435'" in str(told)


def test_a_node_that_stands_twice_in_a_message_is_looked_up_once() -> None:
    """What the message itself holds is asked first: a second node of equal content is the first one."""
    asked: list[str] = []

    def held(node_id: str) -> ComputeNode | None:
        asked.append(node_id)
        return None

    graph = admit(text(strategy([*crossing(), sma("again", 3)])), T0, held)
    assert len(graph.nodes) == 6
    assert len(asked) == len(set(asked)) == 5


def test_a_reason_beyond_the_first_costs_its_count_alone() -> None:
    class Untold:
        def __repr__(self) -> str:
            raise AssertionError("told")

    faults = Faults()
    for at in range(MAX_REASONS):
        faults.add(InvalidDag, f"{at}", at, "rule", "remedy")
    faults.add(InvalidDag, "more", Untold(), "rule", "remedy")
    assert (faults.count, len(faults.reasons)) == (MAX_REASONS + 1, MAX_REASONS)


# ---- the outcome -------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["ring", "bad nodes", "a long text", "bad numbers"])
def test_the_outcome_carries_the_reasons_and_nothing_is_created(desk: Desk, how: str) -> None:
    desk.send(submission(HOSTILE[how]))
    (outcome,) = desk.rows("dag.diffs")
    told = refusal(HOSTILE[how])
    lines = outcome.detail.splitlines()
    assert (outcome.accepted, outcome.code) == (False, told.code)
    assert [line.split("]")[0] for line in lines[: len(told.reasons)]] == [
        f"[{one.code}" for one in told.reasons
    ]
    assert lines[len(told.reasons) :] == ([f"and {told.more} more."] if told.more else [])
    assert len(outcome.detail) < MAX_DETAIL
    assert {name for name, rows in desk.all_rows().items() if rows} == {"dag.diffs"}
    assert {topic for topic, _ in desk.emitted} == {"dag.admin.log"}


# ---- the audit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [GOOD, b"no json"], ids=["good", "bad"])
def test_a_submission_and_its_outcome_stand_in_the_admin_log_with_their_digests_once(
    tmp_path: Path, data: bytes
) -> None:
    desk = Desk(tmp_path)
    sent = DagSubmission("s1", "w1", data, T0, execution_domain="live")
    for _ in range(2):
        desk.send(sent)
    (outcome,) = desk.rows("dag.diffs")
    first, second = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.DIFFED]
    desk.close()
    assert {first.subject, second.subject} == {outcome.sentinel_id or "s1"}
    assert (first.cause, second.cause) == ("s1", "s1")
    assert (first.detail, first.digest) == ("request", blake3(codec.encode(sent)).hexdigest())
    said = (
        "5 new, 0 reused; all is computed in w1/live from now on"
        if outcome.accepted
        else f"refused: {outcome.code}"
    )
    assert (second.detail, second.digest) == (
        f"response: {said}",
        blake3(codec.encode(outcome)).hexdigest(),
    )


# ---- collisions --------------------------------------------------------------------------------------------------


def plain_id(node: ComputeNode) -> str:
    return "blake3:" + blake3(content_of(node)).hexdigest()


def squatter(node: ComputeNode) -> ComputeNode:
    """Other content under the id of a node, as only a collision could make it."""
    return replace(node, period=node.period + 1, tags=(), created_at_ms=0)


def by_name(graph: Graph) -> dict[str, ComputeNode]:
    return {one.name: one.node for one in graph.nodes}


def test_a_node_whose_id_other_content_holds_gets_the_next_one_and_its_readers_read_that() -> None:
    plain = by_name(admit(GOOD, T0))
    taken = squatter(plain["fast"])
    graph = admit(GOOD, T0, {taken.node_id: taken}.get)
    found = by_name(graph)
    assert found["fast"].node_id != plain["fast"].node_id
    assert len(found["fast"].node_id) == len("blake3:") + 128
    assert content_of(found["fast"]) == content_of(plain["fast"])
    assert found["cross"].dependencies == (found["fast"].node_id, plain["slow"].node_id)
    assert [(one.node_id, one.held) for one in graph.collisions] == [
        (found["fast"].node_id, (taken.node_id,))
    ]
    same = {"price", "slow"}
    assert {name for name in plain if plain[name].node_id == found[name].node_id} == same


def test_a_submission_meets_a_collision_as_its_replay_does(tmp_path: Path) -> None:
    plain = by_name(admit(GOOD, T0))["fast"]
    taken = squatter(plain)
    sent: list[DagSubmission] = []
    rows = []
    told = []
    for life in ("first", "second"):
        desk = Desk(tmp_path / life)
        desk.table("dag.nodes").put(taken)
        desk.again()
        sent = [submission(strategy(crossing())), submission(strategy(crossing(), "s2"))]
        desk.send(*sent)
        rows.append(desk.all_rows())
        notes = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.COLLIDED]
        told.append([(one.subject, one.node_id, one.detail, one.cause) for one in notes])
        desk.close()
    assert rows[0] == rows[1]
    (settled,) = (row.node_id for row in rows[0]["dag.nodes"] if content_of(row) == content_of(plain))
    noted = [(settled, settled, taken.node_id, one.submission_id) for one in sent]
    assert told == [noted, noted], "whoever meets it is told of, with the id that other content holds"
    first, second = sorted(rows[0]["dag.diffs"], key=lambda row: len(row.reused_nodes))
    assert (len(first.new_nodes), first.reused_nodes) == (5, ())
    assert (second.new_nodes, set(second.reused_nodes)) == ((), set(first.new_nodes))
    assert taken in rows[0]["dag.nodes"]


def test_equal_content_under_its_id_is_reuse_and_no_collision() -> None:
    known = {one.node.node_id: one.node for one in admit(GOOD, T0).nodes}
    again = admit(GOOD, T0 + 1, known.get)
    assert {one.node.node_id for one in again.nodes} == set(known)
    assert again.collisions == ()


def test_an_author_may_say_the_plain_id_of_a_node_that_collides_or_the_one_that_it_has() -> None:
    plain = by_name(admit(GOOD, T0))
    taken = squatter(plain["fast"])
    settled = by_name(admit(GOOD, T0, {taken.node_id: taken}.get))["fast"]
    for claimed in (plain["fast"].node_id, settled.node_id):
        nodes = [{**one, "node_id": claimed} if one["name"] == "fast" else one for one in crossing()]
        graph = admit(text(strategy(nodes)), T0, {taken.node_id: taken}.get)
        assert by_name(graph)["fast"].node_id == settled.node_id
    nodes = [{**one, "node_id": settled.node_id} if one["name"] == "fast" else one for one in crossing()]
    with pytest.raises(NodeIdMismatch):
        admit(text(strategy(nodes)), T0)
