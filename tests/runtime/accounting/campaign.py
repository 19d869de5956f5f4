"""Money conserved over a great many random facts: `make campaign-ledger`.

One journal takes deliveries that come late, twice and corrected, is closed behind itself and restored from snapshots while it goes on. Every
so often, and at the end, its book is compared to the last digit with a plain double entry ledger in integers over the facts that count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from qmtl.runtime.accounting.facts import Fact
from qmtl.runtime.accounting.fold import fold
from qmtl.runtime.accounting.instrument import Costing, Terms
from qmtl.runtime.accounting.journal import Journal
from tests.runtime.accounting.histories import INSTRUMENTS, differences, told

REACH = 200
"""How many facts later something late is told at most."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a campaign has seen; it has met no difference, or it would have ended."""

    seed: int
    costing: str
    facts: int
    deliveries: dict[str, int]
    snapshots: int
    comparisons: int
    numbers: dict[str, int]
    folded_anew: bool
    seconds: float
    deliveries_per_second: int
    digest: str


def run(seed: int, count: int, costing: Costing, every: int, folds: bool, loud: bool = False) -> Verdict:
    """Args:
    count: facts, without what is told again or corrected.
    every: deliveries between two comparisons; at each second one the journal goes on from its own snapshot.
    folds: whether all facts are folded anew at the end.

    Raises:
        AssertionError: two numbers that differ.
    """
    terms = Terms(INSTRUMENTS, costing)
    journal = Journal(terms)
    counting: dict[str, Fact] = {}
    kinds: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    batch: list[Fact] = []
    snapshots = comparisons = 0
    begun = time.perf_counter()
    booking = 0.0
    size = 1

    def compare() -> None:
        nonlocal comparisons
        facts = sorted(counting.values(), key=lambda fact: (fact.at_ms, fact.fact_id))
        numbers.update(differences(journal.book(), facts, terms))
        comparisons += 1

    for at, (kind, fact) in enumerate(told(seed, count, late=0.02, twice=0.02, amended=0.01, reach=REACH), 1):
        kinds[kind] += 1
        known = counting.get(fact.fact_id)
        if known is None or fact.revision > known.revision:
            counting[fact.fact_id] = fact
        batch.append(fact)
        if len(batch) >= size:
            since = time.perf_counter()
            journal.add(batch)
            booking += time.perf_counter() - since
            batch = []
            size = 1 + at % 40
        if at % every == 0:
            journal.add(batch)
            batch = []
            compare()
            if comparisons % 2:
                journal.close(fact.at_ms - 10 * REACH)
                journal = Journal.restored(journal.snapshot(), terms)
                snapshots += 1
            if loud:
                rate = at / (time.perf_counter() - begun)
                print(
                    f"{at:>9} deliveries, {comparisons} comparisons, {rate:,.0f}/s",
                    file=sys.stderr,
                    flush=True,
                )
    journal.add(batch)
    compare()
    if folds:
        assert fold(counting.values(), terms) == journal.book()
    return Verdict(
        seed=seed,
        costing=costing.value,
        facts=count,
        deliveries=dict(sorted(kinds.items())),
        snapshots=snapshots,
        comparisons=comparisons,
        numbers=dict(sorted(numbers.items())),
        folded_anew=folds,
        seconds=round(time.perf_counter() - begun, 1),
        deliveries_per_second=round(kinds.total() / booking) if booking else 0,
        digest=journal.book().digest(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--costing", choices=[one.value for one in Costing], default=Costing.AVERAGE.value)
    parser.add_argument("--compare", type=int, default=250_000, help="deliveries between two comparisons")
    parser.add_argument("--result", type=Path, help="a file for the figures, as JSON")
    said = parser.parse_args()
    verdict = run(said.seed, said.facts, Costing(said.costing), said.compare, folds=True, loud=True)
    text = json.dumps(asdict(verdict), indent=2)
    print(text)
    if said.result is not None:
        said.result.write_text(text + "\n")


if __name__ == "__main__":
    main()
