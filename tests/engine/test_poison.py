"""Records that can't be used: each becomes one letter that says all, and all the others count as if it had never come."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.letters import (
    HEAD_BYTES,
    WHOLE_KEY_BYTES,
    WHOLE_VALUE_BYTES,
    Cause,
    failed,
    letter_of,
)
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.embedded_writer import EmbeddedWriter
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Fence, Log, Positions, Record, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import (
    DeadLettersRefused,
    HandlerBroken,
    HandlerFailed,
    InvalidTopology,
    InvalidValue,
    InvariantBroken,
    LogError,
    OutcomeUnknown,
    PoisonRecord,
    TransactionAborted,
)
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, TopicSpec, topic
from tests.engine.driving import bench, closed, delete, messages, table, takes
from tests.engine.faults import Fault, FaultyLog
from tests.engine.models import minute
from tests.engine.poison_toys import (
    BAD,
    NAMED,
    REFUSED,
    TORN,
    Column,
    Ledger,
    column_model,
    home,
    ledger_model,
)
from tests.engine.toys import (
    A_OUT,
    CODEC,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    SPECS,
    XX,
    Feed,
    Item,
    Total,
    Toy,
    X,
    make_topics,
    spread,
)

Given = Item | bytes
AMOUNTS = st.one_of(st.integers(0, 9), st.sampled_from([BAD, REFUSED, NAMED]))
ITEM_LISTS = st.lists(
    st.one_of(st.tuples(st.sampled_from("abc"), AMOUNTS), st.just(TORN)), min_size=1, max_size=14
)
JOINING = spread(Input(X.name, bucketed=True), Input(XX.name, bucketed=True, broadcast=True, joins=True))
CODES = {BAD: HandlerFailed.code, REFUSED: InvalidValue.code, NAMED: PoisonRecord.code}


def numbered(found: Sequence[tuple[str, int] | bytes]) -> list[Given]:
    return [
        one if isinstance(one, bytes) else Item(one[0], number, one[1]) for number, one in enumerate(found)
    ]


def place(one: Given) -> int:
    return 0 if isinstance(one, bytes) else home(one)


def is_bad(one: Given) -> bool:
    return isinstance(one, bytes) or one.amount < 0


def feed_items(log: Log, given_items: Sequence[Given]) -> None:
    crowd = Feed(log, ITEMS)
    for one in given_items:
        crowd.put({place(one): [one]})
    crowd.close()


def check_ledger(log: Log, given_items: Sequence[Given]) -> None:
    for partition in range(ITEMS.partitions):
        mine = [one for one in given_items if isinstance(one, Item) and home(one) == partition]
        seen, _ = ledger_model(mine)
        assert [one for one in messages(log, ECHO.name) if home(Item(one.name, 0, 0)) == partition] == seen
    _, sums = ledger_model([one for one in given_items if isinstance(one, Item)])
    assert table(log, COUNTS.name) == {
        encode_key((name,)): CODEC.encode(Total(name, amount)) for name, amount in sorted(sums.items())
    }


def letters(log: Log) -> list[DeadLetter]:
    return sorted(messages(log, DEAD.name), key=lambda one: (one.topic, one.partition, one.offset))


def check_letters(log: Log, given_items: Sequence[Given]) -> None:
    """One letter for each record that can't be used, with its bytes and its place."""
    found = letters(log)
    for partition in range(ITEMS.partitions):
        bad = [one for one in given_items if place(one) == partition and is_bad(one)]
        mine = [one for one in found if one.partition == partition]
        assert [one.value for one in mine] == [
            one if isinstance(one, bytes) else CODEC.encode(one) for one in bad
        ]
        assert [one.key for one in mine if one.value != TORN] == [
            encode_key((one.name, one.seq)) for one in bad if isinstance(one, Item)
        ]
        assert [one.code for one in mine if one.value != TORN] == [
            CODES[one.amount] for one in bad if isinstance(one, Item)
        ]
        assert {one.task for one in mine} <= {partition}
        offsets = [one.offset for one in mine]
        assert offsets == sorted(set(offsets))
    assert all(bool(one.stack_digest) == (one.value != TORN) for one in found)


def run_ledger(place: Path, given_items: Sequence[Given], poll: int) -> list[DeadLetter]:
    log = EmbeddedLog(place / "log")
    make_topics(log)
    feed_items(log, given_items)
    with bench(log, place / "state", Ledger, poll=poll) as runs:
        runs.settle()
    check_ledger(log, given_items)
    check_letters(log, given_items)
    found = letters(log)
    log.close()
    return found


@settings(deadline=None, max_examples=25)
@given(ITEM_LISTS)
@example([("a", 1), ("a", BAD), ("a", 2), ("b", REFUSED), ("a", 3), TORN, ("a", NAMED), ("a", 4)])
def test_a_record_that_its_handler_fails_on_is_one_letter_and_the_others_count_as_if_it_were_not_there(
    found: list[tuple[str, int] | bytes],
) -> None:
    """Whatever the size of the batches, the letters are the same to the last field."""
    given_items = numbered(found)
    told = []
    for poll in (1, 2, 3, 4000):
        with tempfile.TemporaryDirectory() as where:
            told.append(run_ledger(Path(where), given_items, poll))
    assert all(one == told[0] for one in told)


@settings(deadline=None, max_examples=15)
@given(ITEM_LISTS, st.lists(st.sampled_from(Fault), max_size=4), st.sampled_from([1, 3, 4000]))
def test_a_letter_is_written_once_whatever_becomes_of_commits(
    found: list[tuple[str, int] | bytes], plan: list[Fault], poll: int
) -> None:
    given_items = numbered(found)
    with tempfile.TemporaryDirectory() as where:
        log = FaultyLog(Path(where) / "log", iter(plan))
        make_topics(log)
        feed_items(log, given_items)
        with bench(log, Path(where) / "state", Ledger, poll=poll) as runs:
            runs.settle_patiently()
        check_ledger(log, given_items)
        check_letters(log, given_items)
        log.close()


def test_records_that_fail_are_letters_on_either_log(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    given_items = numbered(
        [("a", 1), ("b", BAD), TORN, ("c", 2), ("a", NAMED), ("b", 3), ("c", REFUSED), ("a", 4), ("b", 5)]
    )
    feed_items(log, given_items)
    sound = sum(not is_bad(one) for one in given_items)
    with bench(log, tmp_path, Ledger) as runs:
        runs.until(lambda: len(messages(log, ECHO.name)) == sound and len(letters(log)) == 4)
    check_ledger(log, given_items)
    check_letters(log, given_items)


class Fixed(Ledger):
    """Raises what the test gives it at a bad amount."""

    error: BaseException = ValueError()

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount == BAD:
            raise self.error
        super().on_record(step, arrival)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        KeyboardInterrupt(),
        SystemExit(3),
        OSError(28, "no space left"),
        InvariantBroken("a bug."),
        InvalidTopology("a bug."),
        LogError("refused."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_not_the_records_stops_the_task_and_is_no_letter(
    embedded_log: EmbeddedLog, tmp_path: Path, error: BaseException
) -> None:
    make_topics(embedded_log)
    feed_items(embedded_log, [Item("a", 0, 1), Item("a", 1, BAD)])
    made = type("Made", (Fixed,), {"error": error})
    with bench(embedded_log, tmp_path, made) as runs, pytest.raises(type(error)):
        runs.settle()
    assert letters(embedded_log) == messages(embedded_log, ECHO.name) == []


class Lost(Ledger):
    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.table("toy.of.nobody")


def test_a_mistake_in_the_use_of_the_engine_stops_the_task_and_is_no_letter(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    feed_items(embedded_log, [Item("a", 0, 1)])
    with bench(embedded_log, tmp_path, Lost) as runs, pytest.raises(KeyError):
        runs.settle()
    assert letters(embedded_log) == []


@pytest.mark.parametrize("poll", [1, 4000])
@pytest.mark.parametrize("bad, stops", [(4, False), (5, True)])
def test_more_failures_in_a_row_than_may_be_stop_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, poll: int, bad: int, stops: bool
) -> None:
    log = embedded_log
    make_topics(log)
    row = [*[("a", BAD)] * 3, ("a", 1), *[("a", BAD)] * bad, ("a", 2)]
    given_items = numbered(row)
    feed_items(log, given_items)
    worker = Worker(log, Ledger, CODEC, TaskSettings(tmp_path, poll, failures=4))
    if stops:
        with pytest.raises(HandlerBroken, match="5 records in a row"):
            list(iter(worker.step, False))
        assert messages(log, ECHO.name) == ledger_model([Item("a", 3, 1)] if poll == 1 else [])[0]
        assert len(letters(log)) == (7 if poll == 1 else 0)
    else:
        while worker.step():
            pass
        check_ledger(log, given_items)
        check_letters(log, given_items)
    worker.close()


class Moody(Ledger):
    """Fails on the item 2 once it has seen the item 3: no function of its records and tables."""

    def __init__(self) -> None:
        super().__init__()
        self._seen_it = False

    def on_record(self, step: Step, arrival: Arrival) -> None:
        self._seen_it |= arrival.message.seq == 3
        if arrival.message.seq == 2 and self._seen_it:
            raise ValueError("not again")
        super().on_record(step, arrival)


def test_a_handler_that_fails_on_what_it_has_handled_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    feed_items(embedded_log, numbered([("a", 1), ("a", BAD), ("a", 2), ("a", BAD), ("a", 3)]))
    with bench(embedded_log, tmp_path, Moody) as runs, pytest.raises(InvariantBroken, match="pure function"):
        runs.settle()
    assert letters(embedded_log) == messages(embedded_log, ECHO.name) == []


# ---- buckets --------------------------------------------------------------------------------------------------------

BUCKET_LISTS = st.lists(
    st.lists(st.one_of(st.tuples(st.sampled_from("ab"), AMOUNTS), st.just(TORN)), max_size=4),
    min_size=1,
    max_size=5,
)


def feed_buckets(
    log: Log, buckets: Sequence[Sequence[tuple[str, int] | bytes]]
) -> list[tuple[int, list[Given]]]:
    out: list[tuple[int, list[Given]]] = []
    feed = Feed(log, X)
    for number, bucket in enumerate(buckets):
        found: list[Given] = [
            one if isinstance(one, bytes) else Item(one[0], 100 * number + at, one[1])
            for at, one in enumerate(bucket)
        ]
        feed.bucket(minute(number), {0: found})
        out.append((minute(number), found))
    feed.close()
    return out


def check_column(log: Log, fed: Sequence[tuple[int, Sequence[Given]]]) -> None:
    sound = [(ms, [one for one in bucket if isinstance(one, Item)]) for ms, bucket in fed]
    assert messages(log, A_OUT.name) == column_model(sound)
    assert closed(log, A_OUT.name) == [0, *(ms for ms, _ in fed)]
    bad = [one for _, bucket in fed for one in bucket if is_bad(one)]
    assert [one.value for one in letters(log)] == [
        one if isinstance(one, bytes) else CODEC.encode(one) for one in bad
    ]
    assert all(one.code == PoisonRecord.code for one in letters(log) if one.value != TORN)


@settings(deadline=None, max_examples=25)
@given(BUCKET_LISTS, st.sampled_from([1, 2, 4000]))
def test_a_bucket_is_computed_without_the_records_that_its_processor_names(
    buckets: list[list[tuple[str, int] | bytes]], poll: int
) -> None:
    with tempfile.TemporaryDirectory() as where:
        log = EmbeddedLog(Path(where) / "log")
        make_topics(log)
        fed = feed_buckets(log, buckets)
        with bench(log, Path(where) / "state", Column, poll=poll) as runs:
            runs.settle()
        check_column(log, fed)
        log.close()


def test_a_bucket_is_computed_without_what_is_named_on_either_log(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    fed = feed_buckets(log, [[("a", 1)], [("a", NAMED), ("b", 2), ("b", NAMED)], [], [("a", 3), TORN]])
    with bench(log, tmp_path, Column) as runs:
        runs.until(lambda: closed(log, A_OUT.name)[-1:] == [minute(3)])
    check_column(log, fed)


class Both(Toy):
    """Reads free records and buckets in one transaction."""

    name = "both"
    anchor = X.name
    tables = (*Ledger.tables, *Column.tables)
    emits = (*Ledger.emits, *Column.emits)

    def __init__(self) -> None:
        self._ledger, self._column = Ledger(), Column()

    def inputs(self) -> tuple[Input, ...]:
        return (*self._ledger.inputs(), *self._column.inputs())

    def closes(self) -> tuple[TopicSpec, ...]:
        return self._column.closes()

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._ledger.restore(tables)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        self._ledger.on_record(step, arrival)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        self._column.on_bucket(step, bucket)

    def flush(self, step: Step) -> None:
        self._ledger.flush(step)


def test_a_free_record_and_one_of_a_bucket_may_both_be_bad_in_one_batch(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    items = [Item("c", 0, 1), Item("c", 1, BAD), Item("c", 2, 2)]
    Feed(log, ITEMS).put({0: items})
    fed = feed_buckets(log, [[("a", 1), ("b", NAMED)], [("a", 2)]])
    with bench(log, tmp_path, Both) as runs:
        runs.settle()
    assert messages(log, ECHO.name) == ledger_model(items)[0]
    assert messages(log, A_OUT.name) == column_model(
        [(ms, [one for one in bucket if isinstance(one, Item)]) for ms, bucket in fed]
    )
    assert [(one.topic, one.offset) for one in letters(log)] == [(ITEMS.name, 1), (X.name, 1)]


class Wrong(Column):
    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise PoisonRecord(Arrival(X.name, 0, 99, Item("z", 9, 9)), "is not there")


class Buggy(Column):
    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise ValueError("a bug")


@pytest.mark.parametrize("make, error", [(Wrong, InvariantBroken), (Buggy, ValueError)])
def test_any_other_error_of_a_bucket_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, make: type[Column], error: type[Exception]
) -> None:
    make_topics(embedded_log)
    feed_buckets(embedded_log, [[("a", 1)]])
    with bench(embedded_log, tmp_path, make) as runs, pytest.raises(error):
        runs.settle()
    assert letters(embedded_log) == []


# ---- letters that nobody takes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["dead.letters", "late.records"])
def test_a_log_that_takes_no_letters_stops_the_task_and_nothing_is_skipped(
    embedded_log: EmbeddedLog, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmtl.engine.worker.LONGEST_WAIT_S", 0.0)
    log = embedded_log
    log.ensure_topics([spec for spec in CATALOGUE if spec.name != missing])
    log.ensure_topics(SPECS)
    items = [Item("a", 0, 1), Item("a", 1, BAD), Item("a", 2, 2)]
    Feed(log, ITEMS).put({0: items})
    x, xx = Feed(log, X), Feed(log, XX)
    x.bucket(minute(3))
    make = Ledger if missing == "dead.letters" else JOINING
    with bench(log, tmp_path, make) as runs:
        if missing == "late.records":
            runs.settle()
            xx.bucket(minute(1), {1: [Item("late", 9, 1)]})
            xx.bucket(minute(4))
            x.bucket(minute(4))
        for _ in range(2):
            with pytest.raises(DeadLettersRefused, match=missing):
                runs.settle()
        assert messages(log, ECHO.name) == []
        log.ensure_topics([topic(missing)])
        runs.settle()
    assert len(messages(log, missing)) == 1
    assert messages(log, ECHO.name) == (ledger_model(items)[0] if make is Ledger else [])


class DeniedWriter(EmbeddedWriter):
    """A cluster that takes no letters, says so once, and then knows nothing of the transaction that is to be aborted."""

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        super().append(topic, partition, key, value, track=track)
        self.denied = getattr(self, "denied", False) or topic == DEAD.name

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if not self.denied:
            return super().commit(positions, group, fence)
        try:
            raise TransactionAborted(f"{DEAD.name} [0] was not written: Topic authorization failed")
        except TransactionAborted:
            self.abort()
            raise OutcomeUnknown("Failed to end transaction: invalid state") from None


class DeniedLog(EmbeddedLog):
    def writer(self, transactional_id: str) -> DeniedWriter:
        super().writer(transactional_id)  # counts the epoch
        return DeniedWriter(self, transactional_id, self.epochs[transactional_id])


def test_a_refusal_of_letters_is_told_though_the_abort_behind_it_fails_too(tmp_path: Path) -> None:
    log = DeniedLog(tmp_path / "log")
    make_topics(log)
    feed = Feed(log, ITEMS)
    feed.put({0: [Item("a", 0, BAD)]})
    with (
        bench(log, tmp_path / "state", Ledger) as runs,
        pytest.raises(DeadLettersRefused, match="authorization failed"),
    ):
        runs.settle()
    log.close()


def test_a_topic_of_letters_that_goes_while_a_task_runs_stops_it_and_nothing_is_skipped(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    make_topics(log)
    items = [Item("a", 0, 1), Item("a", 1, BAD), Item("a", 2, 2), Item("a", 3, BAD), Item("a", 4, 3)]
    feed = Feed(log, ITEMS)
    with bench(log, tmp_path, Ledger) as runs:
        feed.put({0: items[:2]})
        runs.until(lambda: len(letters(log)) == 1)
        delete(log, DEAD.name)
        feed.put({0: items[2:]})
        with pytest.raises(DeadLettersRefused, match="no such topic"):
            runs.until(lambda: False)
    assert len(messages(log, ECHO.name)) == 1
    log.ensure_topics([DEAD])
    with bench(log, tmp_path, Ledger) as runs:
        runs.until(lambda: len(messages(log, ECHO.name)) == 3)
    check_ledger(log, items)
    assert [one.value for one in letters(log)] == [CODEC.encode(items[3])]


def test_a_topic_of_letters_that_refuses_them_stops_the_task_and_nothing_is_skipped(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    make_topics(log)
    admin = AdminClient({"bootstrap.servers": log.bootstrap})

    def allow(size: int) -> None:
        setting = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        where = ConfigResource(
            ConfigResource.Type.TOPIC, log.namespace + DEAD.name, incremental_configs=[setting]
        )
        for done in admin.incremental_alter_configs([where]).values():
            done.result()
        takes(log, DEAD.name, size)

    allow(130)  # a marker that ends a transaction still fits, a letter does not
    items = [Item("a", 0, 1), Item("a", 1, BAD), Item("a", 2, 2)]
    Feed(log, ITEMS).put({0: items})
    with bench(log, tmp_path, Ledger) as runs, pytest.raises(DeadLettersRefused, match="too large"):
        runs.until(lambda: False)
    assert messages(log, ECHO.name) == []
    allow(1 << 20)
    with bench(log, tmp_path, Ledger) as runs:
        runs.until(lambda: len(messages(log, ECHO.name)) == 2)
    check_ledger(log, items)
    check_letters(log, items)


# ---- what a letter says ------------------------------------------------------------------------------------------------


def raised(source: str, lines_before: int = 0, name: str = "handle", arguments: tuple[Any, ...] = ()) -> Any:
    """The error that a function of a module made of text raises."""
    space: dict[str, Any] = {"__name__": "desk.handlers"}
    exec("\n" * lines_before + source, space)
    try:
        space[name](*arguments)
    except Exception as error:  # it is what the test is about
        return error
    raise AssertionError("it did not fail")


DIVIDES = "def handle():\n    return inner()\ndef inner():\n    return 1 / 0\n"
DEEP = "def handle(n):\n    return 1 / n if n < 1 else handle(n - 1)\n"
ENDLESS = "def handle(n):\n    return other(n)\ndef other(n):\n    return handle(n)\n"
RAISES = "def handle(error):\n    raise error\n"


def test_the_digest_of_a_stack_knows_functions_and_class_and_neither_lines_nor_depth() -> None:
    one = failed(raised(DIVIDES))
    assert one == failed(raised(DIVIDES, lines_before=40))
    assert one.stack_digest != failed(raised(DIVIDES.replace("inner", "outer"))).stack_digest
    assert one.stack_digest != failed(raised(DIVIDES.replace("1 / 0", "[][1]"))).stack_digest
    depths = {failed(raised(DEEP, arguments=(depth,))).stack_digest for depth in (1, 2, 30)}
    assert len(depths) == 1

    def deeper(more: int) -> Cause:
        return deeper(more - 1) if more else failed(raised(ENDLESS, arguments=(0,)))

    assert {deeper(more).stack_digest for more in range(12)} == {deeper(0).stack_digest}


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError(f"{object()!r}"), "ValueError: <object object at 0x…>"),
        (ValueError("\ud800 alone"), "ValueError: \\ud800 alone"),
        (Mute(), "Mute: (its text can't be made)"),
        (InvalidValue("a field was bad."), "a field was bad."),
        (PoisonRecord(None, KeyError("x")), "KeyError: 'x'"),
        (PoisonRecord(None, "is odd"), "is odd"),
    ],
)
def test_a_letter_quotes_an_error_the_same_every_time_and_in_words_that_can_be_written(
    error: Exception, text: str
) -> None:
    cause = failed(raised(RAISES, arguments=(error,)))
    assert cause.text == text
    assert codec.decode(codec.encode(letter_of("p", 0, record(b"k", b"v"), cause))).cause == text


def record(key: bytes, value: bytes | None) -> Record:
    return Record("t", 3, 17, key, value, 1)


SIZES = [0, 1, WHOLE_KEY_BYTES, WHOLE_KEY_BYTES + 1, WHOLE_VALUE_BYTES, WHOLE_VALUE_BYTES + 1, 3 << 20]


@pytest.mark.parametrize("key_size", SIZES)
@pytest.mark.parametrize("value_size", [None, *SIZES])
def test_a_letter_keeps_a_record_whole_or_says_what_it_left_out(
    key_size: int, value_size: int | None
) -> None:
    key = bytes(range(256)) * (key_size // 256 + 1)
    key = key[:key_size]
    value = None if value_size is None else (b"value " * (value_size // 6 + 1))[:value_size]
    worst = Cause("QMTL-405", "\U0001f4a5" * 2000, "x" * 9000, "0" * 16)
    error = raised(RAISES, arguments=(type("\U0001f4a5" * 400, (Exception,), {})("\ud800" * 9000),))
    letter = letter_of("p" * 249, 0, record(key, value), failed(error))
    assert worst.text not in letter.cause
    again = codec.decode(codec.encode(letter))
    assert again == letter
    whole = key_size <= WHOLE_KEY_BYTES and (value_size or 0) <= WHOLE_VALUE_BYTES
    assert (letter.digest == "") == whole
    if letter.key_bytes is None:
        assert letter.key == key
    else:
        assert (letter.key_bytes, letter.key) == (key_size, key[:WHOLE_KEY_BYTES])
    if letter.value_bytes is None:
        assert letter.value == value
    else:
        assert value is not None
        assert (letter.value_bytes, letter.value) == (value_size, value[:HEAD_BYTES])
    if not whole:
        body = value or b""
        told = f"{len(key)}:{int(value is not None)}:{len(body)}:".encode()
        assert letter.digest == blake3(told + key + body).hexdigest()
