"""Where a task is in inputs that come and go: of what it does not read nobody is told, and nothing is held against it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import fastavro
import pytest

from qmtl.engine.incarnation import Finding
from qmtl.engine.log.embedded import _OFFSET, EmbeddedLog
from qmtl.engine.log.port import Incarnation, Log, TopicDescription, TopicPartition
from qmtl.engine.places import Places
from qmtl.engine.processor import Arrival, Input, Step
from qmtl.engine.stored import Checkpoint, parse_checkpoint, unparse_checkpoint
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import (
    CannotReplay,
    CutMismatch,
    LogRegressed,
    LogUnreachable,
    OffsetGone,
    StateMismatch,
    UnknownTopic,
)
from qmtl.foundation.contracts.control import CloseMarker, InputPosition, InputTopic, PositionStamp
from qmtl.foundation.wire.avro import fingerprint
from qmtl.foundation.wire.keys import is_stamp
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.interfaces import standing
from qmtl.replay.rerun import rerun
from tests.engine.driving import bench, closed, messages
from tests.engine.models import minute
from tests.engine.steered import Steered, TwoSources
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    CODEC,
    DEAD,
    ECHO,
    ITEMS,
    LATE,
    SIDE,
    SPECS,
    TOPICS,
    Counter,
    Feed,
    Item,
    X,
    Y,
    make_topics,
    marker,
)

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


class Aging(TwoSources):
    """A world in which y is kept for a second."""

    def __init__(self, place: Path) -> None:
        self.now_ms = 10**12
        log = EmbeddedLog(place / "log", clock_ms=lambda: self.now_ms)
        log.ensure_topics([replace(Y, retention_ms=1000)])
        log.ensure_topics([one for one in (*SPECS, DEAD, LATE, topic("task.cuts")) if one.name != Y.name])
        self.log, self.feeds = log, {"x": Feed(log, X), "y": Feed(log, Y)}

    def age(self) -> None:
        """All that y has is taken."""
        self.now_ms += 5000
        assert self.log.clean() > 0


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[Aging]:
    one = Aging(tmp_path)
    yield one
    one.log.close()


def test_what_retention_took_meanwhile_is_not_missed(aging: Aging, tmp_path: Path) -> None:
    leave_y(aging, tmp_path / "state")
    aging.give("y", 2, 3)
    aging.age()
    with bench(aging.log, tmp_path / "state", Steered) as runs:
        aging.read("xy", 2)
        runs.settle()
        aging.reach(runs, "xy", 4)
    assert aging.seen()[-2:] == [("x", 4), ("y", 4)]


# ---- when retention came as far as the task has read --------------------------------------------------------------------


def wrong(count: int = 2, digest: str = "") -> CloseMarker:
    """Closes the second bucket, and counts other records than the one that is there."""
    return marker(minute(2), count, digest)


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_a_bucket_is_proved_though_all_before_it_is_gone(
    aging: Aging, tmp_path: Path, restarts: bool, comes_back: bool
) -> None:
    state = tmp_path / "state"
    with ExitStack() as stack:
        runs = stack.enter_context(bench(aging.log, state, Steered))
        aging.read("xy", 0)
        runs.settle()
        aging.reach(runs, "xy", 1)
        if comes_back:
            aging.read("x", 1)
            runs.settle()
        aging.age()
        assert aging.log.begin_offsets([Y0]) == {Y0: runs.workers[0].tasks[0].positions[Y0]}
        if comes_back:
            for number in (2, 3):  # the second stamp tells of it
                aging.read("xy", number)
                runs.settle()
        if restarts:
            stack.close()
            runs = stack.enter_context(bench(aging.log, state, Steered))
            runs.settle()
        aging.feeds["y"].put({0: [Item("n", 2, 1)]})
        aging.feeds["y"].forge(wrong())
        aging.give("x", 2)
        with pytest.raises(CutMismatch):
            runs.settle()


@pytest.mark.parametrize("restarts", [0, 1, 2])
@pytest.mark.parametrize("accepted", [False, True])
def test_a_bucket_of_which_retention_took_a_part_counts_as_empty_whenever_the_task_begins_anew(
    aging: Aging, tmp_path: Path, accepted: bool, restarts: int
) -> None:
    """Whether it had read of the source before, and goes on by decision, or never had."""
    state = tmp_path / "state"
    with bench(aging.log, state, Steered) as runs:
        aging.read("xy" if accepted else "x", 0)
        runs.settle()
        aging.reach(runs, "xy" if accepted else "x", 1)
    aging.feeds["y"].put({0: [Item("n", 2, 1)]})
    aging.age()
    aging.feeds["y"].put({0: [Item("n", 2, 2)]})
    assert accept(aging.log, state) == accepted
    for number in range(restarts + 1):
        with bench(aging.log, state, Steered) as runs:
            aging.read("xy", 1 + number)
            runs.settle()
            aging.read("xy", 11 + number)  # the inputs are known by now, and a stamp tells of them
            runs.settle()
            if number == restarts:
                aging.feeds["y"].bucket(minute(2))
                aging.give("x", 2)
                runs.settle()
                assert closed(aging.log, A_OUT.name)[-1] == minute(2)
                aging.reach(runs, "xy", 3)
                aging.feeds["y"].put({0: [Item("n", 4, 1)]})
                aging.feeds["y"].forge(marker(minute(4), 2, ""))
                aging.give("x", 4)
                with pytest.raises(CutMismatch):
                    runs.settle()
    assert [one for one in aging.seen() if one[0] == "y" and one[1] > 1] == [("y", 3)]


@pytest.mark.parametrize("before", ["nothing was there", "the first bucket was taken", "it is read free"])
def test_what_retention_takes_of_a_source_that_is_read_is_refused(
    aging: Aging, tmp_path: Path, before: str
) -> None:
    state, make = tmp_path / "state", Loose if before == "it is read free" else Steered
    if before != "nothing was there":
        aging.feeds["y"].put({0: [Item("n", 0, 1)]})
        aging.age()
    with bench(aging.log, state, make) as runs:
        for number in range(2):
            aging.read("xy", number)
            runs.settle()
        if before == "the first bucket was taken":
            aging.feeds["y"].bucket(minute(1))
            aging.give("x", 1)
            runs.settle()
            assert closed(aging.log, A_OUT.name)[-1] == minute(1)
    aging.give("y", 2)
    aging.age()
    aging.give("xy", 3)
    with bench(aging.log, state, make) as runs, pytest.raises(OffsetGone):
        runs.settle()


@pytest.mark.parametrize("told", [wrong(1), wrong(1, "0" * 16), wrong(0)])
def test_retention_takes_records_and_neither_adds_nor_changes_any(
    aging: Aging, tmp_path: Path, told: CloseMarker
) -> None:
    aging.feeds["y"].put({0: [Item("n", 2, 1)]})
    aging.age()
    aging.feeds["y"].put({0: [Item("n", 2, 2)]})
    aging.feeds["y"].forge(told)
    aging.give("x", 2)
    aging.read("xy", 0)
    with bench(aging.log, tmp_path / "state", Steered) as runs, pytest.raises(CutMismatch):
        runs.settle()


# ---- while it is not read, its topic changes ----------------------------------------------------------------------------


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


def end_at(log: EmbeddedLog, where: TopicPartition, offset: int) -> None:
    """Let retention have left nothing in a partition that ends here."""
    log._db.put(b"b" + log._slot(where), _OFFSET.pack(offset))
    log._db.put(b"e" + log._slot(where), _OFFSET.pack(offset))
    log._load_catalogue()
    assert (log.begin_offsets([where])[where], log.end_offsets([where])[where]) == (offset, offset)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_log_that_ends_with_its_last_marker_has_lost_nothing(
    world: TwoSources, tmp_path: Path, lost: int
) -> None:
    """Everything of a partition that nobody writes to any more is old some day; its last offset is a transaction's marker. What
    more is gone may have been a transaction that was aborted: then nothing is lost, but no log can tell, and the task says so."""
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("xy", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        at = runs.workers[0].tasks[0].positions[Y0]
    if lost:
        world.give("y", 2)
    end_at(world.log, Y0, at + 1 + lost)
    lives = bench(world.log, tmp_path, Steered)
    refused = pytest.raises(OffsetGone, match="or transactions that were aborted")
    with lives as runs, refused if lost else nullcontext():
        runs.settle()


@pytest.mark.parametrize(
    "owner, marked, refused",
    [("toys", False, False), ("toys", True, False), ("people", True, False), ("people", False, True)],
)
def test_the_last_offset_is_believed_to_be_a_marker_only_of_what_is_written_in_transactions(
    embedded_log: EmbeddedLog, tmp_path: Path, owner: str, marked: bool, refused: bool
) -> None:
    class Foreign(Counter):
        def topics(self) -> Mapping[str, TopicSpec]:
            return {**TOPICS, ITEMS.name: replace(ITEMS, owner=owner, marked=marked)}

    make_topics(embedded_log)
    feed, spot = Feed(embedded_log, ITEMS), TopicPartition(ITEMS.name, 0)
    feed.put({0: [Item("a", 0, 1)]})
    with bench(embedded_log, tmp_path, Foreign) as runs:
        runs.settle()
        at = runs.workers[0].tasks[0].positions[spot]
    end_at(embedded_log, spot, at + 1)
    with (
        bench(embedded_log, tmp_path, Foreign) as runs,
        pytest.raises(OffsetGone) if refused else nullcontext(),
    ):
        runs.settle()
        feed.put({0: [Item("a", 1, 1)]})
        runs.settle()
    assert len(messages(embedded_log, ECHO.name)) == 2 - refused


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


# ---- many at once -------------------------------------------------------------------------------------------------------


class Counted(EmbeddedLog):
    """Counts what it is asked of topics."""

    questions = 0

    def describe(self, topic: str) -> TopicDescription | None:
        self.questions += 1
        return super().describe(topic)

    def topics(self) -> list[str]:
        self.questions += 1
        return super().topics()

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        self.questions += 1
        return super().incarnations(topics)


@pytest.mark.parametrize("there", [1, 40])
def test_however_many_topics_begin_to_be_read_the_log_is_asked_for_all_at_once(
    there: int, tmp_path: Path
) -> None:
    """A transaction is open meanwhile, and a cluster lists all its topics in each answer."""
    specs = {f"many.{number}": replace(X, name=f"many.{number}", partitions=2) for number in range(60)}
    entered: list[TopicPartition] = []

    def find(wheres: Sequence[TopicPartition], bucket_ms: int) -> Mapping[TopicPartition, int]:
        entered.extend(wheres)
        return {}

    log = Counted(tmp_path / "log")
    try:
        fewer = replace(specs["many.0"], partitions=1)  # its second partition is not there yet
        log.ensure_topics([fewer, *[specs[f"many.{number}"] for number in range(1, there)]])
        log.questions = 0
        places = Places(log, "task 0", 0, specs.__getitem__, find)
        inputs = [Input(name, bucketed=True, broadcast=True) for name in specs]
        assert places.entries(inputs, minute(1)) == {}
    finally:
        log.close()
    assert log.questions <= 4
    meant = [TopicPartition(f"many.{number}", one) for number in range(there) for one in (0, 1)]
    assert entered == [where for where in meant if where != TopicPartition("many.0", 1)]
