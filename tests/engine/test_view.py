"""A look at a table from outside: what is there in the end, without waiting, and without asking again for what nobody changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Never

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import TableView, read_all
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from tests.services.trading.stage import world

WHERE = TopicPartition("world.state", 0)

Rows = Sequence[tuple[str, str | None]]
"""Worlds with their fees; one without a fee is taken away."""


class Asked(EmbeddedLog):
    """Counts its readers."""

    readers = 0

    def reader(self) -> EmbeddedReader:
        self.readers += 1
        return super().reader()


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    def nobody_waits(seconds: float) -> Never:
        raise AssertionError(f"somebody waited {seconds} s for what was there")

    monkeypatch.setattr(time, "sleep", nobody_waits)
    made = Asked(tmp_path / "log")
    made.ensure_topics(CATALOGUE)
    return made


def put(log: Log, rows: Rows) -> None:
    writer = log.writer("writer")
    writer.begin()
    for name, fee in rows:
        value = None if fee is None else codec.encode(world(name, fee))
        writer.append(WHERE.topic, WHERE.partition, encode_key((name,)), value)
    writer.commit({}, "", None)
    writer.close()


def meant(rows: Rows) -> Mapping[str, str]:
    left: dict[str, str] = {}
    for name, fee in rows:
        left.pop(name, None)
        if fee is not None:
            left[name] = fee
    return left


def seen(view: TableView) -> Mapping[str, str]:
    return {row.world_id: format(row.settings.fee_rate, "f") for row in view.refresh().rows()}


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["0.001", "0.002", None])), max_size=4),
        max_size=5,
    )
)
@settings(max_examples=25, deadline=None)
def test_a_view_has_what_was_written_last_however_often_it_was_looked_at(
    tmp_path_factory: pytest.TempPathFactory, transactions: list[list[tuple[str, str | None]]]
) -> None:
    log = EmbeddedLog(tmp_path_factory.mktemp("view") / "log")
    log.ensure_topics(CATALOGUE)
    view, done = TableView(log, WHERE.topic, codec), list[tuple[str, str | None]]()
    for rows in transactions:
        put(log, rows)
        done += rows
        assert seen(view) == seen(view) == meant(done) == seen(TableView(log, WHERE.topic, codec))
    log.close()


def test_a_table_that_nobody_changed_is_not_read_again(log: Asked) -> None:
    put(log, [("a", "0.001"), ("b", "0.002")])
    view = TableView(log, WHERE.topic, codec)
    assert seen(view) == {"a": "0.001", "b": "0.002"}
    readers = log.readers
    assert seen(view) == {"a": "0.001", "b": "0.002"}
    assert log.readers == readers
    put(log, [("a", None)])
    assert seen(view) == {"b": "0.002"}
    assert log.readers == readers + 1


def test_nobody_waits_for_records_behind_the_last_marker(log: Asked) -> None:
    put(log, [("a", "0.001")])
    behind = {WHERE: log.end_offsets([WHERE])[WHERE] - 1}  # the marker is left
    assert list(read_all(log, [WHERE], behind)) == []
    reader = log.reader()
    reader.assign(behind)
    assert reader.poll(10, 60.0) == []
    assert reader.positions() == log.end_offsets([WHERE])
