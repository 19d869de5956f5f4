"""Rows that nobody can need any more, after a time of the clock's ticks: nodes, artifacts, what was decided, readers that read nothing.

A tick begins the time of what has come to be needed by nobody since the last one, and drops that whose time is over: a batch of each
table at a tick at most, and none is looked at before its time. The time is a fact of the log (`SetRetention`), as all that follows from
it is to be the same wherever the log is read again.

What a message says of time decides one thing only: a submission or command of which nothing is known, and that says no later time than
something which was forgotten, may be that very one again. It is refused, as it might put an old version before a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from qmtl.foundation.common.errors import CommandRefused, InvariantBroken, TooLate
from qmtl.foundation.contracts.dag import (
    AdminAct,
    ComputeNode,
    DagCommandOutcome,
    DagOutcome,
    Relation,
)
from qmtl.foundation.contracts.retention import Retention, SetRetention
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager.act import Act, bounded, told_time
from qmtl.services.dagmanager.node_artifacts import used_by
from qmtl.services.dagmanager.outcomes import TABLES

BATCH: Final = 1_000
"""Rows of a table that begin their time at a tick at most, and that go."""

OLD_BATCH: Final = 100
"""Outcomes of versions that did not keep when they were decided, which are written anew at a tick at most: one may name a thousand nodes."""

KEEP_DAYS: Final = 30
"""As long as nobody has said another time."""

LEAST_DAYS: Final = 2
"""So that who says something again the next day is told what became of it."""

MOST_DAYS: Final = 3_650

RETENTION: Final = "retention"
"""The key of its row in `dag.pace`."""


# ---- how long --------------------------------------------------------------------------------------------------------------


def retention(act: Act) -> Retention:
    """How long rows stay, and how far what was decided is forgotten."""
    found: Retention | None = act.step.table("dag.pace").get(RETENTION)
    return Retention(RETENTION, KEEP_DAYS * DAY_MS) if found is None else found


def say(act: Act, message: SetRetention) -> str:
    """Keep rows for so long from now on, those too whose time runs already.

    Raises:
        CommandRefused: it is no time that can be kept.
    """
    if not LEAST_DAYS <= message.keep_days <= MOST_DAYS:
        raise CommandRefused(
            f"keep_days was the number {message.keep_days}; {LEAST_DAYS} to {MOST_DAYS} are required.",
            f"Say {KEEP_DAYS}, as it is where nobody has said anything.",
        )
    known = retention(act)
    keep_ms = message.keep_days * DAY_MS
    act.step.table("dag.pace").put(replace(known, keep_ms=keep_ms))
    already = " already" if known.keep_ms == keep_ms else ""
    return f"what nobody needs is kept for {message.keep_days} days{already}"


def require_in_time(act: Act, said_ms: int) -> None:
    """Hold a message, on which nothing is known to have been decided, to be none of those of which that is forgotten.

    Raises:
        TooLate: it may be one of them.
    """
    until_ms = retention(act).forgotten_until_ms
    if until_ms and said_ms <= until_ms:
        raise TooLate(
            f"the message says that it is of {told_time(bounded(said_ms))}, and what was decided until {told_time(until_ms)} is forgotten:"
            " it may have been decided then.",
            "If it is new, correct the clock of who sent it and say it again.",
        )


def decided_ms(act: Act, said_ms: int) -> int:
    """From when on it is remembered what became of a message: a tick, or a later time that the message says, so that none is forgotten
    that could not be told from a new one by its time."""
    return max(act.at_ms, bounded(said_ms))


# ---- a tick ----------------------------------------------------------------------------------------------------------------


def mind(act: Act) -> dict[str, int]:
    """Begin the time of what nobody needs any more, and drop that whose time is over; returns how many rows went, by table."""
    _begin(act)
    by_ms = act.at_ms - retention(act).keep_ms
    gone = {
        "dag.nodes": sum(1 for _ in _drop_nodes(act, by_ms)),
        "dag.artifacts": _drop_artifacts(act, by_ms),
        **_drop_outcomes(act, by_ms),
        "dag.readers": _drop_readers(act),
    }
    gone = {table: count for table, count in gone.items() if count}
    for table, count in gone.items():
        act.note(AdminAct.EXPIRED, table, detail=str(count))
    return gone


def _begin(act: Act) -> None:
    catalogue, needs = act.catalogue, act.catalogue.needs
    for node_id in needs.idle_nodes.fresh(BATCH):
        catalogue.put_node(replace(_known(act, node_id), unneeded_since_ms=act.at_ms))
    for checksum in needs.idle_artifacts.fresh(BATCH):
        artifact = catalogue.artifact(checksum)
        if artifact is not None:
            needs.put_artifact(replace(artifact, unneeded_since_ms=act.at_ms))
    for table in TABLES:
        for key in catalogue.outcomes.lines[table].fresh(OLD_BATCH):
            row: DagOutcome | DagCommandOutcome = act.step.table(table).get(key)
            catalogue.outcomes.put(replace(row, decided_ms=act.at_ms))


def _drop_nodes(act: Act, by_ms: int) -> Iterator[str]:
    """Drop nodes, with their edges; those that read before those that are read, which may come into line by it."""
    room, edges = BATCH, act.step.table("dag.edges")
    while found := act.catalogue.needs.idle_nodes.due(by_ms, room):
        for node_id in found:
            node = _known(act, node_id)
            for checksum in used_by(node):
                edges.delete(Relation.USED_BY.value, checksum, node_id)
            act.catalogue.drop_node(node)
            yield node_id
        room -= len(found)


def _drop_artifacts(act: Act, by_ms: int) -> int:
    found = act.catalogue.needs.idle_artifacts.due(by_ms, BATCH)
    for checksum in found:
        act.catalogue.needs.drop_artifact(checksum)
    return len(found)


def _drop_outcomes(act: Act, by_ms: int) -> dict[str, int]:
    """Forget what was decided, and keep until when."""
    known, counts = retention(act), {}
    until_ms = known.forgotten_until_ms
    for table in TABLES:
        rows, found = act.step.table(table), act.catalogue.outcomes.lines[table].due(by_ms, BATCH)
        for key in found:
            until_ms = max(until_ms, rows.get(key).decided_ms)
            act.catalogue.outcomes.drop(table, key)
        counts[table] = len(found)
    if until_ms != known.forgotten_until_ms:
        act.step.table("dag.pace").put(replace(known, forgotten_until_ms=until_ms))
    return counts


def _drop_readers(act: Act) -> int:
    found = act.catalogue.silent_readers(BATCH)
    for key in found:
        act.catalogue.drop_reader(key)
    return len(found)


def _known(act: Act, node_id: str) -> ComputeNode:
    found = act.catalogue.node(node_id)
    if found is None:
        raise InvariantBroken(f"node {node_id} is to go and not known.")
    return found
