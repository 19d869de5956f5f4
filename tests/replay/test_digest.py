"""Digests: the same for everything that says the same, wherever it lies in a log; another for anything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import UnknownTopic
from qmtl.foundation.contracts.control import DeadLetter, InputPosition, TaskCut
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import MESSAGES, codec
from qmtl.foundation.wire.topics import DAY_MS, topic
from qmtl.replay.digest import blanked, digests
from tests.replay.logs import (
    RAW,
    RAW_SPEC,
    START_MS,
    Clock,
    Row,
    bar,
    commit,
    log_in,
    marker,
    raw_task,
    row,
    stamp,
    tombstone,
    world,
)

MINUTE_MS = 60_000
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

worlds = st.builds(
    lambda name, cash: row("world.state", world(name, str(cash))), st.sampled_from("abc"), st.integers(0, 3)
)
deaths = st.builds(lambda name: tombstone("world.state", name), st.sampled_from("abc"))
marks = st.builds(lambda number: marker("world.state", START_MS + number), st.integers(0, 3))
table_rows = st.lists(st.one_of(worlds, deaths, marks), max_size=12)
stream_rows = st.lists(
    st.builds(lambda name, cash: ("trade.market", 0, encode_key((name,)), codec.encode(world(name, str(cash)))),
              st.sampled_from("abc"), st.integers(0, 3)),
    max_size=12,
)  # fmt: skip


def digest_of(directory: Path, batches: Sequence[Sequence[Row]], name: str) -> str:
    with log_in(directory / uuid4().hex, specs=[RAW_SPEC if name == RAW else topic(name)]) as log:
        for batch in batches:
            commit(log, batch)
        return digests(log, codec, [name])[name]


def split(rows: Sequence[Row], cuts: Sequence[int]) -> list[Sequence[Row]]:
    places = sorted({cut % (len(rows) + 1) for cut in cuts} | {0, len(rows)})
    return [rows[start:end] for start, end in pairwise(places)]


# ---- what does not matter ---------------------------------------------------------------------------------------


@QUICK
@given(rows=table_rows, cuts=st.lists(st.integers(0, 12), max_size=4))
def test_a_table_has_the_digest_of_its_newest_values_alone(
    tmp_path: Path, rows: list[Row], cuts: list[int]
) -> None:
    newest = {key: value for _, _, key, value in rows}
    bare = [("world.state", 0, key, value) for key, value in sorted(newest.items()) if value is not None]
    assert digest_of(tmp_path, split(rows, cuts), "world.state") == digest_of(tmp_path, [bare], "world.state")


@QUICK
@given(rows=stream_rows, cuts=st.lists(st.integers(0, 12), max_size=4), order=st.permutations("abc"))
def test_a_stream_has_the_digest_of_each_keys_sequence_however_keys_and_transactions_mix(
    tmp_path: Path, rows: list[Row], cuts: list[int], order: list[str]
) -> None:
    by_key = [one for name in order for one in rows if one[2] == encode_key((name,))]
    assert digest_of(tmp_path, split(rows, cuts), "trade.market") == digest_of(
        tmp_path, [by_key], "trade.market"
    )


def test_compaction_does_not_change_the_digest_of_a_table(tmp_path: Path) -> None:
    clock = Clock()
    with log_in(tmp_path / "log", clock) as log:
        for cash in range(5):
            commit(log, [row("world.state", world("a", str(cash))), row("world.state", world("b", "1"))])
        commit(log, [tombstone("world.state", "b"), marker("world.state", START_MS)])
        before = digests(log, codec)
        clock.now_ms += 30 * DAY_MS
        assert log.clean() > 5
        assert digests(log, codec) == before


def test_position_stamps_and_the_positions_in_markers_stay_out(tmp_path: Path) -> None:
    rows = [row("world.state", world("a")), marker("world.state", START_MS)]
    moved = [
        stamp("world.state", 1),
        rows[0],
        marker("world.state", START_MS),
        stamp("world.state", 9),
    ]
    assert digest_of(tmp_path, [rows], "world.state") == digest_of(tmp_path, [moved], "world.state")


def test_the_partition_that_a_key_lies_in_stays_out(tmp_path: Path) -> None:
    one = [
        row(RAW, bar("BTC", 0), 0),
        row(RAW, bar("ETH", 0), 1),
        *(marker(RAW, START_MS, at) for at in range(3)),
    ]
    other = [
        row(RAW, bar("BTC", 0), 2),
        row(RAW, bar("ETH", 0), 2),
        *(marker(RAW, START_MS, at) for at in range(3)),
    ]
    assert digest_of(tmp_path, [one], RAW) == digest_of(tmp_path, [other], RAW)


@QUICK
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([b"a", b"ab", b"b"]), st.sampled_from([None, b"", b"b"])), max_size=3
    ),
    others=st.lists(
        st.tuples(st.sampled_from([b"a", b"ab", b"b"]), st.sampled_from([None, b"", b"b"])), max_size=3
    ),
)
@example(rows=[(b"a", b"b")], others=[(b"b", b"b")])
@example(rows=[(b"ab", b"")], others=[(b"a", b"b")])
@example(rows=[(b"a", b""), (b"b", b"")], others=[(b"b", b""), (b"a", b"")])
@example(rows=[(b"a", b"b")], others=[(b"a", b"b")] * 2)
@example(rows=[(b"a", None)], others=[(b"a", b"")])
def test_under_text_keys_a_partition_has_the_digest_of_its_keys_and_values_in_order(
    tmp_path: Path, rows: list[tuple[bytes, bytes | None]], others: list[tuple[bytes, bytes | None]]
) -> None:
    """One that is there twice counts; how records are split into transactions does not."""
    one, other = ([("trade.market", 0, *pair) for pair in pairs] for pairs in (rows, others))
    same = digest_of(tmp_path, [[found] for found in one], "trade.market") == digest_of(
        tmp_path, [other], "trade.market"
    )
    assert same is (rows == others)


# ---- what matters -----------------------------------------------------------------------------------------------


@QUICK
@given(rows=st.lists(worlds, min_size=1, max_size=8), at=st.integers(0, 7))
def test_any_other_newest_value_gives_another_digest(tmp_path: Path, rows: list[Row], at: int) -> None:
    keys = sorted({one[2] for one in rows})
    changed = ("world.state", 0, keys[at % len(keys)], codec.encode(world("a", "99")))
    assert digest_of(tmp_path, [rows], "world.state") != digest_of(
        tmp_path, [[*rows, changed]], "world.state"
    )


@QUICK
@given(rows=stream_rows.filter(bool), at=st.integers(0, 11))
def test_a_stream_with_one_value_less_or_changed_has_another_digest(
    tmp_path: Path, rows: list[Row], at: int
) -> None:
    place = at % len(rows)
    name, partition, key, _ = rows[place]
    fewer = rows[:place] + rows[place + 1 :]
    changed = [*rows[:place], (name, partition, key, codec.encode(world("z"))), *rows[place + 1 :]]
    found = {digest_of(tmp_path, [one], "trade.market") for one in (rows, fewer, changed)}
    assert len(found) == 3


def test_the_order_of_one_keys_values_matters_in_a_stream(tmp_path: Path) -> None:
    first, second = row(RAW, bar("BTC", 0), 0), row(RAW, bar("BTC", 1), 0)
    assert digest_of(tmp_path, [[first, second]], RAW) != digest_of(tmp_path, [[second, first]], RAW)


def test_bytes_can_not_move_from_a_key_to_its_value_or_to_the_next_key(tmp_path: Path) -> None:
    name = "trade.market"
    found = {
        digest_of(tmp_path, [rows], name)
        for rows in (
            [(name, 0, b"\x02ab", b"c")],
            [(name, 0, b"\x02a", b"bc")],
            [(name, 0, b"\x02a", b"b"), (name, 0, b"c", b"")],
            [(name, 0, b"\x02a", b"b"), (name, 0, b"\x02a", b"c")],
            [(name, 0, b"\x02ab", None), (name, 0, b"c", None)],
            [(name, 0, b"\x02ab", b"\x00")],
            [(name, 0, b"\x02ab", None)],
            [(name, 0, b"\x02ab", b"")],
            [],
        )
    }
    assert len(found) == 9


def test_a_marker_of_another_bucket_or_count_gives_another_digest(tmp_path: Path) -> None:
    here = marker("world.state", START_MS)
    later = marker("world.state", START_MS + MINUTE_MS)
    counted = (*here[:3], codec.encode(replace(codec.decode(here[3] or b""), count=1)))
    assert len({digest_of(tmp_path, [[one]], "world.state") for one in (here, later, counted)}) == 3


# ---- the rest -----------------------------------------------------------------------------------------------------


def test_the_digest_is_made_as_it_is_described(tmp_path: Path) -> None:
    """Digests are compared across machines and releases, so their making is stated here a second time."""
    state, mark = row("world.state", world("a")), marker("world.state", START_MS)
    letter = DeadLetter("trading", "clock", "QMTL-202", "torn", b"k", b"v", 3, 17)
    blank = codec.encode(replace(letter, partition=0, offset=0))
    bars = [row(RAW, bar("BTC", number), 0) for number in (0, 1)]
    with log_in(tmp_path / "log") as log:
        commit(log, [state, mark, *bars, ("dead.letters", 0, b"\x02k", codec.encode(letter))])
        found = digests(log, codec, ["world.state", RAW, "activation", "dead.letters"])

    def framed(key: bytes, inner: bytes) -> bytes:
        return len(key).to_bytes(8, "big") + key + inner

    def hashed(data: bytes) -> bytes:
        return blake3(data).digest()

    table = framed(mark[2], hashed(mark[3] or b"")) + framed(state[2], hashed(state[3] or b""))
    assert mark[2] < state[2]
    chain = hashed(hashed(bytes(32) + b"\x01" + (bars[0][3] or b"")) + b"\x01" + (bars[1][3] or b""))
    assert found == {
        "activation": "blake3:" + hashed(b"qmtl digest 1 table\0")[:16].hex(),
        "dead.letters": "blake3:"
        + hashed(b"qmtl digest 1 stream\0" + framed(b"\x02k", hashed(bytes(32) + b"\x01" + blank)))[
            :16
        ].hex(),
        RAW: "blake3:" + hashed(b"qmtl digest 1 stream\0" + framed(bars[0][2], chain))[:16].hex(),
        "world.state": "blake3:" + hashed(b"qmtl digest 1 table\0" + table)[:16].hex(),
    }


def test_the_catalogue_and_the_topics_of_nodes_are_digested_and_nothing_else(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        assert RAW not in digests(log, codec)
        commit(log, [row("dag.tasks", raw_task())])
        found = digests(log, codec)
        assert sorted(found) == log.topics() == list(found)


def test_an_unknown_topic_is_refused(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log, pytest.raises(UnknownTopic, match=r"nowhere"):
        digests(log, codec, ["nowhere"])


def test_blanking_empties_coordinates_at_any_depth_and_nothing_else() -> None:
    letter = DeadLetter("trading", "clock", "QMTL-202", "torn", b"k", b"v", 3, 17)
    assert blanked(letter) == replace(letter, partition=0, offset=0)
    cut = TaskCut("nodes", 1, (InputPosition("clock", 0, 9),))
    assert blanked((cut, {"in": cut})) == (TaskCut("nodes", 1), {"in": TaskCut("nodes", 1)})
    plain = world("a")
    assert blanked(plain) is plain


def test_every_coordinate_of_the_contracts_can_be_blanked() -> None:
    """A coordinate without a default would only be found when the first such record is digested."""
    found = [(one, field) for one in MESSAGES for field in fields(one) if field.metadata.get("coordinate")]
    assert {one.__name__ for one, _ in found} >= {"PositionStamp", "TaskCut", "DeadLetter"}
    for one, field in found:
        assert is_dataclass(one)
        assert field.default is not MISSING or field.default_factory is not MISSING, (one, field.name)
