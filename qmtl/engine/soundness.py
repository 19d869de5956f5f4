"""What of a processor contradicts itself, told before it runs, and again whenever its inputs change."""

from __future__ import annotations

from collections import Counter

from qmtl.engine.processor import Processor
from qmtl.engine.transaction import MARKERS_KEPT
from qmtl.foundation.common.errors import InvalidTopology


def contradictions(processor: Processor, tasks: int) -> list[str]:
    """What of a processor can't work, whatever it reads: it would go wrong at its first restart only."""
    inputs = processor.inputs()
    out = [
        f"{name} is {times} inputs, and how it is read can be said once only"
        for name, times in Counter(one.topic for one in inputs).items()
        if times > 1
    ]
    closed = {spec.name for spec in processor.closes()}
    for one in inputs:
        if one.lag > MARKERS_KEPT:
            out.append(f"{one.topic} is read {one.lag} buckets late, and {MARKERS_KEPT} are kept")
        if one.idle_after and not one.joins:
            out.append(f"{one.topic} may fall idle, but does not join")
        if one.every_ms < 0:
            out.append(f"{one.topic} has buckets of {one.every_ms} ms, and a length is none below 0")
        if one.every_ms and (one.lag or not one.bucketed):
            out.append(f"{one.topic} has buckets of its own length, but is not read by bucket without lag")
        if one.lag and not one.bucketed:
            out.append(f"{one.topic} is read late, but not by bucket")
        if one.bucketed and not processor.tables:
            out.append(f"{one.topic} is read by bucket, and no table keeps which buckets are closed")
        if one.topic in processor.tables and (not one.lag or one.topic not in closed):
            out.append(f"{one.topic} is its own: it can be read late only, and has to be closed")
        if one.broadcast and tasks > 1 and not processor.tables:
            out.append(f"{one.topic} is read by {tasks} tasks, and no table keeps how far each has come")
    return out


def require_sound(processor: Processor, tasks: int) -> None:
    """Hold a processor to what it says of itself now; its inputs may be others than when it was made.

    Raises:
        InvalidTopology: it contradicts itself; all contradictions are named.
    """
    if found := contradictions(processor, tasks):
        raise InvalidTopology(
            f"{processor.name}: {'; '.join(found)}.", "Change its inputs, tables or closes."
        )
