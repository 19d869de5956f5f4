"""Processors that fail on records, or die at them, in every way that a record can bring about, and what must come out of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvalidValue, PoisonRecord
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, LateRecord, PositionStamp, TaskCut
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.topics import TopicSpec
from tests.engine.toys import A_MIRROR, A_OUT, COUNTS, ECHO, ITEMS, Item, Seen, Total, Toy, X

BAD: Final = -7
"""An amount at which a handler fails with an error of Python's."""
REFUSED: Final = -8
"""An amount at which it fails with a coded error."""
NAMED: Final = -9
"""An amount whose record it names."""
DEADLY: Final = -66
"""An amount at which the process dies."""
TORN: Final = b"\xc3\x01 no message"
DECODES_DEADLY: Final = b"\xc3\x01 a decoder dies of this"


class Ledger(Toy):
    """Adds up per name, in memory, and puts the sums when the transaction ends. It fails after it has changed everything."""

    name = "ledger"
    anchor = ITEMS.name
    tables = (COUNTS.name,)
    emits = (ECHO.name,)

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._restored: Mapping[str, Table] = {}

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name),)

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._restored = tables
        self._sums = {}

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        known: Total | None = step.table(COUNTS.name).get(item.name)
        before = self._sums.get(item.name, known.amount if known else 0)
        self._sums[item.name] = before + item.amount
        step.emit(ECHO.name, Seen(0, item.name, item.seq, self._sums[item.name]))
        if item.amount < 0:
            step.table(COUNTS.name).put(Total(item.name, -1000))
            step.table(COUNTS.name).put(Total(f"{item.name} was bad", 1))
            fail(arrival, item.amount)

    def flush(self, step: Step) -> None:
        for name, amount in self._sums.items():
            step.table(COUNTS.name).put(Total(name, amount))
        self._sums = {}


class Column(Toy):
    """Gives on what a bucket holds, with the sum of all buckets before, which it keeps in a table."""

    name = "column"
    anchor = X.name
    tables = (A_MIRROR.name,)
    emits: tuple[str, ...] = (A_OUT.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(X.name, bucketed=True),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        sums = step.table(A_MIRROR.name)
        for arrival in bucket.arrivals[X.name]:
            item: Item = arrival.message
            known: Total | None = sums.get("all")
            amount = (known.amount if known else 0) + item.amount
            sums.put(Total("all", amount))
            step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, amount))
            if item.amount < 0:
                fail(arrival, NAMED if item.amount in (BAD, REFUSED) else item.amount)


def fail(arrival: Arrival, amount: int) -> None:
    if amount == BAD:
        raise ValueError(f"{arrival.message.name} is bad, as {object()!r} says")
    if amount == REFUSED:
        raise InvalidValue(f"the amount of {arrival.message.name} was {amount}.")
    if amount == NAMED:
        raise PoisonRecord(arrival, f"{arrival.message.name} is named")
    if amount == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)


class DeadlyCodec(Codec):
    """A codec whose decoder takes the process with it, as one in C does at too deep a schema."""

    def decode(self, data: bytes) -> object:
        if data == DECODES_DEADLY:
            os._exit(139)
        return super().decode(data)


DEADLY_CODEC: Final = DeadlyCodec(
    (CloseMarker, PositionStamp, TaskCut, DeadLetter, LateRecord, Item, Total, Seen)
)

POISONED: Final[Mapping[str, Callable[[], Processor]]] = {"ledger": Ledger, "column": Column}


def home(item: Item) -> int:
    return partition_for(encode_key((item.name,)), ITEMS.partitions)


def ledger_model(items: Sequence[Item]) -> tuple[list[Seen], dict[str, int]]:
    """What the sound ones of these items give, one after the other."""
    sums: dict[str, int] = {}
    out = []
    for item in items:
        if item.amount >= 0:
            sums[item.name] = sums.get(item.name, 0) + item.amount
            out.append(Seen(0, item.name, item.seq, sums[item.name]))
    return out, sums


def column_model(buckets: Sequence[tuple[int, Sequence[Item]]]) -> list[Seen]:
    total = 0
    out = []
    for bucket_ms, items in buckets:
        for item in items:
            if item.amount >= 0:
                total += item.amount
                out.append(Seen(bucket_ms, item.name, item.seq, total))
    return out


BOUNDLESS: Final = 1 << 70
"""An amount that an item doesn't have, and no row can hold."""


class Heedless(Toy):
    """Adds up per name, and puts a sum that no row can hold for an item that is `BAD`, as the last thing it does.

    Attributes:
        keeps: the sums are kept in memory, and put when the transaction ends.
    """

    name = "heedless"
    anchor = ITEMS.name
    tables: tuple[str, ...] = (COUNTS.name,)
    emits: tuple[str, ...] = (ECHO.name,)
    keeps = False

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name),)

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._sums = {}

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        counts = step.table(COUNTS.name)
        known: Total | None = counts.get(item.name)
        amount = self._sums.get(item.name, known.amount if known else 0) + item.amount
        step.emit(ECHO.name, Seen(0, item.name, item.seq, amount))
        if not self.keeps:
            counts.put(Total(item.name, BOUNDLESS))  # nobody sees it: it is put anew at once
        self._put(counts, item.name, amount)
        if item.amount == BAD:
            self._put(counts, f"{item.name} {item.seq}", 1)
            self._put(counts, f"{item.name} {item.seq} is boundless", BOUNDLESS)

    def _put(self, counts: Table, name: str, amount: int) -> None:
        if self.keeps:
            self._sums[name] = amount
        else:
            counts.put(Total(name, amount))

    def flush(self, step: Step) -> None:
        for name, amount in self._sums.items():
            step.table(COUNTS.name).put(Total(name, amount))
        self._sums = {}


class Keeping(Heedless):
    keeps = True
