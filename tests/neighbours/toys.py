"""A counter over ten partitions that says which record of its input it has counted, and what an independent reader expects of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.log.port import Log, TopicPartition, partitions_of
from qmtl.engine.processor import Arrival, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, PositionStamp
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.topics import Cleanup, TopicSpec
from tests.engine.toys import DEAD, Feed, Item, Total, Toy

WIDTH: Final = 10


@dataclass(frozen=True, slots=True)
class Counted:
    """What comes out: the place of an item in the input, and the sum of its name up to it."""

    partition: int
    offset: int
    name: str
    seq: int
    amount: int


CODEC: Final = Codec((CloseMarker, PositionStamp, DeadLetter, Item, Total, Counted))

INPUT: Final = TopicSpec(
    "near.input", ("name", "seq"), ("name",), (Item,), Cleanup.DELETE, "people", partitions=WIDTH
)
SUMS: Final = TopicSpec(
    "near.sums", ("name",), ("name",), (Total,), Cleanup.COMPACT, "tally", partitions=WIDTH
)
TOLD: Final = TopicSpec(
    "near.told", ("partition", "offset"), ("name",), (Counted,), Cleanup.DELETE, "tally", partitions=WIDTH
)
TOPICS: Final[Mapping[str, TopicSpec]] = {spec.name: spec for spec in (INPUT, SUMS, TOLD)}
GROUP: Final = "qmtl.tally"


class Tally(Toy):
    """Adds up per name and says each sum; an amount of 0 deletes the row."""

    name = "tally"
    anchor = INPUT.name
    tables = (SUMS.name,)
    emits = (TOLD.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(INPUT.name),)

    def topics(self) -> Mapping[str, TopicSpec]:
        return TOPICS

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the table."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        sums = step.table(SUMS.name)
        known: Total | None = sums.get(item.name)
        amount = (known.amount if known else 0) + item.amount
        if item.amount:
            sums.put(Total(item.name, amount))
        else:
            sums.delete(item.name)
        step.emit(TOLD.name, Counted(arrival.partition, arrival.offset, item.name, item.seq, amount))


class Pass(Toy):
    """Owns no table: says of each item where it was."""

    name = "pass"
    anchor = INPUT.name
    emits = (TOLD.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(INPUT.name),)

    def topics(self) -> Mapping[str, TopicSpec]:
        return TOPICS

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        step.emit(TOLD.name, Counted(arrival.partition, arrival.offset, item.name, item.seq, item.amount))


def make_topics(log: Log) -> None:
    log.ensure_topics([INPUT, SUMS, TOLD, DEAD])


def home(name: str) -> int:
    """The partition of a name, on the input and on everything that comes of it."""
    return partition_for(encode_key((name,)), WIDTH)


def name_at(partition: int, number: int = 0) -> str:
    """The number-th name whose home a partition is."""
    found = (name for name in (f"n{index}" for index in range(100_000)) if home(name) == partition)
    for _ in range(number):
        next(found)
    return next(found)


NAMES: Final = tuple(name_at(partition, number) for partition in range(WIDTH) for number in range(2))


class Crowd:
    """Feeds the input, each item in a transaction with others, and remembers what it gave."""

    def __init__(self, log: Log) -> None:
        self._feed = Feed(log, INPUT, "crowd")
        self.given: list[Item] = []

    def give(self, count: int, names: Sequence[str] = NAMES) -> list[Item]:
        """So many items, over all partitions in turn; every seventh takes its name's row away."""
        fresh: list[Item] = []
        for _ in range(count):
            seq = len(self.given) + len(fresh)
            fresh.append(Item(names[seq % len(names)], seq, 0 if seq % 7 == 6 else seq % 5 + 1))
        self.put(fresh)
        return fresh

    def put(self, items: Sequence[Item]) -> None:
        batch: dict[int, list[Item]] = {}
        for item in items:
            batch.setdefault(home(item.name), []).append(item)
        self._feed.put(batch)
        self.given += items

    def close(self) -> None:
        self._feed.close()


Expected = Mapping[int, Sequence[tuple[str, int, int]]]
"""Per partition name, sequence number and sum of each item, in order."""


def expected(given: Sequence[Item]) -> Expected:
    """What is said of these items, computed without the engine."""
    sums: dict[str, int] = {}
    out: dict[int, list[tuple[str, int, int]]] = {partition: [] for partition in range(WIDTH)}
    for item in given:
        sums[item.name] = sums.get(item.name, 0) + item.amount
        out[home(item.name)].append((item.name, item.seq, sums[item.name]))
        if not item.amount:
            del sums[item.name]
    return out


def totals(given: Sequence[Item]) -> dict[str, int]:
    """The sums that are left."""
    sums: dict[str, int] = {}
    for item in given:
        sums[item.name] = sums.get(item.name, 0) + item.amount
        if not item.amount:
            del sums[item.name]
    return sums


INPUTS: Final = tuple(partitions_of(INPUT.name, WIDTH))
TABLES: Final = tuple(partitions_of(SUMS.name, WIDTH))
OUTPUTS: Final = tuple(partitions_of(TOLD.name, WIDTH))
FIRST: Final = TopicPartition(SUMS.name, 0)
