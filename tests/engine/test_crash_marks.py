"""Records that kill the process: each is found by the marks that its victims leave, and no other is blamed."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qmtl.engine.crash_marks import CrashMarks
from qmtl.engine.handling import BUCKET_DEATHS
from qmtl.engine.intake import DEATHS
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.observer import Commit, Nobody, TaskId
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import CrashLoop, Quarantined
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.wire.keys import is_reserved
from tests.engine.driving import bench, closed, messages
from tests.engine.models import minute
from tests.engine.poison_lives import FAILED, LARGE, Crowded, Death, Greedy, Slow, live, watched
from tests.engine.poison_toys import (
    DEADLY,
    DECODES_DEADLY,
    Column,
    Ledger,
    column_model,
    ledger_model,
)
from tests.engine.program import address_of, open_log
from tests.engine.steered import Steered
from tests.engine.toys import A_OUT, CODEC, DEAD, ECHO, ITEMS, SIDE, Feed, Item, X, Y, make_topics

ROOT = Path(__file__).resolve().parents[2]

# ---- records that kill ---------------------------------------------------------------------------------------------------


def lives(place: Path, make: type[Ledger] | type[Column], poll: int = 4000, most: int = 40) -> int:
    """Lives until one ends well; returns how many died before."""
    for deaths in range(most):
        ended = live(place, make, poll)
        assert ended != FAILED
        if ended == 0:
            return deaths
    raise AssertionError(f"it died {most} times")


def fed(place: Path, feed: Callable[[Log], None]) -> None:
    log = EmbeddedLog(place / "log")
    make_topics(log)
    feed(log)
    log.close()


def seen(place: Path, topic: str) -> list[object]:
    log = EmbeddedLog(place / "log")
    found = messages(log, topic)
    log.close()
    return found


def letters(place: Path) -> list[DeadLetter]:
    found = [one for one in seen(place, DEAD.name) if isinstance(one, DeadLetter)]
    return sorted(found, key=lambda one: (one.topic, one.partition, one.offset))


def items_with(*deadly: int, count: int = 8) -> list[Item]:
    return [Item("a", seq, DEADLY if seq in deadly else seq) for seq in range(count)]


@pytest.mark.parametrize("poll", [1, 3, 4000])
@pytest.mark.parametrize("deadly", [(0,), (4,), (7,), (2, 3), (1, 6)])
def test_a_record_that_kills_its_handler_is_quarantined_after_so_many_deaths(
    tmp_path: Path, poll: int, deadly: tuple[int, ...]
) -> None:
    items = items_with(*deadly)
    fed(tmp_path, lambda log: Feed(log, ITEMS).put({0: items}))
    deaths = lives(tmp_path, Ledger, poll)
    assert DEATHS * len(deadly) <= deaths <= (DEATHS + 1) * len(deadly)
    assert seen(tmp_path, ECHO.name) == ledger_model([one for one in items if one.amount != DEADLY])[0]
    found = letters(tmp_path)
    assert [(one.code, one.attempts, one.offset, one.value) for one in found] == [
        (Quarantined.code, DEATHS, seq, CODEC.encode(items[seq])) for seq in deadly
    ]


@pytest.mark.parametrize("make, topic", [(Ledger, ITEMS), (Column, X)])
def test_bytes_that_kill_the_decoder_are_quarantined_unread(
    tmp_path: Path, make: type[Ledger] | type[Column], topic: object
) -> None:
    found: list[Item | bytes] = [Item("a", 0, 1), DECODES_DEADLY, Item("a", 1, 2), DECODES_DEADLY]

    def feed(log: Log) -> None:
        if topic is X:
            Feed(log, X).bucket(minute(0), {0: found})
        else:
            Feed(log, ITEMS).put({0: found})

    fed(tmp_path, feed)
    assert DEATHS * 2 <= lives(tmp_path, make) <= (DEATHS + 1) * 2
    assert [(one.code, one.value, one.offset) for one in letters(tmp_path)] == [
        (Quarantined.code, DECODES_DEADLY, 1),
        (Quarantined.code, DECODES_DEADLY, 3),
    ]
    sound = [one for one in found if isinstance(one, Item)]
    if make is Ledger:
        assert seen(tmp_path, ECHO.name) == ledger_model(sound)[0]
    else:
        assert seen(tmp_path, A_OUT.name) == column_model([(minute(0), sound)])


@pytest.mark.parametrize("poll", [1, 4000])
def test_a_record_that_kills_its_bucket_is_found_and_the_bucket_is_computed_without_it(
    tmp_path: Path, poll: int
) -> None:
    buckets = [[1, 2], [3, DEADLY, 4], [], [5, DEADLY]]
    made = [
        (
            minute(number),
            [Item("a", 10 * number + at, amount) for at, amount in enumerate(bucket)],
        )
        for number, bucket in enumerate(buckets)
    ]

    def feed(log: Log) -> None:
        one = Feed(log, X)
        for bucket_ms, bucket in made:
            one.bucket(bucket_ms, {0: bucket})

    fed(tmp_path, feed)
    assert lives(tmp_path, Column, poll) <= 2 * (DEATHS + 2)
    sound = [(ms, [one for one in bucket if one.amount != DEADLY]) for ms, bucket in made]
    assert seen(tmp_path, A_OUT.name) == column_model(sound)
    assert [one.code for one in letters(tmp_path)] == [Quarantined.code] * 2
    assert [one.value for one in letters(tmp_path)] == [
        CODEC.encode(one) for _, bucket in made for one in bucket if one.amount == DEADLY
    ]


@pytest.mark.parametrize("poll", [1, 4000])
def test_a_record_at_which_a_worker_hangs_is_quarantined_when_it_was_killed_there_so_many_times(
    tmp_path: Path, poll: int
) -> None:
    items = items_with(2, 5)
    fed(tmp_path, lambda log: Feed(log, ITEMS).put({0: items}))
    ends = [watched(tmp_path, poll)]
    while ends[-1] != 0:
        assert len(ends) < 12
        ends.append(watched(tmp_path, poll))
    assert {*ends[:-1]} == {-signal.SIGKILL}
    assert 2 * DEATHS <= len(ends) - 1 <= 2 * (DEATHS + 1)
    assert seen(tmp_path, ECHO.name) == ledger_model([one for one in items if one.amount != DEADLY])[0]
    assert [(one.code, one.attempts, one.offset) for one in letters(tmp_path)] == [
        (Quarantined.code, DEATHS, 2),
        (Quarantined.code, DEATHS, 5),
    ]


def test_a_process_that_is_refused_memory_ends_blames_no_record_and_loses_none(tmp_path: Path) -> None:
    items = [Item("a", seq, LARGE if seq == 3 else seq) for seq in range(6)]
    fed(tmp_path, lambda log: Feed(log, ITEMS).put({0: items}))
    assert {live(tmp_path, Greedy) for _ in range(DEATHS + 2)} == {FAILED}
    assert live(tmp_path, Ledger) == 0  # where there is enough
    assert seen(tmp_path, ECHO.name) == ledger_model(items)[0]
    assert letters(tmp_path) == []


def test_a_bucket_that_kills_by_no_one_record_keeps_the_task_closed_and_blames_none(tmp_path: Path) -> None:
    def feed(log: Log) -> None:
        one = Feed(log, X)
        one.bucket(minute(0), {0: [Item("a", 0, 1)]})
        one.bucket(minute(1), {0: [Item("a", seq, 1) for seq in range(1, 4)]})

    fed(tmp_path, feed)
    ends = [live(tmp_path, Crowded) for _ in range(BUCKET_DEATHS + 2)]
    assert ends == [-signal.SIGKILL] * BUCKET_DEATHS + [CrashLoop.exit_code] * 2
    assert letters(tmp_path) == []
    assert len(seen(tmp_path, A_OUT.name)) == 1
    (counted,) = (tmp_path / "state").glob("*.deaths")
    counted.unlink()  # the code was mended
    assert live(tmp_path, Column) == 0
    assert len(seen(tmp_path, A_OUT.name)) == 4


def test_without_the_state_directory_counting_begins_again(tmp_path: Path) -> None:
    fed(tmp_path, lambda log: Feed(log, ITEMS).put({0: items_with(2)}))
    for _ in range(DEATHS):
        assert live(tmp_path, Ledger) == -signal.SIGKILL
    shutil.rmtree(tmp_path / "state")
    assert DEATHS <= lives(tmp_path, Ledger) <= DEATHS + 1
    assert len(letters(tmp_path)) == 1


# ---- deaths that no record brings about -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_deaths_at_random_times_make_no_letter_of_a_sound_record(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    items = [Item("a", seq, seq % 5) for seq in range(2000)]
    fed(tmp_path, lambda log: Feed(log, ITEMS).put({0: items}))
    # Counted in records, so that most lives end a batch, on a slow machine too.
    deaths = [Death(chance.randint(1, 240), chance.uniform(0, 0.004)) for _ in range(25)]
    ended = [live(tmp_path, Slow, 60, death) for death in deaths]
    assert ended.count(-signal.SIGKILL) > 5
    assert lives(tmp_path, Slow, 60) == 0
    assert letters(tmp_path) == []
    assert seen(tmp_path, ECHO.name) == ledger_model(items)[0]


def record(offset: int) -> Record:
    return Record("t", 0, offset, b"k", b"v", 0)


def dies_at(place: Path, *offsets: int, log_id: str = "log") -> CrashMarks:
    """A life that handles these records well, and dies at the last."""
    marks = CrashMarks(place / "one-0", log_id)
    marks.batch([record(offset) for offset in range(10)])
    for offset in offsets[:-1]:
        marks.record(record(offset))
        marks.no_record()
        marks.survived(record(offset))
    marks.record(record(offsets[-1]))
    return marks


def test_a_record_that_was_handled_is_forgiven_and_one_that_was_not_is_not(tmp_path: Path) -> None:
    dies_at(tmp_path, 3)
    assert dies_at(tmp_path, 3).deaths_at(record(3)) == 1
    marks = dies_at(tmp_path, 3, 4)
    assert (marks.deaths_at(record(3)), marks.deaths_at(record(4))) == (0, 0)
    marks = CrashMarks(tmp_path / "one-0", "log")
    assert (marks.deaths_at(record(3)), marks.deaths_at(record(4)), marks.careful) == (0, 1, True)


def test_a_life_that_ends_well_leaves_no_mark_and_a_committed_stretch_no_care(tmp_path: Path) -> None:
    dies_at(tmp_path, 3)
    marks = CrashMarks(tmp_path / "one-0", "log")
    careful = []
    for position in (9, 10):
        marks.committed({TopicPartition("t", 0): position}, [])
        assert marks.deaths_at(record(3)) == 0
        careful.append(marks.careful)
    assert careful == [True, False]
    marks.close()
    assert not CrashMarks(tmp_path / "one-0", "log").careful


HERE, ELSEWHERE = TopicPartition("t", 0), TopicPartition("left", 0)


def started(place: Path, *reads: TopicPartition) -> CrashMarks:
    """The next life, which reads these partitions."""
    marks = CrashMarks(place / "one-0", "log")
    marks.reading(reads)
    return marks


def test_a_death_at_a_record_of_an_input_that_left_asks_for_no_care_and_counts_when_it_is_back(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        dies_at(tmp_path, 3)
    for number in range(3):  # lives that end well and never come past that record
        marks = started(tmp_path, ELSEWHERE)
        assert not marks.careful
        marks.committed({ELSEWHERE: number + 1, HERE: 3}, [])
        assert not marks.careful
        marks.close()
    marks = started(tmp_path, ELSEWHERE)
    marks.reading([HERE, ELSEWHERE])  # it is back in the middle of a life
    assert (marks.careful, marks.deaths_at(record(3))) == (True, 2)
    dies_at(tmp_path, 3)
    marks = started(tmp_path, HERE)
    assert (marks.careful, marks.deaths_at(record(3))) == (True, 3)
    marks.committed({HERE: 10}, [])
    assert (marks.careful, marks.deaths_at(record(3))) == (False, 0)


def test_a_stretch_of_an_input_that_left_asks_for_no_care_until_it_is_read_again(tmp_path: Path) -> None:
    marks = CrashMarks(tmp_path / "one-0", "log")
    marks.batch([record(9), Record("left", 0, 4, b"k", b"v", 0)])  # it dies at none in particular
    marks = started(tmp_path, HERE)
    cares = [marks.careful]
    marks.committed({HERE: 10, ELSEWHERE: 2}, [])
    cares.append(marks.careful)  # the one of them that is read is past what it died in
    marks.reading([HERE, ELSEWHERE])
    cares.append(marks.careful)
    marks.committed({HERE: 10, ELSEWHERE: 5}, [])
    cares.append(marks.careful)
    assert cares == [True, False, True, False]


class Commits(Nobody):
    """Counts transactions."""

    def __init__(self) -> None:
        self.count = 0

    def committed(self, task: TaskId, commit: Commit) -> None:
        self.count += 1


@pytest.mark.parametrize("read, transactions", [("xy", 5), ("x", 1)])
def test_a_task_goes_with_care_only_while_what_its_predecessor_died_at_is_read(
    embedded_log: EmbeddedLog, tmp_path: Path, read: str, transactions: int
) -> None:
    log = embedded_log
    make_topics(log)
    side, x, y = (Feed(log, spec) for spec in (SIDE, X, Y))
    side.put({0: [Item("xy", 0, 1)]})
    for feed in (x, y):
        feed.bucket(minute(0))
    with bench(log, tmp_path, Steered) as runs:
        runs.settle()
        side.put({0: [Item(read, 1, 1)]})
        runs.settle()
    for number in range(1, 6):
        for feed in (x, y):
            feed.bucket(minute(number), {0: [Item("n", number, 1)]})
    last = [one for one in read_all(log, [TopicPartition(Y.name, 0)]) if not is_reserved(one.key)][-1]
    dead = CrashMarks(tmp_path / "steered-0", log.log_id)
    dead.batch([last])
    dead.record(last)
    commits = Commits()
    with bench(log, tmp_path, Steered, observer=commits) as runs:
        runs.settle()
    assert closed(log, A_OUT.name)[-1] == minute(5)
    assert commits.count == transactions


def test_a_death_in_a_bucket_that_never_closed_asks_for_no_care_once_a_later_one_has(tmp_path: Path) -> None:
    marks = CrashMarks(tmp_path / "one-0", "log")
    marks.batch([record(0)])
    marks.bucket(minute(2))
    marks = started(tmp_path, HERE)
    assert marks.deaths_in(minute(2)) == 1
    cares = []
    for number in (1, 3):  # the input that had closed it left
        marks.committed({HERE: 1}, [minute(number)])
        cares.append((marks.careful, marks.deaths_in(minute(2))))
    assert cares == [(True, 1), (False, 0)]


def test_marks_of_another_log_and_torn_marks_say_nothing(tmp_path: Path) -> None:
    dies_at(tmp_path, 3)
    marks = CrashMarks(tmp_path / "one-0", "another log")
    assert (marks.careful, marks.deaths_at(record(3))) == (False, 0)
    dies_at(tmp_path, 3)
    mark = tmp_path / "one-0.mark"
    whole = mark.read_bytes()
    for cut in range(0, len(whole), 7):
        mark.write_bytes(whole[:cut] + b"\x00" * (len(whole) - cut - 1) + b"?")
        (tmp_path / "one-0.deaths").write_bytes(whole[:cut])
        again = CrashMarks(tmp_path / "one-0", "log")
        assert (again.careful, again.deaths_at(record(3))) == (False, 0)


# ---- lives of a program on either log ------------------------------------------------------------------------------------


def program(address: str, state: Path, goal: int) -> int:
    command = [sys.executable, "-m", "tests.engine.poison_program", address, str(state), str(goal), "ledger"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 139, -signal.SIGKILL), done.stderr
    return done.returncode


def test_records_that_kill_a_program_are_found_on_either_log(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    found: Sequence[Item | bytes] = [Item("a", 0, 1), DECODES_DEADLY, *items_with(1, count=3)]
    Feed(log, ITEMS).put({0: found})
    address = address_of(log)
    if isinstance(log, EmbeddedLog):
        log.close()
    ends = [program(address, tmp_path / "state", 2)]
    while ends[-1] != 0:
        assert len(ends) < 12
        ends.append(program(address, tmp_path / "state", 2))
    log = open_log(address)
    assert ends.count(139) in (DEATHS, DEATHS + 1)
    assert ends.count(-signal.SIGKILL) in (DEATHS, DEATHS + 1)
    sound = [one for one in found if isinstance(one, Item) and one.amount != DEADLY]
    assert messages(log, ECHO.name) == ledger_model(sound)[0]
    assert [one.code for one in messages(log, DEAD.name)] == [Quarantined.code] * 2
    log.close()
