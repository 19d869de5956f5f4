"""The benchmark of trading counts what it measures, and says so where the count is not met."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engine.gauge import Failed
from bench.trading import embedded
from bench.trading.workload import Size
from qmtl.runtime.execution import portfolio


def test_orders_and_money_are_counted_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WARM_UP", 0)
    monkeypatch.setattr(embedded, "AHEAD", 12)

    found = embedded.run(tmp_path, Size(strategies=2, symbols=3, buckets=5))

    assert found["orders"] == 30
    assert found["orders_per_s"] > 0
    assert found["log_alone_orders_per_s"] > 0


def test_money_that_is_not_in_the_fills_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "WARM_UP", 0)
    monkeypatch.setattr(embedded, "AHEAD", 12)
    monkeypatch.setattr(portfolio, "negated", lambda value: value)

    with pytest.raises(Failed, match="the accounts hold"):
        embedded.run(tmp_path, Size(strategies=2, symbols=3, buckets=5))
