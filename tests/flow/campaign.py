"""A campaign of kills: `python -m tests.flow.campaign --log embedded|kafka --kills N --seed S`, one JSON line per trial.

The last line is the summary. The exit code is 1 if any run differs from an undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from itertools import repeat
from pathlib import Path

from qmtl.testing.broker import any_broker
from tests.flow.driving import Place, Result, embedded, on_kafka, run_demo, write_bars
from tests.flow.kills import Trial, killed_at_random, summary, workers_killed

SPAN_S = {"embedded": 0.8, "kafka": 4.5}
"""Seconds after opening the log; a later kill would mostly meet a run that only prints."""

KILLS_PER_TRIAL = 6
AT_A_TIME = {"embedded": 2, "kafka": 3}


@contextmanager
def place_on(bootstrap: str | None, directory: Path, bars: dict[str, Path]) -> Iterator[Place]:
    """A fresh place, on Kafka where there is a broker."""
    if bootstrap is None:
        yield embedded(directory, bars)
    else:
        with on_kafka(bootstrap, directory, bars) as place:
            yield place


def campaign(
    bootstrap: str | None,
    directory: Path,
    bars: dict[str, Path],
    undisturbed: Result,
    kills: int,
    seed: int,
    tell: Callable[[Trial], None] = lambda trial: None,
    workers: bool = False,
) -> list[Trial]:
    """Trials until so many kills have met their processes alive.

    Args:
        workers: kill single worker processes (on Kafka) instead of whole demos.
    """
    kind = "embedded" if bootstrap is None else "kafka"
    trials: list[Trial] = []

    def run(number: int, most_kills: int) -> Trial:
        rng = random.Random(f"{seed}-{number}")
        with place_on(bootstrap, directory / f"trial-{number}", bars) as place:
            if workers:
                return workers_killed(place, undisturbed, rng, most_kills)
            return killed_at_random(place, undisturbed, rng, most_kills, SPAN_S[kind])

    at_a_time = 1 if workers else AT_A_TIME[kind]
    with ThreadPoolExecutor(at_a_time) as pool:
        while sum(len(trial.kills) for trial in trials) < kills:
            left = kills - sum(len(trial.kills) for trial in trials)
            count = min(4 * at_a_time, -(-left // KILLS_PER_TRIAL))
            each = min(KILLS_PER_TRIAL, -(-left // count))
            for trial in pool.map(run, range(len(trials), len(trials) + count), repeat(each)):
                trials.append(trial)
                tell(trial)
    return trials


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.flow.campaign", description=__doc__)
    parser.add_argument("--log", choices=["embedded", "kafka"], default="embedded")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", action="store_true", help="kill single workers instead of whole runs")
    parser.add_argument("--minutes", type=int, default=400, help="of bars; 4320 are all that is shipped")
    chosen = parser.parse_args()
    if chosen.workers and chosen.log != "kafka":
        parser.error("--workers needs --log kafka")

    def tell(trial: Trial) -> None:
        print(json.dumps(trial.as_json(), sort_keys=True), flush=True)

    with (
        tempfile.TemporaryDirectory(prefix="qmtl-campaign-") as name,
        any_broker() if chosen.log == "kafka" else nullcontext() as bootstrap,
    ):
        directory = Path(name)
        bars = write_bars(directory / "bars", chosen.minutes)
        undisturbed = run_demo(embedded(directory / "undisturbed", bars))
        trials = campaign(
            bootstrap, directory, bars, undisturbed, chosen.kills, chosen.seed, tell, chosen.workers
        )
    found = summary(trials)
    print(json.dumps(found, sort_keys=True))
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
