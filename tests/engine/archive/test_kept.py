"""Whoever archives before a removal may ask again: after a transaction that failed, and after the removal itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qmtl.engine.archive.address import parse
from qmtl.engine.archive.kept import FRESH_S, Archives
from qmtl.engine.archive.manifest import name_in
from qmtl.engine.archive.objects import in_memory, open_objects
from qmtl.engine.archive.reading import load, manifests
from qmtl.engine.archive.writing import archive_topic
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.foundation.common.errors import ArchiveAltered, TopicChanged, UnknownTopic
from tests.engine.archive.histories import PARTITIONS, SOME, TOPIC, remake, simulated, write
from tests.engine.archive.stores import Watched, contents, holding


def quietly(number: int) -> None:
    """Nothing happens at it."""


def test_what_was_stored_is_not_stored_again_though_the_topic_is_gone_by_then() -> None:
    log, kept = simulated(SOME), in_memory()
    store = Watched(kept, quietly, quietly)
    archives = Archives(log, store)
    first = archives(TOPIC)
    (name,) = manifests(kept)
    assert (first.where, first.records) == (store.url(name), 8)
    asked = (store.puts, store.gets)
    assert archives(TOPIC) == first
    log.delete_topics([TOPIC])
    assert archives(TOPIC) == first
    assert (store.puts, store.gets) == asked


def take(log: SimulatedLog, count: int) -> None:
    """Retention takes so many offsets from the head of each partition, where there are so many."""
    for number in range(PARTITIONS):
        log.cluster.partition(TopicPartition(TOPIC, number)).trim(count)


@pytest.mark.parametrize("taken", [0, 1, 2, 99])
def test_another_process_finds_what_was_stored_though_retention_has_taken_of_it(taken: int) -> None:
    """A death between the archive and the report of it loses no record, however late somebody takes over."""
    log, kept = simulated(SOME), in_memory()
    first, before = Archives(log, kept)(TOPIC), contents(kept)
    take(log, taken)
    store = Watched(kept, quietly, quietly)
    assert Archives(log, store)(TOPIC) == first
    assert (contents(kept), store.puts) == (before, 0)


def test_of_what_is_stored_that_counts_which_has_most_and_is_whole() -> None:
    log, store = simulated(SOME), in_memory()
    first = Archives(log, store)(TOPIC)
    take(log, 2)
    less = archive_topic(log, TOPIC, store).manifest
    assert less.records < first.records
    assert Archives(log, store)(TOPIC) == first
    manifest = load(store, name_in(first.where))
    held = {less.name_of(one) for one in less.objects}
    (lost, *_) = sorted({manifest.name_of(one) for one in manifest.objects} - held)
    store.put(lost, b"altered")
    assert Archives(log, store)(TOPIC).digest == less.digest
    store.put(manifest.name, b"altered too")
    assert Archives(log, store)(TOPIC).digest == less.digest


def test_what_another_log_has_stored_is_none_of_ours() -> None:
    log, store = simulated(SOME), in_memory()
    first = archive_topic(log, TOPIC, store).manifest
    strange = replace(first, log_id="another")
    kept = holding({name: data for name, data in contents(store).items() if name != first.name})
    kept.put(strange.name, strange.encoded())
    assert Archives(log, kept)(TOPIC).digest == first.digest


# ---- before it goes ---------------------------------------------------------------------------------------------------


def test_a_topic_may_go_if_its_archive_is_whole_and_nothing_was_written_since() -> None:
    """What retention has taken since is no change; all is read, once within an hour."""
    log, kept, now = simulated(SOME), in_memory(), [0.0]
    first = Archives(log, kept)(TOPIC)
    take(log, 2)
    store = Watched(kept, quietly, quietly)
    archives = Archives(log, store, lambda: now[0])
    archives.check(TOPIC, first.where)
    objects = len(load(kept, name_in(first.where)).objects)
    assert store.gets == 1 + objects
    archives.check(TOPIC, first.where)  # whoever asks again had no time
    assert store.gets == 2 + objects
    now[0] = FRESH_S + 1
    archives.check(TOPIC, first.where)
    assert store.gets == 3 + 2 * objects
    log.delete_topics([TOPIC])
    with pytest.raises(UnknownTopic):
        archives.check(TOPIC, first.where)


def test_a_topic_that_was_written_since_or_made_anew_may_not_go() -> None:
    log, store = simulated(SOME), in_memory()
    archives = Archives(log, store)
    first = archives(TOPIC)
    write(log, SOME[:1])
    with pytest.raises(TopicChanged):
        archives.check(TOPIC, first.where)
    second = archives(TOPIC)
    archives.check(TOPIC, second.where)
    remake(log)
    write(log, SOME)
    with pytest.raises(TopicChanged):
        archives.check(TOPIC, second.where)


def test_a_topic_of_which_anything_stored_is_missing_or_altered_may_not_go() -> None:
    log, store = simulated(SOME), in_memory()
    first = Archives(log, store)(TOPIC)
    whole = contents(store)
    for name, data in whole.items():
        for damage in (None, data[:-1], data[:-1] + bytes([data[-1] ^ 1])):
            left = {**whole, **({} if damage is None else {name: damage})}
            if damage is None:
                del left[name]
            with pytest.raises(ArchiveAltered):
                Archives(log, holding(left)).check(TOPIC, first.where)
    for where in ("", "at/nothing", first.where + "x", first.where.replace(TOPIC, "toys.other")):
        with pytest.raises(ArchiveAltered):
            Archives(log, store).check(TOPIC, where)
    strange = replace(load(store, name_in(first.where)), topic="toys.other")
    store.put(strange.name, strange.encoded())
    with pytest.raises(ArchiveAltered):
        Archives(log, store).check(TOPIC, store.url(strange.name))
    Archives(log, store).check(TOPIC, first.where)


@pytest.mark.parametrize("prefix", ["", "/some/prefix"])
def test_an_archive_is_found_in_a_directory_by_its_url_and_also_in_a_copy_of_it(
    tmp_path: Path, prefix: str
) -> None:
    places = [tmp_path / "one", tmp_path / "two"]
    for place in places:
        Path(f"{place}{prefix}").mkdir(parents=True)
    log = simulated(SOME)
    one, two = (open_objects(parse(f"file://{place}{prefix}")) for place in places)
    first = Archives(log, one)(TOPIC)
    Archives(log, one).check(TOPIC, first.where)
    assert manifests(one, f"{TOPIC}/nobody") == []
    with pytest.raises(ArchiveAltered):
        Archives(log, two).check(TOPIC, first.where)
    for name, data in contents(one).items():
        two.put(name, data)
    Archives(log, two).check(TOPIC, first.where)
    assert Archives(log, one)(TOPIC) == first


def test_a_topic_that_was_written_since_or_made_anew_is_stored_as_it_is_now() -> None:
    log, store = simulated(SOME), in_memory()
    archives = Archives(log, store)
    first = archives(TOPIC)
    write(log, SOME[:1])
    second = archives(TOPIC)
    assert second.records == first.records + 4
    remake(log)
    write(log, SOME[:1])
    third = archives(TOPIC)
    assert third.records == 4
    assert len({first.digest, second.digest, third.digest}) == 3


def test_a_topic_that_never_was_is_told_of() -> None:
    log = simulated()
    log.delete_topics([TOPIC])
    with pytest.raises(UnknownTopic):
        Archives(log, in_memory())(TOPIC)
