"""Verification: an honest store is equal to the log, and any dishonest row, position or bucket is found and named."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.store import Store
from qmtl.engine.store_view import StoreView
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Version, frame, unframe
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import InvariantBroken, LogRegressed
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.replay.verify import Against, TaskReport, verify
from qmtl.services.worldservice.processor import WorldService
from tests.replay.logs import (
    START_MS,
    Clock,
    activate,
    commit,
    create,
    log_in,
    run_worldservice,
    ticks,
    world,
)

BATCHES = (
    [create("alpha"), create("beta")],
    ticks(0, 3),
    [activate("alpha", "s1"), activate("alpha", "s2"), activate("beta", "s1"), activate("nowhere", "s1")],
    ticks(4, 20),
    [activate("alpha", "s1", 2, active=False), activate("beta", "s2")],
)
"""Five transactions or more: rows that were overwritten, a refusal, and more markers than are kept."""

Damage = Callable[[Store], None]


def report_of(
    log: EmbeddedLog, state_dir: Path, scratch: Path, make: Callable[[], Processor] = WorldService
) -> TaskReport:
    ticking = itertools.count()
    (found,) = verify(log, codec, [make], state_dir / "tasks", scratch, lambda: float(next(ticking)))
    return found


def run_and_verify(tmp_path: Path, damage: Damage | None = None) -> TaskReport:
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path, BATCHES)
        if damage is not None:
            store = Store(tmp_path / "tasks" / "worldservice-0", log.log_id)
            damage(store)
            store.close()
        return report_of(log, tmp_path, tmp_path / "scratch")


def put(table: str, key: bytes, value: bytes | None) -> Damage:
    """Replace the newest value of one key, its older versions left as they are."""

    def damage(store: Store) -> None:
        older = unframe(store.get(table, key))[:-1]
        row = None if value is None else frame((*older, Version(START_MS, value)))
        store.write([(table, key, row)], store.checkpoint)

    return damage


# ---- equal ------------------------------------------------------------------------------------------------------


def test_a_store_that_a_worker_wrote_is_equal_to_the_log(tmp_path: Path) -> None:
    report = run_and_verify(tmp_path)
    assert report.against is Against.STORE
    assert report.differences == []
    assert {one.table: (one.rows, one.equal) for one in report.tables} == {
        "world.state": (2, 2),
        "activation": (4, 4),
        "world.outcomes": (8, 8),
        "world.holds": (0, 0),
    }


def test_a_store_is_compared_at_its_checkpoint_while_its_worker_goes_on(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        worker = Worker(log, WorldService, codec, TaskSettings(tmp_path / "tasks"))
        for number, batch in enumerate(BATCHES):
            commit(log, batch, "people")
            while worker.step():
                pass
            with_view = EmbeddedLog(tmp_path / "log", clock_ms=Clock(), read_only=True)
            report = report_of(with_view, tmp_path, tmp_path / f"scratch{number}")
            with_view.close()
            assert (report.against, report.differences) == (Against.STORE, [])
        worker.close()


def test_a_store_one_transaction_behind_the_log_is_equal_at_its_checkpoint(tmp_path: Path) -> None:
    """A worker that died between the commit and the write of its store leaves exactly this."""
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path, BATCHES[:3])
        run_worldservice(log, tmp_path / "elsewhere", BATCHES[3:])
        report = report_of(log, tmp_path, tmp_path / "scratch")
    assert (report.against, report.differences) == (Against.STORE, [])
    assert {one.table: one.rows for one in report.tables}["activation"] == 3


def test_compaction_changes_no_verdict(tmp_path: Path) -> None:
    clock = Clock()
    with log_in(tmp_path / "log", clock) as log:
        run_worldservice(log, tmp_path, BATCHES)
        clock.now_ms += 30 * DAY_MS
        assert log.clean() > 0
        report = report_of(log, tmp_path, tmp_path / "scratch")
    assert (report.against, report.differences) == (Against.STORE, [])


# ---- different --------------------------------------------------------------------------------------------------


def test_a_changed_value_is_found_and_named(tmp_path: Path) -> None:
    key, other = encode_key(("beta",)), codec.encode(world("beta", "9999"))
    report = run_and_verify(tmp_path, put("world.state", key, other))
    (found,) = report.differences
    assert (found.table, found.key, found.live) == ("world.state", key, other)
    assert codec.decode(found.rebuilt or b"").settings.initial_cash == 10000


def test_a_missing_row_is_found_and_named(tmp_path: Path) -> None:
    key = encode_key(("alpha", "s2", "long"))
    report = run_and_verify(tmp_path, put("activation", key, None))
    (found,) = report.differences
    assert (found.table, found.key, found.live) == ("activation", key, None)
    assert found.rebuilt is not None


def test_a_row_too_many_is_found_and_named(tmp_path: Path) -> None:
    key, value = encode_key(("zeta",)), codec.encode(world("zeta"))
    report = run_and_verify(tmp_path, put("world.state", key, value))
    (found,) = report.differences
    assert (found.table, found.key, found.live, found.rebuilt) == ("world.state", key, value, None)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0), bit=st.integers(0))
def test_every_flipped_bit_of_a_value_is_found(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("flip")
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path, BATCHES[:3])
        store = Store(tmp_path / "tasks" / "worldservice-0", log.log_id)
        rows = [(name, key, row) for name in WorldService.tables for key, row in store.scan(name)]
        table, key, row = rows[place % len(rows)]
        *older, newest = unframe(row)
        raw = bytearray(newest.data or b"")
        raw[bit // 8 % len(raw)] ^= 1 << bit % 8
        changed = frame((*older, Version(newest.bucket_ms, bytes(raw))))
        store.write([(table, key, changed)], store.checkpoint)
        store.close()
        report = report_of(log, tmp_path, tmp_path / "scratch")
    (found,) = report.differences
    assert (found.table, found.key, found.live) == (table, key, bytes(raw))


def test_the_first_difference_of_each_table_is_the_one_with_the_least_key(tmp_path: Path) -> None:
    def damage(store: Store) -> None:
        for name in ("beta", "alpha", "omega"):
            put("world.state", encode_key((name,)), codec.encode(world(name, "1")))(store)

    report = run_and_verify(tmp_path, damage)
    assert [found.key for found in report.differences] == [encode_key(("alpha",))]


def test_other_positions_are_found_and_named(tmp_path: Path) -> None:
    def damage(store: Store) -> None:
        was = store.checkpoint
        moved = {where: offset + (where.topic == "clock") for where, offset in was.positions.items()}
        store.write([], Checkpoint(was.log_id, was.tables, moved, was.buckets, was.written_at_ms))

    report = run_and_verify(tmp_path, damage)
    assert report.difference is not None
    assert "clock[0]" in report.difference.what


def test_other_closed_buckets_are_found(tmp_path: Path) -> None:
    def damage(store: Store) -> None:
        was = store.checkpoint
        store.write(
            [], Checkpoint(was.log_id, was.tables, was.positions, was.buckets[:-1], was.written_at_ms)
        )

    report = run_and_verify(tmp_path, damage)
    assert report.difference is not None
    assert "closed" in report.difference.what


def test_rows_of_a_table_that_is_not_the_processors_are_found(tmp_path: Path) -> None:
    report = run_and_verify(tmp_path, put("trade.orders", b"\x02a\x00\x01", b"x"))
    assert report.difference is not None
    assert "trade.orders" in report.difference.what


def test_a_row_that_nobody_could_have_put_is_found_though_both_sides_have_it(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        alien = codec.encode(world("gamma"))
        commit(
            log,
            [
                ("world.state", 0, encode_key(("delta",)), alien),
                ("activation", 0, b"\x02x\x00\x01", b"rubbish"),
            ],
        )
        run_worldservice(log, tmp_path, BATCHES)
        found = report_of(log, tmp_path, tmp_path / "scratch").differences
    assert [(one.table, one.live == one.rebuilt) for one in found] == [
        ("world.state", True),
        ("activation", True),
    ]
    assert "another key" in found[0].what
    assert "QMTL-201" in found[1].what


# ---- nothing to compare with --------------------------------------------------------------------------------------


def test_without_a_store_the_log_alone_is_folded_and_its_positions_are_the_committed_ones(
    tmp_path: Path,
) -> None:
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path, BATCHES)
        report = report_of(log, tmp_path / "nowhere", tmp_path / "scratch")
        assert (report.against, report.differences) == (Against.NOTHING, [])
        assert [one.equal for one in report.tables] == [None] * 4
        writer = log.writer("somebody")
        writer.begin()
        clock = TopicPartition("clock", 0)
        writer.commit({clock: 0}, "qmtl.worldservice", None)
        again = report_of(log, tmp_path / "nowhere", tmp_path / "scratch2")
    assert again.difference is not None
    assert "clock[0]" in again.difference.what


def test_a_log_that_nobody_has_processed_folds_to_nothing(tmp_path: Path) -> None:
    with log_in(tmp_path / "log") as log:
        report = report_of(log, tmp_path, tmp_path / "scratch")
    assert (report.against, report.differences, [one.rows for one in report.tables]) == (
        Against.NOTHING,
        [],
        [0] * 4,
    )


def test_a_store_of_another_log_is_not_compared(tmp_path: Path) -> None:
    with log_in(tmp_path / "other") as other:
        run_worldservice(other, tmp_path, BATCHES)
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path / "elsewhere", BATCHES)
        report = report_of(log, tmp_path, tmp_path / "scratch")
    assert (report.against, report.differences) == (Against.OTHER_LOG, [])


def test_a_store_from_before_the_compaction_lag_is_not_compared(tmp_path: Path) -> None:
    clock = Clock()
    with log_in(tmp_path / "log", clock) as log:
        run_worldservice(log, tmp_path, BATCHES[:3])
        run_worldservice(log, tmp_path / "elsewhere", BATCHES[3:])
        clock.now_ms += 30 * DAY_MS
        log.clean()
        report = report_of(log, tmp_path, tmp_path / "scratch")
    assert (report.against, report.differences) == (Against.OUTDATED, [])


def test_a_store_that_knows_more_than_the_log_is_refused(tmp_path: Path) -> None:
    def damage(store: Store) -> None:
        was = store.checkpoint
        more = {where: offset + 100 for where, offset in was.tables.items()}
        store.write([], Checkpoint(was.log_id, more, was.positions, was.buckets, was.written_at_ms))

    with pytest.raises(LogRegressed, match="contains it up to"):
        run_and_verify(tmp_path, damage)


# ---- the view of a store --------------------------------------------------------------------------------------------


def test_a_view_sees_what_was_there_when_it_was_opened_and_leaves_the_store_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", "log-1")
    mark = Checkpoint("log-1", {}, {}, (1,), 5)
    store.write([("b", b"k", frame((Version(1, b"old"), Version(2, b"new"))))], mark)
    store.write([("a", b"k", frame((Version(1, b"old"), Version(2, None))))], mark)
    view = StoreView(tmp_path / "store", tmp_path / "view")
    store.write(
        [("b", b"k", None), ("c", b"k", frame((Version(3, b"c"),)))], Checkpoint("log-1", {}, {}, (9,), 6)
    )
    assert view.checkpoint == mark
    assert view.tables() == ["a", "b"]
    assert (list(view.newest("a")), list(view.newest("b"))) == ([], [(b"k", b"new")])
    view.close()
    assert store.get("c", b"k") is not None
    store.close()


def test_a_directory_that_is_no_store_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert not StoreView.exists(tmp_path / "store")
    (tmp_path / "store" / "CURRENT").write_text("nonsense")
    assert StoreView.exists(tmp_path / "store")
    with pytest.raises(InvariantBroken, match="can't be read") as refused:
        StoreView(tmp_path / "store", tmp_path / "view")
    assert "delete the directory" in refused.value.remedy
