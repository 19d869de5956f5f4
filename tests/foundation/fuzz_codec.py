"""A long campaign of damaged records: `python -m tests.foundation.fuzz_codec --mutants 5000000`.

The decoder runs in a child process, so that one that dies by a signal is a count here and not the end of the campaign.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time

from qmtl.foundation.wire.registry import MESSAGES, codec
from tests.foundation.mutants import accepted, corpus, mutant

LONGEST_S = 1.0
GROWTH_MB = 50


def child(mutants: int, seed: int) -> None:
    """Tries the mutants and prints the counts; any exception other than a refusal ends the process."""
    chance = random.Random(seed)
    good = corpus(codec, MESSAGES, 40, chance)
    taken, longest = 0, 0.0
    for _ in range(20_000):  # the allocator's pools fill before memory is measured
        accepted(codec, mutant(good, chance))
    before = _resident_mb()
    for _ in range(mutants):
        data = mutant(good, chance)
        start = time.perf_counter()
        taken += accepted(codec, data)
        longest = max(longest, time.perf_counter() - start)
    figures = {
        "mutants": mutants,
        "accepted": taken,
        "refused": mutants - taken,
        "longest_ms": round(longest * 1e3, 2),
    }
    print(json.dumps({**figures, "rss_mb": _resident_mb(), "rss_growth_mb": _resident_mb() - before}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=5_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.mutants, options.seed)
        return 0
    command = [sys.executable, "-m", "tests.foundation.fuzz_codec", "--child"]
    command += ["--mutants", str(options.mutants), "--seed", str(options.seed)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"exit code {run.returncode}\n{run.stdout}{run.stderr}", end="")
    if run.returncode != 0:
        return 1
    figures = json.loads(run.stdout)
    return int(figures["longest_ms"] > LONGEST_S * 1e3 or figures["rss_growth_mb"] > GROWTH_MB)


def _resident_mb() -> int:
    """The largest resident set so far, MiB (Linux counts it in KiB, macOS in bytes)."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


if __name__ == "__main__":
    sys.exit(main())
