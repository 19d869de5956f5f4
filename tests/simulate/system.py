"""All processors of the topology, with the shipped strategy on a few of the shipped bars, as a scenario."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from importlib.resources import files
from itertools import takewhile
from typing import Any

from qmtl.bootstrap import make_workers
from qmtl.engine.simulate.scenario import Scenario, Start
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.runtime.data.bars import default_sources, read_bars
from qmtl.runtime.data.instruments import instrument_for
from qmtl.testing.simulation import strategy_scenario
from qmtl.topology import NAMES

MINUTES = 40


def message(fast: int = 3, slow: int = 8) -> dict[str, Any]:
    """The shipped strategy with averages so short that it trades within minutes."""
    raw: dict[str, Any] = json.loads(files("qmtl.examples").joinpath("sma_cross.json").read_bytes())
    for node in raw["nodes"]:
        if "period" in node:
            node["period"] = fast if node["name"] == "fast" else slow
    return raw


@cache
def bars(minutes: int = MINUTES) -> tuple[Bar, ...]:
    """The first minutes of the shipped bars, by open time."""
    found = [list(_first(source.path, source.symbol, minutes)) for source in default_sources()]
    return tuple(
        sorted((bar for one in found for bar in one), key=lambda bar: (bar.open_time_ms, bar.symbol))
    )


def _first(path: Any, symbol: str, minutes: int) -> Any:
    rows = read_bars(path, symbol, 60)
    first = next(rows)
    yield first
    end_ms = first.open_time_ms + minutes * 60_000
    yield from takewhile(lambda bar: bar.open_time_ms < end_ms, rows)


def settings() -> WorldSettings:
    symbols = sorted({bar.symbol for bar in bars()})
    return WorldSettings(
        "USD",
        Decimal(100_000),
        Decimal("0.001"),
        Decimal("0.0005"),
        tuple(instrument_for(symbol) for symbol in symbols),
    )


def system(workers: int = 1) -> Scenario:
    """Every processor as `qmtl worker run` would start it."""

    def start(name: str, number: int) -> Start:
        return lambda log, given: make_workers(log, given, [name], str(number))[0]

    slots = {f"qmtl.{name}.{number}": start(name, number) for name in NAMES for number in range(workers)}
    return strategy_scenario(slots, message(), bars(), settings())
