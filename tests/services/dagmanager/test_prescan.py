"""Fast admission beside the slow one: the same graph or the same refusal, whatever is sent, whatever exists, whatever is remembered."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.dag import admission
from qmtl.foundation.common import identity
from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.services.dagmanager import graph as graphs
from qmtl.services.dagmanager import prescan
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph, Held, nobody
from qmtl.services.dagmanager.prescan import MEMO_BYTES, Known, Memo, Prescan
from qmtl.services.dagmanager.raw import MAX_BYTES
from tests.services.dagmanager import memory, spelling
from tests.services.dagmanager.memory import FILLS, Measured
from tests.services.dagmanager.test_admission import HOSTILE
from tests.services.dagmanager.test_cases import CASES, submitted
from tests.services.graphs import T0, crossing, price, sma, strategy, target, text

GOOD = text(strategy(crossing()))
SOUND = [text(one) for one in spelling.SOUND]
ROWS = {one.node.node_id: one.node for data in SOUND for one in admit(data, T0 - 1).nodes}

Verdict = Graph | tuple[Any, ...]


def verdict(judge: Callable[[bytes, int, Held], Graph], data: bytes, at_ms: int, held: Held) -> Verdict:
    try:
        return judge(data, at_ms, held)
    except InvalidDag as refused:
        return type(refused), str(refused), refused.reasons, refused.more


def warm() -> Prescan:
    made = Prescan()
    for data in SOUND:
        made.admit(data, T0 - 5)
    return made


def every_memo() -> list[Prescan]:
    """Nothing remembered, all of it, what fits into 12 kB and into 5 kB, nothing ever."""
    return [Prescan(), warm(), Prescan(12_000), Prescan(5_000), Prescan(0)]


@st.composite
def existing(draw: st.DrawFn) -> Held:
    """Some nodes of the sound messages as rows, and now and then other content under the id of one."""
    some = draw(st.sampled_from([0, len(ROWS), draw(st.integers(1, len(ROWS)))]))
    rows = {node_id: replace(row, tags=("known",)) for node_id, row in list(ROWS.items())[:some]}
    for taken in draw(st.lists(st.sampled_from(list(ROWS)), max_size=2)):
        row = ROWS[taken]
        others = [
            replace(row, period=77),
            replace(row, params_canon='{"a":1}'),
            replace(row, dependencies=(taken,)),
        ]
        rows[taken] = draw(st.sampled_from(others))
    return rows.get


# ---- the law ------------------------------------------------------------------------------------------------------

MEMOS = every_memo()
seeds = st.integers(0, 2**64 - 1)


@settings(max_examples=200, deadline=None)
@given(seeds, existing(), st.sampled_from(MEMOS))
def test_fast_admission_says_what_slow_admission_says(seed: int, held: Held, memo: Prescan) -> None:
    data = spelling.message(Random(seed))
    slow = verdict(admit, data, T0, held)
    for _ in range(2):  # the second time it is known, if it may be
        assert verdict(memo.admit, data, T0, held) == slow


@settings(max_examples=150, deadline=None)
@given(seeds, st.sampled_from([1, 2, 5, 16]))
def test_it_does_so_where_most_ids_collide(seed: int, ids: int) -> None:
    """With a hash of a few values, ids collide within a message and with what exists."""
    draw = Random(seed)
    real = blake3_hex

    def weak(data: bytes, length: int = 32) -> str:
        return f"{int(real(data)[:8], 16) % ids:064x}"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "blake3_hex", weak)
        memo, rows = Prescan(), dict[str, ComputeNode]()
        for data in [text(draw.choice(spelling.SOUND[:4])) for _ in range(3)]:
            slow = verdict(admit, data, T0, rows.get)
            assert verdict(memo.admit, data, T0, rows.get) == slow
            if isinstance(slow, Graph):
                rows |= {one.node.node_id: one.node for one in slow.nodes}


@pytest.mark.parametrize("name", CASES)
def test_every_case_comes_to_the_same(name: str) -> None:
    data = submitted(name)
    slow = verdict(admit, data, T0, nobody)
    new = Prescan()
    for memo in (new, new, Prescan(5_000)):
        assert verdict(memo.admit, data, T0, nobody) == slow


@pytest.mark.parametrize("how", HOSTILE)
def test_no_message_takes_long(how: str) -> None:
    began = time.process_time()
    found = verdict(Prescan().admit, HOSTILE[how], T0, nobody)
    assert time.process_time() - began < 20
    assert found == verdict(admit, HOSTILE[how], T0, nobody)


HEAD = '{"schema_version": "v1", "strategy_id": "s1", "signals": ["target"], %s}'
NODES = json.dumps(crossing())
ODD: dict[str, str | bytes] = {
    "a second list of nodes": HEAD % f'"nodes": {NODES}, "nodes": {NODES}',
    "another list of nodes first": HEAD % f'"nodes": [], "nodes": {NODES}',
    "another list of nodes last": HEAD % f'"nodes": {NODES}, "nodes": []',
    "a second list under an escaped name": HEAD % f'"nodes": {NODES}, "n\\u006fdes": {NODES}',
    "nodes under an escaped name": HEAD % f'"n\\u006fdes": {NODES}',
    "nodes in another field": HEAD % f'"meta": {{"nodes": {NODES}}}, "nodes": {NODES}',
    "nodes in a text": HEAD % f'"meta": {{"description": "\\"nodes\\": [1]"}}, "nodes": {NODES}',
    "nodes at the end of a key": HEAD % f'"meta": {{"a\\"nodes": [] }}, "nodes": {NODES}',
    "a head's key twice": HEAD % f'"strategy_id": "s1", "nodes": {NODES}',
    "a head's key twice, once escaped": HEAD % f'"strateg\\u0079_id": "s1", "nodes": {NODES}',
    "a node's key twice": HEAD % f'"nodes": {NODES}'.replace('"period": 3', '"period": 3, "period": 3'),
    "a node's key twice, once escaped": HEAD
    % f'"nodes": {NODES}'.replace('"period": 3', '"period": 3, "perio\\u0064": 3'),
    "a key twice deep in a node": HEAD
    % f'"nodes": {NODES}'.replace('"period": 3', '"period": 3, "metadata": {"a": {"b": 1, "b": 1}}'),
    "no text in a node": (HEAD % f'"nodes": {NODES}').encode().replace(b"BTC", b"\xff\xfe"),
    "half a character in a node": (HEAD % f'"nodes": {NODES}').encode().replace(b"BTC", b"\xed\xa0\x80"),
    "half an escaped character in a node": (HEAD % f'"nodes": {NODES}').replace("BTC", "\\ud800"),
    "no text in the head": (HEAD % f'"nodes": {NODES}').encode().replace(b"s1", b"s\xc3"),
    "no text after the nodes": (HEAD % f'"nodes": {NODES}, "meta": {{"description": "X"}}')
    .encode()
    .replace(b"X", b"\xc3"),
    "a byte order mark": "\ufeff" + HEAD % f'"nodes": {NODES}',
    "a byte order mark before the nodes": HEAD % f'"nodes": {NODES}'.replace("[{", "[\ufeff{", 1),
    "NUL in a node": (HEAD % f'"nodes": {NODES}').replace("BTC", "\\u0000"),
    "a comma at the end of the nodes": HEAD % f'"nodes": {NODES[:-1]},]',
    "no comma between nodes": HEAD % f'"nodes": {NODES}'.replace("}, {", "} {"),
    "two commas between nodes": HEAD % f'"nodes": {NODES}'.replace("}, {", "},, {"),
    "a text between two nodes": HEAD % f'"nodes": {NODES}'.replace("}, {", '}, "a", {', 1),
    "a vertical tab between nodes": HEAD % f'"nodes": {NODES}'.replace("}, {", "},\x0b{"),
    "two messages": (HEAD % f'"nodes": {NODES}') * 2,
    "a bracket too many": HEAD % f'"nodes": {NODES}]',
    "a brace too few": (HEAD % f'"nodes": {NODES}')[:-1],
    "a list around it": "[" + HEAD % f'"nodes": {NODES}' + "]",
    "too long by one space": (HEAD % f'"nodes": {NODES}').ljust(MAX_BYTES + 1),
    **{
        f"{deep} levels in a node": HEAD
        % f'"nodes": {NODES}'.replace(
            '"period": 3', '"period": 3, "metadata": {"a":' + "[" * deep + "]" * deep + "}"
        )
        for deep in (27, 28, 29, 30, 5_000, 100_000)
    },
}


@pytest.mark.parametrize("how", ODD)
def test_odd_messages_come_to_the_same(how: str) -> None:
    data = found if isinstance(found := ODD[how], bytes) else found.encode()
    slow = verdict(admit, data, T0, nobody)
    for memo in MEMOS:
        assert verdict(memo.admit, data, T0, nobody) == slow


def test_a_node_that_was_sound_in_one_message_is_not_in_another_that_reads_it_otherwise() -> None:
    memo = warm()
    for nodes in (
        crossing(),
        [price(interval=120), *crossing()[1:]],
        crossing()[1:],
        [price(), sma("fast", 3), sma("slow", 8, "slow"), *crossing()[3:]],
        [*crossing(), crossing()[1]],
        [price(symbols=("X",)), *crossing()[1:]],
        crossing(),
    ):
        data = text(strategy(nodes))
        assert verdict(memo.admit, data, T0, nobody) == verdict(admit, data, T0, nobody)


def test_an_id_that_an_author_says_is_held_against_the_inputs_of_this_message() -> None:
    """The text of the node is the same; what it reads is not."""
    memo = warm()
    nodes = spelling.said(crossing())
    memo.admit(text(strategy(nodes)), T0)
    moved = text(strategy([price(symbols=("X",)), *nodes[1:]]))
    slow = verdict(admit, moved, T0, nobody)
    assert not isinstance(slow, Graph)
    assert verdict(memo.admit, moved, T0, nobody) == slow


# ---- it is fast where it may be -----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(len(SOUND)))
@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])
def test_a_sound_message_as_a_machine_writes_it_is_plain(at: int, how: dict[str, Any]) -> None:
    data = json.dumps(spelling.SOUND[at], **how).encode()
    for memo in (Prescan(), warm(), Prescan(0)):
        assert memo.plain(data, T0) == admit(data, T0)
        assert memo.plain(data, T0, ROWS.get) == admit(data, T0, ROWS.get)


def test_what_is_known_is_neither_read_nor_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    memo = warm()

    def never(*given: object) -> Any:
        raise AssertionError(given)

    monkeypatch.setattr(prescan, "read_node", never)
    monkeypatch.setattr(prescan, "content_id", never)
    for data in SOUND:
        assert memo.plain(data, T0) == admit(data, T0)


def test_a_text_that_stands_in_several_strategies_is_found_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strategies of one template differ in their source alone: all else has the same text, and other inputs."""
    memo = Prescan()
    messages = [text(strategy([price(symbols=(one,)), *crossing()[1:]])) for one in ("A", "B", "C")]
    held = {one.node.node_id: one.node for data in messages for one in admit(data, T0).nodes}.get
    for data in messages * 3:
        memo.admit(data, T0, held)

    def never(*given: object) -> Any:
        raise AssertionError(given)

    monkeypatch.setattr(prescan, "read_node", never)
    monkeypatch.setattr(prescan, "content_id", never)
    for data in messages:
        assert memo.plain(data, T0, held) == admit(data, T0, held)


def test_the_time_of_a_submission_is_its_own() -> None:
    memo = Prescan()
    for at_ms in (T0, T0 + 1, 0):
        assert {one.node.created_at_ms for one in memo.admit(GOOD, at_ms).nodes} == {at_ms}


def test_what_is_made_fast_is_as_frozen_as_what_is_made_slowly() -> None:
    one = warm().admit(GOOD, T0).nodes[0]
    for made, field in ((one, "name"), (one.node, "node_id")):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field, "x")
    assert hash(one) == hash(admit(GOOD, T0).nodes[0])


def test_rows_that_are_equal_in_what_is_compared_have_one_content() -> None:
    """Whatever a row has besides its own id, what is shown of it and its history is a part of its content."""
    row = admit(GOOD, T0).nodes[1].node
    others = [
        replace(row, node_type="cross"),
        replace(row, interval=77),
        replace(row, period=77),
        replace(row, code_hash="x"),
        replace(row, schema_compat_id="x"),
        replace(row, params_canon='{"a":1}'),
        replace(row, dependencies=(row.node_id,)),
    ]
    own = {"node_id", "tags", "created_at_ms", "owner", "schema_hash", "buffering_since_ms", "generation"}
    own |= {"unneeded_since_ms", "code"}
    assert len(others) == len(fields(row)) - len(own)
    for other in others:
        assert graphs.content_of(other) != graphs.content_of(row)
        held = {row.node_id: other}.get
        assert verdict(warm().admit, GOOD, T0, held) == verdict(admit, GOOD, T0, held)


# ---- what is remembered is bounded ----------------------------------------------------------------------------------


def many(first: int, count: int) -> bytes:
    return text(strategy([*crossing(), *(sma(f"n{at}", 3 + at % 50) for at in range(first, first + count))]))


@dataclass
class Sized:
    size: int
    used: bool = False


def sized(room: int) -> Memo[str, Sized]:
    return Memo(room, lambda key, value: value.size)


def kept(memo: Memo[str, Sized], keys: str) -> list[str]:
    """Those of the keys that are remembered; looked up so that none of them counts as used."""
    found = [(key, value) for key in keys if (value := memo.get(key)) is not None]
    for _, value in found:
        value.used = False
    return [key for key, _ in found]


def test_what_is_old_and_was_not_used_is_forgotten_first() -> None:
    memo = sized(3_000)
    for key in "abc":
        memo.put(key, Sized(800))
    assert memo.get("a")
    memo.put("d", Sized(800))
    assert kept(memo, "abcd") == ["a", "c", "d"]


def test_what_was_used_is_spared_once_and_no_more() -> None:
    memo = sized(3_000)
    for key in "abc":
        memo.put(key, Sized(800))
    assert memo.get("a")
    for key in "defg":
        memo.put(key, Sized(800))
    assert kept(memo, "abcdefg") == ["e", "f", "g"]


def test_where_all_was_used_something_is_forgotten_all_the_same() -> None:
    memo = sized(30 * 960)
    keys = [chr(ord("a") + at) for at in range(30)]
    for key in keys:
        memo.put(key, Sized(800))
    assert all(memo.get(key) for key in keys)
    memo.put("new", Sized(800))
    assert len(memo) == 30
    assert memo.get("new")


@pytest.mark.parametrize("size", [0, 1_000, 20_000, 200_000])
def test_bytes_are_bounded(size: int) -> None:
    memo = Prescan(size)
    for at in range(0, 300, 20):
        memo.admit(many(at, 20), T0)
        assert memo.known.size + memo.rows.size <= size
    assert bool(len(memo.known)) == (size > 1_000)


def test_bytes_are_counted_down_as_they_were_counted_up() -> None:
    memo = sized(10_000)
    for key, size in (("a", 100), ("b", 9_100), ("c", 400)):
        memo.put(key, Sized(size))
    assert kept(memo, "abc") == ["b", "c"]
    memo.put("d", Sized(8_000))
    assert kept(memo, "bcd") == ["c", "d"]
    memo.put("e", Sized(10_001))
    assert (len(memo), memo.size) == (0, 0)


@pytest.fixture(scope="module")
def measured() -> Measured:
    """By a process of its own: what else a long-lived one does in the meantime is counted too."""
    done = subprocess.run([sys.executable, "-m", memory.__name__], capture_output=True, check=True)
    return msgspec.json.decode(done.stdout, type=Measured)


@pytest.mark.parametrize("how", FILLS)
def test_what_is_counted_is_what_is_taken(measured: Measured, how: str) -> None:
    one = measured.sound[how]
    assert one.taken < one.known + one.rows < 2 * one.taken


@pytest.mark.parametrize("how", FILLS)
def test_it_is_so_where_texts_are_sound_and_their_graph_is_not(measured: Measured, how: str) -> None:
    """Then there are texts and no rows that could be counted for them."""
    one = measured.dangling[how]
    assert (one.rows, one.texts > 30) == (0, True)
    assert one.taken < one.known < 2 * one.taken


@pytest.mark.parametrize("how", FILLS)
def test_what_is_forgotten_takes_nothing(measured: Measured, how: str) -> None:
    """A row may outlive the text that it was made from: the latter's memory goes with the text."""
    one = measured.narrow[how]
    assert one.taken < memory.NARROW
    assert one.known > memory.NARROW // 4


def test_no_space_between_nodes_is_there_more_than_once(measured: Measured) -> None:
    assert measured.peak_of_gaps < 4


def test_no_row_keeps_what_a_text_says_once_the_text_is_forgotten() -> None:
    def there() -> int:
        gc.collect()
        return sum(type(one) is Known for one in gc.get_objects())

    before, memo = there(), Prescan(200_000)
    for data in FILLS["long notes"]:
        assert memo.plain(data, T0) is not None
    assert len(memo.rows) > len(memo.known) > 0
    assert there() - before == len(memo.known)


def test_so_many_nodes_are_remembered_as_is_promised() -> None:
    """From what a thousand nodes of the usual length take."""
    memo = Prescan()
    graph = memo.admit(admission.message(range(200)), T0)
    assert memo.known.most >= memo.known.size / 1_000 * 87_000
    assert memo.rows.most >= memo.rows.size / 1_000 * 35_000
    assert memo.known.most + memo.rows.most == MEMO_BYTES
    memo.admit(admission.message(range(200)), T0, {one.node.node_id: one.node for one in graph.nodes}.get)
    assert memo.known.most >= memo.known.size / 1_000 * 105_000
    assert memo.rows.size == 0


def test_a_faulty_node_is_not_remembered() -> None:
    memo = Prescan()
    faulty = [target(share=2.0), sma("fast", 0), sma("fast", 3, node_id="blake3:" + "0" * 64)]
    for one in faulty:
        data = text(strategy([price(), one], signals=[one["name"]]))
        for _ in range(2):
            assert verdict(memo.admit, data, T0, nobody) == verdict(admit, data, T0, nobody)
    assert (
        len(memo.rows) == 1
    )  # the source; a text is sound or not, whatever its author says of the node's id
    assert len(memo.known) == 2
