"""The whole system as one value: every processor, what it reads, owns and writes, and its key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qmtl.engine.log.port import TopicDescription, Topics, TopicStanding
from qmtl.engine.processor import Processor
from qmtl.foundation.common.errors import InvalidTopology, LogError, UnknownProcessor
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.runtime.sdk.functions import Functions
from qmtl.services.clock.rule import NAME as CLOCK
from qmtl.services.dagmanager.processor import DagManager
from qmtl.services.dagmanager.topic_admin import Archive, BrokerLoad, Patience, TopicAdmin
from qmtl.services.egress.processor import Desk, Egress
from qmtl.services.nodes.processor import Nodes
from qmtl.services.oms.processor import Oms
from qmtl.services.trading.processor import Trading
from qmtl.services.worldservice.processor import WorldService


@dataclass(frozen=True, slots=True)
class Outside:
    """What effects may reach, and the functions of authors that nodes may run; who needs none of it ignores it."""

    topics: Topics
    archive: Archive | None = None
    patience: Patience = field(default_factory=Patience)
    load: BrokerLoad | None = None
    functions: Functions | None = None
    desk: Desk | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One processor of the system.

    Attributes:
        key: what its tasks are by.
        about: one sentence for people.
    """

    key: str
    about: str
    make: Callable[[Outside], Processor]


TOPOLOGY: Final[tuple[Stage, ...]] = (
    Stage(
        "one graph", "turns DAG messages into shared, content-addressed nodes", lambda outside: DagManager()
    ),
    Stage(
        "one graph",
        "makes the topics that nodes need, and removes those that nobody does",
        lambda outside: TopicAdmin(outside.topics, outside.archive, outside.patience, outside.load),
    ),
    Stage("world", "keeps worlds and opens or closes their order gates", lambda outside: WorldService()),
    Stage("one graph", "computes every shared node once", lambda outside: Nodes(outside.functions)),
    Stage("world", "gates, sizes, executes on paper and books", lambda outside: Trading()),
    Stage("world", "lets live orders out once, and follows what becomes of them", lambda outside: Oms()),
    Stage("world", "reaches the venue of live orders", lambda outside: Egress(outside.desk)),
)


@dataclass(frozen=True, slots=True)
class Edge:
    """A worker that is no processor: what it writes comes from outside of the log.

    Attributes:
        writes: topics.
    """

    name: str
    about: str
    writes: tuple[str, ...]


EDGES: Final[tuple[Edge, ...]] = (Edge(CLOCK, "ticks the clock by the time of the wall", ("clock",)),)


class _Nowhere:
    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        raise self._refuse()

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        raise self._refuse()

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        raise self._refuse()

    def _refuse(self) -> InvalidTopology:
        return InvalidTopology("a processor without an outside was to reach it.")


NOWHERE: Final = Outside(_Nowhere())
"""For a processor that is only asked what it reads and owns, or whose tables are built again: it has no effects."""

PROTOTYPES: Final[tuple[Processor, ...]] = tuple(stage.make(NOWHERE) for stage in TOPOLOGY)
"""One processor of each stage, to ask what it reads and owns."""

NAMES: Final = tuple(one.name for one in PROTOTYPES)


def stage(name: str) -> Stage:
    """The stage of a processor.

    Raises:
        UnknownProcessor: no such processor.
    """
    for one, prototype in zip(TOPOLOGY, PROTOTYPES, strict=True):
        if prototype.name == name:
            return one
    others = [one.name for one in EDGES]
    raise UnknownProcessor(f"there is no processor {name!r}.", f"There are {', '.join((*NAMES, *others))}.")


def problems(stages: Iterable[Processor] = PROTOTYPES) -> list[str]:
    """Where topology and catalogue contradict each other; empty where they agree."""
    out = []
    owned: dict[str, str] = {}
    touched = {
        "backtest.values",
        "dead.letters",
        "dead.redriven",
        "late.records",
        "ops.acceptances",
        "schemas",
        "task.cuts",
    }  # every processor's, people's, and that of backtests
    for one in stages:
        for name in one.tables:
            if owned.setdefault(name, one.name) != one.name:
                out.append(f"table {name} is owned by {owned[name]} and by {one.name}")
            if topic(name).owner != one.name:
                out.append(f"table {name} is {one.name}'s, the catalogue says {topic(name).owner}")
            if not topic(name).is_table:
                out.append(f"table {name} of {one.name} is not compacted")
        for name in one.emits:
            if topic(name).owner != one.name:
                out.append(f"{one.name} emits into {name}, the catalogue says {topic(name).owner}")
        for read in one.inputs():
            if read.bucketed and not topic(read.topic).marked:
                out.append(f"{one.name} reads {read.topic} by bucket, which carries no markers")
        touched |= {*one.tables, *one.emits, *(read.topic for read in one.inputs())}
    out += [f"topic {spec.name} is used by no processor" for spec in CATALOGUE if spec.name not in touched]
    return out


def mermaid() -> str:
    """The picture of the system, as a Mermaid flowchart: processors as boxes, topics as arrows' ends."""
    lines = ["flowchart LR", "  people([people and market data])"]
    lines += [f"  {name}[[{name}]]" for name in (*NAMES, *(one.name for one in EDGES))]
    writers: dict[str, list[str]] = {name: [one.name] for one in EDGES for name in one.writes}
    for one in PROTOTYPES:
        for name in (*one.tables, *one.emits):
            writers.setdefault(name, []).append(one.name)
    for one in PROTOTYPES:
        for read in one.inputs():
            for writer in writers.get(read.topic, ["people"]):
                arrow = f"-. {read.topic}, {read.lag} bucket late .->" if read.lag else f"-- {read.topic} -->"
                lines.append(f"  {writer} {arrow} {one.name}")
    lines.append('  people -- "raw node topics" --> nodes')
    read_topics = {read.topic for one in PROTOTYPES for read in one.inputs()}
    for name in sorted(writers):
        if name not in read_topics:
            shape = f"[({name})]" if topic(name).is_table else f"[/{name}/]"
            lines.append(f"  {writers[name][0]} --> {name.replace('.', '_')}{shape}")
    return "\n".join(lines) + "\n"
