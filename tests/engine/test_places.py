"""Where a task is in inputs that come and go: of what it does not read nobody is told, and nothing is held against it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import fastavro
import pytest

from qmtl.engine.incarnation import Finding
from qmtl.engine.log.embedded import _OFFSET, EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Input, Step
from qmtl.engine.stored import Checkpoint, parse_checkpoint, unparse_checkpoint
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import (
    CannotReplay,
    LogRegressed,
    LogUnreachable,
    OffsetGone,
    StateMismatch,
    UnknownTopic,
)
from qmtl.foundation.contracts.control import InputPosition, InputTopic, PositionStamp
from qmtl.foundation.wire.avro import fingerprint
from qmtl.foundation.wire.keys import is_stamp
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.interfaces import standing
from qmtl.replay.rerun import rerun
from tests.engine.driving import bench
from tests.engine.steered import Steered, TwoSources
from tests.engine.toys import A_MIRROR, A_OUT, CODEC, DEAD, LATE, SIDE, SPECS, TOPICS, Feed, X, Y

Y0 = TopicPartition(Y.name, 0)


@pytest.fixture
def world(embedded_log: EmbeddedLog) -> TwoSources:
    return TwoSources(embedded_log)


def last_stamp(log: Log) -> PositionStamp:
    found = [one.value for one in read_all(log, [TopicPartition(A_MIRROR.name, 0)]) if is_stamp(one.key)]
    stamp: PositionStamp = CODEC.decode(found[-1] or b"")
    return stamp


def leave_y(world: TwoSources, state: Path) -> None:
    """Both sources are read for a bucket, and x alone for another one."""
    with bench(world.log, state, Steered) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        world.read("x", 1)
        runs.settle()
        world.reach(runs, "x", 2)


def accept(log: Log, state: Path) -> int:
    """Takes the log as it is; says how much was found."""
    task = Task(log, Steered(), 0, CODEC, TaskSettings(state))
    try:
        return len(task.accept("ann", "it was meant", lambda found: None))
    finally:
        task.close()


# ---- while it is not read -----------------------------------------------------------------------------------------------


def test_the_group_is_told_of_what_is_read_and_the_stamp_keeps_the_rest(
    world: TwoSources, tmp_path: Path
) -> None:
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        world.forget(Y.name)
        world.give("y", 2)
        world.read("x", 1)  # what was read ahead of y is dropped with it
        runs.settle()
        world.reach(runs, "x", 2)
        assert world.log.committed("qmtl.steered", [Y0]) == {}
        at = {one.topic: one.offset for one in last_stamp(world.log).positions}
        assert [(one.topic, one.read) for one in last_stamp(world.log).topics] == [
            (SIDE.name, True),
            (X.name, True),
            (Y.name, False),
        ]
        world.read("xy", 2)
        runs.settle()
        world.reach(runs, "xy", 3)
        assert at[Y.name] < world.log.committed("qmtl.steered", [Y0])[Y0]
    assert world.seen() == [("x", 1), ("y", 1), ("x", 2), ("x", 3), ("y", 3)]


class Loose(Steered):
    """Reads y free."""

    def inputs(self) -> tuple[Input, ...]:
        y = (Input(Y.name),) if "y" in self._read else ()
        return (Input(SIDE.name), Input(X.name, bucketed=True), *y)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.topic == SIDE.name:
            super().on_record(step, arrival)


def test_an_input_that_leaves_in_the_transaction_that_reads_it_may_come_back(
    world: TwoSources, tmp_path: Path
) -> None:
    with bench(world.log, tmp_path, Loose) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        before = world.log.committed("qmtl.steered", [Y0])
        world.read("x", 1)
        world.give("y", 2)
        runs.settle()
        at = {one.topic: one.offset for one in last_stamp(world.log).positions}
        assert world.log.committed("qmtl.steered", [Y0])[Y0] == before[Y0] < at[Y.name]
        world.read("xy", 2)
        runs.settle()
    with bench(
        world.log, tmp_path, Loose
    ) as runs:  # the group's position lies behind, and nobody takes it for moved
        world.reach(runs, "x", 3)


def test_positions_of_a_topic_that_is_no_more_are_forgotten(world: TwoSources, tmp_path: Path) -> None:
    leave_y(world, tmp_path)
    world.log._topics.pop(Y.name)  # the log has no way to delete one
    with bench(world.log, tmp_path, Steered) as runs:
        world.reach(runs, "x", 3)
        assert {one.topic for one in last_stamp(world.log).positions} == {SIDE.name, X.name}


def test_lag_and_workers_tell_of_what_is_read(
    world: TwoSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_y(world, tmp_path)
    world.give("x", 4)
    monkeypatch.setattr(standing, "known_topics", lambda log, codec: dict(TOPICS))
    (one,) = standing.standings(world.log, [Steered()], CODEC)
    assert {read.where.topic for read in one.inputs} == {SIDE.name, X.name}
    assert one.waits == ()


@pytest.mark.parametrize("version", [1, 2])
def test_stamps_and_stores_of_before_sources_slept_are_read_as_if_all_were_awake(version: int) -> None:
    path = Path(__file__).parents[2] / "schemas" / "avro" / f"PositionStamp.v{version}.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    stamp = PositionStamp(
        "p", 0, (InputPosition(Y.name, 0, 7),), (60_000,), (InputTopic(Y.name, "id", True),)
    )
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), asdict(stamp))
    found = codec.decode(b"\xc3\x01" + fingerprint(schema) + body.getvalue())
    assert found == (stamp if version == 2 else replace(stamp, topics=()))
    kept = Checkpoint("log", positions={Y0: 7}, buckets=stamp.buckets, topics=stamp.topics)
    raw = json.loads(unparse_checkpoint(kept))
    assert parse_checkpoint(json.dumps(raw).encode()) == kept
    raw["topics"] = [row[:3] for row in raw["topics"]]
    assert parse_checkpoint(json.dumps(raw).encode()) == kept


# ---- when it is read again ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runs_on", [True, False])
@pytest.mark.parametrize("lose", [False, True])
def test_a_topic_that_was_made_anew_meanwhile_is_read_from_its_beginning(
    world: TwoSources, tmp_path: Path, lose: bool, runs_on: bool
) -> None:
    leave_y(world, tmp_path)
    world.make_anew(Y.name)
    if lose:
        shutil.rmtree(tmp_path / "steered-0")
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("xy", 2)
        runs.settle()
        if runs_on:
            world.give("xy", 11, 12, 13)
            runs.settle()
    with bench(world.log, tmp_path, Steered) as runs:
        if not runs_on:
            world.give("xy", 11, 12, 13)
        runs.settle()
    assert world.seen()[3:] == [(name, number) for number in (11, 12, 13) for name in "xy"]


def test_what_retention_took_meanwhile_is_not_missed(tmp_path: Path) -> None:
    now = [10**12]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    log.ensure_topics([replace(Y, retention_ms=1000)])
    log.ensure_topics([one for one in (*SPECS, DEAD, LATE, topic("task.cuts")) if one.name != Y.name])
    world = TwoSources.__new__(TwoSources)
    world.log, world.feeds = log, {"x": Feed(log, X), "y": Feed(log, Y)}
    leave_y(world, tmp_path / "state")
    world.give("y", 2, 3)
    now[0] += 5000
    log.clean()
    with bench(log, tmp_path / "state", Steered) as runs:
        world.read("xy", 2)
        runs.settle()
        world.reach(runs, "xy", 4)
    assert world.seen()[-2:] == [("x", 4), ("y", 4)]
    log.close()


def test_a_topic_that_got_more_partitions_meanwhile_is_refused_then_and_at_every_start(
    world: TwoSources, tmp_path: Path
) -> None:
    leave_y(world, tmp_path)
    world.change(Y.name, partitions=3)
    world.read("xy", 2)
    for _ in range(2):
        with bench(world.log, tmp_path, Steered) as runs, pytest.raises(StateMismatch, match="3 partitions"):
            runs.settle()


class Joining(Steered):
    """Its second source takes part once it has closed something, and is waited for during two buckets."""

    def inputs(self) -> tuple[Input, ...]:
        y = Input(Y.name, bucketed=True, joins=True, idle_after=2)
        return (Input(SIDE.name), Input(X.name, bucketed=True), *((y,) if "y" in self._read else ()))


@pytest.mark.parametrize("poll", [1, 4000])  # neither reads a bucket of x before it is told of y
def test_how_much_is_read_at_once_does_not_decide_from_which_bucket_on_a_source_takes_part(
    world: TwoSources, tmp_path: Path, poll: int
) -> None:
    world.read("x", 0)
    with bench(world.log, tmp_path, Joining) as runs:
        runs.settle()
    world.read("xy", 1)
    world.give("xy", *range(1, 8))
    with bench(world.log, tmp_path, Joining, poll=poll) as runs:
        runs.settle()
    assert world.seen() == [(name, number) for number in range(1, 8) for name in "xy"]


def test_a_source_that_fell_asleep_and_left_takes_part_again_when_it_comes_back_as_another_one(
    world: TwoSources, tmp_path: Path
) -> None:
    with bench(world.log, tmp_path, Joining) as runs:
        world.read("xy", 0)
        runs.settle()
        for names, numbers in (("xy", range(1, 8)), ("x", range(8, 12))):
            for number in numbers:
                world.give(names, number)
                runs.settle()
        world.read("x", 1)
        runs.settle()
        world.make_anew(Y.name)
        world.read("xy", 2)
        runs.settle()
        for number in range(12, 15):
            world.reach(runs, "xy", number)
    assert world.seen()[-6:] == [(name, number) for number in range(12, 15) for name in "xy"]


# ---- while it is read ---------------------------------------------------------------------------------------------------


def test_an_accepted_topic_is_accepted_wherever_the_task_goes(world: TwoSources, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for state, number in ((here, 1), (there, 2)):
        world.read("xy", number)
        with bench(world.log, state, Steered) as runs:
            runs.settle()
            world.reach(runs, "xy", number)
    world.make_anew(Y.name)
    world.give("xy", 3)
    with bench(world.log, here, Steered) as runs, pytest.raises(LogRegressed, match="deleted and made again"):
        runs.settle()
    assert accept(world.log, here) == 1
    for state, number in ((here, 4), (there, 5)):
        with bench(world.log, state, Steered) as runs:
            runs.settle()
            world.reach(runs, "xy", number)
    assert world.seen() == [(name, number) for number in range(1, 6) for name in "xy"]


@pytest.mark.parametrize("lost", [0, 1])
def test_a_log_that_ends_with_its_last_marker_has_lost_nothing(
    world: TwoSources, tmp_path: Path, lost: int
) -> None:
    """Everything of a partition that nobody writes to any more is old some day; its last offset is a transaction's marker."""
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        at = runs.workers[0].tasks[0].positions[Y0]
    end = at + 1 + lost
    if lost:
        world.give("y", 2)
    world.log._db.put(b"b" + world.log._slot(Y0), _OFFSET.pack(end))
    world.log._db.put(b"e" + world.log._slot(Y0), _OFFSET.pack(end))
    world.log._load_catalogue()
    assert (world.log.begin_offsets([Y0])[Y0], world.log.end_offsets([Y0])[Y0]) == (end, end)
    lives = bench(world.log, tmp_path, Steered)
    with lives as runs, pytest.raises(OffsetGone) if lost else nullcontext():
        runs.settle()


def test_a_topic_that_is_deleted_while_it_is_read_is_named_with_what_to_do(
    world: TwoSources, tmp_path: Path
) -> None:
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
    world.log._topics.pop(Y.name)
    with bench(world.log, tmp_path, Steered) as runs, pytest.raises(UnknownTopic, match=Y.name) as error:
        runs.settle()
    assert "qmtl worker accept" in error.value.remedy


class Switched(Steered):
    """Reads x by bucket, and free once it is told so."""

    name = "switched"

    def __init__(self) -> None:
        super().__init__()
        self.free: list[int] = []

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), Input(X.name, bucketed="x" not in self._read), Input(Y.name, bucketed=True))

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.topic == SIDE.name:
            super().on_record(step, arrival)
        else:
            self.free.append(arrival.message.seq)


def test_what_was_read_ahead_by_bucket_is_read_again_when_it_is_taken_free(
    world: TwoSources, tmp_path: Path
) -> None:
    one = Switched()
    with bench(world.log, tmp_path, lambda: one) as runs:
        runs.settle()
        world.give("x", 1, 2)
        runs.settle()  # y has closed nothing: they wait
        world.read("x", 1)
        runs.settle()
        assert one.free == [1, 2]


# ---- replay -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["x"], ["x", "xy", "y", "xy"], ["xy", "x", "xy"], ["", "x", "", "xy"]])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_second_run_follows_inputs_that_come_and_go(
    world: TwoSources, tmp_path: Path, names: list[str], restarts: bool
) -> None:
    state = 0
    for number, read in enumerate(names, 1):
        state += restarts
        with bench(world.log, tmp_path / str(state), Steered) as runs:
            world.read(read, number)
            runs.settle()
            world.give("xy", number)
            runs.settle()
    report = rerun(world.log, CODEC, Steered, 0, tmp_path / "again")
    assert report.differences == []
    written = {one.topic: one.records for one in report.outputs}
    assert written[f"{A_OUT.name}[0]"] == len(list(read_all(world.log, [TopicPartition(A_OUT.name, 0)])))


def test_a_second_run_over_a_topic_that_is_no_more_is_refused(world: TwoSources, tmp_path: Path) -> None:
    leave_y(world, tmp_path / "state")
    world.log._topics.pop(Y.name)
    with pytest.raises(CannotReplay, match=Y.name):
        rerun(world.log, CODEC, Steered, 0, tmp_path / "again")


# ---- what an operator decides -------------------------------------------------------------------------------------------


def test_nothing_is_built_anew_before_the_decision_is_on_record(world: TwoSources, tmp_path: Path) -> None:
    leave_y(world, tmp_path)
    world.change(A_MIRROR.name, id="another")

    def record(found: Sequence[Finding]) -> None:
        raise LogUnreachable("the log is away.")

    task = Task(world.log, Steered(), 0, CODEC, TaskSettings(tmp_path))
    with pytest.raises(LogUnreachable):
        task.accept("ann", "it was meant", record)
    task.close()
    with bench(world.log, tmp_path, Steered) as runs, pytest.raises(LogRegressed, match=A_MIRROR.name):
        runs.settle()
    assert accept(world.log, tmp_path) > 0
    with bench(world.log, tmp_path, Steered) as runs:
        world.reach(runs, "x", 3)
