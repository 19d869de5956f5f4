"""Histories made by hand: what lies in the topics after a right run, in plain Python, for the checker to be checked with."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.campaign import plain
from tests.campaign.oracle import Loop, Put, Sums
from tests.campaign.verdict import Commits, Line, Lines, Positions

PARTITIONS = 2
BUCKETS = (60_000, 120_000, 180_000)


class History:
    """A right run over a few items and buckets, one transaction per item and one per bucket and stage.

    Attributes:
        lines: what lies in the topics; a test changes it.
        commits: the positions that each stage's group has committed.
    """

    def __init__(self) -> None:
        self.sums, self.loop = Sums(), Loop()
        self.items: dict[int, list[Put]] = {number: [] for number in range(PARTITIONS)}
        self.buckets = list(BUCKETS)
        self.lines: Lines = {("dead.letters", 0): []}
        self.commits: Commits = {"sums": {}, "late": {}, "after": {}}
        self._ends: dict[tuple[str, int], dict[str, str]] = {}
        for partition in range(PARTITIONS):
            self._sums(partition)
            self._loop(partition)

    def add(self, topic: str, partition: int, key: bytes, value: bytes | None) -> int:
        """Append a record; a marker of a transaction lies between every two."""
        mine = self.lines.setdefault((topic, partition), [])
        offset = mine[-1].offset + 2 if mine else 0
        mine.append(Line(offset, key, value))
        return offset

    def _names(self, partition: int) -> list[str]:
        return [
            name
            for name in ("a", "b", "c", "d", "e", "f")
            if plain.partition_of(name, PARTITIONS) == partition
        ]

    def _row(self, topic: str, partition: int, name: str, row: tuple[int, int] | None) -> None:
        value = None if row is None else plain.encode("Row", {"name": name, "amount": row[0], "seq": row[1]})
        self.add(topic, partition, plain.key(name), value)

    def _stamp(
        self,
        stage: str,
        tables: tuple[str, ...],
        partition: int,
        positions: Positions,
        buckets: list[int],
        written: Collection[str] | None = None,
    ) -> None:
        """End the first table and those written, all where not given, with a stamp that tells with which one each of them ends."""
        stamped = [name for name in tables if written is None or name in written or name == tables[0]]
        before = self._ends.setdefault((stage, partition), {})
        said = [{"table": name, "digest": "" if name in stamped else before[name]} for name in tables]
        stamp = {
            "processor": stage,
            "task": partition,
            "positions": [
                {"topic": topic, "partition": number, "offset": offset}
                for (topic, number), offset in sorted(positions.items())
            ],
            "buckets": buckets,
            "tables": said if len(tables) > 1 else [],
        }
        value = plain.encode("PositionStamp", stamp)
        for table in stamped:
            self.add(table, partition, b"\x00s" + plain.key(stage, partition), value)
            before[table] = plain.short_digest(value)
        for where, offset in positions.items():
            self.commits[stage].setdefault(where, []).append(offset)

    def _sums(self, partition: int) -> None:
        self._stamp("sums", ("c.sums", "c.open"), partition, {("c.items", partition): 0}, [0])
        for seq in range(12):
            names = self._names(partition)
            gone = seq % 5 == 4 or seq == 4 + len(names)  # of a name that is gone already, nothing is written
            put = Put(names[seq % len(names)], seq, 0 if gone else seq + 1)
            self.items[partition].append(put)
            offset = self.add(
                "c.items", partition, plain.key(put.name, seq), plain.encode("Item", put._asdict())
            )
            had = put.name in self.sums.open
            self.sums.take(put)
            answer = dict(zip(("seq", "total", "open"), self.sums.answers[put.name][-1], strict=True))
            self.add(
                "c.echo",
                partition,
                plain.key(put.name, seq),
                plain.encode("Echo", {"name": put.name, **answer}),
            )
            self._row("c.sums", partition, put.name, self.sums.totals[put.name])
            if opens := had or put.name in self.sums.open:
                self._row("c.open", partition, put.name, self.sums.open.get(put.name))
            read = {("c.items", partition): offset + 1}
            self._stamp("sums", ("c.sums", "c.open"), partition, read, [0], ("c.open",) if opens else ())

    def _mark(self, topic: str, stage: str, partition: int, bucket_ms: int) -> int:
        marker: dict[str, Any] = {
            "processor": stage,
            "task": partition,
            "tasks": PARTITIONS,
            "bucket_ms": bucket_ms,
            "count": 0,
            "digest": "",
            "config_epoch": 1,
        }
        key = plain.marker_key(stage, partition, bucket_ms)
        return self.add(topic, partition, key, plain.encode("CloseMarker", marker))

    def _loop(self, partition: int) -> None:
        """Both stages of a partition by a model of its own: names of the other partition have no part in it."""
        model = Loop()
        at: Positions = {("c.bars", partition): 0, ("c.after", partition): 0}
        closed = [0]
        for bucket_ms in (0, *BUCKETS):
            if bucket_ms:
                names = self._names(partition)
                puts = [Put(names[0], bucket_ms // 1000, 7), Put(names[-1], bucket_ms // 1000 + 1, 5)]
                if bucket_ms == BUCKETS[-1]:
                    puts.append(Put(names[0], bucket_ms // 1000 + 2, 0))
                before = dict(model.state[model.last])
                model.take(bucket_ms, puts)
                for put in puts:
                    self.add(
                        "c.bars", partition, plain.key(put.name, put.seq), plain.encode("Item", put._asdict())
                    )
                at["c.bars", partition] = self._mark("c.bars", "people", partition, bucket_ms) + 1
                for name, answers in model.answers.items():
                    for row in answers:
                        if row[0] == bucket_ms:
                            answer = dict(
                                zip(("bucket_ms", "seq", "state", "before", "other"), row, strict=True)
                            )
                            key = plain.key(bucket_ms, name, row[1])
                            self.add("c.late", partition, key, plain.encode("Seen", {"name": name, **answer}))
                now = model.state[bucket_ms]
                for name in sorted({put.name for put in puts}):
                    if name in now or name in before:
                        self._row("c.state", partition, name, now.get(name))
                for name, found in model.mirror[bucket_ms].items():
                    self._row("c.mirror", partition, name, found)
                closed.append(bucket_ms)
            state_end = self._mark("c.state", "late", partition, bucket_ms) + 1
            self._stamp("late", ("c.state", "c.mirror"), partition, dict(at), list(closed))
            for name, found in model.after[bucket_ms].items():
                self._row("c.after", partition, name, found)
            at["c.after", partition] = self._mark("c.after", "after", partition, bucket_ms) + 1
            self._stamp("after", ("c.after",), partition, {("c.state", partition): state_end}, list(closed))
        self.loop.answers.update(model.answers)
        for mine, whole in (
            (model.state, self.loop.state),
            (model.after, self.loop.after),
            (model.mirror, self.loop.mirror),
        ):
            for bucket_ms, rows in mine.items():
                whole.setdefault(bucket_ms, {}).update(rows)
        self.loop.last = BUCKETS[-1]
