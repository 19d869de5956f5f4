"""The campaign against the engine: `python -m tests.campaign [--fault NAME…] [--trials K] [--seed N] [--sabotage NAME|all]`.

One JSON line per trial, then a table. Each row names its fault and seed, and `--fault NAME --seed N` runs that trial again.
With `--sabotage`, each planted bug is looked for in the trials that should find it, and the table says after how many. The
exit code is 1 if a trial found anything, or if a planted bug was found by none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

from qmtl.testing.broker import start_broker
from qmtl.testing.cluster import start_cluster
from qmtl.testing.proxy import KafkaProxy
from tests.campaign.faults import FAULTS
from tests.campaign.sabotage import SABOTAGES
from tests.campaign.trial import Bed, Row, Scale, Trial, parts

QUICK_GROUPS: Final = {
    "group.consumer.session.timeout.ms": "2000",
    "group.consumer.heartbeat.interval.ms": "300",
}
"""For the consumer protocol, whose session the broker decides."""

FOUND_BY: Final[dict[str, tuple[str, ...]]] = {
    "offsets-before-apply": ("point-after_decode", "kill-random"),
    "last-for-next": ("kill-random",),
    "no-fence": ("zombie",),
    "fresh-fence": ("drowsy", "zombie"),
    "producer-reused": ("held-txn_offset_commit", "held-produce", "held-add_offsets_to_txn", "held-end_txn"),
    "unknown-is-done": ("held-end_txn", "held-txn_offset_commit"),
    "aborted-is-done": ("zombie",),
    "store-before-commit": ("point-inside_commit", "point-before_commit"),
    "stage-kept-on-abort": ("zombie",),
    "restore-to-stable": ("open-foreign",),
    "revoked-stays": ("storm", "zombie"),
    "resumed-before-seek": ("zombie",),
    "uncommitted-read": ("kill-random",),
    "uncommitted-restored": ("point-inside_commit", "kill-all"),
    "no-marker-when-empty": ("kill-random",),
    "tombstones-ignored": ("kill-all",),
    "latest-for-cut": ("kill-random",),
    "merged-by-arrival": ("kill-random",),
    "random-id": ("twins", "point-inside_commit"),
}
"""The faults that should show each planted bug, the likeliest first."""

TRIES: Final = 12
CRASH: Final = "exit 1"
"""A worker that dies of an error without a code: what was planted does not fit the engine any more, and finds nothing."""


@contextmanager
def bed_for(faults: Sequence[str], directory: Path) -> Iterator[Bed]:
    """A broker of one's own behind a proxy, and three more where a fault needs them."""
    with ExitStack() as stack:
        proxy = KafkaProxy()
        broker = stack.enter_context(
            start_broker(directory / "broker", extra=QUICK_GROUPS, advertise_at=proxy.port)
        )
        stack.enter_context(proxy.forwarding_to(broker.behind_proxy))
        cluster = None
        if any(FAULTS[name].needs == "cluster" for name in faults):
            cluster = stack.enter_context(start_cluster(directory / "cluster", extra=QUICK_GROUPS))
        yield Bed(broker.bootstrap, broker, proxy, cluster)


def trial(bed: Bed, fault: str, seed: int, directory: Path, sabotage: str, scale: Scale) -> Row:
    row = Trial(bed, FAULTS[fault], seed, directory, sabotage, scale).run()
    print(json.dumps(asdict(row), sort_keys=True), flush=True)
    return row


def hunt(bed: Bed, sabotage: str, seed: int, directory: Path, scale: Scale) -> tuple[int, str, str]:
    """Trials until one finds a planted bug: how many, the fault, and what was wrong; the fault is empty where none did."""
    faults = FOUND_BY[sabotage]
    for number in range(TRIES):
        fault = faults[number % len(faults)]
        row = trial(bed, fault, seed + number, directory, sabotage, scale)
        if CRASH in row.endings:
            raise RuntimeError(f"{sabotage} does not run: {row.notes}")
        if row.wrong:
            return number + 1, fault, ", ".join(f"{kind} {count}" for kind, count in row.wrong.items())
    return TRIES, "", ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "--fault", action="append", choices=list(FAULTS), help="only this one; may be given again"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=1, help="of each fault, with the seeds that follow")
    parser.add_argument("--sabotage", action="append", choices=[*SABOTAGES, "all"], help="plant a bug")
    parser.add_argument("--at-a-time", type=int, default=1, help="trials that run side by side")
    parser.add_argument("--items", type=int, default=Scale().items)
    parser.add_argument("--buckets", type=int, default=Scale().buckets)
    parser.add_argument(
        "--seconds", type=float, default=Scale().seconds, help="over which the input is spread"
    )
    parser.add_argument(
        "--keep", type=Path, help="where the files of trials lie; those of good ones are removed"
    )
    chosen = parser.parse_args()
    planted = list(SABOTAGES) if "all" in (chosen.sabotage or ()) else chosen.sabotage or []
    faults = chosen.fault or ([one for name in planted for one in FOUND_BY[name]] or list(FAULTS))
    scale = Scale(chosen.items, chosen.buckets, chosen.seconds)
    with ExitStack() as stack:
        directory = chosen.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="qmtl-campaign-"))
        )
        directory.mkdir(parents=True, exist_ok=True)
        bed = stack.enter_context(bed_for(faults, directory))
        if planted and not chosen.fault:
            hunts = {name: hunt(bed, name, chosen.seed, directory, scale) for name in planted}
            print(f"\n{'planted bug':22} {'trials':>6}  found by")
            for name, (tried, fault, wrong) in hunts.items():
                print(f"{name:22} {tried:6}  {f'{fault}: {wrong}' if fault else 'NOBODY'}")
            return 0 if all(fault for _, fault, _ in hunts.values()) else 1
        asked = [(name, seed) for seed in range(chosen.seed, chosen.seed + chosen.trials) for name in faults]
        rows = campaign(bed, asked, directory, planted[0] if planted else "", scale, chosen.at_a_time)
    return tell(rows)


def campaign(
    bed: Bed, asked: Sequence[tuple[str, int]], directory: Path, sabotage: str, scale: Scale, at_a_time: int
) -> list[Row]:
    """The trials that are asked for, as fault and seed. One that kills a broker runs alone."""

    def run(one: tuple[str, int]) -> Row:
        return trial(bed, one[0], one[1], directory, sabotage, scale)

    alone = [one for one in asked if FAULTS[one[0]].needs in ("broker", "cluster")]
    with ThreadPoolExecutor(at_a_time) as pool:
        rows = list(pool.map(run, [one for one in asked if one not in alone]))
    return rows + [run(one) for one in alone]


def tell(rows: Sequence[Row]) -> int:
    """The table; 1 if anything was wrong or could not be tried."""
    print(
        f"\n{'fault':26} {'trials':>6} {'kills':>6} {'undone':>6} {'broker':>6} {'wrong':>6} {'silence s':>9}"
    )
    for name, one in parts(rows).items():
        print(
            f"{name:26} {one['trials']:6} {one['kills']:6} {one['undone']:6} {one['broker']:6} {one['wrong']:6} {one['silence_s']:9.1f}"
        )
    judged = sum(not (row.undone or row.broker) for row in rows)
    bad = [row for row in rows if row.wrong]
    bound = f"; at most {min(100.0, 300 / judged):.1f} % fail, by 95 %" if judged and not bad else ""
    print(f"{judged} trials judged, {len(bad)} with a finding{bound}")
    for row in rows:
        if row.broker:
            print(
                f"set aside: --fault {row.fault} --seed {row.seed}: the broker broke its word: {row.broker}"
            )
    return 1 if bad or any(row.undone for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
