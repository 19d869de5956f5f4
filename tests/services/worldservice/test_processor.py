"""The world service on a log: a command counts once, and a tick says what came before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.context import LogContext
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.world import CreateWorld, SetActivation
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker, is_reserved, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.worldservice.processor import WorldService
from tests.services.worldservice.test_rules import CREATE, OPEN


class Office:
    """The world service, its commands and its clock."""

    def __init__(self, directory: Path) -> None:
        self.log = EmbeddedLog(directory / "log")
        self.log.ensure_topics(CATALOGUE)
        self._writer = self.log.writer("test")
        self._settings = TaskSettings(directory / "tasks")
        self.worker = self._hired()

    def _hired(self) -> Worker:
        return Worker(self.log, WorldService, codec, self._settings)

    def write(self, *messages: CreateWorld | SetActivation | int) -> None:
        """Commands, and ticks as numbers, in one transaction; then let the service take all there is."""
        self._writer.begin()
        for message in messages:
            if isinstance(message, int):
                tick = CloseMarker("feed", 0, 1, message, 0, "", 1)
                self._writer.append("clock", 0, marker_key("feed", 0, message), codec.encode(tick))
            else:
                key = encode_key(topic("world.commands").key_of(message))
                self._writer.append("world.commands", 0, key, codec.encode(message))
        self._writer.commit({}, "test", None)
        self.work()

    def hear(self, said: LogContext) -> None:
        """The DAG Manager's word on the context of the log."""
        self._writer.begin()
        self._writer.append(
            "dag.context", 0, encode_key(topic("dag.context").key_of(said)), codec.encode(said)
        )
        self._writer.commit({}, "test", None)
        self.work()

    def work(self) -> None:
        while self.worker.step():
            pass

    def restart(self) -> None:
        self.worker.close()
        self.worker = self._hired()
        self.work()

    def rows(self, name: str) -> list[Any]:
        return TableView(self.log, name, codec).refresh().rows()

    def story(self, name: str) -> list[Any]:
        """The rows and markers of a topic in the order of the log: a marker is its bucket."""
        records = read_all(self.log, all_partitions(self.log, name))
        return [
            decode_marker_bucket(one.key) if is_marker(one.key) else codec.decode(one.value)
            for one in records
            if one.value is not None and (is_marker(one.key) or not is_reserved(one.key))
        ]

    def ends(self) -> dict[TopicPartition, int]:
        names = ("world.state", "activation", "world.outcomes")
        return dict(self.log.end_offsets([TopicPartition(name, 0) for name in names]))

    def close(self) -> None:
        self.worker.close()
        self.log.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


def test_a_command_sent_twice_decides_nothing_more(office: Office) -> None:
    office.write(CREATE, OPEN)
    before = {name: office.rows(name) for name in WorldService.tables}
    office.write(OPEN, CREATE, replace(OPEN, active=False), replace(CREATE, world_id="w"))
    assert {name: office.rows(name) for name in WorldService.tables} == before
    assert len(before["world.outcomes"]) == 2


def test_a_command_sent_twice_counts_once_across_a_restart(office: Office) -> None:
    office.write(CREATE, OPEN)
    office.restart()
    office.write(OPEN)
    (row,) = office.rows("activation")
    assert row.version == 1


def test_each_command_has_an_outcome_whether_it_changed_something_or_not(office: Office) -> None:
    refused = replace(OPEN, command_id="c3", weight=Decimal(2))
    true_already = replace(OPEN, command_id="c4")
    nowhere = replace(OPEN, command_id="c5", world_id="nowhere")
    office.write(CREATE, OPEN, refused, true_already, nowhere)
    outcomes = {row.command_id: (row.accepted, row.code) for row in office.rows("world.outcomes")}
    assert outcomes == {
        "c1": (True, ""),
        "c2": (True, ""),
        "c3": (False, "QMTL-602"),
        "c4": (True, ""),
        "c5": (False, "QMTL-601"),
    }
    assert [row.version for row in office.rows("activation")] == [1]


def test_a_command_lies_in_front_of_the_close_of_the_bucket_in_which_it_was_taken(office: Office) -> None:
    office.write(CREATE, OPEN)
    office.write(60_000)
    office.write(replace(OPEN, command_id="c3", active=False))
    office.write(120_000, 180_000)
    story = [one if isinstance(one, int) else (one.version, one.active) for one in office.story("activation")]
    assert story == [0, (1, True), 60_000, (2, False), 120_000, 180_000]


def test_both_topics_close_every_tick_and_begin_with_genesis(office: Office) -> None:
    office.write(60_000, 120_000)
    assert office.story("world.state") == office.story("activation") == [0, 60_000, 120_000]


def test_a_restart_without_anything_new_writes_nothing(office: Office) -> None:
    office.write(CREATE, OPEN, 60_000)
    before = office.ends()
    office.restart()
    assert office.ends() == before


@pytest.mark.parametrize("field", ["world_id", "command_id"])
def test_a_command_under_whose_ids_nothing_can_be_kept_is_a_dead_letter_with_its_cause(
    office: Office, field: str
) -> None:
    blank: dict[str, Any] = {field: " "}
    long: dict[str, Any] = {field: "i" * 201}
    office.write(replace(CREATE, **blank), replace(OPEN, **long), CREATE)
    letters = [
        codec.decode(one.value)
        for one in read_all(office.log, all_partitions(office.log, "dead.letters"))
        if one.value
    ]
    assert [one.code for one in letters] == ["QMTL-508"] * 2
    assert all(
        one.cause.startswith(f"{field} was a text of 1 blanks") or "201 characters" in one.cause
        for one in letters
    )
    assert [one.command_id for one in TableView(office.log, "world.outcomes", codec).refresh().rows()] == [
        CREATE.command_id
    ]
