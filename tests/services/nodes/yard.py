"""The four shards of the node workers one by one: each reads when a test has it read, and what it reads of `dag.strategies` as well."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.port import Record, TopicPartition
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS
from qmtl.services.nodes.processor import Nodes
from tests.services.nodes.floor import Floor

ROWS = "dag.strategies"


class HoldingReader(EmbeddedReader):
    """Brings the rows of strategies when it is told to, as the fetches of a broker's client may come in any order; and of each strategy
    the newest alone, if a cleaner has been there."""

    def __init__(self, log: HoldingLog) -> None:
        super().__init__(log)
        self.holds, self.cleaned = False, False
        self._holding = log
        self._asked: Collection[TopicPartition] = ()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._asked = partitions

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        held = [where for where in self.positions() if where.topic == ROWS and self.holds]
        super().pause([*self._asked, *held])
        found = super().poll(max_records, timeout_s)
        if not self.cleaned or all(one.topic != ROWS for one in found):
            return found
        newest = {one.key: one.offset for one in read_all(self._holding, all_partitions(self._holding, ROWS))}
        return [one for one in found if one.topic != ROWS or newest[one.key] == one.offset]


class HoldingLog(EmbeddedLog):
    """A log that remembers whom it gave a reader last."""

    last: HoldingReader

    def reader(self) -> HoldingReader:
        self.last = HoldingReader(self)
        return self.last


class Shard:
    """A task of the node workers."""

    def __init__(self, log: HoldingLog, directory: Path, number: int, poll_records: int) -> None:
        self._log, self._directory, self._number = log, directory, number
        self._settings = TaskSettings(directory, poll_records)
        self._begin()

    def _begin(self) -> None:
        self._task = Task(self._log, Nodes(), self._number, codec, self._settings)
        self._reader = self._log.last
        self._writer = self._log.writer(f"shard-{self._number}")
        self._task.open()

    def step(self, *, holds: bool = False, cleaned: bool = False) -> bool:
        self._reader.holds, self._reader.cleaned = holds, cleaned
        return self._task.step(self._writer, None, 0.0)

    @property
    def closed_ms(self) -> int:
        return self._task.buckets[-1] if self._task.buckets else 0

    def restart(self, *, lose_store: bool) -> None:
        self.close()
        store = self._directory / f"nodes-{self._number}"
        if lose_store and store.exists():
            shutil.rmtree(store)
        self._begin()

    def close(self) -> None:
        self._task.close()
        self._writer.close()


class Yard:
    """The shards, and a floor on which the DAG Manager works and bars are fed, and nobody computes."""

    def __init__(self, directory: Path, poll_records: int) -> None:
        self.floor = Floor(directory, log=HoldingLog)
        self.floor.stop()
        log = self.floor.log
        assert isinstance(log, HoldingLog)
        self.shards = [Shard(log, directory / "shards", number, poll_records) for number in range(SHARDS)]

    def rest(self, holds: Collection[int] = (), stands: Collection[int] = ()) -> None:
        """Let everybody work until nobody has anything to do; some of the shards without what is new in the rows, and some not at all."""
        busy = [True]
        while any(busy):
            self.floor.work()
            busy = [
                shard.step(holds=number in holds)
                for number, shard in enumerate(self.shards)
                if number not in stands
            ]

    def close(self) -> None:
        for shard in self.shards:
            shard.close()
        self.floor.close()
