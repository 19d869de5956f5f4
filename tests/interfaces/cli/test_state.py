"""`qmtl state`: the latest value per key, by brute force the same, and true at the position that it names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import Record, TopicPartition
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.topics import topic
from tests.interfaces.cli.running import call
from tests.interfaces.cli.seen import Seen
from tests.replay.logs import (
    MINUTE_MS,
    RAW,
    START_MS,
    Clock,
    activate,
    commit,
    create,
    log_in,
    row,
    run_worldservice,
    world,
)

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def newest(records: list[Record], *, tombstones: bool) -> list[int]:
    """The offsets of the latest record per key, in key order, by brute force."""
    last = {one.key: one for one in records if not is_reserved(one.key)}
    return [last[key].offset for key in sorted(last) if tombstones or last[key].value is not None]


@pytest.mark.parametrize("tombstones", [False, True])
@pytest.mark.parametrize("name", ["world.state", RAW])
def test_the_state_is_the_latest_value_per_key_in_key_order(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str, tombstones: bool
) -> None:
    more = ["--tombstones"] if tombstones else []
    *rows, last = call(capsys, "state", name, *more, "--json", "--log", seen.address).lines()
    assert [one["offset"] for one in rows] == newest(seen.records[name], tombstones=tombstones)
    assert last == {
        "position": {
            f"{where.topic}[{where.partition}]": end
            for where, end in seen.ends.items()
            if where.topic == name
        }
    }


def test_the_state_for_people_ends_with_the_position_at_which_it_is_true(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    ran = call(capsys, "state", "world.state", "--limit", "2", "--log", seen.address)
    end = seen.ends[TopicPartition("world.state", 0)]
    total = len(newest(seen.records["world.state"], tombstones=False))
    assert ran.out.splitlines()[-1] == f"2 of {total} keys, true at world.state[0]@{end}"
    assert "\x1b" not in ran.out


@QUICK
@given(limit=st.integers(1, 8))
def test_a_limit_gives_the_first_keys(capsys: pytest.CaptureFixture[str], seen: Seen, limit: int) -> None:
    *rows, _ = call(
        capsys, "state", "world.state", "--limit", str(limit), "--json", "--log", seen.address
    ).lines()
    assert [one["offset"] for one in rows] == newest(seen.records["world.state"], tombstones=False)[:limit]


@pytest.mark.parametrize(
    ("parts", "keys"),
    [
        ([], [["alpha", "s1", "long"], ["alpha", "s2", "long"], ["alphabet", "s1", "long"]]),
        (["alpha"], [["alpha", "s1", "long"], ["alpha", "s2", "long"]]),
        (["alpha", "s2"], [["alpha", "s2", "long"]]),
        (["alpha", "s2", "long"], [["alpha", "s2", "long"]]),
        (["alpha", "s2", "short"], []),
        (["alph"], []),
        (["alpha", "s2", "long", "more"], []),
    ],
)
def test_key_parts_choose_the_keys_that_begin_with_them_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, parts: list[str], keys: list[list[str]]
) -> None:
    with log_in(tmp_path / "log") as log:
        gates = [activate("alpha", "s1"), activate("alpha", "s2"), activate("alphabet", "s1")]
        run_worldservice(log, tmp_path, [[create("alpha"), create("alphabet")], gates])
    chosen = [word for part in parts for word in ("--key", part)]
    ran = call(capsys, "state", "activation", *chosen, "--json", "--log", f"embedded:{tmp_path / 'log'}")
    assert [one["key"] for one in ran.lines()[:-1]] == keys


def test_a_whole_task_key_reads_the_one_partition_that_can_hold_it(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    for symbol in ("BTC", "ETH", "LTC", "XRP"):
        (found, last) = call(capsys, "state", RAW, "--key", symbol, "--json", "--log", seen.address).lines()
        assert found["key"] == [symbol]
        assert list(last["position"]) == [f"{RAW}[{found['partition']}]"]


def test_a_log_in_the_place_of_the_environment_is_taken(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_in(tmp_path / "log") as log:
        commit(log, [row("world.state", world("here"))])
    monkeypatch.setenv("QMTL_LOG", f"embedded:{tmp_path / 'log'}")
    assert call(capsys, "state", "world.state", "--json").lines()[0]["key"] == ["here"]


# ---- as it was ----------------------------------------------------------------------------------------------------


@QUICK
@given(until=st.integers(0, 70))
def test_until_an_offset_the_state_is_the_fold_of_what_lies_before_it(
    capsys: pytest.CaptureFixture[str], seen: Seen, until: int
) -> None:
    where = ("--until-offset", str(until), "--json", "--log", seen.address)
    *rows, last = call(capsys, "state", "world.state", *where).lines()
    before = [one for one in seen.records["world.state"] if one.offset < until]
    end = min(until, seen.ends[TopicPartition("world.state", 0)])
    assert [one["offset"] for one in rows] == newest(before, tombstones=False)
    assert last["position"] == {"world.state[0]": end}


@pytest.mark.parametrize("name", ["world.state", RAW])
@pytest.mark.parametrize("minute", [0, 1, 2, 7, 13, 14])
def test_until_a_time_the_state_is_the_fold_of_what_was_written_before_it(
    capsys: pytest.CaptureFixture[str], seen: Seen, name: str, minute: int
) -> None:
    until = START_MS + minute * MINUTE_MS
    where = ("--until-time", str(until), "--json", "--log", seen.address)
    *rows, last = call(capsys, "state", name, *where).lines()
    before = [one for one in seen.records[name] if one.timestamp_ms < until]
    assert [one["offset"] for one in rows] == newest(before, tombstones=False)
    for text, end in last["position"].items():
        after = [
            one.offset
            for one in seen.records[name]
            if f"{name}[{one.partition}]" == text and one.timestamp_ms >= until
        ]
        assert end == min(after, default=end)


def test_it_is_said_whether_a_state_of_then_may_lack_rows_that_were_written_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clock = Clock(int(time.time() * 1000))  # a log that is looked at goes by the time of day
    lag_ms = topic("world.state").min_compaction_lag_ms
    began_ms = clock.now_ms - lag_ms - 10 * MINUTE_MS
    with log_in(tmp_path / "log", clock) as log:
        for at, cash in ((began_ms, "1"), (began_ms + MINUTE_MS, "2"), (clock.now_ms - MINUTE_MS, "3")):
            clock.now_ms = at
            commit(log, [row("world.state", world("w", cash))])
    address = ("--log", f"embedded:{tmp_path / 'log'}")

    def told(until_ms: int) -> tuple[list[str], bool]:
        *rows, last = call(
            capsys, "state", "world.state", "--until-time", str(until_ms), "--json", *address
        ).lines()
        return [one["value"]["settings"]["initial_cash"] for one in rows], last["exact"]

    assert told(began_ms + 1) == (["1"], False)  # what follows is so old that the cleaner may have taken it
    assert told(began_ms + 2 * MINUTE_MS) == (["2"], True)
    people = call(capsys, "state", "world.state", "--until-offset", "1", *address)
    assert people.out.splitlines()[-1].startswith("Rows that were written again since may be missing")
    assert "may be missing" not in call(capsys, "state", "world.state", *address).out


def test_two_moments_or_an_offset_of_many_partitions_are_refused(
    capsys: pytest.CaptureFixture[str], seen: Seen
) -> None:
    both = call(capsys, "state", RAW, "--until-time", "0", "--until-offset", "0", "--log", seen.address)
    assert (both.code, "Give one." in both.err) == (2, True)
    many = call(capsys, "state", RAW, "--until-offset", "5", "--log", seen.address)
    assert (many.code, "3 partitions are meant" in many.err) == (2, True)
