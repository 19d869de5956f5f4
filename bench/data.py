"""How fast a catalogue of bars takes a file, is read, and opens behind many commits; beside pyarrow and, where it is installed, pandas reading the same files raw.

`python -m bench.data [--rows N] [--commits N,N,…] [--rounds N] [--out FILE]`. Each figure is the median of the rounds. What was read is held to the fingerprint of
what was written before a figure counts. Raw readers give doubles or unchecked decimals; the catalogue checks the digest of each part and gives whole numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from qmtl.runtime.columns import BarColumns, Scaled
from qmtl.runtime.data.bars import COLUMNS, BarSource, dataset_fingerprint
from qmtl.runtime.data.catalogue import Catalogue, writing
from qmtl.runtime.data.csv_file import FileForm, read_csv
from qmtl.runtime.data.texts import rows_of

SYMBOL: Final = "BTC-USD"
INTERVAL: Final = 60
STEP_MS: Final = INTERVAL * 1000
START_MS: Final = 1_500_000_000_000 // STEP_MS * STEP_MS
SYMBOLS: Final = 10
"""Of the catalogue with many commits; each of these brings the next bars of one."""
BARS_PER_COMMIT: Final = 10


def walk(symbol: str, begin: int, end: int) -> BarColumns:
    """Bars that go up and down, the same each time."""
    at = np.arange(begin, end, dtype=np.int64)
    low = 700_000 + at * 7919 % 90_001
    close = low + at * 31 % 997

    def of(units: Any, places: int = 2) -> Scaled:
        return Scaled(units, places)

    times = START_MS + at * STEP_MS
    return BarColumns(
        symbol, INTERVAL, times, of(low), of(close + 10), of(low), of(close), of(at * 104_729 % 10**10, 8)
    )


def as_csv(path: Path, bars: BarColumns) -> None:
    path.write_bytes((",".join(COLUMNS) + "\n").encode() + rows_of(bars))


def median_s(rounds: int, once: Callable[[], Any]) -> float:
    """Seconds of one call."""
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        once()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def not_durable() -> AbstractContextManager[object]:
    """A catalogue that is thrown away need not survive a loss of power: what is measured is not the disk."""
    return patch.object(os, "fsync")


def speeds(place: Path, rows: int, rounds: int) -> dict[str, float]:
    """Rows a second."""
    bars = walk(SYMBOL, 0, rows)
    csv = place / "bars.csv"
    as_csv(csv, bars)
    taken = iter(range(rounds + 1))

    def imported() -> None:
        with writing(place / f"c{next(taken)}") as writer:
            chunks = read_csv(csv, SYMBOL, INTERVAL, FileForm())
            writer.add(SYMBOL, INTERVAL, chunks, {"kind": "bench"})

    seconds = {"import_csv": median_s(rounds, imported)}
    catalogue = Catalogue(place / "c0")
    if catalogue.fingerprint([SYMBOL], INTERVAL) != dataset_fingerprint([BarSource(SYMBOL, csv)]):
        raise AssertionError("what was read is not what was written")
    middle = (START_MS + rows // 2 * STEP_MS, START_MS + (rows // 2 + rows // 100) * STEP_MS)
    seconds["read_whole"] = median_s(rounds, lambda: Catalogue(place / "c0").columns(SYMBOL, INTERVAL))
    seconds["fingerprint"] = median_s(rounds, lambda: catalogue.fingerprint([SYMBOL], INTERVAL))
    paths = [str(path) for path in sorted((place / "c0").glob("bars/*/*/*.parquet"))]
    pq, arrow_csv = import_module("pyarrow.parquet"), import_module("pyarrow.csv")
    seconds["pyarrow_csv"] = median_s(rounds, lambda: arrow_csv.read_csv(csv))
    seconds["pyarrow_parquet"] = median_s(rounds, lambda: [pq.read_table(path) for path in paths])
    with suppress(ModuleNotFoundError):
        pandas = import_module("pandas")
        seconds["pandas_csv"] = median_s(rounds, lambda: pandas.read_csv(csv))
        seconds["pandas_parquet"] = median_s(rounds, lambda: [pandas.read_parquet(path) for path in paths])
    out = {name: round(rows / found) for name, found in seconds.items()}
    ranged = median_s(rounds, lambda: Catalogue(place / "c0").columns(SYMBOL, INTERVAL, *middle))
    return {**out, "read_range_of_1_percent_ms": round(ranged * 1000, 2)}


def filled(place: Path, begin: int, end: int) -> float:
    """Brings these commits, each with the next bars of one symbol; milliseconds for one."""
    begun = time.perf_counter()
    with not_durable(), writing(place) as writer:
        for number in range(begin, end):
            first = number // SYMBOLS * BARS_PER_COMMIT
            bars = walk(f"S{number % SYMBOLS}", first, first + BARS_PER_COMMIT)
            writer.add(bars.symbol, INTERVAL, [bars], {"kind": "bench"})
    return 1000 * (time.perf_counter() - begun) / (end - begin)


def behind(place: Path, count: int, rounds: int) -> dict[str, float]:
    """Milliseconds of what is asked of a catalogue with so many commits."""
    opened, half = Catalogue(place), max(1, count // 2)
    found = opened.columns("S0", INTERVAL, as_of=half).open_time_ms
    expected = -(-half // SYMBOLS) * BARS_PER_COMMIT
    if len(found) != expected or int(found[-1]) != START_MS + (expected - 1) * STEP_MS:
        raise AssertionError("as of an earlier commit other bars were read")
    end_ms = opened.find("S0", INTERVAL).to_ms + STEP_MS
    last = (end_ms - BARS_PER_COMMIT * STEP_MS, end_ms)
    out = {
        "open": median_s(rounds, lambda: Catalogue(place).commits()),
        "list": median_s(rounds, opened.series),
        "list_as_of_half": median_s(rounds, lambda: opened.series(half)),
        "read_one_symbol": median_s(rounds, lambda: opened.columns("S0", INTERVAL)),
        "read_last_bars": median_s(rounds, lambda: opened.columns("S0", INTERVAL, *last)),
    }
    pack = place / "journal" / "commits.jsonl"
    pack.rename(place / "pack")
    out["open_without_pack"] = median_s(rounds, lambda: Catalogue(place).commits())
    (place / "pack").rename(pack)
    return {name: round(seconds * 1000, 3) for name, seconds in out.items()}


def commits(place: Path, counts: list[int], rounds: int) -> list[dict[str, float]]:
    """For each number of commits, milliseconds."""
    out = []
    made = 0
    for count in sorted(counts):
        added_ms = filled(place, made, count)
        made = count
        out.append({"commits": count, "import": round(added_ms, 3), **behind(place, count, rounds)})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--commits", default="1,100,1000,10000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qmtl-bench-data-") as directory:
        found = {
            "machine": {"platform": platform.platform(), "processors": os.cpu_count()},
            "versions": {name: version(name) for name in ("pyarrow", "numpy")},
            "rows": asked.rows,
            "rows_per_s": speeds(Path(directory), asked.rows, asked.rounds),
            "commits_ms": commits(
                Path(directory) / "many", [int(one) for one in asked.commits.split(",")], asked.rounds
            ),
        }
    for name, value in found["rows_per_s"].items():
        print(f"{name:32} {value:>14,}")
    for row in found["commits_ms"]:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()))
    if asked.out is not None:
        asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
