"""The campaign in small."""

from __future__ import annotations

import pytest

from qmtl.runtime.accounting.instrument import Costing
from tests.runtime.accounting.campaign import run


@pytest.mark.parametrize("costing", Costing)
def test_money_is_conserved_over_random_facts(costing: Costing) -> None:
    verdict = run(7, 2_000, costing, every=500, folds=True)
    assert verdict.comparisons >= 4
    assert verdict.snapshots >= 2
    assert {"amended", "fact", "late", "twice"} == verdict.deliveries.keys()
    assert {"cash", "contributed", "equity", "fees", "paper", "units"} == verdict.numbers.keys()
    assert run(7, 2_000, costing, every=333, folds=False).digest == verdict.digest
