"""The pipeline that a campaign disturbs: sums with a deleting table, and a loop of two stages over delayed edges.

c.items ─> sums ──> c.sums, c.open (rows come and go), c.echo
c.bars ──> late ──> c.state, c.late          late reads c.state and c.after one bucket late
             └─ c.state ─> after ─> c.after ─┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Step
from qmtl.engine.table import Table
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.topics import Cleanup, TopicSpec, topic

PARTITIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Item:
    """What comes in: an amount for a name; 0 closes what is open under the name."""

    name: str
    seq: int
    amount: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row of any of the tables: an amount, and the number of the item that changed it last."""

    name: str
    amount: int
    seq: int


@dataclass(frozen=True, slots=True)
class Echo:
    """What the sums answer to an item: the total of its name, and what is open of it."""

    name: str
    seq: int
    total: int
    open: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What the late stage answers to an item of a bucket: the state after it, and both delayed edges."""

    bucket_ms: int
    name: str
    seq: int
    state: int
    before: int
    other: int


CODEC: Final = Codec((CloseMarker, PositionStamp, DeadLetter, Item, Row, Echo, Seen))


def _events(name: str, message: type, key: tuple[str, ...], *, marked: bool = False) -> TopicSpec:
    return TopicSpec(
        name, key, ("name",), (message,), Cleanup.DELETE, "campaign", marked=marked, partitions=PARTITIONS
    )


def _rows(name: str, *, marked: bool = False) -> TopicSpec:
    return TopicSpec(
        name, ("name",), ("name",), (Row,), Cleanup.COMPACT, "campaign", marked=marked, partitions=PARTITIONS
    )


ITEMS: Final = _events("c.items", Item, ("name", "seq"))
BARS: Final = _events("c.bars", Item, ("name", "seq"), marked=True)
SUMS: Final = _rows("c.sums")
OPEN: Final = _rows("c.open")
ECHO: Final = _events("c.echo", Echo, ("name", "seq"))
STATE: Final = _rows("c.state", marked=True)
MIRROR: Final = _rows("c.mirror")
LATE: Final = _events("c.late", Seen, ("bucket_ms", "name", "seq"))
AFTER: Final = _rows("c.after", marked=True)

SPECS: Final = (ITEMS, BARS, SUMS, OPEN, ECHO, STATE, MIRROR, LATE, AFTER)
TOPICS: Final[Mapping[str, TopicSpec]] = {spec.name: spec for spec in SPECS}
ALL_SPECS: Final = (*SPECS, topic("dead.letters"))


class _Stage:
    """What the stages share: topics outside of the catalogue, and nothing in memory."""

    name = ""
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


class Sums(_Stage):
    """Adds up per name for ever, and what is open until an amount of 0 closes it."""

    name = "sums"
    anchor = ITEMS.name
    tables = (SUMS.name, OPEN.name)
    emits = (ECHO.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        total = _add(step.table(SUMS.name), item)
        rows = step.table(OPEN.name)
        if item.amount:
            still = _add(rows, item)
        else:
            still = 0
            rows.delete(item.name)
        step.emit(ECHO.name, Echo(item.name, item.seq, total, still))


class Late(_Stage):
    """Keeps a state per name, and answers with the state and with what the next stage made of it, both one bucket ago."""

    name = "late"
    anchor = BARS.name
    tables = (STATE.name, MIRROR.name)
    emits = (LATE.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input(BARS.name, bucketed=True),
            Input(STATE.name, bucketed=True, lag=1),
            Input(AFTER.name, bucketed=True, lag=1),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (STATE,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        state, mirror = step.table(STATE.name), step.table(MIRROR.name)
        for arrival in bucket.arrivals[AFTER.name]:
            mirror.put(arrival.message)
        cut_ms = bucket.cuts[STATE.name]
        for arrival in bucket.arrivals[BARS.name]:
            item: Item = arrival.message
            before: Row | None = state.at(cut_ms, item.name)
            other: Row | None = mirror.get(item.name)
            if item.amount:
                now = _add(state, item)
            else:
                now = 0
                state.delete(item.name)
            step.emit(
                LATE.name, Seen(bucket.bucket_ms, item.name, item.seq, now, _amount(before), _amount(other))
            )


class After(_Stage):
    """Adds up, bucket by bucket, the states that changed."""

    name = "after"
    anchor = STATE.name
    tables = (AFTER.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(STATE.name, bucketed=True),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return (AFTER,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        for arrival in bucket.arrivals[STATE.name]:
            row: Row = arrival.message
            _add(step.table(AFTER.name), Item(row.name, row.seq, row.amount))


def _amount(row: Row | None) -> int:
    return 0 if row is None else row.amount


def _add(table: Table, item: Item) -> int:
    amount = _amount(table.get(item.name)) + item.amount
    table.put(Row(item.name, amount, item.seq))
    return amount


STAGES: Final[Mapping[str, Callable[[], Processor]]] = {"sums": Sums, "late": Late, "after": After}
