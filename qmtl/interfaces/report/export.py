"""Trades, fills and equity as tables for other programs: CSV always, Parquet where pyarrow is installed.

Money is decimal text in CSV, without loss. In Parquet it is `decimal128(38, s)` with the fewest places s that hold the column, and text where a
column does not fit. Times are epoch ms in both, in Parquet as timestamps of UTC.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from qmtl.foundation.common.errors import MissingExtra
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.trade import Order, OrderRejection
from qmtl.runtime.performance.curve import in_order
from qmtl.runtime.performance.result import RunResult
from qmtl.runtime.performance.trades import Trades

_DIGITS: Final = 38
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to spreadsheets."""


Kind: TypeAlias = Literal["text", "money", "float", "integer", "truth"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One table, by columns.

    Attributes:
        columns: name to values, of one kind each: text, exact decimals, floats, or epoch ms where the name ends in `_ms`.
        kinds: of columns whose name alone does not say their kind.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def rows(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns.values(), strict=True)


def tables_of(result: RunResult, trades: Trades) -> tuple[Table, ...]:
    """Trades, fills and equity."""
    closed, fills, curve = trades.closed, in_order(result.fills), result.curve
    drawdowns = curve.drawdowns()[1:]
    return (
        Table(
            "trades",
            {
                "symbol": [one.symbol for one in closed],
                "direction": [one.direction.value for one in closed],
                "order_id": [one.order_id for one in closed],
                "quantity": [one.quantity for one in closed],
                "entry_ms": [one.entry_ms for one in closed],
                "exit_ms": [one.exit_ms for one in closed],
                "entry_price": [one.entry_price for one in closed],
                "exit_price": [one.exit_price for one in closed],
                "entry_value": [one.entry_value for one in closed],
                "exit_value": [one.exit_value for one in closed],
                "gross": [one.gross for one in closed],
                "fees": [one.fees for one in closed],
                "net": [one.net for one in closed],
                "mae": [one.mae for one in closed],
                "mfe": [one.mfe for one in closed],
            },
        ),
        Table(
            "fills",
            {
                "fill_time_ms": [one.fill_time_ms for one in fills],
                "symbol": [one.symbol for one in fills],
                "order_id": [one.order_id for one in fills],
                "seq": [one.seq for one in fills],
                "side": [one.side.value for one in fills],
                "quantity": [one.quantity for one in fills],
                "price": [one.price for one in fills],
                "fee": [one.fee for one in fills],
                "fee_currency": [one.fee_currency for one in fills],
                "slippage": [one.slippage for one in fills],
            },
        ),
        Table(
            "equity",
            {
                "bucket_ms": curve.bucket_ms.tolist(),
                "equity": curve.equity.tolist(),
                "exposure": curve.exposure.tolist(),
                "drawdown": drawdowns.tolist(),
            },
        ),
    )


def order_tables(orders: Iterable[Order], rejections: Iterable[OrderRejection]) -> tuple[Table, ...]:
    """Orders as they ended, by the time of their creation, and what became none."""
    placed = sorted(orders, key=lambda one: (one.created_at_ms, one.symbol, one.order_id))
    refused = sorted(rejections, key=lambda one: (one.bucket_ms, one.symbol, one.intent_index))
    return (
        Table(
            "orders",
            {
                "created_at_ms": [one.created_at_ms for one in placed],
                "symbol": [one.symbol for one in placed],
                "order_id": [one.order_id for one in placed],
                "side": [one.side.value for one in placed],
                "order_type": [one.order_type.value for one in placed],
                "quantity": [one.quantity for one in placed],
                "reference_price": [one.reference_price for one in placed],
                "status": [one.status.value for one in placed],
                "cum_quantity": [one.cum_quantity for one in placed],
                "average_price": [one.average_price for one in placed],
                "updated_at_ms": [one.updated_at_ms for one in placed],
            },
        ),
        Table(
            "rejections",
            {
                "bucket_ms": [one.bucket_ms for one in refused],
                "symbol": [one.symbol for one in refused],
                "intent_index": [one.intent_index for one in refused],
                "reason": [one.reason.value for one in refused],
                "detail": [one.detail for one in refused],
            },
        ),
    )


def write_csv(table: Table, path: Path) -> None:
    """UTF-8, a header, `\\n` at line ends; nothing where there is no value."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_written(one) for one in row] for row in table.rows())


def _written(value: object) -> str:
    match value:
        case None:
            return ""
        case Decimal():
            return text(value)
        case str() if value.startswith(_DANGEROUS):
            return f"'{value}"
        case bool():
            return "true" if value else "false"
        case float():
            return repr(value)
        case _:
            return str(value)


def require_parquet() -> None:
    """See whether Parquet can be written.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    _arrow("pyarrow")


def _arrow(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(
            "Parquet was asked for, and pyarrow is not installed.",
            "Install it: `pip install 'qmtl[data]'`; or go without, CSV is written always.",
        ) from None


def write_parquet(table: Table, path: Path) -> None:
    """One row group per million rows, zstd.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow, parquet = _arrow("pyarrow"), _arrow("pyarrow.parquet")
    columns = {
        name: arrow.array(*_column(arrow, name, values, table.kinds.get(name)))
        for name, values in table.columns.items()
    }
    parquet.write_table(arrow.table(columns), str(path), compression="zstd")


def _column(arrow: Any, name: str, values: Sequence[Any], said: Kind | None) -> tuple[list[Any], Any]:
    known = said or _kind(name)
    if known == "integer" and name.endswith("_ms"):
        return list(values), arrow.timestamp("ms", tz="UTC")
    if known == "money":
        places = max((-int(one.as_tuple().exponent) for one in values if one is not None), default=0)
        kept = max(places, 0)
        if _fits(values, kept):
            return list(values), arrow.decimal128(_DIGITS, kept)
        return [None if one is None else text(one) for one in values], arrow.string()
    types = {"integer": arrow.int64, "float": arrow.float64, "truth": arrow.bool_, "text": arrow.string}
    return list(values), types[known]()


def _kind(name: str) -> Kind:
    if name.endswith("_ms") or name in ("seq", "intent_index"):
        return "integer"
    if name in _MONEY:
        return "money"
    return "float" if name in ("equity", "exposure", "drawdown") else "text"


_MONEY: Final = frozenset(
    (
        *("quantity", "entry_price", "exit_price", "entry_value", "exit_value", "gross", "fees", "net"),
        *("mae", "mfe", "price", "fee", "slippage", "cum_quantity", "average_price", "reference_price"),
    )
)


def _fits(values: Iterable[Decimal | None], places: int) -> bool:
    return all(one is None or one.adjusted() + 1 + places <= _DIGITS for one in values) and places <= _DIGITS
