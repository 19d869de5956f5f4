"""On a cluster of Ray's, begun on this machine, a sweep has the results of one process. Only where Ray is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from qmtl.backtest.sweep.job import Setting
from qmtl.backtest.sweep.sweep import engine_of, swept
from qmtl.foundation.common.errors import EngineFailed
from tests.backtest.sweep.authored import Deadly
from tests.backtest.sweep.sweeps import SETTING, bars, csv_of, plan, run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra `ray`)"
)

SOURCE = Setting(SETTING.terms, SETTING.convention, "tests.backtest.sweep.authored:Deadly")


def test_a_cluster_has_the_results_of_one_process(tmp_path: Path) -> None:
    made = plan("fast=3:8:1", "slow=13,20,40", strategy=Deadly)
    engine = engine_of("ray", SOURCE, bars(), 2)
    try:
        spread = swept(made, engine, 2)
    finally:
        engine.close()
    assert csv_of(spread, tmp_path) == csv_of(run(made), tmp_path)


def test_a_cluster_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineFailed, match=r"at 127\.0\.0\.1:1"):
        engine_of("ray", SOURCE, bars(), 1, "127.0.0.1:1")
