"""The DAG Manager as a worker on a log in memory, whose process may die at any point, and whose log may be compacted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

from qmtl.engine.cut import CutDigest
from qmtl.engine.failpoint import watched
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Died, Process
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.context import NodeContext
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.keys import encode_key, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS, topic
from qmtl.services.dagmanager.processor import DagManager
from tests.services.dagmanager.desk import AnyDesk, Desk, Message, topic_of

READ: Final = tuple(one.topic for one in DagManager().inputs())
HEARD: Final = (*DagManager.emits, "dead.letters", "late.records")
THERE: Final = (*READ, *DagManager.tables, *HEARD, "task.cuts")
ROUNDS: Final = 12
"""In so many a message is handled, whatever the process dies of meanwhile."""


@dataclass(frozen=True)
class Death:
    """The process that runs is killed at the next passage of a point of `failpoint.POINTS`.

    Attributes:
        loses_store: its disk is lost with it.
    """

    point: str
    loses_store: bool


class DeskOnLog(AnyDesk):
    """Each message is written to the log, and has been handled when `send` returns, whatever happened to the process meanwhile.

    Attributes:
        calm: one that gets the same messages, and to which nothing ever happens.
        died: of what, so far.
        cluster: the log below.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.calm = Desk(directory)
        self.died: list[Death] = []
        self._place = directory / "machine"
        self.cluster = Cluster()
        people = SimulatedLog(self.cluster)
        people.ensure_topics([topic(name) for name in THERE])
        self._people = people.writer("people")
        self._fates: list[Sequence[Death]] = []
        self._deaths: list[Death] = []
        self._heard = dict.fromkeys(HEARD, 0)
        self._rows: dict[str, list[Any]] = {}
        self._start()
        self._serve({})

    def rows(self, name: str) -> list[Any]:
        """Read once after each message."""
        found = self._rows.get(name)
        if found is None:
            found = self._rows[name] = super().rows(name)
        return found

    # ---- what comes ------------------------------------------------------------------------------------------------

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.calm.send(message)
            spec = topic(topic_of(message))
            number = message.shard if isinstance(message, NodeDeployment | NodeContext) else 0
            self._write(
                TopicPartition(spec.name, number), encode_key(spec.key_of(message)), codec.encode(message)
            )

    def tick(self, bucket_ms: int) -> None:
        self.calm.tick(bucket_ms)
        marker = CloseMarker("people", 0, 1, bucket_ms, 0, CutDigest().hexdigest(), 1)
        self._write(TopicPartition("clock", 0), marker_key("people", 0, bucket_ms), codec.encode(marker))

    def _write(self, where: TopicPartition, key: bytes, value: bytes) -> None:
        after = self.cluster.partition(where).end + 1
        self._people.begin()
        self._people.append(*where, key, value)
        self._people.commit({}, "people", None)
        self._serve({where: after})

    def _serve(self, wanted: Mapping[TopicPartition, int]) -> None:
        """Have a process run until it has its task open, and has committed these positions or found them committed."""
        self._deaths = list(self._fates.pop(0)) if self._fates else []
        for _ in range(ROUNDS):
            self._round()
            reached = self.cluster.positions.get("qmtl.dagmanager", {})
            if self._worker.tasks and all(reached.get(where, 0) >= at for where, at in wanted.items()):
                break
        else:
            raise AssertionError(f"nobody comes to {wanted}")
        task = self._worker.tasks[0]
        assert isinstance(task.processor, DagManager)
        self._manager, self._tables, self._rows = task.processor, task._tables, {}
        for name, heard in self._heard.items():
            history = self.cluster.partition(TopicPartition(name, 0)).history
            self.emitted += [(name, codec.decode(one.value)) for one in history[heard:] if one.value]
            self._heard[name] = len(history)

    # ---- what happens ----------------------------------------------------------------------------------------------

    def meet(self, fates: Sequence[Sequence[Death]]) -> None:
        """Each thing that comes next has its fate: the process that handles it dies so, then its successor, as far as they get there."""
        self._fates = list(fates)

    def again(self) -> None:
        self._end(loses_store=False)
        self._start()
        self._serve({})

    def upgrade(self, schemas: Mapping[str, str]) -> None:
        self.calm.upgrade(schemas)
        super().upgrade(schemas)

    def compact(self, reaches: Sequence[int], days: int) -> None:
        """Some time passes, the cleaner comes, and everything is made again from what it leaves.

        Args:
            reaches: how far it comes in one partition and the next, in tenths; from the beginning again after the last.
        """
        self._end(loses_store=True)
        self.cluster.pass_ms(days * DAY_MS)
        compacted = [one for one in self.cluster.partitions() if topic(one.where.topic).compacted]
        for partition, reach in zip(compacted, cycle(reaches), strict=False):
            self.cluster.compact(partition.where, partition.end * reach // 10)
        self._start()
        self._serve({})

    def close(self) -> None:
        self._worker.close()
        self.calm.close()

    # ---- the process -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._process = Process("dagmanager")
        log = SimulatedLog(self.cluster, self._process)
        settings = TaskSettings(self._place, clock=self.cluster.clock.seconds)
        self._worker = Worker(log, DagManager, codec, settings)

    def _round(self) -> None:
        try:
            with watched(self._passing), self.code():
                self._worker.step()
        except Died:
            death = self._deaths.pop(0)
            self.died.append(death)
            # It can't let go of its files but by closing them in good order, which it had not lived to do.
            marks = {file: file.read_bytes() for file in self._place.glob("*.mark")}
            self._end(loses_store=death.loses_store)
            if not death.loses_store:
                for file, mark in marks.items():
                    file.write_bytes(mark)
            self._start()

    def _passing(self, point: str) -> None:
        if self._deaths and self._deaths[0].point == point:
            self._process.alive = False
            self._process.must_live()

    def _end(self, *, loses_store: bool) -> None:
        self._worker.close()
        if loses_store:
            rmtree(self._place)
