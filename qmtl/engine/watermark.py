"""Close markers at work: which bucket of a task is complete, and what belongs to it.

The design follows markers in the log (each marker's offset is the watermark of its bucket) with the rules: close only what
all inputs have closed; an empty bucket closes too; a bucket that was already closed is late; count and digest prove the cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.cut import CutDigest, OpenRows, proof_of
from qmtl.engine.log.port import Positions, TopicPartition
from qmtl.engine.processor import Arrival, Input
from qmtl.foundation.common.errors import CutMismatch, InvariantBroken
from qmtl.foundation.contracts.control import GENESIS_MS, CloseMarker, DeadLetter

NOTHING_CLOSED: Final = -1
BUFFERED_BUCKETS: Final = 4096
"""Closed buckets of one partition that may wait for the others before the partition is paused."""
BUFFERED_RECORDS: Final = 200_000
"""Records of one task that may wait for their bucket; from there on only partitions are read for which the next bucket waits."""


@dataclass(slots=True)
class _Closed:
    bucket_ms: int
    arrivals: list[Arrival]
    dead: list[DeadLetter]
    next_offset: int


class PartitionBuffer:
    """The records of one bucketed partition, cut at its markers.

    Args:
        whole: whether the records since the marker before are still there. Where retention took some of them, the first cut can't
            be proved; if it has fewer records than were counted, it counts as empty.
    """

    __slots__ = (
        "_arrivals",
        "_closed_at_ms",
        "_cut",
        "_dead",
        "_epoch",
        "_its_last_ms",
        "_kept",
        "_rows",
        "_whole",
        "_writer",
        "closed",
        "compacted",
        "watermark_ms",
        "where",
    )

    def __init__(self, where: TopicPartition, *, compacted: bool, whole: bool = True) -> None:
        self._whole = whole
        self.where = where
        self.compacted = compacted
        self.watermark_ms = NOTHING_CLOSED
        self.closed: deque[_Closed] = deque()
        self._kept = 0
        self._arrivals: list[Arrival] = []
        self._dead: list[DeadLetter] = []
        self._cut = CutDigest()
        self._rows: OpenRows = {}
        self._closed_at_ms: int | None = None
        self._writer: tuple[str, int] | None = None
        self._its_last_ms = NOTHING_CLOSED
        self._epoch = 0

    @property
    def waits(self) -> bool:
        """Whether anything of what was read has not been taken by a bucket."""
        return bool(self.closed or self._arrivals or self._dead or self._cut.count or self._rows)

    @property
    def held(self) -> int:
        """How many records and letters are kept here."""
        return self._kept + len(self._arrivals) + len(self._dead)

    def pop(self) -> _Closed:
        """The oldest closed bucket, which is no longer kept here."""
        closed = self.closed.popleft()
        self._kept -= len(closed.arrivals) + len(closed.dead)
        return closed

    def add(self, arrival: Arrival | DeadLetter | None, key: bytes, value: bytes | None) -> None:
        """Take a record: a letter where it could not be decoded, None for a tombstone; both count."""
        if isinstance(arrival, DeadLetter):
            self._dead.append(arrival)
        elif arrival is not None:
            self._arrivals.append(arrival)
        if self.compacted:
            self._rows[key] = value
        else:
            self._cut.add(key, value)

    def refuse(self, letter: DeadLetter) -> None:
        """Take what should have been a marker and is none."""
        self._dead.append(letter)

    def close(self, marker: CloseMarker, offset: int, *, at_ms: int = 0, since_ms: int | None = None) -> None:
        """Take a marker. One of a higher configuration epoch may come from another writer, which goes on where the first ended, or
        before: what it closes up to there is kept behind what its predecessor has closed, and so is late.

        One that closes no records and no new bucket says nothing, whoever repeats it: several feeds may move a clock. It is late
        as any other, so that a reader is as far with it whether or not it was opened again in between.

        Args:
            at_ms: its timestamp.
            since_ms: of a compacted topic, what was written from then on has certainly not been cleaned; None of the others.

        Raises:
            InvariantBroken: a second writer of the same epoch closes this partition, or one of an epoch that is over.
            CutMismatch: the records since the last marker are not the ones that were counted.
        """
        writer = (marker.processor, marker.task)
        begins = marker.config_epoch > self._epoch
        if marker.config_epoch < self._epoch:
            raise InvariantBroken(
                f"{self.where} is closed by {writer} of the configuration {marker.config_epoch}, after {self._epoch} began."
            )
        if begins:
            self._epoch, self._writer, self._its_last_ms = marker.config_epoch, writer, NOTHING_CLOSED
        elif self._writer != writer:
            raise InvariantBroken(
                f"{self.where} is closed by {writer} and by {self._writer}: one writer per partition."
            )
        if marker.bucket_ms <= self.watermark_ms and not (marker.count or self._cut.count or self._rows):
            # An heir begins with genesis too; what its predecessor has closed stays closed.
            self._keep(marker.bucket_ms, offset)
            return
        if marker.bucket_ms <= self._its_last_ms:
            raise InvariantBroken(f"{self.where} closes bucket {marker.bucket_ms} after {self._its_last_ms}.")
        self._prove(marker, since_ms)
        self._keep(marker.bucket_ms, offset)
        self._its_last_ms = marker.bucket_ms
        self.watermark_ms = max(self.watermark_ms, marker.bucket_ms)
        self._whole = True
        self._closed_at_ms = at_ms
        self._cut, self._rows = CutDigest(), {}

    def _keep(self, bucket_ms: int, offset: int) -> None:
        self._kept += len(self._arrivals) + len(self._dead)
        self.closed.append(_Closed(bucket_ms, self._arrivals, self._dead, offset + 1))
        self._arrivals, self._dead = [], []

    def _prove(self, marker: CloseMarker, since_ms: int | None) -> None:
        """Hold what was read since the last marker to what this one says of it."""
        if not self.compacted:
            found = (self._cut.count, self._cut.hexdigest())
            if not self._whole and self._cut.count < marker.count:
                self._arrivals, self._dead = [], []
                return
        elif (
            since_ms is None
            or self._closed_at_ms is None
            or self._closed_at_ms < since_ms
            or not marker.digest
        ):
            return  # compaction may have taken versions, or nobody has counted them
        else:
            found = proof_of(self._rows)
        if found != (marker.count, marker.digest):
            raise CutMismatch(
                f"{self.where} closes bucket {marker.bucket_ms} with {marker.count} records, digest {marker.digest!r};"
                f" the reader saw {found[0]} with {found[1]!r}.",
                "The log was altered, or retention took records that were not read yet.",
            )


@dataclass(frozen=True, slots=True)
class Ready:
    """A bucket that every input has closed.

    Attributes:
        arrivals: per input topic; a bucket that closed before is late, and has none.
        dead: what could not be decoded; it goes on with the positions that lie behind it, and so once.
    """

    bucket_ms: int
    arrivals: dict[str, list[Arrival]]
    late: list[Arrival]
    dead: list[DeadLetter]
    positions: Positions
    cuts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Wait:
    """A partition for which the next bucket of a task waits.

    Attributes:
        needed_ms: the bucket that it has to close first, epoch ms; 0 is genesis.
        have_ms: the newest bucket that it has closed, as far as somebody has read it, a task since it was opened; None where
            there is none.
    """

    where: TopicPartition
    needed_ms: int
    have_ms: int | None


class Merge:
    """Merges the bucketed inputs of one task by bucket, never by arrival.

    Args:
        inputs: with the partitions that the task reads of each.
        buckets: the last buckets that the task closed, oldest first.
        own: tables of the task itself; a delayed edge on one needs no reading, its cut is in the table.
        recorded: what comes has been taken before, up to a recorded cut: it is taken as it is, and nothing is waited for.
    """

    def __init__(
        self, buckets: Sequence[int] = (), own: Collection[str] = (), *, recorded: bool = False
    ) -> None:
        self._recorded = recorded
        self._own = frozenset(own)
        self._buckets = tuple(buckets)
        self._inputs: dict[str, Input] = {}
        self._joined: frozenset[str] = frozenset()
        self._idle: frozenset[str] = frozenset()
        self._buffers: dict[TopicPartition, PartitionBuffer] = {}

    def configure(
        self,
        inputs: Iterable[tuple[Input, Sequence[TopicPartition], bool]],
        cut_off: Collection[TopicPartition] = (),
        joined: Collection[str] = (),
    ) -> None:
        """Take the inputs as they are now, with partitions and whether they are compacted; known buffers stay, of others nothing is kept.

        Args:
            cut_off: partitions that are read from where retention has left them, and nothing of what was there before.
            joined: topics that took part before this merge was made, whatever of them has been read since.
        """
        self._inputs = {}
        self._joined |= frozenset(joined)
        buffers: dict[TopicPartition, PartitionBuffer] = {}
        for one, partitions, compacted in inputs:
            self._inputs[one.topic] = one
            for where in partitions:
                buffer = self._buffers.get(where)
                if buffer is None:
                    buffer = PartitionBuffer(where, compacted=compacted, whole=where not in cut_off)
                    if one.lag and one.topic in joined:
                        # What was read of it ends with a marker: the first buckets of a task look back at genesis again and again.
                        buffer.watermark_ms = GENESIS_MS
                buffers[where] = buffer
        self._buffers = dict(sorted(buffers.items()))
        # A topic that comes back is one that was never here.
        self._joined &= self._inputs.keys()
        self._idle &= self._inputs.keys()

    def buffer(self, where: TopicPartition) -> PartitionBuffer | None:
        return self._buffers.get(where)

    def lengths(self) -> dict[TopicPartition, int]:
        """The partitions that are read here, with the length of their own buckets, ms; 0: the reader's."""
        return {where: self._inputs[where.topic].every_ms for where in self._buffers}

    def waiting(self) -> frozenset[TopicPartition]:
        """Partitions of which records or closed buckets were read that no bucket has taken yet."""
        return frozenset(where for where, buffer in self._buffers.items() if buffer.waits)

    def full(self) -> list[TopicPartition]:
        """Partitions that are far enough ahead of the others to wait.

        Never one for which the next bucket waits, nor one that is told to be silent by how far it was read: a task that
        paused these would stand still for ever. A bucket that is larger than the bound is read whole for the same reason.
        """
        if self._recorded:
            return []
        least = 1 if self.held >= BUFFERED_RECORDS else BUFFERED_BUCKETS
        ahead = [
            where
            for where, buffer in self._buffers.items()
            if len(buffer.closed) >= least and len(buffer.closed) > self._counted_of(where)
        ]
        if not ahead:
            return []
        needed = {one.where for one in self.waits()}.union(self.silent())
        return [where for where in ahead if where not in needed]

    def _counted_of(self, where: TopicPartition) -> int:
        """How many closed buckets of a partition have to be read to tell that another input is silent."""
        leads = _leads(self._inputs[where.topic])
        return max((one.idle_after for one in self._inputs.values()), default=0) if leads else 0

    @property
    def held(self) -> int:
        """How many records and letters wait for their bucket."""
        return sum(buffer.held for buffer in self._buffers.values())

    def asleep(self) -> list[TopicPartition]:
        """Partitions of joining topics that take no part yet."""
        awake = self._awake()
        return [
            where for where in self._buffers if self._inputs[where.topic].joins and where.topic not in awake
        ]

    def join(self, topics: Collection[str]) -> None:
        """Let topics take part from now on, whatever of them has been read."""
        self._joined |= frozenset(topics)
        self._idle -= frozenset(topics)

    def silent(self) -> list[TopicPartition]:
        """Partitions of topics that are waited for, and have missed as many buckets as their input allows.

        Never of a topic that has closed a bucket which waits here: all that it has closed is part of its bucket, however much
        a poll has brought of the others. The next bucket does not wait for such a topic, so nothing stands still by it.
        """
        leading = [buffer for buffer in self._buffers.values() if _leads(self._inputs[buffer.where.topic])]
        last = self._buckets[-1] if self._buckets else NOTHING_CLOSED
        out = []
        for topic in sorted(self._awake()):
            one = self._inputs.get(topic)
            if one is None or not one.idle_after or not leading:
                continue
            mine = [buffer for where, buffer in self._buffers.items() if where.topic == topic]
            own = min(buffer.watermark_ms for buffer in mine)
            if any(buffer.closed and buffer.closed[0].bucket_ms <= own for buffer in mine):
                continue
            due = one.due_after(max(last, own))
            missed = one.idle_after
            if all(
                len(buffer.closed) >= missed and buffer.closed[-missed].bucket_ms >= due for buffer in leading
            ):
                out += [buffer.where for buffer in mine]
        return out

    def fall_asleep(self, topics: Iterable[str]) -> None:
        """Wait no longer for these topics, until they `join` again."""
        self._idle |= frozenset(topics)

    def _awake(self) -> frozenset[str]:
        """A topic joins as a whole: what a poll brought first of its partitions must not decide what a bucket holds."""
        heard = {
            where.topic for where, buffer in self._buffers.items() if buffer.watermark_ms > NOTHING_CLOSED
        }
        return (self._joined | heard) - self._idle

    def is_ready(self) -> bool:
        """Whether the next bucket is complete."""
        head = self._head()
        return head is not None and next(self._missing(*head, self._cuts_of(head[0])), None) is None

    def take(self) -> Ready | None:
        """The next bucket that is complete, taken out of the buffers; None while an input has not closed it."""
        head = self._head()
        if head is None:
            return None
        bucket_ms, joined = head
        cuts = self._cuts_of(bucket_ms)
        if next(self._missing(bucket_ms, joined, cuts), None) is not None:
            return None
        return self._assemble(bucket_ms, joined, cuts)

    def waits(self) -> tuple[Wait, ...]:
        """What the next bucket waits for, delayed inputs last; nothing where it is complete or late, or nobody has closed one."""
        head = self._head()
        return () if head is None else tuple(self._missing(*head, self._cuts_of(head[0])))

    def _head(self) -> tuple[int, list[PartitionBuffer]] | None:
        """The oldest bucket that an input has closed, with what takes part in it."""
        present = [buffer for buffer in self._buffers.values() if self._inputs[buffer.where.topic].lag == 0]
        awake = self._awake()
        joined = [
            buffer
            for buffer in present
            if self._recorded or buffer.where.topic in awake or not self._inputs[buffer.where.topic].joins
        ]
        heads = [buffer.closed[0].bucket_ms for buffer in joined if buffer.closed]
        return (min(heads), joined) if heads else None

    def _cuts_of(self, bucket_ms: int) -> dict[str, int]:
        """Per delayed input the bucket that has to be closed there first; nothing looks back from a late bucket, or genesis."""
        if bucket_ms <= (self._buckets[-1] if self._buckets else GENESIS_MS):
            return {}
        return {
            one.topic: self._buckets[-one.lag] if len(self._buckets) >= one.lag else GENESIS_MS
            for one in self._inputs.values()
            if one.lag
        }

    def _missing(
        self, bucket_ms: int, joined: Sequence[PartitionBuffer], cuts: Mapping[str, int]
    ) -> Iterator[Wait]:
        if self._recorded or (self._buckets and bucket_ms <= self._buckets[-1]):
            return  # nothing is computed of a late bucket, and by late buckets no source is ever told to be silent
        last = self._buckets[-1] if self._buckets else GENESIS_MS
        for buffer in joined:
            due = self._inputs[buffer.where.topic].due_by(bucket_ms)
            # What was due by the last bucket is behind it, read or missed, whether or not this run has seen the marker.
            if buffer.watermark_ms < due and (due > last or due == bucket_ms):
                yield _wait(buffer, due)
        for where, buffer in self._buffers.items() if cuts else ():
            need = cuts.get(where.topic)
            if need is not None and where.topic not in self._own and buffer.watermark_ms < need:
                yield _wait(buffer, need)

    def _assemble(self, bucket_ms: int, joined: Sequence[PartitionBuffer], cuts: dict[str, int]) -> Ready:
        arrivals: dict[str, list[Arrival]] = {topic: [] for topic in self._inputs}
        late: list[Arrival] = []
        dead: list[DeadLetter] = []
        positions: dict[TopicPartition, int] = {}
        last = self._buckets[-1] if self._buckets else GENESIS_MS
        lagged = [buffer for buffer in self._buffers.values() if buffer.where.topic in cuts]
        for buffer in (*joined, *lagged):
            until = cuts.get(buffer.where.topic, bucket_ms)
            newest_ms = NOTHING_CLOSED
            while buffer.closed and buffer.closed[0].bucket_ms <= until:
                if buffer.closed[0].bucket_ms <= newest_ms and buffer.where.topic not in cuts:
                    break  # an heir closes again what its predecessor has closed: late, once this bucket is the last
                closed = buffer.pop()
                newest_ms = closed.bucket_ms
                is_late = buffer.where.topic not in cuts and closed.bucket_ms <= last
                dead.extend(closed.dead)
                (late if is_late else arrivals[buffer.where.topic]).extend(closed.arrivals)
                positions[buffer.where] = closed.next_offset
        return Ready(bucket_ms, arrivals, late, dead, positions, cuts)

    @property
    def buckets(self) -> tuple[int, ...]:
        return self._buckets

    def closed(self, buckets: Sequence[int]) -> None:
        """The task closed a bucket; its recent buckets are now these."""
        self._buckets = tuple(buckets)


def _leads(one: Input) -> bool:
    """Whether its buckets are the reader's own, which tell how long another has been silent."""
    return not (one.joins or one.lag or one.every_ms)


def _wait(buffer: PartitionBuffer, needed_ms: int) -> Wait:
    have_ms = buffer.watermark_ms
    return Wait(buffer.where, needed_ms, None if have_ms == NOTHING_CLOSED else have_ms)
