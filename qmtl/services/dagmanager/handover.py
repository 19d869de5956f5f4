"""When the versions of a strategy take its traffic over from those before: once every shard computes them, and from a bucket on.

Shards read a row of `dag.strategies` between buckets of their own, so what begins with a row begins on each of them with another bucket. A
row that brings nodes therefore names who has the traffic before (`Split`), and what they need is computed on. Each shard says with which
bucket it has begun (`node.deployments`); from the last of these on all is there, and that is where the traffic changes hands. Nobody waits for
the DAG Manager meanwhile: those before go on. A row is enough by itself, whichever of those before it a reader has missed.

What brings no node, another weight for one, needs none of this: the desk alone decides, between two buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from qmtl.foundation.contracts.dag import (
    AdminAct,
    PlannedNode,
    Split,
    StrategyVersion,
)
from qmtl.foundation.contracts.node import DagReader
from qmtl.foundation.wire.shards import DESK, is_settled, needed_by
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.answers import is_writable


def put(act: Act, row: StrategyVersion) -> None:
    """Write the row of a strategy: with who has its traffic until the row's versions can have it.

    Where a row can't name all of them, its versions have the traffic at once, and the admin log says so.
    """
    known: StrategyVersion | None = act.step.table("dag.strategies").get(row.world_id, row.strategy_id)
    row = replace(row, revision=1 if known is None else known.revision + 1, desk=DESK)
    is_followed = known is not None and known.nodes and row.nodes
    _write(act, replace(row, before=tuple(_before(act, known, row)) if known and is_followed else ()))


def put_again(act: Act, row: StrategyVersion) -> None:
    """Write a row in which nothing has changed but the topics of nodes."""
    _write(act, replace(row, revision=row.revision + 1))


def is_as(known: StrategyVersion | None, row: StrategyVersion) -> bool:
    """Whether a row would say what is known already."""
    return known is not None and known == replace(
        row, revision=known.revision, desk=known.desk, before=known.before
    )


def settle(act: Act, row: StrategyVersion) -> None:
    """Say from which bucket on the versions of a row have the traffic, if every shard computes them now."""
    closed = _closed(act, row)
    if closed is None:
        return
    *before, last = row.before
    until_ms = max([closed, *(one.until_ms or 0 for one in before)])
    act.note(AdminAct.HANDED_OVER, row.sentinel_id, detail=f"after {until_ms}")
    _write(act, replace(row, revision=row.revision + 1, before=(*before, replace(last, until_ms=until_ms))))


def _write(act: Act, row: StrategyVersion) -> None:
    if row.before and not is_writable(row):
        act.note(AdminAct.HANDED_OVER, row.sentinel_id, detail="at once: a row can't name all that there is")
        row = replace(row, before=())
    act.step.table("dag.strategies").put(row)


def _closed(act: Act, row: StrategyVersion, *, first: bool = False) -> int | None:
    """The newest bucket, or the first, that any of the shards of a row had closed when it read it; None where one has not read it."""
    readers = act.step.table("dag.readers")
    found: list[DagReader | None] = [
        readers.get(shard, row.world_id, row.strategy_id) for shard in sorted(needed_by(row))
    ]
    closed = [one.closed_ms for one in found if one is not None and one.revision == row.revision]
    return None if len(closed) < len(found) else min(closed) if first else max(closed)


def _before(act: Act, known: StrategyVersion, row: StrategyVersion) -> Iterator[Split]:
    """Who has the traffic before a row that comes after another one."""
    passed = _closed(act, known, first=True)
    splits = [one for one in known.before if one.until_ms is None or passed is None or one.until_ms > passed]
    own = {one.node_id for one in known.nodes}
    # Where it is not settled, those of the row never had it, and those before go on.
    if is_settled(known) and (known.desk != row.desk or not own.issuperset(one.node_id for one in row.nodes)):
        splits.append(Split(known.sentinel_id, known.signals, known.canary, known.nodes, (), known.desk))
    pool: dict[str, PlannedNode] = {}
    for one in (*known.found, *known.nodes, *(node for split in known.before for node in split.nodes)):
        pool.setdefault(one.node_id, one)
    own.update(node.node_id for one in known.before for node in one.nodes if node.node_id not in one.found)
    mine, others = {one.node_id for one in row.nodes}, {one.node_id for one in row.found}
    for split in splits:
        canarys = () if split.canary is None else split.canary.signals
        ids = [
            node_id
            for node_id in _needed((*split.signals, *canarys), pool)
            if node_id not in mine and (node_id in own or node_id not in others)
        ]
        yield replace(
            split,
            nodes=tuple([pool[node_id] for node_id in ids]),
            found=tuple([node_id for node_id in ids if node_id not in own]),
        )


def _needed(signals: Iterable[str], pool: Mapping[str, PlannedNode]) -> list[str]:
    """What signals are computed from, and they themselves, inputs before the nodes that read them."""
    done: dict[str, None] = {}
    left = list(signals)[::-1]
    while left:
        node_id = left[-1]
        if lacks := [one for one in pool[node_id].dependencies if one not in done]:
            left += lacks[::-1]
            continue
        left.pop()
        done[node_id] = None
    return list(done)
