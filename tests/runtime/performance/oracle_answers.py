"""Our answers to the rows of `kpi_oracles.json`: which function of ours is asked, and with what."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

from qmtl.runtime.columns import Floats, Integers
from qmtl.runtime.performance import ratios
from qmtl.runtime.performance.curve import EquityCurve
from qmtl.runtime.performance.trades import hit_rate, mean_profit, profit_factor

DAY_MS = 86_400_000
PER_YEAR = {"daily": 252.0, "weekly": 52.0, "monthly": 12.0, "yearly": 1.0}

Row = dict[str, Any]
Answer = Any


class NotOffered(Exception):
    """A figure or a field of one that nothing here computes, or data that the row names and does not hold."""


def answer(row: Row) -> Answer:
    """What ours says; None where it is undefined.

    Raises:
        NotOffered: nothing of ours computes it.
    """
    try:
        return ANSWERS[row["library"], row["kpi"]](row)
    except KeyError as missing:
        raise NotOffered(str(missing)) from None


def floats(values: Any) -> Floats:
    return np.array([float(one) for one in values])


def series(value: Any) -> Floats:
    """A series of the rows, with NaN where it has none; those that are told in words are made of the words."""
    if not isinstance(value, dict):
        return floats(value)
    if "values" in value:
        return floats(value["values"])
    name = value["name"]
    mixed = floats(["NaN", 0.01, 0.10, -0.04, 0.02, 0.03, 0.02, 0.01, -0.10])
    return {
        "pos_line": np.linspace(0, 1, 1000),
        "flat_line_1_tz": np.full(1000, 0.01),
        "-mixed_returns": -mixed,
        "negative_returns[1:]": floats(["NaN", -0.06, -0.07, -0.01, -0.09, -0.02, -0.06, -0.08, -0.05]),
    }[name]


def whole(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def both(one: Floats, other: Any) -> tuple[Floats, Any]:
    """The periods of which both have a return."""
    if isinstance(other, float):
        return whole(one), other
    n = min(len(one), len(other))
    known = ~np.isnan(one[:n]) & ~np.isnan(other[:n])
    return one[:n][known], other[:n][known]


def level(value: Any) -> Any:
    """A number per period, or a series of them."""
    return float(value) if isinstance(value, str) else series(value)


def returns_of(row: Row) -> Floats:
    return series(row["inputs"]["returns"])


def per_year(row: Row) -> float:
    inputs = row["inputs"]
    named = inputs.get("period")
    if named is None and isinstance(inputs.get("returns"), dict):
        named = inputs["returns"].get("freq")
    return PER_YEAR[named or "daily"]


def yearly(values: Floats, times: float = 252.0) -> float | None:
    """Periods without a return count, as empyrical has it."""
    return ratios.annual_return(whole(values), times, periods=len(values))


# ---- empyrical --------------------------------------------------------------------------------------------------


def curve(row: Row) -> Answer:
    start = float(row["inputs"]["starting_value"])
    grown = ratios.growth_curve(np.nan_to_num(returns_of(row)))
    return (grown * start if start else grown - 1).tolist()


def cumulative(row: Row) -> Answer:
    start = float(row["inputs"]["starting_value"])
    found = ratios.total_return(whole(returns_of(row)))
    return None if found is None else ((1 + found) * start if start else found)


def days_of(row: Row) -> Integers:
    """The closes of the days of a series, which in that suite begin at 2000-01-30; weeks end on Sundays, months on their last day."""
    freq = row["inputs"]["returns"]["freq"]
    n = len(returns_of(row))
    if freq == "monthly":
        first = np.datetime64("2000-02", "M")
        days = (first + np.arange(n)).astype("datetime64[D]").astype(np.int64) - 1
    else:
        days = int(np.datetime64("2000-01-30", "D").astype(np.int64)) + np.arange(n) * (
            7 if freq == "weekly" else 1
        )
    closes: Integers = (days + 1) * DAY_MS
    return closes


def aggregate(row: Row) -> Answer:
    unit, days, values = row["inputs"]["convert_to"], days_of(row), returns_of(row)
    if unit == "yearly":
        return ratios.compounded(days, values, "Y")[1].tolist()
    months, grown = ratios.compounded(days, values, "M")
    if unit == "monthly":
        return grown.tolist()
    return [ratios.total_return(grown[months // 3 == one]) for one in sorted(set((months // 3).tolist()))]


def sharpe(row: Row) -> Answer:
    values, free = both(returns_of(row), level(row["inputs"]["risk_free"]))
    return ratios.sharpe(values, 252.0, free)


def by_column(of: Callable[[Floats, float, Any], float | None], row: Row) -> Answer:
    source = row["inputs"]["returns"]
    required = level(row["inputs"]["required_return"])
    if "columns" in source:
        return {
            name: of(floats(values), per_year(row), required) for name, values in source["columns"].items()
        }
    values, required = both(returns_of(row), required)
    return of(values, per_year(row), required)


def omega(row: Row) -> Answer:
    values, free = both(returns_of(row), level(row["inputs"]["risk_free"]))
    required = (1 + float(row["inputs"]["required_return"])) ** (1 / 252) - 1
    return ratios.omega(values, free + required)


def information(row: Row) -> Answer:
    values, other = both(returns_of(row), level(row["inputs"]["factor_returns"]))
    return ratios.information_ratio(values, other)


def pair(row: Row) -> tuple[Floats, Floats]:
    inputs = row["inputs"]
    return both(returns_of(row), series(inputs.get("benchmark", inputs.get("factor_returns"))))


def capture(row: Row, keep: Callable[[Floats], Any] = lambda other: np.full(len(other), True)) -> Answer:
    inputs = row["inputs"]
    one, other = returns_of(row), series(inputs.get("benchmark", inputs.get("factor_returns")))
    kept = keep(other)
    mine, theirs = yearly(one[kept]), yearly(other[kept])
    return None if mine is None or not theirs else mine / theirs


def calmar(row: Row) -> Answer:
    return ratios.calmar(whole(returns_of(row)), per_year(row), periods=len(returns_of(row)))


def windows(row: Row, of: Callable[[Floats], float | None]) -> Answer:
    values, width = returns_of(row), int(row["inputs"]["window"])
    return [of(whole(values[at : at + width])) for at in range(len(values) - width + 1)]


# ---- Lean and Nautilus --------------------------------------------------------------------------------------------


def performance(row: Row) -> tuple[Floats, float]:
    return floats(row["inputs"]["performance"]), float(row["inputs"].get("trading_days", 252))


def lean_sharpe(row: Row) -> Answer:
    values, days = performance(row)
    return ratios.sharpe(values, days, method="mean")


def lean_annual(row: Row) -> Answer:
    told = row["inputs"]["returns"]
    made = {
        "176 x 0.5 then 176 x 1.5": np.repeat([0.5, 1.5], 176),
        "252 x 0.0": np.zeros(252),
    }
    return ratios.annual_return(made[told], float(row["inputs"]["trading_days"]), "mean")


def tracking(row: Row) -> Answer:
    if "series" in row["inputs"]:
        made = {
            "identical series": (np.arange(9) / 100, np.arange(9) / 100),
            "all zeros": (np.zeros(9), np.zeros(9)),
        }
        return ratios.tracking_error(*made[row["inputs"]["series"]], 252)
    values, days = performance(row)
    return ratios.tracking_error(values, floats(row["inputs"]["benchmark"]), days)


def probabilistic(row: Row) -> Answer:
    values, days = performance(row)
    if "trading_days" in row["inputs"]:
        return ratios.probabilistic_sharpe(values, 1 / days**0.5, kurtosis_is_excess=True)
    benchmark = ratios.sharpe(floats(row["inputs"]["benchmark"]), 1.0)
    return (
        None if benchmark is None else ratios.probabilistic_sharpe(values, benchmark, kurtosis_is_excess=True)
    )


def recovery(row: Row) -> Answer:
    values = floats(row["inputs"]["equity_daily"])
    if not len(values):
        return 0
    times = np.arange(1, len(values), dtype=np.int64) * DAY_MS
    made = EquityCurve(0, times, values[1:], values[1:], Decimal(int(values[0])), Decimal(int(values[-1])))
    return made.under_water_ms(recovered_only=True) / DAY_MS


def parametric(row: Row) -> Answer:
    values = floats(row["inputs"]["returns"])
    return {
        name: ratios.value_at_risk(values, at, "normal") for name, at in (("VaR_99", 0.99), ("VaR_95", 0.95))
    }


def profits(row: Row, name: str) -> list[Decimal]:
    return [Decimal(one) for one in row["inputs"][name]]


def statistics(row: Row) -> Answer:
    """The fields that ours has; the others are named where the deviations are."""
    made = [Decimal(one["pnl"]) for one in row["inputs"]["trades"]]
    won, lost = [one for one in made if one > 0], [one for one in made if one < 0]
    values = np.array([float(one) for one in made])
    return {
        "total_pnl": sum(made),
        "total_profit": sum(won),
        "total_loss": sum(lost),
        "total_fees": sum(Decimal(one["fees"]) for one in row["inputs"]["trades"]),
        "average_pnl": mean_profit(made),
        "average_profit": mean_profit(won),
        "average_loss": mean_profit(lost),
        "win_rate": hit_rate(made),
        "profit_factor": profit_factor(made),
        "pnl_std": ratios.deviation(values),
        "sharpe": ratios.sharpe(values, 1.0),
    }


def by_days(row: Row) -> Answer:
    steps = np.arange(1, len(row["inputs"]["returns"]) + 1, dtype=np.int64) * (
        DAY_MS // (2 if row["inputs"]["freq"] == "12h" else 1)
    )
    daily = ratios.compounded(steps, floats(row["inputs"]["returns"]), "D")[1]
    return ratios.volatility(daily, 252.0)


_E, _L, _N = "empyrical-reloaded", "Lean", "Nautilus"
ANSWERS: dict[tuple[str, str], Callable[[Row], Answer]] = {
    (_E, "cumulative_return_curve"): curve,
    (_E, "cumulative_return"): cumulative,
    (_E, "aggregate_return"): aggregate,
    (_E, "max_drawdown"): lambda row: ratios.max_drawdown(whole(returns_of(row))),
    (_E, "annual_return"): lambda row: yearly(returns_of(row), per_year(row)),
    (_E, "cagr"): lambda row: yearly(returns_of(row), per_year(row)),
    (_E, "annual_volatility"): lambda row: ratios.volatility(whole(returns_of(row)), per_year(row)),
    (_E, "calmar_ratio"): calmar,
    (_E, "omega_ratio"): omega,
    (_E, "sharpe_ratio"): sharpe,
    (_E, "downside_risk"): lambda row: by_column(ratios.downside_deviation, row),
    (_E, "sortino_ratio"): lambda row: by_column(ratios.sortino, row),
    (_E, "information_ratio"): information,
    (_E, "alpha_beta"): lambda row: [ratios.alpha(*pair(row), 252.0), ratios.beta(*pair(row))],
    (_E, "alpha"): lambda row: ratios.alpha(*pair(row), 252.0),
    (_E, "beta"): lambda row: ratios.beta(*pair(row)),
    (_E, "stability"): lambda row: ratios.stability(whole(returns_of(row))),
    (_E, "tail_ratio"): lambda row: ratios.tail_ratio(whole(returns_of(row))),
    (_E, "rolling_max_drawdown"): lambda row: windows(row, ratios.max_drawdown),
    (_E, "rolling_sharpe"): lambda row: windows(row, lambda values: ratios.sharpe(values, 252.0)),
    (_E, "capture_ratio"): capture,
    (_E, "down_capture"): lambda row: capture(row, lambda other: other < 0),
    (_E, "up_capture"): lambda row: capture(row, lambda other: other > 0),
    (_E, "value_at_risk"): lambda row: ratios.value_at_risk(returns_of(row), 1 - float(row["inputs"]["cutoff"])),
    (_L, "annual_variance"): lambda row: (ratios.volatility(*performance(row)) or 0.0) ** 2,
    (_L, "annual_standard_deviation"): lambda row: ratios.volatility(*performance(row)),
    (_L, "sharpe_ratio"): lean_sharpe,
    (_L, "annual_return"): lean_annual,
    (_L, "tracking_error"): tracking,
    (_L, "probabilistic_sharpe_ratio"): probabilistic,
    (_L, "observed_sharpe_ratio"): lambda row: ratios.sharpe(performance(row)[0], 1.0, float(row["inputs"]["risk_free_per_sample"])),
    (_L, "drawdown_recovery_days"): recovery,
    (_L, "value_at_risk"): parametric,
    (_L, "win_rate"): lambda row: hit_rate(profits(row, "trade_pnls")),
    (_L, "loss_rate"): lambda row: 1 - (hit_rate(profits(row, "trade_pnls")) or 0.0),
    (_L, "trade_statistics"): statistics,
    (_N, "annual_volatility"): by_days,
    (_N, "profit_factor"): lambda row: profit_factor(profits(row, "returns")),
    (_N, "risk_return_ratio"): lambda row: ratios.sharpe(returns_of(row), 1.0),
    (_N, "expectancy"): lambda row: mean_profit(profits(row, "pnls")),
    (_N, "win_rate"): lambda row: hit_rate(profits(row, "pnls")),
}  # fmt: skip
