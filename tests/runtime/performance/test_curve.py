"""The equity curve and the figures of a run: counted anew bucket by bucket, and laws of scale and sign."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Fill, Side
from qmtl.runtime.performance.curve import EquityCurve, curve_of
from qmtl.runtime.performance.kpi import Convention, Performance, Unit, performance_of
from qmtl.runtime.performance.result import RunResult
from qmtl.runtime.performance.trades import Matching
from tests.runtime.performance.runs import MINUTE_MS, columns, fill, larger, result

BUY, SELL = Side.BUY, Side.SELL


@st.composite
def runs(draw: st.DrawFn) -> RunResult:
    """Two symbols, the second one begins later; small positions beside much cash."""
    n = draw(st.integers(2, 12))
    prices = st.lists(st.integers(50, 150), min_size=n, max_size=n)
    late = draw(st.integers(0, n - 1))
    bars = [columns("AAA", draw(prices)), columns("BBB", draw(prices)[late:], late * MINUTE_MS)]
    fills = []
    for minute in range(n):
        if draw(st.booleans()):
            symbol, side = draw(st.sampled_from(("AAA", "BBB"))), draw(st.sampled_from((BUY, SELL)))
            price = draw(st.integers(50, 150))
            fills.append(fill(symbol, minute, side, str(draw(st.integers(1, 4))), str(price), "0.25"))
    return result(fills, bars, "10000")


def counted(run: RunResult, close_ms: int) -> tuple[Decimal, Decimal]:
    """Equity and exposure of one bucket, from all that came before its close."""
    cash, exposure = run.settings.initial_cash, Decimal(0)
    before = [one for one in run.fills if one.fill_time_ms < close_ms]
    for one in before:
        cash -= (1 if one.side is BUY else -1) * one.quantity * one.price + one.fee
    equity = cash
    for bars in run.bars:
        own = [one for one in before if one.symbol == bars.symbol]
        closes = [bar.close for bar in bars.bars() if bar.open_time_ms + MINUTE_MS <= close_ms]
        mark = closes[-1] if closes else own[-1].price if own else Decimal(0)
        value = mark * sum((one.quantity if one.side is BUY else -one.quantity for one in own), Decimal(0))
        equity, exposure = equity + value, exposure + abs(value)
    return equity, exposure


@settings(max_examples=25)
@given(runs())
def test_each_bucket_is_worth_what_is_counted(run: RunResult) -> None:
    curve = run.curve
    told = [counted(run, at) for at in curve.bucket_ms.tolist()]
    assert np.allclose(curve.equity, [float(one) for one, _ in told], rtol=1e-12)
    assert np.allclose(curve.exposure, [float(one) for _, one in told], rtol=1e-12)
    assert curve.final == told[-1][0]
    assert curve.initial == run.settings.initial_cash


@settings(max_examples=25)
@given(runs(), st.integers(2, 50))
def test_more_cash_and_as_much_more_traded_scale_money_and_leave_ratios(run: RunResult, times: int) -> None:
    grown = result([larger(one, times) for one in run.fills], run.bars, str(10_000 * times))
    for one, other in zip(performance_of(run).figures, performance_of(grown).figures, strict=True):
        assert one.name == other.name
        if one.value is None or other.value is None:
            assert one.value == other.value, one.name
        elif one.unit is Unit.MONEY:
            assert math.isclose(one.value * times, other.value, rel_tol=1e-9, abs_tol=1e-9), one.name
        else:
            assert math.isclose(one.value, other.value, rel_tol=1e-6, abs_tol=1e-9), one.name


@settings(max_examples=25)
@given(runs())
def test_a_drawdown_is_never_above_nothing_and_lies_within_the_run(run: RunResult) -> None:
    curve, found = run.curve, performance_of(run)
    assert float(curve.drawdowns().max()) <= 0
    deepest = curve.deepest()
    value = found["max_drawdown"].value
    assert value is not None
    assert value <= 0
    if deepest is None:
        assert value == 0
        assert curve.under_water_ms() == 0
        return
    worst = min(b / a - 1 for at, b in enumerate(curve.values) for a in curve.values[: at + 1])
    assert math.isclose(worst, deepest.depth, rel_tol=1e-9)
    assert curve.start_ms <= deepest.peak_ms < deepest.trough_ms <= int(curve.bucket_ms[-1])
    assert deepest.recovered_ms is None or deepest.recovered_ms > deepest.trough_ms
    assert curve.under_water_ms() >= deepest.trough_ms - deepest.peak_ms


def test_a_run_by_hand() -> None:
    """10 bought at 100, closes 110, 99, 99, sold at 120: 1000, 1100, 990, 990, 1200 less fees of 1 each."""
    bars = [columns("AAA", [110, 99, 99, 120, 120])]
    run = result([fill("AAA", 0, BUY, "10", "100", "1"), fill("AAA", 3, SELL, "10", "120", "1")], bars)
    found = performance_of(run)
    assert run.curve.equity.tolist() == [1099.0, 989.0, 989.0, 1198.0, 1198.0]
    expected = {
        "net_profit": Decimal(198),
        "total_return": 0.198,
        "max_drawdown": 989 / 1099 - 1,
        "drawdown_from": MINUTE_MS,
        "drawdown_to": 2 * MINUTE_MS,
        "drawdown_recovered": 4 * MINUTE_MS,
        "longest_drawdown": 3 * MINUTE_MS,
        "time_in_market": 0.6,
        "longest_flat": 2 * MINUTE_MS,
        "turnover": 2200 / ((1099 + 989 * 2 + 1198 * 2) / 5),
        "trades": 1,
        "hit_rate": 1.0,
        "profit_factor": None,
        "expectancy": Decimal(198),
        "average_loss": None,
        "average_held": 3 * MINUTE_MS,
        "fees": Decimal(2),
        "slippage": Decimal("0.2"),
        "held_return": 120 / 110 - 1,
    }
    told = {name: found[name].value for name in expected}
    assert told == pytest.approx(expected)
    assert all(one.formula for one in found.figures)


def test_months_are_those_of_utc_and_midnight_belongs_to_the_day_before() -> None:
    day = 86_400_000
    curve = EquityCurve(
        0, np.array([31 * day, 32 * day, 60 * day]), np.array([110.0, 121.0, 60.5]), np.zeros(3), Decimal(100), Decimal("60.5")
    )  # fmt: skip
    run = RunResult("s", "w", (), 86_400, result([], [columns("A", [1, 1])]).settings, (), (), (), curve)
    months = performance_of(run).months
    assert [(one.year, one.month, round(one.value, 12)) for one in months] == [
        (1970, 1, 0.1),
        (1970, 2, 0.1),
        (1970, 3, -0.5),
    ]


def test_conventions_change_what_they_say_and_nothing_else() -> None:
    bars = [columns("AAA", [100 + (at * 7) % 13 for at in range(300)])]
    run = result([fill("AAA", 0, BUY, "5", "100")], bars)
    usual = performance_of(run)
    changed = {
        "ddof": Convention(ddof=0),
        "log": Convention(returns="log"),
        "rate": Convention(risk_free=0.05),
        "days": Convention(periods_per_year=252),
        "period": Convention(period=600),
        "matching": Convention(matching=Matching.AVERAGE),
    }
    found = {name: performance_of(run, one) for name, one in changed.items()}

    def value(one: Performance, name: str) -> float:
        told = one[name].value
        assert told is not None
        return float(told)

    assert found["ddof"]["volatility"].value == pytest.approx(
        value(usual, "volatility") * math.sqrt(299 / 300)
    )
    assert found["days"]["volatility"].value == pytest.approx(
        value(usual, "volatility") * math.sqrt(252 / 525_600)
    )
    assert value(found["rate"], "sharpe") < value(usual, "sharpe")
    assert found["log"]["volatility"].value != usual["volatility"].value
    assert "600 s, 52560 periods" in found["period"]["sharpe"].formula
    for one in found.values():
        assert one["total_return"] == usual["total_return"]
        assert one["max_drawdown"] == usual["max_drawdown"]


def test_where_equity_was_lost_ratios_are_undefined() -> None:
    run = result([fill("AAA", 0, BUY, "100", "100")], [columns("AAA", [100, 80, 120])])
    found = performance_of(run)
    assert run.curve.equity.min() < 0
    assert {
        found[name].value for name in ("cagr", "sharpe", "sortino", "calmar", "volatility", "var_95")
    } == {None}
    assert found["net_profit"].value == 2000
    assert found.months == ()


def test_a_run_without_fills_has_undefined_figures_and_no_error() -> None:
    found = performance_of(result([], [columns("AAA", [100, 101])]))
    assert found["trades"].value == 0
    assert found["hit_rate"].value is None
    assert found["sharpe"].value is None
    assert found["max_drawdown"].value == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: curve_of(Decimal(1), [], [], 60),
        lambda: curve_of(Decimal(1), [fill("BBB", 0, BUY, "1", "1")], [columns("AAA", [1])], 60),
        lambda: curve_of(Decimal(1), [fill("AAA", 1, BUY, "1", "1")], [columns("AAA", [2])], 60),
        lambda: EquityCurve(0, np.array([2, 1]), np.ones(2), np.ones(2), Decimal(1), Decimal(1)),
        lambda: EquityCurve(0, np.array([1]), np.array([np.nan]), np.ones(1), Decimal(1), Decimal(1)),
        lambda: EquityCurve(0, np.array([1]), np.ones(2), np.ones(1), Decimal(1), Decimal(1)),
        lambda: Convention(ddof=2),
        lambda: Convention(period=0),
        lambda: Convention(risk_free=-1.0),
        lambda: Convention(periods_per_year=0.0),
    ],
)
def test_what_is_no_curve_and_no_convention_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        wrong()


@pytest.mark.parametrize("period", [30, 90])
def test_a_return_covers_whole_bars(period: int) -> None:
    with pytest.raises(InvalidValue, match="multiple"):
        performance_of(result([], [columns("AAA", [100, 101])]), Convention(period=period))


def test_fills_are_looked_up_by_time_not_by_place() -> None:
    bars = [columns("AAA", [100, 110, 120])]
    fills: list[Fill] = [fill("AAA", 1, SELL, "1", "105"), fill("AAA", 0, BUY, "1", "99")]
    assert result(fills, bars).curve.equity.tolist() == [1001.0, 1006.0, 1006.0]
