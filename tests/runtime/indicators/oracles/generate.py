"""Writes the tables beside it: what other libraries give for real bars. Run once, where these are installed:

pip install --target LIBS TA-Lib pandas talipp
PYTHONPATH=.:LIBS python tests/runtime/indicators/oracles/generate.py
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qmtl.runtime.data.bars import default_sources, read_bars

HERE = Path(__file__).parent
BARS = 160
SKIPPED = 600
COMMAND = "PYTHONPATH=.:LIBS python tests/runtime/indicators/oracles/generate.py"
LICENCES = {"TA-Lib": "BSD-2-Clause", "pandas": "BSD-3-Clause", "talipp": "MIT"}


def rows() -> dict[str, list[str]]:
    """Prices and volumes of consecutive real minutes, as texts."""
    source = default_sources()[0]
    bars = list(read_bars(source.path, source.symbol, 60))[SKIPPED : SKIPPED + BARS]
    return {
        name: [str(getattr(bar, name)) for bar in bars] for name in ("open", "high", "low", "close", "volume")
    }


def plain(values: Iterable[Any]) -> list[float | None]:
    return [None if one is None or math.isnan(one) else float(one) for one in values]


def table(library: str, found: list[tuple[str, int, dict[str, Any], str, Iterable[Any]]]) -> None:
    """One file: node type, period, parameters, the library's own call, and what it gave for the close of every bar."""
    out = {
        "library": library,
        "version": version(library),
        "licence": LICENCES[library],
        "command": COMMAND,
        "bars": rows(),
        "tables": [
            {"node_type": name, "period": period, "params": params, "call": call, "values": plain(values)}
            for name, period, params, call, values in found
        ],
    }
    (HERE / f"{library.lower().replace('-', '')}.json").write_text(json.dumps(out, indent=1) + "\n")


def talib(market: dict[str, Any]) -> None:
    ta = importlib.import_module("talib")
    close, high, low, volume = (market[name] for name in ("close", "high", "low", "volume"))
    upper, middle, lower = ta.BBANDS(close, 20, 2, 2, 0)
    table(
        "TA-Lib",
        [
            ("sma", 10, {}, "SMA(close, 10)", ta.SMA(close, 10)),
            ("ema", 10, {}, "EMA(close, 10)", ta.EMA(close, 10)),
            ("wma", 10, {}, "WMA(close, 10)", ta.WMA(close, 10)),
            ("rsi", 14, {}, "RSI(close, 14)", ta.RSI(close, 14)),
            ("atr", 14, {}, "ATR(high, low, close, 14)", ta.ATR(high, low, close, 14)),
            ("bollinger", 20, {"band": "upper", "k": 2}, "BBANDS(close, 20, 2, 2)[0]", upper),
            ("bollinger", 20, {"band": "middle", "k": 2}, "BBANDS(close, 20, 2, 2)[1]", middle),
            ("bollinger", 20, {"band": "lower", "k": 2}, "BBANDS(close, 20, 2, 2)[2]", lower),
            ("std", 10, {"ddof": 0}, "STDDEV(close, 10)", ta.STDDEV(close, 10)),
            ("min", 10, {}, "MIN(close, 10)", ta.MIN(close, 10)),
            ("max", 10, {}, "MAX(close, 10)", ta.MAX(close, 10)),
            ("correlation", 10, {}, "CORREL(close, volume, 10)", ta.CORREL(close, volume, 10)),
            ("returns", 5, {"kind": "simple"}, "ROCP(close, 5)", ta.ROCP(close, 5)),
        ],
    )


def pandas(market: dict[str, Any]) -> None:
    pd = importlib.import_module("pandas")
    np = importlib.import_module("numpy")
    close, volume, high, low = (pd.Series(market[name]) for name in ("close", "volume", "high", "low"))
    last: Callable[[int], Any] = close.rolling
    typical = (high + low + close) / 3
    upper, lower = last(20).mean() + 2 * last(20).std(ddof=0), last(20).mean() - 2 * last(20).std(ddof=0)
    table(
        "pandas",
        [
            ("std", 10, {"ddof": 1}, "close.rolling(10).std()", last(10).std()),
            ("quantile", 10, {"q": 0.5}, "close.rolling(10).median()", last(10).median()),
            ("quantile", 10, {"q": 0.9}, "close.rolling(10).quantile(0.9)", last(10).quantile(0.9)),
            ("correlation", 10, {}, "close.rolling(10).corr(volume)", last(10).corr(volume)),
            (
                "zscore",
                10,
                {"ddof": 1},
                "(close - close.rolling(10).mean()) / close.rolling(10).std()",
                (close - last(10).mean()) / last(10).std(),
            ),
            ("returns", 5, {"kind": "simple"}, "close.pct_change(5)", close.pct_change(5)),
            ("returns", 5, {"kind": "log"}, "log(close).diff(5)", np.log(close).diff(5)),
            (
                "vwap",
                10,
                {},
                "(typical * volume).rolling(10).sum() / volume.rolling(10).sum()",
                (typical * volume).rolling(10).sum() / volume.rolling(10).sum(),
            ),
            (
                "bollinger",
                20,
                {"band": "percent_b", "k": 2},
                "(close - lower) / (upper - lower), from rolling(20)",
                (close - lower) / (upper - lower),
            ),
            (
                "bollinger",
                20,
                {"band": "bandwidth", "k": 2},
                "(upper - lower) / close.rolling(20).mean()",
                (upper - lower) / last(20).mean(),
            ),
            *(
                (
                    "resample",
                    1,
                    {"every": 60 * minutes, "take": take},
                    f"{column}.resample('{minutes}min', closed='right', label='right').{take}()",
                    longer(pd.Series(market[column]), minutes, name),
                )
                for column, minutes, take, name in (
                    ("close", 5, "first", "first"),
                    ("close", 5, "last", "last"),
                    ("close", 15, "mean", "mean"),
                    ("close", 60, "sum", "sum"),
                    ("open", 15, "open", "first"),
                    ("high", 15, "high", "max"),
                    ("low", 15, "low", "min"),
                    ("volume", 15, "volume", "sum"),
                )
            ),
        ],
    )


def longer(column: Any, minutes: int, take: str) -> Any:
    """One value of so many minutes, in the row of the last of them; the rows close at the end of their minutes."""
    pd = importlib.import_module("pandas")
    closes = pd.to_datetime((column.index + 1) * 60, unit="s")
    found = getattr(
        pd.Series(column.to_numpy(), closes).resample(f"{minutes}min", closed="right", label="right"), take
    )()
    return found.reindex(closes)


def talipp(market: dict[str, Any]) -> None:
    indicators = importlib.import_module("talipp.indicators")
    given = indicators.MACD(12, 26, 9, market["close"].tolist())

    def of(name: str) -> list[Any]:
        return [None if one is None else getattr(one, name) for one in given]

    parts = {"value": "macd", "signal": "signal", "histogram": "histogram"}
    table(
        "talipp",
        [
            (
                "macd",
                26,
                {"fast": 12, "signal": 9, "output": output},
                f"MACD(12, 26, 9, close).{part}",
                of(part),
            )
            for output, part in parts.items()
        ]
        + [
            ("ema", 10, {}, "EMA(10, close)", list(indicators.EMA(10, market["close"].tolist()))),
            ("rsi", 14, {}, "RSI(14, close)", list(indicators.RSI(14, market["close"].tolist()))),
        ],
    )


def main() -> None:
    np = importlib.import_module("numpy")
    market = {name: np.array([float(one) for one in texts]) for name, texts in rows().items()}
    talib(market)
    pandas(market)
    talipp(market)


if __name__ == "__main__":
    main()
