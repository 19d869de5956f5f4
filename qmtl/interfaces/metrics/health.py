"""Whether a worker does its work: every task that it owns is restored and runs, and it was heard of lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qmtl.engine.observer import TaskId
from qmtl.interfaces.metrics.watch import Phase, Watch

STALE_S: Final = 15.0
"""A worker that has not taken part in its group for so long hangs, or waits for a log that does not answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """How it is.

    Attributes:
        reasons: why it is not ready; empty where it is.
        tasks: what is known of each owned task, as JSON.
    """

    reasons: tuple[str, ...]
    tasks: tuple[dict[str, Any], ...]

    @property
    def ready(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, Any]:
        return {"ready": self.ready, "reasons": list(self.reasons), "tasks": list(self.tasks)}


def health(watch: Watch, stale_s: float = STALE_S) -> Health:
    """How a worker is, as far as it was told; asks nobody."""
    now = watch.clock()
    known = watch.tasks()
    reasons: list[str] = []
    rows: list[dict[str, Any]] = []
    for name, polled in watch.polls().items():
        if polled.at is None:
            reasons.append(f"{name} has not taken part in its group yet")
            continue
        if not polled.tasks:
            reasons.append(f"{name} owns no task: it joins its group, or others have them all")
        for number in sorted(polled.tasks):
            task = TaskId(name, number)
            standing = known.get(task)
            row: dict[str, Any] = {"processor": name, "task": number, "phase": "closed"}
            if standing is None:
                reasons.append(f"{name}[{number}] is not open")
            else:
                row |= {
                    "phase": standing.phase.value,
                    "seconds": round(now - standing.since, 3),
                    "restored": standing.done,
                    "to_restore": standing.total,
                }
                if standing.look is not None:
                    row["bucket_ms"] = standing.look.buckets[-1] if standing.look.buckets else None
                    row["positions"] = {
                        f"{where.topic}[{where.partition}]": offset
                        for where, offset in sorted(standing.look.committed.items())
                    }
                if standing.phase is Phase.RESTORING:
                    reasons.append(
                        f"{name}[{number}] restores its tables: {standing.done} of {standing.total} offsets"
                    )
                if (stall := standing.stall) is not None:
                    stands = round(now - standing.stalled_at, 3)
                    how = (
                        "is kept closed" if standing.phase is Phase.REFUSED else "makes no progress with that"
                    )
                    reasons.append(f"{name}[{number}] {how} for {stands:.0f} s: {stall.what} {stall.remedy}")
                    row["stall"] = {
                        "cause": stall.kind.value,
                        "seconds": stands,
                        "what": stall.what,
                        "remedy": stall.remedy,
                    }
            rows.append(row)
        if now - polled.at > stale_s:
            reasons.append(
                f"{name} took part in its group {now - polled.at:.1f} s ago, the bound is {stale_s:g} s"
            )
    return Health(tuple(reasons), tuple(rows))
