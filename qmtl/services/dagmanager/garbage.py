"""What nobody needs any more: orphaned queues after their time, and versions to which nobody can go back any longer.

Time is that of the clock's ticks, and what a message says of time is not believed: a tick stamps what has become an orphan since the
last one, and counts from there.

What is to be archived before it goes is archived as soon as nobody has it or writes it any more, long before it goes: its topic loses what
is older than its retention all the while.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from heapq import nsmallest
from typing import Final

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import (
    AdminAct,
    Queue,
    QueueRole,
    Relation,
    SentinelStatus,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.contracts.retention import GcPace
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.queues import condemn, store

BATCH: Final = 50
"""Topics that are condemned at a tick; half of them while the brokers are busy, or may be."""

BUSY_PERCENT: Final = 80
"""Of what the brokers are said to bear, above which they are busy."""

FRESH_MS: Final = 15 * 60_000
"""Of the clock: a figure that is older says nothing of how busy the brokers are now."""

FIRST_PAUSE_MS: Final = 60_000
LONGEST_PAUSE_MS: Final = 7 * DAY_MS
"""A topic that could not be archived or removed is tried again after a minute, and after twice as long each time, up to this. So what can never be
archived keeps nobody else from going, and the admin log, which is kept for good, does not grow with the ticks."""

URGENT_PAUSE_MS: Final = DAY_MS
"""The longest one while retention has not taken all yet that could be archived."""

_PACE: Final = "gc"


class QueueTag(Enum):
    """What decides how long an orphan stays."""

    RAW = "raw"
    INDICATOR = "indicator"
    TRADE_EXEC = "trade_exec"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long an orphaned queue stays, and whether it goes only if it is archived."""

    ttl_ms: int
    grace_ms: int
    archive: bool

    @property
    def stays_ms(self) -> int:
        return self.ttl_ms + self.grace_ms


KEEPING: Final = {
    QueueTag.RAW: Keeping(7 * DAY_MS, 1 * DAY_MS, False),
    QueueTag.INDICATOR: Keeping(30 * DAY_MS, 3 * DAY_MS, False),
    # The seed has no row for these: as long as they are retained, and never lost.
    QueueTag.TRADE_EXEC: Keeping(90 * DAY_MS, 30 * DAY_MS, True),
    QueueTag.SENTINEL: Keeping(180 * DAY_MS, 30 * DAY_MS, True),
}

_OF_CLASS: Final = {
    TopicClass.RAW: QueueTag.RAW,
    TopicClass.INDICATOR: QueueTag.INDICATOR,
    TopicClass.TRADE_EXEC: QueueTag.TRADE_EXEC,
}


def tag_of(catalogue: Catalogue, queue: Queue) -> QueueTag:
    """A queue to which a version can go back is the sentinels'; any other one is what its class says. A version goes back to the
    present topic of a node, never to one that the node has left."""
    kept = queue.role is not QueueRole.FORMER and catalogue.keepers(queue.node_id)
    return QueueTag.SENTINEL if kept else _OF_CLASS[queue.topic_class]


def stamp(act: Act) -> None:
    """Write down since when queues are orphans and versions over."""
    catalogue, now_ms = act.catalogue, act.at_ms
    for queue in [one for one in catalogue.orphans() if one.orphaned_at_ms is None]:
        catalogue.put_queue(replace(queue, orphaned_at_ms=now_ms), now_ms)
    for sentinel_id in catalogue.past_versions.fresh():
        if (row := catalogue.sentinel(sentinel_id)) is not None:
            catalogue.put_sentinel(replace(row, retired_at_ms=now_ms), now_ms)


def due(catalogue: Catalogue, now_ms: int, *, at_once: bool = False) -> Iterator[tuple[int, Queue]]:
    """The orphans whose time is over, each with the instant at which it was; never one that a version holds, or that is still computed.

    Args:
        at_once: also those that could not be removed lately, whose pause is not over yet.
    """
    for queue in catalogue.orphans():
        since_ms = queue.orphaned_at_ms
        if since_ms is None or _is_in_use(catalogue, queue):
            continue
        keeping = KEEPING[tag_of(catalogue, queue)]
        if keeping.archive and queue.archive is None:
            continue
        stays_until_ms = since_ms + keeping.stays_ms
        turn_ms = max(stays_until_ms, _pauses_until(queue))
        if now_ms >= (stays_until_ms if at_once else turn_ms):
            yield turn_ms, queue


def _is_in_use(catalogue: Catalogue, queue: Queue) -> bool:
    """Whether a worker may still write an orphan, or read it."""
    is_former = queue.role is QueueRole.FORMER
    return catalogue.is_behind(queue.topic) if is_former else catalogue.is_read(queue.node_id)


def unarchived(catalogue: Catalogue, now_ms: int, *, at_once: bool = False) -> Iterator[tuple[int, Queue]]:
    """The orphans that are to be archived and are not, each with the instant from which on; never one that a worker still computes.

    Args:
        at_once: as in `due`.
    """
    for queue in catalogue.orphans():
        since_ms = queue.orphaned_at_ms
        if since_ms is None or queue.archiving or queue.archive is not None:
            continue
        if _is_in_use(catalogue, queue) or not KEEPING[tag_of(catalogue, queue)].archive:
            continue
        turn_ms = max(since_ms, _pauses_until(queue))
        if at_once or now_ms >= turn_ms:
            yield turn_ms, queue


def _pauses_until(queue: Queue) -> int:
    if queue.spared_at_ms is None:
        return 0
    doublings = min(queue.spared - 1, LONGEST_PAUSE_MS.bit_length())
    has_all_until_ms = (queue.orphaned_at_ms or 0) + queue.retention_ms
    is_urgent = queue.archive is None and queue.spared_at_ms < has_all_until_ms
    longest_ms = URGENT_PAUSE_MS if is_urgent else LONGEST_PAUSE_MS
    return queue.spared_at_ms + min(FIRST_PAUSE_MS << doublings, longest_ms)


def note_load(act: Act, percent: int) -> None:
    """Remember how busy the brokers are, and when that was; nothing where nobody has ever measured it."""
    rows = act.step.table("dag.pace")
    now = GcPace(_PACE, percent, act.at_ms)
    if rows.get(_PACE) != now and (percent or rows.get(_PACE) is not None):
        rows.put(now)


def batch_size(act: Act) -> int:
    """How many topics are archived, and how many go, at once: with the first ones, the figure comes that decides on the next.

    Where the load is measured, and the last figure is old, the brokers may be busy.
    """
    pace: GcPace | None = act.step.table("dag.pace").get(_PACE)
    if pace is None:
        return BATCH
    may_be_busy = pace.broker_load_percent > BUSY_PERCENT or act.at_ms > pace.at_ms + FRESH_MS
    return BATCH // 2 if may_be_busy else BATCH


def archive(act: Act, among: frozenset[str] | None = None, *, at_once: bool = False) -> int:
    """Have orphans archived that are to be, a batch at most, in the order in which `collect` takes those that go; returns how many.

    Args:
        among, at_once: as in `collect`.
    """
    for queue in [one for one in act.catalogue.orphans() if one.archive is not None]:
        # A worker that is heard of late may write it: then it is archived anew.
        if _is_in_use(act.catalogue, queue):
            act.catalogue.put_queue(replace(queue, archive=None), act.at_ms)
    chosen = _first(act, unarchived(act.catalogue, act.at_ms, at_once=at_once), among)
    for queue in chosen:
        store(act, queue)
    return len(chosen)


def _first(act: Act, found: Iterable[tuple[int, Queue]], among: frozenset[str] | None) -> list[Queue]:
    mine = [(turn_ms, one) for turn_ms, one in found if among is None or one.node_id in among]
    chosen = nsmallest(batch_size(act), mine, key=lambda pair: (pair[0], pair[1].topic))
    return [queue for _, queue in chosen]


def collect(act: Act, among: frozenset[str] | None = None, *, at_once: bool = False) -> int:
    """Have topics removed that are due, a batch at most, those first whose turn it is for the longest time; returns how many.

    So each one gets its turn, whatever becomes of the others: what could not be removed comes after all that were due before it was
    tried.

    Args:
        among: only those of these nodes; None, of any.
        at_once: as in `due`.
    """
    chosen = _first(act, due(act.catalogue, act.at_ms, at_once=at_once), among)
    for queue in chosen:
        condemn(act, queue, archive=KEEPING[tag_of(act.catalogue, queue)].archive)
    return len(chosen)


def forget_versions(act: Act) -> None:
    """Drop the versions of which nobody needs to know any more, once their time is over: those to which one could go back as soon as no
    queue is theirs alone, and those that failed."""
    due = act.catalogue.past_versions.due(act.at_ms - KEEPING[QueueTag.SENTINEL].stays_ms)
    for sentinel_id in sorted(due):
        version = act.catalogue.sentinel(sentinel_id)
        if version is None or act.catalogue.is_computed(sentinel_id):
            continue
        keeps = () if version.status is SentinelStatus.FAILED else version.node_ids
        if not any(_is_its_own(act.catalogue, node_id) for node_id in keeps):
            _forget(act, version)


def _is_its_own(catalogue: Catalogue, node_id: str) -> bool:
    """Whether the node's queue is still there for the sake of one version alone, which nobody has any more."""
    is_there = catalogue.queue_of(node_id) is not None
    return is_there and not catalogue.is_held(node_id) and catalogue.keepers(node_id) == 1


def _forget(act: Act, version: VersionSentinel) -> None:
    """Drop a version, and leave in the audit what it takes to publish it again: its message stays on the log, under its submission's id."""
    named = f"{version.version} of {version.strategy_id} in {version.world_id}"
    told = f"{named}, commit {version.commit_hash}, submission {version.submission_id}"
    digest = blake3_hex(codec.encode(version))
    act.note(AdminAct.FORGOTTEN, version.sentinel_id, detail=told, digest=digest)
    act.catalogue.drop_sentinel(version, act.at_ms)
    edges = act.step.table("dag.edges")
    for node_id in sorted(set(version.node_ids)):
        edges.delete(Relation.HAS.value, version.sentinel_id, node_id)
