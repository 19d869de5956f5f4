"""Small processors with topics of their own: a counter, a loop of two over a delayed edge, a table read late by its owner."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.port import Log
from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Step
from qmtl.engine.table import Table
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, LateRecord, PositionStamp, TaskCut
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, marker_key
from qmtl.foundation.wire.topics import Cleanup, TopicSpec, topic


@dataclass(frozen=True, slots=True)
class Item:
    """What comes in: an amount for a name; 0 means that the name is to be forgotten."""

    name: str
    seq: int
    amount: int


@dataclass(frozen=True, slots=True)
class Total:
    """A row: what the amounts of a name add up to, and the bucket that changed it last."""

    name: str
    amount: int
    bucket_ms: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What comes out: an item, with what its processor saw beside it.

    Attributes:
        rows: names, amounts and buckets of all rows that were visible, in the order of names.
    """

    bucket_ms: int
    name: str
    seq: int
    amount: int
    rows: tuple[str, ...] = ()


CODEC: Final = Codec((CloseMarker, PositionStamp, TaskCut, DeadLetter, LateRecord, Item, Total, Seen))


def events(name: str, message: type, *, marked: bool = False, partitions: int = 1) -> TopicSpec:
    key = {Item: ("name", "seq"), Seen: ("bucket_ms", "name", "seq")}[message]
    return TopicSpec(
        name, key, ("name",), (message,), Cleanup.DELETE, "toys", marked=marked, partitions=partitions
    )


def rows(name: str, *, marked: bool = False, partitions: int = 1) -> TopicSpec:
    return TopicSpec(
        name, ("name",), ("name",), (Total,), Cleanup.COMPACT, "toys", marked=marked, partitions=partitions
    )


ITEMS: Final = events("toy.items", Item, partitions=2)
COUNTS: Final = rows("toy.counts", partitions=2)
ECHO: Final = events("toy.echo", Seen, partitions=2)
RELAYED: Final = events("toy.relayed", Seen, partitions=2)
X: Final = events("toy.x", Item, marked=True)
XX: Final = events("toy.xx", Item, marked=True, partitions=3)
Y: Final = events("toy.y", Item, marked=True)
SIDE: Final = events("toy.side", Item)
A_OUT: Final = events("toy.a.out", Seen, marked=True)
A_MIRROR: Final = rows("toy.a.mirror")
B_STATE: Final = rows("toy.b.state", marked=True)
LATE_STATE: Final = rows("toy.late.state", marked=True)
LATE_OUT: Final = events("toy.late.out", Seen, marked=True)
DEAD: Final = topic("dead.letters")
LATE: Final = topic("late.records")

SPECS: Final = (ITEMS, COUNTS, ECHO, RELAYED, X, XX, Y, SIDE, A_OUT, A_MIRROR, B_STATE, LATE_STATE, LATE_OUT)
TOPICS: Final[Mapping[str, TopicSpec]] = {spec.name: spec for spec in SPECS}


class Toy:
    """What all toys share: their topics, and nothing in memory."""

    name = "toy"
    anchor = ""
    tables: tuple[str, ...] = ()
    emits: tuple[str, ...] = ()

    def inputs(self) -> tuple[Input, ...]:
        return ()

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return TOPICS

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        raise AssertionError(f"{self.name} has no free input")

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise AssertionError(f"{self.name} has no bucketed input")

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""


def seen_rows(found: Sequence[Total]) -> tuple[str, ...]:
    return tuple(f"{one.name}={one.amount}@{one.bucket_ms}" for one in found)


class Counter(Toy):
    """Adds up per name, one task per partition; an amount of 0 deletes the row."""

    name = "counter"
    anchor = ITEMS.name
    tables = (COUNTS.name,)
    emits = (ECHO.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        counts = step.table(COUNTS.name)
        known: Total | None = counts.get(item.name)
        amount = (known.amount if known else 0) + item.amount
        if item.amount:
            counts.put(Total(item.name, amount))
        else:
            counts.delete(item.name)
        step.emit(ECHO.name, Seen(0, item.name, item.seq, amount))


class Relay(Toy):
    """Owns no table: what it is given it gives on."""

    name = "relay"
    anchor = ITEMS.name
    emits = (RELAYED.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        step.emit(RELAYED.name, Seen(0, item.name, item.seq, item.amount))


class A(Toy):
    """Gives on each item of a bucket with B's state as it was `lag` buckets ago."""

    name = "a"
    anchor = X.name
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def __init__(self, lag: int = 1, source: Input | None = None) -> None:
        self._source = source or Input(X.name, bucketed=True)
        self._edge = Input(B_STATE.name, bucketed=True, lag=lag)

    def inputs(self) -> tuple[Input, ...]:
        return (self._source, self._edge)

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        mirror = step.table(A_MIRROR.name)
        for arrival in bucket.arrivals[B_STATE.name]:
            mirror.put(arrival.message)
        visible = seen_rows([*mirror.items()])
        for arrival in bucket.arrivals[self._source.topic]:
            item: Item = arrival.message
            step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, item.amount, visible))


class B(Toy):
    """Adds up what A gave out in a bucket."""

    name = "b"
    anchor = A_OUT.name
    tables = (B_STATE.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(A_OUT.name, bucketed=True),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return (B_STATE,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        state = step.table(B_STATE.name)
        for arrivals in bucket.arrivals.values():
            for arrival in arrivals:
                known: Total | None = state.get(arrival.message.name)
                amount = (known.amount if known else 0) + arrival.message.amount
                state.put(Total(arrival.message.name, amount, bucket.bucket_ms))


class FreeB(B):
    """B, fed by people and not by A: it may be far ahead of A, or far behind."""

    anchor = Y.name

    def inputs(self) -> tuple[Input, ...]:
        return (Input(Y.name, bucketed=True),)


class Late(Toy):
    """Adds up per name and gives out what its own table was `lag` buckets ago; a free input may touch the table in between."""

    name = "late"
    anchor = X.name
    tables = (LATE_STATE.name,)
    emits = (LATE_OUT.name,)

    def __init__(self, lag: int) -> None:
        self._lag = lag

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input(SIDE.name),
            Input(X.name, bucketed=True),
            Input(LATE_STATE.name, bucketed=True, lag=self._lag),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (LATE_STATE, LATE_OUT)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        self._add(step, arrival.message, 1)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        state = step.table(LATE_STATE.name)
        cut_ms = bucket.cuts[LATE_STATE.name]
        before = seen_rows([*state.items_at(cut_ms)])
        for arrival in bucket.arrivals[X.name]:
            item: Item = arrival.message
            self._add(step, item, bucket.bucket_ms)
            late: Total | None = state.at(cut_ms, item.name)
            amount = late.amount if late else 0
            assert seen_rows([*state.items_at(cut_ms)]) == before, (
                "a cut moved while its bucket was worked on"
            )
            step.emit(LATE_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, amount, before))

    def _add(self, step: Step, item: Item, bucket_ms: int) -> None:
        state = step.table(LATE_STATE.name)
        known: Total | None = state.get(item.name)
        if item.amount:
            state.put(Total(item.name, (known.amount if known else 0) + item.amount, bucket_ms))
        else:
            state.delete(item.name)


def spread(*sources: Input) -> type[A]:
    """A over other inputs, and without the delayed edge."""

    class Spread(A):
        def inputs(self) -> tuple[Input, ...]:
            return sources

        def on_bucket(self, step: Step, bucket: Bucket) -> None:
            for source in sources:
                for arrival in bucket.arrivals[source.topic]:
                    item: Item = arrival.message
                    step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, item.amount))

    return Spread


# ---- people -------------------------------------------------------------------------------------------------


Batch = Mapping[int, Sequence[Item | bytes]]
"""Per partition what a bucket contains; bytes are written as they are."""


def marker(bucket_ms: int, count: int, digest: str, processor: str = "people", task: int = 0) -> CloseMarker:
    return CloseMarker(processor, task, 1, bucket_ms, count, digest, 1)


class Feed:
    """Writes a bucketed topic as people do: data, then a marker that counts and digests it."""

    def __init__(self, log: Log, spec: TopicSpec, name: str = "people") -> None:
        self._log = log
        self._spec = spec
        self._name = name
        self._writer = log.writer(f"feed.{name}.{spec.name}")
        self._cuts: dict[int, CutDigest] = {}

    def put(self, batch: Batch) -> None:
        """Records without a marker, in a transaction of their own."""
        self._writer.begin()
        self._put(batch)
        self._writer.commit({}, "", None)

    def bucket(self, bucket_ms: int, batch: Batch | None = None, closes: Sequence[int] | None = None) -> None:
        """One transaction: records, then the markers of these partitions (of all where not given)."""
        self._writer.begin()
        self._put(batch or {})
        for partition in range(self._spec.partitions) if closes is None else closes:
            cut = self._cuts.pop(partition, None) or CutDigest()
            self.mark(partition, CloseMarker(self._name, 0, 1, bucket_ms, cut.count, cut.hexdigest(), 1))
        self._writer.commit({}, "", None)

    def forge(self, marker: CloseMarker, partition: int = 0) -> None:
        """A marker as it is given, in a transaction of its own."""
        self._writer.begin()
        self.mark(partition, marker)
        self._writer.commit({}, "", None)

    def mark(self, partition: int, marker: CloseMarker) -> None:
        key = marker_key(marker.processor, marker.task, marker.bucket_ms)
        self._writer.append(self._spec.name, partition, key, CODEC.encode(marker))

    def _put(self, batch: Batch) -> None:
        for partition, messages in sorted(batch.items()):
            for message in messages:
                known = isinstance(message, Item)
                key = encode_key(self._spec.key_of(message)) if known else b"\x02raw\x00\x01"
                value = CODEC.encode(message) if known else message
                assert isinstance(value, bytes)
                if self._spec.marked:
                    self._cuts.setdefault(partition, CutDigest()).add(key, value)
                self._writer.append(self._spec.name, partition, key, value)

    def close(self) -> None:
        self._writer.close()


def make_topics(log: Log, *others: TopicSpec) -> None:
    log.ensure_topics([*SPECS, DEAD, LATE, topic("task.cuts"), *others])


MAKERS: Final[Mapping[str, Callable[[], Processor]]] = {
    "counter": Counter,
    "relay": Relay,
    "a": A,
    "b": B,
    "late1": lambda: Late(1),
    "late2": lambda: Late(2),
}
"""Processors by a name that a command line can say."""
