"""What of a processor contradicts itself, told before it runs."""

from __future__ import annotations

from qmtl.engine.processor import Processor
from qmtl.engine.transaction import MARKERS_KEPT


def contradictions(processor: Processor, tasks: int) -> list[str]:
    """What of a processor can't work, whatever it reads: it would go wrong at its first restart only."""
    out = []
    closed = {spec.name for spec in processor.closes()}
    for one in processor.inputs():
        if one.lag > MARKERS_KEPT:
            out.append(f"{one.topic} is read {one.lag} buckets late, and {MARKERS_KEPT} are kept")
        if one.idle_after and not one.joins:
            out.append(f"{one.topic} may fall idle, but does not join")
        if one.lag and not one.bucketed:
            out.append(f"{one.topic} is read late, but not by bucket")
        if one.bucketed and not processor.tables:
            out.append(f"{one.topic} is read by bucket, and no table keeps which buckets are closed")
        if one.topic in processor.tables and (not one.lag or one.topic not in closed):
            out.append(f"{one.topic} is its own: it can be read late only, and has to be closed")
        if one.broadcast and tasks > 1 and not processor.tables:
            out.append(f"{one.topic} is read by {tasks} tasks, and no table keeps how far each has come")
    return out
