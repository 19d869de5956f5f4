"""The order management system and the edge on one embedded log, with a venue in memory: the test writes gates, orders and ticks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qmtl.engine.cut import CutDigest
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.keys import encode_key, is_reserved, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.egress.processor import Desk, Egress
from qmtl.services.oms.processor import Oms
from tests.engine.faults import Fault as CommitFault
from tests.engine.faults import FaultyLog
from tests.services.egress.venue import MemoryVenue
from tests.services.oms.samples import T0


class Plan(Iterator[CommitFault]):
    """What becomes of the commits that come next."""

    def __init__(self) -> None:
        self.next: list[CommitFault] = []

    def __next__(self) -> CommitFault:
        return self.next.pop(0) if self.next else CommitFault.NONE


class Rig:
    """Time stands still but for `pass_ms`; every process is opened anew by `reopen`."""

    def __init__(
        self, directory: Path, poll_records: int = 4000, max_age_ms: int = 0, has_venue: bool = True
    ) -> None:
        self.now_ms, self.lives, self.bucket = T0, 0, 0
        self.plan = Plan()
        self.log = FaultyLog(directory / "log", self.plan)
        self.log.ensure_topics(CATALOGUE)
        self.venue = MemoryVenue(lambda: self.now_ms)
        self._settings = TaskSettings(directory / "tasks", poll_records)
        self._max_age_ms, self._has_venue = max_age_ms, has_venue
        self._writer = self.log.writer("test")
        self._open()

    def _open(self) -> None:
        self.lives += 1
        venue = self.venue if self._has_venue else None
        self.desk = Desk(
            venue, f"life {self.lives}", self._max_age_ms, lambda: self.now_ms, lambda: self.now_ms / 1000
        )
        self.oms = Worker(self.log, Oms, codec, self._settings)
        self.egress = Worker(self.log, lambda: Egress(self.desk), codec, self._settings)

    def reopen(self) -> None:
        self.oms.close()
        self.egress.close()
        self._open()

    def write(self, name: str, *messages: Any, settle: bool = True) -> None:
        spec = topic(name)
        self._writer.begin()
        for one in messages:
            self._writer.append(name, 0, encode_key(spec.key_of(one)), codec.encode(one))
        self._writer.commit({}, "test", None)
        if settle:
            self.settle()

    def tick(self, pass_ms: int = 60_000, settle: bool = True) -> None:
        self.now_ms += pass_ms
        self.bucket += 1
        at_ms = T0 + self.bucket * 60_000
        marker = CloseMarker("people", 0, 1, at_ms, 0, CutDigest().hexdigest(), 1)
        self._writer.begin()
        self._writer.append("clock", 0, marker_key("people", 0, at_ms), codec.encode(marker))
        self._writer.commit({}, "test", None)
        if settle:
            self.settle()

    def settle(self) -> None:
        while self.oms.step() or self.egress.step():
            pass

    def rows(self, name: str) -> list[Any]:
        return list(TableView(self.log, name, codec).refresh().rows())

    def events(self, name: str, *kinds: type) -> list[Any]:
        found = [
            codec.decode(one.value)
            for one in read_all(self.log, all_partitions(self.log, name))
            if one.value is not None and not is_reserved(one.key)
        ]
        return [one for one in found if not kinds or isinstance(one, kinds)]

    def end(self) -> None:
        self.oms.close()
        self.egress.close()
        self.log.close()
