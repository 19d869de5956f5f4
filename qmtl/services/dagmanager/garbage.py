"""What nobody needs any more: orphaned queues after their time, and versions to which nobody can go back any longer.

Time is that of the clock's ticks, and what a message says of time is not believed: a tick stamps what has become an orphan since the
last one, and counts from there.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from qmtl.services.dagmanager.queues import condemn

BATCH: Final = 50
"""Topics that are condemned at a tick; half of them while the brokers are busy, or may be."""

BUSY_PERCENT: Final = 80
"""Of what the brokers are said to bear, above which they are busy."""

FRESH_MS: Final = 15 * 60_000
"""Of the clock: a figure that is older says nothing of how busy the brokers are now."""

FIRST_PAUSE_MS: Final = 60_000
LONGEST_PAUSE_MS: Final = 7 * DAY_MS
"""A topic that could not be removed is tried again after a minute, and after twice as long each time, up to this. So what can never be
archived keeps nobody else from going, and the admin log, which is kept for good, does not grow with the ticks."""

_PACE: Final = "gc"


class QueueTag(Enum):
    """What decides how long an orphan stays."""

    RAW = "raw"
    INDICATOR = "indicator"
    TRADE_EXEC = "trade_exec"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class Keeping:
    """How long an orphaned queue stays, and whether it is archived before it goes."""

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
        is_former = queue.role is QueueRole.FORMER
        if catalogue.is_behind(queue.topic) if is_former else catalogue.is_read(queue.node_id):
            continue
        if since_ms is None:
            continue
        stays_until_ms = since_ms + KEEPING[tag_of(catalogue, queue)].stays_ms
        turn_ms = max(stays_until_ms, _pauses_until(queue))
        if now_ms >= (stays_until_ms if at_once else turn_ms):
            yield turn_ms, queue


def _pauses_until(queue: Queue) -> int:
    if queue.spared_at_ms is None:
        return 0
    doublings = min(queue.spared - 1, LONGEST_PAUSE_MS.bit_length())
    return queue.spared_at_ms + min(FIRST_PAUSE_MS << doublings, LONGEST_PAUSE_MS)


def note_load(act: Act, percent: int) -> None:
    """Remember how busy the brokers are, and when that was; nothing where nobody has ever measured it."""
    rows = act.step.table("dag.pace")
    now = GcPace(_PACE, percent, act.at_ms)
    if rows.get(_PACE) != now and (percent or rows.get(_PACE) is not None):
        rows.put(now)


def batch_size(act: Act) -> int:
    """How many topics go at once: with the first ones, the figure comes that decides on the next.

    Where the load is measured, and the last figure is old, the brokers may be busy.
    """
    pace: GcPace | None = act.step.table("dag.pace").get(_PACE)
    if pace is None:
        return BATCH
    may_be_busy = pace.broker_load_percent > BUSY_PERCENT or act.at_ms > pace.at_ms + FRESH_MS
    return BATCH // 2 if may_be_busy else BATCH


def collect(act: Act, among: frozenset[str] | None = None, *, at_once: bool = False) -> int:
    """Have topics removed that are due, a batch at most, those first whose turn it is for the longest time; returns how many.

    So each one gets its turn, whatever becomes of the others: what could not be removed comes after all that were due before it was
    tried.

    Args:
        among: only those of these nodes; None, of any.
        at_once: as in `due`.
    """
    found = due(act.catalogue, act.at_ms, at_once=at_once)
    mine = [(turn_ms, one) for turn_ms, one in found if among is None or one.node_id in among]
    chosen = nsmallest(batch_size(act), mine, key=lambda pair: (pair[0], pair[1].topic))
    for _, queue in chosen:
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
