"""`qmtl lag` and `qmtl worker list` say what lies on the log, reckoned here from its records and committed positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.lag import COUNTED
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.contracts.control import InputPosition, PositionStamp
from qmtl.foundation.wire.keys import stamp_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.topology import NAMES
from tests.interfaces.cli.running import assert_one_screen, call, run
from tests.replay.logs import (
    MINUTE_MS,
    RAW,
    START_MS,
    commit,
    create,
    log_in,
    marker,
    raw_task,
    row,
    run_worldservice,
    stamp,
    ticks,
    world,
)

CLOCK = TopicPartition("clock", 0)
COMMANDS = TopicPartition("world.commands", 0)
STATE = TopicPartition("world.state", 0)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[EmbeddedLog, str]]:
    """A log that is held for writing, on which the world service has closed three minutes, and its address."""
    with log_in(tmp_path / "log") as log:
        run_worldservice(log, tmp_path / "state", [[create("w1"), *ticks(1, 3)]])
        yield log, f"embedded:{tmp_path / 'log'}"


def rows_of(capsys: pytest.CaptureFixture[str], *args: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    ran = call(capsys, "lag", "--json", *args)
    assert ran.code == 0, ran
    assert all(line.startswith("trading[0] ") for line in ran.err.splitlines()), (
        ran
    )  # nobody closes its inputs here
    return {(one["group"], one["topic"], one["partition"]): one for one in ran.lines()}


def test_at_rest_nothing_waits_and_the_buckets_are_the_same(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    found = rows_of(capsys, "--log", address)
    clock = found["qmtl.worldservice", "clock", 0]
    committed = log.committed("qmtl.worldservice", [CLOCK, COMMANDS])
    assert clock["position"] == committed[CLOCK]
    assert (clock["records"], clock["lag_buckets"], clock["lag_seconds"]) == (0, 0, 0)
    assert clock["closed_ms"] == clock["own_ms"] == START_MS + 3 * MINUTE_MS
    assert found["qmtl.worldservice", "world.commands", 0]["position"] == committed[COMMANDS]
    assert found["qmtl.worldservice", "world.commands", 0]["closed_ms"] is None
    assert {one["processor"] for one in found.values()} == set(NAMES)


def test_what_has_come_since_is_counted_in_offsets_records_buckets_and_seconds(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    before = dict(log.end_offsets([CLOCK, COMMANDS]))
    commit(log, [create("w2"), create("w3"), *ticks(4, 8)])
    ends = log.end_offsets([CLOCK, COMMANDS])
    found = rows_of(capsys, "--log", address, "--group", "worldservice")
    assert {group for group, _, _ in found} == {"qmtl.worldservice"}
    clock, commands = found["qmtl.worldservice", "clock", 0], found["qmtl.worldservice", "world.commands", 0]
    assert (clock["records"], clock["lag_buckets"], clock["lag_seconds"]) == (5, 5, 300)
    assert (commands["records"], commands["lag_buckets"], commands["lag_seconds"]) == (2, None, None)
    for one, where in ((clock, CLOCK), (commands, COMMANDS)):
        assert one["high_watermark"] == one["stable"] == ends[where]
        assert one["lag"] == one["lag_stable"] == ends[where] - one["position"]
        assert ends[where] - before[where] <= one["lag"]
        assert one["open_transaction"] is False
    assert rows_of(capsys, "--log", address, "--group", "qmtl.worldservice") == found


def test_beyond_what_is_counted_buckets_are_reckoned_from_the_distance_of_the_last_ones(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    commit(log, ticks(4, COUNTED + 500))
    clock = rows_of(capsys, "--log", address)["qmtl.worldservice", "clock", 0]
    assert (clock["records"], clock["lag_buckets"], clock["lag_seconds"]) == (
        None,
        COUNTED + 497,
        (COUNTED + 497) * 60,
    )
    shown = call(capsys, "lag", "--log", address)
    assert shown.code == 0
    assert f"≤{clock['lag_stable']}" in shown.out


def test_a_marker_far_from_the_end_is_found(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    """Between the newest marker and the end of the partition lie more records than one look back takes."""
    log, address = held
    commit(log, [marker("activation", START_MS + MINUTE_MS * 9)])
    commit(log, [row("world.state", world(f"w{number}")) for number in range(2000)])
    commit(log, [stamp("activation", number) for number in range(2000)])
    found = rows_of(capsys, "--log", address)
    assert found["qmtl.trading", "activation", 0]["closed_ms"] == START_MS + 9 * MINUTE_MS
    assert found["qmtl.trading", "world.state", 0]["closed_ms"] == START_MS + 3 * MINUTE_MS
    assert found["qmtl.trading", "world.state", 0]["position"] is None


def test_who_waits_for_an_input_says_for_which_which_bucket_it_needs_and_which_there_is(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    minute = [START_MS + number * MINUTE_MS for number in range(4)]

    def needed() -> dict[tuple[str, int], int | None]:
        found = rows_of(capsys, "--log", address, "--group", "trading")
        return {(topic, number): one["needed_ms"] for (_, topic, number), one in found.items()}

    def said() -> list[str]:
        return call(capsys, "lag", "--log", address, "--group", "trading").err.splitlines()

    sources = sorted(where for where in needed() if where[0] in ("trade.intents", "trade.market"))
    assert len(sources) > 3
    # The world service has closed minute 1 to 3; nobody has closed anything of the market or the intents.
    assert needed() == {where: minute[1] if where in sources else None for where in needed()}
    assert len(said()) == 4
    assert said()[0].startswith(
        "trading[0] closes no bucket until trade.intents[0] has closed bucket 2018-04-04T00:01:00"
    )
    assert "it has closed none" in said()[0]
    assert said()[-1] == f"trading[0] waits for {len(sources) - 3} more partitions."
    commit(log, [marker(name, ms, number) for name, number in sources for ms in (0, *minute[1:3])])
    assert set(needed().values()) == {
        None
    }  # the next bucket is complete: nothing but the trading worker is missing
    assert said() == []
    # It has closed minute 2, and of its sources all partitions but one have closed minute 3.
    inside = tuple(
        InputPosition(where.topic, where.partition, end)
        for where, end in log.end_offsets([TopicPartition(*one) for one in sources]).items()
    )
    commit(log, [marker("trade.portfolio", ms, processor="trading") for ms in (0, *minute[1:3])])
    value = PositionStamp("trading", 0, inside, (minute[1], minute[2]))
    commit(log, [("trade.worlds", 0, stamp_key("trading", 0), codec.encode(value))])
    early_ms = minute[3] - MINUTE_MS // 2  # one has closed a bucket that the others skip
    commit(log, [marker(sources[0][0], early_ms, sources[0][1])])
    commit(log, [marker(name, minute[3], number) for name, number in sources[:-1]])
    assert {where: ms for where, ms in needed().items() if ms} == {sources[-1]: early_ms}
    (line,) = said()
    assert "has closed bucket 2018-04-04T00:02:30" in line
    assert "its newest is 2018-04-04T00:02:00" in line


def test_any_group_that_has_committed_can_be_named(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    writer = log.writer("auditor")
    writer.begin()
    writer.commit({CLOCK: 2}, "audit", None)
    found = rows_of(capsys, "--log", address, "--group", "audit")
    (clock,) = found.values()
    assert (clock["position"], clock["processor"], clock["task"]) == (2, None, None)
    assert clock["lag"] == log.end_offsets([CLOCK])[CLOCK] - 2
    ran = call(capsys, "lag", "--log", address, "--group", "nobody")
    assert_one_screen(ran, "QMTL-801", 2, says=["'nobody'", "qmtl worker names"])


def test_of_tasks_that_read_the_same_partition_each_has_its_own_position(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    """A group has one position per partition, so the tasks' own stamps tell."""
    log, address = held
    (tasks,) = {spec.partitions for spec in CATALOGUE if spec.name in ("node.deployments", "trade.intents")}
    assert tasks > 1
    for number in range(tasks):
        inside = (InputPosition("clock", 0, number + 1), InputPosition(RAW, 2, 0))
        value = PositionStamp("nodes", number, inside, (0, START_MS + number * MINUTE_MS))
        commit(log, [("node.deployments", number, stamp_key("nodes", number), codec.encode(value))])
    commit(log, [row("dag.tasks", raw_task())])
    ran = call(capsys, "lag", "--json", "--log", address, "--group", "nodes")
    assert (ran.code, ran.err) == (0, "")
    found = {(one["task"], one["topic"], one["partition"]): one for one in ran.lines()}
    for number in range(tasks):
        clock = found[number, "clock", 0]
        assert (clock["position"], clock["own_ms"]) == (number + 1, START_MS + number * MINUTE_MS)
        assert clock["lag_seconds"] == 60 * (3 - number)
        assert (
            found[number, RAW, 2]["position"] == 0
        )  # which no code declares: it has found it out while it ran
        assert (number, RAW, 1) not in found


def test_a_log_without_topics_has_no_lag(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with log_in(tmp_path / "log", specs=()):
        ran = call(capsys, "lag", "--json", "--log", f"embedded:{tmp_path / 'log'}")
    assert (ran.code, ran.out) == (0, "")


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]) -> None:
    _, address = held
    shown = call(capsys, "lag", "--log", address)
    assert shown.code == 0
    assert shown.out.splitlines()[0].split()[:3] == ["PROCESSOR", "TASK", "INPUT"]
    assert any(line.startswith("worldservice") and "clock[0]" in line for line in shown.out.splitlines())


# ---- workers --------------------------------------------------------------------------------------------------------


def test_on_an_embedded_log_the_workers_are_said_to_be_unknown(
    capsys: pytest.CaptureFixture[str], held: tuple[EmbeddedLog, str]
) -> None:
    log, address = held
    ran = call(capsys, "worker", "list", "--json", "--log", address)
    assert ran.code == 0
    found = {one["processor"]: one for one in ran.lines()}
    assert set(found) == set(NAMES)
    assert {one["state"] for one in found.values()} == {"unknown"}
    assert {one["slot"] for one in found.values()} == {None}
    committed = log.committed("qmtl.worldservice", [CLOCK, COMMANDS])
    assert found["worldservice"]["tasks"] == {
        "0": {
            "clock[0]": committed[CLOCK],
            "dag.context[0]": 0,
            "world.commands[0]": committed[COMMANDS],
        }
    }
    assert found["trading"]["tasks"] == {"0": {}}
    shown = call(capsys, "worker", "list", "--log", address)
    assert shown.code == 0
    assert "does not know who runs" in shown.err


def test_the_names_of_processors_need_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(tmp_path, "worker", "names")
    assert (shown.code, shown.err) == (0, "")
    assert [line.split()[0] for line in shown.out.splitlines()] == [*NAMES, "clock"]
    told = call(capsys, "worker", "names", "--format", "json").lines()
    assert [one["processor"] for one in told] == [*NAMES, "clock"]
    assert all(one["about"] in shown.out for one in told)
