"""An archive holds all records of a topic, in order, or it has no manifest."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from avro.datafile import DataFileReader
from avro.io import DatumReader
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.archive.address import parse
from qmtl.engine.archive.container import Limits
from qmtl.engine.archive.manifest import ArchivedObject
from qmtl.engine.archive.objects import Objects, in_memory, open_objects
from qmtl.engine.archive.port import ObjectStore
from qmtl.engine.archive.reading import load, manifests, restore, verify
from qmtl.engine.archive.writing import archive_topic, require_unchanged
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Record
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Process
from qmtl.foundation.common.errors import (
    ArchiveAltered,
    ArchiveError,
    LogUnreachable,
    TopicChanged,
    UnknownTopic,
)
from tests.engine.archive.histories import (
    BESIDE,
    LIMITS,
    PARTITIONS,
    SMALL,
    SOME,
    TOPIC,
    TRANSACTIONS,
    Transaction,
    archived,
    compact,
    embedded,
    on_the_log,
    remake,
    simulated,
    write,
    write_plainly,
)
from tests.engine.archive.stores import Altering, Ended, Mortal, Watched, contents, holding

QUICK = settings(max_examples=40, deadline=None)


def refused(log: EmbeddedLog | SimulatedLog, store: ObjectStore, *, limits: Limits = SMALL) -> ArchiveError:
    """How an archive is refused; it leaves no manifest."""
    with pytest.raises(ArchiveError) as problem:
        archived(log, store, limits=limits)
    assert manifests(store) == []
    assert "Nothing was deleted." in str(problem.value)
    return problem.value


def by_apache(objects: dict[str, bytes]) -> list[tuple[Any, ...]]:
    """The records in container files, as Apache's own implementation reads them, files by name."""
    out = []
    for name, data in sorted(objects.items()):
        if name.endswith(".avro"):
            with DataFileReader(io.BytesIO(data), DatumReader()) as found:
                rows: Any = found
                out += [
                    (one["partition"], one["offset"], one["key"], one["value"], one["timestamp_ms"])
                    for one in rows
                ]
    return out


# ---- everything, in order -------------------------------------------------------------------------------------------


@given(TRANSACTIONS, LIMITS, st.booleans(), st.booleans())
@QUICK
def test_what_is_restored_is_what_lies_on_the_log_whatever_goes_into_one_object(
    transactions: Sequence[Transaction], limits: Limits, compacted: bool, real: bool
) -> None:
    given = (
        embedded(transactions, compacted=compacted)
        if real
        else nullcontext(simulated(transactions, compacted=compacted))
    )
    with given as log:
        expected = on_the_log(log)
        store = in_memory()
        manifest = archived(log, store, limits=limits)
        assert list(restore(store, manifest)) == expected
        assert [one[1:] for one in expected] == by_apache(contents(store))
        assert manifest.records == len(expected)
        verify(store, manifest)
        (name,) = manifests(store)
        assert load(store, name) == manifest
        assert all(one.records <= limits.records for one in manifest.objects)
        require_unchanged(log, manifest)


@given(TRANSACTIONS, LIMITS, st.integers(0, 1 << 30))
@QUICK
def test_an_archive_is_the_same_bytes_however_the_log_was_polled_and_however_often(
    transactions: Sequence[Transaction], limits: Limits, seed: int
) -> None:
    log, store = simulated(transactions), in_memory()
    first = archived(log, store, limits=limits)
    stored = contents(store)
    another = Process("another")
    another.chance = Random(seed)
    assert archived(SimulatedLog(log.cluster, another), store, limits=limits) == first
    assert contents(store) == stored


def test_a_manifest_says_what_apaches_reader_and_blake3_say_of_each_object() -> None:
    log, store = simulated(SOME), in_memory()
    manifest = archived(log, store, limits=SMALL)
    told = json.loads(store.get(manifest.name, 1 << 20))
    assert (told["topic"], told["topic_id"], told["log_id"]) == (TOPIC, "simulated-0", "simulated")
    assert told["config"] == dict(log.describe(TOPIC).config)  # type: ignore[union-attr] # it is there
    assert [(one["begin"], one["end"]) for one in told["partitions"]] == [(0, 10), (0, 4), (0, 2)]
    assert told["records"] == 8
    for one in told["objects"]:
        data = store.get(one["name"], one["size_bytes"])
        rows = by_apache({one["name"]: data})
        assert blake3(data).hexdigest() == one["digest"]
        assert [rows[0][1], rows[-1][1], len(rows)] == [one["first"], one["last"], one["records"]]
    assert set(contents(store)) == {one["name"] for one in told["objects"]} | {manifest.name}


def test_a_report_says_what_lies_in_the_store() -> None:
    log, store = simulated(SOME), in_memory()
    report = archive_topic(log, TOPIC, store, limits=SMALL)
    stored = contents(store)
    manifest = stored.pop(report.manifest.name)
    assert report.digest == blake3(manifest).hexdigest()
    assert (report.objects, report.size_bytes) == (len(stored), sum(map(len, stored.values())))
    assert report.records == report.verified == len(by_apache(stored)) == len(on_the_log(log))
    assert archive_topic(log, TOPIC, store, limits=SMALL) == report


def test_only_the_life_that_is_meant_is_archived() -> None:
    log, store = simulated(SOME), in_memory()
    meant = log.incarnations([TOPIC])[TOPIC].id
    assert archive_topic(log, TOPIC, in_memory(), topic_id=meant).manifest.topic_id == meant
    remake_with_as_much(log)
    with pytest.raises(TopicChanged, match=f"{meant} was meant"):
        archive_topic(log, TOPIC, store, topic_id=meant)
    assert contents(store) == {}


def test_objects_end_at_a_partitions_end_at_a_count_and_at_a_size() -> None:
    rows = [(number % 2, b"k", bytes(1000)) for number in range(12)]
    log = simulated([Transaction(tuple(rows))])

    def counts(limits: Limits) -> list[tuple[int, int]]:
        made = archived(log, in_memory(), limits=limits).objects
        return [(one.partition, one.records) for one in made]

    assert counts(Limits()) == [(0, 6), (1, 6)]
    assert counts(Limits(records=4)) == [(0, 4), (0, 2), (1, 4), (1, 2)]
    assert counts(Limits(size_bytes=3 * 1100)) == [(0, 3), (0, 3), (1, 3), (1, 3)]
    assert counts(Limits(size_bytes=1)) == [(number, 1) for number in (0,) * 6 + (1,) * 6]


def test_the_last_record_is_archived_where_no_marker_follows_it() -> None:
    log, store = simulated(), in_memory()
    write_plainly(log, 0, [(b"", b"1"), (b"a", None)])
    write_plainly(log, 2, [(b"b", b"")])
    manifest = archived(log, store)
    assert [(one.partition, one.end) for one in manifest.partitions] == [(0, 2), (1, 0), (2, 1)]
    assert [one[1:5] for one in restore(store, manifest)] == [
        (0, 0, b"", b"1"),
        (0, 1, b"a", None),
        (2, 0, b"b", b""),
    ]


def test_a_topic_without_records_has_an_archive_too() -> None:
    log, store = simulated(), in_memory()
    manifest = archived(log, store)
    assert (manifest.records, manifest.objects) == (0, ())
    assert list(restore(store, load(store, manifest.name))) == []


def test_progress_comes_to_all_records_twice() -> None:
    told: list[tuple[str, int, int]] = []
    log = simulated(SOME)
    archived(
        log,
        in_memory(),
        limits=SMALL,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    read = [(done, total) for what, done, total in told if what == "reading"]
    back = [(done, total) for what, done, total in told if what == "reading back"]
    assert read == [(2, 16), (4, 16), (6, 16), (8, 16)]
    assert back == [(done, 8) for done, _ in read]


# ---- ended in the middle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [False, True])
def test_after_a_death_at_any_write_a_repetition_gives_the_same_archive(written: bool) -> None:
    log, whole = simulated(SOME), in_memory()
    manifest = archived(log, whole, limits=SMALL)
    writes = len(manifest.objects) + 1
    for puts in range(writes):
        store = in_memory()
        with pytest.raises(Ended):
            archived(log, Mortal(store, puts, written=written), limits=SMALL)
        died_after_the_manifest = written and puts == writes - 1
        assert manifests(store) == ([manifest.name] if died_after_the_manifest else [])
        assert archived(log, store, limits=SMALL) == manifest
        assert contents(store) == contents(whole)


@given(TRANSACTIONS, TRANSACTIONS, LIMITS, LIMITS, st.integers(0, 12), st.booleans(), st.booleans())
@QUICK
def test_an_archive_stays_whole_whatever_becomes_of_the_topic_and_of_later_archives(
    before: Sequence[Transaction],
    after: Sequence[Transaction],
    first_limits: Limits,
    then_limits: Limits,
    puts: int,
    compacted: bool,
    remade: bool,
) -> None:
    log, store = simulated(before), in_memory()
    first = archived(log, store, limits=first_limits)
    records = list(restore(store, first))
    if compacted:
        compact(log)
    if remade:
        remake(log)
    write(log, after)
    with suppress(Ended):
        archived(log, Mortal(store, puts, written=True), limits=then_limits)
    assert list(restore(store, load(store, first.name))) == records
    for name in manifests(store):
        verify(store, load(store, name))
    second = archived(log, store, limits=then_limits)
    assert list(restore(store, second)) == on_the_log(log)
    assert list(restore(store, first)) == records


# ---- stores that keep something else --------------------------------------------------------------------------------


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@pytest.mark.parametrize(
    "keep",
    [
        lambda data: None,
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: flipped(data, 8 * (len(data) // 2)),
    ],
    ids=["nothing", "empty", "shorter", "longer", "flipped"],
)
@pytest.mark.parametrize("number", range(4))
def test_a_store_that_keeps_something_else_of_any_object_is_found_out_before_there_is_a_manifest(
    keep: Callable[[bytes], bytes | None], number: int
) -> None:
    names: list[str] = []

    def kept(name: str, data: bytes) -> bytes | None:
        names.append(name)
        return keep(data) if len(names) - 1 == number else data

    log, store = simulated(SOME), in_memory()
    assert isinstance(refused(log, Altering(store, kept)), ArchiveAltered)
    assert len(names) == 4


def test_a_manifest_that_the_store_alters_is_no_archive() -> None:
    log, store = simulated(SOME), in_memory()
    spoilt = Altering(store, lambda name, data: flipped(data, 99) if name.endswith(".json") else data)
    with pytest.raises(ArchiveAltered):
        archived(log, spoilt, limits=SMALL)
    (name,) = manifests(store)
    with pytest.raises(ArchiveAltered):
        load(store, name)


def test_every_flipped_bit_of_every_object_is_found() -> None:
    log, store = simulated([Transaction(((0, b"a", b"1"), (0, b"b", None), (2, b"", b"")))]), in_memory()
    manifest = archived(log, store)
    objects = contents(store)
    assert len(objects) == 3
    missed = []
    for name, data in objects.items():
        for bit in range(8 * len(data)):
            store.put(name, flipped(data, bit))
            try:
                if name == manifest.name:
                    load(store, name)
                else:
                    verify(store, manifest)
            except ArchiveAltered:
                continue
            missed.append((name, bit))
        store.put(name, data)
    assert missed == []
    verify(store, load(store, manifest.name))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("partition", lambda one: one.partition + 1),
        ("first", lambda one: one.first + 1),
        ("last", lambda one: one.last - 1),
        ("records", lambda one: one.records - 1),
        ("size_bytes", lambda one: one.size_bytes + 1),
        ("digest", lambda one: one.digest[:-1] + "x"),
        ("records_digest", lambda one: one.records_digest[:-1] + "x"),
    ],
)
def test_an_object_is_held_to_every_word_of_its_manifest(
    field: str, wrong: Callable[[ArchivedObject], Any]
) -> None:
    each_alone = [Transaction(((0, b"k", value),)) for value in (b"0", b"1", b"2")]
    log, store = simulated(each_alone), in_memory()
    manifest = archived(log, store)
    (one,) = manifest.objects
    other = replace(one, **{field: wrong(one)})
    # The words about partitions agree with it, so that nothing but the object itself contradicts.
    partitions = tuple(
        replace(each, records=other.records if each.partition == other.partition else 0, end=99)
        for each in manifest.partitions
    )
    store.put(
        replace(manifest, partitions=partitions, objects=(other,)).name_of(other),
        contents(store)[manifest.name_of(one)],
    )
    with pytest.raises(ArchiveAltered, match="was altered"):
        verify(store, replace(manifest, partitions=partitions, objects=(other,)))


def test_objects_that_are_gone_or_exchanged_are_found() -> None:
    log, store = simulated(SOME), in_memory()
    manifest = archived(log, store, limits=SMALL)
    objects = contents(store)
    names = [manifest.name_of(one) for one in manifest.objects]
    for name in names:
        lost = holding({other: data for other, data in objects.items() if other != name})
        with pytest.raises(ArchiveAltered, match="is not there"):
            verify(lost, load(lost, manifest.name))
    for one, other in pairwise(names):
        mixed = holding({**objects, one: objects[other], other: objects[one]})
        with pytest.raises(ArchiveAltered):
            verify(mixed, load(mixed, manifest.name))


def test_nothing_of_an_altered_object_is_restored_and_all_before_it_is() -> None:
    log, store = simulated(SOME), in_memory()
    manifest = archived(log, store, limits=SMALL)
    last = manifest.name_of(manifest.objects[-1])
    store.put(last, flipped(contents(store)[last], 77))
    given: list[Record] = []
    with pytest.raises(ArchiveAltered):
        deque(map(given.append, restore(store, manifest)))
    assert given == on_the_log(log)[: -manifest.objects[-1].records]


# ---- topics that change ---------------------------------------------------------------------------------------------


def grow(log: SimulatedLog) -> None:
    write(log, [Transaction(((1, b"late", b"late"),))])


def grow_and_abort(log: SimulatedLog) -> None:
    write(log, [Transaction(((1, b"late", b"late"),), commits=False)])


def begin(log: SimulatedLog) -> None:
    writer = log.writer("somebody")
    writer.begin()
    writer.append(TOPIC, 2, b"open", b"open")


def vanish(log: SimulatedLog) -> None:
    del log.cluster.topics[TOPIC]


def remake_with_as_much(log: SimulatedLog) -> None:
    remake(log)
    write(log, SOME)


CHANGES: Final = [grow, grow_and_abort, begin, vanish, remake, remake_with_as_much]


@pytest.mark.parametrize("change", CHANGES)
def test_a_topic_that_changes_at_any_moment_of_its_archive_gets_no_manifest(
    change: Callable[[SimulatedLog], None],
) -> None:
    objects = len(archived(simulated(SOME), in_memory(), limits=SMALL).objects)

    def never(number: int) -> None:
        """Nothing happens."""

    for moment in range(objects):
        log = simulated(SOME)

        def at(number: int, moment: int = moment, log: SimulatedLog = log) -> None:
            if number == moment:
                change(log)

        assert isinstance(refused(log, Watched(in_memory(), at, never)), TopicChanged)
        log = simulated(SOME)

        def at_get(number: int, moment: int = moment, log: SimulatedLog = log) -> None:
            if number == moment:
                change(log)

        assert isinstance(refused(log, Watched(in_memory(), never, at_get)), TopicChanged)


@pytest.mark.parametrize("change", CHANGES)
def test_a_topic_that_changes_after_its_archive_is_not_the_one_that_was_archived(
    change: Callable[[SimulatedLog], None],
) -> None:
    log = simulated(SOME)
    manifest = archived(log, in_memory())
    require_unchanged(log, manifest)
    change(log)
    with pytest.raises(TopicChanged, match="Nothing was deleted"):
        require_unchanged(log, manifest)


def test_a_topic_with_an_open_transaction_is_not_archived() -> None:
    log = simulated(SOME)
    begin(log)
    assert "a transaction is open" in refused(log, in_memory()).what


def test_what_compaction_takes_after_an_archive_does_not_make_it_another_topic() -> None:
    log = simulated(SOME)
    manifest = archived(log, in_memory())
    compact(log)
    require_unchanged(log, manifest)


def test_a_topic_that_is_not_there_is_said() -> None:
    with pytest.raises(UnknownTopic, match=r"nowhere.*topic list"):
        archive_topic(simulated(), "nowhere", in_memory())


def test_an_embedded_topic_that_grows_between_reading_and_the_manifest_gets_none() -> None:
    with embedded(SOME) as log:
        count = len(archived(log, in_memory(), limits=SMALL).objects)

        def at_get(number: int) -> None:
            if number == count - 1:
                write(log, [Transaction(((0, b"late", None),))])

        store = Watched(in_memory(), lambda number: None, at_get)
        problem = refused(log, store)
        assert isinstance(problem, TopicChanged)
        assert "was archived up to offset" in problem.what


def test_writing_beside_the_topic_does_not_matter() -> None:
    log = simulated(SOME)

    def at_put(number: int) -> None:
        write(log, [Transaction(((0, b"x", b"y"),))], BESIDE.name)

    archived(log, Watched(in_memory(), at_put, lambda number: None), limits=SMALL)


class Mute(Process):
    """A process whose polls bring nothing."""

    def portion(self, records: int) -> int:
        return 0


def test_a_log_that_gives_nothing_of_what_it_has_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmtl.engine.archive.writing.SILENCE_S", 0.0)
    mute = SimulatedLog(simulated(SOME).cluster, Mute("mute"))
    with pytest.raises(LogUnreachable, match="gave nothing"):
        archived(mute, in_memory())


def test_memory_is_for_one_object_however_long_the_topic_is(tmp_path: Path) -> None:
    chance = Random(7)
    rows = [(0, str(number).encode(), chance.randbytes(1 << 20)) for number in range(48)]
    with embedded([Transaction((one,)) for one in rows]) as log:
        store = open_objects(parse(f"file://{tmp_path}"))
        tracemalloc.start()
        try:
            manifest = archived(log, store, limits=Limits(size_bytes=3 << 20))
            restored = sum(len(one.value or b"") for one in restore(store, manifest))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert restored == 48 << 20
    assert peak < 24 << 20, peak


def test_records_are_read_past_the_end_of_a_poll() -> None:
    rows = tuple((0, str(number).encode(), b"v") for number in range(700))
    with embedded([Transaction(rows)]) as log:
        store: Objects = in_memory()
        manifest = archived(log, store)
        assert manifest.records == 700
        assert [one.partition for one in manifest.partitions] == list(range(PARTITIONS))
        assert list(restore(store, manifest)) == on_the_log(log)
