"""Where the time of a record goes, in the engine and in the hand-written loop, as microseconds per step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bench.engine.throughput import Arena, Contender, Sizes

ORDER: Final = (
    ("poll", "taking records from the client"),
    ("take", "sorting a record in: whose it is, whether it is allowed"),
    ("decode", "bytes to message"),
    ("apply", "the processor's own rule"),
    ("table", "table: get, put, seal"),
    ("emit", "key, partition and bookkeeping of an output"),
    ("encode", "message to bytes"),
    ("produce", "handing a record to the client"),
    ("commit", "offsets, end of the transaction, stamps"),
    ("store", "local store, after the commit"),
    ("step", "the task's own cycle"),
    ("loop", "the loop itself"),
    ("other", "everything else"),
)


def measure(arena: Arena, sizes: Sizes) -> dict[str, dict[str, float]]:
    """One sampled run of both on the input; per step the microseconds of wall time per record.

    What comes before the first record and after the last one's commit is left out.
    """
    out = {}
    for name, kind in (("raw", "loop"), ("ours", "engine")):
        found = arena.run(Contender(f"profile-{name}", kind, sizes.commit_ms), sampled=True)
        out[name] = {
            step: seconds / sizes.records * 1e6 for step, seconds in sorted(found["sampled"].items())
        }
    return out


def table(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The table as Markdown, for ARCHITECTURE.md."""
    names = list(found)
    yield f"| step, µs per record | {' | '.join(names)} |"
    yield f"|---|{'---:|' * len(names)}"
    for step, meaning in ORDER:
        if any(step in found[name] for name in names):
            cells = " | ".join(f"{found[name].get(step, 0.0):.2f}" for name in names)
            yield f"| {step}: {meaning} | {cells} |"
    sums = " | ".join(f"{sum(found[name].values()):.2f}" for name in names)
    yield f"| all | {sums} |"
