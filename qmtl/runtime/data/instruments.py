"""What orders of the shipped symbols must fit, as their exchange published it."""

from __future__ import annotations

import csv
from decimal import Decimal
from functools import cache
from pathlib import Path

from qmtl.foundation.common.money import parse_decimal
from qmtl.foundation.contracts.world import Instrument

FINEST = Decimal("0.00000001")
"""Tick, lot and minimum of a symbol without published limits: the step to which crypto exchanges count."""

_FILE = Path(__file__).parent / "market" / "instruments.csv"


@cache
def default_instruments() -> tuple[Instrument, ...]:
    """The instruments of the shipped file, sorted by symbol."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        rows = tuple(csv.DictReader(file))
    return tuple(
        sorted(
            (
                Instrument(
                    symbol=row["market_ticker"],
                    tick=parse_decimal(row["minimum_price_variation"], "tick"),
                    lot=parse_decimal(row["lot_size"], "lot"),
                    minimum=parse_decimal(row["minimum_order_size"], "minimum"),
                )
                for row in rows
            ),
            key=lambda instrument: instrument.symbol,
        )
    )


def instrument_for(symbol: str) -> Instrument:
    """The published limits of a symbol; `FINEST` for each where none are known."""
    for instrument in default_instruments():
        if instrument.symbol == symbol:
            return instrument
    return Instrument(symbol, FINEST, FINEST, FINEST)
