"""Tests of a processor or a strategy without a broker: the same input under many seeds of faults, and the same outcome each time.

A run is a cluster in memory with transactions, rebalances, fencing, compaction and lost answers, and processes that die, stand
still or meet their twin. Its outcome has to be that of the run in which nothing happens: every key of every topic with the same
values in the same order, every table with the same rows, and after a restart without stores the same again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any, Final, TypeAlias

from qmtl.engine.cut import CutDigest
from qmtl.engine.failpoint import POINTS
from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.coverage import Coverage
from qmtl.engine.simulate.explore import Explorer
from qmtl.engine.simulate.scenario import Invariant, Said, Scenario, Start
from qmtl.engine.simulate.schedule import Crash, Kill, Run, Schedule
from qmtl.engine.simulate.trace import Normal
from qmtl.engine.simulate.world import World
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import InvalidValue, SimulationFailed, WireError
from qmtl.foundation.contracts import market, world
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission, StrategyStatus, TopicClass
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, is_reserved, marker_key
from qmtl.foundation.wire.registry import MESSAGES
from qmtl.foundation.wire.registry import codec as qmtl_codec
from qmtl.foundation.wire.shards import has_read, needed_by
from qmtl.foundation.wire.topics import CATALOGUE, TopicSpec, node_topic, topic
from qmtl.replay.digest import blanked
from qmtl.replay.feed import Feed

SEEDS: Final = 20
WORLD: Final = "simulated"
PUSHED: Final = 20
"""Buckets of bars that are written at once."""


@dataclass(frozen=True, slots=True)
class Close:
    """Closes a bucket of a topic that is read bucket by bucket: a marker in each of its partitions.

    Attributes:
        bucket_ms: the instant at which the bucket ends, epoch ms.
    """

    topic: str
    bucket_ms: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What happens at one place of the input, in every run but the one that nothing disturbs."""

    acts: Schedule


def crash(point: str | None = None, *, slot: int = 0, passage: int = 1) -> Mark:
    """A mark: the process of a slot is killed here, at the n-th passage of a failpoint, or between two steps.

    Where what was written so far does not lead it through the failpoint, nothing happens.

    Args:
        slot: the number of the process, those of the first processor first.
        point: one of `qmtl.engine.failpoint.POINTS`; None is between two steps.

    Raises:
        InvalidValue: no such point.
    """
    if point is None:
        return Mark((Run(slot), Kill(slot)))
    if point not in POINTS:
        raise InvalidValue(
            f"point was {point!r}, which is no failpoint.", f"Give one of {', '.join(POINTS)}."
        )
    return Mark((Crash(slot, point, passage),))


Given: TypeAlias = tuple[str, object] | Close | Mark
"""A message with the topic that it goes to, the end of a bucket, or a mark."""


class Outcome:
    """What a run has left on its log.

    Attributes:
        seed: None for the run that nothing disturbed.
    """

    def __init__(self, log: Log, codec: Codec, seed: int | None) -> None:
        self.seed = seed
        self._log = log
        self._codec = codec

    def messages(self, topic: str) -> list[Any]:
        """Every message of a topic, by partition, then in their order.

        Raises:
            UnknownTopic: there is no such topic.
        """
        found = [
            one for one in read_all(self._log, all_partitions(self._log, topic)) if not is_reserved(one.key)
        ]
        ordered = sorted(found, key=lambda one: (one.partition, one.offset))
        return [self._codec.decode(one.value) for one in ordered if one.value is not None]

    def rows(self, table: str) -> list[Any]:
        """The newest value of each key of a table, in key order.

        Raises:
            UnknownTopic: there is no such topic.
        """
        return TableView(self._log, table, self._codec).refresh().rows()


Law: TypeAlias = Callable[[Outcome], object]
"""Raises where an outcome breaks it, or gives False."""


class Moment:
    """What a reader of committed records could have seen up to now, whatever was cleaned since. To look at it takes no time.

    A transaction shows in every topic at once, but for those in which somebody's older transaction is still open.
    """

    def __init__(self, cluster: Cluster, decode: Callable[[bytes], Any]) -> None:
        self._cluster = cluster
        self._decode = decode

    def messages(self, topic: str) -> list[Any]:
        """Every message of a topic, by partition, then in their order.

        Raises:
            UnknownTopic: there is no such topic.
        """
        return [self._decode(one.value) for one in self._records(topic) if one.value is not None]

    def rows(self, table: str) -> list[Any]:
        """The newest value of each key of a table, in key order.

        Raises:
            UnknownTopic: there is no such topic.
        """
        newest = {one.key: one.value for one in self._records(table)}
        return [self._decode(value) for _, value in sorted(newest.items()) if value is not None]

    def _records(self, topic: str) -> Iterator[Record]:
        for number in range(self._cluster.incarnation(topic).partitions):
            partition = self._cluster.partition(TopicPartition(topic, number))
            partition.settle()
            yield from (one for one in partition.history if not is_reserved(one.key))


Check: TypeAlias = Callable[[Moment], object]
"""Raises where it does not hold at a moment, or gives False."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a simulation has shown.

    Attributes:
        outcome: of the run that nothing disturbed; every other had the same.
        seeds: how many others there were.
        coverage: what happened in them.
    """

    outcome: Outcome
    seeds: int
    coverage: Coverage


def simulate(
    processors: Callable[[], Processor] | Sequence[Callable[[], Processor]],
    records: Sequence[Given],
    *,
    topics: Sequence[TopicSpec] = (),
    seeds: int | Iterable[int] = SEEDS,
    laws: Sequence[Law] = (),
    invariants: Sequence[Check] = (),
    workers: int = 1,
    ordered: Sequence[str] = (),
) -> Simulated:
    """Run processors on records, once in peace and once per seed under faults.

    Args:
        processors: each makes a new processor; a class will do.
        records: written one after the other; each has its own transaction, but for those before a `Close`.
        topics: those that are not in the catalogue, with their messages.
        seeds: how many, or which.
        laws: asked of the outcome of every run.
        invariants: asked on the way, of every run: after each act of its schedule, and then after each round of all processes.
        workers: processes per processor.
        ordered: topics whose partitions have one order, and not only each of their keys.

    Raises:
        SimulationFailed: naming the law, the seed, and the shortest schedule found that breaks it.
    """
    makes = [processors] if callable(processors) else list(processors)
    prototypes = [make() for make in makes]
    specs = {one.name: one for one in (*CATALOGUE, *topics)}
    codec = Codec(tuple(dict.fromkeys((*MESSAGES, *(one for spec in topics for one in spec.messages)))))
    slots = {
        f"qmtl.{one.name}.{number}": _slot(make, codec, str(number))
        for make, one in zip(makes, prototypes, strict=True)
        for number in range(workers)
    }
    written = frozenset(one[0] for one in records if isinstance(one, tuple)) | frozenset(
        one.topic for one in records if isinstance(one, Close)
    )
    scenario = Scenario(
        name=", ".join(one.name for one in prototypes),
        prepare=lambda log: log.ensure_topics(list(specs.values())),
        slots=slots,
        people=(lambda log: _write(log, records, specs, codec),),
        normal=without_coordinates(codec),
        inputs=written,
        whole=frozenset(ordered),
        readers=readers(prototypes, specs),
        alone=alone(prototypes),
        cleans=all(read.lag <= 1 for one in prototypes for read in one.inputs()),
        invariants=[_invariant(one, codec) for one in invariants],
    )
    return explore(scenario, codec, seeds, laws)


def simulate_strategy(
    message: bytes | str | Mapping[str, Any],
    bars: Sequence[market.Bar],
    *,
    settings: world.WorldSettings,
    seeds: int | Iterable[int] = SEEDS,
    laws: Sequence[Law] = (),
    invariants: Sequence[Check] = (),
) -> Simulated:
    """Publish a strategy into a world of its own, open its gates, feed bars, and run every processor of the system.

    Args:
        message: the strategy's DAG message.
        bars: of one interval, by open time; every bucket between the first and the last is closed, with or without bars.
        settings: of the world.
        seeds, laws, invariants: see `simulate`.

    Raises:
        SimulationFailed: see `simulate`; also where the strategy is refused, as a run that comes to no rest.
    """
    from qmtl.topology import NAMES, Outside, stage

    def slot(name: str) -> Start:
        one = stage(name)
        return lambda log, given: Worker(log, lambda: one.make(Outside(log)), qmtl_codec, given, "0")

    slots = {f"qmtl.{name}.0": slot(name) for name in NAMES}
    scenario = strategy_scenario(slots, message, bars, settings)
    asked = [_invariant(one, qmtl_codec) for one in invariants]
    return explore(replace(scenario, invariants=asked), qmtl_codec, seeds, laws)


def strategy_scenario(
    slots: Mapping[str, Start],
    message: bytes | str | Mapping[str, Any],
    bars: Sequence[market.Bar],
    settings: world.WorldSettings,
) -> Scenario:
    """Every processor of the system in these slots, with one strategy in one world."""
    raw = message if isinstance(message, bytes | str) else json.dumps(message, sort_keys=True)
    found = raw.encode() if isinstance(raw, str) else raw
    if not bars:
        raise InvalidValue("bars were empty; a simulation takes at least one.")
    from qmtl.topology import PROTOTYPES

    people = tuple(spec.name for spec in CATALOGUE if spec.owner == "people")
    return Scenario(
        name="strategy",
        prepare=lambda log: log.ensure_topics(CATALOGUE),
        slots=slots,
        people=(lambda log: _trade(log, found, bars, settings),),
        normal=without_coordinates(qmtl_codec),
        inputs=frozenset(people),
        readers=readers(PROTOTYPES, {spec.name: spec for spec in CATALOGUE}),
        alone=alone(PROTOTYPES),
    )


def explore(
    scenario: Scenario, codec: Codec, seeds: int | Iterable[int] = SEEDS, laws: Sequence[Law] = ()
) -> Simulated:
    """Run a scenario in peace and under seeds, and ask the laws of each outcome.

    Raises:
        SimulationFailed: see `simulate`.
    """
    explorer = Explorer(scenario, asked=lambda one, seed: _ask(Outcome(one.log, codec, seed), laws))
    found = explorer.run(range(seeds) if isinstance(seeds, int) else seeds)
    if found.failures:
        failure = explorer.shrunk(found.failures[0])
        raise SimulationFailed(str(failure), f"`seeds=[{failure.seed}]` runs it alone.")
    return Simulated(Outcome(explorer.calm.log, codec, None), found.seeds, found.coverage)


def readers(processors: Iterable[Processor], specs: Mapping[str, TopicSpec]) -> dict[str, tuple[str, ...]]:
    """The groups that need every record of a topic: all readers of events, and those of a table that take it by bucket."""
    out: dict[str, tuple[str, ...]] = {}
    for one in processors:
        for read in one.inputs():
            if read.topic not in one.tables and (read.bucketed or not specs[read.topic].compacted):
                out[read.topic] = (*out.get(read.topic, ()), f"qmtl.{one.name}")
    return out


def alone(processors: Iterable[Processor]) -> frozenset[tuple[str, str]]:
    """The groups and topics of which each partition is read by one task."""
    return frozenset(
        (f"qmtl.{one.name}", read.topic) for one in processors for read in one.inputs() if not read.broadcast
    )


def _ask(outcome: Outcome, laws: Sequence[Law]) -> None:
    for law in laws:
        if law(outcome) is False:
            raise AssertionError(f"{getattr(law, '__name__', 'a law')} does not hold")


def _invariant(check: Check, codec: Codec) -> Invariant:
    decode = cache(codec.decode)  # the same records are looked at after every step

    def invariant(world: World) -> Iterator[str]:
        try:
            if check(Moment(world.cluster, decode)) is False:
                yield "does not hold"
        except Exception as error:
            yield f"{type(error).__name__}: {error}"

    invariant.__name__ = getattr(check, "__name__", "an invariant")
    return invariant


def _slot(make: Callable[[], Processor], codec: Codec, number: str) -> Start:
    return lambda log, settings: Worker(log, make, codec, settings, number)


def without_coordinates(codec: Codec) -> Normal:
    """Values without the places in a log that they name, at any depth."""
    known: dict[bytes, bytes] = {}

    def normal(value: bytes) -> bytes:
        found = known.get(value)
        if found is None:
            try:
                found = codec.encode(blanked(codec.decode(value)))
            except WireError:
                found = value  # nobody can say what it means, so it is what it is
            known[value] = found
        return found

    return normal


# ---- people -----------------------------------------------------------------------------------------------------


def _write(
    log: Log, records: Sequence[Given], specs: Mapping[str, TopicSpec], codec: Codec
) -> Iterator[Said]:
    writer = log.writer("people")
    cuts: dict[tuple[str, int], CutDigest] = {}
    for one in records:
        if isinstance(one, Mark):
            yield one.acts
            continue
        writer.begin()
        if isinstance(one, Close):
            for partition in range(specs[one.topic].partitions):
                cut = cuts.pop((one.topic, partition), None) or CutDigest()
                marker = CloseMarker("people", 0, 1, one.bucket_ms, cut.count, cut.hexdigest(), 1)
                writer.append(
                    one.topic, partition, marker_key("people", 0, one.bucket_ms), codec.encode(marker)
                )
        else:
            spec, message = specs[one[0]], one[1]
            key, value = encode_key(spec.key_of(message)), codec.encode(message)
            partition = spec.partition_of(message)
            writer.append(spec.name, partition, key, value)
            cuts.setdefault((spec.name, partition), CutDigest()).add(key, value)
        writer.commit({}, "people", None)
        yield None
    writer.close()


def _trade(
    log: Log, message: bytes, bars: Sequence[market.Bar], settings: world.WorldSettings
) -> Iterator[Said]:
    """Does one thing after the other, as a person does: each when the one before has had its answer."""
    start_ms = bars[0].open_time_ms
    views = {
        name: TableView(log, name, qmtl_codec)
        for name in ("world.outcomes", "dag.diffs", "dag.strategies", "node.deployments")
    }

    def done(command_id: str) -> Callable[[], bool]:
        return lambda: views["world.outcomes"].refresh().get(WORLD, command_id) is not None

    _send(log, "world.commands", world.CreateWorld("create", WORLD, settings, start_ms))
    yield done("create")
    _send(
        log,
        "dag.submissions",
        DagSubmission("submit", WORLD, message, start_ms, FULL_WEIGHT, "backtest", "simulation"),
    )
    yield lambda: views["dag.diffs"].refresh().get("submit") is not None
    answer = views["dag.diffs"].get("submit")
    if not answer.accepted:
        raise SimulationFailed(f"the DAG Manager refused [{answer.code}]: {answer.detail}")
    strategy_id = answer.strategy_id

    def deployed() -> bool:
        found = views["dag.strategies"].refresh().get(WORLD, strategy_id)
        if found is None or found.status is not StrategyStatus.READY:
            return False
        view = views["node.deployments"].refresh()
        return all(has_read(view.get(shard, WORLD, strategy_id), found) for shard in needed_by(found))

    yield deployed
    for side in world.PositionSide:
        command = f"activate {side.value}"
        _send(
            log,
            "world.commands",
            world.SetActivation(
                command,
                WORLD,
                strategy_id,
                side,
                True,
                Decimal(1),
                False,
                False,
                world.EffectiveMode.PAPER,
                start_ms,
            ),
        )
        yield done(command)
    source = views["dag.strategies"].refresh().get(WORLD, strategy_id).nodes[0]
    raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
    end_ms = bars[-1].open_time_ms + source.interval * 1000
    feed = Feed(log, qmtl_codec, raw, source.interval, bars, start_ms, end_ms)
    while not feed.done:
        feed.push(PUSHED)
        yield None
    feed.close()


def _send(log: Log, name: str, message: object) -> None:
    spec = topic(name)
    writer = log.writer(f"people.{name}")
    writer.begin()
    writer.append(
        name, spec.partition_of(message), encode_key(spec.key_of(message)), qmtl_codec.encode(message)
    )
    writer.commit({}, "people", None)
    writer.close()
