"""Sources whose buckets are longer than those of their reader."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Input
from qmtl.engine.watermark import Wait
from qmtl.interfaces import standing
from tests.engine.driving import bench, closed, messages
from tests.engine.models import MINUTE
from tests.engine.toys import A_OUT, CODEC, LATE, TOPICS, XX, Feed, Item, X, make_topics, spread

LONG: int = 5
"""Minutes in a bucket of the slow source."""
T0: int = 1_700_000_100_000 // (LONG * MINUTE) * (LONG * MINUTE)
IDLE: int = 3

Mixed = spread(
    Input(X.name, bucketed=True),
    Input(XX.name, bucketed=True, broadcast=True, joins=True, idle_after=IDLE, every_ms=LONG * MINUTE),
)


def at(number: int) -> int:
    return T0 + number * MINUTE


def quick(feed: Feed, number: int) -> None:
    feed.bucket(at(number), {0: [Item("x", number, 1)]})


def slow(feed: Feed, number: int) -> None:
    """Its bucket that ends with this minute."""
    feed.bucket(at(number), {number % XX.partitions: [Item("xx", number, 1)]})


def seen(log: Log) -> list[tuple[int, str, int]]:
    return [(one.bucket_ms, one.name, one.seq) for one in messages(log, A_OUT.name)]


def late(log: Log) -> list[int]:
    return [CODEC.decode(one.value).seq for one in messages(log, LATE.name)]


def wanted(until: int, slow_until: int) -> list[tuple[int, str, int]]:
    """Each minute's record, and of the slow source each record in the minute at which its bucket ends."""
    out = []
    for number in range(until + 1):
        out.append((at(number), "x", number))
        if number % LONG == 0 and number <= slow_until:
            out.append((at(number), "xx", number))
    return out


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.sampled_from(["x", "x", "xx", "step", "restart", "lose the store"]), max_size=60),
    st.sampled_from([1, 3, 4000]),
    st.sampled_from([1, watermark.BUFFERED_RECORDS]),
)
@example(["xx", *["x"] * 3, "restart", *["x", "step"] * 3, "xx", "step"], 4000, 1)
@example([*["step"] * 3, *["x"] * 4, "step", "x", "step", "step", "xx"], 4000, watermark.BUFFERED_RECORDS)
def test_no_minute_waits_for_a_bucket_that_is_not_due_and_none_that_is_due_is_late(
    acts: list[str], poll: int, bound: int
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        patched.setattr(watermark, "BUFFERED_RECORDS", bound)
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        x, xx = Feed(log, X), Feed(log, XX)
        slow(xx, 0)
        quick(x, 0)
        minute, done, lives, reached = 0, 0, 0, 0
        left = [*acts, "restart"]
        while left:
            with bench(log, Path(place) / str(lives), Mixed, poll=poll) as runs:
                act = ""
                while left and (act := left.pop(0)) not in ("restart", "lose the store"):
                    if act == "x" and minute < done + LONG + IDLE - 2:  # nobody may call the slow one silent
                        minute += 1
                        quick(x, minute)
                    elif act == "xx":
                        done += LONG
                        slow(xx, done)
                    elif act == "step":
                        runs.step()
                runs.settle()
                reached = min(minute, done + LONG - 1)
                assert closed(log, A_OUT.name)[-1] == at(reached)
            lives += act == "lose the store"
        assert seen(log) == wanted(reached, done)
        assert late(log) == []
        log.close()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("poll", [1, 4000])
def test_a_slow_source_that_ends_is_waited_for_from_where_its_bucket_is_due_and_never_before(
    log: Log, tmp_path: Path, restart: bool, poll: int
) -> None:
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    slow(xx, 0)
    reaches = [
        *range(LONG),
        *[LONG - 1] * (IDLE - 1),  # its bucket is due, and so many minutes it is waited for
        *range(LONG + IDLE - 1, 4 * LONG),  # then no more, whatever else is due
    ]
    life = ExitStack()
    runs = life.enter_context(bench(log, tmp_path / "0", Mixed, poll=poll))
    for number, reached in enumerate(reaches):
        quick(x, number)
        if restart and number < LONG + IDLE - 1:
            life.close()
            runs = life.enter_context(bench(log, tmp_path / str(number), Mixed, poll=poll))
        runs.until(lambda: closed(log, A_OUT.name)[-1:] == [at(reached)])  # noqa: B023
        if LONG <= number < LONG + IDLE - 1:
            awaited = tuple(
                Wait(TopicPartition(XX.name, one), at(LONG), None if restart else at(0))
                for one in range(XX.partitions)
            )
            runs.until(lambda: [one.look().waits for one in runs.workers[0].tasks.values()] == [awaited])  # noqa: B023
    assert seen(log) == wanted(4 * LONG - 1, 0)
    slow(xx, 4 * LONG)  # it is back, on time
    quick(x, 4 * LONG)
    runs.until(lambda: closed(log, A_OUT.name)[-1:] == [at(4 * LONG)])
    life.close()
    assert seen(log)[-1] == (at(4 * LONG), "xx", 4 * LONG)
    assert late(log) == []


def test_a_source_of_another_length_is_late_only_if_its_bucket_was_closed_without_it(
    log: Log, tmp_path: Path
) -> None:
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    slow(xx, 0)
    with bench(log, tmp_path, Mixed) as runs:
        for number in range(2 * LONG - 1):
            quick(x, number)
        runs.until(lambda: closed(log, A_OUT.name)[-1] == at(2 * LONG - 2))
        slow(xx, LONG)
        slow(xx, 2 * LONG)
        quick(x, 2 * LONG - 1)
        quick(x, 2 * LONG)
        runs.until(lambda: closed(log, A_OUT.name)[-1] == at(2 * LONG))
        assert late(log) == [LONG]
        assert seen(log)[-1] == (at(2 * LONG), "xx", 2 * LONG)


@pytest.mark.parametrize("again", ["not", "opened", "elsewhere"])
@pytest.mark.parametrize("poll", [1, 4000])
def test_what_sleeps_goes_on_sleeping_wherever_the_task_is_opened_until_its_next_record(
    embedded_log: EmbeddedLog, tmp_path: Path, again: str, poll: int
) -> None:
    log = embedded_log
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    slow(xx, 0)
    xx.put({1: [Item("open", 0, 1)]})  # no marker ever closes it: it is read again at every start
    ends = LONG + IDLE - 1
    life = ExitStack()
    runs = life.enter_context(bench(log, tmp_path / "0", Mixed, poll=poll))
    for number in range(5 * LONG):
        if number > ends and again != "not":
            life.close()
            state = tmp_path / ("0" if again == "opened" else str(number))
            runs = life.enter_context(bench(log, state, Mixed, poll=poll))
        if number == 4 * LONG:
            slow(xx, number)
        quick(x, number)
        runs.settle()
        reached = LONG - 1 if LONG <= number < ends else number
        assert closed(log, A_OUT.name)[-1] == at(reached)
    quick(x, 5 * LONG)
    runs.settle()
    assert closed(log, A_OUT.name)[-1] == at(5 * LONG - 1)  # it is awake, and waited for
    life.close()
    expected = wanted(5 * LONG - 1, 0)
    expected.insert(4 * LONG + 2, (at(4 * LONG), "xx", 4 * LONG))
    assert [one for one in seen(log) if one[1] != "open"] == expected
    assert late(log) == []


class Found(Mixed):  # type: ignore[misc, valid-type] # a class that a function has made
    """Mixed, to who looks from outside: what it reads beside the quick source it has found out itself."""

    def inputs(self) -> tuple[Input, ...]:
        return (Input(X.name, bucketed=True),)


def test_who_looks_from_outside_sees_what_is_waited_for_and_nothing_that_is_not_due_or_sleeps(
    embedded_log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = embedded_log
    make_topics(log)
    monkeypatch.setattr(standing, "known_topics", lambda log, codec: dict(TOPICS))
    x, xx = Feed(log, X), Feed(log, XX)
    slow(xx, 0)

    def waits(until: int) -> list[int]:
        """After the quick source has closed these minutes, and the task as much of them as it can."""
        for number in range(numbers.pop(), until + 1):
            quick(x, number)
        numbers.append(until + 1)
        with bench(log, tmp_path, Mixed) as runs:
            runs.settle()
        (one,) = standing.standings(log, [Found()], CODEC)
        return [wait.needed_ms for wait in one.waits]

    def waits_untaken(number: int) -> list[int]:
        """The same where the task has not run since the quick source closed this minute."""
        quick(x, number)
        numbers[:] = [number + 1]
        (one,) = standing.standings(log, [Found()], CODEC)
        return [wait.needed_ms for wait in one.waits]

    numbers = [0]
    assert waits(LONG - 2) == waits_untaken(LONG - 1) == []
    assert waits(LONG) == [at(LONG)] * XX.partitions
    assert waits(LONG + IDLE) == waits_untaken(LONG + IDLE + 1) == []
    assert waits(2 * LONG - 1) == waits_untaken(2 * LONG) == []
