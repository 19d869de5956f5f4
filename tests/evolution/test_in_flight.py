"""Old and new code on one log, both running: each reads what the other writes, or says at its start that it can't."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log
from qmtl.engine.schemas import SCHEMAS, WRITER, PublishedSchemas
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import IncompatibleSchema, MalformedValue, UnknownSchema
from qmtl.foundation.contracts.control import SchemaText
from qmtl.foundation.wire.avro import avro_schema, fingerprint
from qmtl.foundation.wire.keys import encode_key, is_reserved
from tests.contract.driving import put, until
from tests.evolution.versions import SUMS, Version

VENUE = {"venue": (str, "here")}


def old() -> Version:
    return Version()


def new() -> Version:
    return Version(deal=VENUE, total={"deals": (int, 0)})


def other() -> Version:
    """The same names, and an amount of another type."""
    return Version(deal={"amount": (str, MISSING)})


@contextmanager
def working(log: Log, version: Version, place: Path, slot: str = "0") -> Iterator[Worker]:
    worker = Worker(log, version.processor, version.codec, TaskSettings(place), slot)
    try:
        yield worker
    finally:
        worker.close()


def rows(log: Log, by: Version) -> dict[str, int]:
    """The last value per key of the table, as one version reads it."""
    out: dict[str, int] = {}
    for one in read_all(log, [type(SCHEMAS)(SUMS, 0)]):
        if not is_reserved(one.key) and one.value is not None:
            found = by.codec.decode(one.value)
            out[found.name] = found.amount
    return out


def settle(log: Log) -> None:
    """Wait until everything that was committed shows: a broker tells a writer of its commit before it has written the marker."""
    wheres = [where for name in log.topics() for where in all_partitions(log, name)]
    until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))


def letters(log: Log) -> int:
    return sum(1 for _ in read_all(log, [type(SCHEMAS)("dead.letters", 0)]))


def published(log: Log) -> int:
    return sum(1 for _ in read_all(log, [SCHEMAS]))


@pytest.mark.parametrize("reader,writer", [(old, new), (new, old)])
def test_while_it_runs_a_version_reads_what_another_begins_to_write(
    log: Log, tmp_path: Path, reader: Any, writer: Any
) -> None:
    mine, theirs = reader(), writer()
    mine.start(log)
    with working(log, mine, tmp_path) as worker:
        mine.write(log, mine.Deal("a", 1))
        until(lambda: not worker.step() and len(mine.saw) == 1)
        theirs.start(log)  # only now does the other version come
        theirs.write(log, theirs.Deal("a", 2), theirs.Deal("b", 5))
        mine.write(log, mine.Deal("b", 1))
        until(lambda: not worker.step() and len(mine.saw) == 4)
    assert mine.saw == [mine.Deal("a", 1), mine.Deal("a", 2), mine.Deal("b", 5), mine.Deal("b", 1)]
    settle(log)
    assert letters(log) == 0
    assert rows(log, mine) == rows(log, theirs) == {"a": 3, "b": 6}


def test_a_task_goes_from_old_code_to_new_and_back_over_one_table(log: Log, tmp_path: Path) -> None:
    versions = [old(), new(), old(), new()]
    total = 0
    for number, version in enumerate(versions):
        version.start(log)
        for keep in (True, False):  # with the store that another version wrote, and with none
            with working(log, version, tmp_path / ("kept" if keep else str(number))) as worker:
                total += 1
                version.write(log, version.Deal("a", 1))
                until(lambda: not worker.step() and rows(log, version).get("a") == total)  # noqa: B023
    assert letters(log) == 0
    assert rows(log, versions[0]) == rows(log, versions[1]) == {"a": 8}


def test_a_version_that_can_not_read_what_lies_there_is_refused_before_it_does_anything(
    log: Log, tmp_path: Path
) -> None:
    version = old()
    version.start(log)
    version.write(log, version.Deal("a", 1))
    settle(log)
    before = {name: log.end_offsets([type(SCHEMAS)(name, 0)]) for name in log.topics()}
    for _ in range(2):
        with pytest.raises(IncompatibleSchema) as refused:
            other().start(log)
        assert "Deal.amount is string and was long" in refused.value.what
        assert refused.value.code == "QMTL-204"
        assert "log of its own" in refused.value.remedy
    assert {name: log.end_offsets([type(SCHEMAS)(name, 0)]) for name in log.topics()} == before


def test_a_version_that_meets_values_of_a_newer_one_that_it_can_not_read_stops_and_loses_none(
    log: Log, tmp_path: Path
) -> None:
    mine, theirs = old(), other()
    mine.start(log)
    with working(log, mine, tmp_path) as worker:
        mine.write(log, mine.Deal("a", 1))
        until(lambda: not worker.step() and len(mine.saw) == 1)
        # It was started all the same, past the check: its schemas are published, its values come.
        PublishedSchemas(log, theirs.codec).publish()
        theirs.write(log, theirs.Deal("a", "7"))
        mine.write(log, mine.Deal("a", 2))
        with pytest.raises(IncompatibleSchema, match=r"Deal\.amount"):
            until(lambda: worker.step() and False)
    with (
        working(log, mine, tmp_path) as worker,
        pytest.raises(IncompatibleSchema, match=r"Deal\.amount"),
    ):
        until(lambda: worker.step() and False)
    assert len(mine.saw) == 1
    settle(log)
    assert letters(log) == 0, "what newer code can read is no rubbish"
    assert rows(log, mine) == {"a": 1}


def test_a_message_that_only_newer_code_has_stops_a_reader_and_rubbish_does_not(
    log: Log, tmp_path: Path
) -> None:
    mine, theirs = old(), new()
    mine.start(log)
    where = type(SCHEMAS)(mine.deals.name, 0)
    with working(log, mine, tmp_path) as worker:
        put(log, [(where, b"\x02k\x00\x01", b"\xc3\x01" + b"rubbish!" + b"more")], writer="crowd")
        mine.write(log, mine.Deal("a", 1))
        until(lambda: not worker.step() and len(mine.saw) == 1)
        settle(log)
        assert letters(log) == 1
        text = {**avro_schema(theirs.Sum), "name": "Novelty"}
        novelty = SchemaText(fingerprint(text).hex(), "Novelty", json.dumps(text))
        put(log, [(SCHEMAS, encode_key((novelty.fingerprint,)), mine.codec.encode(novelty))], writer=WRITER)
        value = b"\xc3\x01" + fingerprint(text) + b"\x02a\x02\x02"
        put(log, [(where, b"\x02k\x00\x01", value)], writer="crowd")
        with pytest.raises(IncompatibleSchema, match="Novelty"):
            until(lambda: worker.step() and False)
    assert letters(log) == 1


def test_schemas_are_published_once_however_many_start(log: Log) -> None:
    for _ in range(3):
        old().start(log)
    count = published(log)
    assert count == len(old().codec.schemas())
    new().start(log)
    assert published(log) == count + 2
    old().start(log)
    assert published(log) == count + 2


def test_programs_that_publish_at_the_same_time_all_come_through(kafka_log: KafkaLog) -> None:
    Version().start(kafka_log)

    def start(number: int) -> None:
        log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace)
        try:
            Version(deal={f"more{number}": (int, 0)}).start(log)  # each has a schema that the others lack
        finally:
            log.close()

    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(start, range(4)))) == 4
    names = [Version().codec.decode(one.value or b"").name for one in read_all(kafka_log, [SCHEMAS])]
    assert names.count("Deal") >= 5


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"type": "record"}', '{"type":"record","name":"Deal","fields":[]}']
)
def test_what_is_no_schema_among_the_schemas_is_told_with_its_place(log: Log, text: str) -> None:
    version = old()
    version.start(log)
    end = log.end_offsets([SCHEMAS])[SCHEMAS]
    rubbish = SchemaText("00" * 8, "Deal", text)
    put(log, [(SCHEMAS, encode_key((rubbish.fingerprint,)), version.codec.encode(rubbish))], writer=WRITER)
    with pytest.raises(MalformedValue, match=f"offset {end}"):
        old().start(log)


def test_a_codec_that_outlives_its_log_still_says_what_it_does_not_know(embedded_log: Log) -> None:
    version = old()
    version.start(embedded_log)
    embedded_log.close()
    with pytest.raises(UnknownSchema):
        version.codec.decode(b"\xc3\x01" + b"unknown!" + b"more")
