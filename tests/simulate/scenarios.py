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
from tests.engine.models import Buckets, items, minute
from tests.engine.toys import (
    A_OUT,
    B_STATE,
    CODEC,
    ECHO,
    ITEMS,
    LATE_OUT,
    LATE_STATE,
    RELAYED,
    TOPICS,
    A,
    B,
    Counter,
    Feed,
    Item,
    Late,
    Relay,
    X,
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
