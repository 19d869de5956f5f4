"""Memory and cost over many records: both have to stay as they are after the first few."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.engine import gauge
from bench.engine.gauge import Committed, Course, Failed, Look
from bench.engine.rows import NOTHING, Held, after, rows, snapshot
from bench.engine.topics import last_values, pour
from bench.engine.work import Names, Snapshot, header, trades
from qmtl.bootstrap import open_log
from qmtl.foundation.wire.keys import encode_key

Say = Callable[[str], None]
CYCLE: Final = 100_000


def measure(
    bootstrap: str, prefix: str, place: Path, records: int, keys: int, commit_ms: float, say: Say
) -> dict[str, Any]:
    """Run the engine over so many records, a cycle of fills again and again.

    Raises:
        Failed: it ended or stood still, or its last rows are not the oracle's.
    """
    cycle = min(CYCLE, records)
    times = records // cycle
    total = cycle * times
    names = Names(f"{prefix}long", f"{prefix}fills.long", 1)
    log = open_log(f"kafka://{bootstrap}")
    log.ensure_topics([trades(names.source, 1), *names.specs()])
    log.close()
    say(f"memory: writing {total} fills")
    pour(bootstrap, names.source, 1, cycle, keys, times)
    committed = Committed(bootstrap, names.group, names.source, 1)
    command = gauge.role(
        "engine",
        log=f"kafka://{bootstrap}",
        names={"run": names.run, "source": names.source, "partitions": 1},
        place=str(place / "long"),
        commit_ms=commit_ms,
    )
    told = [0]

    def tell(look: Look) -> None:
        if look.committed >= told[0] + total / 10:
            told[0] = look.committed
            say(f"memory: {look.committed:>10} records, {look.rss_mb:.1f} MB, {look.cpu_s:.1f} s of CPU")

    with gauge.started(command, "memory") as child:
        course = gauge.follow(child, committed, total, tell)
        child.stop()
    committed.close()
    if last_values(bootstrap, names.table, 1) != last_rows(cycle, times, keys):
        raise Failed("memory: the table's last rows are not the oracle's; its figures do not count")
    return {"records": total, "keys": keys, **figures(course, total)}


def last_rows(cycle: int, times: int, keys: int) -> dict[bytes, bytes]:
    """What the table must end with: sums are as many times the sums of one cycle."""
    held: dict[str, Held] = {}
    last = {}
    for one in rows(cycle, keys):
        held[one.symbol] = after(held.get(one.symbol, NOTHING), one)
        last[one.symbol] = one
    front = header(Snapshot)
    return {
        encode_key((symbol,)): snapshot(front, Held(*(part * times for part in held[symbol])), one)
        for symbol, one in last.items()
    }


def figures(course: Course, total: int) -> dict[str, float]:
    """The slope of memory behind the first fifth, and what a record costs in the last tenth against the first one."""
    settled = [look for look in course.looks if look.committed >= total / 5] or course.looks
    first = _tenth(course.looks, 0.0, total / 10)
    last = _tenth(course.looks, total * 0.9, float(total))
    return {
        "rss_mb_at_start": settled[0].rss_mb,
        "rss_mb_at_end": settled[-1].rss_mb,
        "rss_slope_mb_per_million": gauge.slope(
            [look.committed / 1e6 for look in settled], [look.rss_mb for look in settled]
        ),
        "first_tenth_cpu_us": first[0],
        "last_tenth_cpu_us": last[0],
        "last_vs_first_cpu": last[0] / first[0] if first[0] else 0.0,
        "first_tenth_per_s": first[1],
        "last_tenth_per_s": last[1],
        "last_vs_first_time": first[1] / last[1] if last[1] else 0.0,
        "records_per_s": course.rate(),
    }


def _tenth(looks: list[Look], low: float, high: float) -> tuple[float, float]:
    """Microseconds of CPU a record, and records a second, between the outermost looks of a range."""
    inside = [look for look in looks if low <= look.committed <= high]
    if len(inside) < 2:
        return 0.0, 0.0
    one, two = inside[0], inside[-1]
    count = two.committed - one.committed
    return (two.cpu_s - one.cpu_s) / count * 1e6, count / (two.at_s - one.at_s)
