"""Whether a log still holds what a task has read: a second run needs all of it, in the life of the topic that was read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from qmtl.engine.log.port import Log, Positions, TopicPartition
from qmtl.engine.transaction import CUTS
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import CannotReplay
from qmtl.foundation.wire.keys import is_stamp
from qmtl.foundation.wire.topics import TopicSpec

_VERIFY: Final = "Verify the tables instead (`qmtl replay verify`)"
_ANEW: Final = "The topic was truncated or made anew: what was computed from it can't be computed again."


def require_intact(
    log: Log, label: str, cuts: Sequence[Positions], lives: Mapping[str, Collection[str]]
) -> None:
    """Hold a log to what a task has read of it.

    Args:
        label: of the task, as `trading[0]`.
        cuts: how far it had read at each of its steps, as far as it had moved.
        lives: the ids that topics had when it read them, as far as they are known.

    Raises:
        CannotReplay: a topic is gone, or another one, or was read from an earlier place again, or has lost records at either end.
    """
    reached = _furthest(label, cuts)
    present = set(log.topics())
    if gone := sorted({where.topic for where in reached} - present):
        raise CannotReplay(
            f"{label} has read {', '.join(gone)}, and the log has no such topic any more.",
            f"{_VERIFY}; what was computed from a topic that is gone can't be computed again.",
        )
    _require_same_lives(log, label, reached, lives)
    for where, end in sorted(log.stable_offsets(sorted(reached)).items()):
        if end < reached[where]:
            raise CannotReplay(
                f"{label} has read {where.topic}[{where.partition}] up to {reached[where]}; it ends at {end}.",
                _ANEW,
            )
    wheres = sorted({*reached, *all_partitions(log, CUTS)})
    for where, begin in sorted(log.begin_offsets(wheres).items()):
        if begin > 0:
            raise CannotReplay(
                f"{label}: {where.topic}[{where.partition}] begins at offset {begin}; its first records are gone.",
                f"{_VERIFY}, or keep the topics longer.",
            )


def compacted_away(log: Log, specs: Mapping[str, TopicSpec], reached: Positions) -> list[TopicPartition]:
    """The partitions of tables, of those read so far, of which old versions of rows may be gone.

    Whoever writes a table ends each transaction with a stamp, always under one key: so the first one is what compaction takes
    first. A partition without a gap from its first offset to its first stamp, or to its end, is whole. Of any other the age of the
    records decides: an aborted transaction leaves a gap too.
    """
    return [
        where
        for where, offset in sorted(reached.items())
        if (spec := specs.get(where.topic)) is not None and spec.compacted and offset
        if _has_gap(log, where) and _is_old(log, where, spec.min_compaction_lag_ms)
    ]


def _has_gap(log: Log, where: TopicPartition) -> bool:
    for expected, record in enumerate(read_all(log, [where])):
        if record.offset != expected:
            return True
        if is_stamp(record.key):
            return False
    return False


def _is_old(log: Log, where: TopicPartition, kept_ms: int) -> bool:
    first = next(read_all(log, [where]), None)
    # Where the very first record is gone, so may be a row with its tombstone.
    return first is None or first.offset > 0 or first.timestamp_ms + kept_ms < log.now_ms()


def _furthest(label: str, cuts: Sequence[Positions]) -> Positions:
    """How far the cuts come; a task never goes back in what it reads, unless that is another thing than it was."""
    reached: dict[TopicPartition, int] = {}
    for number, cut in enumerate(cuts):
        for where, offset in sorted(cut.items()):
            if offset < reached.get(where, 0):
                raise CannotReplay(
                    f"{label} had read {where.topic}[{where.partition}] up to {reached[where]}, and in step {number + 1} up to"
                    f" {offset}: it was read again from an earlier place.",
                    _ANEW,
                )
            reached[where] = offset
    return reached


def _require_same_lives(
    log: Log, label: str, reached: Positions, lives: Mapping[str, Collection[str]]
) -> None:
    """Hold the topics to the ids that they had. A copy of a log has none of them, and is as good."""
    read = {where.topic for where, offset in reached.items() if offset}
    known = log.incarnations(sorted(set(lives).intersection(log.topics())))
    is_copy = not any(life.id in lives[name] for name, life in known.items())
    for name in sorted(read.intersection(known)):
        told = sorted(lives[name])
        if len(told) > 1 or (told != [known[name].id] and not is_copy):
            raise CannotReplay(
                f"{label} has read {name} when it was {' and '.join(told)}; the topic of this name is now {known[name].id}.",
                _ANEW,
            )
