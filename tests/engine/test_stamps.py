"""A transaction stamps what it wrote and the first table; what all tables end with is still proved to be one transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.recovery import Restored, restore
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.stamps import THIS_ONE, digest_of, endings, last_stamp, to_be_stamped
from qmtl.engine.store import Cause, Store
from qmtl.engine.table import Table, unframe
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import StampMismatch
from qmtl.foundation.contracts.control import InputPosition, PositionStamp, TableStamp
from qmtl.foundation.wire.keys import decode_key, encode_key, is_marker, is_stamp
from qmtl.foundation.wire.topics import TopicSpec
from tests.engine.driving import bench, table
from tests.engine.models import minute
from tests.engine.toys import (
    A_MIRROR,
    B_STATE,
    CODEC,
    SIDE,
    TOPICS,
    Feed,
    Item,
    Total,
    Toy,
    X,
    make_topics,
    rows,
)

ALL: Final = ("toy.first", "toy.second", "toy.third")
SPECS: Final = tuple(rows(name) for name in ALL)
WHERES: Final = tuple(TopicPartition(name, 0) for name in ALL)
SAID: Final = TopicPartition(SIDE.name, 0)

Writes = Sequence[tuple[int, str]]
"""Of each transaction, which tables it writes, as bits, and the row."""

WRITES: st.SearchStrategy[Writes] = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from("ab")), min_size=1, max_size=7
)


class Several(Toy):
    """Writes an item into those of three tables that the bits of its amount name."""

    name = "several"
    anchor = SIDE.name
    tables = ALL

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name),)

    def topics(self) -> dict[str, TopicSpec]:
        return {**TOPICS, **{spec.name: spec for spec in SPECS}}

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        for bit, name in enumerate(ALL):
            if item.amount >> bit & 1:
                step.table(name).put(Total(item.name, item.seq))


def say(log: Log, writes: Writes, first: int = 0) -> None:
    writer = log.writer("people")
    for number, (bits, name) in enumerate(writes, first):
        writer.begin()
        item = Item(name, number, bits)
        writer.append(SIDE.name, 0, encode_key(SIDE.key_of(item)), CODEC.encode(item))
        writer.commit({}, "", None)
    writer.close()


def run(log: Log, state: Path, writes: Writes, first: int = 0) -> None:
    """Each item in a transaction of its own."""
    say(log, writes, first)
    with bench(log, state, Several, poll=1, room=1, interval_ms=0.0) as runs:
        runs.settle()


Rows = dict[str, dict[str, int]]


def model(writes: Writes) -> Rows:
    out: Rows = {name: {} for name in ALL}
    for number, (bits, key) in enumerate(writes):
        for bit, name in enumerate(ALL):
            if bits >> bit & 1:
                out[name][key] = number
    return out


def read_back(
    log: Log, store: Store, until: dict[TopicPartition, int] | None = None
) -> tuple[Restored, Rows]:
    tables = {spec.name: Table(spec, 0, store, CODEC) for spec in SPECS}
    found = restore(log, store, tables, CODEC, until=until)
    out: Rows = {name: {} for name in ALL}
    for name in ALL:
        for key, row in store.scan(name):
            data = unframe(row)[-1].data
            if data is not None:
                out[name][str(decode_key(key)[0])] = CODEC.decode(data).amount
    return found, out


@contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as found:
        yield Path(found)


def stamps_in(log: Log, where: TopicPartition) -> list[tuple[int, PositionStamp]]:
    return [
        (one.offset, CODEC.decode(one.value))
        for one in read_all(log, [where])
        if is_stamp(one.key) and one.value is not None
    ]


def position(stamp: PositionStamp) -> int:
    [one] = stamp.positions
    return one.offset


def cut_short(log: Log, ends: dict[TopicPartition, int]) -> dict[TopicPartition, bool]:
    """By table, whether it ends within a transaction where it is cut like this: records lie behind its last stamp."""
    out = {}
    for where, end in ends.items():
        found = [one for one in read_all(log, [where]) if one.offset < end]
        out[where] = bool(found) and not is_stamp(found[-1].key)
    return out


@given(WRITES, st.data())
@settings(max_examples=80, deadline=None)
def test_tables_cut_anywhere_are_one_transaction_or_refused(writes: Writes, data: st.DataObject) -> None:
    with place() as path:
        log = SimulatedLog()
        make_topics(log)
        log.ensure_topics(SPECS)
        run(log, path / "state", writes)
        ends = log.end_offsets(list(WHERES))
        until = {where: data.draw(st.integers(0, ends[where])) for where in WHERES}
        seen = {
            where: [position(stamp) for at, stamp in stamps_in(log, where) if at < until[where]]
            for where in WHERES
        }
        written = {where: [position(stamp) for _, stamp in stamps_in(log, where)] for where in WHERES}
        # By the definition: after some transaction, every table has what it and those before had written, and no more.
        whole = [
            number
            for number in {at for found in written.values() for at in found} | {0}
            if all(seen[where] == [at for at in written[where] if at <= number] for where in WHERES)
        ]
        store = Store(path / "again", log.log_id)
        try:
            if not whole or any(cut_short(log, until).values()):
                if any(seen.values()):
                    with pytest.raises(StampMismatch):
                        read_back(log, store, until)
                return
            found, rows_now = read_back(log, store, until)
            at = max(whole) if any(seen.values()) else 0
            assert found.positions.get(SAID, 0) == at
            said = {one.offset: number for number, one in enumerate(read_all(log, [SAID]))}
            count = sum(offset < at for offset in said)
            assert rows_now == model(writes[:count])
        finally:
            store.close()


@given(WRITES, WRITES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_store_is_topped_up_and_goes_on_whatever_the_cleaner_took(
    first: Writes, second: Writes, data: st.DataObject
) -> None:
    with place() as path:
        log = SimulatedLog()
        make_topics(log)
        log.ensure_topics(SPECS)
        run(log, path / "state", first)
        store = Store(path / "again", log.log_id)
        try:
            assert read_back(log, store)[1] == model(first)
            kept = data.draw(st.booleans())
            run(log, path / ("state" if kept else "other"), second, len(first))
            for where in WHERES:
                log.cluster.compact(where, data.draw(st.integers(0, log.end_offsets([where])[where])))
            found, rows_now = read_back(log, store)
            assert rows_now == model([*first, *second])
            assert found.positions == {SAID: [*read_all(log, [SAID])][-1].offset + 1}
        finally:
            store.close()


def test_only_what_was_written_and_the_first_table_are_stamped(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    try:
        make_topics(log)
        log.ensure_topics(SPECS)
        run(log, tmp_path / "state", [(0b100, "a"), (0b010, "a"), (0b000, "a")])
        first, second, third = (stamps_in(log, where) for where in WHERES)
        assert [position(stamp) for _, stamp in first] == sorted({position(stamp) for _, stamp in first})
        assert len(first) == 3
        assert [stamp for _, stamp in second] == [
            stamp for _, stamp in first[:2]
        ]  # a table without a stamp gets one
        assert [stamp for _, stamp in third] == [stamp for _, stamp in first[:1]]
        digests = [digest_of(CODEC.encode(stamp)) for _, stamp in first]
        assert first[2][1].tables == (
            TableStamp(ALL[0], THIS_ONE),
            TableStamp(ALL[1], digests[1]),
            TableStamp(ALL[2], digests[0]),
        )
    finally:
        log.close()


@pytest.mark.parametrize("harm", [1, 2])
def test_a_table_that_lost_its_end_is_refused_though_later_transactions_did_not_write_it(
    tmp_path: Path, harm: int
) -> None:
    log = SimulatedLog()
    make_topics(log)
    log.ensure_topics(SPECS)
    run(log, tmp_path / "state", [(0b111, "a"), (0b111, "b"), (0b000, "a"), (0b000, "b")])
    ends = log.end_offsets(list(WHERES))
    at = stamps_in(log, WHERES[harm])[-1][0]
    store = Store(tmp_path / "again", log.log_id)
    with pytest.raises(StampMismatch, match="don't end with one transaction"):
        read_back(log, store, {**ends, WHERES[harm]: at - 1})
    store.close()


def test_what_lies_behind_the_last_stamp_of_a_table_is_the_end_of_no_transaction(tmp_path: Path) -> None:
    """The first table ends with the first transaction, and so would the second, but for a row of the next one."""
    log = SimulatedLog()
    make_topics(log)
    log.ensure_topics(SPECS)
    run(log, tmp_path / "state", [(0b111, "a"), (0b010, "b")])
    first, second = ([at for at, _ in stamps_in(log, where)] for where in WHERES[:2])
    until = {WHERES[0]: first[0] + 1, WHERES[1]: second[1], WHERES[2]: log.end_offsets(WHERES)[WHERES[2]]}
    store = Store(tmp_path / "again", log.log_id)
    with pytest.raises(StampMismatch, match="don't end with one transaction"):
        read_back(log, store, until)
    store.wipe(Cause.ACCEPTED, "without that row it is a whole one")
    assert read_back(log, store, {**until, WHERES[1]: second[0] + 1})[1] == model([(0b111, "a")])
    store.close()


class Closes(Toy):
    """Writes its first table only, and closes every bucket of the second one."""

    name = "closes"
    anchor = X.name
    tables = (A_MIRROR.name, B_STATE.name)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(X.name, bucketed=True),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return (B_STATE,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        step.table(A_MIRROR.name).put(Total("a", bucket.bucket_ms))


def test_a_close_marker_is_followed_by_a_stamp_as_a_row_is(tmp_path: Path) -> None:
    log = SimulatedLog()
    make_topics(log)
    feed = Feed(log, X)
    for number in range(3):
        feed.bucket(minute(number))
        with bench(log, tmp_path / str(number), Closes) as runs:  # each time from the log alone
            runs.settle()
    closed = [one for one in read_all(log, [TopicPartition(B_STATE.name, 0)]) if is_marker(one.key)]
    last = [*read_all(log, [TopicPartition(B_STATE.name, 0)])][-1]
    assert len(closed) == 4
    assert is_stamp(last.key)
    assert table(log, A_MIRROR.name) == {encode_key(("a",)): CODEC.encode(Total("a", minute(2)))}


def stamp_of(offset: int, tables: Sequence[tuple[str, str]] = ()) -> PositionStamp:
    said = tuple(TableStamp(*one) for one in tables)
    return PositionStamp("several", 0, (InputPosition(SIDE.name, 0, offset),), (), (), said)


def test_stamps_of_before_there_were_tables_in_them_end_all_tables() -> None:
    old, other = stamp_of(1), stamp_of(2)
    raw, raw_other = CODEC.encode(old), CODEC.encode(other)
    both = {"a": (raw, old), "b": (raw, old)}
    assert last_stamp(both, {"a": digest_of(raw), "b": digest_of(raw)}) == (raw, old)
    assert last_stamp(both, {"a": digest_of(raw), "b": digest_of(raw), "new": None}) == (raw, old)
    torn = {"a": (raw, old), "b": (raw_other, other)}
    assert last_stamp(torn, {"a": digest_of(raw), "b": digest_of(raw_other)}) is None


def test_a_stamp_that_names_no_table_says_nothing_of_one_that_has_records() -> None:
    one = stamp_of(1, [("a", THIS_ONE), ("b", THIS_ONE)])
    raw = CODEC.encode(one)
    ends = {"a": digest_of(raw), "b": digest_of(raw)}
    assert last_stamp({"a": (raw, one)}, ends) == (raw, one)
    assert last_stamp({"a": (raw, one)}, {**ends, "new": None}) == (raw, one)
    assert last_stamp({"a": (raw, one)}, {**ends, "new": digest_of(raw)}) is None
    assert last_stamp({"a": (raw, one)}, {**ends, "b": None}) is None


def test_what_is_stamped() -> None:
    known = {"a": "1", "b": "2", "c": "3"}
    assert to_be_stamped("abc", set(), known) == ("a",)
    assert to_be_stamped("abc", {"c"}, known) == ("a", "c")
    assert to_be_stamped("abc", set(), {"a": "1"}) == ("a", "b", "c")
    assert endings("a", {"a"}, {}) == ()
    assert endings("abc", {"a", "c"}, known) == (
        TableStamp("a", THIS_ONE),
        TableStamp("b", "2"),
        TableStamp("c", THIS_ONE),
    )
