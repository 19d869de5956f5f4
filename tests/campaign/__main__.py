"""The campaign against the engine: `python -m tests.campaign [--fault NAME…] [--trials K] [--seed N] [--sabotage NAME|all]`.

One JSON line per trial, then a table. Each row carries the command that runs that trial again (`again`): fault, seed, group
protocol (drawn from both, half of them each, unless `--protocol` or QMTL_GROUP_PROTOCOL says otherwise) and scale. `--result`
keeps the figures in a file. With `--sabotage`, each planted bug is looked for in the trials that should find it, and the table says after how many. The
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
from tests.campaign.report import Hunt, keep, of_hunts, of_rows, surroundings, tell, tell_of_hunts
from tests.campaign.sabotage import SABOTAGES
from tests.campaign.trial import PROTOCOLS, Bed, Row, Scale, Trial

QUICK_GROUPS: Final = {
    "group.consumer.session.timeout.ms": "2000",
    "group.consumer.heartbeat.interval.ms": "300",
}
"""For the consumer protocol, whose session the broker decides."""

FOUND_BY: Final[dict[str, tuple[str, ...]]] = {
    "offsets-before-apply": ("point-after_decode", "kill-random"),
    "last-for-next": ("kill-random",),
    "no-fence": ("zombie",),
    "fresh-fence": ("zombie", "drowsy"),
    "producer-reused": ("held-txn_offset_commit", "held-produce", "held-add_offsets_to_txn", "held-end_txn"),
    "unknown-is-done": ("held-end_txn", "held-txn_offset_commit"),
    "aborted-is-done": ("zombie",),
    "store-before-commit": ("point-inside_commit", "point-before_commit"),
    "stage-kept-on-abort": ("zombie",),
    "restore-to-stable": ("open-foreign",),
    "revoked-stays": ("storm", "zombie"),
    "resumed-before-seek": ("answer-end_txn", "held-produce", "held-txn_offset_commit"),
    "uncommitted-read": ("kill-random",),
    "uncommitted-restored": ("point-after_flush", "point-commit_sent"),
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
def bed_for(faults: Sequence[str], directory: Path, transaction_version: int | None = None) -> Iterator[Bed]:
    """A broker of one's own behind a proxy, and three more where a fault needs them.

    Args:
        transaction_version: the level of `transaction.version` of the one broker; None, its newest.
    """
    with ExitStack() as stack:
        proxy = KafkaProxy()
        features = {} if transaction_version is None else {"transaction.version": transaction_version}
        broker = stack.enter_context(
            start_broker(directory / "broker", extra=QUICK_GROUPS, advertise_at=proxy.port, features=features)
        )
        stack.enter_context(proxy.forwarding_to(broker.behind_proxy))
        cluster = None
        if any(FAULTS[name].needs == "cluster" for name in faults):
            cluster = stack.enter_context(start_cluster(directory / "cluster", extra=QUICK_GROUPS))
        yield Bed(broker.bootstrap, broker, proxy, cluster, transaction_version)


def trial(
    bed: Bed, fault: str, seed: int, directory: Path, sabotage: str, scale: Scale, protocol: str = ""
) -> Row:
    row = Trial(bed, FAULTS[fault], seed, directory, sabotage, scale, protocol).run()
    print(json.dumps(asdict(row), sort_keys=True), flush=True)
    return row


def hunt(bed: Bed, sabotage: str, seed: int, directory: Path, scale: Scale, protocol: str = "") -> Hunt:
    """Trials until one finds a planted bug."""
    faults = FOUND_BY[sabotage]
    rows = []
    for number in range(TRIES):
        fault = faults[number % len(faults)]
        row = trial(bed, fault, seed + number, directory, sabotage, scale, protocol)
        if CRASH in row.endings:
            raise RuntimeError(f"{sabotage} does not run: {row.notes}")
        rows.append(row)
        if row.wrong:
            break
    return Hunt(sabotage, tuple(rows))


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
    parser.add_argument("--protocol", choices=PROTOCOLS, default="", help="of the group, in every trial")
    parser.add_argument(
        "--transaction-version", type=int, choices=(0, 1, 2), help="what the broker is formatted with"
    )
    parser.add_argument("--result", type=Path, metavar="FILE.json", help="where the figures are kept")
    chosen = parser.parse_args()
    planted = list(SABOTAGES) if "all" in (chosen.sabotage or ()) else chosen.sabotage or []
    faults = chosen.fault or ([one for name in planted for one in FOUND_BY[name]] or list(FAULTS))
    scale = Scale(chosen.items, chosen.buckets, chosen.seconds)
    about = surroundings(
        scale, chosen.transaction_version
    )  # before the first trial: it names the code that runs
    with ExitStack() as stack:
        directory = chosen.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="qmtl-campaign-"))
        )
        directory.mkdir(parents=True, exist_ok=True)
        bed = stack.enter_context(bed_for(faults, directory, chosen.transaction_version))
        if planted and not chosen.fault:
            hunts = [hunt(bed, name, chosen.seed, directory, scale, chosen.protocol) for name in planted]
            tell_of_hunts(hunts)
            keep(chosen.result, about | of_hunts(hunts))
            return 0 if all(one.found for one in hunts) else 1
        seeds = range(chosen.seed, chosen.seed + chosen.trials)
        asked = [(name, seed, chosen.protocol) for seed in seeds for name in faults]
        bug = planted[0] if planted else ""
        rows = campaign(bed, asked, directory, bug, scale, chosen.at_a_time)
    tell(rows)
    keep(chosen.result, about | of_rows(rows))
    return 1 if any(row.wrong or row.undone for row in rows) else 0


def campaign(
    bed: Bed,
    asked: Sequence[tuple[str, int, str]],
    directory: Path,
    sabotage: str,
    scale: Scale,
    at_a_time: int,
) -> list[Row]:
    """The trials that are asked for, as fault, seed and group protocol (empty: drawn).

    One that kills a broker runs alone, and kills a broker of its own: what that owes a transaction afterwards (`completed`) would
    hide the committed positions of every trial behind it.
    """

    def run(one: tuple[str, int, str]) -> Row:
        fault, seed, protocol = one
        if FAULTS[fault].needs != "broker":
            return trial(bed, fault, seed, directory, sabotage, scale, protocol)
        with bed_for([fault], directory / f"{fault}-{seed}", bed.transaction_version) as own:
            return trial(own, fault, seed, directory, sabotage, scale, protocol)

    alone = [one for one in asked if FAULTS[one[0]].needs in ("broker", "cluster")]
    with ThreadPoolExecutor(at_a_time) as pool:
        rows = list(pool.map(run, [one for one in asked if one not in alone]))
    return rows + [run(one) for one in alone]


if __name__ == "__main__":
    sys.exit(main())
