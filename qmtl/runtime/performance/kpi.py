"""The figures of a run: each with its formula, its convention and its source, and without a value where it is undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final, Literal

import numpy as np

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import negated, total
from qmtl.runtime.columns import BarColumns, Floats, Integers
from qmtl.runtime.performance import ratios
from qmtl.runtime.performance.curve import EquityCurve
from qmtl.runtime.performance.result import RunResult
from qmtl.runtime.performance.trades import (
    Matching,
    Trades,
    hit_rate,
    mean_profit,
    profit_factor,
    slippage_paid,
    traded_value,
    trades_of,
)

SECONDS_PER_YEAR: Final = 365 * 86_400
"""A year of a market that never closes; for one that does, give the periods per year."""

LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Convention:
    """How figures are computed where people differ.

    Attributes:
        period: seconds that one return covers; the curve is sampled at its last bucket of each. None for each bucket.
        periods_per_year: of such returns; None for `SECONDS_PER_YEAR / period`. 252 for days of a stock exchange.
        risk_free: return per year, made one per period by `(1 + rf) ** (1 / periods_per_year) - 1`.
        returns: of what volatility, Sharpe, Sortino, skewness, kurtosis and VaR are: simple, or `log(1 + r)`.
        ddof: 1 for the deviation of a sample, 0 for that of the population.
        annual: as in `qmtl.runtime.performance.ratios.Annual`; `mean` gives Lean's return and Sharpe ratio.
        matching: which cost a closed part of a position takes with it.
    """

    period: int | None = None
    periods_per_year: float | None = None
    risk_free: float = 0.0
    returns: Literal["simple", "log"] = "simple"
    ddof: int = 1
    annual: ratios.Annual = "geometric"
    matching: Matching = Matching.FIFO

    def __post_init__(self) -> None:
        if self.period is not None and self.period <= 0:
            raise InvalidValue(f"period was {self.period}; seconds above 0 are required.", "Send seconds.")
        if self.periods_per_year is not None and not 0 < self.periods_per_year < 1e9:
            raise InvalidValue(
                f"periods_per_year was {self.periods_per_year}; a number above 0 is required.",
                "252 are the days of a stock exchange.",
            )
        if not -1 < self.risk_free < 100:
            raise InvalidValue(
                f"risk_free was {self.risk_free}; a share per year above -1 is required.", "0.05 is 5 %."
            )
        if self.ddof not in (0, 1):
            raise InvalidValue(f"ddof was {self.ddof}; it is 0 or 1.", "1 is a sample's.")


class Unit(Enum):
    """What a value counts."""

    SHARE = "share"
    NUMBER = "number"
    MONEY = "money"
    COUNT = "count"
    DURATION = "ms"
    INSTANT = "epoch ms"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        value: exact where it is money; None where it is undefined.
        formula: of what it is computed, with its convention.
        source: who defined it; empty for what needs nobody.
    """

    name: str
    title: str
    value: Decimal | float | int | None
    unit: Unit
    formula: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class MonthReturn:
    """The return within one month of UTC."""

    year: int
    month: int
    value: float


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """All that is said of a run.

    Attributes:
        convention: with the period and the periods per year that were meant.
        months: ascending; empty where equity was 0 or below.
        benchmark: growth of 1 held in equal parts in all symbols from their first close on, at `result.curve.bucket_ms`; None without bars.
    """

    convention: Convention
    figures: tuple[Figure, ...]
    months: tuple[MonthReturn, ...]
    trades: Trades
    benchmark: Floats | None

    def __getitem__(self, name: str) -> Figure:
        return next(one for one in self.figures if one.name == name)


def performance_of(
    result: RunResult, convention: Convention | None = None, *, excursions: bool = True
) -> Performance:
    """The figures of a run.

    Args:
        excursions: whether trades have `mae` and `mfe`, which no figure needs, and which take half of the time of trades.

    Raises:
        InvalidValue: fills that make no trades (`trades_of`), or a period that is no multiple of the interval.
    """
    wanted = convention or Convention()
    period = wanted.period or result.interval
    if period % result.interval:
        raise InvalidValue(
            f"period was {period} s; it is a multiple of the bars' {result.interval} s.",
            "Give another period.",
        )
    meant = Convention(
        period,
        wanted.periods_per_year or SECONDS_PER_YEAR / period,
        wanted.risk_free,
        wanted.returns,
        wanted.ddof,
        wanted.annual,
        wanted.matching,
    )
    trades = trades_of(result.fills, meant.matching, result.bars if excursions else ())
    benchmark = held_growth(result.bars, result.curve.bucket_ms)
    curve = result.curve if period == result.interval else result.curve.sampled(period * 1000)
    figures = (
        *_of_curve(curve, meant),
        *_of_falls(result.curve),
        *_of_exposure(result),
        *_of_trades(result, trades),
        *_of_benchmark(result.curve, curve, benchmark),
    )
    return Performance(meant, figures, month_returns(result.curve), trades, benchmark)


def held_growth(bars: Sequence[BarColumns], bucket_ms: Integers) -> Floats | None:
    """The growth of 1 held in equal parts in all symbols: the mean of `close / first close`, 1 before it; None without bars."""
    held = [one for one in bars if len(one)]
    if not held or not len(bucket_ms):
        return None
    grown = np.zeros(len(bucket_ms))
    for one in sorted(held, key=lambda columns: columns.symbol):
        closes = one.close.floats()
        at = np.searchsorted(one.bucket_ms, bucket_ms, side="right") - 1
        grown += np.where(at < 0, 1.0, closes[np.maximum(at, 0)] / closes[0])
    return grown / len(held)


def month_returns(curve: EquityCurve) -> tuple[MonthReturn, ...]:
    """The returns within each month of UTC; what ends at midnight belongs to the day before."""
    returns = curve.returns()
    if returns is None:
        return ()
    months, values = ratios.compounded(curve.bucket_ms, returns, "M")
    return tuple(
        MonthReturn(1970 + month // 12, month % 12 + 1, value)
        for month, value in zip(months.tolist(), values.tolist(), strict=True)
    )


def _of_curve(curve: EquityCurve, convention: Convention) -> list[Figure]:
    simple = curve.returns()
    per_year = convention.periods_per_year
    assert per_year is not None
    free = (1 + convention.risk_free) ** (1 / per_year) - 1
    spread = "n - 1" if convention.ddof else "n"
    kind = "log returns" if convention.returns == "log" else "simple returns"
    basis = f"{kind} per {convention.period} s, {per_year:.10g} periods a year"

    def log_of(returns: Floats) -> Floats | None:
        if convention.returns == "simple":
            return returns
        return np.log1p(returns) if bool(np.all(returns > -1)) else None

    def told(of: Callable[[Floats], float | None]) -> float | None:
        chosen = None if simple is None else log_of(simple)
        return None if chosen is None else of(chosen)

    years = (
        "(1 + mean(r)) ^ periods a year - 1"
        if convention.annual == "mean"
        else "(final / initial) ^ (periods a year / periods) - 1"
    )
    annual = None if simple is None else ratios.annual_return(simple, per_year, convention.annual)
    fallen = None if simple is None else ratios.max_drawdown(simple)
    final = curve.final / curve.initial - 1 if curve.initial > 0 else None
    return [
        Figure("net_profit", "Net profit", total((curve.final, negated(curve.initial))), Unit.MONEY, "final equity - initial equity, after fees and slippage"),
        Figure("total_return", "Total return", None if final is None else float(final), Unit.SHARE, "final equity / initial equity - 1"),
        Figure("cagr", "CAGR", annual, Unit.SHARE, f"{years}; {basis}"),
        Figure("volatility", "Volatility", told(lambda r: ratios.volatility(r, per_year, convention.ddof)), Unit.SHARE, f"std(r) * sqrt(periods a year), divisor {spread}; {basis}"),
        Figure("sharpe", "Sharpe ratio", told(lambda r: ratios.sharpe(r, per_year, free, convention.ddof, convention.annual)), Unit.NUMBER, f"{'annual return(r - rf) / volatility' if convention.annual == 'mean' else 'mean(r - rf) / std(r - rf) * sqrt(periods a year)'}, divisor {spread}, risk-free {convention.risk_free:.4g} a year; {basis}", "Sharpe 1994"),
        Figure("sortino", "Sortino ratio", told(lambda r: ratios.sortino(r, per_year, free)), Unit.NUMBER, f"mean(r - rf) * periods a year / (sqrt(mean(min(r - rf, 0)^2)) * sqrt(periods a year)), over all periods, risk-free {convention.risk_free:.4g} a year; {basis}", "Sortino and Price 1994"),
        Figure("calmar", "Calmar ratio", None if annual is None or not fallen else annual / abs(fallen), Unit.NUMBER, "CAGR / |deepest drawdown at the end of a period|, over all of the run", "Young 1991"),
        Figure("skewness", "Skewness", told(ratios.skewness), Unit.NUMBER, f"adjusted sample skewness G1; {basis}", "Joanes and Gill 1998"),
        Figure("kurtosis", "Excess kurtosis", told(ratios.kurtosis), Unit.NUMBER, f"adjusted sample excess kurtosis G2, 0 for the normal distribution; {basis}", "Joanes and Gill 1998"),
        Figure("var_95", "VaR 95", told(lambda r: ratios.value_at_risk(r, LEVEL)), Unit.SHARE, f"5th percentile of returns, linear between two, a loss is negative; {basis}"),
        Figure("es_95", "Expected shortfall 95", told(lambda r: ratios.expected_shortfall(r, LEVEL)), Unit.SHARE, f"mean of the returns that are not above VaR 95; {basis}", "Acerbi and Tasche 2002"),
    ]  # fmt: skip


def _of_falls(curve: EquityCurve) -> list[Figure]:
    deepest = curve.deepest()
    known = len(curve) > 0
    return [
        Figure("max_drawdown", "Max drawdown", (deepest.depth if deepest else 0.0) if known else None, Unit.SHARE, "least of equity / highest equity so far - 1, at the close of each bucket; 0 or below; the start counts as a height"),
        Figure("drawdown_from", "Drawdown from", deepest.peak_ms if deepest else None, Unit.INSTANT, "when the height before the deepest drawdown was last reached"),
        Figure("drawdown_to", "Drawdown to", deepest.trough_ms if deepest else None, Unit.INSTANT, "when the deepest drawdown was reached first"),
        Figure("drawdown_recovered", "Recovered at", deepest.recovered_ms if deepest else None, Unit.INSTANT, "when equity was at that height again; none where it never was"),
        Figure("longest_drawdown", "Longest drawdown", curve.under_water_ms() if known else None, Unit.DURATION, "longest time from a height to when it was reached again, or to the end"),
    ]  # fmt: skip


def _of_exposure(result: RunResult) -> list[Figure]:
    curve = result.curve
    known = len(curve) > 0
    held = np.divide(curve.exposure, curve.equity, out=np.zeros(len(curve)), where=curve.equity > 0)
    mean = float(np.mean(curve.equity)) if known else 0.0
    traded = traded_value(result.fills)
    return [
        Figure("exposure", "Mean exposure", float(np.mean(held)) if known else None, Unit.SHARE, "mean of sum(|quantity * close|) / equity over all buckets; 0 where equity is 0 or below"),
        Figure("time_in_market", "Time in market", float(np.mean(curve.exposure > 0)) if known else None, Unit.SHARE, "share of the buckets at whose close anything was held"),
        Figure("longest_flat", "Longest flat", curve.flat_ms() if known else None, Unit.DURATION, "longest time in which nothing was held at any close"),
        Figure("turnover", "Turnover", float(traded) / mean if mean > 0 else None, Unit.NUMBER, "sum(quantity * price) of all fills, bought and sold, / mean equity; over the run, not a year"),
    ]  # fmt: skip


def _of_trades(result: RunResult, trades: Trades) -> list[Figure]:
    profits = [one.net for one in trades.closed]
    won, lost = [one for one in profits if one > 0], [one for one in profits if one < 0]
    held = [one.held_ms for one in trades.closed]
    made = f"a trade is one order's reduction of a position, {trades.matching.value} costs, after fees"
    return [
        Figure("trades", "Trades", len(profits), Unit.COUNT, made),
        Figure("hit_rate", "Hit rate", hit_rate(profits), Unit.SHARE, f"trades with net profit above 0 / trades; {made}"),
        Figure("profit_factor", "Profit factor", profit_factor(profits), Unit.NUMBER, "sum of net profits above 0 / |sum of those below|; none without a loss"),
        Figure("expectancy", "Expectancy", mean_profit(profits), Unit.MONEY, "mean net profit of a trade"),
        Figure("average_win", "Average win", mean_profit(won), Unit.MONEY, "mean of the net profits above 0"),
        Figure("average_loss", "Average loss", mean_profit(lost), Unit.MONEY, "mean of the net profits below 0"),
        Figure("average_held", "Average holding", sum(held) // len(held) if held else None, Unit.DURATION, "mean time from entry to exit"),
        Figure("fees", "Fees", total(one.fee for one in result.fills), Unit.MONEY, "sum of the fees of all fills"),
        Figure("slippage", "Slippage", slippage_paid(result.fills), Unit.MONEY, "sum(quantity * slippage) of all fills; in their prices already"),
    ]  # fmt: skip


def _of_benchmark(curve: EquityCurve, sampled: EquityCurve, benchmark: Floats | None) -> list[Figure]:
    returns, grown = sampled.returns(), None
    if benchmark is not None:
        at = np.searchsorted(curve.bucket_ms, sampled.bucket_ms)
        levels = np.concatenate(([1.0], benchmark[at]))
        grown = levels[1:] / levels[:-1] - 1.0
    alike = None if returns is None or grown is None else ratios.correlation(returns, grown)
    return [
        Figure("held_return", "Buy and hold", None if benchmark is None else float(benchmark[-1] - 1), Unit.SHARE, "all symbols in equal parts from their first close to the last, without costs"),
        Figure("held_correlation", "Correlation to it", alike, Unit.NUMBER, "Pearson's, of returns per period with those of buy and hold"),
    ]  # fmt: skip
