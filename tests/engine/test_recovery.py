"""Recovery: a store that is gone, foreign, damaged or old is built again from the log, and a log that lies is refused."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Input, Step
from qmtl.engine.recovery import restore
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.store import Cause, Rebuilt, Store
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Table
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import InvariantBroken, LogRegressed, StampMismatch
from qmtl.foundation.contracts.control import InputPosition, PositionStamp
from qmtl.foundation.wire.keys import encode_key, is_reserved, stamp_key
from qmtl.foundation.wire.topics import DAY_MS
from tests.contract.driving import put
from tests.engine.driving import Bench, bench, closed, messages, table
from tests.engine.models import Buckets, counted, items, late_model, minute
from tests.engine.toys import (
    A_MIRROR,
    CODEC,
    COUNTS,
    ECHO,
    ITEMS,
    LATE_OUT,
    LATE_STATE,
    SIDE,
    Counter,
    Feed,
    Item,
    Late,
    Total,
    Toy,
    X,
    make_topics,
)

ITEMS0 = TopicPartition(ITEMS.name, 0)
COUNTER = "counter-0"


def contents(place: Path, log: Log, table_name: str) -> tuple[list[tuple[bytes, bytes]], Checkpoint]:
    store = Store(place, log.log_id)
    try:
        return list(store.scan(table_name)), store.checkpoint
    finally:
        store.close()


Act = tuple[str, list[tuple[str, int]]]
ACTS: st.SearchStrategy[list[Act]] = st.lists(
    st.tuples(
        st.sampled_from(["bucket", "side", "run"]),
        st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 3)), max_size=3),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=25)
@given(ACTS, st.integers(1, 3))
def test_a_store_built_from_the_log_is_the_store_that_lived_byte_by_byte(
    acts: Sequence[Act], lag: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        x, side = Feed(log, X), Feed(log, SIDE)
        with bench(log, Path(place) / "live", lambda: Late(lag)) as runs:
            for number, (kind, found) in enumerate(acts):
                if kind == "bucket":
                    x.bucket(minute(number), {0: items(found, number)})
                elif kind == "side":
                    side.put({0: items(found, number)})
                else:
                    runs.settle()
            runs.settle()
        with bench(log, Path(place) / "again", lambda: Late(lag)) as runs:
            runs.settle()
        live, lived = contents(Path(place) / "live" / "late-0", log, LATE_STATE.name)
        again, restored = contents(Path(place) / "again" / "late-0", log, LATE_STATE.name)
        assert again == live
        assert (restored.positions, restored.buckets) == (lived.positions, lived.buckets)
        log.close()


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=3), min_size=2, max_size=14
    )
)
def test_a_compacted_log_restores_the_cut_that_the_next_bucket_reads(buckets: Buckets) -> None:
    now = [0]
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log", clock_ms=lambda: now[0])
        make_topics(log)
        feed = Feed(log, X)
        for number, bucket in enumerate(buckets):
            feed.bucket(minute(number), {0: items(bucket, number)})
            with bench(log, Path(place) / str(number), lambda: Late(1)) as runs:  # each time without a store
                runs.settle()
            now[0] += 30 * DAY_MS
            log.clean()
        assert messages(log, LATE_OUT.name) == late_model(buckets, 1)
        log.close()


# ---- stores that are no good --------------------------------------------------------------------------------------


class Counting:
    """A counter on partition 0 that is run again and again, and a list of what it was given."""

    def __init__(self, log: Log, state: Path) -> None:
        self.log = log
        self.state = state
        self.given: list[Item] = []
        make_topics(log)

    def give(self, *found: tuple[str, int]) -> None:
        fresh = [Item(name, len(self.given) + index, amount) for index, (name, amount) in enumerate(found)]
        feed = Feed(self.log, ITEMS)
        feed.put({0: fresh})
        feed.close()
        self.given += fresh

    def run(self, during: Callable[[Bench], None] = lambda runs: None) -> None:
        with bench(self.log, self.state, Counter) as runs:
            during(runs)
            runs.until(lambda: len(messages(self.log, ECHO.name)) >= len(self.given))

    def check(self) -> None:
        found = sorted(messages(self.log, ECHO.name), key=lambda one: one.seq)
        assert found == counted(self.given)


@pytest.fixture
def counting(embedded_log: EmbeddedLog, tmp_path: Path) -> Counting:
    one = Counting(embedded_log, tmp_path / "state")
    one.give(("a", 1), ("b", 2), ("a", 3))
    one.run()
    return one


def test_without_its_store_a_task_goes_on_as_with_it(log: Log, tmp_path: Path) -> None:
    one = Counting(log, tmp_path / "state")
    for number in range(3):
        one.give(("a", 1), ("b", number), ("c", 2))
        one.run()
        shutil.rmtree(tmp_path / "state")
    one.check()


def test_a_store_of_another_log_is_wiped(counting: Counting, tmp_path: Path) -> None:
    other = EmbeddedLog(tmp_path / "other")
    moved = Counting(other, counting.state)
    moved.give(("a", 5))
    moved.run()
    moved.check()
    other.close()


def destroy_current(place: Path) -> None:
    (place / "CURRENT").write_bytes(b"junk\n")


def destroy_manifests(place: Path) -> None:
    for found in place.glob("MANIFEST-*"):
        found.write_bytes(found.read_bytes()[:10])


def destroy_everything(place: Path) -> None:
    for found in place.iterdir():
        if found.is_file():
            found.write_bytes(b"x" * 100)


def destroy_format(place: Path) -> None:
    store = Store(place, "another log")
    store._db.put(b"\x00meta", b'{"format": 0}')
    store.close()


def destroy_meta(place: Path) -> None:
    store = Store(place, "another log")
    store._db.put(b"\x00meta", b"no json")
    store.close()


@pytest.mark.parametrize(
    "destroy", [destroy_current, destroy_manifests, destroy_everything, destroy_format, destroy_meta]
)
def test_a_store_that_is_no_store_is_built_again(counting: Counting, destroy: Callable[[Path], None]) -> None:
    destroy(counting.state / COUNTER)
    counting.give(("a", 1), ("b", 1))
    counting.run()
    counting.check()


def test_damage_that_shows_only_when_a_row_is_read_builds_the_store_again(counting: Counting) -> None:
    chance = random.Random(1)
    counting.give(*((f"{chance.randrange(10**12)}", 1) for _ in range(3000)))
    counting.run()
    store = Store(counting.state / COUNTER, counting.log.log_id)
    store._db.flush()
    store.close()
    data = max((counting.state / COUNTER).glob("*.sst"), key=lambda found: found.stat().st_size)
    raw = bytearray(data.read_bytes())
    for place in range(0, len(raw) * 3 // 4, 2000):
        raw[place] ^= 0xFF
    data.write_bytes(raw)
    counting.give(*((item.name, 1) for item in counting.given[3::100]))
    counting.run()
    counting.check()


def test_a_store_that_another_worker_of_the_process_holds_is_left_alone(counting: Counting) -> None:
    held = Store(counting.state / COUNTER, counting.log.log_id)
    with pytest.raises(InvariantBroken, match="held"):
        counting.run()
    assert len(list(held.scan(COUNTS.name))) == 2
    held.close()


def test_rows_that_a_broken_off_restore_left_are_not_believed(counting: Counting) -> None:
    counting.state = counting.state.with_name("fresh")
    store = Store(counting.state / COUNTER, counting.log.log_id)
    row = CODEC.encode(Total("ghost", 99))
    store.write(
        [(COUNTS.name, encode_key(("ghost",)), b"\0" * 8 + len(row).to_bytes(4, "big") + row)],
        store.checkpoint,
    )
    store.close()
    counting.give(("ghost", 1))
    counting.run()
    counting.check()


def test_a_store_older_than_the_tombstones_is_built_again_and_revives_nothing(tmp_path: Path) -> None:
    now = [0]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    one = Counting(log, tmp_path / "state")
    one.give(("a", 1), ("b", 1))
    one.run()
    shutil.copytree(tmp_path / "state", tmp_path / "asleep")
    one.give(("a", 0))
    one.run()
    now[0] += COUNTS.delete_retention_ms + DAY_MS
    one.give(("b", 1))
    one.run()
    assert log.clean() > 0
    assert table(log, COUNTS.name).keys() == {encode_key(("b",))}
    one.state = tmp_path / "asleep"
    one.give(("a", 5))
    one.run()
    one.check()
    log.close()


class Aging:
    """A log by a clock that is set by hand, a table in it, and a store that knows the first two transactions on it."""

    def __init__(self, place: Path) -> None:
        self.now_ms = 10 * COUNTS.delete_retention_ms
        self.log = EmbeddedLog(place / "log", clock_ms=lambda: self.now_ms)
        make_topics(self.log)
        self.place = place / "store"
        for number in range(2):
            self.transaction(number)

    def transaction(self, number: int) -> None:
        row = (encode_key((f"{number}",)), CODEC.encode(Total(f"{number}", number)))
        stamp = CODEC.encode(PositionStamp("counter", 0, (), (number,)))
        where = TopicPartition(COUNTS.name, 0)
        put(self.log, [(where, *row), (where, stamp_key("counter", 0), stamp)])

    def restored(self) -> list[Cause]:
        """Why the store was thrown away when the task was opened."""
        told: list[Rebuilt] = []
        store = Store(self.place, self.log.log_id, told.append)
        try:
            restore(self.log, store, {COUNTS.name: Table(COUNTS, 0, store, CODEC)}, CODEC)
        finally:
            store.close()
        return [one.cause for one in told]

    def lived(self) -> None:
        """The store ends at the end of the last transaction, in front of its marker, as it does in a task that has run."""
        store = Store(self.place, self.log.log_id)
        known = store.checkpoint
        tables = {where: end - 1 for where, end in known.tables.items()}
        store.write([], replace(known, tables=tables))
        store.close()


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[Aging]:
    one = Aging(tmp_path)
    assert one.restored() == []
    yield one
    one.log.close()


@pytest.mark.parametrize("later_ms", [-1, -DAY_MS, COUNTS.delete_retention_ms + 1])
def test_a_store_whose_age_is_unknown_or_too_great_may_have_missed_a_tombstone(
    aging: Aging, later_ms: int
) -> None:
    aging.now_ms += later_ms
    aging.transaction(2)
    assert aging.restored() == [Cause.TOO_OLD]
    aging.transaction(3)
    assert aging.restored() == []


@pytest.mark.parametrize("later_ms", [-DAY_MS, COUNTS.delete_retention_ms + 1])
@pytest.mark.parametrize("lived", [False, True])
def test_a_store_behind_which_nothing_came_has_missed_nothing_however_old_it_is(
    aging: Aging, later_ms: int, lived: bool
) -> None:
    if lived:
        aging.lived()
    aging.now_ms += later_ms
    assert aging.restored() == []


# ---- logs that lie ------------------------------------------------------------------------------------------------


def test_a_log_that_is_shorter_than_the_store_is_refused(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    one = Counting(log, tmp_path / "state")
    one.give(("a", 1))
    one.run()
    log.close()
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    one.log = EmbeddedLog(tmp_path / "log")
    one.give(("a", 2))
    one.run()
    one.log.close()
    one.log = EmbeddedLog(tmp_path / "backup")
    for _ in range(2):  # it stays refused, and nothing of the store is lost by asking
        with pytest.raises(LogRegressed, match=COUNTS.name):
            one.run()
    shutil.rmtree(one.state)
    one.given = one.given[:1]
    one.give(("a", 7))
    one.run()
    one.check()
    one.log.close()


@pytest.mark.parametrize("to", [0, 1, 50])
@pytest.mark.parametrize("keep", [True, False])
def test_positions_that_somebody_moved_are_refused(counting: Counting, to: int, keep: bool) -> None:
    writer = counting.log.writer("somebody")
    writer.begin()
    writer.commit({ITEMS0: to}, "qmtl.counter", None)
    if not keep:
        shutil.rmtree(counting.state)
    counting.give(("a", 1))
    with pytest.raises(StampMismatch, match=ITEMS.name):
        counting.run()
    assert len(messages(counting.log, ECHO.name)) == 3


class Shared(Counter):
    """A counter whose two tasks both read all of one topic."""

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name, broadcast=True),)


@pytest.mark.parametrize("to", [0, 1, 50])
@pytest.mark.parametrize("keep", [True, False])
def test_of_an_input_that_tasks_share_the_tables_alone_say_how_far_it_was_read(
    embedded_log: EmbeddedLog, tmp_path: Path, to: int, keep: bool
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, SIDE)
    given = [Item(name, number, 1) for number, name in enumerate("abab")]
    feed.put({0: given[:3]})
    with bench(log, tmp_path / "state", Shared) as runs:
        runs.settle()
    writer = log.writer("somebody")
    writer.begin()
    writer.commit({TopicPartition(SIDE.name, 0): to}, "qmtl.counter", None)
    if not keep:
        shutil.rmtree(tmp_path / "state")
    feed.put({0: given[3:]})
    with bench(log, tmp_path / "state", Shared) as runs:
        runs.settle()
    for task in range(ITEMS.partitions):  # each has read each item once
        rows: dict[str, Total] = {}
        for record in read_all(log, [TopicPartition(COUNTS.name, task)]):
            if not is_reserved(record.key):
                rows[CODEC.decode(record.value or b"").name] = CODEC.decode(record.value or b"")
        assert {name: row.amount for name, row in rows.items()} == {"a": 2, "b": 2}
    assert len(messages(log, ECHO.name)) == ITEMS.partitions * len(given)


class TwoTables(Toy):
    """Writes each item's name into two tables."""

    name = "two"
    anchor = SIDE.name
    tables = (A_MIRROR.name, LATE_STATE.name)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        for name in self.tables:
            step.table(name).put(Total(arrival.message.name, arrival.message.amount))


@pytest.mark.parametrize("keep", [True, False])
def test_tables_that_end_with_different_transactions_are_refused(
    embedded_log: EmbeddedLog, tmp_path: Path, keep: bool
) -> None:
    log = embedded_log
    make_topics(log)
    side = Feed(log, SIDE)
    side.put({0: [Item("a", 0, 1)]})
    with bench(log, tmp_path / "state", TwoTables) as runs:
        runs.settle()
    stamp = PositionStamp("two", 0)
    put(
        log, [(TopicPartition(A_MIRROR.name, 0), stamp_key("two", 0), CODEC.encode(stamp))], writer="somebody"
    )
    if not keep:
        shutil.rmtree(tmp_path / "state")
    with (
        bench(log, tmp_path / "state", TwoTables) as runs,
        pytest.raises(StampMismatch, match="one transaction"),
    ):
        runs.settle()


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("there", range(6))
def test_a_transaction_of_which_a_part_was_there_when_the_restore_began_is_restored_whole_or_not_at_all(
    tmp_path: Path, there: int, commits: bool
) -> None:
    """Its writer is another worker, which ends it while this one reads: the ends of two tables lie in it and before it."""
    log = SimulatedLog()
    make_topics(log)

    def written(number: int) -> list[tuple[str, bytes, bytes]]:
        stamp = PositionStamp("two", 0, (InputPosition(SIDE.name, 0, number),))
        rows = [
            (name, encode_key((key,)), CODEC.encode(Total(key, number)))
            for key in "ab"
            for name in TwoTables.tables
        ]
        return [*rows, *((name, stamp_key("two", 0), CODEC.encode(stamp)) for name in TwoTables.tables)]

    put(log, [(TopicPartition(name, 0), key, value) for name, key, value in written(1)], writer="two")
    writer, records = log.writer("two"), written(2)
    writer.begin()

    def write(until: int) -> None:
        while len(records) > until:
            name, key, value = records.pop(0)
            writer.append(name, 0, key, value)

    def end() -> None:
        if not records:
            return
        write(0)
        if commits:
            writer.commit({}, "", None)
        else:
            writer.abort()

    write(6 - there)
    store = Store(tmp_path, log.log_id)
    specs = {A_MIRROR.name: A_MIRROR, LATE_STATE.name: LATE_STATE}
    tables = {name: Table(spec, 0, store, CODEC) for name, spec in specs.items()}
    restored = restore(log, store, tables, CODEC, keep_alive=end)
    found = {name: [row.amount for row in table.items()] for name, table in tables.items()}
    number = 2 if commits and there else 1
    assert restored.positions == {TopicPartition(SIDE.name, 0): number}
    assert found == {name: [number, number] for name in specs}
    store.close()


def test_a_table_that_is_new_begins_empty_beside_the_others(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    side = Feed(log, SIDE)
    side.put({0: [Item("a", 0, 1)]})

    class OneTable(TwoTables):
        tables = (A_MIRROR.name,)  # type: ignore[assignment] # the younger code has one more

    with bench(log, tmp_path, OneTable) as runs:
        runs.settle()
    side.put({0: [Item("b", 1, 1)]})
    with bench(log, tmp_path, TwoTables) as runs:
        runs.settle()
    assert table(log, A_MIRROR.name).keys() == {encode_key(("a",)), encode_key(("b",))}
    assert table(log, LATE_STATE.name).keys() == {encode_key(("b",))}


def test_genesis_is_written_once(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    feed = Feed(log, X)
    for number in range(3):
        feed.bucket(minute(number))
        with bench(log, tmp_path, lambda: Late(1)) as runs:
            runs.until(lambda: closed(log, LATE_STATE.name)[-1:] == [minute(number)])  # noqa: B023
        shutil.rmtree(tmp_path / "late-0")
    assert closed(log, LATE_OUT.name) == closed(log, LATE_STATE.name) == [0, minute(0), minute(1), minute(2)]
