"""One check of all cheats, which its tests look at from several sides."""

from __future__ import annotations

import pytest

from qmtl import dag_message
from qmtl.backtest.honesty.check import check
from qmtl.backtest.honesty.findings import Report
from tests.backtest.honesty.cheats import Cheats
from tests.backtest.honesty.markets import market


@pytest.fixture(scope="session")
def cheated() -> Report:
    return check([dag_message(Cheats())], market(), cut_count=4, start_count=2)
