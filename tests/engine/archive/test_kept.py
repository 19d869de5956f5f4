"""Whoever archives before a removal may ask again: after a transaction that failed, and after the removal itself."""

from __future__ import annotations

import pytest

from qmtl.engine.archive.kept import Archives
from qmtl.engine.archive.objects import in_memory
from qmtl.engine.archive.reading import manifests
from qmtl.foundation.common.errors import UnknownTopic
from tests.engine.archive.histories import SOME, TOPIC, remake, simulated, write
from tests.engine.archive.stores import Watched, contents


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


def test_another_process_stores_the_same_under_the_same_names() -> None:
    log, store = simulated(SOME), in_memory()
    first, before = Archives(log, store)(TOPIC), contents(store)
    assert Archives(log, store)(TOPIC) == first
    assert contents(store) == before


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
