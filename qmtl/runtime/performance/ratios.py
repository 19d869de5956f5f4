"""Figures of a series of returns: each a function of the returns per period, and None where it is undefined.

Returns are simple and finite, one per period, in order: `r[t] = equity[t] / equity[t-1] - 1`. A figure is undefined, and None, where its
formula divides by nothing or has too few returns; never NaN, never infinite. Deviations take `ddof`: 1 for that of a sample (n - 1), 0 for that
of the population.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from qmtl.runtime.columns import Floats, Integers

Annual = Literal["geometric", "mean"]
"""How returns are made annual: what compounding gave, or the mean return compounded over a year (as Lean does)."""

SMALLEST_GROWTH: Final = 1e-300
_FLAT: Final = 1e-14
"""Returns that differ by less than this share of their size differ by the rounding of floats alone."""


def growth(returns: Floats) -> float:
    """`prod(1 + r)`; 1 for no returns."""
    return float(np.prod(1.0 + returns))


def growth_curve(returns: Floats) -> Floats:
    """`prod(1 + r)` up to each period."""
    return np.asarray(np.cumprod(1.0 + returns), dtype=np.float64)


def total_return(returns: Floats) -> float | None:
    """`prod(1 + r) - 1`."""
    return growth(returns) - 1.0 if len(returns) else None


def annual_return(
    returns: Floats, periods_per_year: float, method: Annual = "geometric", periods: int | None = None
) -> float | None:
    """The compound annual growth rate: `prod(1 + r) ** (periods_per_year / n) - 1`.

    Args:
        method: `mean` for `(1 + mean(r)) ** periods_per_year - 1` instead.
        periods: n, where it is not the number of returns: periods without a return count too (as empyrical does).

    Returns: None without returns, where nothing is left, or where it leaves the range of floats.
    """
    n = len(returns) if periods is None else periods
    if not len(returns) or n <= 0:
        return None
    if method == "mean":
        base, power = 1.0 + float(np.mean(returns)), periods_per_year
    else:
        base, power = growth(returns), periods_per_year / n
    if base <= SMALLEST_GROWTH:
        return None
    exponent = math.log(base) * power
    return math.expm1(exponent) if exponent < 700 else None


def deviation(returns: Floats, ddof: int = 1) -> float | None:
    """The standard deviation per period; 0 where all returns are the same."""
    if len(returns) <= ddof:
        return None
    return 0.0 if _is_flat(returns) else float(np.std(returns, ddof=ddof))


def volatility(returns: Floats, periods_per_year: float, ddof: int = 1) -> float | None:
    """`std(r) * sqrt(periods_per_year)`."""
    found = deviation(returns, ddof)
    return None if found is None else found * math.sqrt(periods_per_year)


def sharpe(
    returns: Floats,
    periods_per_year: float,
    risk_free: float | Floats = 0.0,
    ddof: int = 1,
    method: Annual = "geometric",
) -> float | None:
    """`mean(r - rf) / std(r - rf) * sqrt(periods_per_year)` (Sharpe 1994).

    Args:
        risk_free: per period.
        method: `mean` for `annual_return(r - rf, "mean") / volatility(r - rf)` (Lean).
    """
    excess = returns - risk_free
    spread = deviation(excess, ddof)
    if not spread:
        return None
    if method == "mean":
        yearly = annual_return(excess, periods_per_year, "mean")
        return None if yearly is None else yearly / (spread * math.sqrt(periods_per_year))
    return float(np.mean(excess)) / spread * math.sqrt(periods_per_year)


def downside_deviation(
    returns: Floats, periods_per_year: float, required: float | Floats = 0.0
) -> float | None:
    """`sqrt(mean(min(r - required, 0) ** 2)) * sqrt(periods_per_year)`, over all periods (Sortino 1994).

    Args:
        required: return per period.
    """
    if not len(returns):
        return None
    below = np.minimum(returns - required, 0.0)
    return math.sqrt(float(np.mean(below * below))) * math.sqrt(periods_per_year)


def sortino(returns: Floats, periods_per_year: float, required: float | Floats = 0.0) -> float | None:
    """`mean(r - required) * periods_per_year / downside_deviation`; None where no period is below."""
    below = downside_deviation(returns, periods_per_year, required)
    if not below:
        return None
    return float(np.mean(returns - required)) * periods_per_year / below


def max_drawdown(returns: Floats) -> float:
    """The deepest `equity / highest equity before - 1`, 0 or below; the start counts as a height."""
    if not len(returns):
        return 0.0
    curve = np.concatenate(([1.0], growth_curve(returns)))
    return min(0.0, float(np.min(curve / np.maximum.accumulate(curve) - 1.0)))


def calmar(returns: Floats, periods_per_year: float, periods: int | None = None) -> float | None:
    """`annual_return / |max_drawdown|` over all of the run (Young 1991 takes 36 months)."""
    yearly, deepest = annual_return(returns, periods_per_year, periods=periods), max_drawdown(returns)
    return None if yearly is None or not deepest else yearly / abs(deepest)


def omega(returns: Floats, threshold: float | Floats = 0.0) -> float | None:
    """`sum(max(r - threshold, 0)) / sum(max(threshold - r, 0))` (Keating and Shadwick 2002)."""
    excess = returns - threshold
    losses = float(np.sum(-excess[excess < 0]))
    return float(np.sum(excess[excess > 0])) / losses if losses else None


def value_at_risk(
    returns: Floats, level: float = 0.95, method: Literal["historical", "normal"] = "historical"
) -> float | None:
    """The return per period that `1 - level` of the periods fall short of; a loss is negative.

    Args:
        method: the percentile of the returns, linear between two of them; or the quantile of the normal distribution with their mean and
            sample deviation (None for fewer than two).
    """
    if method == "historical":
        return float(np.percentile(returns, 100 * (1 - level))) if len(returns) else None
    spread = deviation(returns)
    if spread is None:
        return None
    mean = float(np.mean(returns))
    return NormalDist(mean, spread).inv_cdf(1 - level) if spread else mean


def expected_shortfall(returns: Floats, level: float = 0.95) -> float | None:
    """The mean of the returns that are not above the historical value at risk (Acerbi and Tasche 2002)."""
    limit = value_at_risk(returns, level)
    return None if limit is None else float(np.mean(returns[returns <= limit]))


def skewness(returns: Floats) -> float | None:
    """The adjusted sample skewness G1, as spreadsheets have it (Joanes and Gill 1998); None for fewer than 3 returns."""
    n = len(returns)
    if n < 3 or _is_flat(returns):
        return None
    centred = returns - np.mean(returns)
    squared = centred * centred  # a power of a column takes ten times as long
    second, third = float(np.mean(squared)), float(np.mean(squared * centred))
    return third / math.pow(second, 1.5) * math.sqrt(n * (n - 1)) / (n - 2)


def kurtosis(returns: Floats) -> float | None:
    """The adjusted sample excess kurtosis G2, 0 for the normal distribution (Joanes and Gill 1998); None for fewer than 4 returns."""
    n = len(returns)
    if n < 4 or _is_flat(returns):
        return None
    centred = returns - np.mean(returns)
    squared = centred * centred
    second, fourth = float(np.mean(squared)), float(np.mean(squared * squared))
    return ((n + 1) * (fourth / second**2 - 3) + 6) * (n - 1) / ((n - 2) * (n - 3))


def probabilistic_sharpe(
    returns: Floats, benchmark: float, risk_free: float = 0.0, kurtosis_is_excess: bool = False
) -> float | None:
    """The probability that the true Sharpe ratio per period is above `benchmark` (Bailey and López de Prado 2012).

    `Phi((s - benchmark) * sqrt(n - 1) / sqrt(1 - G1 * s + (k - 1) / 4 * s ** 2))`, where s is the ratio per period that was seen.

    Args:
        kurtosis_is_excess: k is the excess kurtosis, as Lean takes it, instead of that of which the normal distribution has 3.
    """
    seen = sharpe(returns, 1.0, risk_free)
    skew, tails = skewness(returns), kurtosis(returns)
    if seen is None or skew is None or tails is None:
        return None
    k = tails if kurtosis_is_excess else tails + 3
    spread = 1 - skew * seen + (k - 1) / 4 * seen**2
    if spread <= 0:
        return None
    return NormalDist().cdf((seen - benchmark) * math.sqrt((len(returns) - 1) / spread))


def stability(returns: Floats) -> float | None:
    """R squared of a straight line through the cumulative log returns; None for fewer than 2 returns or where all is lost."""
    if len(returns) < 2 or bool(np.any(returns <= -1)):
        return None
    curve = np.cumsum(np.log1p(returns))
    found = correlation(np.arange(len(curve), dtype=np.float64), curve)
    return None if found is None else found**2


def tail_ratio(returns: Floats) -> float | None:
    """`|95th percentile| / |5th percentile|`."""
    if not len(returns):
        return None
    high, low = (abs(float(np.percentile(returns, at))) for at in (95, 5))
    return high / low if low else None


# ---- against a benchmark ----------------------------------------------------------------------------------------


def correlation(one: Floats, other: Floats) -> float | None:
    """Pearson's, of two series over the same periods."""
    if len(one) < 2 or _is_flat(one) or _is_flat(other):
        return None
    a, b = one - np.mean(one), other - np.mean(other)
    size = math.sqrt(_products(a, a) * _products(b, b))
    return max(-1.0, min(1.0, _products(a, b) / size)) if size else None


def _products(a: Floats, b: Floats) -> float:
    """The sum of the products; not `np.dot`, whose last bits hang on how many threads a library has, which differs between processes."""
    return float(np.sum(a * b))


def beta(returns: Floats, benchmark: Floats) -> float | None:
    """`cov(r, b) / var(b)` over the same periods."""
    if len(returns) < 2 or _is_flat(benchmark):
        return None
    a, b = returns - np.mean(returns), benchmark - np.mean(benchmark)
    return _products(a, b) / _products(b, b)


def alpha(returns: Floats, benchmark: Floats, periods_per_year: float) -> float | None:
    """`(1 + mean(r - beta * b)) ** periods_per_year - 1`."""
    slope = beta(returns, benchmark)
    return None if slope is None else annual_return(returns - slope * benchmark, periods_per_year, "mean")


def tracking_error(returns: Floats, benchmark: Floats, periods_per_year: float) -> float | None:
    """`std(r - b) * sqrt(periods_per_year)`."""
    return volatility(returns - benchmark, periods_per_year)


def information_ratio(returns: Floats, benchmark: float | Floats) -> float | None:
    """`mean(r - b) / std(r - b)` per period, not annual."""
    return sharpe(returns, 1.0, benchmark)


# ---- over calendar periods --------------------------------------------------------------------------------------


def compounded(bucket_ms: Integers, returns: Floats, unit: Literal["D", "M", "Y"]) -> tuple[Integers, Floats]:
    """The returns compounded within days, months or years of UTC.

    A return belongs to the unit in which its period ends; what ends at midnight belongs to the day before.

    Returns: the units that have any, counted from 1970, and their returns.
    """
    whole: Integers = (
        ((bucket_ms - 1).astype("datetime64[ms]")).astype(f"datetime64[{unit}]").astype(np.int64)
    )
    if not len(whole):
        return whole, returns
    starts = np.flatnonzero(np.concatenate(([True], whole[1:] != whole[:-1])))
    return whole[starts], np.multiply.reduceat(1.0 + returns, starts) - 1.0


def _is_flat(values: Floats) -> bool:
    low, high = float(np.min(values)), float(np.max(values))
    return high - low <= _FLAT * max(abs(low), abs(high))
