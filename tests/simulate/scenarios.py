"""The toys of the engine's tests as scenarios: every kind of input, several tasks, delayed edges, deletions, poison."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from random import Random

from qmtl.engine.log.port import Log
from qmtl.engine.processor import Input, Processor
from qmtl.engine.simulate.scenario import Scenario, Start, Waiting
from qmtl.engine.simulate.trace import without_places
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.testing.simulation import alone, readers
from tests.engine.driving import closed, table
from tests.engine.models import Buckets, items, minute
from tests.engine.steered import Steered
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    B_STATE,
    CODEC,
    ECHO,
    ITEMS,
    LATE_OUT,
    LATE_STATE,
    RELAYED,
    SIDE,
    TOPICS,
    A,
    B,
    Counter,
    Feed,
    Item,
    Late,
    Relay,
    X,
    Y,
    make_topics,
)

POISON = b"no message at all"


def given_items(seed: int, count: int = 40, names: int = 4) -> list[Item]:
    """Amounts for a few names, deletions among them."""
    chance = Random(seed)
    return [
        Item(f"n{chance.randrange(names)}", number, chance.choice((0, 1, 2, 7))) for number in range(count)
    ]


def given_buckets(seed: int, count: int = 20) -> Buckets:
    """Buckets of up to three items, empty ones among them."""
    chance = Random(seed)
    return [
        [(f"k{chance.randrange(3)}", chance.choice((0, 1, 5))) for _ in range(chance.choice((0, 1, 3)))]
        for _ in range(count)
    ]


def crowd(found: list[Item], poison: bool) -> Callable[[Log], Iterator[Waiting | None]]:
    """People who write items into both partitions, one or two at a time."""

    def write(log: Log) -> Iterator[Waiting | None]:
        feed = Feed(log, ITEMS, "crowd")
        for number, item in enumerate(found):
            place = partition_for(encode_key((item.name,)), ITEMS.partitions)
            feed.put({place: [item, POISON] if poison and number % 7 == 3 else [item]})
            yield None

    return write


def clock(found: Buckets) -> Callable[[Log], Iterator[Waiting | None]]:
    """People who write buckets."""

    def write(log: Log) -> Iterator[Waiting | None]:
        feed = Feed(log, X)
        for number, bucket in enumerate(found):
            feed.bucket(minute(number), {0: items(bucket, number)})
            yield None

    return write


def slot(make: Callable[[], Processor], name: str) -> Start:
    return lambda log, settings: Worker(log, make, CODEC, settings, name)


def toys(seed: int = 0) -> Scenario:
    """A counter and a relay in two slots each, and a loop of two over a delayed edge."""
    slots: Mapping[str, Start] = {
        "qmtl.counter.0": slot(Counter, "0"),
        "qmtl.counter.1": slot(Counter, "1"),
        "qmtl.relay.0": slot(Relay, "0"),
        "qmtl.a.0": slot(A, "0"),
        "qmtl.b.0": slot(B, "0"),
    }
    return Scenario(
        name="toys",
        prepare=make_topics,
        slots=slots,
        people=(crowd(given_items(seed), poison=True), clock(given_buckets(seed))),
        normal=without_places(CODEC),
        inputs=frozenset({ITEMS.name, X.name}),
        whole=frozenset({ECHO.name, RELAYED.name, A_OUT.name}),
        cuts=frozenset({B_STATE.name}),
        alone=alone((Counter(), Relay(), A(), B())),
        readers=readers((Counter(), Relay(), A(), B()), TOPICS),
    )


def counters(seed: int = 0) -> Scenario:
    """Only the counter, in two slots."""
    return replace(
        toys(seed),
        name="counters",
        slots={name: start for name, start in toys(seed).slots.items() if "counter" in name},
        people=(crowd(given_items(seed, 80, names=12), poison=False),),
        readers=readers((Counter(),), TOPICS),
    )


def late(lag: int, seed: int = 0) -> Scenario:
    """A table that its own task reads late."""

    class Alone(Late):
        def inputs(self) -> tuple[Input, ...]:
            return tuple(one for one in super().inputs() if one.topic in (X.name, LATE_STATE.name))

    return Scenario(
        name=f"late {lag}",
        prepare=make_topics,
        slots={"qmtl.late.0": slot(lambda: Alone(lag), "0"), "qmtl.late.1": slot(lambda: Alone(lag), "1")},
        people=(clock(given_buckets(seed)),),
        normal=without_places(CODEC),
        inputs=frozenset({X.name}),
        whole=frozenset({LATE_OUT.name}),
        cuts=frozenset({LATE_STATE.name}),
        alone=alone((Alone(lag),)),
        readers=readers((Alone(lag),), TOPICS),
        cleans=lag == 1,
    )


IDLE_AFTER = 3


class Choosy(Steered):
    """Reads `x` as its clock; `y` joins with its first record and falls asleep when nobody feeds it."""

    def inputs(self) -> tuple[Input, ...]:
        side, *sources = super().inputs()
        sleepy = replace(Input(Y.name, bucketed=True), joins=True, idle_after=IDLE_AFTER)
        return (side, *(sleepy if one.topic == Y.name else one for one in sources))


def steering(log: Log) -> Iterator[Waiting | None]:
    """People who say what is read, and feed it or not; each piece is waited for, so that what has to come out is one thing."""
    x, y, side = Feed(log, X), Feed(log, Y), Feed(log, SIDE, "steering")
    numbers = iter(range(1000))
    reads = iter(range(1000))

    def read(names: str) -> Waiting:
        side.put({0: [Item(names, next(reads), 1)]})
        wanted = {encode_key((name,)) for name in names}
        return lambda: table(log, A_MIRROR.name).keys() == wanted

    def give(feed: Feed, number: int) -> None:
        feed.bucket(minute(number), {0: [Item("n", number, 1)]})

    def reached(number: int) -> Waiting:
        return lambda: minute(number) in closed(log, A_OUT.name)

    def both(count: int) -> Iterator[Waiting | None]:
        for number in (next(numbers) for _ in range(count)):
            give(y, number)
            yield None
            give(x, number)
            yield reached(number)

    yield read("xy")
    yield from both(3)
    last = -1
    for last in (next(numbers) for _ in range(IDLE_AFTER + 2)):  # y falls asleep
        give(x, last)
        yield None
    yield reached(last)
    for last in (next(numbers) for _ in range(2)):  # and is not waited for, whoever is opened again meanwhile
        give(x, last)
        yield reached(last)
    give(y, last)  # what comes for a bucket that is closed is late
    yield None
    yield from both(2)
    yield read("x")
    for number in (next(numbers) for _ in range(3)):
        give(x, number)
        give(y, number)
        yield reached(number)
    yield read("xy")
    yield from both(3)
    yield read("")
    give(x, next(numbers))
    yield None
    yield read("x")
    give(x, last := next(numbers))
    yield reached(last)


def sources() -> Scenario:
    """Inputs that come and go, one of them dead for a while, in two slots."""
    return Scenario(
        name="sources",
        prepare=make_topics,
        slots={f"qmtl.steered.{number}": slot(Choosy, str(number)) for number in range(2)},
        people=(steering,),
        normal=without_places(CODEC),
        inputs=frozenset({X.name, Y.name, SIDE.name}),
        whole=frozenset({A_OUT.name}),
        alone=alone((Choosy(),)),
        readers=readers((Choosy(),), TOPICS),
    )


__all__ = [
    "TaskSettings",
    "clock",
    "counters",
    "crowd",
    "given_buckets",
    "given_items",
    "late",
    "slot",
    "toys",
]
