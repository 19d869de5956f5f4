"""When the gate of the cut is open."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.runtime.sdk.watermark import WatermarkGate

buckets = st.integers(0, 10**14)


@pytest.mark.parametrize(
    "mode, enabled", [("simulate", False), ("backtest", False), ("paper", True), ("live", True)]
)
def test_a_mode_says_whether_the_gate_is_there(mode: str, enabled: bool) -> None:
    assert WatermarkGate.for_mode(mode) == WatermarkGate("trade.portfolio", 1, enabled)


@pytest.mark.parametrize("mode", ["", "LIVE", "dryrun", "shadow"])
def test_another_mode_is_refused_by_name(mode: str) -> None:
    with pytest.raises(InvalidValue, match=r"simulate, backtest, paper, live"):
        WatermarkGate.for_mode(mode)


@pytest.mark.parametrize("arguments", [{"lag": 0}, {"lag": -1}, {"lag": True}, {"topic": ""}])
def test_a_gate_that_would_wait_for_itself_or_for_nothing_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue, match="watermark gate"):
        WatermarkGate(**arguments)


@given(st.none() | buckets, buckets)
def test_a_gate_is_ready_when_the_bucket_it_needs_is_closed(closed: int | None, needed: int) -> None:
    assert WatermarkGate().ready(closed, needed) == (closed is not None and closed >= needed)
    assert WatermarkGate(enabled=False).ready(closed, needed)


@given(buckets, st.integers(1, 10), st.integers(1, 86_400))
def test_the_bucket_that_is_needed_lies_lag_intervals_back(bucket_ms: int, lag: int, interval: int) -> None:
    assert WatermarkGate(lag=lag).needed_bucket_ms(bucket_ms, interval) == bucket_ms - lag * interval * 1000
