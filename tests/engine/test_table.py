"""A table's versions: what each cut shows, and that nothing is kept that no cut can show."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.store import Store
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Table, Version, frame, unframe
from qmtl.engine.transaction import MARKERS_KEPT, horizon_of
from qmtl.foundation.common.errors import InvariantBroken
from tests.engine.toys import CODEC, LATE_STATE, Total

NAMES = ("a", "b", "c", "ab")
Change = tuple[str, int | None]
CHANGES: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 99)), max_size=3
)
ENDS = st.sampled_from(["close", "seal", "commit", "close and commit", "abort"])
History = list[tuple[int, dict[str, int | None]]]


def newest(history: History, cut_ms: int) -> dict[str, int]:
    out: dict[str, int | None] = {}
    for bucket_ms, changes in history:
        if bucket_ms <= cut_ms:
            out.update(changes)
    return {name: value for name, value in sorted(out.items()) if value is not None}


def totals(values: dict[str, int]) -> list[Total]:
    return [Total(name, amount) for name, amount in values.items()]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 3), st.lists(st.tuples(CHANGES, ENDS), max_size=25))
def test_every_cut_that_may_be_asked_for_shows_what_was_sealed_by_then(
    look_back: int, steps: Sequence[tuple[list[Change], str]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place), "log")
        table = Table(LATE_STATE, 0, store, CODEC, look_back)
        sealed: History = []
        buckets: tuple[int, ...] = ()
        kept: tuple[History, tuple[int, ...]] = ([], ())
        for changes, end in steps:
            before = {cut: list(table.items_at(cut)) for cut in buckets[-look_back:] if look_back}
            for name, value in changes:
                if value is None:
                    table.delete(name)
                else:
                    table.put(Total(name, value))
            whole = newest([*sealed, (0, dict(changes))], 2**62)
            assert list(table.items()) == list(table.load()) == totals(whole)
            assert [table.get(name) for name in whole] == totals(whole)
            for cut, shown in before.items():
                assert list(table.items_at(cut)) == shown  # what is staged moves no cut
            if end == "abort":
                table.rollback()
                sealed, buckets = [*kept[0]], kept[1]
                continue
            open_ms = (buckets[-1] if buckets else 0) + 1
            sealed.append((open_ms, dict(changes)))
            table.seal(open_ms, horizon_of(buckets, look_back))
            if "close" in end:
                buckets = (*buckets, open_ms + 9)[-MARKERS_KEPT:]
            if "commit" in end:
                table.seal((buckets[-1] if buckets else 0) + 1, horizon_of(buckets, look_back))
                store.write(table.changes(), Checkpoint("log"))
                table.committed()
                kept = ([*sealed], buckets)
            for back in range(1, look_back + 1):
                if len(buckets) >= back:
                    cut = buckets[-back]
                    assert list(table.items_at(cut)) == totals(newest(sealed, cut))
                    assert [table.at(cut, name) for name in NAMES] == [
                        Total(name, value) if value is not None else None
                        for name, value in ((name, newest(sealed, cut).get(name)) for name in NAMES)
                    ]
        table.rollback()
        assert list(table.load()) == list(table.items()) == totals(newest(kept[0], 2**62))
        store.close()


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("look_back", [0, 1, 2, 3])
def test_a_row_that_was_deleted_takes_no_room_once_no_cut_shows_it(
    tmp_path: Path, look_back: int, reopened: bool
) -> None:
    store = Store(tmp_path, "log")
    table = Table(LATE_STATE, 0, store, CODEC, look_back)
    buckets: tuple[int, ...] = ()
    for number in range(20):
        table.put(Total(f"order {number}", number))
        table.delete(f"order {number - 1}")
        table.seal((buckets[-1] if buckets else 0) + 1, horizon_of(buckets, look_back))
        buckets = (*buckets, number + 10)[-MARKERS_KEPT:]
        table.seal(buckets[-1] + 1, horizon_of(buckets, look_back))
        store.write(table.changes(), Checkpoint("log"))
        table.committed()
        if reopened:
            table = Table(LATE_STATE, 0, store, CODEC, look_back)
        assert len(list(store.scan(LATE_STATE.name))) <= 1 + look_back
    store.close()


@pytest.mark.parametrize("look_back", [0, 1])
def test_keys_of_a_prefix_come_in_their_order_and_no_others(tmp_path: Path, look_back: int) -> None:
    store = Store(tmp_path, "log")
    table = Table(LATE_STATE, 0, store, CODEC, look_back)
    for name in ("b", "a\0b", "ab", "", "a"):
        table.put(Total(name, 1))
    assert [one.name for one in table.items()] == ["", "a", "a\0b", "ab", "b"]
    assert [one.name for one in table.items("a")] == ["a"]
    table.seal(1, 0)
    store.write(table.changes(), Checkpoint("log"))
    table.committed()
    table.delete("ab")
    table.put(Total("aa", 2))
    assert [one.name for one in table.items()] == ["", "a", "a\0b", "aa", "b"]
    assert [one.name for one in table.items("aa")] == ["aa"]
    table.seal(2, 1)
    assert [one.name for one in table.items()] == ["", "a", "a\0b", "aa", "b"]
    table.rollback()
    assert [one.name for one in table.items()] == ["", "a", "a\0b", "ab", "b"]
    store.close()


def test_rows_that_no_bucket_sealed_are_not_stored(tmp_path: Path) -> None:
    store = Store(tmp_path, "log")
    table = Table(LATE_STATE, 0, store, CODEC)
    table.put(Total("a", 1))
    with pytest.raises(InvariantBroken):
        table.changes()
    store.close()


@given(st.lists(st.tuples(st.integers(0, 2**60), st.none() | st.binary(max_size=40)), max_size=6))
def test_a_stored_row_reads_back_as_the_versions_that_were_written(
    versions: list[tuple[int, bytes | None]],
) -> None:
    row = frame(tuple(Version(bucket_ms, data) for bucket_ms, data in versions))
    found = [(one.bucket_ms, one.data) for one in unframe(row)]
    assert found == (versions if any(data is not None for _, data in versions) else [])
