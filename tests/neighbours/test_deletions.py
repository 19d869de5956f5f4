"""Records that retention has taken before they were read: said aloud, built again where the log has it, never skipped."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qmtl.engine import recovery
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.recovery import Restored, restore
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import OffsetGone
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, stamp_key
from qmtl.foundation.wire.topics import DAY_MS, Cleanup, TopicSpec
from tests.contract.driving import put, settled
from tests.engine.toys import DEAD, Total
from tests.neighbours.driving import check, delete_before, raw, serve, serving, told_count
from tests.neighbours.toys import (
    CODEC,
    FIRST,
    INPUT,
    INPUTS,
    OUTPUTS,
    SUMS,
    TOLD,
    Crowd,
    Pass,
    Tally,
    make_topics,
    name_at,
)

# ---- N4 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make,lost", [(Tally, "kept"), (Tally, "lost"), (Pass, "kept")])
def test_input_that_went_before_it_was_read_stops_the_task_and_is_not_jumped_over(
    kafka_log: KafkaLog, tmp_path: Path, make: Callable[[], Processor], lost: str
) -> None:
    """N4, https://github.com/quixio/quix-streams/issues/1114: a committed position that retention has overtaken."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    name = name_at(0)
    crowd.give(2, [name])
    with serving(log, tmp_path / "state", make) as worker:
        serve([worker], lambda: told_count(log) >= 2)
    crowd.give(2, [name])
    end = settled(log, [INPUTS[0]])[INPUTS[0]]
    crowd.give(2, [name])
    delete_before(log, INPUTS[0], end)
    if lost == "lost":
        shutil.rmtree(tmp_path / "state")
    before = settled(log, [*OUTPUTS, FIRST])
    for _ in range(2):  # it stays so, however often it is started
        with serving(log, tmp_path / "state", make) as worker, pytest.raises(OffsetGone) as refused:
            serve([worker], lambda: False)
        assert INPUT.name in refused.value.what
        assert refused.value.exit_code == 3
    assert told_count(log) == 2
    assert log.end_offsets([*OUTPUTS, FIRST]) == before, "nothing was written"


@pytest.mark.parametrize("make", [Tally, Pass])
def test_on_the_embedded_log_input_that_went_unread_stops_the_task_too(
    tmp_path: Path, make: Callable[[], Processor]
) -> None:
    """N4 where the log's own cleaner is the one that takes records away."""
    now = [0]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    log.ensure_topics([replace(INPUT, retention_ms=DAY_MS), SUMS, TOLD, DEAD])
    crowd = Crowd(log)
    name = name_at(0)
    crowd.give(2, [name])
    with serving(log, tmp_path / "state", make) as worker:
        serve([worker], lambda: told_count(log) >= 2)
    crowd.give(2, [name])
    now[0] += 2 * DAY_MS
    crowd.give(2, [name])
    assert log.clean() == 4
    for _ in range(2):
        with serving(log, tmp_path / "state", make) as worker, pytest.raises(OffsetGone):
            serve([worker], lambda: False)
    assert told_count(log) == 2
    log.close()


# ---- N7 ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """A row that takes much room."""

    name: str
    text: str


WORDS_CODEC = Codec((Word, PositionStamp))
WORDS = TopicSpec("near.words", ("name",), (), (Word,), Cleanup.COMPACT, "speller")
WORDS_WHERE = TopicPartition(WORDS.name, 0)

BIG = 900_000
"""Characters of a row: a client reads ahead by 16 MiB, and what it has is not taken from it."""
GENERATION = 40
"""Rows of this size that are written twice; the first writing goes while it is read."""


def word(chance: random.Random, number: int) -> str:
    return f"{number}:" + chance.randbytes(BIG // 2).hex()


def test_segments_that_go_while_they_are_read_are_told_and_then_built_again_whole(
    kafka_log: KafkaLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N7, https://github.com/faust-streaming/faust/issues/651: segments went under a recovery, which jumped to the end and took
    what it had for all there was."""
    log = kafka_log
    log.ensure_topics([WORDS])
    where = WORDS_WHERE
    chance = random.Random(7)
    stamp = (where, stamp_key("speller", 0), WORDS_CODEC.encode(PositionStamp("speller", 0)))
    ends = []
    latest: dict[str, int] = {}
    for generation in range(2):
        for start in range(0, GENERATION, 10):
            batch = []
            for number in range(start, start + 10):
                text = word(chance, generation)
                latest[f"w{number}"] = hash(text)
                batch.append(
                    (where, encode_key((f"w{number}",)), WORDS_CODEC.encode(Word(f"w{number}", text)))
                )
            put(log, [*batch, stamp])
        ends.append(settled(log, [where])[where])
    monkeypatch.setattr(recovery, "BATCH", 1)  # so that it has not read everything before anything can go
    went: list[int] = []

    def take_away(done: int, of: int) -> None:
        if done and not went:
            delete_before(log, where, ends[0])
            went.append(done)

    def attempt() -> tuple[Restored, dict[str, int]]:
        store = Store(tmp_path / "store", log.log_id)
        try:
            words = Table(WORDS, 0, store, WORDS_CODEC)
            found = restore(log, store, {WORDS.name: words}, WORDS_CODEC, stall_s=20.0, progress=take_away)
            return found, {one.name: hash(one.text) for one in words.items()}
        finally:
            store.close()

    with pytest.raises(OffsetGone, match=WORDS.name):
        attempt()
    assert went
    assert went[0] < ends[0]
    _, rows = attempt()  # the next start, over what the first has left
    assert rows == latest


# ---- N13 --------------------------------------------------------------------------------------------------------------


def test_a_store_that_ends_before_the_log_begins_is_built_again_once_and_for_all(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N13, https://issues.apache.org/jira/browse/KAFKA-20663: a persisted local offset below the start of its changelog ended the
    process at every start."""
    log = kafka_log
    make_topics(log)
    crowd = Crowd(log)
    name = name_at(0)
    crowd.give(2, [name, name_at(0, 1)])
    with serving(log, tmp_path / "state") as worker:
        serve([worker], lambda: told_count(log) >= 2)
    shutil.copytree(tmp_path / "state", tmp_path / "asleep")
    store = Store(tmp_path / "asleep" / "tally-0", log.log_id)
    known = store.checkpoint.tables[FIRST]
    # A row that only the old store has must not outlive it.
    ghost = CODEC.encode(Total("ghost", 1))
    store.write(
        [(SUMS.name, encode_key(("ghost",)), b"\0" * 8 + len(ghost).to_bytes(4, "big") + ghost)],
        store.checkpoint,
    )
    store.close()
    with serving(log, tmp_path / "state") as worker:
        for _ in range(3):
            crowd.give(2, [name, name_at(0, 1)])
            serve([worker], lambda: told_count(log) >= len(crowd.given))
    newest = max(one.offset for one in raw(log, FIRST))
    keep = [one.offset for one in raw(log, FIRST)][-3]  # two rows and their stamp, all of one transaction
    assert known < keep <= newest
    delete_before(log, FIRST, keep)
    for _ in range(3):  # and no start after the first one does it again
        crowd.give(2, [name, name_at(0, 1)])
        with serving(log, tmp_path / "asleep") as worker:
            serve([worker], lambda: told_count(log) >= len(crowd.given))
            assert worker._tasks[0]._tables[SUMS.name].get("ghost") is None
    check(log, crowd.given)
