"""The edge at which the wall's time comes in: a member of the group `qmtl.clock` that writes ticks, and nothing else.

It is no processor, as nothing that it reads makes it write. What it shares with workers is who may: the tasks are the partitions of
the topic `clock`, a group gives each to one member, the others stand by, and the slot names the transactional id. Every commit carries
the proof of membership, and each task begins with the newest tick that anybody has written, once nothing is open there any more. So a
clock that was thought dead commits nothing after another one has looked, and no tick comes twice or goes back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from qmtl.engine.log.port import Fence, Log, Membership, TopicPartition, Writer
from qmtl.engine.observer import Commit, Nobody, Observer, TaskId, outcome_of
from qmtl.foundation.common.errors import (
    ClockTaken,
    LogUnreachable,
    MembershipLost,
    OutcomeUnknown,
    TransactionAborted,
    UnknownTopic,
    UnstableOffsets,
)
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_marker, marker_key
from qmtl.foundation.wire.topics import topic
from qmtl.services.clock.rule import NAME, LastTick, epoch_of, next_tick

GROUP: Final = f"qmtl.{NAME}"
LOOK_S: Final = 0.2
"""A clock that runs alone looks at the wall so often."""
SETTLE_S: Final = 2.0
"""So long is waited at a time for the end of what somebody before has left open."""
_FIRST_LOOK_BACK: Final = 64
_BATCH: Final = 5000

_log = logging.getLogger(__name__)


def wall_ms() -> int:
    """The time of this machine, epoch ms."""
    return time.time_ns() // 1_000_000


class Clock:
    """Ticks every task that it is given. Not thread-safe.

    Args:
        every_ms: between two ticks; they lie at its multiples.
        slot: names the transactional id and the group member; a second clock in the same slot takes the slot over.
        config_epoch: see `qmtl.services.clock.rule.epoch_of`.
        wall: gives the time, epoch ms. It may go back.
    """

    def __init__(
        self,
        log: Log,
        codec: Codec,
        every_ms: int,
        slot: str = "0",
        config_epoch: int = 1,
        wall: Callable[[], int] = wall_ms,
        observer: Observer | None = None,
    ) -> None:
        self._log, self._codec, self._every_ms, self._wall = log, codec, every_ms, wall
        self._config_epoch = config_epoch
        self._observer: Observer = Nobody() if observer is None else observer
        self._id = f"{GROUP}.{slot}"
        self._tasks = topic(NAME).partitions
        self._membership: Membership | None = log.membership(GROUP, self._id, NAME)
        self._writer: Writer | None = None
        self._last: dict[int, LastTick | None] = {}
        self._opening: set[int] = set()

    def claim(self) -> None:
        """Take the slot before the first tick, so that what forbids it is told at once.

        Raises:
            MissingRight: the cluster does not let this client write under the slot's transactional id.
            Fenced: another clock has taken the slot.
        """
        with suppress(OutcomeUnknown, LogUnreachable):  # the first round asks again
            self._the_writer()

    def serve(self) -> bool:
        """One round: writes what is due in the partitions that are mine, in one transaction; says whether it wrote.

        Raises:
            Fenced: another clock has taken the slot.
            MissingRight: the cluster does not let this client write.
            ClockTaken: somebody else ticks this log.
        """
        try:
            writer = self._the_writer()  # ends what a dead predecessor in this slot left open
            mine = self._the_membership().poll(0.0)
            fence = self._the_membership().fence()
            self._observer.polled(NAME, mine)
            for number in sorted((self._last.keys() | self._opening) - mine):
                self._drop(number)
            for number in sorted(mine - self._last.keys()):
                self._open(number)
            return self._tick(writer, fence)
        except MembershipLost as error:
            self._rejoin(error)
        except (TransactionAborted, OutcomeUnknown, LogUnreachable, UnstableOffsets) as error:
            _log.info("%s looks again: %s", self._id, error.what)
            for number in sorted(self._last):
                self._observer.ended(TaskId(NAME, number), outcome_of(error))
            self._drop_all()
            if isinstance(error, OutcomeUnknown):
                self._discard_writer()  # the next one first ends whatever this one left open
        return False

    def _tick(self, writer: Writer, fence: Fence | None) -> bool:
        now_ms = self._wall()
        due: dict[int, CloseMarker] = {}
        for number, last in sorted(self._last.items()):
            tick = next_tick(None if last is None else last.bucket_ms, now_ms, self._every_ms)
            if tick is not None:
                epoch = epoch_of(last, self._config_epoch)
                due[number] = CloseMarker(NAME, number, self._tasks, tick, 0, "", epoch)
        if not due:
            return False
        began = time.monotonic()
        writer.begin()
        for number, marker in due.items():
            key = marker_key(NAME, number, marker.bucket_ms)
            writer.append(NAME, number, key, self._codec.encode(marker), track=True)
        # The positions say nothing to anybody but the group, which refuses them where the fence is stale, and with them the ticks.
        read = {
            TopicPartition(NAME, number): 0 if last is None else last.offset + 1
            for number, last in self._last.items()
            if number in due
        }
        written = writer.commit(read, GROUP, fence)
        seconds = time.monotonic() - began
        for number, marker in due.items():
            offset = written[TopicPartition(NAME, number)]
            self._last[number] = LastTick(marker.bucket_ms, NAME, marker.config_epoch, offset)
            self._observer.committed(TaskId(NAME, number), Commit(0, 1, 0, 0, {}, 1, seconds))
        return True

    def _open(self, number: int) -> None:
        """Learn how far a partition is, unless something is still open there: then the next round looks again.

        Raises:
            UnstableOffsets: whoever had the task before is between its positions and its end.
            ClockTaken: somebody else ticks here.
        """
        task, where = TaskId(NAME, number), TopicPartition(NAME, number)
        if number not in self._opening:
            self._opening.add(number)
            self._observer.opening(task)
        if self._is_unsettled(where):
            return
        self._log.committed(GROUP, [where], SETTLE_S)
        if self._is_unsettled(where):  # a transaction ends in each partition on its own
            return
        last = last_tick(self._log, where, self._codec)
        epoch_of(last, self._config_epoch)
        self._last[number] = last
        self._opening.discard(number)
        self._observer.opened(task)

    def _is_unsettled(self, where: TopicPartition) -> bool:
        end = self._log.end_offsets([where])[where]
        return self._log.stable_offsets([where])[where] < end

    def _rejoin(self, error: MembershipLost) -> None:
        """Take part anew in the next round, unless another clock has the slot: two that take it from each other in turn serve nobody."""
        _log.info("%s joins its group again: %s", self._id, error.what)
        self._drop_all()
        try:
            self._the_writer().prove()
        except (TransactionAborted, OutcomeUnknown, LogUnreachable, UnknownTopic):
            self._discard_writer()
        self._leave()

    def _drop(self, number: int) -> None:
        self._last.pop(number, None)
        self._opening.discard(number)
        self._observer.closed(TaskId(NAME, number))

    def _drop_all(self) -> None:
        for number in sorted(self._last.keys() | self._opening):
            self._drop(number)

    def _the_membership(self) -> Membership:
        if self._membership is None:
            self._membership = self._log.membership(GROUP, self._id, NAME)
        return self._membership

    def _the_writer(self) -> Writer:
        if self._writer is None:
            self._writer = self._log.writer(self._id)
        return self._writer

    def _discard_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _leave(self) -> None:
        if self._membership is not None:
            self._membership.close()
            self._membership = None

    def close(self) -> None:
        """Leave; nothing is in flight between rounds. Once is enough, twice does no harm."""
        self._drop_all()
        self._discard_writer()
        self._leave()


def last_tick(log: Log, where: TopicPartition, codec: Codec) -> LastTick | None:
    """The newest close marker of a partition; None where there is none, or retention has taken it.

    Looks from the end, in stretches that double.
    """
    begin, end, size = log.begin_offsets([where])[where], log.stable_offsets([where])[where], _FIRST_LOOK_BACK
    reader = log.reader()
    try:
        while begin < end:
            start = max(begin, end - size)
            reader.assign({where: start})
            found: LastTick | None = None
            while reader.positions().get(where, start) < end:
                for record in reader.poll(_BATCH, 0.1):
                    if record.offset < end and is_marker(record.key) and record.value is not None:
                        marker: CloseMarker = codec.decode(record.value)
                        found = LastTick(
                            marker.bucket_ms, marker.processor, marker.config_epoch, record.offset
                        )
            if found is not None:
                return found
            end, size = start, size * 2
        return None
    finally:
        reader.close()


class Served(Protocol):
    """What has rounds: a worker."""

    def serve(self, timeout_s: float, until: Callable[[], bool]) -> bool: ...


def keep_time(
    clock: Clock | None,
    workers: Sequence[Served],
    until: Callable[[], bool],
    *,
    idle_s: float,
    refused: Callable[[ClockTaken], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Have a clock and the workers of its process served in turn until `until` says so.

    Args:
        idle_s: how long a round of the workers waits in all when none had anything to do.
        refused: told that the clock may not tick here, and the workers go on without it; None where that ends all.
        wait: how a clock without workers waits between two looks.

    Raises:
        Whatever ends one of them.
    """
    busy = True
    while not until():
        wait_s = 0.0 if busy or not workers else idle_s / len(workers)
        busy = False
        if clock is not None:
            try:
                busy = clock.serve()
            except ClockTaken as error:
                if refused is None:
                    raise
                refused(error)
                clock.close()
                clock = None
        for worker in workers:
            busy |= worker.serve(wait_s, until)
        if not workers:
            wait(LOOK_S)
